/*
 * config.h - every option of the sidecar, from file, environment or -X.
 *
 * One table of rows in config.c; all three ways end in config_set(), the later
 * wins.  The reference in docs/ is printed from the same table.
 */
#ifndef CONFIG_H
#define CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* kafka.*, consumer.*, producer.*: librdkafka's properties, in the order given. */
struct config_pair {
	char *key, *value; /* key without its prefix */
	bool secret;       /* mask wherever printed */
};
struct config_pairs {
	struct config_pair *v;
	size_t n;
};

enum moved { MOVED_STOP, MOVED_TIMESTAMP };
enum note_format { NOTE_DEBEZIUM_JSON, NOTE_RAW };
enum note_encoding { NOTE_JSON, NOTE_BASE64 };
enum note_start { START_END, START_BEGINNING };
enum { OPERATION_CREATE = 1, OPERATION_UPDATE = 2, OPERATION_DELETE = 4 };
enum reconcile { RECONCILE_AUTO, RECONCILE_ALWAYS, RECONCILE_OFF };
enum log_format { LOG_TEXT, LOG_JSON };

struct config {
	char *name;
	char *cluster_name; /* "": the cluster id */
	struct config_pairs kafka, consumer, producer;
	char *source_topic;
	int source_moved; /* enum moved */
	bool source_expiring;
	char *state_dir;
	int64_t state_lease_ms;
	char *state_headers; /* none, all, or names separated by commas */
	int64_t batch_records, batch_ms, sort_memory;
	int64_t journal_max_bytes; /* 0: 8 GiB, or a quarter of the free space if less */
	char *notifications_topic; /* "": none; defaults to <source.topic>.changes */
	bool notifications_create;
	int notifications_operations; /* OPERATION_* */
	int notifications_format;     /* enum note_format */
	int notifications_encoding;   /* enum note_encoding */
	int notifications_start;      /* enum note_start */
	bool notifications_unchanged;
	char *compacted_topic; /* "": physical compaction is not notified */
	int64_t compacted_max_bytes, compacted_probes;
	int reconcile;
	char *redis_uri;    /* "": no mirror */
	char *redis_prefix; /* defaults to <source.topic>: */
	bool redis_adopt;
	char *redis_user, *redis_password_file; /* "": none */
	char *redis_tls_ca, *redis_tls_cert, *redis_tls_key;
	char *http_listen; /* "": none */
	bool http_values;
	int log_level; /* enum log_level in log.h */
	int log_format;
};

/** Fill with the defaults.  Call config_free() whatever happens next. */
void config_init(struct config *c);
void config_free(struct config *c);

/**
 * Set one option from text.  0, or -EINVAL with one line in err that names the
 * option, what was found and what is accepted (the nearest name for an unknown
 * one); `c` is then unchanged.
 */
int config_set(struct config *c, const char *name, const char *value, char *err, size_t err_len);

/** Read a file of name=value lines.  err names file and line. */
int config_file(struct config *c, const char *path, char *err, size_t err_len);

/** Take SIDENOTE_* from the environment. */
int config_environment(struct config *c, char *const *environ, char *err, size_t err_len);

/**
 * -F FILE (repeatable), -X name=value and the environment, in their order: file,
 * environment, -X.  Moves both with their values to the front of argv, up to a
 * "--"; *optind_out is the index of the first other word.  A secret in -X is
 * refused.
 */
int config_sources(struct config *c, int argc, char **argv, int *optind_out, char *err,
		   size_t err_len);

/** config_sources(), then config_check(). */
int config_args(struct config *c, int argc, char **argv, int *optind_out, char *err,
		size_t err_len);

/** What must be there and what contradicts itself, after everything was set. */
int config_check(struct config *c, char *err, size_t err_len);

/** The option reference, as Markdown, for docs/. */
void config_print(FILE *f);
/** The effective values, one name=value a line, secrets masked. */
void config_dump(const struct config *c, FILE *f);

/** Whether a source header of this name is to be kept (state.headers). */
bool config_keeps_header(const struct config *c, const char *name, size_t name_len);

#endif
