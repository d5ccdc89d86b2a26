/*
 * rebuild.h - a new generation beside the live one, switched atomically.
 *
 * The order, and what a crash after each step leaves:
 *   1. a round on the live generation, so that both agree on what is gone
 *   2. the tail begins to copy what it applies from A0 on into a delta
 *   3. a fill reads the log below A0 into the new generation; the delta is
 *      applied to it until it has nearly caught up
 *                                     - the live generation; the new one is swept
 *   4. all threads of the pipeline end, the publisher outside a transaction
 *   5. the rest of the delta; journal, positions and uuid are taken over
 *                                     - the same
 *   6. synced; `current` is renamed   - the new one
 *   7. the pipeline starts again on it; readers follow by themselves
 *
 * Threads: one of its own in 1 to 3; the caller's in 5 and 6.
 */
#ifndef REBUILD_H
#define REBUILD_H

#include "pipeline.h"
#include "tail.h"

struct rebuild;

enum rebuild_state { REBUILD_RUNNING, REBUILD_READY, REBUILD_FAILED };

/** Steps 1 to 3.  READY also ends the pipeline with OUTCOME_SWITCH. */
int rebuild_start(struct rebuild **out, struct pipeline *p, struct tail *t, struct state_dir *dir,
		  const struct state_identity *who);
enum rebuild_state rebuild_state(const struct rebuild *r);
/** Before the tail is freed: end the thread, unless it has done its part. */
void rebuild_halt(struct rebuild *r);
/** What it does, or why it failed: one line. */
void rebuild_text(struct rebuild *r, char *out, size_t len);
/**
 * Steps 5 and 6, once the pipeline's threads have ended.  `live` is the old
 * generation, still the caller's.  0, or -1 with err; the old one is then as it was.
 */
int rebuild_finish(struct rebuild *r, struct state *live, char *err, size_t err_len);
/** Stop what runs and free; an unfinished generation is swept.  NULL is allowed. */
void rebuild_free(struct rebuild *r);

#endif
