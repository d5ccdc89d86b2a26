#include "http_keys.h"
#include "base64.h"
#include "json.h"
#include "metrics.h"
#include "record.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
	STALE_TRIES = 5,
	SLICE_MS = 50, /* between looks at whether the sidecar stops */
	RETRY_S = 1,
	POSITIONS_MAX = 10000, /* of a token */
};

void http_keys_unready(struct http_answer *a, int rc)
{
	http_answer_error(a, 503, "not now: %s; see /readyz?verbose", sstate_strerror(rc));
	http_answer_header(a, "Retry-After", "%d", RETRY_S);
}

/* ---- waiting for a position ---- */

static void put_missing(FILE *f, struct sstate *s, const struct sstate_position *p, int n)
{
	const char *comma = "";

	for (int i = 0; i < n; i++) {
		struct sstate_partition row;
		int rc = sstate_partition(s, p[i].partition, &row);
		struct sstate_position have = { p[i].partition, rc ? -1 : row.applied,
						!rc && row.due > 0 ? row.due : 0 };
		if (!rc && sstate_position_reached(&have, &p[i]))
			continue;
		fprintf(f,
			"%s{\"partition\":%" PRId32 ",\"wanted\":%" PRId64 ",\"applied\":", comma,
			p[i].partition, p[i].offset);
		if (rc)
			fputs("null", f);
		else
			fprintf(f, "%" PRId64, row.applied);
		if (have.due && have.offset >= p[i].offset) /* it is a round that is waited for */
			fprintf(f, ",\"due\":%" PRId64, have.due);
		fputs("}", f);
		comma = ",";
	}
}

static void answer_missing(struct http_answer *a, struct sstate *s, const struct sstate_position *p,
			   int n, int status, const char *why)
{
	FILE *f = http_answer_open(a);

	if (f) {
		fprintf(f, "{\"error\":\"%s\",\"missing\":[", why);
		put_missing(f, s, p, n);
		fputs("]}\n", f);
	}
	http_answer_close(a, f, status, HTTP_JSON);
	if (status == 503)
		http_answer_header(a, "Retry-After", "%d", RETRY_S);
}

/* Whether it was reached in time; -ETIMEDOUT, -ECANCELED: the sidecar stops, or a code. */
static int wait_slices(struct sstate *s, const char *token, int64_t ms, struct http_waits *w)
{
	int rc = -ETIMEDOUT;

	while (ms > 0 && rc == -ETIMEDOUT) {
		int64_t slice = ms < SLICE_MS ? ms : SLICE_MS;
		if (atomic_load(w->stop))
			return -ECANCELED;
		rc = sstate_wait(s, token, slice);
		ms -= slice;
	}
	return rc;
}

static int wait_in_turn(struct sstate *s, const char *token, int64_t ms, struct http_waits *w)
{
	int rc = sstate_wait(s, token, 0);

	if (rc != -ETIMEDOUT || !ms)
		return rc;
	if (atomic_fetch_add(&w->n, 1) < w->max)
		rc = wait_slices(s, token, ms, w);
	else
		rc = -EBUSY;
	atomic_fetch_sub(&w->n, 1);
	return rc;
}

/* What `after` and `wait_ms` ask for: true, or false with the answer. */
static bool reach(struct http_answer *a, struct sstate *s, const struct http_request *r,
		  struct http_waits *w)
{
	struct http_text token = http_request_get(r, "after");
	struct sstate_position *p;
	int64_t ms;
	int n, rc;

	if (!http_request_number(r, "wait_ms", 0, HTTP_WAIT_MS_MAX, 0, &ms)) {
		http_answer_error(a, 400, "wait_ms: a whole number from 0 to %d", HTTP_WAIT_MS_MAX);
		return false;
	}
	if (!token.p)
		return true;
	if (!(p = calloc(POSITIONS_MAX, sizeof(*p)))) {
		http_keys_unready(a, -ENOMEM);
		return false;
	}
	n = strlen(token.p) == token.len ? sstate_token_parse(token.p, p, POSITIONS_MAX) : -EINVAL;
	rc = n < 0 ? n : wait_in_turn(s, token.p, ms, w);
	if (n < 0)
		http_answer_error(a, 400, "after: not a token, as in 0:4712,1:99");
	else if (rc == -ETIMEDOUT && !ms)
		answer_missing(a, s, p, n, 412, "the snapshot is not there yet");
	else if (rc == -ETIMEDOUT)
		answer_missing(a, s, p, n, 503, "the snapshot did not get there in time");
	else if (rc == -EBUSY)
		answer_missing(a, s, p, n, 503, "too many requests wait already");
	else if (rc == -ECANCELED)
		answer_missing(a, s, p, n, 503, "the sidecar stops");
	else if (rc)
		http_keys_unready(a, rc);
	free(p);
	return !rc;
}

/* ---- one key ---- */

struct found {
	struct sstate_buf buf;
	struct sstate_record r;
	char *token;
	size_t size;
};

static int read_token(struct found *f, struct sstate_snapshot *n)
{
	int rc;

	while (!f->size || (rc = sstate_snapshot_token(n, f->token, f->size)) == -ERANGE) {
		char *more = realloc(f->token, f->size ? 2 * f->size : 512);
		if (!more)
			return -ENOMEM;
		f->token = more;
		f->size = f->size ? 2 * f->size : 512;
	}
	return rc;
}

/* The record and the position that it was read at, of one and the same state. */
static int look_up(struct sstate *s, struct http_text key, struct found *f)
{
	int rc = SSTATE_STALE;

	for (int i = 0; i < STALE_TRIES && rc == SSTATE_STALE; i++) {
		struct sstate_snapshot *n;
		if ((rc = sstate_snapshot_begin(&n, s)))
			continue;
		int found = sstate_snapshot_get(n, key.p, key.len, &f->buf, &f->r);
		rc = found && found != -ENOENT ? found : read_token(f, n);
		rc = rc ? rc : found;
		sstate_snapshot_end(n);
	}
	return rc;
}

/* A topic of very many partitions: the position of this record's partition alone. */
static const char *position_in(const char *token, int32_t partition, char *out, size_t size)
{
	char wanted[24];
	int len = snprintf(wanted, sizeof(wanted), "%" PRId32 ":", partition);

	for (const char *at = token; *at; at += strcspn(at, ","), at += *at == ',')
		if (!strncmp(at, wanted, (size_t)len)) {
			snprintf(out, size, "%.*s", (int)strcspn(at, ","), at);
			return out;
		}
	return NULL;
}

static void put_token(struct http_answer *a, const struct found *f, bool found)
{
	const char *token = f->token;
	char one[64];

	if (strlen(token) > HTTP_TOKEN_HEADER_MAX)
		token = found ? position_in(token, f->r.partition, one, sizeof(one)) : NULL;
	if (token)
		http_answer_header(a, "X-Sidenote-Token", "%s", token);
}

static void put_record(struct http_answer *a, const struct sstate_record *r)
{
	FILE *f = http_answer_open(a);

	if (f)
		fwrite(r->value, 1, r->value_len, f);
	http_answer_close(a, f, 200,
			  json_is_object(r->value, r->value_len) ? HTTP_JSON
								 : "application/octet-stream");
	http_answer_header(a, "X-Sidenote-Partition", "%" PRId32, r->partition);
	http_answer_header(a, "X-Sidenote-Offset", "%" PRId64, r->offset);
	if (r->timestamp_ms >= 0)
		http_answer_header(a, "X-Sidenote-Timestamp", "%" PRId64, r->timestamp_ms);
}

void http_keys_get(struct http_answer *a, struct sstate *s, const struct http_request *r,
		   struct http_text key, struct http_waits *w)
{
	static const char *const names[] = { "after", "wait_ms", NULL };
	struct found f = { 0 };
	int rc;

	if (!http_request_knows(r, names)) {
		http_answer_error(a, 400, "after and wait_ms are known here");
		return;
	}
	if (!reach(a, s, r, w))
		return;
	rc = look_up(s, key, &f);
	if (rc && rc != -ENOENT) {
		http_keys_unready(a, rc);
	} else {
		metrics_add(rc ? METRIC_LOOKUPS_ABSENT : METRIC_LOOKUPS_FOUND, 1);
		if (rc)
			http_answer_error(a, 404, "no such key");
		else
			put_record(a, &f.r);
		put_token(a, &f, !rc);
	}
	sstate_buf_free(&f.buf);
	free(f.token);
}

/* ---- some keys ---- */

struct list {
	struct sstate *s;
	FILE *f;
	struct http_text prefix, after;
	int64_t limit;
	uint8_t skip[KEY_STORED_MAX]; /* stored keys up to this one were given before */
	size_t skip_len;
	int64_t n;
	bool full;
	char *last; /* the key that was put last, own */
	size_t last_len;
};

static void put_string(FILE *f, const void *bytes, size_t len)
{
	char *text = malloc(JSON_STRING_MAX(len));

	if (text)
		fwrite(text, 1, (size_t)(json_put_string(text, bytes, len) - text), f);
	else
		fputs("\"\"", f);
	free(text);
}

static void put_base64(FILE *f, const void *bytes, size_t len)
{
	char *text = malloc(BASE64_BYTES(len) + 1);

	if (text)
		fwrite(text, 1, (size_t)(base64_encode(text, bytes, len) - text), f);
	free(text);
}

static void put_escaped(FILE *f, const void *bytes, size_t len)
{
	char *text = malloc(HTTP_ESCAPED_MAX(len) + 1);

	if (text)
		fwrite(text, 1, (size_t)(http_escape(text, bytes, len) - text), f);
	free(text);
}

static void put_headers(FILE *f, const struct sstate_record *r)
{
	struct sstate_header h;
	size_t pos = 0;

	for (int n = 0; sstate_header_next(r, &pos, &h) == 1; n++) {
		fputs(n ? ",{\"name\":" : ",\"headers\":[{\"name\":", f);
		put_string(f, h.name, h.name_len);
		fputs(h.value ? ",\"value\":\"" : ",\"value\":null", f);
		if (h.value) {
			put_base64(f, h.value, h.value_len);
			fputc('"', f);
		}
		fputc('}', f);
	}
	if (pos)
		fputc(']', f);
}

static void put_item(struct list *l, const struct sstate_record *r)
{
	FILE *f = l->f;

	fputs(l->n++ ? ",\n{\"key\":\"" : "\n{\"key\":\"", f);
	put_escaped(f, r->key, r->key_len);
	fprintf(f, "\",\"partition\":%" PRId32 ",\"offset\":%" PRId64, r->partition, r->offset);
	if (r->timestamp_ms >= 0)
		fprintf(f, ",\"timestamp_ms\":%" PRId64, r->timestamp_ms);
	put_headers(f, r);
	fputs(",\"value\":", f);
	if (json_is_object(r->value, r->value_len)) {
		fwrite(r->value, 1, r->value_len, f);
	} else {
		fputs("{\"sidenote.base64\":\"", f);
		put_base64(f, r->value, r->value_len);
		fputs("\"}", f);
	}
	fputc('}', f);
	l->full = l->n >= l->limit || ftello(f) >= HTTP_LIST_BYTES;
}

static int remember_last(struct list *l, const struct sstate_record *r)
{
	char *copy = malloc(r->key_len + 1);

	if (!copy)
		return -ENOMEM;
	memcpy(copy, r->key, r->key_len);
	free(l->last);
	l->last = copy;
	l->last_len = r->key_len;
	return 0;
}

static bool was_given(const struct list *l, const struct sstate_record *r)
{
	uint8_t stored[KEY_STORED_MAX];
	size_t len, shared;

	if (!l->skip_len)
		return false;
	len = record_stored_key(stored, r->key, r->key_len);
	shared = len < l->skip_len ? len : l->skip_len;
	int order = memcmp(stored, l->skip, shared);
	return order < 0 || (order == 0 && len <= l->skip_len);
}

/* Put what is there under one prefix, as far as there is room. */
static int put_under(struct list *l, const void *prefix, size_t len)
{
	struct sstate_scan *c;
	struct sstate_record r;
	int rc = sstate_scan_begin(&c, l->s, prefix, len);

	if (rc)
		return rc;
	while (!l->full && !(rc = sstate_scan_next(c, &r))) {
		if (was_given(l, &r))
			continue;
		put_item(l, &r);
		if ((rc = remember_last(l, &r)))
			break;
	}
	sstate_scan_end(c);
	return rc == -ENOENT ? 0 : rc;
}

static bool is_zeros(struct http_text t)
{
	for (size_t i = 0; i < t.len; i++)
		if (t.p[i])
			return false;
	return true;
}

static bool begins_with(struct http_text t, struct http_text prefix)
{
	return t.len >= prefix.len && !memcmp(t.p, prefix.p, prefix.len);
}

/*
 * The walk begins at a prefix, so what lies behind a key is the union of
 * prefixes, in order: the key itself with what extends it, then for each byte
 * from its last to the first, what has a greater one there.
 */
static int put_behind(struct list *l)
{
	size_t len = l->after.len < KEY_VERBATIM_MAX ? l->after.len : KEY_VERBATIM_MAX;
	char *prefix = malloc(len + 1);
	int rc = prefix ? 0 : -ENOMEM;

	if (rc)
		return rc;
	memcpy(prefix, l->after.p, len);
	rc = put_under(l, prefix, len);
	for (; !rc && !l->full && len > l->prefix.len; len--)
		for (int b = (unsigned char)prefix[len - 1] + 1; b < 256 && !rc && !l->full; b++) {
			prefix[len - 1] = (char)b;
			rc = put_under(l, prefix, len);
		}
	free(prefix);
	return rc;
}

static int put_items(struct list *l)
{
	struct http_text a = l->after, p = l->prefix;

	if (!a.p)
		return put_under(l, p.p, p.len);
	l->skip_len = record_stored_key(l->skip, a.p, a.len);
	if (!l->skip_len)
		return -ENOMEM;
	/* keys of zeros alone stand before the empty one, whose place is nobody's prefix */
	if (is_zeros(a) || p.len > KEY_VERBATIM_MAX)
		return put_under(l, p.p, p.len);
	if (begins_with(a, p))
		return put_behind(l);
	size_t shared = a.len < p.len ? a.len : p.len;
	return memcmp(a.p, p.p, shared) > 0 ? 0 : put_under(l, p.p, p.len);
}

static void put_next(struct list *l)
{
	if (!l->full || !l->last) {
		fputs("\n],\"next\":null}\n", l->f);
		return;
	}
	fputs("\n],\"next\":\"/v1/keys?prefix=", l->f);
	put_escaped(l->f, l->prefix.p, l->prefix.len);
	fprintf(l->f, "&limit=%" PRId64 "&after=", l->limit);
	put_escaped(l->f, l->last, l->last_len);
	fputs("\"}\n", l->f);
}

static int put_list(struct list *l)
{
	struct found at = { 0 };
	struct sstate_snapshot *n;
	int rc = sstate_snapshot_begin(&n, l->s);

	if (!rc) {
		rc = read_token(&at, n);
		sstate_snapshot_end(n);
	}
	if (!rc) {
		fprintf(l->f, "{\"token\":\"%s\",\"keys\":[", at.token);
		rc = put_items(l);
	}
	if (!rc)
		put_next(l);
	free(at.token);
	return rc;
}

void http_keys_list(struct http_answer *a, struct sstate *s, const struct http_request *r)
{
	static const char *const names[] = { "prefix", "limit", "after", NULL };
	struct list l = { .s = s,
			  .prefix = http_request_get(r, "prefix"),
			  .after = http_request_get(r, "after") };

	if (!http_request_knows(r, names)) {
		http_answer_error(a, 400, "prefix, limit and after are known here");
		return;
	}
	if (!http_request_number(r, "limit", 1, HTTP_LIMIT_MAX, HTTP_LIMIT_DEFAULT, &l.limit)) {
		http_answer_error(a, 400, "limit: a whole number from 1 to %d", HTTP_LIMIT_MAX);
		return;
	}
	if (!l.prefix.p)
		l.prefix.p = "";
	l.f = http_answer_open(a);
	int rc = l.f ? put_list(&l) : -ENOMEM;
	http_answer_close(a, l.f, 200, HTTP_JSON);
	if (rc)
		http_keys_unready(a, rc);
	free(l.last);
}
