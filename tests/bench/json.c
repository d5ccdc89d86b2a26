/*
 * What answers "are these bytes exactly one valid JSON object", and how fast:
 * the parsers of the distribution and sidecar/json.c.
 *
 *   cc -O2 -Isidecar -o /tmp/json tests/bench/json.c \
 *      tests/bench/json_jansson.c sidecar/json.c \
 *      -ljansson -ljson-c -lcjson -lyajl && /tmp/json
 *
 * Each parser is used as strictly as its interface allows, and as leniently as
 * legal JSON demands.  Prints the two tables of docs/notifications.md.
 */
#include "json.h"

#include <cjson/cJSON.h>
#include <json-c/json.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <yajl/yajl_parse.h>

static bool with_jsonc(const char *s, size_t len)
{
	struct json_tokener *t = json_tokener_new_ex(JSON_DEPTH_MAX + 1);
	struct json_object *v;
	bool ok;

	json_tokener_set_flags(t, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	v = json_tokener_parse_ex(t, s, (int)len);
	ok = json_tokener_get_error(t) == json_tokener_success &&
	     json_object_is_type(v, json_type_object) && json_tokener_get_parse_end(t) == len;
	json_object_put(v);
	json_tokener_free(t);
	return ok;
}

static bool with_cjson(const char *s, size_t len)
{
	const char *end = NULL;
	cJSON *v = cJSON_ParseWithLengthOpts(s, len, &end, 0);
	bool ok = cJSON_IsObject(v);

	while (ok && end < s + len && *end && strchr(" \t\r\n", *end))
		end++;
	ok = ok && end == s + len;
	cJSON_Delete(v);
	return ok;
}

static bool with_yajl(const char *s, size_t len)
{
	yajl_handle h = yajl_alloc(NULL, NULL, NULL);
	bool ok = yajl_parse(h, (const unsigned char *)s, len) == yajl_status_ok &&
		  yajl_complete_parse(h) == yajl_status_ok;

	yajl_free(h);
	while (ok && len && strchr(" \t\r\n", *s))
		s++, len--;
	return ok && len && *s == '{';
}

static bool with_ours(const char *s, size_t len) { return json_is_object(s, len); }

bool with_jansson(const char *s, size_t len); /* json_jansson.c: its names clash with json-c's */

static const struct {
	const char *name;
	bool (*is_object)(const char *s, size_t len);
} parsers[] = {
	{ "jansson", with_jansson }, { "json-c", with_jsonc },        { "cJSON", with_cjson },
	{ "yajl", with_yajl },       { "sidecar/json.c", with_ours },
};
enum { PARSERS = sizeof(parsers) / sizeof(*parsers) };

#define TEXT(s) s, sizeof(s) - 1
static const struct {
	const char *what, *text;
	size_t len;
	bool expected;
} cases[] = {
	{ "integer beyond 64 bits", TEXT("{\"a\":123456789012345678901234567890}"), true },
	{ "`1e999`", TEXT("{\"a\":1e999}"), true },
	{ "`\\u0000` in a string", TEXT("{\"a\":\"\\u0000\"}"), true },
	{ "`\\u0000` in a name", TEXT("{\"\\u0000\":1}"), true },
	{ "a name twice", TEXT("{\"a\":1,\"a\":2}"), true },
	{ "white space around", TEXT(" \t\r\n{} \t\r\n"), true },
	{ "lone surrogate escape", TEXT("{\"a\":\"\\ud800\"}"), false },
	{ "byte order mark", TEXT("\xef\xbb\xbf{}"), false },
	{ "trailing garbage", TEXT("{} x"), false },
	{ "a second object", TEXT("{}{}"), false },
	{ "trailing NUL byte", TEXT("{}\0"), false },
	{ "NUL byte in a string", TEXT("{\"a\":\"\0\"}"), false },
	{ "NUL byte behind a number", TEXT("{\"a\":1\0}"), false },
	{ "line feed in a string", TEXT("{\"a\":\"\n\"}"), false },
	{ "overlong UTF-8", TEXT("{\"a\":\"\xc0\xaf\"}"), false },
	{ "surrogate in UTF-8", TEXT("{\"a\":\"\xed\xa0\x80\"}"), false },
	{ "stray byte `ff`", TEXT("{\"a\":\"\xff\"}"), false },
	{ "truncated UTF-8", TEXT("{\"a\":\"\xe2\x82\"}"), false },
	{ "`01`", TEXT("{\"a\":01}"), false },
	{ "`1.`", TEXT("{\"a\":1.}"), false },
	{ "`-`", TEXT("{\"a\":-}"), false },
	{ "`NaN`", TEXT("{\"a\":NaN}"), false },
	{ "a comma too many", TEXT("{\"a\":1,}"), false },
	{ "single quotes", TEXT("{'a':1}"), false },
	{ "a comment", TEXT("{/**/}"), false },
	{ "no value", TEXT("{\"a\":}"), false },
	{ "form feed as space", TEXT("{\f}"), false },
	{ "an array", TEXT("[{}]"), false },
};

static void nested(char *s, int depth)
{
	for (int i = 1; i < depth; i++, s += 5)
		memcpy(s, "{\"a\":", 5);
	*s++ = '{';
	memset(s, '}', (size_t)depth);
}

static void row(const char *what, const char *text, size_t len, bool expected)
{
	printf("| %s | %s |", what, expected ? "yes" : "no");
	for (int i = 0; i < PARSERS; i++)
		printf(" %s |", parsers[i].is_object(text, len) == expected ? "right" : "WRONG");
	printf("\n");
}

static void correctness(void)
{
	static char deep[6 * 100000];

	printf("| input | an object | jansson | json-c | cJSON | yajl | sidecar/json.c |\n"
	       "|---|---|---|---|---|---|---|\n");
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		row(cases[i].what, cases[i].text, cases[i].len, cases[i].expected);
	nested(deep, 512);
	row("512 levels", deep, 6 * 512 - 4, true);
	nested(deep, 100000);
	row("100,000 levels (must be refused)", deep, 6 * 100000 - 4, false);
}

#define ITEM                                                                                       \
	"{\"sku\":\"A-1029-XL\",\"title\":\"Wool coat, dark \\\"night\\\" blue\",\"qty\":2,"       \
	"\"price\":{\"amount\":149.90,\"currency\":\"EUR\"},\"tags\":[\"sale\",\"w\xc3\xa4rm\"],"  \
	"\"in_stock\":true,\"note\":null}"
static const char small[] =
	"{\"id\":9007199254740993,\"customer\":\"c-58121\",\"status\":\"shipped\",\"total\":299.80,"
	"\"currency\":\"EUR\",\"address\":{\"city\":\"K\xc3\xb6ln\",\"zip\":\"50667\"},"
	"\"updated\":\"2024-05-17T12:31:07Z\",\"flags\":[1,2,3],\"vip\":false}";
static const char large[] = "{\"order\":9007199254740993,\"items\":[" ITEM "," ITEM "," ITEM
			    "," ITEM "," ITEM "," ITEM "," ITEM "," ITEM "," ITEM "," ITEM "]}";

static double mb_per_s(int parser, const char *text, size_t len)
{
	struct timespec a, b;
	double best = 0;

	for (int run = 0; run < 5; run++) {
		size_t n = 20000000 / len;
		double s;

		clock_gettime(CLOCK_MONOTONIC, &a);
		for (size_t i = 0; i < n; i++)
			if (!parsers[parser].is_object(text, len))
				abort();
		clock_gettime(CLOCK_MONOTONIC, &b);
		s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
		if ((double)(n * len) / s / 1e6 > best)
			best = (double)(n * len) / s / 1e6;
	}
	return best;
}

int main(void)
{
	correctness();
	printf("\n| MB/s | %zu bytes | %zu bytes |\n|---|---|---|\n", sizeof(small) - 1,
	       sizeof(large) - 1);
	for (int i = 0; i < PARSERS; i++)
		printf("| %s | %.0f | %.0f |\n", parsers[i].name,
		       mb_per_s(i, small, sizeof(small) - 1),
		       mb_per_s(i, large, sizeof(large) - 1));
	return 0;
}
