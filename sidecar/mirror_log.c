/*
 * mirror_log.c - from the log to Redis, batch by batch.  Steps 2 and 9 of
 * mirror.c.
 */
#include "mirror_private.h"
#include "kafka.h"
#include "log.h"
#include "metrics.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	BATCH_RECORDS = 2000, /* of one transaction: others use this Redis too */
	BATCH_BYTES = 2 << 20,
	TAKE_STEP = 250,    /* records taken between two looks at the bytes */
	COMMAND_KEYS = 500, /* of one MSET or UNLINK */
	KEEP_MS = 30000,    /* between writes of t<N> while idle */
	CHECK_MS = 60000,   /* between looks at the server's settings */
};

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
void mirror_learn_caught(struct mirror *m)
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
		rc = intake_open(&m->in, m->c, INTAKE_MIRROR, m->p->n, from, NULL, err,
				 sizeof(err));
	free(from);
	if (!rc)
		return MIRROR_OK;
	log_error("SN-KAFKA-CONFIG", "Redis: consumer: %s", err);
	return MIRROR_KAFKA;
}

void mirror_close_log(struct mirror *m)
{
	intake_close(m->in);
	m->in = NULL;
}

static enum mirror_verdict log_failed(struct mirror *m, int rc, const char *err)
{
	mirror_close_log(m);
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

	if (now - m->looked_ms < MIRROR_LOOK_MS)
		return MIRROR_OK;
	mirror_learn_caught(m);
	if (now - m->checked_ms >= CHECK_MS && (v = mirror_check_server(m)) != MIRROR_OK)
		return v;
	keep = keep < MIRROR_LOOK_MS ? MIRROR_LOOK_MS : keep > KEEP_MS ? KEEP_MS : keep;
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

enum mirror_verdict mirror_follow(struct mirror *m, int timeout_ms)
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
