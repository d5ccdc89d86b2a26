#include "config.h"
#include "escape.h"
#include "log.h"
#include "mark.h"
#include "nearest.h"
#include "property.h"
#include "redis.h"
#include "refuse.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define KIB 1024LL
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

enum { MESSAGE_MAX = 512 };

enum type {
	TEXT,   /* printable */
	PATH,   /* not empty */
	NAME,   /* [a-zA-Z0-9._-] */
	TOPIC,  /* a name that Kafka accepts for a topic */
	NOTES,  /* a topic, or empty */
	LIST,   /* names separated by commas */
	INT,    /* whole number, min to max */
	SIZE,   /* the same in bytes, KiB, MiB, GiB */
	SIZE_0, /* the same or 0 */
	BOOL,   /* true, false */
	ENUM,   /* one of the words */
	FLAGS,  /* some of the words, separated by commas */
	LATER,  /* known, not in this version: must stay empty */
};

struct word {
	const char *text;
	int value;
};

static const struct word moved_words[] = {
	{ "stop", MOVED_STOP },
	{ "timestamp", MOVED_TIMESTAMP },
	{ 0 },
};
static const struct word operation_words[] = {
	{ "create", OPERATION_CREATE },
	{ "update", OPERATION_UPDATE },
	{ "delete", OPERATION_DELETE },
	{ 0 },
};
static const struct word format_words[] = {
	{ "debezium-json", NOTE_DEBEZIUM_JSON },
	{ "raw", NOTE_RAW },
	{ 0 },
};
static const struct word encoding_words[] = {
	{ "json", NOTE_JSON },
	{ "base64", NOTE_BASE64 },
	{ 0 },
};
static const struct word start_words[] = {
	{ "end", START_END },
	{ "beginning", START_BEGINNING },
	{ 0 },
};
static const struct word reconcile_words[] = {
	{ "auto", RECONCILE_AUTO },
	{ "always", RECONCILE_ALWAYS },
	{ "off", RECONCILE_OFF },
	{ 0 },
};
static const struct word level_words[] = {
	{ "error", LOG_LEVEL_ERROR },
	{ "warn", LOG_LEVEL_WARN },
	{ "info", LOG_LEVEL_INFO },
	{ "debug", LOG_LEVEL_DEBUG },
	{ 0 },
};
static const struct word log_format_words[] = {
	{ "text", LOG_TEXT },
	{ "json", LOG_JSON },
	{ 0 },
};

static const char REQUIRED[] = "required";

/*
 * The options, all of them.  To add one: a field in struct config, a row here,
 * `make docs`.  Units are part of the name (.ms, .bytes).
 */
static const struct option {
	const char *name;
	enum type type;
	size_t field;
	const char *def;   /* parsed like any other text; NULL: the field stays NULL ... */
	const char *unset; /* ... and this is what that means */
	int64_t min, max;  /* INT and SIZE, both allowed */
	const struct word *words;
	const char *help;
} options[] = {
#define F(f) offsetof(struct config, f)
	{ "name", NAME, F(name), NULL, REQUIRED, 1, 100, NULL,
	  "The pipeline. Group and transactional id are `sidenote.<name>`, client ids "
	  "`sidenote-<name>-<role>`. Sidecars of one name stand in for each other." },
	{ "cluster.name", TEXT, F(cluster_name), "", NULL, 0, 0, NULL,
	  "`db` in the envelope. Empty: the cluster id." },
	{ "source.topic", TOPIC, F(source_topic), NULL, REQUIRED, 0, 0, NULL,
	  "The compacted topic." },
	{ "source.moved", ENUM, F(source_moved), "stop", NULL, 0, 0, moved_words,
	  "A key that turns up in a second partition: stop, or keep the record of the later "
	  "timestamp (not exact)." },
	{ "source.expiring", BOOL, F(source_expiring), "false", NULL, 0, 0, NULL,
	  "Accept a topic with `cleanup.policy=compact,delete`. Keys whose record expired leave "
	  "the snapshot without a notification." },
	{ "state.dir", PATH, F(state_dir), NULL, REQUIRED, 0, 0, NULL,
	  "Directory of the shared state, on a local disk. Readers open `<state.dir>/current`." },
	{ "state.lease.ms", INT, F(state_lease_ms), "2000", NULL, 100, 60000, NULL,
	  "How long a reader may look at one snapshot. May only grow while a state exists." },
	{ "state.headers", LIST, F(state_headers), "none", NULL, 0, 0, NULL,
	  "Source headers to keep with a record: `none`, `all`, or names separated by commas." },
	{ "batch.records", INT, F(batch_records), "10000", NULL, 1, 1000000, NULL,
	  "The most records of one transaction of the state." },
	{ "batch.ms", INT, F(batch_ms), "100", NULL, 1, 10000, NULL,
	  "The longest time under load before a record is committed and visible. An idle source "
	  "is committed at once." },
	{ "sort.memory", SIZE, F(sort_memory), "256MiB", NULL, MIB, 1024 * GIB, NULL,
	  "Memory for sorting while the state is filled." },
	{ "journal.max.bytes", SIZE_0, F(journal_max_bytes), "0", NULL, MIB, 512 * GIB, NULL,
	  "Size of the journal beyond which reading the source waits for publishing. 0: 8GiB, or "
	  "a quarter of the free space if that is less." },
	{ "notifications.topic", NOTES, F(notifications_topic), NULL, "`<source.topic>.changes`", 0,
	  0, NULL, "Where notifications go. Empty: nowhere." },
	{ "notifications.create", BOOL, F(notifications_create), "false", NULL, 0, 0, NULL,
	  "Create the notification topic if it is missing, with the source's partition count, "
	  "instead of stopping with the command that would." },
	{ "notifications.operations", FLAGS, F(notifications_operations), "update,delete", NULL, 0,
	  0, operation_words,
	  "What is notified. With `create` the topic is a complete changelog." },
	{ "notifications.format", ENUM, F(notifications_format), "debezium-json", NULL, 0, 0,
	  format_words, "An envelope in JSON, or the new bytes with the old ones in a header." },
	{ "notifications.encoding", ENUM, F(notifications_encoding), "json", NULL, 0, 0,
	  encoding_words,
	  "How values stand in the envelope: as the JSON objects that they are, or as base64." },
	{ "notifications.start", ENUM, F(notifications_start), "end", NULL, 0, 0, start_words,
	  "On the very first start: notify from now on, or the whole topic." },
	{ "notifications.unchanged", BOOL, F(notifications_unchanged), "false", NULL, 0, 0, NULL,
	  "Also notify a rewrite of the same bytes." },
	{ "notifications.compacted.topic", LATER, 0, "", NULL, 0, 0, NULL, NULL },
	{ "reconcile", ENUM, F(reconcile), "auto", NULL, 0, 0, reconcile_words,
	  "Look for deletes that compaction has purged: when some may have been missed, once at "
	  "every start, or never." },
	{ "redis.uri", TEXT, F(redis_uri), "", NULL, 0, 0, NULL,
	  "A Redis to keep in step with the topic: `redis://HOST[:PORT][/DB]`, `rediss://` the "
	  "same "
	  "over TLS, `unix:/PATH[?db=DB]`. Empty: none." },
	{ "redis.prefix", TEXT, F(redis_prefix), NULL, "`<source.topic>:`", 0, 0, NULL,
	  "A key there is this and the key's bytes, its value the value's bytes. What begins so "
	  "and "
	  "is not in the topic is deleted." },
	{ "redis.adopt", BOOL, F(redis_adopt), "false", NULL, 0, 0, NULL,
	  "Take keys over that are under the prefix and not known to be this pipeline's." },
	{ "redis.user", TEXT, F(redis_user), "", NULL, 0, 0, NULL,
	  "The ACL user to log in as. Empty: the default user." },
	{ "redis.password.file", TEXT, F(redis_password_file), "", NULL, 0, 0, NULL,
	  "A file with the password, read at every connection. Empty: no login." },
	{ "redis.tls.ca", TEXT, F(redis_tls_ca), "", NULL, 0, 0, NULL,
	  "A file with the certificates to trust. Empty: those of the system." },
	{ "redis.tls.cert", TEXT, F(redis_tls_cert), "", NULL, 0, 0, NULL,
	  "A file with the own certificate and its chain. Empty: none." },
	{ "redis.tls.key", TEXT, F(redis_tls_key), "", NULL, 0, 0, NULL,
	  "A file with the key of redis.tls.cert." },
	{ "http.listen", LATER, 0, "", NULL, 0, 0, NULL, NULL },
	{ "log.level", ENUM, F(log_level), "info", NULL, 0, 0, level_words,
	  "The least important messages to write." },
	{ "log.format", ENUM, F(log_format), "text", NULL, 0, 0, log_format_words,
	  "One message a line on stderr." },
#undef F
};
#define N_OPTIONS (sizeof(options) / sizeof(*options))

/* The three ways to librdkafka. */
static const struct group {
	const char *prefix;
	size_t field;
} groups[] = {
	{ "kafka.", offsetof(struct config, kafka) },
	{ "consumer.", offsetof(struct config, consumer) },
	{ "producer.", offsetof(struct config, producer) },
};
#define N_GROUPS (sizeof(groups) / sizeof(*groups))

/* The next of names separated by commas: 1 and *item without white space, or 0 at the end. */
static int next_item(const char **list, const char **item, size_t *len)
{
	const char *s = *list;

	if (!s)
		return 0;
	size_t n = strcspn(s, ",");
	*list = s[n] ? s + n + 1 : NULL;
	while (n && isspace((unsigned char)*s)) {
		s++;
		n--;
	}
	while (n && isspace((unsigned char)s[n - 1]))
		n--;
	*item = s;
	*len = n;
	return 1;
}

/* ---- values ---- */

static void *field_of(const struct config *c, const struct option *o)
{
	return (char *)c + o->field;
}

static bool is_text(enum type t)
{
	return t == TEXT || t == PATH || t == NAME || t == TOPIC || t == NOTES || t == LIST;
}

static const struct word *find_word(const struct option *o, const char *text, size_t len)
{
	for (const struct word *w = o->words; w->text; w++)
		if (strlen(w->text) == len && !memcmp(w->text, text, len))
			return w;
	return NULL;
}

static const char *word_list(const struct option *o, char *out, size_t len)
{
	size_t n = 0;

	for (const struct word *w = o->words; w->text && n < len; w++)
		n += snprintf(out + n, len - n, "%s%s", n ? ", " : "", w->text);
	return out;
}

static const char *size_text(int64_t n, char *out, size_t len)
{
	if (n && n % GIB == 0)
		snprintf(out, len, "%lldGiB", n / GIB);
	else if (n && n % MIB == 0)
		snprintf(out, len, "%lldMiB", n / MIB);
	else if (n && n % KIB == 0)
		snprintf(out, len, "%lldKiB", n / KIB);
	else
		snprintf(out, len, "%lld", (long long)n);
	return out;
}

/* Digits alone: no sign, no space, no other base.  *end is what follows them. */
static bool parse_digits(const char *text, int64_t *out, const char **end)
{
	int64_t n = 0;

	if (!isdigit((unsigned char)*text))
		return false;
	for (; isdigit((unsigned char)*text); text++)
		if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *text - '0', &n))
			return false;
	*out = n;
	*end = text;
	return true;
}

static int parse_int(const struct option *o, int64_t *out, const char *value, char *err,
		     size_t err_len)
{
	const char *end;
	int64_t n;

	if (!parse_digits(value, &n, &end) || *end || n < o->min || n > o->max)
		return refuse(err, err_len, "%s: '%s' is not a whole number from %lld to %lld",
			      o->name, value, (long long)o->min, (long long)o->max);
	*out = n;
	return 0;
}

static bool parse_unit(const char *unit, int64_t *out)
{
	static const struct {
		const char *text;
		int64_t bytes;
	} units[] = { { "", 1 }, { "KiB", KIB }, { "MiB", MIB }, { "GiB", GIB } };

	for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
		if (!strcmp(unit, units[i].text)) {
			*out = units[i].bytes;
			return true;
		}
	return false;
}

static int parse_size(const struct option *o, int64_t *out, const char *value, char *err,
		      size_t err_len)
{
	char lo[32], hi[32];
	const char *unit;
	int64_t n, bytes;
	bool ok = parse_digits(value, &n, &unit) && parse_unit(unit, &bytes) &&
		  !__builtin_mul_overflow(n, bytes, &n) &&
		  ((n >= o->min && n <= o->max) || (n == 0 && o->type == SIZE_0));

	if (!ok)
		return refuse(err, err_len,
			      "%s: '%s' is not a size from %s to %s%s: "
			      "a whole number of bytes, or of KiB, MiB or GiB",
			      o->name, value, size_text(o->min, lo, sizeof(lo)),
			      size_text(o->max, hi, sizeof(hi)), o->type == SIZE_0 ? ", or 0" : "");
	*out = n;
	return 0;
}

static int parse_bool(const struct option *o, bool *out, const char *value, char *err,
		      size_t err_len)
{
	if (strcmp(value, "true") && strcmp(value, "false"))
		return refuse(err, err_len, "%s: '%s' is neither true nor false", o->name, value);
	*out = *value == 't';
	return 0;
}

static int parse_enum(const struct option *o, int *out, const char *value, char *err,
		      size_t err_len)
{
	const struct word *w = find_word(o, value, strlen(value));
	char list[128];

	if (!w)
		return refuse(err, err_len, "%s: '%s' is none of %s", o->name, value,
			      word_list(o, list, sizeof(list)));
	*out = w->value;
	return 0;
}

static int parse_flags(const struct option *o, int *out, const char *value, char *err,
		       size_t err_len)
{
	const char *rest = value, *item;
	char list[128];
	size_t len;
	int flags = 0;

	while (next_item(&rest, &item, &len)) {
		const struct word *w = find_word(o, item, len);

		if (!w)
			return refuse(err, err_len,
				      "%s: '%.*s' is none of %s (separate several by commas)",
				      o->name, (int)len, item, word_list(o, list, sizeof(list)));
		flags |= w->value;
	}
	*out = flags;
	return 0;
}

static bool is_name(const char *s, size_t max)
{
	size_t len = strlen(s);

	return len && len <= max &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
		       len;
}

static bool is_topic(const char *s) { return is_name(s, 249) && strcmp(s, ".") && strcmp(s, ".."); }

static bool is_printable(const char *s)
{
	for (size_t left = strlen(s), n; left; left -= n, s += n)
		if (!(n = escape_printable(s, left)))
			return false;
	return true;
}

static bool is_list(const char *list)
{
	const char *item;
	size_t len;

	while (next_item(&list, &item, &len))
		if (!len)
			return false;
	return true;
}

static int check_text(const struct option *o, const char *value, char *err, size_t err_len)
{
	switch (o->type) {
	case NAME:
		if (!is_name(value, o->max))
			return refuse(err, err_len,
				      "%s: '%s' is not 1 to %lld of a-z A-Z 0-9 . _ -", o->name,
				      value, (long long)o->max);
		return 0;
	case NOTES:
		if (!*value)
			return 0;
		/* fall through */
	case TOPIC:
		if (!is_topic(value))
			return refuse(err, err_len,
				      "%s: '%s' is not the name of a topic: 1 to 249 of "
				      "a-z A-Z 0-9 . _ -",
				      o->name, value);
		return 0;
	case LIST:
		if (!is_list(value))
			return refuse(err, err_len,
				      "%s: '%s' has an empty name: none, all, or names separated "
				      "by commas",
				      o->name, value);
		return 0;
	case PATH:
		return *value ? 0 : refuse(err, err_len, "%s: is empty: a path is needed", o->name);
	default:
		return is_printable(value)
			       ? 0
			       : refuse(err, err_len, "%s: is not printable text", o->name);
	}
}

static int parse_text(const struct option *o, char **out, const char *value, char *err,
		      size_t err_len)
{
	int rc = check_text(o, value, err, err_len);
	char *copy;

	if (rc)
		return rc;
	if (!(copy = strdup(value)))
		return refuse_memory(err, err_len);
	free(*out);
	*out = copy;
	return 0;
}

static int parse(struct config *c, const struct option *o, const char *value, char *err,
		 size_t err_len)
{
	void *field = field_of(c, o);

	switch (o->type) {
	case INT:
		return parse_int(o, field, value, err, err_len);
	case SIZE:
	case SIZE_0:
		return parse_size(o, field, value, err, err_len);
	case BOOL:
		return parse_bool(o, field, value, err, err_len);
	case ENUM:
		return parse_enum(o, field, value, err, err_len);
	case FLAGS:
		return parse_flags(o, field, value, err, err_len);
	case LATER:
		return *value ? refuse(err, err_len,
				       "%s: not in this version of sidenote; leave it empty",
				       o->name)
			      : 0;
	default:
		return parse_text(o, field, value, err, err_len);
	}
}

/* ---- one way in ---- */

static struct config_pairs *pairs_of(const struct config *c, const struct group *g)
{
	return (struct config_pairs *)((char *)c + g->field);
}

static const struct group *find_group(const char *name)
{
	for (size_t i = 0; i < N_GROUPS; i++)
		if (!strncmp(name, groups[i].prefix, strlen(groups[i].prefix)))
			return &groups[i];
	return NULL;
}

static int refuse_unknown(const char *name, char *err, size_t err_len)
{
	struct nearest n;

	nearest_begin(&n, name);
	for (size_t i = 0; i < N_OPTIONS; i++)
		nearest_try(&n, options[i].name);
	nearest_try(&n, "kafka.bootstrap.servers");
	if (n.best)
		return refuse(err, err_len, "%s: no such option; did you mean %s?", name, n.best);
	return refuse(err, err_len,
		      "%s: no such option; `sidenote help options` has them all (librdkafka's are "
		      "kafka.<property>)",
		      name);
}

int config_set(struct config *c, const char *name, const char *value, char *err, size_t err_len)
{
	const struct group *g = find_group(name);

	if (g)
		return property_set(pairs_of(c, g), g->prefix, name + strlen(g->prefix), value, err,
				    err_len);
	for (size_t i = 0; i < N_OPTIONS; i++)
		if (!strcmp(name, options[i].name))
			return parse(c, &options[i], value, err, err_len);
	return refuse_unknown(name, err, err_len);
}

void config_init(struct config *c)
{
	char err[MESSAGE_MAX];

	memset(c, 0, sizeof(*c));
	for (size_t i = 0; i < N_OPTIONS; i++)
		if (options[i].def && parse(c, &options[i], options[i].def, err, sizeof(err)))
			abort(); /* out of memory, or a row of the table contradicts itself */
}

void config_free(struct config *c)
{
	for (size_t i = 0; i < N_OPTIONS; i++)
		if (is_text(options[i].type))
			free(*(char **)field_of(c, &options[i]));
	for (size_t g = 0; g < N_GROUPS; g++)
		property_free(pairs_of(c, &groups[g]));
	memset(c, 0, sizeof(*c));
}

/* ---- the whole ---- */

static int check_required(const struct config *c, char *err, size_t err_len)
{
	char missing[MESSAGE_MAX] = "";
	size_t n = 0;

	for (size_t i = 0; i < N_OPTIONS; i++)
		if (options[i].unset == REQUIRED && !*(char **)field_of(c, &options[i]))
			n += snprintf(missing + n, sizeof(missing) - n, "%s%s", n ? ", " : "",
				      options[i].name);
	if (!property_get(&c->kafka, "bootstrap.servers"))
		n += snprintf(missing + n, sizeof(missing) - n, "%skafka.bootstrap.servers",
			      n ? ", " : "");
	if (n)
		return refuse(
			err, err_len,
			"not set: %s (name=value in a file given with -F, SIDENOTE_NAME=value "
			"in the environment, or -X name=value)",
			missing);
	return 0;
}

static int default_topic(struct config *c, char *err, size_t err_len)
{
	char *topic;

	if (asprintf(&topic, "%s.changes", c->source_topic) < 0)
		return refuse_memory(err, err_len);
	if (!is_topic(topic)) {
		free(topic);
		return refuse(
			err, err_len,
			"notifications.topic: <source.topic>.changes would be longer than the "
			"249 bytes of a topic's name: set another");
	}
	c->notifications_topic = topic;
	return 0;
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

int config_check(struct config *c, char *err, size_t err_len)
{
	int rc = check_required(c, err, err_len);

	if (!rc && !c->notifications_topic)
		rc = default_topic(c, err, err_len);
	if (!rc)
		rc = check_redis(c, err, err_len);
	if (rc)
		return rc;
	if (!strcmp(c->notifications_topic, c->source_topic))
		return refuse(err, err_len,
			      "notifications.topic: is source.topic itself (%s): notifications "
			      "would be notified",
			      c->source_topic);
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
	while (next_item(&list, &item, &len))
		if (len == name_len && !memcmp(item, name, len))
			return true;
	return false;
}

/* ---- printing ---- */

static void print_words(const struct option *o, int value, FILE *f)
{
	const char *comma = "";

	for (const struct word *w = o->words; w->text; w++) {
		bool set = o->type == FLAGS ? value & w->value : value == w->value;

		if (set) {
			fprintf(f, "%s%s", comma, w->text);
			comma = ",";
		}
	}
}

static void print_text(const char *text, FILE *f)
{
	char *printable = escape_key(text, strlen(text));

	fputs(printable ? printable : "?", f);
	free(printable);
}

static void print_value(const struct config *c, const struct option *o, FILE *f)
{
	const void *field = field_of(c, o);
	char text[32];

	switch (o->type) {
	case INT:
		fprintf(f, "%lld", (long long)*(int64_t *)field);
		break;
	case SIZE:
	case SIZE_0:
		fputs(size_text(*(int64_t *)field, text, sizeof(text)), f);
		break;
	case BOOL:
		fputs(*(bool *)field ? "true" : "false", f);
		break;
	case ENUM:
	case FLAGS:
		print_words(o, *(int *)field, f);
		break;
	default:
		if (*(char **)field)
			print_text(*(char **)field, f);
	}
}

void config_dump(const struct config *c, FILE *f)
{
	for (size_t i = 0; i < N_OPTIONS; i++) {
		if (options[i].type == LATER)
			continue;
		fprintf(f, "%s=", options[i].name);
		print_value(c, &options[i], f);
		fputc('\n', f);
	}
	for (size_t g = 0; g < N_GROUPS; g++) {
		const struct config_pairs *pairs = pairs_of(c, &groups[g]);

		for (size_t i = 0; i < pairs->n; i++) {
			fprintf(f, "%s%s=", groups[g].prefix, pairs->v[i].key);
			print_text(pairs->v[i].secret ? "********" : pairs->v[i].value, f);
			fputc('\n', f);
		}
	}
}

static void print_default(const struct option *o, FILE *f)
{
	if (!o->def)
		fputs(o->unset, f);
	else if (!*o->def)
		fputs("empty", f);
	else
		fprintf(f, "`%s`", o->def);
}

static void print_accepted(const struct option *o, FILE *f)
{
	char lo[32], hi[32];
	const char *comma = "";

	switch (o->type) {
	case INT:
		fprintf(f, "%lld to %lld", (long long)o->min, (long long)o->max);
		break;
	case SIZE:
	case SIZE_0:
		fprintf(f, "%s%s to %s", o->type == SIZE_0 ? "0, " : "",
			size_text(o->min, lo, sizeof(lo)), size_text(o->max, hi, sizeof(hi)));
		break;
	case BOOL:
		fputs("`true`, `false`", f);
		break;
	case ENUM:
	case FLAGS:
		fputs(o->type == FLAGS ? "some of " : "", f);
		for (const struct word *w = o->words; w->text; w++, comma = ", ")
			fprintf(f, "%s`%s`", comma, w->text);
		break;
	case NAME:
		fputs("`a-z A-Z 0-9 . _ -`", f);
		break;
	case TOPIC:
	case NOTES:
		fputs("a topic", f);
		break;
	case PATH:
		fputs("a directory", f);
		break;
	default:
		fputs("text", f);
	}
}

static void print_options(FILE *f)
{
	fputs("| option | default | accepted | meaning |\n|---|---|---|---|\n", f);
	for (size_t i = 0; i < N_OPTIONS; i++) {
		const struct option *o = &options[i];

		if (o->type == LATER)
			continue;
		fprintf(f, "| `%s` | ", o->name);
		print_default(o, f);
		fputs(" | ", f);
		print_accepted(o, f);
		fprintf(f, " | %s |\n", o->help);
	}
	fputs("\nKnown, but not in this version, and to be left empty:", f);
	for (size_t i = 0, n = 0; i < N_OPTIONS; i++)
		if (options[i].type == LATER)
			fprintf(f, "%s `%s`", n++ ? "," : "", options[i].name);
	fputs(".\n", f);
}

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
	print_options(f);
	property_print(f);
}
