/*
 * join_field.h - one field of a record's JSON value, as bytes.
 *
 *   struct field f = { 0 };
 *   if (field_get(&f, value, value_len, "customer.id") == FIELD_TEXT)
 *           look up f.text, f.len
 *   field_free(&f);
 *
 * A path is names of members separated by dots.  Of members of the same name the
 * last counts, as in most parsers.  A string gives its characters in UTF-8, a
 * whole number its digits as they are written; everything else, also a value
 * that is no JSON object (json.h), gives nothing.
 *
 * Pure.  Ownership: the text is the struct's, until the next field_get().
 */
#ifndef JOIN_FIELD_H
#define JOIN_FIELD_H

#include <stddef.h>

enum field_kind { FIELD_NONE, FIELD_TEXT, FIELD_NUMBER };

struct field {
	char *text; /* not NUL-terminated: a string may have any character */
	size_t len;
	char *mem;
	size_t size;
};

/** Text or number in f->text, or FIELD_NONE; -ENOMEM. */
int field_get(struct field *f, const void *value, size_t value_len, const char *path);
void field_free(struct field *f);

#endif
