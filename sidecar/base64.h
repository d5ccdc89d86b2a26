/*
 * base64.h - RFC 4648 base64, standard alphabet, padded, no line breaks.
 *
 * What Flink, Connect and ksqlDB take for a BYTES column in JSON.
 */
#ifndef BASE64_H
#define BASE64_H

#include <stddef.h>
#include <sys/types.h>

/** Bytes that base64_encode() writes. */
#define BASE64_BYTES(len) (((len) + 2) / 3 * 4)

/** Encode at `out`; returns the byte after it.  No NUL is written. */
char *base64_encode(char *out, const void *bytes, size_t len);

/**
 * Decode, strictly: the canonical form that base64_encode() writes and nothing
 * else.  Returns the number of bytes (at most len / 4 * 3) or -EINVAL.
 */
ssize_t base64_decode(void *out, const char *text, size_t len);

#endif
