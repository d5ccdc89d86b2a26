/*
 * mark.h - what the mirror leaves in Redis about itself, and what may be done
 * with what is found there.
 *
 * Two hashes, whose names no data key can have:
 *
 *   sidenote:<name>      the mark of one pipeline
 *     format             1
 *     cluster topic prefix partitions   whose it is
 *     epoch by           who may write: raised by every leader; by = uuid of its state
 *     state              uuid of the state whose sidecar has placed the positions
 *     seq                other after every transaction
 *     p<N>               mirrored position of partition N: Redis is the fold up to here
 *     token              the same of all partitions, as the snapshot tells it
 *     t<N>               ms:offset: at this time the log ended at this offset, p<N> or before
 *     a<N>               offset:timestamp:hash of the last record before p<N>
 *     resync             there while Redis is not the fold: why; may be set by hand
 *     synced             other after every resync
 *   sidenote::prefixes   prefix -> "<name> <cluster>": the marker of ownership
 *
 * No I/O here: plain functions on what was read.
 */
#ifndef MARK_H
#define MARK_H

#include "state.h"

enum { MARK_FORMAT = 1, MARK_TEXT_MAX = 320, MARK_PREFIX_MAX = 200, MARK_ANCHOR_MAX = 72 };

#define MARK_KEYS     "sidenote:" /* what both hashes begin with */
#define MARK_PREFIXES "sidenote::prefixes"

struct mark_part {
	int64_t offset;             /* -1: not there */
	int64_t caught_ms;          /* wall clock; 0: unknown */
	int64_t caught_at;          /* -1: unknown */
	struct state_anchor anchor; /* offset -1: none */
};

struct mark {
	bool there;
	int format, partitions;
	int64_t epoch;
	char cluster[MARK_TEXT_MAX], topic[MARK_TEXT_MAX], prefix[MARK_TEXT_MAX];
	char by[40], state[40], seq[48], synced[48];
	char resync[MARK_TEXT_MAX]; /* "": none */
	struct mark_part *part;     /* [n] of ours; others are not kept */
	int n;
};

/** 0 or -ENOMEM. */
int mark_init(struct mark *m, int n);
void mark_free(struct mark *m);
/** Take one field of the hash.  What is not understood counts as not there. */
void mark_take(struct mark *m, const char *field, const char *value, size_t value_len);

void mark_anchor_format(const struct state_anchor *a, char out[MARK_ANCHOR_MAX]);

/* Who looks. */
struct mark_self {
	const char *name, *cluster, *topic, *prefix;
	int partitions;
	bool adopt;
};

enum mark_verdict {
	MARK_CONTINUE, /* Redis is the fold up to the positions */
	MARK_RESYNC,   /* ours, but not the fold */
	MARK_NEW,      /* nothing says whose the keys under the prefix are */
	MARK_FOREIGN,  /* another's: must not be touched */
};
/** What to do with a mark; `why` gets one line, except for MARK_CONTINUE. */
enum mark_verdict mark_decide(const struct mark *m, const struct mark_self *self, char *why,
			      size_t why_len);

enum prefix_verdict {
	PREFIX_OURS,
	PREFIX_OURS_BEFORE, /* ours too, and not the one that is configured now */
	PREFIX_TAKEN,       /* the same prefix, another pipeline's */
	PREFIX_OVERLAPS,    /* one of both begins with the other: strays are not to be told apart */
	PREFIX_UNRELATED,
};
/** What an entry of sidenote::prefixes means for us. */
enum prefix_verdict mark_prefix(const struct mark_self *self, const char *prefix, size_t prefix_len,
				const char *owner, size_t owner_len);
/** "<name> <cluster>" */
void mark_owner(const struct mark_self *self, char out[MARK_TEXT_MAX]);

/** Whether a configured prefix leaves the hashes' names alone; an empty one does not, see below. */
bool mark_prefix_allowed(const char *prefix);
/** Whether prefix and key together could be one of the hashes: never to be written. */
bool mark_reserves(const char *prefix, const void *key, size_t key_len);

#endif
