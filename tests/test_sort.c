/* The sorter against a model that keeps one record per key, applied in the plainest way. */
#include "harness.h"
#include "decide.h"
#include "sort.h"

#include <dirent.h>
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>

enum { KIB = 1 << 10, MIB = 1 << 20 };

/* ---- a model: what is left of each key ---- */

struct kept {
	char *key; /* as stored */
	size_t key_len;
	uint8_t *rec; /* encoded; NULL: absent */
	size_t rec_len;
	struct record r;
};

struct model {
	struct kept *v;
	size_t n;
	enum moved moved;
};

static void model_free(struct model *m)
{
	for (size_t i = 0; i < m->n; i++) {
		free(m->v[i].key);
		free(m->v[i].rec);
	}
	free(m->v);
}

static struct kept *model_key(struct model *m, const void *key, size_t len)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->v[i].key_len == len && !memcmp(m->v[i].key, key, len))
			return &m->v[i];
	m->v = realloc(m->v, (m->n + 1) * sizeof(*m->v));
	assert_non_null(m->v);
	m->v[m->n] = (struct kept){ .key = malloc(len), .key_len = len };
	memcpy(m->v[m->n].key, key, len);
	return &m->v[m->n++];
}

/* -EXDEV where the sorter has to refuse. */
static int model_apply(struct model *m, struct kept *k, const struct record *now)
{
	enum change_op op;
	enum transition t = decide_transition(k->rec ? &k->r : NULL, now, false, &op);

	if (t == TRANSITION_NONE)
		return 0;
	if (t == TRANSITION_MOVED && m->moved == MOVED_STOP)
		return -EXDEV;
	if (t == TRANSITION_MOVED && !decide_moved_wins(&k->r, now))
		return 0;
	free(k->rec);
	k->rec = NULL;
	k->r = *now;
	if (now->flags & RECORD_TOMBSTONE)
		return 0;
	k->rec_len = record_bytes(now);
	k->rec = malloc(k->rec_len);
	record_encode(k->rec, now, k->key, k->key_len);
	return 0;
}

static int by_key(const void *x, const void *y)
{
	const struct kept *a = x, *b = y;
	size_t min = a->key_len < b->key_len ? a->key_len : b->key_len;
	int c = memcmp(a->key, b->key, min);

	return c ? c : (a->key_len > b->key_len) - (a->key_len < b->key_len);
}

static void assert_equal(struct sorter *s, struct model *m)
{
	struct sorted out;
	int rc;

	qsort(m->v, m->n, sizeof(*m->v), by_key);
	for (size_t i = 0; i < m->n; i++) {
		const struct kept *k = &m->v[i];
		if (!k->rec)
			continue;
		rc = sort_next(s, &out);
		if (rc < 0)
			fail_msg("%s", sort_error(s));
		assert_int_equal(rc, 1);
		assert_int_equal(out.skey_len, k->key_len);
		assert_memory_equal(out.skey, k->key, k->key_len);
		assert_int_equal(out.rec_len, k->rec_len);
		assert_memory_equal(out.rec, k->rec, k->rec_len);
	}
	assert_int_equal(sort_next(s, &out), 0);
	assert_int_equal(sort_next(s, &out), 0);
}

/* ---- random records ---- */

static unsigned dice;

static unsigned roll(unsigned n)
{
	dice = dice * 1103515245 + 12345;
	return (dice >> 8) % n;
}

struct walk {
	const char *dir;
	size_t memory;
	enum moved moved;
	int keys, records, partitions, max_value;
	const char *prefix, *infix;
	bool digests;
	bool backwards; /* timestamps go up and down */
};

static size_t make_key(const struct walk *w, int k, uint8_t skey[KEY_STORED_MAX], char *key,
		       size_t *key_len)
{
	if (w->digests && k % 3 == 0) {
		*key_len = k % 2 ? 0 : 600 + (size_t)k;
		memset(key, 'a' + k % 26, *key_len);
	} else {
		*key_len = (size_t)sprintf(key, "%s%.*s%s%d", w->prefix, k % 11, "xxxxxxxxxxx",
					   w->infix ? w->infix : "", k);
	}
	return record_stored_key(skey, key, *key_len);
}

static void walk(const struct walk *w)
{
	struct model m = { .moved = w->moved };
	struct sorter *s;
	char *key = malloc((size_t)w->keys + 2000), *value = malloc((size_t)w->max_value + 1);
	uint8_t skey[KEY_STORED_MAX];
	int rc = 0, expected = 0;

	assert_int_equal(sort_open(&s, w->dir, w->memory, w->moved), 0);
	for (int i = 0; i < w->records && !rc && !expected; i++) {
		int k = (int)roll((unsigned)w->keys);
		size_t key_len, skey_len = make_key(w, k, skey, key, &key_len);
		struct record r = { .partition = (int)roll((unsigned)w->partitions) };
		r.offset = i;
		r.timestamp_ms = w->backwards ? (int)roll(20) : i;
		if (w->partitions > 1 && w->moved == MOVED_STOP && roll(1000))
			r.partition = k % w->partitions;
		if (record_key_is_digest(key_len)) {
			r.flags = RECORD_KEY;
			r.key = key;
			r.key_len = key_len;
		}
		r.value_len = roll((unsigned)w->max_value + 1);
		memset(value, (int)roll(256), r.value_len);
		r.value = value;
		if (roll(5) == 0) {
			r.flags |= RECORD_TOMBSTONE;
			r.value = NULL;
			r.value_len = 0;
		}
		expected = model_apply(&m, model_key(&m, skey, skey_len), &r);
		rc = sort_add(s, skey, skey_len, &r);
	}
	if (!rc)
		rc = sort_finish(s);
	if (expected) {
		struct sorted out;
		while (!rc && (rc = sort_next(s, &out)) == 1)
			rc = 0;
		assert_int_equal(rc, expected);
		assert_non_null(strstr(sort_error(s), "is stored from partition"));
	} else {
		if (rc)
			fail_msg("%s", sort_error(s));
		assert_equal(s, &m);
	}
	sort_close(s);
	model_free(&m);
	free(key);
	free(value);
}

static void test_of_each_key_the_last_version_is_left_in_order(void **state)
{
	static const size_t memory[] = { 20 * KIB, 64 * KIB, MIB, 16 * MIB };

	for (unsigned seed = 1; seed <= 40; seed++) {
		dice = seed;
		walk(&(struct walk){ .dir = *state,
				     .memory = memory[seed % 4],
				     .keys = 1 + (int)roll(500),
				     .records = (int)roll(20000),
				     .partitions = 1,
				     .max_value = seed % 3 ? 50 : 3000,
				     .prefix = seed % 2 ? "" : "user:",
				     .digests = seed % 5 == 0 });
	}
}

static void test_many_tiny_runs_are_merged_in_between(void **state)
{
	dice = 7;
	walk(&(struct walk){ .dir = *state,
			     .memory = 10 * KIB,
			     .keys = 3000,
			     .records = 60000,
			     .partitions = 1,
			     .max_value = 100,
			     .prefix = "k" });
}

static void test_a_key_in_two_partitions_stops_unless_it_was_deleted(void **state)
{
	for (unsigned seed = 1; seed <= 60; seed++) {
		dice = seed;
		walk(&(struct walk){ .dir = *state,
				     .memory = seed % 2 ? 16 * KIB : MIB,
				     .moved = MOVED_STOP,
				     .keys = 1 + (int)roll(300),
				     .records = 1 + (int)roll(1500),
				     .partitions = 3,
				     .max_value = 60,
				     .prefix = "" });
	}
}

static void test_of_two_partitions_the_later_timestamp_wins(void **state)
{
	for (unsigned seed = 1; seed <= 60; seed++) {
		dice = seed;
		walk(&(struct walk){ .dir = *state,
				     .memory = seed % 3 ? 16 * KIB : MIB,
				     .moved = MOVED_TIMESTAMP,
				     .keys = 1 + (int)roll(200),
				     .records = (int)roll(5000),
				     .partitions = 1 + (int)roll(4),
				     .max_value = 60,
				     .prefix = "p",
				     .backwards = seed % 2 });
	}
}

static void test_keys_that_differ_late_or_by_length_only(void **state)
{
	/* eight bytes after the common prefix do not tell these apart */
	dice = 3;
	walk(&(struct walk){ .dir = *state,
			     .memory = 256 * KIB,
			     .keys = 400,
			     .records = 8000,
			     .partitions = 1,
			     .max_value = 20,
			     .prefix = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
			     .digests = true });

	static const char *const keys[] = {
		"", "\0", "\0\0", "a", "a\0", "a\0\0\0\0\0\0\0\0", "ab"
	};
	static const size_t lens[] = { 1, 1, 2, 1, 2, 9, 2 };
	struct model m = { 0 };
	struct sorter *s;

	assert_int_equal(sort_open(&s, *state, 64 * KIB, MOVED_STOP), 0);
	for (int i = 0; i < 21000; i++) {
		int k = i % 7;
		struct record r = { .offset = i, .value = keys[k], .value_len = lens[k] };
		assert_int_equal(model_apply(&m, model_key(&m, keys[k], lens[k]), &r), 0);
		assert_int_equal(sort_add(s, keys[k], lens[k], &r), 0);
	}
	assert_int_equal(sort_finish(s), 0);
	assert_equal(s, &m);
	sort_close(s);
	model_free(&m);
}

static int add(struct sorter *s, const char *key, const char *value, size_t len, int64_t offset)
{
	struct record r = { .offset = offset, .value = value, .value_len = len };

	if (!value)
		r.flags = RECORD_TOMBSTONE;
	return sort_add(s, key, strlen(key), &r);
}

static void test_values_larger_than_all_the_memory(void **state)
{
	size_t huge = 3 * MIB;
	char *value = malloc(huge), key[20];
	struct sorted out;
	struct sorter *s;

	assert_int_equal(sort_open(&s, *state, 64 * KIB, MOVED_STOP), 0);
	for (int i = 0; i < 40; i++) {
		memset(value, i, huge);
		snprintf(key, sizeof(key), "%d", 10 + i % 20);
		assert_int_equal(add(s, key, value, i % 3 ? huge : 10, i), 0);
	}
	assert_int_equal(sort_finish(s), 0);
	for (int i = 20; i < 40; i++) {
		assert_int_equal(sort_next(s, &out), 1);
		snprintf(key, sizeof(key), "%d", 10 + i % 20);
		assert_memory_equal(out.skey, key, 2);
		assert_int_equal(out.rec_len, RECORD_HEADER_BYTES + (i % 3 ? huge : 10));
		assert_int_equal(((const uint8_t *)out.rec)[out.rec_len - 1], i);
	}
	assert_int_equal(sort_next(s, &out), 0);
	sort_close(s);
	free(value);
}

static int entries_in(const char *dir)
{
	DIR *d = opendir(dir);
	int n = -2; /* . and .. */

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void test_what_fits_into_one_buffer_needs_no_file(void **state)
{
	struct sorter *s;
	struct sort_stat stat;
	struct sorted out;

	assert_int_equal(sort_open(&s, "/nowhere/at/all", MIB, MOVED_STOP), 0);
	for (int i = 0; i < 3000; i++)
		assert_int_equal(add(s, i % 2 ? "odd" : "even", "value", 5, i), 0);
	assert_int_equal(add(s, "gone", "value", 5, 3000), 0);
	assert_int_equal(add(s, "gone", NULL, 0, 3001), 0);
	assert_int_equal(sort_finish(s), 0);
	assert_int_equal(sort_next(s, &out), 1);
	assert_memory_equal(out.skey, "even", 4);
	assert_int_equal(sort_next(s, &out), 1);
	assert_memory_equal(out.skey, "odd", 3);
	assert_int_equal(sort_next(s, &out), 0);
	sort_stat(s, &stat);
	assert_int_equal(stat.runs, 0);
	sort_close(s);
	(void)state;
}

static void test_nothing_is_sorted_to_nothing(void **state)
{
	struct sorter *s;
	struct sorted out;

	assert_int_equal(sort_open(&s, *state, MIB, MOVED_STOP), 0);
	assert_int_equal(sort_finish(s), 0);
	assert_int_equal(sort_next(s, &out), 0);
	sort_close(s);
}

/* Add records until something is said. */
static int fill(struct sorter *s, int records)
{
	struct sorted out;
	char key[20], value[200] = { 0 };
	int rc = 0;

	for (int i = 0; i < records && !rc; i++) {
		snprintf(key, sizeof(key), "%08x", i * 2654435761u);
		rc = add(s, key, value, sizeof(value), i);
	}
	if (!rc)
		rc = sort_finish(s);
	while (!rc && (rc = sort_next(s, &out)) == 1)
		rc = 0;
	return rc;
}

static void test_the_file_has_no_name_and_a_close_at_any_time_ends_it(void **state)
{
	struct sorter *s;

	for (int records = 0; records < 20000; records += 1999) {
		assert_int_equal(sort_open(&s, *state, 128 * KIB, MOVED_STOP), 0);
		for (int i = 0; i < records; i++) {
			char key[20];
			snprintf(key, sizeof(key), "%d", i);
			assert_int_equal(add(s, key, "some value", 10, i), 0);
			if (i % 1000 == 0)
				assert_int_equal(entries_in(*state), 0);
		}
		if (records % 2)
			assert_int_equal(sort_finish(s), 0);
		sort_close(s);
		assert_int_equal(entries_in(*state), 0);
	}
}

static void test_a_full_disk_is_said_in_one_line(void **state)
{
	struct rlimit old, small;
	struct sorter *s;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = (struct rlimit){ 300 * KIB, old.rlim_max };
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(sort_open(&s, *state, 64 * KIB, MOVED_STOP), 0);
	int rc = fill(s, 100000);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(rc, -ENOSPC);
	assert_non_null(strstr(sort_error(s), *state));
	assert_null(strchr(sort_error(s), '\n'));
	sort_close(s);
	assert_int_equal(entries_in(*state), 0);
}

static void test_a_directory_that_is_not_there_is_said_so(void **state)
{
	struct sorter *s;

	assert_int_equal(sort_open(&s, "/nowhere/at/all", 64 * KIB, MOVED_STOP), 0);
	assert_int_equal(fill(s, 10000), -ENOENT);
	assert_non_null(strstr(sort_error(s), "/nowhere/at/all"));
	sort_close(s);
	(void)state;
}

/* Of the open file in `dir` that has no name. */
static blkcnt_t nameless_blocks(const char *dir)
{
	DIR *d = opendir("/proc/self/fd");
	blkcnt_t blocks = -1;
	char path[300], target[PATH_MAX];
	struct stat st;

	for (struct dirent *e; (e = readdir(d));) {
		snprintf(path, sizeof(path), "/proc/self/fd/%s", e->d_name);
		ssize_t n = readlink(path, target, sizeof(target) - 1);
		target[n < 0 ? 0 : n] = '\0';
		if (!strncmp(target, dir, strlen(dir)) && strstr(target, "(deleted)") &&
		    !stat(path, &st))
			blocks = st.st_blocks;
	}
	closedir(d);
	return blocks;
}

static void test_blocks_of_the_file_are_given_back_as_they_are_read(void **state)
{
	struct sort_stat stat;
	struct sorted out;
	struct sorter *s;
	char key[20], value[200] = { 0 };

	assert_int_equal(sort_open(&s, *state, 128 * KIB, MOVED_STOP), 0);
	for (unsigned i = 0; i < 50000; i++) {
		snprintf(key, sizeof(key), "%08x", i * 2654435761u);
		assert_int_equal(add(s, key, value, sizeof(value), i), 0);
	}
	blkcnt_t before = nameless_blocks(*state);
	assert_int_equal(sort_finish(s), 0);
	for (int i = 0; i < 50000; i++)
		assert_int_equal(sort_next(s, &out), 1);
	assert_int_equal(sort_next(s, &out), 0);
	sort_stat(s, &stat);
	assert_true(stat.runs > 100);
	/* with runs of runs, twice that was written, and never at once */
	assert_true(stat.spilled_bytes > 15000000);
	assert_in_range(before, 9000000 / 512, 14000000 / 512);
	assert_true(nameless_blocks(*state) < 100);
	sort_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with_dir(test_of_each_key_the_last_version_is_left_in_order),
		test_with_dir(test_many_tiny_runs_are_merged_in_between),
		test_with_dir(test_a_key_in_two_partitions_stops_unless_it_was_deleted),
		test_with_dir(test_of_two_partitions_the_later_timestamp_wins),
		test_with_dir(test_keys_that_differ_late_or_by_length_only),
		test_with_dir(test_values_larger_than_all_the_memory),
		test_with_dir(test_what_fits_into_one_buffer_needs_no_file),
		test_with_dir(test_nothing_is_sorted_to_nothing),
		test_with_dir(test_the_file_has_no_name_and_a_close_at_any_time_ends_it),
		test_with_dir(test_a_full_disk_is_said_in_one_line),
		test_with_dir(test_a_directory_that_is_not_there_is_said_so),
		test_with_dir(test_blocks_of_the_file_are_given_back_as_they_are_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
