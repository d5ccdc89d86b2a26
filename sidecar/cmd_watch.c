/*
 * Follow a notification topic.  All partitions are assigned, no group is
 * joined, nothing is committed: watching leaves no trace.
 */
#include "base64.h"
#include "cmd.h"
#include "config.h"
#include "escape.h"
#include "json.h"
#include "kafka.h"
#include "log.h"
#include "property.h"
#include "notice.h"
#include "render.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ANSWER_MS = 5000, IDLE_MS = 200 };

struct watch {
	struct config config;
	char topic[256];
	void *prefix; /* bytes */
	size_t prefix_len;
	bool from_beginning, until_end, json, color;
	long count; /* 0: no bound */
	rd_kafka_t *rk;
	int partitions, ended; /* how many are at their end */
	bool *at_end;
	long shown;
	struct record_header *headers; /* of the message at hand */
	size_t headers_cap;
};

static atomic_bool stop;

static void on_signal(int sig)
{
	(void)sig;
	atomic_store(&stop, true);
}

static int complain(int status, const char *text)
{
	fprintf(stderr, "sidenote watch: %s\n", text);
	return status;
}

/* ---- arguments ---- */

/* -X, as config_args() takes it; that itself would ask for what only `run` needs. */
static int set_option(struct config *c, char *arg, char *err, size_t err_len)
{
	char *equals = strchr(arg, '=');
	int rc;

	if (!equals) {
		snprintf(err, err_len, "-X %s: is not name=value", arg);
		return -EINVAL;
	}
	*equals = '\0';
	if (property_is_secret(arg)) {
		snprintf(err, err_len,
			 "-X %s: every user of this host can read a command line: put it into a "
			 "file and say %s.file=PATH",
			 arg, arg);
		rc = -EINVAL;
	} else {
		rc = config_set(c, arg, equals + 1, err, err_len);
	}
	*equals = '=';
	return rc;
}

static int set_count(struct watch *w, const char *text, char *err, size_t err_len)
{
	char *end;

	errno = 0;
	w->count = strtol(text, &end, 10);
	if (!errno && *text && !*end && w->count > 0)
		return 0;
	snprintf(err, err_len, "-c: '%s' is not a whole number from 1", text);
	return -EINVAL;
}

static int set_start(struct watch *w, const char *text, char *err, size_t err_len)
{
	w->from_beginning = !strcmp(text, "beginning");
	if (w->from_beginning || !strcmp(text, "end"))
		return 0;
	snprintf(err, err_len, "-o: '%s' is neither beginning nor end", text);
	return -EINVAL;
}

static int set_prefix(struct watch *w, const char *text, char *err, size_t err_len)
{
	free(w->prefix);
	w->prefix = NULL;
	if (!escape_parse(text, &w->prefix, &w->prefix_len))
		return 0;
	snprintf(err, err_len,
		 "--prefix: '%s': after a backslash comes x and two digits, or a "
		 "backslash",
		 text);
	return -EINVAL;
}

static int set_topic(struct watch *w, const char *text, char *err, size_t err_len)
{
	if (strlen(text) && strlen(text) < sizeof(w->topic)) {
		strcpy(w->topic, text);
		return 0;
	}
	snprintf(err, err_len, "-t: '%s' is not the name of a topic", text);
	return -EINVAL;
}

static int set_flag(struct watch *w, int flag, char *err, size_t err_len)
{
	switch (flag) {
	case 'b':
		return config_set(&w->config, "kafka.bootstrap.servers", optarg, err, err_len);
	case 't':
		return set_topic(w, optarg, err, err_len);
	case 'o':
		return set_start(w, optarg, err, err_len);
	case 'c':
		return set_count(w, optarg, err, err_len);
	case 'p':
		return set_prefix(w, optarg, err, err_len);
	case 'e':
		w->until_end = true;
		return 0;
	case 'j':
		w->json = true;
		return 0;
	case 'F':
	case 'X':
		return 0; /* taken in their own rounds */
	default:
		snprintf(err, err_len, "see `sidenote help watch`");
		return -EINVAL;
	}
}

/* One round over the arguments: -F alone, -X alone, or all the others (0). */
static int take_flags(struct watch *w, int round, int argc, char **argv, char *err, size_t err_len)
{
	static const struct option names[] = { { "topic", required_argument, NULL, 't' },
					       { "prefix", required_argument, NULL, 'p' },
					       { "json", no_argument, NULL, 'j' },
					       { 0 } };
	int flag, rc = 0;

	optind = 0; /* begin anew */
	opterr = !round;
	while (!rc && (flag = getopt_long(argc, argv, "F:X:b:t:o:c:e", names, NULL)) != -1) {
		if (!round)
			rc = set_flag(w, flag, err, err_len);
		else if (flag == round && flag == 'F')
			rc = config_file(&w->config, optarg, err, err_len);
		else if (flag == round)
			rc = set_option(&w->config, optarg, err, err_len);
	}
	if (!rc && optind < argc) {
		snprintf(err, err_len, "unexpected argument '%s'; see `sidenote help watch`",
			 argv[optind]);
		rc = -EINVAL;
	}
	return rc;
}

static bool has_brokers(const struct config *c)
{
	for (size_t i = 0; i < c->kafka.n; i++)
		if (!strcmp(c->kafka.v[i].key, "bootstrap.servers"))
			return true;
	return false;
}

static int take_topic(struct watch *w, char *err, size_t err_len)
{
	const struct config *c = &w->config;

	if (!has_brokers(c)) {
		snprintf(err, err_len, "needs brokers: -b BROKERS or kafka.bootstrap.servers");
		return -EINVAL;
	}
	if (*w->topic)
		return 0;
	if (c->notifications_topic && *c->notifications_topic)
		snprintf(w->topic, sizeof(w->topic), "%s", c->notifications_topic);
	else if (!c->notifications_topic && c->source_topic && *c->source_topic)
		snprintf(w->topic, sizeof(w->topic), "%s.changes", c->source_topic);
	if (*w->topic)
		return 0;
	snprintf(err, err_len, "needs a topic: -t TOPIC or notifications.topic");
	return -EINVAL;
}

static int take_arguments(struct watch *w, int argc, char **argv, char *err, size_t err_len)
{
	const char *no_color = getenv("NO_COLOR");
	int rc = take_flags(w, 'F', argc, argv, err, err_len);

	rc = rc ? rc : config_environment(&w->config, environ, err, err_len);
	rc = rc ? rc : take_flags(w, 'X', argc, argv, err, err_len);
	rc = rc ? rc : take_flags(w, 0, argc, argv, err, err_len);
	rc = rc ? rc : take_topic(w, err, err_len);
	w->color = !w->json && isatty(STDOUT_FILENO) && !(no_color && *no_color);
	return rc;
}

/* ---- the topic ---- */

/* The end as it is now, so that nothing published from here on is missed. */
static int add_partition(struct watch *w, rd_kafka_topic_partition_list_t *l, int p, char *err,
			 size_t err_len)
{
	int64_t low, high;
	int rc = kafka_watermarks(w->rk, w->topic, p, ANSWER_MS, &low, &high, err, err_len);

	if (!rc)
		rd_kafka_topic_partition_list_add(l, w->topic, p)->offset =
			w->from_beginning ? low : high;
	return rc;
}

static int assign(struct watch *w, char *err, size_t err_len)
{
	rd_kafka_topic_partition_list_t *l;
	rd_kafka_resp_err_t e;
	int rc = kafka_partitions(w->rk, w->topic, ANSWER_MS, err, err_len);

	if (rc < 0)
		return rc;
	w->partitions = rc;
	w->at_end = calloc((size_t)w->partitions + 1, sizeof(*w->at_end));
	if (!w->at_end) {
		snprintf(err, err_len, "out of memory");
		return -ENOMEM;
	}
	l = rd_kafka_topic_partition_list_new(w->partitions);
	rc = 0;
	for (int p = 0; p < w->partitions && !rc; p++)
		rc = add_partition(w, l, p, err, err_len);
	if (!rc && (e = rd_kafka_assign(w->rk, l))) {
		snprintf(err, err_len, "%s: %s", w->topic, rd_kafka_err2str(e));
		rc = KAFKA_UNREACHABLE;
	}
	rd_kafka_topic_partition_list_destroy(l);
	return rc;
}

static int take_headers(struct watch *w, const rd_kafka_message_t *m, struct note *n)
{
	rd_kafka_headers_t *hs;
	const char *name;
	const void *value;
	size_t len, i = 0, count;

	if (rd_kafka_message_headers(m, &hs))
		return 0;
	count = rd_kafka_header_cnt(hs);
	if (count > w->headers_cap) {
		struct record_header *more = realloc(w->headers, count * sizeof(*more));

		if (!more)
			return -ENOMEM;
		w->headers = more;
		w->headers_cap = count;
	}
	for (; i < count && !rd_kafka_header_get_all(hs, i, &name, &value, &len); i++)
		w->headers[i] = (struct record_header){ name, strlen(name), value, len };
	n->headers = w->headers;
	n->n_headers = i;
	return 0;
}

/* ---- as JSON, for programs ---- */

static void print_string(const void *bytes, size_t len)
{
	char *text = malloc(JSON_STRING_MAX(len));

	if (text)
		fwrite(text, 1, (size_t)(json_put_string(text, bytes, len) - text), stdout);
	free(text);
}

/* One line: a line feed of an object can only be white space. */
static void print_object(const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		putchar(p[i] == '\n' || p[i] == '\r' ? ' ' : p[i]);
}

static void print_base64(const void *p, size_t len)
{
	char *text = malloc(BASE64_BYTES(len) + 1);

	if (text)
		*base64_encode(text, p, len) = '\0';
	printf("{\"sidenote.base64\":\"%s\"}", text ? text : "");
	free(text);
}

static void print_value(const char *name, const void *p, size_t len)
{
	printf(",\"%s\":", name);
	if (!p)
		fputs("null", stdout);
	else if (json_is_object(p, len))
		print_object(p, len);
	else
		print_base64(p, len);
}

static void print_number(const char *name, int64_t v)
{
	if (v < 0)
		printf(",\"%s\":null", name);
	else
		printf(",\"%s\":%" PRId64, name, v);
}

static const char *const causes[] = {
	[NOTE_LOG] = "log",
	[NOTE_GAP] = "gap",
	[NOTE_RECONCILE] = "reconcile",
};

/* partition, offset and ts are the notification's own, as kcat names them. */
static void print_json(const rd_kafka_message_t *m, const struct notice *r, const char *key)
{
	printf("{\"partition\":%d,\"offset\":%" PRId64, m->partition, m->offset);
	print_number("ts", rd_kafka_message_timestamp(m, NULL));
	fputs(",\"id\":", stdout);
	print_string(r->id, r->id_len);
	if (r->op == 'k' || r->op == 'x')
		printf(",\"op\":\"%s\"", r->op == 'k' ? "compacted" : "expired");
	else
		printf(",\"op\":\"%c\"", r->op);
	printf(",\"cause\":\"%s\",\"key\":", causes[r->cause]);
	print_string(key, strlen(key));
	if (r->unknown)
		fputs(",\"before\":{\"sidenote.unknown\":true}", stdout);
	else
		print_value("before", r->before, r->before_len);
	if (r->after_unknown)
		fputs(",\"after\":{\"sidenote.unknown\":true}", stdout);
	else
		print_value("after", r->after, r->after_len);
	fputs(",\"source\":{", stdout);
	printf("\"offset\":%" PRId64, r->offset);
	print_number("ts_ms", r->ts_ms);
	print_number("before_offset", r->before_offset);
	print_number("before_ts_ms", r->before_ts_ms);
	if (r->op == 'k' || r->op == 'x') {
		print_number("present_ms", r->present_ms);
		print_number("gone_ms", r->gone_ms);
		print_number("leader", r->leader);
	}
	printf("}}\n");
}

/* ---- one message ---- */

static void print_line(const struct watch *w, const struct note *n, const struct notice *r)
{
	char *line = render_line(&(struct render){ .time_ms = r->ts_ms,
						   .op = r->op,
						   .cause = causes[r->cause],
						   .key = n->key,
						   .key_len = n->key_len,
						   .before = r->before,
						   .before_len = r->before_len,
						   .after = r->after,
						   .after_len = r->after_len,
						   .color = w->color });

	if (line)
		puts(line);
	free(line);
}

static void print_notice(const struct watch *w, const rd_kafka_message_t *m, const struct note *n,
			 const struct notice *r)
{
	char *key;

	if (!w->json) {
		print_line(w, n, r);
		return;
	}
	key = escape_key(n->key, n->key_len);
	print_json(m, r, key ? key : "");
	free(key);
}

static bool is_wanted(const struct watch *w, const struct note *n)
{
	return n->key_len >= w->prefix_len &&
	       (!w->prefix_len || !memcmp(n->key, w->prefix, w->prefix_len));
}

static void show(struct watch *w, const rd_kafka_message_t *m)
{
	struct note n = { .key = m->key ? m->key : "",
			  .key_len = m->key ? m->key_len : 0,
			  .value = m->payload,
			  .value_len = m->len };
	struct notice r;

	if (!is_wanted(w, &n))
		return;
	if (take_headers(w, m, &n) || notice_open(&r, &n)) {
		fprintf(stderr, "sidenote watch: %s [%d] at %" PRId64 " is not a notification\n",
			w->topic, m->partition, m->offset);
		return;
	}
	print_notice(w, m, &n, &r);
	notice_close(&r);
	w->shown++;
}

static void mark_end(struct watch *w, int p, bool at_end)
{
	if (p < 0 || p >= w->partitions || w->at_end[p] == at_end)
		return;
	w->at_end[p] = at_end;
	w->ended += at_end ? 1 : -1;
}

/* What was there when we began may have been removed since: go on with what is left. */
static int rejoin(struct watch *w, const rd_kafka_message_t *m, char *err, size_t err_len)
{
	int64_t low, high;
	rd_kafka_topic_t *rkt;
	int rc = kafka_watermarks(w->rk, w->topic, m->partition, ANSWER_MS, &low, &high, err,
				  err_len);

	if (rc)
		return rc;
	fprintf(stderr,
		"sidenote watch: %s [%d]: notifications below %" PRId64
		" were removed before they were read\n",
		w->topic, m->partition, low);
	rkt = rd_kafka_topic_new(w->rk, w->topic, NULL);
	rc = rkt && !rd_kafka_seek(rkt, m->partition, low, ANSWER_MS) ? 0 : KAFKA_UNREACHABLE;
	if (rkt)
		rd_kafka_topic_destroy(rkt);
	if (rc)
		snprintf(err, err_len, "%s [%d]: cannot go on", w->topic, m->partition);
	return rc;
}

static int take(struct watch *w, const rd_kafka_message_t *m, char *err, size_t err_len)
{
	switch (m->err) {
	case RD_KAFKA_RESP_ERR_NO_ERROR:
		mark_end(w, m->partition, false);
		show(w, m);
		return 0;
	case RD_KAFKA_RESP_ERR__PARTITION_EOF:
		mark_end(w, m->partition, true);
		return 0;
	case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
	case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
		return rejoin(w, m, err, err_len);
	case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
	case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
	case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
	case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		snprintf(err, err_len, "%s: %s", w->topic, rd_kafka_err2str(m->err));
		return KAFKA_MISSING;
	default:
		return 0; /* connections come and go: librdkafka repairs */
	}
}

static bool is_over(const struct watch *w)
{
	return atomic_load(&stop) || (w->count && w->shown >= w->count) ||
	       (w->until_end && w->ended == w->partitions) || ferror(stdout);
}

static int follow(struct watch *w, char *err, size_t err_len)
{
	int rc = 0;

	while (!rc && !is_over(w)) {
		rd_kafka_message_t *m = rd_kafka_consumer_poll(w->rk, 0);

		if (!m) { /* nothing more at once: now is the time to be seen */
			fflush(stdout);
			m = rd_kafka_consumer_poll(w->rk, IDLE_MS);
		}
		if (m) {
			rc = take(w, m, err, err_len);
			rd_kafka_message_destroy(m);
		}
	}
	return rc;
}

static int watch(struct watch *w)
{
	char err[500];
	int rc;

	w->rk = kafka_new(&w->config, KAFKA_TOOL, NULL, err, sizeof(err));
	if (!w->rk)
		return complain(EXIT_USAGE, err);
	rc = assign(w, err, sizeof(err));
	rc = rc ? rc : follow(w, err, sizeof(err));
	return rc ? complain(EXIT_NOT_READY, err) : EXIT_DONE;
}

int cmd_watch(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_signal };
	struct watch w = { 0 };
	char err[500] = "";
	int status;

	config_init(&w.config);
	if (take_arguments(&w, argc, argv, err, sizeof(err))) {
		status = complain(EXIT_USAGE, err);
	} else {
		log_init(LOG_LEVEL_WARN, LOG_TEXT);
		sigaction(SIGINT, &sa, NULL);
		sigaction(SIGTERM, &sa, NULL);
		status = watch(&w);
	}
	kafka_free(w.rk);
	config_free(&w.config);
	free(w.prefix);
	free(w.at_end);
	free(w.headers);
	return status;
}
