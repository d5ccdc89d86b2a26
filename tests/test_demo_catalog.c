#include "demo_catalog.h"
#include "json.h"
#include "harness.h"

enum { CHANGES = 20000, SEEDS = 20 };

/* What a reader of the topic would hold, from the writes alone. */
struct shop {
	struct catalog_write v[CATALOG_PRODUCTS];
	int n;
};

static struct catalog_write *find(struct shop *s, const char *key)
{
	for (int i = 0; i < s->n; i++)
		if (!strcmp(s->v[i].key, key))
			return &s->v[i];
	return NULL;
}

static void open_shop(struct shop *s, struct catalog *c, uint64_t seed)
{
	catalog_init(c, seed);
	for (s->n = 0; s->n < CATALOG_INITIAL; s->n++)
		catalog_first(c, s->n, &s->v[s->n]);
}

static void test_every_product_has_a_key_of_its_own(void **state)
{
	struct catalog c;
	struct shop s;

	(void)state;
	open_shop(&s, &c, 1);
	for (int i = 0; i < s.n; i++) {
		assert_ptr_equal(find(&s, s.v[i].key), &s.v[i]);
		assert_true(json_is_object(s.v[i].value, strlen(s.v[i].value)));
	}
}

static void apply(struct shop *s, const struct catalog_write *w)
{
	struct catalog_write *old = find(s, w->key);

	switch (w->op) {
	case CATALOG_CREATE:
		assert_null(old);
		s->v[s->n++] = *w;
		break;
	case CATALOG_UPDATE:
		assert_non_null(old);
		assert_string_not_equal(old->value, w->value);
		*old = *w;
		break;
	case CATALOG_DELETE:
		assert_non_null(old);
		assert_string_equal(w->value, "");
		*old = s->v[--s->n];
		break;
	}
}

static void test_changes_are_what_they_say(void **state)
{
	struct catalog_write w;
	struct catalog c;
	struct shop s;

	(void)state;
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		open_shop(&s, &c, seed);
		for (int i = 0; i < CHANGES; i++) {
			catalog_next(&c, &w);
			apply(&s, &w);
			if (w.op != CATALOG_DELETE)
				assert_true(json_is_object(w.value, strlen(w.value)));
		}
		assert_true(s.n >= CATALOG_PRODUCTS / 2);
	}
}

static void test_no_price_or_stock_goes_below_nothing(void **state)
{
	struct catalog_write w;
	struct catalog c;

	(void)state;
	catalog_init(&c, 3);
	for (int i = 0; i < CHANGES; i++) {
		catalog_next(&c, &w);
		for (int p = 0; p < CATALOG_PRODUCTS; p++) {
			assert_true(c.v[p].cents >= 0 && c.v[p].cents < 10000000);
			assert_true(c.v[p].stock >= 0);
		}
	}
}

static void test_a_change_fits_into_a_line_of_a_terminal(void **state)
{
	struct catalog_write w;
	struct catalog c;

	(void)state;
	catalog_init(&c, 4);
	for (int i = 0; i < 200; i++) {
		catalog_next(&c, &w);
		/* time, operation, and the spaces between take 9 of the 80 columns */
		assert_true(strlen(w.key) + strlen(w.value) <= 71);
	}
}

static void test_the_first_changes_show_one_of_each_kind(void **state)
{
	bool seen[3] = { false };
	struct catalog_write w;
	struct catalog c;

	(void)state;
	catalog_init(&c, 5);
	for (int i = 0; i < 5; i++) {
		catalog_next(&c, &w);
		seen[w.op] = true;
	}
	assert_true(seen[CATALOG_CREATE] && seen[CATALOG_UPDATE] && seen[CATALOG_DELETE]);
}

static void test_equal_seeds_give_equal_changes(void **state)
{
	struct catalog_write w1, w2;
	struct catalog c1, c2;

	(void)state;
	catalog_init(&c1, 6);
	catalog_init(&c2, 6);
	for (int i = 0; i < 100; i++) {
		catalog_next(&c1, &w1);
		catalog_next(&c2, &w2);
		assert_string_equal(w1.key, w2.key);
		assert_string_equal(w1.value, w2.value);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_product_has_a_key_of_its_own),
		cmocka_unit_test(test_changes_are_what_they_say),
		cmocka_unit_test(test_no_price_or_stock_goes_below_nothing),
		cmocka_unit_test(test_a_change_fits_into_a_line_of_a_terminal),
		cmocka_unit_test(test_the_first_changes_show_one_of_each_kind),
		cmocka_unit_test(test_equal_seeds_give_equal_changes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
