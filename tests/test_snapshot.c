/* The verbs that read a snapshot, as a script sees them: output, messages, exit status. */
#include "cmd.h"
#include "harness.h"
#include "state.h"

#include <fcntl.h>

static char out[20000], told[2000]; /* of the last verb: stdout, stderr */

static void read_back(FILE *f, char *text, size_t size)
{
	rewind(f);
	text[fread(text, 1, size - 1, f)] = 0;
	fclose(f);
}

/* Call a verb with these words; `dir` stands for "-d" and itself unless it is NULL. */
static int verb(int (*run)(int, char **), const char *dir, const char *words)
{
	static char text[1000], name[] = "verb", d[] = "-d";
	char *argv[20] = { name }, *save = NULL;
	int argc = 1;
	if (dir) {
		argv[argc++] = d;
		argv[argc++] = (char *)dir;
	}
	snprintf(text, sizeof(text), "%s", words);
	for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;

	FILE *to[2] = { tmpfile(), tmpfile() };
	int real[2] = { dup(1), dup(2) };
	fflush(stdout);
	fflush(stderr);
	for (int i = 0; i < 2; i++)
		dup2(fileno(to[i]), i + 1);
	int status = run(argc, argv);
	fflush(stdout);
	fflush(stderr);
	for (int i = 0; i < 2; i++) {
		dup2(real[i], i + 1);
		close(real[i]);
	}
	read_back(to[0], out, sizeof(out));
	read_back(to[1], told, sizeof(told));
	return status;
}

static void put(struct state_txn *t, const char *key, const char *value, size_t len)
{
	uint8_t rec[1000], headers[64];
	struct record_header h = { "schema", 6, "\x01", 1 };
	struct record r = {
		.partition = 3, .offset = 41, .timestamp_ms = -1, .value = value, .value_len = len
	};
	if (*key == 'h') {
		r.flags = RECORD_HEADERS;
		r.headers = headers;
		r.headers_len = (size_t)(record_header_encode(headers, &h) - headers);
	}
	record_encode(rec, &r, key, strlen(key));
	assert_int_equal(state_put(t, key, strlen(key), rec, record_bytes(&r)), 0);
}

/* A snapshot with a few keys, and whether its sidecar says that it is ready. */
static void make_snapshot(const char *dir, const char *ready)
{
	char err[500];
	struct state_dir *d;
	struct state *st = NULL;
	struct state_txn *t;
	struct state_identity who = { "pipe", "c1", "users" };
	struct state_options o = { .lease_ms = 2000 };
	struct state_partition row = STATE_PARTITION_NEW;
	if (state_dir_open(&d, dir, err, sizeof(err)) ||
	    state_create(&st, d, &who, &o, err, sizeof(err)))
		fail_msg("%s", err);
	assert_int_equal(state_begin(st, &t), 0);
	put(t, "a", "{\"x\":\n1}", 8);
	put(t, "b\x01", "plain\ntext", 10);
	put(t, "bb", "\xff\\", 2);
	put(t, "header", "", 0);
	row.applied = 42;
	assert_int_equal(state_partition_set(t, 3, &row), 0);
	assert_int_equal(state_meta_set(t, "ready", ready), 0);
	assert_int_equal(state_meta_set(t, "role", "leader"), 0);
	assert_int_equal(state_commit(t), 0);
	if (state_make_current(st, err, sizeof(err)))
		fail_msg("%s", err);
	state_close(st);
	state_dir_close(d);
}

static void test_get_prints_one_value_as_it_is(void **state)
{
	make_snapshot(*state, "1");
	assert_int_equal(verb(cmd_get, *state, "b\\x01"), EXIT_DONE);
	assert_string_equal(out, "plain\ntext\n");
	assert_string_equal(told, "");
}

static void test_get_of_several_keys_prints_a_line_for_each_found(void **state)
{
	make_snapshot(*state, "1");
	assert_int_equal(verb(cmd_get, *state, "bb none b\\x01"), EXIT_DIFFERENT);
	assert_string_equal(out, "bb\t\\xff\\\nb\\x01\tplain\\x0atext\n");
	assert_non_null(strstr(told, "no such key: none"));
}

static void test_get_as_json_has_position_token_headers_and_value(void **state)
{
	make_snapshot(*state, "1");
	assert_int_equal(verb(cmd_get, *state, "--json a header b\\x01"), EXIT_DONE);
	assert_string_equal(
		out,
		"{\"key\":\"a\",\"partition\":3,\"offset\":41,\"token\":\"3:42\",\"value\":{\"x\": "
		"1}}\n"
		"{\"key\":\"header\",\"partition\":3,\"offset\":41,\"token\":\"3:42\",\"headers\":["
		"{\"name\":"
		"\"schema\",\"value\":\"AQ==\"}],\"value\":{\"sidenote.base64\":\"\"}}\n"
		"{\"key\":\"b\\\\x01\",\"partition\":3,\"offset\":41,\"token\":\"3:42\",\"value\":"
		"{\"sidenote.base64\":\"cGxhaW4KdGV4dA==\"}}\n");
}

static void test_get_waits_for_a_position_that_is_there(void **state)
{
	make_snapshot(*state, "1");
	assert_int_equal(verb(cmd_get, *state, "--after 3:42 a"), EXIT_DONE);
	assert_int_equal(verb(cmd_get, *state, "--after 3:x a"), EXIT_USAGE);
	assert_non_null(strstr(told, "'3:x' is not a token"));
}

static void test_scan_prints_keys_in_order_with_prefix_and_limit(void **state)
{
	make_snapshot(*state, "1");
	assert_int_equal(verb(cmd_scan, *state, ""), EXIT_DONE);
	assert_string_equal(out,
			    "a\t{\"x\":\\x0a1}\nb\\x01\tplain\\x0atext\nbb\t\\xff\\\nheader\t\n");
	assert_int_equal(verb(cmd_scan, *state, "--prefix b --limit 1"), EXIT_DONE);
	assert_string_equal(out, "b\\x01\tplain\\x0atext\n");
	assert_int_equal(verb(cmd_scan, *state, "--prefix b\\x01"), EXIT_DONE);
	assert_string_equal(out, "b\\x01\tplain\\x0atext\n");
	assert_int_equal(verb(cmd_scan, *state, "--prefix nothing"), EXIT_DONE);
	assert_string_equal(out, "");
	assert_int_equal(verb(cmd_scan, *state, "--limit 0"), EXIT_DONE);
	assert_string_equal(out, "");
}

static void test_stat_tells_in_its_status_whether_the_snapshot_is_ready(void **state)
{
	make_snapshot(*state, "1");
	assert_int_equal(verb(cmd_stat, *state, ""), EXIT_DONE);
	assert_non_null(strstr(out, "ready        yes\n"));
	assert_non_null(strstr(out, "token        3:42\n"));
	make_snapshot(*state, "0");
	assert_int_equal(verb(cmd_stat, *state, ""), EXIT_NOT_READY);
	assert_non_null(strstr(out, "ready        no\n"));
}

static void test_stat_as_json_has_what_scripts_rely_on(void **state)
{
	static const char *const parts[] = {
		"{\"ready\":true,\"role\":\"leader\",\"name\":\"pipe\",\"topic\":\"users\",",
		"\"cluster_id\":\"c1\",\"uuid\":\"",
		"\"generation\":1,\"keys\":4,\"bytes\":",
		",\"file_bytes\":",
		",\"journal\":{\"entries\":0,\"bytes\":0},\"lease_ms\":2000,\"heartbeat_age_ms\":",
		(",\"txnid\":2,\"partitions\":[{\"partition\":3,\"applied\":42,\"published\":null,"
		 "\"base\":0,\"start\":0,\"whole\":0,\"due\":null}],\"token\":\"3:42\"}\n"),
	};
	make_snapshot(*state, "1");
	assert_int_equal(verb(cmd_stat, *state, "--json"), EXIT_DONE);
	const char *at = out;
	for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
		at = strstr(at, parts[i]);
		if (!at)
			fail_msg("'%s' has no '%s'", out, parts[i]);
	}
}

static void test_wrong_usage_is_told_with_status_2(void **state)
{
	static const struct {
		int (*run)(int, char **);
		const char *words, *tells;
	} wrong[] = {
		{ cmd_get, "key", "-d DIR" },
		{ cmd_scan, "", "-d DIR" },
		{ cmd_stat, "", "-d DIR" },
		{ cmd_get, "-d x", "needs a key" },
		{ cmd_scan, "-d x y", "'y'" },
		{ cmd_stat, "-d x y", "too many" },
		{ cmd_scan, "-d x --limit 1x", "'1x'" },
		{ cmd_scan, "-d x --limit -1", "'-1'" },
		{ cmd_scan, "-d x --prefix \\q", "escaped" },
		{ cmd_get, "-d x --foo k", "foo" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		assert_int_equal(verb(wrong[i].run, NULL, wrong[i].words), EXIT_USAGE);
		if (!strstr(told, wrong[i].tells))
			fail_msg("'%s' does not tell '%s'", told, wrong[i].tells);
	}
}

static void test_a_missing_snapshot_is_status_3_and_a_damaged_one_4(void **state)
{
	int (*const verbs[])(int, char **) = { cmd_get, cmd_scan, cmd_stat };
	const char *words[] = { "k", "", "" };
	char path[300];
	for (int i = 0; i < 3; i++)
		assert_int_equal(verb(verbs[i], *state, words[i]), EXIT_NOT_READY);
	make_snapshot(*state, "1");
	snprintf(path, sizeof(path), "%s/current/data.mdb", (char *)*state);
	assert_int_equal(truncate(path, 5000), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(verb(verbs[i], *state, words[i]), EXIT_BROKEN);
		assert_non_null(strstr(told, *state));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with_dir(test_get_prints_one_value_as_it_is),
		test_with_dir(test_get_of_several_keys_prints_a_line_for_each_found),
		test_with_dir(test_get_as_json_has_position_token_headers_and_value),
		test_with_dir(test_get_waits_for_a_position_that_is_there),
		test_with_dir(test_scan_prints_keys_in_order_with_prefix_and_limit),
		test_with_dir(test_stat_tells_in_its_status_whether_the_snapshot_is_ready),
		test_with_dir(test_stat_as_json_has_what_scripts_rely_on),
		cmocka_unit_test(test_wrong_usage_is_told_with_status_2),
		test_with_dir(test_a_missing_snapshot_is_status_3_and_a_damaged_one_4),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
