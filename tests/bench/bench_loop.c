/*
 * bench_loop.c - a consume-process-produce loop without any state.
 *
 *   bench_loop BROKERS SOURCE TARGET NAME VALUE_BYTES PARTITION:FROM:TO...
 *
 * What every exactly-once program has to do: read up to 10,000 records, produce
 * one message for each within a transaction, add the offsets, commit.  Clients
 * and their settings are the sidecar's own (sidecar/kafka.c).  A message has the
 * key of its record, three headers and a JSON object of VALUE_BYTES in which
 * the record's value stands twice, as a notification has it.
 *
 * Timed from the first record asked for, all clients being connected, to the
 * last commit.
 */
#include "bench.h"
#include "kafka.h"

#include <unistd.h>

enum { AT_ONCE = 10000, CALL_MS = 30000 };

struct loop {
	struct config config;
	rd_kafka_t *consumer, *producer;
	rd_kafka_topic_t *target;
	rd_kafka_queue_t *queue;
	struct bench_range range;
	const char *source;
	int64_t next[BENCH_PARTITIONS_MAX];
	int64_t records, transactions;
	char *value;
	size_t value_bytes;
	uint64_t random;
};

static void set(struct config *c, const char *name, const char *value)
{
	char err[300];

	if (config_set(c, name, value, err, sizeof(err)))
		die("%s", err);
}

static rd_kafka_t *client(struct loop *l, enum kafka_role role)
{
	char err[300];
	rd_kafka_t *rk = kafka_new(&l->config, role, NULL, err, sizeof(err));

	return rk ? rk : (die("%s", err), NULL);
}

static void connect_all(struct loop *l, const char *brokers, const char *target, const char *name)
{
	const struct rd_kafka_metadata *md;

	config_init(&l->config);
	set(&l->config, "name", name);
	set(&l->config, "kafka.bootstrap.servers", brokers);
	l->consumer = client(l, KAFKA_TAIL);
	l->producer = client(l, KAFKA_PUBLISH);
	l->queue = rd_kafka_queue_get_consumer(l->consumer);
	check_error(rd_kafka_init_transactions(l->producer, CALL_MS), "init");
	l->target = rd_kafka_topic_new(l->producer, target, NULL);
	if (rd_kafka_metadata(l->producer, 0, l->target, &md, CALL_MS))
		die("no metadata of %s", target);
	rd_kafka_metadata_destroy(md);
	if (rd_kafka_metadata(l->consumer, 1, NULL, &md, CALL_MS))
		die("no metadata");
	rd_kafka_metadata_destroy(md);
}

/* Between the two values and around them, as many bytes as an envelope has. */
static size_t make_value(struct loop *l, const rd_kafka_message_t *m)
{
	static const char pad[] =
		"\"source\":{\"version\":\"0.1.0\",\"connector\":\"sidenote\",\"name\":\"bench\","
		"\"ts_ms\":1700000000500,\"snapshot\":\"false\",\"db\":\"c2lkZW5vdGUtdGVzdHMtMQ\","
		"\"table\":\"bench\",\"topic\":\"bench\",\"partition\":3,\"offset\":4711000,"
		"\"before_offset\":4402000,\"before_ts_ms\":1700000000100,\"cause\":\"log\"}";
	size_t n = 0, rest = l->value_bytes;

	for (int i = 0; i < 2 && m->len <= rest - n; i++, n += m->len)
		memcpy(l->value + n, m->payload, m->len);
	for (; n < rest; n += sizeof(pad) - 1)
		memcpy(l->value + n, pad, rest - n < sizeof(pad) - 1 ? rest - n : sizeof(pad) - 1);
	/* a notification holds an older value too, which lz4 cannot find elsewhere */
	if (m->len <= rest)
		bench_value(l->value, m->len, m->offset, &l->random);
	return rest;
}

static void produce(struct loop *l, const rd_kafka_message_t *m)
{
	rd_kafka_headers_t *hs = rd_kafka_headers_new(3);
	char id[80];
	int n = snprintf(id, sizeof(id), "%s/%d/%lld", l->source, m->partition,
			 (long long)m->offset);
	size_t bytes = make_value(l, m);
	rd_kafka_resp_err_t e;

	rd_kafka_header_add(hs, "sidenote.id", 11, id, n);
	rd_kafka_header_add(hs, "sidenote.op", 11, "u", 1);
	rd_kafka_header_add(hs, "sidenote.cause", 14, "log", 3);
	while ((e = rd_kafka_producev(
			l->producer, RD_KAFKA_V_RKT(l->target), RD_KAFKA_V_PARTITION(m->partition),
			RD_KAFKA_V_KEY(m->key, m->key_len), RD_KAFKA_V_VALUE(l->value, bytes),
			RD_KAFKA_V_HEADERS(hs), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
			RD_KAFKA_V_END)) == RD_KAFKA_RESP_ERR__QUEUE_FULL)
		rd_kafka_poll(l->producer, 10);
	if (e)
		die("produce: %s", rd_kafka_err2str(e));
	l->next[m->partition] = m->offset + 1;
	l->records++;
}

static void commit(struct loop *l)
{
	rd_kafka_topic_partition_list_t *offsets = rd_kafka_topic_partition_list_new(l->range.n);
	rd_kafka_consumer_group_metadata_t *group = rd_kafka_consumer_group_metadata(l->consumer);

	for (int p = 0; p < l->range.n; p++)
		if (l->next[p])
			rd_kafka_topic_partition_list_add(offsets, l->source, p)->offset =
				l->next[p];
	check_error(rd_kafka_send_offsets_to_transaction(l->producer, offsets, group, CALL_MS),
		    "send_offsets");
	check_error(rd_kafka_commit_transaction(l->producer, CALL_MS), "commit");
	rd_kafka_topic_partition_list_destroy(offsets);
	rd_kafka_consumer_group_metadata_destroy(group);
	l->transactions++;
}

/* Wait for one, then take what is there, as the sidecar's tail does. */
static size_t take(struct loop *l, rd_kafka_message_t **m, size_t max)
{
	size_t n = 0;

	while (n < max) {
		ssize_t got =
			rd_kafka_consume_batch_queue(l->queue, n ? 0 : 100, m + n, n ? max - n : 1);
		if (got <= 0)
			break;
		n += (size_t)got;
	}
	return n;
}

static void one_batch(struct loop *l, int64_t left)
{
	static rd_kafka_message_t *m[AT_ONCE];
	size_t n = take(l, m, left < AT_ONCE ? (size_t)left : AT_ONCE);
	bool open = false;

	for (size_t i = 0; i < n; i++) {
		if (!m[i]->err && m[i]->offset < l->range.to[m[i]->partition]) {
			if (!open)
				check_error(rd_kafka_begin_transaction(l->producer), "begin");
			open = true;
			produce(l, m[i]);
		}
		rd_kafka_message_destroy(m[i]);
	}
	if (open)
		commit(l);
}

int main(int argc, char **argv)
{
	static struct loop l;

	if (argc < 7)
		return 2;
	l.source = argv[2];
	l.value_bytes = (size_t)atoll(argv[5]);
	l.value = malloc(l.value_bytes + 1);
	bench_range_parse(&l.range, argc - 6, argv + 6);
	connect_all(&l, argv[1], argv[3], argv[4]);
	int64_t total = bench_range_offsets(&l.range), began = now_ns();
	double cpu = cpu_s();
	bench_range_assign(l.consumer, l.source, &l.range);
	while (l.records < total)
		one_batch(&l, total - l.records);
	printf("{\"records\":%lld,\"transactions\":%lld,\"seconds\":%.4f,\"cpu_s\":%.3f}\n",
	       (long long)l.records, (long long)l.transactions, (double)(now_ns() - began) / 1e9,
	       cpu_s() - cpu);
	fflush(stdout);
	_exit(0); /* closing is not the benchmark */
}
