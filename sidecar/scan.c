#include "scan.h"
#include "bits.h"
#include "decide.h"
#include "fault.h"
#include "intake.h"
#include "kafka.h"
#include "log.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TAKE_MS = 100, TAKE_RECORDS = 10000, ANSWER_MS = 5000, RETRY_MS = 1000 };

struct scan {
	const struct config *c;
	int n;
	int64_t *bound, *log_start, *log_end;
	int64_t *due, *published;
	const char *self;
	bool *by_other;     /* [n]: another has committed */
	struct told **told; /* [n]: by others from `due` on; NULL: nothing */
	int32_t asking;     /* of told_read(): the partition */
	bool *done;
	struct bits *seen;
	struct intake_events ev;
	pthread_t thread;
	bool started;
	atomic_bool stop;
	atomic_int state; /* enum scan_state */
	atomic_llong offsets_done;
	int64_t offsets_all;
	char err[400];
};

enum scan_state scan_state(const struct scan *s) { return (enum scan_state)atomic_load(&s->state); }
const char *scan_error(const struct scan *s) { return s->err; }
int64_t scan_log_end(const struct scan *s, int32_t p) { return s->log_end[p]; }
int64_t scan_log_start(const struct scan *s, int32_t p) { return s->log_start[p]; }
int64_t scan_published(const struct scan *s, int32_t p) { return s->published[p]; }
const struct told *scan_told(const struct scan *s, int32_t p) { return s->told[p]; }
bool scan_led_by_other(const struct scan *s, int32_t p) { return s->by_other[p]; }
bool scan_covers(const struct scan *s, int32_t p) { return s->bound[p] >= 0; }
bool scan_misses(const struct scan *s, int32_t p, int64_t offset)
{
	return offset < s->bound[p] && !bits_get(&s->seen[p], offset);
}

void scan_progress(const struct scan *s, int64_t *done, int64_t *all)
{
	*done = atomic_load(&s->offsets_done);
	*all = s->offsets_all;
}

static bool all_done(const struct scan *s)
{
	for (int p = 0; p < s->n; p++)
		if (!s->done[p])
			return false;
	return true;
}

static int mark(struct scan *s, struct intake *in, int64_t *furthest)
{
	const struct batch *b = intake_batch(in);

	for (size_t i = 0; i < b->n; i++) {
		const struct record *r = &b->v[i].rec;
		int p = r->partition;
		if (s->done[p])
			continue;
		if (r->offset >= s->bound[p]) {
			s->done[p] = true;
			intake_pause(in, p);
			continue;
		}
		if (bits_set(&s->seen[p], r->offset))
			return -ENOMEM;
		atomic_fetch_add(&s->offsets_done, r->offset - furthest[p]);
		furthest[p] = r->offset;
	}
	for (int p = 0; p < s->n; p++) {
		if (!s->ev.eof[p] || s->done[p])
			continue;
		/* an end before the bound would make live records look gone: a leader that does not
		 * know its high watermark yet, or another topic */
		if (s->ev.eof_offset[p] < s->bound[p]) {
			snprintf(s->err, sizeof(s->err), "partition %d ends at %lld, before %lld",
				 p, (long long)s->ev.eof_offset[p], (long long)s->bound[p]);
			return -ERANGE;
		}
		s->done[p] = true;
	}
	return 0;
}

static int read_log(struct scan *s, struct intake *in, int64_t *furthest)
{
	int rc = 0;

	for (int p = 0; p < s->n; p++)
		if (s->done[p])
			intake_pause(in, p);
	while (!rc && !all_done(s)) {
		if (atomic_load(&s->stop))
			return -EINTR;
		rc = intake_take(in, TAKE_MS, TAKE_RECORDS, &s->ev, s->err, sizeof(s->err));
		if (rc == INTAKE_DENIED || rc == INTAKE_MISSING) {
			usleep(RETRY_MS * 1000);
			rc = 0;
		}
		if (!rc)
			rc = mark(s, in, furthest);
		intake_clear(in);
	}
	return rc;
}

static int ask_watermarks(struct scan *s, rd_kafka_t *rk, int64_t *low, int64_t *high)
{
	for (int p = 0; p < s->n; p++) {
		while (s->bound[p] >= 0 &&
		       kafka_watermarks(rk, s->c->source_topic, p, ANSWER_MS, &low[p], &high[p],
					s->err, sizeof(s->err))) {
			if (atomic_load(&s->stop))
				return -EINTR;
			usleep(RETRY_MS * 1000);
		}
	}
	return 0;
}

/*
 * The positions that are committed.  A transaction that is about to end is waited
 * for; one that a dead leader has left open will be aborted, so what was committed
 * before it counts.
 */
static int ask_published(struct scan *s, rd_kafka_t *rk)
{
	struct kafka_committed *c = calloc((size_t)s->n, sizeof(*c));
	rd_kafka_t *peek = kafka_new(s->c, KAFKA_PEEK, NULL, s->err, sizeof(s->err));
	int rc = c && peek ? 0 : -ENOMEM;
	bool stable = true;

	while (!rc && kafka_committed(stable ? rk : peek, s->c->source_topic, s->n, ANSWER_MS, c,
				      s->err, sizeof(s->err))) {
		if (atomic_load(&s->stop))
			rc = -EINTR;
		if (!stable)
			usleep(RETRY_MS * 1000);
		stable = !stable;
	}
	kafka_free(peek);
	for (int p = 0; p < s->n && !rc; p++) {
		struct metadata m;
		metadata_parse(&m, c[p].metadata);
		s->by_other[p] = c[p].offset >= 0 && strcmp(m.by, s->self) != 0;
		if (s->bound[p] >= 0 && c[p].offset > s->due[p] && c[p].offset <= s->bound[p])
			s->published[p] = c[p].offset;
	}
	free(c);
	return rc;
}

static bool is_removed(void *opaque, int64_t offset)
{
	const struct scan *s = opaque;
	return offset >= 0 && scan_misses(s, s->asking, offset);
}

static int ask_told(struct scan *s, rd_kafka_t *rk)
{
	int rc = ask_published(s, rk);

	for (int p = 0; p < s->n && !rc; p++) {
		const struct told_what what = { .c = s->c,
						.p = p,
						.n = s->n,
						.from = s->due[p],
						.wanted = is_removed,
						.opaque = s };
		if (s->published[p] < 0)
			continue;
		log_info(NULL,
			 "round: partition %d was published from %lld to %lld meanwhile: reading "
			 "back what was told",
			 p, (long long)s->due[p], (long long)s->published[p]);
		s->asking = p;
		rc = told_read(&s->told[p], &what, &s->stop, s->err, sizeof(s->err));
	}
	return rc;
}

static void *run(void *arg)
{
	struct scan *s = arg;
	int64_t *from = calloc((size_t)s->n, sizeof(*from));
	int64_t *furthest = calloc((size_t)s->n, sizeof(*furthest));
	rd_kafka_t *rk = kafka_new(s->c, KAFKA_QUERY, NULL, s->err, sizeof(s->err));
	struct intake *in = NULL;
	int rc = !rk ? -EINVAL : from && furthest ? 0 : -ENOMEM;

	if (!rc)
		rc = ask_watermarks(s, rk, s->log_start, furthest);
	for (int p = 0; p < s->n && !rc; p++) {
		from[p] = INTAKE_LOG_START;
		furthest[p] = 0;
	}
	if (!rc)
		rc = intake_open(&in, s->c, INTAKE_FILL, s->n, from, NULL, s->err, sizeof(s->err));
	if (!rc)
		rc = read_log(s, in, furthest);
	FAULT_POINT("round.scanned");
	intake_close(in);
	if (!rc && s->due)
		rc = ask_told(s, rk);
	/* asked for after the last bit was set: what is appended later is the tail's to see, and
	 * what fell off the start while it was read has expired as well */
	if (!rc)
		rc = ask_watermarks(s, rk, s->log_start, s->log_end);
	kafka_free(rk);
	free(from);
	free(furthest);
	if (rc == -ENOMEM)
		snprintf(s->err, sizeof(s->err), "out of memory");
	atomic_store(&s->state, rc ? SCAN_FAILED : SCAN_DONE);
	return NULL;
}

int scan_start(struct scan **out, const struct config *c, int n, const int64_t *bound,
	       const int64_t *due, const char *self)
{
	struct scan *s = calloc(1, sizeof(*s));
	size_t m = (size_t)n;

	if (!s)
		return -ENOMEM;
	s->c = c;
	s->n = n;
	s->self = self;
	s->bound = calloc(m, sizeof(*s->bound));
	s->log_start = calloc(m, sizeof(*s->log_start));
	s->log_end = calloc(m, sizeof(*s->log_end));
	s->published = calloc(m, sizeof(*s->published));
	s->told = calloc(m, sizeof(*s->told));
	s->by_other = calloc(m, sizeof(*s->by_other));
	if (due)
		s->due = calloc(m, sizeof(*s->due));
	s->done = calloc(m, sizeof(*s->done));
	s->seen = calloc(m, sizeof(*s->seen));
	s->ev.eof = calloc(m, sizeof(*s->ev.eof));
	s->ev.eof_offset = calloc(m, sizeof(*s->ev.eof_offset));
	if (!s->bound || !s->log_start || !s->log_end || !s->done || !s->seen || !s->ev.eof ||
	    !s->ev.eof_offset || !s->published || !s->told || !s->by_other || (due && !s->due))
		goto out;
	for (int p = 0; p < n; p++) {
		s->bound[p] = bound[p];
		s->published[p] = -1;
		if (due)
			s->due[p] = due[p];
		s->done[p] = bound[p] <= 0;
		s->offsets_all += bound[p] > 0 ? bound[p] : 0;
	}
	if (!pthread_create(&s->thread, NULL, run, s)) {
		s->started = true;
		*out = s;
		return 0;
	}
out:
	scan_free(s);
	return -ENOMEM;
}

void scan_free(struct scan *s)
{
	if (!s)
		return;
	atomic_store(&s->stop, true);
	if (s->started)
		pthread_join(s->thread, NULL);
	for (int p = 0; s->seen && p < s->n; p++)
		bits_free(&s->seen[p]);
	for (int p = 0; s->told && p < s->n; p++)
		told_free(s->told[p]);
	free(s->told);
	free(s->by_other);
	free(s->published);
	free(s->due);
	free(s->seen);
	free(s->bound);
	free(s->log_start);
	free(s->log_end);
	free(s->done);
	free(s->ev.eof);
	free(s->ev.eof_offset);
	free(s);
}
