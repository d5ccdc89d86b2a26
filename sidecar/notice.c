#include "notice.h"

#include "base64.h"
#include "json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct text {
	const char *p; /* NULL: not there */
	size_t len;
};

static bool is(struct text t, const char *s)
{
	return t.p && t.len == strlen(s) && !memcmp(t.p, s, t.len);
}

/* The first header of that name: ours come before the source's. */
static struct text header(const struct note *n, const char *name)
{
	for (size_t i = 0; i < n->n_headers; i++) {
		const struct record_header *h = &n->headers[i];

		if (is((struct text){ h->name, h->name_len }, name))
			return (struct text){ h->value, h->value_len };
	}
	return (struct text){ 0 };
}

static struct text member(struct text object, const char *name)
{
	struct json_member m;

	for (size_t pos = 0; json_next_member(object.p, object.len, &pos, &m);)
		if (is((struct text){ m.name, m.name_len }, name))
			return (struct text){ m.value, m.value_len };
	return (struct text){ 0 };
}

static int64_t number(struct text t)
{
	int64_t v = 0;

	if (!t.p || !t.len || t.len > 18)
		return -1;
	for (size_t i = 0; i < t.len; i++) {
		if (t.p[i] < '0' || t.p[i] > '9')
			return -1;
		v = v * 10 + (t.p[i] - '0');
	}
	return v;
}

static int read_identity(struct notice *r, const struct note *n)
{
	struct text id = header(n, "sidenote.id"), op = header(n, "sidenote.op");
	struct text cause = header(n, "sidenote.cause");

	bool gone = is(op, "compacted"), expired = is(op, "expired");

	if (!id.p || (!gone && !expired && (op.len != 1 || !memchr("cud", *op.p, 3))))
		return -EINVAL;
	r->id = id.p;
	r->id_len = id.len;
	r->op = gone ? 'k' : expired ? 'x' : *op.p;
	r->cause = is(cause, "gap") ? NOTE_GAP : is(cause, "reconcile") ? NOTE_RECONCILE : NOTE_LOG;
	return 0;
}

/* ---- raw ---- */

static void read_raw(struct notice *r, const struct note *n)
{
	struct text before = header(n, "sidenote.before");

	r->before_omitted = !before.p && header(n, "sidenote.before.omitted").p;
	if (r->before_omitted)
		before = header(n, "sidenote.before.omitted");
	r->after_omitted = header(n, "sidenote.after.omitted").p;
	r->before = before.p;
	r->before_len = before.len;
	r->after = n->value;
	r->after_len = n->value_len;
	/* of physical compaction none: it was a tombstone */
	r->unknown = (r->op == 'u' || r->op == 'd') && !before.p;
	r->offset = number(header(n, "sidenote.offset"));
	r->ts_ms = number(header(n, "sidenote.timestamp"));
	r->before_offset = number(header(n, "sidenote.before.offset"));
	r->before_ts_ms = number(header(n, "sidenote.before.timestamp"));
	r->present_ms = number(header(n, "sidenote.present"));
	r->gone_ms = number(header(n, "sidenote.gone"));
	r->leader = number(header(n, "sidenote.leader"));
	r->after_unknown = header(n, "sidenote.after.unknown").p;
}

/* ---- debezium-json ---- */

/* The text inside the quotes of object's only member (of base64: its last), if it has that name. */
static struct text only_string(struct text object, const char *name)
{
	struct json_member m = { 0 };
	size_t pos = 0;

	if (!json_next_member(object.p, object.len, &pos, &m) ||
	    !is((struct text){ m.name, m.name_len }, name) || m.value_len < 2 || *m.value != '"')
		return (struct text){ 0 };
	if (json_next_member(object.p, object.len, &pos, &m))
		return (struct text){ 0 };
	return (struct text){ m.value + 1, m.value_len - 2 };
}

/* {"key":"...","value":"..."}, where the key is the message's. */
static struct text paired_value(struct text object, const struct note *n, char *scratch)
{
	struct text key = member(object, "key"), value = member(object, "value");
	size_t len = BASE64_BYTES(n->key_len);

	if (!key.p || !value.p || value.len < 2 || *value.p != '"' || key.len != len + 2)
		return (struct text){ 0 };
	base64_encode(scratch, n->key, n->key_len);
	if (memcmp(key.p + 1, scratch, len))
		return (struct text){ 0 };
	return (struct text){ value.p + 1, value.len - 2 };
}

/* Decode into *to what is wrapped; anything else stays as it is. */
static struct text unwrap(struct text side, const struct note *n, char **to)
{
	struct text b64 = only_string(side, "sidenote.base64");
	ssize_t len;
	char *out = *to;

	if (!b64.p)
		b64 = paired_value(side, n, out);
	len = b64.p ? base64_decode(out, b64.p, b64.len) : -1;
	if (len < 0)
		return side;
	*to += len;
	return (struct text){ out, (size_t)len };
}

static bool is_omitted(struct text side)
{
	struct text inner = member(side, "sidenote.omitted");

	return member(inner, "bytes").p && member(inner, "sha256").p;
}

static int read_envelope(struct notice *r, const struct note *n)
{
	struct text value = { n->value, n->value_len };
	struct text before = member(value, "before"), after = member(value, "after");
	struct text source = member(value, "source");
	char *to;

	if (!before.p || !after.p || !source.p)
		return -EINVAL;
	/* decoded they are shorter; the key is encoded once for comparison */
	to = r->decoded = malloc(value.len + BASE64_BYTES(n->key_len) + 1);
	if (!to)
		return -ENOMEM;
	r->unknown = is(before, "{\"sidenote.unknown\":true}");
	r->before_omitted = is_omitted(before);
	r->after_omitted = is_omitted(after);
	if (!r->unknown && !is(before, "null")) {
		before = unwrap(before, n, &to);
		r->before = before.p;
		r->before_len = before.len;
	}
	r->after_unknown = is(after, "{\"sidenote.unknown\":true}");
	if (!r->after_unknown && !is(after, "null")) {
		after = unwrap(after, n, &to);
		r->after = after.p;
		r->after_len = after.len;
	}
	r->offset = number(member(source, "offset"));
	r->ts_ms = number(member(source, "ts_ms"));
	r->before_offset = number(member(source, "before_offset"));
	r->before_ts_ms = number(member(source, "before_ts_ms"));
	r->present_ms = number(member(source, "present_ms"));
	r->gone_ms = number(member(source, "gone_ms"));
	r->leader = number(member(source, "leader"));
	return 0;
}

int notice_open(struct notice *r, const struct note *n)
{
	int rc;

	*r = (struct notice){ 0 };
	rc = read_identity(r, n);
	if (!rc && header(n, "sidenote.offset").p)
		read_raw(r, n);
	else if (!rc)
		rc = n->value ? read_envelope(r, n) : -EINVAL;
	if (rc)
		notice_close(r);
	return rc;
}

void notice_close(struct notice *r)
{
	free(r->decoded);
	*r = (struct notice){ 0 };
}
