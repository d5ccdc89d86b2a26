#include "expire.h"
#include "batch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FOUND_MAX = 1000, VIEW_MS = 20, CHECK_EVERY = 64 };

struct found {
	const void *skey;
	size_t skey_len;
};

struct expire {
	int n;
	int64_t *below; /* [n] */
	struct arena arena;
	struct found found[FOUND_MAX];
	size_t n_found;
	uint8_t after[KEY_STORED_MAX]; /* the last key of the parts that are done ... */
	size_t after_len;
	uint8_t seen[KEY_STORED_MAX]; /* ... and of this one */
	size_t seen_len;
	bool at_end;
	uint64_t count;
};

bool expire_at_end(const struct expire *x) { return x->at_end; }
uint64_t expire_count(const struct expire *x) { return x->count; }

int expire_open(struct expire **out, int n)
{
	struct expire *x = calloc(1, sizeof(*x));

	if (!x || !(x->below = calloc((size_t)n, sizeof(*x->below)))) {
		free(x);
		return -ENOMEM;
	}
	x->n = n;
	x->at_end = true;
	*out = x;
	return 0;
}

void expire_close(struct expire *x)
{
	if (!x)
		return;
	arena_free(&x->arena);
	free(x->below);
	free(x);
}

void expire_begin(struct expire *x, const int64_t *below)
{
	memcpy(x->below, below, (size_t)x->n * sizeof(*below));
	x->after_len = 0;
	x->at_end = false;
	x->count = 0;
}

static int look_at(struct expire *x, const void *skey, size_t skey_len, const void *rec,
		   size_t rec_len)
{
	struct record r;
	int rc = record_decode(&r, rec, rec_len, skey, skey_len);

	memcpy(x->seen, skey, skey_len);
	x->seen_len = skey_len;
	if (rc || r.partition >= x->n || r.offset >= x->below[r.partition])
		return rc;
	struct found *f = &x->found[x->n_found++];
	f->skey = arena_copy(&x->arena, skey, skey_len);
	f->skey_len = skey_len;
	return f->skey ? 0 : -ENOMEM;
}

static int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* -ENOENT: the walk has come to its end. */
static int find(struct expire *x, struct state *st)
{
	int64_t until = now_ms() + VIEW_MS;
	const void *skey, *rec;
	size_t skey_len, rec_len;
	struct state_view *v;
	int rc = state_view_begin(st, &v);

	if (rc)
		return rc;
	arena_clear(&x->arena);
	x->n_found = 0;
	x->seen_len = 0;
	for (unsigned i = 1; !rc && x->n_found < FOUND_MAX; i++) {
		if (i % CHECK_EVERY == 0 && now_ms() >= until)
			break;
		rc = state_view_walk(v, x->after, x->after_len, &skey, &skey_len, &rec, &rec_len);
		if (!rc)
			rc = look_at(x, skey, skey_len, rec, rec_len);
	}
	state_view_end(v);
	return rc;
}

static int take_away(struct expire *x, struct state *st)
{
	struct state_txn *t;
	const void *rec;
	size_t len;
	int rc = state_begin(st, &t);

	if (rc)
		return rc;
	for (size_t i = 0; i < x->n_found && !rc; i++) {
		const struct found *f = &x->found[i];
		rc = state_get(t, f->skey, f->skey_len, &rec, &len); /* the fast path of del */
		if (!rc)
			rc = state_del(t, f->skey, f->skey_len);
	}
	if (rc) {
		state_abort(t);
		return rc;
	}
	return state_commit(t);
}

int expire_step(struct expire *x, struct state *st)
{
	int rc = find(x, st);
	bool at_end = rc == -ENOENT;

	if (rc && !at_end)
		return rc;
	if (x->n_found && (rc = take_away(x, st)))
		return rc;
	x->count += x->n_found;
	memcpy(x->after, x->seen, x->seen_len);
	x->after_len = x->seen_len;
	x->at_end = at_end;
	return 0;
}
