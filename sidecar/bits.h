/* bits.h - a growing set of offsets: one bit each, in pages made on demand. */
#ifndef BITS_H
#define BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bits {
	uint64_t **pages;
	size_t n_pages;
};

/** 0 or -ENOMEM.  `at` >= 0. */
int bits_set(struct bits *b, int64_t at);
bool bits_get(const struct bits *b, int64_t at);
void bits_free(struct bits *b);

#endif
