/*
 * fill.c - a bulk load: read, sort, append.
 *
 *   1. Every record below the boundaries goes to the sorter, tombstones too.
 *   2. After the last end-of-partition event the consumer is closed.
 *   3. What the sorter has left of each key is appended, in the order of the
 *      keys and in transactions of bounded size.
 *   4. The positions are written, after the last record.
 *
 * Where superseded pairs wait, every version of a key is kept: versions.h.
 *
 * Nobody reads the generation before it is current, so nothing in it has to be
 * true before step 4.  A crash leaves an unfinished generation, which the next
 * start sweeps away before it fills, and of the sorter's file nothing.
 */
#include "fill.h"
#include "fault.h"
#include "intake.h"
#include "log.h"
#include "metrics.h"
#include "sort.h"
#include "systemd.h"
#include "versions.h"

#include <errno.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum {
	TAKE_MS = 100,
	TAKE_RECORDS = 2000,
	TXN_BYTES = 8 << 20, /* the pages of a transaction are in memory until its commit */
	LINE_MS = 5000,
	BAR_MS = 200,
	DENIED_MS = 500,
	BAR_WIDTH = 24,
	ASSUMED_BYTES = 300,      /* of a record in the state, while nothing is known */
	RECORD_OVERHEAD = 48,     /* header, LMDB's node, what is lost at the end of a page */
	MEASURE_BYTES = 64 << 20, /* enough to know better */
	TELL_MIB = 100,           /* smaller needs are not worth a line */
};

struct progress {
	const char *topic, *doing;
	uint64_t records, bytes;
	int64_t done, total; /* of what there is to do; total 0: not known */
	int64_t began_ms, said_ms;
	bool bar; /* on a terminal, instead of lines */
};

struct fill {
	const struct config *c;
	struct state *st;
	int n;
	struct state_partition *rows;
	struct intake *in;
	struct intake_events ev;
	struct sorter *sort;
	struct versions *versions; /* instead of it, where superseded pairs wait */
	int64_t *boundary;         /* [n]: -1 until known */
	int64_t *first,
		*next; /* [n]: the first offset read, and the one after the last; -1: none */
	bool *done;
	bool first_start; /* nothing was ever published */
	struct progress progress;
	int looks;          /* at the room on the disk ... */
	bool short_of_room; /* ... and what was seen */
	bool denied;        /* said so in the log */
	const char **id;
	char *err;
	size_t err_len;
};

static int64_t clock_ms(clockid_t id)
{
	struct timespec t;
	clock_gettime(id, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* ---- how far it is ---- */

static void progress_begin(struct progress *g, const struct config *c, const char *doing)
{
	int64_t now = clock_ms(CLOCK_MONOTONIC);

	*g = (struct progress){ .topic = c->source_topic, .doing = doing, .began_ms = now };
	g->bar = isatty(STDERR_FILENO) && c->log_format == LOG_TEXT && log_wants(LOG_LEVEL_INFO);
	g->said_ms = g->bar ? 0 : now;
	systemd_status("filling from %s: %s", c->source_topic, doing);
}

static bool progress_due(const struct progress *g)
{
	return clock_ms(CLOCK_MONOTONIC) - g->said_ms >= (g->bar ? BAR_MS : LINE_MS);
}

static void progress_show(struct progress *g)
{
	int64_t now = clock_ms(CLOCK_MONOTONIC), ms = now - g->began_ms + 1;
	double part = g->total > 0 ? (double)g->done / (double)g->total : 0;
	char bar[BAR_WIDTH + 1] = { 0 }, left[40] = "", text[300];

	if (part > 0)
		snprintf(left, sizeof(left), ", %.0f s left",
			 (double)ms / 1000 * (1 - part) / part);
	memset(bar, '.', BAR_WIDTH);
	memset(bar, '#', (size_t)(part * BAR_WIDTH));
	snprintf(text, sizeof(text), "%d %%, %llu records, %lld records/s, %lld MB/s%s",
		 (int)(part * 100), (unsigned long long)g->records,
		 (long long)(g->records * 1000 / (uint64_t)ms),
		 (long long)(g->bytes / 1000 / (uint64_t)ms), left);
	if (g->bar) /* a line of the log that comes between goes over it */
		fprintf(stderr, "%s %s [%s] %s\033[K\r", g->doing, g->topic, bar, text);
	else
		log_info(NULL, "filling from %s: %s, %s", g->topic, g->doing, text);
	systemd_status("filling from %s: %s, %s", g->topic, g->doing, text);
	g->said_ms = now;
}

static void progress_end(struct progress *g)
{
	if (g->bar)
		fprintf(stderr, "\033[K");
}

static bool all_seen(const struct fill *f)
{
	for (int p = 0; p < f->n; p++)
		if (f->first[p] < 0 && !f->done[p])
			return false;
	return true;
}

/* Offsets that there are to read: nothing, as long as it is not known of every partition. */
static void count_offsets(struct fill *f)
{
	struct progress *g = &f->progress;

	g->done = g->total = 0;
	if (!all_seen(f))
		return;
	for (int p = 0; p < f->n; p++) {
		int64_t end = f->boundary[p] >= 0 ? f->boundary[p] : intake_end(f->in, p);
		if (f->first[p] < 0 || end < f->next[p])
			continue;
		g->total += end - f->first[p];
		g->done += (f->done[p] ? end : f->next[p]) - f->first[p];
	}
}

/*
 * Whether there is room: before anything is written, with an assumed size of a
 * record, and again with a measured one.  It is told and stops nothing: what is
 * superseded or deleted takes no room, and only the end shows how much that is.
 */
static void look_at_room(struct fill *f)
{
	const struct progress *g = &f->progress;
	bool measured = g->bytes >= MEASURE_BYTES;
	double each = ASSUMED_BYTES;
	struct statvfs v;

	if (f->looks > (int)measured || !all_seen(f) || statvfs(f->c->state_dir, &v))
		return;
	count_offsets(f);
	if (measured)
		each = (double)(g->bytes + g->records * RECORD_OVERHEAD) / (double)g->done;
	long long records = g->total - g->done;
	uint64_t need = (uint64_t)(each * (double)records) >> 20;
	uint64_t room = (uint64_t)v.f_bavail * v.f_frsize >> 20;
	bool is_short = need > room, first = f->looks == 0;
	if (is_short != f->short_of_room || (first && need > TELL_MIB))
		log_write(is_short ? LOG_LEVEL_WARN : LOG_LEVEL_INFO,
			  is_short ? "SN-DISK-FULL" : NULL,
			  "filling from %s: at most %lld records of %.0f bytes (%s) need %llu MiB; "
			  "%s has %llu MiB free",
			  f->c->source_topic, records, each, measured ? "measured" : "assumed",
			  (unsigned long long)need, f->c->state_dir, (unsigned long long)room);
	f->short_of_room = is_short;
	f->looks = 1 + measured;
}

/* ---- reading ---- */

static void finish(struct fill *f, int p, int64_t boundary)
{
	f->boundary[p] = boundary;
	f->done[p] = true;
	intake_pause(f->in, p);
}

/* Take note of ends, drop what lies at or after a boundary: that is the tail's to read. */
static int take_boundaries(struct fill *f)
{
	struct batch *b = intake_batch(f->in);
	size_t kept = 0;

	for (int p = 0; p < f->n; p++) {
		if (!f->ev.eof[p] || f->done[p])
			continue;
		if (f->boundary[p] > f->ev.eof_offset[p]) {
			*f->id = "SN-TOPIC-SHORTER";
			snprintf(f->err, f->err_len,
				 "%s [%d] ends at %lld, but notifications were published up to "
				 "%lld: the topic was recreated or truncated; if that was meant, "
				 "delete group sidenote.%s",
				 f->c->source_topic, p, (long long)f->ev.eof_offset[p],
				 (long long)f->boundary[p], f->c->name);
			return FILL_BROKEN;
		}
		finish(f, p, f->boundary[p] >= 0 ? f->boundary[p] : f->ev.eof_offset[p]);
	}
	for (size_t i = 0; i < b->n; i++) {
		const struct batch_record *r = &b->v[i];
		int p = r->rec.partition;
		if (f->boundary[p] >= 0 && r->rec.offset >= f->boundary[p]) {
			if (!f->done[p])
				finish(f, p, f->boundary[p]);
			continue;
		}
		if (kept != i)
			b->v[kept] = *r;
		kept++;
	}
	b->n = kept;
	return 0;
}

static bool all_done(const struct fill *f)
{
	for (int p = 0; p < f->n; p++)
		if (!f->done[p])
			return false;
	return true;
}

/* Of the sorter or of the state; `text` says more than the code. */
static int failed(struct fill *f, int rc, const char *text)
{
	*f->id = rc == -EXDEV    ? "SN-KEY-MOVED"
		 : rc == -ENOSPC ? "SN-DISK-FULL"
		 : rc == -ENOMEM ? "SN-MEMORY"
				 : "SN-STATE-IO";
	if (rc == -EXDEV)
		snprintf(f->err, f->err_len,
			 "%s: %s; keys of a compacted topic must stay in their partition: see "
			 "source.moved=timestamp",
			 f->c->source_topic, text);
	else if (text && *text)
		snprintf(f->err, f->err_len, "filling from %s: %s", f->c->source_topic, text);
	else
		snprintf(f->err, f->err_len, "filling %s: %s", f->c->state_dir, state_strerror(rc));
	return rc == -EXDEV ? FILL_BROKEN : FILL_FAILED;
}

static const char *sorting_error(struct fill *f)
{
	return f->versions ? versions_error(f->versions) : sort_error(f->sort);
}

/* A fill keeps records of any partition: which of two counts is source.moved's business. */
static int sort_in(struct fill *f)
{
	struct batch *b = intake_batch(f->in);

	for (size_t i = 0; i < b->n; i++) {
		const struct batch_record *r = &b->v[i];
		int rc = f->versions ? versions_add(f->versions, r->skey, r->skey_len, &r->rec)
				     : sort_add(f->sort, r->skey, r->skey_len, &r->rec);
		if (rc)
			return failed(f, rc, sorting_error(f));
	}
	return 0;
}

/* Where the records of the batch stand, and how many there were. */
static void count_in(struct fill *f)
{
	struct batch *b = intake_batch(f->in);

	for (size_t i = 0; i < b->n; i++) {
		const struct batch_record *r = &b->v[i];
		int p = r->rec.partition;
		if (f->first[p] < 0)
			f->first[p] = r->rec.offset;
		f->next[p] = r->rec.offset + 1;
	}
	metrics_add(METRIC_FILL_RECORDS, b->n);
	f->progress.records += b->n;
	f->progress.bytes += b->bytes;
	intake_clear(f->in);
}

static int wait_for_right(struct fill *f)
{
	if (!f->denied)
		log_error("SN-SOURCE-DENIED", "%s; grant Read on topic %s; trying again", f->err,
			  f->c->source_topic);
	f->denied = true;
	usleep(DENIED_MS * 1000);
	return 0;
}

static int take(struct fill *f)
{
	int rc = intake_take(f->in, TAKE_MS, TAKE_RECORDS, &f->ev, f->err, f->err_len);

	if (rc == INTAKE_DENIED)
		return wait_for_right(f);
	if (rc == INTAKE_MISSING) {
		*f->id = "SN-SOURCE-MISSING";
		return FILL_FAILED;
	}
	if (rc) {
		*f->id = rc == INTAKE_CORRUPT ? "SN-SOURCE-CORRUPT" : "SN-POSITION-OUTSIDE";
		return FILL_BROKEN;
	}
	FAULT_POINT("fill.taken");
	if ((rc = take_boundaries(f)) || (rc = sort_in(f)))
		return rc;
	count_in(f);
	look_at_room(f);
	if (progress_due(&f->progress)) {
		count_offsets(f);
		progress_show(&f->progress);
	}
	return 0;
}

/* ---- storing ---- */

/* One transaction: 1 when there may be more, 0, or < 0. */
static int store(struct fill *f)
{
	struct progress *g = &f->progress;
	uint64_t until = g->bytes + TXN_BYTES;
	struct state_txn *t;
	struct sorted r;
	int more, rc = state_begin(f->st, &t);

	if (rc)
		return rc;
	while ((more = sort_next(f->sort, &r)) == 1) {
		rc = state_put(t, r.skey, r.skey_len, r.rec, r.rec_len);
		if (rc)
			break;
		g->records++;
		g->bytes += r.skey_len + r.rec_len;
		if (g->bytes >= until)
			break;
	}
	if (rc || more < 0) {
		state_abort(t);
		return rc ? rc : more;
	}
	FAULT_POINT("fill.store");
	rc = state_commit(t);
	return rc ? rc : more;
}

static int store_some(struct fill *f)
{
	struct progress *g = &f->progress;
	int rc;

	if (!f->versions) {
		rc = store(f);
		g->done = (int64_t)g->records;
		return rc;
	}
	rc = versions_store(f->versions);
	const struct versions_stat *s = versions_stat(f->versions);
	g->done = (int64_t)s->versions;
	g->records = s->records;
	g->bytes = s->bytes;
	return rc;
}

static int store_all(struct fill *f, const atomic_bool *stop)
{
	int64_t read = (int64_t)f->progress.records;
	int rc = f->versions ? versions_finish(f->versions) : sort_finish(f->sort);

	progress_begin(&f->progress, f->c, "storing");
	f->progress.total = read; /* at most */
	if (!rc)
		rc = 1;
	while (rc == 1) {
		if (atomic_load(stop))
			return FILL_STOPPED;
		rc = store_some(f);
		if (progress_due(&f->progress))
			progress_show(&f->progress);
	}
	return rc ? failed(f, rc, sorting_error(f)) : 0;
}

static void say_waiting(const struct fill *f)
{
	const struct versions_stat *s = f->versions ? versions_stat(f->versions) : NULL;

	if (s)
		log_info(NULL,
			 "%llu overwritten records wait for compaction, %llu of them, the oldest, "
			 "without their values: notifications.compacted.max.bytes",
			 (unsigned long long)s->pairs, (unsigned long long)s->omitted);
}

static int put_rows(struct fill *f, const struct position *published, int64_t began_wall,
		    int64_t began_boot)
{
	struct state_txn *t = NULL;
	int rc = state_begin(f->st, &t);

	for (int p = 0; p < f->n && !rc; p++) {
		struct state_partition *row = &f->rows[p];
		*row = STATE_PARTITION_NEW;
		row->applied = row->start = row->base = f->boundary[p];
		row->published = published[p].offset;
		row->published_n = row->base_n = published[p].n;
		/* with a boundary at P, versions between P and the end may be gone: the tail
		 * says where they end */
		row->whole = f->first_start ? f->boundary[p] : INT64_MAX;
		row->caught_wall_ms = began_wall;
		row->caught_boot_ms = began_boot;
		rc = state_partition_set(t, p, row);
	}
	if (rc) {
		state_abort(t);
		return rc;
	}
	return state_commit(t);
}

/* ---- the whole ---- */

static int read_all(struct fill *f, const atomic_bool *stop)
{
	int rc = 0;

	progress_begin(&f->progress, f->c, "reading");
	while (!rc && !all_done(f))
		rc = atomic_load(stop) ? FILL_STOPPED : take(f);
	intake_close(f->in); /* its memory is for merging now */
	f->in = NULL;
	return rc;
}

static int run(struct fill *f, const struct position *published, const atomic_bool *stop)
{
	int64_t began_wall = clock_ms(CLOCK_REALTIME), began_boot = clock_ms(CLOCK_BOOTTIME);
	int64_t began = clock_ms(CLOCK_MONOTONIC), sorted, stored;
	uint64_t records;
	int rc = read_all(f, stop);

	FAULT_POINT("fill.read");
	sorted = clock_ms(CLOCK_MONOTONIC);
	records = f->progress.records;
	if (!rc)
		rc = store_all(f, stop);
	progress_end(&f->progress);
	if (rc)
		return rc;
	FAULT_POINT("fill.stored");
	rc = put_rows(f, published, began_wall, began_boot);
	if (rc)
		return failed(f, rc, NULL);
	stored = clock_ms(CLOCK_MONOTONIC);
	log_info(
		NULL,
		"filled from %s: %llu records in %lld ms, %llu kept; reading took %lld ms, storing "
		"%lld ms",
		f->c->source_topic, (unsigned long long)records, (long long)(stored - began),
		(unsigned long long)f->progress.records, (long long)(sorted - began),
		(long long)(stored - sorted));
	say_waiting(f);
	metrics_add(METRIC_FILLS, 1);
	metrics_set(METRIC_FILL_MS, stored - began);
	return 0;
}

static bool make_arrays(struct fill *f)
{
	size_t n = (size_t)f->n;

	f->boundary = calloc(n, sizeof(*f->boundary));
	f->first = calloc(n, sizeof(*f->first));
	f->next = calloc(n, sizeof(*f->next));
	f->done = calloc(n, sizeof(*f->done));
	f->ev.eof = calloc(n, sizeof(*f->ev.eof));
	f->ev.eof_offset = calloc(n, sizeof(*f->ev.eof_offset));
	return f->boundary && f->first && f->next && f->done && f->ev.eof && f->ev.eof_offset;
}

static void free_arrays(struct fill *f)
{
	free(f->boundary);
	free(f->first);
	free(f->next);
	free(f->done);
	free(f->ev.eof);
	free(f->ev.eof_offset);
}

static int open_sorting(struct fill *f)
{
	const struct config *c = f->c;
	size_t memory = (size_t)c->sort_memory;
	enum moved moved = (enum moved)c->source_moved;

	return state_waits(f->st) ? versions_open(&f->versions, f->st, c->state_dir, memory, moved,
						  f->n, c->compacted_max_bytes)
				  : sort_open(&f->sort, c->state_dir, memory, moved);
}

/* Where reading ends where that is known, and a consumer at the start of every partition. */
static int open_all(struct fill *f, const struct position *published)
{
	int64_t *from = f->first; /* not in use yet */
	bool any = false;

	for (int p = 0; p < f->n; p++)
		any |= published[p].offset >= 0;
	/* a partition without P beside others with one is new: it begins at 0 */
	for (int p = 0; p < f->n; p++) {
		from[p] = INTAKE_LOG_START;
		f->boundary[p] = any && published[p].offset < 0 ? 0 : published[p].offset;
	}
	f->first_start = !any;
	if (open_sorting(f))
		return failed(f, -ENOMEM, NULL);
	if (intake_open(&f->in, f->c, INTAKE_FILL, f->n, from, NULL, f->err, f->err_len)) {
		*f->id = "SN-KAFKA-CONFIG";
		return FILL_BROKEN;
	}
	for (int p = 0; p < f->n; p++) {
		f->first[p] = f->next[p] = -1;
		if (f->boundary[p] == 0) /* nothing below a boundary at the log's start */
			finish(f, p, 0);
	}
	return 0;
}

/* A fill takes several times what follows, in arenas that the C library keeps. */
static void give_back_memory(void)
{
#ifdef __GLIBC__
	malloc_trim(0);
#endif
}

int fill_run(const struct config *c, struct state *st, int n, const struct position *published,
	     struct state_partition *rows, const atomic_bool *stop, const char **id, char *err,
	     size_t err_len)
{
	struct fill f = {
		.c = c, .st = st, .n = n, .rows = rows, .id = id, .err = err, .err_len = err_len
	};
	int rc;

	metrics_set(METRIC_FILLING, 1);
	if (!make_arrays(&f))
		rc = failed(&f, -ENOMEM, NULL);
	else if (!(rc = open_all(&f, published)))
		rc = run(&f, published, stop);
	metrics_set(METRIC_FILLING, 0);
	intake_close(f.in);
	sort_close(f.sort);
	versions_close(f.versions);
	free_arrays(&f);
	give_back_memory();
	return rc;
}
