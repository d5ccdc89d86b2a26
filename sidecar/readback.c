#include "readback.h"
#include "kafka.h"
#include "notice.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_MS = 5000, POLL_MS = 100, WINDOW = 1000 };

int64_t readback_offset(const char *topic, int32_t p, const void *id, size_t len, bool *gone)
{
	char text[400], prefix[300];
	char *end;

	int n = snprintf(prefix, sizeof(prefix), "%s/%d/", topic, p);
	if (len >= sizeof(text) || n < 0 || (size_t)n >= sizeof(prefix))
		return -1;
	memcpy(text, id, len);
	text[len] = '\0';
	if (strncmp(text, prefix, (size_t)n))
		return -1;
	errno = 0;
	long long offset = strtoll(text + n, &end, 10);
	*gone = !strcmp(end, "/gone");
	return errno || end == text + n || (*end && !*gone) || offset < 0 ? -1 : offset;
}

static int by_offset(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return x < y ? -1 : x > y;
}

bool readback_has(const struct readback *r, int64_t before_offset)
{
	return r->n && bsearch(&before_offset, r->before, r->n, sizeof(*r->before), by_offset);
}

void readback_free(struct readback *r)
{
	free(r->before);
	*r = (struct readback){ 0 };
}

struct search {
	const struct config *c;
	rd_kafka_t *rk;
	int32_t p;
	int64_t since;
	bool reached; /* a notification of a change at or before `since` was seen */
	const atomic_bool *stop;
	struct readback *out;
	size_t cap;
	struct record_header *headers;
	size_t headers_cap;
	char *err;
	size_t err_len;
};

static int keep(struct search *s, int64_t before_offset)
{
	if (s->out->n == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 256;
		int64_t *grown = realloc(s->out->before, cap * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		s->out->before = grown;
		s->cap = cap;
	}
	s->out->before[s->out->n++] = before_offset;
	return 0;
}

static int take_headers(struct search *s, rd_kafka_headers_t *hs, struct note *n)
{
	struct record_header h;

	for (; !rd_kafka_header_get_all(hs, n->n_headers, &h.name, &h.value, &h.value_len);
	     n->n_headers++) {
		if (n->n_headers == s->headers_cap) {
			size_t cap = s->headers_cap ? s->headers_cap * 2 : 32;
			struct record_header *grown = realloc(s->headers, cap * sizeof(*grown));
			if (!grown)
				return -ENOMEM;
			s->headers = grown;
			s->headers_cap = cap;
		}
		h.name_len = strlen(h.name);
		s->headers[n->n_headers] = h;
	}
	n->headers = s->headers;
	return 0;
}

static int take(struct search *s, const rd_kafka_message_t *m)
{
	struct note n = { .key = m->key ? m->key : "",
			  .key_len = m->key ? m->key_len : 0,
			  .value = m->payload,
			  .value_len = m->len };
	rd_kafka_headers_t *hs;
	struct notice r;
	const void *id;
	bool gone;
	size_t len;
	int rc;

	if (rd_kafka_message_headers(m, &hs) ||
	    rd_kafka_header_get_last(hs, "sidenote.id", &id, &len))
		return 0;
	int64_t offset = readback_offset(s->c->source_topic, s->p, id, len, &gone);
	if (offset < 0)
		return 0;
	s->reached |= !gone && offset <= s->since;
	if (gone)
		return keep(s, offset);
	if ((rc = take_headers(s, hs, &n)) || (rc = notice_open(&r, &n)))
		return rc == -EINVAL ? 0 : rc;
	rc = r.before_offset >= s->since ? keep(s, r.before_offset) : 0;
	notice_close(&r);
	return rc;
}

/* Read one partition of the notification topic from `from` to its end. */
static int read_from(struct search *s, int32_t part, int64_t from)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(1);
	bool at_end = false;
	int rc = 0;

	rd_kafka_topic_partition_list_add(l, s->c->notifications_topic, part)->offset = from;
	rd_kafka_assign(s->rk, l);
	rd_kafka_topic_partition_list_destroy(l);
	while (!rc && !at_end) {
		rd_kafka_message_t *m = rd_kafka_consumer_poll(s->rk, POLL_MS);
		if (atomic_load(s->stop))
			rc = -EINTR;
		if (!m)
			continue;
		if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
			at_end = true;
		else if (!m->err)
			rc = take(s, m);
		else if (m->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET ||
			 m->err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) {
			bool denied = m->err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
			snprintf(s->err, s->err_len, "reading %s back: %s%s%s",
				 s->c->notifications_topic, rd_kafka_message_errstr(m),
				 denied ? "; grant Read on topic " : "",
				 denied ? s->c->notifications_topic : "");
			rc = -EIO;
		}
		rd_kafka_message_destroy(m);
	}
	rd_kafka_assign(s->rk, NULL);
	return rc;
}

/* Further and further back, until what is told there is older than `since`. */
static int search_part(struct search *s, int32_t part)
{
	int64_t low, high, from;

	for (int64_t back = WINDOW;; back *= 4) {
		if (kafka_watermarks(s->rk, s->c->notifications_topic, part, ANSWER_MS, &low, &high,
				     s->err, s->err_len))
			return -EIO;
		from = high - back > low ? high - back : low;
		size_t kept = s->out->n;
		s->reached = false;
		int rc = read_from(s, part, from);
		if (rc || s->reached || from == low)
			return rc;
		s->out->n = kept;
	}
}

/* Where partition counts differ, notifications are placed by key: look in all. */
static int search(struct search *s)
{
	int n = kafka_partitions(s->rk, s->c->notifications_topic, ANSWER_MS, s->err, s->err_len);
	int rc = n > 0 ? 0 : -EIO;

	for (int32_t part = 0; part < n && !rc; part++)
		rc = search_part(s, part);
	return rc;
}

int readback_run(const struct config *c, int32_t p, int64_t since, const atomic_bool *stop,
		 struct readback *out, char *err, size_t err_len)
{
	struct search s = { .c = c,
			    .p = p,
			    .since = since,
			    .stop = stop,
			    .out = out,
			    .err = err,
			    .err_len = err_len };
	int rc;

	*out = (struct readback){ 0 };
	s.rk = kafka_new(c, KAFKA_QUERY, NULL, err, err_len);
	if (!s.rk)
		return -EIO;
	rc = search(&s);
	kafka_free(s.rk);
	free(s.headers);
	if (rc)
		readback_free(out);
	else if (out->n)
		qsort(out->before, out->n, sizeof(*out->before), by_offset);
	return rc;
}
