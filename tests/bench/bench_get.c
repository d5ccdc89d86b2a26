/*
 * bench_get.c - what the library's look-ups cost more than LMDB alone.
 *
 *   bench_get one  DIR KEYS ROUNDS GETS
 *   bench_get many DIR KEYS ROUNDS MILLISECONDS PROCESSES SIDECAR_PID
 *
 * `one` times several ways to look the same random keys up, in turn, in one
 * process.  "bare" is mdb_txn_begin, mdb_get, mdb_txn_abort and nothing else: it
 * does not even look at the value.  "bare_copy" copies it out before the abort,
 * as everybody must who wants to use it.  "bare_positions" also gets each
 * partition's row.  Prints nanoseconds of processor time in each round, less
 * what making a key takes.
 *
 * `many` lets PROCESSES do the same at once, "bare" and "get" in turn for some
 * milliseconds each, and prints the same, and what memory they needed: PSS shares
 * what is shared, the file's pages.  The sidecar shares them too, so its part of
 * them is told beside.
 */
#include "bench.h"
#include "shared_state.h"

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS_MAX = 100 };

static uint32_t keys;
static struct sstate *s;
static struct sstate_buf buf;
static MDB_env *env;
static MDB_dbi records, meta;
static int32_t partitions;
static int sidecar;                                            /* its process */
static char now_applied[2048], rows[BENCH_PARTITIONS_MAX][32]; /* keys of the positions */

static void check(int rc, const char *what)
{
	if (rc)
		die("%s: %s", what, sstate_strerror(rc < 0 ? rc : -rc));
}

/* ---- the ways ---- */

static void get_bare(MDB_txn *t, MDB_dbi dbi, char *key, size_t len)
{
	MDB_val k = { len, key }, v;

	check(mdb_get(t, dbi, &k, &v), "mdb_get");
}

static void bare(char *key)
{
	MDB_txn *t;

	check(mdb_txn_begin(env, NULL, MDB_RDONLY, &t), "begin");
	get_bare(t, records, key, BENCH_KEY_BYTES);
	mdb_txn_abort(t);
}

static void bare_copy(char *key)
{
	MDB_val k = { BENCH_KEY_BYTES, key }, v;
	char value[4096];
	MDB_txn *t;

	check(mdb_txn_begin(env, NULL, MDB_RDONLY, &t), "begin");
	check(mdb_get(t, records, &k, &v), "mdb_get");
	memcpy(value, v.mv_data, v.mv_size < sizeof(value) ? v.mv_size : sizeof(value));
	__asm__ volatile("" : : "r"(value) : "memory");
	mdb_txn_abort(t);
}

static void bare_positions(char *key)
{
	MDB_txn *t;

	check(mdb_txn_begin(env, NULL, MDB_RDONLY, &t), "begin");
	get_bare(t, records, key, BENCH_KEY_BYTES);
	for (int32_t p = 0; p < partitions; p++)
		get_bare(t, meta, rows[p], strlen(rows[p]));
	mdb_txn_abort(t);
}

static void get(char *key)
{
	struct sstate_record r;

	check(sstate_get(s, key, BENCH_KEY_BYTES, &buf, &r), "get");
}

static void get_value(char *key)
{
	char value[4096];
	size_t len;

	check(sstate_get_value(s, key, BENCH_KEY_BYTES, value, sizeof(value), &len), "get_value");
}

/* One state: the record and the positions that belong to it. */
static void get_positions(char *key)
{
	struct sstate_snapshot *n;
	struct sstate_record r;
	char token[2048];

	check(sstate_snapshot_begin(&n, s), "snapshot");
	check(sstate_snapshot_get(n, key, BENCH_KEY_BYTES, &buf, &r), "snapshot_get");
	check(sstate_snapshot_token(n, token, sizeof(token)), "snapshot_token");
	sstate_snapshot_end(n);
}

/* Read what one has written: positions first, then the record. */
static void wait_get(char *key)
{
	check(sstate_wait(s, now_applied, 0), "wait");
	get(key);
}

static const struct {
	const char *name;
	void (*way)(char *key);
} ways[] = { { "bare", bare },
	     { "get", get },
	     { "get_value", get_value },
	     { "bare_copy", bare_copy },
	     { "bare_positions", bare_positions },
	     { "wait_get", wait_get },
	     { "get_positions", get_positions } };
enum { WAYS = sizeof(ways) / sizeof(*ways) };

/* ---- one process ---- */

static void open_bare(const char *dir)
{
	char path[4096];
	MDB_txn *t;

	snprintf(path, sizeof(path), "%s/current", dir);
	check(mdb_env_create(&env), "create");
	check(mdb_env_set_maxdbs(env, 8), "maxdbs");
	check(mdb_env_open(env, path, MDB_RDONLY | MDB_NOLOCK | MDB_NOTLS, 0), path);
	check(mdb_txn_begin(env, NULL, MDB_RDONLY, &t), "begin");
	check(mdb_dbi_open(t, "records", 0, &records), "records");
	check(mdb_dbi_open(t, "meta", 0, &meta), "meta");
	check(mdb_txn_commit(t), "commit");
}

static void open_all(const char *dir)
{
	struct sstate_stat st;

	check(sstate_open(&s, dir), dir);
	check(sstate_stat(s, &st), "stat");
	check(sstate_token(s, now_applied, sizeof(now_applied)), "token");
	partitions = st.partitions;
	for (int32_t p = 0; p < partitions; p++)
		snprintf(rows[p], sizeof(rows[p]), "partition/%010d", p);
	open_bare(dir);
}

static double round_ns(int way, uint64_t seed, int64_t gets)
{
	int64_t began = worked_ns();

	for (int64_t i = 0; i < gets; i++) {
		char key[BENCH_KEY_BYTES + 1];
		bench_key(key, (uint32_t)(next_random(&seed) % keys));
		ways[way].way(key);
	}
	return (double)(worked_ns() - began) / (double)gets;
}

/* What both spend on making a key is not theirs. */
static double key_ns(uint64_t seed, int64_t gets)
{
	int64_t began = worked_ns();
	char key[BENCH_KEY_BYTES + 1];

	for (int64_t i = 0; i < gets; i++) {
		bench_key(key, (uint32_t)(next_random(&seed) % keys));
		__asm__ volatile("" : : "r"(key) : "memory");
	}
	return (double)(worked_ns() - began) / (double)gets;
}

static void one(int rounds, int64_t gets)
{
	double keys_ns = key_ns(0, gets);

	for (int w = 0; w < WAYS; w++)
		round_ns(w, 0, gets); /* pages and caches */
	printf("{");
	static double ns[WAYS][ROUNDS_MAX];
	for (int r = 0; r < rounds; r++)
		for (int i = 0; i < WAYS; i++) {
			int w = r % 2 ? WAYS - 1 - i : i;
			ns[w][r] = round_ns(w, (uint64_t)r, gets) - keys_ns;
		}
	for (int w = 0; w < WAYS; w++) {
		printf("%s\"%s\":[", w ? "," : "", ways[w].name);
		for (int r = 0; r < rounds; r++)
			printf("%s%.1f", r ? "," : "", ns[w][r]);
		printf("]");
	}
	printf("}\n");
}

/* ---- many processes ---- */

static long long from_smaps(int pid, const char *what)
{
	char path[64], line[200];
	long long kb = -1;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	FILE *f = fopen(path, "r");
	while (f && kb < 0 && fgets(line, sizeof(line), f))
		if (!strncmp(line, what, strlen(what)))
			kb = atoll(line + strlen(what));
	if (f)
		fclose(f);
	return kb;
}

enum { MANY_WAYS = 2 }; /* the first two */

/* Shared by all: what the children found, and where they wait for each other. */
struct crowd {
	pthread_barrier_t together;
	_Atomic int64_t until_ns;
	_Atomic long long gets[MANY_WAYS][ROUNDS_MAX], ns[MANY_WAYS][ROUNDS_MAX];
	_Atomic long long pss_kb, pss_anon_kb, rss_kb, sidecar_kb;
};

/* One number of them says how long everybody has. */
static void child_round(struct crowd *c, int number, int way, int round, int64_t ms)
{
	uint64_t seed = (uint64_t)number << 32 | (uint64_t)round;

	pthread_barrier_wait(&c->together);
	if (number == 0)
		c->until_ns = now_ns() + ms * 1000000;
	pthread_barrier_wait(&c->together);
	for (int64_t until = c->until_ns; now_ns() < until; seed++) {
		c->ns[way][round] += (long long)(round_ns(way, seed, 200) * 200);
		c->gets[way][round] += 200;
	}
}

static void child(const char *dir, int number, int rounds, int64_t ms, struct crowd *c)
{
	char key[BENCH_KEY_BYTES + 1];

	open_all(dir);
	for (uint32_t i = 0; i < keys; i += 4) { /* every page, through both maps */
		bench_key(key, i);
		bare(key);
		get(key);
	}
	for (int r = 0; r < rounds; r++)
		for (int i = 0; i < MANY_WAYS; i++)
			child_round(c, number, r % 2 ? MANY_WAYS - 1 - i : i, r, ms);
	/* the contender's map counts the same pages once more */
	mdb_env_close(env);
	pthread_barrier_wait(&c->together);
	c->pss_kb += from_smaps(getpid(), "Pss:");
	c->pss_anon_kb += from_smaps(getpid(), "Pss_Anon:");
	c->rss_kb += from_smaps(getpid(), "Rss:");
	if (number == 0)
		c->sidecar_kb = from_smaps(sidecar, "Pss:") - from_smaps(sidecar, "Pss_Anon:");
	pthread_barrier_wait(&c->together); /* or the others would share with fewer */
	_exit(0);
}

static struct crowd *make_crowd(int processes)
{
	struct crowd *c =
		mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_barrierattr_t a;

	if (c == MAP_FAILED)
		die("no memory");
	pthread_barrierattr_init(&a);
	pthread_barrierattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&c->together, &a, (unsigned)processes);
	return c;
}

static void many(const char *dir, int rounds, int64_t ms, int processes)
{
	struct crowd *c = make_crowd(processes);
	double keys_ns = key_ns(0, 200000);
	int status;

	for (int i = 0; i < processes; i++)
		if (!fork())
			child(dir, i, rounds, ms, c);
	while (wait(&status) > 0)
		if (status)
			die("a child died");
	printf("{\"pss_kb\":%lld,\"pss_anon_kb\":%lld,\"rss_kb\":%lld,\"sidecar_kb\":%lld",
	       c->pss_kb, c->pss_anon_kb, c->rss_kb, c->sidecar_kb);
	for (int w = 0; w < MANY_WAYS; w++) {
		printf(",\"%s\":[", ways[w].name);
		for (int r = 0; r < rounds; r++)
			printf("%s%.1f", r ? "," : "",
			       (double)c->ns[w][r] / (double)c->gets[w][r] - keys_ns);
		printf("]");
	}
	printf("}\n");
}

int main(int argc, char **argv)
{
	if (argc < 6)
		return 2;
	int rounds = atoi(argv[4]) < ROUNDS_MAX ? atoi(argv[4]) : ROUNDS_MAX;
	keys = (uint32_t)atoll(argv[3]);
	if (!strcmp(argv[1], "many") && argc == 8) {
		sidecar = atoi(argv[7]);
		many(argv[2], rounds, atoll(argv[5]), atoi(argv[6]));
		return 0;
	}
	open_all(argv[2]);
	one(rounds, atoll(argv[5]));
	mdb_env_close(env);
	sstate_buf_free(&buf);
	sstate_close(s);
	return 0;
}
