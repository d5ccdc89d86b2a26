/*
 * bench_read.c - the bare consumer: reads a range and does nothing with it.
 *
 *   bench_read BROKERS TOPIC HOLD_SECONDS PARTITION:FROM:TO...
 *
 * Timed from before the client is made to the last record, which is the end of
 * the range, or the end of the log where control records end it.  With
 * HOLD_SECONDS it stays and waits for more, so that an idle client can be
 * looked at.
 */
#include "bench.h"

#include <unistd.h>

enum { AT_ONCE = 10000, WAIT_MS = 20 };

struct reader {
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;
	struct bench_range range;
	bool done[BENCH_PARTITIONS_MAX];
	int left; /* partitions */
	int64_t records, bytes, last_ns;
};

static void finish(struct reader *r, int32_t p)
{
	r->left -= !r->done[p];
	r->done[p] = true;
}

static void take(struct reader *r, rd_kafka_message_t *m)
{
	if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF && m->offset >= r->range.to[m->partition]) {
		finish(r, m->partition);
	} else if (!m->err && m->offset < r->range.to[m->partition]) {
		r->records++;
		r->bytes += (int64_t)m->len;
		if (m->offset == r->range.to[m->partition] - 1)
			finish(r, m->partition);
	} else if (m->err && m->err != RD_KAFKA_RESP_ERR__PARTITION_EOF &&
		   m->err != RD_KAFKA_RESP_ERR__TRANSPORT) {
		die("reading: %s", rd_kafka_message_errstr(m));
	}
	rd_kafka_message_destroy(m);
}

/* Asking for more than there is waits: for the last ones, ask for as many as can be left. */
static void read_some(struct reader *r, int64_t offsets)
{
	static rd_kafka_message_t *m[AT_ONCE];
	int64_t left = offsets - r->records;
	ssize_t n = rd_kafka_consume_batch_queue(r->queue, WAIT_MS, m,
						 left < 1         ? 1
						 : left < AT_ONCE ? (size_t)left
								  : AT_ONCE);
	int64_t before = r->records;

	for (ssize_t i = 0; i < n; i++)
		take(r, m[i]);
	if (r->records != before)
		r->last_ns = now_ns();
}

int main(int argc, char **argv)
{
	struct reader r = { 0 };

	if (argc < 5)
		return 2;
	bench_range_parse(&r.range, argc - 4, argv + 4);
	int64_t offsets = bench_range_offsets(&r.range), began = now_ns();
	r.rk = bench_client(RD_KAFKA_CONSUMER, argv[1],
			    (const char *const[]){ BENCH_READING, NULL });
	r.queue = rd_kafka_queue_get_consumer(r.rk);
	bench_range_assign(r.rk, argv[2], &r.range);
	for (int p = 0; p < r.range.n; p++)
		r.left += r.range.from[p] < r.range.to[p];
	while (r.left)
		read_some(&r, offsets);
	printf("{\"records\":%lld,\"value_bytes\":%lld,\"seconds\":%.4f,\"cpu_s\":%.3f}\n",
	       (long long)r.records, (long long)r.bytes, (double)(r.last_ns - began) / 1e9,
	       cpu_s());
	fflush(stdout);
	for (int64_t until = now_ns() + atoll(argv[3]) * 1000000000; now_ns() < until;) {
		rd_kafka_message_t *m = rd_kafka_consumer_poll(r.rk, 500);
		if (m)
			rd_kafka_message_destroy(m);
	}
	_exit(0); /* closing is not the benchmark */
}
