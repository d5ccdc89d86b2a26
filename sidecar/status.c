#include "status.h"
#include "metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

enum { ALIVE_MS = 10000 }; /* a heartbeat may be this old, or three leases */

/* ---- copying ---- */

static void take_pipeline(struct status *st, struct pipeline *p)
{
	struct standing *s = calloc((size_t)p->n, sizeof(*s));

	st->running = true;
	st->ending = pipeline_stopping(p);
	st->leading = atomic_load(&p->leading);
	st->publishing = p->publishing;
	st->journal_limit = p->journal_max_bytes;
	memcpy(st->cluster, p->cluster, sizeof(st->cluster));
	pthread_mutex_lock(&p->lock);
	st->caught_up = p->caught_up;
	memcpy(st->role, p->role, sizeof(st->role));
	if (s)
		memcpy(s, p->part, (size_t)p->n * sizeof(*s));
	pthread_mutex_unlock(&p->lock);
	st->part = s ? calloc((size_t)p->n, sizeof(*st->part)) : NULL;
	st->n = st->part ? p->n : 0;
	for (int i = 0; i < st->n; i++)
		st->part[i] = (struct status_partition){ .applied = s[i].applied,
							 .published = s[i].published.offset,
							 .base = s[i].base.offset,
							 .start = s[i].start,
							 .whole = s[i].whole,
							 .due = s[i].due,
							 .cursor = s[i].cursor,
							 .caught_up = s[i].caught_up };
	free(s);
}

/* Before a pipeline is set up, or while one is set up anew: what the snapshot has. */
static void take_stored(struct status *st, struct sstate *s)
{
	st->part = calloc((size_t)st->snapshot.partitions + 1, sizeof(*st->part));
	st->n = st->part ? st->snapshot.partitions : 0;
	for (int i = 0; i < st->n; i++) {
		struct sstate_partition row = { -1, -1, -1, -1, -1, -1 };
		sstate_partition(s, i, &row);
		st->part[i] = (struct status_partition){ .applied = row.applied,
							 .published = row.published,
							 .base = row.base,
							 .start = row.start,
							 .whole = row.whole,
							 .due = row.due >= 0 };
	}
}

static void take_lags(struct status *st, struct status_partition *p, int i)
{
	/* the end is asked for now and then: what was read since was there too */
	if (metrics_value_at(METRIC_LOG_END_OFFSET, i) != METRIC_UNKNOWN)
		metrics_raise_at(METRIC_LOG_END_OFFSET, i, p->applied);
	int64_t end = metrics_value_at(METRIC_LOG_END_OFFSET, i);
	int64_t ms = metrics_value_at(METRIC_APPLIED_MS, i);

	p->log_end = end == METRIC_UNKNOWN ? -1 : end;
	p->applied_ms = ms == METRIC_UNKNOWN ? -1 : ms;
	p->lag = p->lag_ms = p->publish_lag = -1;
	if (p->log_end >= 0)
		p->lag = p->log_end > p->applied ? p->log_end - p->applied : 0;
	if (p->lag == 0)
		p->lag_ms = 0;
	else if (p->lag > 0 && p->applied_ms >= 0)
		p->lag_ms = st->now_ms > p->applied_ms ? st->now_ms - p->applied_ms : 0;
	int64_t redis = metrics_value_at(METRIC_REDIS_OFFSET, i);
	p->redis_lag = -1;
	if (redis != METRIC_UNKNOWN && metrics_value(METRIC_REDIS_UP) != METRIC_UNKNOWN)
		p->redis_lag = p->applied > redis ? p->applied - redis : 0;
	if (p->published >= 0 && st->publishing)
		p->publish_lag = p->applied > p->published ? p->applied - p->published : 0;
}

static void take_waiting(struct status *st, struct sstate *s)
{
	char text[64];

	if (*st->config->compacted_topic && !sstate_text(s, "waiting", text, sizeof(text)) &&
	    sscanf(text, "%" SCNd64 " %" SCNd64 " %" SCNd64, &st->waiting_pairs, &st->waiting_bytes,
		   &st->waiting_tombstones) < 2)
		st->waiting_pairs = st->waiting_bytes = -1;
}

static int64_t disk_free(const char *path)
{
	struct statvfs v;
	return statvfs(path, &v) ? -1 : (int64_t)(v.f_bavail * v.f_frsize);
}

void status_take(struct status *st, const struct config *c, struct status_source *source,
		 struct sstate *s, int rc)
{
	*st = (struct status){ .config = c,
			       .journal_limit = -1,
			       .waiting_pairs = -1,
			       .waiting_bytes = -1,
			       .waiting_tombstones = -1,
			       .rc = rc };
	st->now_ms = metrics_wall_us() / 1000;
	st->publishing = c->notifications_topic[0];
	st->filling = metrics_value(METRIC_FILLING) == 1;
	st->waiting = metrics_value(METRIC_TAIL_WAITING) == 1;
	st->round_running = metrics_value(METRIC_ROUND_RUNNING) == 1;
	st->disk_free = disk_free(c->state_dir);
	strcpy(st->role, st->filling ? "filling" : "connecting");
	if (s) {
		st->rc = sstate_stat(s, &st->snapshot);
		if (sstate_text(s, "uuid", st->uuid, sizeof(st->uuid)))
			st->uuid[0] = '\0';
		take_waiting(st, s);
	}
	pthread_mutex_lock(&source->lock);
	if (source->p)
		take_pipeline(st, source->p);
	pthread_mutex_unlock(&source->lock);
	if (!st->running && !st->rc)
		take_stored(st, s);
	for (int i = 0; i < st->n; i++)
		take_lags(st, &st->part[i], i);
}

void status_free(struct status *st)
{
	free(st->part);
	st->part = NULL;
}

/* ---- ready ---- */

static void say(struct status_check *c, const char *name, bool ok, const char *text)
{
	c->name = name;
	c->ok = ok;
	snprintf(c->text, sizeof(c->text), "%s", text);
}

static int count_caught_up(const struct status *st)
{
	int n = 0;
	for (int i = 0; i < st->n; i++)
		n += st->part[i].caught_up;
	return n;
}

static void check_heartbeat(const struct status *st, struct status_check *c)
{
	int64_t limit = 3 * st->snapshot.lease_ms > ALIVE_MS ? 3 * st->snapshot.lease_ms : ALIVE_MS;
	int64_t age = st->snapshot.heartbeat_age_ms;
	char text[100];

	snprintf(text, sizeof(text), "last commit %" PRId64 " ms ago, at most %" PRId64, age,
		 limit);
	say(c, "kept", !st->rc && age >= 0 && age < limit,
	    st->rc || age < 0 ? "nothing was committed yet" : text);
}

bool status_ready(const struct status *st, struct status_check checks[STATUS_CHECKS])
{
	bool ready = true;
	char text[200];

	snprintf(text, sizeof(text), "generation %" PRId64 ", %" PRIu64 " keys",
		 st->snapshot.generation, st->snapshot.keys);
	say(&checks[0], "snapshot", !st->rc,
	    !st->rc       ? text
	    : st->filling ? "being filled from the topic"
			  : sstate_strerror(st->rc));
	snprintf(text, sizeof(text), "%d of %d partitions since the start", count_caught_up(st),
		 st->n);
	say(&checks[1], "caught-up", st->running && st->caught_up,
	    st->running ? text : "the pipeline is not set up");
	check_heartbeat(st, &checks[2]);
	say(&checks[3], "running", st->running && !st->ending,
	    st->ending    ? "it is about to end"
	    : st->running ? "its threads run"
			  : st->role);
	for (int i = 0; i < STATUS_CHECKS; i++)
		ready &= checks[i].ok;
	return ready;
}

/* ---- metrics ---- */

static int64_t known(int64_t v) { return v < 0 ? METRIC_UNKNOWN : v; }

static void partition_to_metrics(const struct status_partition *p, int i)
{
	metrics_set_at(METRIC_APPLIED_OFFSET, i, known(p->applied));
	metrics_set_at(METRIC_PUBLISHED_OFFSET, i, known(p->published));
	metrics_set_at(METRIC_CONSUMER_LAG_RECORDS, i, known(p->lag));
	metrics_set_at(METRIC_CONSUMER_LAG_MS, i, known(p->lag_ms));
	metrics_set_at(METRIC_PUBLISH_LAG_RECORDS, i, known(p->publish_lag));
	metrics_set_at(METRIC_REDIS_LAG_RECORDS, i, known(p->redis_lag));
}

static void snapshot_to_metrics(const struct status *st)
{
	const struct sstate_stat *s = &st->snapshot;
	const struct {
		enum metric m;
		int64_t v;
	} gauges[] = {
		{ METRIC_SNAPSHOT_KEYS, (int64_t)s->keys },
		{ METRIC_SNAPSHOT_BYTES, (int64_t)s->bytes },
		{ METRIC_SNAPSHOT_FILE_BYTES, (int64_t)s->file_bytes },
		{ METRIC_SNAPSHOT_GENERATION, s->generation },
		{ METRIC_HEARTBEAT_AGE_MS, known(s->heartbeat_age_ms) },
		{ METRIC_LEASE_MS, s->lease_ms },
		{ METRIC_JOURNAL_ENTRIES, (int64_t)s->journal_entries },
		{ METRIC_JOURNAL_BYTES, (int64_t)s->journal_bytes },
		{ METRIC_WAITING_PAIRS, known(st->waiting_pairs) },
		{ METRIC_WAITING_BYTES, known(st->waiting_bytes) },
		{ METRIC_TOMBSTONES, known(st->waiting_tombstones) },
	};

	for (size_t i = 0; i < sizeof(gauges) / sizeof(*gauges); i++)
		metrics_set(gauges[i].m, st->rc ? METRIC_UNKNOWN : gauges[i].v);
}

void status_to_metrics(const struct status *st)
{
	struct status_check checks[STATUS_CHECKS];
	int64_t due = 0;

	metrics_set(METRIC_READY, status_ready(st, checks));
	metrics_set(METRIC_CAUGHT_UP, st->running && st->caught_up);
	metrics_set(METRIC_LEADING, st->leading);
	metrics_set(METRIC_JOURNAL_LIMIT_BYTES, known(st->journal_limit));
	metrics_set(METRIC_DISK_FREE_BYTES, known(st->disk_free));
	snapshot_to_metrics(st);
	for (int i = 0; i < st->n; i++) {
		partition_to_metrics(&st->part[i], i);
		due += st->part[i].due;
	}
	metrics_set(METRIC_ROUND_DUE, due);
	metrics_process();
}
