/* position.c - tokens, waiting, and what a state tells about itself. */
#include "reader.h"

#include "meta.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
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
		int64_t due = offset >= 0 && *s == '~' ? (s++, parse_number(&s, INT64_MAX)) : 0;
		if (offset < 0 || due < 0 || (*s && *s != ','))
			return -EINVAL;
		if (*s == ',' && !*++s)
			return -EINVAL;
		if (n == max)
			return -ERANGE;
		p[n++] = (struct sstate_position){ (int32_t)partition, offset, due };
	}
	return (int)n;
}

/* Up to where not even a delete may be missing. */
static int64_t known(const struct sstate_position *p)
{
	return p->due > 0 && p->due < p->offset ? p->due : p->offset;
}

int sstate_position_reached(const struct sstate_position *have, const struct sstate_position *want)
{
	return have->offset >= want->offset && known(have) >= known(want);
}

static int append_text(char *text, size_t size, size_t *len, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(text + *len, size - *len, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= size - *len)
		return -ERANGE;
	*len += (size_t)n;
	return 0;
}

/* Append one position to the text of length *len. */
static int append(char *text, size_t size, size_t *len, const struct sstate_position *p)
{
	int rc = append_text(text, size, len, "%s%d:%lld", *len ? "," : "", p->partition,
			     (long long)p->offset);
	if (!rc && known(p) < p->offset)
		rc = append_text(text, size, len, "~%lld", (long long)p->due);
	return rc;
}

int sstate_token_format(char *text, size_t size, const struct sstate_position *p, size_t n)
{
	size_t len = 0;
	int rc = 0;
	if (!size)
		return -ERANGE;
	*text = 0;
	for (size_t i = 0; !rc && i < n; i++)
		rc = append(text, size, &len, &p[i]);
	return rc;
}

static struct sstate_position position_of(int32_t p, const struct state_partition *row)
{
	return (struct sstate_position){ p, row->applied, row->due > 0 ? row->due : 0 };
}

/* The row where a walk over all partitions is, -ENOENT behind the last; *p is the one before. */
static int partition_here(struct walk *w, int32_t *p, struct state_partition *row)
{
	struct span k, v;
	int32_t before = *p;
	int rc = walk_entry(w, &k, &v);
	if (rc)
		return rc;
	if (!meta_is_partition(k.p, k.len, p))
		return -ENOENT;
	if (*p <= before)
		return -EBADMSG; /* pages that lead in a circle must not keep us for ever */
	return meta_decode_partition(row, v.p, v.len);
}

static int first_partition(struct reading *r, struct walk *w)
{
	struct pages *f = &r->source->pages;
	struct tree meta;
	char key[META_KEY_BYTES];
	size_t len = meta_partition_key(key, 0);
	int rc = tree_open(&meta, f, &r->commit, "meta");
	return rc ? rc : walk_seek(w, f, &r->commit, &meta, (struct span){ (uint8_t *)key, len });
}

int reading_token(struct reading *r, void *arg)
{
	struct token_text *t = arg;
	struct state_partition row;
	struct walk w;
	int32_t p = -1;
	size_t len = 0;
	if (!t->size)
		return -ERANGE;
	*t->text = 0;
	int rc = first_partition(r, &w);
	for (; !rc; rc = rc ? rc : walk_next(&w)) {
		rc = partition_here(&w, &p, &row);
		struct sstate_position at = position_of(p, &row);
		if (!rc)
			rc = append(t->text, t->size, &len, &at);
	}
	return rc == -ENOENT ? 0 : rc;
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

static int read_partition(struct reading *r, int32_t p, struct state_partition *row)
{
	char key[META_KEY_BYTES];
	size_t len = meta_partition_key(key, p);
	struct span v;
	int rc = reading_meta(r, key, len, &v);
	return rc ? rc : meta_decode_partition(row, v.p, v.len);
}

/* 0: all are reached; -EAGAIN: not yet. */
static int look(struct reading *r, void *arg)
{
	const struct positions *w = arg;
	for (int i = 0; i < w->n; i++) {
		struct state_partition row;
		int rc = read_partition(r, w->p[i].partition, &row);
		if (rc && rc != -ENOENT)
			return rc;
		struct sstate_position at = position_of(w->p[i].partition, &row);
		if (rc || !sstate_position_reached(&at, &w->p[i]))
			return -EAGAIN;
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

static int read_text(struct reading *r, const char *what, char *text, size_t size)
{
	struct span v;
	int rc = reading_meta(r, what, strlen(what), &v);
	return rc ? rc : meta_decode_text(text, size, v.p, v.len);
}

static int get_text(struct reading *r, void *arg)
{
	struct text *t = arg;
	return read_text(r, t->what, t->text, t->size);
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
	return read_partition(r, w->p, &w->row);
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
	char ready[8] = "", beat[24] = "";
	int64_t beat_ms;
	int rc = read_text(r, "ready", ready, sizeof(ready));
	if (rc && rc != -ENOENT)
		return rc;
	rc = read_text(r, META_HEARTBEAT_MS, beat, sizeof(beat));
	if (!rc)
		rc = meta_decode_int(&beat_ms, beat, strlen(beat));
	s->heartbeat_age_ms = -1;
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	int64_t age_ms = wall_clock_ms() - beat_ms;
	int64_t limit_ms = 3 * s->lease_ms > ALIVE_MIN_MS ? 3 * s->lease_ms : ALIVE_MIN_MS;
	s->heartbeat_age_ms = age_ms > 0 ? age_ms : 0;
	s->ready = age_ms < limit_ms && strcmp(ready, "1") == 0;
	return 0;
}

static int get_size(struct reading *r, const char *database, uint64_t *entries, uint64_t *bytes)
{
	struct tree t;
	int rc = tree_open(&t, &r->source->pages, &r->commit, database);
	if (rc)
		return rc;
	*entries = t.entries;
	*bytes = t.pages * r->source->pages.page_bytes;
	return 0;
}

static int count_partitions(struct reading *r, int32_t *n)
{
	struct walk w;
	struct state_partition row;
	int32_t p = -1;
	*n = 0;
	int rc = first_partition(r, &w);
	for (; !rc; rc = rc ? rc : walk_next(&w)) {
		rc = partition_here(&w, &p, &row);
		if (!rc)
			*n = p + 1;
	}
	return rc == -ENOENT ? 0 : rc;
}

static int get_stat(struct reading *r, void *arg)
{
	struct sstate_stat *s = arg;
	const struct source *src = r->source;
	struct stat file;
	*s = (struct sstate_stat){ .lease_ms = src->lease_ns / 1000000,
				   .generation = src->generation,
				   .txnid = r->commit.txnid };
	int rc = get_life(r, s);
	if (!rc)
		rc = get_size(r, "records", &s->keys, &s->bytes);
	if (!rc)
		rc = get_size(r, "journal", &s->journal_entries, &s->journal_bytes);
	if (!rc)
		rc = count_partitions(r, &s->partitions);
	if (!rc && fstat(src->pages.fd, &file))
		rc = -errno;
	if (!rc)
		s->file_bytes = (uint64_t)file.st_size;
	return rc;
}

int sstate_stat(struct sstate *s, struct sstate_stat *out)
{
	struct sstate_stat found;
	int rc = reader_run(s, get_stat, &found);
	if (!rc)
		*out = found;
	return rc;
}
