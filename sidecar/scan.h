/*
 * scan.h - the second reader of a round: which offsets below a bound are still
 * in the log.
 *
 *   scan_start(&s, config, n, bound);
 *   while (scan_state(s) == SCAN_RUNNING) ...
 *   if (scan_misses(s, p, offset)) the record was removed by compaction
 *   scan_end(s, p)   the log's end, asked for after the last bit was set
 *   scan_free(s);
 *
 * One bit per offset, in pages made on demand.  Reads from the log's start at
 * its own pace, without a time limit.
 *
 * Threads: one thread of its own; the questions may be asked once it is done.
 */
#ifndef SCAN_H
#define SCAN_H

#include "config.h"
#include "told.h"

struct scan;

enum scan_state { SCAN_RUNNING, SCAN_DONE, SCAN_FAILED };

/**
 * `bound` [n]: scan below this offset; -1: not this partition.  `due` [n]: where
 * the gap began; NULL: nothing is published.  `self`: uuid of the state.  0 or -errno.
 */
int scan_start(struct scan **out, const struct config *c, int n, const int64_t *bound,
	       const int64_t *due, const char *self);
enum scan_state scan_state(const struct scan *s);
/** Why it failed; one line. */
const char *scan_error(const struct scan *s);
/** Offsets read so far and in all, for progress. */
void scan_progress(const struct scan *s, int64_t *done, int64_t *all);
/** Whether this scan says anything about partition p ... */
bool scan_covers(const struct scan *s, int32_t p);
/** ... and about this offset, that it was removed. */
bool scan_misses(const struct scan *s, int32_t p, int64_t offset);
int64_t scan_log_end(const struct scan *s, int32_t p);
/** Where the log began when the scan had ended: what is below may have fallen off it. */
int64_t scan_log_start(const struct scan *s, int32_t p);
/**
 * Where another sidecar has published from `due` on while this one was away: how
 * far, and what.  -1 and NULL: nobody has.
 */
int64_t scan_published(const struct scan *s, int32_t p);
const struct told *scan_told(const struct scan *s, int32_t p);
/** Whether what is committed was committed by another state. */
bool scan_led_by_other(const struct scan *s, int32_t p);
/** Stop and free; NULL is allowed. */
void scan_free(struct scan *s);

#endif
