#include "join_field.h"
#include "harness.h"

static struct field f;

/* A copy without a byte to spare, so that a sanitizer sees every byte read too far. */
static int get(const char *json, size_t len, const char *path)
{
	char *exact = malloc(len ? len : 1);
	int kind;

	memcpy(exact, json, len);
	kind = field_get(&f, exact, len, path);
	memset(exact, 'x', len); /* what was found is a copy */
	free(exact);
	return kind;
}

static void expect(const char *json, const char *path, int kind, const char *text, size_t len)
{
	assert_int_equal(get(json, strlen(json), path), kind);
	assert_int_equal(f.len, len);
	assert_memory_equal(f.text, text, len);
}
#define TEXT(json, path, text)   expect(json, path, FIELD_TEXT, text, sizeof(text) - 1)
#define NUMBER(json, path, text) expect(json, path, FIELD_NUMBER, text, sizeof(text) - 1)
#define NONE(json, path)         assert_int_equal(get(json, strlen(json), path), FIELD_NONE)

static void test_a_string_gives_its_characters(void **state)
{
	(void)state;
	TEXT("{\"id\":\"u-7\"}", "id", "u-7");
	TEXT("{\"id\":\"\"}", "id", "");
	TEXT(" { \"a\" : 1 , \"id\" : \"x\" } ", "id", "x");
	TEXT("{\"id\":\"\xc3\xbc\xe4\xb8\xad\"}", "id", "\xc3\xbc\xe4\xb8\xad");
}

static void test_escapes_are_undone(void **state)
{
	(void)state;
	TEXT("{\"id\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}", "id", "\"\\/\b\f\n\r\t");
	TEXT("{\"id\":\"a\\u0041\\u00fc\\u4e2d\\ud83d\\ude00z\"}", "id",
	     "aA\xc3\xbc\xe4\xb8\xad\xf0\x9f\x98\x80z");
	TEXT("{\"id\":\"\\u0000\\uFFFF\\u07ff\\u0800\"}", "id",
	     "\0\xef\xbf\xbf\xdf\xbf\xe0\xa0\x80");
	TEXT("{\"id\":\"\\udbff\\udfff\"}", "id", "\xf4\x8f\xbf\xbf");
}

static void test_a_whole_number_gives_its_digits_as_they_are_written(void **state)
{
	(void)state;
	NUMBER("{\"id\":42}", "id", "42");
	NUMBER("{\"id\":-7 }", "id", "-7");
	NUMBER("{\"id\":0}", "id", "0");
	NUMBER("{\"id\":123456789012345678901234567890}", "id", "123456789012345678901234567890");
}

static void test_everything_else_gives_nothing(void **state)
{
	(void)state;
	NONE("{\"id\":1.0}", "id");
	NONE("{\"id\":1e2}", "id");
	NONE("{\"id\":null}", "id");
	NONE("{\"id\":true}", "id");
	NONE("{\"id\":[\"u-7\"]}", "id");
	NONE("{\"id\":{\"x\":1}}", "id");
	NONE("{\"other\":1}", "id");
	NONE("{}", "id");
}

static void test_what_is_no_json_object_has_no_fields(void **state)
{
	(void)state;
	NONE("", "id");
	NONE("\"id\"", "id");
	NONE("[{\"id\":1}]", "id");
	NONE("{\"id\":\"cut", "id");
	NONE("{\"id\":\"x\"} x", "id");
	NONE("{\"id\":\"\\ud800\"}", "id");
	NONE("{\"id\":\"\xff\"}", "id");
	assert_int_equal(field_get(&f, NULL, 0, "id"), FIELD_NONE);
}

static void test_a_path_leads_through_objects_only(void **state)
{
	(void)state;
	TEXT("{\"a\":{\"b\": { \"c\" : \"x\" } }}", "a.b.c", "x");
	NONE("{\"a\":{\"b\":\"x\"}}", "a.b.c");
	NONE("{\"a\":[{\"b\":\"x\"}]}", "a.b");
	NONE("{\"a\":\"x\"}", "a.b");
	NONE("{\"a.b\":\"x\"}", "a.b");
}

static void test_of_members_of_one_name_the_last_counts(void **state)
{
	(void)state;
	TEXT("{\"id\":\"a\",\"id\":\"b\"}", "id", "b");
	NONE("{\"id\":\"a\",\"id\":null}", "id");
	TEXT("{\"a\":{\"id\":\"1\"},\"a\":{\"id\":\"2\"}}", "a.id", "2");
}

static void test_a_name_may_be_written_with_escapes(void **state)
{
	(void)state;
	TEXT("{\"\\u0069d\":\"x\"}", "id", "x");
	NONE("{\"\\u0069d\\u0000\":\"x\"}", "id");
	TEXT("{\"\xc3\xbc\":\"x\"}", "\xc3\xbc", "x");
	TEXT("{\"i\":\"no\",\"idd\":\"no\",\"id\":\"x\",\"Id\":\"no\"}", "id", "x");
}

static void test_brackets_and_quotes_within_strings_lead_nowhere(void **state)
{
	(void)state;
	TEXT("{\"s\":\"}{][,\\\"id\\\":\\\"no\\\"\",\"id\":\"x\"}", "id", "x");
	TEXT("{\"s\":{\"id\":\"no\"},\"t\":[{\"id\":\"no\"}],\"id\":\"x\"}", "id", "x");
}

static void test_a_long_string_after_a_short_one_has_room(void **state)
{
	char *json = malloc(100000);

	(void)state;
	TEXT("{\"id\":\"x\"}", "id", "x");
	memcpy(json, "{\"id\":\"", 7);
	memset(json + 7, 'y', 99990);
	memcpy(json + 99997, "\"}", 3);
	assert_int_equal(get(json, 99999, "id"), FIELD_TEXT);
	assert_int_equal(f.len, 99990);
	free(json);
}

static int fini(void **state)
{
	(void)state;
	field_free(&f);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_string_gives_its_characters),
		cmocka_unit_test(test_escapes_are_undone),
		cmocka_unit_test(test_a_whole_number_gives_its_digits_as_they_are_written),
		cmocka_unit_test(test_everything_else_gives_nothing),
		cmocka_unit_test(test_what_is_no_json_object_has_no_fields),
		cmocka_unit_test(test_a_path_leads_through_objects_only),
		cmocka_unit_test(test_of_members_of_one_name_the_last_counts),
		cmocka_unit_test(test_a_name_may_be_written_with_escapes),
		cmocka_unit_test(test_brackets_and_quotes_within_strings_lead_nowhere),
		cmocka_unit_test(test_a_long_string_after_a_short_one_has_room),
	};

	return cmocka_run_group_tests(tests, NULL, fini);
}
