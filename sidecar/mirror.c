/*
 * mirror.c - Redis is the fold of the log up to the positions in its mark
 * (mark.h).  These are the rules; whoever breaks off after any step leaves what
 * the next one can go on from.
 *
 * A batch:
 *   1. The mark is watched (WATCH) and then read: epoch, by and seq are those
 *      that this thread left there.
 *   2. Records are taken from the log, from the positions on.  Of each key the
 *      last one counts: nobody can see Redis between them.
 *   3. MULTI, and once it is answered, in one write: the data, the positions, a
 *      new seq, EXEC, and WATCH and HMGET for step 1 of the next batch.
 *   4. EXEC answers nil if anybody has touched the mark since step 1; then the
 *      server has done nothing, and the mark is read anew.
 *   A crash, a lost connection or a Redis that loses its newest writes leave
 *   data and positions of one and the same earlier moment.  So: connect again,
 *   read the positions, go on from there; replaying changes nothing.
 *
 * Who may write:
 *   5. Whoever is assigned partition 0 raises the epoch, once: WATCH, HGETALL,
 *      MULTI, HSET epoch, EXEC.  From then on every EXEC of a predecessor answers
 *      nil, also one that was on its way, and also after years of SIGSTOP.
 *   6. A predecessor that finds a higher epoch rests; only if nobody has revoked
 *      its assignment by then, it raises the epoch in turn.  Two that believe to
 *      lead hinder each other, but write nothing wrong: a batch is carried out
 *      only if the positions are those that it was made for.
 *   Why not a script: MULTI does not stop at a command that fails, so a script
 *   in it cannot hold the rest back, and one around everything needs rights and
 *   arguments without bound.  WATCH also sees FLUSHALL, eviction, and by hand.
 *
 * A resync, when the mark is missing, or has `resync` in it, or a position is not
 * in the log any more, or after a gap (9), a round, or a torn transaction:
 *   7. mirror_resync.c has the steps: from the snapshot, live, nothing wiped.
 *   8. `resync` stands in the mark from before the first step until after the
 *      last.  Whoever finds it begins from the first.
 *
 * Purged tombstones:
 *   9. A delete whose tombstone was purged before it was read is missed.  So t<N>
 *      is kept: the last time at which the log was seen to end at a position.
 *      Where records are read more than half of delete.retention.ms after it,
 *      `resync` goes into the same transaction as they do.
 *
 * Not in step 3's hands: a command that fails inside of EXEC (rights that change
 * between its queueing and EXEC) fails alone.  Every answer is looked at; then
 * `resync` is set.
 */
#include "mirror_private.h"
#include "shared_state.h"
#include "kafka.h"
#include "log.h"
#include "metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	TOKEN_POSITION_MAX = 32, /* "2147483647:9223372036854775807," */
	BATCH_RECORDS = 2000,    /* of one transaction: others use this Redis too */
	BATCH_BYTES = 2 << 20,
	TAKE_STEP = 250,    /* records taken between two looks at the bytes */
	COMMAND_KEYS = 500, /* of one MSET or UNLINK */
	POLL_MS = 100,
	LOOK_MS = 1000,      /* between looks at the mark while idle */
	KEEP_MS = 30000,     /* between writes of t<N> while idle */
	CHECK_MS = 60000,    /* between looks at the server's settings */
	HELD_BACK_MS = 2000, /* for the snapshot to overtake Redis */
	RETRY_MS = 500,
	REFUSED_MS = 2000,
	FENCED_MS = 5000,
	SAY_MS = 10000,
};

bool mirror_stopping(struct mirror *m) { return atomic_load(&m->stop) || pipeline_stopping(m->p); }

/* ---- saying ---- */

void mirror_say(struct mirror *m, bool error, const char *id, const char *fmt, ...)
{
	int64_t now = kafka_now_ms();
	char text[900];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	uint64_t hash = record_hash(text, strlen(text));
	if (mirror_stopping(m) ||
	    (!strcmp(m->said_id, id) && m->said_hash == hash && now - m->said_ms < SAY_MS))
		return;
	snprintf(m->said_id, sizeof(m->said_id), "%s", id);
	m->said_hash = hash;
	m->said_ms = now;
	if (m->tell) {
		m->tell(m->tell_opaque, error ? MIRROR_FAULT : MIRROR_WARNING, id, text);
		return;
	}
	log_write(error ? LOG_LEVEL_ERROR : LOG_LEVEL_WARN, id, "Redis: %s", text);
}

static void say_well(struct mirror *m)
{
	if (*m->said_id)
		log_info(NULL, "Redis: mirroring to %s again", m->server.uri);
	m->said_id[0] = '\0';
	metrics_set(METRIC_REDIS_UP, 1);
}

enum mirror_verdict mirror_lost(struct mirror *m)
{
	if (!mirror_stopping(m))
		mirror_say(m, false, "SN-REDIS-UNREACHABLE",
			   "%s: %s; trying again; snapshot and notifications go on", m->server.uri,
			   redis_error(m->r));
	return mirror_stopping(m) ? MIRROR_STOPPED : MIRROR_LOST;
}

enum mirror_verdict mirror_fault(struct mirror *m, const struct redis_answer *a)
{
	if (strstr(a->text, "NOPERM") || redis_is(a, "NOAUTH")) { /* EXECABORT: because of ... */
		mirror_say(m, true, "SN-REDIS-DENIED",
			   "%s; see docs/redis.md for the rights that are needed; trying again",
			   a->text);
		return MIRROR_REFUSED;
	}
	if (redis_is(a, "OOM"))
		mirror_say(m, true, "SN-REDIS-FULL",
			   "maxmemory is reached: %s; nothing is lost: give it more; trying again",
			   a->text);
	else if (redis_is(a, "READONLY"))
		mirror_say(m, false, "SN-REDIS-READONLY",
			   "%s is a replica: name the primary in redis.uri, or wait for the "
			   "failover; trying again",
			   m->server.uri);
	else
		mirror_say(m, false, "SN-REDIS-REFUSED", "%s; trying again", a->text);
	return MIRROR_LOST;
}

void mirror_want(struct mirror *m, const char *fmt, ...)
{
	va_list ap;

	if (*m->want)
		return;
	va_start(ap, fmt);
	vsnprintf(m->want, sizeof(m->want), fmt, ap);
	va_end(ap);
}

/* ---- transactions ---- */

const char *mirror_text(struct mirror *m, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	const char *copy = arena_copy(&m->texts, text, strlen(text) + 1);
	return copy ? copy : "";
}

const void *mirror_key(struct mirror *m, struct arena *a, const void *key, size_t key_len,
		       size_t *len)
{
	*len = m->prefix_len + key_len;
	if (!m->prefix_len)
		return key;
	char *whole = arena_alloc(a, *len);
	if (!whole)
		return NULL;
	memcpy(whole, m->self.prefix, m->prefix_len);
	if (key_len)
		memcpy(whole + m->prefix_len, key, key_len);
	return whole;
}

enum mirror_verdict mirror_begin(struct mirror *m)
{
	struct redis_answer a;

	arena_clear(&m->texts);
	m->commands = 0;
	redis_words(m->r, "MULTI", NULL);
	if (redis_next(m->r, &a))
		return mirror_lost(m);
	return a.kind == REDIS_FAULT ? mirror_fault(m, &a) : MIRROR_OK;
}

void mirror_queue(struct mirror *m)
{
	redis_send(m->r);
	m->commands++;
}

void mirror_put_part(struct mirror *m, int p, int64_t at, const struct state_anchor *anchor)
{
	const struct mirror_part *part = &m->part[p];
	char text[MARK_ANCHOR_MAX];

	redis_word(m->r, mirror_text(m, "p%d", p));
	redis_word(m->r, mirror_text(m, "%" PRId64, at));
	redis_word(m->r, mirror_text(m, "t%d", p));
	redis_word(m->r, mirror_text(m, "%" PRId64 ":%" PRId64, part->caught_ms, part->caught_at));
	if (anchor->offset < 0)
		return;
	mark_anchor_format(anchor, text);
	redis_word(m->r, mirror_text(m, "a%d", p));
	redis_word(m->r, mirror_text(m, "%s", text));
}

void mirror_put_token(struct mirror *m)
{
	struct sstate_position *at = arena_alloc(&m->texts, (size_t)m->p->n * sizeof(*at));
	size_t size = (size_t)m->p->n * TOKEN_POSITION_MAX + 1;
	char *text = arena_alloc(&m->texts, size);

	/* no round is ever due here: who has one does not lead */
	for (int p = 0; at && p < m->p->n; p++)
		at[p] = (struct sstate_position){ p, m->part[p].next, 0 };
	if (!at || !text || sstate_token_format(text, size, at, (size_t)m->p->n))
		return; /* the one before is older, and so still true */
	redis_word(m->r, "token");
	redis_word(m->r, text);
}

static void ask_mark(struct mirror *m)
{
	redis_words(m->r, "WATCH", m->key, MARK_PREFIXES, NULL); /* who owns the prefix, too */
	redis_words(m->r, "HMGET", m->key, "epoch", "by", "seq", "resync", NULL);
}

/* The answers to ask_mark(): is everything as this thread has left it? */
static enum mirror_verdict take_mark(struct mirror *m)
{
	struct redis_answer a, resync;

	for (int i = 0; i < 2; i++) {
		if (redis_next(m->r, &a))
			return mirror_lost(m);
		if (a.kind == REDIS_FAULT)
			return mirror_fault(m, &a);
	}
	struct redis_answer epoch = redis_at(&a, 0), by = redis_at(&a, 1), seq = redis_at(&a, 2);
	if (!redis_is(&epoch, m->epoch_text) || !redis_is(&by, state_uuid(m->p->state)) ||
	    !redis_is(&seq, m->seq_text))
		return MIRROR_CHANGED;
	resync = redis_at(&a, 3);
	if (resync.kind == REDIS_TEXT && !m->marked) {
		mirror_want(m, "%s", resync.len ? resync.text : "asked for");
		m->marked = true;
	}
	m->looked_ms = kafka_now_ms();
	say_well(m);
	return MIRROR_OK;
}

enum mirror_verdict mirror_look(struct mirror *m)
{
	struct redis_answer a;

	redis_words(m->r, "UNWATCH", NULL);
	ask_mark(m);
	if (redis_next(m->r, &a))
		return mirror_lost(m);
	return take_mark(m);
}

/* Queued or refused: the first refusal says why EXEC will be refused too. */
static enum mirror_verdict take_queued(struct mirror *m)
{
	enum mirror_verdict v = MIRROR_OK;
	struct redis_answer a;

	for (int i = 0; i < m->commands; i++) {
		if (redis_next(m->r, &a))
			return mirror_lost(m);
		if (a.kind == REDIS_FAULT && v == MIRROR_OK)
			v = mirror_fault(m, &a);
	}
	return v;
}

/* Some commands of a transaction were carried out, another not: Redis is no fold of anything. */
static enum mirror_verdict torn(struct mirror *m, const struct redis_answer *a)
{
	char why[200];

	snprintf(why, sizeof(why), "a command failed inside a transaction: %.100s",
		 a->text ? a->text : "no answer");
	snprintf(m->owed, sizeof(m->owed), "%s", why);
	mirror_say(m, true, "SN-REDIS-TORN", "%s; comparing with the snapshot", why);
	redis_words(m->r, "HSET", m->key, "resync", why, NULL);
	redis_next(m->r, &(struct redis_answer){ 0 });
	return MIRROR_LOST;
}

static enum mirror_verdict take_exec(struct mirror *m)
{
	struct redis_answer a;

	if (redis_next(m->r, &a))
		return mirror_lost(m);
	if (a.kind == REDIS_NOTHING)
		return MIRROR_CHANGED;
	if (a.kind == REDIS_FAULT)
		return mirror_fault(m, &a);
	for (size_t i = 0; i < (size_t)m->commands; i++) {
		struct redis_answer one = redis_at(&a, i);
		if (one.kind == REDIS_FAULT || i >= a.n)
			return torn(m, &one);
	}
	return MIRROR_OK;
}

enum mirror_verdict mirror_commit(struct mirror *m)
{
	enum mirror_verdict v;

	snprintf(m->seq_text, sizeof(m->seq_text), "%s.%" PRIu64, m->epoch_text, ++m->seq);
	redis_word(m->r, "HSET");
	redis_word(m->r, m->key);
	redis_word(m->r, "seq");
	redis_word(m->r, m->seq_text);
	m->told_mark = *m->want && !m->marked;
	if (m->told_mark) {
		redis_word(m->r, "resync");
		redis_word(m->r, m->want);
	}
	mirror_queue(m);
	redis_words(m->r, "EXEC", NULL);
	ask_mark(m);
	v = take_queued(m);
	if (v == MIRROR_OK)
		v = take_exec(m);
	if (v == MIRROR_OK)
		m->marked |= m->told_mark;
	return v == MIRROR_OK ? take_mark(m) : v;
}

/* ---- time: what may have been purged unseen ---- */

static int64_t boot_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* Since the log was last seen to end at a position, by the clock that says more. */
static int64_t away_ms(const struct mirror_part *part)
{
	int64_t wall = kafka_wall_ms() - part->caught_ms;
	int64_t boot = part->caught_boot_ms < 0 ? 0 : boot_ms() - part->caught_boot_ms;

	if (part->caught_ms <= 0)
		return INT64_MAX;
	return wall > boot ? wall : boot;
}

static bool too_long_away(struct mirror *m, int p)
{
	const struct mirror_part *part = &m->part[p];

	return decide_round_due(away_ms(part), atomic_load(&m->p->limits.delete_retention_ms),
				part->live);
}

static void check_gap(struct mirror *m, int p)
{
	if (!*m->want && too_long_away(m, p))
		mirror_want(m,
			    "partition %d was last read to its end %lld s ago, more than half of "
			    "delete.retention.ms",
			    p, (long long)(away_ms(&m->part[p]) / 1000));
}

/*
 * An EOF event comes once per position; on an idle topic the tail asks the
 * broker again and again, and its answer is good for here too: where Redis has
 * not moved since it was caught up, or that was not too long ago.
 */
static void learn_caught(struct mirror *m)
{
	struct state_partition row;
	struct state_view *v;

	if (state_view_begin(m->p->state, &v))
		return;
	for (int p = 0; p < m->p->n; p++) {
		struct mirror_part *part = &m->part[p];
		if (state_view_partition(v, p, &row) || row.due >= 0 || row.applied > part->at ||
		    row.caught_wall_ms <= part->caught_ms)
			continue;
		if (part->caught_at != part->at && too_long_away(m, p))
			continue;
		part->caught_ms = row.caught_wall_ms;
		part->caught_boot_ms = row.caught_boot_ms;
		part->caught_at = part->at;
		part->caught_moved = true;
	}
	state_view_end(v);
}

/* ---- the log ---- */

static enum mirror_verdict open_log(struct mirror *m)
{
	int64_t *from = calloc((size_t)m->p->n, sizeof(*from));
	char err[300] = "out of memory";
	int rc = -ENOMEM;

	for (int p = 0; from && p < m->p->n; p++)
		from[p] = m->part[p].at;
	if (from)
		rc = intake_open(&m->in, m->c, INTAKE_MIRROR, m->p->n, from, err, sizeof(err));
	free(from);
	if (!rc)
		return MIRROR_OK;
	log_error("SN-KAFKA-CONFIG", "Redis: consumer: %s", err);
	return MIRROR_KAFKA;
}

static void close_log(struct mirror *m)
{
	intake_close(m->in);
	m->in = NULL;
}

static enum mirror_verdict log_failed(struct mirror *m, int rc, const char *err)
{
	close_log(m);
	if (rc == INTAKE_RESET) {
		m->placed = false;
		mirror_want(m, "its position is not in the log any more: %s", err);
		return MIRROR_OK;
	}
	if (rc == -ENOMEM)
		pipeline_end(m->p, OUTCOME_UNREACHABLE, "SN-MEMORY", "out of memory");
	else
		log_info(NULL, "Redis: reading %s: %s", m->c->source_topic, err);
	return MIRROR_KAFKA;
}

/* What has arrived, bounded by records and by bytes. */
static int take_batch(struct mirror *m, int timeout_ms, char *err, size_t err_len)
{
	struct batch *b = intake_batch(m->in);

	for (int p = 0; p < m->p->n; p++) {
		m->part[p].next = m->part[p].at;
		m->part[p].next_anchor = m->part[p].anchor;
		m->part[p].eof = false;
	}
	for (size_t had = 1; had != b->n && b->n < BATCH_RECORDS && b->bytes < BATCH_BYTES;) {
		had = b->n;
		int rc = intake_take(m->in, timeout_ms, b->n + TAKE_STEP, &m->ev, err, err_len);
		if (rc)
			return rc;
		timeout_ms = 0;
		for (int p = 0; p < m->p->n; p++)
			if (m->ev.eof[p]) {
				m->part[p].eof = true;
				if (m->ev.eof_offset[p] > m->part[p].next)
					m->part[p].next = m->ev.eof_offset[p];
			}
	}
	for (size_t i = 0; i < b->n; i++) {
		const struct batch_record *r = &b->v[i];
		struct mirror_part *part = &m->part[r->rec.partition];
		if (r->rec.offset >= part->next)
			part->next = r->rec.offset + 1;
		part->next_anchor = (struct state_anchor){ r->rec.offset, r->rec.timestamp_ms,
							   record_hash(r->key, r->key_len) };
	}
	return 0;
}

static void judge_time(struct mirror *m)
{
	for (int p = 0; p < m->p->n; p++) {
		struct mirror_part *part = &m->part[p];

		if (part->eof || part->next != part->at)
			check_gap(m, p);
		if (!part->eof)
			continue;
		part->caught_ms = kafka_wall_ms();
		part->caught_boot_ms = boot_ms();
		part->caught_at = part->next;
		part->caught_moved = true;
		part->live = true;
	}
}

/* ---- data ---- */

static bool same_key(const struct batch_record *a, const struct batch_record *b)
{
	return a->order == b->order && a->skey_len == b->skey_len &&
	       !memcmp(a->skey, b->skey, a->skey_len);
}

/* Of each key the last record: *last [*n], tombstones first. */
static int last_of_keys(struct batch *b, const struct batch_record ***last, size_t *n)
{
	uint32_t *order = batch_by_key(b);
	const struct batch_record **v = arena_alloc(&b->arena, (b->n + 1) * sizeof(*v));
	size_t gone = 0, count = 0;

	if (!order || !v)
		return -ENOMEM;
	for (size_t i = 0; i < b->n; i++) {
		const struct batch_record *r = &b->v[order[i]];
		if (i + 1 < b->n && same_key(r, &b->v[order[i + 1]]))
			continue;
		v[count++] = r;
		if (r->rec.flags & RECORD_TOMBSTONE) {
			v[count - 1] = v[gone];
			v[gone++] = r;
		}
	}
	*last = v;
	*n = count;
	return 0;
}

static bool passed_over(struct mirror *m, const struct batch_record *r)
{
	if (!mark_reserves(m->self.prefix, r->key, r->key_len))
		return false;
	if (!m->reserved_said)
		log_warn(
			"SN-REDIS-KEY-RESERVED",
			"Redis: %s [%d] at %lld: a key that begins with %s is not mirrored, since "
			"redis.prefix is empty and the mirror's own keys begin so; choose a prefix",
			m->c->source_topic, r->rec.partition, (long long)r->rec.offset, MARK_KEYS);
	m->reserved_said = true;
	return true;
}

static int put_data(struct mirror *m, struct batch *b)
{
	const struct batch_record **v;
	int keys = 0, rc;
	bool was_gone = false;
	size_t n;

	rc = last_of_keys(b, &v, &n);
	for (size_t i = 0; i < n && !rc; i++) {
		bool gone = v[i]->rec.flags & RECORD_TOMBSTONE;
		size_t len, bytes = v[i]->rec.value_len;

		if (passed_over(m, v[i]))
			continue;
		const void *key = mirror_key(m, &b->arena, v[i]->key, v[i]->key_len, &len);
		if (!key)
			return -ENOMEM;
		if (keys && (gone != was_gone || keys == COMMAND_KEYS)) {
			mirror_queue(m);
			keys = 0;
		}
		if (!keys++)
			redis_word(m->r, gone ? "UNLINK" : "MSET");
		redis_arg(m->r, key, len);
		if (!gone)
			redis_arg(m->r, bytes ? v[i]->rec.value : "", bytes);
		was_gone = gone;
	}
	if (keys)
		mirror_queue(m);
	return rc;
}

/*
 * source.moved=timestamp: the order between partitions is not the log's, so what
 * counts is what the snapshot says, once it has everything of this batch.
 */
static int look_up(struct state_view *v, struct batch_record *r, struct arena *a)
{
	const void *rec, *copy;
	struct record now;
	size_t len;
	int rc = state_view_get(v, r->skey, r->skey_len, &rec, &len);

	if (rc == -ENOENT) {
		r->rec.flags |= RECORD_TOMBSTONE;
		return 0;
	}
	if (!rc)
		rc = record_decode(&now, rec, len, r->skey, r->skey_len);
	if (rc)
		return rc;
	copy = arena_copy(a, now.value, now.value_len);
	if (!copy)
		return -ENOMEM;
	r->rec.value = copy;
	r->rec.value_len = now.value_len;
	r->rec.flags &= (uint8_t)~RECORD_TOMBSTONE;
	return 0;
}

static bool has_applied_batch(struct mirror *m, struct state_view *v)
{
	struct state_partition row;

	for (int p = 0; p < m->p->n; p++)
		if (m->part[p].next != m->part[p].at &&
		    (state_view_partition(v, p, &row) || row.applied < m->part[p].next))
			return false;
	return true;
}

static int look_up_all(struct mirror *m, struct batch *b)
{
	struct state_view *v;
	int rc;

	for (;;) {
		if (mirror_stopping(m))
			return -ECANCELED;
		if ((rc = state_view_begin(m->p->state, &v)))
			return rc;
		if (has_applied_batch(m, v))
			break;
		state_view_end(v);
		usleep(20000);
	}
	for (size_t i = 0; i < b->n && !rc; i++)
		rc = look_up(v, &b->v[i], &b->arena);
	state_view_end(v);
	return rc;
}

/* ---- a batch ---- */

void mirror_took_effect(struct mirror *m)
{
	for (int p = 0; p < m->p->n; p++) {
		struct mirror_part *part = &m->part[p];
		part->at = part->next;
		part->anchor = part->next_anchor;
		metrics_set_at(METRIC_REDIS_OFFSET, p, part->at);
	}
	m->kept_ms = kafka_now_ms();
}

/* Where partitions have got; with `times`, also of those that only were seen to end there. */
static void put_positions(struct mirror *m, bool times)
{
	int n = 0;

	for (int p = 0; p < m->p->n; p++) {
		struct mirror_part *part = &m->part[p];
		if (part->next == part->at && !(times && part->caught_moved))
			continue;
		if (!n++) {
			redis_word(m->r, "HSET");
			redis_word(m->r, m->key);
		}
		mirror_put_part(m, p, part->next, &part->next_anchor);
		part->caught_moved = false;
	}
	if (!n)
		return;
	mirror_put_token(m);
	mirror_queue(m);
}

static enum mirror_verdict commit_batch(struct mirror *m)
{
	struct batch *b = intake_batch(m->in);
	enum mirror_verdict v;
	int rc = 0;

	if (b->n && m->c->source_moved == MOVED_TIMESTAMP)
		rc = look_up_all(m, b);
	if (rc == -ECANCELED)
		return MIRROR_STOPPED;
	if (!rc && (v = mirror_begin(m)) != MIRROR_OK)
		return v;
	if (!rc)
		rc = put_data(m, b);
	if (rc) {
		pipeline_end(m->p, rc == -EBADMSG ? OUTCOME_BROKEN : OUTCOME_UNREACHABLE,
			     rc == -EBADMSG ? "SN-RECORD-CHECKSUM" : "SN-STATE-IO",
			     "Redis: reading %s: %s", m->c->state_dir, state_strerror(rc));
		return MIRROR_STOPPED;
	}
	put_positions(m, b->n > 0);
	v = mirror_commit(m);
	if (v == MIRROR_OK) {
		mirror_took_effect(m);
		metrics_add(METRIC_REDIS_WRITES, 1);
	}
	return v;
}

static bool is_news(const struct mirror *m)
{
	for (int p = 0; p < m->p->n; p++)
		if (m->part[p].next != m->part[p].at)
			return true;
	return *m->want && !m->marked;
}

/* Nothing has come: look whether Redis is still what it was, and keep the times. */
static enum mirror_verdict idle(struct mirror *m)
{
	int64_t now = kafka_now_ms();
	int64_t keep = atomic_load(&m->p->limits.delete_retention_ms) / 8;
	enum mirror_verdict v;

	if (now - m->looked_ms < LOOK_MS)
		return MIRROR_OK;
	learn_caught(m);
	if (now - m->checked_ms >= CHECK_MS && (v = mirror_check_server(m)) != MIRROR_OK)
		return v;
	keep = keep < LOOK_MS ? LOOK_MS : keep > KEEP_MS ? KEEP_MS : keep;
	if (now - m->kept_ms < keep)
		return mirror_look(m);
	if ((v = mirror_begin(m)) != MIRROR_OK)
		return v;
	put_positions(m, true);
	v = mirror_commit(m);
	if (v == MIRROR_OK)
		mirror_took_effect(m);
	return v;
}

static enum mirror_verdict follow_log(struct mirror *m, int timeout_ms)
{
	enum mirror_verdict v = m->in ? MIRROR_OK : open_log(m);
	char err[300];
	int rc;

	if (v != MIRROR_OK)
		return v;
	rc = take_batch(m, timeout_ms, err, sizeof(err));
	if (rc)
		return log_failed(m, rc, err);
	judge_time(m);
	v = is_news(m) ? commit_batch(m) : idle(m);
	intake_clear(m->in);
	return v;
}

/* ---- a session: one connection ---- */

static void watch_rounds(struct mirror *m)
{
	long long rounds = pipeline_departures(m->p);

	if (m->phase == RESYNC_NONE ? rounds == m->rounds : rounds == m->rounds_begun)
		return;
	mirror_want(m, "keys have left the snapshot that the log does not tell of");
}

/* Until a resync begins, Redis is not to run ahead of the snapshot for ever. */
static bool held_back(struct mirror *m)
{
	int64_t now = kafka_now_ms();

	if (!m->behind_ms)
		return false;
	if (m->placed && now - m->behind_ms >= HELD_BACK_MS) {
		m->behind_ms = now;
		return false;
	}
	usleep(10000);
	return true;
}

static enum mirror_verdict go_on(struct mirror *m)
{
	enum mirror_verdict v = MIRROR_OK;
	bool resync;

	watch_rounds(m);
	resync = *m->want || m->phase != RESYNC_NONE;
	if (resync)
		v = mirror_resync(m);
	if (v == MIRROR_OK && resync && held_back(m))
		return kafka_now_ms() - m->looked_ms < LOOK_MS ? MIRROR_OK : mirror_look(m);
	if (v == MIRROR_OK && m->placed)
		v = follow_log(m,
			       m->phase == RESYNC_STRAYS || m->phase == RESYNC_WALK ? 0 : POLL_MS);
	return v;
}

static enum mirror_verdict cannot_connect(struct mirror *m, int rc, const char *err)
{
	if (rc == -ECANCELED)
		return MIRROR_STOPPED;
	if (rc == -EACCES || rc == -EINVAL) {
		mirror_say(m, true, "SN-REDIS-LOGIN",
			   "%s: see redis.user, redis.password.file and redis.uri; trying again",
			   err);
		return MIRROR_REFUSED;
	}
	mirror_say(m, false, "SN-REDIS-UNREACHABLE",
		   "%s; trying again; snapshot and notifications go on", err);
	return MIRROR_LOST;
}

static enum mirror_verdict session(struct mirror *m)
{
	char err[400];
	int rc = redis_open(&m->r, &m->server, &m->stop, err, sizeof(err));
	enum mirror_verdict v;

	if (rc)
		return cannot_connect(m, rc, err);
	m->want[0] = '\0';
	m->placed = m->marked = false;
	m->phase = RESYNC_NONE;
	m->behind_ms = 0;
	m->kept_ms = kafka_now_ms();
	v = mirror_hold(m);
	if (v == MIRROR_OK && m->placed) {
		learn_caught(m);
		mirror_took_effect(m);
	}
	metrics_set(METRIC_REDIS_RESYNCING, v == MIRROR_OK && !m->placed);
	while (v == MIRROR_OK)
		v = mirror_stopping(m) ? MIRROR_STOPPED : go_on(m);
	redis_close(m->r); /* first: from here on this thread can do nothing more */
	m->r = NULL;
	close_log(m);
	return v;
}

static void rest(struct mirror *m, int ms)
{
	for (int64_t until = kafka_now_ms() + ms; !mirror_stopping(m) && kafka_now_ms() < until;)
		usleep(20000);
}

static void *run(void *arg)
{
	struct mirror *m = arg;

	while (!mirror_stopping(m)) {
		enum mirror_verdict v = session(m);
		if (v != MIRROR_STOPPED) {
			metrics_set(METRIC_REDIS_UP, 0);
			metrics_add(METRIC_REDIS_FAILURES, 1);
		}
		if (v == MIRROR_FENCED)
			log_warn("SN-REDIS-FENCED",
				 "Redis: another sidecar has raised the epoch in %s: it mirrors "
				 "now; "
				 "looking again if this one still leads in %d s",
				 m->key, FENCED_MS / 1000);
		rest(m, v == MIRROR_FENCED    ? FENCED_MS
			: v == MIRROR_REFUSED ? REFUSED_MS
			: v == MIRROR_CHANGED ? 20
					      : RETRY_MS);
	}
	/* another one may mirror now, which is nothing that is known here */
	metrics_set(METRIC_REDIS_UP, METRIC_UNKNOWN);
	metrics_set(METRIC_REDIS_RESYNCING, METRIC_UNKNOWN);
	for (int p = 0; p < m->p->n; p++)
		metrics_set_at(METRIC_REDIS_OFFSET, p, METRIC_UNKNOWN);
	return NULL;
}

/* ---- life ---- */

struct redis_options mirror_server(const struct config *c)
{
	return (struct redis_options){ .uri = c->redis_uri,
				       .user = c->redis_user,
				       .password_file = c->redis_password_file,
				       .tls_ca = c->redis_tls_ca,
				       .tls_cert = c->redis_tls_cert,
				       .tls_key = c->redis_tls_key };
}

int mirror_check(const struct config *c, char *err, size_t err_len)
{
	const struct redis_options o = mirror_server(c);

	return *c->redis_uri ? redis_check(&o, err, err_len) : 0;
}

/* The id, which does not change when cluster.name does. */
static void name_cluster(struct mirror *m)
{
	struct state_view *v;

	if (m->p->state && !state_view_begin(m->p->state, &v)) {
		if (state_view_meta(v, "cluster_id", m->cluster, sizeof(m->cluster)))
			m->cluster[0] = '\0';
		state_view_end(v);
	}
	if (!*m->cluster)
		memcpy(m->cluster, m->p->cluster, sizeof(m->cluster));
}

static int make(struct mirror *m)
{
	size_t n = (size_t)m->p->n;
	char *client;

	name_cluster(m);
	snprintf(m->key, sizeof(m->key), "%s%s", MARK_KEYS, m->c->name);
	m->self = (struct mark_self){ .name = m->c->name,
				      .cluster = m->cluster,
				      .topic = m->c->source_topic,
				      .prefix = m->c->redis_prefix,
				      .partitions = m->p->n,
				      .adopt = m->c->redis_adopt };
	m->server = mirror_server(m->c);
	m->prefix_len = strlen(m->self.prefix);
	m->pattern = redis_pattern(m->self.prefix, m->prefix_len, &m->pattern_len);
	m->part = calloc(n, sizeof(*m->part));
	m->ev.eof = calloc(n, sizeof(*m->ev.eof));
	m->ev.eof_offset = calloc(n, sizeof(*m->ev.eof_offset));
	if (asprintf(&client, "sidenote-%s-mirror", m->c->name) < 0)
		return -ENOMEM;
	m->server.client = client;
	return m->pattern && m->part && m->ev.eof && m->ev.eof_offset ? 0 : -ENOMEM;
}

int mirror_open(struct mirror **out, struct pipeline *p)
{
	struct mirror *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->p = p;
	m->c = p->config;
	if (make(m)) {
		mirror_close(m);
		return -ENOMEM;
	}
	*out = m;
	return 0;
}

void mirror_close(struct mirror *m)
{
	if (!m)
		return;
	arena_free(&m->texts);
	arena_free(&m->chunk);
	free((char *)m->server.client);
	free(m->pattern);
	free(m->part);
	free(m->ev.eof);
	free(m->ev.eof_offset);
	free(m);
}

int mirror_start(struct mirror *m)
{
	m->epoch = 0;
	m->synced[0] = m->owed[0] = m->said_id[0] = '\0';
	m->unchecked_said = false;
	for (int p = 0; p < m->p->n; p++)
		m->part[p].live = false;
	atomic_store(&m->stop, false);
	int rc = -pthread_create(&m->thread, NULL, run, m);
	m->running = !rc;
	return rc;
}

void mirror_halt(struct mirror *m)
{
	if (m)
		atomic_store(&m->stop, true);
}

bool mirror_stop(struct mirror *m, int budget_ms)
{
	struct timespec until;

	mirror_halt(m);
	if (!m || !m->running)
		return true;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += budget_ms / 1000;
	if (pthread_clockjoin_np(m->thread, NULL, CLOCK_MONOTONIC, &until))
		return false;
	m->running = false;
	return true;
}
