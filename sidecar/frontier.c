#include "frontier.h"
#include "fault.h"
#include "kafka.h"
#include "log.h"
#include "metrics.h"
#include "probe.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	ANSWER_MS = 5000,
	LOOK_MS = 200,       /* between looks for pairs that wait */
	NO_ANSWER_MS = 4000, /* before the next attempt */
	PROBES_OF_TURN = 8,  /* of one partition, before the leader is asked for */
	SAY_MS = 60000,
};

enum found { FOUND_PRESENT, FOUND_GONE, FOUND_NOTHING, FOUND_ELSEWHERE };

struct part {
	struct probe probe;
	struct gone known;      /* as told last */
	int64_t from, below;    /* of this turn: gone, if the leader stays the same */
	int64_t gone_ms;        /* wall clock of the last answer that said so */
	int64_t stuck_ms, wait; /* monotonic: the first pair was still there; how long to wait */
	int64_t stuck_end;      /* what was applied of the log then */
	int64_t again_ms;       /* after no answer: not before */
	int32_t leader;         /* as the brokers said last; -1: not known */
	bool elsewhere;         /* another one has answered in this turn */
};

struct frontier {
	struct pipeline *p;
	rd_kafka_t *rk; /* NULL until something waits */
	struct part *part;
	struct standing *standings;
	struct state_pair *pairs; /* [PROBE_WIDTH_MAX] */
	int64_t next_ms;          /* the next request not before */
	int64_t said_ms;
	unsigned forgotten; /* of the pipeline, at the start of the turn */
	pthread_t thread;
};

/* ---- asking ---- */

/* Requests are spread out: the share that they take is bounded. */
static bool pace(struct frontier *f)
{
	int64_t now = kafka_now_ms();

	while (now < f->next_ms && !pipeline_stopping(f->p)) {
		usleep((useconds_t)(f->next_ms - now < 50 ? f->next_ms - now : 50) * 1000);
		now = kafka_now_ms();
	}
	f->next_ms = now + 1000 / f->p->config->compacted_probes;
	metrics_add(METRIC_PROBES, 1);
	return !pipeline_stopping(f->p);
}

static void say(struct frontier *f, const char *what)
{
	int64_t now = kafka_now_ms();

	if (f->said_ms && now - f->said_ms < SAY_MS)
		return;
	f->said_ms = now;
	log_warn("SN-FRONTIER",
		 "looking for what compaction has removed from %s: %s; trying again, nothing is "
		 "lost",
		 f->p->config->source_topic, what);
}

static enum found meaning(const rd_kafka_message_t *m, int64_t offset)
{
	switch (m->err) {
	case RD_KAFKA_RESP_ERR_NO_ERROR:
		return m->offset == offset ? FOUND_PRESENT : FOUND_GONE;
	case RD_KAFKA_RESP_ERR__PARTITION_EOF:
		return m->offset > offset ? FOUND_GONE : FOUND_NOTHING;
	case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET: /* below the log's start, or another topic */
		return FOUND_GONE;
	default:
		return FOUND_NOTHING;
	}
}

/*
 * Only the leader answers a fetch.  Was that another one than before and after the
 * turn, it led in between, and knows nothing of the one that is told.
 */
static bool is_elsewhere(const struct part *part, const rd_kafka_message_t *m)
{
	int32_t id = rd_kafka_message_broker_id(m);

	return id >= 0 && id != part->leader;
}

static enum found ask(struct frontier *f, int p, int64_t offset)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(1);
	int64_t until = kafka_now_ms() + ANSWER_MS;
	enum found found = FOUND_NOTHING;

	rd_kafka_topic_partition_list_add(l, f->p->config->source_topic, p)->offset = offset;
	rd_kafka_assign(f->rk, l);
	while (found == FOUND_NOTHING && kafka_now_ms() < until && !pipeline_stopping(f->p)) {
		rd_kafka_message_t *m = rd_kafka_consumer_poll(f->rk, 100);

		if (!m)
			continue;
		found = meaning(m, offset);
		if (found != FOUND_NOTHING && is_elsewhere(&f->part[p], m))
			found = FOUND_ELSEWHERE;
		rd_kafka_message_destroy(m);
	}
	rd_kafka_assign(f->rk, NULL); /* it would go on fetching */
	rd_kafka_topic_partition_list_destroy(l);
	return found;
}

/* Who leads each partition now: 0, or -1 when nobody says. */
static int ask_leaders(struct frontier *f, int32_t *leader)
{
	rd_kafka_topic_t *rkt = rd_kafka_topic_new(f->rk, f->p->config->source_topic, NULL);
	const struct rd_kafka_metadata *md = NULL;
	int rc = -1;

	for (int p = 0; p < f->p->n; p++)
		leader[p] = -1;
	if (rkt && pace(f) && !rd_kafka_metadata(f->rk, 0, rkt, &md, ANSWER_MS)) {
		for (int i = 0; md->topic_cnt && i < md->topics[0].partition_cnt; i++) {
			const struct rd_kafka_metadata_partition *m = &md->topics[0].partitions[i];
			if (m->id >= 0 && m->id < f->p->n)
				leader[m->id] = m->leader;
		}
		rc = 0;
		rd_kafka_metadata_destroy(md);
	}
	if (rkt)
		rd_kafka_topic_destroy(rkt);
	return rc;
}

/* ---- one partition ---- */

/* The next pairs from `from` on whose overwriting is notified: how many, or < 0. */
static int read_pairs(struct frontier *f, int p, int64_t from, size_t max)
{
	int64_t published = f->standings[p].published.offset;
	struct state_view *v;
	size_t n = 0;
	int rc = state_view_begin(f->p->state, &v);

	if (rc)
		return rc;
	rc = state_view_pair(v, p, from, &f->pairs[0]);
	while (!rc && f->pairs[n].offset < published && ++n < max)
		rc = state_view_pair_next(v, &f->pairs[n]);
	state_view_end(v);
	return rc && rc != -ENOENT ? rc : (int)n;
}

/* The first pair is still there. */
static void wait_longer(struct frontier *f, int p)
{
	struct part *part = &f->part[p];
	int64_t end = f->standings[p].applied;

	part->wait = probe_wait_ms(part->wait, end != part->stuck_end);
	part->stuck_ms = kafka_now_ms();
	part->stuck_end = end;
}

static bool may_ask(const struct frontier *f, int p)
{
	const struct part *part = &f->part[p];
	bool grew = f->standings[p].applied != part->stuck_end;
	int64_t wait = grew && part->wait > PROBE_WAIT_MAX_MS ? PROBE_WAIT_MAX_MS : part->wait;
	int64_t now = kafka_now_ms();

	return now >= part->again_ms && now >= part->stuck_ms + wait;
}

static void learn(struct frontier *f, int p, const struct state_pair *pairs, size_t i, bool gone)
{
	struct part *part = &f->part[p];
	int64_t wall = kafka_wall_ms();
	bool stuck;
	size_t n = probe_learn(&part->probe, pairs, i, gone, &stuck);

	if (n) {
		part->below = pairs[n - 1].offset + 1;
		part->gone_ms = wall;
		part->wait = 0;
	}
	if (!gone) {
		part->known.present_ms = wall;
		part->known.present_r = pairs[i].old_offset;
		part->known.present_s = pairs[i].offset;
	}
	if (stuck)
		wait_longer(f, p);
}

/* Whether anything was asked. */
static bool go_through(struct frontier *f, int p)
{
	struct part *part = &f->part[p];
	bool asked = false;

	for (int i = 0; i < PROBES_OF_TURN && may_ask(f, p); i++) {
		int n = read_pairs(f, p, part->below, probe_width(&part->probe));

		if (n <= 0 || !pace(f))
			break;
		asked = true;
		size_t which = probe_choose(&part->probe, f->pairs, (size_t)n);
		enum found found = ask(f, p, f->pairs[which].old_offset);
		FAULT_POINT("frontier.answer");
		part->elsewhere |= found == FOUND_ELSEWHERE;
		if (found == FOUND_ELSEWHERE)
			break;
		if (found == FOUND_NOTHING) {
			if (!pipeline_stopping(f->p))
				say(f, "no answer");
			part->again_ms = kafka_now_ms() + NO_ANSWER_MS;
			break;
		}
		learn(f, p, f->pairs, which, found == FOUND_GONE);
	}
	return asked;
}

/* ---- all of them ---- */

/* What this turn has found, unless the leader is another than before it. */
static void tell(struct frontier *f, const int32_t *leader)
{
	for (int p = 0; p < f->p->n; p++) {
		struct part *part = &f->part[p];
		bool same = leader[p] >= 0 && leader[p] == part->leader && !part->elsewhere;

		if (!same) { /* what was seen present was seen there as well */
			part->known.present_ms = -1;
			part->probe = (struct probe){ 0 };
			part->again_ms = part->wait = 0;
		}
		part->elsewhere = false;
		part->leader = leader[p];
		if (!same || part->below <= part->from)
			continue;
		part->known.from = part->from;
		part->known.below = part->below;
		part->known.gone_ms = part->gone_ms;
		part->known.leader = leader[p];
		pipeline_gone(f->p, p, &part->known, f->forgotten);
		FAULT_POINT("frontier.told");
		metrics_set_at(METRIC_GONE_OFFSET, p, part->below);
		part->below = part->from;
	}
}

static bool something_waits(struct frontier *f, int p)
{
	return f->standings[p].published.offset > f->standings[p].cursor && may_ask(f, p) &&
	       f->part[p].known.below <= f->standings[p].cursor && /* what is known is told */
	       read_pairs(f, p, f->standings[p].cursor, 1) > 0;
}

static bool open_client(struct frontier *f)
{
	char err[300];

	if (!f->rk)
		f->rk = kafka_new(f->p->config, KAFKA_FRONTIER, NULL, err, sizeof(err));
	if (!f->rk)
		pipeline_end(f->p, OUTCOME_USAGE, "SN-KAFKA-CONFIG", "frontier: %s", err);
	return f->rk;
}

static void turn(struct frontier *f)
{
	int32_t *leader = calloc((size_t)f->p->n, sizeof(*leader));
	bool asked = false;

	for (int p = 0; p < f->p->n && leader; p++) {
		f->part[p].from = f->part[p].below = f->standings[p].cursor;
		if (pipeline_stopping(f->p) || !something_waits(f, p) || !open_client(f))
			continue;
		if (f->part[p].leader < 0) { /* who was asked has to be known before */
			asked = true;
			break;
		}
		asked |= go_through(f, p);
	}
	if (asked && ask_leaders(f, leader) == 0)
		tell(f, leader);
	free(leader);
}

/* Whoever led meanwhile may have told what this sidecar knows, and more. */
static void forget(struct frontier *f)
{
	for (int p = 0; p < f->p->n; p++)
		f->part[p] = (struct part){ .known = { .present_ms = -1 }, .leader = -1 };
}

static void *run(void *arg)
{
	struct frontier *f = arg;
	forget(f);
	while (!pipeline_stopping(f->p)) {
		unsigned forgotten = atomic_load(&f->p->forgotten);

		if (forgotten != f->forgotten)
			forget(f);
		f->forgotten = forgotten;
		pipeline_standings(f->p, f->standings);
		if (atomic_load(&f->p->leading))
			turn(f);
		for (int ms = 0; ms < LOOK_MS && !pipeline_stopping(f->p); ms += 50)
			usleep(50000);
	}
	return NULL;
}

/* ---- start and end ---- */

static void free_frontier(struct frontier *f)
{
	kafka_free(f->rk);
	free(f->part);
	free(f->standings);
	free(f->pairs);
	free(f);
}

int frontier_start(struct frontier **out, struct pipeline *p)
{
	struct frontier *f = calloc(1, sizeof(*f));
	int rc = 0;

	if (!f)
		return -ENOMEM;
	f->p = p;
	f->part = calloc((size_t)p->n, sizeof(*f->part));
	f->standings = calloc((size_t)p->n, sizeof(*f->standings));
	f->pairs = calloc(PROBE_WIDTH_MAX + 1, sizeof(*f->pairs));
	if (!f->part || !f->standings || !f->pairs)
		rc = -ENOMEM;
	if (!rc)
		rc = -pthread_create(&f->thread, NULL, run, f);
	if (rc) {
		free_frontier(f);
		return rc;
	}
	*out = f;
	return 0;
}

void frontier_join(struct frontier *f)
{
	if (!f)
		return;
	pthread_join(f->thread, NULL);
	free_frontier(f);
}
