/*
 * txn.h - a transactional producer: the steps of a transaction, and what each
 * outcome means.
 *
 *   v = txn_open(&t, config, "topic", max_bytes);          // init_transactions
 *   while (v == TXN_OK) {
 *           v = txn_begin(&t, offsets, group);
 *           ... v = txn_produce(&t, ...) ...
 *           v = txn_end(&t, v, &committed);
 *   }
 *   txn_close(&t);
 *
 * What makes it exact (design rule 6):
 *   1. Nothing is committed after offsets that were not acknowledged: a commit
 *      right after a send_offsets that timed out would succeed without them.
 *   2. librdkafka repeats requests silently, and a broker applies a late EndTxn
 *      or TxnOffsetCommit to the next transaction.  So both are counted as they
 *      are sent; where one more than the acknowledged one may be on its way, the
 *      outcome is TXN_REOPEN, even after a commit that succeeded.
 *   3. After TXN_REOPEN and TXN_FENCED only a new producer may go on: its init
 *      fences off what is late, then committed offsets are read again.
 *
 * Errors:    enum txn_verdict; t->why has the last error of a call, for a person.
 * Ownership: the caller's struct, zeroed but for who, stopping, waiting and
 *            opaque.
 * Threads:   one, except txn_call_ms().
 */
#ifndef TXN_H
#define TXN_H

#include "kafka.h"

enum txn_verdict {
	TXN_OK,
	TXN_STOPPED,    /* asked to; or the caller's own reason to abort and end */
	TXN_RETRY,      /* aborted cleanly: the same producer may begin again */
	TXN_NOT_MEMBER, /* the group has gone on without us */
	TXN_TOO_LARGE,  /* the broker takes smaller messages than believed */
	TXN_DENIED,
	TXN_REOPEN,  /* unclear or fatal */
	TXN_FENCED,  /* a successor, or the transaction timed out */
	TXN_REFUSED, /* of txn_open(): librdkafka does not take the configuration */
};

struct txn {
	const char *who; /* in the log */
	bool (*stopping)(void *opaque);
	void (*waiting)(void *opaque); /* NULL, or called while init has to be tried again */
	void *opaque;

	rd_kafka_t *rk;
	rd_kafka_topic_t *topic, *also;
	struct kafka_counts counts;
	struct kafka_hooks hooks;
	char why[300];
	rd_kafka_resp_err_t code;   /* of the same error */
	rd_kafka_resp_err_t denied; /* of the last that was a right's ... */
	bool denied_offsets;        /* ... which one to commit offsets lacked ... */
	/* ... or on which topic; librdkafka does not always say */
	enum { DENIED_TARGET, DENIED_ALSO, DENIED_EITHER } denied_topic;
	atomic_llong call_began_ms;
	int64_t back_ms;    /* how much earlier than it is messages are stamped ... */
	int64_t back_at_ms; /* ... since the wall clock was so far ahead of the steady one */
};

/** Make the producer and init it.  Whatever comes out, txn_close() has to follow. */
enum txn_verdict txn_open(struct txn *t, const struct config *c, const char *topic,
			  int64_t max_message_bytes);
void txn_close(struct txn *t);
static inline bool txn_is_open(const struct txn *t) { return t->rk; }

/** A second topic for the transactions of an open producer. */
enum txn_verdict txn_open_also(struct txn *t, const char *topic);

/**
 * Begin, and send the offsets as the member `group` describes.  Before anything else, for it
 * is AddOffsetsToTxn that waits for the end of the transaction before no longer than it
 * takes: librdkafka has AddPartitionsToTxn wait 20 ms at a time.  Only TXN_OK opens a transaction,
 * which txn_end() has to end.
 */
enum txn_verdict txn_begin(struct txn *t, const rd_kafka_topic_partition_list_t *offsets,
			   const rd_kafka_consumer_group_metadata_t *group);
/** Copies key and value; takes `headers` over (NULL: none).  Waits while the queue is full. */
enum txn_verdict txn_produce(struct txn *t, int32_t partition, const void *key, size_t key_len,
			     const void *value, size_t value_len, rd_kafka_headers_t *headers);
/** The same to the second topic. */
enum txn_verdict txn_produce_also(struct txn *t, int32_t partition, const void *key, size_t key_len,
				  const void *value, size_t value_len, rd_kafka_headers_t *headers);
/** Send what was produced and wait for the answers, some time at most; txn_end() tells what went
 * wrong. */
enum txn_verdict txn_flush(struct txn *t);
/**
 * End what txn_begin() began: with `so_far` == TXN_OK commit, else abort.  *committed: it has
 * taken effect, which can be so with TXN_REOPEN, too.
 */
enum txn_verdict txn_end(struct txn *t, enum txn_verdict so_far, bool *committed);

/** After TXN_DENIED: the right that is missing, for a person; false: one of who reads and follows. */
bool txn_missing_right(const struct txn *t, const char *target, const char *also, const char *id,
		       char *out, size_t len);

/** Milliseconds that the current call to Kafka has lasted; 0: none. */
int64_t txn_call_ms(const struct txn *t);

#endif
