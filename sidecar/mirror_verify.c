/*
 * Is Redis the snapshot?  While both move:
 *   1. Every record of the snapshot against MGET, every key of SCAN against the
 *      snapshot: what does not fit is in doubt.
 *   2. Again and again for the keys in doubt: the snapshot, the positions, Redis.
 *      What fits now is no difference.  What does not, twice in a row with the
 *      same record, while Redis has got beyond that record, is one.
 */
#include "mirror_private.h"
#include "shared_state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	CHUNK_KEYS = 1000,
	CHUNK_BYTES = 2 << 20,
	SCAN_COUNT = 1000,
	PAUSE_MS = 1000,
	TRIES = 30,
	DOUBTS_MAX = 1000000,
};

struct doubt {
	const void *key; /* of Kafka */
	size_t key_len;
	int32_t partition; /* of the record that did not fit last time; -1: none in the snapshot */
	int64_t offset;
	bool seen;  /* did not fit last time, with that record, though Redis should have it */
	bool there; /* something was in Redis */
};

struct verify {
	const struct config *c;
	struct sstate *s;
	const atomic_bool *stop;
	struct redis *r;
	char key[128];
	const char *prefix;
	size_t prefix_len;
	struct mark mark;
	struct arena keys, chunk;
	struct doubt *doubts;
	size_t n, cap;
	char *err;
	size_t err_len;
};

static int fail(struct verify *v, int rc, const char *text)
{
	snprintf(v->err, v->err_len, "Redis: %s", text);
	return rc;
}

static int lost(struct verify *v)
{
	return fail(v, v->stop && atomic_load(v->stop) ? -ECANCELED : -EIO, redis_error(v->r));
}

static int answered(struct verify *v, struct redis_answer *a)
{
	if (redis_next(v->r, a))
		return lost(v);
	return a->kind == REDIS_FAULT ? fail(v, -EIO, a->text) : 0;
}

/* ---- where Redis is ---- */

static int read_mark(struct verify *v)
{
	struct redis_answer a;
	char text[MARK_TEXT_MAX + 60];
	int n = v->mark.n, rc;

	mark_free(&v->mark);
	if (mark_init(&v->mark, n))
		return -ENOMEM;
	redis_words(v->r, "HGETALL", v->key, NULL);
	if ((rc = answered(v, &a)))
		return rc;
	for (size_t i = 0; i + 1 < a.n; i += 2) {
		struct redis_answer f = redis_at(&a, i), x = redis_at(&a, i + 1);
		if (f.kind == REDIS_TEXT && x.kind == REDIS_TEXT)
			mark_take(&v->mark, f.text, x.text, x.len);
	}
	if (!v->mark.there)
		return fail(v, -EAGAIN, "nothing has been mirrored yet");
	if (*v->mark.resync) {
		snprintf(text, sizeof(text), "it is being compared with the snapshot: %s",
			 v->mark.resync);
		return fail(v, -EAGAIN, text);
	}
	return 0;
}

/* Whether Redis has what stands at this place; without one, all of the snapshot as it was. */
static bool has_reached(const struct verify *v, const struct doubt *d,
			const struct sstate_partition *rows)
{
	if (d->offset >= 0)
		return d->partition < v->mark.n && v->mark.part[d->partition].offset > d->offset;
	for (int p = 0; p < v->mark.n; p++)
		if (v->mark.part[p].offset < rows[p].applied)
			return false;
	return true;
}

/* ---- doubts ---- */

static int doubt(struct verify *v, const void *key, size_t key_len)
{
	if (v->n == DOUBTS_MAX)
		return 0; /* there is enough to tell */
	if (v->n == v->cap) {
		size_t cap = v->cap ? v->cap * 2 : 256;
		struct doubt *grown = realloc(v->doubts, cap * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		v->doubts = grown;
		v->cap = cap;
	}
	const void *copy = arena_copy(&v->keys, key, key_len);
	if (!copy)
		return -ENOMEM;
	v->doubts[v->n++] = (struct doubt){ .key = copy, .key_len = key_len, .offset = -1 };
	return 0;
}

static void put_key(struct verify *v, const void *key, size_t key_len)
{
	char *whole = arena_alloc(&v->chunk, v->prefix_len + key_len + 1);

	if (!whole)
		return; /* the command will lack one, and its answer not fit */
	memcpy(whole, v->prefix, v->prefix_len);
	if (key_len)
		memcpy(whole + v->prefix_len, key, key_len);
	redis_arg(v->r, whole, v->prefix_len + key_len);
}

static bool same(const struct redis_answer *a, const void *value, size_t len)
{
	return a->kind == REDIS_TEXT && a->len == len && (!len || !memcmp(a->text, value, len));
}

struct kept {
	const void *key, *value;
	size_t key_len, value_len;
};

static int compare_chunk(struct verify *v, const struct kept *k, size_t n)
{
	struct redis_answer a;
	int rc;

	if (!n)
		return 0;
	redis_word(v->r, "MGET");
	for (size_t i = 0; i < n; i++)
		put_key(v, k[i].key, k[i].key_len);
	redis_send(v->r);
	if ((rc = answered(v, &a)))
		return rc;
	for (size_t i = 0; i < n && !rc; i++) {
		struct redis_answer one = redis_at(&a, i);
		if (!same(&one, k[i].value, k[i].value_len))
			rc = doubt(v, k[i].key, k[i].key_len);
	}
	return rc;
}

static int walk_snapshot(struct verify *v, uint64_t *keys)
{
	struct sstate_scan *scan = NULL;
	struct sstate_record r;
	struct kept *k = calloc(CHUNK_KEYS, sizeof(*k));
	size_t n = 0, bytes = 0;
	int rc = k ? sstate_scan_begin(&scan, v->s, NULL, 0) : -ENOMEM;

	while (!rc && !(rc = sstate_scan_next(scan, &r))) {
		++*keys;
		if (mark_reserves(v->prefix, r.key, r.key_len))
			continue;
		k[n] = (struct kept){ arena_copy(&v->chunk, r.key, r.key_len),
				      arena_copy(&v->chunk, r.value, r.value_len), r.key_len,
				      r.value_len };
		if (!k[n].key || !k[n].value) {
			rc = -ENOMEM;
			break;
		}
		bytes += r.key_len + r.value_len;
		if (++n < CHUNK_KEYS && bytes < CHUNK_BYTES)
			continue;
		rc = compare_chunk(v, k, n);
		arena_clear(&v->chunk);
		n = bytes = 0;
	}
	if (rc == -ENOENT)
		rc = compare_chunk(v, k, n);
	arena_clear(&v->chunk);
	sstate_scan_end(scan);
	free(k);
	return rc;
}

static int look_for_strays(struct verify *v, const struct redis_answer *page)
{
	struct sstate_buf b = { 0 };
	struct sstate_record r;
	int rc = 0;

	for (size_t i = 0; i < page->n && !rc; i++) {
		struct redis_answer key = redis_at(page, i);
		if (key.kind != REDIS_TEXT || key.len < v->prefix_len)
			continue;
		rc = sstate_get(v->s, key.text + v->prefix_len, key.len - v->prefix_len, &b, &r);
		if (rc == -ENOENT)
			rc = doubt(v, key.text + v->prefix_len, key.len - v->prefix_len);
	}
	sstate_buf_free(&b);
	return rc;
}

static int walk_redis(struct verify *v)
{
	char cursor[32] = "0", count[16];
	size_t len;
	char *pattern = redis_pattern(v->prefix, v->prefix_len, &len);
	struct redis_answer a, part;
	int rc = pattern ? 0 : -ENOMEM;

	if (!v->prefix_len) { /* others' keys may be there */
		free(pattern);
		return rc;
	}
	snprintf(count, sizeof(count), "%d", SCAN_COUNT);
	do {
		redis_words(v->r, "SCAN", cursor, "MATCH", pattern, "COUNT", count, NULL);
		if (rc || (rc = answered(v, &a)))
			break;
		part = redis_at(&a, 0);
		snprintf(cursor, sizeof(cursor), "%s", part.kind == REDIS_TEXT ? part.text : "0");
		part = redis_at(&a, 1);
		rc = look_for_strays(v, &part);
	} while (!rc && strcmp(cursor, "0") != 0);
	free(pattern);
	return rc;
}

/* ---- again ---- */

static int read_rows(struct verify *v, struct sstate_partition *rows)
{
	for (int p = 0; p < v->mark.n; p++) {
		int rc = sstate_partition(v->s, p, &rows[p]);
		if (rc == -ENOENT)
			rows[p].applied = 0;
		else if (rc)
			return rc;
	}
	return 0;
}

/* 1: it fits; 0: it does not, or that cannot be told; < 0. */
static int look_again(struct verify *v, struct doubt *d, const struct sstate_partition *rows)
{
	struct sstate_buf b = { 0 };
	struct sstate_record r;
	struct redis_answer a;
	struct doubt before = *d;
	int rc = sstate_get(v->s, d->key, d->key_len, &b, &r);
	bool absent = rc == -ENOENT, fits;

	if (rc && !absent)
		goto out;
	/* MGET tells no list from nothing */
	redis_word(v->r, absent ? "EXISTS" : "MGET");
	put_key(v, d->key, d->key_len);
	redis_send(v->r);
	rc = answered(v, &a);
	arena_clear(&v->chunk);
	if (rc)
		goto out;
	if (!absent)
		a = redis_at(&a, 0);
	fits = absent ? a.number == 0 : same(&a, r.value, r.value_len);
	d->partition = absent ? -1 : r.partition;
	d->offset = absent ? -1 : r.offset;
	d->there = a.kind != REDIS_NOTHING;
	/* the positions were read before all of this */
	d->seen = !fits && has_reached(v, d, rows);
	if (before.seen && (before.offset != d->offset || before.partition != d->partition))
		d->seen = false; /* another record: it had no second look yet */
	rc = fits;
out:
	sstate_buf_free(&b);
	return rc;
}

static void tell(const struct doubt *d,
		 void (*each)(void *opaque, const struct mirror_difference *d), void *opaque)
{
	const struct mirror_difference x = { .kind = d->offset < 0 ? MIRROR_EXTRA
						     : d->there    ? MIRROR_VALUE
								   : MIRROR_MISSING,
					     .key = d->key,
					     .key_len = d->key_len,
					     .partition = d->partition,
					     .offset = d->offset };

	each(opaque, &x);
}

static int settle(struct verify *v, void (*each)(void *opaque, const struct mirror_difference *d),
		  void *opaque)
{
	struct sstate_partition *rows = calloc((size_t)v->mark.n, sizeof(*rows));
	int rc = rows ? 0 : -ENOMEM;

	for (int i = 0; i < TRIES && v->n && !rc; i++) {
		size_t left = 0;

		usleep(PAUSE_MS * 1000);
		if ((rc = read_rows(v, rows)) || (rc = read_mark(v)))
			break;
		for (size_t k = 0; k < v->n && !rc; k++) {
			bool seen = v->doubts[k].seen;
			rc = look_again(v, &v->doubts[k], rows);
			if (rc == 0 && seen && v->doubts[k].seen)
				tell(&v->doubts[k], each, opaque);
			else if (rc == 0)
				v->doubts[left++] = v->doubts[k];
			rc = rc < 0 ? rc : 0;
		}
		v->n = left;
	}
	free(rows);
	if (!rc && v->n) {
		char text[120];
		snprintf(text, sizeof(text),
			 "%zu keys cannot be told: they change all the time, or "
			 "it lags",
			 v->n);
		return fail(v, -EAGAIN, text);
	}
	return rc;
}

int mirror_verify(const struct config *c, struct sstate *s, const atomic_bool *stop,
		  void (*each)(void *opaque, const struct mirror_difference *d), void *opaque,
		  uint64_t *keys, char *err, size_t err_len)
{
	struct verify v = { .c = c,
			    .s = s,
			    .stop = stop,
			    .prefix = c->redis_prefix,
			    .err = err,
			    .err_len = err_len };
	const struct redis_options o = mirror_server(c);
	struct sstate_stat st;
	int rc = sstate_stat(s, &st);

	*keys = 0;
	v.prefix_len = strlen(v.prefix);
	snprintf(v.key, sizeof(v.key), "%s%s", MARK_KEYS, c->name);
	if (rc || (rc = mark_init(&v.mark, st.partitions > 0 ? st.partitions : 1)))
		return rc;
	if ((rc = redis_open(&v.r, &o, stop, err, err_len))) {
		rc = rc == -ECANCELED ? rc : -EIO;
		goto out;
	}
	if (!(rc = read_mark(&v)) && !(rc = walk_snapshot(&v, keys)) && !(rc = walk_redis(&v)))
		rc = settle(&v, each, opaque);
out:
	redis_close(v.r);
	arena_free(&v.keys);
	arena_free(&v.chunk);
	free(v.doubts);
	mark_free(&v.mark);
	return rc;
}
