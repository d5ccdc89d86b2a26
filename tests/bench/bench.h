/*
 * bench.h - what the contenders share: clock, errors, ranges of a topic, and
 * the records of the benchmark.
 *
 * A key is 12 bytes, a value a JSON object of `bytes` bytes of which no two are
 * equal.  Ranges are told as arguments, "partition:from:to" each, `to` being
 * one more than the last offset.  A contender prints one JSON object and ends
 * with 0, or says why not and ends with 1.  Times are of CLOCK_MONOTONIC, which
 * Python's time.monotonic() is too.
 */
#ifndef BENCH_H
#define BENCH_H

#include <librdkafka/rdkafka.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { BENCH_KEY_BYTES = 12, BENCH_PARTITIONS_MAX = 64 };

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static inline int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* What the processor has worked for this thread: other work on the machine does not count. */
static inline int64_t worked_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static inline void sleep_until_ns(int64_t at)
{
	struct timespec t = { at / 1000000000, at % 1000000000 };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL))
		;
}

/* User and system time of this process so far. */
static inline double cpu_s(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static inline uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* ---- records ---- */

static inline void bench_key(char key[BENCH_KEY_BYTES + 1], uint32_t i)
{
	memcpy(key, "key-00000000", BENCH_KEY_BYTES + 1);
	for (char *c = key + BENCH_KEY_BYTES - 1; i && c >= key + 4; i /= 10)
		*c-- = (char)('0' + i % 10);
}

/* What a time has in front of it in a value: 19 digits always, none of them a leading zero. */
#define BENCH_TIME 1000000000000000000

/* {"t":<19 digits>,"text":"..."}: t tells when, or at least makes it differ from any other. */
static inline void bench_value(char *value, size_t bytes, int64_t t, uint64_t *random)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	char head[64];
	size_t n = (size_t)snprintf(head, sizeof(head), "{\"t\":%lld,\"text\":\"",
				    (long long)(BENCH_TIME + t));

	memcpy(value, head, n);
	for (uint64_t r = 0; n < bytes - 2; r >>= 6) {
		if (!r)
			r = next_random(random);
		value[n++] = digits[r & 63];
	}
	memcpy(value + bytes - 2, "\"}", 2);
}

/* ---- librdkafka ---- */

/* name, value, ..., NULL */
static inline rd_kafka_t *bench_client(rd_kafka_type_t type, const char *brokers,
				       const char *const *kv)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char err[300];

	if (rd_kafka_conf_set(conf, "bootstrap.servers", brokers, err, sizeof(err)))
		die("%s", err);
	for (; kv[0]; kv += 2)
		if (rd_kafka_conf_set(conf, kv[0], kv[1], err, sizeof(err)))
			die("%s", err);
	rd_kafka_t *rk = rd_kafka_new(type, conf, err, sizeof(err));
	if (!rk)
		die("%s", err);
	if (type == RD_KAFKA_CONSUMER)
		rd_kafka_poll_set_consumer(rk);
	return rk;
}

static inline void check_error(rd_kafka_error_t *e, const char *what)
{
	if (e)
		die("%s: %s", what, rd_kafka_error_string(e));
}

/* The fastest settings for reading that were found, those of the sidecar's tail among them. */
#define BENCH_READING                                                                              \
	"group.id", "bench", "enable.auto.commit", "false", "enable.auto.offset.store", "false",   \
		"isolation.level", "read_committed", "enable.partition.eof", "true",               \
		"queued.min.messages", "1000000", "queued.max.messages.kbytes", "65536",           \
		"fetch.message.max.bytes", "4194304", "auto.offset.reset", "error"

/* ---- ranges ---- */

struct bench_range {
	int n; /* partitions 0..n-1 */
	int64_t from[BENCH_PARTITIONS_MAX], to[BENCH_PARTITIONS_MAX];
};

static inline void bench_range_parse(struct bench_range *r, int argc, char **argv)
{
	memset(r, 0, sizeof(*r));
	for (int i = 0; i < argc; i++) {
		long long from, to;
		int p;
		if (sscanf(argv[i], "%d:%lld:%lld", &p, &from, &to) != 3 || p != r->n ||
		    p == BENCH_PARTITIONS_MAX)
			die("%s: not the range of partition %d", argv[i], r->n);
		r->from[r->n] = from;
		r->to[r->n++] = to;
	}
}

static inline int64_t bench_range_offsets(const struct bench_range *r)
{
	int64_t n = 0;

	for (int p = 0; p < r->n; p++)
		n += r->to[p] - r->from[p];
	return n;
}

/* Begin to read; partitions without a record in the range are left out. */
static inline void bench_range_assign(rd_kafka_t *rk, const char *topic,
				      const struct bench_range *r)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(r->n);

	for (int p = 0; p < r->n; p++)
		if (r->from[p] < r->to[p])
			rd_kafka_topic_partition_list_add(l, topic, p)->offset = r->from[p];
	rd_kafka_resp_err_t e = rd_kafka_assign(rk, l);
	if (e)
		die("assign: %s", rd_kafka_err2str(e));
	rd_kafka_topic_partition_list_destroy(l);
}

#endif
