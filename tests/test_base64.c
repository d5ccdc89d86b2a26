#include "base64.h"
#include "harness.h"

static void assert_encodes(const char *plain, const char *text)
{
	char out[64], back[64];
	char *end = base64_encode(out, plain, strlen(plain));

	assert_int_equal(end - out, BASE64_BYTES(strlen(plain)));
	*end = '\0';
	assert_string_equal(out, text);
	assert_int_equal(base64_decode(back, text, strlen(text)), strlen(plain));
	assert_memory_equal(back, plain, strlen(plain));
}

static void test_the_vectors_of_rfc_4648_encode_and_decode(void **state)
{
	(void)state;
	assert_encodes("", "");
	assert_encodes("f", "Zg==");
	assert_encodes("fo", "Zm8=");
	assert_encodes("foo", "Zm9v");
	assert_encodes("foob", "Zm9vYg==");
	assert_encodes("fooba", "Zm9vYmE=");
	assert_encodes("foobar", "Zm9vYmFy");
}

static void test_every_byte_at_every_place_survives_a_round_trip(void **state)
{
	unsigned char in[256 + 2], back[sizeof(in) + 3];
	char text[BASE64_BYTES(sizeof(in))];

	(void)state;
	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (unsigned char)i;
	for (size_t from = 0; from < 3; from++) {
		for (size_t len = 0; len <= 256; len++) {
			size_t n = (size_t)(base64_encode(text, in + from, len) - text);

			assert_int_equal(n, BASE64_BYTES(len));
			assert_int_equal(base64_decode(back, text, n), len);
			assert_memory_equal(back, in + from, len);
		}
	}
}

static void test_all_64_digits_are_those_of_the_standard_alphabet(void **state)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	unsigned char bytes[48];
	char text[65];

	(void)state;
	assert_int_equal(base64_decode(bytes, digits, 64), 48);
	*base64_encode(text, bytes, 48) = '\0';
	assert_string_equal(text, digits);
}

static void test_decoding_takes_nothing_but_what_encoding_writes(void **state)
{
	static const char *const bad[] = {
		"Z",    "Zg",       "Zg=",      "Zg===", "=",       "====",
		"Z===", "Zm9v\n",   "Zm 9",     "Zm-v",  "Zm_v",    "Zh==",
		"Zm9=", "Zg==Zg==", "Zm8=Zm9v", "Z=g=",  "Zm9vZg=", "\xff\xff\xff\xff",
	};
	char out[64];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (base64_decode(out, bad[i], strlen(bad[i])) != -EINVAL)
			fail_msg("accepted: %s", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_vectors_of_rfc_4648_encode_and_decode),
		cmocka_unit_test(test_every_byte_at_every_place_survives_a_round_trip),
		cmocka_unit_test(test_all_64_digits_are_those_of_the_standard_alphabet),
		cmocka_unit_test(test_decoding_takes_nothing_but_what_encoding_writes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
