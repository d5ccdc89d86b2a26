/*
 * torture.c - the processes of the reader torture; torture.py runs them.
 *
 *   torture fill  DIR BOARD KEYS LEASE_MS   make the board and the first generation
 *   torture write DIR BOARD                 commit flat out; SIGUSR1: new generation; SIGTERM: end
 *   torture read  DIR BOARD SEED            look up until the board says stop; one JSON line
 *
 * Every value follows from its key and version, so that a reader can tell a
 * wrong one by itself.  The board is memory that all of them share: there the
 * writer notes, after each commit, the version of every key it wrote.  A reader
 * that gets an older one than was noted before it asked has been lied to.
 *
 * Linked with -Wl,--wrap=commit_read, which counts the attempts of a look-up.
 */
#include "shared_state.h"
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	BATCH = 1000,          /* keys of a commit */
	VALUE_MAX = 12000,     /* some values take pages of their own */
	SLOW_EVERY = 20000,    /* look-ups between two snapshots that are held, and two scans */
	SWITCH_GRACE_MS = 500, /* after a new generation readers may be behind for a moment */
	SCAN_KEYS = 1000,
};

struct board {
	atomic_bool go, stop;
	atomic_int warm; /* readers that have read every key */
	_Atomic int64_t writing_since_ns, switched_ns, commits, switches;
	int32_t keys;
	int64_t lease_ms;
	_Atomic int64_t latest[]; /* version of each key */
};

static struct board *board;
static const struct state_identity who = { "torture", "", "torture" };

static void die(const char *what, int rc)
{
	fprintf(stderr, "torture: %s: %s\n", what, state_strerror(rc));
	exit(1);
}

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void pause_ms(int64_t ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

static void open_board(const char *path, int32_t keys)
{
	int fd = open(path, O_RDWR | (keys ? O_CREAT : 0), 0666);
	off_t size = (off_t)sizeof(*board) + (off_t)keys * 8;
	if (fd < 0)
		die(path, -errno);
	if (keys && (fchmod(fd, 0666) || ftruncate(fd, size)))
		die(path, -errno);
	if (!keys)
		size = lseek(fd, 0, SEEK_END);
	board = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (board == MAP_FAILED)
		die(path, -errno);
	close(fd);
}

/* ---- keys and values ---- */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdull;
	x ^= x >> 29;
	x *= 0xc4ceb9fe1a85ec53ull;
	return x ^ x >> 32;
}

static size_t make_key(char *key, int32_t k) { return (size_t)sprintf(key, "key-%09d", k); }

/* Key, version and bytes that follow from both; a multiple of 8. */
static size_t make_value(uint64_t *out, int32_t k, int64_t version)
{
	uint64_t seed = mix((uint64_t)k << 40 ^ (uint64_t)version);
	size_t words = 4 + seed % 40;
	if (seed % 211 == 0)
		words = 4 + seed % (VALUE_MAX / 8 - 4);
	out[0] = (uint64_t)k;
	out[1] = (uint64_t)version;
	for (size_t i = 2; i < words; i++)
		out[i] = seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return words * 8;
}

/* The version that a value of key k tells; -1: it is not what was written. */
static int64_t check_value(const void *value, size_t len, int32_t k)
{
	static uint64_t got[VALUE_MAX / 8], want[VALUE_MAX / 8];
	if (len < 16 || len > VALUE_MAX)
		return -1;
	memcpy(got, value, len);
	int64_t version = (int64_t)got[1];
	if (got[0] != (uint64_t)k || make_value(want, k, version) != len)
		return -1;
	return memcmp(got, want, len) == 0 ? version : -1;
}

/* ---- writer ---- */

static volatile sig_atomic_t want_switch, want_end;

static void on_signal(int sig)
{
	if (sig == SIGUSR1)
		want_switch = 1;
	else
		want_end = 1;
}

static int put(struct state_txn *t, const char *key, size_t key_len, const void *value, size_t len)
{
	static uint8_t rec[VALUE_MAX + 64];
	struct record r = { .value = value, .value_len = len };
	record_encode(rec, &r, key, key_len);
	return state_put(t, key, key_len, rec, record_bytes(&r));
}

static int put_key(struct state_txn *t, int32_t k, int64_t version)
{
	static uint64_t value[VALUE_MAX / 8];
	char key[32];
	size_t key_len = make_key(key, k);
	return put(t, key, key_len, value, make_value(value, k, version));
}

/* The time and the version of the commit, in the same commit. */
static int put_marks(struct state_txn *t, int64_t version)
{
	int64_t now = now_ns();
	struct state_partition row = STATE_PARTITION_NEW;
	row.applied = version;
	int rc = put(t, "~time", 5, &now, sizeof(now));
	return rc ? rc : state_partition_set(t, 0, &row);
}

static struct state *fill(struct state_dir *d, int64_t version)
{
	char err[500];
	struct state *st;
	struct state_txn *t;
	struct state_options o = { .lease_ms = board->lease_ms };
	int rc = state_create(&st, d, &who, &o, err, sizeof(err));
	for (int32_t k = 0; !rc && k < board->keys;) {
		rc = state_begin(st, &t);
		for (int32_t end = k + 10000; !rc && k < end && k < board->keys; k++)
			rc = put_key(t, k, atomic_load(&board->latest[k]));
		if (!rc && k == board->keys)
			rc = put_marks(t, version);
		if (!rc)
			rc = state_commit(t);
	}
	if (!rc)
		rc = state_make_current(st, err, sizeof(err));
	if (rc)
		die("fill", rc);
	return st;
}

static struct state_dir *open_dir(const char *dir)
{
	char err[500];
	struct state_dir *d;
	if (state_dir_open(&d, dir, err, sizeof(err)))
		die(err, 0);
	return d;
}

static int32_t batch[BATCH];

static int ascending(const void *a, const void *b)
{
	return *(const int32_t *)a - *(const int32_t *)b;
}

static void write_batch(struct state *st, int64_t version)
{
	struct state_txn *t;
	for (int i = 0; i < BATCH; i++)
		batch[i] = rand() % board->keys;
	qsort(batch, BATCH, sizeof(*batch), ascending);
	int rc = state_begin(st, &t);
	for (int i = 0; !rc && i < BATCH; i++)
		if (!i || batch[i] != batch[i - 1])
			rc = put_key(t, batch[i], version);
	if (!rc)
		rc = put_marks(t, version);
	if (!rc)
		rc = state_commit(t);
	if (rc)
		die("write", rc);
	for (int i = 0; i < BATCH; i++)
		atomic_store(&board->latest[batch[i]], version);
	atomic_fetch_add(&board->commits, 1);
}

/* A killed writer may have committed more than it noted. */
static int64_t catch_up(struct state *st)
{
	struct state_view *v;
	struct state_partition row;
	int rc = state_view_begin(st, &v);
	if (!rc)
		rc = state_view_partition(v, 0, &row);
	for (int32_t k = 0; !rc && k < board->keys; k++) {
		char key[32];
		const void *rec;
		size_t len, key_len = make_key(key, k);
		struct record r;
		rc = state_view_get(v, key, key_len, &rec, &len);
		if (!rc)
			rc = record_decode(&r, rec, len, key, key_len);
		if (!rc)
			atomic_store(&board->latest[k], check_value(r.value, r.value_len, k));
	}
	if (rc)
		die("the state after a restart", rc);
	state_view_end(v);
	return row.applied;
}

static void switch_generation(struct state_dir *d, struct state **st, int64_t version)
{
	struct state *new = fill(d, version);
	atomic_store(&board->switched_ns, now_ns());
	atomic_fetch_add(&board->switches, 1);
	state_close(*st);
	*st = new;
	state_dir_sweep(d);
}

static int do_write(const char *dir)
{
	char err[500];
	struct state_dir *d = open_dir(dir);
	struct state *st;
	struct state_options o = { .lease_ms = board->lease_ms };
	signal(SIGUSR1, on_signal);
	signal(SIGTERM, on_signal);
	state_dir_sweep(d);
	if (state_open(&st, d, &who, &o, err, sizeof(err)))
		die(err, 0);
	int64_t version = catch_up(st);
	for (int64_t ms; (ms = state_lease_wait_ms(st)) > 0;)
		pause_ms(ms);
	srand((unsigned)version);
	while (!want_end) {
		write_batch(st, ++version);
		if (!atomic_load(&board->writing_since_ns))
			atomic_store(&board->writing_since_ns, now_ns());
		if (want_switch) {
			want_switch = 0;
			switch_generation(d, &st, version);
		}
	}
	state_close(st);
	state_dir_close(d);
	return 0;
}

static int do_fill(const char *dir, const char *keys, const char *lease_ms)
{
	board->keys = atoi(keys);
	board->lease_ms = atoll(lease_ms);
	struct state_dir *d = open_dir(dir);
	state_close(fill(d, 0));
	state_dir_close(d);
	return 0;
}

/* ---- reader ---- */

static int attempts; /* commits taken since it was set to 0 */

int __real_commit_read(void *c, const void *f);
int __wrap_commit_read(void *c, const void *f);
int __wrap_commit_read(void *c, const void *f)
{
	attempts++;
	return __real_commit_read(c, f);
}

static struct tally {
	int64_t gets, wrong, errors, stale, in_two, snapshots, snapshots_stale, scans, scanned;
	int64_t age_max_ns, age_switch_max_ns, get_max_ns;
	char first_wrong[200];
} tally;

static struct sstate *s;
static struct sstate_buf buf;
static int64_t *seen; /* version of each key, by this reader */

static void wrong(const char *what, int32_t k, int64_t a, int64_t b)
{
	if (!tally.wrong++)
		snprintf(tally.first_wrong, sizeof(tally.first_wrong), "%s: key %d, %lld, %lld",
			 what, k, (long long)a, (long long)b);
}

static bool just_switched(void)
{
	return now_ns() - atomic_load(&board->switched_ns) < SWITCH_GRACE_MS * 1000000ll;
}

/* What a look-up of key k said, when `least` had been noted before it. */
static void judge(int rc, const struct sstate_record *r, int32_t k, int64_t least)
{
	if (rc == SSTATE_STALE) {
		tally.stale++;
		return;
	}
	if (rc == -ENOENT) {
		wrong("no such key", k, least, 0);
		return;
	}
	if (rc) {
		if (!tally.errors++)
			snprintf(tally.first_wrong, sizeof(tally.first_wrong), "error: %s",
				 sstate_strerror(rc));
		return;
	}
	int64_t version = check_value(r->value, r->value_len, k);
	if (version < 0)
		wrong("another value than was written", k, (int64_t)r->value_len, 0);
	else if (version < seen[k] && !just_switched())
		wrong("older than seen before", k, version, seen[k]);
	else if (version < least && !just_switched())
		wrong("older than committed before", k, version, least);
	else if (version > seen[k])
		seen[k] = version;
}

static void get(int32_t k)
{
	char key[32];
	struct sstate_record r;
	size_t len = make_key(key, k);
	int64_t least = atomic_load(&board->latest[k]);
	attempts = 0;
	int rc = sstate_get(s, key, len, &buf, &r);
	tally.in_two += attempts <= 2 && rc != SSTATE_STALE;
	tally.gets++;
	judge(rc, &r, k, least);
}

/* How old the state is that a look-up gets, while a writer is known to write. */
static void look_at_the_time(void)
{
	struct sstate_record r;
	int64_t since = atomic_load(&board->writing_since_ns), began = now_ns(), stamp;
	if (sstate_get(s, "~time", 5, &buf, &r) || r.value_len != sizeof(stamp))
		return;
	memcpy(&stamp, r.value, sizeof(stamp));
	int64_t age = began - stamp; /* what it took to ask is not the state's */
	if (!since || stamp < since || atomic_load(&board->writing_since_ns) != since)
		return;
	int64_t *max = just_switched() ? &tally.age_switch_max_ns : &tally.age_max_ns;
	*max = age > *max ? age : *max;
}

/* Hold a snapshot for up to a lease, and ask it again: it must not have changed. */
static void hold_a_snapshot(void)
{
	struct sstate_snapshot *n = NULL;
	struct sstate_record r;
	char key[32];
	int32_t keys[50];
	int64_t versions[50];
	int rc = sstate_snapshot_begin(&n, s);
	for (int i = 0; !rc && i < 50; i++) {
		keys[i] = rand() % board->keys;
		rc = sstate_snapshot_get(n, key, make_key(key, keys[i]), &buf, &r);
		versions[i] = rc ? 0 : check_value(r.value, r.value_len, keys[i]);
		judge(rc, &r, keys[i], 0);
	}
	if (!rc)
		pause_ms(board->lease_ms * (rand() % 99) / 100);
	for (int i = 0; !rc && i < 50; i++) {
		rc = sstate_snapshot_get(n, key, make_key(key, keys[i]), &buf, &r);
		if (rc == SSTATE_STALE)
			break;
		if (rc)
			wrong(rc == -ENOENT ? "snapshot lost a key" : "snapshot failed", keys[i],
			      rc, 0);
		else if (check_value(r.value, r.value_len, keys[i]) != versions[i])
			wrong("snapshot changed", keys[i], versions[i], 0);
	}
	tally.snapshots++;
	tally.snapshots_stale += rc == SSTATE_STALE;
	sstate_snapshot_end(n);
}

static void scan(void)
{
	struct sstate_scan *c;
	struct sstate_record r;
	char prefix[32], want[32];
	/* the thousand keys that share all but three digits */
	int32_t first = rand() % board->keys / SCAN_KEYS * SCAN_KEYS, k = first;
	make_key(prefix, first);
	int rc = sstate_scan_begin(&c, s, prefix, 10);
	while (!rc && (rc = sstate_scan_next(c, &r)) == 0) {
		size_t len = make_key(want, k);
		if (r.key_len != len || memcmp(r.key, want, len) != 0) {
			wrong("scan skipped or repeated a key", k, 0, 0);
			break;
		}
		judge(0, &r, k++, 0);
		tally.scanned++;
	}
	if (rc == -ENOENT && k != first + SCAN_KEYS && k != board->keys)
		wrong("scan ended early", k, first, 0);
	else if (rc && rc != -ENOENT)
		judge(rc, &r, k, 0);
	sstate_scan_end(c);
	tally.scans++;
}

static void report(void)
{
	printf("{\"pid\":%d,\"gets\":%lld,\"wrong\":%lld,\"errors\":%lld,\"stale\":%lld,\"in_two\":"
	       "%lld,"
	       "\"snapshots\":%lld,\"snapshots_stale\":%lld,\"scans\":%lld,\"scanned\":%lld,"
	       "\"age_max_ms\":%.1f,\"age_switch_max_ms\":%.1f,\"first_wrong\":\"%s\"}\n",
	       getpid(), (long long)tally.gets, (long long)tally.wrong, (long long)tally.errors,
	       (long long)tally.stale, (long long)tally.in_two, (long long)tally.snapshots,
	       (long long)tally.snapshots_stale, (long long)tally.scans, (long long)tally.scanned,
	       (double)tally.age_max_ns / 1e6, (double)tally.age_switch_max_ns / 1e6,
	       tally.first_wrong);
}

static int do_read(const char *dir, const char *seed)
{
	srand((unsigned)atoi(seed));
	seen = calloc((size_t)board->keys, sizeof(*seen));
	int rc = sstate_open(&s, dir);
	if (rc || !seen)
		die(dir, rc);
	for (int32_t k = 0; k < board->keys; k++)
		get(k);
	atomic_fetch_add(&board->warm, 1);
	while (!atomic_load(&board->go))
		pause_ms(5);
	for (int64_t i = 0; !atomic_load(&board->stop); i++) {
		get(rand() % board->keys);
		if (i % 16 == 0)
			look_at_the_time();
		if (i % SLOW_EVERY == 0)
			hold_a_snapshot();
		if (i % SLOW_EVERY == SLOW_EVERY / 2)
			scan();
	}
	report();
	sstate_buf_free(&buf);
	sstate_close(s);
	free(seen);
	return 0;
}

int main(int argc, char **argv)
{
	const char *role = argc > 3 ? argv[1] : "";
	if (argc == 6 && !strcmp(role, "fill")) {
		open_board(argv[3], atoi(argv[4]));
		return do_fill(argv[2], argv[4], argv[5]);
	}
	if (argc > 3)
		open_board(argv[3], 0);
	if (argc == 4 && !strcmp(role, "write"))
		return do_write(argv[2]);
	if (argc == 5 && !strcmp(role, "read"))
		return do_read(argv[2], argv[4]);
	fputs("usage: see torture.py\n", stderr);
	return 2;
}
