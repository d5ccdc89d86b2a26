#include "round.h"
#include "batch.h"
#include "fault.h"
#include "kafka.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { GONE_MAX = 5000, VIEW_MS = 500, CHECK_EVERY = 256 };

struct gone {
	const void *skey;
	size_t skey_len;
	const void *rec;
	size_t rec_len;
	int32_t partition;
};

struct sweep {
	struct state *st;
	const struct scan *scan;
	const struct round_options *o;
	struct state_partition *rows;
	uint32_t *n_due, *n_end; /* [n]: the next free n at (p, due), at (p, applied) */
	struct arena arena;
	struct gone *v;
	size_t n, n_expired;
	uint8_t after[KEY_STORED_MAX]; /* the last key the walk has seen */
	size_t after_len;
	bool at_end;
};

static bool is_gone(const struct sweep *w, const struct record *r)
{
	return scan_misses(w->scan, r->partition, r->offset);
}

static int remember(struct sweep *w, const void *skey, size_t skey_len, const void *rec,
		    size_t rec_len, int32_t partition)
{
	struct gone *g = &w->v[w->n];

	g->skey = arena_copy(&w->arena, skey, skey_len);
	g->rec = arena_copy(&w->arena, rec, rec_len);
	if (!g->skey || !g->rec)
		return -ENOMEM;
	g->skey_len = skey_len;
	g->rec_len = rec_len;
	g->partition = partition;
	w->n++;
	return 0;
}

/* One view's worth of the walk: it ends before a lease is over, or with enough to write. */
static int find(struct sweep *w)
{
	int64_t until = kafka_now_ms() + VIEW_MS;
	const void *skey, *rec;
	size_t skey_len, rec_len;
	struct state_view *v;
	struct record r;
	int rc = state_view_begin(w->st, &v);

	if (rc)
		return rc;
	arena_clear(&w->arena);
	w->n = w->n_expired = 0;
	for (unsigned i = 0; w->n < GONE_MAX; i++) {
		if (i % CHECK_EVERY == CHECK_EVERY - 1 && kafka_now_ms() > until)
			break;
		rc = state_view_walk(v, w->after, w->after_len, &skey, &skey_len, &rec, &rec_len);
		if (rc)
			break;
		memcpy(w->after, skey, skey_len);
		w->after_len = skey_len;
		if ((rc = record_decode(&r, rec, rec_len, skey, skey_len)) ||
		    (is_gone(w, &r) &&
		     (rc = remember(w, skey, skey_len, rec, rec_len, r.partition))))
			break;
	}
	state_view_end(v);
	w->at_end = rc == -ENOENT;
	return w->at_end ? 0 : rc;
}

/* Where gone keys of what is stored below are told: at `due`, or where others have got meanwhile. */
static int64_t place(const struct sweep *w, int p)
{
	int64_t published = scan_published(w->scan, p);
	return published > w->rows[p].due ? published : w->rows[p].due;
}

static int encode(struct sweep *w, const struct gone *g, const struct record *r, const void **rec,
		  size_t *rec_len)
{
	uint8_t *bytes = arena_alloc(&w->arena, record_bytes(r));

	if (!bytes)
		return -ENOMEM;
	record_encode(bytes, r, g->skey, g->skey_len);
	*rec = bytes;
	*rec_len = record_bytes(r);
	return 0;
}

/* The record as it was when it was told of last: its successor, which was gone when this looked. */
static int as_told(struct sweep *w, const struct gone *g, const struct record *r,
		   const struct told_key *k, const void **rec, size_t *rec_len)
{
	const struct record now = { .flags = r->flags & RECORD_KEY,
				    .partition = r->partition,
				    .offset = k->offset,
				    .timestamp_ms = k->ts_ms,
				    .key = r->key,
				    .key_len = r->key_len,
				    .value = k->value,
				    .value_len = k->value_len };

	return encode(w, g, &now, rec, rec_len);
}

/* No record: it says from where on this state has the key gone, whenever that is published. */
static int as_found(struct sweep *w, const struct gone *g, const struct record *r, const void **rec,
		    size_t *rec_len)
{
	const struct record found = { .flags = RECORD_TOMBSTONE | (r->flags & RECORD_KEY),
				      .partition = r->partition,
				      .offset = w->rows[g->partition].applied,
				      .timestamp_ms = -1,
				      .key = r->key,
				      .key_len = r->key_len };

	return encode(w, g, &found, rec, rec_len);
}

static int tell_one(struct sweep *w, struct state_txn *t, const struct gone *g,
		    const struct record *r)
{
	int64_t at = place(w, g->partition);
	bool old = r->offset < at;
	const struct change c = { .partition = g->partition,
				  .offset = old ? at : w->rows[g->partition].applied,
				  .n = old ? w->n_due[g->partition] : w->n_end[g->partition],
				  .op = CHANGE_DELETE,
				  .cause = CAUSE_RECONCILE,
				  .key = r->flags & RECORD_KEY ? r->key : g->skey,
				  .key_len = r->flags & RECORD_KEY ? r->key_len : g->skey_len };
	const struct told_key *k =
		told_last(scan_told(w->scan, g->partition), c.key, c.key_len, r->offset);
	const void *rec = g->rec, *found;
	size_t rec_len = g->rec_len, found_len;
	int rc = 0;

	if (k && k->op == CHANGE_DELETE)
		return 0;
	if (k && k->value)
		rc = as_told(w, g, r, k, &rec, &rec_len);
	if (!rc && !(rc = as_found(w, g, r, &found, &found_len)))
		rc = state_journal(t, &c, rec, rec_len, found, found_len);
	if (old)
		w->n_due[g->partition]++;
	else
		w->n_end[g->partition]++;
	return rc;
}

static int write_one(struct sweep *w, struct state_txn *t, const struct gone *g)
{
	const void *rec;
	struct record r = { 0 };
	size_t len;
	int rc = record_decode(&r, g->rec, g->rec_len, g->skey, g->skey_len);

	if (!rc)
		rc = state_get(t, g->skey, g->skey_len, &rec, &len); /* the fast path of del */
	/* what fell off the log's start has expired, which is nobody's change */
	bool expired = w->o->expiring && r.offset < scan_log_start(w->scan, g->partition);
	w->n_expired += expired;
	if (!rc && w->o->journal && !expired)
		rc = tell_one(w, t, g, &r);
	return rc ? rc : state_del(t, g->skey, g->skey_len);
}

/* Where versions were missed from `due` on, what was read since was compared with records that may
 * have been gone: it equals another's journal from here on only. */
static void end_due(struct state_partition *row)
{
	if (row->whole >= row->due)
		row->whole = row->applied;
	row->due = -1;
}

static int write_found(struct sweep *w, int n)
{
	struct state_txn *t;
	int rc = state_begin(w->st, &t);

	if (rc)
		return rc;
	for (size_t i = 0; i < w->n && !rc; i++)
		rc = write_one(w, t, &w->v[i]);
	for (int p = 0; p < n && !rc && w->at_end; p++)
		if (scan_covers(w->scan, p)) {
			struct state_partition row = w->rows[p];
			end_due(&row);
			rc = state_partition_set(t, p, &row);
		}
	if (rc) {
		state_abort(t);
		return rc;
	}
	FAULT_POINT("round.part");
	return state_commit(t);
}

/* A round that was cut short has left entries at (p, offset, n): go on after them. */
static int find_next_n(struct state_view *v, int p, const struct state_partition *row,
		       int64_t offset, uint32_t *next)
{
	struct change c;
	int rc = state_view_journal(v, p, offset, 0, &c);

	*next = row->published == offset ? row->published_n : 0;
	while (!rc && c.offset == offset && c.n != CHANGE_N_LOG) {
		if (c.n >= *next)
			*next = c.n + 1;
		rc = state_view_journal_next(v, &c);
	}
	return rc == -ENOENT ? 0 : rc;
}

static int find_all_next_n(struct sweep *w, int n)
{
	struct state_view *v;
	int rc = state_view_begin(w->st, &v);

	for (int p = 0; p < n && !rc; p++) {
		const struct state_partition *row = &w->rows[p];
		if (row->due < 0)
			continue;
		rc = find_next_n(v, p, row, place(w, p), &w->n_due[p]);
		if (!rc)
			rc = find_next_n(v, p, row, row->applied, &w->n_end[p]);
		if (place(w, p) == row->applied)
			w->n_end[p] = w->n_due[p];
	}
	state_view_end(v);
	return rc;
}

int round_write(struct state *st, const struct scan *s, int n, struct state_partition *rows,
		const struct round_options *o, struct round_counts *counts)
{
	struct sweep w = { .st = st, .scan = s, .o = o, .rows = rows };
	int rc = -ENOMEM;

	FAULT_POINT("round.write");
	*counts = (struct round_counts){ 0 };
	w.v = calloc(GONE_MAX, sizeof(*w.v));
	w.n_due = calloc((size_t)n, sizeof(*w.n_due));
	w.n_end = calloc((size_t)n, sizeof(*w.n_end));
	if (w.v && w.n_due && w.n_end)
		rc = find_all_next_n(&w, n);
	while (!rc && !w.at_end) {
		rc = find(&w);
		if (!rc && (w.n || w.at_end))
			rc = write_found(&w, n);
		if (!rc) {
			counts->gone += w.n - w.n_expired;
			counts->expired += w.n_expired;
		}
	}
	for (int p = 0; p < n && !rc; p++)
		if (scan_covers(s, p))
			end_due(&rows[p]);
	arena_free(&w.arena);
	free(w.v);
	free(w.n_due);
	free(w.n_end);
	return rc;
}
