#include "json.h"
#include "harness.h"

/* A copy without a byte to spare, so that a sanitizer sees every byte read too far. */
static bool is_object(const char *text, size_t len)
{
	char *exact = malloc(len);
	bool ok;

	if (len)
		memcpy(exact, text, len);
	ok = json_is_object(exact, len);
	free(exact);
	return ok;
}

static void check(const char *text, size_t len, bool expected)
{
	if (is_object(text, len) != expected)
		fail_msg("%s: %.*s", expected ? "refused" : "accepted", (int)len, text);
}
#define YES(text) check(text, sizeof(text) - 1, true)
#define NO(text)  check(text, sizeof(text) - 1, false)

/* As a value, as a member of an array, and as the last of several. */
static void check_value(const char *value, bool expected)
{
	static const char *const around[] = { "{\"a\":%s}", "{\"a\":[%s]}", "{\"a\":[0,%s ] }",
					      "{\"a\":%s,\"b\":{}}", "{\"\":%s\n}" };
	char text[256];

	for (size_t i = 0; i < sizeof(around) / sizeof(*around); i++) {
		snprintf(text, sizeof(text), around[i], value);
		check(text, strlen(text), expected);
	}
}

static void test_objects_of_every_kind_of_value_are_objects(void **state)
{
	(void)state;
	YES("{}");
	YES("{\"a\":{},\"b\":[],\"c\":\"\",\"d\":0,\"e\":true,\"f\":false,\"g\":null}");
	YES("{\"a\":[[[]],[{}],{\"b\":[1,2,3]}]}");
	YES("{\"\":{\"\":{\"\":{}}}}");
}

static void test_white_space_is_allowed_between_and_around(void **state)
{
	(void)state;
	YES(" \t\r\n{ \t\r\n} \t\r\n");
	YES("{ \"a\" : [ 1 , 2 ] , \"b\" : { } }\n");
	NO("\f{}");
	NO("{\v}");
	NO("{}\xc2\xa0");
}

static void test_what_is_not_an_object_is_refused(void **state)
{
	static const char *const texts[] = { "", " ", "[]", "[{}]", "\"{}\"", "1", "null", "true" };

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		check(texts[i], strlen(texts[i]), false);
	assert_false(json_is_object(NULL, 0));
}

static void test_one_object_and_nothing_behind_or_before_it(void **state)
{
	(void)state;
	NO("{}{}");
	NO("{} {}");
	NO("{},{}");
	NO("{}x");
	NO("x{}");
	NO("{}\0");
	NO("\xef\xbb\xbf{}");
	NO("{}//");
	NO("/**/{}");
}

static void test_every_prefix_of_an_object_is_refused(void **state)
{
	static const char text[] = "{\"a\\n\\ud83d\\ude00\":[-1.5e+10,true,{\"b\":null}],"
				   "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\":\"\",\"c\":false}";

	(void)state;
	YES(text);
	for (size_t i = 0; i < sizeof(text) - 1; i++)
		check(text, i, false);
}

static void test_brackets_must_match(void **state)
{
	(void)state;
	NO("{");
	NO("}");
	NO("{]");
	NO("{}}");
	NO("{{}}");
	NO("{\"a\":[}");
	NO("{\"a\":[}]}");
	NO("{\"a\":[{]}}");
	NO("{\"a\":{]}");
}

static void test_commas_and_colons_must_be_where_they_belong(void **state)
{
	(void)state;
	NO("{,}");
	NO("{\"a\":1,}");
	NO("{,\"a\":1}");
	NO("{\"a\":1,,\"b\":2}");
	NO("{\"a\":1 \"b\":2}");
	NO("{\"a\"}");
	NO("{\"a\":}");
	NO("{\"a\":,\"b\":1}");
	NO("{\"a\"::1}");
	NO("{:1}");
	NO("{\"a\",1}");
	NO("{\"a\":[1,]}");
	NO("{\"a\":[,1]}");
	NO("{\"a\":[1 2]}");
	NO("{\"a\":[1:2]}");
}

static void test_names_are_strings(void **state)
{
	(void)state;
	NO("{a:1}");
	NO("{'a':1}");
	NO("{1:1}");
	NO("{null:1}");
	NO("{[]:1}");
	NO("{\"a:1}");
}

static void test_numbers_of_any_size_are_numbers(void **state)
{
	static const char *const numbers[] = {
		"0",
		"-0",
		"1",
		"10",
		"-123",
		"0.5",
		"-0.0",
		"1e5",
		"1E+5",
		"1e-05",
		"0e0",
		"1.5E10",
		"18446744073709551616",
		"123456789012345678901234567890123456789012345678901234567890",
		"1e999999999999",
		"0.1000000000000000055511151231257827021181583404541015625",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
		check_value(numbers[i], true);
}

static void test_what_only_looks_like_a_number_is_refused(void **state)
{
	static const char *const numbers[] = { "-",        "+1",        "01",  "-01", "00",
					       "1.",       ".5",        "-.5", "1e",  "1e+",
					       "1.e5",     "1e5.5",     "0x1", "1_0", "NaN",
					       "Infinity", "-Infinity", "1a",  "--1", "1-",
					       "1e5e5" };

	(void)state;
	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
		check_value(numbers[i], false);
}

static void test_the_three_words_are_spelled_exactly(void **state)
{
	static const char *const words[] = { "True", "tru",   "truee", "nul", "NULL", "nulll",
					     "fals", "False", "f",     "t",   "n",    "undefined" };

	(void)state;
	check_value("true", true);
	check_value("false", true);
	check_value("null", true);
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		check_value(words[i], false);
}

static void test_escapes_are_the_nine_of_the_rfc(void **state)
{
	char value[] = "\"\\x\"";

	(void)state;
	check_value("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uABCD\\u0000\"", true);
	for (int c = 1; c < 256; c++) {
		value[2] = (char)c;
		check_value(value, strchr("\"\\/bfnrt", c));
	}
	NO("{\"a\":\"\\\0\"}");
	check_value("\"\\\"", false);
	check_value("\"\\u\"", false);
	check_value("\"\\u12\"", false);
	check_value("\"\\u123\"", false);
	check_value("\"\\u12g4\"", false);
	check_value("\"\\U0041\"", false);
}

static void test_a_surrogate_escape_is_allowed_as_half_of_a_pair_only(void **state)
{
	(void)state;
	check_value("\"\\ud83d\\ude00\"", true);
	check_value("\"\\uDBFF\\uDFFF\"", true);
	check_value("\"\\ud800\"", false);
	check_value("\"\\udc00\"", false);
	check_value("\"\\ud800x\"", false);
	check_value("\"\\ud800\\n\"", false);
	check_value("\"\\ud800\\u0041\"", false);
	check_value("\"\\ud800\\ud800\"", false);
	check_value("\"\\ude00\\ud83d\"", false);
	check_value("\"\\ud800\\udc0\"", false);
	check_value("\"\\ud7ff\\ue000\"", true);
}

static void test_control_characters_in_strings_are_refused_wherever_they_stand(void **state)
{
	char text[64];

	(void)state;
	for (int c = 0; c < 0x80; c++) {
		for (size_t at = 6; at < 30; at++) {
			memset(text, 'x', sizeof(text));
			memcpy(text, "{\"a\":\"", 6);
			memcpy(text + 30, "\"}", 2);
			text[at] = (char)c;
			if (c != '"' && c != '\\')
				check(text, 32, c >= 0x20);
		}
	}
}

static void test_utf8_of_every_length_is_accepted(void **state)
{
	(void)state;
	check_value("\"\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\"",
		    true);
	check_value("\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"", true);
	YES("{\"\xd0\xba\xd0\xbb\xd1\x8e\xd1\x87\":\"\xe5\x80\xbc\"}");
}

static void test_bytes_that_are_not_utf8_are_refused(void **state)
{
	static const char *const bad[] = {
		"\x80",
		"\xbf",
		"\xc2",
		"\xc2 ",
		"\xc0\x80",
		"\xc1\xbf",
		"\xe0\x9f\xbf",
		"\xe2\x82",
		"\xe2\x82 ",
		"\xed\xa0\x80",
		"\xed\xbf\xbf",
		"\xf0\x8f\xbf\xbf",
		"\xf0\x9f\x98",
		"\xf4\x90\x80\x80",
		"\xf5\x80\x80\x80",
		"\xff",
		"\xfe",
		"\xc3\xc3",
		"\xf8\x88\x80\x80\x80",
	};
	char value[32];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		snprintf(value, sizeof(value), "\"%s\"", bad[i]);
		check_value(value, false);
		snprintf(value, sizeof(value), "\"0123456789%sabcdefghij\"", bad[i]);
		check_value(value, false);
	}
}

/* `depth` levels of `open`, closed again. */
static size_t nest(char *text, int depth, const char *open)
{
	char *p = text;

	p += sprintf(p, "{\"a\":");
	for (int i = 2; i < depth; i++)
		p += sprintf(p, "%s", open);
	p += sprintf(p, "{}");
	for (int i = 2; i < depth; i++)
		*p++ = *open == '[' ? ']' : '}';
	*p++ = '}';
	return (size_t)(p - text);
}

static void test_nesting_is_allowed_to_512_levels_and_no_further(void **state)
{
	static char text[8 * 100000];

	(void)state;
	assert_int_equal(JSON_DEPTH_MAX, 512);
	assert_true(is_object(text, nest(text, 512, "[")));
	assert_true(is_object(text, nest(text, 512, "{\"a\":")));
	assert_false(is_object(text, nest(text, 513, "[")));
	assert_false(is_object(text, nest(text, 513, "{\"a\":")));
	assert_false(is_object(text, nest(text, 100000, "[")));
}

static void test_a_closing_bracket_is_matched_at_every_depth(void **state)
{
	static char text[8 * 512];
	size_t len = nest(text, 512, "[");

	(void)state;
	for (size_t i = len / 2 + 2; i < len; i++) {
		char was = text[i];

		text[i] = was == ']' ? '}' : ']';
		assert_false(is_object(text, len));
		text[i] = was;
	}
}

static void test_a_name_may_come_twice(void **state)
{
	(void)state;
	YES("{\"a\":1,\"a\":2}");
}

static void assert_string(const char *bytes, size_t len, const char *expected)
{
	char out[256];

	*json_put_string(out, bytes, len) = '\0';
	assert_string_equal(out, expected);
	assert_true(strlen(out) <= JSON_STRING_MAX(len));
}

static void test_text_is_written_as_a_string_of_its_characters(void **state)
{
	(void)state;
	assert_string("", 0, "\"\"");
	assert_string("plain / text", 12, "\"plain / text\"");
	assert_string("\"\\\b\f\n\r\t", 7, "\"\\\"\\\\\\b\\f\\n\\r\\t\"");
	assert_string("\0\x01\x1f\x7f", 4, "\"\\u0000\\u0001\\u001f\x7f\"");
	assert_string("\xc3\xa9\xf0\x9f\x98\x80", 6, "\"\xc3\xa9\xf0\x9f\x98\x80\"");
	assert_string("a\xff\xc3", 3, "\"a\\ufffd\\ufffd\"");
}

static void test_whatever_is_written_as_a_string_is_valid_json(void **state)
{
	char text[6 * 512 + 16], bytes[512];

	(void)state;
	srand(1);
	for (int i = 0; i < 1000; i++) {
		size_t n = (size_t)rand() % sizeof(bytes);
		char *p = text;

		for (size_t k = 0; k < n; k++)
			bytes[k] = (char)rand();
		memcpy(p, "{\"a\":", 5);
		p = json_put_string(p + 5, bytes, n);
		*p++ = '}';
		assert_true(is_object(text, (size_t)(p - text)));
	}
}

/* All members, as "name=value;". */
static const char *members(const char *object, size_t len)
{
	static char text[1024];
	struct json_member m;
	char *p = text;

	*p = '\0';
	for (size_t pos = 0; json_next_member(object, len, &pos, &m);)
		p += sprintf(p, "%.*s=%.*s;", (int)m.name_len, m.name, (int)m.value_len, m.value);
	return text;
}
#define MEMBERS(object) members(object, sizeof(object) - 1)

static void test_members_are_found_as_they_are_written(void **state)
{
	(void)state;
	assert_string_equal(MEMBERS("{}"), "");
	assert_string_equal(MEMBERS(" { } "), "");
	assert_string_equal(MEMBERS("{\"a\":1}"), "a=1;");
	assert_string_equal(
		MEMBERS(" { \"a\" : [1, {\"b\":2}] ,\n\"c\\\"\":\"},{\" , \"\":null } "),
		"a=[1, {\"b\":2}];c\\\"=\"},{\";=null;");
	assert_string_equal(MEMBERS("{\"a\":{},\"a\":[]}"), "a={};a=[];");
}

static void test_what_is_no_object_has_no_members_beyond_its_end(void **state)
{
	static const char text[] = "{\"a\":[1,{\"b\":\"c\"}],\"d\":true}";

	(void)state;
	for (size_t i = 0; i < sizeof(text) - 1; i++) {
		char *exact = malloc(i);

		memcpy(exact, text, i);
		members(exact, i);
		free(exact);
	}
	assert_string_equal(MEMBERS("[1]"), "");
	assert_string_equal(MEMBERS("{\"a\"}"), "");
	assert_string_equal(MEMBERS("{\"a\":\"\xff\"}"), "");
	assert_string_equal(MEMBERS("{\"a\":1]x"), "a=1;");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_objects_of_every_kind_of_value_are_objects),
		cmocka_unit_test(test_white_space_is_allowed_between_and_around),
		cmocka_unit_test(test_what_is_not_an_object_is_refused),
		cmocka_unit_test(test_one_object_and_nothing_behind_or_before_it),
		cmocka_unit_test(test_every_prefix_of_an_object_is_refused),
		cmocka_unit_test(test_brackets_must_match),
		cmocka_unit_test(test_commas_and_colons_must_be_where_they_belong),
		cmocka_unit_test(test_names_are_strings),
		cmocka_unit_test(test_numbers_of_any_size_are_numbers),
		cmocka_unit_test(test_what_only_looks_like_a_number_is_refused),
		cmocka_unit_test(test_the_three_words_are_spelled_exactly),
		cmocka_unit_test(test_escapes_are_the_nine_of_the_rfc),
		cmocka_unit_test(test_a_surrogate_escape_is_allowed_as_half_of_a_pair_only),
		cmocka_unit_test(
			test_control_characters_in_strings_are_refused_wherever_they_stand),
		cmocka_unit_test(test_utf8_of_every_length_is_accepted),
		cmocka_unit_test(test_bytes_that_are_not_utf8_are_refused),
		cmocka_unit_test(test_nesting_is_allowed_to_512_levels_and_no_further),
		cmocka_unit_test(test_a_closing_bracket_is_matched_at_every_depth),
		cmocka_unit_test(test_a_name_may_come_twice),
		cmocka_unit_test(test_text_is_written_as_a_string_of_its_characters),
		cmocka_unit_test(test_whatever_is_written_as_a_string_is_valid_json),
		cmocka_unit_test(test_members_are_found_as_they_are_written),
		cmocka_unit_test(test_what_is_no_object_has_no_members_beyond_its_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
