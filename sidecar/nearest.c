#include "nearest.h"

#include <string.h>

enum { LONGEST = 64 }; /* bytes; no name of ours is longer */

static size_t min(size_t a, size_t b) { return a < b ? a : b; }

/* Levenshtein distance, one row of its table at a time; `limit`, if it is not less than that. */
static size_t distance(const char *a, const char *b, size_t limit)
{
	size_t row[LONGEST + 1], la = strlen(a), lb = strlen(b), least = 0;

	if (la > LONGEST || lb > LONGEST || (la > lb ? la - lb : lb - la) >= limit)
		return limit;
	for (size_t j = 0; j <= lb; j++)
		row[j] = j;
	for (size_t i = 1; i <= la && least < limit; i++) {
		size_t diagonal = row[0];

		least = row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			size_t above = row[j];

			row[j] = min(min(above, row[j - 1]) + 1, diagonal + (a[i - 1] != b[j - 1]));
			least = min(least, row[j]);
			diagonal = above;
		}
	}
	return least < limit ? row[lb] : limit;
}

void nearest_begin(struct nearest *n, const char *word)
{
	size_t len = strlen(word);

	n->word = word;
	n->best = NULL;
	/* one typo in three letters; more is another word */
	n->distance = 1 + (len < 6 ? len / 2 : 2 + len / 6);
}

void nearest_try(struct nearest *n, const char *name)
{
	size_t d = distance(n->word, name, n->distance);

	if (d < n->distance) {
		n->distance = d;
		n->best = name;
	}
}
