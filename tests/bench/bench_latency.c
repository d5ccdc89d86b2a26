/*
 * bench_latency.c - from a record that is due to the message about it.
 *
 *   bench_latency sidecar BROKERS SOURCE NOTIFICATIONS KEYS RATE SECONDS PHASE_MS
 *   bench_latency bare    BROKERS -      TOPIC         KEYS RATE SECONDS PHASE_MS
 *
 * `sidecar` writes updates to SOURCE, RATE a second, and reads NOTIFICATIONS.
 * `bare` writes messages of the size of a notification to TOPIC, those that are
 * due in one transaction, and reads them: what nobody who publishes exactly
 * once can be faster than.  Both read with read_committed.
 *
 * Prints a line "DUE RECEIVED" for each, in nanoseconds of CLOCK_MONOTONIC.
 * A record is due by the clock, whether or not the writer is behind.
 */
#include "bench.h"
#include "kafka.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { VALUE_BYTES = 200, LINGER_S = 15, CALL_MS = 30000 };

static rd_kafka_t *producer, *consumer;
static rd_kafka_topic_t *target;
static uint32_t keys;
static int64_t count, first_ns;
static double gap_ns;
static _Atomic int64_t received;
static uint64_t seed = 99;

static int64_t due_ns(int64_t i) { return first_ns + (int64_t)((double)i * gap_ns); }

/* ---- reading ---- */

/* The time in the new value; a notification has that behind "after". */
static int64_t time_of(const rd_kafka_message_t *m)
{
	static const char mark[] = "\"after\":{\"t\":";
	const char *t = memmem(m->payload, m->len, mark, sizeof(mark) - 1);

	return t ? strtoll(t + sizeof(mark) - 1, NULL, 10) - BENCH_TIME : 0;
}

static void *read_all(void *unused)
{
	(void)unused;
	while (atomic_load(&received) < count) {
		rd_kafka_message_t *m = rd_kafka_consumer_poll(consumer, 1000);
		int64_t now = now_ns();
		if (m && !m->err && time_of(m) >= first_ns) {
			printf("%lld %lld\n", (long long)time_of(m), (long long)now);
			atomic_fetch_add(&received, 1);
		}
		if (m)
			rd_kafka_message_destroy(m);
	}
	return NULL;
}

/* Of a topic that has just been made, too: its leader may not be known yet. */
static int64_t end_of(const char *topic, int p)
{
	int64_t low, high, until = now_ns() + CALL_MS * INT64_C(1000000);
	rd_kafka_resp_err_t e;

	do
		e = rd_kafka_query_watermark_offsets(consumer, topic, p, &low, &high, CALL_MS);
	while (e && now_ns() < until);
	if (e)
		die("no end of %s: %s", topic, rd_kafka_err2str(e));
	return high;
}

/* From the present end on, and not before the client is there. */
static void open_consumer(const char *brokers, const char *topic)
{
	const struct rd_kafka_metadata *md;
	rd_kafka_topic_partition_list_t *l;

	consumer = bench_client(RD_KAFKA_CONSUMER, brokers,
				(const char *const[]){ BENCH_READING, NULL });
	rd_kafka_topic_t *t = rd_kafka_topic_new(consumer, topic, NULL);
	if (rd_kafka_metadata(consumer, 0, t, &md, CALL_MS) || md->topic_cnt != 1)
		die("no metadata of %s", topic);
	l = rd_kafka_topic_partition_list_new(md->topics[0].partition_cnt);
	for (int p = 0; p < md->topics[0].partition_cnt; p++)
		rd_kafka_topic_partition_list_add(l, topic, p)->offset = end_of(topic, p);
	rd_kafka_metadata_destroy(md);
	rd_kafka_topic_destroy(t);
	rd_kafka_assign(consumer, l);
	rd_kafka_topic_partition_list_destroy(l);
}

/* ---- writing ---- */

static void produce(const char *value, size_t bytes)
{
	char key[BENCH_KEY_BYTES + 1];
	rd_kafka_resp_err_t e;

	bench_key(key, (uint32_t)(next_random(&seed) % keys));
	e = rd_kafka_producev(producer, RD_KAFKA_V_RKT(target),
			      RD_KAFKA_V_KEY(key, BENCH_KEY_BYTES),
			      RD_KAFKA_V_VALUE((void *)value, bytes),
			      RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
	if (e)
		die("produce: %s", rd_kafka_err2str(e));
}

static void write_source(void)
{
	char value[VALUE_BYTES + 64];

	for (int64_t i = 0; i < count; i++) {
		sleep_until_ns(due_ns(i));
		bench_value(value, VALUE_BYTES, due_ns(i), &seed);
		produce(value, VALUE_BYTES);
		rd_kafka_poll(producer, 0);
	}
}

static void produce_like_notification(int64_t due)
{
	char old[VALUE_BYTES + 64], new[VALUE_BYTES + 64], text[1024];

	bench_value(old, VALUE_BYTES, 0, &seed);
	bench_value(new, VALUE_BYTES, due, &seed);
	int n = snprintf(text, sizeof(text),
			 "{\"before\":%.*s,\"after\":%.*s,\"source\":{\"version\":\"0.1.0\","
			 "\"connector\":\"sidenote\",\"name\":\"bench\",\"ts_ms\":1700000000500,"
			 "\"snapshot\":\"false\",\"db\":\"c2lkZW5vdGUtdGVzdHMtMQ\",\"table\":"
			 "\"bench\",\"topic\":\"bench\",\"partition\":3,\"offset\":4711000,"
			 "\"before_offset\":4402000,\"before_ts_ms\":1700000000100,\"cause\":"
			 "\"log\"},\"op\":\"u\",\"ts_ms\":1700000000999}",
			 VALUE_BYTES, old, VALUE_BYTES, new);
	produce(text, (size_t)n);
}

static void write_transactions(void)
{
	for (int64_t i = 0; i < count;) {
		sleep_until_ns(due_ns(i));
		check_error(rd_kafka_begin_transaction(producer), "begin");
		do
			produce_like_notification(due_ns(i++));
		while (i < count && due_ns(i) <= now_ns());
		check_error(rd_kafka_commit_transaction(producer, CALL_MS), "commit");
	}
}

static void open_bare_producer(const char *brokers, const char *topic)
{
	struct config c;
	char err[300], name[64];

	snprintf(name, sizeof(name), "bare-%d", (int)getpid());
	config_init(&c);
	/* the sidecar's settings, less what makes a single message wait for company */
	if (config_set(&c, "name", name, err, sizeof(err)) ||
	    config_set(&c, "kafka.bootstrap.servers", brokers, err, sizeof(err)) ||
	    config_set(&c, "producer.linger.ms", "0", err, sizeof(err)) ||
	    !(producer = kafka_new(&c, KAFKA_PUBLISH, NULL, err, sizeof(err))))
		die("%s", err);
	check_error(rd_kafka_init_transactions(producer, CALL_MS), "init");
	config_free(&c);
	target = rd_kafka_topic_new(producer, topic, NULL);
}

static void open_plain_producer(const char *brokers, const char *topic)
{
	producer = bench_client(RD_KAFKA_PRODUCER, brokers,
				(const char *const[]){ "enable.idempotence", "true", "linger.ms",
						       "0", "partitioner", "murmur2", NULL });
	target = rd_kafka_topic_new(producer, topic, NULL);
}

int main(int argc, char **argv)
{
	const struct rd_kafka_metadata *md;
	pthread_t t;

	if (argc != 9)
		return 2;
	bool bare = !strcmp(argv[1], "bare");
	keys = (uint32_t)atoll(argv[5]);
	gap_ns = 1e9 / atof(argv[6]);
	count = (int64_t)(atof(argv[6]) * atof(argv[7]));
	if (bare)
		open_bare_producer(argv[2], argv[4]);
	else
		open_plain_producer(argv[2], argv[3]);
	/* the first message to a topic nobody asked about waits up to a second */
	if (rd_kafka_metadata(producer, 0, target, &md, CALL_MS))
		die("no metadata");
	rd_kafka_metadata_destroy(md);
	open_consumer(argv[2], argv[4]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	first_ns = now_ns() + 500000000 + atoll(argv[8]) * 1000000;
	pthread_create(&t, NULL, read_all, NULL);
	if (bare)
		write_transactions();
	else
		write_source();
	rd_kafka_flush(producer, CALL_MS);
	for (int i = 0; i < LINGER_S * 100 && atomic_load(&received) < count; i++)
		usleep(10000);
	fflush(stdout);
	if (atomic_load(&received) < count)
		die("%lld of %lld messages have not come",
		    (long long)(count - atomic_load(&received)), (long long)count);
	_exit(0); /* closing is not the benchmark */
}
