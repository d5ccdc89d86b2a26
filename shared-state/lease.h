/*
 * lease.h - what keeps readers without locks safe: rotating read
 * transactions of the writer's own.
 *
 * Readers register nowhere, so LMDB would reuse the pages under them.  It never
 * reuses a page that some registered read transaction may still need, and the
 * writer registers some, oldest first:
 *
 *   1. A new one begins LEASE_STEPS times in a lease.
 *   2. The oldest ends when the one after it began a full lease ago, or more.
 *   3. A reader that began at time t sees a commit that is not older than any
 *      transaction begun before t.  Let o be the last one begun before t.  It is
 *      held until the one after it, begun after t, is a lease old, and so until
 *      t + lease at least: nothing that the reader needs is reused before.
 *      The more steps, the sooner pages are: after 1 + 1/LEASE_STEPS leases at
 *      most while there are writes, so the file stays smaller under many.
 *   4. A crash ends all.  The next writer takes its first lease before it
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

enum { LEASE_STEPS = 4, LEASE_HELD_MAX = LEASE_STEPS + 2 };

struct lease_held {
	MDB_txn *txn;
	int64_t begun_ms; /* CLOCK_MONOTONIC, rounded up: never earlier than it was */
};

struct lease {
	MDB_env *env;
	int64_t lease_ms;
	int64_t first_ms;                       /* when lease_begin() took the first */
	struct lease_held held[LEASE_HELD_MAX]; /* oldest first */
	int n;
};

/** CLOCK_MONOTONIC in milliseconds. */
int64_t lease_clock_ms(void);

/** Take the first lease. */
int lease_begin(struct lease *l, MDB_env *env, int64_t lease_ms);
/** Rotate if a part of a lease has passed.  Before every write, and now and then when idle. */
int lease_rotate(struct lease *l);
/** Milliseconds until a full lease has passed since lease_begin(); 0 after that. */
int64_t lease_wait_ms(const struct lease *l);
/** Let all go.  Also on a zeroed struct. */
void lease_end(struct lease *l);

#endif
