#include "intake.h"
#include "kafka.h"
#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	TAKE_AT_ONCE = 2000,
	LEADERS_MS = 2000, /* for the question who leads; unanswered it costs speed only */
	ENDS_MS = 100,     /* the same */
	WAKE_MS = 1,
	QUEUE_BACKOFF_SINCE = 0x02020000,
};

/*
 * A queued record costs librdkafka some 300 bytes beside its own, and one answer
 * to a fetch comes on top of what the queue may hold: a fill, which has a sort
 * to keep in memory too, bounds all three.
 */
struct queue_limit {
	int records, kbytes;
};
/* more fetched ahead gains nothing, and costs three times its bytes */
static const struct queue_limit tail_queue = { 100000, 16384 };
static const struct queue_limit fill_queue = { 200000, 32768 };
#define FILL_FETCH_BYTES "1048576"
#define FILL_WAIT_MS     "10"
#define FULL_BACKOFF_MS  "5"

struct intake {
	const struct config *config;
	enum intake_use use;
	bool headers;
	struct queue_limit limit;
	struct kafka_counts counts;
	struct kafka_hooks hooks;
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;
	rd_kafka_topic_partition_list_t *led; /* a partition of each broker that leads one */
	bool was_full;                        /* the queue, so that fetchers may sleep */
	uint64_t records, bytes;              /* taken so far: how large one is */
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

/*
 * Asked before the assignment, this also spares it half a second: librdkafka
 * waits that long when it does not know yet whom to ask where a log begins.
 */
static void find_leaders(struct intake *in)
{
	rd_kafka_topic_t *rkt = rd_kafka_topic_new(in->rk, in->config->source_topic, NULL);
	const struct rd_kafka_metadata *md;

	in->led = rd_kafka_topic_partition_list_new(1);
	if (!rkt || rd_kafka_metadata(in->rk, 0, rkt, &md, LEADERS_MS))
		goto out;
	const struct rd_kafka_metadata_topic *t = &md->topics[0];
	for (int i = 0; i < t->partition_cnt; i++) {
		bool known = false;
		for (int j = 0; j < i; j++)
			known |= t->partitions[j].leader == t->partitions[i].leader;
		if (!known && t->partitions[i].leader >= 0)
			rd_kafka_topic_partition_list_add(in->led, in->config->source_topic,
							  t->partitions[i].id);
	}
	rd_kafka_metadata_destroy(md);
out:
	if (rkt)
		rd_kafka_topic_destroy(rkt);
}

static void ask_ends(struct intake *in, int64_t *ends)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(in->n);

	for (int p = 0; p < in->n; p++) {
		rd_kafka_topic_partition_list_add(l, in->config->source_topic, p)->offset =
			RD_KAFKA_OFFSET_END;
		ends[p] = -1;
	}
	if (!rd_kafka_offsets_for_times(in->rk, l, ENDS_MS))
		for (int i = 0; i < l->cnt; i++)
			if (!l->elems[i].err)
				ends[l->elems[i].partition] = l->elems[i].offset;
	rd_kafka_topic_partition_list_destroy(l);
}

/* For kafka_new() to read. */
static struct config_pair pair(const char *key, const char *value)
{
	return (struct config_pair){ .key = (char *)key, .value = (char *)value };
}

/* Over what kafka.c sets, under what the user does. */
static rd_kafka_t *open_client(struct intake *in, char *err, size_t err_len)
{
	static const enum kafka_role roles[] = { [INTAKE_TAIL] = KAFKA_TAIL,
						 [INTAKE_FILL] = KAFKA_FILL,
						 [INTAKE_MIRROR] = KAFKA_MIRROR };
	struct config c = *in->config;
	char records[16], kbytes[16];
	struct config_pair *v = calloc(c.kafka.n + 5, sizeof(*v));
	size_t n = 0;

	if (!v)
		return NULL;
	snprintf(records, sizeof(records), "%d", in->limit.records);
	snprintf(kbytes, sizeof(kbytes), "%d", in->limit.kbytes);
	v[n++] = pair("queued.min.messages", records);
	v[n++] = pair("queued.max.messages.kbytes", kbytes);
	if (in->use != INTAKE_TAIL)
		v[n++] = pair("fetch.max.bytes", FILL_FETCH_BYTES);
	if (in->use == INTAKE_FILL) /* only the end of each partition waits, once */
		v[n++] = pair("fetch.wait.max.ms", FILL_WAIT_MS);
	if (rd_kafka_version() >= QUEUE_BACKOFF_SINCE)
		v[n++] = pair("fetch.queue.backoff.ms", FULL_BACKOFF_MS);
	for (size_t i = 0; i < c.kafka.n; i++)
		v[n++] = c.kafka.v[i];
	c.kafka = (struct config_pairs){ v, n };
	rd_kafka_t *rk = kafka_new(&c, roles[in->use], &in->hooks, err, err_len);
	free(v);
	return rk;
}

int intake_open(struct intake **out, const struct config *c, enum intake_use use, int n,
		const int64_t *from, int64_t *ends, char *err, size_t err_len)
{
	struct intake *in = calloc(1, sizeof(*in));

	if (!in)
		return -ENOMEM;
	in->config = c;
	in->n = n;
	in->use = use;
	/* a fill needs none but those that it keeps, and looking for them costs a third of taking */
	in->headers =
		use == INTAKE_TAIL || (use == INTAKE_FILL && strcmp(c->state_headers, "none"));
	in->limit = use == INTAKE_TAIL ? tail_queue : fill_queue;
	in->hooks.counts = &in->counts;
	in->rk = open_client(in, err, err_len);
	if (in->rk)
		find_leaders(in);
	if (in->rk && ends)
		ask_ends(in, ends);
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
	if (in->led)
		rd_kafka_topic_partition_list_destroy(in->led);
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

int64_t intake_end(struct intake *in, int32_t partition)
{
	int64_t low, high;

	return rd_kafka_get_watermark_offsets(in->rk, in->config->source_topic, partition, &low,
					      &high) ||
			       high < 0
		       ? -1
		       : high;
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
	in->bytes += m->len;
	in->records++;
	return in->headers ? take_headers(in, m, r) : 0;
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

/*
 * A fetcher that finds the queue full sleeps for a second, however fast the
 * queue is emptied meanwhile: 125,000 records/s instead of a million.  Before
 * librdkafka 2.2 nothing shortens that; but any request to the broker wakes its
 * thread, which then looks again.
 */
static void wake_fetchers(struct intake *in)
{
	size_t queued = rd_kafka_queue_length(in->queue);
	size_t each = in->records ? in->bytes / in->records + 1 : 1;
	size_t full = (size_t)in->limit.kbytes * 1024 / each;

	if (full > (size_t)in->limit.records)
		full = (size_t)in->limit.records;
	if (queued > full / 4 * 3)
		in->was_full = true;
	if (!in->was_full || queued > full / 2)
		return;
	in->was_full = false;
	for (int i = 0; i < in->led->cnt; i++)
		in->led->elems[i].offset = 0; /* a time to ask for; nobody waits for the answer */
	if (in->led->cnt)
		rd_kafka_offsets_for_times(in->rk, in->led, WAKE_MS);
}

int intake_take(struct intake *in, int timeout_ms, size_t max, struct intake_events *ev, char *err,
		size_t err_len)
{
	rd_kafka_message_t *m[TAKE_AT_ONCE];
	int rc = 0;

	memset(ev->eof, 0, (size_t)in->n * sizeof(*ev->eof));
	if (rd_kafka_version() < QUEUE_BACKOFF_SINCE)
		wake_fetchers(in);
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
			/* of several errors the first is returned, and its text */
			int one = take_message(in, m[i], ev, err, rc ? 0 : err_len);
			if (one && !rc)
				rc = one;
		}
	}
	return rc ? rc : check_topic(in, err, err_len);
}
