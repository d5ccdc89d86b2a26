/*
 * intake.h - a consumer's messages become a batch.  What tail and fill share.
 *
 *   intake_open(&in, config, INTAKE_TAIL, n, from, err, sizeof err);
 *   while (intake_take(in, timeout_ms, max, &events, err, sizeof err) == 0) {
 *           ... apply in->batch ...
 *           intake_clear(in);
 *   }
 *   intake_close(in);
 *
 * Errors:    0 or enum intake_rc; err gets one line.
 * Ownership: the batch's keys and values live until intake_clear().
 */
#ifndef INTAKE_H
#define INTAKE_H

#include "batch.h"
#include "config.h"

struct intake;

enum intake_rc {
	INTAKE_DENIED = 1,   /* not authorized to read: alarm, try again */
	INTAKE_RESET = 2,    /* the position is outside of the log; *partition says where */
	INTAKE_CORRUPT = 3,  /* the broker's bytes are bad: reading on would skip records */
	INTAKE_MISSING = 4,  /* the topic is gone */
	INTAKE_REFUSED = 5,  /* the client could not be made */
	INTAKE_DOUBTFUL = 6, /* the topic was away for a moment: what was taken may be another's */
};

struct intake_events {
	bool *eof;           /* [n]: the end of this partition was seen in this take ... */
	int64_t *eof_offset; /* [n]: ... at this offset, which is a position of its own */
	int32_t partition;   /* with INTAKE_RESET and others: which */
	int64_t offset;
};

/* Whose records those are: names the client, and bounds what it keeps in memory. */
enum intake_use {
	INTAKE_TAIL,
	INTAKE_FILL,   /* without headers, but those that the state keeps */
	INTAKE_MIRROR, /* without headers */
};

/**
 * `from` [n]: where to start; INTAKE_LOG_START for the beginning of the log.
 * `ends` [n], or NULL: gets where the partitions end for a reader of what is
 * committed, -1 where that is not known at once.  The first fetch at an end would
 * wait before it tells, and whatever is asked after it waits too.
 */
enum { INTAKE_LOG_START = -2 };
int intake_open(struct intake **out, const struct config *c, enum intake_use use, int n,
		const int64_t *from, int64_t *ends, char *err, size_t err_len);
void intake_close(struct intake *in); /* NULL is allowed */

/**
 * Append what has arrived to the batch, up to `max` records in it; waits up to
 * timeout_ms only while nothing is there.  Events are reset at every call.
 */
int intake_take(struct intake *in, int timeout_ms, size_t max, struct intake_events *ev, char *err,
		size_t err_len);
struct batch *intake_batch(struct intake *in);
/** Give back the batch's records and the messages below them. */
void intake_clear(struct intake *in);
/** Where a partition ended when it was fetched from last; -1: it was not yet. */
int64_t intake_end(struct intake *in, int32_t partition);
/** Stop fetching one partition (a fill that reached its boundary). */
void intake_pause(struct intake *in, int32_t partition);

#endif
