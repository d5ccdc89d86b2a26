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

enum mirror_told { MIRROR_FINE, MIRROR_NOTE, MIRROR_WARNING, MIRROR_FAULT };
typedef void mirror_tell(void *opaque, enum mirror_told level, const char *id, const char *text);
/**
 * Look at Redis as a mirror of this pipeline would, and tell what would come of
 * it; writes nothing.  False: it cannot be reached, which is told, too.
 * `cluster`: name or id, `n`: partitions.
 */
bool mirror_inspect(const struct config *c, const char *cluster, int n, mirror_tell *tell,
		    void *opaque);

/* Where Redis is not the snapshot. */
struct mirror_difference {
	enum { MIRROR_MISSING, MIRROR_EXTRA, MIRROR_VALUE } kind;
	const void *key;
	size_t key_len;
	int32_t partition; /* of the record in the snapshot; -1 with offset -1: none */
	int64_t offset;
};
struct sstate;
/**
 * Compare Redis with a snapshot while both move: a difference is told when it
 * stays though Redis has the record.  0; -EAGAIN: Redis is not in step now;
 * -ECANCELED, -EIO: unreachable; a code of shared_state.h.  *keys counts.
 */
int mirror_verify(const struct config *c, struct sstate *s, const atomic_bool *stop,
		  void (*each)(void *opaque, const struct mirror_difference *d), void *opaque,
		  uint64_t *keys, char *err, size_t err_len);

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
