/* reader.c - open, look up, snapshot.  reader.h tells why it is right without a lock. */
#include "reader.h"

#include "bytes.h"
#include "codes.h"
#include "generation.h"
#include "meta.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	LOOK_EVERY_MS = 100,
	OPEN_TRIES = 20, /* of a file that is just being written, or a generation just replaced */
	OPEN_RETRY_NS = 1000000,
	LARGE_BYTES = 1 << 16, /* not copied before the state is known to be valid */
};

const char *sstate_strerror(int rc) { return code_name(rc); }
const char *sstate_version(void) { return SSTATE_VERSION; }

/* ---- time ---- */

int64_t reader_clock_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t coarse_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- a generation ---- */

void source_put(struct source *src)
{
	if (!src || atomic_fetch_sub(&src->refs, 1) > 1)
		return;
	pages_close(&src->pages);
	free(src);
}

static struct span text(const char *s) { return (struct span){ (const uint8_t *)s, strlen(s) }; }

static int find(struct reading *r, const char *database, struct span key, struct span *value)
{
	struct pages *f = &r->source->pages;
	struct tree t;
	int rc = tree_open(&t, f, &r->commit, database);
	return rc ? rc : tree_find(f, &r->commit, &t, key, value);
}

int reading_meta(struct reading *r, const void *key, size_t key_len, struct span *value)
{
	return find(r, "meta", (struct span){ key, key_len }, value);
}

static int meta_number(struct reading *r, const char *name, int64_t *n)
{
	struct span v, key = text(name);
	int rc = reading_meta(r, key.p, key.len, &v);
	return rc ? rc : meta_decode_int(n, v.p, v.len);
}

/* What has to be known of a generation before it is used. */
static int read_meta(struct source *src)
{
	struct reading r;
	int64_t format, lease_ms;
	int rc = reading_begin(&r, src, true);
	if (!rc)
		rc = meta_number(&r, META_FORMAT, &format);
	if (!rc && format > STATE_FORMAT)
		return SSTATE_FORMAT;
	if (!rc)
		rc = meta_number(&r, META_LEASE_MS, &lease_ms);
	if (!rc && lease_ms < 1)
		rc = -EBADMSG;
	if (!rc)
		src->lease_ns = lease_ms * 1000000;
	return rc == -ENOENT ? -EBADMSG : rc;
}

static int source_open(struct source **out, int dirfd, const char *name)
{
	char file[GENERATION_NAME_BYTES + sizeof("/data.mdb")];
	struct stat st;
	snprintf(file, sizeof(file), "%s/data.mdb", name);
	int fd = openat(dirfd, file, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int rc = generation_check(fd);
	if (!rc && fstat(fd, &st))
		rc = -errno;
	struct source *src = rc ? NULL : calloc(1, sizeof(*src));
	if (!src) {
		close(fd);
		return rc ? rc : -ENOMEM;
	}
	atomic_init(&src->refs, 1);
	src->dev = st.st_dev;
	src->ino = st.st_ino;
	src->generation = generation_number(name);
	rc = pages_open(&src->pages, fd);
	if (!rc)
		rc = read_meta(src);
	if (rc) {
		source_put(src);
		return rc;
	}
	*out = src;
	return 0;
}

static int open_current_once(struct source **out, const char *dir)
{
	char name[GENERATION_NAME_BYTES];
	int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd < 0)
		return -errno;
	int rc = generation_current(dirfd, name);
	if (rc == -ENOENT)
		rc = SSTATE_NOT_READY;
	if (!rc)
		rc = source_open(out, dirfd, name);
	close(dirfd);
	return rc;
}

static int open_current(struct source **out, const char *dir)
{
	int rc = 0;
	for (int i = 0; i < OPEN_TRIES; i++) {
		rc = open_current_once(out, dir);
		/* a meta page half written, or swept away between two of our steps */
		if (rc != -EBADMSG && rc != -ERANGE && rc != -ENOENT)
			return rc;
		nanosleep(&(struct timespec){ .tv_nsec = OPEN_RETRY_NS }, NULL);
	}
	return rc == -ENOENT ? SSTATE_NOT_READY : -EBADMSG;
}

/* ---- the handle ---- */

static int init_lock(pthread_rwlock_t *lock)
{
	pthread_rwlockattr_t a;
	int rc = pthread_rwlockattr_init(&a);
	if (rc)
		return -rc;
	/* or threads that look up without a pause would keep a switch from ever happening */
	pthread_rwlockattr_setkind_np(&a, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	rc = pthread_rwlock_init(lock, &a);
	pthread_rwlockattr_destroy(&a);
	return -rc;
}

int sstate_open(struct sstate **out, const char *dir)
{
	struct sstate *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	int rc = init_lock(&s->lock);
	if (rc) {
		free(s);
		return rc;
	}
	pthread_mutex_init(&s->opening, NULL); /* never fails for a plain one */
	s->dir = strdup(dir);
	rc = s->dir ? open_current(&s->source, dir) : -ENOMEM;
	atomic_init(&s->look_again_ms, coarse_ms() + LOOK_EVERY_MS);
	if (rc) {
		sstate_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

void sstate_close(struct sstate *s)
{
	if (!s)
		return;
	source_put(s->source);
	pthread_mutex_destroy(&s->opening);
	pthread_rwlock_destroy(&s->lock);
	free(s->dir);
	free(s);
}

/* Whether `current` still is what we have open; a moment without it changes nothing. */
static bool is_replaced(const struct sstate *s)
{
	char *path;
	struct stat st;
	if (asprintf(&path, "%s/current/data.mdb", s->dir) < 0)
		return false;
	int rc = stat(path, &st);
	free(path);
	return rc == 0 && (st.st_dev != s->source->dev || st.st_ino != s->source->ino);
}

static void look_for_new(struct sstate *s)
{
	int64_t now = coarse_ms();
	if (now < atomic_load_explicit(&s->look_again_ms, memory_order_relaxed))
		return;
	if (pthread_mutex_trylock(&s->opening))
		return; /* somebody is looking already */
	atomic_store(&s->look_again_ms, now + LOOK_EVERY_MS);
	struct source *new, *old;
	/* only this section writes s->source, so reading it here needs no lock */
	if (is_replaced(s) && open_current_once(&new, s->dir) == 0) {
		pthread_rwlock_wrlock(&s->lock);
		old = s->source;
		s->source = new;
		pthread_rwlock_unlock(&s->lock);
		source_put(old);
	}
	pthread_mutex_unlock(&s->opening);
}

struct source *source_get(struct sstate *s)
{
	look_for_new(s);
	pthread_rwlock_rdlock(&s->lock);
	struct source *src = s->source;
	atomic_fetch_add(&src->refs, 1);
	pthread_rwlock_unlock(&s->lock);
	return src;
}

/* ---- readings ---- */

int reading_begin(struct reading *r, struct source *src, bool timed)
{
	r->source = src;
	r->began_ns = timed ? reader_clock_ns() : 0;
	return commit_read(&r->commit, &src->pages);
}

bool reading_valid(const struct reading *r)
{
	/* neither the commit number nor the clock may be read before what was copied */
	atomic_thread_fence(memory_order_acquire);
	if (pages_last_txnid(&r->source->pages) <= r->commit.txnid + 1)
		return true;
	return r->began_ns && reader_clock_ns() - r->began_ns < r->source->lease_ns;
}

static int run_in(struct source *src, reading_fn *fn, void *arg)
{
	for (int i = 0, damaged = 0; i < READ_TRIES; i++) {
		struct reading r;
		/* without the clock at first: rule 3 nearly always does */
		int rc = reading_begin(&r, src, i > 0);
		if (!rc)
			rc = fn(&r, arg);
		if (reading_valid(&r) && !(rc == -EBADMSG && ++damaged < DAMAGE_TRIES))
			return rc;
	}
	return SSTATE_STALE;
}

int reader_run(struct sstate *s, reading_fn *fn, void *arg)
{
	look_for_new(s);
	pthread_rwlock_rdlock(&s->lock);
	int rc = run_in(s->source, fn, arg);
	pthread_rwlock_unlock(&s->lock);
	return rc;
}

/* ---- records ---- */

void sstate_buf_free(struct sstate_buf *b)
{
	free(b->mem);
	*b = (struct sstate_buf){ 0 };
}

static int reserve(struct sstate_buf *b, size_t size)
{
	if (size <= b->size)
		return 0;
	size_t grown_size = size < 256 ? 256 : size + size / 2;
	void *grown = realloc(b->mem, grown_size);
	if (!grown)
		return -ENOMEM;
	b->mem = grown;
	b->size = grown_size;
	return 0;
}

static void show(struct sstate_record *out, const struct record *d, const void *skey,
		 size_t skey_len)
{
	bool digest = d->flags & RECORD_KEY;
	*out = (struct sstate_record){
		.key = digest ? d->key : skey,
		.key_len = digest ? d->key_len : skey_len,
		.value = d->value,
		.value_len = d->value_len,
		.headers = d->headers,
		.headers_len = d->headers_len,
		.partition = d->partition,
		.offset = d->offset,
		.timestamp_ms = d->timestamp_ms,
	};
}

static int wrong_format(int rc) { return rc == -ENOTSUP ? SSTATE_FORMAT : rc; }

int reading_copy(const struct reading *r, struct span skey, struct span stored,
		 struct sstate_buf *b, struct sstate_record *out)
{
	/* a wrong length costs a copy of the file at worst, so ask first if it is a long one */
	if (stored.len >= LARGE_BYTES && !reading_valid(r))
		return -EBADMSG;
	int rc = reserve(b, skey.len + stored.len);
	if (rc)
		return rc;
	uint8_t *k = b->mem, *bytes = k + skey.len;
	memcpy(k, skey.p, skey.len);
	memcpy(bytes, stored.p, stored.len);
	struct record d;
	rc = record_decode(&d, bytes, stored.len, k, skey.len);
	if (!rc)
		show(out, &d, k, skey.len);
	return wrong_format(rc);
}

/* ---- look up ---- */

struct lookup {
	const void *key;
	size_t key_len;
	struct span skey;
	/* where to: */
	struct sstate_buf *buf;
	struct sstate_record *record;
	/* or: */
	void *value;
	size_t size, *len;
};

/* An ordinary key is stored as it is; `space` is for the others. */
static int prepare(struct lookup *l, const void *key, size_t key_len, uint8_t *space)
{
	l->key = key;
	l->key_len = key_len;
	l->skey = (struct span){ key, key_len };
	if (record_key_is_digest(key_len))
		l->skey = (struct span){ space, record_stored_key(space, key, key_len) };
	return l->skey.len ? 0 : -ENOMEM;
}

/* Two keys could share a digest, though nobody has ever seen any. */
static bool is_other_key(const struct lookup *l, const void *key, size_t key_len)
{
	return key_len != l->key_len || memcmp(key, l->key, key_len) != 0;
}

static int find_record(struct reading *r, void *arg)
{
	struct lookup *l = arg;
	struct sstate_record found;
	struct span v;
	int rc = find(r, "records", l->skey, &v);
	if (!rc)
		rc = reading_copy(r, l->skey, v, l->buf, &found);
	if (rc)
		return rc;
	if (is_other_key(l, found.key, found.key_len))
		return -ENOENT;
	*l->record = found;
	return 0;
}

int sstate_get(struct sstate *s, const void *key, size_t key_len, struct sstate_buf *b,
	       struct sstate_record *r)
{
	struct sstate_record found;
	struct lookup l = { .buf = b, .record = &found };
	uint8_t space[KEY_STORED_MAX] NOT_CLEARED;
	int rc = prepare(&l, key, key_len, space);
	if (!rc)
		rc = reader_run(s, find_record, &l);
	if (!rc)
		*r = found;
	return rc;
}

static int find_value(struct reading *r, void *arg)
{
	struct lookup *l = arg;
	struct record d;
	struct span v;
	int rc = find(r, "records", l->skey, &v);
	if (!rc)
		rc = record_decode(&d, v.p, v.len, l->skey.p, l->skey.len);
	if (rc)
		return wrong_format(rc);
	if (d.flags & RECORD_KEY && is_other_key(l, d.key, d.key_len))
		return -ENOENT;
	*l->len = d.value_len;
	if (d.value_len > l->size)
		return -ERANGE;
	if (d.value_len)
		memcpy(l->value, d.value, d.value_len);
	return 0;
}

int sstate_get_value(struct sstate *s, const void *key, size_t key_len, void *value, size_t size,
		     size_t *len)
{
	size_t found_len;
	struct lookup l = { .value = value, .size = size, .len = &found_len };
	uint8_t space[KEY_STORED_MAX] NOT_CLEARED;
	int rc = prepare(&l, key, key_len, space);
	if (!rc)
		rc = reader_run(s, find_value, &l);
	if (!rc || rc == -ERANGE)
		*len = found_len;
	return rc;
}

int sstate_header_next(const struct sstate_record *r, size_t *pos, struct sstate_header *h)
{
	struct record_header d;
	int rc = record_header_next(r->headers, r->headers_len, pos, &d);
	if (rc == 1)
		*h = (struct sstate_header){ d.name, d.name_len, d.value, d.value_len };
	return rc;
}

/* ---- snapshot ---- */

struct sstate_snapshot {
	struct reading r;
};

int sstate_snapshot_begin(struct sstate_snapshot **out, struct sstate *s)
{
	struct sstate_snapshot *n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	int rc = 0;
	/* a meta page may just be being written, for a moment */
	for (int i = 0; i == 0 || (rc == -EBADMSG && i < DAMAGE_TRIES); i++) {
		source_put(n->r.source);
		rc = reading_begin(&n->r, source_get(s), true);
	}
	if (rc) {
		sstate_snapshot_end(n);
		return rc;
	}
	*out = n;
	return 0;
}

void sstate_snapshot_end(struct sstate_snapshot *n)
{
	if (!n)
		return;
	source_put(n->r.source);
	free(n);
}

static int snapshot_run(struct sstate_snapshot *n, reading_fn *fn, void *arg)
{
	int rc = fn(&n->r, arg);
	return reading_valid(&n->r) ? rc : SSTATE_STALE;
}

int sstate_snapshot_get(struct sstate_snapshot *n, const void *key, size_t key_len,
			struct sstate_buf *b, struct sstate_record *r)
{
	struct sstate_record found;
	struct lookup l = { .buf = b, .record = &found };
	uint8_t space[KEY_STORED_MAX] NOT_CLEARED;
	int rc = prepare(&l, key, key_len, space);
	if (!rc)
		rc = snapshot_run(n, find_record, &l);
	if (!rc)
		*r = found;
	return rc;
}

int sstate_snapshot_token(struct sstate_snapshot *n, char *text, size_t size)
{
	return snapshot_run(n, reading_token, &(struct token_text){ text, size });
}
