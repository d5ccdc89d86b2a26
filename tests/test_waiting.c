/* Superseded pairs in the state: which wait, in what order, and where their new values are. */
#include "harness.h"
#include "apply.h"
#include "state.h"

struct world {
	struct state_dir *dir;
	struct state *st;
	struct batch b;
	int64_t next;
	char err[300];
};

static const struct state_identity who = { "test", "cluster", "topic" };

static void create(struct world *w, const char *dir, bool waiting)
{
	const struct state_options o = { .lease_ms = 1, .waiting = waiting };

	memset(w, 0, sizeof(*w));
	assert_int_equal(state_dir_open(&w->dir, dir, w->err, sizeof(w->err)), 0);
	assert_int_equal(state_create(&w->st, w->dir, &who, &o, w->err, sizeof(w->err)), 0);
	assert_int_equal(state_make_current(w->st, w->err, sizeof(w->err)), 0);
}

static void reopen(struct world *w, bool waiting)
{
	const struct state_options o = { .lease_ms = 1, .waiting = waiting };

	state_close(w->st);
	w->st = NULL;
	assert_int_equal(state_open(&w->st, w->dir, &who, &o, w->err, sizeof(w->err)), 0);
	while (state_lease_wait_ms(w->st))
		usleep(1000);
}

static void close_world(struct world *w)
{
	batch_free(&w->b);
	state_close(w->st);
	state_dir_close(w->dir);
}

static void add(struct world *w, int p, const char *key, const char *value)
{
	struct batch_record *r = batch_add(&w->b, key, strlen(key));

	assert_non_null(r);
	r->rec.partition = p;
	r->rec.offset = w->next++;
	r->rec.timestamp_ms = 1000 + r->rec.offset;
	r->rec.value = value;
	r->rec.value_len = value ? strlen(value) : 0;
	if (!value)
		r->rec.flags |= RECORD_TOMBSTONE;
}

static void apply(struct world *w, enum moved moved)
{
	static const bool blind[2];
	const struct apply_options o = {
		.moved = moved, .journal = true, .waiting = state_waits(w->st), .blind = blind
	};
	struct apply_counts n = { 0 };
	struct state_txn *t;

	assert_int_equal(state_begin(w->st, &t), 0);
	assert_int_equal(apply_batch(t, &w->b, &o, &n, w->err, sizeof(w->err)), 0);
	assert_int_equal(state_commit(t), 0);
	batch_clear(&w->b);
}

static uint64_t pairs(struct world *w)
{
	struct state_stat s;

	assert_int_equal(state_stat(w->st, &s), 0);
	return s.waiting_pairs;
}

static uint64_t tombstones(struct world *w)
{
	struct state_stat s;

	assert_int_equal(state_stat(w->st, &s), 0);
	return s.tombstones;
}

/* Pair number `n` of partition 0 is (r, s) of `key`, from `before` to `after` (NULL: a tombstone). */
static void assert_pair(struct world *w, int n, const char *key, int64_t r, int64_t s,
			const char *before, const char *after)
{
	uint8_t skey[KEY_STORED_MAX];
	size_t skey_len = record_stored_key(skey, key, strlen(key));
	struct state_pair pair = { 0 };
	struct state_view *v;
	struct record now;
	struct change c;

	assert_int_equal(state_view_begin(w->st, &v), 0);
	int rc = state_view_waiting(v, 0, 0, &c), rc2 = state_view_pair(v, 0, 0, &pair);
	assert_int_equal(rc2, 0);
	for (int i = 0; i < n && !rc; i++)
		rc = state_view_waiting_next(v, &c);
	assert_int_equal(rc, 0);
	assert_int_equal(c.offset, s);
	assert_int_equal(c.before.offset, r);
	assert_int_equal(c.after.timestamp_ms, 1000 + s);
	assert_int_equal(c.key_len, strlen(key));
	assert_int_equal(!(c.before.flags & RECORD_TOMBSTONE), !!before);
	if (before) {
		assert_int_equal(c.before.value_len, strlen(before));
		assert_memory_equal(c.before.value, before, strlen(before));
	}
	assert_int_equal(c.op == CHANGE_DELETE, !after);
	if (after) {
		assert_int_equal(state_view_version(v, 0, s, skey, skey_len, &now), 0);
		assert_int_equal(now.value_len, strlen(after));
		assert_memory_equal(now.value, after, strlen(after));
	}
	state_view_end(v);
}

static void test_every_superseded_value_waits_in_the_order_of_what_superseded_it(void **state)
{
	struct world w;

	create(&w, *state, true);
	add(&w, 0, "z", "1");  /* 0 */
	add(&w, 0, "a", "a1"); /* 1 */
	add(&w, 0, "a", "a2"); /* 2: (1,2) */
	add(&w, 0, "z", "1");  /* 3: (0,3), equal bytes */
	apply(&w, MOVED_STOP);
	add(&w, 0, "a", NULL); /* 4: (2,4) */
	add(&w, 0, "a", NULL); /* 5: (4,5), a tombstone superseded by another */
	apply(&w, MOVED_STOP);
	assert_int_equal(tombstones(&w), 1);
	add(&w, 0, "a", "a3");  /* 6: (5,6), a create for everybody else */
	add(&w, 0, "", "long"); /* 7 */
	add(&w, 0, "", "er");   /* 8: (7,8), stored under a digest */
	add(&w, 0, "", NULL);   /* 9: (8,9) */
	apply(&w, MOVED_STOP);
	assert_int_equal(tombstones(&w), 1);
	add(&w, 0, "n", NULL);  /* 10: of a key that there never was, */
	add(&w, 0, "n", "new"); /* 11: (10,11) */
	add(&w, 0, "", "back"); /* 12: (9,12) */
	apply(&w, MOVED_STOP);
	assert_int_equal(tombstones(&w), 0);
	assert_int_equal(pairs(&w), 9);
	assert_pair(&w, 0, "a", 1, 2, "a1", "a2");
	assert_pair(&w, 1, "z", 0, 3, "1", "1");
	assert_pair(&w, 2, "a", 2, 4, "a2", NULL);
	assert_pair(&w, 3, "a", 4, 5, NULL, NULL);
	assert_pair(&w, 4, "a", 5, 6, NULL, "a3");
	assert_pair(&w, 5, "", 7, 8, "long", "er");
	assert_pair(&w, 6, "", 8, 9, "er", NULL);
	assert_pair(&w, 7, "n", 10, 11, NULL, "new");
	assert_pair(&w, 8, "", 9, 12, NULL, "back");
	close_world(&w);
}

static void test_the_oldest_tombstones_are_forgotten_first(void **state)
{
	struct state_txn *t;
	struct world w;

	create(&w, *state, true);
	add(&w, 0, "c", NULL); /* 0 */
	add(&w, 1, "a", NULL); /* 1 */
	add(&w, 0, "b", NULL); /* 2 */
	add(&w, 0, "c", NULL); /* 3: (0,3) */
	apply(&w, MOVED_STOP);
	assert_int_equal(tombstones(&w), 3);
	assert_int_equal(state_begin(w.st, &t), 0);
	assert_int_equal(state_tombstones_trim(t, 0, 1), 1);
	assert_int_equal(state_commit(t), 0);
	add(&w, 0, "b", "x"); /* 4: of what, nobody knows any more */
	add(&w, 0, "c", "y"); /* 5: (3,5) */
	apply(&w, MOVED_STOP);
	assert_int_equal(pairs(&w), 2);
	assert_pair(&w, 1, "c", 3, 5, NULL, "y");
	assert_int_equal(state_begin(w.st, &t), 0);
	assert_int_equal(state_tombstones_trim(t, 0, 10), 0);
	assert_int_equal(state_tombstones_trim(t, 1, 10), 1);
	assert_int_equal(state_commit(t), 0);
	assert_int_equal(tombstones(&w), 0);
	close_world(&w);
}

static void test_a_key_that_moved_is_superseded_in_no_log(void **state)
{
	struct world w;

	create(&w, *state, true);
	add(&w, 0, "a", "1");
	add(&w, 1, "a", "2");
	apply(&w, MOVED_TIMESTAMP);
	assert_int_equal(pairs(&w), 0);
	close_world(&w);
}

static void trim(struct world *w, int64_t below, int max, int expected)
{
	struct state_txn *t;

	assert_int_equal(state_begin(w->st, &t), 0);
	assert_int_equal(state_waiting_trim(t, 0, below, max), expected);
	assert_int_equal(state_commit(t), 0);
}

static void test_what_is_told_leaves_and_the_rest_keeps_its_values(void **state)
{
	struct world w;

	create(&w, *state, true);
	for (int i = 0; i < 5; i++) /* (0,2) (1,3) (2,4) (3,5) ... of a and b */
		for (int k = 0; k < 2; k++)
			add(&w, 0, k ? "b" : "a", i % 2 ? "odd" : "even");
	apply(&w, MOVED_STOP);
	assert_int_equal(pairs(&w), 8);
	trim(&w, 5, 2, 2);
	trim(&w, 5, 100, 1);
	trim(&w, 5, 100, 0);
	assert_int_equal(pairs(&w), 5);
	assert_pair(&w, 0, "b", 3, 5, "odd", "even");
	reopen(&w, true);
	assert_pair(&w, 0, "b", 3, 5, "odd", "even");
	trim(&w, 1000, 100, 5);
	assert_int_equal(pairs(&w), 0);
	close_world(&w);
}

static void test_without_the_option_nothing_waits_and_what_did_is_removed(void **state)
{
	struct state_txn *t;
	struct world w;

	create(&w, *state, false);
	add(&w, 0, "a", "1");
	add(&w, 0, "a", "2");
	apply(&w, MOVED_STOP);
	assert_int_equal(pairs(&w), 0);
	reopen(&w, true);
	add(&w, 0, "a", "3");
	apply(&w, MOVED_STOP);
	assert_pair(&w, 0, "a", 1, 2, "2", "3");
	for (int i = 0; i < 2; i++) { /* removed by the first commit, and then simply not there */
		reopen(&w, false);
		assert_int_equal(state_begin(w.st, &t), 0);
		assert_int_equal(state_commit(t), 0);
		assert_int_equal(pairs(&w), 0);
	}
	reopen(&w, true);
	add(&w, 0, "a", "4");
	apply(&w, MOVED_STOP);
	assert_int_equal(pairs(&w), 1);
	close_world(&w);
}

static void test_a_view_from_before_the_first_pair_has_none(void **state)
{
	struct state_view *v;
	struct change c;
	struct world w;

	create(&w, *state, true);
	assert_int_equal(state_view_begin(w.st, &v), 0);
	add(&w, 0, "a", "1");
	add(&w, 0, "a", "2");
	apply(&w, MOVED_STOP);
	assert_int_equal(state_view_waiting(v, 0, 0, &c), -ENOENT);
	state_view_end(v);
	assert_int_equal(pairs(&w), 1);
	close_world(&w);
}

static void test_a_rebuilt_generation_takes_over_what_waits(void **state)
{
	const struct state_options o = { .lease_ms = 1 };
	struct state *fresh;
	struct world w;

	create(&w, *state, true);
	add(&w, 0, "a", "1");
	add(&w, 0, "a", "2");
	add(&w, 0, "a", NULL);
	apply(&w, MOVED_STOP);
	assert_int_equal(state_create(&fresh, w.dir, &who, &o, w.err, sizeof(w.err)), 0);
	assert_int_equal(state_take_over(fresh, w.st), 0);
	assert_int_equal(state_make_current(fresh, w.err, sizeof(w.err)), 0);
	state_close(fresh);
	reopen(&w, true);
	assert_int_equal(pairs(&w), 2);
	assert_pair(&w, 1, "a", 1, 2, "2", NULL);
	assert_int_equal(tombstones(&w), 1);
	add(&w, 0, "a", "4");
	apply(&w, MOVED_STOP);
	assert_pair(&w, 2, "a", 2, 3, NULL, "4");
	close_world(&w);
}

#define T(f) test_with_dir(f)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_every_superseded_value_waits_in_the_order_of_what_superseded_it),
		T(test_the_oldest_tombstones_are_forgotten_first),
		T(test_a_key_that_moved_is_superseded_in_no_log),
		T(test_what_is_told_leaves_and_the_rest_keeps_its_values),
		T(test_without_the_option_nothing_waits_and_what_did_is_removed),
		T(test_a_view_from_before_the_first_pair_has_none),
		T(test_a_rebuilt_generation_takes_over_what_waits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
