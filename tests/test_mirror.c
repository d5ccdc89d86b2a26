#include "harness.h"
#include "config.h"
#include "mark.h"
#include "mirror.h"
#include "redis.h"

#include <fnmatch.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

static char err[500];

/* ---- where ---- */

static void assert_uri(const char *text, bool tls, const char *host, int port, const char *path,
		       int db)
{
	struct redis_uri u;

	if (redis_uri_parse(&u, text, err, sizeof(err)))
		fail_msg("%s: %s", text, err);
	assert_int_equal(u.tls, tls);
	assert_string_equal(u.host, host);
	assert_int_equal(u.port, port);
	assert_string_equal(u.path, path);
	assert_int_equal(u.db, db);
}

static void test_every_form_of_an_address_is_understood(void **state)
{
	(void)state;
	assert_uri("redis://cache", false, "cache", 6379, "", 0);
	assert_uri("redis://cache/", false, "cache", 6379, "", 0);
	assert_uri("redis://10.0.0.1:7000", false, "10.0.0.1", 7000, "", 0);
	assert_uri("redis://cache.example:1/15", false, "cache.example", 1, "", 15);
	assert_uri("redis://[::1]:7000/2", false, "::1", 7000, "", 2);
	assert_uri("redis://[fe80::1]", false, "fe80::1", 6379, "", 0);
	assert_uri("rediss://cache:6380", true, "cache", 6380, "", 0);
	assert_uri("unix:/run/redis.sock", false, "", 0, "/run/redis.sock", 0);
	assert_uri("unix:///run/redis.sock?db=3", false, "", 0, "/run/redis.sock", 3);
}

static void test_what_is_no_address_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"cache",
		"http://cache",
		"redis://",
		"redis://:6379",
		"redis://cache:",
		"redis://cache:0",
		"redis://cache:65536",
		"redis://cache:6x",
		"redis://c/x",
		"redis://c/-1",
		"redis://c/0/1",
		"redis://[::1",
		"redis://[::1]6",
		"unix:relative",
		"unix:",
		"unix:/a?db=",
		"unix:/a?other=1",
		"redis://u:p@c",
		"rediss://u@c",
		"redis://c:999999",
		"unix://host/a",
		"redis://c/10000000",
		"redis:cache",
	};
	struct redis_uri u;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (redis_uri_parse(&u, bad[i], err, sizeof(err)) != -EINVAL)
			fail_msg("%s was taken", bad[i]);
}

static void test_a_password_in_an_address_is_not_repeated(void **state)
{
	struct redis_uri u;

	(void)state;
	assert_int_equal(redis_uri_parse(&u, "redis://u:hunter2@c", err, sizeof(err)), -EINVAL);
	assert_null(strstr(err, "hunter2"));
	assert_int_equal(redis_uri_parse(&u, "reds://u:hunter2@c", err, sizeof(err)), -EINVAL);
	assert_null(strstr(err, "hunter2"));
}

static void test_options_that_contradict_each_other_are_refused(void **state)
{
	struct redis_options o = { .uri = "redis://c", .user = "u" };

	(void)state;
	assert_int_equal(redis_check(&o, err, sizeof(err)), -EINVAL);
	o = (struct redis_options){ .uri = "rediss://c", .tls_cert = "c" };
	assert_int_equal(redis_check(&o, err, sizeof(err)), -EINVAL);
	o = (struct redis_options){ .uri = "redis://c", .tls_ca = "c" };
	assert_int_equal(redis_check(&o, err, sizeof(err)), -EINVAL);
	o = (struct redis_options){ .uri = "redis://c", .user = "", .tls_ca = "" };
	assert_int_equal(redis_check(&o, err, sizeof(err)), 0);
}

static void test_a_password_comes_from_a_file_that_others_cannot_read(void **state)
{
	char *path = make_file(*state, "secret", 0644, "s\n", 2);
	struct redis_options o = { .uri = "redis://c", .password_file = path };

	assert_int_equal(redis_check(&o, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "readable by others"));
	assert_int_equal(chmod(path, 0600), 0);
	assert_int_equal(redis_check(&o, err, sizeof(err)), 0);
	free(path);
	o.password_file = "/no/such/file";
	assert_int_not_equal(redis_check(&o, err, sizeof(err)), 0);
}

static void test_a_pattern_matches_the_prefix_and_nothing_else(void **state)
{
	static const char *const prefixes[] = { "",    "users:", "u*",  "[a-z]",
						"a?b", "a\\b",   "a\\", "^a" };
	static const char *const keys[] = { "users:1", "u*1",   "ux1", "[a-z]1", "b1",    "a?b1",
					    "axb1",    "a\\b1", "a\\", "^a",     "users", "" };
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++) {
		char *pattern = redis_pattern(prefixes[i], strlen(prefixes[i]), &len);
		assert_int_equal(strlen(pattern), len);
		for (size_t k = 0; k < sizeof(keys) / sizeof(*keys); k++) {
			bool begins = !strncmp(keys[k], prefixes[i], strlen(prefixes[i]));
			if (!fnmatch(pattern, keys[k], 0) != begins)
				fail_msg("pattern %s and key %s", pattern, keys[k]);
		}
		free(pattern);
	}
}

/* ---- the mark ---- */

static const struct mark_self self = {
	.name = "n", .cluster = "c", .topic = "t", .prefix = "t:", .partitions = 2
};

static void take(struct mark *m, const char *field, const char *value)
{
	mark_take(m, field, value, strlen(value));
}

static void make_mark(struct mark *m)
{
	assert_int_equal(mark_init(m, 2), 0);
	take(m, "format", "1");
	take(m, "cluster", "c");
	take(m, "topic", "t");
	take(m, "prefix", "t:");
	take(m, "partitions", "2");
	take(m, "epoch", "7");
	take(m, "p0", "100");
	take(m, "t0", "5000:99");
	take(m, "p1", "200");
}

static enum mark_verdict decide(const struct mark *m, bool adopt)
{
	struct mark_self s = self;

	s.adopt = adopt;
	return mark_decide(m, &s, err, sizeof(err));
}

static void test_a_mark_is_read_back_field_by_field(void **state)
{
	struct state_anchor a = { 99, 1234567, 0xfedcba9876543210 };
	char text[MARK_ANCHOR_MAX];
	struct mark m;

	(void)state;
	make_mark(&m);
	mark_anchor_format(&a, text);
	take(&m, "a0", text);
	take(&m, "by", "uuid");
	take(&m, "seq", "7.12");
	assert_true(m.there);
	assert_int_equal(m.epoch, 7);
	assert_int_equal(m.part[0].offset, 100);
	assert_int_equal(m.part[0].caught_ms, 5000);
	assert_int_equal(m.part[0].caught_at, 99);
	assert_memory_equal(&m.part[0].anchor, &a, sizeof(a));
	assert_int_equal(m.part[1].caught_ms, 0);
	assert_int_equal(m.part[1].anchor.offset, -1);
	assert_string_equal(m.seq, "7.12");
	assert_int_equal(decide(&m, false), MARK_CONTINUE);
	mark_free(&m);
}

static void test_the_largest_anchor_fits(void **state)
{
	struct state_anchor a = { INT64_MAX, INT64_MIN, UINT64_MAX };
	char text[MARK_ANCHOR_MAX];
	struct mark m;

	(void)state;
	make_mark(&m);
	mark_anchor_format(&a, text);
	take(&m, "a1", text);
	assert_memory_equal(&m.part[1].anchor, &a, sizeof(a));
	mark_free(&m);
}

static void test_fields_that_make_no_sense_count_as_missing(void **state)
{
	static const char *const fields[][2] = { { "p9999999999999", "1" },
						 { "p-1", "1" },
						 { "p2", "1" },
						 { "p0", "x" },
						 { "p0", "-5" },
						 { "t0", "1" },
						 { "a0", "1:2" },
						 { "p", "1" },
						 { "partitions", "x" },
						 { "", "" },
						 { "epoch", "99999999999999999999" } };
	char long_text[2000];
	struct mark m;

	(void)state;
	make_mark(&m);
	memset(long_text, 'x', sizeof(long_text));
	long_text[sizeof(long_text) - 1] = '\0';
	take(&m, "topic", long_text);
	mark_take(&m, "cluster", "c\0d", 3);
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
		take(&m, fields[i][0], fields[i][1]);
	assert_int_equal(m.epoch, 7);
	assert_int_equal(decide(&m, false), MARK_CONTINUE);
	take(&m, "resync", long_text);
	assert_int_equal(decide(&m, false), MARK_RESYNC);
	mark_free(&m);
}

static void test_no_mark_means_that_nothing_is_known(void **state)
{
	struct mark m;

	(void)state;
	assert_int_equal(mark_init(&m, 2), 0);
	assert_int_equal(decide(&m, false), MARK_NEW);
	mark_free(&m);
}

static void test_another_topics_or_clusters_mark_is_foreign_unless_adopted(void **state)
{
	struct mark m;

	(void)state;
	make_mark(&m);
	take(&m, "topic", "other");
	assert_int_equal(decide(&m, false), MARK_FOREIGN);
	assert_int_equal(decide(&m, true), MARK_RESYNC);
	mark_free(&m);
	make_mark(&m);
	take(&m, "cluster", "other");
	assert_int_equal(decide(&m, false), MARK_FOREIGN);
	mark_free(&m);
}

static void test_a_hash_without_a_format_is_not_taken_for_a_mark(void **state)
{
	struct mark m;

	(void)state;
	assert_int_equal(mark_init(&m, 2), 0);
	take(&m, "name", "somebody's");
	assert_int_equal(decide(&m, false), MARK_FOREIGN);
	mark_free(&m);
}

static void test_a_mark_of_the_future_is_foreign_even_if_adopted(void **state)
{
	struct mark m;

	(void)state;
	make_mark(&m);
	take(&m, "format", "2");
	assert_int_equal(decide(&m, true), MARK_FOREIGN);
	mark_free(&m);
}

static void test_another_prefix_begins_as_new(void **state)
{
	struct mark m;

	(void)state;
	make_mark(&m);
	take(&m, "prefix", "old:");
	assert_int_equal(decide(&m, false), MARK_NEW);
	mark_free(&m);
}

static void test_positions_of_more_partitions_or_not_of_all_are_no_positions(void **state)
{
	struct mark m;

	(void)state;
	make_mark(&m);
	take(&m, "partitions", "3");
	assert_int_equal(decide(&m, false), MARK_RESYNC);
	take(&m, "partitions", "1"); /* one more now: it is new */
	assert_int_equal(decide(&m, false), MARK_CONTINUE);
	mark_free(&m);
	make_mark(&m);
	m.part[1].offset = -1;
	assert_int_equal(decide(&m, false), MARK_RESYNC);
	mark_free(&m);
}

static void test_a_resync_that_was_asked_for_needs_no_reason(void **state)
{
	struct mark m;

	(void)state;
	make_mark(&m);
	take(&m, "resync", "");
	assert_int_equal(decide(&m, false), MARK_RESYNC);
	assert_string_equal(err, "asked for");
	mark_free(&m);
}

/* ---- whose prefix ---- */

static enum prefix_verdict prefix_of(const char *prefix, const char *owner)
{
	return mark_prefix(&self, prefix, strlen(prefix), owner, strlen(owner));
}

static void test_a_prefix_belongs_to_one_pipeline_of_one_cluster(void **state)
{
	(void)state;
	assert_int_equal(prefix_of("t:", "n c"), PREFIX_OURS);
	assert_int_equal(prefix_of("old:", "n c"), PREFIX_OURS_BEFORE);
	assert_int_equal(prefix_of("t:x", "n c"), PREFIX_OURS_BEFORE);
	assert_int_equal(prefix_of("t:", "m c"), PREFIX_TAKEN);
	assert_int_equal(prefix_of("t:", "n d"), PREFIX_TAKEN);
	assert_int_equal(prefix_of("t:", "n c "), PREFIX_TAKEN);
}

static void test_prefixes_that_begin_with_one_another_overlap(void **state)
{
	(void)state;
	assert_int_equal(prefix_of("t", "m c"), PREFIX_OVERLAPS);
	assert_int_equal(prefix_of("t:x", "m c"), PREFIX_OVERLAPS);
	assert_int_equal(prefix_of("", "m c"), PREFIX_OVERLAPS);
	assert_int_equal(prefix_of("u:", "m c"), PREFIX_UNRELATED);
	assert_int_equal(prefix_of("tt:", "m c"), PREFIX_UNRELATED);
}

static void test_no_data_key_can_be_a_key_of_the_mirror(void **state)
{
	(void)state;
	assert_true(mark_prefix_allowed(""));
	assert_true(mark_prefix_allowed("users:"));
	assert_true(mark_prefix_allowed("sidenotes:"));
	assert_false(mark_prefix_allowed("s"));
	assert_false(mark_prefix_allowed("sidenote"));
	assert_false(mark_prefix_allowed("sidenote:"));
	assert_false(mark_prefix_allowed("sidenote:users:"));
	assert_true(mark_reserves("", "sidenote:n", 10));
	assert_true(mark_reserves("", "sidenote:", 9));
	assert_false(mark_reserves("", "sidenote", 8));
	assert_false(mark_reserves("x", "sidenote:n", 10));
}

/* ---- options ---- */

static int check(const char *const *options)
{
	struct config c;
	int rc = 0;

	config_init(&c);
	config_set(&c, "name", "n", err, sizeof(err));
	config_set(&c, "source.topic", "users", err, sizeof(err));
	config_set(&c, "state.dir", "/s", err, sizeof(err));
	config_set(&c, "kafka.bootstrap.servers", "b:1", err, sizeof(err));
	for (; *options && !rc; options += 2)
		rc = config_set(&c, options[0], options[1], err, sizeof(err));
	if (!rc)
		rc = config_check(&c, err, sizeof(err));
	if (!rc)
		rc = mirror_check(&c, err, sizeof(err));
	if (!rc)
		snprintf(err, sizeof(err), "%s", c.redis_prefix);
	config_free(&c);
	return rc;
}
#define OPTIONS(...) ((const char *const[]){ __VA_ARGS__, NULL, NULL })

static void test_the_prefix_is_the_topic_unless_it_is_set(void **state)
{
	(void)state;
	assert_int_equal(check(OPTIONS("redis.uri", "redis://c")), 0);
	assert_string_equal(err, "users:");
	assert_int_equal(check(OPTIONS("redis.uri", "redis://c", "redis.prefix", "")), 0);
	assert_string_equal(err, "");
	assert_int_equal(check(OPTIONS("redis.uri", "")), 0);
}

static void test_a_prefix_that_takes_the_mirrors_own_keys_is_refused(void **state)
{
	char long_prefix[MARK_PREFIX_MAX + 2];

	(void)state;
	assert_int_equal(check(OPTIONS("redis.uri", "redis://c", "redis.prefix", "side")), -EINVAL);
	memset(long_prefix, 'x', sizeof(long_prefix) - 1);
	long_prefix[sizeof(long_prefix) - 1] = '\0';
	assert_int_equal(check(OPTIONS("redis.uri", "redis://c", "redis.prefix", long_prefix)),
			 -EINVAL);
}

static void test_a_password_is_no_option(void **state)
{
	(void)state;
	assert_int_equal(check(OPTIONS("redis.password", "hunter2")), -EINVAL);
	assert_null(strstr(err, "hunter2"));
}

/* ---- a connection: a server that says what it is told to ---- */

struct server {
	char path[100];
	const char *says;
	int listener, client;
	int drip_ms; /* a byte at a time */
	bool closes;
	atomic_bool done;
	pthread_t thread;
};

static void *serve(void *arg)
{
	struct server *s = arg;
	char buf[4096];

	s->client = accept(s->listener, NULL, NULL);
	if (s->client < 0 || read(s->client, buf, sizeof(buf)) <= 0)
		return NULL;
	for (size_t i = 0, n; s->says[i] && !atomic_load(&s->done); i += n) {
		n = s->drip_ms ? 1 : strlen(s->says);
		if (write(s->client, s->says + i, n) < 0)
			break;
		usleep((useconds_t)s->drip_ms * 1000);
	}
	if (s->closes)
		shutdown(s->client, SHUT_RDWR);
	return NULL;
}

static void start(struct server *s, const char *dir, struct redis_options *o, char uri[120])
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	snprintf(s->path, sizeof(s->path), "%s/socket", dir);
	memcpy(a.sun_path, s->path, sizeof(s->path));
	s->client = -1;
	s->listener = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(s->listener, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(s->listener, 5), 0);
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
	snprintf(uri, 120, "unix:%s", s->path);
	*o = (struct redis_options){ .uri = uri };
}

static void finish(struct server *s)
{
	atomic_store(&s->done, true);
	shutdown(s->listener, SHUT_RDWR);
	pthread_join(s->thread, NULL);
	close(s->client);
	close(s->listener);
}

static int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static void test_answers_come_in_the_order_of_the_commands(void **state)
{
	struct server s = { .says = "+OK\r\n:42\r\n$-1\r\n*3\r\n$1\r\nx\r\n$-1\r\n-ERR no\r\n" };
	struct redis_options o;
	struct redis_answer a, e;
	struct redis *r;
	char uri[120];

	start(&s, *state, &o, uri);
	assert_int_equal(redis_open(&r, &o, NULL, err, sizeof(err)), 0);
	for (int i = 0; i < 4; i++)
		redis_words(r, "PING", NULL);
	assert_int_equal(redis_next(r, &a), 0);
	assert_true(redis_is(&a, "OK"));
	assert_int_equal(redis_next(r, &a), 0);
	assert_int_equal(a.kind, REDIS_NUMBER);
	assert_int_equal(a.number, 42);
	assert_int_equal(redis_next(r, &a), 0);
	assert_int_equal(a.kind, REDIS_NOTHING);
	assert_int_equal(redis_next(r, &a), 0);
	assert_int_equal(a.kind, REDIS_LIST);
	assert_int_equal(a.n, 3);
	e = redis_at(&a, 0);
	assert_true(redis_is(&e, "x"));
	e = redis_at(&a, 2);
	assert_int_equal(e.kind, REDIS_FAULT);
	assert_true(redis_is(&e, "ERR"));
	assert_false(redis_is(&e, "ERRO"));
	e = redis_at(&a, 3);
	assert_int_equal(e.kind, REDIS_NOTHING);
	redis_close(r);
	finish(&s);
}

static void test_a_server_that_hangs_up_is_an_error_once_and_for_all(void **state)
{
	struct server s = { .says = "+OK\r\n$10\r\nabc", .closes = true };
	struct redis_options o;
	struct redis_answer a;
	struct redis *r;
	char uri[120];

	start(&s, *state, &o, uri);
	assert_int_equal(redis_open(&r, &o, NULL, err, sizeof(err)), 0);
	redis_words(r, "GET", "k", NULL);
	redis_words(r, "GET", "k", NULL);
	assert_int_equal(redis_next(r, &a), 0);
	assert_int_equal(redis_next(r, &a), -EIO);
	redis_words(r, "GET", "k", NULL);
	assert_int_equal(redis_next(r, &a), -EIO);
	assert_true(*redis_error(r));
	redis_close(r);
	finish(&s);
}

static void test_what_is_not_redis_is_an_error(void **state)
{
	struct server s = { .says = "HTTP/1.1 400 Bad Request\r\n\r\n" };
	struct redis_options o;
	struct redis_answer a;
	struct redis *r;
	char uri[120];

	start(&s, *state, &o, uri);
	assert_int_equal(redis_open(&r, &o, NULL, err, sizeof(err)), 0);
	redis_words(r, "PING", NULL);
	assert_int_equal(redis_next(r, &a), -EIO);
	redis_close(r);
	finish(&s);
}

struct stopper {
	atomic_bool stop;
	int after_ms;
};

static void *stop_later(void *arg)
{
	struct stopper *s = arg;

	usleep((useconds_t)s->after_ms * 1000);
	atomic_store(&s->stop, true);
	return NULL;
}

static void assert_stops(struct server *s, const char *dir)
{
	struct stopper stopper = { .after_ms = 200 };
	struct redis_options o;
	struct redis_answer a;
	struct redis *r;
	pthread_t t;
	char uri[120];

	start(s, dir, &o, uri);
	assert_int_equal(redis_open(&r, &o, &stopper.stop, err, sizeof(err)), 0);
	int64_t began = now_ms();
	assert_int_equal(pthread_create(&t, NULL, stop_later, &stopper), 0);
	redis_words(r, "PING", NULL);
	assert_int_equal(redis_next(r, &a), -ECANCELED);
	assert_in_range(now_ms() - began, 150, 1500);
	pthread_join(t, NULL);
	redis_close(r);
	finish(s);
}

static void test_a_server_that_says_nothing_cannot_hold_up_a_stop(void **state)
{
	struct server s = { .says = "" };

	assert_stops(&s, *state);
}

static void test_a_server_that_drips_cannot_hold_up_a_stop(void **state)
{
	struct server s = { .says = "$1000\r\n0123456789012345678901234567890123456789"
				    "0123456789012345678901234567890123456789"
				    "0123456789012345678901234567890123456789",
			    .drip_ms = 10 };

	assert_stops(&s, *state);
}

static void test_nobody_listening_is_an_error_with_the_address(void **state)
{
	struct redis_options o = { .uri = "redis://127.0.0.1:1" };
	struct redis *r;

	(void)state;
	assert_int_not_equal(redis_open(&r, &o, NULL, err, sizeof(err)), 0);
	assert_non_null(strstr(err, "redis://127.0.0.1:1: "));
}

static void test_a_name_that_is_none_is_an_error(void **state)
{
	struct redis_options o = { .uri = "redis://no.such.host.invalid" };
	struct redis *r;

	(void)state;
	assert_int_not_equal(redis_open(&r, &o, NULL, err, sizeof(err)), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_form_of_an_address_is_understood),
		cmocka_unit_test(test_what_is_no_address_is_refused),
		cmocka_unit_test(test_a_password_in_an_address_is_not_repeated),
		cmocka_unit_test(test_options_that_contradict_each_other_are_refused),
		test_with_dir(test_a_password_comes_from_a_file_that_others_cannot_read),
		cmocka_unit_test(test_a_pattern_matches_the_prefix_and_nothing_else),
		cmocka_unit_test(test_a_mark_is_read_back_field_by_field),
		cmocka_unit_test(test_the_largest_anchor_fits),
		cmocka_unit_test(test_fields_that_make_no_sense_count_as_missing),
		cmocka_unit_test(test_no_mark_means_that_nothing_is_known),
		cmocka_unit_test(test_another_topics_or_clusters_mark_is_foreign_unless_adopted),
		cmocka_unit_test(test_a_hash_without_a_format_is_not_taken_for_a_mark),
		cmocka_unit_test(test_a_mark_of_the_future_is_foreign_even_if_adopted),
		cmocka_unit_test(test_another_prefix_begins_as_new),
		cmocka_unit_test(test_positions_of_more_partitions_or_not_of_all_are_no_positions),
		cmocka_unit_test(test_a_resync_that_was_asked_for_needs_no_reason),
		cmocka_unit_test(test_a_prefix_belongs_to_one_pipeline_of_one_cluster),
		cmocka_unit_test(test_prefixes_that_begin_with_one_another_overlap),
		cmocka_unit_test(test_no_data_key_can_be_a_key_of_the_mirror),
		cmocka_unit_test(test_the_prefix_is_the_topic_unless_it_is_set),
		cmocka_unit_test(test_a_prefix_that_takes_the_mirrors_own_keys_is_refused),
		cmocka_unit_test(test_a_password_is_no_option),
		test_with_dir(test_answers_come_in_the_order_of_the_commands),
		test_with_dir(test_a_server_that_hangs_up_is_an_error_once_and_for_all),
		test_with_dir(test_what_is_not_redis_is_an_error),
		test_with_dir(test_a_server_that_says_nothing_cannot_hold_up_a_stop),
		test_with_dir(test_a_server_that_drips_cannot_hold_up_a_stop),
		cmocka_unit_test(test_nobody_listening_is_an_error_with_the_address),
		cmocka_unit_test(test_a_name_that_is_none_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
