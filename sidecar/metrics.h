/*
 * metrics.h - what the sidecar counts about itself: one table of rows, any
 * thread may bump them, whoever serves them prints all.
 *
 *   metrics_add(METRIC_RECORDS_CONSUMED, batch->n);
 *   metrics_observe(METRIC_COMMIT_SECONDS, us);
 *   metrics_set_at(METRIC_LOG_END_OFFSET, partition, high);
 *   metrics_print(f, "users", info);
 *
 * A row is a series: name, kind, help, and what a rise means; docs/metrics.md
 * is printed from them.  To add one: a word in enum metric, a row in
 * metrics.c at the same place, `make docs`.
 *
 * Errors:    none: what cannot be counted is not counted.
 * Threads:   any.  Counting is an atomic addition: no lock, no allocation.
 * Units:     as the word says: _US microseconds, _MS milliseconds.  Printed in
 *            seconds, bytes, records.
 */
#ifndef METRICS_H
#define METRICS_H

#include <stdint.h>
#include <stdio.h>

enum metric {
	/* about the whole */
	METRIC_INFO,
	METRIC_READY,
	METRIC_CAUGHT_UP,
	METRIC_LEADING,
	METRIC_FIT,
	METRIC_LEADERSHIPS,
	METRIC_RESUMES,
	/* reading the source */
	METRIC_RECORDS_CONSUMED,
	METRIC_BYTES_CONSUMED,
	METRIC_CHANGES_CREATE,
	METRIC_CHANGES_UPDATE,
	METRIC_CHANGES_UNCHANGED,
	METRIC_CHANGES_DELETE,
	METRIC_MOVED_IGNORED,
	METRIC_BATCH_RECORDS,
	METRIC_COMMIT_US,
	METRIC_COMMIT_FAILURES,
	METRIC_SNAPSHOT_LATENCY_US,
	METRIC_TAIL_WAITING,
	/* positions, one series for each partition */
	METRIC_LOG_END_OFFSET,
	METRIC_APPLIED_OFFSET,
	METRIC_APPLIED_MS,
	METRIC_PUBLISHED_OFFSET,
	METRIC_CONSUMER_LAG_RECORDS,
	METRIC_CONSUMER_LAG_MS,
	METRIC_PUBLISH_LAG_RECORDS,
	METRIC_GONE_OFFSET,
	METRIC_REDIS_OFFSET,
	METRIC_REDIS_LAG_RECORDS,
	/* publishing */
	METRIC_NOTIFIED_CREATE,
	METRIC_NOTIFIED_UPDATE,
	METRIC_NOTIFIED_DELETE,
	METRIC_NOTIFIED_GAP,
	METRIC_NOTIFIED_RECONCILE,
	METRIC_NOTIFIED_WRAPPED,
	METRIC_NOTIFIED_OMITTED,
	METRIC_NOT_NOTIFIED,
	METRIC_NOTIFICATION_LATENCY_US,
	METRIC_TRANSACTIONS_COMMITTED,
	METRIC_TRANSACTIONS_ABORTED,
	METRIC_TRANSACTIONS_UNCLEAR,
	METRIC_TRANSACTION_US,
	METRIC_PRODUCER_OPENS,
	METRIC_PUBLISH_FAILURES,
	/* physical compaction */
	METRIC_COMPACTED,
	METRIC_EXPIRED,
	METRIC_WAITING_PAIRS,
	METRIC_WAITING_BYTES,
	METRIC_TOMBSTONES,
	METRIC_TOMBSTONES_FORGOTTEN,
	METRIC_PROBES,
	/* Redis */
	METRIC_REDIS_UP,
	METRIC_REDIS_RESYNCING,
	METRIC_REDIS_WRITES,
	METRIC_REDIS_RESYNCS,
	METRIC_REDIS_FAILURES,
	/* fills and rounds */
	METRIC_FILLING,
	METRIC_FILLS,
	METRIC_FILL_RECORDS,
	METRIC_FILL_MS,
	METRIC_ROUND_RUNNING,
	METRIC_ROUND_DUE,
	METRIC_ROUNDS_DONE,
	METRIC_ROUNDS_FAILED,
	METRIC_GONE_KEYS,
	METRIC_EXPIRED_KEYS,
	/* the state */
	METRIC_SNAPSHOT_KEYS,
	METRIC_SNAPSHOT_BYTES,
	METRIC_SNAPSHOT_FILE_BYTES,
	METRIC_SNAPSHOT_GENERATION,
	METRIC_HEARTBEAT_AGE_MS,
	METRIC_LEASE_MS,
	METRIC_JOURNAL_ENTRIES,
	METRIC_JOURNAL_BYTES,
	METRIC_JOURNAL_LIMIT_BYTES,
	METRIC_DISK_FREE_BYTES,
	/* HTTP */
	METRIC_HTTP_2XX,
	METRIC_HTTP_4XX,
	METRIC_HTTP_5XX,
	METRIC_HTTP_CONNECTIONS,
	METRIC_HTTP_CUT,
	METRIC_LOOKUPS_FOUND,
	METRIC_LOOKUPS_ABSENT,
	/* the process, by the names that every dashboard knows */
	METRIC_PROCESS_CPU_MS,
	METRIC_PROCESS_RESIDENT_BYTES,
	METRIC_PROCESS_VIRTUAL_BYTES,
	METRIC_PROCESS_OPEN_FDS,
	METRIC_PROCESS_MAX_FDS,
	METRIC_PROCESS_START_MS,
	METRICS
};

/** A gauge that is not known: it is left out. */
#define METRIC_UNKNOWN INT64_MIN

/** Counters, and METRIC_PROCESS_CPU_MS. */
void metrics_add(enum metric m, uint64_t n);
/** Gauges.  Unknown until they are set. */
void metrics_set(enum metric m, int64_t v);
/** Histograms. */
void metrics_observe(enum metric m, int64_t v);
/** The time since `began_us` of metrics_clock_us(). */
void metrics_observe_since(enum metric m, int64_t began_us);
int64_t metrics_clock_us(void);
/** From a record's timestamp `ms` until `now_us` of metrics_wall_us().  Nothing for -1: none. */
void metrics_observe_age(enum metric m, int64_t ms, int64_t now_us);
int64_t metrics_wall_us(void);

/**
 * How many partitions there are: room for their gauges, all unknown.  Before
 * the threads that set them start; a partition beyond is passed over.
 */
void metrics_partitions(int n);
void metrics_set_at(enum metric m, int partition, int64_t v);
/** The same, unless it is known to be higher already. */
void metrics_raise_at(enum metric m, int partition, int64_t v);

int64_t metrics_value(enum metric m);
int64_t metrics_value_at(enum metric m, int partition);

enum { METRIC_BUCKETS = 17 }; /* of a histogram, +Inf included */
struct metrics_histogram {
	int n;                          /* buckets in use */
	int64_t bound[METRIC_BUCKETS];  /* inclusive; the last: INT64_MAX */
	uint64_t count[METRIC_BUCKETS]; /* of each bucket alone */
	uint64_t total;
	int64_t sum;
};
void metrics_histogram(enum metric m, struct metrics_histogram *out);
/** A quantile (0 to 1) by linear interpolation in its bucket; -1: nothing was observed. */
int64_t metrics_quantile(const struct metrics_histogram *h, double q);

/* The labels of sidenote_info. */
struct metrics_info {
	const char *name; /* of the pipeline: a label of every series but process_* */
	const char *topic, *cluster;
};
/** Everything, in Prometheus' text format 0.0.4. */
void metrics_print(FILE *f, const struct metrics_info *info);
/** Set what the kernel knows about this process. */
void metrics_process(void);

/** The reference, as Markdown, for docs/. */
void metrics_document(FILE *f);

/** For tests: everything as at the start. */
void metrics_reset(void);

#endif
