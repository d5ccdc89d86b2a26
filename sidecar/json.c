/*
 * The validator leans on one observation: the last byte of an object is its
 * '}'.  Once trailing white space is cut off and that byte seen, it stops every
 * scan outside of strings (white space, numbers, literals), so these need no
 * check for the end; only strings and closing braces do.  Invariant: p < end
 * until the last '}' is consumed.
 */
#include "json.h"

#include <stdint.h>
#include <string.h>

enum { SPACE = 1, DIGIT = 2, PLAIN = 4, HEX = 8 };

/* PLAIN: a byte of a string that stands for itself and is ASCII. */
static const uint8_t class[256] = {
	['\t'] = SPACE,
	['\n'] = SPACE,
	['\r'] = SPACE,
	[' '] = SPACE | PLAIN,
	['!'] = PLAIN,
	['#' ... '/'] = PLAIN,
	['0' ... '9'] = PLAIN | DIGIT | HEX,
	[':' ... '@'] = PLAIN,
	['A' ... 'F'] = PLAIN | HEX,
	['G' ... '['] = PLAIN,
	[']' ... '`'] = PLAIN,
	['a' ... 'f'] = PLAIN | HEX,
	['g' ... 0x7f] = PLAIN,
};

static inline const uint8_t *skip_space(const uint8_t *p)
{
	while (__builtin_expect(*p <= ' ', 0) && class[*p] & SPACE)
		p++;
	return p;
}

/* Length of the UTF-8 sequence that begins at p, 0: there is none. */
static size_t utf8_len(const uint8_t *p, const uint8_t *end)
{
	size_t left = (size_t)(end - p);
	uint8_t lo = 0x80, hi = 0xbf;

	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf)
		return left >= 2 && (p[1] & 0xc0) == 0x80 ? 2 : 0;
	if (p[0] >= 0xe0 && p[0] <= 0xef) {
		if (p[0] == 0xe0)
			lo = 0xa0; /* below: overlong */
		if (p[0] == 0xed)
			hi = 0x9f; /* above: surrogates */
		return left >= 3 && p[1] >= lo && p[1] <= hi && (p[2] & 0xc0) == 0x80 ? 3 : 0;
	}
	if (p[0] < 0xf0 || p[0] > 0xf4 || left < 4)
		return 0;
	if (p[0] == 0xf0)
		lo = 0x90; /* below: overlong */
	if (p[0] == 0xf4)
		hi = 0x8f; /* above: beyond U+10FFFF */
	return p[1] >= lo && p[1] <= hi && (p[2] & 0xc0) == 0x80 && (p[3] & 0xc0) == 0x80 ? 4 : 0;
}

/* The code unit of \uXXXX at p, or -1. */
static int code_unit(const uint8_t *p, const uint8_t *end)
{
	int v = 0;

	if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
		return -1;
	for (int i = 2; i < 6; i++) {
		if (!(class[p[i]] & HEX))
			return -1;
		v = v << 4 | ((p[i] & 0xf) + (p[i] & 0x40 ? 9 : 0));
	}
	return v;
}

/* After the escape that begins at p, or NULL. */
static const uint8_t *skip_escape(const uint8_t *p, const uint8_t *end)
{
	int unit, low;

	if (end - p < 2)
		return NULL;
	if (p[1] != 'u')
		return p[1] && strchr("\"\\/bfnrt", p[1]) ? p + 2 : NULL;
	unit = code_unit(p, end);
	if (unit < 0 || (unit >= 0xdc00 && unit <= 0xdfff))
		return NULL;
	if (unit < 0xd800 || unit > 0xdbff)
		return p + 6;
	low = code_unit(p + 6, end);
	return low >= 0xdc00 && low <= 0xdfff ? p + 12 : NULL;
}

/* After what is not PLAIN in a string and not its end, or NULL. */
static const uint8_t *skip_odd(const uint8_t *p, const uint8_t *end)
{
	size_t n;

	if (*p == '\\')
		return skip_escape(p, end);
	n = *p < 0x80 ? 0 : utf8_len(p, end);
	return n ? p + n : NULL;
}

#define EACH(byte) (~UINT64_C(0) / 255 * (byte))

/*
 * How many of the eight bytes at p are PLAIN before the first that is not.
 * A borrow can only mark bytes behind that first one.
 */
static inline unsigned plain_run(const uint8_t *p)
{
	uint64_t w, quote, backslash;

	memcpy(&w, p, sizeof(w));
	if (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)
		w = __builtin_bswap64(w);
	quote = w ^ EACH('"');
	backslash = w ^ EACH('\\');
	w = (w | (w - EACH(0x20)) | (quote - EACH(1)) | (backslash - EACH(1))) & EACH(0x80);
	return w ? (unsigned)__builtin_ctzll(w) / 8 : 8;
}

static inline const uint8_t *skip_plain(const uint8_t *p, const uint8_t *end)
{
	while (end - p >= 8) {
		unsigned n = plain_run(p);

		p += n;
		if (n < 8)
			return p;
	}
	while (p < end && class[*p] & PLAIN)
		p++;
	return p;
}

/* After the string whose first byte inside the quotes is p, or NULL. */
static inline const uint8_t *skip_string(const uint8_t *p, const uint8_t *end)
{
	for (;;) {
		p = skip_plain(p, end);
		if (p == end)
			return NULL;
		if (*p == '"')
			return p + 1;
		p = skip_odd(p, end);
		if (!p)
			return NULL;
	}
}

static inline const uint8_t *skip_digits(const uint8_t *p)
{
	if ((uint8_t)(*p - '0') > 9)
		return NULL;
	do
		p++;
	while ((uint8_t)(*p - '0') <= 9);
	return p;
}

static const uint8_t *skip_number(const uint8_t *p)
{
	if (*p == '-')
		p++;
	p = *p == '0' ? p + 1 : skip_digits(p);
	if (p && *p == '.')
		p = skip_digits(p + 1);
	if (p && (*p | 0x20) == 'e') {
		p++;
		p = skip_digits(*p == '+' || *p == '-' ? p + 1 : p);
	}
	return p;
}

static const uint8_t *skip_literal(const uint8_t *p, const uint8_t *end)
{
	size_t left = (size_t)(end - p);

	if (left > 4 && !memcmp(p, "true", 4))
		return p + 4;
	if (left > 4 && !memcmp(p, "null", 4))
		return p + 4;
	if (left > 5 && !memcmp(p, "false", 5))
		return p + 5;
	return NULL;
}

static const uint8_t *skip_scalar(const uint8_t *p, const uint8_t *end)
{
	if (*p == '"')
		return skip_string(p + 1, end);
	if (*p == '-' || class[*p] & DIGIT)
		return skip_number(p);
	return skip_literal(p, end);
}

/* "name" and colon: at the value, or NULL. */
static const uint8_t *skip_name(const uint8_t *p, const uint8_t *end)
{
	p = *p == '"' ? skip_string(p + 1, end) : NULL;
	if (!p)
		return NULL;
	p = skip_space(p);
	return *p == ':' ? skip_space(p + 1) : NULL;
}

/* The closing brackets that are awaited, one bit a level: 1 for '}'. */
struct levels {
	uint64_t bits[JSON_DEPTH_MAX / 64];
	unsigned depth;
};

static inline bool push(struct levels *l, bool object)
{
	uint64_t *word = &l->bits[l->depth / 64 % (JSON_DEPTH_MAX / 64)];
	uint64_t bit = UINT64_C(1) << l->depth % 64;

	if (l->depth == JSON_DEPTH_MAX)
		return false;
	*word = object ? *word | bit : *word & ~bit;
	l->depth++;
	return true;
}

static inline bool in_object(const struct levels *l)
{
	return l->bits[(l->depth - 1) / 64] >> (l->depth - 1) % 64 & 1;
}

/*
 * p is behind a value.  Close what closes here; then either at the next value
 * (true), or at the end of everything with *done, or false.
 */
static inline bool next_value(const uint8_t **pp, const uint8_t *end, struct levels *l, bool *done)
{
	const uint8_t *p = skip_space(*pp);

	while (*p != ',') {
		if (*p++ != (in_object(l) ? '}' : ']'))
			return false;
		l->depth--;
		if (p == end || !l->depth) {
			*done = p == end && !l->depth;
			return false;
		}
		p = skip_space(p);
	}
	p = skip_space(p + 1);
	*pp = in_object(l) ? skip_name(p, end) : p;
	return *pp;
}

/* p is at '{' or '['.  At its first value, or at its closing bracket with *empty; NULL: broken. */
static inline const uint8_t *open_level(const uint8_t *p, const uint8_t *end, struct levels *l,
					bool *empty)
{
	bool object = *p == '{';

	if (!push(l, object))
		return NULL;
	p = skip_space(p + 1);
	*empty = *p == (object ? '}' : ']');
	return object && !*empty ? skip_name(p, end) : p;
}

static bool is_object(const uint8_t *p, const uint8_t *end)
{
	struct levels l;
	bool done = false;

	l.depth = 0;
	do {
		bool empty = false;

		while (p && !empty && (*p == '{' || *p == '['))
			p = open_level(p, end, &l, &empty);
		if (p && !empty)
			p = skip_scalar(p, end);
		if (!p)
			return false;
	} while (next_value(&p, end, &l, &done));
	return done;
}

bool json_is_object(const void *bytes, size_t len)
{
	const uint8_t *p = bytes, *end;

	if (!len)
		return false; /* bytes may be NULL */
	end = p + len;
	while (p < end && class[*p] & SPACE)
		p++;
	while (end > p && class[end[-1]] & SPACE)
		end--;
	if (end - p < 2 || *p != '{' || end[-1] != '}')
		return false;
	return is_object(p, end);
}

/* ---- members; here nothing is known about the bytes ---- */

static const uint8_t *skip_space_to(const uint8_t *p, const uint8_t *end, uint8_t wanted)
{
	while (p < end && class[*p] & SPACE)
		p++;
	return p < end && *p == wanted ? p + 1 : NULL;
}

/* At the ',' or bracket that ends the value at p, or NULL. */
static const uint8_t *value_end(const uint8_t *p, const uint8_t *end)
{
	size_t depth = 0;

	while (p && p < end) {
		uint8_t c = *p++;

		if (c == '"')
			p = skip_string(p, end);
		else if (c == '{' || c == '[')
			depth++;
		else if (!depth && (c == '}' || c == ']' || c == ','))
			return p - 1;
		else if (c == '}' || c == ']')
			depth--;
	}
	return NULL;
}

bool json_next_member(const void *object, size_t len, size_t *pos, struct json_member *m)
{
	const uint8_t *start = object, *end;
	const uint8_t *name, *name_end, *value, *p;

	if (!len)
		return false;
	end = start + len;
	name = skip_space_to(start + *pos, end, *pos ? ',' : '{');
	name = name ? skip_space_to(name, end, '"') : NULL;
	name_end = name ? skip_string(name, end) : NULL;
	value = name_end ? skip_space_to(name_end, end, ':') : NULL;
	p = value ? value_end(value, end) : NULL;
	if (!p)
		return false;
	*pos = (size_t)(p - start);
	while (value < p && class[*value] & SPACE)
		value++;
	while (p > value && class[p[-1]] & SPACE)
		p--;
	*m = (struct json_member){ .name = (const char *)name,
				   .name_len = (size_t)(name_end - 1 - name),
				   .value = (const char *)value,
				   .value_len = (size_t)(p - value) };
	return true;
}

/* ---- text as a string ---- */

static char *put_escape(char *out, uint8_t c)
{
	static const char hex[] = "0123456789abcdef";
	static const char in[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
	const char *at = c ? strchr(in, c) : NULL;

	*out++ = '\\';
	if (at) {
		*out++ = letter[at - in];
		return out;
	}
	memcpy(out, "u00", 3);
	out[3] = hex[c >> 4];
	out[4] = hex[c & 0xf];
	return out + 5;
}

char *json_put_string(char *out, const void *bytes, size_t len)
{
	const uint8_t *p = bytes, *end = p + len;

	*out++ = '"';
	while (p < end) {
		size_t n = utf8_len(p, end);

		if (!n) {
			memcpy(out, "\\ufffd", 6);
			out += 6;
			p++;
		} else if (n == 1 && !(class[*p] & PLAIN)) {
			out = put_escape(out, *p++);
		} else {
			memcpy(out, p, n);
			out += n;
			p += n;
		}
	}
	*out++ = '"';
	return out;
}
