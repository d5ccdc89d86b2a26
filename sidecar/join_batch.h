/*
 * join_batch.h - the records of a batch become results: what each looks up, what
 * it waits for, what comes out.
 *
 *   join_batch_init(&b, &config, table, query, max_bytes);
 *   rc = join_batch_begin(&b, records, n, stopping, opaque);    // steps 5 and 6 of join.c
 *   if (!rc) v = join_batch_produce(&b, &txn, placing);         // step 7
 *   join_batch_end(&b);
 *   join_batch_free(&b);
 *
 * Errors:    as its functions say; b->err has one line for a person.
 * Ownership: the records are the caller's, from _begin to _end.
 */
#ifndef JOIN_BATCH_H
#define JOIN_BATCH_H

#include "join_envelope.h"
#include "join_field.h"
#include "join_need.h"
#include "join_table.h"
#include "txn.h"

struct join_counts { /* of records */
	uint64_t records, results;
	uint64_t without;    /* results without a table record */
	uint64_t dropped;    /* no result: not in the table, and the join is an inner one */
	uint64_t wrapped;    /* values that were no JSON object */
	uint64_t omitted;    /* values left out, being too large */
	uint64_t late;       /* the table had not got there in time */
	uint64_t unreadable; /* what they wanted to wait for cannot be read */
};
void join_counts_add(struct join_counts *to, const struct join_counts *c);

struct join_batch {
	const struct join_config *c;
	struct table *table;
	rd_kafka_t *query;
	struct join_envelope envelope; /* envelope.o.max_bytes may be changed */
	struct field key, named;
	struct needs needs;
	int64_t *want; /* [want_n]: positions to wait for */
	size_t want_n;
	bool time_is_known; /* `want` is what the latest time of this batch means */
	int64_t said_ms;

	rd_kafka_message_t *const *m; /* [n] */
	size_t n;
	struct join_counts counts; /* of this batch */
	int failed;                /* with TXN_STOPPED: enum join_failure, or a code of the table */
	char err[500];
};

enum join_failure { JOIN_TOO_LARGE = 1 }; /* a result cannot fit: its key alone is too large */

/* Partitions of both topics: results go where their records were, if there are as many. */
struct placing {
	int stream_partitions, output_partitions;
};

/** 0 or -ENOMEM.  `query` answers what a time means. */
int join_batch_init(struct join_batch *b, const struct join_config *c, struct table *table,
		    rd_kafka_t *query, size_t max_bytes);
void join_batch_free(struct join_batch *b);

/**
 * Wait as the records want it, then hold a state of the table.  0, a code of
 * shared_state.h, or -EINTR: asked to stop while it waited.  join_batch_end() has
 * to follow in any case.
 */
int join_batch_begin(struct join_batch *b, rd_kafka_message_t *const *m, size_t n,
		     bool (*stopping)(void *), void *opaque);
/** Look up and produce.  TXN_STOPPED without being asked to: b->failed says why. */
enum txn_verdict join_batch_produce(struct join_batch *b, struct txn *t,
				    const struct placing *placing);
void join_batch_end(struct join_batch *b);

#endif
