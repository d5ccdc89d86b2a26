#include "harness.h"
#include "record.h"

static uint8_t buf[8192], skey[KEY_STORED_MAX];

static const struct record plain = { .partition = 3,
				     .offset = 4711,
				     .timestamp_ms = 1700000000123,
				     .value = "value",
				     .value_len = 5 };

static size_t encode(const struct record *r, const char *key, size_t key_len)
{
	size_t len = record_bytes(r);
	assert_true(len <= sizeof(buf));
	record_encode(buf, r, skey, record_stored_key(skey, key, key_len));
	return len;
}

static int decode(struct record *r, size_t len, const char *key, size_t key_len)
{
	uint8_t k[KEY_STORED_MAX];
	return record_decode(r, buf, len, k, record_stored_key(k, key, key_len));
}

static void test_a_key_of_1_to_479_bytes_is_stored_verbatim(void **state)
{
	(void)state;
	char key[479];
	memset(key, 'k', sizeof(key));
	for (size_t len = 1; len <= sizeof(key); len++) {
		assert_false(record_key_is_digest(len));
		assert_int_equal(record_stored_key(skey, key, len), len);
		assert_memory_equal(skey, key, len);
	}
}

static void test_a_longer_key_is_stored_as_prefix_and_sha_256(void **state)
{
	(void)state;
	char key[480];
	memset(key, 'a', sizeof(key));
	assert_true(record_key_is_digest(sizeof(key)));
	assert_int_equal(record_stored_key(skey, key, sizeof(key)), 511);
	assert_memory_equal(skey, key, 479);
	/* printf 'a%.0s' $(seq 480) | sha256sum */
	static const uint8_t sum[] = { 0x5b, 0xa6, 0x64, 0x74, 0x9c, 0x6a, 0xcd, 0x10 };
	assert_memory_equal(skey + 479, sum, sizeof(sum));
}

static void test_the_empty_key_is_stored_as_zeros_and_the_sha_256_of_nothing(void **state)
{
	(void)state;
	static const uint8_t zeros[479], sum[] = { 0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14 };
	assert_true(record_key_is_digest(0));
	assert_int_equal(record_stored_key(skey, NULL, 0), 511);
	assert_memory_equal(skey, zeros, sizeof(zeros));
	assert_memory_equal(skey + 479, sum, sizeof(sum));
}

static void test_a_record_reads_back_as_it_was_written(void **state)
{
	(void)state;
	struct record r;
	size_t len = encode(&plain, "key", 3);
	assert_int_equal(len, RECORD_HEADER_BYTES + 5);
	assert_int_equal(decode(&r, len, "key", 3), 0);
	assert_int_equal(r.flags, 0);
	assert_int_equal(r.partition, 3);
	assert_int_equal(r.offset, 4711);
	assert_true(r.timestamp_ms == 1700000000123);
	assert_int_equal(r.value_len, 5);
	assert_memory_equal(r.value, "value", 5);
	assert_null(r.key);
	assert_null(r.headers);
}

static void test_the_bytes_of_a_record_are_those_of_the_contract(void **state)
{
	(void)state;
	size_t len = encode(&plain, "key", 3);
	static const uint8_t head[24] = { 1, 0, 0, 0, 3,    0,    0,    0,    0x67, 0x12, 0, 0,
					  0, 0, 0, 0, 0x7b, 0x68, 0xe5, 0xcf, 0x8b, 1,    0, 0 };
	assert_memory_equal(buf, head, sizeof(head));
	assert_memory_equal(buf + 32, "value", 5);

	uint8_t covered[3 + 24 + 5] = "key";
	memcpy(covered + 3, buf, 24);
	memcpy(covered + 27, buf + 32, len - 32);
	uint64_t sum = record_hash(covered, sizeof(covered));
	for (int i = 0; i < 8; i++)
		assert_int_equal(buf[24 + i], (uint8_t)(sum >> 8 * i));
}

static void test_an_empty_value_is_not_a_tombstone(void **state)
{
	(void)state;
	struct record r, empty = { .value = "", .value_len = 0 },
			 gone = { .flags = RECORD_TOMBSTONE };
	assert_int_equal(decode(&r, encode(&empty, "k", 1), "k", 1), 0);
	assert_non_null(r.value);
	assert_int_equal(r.value_len, 0);
	assert_int_equal(decode(&r, encode(&gone, "k", 1), "k", 1), 0);
	assert_null(r.value);
	assert_int_equal(r.flags, RECORD_TOMBSTONE);
}

static void test_a_digest_key_comes_back_whole_with_headers_and_value(void **state)
{
	(void)state;
	char key[1000], headers[300];
	memset(key, 'x', sizeof(key));
	memset(headers, 'h', sizeof(headers));
	struct record r, w = plain;
	w.flags = RECORD_KEY | RECORD_HEADERS;
	w.key = key;
	w.key_len = sizeof(key);
	w.headers = headers;
	w.headers_len = sizeof(headers);
	size_t len = encode(&w, key, sizeof(key));
	assert_int_equal(len, 32 + 4 + 1000 + 4 + 300 + 5);
	assert_int_equal(decode(&r, len, key, sizeof(key)), 0);
	assert_int_equal(r.key_len, sizeof(key));
	assert_memory_equal(r.key, key, sizeof(key));
	assert_int_equal(r.headers_len, sizeof(headers));
	assert_memory_equal(r.headers, headers, sizeof(headers));
	assert_int_equal(r.value_len, 5);
}

static void test_any_changed_bit_of_a_record_is_noticed(void **state)
{
	(void)state;
	struct record r;
	size_t len = encode(&plain, "key", 3);
	for (size_t bit = 0; bit < len * 8; bit++) {
		buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
		int rc = decode(&r, len, "key", 3);
		/* a changed format byte may look like one of the future */
		assert_true(rc == -EBADMSG || (rc == -ENOTSUP && bit < 8));
		buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_int_equal(decode(&r, len, "key", 3), 0);
}

static void test_a_record_cut_short_at_any_byte_is_noticed(void **state)
{
	(void)state;
	struct record r;
	size_t len = encode(&plain, "key", 3);
	for (size_t cut = 0; cut < len; cut++) {
		uint8_t *exact = malloc(cut ? cut : 1); /* so that a sanitizer sees any overrun */
		memcpy(exact, buf, cut);
		assert_int_equal(record_decode(&r, exact, cut, "key", 3), -EBADMSG);
		free(exact);
	}
}

static void test_a_record_under_another_key_is_noticed(void **state)
{
	(void)state;
	struct record r;
	size_t len = encode(&plain, "key", 3);
	assert_int_equal(decode(&r, len, "kez", 3), -EBADMSG);
}

static void test_a_record_of_a_future_format_is_not_guessed_at(void **state)
{
	(void)state;
	struct record r;
	size_t len = encode(&plain, "key", 3);
	buf[0] = RECORD_FORMAT + 1;
	assert_int_equal(decode(&r, len, "key", 3), -ENOTSUP);
	struct record w = plain;
	w.flags = 0x80; /* a flag that this version does not know, with a right checksum */
	assert_int_equal(decode(&r, encode(&w, "key", 3), "key", 3), -ENOTSUP);
}

static void test_a_long_value_has_the_same_checksum_as_its_bytes_in_one_piece(void **state)
{
	(void)state;
	char value[4000];
	memset(value, 'v', sizeof(value));
	struct record r, w = plain;
	w.value = value;
	for (w.value_len = 400; w.value_len < 600; w.value_len++) { /* both ways of hashing */
		size_t len = encode(&w, "key", 3);
		uint8_t covered[4096] = "key";
		memcpy(covered + 3, buf, 24);
		memcpy(covered + 27, value, w.value_len);
		uint64_t sum = record_hash(covered, 27 + w.value_len), stored;
		memcpy(&stored, buf + 24, 8);
		assert_true(sum == stored);
		assert_int_equal(decode(&r, len, "key", 3), 0);
	}
}

static void test_source_headers_are_stepped_through_in_order_null_values_included(void **state)
{
	(void)state;
	static const struct record_header in[] = {
		{ "a", 1, "1", 1 }, { "", 0, "", 0 }, { "schema", 6, NULL, 0 }, { "a", 1, "22", 2 }
	};
	uint8_t bytes[100], *end = bytes;
	size_t len = 0, pos = 0;
	for (size_t i = 0; i < 4; i++) {
		len += record_header_bytes(&in[i]);
		end = record_header_encode(end, &in[i]);
	}
	assert_int_equal(end - bytes, len);

	struct record_header h;
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(record_header_next(bytes, len, &pos, &h), 1);
		assert_int_equal(h.name_len, in[i].name_len);
		assert_memory_equal(h.name, in[i].name, h.name_len);
		assert_true(!h.value == !in[i].value);
		assert_int_equal(h.value_len, in[i].value_len);
		if (h.value)
			assert_memory_equal(h.value, in[i].value, h.value_len);
	}
	assert_int_equal(record_header_next(bytes, len, &pos, &h), 0);
	for (size_t cut = 1; cut < len; cut++) { /* ends well only between two headers */
		int rc = 1;
		for (pos = 0; rc == 1;)
			rc = record_header_next(bytes, cut, &pos, &h);
		assert_true(rc == 0 || rc == -EBADMSG);
		assert_true(rc == -EBADMSG || pos == cut);
	}
}

/* ---- changes ---- */

static size_t encode_change(struct change *c, uint8_t *out, uint8_t key[JOURNAL_KEY_BYTES])
{
	uint8_t before[200], after[200];
	size_t before_len = 0, after_len = 0,
	       skey_len = record_stored_key(skey, c->key, c->key_len);
	if (c->has_before) {
		before_len = record_bytes(&c->before);
		record_encode(before, &c->before, skey, skey_len);
	}
	if (c->has_after) {
		after_len = record_bytes(&c->after);
		record_encode(after, &c->after, skey, skey_len);
	}
	change_key_encode(key, c->partition, c->offset, c->n);
	change_encode(out, c, before, before_len, after, after_len);
	return change_bytes(c->key_len, before_len, after_len);
}

static struct change update(void)
{
	struct change c = { .partition = 7,
			    .offset = 99,
			    .n = CHANGE_N_LOG,
			    .op = CHANGE_UPDATE,
			    .key = "key",
			    .key_len = 3,
			    .has_before = true,
			    .has_after = true,
			    .before = plain,
			    .after = plain };
	c.after.value = "newer";
	c.after.offset = 99;
	return c;
}

static void test_a_change_reads_back_with_both_records(void **state)
{
	(void)state;
	uint8_t key[JOURNAL_KEY_BYTES];
	struct change r, w = update();
	size_t len = encode_change(&w, buf, key);
	assert_int_equal(change_decode(&r, key, sizeof(key), buf, len), 0);
	assert_int_equal(r.partition, 7);
	assert_int_equal(r.offset, 99);
	assert_true(r.n == CHANGE_N_LOG);
	assert_int_equal(r.op, CHANGE_UPDATE);
	assert_int_equal(r.cause, CAUSE_LOG);
	assert_memory_equal(r.key, "key", 3);
	assert_true(r.has_before && r.has_after);
	assert_int_equal(r.before.offset, 4711);
	assert_memory_equal(r.before.value, "value", 5);
	assert_int_equal(r.after.offset, 99);
	assert_memory_equal(r.after.value, "newer", 5);
}

static void test_a_gone_key_is_a_change_without_an_after(void **state)
{
	(void)state;
	uint8_t key[JOURNAL_KEY_BYTES];
	struct change r, w = update();
	w.op = CHANGE_DELETE;
	w.cause = CAUSE_RECONCILE;
	w.n = 5;
	w.has_after = false;
	size_t len = encode_change(&w, buf, key);
	assert_int_equal(change_decode(&r, key, sizeof(key), buf, len), 0);
	assert_true(r.has_before && !r.has_after);
	assert_int_equal(r.cause, CAUSE_RECONCILE);
	assert_int_equal(r.n, 5);
}

static void test_any_changed_bit_of_a_change_or_its_key_is_noticed(void **state)
{
	(void)state;
	uint8_t key[JOURNAL_KEY_BYTES];
	struct change r, w = update();
	size_t len = encode_change(&w, buf, key);
	for (size_t bit = 0; bit < (len + sizeof(key)) * 8; bit++) {
		uint8_t *byte = bit / 8 < len ? buf + bit / 8 : key + (bit / 8 - len);
		*byte ^= (uint8_t)(1 << bit % 8);
		int rc = change_decode(&r, key, sizeof(key), buf, len);
		assert_true(rc == -EBADMSG || (rc == -ENOTSUP && bit < 8));
		*byte ^= (uint8_t)(1 << bit % 8);
	}
	for (size_t cut = 0; cut < len; cut++)
		assert_int_equal(change_decode(&r, key, sizeof(key), buf, cut), -EBADMSG);
	assert_int_equal(change_decode(&r, key, 15, buf, len), -EBADMSG);
	assert_int_equal(change_decode(&r, key, sizeof(key), buf, len), 0);
}

static void test_damage_older_than_the_journal_is_noticed_in_the_journal(void **state)
{
	(void)state;
	uint8_t key[JOURNAL_KEY_BYTES], before[200];
	struct change r, w = update();
	record_encode(before, &plain, "key", 3);
	before[33] ^= 1; /* then copied, damaged, into an entry with a right checksum */
	change_key_encode(key, w.partition, w.offset, w.n);
	change_encode(buf, &w, before, record_bytes(&plain), NULL, 0);
	size_t len = change_bytes(3, record_bytes(&plain), 0);
	assert_int_equal(change_decode(&r, key, sizeof(key), buf, len), -EBADMSG);
}

static void test_journal_keys_sort_by_partition_offset_and_n_with_the_log_last(void **state)
{
	(void)state;
	static const struct {
		int32_t p;
		int64_t offset;
		uint32_t n;
	} in[] = { { 0, 0, 0 },
		   { 0, 255, CHANGE_N_LOG },
		   { 0, 256, 0 },
		   { 0, 256, 1 },
		   { 0, 256, CHANGE_N_LOG },
		   { 0, INT64_MAX, CHANGE_N_LOG },
		   { 1, 0, 0 },
		   { 300, 1, 0 },
		   { INT32_MAX, 0, 0 } };
	uint8_t last[JOURNAL_KEY_BYTES], key[JOURNAL_KEY_BYTES];
	for (size_t i = 0; i < sizeof(in) / sizeof(*in); i++) {
		struct change c;
		change_key_encode(key, in[i].p, in[i].offset, in[i].n);
		assert_true(i == 0 || memcmp(last, key, sizeof(key)) < 0);
		memcpy(last, key, sizeof(key));
		assert_int_equal(change_key_decode(&c, key, sizeof(key)), 0);
		assert_int_equal(c.partition, in[i].p);
		assert_true(c.offset == in[i].offset && c.n == in[i].n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_key_of_1_to_479_bytes_is_stored_verbatim),
		cmocka_unit_test(test_a_longer_key_is_stored_as_prefix_and_sha_256),
		cmocka_unit_test(test_the_empty_key_is_stored_as_zeros_and_the_sha_256_of_nothing),
		cmocka_unit_test(test_a_record_reads_back_as_it_was_written),
		cmocka_unit_test(test_the_bytes_of_a_record_are_those_of_the_contract),
		cmocka_unit_test(test_an_empty_value_is_not_a_tombstone),
		cmocka_unit_test(test_a_digest_key_comes_back_whole_with_headers_and_value),
		cmocka_unit_test(test_any_changed_bit_of_a_record_is_noticed),
		cmocka_unit_test(test_a_record_cut_short_at_any_byte_is_noticed),
		cmocka_unit_test(test_a_record_under_another_key_is_noticed),
		cmocka_unit_test(test_a_record_of_a_future_format_is_not_guessed_at),
		cmocka_unit_test(test_a_long_value_has_the_same_checksum_as_its_bytes_in_one_piece),
		cmocka_unit_test(
			test_source_headers_are_stepped_through_in_order_null_values_included),
		cmocka_unit_test(test_a_change_reads_back_with_both_records),
		cmocka_unit_test(test_a_gone_key_is_a_change_without_an_after),
		cmocka_unit_test(test_any_changed_bit_of_a_change_or_its_key_is_noticed),
		cmocka_unit_test(test_damage_older_than_the_journal_is_noticed_in_the_journal),
		cmocka_unit_test(
			test_journal_keys_sort_by_partition_offset_and_n_with_the_log_last),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
