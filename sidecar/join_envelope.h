/*
 * join_envelope.h - a stream record and a table record become a result.
 *
 *   struct join_envelope e;
 *   join_envelope_init(&e, &options);
 *   join_envelope_make(&e, &pair, now_ms, &result);   // result points into e
 *   join_envelope_free(&e);
 *
 * Pure: no I/O, no clock.  The contract is docs/join.md.
 * Errors:    0 or -ENOMEM.  No content of a record is an error.
 * Ownership: a result is valid until the next join_envelope_make().
 */
#ifndef JOIN_ENVELOPE_H
#define JOIN_ENVELOPE_H

#include "join_config.h"
#include "shared_state.h"

struct join_envelope_options {
	const char *name, *stream_topic;
	enum join_type type;
	size_t max_bytes;    /* max.message.bytes of the output topic */
	const char *version; /* NULL: this one's */
};

struct join_pair {
	int32_t partition; /* of the stream record */
	int64_t offset, timestamp_ms;
	size_t key_len;
	const void *value; /* NULL: null */
	size_t value_len;
	size_t headers_bytes;              /* of those that are copied */
	const struct sstate_record *table; /* NULL: the table has none */
	const char *table_topic;
	const char *token; /* of the state that `table` was, or was not, found in */
	const char *wait;  /* a word: none, reached, late, unreadable */
};

struct join_result {
	const void *value;
	size_t value_len;
	const char *id; /* <topic>/<partition>/<offset>, for the header sidenote.id */
	size_t id_len;
	bool drop_headers; /* the copied ones do not fit */
	unsigned wrapped;  /* values that were no JSON object */
	unsigned omitted;  /* values left out, being too large */
	/* What it takes at most as a batch of its own; more than max_bytes only if the key
	 * leaves no room for the least result. */
	size_t bytes;
};

struct join_envelope {
	struct join_envelope_options o;
	char *buf;
	size_t cap;
	char *id;
};

/* The headers of a result, beside the copied ones. */
#define JOIN_HEADER_ID      "sidenote.id"
#define JOIN_HEADER_MATCH   "sidenote.match"
#define JOIN_HEADER_OMITTED "sidenote.headers.omitted"

int join_envelope_init(struct join_envelope *e, const struct join_envelope_options *o);
void join_envelope_free(struct join_envelope *e);
int join_envelope_make(struct join_envelope *e, const struct join_pair *pair, int64_t ts_ms,
		       struct join_result *out);

#endif
