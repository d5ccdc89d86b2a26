#include "delta.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 20 };

/* Before each record; then key, headers, value. */
struct head {
	int64_t offset, timestamp_ms;
	uint32_t key_len, headers_len, value_len;
	int32_t partition;
	uint32_t flags;
	uint32_t zero;
};

struct delta {
	int fd;
	atomic_int users;
	atomic_llong written; /* bytes, whole batches */
	atomic_int failed;    /* -errno */
	int64_t taken;
	char *out; /* of the appending thread */
	size_t out_cap;
	char *in; /* of the taking thread: a window on the file */
	size_t in_cap, in_len;
	int64_t in_at;
};

int delta_open(struct delta **out, const char *dir, char *err, size_t err_len)
{
	struct delta *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	atomic_store(&d->users, 1);
	d->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (d->fd < 0) {
		int rc = -errno;
		snprintf(err, err_len, "%s: cannot make a temporary file: %s", dir, strerror(-rc));
		free(d);
		return rc;
	}
	*out = d;
	return 0;
}

struct delta *delta_share(struct delta *d)
{
	atomic_fetch_add(&d->users, 1);
	return d;
}

void delta_close(struct delta *d)
{
	if (!d || atomic_fetch_sub(&d->users, 1) > 1)
		return;
	close(d->fd);
	free(d->out);
	free(d->in);
	free(d);
}

static int room(char **buf, size_t *cap, size_t need)
{
	if (need <= *cap)
		return 0;
	size_t grown_cap = *cap ? *cap : READ_BYTES;
	while (grown_cap < need)
		grown_cap *= 2;
	char *grown = realloc(*buf, grown_cap);
	if (!grown)
		return -ENOMEM;
	*buf = grown;
	*cap = grown_cap;
	return 0;
}

static char *put(char *to, const void *bytes, size_t len)
{
	if (len)
		memcpy(to, bytes, len);
	return to + len;
}

static int write_all(int fd, const char *bytes, size_t len, int64_t at)
{
	while (len) {
		ssize_t n = pwrite(fd, bytes, len, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENOSPC;
		bytes += n;
		len -= (size_t)n;
		at += n;
	}
	return 0;
}

void delta_fail(struct delta *d, int rc) { atomic_store(&d->failed, rc); }
int delta_failed(const struct delta *d) { return atomic_load(&d->failed); }

void delta_append(struct delta *d, const struct batch *b)
{
	size_t need = 0;

	if (delta_failed(d))
		return;

	for (size_t i = 0; i < b->n; i++)
		need += sizeof(struct head) + b->v[i].key_len + b->v[i].rec.headers_len +
			b->v[i].rec.value_len;
	if (room(&d->out, &d->out_cap, need)) {
		delta_fail(d, -ENOMEM);
		return;
	}
	char *to = d->out;
	for (size_t i = 0; i < b->n; i++) {
		const struct batch_record *r = &b->v[i];
		const struct head h = { .offset = r->rec.offset,
					.timestamp_ms = r->rec.timestamp_ms,
					.key_len = (uint32_t)r->key_len,
					.headers_len = (uint32_t)r->rec.headers_len,
					.value_len = (uint32_t)r->rec.value_len,
					.partition = r->rec.partition,
					.flags = r->rec.flags };
		to = put(to, &h, sizeof(h));
		to = put(to, r->key, r->key_len);
		to = put(to, r->rec.headers, r->rec.headers_len);
		to = put(to, r->rec.value, r->rec.value_len);
	}
	int64_t at = atomic_load(&d->written);
	int rc = write_all(d->fd, d->out, need, at);
	if (rc)
		delta_fail(d, rc);
	else
		atomic_store(&d->written, at + (int64_t)need);
}

/* One record from `from`, whose bytes are all there. */
static int take_one(struct batch *b, const struct head *h, const char *from)
{
	const char *bytes =
		arena_copy(&b->arena, from, (size_t)h->key_len + h->headers_len + h->value_len);
	struct batch_record *r = bytes ? batch_add(b, bytes, h->key_len) : NULL;

	if (!r)
		return -ENOMEM;
	r->rec.flags = (uint8_t)h->flags;
	r->rec.partition = h->partition;
	r->rec.offset = h->offset;
	r->rec.timestamp_ms = h->timestamp_ms;
	r->rec.headers = h->headers_len ? bytes + h->key_len : NULL;
	r->rec.headers_len = h->headers_len;
	r->rec.value = h->flags & RECORD_TOMBSTONE ? NULL : bytes + h->key_len + h->headers_len;
	r->rec.value_len = h->value_len;
	return 0;
}

/* *p: `need` bytes of the file from d->taken on; they are known to be written. */
static int look(struct delta *d, size_t need, int64_t end, const char **p)
{
	if (d->taken < d->in_at || d->taken + (int64_t)need > d->in_at + (int64_t)d->in_len) {
		size_t left = (size_t)(end - d->taken);
		size_t len = need > READ_BYTES ? need : left < READ_BYTES ? left : READ_BYTES;
		if (room(&d->in, &d->in_cap, len))
			return -ENOMEM;
		d->in_at = d->taken;
		for (d->in_len = 0; d->in_len < len;) {
			ssize_t n = pread(d->fd, d->in + d->in_len, len - d->in_len,
					  d->in_at + (int64_t)d->in_len);
			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				return n ? -errno : -EIO;
			d->in_len += (size_t)n;
		}
	}
	*p = d->in + (d->taken - d->in_at);
	return 0;
}

int delta_take(struct delta *d, struct batch *b, size_t max)
{
	int64_t end = atomic_load(&d->written);
	int rc = 0;

	while (!rc && b->n < max && d->taken < end) {
		const char *p;
		struct head h;

		if ((rc = look(d, sizeof(h), end, &p)))
			break;
		memcpy(&h, p, sizeof(h));
		size_t len = sizeof(h) + h.key_len + h.headers_len + h.value_len;
		if (!(rc = look(d, len, end, &p)) && !(rc = take_one(b, &h, p + sizeof(h))))
			d->taken += (int64_t)len;
	}
	return rc;
}
