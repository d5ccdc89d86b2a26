/*
 * expire.h - keys whose record fell off the log's start leave the snapshot.
 *
 * Only with source.expiring: nobody is told.  Nothing is read for it: a record
 * below the log's start, asked for at a moment T, has no successor that was
 * written before T once the tail has applied the end that was asked for with it.
 * What is written later makes the key a new one.
 *
 *   expire_begin(x, below);
 *   while (!expire_at_end(x)) expire_step(x, st);      between two batches
 *
 * Threads: the writing thread.
 */
#ifndef EXPIRE_H
#define EXPIRE_H

#include "state.h"

struct expire;

/** 0 or -ENOMEM, for n partitions. */
int expire_open(struct expire **out, int n);
void expire_close(struct expire *x); /* NULL is allowed */
/** A walk over all keys begins: what is stored of partition p below below[p] goes. */
void expire_begin(struct expire *x, const int64_t *below);
/**
 * A part of it, a few milliseconds; its deletes are committed.  0 or a code of
 * the state; then nothing of this part has happened, and it may be tried again.
 */
int expire_step(struct expire *x, struct state *st);
bool expire_at_end(const struct expire *x);
/** Keys that left since expire_begin(). */
uint64_t expire_count(const struct expire *x);

#endif
