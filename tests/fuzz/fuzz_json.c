/*
 * json_is_object() against jansson.  They must agree on every input, except
 * where jansson has no opinion (jansson.h) and beyond JSON_DEPTH_MAX levels,
 * which only we refuse.
 */
#include "jansson.h"

#include "json.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Brackets outside of strings; the input is known to be an object. */
static int depth_of(const uint8_t *p, size_t size)
{
	int depth = 0, deepest = 0;
	bool in_string = false;

	for (const uint8_t *end = p + size; p < end; p++) {
		if (in_string && *p == '\\')
			p++;
		else if (*p == '"')
			in_string = !in_string;
		else if (!in_string && (*p == '{' || *p == '['))
			deepest = ++depth > deepest ? depth : deepest;
		else if (!in_string && (*p == '}' || *p == ']'))
			depth--;
	}
	return deepest;
}

/* Every member ends inside. */
static void walk(const uint8_t *data, size_t size)
{
	struct json_member m;

	for (size_t pos = 0; json_next_member(data, size, &pos, &m);)
		if (pos > size || (const uint8_t *)m.value + m.value_len > data + pos ||
		    m.name + m.name_len >= m.value)
			abort();
}

/* The same bytes at the very end of an allocation, where reading too far is seen. */
static bool ours(const uint8_t *data, size_t size)
{
	uint8_t *exact = malloc(size);
	bool ok;

	if (size)
		memcpy(exact, data, size);
	ok = json_is_object(exact, size);
	walk(exact, size);
	free(exact);
	return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool ok = ours(data, size);
	json_t *v;

	switch (jansson_parse(data, size, &v)) {
	case AN_OBJECT:
		if (ok != (depth_of(data, size) <= JSON_DEPTH_MAX))
			abort();
		jansson()->delete (v);
		break;
	case NOT_AN_OBJECT:
		if (ok)
			abort();
		break;
	case NO_OPINION:
		break;
	}
	return 0;
}
