#include "batch.h"

#include <stdlib.h>
#include <string.h>

/* ---- arena ---- */

enum { ARENA_BLOCK = 1 << 20 };

struct arena_block {
	struct arena_block *next;
	size_t used, size;
	max_align_t data[];
};

static struct arena_block *block_after(struct arena *a, size_t bytes)
{
	struct arena_block *b = a->now ? a->now->next : a->first;

	if (b && b->size >= bytes) {
		b->used = 0;
		return b;
	}
	size_t size = bytes > ARENA_BLOCK ? bytes : ARENA_BLOCK;
	struct arena_block *fresh = malloc(sizeof(*fresh) + size);
	if (!fresh)
		return NULL;
	*fresh = (struct arena_block){ .next = b, .size = size };
	if (a->now)
		a->now->next = fresh;
	else
		a->first = fresh;
	return fresh;
}

void *arena_alloc(struct arena *a, size_t bytes)
{
	bytes = (bytes + 15) & ~(size_t)15;
	if (!a->now || a->now->size - a->now->used < bytes) {
		struct arena_block *b = block_after(a, bytes);
		if (!b)
			return NULL;
		a->now = b;
	}
	void *p = (char *)a->now->data + a->now->used;
	a->now->used += bytes;
	return p;
}

void *arena_copy(struct arena *a, const void *bytes, size_t len)
{
	void *p = arena_alloc(a, len ? len : 1);
	if (p && len)
		memcpy(p, bytes, len);
	return p;
}

void arena_clear(struct arena *a)
{
	/* blocks made for one large value are given back, the ordinary ones stay */
	for (struct arena_block **b = &a->first; *b;) {
		struct arena_block *gone = *b;
		if (gone->size <= ARENA_BLOCK) {
			b = &gone->next;
			continue;
		}
		*b = gone->next;
		free(gone);
	}
	a->now = NULL;
}

void arena_free(struct arena *a)
{
	for (struct arena_block *b = a->first, *next; b; b = next) {
		next = b->next;
		free(b);
	}
	*a = (struct arena){ 0 };
}

/* ---- batch ---- */

static uint64_t order_of(const uint8_t *skey, size_t len)
{
	uint8_t b[8] = { 0 };

	memcpy(b, skey, len < 8 ? len : 8);
	uint64_t x;
	memcpy(&x, b, 8);
	return __builtin_bswap64(x); /* little endian hosts only: see record.h */
}

struct batch_record *batch_add(struct batch *b, const void *key, size_t key_len)
{
	if (b->n == b->cap) {
		size_t cap = b->cap ? b->cap * 2 : 1024;
		struct batch_record *grown = realloc(b->v, cap * sizeof(*grown));
		if (!grown)
			return NULL;
		b->v = grown;
		b->cap = cap;
	}
	struct batch_record *r = &b->v[b->n];
	*r = (struct batch_record){ .key = key, .key_len = key_len };
	r->skey = key;
	r->skey_len = key_len;
	if (record_key_is_digest(key_len)) {
		uint8_t *skey = arena_alloc(&b->arena, KEY_STORED_MAX);
		if (!skey)
			return NULL;
		r->skey_len = record_stored_key(skey, key, key_len);
		if (!r->skey_len)
			return NULL;
		r->skey = skey;
		r->rec.flags = RECORD_KEY;
		r->rec.key = key;
		r->rec.key_len = key_len;
	}
	r->order = order_of(r->skey, r->skey_len);
	b->n++;
	return r;
}

void batch_clear(struct batch *b)
{
	b->n = 0;
	b->bytes = 0;
	arena_clear(&b->arena);
}

void batch_free(struct batch *b)
{
	free(b->v);
	arena_free(&b->arena);
	*b = (struct batch){ 0 };
}

static int by_key(const void *x, const void *y, void *batch)
{
	const struct batch *b = batch;
	uint32_t i = *(const uint32_t *)x, j = *(const uint32_t *)y;
	const struct batch_record *p = &b->v[i], *q = &b->v[j];

	if (p->order != q->order)
		return p->order < q->order ? -1 : 1;
	size_t min = p->skey_len < q->skey_len ? p->skey_len : q->skey_len;
	int c = memcmp(p->skey, q->skey, min);
	if (c)
		return c;
	if (p->skey_len != q->skey_len)
		return p->skey_len < q->skey_len ? -1 : 1;
	return i < j ? -1 : i > j;
}

uint32_t *batch_by_key(struct batch *b)
{
	uint32_t *order = arena_alloc(&b->arena, (b->n ? b->n : 1) * sizeof(*order));

	if (!order)
		return NULL;
	for (size_t i = 0; i < b->n; i++)
		order[i] = (uint32_t)i;
	qsort_r(order, b->n, sizeof(*order), by_key, b);
	return order;
}
