/*
 * join_stream.h - this instance's part of the stream: a membership in the
 * group, positions, and batches of records.
 *
 * Who owns a partition, and from where it reads:
 *   1. ASSIGN brings partitions and, in the group's metadata, a generation.  It
 *      is acknowledged with an empty assignment: nothing is fetched yet.
 *   2. Committed offsets of the own partitions are read, stable ones only.  So a
 *      transaction of a former owner that holds one of them has ended: its
 *      results and its offset are both there or both not, and a later one of it
 *      is refused, its generation being over.
 *   3. Only then the partitions are assigned, at exactly these offsets.
 *   4. REVOKE drops the batch and every position before it is acknowledged.
 *      Callbacks come out of stream_collect() only, and the join has no
 *      transaction open when it calls that.
 *
 * No committed offset:
 *   - nobody has committed any: a first start.  The owner of partition 0 commits
 *     where all partitions begin, in one transaction; the others wait for it;
 *   - others have one: the partition was added to the topic, and is read from
 *     its beginning.
 *
 * Errors:    0 or enum stream_rc; err gets one line.
 * Ownership: records are the stream's, until the next call.
 * Threads:   one.
 */
#ifndef JOIN_STREAM_H
#define JOIN_STREAM_H

#include "join_config.h"
#include "kafka.h"

struct stream;

enum stream_rc {
	STREAM_WAIT = 1, /* positions are not known yet: call again soon */
	STREAM_FIRST,    /* a first start: commit stream_first(), then call again */
	STREAM_MOVED,    /* a rebalance: the batch is gone, positions have to be taken */
	STREAM_OUTSIDE,  /* a position is not in the log */
	STREAM_CORRUPT,  /* the broker's bytes are bad: reading on would skip records */
	STREAM_GONE,     /* the topic, or the group's offsets for it, were deleted */
	STREAM_DENIED,   /* no right: goes on, said to be so by the caller */
	STREAM_REFUSED,  /* a client could not be made */
	STREAM_MEMORY,
};

/** Make the clients; joins the group.  `query` is a JOIN_QUERY client, and outlives it. */
int stream_open(struct stream **out, const struct join_config *c, rd_kafka_t *query, char *err,
		size_t err_len);
/** Leaves the group.  NULL is allowed. */
void stream_close(struct stream *s);

/** Whether partitions are owned; their group metadata. */
bool stream_is_member(const struct stream *s);
const rd_kafka_consumer_group_metadata_t *stream_group(const struct stream *s);

/** Whether a position of an own partition is not known. */
bool stream_is_lost(const struct stream *s);
/** Take positions, and read from there.  STREAM_WAIT, STREAM_FIRST. */
int stream_take_positions(struct stream *s, char *err, size_t err_len);
/** Where all partitions of a first start begin; the stream's. */
const rd_kafka_topic_partition_list_t *stream_first(const struct stream *s);

struct stream_bounds {
	size_t records, bytes;
	int ms;
};
/**
 * Poll the group and collect records until the stream runs dry; waits for the
 * first one some time.  Has to be called often: it is what keeps the membership.
 */
int stream_collect(struct stream *s, const struct stream_bounds *b, char *err, size_t err_len);
rd_kafka_message_t *const *stream_records(const struct stream *s, size_t *n);

/** Offsets behind the batch, of partitions that move; NULL: none does.  The caller's. */
rd_kafka_topic_partition_list_t *stream_offsets(const struct stream *s);
/** The batch took effect: its offsets are committed. */
void stream_advance(struct stream *s);
/** Drop the batch, read nothing for `ms`, then again from the positions. */
void stream_rewind(struct stream *s, int ms);
/** The same, and forget the positions: what is committed is not known. */
void stream_forget(struct stream *s, int ms);
/** Whether such a rest is not over. */
bool stream_rests(const struct stream *s);

#endif
