#include "rebuild.h"
#include "apply.h"
#include "delta.h"
#include "fault.h"
#include "fill.h"
#include "kafka.h"
#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POLL_MS = 100, ANSWER_MS = 5000, FILL_MS = 10000, RECORDS_PER_TXN = 50000 };

struct rebuild {
	struct pipeline *p;
	struct tail *tail;
	struct state_dir *dir;
	struct state_identity who;
	const struct config *c;
	int n;
	struct state *fresh;
	struct delta *delta;
	struct position *from; /* [n]: A0 */
	struct state_partition *rows;
	bool *blind;
	struct batch batch;
	pthread_t thread;
	bool joined;
	atomic_bool stop;
	atomic_int state;     /* enum rebuild_state */
	pthread_mutex_t lock; /* text only */
	char text[600];
};

enum rebuild_state rebuild_state(const struct rebuild *r)
{
	return (enum rebuild_state)atomic_load(&r->state);
}

static void say(struct rebuild *r, const char *text)
{
	pthread_mutex_lock(&r->lock);
	snprintf(r->text, sizeof(r->text), "%s", text);
	pthread_mutex_unlock(&r->lock);
}

void rebuild_text(struct rebuild *r, char *out, size_t len)
{
	pthread_mutex_lock(&r->lock);
	snprintf(out, len, "%s", r->text);
	pthread_mutex_unlock(&r->lock);
}

static bool stopping(const struct rebuild *r)
{
	return atomic_load(&r->stop) || pipeline_stopping(r->p);
}

/* Step 1. */
static bool wait_round(struct rebuild *r)
{
	long long before = atomic_load(&r->p->rounds);

	if (r->c->reconcile == RECONCILE_OFF)
		return true;
	say(r, "a round on the live generation");
	atomic_store(&r->p->round_wanted, true);
	while (atomic_load(&r->p->rounds) == before) {
		if (stopping(r))
			return false;
		usleep(POLL_MS * 1000);
	}
	return true;
}

static int apply_some(struct rebuild *r, char *err, size_t err_len)
{
	const struct apply_options o = { .moved = r->c->source_moved, .blind = r->blind };
	struct apply_counts counts = { 0 };
	struct state_txn *t;
	int rc;

	batch_clear(&r->batch);
	if ((rc = delta_take(r->delta, &r->batch, RECORDS_PER_TXN)) || !r->batch.n ||
	    (rc = state_begin(r->fresh, &t)))
		return rc;
	rc = apply_batch(t, &r->batch, &o, &counts, err, err_len);
	if (rc)
		state_abort(t);
	else
		rc = state_commit(t);
	return rc;
}

/* Apply the delta as far as it goes.  While the tail runs, it ends near the tail's end. */
static int drain(struct rebuild *r, char *err, size_t err_len)
{
	int rc;

	err[0] = '\0';
	do {
		rc = apply_some(r, err, err_len);
		if (!rc && atomic_load(&r->stop))
			rc = -EINTR;
	} while (!rc && r->batch.n);
	batch_clear(&r->batch);
	if (rc && !err[0])
		snprintf(err, err_len, "applying what changed meanwhile: %s", state_strerror(rc));
	return rc;
}

/* A key that is gone is told from the old generation, and a new one may lack it already. */
static int no_round_is_due(struct rebuild *r, const struct standing *s, char *err, size_t err_len)
{
	for (int p = 0; p < r->n; p++)
		if (s[p].due) {
			snprintf(err, err_len, "a round has become due meanwhile; ask again");
			return -EAGAIN;
		}
	return 0;
}

/*
 * What the fill did not find in the log any more was superseded by records that
 * the tail must have read before the switch, or the old value would be lost.
 */
static int wait_tail(struct rebuild *r, char *err, size_t err_len)
{
	struct standing *s = calloc((size_t)r->n, sizeof(*s));
	rd_kafka_t *rk = kafka_new(r->c, KAFKA_QUERY, NULL, err, err_len);
	int64_t low, end;
	int rc = s && rk ? 0 : -ENOMEM;

	for (int p = 0; p < r->n && !rc; p++) {
		rc = kafka_watermarks(rk, r->c->source_topic, p, ANSWER_MS, &low, &end, err,
				      err_len);
		while (!rc) {
			pipeline_standings(r->p, s);
			if ((rc = no_round_is_due(r, s, err, err_len)) || s[p].applied >= end)
				break;
			usleep(POLL_MS * 1000);
			if (stopping(r))
				rc = -EINTR;
		}
	}
	kafka_free(rk);
	free(s);
	return rc;
}

/* Then a tombstone below A0 may have been purged under it, whose key it has read before. */
static bool fill_took_too_long(struct rebuild *r, int64_t ms)
{
	return ms > FILL_MS &&
	       decide_round_due(ms, atomic_load(&r->p->limits.delete_retention_ms), true);
}

/* Steps 2 and 3. */
static int fill_beside(struct rebuild *r, char *err, size_t err_len)
{
	const struct state_options so = { .lease_ms = state_lease_ms(r->p->state) };
	int64_t *from = calloc((size_t)r->n, sizeof(*from)), began = kafka_now_ms();
	const char *id;
	int rc;

	snprintf(err, err_len, "out of memory");
	if (!from)
		return -ENOMEM;
	if ((rc = state_create(&r->fresh, r->dir, &r->who, &so, err, err_len)) ||
	    (rc = delta_open(&r->delta, r->c->state_dir, err, err_len)))
		goto out;
	FAULT_POINT("rebuild.made");
	if ((rc = tail_follow(r->tail, r->delta, from))) {
		snprintf(err, err_len, "the pipeline is ending");
		goto out;
	}
	for (int p = 0; p < r->n; p++)
		r->from[p].offset = from[p];
	say(r, "filling the new generation");
	rc = fill_run(r->c, r->fresh, r->n, r->from, r->rows, &r->stop, &id, err, err_len);
	if (rc)
		goto out;
	if (fill_took_too_long(r, kafka_now_ms() - began)) {
		snprintf(err, err_len,
			 "filling took longer than half of delete.retention.ms: a "
			 "delete may have been purged before it was read");
		rc = -ETIME;
		goto out;
	}
	FAULT_POINT("rebuild.filled");
	say(r, "waiting until the tail has read what was written meanwhile");
	if ((rc = wait_tail(r, err, err_len)))
		goto out;
	say(r, "applying what changed meanwhile");
	FAULT_POINT("rebuild.drain");
	rc = drain(r, err, err_len);
out:
	free(from);
	return rc;
}

static void *run(void *arg)
{
	struct rebuild *r = arg;
	char err[600] = "the pipeline is ending";

	if (!wait_round(r) || fill_beside(r, err, sizeof(err))) {
		say(r, err);
		atomic_store(&r->state, REBUILD_FAILED);
		return NULL;
	}
	say(r, "switching");
	atomic_store(&r->state, REBUILD_READY);
	pipeline_end(r->p, OUTCOME_SWITCH, NULL, "rebuild: switching to the new generation");
	return NULL;
}

int rebuild_start(struct rebuild **out, struct pipeline *p, struct tail *t, struct state_dir *dir,
		  const struct state_identity *who)
{
	struct rebuild *r = calloc(1, sizeof(*r));
	size_t n = (size_t)p->n;

	if (!r)
		return -ENOMEM;
	r->p = p;
	r->tail = t;
	r->dir = dir;
	r->who = *who;
	r->c = p->config;
	r->n = p->n;
	pthread_mutex_init(&r->lock, NULL);
	r->from = calloc(n, sizeof(*r->from));
	r->rows = calloc(n, sizeof(*r->rows));
	r->blind = calloc(n, sizeof(*r->blind));
	if (r->from && r->rows && r->blind && !pthread_create(&r->thread, NULL, run, r)) {
		*out = r;
		return 0;
	}
	r->joined = true;
	rebuild_free(r);
	return -ENOMEM;
}

static void join(struct rebuild *r)
{
	if (!r->joined)
		pthread_join(r->thread, NULL);
	r->joined = true;
}

void rebuild_halt(struct rebuild *r)
{
	if (!r)
		return;
	if (rebuild_state(r) != REBUILD_READY)
		atomic_store(&r->stop, true);
	join(r);
}

int rebuild_finish(struct rebuild *r, struct state *live, char *err, size_t err_len)
{
	int rc;

	join(r);
	if (rebuild_state(r) != REBUILD_READY) {
		rebuild_text(r, err, err_len);
		return -1;
	}
	if (delta_failed(r->delta)) {
		snprintf(err, err_len, "what changed meanwhile could not be kept: %s",
			 state_strerror(delta_failed(r->delta)));
		return -1;
	}
	struct standing *s = calloc((size_t)r->n, sizeof(*s));
	if (s)
		pipeline_standings(r->p, s);
	rc = s ? no_round_is_due(r, s, err, err_len) : -ENOMEM;
	free(s);
	if (rc || drain(r, err, err_len))
		return -1;
	FAULT_POINT("rebuild.drained");
	rc = state_take_over(r->fresh, live);
	if (rc) {
		snprintf(err, err_len, "taking over journal and positions: %s", state_strerror(rc));
		return -1;
	}
	FAULT_POINT("rebuild.taken_over");
	if (state_make_current(r->fresh, err, err_len))
		return -1;
	FAULT_POINT("rebuild.switched");
	state_close(r->fresh);
	r->fresh = NULL;
	return 0;
}

void rebuild_free(struct rebuild *r)
{
	if (!r)
		return;
	atomic_store(&r->stop, true);
	join(r);
	if (r->delta)
		delta_fail(r->delta, -ECANCELED); /* the tail, if it follows still, lets go of it */
	delta_close(r->delta);
	state_close(r->fresh);
	batch_free(&r->batch);
	free(r->from);
	free(r->rows);
	free(r->blind);
	pthread_mutex_destroy(&r->lock);
	free(r);
}
