#include "fill.h"
#include "apply.h"
#include "intake.h"
#include "log.h"
#include "metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	TAKE_MS = 100,
	PROGRESS_MS = 5000,
	BATCH_RECORDS = 500000,
	RECORD_OVERHEAD =
		400, /* what librdkafka and the batch keep for a record beside its bytes */
};

struct fill {
	const struct config *c;
	struct state *st;
	int n;
	struct state_partition *rows;
	struct intake *in;
	struct intake_events ev;
	int64_t *boundary; /* [n]: -1 until known */
	bool *done, *blind;
	bool first; /* nothing was ever published */
	struct apply_counts counts;
	uint64_t records, bytes;
	int64_t began_ms, said_ms;
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

/* A fill keeps records of any partition: which of two counts is source.moved's business. */
static int store(struct fill *f)
{
	struct batch *b = intake_batch(f->in);
	const struct apply_options o = { .moved = f->c->source_moved, .blind = f->blind };
	char why[300] = "";
	struct state_txn *t;
	int rc = state_begin(f->st, &t);

	if (rc)
		goto out;
	rc = apply_batch(t, b, &o, &f->counts, why, sizeof(why));
	if (rc)
		state_abort(t);
	else
		rc = state_commit(t);
	if (!rc) {
		metrics_add(METRIC_FILL_RECORDS, b->n);
		f->records += b->n;
		f->bytes += b->bytes;
		intake_clear(f->in);
	}
out:
	if (!rc)
		return 0;
	*f->id = rc == -EXDEV ? "SN-KEY-MOVED" : rc == -ENOSPC ? "SN-DISK-FULL" : "SN-STATE-IO";
	if (rc == -EXDEV)
		snprintf(f->err, f->err_len,
			 "%s: %s; keys of a compacted topic must stay in their partition: see "
			 "source.moved=timestamp",
			 f->c->source_topic, why);
	else
		snprintf(f->err, f->err_len, "filling %s: %s", f->c->state_dir,
			 why[0] ? why : state_strerror(rc));
	return rc == -EXDEV ? FILL_BROKEN : FILL_FAILED;
}

static void progress(struct fill *f)
{
	int64_t now = clock_ms(CLOCK_MONOTONIC);

	if (now - f->said_ms < PROGRESS_MS)
		return;
	f->said_ms = now;
	log_info(NULL, "filling from %s: %llu records, %llu MB, %lld records/s", f->c->source_topic,
		 (unsigned long long)f->records, (unsigned long long)(f->bytes >> 20),
		 (long long)(f->records * 1000 / (uint64_t)(now - f->began_ms + 1)));
}

static int take(struct fill *f)
{
	struct batch *b = intake_batch(f->in);
	size_t limit = (size_t)f->c->sort_memory / 4;
	int rc = intake_take(f->in, TAKE_MS, b->n + 2000, &f->ev, f->err, f->err_len);

	if (rc == INTAKE_DENIED || rc == INTAKE_MISSING) {
		*f->id = rc == INTAKE_DENIED ? "SN-SOURCE-DENIED" : "SN-SOURCE-MISSING";
		return FILL_FAILED;
	}
	if (rc) {
		*f->id = rc == INTAKE_CORRUPT ? "SN-SOURCE-CORRUPT" : "SN-POSITION-OUTSIDE";
		return FILL_BROKEN;
	}
	if ((rc = take_boundaries(f)))
		return rc;
	if (b->n >= BATCH_RECORDS || b->bytes + b->n * RECORD_OVERHEAD > limit || all_done(f))
		rc = store(f);
	return rc;
}

static int put_rows(struct fill *f, const struct position *published, int64_t began_wall,
		    int64_t began_boot)
{
	struct state_txn *t;
	int rc = state_begin(f->st, &t);

	for (int p = 0; p < f->n && !rc; p++) {
		struct state_partition *row = &f->rows[p];
		*row = STATE_PARTITION_NEW;
		row->applied = row->start = row->base = f->boundary[p];
		row->published = published[p].offset;
		row->published_n = row->base_n = published[p].n;
		/* with a boundary at P, versions between P and the end may be gone: the tail
		 * says where they end */
		row->whole = f->first ? f->boundary[p] : INT64_MAX;
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

static int run(struct fill *f, const struct position *published, const atomic_bool *stop)
{
	struct timespec boot;
	int64_t began_wall = clock_ms(CLOCK_REALTIME), began_boot;
	int rc = 0;

	clock_gettime(CLOCK_BOOTTIME, &boot);
	began_boot = boot.tv_sec * 1000LL + boot.tv_nsec / 1000000;
	f->began_ms = f->said_ms = clock_ms(CLOCK_MONOTONIC);
	while (!rc && !all_done(f)) {
		if (atomic_load(stop))
			return FILL_STOPPED;
		rc = take(f);
		progress(f);
	}
	if (rc)
		return rc;
	rc = put_rows(f, published, began_wall, began_boot);
	if (rc) {
		*f->id = "SN-STATE-IO";
		snprintf(f->err, f->err_len, "filling %s: %s", f->c->state_dir, state_strerror(rc));
		return FILL_FAILED;
	}
	log_info(NULL, "filled from %s: %llu records in %lld ms", f->c->source_topic,
		 (unsigned long long)f->records,
		 (long long)(clock_ms(CLOCK_MONOTONIC) - f->began_ms));
	metrics_add(METRIC_FILLS, 1);
	metrics_set(METRIC_FILL_MS, clock_ms(CLOCK_MONOTONIC) - f->began_ms);
	return 0;
}

int fill_run(const struct config *c, struct state *st, int n, const struct position *published,
	     struct state_partition *rows, const atomic_bool *stop, const char **id, char *err,
	     size_t err_len)
{
	struct fill f = {
		.c = c, .st = st, .n = n, .rows = rows, .id = id, .err = err, .err_len = err_len
	};
	int64_t *from = calloc((size_t)n, sizeof(*from));
	int rc = FILL_FAILED;

	*id = "SN-MEMORY";
	snprintf(err, err_len, "out of memory");
	f.boundary = calloc((size_t)n, sizeof(*f.boundary));
	f.done = calloc((size_t)n, sizeof(*f.done));
	f.blind = calloc((size_t)n, sizeof(*f.blind));
	f.ev.eof = calloc((size_t)n, sizeof(*f.ev.eof));
	f.ev.eof_offset = calloc((size_t)n, sizeof(*f.ev.eof_offset));
	if (!from || !f.boundary || !f.done || !f.blind || !f.ev.eof || !f.ev.eof_offset)
		goto out;
	/* a partition without P beside others with one is new: it begins at 0 */
	bool any = false;
	for (int p = 0; p < n; p++)
		any |= published[p].offset >= 0;
	for (int p = 0; p < n; p++) {
		from[p] = INTAKE_LOG_START;
		f.boundary[p] = any && published[p].offset < 0 ? 0 : published[p].offset;
	}
	f.first = !any;
	if (intake_open(&f.in, c, true, n, from, err, err_len)) {
		*id = "SN-KAFKA-CONFIG";
		rc = FILL_BROKEN;
		goto out;
	}
	/* nothing below a boundary at the log's start */
	for (int p = 0; p < n; p++)
		if (f.boundary[p] == 0)
			finish(&f, p, 0);
	metrics_set(METRIC_FILLING, 1);
	rc = run(&f, published, stop);
	metrics_set(METRIC_FILLING, 0);
out:
	intake_close(f.in);
	free(from);
	free(f.boundary);
	free(f.done);
	free(f.blind);
	free(f.ev.eof);
	free(f.ev.eof_offset);
	return rc;
}
