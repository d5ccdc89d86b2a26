/*
 * status.h - one picture of the sidecar, copied out of the pipeline, the
 * snapshot and the metrics: what /readyz, /metrics and the status page tell.
 *
 * Ready is the same for a leader and a standby, because both keep a snapshot
 * that programs read: it is filled, it has caught up since the start, it is
 * being kept, and the sidecar is not about to end.  Whether brokers answer is
 * no part of it: what was caught up stays right as of its position.
 *
 * Errors:    none: what cannot be told is left unknown.
 * Threads:   any; status_take() holds the pipeline's lock for copying only.
 */
#ifndef STATUS_H
#define STATUS_H

#include "config.h"
#include "pipeline.h"
#include "shared_state.h"

struct status_partition {
	int64_t log_end, applied, published, base, start, whole; /* -1: not known */
	int64_t applied_ms;               /* timestamp of the last applied record */
	int64_t lag, lag_ms, publish_lag; /* -1: not known */
	int64_t redis_lag;                /* -1: not mirrored from here */
	int64_t cursor;                   /* what was superseded below is told as gone */
	bool due, caught_up;
};

struct status {
	const struct config *config;
	int64_t now_ms;
	bool running; /* a pipeline is set up: its threads run */
	bool ending;
	bool caught_up, leading, publishing, filling, waiting, round_running;
	char role[160], cluster[128], uuid[48];
	int64_t journal_limit, disk_free;     /* -1: not known */
	int rc;                               /* 0: `snapshot` is known */
	int64_t waiting_pairs, waiting_bytes; /* for compaction; -1: not kept, or not known */
	int64_t waiting_tombstones;
	struct sstate_stat snapshot;
	int n;
	struct status_partition *part; /* [n] */
};

/* Where the pipeline is looked at, while there is one. */
struct status_source {
	pthread_mutex_t lock; /* held for copying only: whoever takes the pipeline away waits */
	struct pipeline *p;
};

/** `s`: NULL while there is no snapshot, `rc` why. */
void status_take(struct status *st, const struct config *c, struct status_source *source,
		 struct sstate *s, int rc);
void status_free(struct status *st);

enum { STATUS_CHECKS = 4 };
struct status_check {
	const char *name;
	bool ok;
	char text[200];
};
/** Whether it is ready, and each condition. */
bool status_ready(const struct status *st, struct status_check checks[STATUS_CHECKS]);

/** Set the gauges that follow from it. */
void status_to_metrics(const struct status *st);

#endif
