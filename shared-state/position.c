/* position.c - tokens, waiting, and what a state tells about itself. */
#include "reader.h"

#include "codes.h"
#include "meta.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum {
	WAIT_MIN_NS = 200000, /* between two looks, doubled up to: */
	WAIT_MAX_NS = 5000000,
	ALIVE_MIN_MS = 10000, /* a heartbeat may be this old, or three leases */
};

/* ---- tokens ---- */

/* A whole number at *s up to `max`, moved behind it; -1: there is none. */
static int64_t parse_number(const char **s, int64_t max)
{
	char *end;
	if (!isdigit((unsigned char)**s))
		return -1;
	errno = 0;
	long long n = strtoll(*s, &end, 10);
	if (errno || n > max)
		return -1;
	*s = end;
	return n;
}

int sstate_token_parse(const char *token, struct sstate_position *p, size_t max)
{
	const char *s = token;
	size_t n = 0;
	while (*s) {
		int64_t partition = parse_number(&s, INT32_MAX);
		if (partition < 0 || *s++ != ':')
			return -EINVAL;
		int64_t offset = parse_number(&s, INT64_MAX);
		if (offset < 0 || (*s && *s != ','))
			return -EINVAL;
		if (*s == ',' && !*++s)
			return -EINVAL;
		if (n == max)
			return -ERANGE;
		p[n++] = (struct sstate_position){ (int32_t)partition, offset };
	}
	return (int)n;
}

/* Append one position to the text of length *len. */
static int append(char *text, size_t size, size_t *len, int32_t partition, int64_t offset)
{
	int n = snprintf(text + *len, size - *len, "%s%d:%lld", *len ? "," : "", partition,
			 (long long)offset);
	if (n < 0 || (size_t)n >= size - *len)
		return -ERANGE;
	*len += (size_t)n;
	return 0;
}

int sstate_token_format(char *text, size_t size, const struct sstate_position *p, size_t n)
{
	size_t len = 0;
	int rc = 0;
	if (!size)
		return -ERANGE;
	*text = 0;
	for (size_t i = 0; !rc && i < n; i++)
		rc = append(text, size, &len, p[i].partition, p[i].offset);
	return rc;
}

int reading_token(struct reading *r, void *arg)
{
	struct token_text *t = arg;
	struct state_partition row;
	int32_t n;
	size_t len = 0;
	if (!t->size)
		return -ERANGE;
	*t->text = 0;
	int rc = meta_get_partitions(r->txn, r->source->meta, &n);
	for (int32_t p = 0; !rc && p < n; p++) {
		rc = meta_get_partition(r->txn, r->source->meta, p, &row);
		if (!rc)
			rc = append(t->text, t->size, &len, p, row.applied);
		else if (rc == -ENOENT)
			rc = 0; /* not begun yet */
	}
	return rc;
}

int sstate_token(struct sstate *s, char *text, size_t size)
{
	return reader_run(s, reading_token, &(struct token_text){ text, size });
}

/* ---- waiting ---- */

struct positions {
	struct sstate_position *p;
	int n;
};

/* 0: all are applied; -EAGAIN: not yet. */
static int look(struct reading *r, void *arg)
{
	const struct positions *w = arg;
	for (int i = 0; i < w->n; i++) {
		struct state_partition row;
		int rc = meta_get_partition(r->txn, r->source->meta, w->p[i].partition, &row);
		if (rc == -ENOENT || (!rc && row.applied < w->p[i].offset))
			return -EAGAIN;
		if (rc)
			return rc;
	}
	return 0;
}

static int wait_for(struct sstate *s, struct positions *w, int64_t timeout_ms)
{
	int64_t began_ns = reader_clock_ns();
	for (long pause_ns = WAIT_MIN_NS;; pause_ns *= 2) {
		int64_t waited_ns = reader_clock_ns() - began_ns;
		int rc = reader_run(s, look, w);
		if (rc != -EAGAIN)
			return rc;
		/* the time from before the look: whatever was applied in time is seen */
		if (timeout_ms >= 0 && waited_ns / 1000000 >= timeout_ms)
			return -ETIMEDOUT;
		if (pause_ns > WAIT_MAX_NS)
			pause_ns = WAIT_MAX_NS;
		nanosleep(&(struct timespec){ .tv_nsec = pause_ns }, NULL);
	}
}

int sstate_wait(struct sstate *s, const char *token, int64_t timeout_ms)
{
	size_t max = 1;
	for (const char *c = token; *c; c++)
		max += *c == ',';
	struct sstate_position *p = calloc(max, sizeof(*p));
	if (!p)
		return -ENOMEM;
	int rc = sstate_token_parse(token, p, max);
	if (rc >= 0)
		rc = wait_for(s, &(struct positions){ p, rc }, timeout_ms);
	free(p);
	return rc;
}

/* ---- about the state ---- */

struct text {
	const char *what;
	char *text;
	size_t size;
};

static int get_text(struct reading *r, void *arg)
{
	struct text *t = arg;
	return meta_get_text(r->txn, r->source->meta, t->what, t->text, t->size);
}

int sstate_text(struct sstate *s, const char *what, char *text, size_t size)
{
	return *what ? reader_run(s, get_text, &(struct text){ what, text, size }) : -ENOENT;
}

struct partition {
	int32_t p;
	struct state_partition row;
};

static int get_partition(struct reading *r, void *arg)
{
	struct partition *w = arg;
	return meta_get_partition(r->txn, r->source->meta, w->p, &w->row);
}

int sstate_partition(struct sstate *s, int32_t partition, struct sstate_partition *out)
{
	struct partition w = { .p = partition };
	int rc = reader_run(s, get_partition, &w);
	if (!rc)
		*out = (struct sstate_partition){ .applied = w.row.applied,
						  .published = w.row.published,
						  .base = w.row.base,
						  .start = w.row.start,
						  .whole = w.row.whole,
						  .due = w.row.due };
	return rc;
}

static int64_t wall_clock_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Ready and heartbeat; neither need have been written yet. */
static int get_life(struct reading *r, struct sstate_stat *s)
{
	char ready[8] = "";
	int64_t beat_ms = 0;
	int rc = meta_get_text(r->txn, r->source->meta, "ready", ready, sizeof(ready));
	if (rc && rc != -ENOENT)
		return rc;
	rc = meta_get_int(r->txn, r->source->meta, META_HEARTBEAT_MS, &beat_ms);
	if (rc && rc != -ENOENT)
		return rc;
	int64_t age_ms = wall_clock_ms() - beat_ms;
	s->heartbeat_age_ms = rc ? -1 : age_ms > 0 ? age_ms : 0;
	int64_t limit_ms = 3 * s->lease_ms > ALIVE_MIN_MS ? 3 * s->lease_ms : ALIVE_MIN_MS;
	s->ready = !rc && s->heartbeat_age_ms < limit_ms && strcmp(ready, "1") == 0;
	return 0;
}

static int get_size(struct reading *r, MDB_dbi dbi, uint64_t *entries, uint64_t *bytes)
{
	MDB_stat s;
	int rc = mdb_stat(r->txn, dbi, &s);
	if (rc)
		return code_from_mdb(rc);
	*entries = s.ms_entries;
	*bytes = (s.ms_branch_pages + s.ms_leaf_pages + s.ms_overflow_pages) * s.ms_psize;
	return 0;
}

static int get_stat(struct reading *r, void *arg)
{
	struct sstate_stat *s = arg;
	const struct source *src = r->source;
	struct stat file;
	int fd;
	s->lease_ms = src->lease_ns / 1000000;
	s->generation = src->generation;
	s->txnid = mdb_txn_id(r->txn);
	int rc = get_life(r, s);
	if (!rc)
		rc = get_size(r, src->records, &s->keys, &s->bytes);
	if (!rc)
		rc = get_size(r, src->journal, &s->journal_entries, &s->journal_bytes);
	if (!rc)
		rc = meta_get_partitions(r->txn, src->meta, &s->partitions);
	if (!rc)
		rc = code_from_mdb(mdb_env_get_fd(src->env, &fd));
	if (!rc && fstat(fd, &file))
		rc = -errno;
	if (!rc)
		s->file_bytes = (uint64_t)file.st_size;
	return rc;
}

int sstate_stat(struct sstate *s, struct sstate_stat *out)
{
	struct sstate_stat found = { 0 };
	int rc = reader_run(s, get_stat, &found);
	if (!rc)
		*out = found;
	return rc;
}
