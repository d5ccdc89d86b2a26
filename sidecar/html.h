/*
 * html.h - bytes of strangers as text of an HTML page.
 *
 * Whatever the bytes are, what is written has no tag, ends no attribute, and
 * shows what is not printable as \xHH.
 */
#ifndef HTML_H
#define HTML_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

void html_bytes(FILE *f, const void *bytes, size_t len);
/** The same, a line feed or tab as a space: for JSON, where it is one. */
void html_json(FILE *f, const void *bytes, size_t len);
void html_text(FILE *f, const char *text);

/* Numbers for people: 1,234,567; 1.2 GiB; 350 ms; 2 h ago.  Negative: a dash. */
void html_number(FILE *f, int64_t n);
void html_size(FILE *f, int64_t bytes);
void html_duration(FILE *f, int64_t us);

#endif
