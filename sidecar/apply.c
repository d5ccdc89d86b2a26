#include "apply.h"
#include "decide.h"
#include "escape.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXPECTED = 1000 }; /* records whose pages are read together */

struct bytes {
	const void *p;
	size_t len;
};

/* What one record of the batch did; op 0: nothing. */
struct done {
	enum change_op op;
	struct bytes before, after;
	struct bytes
		superseded; /* the record before it in the log, a tombstone too; p NULL: none */
};

struct sweep {
	struct state_txn *t;
	struct batch *b;
	const struct apply_options *o;
	struct apply_counts *n;
	struct done *done; /* by index in the batch */
	char *err;
	size_t err_len;
};

static int complain(struct sweep *s, const struct batch_record *r, int rc, const char *fmt, int p,
		    int q)
{
	char *key = escape_key(r->key, r->key_len);
	char what[200];

	snprintf(what, sizeof(what), fmt, p, q);
	snprintf(s->err, s->err_len, "key '%.100s' at %d/%lld %s", key ? key : "?",
		 r->rec.partition, (long long)r->rec.offset, what);
	free(key);
	return rc;
}

static int encode(struct sweep *s, const struct record *rec, const struct batch_record *r,
		  struct bytes *out)
{
	size_t len = record_bytes(rec);
	uint8_t *p = arena_alloc(&s->b->arena, len);

	if (!p)
		return -ENOMEM;
	record_encode(p, rec, r->skey, r->skey_len);
	*out = (struct bytes){ p, len };
	return 0;
}

/* The record as the journal has it: with every source header. */
static int encode_after(struct sweep *s, const struct batch_record *r, const struct bytes *stored,
			struct bytes *out)
{
	struct record rec = r->rec;

	if (stored->p && r->all_headers_len == r->rec.headers_len) {
		*out = *stored;
		return 0;
	}
	rec.headers = r->all_headers;
	rec.headers_len = r->all_headers_len;
	rec.flags = (uint8_t)((rec.flags & ~RECORD_HEADERS) |
			      (r->all_headers_len ? RECORD_HEADERS : 0));
	return encode(s, &rec, r, out);
}

static void count(struct apply_counts *n, enum change_op op)
{
	switch (op) {
	case CHANGE_CREATE:
		n->creates++;
		break;
	case CHANGE_UPDATE:
		n->updates++;
		break;
	case CHANGE_UNCHANGED:
		n->unchanged++;
		break;
	case CHANGE_DELETE:
		n->deletes++;
		break;
	}
}

/* What is stored of a key now, as the sweep goes through its records. */
struct current {
	struct bytes bytes; /* p NULL: absent */
	struct record rec;
	bool touched;
	/* the latest record, where that is a tombstone; kept only where pairs are */
	struct bytes tombstone; /* p NULL: none is known */
	int32_t tombstone_partition;
	bool tombstone_touched, tombstone_stored;
};

/* 1: the record takes part as *op; 0: it changes nothing; < 0. */
static int judge(struct sweep *s, const struct batch_record *r, const struct current *cur,
		 enum change_op *op)
{
	const struct record *old = cur->bytes.p ? &cur->rec : NULL;
	struct record here;

	switch (decide_transition(old, &r->rec, s->o->blind[r->rec.partition], op)) {
	case TRANSITION_NONE:
		return 0;
	case TRANSITION_TO:
		return 1;
	case TRANSITION_MOVED:
		break;
	}
	if (s->o->moved == MOVED_STOP)
		return complain(s, r, -EXDEV, "is stored from partition %d", cur->rec.partition, 0);
	if (!decide_moved_wins(old, &r->rec)) {
		s->n->ignored_moves++;
		return 0;
	}
	here = r->rec;
	here.partition = old->partition;
	decide_transition(old, &here, false, op);
	return 1;
}

/* The tombstone without its headers: what is told of it is where it stood. */
static int encode_tombstone(struct sweep *s, const struct batch_record *r, struct bytes *out)
{
	struct record rec = record_without_headers(&r->rec);

	return encode(s, &rec, r, out);
}

/* Which record of the log this one supersedes, and whether it is a tombstone itself. */
static int supersede(struct sweep *s, const struct batch_record *r, struct done *d,
		     struct current *cur)
{
	/* what moved from another partition is superseded in no log */
	if (cur->bytes.p && cur->rec.partition == r->rec.partition)
		d->superseded = cur->bytes;
	else if (!cur->bytes.p && cur->tombstone.p && cur->tombstone_partition == r->rec.partition)
		d->superseded = cur->tombstone;
	cur->tombstone_touched |= cur->tombstone.p || r->rec.flags & RECORD_TOMBSTONE;
	cur->tombstone = (struct bytes){ 0 };
	cur->tombstone_partition = r->rec.partition;
	return r->rec.flags & RECORD_TOMBSTONE ? encode_tombstone(s, r, &cur->tombstone) : 0;
}

static int step(struct sweep *s, const struct batch_record *r, struct done *d, struct current *cur)
{
	struct bytes stored = { 0 };
	bool tombstone = r->rec.flags & RECORD_TOMBSTONE;
	enum change_op op;
	int rc = judge(s, r, cur, &op);

	/* a tombstone that changes nothing stands in the log all the same */
	if (s->o->waiting && (rc > 0 || (!rc && !cur->bytes.p))) {
		int failed = supersede(s, r, d, cur);
		if (failed)
			return failed;
	}
	if (rc <= 0)
		return rc;
	if (!tombstone && (rc = encode(s, &r->rec, r, &stored)))
		return rc;
	d->op = op;
	d->before = cur->bytes;
	if (s->o->journal && (rc = encode_after(s, r, &stored, &d->after)))
		return rc;
	count(s->n, op);
	cur->bytes = stored;
	cur->rec = r->rec;
	cur->touched = true;
	return 0;
}

static int load_tombstone(struct sweep *s, const struct batch_record *r, struct current *cur)
{
	struct record old;
	const void *rec;
	size_t len;
	int rc = s->o->waiting ? state_tombstone(s->t, r->skey, r->skey_len, &rec, &len) : -ENOENT;

	if (rc)
		return rc == -ENOENT ? 0 : rc;
	cur->tombstone = (struct bytes){ arena_copy(&s->b->arena, rec, len), len };
	if (!cur->tombstone.p)
		return -ENOMEM;
	rc = record_decode(&old, cur->tombstone.p, len, r->skey, r->skey_len);
	if (rc)
		return complain(s, r, rc,
				rc == -ENOTSUP ? "has a tombstone of a newer format"
					       : "has a tombstone that fails its checksum",
				0, 0);
	cur->tombstone_partition = old.partition;
	cur->tombstone_stored = true;
	return 0;
}

static int load(struct sweep *s, const struct batch_record *r, struct current *cur)
{
	const void *rec;
	size_t len;
	int rc = state_get(s->t, r->skey, r->skey_len, &rec, &len);

	*cur = (struct current){ 0 };
	if (rc == -ENOENT)
		return load_tombstone(s, r, cur);
	if (rc)
		return rc;
	/* the next write may reuse the page that `rec` points into */
	cur->bytes.p = arena_copy(&s->b->arena, rec, len);
	cur->bytes.len = len;
	if (!cur->bytes.p)
		return -ENOMEM;
	rc = record_decode(&cur->rec, cur->bytes.p, len, r->skey, r->skey_len);
	if (rc)
		return complain(s, r, rc,
				rc == -ENOTSUP ? "has a stored record of a newer format"
					       : "has a stored record that fails its checksum",
				0, 0);
	return 0;
}

static int store_tombstone(struct sweep *s, const struct batch_record *r, const struct current *cur)
{
	if (cur->tombstone.p)
		return state_tombstone_put(s->t, r->skey, r->skey_len, cur->tombstone.p,
					   cur->tombstone.len);
	return cur->tombstone_stored ? state_tombstone_del(s->t, r->skey, r->skey_len) : 0;
}

/* All records of one key, v[order[0..n)]: load, step through, store the outcome once. */
static int sweep_key(struct sweep *s, const uint32_t *order, size_t n)
{
	const struct batch_record *first = &s->b->v[order[0]];
	struct current cur;
	int rc = load(s, first, &cur);

	if (rc)
		return rc;
	bool was_present = cur.bytes.p;
	for (size_t i = 0; i < n; i++)
		if ((rc = step(s, &s->b->v[order[i]], &s->done[order[i]], &cur)))
			return rc;
	if (cur.tombstone_touched && (rc = store_tombstone(s, first, &cur)))
		return rc;
	if (!cur.touched)
		return 0;
	if (cur.bytes.p)
		return state_put(s->t, first->skey, first->skey_len, cur.bytes.p, cur.bytes.len);
	return was_present ? state_del(s->t, first->skey, first->skey_len) : 0;
}

static bool same_key(const struct batch_record *a, const struct batch_record *b)
{
	return a->order == b->order && a->skey_len == b->skey_len &&
	       !memcmp(a->skey, b->skey, a->skey_len);
}

/* Of the new record its head only: its value stands elsewhere, see waiting.c. */
static int wait_for(struct sweep *s, const struct batch_record *r, const struct done *d,
		    struct change *c)
{
	struct record head = record_without_headers(&r->rec);
	struct bytes after;
	int rc;

	head.value_len = 0;
	rc = encode(s, &head, r, &after);
	if (rc)
		return rc;
	c->op = r->rec.flags & RECORD_TOMBSTONE ? CHANGE_DELETE : CHANGE_UPDATE;
	return state_wait(s->t, c, d->superseded.p, d->superseded.len, after.p, after.len);
}

static int journal_all(struct sweep *s)
{
	int rc = 0;

	for (size_t i = 0; i < s->b->n && !rc; i++) {
		const struct batch_record *r = &s->b->v[i];
		const struct done *d = &s->done[i];
		if (!d->op && !d->superseded.p)
			continue;
		struct change c = { .partition = r->rec.partition,
				    .offset = r->rec.offset,
				    .n = CHANGE_N_LOG,
				    .op = d->op,
				    .cause = CAUSE_LOG,
				    .key = r->key,
				    .key_len = r->key_len };
		if (s->o->journal && d->op)
			rc = state_journal(s->t, &c, d->before.p, d->before.len, d->after.p,
					   d->after.len);
		if (!rc && d->superseded.p)
			rc = wait_for(s, r, d, &c);
	}
	return rc;
}

/* Few enough that they are still in memory when their turn comes. */
static size_t expect_some(const struct sweep *s, const uint32_t *order, size_t from)
{
	size_t upto = from + EXPECTED < s->b->n ? from + EXPECTED : s->b->n;

	for (size_t i = from; i < upto; i++) {
		const struct batch_record *r = &s->b->v[order[i]];
		state_expect(s->t, r->skey, r->skey_len);
	}
	state_read_expected(s->t);
	return upto;
}

int apply_batch(struct state_txn *t, struct batch *b, const struct apply_options *o,
		struct apply_counts *n, char *err, size_t err_len)
{
	struct sweep s = { .t = t, .b = b, .o = o, .n = n, .err = err, .err_len = err_len };
	uint32_t *order = batch_by_key(b);
	int rc = 0;

	s.done = arena_alloc(&b->arena, (b->n + 1) * sizeof(*s.done));
	if (!order || !s.done)
		return -ENOMEM;
	memset(s.done, 0, (b->n + 1) * sizeof(*s.done));
	size_t expected = state_expects(t) ? 0 : SIZE_MAX;
	for (size_t i = 0, j; i < b->n && !rc; i = j) {
		if (i >= expected)
			expected = expect_some(&s, order, i);
		for (j = i + 1; j < b->n && same_key(&b->v[order[i]], &b->v[order[j]]); j++)
			;
		rc = sweep_key(&s, order + i, j - i);
	}
	if (!rc && (o->journal || o->waiting))
		rc = journal_all(&s);
	return rc;
}
