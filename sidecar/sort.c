/*
 * sort.c - buffers, runs, and the merge that makes everything out of them.
 *
 * An item is a stored key and a stored record in one piece.  A buffer has items
 * from its start and an index of them from its end.  A run is sorted items in
 * the file.  One merge() takes any number of sources, buffers or runs, from the
 * oldest to the newest: of one sorted buffer it makes a run, of many runs one,
 * and of everything that is left at the end the result.
 *
 * Two threads meet under one lock, at whole buffers on the way in and at whole
 * blocks on the way out.  What a buffer or a block holds belongs to the side
 * that has it.
 */
#include "sort.h"
#include "decide.h"
#include "escape.h"
#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	HUGE_PAGE = 2 << 20,
	FILE_BLOCK = 4096,    /* what file systems can give back */
	GIVE_BACK = 1 << 20,  /* ... and how much is worth a call */
	READ_MAX = 256 << 10, /* of a run at once */
	BLOCK_MAX = 1 << 20,  /* of what is written or handed out at once */
	FAN_IN_MIN = 8,       /* runs of one level that become one of the next */
	FAN_IN_MAX = 512,
	FEW = 24,  /* entries that are sorted by insertion */
	AHEAD = 8, /* items that are fetched from memory before their turn */
};

struct item {
	uint32_t rec_len;
	uint16_t skey_len;
	uint16_t tombstone;
	uint8_t bytes[]; /* key, record, zeros up to a multiple of 8 */
};

struct entry {
	uint64_t order; /* while sorting: eight bytes of the key, after what those around share */
	uint64_t at;    /* of the item in its buffer: also tells which one is older */
};

struct buffer {
	uint8_t *bytes;
	size_t size, used;
	size_t n;      /* entries, at the end of `bytes` */
	size_t prefix; /* bytes that all keys begin with */
};

struct run {
	off_t begin, end;
	int level; /* 0: a buffer; higher ones are made of FAN_IN of the level below */
};

struct block {
	uint8_t *bytes;
	size_t size, used;
	bool full; /* with `lock`: the reader's */
};

struct sorter {
	char *dir;
	enum moved moved;
	bool versions; /* every one is given back */
	size_t memory;
	int fan_in;

	/* the caller's */
	struct buffer buffer[2];
	int filling;
	uint8_t first_key[KEY_STORED_MAX];
	size_t prefix;
	bool any;
	int reading;              /* block; -1: none yet */
	const uint8_t *at, *upto; /* what is left of it */

	pthread_t thread;
	bool started;
	pthread_mutex_t lock;
	pthread_cond_t turn;
	/* with `lock` */
	struct buffer *job; /* to be made a run */
	bool finishing, done, quit;
	int rc;
	char err[400];

	/* the thread's */
	struct buffer *kept; /* sorted, and needed in no file any more; NULL: none */
	struct block block[2];
	int fd;
	off_t end;           /* of the file */
	size_t known_prefix; /* of all keys that the thread has seen */
	struct run *runs;
	int n_runs, cap_runs;
	uint64_t made, spilled;
};

/* ---- errors ---- */

static int fail(struct sorter *s, int rc, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The first one stays. */
static int fail(struct sorter *s, int rc, const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&s->lock);
	if (!s->rc) {
		va_start(ap, fmt);
		vsnprintf(s->err, sizeof(s->err), fmt, ap);
		va_end(ap);
		s->rc = rc;
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

static int no_memory(struct sorter *s) { return fail(s, -ENOMEM, "sorting: out of memory"); }

static int io_failed(struct sorter *s, int error, const char *what)
{
	bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;

	return fail(s, full ? -ENOSPC : -error, "%s: sorting: %s: %s", s->dir, what,
		    strerror(error));
}

static int damaged(struct sorter *s)
{
	return fail(s, -EBADMSG, "%s: sorting: the temporary file is not what was written", s->dir);
}

const char *sort_error(struct sorter *s) { return s->err; }

/* ---- items ---- */

static size_t item_bytes(size_t skey_len, size_t rec_len)
{
	return (sizeof(struct item) + skey_len + rec_len + 7) & ~(size_t)7;
}

static size_t bytes_of(const struct item *it) { return item_bytes(it->skey_len, it->rec_len); }

static uint64_t order_of(const uint8_t *key, size_t len, size_t prefix)
{
	uint64_t x = 0;

	if (len >= prefix + 8)
		memcpy(&x, key + prefix, 8);
	else if (len > prefix)
		memcpy(&x, key + prefix, len - prefix);
	return __builtin_bswap64(x); /* little endian hosts only: see record.h */
}

static int compare_keys(const struct item *a, const struct item *b)
{
	size_t min = a->skey_len < b->skey_len ? a->skey_len : b->skey_len;
	int c = memcmp(a->bytes, b->bytes, min);

	return c ? c : (a->skey_len > b->skey_len) - (a->skey_len < b->skey_len);
}

static bool same_key(const struct item *a, const struct item *b)
{
	return a->skey_len == b->skey_len && !memcmp(a->bytes, b->bytes, a->skey_len);
}

static int decode(struct sorter *s, const struct item *it, struct record *r)
{
	return record_decode(r, it->bytes + it->skey_len, it->rec_len, it->bytes, it->skey_len)
		       ? damaged(s)
		       : 0;
}

/* ---- a buffer ---- */

static struct entry *entries(const struct buffer *b)
{
	return (struct entry *)(b->bytes + b->size) - b->n;
}

static int buffer_init(struct buffer *b, size_t size)
{
	size_t align = size >= HUGE_PAGE ? HUGE_PAGE : FILE_BLOCK;

	free(b->bytes);
	size = (size + align - 1) & ~(align - 1);
	*b = (struct buffer){ .bytes = aligned_alloc(align, size), .size = size };
	if (b->bytes && align == HUGE_PAGE)
		madvise(b->bytes, size, MADV_HUGEPAGE); /* a wish: it is read in random order */
	return b->bytes ? 0 : -ENOMEM;
}

static bool fits(const struct buffer *b, size_t bytes)
{
	return b->size - b->used >= bytes + (b->n + 1) * sizeof(struct entry);
}

static const struct item *item_at(const struct buffer *b, const struct entry *e)
{
	return (const struct item *)(b->bytes + e->at);
}

static bool entry_before(const struct buffer *b, const struct entry *x, const struct entry *y)
{
	if (x->order != y->order)
		return x->order < y->order;
	int c = compare_keys(item_at(b, x), item_at(b, y));
	return c ? c < 0 : x->at < y->at;
}

static int by_entry(const void *x, const void *y, void *b)
{
	return entry_before(b, x, y) ? -1 : entry_before(b, y, x);
}

static void sort_entries(const struct buffer *b, struct entry *e, size_t n, size_t depth);

static void insertion_sort(const struct buffer *b, struct entry *e, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		struct entry x = e[i];
		size_t j = i;
		for (; j > 0 && entry_before(b, &x, &e[j - 1]); j--)
			e[j] = e[j - 1];
		e[j] = x;
	}
}

/* By the byte of `order` at `shift`, in place; then each of the parts that this makes. */
static void radix_sort(const struct buffer *b, struct entry *e, size_t n, size_t depth, int shift)
{
	size_t count[256] = { 0 }, at[256], end[256], sum = 0;

#define BYTE(x) ((x).order >> shift & 255)
	for (size_t i = 0; i < n; i++)
		count[BYTE(e[i])]++;
	for (int c = 0; c < 256; c++) {
		at[c] = sum;
		end[c] = sum += count[c];
	}
	for (size_t c = 0; c < 256; c++)
		while (at[c] < end[c]) {
			struct entry x = e[at[c]];
			for (size_t d; (d = BYTE(x)) != c;) {
				struct entry y = e[at[d]];
				e[at[d]++] = x;
				x = y;
			}
			e[at[c]++] = x;
		}
#undef BYTE
	for (int c = 0; c < 256; c++) {
		struct entry *part = e + end[c] - count[c];
		if (count[c] <= FEW)
			insertion_sort(b, part, count[c]);
		else if (shift)
			radix_sort(b, part, count[c], depth, shift - 8);
		else
			sort_entries(b, part, count[c], depth + 8);
	}
}

/* Entries whose keys have their first `depth` bytes in common. */
static void sort_entries(const struct buffer *b, struct entry *e, size_t n, size_t depth)
{
	for (size_t longest = SIZE_MAX; depth < longest; depth += 8) {
		uint64_t differs = 0;
		longest = 0;
		for (size_t i = 0; i < n; i++) {
			const struct item *it = item_at(b, &e[i]);
			e[i].order = order_of(it->bytes, it->skey_len, depth);
			differs |= e[i].order ^ e[0].order;
			longest = it->skey_len > longest ? it->skey_len : longest;
		}
		if (differs) {
			radix_sort(b, e, n, depth, 56 - __builtin_clzll(differs) / 8 * 8);
			return;
		}
	}
	qsort_r(e, n, sizeof(*e), by_entry, (void *)b); /* one key, or zeros at the end of it */
}

/* ---- the file ---- */

static int open_file(struct sorter *s)
{
	int dir = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		return io_failed(s, errno, "opening the directory");
	s->fd = openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (s->fd < 0) { /* a file system that cannot: a name, for a moment */
		s->fd = openat(dir, "sort.tmp", O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
		if (s->fd >= 0)
			unlinkat(dir, "sort.tmp", 0);
	}
	int error = errno;
	close(dir);
	return s->fd < 0 ? io_failed(s, error, "making a temporary file") : 0;
}

static int append_file(struct sorter *s, const uint8_t *bytes, size_t len)
{
	int rc = s->fd < 0 ? open_file(s) : 0;

	if (rc)
		return rc;
	s->spilled += len;
	FAULT_POINT("sort.spill");
	while (len) {
		ssize_t n = pwrite(s->fd, bytes, len, s->end);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return io_failed(s, n ? errno : ENOSPC, "writing the temporary file");
		bytes += n;
		len -= (size_t)n;
		s->end += n;
	}
	return 0;
}

/* Blocks of the file before `upto` are read for good; file systems that keep them: so be it. */
static void give_back(struct sorter *s, off_t *from, off_t upto)
{
	upto &= ~(off_t)(FILE_BLOCK - 1);
	if (upto > *from)
		fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, *from, upto - *from);
	*from = upto;
}

/* ---- a source of a merge ---- */

struct source {
	const struct item *item; /* its head, the key at least in one piece; NULL: at its end */
	uint64_t order;
	struct buffer *buffer; /* NULL: a run */
	size_t next;
	uint8_t *bytes; /* of a run: what was read and not taken yet */
	size_t size, from, filled;
	off_t at, end, given_back;
};

static int read_run(struct sorter *s, struct source *v, uint8_t *to, size_t len)
{
	while (len) {
		ssize_t n = pread(s->fd, to, len, v->at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return io_failed(s, errno, "reading the temporary file");
		if (n == 0)
			return damaged(s);
		to += n;
		len -= (size_t)n;
		v->at += n;
	}
	if (v->at == v->end) /* the next run begins with a block of its own */
		give_back(s, &v->given_back, v->at + FILE_BLOCK - 1);
	else if (v->at - v->given_back >= GIVE_BACK)
		give_back(s, &v->given_back, v->at);
	return 0;
}

/* Have `len` bytes of a run in one piece: a header and a key at most. */
static int peek(struct sorter *s, struct source *v, size_t len)
{
	if (v->filled - v->from >= len)
		return 0;
	if ((size_t)(v->end - v->at) < len - (v->filled - v->from))
		return damaged(s);
	memmove(v->bytes, v->bytes + v->from, v->filled - v->from);
	v->filled -= v->from;
	v->from = 0;
	size_t want = v->size - v->filled;
	if ((off_t)want > v->end - v->at)
		want = (size_t)(v->end - v->at);
	int rc = read_run(s, v, v->bytes + v->filled, want);
	if (rc)
		return rc;
	v->filled += want;
	return 0;
}

static int next_of_run(struct sorter *s, struct source *v, size_t prefix)
{
	v->item = NULL;
	if (v->from == v->filled && v->at == v->end)
		return 0;
	int rc = peek(s, v, sizeof(struct item));
	const struct item *it = (const struct item *)(v->bytes + v->from);
	if (!rc && (it->skey_len < prefix || it->skey_len > KEY_STORED_MAX ||
		    bytes_of(it) > v->filled - v->from + (size_t)(v->end - v->at)))
		rc = damaged(s);
	if (!rc)
		rc = peek(s, v, sizeof(struct item) + it->skey_len);
	if (rc)
		return rc;
	v->item = (const struct item *)(v->bytes + v->from);
	v->order = order_of(v->item->bytes, v->item->skey_len, prefix);
	return 0;
}

static void next_of_buffer(struct source *v, size_t prefix)
{
	const struct entry *e = entries(v->buffer) + v->next;

	v->item = NULL;
	if (v->next == v->buffer->n)
		return;
	v->item = item_at(v->buffer, e);
	v->order = order_of(v->item->bytes, v->item->skey_len, prefix);
	if (++v->next + AHEAD < v->buffer->n)
		for (int line = 0; line < 4; line++)
			__builtin_prefetch((const char *)item_at(v->buffer, e + AHEAD) + line * 64);
}

/* Copy the head, and step on. */
static int take(struct sorter *s, struct source *v, size_t prefix, uint8_t *to)
{
	size_t len = bytes_of(v->item);
	int rc = 0;

	if (v->buffer) {
		memcpy(to, v->item, len);
		next_of_buffer(v, prefix);
		return 0;
	}
	size_t here = v->filled - v->from < len ? v->filled - v->from : len;
	memcpy(to, v->item, here);
	v->from += here;
	if (here < len)
		rc = read_run(s, v, to + here, len - here);
	return rc ? rc : next_of_run(s, v, prefix);
}

/* ---- merging ---- */

struct merge {
	struct sorter *s;
	struct source *v; /* [k], the oldest first */
	int k;
	int *tree; /* [k]: the losers of a tournament of the heads, and its winner at 0 */
	size_t prefix;
	bool last; /* the result, for the reader; else a run */
	struct block *out;
	size_t pending; /* where the newest item begins, whose key may come again */
	uint64_t pending_order;
	bool has_pending;
};

static bool source_before(const struct merge *m, int x, int y)
{
	const struct source *a = &m->v[x], *b = &m->v[y];

	if (!a->item || !b->item)
		return a->item;
	if (a->order != b->order)
		return a->order < b->order;
	int c = compare_keys(a->item, b->item);
	return c ? c < 0 : x < y;
}

static int play(struct merge *m, int node)
{
	if (node >= m->k)
		return node - m->k;
	int a = play(m, node * 2), b = play(m, node * 2 + 1);
	bool a_wins = source_before(m, a, b);
	m->tree[node] = a_wins ? b : a;
	return a_wins ? a : b;
}

static void replay(struct merge *m, int winner)
{
	for (int node = (winner + m->k) / 2; node > 0; node /= 2)
		if (source_before(m, m->tree[node], winner)) {
			int loser = winner;
			winner = m->tree[node];
			m->tree[node] = loser;
		}
	m->tree[0] = winner;
}

static struct item *pending_item(const struct merge *m)
{
	return (struct item *)(m->out->bytes + m->pending);
}

/* What is written is a buffer, and after it comes the end, to which it can go from memory. */
enum { NOT_NEEDED = 1 };

/* Whether writing a run still has a purpose: 0, NOT_NEEDED or < 0. */
static int is_over(const struct merge *m)
{
	struct sorter *s = m->s;

	pthread_mutex_lock(&s->lock);
	bool quit = s->quit, finishing = s->finishing;
	pthread_mutex_unlock(&s->lock);
	return quit ? -ECANCELED : finishing && m->v[0].buffer ? NOT_NEEDED : 0;
}

static int block_init(struct block *b, size_t size)
{
	uint8_t *grown = realloc(b->bytes, size);

	if (!grown)
		return -ENOMEM;
	b->bytes = grown;
	b->size = size;
	return 0;
}

/* Hand `out` to the reader and go on with the other block. */
static int pass_on(struct merge *m, size_t upto)
{
	struct sorter *s = m->s;
	struct block *full = m->out, *next = &s->block[full == &s->block[0]];
	size_t left = full->used - upto;

	pthread_mutex_lock(&s->lock);
	while (next->full && !s->quit)
		pthread_cond_wait(&s->turn, &s->lock);
	bool quit = s->quit;
	pthread_mutex_unlock(&s->lock);
	if (quit)
		return -ECANCELED;
	if (next->size < left && block_init(next, left))
		return no_memory(s);
	if (left)
		memcpy(next->bytes, full->bytes + upto, left);
	next->used = left;
	m->out = next;
	pthread_mutex_lock(&s->lock);
	full->used = upto;
	full->full = true;
	pthread_cond_broadcast(&s->turn);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

/* Everything before the pending item leaves the block. */
static int flush(struct merge *m)
{
	struct block *b = m->out;
	size_t upto = m->has_pending ? m->pending : b->used;

	if (!upto)
		return 0;
	m->pending = 0;
	if (m->last)
		return pass_on(m, upto);
	int rc = is_over(m);
	if (rc)
		return rc;
	rc = append_file(m->s, b->bytes, upto);
	memmove(b->bytes, b->bytes + upto, b->used - upto);
	b->used -= upto;
	return rc;
}

static int reserve(struct merge *m, size_t len)
{
	if (m->out->size - m->out->used >= len)
		return 0;
	int rc = flush(m);
	if (rc || m->out->size - m->out->used >= len)
		return rc;
	return block_init(m->out, m->out->used + len) ? no_memory(m->s) : 0;
}

/* Nothing more comes of the pending item's key. */
static void settle(struct merge *m)
{
	if (m->has_pending && m->last && pending_item(m)->tombstone && !m->s->versions)
		m->out->used = m->pending;
	m->has_pending = false;
}

static int moved(struct sorter *s, const struct item *it, const struct record *r, int32_t from)
{
	const void *whole = r->flags & RECORD_KEY ? r->key : it->bytes;
	char *key = escape_key(whole, r->flags & RECORD_KEY ? r->key_len : it->skey_len);

	fail(s, -EXDEV, "key '%.100s' at %d/%lld is stored from partition %d", key ? key : "?",
	     r->partition, (long long)r->offset, from);
	free(key);
	return -EXDEV;
}

enum keep { KEEP_NEW, KEEP_OLD, KEEP_BOTH };

/* What is left of two versions in a row, where everything before them is known. */
static int judge(struct sorter *s, const struct item *it, const struct record *old,
		 const struct record *now)
{
	bool present = !(old->flags & RECORD_TOMBSTONE);
	enum change_op op;

	if (decide_transition(present ? old : NULL, now, false, &op) != TRANSITION_MOVED)
		return KEEP_NEW;
	if (s->moved == MOVED_STOP)
		return moved(s, it, now, old->partition);
	return decide_moved_wins(old, now) ? KEEP_NEW : KEEP_OLD;
}

/*
 * The same where it is not known what came before: a version can only be
 * dropped if the next one does to any earlier one what both would do.
 */
static enum keep judge_unknown(struct sorter *s, const struct record *old, const struct record *now)
{
	if (old->partition != now->partition)
		return KEEP_BOTH;
	return s->moved == MOVED_STOP || now->timestamp_ms >= old->timestamp_ms ? KEEP_NEW
										: KEEP_BOTH;
}

/* `it` stands behind the pending item, and has its key. */
static int fold(struct merge *m, const struct item *it)
{
	struct block *b = m->out;
	struct record old, now;
	size_t len = bytes_of(it);
	int rc = decode(m->s, pending_item(m), &old);

	if (!rc)
		rc = decode(m->s, it, &now);
	if (rc)
		return rc;
	rc = m->last ? judge(m->s, it, &old, &now) : (int)judge_unknown(m->s, &old, &now);
	if (rc == KEEP_NEW) {
		memmove(b->bytes + m->pending, it, len);
		b->used = m->pending + len;
	} else if (rc == KEEP_BOTH) {
		m->pending = b->used;
		b->used += len;
	}
	return rc < 0 ? rc : 0;
}

/* The winner's head goes to the block. */
static int emit(struct merge *m, struct source *v)
{
	size_t len = bytes_of(v->item);
	uint64_t order = v->order;
	bool again = !m->s->versions && m->has_pending && order == m->pending_order &&
		     same_key(pending_item(m), v->item);
	int rc;

	if (!again)
		settle(m);
	rc = reserve(m, len);
	if (rc)
		return rc;
	uint8_t *to = m->out->bytes + m->out->used;
	rc = take(m->s, v, m->prefix, to);
	if (rc)
		return rc;
	if (again)
		return fold(m, (struct item *)to);
	m->pending = m->out->used;
	m->pending_order = order;
	m->has_pending = true;
	m->out->used += len;
	return 0;
}

static int merge_all(struct merge *m)
{
	int rc = 0;

	m->tree[0] = play(m, 1);
	for (struct source *v; !rc && (v = &m->v[m->tree[0]])->item;) {
		rc = emit(m, v);
		replay(m, m->tree[0]);
	}
	if (!rc) {
		settle(m);
		rc = flush(m);
	}
	return rc;
}

/* ---- sources, made and freed ---- */

static int open_run(struct sorter *s, struct source *v, const struct run *r, size_t budget,
		    size_t prefix)
{
	size_t size = budget < READ_MAX ? budget : READ_MAX;

	size = size < FILE_BLOCK ? FILE_BLOCK : size & ~(size_t)(FILE_BLOCK - 1);
	v->bytes = malloc(size);
	if (!v->bytes)
		return no_memory(s);
	v->size = size;
	v->at = v->given_back = r->begin;
	v->end = r->end;
	return next_of_run(s, v, prefix);
}

/* Merge the newest n runs, and the sorted buffers that there are, the older one first. */
static int merge(struct sorter *s, int n, struct buffer *const b[2], size_t budget, bool last)
{
	struct merge m = { .s = s, .k = n + !!b[0] + !!b[1], .last = last, .out = &s->block[0] };
	int rc = 0;

	m.prefix = s->known_prefix;
	m.v = calloc((size_t)m.k, sizeof(*m.v));
	m.tree = calloc((size_t)m.k, sizeof(*m.tree));
	m.out->used = 0;
	if (!m.v || !m.tree)
		rc = no_memory(s);
	for (int i = 0; i < n && !rc; i++)
		rc = open_run(s, &m.v[i], &s->runs[s->n_runs - n + i], budget / (size_t)n,
			      m.prefix);
	for (int i = 0, at = n; i < 2 && !rc; i++)
		if (b[i]) {
			m.v[at].buffer = b[i];
			next_of_buffer(&m.v[at++], m.prefix);
		}
	if (!rc)
		rc = merge_all(&m);
	for (int i = 0; i < n && m.v; i++)
		free(m.v[i].bytes);
	free(m.v);
	free(m.tree);
	return rc;
}

/* ---- runs ---- */

static int push_run(struct sorter *s, struct run r)
{
	if (s->n_runs == s->cap_runs) {
		int cap = s->cap_runs ? s->cap_runs * 2 : 16;
		struct run *grown = realloc(s->runs, (size_t)cap * sizeof(*grown));
		if (!grown)
			return no_memory(s);
		s->runs = grown;
		s->cap_runs = cap;
	}
	s->runs[s->n_runs++] = r;
	s->made++;
	return 0;
}

/* Of a sorted buffer, or of the newest n runs. */
static int make_run(struct sorter *s, struct buffer *b, int n)
{
	struct run r = { .begin = (s->end + FILE_BLOCK - 1) & ~(off_t)(FILE_BLOCK - 1) };

	s->end = r.begin;
	int rc = merge(s, n, (struct buffer *[2]){ b }, s->memory / 16, false);
	if (rc)
		return rc;
	s->n_runs -= n;
	r.end = s->end;
	r.level = n ? s->runs[s->n_runs].level + 1 : 0;
	return push_run(s, r);
}

/* So that the last merge has few enough of them: a read buffer each, whatever their number. */
static int combine(struct sorter *s)
{
	for (;;) {
		int level = s->runs[s->n_runs - 1].level, same = 0;
		while (same < s->n_runs && s->runs[s->n_runs - 1 - same].level == level)
			same++;
		if (same < s->fan_in)
			return 0;
		int rc = make_run(s, NULL, same);
		if (rc)
			return rc;
	}
}

/* ---- the thread ---- */

static int spill(struct sorter *s, struct buffer *b)
{
	s->known_prefix = b->prefix;
	sort_entries(b, entries(b), b->n, b->prefix);
	int rc = make_run(s, b, 0);
	if (rc == NOT_NEEDED) {
		s->kept = b;
		return 0;
	}
	if (!rc)
		rc = combine(s);
	b->used = b->n = 0;
	return rc;
}

static int merge_last(struct sorter *s)
{
	struct buffer *b = &s->buffer[s->filling], *idle = &s->buffer[!s->filling];
	size_t budget = s->memory / 16;

	if (!s->kept) {
		free(idle->bytes);
		*idle = (struct buffer){ 0 };
		budget = s->memory / 4;
	}
	s->known_prefix = b->prefix = s->prefix;
	sort_entries(b, entries(b), b->n, b->prefix);
	return merge(s, s->n_runs, (struct buffer *[2]){ s->kept, b }, budget, true);
}

static void *work(void *arg)
{
	struct sorter *s = arg;
	bool more = true;

	pthread_mutex_lock(&s->lock);
	while (more) {
		while (!s->job && !s->finishing && !s->quit)
			pthread_cond_wait(&s->turn, &s->lock);
		struct buffer *b = s->job;
		if (s->quit)
			break;
		pthread_mutex_unlock(&s->lock);
		int rc = b ? spill(s, b) : merge_last(s);
		pthread_mutex_lock(&s->lock);
		if (rc && !s->rc)
			s->rc = rc;
		s->job = NULL;
		s->done = !b;
		more = b && !s->rc;
		pthread_cond_broadcast(&s->turn);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* ---- the caller's side ---- */

int sort_open(struct sorter **out, const char *dir, size_t memory, enum moved moved)
{
	struct sorter *s = calloc(1, sizeof(*s));
	size_t fan_in = memory / 16 / FILE_BLOCK, block = memory / 32;

	if (!s)
		return -ENOMEM;
	s->moved = moved;
	s->memory = memory;
	s->fan_in = fan_in < FAN_IN_MIN   ? FAN_IN_MIN
		    : fan_in > FAN_IN_MAX ? FAN_IN_MAX
					  : (int)fan_in;
	block = block < FILE_BLOCK ? FILE_BLOCK : block > BLOCK_MAX ? BLOCK_MAX : block;
	s->fd = s->reading = -1;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->turn, NULL);
	s->dir = strdup(dir);
	if (!s->dir || buffer_init(&s->buffer[0], memory / 16 * 7) ||
	    block_init(&s->block[0], block) || block_init(&s->block[1], block) ||
	    pthread_create(&s->thread, NULL, work, s)) {
		sort_close(s);
		return -ENOMEM;
	}
	s->started = true;
	*out = s;
	return 0;
}

void sort_keep_versions(struct sorter *s) { s->versions = true; }

void sort_close(struct sorter *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->quit = true;
	pthread_cond_broadcast(&s->turn);
	pthread_mutex_unlock(&s->lock);
	if (s->started)
		pthread_join(s->thread, NULL);
	if (s->fd >= 0)
		close(s->fd);
	for (int i = 0; i < 2; i++) {
		free(s->buffer[i].bytes);
		free(s->block[i].bytes);
	}
	free(s->runs);
	free(s->dir);
	pthread_cond_destroy(&s->turn);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

/* The buffer that is full goes to the thread, once that has dealt with the other. */
static int hand_over(struct sorter *s)
{
	s->buffer[s->filling].prefix = s->prefix;
	pthread_mutex_lock(&s->lock);
	while (s->job && !s->rc)
		pthread_cond_wait(&s->turn, &s->lock);
	int rc = s->rc;
	if (!rc)
		s->job = &s->buffer[s->filling];
	pthread_cond_broadcast(&s->turn);
	pthread_mutex_unlock(&s->lock);
	s->filling = !s->filling;
	return rc;
}

static int make_room(struct sorter *s, size_t bytes)
{
	size_t usual = s->memory / 16 * 7, needed = bytes + sizeof(struct entry);
	int rc = s->buffer[s->filling].n ? hand_over(s) : 0;
	struct buffer *b = &s->buffer[s->filling];

	if (!rc && (!b->bytes || !fits(b, bytes)) &&
	    buffer_init(b, needed > usual ? needed : usual))
		rc = no_memory(s);
	return rc;
}

static void note_prefix(struct sorter *s, const uint8_t *skey, size_t len)
{
	if (!s->any) {
		memcpy(s->first_key, skey, len);
		s->prefix = len;
		s->any = true;
	} else if (len < s->prefix || memcmp(skey, s->first_key, s->prefix)) {
		size_t same = 0;
		while (same < len && same < s->prefix && skey[same] == s->first_key[same])
			same++;
		s->prefix = same;
	}
}

int sort_add(struct sorter *s, const void *skey, size_t skey_len, const struct record *r)
{
	size_t rec_len = record_bytes(r), len = item_bytes(skey_len, rec_len);
	struct buffer *b = &s->buffer[s->filling];

	if (!fits(b, len)) {
		int rc = make_room(s, len);
		if (rc)
			return rc;
		b = &s->buffer[s->filling];
	}
	note_prefix(s, skey, skey_len);
	struct item *it = (struct item *)(b->bytes + b->used);
	memset((uint8_t *)it + len - 8, 0, 8);
	it->rec_len = (uint32_t)rec_len;
	it->skey_len = (uint16_t)skey_len;
	it->tombstone = !!(r->flags & RECORD_TOMBSTONE);
	memcpy(it->bytes, skey, skey_len);
	record_encode(it->bytes + skey_len, r, skey, skey_len);
	b->n++;
	entries(b)->at = b->used;
	b->used += len;
	return 0;
}

int sort_finish(struct sorter *s)
{
	pthread_mutex_lock(&s->lock);
	s->finishing = true;
	int rc = s->rc;
	pthread_cond_broadcast(&s->turn);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

/* Give the block that was read back, and wait for the next. */
static int next_block(struct sorter *s)
{
	pthread_mutex_lock(&s->lock);
	if (s->reading >= 0)
		s->block[s->reading].full = false;
	s->reading = s->reading < 0 ? 0 : !s->reading;
	struct block *b = &s->block[s->reading];
	pthread_cond_broadcast(&s->turn);
	while (!b->full && !s->done && !s->rc)
		pthread_cond_wait(&s->turn, &s->lock);
	int rc = s->rc ? s->rc : b->full;
	pthread_mutex_unlock(&s->lock);
	s->at = rc > 0 ? b->bytes : NULL;
	s->upto = rc > 0 ? b->bytes + b->used : NULL;
	return rc;
}

int sort_next(struct sorter *s, struct sorted *out)
{
	if (s->at == s->upto) {
		int rc = next_block(s);
		if (rc <= 0)
			return rc;
	}
	const struct item *it = (const struct item *)s->at;
	out->skey = it->bytes;
	out->skey_len = it->skey_len;
	out->rec = it->bytes + it->skey_len;
	out->rec_len = it->rec_len;
	s->at += bytes_of(it);
	return 1;
}

void sort_stat(struct sorter *s, struct sort_stat *out)
{
	*out = (struct sort_stat){ s->made, s->spilled };
}
