/*
 * side.h - a value within a JSON text: as the object that it is, wrapped, or
 * omitted; and what a message takes in Kafka's format.
 *
 *   struct side s = side_of(value, len);
 *   side_plan_json(&s);               // s.size is exact from here on
 *   if (!side_fit(&s, &other, room)) ...
 *   p = side_put(p, &s);
 *
 * Planned first and written second, so that one reservation serves all of the
 * writing, and too large is found out before a byte is copied.
 *
 * Pure: no allocation, no errors.  A side points to the caller's bytes.
 */
#ifndef SIDE_H
#define SIDE_H

#include <stdbool.h>
#include <stddef.h>

/* UNKNOWN: nobody has seen it.  OMITTED: its length and SHA-256 instead. */
enum side_form { SIDE_NULL, SIDE_BYTES, SIDE_WRAPPED, SIDE_PAIR, SIDE_UNKNOWN, SIDE_OMITTED };

struct side {
	enum side_form form;
	const void *bytes; /* what the source said */
	size_t len;
	const void *key; /* for SIDE_PAIR */
	size_t key_len;
	const unsigned char *sha256; /* for SIDE_OMITTED: of bytes that are not here; or NULL */
	size_t size;                 /* what it takes in the message */
	size_t omitted_size;         /* what it takes omitted; SIZE_MAX: cannot be */
};

/** Bytes as nothing has been decided for yet; NULL is null for good. */
struct side side_of(const void *bytes, size_t len);
/** Plan a side that has bytes: the JSON object that it is, or wrapped as base64. */
void side_plan_json(struct side *s);
/** Plan a side that has bytes: key and value as base64, whatever they are. */
void side_plan_pair(struct side *s, const void *key, size_t key_len);
/** Nobody knows what it was. */
void side_plan_unknown(struct side *s);

/** Only its length and SHA-256 are known, as record_omit() left them. */
void side_plan_omitted(struct side *s);

/** Omit `first` if that is needed to fit `room`, then `second`; whether both fit now. */
bool side_fit(struct side *first, struct side *second, size_t room);

/** Write s->size bytes at most (an omitted one takes less); returns the byte after. */
char *side_put(char *p, const struct side *s);
/** Write it as omitted, whatever is planned: SIDE_OMITTED_MAX bytes at most. */
char *side_put_omitted(char *p, const struct side *s);

enum { SIDE_OMITTED_MAX = 29 + 20 + 11 + 64 + 3 };

/*
 * Kafka's record format v2: 61 bytes of batch header, then per record length 5,
 * attributes 1, timestamp 10, offset 5, key length 5, value length 5, header
 * count 5; per header two lengths of 5.
 */
enum {
	MESSAGE_OVERHEAD = 61 + 5 + 1 + 10 + 5 + 5 + 5 + 5,
	HEADER_OVERHEAD = 10,
};
/** Whether a header's name is one of ours, which nobody who produces may forge, in any case. */
bool side_header_is_reserved(const char *name, size_t name_len);

#endif
