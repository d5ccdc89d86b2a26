#include "render.h"
#include "harness.h"

#include <time.h>

static char *line;

static const char *render(char op, const char *before, const char *after)
{
	free(line);
	line = render_line(&(struct render){ .time_ms = -1,
					     .op = op,
					     .key = "k",
					     .key_len = 1,
					     .before = before,
					     .before_len = before ? strlen(before) : 0,
					     .after = after,
					     .after_len = after ? strlen(after) : 0 });
	assert_non_null(line);
	return line;
}
#define UPDATE(before, after, expected)                                                            \
	assert_string_equal(render('u', before, after), "u k  " expected)

static void test_only_members_that_differ_are_shown(void **state)
{
	(void)state;
	UPDATE("{\"id\":1,\"status\":\"open\"}", "{\"id\":1,\"status\":\"shipped\"}",
	       "status: \"open\" -> \"shipped\"");
	UPDATE("{\"a\":1,\"b\":2,\"c\":3}", "{\"c\":4,\"b\":2,\"a\":null}",
	       "c: 3 -> 4, a: 1 -> null");
}

static void test_members_that_came_and_went_have_a_sign(void **state)
{
	(void)state;
	UPDATE("{\"a\":1,\"old\":[1]}", "{\"a\":1,\"new\":{\"x\":1}}",
	       "+new: {\"x\":1}, -old: [1]");
	UPDATE("{}", "{\"a\":1}", "+a: 1");
	UPDATE("{\"a\":1}", "{}", "-a: 1");
}

static void test_members_of_members_are_shown_by_their_path(void **state)
{
	(void)state;
	UPDATE("{\"address\":{\"city\":\"K\xc3\xb6ln\",\"zip\":1},\"n\":1}",
	       "{\"address\":{\"city\":\"Bonn\",\"zip\":1},\"n\":1}",
	       "address.city: \"K\xc3\xb6ln\" -> \"Bonn\"");
	UPDATE("{\"a\":{\"b\":{\"c\":1}}}", "{\"a\":{\"b\":{\"d\":1}}}", "+a.b.d: 1, -a.b.c: 1");
}

static void test_objects_that_differ_in_layout_alone_are_shown_as_bytes(void **state)
{
	(void)state;
	UPDATE("{\"a\":1}", "{ \"a\":1}", "{\"a\":1} -> { \"a\":1}");
	UPDATE("{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}", "{\"a\":1,\"b\":2} -> {\"b\":2,\"a\":1}");
	UPDATE("{\"x\":{\"a\":1}}", "{\"x\":{\"a\": 1}}", "x: {\"a\":1} -> {\"a\": 1}");
}

static void test_short_bytes_are_shown_whole(void **state)
{
	(void)state;
	UPDATE("10", "11", "10 -> 11");
	UPDATE("", "x", " -> x");
	UPDATE("[1]", "{\"a\":1}", "[1] -> {\"a\":1}");
}

static void test_long_bytes_are_shown_around_the_difference(void **state)
{
	(void)state;
	UPDATE("The quick brown fox jumps over the lazy dog and runs away",
	       "The quick brown fox jumps over the lively cat and runs away",
	       "...jumps over the lazy dog and runs away -> ...jumps over the lively cat and "
	       "runs away");
	UPDATE("0123456789012345678901234567890123456789x01234567890123456789",
	       "0123456789012345678901234567890123456789yy01234567890123456789",
	       "...4567890123456789x0123456789012345... -> "
	       "...4567890123456789yy0123456789012345...");
	UPDATE("0123456789012345678901234567890123456789",
	       "01234567890123456789012345678901234567890123456789",
	       "...4567890123456789 -> ...45678901234567890123456789");
}

static void test_a_difference_never_splits_a_character(void **state)
{
	(void)state;
	/* e9 and e8, which share their first byte in UTF-8; then two that share the last */
	UPDATE("0123456789012345678901234567890123456789\xc3\xa9",
	       "0123456789012345678901234567890123456789\xc3\xa8",
	       "...4567890123456789\xc3\xa9 -> ...4567890123456789\xc3\xa8");
	UPDATE("\xc3\xa9"
	       "0123456789012345678901234567890123456789",
	       "\xc4\xa9"
	       "0123456789012345678901234567890123456789",
	       "\xc3\xa9"
	       "0123456789012345... -> \xc4\xa9"
	       "0123456789012345...");
}

static void test_a_create_and_a_delete_show_the_value(void **state)
{
	(void)state;
	assert_string_equal(render('c', NULL, "{\"a\":1}"), "c k  {\"a\":1}");
	assert_string_equal(render('d', "{\"a\":1}", NULL), "d k  {\"a\":1}");
	assert_string_equal(render('d', NULL, NULL), "d k  (old value unknown)");
	UPDATE("x", "x", "(same bytes)");
}

static void test_what_is_not_printable_is_escaped(void **state)
{
	(void)state;
	UPDATE("\x1b[31m", "\n\xff", "\\x1b[31m -> \\x0a\\xff");
	UPDATE("{\"a\\n\":1,\"\xe2\x80\xae\":1}", "{\"a\\n\":2,\"\xe2\x80\xae\":2}",
	       "a\\n: 1 -> 2, \\xe2\\x80\\xae: 1 -> 2");
}

static void test_a_key_is_printed_as_get_takes_it(void **state)
{
	(void)state;
	free(line);
	line = render_line(&(struct render){ .time_ms = -1,
					     .op = 'd',
					     .key = "a\\\x01",
					     .key_len = 3,
					     .before = "x",
					     .before_len = 1 });
	assert_string_equal(line, "d a\\\\\\x01  x");
}

static void test_a_long_value_is_shortened_and_says_its_length(void **state)
{
	char value[1001];

	(void)state;
	memset(value, 'x', 1000);
	value[1000] = '\0';
	assert_int_equal(strlen(render('c', NULL, value)), 5 + 160 + strlen("... (1000 bytes)"));
	assert_string_equal(line + 5 + 160, "... (1000 bytes)");
}

static void test_time_and_cause_are_around_the_change(void **state)
{
	struct render r = { .time_ms = 1700000000500,
			    .op = 'd',
			    .cause = "reconcile",
			    .key = "k",
			    .key_len = 1,
			    .before = "1",
			    .before_len = 1 };

	(void)state;
	setenv("TZ", "UTC", 1);
	tzset();
	free(line);
	line = render_line(&r);
	assert_string_equal(line, "2023-11-14 22:13:20.500 d k  1 (reconcile)");
	r.cause = "log";
	free(line);
	line = render_line(&r);
	assert_string_equal(line, "2023-11-14 22:13:20.500 d k  1");
}

static void test_color_marks_what_changed_and_ends_after_it(void **state)
{
	struct render r = { .time_ms = -1,
			    .op = 'u',
			    .key = "k",
			    .key_len = 1,
			    .before = "{\"a\":1}",
			    .before_len = 7,
			    .after = "{\"a\":2}",
			    .after_len = 7,
			    .color = true };

	(void)state;
	free(line);
	line = render_line(&r);
	assert_string_equal(line, "\033[33mu\033[0m \033[1mk\033[0m  "
				  "a: \033[31m1\033[0m -> \033[32m2\033[0m");
}

static void test_an_object_of_many_members_or_levels_is_shown_as_bytes(void **state)
{
	char before[2000], after[2000], *p = before;

	(void)state;
	for (int i = 0; i < 100; i++)
		p += sprintf(p, "%c\"m%02d\":1", i ? ',' : '{', i);
	strcpy(p, "}");
	strcpy(after, before);
	after[strlen(after) - 2] = '2';
	assert_string_equal(render('u', before, after),
			    "u k  ...1,\"m98\":1,\"m99\":1} -> ...1,\"m98\":1,\"m99\":2}");
}

static void test_random_bytes_give_one_printable_line(void **state)
{
	static const char some[] = "{}[]\":,ab\\ \n\x1b\xc3\xa9\xff";
	char before[200], after[200];

	(void)state;
	srand(1);
	for (int i = 0; i < 20000; i++) {
		size_t n = (size_t)rand() % 150, m = (size_t)rand() % 150;

		for (size_t k = 0; k < n; k++)
			before[k] = some[(size_t)rand() % (sizeof(some) - 1)];
		memcpy(after, before, sizeof(after));
		for (int k = 0; k < 3; k++)
			after[rand() % 150] = some[(size_t)rand() % (sizeof(some) - 1)];
		before[n] = after[m] = '\0';
		for (const char *p = render('u', before, after); *p; p++)
			assert_true((unsigned char)*p >= 0x20);
	}
}

static int fini(void **state)
{
	(void)state;
	free(line);
	line = NULL;
	return 0;
}
#define TEST(f) cmocka_unit_test_teardown(f, fini)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_only_members_that_differ_are_shown),
		TEST(test_members_that_came_and_went_have_a_sign),
		TEST(test_members_of_members_are_shown_by_their_path),
		TEST(test_objects_that_differ_in_layout_alone_are_shown_as_bytes),
		TEST(test_short_bytes_are_shown_whole),
		TEST(test_long_bytes_are_shown_around_the_difference),
		TEST(test_a_difference_never_splits_a_character),
		TEST(test_a_create_and_a_delete_show_the_value),
		TEST(test_what_is_not_printable_is_escaped),
		TEST(test_a_key_is_printed_as_get_takes_it),
		TEST(test_a_long_value_is_shortened_and_says_its_length),
		TEST(test_time_and_cause_are_around_the_change),
		TEST(test_color_marks_what_changed_and_ends_after_it),
		TEST(test_an_object_of_many_members_or_levels_is_shown_as_bytes),
		TEST(test_random_bytes_give_one_printable_line),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
