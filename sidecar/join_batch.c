#include "join_batch.h"
#include "escape.h"
#include "join_time.h"
#include "log.h"
#include "side.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	ANSWER_MS = 3000,
	SAY_MS = 10000,     /* between lines about the same trouble */
	LEAST_BYTES = 4096, /* more than a result takes beside its key and token */
};

void join_counts_add(struct join_counts *to, const struct join_counts *c)
{
	to->records += c->records;
	to->results += c->results;
	to->without += c->without;
	to->dropped += c->dropped;
	to->wrapped += c->wrapped;
	to->omitted += c->omitted;
	to->late += c->late;
	to->unreadable += c->unreadable;
}

/* ---- what a record says ---- */

/* The bytes at a place, NULL: there are none; < 0: out of memory. */
static int find(const struct place *place, const rd_kafka_message_t *m, struct field *f,
		const void **bytes, size_t *len)
{
	rd_kafka_headers_t *hs;
	int kind;

	*bytes = NULL;
	switch (place->kind) {
	case PLACE_KEY:
		*bytes = m->key;
		*len = m->key_len;
		return 0;
	case PLACE_HEADER:
		if (rd_kafka_message_headers(m, &hs) ||
		    rd_kafka_header_get_last(hs, place->name, bytes, len))
			*bytes = NULL;
		return 0;
	case PLACE_FIELD:
		kind = field_get(f, m->payload, m->payload ? m->len : 0, place->name);
		if (kind > FIELD_NONE) {
			*bytes = f->text;
			*len = f->len;
		}
		return kind < 0 ? kind : 0;
	default:
		return 0;
	}
}

static int64_t timestamp_of(const rd_kafka_message_t *m)
{
	rd_kafka_timestamp_type_t type;

	return rd_kafka_message_timestamp(m, &type);
}

static int add_need(struct join_batch *b, const rd_kafka_message_t *m)
{
	const struct place *place = &b->c->wait_place;
	const void *text;
	size_t len;
	int rc;

	if (b->c->wait == WAIT_TIME && place->kind == PLACE_TIMESTAMP)
		return needs_add_time(&b->needs, timestamp_of(m));
	rc = find(place, m, &b->named, &text, &len);
	return rc ? rc : needs_add(&b->needs, b->c->wait, text, len);
}

/* ---- waiting for the table ---- */

static int reserve_want(struct join_batch *b, int partitions)
{
	if ((size_t)partitions > b->want_n) {
		int64_t *grown = realloc(b->want, (size_t)partitions * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		b->want = grown;
	}
	b->want_n = (size_t)partitions;
	return 0;
}

/* What the latest time of the batch means for the table's topic. */
static bool ask_time(struct join_batch *b)
{
	int64_t latest = needs_latest(&b->needs), now = kafka_now_ms();
	int ms = b->c->wait_ms < ANSWER_MS ? (int)b->c->wait_ms : ANSWER_MS;

	if (latest < 0)
		return false;
	if (!join_time_positions(b->query, table_topic(b->table), b->want_n, latest, ms, b->want,
				 b->err, sizeof(b->err)))
		return true;
	if (!b->said_ms || now - b->said_ms >= SAY_MS)
		log_warn("SN-JOIN-WAIT",
			 "%s: what a time means for the table cannot be asked; results say late",
			 b->err);
	b->said_ms = now;
	return false;
}

static int wait_for_table(struct join_batch *b, bool (*stopping)(void *), void *opaque)
{
	int64_t until = kafka_now_ms() + b->c->wait_ms, left;
	int rc = 0, partitions;
	bool any;

	if (b->c->wait == WAIT_NONE)
		return 0;
	needs_clear(&b->needs);
	for (size_t i = 0; i < b->n && !rc; i++)
		rc = add_need(b, b->m[i]);
	partitions = rc ? rc : table_partitions(b->table);
	rc = partitions < 0 ? partitions : reserve_want(b, partitions);
	if (rc)
		return rc;
	if (b->c->wait == WAIT_TIME)
		any = b->time_is_known = ask_time(b);
	else
		any = needs_union(&b->needs, b->want, b->want_n);
	left = until - kafka_now_ms();
	if (any &&
	    !table_wait(b->table, b->want, b->want_n, left > 0 ? left : 0, stopping, opaque) &&
	    stopping(opaque))
		return -EINTR; /* not late: it has not waited as long as it may */
	return 0;
}

static bool is_at(const int64_t *want, size_t n, const int64_t *have, size_t have_n)
{
	for (size_t p = 0; p < n; p++)
		if (want[p] > 0 && (p >= have_n || have[p] < want[p]))
			return false;
	return true;
}

/* Of record i, with the state that is held: what became of its wish. */
static const char *outcome(struct join_batch *b, size_t i)
{
	const struct need *need = &b->needs.v[i];
	bool reached = false;
	size_t n;

	if (b->c->wait == WAIT_NONE || need->kind == NEED_NONE)
		return "none";
	const int64_t *have = table_positions(b->table, &n);
	if (need->kind == NEED_UNREADABLE) {
		b->counts.unreadable++;
		return "unreadable";
	}
	if (need->kind == NEED_TOKEN)
		reached = need_is_reached(&b->needs, need, have, n);
	else
		reached = b->time_is_known && is_at(b->want, b->want_n, have, n);
	b->counts.late += !reached;
	return reached ? "reached" : "late";
}

/* ---- one result ---- */

static enum txn_verdict fail(struct join_batch *b, int failed)
{
	b->failed = failed;
	return TXN_STOPPED;
}

/* Only a key can be that large: everything else can be left out. */
static enum txn_verdict cannot_fit(struct join_batch *b, const rd_kafka_message_t *m)
{
	char *key = escape_key(m->key, m->key_len);

	snprintf(b->err, sizeof(b->err),
		 "the result of %s [%d] at %" PRId64 ", key '%.100s', does not fit into %s: set "
		 "max.message.bytes=%zu there and start again",
		 b->c->stream_topic, (int)m->partition, m->offset, key ? key : "?",
		 b->c->output_topic, m->key_len + LEAST_BYTES + strlen(table_token(b->table)));
	free(key);
	return fail(b, JOIN_TOO_LARGE);
}

/* The record's headers but ours, copied to `to` (NULL: only looked at): what they take, and how
 * many they are. */
static size_t copied_headers(const rd_kafka_message_t *m, rd_kafka_headers_t *to, unsigned *n)
{
	rd_kafka_headers_t *hs;
	const char *name;
	const void *value;
	size_t len, bytes = 0;

	*n = 0;
	if (rd_kafka_message_headers(m, &hs))
		return 0;
	for (size_t i = 0; !rd_kafka_header_get_all(hs, i, &name, &value, &len); i++) {
		size_t name_len = strlen(name);
		if (side_header_is_reserved(name, name_len))
			continue;
		bytes += name_len + len + HEADER_OVERHEAD;
		++*n;
		if (to)
			rd_kafka_header_add(to, name, (ssize_t)name_len, value,
					    value ? (ssize_t)len : 0);
	}
	return bytes;
}

static rd_kafka_headers_t *headers_of(const rd_kafka_message_t *m, const struct join_result *r,
				      bool match, unsigned copied)
{
	rd_kafka_headers_t *hs = rd_kafka_headers_new(copied + 3);
	char number[16];

	rd_kafka_header_add(hs, JOIN_HEADER_ID, -1, r->id, (ssize_t)r->id_len);
	rd_kafka_header_add(hs, JOIN_HEADER_MATCH, -1, match ? "true" : "false", -1);
	if (!r->drop_headers) {
		copied_headers(m, hs, &copied);
	} else {
		snprintf(number, sizeof(number), "%u", copied);
		rd_kafka_header_add(hs, JOIN_HEADER_OMITTED, -1, number, -1);
	}
	return hs;
}

/* The stream's own partition where both topics have the same; else where Java's clients would
 * put the key, and records without one by their partition, so that they stay in order. */
static int32_t partition_for(const struct placing *p, const rd_kafka_message_t *m)
{
	if (p->output_partitions == p->stream_partitions && m->partition < p->output_partitions)
		return m->partition;
	return m->key ? RD_KAFKA_PARTITION_UA : m->partition % p->output_partitions;
}

static enum txn_verdict produce(struct join_batch *b, struct txn *t, const struct placing *placing,
				const rd_kafka_message_t *m, const struct sstate_record *found,
				const char *wait)
{
	unsigned copied;
	struct join_result r;
	const struct join_pair pair = {
		.partition = m->partition,
		.offset = m->offset,
		.timestamp_ms = timestamp_of(m),
		.key_len = m->key_len,
		.value = m->payload,
		.value_len = m->len,
		.headers_bytes = copied_headers(m, NULL, &copied),
		.table = found,
		.table_topic = table_topic(b->table),
		.token = table_token(b->table),
		.wait = wait,
	};

	if (join_envelope_make(&b->envelope, &pair, kafka_wall_ms(), &r))
		return fail(b, -ENOMEM);
	if (r.bytes > b->envelope.o.max_bytes)
		return cannot_fit(b, m);
	b->counts.results++;
	b->counts.without += !found;
	b->counts.wrapped += r.wrapped;
	b->counts.omitted += r.omitted;
	return txn_produce(t, partition_for(placing, m), m->key, m->key_len, r.value, r.value_len,
			   headers_of(m, &r, found, copied));
}

static enum txn_verdict join_one(struct join_batch *b, struct txn *t, const struct placing *placing,
				 size_t i)
{
	const rd_kafka_message_t *m = b->m[i];
	struct sstate_record found;
	const void *key;
	size_t len;
	int rc = find(&b->c->key_place, m, &b->key, &key, &len);

	if (!rc)
		rc = key ? table_get(b->table, key, len, &found) : -ENOENT;
	if (rc && rc != -ENOENT)
		return fail(b, rc);
	const char *wait = outcome(b, i); /* of the state that it was looked up in */
	b->counts.records++;
	if (rc && b->c->type == JOIN_INNER) {
		b->counts.dropped++;
		return TXN_OK;
	}
	return produce(b, t, placing, m, rc ? NULL : &found, wait);
}

/* ---- a batch ---- */

int join_batch_begin(struct join_batch *b, rd_kafka_message_t *const *m, size_t n,
		     bool (*stopping)(void *), void *opaque)
{
	int rc;

	b->m = m;
	b->n = n;
	b->counts = (struct join_counts){ 0 };
	b->failed = 0;
	if (!n)
		return 0; /* offsets alone */
	rc = wait_for_table(b, stopping, opaque);
	return rc ? rc : table_begin(b->table);
}

enum txn_verdict join_batch_produce(struct join_batch *b, struct txn *t,
				    const struct placing *placing)
{
	enum txn_verdict v = TXN_OK;

	for (size_t i = 0; i < b->n && v == TXN_OK; i++)
		v = join_one(b, t, placing, i);
	return v;
}

void join_batch_end(struct join_batch *b)
{
	table_end(b->table);
	b->m = NULL;
	b->n = 0;
}

int join_batch_init(struct join_batch *b, const struct join_config *c, struct table *table,
		    rd_kafka_t *query, size_t max_bytes)
{
	const struct join_envelope_options o = { .name = c->name,
						 .stream_topic = c->stream_topic,
						 .type = (enum join_type)c->type,
						 .max_bytes = max_bytes };

	*b = (struct join_batch){ .c = c, .table = table, .query = query };
	return join_envelope_init(&b->envelope, &o);
}

void join_batch_free(struct join_batch *b)
{
	join_envelope_free(&b->envelope);
	field_free(&b->key);
	field_free(&b->named);
	needs_free(&b->needs);
	free(b->want);
}
