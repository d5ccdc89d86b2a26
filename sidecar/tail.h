/*
 * tail.h - follows the source topic and is the only writer of the state.
 *
 * The order, crash at any point included:
 *   1. take what arrived; commit at once when the topic runs dry, else at
 *      batch.records or batch.ms;
 *   2. one transaction: records, journal, positions, anchors, trims;
 *   3. tell the others (pipeline_applied), give the messages back.
 * A crash before 2 has returned replays the batch; after it, nothing is
 * replayed.  An idle or waiting tail commits empty batches, so that trims and
 * the heartbeat go on and back-pressure cannot lock up.
 */
#ifndef TAIL_H
#define TAIL_H

#include "pipeline.h"

struct tail;

/**
 * Start the thread.  `rows` [n] are the positions the state has; p->state is
 * the tail's to write from here on.  0 or -errno.
 */
int tail_start(struct tail **out, struct pipeline *p, const struct state_partition *rows);
/** Wait for its end (pipeline_end() makes it end) and free it.  NULL is allowed. */
void tail_join(struct tail *t);

/**
 * Somebody asked the broker at `asked_boot_ms`/`asked_wall_ms` for the log's
 * start and end of a partition: where the end is what was applied, the tail was
 * caught up then.  An EOF event comes once per position, so an idle topic needs
 * this; and nothing else tells that keys have expired.
 */
void tail_confirm(struct tail *t, int part, int64_t log_start, int64_t end, int64_t asked_wall_ms,
		  int64_t asked_boot_ms);
/** All partitions were: once for all it is looked for what has expired. */
void tail_confirmed_all(struct tail *t);

struct delta;
/**
 * From the next batch on, append what is applied to `d` as well; from [n] gets
 * the positions at which that begins.  Returns once it does; -EINTR: the
 * pipeline is ending.  A round fails the delta.
 */
int tail_follow(struct tail *t, struct delta *d, int64_t *from);

int64_t tail_boot_ms(void);

#endif
