#include "join_envelope.h"
#include "json.h"
#include "put.h"
#include "side.h"

#include <errno.h>
#include <stdlib.h>

#ifndef SIDENOTE_VERSION
#define SIDENOTE_VERSION "0"
#endif

enum {
	/* every literal of a result, generously, and its seven numbers */
	LITERALS_MAX = 250 + 7 * PUT_NUMBER_MAX,
	ID_NUMBERS = 2 * PUT_NUMBER_MAX + 2,
	OWN_HEADERS = 3 * HEADER_OVERHEAD + PUT_LEN(JOIN_HEADER_ID JOIN_HEADER_MATCH) + 5 +
		      PUT_LEN(JOIN_HEADER_OMITTED) + PUT_NUMBER_MAX,
};

struct plan {
	struct side stream, table;
	bool drop_headers;
	size_t bytes;
};

int join_envelope_init(struct join_envelope *e, const struct join_envelope_options *o)
{
	*e = (struct join_envelope){ .o = *o };
	if (!e->o.version)
		e->o.version = SIDENOTE_VERSION;
	e->id = malloc(strlen(o->stream_topic) + ID_NUMBERS);
	return e->id ? 0 : -ENOMEM;
}

void join_envelope_free(struct join_envelope *e)
{
	free(e->buf);
	free(e->id);
	*e = (struct join_envelope){ 0 };
}

/* ---- the plan ---- */

static struct side side_planned(const void *value, size_t len)
{
	struct side s = side_of(value, len);

	if (value)
		side_plan_json(&s);
	return s;
}

/* Bytes of the value beside both sides. */
static size_t frame_bytes(const struct join_envelope *e, const struct join_pair *p)
{
	return LITERALS_MAX + JSON_STRING_MAX(strlen(e->o.stream_topic)) +
	       JSON_STRING_MAX(strlen(e->o.name)) + JSON_STRING_MAX(strlen(e->o.version)) +
	       JSON_STRING_MAX(strlen(p->table_topic)) + strlen(p->token);
}

static size_t room_after(size_t max, size_t used) { return max > used ? max - used : 0; }

/* The larger value goes first, then the other one; where that is not enough, the headers. */
static void plan(const struct join_envelope *e, const struct join_pair *p, struct plan *out)
{
	size_t own = MESSAGE_OVERHEAD + p->key_len + OWN_HEADERS + strlen(e->o.stream_topic) +
		     ID_NUMBERS + frame_bytes(e, p);
	size_t headers = p->headers_bytes;
	struct plan whole = { .stream = side_planned(p->value, p->value_len),
			      .table = p->table ? side_planned(p->table->value, p->table->value_len)
						: side_of(NULL, 0) };
	bool stream_first = whole.stream.size >= whole.table.size;
	struct side *first = stream_first ? &out->stream : &out->table;
	struct side *second = stream_first ? &out->table : &out->stream;

	*out = whole;
	if (!side_fit(first, second, room_after(e->o.max_bytes, own + headers)) && headers) {
		*out = whole;
		out->drop_headers = true;
		headers = 0;
		side_fit(first, second, room_after(e->o.max_bytes, own));
	}
	out->bytes = own + headers + out->stream.size + out->table.size;
}

/* ---- writing ---- */

static char *put_text(char *p, const char *text) { return json_put_string(p, text, strlen(text)); }

static char *put_origin(char *p, const char *topic, int32_t partition, int64_t offset,
			int64_t timestamp_ms, const struct side *value)
{
	p = put_text(PUT(p, "{\"topic\":"), topic);
	p = put_number(PUT(p, ",\"partition\":"), partition);
	p = put_number(PUT(p, ",\"offset\":"), offset);
	p = put_number_or_null(PUT(p, ",\"ts_ms\":"), timestamp_ms >= 0, timestamp_ms);
	p = side_put(PUT(p, ",\"value\":"), value);
	*p++ = '}';
	return p;
}

static char *put_result(char *p, const struct join_envelope *e, const struct join_pair *pair,
			const struct plan *plan, int64_t ts_ms)
{
	const struct sstate_record *t = pair->table;

	p = put_origin(PUT(p, "{\"stream\":"), e->o.stream_topic, pair->partition, pair->offset,
		       pair->timestamp_ms, &plan->stream);
	p = PUT(p, ",\"table\":");
	p = t ? put_origin(p, pair->table_topic, t->partition, t->offset, t->timestamp_ms,
			   &plan->table)
	      : PUT(p, "null");
	/* digits, colons and commas */
	p = put(PUT(p, ",\"token\":\""), pair->token, strlen(pair->token));
	p = put(PUT(p, "\",\"wait\":\""), pair->wait, strlen(pair->wait));
	p = put_text(PUT(p, "\",\"join\":{\"version\":"), e->o.version);
	p = put_text(PUT(p, ",\"name\":"), e->o.name);
	p = PUT(p, ",\"type\":");
	p = e->o.type == JOIN_LEFT ? PUT(p, "\"left\"") : PUT(p, "\"inner\"");
	p = put_number(PUT(p, "},\"ts_ms\":"), ts_ms);
	*p++ = '}';
	return p;
}

static size_t put_id(struct join_envelope *e, const struct join_pair *pair)
{
	char *p = put(e->id, e->o.stream_topic, strlen(e->o.stream_topic));

	*p++ = '/';
	p = put_number(p, pair->partition);
	*p++ = '/';
	return (size_t)(put_number(p, pair->offset) - e->id);
}

static int reserve(struct join_envelope *e, size_t need)
{
	if (need <= e->cap)
		return 0;
	char *grown = realloc(e->buf, 2 * need);
	if (!grown)
		return -ENOMEM;
	e->buf = grown;
	e->cap = 2 * need;
	return 0;
}

int join_envelope_make(struct join_envelope *e, const struct join_pair *pair, int64_t ts_ms,
		       struct join_result *out)
{
	struct plan p;

	plan(e, pair, &p);
	if (reserve(e, frame_bytes(e, pair) + p.stream.size + p.table.size))
		return -ENOMEM;
	*out = (struct join_result){
		.value = e->buf,
		.value_len = (size_t)(put_result(e->buf, e, pair, &p, ts_ms) - e->buf),
		.id = e->id,
		.id_len = put_id(e, pair),
		.drop_headers = p.drop_headers,
		.wrapped = (p.stream.form == SIDE_WRAPPED) + (p.table.form == SIDE_WRAPPED),
		.omitted = (p.stream.form == SIDE_OMITTED) + (p.table.form == SIDE_OMITTED),
		.bytes = p.bytes,
	};
	return 0;
}
