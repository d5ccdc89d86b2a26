/*
 * get_cost.c - what sstate_get() costs more than LMDB alone.
 *
 *   get_cost DIR [KEYS [VALUE_BYTES]]
 *
 *   cc -O2 -D_GNU_SOURCE -Ishared-state tests/readers/get_cost.c build/libsharedstate.a \
 *      -llmdb -lcrypto -o build/get_cost
 *
 * Fills a state in DIR (if it holds none) and times ways to look the same random
 * keys up, in turn, several rounds of each; prints the best of each as one JSON
 * line.  "bare" is mdb_txn_begin, mdb_get, mdb_txn_abort and nothing else: no
 * copy, no check; "copy" also copies the record out.
 */
#include "shared_state.h"
#include "state.h"

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 9, GETS = 200000, WAYS = 4 };

static int keys = 1000000, value_bytes = 100;

static void check(int rc, const char *what)
{
	if (rc) {
		fprintf(stderr, "%s: %s\n", what, state_strerror(rc));
		exit(1);
	}
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* 16 bytes, spread over the whole order. */
static int make_key(char *key, unsigned i)
{
	uint64_t n = (uint64_t)(i * 2654435761u) << 32 | i;
	for (int c = 15; c >= 0; c--, n >>= 4)
		key[c] = "0123456789abcdef"[n & 15];
	key[16] = 0;
	return 16;
}

static int order(const void *a, const void *b) { return strcmp(a, b); }

static void fill(const char *dir)
{
	char err[512];
	struct state_dir *d;
	struct state *st;
	struct state_txn *t;
	struct state_identity who = { "bench", "", "bench" };
	struct state_options o = { .lease_ms = 2000 };
	char(*all)[17] = malloc((size_t)keys * sizeof(*all));
	uint8_t *rec = malloc((size_t)value_bytes + 64),
		*value = calloc(1, (size_t)value_bytes + 1);
	for (int i = 0; i < keys; i++)
		make_key(all[i], (unsigned)i);
	qsort(all, (size_t)keys, sizeof(*all), order);

	check(state_dir_open(&d, dir, err, sizeof(err)), dir);
	if (state_open(&st, d, &who, &o, err, sizeof(err))) {
		check(state_create(&st, d, &who, &o, err, sizeof(err)), "create");
		for (int i = 0; i < keys;) {
			check(state_begin(st, &t), "begin");
			for (int end = i + 10000; i < end && i < keys; i++) {
				struct record r = { .value = value,
						    .value_len = (size_t)value_bytes };
				record_encode(rec, &r, all[i], 16);
				check(state_put(t, all[i], 16, rec, record_bytes(&r)), "put");
			}
			check(state_commit(t), "commit");
		}
		check(state_make_current(st, err, sizeof(err)), "make current");
	}
	state_close(st);
	state_dir_close(d);
	free(all);
	free(rec);
	free(value);
}

struct bench {
	struct sstate *s;
	struct sstate_buf buf;
	MDB_env *env;
	MDB_dbi dbi;
	uint8_t value[1 << 16];
};

static void bare(struct bench *b, char *key, int len)
{
	MDB_txn *t;
	MDB_val k = { (size_t)len, key }, v;
	check(mdb_txn_begin(b->env, NULL, MDB_RDONLY, &t), "begin");
	check(mdb_get(t, b->dbi, &k, &v), "get");
	mdb_txn_abort(t);
}

static void bare_copy(struct bench *b, char *key, int len)
{
	MDB_txn *t;
	MDB_val k = { (size_t)len, key }, v;
	check(mdb_txn_begin(b->env, NULL, MDB_RDONLY, &t), "begin");
	check(mdb_get(t, b->dbi, &k, &v), "get");
	memcpy(b->value, v.mv_data, v.mv_size);
	mdb_txn_abort(t);
}

static void get(struct bench *b, char *key, int len)
{
	struct sstate_record r;
	check(sstate_get(b->s, key, (size_t)len, &b->buf, &r), "sstate_get");
}

static void get_value(struct bench *b, char *key, int len)
{
	size_t n;
	check(sstate_get_value(b->s, key, (size_t)len, b->value, sizeof(b->value), &n),
	      "get_value");
}

static double round_ns(struct bench *b, void (*way)(struct bench *, char *, int), unsigned seed)
{
	double began = now();
	for (int i = 0; i < GETS; i++) {
		char key[20];
		seed = seed * 1664525u + 1013904223u;
		way(b, key, make_key(key, (seed >> 8) % (unsigned)keys));
	}
	return (now() - began) / GETS;
}

static void open_bare(struct bench *b, const char *dir)
{
	char path[4096];
	MDB_txn *t;
	snprintf(path, sizeof(path), "%s/current", dir);
	check(mdb_env_create(&b->env), "create");
	check(mdb_env_set_maxdbs(b->env, 8), "maxdbs");
	check(mdb_env_open(b->env, path, MDB_RDONLY | MDB_NOLOCK | MDB_NOTLS, 0), path);
	check(mdb_txn_begin(b->env, NULL, MDB_RDONLY, &t), "begin");
	check(mdb_dbi_open(t, "records", 0, &b->dbi), "records");
	check(mdb_txn_commit(t), "commit");
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*way)(struct bench *, char *, int);
	} ways[WAYS] = {
		{ "bare", bare }, { "copy", bare_copy }, { "get", get }, { "get_value", get_value }
	};
	static struct bench b;
	double best[WAYS] = { 1e18, 1e18, 1e18, 1e18 };
	if (argc < 2)
		return 2;
	if (argc > 2)
		keys = atoi(argv[2]);
	if (argc > 3)
		value_bytes = atoi(argv[3]);
	fill(argv[1]);
	check(sstate_open(&b.s, argv[1]), argv[1]);
	open_bare(&b, argv[1]);
	for (unsigned round = 0; round < ROUNDS; round++)
		for (int i = 0; i < WAYS; i++) {
			double ns = round_ns(&b, ways[i].way, round);
			best[i] = ns < best[i] ? ns : best[i];
		}
	printf("{\"keys\":%d,\"value_bytes\":%d", keys, value_bytes);
	for (int i = 0; i < WAYS; i++)
		printf(",\"%s_ns\":%.0f,\"%s_ratio\":%.2f", ways[i].name, best[i], ways[i].name,
		       best[i] / best[0]);
	printf("}\n");
	mdb_env_close(b.env);
	sstate_buf_free(&b.buf);
	sstate_close(b.s);
	return 0;
}
