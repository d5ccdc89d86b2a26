#include "versions.h"
#include "decide.h"
#include "escape.h"
#include "fault.h"
#include "sort.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TXN_BYTES = 8 << 20 /* the pages of a transaction are in memory until its commit */ };

struct bytes {
	uint8_t *p;
	size_t len, cap;
};

struct share { /* of what waits, in one partition */
	uint64_t bytes, excess, passed;
};

struct versions {
	struct state *st;
	const char *dir; /* the caller's */
	size_t memory;
	enum moved moved;
	int n;
	int64_t bound;
	struct sorter *by_key, *by_offset;
	bool keys_done;
	/* the key that is gone through, and its latest version; skey_len 0: none yet */
	uint8_t skey[KEY_STORED_MAX];
	size_t skey_len;
	struct bytes bytes;
	struct record last;
	struct bytes scratch, pair;
	struct share *share; /* [n] */
	struct versions_stat stat;
	char err[400];
};

static int grow(struct bytes *b, size_t len)
{
	uint8_t *p = b->p;

	if (len > b->cap) {
		p = realloc(b->p, len + len / 2);
		if (!p)
			return -ENOMEM;
		b->cap = len + len / 2;
	}
	b->p = p;
	b->len = len;
	return 0;
}

static int encode(struct versions *v, const struct record *r, struct bytes *out)
{
	int rc = grow(out, record_bytes(r));

	if (!rc)
		record_encode(out->p, r, v->skey, v->skey_len);
	return rc;
}

/* ---- by key ---- */

static bool is_tombstone(const struct record *r) { return r->flags & RECORD_TOMBSTONE; }

static int moved(struct versions *v, const struct record *r)
{
	bool digest = r->flags & RECORD_KEY;
	char *key = escape_key(digest ? r->key : v->skey, digest ? r->key_len : v->skey_len);

	snprintf(v->err, sizeof(v->err), "key '%.100s' at %d/%lld is stored from partition %d",
		 key ? key : "?", r->partition, (long long)r->offset, v->last.partition);
	free(key);
	return -EXDEV;
}

/* Whether `now` becomes the latest version: 1, 0, or < 0. */
static int judge(struct versions *v, const struct record *now)
{
	const struct record *old = is_tombstone(&v->last) ? NULL : &v->last;
	enum change_op op;

	if (decide_transition(old, now, true, &op) != TRANSITION_MOVED)
		return 1;
	if (v->moved == MOVED_STOP)
		return moved(v, now);
	return decide_moved_wins(old, now);
}

/* (last, now), in the form in which it waits: see state_wait(). */
static int add_pair(struct versions *v, const struct record *now)
{
	uint8_t at[JOURNAL_KEY_BYTES];
	bool digest = now->flags & RECORD_KEY;
	struct change c = { .partition = now->partition,
			    .offset = now->offset,
			    .n = CHANGE_N_LOG,
			    .op = is_tombstone(now) ? CHANGE_DELETE : CHANGE_UPDATE,
			    .key = digest ? now->key : v->skey,
			    .key_len = digest ? now->key_len : v->skey_len };
	struct record head = record_without_headers(now);
	struct record item = { .partition = c.partition, .offset = c.offset };

	head.value_len = 0;
	int rc = encode(v, &head, &v->scratch);
	if (!rc)
		rc = grow(&v->pair, change_bytes(c.key_len, v->bytes.len, v->scratch.len));
	if (rc)
		return rc;
	change_encode(v->pair.p, &c, v->bytes.p, v->bytes.len, v->scratch.p, v->scratch.len);
	change_key_encode(at, c.partition, c.offset, c.n);
	item.value = v->pair.p;
	item.value_len = v->pair.len;
	v->share[c.partition].bytes += v->pair.len;
	return sort_add(v->by_offset, at, sizeof(at), &item);
}

/* As a tombstone is kept: where it stood, without its headers. */
static int keep(struct versions *v, const struct sorted *item, const struct record *r)
{
	struct record bare = record_without_headers(r);
	int rc;

	if (is_tombstone(r)) {
		rc = encode(v, &bare, &v->bytes);
	} else if (!(rc = grow(&v->bytes, item->rec_len))) {
		memcpy(v->bytes.p, item->rec, item->rec_len);
	}
	return rc ? rc : record_decode(&v->last, v->bytes.p, v->bytes.len, v->skey, v->skey_len);
}

/* Nothing more comes of the key. */
static int store_key(struct versions *v, struct state_txn *t)
{
	if (!v->skey_len)
		return 0;
	if (is_tombstone(&v->last))
		return state_tombstone_put(t, v->skey, v->skey_len, v->bytes.p, v->bytes.len);
	v->stat.records++;
	return state_put(t, v->skey, v->skey_len, v->bytes.p, v->bytes.len);
}

static int take(struct versions *v, struct state_txn *t, const struct sorted *item)
{
	bool again = item->skey_len == v->skey_len && !memcmp(item->skey, v->skey, v->skey_len);
	struct record r;
	int rc = again ? 0 : store_key(v, t);

	if (rc)
		return rc;
	if (!again) {
		memcpy(v->skey, item->skey, item->skey_len);
		v->skey_len = item->skey_len;
	}
	v->stat.versions++;
	v->stat.bytes += item->skey_len + item->rec_len;
	rc = record_decode(&r, item->rec, item->rec_len, item->skey, item->skey_len);
	if (!rc && again) {
		rc = judge(v, &r);
		if (rc <= 0)
			return rc;
		/* what moved from another partition is superseded in no log */
		rc = r.partition == v->last.partition ? add_pair(v, &r) : 0;
	}
	return rc ? rc : keep(v, item, &r);
}

/* What goes into one transaction: 1, there may be more; 0, that was the last; or < 0. */
static int store_some(struct versions *v, struct state_txn *t, struct sorter *s,
		      int (*store)(struct versions *, struct state_txn *, const struct sorted *))
{
	uint64_t until = v->stat.bytes + TXN_BYTES;
	struct sorted item;
	int more = 1, rc = 0;

	while (!rc && v->stat.bytes < until && (more = sort_next(s, &item)) == 1)
		rc = store(v, t, &item);
	return rc ? rc : more;
}

static int store_keys(struct versions *v, struct state_txn *t)
{
	int more = store_some(v, t, v->by_key, take);

	return more ? more : store_key(v, t);
}

/* ---- by offset ---- */

static void share_out(struct versions *v)
{
	uint64_t sum = 0, bound = (uint64_t)v->bound - (uint64_t)v->bound / 4; /* pages have gaps */

	for (int p = 0; p < v->n; p++)
		sum += v->share[p].bytes;
	for (int p = 0; p < v->n && sum > bound; p++)
		v->share[p].excess = (uint64_t)((double)v->share[p].bytes *
						((double)(sum - bound) / (double)sum));
}

static int begin_pairs(struct versions *v)
{
	sort_close(v->by_key);
	v->by_key = NULL;
	v->keys_done = true;
	FAULT_POINT("versions.sorted");
	share_out(v);
	return sort_finish(v->by_offset);
}

/* The old record without its value, where that saves anything. */
static int omit(struct versions *v, const struct record *before)
{
	uint8_t omitted[RECORD_OMITTED_BYTES];
	struct record bare = record_without_headers(before);

	if (is_tombstone(before) || before->value_len <= sizeof(omitted))
		return encode(v, before, &v->bytes);
	if (!record_omit(omitted, before->value, before->value_len))
		return -ENOMEM;
	bare.flags |= RECORD_OMITTED;
	bare.value = omitted;
	bare.value_len = sizeof(omitted);
	v->stat.omitted++;
	return encode(v, &bare, &v->bytes);
}

static int store_pair(struct versions *v, struct state_txn *t, const struct sorted *item)
{
	struct record r;
	struct change c;
	int rc = record_decode(&r, item->rec, item->rec_len, item->skey, item->skey_len);

	if (!rc)
		rc = change_decode(&c, item->skey, item->skey_len, r.value, r.value_len);
	if (rc)
		return rc;
	v->skey_len = record_stored_key(v->skey, c.key, c.key_len);
	if (!v->skey_len)
		return -ENOMEM;
	struct share *s = &v->share[c.partition];
	s->passed += r.value_len;
	if (s->passed <= s->excess)
		rc = omit(v, &c.before);
	else
		rc = encode(v, &c.before, &v->bytes);
	if (!rc)
		rc = encode(v, &c.after, &v->scratch);
	if (rc)
		return rc;
	v->stat.pairs++;
	v->stat.bytes += item->rec_len;
	return state_wait(t, &c, v->bytes.p, v->bytes.len, v->scratch.p, v->scratch.len);
}

/* ---- the whole ---- */

int versions_store(struct versions *v)
{
	struct state_txn *t;
	bool keys = !v->keys_done;
	int more, rc = state_begin(v->st, &t);

	if (rc)
		return rc;
	more = keys ? store_keys(v, t) : store_some(v, t, v->by_offset, store_pair);
	if (more < 0) {
		state_abort(t);
		return more;
	}
	FAULT_POINT("versions.store");
	rc = state_commit(t);
	if (!rc && keys && !more) {
		rc = begin_pairs(v);
		more = 1;
	}
	return rc ? rc : more;
}

int versions_add(struct versions *v, const void *skey, size_t skey_len, const struct record *r)
{
	return sort_add(v->by_key, skey, skey_len, r);
}

int versions_finish(struct versions *v)
{
	int rc = sort_finish(v->by_key);

	/* its first buffer is not needed before */
	return rc ? rc : sort_open(&v->by_offset, v->dir, v->memory / 2, v->moved);
}

const char *versions_error(struct versions *v)
{
	if (*v->err)
		return v->err;
	if (v->by_key && *sort_error(v->by_key))
		return sort_error(v->by_key);
	return v->by_offset ? sort_error(v->by_offset) : "";
}

const struct versions_stat *versions_stat(const struct versions *v) { return &v->stat; }

int versions_open(struct versions **out, struct state *st, const char *dir, size_t memory,
		  enum moved m, int partitions, int64_t bound_bytes)
{
	struct versions *v = calloc(1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	*v = (struct versions){ .st = st,
				.dir = dir,
				.memory = memory,
				.moved = m,
				.n = partitions,
				.bound = bound_bytes };
	v->share = calloc((size_t)partitions, sizeof(*v->share));
	int rc = v->share ? sort_open(&v->by_key, dir, memory / 2, m) : -ENOMEM;
	if (rc) {
		versions_close(v);
		return rc;
	}
	sort_keep_versions(v->by_key);
	*out = v;
	return 0;
}

void versions_close(struct versions *v)
{
	if (!v)
		return;
	sort_close(v->by_key);
	sort_close(v->by_offset);
	free(v->bytes.p);
	free(v->scratch.p);
	free(v->pair.p);
	free(v->share);
	free(v);
}
