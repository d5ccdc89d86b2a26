#include "harness.h"
#include "shared_state.h"
#include "state.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>

static char err[512];
static const struct state_identity who = { .name = "pipe", .cluster_id = "c1", .topic = "users" };

/* ---- the writer's side, in small words ---- */

struct writer {
	struct state_dir *d;
	struct state *st;
	struct state_txn *t;
};

static void pause_ms(int64_t ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

static void writer_open(struct writer *w, const char *dir, int64_t lease_ms)
{
	struct state_options o = { .lease_ms = lease_ms };
	int rc = state_dir_open(&w->d, dir, err, sizeof(err));
	if (!rc) {
		rc = state_open(&w->st, w->d, &who, &o, err, sizeof(err));
		if (rc == -ENOENT) {
			rc = state_create(&w->st, w->d, &who, &o, err, sizeof(err));
			if (!rc)
				rc = state_make_current(w->st, err, sizeof(err));
		}
	}
	if (rc)
		fail_msg("%s", err);
	for (int64_t ms; (ms = state_lease_wait_ms(w->st)) > 0;)
		pause_ms(ms);
}

static void writer_close(struct writer *w)
{
	state_close(w->st);
	state_dir_close(w->d);
}

static void begin(struct writer *w) { assert_int_equal(state_begin(w->st, &w->t), 0); }
static void commit(struct writer *w) { assert_int_equal(state_commit(w->t), 0); }

static void put_record(struct writer *w, const void *key, size_t key_len, struct record r)
{
	static uint8_t rec[200000];
	uint8_t skey[KEY_STORED_MAX];
	size_t skey_len = record_stored_key(skey, key, key_len);
	if (record_key_is_digest(key_len)) {
		r.flags |= RECORD_KEY;
		r.key = key;
		r.key_len = key_len;
	}
	record_encode(rec, &r, skey, skey_len);
	assert_int_equal(state_put(w->t, skey, skey_len, rec, record_bytes(&r)), 0);
}

static void put(struct writer *w, const char *key, const char *value)
{
	put_record(w, key, strlen(key),
		   (struct record){ .partition = 3,
				    .offset = 4711,
				    .timestamp_ms = 99,
				    .value = value,
				    .value_len = strlen(value) });
}

static void set_applied(struct writer *w, int32_t p, int64_t offset)
{
	struct state_partition row = STATE_PARTITION_NEW;
	row.applied = offset;
	assert_int_equal(state_partition_set(w->t, p, &row), 0);
}

static void put_now(struct writer *w, const char *key, const char *value)
{
	begin(w);
	put(w, key, value);
	commit(w);
}

/* ---- the reader's side ---- */

static struct sstate *reader(const char *dir)
{
	struct sstate *s;
	assert_int_equal(sstate_open(&s, dir), 0);
	return s;
}

/* The value of a key as text; "(none)" if there is no such key, else the error's name. */
static const char *get(struct sstate *s, const char *key)
{
	static char text[300];
	size_t len;
	int rc = sstate_get_value(s, key, strlen(key), text, sizeof(text) - 1, &len);
	if (rc)
		return rc == -ENOENT ? "(none)" : sstate_strerror(rc);
	text[len] = 0;
	return text;
}

/* All keys with a prefix, as "a b c". */
static const char *scan(struct sstate *s, const char *prefix)
{
	static char text[2000];
	struct sstate_scan *c;
	struct sstate_record r;
	int rc;
	*text = 0;
	assert_int_equal(sstate_scan_begin(&c, s, prefix, strlen(prefix)), 0);
	while ((rc = sstate_scan_next(c, &r)) == 0)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%.*s",
			 *text ? " " : "", (int)r.key_len, (char *)r.key);
	assert_int_equal(rc, -ENOENT);
	sstate_scan_end(c);
	return text;
}

/* ---- look-ups ---- */

static void test_without_a_filled_state_opening_says_not_ready(void **state)
{
	char missing[300];
	struct sstate *s;
	struct writer w;
	struct state_options o = { .lease_ms = 1 };
	snprintf(missing, sizeof(missing), "%s/missing", (char *)*state);
	assert_int_equal(sstate_open(&s, missing), SSTATE_NOT_READY);
	assert_int_equal(sstate_open(&s, *state), SSTATE_NOT_READY);

	assert_int_equal(state_dir_open(&w.d, *state, err, sizeof(err)), 0);
	assert_int_equal(state_create(&w.st, w.d, &who, &o, err, sizeof(err)), 0);
	assert_int_equal(sstate_open(&s, *state), SSTATE_NOT_READY); /* still being filled */
	assert_int_equal(state_make_current(w.st, err, sizeof(err)), 0);
	sstate_close(reader(*state));
	writer_close(&w);
}

static void test_a_key_is_found_with_value_and_position(void **state)
{
	struct writer w;
	struct sstate_buf b = { 0 };
	struct sstate_record r;
	writer_open(&w, *state, 1);
	put_now(&w, "k", "value");
	struct sstate *s = reader(*state);
	assert_int_equal(sstate_get(s, "k", 1, &b, &r), 0);
	assert_int_equal(r.key_len, 1);
	assert_memory_equal(r.key, "k", 1);
	assert_int_equal(r.value_len, 5);
	assert_memory_equal(r.value, "value", 5);
	assert_int_equal(r.partition, 3);
	assert_int_equal(r.offset, 4711);
	assert_int_equal(r.timestamp_ms, 99);

	r.offset = 1;
	assert_int_equal(sstate_get(s, "other", 5, &b, &r), -ENOENT);
	assert_int_equal(r.offset, 1); /* untouched */
	sstate_buf_free(&b);
	sstate_buf_free(&b);
	sstate_close(s);
	sstate_close(NULL);
	writer_close(&w);
}

static void test_a_commit_is_seen_by_the_next_look_up(void **state)
{
	struct writer w;
	writer_open(&w, *state, 1);
	struct sstate *s = reader(*state);
	assert_string_equal(get(s, "k"), "(none)");
	put_now(&w, "k", "1");
	assert_string_equal(get(s, "k"), "1");
	begin(&w);
	put(&w, "k", "2");
	assert_string_equal(get(s, "k"), "1");
	commit(&w);
	assert_string_equal(get(s, "k"), "2");
	begin(&w);
	assert_int_equal(state_del(w.t, "k", 1), 0);
	commit(&w);
	assert_string_equal(get(s, "k"), "(none)");
	sstate_close(s);
	writer_close(&w);
}

static void test_a_value_that_does_not_fit_tells_its_length(void **state)
{
	struct writer w;
	char small[4];
	size_t len = 77;
	writer_open(&w, *state, 1);
	put_now(&w, "k", "value");
	put_now(&w, "empty", "");
	struct sstate *s = reader(*state);
	assert_int_equal(sstate_get_value(s, "k", 1, small, sizeof(small), &len), -ERANGE);
	assert_int_equal(len, 5);
	assert_int_equal(sstate_get_value(s, "k", 1, NULL, 0, &len), -ERANGE);
	assert_int_equal(sstate_get_value(s, "empty", 5, NULL, 0, &len), 0);
	assert_int_equal(len, 0);
	len = 77;
	assert_int_equal(sstate_get_value(s, "none", 4, NULL, 0, &len), -ENOENT);
	assert_int_equal(len, 77);
	sstate_close(s);
	writer_close(&w);
}

static void test_keys_of_any_length_are_found_by_the_whole_key(void **state)
{
	static const size_t lengths[] = { 0, 1, 478, 479, 480, 511, 512, 5000, 100000 };
	struct writer w;
	struct sstate_buf b = { 0 };
	struct sstate_record r;
	static char key[100200];
	memset(key, 'k', sizeof(key));
	writer_open(&w, *state, 1);
	begin(&w);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++)
		put_record(&w, key, lengths[i],
			   (struct record){
				   .offset = (int64_t)lengths[i], .value = "v", .value_len = 1 });
	commit(&w);
	struct sstate *s = reader(*state);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		assert_int_equal(sstate_get(s, key, lengths[i], &b, &r), 0);
		assert_int_equal(r.offset, lengths[i]);
		assert_int_equal(r.key_len, lengths[i]);
		assert_memory_equal(r.key, key, lengths[i]);
		assert_int_equal(sstate_get(s, key, lengths[i] + 100, &b, &r), -ENOENT);
	}
	sstate_buf_free(&b);
	sstate_close(s);
	writer_close(&w);
}

static void test_large_values_and_source_headers_come_back(void **state)
{
	struct writer w;
	struct sstate_buf b = { 0 };
	struct sstate_record r;
	struct sstate_header h;
	static char value[150000];
	uint8_t headers[64];
	struct record_header in = { "schema", 6, NULL, 0 };
	uint8_t *end = record_header_encode(headers, &in);
	memset(value, 'v', sizeof(value));
	writer_open(&w, *state, 1);
	begin(&w);
	put_record(&w, "k", 1,
		   (struct record){ .flags = RECORD_HEADERS,
				    .headers = headers,
				    .headers_len = (size_t)(end - headers),
				    .value = value,
				    .value_len = sizeof(value) });
	commit(&w);
	struct sstate *s = reader(*state);
	assert_int_equal(sstate_get(s, "k", 1, &b, &r), 0);
	assert_int_equal(r.value_len, sizeof(value));
	assert_memory_equal(r.value, value, sizeof(value));
	size_t pos = 0;
	assert_int_equal(sstate_header_next(&r, &pos, &h), 1);
	assert_int_equal(h.name_len, 6);
	assert_memory_equal(h.name, "schema", 6);
	assert_null(h.value);
	assert_int_equal(sstate_header_next(&r, &pos, &h), 0);
	sstate_buf_free(&b);
	sstate_close(s);
	writer_close(&w);
}

static void flip_everywhere(const char *dir, const char *bytes)
{
	char path[300];
	static char all[8 << 20];
	snprintf(path, sizeof(path), "%s/current/data.mdb", dir);
	int fd = open(path, O_RDWR);
	ssize_t len = read(fd, all, sizeof(all));
	assert_true(len > 0);
	for (char *hit; (hit = memmem(all, (size_t)len, bytes, strlen(bytes)));)
		*hit ^= 1;
	assert_int_equal(pwrite(fd, all, (size_t)len, 0), len);
	close(fd);
}

static void test_a_damaged_record_is_reported_and_the_others_are_read(void **state)
{
	struct writer w;
	struct sstate_buf b = { 0 };
	struct sstate_record r;
	writer_open(&w, *state, 1);
	begin(&w);
	put(&w, "a", "whole");
	put(&w, "b", "to-be-damaged");
	put(&w, "c", "whole");
	commit(&w);
	writer_close(&w);
	flip_everywhere(*state, "to-be-damaged");
	struct sstate *s = reader(*state);
	assert_int_equal(sstate_get(s, "b", 1, &b, &r), -EBADMSG);
	assert_string_equal(get(s, "b"), sstate_strerror(-EBADMSG));
	assert_string_equal(get(s, "a"), "whole");
	assert_string_equal(get(s, "c"), "whole");

	struct sstate_scan *c;
	assert_int_equal(sstate_scan_begin(&c, s, "", 0), 0);
	assert_int_equal(sstate_scan_next(c, &r), 0);
	assert_int_equal(sstate_scan_next(c, &r), -EBADMSG);
	sstate_scan_end(c);
	sstate_buf_free(&b);
	sstate_close(s);
}

static void test_a_damaged_page_is_an_error_and_not_the_end_of_the_process(void **state)
{
	struct writer w;
	char path[300], key[16];
	static const char zeros[4096];
	writer_open(&w, *state, 1);
	begin(&w);
	for (int i = 0; i < 3000; i++) {
		snprintf(key, sizeof(key), "key%05d", i);
		put(&w, key, "some value of some length, so that there are pages");
	}
	commit(&w);
	writer_close(&w);
	struct sstate *s = reader(*state);
	struct stat st;
	snprintf(path, sizeof(path), "%s/current/data.mdb", (char *)*state);
	assert_int_equal(stat(path, &st), 0);
	int fd = open(path, O_RDWR), bad = 0;
	for (off_t at = 8192; at < st.st_blocks * 512; at += 4096)
		assert_int_equal(pwrite(fd, zeros, sizeof(zeros), at), sizeof(zeros));
	close(fd);
	for (int i = 0; i < 3000; i++) {
		snprintf(key, sizeof(key), "key%05d", i);
		bad += strcmp(get(s, key), sstate_strerror(-EBADMSG)) == 0;
	}
	assert_int_equal(bad, 3000);
	sstate_close(s);
}

static void test_truncated_and_zeroed_files_are_damaged_and_empty_ones_not_ready(void **state)
{
	struct writer w;
	struct sstate *s;
	char path[300], zeros[8192] = { 0 };
	writer_open(&w, *state, 1);
	put_now(&w, "k", "v");
	writer_close(&w);
	snprintf(path, sizeof(path), "%s/current/data.mdb", (char *)*state);
	assert_int_equal(truncate(path, 9000), 0);
	assert_int_equal(sstate_open(&s, *state), -EBADMSG);
	int fd = open(path, O_RDWR);
	assert_int_equal(pwrite(fd, zeros, sizeof(zeros), 0), sizeof(zeros));
	close(fd);
	assert_int_equal(sstate_open(&s, *state), -EBADMSG);
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(sstate_open(&s, *state), SSTATE_NOT_READY);
}

static void test_a_future_format_is_named(void **state)
{
	struct writer w;
	struct sstate *s;
	writer_open(&w, *state, 1);
	begin(&w);
	assert_int_equal(state_meta_set(w.t, "format", "2"), 0);
	commit(&w);
	assert_int_equal(sstate_open(&s, *state), SSTATE_FORMAT);
	writer_close(&w);
}

/* ---- scans ---- */

static void test_a_scan_gives_keys_with_a_prefix_in_order(void **state)
{
	struct writer w;
	writer_open(&w, *state, 1);
	begin(&w);
	static const char *const keys[] = { "b", "ab", "a", "abc", "ac", "\xff\xff", "\xff" };
	for (size_t i = 0; i < 7; i++)
		put(&w, keys[i], "v");
	commit(&w);
	struct sstate *s = reader(*state);
	assert_string_equal(scan(s, ""), "a ab abc ac b \xff \xff\xff");
	assert_string_equal(scan(s, "a"), "a ab abc ac");
	assert_string_equal(scan(s, "ab"), "ab abc");
	assert_string_equal(scan(s, "abcd"), "");
	assert_string_equal(scan(s, "\xff"), "\xff \xff\xff");
	assert_string_equal(scan(s, "zz"), "");
	sstate_close(s);
	writer_close(&w);
}

static void test_a_scan_of_an_empty_state_ends_at_once_and_stays_ended(void **state)
{
	struct writer w;
	struct sstate_scan *c;
	struct sstate_record r;
	writer_open(&w, *state, 1);
	struct sstate *s = reader(*state);
	assert_int_equal(sstate_scan_begin(&c, s, NULL, 0), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(sstate_scan_next(c, &r), -ENOENT);
	sstate_scan_end(c);
	sstate_scan_end(NULL);
	sstate_close(s);
	writer_close(&w);
}

static int count(struct sstate *s, const void *prefix, size_t len)
{
	struct sstate_scan *c;
	struct sstate_record r;
	int n = 0, rc;
	assert_int_equal(sstate_scan_begin(&c, s, prefix, len), 0);
	while ((rc = sstate_scan_next(c, &r)) == 0) {
		assert_true(r.key_len >= len);
		assert_memory_equal(r.key, prefix, len);
		n++;
	}
	assert_int_equal(rc, -ENOENT);
	sstate_scan_end(c);
	return n;
}

static void test_a_prefix_may_be_longer_than_what_is_stored_of_a_key(void **state)
{
	struct writer w;
	static char key[1000];
	memset(key, 'k', sizeof(key));
	writer_open(&w, *state, 1);
	begin(&w);
	struct record r = { .value = "v", .value_len = 1 };
	for (size_t len = 470; len < 490; len++)
		put_record(&w, key, len, r);
	key[600] = 'x';
	put_record(&w, key, sizeof(key), r);
	key[600] = 'y';
	put_record(&w, key, sizeof(key), r);
	put_record(&w, "", 0, r);
	commit(&w);
	struct sstate *s = reader(*state);
	assert_int_equal(count(s, "", 0), 23);
	assert_int_equal(count(s, key, 1), 22);
	assert_int_equal(count(s, key, 479), 13);
	assert_int_equal(count(s, key, 485), 7);
	assert_int_equal(count(s, key, 600), 2);
	assert_int_equal(count(s, key, 601), 1);
	assert_int_equal(count(s, "\0", 1), 0); /* the empty key is stored as zeros */
	sstate_close(s);
	writer_close(&w);
}

/*
 * Even keys stay; odd ones come and go meanwhile.  The lease is the shortest
 * there is, so that nearly every step begins anew.
 */
static void test_a_long_scan_beside_a_writer_sees_each_lasting_key_exactly_once(void **state)
{
	enum { KEYS = 2000 };
	struct writer w;
	struct sstate_scan *c;
	struct sstate_record r;
	char key[16], last[16] = "";
	writer_open(&w, *state, 1);
	begin(&w);
	for (int i = 0; i < KEYS; i += 2) {
		snprintf(key, sizeof(key), "key%05d", i);
		put(&w, key, "stays");
	}
	commit(&w);
	struct sstate *s = reader(*state);
	assert_int_equal(sstate_scan_begin(&c, s, "key", 3), 0);
	int rc, lasting = 0;
	for (int n = 0; (rc = sstate_scan_next(c, &r)) == 0; n++) {
		char now[16];
		assert_int_equal(r.key_len, 8);
		memcpy(now, r.key, 8);
		now[8] = 0;
		assert_true(strcmp(last, now) < 0);
		strcpy(last, now);
		int i = atoi(now + 3);
		assert_int_equal(r.value_len, i % 2 ? 5 : 5);
		assert_memory_equal(r.value, i % 2 ? "comes" : "stays", 5);
		lasting += i % 2 == 0;

		begin(&w);
		snprintf(key, sizeof(key), "key%05d", rand() % KEYS | 1);
		if (rand() % 2)
			put(&w, key, "comes");
		else
			assert_true(state_del(w.t, key, 8) <= 0);
		commit(&w);
		if (n % 100 == 0)
			pause_ms(2); /* longer than the lease */
	}
	assert_int_equal(rc, -ENOENT);
	assert_int_equal(lasting, KEYS / 2);
	sstate_scan_end(c);
	sstate_close(s);
	writer_close(&w);
}

/* ---- snapshots ---- */

static void test_a_snapshot_gives_one_state_to_all_its_reads(void **state)
{
	struct writer w;
	struct sstate_snapshot *n;
	struct sstate_buf b = { 0 };
	struct sstate_record r;
	char token[64];
	writer_open(&w, *state, 60000);
	begin(&w);
	put(&w, "a", "1");
	set_applied(&w, 0, 10);
	commit(&w);
	struct sstate *s = reader(*state);
	assert_int_equal(sstate_snapshot_begin(&n, s), 0);
	for (int i = 0; i < 20; i++) {
		begin(&w);
		put(&w, "a", "2");
		put(&w, "b", "2");
		set_applied(&w, 0, 20);
		commit(&w);
	}
	assert_int_equal(sstate_snapshot_get(n, "a", 1, &b, &r), 0);
	assert_memory_equal(r.value, "1", 1);
	assert_int_equal(sstate_snapshot_get(n, "b", 1, &b, &r), -ENOENT);
	assert_int_equal(sstate_snapshot_token(n, token, sizeof(token)), 0);
	assert_string_equal(token, "0:10");
	sstate_snapshot_end(n);
	sstate_snapshot_end(NULL);
	assert_string_equal(get(s, "a"), "2");
	sstate_buf_free(&b);
	sstate_close(s);
	writer_close(&w);
}

static void
test_a_snapshot_that_outlives_the_lease_says_so_once_the_writer_has_gone_on(void **state)
{
	struct writer w;
	struct sstate_snapshot *n;
	struct sstate_buf b = { 0 };
	struct sstate_record r;
	char token[64];
	writer_open(&w, *state, 1);
	put_now(&w, "k", "1");
	struct sstate *s = reader(*state);
	assert_int_equal(sstate_snapshot_begin(&n, s), 0);
	pause_ms(5);
	assert_int_equal(sstate_snapshot_get(n, "k", 1, &b, &r), 0); /* nothing was written */
	put_now(&w, "k", "2");
	assert_int_equal(sstate_snapshot_get(n, "k", 1, &b, &r), 0); /* nor reused */
	assert_memory_equal(r.value, "1", 1);
	put_now(&w, "k", "3");
	assert_int_equal(sstate_snapshot_get(n, "k", 1, &b, &r), SSTATE_STALE);
	assert_int_equal(sstate_snapshot_get(n, "none", 4, &b, &r), SSTATE_STALE);
	assert_int_equal(sstate_snapshot_token(n, token, sizeof(token)), SSTATE_STALE);
	sstate_snapshot_end(n);
	assert_string_equal(get(s, "k"), "3");
	sstate_buf_free(&b);
	sstate_close(s);
	writer_close(&w);
}

/* ---- generations ---- */

static void make_new_generation(struct writer *w, const char *key, const char *value)
{
	struct state_options o = { .lease_ms = 1 };
	struct state *new;
	assert_int_equal(state_create(&new, w->d, &who, &o, err, sizeof(err)), 0);
	struct writer n = { .st = new };
	put_now(&n, key, value);
	assert_int_equal(state_make_current(new, err, sizeof(err)), 0);
	state_close(w->st);
	w->st = new;
	state_dir_sweep(w->d);
}

static void await(struct sstate *s, const char *key, const char *value)
{
	while (strcmp(get(s, key), value) != 0)
		pause_ms(1);
}

static void test_a_reader_moves_to_a_new_generation_by_itself(void **state)
{
	struct writer w;
	struct sstate_snapshot *n;
	struct sstate_scan *c;
	struct sstate_buf b = { 0 };
	struct sstate_record r;
	writer_open(&w, *state, 1);
	begin(&w);
	put(&w, "a", "old");
	put(&w, "b", "old");
	commit(&w);
	struct sstate *s = reader(*state);
	assert_int_equal(sstate_snapshot_begin(&n, s), 0);
	assert_int_equal(sstate_scan_begin(&c, s, "", 0), 0);
	assert_int_equal(sstate_scan_next(c, &r), 0);

	make_new_generation(&w, "b", "new"); /* the old one's files are removed */
	await(s, "b", "new");
	assert_string_equal(get(s, "a"), "(none)");

	/* what was begun before goes on with what it has */
	assert_int_equal(sstate_snapshot_get(n, "a", 1, &b, &r), 0);
	assert_memory_equal(r.value, "old", 3);
	sstate_snapshot_end(n);
	pause_ms(5);
	assert_int_equal(sstate_scan_next(c, &r), 0);
	assert_memory_equal(r.key, "b", 1);
	assert_memory_equal(r.value, "new", 3);
	sstate_scan_end(c);

	for (int i = 0; i < 5; i++) {
		char value[16];
		snprintf(value, sizeof(value), "gen%d", i);
		make_new_generation(&w, "b", value);
		await(s, "b", value);
	}
	struct sstate_stat st;
	assert_int_equal(sstate_stat(s, &st), 0);
	assert_int_equal(st.generation, 7);
	sstate_buf_free(&b);
	sstate_close(s);
	writer_close(&w);
}

static void test_a_generation_that_takes_over_promises_its_own_lease_not_the_old_one(void **state)
{
	struct writer w;
	struct state *new;
	struct sstate_stat st;
	char uuid[64];
	struct state_options o = { .lease_ms = 1 };
	writer_open(&w, *state, 60000);
	begin(&w);
	put(&w, "k", "old");
	set_applied(&w, 2, 17);
	commit(&w);
	assert_int_equal(state_create(&new, w.d, &who, &o, err, sizeof(err)), 0);
	struct writer n = { .st = new };
	put_now(&n, "k", "new");
	assert_int_equal(state_take_over(new, w.st), 0);
	assert_int_equal(state_make_current(new, err, sizeof(err)), 0);
	assert_int_equal(state_lease_ms(new), 1);

	struct sstate *s = reader(*state);
	struct sstate_partition p;
	assert_int_equal(sstate_stat(s, &st), 0);
	assert_int_equal(st.lease_ms, 1);
	assert_string_equal(get(s, "k"), "new");
	assert_int_equal(sstate_partition(s, 2, &p), 0);
	assert_int_equal(p.applied, 17);
	assert_int_equal(sstate_text(s, "uuid", uuid, sizeof(uuid)), 0);
	assert_string_equal(uuid, state_uuid(w.st));
	sstate_close(s);
	state_close(new);
	writer_close(&w);
}

static void test_a_state_that_vanishes_stays_readable_for_those_who_have_it_open(void **state)
{
	struct writer w;
	char path[300], moved[310];
	writer_open(&w, *state, 1);
	put_now(&w, "k", "v");
	struct sstate *s = reader(*state);
	snprintf(path, sizeof(path), "%s/current", (char *)*state);
	snprintf(moved, sizeof(moved), "%s.away", path);
	assert_int_equal(rename(path, moved), 0);
	pause_ms(120);
	for (int i = 0; i < 3; i++)
		assert_string_equal(get(s, "k"), "v");
	assert_int_equal(rename(moved, path), 0);
	sstate_close(s);
	writer_close(&w);
}

/* ---- positions ---- */

static void test_tokens_are_read_and_written(void **state)
{
	(void)state;
	struct sstate_position p[3];
	char text[64];
	assert_int_equal(sstate_token_parse("0:4712,3:99", p, 3), 2);
	assert_int_equal(p[0].partition, 0);
	assert_int_equal(p[0].offset, 4712);
	assert_int_equal(p[1].partition, 3);
	assert_int_equal(p[1].offset, 99);
	assert_int_equal(sstate_token_format(text, sizeof(text), p, 2), 0);
	assert_string_equal(text, "0:4712,3:99");
	assert_int_equal(sstate_token_format(text, 12, p, 2), 0);
	assert_int_equal(sstate_token_format(text, 11, p, 2), -ERANGE);
	assert_int_equal(sstate_token_format(text, 1, p, 0), 0);
	assert_string_equal(text, "");
	assert_int_equal(sstate_token_parse("0:7~5,1:8", p, 3), 2);
	assert_int_equal(p[0].offset, 7);
	assert_int_equal(p[0].due, 5);
	assert_int_equal(p[1].due, 0);
	assert_int_equal(sstate_token_format(text, sizeof(text), p, 2), 0);
	assert_string_equal(text, "0:7~5,1:8");
	assert_int_equal(sstate_token_format(text, 10, p, 2), 0);
	assert_int_equal(sstate_token_format(text, 9, p, 2), -ERANGE);
	assert_int_equal(sstate_token_format(text, 5, p, 1), -ERANGE);
	assert_int_equal(sstate_token_parse("", p, 3), 0);
	assert_int_equal(sstate_token_parse("0:9223372036854775807", p, 3), 1);
	assert_true(p[0].offset == INT64_MAX);
	assert_int_equal(sstate_token_parse("0:1,1:1,2:1,3:1", p, 3), -ERANGE);
	static const char *const wrong[] = { "0",
					     "0:",
					     ":1",
					     "a:1",
					     "0:1,",
					     ",0:1",
					     "0:1 ",
					     " 0:1",
					     "0:-1",
					     "-1:0",
					     "0:1;1:1",
					     "2147483648:1",
					     "0:9223372036854775808",
					     "0:1:2",
					     "0:1~",
					     "0:1~-1",
					     "0:1~1~1",
					     "0~1:1",
					     "+1:1" };
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		assert_int_equal(sstate_token_parse(wrong[i], p, 3), -EINVAL);
}

static void test_the_token_of_a_state_is_what_it_has_applied(void **state)
{
	struct writer w;
	char token[64];
	writer_open(&w, *state, 1);
	struct sstate *s = reader(*state);
	assert_int_equal(sstate_token(s, token, sizeof(token)), 0);
	assert_string_equal(token, "");
	begin(&w);
	set_applied(&w, 0, 17);
	set_applied(&w, 2, 5);
	commit(&w);
	assert_int_equal(sstate_token(s, token, sizeof(token)), 0);
	assert_string_equal(token, "0:17,2:5");
	assert_int_equal(sstate_wait(s, token, 0), 0); /* its own is applied */
	assert_int_equal(sstate_token(s, token, 8), -ERANGE);
	sstate_close(s);
	writer_close(&w);
}

static void set_due(struct writer *w, int32_t p, int64_t applied, int64_t due)
{
	struct state_partition row = STATE_PARTITION_NEW;
	row.applied = applied;
	row.due = due;
	begin(w);
	assert_int_equal(state_partition_set(w->t, p, &row), 0);
	commit(w);
}

/* Deletes between 40 and 99 may not be known: what was seen is named, what is asked for is not there. */
static void
test_a_state_with_a_round_due_is_named_and_has_only_reached_where_the_gap_began(void **state)
{
	struct writer w;
	char token[64];
	writer_open(&w, *state, 1);
	struct sstate *s = reader(*state);
	set_due(&w, 0, 99, 40);
	assert_int_equal(sstate_token(s, token, sizeof(token)), 0);
	assert_string_equal(token, "0:99~40");
	assert_int_equal(sstate_wait(s, "0:99~40", 0), 0); /* its own */
	assert_int_equal(sstate_wait(s, "0:98~30", 0), 0);
	assert_int_equal(sstate_wait(s, "0:40", 0), 0);
	assert_int_equal(sstate_wait(s, "0:41", 0), -ETIMEDOUT);
	assert_int_equal(sstate_wait(s, "0:99~41", 0), -ETIMEDOUT);
	assert_int_equal(sstate_wait(s, "0:100~40", 0), -ETIMEDOUT);
	set_due(&w, 0, 99, -1); /* the round is done */
	assert_int_equal(sstate_token(s, token, sizeof(token)), 0);
	assert_string_equal(token, "0:99");
	assert_int_equal(sstate_wait(s, "0:99~40", 0), 0);
	assert_int_equal(sstate_wait(s, "0:99", 0), 0);
	set_due(&w, 0, 99, 99); /* and so it is where nothing was read behind the gap */
	assert_int_equal(sstate_token(s, token, sizeof(token)), 0);
	assert_string_equal(token, "0:99");
	sstate_close(s);
	writer_close(&w);
}

static void *apply_later(void *arg)
{
	struct writer *w = arg;
	for (int64_t a = 1; a <= 30; a++) {
		struct state_partition row = STATE_PARTITION_NEW;
		row.applied = a;
		if (state_begin(w->st, &w->t) || state_partition_set(w->t, 1, &row) ||
		    state_commit(w->t))
			return w;
		pause_ms(1);
	}
	return NULL;
}

static void test_waiting_ends_when_the_position_is_applied_or_the_time_is_over(void **state)
{
	struct writer w;
	struct sstate_partition p;
	pthread_t t;
	void *failed;
	writer_open(&w, *state, 1);
	begin(&w);
	set_applied(&w, 0, 100);
	commit(&w);
	struct sstate *s = reader(*state);
	assert_int_equal(sstate_wait(s, "0:100", 0), 0);
	assert_int_equal(sstate_wait(s, "", 0), 0);
	assert_int_equal(sstate_wait(s, "0:101", 0), -ETIMEDOUT);
	assert_int_equal(sstate_wait(s, "0:100,7:1", 5), -ETIMEDOUT); /* no such partition yet */
	assert_int_equal(sstate_wait(s, "nonsense", 0), -EINVAL);
	assert_int_equal(pthread_create(&t, NULL, apply_later, &w), 0);
	assert_int_equal(sstate_wait(s, "0:50,1:30", -1), 0);
	pthread_join(t, &failed);
	assert_null(failed);
	assert_int_equal(sstate_partition(s, 1, &p), 0);
	assert_int_equal(p.applied, 30);
	assert_int_equal(p.published, -1);
	assert_int_equal(sstate_partition(s, 9, &p), -ENOENT);
	sstate_close(s);
	writer_close(&w);
}

static void test_a_state_tells_about_itself(void **state)
{
	struct writer w;
	struct sstate_stat st;
	char text[64];
	writer_open(&w, *state, 250);
	begin(&w);
	put(&w, "k", "v");
	set_applied(&w, 4, 1);
	assert_int_equal(state_meta_set(w.t, "role", "standby"), 0);
	commit(&w);
	struct sstate *s = reader(*state);
	assert_int_equal(sstate_text(s, "name", text, sizeof(text)), 0);
	assert_string_equal(text, "pipe");
	assert_int_equal(sstate_text(s, "topic", text, sizeof(text)), 0);
	assert_string_equal(text, "users");
	assert_int_equal(sstate_text(s, "cluster_id", text, sizeof(text)), 0);
	assert_string_equal(text, "c1");
	assert_int_equal(sstate_text(s, "uuid", text, sizeof(text)), 0);
	assert_string_equal(text, state_uuid(w.st));
	assert_int_equal(sstate_text(s, "role", text, sizeof(text)), 0);
	assert_string_equal(text, "standby");
	assert_int_equal(sstate_text(s, "role", text, 7), -ERANGE);
	assert_int_equal(sstate_text(s, "colour", text, sizeof(text)), -ENOENT);
	assert_int_equal(sstate_text(s, "", text, sizeof(text)), -ENOENT);

	assert_int_equal(sstate_stat(s, &st), 0);
	assert_int_equal(st.ready, 0);
	assert_int_equal(st.keys, 1);
	assert_int_equal(st.partitions, 5);
	assert_int_equal(st.lease_ms, 250);
	assert_int_equal(st.generation, 1);
	assert_int_equal(st.journal_entries, 0);
	assert_true(st.bytes > 0 && st.file_bytes > st.bytes && st.txnid > 1);
	assert_true(st.heartbeat_age_ms >= 0);

	begin(&w);
	assert_int_equal(state_meta_set(w.t, "ready", "1"), 0);
	commit(&w);
	assert_int_equal(sstate_stat(s, &st), 0);
	assert_true(st.ready || st.heartbeat_age_ms >= 10000);
	sstate_close(s);
	writer_close(&w);
}

/* ---- threads ---- */

struct shared {
	struct sstate *s;
	atomic_bool stop;
	atomic_int wrong, gets;
};

/* Keys "a" and "b" always hold the same, growing number. */
static void *read_on(void *arg)
{
	struct shared *h = arg;
	struct sstate_buf b = { 0 };
	struct sstate_record r;
	int64_t last = 0;
	while (!atomic_load(&h->stop)) {
		char text[32] = "";
		size_t len;
		struct sstate_snapshot *n;
		if (sstate_get_value(h->s, "a", 1, text, sizeof(text) - 1, &len) ||
		    atoll(text) < last)
			atomic_fetch_add(&h->wrong, 1);
		last = atoll(text);
		if (sstate_snapshot_begin(&n, h->s)) {
			atomic_fetch_add(&h->wrong, 1);
			continue;
		}
		int rc = sstate_snapshot_get(n, "b", 1, &b, &r);
		if (!rc) {
			char other[32] = "";
			memcpy(other, r.value, r.value_len);
			rc = sstate_snapshot_get(n, "a", 1, &b, &r);
			if (!rc && (r.value_len != strlen(other) ||
				    memcmp(r.value, other, r.value_len) != 0))
				rc = -EIO;
		}
		if (rc && rc != SSTATE_STALE)
			atomic_fetch_add(&h->wrong, 1);
		sstate_snapshot_end(n);
		atomic_fetch_add(&h->gets, 1);
	}
	sstate_buf_free(&b);
	return NULL;
}

static void test_threads_share_a_handle_across_commits_and_generations(void **state)
{
	struct writer w;
	char value[32];
	pthread_t t[3];
	writer_open(&w, *state, 1);
	begin(&w);
	put(&w, "a", "1");
	put(&w, "b", "1");
	commit(&w);
	struct shared h = { .s = reader(*state) };
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, read_on, &h), 0);
	for (int i = 2; i < 400 || atomic_load(&h.gets) < 1000; i++) {
		snprintf(value, sizeof(value), "%d", i);
		if (i % 100 == 0) {
			struct state_options o = { .lease_ms = 1 };
			struct writer n = { .d = w.d };
			assert_int_equal(state_create(&n.st, w.d, &who, &o, err, sizeof(err)), 0);
			begin(&n);
			put(&n, "a", value);
			put(&n, "b", value);
			commit(&n);
			assert_int_equal(state_make_current(n.st, err, sizeof(err)), 0);
			state_close(w.st);
			w.st = n.st;
			state_dir_sweep(w.d);
			await(h.s, "a", value); /* or the old one would be overtaken */
		}
		begin(&w);
		put(&w, "a", value);
		put(&w, "b", value);
		commit(&w);
	}
	atomic_store(&h.stop, true);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(atomic_load(&h.wrong), 0);
	sstate_close(h.s);
	writer_close(&w);
}

/* ---- processes ---- */

/* Shared between processes. */
struct board {
	_Atomic int64_t version; /* committed by the writer */
	atomic_bool stop;
	atomic_long gets;
	atomic_int up;
};

static struct board *make_board(void)
{
	struct board *b =
		mmap(NULL, sizeof(*b), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(b != MAP_FAILED);
	return b;
}

enum { FLEET_KEYS = 500 };

/* Key k at version v has this value, in length and bytes. */
static size_t fleet_value(char *out, int k, int64_t v)
{
	size_t len = 40 + (size_t)(k * 37 + v * 11) % 1500;
	memset(out, 'a' + (int)((k + v) % 26), len);
	snprintf(out, 40, "%d:%lld;", k, (long long)v);
	return len;
}

static int write_fleet(struct writer *w, int64_t v)
{
	static char value[2000], key[16];
	static uint8_t rec[2100];
	int rc = state_begin(w->st, &w->t);
	for (int k = 0; !rc && k < FLEET_KEYS; k++) {
		struct record r = { .offset = v,
				    .value = value,
				    .value_len = fleet_value(value, k, v) };
		snprintf(key, sizeof(key), "key%05d", k);
		record_encode(rec, &r, key, 8);
		rc = state_put(w->t, key, 8, rec, record_bytes(&r));
	}
	if (rc) {
		state_abort(w->t);
		return rc;
	}
	return state_commit(w->t);
}

/* In a child: versions from the board's on, until stopped or killed. */
static void fleet_writer(const char *dir, struct board *b, int64_t lease_ms)
{
	struct writer w;
	writer_open(&w, dir, lease_ms);
	atomic_fetch_add(&b->up, 1);
	for (int64_t v = atomic_load(&b->version) + 1; !atomic_load(&b->stop); v++) {
		if (write_fleet(&w, v))
			_exit(10);
		atomic_store(&b->version, v);
	}
	writer_close(&w);
	_exit(0);
}

/* In a child: every value must be whole and never older than one seen before. */
static void fleet_reader(const char *dir, struct board *b, unsigned seed)
{
	static char value[2000], want[2000];
	static int64_t seen[FLEET_KEYS];
	struct sstate *s;
	if (sstate_open(&s, dir))
		_exit(20);
	atomic_fetch_add(&b->up, 1);
	while (!atomic_load(&b->stop)) {
		int k = rand_r(&seed) % FLEET_KEYS;
		int64_t least = atomic_load(&b->version);
		char key[16];
		size_t len;
		snprintf(key, sizeof(key), "key%05d", k);
		int rc = sstate_get_value(s, key, 8, value, sizeof(value), &len);
		if (rc)
			_exit(21);
		long long v = strtoll(strchr(value, ':') + 1, NULL, 10);
		if (len != fleet_value(want, k, v) || memcmp(value, want, len) != 0)
			_exit(22);
		if (v < seen[k] || v < least)
			_exit(23);
		seen[k] = v;
		atomic_fetch_add(&b->gets, 1);
	}
	sstate_close(s);
	_exit(0);
}

static void await_up(struct board *b, int n)
{
	while (atomic_load(&b->up) < n)
		pause_ms(1);
}

static void expect_exit(pid_t child)
{
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		fail_msg("a child ended with status %#x", status);
}

static void test_readers_beside_a_writer_going_flat_out_see_whole_and_current_values(void **state)
{
	struct board *b = make_board();
	struct writer w;
	writer_open(&w, *state, 20);
	assert_int_equal(write_fleet(&w, 0), 0);
	writer_close(&w);
	pid_t writer = fork();
	if (writer == 0)
		fleet_writer(*state, b, 20);
	await_up(b, 1);
	pid_t readers[2];
	for (unsigned i = 0; i < 2; i++) {
		readers[i] = fork();
		if (readers[i] == 0)
			fleet_reader(*state, b, i);
	}
	while (atomic_load(&b->gets) < 20000 || atomic_load(&b->version) < 50)
		pause_ms(1);
	atomic_store(&b->stop, true);
	for (int i = 0; i < 2; i++)
		expect_exit(readers[i]);
	expect_exit(writer);
	munmap(b, sizeof(*b));
}

static void test_readers_do_not_notice_that_writers_are_killed_and_restarted(void **state)
{
	struct board *b = make_board();
	struct writer w;
	writer_open(&w, *state, 20);
	assert_int_equal(write_fleet(&w, 0), 0);
	writer_close(&w);
	pid_t r = fork();
	if (r == 0)
		fleet_reader(*state, b, 1);
	await_up(b, 1);
	for (int i = 0; i < 5; i++) {
		pid_t writer = fork();
		if (writer == 0)
			fleet_writer(*state, b, 20);
		await_up(b, 2 + i);
		int64_t v = atomic_load(&b->version);
		while (atomic_load(&b->version) < v + 3)
			pause_ms(1);
		pause_ms(rand() % 10);
		kill(writer, SIGKILL);
		waitpid(writer, NULL, 0);
		long gets = atomic_load(&b->gets); /* it reads on without any writer */
		while (atomic_load(&b->gets) < gets + 100)
			pause_ms(1);
	}
	atomic_store(&b->stop, true);
	expect_exit(r);
	munmap(b, sizeof(*b));
}

static void
test_a_reader_stopped_for_longer_than_the_lease_is_not_wrong_when_it_goes_on(void **state)
{
	struct board *b = make_board();
	struct writer w;
	writer_open(&w, *state, 1);
	assert_int_equal(write_fleet(&w, 0), 0);
	pid_t r = fork();
	if (r == 0) {
		/* the child has the parent's state in memory and must not touch it */
		fleet_reader(*state, b, 1);
	}
	await_up(b, 1);
	for (int i = 1; i <= 60; i++) {
		kill(r, SIGSTOP);
		for (int k = 0; k < 5; k++) {
			int64_t v = atomic_load(&b->version) + 1;
			assert_int_equal(write_fleet(&w, v), 0);
			atomic_store(&b->version, v);
		}
		kill(r, SIGCONT);
		long gets = atomic_load(&b->gets);
		while (atomic_load(&b->gets) == gets && waitpid(r, NULL, WNOHANG) == 0)
			pause_ms(1);
	}
	atomic_store(&b->stop, true);
	expect_exit(r);
	writer_close(&w);
	munmap(b, sizeof(*b));
}

static void test_every_code_has_a_name(void **state)
{
	(void)state;
	assert_non_null(strstr(sstate_strerror(SSTATE_NOT_READY), "not ready"));
	assert_non_null(strstr(sstate_strerror(SSTATE_STALE), "lease"));
	assert_non_null(strstr(sstate_strerror(SSTATE_FORMAT), "format"));
	assert_string_equal(sstate_strerror(-ENOENT), strerror(ENOENT));
	assert_string_equal(sstate_version(), SSTATE_VERSION);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with_dir(test_without_a_filled_state_opening_says_not_ready),
		test_with_dir(test_a_key_is_found_with_value_and_position),
		test_with_dir(test_a_commit_is_seen_by_the_next_look_up),
		test_with_dir(test_a_value_that_does_not_fit_tells_its_length),
		test_with_dir(test_keys_of_any_length_are_found_by_the_whole_key),
		test_with_dir(test_large_values_and_source_headers_come_back),
		test_with_dir(test_a_damaged_record_is_reported_and_the_others_are_read),
		test_with_dir(test_a_damaged_page_is_an_error_and_not_the_end_of_the_process),
		test_with_dir(test_truncated_and_zeroed_files_are_damaged_and_empty_ones_not_ready),
		test_with_dir(test_a_future_format_is_named),
		test_with_dir(test_a_scan_gives_keys_with_a_prefix_in_order),
		test_with_dir(test_a_scan_of_an_empty_state_ends_at_once_and_stays_ended),
		test_with_dir(test_a_prefix_may_be_longer_than_what_is_stored_of_a_key),
		test_with_dir(test_a_long_scan_beside_a_writer_sees_each_lasting_key_exactly_once),
		test_with_dir(test_a_snapshot_gives_one_state_to_all_its_reads),
		test_with_dir(
			test_a_snapshot_that_outlives_the_lease_says_so_once_the_writer_has_gone_on),
		test_with_dir(test_a_reader_moves_to_a_new_generation_by_itself),
		test_with_dir(
			test_a_generation_that_takes_over_promises_its_own_lease_not_the_old_one),
		test_with_dir(test_a_state_that_vanishes_stays_readable_for_those_who_have_it_open),
		cmocka_unit_test(test_tokens_are_read_and_written),
		test_with_dir(test_the_token_of_a_state_is_what_it_has_applied),
		test_with_dir(
			test_a_state_with_a_round_due_is_named_and_has_only_reached_where_the_gap_began),
		test_with_dir(test_waiting_ends_when_the_position_is_applied_or_the_time_is_over),
		test_with_dir(test_a_state_tells_about_itself),
		test_with_dir(test_threads_share_a_handle_across_commits_and_generations),
		test_with_dir(
			test_readers_beside_a_writer_going_flat_out_see_whole_and_current_values),
		test_with_dir(test_readers_do_not_notice_that_writers_are_killed_and_restarted),
		test_with_dir(
			test_a_reader_stopped_for_longer_than_the_lease_is_not_wrong_when_it_goes_on),
		cmocka_unit_test(test_every_code_has_a_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
