#include "harness.h"
#include "state.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <time.h>

static char err[512];
static const struct state_identity who = { .name = "pipe", .cluster_id = "c1", .topic = "users" };
static const struct state_options quick = { .lease_ms = 1 };

/* ---- small words, so that tests read as sentences ---- */

static struct state_dir *open_dir(const char *path)
{
	struct state_dir *d;
	if (state_dir_open(&d, path, err, sizeof(err)))
		fail_msg("%s", err);
	return d;
}

static void wait_lease(struct state *st)
{
	for (int64_t ms; (ms = state_lease_wait_ms(st)) > 0;)
		nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

static struct state *reopen(struct state_dir *d)
{
	struct state *st;
	if (state_open(&st, d, &who, &quick, err, sizeof(err)))
		fail_msg("%s", err);
	wait_lease(st);
	return st;
}

static struct state *create(struct state_dir *d)
{
	struct state *st;
	if (state_create(&st, d, &who, &quick, err, sizeof(err)))
		fail_msg("%s", err);
	return st;
}

/* A new generation, already current. */
static struct state *fresh(struct state_dir *d)
{
	struct state *st = create(d);
	if (state_make_current(st, err, sizeof(err)))
		fail_msg("%s", err);
	return st;
}

static struct state_txn *begin(struct state *st)
{
	struct state_txn *t;
	assert_int_equal(state_begin(st, &t), 0);
	return t;
}

static void commit(struct state_txn *t) { assert_int_equal(state_commit(t), 0); }

static struct state_view *view(struct state *st)
{
	struct state_view *v;
	assert_int_equal(state_view_begin(st, &v), 0);
	return v;
}

static size_t make_record(uint8_t *out, const char *key, int64_t offset, const void *value,
			  size_t len)
{
	struct record r = { .offset = offset, .value = value, .value_len = len };
	record_encode(out, &r, key, strlen(key));
	return record_bytes(&r);
}

static int try_put(struct state_txn *t, const char *key, int64_t offset, const char *value)
{
	uint8_t rec[1024];
	size_t len = make_record(rec, key, offset, value, strlen(value));
	return state_put(t, key, strlen(key), rec, len);
}

static void put(struct state_txn *t, const char *key, int64_t offset, const char *value)
{
	assert_int_equal(try_put(t, key, offset, value), 0);
}

/* Journal entry (p, offset, n) that creates `key`. */
static void journal(struct state_txn *t, int32_t p, int64_t offset, uint32_t n, const char *key)
{
	uint8_t rec[1024];
	size_t len = make_record(rec, key, offset, "after", 5);
	struct change c = { .partition = p,
			    .offset = offset,
			    .n = n,
			    .op = CHANGE_CREATE,
			    .key = key,
			    .key_len = strlen(key) };
	assert_int_equal(state_journal(t, &c, NULL, 0, rec, len), 0);
}

static bool has(struct state *st, const char *key, const char *value)
{
	struct state_view *v = view(st);
	const void *rec;
	size_t len;
	struct record r;
	bool ok = state_view_get(v, key, strlen(key), &rec, &len) == 0 &&
		  record_decode(&r, rec, len, key, strlen(key)) == 0 &&
		  r.value_len == strlen(value) && memcmp(r.value, value, r.value_len) == 0;
	state_view_end(v);
	return ok;
}

static char *path_of(const char *dir, const char *file)
{
	static char path[4096];
	snprintf(path, sizeof(path), "%s/%s", dir, file);
	return path;
}

static mode_t mode_of(const char *dir, const char *file)
{
	struct stat st;
	assert_int_equal(stat(path_of(dir, file), &st), 0);
	return st.st_mode & 07777;
}

static off_t size_of(const char *dir, const char *file)
{
	struct stat st;
	assert_int_equal(stat(path_of(dir, file), &st), 0);
	return st.st_size;
}

/* Without the margin behind the last page, which is never written. */
static off_t written_of(const char *dir, const char *file)
{
	struct stat st;
	assert_int_equal(stat(path_of(dir, file), &st), 0);
	return st.st_blocks * 512 / 4096 * 4096;
}

static int count_generations(const char *dir)
{
	int n = 0;
	for (int i = 1; i < 20; i++) {
		char name[32];
		snprintf(name, sizeof(name), "gen-%d", i);
		n += access(path_of(dir, name), F_OK) == 0;
	}
	return n;
}

/* ---- the directory ---- */

static void test_a_state_directory_is_made_with_modes_that_let_the_group_read(void **state)
{
	char dir[256];
	snprintf(dir, sizeof(dir), "%s/state", (char *)*state);
	mode_t old = umask(077); /* a strict one must not lock the readers out */
	struct state_dir *d = open_dir(dir);
	struct state *st = fresh(d);
	umask(old);
	assert_int_equal(mode_of(dir, "."), 02750);
	assert_int_equal(mode_of(dir, "gen-1"), 02750);
	assert_int_equal(mode_of(dir, "gen-1/data.mdb"), 0640);
	assert_int_equal(mode_of(dir, "gen-1/lock.mdb"), 0600);
	assert_int_equal(mode_of(dir, "writer.lock"), 0600);
	state_close(st);
	state_dir_close(d);
}

static void test_a_second_sidecar_is_refused_until_the_first_is_gone(void **state)
{
	struct state_dir *d = open_dir(*state), *second;
	assert_int_equal(state_dir_open(&second, *state, err, sizeof(err)), -EBUSY);
	assert_non_null(strstr(err, "another sidecar"));
	state_dir_close(d);
	state_dir_close(open_dir(*state));
}

static void test_the_lock_of_a_killed_sidecar_is_free(void **state)
{
	int up[2];
	char b;
	assert_int_equal(pipe(up), 0);
	pid_t child = fork();
	if (child == 0) {
		struct state_dir *d;
		if (state_dir_open(&d, *state, err, sizeof(err)) || write(up[1], "x", 1) != 1)
			_exit(1);
		pause();
	}
	assert_int_equal(read(up[0], &b, 1), 1);
	struct state_dir *d;
	assert_int_equal(state_dir_open(&d, *state, err, sizeof(err)), -EBUSY);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	close(up[0]);
	close(up[1]);
	state_dir_close(open_dir(*state));
}

static void test_a_path_that_cannot_be_a_directory_is_named(void **state)
{
	struct state_dir *d;
	char *file = make_file(*state, "file", 0600, "", 0);
	assert_int_equal(state_dir_open(&d, file, err, sizeof(err)), -ENOTDIR);
	assert_non_null(strstr(err, file));
	free(file);
}

/* ---- generations ---- */

static void test_an_empty_directory_has_no_state(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *st;
	assert_int_equal(state_open(&st, d, &who, &quick, err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, *state));
	state_dir_close(d);
}

static void test_a_created_generation_is_read_only_after_it_was_made_current(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *st = create(d), *other;
	struct state_txn *t = begin(st);
	put(t, "k", 1, "v");
	commit(t);
	assert_int_equal(state_open(&other, d, &who, &quick, err, sizeof(err)), -ENOENT);
	assert_int_equal(state_make_current(st, err, sizeof(err)), 0);
	state_close(st);

	st = reopen(d);
	assert_true(has(st, "k", "v"));
	state_close(st);
	state_dir_close(d);
}

static void test_a_copied_state_is_another_state_and_the_original_stays_itself(void **state)
{
	char cmd[800], copy[200], uuid[40], copied[40];
	struct state_dir *d = open_dir(*state);
	struct state *st = fresh(d);

	snprintf(uuid, sizeof(uuid), "%s", state_uuid(st));
	commit(begin(st));
	state_close(st);
	state_dir_close(d);
	snprintf(copy, sizeof(copy), "%s/copy", (char *)*state);
	snprintf(cmd, sizeof(cmd), "mkdir %s && cp -a %s/gen-* %s/current %s", copy, (char *)*state,
		 (char *)*state, copy);
	assert_int_equal(system(cmd), 0);

	d = open_dir(copy);
	st = reopen(d);
	snprintf(copied, sizeof(copied), "%s", state_uuid(st));
	assert_string_not_equal(copied, uuid);
	commit(begin(st));
	state_close(st);
	st = reopen(d);
	assert_string_equal(state_uuid(st), copied);
	state_close(st);
	state_dir_close(d);

	d = open_dir(*state);
	st = reopen(d);
	assert_string_equal(state_uuid(st), uuid);
	state_close(st);
	state_dir_close(d);
}

static void test_a_new_generation_replaces_the_old_at_once_and_has_another_uuid(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *old = fresh(d), *new = create(d);
	struct state_txn *t = begin(new);
	assert_string_not_equal(state_uuid(old), state_uuid(new));
	put(t, "k", 1, "new");
	commit(t);
	t = begin(old); /* the old one goes on meanwhile */
	put(t, "k", 1, "old");
	commit(t);
	assert_int_equal(state_make_current(new, err, sizeof(err)), 0);
	assert_true(has(old, "k", "old"));
	state_close(old);
	state_close(new);

	new = reopen(d);
	assert_true(has(new, "k", "new"));
	state_close(new);
	state_dir_close(d);
}

static void test_sweeping_keeps_the_current_generation_and_the_one_being_filled(void **state)
{
	struct state_dir *d = open_dir(*state);
	state_close(create(d)); /* gen-1, given up */
	struct state *st = fresh(d), *filling = create(d);
	assert_int_equal(count_generations(*state), 3);
	state_dir_sweep(d);
	assert_int_equal(count_generations(*state), 2);
	assert_int_equal(access(path_of(*state, "gen-1"), F_OK), -1);
	state_close(filling);
	state_dir_sweep(d);
	assert_int_equal(count_generations(*state), 1);
	state_close(st);
	state_close(reopen(d));
	state_dir_close(d);
}

static void test_sweeping_leaves_files_of_others_alone(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *st = fresh(d);
	free(make_file(*state, "notes.txt", 0600, "x", 1));
	assert_int_equal(mkdir(path_of(*state, "gen-old"), 0700), 0);
	state_dir_sweep(d);
	assert_int_equal(access(path_of(*state, "notes.txt"), F_OK), 0);
	assert_int_equal(access(path_of(*state, "gen-old"), F_OK), 0);
	state_close(st);
	state_dir_close(d);
}

/* ---- opening: what is refused ---- */

static void expect_refusal(struct state_dir *d, const struct state_identity *w, int rc,
			   const char *word)
{
	struct state *st;
	*err = 0;
	assert_int_equal(state_open(&st, d, w, &quick, err, sizeof(err)), rc);
	if (!strstr(err, word) || strchr(err, '\n'))
		fail_msg("'%s' does not say '%s' in one line", err, word);
}

static void test_the_state_of_another_pipeline_topic_or_cluster_is_refused(void **state)
{
	struct state_dir *d = open_dir(*state);
	state_close(fresh(d));
	struct state_identity w = who;
	w.name = "other";
	expect_refusal(d, &w, -EEXIST, "'pipe', not 'other'");
	w = who;
	w.topic = "orders";
	expect_refusal(d, &w, -EEXIST, "'users', not 'orders'");
	w = who;
	w.cluster_id = "c2";
	expect_refusal(d, &w, -EEXIST, "'c1', not 'c2'");
	state_close(reopen(d));
	state_dir_close(d);
}

static void test_a_cluster_id_learnt_later_is_stored_with_the_first_commit(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state_identity nameless = who;
	struct state *st;
	nameless.cluster_id = "";
	assert_int_equal(state_create(&st, d, &nameless, &quick, err, sizeof(err)), 0);
	assert_int_equal(state_make_current(st, err, sizeof(err)), 0);
	state_close(st);

	st = reopen(d); /* as c1 */
	commit(begin(st));
	state_close(st);
	assert_int_equal(state_open(&st, d, &nameless, &quick, err, sizeof(err)), 0);
	state_close(st);
	struct state_identity w = who;
	w.cluster_id = "c2";
	expect_refusal(d, &w, -EEXIST, "cluster_id");
	state_dir_close(d);
}

static void test_a_future_format_is_refused(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *st = fresh(d);
	struct state_txn *t = begin(st);
	assert_int_equal(state_meta_set(t, "format", "2"), 0);
	commit(t);
	state_close(st);
	expect_refusal(d, &who, -ENOTSUP, "format 2");
	state_dir_close(d);
}

static void write_zeros(const char *path, off_t at, size_t len)
{
	static const char zeros[1 << 16];
	int fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	for (size_t done = 0; done < len;) {
		size_t n = len - done < sizeof(zeros) ? len - done : sizeof(zeros);
		assert_int_equal(pwrite(fd, zeros, n, at + (off_t)done), n);
		done += n;
	}
	close(fd);
}

/* A current generation with some pages in it, closed. */
static struct state_dir *some_pages(const char *dir)
{
	struct state_dir *d = open_dir(dir);
	struct state *st = fresh(d);
	struct state_txn *t = begin(st);
	for (int i = 0; i < 5000; i++) {
		char key[32];
		snprintf(key, sizeof(key), "key%06d", i);
		put(t, key, i, "some value of some length, so that pages fill");
	}
	commit(t);
	state_close(st);
	return d;
}

static void test_a_truncated_file_is_refused_not_mapped(void **state)
{
	struct state_dir *d = some_pages(*state);
	off_t size = written_of(*state, "gen-1/data.mdb");
	static const int percent[] = { 99, 50, 10 };
	for (int i = 0; i < 3; i++) {
		assert_int_equal(
			truncate(path_of(*state, "gen-1/data.mdb"), size * percent[i] / 100), 0);
		expect_refusal(d, &who, -EBADMSG, "truncated");
	}
	static const off_t rests[] = { 8191, 4096, 100, 0 };
	for (int i = 0; i < 4; i++) {
		assert_int_equal(truncate(path_of(*state, "gen-1/data.mdb"), rests[i]), 0);
		expect_refusal(d, &who, -EBADMSG, "filled anew");
	}
	assert_int_equal(unlink(path_of(*state, "gen-1/data.mdb")), 0);
	expect_refusal(d, &who, -EBADMSG, "filled anew");
	state_dir_close(d);
}

static void test_a_zeroed_file_is_refused(void **state)
{
	struct state_dir *d = some_pages(*state);
	char *file = path_of(*state, "gen-1/data.mdb");
	write_zeros(file, 4096, 4096); /* one meta page */
	expect_refusal(d, &who, -EBADMSG, "filled anew");
	write_zeros(file, 0, (size_t)size_of(*state, "gen-1/data.mdb"));
	expect_refusal(d, &who, -EBADMSG, "filled anew");
	state_dir_close(d);
}

static void test_a_zeroed_data_page_is_found_by_verifying(void **state)
{
	struct state_dir *d = some_pages(*state);
	assert_int_equal(state_dir_verify(d, err, sizeof(err)), 0);
	/* in the middle: sanitizers and LMDB's own abort() only ever hit the child */
	off_t middle = written_of(*state, "gen-1/data.mdb") / 2 / 4096 * 4096;
	write_zeros(path_of(*state, "gen-1/data.mdb"), middle, 4096);
	assert_int_equal(state_dir_verify(d, err, sizeof(err)), -EBADMSG);
	state_dir_close(d);
}

static void test_a_flipped_bit_in_a_value_is_found_by_verifying(void **state)
{
	struct state_dir *d = some_pages(*state);
	int fd = open(path_of(*state, "gen-1/data.mdb"), O_RDWR);
	static char all[4 << 20];
	ssize_t len = read(fd, all, sizeof(all));
	int hits = 0;
	/* every copy: some lie in the unused part of a page */
	for (char *hit; (hit = memmem(all, (size_t)len, "pages fill", 10)); hits++)
		*hit ^= 1;
	assert_true(hits >= 5000);
	assert_int_equal(pwrite(fd, all, (size_t)len, 0), len);
	close(fd);
	assert_int_equal(state_dir_verify(d, err, sizeof(err)), -EBADMSG);
	state_dir_close(d);
}

/*
 * LMDB counts a page as part of the file once a transaction took it, but does not
 * write it when the same transaction gave it back.  Such a file is shorter than
 * its meta page says and complete.
 */
static void test_a_file_that_lacks_only_unused_pages_is_opened(void **state)
{
	static uint8_t rec[100000 + 64], value[100000];
	struct state_dir *d = open_dir(*state);
	struct state *st = fresh(d);
	for (int i = 0; i < 8; i++) { /* some free pages to pick from */
		struct state_txn *t = begin(st);
		put(t, "small", i, "v");
		commit(t);
		nanosleep(&(struct timespec){ .tv_nsec = 3000000 }, NULL); /* leases move on */
	}
	struct state_txn *t = begin(st);
	put(t, "small", 100, "last");
	size_t len = make_record(rec, "big", 101, value, sizeof(value));
	assert_int_equal(state_put(t, "big", 3, rec, len), 0);
	assert_int_equal(state_del(t, "big", 3), 0);
	commit(t);
	state_close(st);

	/* as if it had been killed before it could lengthen the file: without the big one's pages
	 */
	assert_int_equal(truncate(path_of(*state, "gen-1/data.mdb"), 100000), 0);
	st = reopen(d);
	assert_true(has(st, "small", "last"));
	assert_true(size_of(*state, "gen-1/data.mdb") > 100000);
	state_close(st);
	state_dir_close(d);
}

/* ---- leases ---- */

static void test_the_larger_of_stored_and_configured_lease_counts(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *st;
	struct state_options o = { .lease_ms = 50 };
	assert_int_equal(state_create(&st, d, &who, &o, err, sizeof(err)), 0);
	assert_int_equal(state_lease_wait_ms(st), 0); /* nobody has read it yet */
	assert_int_equal(state_make_current(st, err, sizeof(err)), 0);
	assert_int_equal(state_lease_wait_ms(st), 0);
	state_close(st);

	o.lease_ms = 10;
	assert_int_equal(state_open(&st, d, &who, &o, err, sizeof(err)), 0);
	assert_int_equal(state_lease_ms(st), 50);
	assert_true(state_lease_wait_ms(st) <= 51);
	state_close(st);

	o.lease_ms = 100000;
	assert_int_equal(state_open(&st, d, &who, &o, err, sizeof(err)), 0);
	assert_int_equal(state_lease_ms(st), 100000);
	assert_true(state_lease_wait_ms(st) > 1000);
	commit(begin(st));
	state_close(st);

	assert_int_equal(state_open(&st, d, &who, &quick, err, sizeof(err)), 0);
	assert_int_equal(state_lease_ms(st), 100000);
	state_close(st);
	state_dir_close(d);
}

static void test_the_wait_for_the_lease_ends(void **state)
{
	struct state_dir *d = open_dir(*state);
	state_close(fresh(d));
	struct state *st = reopen(d); /* waits */
	assert_int_equal(state_lease_wait_ms(st), 0);
	for (int i = 0; i < 10; i++) {
		commit(begin(st));
		assert_int_equal(state_lease_wait_ms(st), 0);
	}
	state_close(st);
	state_dir_close(d);
}

/* ---- batches ---- */

static void test_a_commit_carries_records_journal_positions_and_texts_together(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *st = fresh(d);
	struct state_partition row = STATE_PARTITION_NEW, got;
	row.applied = 18;
	row.start = -7;
	row.whole = INT64_MAX;
	row.base = 5;
	row.base_n = 3;
	row.published_n = UINT32_MAX;
	row.caught_boot_ms = 12345;
	struct state_anchor a[STATE_ANCHORS] = { { 17, 1700000000000, 0xfedcba9876543210 } };
	a[63].offset = 1;

	struct state_txn *t = begin(st);
	put(t, "k", 17, "v");
	journal(t, 2, 17, CHANGE_N_LOG, "k");
	assert_int_equal(state_partition_set(t, 2, &row), 0);
	assert_int_equal(state_anchors_set(t, 2, a, STATE_ANCHORS), 0);
	assert_int_equal(state_meta_set(t, "role", "leader"), 0);
	struct state_view *before = view(st);
	commit(t);

	struct change c;
	char text[16];
	int32_t n;
	assert_int_equal(state_view_partition(before, 2, &got), -ENOENT);
	assert_int_equal(state_view_journal(before, 2, 0, 0, &c), -ENOENT);
	assert_int_equal(state_view_meta(before, "role", text, sizeof(text)), -ENOENT);
	assert_int_equal(state_view_partitions(before, &n), 0);
	assert_int_equal(n, 0);

	struct state_view *v = view(st);
	assert_true(state_view_txnid(v) == state_view_txnid(before) + 1);
	state_view_end(before);
	assert_int_equal(state_view_partition(v, 2, &got), 0);
	assert_memory_equal(&got, &row, sizeof(row));
	assert_int_equal(state_view_partitions(v, &n), 0);
	assert_int_equal(n, 3);
	assert_int_equal(state_view_journal(v, 2, 0, 0, &c), 0);
	assert_int_equal(c.offset, 17);
	memset(a + 1, 0xee, sizeof(*a));
	assert_int_equal(state_view_anchors(v, 2, a), STATE_ANCHORS);
	assert_true(a[0].key_hash == 0xfedcba9876543210 && a[1].offset == 0 && a[63].offset == 1);
	assert_int_equal(state_view_anchors(v, 0, a), 0);
	assert_int_equal(state_view_meta(v, "role", text, sizeof(text)), 0);
	assert_string_equal(text, "leader");
	assert_int_equal(state_view_meta(v, "role", text, 6), -ERANGE);
	state_view_end(v);
	assert_true(has(st, "k", "v"));
	state_close(st);
	state_dir_close(d);
}

static void test_an_aborted_batch_leaves_nothing(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *st = fresh(d);
	struct state_txn *t = begin(st);
	put(t, "k", 1, "v");
	journal(t, 0, 1, CHANGE_N_LOG, "k");
	state_abort(t);
	state_abort(NULL);
	commit(begin(st));
	struct state_stat s;
	assert_int_equal(state_stat(st, &s), 0);
	assert_int_equal(s.records + s.journal_entries, 0);
	state_close(st);
	state_dir_close(d);
}

static void test_an_empty_batch_is_a_commit_with_a_heartbeat(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *st = fresh(d);
	struct state_stat a, b;
	assert_int_equal(state_stat(st, &a), 0);
	commit(begin(st));
	assert_int_equal(state_stat(st, &b), 0);
	assert_true(b.txnid == a.txnid + 1);
	struct state_view *v = view(st);
	char text[32];
	assert_int_equal(state_view_meta(v, "heartbeat_ms", text, sizeof(text)), 0);
	assert_true(llabs(atoll(text) - (long long)time(NULL) * 1000) < 3600000);
	state_view_end(v);
	state_close(st);
	state_dir_close(d);
}

static void test_the_old_value_is_journaled_though_its_page_is_overwritten(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *st = fresh(d);
	struct state_txn *t = begin(st);
	put(t, "k", 1, "old");
	commit(t);

	const void *old;
	size_t old_len;
	uint8_t rec[100];
	t = begin(st);
	assert_int_equal(state_get(t, "k", 1, &old, &old_len), 0);
	struct change c = { .offset = 2,
			    .n = CHANGE_N_LOG,
			    .op = CHANGE_UPDATE,
			    .key = "k",
			    .key_len = 1 },
		      r;
	size_t len = make_record(rec, "k", 2, "newer", 5);
	assert_int_equal(state_journal(t, &c, old, old_len, rec, len), 0);
	assert_int_equal(state_put(t, "k", 1, rec, len), 0);
	commit(t);

	struct state_view *v = view(st);
	assert_int_equal(state_view_journal(v, 0, 0, 0, &r), 0);
	assert_memory_equal(r.before.value, "old", 3);
	assert_memory_equal(r.after.value, "newer", 5);
	state_view_end(v);
	state_close(st);
	state_dir_close(d);
}

/*
 * Random gets, puts and deletes of values from empty to several pages, against
 * the plainest model: model[i] is the length of key i's value, -1: absent.
 */
static void test_gets_puts_and_deletes_agree_with_a_model(void **state)
{
	enum { KEYS = 300, STEPS = 20000 };
	static uint8_t rec[12000];
	static int model[KEYS];
	static char value[10000];
	struct state_dir *d = open_dir(*state);
	struct state *st = create(d); /* begins in appending mode */
	struct state_txn *t = begin(st);
	memset(model, -1, sizeof(model));
	srand(7);
	for (int i = 0; i < STEPS; i++) {
		char key[16];
		int k = i < KEYS / 2 ? 2 * i : rand() % KEYS; /* first in order, then not */
		const void *got;
		size_t len;
		snprintf(key, sizeof(key), "key%05d", k);
		if (rand() % 4) {
			int rc = state_get(t, key, strlen(key), &got, &len);
			assert_int_equal(rc, model[k] < 0 ? -ENOENT : 0);
			struct record r;
			if (!rc) {
				assert_int_equal(record_decode(&r, got, len, key, strlen(key)), 0);
				assert_int_equal(r.value_len, model[k]);
			}
		}
		if (rand() % 3) {
			int size = rand() % 8 ? rand() % 200 : rand() % (int)sizeof(value);
			len = make_record(rec, key, i, value, (size_t)size);
			assert_int_equal(state_put(t, key, strlen(key), rec, len), 0);
			model[k] = size;
		} else if (model[k] >= 0) {
			assert_int_equal(state_del(t, key, strlen(key)), 0);
			model[k] = -1;
		}
		if (rand() % 100 == 0) {
			commit(t);
			t = begin(st);
		}
		if (i == STEPS / 2) {
			commit(t);
			assert_int_equal(state_make_current(st, err, sizeof(err)), 0);
			t = begin(st);
		}
	}
	commit(t);
	uint64_t present = 0;
	for (int k = 0; k < KEYS; k++)
		present += model[k] >= 0;
	struct state_stat s;
	assert_int_equal(state_stat(st, &s), 0);
	assert_int_equal(s.records, present);
	state_close(st);
	assert_int_equal(state_dir_verify(d, err, sizeof(err)), 0);
	state_dir_close(d);
}

static void test_a_key_that_is_not_there_cannot_be_deleted(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *st = fresh(d);
	struct state_txn *t = begin(st);
	assert_int_equal(state_del(t, "k", 1), -ENOENT);
	put(t, "k", 1, "v");
	assert_int_equal(state_del(t, "k", 1), 0);
	assert_int_equal(state_del(t, "k", 1), -ENOENT);
	commit(t);
	state_close(st);
	state_dir_close(d);
}

static void test_a_sorted_fill_packs_pages_tighter_than_a_random_one(void **state)
{
	struct state_dir *d = open_dir(*state);
	uint64_t bytes[2];
	for (int sorted = 0; sorted < 2; sorted++) {
		struct state *st = create(d);
		struct state_txn *t = begin(st);
		for (uint32_t i = 0; i < 20000; i++) {
			char key[32];
			snprintf(key, sizeof(key), "key%08u", sorted ? i : i * 7919u % 20000u);
			put(t, key, i, "some value of some length, so that pages fill");
		}
		commit(t);
		struct state_stat s;
		assert_int_equal(state_stat(st, &s), 0);
		assert_int_equal(s.records, 20000);
		bytes[sorted] = s.records_bytes;
		state_close(st);
	}
	assert_true(bytes[1] * 5 < bytes[0] * 4);
	state_dir_close(d);
}

/* ---- the journal ---- */

static struct state *with_journal(struct state_dir *d)
{
	struct state *st = fresh(d);
	struct state_txn *t = begin(st);
	journal(t, 1, 30, 0, "gone-a"); /* in no particular order */
	journal(t, 1, 10, CHANGE_N_LOG, "ten");
	journal(t, 0, 99, CHANGE_N_LOG, "other");
	journal(t, 1, 20, CHANGE_N_LOG, "twenty");
	journal(t, 1, 30, CHANGE_N_LOG, "thirty");
	journal(t, 1, 30, 1, "gone-b");
	journal(t, 2, 5, CHANGE_N_LOG, "another");
	commit(t);
	return st;
}

/* The keys of partition 1 from (offset, n) on, as "a b c". */
static char *journal_keys(struct state *st, int64_t offset, uint32_t n)
{
	static char keys[256];
	struct state_view *v = view(st);
	struct change c;
	int rc;
	*keys = 0;
	for (rc = state_view_journal(v, 1, offset, n, &c); !rc;
	     rc = state_view_journal_next(v, &c)) {
		snprintf(keys + strlen(keys), sizeof(keys) - strlen(keys), "%s%.*s",
			 *keys ? " " : "", (int)c.key_len, (char *)c.key);
	}
	assert_int_equal(rc, -ENOENT);
	state_view_end(v);
	return keys;
}

static void test_the_journal_of_a_partition_is_read_in_order_the_gone_before_the_log(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *st = with_journal(d);
	assert_string_equal(journal_keys(st, 0, 0), "ten twenty gone-a gone-b thirty");
	assert_string_equal(journal_keys(st, 20, 0), "twenty gone-a gone-b thirty");
	assert_string_equal(journal_keys(st, 21, 0), "gone-a gone-b thirty");
	assert_string_equal(journal_keys(st, 30, 1), "gone-b thirty");
	assert_string_equal(journal_keys(st, 30, 2), "thirty");
	assert_string_equal(journal_keys(st, 31, 0), "");
	state_close(st);
	state_dir_close(d);
}

static int trim(struct state *st, struct state_partition *row, int64_t offset, uint32_t n, int max)
{
	struct state_txn *t = begin(st);
	int deleted = state_trim(t, 1, row, offset, n, max);
	commit(t);
	return deleted;
}

static void test_trimming_deletes_below_a_position_and_moves_the_base(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *st = with_journal(d);
	struct state_partition row = STATE_PARTITION_NEW;
	assert_int_equal(trim(st, &row, 20, 0, 100), 1);
	assert_true(row.base == 20 && row.base_n == 0);
	assert_string_equal(journal_keys(st, 0, 0), "twenty gone-a gone-b thirty");
	assert_int_equal(trim(st, &row, 30, 1, 100), 2); /* half of what is at 30 */
	assert_true(row.base == 30 && row.base_n == 1);
	assert_string_equal(journal_keys(st, 0, 0), "gone-b thirty");
	assert_int_equal(trim(st, &row, 30, 1, 100), 0);
	assert_int_equal(trim(st, &row, 5, 0, 100), 0); /* never back */
	assert_true(row.base == 30 && row.base_n == 1);
	assert_int_equal(trim(st, &row, 1000, 0, 100), 2);
	assert_true(row.base == 1000 && row.base_n == 0);
	assert_string_equal(journal_keys(st, 0, 0), "");

	struct state_stat s;
	assert_int_equal(state_stat(st, &s), 0);
	assert_int_equal(s.journal_entries, 2); /* those of partitions 0 and 2 */
	state_close(st);
	state_dir_close(d);
}

static void test_trimming_a_part_moves_the_base_only_to_the_first_entry_left(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *st = with_journal(d);
	struct state_partition row = STATE_PARTITION_NEW;
	assert_int_equal(trim(st, &row, 1000, 0, 3), 3);
	assert_true(row.base == 30 && row.base_n == 1);
	assert_string_equal(journal_keys(st, row.base, row.base_n), "gone-b thirty");
	assert_int_equal(trim(st, &row, 1000, 0, 2), 2);
	assert_true(row.base == 1000 && row.base_n == 0);
	state_close(st);
	state_dir_close(d);
}

static void test_trimming_thousands_and_appending_in_one_batch_keeps_the_rest(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *st = fresh(d);
	struct state_partition row = STATE_PARTITION_NEW;
	for (int b = 0; b < 40; b++) {
		struct state_txn *t = begin(st);
		for (int i = 0; i < 500; i++) {
			journal(t, 1, b * 500 + i, CHANGE_N_LOG, "k");
			journal(t, 2, b * 500 + i, CHANGE_N_LOG, "k");
		}
		int n = state_trim(t, 1, &row, b * 500 - 700, 0, 700);
		assert_true(n >= 0);
		commit(t);
		struct state_stat s;
		assert_int_equal(state_stat(st, &s), 0);
		int64_t kept = (b + 1) * 500 - (row.base > 0 ? row.base : 0);
		assert_true(s.journal_entries == (uint64_t)(kept + (b + 1) * 500));
	}
	assert_true(row.base == 39 * 500 - 700);
	state_close(st);
	assert_int_equal(state_dir_verify(d, err, sizeof(err)), 0);
	state_dir_close(d);
}

static void test_a_view_keeps_its_commit_while_the_writer_goes_on(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *st = with_journal(d);
	struct state_view *v = view(st);
	struct state_partition row = STATE_PARTITION_NEW;
	struct change c;
	assert_int_equal(state_view_journal(v, 1, 0, 0, &c), 0);
	for (int i = 0; i < 50; i++)
		assert_true(trim(st, &row, 1000, 0, 1) >= 0);
	int n = 1;
	while (state_view_journal_next(v, &c) == 0)
		n++;
	assert_int_equal(n, 5);
	state_view_end(v);
	state_view_end(NULL);
	state_close(st);
	state_dir_close(d);
}

/* ---- a reboot ---- */

static void test_boot_times_of_another_boot_are_forgotten(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *st = fresh(d);
	struct state_partition row = STATE_PARTITION_NEW, got;
	row.caught_wall_ms = 1000;
	row.caught_boot_ms = 2000;
	struct state_txn *t = begin(st);
	for (int32_t p = 0; p < 3; p++)
		assert_int_equal(state_partition_set(t, p * 2, &row), 0);
	commit(t);
	struct state_view *v = view(st);
	assert_true(state_same_boot(v));
	assert_int_equal(state_view_partition(v, 2, &got), 0);
	assert_int_equal(got.caught_boot_ms, 2000);
	state_view_end(v);
	t = begin(st);
	assert_int_equal(state_meta_set(t, "boot_id", "0e0e0e0e-another-boot"), 0);
	commit(t);
	state_close(st);

	st = reopen(d);
	for (int after_a_commit = 0; after_a_commit < 2; after_a_commit++) {
		v = view(st);
		assert_true(state_same_boot(v) == after_a_commit);
		for (int32_t p = 0; p < 3; p++) {
			assert_int_equal(state_view_partition(v, p * 2, &got), 0);
			assert_int_equal(got.caught_boot_ms, -1);
			assert_int_equal(got.caught_wall_ms, 1000);
		}
		state_view_end(v);
		commit(begin(st));
	}
	state_close(st);
	state_dir_close(d);
}

/* ---- durability ---- */

static void test_a_commit_can_be_made_durable_before_the_next_one(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *st = fresh(d);
	struct state_stat s;
	for (int i = 0; i < 3; i++) {
		commit(begin(st));
		assert_int_equal(state_stat(st, &s), 0);
		assert_int_equal(state_make_durable(st, s.txnid - 1), 0);
		assert_int_equal(state_make_durable(st, s.txnid), 0);
	}
	assert_int_equal(state_make_durable(st, s.txnid + 1), -EINVAL); /* not committed yet */
	state_close(st);
	st = reopen(d);
	assert_int_equal(state_make_durable(st, s.txnid), 0);
	state_close(st);
	state_dir_close(d);
}

/* ---- crashes ---- */

enum { CRASH_KEYS = 200 };

/*
 * Batch b: for a third of the keys value "b", a journal entry each, applied = b,
 * and the journal trimmed below b - 5.  Everything follows from b.
 */
static bool in_batch(int key, int64_t b) { return (key + b) % 3 == 0; }

static int write_crash_batch(struct state *st, int64_t b)
{
	struct state_txn *t;
	struct state_partition row = STATE_PARTITION_NEW;
	int rc = state_begin(st, &t);
	if (rc)
		return rc;
	for (int k = 0; k < CRASH_KEYS; k++) {
		char key[16], value[700];
		if (!in_batch(k, b))
			continue;
		snprintf(key, sizeof(key), "key%04d", k);
		snprintf(value, sizeof(value), "%0*lld", 20 + k * 3, (long long)b);
		put(t, key, b, value);
		journal(t, 0, b, (uint32_t)k, key);
	}
	row.applied = b;
	assert_true(state_trim(t, 0, &row, b - 5, 0, 100000) >= 0);
	assert_int_equal(state_partition_set(t, 0, &row), 0);
	return state_commit(t);
}

static int64_t applied(struct state *st)
{
	struct state_view *v = view(st);
	struct state_partition row;
	int64_t a = state_view_partition(v, 0, &row) ? 0 : row.applied;
	state_view_end(v);
	return a;
}

static void check_crash_state(struct state *st)
{
	int64_t b = applied(st);
	struct state_view *v = view(st);
	for (int k = 0; k < CRASH_KEYS; k++) {
		char key[16], value[700];
		const void *rec;
		size_t len;
		struct record r;
		int64_t last = b; /* the last batch up to b that had this key */
		while (last > 0 && !in_batch(k, last))
			last--;
		snprintf(key, sizeof(key), "key%04d", k);
		snprintf(value, sizeof(value), "%0*lld", 20 + k * 3, (long long)last);
		int rc = state_view_get(v, key, strlen(key), &rec, &len);
		assert_int_equal(rc, last > 0 ? 0 : -ENOENT);
		if (rc)
			continue;
		assert_int_equal(record_decode(&r, rec, len, key, strlen(key)), 0);
		assert_int_equal(r.value_len, strlen(value));
		assert_memory_equal(r.value, value, r.value_len);
	}
	struct change c;
	int64_t from = b - 5 > 1 ? b - 5 : 1, want = 0, n = 0;
	for (int64_t i = from; i <= b; i++)
		for (int k = 0; k < CRASH_KEYS; k++)
			want += in_batch(k, i);
	int rc;
	for (rc = state_view_journal(v, 0, 0, 0, &c); !rc; rc = state_view_journal_next(v, &c)) {
		assert_true(c.offset >= from && c.offset <= b && in_batch((int)c.n, c.offset));
		n++;
	}
	assert_int_equal(rc, -ENOENT);
	assert_int_equal(n, want);
	state_view_end(v);
}

static void crash_once(const char *dir, bool filling, long usec)
{
	int up[2];
	char byte;
	assert_int_equal(pipe(up), 0);
	pid_t child = fork();
	if (child == 0) {
		struct state_dir *d = open_dir(dir);
		struct state *st = filling ? create(d) : reopen(d);
		int64_t b = applied(st);
		if (write(up[1], "x", 1) != 1)
			_exit(1);
		while (write_crash_batch(st, ++b) == 0)
			;
		_exit(2);
	}
	assert_int_equal(read(up[0], &byte, 1), 1);
	nanosleep(&(struct timespec){ .tv_nsec = usec * 1000 }, NULL);
	kill(child, SIGKILL);
	int status;
	waitpid(child, &status, 0);
	assert_true(WIFSIGNALED(status));
	close(up[0]);
	close(up[1]);
}

static void test_records_journal_and_positions_agree_after_any_kill(void **state)
{
	struct state_dir *d = open_dir(*state);
	state_close(fresh(d));
	state_dir_close(d);
	int64_t last = 0;
	for (int i = 0; i < 25; i++) {
		crash_once(*state, false, rand() % 40000);
		d = open_dir(*state);
		struct state *st = reopen(d);
		assert_true(applied(st) >= last);
		last = applied(st);
		check_crash_state(st);
		state_close(st);
		state_dir_close(d);
	}
	assert_true(last > 0);
}

static void test_a_kill_during_a_fill_leaves_the_old_generation_and_a_ruin_to_sweep(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct state *st = fresh(d);
	assert_int_equal(write_crash_batch(st, 1), 0);
	state_close(st);
	state_dir_close(d);
	crash_once(*state, true, 20000);
	d = open_dir(*state);
	assert_int_equal(count_generations(*state), 2);
	state_dir_sweep(d);
	assert_int_equal(count_generations(*state), 1);
	st = reopen(d);
	assert_int_equal(applied(st), 1);
	check_crash_state(st);
	state_close(st);
	state_dir_close(d);
}

/* ---- a full disk ---- */

/* Write batches until one fails; returns the last that was committed. */
static int64_t write_until_full(struct state *st, int *rc)
{
	int64_t b = applied(st);
	static char value[900];
	memset(value, 'v', sizeof(value) - 1);
	for (;; b++) {
		struct state_txn *t = begin(st);
		struct state_partition row = STATE_PARTITION_NEW;
		*rc = 0;
		for (int i = 0; !*rc && i < 200; i++) {
			char key[32];
			snprintf(key, sizeof(key), "key%lld-%d", (long long)b + 1, i);
			*rc = try_put(t, key, b + 1, value);
		}
		row.applied = b + 1;
		if (!*rc)
			*rc = state_partition_set(t, 0, &row);
		if (!*rc)
			*rc = state_commit(t);
		else
			state_abort(t);
		if (*rc)
			return b;
	}
}

/* `make_room` is called after the disk was found full. */
static void fill_and_go_on(const char *dir, void (*make_room)(const char *dir))
{
	struct state_dir *d = open_dir(dir);
	struct state *st = fresh(d);
	int rc;
	int64_t b = write_until_full(st, &rc);
	assert_int_equal(rc, -ENOSPC);
	assert_true(b > 0);
	assert_int_equal(applied(st), b); /* all of the last one, nothing of the failed one */
	struct state_stat s;
	assert_int_equal(state_stat(st, &s), 0);
	assert_int_equal(s.records, b * 200);

	make_room(dir);
	struct state_txn *t = begin(st);
	put(t, "afterwards", b, "v");
	commit(t);
	assert_true(has(st, "afterwards", "v"));
	state_close(st);
	assert_int_equal(state_dir_verify(d, err, sizeof(err)), 0);
	st = reopen(d);
	assert_int_equal(applied(st), b);
	assert_true(has(st, "afterwards", "v"));
	state_close(st);
	state_dir_close(d);
}

static void lift_limit(const char *dir)
{
	(void)dir;
	struct rlimit none = { RLIM_INFINITY, RLIM_INFINITY };
	getrlimit(RLIMIT_FSIZE, &none);
	none.rlim_cur = none.rlim_max;
	setrlimit(RLIMIT_FSIZE, &none);
}

static void test_a_batch_that_exceeds_the_file_size_limit_fails_and_the_state_goes_on(void **state)
{
	struct rlimit l;
	getrlimit(RLIMIT_FSIZE, &l);
	l.rlim_cur = 3000000;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
	fill_and_go_on(*state, lift_limit);
	lift_limit(NULL);
}

static void remove_ballast(const char *dir) { unlink(path_of(dir, "ballast")); }

static void test_a_batch_on_a_full_disk_fails_and_the_state_goes_on(void **state)
{
	if (mount("none", *state, "tmpfs", 0, "size=4m"))
		skip(); /* needs the right to mount */
	static char bytes[1 << 20];
	free(make_file(*state, "ballast", 0600, bytes, sizeof(bytes)));
	fill_and_go_on(*state, remove_ballast);
	assert_int_equal(umount2(*state, MNT_DETACH), 0);
}

/* ---- threads ---- */

struct shared {
	struct state *st;
	atomic_bool stop;
	atomic_int failures, views;
};

/* As the publisher does: read the journal up to applied, make it durable. */
static void *publisher(void *arg)
{
	struct shared *s = arg;
	while (!atomic_load(&s->stop)) {
		struct state_view *v;
		struct state_partition row;
		struct change c;
		if (state_view_begin(s->st, &v)) {
			atomic_fetch_add(&s->failures, 1);
			break;
		}
		uint64_t txnid = state_view_txnid(v);
		if (state_view_partition(v, 0, &row) == 0) {
			int64_t seen = 0;
			int rc;
			for (rc = state_view_journal(v, 0, row.base, row.base_n, &c); !rc;
			     rc = state_view_journal_next(v, &c))
				seen = c.offset;
			if (rc != -ENOENT || seen != row.applied)
				atomic_fetch_add(&s->failures, 1);
		}
		state_view_end(v);
		if (state_make_durable(s->st, txnid))
			atomic_fetch_add(&s->failures, 1);
		atomic_fetch_add(&s->views, 1);
	}
	return NULL;
}

static void test_views_and_make_durable_of_other_threads_go_well_with_the_writer(void **state)
{
	struct state_dir *d = open_dir(*state);
	struct shared s = { .st = fresh(d) };
	pthread_t threads[2];
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, publisher, &s), 0);
	for (int64_t b = 1; b < 200 || atomic_load(&s.views) < 20; b++)
		assert_int_equal(write_crash_batch(s.st, b), 0);
	atomic_store(&s.stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(atomic_load(&s.failures), 0);
	state_close(s.st);
	state_dir_close(d);
}

static void test_every_code_has_a_name(void **state)
{
	(void)state;
	assert_string_equal(state_strerror(-ENOSPC), "No space left on device");
	assert_non_null(strstr(state_strerror(-30795), "PANIC"));
	assert_non_null(strstr(state_strerror(-EBADMSG), "damaged"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with_dir(test_a_state_directory_is_made_with_modes_that_let_the_group_read),
		test_with_dir(test_a_second_sidecar_is_refused_until_the_first_is_gone),
		test_with_dir(test_the_lock_of_a_killed_sidecar_is_free),
		test_with_dir(test_a_path_that_cannot_be_a_directory_is_named),
		test_with_dir(test_an_empty_directory_has_no_state),
		test_with_dir(test_a_created_generation_is_read_only_after_it_was_made_current),
		test_with_dir(test_a_copied_state_is_another_state_and_the_original_stays_itself),
		test_with_dir(test_a_new_generation_replaces_the_old_at_once_and_has_another_uuid),
		test_with_dir(test_sweeping_keeps_the_current_generation_and_the_one_being_filled),
		test_with_dir(test_sweeping_leaves_files_of_others_alone),
		test_with_dir(test_the_state_of_another_pipeline_topic_or_cluster_is_refused),
		test_with_dir(test_a_cluster_id_learnt_later_is_stored_with_the_first_commit),
		test_with_dir(test_a_future_format_is_refused),
		test_with_dir(test_a_truncated_file_is_refused_not_mapped),
		test_with_dir(test_a_zeroed_file_is_refused),
		test_with_dir(test_a_zeroed_data_page_is_found_by_verifying),
		test_with_dir(test_a_flipped_bit_in_a_value_is_found_by_verifying),
		test_with_dir(test_a_file_that_lacks_only_unused_pages_is_opened),
		test_with_dir(test_the_larger_of_stored_and_configured_lease_counts),
		test_with_dir(test_the_wait_for_the_lease_ends),
		test_with_dir(test_a_commit_carries_records_journal_positions_and_texts_together),
		test_with_dir(test_an_aborted_batch_leaves_nothing),
		test_with_dir(test_an_empty_batch_is_a_commit_with_a_heartbeat),
		test_with_dir(test_the_old_value_is_journaled_though_its_page_is_overwritten),
		test_with_dir(test_gets_puts_and_deletes_agree_with_a_model),
		test_with_dir(test_a_key_that_is_not_there_cannot_be_deleted),
		test_with_dir(test_a_sorted_fill_packs_pages_tighter_than_a_random_one),
		test_with_dir(
			test_the_journal_of_a_partition_is_read_in_order_the_gone_before_the_log),
		test_with_dir(test_trimming_deletes_below_a_position_and_moves_the_base),
		test_with_dir(test_trimming_a_part_moves_the_base_only_to_the_first_entry_left),
		test_with_dir(test_trimming_thousands_and_appending_in_one_batch_keeps_the_rest),
		test_with_dir(test_a_view_keeps_its_commit_while_the_writer_goes_on),
		test_with_dir(test_boot_times_of_another_boot_are_forgotten),
		test_with_dir(test_a_commit_can_be_made_durable_before_the_next_one),
		test_with_dir(test_records_journal_and_positions_agree_after_any_kill),
		test_with_dir(
			test_a_kill_during_a_fill_leaves_the_old_generation_and_a_ruin_to_sweep),
		test_with_dir(
			test_a_batch_that_exceeds_the_file_size_limit_fails_and_the_state_goes_on),
		test_with_dir(test_a_batch_on_a_full_disk_fails_and_the_state_goes_on),
		test_with_dir(test_views_and_make_durable_of_other_threads_go_well_with_the_writer),
		cmocka_unit_test(test_every_code_has_a_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
