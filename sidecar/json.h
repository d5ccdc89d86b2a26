/*
 * json.h - is this one JSON object, and text as a JSON string.
 *
 * json_is_object() answers for bytes that are then spliced unchanged into a
 * larger JSON text, so it is as strict as the strictest reader of that text:
 *
 *  - RFC 8259, exactly one object, white space around it allowed;
 *  - valid UTF-8 (no overlong forms, no surrogates, at most U+10FFFF), no BOM;
 *  - a \u surrogate escape only as half of a pair: the RFC's grammar lets a
 *    lone one pass, half of the parsers do not;
 *  - at most JSON_DEPTH_MAX levels, the object itself being the first;
 *  - numbers of any size, duplicate names, \u0000: legal, and never looked at.
 *
 * Threads: pure functions, no allocation, no recursion.
 */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>

enum { JSON_DEPTH_MAX = 512 };

/** Whether `len` bytes are exactly one valid JSON object. */
bool json_is_object(const void *bytes, size_t len);

/** The most that json_put_string() writes for `len` bytes. */
#define JSON_STRING_MAX(len) (6 * (len) + 2)

/**
 * Write bytes as a JSON string, quotes included, at `out`; returns the byte
 * after it.  A byte that is not UTF-8 becomes \ufffd; a lossless form of
 * arbitrary bytes is escape_key() or base64.
 */
char *json_put_string(char *out, const void *bytes, size_t len);

/* A member of an object, as it is written: the name without its quotes. */
struct json_member {
	const char *name, *value;
	size_t name_len, value_len;
};

/**
 * Step through the members of an object: true and *m, false behind the last
 * one.  Start with *pos = 0.  Only finds its way and does not validate:
 * bytes that are no object have some members or none.
 */
bool json_next_member(const void *object, size_t len, size_t *pos, struct json_member *m);

#endif
