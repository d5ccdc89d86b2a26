#include "envelope.h"
#include "json.h"
#include "harness.h"

#include <openssl/evp.h>

enum { NOW = 1700000000999, REACHED = 4900 };

static struct envelope e;
static struct note n;
static char headers[4096];

static const struct envelope_options usual = {
	.name = "orders",
	.cluster = "prod",
	.topic = "shop.orders",
	.max_bytes = 1048588,
	.version = "1.2.3",
};

#define SOURCE_BEGIN                                                                               \
	",\"source\":{\"version\":\"1.2.3\",\"connector\":\"sidenote\",\"name\":\"orders\","       \
	"\"ts_ms\":1700000000500,\"snapshot\":\"false\",\"db\":\"prod\","                          \
	"\"table\":\"shop.orders\",\"topic\":\"shop.orders\",\"partition\":3,\"offset\":4711,"
#define OLD_POSITION   "\"before_offset\":4402,\"before_ts_ms\":1700000000100,"
#define NO_OLD         "\"before_offset\":null,\"before_ts_ms\":null,"
#define END(cause, op) "\"cause\":\"" cause "\"},\"op\":\"" op "\",\"ts_ms\":1700000000999}"

static struct record record_of(const char *value, int64_t offset, int64_t time)
{
	return (struct record){ .flags = value ? 0 : RECORD_TOMBSTONE,
				.partition = 3,
				.offset = offset,
				.timestamp_ms = time,
				.value = value,
				.value_len = value ? strlen(value) : 0 };
}

/* From `before` (NULL: none) to `after` (NULL: a tombstone). */
static struct change change_of(enum change_op op, const char *before, const char *after)
{
	struct change c = { .partition = 3,
			    .offset = 4711,
			    .n = CHANGE_N_LOG,
			    .op = op,
			    .key = "k\"1",
			    .key_len = 3,
			    .has_before = before,
			    .has_after = true };

	if (before)
		c.before = record_of(before, 4402, 1700000000100);
	c.after = record_of(after, 4711, 1700000000500);
	return c;
}

static void make_as(const struct envelope_options *o, const struct change *c, enum note_cause cause)
{
	envelope_free(&e);
	envelope_init(&e, o);
	assert_int_equal(envelope_make(&e, c, cause, REACHED, NOW, &n), 0);
	assert_int_equal(n.key_len, c->key_len);
	assert_memory_equal(n.key, c->key, c->key_len);
}

static void make(const struct change *c) { make_as(&usual, c, NOTE_LOG); }

static void make_raw(const struct change *c, enum note_cause cause, size_t max_bytes)
{
	struct envelope_options o = usual;

	o.format = NOTE_RAW;
	o.max_bytes = max_bytes;
	make_as(&o, c, cause);
}

static void assert_bytes(const void *bytes, size_t len, const char *expected)
{
	if (len != strlen(expected) || memcmp(bytes, expected, len))
		fail_msg("\n     got: %.*s\nexpected: %s", (int)len, (const char *)bytes, expected);
}

static void assert_value(const char *expected) { assert_bytes(n.value, n.value_len, expected); }

static void assert_contains(const char *part)
{
	if (!memmem(n.value, n.value_len, part, strlen(part)))
		fail_msg("%s is not in %.*s", part, (int)n.value_len, (const char *)n.value);
}

static const struct record_header *find(const char *name)
{
	for (size_t i = 0; i < n.n_headers; i++)
		if (n.headers[i].name_len == strlen(name) &&
		    !memcmp(n.headers[i].name, name, strlen(name)))
			return &n.headers[i];
	return NULL;
}

static void assert_header(const char *name, const char *value)
{
	const struct record_header *h = find(name);

	if (!h)
		fail_msg("no header %s", name);
	else
		assert_bytes(h->value, h->value_len, value);
}

static void assert_no_header(const char *name) { assert_null(find(name)); }

static void give_headers(struct change *c, const struct record_header *h, size_t count)
{
	uint8_t *p = (uint8_t *)headers;

	for (size_t i = 0; i < count; i++)
		p = record_header_encode(p, &h[i]);
	c->after.headers = headers;
	c->after.headers_len = (size_t)(p - (uint8_t *)headers);
	c->after.flags |= RECORD_HEADERS;
}

/* {"sidenote.omitted":...} of these bytes, by another way than envelope.c's. */
static const char *omitted(const char *bytes, size_t len)
{
	static char text[2][160];
	static int which;
	unsigned char hash[32];
	char *p = text[which ^= 1];
	EVP_MD_CTX *x = EVP_MD_CTX_new();

	EVP_DigestInit_ex(x, EVP_sha256(), NULL);
	EVP_DigestUpdate(x, bytes, len);
	EVP_DigestFinal_ex(x, hash, NULL);
	EVP_MD_CTX_free(x);
	p += sprintf(p, "{\"sidenote.omitted\":{\"bytes\":%zu,\"sha256\":\"", len);
	for (int i = 0; i < 32; i++)
		p += sprintf(p, "%02x", hash[i]);
	strcpy(p, "\"}}");
	return text[which];
}

static char *object_of(size_t len)
{
	char *s = malloc(len + 1);

	memset(s, 'x', len);
	memcpy(s, "{\"a\":\"", 6);
	memcpy(s + len - 2, "\"}", 3);
	return s;
}

/* ---- debezium-json ---- */

static void test_an_update_has_both_values_byte_for_byte(void **state)
{
	struct change c = change_of(CHANGE_UPDATE, "{\"total\": 10.00, \"total\":1}",
				    " {\"total\":12345678901234567890123}\n");

	(void)state;
	make(&c);
	assert_value("{\"before\":{\"total\": 10.00, \"total\":1},"
		     "\"after\": {\"total\":12345678901234567890123}\n" SOURCE_BEGIN OLD_POSITION
			     END("log", "u"));
	assert_int_equal(n.wrapped, 0);
	assert_int_equal(n.omitted, 0);
}

static void test_a_create_has_no_before(void **state)
{
	struct change c = change_of(CHANGE_CREATE, NULL, "{}");

	(void)state;
	make(&c);
	assert_value("{\"before\":null,\"after\":{}" SOURCE_BEGIN NO_OLD END("log", "c"));
}

static void test_a_delete_has_no_after(void **state)
{
	struct change c = change_of(CHANGE_DELETE, "{\"a\":1}", NULL);

	(void)state;
	make(&c);
	assert_value(
		"{\"before\":{\"a\":1},\"after\":null" SOURCE_BEGIN OLD_POSITION END("log", "d"));
}

static void test_a_rewrite_of_equal_bytes_is_an_update(void **state)
{
	struct change c = change_of(CHANGE_UNCHANGED, "{\"a\":1}", "{\"a\":1}");

	(void)state;
	make(&c);
	assert_value("{\"before\":{\"a\":1},\"after\":{\"a\":1}" SOURCE_BEGIN OLD_POSITION END(
		"log", "u"));
	assert_header("sidenote.op", "u");
}

static void test_a_delete_whose_old_value_nobody_saw_says_unknown(void **state)
{
	struct change c = change_of(CHANGE_DELETE, NULL, NULL);

	(void)state;
	make_as(&usual, &c, NOTE_GAP);
	assert_value("{\"before\":{\"sidenote.unknown\":true},\"after\":null" SOURCE_BEGIN NO_OLD
			     END("gap", "d"));
	assert_header("sidenote.cause", "gap");
}

static void test_a_key_found_gone_is_told_by_the_record_it_ends(void **state)
{
	struct change c = change_of(CHANGE_DELETE, "{\"a\":1}", NULL);

	(void)state;
	c.cause = CAUSE_RECONCILE;
	c.has_after = false;
	c.n = 7;
	make_as(&usual, &c, NOTE_RECONCILE);
	assert_value("{\"before\":{\"a\":1},\"after\":null,\"source\":{\"version\":\"1.2.3\","
		     "\"connector\":\"sidenote\",\"name\":\"orders\",\"ts_ms\":1700000000999,"
		     "\"snapshot\":\"false\",\"db\":\"prod\",\"table\":\"shop.orders\","
		     "\"topic\":\"shop.orders\",\"partition\":3,\"offset\":4711," OLD_POSITION END(
			     "reconcile", "d"));
	assert_header("sidenote.id", "shop.orders/3/4402/gone");
	assert_header("sidenote.cause", "reconcile");
}

static void test_a_value_that_is_no_object_is_wrapped_and_counted(void **state)
{
	struct change c = change_of(CHANGE_UPDATE, "[1,2]", "plain");

	(void)state;
	make(&c);
	assert_value("{\"before\":{\"sidenote.base64\":\"WzEsMl0=\"},"
		     "\"after\":{\"sidenote.base64\":\"cGxhaW4=\"}" SOURCE_BEGIN OLD_POSITION END(
			     "log", "u"));
	assert_int_equal(n.wrapped, 2);
}

static void test_an_empty_value_is_a_value(void **state)
{
	struct change c = change_of(CHANGE_UPDATE, "", "{}");

	(void)state;
	make(&c);
	assert_value("{\"before\":{\"sidenote.base64\":\"\"},\"after\":{}" SOURCE_BEGIN OLD_POSITION
			     END("log", "u"));
	c = change_of(CHANGE_CREATE, NULL, "");
	make(&c);
	assert_value("{\"before\":null,\"after\":{\"sidenote.base64\":\"\"}" SOURCE_BEGIN NO_OLD
			     END("log", "c"));
}

static void test_a_value_cannot_break_out_of_its_place(void **state)
{
	static const char attack[] = "{\"a\":1},\"after\":{\"forged\":true},\"x\":{}";
	struct change c = change_of(CHANGE_UPDATE, attack, "{\"a\":2}}");

	(void)state;
	make(&c);
	assert_int_equal(n.wrapped, 2);
	assert_true(json_is_object(n.value, n.value_len));
}

static void test_base64_encodes_every_value_with_its_key(void **state)
{
	struct envelope_options o = usual;
	struct change c = change_of(CHANGE_UPDATE, "{}", "");

	(void)state;
	o.encoding = NOTE_BASE64;
	make_as(&o, &c, NOTE_LOG);
	assert_value("{\"before\":{\"key\":\"ayIx\",\"value\":\"e30=\"},"
		     "\"after\":{\"key\":\"ayIx\",\"value\":\"\"}" SOURCE_BEGIN OLD_POSITION END(
			     "log", "u"));
	assert_int_equal(n.wrapped, 0);
	c = change_of(CHANGE_DELETE, "{}", NULL);
	make_as(&o, &c, NOTE_LOG);
	assert_value("{\"before\":{\"key\":\"ayIx\",\"value\":\"e30=\"},\"after\":null" SOURCE_BEGIN
			     OLD_POSITION END("log", "d"));
}

static void
test_a_record_without_a_timestamp_has_none_before_and_the_time_of_publishing_after(void **state)
{
	struct change c = change_of(CHANGE_UPDATE, "{}", "{}");

	(void)state;
	c.before.timestamp_ms = c.after.timestamp_ms = -1;
	make(&c);
	assert_contains("\"ts_ms\":1700000000999,\"snapshot\"");
	assert_contains("\"before_ts_ms\":null");
}

static void test_numbers_of_every_length_are_written_exactly(void **state)
{
	struct change c = change_of(CHANGE_CREATE, NULL, "{}");
	char expected[64];

	(void)state;
	for (int64_t v = 1; v > 0; v = v <= INT64_MAX / 10 ? v * 10 : -1) {
		for (int64_t d = -1; d <= 1; d++) {
			c.offset = v + d;
			make(&c);
			sprintf(expected, "shop.orders/3/%lld", (long long)c.offset);
			assert_header("sidenote.id", expected);
		}
	}
	c.offset = INT64_MIN;
	c.partition = INT32_MAX;
	make(&c);
	assert_header("sidenote.id", "shop.orders/2147483647/-9223372036854775808");
	c.offset = INT64_MAX;
	make(&c);
	assert_header("sidenote.id", "shop.orders/2147483647/9223372036854775807");
}

static void test_names_are_escaped_in_the_envelope(void **state)
{
	struct envelope_options o = usual;
	struct change c = change_of(CHANGE_CREATE, NULL, "{}");

	(void)state;
	o.cluster = "a\"b\\c\n\xff";
	make_as(&o, &c, NOTE_LOG);
	assert_contains("\"db\":\"a\\\"b\\\\c\\n\\ufffd\",");
	assert_true(json_is_object(n.value, n.value_len));
}

static void test_the_buffer_serves_again_for_smaller_and_larger_changes(void **state)
{
	char *large = object_of(100000);
	struct change small = change_of(CHANGE_UPDATE, "{}", "{\"a\":1}");
	struct change big = change_of(CHANGE_UPDATE, large, large);
	char first[1024];
	size_t len;

	(void)state;
	make(&small);
	len = n.value_len;
	memcpy(first, n.value, len);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(envelope_make(&e, &big, NOTE_LOG, 1, NOW, &n), 0);
		assert_true(n.value_len > 200000);
		assert_int_equal(envelope_make(&e, &small, NOTE_LOG, 1, NOW, &n), 0);
		assert_int_equal(n.value_len, len);
		assert_memory_equal(n.value, first, len);
	}
	free(large);
}

static void test_an_empty_key_is_not_a_null_key(void **state)
{
	struct change c = change_of(CHANGE_CREATE, NULL, "{}");

	(void)state;
	c.key = NULL;
	c.key_len = 0;
	envelope_free(&e);
	envelope_init(&e, &usual);
	assert_int_equal(envelope_make(&e, &c, NOTE_LOG, 1, NOW, &n), 0);
	assert_non_null(n.key);
	assert_int_equal(n.key_len, 0);
}

/* ---- headers ---- */

static void test_four_headers_tell_id_operation_cause_and_token(void **state)
{
	struct change c = change_of(CHANGE_UPDATE, "{}", "{}");

	(void)state;
	make(&c);
	assert_int_equal(n.n_headers, 4);
	assert_header("sidenote.id", "shop.orders/3/4711");
	assert_header("sidenote.op", "u");
	assert_header("sidenote.cause", "log");
	assert_header("sidenote.token", "3:4900");
}

static void test_source_headers_follow_byte_for_byte_and_in_order(void **state)
{
	static const struct record_header in[] = {
		{ "trace", 5, "abc", 3 },
		{ "trace", 5, "def", 3 },
		{ "null", 4, NULL, 0 },
		{ "empty", 5, "", 0 },
		{ "a\0b\xff\n", 5, "\0\xff\r", 3 },
		{ "", 0, "no name", 7 },
		{ "sidenote", 8, "not ours", 8 },
	};
	struct change c = change_of(CHANGE_UPDATE, "{}", "{}");

	(void)state;
	give_headers(&c, in, 7);
	make(&c);
	assert_int_equal(n.n_headers, 4 + 7);
	for (int i = 0; i < 7; i++) {
		const struct record_header *h = &n.headers[4 + i];

		assert_int_equal(h->name_len, in[i].name_len);
		assert_memory_equal(h->name, in[i].name, in[i].name_len);
		assert_int_equal(!h->value, !in[i].value);
		assert_int_equal(h->value_len, in[i].value_len);
		if (in[i].value_len)
			assert_memory_equal(h->value, in[i].value, in[i].value_len);
	}
}

static void test_source_headers_that_pose_as_ours_are_dropped_in_any_case(void **state)
{
	static const struct record_header in[] = {
		{ "sidenote.id", 11, "forged", 6 },
		{ "SIDENOTE.Op", 11, "d", 1 },
		{ "sidenote.", 9, NULL, 0 },
		{ "kept", 4, "1", 1 },
		{ "sidenote.before", 15, "forged", 6 },
	};
	struct change c = change_of(CHANGE_UPDATE, "{}", "{}");

	(void)state;
	give_headers(&c, in, 5);
	make(&c);
	assert_int_equal(n.n_headers, 5);
	assert_header("sidenote.id", "shop.orders/3/4711");
	assert_header("kept", "1");
	make_raw(&c, NOTE_LOG, 0);
	assert_header("sidenote.before", "{}");
}

static void test_a_tombstone_s_headers_are_copied_too(void **state)
{
	static const struct record_header in = { "who", 3, "me", 2 };
	struct change c = change_of(CHANGE_DELETE, "{}", NULL);

	(void)state;
	give_headers(&c, &in, 1);
	make(&c);
	assert_header("who", "me");
}

static void test_a_hundred_source_headers_are_all_there(void **state)
{
	struct change c = change_of(CHANGE_CREATE, NULL, "{}");
	struct record_header in[100];

	(void)state;
	for (int i = 0; i < 100; i++)
		in[i] = (struct record_header){ "h", 1, "v", 1 };
	give_headers(&c, in, 100);
	make(&c);
	assert_int_equal(n.n_headers, 104);
}

/* ---- raw ---- */

static void test_raw_has_the_new_bytes_and_tells_the_rest_in_headers(void **state)
{
	struct change c = change_of(CHANGE_UPDATE, "old \xff", "new \xfe");

	(void)state;
	make_raw(&c, NOTE_LOG, 0);
	assert_value("new \xfe");
	assert_int_equal(n.n_headers, 15);
	assert_header("sidenote.id", "shop.orders/3/4711");
	assert_header("sidenote.op", "u");
	assert_header("sidenote.cause", "log");
	assert_header("sidenote.version", "1.2.3");
	assert_header("sidenote.name", "orders");
	assert_header("sidenote.cluster", "prod");
	assert_header("sidenote.topic", "shop.orders");
	assert_header("sidenote.partition", "3");
	assert_header("sidenote.offset", "4711");
	assert_header("sidenote.timestamp", "1700000000500");
	assert_header("sidenote.before.offset", "4402");
	assert_header("sidenote.before.timestamp", "1700000000100");
	assert_header("sidenote.published", "1700000000999");
	assert_header("sidenote.before", "old \xff");
	assert_int_equal(n.wrapped, 0);
}

static void test_a_raw_delete_is_a_tombstone_with_the_old_bytes(void **state)
{
	struct change c = change_of(CHANGE_DELETE, "old", NULL);

	(void)state;
	make_raw(&c, NOTE_LOG, 0);
	assert_null(n.value);
	assert_int_equal(n.value_len, 0);
	assert_header("sidenote.before", "old");
	assert_header("sidenote.op", "d");
}

static void test_a_raw_create_has_no_header_of_a_before(void **state)
{
	struct change c = change_of(CHANGE_CREATE, NULL, "");

	(void)state;
	make_raw(&c, NOTE_LOG, 0);
	assert_non_null(n.value);
	assert_int_equal(n.value_len, 0);
	assert_no_header("sidenote.before");
	assert_no_header("sidenote.before.offset");
	assert_no_header("sidenote.before.timestamp");
	assert_int_equal(n.n_headers, 12);
}

static void test_a_raw_delete_whose_old_value_nobody_saw_has_no_before(void **state)
{
	struct change c = change_of(CHANGE_DELETE, NULL, NULL);

	(void)state;
	make_raw(&c, NOTE_GAP, 0);
	assert_null(n.value);
	assert_no_header("sidenote.before");
	assert_header("sidenote.cause", "gap");
	assert_header("sidenote.op", "d");
}

static void test_an_empty_old_value_is_a_header_without_bytes(void **state)
{
	struct change c = change_of(CHANGE_UPDATE, "", "x");

	(void)state;
	make_raw(&c, NOTE_LOG, 0);
	assert_non_null(find("sidenote.before"));
	assert_non_null(find("sidenote.before")->value);
	assert_header("sidenote.before", "");
}

/* ---- too large ---- */

static void sides(const char *before, const char *after)
{
	char *text = malloc(strlen(before) + strlen(after) + 1024);

	sprintf(text, "{\"before\":%s,\"after\":%s%s", before, after,
		SOURCE_BEGIN OLD_POSITION END("log", "u"));
	assert_value(text);
	free(text);
}

static void make_within(const struct change *c, size_t max_bytes)
{
	struct envelope_options o = usual;

	o.max_bytes = max_bytes;
	make_as(&o, c, NOTE_LOG);
}

static void test_the_larger_side_is_left_out_first(void **state)
{
	char *large = object_of(5000), *small = object_of(1000);
	struct change c = change_of(CHANGE_UPDATE, large, small);

	(void)state;
	make_within(&c, 3000);
	sides(omitted(large, 5000), small);
	assert_int_equal(n.omitted, 1);
	assert_true(n.bytes <= 3000);
	c = change_of(CHANGE_UPDATE, small, large);
	make_within(&c, 3000);
	sides(small, omitted(large, 5000));
	free(large);
	free(small);
}

static void test_then_the_other_side_is_left_out_too(void **state)
{
	char *large = object_of(5000), *small = object_of(4000);
	struct change c = change_of(CHANGE_UPDATE, large, small);

	(void)state;
	make_within(&c, 3000);
	sides(omitted(large, 5000), omitted(small, 4000));
	assert_int_equal(n.omitted, 2);
	assert_int_equal(n.wrapped, 0);
	free(large);
	free(small);
}

static void test_a_side_is_left_out_at_the_bound_and_not_one_byte_earlier(void **state)
{
	char *large = object_of(5000);
	struct change c = change_of(CHANGE_UPDATE, large, "{}");
	size_t bytes;

	(void)state;
	make_within(&c, 0);
	bytes = n.bytes;
	assert_true(bytes >= n.value_len + n.key_len + 61);
	make_within(&c, bytes);
	assert_int_equal(n.omitted, 0);
	make_within(&c, bytes - 1);
	assert_int_equal(n.omitted, 1);
	free(large);
}

static void test_a_side_smaller_than_the_remark_stays(void **state)
{
	char *large = object_of(5000);
	struct change c = change_of(CHANGE_UPDATE, large, "{\"a\":1}");

	(void)state;
	make_within(&c, 1);
	sides(omitted(large, 5000), "{\"a\":1}");
	assert_true(n.bytes > 1);
	free(large);
}

static void test_source_headers_go_last_and_are_counted(void **state)
{
	static char filler[1500];
	const struct record_header in[] = { { "a", 1, filler, 1500 }, { "b", 1, filler, 1500 } };
	char *large = object_of(3000);
	struct change c = change_of(CHANGE_UPDATE, large, "{}");

	(void)state;
	give_headers(&c, in, 2);
	make_within(&c, 4500); /* the headers fit, without the value */
	assert_int_equal(n.omitted, 1);
	assert_int_equal(n.headers_omitted, 0);
	assert_int_equal(n.n_headers, 6);
	make_within(&c, 3000); /* neither with the other */
	assert_int_equal(n.omitted, 1);
	assert_int_equal(n.headers_omitted, 2);
	assert_int_equal(n.n_headers, 5);
	assert_header("sidenote.headers.omitted", "2");
	assert_true(n.bytes <= 3000);
	free(large);
}

static void test_values_stay_where_leaving_out_the_headers_is_enough(void **state)
{
	static char filler[3000];
	const struct record_header in = { "a", 1, filler, 3000 };
	struct change c = change_of(CHANGE_UPDATE, "{}", "{\"a\":1}");

	(void)state;
	give_headers(&c, &in, 1);
	make_within(&c, 2000);
	sides("{}", "{\"a\":1}");
	assert_int_equal(n.omitted, 0);
	assert_header("sidenote.headers.omitted", "1");
}

static void test_a_key_is_never_shortened(void **state)
{
	char *key = object_of(5000), *large = object_of(3000);
	struct change c = change_of(CHANGE_UPDATE, large, large);

	(void)state;
	c.key = key;
	c.key_len = 5000;
	make_within(&c, 4000);
	assert_int_equal(n.omitted, 2);
	assert_true(n.bytes > 5000 && n.bytes < 6500);
	free(key);
	free(large);
}

static void test_the_bound_is_never_below_what_kafka_counts(void **state)
{
	static const struct record_header in = { "h", 1, "v", 1 };

	(void)state;
	for (int raw = 0; raw < 2; raw++) {
		for (size_t len = 8; len < 100000; len = len * 3 / 2) {
			char *value = object_of(len);
			struct change c = change_of(CHANGE_UPDATE, value, value);
			size_t wire;

			give_headers(&c, &in, 1);
			if (raw)
				make_raw(&c, NOTE_LOG, 0);
			else
				make(&c);
			wire = 61 + 36 + n.key_len + n.value_len;
			for (size_t i = 0; i < n.n_headers; i++)
				wire += 10 + n.headers[i].name_len + n.headers[i].value_len;
			assert_true(wire <= n.bytes);
			assert_true(n.bytes <= wire + 320);
			free(value);
		}
	}
}

static void test_raw_leaves_out_the_old_bytes_first(void **state)
{
	char *large = object_of(5000), *small = object_of(1000);
	struct change c = change_of(CHANGE_UPDATE, small, large);

	(void)state;
	make_raw(&c, NOTE_LOG, 6000);
	assert_value(large);
	assert_no_header("sidenote.before");
	assert_header("sidenote.before.omitted", omitted(small, 1000));
	assert_no_header("sidenote.after.omitted");
	assert_header("sidenote.before.offset", "4402");
	assert_int_equal(n.omitted, 1);
	assert_true(n.bytes <= 6000);
	free(large);
	free(small);
}

static void test_a_raw_value_left_out_is_neither_null_nor_empty(void **state)
{
	char *large = object_of(5000), *small = object_of(1000);
	struct change c = change_of(CHANGE_UPDATE, small, large);

	(void)state;
	make_raw(&c, NOTE_LOG, 3000);
	assert_value(omitted(large, 5000));
	assert_header("sidenote.after.omitted", omitted(large, 5000));
	assert_header("sidenote.before.omitted", omitted(small, 1000));
	assert_int_equal(n.omitted, 2);
	free(large);
	free(small);
}

static int fini(void **state)
{
	(void)state;
	envelope_free(&e);
	return 0;
}
#define TEST(f) cmocka_unit_test_teardown(f, fini)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_an_update_has_both_values_byte_for_byte),
		TEST(test_a_create_has_no_before),
		TEST(test_a_delete_has_no_after),
		TEST(test_a_rewrite_of_equal_bytes_is_an_update),
		TEST(test_a_delete_whose_old_value_nobody_saw_says_unknown),
		TEST(test_a_key_found_gone_is_told_by_the_record_it_ends),
		TEST(test_a_value_that_is_no_object_is_wrapped_and_counted),
		TEST(test_an_empty_value_is_a_value),
		TEST(test_a_value_cannot_break_out_of_its_place),
		TEST(test_base64_encodes_every_value_with_its_key),
		TEST(test_a_record_without_a_timestamp_has_none_before_and_the_time_of_publishing_after),
		TEST(test_numbers_of_every_length_are_written_exactly),
		TEST(test_names_are_escaped_in_the_envelope),
		TEST(test_the_buffer_serves_again_for_smaller_and_larger_changes),
		TEST(test_an_empty_key_is_not_a_null_key),
		TEST(test_four_headers_tell_id_operation_cause_and_token),
		TEST(test_source_headers_follow_byte_for_byte_and_in_order),
		TEST(test_source_headers_that_pose_as_ours_are_dropped_in_any_case),
		TEST(test_a_tombstone_s_headers_are_copied_too),
		TEST(test_a_hundred_source_headers_are_all_there),
		TEST(test_raw_has_the_new_bytes_and_tells_the_rest_in_headers),
		TEST(test_a_raw_delete_is_a_tombstone_with_the_old_bytes),
		TEST(test_a_raw_create_has_no_header_of_a_before),
		TEST(test_a_raw_delete_whose_old_value_nobody_saw_has_no_before),
		TEST(test_an_empty_old_value_is_a_header_without_bytes),
		TEST(test_the_larger_side_is_left_out_first),
		TEST(test_then_the_other_side_is_left_out_too),
		TEST(test_a_side_is_left_out_at_the_bound_and_not_one_byte_earlier),
		TEST(test_a_side_smaller_than_the_remark_stays),
		TEST(test_source_headers_go_last_and_are_counted),
		TEST(test_values_stay_where_leaving_out_the_headers_is_enough),
		TEST(test_a_key_is_never_shortened),
		TEST(test_the_bound_is_never_below_what_kafka_counts),
		TEST(test_raw_leaves_out_the_old_bytes_first),
		TEST(test_a_raw_value_left_out_is_neither_null_nor_empty),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
