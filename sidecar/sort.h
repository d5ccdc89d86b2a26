/*
 * sort.h - records in the order of their stored keys, more than memory holds.
 *
 *   sort_open(&s, dir, memory_bytes, moved);
 *   sort_add(s, skey, skey_len, &record);    // in log order, tombstones too
 *   sort_finish(s);
 *   while ((rc = sort_next(s, &out)) == 1)
 *           ... out is what is left of its key; ascending ...
 *   sort_close(s);
 *
 * What is left of a key is what applying its records one by one, in the order
 * of the calls, would leave: decide_transition() and decide_moved_wins() say.
 *
 * While one buffer fills, a thread sorts the other and writes it to a file: a
 * run, with older versions dropped that can make no difference any more.  At the end
 * the runs and what is in the buffers are merged, and only then tombstones are
 * dropped; a run that is being written then is left, as its buffer still has all
 * of it.  What fits into one buffer never meets a file.  The file has no name, so
 * nothing is left of it after a crash, and its blocks are given back as they are read.
 *
 * Errors:    0 or a negative code; sort_error() has one line.  -EXDEV: a key is
 *            in two partitions and moved is MOVED_STOP; -ENOSPC: the disk is full.
 * Ownership: sort_add() copies.
 * Threads:   one calls; a second one belongs to the sorter.
 * Units:     `memory` bounds buffers and indexes, two of the largest record aside.
 */
#ifndef SORT_H
#define SORT_H

#include "config.h"
#include "record.h"

struct sorter;

/** `dir`: where the file goes.  It is read when the first run is written. */
int sort_open(struct sorter **out, const char *dir, size_t memory, enum moved moved);
/** Before the first sort_add(): give every version of a key back, in the order of the calls. */
void sort_keep_versions(struct sorter *s);
/** At any time; NULL is allowed. */
void sort_close(struct sorter *s);

int sort_add(struct sorter *s, const void *skey, size_t skey_len, const struct record *r);
/** After the last sort_add().  Merging begins, in the thread. */
int sort_finish(struct sorter *s);

struct sorted {
	const void *skey, *rec; /* the record as it is stored; valid until the next call */
	size_t skey_len, rec_len;
};
/** 1 and *out, 0 after the last, or < 0. */
int sort_next(struct sorter *s, struct sorted *out);

const char *sort_error(struct sorter *s);

struct sort_stat {
	uint64_t runs, spilled_bytes; /* written to the file, merges in between included */
};
void sort_stat(struct sorter *s, struct sort_stat *out);

#endif
