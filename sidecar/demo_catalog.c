#include "demo_catalog.h"

#include <ctype.h>
#include <stdio.h>

/* Names short enough for a change to be one line of a terminal. */
static const struct {
	const char *name;
	int cents, stock;
} products[CATALOG_PRODUCTS] = {
	{ "Moka pot", 3490, 14 },   { "Grinder", 8950, 31 },     { "Kettle", 3990, 52 },
	{ "Toaster", 4450, 27 },    { "Stand mixer", 32900, 9 }, { "Blender", 3490, 44 },
	{ "Chef knife", 7900, 38 }, { "Bread knife", 4290, 41 }, { "Board", 2450, 63 },
	{ "Frying pan", 5990, 35 }, { "Casserole", 14900, 12 },  { "Saucepan", 4690, 29 },
	{ "Wok", 6490, 18 },        { "Pizza stone", 3290, 22 }, { "Rolling pin", 1590, 57 },
	{ "Whisk", 890, 96 },       { "Ladle", 990, 88 },        { "Salad bowl", 2790, 33 },
	{ "Tea pot", 3890, 26 },    { "Coffee mug", 1190, 140 }, { "Carafe", 2990, 37 },
	{ "Salt mill", 2590, 48 },  { "Pepper mill", 2590, 45 }, { "Scale", 3190, 30 },
	{ "Timer", 1490, 71 },      { "Apron", 1990, 54 },       { "Oven glove", 1290, 66 },
	{ "Cake tin", 1690, 39 },   { "Ice maker", 11900, 8 },   { "Waffle iron", 5490, 16 },
};

/* xorshift64*: a sequence that looks like chance and repeats with its seed. */
static int chance(struct catalog *c, int below)
{
	c->random ^= c->random >> 12;
	c->random ^= c->random << 25;
	c->random ^= c->random >> 27;
	return (int)((c->random * 0x2545F4914F6CDD1DULL >> 33) % (unsigned)below);
}

static void write_key(const char *name, char *key)
{
	for (; *name; name++)
		*key++ = (char)(*name == ' ' ? '-' : tolower((unsigned char)*name));
	*key = '\0';
}

static void write_product(const struct catalog *c, int i, enum catalog_op op,
			  struct catalog_write *w)
{
	const struct catalog_product *p = &c->v[i];

	*w = (struct catalog_write){ .op = op };
	write_key(products[i].name, w->key);
	if (op != CATALOG_DELETE)
		snprintf(w->value, sizeof(w->value),
			 "{\"name\":\"%s\",\"price\":%d.%02d,\"stock\":%d%s}", products[i].name,
			 p->cents / 100, p->cents % 100, p->stock,
			 p->on_sale ? ",\"sale\":true" : "");
}

static void come(struct catalog *c, int i)
{
	c->v[i] = (struct catalog_product){ .present = true,
					    .cents = products[i].cents,
					    .stock = products[i].stock };
}

void catalog_init(struct catalog *c, uint64_t seed)
{
	*c = (struct catalog){ .random = seed ? seed : 1 };
	for (int i = 0; i < CATALOG_INITIAL; i++)
		come(c, i);
	for (int i = 0; i < 8; i++) /* small seeds begin alike */
		chance(c, 2);
}

void catalog_first(struct catalog *c, int i, struct catalog_write *w)
{
	write_product(c, i, CATALOG_CREATE, w);
}

/* One that is present, or is not; always found, since neither ever runs out. */
static int pick(struct catalog *c, bool present)
{
	int i;

	do
		i = chance(c, CATALOG_PRODUCTS);
	while (c->v[i].present != present);
	return i;
}

static int count(const struct catalog *c)
{
	int n = 0;

	for (int i = 0; i < CATALOG_PRODUCTS; i++)
		n += c->v[i].present;
	return n;
}

static void reprice(struct catalog *c, struct catalog_product *p)
{
	int percent = 5 + chance(c, 16);
	int step = p->cents * percent / 100 / 10 * 10 + 10;

	p->cents += p->cents > 2000 && chance(c, 3) ? -step : step;
}

static void update(struct catalog *c, struct catalog_product *p)
{
	int what = chance(c, 10);

	if (p->stock == 0 || (p->stock < 10 && what < 3))
		p->stock += 10 * (2 + chance(c, 5));
	else if (what < 6)
		p->stock -= 1 + chance(c, p->stock < 4 ? p->stock : 4);
	else if (what < 9)
		reprice(c, p);
	else
		p->on_sale = !p->on_sale;
}

/* The first changes show one of each kind; after that they come as they come. */
static enum catalog_op next_op(struct catalog *c)
{
	static const enum catalog_op opening[] = { CATALOG_UPDATE, CATALOG_UPDATE, CATALOG_DELETE,
						   CATALOG_UPDATE, CATALOG_CREATE };
	int present = count(c), what = chance(c, 100);

	if (c->made < sizeof(opening) / sizeof(*opening))
		return opening[c->made];
	if (present == CATALOG_PRODUCTS || (what < 12 && present > CATALOG_PRODUCTS / 2))
		return CATALOG_DELETE;
	return what < 22 ? CATALOG_CREATE : CATALOG_UPDATE;
}

void catalog_next(struct catalog *c, struct catalog_write *w)
{
	enum catalog_op op = next_op(c);
	int i = pick(c, op != CATALOG_CREATE);

	if (op == CATALOG_CREATE)
		come(c, i);
	else if (op == CATALOG_DELETE)
		c->v[i].present = false;
	else
		update(c, &c->v[i]);
	c->made++;
	write_product(c, i, op, w);
}
