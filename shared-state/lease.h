/*
 * lease.h - what keeps readers without locks safe: two rotating read
 * transactions of the writer's own.
 *
 * Readers register nowhere, so LMDB would reuse the pages under them.  It never
 * reuses a page that some registered read transaction may still need, and the
 * writer registers two:
 *
 *   1. `newer` begins at every rotation, `older` is the one before it.
 *   2. A rotation is at least one lease after the one before it, so `older`
 *      always began a lease ago or more.
 *   3. A reader that began at time t sees a commit that is not older than any
 *      transaction begun before t.  At any time up to t + lease, `older` or
 *      `newer` is such a one and has been held since: nothing that the reader
 *      needs has been reused.
 *   4. A crash ends both.  The next writer takes its first lease before it
 *      writes and waits a full lease: by then no reader of the old one is valid.
 *
 * Errors:  0 or a code of codes.h.  A failed rotation keeps what is held: safe,
 *          but the file grows.
 * Threads: the writing thread only.
 */
#ifndef LEASE_H
#define LEASE_H

#include <lmdb.h>
#include <stdint.h>

struct lease {
	MDB_env *env;
	int64_t lease_ms;
	int64_t rotated_ms; /* CLOCK_MONOTONIC, rounded up: never earlier than it was */
	MDB_txn *newer, *older;
};

/** CLOCK_MONOTONIC in milliseconds. */
int64_t lease_clock_ms(void);

/** Take the first lease. */
int lease_begin(struct lease *l, MDB_env *env, int64_t lease_ms);
/** Rotate if a lease has passed.  Before every write, and now and then when idle. */
int lease_rotate(struct lease *l);
/** Milliseconds until a full lease has passed since lease_begin(); 0 after that. */
int64_t lease_wait_ms(const struct lease *l);
/** Let both go.  Also on a zeroed struct. */
void lease_end(struct lease *l);

#endif
