#include "base64.h"

#include <errno.h>
#include <stdint.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_encode(char *out, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;

	for (; len >= 3; len -= 3, p += 3) {
		uint32_t v = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];

		*out++ = alphabet[v >> 18];
		*out++ = alphabet[v >> 12 & 63];
		*out++ = alphabet[v >> 6 & 63];
		*out++ = alphabet[v & 63];
	}
	if (len) {
		uint32_t v = (uint32_t)p[0] << 16 | (len == 2 ? (uint32_t)p[1] << 8 : 0);

		*out++ = alphabet[v >> 18];
		*out++ = alphabet[v >> 12 & 63];
		*out++ = len == 2 ? alphabet[v >> 6 & 63] : '=';
		*out++ = '=';
	}
	return out;
}

static int digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* One group of four with `n` significant characters: n - 1 bytes, or -EINVAL. */
static int decode_group(uint8_t *out, const char *text, int n)
{
	uint32_t v = 0;

	for (int i = 0; i < 4; i++) {
		int d = i < n ? digit(text[i]) : 0;

		if (d < 0)
			return -EINVAL;
		v = v << 6 | (uint32_t)d;
	}
	if (v & ((n == 2) ? 0xffff : (n == 3) ? 0xff : 0))
		return -EINVAL; /* bits that no byte holds */
	for (int i = 0; i < n - 1; i++)
		out[i] = (uint8_t)(v >> (16 - 8 * i));
	return n - 1;
}

ssize_t base64_decode(void *bytes, const char *text, size_t len)
{
	uint8_t *out = bytes;

	if (len % 4)
		return -EINVAL;
	for (size_t i = 0; i < len; i += 4) {
		int n = 4;

		if (i + 4 == len && text[i + 3] == '=')
			n = text[i + 2] == '=' ? 2 : 3;
		n = decode_group(out, text + i, n);
		if (n < 0)
			return n;
		out += n;
	}
	return out - (uint8_t *)bytes;
}
