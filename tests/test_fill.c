/* Fills from a broker that lives in this process: librdkafka's mock cluster. */
#include "harness.h"
#include "fill.h"
#include "kafka.h"
#include "log.h"

#include <dirent.h>
#include <librdkafka/rdkafka_mock.h>
#include <signal.h>
#include <sys/resource.h>

#define TOPIC "source"

enum { PARTITIONS = 3, KEYS = 5000, RECORDS = 20000, VALUE_MAX = 400 };

struct world {
	rd_kafka_t *host;
	rd_kafka_mock_cluster_t *cluster;
	struct config config;
	struct state_dir *dir;
	struct state *st;
	int64_t end[PARTITIONS];
	struct position published[PARTITIONS];
	struct state_partition rows[PARTITIONS];
	atomic_bool stop;
	const char *id;
	char err[600];
};

static rd_kafka_t *client(rd_kafka_type_t type, const char *brokers)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char err[300];

	rd_kafka_conf_set(conf, "bootstrap.servers", brokers, err, sizeof(err));
	rd_kafka_conf_set(conf, "linger.ms", "5", err, sizeof(err));
	rd_kafka_conf_set(conf, "log_level", "3", err, sizeof(err));
	rd_kafka_t *rk = rd_kafka_new(type, conf, err, sizeof(err));
	assert_non_null(rk);
	return rk;
}

static void set(struct world *w, const char *name, const char *value)
{
	if (config_set(&w->config, name, value, w->err, sizeof(w->err)))
		fail_msg("%s", w->err);
}

static void open_world(struct world *w, const char *dir)
{
	*w = (struct world){ .host = client(RD_KAFKA_PRODUCER, "") };
	w->cluster = rd_kafka_mock_cluster_new(w->host, 1);
	assert_non_null(w->cluster);
	assert_int_equal(rd_kafka_mock_topic_create(w->cluster, TOPIC, PARTITIONS, 1), 0);
	config_init(&w->config);
	set(w, "name", "test");
	set(w, "kafka.bootstrap.servers", rd_kafka_mock_cluster_bootstraps(w->cluster));
	set(w, "source.topic", TOPIC);
	set(w, "state.dir", dir);
	set(w, "sort.memory", "1MiB");
	for (int p = 0; p < PARTITIONS; p++)
		w->published[p].offset = -1;
	assert_int_equal(state_dir_open(&w->dir, dir, w->err, sizeof(w->err)), 0);
	log_init(LOG_LEVEL_ERROR, LOG_TEXT);
}

static void close_world(struct world *w)
{
	state_close(w->st);
	state_dir_close(w->dir);
	config_free(&w->config);
	rd_kafka_mock_cluster_destroy(w->cluster);
	rd_kafka_destroy(w->host);
}

static void create(struct world *w)
{
	const struct state_identity who = { "test", "", TOPIC };
	const struct state_options o = { .lease_ms = 100 };

	if (state_create(&w->st, w->dir, &who, &o, w->err, sizeof(w->err)))
		fail_msg("%s", w->err);
}

static int fill(struct world *w)
{
	create(w);
	return fill_run(&w->config, w->st, PARTITIONS, w->published, w->rows, &w->stop, &w->id,
			w->err, sizeof(w->err));
}

/* ---- what is written ---- */

static void produce(rd_kafka_t *rk, int p, const char *key, const char *value, size_t len,
		    int64_t timestamp)
{
	rd_kafka_resp_err_t e;

	while ((e = rd_kafka_producev(
			rk, RD_KAFKA_V_TOPIC(TOPIC), RD_KAFKA_V_PARTITION(p),
			RD_KAFKA_V_KEY(key, strlen(key)), RD_KAFKA_V_VALUE((void *)value, len),
			RD_KAFKA_V_TIMESTAMP(timestamp), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
			RD_KAFKA_V_END)) == RD_KAFKA_RESP_ERR__QUEUE_FULL)
		rd_kafka_poll(rk, 10);
	assert_int_equal(e, 0);
}

/* The i-th record of partition p: which key, which version, or a tombstone. */
static int key_of(int i) { return (int)((unsigned)i * 2654435761u % KEYS); }
static bool deletes(int i) { return i % 7 == 3; }
static size_t value_of(int i, char value[VALUE_MAX])
{
	size_t len = 20 + (size_t)i % (VALUE_MAX - 20);

	memset(value, 'a' + i % 26, len);
	return len;
}

/* Records 0, 1, ... of RECORDS in turn to the partition that their key has. */
static int partition_of(int k) { return k % PARTITIONS; }

static void key_name(int k, char key[700])
{
	/* some are stored under a digest */
	snprintf(key, 700, k % 50 ? "user:%08d" : "user:%0600d", k);
}

static void write_all(struct world *w)
{
	rd_kafka_t *rk = client(RD_KAFKA_PRODUCER, rd_kafka_mock_cluster_bootstraps(w->cluster));
	char key[700], value[VALUE_MAX];

	for (int i = 0; i < RECORDS; i++) {
		int p = partition_of(key_of(i));
		size_t len = value_of(i, value);
		key_name(key_of(i), key);
		produce(rk, p, key, deletes(i) ? NULL : value, deletes(i) ? 0 : len, 1000 + i);
		w->end[p]++;
	}
	assert_int_equal(rd_kafka_flush(rk, 20000), 0);
	rd_kafka_destroy(rk);
}

static void write_one(struct world *w, int p, const char *key, const char *value, int64_t timestamp)
{
	rd_kafka_t *rk = client(RD_KAFKA_PRODUCER, rd_kafka_mock_cluster_bootstraps(w->cluster));

	produce(rk, p, key, value, value ? strlen(value) : 0, timestamp);
	assert_int_equal(rd_kafka_flush(rk, 20000), 0);
	rd_kafka_destroy(rk);
	w->end[p]++;
}

/* ---- what is stored ---- */

static bool stored(struct world *w, const char *key, struct record *r, uint8_t bytes[2000])
{
	uint8_t skey[KEY_STORED_MAX];
	size_t skey_len = record_stored_key(skey, key, strlen(key)), len;
	struct state_view *v;
	const void *rec;

	assert_int_equal(state_view_begin(w->st, &v), 0);
	int rc = state_view_get(v, skey, skey_len, &rec, &len);
	if (!rc) {
		assert_true(len <= 2000);
		memcpy(bytes, rec, len);
		assert_int_equal(record_decode(r, bytes, len, skey, skey_len), 0);
	}
	state_view_end(v);
	return !rc;
}

/* The records below `upto`, applied in order. */
static void assert_fold(struct world *w, const int64_t *upto)
{
	static int last[KEYS]; /* record that is stored of a key; -1: none */
	int64_t next[PARTITIONS] = { 0 };
	char key[700], value[VALUE_MAX];
	uint8_t bytes[2000];
	struct record r;
	struct state_stat stat;
	uint64_t present = 0;

	memset(last, -1, sizeof(last));
	for (int i = 0; i < RECORDS; i++) {
		int k = key_of(i), p = partition_of(k);
		if (next[p]++ < upto[p])
			last[k] = deletes(i) ? -1 : i;
	}
	for (int k = 0; k < KEYS; k++) {
		key_name(k, key);
		assert_int_equal(stored(w, key, &r, bytes), last[k] >= 0);
		if (last[k] < 0)
			continue;
		present++;
		size_t len = value_of(last[k], value);
		assert_int_equal(r.partition, partition_of(k));
		assert_int_equal(r.timestamp_ms, 1000 + last[k]);
		assert_int_equal(r.value_len, len);
		assert_memory_equal(r.value, value, len);
	}
	assert_int_equal(state_stat(w->st, &stat), 0);
	assert_int_equal(stat.records, present);
}

static void test_the_last_record_of_each_key_is_stored(void **state)
{
	struct world w;

	open_world(&w, *state);
	write_all(&w);
	if (fill(&w))
		fail_msg("%s %s", w.id, w.err);
	assert_fold(&w, w.end);
	for (int p = 0; p < PARTITIONS; p++) {
		assert_int_equal(w.rows[p].applied, w.end[p]);
		assert_int_equal(w.rows[p].start, w.end[p]);
		assert_int_equal(w.rows[p].whole, w.end[p]);
		assert_int_equal(w.rows[p].published, -1);
	}
	close_world(&w);
}

static void test_nothing_at_or_after_a_committed_offset_is_stored(void **state)
{
	struct world w;
	int64_t upto[PARTITIONS];

	open_world(&w, *state);
	write_all(&w);
	w.published[0] = (struct position){ w.end[0] / 2, 3 };
	w.published[1] = (struct position){ w.end[1], 0 };
	/* partition 2 has none: it is new, and the tail reads it from its start */
	upto[0] = w.end[0] / 2;
	upto[1] = w.end[1];
	upto[2] = 0;
	if (fill(&w))
		fail_msg("%s %s", w.id, w.err);
	assert_fold(&w, upto);
	for (int p = 0; p < PARTITIONS; p++) {
		assert_int_equal(w.rows[p].applied, upto[p]);
		assert_int_equal(w.rows[p].base, upto[p]);
		assert_true(w.rows[p].whole == INT64_MAX);
	}
	assert_int_equal(w.rows[0].published_n, 3);
	assert_int_equal(w.rows[0].base_n, 3);
	close_world(&w);
}

static void test_an_empty_topic_is_filled_at_once(void **state)
{
	struct world w;
	struct state_stat stat;

	open_world(&w, *state);
	assert_int_equal(fill(&w), 0);
	assert_int_equal(state_stat(w.st, &stat), 0);
	assert_int_equal(stat.records, 0);
	assert_int_equal(w.rows[0].applied, 0);
	close_world(&w);
}

static void test_a_topic_that_ends_before_what_was_published_stops(void **state)
{
	struct world w;

	open_world(&w, *state);
	write_one(&w, 0, "key", "value", 1);
	w.published[0].offset = 5;
	assert_int_equal(fill(&w), FILL_BROKEN);
	assert_string_equal(w.id, "SN-TOPIC-SHORTER");
	close_world(&w);
}

static void test_a_key_in_two_partitions_stops_and_says_which(void **state)
{
	struct world w;

	open_world(&w, *state);
	write_one(&w, 0, "kept", "value", 1);
	write_one(&w, 1, "mover", "value", 2);
	write_one(&w, 2, "mover", "value", 3);
	assert_int_equal(fill(&w), FILL_BROKEN);
	assert_string_equal(w.id, "SN-KEY-MOVED");
	assert_non_null(strstr(w.err, "'mover'"));
	assert_non_null(strstr(w.err, "source.moved=timestamp"));
	close_world(&w);
}

static void test_a_key_in_two_partitions_is_the_later_one_where_that_is_wanted(void **state)
{
	uint8_t bytes[2000];
	struct record r;
	struct world w;

	open_world(&w, *state);
	set(&w, "source.moved", "timestamp");
	write_one(&w, 0, "mover", "later", 200);
	write_one(&w, 1, "mover", "earlier", 100);
	if (fill(&w))
		fail_msg("%s %s", w.id, w.err);
	assert_true(stored(&w, "mover", &r, bytes));
	assert_memory_equal(r.value, "later", 5);
	assert_int_equal(r.partition, 0);
	close_world(&w);
}

static void test_a_stop_ends_it(void **state)
{
	struct world w;

	open_world(&w, *state);
	write_one(&w, 0, "key", "value", 1);
	atomic_store(&w.stop, true);
	assert_int_equal(fill(&w), FILL_STOPPED);
	close_world(&w);
}

static void test_a_full_disk_ends_it_with_one_line(void **state)
{
	struct rlimit old, small;
	struct world w;

	open_world(&w, *state);
	write_all(&w);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	for (rlim_t limit = 1200 << 10; limit > 100 << 10; limit -= 200 << 10) {
		create(&w);
		small = (struct rlimit){ limit, old.rlim_max };
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
		int rc = fill_run(&w.config, w.st, PARTITIONS, w.published, w.rows, &w.stop, &w.id,
				  w.err, sizeof(w.err));
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
		assert_int_equal(rc, FILL_FAILED);
		assert_string_equal(w.id, "SN-DISK-FULL");
		assert_null(strchr(w.err, '\n'));
		state_close(w.st);
		w.st = NULL;
	}
	close_world(&w);
}

static int generations(const char *dir)
{
	DIR *d = opendir(dir);
	int n = 0;

	for (struct dirent *e; (e = readdir(d));)
		n += !strncmp(e->d_name, "gen-", 4);
	closedir(d);
	return n;
}

static void test_what_a_killed_fill_left_is_swept_after_the_next(void **state)
{
	struct world w;

	for (int i = 1; i <= 3; i++) {
		pid_t child = fork();
		if (child == 0) {
			open_world(&w, *state);
			create(&w);
			_exit(0); /* as killed: nothing is closed */
		}
		assert_int_equal(waitpid(child, NULL, 0), child);
		assert_int_equal(generations(*state), i);
	}
	open_world(&w, *state);
	write_all(&w);
	assert_int_equal(fill(&w), 0);
	assert_int_equal(state_make_current(w.st, w.err, sizeof(w.err)), 0);
	state_dir_sweep(w.dir);
	assert_int_equal(generations(*state), 1);
	assert_fold(&w, w.end);
	close_world(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with_dir(test_the_last_record_of_each_key_is_stored),
		test_with_dir(test_nothing_at_or_after_a_committed_offset_is_stored),
		test_with_dir(test_an_empty_topic_is_filled_at_once),
		test_with_dir(test_a_topic_that_ends_before_what_was_published_stops),
		test_with_dir(test_a_key_in_two_partitions_stops_and_says_which),
		test_with_dir(test_a_key_in_two_partitions_is_the_later_one_where_that_is_wanted),
		test_with_dir(test_a_stop_ends_it),
		test_with_dir(test_a_full_disk_ends_it_with_one_line),
		test_with_dir(test_what_a_killed_fill_left_is_swept_after_the_next),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
