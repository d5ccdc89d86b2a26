#include "broker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	MEMBERS_MAX = 64,            /* those that died stay until their session ends */
	MARKER_LATEST = 8,           /* ms after an EndTxn */
	TRANSACTION_SCAN_MS = 10000, /* between looks for transactions that timed out */
	REBALANCE_MS = 15000,        /* max.poll.interval.ms */
	CLOSE_MS = 15000,            /* see struct settings */
};

struct part source[PARTITIONS_MAX], notes[PARTITIONS_MAX];
struct settings settings;
int64_t brokers_down_until;
const char appended;

struct part *part_of(int topic, int p) { return topic == SOURCE ? &source[p] : &notes[p]; }

/* ---- logs ---- */

int64_t log_stable_end(const struct part *l)
{
	if (l->open >= 0)
		return l->open;
	if (l->has_open)
		for (int64_t i = l->n - 1;; i--)
			if (i < 0 || l->v[i].state != ENTRY_OPEN)
				return i + 1;
	return l->n;
}

static void *copy(const void *p, size_t len)
{
	char *c = p ? malloc(len + 1) : NULL;

	if (c) {
		memcpy(c, p, len);
		c[len] = '\0';
	}
	return c;
}

static struct entry *append(struct part *l)
{
	if (l->n == OFFSETS_MAX) {
		violation("the simulation: a log is full");
		l->n--;
	}
	if (l->n == l->cap) {
		l->cap = l->cap ? 2 * l->cap : 256;
		l->v = realloc(l->v, (size_t)l->cap * sizeof(*l->v));
		if (!l->v)
			abort();
	}
	struct entry *e = &l->v[l->n++];
	*e = (struct entry){ .horizon = -1, .appended_at = sim_now };
	e->timestamp_ms = sim_now / 1000;
	fiber_wake(&appended);
	return e;
}

/* Where the key is in the table, which is never full. */
static int id_of(struct part *l, const char *key, size_t len)
{
	uint64_t hash = 14695981039346656037u;

	if (!l->id_first && !(l->id_first = calloc(IDS_MAX, sizeof(*l->id_first))))
		abort();
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (uint8_t)key[i]) * 1099511628211u;
	for (int id = (int)(hash >> 32) & (IDS_MAX - 1);; id = (id + 1) & (IDS_MAX - 1)) {
		if (!l->id_first[id]) {
			l->id_first[id] = l->n;
			return id;
		}
		const struct entry *e = &l->v[l->id_first[id] - 1];
		if (e->key_len == len && !memcmp(e->key, key, len))
			return id;
	}
}

int64_t log_append(struct part *l, const void *key, size_t key_len, const void *value,
		   size_t value_len, enum entry_state state)
{
	struct entry *e = append(l);

	e->state = state;
	e->key = copy(key, key_len);
	e->key_len = key_len;
	e->id = id_of(l, e->key, key_len);
	e->value = copy(value, value_len);
	e->value_len = value_len;
	if (state == ENTRY_OPEN && l->open < 0)
		l->open = l->n - 1;
	return l->n - 1;
}

static void append_marker(struct part *l)
{
	struct entry *e = append(l);

	e->kind = ENTRY_CONTROL;
	e->state = ENTRY_COMMITTED;
}

void log_end_open(struct part *l, bool commit)
{
	for (int64_t i = l->open; i >= 0 && i < l->n; i++)
		if (l->v[i].state == ENTRY_OPEN)
			l->v[i].state = commit ? ENTRY_COMMITTED : ENTRY_ABORTED;
	l->open = -1;
	append_marker(l);
}

void log_roll(struct part *l) { l->segment = l->n; }

static void take_away(struct entry *e)
{
	e->removed = true;
	e->removed_at = sim_now;
	figures.compacted++;
}

/* What the cleaner may look at: closed segments, old enough, stable. */
static int64_t clean_end(const struct part *l)
{
	int64_t end = log_stable_end(l), lag_ms = settings.min_compaction_lag_ms;

	if (settings.transactions && lag_ms < CLOSE_MS)
		lag_ms = CLOSE_MS;
	int64_t old = sim_now - lag_ms * MS;
	if (end > l->segment)
		end = l->segment;
	for (int64_t i = 0; i < end; i++)
		if (l->v[i].appended_at > old)
			return i;
	return end;
}

static void clean_data(struct part *l, int64_t i, int64_t end)
{
	struct entry *e = &l->v[i];

	if (e->state == ENTRY_ABORTED) {
		take_away(e);
		return;
	}
	for (int64_t j = i + 1; j < end; j++)
		if (l->v[j].kind == ENTRY_DATA && l->v[j].state == ENTRY_COMMITTED &&
		    e->id == l->v[j].id) {
			take_away(e);
			return;
		}
	if (e->value)
		return;
	if (e->horizon < 0)
		e->horizon = sim_now + settings.delete_retention_ms * MS;
	else if (e->horizon < sim_now)
		take_away(e);
}

void log_clean(struct part *l)
{
	int64_t end = clean_end(l);

	for (int64_t i = 0; i < end; i++) {
		struct entry *e = &l->v[i];
		if (e->removed)
			continue;
		if (e->kind == ENTRY_DATA)
			clean_data(l, i, end);
		else if (e->horizon < 0)
			e->horizon = sim_now + settings.delete_retention_ms * MS;
		else if (e->horizon < sim_now)
			take_away(e);
	}
}

/* ---- transactions ---- */

enum txn_state {
	TXN_EMPTY,
	TXN_ONGOING,
	TXN_PREPARE_COMMIT,
	TXN_PREPARE_ABORT,
	TXN_COMMITTED,
	TXN_ABORTED
};

static struct {
	enum txn_state state;
	int64_t pid;
	int32_t epoch;
	bool parts[PARTITIONS_MAX], offsets;
	int64_t began, timeout_ms;
	int markers; /* still to be written */
	uint64_t number;
} txn;

static struct {
	struct offset committed[PARTITIONS_MAX], pending[PARTITIONS_MAX];
	bool is_pending; /* of the transactional id */
	int32_t epoch;   /* the last that the partition of the group has seen */
	struct host *by;
	bool as_member; /* of those that are pending */
} group_offsets;

bool broker_has_open_transaction(void) { return txn.state == TXN_ONGOING || txn.markers; }

static rd_kafka_resp_err_t check_epoch(const struct txn_request *r)
{
	if (r->pid != txn.pid || r->epoch < txn.epoch)
		return RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH;
	return r->epoch > txn.epoch ? RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH : 0;
}

static bool preparing(void)
{
	return txn.state == TXN_PREPARE_COMMIT || txn.state == TXN_PREPARE_ABORT;
}

static void marker_written(void)
{
	if (--txn.markers == 0)
		txn.state = txn.state == TXN_PREPARE_COMMIT ? TXN_COMMITTED : TXN_ABORTED;
}

static void mark_partition(void *arg)
{
	struct part *l = arg;
	bool commit = txn.state == TXN_PREPARE_COMMIT;

	for (int64_t i = l->n - 1; i >= 0 && l->v[i].state == ENTRY_OPEN; i--)
		l->v[i].state = commit ? ENTRY_COMMITTED : ENTRY_ABORTED;
	l->has_open = false;
	l->epoch = txn.epoch;
	append_marker(l);
	marker_written();
}

static void take_offset(int p)
{
	struct offset *o = &group_offsets.pending[p], *c = &group_offsets.committed[p];
	char before[200];

	if (o->offset == -2)
		return;
	memcpy(before, c->metadata, sizeof(before));
	int64_t from = c->offset;
	*c = *o;
	oracle_committed(group_offsets.by, group_offsets.as_member, p, from, c->offset, before);
}

static void forget_pending(void)
{
	for (int p = 0; p < PARTITIONS_MAX; p++)
		group_offsets.pending[p].offset = -2;
	group_offsets.is_pending = false;
}

static void mark_offsets(void *arg)
{
	(void)arg;
	for (int p = 0; p < n_partitions && txn.state == TXN_PREPARE_COMMIT; p++)
		take_offset(p);
	forget_pending();
	group_offsets.epoch = txn.epoch;
	marker_written();
}

static int64_t marker_time(void) { return sim_now + chance_between(300, MARKER_LATEST * MS); }

static void end_transaction(bool commit)
{
	txn.state = commit ? TXN_PREPARE_COMMIT : TXN_PREPARE_ABORT;
	txn.markers = txn.offsets;
	for (int p = 0; p < n_partitions; p++)
		txn.markers += txn.parts[p];
	if (!txn.markers) {
		txn.markers = 1;
		marker_written();
		return;
	}
	for (int p = 0; p < n_partitions; p++)
		if (txn.parts[p])
			at(marker_time(), mark_partition, &notes[p]);
	if (txn.offsets)
		at(marker_time(), mark_offsets, NULL);
}

/* Fenced: the marker carries the epoch after that of the producer. */
static void abort_for(const char *why)
{
	say("broker: transaction of epoch %d aborted: %s", txn.epoch, why);
	txn.epoch++;
	end_transaction(false);
}

static void look_for_old_transactions(void *arg)
{
	if (txn.state == TXN_ONGOING && sim_now - txn.began > txn.timeout_ms * MS)
		abort_for("it timed out");
	at(sim_now + TRANSACTION_SCAN_MS * MS, look_for_old_transactions, arg);
}

rd_kafka_resp_err_t broker_init(struct txn_request *r)
{
	if (preparing())
		return RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS;
	if (txn.state == TXN_ONGOING) {
		abort_for("another init");
		return RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS;
	}
	txn.state = TXN_EMPTY;
	txn.pid = 1000;
	txn.epoch++;
	txn.timeout_ms = r->timeout_ms;
	r->pid = txn.pid;
	r->epoch = txn.epoch;
	return 0;
}

static void begin_if_needed(void)
{
	if (txn.state == TXN_ONGOING)
		return;
	txn.state = TXN_ONGOING;
	txn.began = sim_now;
	txn.number++;
	txn.offsets = false;
	memset(txn.parts, 0, sizeof(txn.parts));
}

rd_kafka_resp_err_t broker_add_partition(const struct txn_request *r)
{
	rd_kafka_resp_err_t e = check_epoch(r);

	if (e || preparing())
		return e ? e : RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS;
	begin_if_needed();
	txn.parts[r->part] = true;
	return 0;
}

rd_kafka_resp_err_t broker_add_offsets(const struct txn_request *r)
{
	rd_kafka_resp_err_t e = check_epoch(r);

	if (e || preparing())
		return e ? e : RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS;
	begin_if_needed();
	txn.offsets = true;
	return 0;
}

/* Kafka verifies the first records of a transaction on a partition, and trusts the next ones. */
static rd_kafka_resp_err_t verify(const struct txn_request *r, bool trusted, bool added)
{
	if (trusted)
		return 0;
	if (check_epoch(r))
		return RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH;
	return txn.state == TXN_ONGOING && added ? 0 : RD_KAFKA_RESP_ERR_INVALID_TXN_STATE;
}

static void append_message(struct part *l, const struct entry *m, const struct txn_request *r)
{
	struct entry *e = append(l), kept = *e;

	*e = *m; /* keys, values and headers belong to the run */
	e->appended_at = kept.appended_at;
	e->horizon = -1;
	e->state = ENTRY_OPEN;
	e->pid = r->pid;
	e->epoch = r->epoch;
	e->by = r->by->id;
	l->has_open = true;
}

rd_kafka_resp_err_t broker_produce(const struct txn_request *r)
{
	struct part *l = &notes[r->part];

	if (r->epoch < l->epoch)
		return RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH;
	rd_kafka_resp_err_t e =
		verify(r, l->has_open && l->seq_epoch == r->epoch, txn.parts[r->part]);
	if (e)
		return e;
	if (l->seq_pid != r->pid || l->seq_epoch != r->epoch) {
		l->seq_pid = r->pid;
		l->seq_epoch = r->epoch;
		l->seq = 0;
	}
	if (r->seq < l->seq)
		return 0; /* known already */
	if (r->seq > l->seq)
		return RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
	l->epoch = r->epoch;
	l->seq += r->n;
	for (int i = 0; i < r->n; i++)
		append_message(l, &r->messages[i], r);
	return 0;
}

rd_kafka_resp_err_t broker_end(const struct txn_request *r)
{
	rd_kafka_resp_err_t e = check_epoch(r);

	if (e)
		return e;
	switch (txn.state) {
	case TXN_ONGOING:
		end_transaction(r->commit);
		return 0;
	case TXN_PREPARE_COMMIT:
	case TXN_PREPARE_ABORT:
		return (txn.state == TXN_PREPARE_COMMIT) == r->commit
			       ? RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS
			       : RD_KAFKA_RESP_ERR_INVALID_TXN_STATE;
	case TXN_COMMITTED:
		return r->commit ? 0 : RD_KAFKA_RESP_ERR_INVALID_TXN_STATE;
	case TXN_ABORTED:
		return r->commit ? RD_KAFKA_RESP_ERR_INVALID_TXN_STATE : 0;
	default:
		return RD_KAFKA_RESP_ERR_INVALID_TXN_STATE;
	}
}

/* ---- the group ---- */

struct member {
	char id[40];
	bool joined;     /* in the rebalance that is under way, or since the last */
	int64_t expires; /* NEVER: while it waits in a join */
	int32_t generation;
};

static struct {
	struct member v[MEMBERS_MAX];
	int n;
	bool rebalancing;
	int64_t until; /* those who have not joined by then are out */
	int32_t generation;
	unsigned named;
} group;

static struct member *member_of(const char *id)
{
	for (int i = 0; i < group.n; i++)
		if (!strcmp(group.v[i].id, id))
			return &group.v[i];
	return NULL;
}

static void begin_rebalance(void)
{
	if (group.rebalancing)
		return;
	group.rebalancing = true;
	group.until = sim_now + REBALANCE_MS * MS;
	for (int i = 0; i < group.n; i++)
		group.v[i].joined = false;
}

static void remove_member(struct member *m)
{
	say("broker: member %s is out", m->id);
	*m = group.v[--group.n];
	begin_rebalance();
}

static void finish_rebalance(void)
{
	bool all = group.n > 0;

	for (int i = 0; i < group.n; i++)
		all &= group.v[i].joined;
	if (!group.rebalancing || (!all && sim_now < group.until))
		return;
	for (int i = group.n - 1; i >= 0; i--)
		if (!group.v[i].joined)
			group.v[i] = group.v[--group.n];
	group.rebalancing = false;
	group.generation++;
	for (int i = 0; i < group.n; i++) {
		group.v[i].generation = group.generation;
		group.v[i].expires = sim_now + settings.session_timeout_ms * MS;
	}
	say("broker: generation %d, %d members", group.generation, group.n);
}

static void watch_group(void *arg)
{
	for (int i = group.n - 1; i >= 0; i--)
		if (group.v[i].expires <= sim_now)
			remove_member(&group.v[i]);
	finish_rebalance();
	at(sim_now + 100 * MS, watch_group, arg);
}

rd_kafka_resp_err_t broker_join(char id[40])
{
	struct member *m = *id ? member_of(id) : NULL;

	if (*id && !m)
		return RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID;
	begin_rebalance();
	if (!m) {
		if (group.n == MEMBERS_MAX)
			abort();
		m = &group.v[group.n++];
		*m = (struct member){ .generation = -1 };
		/* in any order: who is first decides who leads */
		snprintf(m->id, sizeof(m->id), "%02d-%u", (int)chance_below(100), group.named++);
		memcpy(id, m->id, sizeof(m->id));
	}
	m->joined = true;
	/* a client that died while it waited is found out by its session */
	m->expires = sim_now + settings.session_timeout_ms * MS;
	finish_rebalance();
	return 0;
}

rd_kafka_resp_err_t broker_joined(const char *id, int32_t *generation, bool *first)
{
	struct member *m = member_of(id);

	if (!m)
		return RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID;
	m->expires = sim_now + settings.session_timeout_ms * MS;
	finish_rebalance();
	m = member_of(id);
	if (!m)
		return RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID;
	if (group.rebalancing)
		return m->joined ? RD_KAFKA_RESP_ERR__IN_PROGRESS
				 : RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS;
	*generation = m->generation;
	*first = true;
	for (int i = 0; i < group.n; i++)
		*first &= strcmp(group.v[i].id, id) >= 0;
	return 0;
}

rd_kafka_resp_err_t broker_heartbeat(const char *id, int32_t generation)
{
	struct member *m = member_of(id);

	if (!m)
		return RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID;
	if (generation != m->generation)
		return RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION;
	m->expires = sim_now + settings.session_timeout_ms * MS;
	return group.rebalancing ? RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS : 0;
}

void broker_leave(const char *id)
{
	struct member *m = member_of(id);

	if (m)
		remove_member(m);
}

int broker_members(void) { return group.n; }

/* ---- offsets ---- */

rd_kafka_resp_err_t broker_offset(int p, bool stable, struct offset *out)
{
	if (stable && group_offsets.pending[p].offset != -2)
		return RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT;
	*out = group_offsets.committed[p];
	return 0;
}

/* Generation -1 and no member: accepted, and fenced by nothing. */
static rd_kafka_resp_err_t check_member(const struct txn_request *r)
{
	const struct member *m;

	if (r->generation < 0 && !*r->member)
		return 0;
	m = member_of(r->member);
	if (!m)
		return RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID;
	return r->generation == m->generation ? 0 : RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION;
}

rd_kafka_resp_err_t broker_offset_commit(const struct txn_request *r)
{
	rd_kafka_resp_err_t e = check_member(r);

	if (!e && r->epoch < group_offsets.epoch)
		e = RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH;
	if (!e)
		e = verify(r, group_offsets.is_pending && group_offsets.epoch == r->epoch,
			   txn.offsets);
	if (e)
		return e;
	for (int p = 0; p < n_partitions; p++)
		if (r->offsets[p].offset != -2)
			group_offsets.pending[p] = r->offsets[p];
	group_offsets.is_pending = true;
	group_offsets.epoch = r->epoch;
	group_offsets.by = r->by;
	group_offsets.as_member = r->generation >= 0;
	return 0;
}

/* ---- the whole ---- */

static void free_log(struct part *l)
{
	for (int64_t i = 0; i < l->n; i++) {
		free(l->v[i].key);
		free(l->v[i].value);
		for (int h = 0; h < l->v[i].n_headers; h++)
			free(l->v[i].headers[h].value);
		free(l->v[i].headers);
	}
	free(l->v);
	free(l->id_first);
	*l = (struct part){ .open = -1 };
}

void broker_reset(void)
{
	for (int p = 0; p < PARTITIONS_MAX; p++) {
		free_log(&source[p]);
		free_log(&notes[p]);
	}
	memset(&txn, 0, sizeof(txn));
	memset(&group, 0, sizeof(group));
	memset(&group_offsets, 0, sizeof(group_offsets));
	for (int p = 0; p < PARTITIONS_MAX; p++)
		group_offsets.committed[p].offset = -1;
	forget_pending();
	brokers_down_until = 0;
	at(sim_now + TRANSACTION_SCAN_MS * MS, look_for_old_transactions, NULL);
	at(sim_now + 100 * MS, watch_group, NULL);
}
