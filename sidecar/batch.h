/*
 * batch.h - records in log order, on their way from a consumer to the state.
 *
 * Ownership: keys and values point into the consumer's messages, which the
 *            owner of the batch keeps until batch_clear(); digests and header
 *            sequences are in the batch's arena.
 * Threads:   belongs to one thread.
 */
#ifndef BATCH_H
#define BATCH_H

#include "record.h"

/* Memory that is given back all at once; reused, so that a steady batch allocates nothing. */
struct arena {
	struct arena_block *first, *now;
};
/** NULL: out of memory.  Aligned for any type. */
void *arena_alloc(struct arena *a, size_t bytes);
void *arena_copy(struct arena *a, const void *bytes, size_t len);
void arena_clear(struct arena *a); /* keeps the memory for the next round */
void arena_free(struct arena *a);

struct batch_record {
	const void *key; /* the whole key of Kafka */
	size_t key_len;
	const uint8_t *skey; /* the key it is stored under */
	size_t skey_len;
	uint64_t order;          /* first bytes of skey, big endian: most comparisons end here */
	struct record rec;       /* as stored: headers are those that state.headers keeps */
	const void *all_headers; /* every source header: what a notification copies */
	size_t all_headers_len;
};

struct batch {
	struct batch_record *v;
	size_t n, cap;
	size_t bytes; /* keys, values and headers */
	struct arena arena;
};

/**
 * Append a record; the caller sets partition, offset, timestamp, value and
 * headers of the result.  NULL: out of memory.
 */
struct batch_record *batch_add(struct batch *b, const void *key, size_t key_len);
void batch_clear(struct batch *b);
void batch_free(struct batch *b);

/** Indexes of the batch by stored key, then log order, in the arena.  NULL: out of memory. */
uint32_t *batch_by_key(struct batch *b);

#endif
