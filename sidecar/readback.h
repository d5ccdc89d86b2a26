/*
 * readback.h - which records' end was notified already, and by whom does not
 * matter.
 *
 * A round finds keys that are gone, and not where in the log they were deleted.
 * Another sidecar may have read the tombstone in time, or may have found the
 * same in a round of its own, in another order and at another offset, and have
 * said so while this one was away.  What was notified is recognised by
 * (partition, before_offset), which is unique over all updates and deletes.
 */
#ifndef READBACK_H
#define READBACK_H

#include "config.h"

#include <stdatomic.h>
#include <stdbool.h>

struct readback {
	int64_t *before; /* offsets of records whose end was notified, ascending */
	size_t n;
};

/**
 * Everything told of partition p of the source topic that ended a record at or
 * after `since`: what tells of it comes after it.  0, or < 0 with err; *stop
 * ends it early.
 */
int readback_run(const struct config *c, int32_t p, int64_t since, const atomic_bool *stop,
		 struct readback *out, char *err, size_t err_len);
bool readback_has(const struct readback *r, int64_t before_offset);
void readback_free(struct readback *r);

/** The offset in an id `<topic>/<p>/<offset>`, *gone: with `/gone` after it; -1: another id. */
int64_t readback_offset(const char *topic, int32_t p, const void *id, size_t len, bool *gone);

#endif
