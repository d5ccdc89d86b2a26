/*
 * broker.h - a model of Kafka: one source topic, one notification topic, one
 * group, one transactional id.
 *
 * Logs keep every record for the oracle; what compaction has removed is marked.
 * What is asked of the brokers takes effect in one call here, at the time a
 * request is delivered: rdkafka.c decides when, how often and whether.
 * Transactions follow facts of Kafka 4.3 with a client of the old protocol: an
 * EndTxn or TxnOffsetCommit that is late is applied to whatever is open then.
 */
#ifndef BROKER_H
#define BROKER_H

#include "sim.h"

#include <librdkafka/rdkafka.h>

enum entry_kind { ENTRY_DATA, ENTRY_CONTROL };
enum entry_state { ENTRY_OPEN, ENTRY_COMMITTED, ENTRY_ABORTED };

struct header {
	char name[40];
	void *value;
	size_t len;
};

struct entry {
	enum entry_kind kind;
	enum entry_state state;
	bool removed; /* by compaction */
	int64_t removed_at, appended_at;
	int64_t horizon; /* a tombstone may go after this; -1: no pass has seen it */
	int64_t timestamp_ms;
	void *key, *value; /* value NULL: a tombstone */
	size_t key_len, value_len;
	int id; /* of the source: the same for the same key of a partition */
	struct header *headers;
	int n_headers;
	/* of notifications */
	int64_t pid;
	int32_t epoch;
	int by; /* host */
};

enum { IDS_MAX = 4 * OFFSETS_MAX }; /* a hash table */

struct part {
	struct entry *v;
	int64_t *id_first; /* [IDS_MAX]: the first entry of each key, plus one; 0: none */
	int64_t n, cap;
	int64_t segment; /* where the active segment begins */
	int64_t open; /* transactions of the workload that are open: entries from here; -1: none */
	int64_t seq;  /* expected next, of (pid, epoch) */
	int64_t seq_pid;
	int32_t seq_epoch, epoch; /* epoch: the last that was seen */
	bool has_open;            /* data of the publisher's transaction */
};

extern struct part source[PARTITIONS_MAX], notes[PARTITIONS_MAX];
enum { SOURCE, NOTES };
struct part *part_of(int topic, int p);

struct offset {
	int64_t offset; /* -1: none */
	char metadata[200];
};

struct settings {
	int64_t delete_retention_ms, min_compaction_lag_ms, max_message_bytes;
	int64_t session_timeout_ms;
	/* The source has some.  Then offsets say less, and what the program takes for granted
	 * is so: nothing is removed within CLOSE_MS of tail.c. */
	bool transactions;
};
extern struct settings settings;
extern int64_t brokers_down_until;
/* A request of a producer goes wrong one time in so many; 0: never. */
extern int64_t trouble_one_in;
extern int64_t socket_timeout_us;

void broker_reset(void);
/** The last stable offset: what a read-committed reader sees as the end. */
int64_t log_stable_end(const struct part *l);
int64_t log_append(struct part *l, const void *key, size_t key_len, const void *value,
		   size_t value_len, enum entry_state state);
/** Append the marker, and decide the workload's open entries. */
void log_end_open(struct part *l, bool commit);
void log_roll(struct part *l);
/** One pass of the cleaner. */
void log_clean(struct part *l);
/** Somebody waits for records: wake with this. */
extern const char appended;

/* ---- the transaction coordinator ---- */

struct txn_request {
	int64_t pid;
	int32_t epoch;
	struct host *by;
	/* AddPartitionsToTxn, Produce */
	int part;
	/* Produce */
	int64_t seq;
	struct entry *messages;
	int n;
	/* TxnOffsetCommit */
	int32_t generation;
	char member[40];
	struct offset offsets[PARTITIONS_MAX]; /* offset -2: not in it */
	/* EndTxn */
	bool commit;
	/* InitProducerId */
	int64_t timeout_ms;
};

/* 0 or an error code of the protocol. */
rd_kafka_resp_err_t broker_init(struct txn_request *r); /* sets pid, epoch */
rd_kafka_resp_err_t broker_add_partition(const struct txn_request *r);
rd_kafka_resp_err_t broker_add_offsets(const struct txn_request *r);
rd_kafka_resp_err_t broker_produce(const struct txn_request *r);
rd_kafka_resp_err_t broker_offset_commit(const struct txn_request *r);
rd_kafka_resp_err_t broker_end(const struct txn_request *r);
bool broker_has_open_transaction(void);

/* ---- offsets and the group ---- */

/** `stable`: UNSTABLE_OFFSET_COMMIT while a transaction holds one open. */
rd_kafka_resp_err_t broker_offset(int p, bool stable, struct offset *out);

/** Ask to be a member; `member` "" gets a name.  Poll with broker_joined(). */
rd_kafka_resp_err_t broker_join(char member[40]);
/** 0: a member of *generation with the first *n partitions ...; _IN_PROGRESS: wait. */
rd_kafka_resp_err_t broker_joined(const char *member, int32_t *generation, bool *first);
rd_kafka_resp_err_t broker_heartbeat(const char *member, int32_t generation);
void broker_leave(const char *member);
int broker_members(void);

#endif
