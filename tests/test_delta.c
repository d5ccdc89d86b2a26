#include "harness.h"
#include "delta.h"

static char err[300];

static void add(struct batch *b, int i, const char *value)
{
	static char keys[100000][12];
	int len = snprintf(keys[i], sizeof(keys[i]), "k%d", i);
	struct batch_record *r = batch_add(b, keys[i], (size_t)len);
	assert_non_null(r);
	r->rec.partition = i % 3;
	r->rec.offset = i;
	r->rec.timestamp_ms = -1;
	r->rec.value = value;
	r->rec.value_len = value ? strlen(value) : 0;
	if (!value)
		r->rec.flags |= RECORD_TOMBSTONE;
}

static struct delta *open_delta(void **state)
{
	struct delta *d;
	assert_int_equal(delta_open(&d, *state, err, sizeof(err)), 0);
	return d;
}

static void assert_record(const struct batch_record *r, int i, const char *value)
{
	char key[12];
	int len = snprintf(key, sizeof(key), "k%d", i);
	assert_int_equal(r->key_len, len);
	assert_memory_equal(r->key, key, (size_t)len);
	assert_int_equal(r->rec.partition, i % 3);
	assert_int_equal(r->rec.offset, i);
	assert_int_equal(!!(r->rec.flags & RECORD_TOMBSTONE), value == NULL);
	assert_int_equal(r->rec.value_len, value ? strlen(value) : 0);
	if (value)
		assert_memory_equal(r->rec.value, value, strlen(value));
}

static void test_what_was_appended_is_taken_in_the_same_order(void **state)
{
	struct delta *d = open_delta(state);
	struct batch b = { 0 };
	int next = 0;

	for (int i = 0; i < 30000; i++) {
		add(&b, i, i % 5 ? "a value" : i % 10 ? "" : NULL);
		if (i % 1000 == 999) {
			delta_append(d, &b);
			batch_clear(&b);
		}
	}
	do {
		batch_clear(&b);
		assert_int_equal(delta_take(d, &b, 777), 0);
		for (size_t i = 0; i < b.n; i++, next++)
			assert_record(&b.v[i], next, next % 5 ? "a value" : next % 10 ? "" : NULL);
	} while (b.n);
	assert_int_equal(next, 30000);
	batch_free(&b);
	delta_close(d);
}

static void test_a_value_larger_than_any_buffer_passes(void **state)
{
	enum { LARGE = 5 << 20 };
	struct delta *d = open_delta(state);
	struct batch b = { 0 };
	char *value = malloc(LARGE + 1);

	memset(value, 'x', LARGE);
	value[LARGE] = '\0';
	add(&b, 1, "small");
	add(&b, 2, value);
	add(&b, 3, "small");
	delta_append(d, &b);
	batch_clear(&b);
	assert_int_equal(delta_take(d, &b, 10), 0);
	assert_int_equal(b.n, 3);
	assert_record(&b.v[1], 2, value);
	assert_record(&b.v[2], 3, "small");
	free(value);
	batch_free(&b);
	delta_close(d);
}

static void test_an_empty_key_and_a_long_one_come_back_whole(void **state)
{
	struct delta *d = open_delta(state);
	struct batch b = { 0 };
	char key[600];

	memset(key, 'k', sizeof(key));
	batch_add(&b, "", 0)->rec.value = "";
	batch_add(&b, key, sizeof(key))->rec.value = "";
	delta_append(d, &b);
	batch_clear(&b);
	assert_int_equal(delta_take(d, &b, 10), 0);
	assert_int_equal(b.n, 2);
	assert_int_equal(b.v[0].key_len, 0);
	assert_int_equal(b.v[0].skey_len, KEY_STORED_MAX);
	assert_int_equal(b.v[1].key_len, sizeof(key));
	assert_memory_equal(b.v[1].rec.key, key, sizeof(key));
	batch_free(&b);
	delta_close(d);
}

static void test_after_a_failure_nothing_is_appended(void **state)
{
	struct delta *d = open_delta(state);
	struct batch b = { 0 };

	delta_fail(d, -ECANCELED);
	add(&b, 1, "x");
	delta_append(d, &b);
	batch_clear(&b);
	assert_int_equal(delta_take(d, &b, 10), 0);
	assert_int_equal(b.n, 0);
	assert_int_equal(delta_failed(d), -ECANCELED);
	batch_free(&b);
	delta_close(d);
}

static void test_a_directory_that_is_not_there_is_named(void **state)
{
	struct delta *d;
	(void)state;
	assert_int_equal(delta_open(&d, "/nonexistent/dir", err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, "/nonexistent/dir"));
}

/* A rebuild that failed is gone while the tail still follows it. */
static void test_a_delta_lives_until_its_last_user_has_closed_it(void **state)
{
	struct delta *d = open_delta(state), *second;
	struct batch b = { 0 };

	second = delta_share(d);
	delta_fail(d, -ECANCELED);
	delta_close(d);
	delta_append(second, &b);
	assert_int_equal(delta_failed(second), -ECANCELED);
	delta_close(second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with_dir(test_what_was_appended_is_taken_in_the_same_order),
		test_with_dir(test_a_value_larger_than_any_buffer_passes),
		test_with_dir(test_an_empty_key_and_a_long_one_come_back_whole),
		test_with_dir(test_after_a_failure_nothing_is_appended),
		cmocka_unit_test(test_a_directory_that_is_not_there_is_named),
		test_with_dir(test_a_delta_lives_until_its_last_user_has_closed_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
