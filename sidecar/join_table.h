/*
 * join_table.h - the table of a join: a sidecar's snapshot, read where it lies.
 *
 *   table_open(&t, dir);
 *   table_begin(t);                           // the state as it is now
 *   rc = table_get(t, key, len, &record);     // 0, -ENOENT
 *   ... table_token(t) names the state that this came from ...
 *   table_end(t);
 *
 * A state is held for the length of a batch.  Where that takes longer than the
 * sidecar's lease, table_get() goes on with a newer state, and the token is that
 * one's: so ask for the token after each look-up.  Nothing is ever from two
 * states.
 *
 * Errors:    0, -ENOENT (no such key), or a code of shared_state.h.
 * Ownership: record, token and positions are the table's, until the next call.
 * Threads:   one.
 */
#ifndef JOIN_TABLE_H
#define JOIN_TABLE_H

#include "shared_state.h"

#include <stdbool.h>

struct table;

int table_open(struct table **out, const char *dir);
void table_close(struct table *t); /* NULL is allowed */

/** Hold the newest state; gives back the one that is held. */
int table_begin(struct table *t);
void table_end(struct table *t);
int table_get(struct table *t, const void *key, size_t key_len, struct sstate_record *r);

/** Of the state that is held: its token, and by partition the positions that it has reached,
 * deletes that a round is to find included. */
const char *table_token(const struct table *t);
const int64_t *table_positions(const struct table *t, size_t *n);

/** How many partitions the newest state has, or a negative code. */
int table_partitions(struct table *t);
/** The topic that the table is of, and its cluster's id. */
const char *table_topic(const struct table *t);
const char *table_cluster(const struct table *t);
/** Whether its sidecar is alive and caught up; *age_ms: since its last commit, -1: none. */
bool table_is_ready(struct table *t, int64_t *age_ms);

/**
 * Wait until every position in want[n] is applied, `ms` at most; or until
 * stopping().  True: it is.
 */
bool table_wait(struct table *t, const int64_t *want, size_t n, int64_t ms,
		bool (*stopping)(void *), void *opaque);

#endif
