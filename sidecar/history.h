/*
 * history.h - the metrics of the last minutes, for the plots of the status
 * page.
 *
 *   history_sample(&h);          every HISTORY_MS
 *   n = history_copy(&h, out);   oldest first
 *
 * Threads:   one samples, any copies.
 */
#ifndef HISTORY_H
#define HISTORY_H

#include "metrics.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { HISTORY_SAMPLES = 150, HISTORY_MS = 2000 }; /* five minutes */

struct history_sample {
	double records, notes; /* a second */
	/* microseconds; -1: nothing happened */
	int64_t snapshot_p50, snapshot_p99, note_p50, note_p99;
};

struct history {
	pthread_mutex_t lock;
	struct history_sample ring[HISTORY_SAMPLES];
	uint64_t n;
	/* as at the last sample */
	int64_t us;
	uint64_t records, notes;
	struct metrics_histogram snapshot, note;
};

void history_init(struct history *h);
void history_free(struct history *h);
void history_sample(struct history *h);
int history_copy(struct history *h, struct history_sample out[HISTORY_SAMPLES]);

#endif
