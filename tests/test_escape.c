#include "escape.h"
#include "harness.h"

static void assert_escapes(const void *bytes, size_t len, const char *expected)
{
	char *text = escape_key(bytes, len);

	assert_non_null(text);
	assert_string_equal(text, expected);
	free(text);
}
#define assert_escapes_string(s, expected) assert_escapes(s, sizeof(s) - 1, expected)

static void assert_parses(const char *text, const void *expected, size_t expected_len)
{
	void *bytes;
	size_t len;

	assert_int_equal(escape_parse(text, &bytes, &len), 0);
	assert_int_equal(len, expected_len);
	assert_memory_equal(bytes, expected, len);
	free(bytes);
}

static void test_printable_ascii_stands_for_itself_and_a_backslash_is_doubled(void **state)
{
	(void)state;
	assert_escapes_string("user-1 {\"a\"}~", "user-1 {\"a\"}~");
	assert_escapes_string("a\\b", "a\\\\b");
	assert_escapes_string("", "");
}

static void test_control_bytes_are_hexadecimal(void **state)
{
	(void)state;
	assert_escapes_string("\0\n\t\x1b\x7f", "\\x00\\x0a\\x09\\x1b\\x7f");
}

static void test_printable_utf8_stands_for_itself(void **state)
{
	(void)state;
	assert_escapes_string("straße", "straße");
	assert_escapes_string("日本", "日本");
	assert_escapes_string("\xf0\x9f\x90\x98", "\xf0\x9f\x90\x98"); /* an elephant */
}

static void test_broken_utf8_is_hexadecimal_byte_by_byte(void **state)
{
	(void)state;
	assert_escapes_string("\xff", "\\xff");
	assert_escapes_string("\xc3", "\\xc3");                            /* cut off */
	assert_escapes_string("\xc3(", "\\xc3(");                          /* not continued */
	assert_escapes_string("\xc0\xaf", "\\xc0\\xaf");                   /* overlong */
	assert_escapes_string("\xe0\x80\xaf", "\\xe0\\x80\\xaf");          /* overlong */
	assert_escapes_string("\xed\xa0\x80", "\\xed\\xa0\\x80");          /* surrogate */
	assert_escapes_string("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"); /* beyond the last */
}

static void test_characters_that_hide_or_turn_text_are_hexadecimal(void **state)
{
	(void)state;
	assert_escapes_string("\xc2\x85", "\\xc2\\x85");          /* next line, a C1 control */
	assert_escapes_string("\xe2\x80\xa8", "\\xe2\\x80\\xa8"); /* line separator */
	assert_escapes_string("\xe2\x80\xae", "\\xe2\\x80\\xae"); /* right-to-left override */
	assert_escapes_string("\xe2\x80\x8b", "\\xe2\\x80\\x8b"); /* zero width space */
	assert_escapes_string("\xef\xbb\xbf", "\\xef\\xbb\\xbf"); /* byte order mark */
	assert_escapes_string("\xef\xbf\xbf", "\\xef\\xbf\\xbf"); /* no character */
}

static void test_every_printed_key_reads_back_as_the_same_bytes(void **state)
{
	unsigned char bytes[512];
	unsigned seed = 1;

	(void)state;
	for (int round = 0; round < 2000; round++) {
		size_t len = round % sizeof(bytes);

		for (size_t i = 0; i < len; i++) {
			seed = seed * 1103515245 + 12345;
			/* many of the bytes that begin or continue a character */
			bytes[i] = round % 2 ? seed >> 16 : 0x80 | (seed >> 16);
		}
		char *text = escape_key(bytes, len);

		assert_non_null(text);
		assert_parses(text, bytes, len);
		free(text);
	}
}

static void test_parse_takes_both_cases_of_hexadecimal_and_plain_bytes(void **state)
{
	(void)state;
	assert_parses("\\xAb\\xaB", "\xab\xab", 2);
	assert_parses("tab\there", "tab\there", 8);
	assert_parses("", "", 0);
}

static void test_parse_refuses_every_other_use_of_a_backslash(void **state)
{
	static const char *const bad[] = { "\\", "a\\n", "\\x", "\\x1", "\\xg0", "\\x0g", "\\X00" };
	void *bytes;
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(escape_parse(bad[i], &bytes, &len), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_printable_ascii_stands_for_itself_and_a_backslash_is_doubled),
		cmocka_unit_test(test_control_bytes_are_hexadecimal),
		cmocka_unit_test(test_printable_utf8_stands_for_itself),
		cmocka_unit_test(test_broken_utf8_is_hexadecimal_byte_by_byte),
		cmocka_unit_test(test_characters_that_hide_or_turn_text_are_hexadecimal),
		cmocka_unit_test(test_every_printed_key_reads_back_as_the_same_bytes),
		cmocka_unit_test(test_parse_takes_both_cases_of_hexadecimal_and_plain_bytes),
		cmocka_unit_test(test_parse_refuses_every_other_use_of_a_backslash),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
