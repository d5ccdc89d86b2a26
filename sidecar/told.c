#include "told.h"
#include "kafka.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_MS = 5000, POLL_MS = 100, FIRST_LOOK = 10000 };

struct told {
	const struct told_what *w;
	struct told_key *v;
	size_t n, cap;
	uint64_t seq;
	bool is_older; /* a change before `from` was seen */
	struct record_header *headers;
	size_t headers_cap;
};

struct told *told_new(const struct told_what *w)
{
	struct told *t = calloc(1, sizeof(*t));

	if (t)
		t->w = w;
	return t;
}

void told_free(struct told *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n; i++)
		free(t->v[i].value);
	free(t->v);
	free(t->headers);
	free(t);
}

/* ---- the last of each key ---- */

static int by_key_and_time(const void *a, const void *b)
{
	const struct told_key *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

void told_sort(struct told *t)
{
	size_t n = 0;

	if (t->n)
		qsort(t->v, t->n, sizeof(*t->v), by_key_and_time);
	for (size_t i = 0; i < t->n; i++) {
		if (i + 1 < t->n && t->v[i].hash == t->v[i + 1].hash)
			free(t->v[i].value);
		else
			t->v[n++] = t->v[i];
	}
	t->n = n;
}

static int make_room(struct told *t)
{
	if (t->n < t->cap)
		return 0;
	told_sort(t);
	if (t->cap && t->n < t->cap / 2)
		return 0;
	size_t cap = t->cap ? t->cap * 2 : 1024;
	struct told_key *grown = realloc(t->v, cap * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	t->v = grown;
	t->cap = cap;
	return 0;
}

const struct told_key *told_last(const struct told *t, const void *key, size_t key_len, int64_t r)
{
	uint64_t hash = record_hash(key, key_len);
	size_t low = 0, high = t ? t->n : 0;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		if (t->v[mid].hash < hash)
			low = mid + 1;
		else
			high = mid;
	}
	if (!t || low == t->n || t->v[low].hash != hash)
		return NULL;
	return t->v[low].offset > r ? &t->v[low] : NULL;
}

/* ---- one notification ---- */

static int keep(struct told *t, const struct note *n, const struct notice *r)
{
	int rc = make_room(t);

	if (rc)
		return rc;
	struct told_key *k = &t->v[t->n];
	*k = (struct told_key){ .hash = record_hash(n->key, n->key_len),
				.seq = t->seq++,
				.offset = r->offset,
				.ts_ms = r->ts_ms,
				.op = r->op };
	if (r->after && !r->after_omitted && t->w->wanted &&
	    t->w->wanted(t->w->opaque, r->offset)) {
		if (!(k->value = malloc(r->after_len + 1)))
			return -ENOMEM;
		memcpy(k->value, r->after, r->after_len);
		k->value_len = r->after_len;
	}
	t->n++;
	return 0;
}

static bool is_of_partition(const struct told *t, const struct notice *r)
{
	char prefix[300];
	int len = snprintf(prefix, sizeof(prefix), "%s/%d/", t->w->c->source_topic, t->w->p);

	return len > 0 && (size_t)len < sizeof(prefix) && r->id_len > (size_t)len &&
	       !memcmp(r->id, prefix, (size_t)len);
}

static bool is_gone(const struct notice *r)
{
	static const char end[] = "/gone";
	size_t len = sizeof(end) - 1;

	return r->id_len > len && !memcmp(r->id + r->id_len - len, end, len);
}

/* The token of a gone key says from where on it was known to be gone, whichever of its records the
 * teller had; its offset is a place in the journal. */
static int64_t gone_at(const struct note *n, int64_t place)
{
	for (size_t i = 0; i < n->n_headers; i++) {
		const struct record_header *h = &n->headers[i];
		char text[40];
		int p;
		long long at;
		if (h->name_len != strlen("sidenote.token") ||
		    memcmp(h->name, "sidenote.token", h->name_len) || h->value_len >= sizeof(text))
			continue;
		memcpy(text, h->value, h->value_len);
		text[h->value_len] = '\0';
		return sscanf(text, "%d:%lld", &p, &at) == 2 && at > place ? at : place;
	}
	return place;
}

int told_take(struct told *t, const struct note *n)
{
	struct notice r;
	int rc = notice_open(&r, n);

	if (rc) /* somebody else's message */
		return rc == -ENOMEM ? rc : 0;
	if (is_of_partition(t, &r) && r.offset >= 0) {
		bool gone = is_gone(&r);
		if (gone)
			r.offset = gone_at(n, r.offset);
		if (gone || r.offset >= t->w->from)
			rc = keep(t, n, &r);
		else
			t->is_older = true;
	}
	notice_close(&r);
	return rc;
}

static int take_headers(struct told *t, const rd_kafka_message_t *m, struct note *n)
{
	rd_kafka_headers_t *hs;

	if (rd_kafka_message_headers(m, &hs))
		return 0;
	for (size_t i = 0;; i++) {
		struct record_header h;
		if (rd_kafka_header_get_all(hs, i, &h.name, &h.value, &h.value_len))
			return 0;
		if (i == t->headers_cap) {
			size_t cap = i ? i * 2 : 16;
			struct record_header *more = realloc(t->headers, cap * sizeof(*more));
			if (!more)
				return -ENOMEM;
			t->headers = more;
			t->headers_cap = cap;
		}
		h.name_len = strlen(h.name);
		t->headers[i] = h;
		n->headers = t->headers;
		n->n_headers = i + 1;
	}
}

static int take_message(struct told *t, const rd_kafka_message_t *m)
{
	struct note n = { .key = m->key ? m->key : "",
			  .key_len = m->key ? m->key_len : 0,
			  .value = m->payload,
			  .value_len = m->len };
	int rc = take_headers(t, m, &n);

	return rc ? rc : told_take(t, &n);
}

/* ---- how far back ---- */

static int say_denied(const struct told *t, const rd_kafka_message_t *m, char *err, size_t err_len)
{
	const char *topic = t->w->c->notifications_topic;
	bool denied = m->err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;

	if (!denied && m->err != RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET)
		return 0; /* it passes */
	snprintf(err, err_len, "reading %s back: %s%s%s", topic, rd_kafka_message_errstr(m),
		 denied ? "; grant Read on topic " : "", denied ? topic : "");
	return -EIO;
}

static int read_from(struct told *t, rd_kafka_t *rk, int32_t part, int64_t from,
		     const atomic_bool *stop, char *err, size_t err_len)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(1);
	bool at_end = false;
	int rc = 0;

	rd_kafka_topic_partition_list_add(l, t->w->c->notifications_topic, part)->offset = from;
	rd_kafka_assign(rk, l);
	rd_kafka_topic_partition_list_destroy(l);
	while (!rc && !at_end) {
		rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, POLL_MS);
		if (atomic_load(stop))
			rc = -EINTR;
		if (m && m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
			at_end = true;
		else if (m && !rc)
			rc = m->err ? say_denied(t, m, err, err_len) : take_message(t, m);
		if (m)
			rd_kafka_message_destroy(m);
	}
	rd_kafka_assign(rk, NULL);
	return rc;
}

/* Further and further back, until something older is seen or everything was read.  What is read
 * twice is the same again. */
static int read_partition(struct told *t, rd_kafka_t *rk, int32_t part, const atomic_bool *stop,
			  char *err, size_t err_len)
{
	t->is_older = false;
	for (int64_t back = FIRST_LOOK;; back *= 4) {
		int64_t low, high;
		if (kafka_watermarks(rk, t->w->c->notifications_topic, part, ANSWER_MS, &low, &high,
				     err, err_len))
			return -EIO;
		int64_t from = high - back > low ? high - back : low;
		int rc = from < high ? read_from(t, rk, part, from, stop, err, err_len) : 0;
		if (rc || t->is_older || from == low)
			return rc;
	}
}

int told_read(struct told **out, const struct told_what *w, const atomic_bool *stop, char *err,
	      size_t err_len)
{
	struct told *t = told_new(w);
	rd_kafka_t *rk = kafka_new(w->c, KAFKA_QUERY, NULL, err, err_len);
	int rc = !t ? -ENOMEM : rk ? 0 : -EIO, n = 0;

	if (!rc) {
		n = kafka_partitions(rk, w->c->notifications_topic, ANSWER_MS, err, err_len);
		rc = n < 0 ? -EIO : 0;
	}
	/* where partition counts differ, notifications are placed by key: look in all */
	for (int32_t part = 0; part < n && !rc; part++)
		if (n != w->n || part == w->p)
			rc = read_partition(t, rk, part, stop, err, err_len);
	kafka_free(rk);
	if (rc) {
		told_free(t);
		return rc;
	}
	told_sort(t);
	t->w = NULL;
	*out = t;
	return 0;
}
