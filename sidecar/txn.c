#include "txn.h"
#include "fault.h"
#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	CALL_MS = 1000,           /* one attempt of a call */
	COMMIT_BUDGET_MS = 60000, /* then the outcome is unclear */
	METADATA_MS = 5000,
	FULL_MS = 10,
	STEP_BACK_MS = 3600 * 1000, /* brokers refuse what is more than an hour ahead of them */
	STEP_BACK_MOST_MS = 64 * STEP_BACK_MS,
	JUMP_MS = 60 * 1000,
};

static void call_begin(struct txn *t) { atomic_store(&t->call_began_ms, kafka_now_ms()); }
static void call_end(struct txn *t) { atomic_store(&t->call_began_ms, 0); }

int64_t txn_call_ms(const struct txn *t)
{
	int64_t began = atomic_load(&t->call_began_ms);

	return began ? kafka_now_ms() - began : 0;
}

/* ---- what an error of librdkafka means ---- */

static enum txn_verdict verdict_of(const rd_kafka_error_t *e)
{
	switch (rd_kafka_error_code(e)) { /* the code first: flags are not always consistent */
	case RD_KAFKA_RESP_ERR__FENCED:
	case RD_KAFKA_RESP_ERR_PRODUCER_FENCED:
	case RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH:
		return TXN_FENCED;
	case RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION:
	case RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID:
	case RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
	case RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS:
		return TXN_NOT_MEMBER;
	case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
	case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
		return rd_kafka_error_is_fatal(e) ? TXN_REOPEN : TXN_TOO_LARGE;
	case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
	case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
	case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
	case RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
		return TXN_DENIED;
	case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP: /* its sequence numbers are not taken any more */
		return TXN_REOPEN;
	default:
		break;
	}
	if (rd_kafka_error_is_fatal(e))
		return TXN_REOPEN;
	return rd_kafka_error_txn_requires_abort(e) || rd_kafka_error_is_retriable(e) ? TXN_RETRY
										      : TXN_REOPEN;
}

/* ---- the time of a message ---- */

/* How far this host's wall clock is ahead of the one that nobody can set. */
static int64_t wall_ahead_ms(void) { return kafka_wall_ms() - kafka_now_ms(); }

/*
 * The broker does not take our clock's time.  Nothing else depends on that clock, so an earlier
 * time is better than no message until somebody sets it: by twice as much each time.  Too early
 * may be refused, too: then from the front again.
 */
static void step_back(struct txn *t)
{
	int64_t next = t->back_ms ? 2 * t->back_ms : STEP_BACK_MS;

	t->back_ms = next <= STEP_BACK_MOST_MS ? next : 0;
	t->back_at_ms = wall_ahead_ms();
	log_warn("SN-CLOCK",
		 "%s: the broker refuses the time of this host's clock (%s); messages are stamped "
		 "%d h earlier",
		 t->who, t->why, (int)(t->back_ms / STEP_BACK_MS));
}

/* In ms since 1970; 0: librdkafka's choice, which is the wall clock. */
static int64_t time_of_message(struct txn *t)
{
	if (!t->back_ms)
		return 0;
	if (llabs(wall_ahead_ms() - t->back_at_ms) > JUMP_MS) { /* somebody has set it */
		t->back_ms = 0;
		return 0;
	}
	return kafka_wall_ms() - t->back_ms;
}

/* One topic's name may be part of the other's: then the longer one is meant. */
static int topic_named(const struct txn *t)
{
	if (!t->also)
		return DENIED_TARGET;
	const char *target = rd_kafka_topic_name(t->topic), *also = rd_kafka_topic_name(t->also);
	bool is_target = strstr(t->why, target), is_also = strstr(t->why, also);

	if (is_also && (!is_target || strlen(also) > strlen(target)))
		return DENIED_ALSO;
	return is_target ? DENIED_TARGET : DENIED_EITHER;
}

static enum txn_verdict take_error(struct txn *t, rd_kafka_error_t *e, const char *where)
{
	enum txn_verdict v = verdict_of(e);

	snprintf(t->why, sizeof(t->why), "%s: %s: %s", where, rd_kafka_error_name(e),
		 rd_kafka_error_string(e));
	log_info(NULL, "%s: %s", t->who, t->why);
	t->code = rd_kafka_error_code(e);
	if (v == TXN_DENIED) {
		t->denied = t->code;
		/* TxnOffsetCommit is about the source, all other requests about the targets */
		t->denied_offsets = strstr(t->why, "commit offsets") != NULL;
		t->denied_topic = topic_named(t);
	}
	if (t->code == RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP)
		step_back(t);
	rd_kafka_error_destroy(e);
	return v;
}

bool txn_missing_right(const struct txn *t, const char *target, const char *also, const char *id,
		       char *out, size_t len)
{
	switch (t->denied) {
	case RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
		snprintf(out, len, "Write on transactional-id %s", id);
		return true;
	case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
		snprintf(out, len, "IdempotentWrite on the cluster");
		return true;
	case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		if (t->denied_topic == DENIED_EITHER)
			snprintf(out, len, "Write on topic %s or %s, whichever lacks it", target,
				 also);
		else
			snprintf(out, len, "Write on topic %s",
				 t->denied_topic == DENIED_ALSO ? also : target);
		return !t->denied_offsets;
	default:
		return false;
	}
}

/* ---- open and close ---- */

static enum txn_verdict init(struct txn *t)
{
	for (;;) {
		if (t->stopping(t->opaque))
			return TXN_STOPPED;
		FAULT_POINT("txn.init");
		call_begin(t);
		rd_kafka_error_t *e = rd_kafka_init_transactions(t->rk, CALL_MS);
		call_end(t);
		if (!e)
			return TXN_OK;
		if (!rd_kafka_error_is_retriable(e)) {
			enum txn_verdict v = take_error(t, e, "init");
			return v == TXN_RETRY ? TXN_REOPEN : v;
		}
		snprintf(t->why, sizeof(t->why), "init: %s", rd_kafka_error_string(e));
		rd_kafka_error_destroy(e);
		if (t->waiting)
			t->waiting(t->opaque);
	}
}

static rd_kafka_topic_t *open_topic(struct txn *t, const char *name)
{
	rd_kafka_topic_t *topic = rd_kafka_topic_new(t->rk, name, NULL);
	const struct rd_kafka_metadata *md;

	/* the first produce to a topic nobody asked about waits up to a second (before 2.10.1) */
	if (topic && !rd_kafka_metadata(t->rk, 0, topic, &md, METADATA_MS))
		rd_kafka_metadata_destroy(md);
	return topic;
}

enum txn_verdict txn_open(struct txn *t, const struct config *c, const char *topic,
			  int64_t max_message_bytes)
{
	enum txn_verdict v;

	t->hooks = (struct kafka_hooks){ .counts = &t->counts,
					 .max_message_bytes = max_message_bytes };
	FAULT_POINT("txn.open");
	t->rk = kafka_new(c, KAFKA_PUBLISH, &t->hooks, t->why, sizeof(t->why));
	if (!t->rk)
		return TXN_REFUSED;
	t->why[0] = '\0'; /* of properties that some versions lack */
	v = init(t);
	if (v != TXN_OK)
		return v;
	FAULT_POINT("txn.inited");
	t->topic = open_topic(t, topic);
	return t->topic ? TXN_OK : TXN_REOPEN;
}

enum txn_verdict txn_open_also(struct txn *t, const char *topic)
{
	t->also = open_topic(t, topic);
	return t->also ? TXN_OK : TXN_REOPEN;
}

void txn_close(struct txn *t)
{
	if (t->topic)
		rd_kafka_topic_destroy(t->topic);
	if (t->also)
		rd_kafka_topic_destroy(t->also);
	t->topic = t->also = NULL;
	kafka_free(t->rk);
	t->rk = NULL;
}

/* ---- one transaction ---- */

/* The transaction has failed of a message before; 0: of none that is known yet. */
static rd_kafka_resp_err_t failed_of(struct txn *t)
{
	rd_kafka_poll(t->rk, 0);
	return (rd_kafka_resp_err_t)atomic_load(&t->counts.undelivered);
}

static enum txn_verdict produce(struct txn *t, rd_kafka_topic_t *topic, int32_t partition,
				const void *key, size_t key_len, const void *value,
				size_t value_len, rd_kafka_headers_t *headers)
{
	rd_kafka_resp_err_t e;

	/* a full queue that is not polled stays full: delivery reports empty it */
	while ((e = rd_kafka_producev(
			t->rk, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_PARTITION(partition),
			RD_KAFKA_V_KEY(key, key_len), RD_KAFKA_V_VALUE((void *)value, value_len),
			RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
			RD_KAFKA_V_TIMESTAMP(time_of_message(t)), RD_KAFKA_V_END)) ==
		       RD_KAFKA_RESP_ERR__QUEUE_FULL &&
	       !t->stopping(t->opaque))
		rd_kafka_poll(t->rk, FULL_MS);
	if (!e)
		return TXN_OK;
	if (headers)
		rd_kafka_headers_destroy(headers);
	if (e == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)
		return TXN_TOO_LARGE;
	rd_kafka_resp_err_t before = e == RD_KAFKA_RESP_ERR__STATE ? failed_of(t) : 0;
	if (before)
		return take_error(t,
				  rd_kafka_error_new(before, "to %s: %s",
						     rd_kafka_topic_name(topic),
						     rd_kafka_err2str(before)),
				  "produce");
	snprintf(t->why, sizeof(t->why), "produce to %s: %s", rd_kafka_topic_name(topic),
		 rd_kafka_err2str(e));
	if (e == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) { /* known from its metadata */
		t->denied = t->code = e;
		t->denied_offsets = false;
		t->denied_topic = topic == t->also ? DENIED_ALSO : DENIED_TARGET;
		return TXN_DENIED;
	}
	return t->stopping(t->opaque) ? TXN_STOPPED : TXN_RETRY;
}

enum txn_verdict txn_produce(struct txn *t, int32_t partition, const void *key, size_t key_len,
			     const void *value, size_t value_len, rd_kafka_headers_t *headers)
{
	return produce(t, t->topic, partition, key, key_len, value, value_len, headers);
}

enum txn_verdict txn_produce_also(struct txn *t, int32_t partition, const void *key, size_t key_len,
				  const void *value, size_t value_len, rd_kafka_headers_t *headers)
{
	return produce(t, t->also, partition, key, key_len, value, value_len, headers);
}

enum txn_verdict txn_flush(struct txn *t)
{
	call_begin(t);
	rd_kafka_resp_err_t e = rd_kafka_flush(t->rk, CALL_MS);
	call_end(t);
	return e && t->stopping(t->opaque) ? TXN_STOPPED : TXN_OK;
}

static enum txn_verdict send_offsets(struct txn *t, const rd_kafka_topic_partition_list_t *offsets,
				     const rd_kafka_consumer_group_metadata_t *group)
{
	int sent = atomic_load(&t->counts.txn_offset_commit);
	enum txn_verdict v = TXN_OK;

	call_begin(t);
	rd_kafka_error_t *e =
		rd_kafka_send_offsets_to_transaction(t->rk, offsets, group, 10 * CALL_MS);
	call_end(t);
	sent = atomic_load(&t->counts.txn_offset_commit) - sent;
	if (e) {
		/* what timed out may still arrive */
		bool timed_out = rd_kafka_error_code(e) == RD_KAFKA_RESP_ERR__TIMED_OUT ||
				 rd_kafka_error_is_retriable(e);
		v = take_error(t, e, "send_offsets");
		if (timed_out && v == TXN_RETRY)
			v = TXN_REOPEN;
	}
	if (sent > 1 && (v == TXN_OK || v == TXN_RETRY)) {
		snprintf(t->why, sizeof(t->why), "TxnOffsetCommit was sent %d times", sent);
		log_info(NULL, "%s: %s: starting over", t->who, t->why);
		v = TXN_REOPEN;
	}
	return v;
}

/*
 * *unclear: an EndTxn may still be on its way, either a second one of a commit
 * that succeeded or any of one that failed.
 */
static enum txn_verdict commit(struct txn *t, bool *unclear)
{
	int64_t until = kafka_now_ms() + COMMIT_BUDGET_MS;
	int sent = atomic_load(&t->counts.end_txn);
	enum txn_verdict v = TXN_OK;

	for (;;) {
		call_begin(t);
		rd_kafka_error_t *e = rd_kafka_commit_transaction(t->rk, CALL_MS);
		call_end(t);
		if (!e)
			break;
		bool again =
			rd_kafka_error_is_retriable(e) && !rd_kafka_error_txn_requires_abort(e);
		if (again && kafka_now_ms() < until && !t->stopping(t->opaque)) {
			rd_kafka_error_destroy(e);
			continue;
		}
		v = take_error(t, e, "commit");
		if (again) /* it can neither be awaited nor aborted now: who knows */
			v = TXN_REOPEN;
		break;
	}
	sent = atomic_load(&t->counts.end_txn) - sent;
	*unclear = sent > (v == TXN_OK ? 1 : 0);
	return v;
}

/* After a failure inside a transaction.  An abort that is not plain makes it unclear. */
static enum txn_verdict abort_because(struct txn *t, enum txn_verdict why)
{
	int sent = atomic_load(&t->counts.end_txn);

	if (why == TXN_FENCED || why == TXN_REOPEN)
		return why;
	FAULT_POINT("txn.abort");
	call_begin(t);
	rd_kafka_error_t *e = rd_kafka_abort_transaction(t->rk, 2 * CALL_MS);
	call_end(t);
	if (e) {
		enum txn_verdict v = take_error(t, e, "abort");
		return v == TXN_FENCED ? TXN_FENCED : why == TXN_RETRY ? TXN_REOPEN : why;
	}
	if (atomic_load(&t->counts.end_txn) - sent > 1 && why == TXN_RETRY)
		return TXN_REOPEN;
	return why;
}

enum txn_verdict txn_begin(struct txn *t, const rd_kafka_topic_partition_list_t *offsets,
			   const rd_kafka_consumer_group_metadata_t *group)
{
	atomic_store(&t->counts.undelivered, 0);
	rd_kafka_error_t *e = rd_kafka_begin_transaction(t->rk);

	if (e)
		return take_error(t, e, "begin") == TXN_FENCED ? TXN_FENCED : TXN_REOPEN;
	FAULT_POINT("txn.offsets");
	enum txn_verdict v = send_offsets(t, offsets, group);
	return v == TXN_OK ? v : abort_because(t, v);
}

enum txn_verdict txn_end(struct txn *t, enum txn_verdict so_far, bool *committed)
{
	bool unclear = false;

	*committed = false;
	if (so_far != TXN_OK)
		return abort_because(t, so_far);
	FAULT_POINT("txn.commit");
	enum txn_verdict v = commit(t, &unclear);
	FAULT_POINT("txn.committed");
	*committed = v == TXN_OK;
	if (v != TXN_OK && !unclear)
		return abort_because(t, v);
	if (unclear && (v == TXN_OK || v == TXN_RETRY)) {
		snprintf(t->why, sizeof(t->why), "an EndTxn may still be on its way");
		log_info(NULL, "%s: %s: starting over", t->who, t->why);
		v = TXN_REOPEN;
	}
	return v;
}
