/*
 * record.h - the bytes on disk: stored keys, records, changes.
 *
 * The format is a contract (docs/on-disk.md): applications in other languages
 * read `records` with nothing but an LMDB binding.  All integers are little
 * endian, except those in journal keys, which sort as bytes and so are big
 * endian.
 *
 *   record   u8 format, u8 flags, u16 zero, i32 partition, i64 offset,
 *            i64 timestamp_ms, u64 checksum; with RECORD_KEY u32 length and the
 *            whole key; with RECORD_HEADERS u32 length and the headers; then
 *            the value's bytes to the end.
 *   change   u8 format, u8 op, u8 cause, u8 zero, u32 key_len, u32 before_len,
 *            u32 after_len, u64 checksum; then key, before record, after record.
 *
 * Errors:    0 or -errno; -EBADMSG: the bytes are not what was written.
 * Ownership: decoded structs point into the caller's bytes.
 * Threads:   pure functions.
 */
#ifndef RECORD_H
#define RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	RECORD_FORMAT = 1,
	RECORD_HEADER_BYTES = 32,
	CHANGE_HEADER_BYTES = 24,
	KEY_VERBATIM_MAX = 479, /* bytes; a longer or empty key is stored as prefix + SHA-256 */
	KEY_STORED_MAX = 511,
};

enum record_flag {
	RECORD_KEY = 1,       /* the whole key is in the record: its stored key is a digest */
	RECORD_HEADERS = 2,   /* source headers are in the record */
	RECORD_TOMBSTONE = 4, /* no value; never in `records` */
	/* instead of the value its length, u64, and its SHA-256; only ever in `waiting` */
	RECORD_OMITTED = 8,
};

/* A record, decoded.  value == NULL with RECORD_TOMBSTONE only. */
struct record {
	uint8_t flags; /* enum record_flag */
	int32_t partition;
	int64_t offset;
	int64_t timestamp_ms; /* -1: none */
	const void *key;      /* with RECORD_KEY */
	size_t key_len;
	const void *headers; /* with RECORD_HEADERS: see record_header_next() */
	size_t headers_len;
	const void *value;
	size_t value_len;
};

/**
 * Where a key of Kafka is stored.  Writes up to KEY_STORED_MAX bytes and returns how many; 0: no
 * memory for the digest, which no database function accepts as a key.
 */
size_t record_stored_key(uint8_t out[KEY_STORED_MAX], const void *key, size_t key_len);

enum { RECORD_OMITTED_BYTES = 40 };
/** What stands instead of a value; false: no memory for the digest. */
bool record_omit(uint8_t out[RECORD_OMITTED_BYTES], const void *value, size_t len);

/** The same record without its source headers. */
static inline struct record record_without_headers(const struct record *r)
{
	struct record bare = *r;

	bare.flags = (uint8_t)(bare.flags & ~RECORD_HEADERS);
	bare.headers = NULL;
	bare.headers_len = 0;
	return bare;
}

/** Whether a key of this length needs RECORD_KEY. */
static inline bool record_key_is_digest(size_t key_len)
{
	return key_len == 0 || key_len > KEY_VERBATIM_MAX;
}

/** Bytes that record_encode() will write. */
size_t record_bytes(const struct record *r);

/** Encode `r`, to be stored under `skey`, into `out`, which has record_bytes(r) bytes. */
void record_encode(uint8_t *out, const struct record *r, const void *skey, size_t skey_len);

/** Decode and verify the checksum.  0 or -EBADMSG; -ENOTSUP: a format of the future. */
int record_decode(struct record *r, const void *bytes, size_t len, const void *skey,
		  size_t skey_len);

/*
 * Source headers are kept as a sequence of: u32 name length, name, i32 value
 * length (-1: null), value.
 */
struct record_header {
	const char *name;
	size_t name_len;
	const void *value; /* NULL: null */
	size_t value_len;
};

/** Bytes that one header takes in the sequence. */
size_t record_header_bytes(const struct record_header *h);
/** Append one header at `out`; returns the byte after it. */
uint8_t *record_header_encode(uint8_t *out, const struct record_header *h);
/** Step through a sequence: 1 and *h, 0 at the end, -EBADMSG.  Start with *pos = 0. */
int record_header_next(const void *headers, size_t len, size_t *pos, struct record_header *h);

enum change_op {
	CHANGE_CREATE = 'c',    /* a put on an absent key */
	CHANGE_UPDATE = 'u',    /* other bytes on a present one */
	CHANGE_UNCHANGED = '=', /* equal bytes on a present one */
	CHANGE_DELETE = 'd',    /* a tombstone; without a before record only while filling a gap */
};

enum change_cause { CAUSE_LOG, CAUSE_RECONCILE };

enum { CHANGE_N_LOG = UINT32_MAX }; /* n of a change that the log itself tells: sorts last */

/* One transition of one key: what the journal holds and what is notified. */
struct change {
	int32_t partition; /* with offset and n: the journal key */
	int64_t offset;
	uint32_t n; /* CHANGE_N_LOG, or 0, 1, ... for the gone keys of a round */
	enum change_op op;
	enum change_cause cause;
	const void *key; /* the whole key of Kafka */
	size_t key_len;
	bool has_before;
	struct record before;
	/* of CAUSE_RECONCILE: a tombstone that never was, at the offset from which on the key is
	 * known to be gone; in journals of older versions nothing */
	bool has_after;
	struct record after; /* a tombstone for CHANGE_DELETE */
	const void *bytes;   /* what change_decode() was given, to be copied elsewhere */
	size_t bytes_len;
};

enum { JOURNAL_KEY_BYTES = 16 };
void change_key_encode(uint8_t out[JOURNAL_KEY_BYTES], int32_t partition, int64_t offset,
		       uint32_t n);
int change_key_decode(struct change *c, const void *key, size_t len);

/* Bytes that change_encode() will write.  before/after are taken as encoded records. */
size_t change_bytes(size_t key_len, size_t before_len, size_t after_len);
/**
 * Encode op, cause and key of `c` with the two records given as bytes (length
 * 0: none), as record_encode() made them.
 */
void change_encode(uint8_t *out, const struct change *c, const void *before, size_t before_len,
		   const void *after, size_t after_len);
/** Decode key and value of a journal entry.  0 or -EBADMSG or -ENOTSUP. */
int change_decode(struct change *c, const void *key, size_t key_len, const void *bytes, size_t len);

/** XXH3-64 of bytes: checksums, anchors. */
uint64_t record_hash(const void *bytes, size_t len);

#endif
