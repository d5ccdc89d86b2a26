/*
 * nearest.h - "did you mean": the name that a mistyped word is closest to.
 *
 *   struct nearest n;
 *   nearest_begin(&n, word);
 *   for (...) nearest_try(&n, names[i]);
 *   if (n.best) ... did you mean n.best
 */
#ifndef NEAREST_H
#define NEAREST_H

#include <stddef.h>

struct nearest {
	const char *word;
	const char *best; /* NULL: nothing is near enough to be meant */
	size_t distance;
};

void nearest_begin(struct nearest *n, const char *word);
/** Keeps `name` (not copied) if it is nearer than all before, and near enough. */
void nearest_try(struct nearest *n, const char *name);

#endif
