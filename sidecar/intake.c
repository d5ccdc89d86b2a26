#include "intake.h"
#include "kafka.h"
#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { WARM_MS = 1000 };

struct intake {
	const struct config *config;
	struct kafka_counts counts;
	struct kafka_hooks hooks;
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;
	int n;
	struct batch batch;
	rd_kafka_message_t **held; /* what the batch points into */
	size_t n_held, cap_held;
	bool keyless; /* said so */
};

struct batch *intake_batch(struct intake *in) { return &in->batch; }

static int assign(struct intake *in, const int64_t *from, char *err, size_t err_len)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(in->n);

	for (int p = 0; p < in->n; p++)
		rd_kafka_topic_partition_list_add(l, in->config->source_topic, p)->offset =
			from[p] == INTAKE_LOG_START ? RD_KAFKA_OFFSET_BEGINNING : from[p];
	rd_kafka_resp_err_t e = rd_kafka_assign(in->rk, l);
	rd_kafka_topic_partition_list_destroy(l);
	if (!e)
		return 0;
	snprintf(err, err_len, "assigning %s: %s", in->config->source_topic, rd_kafka_err2str(e));
	return INTAKE_REFUSED;
}

int intake_open(struct intake **out, const struct config *c, bool fill, int n, const int64_t *from,
		char *err, size_t err_len)
{
	struct intake *in = calloc(1, sizeof(*in));

	if (!in)
		return -ENOMEM;
	in->config = c;
	in->n = n;
	in->hooks.counts = &in->counts;
	in->rk = kafka_new(c, fill ? KAFKA_FILL : KAFKA_TAIL, &in->hooks, err, err_len);
	/* an assign before the leaders are known waits for a retry of half a second */
	if (in->rk)
		kafka_partitions(in->rk, c->source_topic, WARM_MS, err, err_len);
	if (!in->rk || assign(in, from, err, err_len)) {
		intake_close(in);
		return INTAKE_REFUSED;
	}
	in->queue = rd_kafka_queue_get_consumer(in->rk);
	*out = in;
	return 0;
}

void intake_close(struct intake *in)
{
	if (!in)
		return;
	intake_clear(in);
	batch_free(&in->batch);
	free(in->held);
	if (in->queue)
		rd_kafka_queue_destroy(in->queue);
	kafka_free(in->rk);
	free(in);
}

void intake_clear(struct intake *in)
{
	for (size_t i = 0; i < in->n_held; i++)
		rd_kafka_message_destroy(in->held[i]);
	in->n_held = 0;
	batch_clear(&in->batch);
}

void intake_pause(struct intake *in, int32_t partition)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(1);

	rd_kafka_topic_partition_list_add(l, in->config->source_topic, partition);
	rd_kafka_pause_partitions(in->rk, l);
	rd_kafka_topic_partition_list_destroy(l);
}

/* ---- headers ---- */

static size_t headers_bytes(const rd_kafka_headers_t *hs, const struct config *only)
{
	struct record_header h;
	size_t bytes = 0;

	for (size_t i = 0; !rd_kafka_header_get_all(hs, i, &h.name, &h.value, &h.value_len); i++) {
		h.name_len = strlen(h.name);
		if (!only || config_keeps_header(only, h.name, h.name_len))
			bytes += record_header_bytes(&h);
	}
	return bytes;
}

static void headers_encode(const rd_kafka_headers_t *hs, const struct config *only, uint8_t *to)
{
	struct record_header h;

	for (size_t i = 0; !rd_kafka_header_get_all(hs, i, &h.name, &h.value, &h.value_len); i++) {
		h.name_len = strlen(h.name);
		if (!only || config_keeps_header(only, h.name, h.name_len))
			to = record_header_encode(to, &h);
	}
}

/* Both sequences: all headers for the notification, the kept ones for the state. */
static int take_headers(struct intake *in, rd_kafka_message_t *m, struct batch_record *r)
{
	rd_kafka_headers_t *hs;

	if (rd_kafka_message_headers(m, &hs))
		return 0; /* none */
	size_t all = headers_bytes(hs, NULL), kept = headers_bytes(hs, in->config);
	uint8_t *bytes = all ? arena_alloc(&in->batch.arena, all + kept) : NULL;
	if (!all)
		return 0;
	if (!bytes)
		return -ENOMEM;
	headers_encode(hs, NULL, bytes);
	headers_encode(hs, in->config, bytes + all);
	r->all_headers = bytes;
	r->all_headers_len = all;
	if (kept) {
		r->rec.headers = bytes + all;
		r->rec.headers_len = kept;
		r->rec.flags |= RECORD_HEADERS;
	}
	in->batch.bytes += all + kept;
	return 0;
}

/* ---- messages ---- */

static int take_record(struct intake *in, rd_kafka_message_t *m)
{
	rd_kafka_timestamp_type_t type;
	struct batch_record *r;

	if (in->n_held == in->cap_held) {
		size_t cap = in->cap_held ? in->cap_held * 2 : 1024;
		rd_kafka_message_t **grown = realloc(in->held, cap * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		in->held = grown;
		in->cap_held = cap;
	}
	/* an empty key has a pointer, a missing one has none (facts/kafka.md section 2) */
	r = batch_add(&in->batch, m->key, m->key_len);
	if (!r)
		return -ENOMEM;
	in->held[in->n_held++] = m;
	r->rec.partition = m->partition;
	r->rec.offset = m->offset;
	r->rec.timestamp_ms = rd_kafka_message_timestamp(m, &type);
	r->rec.value = m->payload;
	r->rec.value_len = m->len;
	if (!m->payload)
		r->rec.flags |= RECORD_TOMBSTONE;
	in->batch.bytes += m->len + m->key_len;
	return take_headers(in, m, r);
}

static int take_error(const rd_kafka_message_t *m, struct intake_events *ev, char *err,
		      size_t err_len)
{
	ev->partition = m->partition;
	ev->offset = m->offset;
	snprintf(err, err_len, "partition %d at %lld: %s", m->partition, (long long)m->offset,
		 rd_kafka_message_errstr(m));
	switch (m->err) {
	case RD_KAFKA_RESP_ERR__PARTITION_EOF:
		ev->eof[m->partition] = true;
		ev->eof_offset[m->partition] = m->offset;
		return 0;
	case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
	case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
		return INTAKE_RESET;
	case RD_KAFKA_RESP_ERR__BAD_MSG:
	case RD_KAFKA_RESP_ERR__BAD_COMPRESSION:
		return INTAKE_CORRUPT;
	case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
	case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
	case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
		return INTAKE_MISSING;
	case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
	case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
		return INTAKE_DENIED;
	default:
		/* also MSG_SIZE_TOO_LARGE, which fetches of only removed records provoke */
		log_info(NULL, "reading %s", err);
		return 0;
	}
}

static void pass_over(struct intake *in, const rd_kafka_message_t *m)
{
	if (!in->keyless)
		log_warn("SN-KEYLESS",
			 "%s [%d] at %lld: a record without a key has no place in a snapshot and "
			 "is passed over, as compaction will do",
			 in->config->source_topic, m->partition, (long long)m->offset);
	in->keyless = true;
}

static int take_message(struct intake *in, rd_kafka_message_t *m, struct intake_events *ev,
			char *err, size_t err_len)
{
	int rc = 0;

	if (!m->err && m->key)
		return take_record(in, m);
	if (m->err)
		rc = take_error(m, ev, err, err_len);
	else
		pass_over(in, m);
	rd_kafka_message_destroy(m);
	return rc;
}

/*
 * The one sign of a topic that was deleted and made anew under a running
 * consumer: it comes before the first record of the new topic does.
 */
static int check_topic(struct intake *in, char *err, size_t err_len)
{
	if (!atomic_exchange(&in->counts.topic_missing, 0))
		return 0;
	snprintf(err, err_len, "the brokers said that topic or partition are not there");
	return INTAKE_DOUBTFUL;
}

enum { TAKE_AT_ONCE = 2000 };

int intake_take(struct intake *in, int timeout_ms, size_t max, struct intake_events *ev, char *err,
		size_t err_len)
{
	rd_kafka_message_t *m[TAKE_AT_ONCE];
	int rc = 0;

	memset(ev->eof, 0, (size_t)in->n * sizeof(*ev->eof));
	/* asking for many waits until there are many: so wait for one, then take the rest */
	for (size_t want = in->batch.n ? TAKE_AT_ONCE : 1; !rc && in->batch.n < max;
	     want = TAKE_AT_ONCE) {
		if (want > max - in->batch.n)
			want = max - in->batch.n;
		ssize_t got = rd_kafka_consume_batch_queue(in->queue, timeout_ms, m, want);
		timeout_ms = 0;
		if (got <= 0)
			break;
		for (ssize_t i = 0; i < got; i++) {
			int one = take_message(in, m[i], ev, err, err_len);
			if (one && !rc)
				rc = one;
		}
	}
	return rc ? rc : check_topic(in, err, err_len);
}
