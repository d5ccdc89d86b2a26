/*
 * decide.h - the decisions that make the sidecar exact, as plain functions.
 *
 * No I/O, no clock, no threads: unit tests, the simulation and the program link
 * the same object.  The rules are docs/guarantees.md's; a position is (offset,
 * n): everything before `offset`, and n entries at exactly `offset`.
 */
#ifndef DECIDE_H
#define DECIDE_H

#include "record.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct position {
	int64_t offset; /* -1: none */
	uint32_t n;
};

/** < 0, 0, > 0 as a is before, at or after b. */
int position_compare(struct position a, struct position b);
/** Where publishing goes on after the entry (offset, n). */
struct position position_after(int64_t offset, uint32_t n);

/* ---- what is a change (rule 4) ---- */

enum transition {
	TRANSITION_NONE,  /* a tombstone on an absent key */
	TRANSITION_TO,    /* *op says which */
	TRANSITION_MOVED, /* the key is stored from another partition */
};

/**
 * What record `now` does to key with stored record `old` (NULL: absent).
 * `blind`: history before this record may have been compacted away unseen, so
 * that a tombstone on an absent key tells of a delete.
 */
enum transition decide_transition(const struct record *old, const struct record *now, bool blind,
				  enum change_op *op);
/** source.moved=timestamp: whether the newcomer from another partition wins. */
bool decide_moved_wins(const struct record *old, const struct record *now);

/* ---- the offset metadata (who published, and how far inside an offset) ---- */

enum { METADATA_MAX = 200 };
struct metadata {
	char by[40];       /* uuid of the publishing state; "": unknown; or METADATA_FUTURE */
	uint32_t n;        /* entries at exactly this offset already published */
	int64_t gap_until; /* entries below it are published with cause=gap; -1: none */
	int64_t c;         /* every superseded pair below is published as gone; -1: none said */
};
/** Always fits METADATA_MAX. */
void metadata_format(const struct metadata *m, char out[METADATA_MAX]);
/* In `by`: a sidecar wrote it, and not all that it says is understood here. */
#define METADATA_FUTURE "?"
/**
 * Foreign text gives by = "", n = 0: whoever wrote it was not a sidecar.  What a later version may
 * have added gives by = METADATA_FUTURE: only that version knows what is published.
 */
void metadata_parse(struct metadata *m, const char *text);

/* ---- who is fit, and what may be published (rules 7 to 9) ---- */

enum fitness {
	FIT,
	FIT_AS_GAP,      /* alone: may lead, and says cause=gap below `whole` */
	UNFIT_FILLING,   /* no snapshot yet */
	UNFIT_BEHIND,    /* has not caught up since it started */
	UNFIT_ROUND,     /* a round is due */
	UNFIT_APPLIED,   /* published is ahead of the snapshot: catching up */
	UNFIT_JOURNAL,   /* published is behind the journal: needs a refill with b = P */
	UNFIT_NOT_WHOLE, /* somebody else who read everything may still be there */
	UNFIT_LOST,      /* there was a committed offset and now there is none: stop */
	UNFIT_BACK,      /* the committed offset is lower than this state has seen it: stop */
	UNFIT_UNKNOWN,   /* committed offsets could not be read yet */
	UNFIT_FUTURE,    /* a newer version committed them: only that knows what they say */
};

/* One partition as fitness sees it. */
struct standing {
	struct position published; /* committed; offset -1: none */
	char by[40];
	int64_t gap_until;  /* from the metadata; -1: none */
	int64_t cursor;     /* of physical compaction, as last seen; 0: none */
	bool was_published; /* there was a committed offset once ... */
	int64_t seen;       /* ... and meta has this one */
	struct position base;
	int64_t start, applied, whole;
	bool caught_up, due;
	bool waits; /* the journal is at its limit: only publishing lets the tail catch up */
};

/** Fitness over all partitions: the worst one, *where its number. */
enum fitness decide_fitness(const struct standing *s, int n, const char *self, bool group_empty,
			    int *where);
const char *fitness_text(enum fitness f);

/**
 * Entries below this offset must be published as cause=gap by `self`; -1: none.
 * `by` itself continues a gap that it or another had begun.
 */
int64_t decide_gap_until(const struct standing *s, const char *self);

/**
 * Whether a state may go on publishing before the group has elected anybody: it
 * was the last to publish every partition, has missed no version since, and
 * nothing but its tail, which may not have caught up yet, speaks against it.
 * What it journaled before it died is news whatever comes after.
 */
bool decide_may_resume(const struct standing *s, int n, const char *self);

/** Where the leader starts: committed, else the start of the journal's news. */
struct position decide_publish_from(const struct standing *s);

struct note_filter {
	int operations; /* OPERATION_* of config.h */
	bool unchanged;
};
/** Whether a change is notified, in a gap or not. */
bool decide_notify(const struct change *c, bool gap, const struct note_filter *f);

/* ---- has the tail read the range as it was written (rule 9) ---- */

/*
 * What was read from one EOF event to the next.  A removed record leaves a hole
 * in the offsets, and so do transactions and what they aborted: only a log that
 * was seen to end behind its last record has those, as compaction spares that.
 */
struct reading {
	int64_t away_ms;   /* between the two events; -1: unknown */
	bool holes;        /* offsets were not there */
	bool transactions; /* the source is known to have some */
	bool was_running;  /* the tail was, all the time */
};
/**
 * Whether no version can have been compacted away before it was read.  Of a
 * source with transactions a tail that is at most `close_ms` behind is taken at
 * its word, as nothing tells its holes apart.
 */
bool decide_is_whole(const struct reading *r, int64_t min_compaction_lag_ms, int64_t close_ms);
/**
 * Whether a log that ends behind the last record that was read shows that the
 * source has transactions: not once a tombstone that was purged can have stood there.
 */
bool decide_has_markers(const struct reading *r, int64_t delete_retention_ms, int64_t close_ms);
/**
 * Whether a gap between two EOF events makes a round due: half of the
 * retention; of a tail that was running all the time, a second at least, or a
 * topic that keeps no tombstones would never be done with rounds.
 */
bool decide_round_due(int64_t away_ms, int64_t delete_retention_ms, bool was_running);

#endif
