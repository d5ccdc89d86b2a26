#include "bits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE_BITS = 1 << 16, WORD_BITS = 64, PAGE_WORDS = PAGE_BITS / WORD_BITS };

static int grow(struct bits *b, size_t page)
{
	size_t n = b->n_pages ? b->n_pages : 16;

	while (n <= page)
		n *= 2;
	uint64_t **pages = realloc(b->pages, n * sizeof(*pages));
	if (!pages)
		return -ENOMEM;
	memset(pages + b->n_pages, 0, (n - b->n_pages) * sizeof(*pages));
	b->pages = pages;
	b->n_pages = n;
	return 0;
}

int bits_set(struct bits *b, int64_t at)
{
	size_t page = (size_t)at / PAGE_BITS, bit = (size_t)at % PAGE_BITS;

	if (page >= b->n_pages && grow(b, page))
		return -ENOMEM;
	if (!b->pages[page] && !(b->pages[page] = calloc(PAGE_WORDS, sizeof(uint64_t))))
		return -ENOMEM;
	b->pages[page][bit / WORD_BITS] |= 1ULL << bit % WORD_BITS;
	return 0;
}

bool bits_get(const struct bits *b, int64_t at)
{
	size_t page = (size_t)at / PAGE_BITS, bit = (size_t)at % PAGE_BITS;

	if (at < 0 || page >= b->n_pages || !b->pages[page])
		return false;
	return b->pages[page][bit / WORD_BITS] >> bit % WORD_BITS & 1;
}

void bits_free(struct bits *b)
{
	for (size_t i = 0; i < b->n_pages; i++)
		free(b->pages[i]);
	free(b->pages);
	*b = (struct bits){ 0 };
}
