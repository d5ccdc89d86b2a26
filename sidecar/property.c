#include "property.h"
#include "refuse.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { VALUE_FILE_MAX = 1024 * 1024 }; /* bytes; a chain of certificates has thousands */

/*
 * Properties of librdkafka that exactness owns.  Asking for the value that
 * sidenote uses anyway is fine; any other is an error, and `why` is its text.
 */
static const struct owned {
	const char *property;
	const char *value; /* NULL: cannot be asked for at all */
	const char *why;
} owned[] = {
	{ "acks", "all", "what one broker loses must not be lost" },
	{ "allow.auto.create.topics", "false", "a mistyped source.topic would become a topic" },
	{ "auto.commit.enable", "false", "offsets are committed in the publishing transaction" },
	{ "auto.offset.reset", "error", "a lost position is reported, never guessed" },
	{ "batch.size", NULL, "it follows max.message.bytes of the notification topic" },
	{ "check.crcs", "true", "a record that the network changed would be stored" },
	{ "client.id", NULL, "it is sidenote-<name>-<role>" },
	{ "delivery.timeout.ms", NULL, "it belongs to the time budget of a transaction" },
	{ "enable.auto.commit", "false", "offsets are committed in the publishing transaction" },
	{ "enable.auto.offset.store", "false", "positions are kept with the records" },
	{ "enable.idempotence", "true", "publishing is transactional" },
	{ "enable.partition.eof", "true", "being caught up is an end-of-partition event" },
	{ "enabled_events", NULL, "it decides how the program hears from librdkafka" },
	{ "group.id", NULL, "it is sidenote.<name>, the fence between sidecars of one name" },
	{ "group.instance.id", NULL, "a static member keeps leading after it died" },
	{ "group.protocol", "classic", "leadership is an eagerly assigned classic group" },
	{ "isolation.level", "read_committed", "an aborted record is not in the topic" },
	{ "max.in.flight", "5", "more than five would lose the order" },
	{ "max.in.flight.requests.per.connection", "5", "more than five would lose the order" },
	{ "max.poll.interval.ms", "15000", "a leader that hangs must be replaced in bounded time" },
	{ "message.max.bytes", NULL, "it follows max.message.bytes of the notification topic" },
	{ "message.timeout.ms", NULL, "it belongs to the time budget of a transaction" },
	{ "metadata.broker.list", NULL, "an alias: say kafka.bootstrap.servers" },
	{ "partition.assignment.strategy", "range", "the owner of partition 0 leads" },
	{ "partitioner", "murmur2",
	  "a notification goes to its source's partition, or where Java's clients put its key" },
	{ "request.required.acks", "all", "what one broker loses must not be lost" },
	{ "test.mock.num.brokers", NULL,
	  "the mock forgets transactions: exactly once needs real brokers" },
	{ "transaction.timeout.ms", NULL, "it belongs to the time budget of a transaction" },
	{ "transactional.id", NULL, "it is sidenote.<name>, the fence between publishers" },
};
#define N_OWNED (sizeof(owned) / sizeof(*owned))

/* Any of these in a property's name makes its value a secret. */
static const char *const secret_parts[] = {
	"password", "secret", "passphrase", "key.pem", "oauthbearer.config",
};
#define N_SECRET_PARTS (sizeof(secret_parts) / sizeof(*secret_parts))

static bool ends_with(const char *s, const char *suffix)
{
	size_t ls = strlen(s), lx = strlen(suffix);

	return ls >= lx && !strcmp(s + ls - lx, suffix);
}

/*
 * Whether a property is given as the name of the file that holds its value.
 * Three of librdkafka's own end in .file: it reads those itself, again and again.
 */
static bool is_in_file(const char *property)
{
	return ends_with(property, ".file") && !ends_with(property, "oauthbearer.assertion.file") &&
	       !ends_with(property, "oauthbearer.assertion.private.key.file") &&
	       !ends_with(property, "oauthbearer.assertion.jwt.template.file");
}

bool property_is_secret(const char *name)
{
	for (size_t i = 0; i < N_SECRET_PARTS; i++)
		if (strstr(name, secret_parts[i]))
			return !is_in_file(name);
	return false;
}

static void pair_free(struct config_pair *p)
{
	free(p->key);
	free(p->value);
}

/* The later wins, and goes to the end: librdkafka has aliases, and the order is ours to keep. */
static void drop(struct config_pairs *pairs, const char *key)
{
	for (size_t i = 0; i < pairs->n; i++)
		if (!strcmp(pairs->v[i].key, key)) {
			pair_free(&pairs->v[i]);
			memmove(&pairs->v[i], &pairs->v[i + 1],
				(--pairs->n - i) * sizeof(*pairs->v));
			return;
		}
}

static int put(struct config_pairs *pairs, const char *key, const char *value)
{
	struct config_pair *grown = realloc(pairs->v, (pairs->n + 1) * sizeof(*grown));
	struct config_pair new = { strdup(key), strdup(value), property_is_secret(key) };

	if (grown)
		pairs->v = grown;
	if (!grown || !new.key || !new.value) {
		pair_free(&new);
		return -ENOMEM;
	}
	drop(pairs, key);
	pairs->v[pairs->n++] = new;
	return 0;
}

const char *property_get(const struct config_pairs *pairs, const char *property)
{
	for (size_t i = 0; i < pairs->n; i++)
		if (!strcmp(pairs->v[i].key, property))
			return pairs->v[i].value;
	return NULL;
}

void property_free(struct config_pairs *pairs)
{
	for (size_t i = 0; i < pairs->n; i++)
		pair_free(&pairs->v[i]);
	free(pairs->v);
	*pairs = (struct config_pairs){ 0 };
}

static const struct owned *find_owned(const char *property)
{
	for (size_t i = 0; i < N_OWNED; i++)
		if (!strcmp(property, owned[i].property))
			return &owned[i];
	return NULL;
}

static int set_value(struct config_pairs *pairs, const char *prefix, const char *property,
		     const char *value, char *err, size_t err_len)
{
	const struct owned *o = find_owned(property);

	if (!*property)
		return refuse(err, err_len, "%s: a property of librdkafka is missing after the dot",
			      prefix);
	if (o && o->value && !strcmp(o->value, value))
		return 0;
	if (o && o->value)
		return refuse(err, err_len, "%s%s: '%s' is not possible, it is always %s: %s",
			      prefix, property, value, o->value, o->why);
	if (o)
		return refuse(err, err_len, "%s%s: cannot be set: %s", prefix, property, o->why);
	return put(pairs, property, value) ? refuse_memory(err, err_len) : 0;
}

/* ---- values in files ---- */

static bool is_under(const char *path, const char *dir)
{
	char *real = dir ? realpath(dir, NULL) : NULL;
	bool under = real && !strncmp(path, real, strlen(real)) && path[strlen(real)] == '/';

	free(real);
	return under;
}

/* Where the container or service manager alone decides who may read. */
static bool is_in_secret_place(const char *path)
{
	char *real = realpath(path, NULL);
	bool yes = real && (is_under(real, "/run/secrets") ||
			    is_under(real, getenv("CREDENTIALS_DIRECTORY")));

	free(real);
	return yes;
}

static int check_value_file(const char *path, const char *property, const struct stat *st,
			    char *err, size_t err_len)
{
	if (!S_ISREG(st->st_mode))
		return refuse(err, err_len, "%s is not a regular file", path);
	if (st->st_size > VALUE_FILE_MAX)
		return refuse(err, err_len, "%s has %lld bytes, more than %d", path,
			      (long long)st->st_size, VALUE_FILE_MAX);
	if (property_is_secret(property) && st->st_mode & (S_IRGRP | S_IROTH) &&
	    !is_in_secret_place(path))
		return refuse(err, err_len,
			      "%s is readable by others (mode %04o): chmod 600, or keep it under "
			      "/run/secrets or $CREDENTIALS_DIRECTORY",
			      path, (unsigned)st->st_mode & 07777);
	return 0;
}

/* One newline at the end is the editor's, not the secret's. */
static int check_value(const char *path, char *value, size_t len, char *err, size_t err_len)
{
	if (len && value[len - 1] == '\n')
		value[--len] = '\0';
	if (len && value[len - 1] == '\r')
		value[--len] = '\0';
	if (!len)
		return refuse(err, err_len, "%s is empty", path);
	if (strlen(value) != len)
		return refuse(err, err_len, "%s has a NUL byte", path);
	return 0;
}

static int read_value(FILE *f, const char *path, char **out, char *err, size_t err_len)
{
	char *value = malloc(VALUE_FILE_MAX + 2);
	size_t len;
	int rc;

	if (!value)
		return refuse_memory(err, err_len);
	len = fread(value, 1, VALUE_FILE_MAX + 1, f);
	value[len] = '\0';
	if (ferror(f))
		rc = refuse(err, err_len, "%s: %s", path, strerror(errno));
	else if (len > VALUE_FILE_MAX)
		rc = refuse(err, err_len, "%s has more than %d bytes", path, VALUE_FILE_MAX);
	else
		rc = check_value(path, value, len, err, err_len);
	if (rc) {
		explicit_bzero(value, len);
		free(value);
		return rc;
	}
	*out = value;
	return 0;
}

static int open_value(FILE **out, const char *path, const char *property, char *err, size_t err_len)
{
	/* O_NONBLOCK: a FIFO must be refused, not waited for */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	int rc;

	if (fd < 0 || fstat(fd, &st))
		rc = refuse(err, err_len, "%s: %s", path, strerror(errno));
	else
		rc = check_value_file(path, property, &st, err, err_len);
	if (!rc && !(*out = fdopen(fd, "r")))
		rc = refuse_memory(err, err_len);
	if (rc && fd >= 0)
		close(fd);
	return rc;
}

static int set_from_file(struct config_pairs *pairs, const char *prefix, const char *name,
			 const char *path, char *err, size_t err_len)
{
	char *property = strndup(name, strlen(name) - strlen(".file")), *value = NULL;
	char why[512] = "out of memory";
	FILE *f = NULL;
	int rc = -ENOMEM;

	if (property)
		rc = open_value(&f, path, property, why, sizeof(why));
	if (!rc)
		rc = read_value(f, path, &value, why, sizeof(why));
	if (rc)
		snprintf(err, err_len, "%s%s: %s", prefix, name, why);
	else
		rc = set_value(pairs, prefix, property, value, err, err_len);
	if (f)
		fclose(f);
	if (value)
		explicit_bzero(value, strlen(value));
	free(value);
	free(property);
	return rc;
}

int property_set(struct config_pairs *pairs, const char *prefix, const char *property,
		 const char *value, char *err, size_t err_len)
{
	if (is_in_file(property))
		return set_from_file(pairs, prefix, property, value, err, err_len);
	return set_value(pairs, prefix, property, value, err, err_len);
}

/* ---- the reference ---- */

static void print_owned(FILE *f)
{
	fputs("| property | always | because |\n|---|---|---|\n", f);
	for (size_t i = 0; i < N_OWNED; i++)
		fprintf(f, "| `%s` | %s%s%s | %s |\n", owned[i].property, owned[i].value ? "`" : "",
			owned[i].value ? owned[i].value : "-", owned[i].value ? "`" : "",
			owned[i].why);
}

static const char intro[] =
	"\n"
	"## Properties of librdkafka\n"
	"\n"
	"`kafka.<property>` goes to every client, `consumer.<property>` and\n"
	"`producer.<property>` to those of one kind. `kafka.bootstrap.servers` is required. The\n"
	"properties are those of the librdkafka in use. Through the environment:\n"
	"`SIDENOTE_KAFKA_BOOTSTRAP_SERVERS`; the very few with a `_` of their own (`log_level`)\n"
	"need a file or `-X`.\n"
	"\n"
	"Exactness owns these; another value is an error:\n"
	"\n";
static const char secrets_intro[] =
	"\n"
	"## Secrets\n"
	"\n"
	"`<name>.file=PATH` reads the value of any property of librdkafka from a file, less one\n"
	"newline at its end: `kafka.sasl.password.file=/run/secrets/kafka`. A secret's file that\n"
	"its group or others may read is refused, unless it is under `/run/secrets` or\n"
	"`$CREDENTIALS_DIRECTORY`, where the container or service manager decides who sees it.\n"
	"`-X` refuses secrets: every user of a host can read its command lines. Wherever values\n"
	"are printed, secrets are masked: those of the properties whose name contains one of";

void property_print(FILE *f)
{
	fputs(intro, f);
	print_owned(f);
	fputs(secrets_intro, f);
	for (size_t i = 0; i < N_SECRET_PARTS; i++)
		fprintf(f, "%s `%s`", i ? "," : "", secret_parts[i]);
	fputs(".\n", f);
}
