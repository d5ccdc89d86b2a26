#include "join_stream.h"
#include "join_client.h"
#include "log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
	POLL_MS = 100,
	ANSWER_MS = 3000,
	STABLE_MS = 1000, /* for all offsets at once; then for each: */
	STABLE_ONE_MS = 100,
	STABLE_ALL_ONES_MS = 500,
	ASK_AGAIN_MS = 200,
	DOUBT_MS = 3000, /* until a topic that was away for a moment is believed to be the same */
};

struct part {
	int32_t p;
	int64_t next;      /* where the next batch begins; -1: not known */
	int64_t end;       /* behind the batch */
	bool is_committed; /* `next` has been, as far as we know */
};

struct stream {
	const struct join_config *c;
	struct join_client consumer_client, peek_client;
	struct kafka_counts counts;
	struct kafka_hooks hooks;
	rd_kafka_t *rk, *query /* the caller's */, *peek;

	rd_kafka_consumer_group_metadata_t *group; /* NULL: not a member */
	struct part *v;
	int n;
	bool moved;
	rd_kafka_topic_partition_list_t *first;

	rd_kafka_message_t **m;
	size_t n_m, cap_m, bytes;
	int64_t rest_until_ms; /* 0: does not rest */
	int64_t asked_ms;
	int64_t doubt_ms; /* since when; 0: none */
};

bool stream_is_member(const struct stream *s) { return s->group && s->n; }
bool stream_rests(const struct stream *s) { return s->rest_until_ms; }

const rd_kafka_consumer_group_metadata_t *stream_group(const struct stream *s) { return s->group; }
const rd_kafka_topic_partition_list_t *stream_first(const struct stream *s) { return s->first; }

rd_kafka_message_t *const *stream_records(const struct stream *s, size_t *n)
{
	*n = s->n_m;
	return s->m;
}

bool stream_is_lost(const struct stream *s)
{
	for (int i = 0; i < s->n; i++)
		if (s->v[i].next < 0)
			return true;
	return false;
}

/* ---- assignment ---- */

static void clear_batch(struct stream *s)
{
	for (size_t i = 0; i < s->n_m; i++)
		rd_kafka_message_destroy(s->m[i]);
	s->n_m = s->bytes = 0;
	for (int i = 0; i < s->n; i++)
		s->v[i].end = s->v[i].next;
}

static void assign_none(struct stream *s)
{
	rd_kafka_topic_partition_list_t *none = rd_kafka_topic_partition_list_new(0);

	rd_kafka_assign(s->rk, none);
	rd_kafka_topic_partition_list_destroy(none);
}

/* Read every partition whose position is known, from there. */
static void assign_known(struct stream *s)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(s->n);

	for (int i = 0; i < s->n; i++)
		if (s->v[i].next >= 0)
			rd_kafka_topic_partition_list_add(l, s->c->stream_topic, s->v[i].p)
				->offset = s->v[i].next;
	rd_kafka_resp_err_t e = rd_kafka_assign(s->rk, l);
	if (e)
		log_info(NULL, "assigning %s: %s", s->c->stream_topic, rd_kafka_err2str(e));
	rd_kafka_topic_partition_list_destroy(l);
}

static void drop_membership(struct stream *s)
{
	clear_batch(s);
	if (s->group)
		rd_kafka_consumer_group_metadata_destroy(s->group);
	if (s->first)
		rd_kafka_topic_partition_list_destroy(s->first);
	free(s->v);
	s->group = NULL;
	s->first = NULL;
	s->v = NULL;
	s->n = 0;
	s->moved = true;
	s->rest_until_ms = s->asked_ms = 0;
}

static void say_membership(const struct stream *s, int generation)
{
	char list[200] = "none";
	size_t len = 0;

	for (int i = 0; i < s->n && len < sizeof(list); i++)
		len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%d", i ? ", " : "",
					(int)s->v[i].p);
	log_info(NULL, "member of %s, generation %d; partitions of %s: %s%s",
		 s->consumer_client.group, generation, s->c->stream_topic, list,
		 len < sizeof(list) ? "" : "...");
}

static void take_membership(struct stream *s, const rd_kafka_topic_partition_list_t *parts)
{
	rd_kafka_consumer_group_metadata_t *group = rd_kafka_consumer_group_metadata(s->rk);
	int32_t generation = group ? kafka_generation(group) : -1;

	/* brokers accept offsets of generation -1 without any fencing */
	s->v = generation >= 0 ? calloc((size_t)parts->cnt + 1, sizeof(*s->v)) : NULL;
	if (!s->v) {
		if (group)
			rd_kafka_consumer_group_metadata_destroy(group);
		return;
	}
	s->group = group;
	for (int i = 0; i < parts->cnt; i++)
		s->v[s->n++] =
			(struct part){ .p = parts->elems[i].partition, .next = -1, .end = -1 };
	say_membership(s, (int)generation);
}

static void on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t err,
			 rd_kafka_topic_partition_list_t *parts, void *opaque)
{
	struct stream *s = opaque;

	drop_membership(s); /* before anything is acknowledged, whichever event it is */
	if (err == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
		take_membership(s, parts);
		assign_none(s);
		return;
	}
	if (err != RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS)
		log_info(NULL, "group: %s", rd_kafka_err2str(err));
	rd_kafka_assign(rk, NULL);
}

/* ---- positions ---- */

/* Committed offsets of these parts, stable ones.  What is not committed stays as it is. */
static rd_kafka_resp_err_t ask_committed(struct stream *s, int from, int to, bool unknown_only,
					 int timeout_ms, int64_t *out)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(to - from);
	rd_kafka_resp_err_t e = RD_KAFKA_RESP_ERR_NO_ERROR;

	for (int i = from; i < to; i++)
		if (!unknown_only || s->v[i].next < 0)
			rd_kafka_topic_partition_list_add(l, s->c->stream_topic, s->v[i].p);
	if (l->cnt)
		e = rd_kafka_committed(s->query, l, timeout_ms);
	for (int i = 0; i < l->cnt && !e; i++)
		e = l->elems[i].err;
	for (int i = from, j = 0; i < to && !e; i++)
		if (!unknown_only || s->v[i].next < 0)
			out[i] = l->elems[j++].offset;
	rd_kafka_topic_partition_list_destroy(l);
	return e;
}

/*
 * All at once; where that gets no answer, one by one: a partition that a dead
 * member's transaction holds must not keep the others waiting.  out[i] stays
 * RD_KAFKA_OFFSET_STORED where there was no answer.
 */
static rd_kafka_resp_err_t ask_positions(struct stream *s, int64_t *out)
{
	rd_kafka_resp_err_t e = ask_committed(s, 0, s->n, true, STABLE_MS, out), last = e;
	int64_t until = kafka_now_ms() + STABLE_ALL_ONES_MS;

	for (int i = 0; i < s->n && e && kafka_now_ms() < until; i++)
		if (s->v[i].next < 0)
			last = ask_committed(s, i, i + 1, true, STABLE_ONE_MS, out);
	return last;
}

/* Whether the group has an offset for any partition of the topic: 1, 0, or < 0 with err. */
static int any_committed(struct stream *s, int n, char *err, size_t err_len)
{
	struct kafka_committed *c = calloc((size_t)n, sizeof(*c));
	int rc = c ? kafka_committed(s->peek, s->c->stream_topic, n, ANSWER_MS, c, err, err_len)
		   : -1;

	for (int p = 0; p < n && !rc; p++)
		if (c[p].offset >= 0)
			rc = 1;
	free(c);
	return rc;
}

static int log_start(struct stream *s, struct part *part, char *err, size_t err_len)
{
	int64_t low, high;
	int rc = kafka_watermarks(s->query, s->c->stream_topic, part->p, ANSWER_MS, &low, &high,
				  err, err_len);

	if (rc)
		return STREAM_WAIT;
	log_info(NULL, "partition %d is new: joined from its beginning, %" PRId64, (int)part->p,
		 low);
	part->next = part->end = low;
	return 0;
}

/* Where all partitions begin: in s->first. */
static int plan_first_start(struct stream *s, int n, char *err, size_t err_len)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(n);

	for (int p = 0; p < n; p++) {
		int64_t low, high;
		if (kafka_watermarks(s->query, s->c->stream_topic, p, ANSWER_MS, &low, &high, err,
				     err_len)) {
			rd_kafka_topic_partition_list_destroy(l);
			return STREAM_WAIT;
		}
		rd_kafka_topic_partition_list_add(l, s->c->stream_topic, p)->offset =
			s->c->start == START_BEGINNING ? low : high;
	}
	if (s->first)
		rd_kafka_topic_partition_list_destroy(s->first);
	s->first = l;
	return STREAM_FIRST;
}

static bool owns_first(const struct stream *s)
{
	for (int i = 0; i < s->n; i++)
		if (s->v[i].p == 0)
			return true;
	return false;
}

/* Some own partitions have no committed offset. */
static int decide_absent(struct stream *s, const int64_t *committed, char *err, size_t err_len)
{
	int n = kafka_partitions(s->query, s->c->stream_topic, ANSWER_MS, err, err_len);
	int any = n > 0 ? any_committed(s, n, err, err_len) : -1;
	int rc = 0;

	if (any < 0)
		return STREAM_WAIT;
	if (!any)
		return owns_first(s) ? plan_first_start(s, n, err, err_len) : STREAM_WAIT;
	for (int i = 0; i < s->n && !rc; i++)
		if (committed[i] == RD_KAFKA_OFFSET_INVALID && s->v[i].next < 0)
			rc = log_start(s, &s->v[i], err, err_len);
	return rc;
}

static int take_answers(struct stream *s, const int64_t *committed, char *err, size_t err_len)
{
	bool absent = false, unanswered = false;

	for (int i = 0; i < s->n; i++) {
		struct part *part = &s->v[i];
		if (part->next >= 0)
			continue;
		absent |= committed[i] == RD_KAFKA_OFFSET_INVALID;
		unanswered |= committed[i] == RD_KAFKA_OFFSET_STORED;
		if (committed[i] >= 0) {
			part->next = part->end = committed[i];
			part->is_committed = true;
		}
	}
	int rc = absent ? decide_absent(s, committed, err, err_len) : 0;
	return rc ? rc : unanswered ? STREAM_WAIT : 0;
}

static int known(const struct stream *s)
{
	int n = 0;

	for (int i = 0; i < s->n; i++)
		n += s->v[i].next >= 0;
	return n;
}

int stream_take_positions(struct stream *s, char *err, size_t err_len)
{
	int64_t now = kafka_now_ms();
	int before = known(s), rc;
	int64_t *committed;

	if (s->rest_until_ms || now - s->asked_ms < (before ? 1000 : ASK_AGAIN_MS))
		return STREAM_WAIT;
	committed = calloc((size_t)s->n + 1, sizeof(*committed));
	if (!committed)
		return STREAM_MEMORY;
	for (int i = 0; i < s->n; i++)
		committed[i] = RD_KAFKA_OFFSET_STORED;
	rd_kafka_resp_err_t e = ask_positions(s, committed);
	const char *group = s->consumer_client.group;
	if (e == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED)
		snprintf(err, err_len, "%s; grant Read on group %s", rd_kafka_err2str(e), group);
	else if (e)
		snprintf(err, err_len, "committed offsets of %s: %s", group, rd_kafka_err2str(e));
	rc = e == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED
		     ? STREAM_DENIED
		     : take_answers(s, committed, err, err_len);
	free(committed);
	s->asked_ms = kafka_now_ms();
	if (known(s) > before) {
		clear_batch(s);
		assign_known(s);
	}
	return rc;
}

/* ---- records ---- */

static struct part *find_part(struct stream *s, int32_t p)
{
	for (int i = 0; i < s->n; i++)
		if (s->v[i].p == p && s->v[i].next >= 0)
			return &s->v[i];
	return NULL;
}

static int keep(struct stream *s, rd_kafka_message_t *m)
{
	struct part *part = find_part(s, m->partition);

	if (!part) { /* not ours any more */
		rd_kafka_message_destroy(m);
		return 0;
	}
	if (s->n_m == s->cap_m) {
		size_t cap = s->cap_m ? 2 * s->cap_m : 1024;
		rd_kafka_message_t **grown = realloc(s->m, cap * sizeof(*grown));
		if (!grown) {
			rd_kafka_message_destroy(m);
			return STREAM_MEMORY;
		}
		s->m = grown;
		s->cap_m = cap;
	}
	s->m[s->n_m++] = m;
	s->bytes += m->len + m->key_len;
	part->end = m->offset + 1;
	return 0;
}

/* The end of the log as a position: behind control records and what was aborted, too. */
static void take_eof(struct stream *s, const rd_kafka_message_t *m)
{
	struct part *part = find_part(s, m->partition);

	if (part && m->offset > part->end)
		part->end = m->offset;
}

static int take_error(struct stream *s, const rd_kafka_message_t *m, char *err, size_t err_len)
{
	snprintf(err, err_len, "%s [%d] at %" PRId64 ": %s", s->c->stream_topic, (int)m->partition,
		 m->offset, rd_kafka_message_errstr(m));
	switch (m->err) {
	case RD_KAFKA_RESP_ERR__PARTITION_EOF:
		take_eof(s, m);
		return 0;
	case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
	case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
		return STREAM_OUTSIDE;
	case RD_KAFKA_RESP_ERR__BAD_MSG:
	case RD_KAFKA_RESP_ERR__BAD_COMPRESSION:
		return STREAM_CORRUPT;
	case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
	case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
	case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
		atomic_store(&s->counts.topic_missing, 1);
		return 0;
	case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		snprintf(err, err_len, "%s; grant Read on topic %s", rd_kafka_message_errstr(m),
			 s->c->stream_topic);
		return STREAM_DENIED;
	case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
		snprintf(err, err_len, "%s; grant Read on group %s", rd_kafka_message_errstr(m),
			 s->consumer_client.group);
		return STREAM_DENIED;
	case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
		return STREAM_DENIED;
	default:
		log_info(NULL, "stream: %s", err);
		return 0;
	}
}

/*
 * The brokers said that the topic is not there.  It may have been deleted and
 * made anew, perhaps longer than it was.  Deleting a topic deletes the group's
 * offsets for it, within a second: so where ours are still there after some, it
 * is the same.
 */
static int resolve_doubt(struct stream *s, char *err, size_t err_len)
{
	int64_t *now = calloc((size_t)s->n + 1, sizeof(*now));
	int rc = STREAM_WAIT;

	if (!now)
		return STREAM_MEMORY;
	rd_kafka_resp_err_t e = ask_committed(s, 0, s->n, false, STABLE_MS, now);
	for (int i = 0; i < s->n && !e && rc == STREAM_WAIT; i++)
		if (s->v[i].is_committed && now[i] < 0)
			rc = STREAM_GONE;
	free(now);
	if (!e && rc == STREAM_WAIT && kafka_now_ms() - s->doubt_ms >= DOUBT_MS &&
	    kafka_partitions(s->query, s->c->stream_topic, ANSWER_MS, err, err_len) > 0)
		rc = 0;
	snprintf(err, err_len,
		 "the brokers said that %s is not there, and the group's offsets for it are gone",
		 s->c->stream_topic);
	return rc;
}

/* While in doubt nothing is taken. */
static int check_doubt(struct stream *s, char *err, size_t err_len)
{
	bool missing = atomic_exchange(&s->counts.topic_missing, 0);
	int rc;

	if (missing && !s->doubt_ms && s->n) {
		s->doubt_ms = kafka_now_ms();
		log_info(NULL, "%s seems not to be there: waiting", s->c->stream_topic);
	}
	if (!s->doubt_ms)
		return 0;
	rc = resolve_doubt(s, err, err_len);
	if (rc == 0)
		s->doubt_ms = 0;
	stream_rewind(s, rc ? 1000 : 1);
	return rc == STREAM_WAIT ? 0 : rc;
}

static int take(struct stream *s, rd_kafka_message_t *m, char *err, size_t err_len)
{
	if (!m->err)
		return keep(s, m);
	int rc = take_error(s, m, err, err_len);
	rd_kafka_message_destroy(m);
	return rc;
}

int stream_collect(struct stream *s, const struct stream_bounds *b, char *err, size_t err_len)
{
	int64_t until = 0;
	int rc = 0;

	if (s->rest_until_ms && kafka_now_ms() >= s->rest_until_ms) {
		s->rest_until_ms = 0;
		assign_known(s);
	}
	s->moved = false;
	while (!rc && s->n_m < b->records && s->bytes < b->bytes) {
		rd_kafka_message_t *m = rd_kafka_consumer_poll(s->rk, s->n_m ? 0 : POLL_MS);
		if (s->moved) {
			if (m)
				rd_kafka_message_destroy(m);
			return STREAM_MOVED;
		}
		if (!m)
			break;
		rc = take(s, m, err, err_len);
		if (!until && s->n_m)
			until = kafka_now_ms() + b->ms;
		else if (until && kafka_now_ms() >= until)
			break;
	}
	return rc ? rc : check_doubt(s, err, err_len);
}

rd_kafka_topic_partition_list_t *stream_offsets(const struct stream *s)
{
	rd_kafka_topic_partition_list_t *l = NULL;

	for (int i = 0; i < s->n; i++) {
		const struct part *part = &s->v[i];
		if (part->next < 0 || part->end == part->next)
			continue;
		if (!l)
			l = rd_kafka_topic_partition_list_new(s->n);
		rd_kafka_topic_partition_list_add(l, s->c->stream_topic, part->p)->offset =
			part->end;
	}
	return l;
}

void stream_advance(struct stream *s)
{
	for (int i = 0; i < s->n; i++) {
		struct part *part = &s->v[i];
		if (part->end != part->next)
			part->is_committed = true;
		part->next = part->end;
	}
	clear_batch(s);
}

void stream_rewind(struct stream *s, int ms)
{
	clear_batch(s);
	assign_none(s);
	s->rest_until_ms = kafka_now_ms() + ms;
}

void stream_forget(struct stream *s, int ms)
{
	for (int i = 0; i < s->n; i++)
		s->v[i].next = -1;
	stream_rewind(s, ms);
}

/* ---- open and close ---- */

static int open_client(struct stream *s, struct join_client *k, enum join_use use,
		       const struct kafka_hooks *h, rd_kafka_t **rk, char *err, size_t err_len)
{
	if (join_client_init(k, s->c, use))
		return STREAM_MEMORY;
	*rk = kafka_new(&k->config, k->role, h, err, err_len);
	return *rk ? 0 : STREAM_REFUSED;
}

static int subscribe(struct stream *s, char *err, size_t err_len)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(1);

	rd_kafka_topic_partition_list_add(l, s->c->stream_topic, RD_KAFKA_PARTITION_UA);
	rd_kafka_resp_err_t e = rd_kafka_subscribe(s->rk, l);
	rd_kafka_topic_partition_list_destroy(l);
	if (e)
		snprintf(err, err_len, "subscribing to %s: %s", s->c->stream_topic,
			 rd_kafka_err2str(e));
	return e ? STREAM_REFUSED : 0;
}

int stream_open(struct stream **out, const struct join_config *c, rd_kafka_t *query, char *err,
		size_t err_len)
{
	struct stream *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return STREAM_MEMORY;
	s->c = c;
	s->hooks = (struct kafka_hooks){ .counts = &s->counts,
					 .rebalance = on_rebalance,
					 .opaque = s };
	s->query = query;
	rc = open_client(s, &s->peek_client, JOIN_PEEK, NULL, &s->peek, err, err_len);
	rc = rc ? rc
		: open_client(s, &s->consumer_client, JOIN_CONSUMER, &s->hooks, &s->rk, err,
			      err_len);
	rc = rc ? rc : subscribe(s, err, err_len);
	if (rc) {
		stream_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

void stream_close(struct stream *s)
{
	if (!s)
		return;
	if (s->rk)
		kafka_leave(s->rk); /* calls back for the revoke */
	drop_membership(s);
	kafka_free(s->rk);
	kafka_free(s->peek);
	join_client_free(&s->consumer_client);
	join_client_free(&s->peek_client);
	free(s->m);
	free(s);
}
