/*
 * One instance of a join.  Everything happens in one thread, one batch at a time;
 * behind each step stands what a crash after it leaves.
 *
 *   1. The group assigns partitions (join_stream.h).            Nothing.
 *   2. init_transactions with this instance's own id.           Nothing; what a dead
 *      process of the same id had left open is aborted.
 *   3. Stable committed offsets are read; reading begins there. Nothing.
 *   4. Records are collected, read committed, until the stream
 *      runs dry or the batch is full.                           They are read again.
 *   5. Where asked for: wait until the table has got as far as
 *      the records want it, join.wait.ms at most.               The same.
 *   6. A state of the table is held, newer than all of that.    The same.
 *   7. begin; send_offsets with the generation of 1.            An open transaction,
 *                                                               which 2 of the next start
 *                                                               or its timeout aborts.
 *   8. Look up and produce, record by record.  Where the
 *      state outlives the lease, a newer one is taken: each
 *      result names the state that it is from.                  Still open, aborted.
 *   9. commit.                                                  Results and offsets, or
 *                                                               neither.
 *
 * Rebalances come out of step 4 alone, so no transaction is open in one: the
 * batch is dropped, the revoke acknowledged.  A transaction that is slow, or
 * a process that was stopped, may outlive the membership; then
 *   - step 7 is refused (generation), and the transaction aborted; or
 *   - step 7 came in time, and 9 is still allowed: the new owner waits for its
 *     end in 3, because the offsets are not stable before.
 * Two fences, then: the generation for each commit, and the transactional id for
 * what a dead instance left open.  The id is the instance's, kept over restarts:
 * a restart ends at once what it finds, where a new one would leave that to the
 * transaction's timeout, and the partitions to wait as long.
 *
 * After any unclear outcome of 8, 9 or an abort (txn.h): a new producer, 2 and 3.
 * After a clean abort: back to the positions of the last commit, and 4.
 *
 * The join holds no state of its own: all there is to know after a crash is what
 * is committed.  It writes nothing but the output topic and the group's offsets.
 */
#include "join.h"
#include "cmd.h"
#include "join_batch.h"
#include "join_setup.h"
#include "join_stream.h"
#include "log.h"
#include "txn.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	BATCH_BYTES = 8 << 20,
	OFFSETS_ONLY_MS = 1000, /* at most this often without results */
	ANSWER_MS = 3000,
	RETRY_MS = 200,
	FENCED_MS = 500,
	DENIED_MS = 5000,
	SAY_MS = 10000,  /* between lines about the same trouble */
	TELL_MS = 60000, /* between lines about the work done */
	LOOK_MS = 5000,  /* between looks whether the table's sidecar is there */
	FENCED_MAX = 3,  /* within FENCED_WITHIN_MS: no accident */
	FENCED_WITHIN_MS = 120000,
	/* of librdkafka's message.max.bytes */
	MESSAGE_BYTES_MIN = 1000,
	MESSAGE_BYTES_MAX = 1000000000,
};

struct join {
	const struct join_config *c;
	const atomic_bool *stop;
	struct join_setup setup;
	struct join_client producer;
	struct stream *stream;
	struct txn txn;
	struct join_batch batch;

	struct join_counts done; /* since the last line */
	uint64_t done_total;
	int64_t began_ms, told_ms, said_ms, denied_ms, committed_ms, looked_ms;
	bool is_old; /* the table, and it was said */
	int64_t fenced_ms[FENCED_MAX];
	int64_t fenced_n;
	char err[400];
	int code; /* once `ended` */
	bool ended;
};

static bool stopping(void *opaque)
{
	const struct join *j = opaque;

	return j->ended || atomic_load(j->stop);
}

/* End the join with one line. */
__attribute__((format(printf, 4, 5))) static void end(struct join *j, int code, const char *id,
						      const char *fmt, ...)
{
	char text[1000];
	va_list ap;

	if (j->ended)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_error(id, "%s", text);
	j->ended = true;
	j->code = code;
}

int64_t join_call_ms(const struct join *j) { return txn_call_ms(&j->txn); }

/* ---- one transaction ---- */

static void took_effect(struct join *j)
{
	stream_advance(j->stream);
	join_counts_add(&j->done, &j->batch.counts);
	j->done_total += j->batch.counts.records;
	j->committed_ms = kafka_now_ms();
	if (j->said_ms)
		log_info(NULL, "joining to %s again", j->c->output_topic);
	j->said_ms = 0;
}

/* What failed while results were made: the table, or a result that cannot be written. */
static enum txn_verdict batch_failed(struct join *j, int failed)
{
	const char *dir = j->c->state_dir, *text = sstate_strerror(failed);

	switch (failed) {
	case -EINTR:
		break;
	case JOIN_TOO_LARGE:
		end(j, EXIT_USAGE, "SN-JOIN-TOO-LARGE", "%s", j->batch.err);
		break;
	case -EBADMSG:
		end(j, EXIT_BROKEN, "SN-JOIN-TABLE-DAMAGED",
		    "table %s: %s; nothing wrong was joined; start again when its sidecar has made "
		    "a new one",
		    dir, text);
		break;
	case SSTATE_FORMAT:
		end(j, EXIT_USAGE, "SN-JOIN-TABLE-FORMAT", "table %s: %s", dir, text);
		break;
	case -ENOMEM:
		end(j, EXIT_NOT_READY, "SN-MEMORY", "out of memory");
		break;
	default: /* kept from running, again and again: it may be better later */
		snprintf(j->txn.why, sizeof(j->txn.why), "table %s: %s", dir, text);
		return TXN_RETRY;
	}
	return TXN_STOPPED;
}

/* Steps 7 to 9. */
static enum txn_verdict transact(struct join *j, const rd_kafka_topic_partition_list_t *offsets)
{
	const struct placing placing = { j->setup.stream_partitions, j->setup.output_partitions };
	enum txn_verdict v = txn_begin(&j->txn, offsets, stream_group(j->stream));
	bool committed;

	if (v != TXN_OK)
		return v;
	j->began_ms = kafka_now_ms();
	v = join_batch_produce(&j->batch, &j->txn, &placing);
	if (j->batch.failed)
		v = batch_failed(j, j->batch.failed);
	v = txn_end(&j->txn, v, &committed);
	if (committed)
		took_effect(j);
	return v;
}

/* Steps 5 to 9; of offsets alone, where there are no records. */
static enum txn_verdict join_records(struct join *j, const rd_kafka_topic_partition_list_t *offsets)
{
	size_t n;
	rd_kafka_message_t *const *m = stream_records(j->stream, &n);
	int rc = join_batch_begin(&j->batch, m, n, stopping, j);
	enum txn_verdict v = rc ? batch_failed(j, rc) : transact(j, offsets);

	join_batch_end(&j->batch);
	return v;
}

/* A first start: from here on every partition has an offset. */
static enum txn_verdict commit_first(struct join *j)
{
	enum txn_verdict v = txn_begin(&j->txn, stream_first(j->stream), stream_group(j->stream));
	bool committed;

	if (v != TXN_OK)
		return v;
	j->began_ms = kafka_now_ms();
	v = txn_end(&j->txn, TXN_OK, &committed);
	if (committed)
		log_info(NULL, "first start: joining %s from its %s", j->c->stream_topic,
			 j->c->start == START_BEGINNING ? "beginning" : "present end");
	return v;
}

/*
 * No offsets at all, and results in the output: this is not a first start, but a
 * group that was deleted or has expired, or a stream topic that was.
 */
static bool is_first_start(struct join *j)
{
	const char *topic = j->c->output_topic;
	int64_t low, high;

	for (int p = 0; p < j->setup.output_partitions; p++) {
		if (kafka_watermarks(j->setup.query, topic, p, ANSWER_MS, &low, &high, j->err,
				     sizeof(j->err)))
			return false; /* asked again */
		if (high == 0)
			continue;
		end(j, EXIT_BROKEN, "SN-JOIN-OFFSETS-LOST",
		    "group sidenote-join.%s has no offsets for %s, but %s is not empty: to go on, "
		    "set them (kafka-consumer-groups.sh --reset-offsets); to begin anew, use "
		    "another output topic",
		    j->c->name, j->c->stream_topic, topic);
		return false;
	}
	return true;
}

/* ---- what a verdict leads to ---- */

static void say_failing(struct join *j)
{
	int64_t now = kafka_now_ms();

	if (stopping(j) || (j->said_ms && now - j->said_ms < SAY_MS))
		return;
	j->said_ms = now;
	log_warn("SN-JOIN-FAILING", "joining to %s: %s; trying again, nothing is lost",
		 j->c->output_topic, j->txn.why);
}

static void say_denied(struct join *j, const char *what)
{
	int64_t now = kafka_now_ms();

	if (j->denied_ms && now - j->denied_ms < SAY_MS)
		return;
	j->denied_ms = now;
	log_error("SN-JOIN-DENIED", "%s; docs/join.md lists all rights; trying again", what);
}

/* What a transaction lacks.  The stream says itself what it may not do. */
static void say_txn_denied(struct join *j)
{
	char id[300], right[400], text[800];

	snprintf(id, sizeof(id), "sidenote-join.%s/%s", j->c->name, j->c->instance_id);
	if (txn_missing_right(&j->txn, j->c->output_topic, NULL, id, right, sizeof(right)))
		snprintf(text, sizeof(text), "%s; grant %s", j->txn.why, right);
	else if (j->txn.denied_offsets)
		snprintf(text, sizeof(text), "%s; grant Read on topic %s", j->txn.why,
			 j->c->stream_topic);
	else
		snprintf(text, sizeof(text), "%s; grant Read on group sidenote-join.%s", j->txn.why,
			 j->c->name);
	say_denied(j, text);
}

/* A transaction that timed out looks like a successor; one that was too young for that, again and
 * again, has another process behind it. */
static void take_fenced(struct join *j)
{
	int64_t now = kafka_now_ms(), oldest = j->fenced_ms[j->fenced_n % FENCED_MAX];

	if (now - j->began_ms >= JOIN_TRANSACTION_MS)
		return;
	j->fenced_ms[j->fenced_n++ % FENCED_MAX] = now;
	if (j->fenced_n <= FENCED_MAX || now - oldest > FENCED_WITHIN_MS)
		return;
	end(j, EXIT_USAGE, "SN-JOIN-FENCED",
	    "another process uses transactional id sidenote-join.%s/%s: give every instance a "
	    "join.instance.id of its own",
	    j->c->name, j->c->instance_id);
}

/* The topic's limit was lowered, or a proxy has one of its own: believe less. */
static void believe_less(struct join *j)
{
	size_t *max = &j->batch.envelope.o.max_bytes;

	if (*max <= MESSAGE_BYTES_MIN) {
		end(j, EXIT_USAGE, "SN-JOIN-TOO-LARGE",
		    "%s refuses messages of %d bytes: set max.message.bytes there and start again",
		    j->c->output_topic, MESSAGE_BYTES_MIN);
		return;
	}
	*max -= *max / 8;
	if (*max < MESSAGE_BYTES_MIN)
		*max = MESSAGE_BYTES_MIN;
	log_warn("SN-JOIN-LIMIT",
		 "%s takes smaller messages than its max.message.bytes said: trying with %zu bytes",
		 j->c->output_topic, *max);
}

static void act_on(struct join *j, enum txn_verdict v)
{
	int rest_ms = RETRY_MS;

	if (v == TXN_OK)
		return;
	if (v == TXN_RETRY) { /* aborted cleanly: the same producer goes on */
		say_failing(j);
		stream_rewind(j->stream, RETRY_MS);
		return;
	}
	if (v == TXN_REFUSED)
		end(j, EXIT_USAGE, "SN-KAFKA-CONFIG", "%s", j->txn.why);
	else if (v == TXN_TOO_LARGE)
		believe_less(j);
	else if (v == TXN_FENCED)
		take_fenced(j);
	else if (v == TXN_DENIED)
		say_txn_denied(j);
	else if (v == TXN_REOPEN)
		say_failing(j);
	if (v == TXN_FENCED || v == TXN_DENIED)
		rest_ms = v == TXN_FENCED ? FENCED_MS : DENIED_MS;
	txn_close(&j->txn);
	stream_forget(j->stream, rest_ms);
}

/* ---- the loop ---- */

static enum txn_verdict open_producer(struct join *j)
{
	int n = kafka_partitions(j->setup.query, j->c->output_topic, ANSWER_MS, j->err,
				 sizeof(j->err));

	if (n > 0)
		j->setup.output_partitions = n;
	return txn_open(&j->txn, &j->producer.config, j->c->output_topic,
			(int64_t)j->batch.envelope.o.max_bytes);
}

static void end_stream(struct join *j, int rc)
{
	switch (rc) {
	case STREAM_OUTSIDE:
		end(j, EXIT_BROKEN, "SN-JOIN-OUTSIDE",
		    "%s: the position to read on from is not in the log: records were deleted "
		    "before they were joined, or the topic was recreated; set the offsets of group "
		    "sidenote-join.%s (kafka-consumer-groups.sh --reset-offsets)",
		    j->err, j->c->name);
		break;
	case STREAM_CORRUPT:
		end(j, EXIT_BROKEN, "SN-JOIN-STREAM-CORRUPT",
		    "%s: the broker's copy is damaged; reading on would skip records", j->err);
		break;
	case STREAM_GONE:
		end(j, EXIT_BROKEN, "SN-JOIN-STREAM-GONE", "%s", j->err);
		break;
	case STREAM_REFUSED:
		end(j, EXIT_USAGE, "SN-KAFKA-CONFIG", "%s", j->err);
		break;
	default:
		end(j, EXIT_NOT_READY, "SN-MEMORY", "out of memory");
	}
}

/* Whether there is anything to read from. */
static bool take_positions(struct join *j)
{
	int rc;

	if (!stream_is_lost(j->stream) || stream_rests(j->stream))
		return true;
	rc = stream_take_positions(j->stream, j->err, sizeof(j->err));
	if (rc == STREAM_FIRST) {
		if (is_first_start(j))
			act_on(j, commit_first(j));
	} else if (rc == STREAM_DENIED) {
		say_denied(j, j->err);
	} else if (rc && rc != STREAM_WAIT) {
		end_stream(j, rc);
	}
	return !j->ended;
}

/* Producer and positions; false: there is nothing to do yet. */
static bool prepare(struct join *j)
{
	if (!stream_is_member(j->stream))
		return true; /* polling is what there is to do */
	if (!txn_is_open(&j->txn) && !stream_rests(j->stream)) {
		enum txn_verdict v = open_producer(j);
		act_on(j, v);
		if (v != TXN_OK)
			return false;
	}
	return take_positions(j);
}

static void join_batch(struct join *j)
{
	rd_kafka_topic_partition_list_t *offsets = stream_offsets(j->stream);
	size_t n;

	stream_records(j->stream, &n);
	if (!offsets)
		return;
	if (n || kafka_now_ms() - j->committed_ms >= OFFSETS_ONLY_MS)
		act_on(j, join_records(j, offsets));
	rd_kafka_topic_partition_list_destroy(offsets);
}

static void step(struct join *j)
{
	const struct stream_bounds b = { .records = (size_t)j->c->batch_records,
					 .bytes = BATCH_BYTES,
					 .ms = (int)j->c->batch_ms };
	int rc;

	if (!prepare(j))
		return;
	rc = stream_collect(j->stream, &b, j->err, sizeof(j->err));
	if (rc == STREAM_MOVED) {
		int n = kafka_partitions(j->setup.query, j->c->stream_topic, ANSWER_MS, j->err,
					 sizeof(j->err));
		if (n > 0)
			j->setup.stream_partitions = n;
	} else if (rc == STREAM_DENIED) {
		say_denied(j, j->err);
	} else if (rc) {
		end_stream(j, rc);
	} else if (txn_is_open(&j->txn)) {
		join_batch(j);
	}
}

/* ---- what it tells ---- */

static void look_at_table(struct join *j)
{
	int64_t now = kafka_now_ms(), age_ms;

	if (now - j->looked_ms < LOOK_MS)
		return;
	j->looked_ms = now;
	bool is_old = !table_is_ready(j->setup.table, &age_ms);
	if (is_old && !j->is_old)
		log_warn("SN-JOIN-TABLE-OLD",
			 "the sidecar of table %s is not caught up or does not run (last commit "
			 "%" PRId64 " ms ago): joining with the table as it is",
			 j->c->state_dir, age_ms);
	else if (!is_old && j->is_old)
		log_info(NULL, "the table is up to date again");
	j->is_old = is_old;
}

static void tell(struct join *j, bool last)
{
	const struct join_counts *d = &j->done;
	int64_t now = kafka_now_ms();

	if (!last && (now - j->told_ms < TELL_MS || !d->records))
		return;
	j->told_ms = now;
	log_info(NULL,
		 "%" PRIu64 " records: %" PRIu64 " results, %" PRIu64 " of them without a table "
		 "record; %" PRIu64 " dropped; values wrapped %" PRIu64 ", omitted %" PRIu64
		 "; waits late %" PRIu64 ", unreadable %" PRIu64 "; %" PRIu64 " records since the "
		 "start",
		 d->records, d->results, d->without, d->dropped, d->wrapped, d->omitted, d->late,
		 d->unreadable, j->done_total);
	j->done = (struct join_counts){ 0 };
}

/* ---- start and end ---- */

static int begin(struct join *j)
{
	const struct join_config *c = j->c;
	int64_t max = j->setup.max_message_bytes;
	int rc = join_client_init(&j->producer, c, JOIN_PRODUCER);

	if (max > MESSAGE_BYTES_MAX)
		max = MESSAGE_BYTES_MAX;
	if (max < MESSAGE_BYTES_MIN)
		max = MESSAGE_BYTES_MIN;
	rc = rc ? rc : join_batch_init(&j->batch, c, j->setup.table, j->setup.query, (size_t)max);
	if (rc)
		return STREAM_MEMORY;
	j->txn.who = "join";
	j->txn.stopping = stopping;
	j->txn.opaque = j;
	j->told_ms = kafka_now_ms();
	return stream_open(&j->stream, c, j->setup.query, j->err, sizeof(j->err));
}

int join_run(struct join *j)
{
	int rc;

	if (!join_setup(&j->setup, j->c, j->stop))
		return j->setup.code;
	rc = begin(j);
	if (rc)
		end_stream(j, rc);
	while (!stopping(j)) {
		step(j);
		look_at_table(j);
		tell(j, false);
	}
	if (j->done_total)
		tell(j, true);
	kafka_ending(j->ended ? j->code : EXIT_DONE);
	txn_close(&j->txn);
	stream_close(j->stream);
	j->stream = NULL;
	return j->ended ? j->code : EXIT_DONE;
}

int join_new(struct join **out, const struct join_config *c, const atomic_bool *stop)
{
	struct join *j = calloc(1, sizeof(*j));

	if (!j)
		return -ENOMEM;
	j->c = c;
	j->stop = stop;
	*out = j;
	return 0;
}

void join_free(struct join *j)
{
	if (!j)
		return;
	join_setup_free(&j->setup);
	join_client_free(&j->producer);
	join_batch_free(&j->batch);
	free(j);
}
