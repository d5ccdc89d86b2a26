/*
 * versions.h - a bulk load that keeps superseded pairs: fill.h where they wait.
 *
 *   versions_open(&v, state, dir, memory, moved, partitions, bound_bytes);
 *   versions_add(v, skey, skey_len, &record);      // in log order, tombstones too
 *   versions_finish(v);
 *   while ((rc = versions_store(v)) == 1)          // a transaction each
 *           ;
 *   versions_close(v);
 *
 * Sorted twice.  By key: of all the versions of a key the last one is stored, as
 * a record or as a tombstone, and each other makes a pair with the one after it.
 * Then the pairs by the offset that superseded them, as they wait and are told.
 * Of what is beyond the bound only key, offsets, and the length and digest of the
 * old value are kept, the oldest of each partition in proportion: those are told
 * as expired.
 *
 * Errors:    0 or a negative code; versions_error() has one line.  -EXDEV: a key is
 *            in two partitions and moved is MOVED_STOP; -ENOSPC.
 * Threads:   one calls; one more belongs to each sorter.
 * Units:     bytes.  Two sorters share `memory`.
 */
#ifndef VERSIONS_H
#define VERSIONS_H

#include "config.h"
#include "state.h"

struct versions;

int versions_open(struct versions **out, struct state *st, const char *dir, size_t memory,
		  enum moved moved, int partitions, int64_t bound_bytes);
void versions_close(struct versions *v); /* NULL is allowed */
int versions_add(struct versions *v, const void *skey, size_t skey_len, const struct record *r);
/** After the last versions_add(). */
int versions_finish(struct versions *v);
/** One transaction: 1, there may be more; 0, that was the last; or < 0. */
int versions_store(struct versions *v);
const char *versions_error(struct versions *v);

struct versions_stat {
	uint64_t versions, records; /* gone through, and stored of them */
	uint64_t bytes;
	uint64_t pairs, omitted; /* stored, and how many of them without the old value */
};
const struct versions_stat *versions_stat(const struct versions *v);

#endif
