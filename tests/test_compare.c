#include "compare.h"
#include "harness.h"
#include "state.h"

/* A state of one's own, what a log says, and what comparing them finds. */
static struct world {
	struct state_dir *dir;
	struct state *st;
	struct sstate *s;
	struct compare *c;
	struct batch batch;
	int64_t below[2], start[2], applied[2];
	char found[1024];
} w;

static char err[512];

static int setup(void **state)
{
	static const struct state_identity who = { .name = "n", .cluster_id = "c", .topic = "t" };
	static const struct state_options o = { .lease_ms = 1 };

	w = (struct world){ 0 };
	if (make_dir(state) || state_dir_open(&w.dir, *state, err, sizeof(err)) ||
	    state_create(&w.st, w.dir, &who, &o, err, sizeof(err)) ||
	    state_make_current(w.st, err, sizeof(err)) || sstate_open(&w.s, *state))
		return -1;
	while (state_lease_wait_ms(w.st) > 0)
		usleep(1000);
	return 0;
}

static int teardown(void **state)
{
	compare_close(w.c);
	sstate_close(w.s);
	state_close(w.st);
	state_dir_close(w.dir);
	batch_free(&w.batch);
	return remove_dir(state);
}
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static void open_compare(size_t memory, bool moved_by_time, bool expiring)
{
	const struct compare_options o = { .partitions = 2,
					   .memory = memory,
					   .moved_by_time = moved_by_time,
					   .expiring = expiring };

	compare_close(w.c);
	assert_int_equal(compare_open(&w.c, w.s, &o), 0);
}

/* The snapshot has `key` from record (p, offset); no value: it has it no more. */
static void store(const char *key, int32_t p, int64_t offset, const char *value)
{
	struct record r = { .partition = p,
			    .offset = offset,
			    .timestamp_ms = 1000 + offset,
			    .value = value,
			    .value_len = value ? strlen(value) : 0 };
	struct state_txn *t;
	uint8_t rec[256];

	assert_int_equal(state_begin(w.st, &t), 0);
	if (value) {
		record_encode(rec, &r, key, strlen(key));
		assert_int_equal(state_put(t, key, strlen(key), rec, record_bytes(&r)), 0);
	} else {
		assert_int_equal(state_del(t, key, strlen(key)), 0);
	}
	assert_int_equal(state_commit(t), 0);
}

static const struct batch_record *record_of(const char *key, int32_t p, int64_t offset,
					    const char *value)
{
	struct batch_record *r;

	batch_clear(&w.batch);
	r = batch_add(&w.batch, key, strlen(key));
	r->rec = (struct record){ .flags = value ? 0 : RECORD_TOMBSTONE,
				  .partition = p,
				  .offset = offset,
				  .timestamp_ms = 1000 + offset,
				  .value = value,
				  .value_len = value ? strlen(value) : 0 };
	return r;
}

/* The log says so, below A. */
static void says(const char *key, int32_t p, int64_t offset, const char *value)
{
	assert_int_equal(compare_record(w.c, record_of(key, p, offset, value)), 0);
	if (w.below[p] <= offset)
		w.below[p] = offset + 1;
}

static void walk(void) { assert_int_equal(compare_walk(w.c, w.below, w.start), 0); }

static void later(const char *key, int32_t p, int64_t offset)
{
	compare_later(w.c, record_of(key, p, offset, "later"), w.applied);
}

static void each(void *opaque, const struct difference *d)
{
	static const char *const kinds[] = {
		"missing", "extra", "gone", "old", "value", "partition"
	};

	(void)opaque;
	sprintf(w.found + strlen(w.found), "%s %.*s %d:%d/%d:%d;", kinds[d->kind], (int)d->key_len,
		(const char *)d->key, d->partition, (int)d->offset, d->stored_partition,
		(int)d->stored_offset);
}

static const char *found(void)
{
	w.found[0] = '\0';
	compare_report(w.c, each, NULL);
	return w.found;
}

/* Twice the same, as if nothing moved. */
static const char *twice(void (*log)(void))
{
	open_compare(1 << 20, false, false);
	log();
	walk();
	compare_again(w.c);
	log();
	walk();
	return found();
}

static void equal_log(void)
{
	says("a", 0, 1, "1");
	says("b", 1, 1, "x");
	says("a", 0, 2, "2");
	says("gone", 0, 3, "x");
	says("gone", 0, 4, NULL);
	says("never", 0, 5, NULL);
	says("back", 1, 2, "1");
	says("back", 1, 3, NULL);
	says("back", 1, 4, "2");
}

static void test_the_fold_of_the_log_is_equal(void **state)
{
	(void)state;
	store("a", 0, 2, "2");
	store("b", 1, 1, "x");
	store("back", 1, 4, "2");
	open_compare(1 << 20, false, false);
	equal_log();
	walk();
	assert_int_equal(compare_doubts(w.c), 0);
	assert_int_equal(compare_keys(w.c), 3);
	assert_false(compare_next(w.c));
}

static void some_log(void)
{
	says("a", 0, 1, "1");
	says("b", 0, 2, "1");
	says("b", 0, 3, NULL);
}

static void test_a_key_that_is_missing_is_found(void **state)
{
	(void)state;
	assert_string_equal(twice(some_log), "missing a 0:1/-1:-1;");
}

static void test_a_key_that_should_be_deleted_is_found(void **state)
{
	(void)state;
	store("a", 0, 1, "1");
	store("b", 0, 2, "1");
	assert_string_equal(twice(some_log), "extra b 0:3/0:2;");
}

static void test_a_record_that_the_log_does_not_have_is_found(void **state)
{
	(void)state;
	store("a", 0, 1, "1");
	store("c", 0, 0, "1");
	assert_string_equal(twice(some_log), "gone c -1:-1/0:0;");
}

static void update_log(void)
{
	says("a", 0, 1, "1");
	says("a", 0, 2, "2");
}

static void test_an_older_record_is_found(void **state)
{
	(void)state;
	store("a", 0, 1, "1");
	assert_string_equal(twice(update_log), "old a 0:2/0:1;");
}

static void test_other_bytes_are_found(void **state)
{
	(void)state;
	store("a", 0, 2, "3");
	assert_string_equal(twice(update_log), "value a 0:2/0:2;");
}

static void test_a_value_that_is_longer_is_other_bytes(void **state)
{
	(void)state;
	store("a", 0, 2, "22");
	assert_string_equal(twice(update_log), "value a 0:2/0:2;");
}

static void test_a_key_from_another_partition_is_found(void **state)
{
	(void)state;
	store("a", 1, 7, "2");
	w.below[1] = 8;
	assert_string_equal(twice(update_log), "partition a 0:2/1:7;");
}

static void test_a_key_that_moved_is_equal_where_that_is_allowed(void **state)
{
	(void)state;
	store("a", 1, 7, "2");
	open_compare(1 << 20, true, false);
	update_log();
	says("a", 1, 7, "2");
	walk();
	assert_int_equal(compare_doubts(w.c), 0);
}

static void test_what_is_newer_than_what_was_read_is_no_difference(void **state)
{
	(void)state;
	store("a", 0, 5, "later");
	store("new", 1, 9, "later");
	open_compare(1 << 20, false, false);
	update_log();
	walk();
	assert_int_equal(compare_doubts(w.c), 0);
}

static void test_a_delete_after_what_was_read_explains_a_missing_key(void **state)
{
	(void)state;
	open_compare(1 << 20, false, false);
	update_log();
	walk();
	assert_int_equal(compare_doubts(w.c), 1);
	w.applied[0] = 4;
	later("a", 0, 3);
	assert_int_equal(compare_doubts(w.c), 0);
}

static void test_a_record_that_the_snapshot_has_not_read_yet_explains_nothing_missing(void **state)
{
	(void)state;
	open_compare(1 << 20, false, false);
	update_log();
	walk();
	w.applied[0] = 3;
	later("a", 0, 3);
	assert_int_equal(compare_doubts(w.c), 1);
}

static void test_a_later_record_explains_that_the_stored_one_is_gone(void **state)
{
	(void)state;
	store("a", 0, 2, "2");
	store("c", 0, 0, "compacted");
	open_compare(1 << 20, false, false);
	update_log();
	walk();
	assert_int_equal(compare_doubts(w.c), 1);
	later("c", 0, 30);
	assert_int_equal(compare_doubts(w.c), 0);
}

static void test_what_differs_only_once_is_no_difference(void **state)
{
	(void)state;
	store("stale", 0, 1, "1");
	open_compare(1 << 20, false, false);
	says("put", 0, 0, "deleted while it was read");
	says("stale", 0, 2, "2");
	store("gone", 1, 0, "x");
	w.below[1] = 1;
	walk();
	assert_int_equal(compare_doubts(w.c), 3);
	store("stale", 0, 2, "2");
	store("gone", 1, 0, NULL);
	compare_again(w.c);
	says("stale", 0, 2, "2"); /* and compaction took "put" */
	walk();
	assert_string_equal(found(), "");
}

static void test_a_key_that_heals_between_its_record_and_the_walk_is_no_difference(void **state)
{
	(void)state;
	open_compare(1 << 20, false, false);
	update_log();
	walk();
	compare_again(w.c);
	update_log();
	store("a", 0, 2, "2");
	walk();
	assert_string_equal(found(), "");
}

static void test_what_fell_off_the_log_s_start_may_expire(void **state)
{
	(void)state;
	store("a", 0, 2, "2");
	store("c", 0, 0, "expired");
	w.start[0] = 1;
	open_compare(1 << 20, false, true);
	update_log();
	walk();
	assert_int_equal(compare_doubts(w.c), 0);
}

static void test_little_memory_takes_more_rounds_and_finds_the_same(void **state)
{
	int rounds = 0, differences = 0;
	char key[16];

	(void)state;
	open_compare(3000, false, false);
	do {
		for (int again = 0; again < 2; again++) {
			for (int i = 0; i < 100; i++) {
				sprintf(key, "k%d", i);
				says(key, 0, i, "x");
			}
			walk();
			if (!again)
				compare_again(w.c);
		}
		for (const char *p = found(); (p = strstr(p, "missing")); p++)
			differences++;
		rounds++;
	} while (compare_next(w.c));
	assert_int_equal(differences, 100);
	assert_in_range(rounds, 4, 20);
}

static void test_a_thousand_doubts_are_told_apart(void **state)
{
	char key[16];

	(void)state;
	open_compare(1 << 20, false, false);
	for (int i = 0; i < 5000; i++) {
		sprintf(key, "k%d", i);
		says(key, 0, 2 * i, "x");
	}
	assert_int_equal(compare_doubts(w.c), 5000);
	for (int i = 0; i < 5000; i++) {
		sprintf(key, "k%d", i);
		says(key, 0, 2 * i + 1, NULL);
	}
	assert_int_equal(compare_doubts(w.c), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_the_fold_of_the_log_is_equal),
		TEST(test_a_key_that_is_missing_is_found),
		TEST(test_a_key_that_should_be_deleted_is_found),
		TEST(test_a_record_that_the_log_does_not_have_is_found),
		TEST(test_an_older_record_is_found),
		TEST(test_other_bytes_are_found),
		TEST(test_a_value_that_is_longer_is_other_bytes),
		TEST(test_a_key_from_another_partition_is_found),
		TEST(test_a_key_that_moved_is_equal_where_that_is_allowed),
		TEST(test_what_is_newer_than_what_was_read_is_no_difference),
		TEST(test_a_delete_after_what_was_read_explains_a_missing_key),
		TEST(test_a_record_that_the_snapshot_has_not_read_yet_explains_nothing_missing),
		TEST(test_a_later_record_explains_that_the_stored_one_is_gone),
		TEST(test_what_differs_only_once_is_no_difference),
		TEST(test_a_key_that_heals_between_its_record_and_the_walk_is_no_difference),
		TEST(test_what_fell_off_the_log_s_start_may_expire),
		TEST(test_little_memory_takes_more_rounds_and_finds_the_same),
		TEST(test_a_thousand_doubts_are_told_apart),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
