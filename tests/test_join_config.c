#include "join_config.h"
#include "harness.h"

static struct join_config c;
static char err[512];

static int init(void **state)
{
	(void)state;
	join_config_init(&c);
	err[0] = '\0';
	return 0;
}

static int fini(void **state)
{
	(void)state;
	join_config_free(&c);
	return 0;
}

static int set(const char *name, const char *value)
{
	return join_config_set(&c, name, value, err, sizeof(err));
}

static int check(void) { return join_config_check(&c, err, sizeof(err)); }

static void set_required(void)
{
	assert_int_equal(set("join.name", "n"), 0);
	assert_int_equal(set("join.stream.topic", "orders"), 0);
	assert_int_equal(set("join.output.topic", "out"), 0);
	assert_int_equal(set("state.dir", "/var/lib/sidenote"), 0);
	assert_int_equal(set("kafka.bootstrap.servers", "b:9092"), 0);
}

static void assert_says(const char *part)
{
	if (!strstr(err, part))
		fail_msg("\"%s\" does not say \"%s\"", err, part);
}

static void test_the_required_options_are_enough(void **state)
{
	(void)state;
	set_required();
	assert_int_equal(check(), 0);
	assert_int_equal(c.type, JOIN_INNER);
	assert_int_equal(c.key_place.kind, PLACE_KEY);
	assert_int_equal(c.wait, WAIT_NONE);
	assert_int_equal(c.start, START_END);
	assert_int_equal(c.batch_records, 10000);
}

static void test_what_is_missing_is_named(void **state)
{
	(void)state;
	assert_int_equal(check(), -EINVAL);
	assert_says("join.name, join.stream.topic, join.output.topic, state.dir, "
		    "kafka.bootstrap.servers");
}

static void test_the_instance_is_the_host_by_default(void **state)
{
	char host[101] = "";

	(void)state;
	set_required();
	assert_int_equal(check(), 0);
	gethostname(host, sizeof(host) - 1);
	assert_non_null(c.instance_id);
	assert_int_equal(strlen(c.instance_id), strlen(host));
	join_config_free(&c);
	join_config_init(&c);
	set_required();
	assert_int_equal(set("join.instance.id", "a"), 0);
	assert_int_equal(check(), 0);
	assert_string_equal(c.instance_id, "a");
}

static void test_options_of_the_sidecar_are_no_options_here(void **state)
{
	(void)state;
	assert_int_equal(set("source.topic", "users"), -EINVAL);
	assert_says("no such option");
	assert_int_equal(set("join.topic", "users"), -EINVAL);
}

static void test_a_result_must_not_become_a_stream_record(void **state)
{
	(void)state;
	set_required();
	assert_int_equal(set("join.output.topic", "orders"), 0);
	assert_int_equal(check(), -EINVAL);
	assert_says("join.output.topic: is join.stream.topic itself");
}

static void test_a_key_is_the_records_or_a_field(void **state)
{
	static const char *const bad[] = { "",          "Key",      "field",      "field:",
					   "field:.a",  "field:a.", "field:a..b", "header:x",
					   "timestamp", "header:" };

	(void)state;
	set_required();
	assert_int_equal(set("join.key", "field:customer.id"), 0);
	assert_int_equal(check(), 0);
	assert_int_equal(c.key_place.kind, PLACE_FIELD);
	assert_string_equal(c.key_place.name, "customer.id");
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(set("join.key", bad[i]), 0);
		assert_int_equal(check(), -EINVAL);
		assert_says("join.key: ");
	}
}

static void test_a_token_has_to_stand_somewhere(void **state)
{
	(void)state;
	set_required();
	assert_int_equal(set("join.wait", "token"), 0);
	assert_int_equal(check(), -EINVAL);
	assert_says("join.wait=token needs");
	assert_int_equal(set("join.wait.from", "header:seen"), 0);
	assert_int_equal(check(), 0);
	assert_int_equal(c.wait_place.kind, PLACE_HEADER);
	assert_string_equal(c.wait_place.name, "seen");
	assert_int_equal(set("join.wait.from", "key"), 0);
	assert_int_equal(check(), -EINVAL);
}

static void test_a_time_is_the_records_by_default(void **state)
{
	(void)state;
	set_required();
	assert_int_equal(set("join.wait", "time"), 0);
	assert_int_equal(check(), 0);
	assert_int_equal(c.wait_place.kind, PLACE_TIMESTAMP);
	assert_int_equal(set("join.wait.from", "field:at"), 0);
	assert_int_equal(check(), 0);
	assert_int_equal(c.wait_place.kind, PLACE_FIELD);
}

static void test_a_place_without_a_wait_is_a_mistake(void **state)
{
	(void)state;
	set_required();
	assert_int_equal(set("join.wait.from", "header:seen"), 0);
	assert_int_equal(check(), -EINVAL);
	assert_says("join.wait is none");
}

static void test_a_wait_has_to_end_before_the_group_gives_the_member_up(void **state)
{
	(void)state;
	assert_int_equal(set("join.wait.ms", "10000"), 0);
	assert_int_equal(set("join.wait.ms", "10001"), -EINVAL);
	assert_int_equal(set("join.wait.ms", "0"), -EINVAL);
}

static void test_librdkafkas_properties_go_through_and_what_is_owned_does_not(void **state)
{
	(void)state;
	assert_int_equal(set("consumer.session.timeout.ms", "1000"), 0);
	assert_int_equal(set("producer.compression.type", "zstd"), 0);
	assert_int_equal(c.consumer.n, 1);
	assert_int_equal(c.producer.n, 1);
	assert_int_equal(set("consumer.group.id", "x"), -EINVAL);
	assert_int_equal(set("producer.transactional.id", "x"), -EINVAL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, init, fini)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_the_required_options_are_enough),
		TEST(test_what_is_missing_is_named),
		TEST(test_the_instance_is_the_host_by_default),
		TEST(test_options_of_the_sidecar_are_no_options_here),
		TEST(test_a_result_must_not_become_a_stream_record),
		TEST(test_a_key_is_the_records_or_a_field),
		TEST(test_a_token_has_to_stand_somewhere),
		TEST(test_a_time_is_the_records_by_default),
		TEST(test_a_place_without_a_wait_is_a_mistake),
		TEST(test_a_wait_has_to_end_before_the_group_gives_the_member_up),
		TEST(test_librdkafkas_properties_go_through_and_what_is_owned_does_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
