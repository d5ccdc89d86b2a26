#include "members.h"

#include <string.h>

bool members_read(struct members *all, const void *object, size_t len)
{
	size_t pos = 0;

	for (all->n = 0; all->n < MEMBERS_MAX; all->n++)
		if (!json_next_member(object, len, &pos, &all->m[all->n]))
			return true;
	return false;
}

const struct json_member *members_find(const struct members *all, const struct json_member *like)
{
	for (int i = 0; i < all->n; i++) {
		const struct json_member *m = &all->m[i];
		if (m->name_len == like->name_len && !memcmp(m->name, like->name, m->name_len))
			return m;
	}
	return NULL;
}
