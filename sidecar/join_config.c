#include "join_config.h"
#include "option.h"
#include "refuse.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INSTANCE_MAX = 100 };

static const struct option_word type_words[] = {
	{ "inner", JOIN_INNER },
	{ "left", JOIN_LEFT },
	{ 0 },
};
static const struct option_word start_words[] = {
	{ "end", START_END },
	{ "beginning", START_BEGINNING },
	{ 0 },
};
static const struct option_word wait_words[] = {
	{ "none", WAIT_NONE },
	{ "token", WAIT_TOKEN },
	{ "time", WAIT_TIME },
	{ 0 },
};

static const struct option_row rows[] = {
#define F(f) offsetof(struct join_config, f)
	{ "join.name", OPTION_NAME, F(name), NULL, option_required, 1, 100, NULL,
	  "The join. Its group is `sidenote-join.<name>`, transactional ids are "
	  "`sidenote-join.<name>/<instance>`. Instances of one name share the stream's "
	  "partitions." },
	{ "join.instance.id", OPTION_NAME, F(instance_id), NULL, "the host name", 1, INSTANCE_MAX,
	  NULL,
	  "This instance among those of one name. No two that run may have the same; a restarted "
	  "one should have its own again, so that it ends at once what it had left open." },
	{ "join.stream.topic", OPTION_TOPIC, F(stream_topic), NULL, option_required, 0, 0, NULL,
	  "The topic whose records are joined." },
	{ "join.output.topic", OPTION_TOPIC, F(output_topic), NULL, option_required, 0, 0, NULL,
	  "Where results go." },
	{ "join.output.create", OPTION_BOOL, F(output_create), "false", NULL, 0, 0, NULL,
	  "Create the output topic if it is missing, with the stream's partition count, instead "
	  "of stopping with the command that would." },
	{ "join.type", OPTION_ENUM, F(type), "inner", NULL, 0, 0, type_words,
	  "A stream record whose key is not in the table has no result, or one with a table "
	  "record of null." },
	{ "join.key", OPTION_TEXT, F(key), "key", NULL, 0, 0, NULL,
	  "What to look up: the record's `key`, or `field:PATH` of its JSON value "
	  "(`field:customer.id`)." },
	{ "join.start", OPTION_ENUM, F(start), "end", NULL, 0, 0, start_words,
	  "On the very first start: join from now on, or the whole stream." },
	{ "join.wait", OPTION_ENUM, F(wait), "none", NULL, 0, 0, wait_words,
	  "Wait until the table has reached the token, or the time, that the stream record "
	  "names." },
	{ "join.wait.from", OPTION_TEXT, F(wait_from), NULL, "`timestamp` for a time", 0, 0, NULL,
	  "Where the record names it: `header:NAME`, `field:PATH`, or, for a time, its "
	  "`timestamp`. A time is a number of ms since 1970." },
	{ "join.wait.ms", OPTION_INT, F(wait_ms), "1000", NULL, 1, 10000, NULL,
	  "The longest wait. Then the record is joined with the table as it is, and the result "
	  "says so." },
	{ "join.batch.records", OPTION_INT, F(batch_records), "10000", NULL, 1, 100000, NULL,
	  "The most stream records of one transaction." },
	{ "join.batch.ms", OPTION_INT, F(batch_ms), "100", NULL, 1, 10000, NULL,
	  "The longest time under load to collect them. An idle stream is joined at once." },
	{ "state.dir", OPTION_PATH, F(state_dir), NULL, option_required, 0, 0, NULL,
	  "The table: the `state.dir` of a sidecar, as it is mounted here. Read only." },
	{ "log.level", OPTION_ENUM, F(log_level), "info", NULL, 0, 0, option_log_levels,
	  "The least important messages to write." },
	{ "log.format", OPTION_ENUM, F(log_format), "text", NULL, 0, 0, option_log_formats,
	  "One message a line on stderr." },
#undef F
};

static const struct option_group groups[] = {
	{ "kafka.", offsetof(struct join_config, kafka) },
	{ "consumer.", offsetof(struct join_config, consumer) },
	{ "producer.", offsetof(struct join_config, producer) },
};

static const struct option_table table = {
	rows,           sizeof(rows) / sizeof(*rows), groups, sizeof(groups) / sizeof(*groups),
	"join-options",
};

void join_config_init(struct join_config *c)
{
	memset(c, 0, sizeof(*c));
	option_init(&table, c);
}

void join_config_free(struct join_config *c)
{
	option_free(&table, c);
	memset(c, 0, sizeof(*c));
}

int join_config_set(struct join_config *c, const char *name, const char *value, char *err,
		    size_t err_len)
{
	return option_set(&table, c, name, value, err, err_len);
}

int join_config_args(struct join_config *c, int argc, char **argv, int *optind_out, char *err,
		     size_t err_len)
{
	int rc = option_sources(&table, c, argc, argv, optind_out, err, err_len);

	return rc ? rc : join_config_check(c, err, err_len);
}

/* ---- the whole ---- */

static bool is_path(const char *path)
{
	return *path && *path != '.' && path[strlen(path) - 1] != '.' && !strstr(path, "..");
}

static bool parse_place(struct place *p, const char *text)
{
	if (!strcmp(text, "key") || !strcmp(text, "timestamp")) {
		p->kind = *text == 'k' ? PLACE_KEY : PLACE_TIMESTAMP;
		p->name = NULL;
		return true;
	}
	if (!strncmp(text, "header:", 7)) {
		p->kind = PLACE_HEADER;
		p->name = text + 7;
		return *p->name;
	}
	p->kind = PLACE_FIELD;
	p->name = text + 6;
	return !strncmp(text, "field:", 6) && is_path(p->name);
}

/* Host names have no other bytes, but nothing keeps a kernel's from it. */
static int take_host_name(struct join_config *c, char *err, size_t err_len)
{
	char host[INSTANCE_MAX + 1];

	if (gethostname(host, sizeof(host) - 1))
		return refuse(err, err_len, "join.instance.id: the host has no name: %s",
			      strerror(errno));
	host[sizeof(host) - 1] = '\0';
	for (char *s = host; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("._-", *s))
			*s = '-';
	return join_config_set(c, "join.instance.id", host, err, err_len);
}

static int check_wait(struct join_config *c, char *err, size_t err_len)
{
	const char *from = c->wait_from ? c->wait_from : "timestamp";
	struct place *p = &c->wait_place;

	if (!parse_place(p, from) || p->kind == PLACE_KEY)
		return refuse(err, err_len,
			      "join.wait.from: '%s' is none of header:NAME, field:PATH, timestamp",
			      from);
	if (c->wait == WAIT_TOKEN && p->kind == PLACE_TIMESTAMP)
		return refuse(err, err_len,
			      "join.wait.from: join.wait=token needs header:NAME or field:PATH");
	if (c->wait == WAIT_NONE && c->wait_from)
		return refuse(err, err_len,
			      "join.wait.from: is set, but join.wait is none: token or time?");
	return 0;
}

int join_config_check(struct join_config *c, char *err, size_t err_len)
{
	int rc = option_check_required(&table, c, err, err_len);

	if (!rc && !c->instance_id)
		rc = take_host_name(c, err, err_len);
	if (rc)
		return rc;
	if (!strcmp(c->stream_topic, c->output_topic))
		return refuse(err, err_len,
			      "join.output.topic: is join.stream.topic itself (%s): results would "
			      "be joined",
			      c->stream_topic);
	if (!parse_place(&c->key_place, c->key) ||
	    (c->key_place.kind != PLACE_KEY && c->key_place.kind != PLACE_FIELD))
		return refuse(err, err_len, "join.key: '%s' is neither key nor field:PATH", c->key);
	return check_wait(c, err, err_len);
}

/* ---- printing ---- */

static const char intro[] =
	"# Options of the join\n"
	"\n"
	"Printed by `sidenote help join-options`; `make docs` refreshes this file.\n"
	"\n"
	"`sidenote join` has options of its own and needs nothing of a sidecar's file but the\n"
	"directory. They are given in the same ways as [those of the sidecar](options.md): files,\n"
	"`SIDENOTE_*` variables (`SIDENOTE_JOIN_STREAM_TOPIC`), `-X name=value`; the later wins.\n"
	"\n";

static const char outro[] =
	"\n"
	"`kafka.<property>`, `consumer.<property>` and `producer.<property>` are librdkafka's, "
	"with\n"
	"the same exceptions and the same rules for secrets as there; `kafka.bootstrap.servers` "
	"is\n"
	"required. In that list, group, transactional id and client ids are the join's own:\n"
	"`sidenote-join.<name>`, `sidenote-join.<name>/<instance>`,\n"
	"`sidenote-join-<name>-<instance>-<role>`.\n";

void join_config_print(FILE *f)
{
	fputs(intro, f);
	option_print(&table, f);
	fputs(outro, f);
}

void join_config_dump(const struct join_config *c, FILE *f) { option_dump(&table, c, f); }
