#include "notice.h"
#include "harness.h"

static struct envelope e;
static struct note n;
static struct notice r;

static struct record record_of(const void *value, size_t len, int64_t offset)
{
	return (struct record){ .flags = value ? 0 : RECORD_TOMBSTONE,
				.partition = 3,
				.offset = offset,
				.timestamp_ms = 1700000000000 + offset,
				.value = value,
				.value_len = len };
}

static const struct envelope_options formats[] = {
	{ .name = "n", .cluster = "c", .topic = "t", .format = NOTE_DEBEZIUM_JSON },
	{ .name = "n",
	  .cluster = "c",
	  .topic = "t",
	  .format = NOTE_DEBEZIUM_JSON,
	  .encoding = NOTE_BASE64 },
	{ .name = "n", .cluster = "c", .topic = "t", .format = NOTE_RAW },
};
enum { FORMATS = 3 };

static void make(const struct envelope_options *o, const struct change *c, enum note_cause cause)
{
	notice_close(&r);
	envelope_free(&e);
	envelope_init(&e, o);
	assert_int_equal(envelope_make(&e, c, cause, c->offset + 1, 1700000009999, &n), 0);
	assert_int_equal(notice_open(&r, &n), 0);
}

static void assert_side(const void *side, size_t side_len, const void *expected, size_t len)
{
	assert_int_equal(!side, !expected);
	if (expected) {
		assert_int_equal(side_len, len);
		assert_memory_equal(side, expected, len);
	}
}

static struct change change_of(enum change_op op, const void *before, size_t before_len,
			       const void *after, size_t after_len)
{
	return (struct change){ .partition = 3,
				.offset = 50,
				.n = CHANGE_N_LOG,
				.op = op,
				.key = "ke\xffy",
				.key_len = 4,
				.has_before = before,
				.before = record_of(before, before_len, 40),
				.has_after = true,
				.after = record_of(after, after_len, 50) };
}

static void test_what_compaction_removed_comes_back_from_every_format(void **state)
{
	const struct note_gone gone = { .present_ms = 1700000001000,
					.gone_ms = 1700000002000,
					.leader = 2 };
	const struct note_gone expired = { .expired = true,
					   .after_unknown = true,
					   .present_ms = -1,
					   .gone_ms = -1,
					   .leader = -1 };
	struct change c = change_of(CHANGE_UPDATE, "{\"a\":1}", 7, "{\"a\":2}", 7);

	(void)state;
	for (int f = 0; f < FORMATS; f++) {
		notice_close(&r);
		envelope_free(&e);
		envelope_init(&e, &formats[f]);
		assert_int_equal(envelope_make_gone(&e, &c, &gone, 1700000009999, &n), 0);
		assert_int_equal(notice_open(&r, &n), 0);
		assert_int_equal(r.op, 'k');
		assert_int_equal(r.id_len, strlen("t/3/40/compacted"));
		assert_memory_equal(r.id, "t/3/40/compacted", r.id_len);
		assert_int_equal(r.offset, 50);
		assert_int_equal(r.before_offset, 40);
		assert_int_equal(r.present_ms, gone.present_ms);
		assert_int_equal(r.gone_ms, gone.gone_ms);
		assert_int_equal(r.leader, 2);
		assert_false(r.after_unknown);
		assert_side(r.before, r.before_len, "{\"a\":1}", 7);
		assert_side(r.after, r.after_len, "{\"a\":2}", 7);
		notice_close(&r);
		c.after.value_len = 0;
		assert_int_equal(envelope_make_gone(&e, &c, &expired, 1700000009999, &n), 0);
		c.after.value_len = 7;
		assert_int_equal(notice_open(&r, &n), 0);
		assert_int_equal(r.op, 'x');
		assert_true(r.after_unknown);
		assert_int_equal(r.gone_ms, -1);
		assert_int_equal(r.leader, -1);
		/* nothing of it is left for the next one */
		make(&formats[f], &c, NOTE_LOG);
		assert_int_equal(r.op, 'u');
	}
}

static void test_both_values_come_back_from_every_format(void **state)
{
	static const struct {
		const char *p;
		size_t len;
	} values[] = { { "{\"a\":1}", 7 },
		       { " {\"sidenote.base64x\":\"YQ==\"}\n", 30 },
		       { "", 0 },
		       { "\0\xff", 2 },
		       { "{\"key\":\"YQ==\",\"value\":\"YQ==\"}", 29 },
		       { "{\"before\":{},\"after\":{},\"source\":{}}", 36 },
		       { "null", 4 } };
	enum { VALUES = sizeof(values) / sizeof(*values) };

	(void)state;
	for (int f = 0; f < FORMATS; f++) {
		for (int i = 0; i < VALUES * VALUES; i++) {
			struct change c = change_of(CHANGE_UPDATE, values[i / VALUES].p,
						    values[i / VALUES].len, values[i % VALUES].p,
						    values[i % VALUES].len);

			make(&formats[f], &c, NOTE_LOG);
			assert_int_equal(r.op, 'u');
			assert_int_equal(r.cause, NOTE_LOG);
			assert_side(r.before, r.before_len, c.before.value, c.before.value_len);
			assert_side(r.after, r.after_len, c.after.value, c.after.value_len);
			assert_int_equal(r.offset, 50);
			assert_int_equal(r.ts_ms, 1700000000050);
			assert_int_equal(r.before_offset, 40);
			assert_int_equal(r.before_ts_ms, 1700000000040);
			assert_memory_equal(r.id, "t/3/50", r.id_len);
		}
	}
}

static void test_creates_and_deletes_lack_a_side(void **state)
{
	(void)state;
	for (int f = 0; f < FORMATS; f++) {
		struct change c = change_of(CHANGE_CREATE, NULL, 0, "x", 1);

		make(&formats[f], &c, NOTE_LOG);
		assert_int_equal(r.op, 'c');
		assert_null(r.before);
		assert_false(r.unknown);
		assert_side(r.after, r.after_len, "x", 1);
		assert_int_equal(r.before_offset, -1);
		c = change_of(CHANGE_DELETE, "{}", 2, NULL, 0);
		make(&formats[f], &c, NOTE_RECONCILE);
		assert_int_equal(r.op, 'd');
		assert_int_equal(r.cause, NOTE_RECONCILE);
		assert_side(r.before, r.before_len, "{}", 2);
		assert_null(r.after);
	}
}

static void test_an_old_value_nobody_saw_is_unknown(void **state)
{
	(void)state;
	for (int f = 0; f < FORMATS; f++) {
		struct change c = change_of(CHANGE_DELETE, NULL, 0, NULL, 0);

		make(&formats[f], &c, NOTE_GAP);
		assert_int_equal(r.cause, NOTE_GAP);
		assert_true(r.unknown);
		assert_null(r.before);
	}
}

static void test_omitted_values_are_told_from_small_ones(void **state)
{
	static char large[5000];
	struct change c = change_of(CHANGE_UPDATE, large, sizeof(large), "{}", 2);

	(void)state;
	memset(large, 'x', sizeof(large));
	for (int f = 0; f < FORMATS; f++) {
		struct envelope_options o = formats[f];

		o.max_bytes = 2000;
		make(&o, &c, NOTE_LOG);
		assert_true(r.before_omitted);
		assert_false(r.after_omitted);
		assert_memory_equal(r.before, "{\"sidenote.omitted\":{\"bytes\":5000,", 34);
	}
}

static void test_other_messages_are_no_notifications(void **state)
{
	static const struct record_header headers[] = {
		{ "sidenote.id", 11, "t/0/1", 5 },
		{ "sidenote.op", 11, "u", 1 },
	};
	struct note other = { .key = "k", .key_len = 1, .value = "{}", .value_len = 2 };

	(void)state;
	assert_int_equal(notice_open(&r, &other), -EINVAL);
	other.headers = headers;
	other.n_headers = 1;
	assert_int_equal(notice_open(&r, &other), -EINVAL);
	other.n_headers = 2;
	assert_int_equal(notice_open(&r, &other), -EINVAL);
	other.value = NULL;
	assert_int_equal(notice_open(&r, &other), -EINVAL);
	other.value = "{\"before\":null,\"after\":null,\"source\":1}";
	other.value_len = strlen(other.value);
	assert_int_equal(notice_open(&r, &other), 0);
	assert_int_equal(r.offset, -1);
}

static int fini(void **state)
{
	(void)state;
	notice_close(&r);
	envelope_free(&e);
	return 0;
}
#define TEST(f) cmocka_unit_test_teardown(f, fini)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_both_values_come_back_from_every_format),
		TEST(test_what_compaction_removed_comes_back_from_every_format),
		TEST(test_creates_and_deletes_lack_a_side),
		TEST(test_an_old_value_nobody_saw_is_unknown),
		TEST(test_omitted_values_are_told_from_small_ones),
		TEST(test_other_messages_are_no_notifications),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
