#include "escape.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Code points that change how the text around them looks, or that are no text at all. */
static bool invisible(uint32_t c)
{
	return (c >= 0x7f && c < 0xa0) ||      /* DEL, C1 controls */
	       c == 0xad || c == 0x61c ||      /* soft hyphen, Arabic letter mark */
	       (c >= 0x200b && c <= 0x200f) || /* zero width, left/right marks */
	       (c >= 0x2028 && c <= 0x202e) || /* line separators, direction overrides */
	       (c >= 0x2060 && c <= 0x206f) || /* joiners, direction isolates */
	       c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) || (c >= 0xfdd0 && c <= 0xfdef) ||
	       (c & 0xfffe) == 0xfffe ||       /* no characters */
	       (c >= 0xe0000 && c <= 0xe007f); /* tags */
}

size_t escape_printable(const void *text, size_t len)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const unsigned char *s = text;

	if (!len || s[0] < 0x20)
		return 0;
	if (s[0] < 0x7f)
		return 1;

	size_t n = s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
	if (!n || n > len)
		return 0;
	uint32_t c = s[0] & (0x7f >> n);
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) || invisible(c))
		return 0;
	return n;
}

char *escape_key(const void *bytes, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	const unsigned char *s = bytes;

	if (len > (SIZE_MAX - 1) / 4)
		return NULL;
	char *out = malloc(4 * len + 1), *o = out;
	if (!out)
		return NULL;
	for (size_t i = 0, n; i < len; i += n) {
		n = escape_printable(s + i, len - i);
		if (s[i] == '\\') {
			*o++ = '\\';
			*o++ = '\\';
		} else if (n) {
			memcpy(o, s + i, n);
			o += n;
		} else {
			n = 1;
			*o++ = '\\';
			*o++ = 'x';
			*o++ = hex[s[i] >> 4];
			*o++ = hex[s[i] & 15];
		}
	}
	*o = '\0';
	return out;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int escape_parse(const char *text, void **out, size_t *len)
{
	/* one more than the longest, so that a key of no bytes has a pointer too */
	unsigned char *bytes = malloc(strlen(text) + 1);
	size_t n = 0;

	if (!bytes)
		return -ENOMEM;
	for (const char *s = text; *s; s++) {
		if (*s != '\\') {
			bytes[n++] = *s;
		} else if (s[1] == '\\') {
			bytes[n++] = *++s;
		} else if (s[1] == 'x' && hex_digit(s[2]) >= 0 && hex_digit(s[3]) >= 0) {
			bytes[n++] = hex_digit(s[2]) << 4 | hex_digit(s[3]);
			s += 3;
		} else {
			free(bytes);
			return -EINVAL;
		}
	}
	*out = bytes;
	*len = n;
	return 0;
}
