/* The bulk load that keeps superseded pairs against applying the log record by record. */
#include "harness.h"
#include "apply.h"
#include "state.h"
#include "versions.h"

enum { RECORDS = 4000, KEYS = 60, PARTITIONS = 3, VALUE_MAX = 600, KIB = 1 << 10 };

struct world {
	struct state_dir *dir[2];
	struct state *st[2]; /* applied one by one; loaded */
	enum moved moved;
	int64_t bound;
	unsigned seed;
	char err[300];
	struct versions_stat stat;
};

static unsigned next_random(struct world *w)
{
	return (w->seed = w->seed * 1103515245 + 12345) >> 8;
}

static void open_world(struct world *w, const char *dir)
{
	const struct state_identity who = { "test", "cluster", "topic" };
	const struct state_options o = { .lease_ms = 1, .waiting = true };
	char path[300];

	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%d", dir, i);
		assert_int_equal(state_dir_open(&w->dir[i], path, w->err, sizeof(w->err)), 0);
		assert_int_equal(
			state_create(&w->st[i], w->dir[i], &who, &o, w->err, sizeof(w->err)), 0);
	}
}

static void close_world(struct world *w)
{
	for (int i = 0; i < 2; i++) {
		state_close(w->st[i]);
		state_dir_close(w->dir[i]);
	}
}

static void apply(struct world *w, struct batch *b)
{
	static const bool blind[PARTITIONS] = { true, true, true };
	const struct apply_options o = { .moved = w->moved, .waiting = true, .blind = blind };
	struct apply_counts n = { 0 };
	struct state_txn *t;

	assert_int_equal(state_begin(w->st[0], &t), 0);
	assert_int_equal(apply_batch(t, b, &o, &n, w->err, sizeof(w->err)), 0);
	assert_int_equal(state_commit(t), 0);
	batch_clear(b);
}

/* One record by chance; some keys are stored under a digest, and some move. */
static void add(struct world *w, struct batch *b, int i, char *value)
{
	int k = (int)(next_random(w) % KEYS);
	size_t len = next_random(w) % 4 ? next_random(w) % 30 : next_random(w) % VALUE_MAX;
	char key[700];

	snprintf(key, sizeof(key), k % 10 ? "key-%d" : "key-%0600d", k);
	struct batch_record *r = batch_add(b, arena_copy(&b->arena, key, strlen(key)), strlen(key));
	assert_non_null(r);
	r->rec.partition = k % PARTITIONS;
	if (w->moved == MOVED_TIMESTAMP && next_random(w) % 20 == 0)
		r->rec.partition = (int)(next_random(w) % PARTITIONS);
	r->rec.offset = i;
	r->rec.timestamp_ms = 1000 + i;
	if (next_random(w) % 5 == 0) {
		r->rec.flags |= RECORD_TOMBSTONE;
		return;
	}
	memset(value, 'a' + i % 26, len);
	r->rec.value = value;
	r->rec.value_len = len;
}

static void load_both(struct world *w, const char *dir, size_t memory)
{
	struct versions *v;
	struct batch b = { 0 };
	char value[VALUE_MAX];
	int rc;

	assert_int_equal(versions_open(&v, w->st[1], dir, memory, w->moved, PARTITIONS, w->bound),
			 0);
	for (int i = 0; i < RECORDS; i++) {
		add(w, &b, i, value);
		assert_int_equal(versions_add(v, b.v[0].skey, b.v[0].skey_len, &b.v[0].rec), 0);
		apply(w, &b);
	}
	assert_int_equal(versions_finish(v), 0);
	while ((rc = versions_store(v)) == 1)
		;
	assert_int_equal(rc, 0);
	w->stat = *versions_stat(v);
	versions_close(v);
	batch_free(&b);
}

static void assert_same_records(struct world *w)
{
	struct state_view *v[2];
	const void *skey[2], *rec[2];
	size_t skey_len[2], len[2];
	int rc[2], n = 0;

	for (int i = 0; i < 2; i++)
		assert_int_equal(state_view_begin(w->st[i], &v[i]), 0);
	for (;; n++) {
		for (int i = 0; i < 2; i++)
			rc[i] = state_view_walk(v[i], NULL, 0, &skey[i], &skey_len[i], &rec[i],
						&len[i]);
		assert_int_equal(rc[0], rc[1]);
		if (rc[0])
			break;
		assert_int_equal(skey_len[0], skey_len[1]);
		assert_memory_equal(skey[0], skey[1], skey_len[0]);
		assert_int_equal(len[0], len[1]);
		assert_memory_equal(rec[0], rec[1], len[0]);
	}
	assert_true(n > KEYS / 2);
	for (int i = 0; i < 2; i++)
		state_view_end(v[i]);
}

static void assert_same_old(const struct record *a, const struct record *b)
{
	assert_int_equal(a->offset, b->offset);
	assert_int_equal(a->timestamp_ms, b->timestamp_ms);
	assert_int_equal(a->flags & RECORD_TOMBSTONE, b->flags & RECORD_TOMBSTONE);
	if (b->flags & RECORD_OMITTED)
		return;
	assert_int_equal(a->value_len, b->value_len);
	if (a->value_len)
		assert_memory_equal(a->value, b->value, a->value_len);
}

/* The number of old values that were left out. */
static int assert_same_pairs(struct world *w, int p)
{
	struct state_view *v[2];
	struct change c[2];
	int rc[2], omitted = 0;
	bool whole = false;

	for (int i = 0; i < 2; i++) {
		assert_int_equal(state_view_begin(w->st[i], &v[i]), 0);
		rc[i] = state_view_waiting(v[i], p, 0, &c[i]);
	}
	for (; !rc[0] && !rc[1]; rc[0] = state_view_waiting_next(v[0], &c[0]),
				 rc[1] = state_view_waiting_next(v[1], &c[1])) {
		assert_int_equal(c[0].offset, c[1].offset);
		assert_int_equal(c[0].op, c[1].op);
		assert_int_equal(c[0].key_len, c[1].key_len);
		assert_memory_equal(c[0].key, c[1].key, c[0].key_len);
		assert_same_old(&c[0].before, &c[1].before);
		assert_int_equal(c[0].after.offset, c[1].after.offset);
		bool left_out = c[1].before.flags & RECORD_OMITTED;
		whole |= !left_out && c[1].before.value_len > RECORD_OMITTED_BYTES;
		assert_false(left_out && whole); /* the oldest ones */
		omitted += left_out;
	}
	assert_int_equal(rc[0], -ENOENT);
	assert_int_equal(rc[1], -ENOENT);
	for (int i = 0; i < 2; i++)
		state_view_end(v[i]);
	return omitted;
}

/* Superseded by one more record each: what is remembered of tombstones makes the same pairs. */
static void supersede_all(struct world *w)
{
	static const bool blind[PARTITIONS] = { true, true, true };
	const struct apply_options o = { .moved = w->moved, .waiting = true, .blind = blind };

	for (int i = 0; i < 2; i++) {
		struct apply_counts n = { 0 };
		struct batch b = { 0 };
		struct state_txn *t;

		for (int k = 0; k < KEYS; k++) {
			char key[700];
			snprintf(key, sizeof(key), k % 10 ? "key-%d" : "key-%0600d", k);
			struct batch_record *r =
				batch_add(&b, arena_copy(&b.arena, key, strlen(key)), strlen(key));
			r->rec.partition = k % PARTITIONS;
			r->rec.offset = RECORDS + k;
			r->rec.timestamp_ms = 1000000;
			r->rec.value = "";
		}
		assert_int_equal(state_begin(w->st[i], &t), 0);
		assert_int_equal(apply_batch(t, &b, &o, &n, w->err, sizeof(w->err)), 0);
		assert_int_equal(state_commit(t), 0);
		batch_free(&b);
	}
}

static int assert_same(struct world *w)
{
	struct state_stat s[2];
	int omitted = 0;

	assert_same_records(w);
	for (int i = 0; i < 2; i++)
		assert_int_equal(state_stat(w->st[i], &s[i]), 0);
	assert_int_equal(s[0].tombstones, s[1].tombstones);
	assert_int_equal(s[0].waiting_pairs, s[1].waiting_pairs);
	assert_int_equal(w->stat.pairs, s[1].waiting_pairs);
	assert_int_equal(w->stat.records, s[1].records);
	supersede_all(w);
	for (int p = 0; p < PARTITIONS; p++)
		omitted += assert_same_pairs(w, p);
	return omitted;
}

static void test_pairs_tombstones_and_records_are_those_of_applying_one_by_one(void **state)
{
	struct world w = { .moved = MOVED_STOP, .bound = 1 << 30, .seed = 1 };

	open_world(&w, *state);
	load_both(&w, *state, 4 << 20);
	assert_int_equal(assert_same(&w), 0);
	close_world(&w);
}

static void test_the_same_in_little_memory_and_where_keys_move(void **state)
{
	struct world w = { .moved = MOVED_TIMESTAMP, .bound = 1 << 30, .seed = 2 };

	open_world(&w, *state);
	load_both(&w, *state, 128 * KIB);
	assert_int_equal(assert_same(&w), 0);
	close_world(&w);
}

static void test_beyond_the_bound_the_oldest_wait_without_their_values(void **state)
{
	struct world w = { .moved = MOVED_STOP, .bound = 400 * KIB, .seed = 3 };

	open_world(&w, *state);
	load_both(&w, *state, 256 * KIB);
	int omitted = assert_same(&w);
	assert_int_equal(omitted, w.stat.omitted);
	assert_true(omitted > 50);
	close_world(&w);
}

static void test_a_key_in_two_partitions_is_named(void **state)
{
	struct world w = { .moved = MOVED_STOP, .bound = 1 << 30 };
	struct record r = { .value = "x", .value_len = 1, .offset = 7 };
	struct versions *v;
	int rc;

	open_world(&w, *state);
	assert_int_equal(
		versions_open(&v, w.st[1], *state, 256 * KIB, MOVED_STOP, PARTITIONS, w.bound), 0);
	assert_int_equal(versions_add(v, "a\n", 2, &r), 0);
	r.partition = 1;
	assert_int_equal(versions_add(v, "a\n", 2, &r), 0);
	assert_int_equal(versions_finish(v), 0);
	while ((rc = versions_store(v)) == 1)
		;
	assert_int_equal(rc, -EXDEV);
	assert_string_equal(versions_error(v), "key 'a\\x0a' at 1/7 is stored from partition 0");
	versions_close(v);
	close_world(&w);
}

#define T(f) test_with_dir(f)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_pairs_tombstones_and_records_are_those_of_applying_one_by_one),
		T(test_the_same_in_little_memory_and_where_keys_move),
		T(test_beyond_the_bound_the_oldest_wait_without_their_values),
		T(test_a_key_in_two_partitions_is_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
