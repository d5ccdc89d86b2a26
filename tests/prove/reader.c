/*
 * reader.c - an application that looks keys up all the time and notices when an
 * answer is wrong; purged.py and rebuild.py run it.
 *
 *   reader DIR KEYS NEW FIRST LAST SEED
 *
 * There are keys key-00000000 ... below KEYS from the beginning on, and NEW more
 * that come later.  Keys FIRST to LAST-1 may be deleted, once, and never return.
 * A value tells its key and a version that only grows, and the rest of it
 * follows from both: so whatever is older than was seen before, belongs to
 * another key, is torn, or is missing, is wrong.  SIGTERM: print one line of
 * JSON and end.
 */
#include "shared_state.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { NEVER = -1, DELETED = -2, SCAN_EVERY = 20000, VALUE_MAX = 300 };

static volatile sig_atomic_t end;
static long first, last, keys, total;
static long *seen; /* version of each key, or NEVER, or DELETED */
static struct {
	long gets, scanned, wrong, errors, stale, deletes_seen;
	double silent_max_ms; /* the longest time without a right answer */
	char first_wrong[200];
} tally;
static double answered_ms;

static void on_signal(int sig)
{
	(void)sig;
	end = 1;
}

static double now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void wrong(const char *what, long k, long a, long b)
{
	if (!tally.wrong++)
		snprintf(tally.first_wrong, sizeof(tally.first_wrong), "%s: key %ld, %ld, %ld",
			 what, k, a, b);
}

static void answered(void)
{
	double now = now_ms();
	if (now - answered_ms > tally.silent_max_ms)
		tally.silent_max_ms = now - answered_ms;
	answered_ms = now;
}

/* The version that a value tells; -1: it is not what anybody wrote for this key. */
static long version_of(const struct sstate_record *r, long k)
{
	char have[VALUE_MAX + 1], want[VALUE_MAX + 1], word[17];
	long v;
	int len;

	if (r->value_len > VALUE_MAX)
		return -1;
	memcpy(have, r->value, r->value_len);
	have[r->value_len] = '\0';
	if (sscanf(have, "{\"key\":\"key-%*8d\",\"v\":%ld,", &v) != 1)
		return -1;
	snprintf(word, sizeof(word), "%016llx",
		 (unsigned long long)k * 2654435761u + (unsigned long long)v * 40503u);
	len = snprintf(want, sizeof(want), "{\"key\":\"key-%08ld\",\"v\":%ld,\"pad\":\"", k, v);
	for (long i = 0; i < 4 + v % 7; i++, len += 16)
		memcpy(want + len, word, 16);
	strcpy(want + len, "\"}");
	return !strcmp(want, have) ? v : -1;
}

static void judge_value(const struct sstate_record *r, long k)
{
	long v = version_of(r, k);

	if (v < 0)
		wrong("not a value of this key", k, (long)r->value_len, 0);
	else if (seen[k] == DELETED)
		wrong("back again", k, v, 0);
	else if (v < seen[k])
		wrong("older than before", k, v, seen[k]);
	else
		seen[k] = v;
}

static void judge_absence(long k)
{
	if (k >= keys && seen[k] == NEVER)
		return; /* not there yet */
	if (k < first || k >= last)
		wrong("missing", k, seen[k], 0);
	tally.deletes_seen += seen[k] != DELETED;
	seen[k] = DELETED;
}

static void look_up(struct sstate *s, struct sstate_buf *b, long k)
{
	struct sstate_record r;
	char key[32];
	int rc = sstate_get(s, key, (size_t)snprintf(key, sizeof(key), "key-%08ld", k), b, &r);

	tally.gets++;
	if (rc == SSTATE_STALE)
		tally.stale++;
	else if (rc && rc != -ENOENT && !tally.errors++)
		snprintf(tally.first_wrong, sizeof(tally.first_wrong), "%s", sstate_strerror(rc));
	if (rc == 0)
		judge_value(&r, k);
	else if (rc == -ENOENT)
		judge_absence(k);
	if (rc == 0 || rc == -ENOENT)
		answered();
}

/* A thousand neighbours, each at most once and in order; what is not among them is absent. */
static void scan(struct sstate *s, long from)
{
	struct sstate_record r;
	struct sstate_scan *c;
	char prefix[32];
	long k = from, before = from - 1;
	int rc = sstate_scan_begin(
		&c, s, prefix, (size_t)snprintf(prefix, sizeof(prefix), "key-%05ld", from / 1000));

	while (!rc && (rc = sstate_scan_next(c, &r)) == 0) {
		if (r.key_len != 12 || (k = atol((const char *)r.key + 4)) <= before ||
		    k >= from + 1000 || k >= total) {
			wrong("scan out of order", k, before, from);
			break;
		}
		for (long gone = before + 1; gone < k; gone++)
			judge_absence(gone);
		judge_value(&r, k);
		before = k;
		tally.scanned++;
	}
	if (rc && rc != -ENOENT && rc != SSTATE_STALE)
		tally.errors++;
	sstate_scan_end(c);
}

int main(int argc, char **argv)
{
	struct sstate_buf b = { 0 };
	struct sstate *s;

	if (argc != 7)
		return 2;
	keys = atol(argv[2]);
	total = keys + atol(argv[3]);
	first = atol(argv[4]);
	last = atol(argv[5]);
	srand((unsigned)atoi(argv[6]));
	signal(SIGTERM, on_signal);
	seen = malloc((size_t)total * sizeof(*seen));
	int rc = sstate_open(&s, argv[1]);
	if (rc || !seen) {
		fprintf(stderr, "reader: %s: %s\n", argv[1], sstate_strerror(rc));
		return 1;
	}
	for (long k = 0; k < total; k++)
		seen[k] = NEVER;
	answered_ms = now_ms();
	for (long i = 0; !end; i++) {
		look_up(s, &b, ((long)rand() << 15 ^ rand()) % total);
		if (i % SCAN_EVERY == 0)
			scan(s, rand() % (keys / 1000) * 1000);
		if (i % 50 == 0) /* others need the processors too */
			nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
	}
	printf("{\"gets\":%ld,\"scanned\":%ld,\"wrong\":%ld,\"errors\":%ld,\"stale\":%ld,"
	       "\"deletes_seen\":%ld,\"silent_max_ms\":%.1f,\"first_wrong\":\"%s\"}\n",
	       tally.gets, tally.scanned, tally.wrong, tally.errors, tally.stale,
	       tally.deletes_seen, tally.silent_max_ms, tally.first_wrong);
	sstate_buf_free(&b);
	sstate_close(s);
	free(seen);
	return 0;
}
