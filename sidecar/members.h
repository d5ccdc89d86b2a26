/*
 * members.h - the members of two JSON objects, to be compared one by one.
 *
 *   if (members_read(&b, before, before_len) && members_read(&a, after, after_len))
 *           for (int i = 0; i < a.n; i++)
 *                   old = members_find(&b, &a.m[i]);    // NULL: it is new
 */
#ifndef MEMBERS_H
#define MEMBERS_H

#include "json.h"

enum { MEMBERS_MAX = 64 }; /* of an object whose members are compared */

struct members {
	struct json_member m[MEMBERS_MAX];
	int n;
};

/** False: it has more than are compared.  They point into `object`. */
bool members_read(struct members *all, const void *object, size_t len);
/** The member of the same name, or NULL. */
const struct json_member *members_find(const struct members *all, const struct json_member *like);

#endif
