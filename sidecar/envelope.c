/*
 * A notification is planned first and written second: the plan knows the exact
 * size of both sides, so that one reservation serves all of the writing and
 * nothing is checked on the way, and so that too large is found out before a
 * byte is copied.  What does not change from note to note is rendered once.
 */
#include "envelope.h"

#include "json.h"
#include "put.h"
#include "side.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifndef SIDENOTE_VERSION
#define SIDENOTE_VERSION "0"
#endif

#define BEFORE     "{\"before\":"
#define AFTER      ",\"after\":"
#define OFFSET     ",\"offset\":"
#define OLD_OFFSET ",\"before_offset\":"
#define OLD_TIME   ",\"before_ts_ms\":"
#define CAUSE      ",\"cause\":\""
#define PRESENT    ",\"present_ms\":"
#define GONE       ",\"gone_ms\":"
#define LEADER     ",\"leader\":"
#define OP         "},\"op\":\""
#define TIME       "\",\"ts_ms\":"

#define LEN(literal) PUT_LEN(literal)

enum {
	/* all literals of the envelope itself, generously, and its numbers */
	ENVELOPE_MAX = 220 + 9 * PUT_NUMBER_MAX,
	/* numbers and omitted texts of the headers; the id has the topic besides */
	TEXT_MAX = 18 * (PUT_NUMBER_MAX + 5) + 2 * SIDE_OMITTED_MAX,
};

struct plan {
	struct side before, after;
	size_t copied_headers; /* bytes of the source headers that are copied */
	bool drop_headers;
	size_t bytes;
};

/* ---- buffers ---- */

static int reserve(char **buf, size_t *cap, size_t need)
{
	size_t n = need > *cap * 2 ? need : *cap * 2;
	char *p;

	if (need <= *cap)
		return 0;
	p = realloc(*buf, n);
	if (!p)
		return -ENOMEM;
	*buf = p;
	*cap = n;
	return 0;
}

static int add_header(struct envelope *e, const char *name, size_t name_len, const void *value,
		      size_t len)
{
	if (e->n_headers == e->headers_cap) {
		size_t n = e->headers_cap ? 2 * e->headers_cap : 32;
		struct record_header *p = realloc(e->headers, n * sizeof(*p));

		if (!p)
			return -ENOMEM;
		e->headers = p;
		e->headers_cap = n;
	}
	e->headers[e->n_headers++] = (struct record_header){
		.name = name, .name_len = name_len, .value = value, .value_len = len
	};
	return 0;
}

#define ADD(e, name, value, len)                                                                   \
	add_header((e), "sidenote." name, LEN("sidenote." name), value, len)

/* A header whose value is the text written from `from` to the end `to` of e->text. */
#define ADD_TEXT(e, name, to) add_text((e), "sidenote." name, LEN("sidenote." name), (to))

static int add_text(struct envelope *e, const char *name, size_t name_len, char *to)
{
	char *from = e->text + e->text_len;

	e->text_len = (size_t)(to - e->text);
	return add_header(e, name, name_len, from, (size_t)(to - from));
}

static inline char *text(struct envelope *e) { return e->text + e->text_len; }

/* ---- what never changes, once ---- */

static char *put_fixed(struct envelope *e, const char *version)
{
	const struct envelope_options *o = &e->o;
	char *p = PUT(e->fixed, ",\"source\":{\"version\":");

	p = json_put_string(p, version, strlen(version));
	p = PUT(p, ",\"connector\":\"sidenote\",\"name\":");
	p = json_put_string(p, o->name, strlen(o->name));
	p = PUT(p, ",\"ts_ms\":");
	e->fixed_len[0] = (size_t)(p - e->fixed);
	p = PUT(p, ",\"snapshot\":\"false\",\"db\":");
	p = json_put_string(p, o->cluster, strlen(o->cluster));
	p = PUT(p, ",\"table\":");
	p = json_put_string(p, o->topic, strlen(o->topic));
	p = PUT(p, ",\"topic\":");
	p = json_put_string(p, o->topic, strlen(o->topic));
	p = PUT(p, ",\"partition\":");
	e->fixed_len[1] = (size_t)(p - e->fixed) - e->fixed_len[0];
	return p;
}

static int prepare(struct envelope *e)
{
	const struct envelope_options *o = &e->o;
	const char *version = o->version ? o->version : SIDENOTE_VERSION;
	size_t cap = JSON_STRING_MAX(strlen(version)) + JSON_STRING_MAX(strlen(o->name)) +
		     JSON_STRING_MAX(strlen(o->cluster)) + 2 * JSON_STRING_MAX(strlen(o->topic));
	int rc;

	rc = reserve(&e->text, &e->text_cap, strlen(o->topic) + TEXT_MAX);
	if (rc)
		return rc;
	e->fixed = malloc(cap + 160);
	if (!e->fixed)
		return -ENOMEM;
	put_fixed(e, version);
	return 0;
}

void envelope_init(struct envelope *e, const struct envelope_options *o)
{
	*e = (struct envelope){ .o = *o };
}

void envelope_free(struct envelope *e)
{
	free(e->buf);
	free(e->text);
	free(e->headers);
	free(e->fixed);
	*e = (struct envelope){ 0 };
}

/* ---- headers ---- */

static const char *const cause_text[] = {
	[NOTE_LOG] = "log",
	[NOTE_GAP] = "gap",
	[NOTE_RECONCILE] = "reconcile",
};

static const char *op_text(const struct envelope *e, const struct change *c)
{
	if (e->gone)
		return e->gone->expired ? "expired" : "compacted";
	switch (c->op) {
	case CHANGE_CREATE:
		return "c";
	case CHANGE_DELETE:
		return "d";
	default:
		return "u";
	}
}

/* A change without a record of its own is told by the record that it ends. */
static char *put_id(char *p, const struct envelope *e, const struct change *c)
{
	bool gone = c->cause == CAUSE_RECONCILE || e->gone;

	p = put(p, e->o.topic, strlen(e->o.topic));
	*p++ = '/';
	p = put_number(p, c->partition);
	*p++ = '/';
	p = put_number(p, gone ? c->before.offset : c->offset);
	if (e->gone)
		return PUT(p, "/compacted");
	return gone ? PUT(p, "/gone") : p;
}

static char *put_token(char *p, int32_t partition, int64_t offset)
{
	p = put_number(p, partition);
	*p++ = ':';
	return put_number(p, offset);
}

static int add_identity(struct envelope *e, const struct change *c, enum note_cause cause,
			int64_t reached)
{
	int rc = ADD_TEXT(e, "id", put_id(text(e), e, c));

	rc = rc ? rc : ADD(e, "op", op_text(e, c), strlen(op_text(e, c)));
	rc = rc ? rc : ADD(e, "cause", cause_text[cause], strlen(cause_text[cause]));
	return rc ? rc : ADD_TEXT(e, "token", put_token(text(e), c->partition, reached));
}

static int64_t source_time(const struct change *c, int64_t ts_ms)
{
	return c->has_after && c->after.timestamp_ms >= 0 ? c->after.timestamp_ms : ts_ms;
}

static bool has_before_time(const struct change *c)
{
	return c->has_before && c->before.timestamp_ms >= 0;
}

/* What debezium-json tells in the value. */
static int add_metadata(struct envelope *e, const struct change *c, int64_t ts_ms)
{
	const struct envelope_options *o = &e->o;
	const char *version = o->version ? o->version : SIDENOTE_VERSION;
	int rc = ADD(e, "version", version, strlen(version));

	rc = rc ? rc : ADD(e, "name", o->name, strlen(o->name));
	rc = rc ? rc : ADD(e, "cluster", o->cluster, strlen(o->cluster));
	rc = rc ? rc : ADD(e, "topic", o->topic, strlen(o->topic));
	rc = rc ? rc : ADD_TEXT(e, "partition", put_number(text(e), c->partition));
	rc = rc ? rc : ADD_TEXT(e, "offset", put_number(text(e), c->offset));
	rc = rc ? rc : ADD_TEXT(e, "timestamp", put_number(text(e), source_time(c, ts_ms)));
	if (!rc && c->has_before)
		rc = ADD_TEXT(e, "before.offset", put_number(text(e), c->before.offset));
	if (!rc && has_before_time(c))
		rc = ADD_TEXT(e, "before.timestamp", put_number(text(e), c->before.timestamp_ms));
	if (!rc && e->gone && e->gone->present_ms >= 0)
		rc = ADD_TEXT(e, "present", put_number(text(e), e->gone->present_ms));
	if (!rc && e->gone && e->gone->gone_ms >= 0)
		rc = ADD_TEXT(e, "gone", put_number(text(e), e->gone->gone_ms));
	if (!rc && e->gone && e->gone->leader >= 0)
		rc = ADD_TEXT(e, "leader", put_number(text(e), e->gone->leader));
	if (!rc && e->gone && e->gone->after_unknown)
		rc = ADD(e, "after.unknown", "true", 4);
	return rc ? rc : ADD_TEXT(e, "published", put_number(text(e), ts_ms));
}

static size_t header_bytes(const struct record_header *h)
{
	return h->name_len + h->value_len + HEADER_OVERHEAD;
}

/* The next source header that is to be copied: 1 and *h, or 0. */
static int next_copied(const struct change *c, size_t *pos, struct record_header *h)
{
	if (!c->has_after || !c->after.headers_len)
		return 0;
	while (record_header_next(c->after.headers, c->after.headers_len, pos, h) > 0)
		if (!side_header_is_reserved(h->name, h->name_len))
			return 1;
	return 0;
}

static int add_copied(struct envelope *e, const struct change *c, const struct plan *p,
		      unsigned *dropped)
{
	struct record_header h;
	size_t pos = 0;
	int rc = 0;

	while (!rc && next_copied(c, &pos, &h)) {
		if (p->drop_headers)
			++*dropped;
		else
			rc = add_header(e, h.name, h.name_len, h.value, h.value_len);
	}
	if (!rc && *dropped)
		rc = ADD_TEXT(e, "headers.omitted", put_number(text(e), *dropped));
	return rc;
}

/* ---- the plan ---- */

static void plan_raw(struct side *s, size_t size, size_t omitted_size)
{
	s->form = SIDE_BYTES;
	s->size = size;
	s->omitted_size = omitted_size;
}

/* A value that was not kept; raw says so in a header, and of the new one in the value, too. */
static void plan_omitted(struct side *s, bool raw, size_t header_len, size_t times)
{
	side_plan_omitted(s);
	if (raw)
		s->size = s->omitted_size = header_len + times * SIDE_OMITTED_MAX + HEADER_OVERHEAD;
}

static void plan_json(struct side *s, const struct envelope *e, const struct change *c)
{
	if (e->o.encoding == NOTE_BASE64)
		side_plan_pair(s, c->key, c->key_len);
	else
		side_plan_json(s);
}

static struct side side_if(bool has, const struct record *r)
{
	return has ? side_of(r->value, r->value_len) : side_of(NULL, 0);
}

static void plan_sides(const struct envelope *e, const struct change *c, struct plan *p)
{
	bool raw = e->o.format == NOTE_RAW;

	p->before = side_if(c->has_before, &c->before);
	p->after = side_if(c->has_after && c->op != CHANGE_DELETE, &c->after);
	if (c->has_before && c->before.flags & RECORD_OMITTED)
		plan_omitted(&p->before, raw, LEN("sidenote.before.omitted"), 1);
	else if (p->before.bytes && raw)
		plan_raw(&p->before, p->before.len + LEN("sidenote.before") + HEADER_OVERHEAD,
			 LEN("sidenote.before.omitted") + SIDE_OMITTED_MAX + HEADER_OVERHEAD);
	else if (p->before.bytes)
		plan_json(&p->before, e, c);
	if (p->after.bytes && c->after.flags & RECORD_OMITTED)
		plan_omitted(&p->after, raw, LEN("sidenote.after.omitted"), 2);
	else if (p->after.bytes && raw)
		plan_raw(&p->after, p->after.len,
			 LEN("sidenote.after.omitted") + 2 * SIDE_OMITTED_MAX + HEADER_OVERHEAD);
	else if (p->after.bytes)
		plan_json(&p->after, e, c);
	if (!c->has_before && c->op != CHANGE_CREATE && !raw)
		side_plan_unknown(&p->before);
	if (e->gone && e->gone->after_unknown && !raw)
		side_plan_unknown(&p->after);
}

static size_t room_after(size_t max, size_t used) { return max > used ? max - used : 0; }

/* `own`: bytes of everything but the two sides and the copied headers. */
static void plan_fit(const struct envelope *e, struct plan *p, size_t own)
{
	size_t max = e->o.max_bytes ? e->o.max_bytes : SIZE_MAX;
	struct plan whole = *p;
	bool before_first = e->o.format == NOTE_RAW || p->before.size >= p->after.size;
	struct side *first = before_first ? &p->before : &p->after;
	struct side *second = before_first ? &p->after : &p->before;
	size_t headers = p->copied_headers;

	if (!side_fit(first, second, room_after(max, own + headers)) && headers) {
		*p = whole;
		p->drop_headers = true;
		headers = LEN("sidenote.headers.omitted") + PUT_NUMBER_MAX + HEADER_OVERHEAD;
		side_fit(first, second, room_after(max, own + headers));
	}
	p->bytes = own + headers + p->before.size + p->after.size;
}

static void plan_note(struct envelope *e, const struct change *c, struct plan *p)
{
	size_t own = MESSAGE_OVERHEAD + c->key_len;
	struct record_header h;
	size_t pos = 0;

	*p = (struct plan){ 0 };
	for (size_t i = 0; i < e->n_headers; i++)
		own += header_bytes(&e->headers[i]);
	while (next_copied(c, &pos, &h))
		p->copied_headers += header_bytes(&h);
	if (e->o.format != NOTE_RAW)
		own += ENVELOPE_MAX + e->fixed_len[0] + e->fixed_len[1];
	plan_sides(e, c, p);
	plan_fit(e, p, own);
}

/* ---- the value ---- */

static char *put_source(char *p, const struct envelope *e, const struct change *c,
			enum note_cause cause, int64_t ts_ms)
{
	p = put(p, e->fixed, e->fixed_len[0]);
	p = put_number(p, source_time(c, ts_ms));
	p = put(p, e->fixed + e->fixed_len[0], e->fixed_len[1]);
	p = put_number(p, c->partition);
	p = put_number(PUT(p, OFFSET), c->offset);
	p = put_number_or_null(PUT(p, OLD_OFFSET), c->has_before, c->before.offset);
	p = put_number_or_null(PUT(p, OLD_TIME), has_before_time(c), c->before.timestamp_ms);
	p = PUT(p, CAUSE);
	p = put(p, cause_text[cause], strlen(cause_text[cause]));
	*p++ = '"';
	if (!e->gone)
		return p;
	p = put_number_or_null(PUT(p, PRESENT), e->gone->present_ms >= 0, e->gone->present_ms);
	p = put_number_or_null(PUT(p, GONE), e->gone->gone_ms >= 0, e->gone->gone_ms);
	return put_number_or_null(PUT(p, LEADER), e->gone->leader >= 0, e->gone->leader);
}

static int make_envelope(struct envelope *e, const struct change *c, enum note_cause cause,
			 int64_t ts_ms, const struct plan *plan, struct note *out)
{
	size_t need = plan->before.size + plan->after.size + ENVELOPE_MAX + e->fixed_len[0] +
		      e->fixed_len[1];
	char *p;
	int rc = reserve(&e->buf, &e->cap, need);

	if (rc)
		return rc;
	p = side_put(PUT(e->buf, BEFORE), &plan->before);
	p = side_put(PUT(p, AFTER), &plan->after);
	p = put_source(p, e, c, cause, ts_ms);
	p = put(PUT(p, OP), op_text(e, c), strlen(op_text(e, c)));
	p = put_number(PUT(p, TIME), ts_ms);
	*p++ = '}';
	e->len = (size_t)(p - e->buf);
	out->value = e->buf;
	out->value_len = e->len;
	return 0;
}

/* An omitted value is never null or empty: null means deleted, empty may be a value. */
static int make_raw(struct envelope *e, const struct plan *plan, struct note *out)
{
	const struct side *b = &plan->before, *a = &plan->after;
	int rc = 0;

	if (b->form == SIDE_BYTES)
		rc = ADD(e, "before", b->bytes, b->len);
	else if (b->form == SIDE_OMITTED)
		rc = ADD_TEXT(e, "before.omitted", side_put_omitted(text(e), b));
	out->value = a->bytes;
	out->value_len = a->len;
	if (!rc && a->form == SIDE_OMITTED) {
		out->value = text(e);
		rc = ADD_TEXT(e, "after.omitted", side_put_omitted(text(e), a));
		out->value_len = (size_t)(text(e) - (const char *)out->value);
	}
	return rc;
}

int envelope_make(struct envelope *e, const struct change *c, enum note_cause cause,
		  int64_t reached, int64_t ts_ms, struct note *out)
{
	bool raw = e->o.format == NOTE_RAW;
	struct note n = { .key = c->key_len ? c->key : "", .key_len = c->key_len };
	struct plan p;
	int rc;

	e->n_headers = e->text_len = 0;
	rc = e->fixed ? 0 : prepare(e);
	rc = rc ? rc : add_identity(e, c, cause, reached);
	if (!rc && raw)
		rc = add_metadata(e, c, ts_ms);
	if (rc)
		return rc;
	plan_note(e, c, &p);
	rc = raw ? make_raw(e, &p, &n) : make_envelope(e, c, cause, ts_ms, &p, &n);
	rc = rc ? rc : add_copied(e, c, &p, &n.headers_omitted);
	if (rc)
		return rc;
	n.headers = e->headers;
	n.n_headers = e->n_headers;
	n.wrapped = (p.before.form == SIDE_WRAPPED) + (p.after.form == SIDE_WRAPPED);
	n.omitted = (p.before.form == SIDE_OMITTED) + (p.after.form == SIDE_OMITTED);
	n.bytes = p.bytes;
	*out = n;
	return 0;
}

int envelope_make_gone(struct envelope *e, const struct change *c, const struct note_gone *g,
		       int64_t ts_ms, struct note *out)
{
	e->gone = g;
	int rc = envelope_make(e, c, NOTE_LOG, c->offset + 1, ts_ms, out);
	e->gone = NULL;
	return rc;
}
