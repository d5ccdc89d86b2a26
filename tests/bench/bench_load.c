/*
 * bench_load.c - writes the topic of the benchmark.
 *
 *   bench_load BROKERS TOPIC KEYS COUNT SEED VALUE_BYTES
 *
 * COUNT 0: each of the keys once, in shuffled order.  Else so many updates of
 * keys drawn at random.
 */
#include "bench.h"

static uint64_t failed;

static void delivered(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
	(void)rk, (void)opaque;
	failed += m->err != 0;
}

static uint32_t *shuffled(uint32_t n, uint64_t *random)
{
	uint32_t *v = malloc(n * sizeof(*v));

	if (!v)
		die("out of memory");
	for (uint32_t i = 0; i < n; i++)
		v[i] = i;
	for (uint32_t i = n; i > 1; i--) {
		uint32_t j = (uint32_t)(next_random(random) % i), t = v[i - 1];
		v[i - 1] = v[j];
		v[j] = t;
	}
	return v;
}

static void produce(rd_kafka_t *rk, const char *topic, uint32_t i, char *value, size_t bytes)
{
	char key[BENCH_KEY_BYTES + 1];
	rd_kafka_resp_err_t e;

	bench_key(key, i);
	while ((e = rd_kafka_producev(
			rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_KEY(key, BENCH_KEY_BYTES),
			RD_KAFKA_V_VALUE(value, bytes), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
			RD_KAFKA_V_END)) == RD_KAFKA_RESP_ERR__QUEUE_FULL)
		rd_kafka_poll(rk, 10);
	if (e)
		die("produce: %s", rd_kafka_err2str(e));
}

static rd_kafka_t *open_producer(const char *brokers)
{
	const char *const kv[] = { "enable.idempotence",
				   "true",
				   "linger.ms",
				   "5",
				   "batch.num.messages",
				   "10000",
				   "queue.buffering.max.messages",
				   "500000",
				   "partitioner",
				   "murmur2",
				   NULL };
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char err[300];

	rd_kafka_conf_set(conf, "bootstrap.servers", brokers, err, sizeof(err));
	for (int i = 0; kv[i]; i += 2)
		if (rd_kafka_conf_set(conf, kv[i], kv[i + 1], err, sizeof(err)))
			die("%s", err);
	rd_kafka_conf_set_dr_msg_cb(conf, delivered);
	rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, err, sizeof(err));
	return rk ? rk : (die("%s", err), NULL);
}

int main(int argc, char **argv)
{
	if (argc != 7)
		return 2;
	uint32_t keys = (uint32_t)atoll(argv[3]), count = (uint32_t)atoll(argv[4]);
	uint64_t random = (uint64_t)atoll(argv[5]);
	size_t bytes = (size_t)atoll(argv[6]);
	uint32_t *order = count ? NULL : shuffled(keys, &random);
	char *value = malloc(bytes + 64);
	rd_kafka_t *rk = open_producer(argv[1]);
	int64_t began = now_ns();

	if (!count)
		count = keys;
	for (uint32_t i = 0; i < count; i++) {
		bench_value(value, bytes, now_ns(), &random);
		produce(rk, argv[2], order ? order[i] : (uint32_t)(next_random(&random) % keys),
			value, bytes);
		if (i % 1000 == 0)
			rd_kafka_poll(rk, 0);
	}
	if (rd_kafka_flush(rk, 120000) || failed)
		die("not everything was written");
	printf("{\"records\":%u,\"seconds\":%.3f}\n", count, (double)(now_ns() - began) / 1e9);
	rd_kafka_destroy(rk);
	free(order);
	free(value);
	return 0;
}
