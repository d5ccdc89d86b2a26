#include "join_envelope.h"
#include "json.h"
#include "harness.h"

#include <openssl/evp.h>

enum { NOW = 1700000000999 };

static struct join_envelope e;
static struct join_result r;

static const struct join_envelope_options usual = {
	.name = "orders-users",
	.stream_topic = "shop.orders",
	.type = JOIN_LEFT,
	.max_bytes = 1048588,
	.version = "1.2.3",
};

static struct sstate_record row(const void *value, size_t len)
{
	return (struct sstate_record){ .key = "k",
				       .key_len = 1,
				       .value = value,
				       .value_len = len,
				       .partition = 1,
				       .offset = 99,
				       .timestamp_ms = 1690000000000 };
}

static struct join_pair pair_of(const void *value, size_t len, const struct sstate_record *table)
{
	return (struct join_pair){ .partition = 3,
				   .offset = 4711,
				   .timestamp_ms = 1700000000500,
				   .key_len = 1,
				   .value = value,
				   .value_len = len,
				   .table = table,
				   .table_topic = "users",
				   .token = "0:7,1:100",
				   .wait = "none" };
}

static void make_as(const struct join_envelope_options *o, const struct join_pair *p)
{
	join_envelope_free(&e);
	assert_int_equal(join_envelope_init(&e, o), 0);
	assert_int_equal(join_envelope_make(&e, p, NOW, &r), 0);
	assert_true(json_is_object(r.value, r.value_len));
}

static void assert_value(const char *expected)
{
	assert_int_equal(r.value_len, strlen(expected));
	assert_memory_equal(r.value, expected, r.value_len);
}

static bool says(const char *part) { return memmem(r.value, r.value_len, part, strlen(part)); }

#define STREAM_BEGIN                                                                               \
	"{\"stream\":{\"topic\":\"shop.orders\",\"partition\":3,\"offset\":4711,"                  \
	"\"ts_ms\":1700000000500,\"value\":"
#define TABLE_BEGIN                                                                                \
	"},\"table\":{\"topic\":\"users\",\"partition\":1,\"offset\":99,\"ts_ms\":1690000000000,"  \
	"\"value\":"
#define END                                                                                        \
	",\"token\":\"0:7,1:100\",\"wait\":\"none\",\"join\":{\"version\":\"1.2.3\","              \
	"\"name\":\"orders-users\",\"type\":\"left\"},\"ts_ms\":1700000000999}"

static void test_both_values_are_spliced_byte_for_byte(void **state)
{
	const char *value = "{ \"n\" : 1.0000000000000000000001 }", *users = "{\"name\":\"Ada\"}";
	struct sstate_record table = row(users, strlen(users));
	struct join_pair p = pair_of(value, strlen(value), &table);

	(void)state;
	make_as(&usual, &p);
	assert_value(STREAM_BEGIN "{ \"n\" : 1.0000000000000000000001 }" TABLE_BEGIN
				  "{\"name\":\"Ada\"}}" END);
	assert_int_equal(r.wrapped + r.omitted, 0);
	assert_false(r.drop_headers);
}

static void test_without_a_table_record_it_is_null(void **state)
{
	struct join_pair p = pair_of("{}", 2, NULL);

	(void)state;
	make_as(&usual, &p);
	assert_value(STREAM_BEGIN "{}},\"table\":null" END);
}

static void test_a_null_value_is_null_and_an_empty_one_is_wrapped(void **state)
{
	struct sstate_record table = row("", 0);
	struct join_pair p = pair_of(NULL, 0, &table);

	(void)state;
	make_as(&usual, &p);
	assert_value(STREAM_BEGIN "null" TABLE_BEGIN "{\"sidenote.base64\":\"\"}}" END);
	assert_int_equal(r.wrapped, 1);
}

static void test_what_is_no_json_object_is_wrapped(void **state)
{
	struct sstate_record table = row("\0\xff", 2);
	struct join_pair p = pair_of("[1]", 3, &table);

	(void)state;
	make_as(&usual, &p);
	assert_value(STREAM_BEGIN "{\"sidenote.base64\":\"WzFd\"}" TABLE_BEGIN
				  "{\"sidenote.base64\":\"AP8=\"}}" END);
	assert_int_equal(r.wrapped, 2);
}

static void test_no_timestamp_is_null(void **state)
{
	struct sstate_record table = row("{}", 2);
	struct join_pair p = pair_of("{}", 2, &table);

	(void)state;
	p.timestamp_ms = table.timestamp_ms = -1;
	make_as(&usual, &p);
	assert_true(says("\"offset\":4711,\"ts_ms\":null,"));
	assert_true(says("\"offset\":99,\"ts_ms\":null,"));
}

static void test_type_and_wait_are_told(void **state)
{
	struct join_envelope_options o = usual;
	struct join_pair p = pair_of("{}", 2, NULL);

	(void)state;
	o.type = JOIN_INNER;
	p.wait = "unreadable";
	make_as(&o, &p);
	assert_true(says("\"wait\":\"unreadable\""));
	assert_true(says("\"type\":\"inner\""));
}

static void test_the_id_is_the_place_of_the_stream_record(void **state)
{
	struct join_pair p = pair_of("{}", 2, NULL);

	(void)state;
	make_as(&usual, &p);
	assert_int_equal(r.id_len, strlen("shop.orders/3/4711"));
	assert_memory_equal(r.id, "shop.orders/3/4711", r.id_len);
	p.partition = INT32_MAX;
	p.offset = INT64_MAX;
	make_as(&usual, &p);
	assert_int_equal(r.id_len, strlen("shop.orders/2147483647/9223372036854775807"));
}

/* ---- too large ---- */

static char *filled(size_t len)
{
	char *value = malloc(len);

	memset(value, 'a', len);
	memcpy(value, "{\"a\":\"", 6);
	memcpy(value + len - 2, "\"}", 2);
	return value;
}

static void make_within(size_t max, size_t stream_len, size_t table_len, size_t headers)
{
	struct join_envelope_options o = usual;
	char *value = filled(stream_len), *users = filled(table_len);
	struct sstate_record table = row(users, table_len);
	struct join_pair p = pair_of(value, stream_len, &table);

	o.max_bytes = max;
	p.headers_bytes = headers;
	make_as(&o, &p);
	free(value);
	free(users);
}

static void test_the_larger_value_is_omitted_first(void **state)
{
	(void)state;
	make_within(5000, 4000, 2000, 0);
	assert_int_equal(r.omitted, 1);
	assert_true(
		says("\"ts_ms\":1700000000500,\"value\":{\"sidenote.omitted\":{\"bytes\":4000,"));
	assert_true(r.bytes <= 5000);
	make_within(5000, 2000, 4000, 0);
	assert_int_equal(r.omitted, 1);
	assert_true(
		says("\"ts_ms\":1690000000000,\"value\":{\"sidenote.omitted\":{\"bytes\":4000,"));
	assert_true(r.bytes <= 5000);
}

static void test_where_one_is_not_enough_both_are_omitted(void **state)
{
	(void)state;
	make_within(3000, 9000, 8000, 0);
	assert_int_equal(r.omitted, 2);
	assert_false(r.drop_headers);
	assert_true(r.bytes <= 3000);
}

static void test_headers_go_where_values_are_not_the_trouble(void **state)
{
	(void)state;
	make_within(3000, 100, 100, 100000);
	assert_true(r.drop_headers);
	assert_int_equal(r.omitted, 0);
	assert_true(r.bytes <= 3000);
	make_within(3000, 9000, 9000, 100000);
	assert_true(r.drop_headers);
	assert_int_equal(r.omitted, 2);
	assert_true(r.bytes <= 3000);
}

static void test_an_omitted_value_is_told_by_length_and_hash(void **state)
{
	char *value = filled(4000), expected[128] = "\"sha256\":\"";
	unsigned char hash[EVP_MAX_MD_SIZE];

	(void)state;
	EVP_Digest(value, 4000, hash, NULL, EVP_sha256(), NULL);
	for (int i = 0; i < 32; i++)
		snprintf(expected + 10 + 2 * i, 3, "%02x", hash[i]);
	make_within(2000, 4000, 100, 0);
	assert_true(says(expected));
	free(value);
}

static void test_only_a_key_can_be_too_large_for_good(void **state)
{
	struct join_envelope_options o = usual;
	struct join_pair p = pair_of("{}", 2, NULL);

	(void)state;
	o.max_bytes = 4096;
	make_as(&o, &p);
	assert_true(r.bytes <= 4096);
	p.key_len = 4096;
	make_as(&o, &p);
	assert_true(r.bytes > 4096);
}

/* Every size around the bound, so that the plan is never below what is written. */
static void test_what_is_planned_is_never_less_than_what_is_written(void **state)
{
	(void)state;
	for (size_t len = 100; len < 1200; len += 7) {
		make_within(1500, len, 1300 - len, len % 3 * 50);
		assert_true(r.bytes >= r.value_len + r.id_len + 1);
		assert_true(r.bytes <= 1500);
	}
}

static void test_a_token_of_many_partitions_has_room(void **state)
{
	char *token = malloc(40000);
	struct join_pair p = pair_of("{}", 2, NULL);
	size_t len = 0;

	(void)state;
	for (int i = 0; i < 1000; i++)
		len += (size_t)sprintf(token + len, "%s%d:%lld", i ? "," : "", i,
				       (long long)INT64_MAX);
	p.token = token;
	make_as(&usual, &p);
	assert_true(says(token));
	free(token);
}

static int fini(void **state)
{
	(void)state;
	join_envelope_free(&e);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_values_are_spliced_byte_for_byte),
		cmocka_unit_test(test_without_a_table_record_it_is_null),
		cmocka_unit_test(test_a_null_value_is_null_and_an_empty_one_is_wrapped),
		cmocka_unit_test(test_what_is_no_json_object_is_wrapped),
		cmocka_unit_test(test_no_timestamp_is_null),
		cmocka_unit_test(test_type_and_wait_are_told),
		cmocka_unit_test(test_the_id_is_the_place_of_the_stream_record),
		cmocka_unit_test(test_the_larger_value_is_omitted_first),
		cmocka_unit_test(test_where_one_is_not_enough_both_are_omitted),
		cmocka_unit_test(test_headers_go_where_values_are_not_the_trouble),
		cmocka_unit_test(test_an_omitted_value_is_told_by_length_and_hash),
		cmocka_unit_test(test_only_a_key_can_be_too_large_for_good),
		cmocka_unit_test(test_what_is_planned_is_never_less_than_what_is_written),
		cmocka_unit_test(test_a_token_of_many_partitions_has_room),
	};

	return cmocka_run_group_tests(tests, NULL, fini);
}
