/*
 * told.h - what others have told of a partition while this sidecar was away.
 *
 * A gone key of a round belongs before the change at `due`.  Has another sidecar
 * published beyond that meanwhile, then it may have told of the delete, or of
 * updates before it, and only the notification topic knows.
 *
 *   told_read(&t, &what, &stop, err, sizeof err);
 *   last = told_last(t, key, key_len, r);     // after the record at r; NULL: nothing
 *   told_free(t);
 *
 * Some 60 bytes of memory for each key that was told of, and the values that are
 * asked for.  What the notification topic has forgotten (retention.ms) counts as
 * not told.
 *
 * Threads: the calling one.
 */
#ifndef TOLD_H
#define TOLD_H

#include "config.h"

#include <stdatomic.h>

struct told;

struct told_what {
	const struct config *c;
	int32_t p;    /* partition of the source ... */
	int n;        /* ... of so many */
	int64_t from; /* changes at this offset and later */
	/* whether the value of the record at this offset may be asked for */
	bool (*wanted)(void *opaque, int64_t offset);
	void *opaque;
};

struct told_key {
	uint64_t hash, seq;
	int64_t offset, ts_ms; /* of the source record; -1: a gone key was told */
	int64_t before_offset; /* of the one before; -1: none */
	char op;               /* c, u or d */
	void *value;           /* the new value, if it was wanted and is known */
	size_t value_len;
};

/** 0, -EINTR when *stop is set, -ENOMEM, -EIO with err. */
int told_read(struct told **out, const struct told_what *w, const atomic_bool *stop, char *err,
	      size_t err_len);
/** The last that was told of this key since its record at offset r. */
const struct told_key *told_last(const struct told *t, const void *key, size_t key_len, int64_t r);
void told_free(struct told *t); /* NULL is allowed */

#endif
