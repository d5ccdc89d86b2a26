/*
 * mirror.c - Redis is the fold of the log up to the positions in its mark
 * (mark.h).  These are the rules; whoever breaks off after any step leaves what
 * the next one can go on from.
 *
 * A batch:
 *   1. The mark is watched (WATCH) and then read: epoch, by and seq are those
 *      that this thread left there.
 *   2. Records are taken from the log, from the positions on.  Of each key the
 *      last one counts: nobody can see Redis between them.
 *   3. MULTI, and once it is answered, in one write: the data, the positions, a
 *      new seq, EXEC, and WATCH and HMGET for step 1 of the next batch.
 *   4. EXEC answers nil if anybody has touched the mark since step 1; then the
 *      server has done nothing, and the mark is read anew.
 *   A crash, a lost connection or a Redis that loses its newest writes leave
 *   data and positions of one and the same earlier moment.  So: connect again,
 *   read the positions, go on from there; replaying changes nothing.
 *
 * Who may write:
 *   5. Whoever is assigned partition 0 raises the epoch, once: WATCH, HGETALL,
 *      MULTI, HSET epoch, EXEC.  From then on every EXEC of a predecessor answers
 *      nil, also one that was on its way, and also after years of SIGSTOP.
 *   6. A predecessor that finds a higher epoch rests; only if nobody has revoked
 *      its assignment by then, it raises the epoch in turn.  Two that believe to
 *      lead hinder each other, but write nothing wrong: a batch is carried out
 *      only if the positions are those that it was made for.
 *   Why not a script: MULTI does not stop at a command that fails, so a script
 *   in it cannot hold the rest back, and one around everything needs rights and
 *   arguments without bound.  WATCH also sees FLUSHALL, eviction, and by hand.
 *
 * A resync, when the mark is missing, or has `resync` in it, or a position is not
 * in the log any more, or after a gap (9), a round, or a torn transaction:
 *   7. mirror_resync.c has the steps: from the snapshot, live, nothing wiped.
 *   8. `resync` stands in the mark from before the first step until after the
 *      last.  Whoever finds it begins from the first.
 *
 * Purged tombstones:
 *   9. A delete whose tombstone was purged before it was read is missed.  So t<N>
 *      is kept: the last time at which the log was seen to end at a position.
 *      Where records are read more than half of delete.retention.ms after it,
 *      `resync` goes into the same transaction as they do.
 *
 * Not in step 3's hands: a command that fails inside of EXEC (rights that change
 * between its queueing and EXEC) fails alone.  Every answer is looked at; then
 * `resync` is set.
 */
#include "mirror_private.h"
#include "kafka.h"
#include "log.h"
#include "metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	POLL_MS = 100,
	HELD_BACK_MS = 2000, /* for the snapshot to overtake Redis */
	RETRY_MS = 500,
	REFUSED_MS = 2000,
	FENCED_MS = 5000,
};

bool mirror_stopping(struct mirror *m) { return atomic_load(&m->stop) || pipeline_stopping(m->p); }

/* ---- a session: one connection ---- */

static void watch_rounds(struct mirror *m)
{
	long long rounds = pipeline_departures(m->p);

	if (m->phase == RESYNC_NONE ? rounds == m->rounds : rounds == m->rounds_begun)
		return;
	mirror_want(m, "keys have left the snapshot that the log does not tell of");
}

/* Until a resync begins, Redis is not to run ahead of the snapshot for ever. */
static bool held_back(struct mirror *m)
{
	int64_t now = kafka_now_ms();

	if (!m->behind_ms)
		return false;
	if (m->placed && now - m->behind_ms >= HELD_BACK_MS) {
		m->behind_ms = now;
		return false;
	}
	usleep(10000);
	return true;
}

static enum mirror_verdict go_on(struct mirror *m)
{
	enum mirror_verdict v = MIRROR_OK;
	bool resync;

	watch_rounds(m);
	resync = *m->want || m->phase != RESYNC_NONE;
	if (resync)
		v = mirror_resync(m);
	if (v == MIRROR_OK && resync && held_back(m))
		return kafka_now_ms() - m->looked_ms < MIRROR_LOOK_MS ? MIRROR_OK : mirror_look(m);
	if (v == MIRROR_OK && m->placed)
		v = mirror_follow(
			m, m->phase == RESYNC_STRAYS || m->phase == RESYNC_WALK ? 0 : POLL_MS);
	return v;
}

static enum mirror_verdict cannot_connect(struct mirror *m, int rc, const char *err)
{
	if (rc == -ECANCELED)
		return MIRROR_STOPPED;
	if (rc == -EACCES || rc == -EINVAL) {
		mirror_say(m, true, "SN-REDIS-LOGIN",
			   "%s: see redis.user, redis.password.file and redis.uri; trying again",
			   err);
		return MIRROR_REFUSED;
	}
	mirror_say(m, false, "SN-REDIS-UNREACHABLE",
		   "%s; trying again; snapshot and notifications go on", err);
	return MIRROR_LOST;
}

static enum mirror_verdict session(struct mirror *m)
{
	char err[400];
	int rc = redis_open(&m->r, &m->server, &m->stop, err, sizeof(err));
	enum mirror_verdict v;

	if (rc)
		return cannot_connect(m, rc, err);
	m->want[0] = '\0';
	m->placed = m->marked = false;
	m->phase = RESYNC_NONE;
	m->behind_ms = 0;
	m->kept_ms = kafka_now_ms();
	v = mirror_hold(m);
	if (v == MIRROR_OK && m->placed) {
		mirror_learn_caught(m);
		mirror_took_effect(m);
	}
	metrics_set(METRIC_REDIS_RESYNCING, v == MIRROR_OK && !m->placed);
	while (v == MIRROR_OK)
		v = mirror_stopping(m) ? MIRROR_STOPPED : go_on(m);
	redis_close(m->r); /* first: from here on this thread can do nothing more */
	m->r = NULL;
	mirror_close_log(m);
	return v;
}

static void rest(struct mirror *m, int ms)
{
	for (int64_t until = kafka_now_ms() + ms; !mirror_stopping(m) && kafka_now_ms() < until;)
		usleep(20000);
}

static void *run(void *arg)
{
	struct mirror *m = arg;

	while (!mirror_stopping(m)) {
		enum mirror_verdict v = session(m);
		if (v != MIRROR_STOPPED) {
			metrics_set(METRIC_REDIS_UP, 0);
			metrics_add(METRIC_REDIS_FAILURES, 1);
		}
		if (v == MIRROR_FENCED)
			log_warn("SN-REDIS-FENCED",
				 "Redis: another sidecar has raised the epoch in %s: it mirrors "
				 "now; "
				 "looking again if this one still leads in %d s",
				 m->key, FENCED_MS / 1000);
		rest(m, v == MIRROR_FENCED    ? FENCED_MS
			: v == MIRROR_REFUSED ? REFUSED_MS
			: v == MIRROR_CHANGED ? 20
					      : RETRY_MS);
	}
	/* another one may mirror now, which is nothing that is known here */
	metrics_set(METRIC_REDIS_UP, METRIC_UNKNOWN);
	metrics_set(METRIC_REDIS_RESYNCING, METRIC_UNKNOWN);
	for (int p = 0; p < m->p->n; p++)
		metrics_set_at(METRIC_REDIS_OFFSET, p, METRIC_UNKNOWN);
	return NULL;
}

/* ---- life ---- */

struct redis_options mirror_server(const struct config *c)
{
	return (struct redis_options){ .uri = c->redis_uri,
				       .user = c->redis_user,
				       .password_file = c->redis_password_file,
				       .tls_ca = c->redis_tls_ca,
				       .tls_cert = c->redis_tls_cert,
				       .tls_key = c->redis_tls_key };
}

int mirror_check(const struct config *c, char *err, size_t err_len)
{
	const struct redis_options o = mirror_server(c);

	return *c->redis_uri ? redis_check(&o, err, err_len) : 0;
}

/* The id, which does not change when cluster.name does. */
static void name_cluster(struct mirror *m)
{
	struct state_view *v;

	if (m->p->state && !state_view_begin(m->p->state, &v)) {
		if (state_view_meta(v, "cluster_id", m->cluster, sizeof(m->cluster)))
			m->cluster[0] = '\0';
		state_view_end(v);
	}
	if (!*m->cluster)
		memcpy(m->cluster, m->p->cluster, sizeof(m->cluster));
}

static int make(struct mirror *m)
{
	size_t n = (size_t)m->p->n;
	char *client;

	name_cluster(m);
	snprintf(m->key, sizeof(m->key), "%s%s", MARK_KEYS, m->c->name);
	m->self = (struct mark_self){ .name = m->c->name,
				      .cluster = m->cluster,
				      .topic = m->c->source_topic,
				      .prefix = m->c->redis_prefix,
				      .partitions = m->p->n,
				      .adopt = m->c->redis_adopt };
	m->server = mirror_server(m->c);
	m->prefix_len = strlen(m->self.prefix);
	m->pattern = redis_pattern(m->self.prefix, m->prefix_len, &m->pattern_len);
	m->part = calloc(n, sizeof(*m->part));
	m->ev.eof = calloc(n, sizeof(*m->ev.eof));
	m->ev.eof_offset = calloc(n, sizeof(*m->ev.eof_offset));
	if (asprintf(&client, "sidenote-%s-mirror", m->c->name) < 0)
		return -ENOMEM;
	m->server.client = client;
	return m->pattern && m->part && m->ev.eof && m->ev.eof_offset ? 0 : -ENOMEM;
}

int mirror_open(struct mirror **out, struct pipeline *p)
{
	struct mirror *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->p = p;
	m->c = p->config;
	if (make(m)) {
		mirror_close(m);
		return -ENOMEM;
	}
	*out = m;
	return 0;
}

void mirror_close(struct mirror *m)
{
	if (!m)
		return;
	arena_free(&m->texts);
	arena_free(&m->chunk);
	free((char *)m->server.client);
	free(m->pattern);
	free(m->part);
	free(m->ev.eof);
	free(m->ev.eof_offset);
	free(m);
}

int mirror_start(struct mirror *m)
{
	m->epoch = 0;
	m->synced[0] = m->owed[0] = m->said_id[0] = '\0';
	m->unchecked_said = false;
	for (int p = 0; p < m->p->n; p++)
		m->part[p].live = false;
	atomic_store(&m->stop, false);
	int rc = -pthread_create(&m->thread, NULL, run, m);
	m->running = !rc;
	return rc;
}

void mirror_halt(struct mirror *m)
{
	if (m)
		atomic_store(&m->stop, true);
}

bool mirror_stop(struct mirror *m, int budget_ms)
{
	struct timespec until;

	mirror_halt(m);
	if (!m || !m->running)
		return true;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += budget_ms / 1000;
	if (pthread_clockjoin_np(m->thread, NULL, CLOCK_MONOTONIC, &until))
		return false;
	m->running = false;
	return true;
}
