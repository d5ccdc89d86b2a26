/*
 * rdkafka.c - what the program calls librdkafka for, over the model of Kafka.
 *
 * Calls, errors and their flags are those of librdkafka 2.0.2.  A producer and
 * a group member have a fiber each, as they have a thread there, so that what
 * an application gave up waiting for goes on.  Requests of a producer may be
 * lost, answered in vain, or come late, after they were repeated.
 */
#include "broker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
	CONF_MAX = 64,
	QUEUE_MAX = 4096,
	MESSAGES_MAX = 4000,
	LINGER_US = 5000,
	API_PRODUCE = 0,
	API_INIT = 22,
	API_ADD_PARTITIONS = 24,
	API_ADD_OFFSETS = 25,
	API_END_TXN = 26,
	API_TXN_OFFSET_COMMIT = 28,
};

/* ---- configuration ---- */

struct setting {
	char name[48], value[200];
};

struct rd_kafka_conf_s {
	struct setting v[CONF_MAX];
	int n;
	void *opaque;
	void (*log)(const rd_kafka_t *, int, const char *, const char *);
	void (*error)(rd_kafka_t *, int, const char *, void *);
	void (*delivered)(rd_kafka_t *, const rd_kafka_message_t *, void *);
	void (*rebalance)(rd_kafka_t *, rd_kafka_resp_err_t, rd_kafka_topic_partition_list_t *,
			  void *);
	rd_kafka_interceptor_f_on_new_t *on_new;
	void *on_new_opaque;
};

struct rd_kafka_consumer_group_metadata_s {
	int32_t generation;
	char member[40];
};

struct rd_kafka_error_s {
	rd_kafka_resp_err_t code;
	bool fatal, retriable, abort;
};

enum queued_kind { QUEUED_MESSAGE, QUEUED_EOF, QUEUED_RESET };
struct queued {
	enum queued_kind kind;
	int topic, p;
	int64_t offset;
};

struct fetched {
	bool assigned, paused;
	int64_t pos, eof_at;
};

enum op_kind { OP_NONE, OP_INIT, OP_OFFSETS, OP_COMMIT, OP_ABORT };

enum group_op { GROUP_NOTHING, GROUP_ASSIGN, GROUP_REVOKE };

struct rd_kafka_s {
	struct rd_kafka_conf_s conf;
	rd_kafka_type_t type;
	struct host *host;
	bool committed_only, tail;
	rd_kafka_interceptor_f_on_request_sent_t *on_sent;
	void *on_sent_opaque;

	/* consumer */
	struct fetched fetch[2][PARTITIONS_MAX];
	struct queued *queue;
	int queue_first, queue_n;

	/* group member */
	struct fiber *group_fiber;
	bool subscribed, closing, closed, owns_first;
	bool leaves; /* unsubscribed since it joined, whatever came after */
	enum group_op group_op;
	int32_t generation;
	char member[40];
	int64_t last_poll;

	/* producer */
	struct fiber *fiber;
	enum op_kind op;
	bool op_done;
	int64_t op_until;
	rd_kafka_error_t op_error; /* code 0: none */
	struct txn_request op_offsets;
	int64_t pid;
	int32_t epoch;
	bool in_txn, registered, needs_epoch;
	bool added[PARTITIONS_MAX];
	int64_t seq[PARTITIONS_MAX];
	rd_kafka_resp_err_t fatal, abortable;
	struct entry *unsent[PARTITIONS_MAX];
	int n_unsent[PARTITIONS_MAX];
	int64_t unsent_since;
};

struct rd_kafka_topic_s {
	rd_kafka_t *rk;
	int topic;
	char name[250];
};

struct rd_kafka_queue_s {
	rd_kafka_t *rk;
	bool admin, event;
};

static const char *setting(const struct rd_kafka_conf_s *c, const char *name)
{
	for (int i = 0; i < c->n; i++)
		if (!strcmp(c->v[i].name, name))
			return c->v[i].value;
	return "";
}

rd_kafka_conf_t *rd_kafka_conf_new(void) { return calloc(1, sizeof(rd_kafka_conf_t)); }
void rd_kafka_conf_destroy(rd_kafka_conf_t *c) { free(c); }

rd_kafka_conf_res_t rd_kafka_conf_set(rd_kafka_conf_t *c, const char *name, const char *value,
				      char *err, size_t err_len)
{
	int i = 0;

	(void)err, (void)err_len;
	while (i < c->n && strcmp(c->v[i].name, name))
		i++;
	if (i == CONF_MAX)
		abort();
	snprintf(c->v[i].name, sizeof(c->v[i].name), "%s", name);
	snprintf(c->v[i].value, sizeof(c->v[i].value), "%s", value);
	if (i == c->n)
		c->n++;
	return RD_KAFKA_CONF_OK;
}

void rd_kafka_conf_set_log_cb(rd_kafka_conf_t *c,
			      void (*cb)(const rd_kafka_t *, int, const char *, const char *))
{
	c->log = cb;
}
void rd_kafka_conf_set_error_cb(rd_kafka_conf_t *c,
				void (*cb)(rd_kafka_t *, int, const char *, void *))
{
	c->error = cb;
}
void rd_kafka_conf_set_opaque(rd_kafka_conf_t *c, void *opaque) { c->opaque = opaque; }
void rd_kafka_conf_set_dr_msg_cb(rd_kafka_conf_t *c,
				 void (*cb)(rd_kafka_t *, const rd_kafka_message_t *, void *))
{
	c->delivered = cb;
}
void rd_kafka_conf_set_rebalance_cb(rd_kafka_conf_t *c,
				    void (*cb)(rd_kafka_t *, rd_kafka_resp_err_t,
					       rd_kafka_topic_partition_list_t *, void *))
{
	c->rebalance = cb;
}
rd_kafka_resp_err_t rd_kafka_conf_interceptor_add_on_new(rd_kafka_conf_t *c, const char *name,
							 rd_kafka_interceptor_f_on_new_t *f,
							 void *opaque)
{
	(void)name;
	c->on_new = f;
	c->on_new_opaque = opaque;
	return 0;
}
rd_kafka_resp_err_t
rd_kafka_interceptor_add_on_request_sent(rd_kafka_t *rk, const char *name,
					 rd_kafka_interceptor_f_on_request_sent_t *f, void *opaque)
{
	(void)name;
	rk->on_sent = f;
	rk->on_sent_opaque = opaque;
	return 0;
}

int rd_kafka_version(void) { return 0x020002ff; }
const char *rd_kafka_version_str(void) { return "2.0.2 (simulated)"; }
const char *rd_kafka_name(const rd_kafka_t *rk) { return setting(&rk->conf, "client.id"); }
const char *rd_kafka_err2str(rd_kafka_resp_err_t e) { return rd_kafka_err2name(e); }
rd_kafka_resp_err_t rd_kafka_last_error(void) { return 0; }
void rd_kafka_mem_free(rd_kafka_t *rk, void *p)
{
	(void)rk;
	free(p);
}

const char *rd_kafka_err2name(rd_kafka_resp_err_t e)
{
	static char text[32];
	static const struct {
		rd_kafka_resp_err_t e;
		const char *name;
	} names[] = {
		{ RD_KAFKA_RESP_ERR__TIMED_OUT, "_TIMED_OUT" },
		{ RD_KAFKA_RESP_ERR__FENCED, "_FENCED" },
		{ RD_KAFKA_RESP_ERR__CONFLICT, "_CONFLICT" },
		{ RD_KAFKA_RESP_ERR_INVALID_TXN_STATE, "INVALID_TXN_STATE" },
		{ RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, "ILLEGAL_GENERATION" },
		{ RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID, "UNKNOWN_MEMBER_ID" },
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (names[i].e == e)
			return names[i].name;
	snprintf(text, sizeof(text), "error %d", e);
	return text;
}

/* ---- the way to the brokers ---- */

static bool is_cut(const rd_kafka_t *rk)
{
	return brokers_down_until > sim_now || (rk->host && rk->host->cut_until > sim_now);
}

/* False: not before `until`. */
static bool wait_link(const rd_kafka_t *rk, int64_t until)
{
	while (is_cut(rk)) {
		if (sim_now >= until)
			return false;
		fiber_sleep(chance_between(20 * MS, 100 * MS));
	}
	return true;
}

/* Before and after a question: half a round trip each. */
static bool ask(const rd_kafka_t *rk, int64_t until)
{
	sim_point();
	if (!wait_link(rk, until))
		return false;
	fiber_sleep(chance_between(100, 2 * MS));
	return wait_link(rk, until);
}

static void answered(void) { fiber_sleep(chance_between(100, 2 * MS)); }

static int64_t until_ms(int ms) { return ms < 0 ? NEVER : sim_now + ms * MS; }

/* ---- requests of a producer, which may be repeated ---- */

typedef rd_kafka_resp_err_t handler(struct txn_request *r);

struct call {
	struct txn_request r;
	handler *handle;
	rd_kafka_resp_err_t e;
	bool done;
	int users; /* who waits, and what is on its way */
};

static void call_release(struct call *c)
{
	if (--c->users)
		return;
	free(c->r.messages);
	free(c);
}

static void deliver(void *arg)
{
	struct call *c = arg;

	if (brokers_down_until > sim_now) {
		if (one_in(2)) /* stopped, not killed: it is in a buffer */
			at(brokers_down_until + chance_between(0, 50 * MS), deliver, c);
		else
			call_release(c);
		return;
	}
	c->e = c->handle(&c->r);
	c->done = true;
	fiber_wake(c);
	call_release(c);
}

enum fate { FATE_WELL, FATE_DROPPED, FATE_UNANSWERED, FATE_LATE };

static enum fate draw_fate(int api)
{
	if (!trouble_one_in || !one_in(trouble_one_in))
		return FATE_WELL;
	/* the two that do harm when they are late */
	if (api == API_END_TXN || api == API_TXN_OFFSET_COMMIT)
		return one_in(3) ? (enum fate)chance_between(FATE_DROPPED, FATE_UNANSWERED)
				 : FATE_LATE;
	return (enum fate)chance_between(FATE_DROPPED, FATE_LATE);
}

static void put_on_wire(struct call *c, enum fate fate)
{
	int64_t when = sim_now + chance_between(100, 2 * MS);

	if (fate == FATE_DROPPED) {
		call_release(c);
		return;
	}
	if (fate == FATE_LATE) {
		when = sim_now + (one_in(2) ? chance_between(MS, 100 * MS)
					    : chance_between(100 * MS, 20 * SECOND));
		figures.late_requests++;
	}
	at(when, deliver, c);
}

/* Once: true with *e, or the connection is gone. */
static bool send_once(rd_kafka_t *rk, int api, handler *handle, struct txn_request *r,
		      rd_kafka_resp_err_t *e)
{
	enum fate fate = draw_fate(api);
	struct call *c = calloc(1, sizeof(*c));
	int64_t patience = socket_timeout_us;
	bool done;

	c->r = *r;
	if (r->n) {
		c->r.messages = malloc((size_t)r->n * sizeof(*r->messages));
		memcpy(c->r.messages, r->messages, (size_t)r->n * sizeof(*r->messages));
	}
	c->handle = handle;
	c->users = 2;
	if (rk->on_sent && sim_plant != PLANT_NO_REOPEN)
		rk->on_sent(rk, 0, "", 0, (int16_t)api, 0, 0, 0, rk->on_sent_opaque);
	if (fate != FATE_WELL) {
		say("host %d: request %d %s", rk->host->id, api,
		    fate == FATE_LATE      ? "comes late"
		    : fate == FATE_DROPPED ? "is lost"
					   : "is answered in vain");
		if (!one_in(4)) /* a connection that breaks is noticed at once */
			patience = chance_between(MS, 300 * MS);
	}
	put_on_wire(c, fate);
	int64_t until = sim_now + patience;
	while (!c->done && sim_now < until && !is_cut(rk))
		fiber_block(c, sim_now + 100 * MS < until ? sim_now + 100 * MS : until);
	if (fate == FATE_UNANSWERED && sim_now < until)
		fiber_sleep(until - sim_now);
	done = c->done && fate == FATE_WELL && !is_cut(rk);
	if (done) {
		*e = c->e;
		r->pid = c->r.pid;
		r->epoch = c->r.epoch;
	}
	call_release(c);
	if (done)
		answered();
	return done;
}

static int64_t backoff_of(int api)
{
	switch (api) {
	case API_INIT:
		return 500 * MS;
	case API_ADD_PARTITIONS:
		return 20 * MS;
	case API_ADD_OFFSETS:
		return MS;
	default:
		return 20 * MS;
	}
}

/* Until it is answered; _TIMED_OUT after `until`, or later: an answer is awaited first. */
static rd_kafka_resp_err_t request(rd_kafka_t *rk, int api, handler *handle, struct txn_request *r,
				   int64_t until)
{
	rd_kafka_resp_err_t e;

	r->by = rk->host;
	r->pid = rk->pid;
	r->epoch = rk->epoch;
	for (;;) {
		if (!wait_link(rk, until))
			return RD_KAFKA_RESP_ERR__TIMED_OUT;
		if (!send_once(rk, api, handle, r, &e))
			fiber_sleep(chance_between(MS, 100 * MS));
		else if (e != RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS)
			return e;
		else
			fiber_sleep(backoff_of(api));
		if (sim_now >= until)
			return RD_KAFKA_RESP_ERR__TIMED_OUT;
	}
}

static rd_kafka_resp_err_t do_init(struct txn_request *r) { return broker_init(r); }
static rd_kafka_resp_err_t do_add(struct txn_request *r) { return broker_add_partition(r); }
static rd_kafka_resp_err_t do_add_offsets(struct txn_request *r) { return broker_add_offsets(r); }
static rd_kafka_resp_err_t do_produce(struct txn_request *r) { return broker_produce(r); }
static rd_kafka_resp_err_t do_offsets(struct txn_request *r) { return broker_offset_commit(r); }
static rd_kafka_resp_err_t do_end(struct txn_request *r) { return broker_end(r); }

/* ---- the producer's thread ---- */

static bool is_fencing(rd_kafka_resp_err_t e)
{
	return e == RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH ||
	       e == RD_KAFKA_RESP_ERR_PRODUCER_FENCED;
}

/* What an error inside a transaction does to it. */
static void take_trouble(rd_kafka_t *rk, rd_kafka_resp_err_t e, bool fatal)
{
	if (is_fencing(e))
		rk->fatal = RD_KAFKA_RESP_ERR__FENCED;
	else if (fatal)
		rk->fatal = e;
	else if (!rk->abortable)
		rk->abortable = e;
}

static bool is_in_trouble(const rd_kafka_t *rk) { return rk->fatal || rk->abortable; }

static void send_messages(rd_kafka_t *rk, int p, int n)
{
	struct txn_request r = { .part = p };
	int64_t until = rk->unsent_since + 20 * SECOND; /* message.timeout.ms */
	rd_kafka_resp_err_t e = 0;

	if (!rk->added[p]) {
		e = request(rk, API_ADD_PARTITIONS, do_add, &r, until);
		if (e && e != RD_KAFKA_RESP_ERR__TIMED_OUT) {
			take_trouble(rk, e, true);
			return;
		}
		rk->registered = true;
		rk->added[p] = !e;
	}
	r = (struct txn_request){ .part = p, .seq = rk->seq[p], .messages = rk->unsent[p], .n = n };
	if (!e)
		e = request(rk, API_PRODUCE, do_produce, &r, until);
	if (e) {
		take_trouble(rk, e, false);
		rk->needs_epoch |= !is_fencing(e) && e != RD_KAFKA_RESP_ERR_INVALID_TXN_STATE;
		return;
	}
	rk->seq[p] += n;
	rk->n_unsent[p] -= n;
	memmove(rk->unsent[p], rk->unsent[p] + n, (size_t)rk->n_unsent[p] * sizeof(*rk->unsent[p]));
}

static int part_with_unsent(const rd_kafka_t *rk)
{
	for (int p = 0; p < n_partitions; p++)
		if (rk->n_unsent[p])
			return p;
	return -1;
}

static void flush_all(rd_kafka_t *rk)
{
	int p;

	while (!is_in_trouble(rk) && (p = part_with_unsent(rk)) >= 0)
		send_messages(rk, p,
			      one_in(3) ? (int)chance_between(1, rk->n_unsent[p])
					: rk->n_unsent[p]);
}

static void transaction_over(rd_kafka_t *rk)
{
	rk->in_txn = rk->registered = false;
	rk->abortable = 0;
	for (int p = 0; p < PARTITIONS_MAX; p++) {
		rk->n_unsent[p] = 0;
		rk->added[p] = false;
	}
}

static void take_epoch(rd_kafka_t *rk, const struct txn_request *r)
{
	rk->pid = r->pid;
	rk->epoch = r->epoch;
	memset(rk->seq, 0, sizeof(rk->seq));
}

static rd_kafka_error_t plain(rd_kafka_resp_err_t e) { return (rd_kafka_error_t){ .code = e }; }

static rd_kafka_error_t trouble(const rd_kafka_t *rk)
{
	if (rk->fatal)
		return (rd_kafka_error_t){ .code = rk->fatal, .fatal = true };
	return (rd_kafka_error_t){ .code = rk->abortable, .abort = true };
}

static rd_kafka_error_t run_init(rd_kafka_t *rk)
{
	struct txn_request r = { .timeout_ms =
					 atoll(setting(&rk->conf, "transaction.timeout.ms")) };

	request(rk, API_INIT, do_init, &r, NEVER);
	take_epoch(rk, &r);
	return plain(0);
}

static rd_kafka_error_t run_offsets(rd_kafka_t *rk)
{
	struct txn_request r = { 0 };
	rd_kafka_resp_err_t e;

	if (is_in_trouble(rk))
		return trouble(rk);
	e = request(rk, API_ADD_OFFSETS, do_add_offsets, &r, rk->op_until);
	if (e && e != RD_KAFKA_RESP_ERR__TIMED_OUT) {
		take_trouble(rk, e, true);
		return trouble(rk);
	}
	rk->registered = true;
	if (!e)
		e = request(rk, API_TXN_OFFSET_COMMIT, do_offsets, &rk->op_offsets, rk->op_until);
	if (!e)
		return plain(0);
	/* both were seen of a timeout */
	if (e == RD_KAFKA_RESP_ERR__TIMED_OUT && one_in(2))
		return (rd_kafka_error_t){ .code = e, .retriable = true };
	take_trouble(rk, e, false);
	return trouble(rk);
}

static rd_kafka_error_t run_end(rd_kafka_t *rk, bool commit)
{
	struct txn_request r = { .commit = commit };
	rd_kafka_resp_err_t e = 0;

	if (rk->fatal)
		return trouble(rk);
	if (commit) {
		flush_all(rk);
		if (is_in_trouble(rk))
			return trouble(rk);
	}
	if (rk->registered)
		e = request(rk, API_END_TXN, do_end, &r, NEVER);
	if (e) {
		take_trouble(rk, e, true);
		return trouble(rk);
	}
	if (rk->needs_epoch) {
		struct txn_request init = { .timeout_ms = 30000 };
		request(rk, API_INIT, do_init, &init, NEVER);
		take_epoch(rk, &init);
		rk->needs_epoch = false;
	}
	transaction_over(rk);
	return plain(0);
}

static void run_op(rd_kafka_t *rk)
{
	switch (rk->op) {
	case OP_INIT:
		rk->op_error = run_init(rk);
		break;
	case OP_OFFSETS:
		rk->op_error = run_offsets(rk);
		break;
	default:
		rk->op_error = run_end(rk, rk->op == OP_COMMIT);
	}
	rk->op_done = true;
	fiber_wake(&rk->op);
}

static void *producer_fiber(void *arg)
{
	rd_kafka_t *rk = arg;

	for (;;) {
		int p = part_with_unsent(rk);
		bool ready = p >= 0 && rk->in_txn && !is_in_trouble(rk);
		if (rk->op && !rk->op_done)
			run_op(rk);
		else if (ready && sim_now >= rk->unsent_since + LINGER_US)
			send_messages(rk, p, (int)chance_between(1, rk->n_unsent[p]));
		else
			fiber_block(rk, ready ? rk->unsent_since + LINGER_US : NEVER);
	}
	return NULL;
}

static rd_kafka_error_t *new_error(rd_kafka_error_t e)
{
	rd_kafka_error_t *copy;

	if (!e.code)
		return NULL;
	copy = malloc(sizeof(*copy));
	*copy = e;
	return copy;
}

/* Begin an operation, or go on waiting for it. */
static rd_kafka_error_t *operate(rd_kafka_t *rk, enum op_kind kind, int64_t until)
{
	sim_point();
	if (rk->op && rk->op != kind)
		return new_error((rd_kafka_error_t){ .code = RD_KAFKA_RESP_ERR__CONFLICT,
						     .retriable = true });
	if (!rk->op) {
		rk->op = kind;
		rk->op_done = false;
		rk->op_until = until;
		fiber_wake(rk);
	}
	/* only send_offsets overruns its time */
	while (!rk->op_done)
		if (!fiber_block(&rk->op, kind == OP_OFFSETS ? NEVER : until) && !rk->op_done)
			return new_error((rd_kafka_error_t){ .code = RD_KAFKA_RESP_ERR__TIMED_OUT,
							     .retriable = true });
	rk->op = OP_NONE;
	sim_point();
	return new_error(rk->op_error);
}

rd_kafka_error_t *rd_kafka_init_transactions(rd_kafka_t *rk, int timeout_ms)
{
	return operate(rk, OP_INIT, until_ms(timeout_ms));
}

rd_kafka_error_t *rd_kafka_begin_transaction(rd_kafka_t *rk)
{
	sim_point();
	if (rk->fatal || rk->in_txn || rk->op)
		return new_error((rd_kafka_error_t){ .code = rk->fatal ? rk->fatal
								       : RD_KAFKA_RESP_ERR__STATE,
						     .fatal = rk->fatal });
	rk->in_txn = true;
	return NULL;
}

rd_kafka_error_t *rd_kafka_send_offsets_to_transaction(rd_kafka_t *rk,
						       const rd_kafka_topic_partition_list_t *l,
						       const rd_kafka_consumer_group_metadata_t *g,
						       int timeout_ms)
{
	struct txn_request *r = &rk->op_offsets;

	if (!rk->in_txn || rk->op)
		return new_error((rd_kafka_error_t){ .code = RD_KAFKA_RESP_ERR__STATE });
	*r = (struct txn_request){ .generation = g->generation };
	memcpy(r->member, g->member, sizeof(r->member));
	if (sim_plant == PLANT_NO_GENERATION) {
		r->generation = -1;
		r->member[0] = '\0';
	}
	for (int p = 0; p < PARTITIONS_MAX; p++)
		r->offsets[p].offset = -2;
	for (int i = 0; i < l->cnt; i++) {
		struct offset *o = &r->offsets[l->elems[i].partition];
		o->offset = l->elems[i].offset;
		snprintf(o->metadata, sizeof(o->metadata), "%.*s", (int)l->elems[i].metadata_size,
			 (const char *)l->elems[i].metadata);
	}
	return operate(rk, OP_OFFSETS, until_ms(timeout_ms));
}

rd_kafka_error_t *rd_kafka_commit_transaction(rd_kafka_t *rk, int timeout_ms)
{
	return operate(rk, OP_COMMIT, until_ms(timeout_ms));
}

rd_kafka_error_t *rd_kafka_abort_transaction(rd_kafka_t *rk, int timeout_ms)
{
	return operate(rk, OP_ABORT, until_ms(timeout_ms));
}

rd_kafka_error_t *rd_kafka_error_new(rd_kafka_resp_err_t code, const char *fmt, ...)
{
	(void)fmt;
	return new_error(plain(code));
}
void rd_kafka_error_destroy(rd_kafka_error_t *e) { free(e); }
rd_kafka_resp_err_t rd_kafka_error_code(const rd_kafka_error_t *e) { return e ? e->code : 0; }
int rd_kafka_error_is_fatal(const rd_kafka_error_t *e) { return e->fatal; }
int rd_kafka_error_is_retriable(const rd_kafka_error_t *e) { return e->retriable; }
int rd_kafka_error_txn_requires_abort(const rd_kafka_error_t *e) { return e->abort; }
const char *rd_kafka_error_name(const rd_kafka_error_t *e) { return rd_kafka_err2name(e->code); }
const char *rd_kafka_error_string(const rd_kafka_error_t *e) { return rd_kafka_err2name(e->code); }

/* ---- producing ---- */

struct rd_kafka_headers_s {
	struct header *v;
	size_t n;
};

rd_kafka_headers_t *rd_kafka_headers_new(size_t n)
{
	rd_kafka_headers_t *hs = calloc(1, sizeof(*hs));

	hs->v = calloc(n + 16, sizeof(*hs->v));
	return hs;
}

void rd_kafka_headers_destroy(rd_kafka_headers_t *hs)
{
	for (size_t i = 0; hs && i < hs->n; i++)
		free(hs->v[i].value);
	if (hs)
		free(hs->v);
	free(hs);
}

rd_kafka_resp_err_t rd_kafka_header_add(rd_kafka_headers_t *hs, const char *name, ssize_t name_len,
					const void *value, ssize_t len)
{
	struct header *h = &hs->v[hs->n++];

	snprintf(h->name, sizeof(h->name), "%.*s", name_len < 0 ? (int)strlen(name) : (int)name_len,
		 name);
	h->len = len < 0 ? strlen(value) : (size_t)len;
	h->value = value ? malloc(h->len + 1) : NULL;
	if (value) {
		memcpy(h->value, value, h->len);
		((char *)h->value)[h->len] = '\0';
	}
	return 0;
}

static void *keep(const void *p, size_t len)
{
	char *c = p ? malloc(len + 1) : NULL;

	if (c) {
		memcpy(c, p, len);
		c[len] = '\0';
	}
	return c;
}

static void queue_message(rd_kafka_t *rk, int p, struct entry e)
{
	if (part_with_unsent(rk) < 0)
		rk->unsent_since = sim_now;
	if (!rk->unsent[p])
		rk->unsent[p] = malloc(MESSAGES_MAX * sizeof(*rk->unsent[p]));
	if (rk->n_unsent[p] == MESSAGES_MAX)
		abort();
	rk->unsent[p][rk->n_unsent[p]++] = e;
	if (sim_plant == PLANT_SWAP && rk->n_unsent[p] > 1 && one_in(20)) {
		struct entry *last = &rk->unsent[p][rk->n_unsent[p] - 1], kept = *last;
		*last = last[-1];
		last[-1] = kept;
	}
	fiber_wake(rk);
}

rd_kafka_resp_err_t rd_kafka_producev(rd_kafka_t *rk, ...)
{
	struct entry e = { .timestamp_ms = sim_now / 1000 };
	int p = -1;
	va_list ap;
	rd_kafka_vtype_t t;

	sim_point();
	va_start(ap, rk);
	while ((t = va_arg(ap, rd_kafka_vtype_t)) != RD_KAFKA_VTYPE_END) {
		const void *bytes;
		rd_kafka_headers_t *hs;
		switch (t) {
		case RD_KAFKA_VTYPE_RKT:
			va_arg(ap, rd_kafka_topic_t *);
			break;
		case RD_KAFKA_VTYPE_PARTITION:
			p = va_arg(ap, int32_t);
			break;
		case RD_KAFKA_VTYPE_KEY:
			bytes = va_arg(ap, void *);
			e.key_len = va_arg(ap, size_t);
			e.key = keep(bytes, e.key_len);
			break;
		case RD_KAFKA_VTYPE_VALUE:
			bytes = va_arg(ap, void *);
			e.value_len = va_arg(ap, size_t);
			e.value = keep(bytes, e.value_len);
			break;
		case RD_KAFKA_VTYPE_HEADERS:
			hs = va_arg(ap, rd_kafka_headers_t *);
			e.headers = hs->v;
			e.n_headers = (int)hs->n;
			free(hs);
			break;
		case RD_KAFKA_VTYPE_MSGFLAGS:
			va_arg(ap, int);
			break;
		case RD_KAFKA_VTYPE_TIMESTAMP: /* 0: now */
			e.timestamp_ms = va_arg(ap, int64_t);
			e.timestamp_ms = e.timestamp_ms ? e.timestamp_ms : sim_now / 1000;
			break;
		default:
			abort();
		}
	}
	va_end(ap);
	if (sim_plant == PLANT_SKIP && one_in(200))
		return 0;
	queue_message(rk, p, e);
	return 0;
}

int rd_kafka_poll(rd_kafka_t *rk, int timeout_ms)
{
	(void)rk;
	sim_point();
	if (timeout_ms)
		fiber_sleep(timeout_ms * MS);
	return 0;
}

rd_kafka_resp_err_t rd_kafka_flush(rd_kafka_t *rk, int timeout_ms)
{
	(void)rk, (void)timeout_ms; /* sent by and by all the same */
	sim_point();
	return 0;
}

/* ---- making and ending ---- */

rd_kafka_t *rd_kafka_new(rd_kafka_type_t type, rd_kafka_conf_t *conf, char *err, size_t err_len)
{
	rd_kafka_t *rk = calloc(1, sizeof(*rk));

	sim_point();
	rk->conf = *conf;
	free(conf);
	rk->type = type;
	rk->host = this_host();
	rk->generation = -1;
	rk->last_poll = sim_now;
	rk->committed_only = !strcmp(setting(&rk->conf, "isolation.level"), "read_committed");
	rk->tail = strstr(setting(&rk->conf, "client.id"), "-tail") != NULL;
	if (type == RD_KAFKA_PRODUCER)
		rk->fiber = fiber_start(rk->host, producer_fiber, rk);
	if (rk->conf.on_new)
		rk->conf.on_new(rk, &rk->conf, rk->conf.on_new_opaque, err, err_len);
	return rk;
}

void rd_kafka_destroy_flags(rd_kafka_t *rk, int flags)
{
	(void)flags;
	sim_point();
	if (rk->fiber)
		fiber_drop(rk->fiber);
	if (rk->group_fiber)
		fiber_drop(rk->group_fiber);
	for (int p = 0; p < PARTITIONS_MAX; p++)
		free(rk->unsent[p]);
	free(rk->queue);
	free(rk);
}

rd_kafka_resp_err_t rd_kafka_poll_set_consumer(rd_kafka_t *rk)
{
	(void)rk;
	return 0;
}

void clients_died(struct host *h) { (void)h; } /* their fibers are gone, their memory is lost */

/* ---- lists ---- */

rd_kafka_topic_partition_list_t *rd_kafka_topic_partition_list_new(int size)
{
	rd_kafka_topic_partition_list_t *l = calloc(1, sizeof(*l));

	l->size = size > 4 ? size : 4;
	l->elems = calloc((size_t)l->size, sizeof(*l->elems));
	return l;
}

void rd_kafka_topic_partition_list_destroy(rd_kafka_topic_partition_list_t *l)
{
	for (int i = 0; i < l->cnt; i++) {
		free(l->elems[i].topic);
		free(l->elems[i].metadata);
	}
	free(l->elems);
	free(l);
}

rd_kafka_topic_partition_t *rd_kafka_topic_partition_list_add(rd_kafka_topic_partition_list_t *l,
							      const char *topic, int32_t p)
{
	rd_kafka_topic_partition_t *tp;

	if (l->cnt == l->size)
		abort();
	tp = &l->elems[l->cnt++];
	tp->topic = strdup(topic);
	tp->partition = p;
	tp->offset = RD_KAFKA_OFFSET_INVALID;
	return tp;
}

/* ---- reading ---- */

static int topic_of(const char *name) { return strstr(name, ".changes") ? NOTES : SOURCE; }

static void queue_clear(rd_kafka_t *rk, int topic, int p)
{
	int n = 0;

	for (int i = 0; i < rk->queue_n; i++) {
		struct queued q = rk->queue[(rk->queue_first + i) % QUEUE_MAX];
		if (topic < 0 || q.topic != topic || q.p != p)
			if (topic >= 0)
				rk->queue[(rk->queue_first + n++) % QUEUE_MAX] = q;
	}
	rk->queue_n = n;
}

static void queue_put(rd_kafka_t *rk, enum queued_kind kind, int topic, int p, int64_t offset)
{
	if (!rk->queue)
		rk->queue = malloc(QUEUE_MAX * sizeof(*rk->queue));
	rk->queue[(rk->queue_first + rk->queue_n++) % QUEUE_MAX] =
		(struct queued){ kind, topic, p, offset };
}

static void tail_begins(struct host *h, int p, int64_t from)
{
	h->from[p] = from;
	/* applied by a commit that was the last thing it did before it died */
	for (int64_t o = 0; o < from; o++)
		h->seen[p][o] |= h->delivered[p][o];
	memset(h->delivered[p] + from, 0, (size_t)(OFFSETS_MAX - from));
	memset(h->seen[p] + from, 0, (size_t)(OFFSETS_MAX - from));
}

rd_kafka_resp_err_t rd_kafka_assign(rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *l)
{
	sim_point();
	memset(rk->fetch, 0, sizeof(rk->fetch));
	queue_clear(rk, -1, 0);
	for (int i = 0; l && i < l->cnt; i++) {
		const rd_kafka_topic_partition_t *tp = &l->elems[i];
		struct fetched *f = &rk->fetch[topic_of(tp->topic)][tp->partition];
		*f = (struct fetched){ .assigned = true, .pos = tp->offset, .eof_at = -1 };
		if (tp->offset == RD_KAFKA_OFFSET_BEGINNING)
			f->pos = 0;
		if (rk->tail)
			tail_begins(rk->host, tp->partition, f->pos);
	}
	rk->group_op = GROUP_NOTHING; /* acknowledged */
	fiber_wake(&rk->group_op);
	return 0;
}

rd_kafka_resp_err_t rd_kafka_pause_partitions(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *l)
{
	for (int i = 0; i < l->cnt; i++) {
		int topic = topic_of(l->elems[i].topic), p = l->elems[i].partition;
		rk->fetch[topic][p].paused = true;
		queue_clear(rk, topic, p);
	}
	return 0;
}

static bool is_delivered(const rd_kafka_t *rk, const struct entry *e)
{
	if (e->kind != ENTRY_DATA || e->removed)
		return false;
	return e->state == ENTRY_COMMITTED || !rk->committed_only;
}

static void fetch_part(rd_kafka_t *rk, int topic, int p)
{
	struct fetched *f = &rk->fetch[topic][p];
	const struct part *l = part_of(topic, p);
	int64_t end = rk->committed_only ? log_stable_end(l) : l->n;
	int64_t room = chance_between(1, 30);

	if (!f->assigned || f->paused || rk->queue_n > QUEUE_MAX - 100)
		return;
	if (f->pos > l->n) {
		f->assigned = false;
		queue_put(rk, QUEUED_RESET, topic, p, f->pos);
		return;
	}
	for (; f->pos < end && room; f->pos++)
		if (is_delivered(rk, &l->v[f->pos])) {
			queue_put(rk, QUEUED_MESSAGE, topic, p, f->pos);
			room--;
		}
	if (f->pos == end && f->eof_at != end) {
		queue_put(rk, QUEUED_EOF, topic, p, end);
		f->eof_at = end;
	}
}

static void fetch(rd_kafka_t *rk)
{
	int first = (int)chance_below(n_partitions);

	if (is_cut(rk))
		return;
	for (int topic = 0; topic < 2; topic++)
		for (int i = 0; i < n_partitions; i++)
			fetch_part(rk, topic, (first + i) % n_partitions);
}

struct fetched_message {
	rd_kafka_message_t m;
	rd_kafka_t *rk;
	int64_t timestamp_ms;
	rd_kafka_headers_t headers; /* points into the log */
};

static const char *const topic_names[] = { "things", "things.changes" };

static rd_kafka_message_t *take_queued(rd_kafka_t *rk)
{
	struct queued q = rk->queue[rk->queue_first];
	struct fetched_message *m = calloc(1, sizeof(*m));

	rk->queue_first = (rk->queue_first + 1) % QUEUE_MAX;
	rk->queue_n--;
	m->rk = rk;
	m->m.partition = q.p;
	m->m.offset = q.offset;
	m->m.rkt = NULL;
	if (q.kind == QUEUED_EOF) {
		m->m.err = RD_KAFKA_RESP_ERR__PARTITION_EOF;
	} else if (q.kind == QUEUED_RESET) {
		m->m.err = RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET;
	} else {
		const struct entry *e = &part_of(q.topic, q.p)->v[q.offset];
		m->m.key = e->key;
		m->m.key_len = e->key_len;
		m->m.payload = e->value;
		m->m.len = e->value_len;
		m->m._private = NULL;
		m->headers = (rd_kafka_headers_t){ e->headers, (size_t)e->n_headers };
		m->timestamp_ms = e->timestamp_ms;
		if (rk->tail)
			rk->host->delivered[q.p][q.offset] = 1;
	}
	return &m->m;
}

static struct fetched_message *whole(const rd_kafka_message_t *m)
{
	return (struct fetched_message *)m;
}

void rd_kafka_message_destroy(rd_kafka_message_t *m) { free(m); }
/* One broker leads everything: see rd_kafka_metadata(). */
int32_t rd_kafka_message_broker_id(const rd_kafka_message_t *m)
{
	(void)m;
	return 0;
}
const char *rd_kafka_message_errstr(const rd_kafka_message_t *m)
{
	return rd_kafka_err2str(m->err);
}

int64_t rd_kafka_message_timestamp(const rd_kafka_message_t *m, rd_kafka_timestamp_type_t *type)
{
	*type = RD_KAFKA_TIMESTAMP_CREATE_TIME;
	return whole(m)->timestamp_ms;
}

rd_kafka_resp_err_t rd_kafka_message_headers(const rd_kafka_message_t *m, rd_kafka_headers_t **hs)
{
	*hs = &whole(m)->headers;
	return whole(m)->headers.n ? 0 : RD_KAFKA_RESP_ERR__NOENT;
}

rd_kafka_resp_err_t rd_kafka_header_get_all(const rd_kafka_headers_t *hs, size_t i,
					    const char **name, const void **value, size_t *len)
{
	if (i >= hs->n)
		return RD_KAFKA_RESP_ERR__NOENT;
	*name = hs->v[i].name;
	*value = hs->v[i].value;
	*len = hs->v[i].len;
	return 0;
}

rd_kafka_resp_err_t rd_kafka_header_get_last(const rd_kafka_headers_t *hs, const char *name,
					     const void **value, size_t *len)
{
	for (size_t i = hs->n; i-- > 0;)
		if (!strcasecmp(hs->v[i].name, name)) {
			*value = hs->v[i].value;
			*len = hs->v[i].len;
			return 0;
		}
	return RD_KAFKA_RESP_ERR__NOENT;
}

/* Wait for records; what was fetched may lie in the queue for as long as nobody takes it. */
static void wait_records(rd_kafka_t *rk, int64_t until)
{
	for (;;) {
		fetch(rk);
		if (rk->queue_n || sim_now >= until)
			return;
		if (is_cut(rk))
			fiber_sleep(20 * MS);
		else
			fiber_block(&appended, until);
		fiber_sleep(chance_between(200, 3 * MS));
	}
}

rd_kafka_queue_t *rd_kafka_queue_get_consumer(rd_kafka_t *rk)
{
	rd_kafka_queue_t *q = calloc(1, sizeof(*q));
	q->rk = rk;
	return q;
}

rd_kafka_queue_t *rd_kafka_queue_new(rd_kafka_t *rk)
{
	rd_kafka_queue_t *q = rd_kafka_queue_get_consumer(rk);
	q->admin = true;
	return q;
}

void rd_kafka_queue_destroy(rd_kafka_queue_t *q) { free(q); }
size_t rd_kafka_queue_length(rd_kafka_queue_t *q) { return (size_t)q->rk->queue_n; }

ssize_t rd_kafka_consume_batch_queue(rd_kafka_queue_t *q, int timeout_ms, rd_kafka_message_t **m,
				     size_t max)
{
	rd_kafka_t *rk = q->rk;
	size_t n = 0;

	sim_point();
	if (!rk->queue_n)
		wait_records(rk, until_ms(timeout_ms));
	while (rk->queue_n && n < max)
		m[n++] = take_queued(rk);
	if (one_in(2))
		fetch(rk);
	return (ssize_t)n;
}

rd_kafka_resp_err_t rd_kafka_get_watermark_offsets(rd_kafka_t *rk, const char *topic, int32_t p,
						   int64_t *low, int64_t *high)
{
	(void)rk;
	*low = 0;
	*high = part_of(topic_of(topic), p)->n;
	return 0;
}

rd_kafka_resp_err_t rd_kafka_offsets_for_times(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *l,
					       int timeout_ms)
{
	if (!l->cnt || l->elems[0].offset != RD_KAFKA_OFFSET_END)
		return 0; /* nobody waits for the answer */
	if (!ask(rk, until_ms(timeout_ms)))
		return RD_KAFKA_RESP_ERR__TIMED_OUT;
	for (int i = 0; i < l->cnt; i++) {
		const struct part *p = part_of(topic_of(l->elems[i].topic), l->elems[i].partition);
		l->elems[i].offset = rk->committed_only ? log_stable_end(p) : p->n;
	}
	answered();
	return 0;
}

/* ---- the group ---- */

rd_kafka_consumer_group_metadata_t *rd_kafka_consumer_group_metadata(rd_kafka_t *rk)
{
	rd_kafka_consumer_group_metadata_t *g = calloc(1, sizeof(*g));

	g->generation = rk->generation;
	memcpy(g->member, rk->member, sizeof(g->member));
	return g;
}

rd_kafka_consumer_group_metadata_t *rd_kafka_consumer_group_metadata_new(const char *group)
{
	rd_kafka_consumer_group_metadata_t *g = calloc(1, sizeof(*g));

	(void)group;
	g->generation = -1;
	return g;
}

void rd_kafka_consumer_group_metadata_destroy(rd_kafka_consumer_group_metadata_t *g) { free(g); }

#if RD_KAFKA_VERSION >= 0x020800ff
int32_t rd_kafka_consumer_group_metadata_generation_id(const rd_kafka_consumer_group_metadata_t *g)
{
	return g->generation;
}
#endif

rd_kafka_error_t *
rd_kafka_consumer_group_metadata_write(const rd_kafka_consumer_group_metadata_t *g, void **out,
				       size_t *len)
{
	char *b = calloc(1, 64);

	memcpy(b, "CGMDv2:", 7);
	memcpy(b + 7, &g->generation, sizeof(g->generation));
	*out = b;
	*len = 64;
	return NULL;
}

/* Hand an event to whoever polls, and wait until it is acknowledged, heart beating. */
static void tell_application(rd_kafka_t *rk, enum group_op op)
{
	rk->group_op = op;
	fiber_wake(rk);
	while (rk->group_op)
		if (!fiber_block(&rk->group_op, sim_now + SECOND) && !is_cut(rk))
			broker_heartbeat(rk->member, rk->generation);
}

/* As a member, until something ends that; whether it still is one. */
static bool stay(rd_kafka_t *rk)
{
	int64_t answered_at = sim_now;

	while (!rk->leaves) {
		fiber_block(&rk->subscribed, sim_now + SECOND);
		if (sim_now - rk->last_poll > 15 * SECOND) {
			broker_leave(rk->member);
			return false;
		}
		if (is_cut(rk)) {
			if (sim_now - answered_at > settings.session_timeout_ms * MS)
				return false;
			continue;
		}
		answered_at = sim_now;
		rd_kafka_resp_err_t e = broker_heartbeat(rk->member, rk->generation);
		if (e)
			return e == RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS;
	}
	return true;
}

static rd_kafka_resp_err_t join(rd_kafka_t *rk)
{
	rd_kafka_resp_err_t e = 0;
	int32_t generation;

	while (is_cut(rk) && !rk->leaves)
		fiber_sleep(100 * MS);
	if (rk->leaves || (e = broker_join(rk->member)))
		return rk->leaves ? RD_KAFKA_RESP_ERR__STATE : e;
	do {
		fiber_sleep(chance_between(5 * MS, 50 * MS));
		if (rk->leaves)
			return RD_KAFKA_RESP_ERR__STATE;
		e = is_cut(rk) ? RD_KAFKA_RESP_ERR__IN_PROGRESS
			       : broker_joined(rk->member, &generation, &rk->owns_first);
	} while (e == RD_KAFKA_RESP_ERR__IN_PROGRESS);
	if (!e)
		rk->generation = generation;
	return e;
}

static void leave_group(rd_kafka_t *rk)
{
	if (*rk->member && !is_cut(rk))
		broker_leave(rk->member);
	rk->member[0] = '\0';
	rk->generation = -1;
	rk->leaves = false;
}

static void *group_fiber(void *arg)
{
	rd_kafka_t *rk = arg;

	while (!rk->closing) {
		if (!rk->subscribed) {
			rk->leaves = false;
			fiber_block(&rk->subscribed, NEVER);
			continue;
		}
		rd_kafka_resp_err_t e = join(rk);
		if (e == RD_KAFKA_RESP_ERR__STATE) {
			leave_group(rk);
		} else if (e && e != RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS) {
			rk->member[0] = '\0';
			fiber_sleep(100 * MS);
		} else if (!e) {
			tell_application(rk, GROUP_ASSIGN);
			bool member = stay(rk);
			if (!member)
				rk->generation = -1;
			tell_application(rk, GROUP_REVOKE);
			if (!member)
				rk->member[0] = '\0';
			if (rk->leaves)
				leave_group(rk);
		}
	}
	leave_group(rk);
	rk->closed = true;
	fiber_wake(rk);
	return NULL;
}

rd_kafka_resp_err_t rd_kafka_subscribe(rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *l)
{
	(void)l;
	sim_point();
	rk->subscribed = true;
	if (!rk->group_fiber)
		rk->group_fiber = fiber_start(rk->host, group_fiber, rk);
	fiber_wake(&rk->subscribed);
	return 0;
}

rd_kafka_resp_err_t rd_kafka_unsubscribe(rd_kafka_t *rk)
{
	sim_point();
	rk->subscribed = false;
	rk->leaves = rk->group_fiber != NULL;
	fiber_wake(&rk->subscribed);
	return 0;
}

static void serve_group(rd_kafka_t *rk)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(PARTITIONS_MAX);
	enum group_op op = rk->group_op;

	for (int p = rk->owns_first ? 0 : 1; p < n_partitions; p++)
		rd_kafka_topic_partition_list_add(l, topic_names[SOURCE], p);
	rk->conf.rebalance(rk,
			   op == GROUP_ASSIGN ? RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS
					      : RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS,
			   l, rk->conf.opaque);
	rd_kafka_topic_partition_list_destroy(l);
}

rd_kafka_resp_err_t rd_kafka_consumer_close(rd_kafka_t *rk)
{
	rk->closing = rk->leaves = true;
	rk->subscribed = false;
	fiber_wake(&rk->subscribed);
	while (rk->group_fiber && !rk->closed) {
		if (rk->group_op)
			serve_group(rk);
		else
			fiber_block(rk, sim_now + 100 * MS);
	}
	return 0;
}

rd_kafka_message_t *rd_kafka_consumer_poll(rd_kafka_t *rk, int timeout_ms)
{
	int64_t until = until_ms(timeout_ms);
	bool reads = false;

	sim_point();
	rk->last_poll = sim_now;
	for (int topic = 0; topic < 2; topic++)
		for (int p = 0; p < n_partitions; p++)
			reads |= rk->fetch[topic][p].assigned;
	if (rk->group_op) {
		serve_group(rk);
		return NULL;
	}
	if (reads || rk->queue_n) {
		if (!rk->queue_n)
			wait_records(rk, until);
		return rk->queue_n ? take_queued(rk) : NULL;
	}
	if (timeout_ms > 0)
		fiber_block(rk, until);
	return NULL;
}

/* ---- questions ---- */

rd_kafka_topic_t *rd_kafka_topic_new(rd_kafka_t *rk, const char *name, rd_kafka_topic_conf_t *conf)
{
	rd_kafka_topic_t *t = calloc(1, sizeof(*t));

	(void)conf;
	t->rk = rk;
	t->topic = topic_of(name);
	snprintf(t->name, sizeof(t->name), "%s", name);
	return t;
}

const char *rd_kafka_topic_name(const rd_kafka_topic_t *t) { return t->name; }

void rd_kafka_topic_destroy(rd_kafka_topic_t *t) { free(t); }

struct metadata {
	struct rd_kafka_metadata md;
	struct rd_kafka_metadata_topic topic;
	struct rd_kafka_metadata_partition parts[PARTITIONS_MAX];
};

rd_kafka_resp_err_t rd_kafka_metadata(rd_kafka_t *rk, int all, rd_kafka_topic_t *only,
				      const struct rd_kafka_metadata **out, int timeout_ms)
{
	struct metadata *m;

	(void)all;
	if (!ask(rk, until_ms(timeout_ms)))
		return RD_KAFKA_RESP_ERR__TRANSPORT;
	m = calloc(1, sizeof(*m));
	for (int p = 0; p < n_partitions; p++)
		m->parts[p].id = p;
	m->topic.topic = (char *)topic_names[only ? only->topic : 0];
	m->topic.partition_cnt = n_partitions;
	m->topic.partitions = m->parts;
	m->md.topic_cnt = only ? 1 : 0;
	m->md.topics = &m->topic;
	*out = &m->md;
	answered();
	return 0;
}

void rd_kafka_metadata_destroy(const struct rd_kafka_metadata *md) { free((void *)md); }

char *rd_kafka_clusterid(rd_kafka_t *rk, int timeout_ms)
{
	(void)rk, (void)timeout_ms;
	return strdup("simulated");
}

rd_kafka_resp_err_t rd_kafka_query_watermark_offsets(rd_kafka_t *rk, const char *topic, int32_t p,
						     int64_t *low, int64_t *high, int timeout_ms)
{
	if (!ask(rk, until_ms(timeout_ms)))
		return RD_KAFKA_RESP_ERR__TRANSPORT;
	const struct part *l = part_of(topic_of(topic), p);
	*low = 0;
	*high = rk->committed_only ? log_stable_end(l) : l->n;
	answered();
	return 0;
}

rd_kafka_resp_err_t rd_kafka_committed(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *l,
				       int timeout_ms)
{
	int64_t until = until_ms(timeout_ms);
	rd_kafka_resp_err_t e;
	struct offset o[PARTITIONS_MAX];

	do {
		e = 0;
		if (!ask(rk, until))
			return RD_KAFKA_RESP_ERR__TIMED_OUT;
		for (int i = 0; i < l->cnt && !e; i++)
			e = broker_offset(l->elems[i].partition, rk->committed_only, &o[i]);
		answered();
		if (e && sim_now >= until)
			return RD_KAFKA_RESP_ERR__TIMED_OUT;
		if (e)
			fiber_sleep(100 * MS);
	} while (e);
	for (int i = 0; i < l->cnt; i++) {
		l->elems[i].offset = o[i].offset < 0 ? RD_KAFKA_OFFSET_INVALID : o[i].offset;
		if (o[i].offset < 0)
			continue;
		l->elems[i].metadata = strdup(o[i].metadata);
		l->elems[i].metadata_size = strlen(o[i].metadata);
	}
	return 0;
}

rd_kafka_resp_err_t rd_kafka_list_groups(rd_kafka_t *rk, const char *group,
					 const struct rd_kafka_group_list **out, int timeout_ms)
{
	struct {
		struct rd_kafka_group_list l;
		struct rd_kafka_group_info g;
	} * r;

	(void)group;
	if (!ask(rk, until_ms(timeout_ms)))
		return RD_KAFKA_RESP_ERR__TRANSPORT;
	r = calloc(1, sizeof(*r));
	r->l.group_cnt = 1;
	r->l.groups = &r->g;
	r->g.member_cnt = broker_members();
	*out = &r->l;
	answered();
	return 0;
}

void rd_kafka_group_list_destroy(const struct rd_kafka_group_list *l) { free((void *)l); }

/* ---- administration: DescribeConfigs only ---- */

struct rd_kafka_ConfigEntry_s {
	char name[40], value[40];
};
struct rd_kafka_ConfigResource_s {
	int topic;
	struct rd_kafka_ConfigEntry_s v[4];
	const rd_kafka_ConfigEntry_t *p[4];
};
struct rd_kafka_AdminOptions_s {
	int timeout_ms;
};
struct rd_kafka_op_s {
	rd_kafka_resp_err_t e;
	struct rd_kafka_ConfigResource_s r;
	const rd_kafka_ConfigResource_t *rs[1];
};

rd_kafka_ConfigResource_t *rd_kafka_ConfigResource_new(rd_kafka_ResourceType_t type,
						       const char *name)
{
	rd_kafka_ConfigResource_t *r = calloc(1, sizeof(*r));

	(void)type;
	r->topic = topic_of(name);
	return r;
}
void rd_kafka_ConfigResource_destroy(rd_kafka_ConfigResource_t *r) { free(r); }
rd_kafka_resp_err_t rd_kafka_ConfigResource_error(const rd_kafka_ConfigResource_t *r)
{
	(void)r;
	return 0;
}
const rd_kafka_ConfigEntry_t **rd_kafka_ConfigResource_configs(const rd_kafka_ConfigResource_t *r,
							       size_t *n)
{
	*n = 4;
	return (const rd_kafka_ConfigEntry_t **)r->p;
}
const char *rd_kafka_ConfigEntry_name(const rd_kafka_ConfigEntry_t *e) { return e->name; }
const char *rd_kafka_ConfigEntry_value(const rd_kafka_ConfigEntry_t *e) { return e->value; }
rd_kafka_AdminOptions_t *rd_kafka_AdminOptions_new(rd_kafka_t *rk, rd_kafka_admin_op_t op)
{
	(void)rk, (void)op;
	return calloc(1, sizeof(rd_kafka_AdminOptions_t));
}
void rd_kafka_AdminOptions_destroy(rd_kafka_AdminOptions_t *o) { free(o); }
rd_kafka_resp_err_t rd_kafka_AdminOptions_set_request_timeout(rd_kafka_AdminOptions_t *o, int ms,
							      char *err, size_t err_len)
{
	(void)err, (void)err_len;
	o->timeout_ms = ms;
	return 0;
}
rd_kafka_resp_err_t rd_kafka_AdminOptions_set_operation_timeout(rd_kafka_AdminOptions_t *o, int ms,
								char *err, size_t err_len)
{
	(void)o, (void)ms, (void)err, (void)err_len;
	return 0;
}

static int asked_topic; /* between DescribeConfigs and the poll for its answer, by one fiber */

void rd_kafka_DescribeConfigs(rd_kafka_t *rk, rd_kafka_ConfigResource_t **rs, size_t n,
			      const rd_kafka_AdminOptions_t *o, rd_kafka_queue_t *q)
{
	(void)rk, (void)n, (void)o;
	asked_topic = rs[0]->topic;
	q->event = true;
}

static void put_config(struct rd_kafka_ConfigResource_s *r, int i, const char *name, int64_t value)
{
	snprintf(r->v[i].name, sizeof(r->v[i].name), "%s", name);
	snprintf(r->v[i].value, sizeof(r->v[i].value), "%lld", (long long)value);
	r->p[i] = &r->v[i];
}

rd_kafka_event_t *rd_kafka_queue_poll(rd_kafka_queue_t *q, int timeout_ms)
{
	struct rd_kafka_op_s *ev;
	int topic = asked_topic;

	if (!ask(q->rk, until_ms(timeout_ms)))
		return NULL;
	ev = calloc(1, sizeof(*ev));
	put_config(&ev->r, 0, "delete.retention.ms", settings.delete_retention_ms);
	put_config(&ev->r, 1, "min.compaction.lag.ms", settings.min_compaction_lag_ms);
	put_config(&ev->r, 2, "max.message.bytes", settings.max_message_bytes);
	put_config(&ev->r, 3, "cleanup.policy", 0);
	snprintf(ev->r.v[3].value, sizeof(ev->r.v[3].value), "%s",
		 topic == SOURCE ? "compact" : "delete");
	ev->rs[0] = &ev->r;
	answered();
	return ev;
}

rd_kafka_resp_err_t rd_kafka_event_error(rd_kafka_event_t *ev) { return ev->e; }
void rd_kafka_event_destroy(rd_kafka_event_t *ev) { free(ev); }
const rd_kafka_DescribeConfigs_result_t *rd_kafka_event_DescribeConfigs_result(rd_kafka_event_t *ev)
{
	return (const rd_kafka_DescribeConfigs_result_t *)ev;
}
const rd_kafka_ConfigResource_t **
rd_kafka_DescribeConfigs_result_resources(const rd_kafka_DescribeConfigs_result_t *r, size_t *n)
{
	*n = 1;
	return (const rd_kafka_ConfigResource_t **)((const struct rd_kafka_op_s *)r)->rs;
}

/* The notification topic is there already. */
rd_kafka_NewTopic_t *rd_kafka_NewTopic_new(const char *topic, int partitions, int replicas,
					   char *err, size_t err_len)
{
	(void)topic, (void)partitions, (void)replicas;
	snprintf(err, err_len, "not simulated");
	return NULL;
}
void rd_kafka_NewTopic_destroy(rd_kafka_NewTopic_t *t) { (void)t; }
rd_kafka_resp_err_t rd_kafka_NewTopic_set_config(rd_kafka_NewTopic_t *t, const char *name,
						 const char *value)
{
	(void)t, (void)name, (void)value;
	return 0;
}
void rd_kafka_CreateTopics(rd_kafka_t *rk, rd_kafka_NewTopic_t **ts, size_t n,
			   const rd_kafka_AdminOptions_t *o, rd_kafka_queue_t *q)
{
	(void)rk, (void)ts, (void)n, (void)o, (void)q;
}
const rd_kafka_CreateTopics_result_t *rd_kafka_event_CreateTopics_result(rd_kafka_event_t *ev)
{
	(void)ev;
	return NULL;
}
const rd_kafka_topic_result_t **
rd_kafka_CreateTopics_result_topics(const rd_kafka_CreateTopics_result_t *r, size_t *n)
{
	(void)r;
	*n = 0;
	return NULL;
}
rd_kafka_resp_err_t rd_kafka_topic_result_error(const rd_kafka_topic_result_t *r)
{
	(void)r;
	return 0;
}
