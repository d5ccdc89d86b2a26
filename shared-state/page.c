#include "page.h"

#include "bytes.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	HEADER_BYTES = 16,
	NODE_BYTES = 8,
	TREE_BYTES = 48,
	PREFETCHED = 16,
	HEAD_BYTES = 16,
	FIRST_PAGE = 2, /* those below are meta pages */
	META_TRIES = 100,

	/* in a page */
	PAGE_FLAGS = 10,
	PAGE_LOWER = 12,
	BRANCH = 1,
	LEAF = 2,
	OVERFLOW = 4,
	KIND = 0x6f, /* of the flags; the others do not tell what it is */

	/* in a node */
	NODE_FLAGS = 4,
	NODE_KEY_BYTES = 6,
	ELSEWHERE = 1, /* in an overflow page */
	IS_TREE = 2,

	/* in a tree */
	TREE_FLAGS = 4,
	TREE_LEVELS = 6,
	TREE_PAGES = 8,
	TREE_ENTRIES = 32,
	TREE_ROOT = 40,

	/* in a meta page */
	META_MAP_BYTES = HEADER_BYTES + 16,
	META_FREE = HEADER_BYTES + 24, /* its first field is the page size */
	META_NAMES = HEADER_BYTES + 72,
	META_LAST_PAGE = HEADER_BYTES + 120,
	META_TXNID = HEADER_BYTES + 128,
};

#define NO_PAGE UINT64_MAX

/* For what is seldom needed and has a buffer, which a hardened build clears and guards. */
#define OUT_OF_LINE __attribute__((noinline))

/*
 * Each number is read once: the page may change between a check and a use, and
 * the fence keeps the compiler from going back to it.
 */
static inline unsigned load16(const uint8_t *p)
{
	uint16_t v;
	memcpy(&v, p, sizeof(v));
	atomic_signal_fence(memory_order_acq_rel);
	return le16toh(v);
}

static inline uint32_t load32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof(v));
	atomic_signal_fence(memory_order_acq_rel);
	return le32toh(v);
}

static inline uint64_t load64(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof(v));
	atomic_signal_fence(memory_order_acq_rel);
	return le64toh(v);
}

/* ---- the file ---- */

/* Sizes as meta page 0 has them; whatever else it says, these never change. */
static int read_sizes(struct pages *f)
{
	uint8_t meta[META_TXNID + 8];
	struct stat st;
	if (fstat(f->fd, &st))
		return -errno;
	ssize_t n = pread(f->fd, meta, sizeof(meta), 0);
	if (n != sizeof(meta))
		return n < 0 ? -errno : -EBADMSG;
	f->page_bytes = get_le32(meta + META_FREE);
	f->map_bytes = get_le64(meta + META_MAP_BYTES);
	atomic_init(&f->file_bytes, (uint64_t)st.st_size);
	return f->map_bytes < FIRST_PAGE * f->page_bytes ? -EBADMSG : 0;
}

int pages_open(struct pages *f, int fd)
{
	*f = (struct pages){ .fd = fd };
	int rc = read_sizes(f);
	if (!rc) {
		void *map = mmap(NULL, f->map_bytes, PROT_READ, MAP_SHARED, fd, 0);
		if (map == MAP_FAILED)
			rc = -errno;
		else
			f->map = map;
	}
	if (rc)
		pages_close(f);
	return rc;
}

void pages_close(struct pages *f)
{
	if (f->map)
		munmap((void *)f->map, f->map_bytes);
	if (f->fd >= 0)
		close(f->fd);
	f->map = NULL;
	f->fd = -1;
}

/* The file only ever grows: ask again. */
static OUT_OF_LINE bool reaches_now(struct pages *f, uint64_t bytes)
{
	struct stat st;
	if (bytes > f->map_bytes || fstat(f->fd, &st))
		return false;
	atomic_store_explicit(&f->file_bytes, (uint64_t)st.st_size, memory_order_relaxed);
	return bytes <= (uint64_t)st.st_size;
}

/* Whether this many bytes of the map are backed by the file. */
static inline bool reaches(struct pages *f, uint64_t bytes)
{
	return bytes <= atomic_load_explicit(&f->file_bytes, memory_order_relaxed) ||
	       reaches_now(f, bytes);
}

/* ---- commits ---- */

uint64_t pages_last_txnid(const struct pages *f)
{
	uint64_t a = load64(f->map + META_TXNID), b = load64(f->map + f->page_bytes + META_TXNID);
	return a > b ? a : b;
}

static struct tree load_tree(const uint8_t *p)
{
	return (struct tree){ .root = load64(p + TREE_ROOT),
			      .depth = load16(p + TREE_LEVELS),
			      .entries = load64(p + TREE_ENTRIES),
			      .pages = load64(p + TREE_PAGES) + load64(p + TREE_PAGES + 8) +
				       load64(p + TREE_PAGES + 16) };
}

static struct commit load_commit(const struct pages *f)
{
	const uint8_t *a = f->map, *b = f->map + f->page_bytes;
	const uint8_t *meta = load64(b + META_TXNID) > load64(a + META_TXNID) ? b : a;
	/* the number first: it is written last */
	struct commit c = { .txnid = load64(meta + META_TXNID) };
	atomic_thread_fence(memory_order_acquire);
	c.last_page = load64(meta + META_LAST_PAGE);
	c.names = load_tree(meta + META_NAMES);
	return c;
}

int commit_read(struct commit *c, const struct pages *f)
{
	/* twice the same: not read while it was being written */
	struct commit first = load_commit(f), second;
	for (int i = 0; i < META_TRIES; i++, first = second) {
		atomic_thread_fence(memory_order_acquire);
		second = load_commit(f);
		if (memcmp(&first, &second, sizeof(first)) != 0)
			continue;
		if (first.last_page >= f->map_bytes / f->page_bytes)
			return -EBADMSG;
		*c = first;
		return 0;
	}
	return -EBADMSG;
}

/* ---- pages and nodes ---- */

/* Page `number` if there is such a page in the commit; else NULL. */
static inline const uint8_t *page_at(struct pages *f, const struct commit *c, uint64_t number)
{
	if (number < FIRST_PAGE || number > c->last_page ||
	    !reaches(f, (number + 1) * f->page_bytes))
		return NULL;
	const uint8_t *page = f->map + number * f->page_bytes;
	return load64(page) == number ? page : NULL;
}

static unsigned kind(const uint8_t *page) { return load16(page + PAGE_FLAGS) & KIND; }

/* How many nodes a branch or leaf has; 0: none, or it cannot be. */
static inline unsigned count_nodes(const struct pages *f, const uint8_t *page)
{
	unsigned lower = load16(page + PAGE_LOWER);
	return lower < HEADER_BYTES || lower > f->page_bytes ? 0 : (lower - HEADER_BYTES) / 2;
}

struct node {
	uint64_t low;          /* 32 bits */
	unsigned flags;        /* 16 */
	struct span key, rest; /* rest: what may be data, to the end of the page */
};

static inline bool key_at(const struct pages *f, const uint8_t *page, unsigned i, struct span *key)
{
	size_t at = load16(page + HEADER_BYTES + 2 * i);
	if (at < HEADER_BYTES || at + NODE_BYTES > f->page_bytes)
		return false;
	key->len = load16(page + at + NODE_KEY_BYTES);
	key->p = page + at + NODE_BYTES;
	return key->len <= f->page_bytes - at - NODE_BYTES;
}

static inline bool node_at(const struct pages *f, const uint8_t *page, unsigned i, struct node *n)
{
	if (!key_at(f, page, i, &n->key))
		return false;
	const uint8_t *p = n->key.p - NODE_BYTES, *end = page + f->page_bytes;
	n->low = load32(p);
	n->flags = load16(p + NODE_FLAGS);
	n->rest.p = n->key.p + n->key.len;
	n->rest.len = (size_t)(end - n->rest.p);
	return true;
}

/* As memcmp(), the shorter one first. */
static inline int compare(struct span a, struct span b)
{
	size_t shared = a.len < b.len ? a.len : b.len;
	int rc = shared ? memcmp(a.p, b.p, shared) : 0;
	return rc ? rc : (a.len > b.len) - (a.len < b.len);
}

/*
 * The first 16 bytes of a key as two numbers, zeroes behind a shorter one: they sort as
 * the keys do, unless they are equal.
 */
struct head {
	uint64_t high, low;
};

static inline uint64_t first_bytes(uint64_t v, size_t n)
{
	return n ? v & UINT64_MAX << 8 * (8 - n) : 0;
}

static inline struct head load_head(const uint8_t *p, size_t len)
{
	struct head h = { get_be64(p), get_be64(p + 8) };
	if (len < 8)
		return (struct head){ first_bytes(h.high, len), 0 };
	if (len < HEAD_BYTES)
		h.low = first_bytes(h.low, len - 8);
	return h;
}

static OUT_OF_LINE struct head load_short_head(struct span key)
{
	uint8_t padded[HEAD_BYTES] = { 0 };
	if (key.len)
		memcpy(padded, key.p, key.len < HEAD_BYTES ? key.len : HEAD_BYTES);
	return load_head(padded, key.len);
}

/* `room`: how many bytes may be read. */
static inline struct head head_of(struct span key, size_t room)
{
	return room >= HEAD_BYTES ? load_head(key.p, key.len) : load_short_head(key);
}

/* A key that is looked up. */
struct wanted {
	struct span key;
	struct head head;
};

static struct wanted want(struct span key) { return (struct wanted){ key, head_of(key, key.len) }; }

/*
 * How many of the nodes from `low` up to `n` have keys below `key`, or, with `or_equal`,
 * not above it: these come first.
 */
static int search(const struct pages *f, const uint8_t *page, unsigned low, unsigned n,
		  const struct wanted *w, bool or_equal, unsigned *count)
{
	const uint8_t *end = page + f->page_bytes;
	unsigned first = low;
	for (unsigned high = n; first < high;) {
		unsigned middle = first + (high - first) / 2;
		struct span there;
		if (!key_at(f, page, middle, &there))
			return -EBADMSG;
		struct head h = head_of(there, (size_t)(end - there.p));
		unsigned below = (h.high < w->head.high) |
				 ((h.high == w->head.high) & (h.low < w->head.low));
		if (h.high == w->head.high && h.low == w->head.low)
			below = compare(there, w->key) < (int)or_equal;
		if (below)
			first = middle + 1;
		else
			high = middle;
	}
	*count = first - low;
	return 0;
}

/*
 * The nodes of a leaf are most often not in any cache, and a search asks for one after
 * the other: let them all come at once.
 */
static inline void prefetch_keys(const struct pages *f, const uint8_t *page, unsigned n)
{
	unsigned step = 1 + (n - 1) / PREFETCHED;
	for (unsigned i = 0; i < n; i += step)
		__builtin_prefetch(page +
				   (load16(page + HEADER_BYTES + 2 * i) & (f->page_bytes - 1)));
}

/* ---- the way down ---- */

/*
 * Look `key` up in page `number` alone.  In a leaf: the first node that is not
 * below it, or behind the last.  In a branch: the node whose child may have it.
 */
static inline int look(struct pages *f, const struct commit *c, uint64_t number,
		       const struct wanted *w, struct level *l, bool *leaf)
{
	const uint8_t *page = page_at(f, c, number);
	if (!page)
		return -EBADMSG;
	unsigned k = kind(page), n = count_nodes(f, page);
	if ((k != BRANCH && k != LEAF) || !n)
		return -EBADMSG;
	*l = (struct level){ .page = page, .n = n };
	*leaf = k == LEAF;
	if (!*leaf) /* a child has its own key and higher, the first one lower ones, too */
		return search(f, page, 1, n, w, true, &l->i);
	prefetch_keys(f, page, n);
	return search(f, page, 0, n, w, false, &l->i);
}

static inline int child(const struct pages *f, const struct level *l, uint64_t *number)
{
	struct node n;
	if (!node_at(f, l->page, l->i, &n))
		return -EBADMSG;
	*number = n.low | (uint64_t)n.flags << 32;
	return 0;
}

/* From page `number` down to the first entry that is not below `key`, or past a leaf's last. */
static int descend(struct walk *w, uint64_t number, struct span key)
{
	struct wanted wanted = want(key);
	for (bool leaf = false; w->depth < TREE_DEPTH_MAX;) {
		struct level *l = &w->at[w->depth++];
		int rc = look(w->f, &w->c, number, &wanted, l, &leaf);
		if (rc || leaf)
			return rc;
		rc = child(w->f, l, &number);
		if (rc)
			return rc;
	}
	return -EBADMSG;
}

/* The last level stands behind its nodes: go on with the next leaf. */
static int next_leaf(struct walk *w)
{
	static const struct span lowest = { NULL, 0 };
	uint64_t number;
	while (--w->depth > 0) {
		struct level *l = &w->at[w->depth - 1];
		if (++l->i >= l->n)
			continue;
		int rc = child(w->f, l, &number);
		return rc ? rc : descend(w, number, lowest);
	}
	return -ENOENT;
}

int walk_seek(struct walk *w, struct pages *f, const struct commit *c, const struct tree *t,
	      struct span key)
{
	w->f = f;
	w->c = *c;
	w->depth = 0;
	if (t->root == NO_PAGE)
		return -ENOENT;
	int rc = descend(w, t->root, key);
	if (!rc && w->at[w->depth - 1].i == w->at[w->depth - 1].n)
		rc = next_leaf(w);
	return rc;
}

int walk_next(struct walk *w)
{
	if (!w->depth)
		return -ENOENT;
	struct level *l = &w->at[w->depth - 1];
	return ++l->i < l->n ? 0 : next_leaf(w);
}

/* ---- what is there ---- */

static int value_of(struct pages *f, const struct commit *c, const struct node *n,
		    struct span *value)
{
	if (n->flags & ~(unsigned)ELSEWHERE)
		return -EBADMSG; /* a tree, or something that our databases do not have */
	if (!(n->flags & ELSEWHERE)) {
		*value = (struct span){ n->rest.p, n->low };
		return n->low <= n->rest.len ? 0 : -EBADMSG;
	}
	if (n->rest.len < sizeof(uint64_t))
		return -EBADMSG;
	uint64_t number = load64(n->rest.p);
	const uint8_t *page = page_at(f, c, number);
	if (!page || kind(page) != OVERFLOW)
		return -EBADMSG;
	uint64_t end = number * f->page_bytes + HEADER_BYTES + n->low;
	if (end > (c->last_page + 1) * f->page_bytes || !reaches(f, end))
		return -EBADMSG;
	*value = (struct span){ page + HEADER_BYTES, n->low };
	return 0;
}

static int node_here(const struct walk *w, struct node *n)
{
	if (!w->depth)
		return -ENOENT;
	const struct level *l = &w->at[w->depth - 1];
	return l->i < l->n && node_at(w->f, l->page, l->i, n) ? 0 : -EBADMSG;
}

int walk_entry(const struct walk *w, struct span *key, struct span *value)
{
	struct node n;
	int rc = node_here(w, &n);
	if (rc)
		return rc;
	*key = n.key;
	return value_of(w->f, &w->c, &n, value);
}

/* The node of exactly this key, without keeping the way to it. */
static int find_node(struct pages *f, const struct commit *c, const struct tree *t, struct span key,
		     struct node *n)
{
	uint64_t number = t->root;
	struct wanted wanted = want(key);
	if (number == NO_PAGE)
		return -ENOENT;
	for (int depth = 0; depth < TREE_DEPTH_MAX; depth++) {
		struct level l;
		bool leaf;
		int rc = look(f, c, number, &wanted, &l, &leaf);
		if (!rc && !leaf)
			rc = child(f, &l, &number);
		if (rc)
			return rc;
		if (!leaf)
			continue;
		if (l.i == l.n)
			return -ENOENT;
		if (!node_at(f, l.page, l.i, n))
			return -EBADMSG;
		return compare(n->key, key) ? -ENOENT : 0;
	}
	return -EBADMSG;
}

int tree_find(struct pages *f, const struct commit *c, const struct tree *t, struct span key,
	      struct span *value)
{
	struct node n;
	int rc = find_node(f, c, t, key, &n);
	return rc ? rc : value_of(f, c, &n, value);
}

int tree_leaf(struct pages *f, const struct commit *c, const struct tree *t, struct span key,
	      uint64_t *number)
{
	struct wanted wanted = want(key);
	struct level l;
	uint64_t page = t->root;
	bool leaf;
	if (page == NO_PAGE)
		return -ENOENT;
	if (t->depth > TREE_DEPTH_MAX)
		return -EBADMSG;
	for (uint64_t depth = 1; depth < t->depth; depth++) {
		int rc = look(f, c, page, &wanted, &l, &leaf);
		if (!rc)
			rc = leaf ? -EBADMSG : child(f, &l, &page);
		if (rc)
			return rc;
	}
	if (page > c->last_page)
		return -EBADMSG;
	*number = page;
	return 0;
}

int tree_open(struct tree *t, struct pages *f, const struct commit *c, const char *name)
{
	struct node n;
	int rc = find_node(f, c, &c->names, (struct span){ (const uint8_t *)name, strlen(name) },
			   &n);
	if (rc)
		return rc;
	if (n.flags != IS_TREE || n.low != TREE_BYTES || n.rest.len < TREE_BYTES ||
	    load16(n.rest.p + TREE_FLAGS))
		return -EBADMSG; /* or one with duplicates, which is none of ours */
	*t = load_tree(n.rest.p);
	return 0;
}
