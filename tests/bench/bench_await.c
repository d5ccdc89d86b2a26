/*
 * bench_await.c - tells when something has happened.
 *
 *   bench_await ready DIR               the snapshot is filled and caught up
 *   bench_await commit DIR              and has been written to once more
 *   bench_await committed BROKERS GROUP TOPIC PARTITION:0:OFFSET...
 *                                       the group's offsets have reached these
 *   bench_await gets DIR KEYS SECONDS   looks keys up all the time meanwhile
 *
 * Prints the moment, in nanoseconds of CLOCK_MONOTONIC.
 */
#include "bench.h"
#include "shared_state.h"

#include <signal.h>

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
	(void)sig;
	stop = 1;
}

enum { LOOK_NS = 2000000, LOOK_COMMITTED_NS = 20000000, GIVE_UP_S = 600, PROBE_NS = 1000000 };

static void pause_ns(long ns) { nanosleep(&(struct timespec){ .tv_nsec = ns }, NULL); }

static struct sstate *open_patiently(const char *dir, int64_t until)
{
	struct sstate *s;

	while (sstate_open(&s, dir)) {
		if (now_ns() > until)
			die("%s: no state", dir);
		pause_ns(LOOK_NS);
	}
	return s;
}

static int64_t await_state(const char *dir, bool next_commit)
{
	int64_t until = now_ns() + GIVE_UP_S * 1000000000LL;
	struct sstate *s = open_patiently(dir, until);
	struct sstate_stat st;
	uint64_t first = 0;

	for (; now_ns() < until; pause_ns(LOOK_NS)) {
		if (sstate_stat(s, &st))
			continue;
		if (!first)
			first = st.txnid;
		if (next_commit ? st.txnid > first : st.ready)
			return now_ns();
	}
	die("%s: not ready", dir);
}

static bool reached(rd_kafka_t *rk, const char *topic, const struct bench_range *r)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(r->n);
	bool all = true;

	for (int p = 0; p < r->n; p++)
		rd_kafka_topic_partition_list_add(l, topic, p);
	if (rd_kafka_committed(rk, l, 5000))
		all = false;
	for (int p = 0; p < r->n && all; p++)
		all = l->elems[p].offset >= r->to[l->elems[p].partition];
	rd_kafka_topic_partition_list_destroy(l);
	return all;
}

static int64_t await_committed(int argc, char **argv)
{
	const char *const kv[] = { "group.id", argv[1], "isolation.level", "read_committed", NULL };
	rd_kafka_t *rk = bench_client(RD_KAFKA_CONSUMER, argv[0], kv);
	int64_t until = now_ns() + GIVE_UP_S * 1000000000LL;
	struct bench_range r;

	bench_range_parse(&r, argc - 3, argv + 3);
	while (!reached(rk, argv[2], &r)) {
		if (now_ns() > until)
			die("not committed");
		pause_ns(LOOK_COMMITTED_NS);
	}
	return now_ns();
}

/* A reader that does not care whether there is a sidecar. */
static void gets(const char *dir, uint32_t keys, int64_t seconds)
{
	int64_t until = now_ns() + seconds * 1000000000;
	struct sstate *s = open_patiently(dir, until);
	struct sstate_buf b = { 0 };
	struct sstate_record rec;
	uint64_t random = 1, n = 0, failed = 0;
	int64_t slowest = 0;

	signal(SIGTERM, on_signal);
	for (; now_ns() < until && !stop; pause_ns(PROBE_NS), n++) {
		char key[BENCH_KEY_BYTES + 1];
		int64_t began = now_ns();
		bench_key(key, (uint32_t)(next_random(&random) % keys));
		failed += sstate_get(s, key, BENCH_KEY_BYTES, &b, &rec) != 0;
		if (now_ns() - began > slowest)
			slowest = now_ns() - began;
	}
	printf("{\"gets\":%llu,\"failed\":%llu,\"slowest_us\":%.1f}\n", (unsigned long long)n,
	       (unsigned long long)failed, (double)slowest / 1e3);
}

int main(int argc, char **argv)
{
	int64_t at;

	if (argc < 3)
		return 2;
	if (!strcmp(argv[1], "gets") && argc == 5) {
		gets(argv[2], (uint32_t)atoll(argv[3]), atoll(argv[4]));
		return 0;
	}
	at = strcmp(argv[1], "committed") ? await_state(argv[2], !strcmp(argv[1], "commit"))
					  : await_committed(argc - 2, argv + 2);
	printf("{\"at_ns\":%lld}\n", (long long)at);
	return 0;
}
