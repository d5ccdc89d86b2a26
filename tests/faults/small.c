#include "small.h"
#include "sort.h"
#include "versions.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { VALUE_MAX = 9000, SORT_BYTES = 64 << 10, TRIM_MAX = 40, LEASE_MS = 1, TOLD_BEHIND = 30 };

/* ---- the log ---- */

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

struct logged {
	int k;
	bool tombstone, usual; /* usual: of the same bytes as others of its key */
	size_t value_len;
	uint64_t value; /* tells its bytes */
};

/* What stands at an offset; false: a gap. */
static bool log_at(const struct small *s, int p, int64_t offset, struct logged *l)
{
	uint64_t x = mix(s->seed ^ mix((uint64_t)offset * SMALL_PARTITIONS + (uint64_t)p));
	if (x % 8 == 0)
		return false;
	l->k = (int)((x >> 8) % SMALL_KEYS);
	l->tombstone = (x >> 40 & 7) == 0;
	l->usual = (x >> 43 & 7) == 0;
	l->value = l->usual ? (uint64_t)l->k : mix(x);
	l->value_len = l->usual ? 20 : (x >> 46 & 31) == 0 ? 5000 + x % 4000 : 10 + (x >> 51 & 255);
	return true;
}

static void value_bytes(const struct logged *l, char *out)
{
	uint64_t x = l->value;
	for (size_t i = 0; i < l->value_len;
	     i += 8, x = x * 6364136223846793005 + 1442695040888963407) {
		size_t left = l->value_len - i;
		memcpy(out + i, &x, left < 8 ? left : 8);
	}
}

/* Every sixth is longer than LMDB takes. */
size_t small_key(char *out, int p, int k)
{
	size_t len = (size_t)snprintf(out, SMALL_KEY_MAX, "key-%d-%d", p, k);
	if (k % 6)
		return len;
	memset(out + len, 'x', 590 - len);
	return 590;
}

/* The offset of the last record of each key below `upto`, -1: none, or a tombstone. */
static void fold(const struct small *s, int p, int64_t upto, int64_t last[SMALL_KEYS])
{
	struct logged l;
	for (int k = 0; k < SMALL_KEYS; k++)
		last[k] = -1;
	for (int64_t o = 0; o < upto; o++)
		if (log_at(s, p, o, &l))
			last[l.k] = l.tombstone ? -1 : o;
}

const char *small_value(const struct small *s, int p, int k, int64_t applied, size_t *len)
{
	static char bytes[VALUE_MAX];
	int64_t last[SMALL_KEYS];
	struct logged l;
	fold(s, p, applied, last);
	if (last[k] < 0 || !log_at(s, p, last[k], &l))
		return NULL;
	value_bytes(&l, bytes);
	*len = l.value_len;
	return bytes;
}

/* ---- a batch ---- */

/* Appends to the batch what stands at (p, offset), with copies in its arena. */
static int read_one(struct small *s, int p, int64_t offset)
{
	struct batch *b = &s->batch;
	struct logged l;
	char key[SMALL_KEY_MAX];
	if (!log_at(s, p, offset, &l))
		return 0;
	size_t key_len = small_key(key, p, l.k);
	void *k = arena_copy(&b->arena, key, key_len);
	char *v = arena_alloc(&b->arena, l.value_len);
	struct batch_record *r = k && v ? batch_add(b, k, key_len) : NULL;
	if (!r)
		return -ENOMEM;
	value_bytes(&l, v);
	r->rec.partition = p;
	r->rec.offset = offset;
	r->rec.timestamp_ms = 1000 + offset;
	r->rec.value = l.tombstone ? NULL : v;
	r->rec.value_len = l.tombstone ? 0 : l.value_len;
	if (l.tombstone)
		r->rec.flags |= RECORD_TOMBSTONE;
	return 0;
}

static int read_log(struct small *s, int p, int64_t from, int64_t upto)
{
	int rc = 0;
	for (int64_t o = from; o < upto && !rc; o++)
		rc = read_one(s, p, o);
	return rc;
}

static int put_anchors(struct small *s, struct state_txn *t, int p)
{
	struct state_anchor a[4];
	struct logged l;
	int n = 0;
	for (int64_t o = s->rows[p].applied - 1; o >= 0 && n < 4; o--)
		if (log_at(s, p, o, &l))
			a[n++] = (struct state_anchor){ .offset = o, .timestamp_ms = 1000 + o };
	return state_anchors_set(t, p, a, n);
}

/* Every superseded pair below is told. */
static int64_t cursor(const struct small *s, int p)
{
	return s->published[p] > TOLD_BEHIND ? s->published[p] - TOLD_BEHIND : 0;
}

static int trim(struct small *s, struct state_txn *t, int p)
{
	struct state_partition *row = &s->rows[p];
	if (s->published[p] < 0)
		return 0;
	row->published = s->published[p];
	int rc = state_trim(t, p, row, s->published[p], 0, TRIM_MAX);
	if (rc >= 0 && s->waits)
		rc = state_waiting_trim(t, p, cursor(s, p), TRIM_MAX);
	return rc < 0 ? rc : 0;
}

static int put_all(struct small *s, struct state_txn *t, int n)
{
	static const bool blind[SMALL_PARTITIONS];
	const struct apply_options o = { .journal = true, .waiting = s->waits, .blind = blind };
	struct apply_counts counts = { 0 };
	int rc = apply_batch(t, &s->batch, &o, &counts, s->err, sizeof(s->err));
	for (int p = 0; p < SMALL_PARTITIONS && !rc; p++) {
		s->rows[p].applied += n;
		if (!(rc = trim(s, t, p)) && !(rc = put_anchors(s, t, p)))
			rc = state_partition_set(t, p, &s->rows[p]);
	}
	return rc ? rc : state_meta_set(t, "role", "leader");
}

static int try_batch(struct small *s, int n)
{
	struct state_partition saved[SMALL_PARTITIONS];
	struct state_txn *t;
	int rc = 0;
	memcpy(saved, s->rows, sizeof(saved));
	s->err[0] = 0;
	batch_clear(&s->batch);
	for (int p = 0; p < SMALL_PARTITIONS && !rc; p++)
		rc = read_log(s, p, s->rows[p].applied, s->rows[p].applied + n);
	if (rc || (rc = state_begin(s->st, &t)))
		return rc;
	rc = put_all(s, t, n);
	if (rc)
		state_abort(t);
	else
		rc = state_commit(t);
	if (rc)
		memcpy(s->rows, saved, sizeof(saved));
	return rc;
}

/* As the tail does, a full disk is waited out; not for ever here. */
int small_batch(struct small *s, int n)
{
	int rc = try_batch(s, n);
	for (int i = 0; rc == -ENOSPC && i < 2; i++)
		rc = try_batch(s, n);
	if (!rc)
		s->seen = s->rows[0].applied;
	return rc;
}

/* ---- publishing ---- */

/* All of the journal from P on is read, and its A taken. */
static int collect(struct small *s, struct state_view *v, int64_t next[SMALL_PARTITIONS])
{
	for (int p = 0; p < SMALL_PARTITIONS; p++) {
		struct state_partition row;
		struct change c;
		int rc = state_view_partition(v, p, &row);
		if (rc)
			return rc;
		int64_t from = s->published[p] < 0 ? row.start : s->published[p];
		rc = state_view_journal(v, p, from, 0, &c);
		while (!rc)
			rc = state_view_journal_next(v, &c);
		if (rc != -ENOENT)
			return rc;
		next[p] = row.applied;
	}
	return 0;
}

int small_publish(struct small *s)
{
	int64_t next[SMALL_PARTITIONS];
	struct state_view *v;
	s->err[0] = 0;
	int rc = state_view_begin(s->st, &v);
	if (rc)
		return rc;
	uint64_t txnid = state_view_txnid(v);
	rc = collect(s, v, next);
	state_view_end(v);
	if (!rc && !s->publishes_early)
		rc = state_make_durable(s->st, txnid);
	if (!rc)
		memcpy(s->published, next, sizeof(next));
	return rc;
}

/* ---- filling ---- */

static int into_sorter(void *sorter, const struct batch_record *r)
{
	return sort_add(sorter, r->skey, r->skey_len, &r->rec);
}

static int into_versions(void *versions, const struct batch_record *r)
{
	return versions_add(versions, r->skey, r->skey_len, &r->rec);
}

static int add_log(struct small *s, const int64_t *boundary,
		   int (*add)(void *to, const struct batch_record *r), void *to)
{
	int rc = 0;
	for (int p = 0; p < SMALL_PARTITIONS && !rc; p++) {
		batch_clear(&s->batch);
		rc = read_log(s, p, 0, boundary[p]);
		for (size_t i = 0; i < s->batch.n && !rc; i++)
			rc = add(to, &s->batch.v[i]);
	}
	return rc;
}

static int fill_versions(struct small *s, struct state *st, const int64_t *boundary)
{
	struct versions *v;
	int rc = versions_open(&v, st, s->path, SORT_BYTES, MOVED_STOP, SMALL_PARTITIONS, 1 << 30);
	if (rc)
		return rc;
	rc = add_log(s, boundary, into_versions, v);
	if (!rc)
		rc = versions_finish(v);
	if (!rc)
		while ((rc = versions_store(v)) == 1)
			;
	if (rc)
		snprintf(s->err, sizeof(s->err), "%s", versions_error(v));
	versions_close(v);
	return rc;
}

/* In transactions of a few records. */
static int store(struct state *st, struct sorter *sort)
{
	struct sorted r;
	struct state_txn *t;
	int more = 1;
	while (more == 1) {
		int rc = state_begin(st, &t);
		if (rc)
			return rc;
		for (int i = 0; !rc && i < 16 && (more = sort_next(sort, &r)) == 1; i++)
			rc = state_put(t, r.skey, r.skey_len, r.rec, r.rec_len);
		if (rc || more < 0) {
			state_abort(t);
			return rc ? rc : more;
		}
		rc = state_commit(t);
		if (rc)
			return rc;
	}
	return more;
}

static int fill_records(struct small *s, struct state *st, const int64_t *boundary)
{
	struct sorter *sort;
	int rc = sort_open(&sort, s->path, SORT_BYTES, MOVED_STOP);
	if (rc)
		return rc;
	rc = add_log(s, boundary, into_sorter, sort);
	if (!rc)
		rc = sort_finish(sort);
	if (!rc)
		rc = store(st, sort);
	if (rc)
		snprintf(s->err, sizeof(s->err), "%s", sort_error(sort));
	sort_close(sort);
	return rc;
}

static int put_rows(struct small *s, struct state *st, const int64_t *boundary)
{
	struct state_txn *t;
	int rc = state_begin(st, &t);
	if (rc)
		return rc;
	for (int p = 0; p < SMALL_PARTITIONS && !rc; p++) {
		s->rows[p] = STATE_PARTITION_NEW;
		s->rows[p].applied = s->rows[p].start = s->rows[p].base = boundary[p];
		s->rows[p].published = s->published[p];
		rc = state_partition_set(t, p, &s->rows[p]);
	}
	if (!rc)
		return state_commit(t);
	state_abort(t);
	return rc;
}

static const struct state_identity who = { "small", "cluster", "topic" };

static struct state_options options(const struct small *s)
{
	return (struct state_options){ .lease_ms = LEASE_MS, .waiting = s->waits };
}

static int wait_lease(struct small *s)
{
	s->err[0] = 0;
	while (state_lease_wait_ms(s->st) > 0)
		nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
	return 0;
}

static int fill(struct small *s)
{
	int64_t boundary[SMALL_PARTITIONS];
	for (int p = 0; p < SMALL_PARTITIONS; p++)
		boundary[p] = s->published[p] >= 0 ? s->published[p] : s->fill_to;
	s->fills++;
	s->seen = boundary[0];
	const struct state_options o = options(s);
	int rc = state_create(&s->st, s->dir, &who, &o, s->err, sizeof(s->err));
	if (rc)
		return rc;
	s->err[0] = 0;
	rc = s->waits ? fill_versions(s, s->st, boundary) : fill_records(s, s->st, boundary);
	if (rc || (rc = put_rows(s, s->st, boundary)))
		return rc;
	rc = state_make_current(s->st, s->err, sizeof(s->err));
	if (!rc)
		state_dir_sweep(s->dir);
	return rc;
}

int small_refill(struct small *s)
{
	state_close(s->st);
	s->st = NULL;
	return fill(s);
}

/* What waits was taken over, and is kept by whoever opens it so. */
static int reopen(struct small *s)
{
	const struct state_options o = options(s);
	state_close(s->st);
	s->st = NULL;
	int rc = state_open(&s->st, s->dir, &who, &o, s->err, sizeof(s->err));
	return rc ? rc : wait_lease(s);
}

int small_rebuild(struct small *s)
{
	int64_t boundary[SMALL_PARTITIONS];
	struct state_partition rows[SMALL_PARTITIONS];
	struct state *fresh;
	memcpy(rows, s->rows, sizeof(rows));
	for (int p = 0; p < SMALL_PARTITIONS; p++)
		boundary[p] = rows[p].applied;
	const struct state_options none = { .lease_ms = LEASE_MS };
	int rc = state_create(&fresh, s->dir, &who, &none, s->err, sizeof(s->err));
	if (rc)
		return rc;
	s->err[0] = 0;
	if (!(rc = fill_records(s, fresh, boundary)) && !(rc = put_rows(s, fresh, boundary)) &&
	    !(rc = state_take_over(fresh, s->st)))
		rc = state_make_current(fresh, s->err, sizeof(s->err));
	memcpy(s->rows, rows, sizeof(rows));
	if (rc) {
		state_close(fresh);
		return rc;
	}
	state_close(s->st);
	s->st = fresh;
	state_dir_sweep(s->dir);
	return s->waits ? reopen(s) : 0;
}

/* ---- start and stop ---- */

void small_init(struct small *s, const char *path, uint64_t seed)
{
	*s = (struct small){ .path = path, .seed = seed, .fill_to = 150 };
	for (int p = 0; p < SMALL_PARTITIONS; p++)
		s->published[p] = -1;
}

static int read_rows(struct small *s)
{
	struct state_view *v;
	int rc = state_view_begin(s->st, &v);
	if (rc)
		return rc;
	for (int p = 0; p < SMALL_PARTITIONS && !rc; p++)
		rc = state_view_partition(v, p, &s->rows[p]);
	state_view_end(v);
	return rc;
}

int small_start(struct small *s)
{
	s->err[0] = 0;
	int rc = state_dir_open(&s->dir, s->path, s->err, sizeof(s->err));
	if (rc)
		return rc;
	state_dir_sweep(s->dir);
	const struct state_options o = options(s);
	rc = state_open(&s->st, s->dir, &who, &o, s->err, sizeof(s->err));
	if (rc == -EBADMSG) {
		s->unreadable++;
		memcpy(s->complaint, s->err, sizeof(s->complaint));
	}
	if (rc == -ENOENT || rc == -EBADMSG)
		return fill(s);
	if (rc)
		return rc;
	s->err[0] = 0;
	if ((rc = read_rows(s)))
		return rc;
	s->seen = s->rows[0].applied;
	return wait_lease(s);
}

void small_stop(struct small *s)
{
	state_close(s->st);
	state_dir_close(s->dir);
	batch_free(&s->batch);
	s->st = NULL;
	s->dir = NULL;
}

/* ---- is it right? ---- */

static int wrong(char *why, size_t why_len, const char *what, int p, int64_t offset)
{
	snprintf(why, why_len, "%s (partition %d, %lld)", what, p, (long long)offset);
	return -1;
}

static bool is_logged(const struct small *s, const struct record *r, int p, int64_t offset)
{
	char bytes[VALUE_MAX];
	struct logged l;
	if (r->partition != p || r->offset != offset || !log_at(s, p, offset, &l))
		return false;
	if (l.tombstone)
		return r->flags & RECORD_TOMBSTONE;
	value_bytes(&l, bytes);
	return !(r->flags & RECORD_TOMBSTONE) && r->value_len == l.value_len &&
	       !memcmp(r->value, bytes, l.value_len);
}

static int check_records(const struct small *s, struct state_view *v, int p, int64_t applied,
			 uint64_t *present, char *why, size_t why_len)
{
	int64_t last[SMALL_KEYS];
	fold(s, p, applied, last);
	for (int k = 0; k < SMALL_KEYS; k++) {
		char key[SMALL_KEY_MAX];
		uint8_t skey[KEY_STORED_MAX];
		const void *rec;
		struct record r;
		size_t len, skey_len = record_stored_key(skey, key, small_key(key, p, k));
		int rc = state_view_get(v, skey, skey_len, &rec, &len);
		*present += last[k] >= 0;
		if (rc == -ENOENT && last[k] < 0)
			continue;
		if (rc || last[k] < 0 || record_decode(&r, rec, len, skey, skey_len) ||
		    !is_logged(s, &r, p, last[k]))
			return wrong(why, why_len, "a record is not the fold of the log", p,
				     last[k]);
	}
	return 0;
}

/* The change that stands at `offset`, where `was` is what the key had before; false: none. */
static bool is_change(const struct small *s, const struct change *c, int p, int64_t offset,
		      int64_t was, const struct logged *l)
{
	struct logged old = { 0 };
	bool usual = was >= 0 && log_at(s, p, was, &old) && old.usual && l->usual;
	enum change_op op = l->tombstone ? CHANGE_DELETE
			    : was < 0    ? CHANGE_CREATE
			    : usual      ? CHANGE_UNCHANGED
					 : CHANGE_UPDATE;
	return c->offset == offset && c->n == CHANGE_N_LOG && c->op == op &&
	       c->has_before == (was >= 0) && (was < 0 || is_logged(s, &c->before, p, was)) &&
	       is_logged(s, &c->after, p, offset);
}

static int check_journal(const struct small *s, struct state_view *v, int p,
			 const struct state_partition *row, char *why, size_t why_len)
{
	int64_t last[SMALL_KEYS];
	struct logged l;
	struct change c;
	fold(s, p, row->base, last);
	int rc = state_view_journal(v, p, 0, 0, &c);
	for (int64_t o = row->base; o < row->applied; o++) {
		if (!log_at(s, p, o, &l))
			continue;
		int64_t was = last[l.k];
		last[l.k] = l.tombstone ? -1 : o;
		if (l.tombstone && was < 0)
			continue;
		if (rc || !is_change(s, &c, p, o, was, &l))
			return wrong(why, why_len, "the journal lacks or alters a change", p, o);
		rc = state_view_journal_next(v, &c);
	}
	return rc == -ENOENT ? 0 : wrong(why, why_len, "the journal has more changes", p, rc);
}

static bool is_pair(const struct small *s, struct state_view *v, const struct change *c, int p,
		    int64_t was, int64_t offset, const struct logged *l)
{
	uint8_t skey[KEY_STORED_MAX];
	size_t skey_len = record_stored_key(skey, c->key, c->key_len);
	struct record now;
	if (!is_logged(s, &c->before, p, was) || c->after.offset != offset ||
	    (c->op == CHANGE_DELETE) != l->tombstone)
		return false;
	/* of what is told the new value need not be there any more */
	return l->tombstone || offset < cursor(s, p) ||
	       (!state_view_version(v, p, offset, skey, skey_len, &now) &&
		is_logged(s, &now, p, offset));
}

/* Each record and the one before it of its key; *deleted: keys whose last one is a tombstone. */
static int check_waiting(const struct small *s, struct state_view *v, int p, int64_t applied,
			 uint64_t *deleted, char *why, size_t why_len)
{
	int64_t before[SMALL_KEYS];
	bool gone[SMALL_KEYS] = { false };
	struct logged l;
	struct change c;
	memset(before, -1, sizeof(before));
	int rc = state_view_waiting(v, p, 0, &c);
	for (int64_t o = 0; o < applied; o++) {
		if (!log_at(s, p, o, &l))
			continue;
		int64_t was = before[l.k];
		before[l.k] = o;
		gone[l.k] = l.tombstone;
		if (was < 0 || (o < cursor(s, p) && (rc || c.offset != o)))
			continue;
		if (rc || c.offset != o || !is_pair(s, v, &c, p, was, o, &l))
			return wrong(why, why_len, "what waits lacks or alters a pair", p, o);
		rc = state_view_waiting_next(v, &c);
	}
	for (int k = 0; k < SMALL_KEYS; k++)
		*deleted += gone[k];
	return rc == -ENOENT ? 0 : wrong(why, why_len, "more pairs wait", p, rc);
}

static int check_row(const struct small *s, int p, const struct state_partition *row, char *why,
		     size_t why_len)
{
	int64_t published = s->published[p] < 0 ? row->start : s->published[p];
	if (published > row->applied)
		return wrong(why, why_len, "P is ahead of A", p, published - row->applied);
	if (row->base > published)
		return wrong(why, why_len, "the journal begins after P", p, row->base - published);
	return 0;
}

int small_check(struct small *s, char *why, size_t why_len)
{
	struct state_view *v;
	struct state_stat stat;
	uint64_t present = 0, deleted = 0;
	int rc = state_view_begin(s->st, &v);
	if (rc)
		return wrong(why, why_len, "no view", 0, rc);
	for (int p = 0; p < SMALL_PARTITIONS && !rc; p++) {
		struct state_partition row;
		if (state_view_partition(v, p, &row))
			rc = wrong(why, why_len, "there is no row", p, 0);
		else if (!(rc = check_row(s, p, &row, why, why_len)) &&
			 !(rc = check_records(s, v, p, row.applied, &present, why, why_len)))
			rc = check_journal(s, v, p, &row, why, why_len);
		if (!rc && s->waits)
			rc = check_waiting(s, v, p, row.applied, &deleted, why, why_len);
	}
	state_view_end(v);
	if (!rc && (state_stat(s->st, &stat) || stat.records != present))
		rc = wrong(why, why_len, "there are other records", 0, (int64_t)stat.records);
	if (!rc && stat.tombstones != deleted)
		rc = wrong(why, why_len, "there are other tombstones", 0, (int64_t)stat.tombstones);
	return rc;
}
