/* Batches against a model that keeps one value per key, in the plainest way. */
#include "harness.h"
#include "apply.h"
#include "state.h"

enum { KEYS = 7, PARTITIONS = 2 };

struct world {
	struct state_dir *dir;
	struct state *st;
	int64_t next[PARTITIONS];
	char *model[KEYS]; /* NULL: absent */
	struct batch b;
	bool blind[PARTITIONS];
	struct apply_counts counts;
	char err[300];
};

static void open_world(struct world *w, const char *dir)
{
	const struct state_identity who = { "test", "cluster", "topic" };
	const struct state_options o = { .lease_ms = 100 };

	memset(w, 0, sizeof(*w));
	assert_int_equal(state_dir_open(&w->dir, dir, w->err, sizeof(w->err)), 0);
	assert_int_equal(state_create(&w->st, w->dir, &who, &o, w->err, sizeof(w->err)), 0);
	assert_int_equal(state_make_current(w->st, w->err, sizeof(w->err)), 0);
}

static void close_world(struct world *w)
{
	for (int k = 0; k < KEYS; k++)
		free(w->model[k]);
	batch_free(&w->b);
	state_close(w->st);
	state_dir_close(w->dir);
}

static const char *const key_names[KEYS] = { "a", "b", "bb", "bbbbbbbbb1", "bbbbbbbbb2", "", "z" };

static struct batch_record *add(struct world *w, int p, const char *key, const char *value)
{
	struct batch_record *r = batch_add(&w->b, key, strlen(key));
	assert_non_null(r);
	r->rec.partition = p;
	r->rec.offset = w->next[p]++;
	r->rec.timestamp_ms = r->rec.offset;
	r->rec.value = value;
	r->rec.value_len = value ? strlen(value) : 0;
	if (!value)
		r->rec.flags |= RECORD_TOMBSTONE;
	return r;
}

static int apply(struct world *w, enum moved moved)
{
	const struct apply_options o = { .moved = moved, .journal = true, .blind = w->blind };
	struct state_txn *t;

	assert_int_equal(state_begin(w->st, &t), 0);
	int rc = apply_batch(t, &w->b, &o, &w->counts, w->err, sizeof(w->err));
	if (rc)
		state_abort(t);
	else
		assert_int_equal(state_commit(t), 0);
	batch_clear(&w->b);
	return rc;
}

static void assert_stored(struct world *w, const char *key, const char *value)
{
	uint8_t skey[KEY_STORED_MAX];
	size_t skey_len = record_stored_key(skey, key, strlen(key)), len;
	struct state_view *v;
	struct record r;
	const void *rec;

	assert_int_equal(state_view_begin(w->st, &v), 0);
	int rc = state_view_get(v, skey, skey_len, &rec, &len);
	if (value) {
		assert_int_equal(rc, 0);
		assert_int_equal(record_decode(&r, rec, len, skey, skey_len), 0);
		assert_int_equal(r.value_len, strlen(value));
		assert_memory_equal(r.value, value, r.value_len);
	} else {
		assert_int_equal(rc, -ENOENT);
	}
	state_view_end(v);
}

/* ---- the random walk ---- */

struct expected {
	int p;
	int64_t offset;
	enum change_op op;
	char *before, *after;
};

static char *copy(const char *s) { return s ? strdup(s) : NULL; }

static bool model_step(struct world *w, int k, const char *value, struct expected *e)
{
	char *old = w->model[k];

	if (!old && !value)
		return false;
	e->op = !value               ? CHANGE_DELETE
		: !old               ? CHANGE_CREATE
		: strcmp(old, value) ? CHANGE_UPDATE
				     : CHANGE_UNCHANGED;
	e->before = old; /* taken over */
	e->after = copy(value);
	w->model[k] = copy(value);
	return true;
}

static void assert_value(const struct record *r, const char *value)
{
	assert_int_equal(r->value_len, strlen(value));
	assert_memory_equal(r->value, value, r->value_len);
}

static void assert_journal(struct world *w, const struct expected *e, size_t n)
{
	struct state_view *v;
	struct change c;

	assert_int_equal(state_view_begin(w->st, &v), 0);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(state_view_journal(v, e[i].p, e[i].offset, 0, &c), 0);
		assert_int_equal(c.partition, e[i].p);
		assert_int_equal(c.offset, e[i].offset);
		assert_int_equal(c.op, e[i].op);
		assert_int_equal(c.has_before, e[i].before != NULL);
		if (e[i].before)
			assert_value(&c.before, e[i].before);
		assert_int_equal(!!(c.after.flags & RECORD_TOMBSTONE), e[i].after == NULL);
		if (e[i].after)
			assert_value(&c.after, e[i].after);
	}
	state_view_end(v);
}

static uint64_t count_journal(struct world *w)
{
	struct state_stat s;
	assert_int_equal(state_stat(w->st, &s), 0);
	return s.journal_entries;
}

static void test_random_batches_leave_what_the_model_says_and_journal_every_transition(void **state)
{
	static const char *const values[] = { "", "1", "2", "a longer value", NULL, NULL };
	struct expected e[4000];
	size_t n = 0;
	struct world w;

	open_world(&w, *state);
	srand(7);
	for (int round = 0; round < 200; round++) {
		for (int i = rand() % 20; i > 0; i--) {
			int k = rand() % KEYS;
			const char *value = values[(size_t)rand() % 6];
			struct batch_record *r = add(&w, k % PARTITIONS, key_names[k], value);
			e[n] = (struct expected){ .p = k % PARTITIONS, .offset = r->rec.offset };
			n += model_step(&w, k, value, &e[n]);
		}
		assert_int_equal(apply(&w, MOVED_STOP), 0);
		for (int k = 0; k < KEYS; k++)
			assert_stored(&w, key_names[k], w.model[k]);
	}
	assert_true(n > 1000);
	assert_int_equal(count_journal(&w), n);
	assert_journal(&w, e, n);
	for (size_t i = 0; i < n; i++) {
		free(e[i].before);
		free(e[i].after);
	}
	close_world(&w);
}

/* ---- single rules ---- */

static void test_equal_bytes_still_update_the_stored_position(void **state)
{
	struct world w;
	struct state_view *v;
	struct record r;
	const void *rec;
	size_t len;

	open_world(&w, *state);
	add(&w, 0, "k", "same");
	assert_int_equal(apply(&w, MOVED_STOP), 0);
	add(&w, 0, "k", "same");
	assert_int_equal(apply(&w, MOVED_STOP), 0);
	assert_int_equal(state_view_begin(w.st, &v), 0);
	assert_int_equal(state_view_get(v, "k", 1, &rec, &len), 0);
	assert_int_equal(record_decode(&r, rec, len, "k", 1), 0);
	assert_int_equal(r.offset, 1);
	state_view_end(v);
	close_world(&w);
}

static void test_a_key_in_a_second_partition_stops_and_names_the_key(void **state)
{
	struct world w;

	open_world(&w, *state);
	add(&w, 0, "k", "here");
	assert_int_equal(apply(&w, MOVED_STOP), 0);
	add(&w, 1, "k", "there");
	assert_int_equal(apply(&w, MOVED_STOP), -EXDEV);
	assert_non_null(strstr(w.err, "'k'"));
	assert_stored(&w, "k", "here");
	close_world(&w);
}

static void test_with_timestamps_the_later_record_of_two_partitions_stays(void **state)
{
	struct world w;

	open_world(&w, *state);
	add(&w, 0, "k", "old")->rec.timestamp_ms = 50;
	assert_int_equal(apply(&w, MOVED_TIMESTAMP), 0);
	add(&w, 1, "k", "older")->rec.timestamp_ms = 40;
	assert_int_equal(apply(&w, MOVED_TIMESTAMP), 0);
	assert_stored(&w, "k", "old");
	add(&w, 1, "k", "newer")->rec.timestamp_ms = 60;
	assert_int_equal(apply(&w, MOVED_TIMESTAMP), 0);
	assert_stored(&w, "k", "newer");
	assert_int_equal(count_journal(&w), 2);
	assert_int_equal(w.counts.ignored_moves, 1);
	close_world(&w);
}

static void test_a_blind_tombstone_is_journaled_without_a_before(void **state)
{
	struct world w;
	struct state_view *v;
	struct change c;

	open_world(&w, *state);
	w.blind[0] = true;
	add(&w, 0, "k", NULL);
	add(&w, 1, "l", NULL);
	assert_int_equal(apply(&w, MOVED_STOP), 0);
	assert_int_equal(count_journal(&w), 1);
	assert_int_equal(state_view_begin(w.st, &v), 0);
	assert_int_equal(state_view_journal(v, 0, 0, 0, &c), 0);
	assert_int_equal(c.op, CHANGE_DELETE);
	assert_false(c.has_before);
	state_view_end(v);
	close_world(&w);
}

static void test_a_corrupt_stored_record_is_found_before_it_becomes_an_old_value(void **state)
{
	struct state_txn *t;
	struct world w;
	uint8_t junk[40] = { 1 };

	open_world(&w, *state);
	assert_int_equal(state_begin(w.st, &t), 0);
	assert_int_equal(state_put(t, "k", 1, junk, sizeof(junk)), 0);
	assert_int_equal(state_commit(t), 0);
	add(&w, 0, "k", "new");
	assert_int_equal(apply(&w, MOVED_STOP), -EBADMSG);
	assert_non_null(strstr(w.err, "checksum"));
	close_world(&w);
}

static void test_the_journal_has_every_header_and_the_state_only_those_kept(void **state)
{
	struct record_header kept = { "keep", 4, "1", 1 }, other = { "drop", 4, NULL, 0 };
	uint8_t all[64];
	struct world w;
	struct state_view *v;
	struct change c;
	struct record r;
	const void *rec;
	size_t len;

	open_world(&w, *state);
	struct batch_record *b = add(&w, 0, "k", "v");
	uint8_t *end = record_header_encode(record_header_encode(all, &kept), &other);
	b->all_headers = all;
	b->all_headers_len = (size_t)(end - all);
	b->rec.headers = all;
	b->rec.headers_len = record_header_bytes(&kept);
	b->rec.flags |= RECORD_HEADERS;
	assert_int_equal(apply(&w, MOVED_STOP), 0);
	assert_int_equal(state_view_begin(w.st, &v), 0);
	assert_int_equal(state_view_get(v, "k", 1, &rec, &len), 0);
	assert_int_equal(record_decode(&r, rec, len, "k", 1), 0);
	assert_int_equal(r.headers_len, record_header_bytes(&kept));
	assert_int_equal(state_view_journal(v, 0, 0, 0, &c), 0);
	assert_int_equal(c.after.headers_len, end - all);
	assert_memory_equal(c.after.headers, all, c.after.headers_len);
	state_view_end(v);
	close_world(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with_dir(
			test_random_batches_leave_what_the_model_says_and_journal_every_transition),
		test_with_dir(test_equal_bytes_still_update_the_stored_position),
		test_with_dir(test_a_key_in_a_second_partition_stops_and_names_the_key),
		test_with_dir(test_with_timestamps_the_later_record_of_two_partitions_stays),
		test_with_dir(test_a_blind_tombstone_is_journaled_without_a_before),
		test_with_dir(test_a_corrupt_stored_record_is_found_before_it_becomes_an_old_value),
		test_with_dir(test_the_journal_has_every_header_and_the_state_only_those_kept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
