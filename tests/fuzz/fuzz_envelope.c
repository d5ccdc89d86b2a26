/*
 * Any change, hostile bytes throughout: the envelope is one JSON object by
 * jansson's opinion, both sides are in it byte for byte, nothing of the size
 * was under-estimated, and no source header passes for one of ours.
 *
 * Input: 8 bytes of choices, then key, before, after and headers, each a length
 * of two bytes and that many bytes (the last ones get what is left).
 */
#include "jansson.h"

#include "base64.h"
#include "envelope.h"
#include "json.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #cond);       \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

struct bytes {
	const uint8_t *p;
	size_t len;
};

static struct bytes take(struct bytes *from)
{
	struct bytes b = { from->p, 0 };

	if (from->len >= 2) {
		b.p = from->p + 2;
		b.len = (size_t)(from->p[0] << 8 | from->p[1]);
		if (b.len > from->len - 2)
			b.len = from->len - 2;
		from->p += 2 + b.len;
		from->len -= 2 + b.len;
	}
	return b;
}

/* Headers as the journal keeps them; malloc'd. */
static uint8_t *headers_of(struct bytes from, size_t *len)
{
	uint8_t *out = malloc(from.len * 8 + 16), *p = out;

	while (from.len >= 4) {
		bool null = from.p[0] & 0x80;
		struct bytes name = { from.p + 2, from.p[0] & 0x7f }, value = { 0 };
		struct record_header h;

		if (name.len > from.len - 2)
			name.len = from.len - 2;
		value.p = name.p + name.len;
		value.len = from.p[1];
		if (value.len > from.len - 2 - name.len)
			value.len = from.len - 2 - name.len;
		h = (struct record_header){ (const char *)name.p, name.len, null ? NULL : value.p,
					    null ? 0 : value.len };
		p = record_header_encode(p, &h);
		from.p += 2 + name.len + value.len;
		from.len -= 2 + name.len + value.len;
	}
	*len = (size_t)(p - out);
	return out;
}

static void expect(const char **p, const char *end, const void *bytes, size_t len)
{
	CHECK((size_t)(end - *p) >= len && !memcmp(*p, bytes, len));
	*p += len;
}
#define EXPECT(p, end, text) expect(p, end, text, sizeof(text) - 1)

static void expect_base64(const char **p, const char *end, struct bytes b)
{
	const char *quote = memchr(*p, '"', (size_t)(end - *p));
	uint8_t *decoded = malloc(b.len + 4);

	CHECK(quote);
	CHECK((size_t)(quote - *p) == BASE64_BYTES(b.len));
	CHECK(base64_decode(decoded, *p, (size_t)(quote - *p)) == (ssize_t)b.len);
	CHECK(!b.len || !memcmp(decoded, b.p, b.len));
	free(decoded);
	*p = quote;
}

static void expect_side(const char **p, const char *end, bool has, struct bytes b, struct bytes key,
			bool base64)
{
	static const char omitted[] = "{\"sidenote.omitted\":{\"bytes\":";

	if (!has) {
		EXPECT(p, end, "null");
	} else if (!strncmp(*p, omitted, sizeof(omitted) - 1)) {
		CHECK(strtoull(*p + sizeof(omitted) - 1, NULL, 10) == b.len);
		*p = memchr(*p, '}', (size_t)(end - *p));
		EXPECT(p, end, "}}");
	} else if (base64) {
		EXPECT(p, end, "{\"key\":\"");
		expect_base64(p, end, key);
		EXPECT(p, end, "\",\"value\":\"");
		expect_base64(p, end, b);
		EXPECT(p, end, "\"}");
	} else if (json_is_object(b.p, b.len)) {
		expect(p, end, b.p, b.len);
	} else {
		EXPECT(p, end, "{\"sidenote.base64\":\"");
		expect_base64(p, end, b);
		EXPECT(p, end, "\"}");
	}
}

static void check_json(const struct change *c, const struct note *n, bool base64)
{
	const char *p = n->value, *end = p + n->value_len;
	struct bytes key = { c->key, c->key_len };
	struct bytes before = { c->before.value, c->before.value_len };
	struct bytes after = { c->after.value, c->after.value_len };
	json_t *v;

	CHECK(jansson_parse(n->value, n->value_len, &v) != NOT_AN_OBJECT);
	if (v) {
		CHECK(jansson_is_object(jansson()->get(v, "source")));
		jansson()->delete (v);
	}
	EXPECT(&p, end, "{\"before\":");
	if (!c->has_before && c->op != CHANGE_CREATE)
		EXPECT(&p, end, "{\"sidenote.unknown\":true}");
	else
		expect_side(&p, end, c->has_before, before, key, base64);
	EXPECT(&p, end, ",\"after\":");
	expect_side(&p, end, c->op != CHANGE_DELETE, after, key, base64);
	EXPECT(&p, end, ",\"source\":{\"version\":\"");
}

static bool ours(const struct record_header *h)
{
	return h->name_len >= 9 && !strncasecmp(h->name, "sidenote.", 9);
}

static void check_raw(const struct change *c, const struct note *n)
{
	const struct record_header *before = NULL;
	bool omitted = false;

	for (size_t i = 0; i < n->n_headers; i++) {
		const struct record_header *h = &n->headers[i];

		if (h->name_len == 15 && !memcmp(h->name, "sidenote.before", 15))
			before = h;
		omitted |= h->name_len == 22 && !memcmp(h->name, "sidenote.after.omitted", 22);
	}
	CHECK(!before || (before->value_len == c->before.value_len &&
			  !memcmp(before->value, c->before.value, before->value_len)));
	CHECK(before || !c->has_before || n->omitted);
	CHECK(!n->value == (c->op == CHANGE_DELETE));
	if (n->value && !omitted)
		CHECK(n->value_len == c->after.value_len &&
		      !memcmp(n->value, c->after.value, n->value_len));
}

/* Ours come first; then the source's, all of them or none, in their order. */
static void check_headers(const struct change *c, const struct note *n)
{
	struct record_header h;
	size_t i = 0, pos = 0, wire = 61 + 36 + n->key_len + n->value_len;
	unsigned copied = 0;

	for (size_t j = 0; j < n->n_headers; j++)
		wire += n->headers[j].name_len + n->headers[j].value_len + 10;
	CHECK(wire <= n->bytes);
	while (i < n->n_headers && ours(&n->headers[i]))
		i++;
	while (record_header_next(c->after.headers, c->after.headers_len, &pos, &h) > 0) {
		if (ours(&h))
			continue;
		copied++;
		if (n->headers_omitted)
			continue;
		CHECK(i < n->n_headers && n->headers[i].name_len == h.name_len &&
		      !memcmp(n->headers[i].name, h.name, h.name_len) &&
		      !n->headers[i].value == !h.value && n->headers[i].value_len == h.value_len &&
		      (!h.value || !memcmp(n->headers[i].value, h.value, h.value_len)));
		i++;
	}
	CHECK(i == n->n_headers);
	CHECK(!n->headers_omitted || n->headers_omitted == copied);
}

static void check(const struct envelope_options *o, const struct change *c)
{
	struct envelope e;
	struct note n;

	envelope_init(&e, o);
	for (int again = 0; again < 2; again++) {
		CHECK(!envelope_make(&e, c, c->cause == CAUSE_RECONCILE ? NOTE_RECONCILE : NOTE_GAP,
				     c->offset, -5, &n));
		CHECK(n.key && n.key_len == c->key_len && !memcmp(n.key, c->key, c->key_len));
		check_headers(c, &n);
		if (o->format == NOTE_RAW)
			check_raw(c, &n);
		else
			check_json(c, &n, o->encoding == NOTE_BASE64);
		if (o->max_bytes && n.bytes > o->max_bytes) /* then nothing more can be left out */
			CHECK(n.bytes < 2000 + n.key_len);
	}
	envelope_free(&e);
}

static int64_t number_of(const uint8_t *p) { return (int64_t)((uint64_t)p[0] << 56 | p[1]); }

static const char *const clusters[] = { "c", "\"\\\x01\xff\xc3\xa9" };
static const enum change_op ops[] = { CHANGE_CREATE, CHANGE_UPDATE, CHANGE_UNCHANGED,
				      CHANGE_DELETE };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes in, key, before, after;
	struct change c = { .n = CHANGE_N_LOG };
	size_t headers_len;
	uint8_t *headers;

	if (size < 8)
		return 0;
	in = (struct bytes){ data + 8, size - 8 };
	struct envelope_options o = { .name = "n",
				      .topic = "t",
				      .cluster = clusters[data[0] >> 2 & 1],
				      .format = data[0] & 1 ? NOTE_RAW : NOTE_DEBEZIUM_JSON,
				      .encoding = data[0] & 2 ? NOTE_BASE64 : NOTE_JSON,
				      .max_bytes = data[1] * 64u };
	key = take(&in);
	before = take(&in);
	after = take(&in);
	headers = headers_of(in, &headers_len);
	c.op = ops[data[2] & 3];
	c.partition = (int32_t)data[3] << 23;
	c.offset = number_of(data + 4);
	c.key = key.p;
	c.key_len = key.len;
	c.has_before = c.op != CHANGE_CREATE && (c.op != CHANGE_DELETE || !(data[2] & 4));
	c.has_after = c.op != CHANGE_DELETE || !c.has_before || !(data[2] & 8);
	c.cause = c.has_after ? CAUSE_LOG : CAUSE_RECONCILE;
	c.before.timestamp_ms = c.after.timestamp_ms = c.before.offset = number_of(data + 6);
	if (c.has_before)
		c.before.value = before.p, c.before.value_len = before.len;
	if (c.op != CHANGE_DELETE)
		c.after.value = after.p, c.after.value_len = after.len;
	if (c.has_after)
		c.after.headers = headers, c.after.headers_len = headers_len;
	check(&o, &c);
	free(headers);
	return 0;
}
