#include "readback.h"
#include "kafka.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_MS = 5000, POLL_MS = 100, SLACK = 1000 };

int64_t readback_gone_offset(const char *topic, int32_t p, const void *id, size_t len)
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
	return errno || end == text + n || strcmp(end, "/gone") || offset < 0 ? -1 : offset;
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
	const atomic_bool *stop;
	struct readback *out;
	size_t cap;
	char *err;
	size_t err_len;
};

static int keep(struct search *s, const rd_kafka_message_t *m)
{
	rd_kafka_headers_t *hs;
	const void *id;
	size_t len;

	if (rd_kafka_message_headers(m, &hs) ||
	    rd_kafka_header_get_last(hs, "sidenote.id", &id, &len))
		return 0;
	int64_t offset = readback_gone_offset(s->c->source_topic, s->p, id, len);
	if (offset < 0)
		return 0;
	if (s->out->n == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 256;
		int64_t *grown = realloc(s->out->before, cap * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		s->out->before = grown;
		s->cap = cap;
	}
	s->out->before[s->out->n++] = offset;
	return 0;
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
			rc = keep(s, m);
		else if (m->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET ||
			 m->err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) {
			snprintf(s->err, s->err_len, "reading %s back: %s",
				 s->c->notifications_topic, rd_kafka_message_errstr(m));
			rc = -EIO;
		}
		rd_kafka_message_destroy(m);
	}
	rd_kafka_assign(s->rk, NULL);
	return rc;
}

/* Further and further back until n were found, or everything was read. */
static int search(struct search *s, int partitions, uint32_t n)
{
	for (int64_t back = 2LL * n + SLACK;; back *= 4) {
		bool everything = true;
		s->out->n = 0;
		/* where partition counts differ, notifications are placed by key: look in all */
		for (int32_t part = 0; part < partitions; part++) {
			int64_t low, high;
			int rc = kafka_watermarks(s->rk, s->c->notifications_topic, part, ANSWER_MS,
						  &low, &high, s->err, s->err_len);
			if (rc)
				return -EIO;
			int64_t from = high - back > low ? high - back : low;
			everything &= from == low;
			if ((rc = read_from(s, part, from)))
				return rc;
		}
		if (s->out->n >= n || everything)
			return 0;
	}
}

int readback_run(const struct config *c, int32_t p, uint32_t n, const atomic_bool *stop,
		 struct readback *out, char *err, size_t err_len)
{
	struct search s = {
		.c = c, .p = p, .stop = stop, .out = out, .err = err, .err_len = err_len
	};
	int rc = -EIO;

	*out = (struct readback){ 0 };
	s.rk = kafka_new(c, KAFKA_QUERY, NULL, err, err_len);
	if (!s.rk)
		return rc;
	int partitions = kafka_partitions(s.rk, c->notifications_topic, ANSWER_MS, err, err_len);
	if (partitions > 0)
		rc = search(&s, partitions, n);
	kafka_free(s.rk);
	if (rc)
		readback_free(out);
	else if (out->n)
		qsort(out->before, out->n, sizeof(*out->before), by_offset);
	return rc;
}
