/*
 * escape.h - keys and values as printable text.
 *
 * Printable ASCII except backslash stands for itself; valid UTF-8 of printable
 * characters too; every other byte is \xHH, backslash is \\.  escape_parse()
 * reads the same form back, so a printed key can be pasted into `get`.
 */
#ifndef ESCAPE_H
#define ESCAPE_H

#include <stddef.h>

/** A new string, the caller's to free; NULL: out of memory. */
char *escape_key(const void *bytes, size_t len);
/** Bytes of an escaped text in *out (the caller's to free), their number in *len; -EINVAL. */
int escape_parse(const char *text, void **out, size_t *len);

/**
 * Bytes of the printable character (ASCII or UTF-8) at `text`, 0 if there is
 * none.  Controls, what turns or hides the text around it, and broken UTF-8
 * are not printable; backslash is.
 */
size_t escape_printable(const void *text, size_t len);

#endif
