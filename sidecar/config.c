#include "config.h"
#include "http_listen.h"
#include "mark.h"
#include "option.h"
#include "property.h"
#include "redis.h"
#include "refuse.h"

#include <stdlib.h>
#include <string.h>

#define MIB (1024 * 1024LL)
#define GIB (1024 * MIB)

enum { MESSAGE_MAX = 512 };

static const struct option_word moved_words[] = {
	{ "stop", MOVED_STOP },
	{ "timestamp", MOVED_TIMESTAMP },
	{ 0 },
};
static const struct option_word operation_words[] = {
	{ "create", OPERATION_CREATE },
	{ "update", OPERATION_UPDATE },
	{ "delete", OPERATION_DELETE },
	{ 0 },
};
static const struct option_word format_words[] = {
	{ "debezium-json", NOTE_DEBEZIUM_JSON },
	{ "raw", NOTE_RAW },
	{ 0 },
};
static const struct option_word encoding_words[] = {
	{ "json", NOTE_JSON },
	{ "base64", NOTE_BASE64 },
	{ 0 },
};
static const struct option_word start_words[] = {
	{ "end", START_END },
	{ "beginning", START_BEGINNING },
	{ 0 },
};
static const struct option_word reconcile_words[] = {
	{ "auto", RECONCILE_AUTO },
	{ "always", RECONCILE_ALWAYS },
	{ "off", RECONCILE_OFF },
	{ 0 },
};
/*
 * The options, all of them.  To add one: a field in struct config, a row here,
 * `make docs`.  Units are part of the name (.ms, .bytes).
 */
static const struct option_row options[] = {
#define F(f) offsetof(struct config, f)
	{ "name", OPTION_NAME, F(name), NULL, option_required, 1, 100, NULL,
	  "The pipeline. Group and transactional id are `sidenote.<name>`, client ids "
	  "`sidenote-<name>-<role>`. Sidecars of one name stand in for each other." },
	{ "cluster.name", OPTION_TEXT, F(cluster_name), "", NULL, 0, 0, NULL,
	  "`db` in the envelope. Empty: the cluster id." },
	{ "source.topic", OPTION_TOPIC, F(source_topic), NULL, option_required, 0, 0, NULL,
	  "The compacted topic." },
	{ "source.moved", OPTION_ENUM, F(source_moved), "stop", NULL, 0, 0, moved_words,
	  "A key that turns up in a second partition: stop, or keep the record of the later "
	  "timestamp (not exact)." },
	{ "source.expiring", OPTION_BOOL, F(source_expiring), "false", NULL, 0, 0, NULL,
	  "Accept a topic with `cleanup.policy=compact,delete`. Keys whose record expired leave "
	  "the snapshot without a notification." },
	{ "state.dir", OPTION_PATH, F(state_dir), NULL, option_required, 0, 0, NULL,
	  "Directory of the shared state, on a local disk. Readers open `<state.dir>/current`." },
	{ "state.lease.ms", OPTION_INT, F(state_lease_ms), "2000", NULL, 100, 60000, NULL,
	  "How long a reader may look at one snapshot. May only grow while a state exists." },
	{ "state.headers", OPTION_LIST, F(state_headers), "none", NULL, 0, 0, NULL,
	  "Source headers to keep with a record: `none`, `all`, or names separated by commas." },
	{ "batch.records", OPTION_INT, F(batch_records), "10000", NULL, 1, 1000000, NULL,
	  "The most records of one transaction of the state." },
	{ "batch.ms", OPTION_INT, F(batch_ms), "100", NULL, 1, 10000, NULL,
	  "The longest time under load before a record is committed and visible. An idle source "
	  "is committed at once." },
	{ "sort.memory", OPTION_SIZE, F(sort_memory), "256MiB", NULL, MIB, 1024 * GIB, NULL,
	  "Memory for sorting while the state is filled." },
	{ "journal.max.bytes", OPTION_SIZE_0, F(journal_max_bytes), "0", NULL, MIB, 512 * GIB, NULL,
	  "Size of the journal beyond which reading the source waits for publishing. 0: 8GiB, or "
	  "a quarter of the free space if that is less." },
	{ "notifications.topic", OPTION_NOTES, F(notifications_topic), NULL,
	  "`<source.topic>.changes`", 0, 0, NULL, "Where notifications go. Empty: nowhere." },
	{ "notifications.create", OPTION_BOOL, F(notifications_create), "false", NULL, 0, 0, NULL,
	  "Create the notification topic if it is missing, with the source's partition count, "
	  "instead of stopping with the command that would." },
	{ "notifications.operations", OPTION_FLAGS, F(notifications_operations), "update,delete",
	  NULL, 0, 0, operation_words,
	  "What is notified. With `create` the topic is a complete changelog." },
	{ "notifications.format", OPTION_ENUM, F(notifications_format), "debezium-json", NULL, 0, 0,
	  format_words, "An envelope in JSON, or the new bytes with the old ones in a header." },
	{ "notifications.encoding", OPTION_ENUM, F(notifications_encoding), "json", NULL, 0, 0,
	  encoding_words,
	  "How values stand in the envelope: as the JSON objects that they are, or as base64." },
	{ "notifications.start", OPTION_ENUM, F(notifications_start), "end", NULL, 0, 0,
	  start_words, "On the very first start: notify from now on, or the whole topic." },
	{ "notifications.unchanged", OPTION_BOOL, F(notifications_unchanged), "false", NULL, 0, 0,
	  NULL, "Also notify a rewrite of the same bytes." },
	{ "notifications.compacted.topic", OPTION_NOTES, F(compacted_topic), "", NULL, 0, 0, NULL,
	  "Where it is notified that compaction has physically removed an overwritten record. "
	  "Empty: nowhere, and overwritten records are not kept for it." },
	{ "notifications.compacted.max.bytes", OPTION_SIZE, F(compacted_max_bytes), "4GiB", NULL,
	  MIB, 512 * GIB, NULL,
	  "Size of the overwritten records that wait for that, beyond which the oldest are "
	  "notified as `expired`." },
	{ "notifications.compacted.probes", OPTION_INT, F(compacted_probes), "20", NULL, 1, 1000,
	  NULL,
	  "The most requests a second that look for what was removed. None while nothing waits." },
	{ "reconcile", OPTION_ENUM, F(reconcile), "auto", NULL, 0, 0, reconcile_words,
	  "Look for deletes that compaction has purged: when some may have been missed, once at "
	  "every start, or never." },
	{ "redis.uri", OPTION_TEXT, F(redis_uri), "", NULL, 0, 0, NULL,
	  "A Redis to keep in step with the topic: `redis://HOST[:PORT][/DB]`, `rediss://` the "
	  "same "
	  "over TLS, `unix:/PATH[?db=DB]`. Empty: none." },
	{ "redis.prefix", OPTION_TEXT, F(redis_prefix), NULL, "`<source.topic>:`", 0, 0, NULL,
	  "A key there is this and the key's bytes, its value the value's bytes. What begins so "
	  "and "
	  "is not in the topic is deleted." },
	{ "redis.adopt", OPTION_BOOL, F(redis_adopt), "false", NULL, 0, 0, NULL,
	  "Take keys over that are under the prefix and not known to be this pipeline's." },
	{ "redis.user", OPTION_TEXT, F(redis_user), "", NULL, 0, 0, NULL,
	  "The ACL user to log in as. Empty: the default user." },
	{ "redis.password.file", OPTION_TEXT, F(redis_password_file), "", NULL, 0, 0, NULL,
	  "A file with the password, read at every connection. Empty: no login." },
	{ "redis.tls.ca", OPTION_TEXT, F(redis_tls_ca), "", NULL, 0, 0, NULL,
	  "A file with the certificates to trust. Empty: those of the system." },
	{ "redis.tls.cert", OPTION_TEXT, F(redis_tls_cert), "", NULL, 0, 0, NULL,
	  "A file with the own certificate and its chain. Empty: none." },
	{ "redis.tls.key", OPTION_TEXT, F(redis_tls_key), "", NULL, 0, 0, NULL,
	  "A file with the key of redis.tls.cert." },
	{ "http.listen", OPTION_TEXT, F(http_listen), "", NULL, 0, 0, NULL,
	  "Health, metrics, look-ups and a status page: `127.0.0.1:PORT`, `[::1]:PORT`, another "
	  "address of this host, or `unix:/path`. Empty: none." },
	{ "http.values", OPTION_BOOL, F(http_values), "false", NULL, 0, 0, NULL,
	  "Tell keys and values on an address that other hosts reach, too. There is no "
	  "authentication." },
	{ "log.level", OPTION_ENUM, F(log_level), "info", NULL, 0, 0, option_log_levels,
	  "The least important messages to write." },
	{ "log.format", OPTION_ENUM, F(log_format), "text", NULL, 0, 0, option_log_formats,
	  "One message a line on stderr." },
#undef F
};

/* The three ways to librdkafka. */
static const struct option_group groups[] = {
	{ "kafka.", offsetof(struct config, kafka) },
	{ "consumer.", offsetof(struct config, consumer) },
	{ "producer.", offsetof(struct config, producer) },
};

static const struct option_table table = {
	options,   sizeof(options) / sizeof(*options), groups, sizeof(groups) / sizeof(*groups),
	"options",
};

int config_set(struct config *c, const char *name, const char *value, char *err, size_t err_len)
{
	return option_set(&table, c, name, value, err, err_len);
}

int config_file(struct config *c, const char *path, char *err, size_t err_len)
{
	return option_file(&table, c, path, err, err_len);
}

int config_environment(struct config *c, char *const *env, char *err, size_t err_len)
{
	return option_environment(&table, c, env, err, err_len);
}

int config_sources(struct config *c, int argc, char **argv, int *optind_out, char *err,
		   size_t err_len)
{
	return option_sources(&table, c, argc, argv, optind_out, err, err_len);
}

int config_args(struct config *c, int argc, char **argv, int *optind_out, char *err, size_t err_len)
{
	int rc = config_sources(c, argc, argv, optind_out, err, err_len);

	return rc ? rc : config_check(c, err, err_len);
}

void config_init(struct config *c)
{
	memset(c, 0, sizeof(*c));
	option_init(&table, c);
}

void config_free(struct config *c)
{
	option_free(&table, c);
	memset(c, 0, sizeof(*c));
}

/* ---- the whole ---- */

static int default_topic(struct config *c, char *err, size_t err_len)
{
	char *topic;

	if (asprintf(&topic, "%s.changes", c->source_topic) < 0)
		return refuse_memory(err, err_len);
	if (!option_is_topic(topic)) {
		free(topic);
		return refuse(
			err, err_len,
			"notifications.topic: <source.topic>.changes would be longer than the "
			"249 bytes of a topic's name: set another");
	}
	c->notifications_topic = topic;
	return 0;
}

static int check_http(const struct config *c, char *err, size_t err_len)
{
	struct http_listen l;

	return *c->http_listen ? http_listen_parse(&l, c->http_listen, err, err_len) : 0;
}

static int check_redis(struct config *c, char *err, size_t err_len)
{
	struct redis_uri u;
	char why[MESSAGE_MAX];

	if (!c->redis_prefix && asprintf(&c->redis_prefix, "%s:", c->source_topic) < 0) {
		c->redis_prefix = NULL;
		return refuse_memory(err, err_len);
	}
	if (!*c->redis_uri)
		return 0;
	if (redis_uri_parse(&u, c->redis_uri, why, sizeof(why)))
		return refuse(err, err_len, "redis.uri: %s", why);
	if (strlen(c->redis_prefix) > MARK_PREFIX_MAX)
		return refuse(err, err_len, "redis.prefix: has more than %d bytes",
			      MARK_PREFIX_MAX);
	if (!mark_prefix_allowed(c->redis_prefix))
		return refuse(
			err, err_len,
			"redis.prefix: '%s' and %s, under which the mirror keeps its positions, "
			"must not begin with one another",
			c->redis_prefix, MARK_KEYS);
	return 0;
}

static int check_compacted(const struct config *c, char *err, size_t err_len)
{
	const char *topic = c->compacted_topic;

	if (!*topic)
		return 0;
	if (!*c->notifications_topic)
		return refuse(err, err_len,
			      "notifications.compacted.topic: needs notifications.topic, which is "
			      "empty: a record is told as gone after it was told as overwritten");
	if (!strcmp(topic, c->source_topic) || !strcmp(topic, c->notifications_topic))
		return refuse(err, err_len,
			      "notifications.compacted.topic: is %s itself (%s): use a topic of "
			      "its own",
			      strcmp(topic, c->source_topic) ? "notifications.topic"
							     : "source.topic",
			      topic);
	return 0;
}

int config_check(struct config *c, char *err, size_t err_len)
{
	int rc = option_check_required(&table, c, err, err_len);

	if (!rc && !c->notifications_topic)
		rc = default_topic(c, err, err_len);
	if (!rc)
		rc = check_redis(c, err, err_len);
	if (!rc)
		rc = check_http(c, err, err_len);
	if (rc)
		return rc;
	if (!strcmp(c->notifications_topic, c->source_topic))
		return refuse(err, err_len,
			      "notifications.topic: is source.topic itself (%s): notifications "
			      "would be notified",
			      c->source_topic);
	if (!rc)
		rc = check_compacted(c, err, err_len);
	if (rc)
		return rc;
	if (c->notifications_format == NOTE_RAW && c->notifications_encoding == NOTE_BASE64)
		return refuse(err, err_len,
			      "notifications.encoding: base64 is for debezium-json; "
			      "notifications.format=raw carries the bytes as they are");
	return 0;
}

bool config_keeps_header(const struct config *c, const char *name, size_t name_len)
{
	const char *list = c->state_headers, *item;
	size_t len;

	if (!strcmp(list, "none"))
		return false;
	if (!strcmp(list, "all"))
		return true;
	while (option_next_item(&list, &item, &len))
		if (len == name_len && !memcmp(item, name, len))
			return true;
	return false;
}

/* ---- printing ---- */

void config_dump(const struct config *c, FILE *f) { option_dump(&table, c, f); }

static const char intro[] =
	"# Options\n"
	"\n"
	"Printed by `sidenote help options`; `make docs` refreshes this file.\n"
	"\n"
	"Each is a line `name=value` in a file (`-F FILE`, repeatable), a variable of the\n"
	"environment (`SIDENOTE_` and the name in upper case with `_` for `.`:\n"
	"`SIDENOTE_SOURCE_TOPIC`), or an argument (`-X name=value`). Files are read first, in\n"
	"their order, then the environment, then `-X`; the later wins. In a file, lines that\n"
	"begin with `#` are comments, white space around name and value is dropped, and a line\n"
	"ends where it ends. A name that is not known is an error, except that variables which\n"
	"Kubernetes makes for a service called `sidenote` (`SIDENOTE_SERVICE_HOST`,\n"
	"`SIDENOTE_PORT...`) are passed over. `sidenote check` prints what came of it all.\n"
	"\n";

void config_print(FILE *f)
{
	fputs(intro, f);
	option_print(&table, f);
	property_print(f);
}
