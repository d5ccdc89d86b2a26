#include "generation.h"
#include "harness.h"
#include "page.h"
#include "state.h"

#include <fcntl.h>
#include <time.h>

/* ---- a file that LMDB wrote, and what is in it ---- */

enum { KEYS = 1500, KEY_MAX = 511, VALUE_MAX = 20000 };

static struct entry {
	uint8_t key[KEY_MAX];
	size_t key_len;
	uint8_t *value; /* NULL: not there */
	size_t value_len;
} model[KEYS];

static char err[300];

static int order(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	size_t shared = x->key_len < y->key_len ? x->key_len : y->key_len;
	int rc = memcmp(x->key, y->key, shared);
	return rc ? rc : (x->key_len > y->key_len) - (x->key_len < y->key_len);
}

/* Distinct keys of all lengths, many with a long beginning in common or of zeroes, in order. */
static void make_keys(void)
{
	for (int i = 0; i < KEYS; i++) {
		struct entry *e = &model[i];
		size_t random = rand() % 3 ? (size_t)rand() % 30 : (size_t)rand() % (KEY_MAX - 9);
		memset(e->key, rand() % 4 ? 'a' : rand() % 2 ? 0 : rand() % 256, random);
		e->key_len = random + 4;
		for (int b = 0; b < 4; b++)
			e->key[random + (size_t)b] = (uint8_t)(i >> 8 * (3 - b));
	}
	qsort(model, KEYS, sizeof(*model), order);
}

static size_t random_length(void)
{
	switch (rand() % 20) {
	case 0:
		return (size_t)rand() % VALUE_MAX;
	case 1:
		return 0;
	case 2:
		return 1900 +
		       (size_t)rand() % 300; /* around the longest that fits beside its key */
	default:
		return (size_t)rand() % 300;
	}
}

static void change_some(struct state *st, int n)
{
	struct state_txn *t;
	assert_int_equal(state_begin(st, &t), 0);
	while (n-- > 0) {
		struct entry *e = &model[rand() % KEYS];
		bool was_there = e->value != NULL;
		free(e->value);
		e->value = NULL;
		if (rand() % 3 == 0) {
			assert_int_equal(state_del(t, e->key, e->key_len), was_there ? 0 : -ENOENT);
			continue;
		}
		e->value_len = random_length();
		e->value = malloc(e->value_len + 1);
		memset(e->value, rand() % 256, e->value_len);
		assert_int_equal(state_put(t, e->key, e->key_len, e->value, e->value_len), 0);
	}
	assert_int_equal(state_commit(t), 0);
}

static struct state *make_state(const char *dir, struct state_dir **d)
{
	struct state *st = NULL;
	struct state_identity who = { "page", "", "page" };
	struct state_options o = { .lease_ms = 1 };
	if (state_dir_open(d, dir, err, sizeof(err)) ||
	    state_create(&st, *d, &who, &o, err, sizeof(err)) ||
	    state_make_current(st, err, sizeof(err)))
		fail_msg("%s", err);
	return st;
}

static void forget(void)
{
	for (int i = 0; i < KEYS; i++)
		free(model[i].value);
	memset(model, 0, sizeof(model));
}

static int data_file(const char *dir)
{
	char path[300];
	snprintf(path, sizeof(path), "%s/current/data.mdb", dir);
	int fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	return fd;
}

static struct span key_of(const struct entry *e) { return (struct span){ e->key, e->key_len }; }

static bool same(struct span s, const void *p, size_t len)
{
	return s.len == len && (!len || memcmp(s.p, p, len) == 0);
}

/* ---- what LMDB wrote is read ---- */

static void check_leaf(struct pages *f, const struct commit *c, const struct tree *t,
		       struct span key)
{
	struct walk w;
	uint64_t leaf;
	assert_int_equal(tree_leaf(f, c, t, key, &leaf), 0);
	assert_int_equal(walk_seek(&w, f, c, t, key), 0);
	assert_ptr_equal(w.at[w.depth - 1].page, f->map + leaf * f->page_bytes);
}

static void check_finds(struct pages *f, const struct commit *c, const struct tree *t)
{
	for (int i = 0; i < KEYS; i++) {
		struct span v;
		int rc = tree_find(f, c, t, key_of(&model[i]), &v);
		assert_int_equal(rc, model[i].value ? 0 : -ENOENT);
		if (rc)
			continue;
		assert_true(same(v, model[i].value, model[i].value_len));
		check_leaf(f, c, t, key_of(&model[i]));
	}
}

/* The whole walk from `from` on, model[i] being the first expected. */
static void check_walk(struct pages *f, const struct commit *c, const struct tree *t,
		       struct span from, int i)
{
	struct walk w;
	int rc;
	for (rc = walk_seek(&w, f, c, t, from); !rc; rc = walk_next(&w), i++) {
		struct span k, v;
		while (i < KEYS && !model[i].value)
			i++;
		assert_true(i < KEYS);
		assert_int_equal(walk_entry(&w, &k, &v), 0);
		assert_true(same(k, model[i].key, model[i].key_len));
		assert_true(same(v, model[i].value, model[i].value_len));
	}
	assert_int_equal(rc, -ENOENT);
	while (i < KEYS && !model[i].value)
		i++;
	assert_int_equal(i, KEYS);
}

static void test_every_key_is_found_and_walked_as_lmdb_wrote_it(void **state)
{
	struct state_dir *d;
	struct pages f;
	struct commit c;
	struct tree t;
	srand(11);
	make_keys();
	struct state *st = make_state(*state, &d);
	assert_int_equal(pages_open(&f, data_file(*state)), 0);
	for (int round = 0; round < 40; round++) {
		change_some(st, round % 4 ? 100 : 1000);
		uint64_t there = 0;
		for (int i = 0; i < KEYS; i++)
			there += model[i].value != NULL;
		struct state_stat s;
		assert_int_equal(state_stat(st, &s), 0);
		assert_int_equal(commit_read(&c, &f), 0);
		assert_true(c.txnid == s.txnid && pages_last_txnid(&f) == s.txnid);
		assert_int_equal(tree_open(&t, &f, &c, "records"), 0);
		assert_int_equal(t.entries, there);
		assert_int_equal(t.pages * f.page_bytes, s.records_bytes);
		check_finds(&f, &c, &t);
		check_walk(&f, &c, &t, (struct span){ NULL, 0 }, 0);
		int i = rand() % KEYS;
		check_walk(&f, &c, &t, key_of(&model[i]), i);
	}
	pages_close(&f);
	state_close(st);
	state_dir_close(d);
	forget();
}

static void test_an_empty_tree_and_a_missing_one_are_told_apart(void **state)
{
	struct state_dir *d;
	struct pages f;
	struct commit c;
	struct tree t;
	struct walk w;
	struct span v, key = { (const uint8_t *)"k", 1 };
	struct state *st = make_state(*state, &d);
	assert_int_equal(pages_open(&f, data_file(*state)), 0);
	assert_int_equal(commit_read(&c, &f), 0);
	assert_int_equal(tree_open(&t, &f, &c, "none"), -ENOENT);
	assert_int_equal(tree_open(&t, &f, &c, "record"), -ENOENT);
	assert_int_equal(tree_open(&t, &f, &c, "records"), 0);
	assert_int_equal(tree_find(&f, &c, &t, key, &v), -ENOENT);
	uint64_t leaf;
	assert_int_equal(tree_leaf(&f, &c, &t, key, &leaf), -ENOENT);
	assert_int_equal(walk_seek(&w, &f, &c, &t, key), -ENOENT);
	assert_int_equal(walk_next(&w), -ENOENT);
	assert_int_equal(walk_entry(&w, &key, &v), -ENOENT);
	/* the names themselves are a tree too, but hold no values */
	assert_int_equal(tree_find(&f, &c, &c.names, (struct span){ (uint8_t *)"meta", 4 }, &v),
			 -EBADMSG);
	pages_close(&f);
	pages_close(&f);
	state_close(st);
	state_dir_close(d);
}

/* ---- what nobody wrote does no harm ---- */

static uint8_t *original, *mutated;
static size_t file_len;

static void keep_original(const char *dir)
{
	struct stat st;
	int fd = data_file(dir);
	assert_int_equal(fstat(fd, &st), 0);
	file_len = (size_t)st.st_blocks * 512 / 4096 * 4096; /* not the margin */
	original = malloc(file_len);
	mutated = malloc(file_len);
	assert_int_equal(pread(fd, original, file_len, 0), file_len);
	close(fd);
}

static void mutate_page(uint8_t *page)
{
	const uint8_t *other = original + (size_t)rand() % (file_len / 4096) * 4096;
	uint8_t number[8];
	switch (rand() % 6) {
	case 0: /* bits anywhere */
		for (int i = rand() % 20; i >= 0; i--)
			page[rand() % 4096] ^= (uint8_t)(1 << rand() % 8);
		break;
	case 1: /* bits where the structure is */
		for (int i = rand() % 5; i >= 0; i--)
			page[8 + rand() % 40] ^= (uint8_t)(1 << rand() % 8);
		break;
	case 2: /* bytes of a value */
		memset(page + 16, rand() % 256, 4080);
		break;
	case 3: /* another page in its place, with its own number or this one's */
		memcpy(number, page, 8);
		memcpy(page, other, 4096);
		if (rand() % 2)
			memcpy(page, number, 8);
		break;
	case 4: /* parts of another: caught while it was written */
		for (int i = rand() % 20; i >= 0; i--) {
			size_t at = (size_t)rand() % 64 * 64;
			memcpy(page + at, other + at, 64);
		}
		break;
	default:
		for (int i = 8; i < 4096; i++)
			page[i] = (uint8_t)rand();
	}
}

static void mutate(void)
{
	memcpy(mutated, original, file_len);
	for (int n = 1 + rand() % 30; n > 0; n--)
		mutate_page(mutated + (size_t)(rand() % 10
						       ? 2 + rand() % ((int)(file_len / 4096) - 2)
						       : rand() % 2) *
					      4096);
}

static volatile unsigned sum; /* of bytes read, so that they are */

/* Read all there is; the outcome does not matter, that there is one does. */
static void read_everything(struct pages *f)
{
	struct commit c;
	struct tree t;
	struct walk w;
	struct span k, v;
	if (commit_read(&c, f))
		return;
	if (tree_open(&t, f, &c, "meta") == 0)
		(void)tree_find(f, &c, &t, (struct span){ (uint8_t *)"format", 6 }, &v);
	if (tree_open(&t, f, &c, "records"))
		return;
	for (int i = 0; i < KEYS; i++) {
		if (tree_find(f, &c, &t, key_of(&model[i]), &v) == 0 && v.len)
			sum += v.p[0] + v.p[v.len - 1];
		uint64_t leaf = 0;
		if (tree_leaf(f, &c, &t, key_of(&model[i]), &leaf) == 0)
			assert_true(leaf <= c.last_page);
	}
	int rc = walk_seek(&w, f, &c, &t, (struct span){ NULL, 0 });
	/* pages may lead in a circle: callers watch the order of keys */
	for (int n = 0; !rc && n < 5 * KEYS; n++, rc = walk_next(&w))
		if (walk_entry(&w, &k, &v) == 0)
			sum += (k.len ? k.p[k.len - 1] : 0u) + (v.len ? v.p[v.len - 1] : 0u);
}

static void test_no_bytes_in_the_file_lead_outside_of_it(void **state)
{
	struct state_dir *d;
	const char *more = getenv("PAGE_ROUNDS");
	int rounds = more ? atoi(more) : 300, read = 0;
	char *path;
	srand(5);
	make_keys();
	struct state *st = make_state(*state, &d);
	change_some(st, 3000);
	state_close(st);
	keep_original(*state);
	for (int round = 0; round < rounds; round++) {
		struct pages f;
		mutate();
		path = make_file(*state, "mutated", 0600, mutated, file_len);
		int fd = open(path, O_RDONLY);
		if (generation_check(fd)) {
			close(fd);
		} else if (pages_open(&f, fd) == 0) { /* which has taken fd over */
			read_everything(&f);
			pages_close(&f);
			read++;
		}
		free(path);
	}
	assert_true(read > rounds / 3);
	free(original);
	free(mutated);
	state_dir_close(d);
	forget();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with_dir(test_every_key_is_found_and_walked_as_lmdb_wrote_it),
		test_with_dir(test_an_empty_tree_and_a_missing_one_are_told_apart),
		test_with_dir(test_no_bytes_in_the_file_lead_outside_of_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
