/*
 * Re-read the source topic and compare it with the snapshot, which may go on
 * changing (compare.h), and the snapshot with Redis, where one is configured.
 * Nothing is written and no group is joined.
 *
 * Memory: one bit for each stored record, and the keys in doubt, at most
 * sort.memory of them at once; where that is not enough, the topic is read
 * several times, a part of the keys at a time.
 */
#include "cmd.h"
#include "compare.h"
#include "config.h"
#include "escape.h"
#include "intake.h"
#include "json.h"
#include "kafka.h"
#include "log.h"
#include "mirror.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	ANSWER_MS = 10000,
	STALL_MS = 60000, /* without a record: the brokers are unreachable */
	BATCH = 10000,
	CATCH_UPS = 5, /* how often to read on to where the snapshot has got meanwhile */
};

struct verify {
	struct config config;
	bool json;
	struct sstate *s;
	struct compare *c;
	rd_kafka_t *rk;
	int n;                                              /* partitions */
	int64_t *log_start, *log_end, *from, *to, *applied; /* [n] each */
	bool *done, *eof;
	int64_t *eof_offset;
	uint64_t records, differences;
	uint64_t mirrored, redis_differences; /* keys compared with Redis, and other there */
	int status;
	char err[500];
};

static atomic_bool stop;

static void on_signal(int sig)
{
	(void)sig;
	atomic_store(&stop, true);
}

static int fail(struct verify *v, int status, const char *what)
{
	if (what != v->err)
		snprintf(v->err, sizeof(v->err), "%s", what);
	v->status = status;
	return -1;
}

static int fail_state(struct verify *v, int rc)
{
	const char *dir = v->config.state_dir;

	snprintf(v->err, sizeof(v->err), "%s: %s", dir, sstate_strerror(rc));
	return fail(v, rc == -EBADMSG ? EXIT_BROKEN : EXIT_NOT_READY, v->err);
}

/* ---- positions ---- */

static int ask_log(struct verify *v)
{
	for (int p = 0; p < v->n; p++)
		if (kafka_watermarks(v->rk, v->config.source_topic, p, ANSWER_MS, &v->log_start[p],
				     &v->log_end[p], v->err, sizeof(v->err)))
			return fail(v, EXIT_NOT_READY, v->err);
	return 0;
}

static int ask_applied(struct verify *v, int64_t *to)
{
	struct sstate_partition row;

	for (int p = 0; p < v->n; p++) {
		int rc = sstate_partition(v->s, p, &row);

		if (rc && rc != -ENOENT)
			return fail_state(v, rc);
		to[p] = rc ? 0 : row.applied;
	}
	return 0;
}

static bool is_beyond(const struct verify *v, const int64_t *to, const int64_t *from)
{
	for (int p = 0; p < v->n; p++)
		if (to[p] > from[p])
			return true;
	return false;
}

/* ---- reading the log: from[] until to[] ---- */

static void end_partition(struct verify *v, struct intake *in, int p, int *left)
{
	if (v->done[p])
		return;
	v->done[p] = true;
	--*left;
	intake_pause(in, p);
}

/* The EOF event is the only end there is: what stood last may have been removed. */
static void end_at_eof(struct verify *v, struct intake *in, const struct intake_events *ev,
		       int *left)
{
	for (int p = 0; p < v->n; p++) {
		if (!ev->eof[p] || v->done[p])
			continue;
		if (ev->eof_offset[p] < v->to[p] && v->to[p] <= v->log_end[p])
			continue; /* an open transaction, or a broker that just became leader */
		end_partition(v, in, p, left);
	}
}

typedef int record_fn(struct verify *v, const struct batch_record *r);

static int take_batch(struct verify *v, struct intake *in, record_fn *fn, int *left)
{
	const struct batch *b = intake_batch(in);

	for (size_t i = 0; i < b->n; i++) {
		const struct batch_record *r = &b->v[i];
		int p = r->rec.partition, rc = 0;

		if (v->done[p])
			continue;
		if (r->rec.offset >= v->to[p])
			end_partition(v, in, p, left);
		else
			rc = fn(v, r);
		if (rc)
			return fail_state(v, rc);
	}
	return 0;
}

static int read_until(struct verify *v, struct intake *in, record_fn *fn)
{
	struct intake_events ev = { .eof = v->eof, .eof_offset = v->eof_offset };
	int64_t moved = kafka_now_ms();
	int left = 0, rc = 0;

	for (int p = 0; p < v->n; p++)
		v->done[p] = false;
	left = v->n;
	for (int p = 0; p < v->n; p++)
		if (v->to[p] <= (v->from[p] > 0 ? v->from[p] : 0))
			end_partition(v, in, p, &left);
	while (!rc && left && !atomic_load(&stop)) {
		if (intake_take(in, 200, BATCH, &ev, v->err, sizeof(v->err)))
			return fail(v, EXIT_NOT_READY, v->err);
		if (intake_batch(in)->n)
			moved = kafka_now_ms();
		else if (kafka_now_ms() - moved > STALL_MS)
			return fail(v, EXIT_NOT_READY,
				    "nothing came from the brokers for a minute");
		rc = take_batch(v, in, fn, &left);
		end_at_eof(v, in, &ev, &left);
		intake_clear(in);
	}
	if (!rc && atomic_load(&stop))
		rc = fail(v, EXIT_NOT_READY, "interrupted");
	return rc;
}

static int read_log(struct verify *v, record_fn *fn)
{
	struct intake *in;
	int rc;

	rc = intake_open(&in, &v->config, INTAKE_FILL, v->n, v->from, NULL, v->err, sizeof(v->err));
	if (rc)
		return rc == -ENOMEM ? fail(v, EXIT_NOT_READY, "out of memory")
				     : fail(v, EXIT_USAGE, v->err);
	rc = read_until(v, in, fn);
	intake_close(in);
	return rc;
}

static int fold(struct verify *v, const struct batch_record *r)
{
	v->records++;
	return compare_record(v->c, r);
}

static int later(struct verify *v, const struct batch_record *r)
{
	compare_later(v->c, r, v->applied);
	return 0;
}

/* ---- the steps of compare.h ---- */

static void begin_at_start(struct verify *v)
{
	for (int p = 0; p < v->n; p++)
		v->from[p] = INTAKE_LOG_START;
}

/* What was read, from there on to where the snapshot is by now. */
static void go_on(struct verify *v, const int64_t *to)
{
	memcpy(v->from, v->to, (size_t)v->n * sizeof(*v->from));
	for (int p = 0; p < v->n; p++)
		v->to[p] = to[p] > v->from[p] ? to[p] : v->from[p];
}

static int fold_to_snapshot(struct verify *v)
{
	begin_at_start(v);
	/* in this order: the end of the log is then beyond the snapshot, or the log is another */
	if (ask_applied(v, v->to) || ask_log(v) || read_log(v, fold))
		return -1;
	for (int i = 0; i < CATCH_UPS; i++) {
		if (ask_applied(v, v->applied))
			return -1;
		if (!is_beyond(v, v->applied, v->to))
			break;
		go_on(v, v->applied);
		if (ask_log(v) || read_log(v, fold))
			return -1;
	}
	return 0;
}

static int look_both_ways(struct verify *v)
{
	int rc;

	if (fold_to_snapshot(v))
		return -1;
	rc = compare_walk(v->c, v->to, v->log_start);
	if (rc)
		return fail_state(v, rc);
	if (!compare_doubts(v->c))
		return 0;
	if (ask_applied(v, v->applied) || ask_log(v))
		return -1;
	go_on(v, v->log_end);
	return read_log(v, later);
}

static void print_place(const char *name, int32_t partition, int64_t offset)
{
	if (offset < 0)
		printf(",\"%s\":null", name);
	else
		printf(",\"%s\":{\"partition\":%d,\"offset\":%" PRId64 "}", name, partition,
		       offset);
}

static const char *const kinds[DIFFERENCES] = {
	[DIFFERENCE_MISSING] = "missing", [DIFFERENCE_EXTRA] = "extra",
	[DIFFERENCE_GONE] = "gone",       [DIFFERENCE_OLD] = "old",
	[DIFFERENCE_VALUE] = "value",     [DIFFERENCE_PARTITION] = "partition",
};

static const char *const reasons[DIFFERENCES] = {
	[DIFFERENCE_MISSING] = "in the topic, not in the snapshot",
	[DIFFERENCE_EXTRA] = "deleted in the topic, in the snapshot",
	[DIFFERENCE_GONE] = "in the snapshot, gone from the topic",
	[DIFFERENCE_OLD] = "older in the snapshot than in the topic",
	[DIFFERENCE_VALUE] = "other bytes in the snapshot than in the topic",
	[DIFFERENCE_PARTITION] = "in the snapshot from another partition",
};

static void print_json(const struct difference *d, const char *key)
{
	char *text = malloc(JSON_STRING_MAX(strlen(key)));

	if (!text)
		return;
	*json_put_string(text, key, strlen(key)) = '\0';
	printf("{\"difference\":\"%s\",\"key\":%s", kinds[d->kind], text);
	print_place("topic", d->partition, d->offset);
	print_place("snapshot", d->stored_partition, d->stored_offset);
	printf("}\n");
	free(text);
}

static void print_line(const struct difference *d, const char *key)
{
	printf("%-9s  %s  %s", kinds[d->kind], key, reasons[d->kind]);
	if (d->offset >= 0)
		printf("; topic %d:%" PRId64, d->partition, d->offset);
	if (d->stored_offset >= 0)
		printf("; snapshot %d:%" PRId64, d->stored_partition, d->stored_offset);
	printf("\n");
}

static void print_difference(void *opaque, const struct difference *d)
{
	struct verify *v = opaque;
	char *key = escape_key(d->key, d->key_len);

	v->differences++;
	if (key && v->json)
		print_json(d, key);
	else if (key)
		print_line(d, key);
	free(key);
}

static int compare_all(struct verify *v)
{
	do {
		if (look_both_ways(v))
			return -1;
		if (compare_doubts(v->c)) {
			compare_again(v->c);
			if (look_both_ways(v))
				return -1;
			compare_report(v->c, print_difference, v);
		}
	} while (compare_next(v->c));
	return 0;
}

/* ---- Redis ---- */

static const char *const redis_kinds[] = {
	[MIRROR_MISSING] = "missing", [MIRROR_EXTRA] = "extra", [MIRROR_VALUE] = "value"
};
static const char *const redis_reasons[] = {
	[MIRROR_MISSING] = "in the snapshot, not in Redis",
	[MIRROR_EXTRA] = "in Redis, not in the snapshot",
	[MIRROR_VALUE] = "other bytes in Redis than in the snapshot",
};

static void print_redis_difference(void *opaque, const struct mirror_difference *d)
{
	struct verify *v = opaque;
	char *key = escape_key(d->key, d->key_len);
	char *text = key ? malloc(JSON_STRING_MAX(strlen(key))) : NULL;

	v->redis_differences++;
	if (text && v->json) {
		*json_put_string(text, key, strlen(key)) = '\0';
		printf("{\"difference\":\"redis-%s\",\"key\":%s", redis_kinds[d->kind], text);
		print_place("snapshot", d->partition, d->offset);
		printf("}\n");
	} else if (text) {
		printf("redis-%-9s  %s  %s", redis_kinds[d->kind], key, redis_reasons[d->kind]);
		if (d->offset >= 0)
			printf("; snapshot %d:%" PRId64, d->partition, d->offset);
		printf("\n");
	}
	free(text);
	free(key);
}

static int compare_redis(struct verify *v)
{
	int rc;

	if (!*v->config.redis_uri)
		return 0;
	rc = mirror_verify(&v->config, v->s, &stop, print_redis_difference, v, &v->mirrored, v->err,
			   sizeof(v->err));
	if (!rc)
		return 0;
	if (rc == -EAGAIN || rc == -EIO)
		return fail(v, EXIT_NOT_READY, v->err);
	if (rc == -ECANCELED)
		return fail(v, EXIT_NOT_READY, "interrupted");
	return fail_state(v, rc);
}

static void print_redis_verdict(const struct verify *v)
{
	if (!*v->config.redis_uri)
		return;
	if (v->json)
		printf("{\"redis\":true,\"equal\":%s,\"differences\":%llu,\"keys\":%llu}\n",
		       v->redis_differences ? "false" : "true",
		       (unsigned long long)v->redis_differences, (unsigned long long)v->mirrored);
	else if (v->redis_differences)
		printf("Redis is different: %llu of %llu keys\n",
		       (unsigned long long)v->redis_differences, (unsigned long long)v->mirrored);
	else
		printf("Redis is equal: %llu keys\n", (unsigned long long)v->mirrored);
}

static void print_verdict(const struct verify *v)
{
	unsigned long long keys = compare_keys(v->c), records = v->records;

	if (v->json)
		printf("{\"equal\":%s,\"differences\":%llu,\"keys\":%llu,\"records\":%llu}\n",
		       v->differences ? "false" : "true", (unsigned long long)v->differences, keys,
		       records);
	else if (v->differences)
		printf("different: %llu of %llu keys; %llu records read\n",
		       (unsigned long long)v->differences, keys, records);
	else
		printf("equal: %llu keys; %llu records read\n", keys, records);
}

/* ---- set up ---- */

static int check_topic(struct verify *v)
{
	char topic[256];
	int rc = sstate_text(v->s, "topic", topic, sizeof(topic));

	if (rc)
		return fail_state(v, rc);
	if (!strcmp(topic, v->config.source_topic))
		return 0;
	snprintf(v->err, sizeof(v->err), "%s is the snapshot of %s, not of source.topic=%s",
		 v->config.state_dir, topic, v->config.source_topic);
	return fail(v, EXIT_USAGE, v->err);
}

static int open_topic(struct verify *v)
{
	v->rk = kafka_new(&v->config, KAFKA_QUERY, NULL, v->err, sizeof(v->err));
	if (!v->rk)
		return fail(v, EXIT_USAGE, v->err);
	v->n = kafka_partitions(v->rk, v->config.source_topic, ANSWER_MS, v->err, sizeof(v->err));
	if (v->n < 0)
		return fail(v, EXIT_NOT_READY, v->err);
	return 0;
}

static int make_tables(struct verify *v)
{
	const struct compare_options o = { .partitions = v->n,
					   .memory = (size_t)v->config.sort_memory,
					   .moved_by_time =
						   v->config.source_moved == MOVED_TIMESTAMP,
					   .expiring = v->config.source_expiring };
	int64_t **tables[] = { &v->log_start, &v->log_end, &v->from,
			       &v->to,        &v->applied, &v->eof_offset };
	size_t n = (size_t)v->n + 1;

	for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++)
		if (!(*tables[i] = calloc(n, sizeof(int64_t))))
			return fail(v, EXIT_NOT_READY, "out of memory");
	v->done = calloc(n, sizeof(bool));
	v->eof = calloc(n, sizeof(bool));
	if (!v->done || !v->eof || compare_open(&v->c, v->s, &o))
		return fail(v, EXIT_NOT_READY, "out of memory");
	return 0;
}

static int verify(struct verify *v)
{
	int rc = sstate_open(&v->s, v->config.state_dir);

	if (rc)
		return fail_state(v, rc);
	if (check_topic(v) || open_topic(v) || make_tables(v) || compare_all(v))
		return -1;
	print_verdict(v);
	if (compare_redis(v))
		return -1;
	print_redis_verdict(v);
	v->status = v->differences || v->redis_differences ? EXIT_DIFFERENT : EXIT_DONE;
	return 0;
}

static void close_all(struct verify *v)
{
	compare_close(v->c);
	sstate_close(v->s);
	kafka_free(v->rk);
	free(v->log_start);
	free(v->log_end);
	free(v->from);
	free(v->to);
	free(v->applied);
	free(v->eof_offset);
	free(v->done);
	free(v->eof);
}

static int take_arguments(struct verify *v, int argc, char **argv)
{
	int next;

	if (config_args(&v->config, argc, argv, &next, v->err, sizeof(v->err)))
		return fail(v, EXIT_USAGE, v->err);
	for (; next < argc; next++) {
		if (strcmp(argv[next], "--json")) {
			snprintf(v->err, sizeof(v->err),
				 "unexpected argument '%s'; see `sidenote help verify`",
				 argv[next]);
			return fail(v, EXIT_USAGE, v->err);
		}
		v->json = true;
	}
	return 0;
}

int cmd_verify(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_signal };
	struct verify v = { 0 };

	config_init(&v.config);
	if (!take_arguments(&v, argc, argv)) {
		log_init(LOG_LEVEL_WARN, LOG_TEXT);
		sigaction(SIGINT, &sa, NULL);
		sigaction(SIGTERM, &sa, NULL);
		verify(&v);
	}
	if (*v.err && v.status > EXIT_DIFFERENT)
		fprintf(stderr, "sidenote verify: %s\n", v.err);
	close_all(&v);
	config_free(&v.config);
	return v.status;
}
