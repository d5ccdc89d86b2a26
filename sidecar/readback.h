/*
 * readback.h - which gone keys were notified already, and by whom does not
 * matter.
 *
 * P = (due, n) with n > 0: n notifications of partition p stand in the
 * notification topic for changes at exactly this offset.  Sidecars may have
 * found different gone keys, in another order; what was notified is recognised
 * by (partition, before_offset), which is unique over all updates and deletes.
 */
#ifndef READBACK_H
#define READBACK_H

#include "config.h"

#include <stdatomic.h>

struct readback {
	int64_t *before; /* offsets of records whose end was notified, ascending */
	size_t n;
};

/**
 * Read the last `n` such notifications for partition p of the source topic.
 * 0, or < 0 with err; *stop ends it early.
 */
int readback_run(const struct config *c, int32_t p, uint32_t n, const atomic_bool *stop,
		 struct readback *out, char *err, size_t err_len);
bool readback_has(const struct readback *r, int64_t before_offset);
void readback_free(struct readback *r);

/** The offset in an id `<topic>/<p>/<offset>/gone`; -1: another id. */
int64_t readback_gone_offset(const char *topic, int32_t p, const void *id, size_t len);

#endif
