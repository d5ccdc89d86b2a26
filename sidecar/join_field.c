#include "join_field.h"
#include "json.h"

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- a JSON string's characters; the string is valid (json_is_object() has said so) ---- */

static unsigned hex4(const char *s)
{
	unsigned v = 0;

	for (int i = 0; i < 4; i++)
		v = v << 4 | ((unsigned)(s[i] & 0xf) + (s[i] & 0x40 ? 9 : 0));
	return v;
}

static char *put_utf8(char *p, unsigned c)
{
	if (c < 0x80) {
		*p++ = (char)c;
		return p;
	}
	if (c >= 0x10000) {
		*p++ = (char)(0xf0 | c >> 18);
		*p++ = (char)(0x80 | (c >> 12 & 0x3f));
	} else if (c >= 0x800) {
		*p++ = (char)(0xe0 | c >> 12);
	}
	*p++ = (char)(c < 0x800 ? 0xc0 | c >> 6 : 0x80 | (c >> 6 & 0x3f));
	*p++ = (char)(0x80 | (c & 0x3f));
	return p;
}

/* *s is behind a backslash; moves it behind the escape. */
static char *put_escape(char *p, const char **s)
{
	static const char letters[] = "bfnrt", controls[] = "\b\f\n\r\t";
	char letter = *(*s)++;
	const char *at = strchr(letters, letter);
	unsigned c;

	if (letter != 'u') {
		*p++ = at ? controls[at - letters] : letter;
		return p;
	}
	c = hex4(*s);
	*s += 4;
	if (c >= 0xd800 && c < 0xdc00) { /* its other half is there: \uXXXX */
		c = 0x10000 + ((c & 0x3ff) << 10) + (hex4(*s + 2) & 0x3ff);
		*s += 6;
	}
	return put_utf8(p, c);
}

/* Characters between the quotes; never more bytes than there are.  The byte after the last. */
static char *put_characters(char *p, const char *s, size_t len)
{
	const char *end = s + len;

	while (s < end) {
		const char *slash = memchr(s, '\\', (size_t)(end - s));
		size_t plain = (size_t)((slash ? slash : end) - s);

		memcpy(p, s, plain);
		p += plain;
		s += plain;
		if (slash) {
			s++;
			p = put_escape(p, &s);
		}
	}
	return p;
}

/* ---- the path ---- */

static int reserve(struct field *f, size_t size)
{
	if (size <= f->size)
		return 0;
	char *grown = realloc(f->mem, size * 2);
	if (!grown)
		return -ENOMEM;
	f->mem = grown;
	f->size = size * 2;
	return 0;
}

static bool is_named(struct field *f, const struct json_member *m, const char *name, size_t len)
{
	if (!memchr(m->name, '\\', m->name_len))
		return m->name_len == len && !memcmp(m->name, name, len);
	size_t n = (size_t)(put_characters(f->mem, m->name, m->name_len) - f->mem);
	return n == len && !memcmp(f->mem, name, len);
}

/* The last member of this name; false: there is none. */
static bool find_member(struct field *f, const char *object, size_t object_len, const char *name,
			size_t name_len, struct json_member *found)
{
	struct json_member m;
	size_t pos = 0;
	bool any = false;

	while (json_next_member(object, object_len, &pos, &m))
		if (is_named(f, &m, name, name_len)) {
			*found = m;
			any = true;
		}
	return any;
}

static bool is_whole_number(const char *s, size_t len)
{
	size_t i = len > 1 && *s == '-';

	for (; i < len; i++)
		if (!isdigit((unsigned char)s[i]))
			return false;
	return len > 0;
}

int field_get(struct field *f, const void *value, size_t value_len, const char *path)
{
	struct json_member m = { .value = value, .value_len = value_len };

	if (!json_is_object(value, value_len))
		return FIELD_NONE;
	if (reserve(f, value_len))
		return -ENOMEM;
	for (const char *name = path; name;) {
		size_t len = strcspn(name, ".");

		while (m.value_len && isspace((unsigned char)*m.value)) {
			m.value++;
			m.value_len--;
		}
		if (*m.value != '{' || !find_member(f, m.value, m.value_len, name, len, &m))
			return FIELD_NONE;
		name = name[len] ? name + len + 1 : NULL;
	}
	f->text = f->mem;
	if (*m.value == '"') {
		f->len = (size_t)(put_characters(f->mem, m.value + 1, m.value_len - 2) - f->mem);
		return FIELD_TEXT;
	}
	if (!is_whole_number(m.value, m.value_len))
		return FIELD_NONE;
	memcpy(f->mem, m.value, m.value_len);
	f->len = m.value_len;
	return FIELD_NUMBER;
}

void field_free(struct field *f)
{
	free(f->mem);
	*f = (struct field){ 0 };
}
