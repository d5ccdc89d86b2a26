/*
 * From the snapshot, live, nothing wiped, nothing twice in memory:
 *   1. One view of the snapshot, in which no round is due and which is not
 *      behind Redis in any partition: its applied positions S become those of
 *      the mark, with `resync`, in one transaction.  From here on the log is
 *      followed from S as always, in turn with what follows.  M is where that
 *      has got.
 *   2. SCAN under the prefix: a key that a view at or after M does not have is
 *      deleted.  Were it to come later, its record is at or after M.  First, so
 *      that there is room.
 *   3. A walk over the snapshot, in views at or after M, each shorter than a
 *      lease: a record below M is the newest that the log has below M, and what
 *      Redis has instead is overwritten.  A record at or after M is left to the
 *      log.  So values only ever go forward.
 *   4. When the log has got beyond every view that was used, Redis is the fold up
 *      to M: `resync` leaves the mark.
 * Every write is a transaction like that of a batch, refused if the mark is not as
 * it was left.  A crash leaves `resync`: begin at 1; what is right already is only
 * read.  So does a round that ends meanwhile, since it takes keys away without
 * the log's telling.
 */
#include "mirror_private.h"
#include "kafka.h"
#include "log.h"
#include "metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	SCAN_COUNT = 1000,
	CHUNK_KEYS = 2000,
	CHUNK_BYTES = 2 << 20,
	COMMAND_KEYS = 500,
	VIEW_MS = 50, /* of a view: also while many records are left to the log */
	CHECK_EVERY = 256,
	SAY_MS = 10000,
};

static enum mirror_verdict state_failed(struct mirror *m, int rc)
{
	pipeline_end(m->p, rc == -EBADMSG ? OUTCOME_BROKEN : OUTCOME_UNREACHABLE,
		     rc == -EBADMSG  ? "SN-RECORD-CHECKSUM"
		     : rc == -ENOMEM ? "SN-MEMORY"
				     : "SN-STATE-IO",
		     "Redis: reading %s: %s", m->c->state_dir, state_strerror(rc));
	return MIRROR_STOPPED;
}

/* ---- a view that may be used ---- */

/* 1; 0: not yet; < 0. */
static int is_usable(struct mirror *m, struct state_view *v, struct state_partition *rows)
{
	for (int p = 0; p < m->p->n; p++) {
		int rc = state_view_partition(v, p, &rows[p]);

		if (rc == -ENOENT)
			rows[p] = STATE_PARTITION_NEW;
		else if (rc)
			return rc;
		if (rows[p].due >= 0 || rows[p].caught_wall_ms < 0 ||
		    (m->placed && rows[p].applied < m->part[p].at))
			return 0;
	}
	return 1;
}

/* NULL in *out: the snapshot is behind, which m->behind_ms tells. */
static int usable_view(struct mirror *m, struct state_view **out, struct state_partition *rows)
{
	struct state_view *v;
	int rc = state_view_begin(m->p->state, &v);

	*out = NULL;
	if (rc)
		return rc;
	rc = is_usable(m, v, rows);
	if (rc == 1) {
		m->behind_ms = 0;
		*out = v;
		return 0;
	}
	state_view_end(v);
	if (!m->behind_ms)
		m->behind_ms = kafka_now_ms();
	return rc;
}

static void reach(struct mirror *m, const struct state_partition *rows)
{
	for (int p = 0; p < m->p->n; p++)
		if (rows[p].applied > m->part[p].reach)
			m->part[p].reach = rows[p].applied;
}

/* ---- step 1 ---- */

static int place(struct mirror *m, struct state_view *v, const struct state_partition *rows)
{
	struct state_anchor a[STATE_ANCHORS];

	for (int p = 0; p < m->p->n; p++) {
		struct mirror_part *part = &m->part[p];
		int n = state_view_anchors(v, p, a);

		if (n < 0)
			return n;
		part->next = part->reach = rows[p].applied;
		part->next_anchor = n ? a[0] : (struct state_anchor){ .offset = -1 };
		part->caught_ms = rows[p].caught_wall_ms;
		part->caught_boot_ms = rows[p].caught_boot_ms;
		part->newest.offset = -1;
		part->caught_at = -1; /* the tail may have read on since */
		part->live = true;    /* it was running, and so it goes on */
	}
	return 0;
}

static enum mirror_verdict write_start(struct mirror *m)
{
	enum mirror_verdict verdict = mirror_begin(m);

	if (verdict != MIRROR_OK)
		return verdict;
	redis_words(m->r, "DEL", m->key, NULL);
	m->commands++;
	mirror_put_identity(m);
	redis_word(m->r, "state");
	redis_word(m->r, state_uuid(m->p->state));
	redis_word(m->r, "partitions");
	redis_word(m->r, mirror_text(m, "%d", m->p->n));
	for (int p = 0; p < m->p->n; p++)
		mirror_put_part(m, p, m->part[p].next, &m->part[p].next_anchor);
	mirror_put_token(m);
	mirror_queue(m);
	m->marked = false; /* the transaction takes it away, and puts it back */
	return mirror_commit(m);
}

static enum mirror_verdict begin(struct mirror *m, struct state_partition *rows)
{
	long long rounds = pipeline_departures(m->p); /* before the view */
	struct state_view *v;
	enum mirror_verdict verdict;
	int rc = usable_view(m, &v, rows);

	if (rc || !v)
		return rc ? state_failed(m, rc) : MIRROR_OK;
	rc = place(m, v, rows);
	state_view_end(v);
	if (rc)
		return state_failed(m, rc);
	if ((verdict = write_start(m)) != MIRROR_OK)
		return verdict;
	if (m->fresh)
		log_info(NULL, "Redis: filling %s, epoch %" PRId64, m->server.uri, m->epoch);
	else
		log_warn("SN-REDIS-RESYNC", "Redis: comparing with the snapshot: %s", m->want);
	mirror_took_effect(m);
	metrics_set(METRIC_REDIS_RESYNCING, 1);
	intake_close(m->in); /* to be opened where Redis is now */
	m->in = NULL;
	m->placed = true;
	m->want[0] = '\0';
	m->rounds_begun = rounds;
	m->phase = m->prefix_len && !m->fresh ? RESYNC_STRAYS : RESYNC_WALK;
	snprintf(m->cursor, sizeof(m->cursor), "0");
	m->after_len = 0;
	m->compared = m->written = m->deleted = 0;
	m->began_ms = m->told_ms = kafka_now_ms();
	return MIRROR_OK;
}

/* ---- step 2 ---- */

struct text {
	const char *p;
	size_t len;
};

/* Copies the page and keeps those in front that `v` does not have. */
static int find_strays(struct mirror *m, struct state_view *v, struct text *keys, size_t n,
		       size_t *strays)
{
	uint8_t skey[KEY_STORED_MAX];
	const void *rec;
	size_t rec_len;

	*strays = 0;
	for (size_t i = 0; i < n; i++) {
		size_t len = record_stored_key(skey, keys[i].p + m->prefix_len,
					       keys[i].len - m->prefix_len);
		int rc = len ? state_view_get(v, skey, len, &rec, &rec_len) : -ENOMEM;
		if (rc && rc != -ENOENT)
			return rc;
		if (rc)
			keys[(*strays)++] = keys[i];
	}
	return 0;
}

static int copy_page(struct mirror *m, const struct redis_answer *page, struct text **out,
		     size_t *n)
{
	struct text *keys = arena_alloc(&m->chunk, (page->n + 1) * sizeof(*keys));

	*n = 0;
	if (!keys)
		return -ENOMEM;
	for (size_t i = 0; i < page->n; i++) {
		struct redis_answer key = redis_at(page, i);
		if (key.kind != REDIS_TEXT || key.len < m->prefix_len ||
		    memcmp(key.text, m->self.prefix, m->prefix_len) != 0)
			continue;
		keys[*n] = (struct text){ arena_copy(&m->chunk, key.text, key.len), key.len };
		if (!keys[(*n)++].p)
			return -ENOMEM;
	}
	*out = keys;
	return 0;
}

static enum mirror_verdict delete_strays(struct mirror *m, const struct text *keys, size_t n)
{
	enum mirror_verdict v = n ? mirror_begin(m) : MIRROR_OK;

	if (!n || v != MIRROR_OK)
		return v;
	for (size_t i = 0; i < n; i++) {
		if (i % COMMAND_KEYS == 0)
			redis_word(m->r, "UNLINK");
		redis_arg(m->r, keys[i].p, keys[i].len);
		if (i % COMMAND_KEYS == COMMAND_KEYS - 1 || i + 1 == n)
			mirror_queue(m);
	}
	m->deleted += n;
	return mirror_commit(m);
}

static enum mirror_verdict scan_page(struct mirror *m, struct redis_answer *a)
{
	char count[16];

	snprintf(count, sizeof(count), "%d", SCAN_COUNT);
	redis_word(m->r, "SCAN");
	redis_word(m->r, m->cursor);
	redis_word(m->r, "MATCH");
	redis_arg(m->r, m->pattern, m->pattern_len);
	redis_word(m->r, "COUNT");
	redis_word(m->r, count);
	redis_send(m->r);
	if (redis_next(m->r, a))
		return mirror_lost(m);
	return a->kind == REDIS_FAULT ? mirror_fault(m, a) : MIRROR_OK;
}

static enum mirror_verdict scan(struct mirror *m, struct state_partition *rows)
{
	struct redis_answer a, page;
	struct state_view *v;
	struct text *keys;
	char next[32];
	size_t n, strays;
	enum mirror_verdict verdict = scan_page(m, &a);
	int rc;

	if (verdict != MIRROR_OK)
		return verdict;
	page = redis_at(&a, 0);
	snprintf(next, sizeof(next), "%s", page.kind == REDIS_TEXT ? page.text : "0");
	page = redis_at(&a, 1);
	arena_clear(&m->chunk);
	rc = copy_page(m, &page, &keys, &n);
	/* after the page: what is not in this view was not yet, or is not any more */
	if (!rc)
		rc = usable_view(m, &v, rows);
	if (rc || !v)
		return rc ? state_failed(m, rc) : MIRROR_OK; /* the same page again */
	reach(m, rows);
	rc = find_strays(m, v, keys, n, &strays);
	state_view_end(v);
	if (rc)
		return state_failed(m, rc);
	memcpy(m->cursor, next, sizeof(next));
	if (!strcmp(next, "0"))
		m->phase = RESYNC_WALK;
	return delete_strays(m, keys, strays);
}

/* ---- step 3 ---- */

struct pair {
	struct text key, value;
};

static int take_pair(struct mirror *m, const struct record *r, const void *skey, size_t skey_len,
		     struct pair *out)
{
	const void *key = r->flags & RECORD_KEY ? r->key : skey;
	size_t key_len = r->flags & RECORD_KEY ? r->key_len : skey_len;

	out->key.p = mirror_key(m, &m->chunk, key, key_len, &out->key.len);
	if (!m->prefix_len) /* then it points into the view */
		out->key.p = arena_copy(&m->chunk, key, key_len);
	out->value.p = arena_copy(&m->chunk, r->value, r->value_len);
	out->value.len = r->value_len;
	return out->key.p && out->value.p ? 0 : -ENOMEM;
}

static void remember_newest(struct mirror *m, const struct record *r, const void *skey,
			    size_t skey_len)
{
	struct state_anchor *newest = &m->part[r->partition].newest;
	bool whole = r->flags & RECORD_KEY;

	if (r->offset > newest->offset)
		*newest = (struct state_anchor){ r->offset, r->timestamp_ms,
						 record_hash(whole ? r->key : skey,
							     whole ? r->key_len : skey_len) };
}

/* A view's worth of the walk: *n pairs, -ENOENT with them at the end. */
static int walk(struct mirror *m, struct state_view *v, struct pair *pairs, size_t *n)
{
	int64_t until = kafka_now_ms() + VIEW_MS;
	const void *skey, *rec;
	size_t skey_len, rec_len, bytes = 0;
	struct record r;
	int rc = 0;

	*n = 0;
	for (unsigned i = 0; *n < CHUNK_KEYS && bytes < CHUNK_BYTES; i++) {
		if (i % CHECK_EVERY == CHECK_EVERY - 1 && kafka_now_ms() > until)
			break;
		rc = state_view_walk(v, m->after, m->after_len, &skey, &skey_len, &rec, &rec_len);
		if (rc || (rc = record_decode(&r, rec, rec_len, skey, skey_len)))
			break;
		memcpy(m->after, skey, skey_len);
		m->after_len = skey_len;
		if (r.partition < 0 || r.partition >= m->p->n ||
		    r.offset >= m->part[r.partition].at)
			continue;
		remember_newest(m, &r, skey, skey_len);
		if (!(r.flags & RECORD_KEY) && mark_reserves(m->self.prefix, skey, skey_len))
			continue;
		if ((rc = take_pair(m, &r, skey, skey_len, &pairs[*n])))
			break;
		bytes += pairs[*n].key.len + pairs[*n].value.len;
		++*n;
	}
	return rc;
}

/* Keeps in front those that Redis has not, or otherwise. */
static enum mirror_verdict drop_equal(struct mirror *m, struct pair *pairs, size_t *n)
{
	struct redis_answer a;
	size_t kept = 0, all = *n;

	if (!all)
		return MIRROR_OK;
	redis_word(m->r, "MGET");
	for (size_t i = 0; i < all; i++)
		redis_arg(m->r, pairs[i].key.p, pairs[i].key.len);
	redis_send(m->r);
	if (redis_next(m->r, &a))
		return mirror_lost(m);
	if (a.kind == REDIS_FAULT)
		return mirror_fault(m, &a);
	for (size_t i = 0; i < all; i++) {
		struct redis_answer now = redis_at(&a, i);
		if (now.kind == REDIS_TEXT && now.len == pairs[i].value.len &&
		    !memcmp(now.text, pairs[i].value.p, now.len))
			continue;
		pairs[kept++] = pairs[i];
	}
	*n = kept;
	return MIRROR_OK;
}

static enum mirror_verdict write_pairs(struct mirror *m, const struct pair *pairs, size_t n)
{
	enum mirror_verdict v = n ? mirror_begin(m) : MIRROR_OK;

	if (!n || v != MIRROR_OK)
		return v;
	for (size_t i = 0; i < n; i++) {
		if (i % COMMAND_KEYS == 0)
			redis_word(m->r, "MSET");
		redis_arg(m->r, pairs[i].key.p, pairs[i].key.len);
		redis_arg(m->r, pairs[i].value.p, pairs[i].value.len);
		if (i % COMMAND_KEYS == COMMAND_KEYS - 1 || i + 1 == n)
			mirror_queue(m);
	}
	m->written += n;
	return mirror_commit(m);
}

static enum mirror_verdict walk_on(struct mirror *m, struct state_partition *rows)
{
	enum mirror_verdict verdict = MIRROR_OK;
	struct state_view *v;
	struct pair *pairs;
	size_t n;
	int rc;

	arena_clear(&m->chunk);
	pairs = arena_alloc(&m->chunk, CHUNK_KEYS * sizeof(*pairs));
	rc = pairs ? usable_view(m, &v, rows) : -ENOMEM;
	if (rc || !v)
		return rc ? state_failed(m, rc) : MIRROR_OK;
	reach(m, rows);
	rc = walk(m, v, pairs, &n);
	state_view_end(v);
	if (rc && rc != -ENOENT)
		return state_failed(m, rc);
	m->compared += n;
	if (rc == -ENOENT)
		m->phase = RESYNC_SETTLE;
	if (!m->fresh)
		verdict = drop_equal(m, pairs, &n);
	return verdict == MIRROR_OK ? write_pairs(m, pairs, n) : verdict;
}

/* ---- step 4 ---- */

/* A fill remembers no record to know the log by: the walk has seen the newest. */
static void put_newest(struct mirror *m)
{
	char text[MARK_ANCHOR_MAX];

	for (int p = 0; p < m->p->n; p++) {
		struct mirror_part *part = &m->part[p];
		if (part->newest.offset <= part->anchor.offset)
			continue;
		part->anchor = part->newest;
		mark_anchor_format(&part->anchor, text);
		redis_words(m->r, "HSET", m->key, mirror_text(m, "a%d", p), text, NULL);
		m->commands++;
	}
}

static enum mirror_verdict settle(struct mirror *m)
{
	enum mirror_verdict v;
	char token[48];

	for (int p = 0; p < m->p->n; p++)
		if (m->part[p].at < m->part[p].reach)
			return MIRROR_OK;
	snprintf(token, sizeof(token), "%s-%" PRId64, m->epoch_text, kafka_wall_ms());
	if ((v = mirror_begin(m)) != MIRROR_OK)
		return v;
	put_newest(m);
	redis_words(m->r, "HDEL", m->key, "resync", NULL);
	m->commands++;
	redis_words(m->r, "HSET", m->key, "synced", token, NULL);
	m->commands++;
	m->marked = false;
	if ((v = mirror_commit(m)) != MIRROR_OK)
		return v;
	memcpy(m->synced, token, sizeof(token));
	m->owed[0] = '\0';
	m->rounds = m->rounds_begun;
	m->phase = RESYNC_NONE;
	m->fresh = false;
	metrics_set(METRIC_REDIS_RESYNCING, 0);
	metrics_add(METRIC_REDIS_RESYNCS, 1);
	log_info(NULL,
		 "Redis: in step with the snapshot after %.1f s: %" PRIu64
		 " keys compared, %" PRIu64 " written, %" PRIu64 " deleted that it does not have",
		 (double)(kafka_now_ms() - m->began_ms) / 1000, m->compared, m->written,
		 m->deleted);
	if (!m->prefix_len)
		log_info(NULL, "Redis: without redis.prefix, keys that the snapshot does not have "
			       "are not looked for");
	return MIRROR_OK;
}

static void say_progress(struct mirror *m)
{
	int64_t now = kafka_now_ms();

	if (m->phase == RESYNC_NONE || now - m->told_ms < SAY_MS)
		return;
	m->told_ms = now;
	log_info(NULL,
		 "Redis: %s; %" PRIu64 " keys compared, %" PRIu64 " written, %" PRIu64 " deleted",
		 m->phase == RESYNC_STRAYS ? "looking for keys that the snapshot does not have"
		 : m->phase == RESYNC_WALK ? "comparing with the snapshot"
					   : "waiting for the log",
		 m->compared, m->written, m->deleted);
}

enum mirror_verdict mirror_resync(struct mirror *m)
{
	struct state_partition *rows = calloc((size_t)m->p->n, sizeof(*rows));
	enum mirror_verdict v = MIRROR_OK;

	if (!rows)
		return state_failed(m, -ENOMEM);
	if (*m->want)
		v = begin(m, rows);
	else if (m->phase == RESYNC_STRAYS)
		v = scan(m, rows);
	else if (m->phase == RESYNC_WALK)
		v = walk_on(m, rows);
	else if (m->phase == RESYNC_SETTLE)
		v = settle(m);
	free(rows);
	say_progress(m);
	return v;
}
