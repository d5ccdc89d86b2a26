/*
 * delta.h - what the tail applies while a new generation is being filled.
 *
 * A file without a name: batches are appended by the tail after their commit
 * and taken by the rebuild in the same order.  Bounded by the disk only.
 *
 * Threads: one appends, one takes.
 */
#ifndef DELTA_H
#define DELTA_H

#include "batch.h"

struct delta;

/** 0 or -errno with one line. */
int delta_open(struct delta **out, const char *dir, char *err, size_t err_len);
/** Also for a second user, who closes it too: the last one frees it. */
struct delta *delta_share(struct delta *d);
void delta_close(struct delta *d); /* NULL is allowed */

/**
 * Append a batch; keys, values and kept headers are copied.  After a failure the
 * delta is worthless: delta_failed() tells why, and appending does nothing.
 */
void delta_append(struct delta *d, const struct batch *b);
/** Make it worthless: something was applied that it cannot hold. */
void delta_fail(struct delta *d, int rc);
/** 0, or the -errno of the failure. */
int delta_failed(const struct delta *d);
/** Move up to `max` records into the empty batch `b`; 0 and b->n == 0: none is left. */
int delta_take(struct delta *d, struct batch *b, size_t max);

#endif
