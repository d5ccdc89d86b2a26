#include "join_need.h"
#include "harness.h"

static struct needs s;
static int64_t want[8];

static void token(const char *text)
{
	assert_int_equal(needs_add(&s, WAIT_TOKEN, text, strlen(text)), 0);
}

static void time_text(const char *text)
{
	assert_int_equal(needs_add(&s, WAIT_TIME, text, strlen(text)), 0);
}

static int init(void **state)
{
	(void)state;
	needs_clear(&s);
	memset(want, 0xff, sizeof(want));
	return 0;
}

static void test_a_record_that_names_nothing_waits_for_nothing(void **state)
{
	(void)state;
	assert_int_equal(needs_add(&s, WAIT_TOKEN, NULL, 0), 0);
	assert_int_equal(needs_add(&s, WAIT_NONE, "0:1", 3), 0);
	assert_int_equal(s.v[0].kind, NEED_NONE);
	assert_int_equal(s.v[1].kind, NEED_NONE);
	assert_false(needs_union(&s, want, 2));
	assert_int_equal(needs_latest(&s), -1);
}

static void test_the_union_has_the_furthest_position_of_each_partition(void **state)
{
	(void)state;
	token("0:5,2:7");
	token("0:9");
	token("2:3,1:1");
	assert_true(needs_union(&s, want, 4));
	assert_int_equal(want[0], 9);
	assert_int_equal(want[1], 1);
	assert_int_equal(want[2], 7);
	assert_int_equal(want[3], 0);
}

static void test_each_record_is_judged_by_its_own_token(void **state)
{
	const int64_t have[] = { 6, 1, 7 };

	(void)state;
	token("0:5,2:7");
	token("0:9");
	token("");
	assert_true(needs_union(&s, want, 3));
	assert_true(need_is_reached(&s, &s.v[0], have, 3));
	assert_false(need_is_reached(&s, &s.v[1], have, 3));
	assert_true(need_is_reached(&s, &s.v[2], have, 3));
}

static void test_a_state_with_fewer_partitions_has_not_reached_a_token(void **state)
{
	const int64_t have[] = { 6 };

	(void)state;
	token("1:1");
	assert_false(need_is_reached(&s, &s.v[0], have, 1));
}

static void test_what_is_no_token_is_unreadable_and_not_waited_for(void **state)
{
	static const char *const bad[] = {
		"x",    "0",    "0:",   "0:x",  ":1",
		"0:-1", "0:1,", "0:1;", " 0:1", "0:99999999999999999999"
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		token(bad[i]);
	assert_int_equal(needs_add(&s, WAIT_TOKEN, "0:1\0", 4), 0);
	assert_false(needs_union(&s, want, 2));
	for (size_t i = 0; i < s.n; i++)
		assert_int_equal(s.v[i].kind, NEED_UNREADABLE);
}

static void test_a_partition_that_the_table_has_not_is_not_waited_for(void **state)
{
	(void)state;
	token("0:5,4:1");
	token("1:2");
	assert_true(needs_union(&s, want, 4));
	assert_int_equal(s.v[0].kind, NEED_UNREADABLE);
	assert_int_equal(want[0], 0);
	assert_int_equal(want[1], 2);
}

static void test_the_latest_time_counts_for_all(void **state)
{
	(void)state;
	time_text("1700000000500");
	assert_int_equal(needs_add_time(&s, 1700000000999), 0);
	assert_int_equal(needs_add_time(&s, -1), 0);
	assert_int_equal(needs_latest(&s), 1700000000999);
	assert_int_equal(s.v[2].kind, NEED_NONE);
	assert_int_equal(s.v[0].time_ms, 1700000000500);
}

static void test_what_is_no_number_of_ms_is_unreadable(void **state)
{
	static const char *const bad[] = { "",   "-1", "1.5", "1e3",
					   " 1", "1 ", "now", "1234567890123456" };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		time_text(bad[i]);
		assert_int_equal(s.v[i].kind, NEED_UNREADABLE);
	}
	assert_int_equal(needs_latest(&s), -1);
}

static void test_a_batch_after_another_begins_anew(void **state)
{
	(void)state;
	for (int i = 0; i < 1000; i++)
		token("0:1,1:2,2:3");
	needs_clear(&s);
	token("1:4");
	assert_int_equal(s.n, 1);
	assert_true(needs_union(&s, want, 3));
	assert_int_equal(want[0], 0);
	assert_int_equal(want[1], 4);
}

static int fini(void **state)
{
	(void)state;
	needs_free(&s);
	return 0;
}

#define TEST(f) cmocka_unit_test_setup(f, init)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_record_that_names_nothing_waits_for_nothing),
		TEST(test_the_union_has_the_furthest_position_of_each_partition),
		TEST(test_each_record_is_judged_by_its_own_token),
		TEST(test_a_state_with_fewer_partitions_has_not_reached_a_token),
		TEST(test_what_is_no_token_is_unreadable_and_not_waited_for),
		TEST(test_a_partition_that_the_table_has_not_is_not_waited_for),
		TEST(test_the_latest_time_counts_for_all),
		TEST(test_what_is_no_number_of_ms_is_unreadable),
		TEST(test_a_batch_after_another_begins_anew),
	};

	return cmocka_run_group_tests(tests, NULL, fini);
}
