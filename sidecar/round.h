/*
 * round.h - deletes that compaction purged before they were read.
 *
 * A compacted offset stays valid for ever, so nothing tells a consumer that a
 * tombstone was purged while it was away.  The sequence, crash included:
 *   1. The batch that crosses a gap longer than half of delete.retention.ms
 *      stores due(p) = A before the gap, in its own transaction.
 *   2. The tail catches up: what was updated meanwhile comes from the log.
 *   3. A scan reads [log start, A) and sets one bit per offset seen, then asks
 *      for the log's end E.  Another gap meanwhile starts it again.
 *   4. Once A >= E, each record still stored at (p, r) with a clear bit is gone.
 *      Each is deleted and journaled: r < due at (p, due, n), ahead of the log
 *      change at `due`; a later one at (p, A, n), as the log change at r comes
 *      first.  Nothing else is applied meanwhile.
 *   5. due(p) is cleared with the last of them.
 * Has another sidecar published up to P > due meanwhile, then P takes the place
 * of due in 4, and what it has told since due is read back in 3: of a key whose
 * delete was told nothing is, and one that was updated has its new value as old
 * value.  Were it told at `due`, nobody would publish it.
 * While due(p) is set nothing at or after `due` is published, and the sidecar
 * is unfit.  A crash in 1 to 5 leaves due(p): the round is done again, and what
 * was journaled already is not stored any more.
 *
 * Threads: the writing thread (scan has one of its own).
 */
#ifndef ROUND_H
#define ROUND_H

#include "scan.h"
#include "state.h"

struct round_options {
	bool journal;  /* notifications are configured */
	bool expiring; /* keys below the log's start leave without notification */
};

struct round_counts {
	uint64_t gone, expired; /* keys that left: deleted, or nobody's change */
};

/**
 * Step 4 and 5 for every partition of `rows` [n] that is due: find the gone
 * records in the state and write them.  rows are updated as far as committed.
 * 0 or a code of the state.  *counts them.
 */
int round_write(struct state *st, const struct scan *s, int n, struct state_partition *rows,
		const struct round_options *o, struct round_counts *counts);

#endif
