/*
 * told.h - what was told of a partition, and by whom does not matter.
 *
 * A round finds keys that are gone, and not where in the log they were deleted.
 * Another sidecar may have read the tombstone in time, or may have found the
 * same in a round of its own, having another of the key's records; and so may
 * this one before a crash.  Only the notification topic knows.
 *
 *   told_read(&t, &what, &stop, err, sizeof err);
 *   last = told_last(t, key, key_len, r);     // after the record at r; NULL: nothing
 *   told_free(t);
 *
 * Whoever told of a gone key had read the log up to some offset (sidenote.token) and it was
 * absent there: that covers all its records before, whichever of them was named.
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
#include "notice.h"

#include <stdatomic.h>

struct told;

struct told_what {
	const struct config *c;
	int32_t p;    /* partition of the source ... */
	int n;        /* ... of so many */
	int64_t from; /* changes at this offset and later */
	/* whether the value of the record at this offset may be asked for; NULL: none */
	bool (*wanted)(void *opaque, int64_t offset);
	void *opaque;
};

struct told_key {
	uint64_t hash, seq;
	int64_t offset, ts_ms; /* of the source record; of a gone key, where it was known to be */
	char op;               /* c, u or d */
	void *value;           /* the new value, if it was wanted and is known */
	size_t value_len;
};

/** 0, -EINTR when *stop is set, -ENOMEM, -EIO with err. */
int told_read(struct told **out, const struct told_what *w, const atomic_bool *stop, char *err,
	      size_t err_len);
/** The last that was told of this key since its record at offset r; `t` may be NULL. */
const struct told_key *told_last(const struct told *t, const void *key, size_t key_len, int64_t r);
void told_free(struct told *t); /* NULL is allowed */

/* What told_read() does with a broker, in parts.  0 or -ENOMEM; what is no notification of this
 * partition is passed over.  told_last() may be asked after told_sort(). */
struct told *told_new(const struct told_what *w);
int told_take(struct told *t, const struct note *n);
void told_sort(struct told *t);

#endif
