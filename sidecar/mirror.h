/*
 * mirror.h - a Redis is kept in step with the source topic, while this sidecar
 * leads.
 *
 * The rules, crash included, are at the top of mirror.c.  Whatever happens to
 * Redis, nobody here waits for it but the mirror itself.
 *
 * Threads: one of its own between _start and _stop; all four by owner.c's.
 */
#ifndef MIRROR_H
#define MIRROR_H

#include "pipeline.h"

struct mirror;

/** What options and build allow, without connecting: 0, or -EINVAL and one line. */
int mirror_check(const struct config *c, char *err, size_t err_len);

/** Make one; redis.uri must be set. */
int mirror_open(struct mirror **out, struct pipeline *p);
void mirror_close(struct mirror *m); /* NULL is allowed; must be stopped */

/** This sidecar leads. */
int mirror_start(struct mirror *m);
/** It does not any more: begin to stop.  NULL is allowed. */
void mirror_halt(struct mirror *m);
/** Halt and join.  False: it did not end in time.  NULL is allowed. */
bool mirror_stop(struct mirror *m, int budget_ms);

#endif
