/*
 * probe.h - which record to ask for next, to find out how far a log is compacted.
 *
 * A superseded pair (r, s) is gone once a fetch at r returns a later offset.
 * Measured on Kafka's cleaner: gone(r, s) implies gone(r', s') for every r' <= r
 * and s' <= s on the same replica.  "Monotone in s" alone is false: of two pairs
 * the later superseded one may go first.
 *
 * A tombstone may also go by age, before anything supersedes it: that it is gone
 * tells of no other record.  That a value is gone tells of tombstones as well.
 *
 * Pairs are published in the order of s, so only the leading ones that are all
 * gone matter.  Of the first `width` of them ask for the value with the largest r:
 * if it is gone, so are all before it, up to a tombstone with a larger r.  Is that
 * the very first, ask for it alone.  The width doubles with every such answer,
 * is halved with every other, and when the very first pair is still there,
 * nothing can be published and asking again has to wait.
 *
 * Pure.  Threads: none.
 */
#ifndef PROBE_H
#define PROBE_H

#include "state.h"

enum { PROBE_WIDTH_MAX = 16384 };

struct probe {
	size_t width; /* 0 counts as 1 */
};

static inline size_t probe_width(const struct probe *p) { return p->width ? p->width : 1; }

/** Index of the pair to ask for, of the next n >= 1 waiting ones in the order of s. */
size_t probe_choose(const struct probe *p, const struct state_pair *v, size_t n);
/**
 * The answer for v[i], which probe_choose() gave.  Returns how many of the
 * leading pairs are known to be gone; *stuck: the first is still there.
 */
size_t probe_learn(struct probe *p, const struct state_pair *v, size_t i, bool gone, bool *stuck);

enum {
	PROBE_WAIT_MIN_MS = 250,
	PROBE_WAIT_MAX_MS = 4000, /* of a log that grows */
	PROBE_WAIT_IDLE_MAX_MS =
		300000, /* of one that does not: the cleaner has little cause to come */
};
/**
 * How long to wait before a record that was still there is asked for again, after
 * `wait_ms` the last time (0: none); `grew`: the log has, since then.
 */
int64_t probe_wait_ms(int64_t wait_ms, bool grew);

/**
 * Whether a record that was still there, with its pair (present_r, present_s),
 * tells that (r, s) was there too: the same rule read backwards.  Of a tombstone
 * only its own answer tells.
 */
static inline bool probe_was_present(int64_t present_r, int64_t present_s, int64_t r, int64_t s,
				     bool tombstone)
{
	return tombstone ? r == present_r : r >= present_r && s >= present_s;
}

#endif
