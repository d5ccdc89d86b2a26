/*
 * kafka.h - what all Kafka clients here share.  Private to sidecar/, and the
 * one header that shows librdkafka's types.
 *
 * Errors:    0 or a negative code of enum kafka_rc; err gets one line.
 * Ownership: what kafka_new() makes is freed by kafka_free(), which gives up
 *            waiting after a budget: a destroy that does not return ends the
 *            process (facts: rd_kafka_destroy() may hang for ever).
 * Threads:   as librdkafka: a handle may be used from several threads.
 */
#ifndef KAFKA_H
#define KAFKA_H

#include "config.h"

#include <librdkafka/rdkafka.h>
#include <stdatomic.h>

enum kafka_rc {
	KAFKA_UNREACHABLE = -1,  /* no answer in time: try again */
	KAFKA_DENIED = -2,       /* authentication or authorization */
	KAFKA_MISSING = -3,      /* no such topic */
	KAFKA_REFUSED = -4,      /* the configuration is wrong: trying again will not help */
	KAFKA_UNKNOWN = -5,      /* the broker (a mock, a proxy) does not answer this question */
	KAFKA_DENIED_GROUP = -6, /* authorization to the group */
};

/* KAFKA_PEEK sees committed offsets that a transaction holds open as they were before it. */
enum kafka_role {
	KAFKA_QUERY,
	KAFKA_PEEK,
	KAFKA_TAIL,
	KAFKA_FILL,
	KAFKA_OWNER,
	KAFKA_PUBLISH,
	KAFKA_TOOL,
	KAFKA_MIRROR,
	KAFKA_FRONTIER
};

/* What one handle counts; lives as long as the handle's user. */
struct kafka_counts {
	atomic_int end_txn;           /* EndTxn requests sent */
	atomic_int txn_offset_commit; /* TxnOffsetCommit requests sent */
	atomic_int auth_failed;       /* authentication failures reported */
	atomic_int undelivered;       /* why the first message was not; 0: none */
	atomic_int topic_missing;     /* the brokers said that a topic or partition is not there */
};

struct kafka_hooks {
	struct kafka_counts *counts; /* may be NULL */
	void (*rebalance)(rd_kafka_t *rk, rd_kafka_resp_err_t err,
			  rd_kafka_topic_partition_list_t *parts, void *opaque);
	void *opaque;              /* must be given whenever rebalance is */
	int64_t max_message_bytes; /* of the notification topic, KAFKA_PUBLISH only; 0: default */
};

/** A client of one role: settings of the role, then the user's, then what exactness owns. */
rd_kafka_t *kafka_new(const struct config *c, enum kafka_role role, const struct kafka_hooks *h,
		      char *err, size_t err_len);
/** Leave the group; calls back for the revoke, in another thread while this one waits. */
void kafka_leave(rd_kafka_t *rk);
/** Destroy; NULL is allowed.  Ends the process when that takes longer than 10 s. */
void kafka_free(rd_kafka_t *rk);
/** The process is about to end with this code: a client that does not close changes nothing. */
void kafka_ending(int code);

/** "sidenote.<name>", as group and transactional id. */
void kafka_group_id(const struct config *c, char *out, size_t len);

/** Cluster id in out, "" where the broker tells none. */
int kafka_cluster_id(rd_kafka_t *rk, int timeout_ms, char *out, size_t len, char *err,
		     size_t err_len);
/** Number of partitions, or a negative code: KAFKA_MISSING etc. */
int kafka_partitions(rd_kafka_t *rk, const char *topic, int timeout_ms, char *err, size_t err_len);
/** First and next offset of a partition, as a read-committed reader sees them. */
int kafka_watermarks(rd_kafka_t *rk, const char *topic, int32_t p, int timeout_ms, int64_t *low,
		     int64_t *high, char *err, size_t err_len);

/** Each setting of a topic through DescribeConfigs; KAFKA_UNKNOWN where nobody answers. */
int kafka_topic_config(rd_kafka_t *rk, const char *topic, int timeout_ms,
		       void (*each)(void *opaque, const char *name, const char *value),
		       void *opaque, char *err, size_t err_len);
/** Create a topic; kv: name, value, ..., NULL.  Existing already is fine. */
int kafka_topic_create(rd_kafka_t *rk, const char *topic, int partitions, const char *const *kv,
		       int timeout_ms, char *err, size_t err_len);

/* A committed offset with its metadata; offset -1: none. */
struct kafka_committed {
	int64_t offset;
	char metadata[256];
};
/**
 * Committed offsets of the group for partitions 0..n-1 of the source topic:
 * stable ones with KAFKA_QUERY, which waits for open transactions; with
 * KAFKA_PEEK perhaps older ones, at once.
 */
int kafka_committed(rd_kafka_t *rk, const char *topic, int n, int timeout_ms,
		    struct kafka_committed *out, char *err, size_t err_len);
/** How many members the group has now, or a negative code. */
int kafka_group_members(rd_kafka_t *rk, const char *group, int timeout_ms, char *err,
			size_t err_len);

/** Generation of group metadata; -1: not a member, must never commit. */
int32_t kafka_generation(const rd_kafka_consumer_group_metadata_t *g);

/** Milliseconds of a clock that never jumps; and of the wall clock. */
int64_t kafka_now_ms(void);
int64_t kafka_wall_ms(void);

#endif
