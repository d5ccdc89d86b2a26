/*
 * notice.h - a notification read back: what envelope.c made, in either format.
 *
 *   struct notice r;
 *   rc = notice_open(&r, &note);     // key, value and headers as they came
 *   ... r.op, r.before, r.after ...
 *   notice_close(&r);
 *
 * For the words that show notifications; a program of yours follows
 * docs/notifications.md.
 *
 * Errors:    0; -EINVAL: not a notification; -ENOMEM.  Nothing is then left to close.
 * Ownership: points into the note and into its own buffer.
 */
#ifndef NOTICE_H
#define NOTICE_H

#include "envelope.h"

struct notice {
	char op; /* c, u or d; of physical compaction: k compacted, x expired */
	enum note_cause cause;
	const char *id; /* as long as id_len says */
	size_t id_len;
	int64_t offset, ts_ms;               /* of the source record; -1: not told */
	int64_t before_offset, before_ts_ms; /* of the old one; -1: none */
	/* The values as the source said them, or the text that stands for an omitted one. */
	const void *before, *after; /* NULL: none */
	size_t before_len, after_len;
	bool unknown;                        /* there was an old value, and nobody saw it */
	bool after_unknown;                  /* the same of the new one: physical compaction only */
	int64_t present_ms, gone_ms, leader; /* the same only; -1: not told */
	bool before_omitted, after_omitted;
	char *decoded; /* own: values that came as base64 */
};

int notice_open(struct notice *r, const struct note *n);
/** Also after a failed notice_open(). */
void notice_close(struct notice *r);

#endif
