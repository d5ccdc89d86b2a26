#include "kafka.h"
#include "log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

enum {
	API_TXN_OFFSET_COMMIT = 28,
	API_END_TXN = 26,
	CLOSE_BUDGET_MS = 10000,
	ENDING_BUDGET_MS = 2000,
	OVERSLEEP_NS = 1000000,
};

int64_t kafka_now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

int64_t kafka_wall_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

void kafka_group_id(const struct config *c, char *out, size_t len)
{
	snprintf(out, len, "sidenote.%s", c->name);
}

/* ---- a handle of a role ---- */

/*
 * Settings in three layers: what suits the role, the user's own, and what
 * exactness owns (config.c refuses other values there, so the order is free).
 */
struct setting {
	const char *name, *value;
};

static const struct setting common[] = {
	{ "log.connection.close", "false" },
	{ "socket.keepalive.enable", "true" },
	{ "socket.nagle.disable", "true" },
	{ "reconnect.backoff.max.ms", "1000" },
	{ "topic.metadata.refresh.interval.ms", "60000" },
	{ "allow.auto.create.topics", "false" },
	{ NULL, NULL },
};

static const struct setting consuming[] = {
	{ "enable.auto.commit", "false" },
	{ "enable.auto.offset.store", "false" },
	{ "auto.offset.reset", "error" },
	/* committed offsets are stable, and aborted records are not news */
	{ "isolation.level", "read_committed" },
	{ "enable.partition.eof", "true" },
	{ "check.crcs", "true" },
	{ NULL, NULL },
};

static const struct setting tailing[] = {
	{ "fetch.wait.max.ms", "100" },
	/* a full local queue stalls the fetcher for up to a second before librdkafka 2.2 */
	{ "queued.min.messages", "1000000" },
	{ "queued.max.messages.kbytes", "65536" },
	{ "fetch.message.max.bytes", "4194304" },
	{ NULL, NULL },
};

/* what may be older than what is committed, but never waits for a transaction to end */
static const struct setting peeking[] = {
	{ "isolation.level", "read_uncommitted" },
	{ NULL, NULL },
};

/* short questions: an answer that is not there must not wait for more */
static const struct setting querying[] = {
	{ "fetch.wait.max.ms", "10" },
	/* some calls go by this and not by the time that they are given: with a minute, a start could
	 * not be ended for minutes while a broker hangs */
	{ "socket.timeout.ms", "10000" },
	{ NULL, NULL },
};

/* one record of the leader's: an answer at once, and little more than was asked for */
static const struct setting probing[] = {
	{ "fetch.wait.max.ms", "5" },
	{ "fetch.message.max.bytes", "65536" },
	{ NULL, NULL },
};

/* against the user's: a follower may still have what its leader has not */
static const struct setting probing_owned[] = {
	{ "client.rack", "" },
	{ NULL, NULL },
};

static const struct setting owning[] = {
	/* eager: exactly one revoke and one assign per rebalance, so captured metadata holds */
	{ "partition.assignment.strategy", "range" },
	{ "session.timeout.ms", "6000" },
	{ "heartbeat.interval.ms", "1000" },
	{ "max.poll.interval.ms", "15000" },
	{ NULL, NULL },
};

static const struct setting publishing[] = {
	{ "transaction.timeout.ms", "30000" },
	{ "message.timeout.ms", "20000" },
	{ "compression.type", "lz4" },
	/* whoever ends a transaction does not wait for this; and past it, librdkafka's thread polls
	 * without a pause as long as a partition has a request under way and more to send */
	{ "linger.ms", "1000" },
	/* a transaction right after another meets CONCURRENT_TRANSACTIONS: 15 ms instead of 108 */
	{ "retry.backoff.ms", "1" },
	{ "queue.buffering.max.messages", "200000" },
	{ "batch.num.messages", "10000" },
	/* where partition counts differ: where Java clients would put the key */
	{ "partitioner", "murmur2" },
	{ NULL, NULL },
};

static int set_all(rd_kafka_conf_t *conf, const struct setting *s, char *err, size_t err_len)
{
	for (; s->name; s++)
		if (rd_kafka_conf_set(conf, s->name, s->value, err, err_len) != RD_KAFKA_CONF_OK)
			return KAFKA_REFUSED;
	return 0;
}

/* The text of librdkafka may quote the value, so a secret's failure says only the name. */
static int set_pairs(rd_kafka_conf_t *conf, const struct config_pairs *pairs, const char *prefix,
		     char *err, size_t err_len)
{
	char why[256];

	for (size_t i = 0; i < pairs->n; i++) {
		const struct config_pair *p = &pairs->v[i];
		if (rd_kafka_conf_set(conf, p->key, p->value, why, sizeof(why)) == RD_KAFKA_CONF_OK)
			continue;
		snprintf(err, err_len, "%s.%s: %s", prefix, p->key,
			 p->secret ? "librdkafka refuses this value" : why);
		return KAFKA_REFUSED;
	}
	return 0;
}

static const char *role_name(enum kafka_role role)
{
	static const char *const names[] = { "query",   "peek", "tail",   "fill",    "owner",
					     "publish", "tool", "mirror", "frontier" };
	return names[role];
}

static int set_role(rd_kafka_conf_t *conf, const struct config *c, enum kafka_role role,
		    const struct kafka_hooks *h, char *err, size_t err_len)
{
	char group[300], text[32];
	int rc;

	snprintf(group, sizeof(group), "sidenote-%s-%s", c->name ? c->name : "tool",
		 role_name(role));
	if (rd_kafka_conf_set(conf, "client.id", group, err, err_len) != RD_KAFKA_CONF_OK)
		return KAFKA_REFUSED;
	kafka_group_id(c, group, sizeof(group));
	if (role == KAFKA_PUBLISH) {
		if ((rc = set_all(conf, publishing, err, err_len)))
			return rc;
		if (h && h->max_message_bytes > 0) {
			snprintf(text, sizeof(text), "%lld", (long long)h->max_message_bytes);
			if (rd_kafka_conf_set(conf, "message.max.bytes", text, err, err_len) !=
			    RD_KAFKA_CONF_OK)
				return KAFKA_REFUSED;
			/* a batch is judged as one message by the broker: never larger than that */
			if (h->max_message_bytes < 1000000 &&
			    rd_kafka_conf_set(conf, "batch.size", text, err, err_len) !=
				    RD_KAFKA_CONF_OK)
				return KAFKA_REFUSED;
		}
		return rd_kafka_conf_set(conf, "transactional.id", group, err, err_len) ==
				       RD_KAFKA_CONF_OK
			       ? 0
			       : KAFKA_REFUSED;
	}
	if ((rc = set_all(conf, consuming, err, err_len)) ||
	    (role == KAFKA_OWNER && (rc = set_all(conf, owning, err, err_len))) ||
	    (role == KAFKA_PEEK && (rc = set_all(conf, peeking, err, err_len))) ||
	    (role == KAFKA_QUERY && (rc = set_all(conf, querying, err, err_len))) ||
	    (role == KAFKA_FRONTIER && (rc = set_all(conf, probing, err, err_len))) ||
	    ((role == KAFKA_TAIL || role == KAFKA_FILL || role == KAFKA_TOOL ||
	      role == KAFKA_MIRROR) &&
	     (rc = set_all(conf, tailing, err, err_len))))
		return rc;
	return rd_kafka_conf_set(conf, "group.id", c->name ? group : "sidenote-tool", err,
				 err_len) == RD_KAFKA_CONF_OK
		       ? 0
		       : KAFKA_REFUSED;
}

static rd_kafka_resp_err_t on_request_sent(rd_kafka_t *rk, int sockfd, const char *brokername,
					   int32_t brokerid, int16_t api, int16_t version,
					   int32_t corrid, size_t size, void *opaque)
{
	struct kafka_counts *n = opaque;

	(void)rk, (void)sockfd, (void)brokername, (void)brokerid;
	(void)version, (void)corrid, (void)size;
	if (api == API_END_TXN)
		atomic_fetch_add(&n->end_txn, 1);
	else if (api == API_TXN_OFFSET_COMMIT)
		atomic_fetch_add(&n->txn_offset_commit, 1);
	return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t on_new(rd_kafka_t *rk, const rd_kafka_conf_t *conf, void *opaque,
				  char *errstr, size_t errstr_size)
{
	(void)conf, (void)errstr, (void)errstr_size;
	return rd_kafka_interceptor_add_on_request_sent(rk, "sidenote", on_request_sent, opaque);
}

static void on_log(const rd_kafka_t *rk, int level, const char *fac, const char *text)
{
	const char *who = rd_kafka_name(rk);

	if (level <= LOG_ERR) /* connections come and go: librdkafka repairs, the stages decide */
		log_write(LOG_LEVEL_INFO, NULL, "kafka client %s: %s: %s", who, fac, text);
	else
		log_debug(NULL, "kafka client %s: %s: %s", who, fac, text);
}

static void on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
	struct kafka_hooks *h = opaque;

	if ((err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART ||
	     err == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC ||
	     err == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION) &&
	    h && h->counts)
		atomic_store(&h->counts->topic_missing, 1);
	if ((err == RD_KAFKA_RESP_ERR__AUTHENTICATION || err == RD_KAFKA_RESP_ERR__SSL ||
	     err == RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED) &&
	    h && h->counts && !atomic_exchange(&h->counts->auth_failed, 1))
		log_error("SN-KAFKA-AUTH", "%s: %s", rd_kafka_name(rk), reason);
	else
		log_debug(NULL, "kafka client %s: %s", rd_kafka_name(rk), reason);
}

/* Callbacks of librdkafka get one opaque for all: the hooks, which the caller keeps. */
static void on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t err,
			 rd_kafka_topic_partition_list_t *parts, void *opaque)
{
	struct kafka_hooks *h = opaque;
	h->rebalance(rk, err, parts, h->opaque);
}

/* Only a delivery report ends a flush at once, commits and aborts included: without, it looks every
 * 10 ms. */
static void on_delivered(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
	struct kafka_hooks *h = opaque;
	int none = 0;

	(void)rk;
	if (m->err && h && h->counts)
		atomic_compare_exchange_strong(&h->counts->undelivered, &none, m->err);
}

/*
 * Before 2.4 librdkafka's main thread sleeps whole milliseconds and then spins until its next
 * timer is due: nearly a millisecond each second for every client.  Threads inherit by how
 * much a sleep may end late, and a sleep that ends so late leaves nothing to spin for.  Only
 * for clients of whose timers nobody waits for one.
 */
static rd_kafka_t *new_client(enum kafka_role role, rd_kafka_conf_t *conf, char *err,
			      size_t err_len)
{
	int slack = prctl(PR_GET_TIMERSLACK);
	bool patient = slack > 0 && (role == KAFKA_QUERY || role == KAFKA_PEEK ||
				     role == KAFKA_OWNER || role == KAFKA_TAIL);

	if (patient)
		prctl(PR_SET_TIMERSLACK, OVERSLEEP_NS);
	rd_kafka_t *rk = rd_kafka_new(role == KAFKA_PUBLISH ? RD_KAFKA_PRODUCER : RD_KAFKA_CONSUMER,
				      conf, err, err_len);
	if (patient)
		prctl(PR_SET_TIMERSLACK, slack);
	return rk;
}

rd_kafka_t *kafka_new(const struct config *c, enum kafka_role role, const struct kafka_hooks *h,
		      char *err, size_t err_len)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	bool producer = role == KAFKA_PUBLISH;
	rd_kafka_t *rk = NULL;

	if (set_all(conf, common, err, err_len) || set_role(conf, c, role, h, err, err_len) ||
	    set_pairs(conf, &c->kafka, "kafka", err, err_len) ||
	    set_pairs(conf, producer ? &c->producer : &c->consumer,
		      producer ? "producer" : "consumer", err, err_len) ||
	    (role == KAFKA_FRONTIER && set_all(conf, probing_owned, err, err_len)))
		goto out;
	rd_kafka_conf_set_log_cb(conf, on_log);
	rd_kafka_conf_set_error_cb(conf, on_error);
	rd_kafka_conf_set_opaque(conf, (void *)h);
	if (h && h->counts)
		rd_kafka_conf_interceptor_add_on_new(conf, "sidenote", on_new, h->counts);
	if (h && h->rebalance)
		rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
	if (producer)
		rd_kafka_conf_set_dr_msg_cb(conf, on_delivered);
	rk = new_client(role, conf, err, err_len);
	if (rk)
		conf = NULL; /* taken over */
	if (rk && !producer)
		rd_kafka_poll_set_consumer(rk);
out:
	if (conf)
		rd_kafka_conf_destroy(conf);
	return rk;
}

static atomic_int ending_code = -1;

void kafka_ending(int code) { atomic_store(&ending_code, code); }

/* Calls that librdkafka does not bound, each in a thread that may be given up on. */

static void *leave(void *rk)
{
	/* a subscription that is still on its way would outlive the close, and librdkafka
	 * asserts that none does */
	rd_kafka_unsubscribe(rk);
	rd_kafka_consumer_close(rk);
	return NULL;
}

/* An assign-only consumer has nothing to leave; a member has left with kafka_leave(). */
static void *destroy(void *rk)
{
	rd_kafka_destroy_flags(rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	return NULL;
}

static void within_budget(void *(*call)(void *), rd_kafka_t *rk)
{
	int code = call == destroy ? atomic_load(&ending_code) : -1;
	struct timespec until;
	pthread_t t;

	if (pthread_create(&t, NULL, call, rk)) {
		call(rk);
		return;
	}
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (code < 0 ? CLOSE_BUDGET_MS : ENDING_BUDGET_MS) / 1000;
	if (pthread_clockjoin_np(t, NULL, CLOCK_MONOTONIC, &until)) {
		if (code >= 0)
			_exit(code);
		log_error("SN-KAFKA-STUCK", "a Kafka client does not close; ending the process, "
					    "which loses nothing: start it again");
		_exit(3);
	}
}

void kafka_leave(rd_kafka_t *rk) { within_budget(leave, rk); }

void kafka_free(rd_kafka_t *rk)
{
	if (rk)
		within_budget(destroy, rk);
}

/* ---- questions ---- */

static int code_of(rd_kafka_resp_err_t e)
{
	switch (e) {
	case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
	case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
	case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
		return KAFKA_MISSING;
	case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
	case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
	case RD_KAFKA_RESP_ERR__AUTHENTICATION:
		return KAFKA_DENIED;
	case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
		return KAFKA_DENIED_GROUP;
	default:
		return KAFKA_UNREACHABLE;
	}
}

static int fail(rd_kafka_resp_err_t e, const char *what, const char *which, char *err,
		size_t err_len)
{
	snprintf(err, err_len, "%s %s: %s", what, which, rd_kafka_err2str(e));
	return code_of(e);
}

/* What went wrong comes to on_error() in a poll, and nothing else polls a client that only asks. */
static void serve_errors(rd_kafka_t *rk)
{
	rd_kafka_message_t *m;

	while ((m = rd_kafka_consumer_poll(rk, 0)))
		rd_kafka_message_destroy(m);
}

int kafka_cluster_id(rd_kafka_t *rk, int timeout_ms, char *out, size_t len, char *err,
		     size_t err_len)
{
	const struct rd_kafka_metadata *md;
	rd_kafka_resp_err_t e = rd_kafka_metadata(rk, 0, NULL, &md, timeout_ms);

	serve_errors(rk);
	if (e)
		return fail(e, "metadata of", "the cluster", err, err_len);
	rd_kafka_metadata_destroy(md);
	char *id = rd_kafka_clusterid(rk, 100);
	snprintf(out, len, "%s", id ? id : "");
	if (id)
		rd_kafka_mem_free(rk, id);
	return 0;
}

int kafka_partitions(rd_kafka_t *rk, const char *topic, int timeout_ms, char *err, size_t err_len)
{
	const struct rd_kafka_metadata *md;
	rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, topic, NULL);
	rd_kafka_resp_err_t e;
	int rc;

	if (!rkt)
		return fail(rd_kafka_last_error(), "topic", topic, err, err_len);
	e = rd_kafka_metadata(rk, 0, rkt, &md, timeout_ms);
	if (e) {
		rc = fail(e, "metadata of topic", topic, err, err_len);
	} else {
		const struct rd_kafka_metadata_topic *t = md->topic_cnt ? md->topics : NULL;
		e = t ? t->err : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
		rc = e ? fail(e, "topic", topic, err, err_len) : t->partition_cnt;
		rd_kafka_metadata_destroy(md);
	}
	rd_kafka_topic_destroy(rkt);
	return rc;
}

int kafka_watermarks(rd_kafka_t *rk, const char *topic, int32_t p, int timeout_ms, int64_t *low,
		     int64_t *high, char *err, size_t err_len)
{
	rd_kafka_resp_err_t e =
		rd_kafka_query_watermark_offsets(rk, topic, p, low, high, timeout_ms);
	return e ? fail(e, "offsets of topic", topic, err, err_len) : 0;
}

static void each_config(const rd_kafka_ConfigResource_t *r,
			void (*each)(void *, const char *, const char *), void *opaque)
{
	size_t n;
	const rd_kafka_ConfigEntry_t **v = rd_kafka_ConfigResource_configs(r, &n);

	for (size_t i = 0; i < n; i++)
		if (rd_kafka_ConfigEntry_value(v[i]))
			each(opaque, rd_kafka_ConfigEntry_name(v[i]),
			     rd_kafka_ConfigEntry_value(v[i]));
}

int kafka_topic_config(rd_kafka_t *rk, const char *topic, int timeout_ms,
		       void (*each)(void *, const char *, const char *), void *opaque, char *err,
		       size_t err_len)
{
	rd_kafka_resp_err_t e = RD_KAFKA_RESP_ERR__TIMED_OUT;
	rd_kafka_queue_t *q = rd_kafka_queue_new(rk);
	rd_kafka_ConfigResource_t *r = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
	rd_kafka_AdminOptions_t *o =
		rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
	char why[128];

	rd_kafka_AdminOptions_set_request_timeout(o, timeout_ms, why, sizeof(why));
	rd_kafka_DescribeConfigs(rk, &r, 1, o, q);
	rd_kafka_event_t *ev = rd_kafka_queue_poll(q, timeout_ms + 2000);
	if (ev && !(e = rd_kafka_event_error(ev))) {
		size_t n;
		const rd_kafka_ConfigResource_t **rs = rd_kafka_DescribeConfigs_result_resources(
			rd_kafka_event_DescribeConfigs_result(ev), &n);
		if (n == 1 && !(e = rd_kafka_ConfigResource_error(rs[0])))
			each_config(rs[0], each, opaque);
	}
	int rc = e ? fail(e, "settings of topic", topic, err, err_len) : 0;
	if (ev)
		rd_kafka_event_destroy(ev);
	rd_kafka_ConfigResource_destroy(r);
	rd_kafka_AdminOptions_destroy(o);
	rd_kafka_queue_destroy(q);
	/* a mock or a proxy answers metadata but not this: assume, and say so */
	return rc == KAFKA_UNREACHABLE ? KAFKA_UNKNOWN : rc;
}

int kafka_topic_create(rd_kafka_t *rk, const char *topic, int partitions, const char *const *kv,
		       int timeout_ms, char *err, size_t err_len)
{
	rd_kafka_resp_err_t e = RD_KAFKA_RESP_ERR__TIMED_OUT;
	rd_kafka_NewTopic_t *t = rd_kafka_NewTopic_new(topic, partitions, -1, err, err_len);
	char why[128];

	if (!t)
		return KAFKA_REFUSED;
	for (; kv && kv[0]; kv += 2)
		rd_kafka_NewTopic_set_config(t, kv[0], kv[1]);
	rd_kafka_queue_t *q = rd_kafka_queue_new(rk);
	rd_kafka_AdminOptions_t *o = rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_CREATETOPICS);
	rd_kafka_AdminOptions_set_request_timeout(o, timeout_ms, why, sizeof(why));
	rd_kafka_AdminOptions_set_operation_timeout(o, timeout_ms / 2, why, sizeof(why));
	rd_kafka_CreateTopics(rk, &t, 1, o, q);
	rd_kafka_event_t *ev = rd_kafka_queue_poll(q, timeout_ms + 2000);
	if (ev && !(e = rd_kafka_event_error(ev))) {
		size_t n;
		const rd_kafka_topic_result_t **rs = rd_kafka_CreateTopics_result_topics(
			rd_kafka_event_CreateTopics_result(ev), &n);
		if (n == 1)
			e = rd_kafka_topic_result_error(rs[0]);
		if (e == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
			e = RD_KAFKA_RESP_ERR_NO_ERROR;
	}
	int rc = e ? fail(e, "creating topic", topic, err, err_len) : 0;
	if (ev)
		rd_kafka_event_destroy(ev);
	rd_kafka_NewTopic_destroy(t);
	rd_kafka_AdminOptions_destroy(o);
	rd_kafka_queue_destroy(q);
	return rc;
}

/* Without the right to find the group's coordinator a question about it is never sent: why comes
 * to whoever polls. */
static rd_kafka_resp_err_t group_error(rd_kafka_t *rk, rd_kafka_resp_err_t e)
{
	rd_kafka_message_t *m;

	while ((m = rd_kafka_consumer_poll(rk, 0))) {
		if (m->err == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED)
			e = m->err;
		rd_kafka_message_destroy(m);
	}
	return e;
}

int kafka_committed(rd_kafka_t *rk, const char *topic, int n, int timeout_ms,
		    struct kafka_committed *out, char *err, size_t err_len)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(n);
	rd_kafka_resp_err_t e;

	for (int p = 0; p < n; p++)
		rd_kafka_topic_partition_list_add(l, topic, p);
	e = rd_kafka_committed(rk, l, timeout_ms);
	if (e == RD_KAFKA_RESP_ERR__TIMED_OUT)
		e = group_error(rk, e);
	for (int p = 0; p < l->cnt && !e; p++)
		e = l->elems[p].err;
	for (int p = 0; p < l->cnt && !e; p++) {
		const rd_kafka_topic_partition_t *tp = &l->elems[p];
		struct kafka_committed *o = &out[tp->partition];
		o->offset = tp->offset >= 0 ? tp->offset : -1;
		size_t len = tp->metadata_size < sizeof(o->metadata) ? tp->metadata_size
								     : sizeof(o->metadata) - 1;
		if (tp->metadata)
			memcpy(o->metadata, tp->metadata, len);
		o->metadata[tp->metadata ? len : 0] = '\0';
	}
	rd_kafka_topic_partition_list_destroy(l);
	return e ? fail(e, "committed offsets for topic", topic, err, err_len) : 0;
}

int kafka_group_members(rd_kafka_t *rk, const char *group, int timeout_ms, char *err,
			size_t err_len)
{
	const struct rd_kafka_group_list *l;
	rd_kafka_resp_err_t e = rd_kafka_list_groups(rk, group, &l, timeout_ms);
	int members = 0;

	if (e)
		return fail(e, "members of group", group, err, err_len);
	for (int i = 0; i < l->group_cnt; i++) {
		if (l->groups[i].err) {
			e = l->groups[i].err;
			break;
		}
		members += l->groups[i].member_cnt;
	}
	rd_kafka_group_list_destroy(l);
	return e ? fail(e, "members of group", group, err, err_len) : members;
}

int32_t kafka_generation(const rd_kafka_consumer_group_metadata_t *g)
{
#if RD_KAFKA_VERSION >= 0x020800ff
	return rd_kafka_consumer_group_metadata_generation_id(g);
#else
	/* no getter before 2.8: the serialised form is "CGMDv2:", int32 generation, ... */
	void *b = NULL;
	size_t len;
	int32_t generation = -1;
	rd_kafka_error_t *e = rd_kafka_consumer_group_metadata_write(g, &b, &len);

	if (e) {
		rd_kafka_error_destroy(e);
		return -1;
	}
	if (len > 11 && !memcmp(b, "CGMDv2:", 7))
		memcpy(&generation, (char *)b + 7, sizeof(generation));
	rd_kafka_mem_free(NULL, b);
	return generation;
#endif
}
