/* The parts of a round that need no broker: bits, ids, and what was told already. */
#include "harness.h"
#include "bits.h"
#include "readback.h"

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

static int64_t gone(const char *id)
{
	bool is_gone;
	int64_t offset = readback_offset("t.x", 3, id, strlen(id), &is_gone);

	return is_gone ? offset : -1;
}

static void test_only_the_id_of_a_gone_key_of_this_partition_counts(void **state)
{
	(void)state;
	assert_int_equal(gone("t.x/3/42/gone"), 42);
	assert_int_equal(gone("t.x/3/0/gone"), 0);
	assert_int_equal(gone("t.x/3/42"), -1);
	assert_int_equal(gone("t.x/4/42/gone"), -1);
	assert_int_equal(gone("t.x/33/42/gone"), -1);
	assert_int_equal(gone("t/3/42/gone"), -1);
	assert_int_equal(gone("t.x/3//gone"), -1);
	assert_int_equal(gone("t.x/3/-1/gone"), -1);
	assert_int_equal(gone("t.x/3/42/gone "), -1);
	assert_int_equal(gone("t.x/3/99999999999999999999/gone"), -1);
	assert_int_equal(gone(""), -1);
}

static void test_the_id_of_another_change_has_the_offset_of_its_record(void **state)
{
	bool is_gone = true;

	(void)state;
	assert_int_equal(readback_offset("t.x", 3, "t.x/3/42", 8, &is_gone), 42);
	assert_false(is_gone);
	assert_int_equal(readback_offset("t.x", 3, "t.x/3/42/", 9, &is_gone), -1);
}

static void test_what_was_read_back_is_found_and_nothing_else(void **state)
{
	int64_t before[] = { 3, 5, 8 };
	const struct readback r = { before, 3 }, none = { 0 };
	(void)state;
	assert_true(readback_has(&r, 3));
	assert_true(readback_has(&r, 8));
	assert_false(readback_has(&r, 4));
	assert_false(readback_has(&none, 4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_bit_is_what_it_was_set_to_and_no_neighbour),
		cmocka_unit_test(test_only_the_id_of_a_gone_key_of_this_partition_counts),
		cmocka_unit_test(test_the_id_of_another_change_has_the_offset_of_its_record),
		cmocka_unit_test(test_what_was_read_back_is_found_and_nothing_else),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
