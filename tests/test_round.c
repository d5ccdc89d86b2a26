/* The parts of a round that need no broker: bits, and what was told already. */
#include "harness.h"
#include "bits.h"
#include "told.h"

static void test_a_bit_is_what_it_was_set_to_and_no_neighbour(void **state)
{
	static const int64_t at[] = { 0, 1, 63, 64, 65535, 65536, 70000, 123456789 };
	struct bits b = { 0 };
	(void)state;
	for (size_t i = 0; i < sizeof(at) / sizeof(*at); i++) {
		assert_false(bits_get(&b, at[i]));
		assert_int_equal(bits_set(&b, at[i]), 0);
		assert_true(bits_get(&b, at[i]));
	}
	assert_false(bits_get(&b, 2));
	assert_false(bits_get(&b, 62));
	assert_false(bits_get(&b, 65537));
	assert_false(bits_get(&b, INT64_MAX));
	assert_false(bits_get(&b, -1));
	bits_free(&b);
	assert_false(bits_get(&b, 0));
}

/* ---- what was told ---- */

enum { FROM = 10 };

static bool only_20(void *opaque, int64_t offset)
{
	(void)opaque;
	return offset == 20;
}

struct told_test {
	struct config c;
	struct told_what what;
	struct told *t;
};

static void begin(struct told_test *x)
{
	char err[200];

	config_init(&x->c);
	assert_int_equal(config_set(&x->c, "source.topic", "t.x", err, sizeof(err)), 0);
	x->what = (struct told_what){ .c = &x->c, .p = 3, .n = 4, .from = FROM, .wanted = only_20 };
	x->t = told_new(&x->what);
	assert_non_null(x->t);
}

static void end(struct told_test *x)
{
	told_free(x->t);
	config_free(&x->c);
}

static void tell_with(struct told_test *x, const char *key, const char *id, const char *op,
		      long long offset, const char *token)
{
	const struct record_header headers[] = { { "sidenote.id", 11, id, strlen(id) },
						 { "sidenote.op", 11, op, strlen(op) },
						 { "sidenote.token", 14, token, strlen(token) } };
	char value[200];

	snprintf(value, sizeof(value),
		 "{\"before\":null,\"after\":%s,\"source\":{\"offset\":%lld,\"ts_ms\":7}}",
		 *op == 'd' ? "null" : "{\"v\":1}", offset);
	const struct note n = { .key = key,
				.key_len = strlen(key),
				.value = value,
				.value_len = strlen(value),
				.headers = headers,
				.n_headers = 3 };
	assert_int_equal(told_take(x->t, &n), 0);
}

static void tell(struct told_test *x, const char *key, const char *id, const char *op,
		 long long offset)
{
	tell_with(x, key, id, op, offset, "3:0");
}

static const struct told_key *last(struct told_test *x, const char *key, int64_t r)
{
	told_sort(x->t);
	return told_last(x->t, key, strlen(key), r);
}

static void test_the_last_that_was_told_of_a_key_counts(void **state)
{
	struct told_test x;
	const struct told_key *k;

	(void)state;
	begin(&x);
	tell(&x, "a", "t.x/3/12", "u", 12);
	tell(&x, "b", "t.x/3/13", "c", 13);
	tell(&x, "a", "t.x/3/20", "u", 20);
	assert_non_null(k = last(&x, "a", 12));
	assert_int_equal(k->op, 'u');
	assert_int_equal(k->offset, 20);
	assert_int_equal(k->ts_ms, 7);
	assert_int_equal(k->value_len, 7);
	assert_memory_equal(k->value, "{\"v\":1}", 7);
	assert_null(last(&x, "a", 20)); /* of the record itself, and nothing later */
	assert_non_null(k = last(&x, "b", 12));
	assert_null(k->value); /* nobody wanted it */
	assert_null(last(&x, "c", 0));
	assert_null(told_last(NULL, "a", 1, 0));
	end(&x);
}

/* Two sidecars had two records of a key, and each finds in its own round that it is gone. */
static void test_a_gone_key_covers_every_record_before_it_was_known_to_be(void **state)
{
	struct told_test x;
	const struct told_key *k;

	(void)state;
	begin(&x);
	tell_with(&x, "a", "t.x/3/15/gone", "d", 20, "3:30");
	tell_with(&x, "b", "t.x/3/2/gone", "d", 9, "rubbish");
	assert_non_null(k = last(&x, "a", 15));
	assert_int_equal(k->op, 'd');
	assert_non_null(last(&x, "a", 11));
	assert_non_null(last(&x, "a", 29));
	assert_null(last(&x, "a", 30)); /* it came back, and went again */
	assert_non_null(last(&x, "b", 2));
	assert_null(last(&x, "b", 9));
	end(&x);
}

static void test_what_is_older_or_of_another_partition_is_passed_over(void **state)
{
	struct told_test x;

	(void)state;
	begin(&x);
	tell(&x, "a", "t.x/3/9", "u", 9);
	tell(&x, "a", "t.x/4/12", "u", 12);
	tell(&x, "a", "t.x/33/12", "u", 12);
	tell(&x, "a", "t/3/12", "u", 12);
	tell(&x, "a", "x.t.x/3/12/gone", "d", 12);
	tell(&x, "a", "t.x/3/", "u", 12);
	tell(&x, "a", "t.x/3/12", "u", -1);
	tell(&x, "a", "", "u", 12);
	tell(&x, "a", "t.x/3/12", "?", 12);
	assert_null(last(&x, "a", 0));
	end(&x);
}

static void test_many_keys_are_kept_apart(void **state)
{
	struct told_test x;
	char key[20], id[40];

	(void)state;
	begin(&x);
	for (int turn = 0; turn < 3; turn++)
		for (int i = 0; i < 5000; i++) {
			long long offset = 100 + turn * 5000 + i;
			snprintf(key, sizeof(key), "k%d", i);
			snprintf(id, sizeof(id), "t.x/3/%lld", offset);
			tell(&x, key, id, turn == 2 ? "d" : "u", offset);
		}
	for (int i = 0; i < 5000; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		const struct told_key *k = last(&x, key, 100 + i);
		assert_non_null(k);
		assert_int_equal(k->op, 'd');
		assert_int_equal(k->offset, 100 + 10000 + i);
	}
	end(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_bit_is_what_it_was_set_to_and_no_neighbour),
		cmocka_unit_test(test_the_last_that_was_told_of_a_key_counts),
		cmocka_unit_test(test_a_gone_key_covers_every_record_before_it_was_known_to_be),
		cmocka_unit_test(test_what_is_older_or_of_another_partition_is_passed_over),
		cmocka_unit_test(test_many_keys_are_kept_apart),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
