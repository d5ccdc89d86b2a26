#include "nearest.h"
#include "harness.h"

static const char *const names[] = { "run",  "check",  "demo",     "get",          "scan",
				     "stat", "verify", "batch.ms", "batch.records" };

static const char *meant(const char *word)
{
	struct nearest n;

	nearest_begin(&n, word);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		nearest_try(&n, names[i]);
	return n.best;
}

static void test_a_typo_is_forgiven(void **state)
{
	(void)state;
	assert_string_equal(meant("verfy"), "verify");
	assert_string_equal(meant("vreify"), "verify");
	assert_string_equal(meant("chekc"), "check");
	assert_string_equal(meant("stats"), "stat");
	assert_string_equal(meant("batch_records"), "batch.records");
	assert_string_equal(meant("run"), "run");
}

static void test_another_word_is_not_taken_for_a_typo(void **state)
{
	char longest[200];

	(void)state;
	assert_null(meant("colour"));
	assert_null(meant("x"));
	assert_null(meant(""));
	memset(longest, 'r', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	assert_null(meant(longest));
}

static void test_the_first_of_two_that_are_as_near_is_kept(void **state)
{
	struct nearest n;

	(void)state;
	nearest_begin(&n, "scat");
	nearest_try(&n, "scan");
	nearest_try(&n, "stat");
	assert_string_equal(n.best, "scan");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_typo_is_forgiven),
		cmocka_unit_test(test_another_word_is_not_taken_for_a_typo),
		cmocka_unit_test(test_the_first_of_two_that_are_as_near_is_kept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
