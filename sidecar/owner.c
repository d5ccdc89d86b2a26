#include "owner.h"
#include "fault.h"
#include "log.h"
#include "metrics.h"
#include "mirror.h"
#include "publish.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	POLL_MS = 100,
	LOOK_MS = 500,       /* between looks at the own fitness */
	COMMITTED_MS = 2000, /* between reads of the committed offsets */
	ANSWER_MS = 3000,    /* for one question to the broker */
	/* the same while leading: a transaction is nearly always under way, and the broker does
	 * not say what is committed meanwhile; the next question may come between two */
	LEADING_ANSWER_MS = 500,
	STOP_MS = 3000,          /* for the publisher to stop within a revoke */
	STOP_MIRROR_MS = 8000,   /* the same; Redis itself refuses a mirror that is late */
	DENIED_SAY_MS = 60000,   /* between lines about the same right */
	CALL_BUDGET_MS = 180000, /* a call that outlives it ends the process */
};

struct owner {
	struct pipeline *p;
	rd_kafka_t *query, *peek, *rk;
	struct kafka_counts counts;
	struct kafka_hooks hooks;
	struct publisher *publisher;
	struct mirror *mirror; /* NULL: none configured */
	struct standing *standings;
	struct kafka_committed *committed;
	bool subscribed, known;
	bool looked_back;         /* whether to resume: at the first look only */
	bool resumes;             /* the publisher does, as no member of the group */
	int64_t denied_ms;        /* when a right was last said to be missing; 0: never */
	bool want_stable, stable; /* how committed offsets are, and were, asked for */
	enum fitness fitness;
	int64_t looked_ms, asked_ms;
	pthread_t thread;
};

/* ---- the life of those who write to the world ---- */

static void stop_publisher(struct owner *o)
{
	mirror_halt(o->mirror); /* both at once */
	if (!publish_stop(o->publisher, STOP_MS)) {
		log_error("SN-PUBLISHER-STUCK",
			  "the publisher does not stop within %d ms; ending the process before "
			  "another leads, which loses nothing: start it again",
			  STOP_MS);
		_exit(3);
	}
	o->publisher = NULL;
	o->resumes = false;
}

static void stop_mirror(struct owner *o)
{
	if (!mirror_stop(o->mirror, STOP_MIRROR_MS)) {
		log_error(
			"SN-REDIS-STUCK",
			"the mirror does not stop within %d ms; ending the process before another "
			"leads, which loses nothing: start it again",
			STOP_MIRROR_MS);
		_exit(3);
	}
}

static bool owns_first(const rd_kafka_topic_partition_list_t *parts)
{
	for (int i = 0; i < parts->cnt; i++)
		if (parts->elems[i].partition == 0)
			return true;
	return false;
}

static void assigned(struct owner *o, const rd_kafka_topic_partition_list_t *parts)
{
	rd_kafka_consumer_group_metadata_t *group = rd_kafka_consumer_group_metadata(o->rk);
	int32_t generation = group ? kafka_generation(group) : -1;

	/* brokers accept offsets of generation -1 without any fencing */
	if (!owns_first(parts) || generation < 0) {
		if (group)
			rd_kafka_consumer_group_metadata_destroy(group);
		pipeline_role(o->p, "standby");
		log_info(NULL, "standby: another sidecar of sidenote.%s leads", o->p->config->name);
		return;
	}
	FAULT_POINT("owner.elected");
	log_info(NULL, "leading sidenote.%s, generation %d", o->p->config->name, (int)generation);
	pipeline_role(o->p, "leader");
	metrics_add(METRIC_LEADERSHIPS, 1);
	int rc = 0;
	if (o->p->publishing)
		rc = publish_start(&o->publisher, o->p, o->query, group);
	else
		rd_kafka_consumer_group_metadata_destroy(group);
	if (rc || (o->mirror && mirror_start(o->mirror)))
		pipeline_end(o->p, OUTCOME_UNREACHABLE, "SN-MEMORY", "out of memory");
}

static void on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t err,
			 rd_kafka_topic_partition_list_t *parts, void *opaque)
{
	struct owner *o = opaque;
	rd_kafka_topic_partition_list_t *none;

	/* before anything is acknowledged, whichever event it is */
	FAULT_POINT("owner.rebalance");
	stop_publisher(o);
	stop_mirror(o);
	if (err != RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
		if (err != RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS)
			log_info(NULL, "group: %s", rd_kafka_err2str(err));
		pipeline_role(o->p, "waiting for the group");
		rd_kafka_assign(rk, NULL);
		return;
	}
	o->denied_ms = 0; /* the group has let us in */
	assigned(o, parts);
	FAULT_POINT("owner.assigned");
	none = rd_kafka_topic_partition_list_new(0);
	rd_kafka_assign(rk, none);
	rd_kafka_topic_partition_list_destroy(none);
}

/* ---- committed offsets ---- */

/* The leader's own commits are the truth; anything else means somebody interfered. */
static void compare_committed(struct owner *o, const struct standing *before, int p)
{
	const struct kafka_committed *c = &o->committed[p];
	struct metadata m;

	metadata_parse(&m, c->metadata);
	if (!strcmp(m.by, METADATA_FUTURE)) /* how far it is, nobody here can tell */
		return;
	if (before->published.offset < 0 || strcmp(before->by, state_uuid(o->p->state)))
		return;
	if (c->offset < 0)
		pipeline_offsets_lost(o->p, p);
	else if (position_compare((struct position){ c->offset, m.n }, before->published) < 0)
		pipeline_offsets_back(o->p, p, before->published.offset, c->offset);
}

static void take_committed(struct owner *o)
{
	for (int p = 0; p < o->p->n; p++) {
		struct metadata m;
		metadata_parse(&m, o->committed[p].metadata);
		pipeline_published(o->p, p, (struct position){ o->committed[p].offset, m.n }, m.by,
				   m.gap_until);
		pipeline_cursor(o->p, p, m.c);
	}
	o->known = true;
}

static void say_denied(struct owner *o, const char *err)
{
	int64_t now = kafka_now_ms();

	if (o->denied_ms && now - o->denied_ms < DENIED_SAY_MS)
		return;
	o->denied_ms = now;
	log_error("SN-GROUP-DENIED",
		  "%s; grant Read on group sidenote.%s: until then it does not lead; trying again",
		  err, o->p->config->name);
}

static void ask_committed(struct owner *o)
{
	bool leading = o->publisher, stable = leading || o->want_stable;
	char err[300];

	if (o->p->offsets_forgotten || !o->p->publishing) {
		o->known = true;
		return;
	}
	pipeline_standings(o->p, o->standings); /* before the question: the answer is not older */
	/* a standby must not wait for a transaction that a dead leader left open: only its
	 * successor ends it.  An older P is safe to trim by and to be fit by; the publisher
	 * reads it again, after init.  A leader compares, so needs what is really committed. */
	int rc = kafka_committed(stable ? o->query : o->peek, o->p->config->source_topic, o->p->n,
				 leading ? LEADING_ANSWER_MS : ANSWER_MS, o->committed, err,
				 sizeof(err));
	if (rc) {
		log_debug(NULL, "%s", err);
		if (rc == KAFKA_DENIED_GROUP)
			say_denied(o, err);
		return;
	}
	if (!leading) {
		take_committed(o);
		o->stable = stable;
		return;
	}
	for (int p = 0; p < o->p->n; p++)
		compare_committed(o, &o->standings[p], p);
}

/* ---- fitness ---- */

static bool alone_in_group(struct owner *o)
{
	char group[300], err[300];

	kafka_group_id(o->p->config, group, sizeof(group));
	int members = kafka_group_members(o->query, group, ANSWER_MS, err, sizeof(err));
	return members >= 0 && members <= (o->subscribed ? 1 : 0);
}

/* Without notifications there is nothing committed that could speak against anybody. */
static enum fitness look_at_snapshot(const struct owner *o, int *where)
{
	for (int p = 0; p < o->p->n; p++) {
		*where = p;
		if (o->standings[p].due)
			return UNFIT_ROUND;
		if (!o->standings[p].caught_up)
			return UNFIT_BEHIND;
	}
	*where = 0;
	return FIT;
}

static enum fitness look(struct owner *o, int *where)
{
	const char *self = state_uuid(o->p->state);
	enum fitness f;

	*where = 0;
	if (!o->known)
		return UNFIT_UNKNOWN;
	pipeline_standings(o->p, o->standings);
	if (!o->p->publishing)
		return look_at_snapshot(o, where);
	f = decide_fitness(o->standings, o->p->n, self, false, where);
	/* asking who is in the group costs a request: only where the answer matters */
	if (f == UNFIT_NOT_WHOLE && (o->publisher || alone_in_group(o)))
		f = FIT_AS_GAP;
	return f;
}

static void subscribe(struct owner *o)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(1);

	rd_kafka_topic_partition_list_add(l, o->p->config->source_topic, RD_KAFKA_PARTITION_UA);
	FAULT_POINT("owner.subscribe");
	if (!rd_kafka_subscribe(o->rk, l))
		o->subscribed = true;
	rd_kafka_topic_partition_list_destroy(l);
}

static void leave(struct owner *o)
{
	rd_kafka_unsubscribe(o->rk);
	o->subscribed = false;
}

static void act_on(struct owner *o, enum fitness f, int where)
{
	bool fit = f == FIT || f == FIT_AS_GAP;

	if (f != o->fitness) {
		log_info(NULL, "partition %d: %s", where, fitness_text(f));
		if (!fit && !o->resumes)
			pipeline_role(o->p, fitness_text(f));
		else if (!o->subscribed && !o->resumes)
			pipeline_role(o->p, "joining the group");
	}
	if (f == UNFIT_FUTURE && f != o->fitness)
		log_error("SN-OFFSETS-FUTURE",
			  "%s [%d]: the offsets of group sidenote.%s were committed by a newer "
			  "version of sidenote, and this one does not understand what it says of "
			  "them: it publishes nothing; use the newer version",
			  o->p->config->source_topic, where, o->p->config->name);
	o->fitness = f;
	metrics_set(METRIC_FIT, fit);
	if (f == UNFIT_LOST)
		pipeline_offsets_lost(o->p, where);
	if (f == UNFIT_BACK)
		pipeline_offsets_back(o->p, where, o->standings[where].seen,
				      o->standings[where].published.offset);
	if (f == UNFIT_JOURNAL)
		pipeline_end(o->p, OUTCOME_REFILL, NULL,
			     "partition %d: the journal begins after the published position: "
			     "filling anew up to there",
			     where);
	if (fit && !o->subscribed)
		subscribe(o);
	else if (!fit && o->subscribed)
		leave(o);
}

/* ---- to resume, before the group has decided ---- */

/* At the first look only: how long this state was away, and that it was the last to publish, is
 * true of that moment. */
static void look_back(struct owner *o)
{
	if (o->looked_back)
		return;
	o->looked_back = true;
	pipeline_standings(o->p, o->standings);
	if (!o->known || !o->p->publishing || o->p->offsets_forgotten ||
	    !decide_may_resume(o->standings, o->p->n, state_uuid(o->p->state)))
		return;
	FAULT_POINT("owner.resume");
	log_info(NULL,
		 "resuming: this state was the last to publish, so it goes on before the group "
		 "sidenote.%s has a leader",
		 o->p->config->name);
	pipeline_role(o->p, "leader, resumed");
	metrics_add(METRIC_RESUMES, 1);
	o->resumes = true;
	if (publish_start(&o->publisher, o->p, o->query, NULL))
		pipeline_end(o->p, OUTCOME_UNREACHABLE, "SN-MEMORY", "out of memory");
}

static void end_resume(struct owner *o)
{
	stop_publisher(o);
	log_info(NULL, "not resuming any more: whom the group elects publishes");
	pipeline_role(o->p, o->subscribed ? "waiting for the group" : fitness_text(o->fitness));
}

/* A leader is fit as long as nothing new speaks against it: P moves under our feet. */
static void consider(struct owner *o)
{
	int64_t now = kafka_now_ms();
	int where;

	if (now - o->looked_ms < LOOK_MS)
		return;
	o->looked_ms = now;
	if (now - o->asked_ms >= COMMITTED_MS || !o->known || o->want_stable) {
		o->asked_ms = now;
		ask_committed(o);
	}
	look_back(o);
	if (o->resumes && publish_ended(o->publisher)) {
		end_resume(o);
	} else if (o->publisher && publish_ended(o->publisher)) {
		stop_publisher(o);
		leave(o); /* to join again, where fit, with a generation that holds */
	}
	enum fitness f = look(o, &where);
	if (o->resumes && !decide_may_resume(o->standings, o->p->n, state_uuid(o->p->state)))
		end_resume(o);
	/* what a peek saw may be older than what was trimmed by: nothing is given up for that */
	o->want_stable = (f == UNFIT_JOURNAL || f == UNFIT_LOST || f == UNFIT_BACK) && !o->stable;
	if (!o->want_stable)
		act_on(o, f, where);
	if (o->publisher && publish_call_ms(o->publisher) > CALL_BUDGET_MS) {
		log_error("SN-PUBLISHER-STUCK",
			  "a call to Kafka has not returned for %d s; ending the process, which "
			  "loses nothing: start it again",
			  CALL_BUDGET_MS / 1000);
		_exit(3);
	}
}

/* ---- thread ---- */

static void poll_group(struct owner *o)
{
	rd_kafka_message_t *m = rd_kafka_consumer_poll(o->rk, POLL_MS);

	if (!m)
		return;
	if (m->err == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED)
		say_denied(o, rd_kafka_message_errstr(m));
	else if (m->err && m->err != RD_KAFKA_RESP_ERR__PARTITION_EOF)
		log_debug(NULL, "group: %s", rd_kafka_message_errstr(m));
	rd_kafka_message_destroy(m);
}

static void *run(void *arg)
{
	struct owner *o = arg;

	while (!pipeline_stopping(o->p)) {
		poll_group(o);
		consider(o);
	}
	FAULT_POINT("owner.leave");
	kafka_leave(o->rk); /* calls back for the revoke: both stop there */
	FAULT_POINT("owner.left");
	stop_publisher(o);
	stop_mirror(o);
	return NULL;
}

static void free_owner(struct owner *o)
{
	kafka_free(o->rk);
	mirror_close(o->mirror);
	free(o->standings);
	free(o->committed);
	free(o);
}

int owner_start(struct owner **out, struct pipeline *p, rd_kafka_t *query, rd_kafka_t *peek)
{
	struct owner *o = calloc(1, sizeof(*o));
	char err[300];
	int rc = -ENOMEM;

	if (!o)
		return rc;
	o->p = p;
	o->query = query;
	o->peek = peek;
	o->fitness = UNFIT_UNKNOWN;
	o->hooks = (struct kafka_hooks){ .counts = &o->counts,
					 .rebalance = on_rebalance,
					 .opaque = o };
	o->standings = calloc((size_t)p->n, sizeof(*o->standings));
	o->committed = calloc((size_t)p->n, sizeof(*o->committed));
	if (!o->standings || !o->committed || (*p->config->redis_uri && mirror_open(&o->mirror, p)))
		goto out;
	o->rk = kafka_new(p->config, KAFKA_OWNER, &o->hooks, err, sizeof(err));
	if (!o->rk) {
		pipeline_end(p, OUTCOME_USAGE, "SN-KAFKA-CONFIG", "consumer: %s", err);
		rc = -EINVAL;
		goto out;
	}
	rc = -pthread_create(&o->thread, NULL, run, o);
out:
	if (rc) {
		free_owner(o);
		return rc;
	}
	*out = o;
	return 0;
}

void owner_join(struct owner *o)
{
	if (!o)
		return;
	pthread_join(o->thread, NULL);
	free_owner(o);
}
