/*
 * join_config.h - every option of the join: join.*, the state directory, the
 * log, and librdkafka's.  It needs nothing of the sidecar's own file.
 *
 *   struct join_config c;
 *   join_config_init(&c);
 *   rc = join_config_args(&c, argc, argv, &next, err, sizeof err);
 *   join_config_free(&c);
 *
 * The rows are in join_config.c; option.h has the rules for all tables.
 */
#ifndef JOIN_CONFIG_H
#define JOIN_CONFIG_H

#include "config.h"

enum join_type { JOIN_INNER, JOIN_LEFT };
enum join_wait { WAIT_NONE, WAIT_TOKEN, WAIT_TIME };

/* Where in a stream record something stands. */
enum place_kind { PLACE_KEY, PLACE_TIMESTAMP, PLACE_HEADER, PLACE_FIELD };
struct place {
	enum place_kind kind;
	const char *name; /* of the header, or the path of the field; into the option's text */
};

struct join_config {
	char *name;
	char *instance_id; /* after join_config_args(): never NULL */
	struct config_pairs kafka, consumer, producer;
	char *stream_topic, *output_topic;
	bool output_create;
	int type; /* enum join_type */
	char *key;
	int start; /* enum note_start */
	int wait;  /* enum join_wait */
	char *wait_from;
	int64_t wait_ms, batch_records, batch_ms;
	char *state_dir;
	int log_level, log_format;

	struct place key_place, wait_place; /* what `key` and `wait_from` say */
};

/** Fill with the defaults.  Call join_config_free() whatever happens next. */
void join_config_init(struct join_config *c);
void join_config_free(struct join_config *c);

/** As config_set(). */
int join_config_set(struct join_config *c, const char *name, const char *value, char *err,
		    size_t err_len);
/** As config_args(): -F, environment, -X, then what must be there and contradicts itself. */
int join_config_args(struct join_config *c, int argc, char **argv, int *optind_out, char *err,
		     size_t err_len);
int join_config_check(struct join_config *c, char *err, size_t err_len);

/** The option reference, as Markdown. */
void join_config_print(FILE *f);
void join_config_dump(const struct join_config *c, FILE *f);

#endif
