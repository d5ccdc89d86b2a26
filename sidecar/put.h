/*
 * put.h - appenders of text: each writes at p and returns the byte after what it
 * wrote.  Room is the caller's, and no NUL is written.
 */
#ifndef PUT_H
#define PUT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { PUT_NUMBER_MAX = 20 }; /* digits and sign of an int64_t */

#define PUT_LEN(literal) (sizeof(literal) - 1)
#define PUT(p, literal)  put((p), (literal), PUT_LEN(literal))

static inline char *put(char *p, const void *bytes, size_t len)
{
	if (len)
		memcpy(p, bytes, len);
	return p + len;
}

/* Decimal digits of u. */
static inline unsigned put_digits_of(uint64_t u)
{
	static const uint64_t power[] = { 0, /* zero has one digit, too */
					  10,
					  100,
					  1000,
					  10000,
					  100000,
					  1000000,
					  10000000,
					  100000000,
					  1000000000,
					  10000000000,
					  100000000000,
					  1000000000000,
					  10000000000000,
					  100000000000000,
					  1000000000000000,
					  10000000000000000,
					  100000000000000000,
					  1000000000000000000,
					  10000000000000000000u };
	unsigned about = (64 - (unsigned)__builtin_clzll(u | 1)) * 1233 >> 12; /* log 2 of 10 */

	return about + (u >= power[about]);
}

static inline char *put_number(char *p, int64_t v)
{
	static const char pairs[] = "0001020304050607080910111213141516171819"
				    "2021222324252627282930313233343536373839"
				    "4041424344454647484950515253545556575859"
				    "6061626364656667686970717273747576777879"
				    "8081828384858687888990919293949596979899";
	uint64_t u = v < 0 ? -(uint64_t)v : (uint64_t)v;
	char *end, *q;

	if (v < 0)
		*p++ = '-';
	q = end = p + put_digits_of(u);
	for (; u >= 10; u /= 100) {
		const char *two = pairs + u % 100 * 2;

		*--q = two[1];
		*--q = two[0];
	}
	if (q > p)
		*--q = (char)('0' + u);
	return end;
}

static inline char *put_number_or_null(char *p, bool has, int64_t v)
{
	return has ? put_number(p, v) : PUT(p, "null");
}

#endif
