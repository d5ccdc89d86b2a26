/* What is answered on each path, over a real snapshot and without a server. */
#include "harness.h"

#include "escape.h"
#include "html.h"
#include "http_routes.h"
#include "json.h"
#include "metrics.h"
#include "recent.h"
#include "state.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

static char err[512];
static const struct state_identity who = { .name = "pipe", .cluster_id = "c1", .topic = "users" };

struct world {
	char dir[300];
	struct state_dir *d;
	struct state *st;
	struct state_txn *t;
	struct config config;
	struct http_site site;
	struct http_answer a;
	atomic_bool stop;
};
static struct world w;

static void open_state(void)
{
	struct state_options o = { .lease_ms = 100 };

	assert_int_equal(state_dir_open(&w.d, w.dir, err, sizeof(err)), 0);
	assert_int_equal(state_create(&w.st, w.d, &who, &o, err, sizeof(err)), 0);
	assert_int_equal(state_make_current(w.st, err, sizeof(err)), 0);
	for (int64_t ms; (ms = state_lease_wait_ms(w.st)) > 0;)
		usleep((useconds_t)ms * 1000);
}

static int begin(void **state)
{
	int rc = make_dir(state);

	memset(&w, 0, sizeof(w));
	metrics_reset();
	snprintf(w.dir, sizeof(w.dir), "%s", (char *)*state);
	config_init(&w.config);
	config_set(&w.config, "name", "pipe", err, sizeof(err));
	config_set(&w.config, "source.topic", "users", err, sizeof(err));
	config_set(&w.config, "notifications.topic", "users.changes", err, sizeof(err));
	config_set(&w.config, "state.dir", w.dir, err, sizeof(err));
	http_site_init(&w.site, &w.config);
	w.site.values = w.site.check_host = true;
	w.site.waits.max = 4;
	w.site.waits.stop = &w.stop;
	return rc;
}

static int end(void **state)
{
	http_answer_free(&w.a);
	http_site_free(&w.site);
	recent_forget();
	state_close(w.st);
	state_dir_close(w.d);
	config_free(&w.config);
	return remove_dir(state);
}

static void put_bytes(const void *key, size_t key_len, const void *value, size_t value_len)
{
	static uint8_t rec[9 << 20];
	uint8_t skey[KEY_STORED_MAX];
	size_t skey_len = record_stored_key(skey, key, key_len);
	struct record r = { .partition = 3,
			    .offset = 4711,
			    .timestamp_ms = 99,
			    .value = value,
			    .value_len = value_len };

	if (record_key_is_digest(key_len)) {
		r.flags |= RECORD_KEY;
		r.key = key;
		r.key_len = key_len;
	}
	record_encode(rec, &r, skey, skey_len);
	assert_int_equal(state_put(w.t, skey, skey_len, rec, record_bytes(&r)), 0);
}

static void put(const char *key, const char *value)
{
	put_bytes(key, strlen(key), value, strlen(value));
}

static void begin_write(void) { assert_int_equal(state_begin(w.st, &w.t), 0); }
static void end_write(void) { assert_int_equal(state_commit(w.t), 0); }

static void set_applied(int32_t p, int64_t offset)
{
	struct state_partition row = STATE_PARTITION_NEW;

	row.applied = offset;
	assert_int_equal(state_partition_set(w.t, p, &row), 0);
}

/* ---- asking ---- */

static int ask_with(const char *method, const char *target, const char *host, bool body)
{
	http_answer_free(&w.a);
	http_site_answer(&w.site,
			 &(struct http_ask){ .method = method,
					     .target = target,
					     .target_len = strlen(target),
					     .host = host,
					     .has_body = body },
			 &w.a);
	return w.a.status;
}
static int ask(const char *target) { return ask_with("GET", target, "localhost:80", false); }

static const char *header(const char *name)
{
	for (int i = 0; i < w.a.n; i++)
		if (!strcmp(w.a.headers[i].name, name))
			return w.a.headers[i].value;
	return "(none)";
}

static void assert_has(const char *part)
{
	if (!w.a.body || !strstr(w.a.body, part))
		fail_msg("no '%s' in: %s", part, w.a.body);
}
static void assert_has_no(const char *part)
{
	if (w.a.body && strstr(w.a.body, part))
		fail_msg("'%s' in: %s", part, w.a.body);
}

static void assert_body(const void *bytes, size_t len)
{
	assert_int_equal(w.a.len, len);
	assert_memory_equal(w.a.body, bytes, len);
}

/* ---- what a request must be ---- */

static void test_paths_that_are_not_there_and_methods_that_write_are_refused(void **state)
{
	static const char *const none[] = {
		"/v1",     "/v1/",           "/v2/keys", "/metrics/",
		"/livezz", "/../etc/passwd", "/v1/key",  "/favicon.ico"
	};
	static const char *const methods[] = { "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get" };

	(void)state;
	for (size_t i = 0; i < sizeof(none) / sizeof(*none); i++)
		assert_int_equal(ask(none[i]), 404);
	for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++) {
		assert_int_equal(ask_with(methods[i], "/livez", NULL, false), 405);
		assert_string_equal(header("Allow"), "GET, HEAD");
	}
	assert_int_equal(ask_with("HEAD", "/livez", NULL, false), 200);
	assert_int_equal(ask_with("GET", "/livez", NULL, true), 413);
	assert_int_equal(ask("/livez?%"), 400);
}

static void test_a_foreign_host_is_refused_on_loopback_alone(void **state)
{
	(void)state;
	assert_int_equal(ask_with("GET", "/livez", "evil.example", false), 421);
	assert_int_equal(ask_with("GET", "/v1/keys/a", "evil.example:80", false), 421);
	w.site.check_host = false;
	assert_int_equal(ask_with("GET", "/livez", "evil.example", false), 200);
}

static void test_keys_and_values_are_for_this_host_only(void **state)
{
	static const char *const values[] = { "/", "/?key=a", "/v1/keys", "/v1/keys/a",
					      "/v1/keys?prefix=a" };

	(void)state;
	open_state();
	begin_write();
	put("a", "secret-value");
	end_write();
	w.site.values = false;
	for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
		assert_int_equal(ask(values[i]), 403);
		assert_has_no("secret-value");
	}
	assert_int_equal(ask("/livez"), 200);
	assert_int_equal(ask("/metrics"), 200);
	assert_int_equal(ask("/readyz"), 503);
}

static void test_every_answer_has_the_headers_that_protect(void **state)
{
	static const char *const all[] = { "/", "/livez", "/metrics", "/v1/keys/x", "/none" };

	(void)state;
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		ask(all[i]);
		assert_string_equal(header("X-Content-Type-Options"), "nosniff");
		assert_string_equal(header("X-Frame-Options"), "DENY");
		assert_string_equal(header("Cache-Control"), "no-store");
		assert_non_null(strstr(header("Content-Security-Policy"), "default-src 'none'"));
		assert_non_null(
			strstr(header("Content-Security-Policy"), "frame-ancestors 'none'"));
		assert_null(strstr(header("Content-Security-Policy"), "unsafe"));
	}
}

/* ---- health ---- */

static void run_pipeline(struct pipeline *p, int n)
{
	assert_int_equal(pipeline_init(p, &w.config, n), 0);
	w.site.source.p = p;
}

static void test_live_needs_nothing(void **state)
{
	(void)state;
	assert_int_equal(ask("/livez"), 200); /* no pipeline, no snapshot */
	assert_body("ok\n", 3);
}

static void test_ready_needs_a_snapshot_that_has_caught_up_and_is_kept(void **state)
{
	struct pipeline p;

	(void)state;
	assert_int_equal(ask("/readyz?verbose"), 503);
	assert_has("[-] snapshot: ");
	assert_has("[-] running: connecting");
	open_state();
	begin_write();
	set_applied(0, 10);
	end_write();
	assert_int_equal(ask("/readyz"), 503);
	run_pipeline(&p, 1);
	assert_int_equal(ask("/readyz?verbose"), 503);
	assert_has("[+] snapshot: generation 1, 0 keys\n");
	assert_has("[-] caught-up: 0 of 1 partitions");
	p.caught_up = p.part[0].caught_up = true;
	pipeline_role(&p, "standby");
	assert_int_equal(ask("/readyz?verbose"), 200);
	assert_has("[ ] role: standby\nready\n");
	assert_int_equal(ask("/readyz"), 200);
	assert_body("ready\n", 6);
	pipeline_role(&p, "leader"); /* the same for both */
	assert_int_equal(ask("/readyz?verbose"), 200);
	pipeline_end(&p, OUTCOME_DONE, NULL, NULL);
	assert_int_equal(ask("/readyz"), 503);
	assert_has("not ready: running: it is about to end");
	w.site.source.p = NULL;
	pipeline_free(&p);
}

/* ---- one key ---- */

static void test_a_value_is_its_bytes_with_where_they_are_from(void **state)
{
	(void)state;
	open_state();
	begin_write();
	put("json", " {\"a\": 1}\n");
	put_bytes("\0/\xff", 3, "\0\1\2", 3);
	put("empty", "");
	put("array", "[1]");
	set_applied(0, 7);
	set_applied(3, 4712);
	end_write();

	assert_int_equal(ask("/v1/keys/json"), 200);
	assert_body(" {\"a\": 1}\n", 10);
	assert_string_equal(w.a.type, "application/json");
	assert_string_equal(header("X-Sidenote-Partition"), "3");
	assert_string_equal(header("X-Sidenote-Offset"), "4711");
	assert_string_equal(header("X-Sidenote-Timestamp"), "99");
	assert_string_equal(header("X-Sidenote-Token"), "0:7,3:4712");

	assert_int_equal(ask("/v1/keys/%00/%FF"), 200);
	assert_body("\0\1\2", 3);
	assert_string_equal(w.a.type, "application/octet-stream");
	assert_int_equal(ask("/v1/keys/empty"), 200);
	assert_int_equal(w.a.len, 0);
	assert_int_equal(ask("/v1/keys/array"), 200);
	assert_string_equal(w.a.type, "application/octet-stream");

	assert_int_equal(ask("/v1/keys/absent"), 404);
	assert_string_equal(header("X-Sidenote-Token"), "0:7,3:4712");
	assert_int_equal(ask("/v1/keys/"), 404); /* the empty key */
	assert_int_equal(ask("/v1/keys/json?afte=0:1"), 400);
	assert_int_equal(metrics_value(METRIC_LOOKUPS_FOUND), 4);
	assert_int_equal(metrics_value(METRIC_LOOKUPS_ABSENT), 2);
}

static void test_without_a_snapshot_there_is_no_answer_yet(void **state)
{
	(void)state;
	assert_int_equal(ask("/v1/keys/a"), 503);
	assert_string_equal(header("Retry-After"), "1");
	assert_int_equal(ask("/v1/keys"), 503);
	open_state();
	begin_write();
	put("a", "1");
	end_write();
	assert_int_equal(ask("/v1/keys/a"), 200);
}

static void test_a_token_that_was_reached_does_not_wait(void **state)
{
	(void)state;
	open_state();
	begin_write();
	put("a", "1");
	set_applied(0, 7);
	end_write();
	assert_int_equal(ask("/v1/keys/a?after=0:7"), 200);
	assert_int_equal(ask("/v1/keys/a?after=0%3A7&wait_ms=30000"), 200);
	assert_int_equal(ask("/v1/keys/a?after="), 200);
}

static void test_a_token_that_is_not_reached_says_what_is_missing(void **state)
{
	(void)state;
	open_state();
	begin_write();
	set_applied(0, 7);
	set_applied(1, 9);
	end_write();
	assert_int_equal(ask("/v1/keys/a?after=0:7,1:12,2:1"), 412);
	assert_string_equal(w.a.body, "{\"error\":\"the snapshot is not there yet\",\"missing\":["
				      "{\"partition\":1,\"wanted\":12,\"applied\":9},"
				      "{\"partition\":2,\"wanted\":1,\"applied\":null}]}\n");
	int64_t began_us = metrics_clock_us();
	assert_int_equal(ask("/v1/keys/a?after=0:8&wait_ms=120"), 503);
	assert_in_range(metrics_clock_us() - began_us, 120000, 5000000);
	assert_has("\"missing\":[{\"partition\":0,\"wanted\":8,\"applied\":7}]");
	assert_string_equal(header("Retry-After"), "1");
	assert_int_equal(ask("/v1/keys/a?after=nonsense"), 400);
	assert_int_equal(ask("/v1/keys/a?after=0:1%00x"), 400);
	assert_int_equal(ask("/v1/keys/a?after=0:8&wait_ms=30001"), 400);
	assert_int_equal(ask("/v1/keys/a?wait_ms=x"), 400);
}

static void *apply_soon(void *arg)
{
	(void)arg;
	usleep(60000);
	begin_write();
	put("a", "new");
	set_applied(0, 8);
	end_write();
	return NULL;
}

static void test_a_wait_ends_when_the_position_is_there(void **state)
{
	pthread_t t;

	(void)state;
	open_state();
	begin_write();
	put("a", "old");
	set_applied(0, 7);
	end_write();
	assert_int_equal(pthread_create(&t, NULL, apply_soon, NULL), 0);
	assert_int_equal(ask("/v1/keys/a?after=0:8&wait_ms=20000"), 200);
	assert_body("new", 3);
	pthread_join(t, NULL);
}

static void test_waits_end_with_the_sidecar_and_are_limited(void **state)
{
	(void)state;
	open_state();
	begin_write();
	set_applied(0, 7);
	end_write();
	atomic_store(&w.stop, true);
	int64_t began_us = metrics_clock_us();
	assert_int_equal(ask("/v1/keys/a?after=0:8&wait_ms=30000"), 503);
	assert_has("the sidecar stops");
	assert_true(metrics_clock_us() - began_us < 5000000);
	atomic_store(&w.stop, false);
	atomic_store(&w.site.waits.n, w.site.waits.max);
	assert_int_equal(ask("/v1/keys/a?after=0:8&wait_ms=30000"), 503);
	assert_has("too many");
	assert_int_equal(ask("/v1/keys/a?after=0:7&wait_ms=30000"), 404); /* need not wait */
}

static void test_a_token_of_very_many_partitions_becomes_that_of_the_record(void **state)
{
	(void)state;
	open_state();
	begin_write();
	put("a", "1");
	for (int p = 0; p < 2000; p++)
		set_applied(p, 1000000 + p);
	end_write();
	assert_int_equal(ask("/v1/keys/a"), 200);
	assert_string_equal(header("X-Sidenote-Token"), "3:1000003");
	assert_int_equal(ask("/v1/keys/absent"), 404);
	assert_string_equal(header("X-Sidenote-Token"), "(none)");
}

/* ---- lists ---- */

/* The escaped keys of the list at hand, joined by spaces; *next gets the way to the next. */
static char *listed(char *next, size_t size)
{
	static char text[1 << 20];
	char *at = w.a.body;

	assert_true(json_is_object(w.a.body, w.a.len));
	text[0] = '\0';
	while ((at = strstr(at, "\n{\"key\":\""))) {
		at += strlen("\n{\"key\":\"");
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%.*s",
			 *text ? " " : "", *at == '"' ? 7 : (int)strcspn(at, "\""),
			 *at == '"' ? "(empty)" : at);
	}
	at = strstr(w.a.body, "\n],\"next\":");
	assert_non_null(at);
	at += strlen("\n],\"next\":");
	*next = '\0';
	if (*at == '"')
		snprintf(next, size, "%.*s", (int)strcspn(at + 1, "\""), at + 1);
	return text;
}

static void test_a_list_has_keys_in_order_and_values_as_they_can_stand_in_json(void **state)
{
	char next[400];

	(void)state;
	open_state();
	begin_write();
	put("b", "{\"x\":\n1}");
	put("a/1", "text");
	put("a \"2\"", "{}");
	set_applied(3, 5000);
	end_write();
	assert_int_equal(ask("/v1/keys"), 200);
	assert_string_equal(w.a.type, "application/json");
	assert_string_equal(listed(next, sizeof(next)), "a%20%222%22 a%2F1 b");
	assert_string_equal(next, "");
	assert_has("{\"token\":\"3:5000\",\"keys\":[");
	assert_has("{\"key\":\"a%2F1\",\"partition\":3,\"offset\":4711,\"timestamp_ms\":99,"
		   "\"value\":{\"sidenote.base64\":\"dGV4dA==\"}}");
	assert_has("\"value\":{\"x\":\n1}}");
	assert_int_equal(ask("/v1/keys?prefix=a%2F"), 200);
	assert_string_equal(listed(next, sizeof(next)), "a%2F1");
	assert_int_equal(ask("/v1/keys?prefix=c"), 200);
	assert_string_equal(listed(next, sizeof(next)), "");
}

static void test_limits_of_a_list_are_from_1_to_1000(void **state)
{
	(void)state;
	open_state();
	assert_int_equal(ask("/v1/keys?limit=0"), 400);
	assert_int_equal(ask("/v1/keys?limit=1001"), 400);
	assert_int_equal(ask("/v1/keys?limit=x"), 400);
	assert_int_equal(ask("/v1/keys?limit=1000"), 200);
	assert_int_equal(ask("/v1/keys?limt=5"), 400);
	assert_int_equal(ask("/v1/keys?token=5"), 400);
}

static int by_stored(const void *a, const void *b)
{
	const struct http_text *x = a, *y = b;
	uint8_t sx[KEY_STORED_MAX], sy[KEY_STORED_MAX];
	size_t lx = record_stored_key(sx, x->p, x->len), ly = record_stored_key(sy, y->p, y->len);
	int order = memcmp(sx, sy, lx < ly ? lx : ly);

	return order ? order : lx < ly ? -1 : lx > ly;
}

/* All keys with `prefix`, `limit` at a time, are those that there are: each once, in order. */
static void assert_pages(const struct http_text *keys, int n, struct http_text prefix, int limit)
{
	static char wanted[1 << 20], seen[1 << 20], target[8000], next[8000];
	char *end = target + sprintf(target, "/v1/keys?limit=%d&prefix=", limit);

	*http_escape(end, prefix.p, prefix.len) = '\0';
	wanted[0] = seen[0] = '\0';
	for (int i = 0; i < n; i++) {
		if (keys[i].len < prefix.len || memcmp(keys[i].p, prefix.p, prefix.len))
			continue;
		char *at = wanted + strlen(wanted);
		*at++ = ' ';
		*http_escape(at, keys[i].p, keys[i].len) = '\0';
		if (!keys[i].len)
			strcpy(at, "(empty)");
	}
	for (int pages = 0; *target; pages++) {
		assert_true(pages < 2000);
		assert_int_equal(ask(target), 200);
		char *some = listed(next, sizeof(next));
		if (*some)
			sprintf(seen + strlen(seen), " %s", some);
		strcpy(target, next);
	}
	size_t same = 0;
	while (seen[same] && seen[same] == wanted[same])
		same++;
	if (seen[same] || wanted[same])
		fail_msg("limit %d, prefix of %zu: '%.60s' instead of '%.60s'", limit, prefix.len,
			 seen + same, wanted + same);
}

static void test_pages_of_a_list_have_every_key_once_whatever_the_keys_are(void **state)
{
	static char long_a[600], long_b[600], zeros[600];
	static const char *const plain[] = { "a",       "aa",     "aaa",     "ab",
					     "b",       "ba",     "user-1",  "user-10",
					     "user-11", "user-2", "user-20", "z" };
	struct http_text keys[64];
	int n = 0;

	(void)state;
	open_state();
	memset(long_a, 'a', sizeof(long_a));
	memset(long_b, 'a', sizeof(long_b));
	long_b[590] = 'b';
	for (size_t i = 0; i < sizeof(plain) / sizeof(*plain); i++)
		keys[n++] = (struct http_text){ plain[i], strlen(plain[i]) };
	keys[n++] = (struct http_text){ "", 0 };
	keys[n++] = (struct http_text){ "\0", 1 };
	keys[n++] = (struct http_text){ "\0\0", 2 };
	keys[n++] = (struct http_text){ "\0\1", 2 };
	keys[n++] = (struct http_text){ "\xff", 1 };
	keys[n++] = (struct http_text){ "\xff\xff", 2 };
	keys[n++] = (struct http_text){ "\xff\0", 2 };
	keys[n++] = (struct http_text){ "a\xff", 2 };
	keys[n++] = (struct http_text){ "a\xff\xff", 3 };
	keys[n++] = (struct http_text){ "a/b?c#d%e f+g&h=\"\\", 18 };
	keys[n++] = (struct http_text){ long_a, 478 };
	keys[n++] = (struct http_text){ long_a, 479 };
	keys[n++] = (struct http_text){ long_a, 480 }; /* from here on, stored by digest */
	keys[n++] = (struct http_text){ long_a, 481 };
	keys[n++] = (struct http_text){ long_a, 600 };
	keys[n++] = (struct http_text){ long_b, 600 };
	keys[n++] = (struct http_text){ zeros, 479 };
	keys[n++] = (struct http_text){ zeros, 500 };
	begin_write();
	for (int i = 0; i < n; i++)
		put_bytes(keys[i].p, keys[i].len, "{}", 2);
	end_write();
	qsort(keys, (size_t)n, sizeof(*keys), by_stored);

	for (int limit = 1; limit <= n + 1; limit += limit < 5 ? 1 : 7) {
		assert_pages(keys, n, (struct http_text){ "user-", 5 }, limit);
		assert_pages(keys, n, (struct http_text){ "a", 1 }, limit);
		assert_pages(keys, n, (struct http_text){ "\xff", 1 }, limit);
		assert_pages(keys, n, (struct http_text){ long_a, 479 }, limit);
		assert_pages(keys, n, (struct http_text){ long_b, 595 }, limit);
		assert_pages(keys, n, (struct http_text){ "\0", 1 }, limit);
		assert_pages(keys, n, (struct http_text){ "", 0 }, limit);
	}
}

static void test_a_page_begins_behind_any_bytes_also_if_no_key_has_them(void **state)
{
	char next[400];

	(void)state;
	open_state();
	begin_write();
	put("b", "{}");
	put("c", "{}");
	put("ca", "{}");
	put("d", "{}");
	end_write();
	assert_int_equal(ask("/v1/keys?after=bzz"), 200);
	assert_string_equal(listed(next, sizeof(next)), "c ca d");
	assert_int_equal(ask("/v1/keys?after=c&prefix=c"), 200);
	assert_string_equal(listed(next, sizeof(next)), "ca");
	assert_int_equal(ask("/v1/keys?after=a&prefix=c"), 200);
	assert_string_equal(listed(next, sizeof(next)), "c ca");
	assert_int_equal(ask("/v1/keys?after=d&prefix=c"), 200);
	assert_string_equal(listed(next, sizeof(next)), "");
	assert_int_equal(ask("/v1/keys?after=zzz"), 200);
	assert_string_equal(listed(next, sizeof(next)), "");
}

static void test_a_list_of_large_values_ends_early_and_goes_on(void **state)
{
	char *value = malloc(3 << 20), next[400];

	(void)state;
	open_state();
	memset(value, 'v', 3 << 20);
	begin_write();
	put_bytes("a", 1, value, 3 << 20);
	put_bytes("b", 1, value, 3 << 20);
	end_write();
	free(value);
	assert_int_equal(ask("/v1/keys"), 200);
	assert_true(w.a.len < 10 << 20);
	assert_string_equal(listed(next, sizeof(next)), "a");
	assert_string_equal(next, "/v1/keys?prefix=&limit=100&after=a");
	assert_int_equal(ask(next), 200);
	assert_string_equal(listed(next, sizeof(next)), "b");
}

/* ---- metrics and page ---- */

static void test_metrics_follow_the_pipeline_and_the_snapshot(void **state)
{
	struct pipeline p;

	(void)state;
	open_state();
	begin_write();
	put("a", "1");
	set_applied(0, 10);
	end_write();
	run_pipeline(&p, 1);
	metrics_partitions(1);
	p.part[0] = (struct standing){ .published = { 6, 0 }, .applied = 10, .caught_up = true };
	p.caught_up = true;
	metrics_set_at(METRIC_LOG_END_OFFSET, 0, 13);
	assert_int_equal(ask("/metrics"), 200);
	assert_string_equal(w.a.type, "text/plain; version=0.0.4; charset=utf-8");
	assert_has("\nsidenote_ready{name=\"pipe\"} 1\n");
	assert_has("\nsidenote_snapshot_keys{name=\"pipe\"} 1\n");
	assert_has("\nsidenote_consumer_lag_records{name=\"pipe\",partition=\"0\"} 3\n");
	assert_has("\nsidenote_publish_lag_records{name=\"pipe\",partition=\"0\"} 4\n");
	p.part[0].applied = 20; /* read on since the end was asked for: no lag, and a later end */
	assert_int_equal(ask("/metrics"), 200);
	assert_has("\nsidenote_consumer_lag_records{name=\"pipe\",partition=\"0\"} 0\n");
	assert_has("\nsidenote_consumer_lag_seconds{name=\"pipe\",partition=\"0\"} 0\n");
	assert_has("\nsidenote_log_end_offset{name=\"pipe\",partition=\"0\"} 20\n");
	w.site.source.p = NULL;
	pipeline_free(&p);
}

static void note(enum change_op op, const char *key, const char *before, const char *after)
{
	struct change c = {
		.partition = 1, .offset = 5, .op = op, .key = key, .key_len = strlen(key)
	};

	if (before) {
		c.has_before = true;
		c.before.value = before;
		c.before.value_len = strlen(before);
	}
	if (after) {
		c.has_after = true;
		c.after.value = after;
		c.after.value_len = strlen(after);
	}
	recent_add(&c, "log", 1000);
}

static void test_the_page_shows_old_and_new_with_the_changed_part_marked(void **state)
{
	(void)state;
	recent_keep();
	note(CHANGE_UPDATE, "k", "{\"a\":1,\"s\":\"open\",\"n\":{\"x\":1,\"y\":2}}",
	     "{\"a\":1,\"s\":\"opened\",\"n\":{\"x\":1,\"y\":3},\"z\":true}");
	assert_int_equal(ask("/"), 200);
	assert_string_equal(w.a.type, "text/html; charset=utf-8");
	assert_has("<th scope=\"row\">s</th><td class=\"old\">&quot;open&quot;</td>"
		   "<td class=\"new\">&quot;open<ins>ed</ins>&quot;</td>");
	assert_has("<th scope=\"row\">n.y</th><td class=\"old\"><del>2</del></td>"
		   "<td class=\"new\"><ins>3</ins></td>");
	assert_has("<th scope=\"row\">z</th><td class=\"old\"><i>none</i></td>"
		   "<td class=\"new\"><ins>true</ins></td>");
	assert_has("2 members unchanged"); /* a and n.x */
	assert_has_no("<th scope=\"row\">a</th>");
}

static void test_no_bytes_of_a_stranger_become_markup(void **state)
{
	static const char evil[] = "</td><script>alert(1)</script>\"'&<img src=x onerror=y>\n\x7f";

	(void)state;
	open_state();
	begin_write();
	put(evil, evil);
	end_write();
	recent_keep();
	note(CHANGE_UPDATE, evil, evil, "{\"<b>\":\"<i>\"}");
	note(CHANGE_UPDATE, evil, "{\"<b>\":\"<u>\"}", "{\"<b>\":\"<s>\"}");
	note(CHANGE_DELETE, evil, evil, NULL);
	assert_int_equal(ask("/?key=%3C%2Ftd%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E%22'%26%3Cimg+src"
			     "%3Dx+onerror%3Dy%3E%5Cx0a%5Cx7f"),
			 200);
	assert_has("&lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;&lt;img");
	assert_has("<pre>&lt;/td&gt;"); /* it was found */
	assert_has_no("<script>alert");
	assert_has_no("<img");
	assert_has_no("<b>\"");
	assert_has_no("\x7f");
}

static void test_only_so_many_notifications_are_kept_and_only_so_much_of_a_value(void **state)
{
	struct recent_note *notes[RECENT_NOTES];
	char *value = calloc(1, RECENT_VALUE_MAX + 100), key[20];

	(void)state;
	note(CHANGE_CREATE, "before anybody looks", NULL, "x");
	recent_keep();
	memset(value, 'v', RECENT_VALUE_MAX + 99);
	for (int i = 0; i < RECENT_NOTES + 7; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		note(CHANGE_UPDATE, key, value, "new");
	}
	int n = recent_copy(notes);
	assert_int_equal(n, RECENT_NOTES);
	assert_memory_equal(notes[0]->key.p, key, strlen(key)); /* the newest first */
	assert_int_equal(notes[0]->before.len, RECENT_VALUE_MAX);
	assert_int_equal(notes[0]->before.whole, RECENT_VALUE_MAX + 99);
	assert_memory_equal(notes[n - 1]->key.p, "k7", 2);
	recent_free(notes, n);
	assert_int_equal(ask("/"), 200);
	assert_has("a value is longer than what is kept here");
	free(value);
}

static void test_numbers_on_the_page_are_for_people(void **state)
{
	char *text;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	(void)state;
	html_number(f, 1234567);
	fputc(' ', f);
	html_number(f, 999);
	fputc(' ', f);
	html_number(f, -1);
	fputc(' ', f);
	html_size(f, 1023);
	fputc(' ', f);
	html_size(f, 1536);
	fputc(' ', f);
	html_size(f, INT64_C(3) << 40);
	fputc(' ', f);
	html_duration(f, 0);
	fputc(' ', f);
	html_duration(f, 1500);
	fputc(' ', f);
	html_duration(f, 90000000);
	fputc(' ', f);
	html_duration(f, 2000000);
	fclose(f);
	assert_string_equal(text, "1,234,567 999 \xe2\x80\x93 1,023 B 1.5 KiB 3.0 TiB 0 s 1.5 ms "
				  "1.5 min 2 s");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
		T(test_paths_that_are_not_there_and_methods_that_write_are_refused),
		T(test_a_foreign_host_is_refused_on_loopback_alone),
		T(test_keys_and_values_are_for_this_host_only),
		T(test_every_answer_has_the_headers_that_protect),
		T(test_live_needs_nothing),
		T(test_ready_needs_a_snapshot_that_has_caught_up_and_is_kept),
		T(test_a_value_is_its_bytes_with_where_they_are_from),
		T(test_without_a_snapshot_there_is_no_answer_yet),
		T(test_a_token_that_was_reached_does_not_wait),
		T(test_a_token_that_is_not_reached_says_what_is_missing),
		T(test_a_wait_ends_when_the_position_is_there),
		T(test_waits_end_with_the_sidecar_and_are_limited),
		T(test_a_token_of_very_many_partitions_becomes_that_of_the_record),
		T(test_a_list_has_keys_in_order_and_values_as_they_can_stand_in_json),
		T(test_limits_of_a_list_are_from_1_to_1000),
		T(test_pages_of_a_list_have_every_key_once_whatever_the_keys_are),
		T(test_a_page_begins_behind_any_bytes_also_if_no_key_has_them),
		T(test_a_list_of_large_values_ends_early_and_goes_on),
		T(test_metrics_follow_the_pipeline_and_the_snapshot),
		T(test_the_page_shows_old_and_new_with_the_changed_part_marked),
		T(test_no_bytes_of_a_stranger_become_markup),
		T(test_only_so_many_notifications_are_kept_and_only_so_much_of_a_value),
		T(test_numbers_on_the_page_are_for_people),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
