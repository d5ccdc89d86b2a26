/*
 * recent.h - the last notifications, for people to look at.
 *
 * The publisher hands over what it has committed; the status page takes
 * copies.  Nothing is kept, and nothing is spent, before recent_keep().
 *
 * Ownership: a struct recent_note is one allocation; recent_free().
 * Threads:   any.  The lock is held for moving pointers and copying bytes.
 */
#ifndef RECENT_H
#define RECENT_H

#include "record.h"

enum {
	RECENT_NOTES = 20,
	RECENT_VALUE_MAX = 16384, /* bytes kept of one value, of one key */
};

struct recent_bytes {
	const void *p; /* NULL: none */
	size_t len;    /* kept */
	size_t whole;  /* there were */
};

struct recent_note {
	int64_t committed_ms, timestamp_ms; /* timestamp -1: none */
	int32_t partition;
	int64_t offset;
	enum change_op op;
	const char *cause; /* log, gap, reconcile; static */
	struct recent_bytes key, before, after;
	bool before_unknown; /* there was an old value, and nobody saw it */
};

/** Begin to keep notifications. */
void recent_keep(void);
bool recent_is_kept(void);
/** Forget all and stop. */
void recent_forget(void);

void recent_add(const struct change *c, const char *cause, int64_t committed_ms);

/** Copies of the last ones, the newest first; how many. */
int recent_copy(struct recent_note *out[RECENT_NOTES]);
void recent_free(struct recent_note *notes[], int n);

#endif
