/*
 * The main job in one process: a broker, a topic, a pipeline, and changes to
 * watch.
 *
 *   1. librdkafka's mock cluster is the broker; the catalogue is produced to it.
 *   2. A thread runs the pipeline, run_sidecar(), as `run` does.
 *   3. Once the snapshot is there, every change is news: this thread makes
 *      changes, prints the notifications as they come, and looks keys up.
 *   4. Whatever ends it (time, a signal, a failure): the pipeline is stopped and
 *      joined, then the broker is ended and the directory removed.
 */
#include "cmd.h"
#include "config.h"
#include "demo_catalog.h"
#include "json.h"
#include "kafka.h"
#include "log.h"
#include "render.h"
#include "run.h"
#include "shared_state.h"

#include <errno.h>
#include <ftw.h>
#include <librdkafka/rdkafka_mock.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TOPIC         "catalogue"
#define NOTIFICATIONS TOPIC ".changes"

enum {
	PARTITIONS = 2,
	START_MS = 60000, /* for the snapshot to be there */
	DRAIN_MS = 10000, /* for the last notifications to arrive */
	LOOK_MS = 5000,   /* between look-ups */
	LOOKUPS = 1000,   /* timed at the end */
	SEED = 7,
};

struct demo {
	int seconds, rate;
	bool color;
	int64_t began_ms, looked_ms;
	char dir[512], state_dir[530];
	rd_kafka_t *host, *producer, *consumer;
	rd_kafka_mock_cluster_t *cluster;
	struct config config;
	struct catalog catalog;
	unsigned made[3];  /* changes, by enum catalog_op */
	unsigned expected; /* notifications */
	unsigned seen;
	int64_t next[PARTITIONS]; /* offsets of the notification topic */
	bool may_step[PARTITIONS];
	int idle;      /* polls in a row that brought nothing */
	char last[16]; /* key of the last update that was notified */
	struct sstate *reader;
	struct sstate_buf buf;
	pthread_t pipeline;
	bool running;
	atomic_bool stop, ended; /* the pipeline shall stop; has ended */
};

static atomic_bool interrupted;

static void on_signal(int sig)
{
	(void)sig;
	atomic_store(&interrupted, true);
}

static void take_signals(void)
{
	static const int ends[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction sa = { .sa_handler = on_signal };

	for (size_t i = 0; i < sizeof(ends) / sizeof(*ends); i++)
		sigaction(ends[i], &sa, NULL);
	sa.sa_handler = SIG_IGN; /* a pager that quits must not leave files behind */
	sigaction(SIGPIPE, &sa, NULL);
}

static int fail(const char *what, const char *why)
{
	fprintf(stderr, "sidenote demo: %s: %s\n", what, why);
	return EXIT_NOT_READY;
}

/* ---- arguments ---- */

static int number(const char *option, const char *text, int max, int *out)
{
	char *end;
	long n = text ? strtol(text, &end, 10) : 0;

	if (!text || !*text || *end || n < 1 || n > max) {
		fprintf(stderr, "sidenote demo: %s: '%s' is not a whole number from 1 to %d\n",
			option, text ? text : "", max);
		return EXIT_USAGE;
	}
	*out = (int)n;
	return 0;
}

static int take_arguments(struct demo *d, int argc, char **argv)
{
	int rc = 0;

	for (int i = 1; i < argc && !rc; i += 2) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (!strcmp(argv[i], "--seconds"))
			rc = number(argv[i], value, 86400, &d->seconds);
		else if (!strcmp(argv[i], "--rate"))
			rc = number(argv[i], value, 1000, &d->rate);
		else {
			fprintf(stderr,
				"sidenote demo: unexpected argument '%s'; see "
				"`sidenote help demo`\n",
				argv[i]);
			rc = EXIT_USAGE;
		}
	}
	return rc;
}

/* ---- a directory that is gone afterwards ---- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static int make_directory(struct demo *d)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(d->dir, sizeof(d->dir), "%s/sidenote-demo.XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(d->dir)) {
		int rc = fail(d->dir, strerror(errno));
		d->dir[0] = '\0';
		return rc;
	}
	snprintf(d->state_dir, sizeof(d->state_dir), "%s/state", d->dir);
	return 0;
}

static void remove_directory(struct demo *d)
{
	if (d->dir[0])
		nftw(d->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- the broker, and who writes to it ---- */

static void drop_log(const rd_kafka_t *rk, int level, const char *fac, const char *text)
{
	(void)rk, (void)level, (void)fac, (void)text;
}

static rd_kafka_t *new_handle(const char *servers, char *err, size_t err_len)
{
	const char *const settings[][2] = {
		/* the mock's sockets are this handle's: with Nagle a transaction takes 50 ms */
		{ "socket.nagle.disable", "true" },
		{ "linger.ms", "0" },
		{ "partitioner", "murmur2_random" },
		{ servers ? "bootstrap.servers" : NULL, servers },
	};
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;

	rd_kafka_conf_set_log_cb(conf, drop_log);
	for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++)
		if (settings[i][0] && rd_kafka_conf_set(conf, settings[i][0], settings[i][1], err,
							err_len) != RD_KAFKA_CONF_OK) {
			rd_kafka_conf_destroy(conf);
			return NULL;
		}
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, err, err_len);
	if (!rk)
		rd_kafka_conf_destroy(conf);
	return rk;
}

/* Since some version of librdkafka; without it the first join takes 3 s. */
__attribute__((weak)) void
rd_kafka_mock_group_initial_rebalance_delay_ms(rd_kafka_mock_cluster_t *c, int32_t delay_ms);

static int start_broker(struct demo *d)
{
	char err[256] = "";

	d->host = new_handle(NULL, err, sizeof(err));
	if (d->host)
		d->cluster = rd_kafka_mock_cluster_new(d->host, 1);
	if (!d->cluster)
		return fail("the embedded broker does not start", err);
	if (rd_kafka_mock_group_initial_rebalance_delay_ms)
		rd_kafka_mock_group_initial_rebalance_delay_ms(d->cluster, 100);
	if (rd_kafka_mock_topic_create(d->cluster, TOPIC, PARTITIONS, 1) ||
	    rd_kafka_mock_topic_create(d->cluster, NOTIFICATIONS, PARTITIONS, 1))
		return fail("the embedded broker makes no topics", "");
	d->producer = new_handle(rd_kafka_mock_cluster_bootstraps(d->cluster), err, sizeof(err));
	return d->producer ? 0 : fail("producer", err);
}

static int produce(struct demo *d, const struct catalog_write *w)
{
	bool gone = w->op == CATALOG_DELETE;
	rd_kafka_resp_err_t e = rd_kafka_producev(
		d->producer, RD_KAFKA_V_TOPIC(TOPIC), RD_KAFKA_V_KEY(w->key, strlen(w->key)),
		RD_KAFKA_V_VALUE(gone ? NULL : (void *)w->value, gone ? 0 : strlen(w->value)),
		RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);

	rd_kafka_poll(d->producer, 0);
	return e ? fail("producing to " TOPIC, rd_kafka_err2str(e)) : 0;
}

static int produce_catalog(struct demo *d)
{
	struct catalog_write w;
	int rc = 0;

	catalog_init(&d->catalog, SEED);
	for (int i = 0; i < CATALOG_INITIAL && !rc; i++) {
		catalog_first(&d->catalog, i, &w);
		rc = produce(d, &w);
	}
	if (!rc && rd_kafka_flush(d->producer, 10000))
		rc = fail("producing to " TOPIC, "the embedded broker does not answer");
	return rc;
}

/* ---- the pipeline ---- */

static int configure(struct demo *d)
{
	const char *const options[][2] = {
		{ "name", "demo" },
		{ "cluster.name", "demo" },
		{ "kafka.bootstrap.servers", rd_kafka_mock_cluster_bootstraps(d->cluster) },
		{ "source.topic", TOPIC },
		{ "notifications.topic", NOTIFICATIONS },
		{ "state.dir", d->state_dir },
		/* the mock does not wake a waiting fetch when something arrives */
		{ "consumer.fetch.wait.max.ms", "10" },
		{ "consumer.fetch.error.backoff.ms", "10" },
	};
	char err[500];

	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++)
		if (config_set(&d->config, options[i][0], options[i][1], err, sizeof(err)))
			return fail("configuration", err);
	return config_check(&d->config, err, sizeof(err)) ? fail("configuration", err) : 0;
}

static void *run_pipeline(void *arg)
{
	struct demo *d = arg;
	const struct run_options o = { .stop = &d->stop, .offsets_forgotten = true };

	run_sidecar(&d->config, &o);
	atomic_store(&d->ended, true);
	return NULL;
}

static bool going(const struct demo *d)
{
	return !atomic_load(&interrupted) && !atomic_load(&d->ended);
}

static int start_pipeline(struct demo *d)
{
	char current[600];
	int64_t until = kafka_now_ms() + START_MS;

	snprintf(current, sizeof(current), "%s/current", d->state_dir);
	if (pthread_create(&d->pipeline, NULL, run_pipeline, d))
		return fail("pipeline", "no thread for it");
	d->running = true;
	while (access(current, F_OK) && going(d)) {
		if (kafka_now_ms() > until)
			return fail("the pipeline", "makes no snapshot");
		usleep(5000);
	}
	return 0;
}

static void stop_pipeline(struct demo *d)
{
	if (!d->running)
		return;
	atomic_store(&d->stop, true);
	pthread_join(d->pipeline, NULL);
	d->running = false;
}

/* ---- what is printed while it runs ---- */

static void print_time(const struct demo *d)
{
	printf("%5.1f ", (double)(kafka_now_ms() - d->began_ms) / 1000);
}

/* A reader that went away (a pager, head) ends the demo as Ctrl-C does. */
static void flush(void)
{
	if (fflush(stdout))
		atomic_store(&interrupted, true);
}

/* A member of the envelope as the renderer wants it: null is none. */
static void take_side(const struct json_member *m, const void **value, size_t *len)
{
	*value = m->value_len == 4 && !memcmp(m->value, "null", 4) ? NULL : m->value;
	*len = m->value_len;
}

static struct render read_note(const rd_kafka_message_t *m)
{
	struct render r = { .time_ms = -1, .op = '?', .key = m->key, .key_len = m->key_len };
	struct json_member member;

	for (size_t pos = 0; json_next_member(m->payload, m->len, &pos, &member);) {
		if (member.name_len == 6 && !memcmp(member.name, "before", 6))
			take_side(&member, &r.before, &r.before_len);
		else if (member.name_len == 5 && !memcmp(member.name, "after", 5))
			take_side(&member, &r.after, &r.after_len);
		else if (member.name_len == 2 && !memcmp(member.name, "op", 2))
			r.op = member.value[1];
	}
	return r;
}

static void print_note(struct demo *d, const rd_kafka_message_t *m)
{
	struct render r = read_note(m);
	char *line;

	r.color = d->color;
	line = render_line(&r);
	print_time(d);
	puts(line ? line : "out of memory");
	free(line);
	flush();
	d->seen++;
	if (r.op == 'u')
		snprintf(d->last, sizeof(d->last), "%.*s", (int)m->key_len, (char *)m->key);
}

static int look_up(struct demo *d, const char *key, struct sstate_record *r)
{
	int rc = d->reader ? 0 : sstate_open(&d->reader, d->state_dir);

	return rc ? rc : sstate_get(d->reader, key, strlen(key), &d->buf, r);
}

/* What any process on the host would find: no broker is asked. */
static void print_look_up(struct demo *d, const char *key)
{
	struct sstate_record r;
	int rc = look_up(d, key, &r);

	d->looked_ms = kafka_now_ms();
	print_time(d);
	printf("= %s  ", key);
	if (rc)
		puts(rc == -ENOENT ? "(not there)" : sstate_strerror(rc));
	else
		printf("%.*s\n", (int)r.value_len, (const char *)r.value);
	flush();
}

/* ---- the notifications ---- */

static int follow(struct demo *d)
{
	rd_kafka_topic_partition_list_t *l;
	char err[256];

	d->consumer = kafka_new(&d->config, KAFKA_TOOL, NULL, err, sizeof(err));
	if (!d->consumer)
		return fail("consumer", err);
	l = rd_kafka_topic_partition_list_new(PARTITIONS);
	for (int p = 0; p < PARTITIONS; p++)
		rd_kafka_topic_partition_list_add(l, NOTIFICATIONS, p)->offset = 0;
	rd_kafka_assign(d->consumer, l);
	rd_kafka_topic_partition_list_destroy(l);
	return 0;
}

/*
 * The mock of librdkafka 2.15 and later ends a transaction with a marker that
 * its own consumer cannot parse, and asks for for ever.  No two come in a row.
 */
static bool has_markers(void) { return rd_kafka_version() >= 0x020f0000; }

static void step_over_markers(struct demo *d)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(PARTITIONS);
	int64_t low, high;

	for (int p = 0; p < PARTITIONS; p++)
		if (!rd_kafka_get_watermark_offsets(d->consumer, NOTIFICATIONS, p, &low, &high) &&
		    d->may_step[p] && high > d->next[p]) {
			rd_kafka_topic_partition_list_add(l, NOTIFICATIONS, p)->offset =
				++d->next[p];
			d->may_step[p] = false;
		}
	if (l->cnt)
		rd_kafka_error_destroy(rd_kafka_seek_partitions(d->consumer, l, 1000));
	rd_kafka_topic_partition_list_destroy(l);
}

static void take_note(struct demo *d, int wait_ms)
{
	rd_kafka_message_t *m = rd_kafka_consumer_poll(d->consumer, wait_ms);

	if (m && !m->err) {
		d->next[m->partition] = m->offset + 1;
		d->may_step[m->partition] = true;
		print_note(d, m);
	}
	d->idle = m && !m->err ? 0 : d->idle + 1;
	if (m)
		rd_kafka_message_destroy(m);
	if (d->idle >= 2 && has_markers())
		step_over_markers(d);
}

static void take_notes(struct demo *d, int64_t until_ms)
{
	int most = has_markers() ? 5 : 50;

	do {
		int64_t left = until_ms - kafka_now_ms();

		take_note(d, left > most ? most : left > 0 ? (int)left : 0);
		if (*d->last && kafka_now_ms() - d->looked_ms >= LOOK_MS)
			print_look_up(d, d->last);
	} while (kafka_now_ms() < until_ms && going(d));
}

static int change(struct demo *d)
{
	struct catalog_write w;

	catalog_next(&d->catalog, &w);
	d->made[w.op]++;
	d->expected += w.op != CATALOG_CREATE;
	return produce(d, &w);
}

static int watch_life(struct demo *d)
{
	int64_t begin = kafka_now_ms(), end = begin + d->seconds * 1000LL, n = 0;
	int rc = 0;

	while (!rc && going(d) && kafka_now_ms() < end) {
		int64_t next = begin + ++n * 1000 / d->rate;

		rc = change(d);
		take_notes(d, next < end ? next : end);
	}
	end = kafka_now_ms() + DRAIN_MS;
	while (!rc && d->seen < d->expected && going(d) && kafka_now_ms() < end)
		take_notes(d, kafka_now_ms() + 20);
	return rc;
}

/* ---- first and last words ---- */

static void introduce(const struct demo *d)
{
	printf("broker         embedded in this process, %s\n"
	       "topic          " TOPIC ": %d products in %d partitions, %d changes a second\n"
	       "snapshot       %s\n"
	       "notifications  topic " NOTIFICATIONS ": what was -> what is\n"
	       "\n"
	       "%d s; Ctrl-C ends it.  u: updated, d: deleted, =: looked up in the snapshot\n",
	       rd_kafka_mock_cluster_bootstraps(d->cluster), CATALOG_INITIAL, PARTITIONS, d->rate,
	       d->state_dir, d->seconds);
	flush();
	fputs("Note: the embedded broker does not compact and forgets transactional offsets.\n"
	      "This shows the job; exactly once needs a real Kafka, see README.md.\n\n",
	      stderr);
}

static double lookup_us(struct demo *d)
{
	struct timespec a, b;
	struct sstate_record r;

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < LOOKUPS; i++)
		look_up(d, d->last, &r);
	clock_gettime(CLOCK_MONOTONIC, &b);
	return ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / 1e3 /
	       LOOKUPS;
}

static int conclude(struct demo *d)
{
	struct sstate_stat st = { 0 };

	if (atomic_load(&d->ended))
		return fail("the pipeline", "ended by itself, see above");
	if (*d->last)
		print_look_up(d, d->last);
	if (*d->last && !sstate_stat(d->reader, &st))
		printf("\n%llu products in the snapshot, %.1f us a look-up\n",
		       (unsigned long long)st.keys, lookup_us(d));
	printf("%u updates, %u deletes, %u creates; %u notifications of old -> new\n",
	       d->made[CATALOG_UPDATE], d->made[CATALOG_DELETE], d->made[CATALOG_CREATE], d->seen);
	flush();
	if (d->seen != d->expected && !atomic_load(&interrupted))
		return fail("notifications", "not one for each update and delete");
	return 0;
}

/* ---- all of it ---- */

static int run(struct demo *d)
{
	int rc;

	if ((rc = make_directory(d)) || (rc = start_broker(d)) || (rc = configure(d)) ||
	    (rc = produce_catalog(d)))
		return rc;
	introduce(d);
	if ((rc = follow(d)) || (rc = start_pipeline(d)))
		return rc;
	if (going(d))
		print_look_up(d, "kettle");
	return (rc = watch_life(d)) ? rc : conclude(d);
}

static void end(struct demo *d)
{
	sstate_buf_free(&d->buf);
	sstate_close(d->reader);
	stop_pipeline(d);
	kafka_free(d->consumer);
	kafka_free(d->producer);
	if (d->cluster)
		rd_kafka_mock_cluster_destroy(d->cluster);
	kafka_free(d->host);
	config_free(&d->config);
	remove_directory(d);
}

int cmd_demo(int argc, char **argv)
{
	struct demo d = { .seconds = 20, .rate = 2, .began_ms = kafka_now_ms() };
	int rc = take_arguments(&d, argc, argv);

	if (rc)
		return rc;
	d.color = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
	/* what the mock cannot answer is warned of; this verb says it in its own words */
	log_init(LOG_LEVEL_ERROR, LOG_TEXT);
	take_signals();
	config_init(&d.config);
	rc = run(&d);
	end(&d);
	return rc;
}
