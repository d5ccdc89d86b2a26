/* docs/on-disk.md is a contract: its code is run here, against a state that we wrote. */
#include "harness.h"
#include "state.h"

static char doc[100000];

static bool read_doc(void)
{
	FILE *f = fopen("docs/on-disk.md", "r");
	if (!f)
		return false;
	doc[fread(doc, 1, sizeof(doc) - 1, f)] = 0;
	fclose(f);
	return true;
}

/* The code behind "```<language>", as a file with `more` behind it. */
static void extract(const char *language, const char *path, const char *more)
{
	char fence[32];
	snprintf(fence, sizeof(fence), "```%s\n", language);
	char *begin = strstr(doc, fence);
	assert_non_null(begin);
	begin += strlen(fence);
	char *end = strstr(begin, "\n```");
	assert_non_null(end);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fprintf(f, "%.*s\n%s", (int)(end - begin), begin, more);
	fclose(f);
}

static int shell(const char *dir, const char *command)
{
	char line[1000];
	snprintf(line, sizeof(line), "cd '%s' && %s", dir, command);
	return system(line);
}

static void put(struct state_txn *t, const void *key, size_t key_len, bool headers,
		const char *value)
{
	uint8_t rec[3000], skey[KEY_STORED_MAX], h[64];
	struct record_header one = { "schema", 6, "7", 1 };
	size_t skey_len = record_stored_key(skey, key, key_len);
	struct record r = { .partition = 3,
			    .offset = 4711,
			    .timestamp_ms = 1700000000123,
			    .value = value,
			    .value_len = strlen(value) };
	if (record_key_is_digest(key_len)) {
		r.flags |= RECORD_KEY;
		r.key = key;
		r.key_len = key_len;
	}
	if (headers) {
		r.flags |= RECORD_HEADERS;
		r.headers = h;
		r.headers_len = (size_t)(record_header_encode(h, &one) - h);
	}
	record_encode(rec, &r, skey, skey_len);
	assert_int_equal(state_put(t, skey, skey_len, rec, record_bytes(&r)), 0);
}

static void fill_generation(struct state_dir *d, const char *value)
{
	static char long_key[1000];
	char err[300];
	struct state *st;
	struct state_txn *t;
	struct state_identity who = { "pipe", "c1", "users" };
	struct state_options o = { .lease_ms = 2000 };
	memset(long_key, 'k', sizeof(long_key));
	if (state_create(&st, d, &who, &o, err, sizeof(err)))
		fail_msg("%s", err);
	assert_int_equal(state_begin(st, &t), 0);
	put(t, "plain", 5, false, value);
	put(t, "headers", 7, true, value);
	put(t, long_key, sizeof(long_key), false, value);
	put(t, long_key, sizeof(long_key) - 1, true, value);
	put(t, "", 0, false, value);
	assert_int_equal(state_commit(t), 0);
	if (state_make_current(st, err, sizeof(err)))
		fail_msg("%s", err);
	state_close(st);
}

static struct state_dir *make_state(const char *dir)
{
	char path[300], err[300];
	struct state_dir *d;
	snprintf(path, sizeof(path), "%s/state", dir);
	if (state_dir_open(&d, path, err, sizeof(err)))
		fail_msg("%s", err);
	fill_generation(d, "first");
	return d;
}

static void test_the_python_of_the_contract_reads_a_state(void **state)
{
	char path[300];
	if (!read_doc() || shell("/", "/usr/bin/python3 -c 'import lmdb' 2>/dev/null"))
		skip(); /* not run from the top of the repository, or no python3-lmdb */
	struct state_dir *d = make_state(*state);
	snprintf(path, sizeof(path), "%s/reader.py", (char *)*state);
	/* the shell between the two halves is this test: it makes a new generation */
	extract("python", path,
		"import sys\n"
		"s = Snapshot('state')\n"
		"def check(value):\n"
		"    want = (value, 3, 4711, 1700000000123)\n"
		"    for key in (b'plain', b'headers', b'k' * 1000, b'k' * 999, b''):\n"
		"        assert s.get(key) == want, (key, s.get(key))\n"
		"    assert s.get(b'none') is None\n"
		"    assert s.get(b'k' * 998) is None\n"
		"    assert s.lease == 2\n"
		"check(b'first')\n"
		"open('half', 'w').close()\n"
		"while not os.path.exists('switched'):\n"
		"    time.sleep(0.01)\n"
		"time.sleep(0.11)\n"
		"check(b'second')\n");
	pid_t child = fork();
	if (child == 0)
		_exit(shell(*state, "/usr/bin/python3 reader.py") ? 1 : 0);
	snprintf(path, sizeof(path), "%s/half", (char *)*state);
	int status = 0;
	pid_t ended = 0;
	while (access(path, F_OK) && !(ended = waitpid(child, &status, WNOHANG)))
		usleep(10000);
	if (!ended) {
		fill_generation(d, "second");
		state_dir_sweep(d);
		free(make_file(*state, "switched", 0600, "", 0));
		assert_int_equal(waitpid(child, &status, 0), child);
	}
	assert_int_equal(status, 0);
	state_dir_close(d);
}

static void test_the_c_of_the_contract_reads_a_state(void **state)
{
	char path[300];
	if (!read_doc() || shell("/", "cc --version >/dev/null 2>&1"))
		skip();
	struct state_dir *d = make_state(*state);
	snprintf(path, sizeof(path), "%s/reader.c", (char *)*state);
	extract("c", path, "");
	assert_int_equal(shell(*state, "cc -Wall -Wextra -O1 reader.c -o reader -llmdb"), 0);
	assert_int_equal(shell(*state, "test \"$(./reader state/current plain)\" = first"), 0);
	assert_int_equal(shell(*state, "test \"$(./reader state/current headers)\" = first"), 0);
	assert_int_not_equal(shell(*state, "./reader state/current none 2>/dev/null"), 0);
	assert_int_equal(shell(*state, "./reader state/current none 2>&1 | grep -q NOTFOUND"), 0);
	state_dir_close(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with_dir(test_the_python_of_the_contract_reads_a_state),
		test_with_dir(test_the_c_of_the_contract_reads_a_state),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
