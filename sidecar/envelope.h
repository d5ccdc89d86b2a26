/*
 * envelope.h - a change becomes a notification: key, value and headers.
 *
 *   struct envelope e;
 *   envelope_init(&e, &options);
 *   envelope_make(&e, &change, cause, change.offset + 1, now_ms, &note);   // note points into e
 *   ... produce note ...
 *   envelope_free(&e);
 *
 * Pure: no I/O, no clock.  The contract is docs/notifications.md.
 * Errors:    0 or -ENOMEM.  No content of a record is an error.
 * Ownership: a note points into the envelope's buffers and into the change;
 *            valid until the next envelope_make().
 * Threads:   an envelope belongs to one thread.
 */
#ifndef ENVELOPE_H
#define ENVELOPE_H

#include "config.h"
#include "record.h"

enum note_cause { NOTE_LOG, NOTE_GAP, NOTE_RECONCILE };

struct envelope_options {
	enum note_format format;
	enum note_encoding encoding;
	const char *name;    /* pipeline */
	const char *cluster; /* cluster.name */
	const char *topic;   /* source topic */
	size_t max_bytes;    /* max.message.bytes of the notification topic; 0: no bound */
	const char *version; /* of sidenote; NULL: this one's */
};

struct note {
	const void *key;
	size_t key_len;
	const void *value; /* NULL: tombstone (raw delete) */
	size_t value_len;
	const struct record_header *headers;
	size_t n_headers;
	unsigned wrapped; /* values that were not a JSON object and were wrapped as base64 */
	unsigned omitted; /* sides replaced by sidenote.omitted, being too large */
	unsigned headers_omitted; /* source headers left out, being too large */
	/*
	 * What it takes at most as a batch of its own, uncompressed.  More than
	 * max_bytes only if the key leaves no room for the least notification:
	 * raise max.message.bytes of the notification topic to this.
	 */
	size_t bytes;
};

/* What is told of a superseded record that compaction has removed. */
struct note_gone {
	bool expired;       /* it waited for too long: told without having been seen gone */
	bool after_unknown; /* nobody has the new value any more */
	int64_t present_ms; /* it was still there then; -1: not known */
	int64_t gone_ms;    /* and not any more then; -1: expired */
	int32_t leader;     /* whom it was asked of; -1: nobody */
};

struct envelope {
	struct envelope_options o;
	char *buf; /* the value */
	size_t len, cap;
	char *text; /* header values */
	size_t text_len, text_cap;
	struct record_header *headers;
	size_t n_headers, headers_cap;
	char *fixed; /* what every envelope says alike, rendered once: two pieces */
	size_t fixed_len[2];
	const struct note_gone *gone; /* of the notification that is being made */
};

void envelope_init(struct envelope *e, const struct envelope_options *o);
void envelope_free(struct envelope *e);

/**
 * Make the notification of change `c`, with the headers of its source record
 * (c->after.headers).  `reached`: the position in c->partition from which on every
 * state has the change; `ts_ms`: when it is published.
 */
int envelope_make(struct envelope *e, const struct change *c, enum note_cause cause,
		  int64_t reached, int64_t ts_ms, struct note *out);

/**
 * The notification that the old record of `c` is physically gone: c->before as it
 * waited, c->after as far as it is known.
 */
int envelope_make_gone(struct envelope *e, const struct change *c, const struct note_gone *g,
		       int64_t ts_ms, struct note *out);

#endif
