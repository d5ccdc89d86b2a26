#include "side.h"
#include "base64.h"
#include "json.h"
#include "put.h"

#include <openssl/evp.h>
#include <string.h>
#include <strings.h>

#define WRAP       "{\"sidenote.base64\":\""
#define UNKNOWN    "{\"sidenote.unknown\":true}"
#define OMIT       "{\"sidenote.omitted\":{\"bytes\":"
#define OMIT_HASH  ",\"sha256\":\""
#define OMIT_END   "\"}}"
#define PAIR       "{\"key\":\""
#define PAIR_VALUE "\",\"value\":\""
#define QUOTE_END  "\"}"

_Static_assert(SIDE_OMITTED_MAX ==
		       PUT_LEN(OMIT) + PUT_NUMBER_MAX + PUT_LEN(OMIT_HASH) + 64 + PUT_LEN(OMIT_END),
	       "SIDE_OMITTED_MAX is what it takes");

struct side side_of(const void *bytes, size_t len)
{
	return (struct side){ .bytes = bytes,
			      .len = bytes ? len : 0,
			      .size = PUT_LEN("null"),
			      .omitted_size = SIZE_MAX };
}

void side_plan_json(struct side *s)
{
	s->omitted_size = SIDE_OMITTED_MAX;
	if (json_is_object(s->bytes, s->len)) {
		s->form = SIDE_BYTES;
		s->size = s->len;
	} else {
		s->form = SIDE_WRAPPED;
		s->size = PUT_LEN(WRAP QUOTE_END) + BASE64_BYTES(s->len);
	}
}

void side_plan_pair(struct side *s, const void *key, size_t key_len)
{
	s->omitted_size = SIDE_OMITTED_MAX;
	s->form = SIDE_PAIR;
	s->key = key;
	s->key_len = key_len;
	s->size = PUT_LEN(PAIR PAIR_VALUE QUOTE_END) + BASE64_BYTES(key_len) + BASE64_BYTES(s->len);
}

void side_plan_unknown(struct side *s)
{
	s->form = SIDE_UNKNOWN;
	s->size = PUT_LEN(UNKNOWN);
}

void side_plan_omitted(struct side *s)
{
	const unsigned char *b = s->bytes;
	size_t len = 0;

	for (int i = 7; i >= 0; i--)
		len = len << 8 | b[i];
	s->len = len;
	s->sha256 = b + 8;
	s->form = SIDE_OMITTED;
	s->size = s->omitted_size = SIDE_OMITTED_MAX;
}

static void omit(struct side *s)
{
	if (s->omitted_size >= s->size)
		return;
	s->form = SIDE_OMITTED;
	s->size = s->omitted_size;
}

bool side_fit(struct side *first, struct side *second, size_t room)
{
	if (first->size + second->size > room)
		omit(first);
	if (first->size + second->size > room)
		omit(second);
	return first->size + second->size <= room;
}

char *side_put_omitted(char *p, const struct side *s)
{
	static const char hex[] = "0123456789abcdef";
	unsigned char hash[EVP_MAX_MD_SIZE];

	if (s->sha256)
		memcpy(hash, s->sha256, 32);
	else
		EVP_Digest(s->len ? s->bytes : "", s->len, hash, NULL, EVP_sha256(), NULL);
	p = PUT(p, OMIT);
	p = put_number(p, (int64_t)s->len);
	p = PUT(p, OMIT_HASH);
	for (int i = 0; i < 32; i++) {
		*p++ = hex[hash[i] >> 4];
		*p++ = hex[hash[i] & 0xf];
	}
	return PUT(p, OMIT_END);
}

char *side_put(char *p, const struct side *s)
{
	switch (s->form) {
	case SIDE_NULL:
		return PUT(p, "null");
	case SIDE_BYTES:
		return put(p, s->bytes, s->len);
	case SIDE_WRAPPED:
		p = base64_encode(PUT(p, WRAP), s->bytes, s->len);
		return PUT(p, QUOTE_END);
	case SIDE_PAIR:
		p = base64_encode(PUT(p, PAIR), s->key, s->key_len);
		p = base64_encode(PUT(p, PAIR_VALUE), s->bytes, s->len);
		return PUT(p, QUOTE_END);
	case SIDE_UNKNOWN:
		return PUT(p, UNKNOWN);
	case SIDE_OMITTED:
		return side_put_omitted(p, s);
	}
	return p;
}

bool side_header_is_reserved(const char *name, size_t name_len)
{
	return name_len >= PUT_LEN("sidenote.") &&
	       !strncasecmp(name, "sidenote.", PUT_LEN("sidenote."));
}
