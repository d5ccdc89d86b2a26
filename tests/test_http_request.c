#include "harness.h"

#include "http_listen.h"
#include "http_request.h"

static int parse(struct http_request *r, const char *target)
{
	return http_request_parse(r, target, strlen(target));
}

static void assert_text(struct http_text t, const char *bytes, size_t len)
{
	assert_non_null(t.p);
	assert_int_equal(t.len, len);
	assert_memory_equal(t.p, bytes, len);
	assert_int_equal(t.p[t.len], '\0');
}

/* ---- targets ---- */

static void test_a_key_may_hold_any_byte(void **state)
{
	struct http_request r;

	(void)state;
	assert_int_equal(parse(&r, "/v1/keys/%00a%2F/%ff+%25%5C"), 0);
	assert_text(http_request_behind(&r, "/v1/keys/"), "\0a//\xff+%\\", 8);
	http_request_free(&r);
}

static void test_the_empty_key_is_a_key(void **state)
{
	struct http_request r;

	(void)state;
	assert_int_equal(parse(&r, "/v1/keys/"), 0);
	assert_text(http_request_behind(&r, "/v1/keys/"), "", 0);
	http_request_free(&r);
	assert_int_equal(parse(&r, "/v1/keys"), 0);
	assert_null(http_request_behind(&r, "/v1/keys/").p);
	http_request_free(&r);
}

static void test_parameters_are_decoded_once_and_found_by_name(void **state)
{
	struct http_request r;

	(void)state;
	assert_int_equal(parse(&r, "/?a=1%2526&&b=x+y%2B&c&d=%3d=&a=2"), 0);
	assert_int_equal(r.n, 5);
	assert_text(http_request_get(&r, "a"), "1%26", 4);
	assert_text(http_request_get(&r, "b"), "x y+", 4);
	assert_text(http_request_get(&r, "c"), "", 0);
	assert_text(http_request_get(&r, "d"), "==", 2);
	assert_null(http_request_get(&r, "e").p);
	assert_true(http_request_knows(&r, (const char *const[]){ "d", "c", "b", "a", NULL }));
	assert_false(http_request_knows(&r, (const char *const[]){ "a", "b", "c", NULL }));
	http_request_free(&r);
}

static void test_what_is_no_target_is_refused(void **state)
{
	static const char *const bad[] = { "",
					   "*",
					   "v1/keys",
					   "http://x/",
					   "/%",
					   "/%4",
					   "/%zz",
					   "/?a=%",
					   "/?%1=2",
					   "/a b",
					   "/\x01",
					   "/caf\xc3\xa9",
					   "/?1&2&3&4&5&6&7&8&9" };
	struct http_request r;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		if (parse(&r, bad[i]) != 400)
			fail_msg("'%s' was accepted", bad[i]);
		http_request_free(&r);
	}
	assert_int_equal(parse(&r, "/?1&2&3&4&5&6&7&8"), 0);
	http_request_free(&r);
}

static void test_a_target_has_a_longest(void **state)
{
	char *target = malloc(HTTP_URI_MAX + 2);
	struct http_request r;

	(void)state;
	memset(target, 'x', HTTP_URI_MAX + 1);
	target[0] = '/';
	assert_int_equal(http_request_parse(&r, target, HTTP_URI_MAX), 0);
	http_request_free(&r);
	assert_int_equal(http_request_parse(&r, target, HTTP_URI_MAX + 1), 414);
	http_request_free(&r);
	free(target);
}

static void test_numbers_have_a_range(void **state)
{
	static const struct {
		const char *target;
		bool ok;
		int64_t n;
	} cases[] = {
		{ "/", true, 100 },
		{ "/?limit=1", true, 1 },
		{ "/?limit=1000", true, 1000 },
		{ "/?limit=0007", true, 7 },
		{ "/?limit=0", false, 0 },
		{ "/?limit=1001", false, 0 },
		{ "/?limit=", false, 0 },
		{ "/?limit", false, 0 },
		{ "/?limit=-1", false, 0 },
		{ "/?limit=+5", false, 0 },
		{ "/?limit=5%00", false, 0 },
		{ "/?limit=0x10", false, 0 },
		{ "/?limit=99999999999999999999999", false, 0 },
		{ "/?limit=5&limit=x", true, 5 },
	};
	struct http_request r;
	int64_t n;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_int_equal(parse(&r, cases[i].target), 0);
		bool ok = http_request_number(&r, "limit", 1, 1000, 100, &n);
		if (ok != cases[i].ok || (ok && n != cases[i].n))
			fail_msg("%s: %d, %lld", cases[i].target, ok, (long long)n);
		http_request_free(&r);
	}
}

static void test_what_was_escaped_is_read_back(void **state)
{
	unsigned char all[256];
	char target[3 * 256 + 20] = "/v1/keys/";
	struct http_request r;

	(void)state;
	for (int i = 0; i < 256; i++)
		all[i] = (unsigned char)i;
	char *end = http_escape(target + strlen(target), all, sizeof(all));
	assert_int_equal(http_request_parse(&r, target, (size_t)(end - target)), 0);
	assert_text(http_request_behind(&r, "/v1/keys/"), (char *)all, sizeof(all));
	http_request_free(&r);
	/* and stands in JSON and HTML as it is */
	assert_null(memchr(target, '"', (size_t)(end - target)));
	assert_null(memchr(target, '<', (size_t)(end - target)));
	assert_null(memchr(target, '\\', (size_t)(end - target)));
}

/* ---- hosts ---- */

static void test_only_this_host_is_local(void **state)
{
	static const char *const local[] = { "localhost",      "LOCALHOST:80", "127.0.0.1",
					     "127.0.0.1:8080", "127.1.2.3",    "[::1]",
					     "[::1]:8080" };
	static const char *const foreign[] = { "",
					       "example.com",
					       "localhost.example.com",
					       "127.0.0.1.example.com",
					       "127.0.0.1@example.com",
					       "localhost:80@example.com",
					       "[::1",
					       "[",
					       "[]",
					       "[::1]x",
					       "[::1]:80x",
					       "::1",
					       "10.0.0.1",
					       "[fe80::1]",
					       "[::ffff:127.0.0.1]",
					       "0.0.0.0",
					       "127.0.0.1:80 ",
					       "2130706433" };

	(void)state;
	assert_true(http_host_is_local(NULL));
	for (size_t i = 0; i < sizeof(local) / sizeof(*local); i++)
		if (!http_host_is_local(local[i]))
			fail_msg("%s is local", local[i]);
	for (size_t i = 0; i < sizeof(foreign) / sizeof(*foreign); i++)
		if (http_host_is_local(foreign[i]))
			fail_msg("'%s' is not local", foreign[i]);
}

/* ---- addresses ---- */

static void test_an_address_says_who_can_connect(void **state)
{
	static const struct {
		const char *text, *printed;
		bool local, loopback;
	} cases[] = {
		{ "127.0.0.1:8080", NULL, true, true },
		{ "127.3.2.1:1", NULL, true, true },
		{ "localhost:8080", "127.0.0.1:8080", true, true },
		{ "[::1]:8080", NULL, true, true },
		{ "0.0.0.0:8080", NULL, false, false },
		{ "10.1.2.3:65535", NULL, false, false },
		{ "[::]:0", NULL, false, false },
		{ "[::ffff:127.0.0.1]:80", NULL, false, false },
		{ "unix:/run/sidenote.sock", NULL, true, false },
	};
	char err[300], text[HTTP_LISTEN_TEXT];
	struct http_listen l;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_int_equal(http_listen_parse(&l, cases[i].text, err, sizeof(err)), 0);
		assert_int_equal(l.local, cases[i].local);
		assert_int_equal(l.loopback, cases[i].loopback);
		assert_string_equal(http_listen_text(&l, text),
				    cases[i].printed ? cases[i].printed : cases[i].text);
	}
}

static void test_what_is_no_address_is_refused_by_name(void **state)
{
	static const char *const bad[] = { "8080",
					   ":8080",
					   "127.0.0.1",
					   "127.0.0.1:",
					   "127.0.0.1:x",
					   "127.0.0.1:65536",
					   "127.0.0.1:-1",
					   "127.0.0.1:080000",
					   "example.com:80",
					   "::1:80",
					   "[::1:80",
					   "[::1]80",
					   "[]:80",
					   "127.0.0.1:80:80",
					   "unix:",
					   "unix:relative",
					   "/run/x.sock",
					   "http://127.0.0.1:80",
					   "1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:80" };
	char long_path[200], err[400];
	struct http_listen l;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		if (http_listen_parse(&l, bad[i], err, sizeof(err)) != -EINVAL)
			fail_msg("%s was accepted", bad[i]);
		assert_non_null(strstr(err, "http.listen"));
		assert_non_null(strstr(err, bad[i]));
	}
	memset(long_path, 'x', sizeof(long_path) - 1);
	memcpy(long_path, "unix:/", 6);
	long_path[sizeof(long_path) - 1] = '\0';
	assert_int_equal(http_listen_parse(&l, long_path, err, sizeof(err)), -EINVAL);
}

static void test_a_dead_socket_file_is_taken_over_and_a_live_one_is_not(void **state)
{
	char path[300], err[400];
	struct http_listen l, m;
	int first, second;
	struct stat st;

	snprintf(path, sizeof(path), "unix:%s/s", (char *)*state);
	assert_int_equal(http_listen_parse(&l, path, err, sizeof(err)), 0);
	m = l;
	assert_int_equal(http_listen_open(&l, &first, err, sizeof(err)), 0);
	assert_int_equal(stat(path + 5, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
	assert_int_equal(http_listen_open(&m, &second, err, sizeof(err)), -EADDRINUSE);
	assert_non_null(strstr(err, path));
	close(first); /* as if killed: the file stays */
	assert_int_equal(http_listen_open(&m, &second, err, sizeof(err)), 0);
	http_listen_close(&m, second);
	assert_int_equal(stat(path + 5, &st), -1);
}

static void test_a_file_that_is_no_socket_is_left_alone(void **state)
{
	char text[300], err[400], *path = make_file(*state, "s", 0600, "data", 4);
	struct http_listen l;
	struct stat st;
	int fd;

	snprintf(text, sizeof(text), "unix:%s", path);
	assert_int_equal(http_listen_parse(&l, text, err, sizeof(err)), 0);
	assert_int_equal(http_listen_open(&l, &fd, err, sizeof(err)), -EADDRINUSE);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 4);
	free(path);
}

static void test_port_0_is_a_free_one_that_is_told(void **state)
{
	char err[300], text[HTTP_LISTEN_TEXT];
	struct http_listen l;
	int fd;

	(void)state;
	assert_int_equal(http_listen_parse(&l, "127.0.0.1:0", err, sizeof(err)), 0);
	assert_int_equal(http_listen_open(&l, &fd, err, sizeof(err)), 0);
	assert_string_not_equal(http_listen_text(&l, text), "127.0.0.1:0");
	http_listen_close(&l, fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_key_may_hold_any_byte),
		cmocka_unit_test(test_the_empty_key_is_a_key),
		cmocka_unit_test(test_parameters_are_decoded_once_and_found_by_name),
		cmocka_unit_test(test_what_is_no_target_is_refused),
		cmocka_unit_test(test_a_target_has_a_longest),
		cmocka_unit_test(test_numbers_have_a_range),
		cmocka_unit_test(test_what_was_escaped_is_read_back),
		cmocka_unit_test(test_only_this_host_is_local),
		cmocka_unit_test(test_an_address_says_who_can_connect),
		cmocka_unit_test(test_what_is_no_address_is_refused_by_name),
		test_with_dir(test_a_dead_socket_file_is_taken_over_and_a_live_one_is_not),
		test_with_dir(test_a_file_that_is_no_socket_is_left_alone),
		cmocka_unit_test(test_port_0_is_a_free_one_that_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
