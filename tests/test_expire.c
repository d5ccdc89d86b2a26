/* Keys below the log's start leave the snapshot, and no others, however many steps that takes. */
#include "harness.h"
#include "expire.h"

enum { KEYS = 5000, PARTITIONS = 2 };

struct world {
	struct state_dir *dir;
	struct state *st;
	struct expire *x;
};

/* Key i is stored from partition i % 2, at offset i / 2. */
static void open_world(struct world *w, const char *dir)
{
	const struct state_identity who = { "test", "cluster", "topic" };
	const struct state_options o = { .lease_ms = 100 };
	uint8_t rec[200];
	struct state_txn *t;
	char err[300], key[16];

	assert_int_equal(state_dir_open(&w->dir, dir, err, sizeof(err)), 0);
	assert_int_equal(state_create(&w->st, w->dir, &who, &o, err, sizeof(err)), 0);
	assert_int_equal(state_make_current(w->st, err, sizeof(err)), 0);
	assert_int_equal(expire_open(&w->x, PARTITIONS), 0);
	assert_int_equal(state_begin(w->st, &t), 0);
	for (int i = 0; i < KEYS; i++) {
		const struct record r = { .partition = i % PARTITIONS,
					  .offset = i / PARTITIONS,
					  .value = "value",
					  .value_len = 5 };
		snprintf(key, sizeof(key), "key-%06d", i);
		record_encode(rec, &r, key, strlen(key));
		assert_int_equal(state_put(t, key, strlen(key), rec, record_bytes(&r)), 0);
	}
	assert_int_equal(state_commit(t), 0);
}

static void close_world(struct world *w)
{
	expire_close(w->x);
	state_close(w->st);
	state_dir_close(w->dir);
}

static void sweep(struct world *w, int64_t below0, int64_t below1)
{
	expire_begin(w->x, (int64_t[]){ below0, below1 });
	while (!expire_at_end(w->x))
		assert_int_equal(expire_step(w->x, w->st), 0);
}

static void assert_left(struct world *w, int64_t below0, int64_t below1)
{
	const int64_t below[] = { below0, below1 };
	struct state_view *v;
	char key[16];

	assert_int_equal(state_view_begin(w->st, &v), 0);
	for (int i = 0; i < KEYS; i++) {
		const void *rec;
		size_t len;
		snprintf(key, sizeof(key), "key-%06d", i);
		int rc = state_view_get(v, key, strlen(key), &rec, &len);
		assert_int_equal(rc, i / PARTITIONS < below[i % PARTITIONS] ? -ENOENT : 0);
	}
	state_view_end(v);
}

static void test_what_is_stored_below_the_start_of_its_partition_leaves(void **state)
{
	struct world w;
	open_world(&w, *state);
	sweep(&w, 700, 3);
	assert_int_equal(expire_count(w.x), 703);
	assert_left(&w, 700, 3);
	close_world(&w);
}

static void test_a_start_of_zero_takes_nothing_and_a_second_walk_counts_anew(void **state)
{
	struct world w;
	open_world(&w, *state);
	sweep(&w, 0, 0);
	assert_int_equal(expire_count(w.x), 0);
	assert_left(&w, 0, 0);
	sweep(&w, 10, 0);
	assert_int_equal(expire_count(w.x), 10);
	sweep(&w, 10, 0);
	assert_int_equal(expire_count(w.x), 0);
	assert_left(&w, 10, 0);
	close_world(&w);
}

/* More than one step takes, so that a walk goes on after keys that are not there any more. */
static void test_everything_may_leave(void **state)
{
	struct world w;
	open_world(&w, *state);
	sweep(&w, KEYS, KEYS);
	assert_int_equal(expire_count(w.x), KEYS);
	assert_left(&w, KEYS, KEYS);
	close_world(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with_dir(test_what_is_stored_below_the_start_of_its_partition_leaves),
		test_with_dir(test_a_start_of_zero_takes_nothing_and_a_second_walk_counts_anew),
		test_with_dir(test_everything_may_leave),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
