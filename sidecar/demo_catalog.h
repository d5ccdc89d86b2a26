/*
 * demo_catalog.h - changes that look like life: the products of a shop are sold,
 * restocked, repriced and put on sale; some leave, others come.
 *
 *   struct catalog c;
 *   struct catalog_write w;
 *   catalog_init(&c, 1);
 *   for (int i = 0; i < CATALOG_INITIAL; i++) catalog_first(&c, i, &w);
 *   for (;;) catalog_next(&c, &w);        // w.key, w.value or w.deleted
 *
 * Equal seeds give equal changes.  Pure: no I/O, no clock, no allocation.
 */
#ifndef DEMO_CATALOG_H
#define DEMO_CATALOG_H

#include <stdbool.h>
#include <stdint.h>

enum { CATALOG_PRODUCTS = 30, CATALOG_INITIAL = 24 };

enum catalog_op { CATALOG_CREATE, CATALOG_UPDATE, CATALOG_DELETE };

struct catalog_product {
	bool present, on_sale;
	int cents, stock;
};

struct catalog {
	struct catalog_product v[CATALOG_PRODUCTS];
	uint64_t random;
	unsigned made; /* changes so far */
};

struct catalog_write {
	enum catalog_op op;
	char key[16];   /* such as salt-mill */
	char value[96]; /* a JSON object; "" with CATALOG_DELETE, which is a tombstone */
};

void catalog_init(struct catalog *c, uint64_t seed);
/** Product `i` < CATALOG_INITIAL, as it is before the first change. */
void catalog_first(struct catalog *c, int i, struct catalog_write *w);
/** The next change; never one that changes nothing. */
void catalog_next(struct catalog *c, struct catalog_write *w);

#endif
