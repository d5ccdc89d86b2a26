/*
 * compare.h - is the snapshot the fold of the log?  While both move on.
 *
 * The log is read once from its start to the snapshot's position.  Each record
 * asks the snapshot for its key: the record itself must be stored, or a later
 * one, or none behind a tombstone.  Then the snapshot is walked: what is stored
 * must have been in the log.  So no table of all keys is needed: only one bit
 * for each stored record (bits.h), and the keys in doubt.
 *
 *   1. compare_record() for every record of the log below the position A;
 *      an answer that does not fit puts the key in doubt, one that fits takes
 *      the doubt away.
 *   2. compare_walk(): a stored record below A that step 1 did not see is in
 *      doubt: compaction has removed it, so there was a later one.
 *   3. compare_later() for every record from A on: a doubt that a record explains
 *      which came after A is none.
 *   4. compare_again(), and 1 to 3 once more for the keys in doubt only.  What
 *      compaction removed between two looks, and what changed between two
 *      answers, does not happen twice.  What does is a difference.
 *   5. compare_next(): if the keys in doubt took more memory than allowed, all of
 *      it covered only a part of the keys (by hash): go on with the next.
 *
 * Errors:    0 or a code of shared_state.h.
 * Threads:   belongs to one thread.
 */
#ifndef COMPARE_H
#define COMPARE_H

#include "batch.h"
#include "shared_state.h"

struct compare;

struct compare_options {
	int partitions;
	size_t memory;      /* bytes for keys in doubt */
	bool moved_by_time; /* source.moved=timestamp */
	bool expiring;      /* source.expiring: what is below the log's start is no difference */
};

enum difference_kind {
	DIFFERENCE_MISSING,   /* in the log, not in the snapshot */
	DIFFERENCE_EXTRA,     /* deleted in the log, in the snapshot */
	DIFFERENCE_GONE,      /* in the snapshot, from a record that the log has no more */
	DIFFERENCE_OLD,       /* the snapshot has an older record */
	DIFFERENCE_VALUE,     /* the same record, other bytes */
	DIFFERENCE_PARTITION, /* stored from another partition */
	DIFFERENCES
};

struct difference {
	enum difference_kind kind;
	const void *key;
	size_t key_len;
	int32_t partition; /* in the log; -1 with offset -1: nothing there */
	int64_t offset;
	int32_t stored_partition; /* in the snapshot; -1 with offset -1: nothing there */
	int64_t stored_offset;
};

int compare_open(struct compare **out, struct sstate *s, const struct compare_options *o);
void compare_close(struct compare *c); /* NULL is allowed */

/** A record of the log, in the order of its partition. */
int compare_record(struct compare *c, const struct batch_record *r);
/** `below` [n]: where step 1 ended; `log_start` [n]: where it began. */
int compare_walk(struct compare *c, const int64_t *below, const int64_t *log_start);
/** `applied` [n]: where the snapshot is now, asked for after step 2. */
void compare_later(struct compare *c, const struct batch_record *r, const int64_t *applied);
/** How many keys are in doubt. */
size_t compare_doubts(const struct compare *c);
void compare_again(struct compare *c);
/** Call `each` for every difference, after the second time. */
void compare_report(const struct compare *c, void (*each)(void *opaque, const struct difference *d),
		    void *opaque);
/** Whether there are keys left to compare: then begin with step 1. */
bool compare_next(struct compare *c);

/** Keys of the snapshot that were compared. */
uint64_t compare_keys(const struct compare *c);

#endif
