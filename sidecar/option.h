/*
 * option.h - a table of options: text in, the fields of a struct out.
 *
 *   static const struct option_row rows[] = {
 *           { "batch.ms", OPTION_INT, offsetof(struct config, batch_ms), "100", NULL, 1, 10000,
 *             NULL, "The longest time ..." },
 *   };
 *   static const struct option_table table = { rows, 1, NULL, 0, "options" };
 *   option_init(&table, &config);
 *   rc = option_sources(&table, &config, argc, argv, &next, err, sizeof err);
 *   option_free(&table, &config);
 *
 * Files, then SIDENOTE_* of the environment, then -X: all end in option_set(),
 * the later wins.  References and dumps are printed from the same rows.
 *
 * Errors:    0, -EINVAL or -ENOMEM, with one line in err that names the option,
 *            what was found and what is accepted.  What failed changes nothing.
 * Ownership: texts are copied into the struct; option_free() frees them.
 * Threads:   none; done before the first one starts.
 */
#ifndef OPTION_H
#define OPTION_H

#include "config.h"

enum option_type {
	OPTION_TEXT,   /* printable */
	OPTION_PATH,   /* not empty */
	OPTION_NAME,   /* [a-zA-Z0-9._-], up to max bytes */
	OPTION_TOPIC,  /* a name that Kafka accepts for a topic */
	OPTION_NOTES,  /* a topic, or empty */
	OPTION_LIST,   /* names separated by commas */
	OPTION_INT,    /* int64_t: whole number, min to max */
	OPTION_SIZE,   /* the same in bytes, KiB, MiB, GiB */
	OPTION_SIZE_0, /* the same or 0 */
	OPTION_BOOL,   /* bool: true, false */
	OPTION_ENUM,   /* int: one of the words */
	OPTION_FLAGS,  /* int: some of the words, separated by commas */
};

struct option_word { /* the last of several has no text */
	const char *text;
	int value;
};

struct option_row {
	const char *name;
	enum option_type type;
	size_t field;
	const char *def;   /* parsed like any other text; NULL: the field stays NULL ... */
	const char *unset; /* ... and this is what that means */
	int64_t min, max;  /* INT and SIZE, both allowed */
	const struct option_word *words;
	const char *help;
};

/* Names that begin with `prefix` go to librdkafka: into the struct config_pairs at `field`. */
struct option_group {
	const char *prefix;
	size_t field;
};

struct option_table {
	const struct option_row *rows;
	size_t n_rows;
	const struct option_group *groups;
	size_t n_groups;
	const char *word; /* `sidenote help WORD` prints this table */
};

/** What `unset` of a row is that has to be given. */
extern const char option_required[];
/** What log.level and log.format accept. */
extern const struct option_word option_log_levels[], option_log_formats[];

/**
 * Fill `c`, which may be uninitialized, with the defaults; option_free() frees what that took.
 * Out of memory is told by those that read or check options.
 */
void option_init(const struct option_table *t, void *c);
void option_free(const struct option_table *t, void *c);

int option_set(const struct option_table *t, void *c, const char *name, const char *value,
	       char *err, size_t err_len);
/** -ENOMEM: option_init() has run out of memory. */
int option_check_defaults(const struct option_table *t, const void *c, char *err, size_t err_len);
/** Every required option was given, kafka.bootstrap.servers among them. */
int option_check_required(const struct option_table *t, const void *c, char *err, size_t err_len);

/** As config_file(), config_environment(), config_sources(), for any table. */
int option_file(const struct option_table *t, void *c, const char *path, char *err, size_t err_len);
int option_environment(const struct option_table *t, void *c, char *const *env, char *err,
		       size_t err_len);
int option_sources(const struct option_table *t, void *c, int argc, char **argv, int *optind_out,
		   char *err, size_t err_len);

/** One name=value a line, secrets masked. */
void option_dump(const struct option_table *t, const void *c, FILE *f);
/** The rows as Markdown. */
void option_print(const struct option_table *t, FILE *f);

bool option_is_topic(const char *name);
/** The next of names separated by commas: 1 and *item without white space, or 0 at the end. */
int option_next_item(const char **list, const char **item, size_t *len);

#endif
