/*
 * probe.h - which record to ask for next, to find out how far a log is compacted.
 *
 * A superseded pair (r, s) is gone once a fetch at r returns a later offset.
 * Measured on Kafka's cleaner: gone(r, s) implies gone(r', s') for every r' <= r
 * and s' <= s on the same replica.  "Monotone in s" alone is false: of two pairs
 * the later superseded one may go first.
 *
 * Pairs are published in the order of s, so only the leading ones that are all
 * gone matter.  Of the first `width` of them ask for the one with the largest r:
 * if it is gone, so are all before it.  The width doubles with every such answer,
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
size_t probe_learn(struct probe *p, size_t i, bool gone, bool *stuck);

/**
 * Whether a record that was still there, with its pair (present_r, present_s),
 * tells that (r, s) was there too: the same rule read backwards.
 */
static inline bool probe_was_present(int64_t present_r, int64_t present_s, int64_t r, int64_t s)
{
	return r >= present_r && s >= present_s;
}

#endif
