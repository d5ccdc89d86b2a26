/*
 * page.h - a data file of LMDB 0.9, read by hand.
 *
 * LMDB trusts the pages that it reads.  A reader without a lock cannot: if it
 * is stopped for longer than a lease while it looks something up, the pages
 * that it goes on to read may have become others, or parts of values, and LMDB
 * then follows null pointers.  Here every number read from a page is checked
 * before it is used, so that the worst page gives -EBADMSG.  Nothing is locked,
 * allocated or written, and the program that links this may use any LMDB for
 * its own purposes.
 *
 * The format (data version 1, little endian, 64 bits), in bytes:
 *
 *   page    u64 number, u16 -, u16 flags (1 branch, 2 leaf, 4 overflow, 8 meta), u16 lower,
 *           u16 upper; then u16 offsets of its (lower - 16) / 2 nodes, in the order of keys
 *   node    u32 low, u16 flags, u16 key length, key, data
 *           branch: low and flags are the number of the child, which has this key and higher;
 *           the key of the first does not count.  Leaf: low is the length of the data; flags 1:
 *           the data is the number of an overflow page, whose value begins 16 bytes in; 2: the
 *           data is a tree, the key its name
 *   tree    u32 -, u16 flags, u16 depth, u64 branch, leaf, overflow pages, u64 entries, u64 root
 *   meta    pages 0 and 1, 16 bytes in: u32 0xbeefc0de, u32 1, u64 -, u64 map size, two trees (free
 *           pages, names), u64 last page, u64 commit number; the higher number counts
 *
 * Errors:  0, -ENOENT, or -EBADMSG: this cannot be, at least not in one commit.
 * Threads: struct pages may be shared.
 */
#ifndef PAGE_H
#define PAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A file, mapped. */
struct pages {
	int fd; /* -1: not open */
	const uint8_t *map;
	size_t map_bytes, page_bytes;
	_Atomic uint64_t file_bytes; /* of the map, what was there when last asked */
};

struct span {
	const uint8_t *p;
	size_t len;
};

struct tree {
	uint64_t root, entries, pages;
	uint64_t depth; /* pages from the root to an entry; 0: empty */
};

/* What one meta page says. */
struct commit {
	uint64_t txnid, last_page;
	struct tree names;
};
_Static_assert(sizeof(struct commit) == 6 * sizeof(uint64_t), "compared as bytes: no padding");

/** Map the file, which generation_check() has found fit; takes `fd` over, also on failure. */
int pages_open(struct pages *f, int fd);
/** NULL fields are allowed: a zeroed struct with fd -1. */
void pages_close(struct pages *f);

/** Number of the newest commit. */
uint64_t pages_last_txnid(const struct pages *f);
/** The newest commit. */
int commit_read(struct commit *c, const struct pages *f);

/** The tree of a named database. */
int tree_open(struct tree *t, struct pages *f, const struct commit *c, const char *name);
/** The value of a key. */
int tree_find(struct pages *f, const struct commit *c, const struct tree *t, struct span key,
	      struct span *value);
/** The page in which a key's entry is, or would be, without a look at that page. */
int tree_leaf(struct pages *f, const struct commit *c, const struct tree *t, struct span key,
	      uint64_t *number);

/* The way from the root to an entry. */
enum { TREE_DEPTH_MAX = 32 };
struct walk {
	struct pages *f;
	struct commit c;
	int depth; /* how many of these are in use; 0: nowhere */
	struct level {
		const uint8_t *page;
		unsigned i, n; /* which of how many nodes */
	} at[TREE_DEPTH_MAX];
};

/** Go to the first key that is not below `key`: 0, or -ENOENT: there is none. */
int walk_seek(struct walk *w, struct pages *f, const struct commit *c, const struct tree *t,
	      struct span key);
/** Go to the next key. */
int walk_next(struct walk *w);
/** Key and value where the walk is. */
int walk_entry(const struct walk *w, struct span *key, struct span *value);

#endif
