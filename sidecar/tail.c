#include "tail.h"
#include "apply.h"
#include "delta.h"
#include "expire.h"
#include "fault.h"
#include "intake.h"
#include "log.h"
#include "metrics.h"
#include "round.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum {
	IDLE_MS = 1000,       /* heartbeat and trims of an idle tail */
	POLL_MS = 100,        /* between looks at what others do */
	TAKE_MS = 250,        /* how long one wait for records may last: an end waits for it */
	TOMBSTONES_SHARE = 4, /* one part in so many of notifications.compacted.max.bytes */
	TRIM_MAX = 20000,     /* journal entries deleted in one transaction, per partition */
	ROUND_SAY_MS = 10000,
	/* without an EOF event for longer, the tail was not live: somebody asks for the end every
	 * 10 s, see tail_confirm(); the cleaner takes longer */
	CLOSE_MS = 15000,
	RETRY_MS = 1000, /* between attempts while the disk is full */
	DENIED_MS = 5000,
	EXPIRE_EVERY_MS = 60000, /* a walk over all keys for what has expired, at most */
};

#define AWAY_UNKNOWN INT64_MAX

struct confirmed {
	int64_t log_start, end, wall_ms, boot_ms;
};

struct ring { /* the last records of a partition, oldest overwritten */
	struct state_anchor a[STATE_ANCHORS];
	uint64_t n;
};

struct tail {
	struct pipeline *p;
	pthread_t thread;
	struct intake *in;
	struct intake_events ev;
	struct state_partition *rows;
	struct ring *rings;
	bool *catching;     /* [n]: no EOF event since the start */
	bool *caught_up;    /* [n]: the opposite, as the others see it */
	bool *behind;       /* [n]: no EOF event since a gap was crossed */
	bool *holes;        /* [n]: offsets were not there, since the last EOF event ... */
	bool *holes_stored; /* [n]: ... as meta has it, for one that is killed before the next */
	bool *blind;        /* [n]: absent keys may have been there unseen */
	int64_t *ends;      /* [n]: of the log, as the tail began right after a fill; else NULL */
	int64_t *next;      /* [n]: the offset that would leave no hole */
	bool *transactions; /* [n]: the log has ended behind its last record: it has markers ... */
	bool *markers;      /* [n]: ... and no purged tombstone can have stood there instead */
	struct standing *standings;
	struct apply_counts counts;
	int64_t last_commit_ms;
	int64_t waiting_ms;   /* when what waits was counted */
	bool waiting, denied; /* said so in the log */
	struct scan *scan;    /* of the round that is under way; NULL: none */
	bool scan_again;      /* another gap was crossed meanwhile */
	/* this turn of the loop began, by CLOCK_BOOTTIME and the wall clock; the last one took */
	int64_t began_ms, began_wall_ms, lasted_ms;
	int64_t round_said_ms;
	bool always_done;      /* reconcile=always: once per start */
	bool forced;           /* somebody asked for a round */
	struct expire *expire; /* NULL: keys of this topic do not expire */
	int64_t *expired;      /* [n]: what is stored below has left, or is leaving */
	int64_t expired_ms;    /* when the last walk for it began; 0: never */
	atomic_bool confirmed_all;
	struct delta *delta;  /* a rebuild follows; NULL: none */
	pthread_mutex_t lock; /* confirmed, and these: a rebuild that wants to follow */
	struct delta *wanted;
	int64_t *wanted_from;
	struct confirmed *confirmed;
	char err[600];
};

static int64_t clock_ms(clockid_t id)
{
	struct timespec t;
	clock_gettime(id, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

int64_t tail_boot_ms(void) { return clock_ms(CLOCK_BOOTTIME); }

/* ---- positions ---- */

/* Time since the last EOF event by the clock that says more; -1: never; AWAY_UNKNOWN: no clock can
 * tell, as the host was booted and its wall clock has gone back. */
static int64_t away_ms(const struct state_partition *row)
{
	int64_t wall = clock_ms(CLOCK_REALTIME) - row->caught_wall_ms;
	int64_t boot = tail_boot_ms() - row->caught_boot_ms;

	if (row->caught_wall_ms < 0)
		return -1;
	if (row->caught_boot_ms < 0) /* another boot: only the wall clock can tell */
		return wall >= 0 ? wall : AWAY_UNKNOWN;
	if (wall < 0) /* set back, and perhaps while the machine was paused: by no more than that */
		wall = -wall;
	return wall > boot ? wall : boot;
}

/* Since this turn began, by the clock that says more: a machine that is paused stops one of them. */
static int64_t turn_ms(const struct tail *t)
{
	int64_t boot = tail_boot_ms() - t->began_ms;
	int64_t wall = clock_ms(CLOCK_REALTIME) - t->began_wall_ms;

	return wall > boot ? wall : boot;
}

/* Whether this thread may just have been kept from running for too long: stopped, or by a disk. */
static bool was_paused(const struct tail *t, int64_t retention)
{
	int64_t ms = turn_ms(t);

	return decide_round_due(ms > t->lasted_ms ? ms : t->lasted_ms, retention, true);
}

/* Whether every version since the last EOF event was read, now that there is another. */
static bool is_whole(struct tail *t, int p, int64_t offset)
{
	const struct state_partition *row = &t->rows[p];
	bool behind_last = offset > row->applied;
	struct reading r = { .away_ms = away_ms(row), .was_running = !t->catching[p] };
	int64_t retention = atomic_load(&t->p->limits.delete_retention_ms);

	/* only an end that was reached at once says what stands there */
	t->transactions[p] |= behind_last && r.was_running && r.away_ms <= CLOSE_MS;
	t->markers[p] |= behind_last && decide_has_markers(&r, retention, CLOSE_MS) &&
			 !was_paused(t, retention);
	r.holes = t->holes[p] || behind_last;
	r.transactions = t->markers[p];
	return decide_is_whole(&r, atomic_load(&t->p->limits.min_compaction_lag_ms), CLOSE_MS);
}

static void reached_end(struct tail *t, int p, int64_t offset)
{
	struct state_partition *row = &t->rows[p];

	/* a fill up to P does not know what is overwritten after P: see fill.c */
	if (row->whole == INT64_MAX || !is_whole(t, p, offset))
		row->whole = offset;
	if (offset > row->applied)
		row->applied = offset;
	row->caught_wall_ms = clock_ms(CLOCK_REALTIME);
	row->caught_boot_ms = tail_boot_ms();
}

/* Whether that is still so after this batch. */
static bool has_holes(const struct tail *t, int p) { return t->holes[p] && !t->ev.eof[p]; }

/* After the commit, not before: an attempt that fails must find everything as it was. */
static void settle(struct tail *t)
{
	for (int p = 0; p < t->p->n; p++) {
		t->holes[p] = t->holes_stored[p] = has_holes(t, p);
		if (t->ev.eof[p]) {
			t->catching[p] = false;
			t->caught_up[p] = true;
			t->behind[p] = false;
		}
	}
	bool all = true;
	for (int p = 0; p < t->p->n; p++)
		all &= t->caught_up[p];
	t->always_done |= all;
	t->forced = false;
}

static void take_confirmed(struct tail *t)
{
	pthread_mutex_lock(&t->lock);
	for (int p = 0; p < t->p->n; p++) {
		const struct confirmed *c = &t->confirmed[p];
		struct state_partition *row = &t->rows[p];
		if (c->end != row->applied || !t->caught_up[p] || c->wall_ms <= row->caught_wall_ms)
			continue;
		if (t->holes[p]) /* the EOF event will say whether they mean anything */
			continue;
		row->caught_wall_ms = c->wall_ms;
		row->caught_boot_ms = c->boot_ms;
	}
	pthread_mutex_unlock(&t->lock);
}

void tail_confirm(struct tail *t, int part, int64_t log_start, int64_t end, int64_t asked_wall_ms,
		  int64_t asked_boot_ms)
{
	pthread_mutex_lock(&t->lock);
	t->confirmed[part] = (struct confirmed){ log_start, end, asked_wall_ms, asked_boot_ms };
	pthread_mutex_unlock(&t->lock);
}

void tail_confirmed_all(struct tail *t) { atomic_store(&t->confirmed_all, true); }

static void begin_turn(struct tail *t)
{
	t->lasted_ms = t->began_wall_ms ? turn_ms(t) : 0;
	t->began_ms = tail_boot_ms();
	t->began_wall_ms = clock_ms(CLOCK_REALTIME);
}

static void say_gap(const struct tail *t, int p, int64_t away, int64_t retention)
{
	const char *topic = t->p->config->source_topic;

	if (away == AWAY_UNKNOWN)
		log_info(NULL,
			 "%s [%d] was last read to its end nobody knows when: the host was booted "
			 "since, and its clock has gone back; looking for deletes that were purged "
			 "unseen",
			 topic, p);
	else
		log_info(NULL,
			 "%s [%d] was last read to its end %lld s ago, more than half of "
			 "delete.retention.ms=%lld: looking for deletes that were purged unseen",
			 topic, p, (long long)(away / 1000), (long long)retention);
}

/* Whether something may have been purged since the last EOF event.  Of a topic that keeps no
 * tombstones nearly every record crosses a gap: that alone must not keep a round from its end. */
static bool may_have_missed(const struct tail *t, int p, int64_t away, int64_t retention)
{
	bool behind_last = t->ev.eof[p] && t->ev.eof_offset[p] != t->next[p];

	if (away > CLOSE_MS || was_paused(t, retention))
		return true;
	return !t->transactions[p] && (t->holes[p] || behind_last);
}

/*
 * The batch that crosses a gap stores where the gap began, before it moves the
 * position.  Whether there was one.
 */
static bool cross_gap(struct tail *t, int p)
{
	struct state_partition *row = &t->rows[p];
	int64_t retention = atomic_load(&t->p->limits.delete_retention_ms);
	int64_t away = away_ms(row);
	bool gap = decide_round_due(away, retention, !t->catching[p]);

	if (t->p->config->reconcile == RECONCILE_OFF && !t->forced)
		return false;
	if (row->due >= 0) {
		t->scan_again |= gap && may_have_missed(t, p, away, retention);
		return gap;
	}
	if (gap)
		say_gap(t, p, away, retention);
	else if (!(t->p->config->reconcile == RECONCILE_ALWAYS && !t->always_done) && !t->forced)
		return false;
	row->due = row->applied;
	return gap;
}

static void cross_gaps(struct tail *t)
{
	const struct batch *b = intake_batch(t->in);

	for (int p = 0; p < t->p->n; p++)
		if (t->ev.eof[p] || t->forced)
			cross_gap(t, p);
	for (size_t i = 0; i < b->n; i++) {
		int p = b->v[i].rec.partition;
		if (i == 0 || p != b->v[i - 1].rec.partition)
			t->behind[p] |= cross_gap(t, p); /* until settle() sees the end */
	}
}

int tail_follow(struct tail *t, struct delta *d, int64_t *from)
{
	bool done = false;

	pthread_mutex_lock(&t->lock);
	t->wanted = d;
	t->wanted_from = from;
	pthread_mutex_unlock(&t->lock);
	while (!done) {
		usleep(POLL_MS * 1000);
		pthread_mutex_lock(&t->lock);
		done = !t->wanted;
		if (!done && pipeline_stopping(t->p)) {
			t->wanted = NULL;
			pthread_mutex_unlock(&t->lock);
			return -EINTR;
		}
		pthread_mutex_unlock(&t->lock);
	}
	return 0;
}

/* Between two batches: everything before is in the state, everything after goes to both. */
static void take_follower(struct tail *t)
{
	pthread_mutex_lock(&t->lock);
	if (t->wanted) {
		for (int p = 0; p < t->p->n; p++)
			t->wanted_from[p] = t->rows[p].applied;
		delta_close(t->delta); /* of a rebuild that failed */
		t->delta = delta_share(t->wanted);
		t->wanted = NULL;
	}
	pthread_mutex_unlock(&t->lock);
}

static void advance(struct tail *t)
{
	const struct batch *b = intake_batch(t->in);

	cross_gaps(t);
	for (size_t i = 0; i < b->n; i++) {
		const struct batch_record *r = &b->v[i];
		struct ring *ring = &t->rings[r->rec.partition];
		t->rows[r->rec.partition].applied = r->rec.offset + 1;
		ring->a[ring->n++ % STATE_ANCHORS] =
			(struct state_anchor){ r->rec.offset, r->rec.timestamp_ms,
					       record_hash(r->key, r->key_len) };
	}
	for (int p = 0; p < t->p->n; p++)
		if (t->ev.eof[p])
			reached_end(t, p, t->ev.eof_offset[p]);
	take_confirmed(t);
}

/* ---- one transaction ---- */

static int put_anchors(struct tail *t, struct state_txn *txn, int p)
{
	const struct ring *r = &t->rings[p];
	struct state_anchor newest_first[STATE_ANCHORS];
	int n = r->n < STATE_ANCHORS ? (int)r->n : STATE_ANCHORS;

	for (int i = 0; i < n; i++)
		newest_first[i] = r->a[(r->n - 1 - (uint64_t)i) % STATE_ANCHORS];
	return n ? state_anchors_set(txn, p, newest_first, n) : 0;
}

static int trim(struct tail *t, struct state_txn *txn, int p)
{
	struct state_partition *row = &t->rows[p];
	struct position at = t->standings[p].published;

	if (!t->p->publishing) {
		/* news begin when notifications are configured, not before */
		row->start = row->base = row->applied;
		row->base_n = 0;
		return 0;
	}
	if (at.offset < 0)
		return 0;
	/* the first that is seen must not hide that none was seen before: see is_from_before() */
	if (row->published < 0 && row->due >= 0 &&
	    strcmp(t->standings[p].by, state_uuid(t->p->state)) != 0)
		return 0;
	/* a peek may be older, and what somebody set by hand may be nonsense: neither was seen */
	if (at.offset >= row->published && at.offset <= row->applied) {
		row->published = at.offset;
		row->published_n = at.n;
	}
	/* never past what was applied: P may be ahead of a state that is catching up.  Entries at
	 * exactly P stay: whose n they were counted by is not known here */
	if (at.offset > row->applied)
		at.offset = row->applied;
	int rc = state_trim(txn, p, row, at.offset, 0, TRIM_MAX);
	if (rc >= 0 && state_waits(t->p->state))
		rc = state_waiting_trim(txn, p, t->standings[p].cursor, TRIM_MAX);
	return rc < 0 ? rc : 0;
}

static int put_status(struct tail *t, struct state_txn *txn)
{
	char role[160];
	bool ready = true;
	int rc;

	pthread_mutex_lock(&t->p->lock);
	memcpy(role, t->p->role, sizeof(role));
	pthread_mutex_unlock(&t->p->lock);
	for (int p = 0; p < t->p->n; p++)
		ready &= t->caught_up[p] || t->ev.eof[p];
	char retention[24];
	snprintf(retention, sizeof(retention), "%lld",
		 (long long)atomic_load(&t->p->limits.delete_retention_ms));
	if ((rc = state_meta_set(txn, "role", role)) ||
	    (rc = state_meta_set(txn, "delete_retention_ms", retention)))
		return rc;
	return state_meta_set(txn, "ready", ready ? "1" : "0");
}

/* A key that is absent may have had values in a hole: see decide_transition(). */
static void look_for_holes(struct tail *t)
{
	const struct batch *b = intake_batch(t->in);

	for (int p = 0; p < t->p->n; p++)
		t->next[p] = t->rows[p].applied;
	for (size_t i = 0; i < b->n; i++) {
		const struct record *r = &b->v[i].rec;
		t->holes[r->partition] |= r->offset != t->next[r->partition];
		t->next[r->partition] = r->offset + 1;
	}
	for (int p = 0; p < t->p->n; p++)
		t->blind[p] = t->catching[p] || t->holes[p];
}

/*
 * Tombstones of keys that nobody writes any more would be kept for ever: beyond
 * their share of the bound the oldest are forgotten, and untold if superseded.
 */
static int forget_tombstones(struct tail *t, struct state_txn *txn, const struct state_stat *s)
{
	uint64_t bound = (uint64_t)t->p->config->compacted_max_bytes / TOMBSTONES_SHARE;
	int n = 0;

	if (s->tombstones_bytes <= bound)
		return 0;
	double beyond = (double)(s->tombstones_bytes - bound) / (double)s->tombstones_bytes;
	int max = 1 + (int)(beyond * (double)s->tombstones / t->p->n);
	for (int p = 0; p < t->p->n && n >= 0; p++) {
		n = state_tombstones_trim(txn, p, max < TRIM_MAX ? max : TRIM_MAX);
		if (n > 0)
			metrics_add(METRIC_TOMBSTONES_FORGOTTEN, (uint64_t)n);
	}
	return n < 0 ? n : 0;
}

static int put_holes(struct tail *t, struct state_txn *txn, int p)
{
	char name[HOLES_NAME_MAX];

	if (has_holes(t, p) == t->holes_stored[p])
		return 0;
	pipeline_holes_name(name, p);
	return state_meta_set(txn, name, has_holes(t, p) ? "1" : "0");
}

/* What waits for compaction, for `stat` and the status page; counted once a second. */
static int put_waiting(struct tail *t, struct state_txn *txn)
{
	int64_t now = clock_ms(CLOCK_MONOTONIC);
	struct state_stat s;
	char text[100];
	int rc;

	if (!state_waits(t->p->state) || now - t->waiting_ms < IDLE_MS)
		return 0;
	t->waiting_ms = now;
	rc = state_stat(t->p->state, &s);
	if (rc)
		return rc;
	snprintf(text, sizeof(text), "%llu %llu %llu %lld", (unsigned long long)s.waiting_pairs,
		 (unsigned long long)s.waiting_bytes, (unsigned long long)s.tombstones,
		 (long long)metrics_value(METRIC_PROBES));
	rc = state_meta_set(txn, "waiting", text);
	if (!rc)
		rc = forget_tombstones(t, txn, &s);
	for (int p = 0; p < t->p->n && !rc; p++) {
		char name[32];
		snprintf(name, sizeof(name), "cursor/%010d", p);
		snprintf(text, sizeof(text), "%lld", (long long)t->standings[p].cursor);
		rc = state_meta_set(txn, name, text);
	}
	return rc;
}

static int put_all(struct tail *t, struct state_txn *txn)
{
	struct batch *b = intake_batch(t->in);
	const struct apply_options o = { .moved = t->p->config->source_moved,
					 .journal = t->p->publishing,
					 .waiting = state_waits(t->p->state),
					 .blind = t->blind };

	look_for_holes(t);
	int rc = b->n ? apply_batch(txn, b, &o, &t->counts, t->err, sizeof(t->err)) : 0;

	FAULT_POINT("tail.applied");
	if (!rc)
		advance(t);
	for (int p = 0; p < t->p->n && !rc; p++)
		if (!(rc = trim(t, txn, p)) && !(rc = put_anchors(t, txn, p)) &&
		    !(rc = put_holes(t, txn, p)))
			rc = state_partition_set(txn, p, &t->rows[p]);
	if (!rc)
		rc = put_waiting(t, txn);
	return rc ? rc : put_status(t, txn);
}

/* One attempt.  On failure nothing has happened: the rows are what they were. */
static int try_commit(struct tail *t)
{
	size_t bytes = (size_t)t->p->n * sizeof(*t->rows);
	struct state_partition *saved = malloc(bytes);
	const struct apply_counts counted = t->counts;
	struct state_txn *txn;
	int rc = saved ? 0 : -ENOMEM;

	if (rc)
		return rc;
	memcpy(saved, t->rows, bytes);
	t->err[0] = '\0';
	if (!(rc = state_begin(t->p->state, &txn))) {
		FAULT_POINT("tail.begun");
		rc = put_all(t, txn);
		FAULT_POINT("tail.put");
		if (rc)
			state_abort(txn);
		else
			rc = state_commit(txn);
	}
	if (rc) {
		memcpy(t->rows, saved, bytes);
		t->counts = counted;
		metrics_add(METRIC_COMMIT_FAILURES, 1);
	}
	free(saved);
	return rc;
}

static bool disk_is_full(const struct tail *t)
{
	struct statvfs v;
	return !statvfs(t->p->config->state_dir, &v) && v.f_bavail * v.f_frsize < (64 << 20);
}

static void fail(struct tail *t, int rc)
{
	const char *why = t->err[0] ? t->err : state_strerror(rc);

	if (rc == -EXDEV)
		pipeline_end(t->p, OUTCOME_BROKEN, "SN-KEY-MOVED",
			     "%s: %s; keys of a compacted topic must stay in their partition: see "
			     "source.moved=timestamp",
			     t->p->config->source_topic, why);
	else if (rc == -EBADMSG)
		pipeline_end(t->p, OUTCOME_BROKEN, "SN-RECORD-CHECKSUM",
			     "%s: %s; remove the state directory to fill anew",
			     t->p->config->state_dir, why);
	else if (rc == -ENOTSUP)
		pipeline_end(t->p, OUTCOME_BROKEN, "SN-STATE-FORMAT",
			     "%s: %s; use the newer sidenote, or remove the directory to fill it "
			     "anew",
			     t->p->config->state_dir, why);
	else if (rc == -ENOMEM)
		pipeline_end(t->p, OUTCOME_UNREACHABLE, "SN-MEMORY", "out of memory");
	else
		pipeline_end(t->p, OUTCOME_UNREACHABLE, "SN-STATE-IO",
			     "writing %s: %s; start again: the state is opened anew and checked",
			     t->p->config->state_dir, why);
}

/* What a commit has made visible. */
static void count(const struct tail *t, const struct apply_counts *before, int64_t began_us)
{
	const struct batch *b = intake_batch(t->in);
	const struct apply_counts *now = &t->counts;

	if (!b->n)
		return;
	metrics_observe_since(METRIC_COMMIT_US, began_us);
	metrics_observe(METRIC_BATCH_RECORDS, (int64_t)b->n);
	metrics_add(METRIC_RECORDS_CONSUMED, b->n);
	metrics_add(METRIC_BYTES_CONSUMED, b->bytes);
	metrics_add(METRIC_CHANGES_CREATE, now->creates - before->creates);
	metrics_add(METRIC_CHANGES_UPDATE, now->updates - before->updates);
	metrics_add(METRIC_CHANGES_UNCHANGED, now->unchanged - before->unchanged);
	metrics_add(METRIC_CHANGES_DELETE, now->deletes - before->deletes);
	metrics_add(METRIC_MOVED_IGNORED, now->ignored_moves - before->ignored_moves);
	int64_t now_us = metrics_wall_us();
	for (size_t i = 0; i < b->n; i++) {
		const struct record *r = &b->v[i].rec;
		if (t->caught_up[r->partition])
			metrics_observe_age(METRIC_SNAPSHOT_LATENCY_US, r->timestamp_ms, now_us);
		metrics_set_at(METRIC_APPLIED_MS, r->partition, r->timestamp_ms);
	}
}

/* The rebuild may have failed, and be gone: then this is the last user. */
static void append_delta(struct tail *t)
{
	if (!t->delta)
		return;
	delta_append(t->delta, intake_batch(t->in));
	if (delta_failed(t->delta)) {
		delta_close(t->delta);
		t->delta = NULL;
	}
}

/* Commit; wait out a full disk.  False: the pipeline is ending. */
static bool commit(struct tail *t)
{
	const struct apply_counts before = t->counts;
	int64_t began_us = metrics_clock_us();
	bool said = false;
	int rc;

	t->forced |= atomic_exchange(&t->p->round_wanted, false);
	pipeline_standings(t->p, t->standings);
	while ((rc = try_commit(t))) {
		if (rc != -ENOSPC && !((rc == -EIO || rc == -EFBIG) && disk_is_full(t))) {
			fail(t, rc);
			return false;
		}
		if (!said)
			log_error("SN-DISK-FULL",
				  "no space left for %s: the tail waits, readers go on, nothing is "
				  "lost; free some space",
				  t->p->config->state_dir);
		said = true;
		usleep(RETRY_MS * 1000);
		if (pipeline_stopping(t->p))
			return false;
		began_us = metrics_clock_us();
	}
	FAULT_POINT("tail.committed");
	count(t, &before, began_us);
	if (said)
		log_info(NULL, "there is space again for %s", t->p->config->state_dir);
	t->last_commit_ms = clock_ms(CLOCK_MONOTONIC);
	settle(t);
	append_delta(t);
	intake_clear(t->in);
	pipeline_applied(t->p, t->rows, t->caught_up, t->waiting);
	FAULT_POINT("tail.told");
	return true;
}

/* ---- intake ---- */

static void intake_failed(struct tail *t, int rc)
{
	const char *topic = t->p->config->source_topic;

	switch (rc) {
	case INTAKE_DENIED:
		if (!t->denied)
			log_error("SN-SOURCE-DENIED", "%s; grant Read on topic %s; trying again",
				  t->err, topic);
		t->denied = true;
		usleep(RETRY_MS * 1000);
		break;
	case INTAKE_RESET:
		pipeline_end(t->p, OUTCOME_BROKEN, "SN-POSITION-OUTSIDE",
			     "%s: %s: the position that was read up to is not in the log any more "
			     "(topic recreated, truncated, or records deleted); if that was meant, "
			     "remove the state directory and reset group sidenote.%s",
			     topic, t->err, t->p->config->name);
		break;
	case INTAKE_CORRUPT:
		pipeline_end(t->p, OUTCOME_BROKEN, "SN-SOURCE-CORRUPT",
			     "%s: %s: the broker sent a batch that fails its checksum; reading on "
			     "would skip records",
			     topic, t->err);
		break;
	case INTAKE_DOUBTFUL:
		pipeline_end(t->p, OUTCOME_AGAIN, NULL,
			     "%s: %s: checking that it is the same topic", topic, t->err);
		break;
	case INTAKE_MISSING:
		log_warn("SN-SOURCE-MISSING", "%s: %s", topic, t->err);
		usleep(RETRY_MS * 1000);
		break;
	default:
		fail(t, rc);
	}
}

/* What a round finds is published before the changes from `due` on, and it needs the log's end:
 * until then the journal must be let grow, or neither would ever happen. */
static bool round_is_due(const struct tail *t)
{
	for (int p = 0; p < t->p->n; p++)
		if (t->rows[p].due >= 0)
			return true;
	return false;
}

/* Whether the journal is at its limit: then nothing is taken, and empty batches go on. */
static bool must_wait(struct tail *t)
{
	struct state_stat s;
	int64_t max = t->p->journal_max_bytes;

	if (!t->p->publishing || round_is_due(t) || state_stat(t->p->state, &s) ||
	    (int64_t)s.journal_bytes < max) {
		if (t->waiting)
			log_info(NULL, "the journal is below its limit again: reading on");
		t->waiting = false;
		return false;
	}
	if (!t->waiting)
		log_warn("SN-JOURNAL-FULL",
			 "the journal has reached journal.max.bytes=%lld because notifications "
			 "cannot be published: the tail waits, readers go on, nothing is lost",
			 (long long)max);
	t->waiting = true;
	/* where it has not seen the end yet, nobody can say where what it may have missed ends */
	for (int p = 0; p < t->p->n; p++)
		if (t->catching[p])
			t->rows[p].whole = INT64_MAX;
	return true;
}

static bool gather(struct tail *t)
{
	struct batch *b = intake_batch(t->in);
	int64_t until = clock_ms(CLOCK_MONOTONIC) + t->p->config->batch_ms;
	size_t max = (size_t)t->p->config->batch_records;
	bool *eof = t->ev.eof;
	int rc;

	for (;;) {
		size_t before = b->n;
		rc = intake_take(t->in, b->n ? 0 : TAKE_MS, max, &t->ev, t->err, sizeof(t->err));
		if (rc) {
			intake_failed(t, rc);
			return !pipeline_stopping(t->p);
		}
		if (t->denied && b->n > before) {
			log_info(NULL, "%s can be read again", t->p->config->source_topic);
			t->denied = false;
		}
		for (int p = 0; p < t->p->n; p++)
			if (eof[p])
				return true; /* ran dry: an event belongs to the batch it ends */
		if (b->n == before || b->n >= max || clock_ms(CLOCK_MONOTONIC) >= until)
			return true;
	}
}

static bool something_to_commit(struct tail *t)
{
	if (intake_batch(t->in)->n)
		return true;
	for (int p = 0; p < t->p->n; p++)
		if (t->ev.eof[p])
			return true;
	return atomic_load(&t->p->round_wanted) ||
	       clock_ms(CLOCK_MONOTONIC) - t->last_commit_ms >= IDLE_MS;
}

/* ---- rounds ---- */

static bool start_scan(struct tail *t)
{
	int64_t *bound = calloc((size_t)t->p->n, sizeof(*bound));
	int64_t *due = calloc((size_t)t->p->n, sizeof(*due));
	bool any = false, caught_up = true;
	int rc = bound && due ? 0 : -ENOMEM;

	for (int p = 0; p < t->p->n && !rc; p++) {
		/* what was read until the end was seen may have been fetched before the gap */
		bound[p] = t->rows[p].due >= 0 ? t->rows[p].applied : -1;
		due[p] = t->rows[p].due;
		any |= bound[p] >= 0;
		caught_up &= t->caught_up[p] && !t->behind[p];
	}
	t->scan_again = false;
	if (!rc && any && caught_up) {
		log_info(NULL, "round: reading %s again", t->p->config->source_topic);
		FAULT_POINT("round.scan");
		rc = scan_start(&t->scan, t->p->config, t->p->n, bound,
				t->p->publishing && !t->p->offsets_forgotten ? due : NULL,
				state_uuid(t->p->state));
	}
	free(bound);
	free(due);
	if (rc)
		fail(t, rc);
	return rc == 0;
}

static void say_progress(struct tail *t)
{
	int64_t now = clock_ms(CLOCK_MONOTONIC), done, all;

	if (now - t->round_said_ms < ROUND_SAY_MS)
		return;
	t->round_said_ms = now;
	scan_progress(t->scan, &done, &all);
	log_info(NULL, "round: %lld of %lld offsets", (long long)done, (long long)all);
}

/* Everything before the log's end as asked for after the scan has been applied. */
static bool has_reached_ends(const struct tail *t)
{
	for (int p = 0; p < t->p->n; p++)
		if (scan_covers(t->scan, p) && t->rows[p].applied < scan_log_end(t->scan, p))
			return false;
	return true;
}

static void say_expired(const struct tail *t, uint64_t n)
{
	log_info(NULL, "%llu keys have expired: their records fell off the start of %s",
		 (unsigned long long)n, t->p->config->source_topic);
	metrics_add(METRIC_EXPIRED_KEYS, n);
}

/*
 * Whether this state was away already when others made the first start: then what it
 * finds gone may have been deleted before that, which is history, and nobody can tell.
 * A fill up to P knows none of it.
 */
static bool is_from_before(const struct tail *t)
{
	for (int p = 0; p < t->p->n; p++)
		if (scan_covers(t->scan, p) && t->rows[p].published < 0 &&
		    scan_led_by_other(t->scan, p))
			return true;
	return false;
}

static bool fill_anew(struct tail *t)
{
	pipeline_end(t->p, OUTCOME_REFILL, NULL,
		     "round: this state is from before the first notification, and was away since: "
		     "filling anew up to what was published");
	return false;
}

static bool write_round(struct tail *t)
{
	const struct round_options o = { .journal = t->p->publishing,
					 .expiring = t->p->config->source_expiring };
	struct round_counts counts;
	int rc = round_write(t->p->state, t->scan, t->p->n, t->rows, &o, &counts);

	scan_free(t->scan);
	t->scan = NULL;
	if (t->delta)
		delta_fail(t->delta, -ECANCELED);
	if (rc == -ENOSPC)
		return true; /* due as before: again once there is space */
	if (rc) {
		fail(t, rc);
		return false;
	}
	FAULT_POINT("round.written");
	log_info(NULL, "round: done, %llu keys were gone", (unsigned long long)counts.gone);
	if (counts.expired)
		say_expired(t, counts.expired);
	metrics_add(METRIC_ROUNDS_DONE, 1);
	metrics_add(METRIC_GONE_KEYS, counts.gone);
	/* partitions that became due meanwhile are still to come, and so is one just asked for */
	if (!round_is_due(t) && !atomic_load(&t->p->round_wanted))
		atomic_fetch_add(&t->p->rounds, 1);
	pipeline_applied(t->p, t->rows, t->caught_up, t->waiting);
	return true;
}

/* Between two batches: start a scan that is due, or write what one has found. */
static bool go_round(struct tail *t)
{
	if (t->scan_again) {
		scan_free(t->scan);
		t->scan = NULL;
	}
	if (!t->scan)
		return start_scan(t);
	switch (scan_state(t->scan)) {
	case SCAN_RUNNING:
		say_progress(t);
		return true;
	case SCAN_FAILED:
		log_warn("SN-ROUND-FAILED", "round: %s; trying again", scan_error(t->scan));
		metrics_add(METRIC_ROUNDS_FAILED, 1);
		scan_free(t->scan);
		t->scan = NULL;
		usleep(RETRY_MS * 1000);
		return true;
	case SCAN_DONE:
		if (!has_reached_ends(t))
			return true;
		return is_from_before(t) ? fill_anew(t) : write_round(t);
	}
	return true;
}

/* ---- keys that expire ---- */

/* Whether the log's start has risen where everything was applied that was there then. */
static bool something_expired(struct tail *t)
{
	bool any = false;

	pthread_mutex_lock(&t->lock);
	for (int p = 0; p < t->p->n; p++) {
		const struct confirmed *c = &t->confirmed[p];
		if (c->log_start <= t->expired[p] || t->rows[p].applied < c->end)
			continue;
		t->expired[p] = c->log_start;
		any = true;
	}
	pthread_mutex_unlock(&t->lock);
	return any;
}

/* Between two batches.  A round takes them away as well, so they do not go on side by side. */
static bool go_expire(struct tail *t)
{
	int64_t now = clock_ms(CLOCK_MONOTONIC);

	if (!t->expire || t->scan || round_is_due(t))
		return true;
	if (expire_at_end(t->expire)) {
		if ((t->expired_ms && now - t->expired_ms < EXPIRE_EVERY_MS) ||
		    !atomic_exchange(&t->confirmed_all, false) || !something_expired(t))
			return true;
		t->expired_ms = now;
		expire_begin(t->expire, t->expired);
	}
	int rc = expire_step(t->expire, t->p->state);
	if (rc && rc != -ENOSPC) {
		fail(t, rc);
		return false;
	}
	uint64_t gone = expire_count(t->expire);
	if (!expire_at_end(t->expire) || !gone)
		return true;
	say_expired(t, gone);
	atomic_fetch_add(&t->p->expiries, 1);
	return true;
}

static void wait_lease(struct tail *t)
{
	int64_t ms;

	while (!pipeline_stopping(t->p) && (ms = state_lease_wait_ms(t->p->state)) > 0)
		usleep((useconds_t)(ms < 50 ? ms : 50) * 1000);
}

/*
 * Right after a fill: where nothing has come behind its boundaries, ends that were
 * asked for say what the next EOF events would, which a fetch waits with.
 */
static void take_ends(struct tail *t)
{
	for (int p = 0; p < t->p->n; p++)
		if (t->ends[p] != t->rows[p].applied)
			return;
	memset(t->ev.eof, true, (size_t)t->p->n * sizeof(*t->ev.eof));
	memcpy(t->ev.eof_offset, t->ends, (size_t)t->p->n * sizeof(*t->ends));
	begin_turn(t);
	commit(t);
}

static void *run(void *arg)
{
	struct tail *t = arg;

	FAULT_POINT("tail.started");
	wait_lease(t);
	FAULT_POINT("tail.lease_waited");
	if (t->ends)
		take_ends(t);
	while (!pipeline_stopping(t->p)) {
		begin_turn(t);
		take_follower(t);
		memset(t->ev.eof, 0, (size_t)t->p->n * sizeof(*t->ev.eof));
		metrics_set(METRIC_TAIL_WAITING, t->waiting);
		if (must_wait(t)) {
			usleep(POLL_MS * 1000);
			if (!commit(t))
				break;
			continue;
		}
		if (!gather(t))
			break;
		FAULT_POINT("tail.gathered");
		if (something_to_commit(t) && !commit(t))
			break;
		if (!go_round(t) || !go_expire(t))
			break;
		metrics_set(METRIC_ROUND_RUNNING, t->scan != NULL);
	}
	return NULL;
}

/* ---- start and end ---- */

static int load_past(struct tail *t)
{
	struct state_anchor a[STATE_ANCHORS];
	char name[HOLES_NAME_MAX], holes[8];
	struct state_view *v;
	int rc = state_view_begin(t->p->state, &v);

	if (rc)
		return rc;
	for (int p = 0; p < t->p->n; p++) {
		int n = state_view_anchors(v, p, a);
		for (int i = n - 1; i >= 0; i--)
			t->rings[p].a[t->rings[p].n++ % STATE_ANCHORS] = a[i];
		pipeline_holes_name(name, p);
		t->holes[p] = !state_view_meta(v, name, holes, sizeof(holes)) && holes[0] == '1';
		t->holes_stored[p] = t->holes[p];
	}
	state_view_end(v);
	return 0;
}

static void free_tail(struct tail *t)
{
	scan_free(t->scan);
	expire_close(t->expire);
	free(t->expired);
	intake_close(t->in);
	free(t->rows);
	free(t->rings);
	free(t->catching);
	free(t->caught_up);
	free(t->behind);
	free(t->holes);
	free(t->holes_stored);
	free(t->blind);
	free(t->ends);
	free(t->next);
	free(t->transactions);
	free(t->markers);
	free(t->standings);
	free(t->confirmed);
	free(t->ev.eof);
	free(t->ev.eof_offset);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static int make(struct tail *t, const struct state_partition *rows)
{
	size_t n = (size_t)t->p->n;
	int64_t *from;

	t->rows = calloc(n, sizeof(*t->rows));
	t->rings = calloc(n, sizeof(*t->rings));
	t->catching = calloc(n, sizeof(*t->catching));
	t->caught_up = calloc(n, sizeof(*t->caught_up));
	t->behind = calloc(n, sizeof(*t->behind));
	t->holes = calloc(n, sizeof(*t->holes));
	t->holes_stored = calloc(n, sizeof(*t->holes_stored));
	t->blind = calloc(n, sizeof(*t->blind));
	t->next = calloc(n, sizeof(*t->next));
	t->transactions = calloc(n, sizeof(*t->transactions));
	t->markers = calloc(n, sizeof(*t->markers));
	t->standings = calloc(n, sizeof(*t->standings));
	t->confirmed = calloc(n, sizeof(*t->confirmed));
	t->expired = calloc(n, sizeof(*t->expired));
	t->ends = t->p->filled ? calloc(n, sizeof(*t->ends)) : NULL;
	t->ev.eof = calloc(n, sizeof(*t->ev.eof));
	t->ev.eof_offset = calloc(n, sizeof(*t->ev.eof_offset));
	from = calloc(n, sizeof(*from));
	if (!t->rows || !t->rings || !t->catching || !t->caught_up || !t->behind || !t->holes ||
	    !t->holes_stored || !t->blind || !t->next || !t->transactions || !t->markers ||
	    !t->standings || !t->confirmed || !t->expired || !t->ev.eof || !t->ev.eof_offset ||
	    (t->p->filled && !t->ends) || !from) {
		free(from);
		return -ENOMEM;
	}
	memcpy(t->rows, rows, n * sizeof(*rows));
	for (size_t p = 0; p < n; p++) {
		t->catching[p] = true;
		t->confirmed[p].end = -1;
		from[p] = rows[p].applied;
	}
	int rc = load_past(t);
	if (!rc && t->p->config->source_expiring)
		rc = expire_open(&t->expire, t->p->n);
	if (!rc)
		rc = intake_open(&t->in, t->p->config, INTAKE_TAIL, t->p->n, from, t->ends, t->err,
				 sizeof(t->err));
	if (rc > 0) {
		pipeline_end(t->p, OUTCOME_USAGE, "SN-KAFKA-CONFIG", "%s", t->err);
		rc = -EINVAL;
	}
	free(from);
	return rc;
}

/* What this state was before anything is read: whoever resumes goes by that.  Where the first
 * batch will cross a gap a round is as good as due. */
static int tell_before(struct tail *t)
{
	struct state_partition *rows = calloc((size_t)t->p->n, sizeof(*rows));
	int64_t retention = atomic_load(&t->p->limits.delete_retention_ms);
	int r = t->p->config->reconcile;

	if (!rows)
		return -ENOMEM;
	memcpy(rows, t->rows, (size_t)t->p->n * sizeof(*rows));
	for (int p = 0; p < t->p->n; p++)
		if (rows[p].due < 0 && r != RECONCILE_OFF &&
		    (r == RECONCILE_ALWAYS ||
		     decide_round_due(away_ms(&rows[p]), retention, false)))
			rows[p].due = rows[p].applied;
	pipeline_applied(t->p, rows, t->caught_up, false);
	free(rows);
	return 0;
}

int tail_start(struct tail **out, struct pipeline *p, const struct state_partition *rows)
{
	struct tail *t = calloc(1, sizeof(*t));
	int rc;

	if (!t)
		return -ENOMEM;
	t->p = p;
	pthread_mutex_init(&t->lock, NULL);
	rc = make(t, rows);
	if (!rc)
		rc = tell_before(t);
	if (!rc)
		rc = -pthread_create(&t->thread, NULL, run, t);
	if (rc) {
		free_tail(t);
		return rc;
	}
	*out = t;
	return 0;
}

/*
 * The publisher has stopped: what it committed last is stored, so that offsets
 * that somebody moves before the next start are noticed.
 */
static void store_published(struct tail *t)
{
	if (atomic_load(&t->p->outcome) != OUTCOME_DONE || !t->last_commit_ms)
		return;
	intake_clear(t->in);
	memset(t->ev.eof, 0, (size_t)t->p->n * sizeof(*t->ev.eof));
	pipeline_standings(t->p, t->standings);
	try_commit(t);
}

void tail_join(struct tail *t)
{
	if (!t)
		return;
	pthread_join(t->thread, NULL);
	store_published(t);
	free_tail(t);
}
