#include "record.h"

#include "bytes.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

/* Inlined: the library then needs no libxxhash at run time, and short inputs are faster. */
#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
	CHECKSUM_AT = 24,        /* in a record: the bytes before it are covered */
	CHANGE_CHECKSUM_AT = 16, /* in a change, likewise */
	KNOWN_FLAGS = RECORD_KEY | RECORD_HEADERS | RECORD_TOMBSTONE | RECORD_OMITTED,
	SHA256_BYTES = 32,
	SHORT_BYTES = 512, /* up to here one copy is cheaper than XXH3's streaming state */
};

_Static_assert(KEY_VERBATIM_MAX + SHA256_BYTES == KEY_STORED_MAX, "digest form");

uint64_t record_hash(const void *bytes, size_t len) { return XXH3_64bits(bytes, len); }

/* XXH3-64 of the three pieces, one after the other. */
static uint64_t hash_pieces(const void *a, size_t a_len, const void *b, size_t b_len, const void *c,
			    size_t c_len)
{
	if (a_len + b_len + c_len <= SHORT_BYTES) {
		uint8_t all[SHORT_BYTES] NOT_CLEARED;
		memcpy(all, a, a_len);
		memcpy(all + a_len, b, b_len);
		memcpy(all + a_len + b_len, c, c_len);
		return XXH3_64bits(all, a_len + b_len + c_len);
	}
	XXH3_state_t s NOT_CLEARED;
	XXH3_64bits_reset(&s);
	XXH3_64bits_update(&s, a, a_len);
	XXH3_64bits_update(&s, b, b_len);
	XXH3_64bits_update(&s, c, c_len);
	return XXH3_64bits_digest(&s);
}

size_t record_stored_key(uint8_t out[KEY_STORED_MAX], const void *key, size_t key_len)
{
	if (!record_key_is_digest(key_len)) {
		memcpy(out, key, key_len);
		return key_len;
	}
	size_t prefix = key_len < KEY_VERBATIM_MAX ? key_len : KEY_VERBATIM_MAX;
	if (prefix)
		memcpy(out, key, prefix);
	memset(out + prefix, 0, KEY_VERBATIM_MAX - prefix);
	if (!EVP_Digest(key_len ? key : "", key_len, out + KEY_VERBATIM_MAX, NULL, EVP_sha256(),
			NULL))
		return 0;
	return KEY_STORED_MAX;
}

bool record_omit(uint8_t out[RECORD_OMITTED_BYTES], const void *value, size_t len)
{
	put_le64(out, len);
	return EVP_Digest(len ? value : "", len, out + 8, NULL, EVP_sha256(), NULL);
}

/* ---- records ---- */

static bool has_key(const struct record *r) { return r->flags & RECORD_KEY; }
static bool has_headers(const struct record *r) { return r->flags & RECORD_HEADERS; }
static bool is_tombstone(const struct record *r) { return r->flags & RECORD_TOMBSTONE; }

size_t record_bytes(const struct record *r)
{
	return RECORD_HEADER_BYTES + (has_key(r) ? 4 + r->key_len : 0) +
	       (has_headers(r) ? 4 + r->headers_len : 0) + (is_tombstone(r) ? 0 : r->value_len);
}

static uint8_t *put_bytes(uint8_t *p, const void *bytes, size_t len)
{
	if (len) /* bytes may be NULL when there are none */
		memcpy(p, bytes, len);
	return p + len;
}

static uint8_t *put_counted(uint8_t *p, const void *bytes, size_t len)
{
	put_le32(p, (uint32_t)len);
	return put_bytes(p + 4, bytes, len);
}

static uint64_t record_checksum(const uint8_t *rec, size_t len, const void *skey, size_t skey_len)
{
	return hash_pieces(skey, skey_len, rec, CHECKSUM_AT, rec + RECORD_HEADER_BYTES,
			   len - RECORD_HEADER_BYTES);
}

void record_encode(uint8_t *out, const struct record *r, const void *skey, size_t skey_len)
{
	out[0] = RECORD_FORMAT;
	out[1] = r->flags;
	out[2] = out[3] = 0;
	put_le32(out + 4, (uint32_t)r->partition);
	put_le64(out + 8, (uint64_t)r->offset);
	put_le64(out + 16, (uint64_t)r->timestamp_ms);

	uint8_t *p = out + RECORD_HEADER_BYTES;
	if (has_key(r))
		p = put_counted(p, r->key, r->key_len);
	if (has_headers(r))
		p = put_counted(p, r->headers, r->headers_len);
	if (!is_tombstone(r))
		p = put_bytes(p, r->value, r->value_len);
	put_le64(out + CHECKSUM_AT, record_checksum(out, (size_t)(p - out), skey, skey_len));
}

/* What is left of the bytes being decoded. */
struct rest {
	const uint8_t *p;
	size_t len;
};

static bool take(struct rest *r, size_t len, const void **out)
{
	if (r->len < len)
		return false;
	*out = r->p;
	r->p += len;
	r->len -= len;
	return true;
}

static bool take_u32(struct rest *r, uint32_t *out)
{
	const void *p;
	if (!take(r, 4, &p))
		return false;
	*out = get_le32(p);
	return true;
}

static bool take_counted(struct rest *r, const void **out, size_t *out_len)
{
	uint32_t len;
	if (!take_u32(r, &len) || !take(r, len, out))
		return false;
	*out_len = len;
	return true;
}

int record_decode(struct record *r, const void *bytes, size_t len, const void *skey,
		  size_t skey_len)
{
	const uint8_t *b = bytes;
	if (len < RECORD_HEADER_BYTES || b[0] == 0)
		return -EBADMSG;
	if (b[0] > RECORD_FORMAT)
		return -ENOTSUP;
	if (get_le64(b + CHECKSUM_AT) != record_checksum(b, len, skey, skey_len))
		return -EBADMSG;
	if (b[1] & ~KNOWN_FLAGS)
		return -ENOTSUP;

	struct record d = {
		.flags = b[1],
		.partition = (int32_t)get_le32(b + 4),
		.offset = (int64_t)get_le64(b + 8),
		.timestamp_ms = (int64_t)get_le64(b + 16),
	};
	struct rest rest = { b + RECORD_HEADER_BYTES, len - RECORD_HEADER_BYTES };
	if (has_key(&d) != (skey_len == KEY_STORED_MAX))
		return -EBADMSG;
	if (has_key(&d) && !take_counted(&rest, &d.key, &d.key_len))
		return -EBADMSG;
	if (has_headers(&d) && !take_counted(&rest, &d.headers, &d.headers_len))
		return -EBADMSG;
	if (is_tombstone(&d) && rest.len)
		return -EBADMSG;
	if (d.flags & RECORD_OMITTED && (is_tombstone(&d) || rest.len != RECORD_OMITTED_BYTES))
		return -EBADMSG;
	if (!is_tombstone(&d)) {
		d.value = rest.p;
		d.value_len = rest.len;
	}
	*r = d;
	return 0;
}

/* ---- source headers ---- */

size_t record_header_bytes(const struct record_header *h)
{
	return 4 + h->name_len + 4 + (h->value ? h->value_len : 0);
}

uint8_t *record_header_encode(uint8_t *out, const struct record_header *h)
{
	out = put_counted(out, h->name, h->name_len);
	if (h->value)
		return put_counted(out, h->value, h->value_len);
	put_le32(out, UINT32_MAX);
	return out + 4;
}

int record_header_next(const void *headers, size_t len, size_t *pos, struct record_header *h)
{
	if (*pos >= len)
		return *pos == len ? 0 : -EBADMSG;

	struct rest rest = { (const uint8_t *)headers + *pos, len - *pos };
	struct record_header d = { 0 };
	const void *name;
	uint32_t value_len;
	if (!take_counted(&rest, &name, &d.name_len) || !take_u32(&rest, &value_len))
		return -EBADMSG;
	d.name = name;
	if (value_len != UINT32_MAX) {
		d.value_len = value_len;
		if (!take(&rest, value_len, &d.value))
			return -EBADMSG;
	}
	*pos = len - rest.len;
	*h = d;
	return 1;
}

/* ---- changes ---- */

void change_key_encode(uint8_t out[JOURNAL_KEY_BYTES], int32_t partition, int64_t offset,
		       uint32_t n)
{
	put_be32(out, (uint32_t)partition);
	put_be64(out + 4, (uint64_t)offset);
	put_be32(out + 12, n);
}

int change_key_decode(struct change *c, const void *key, size_t len)
{
	const uint8_t *k = key;
	if (len != JOURNAL_KEY_BYTES || get_be32(k) > INT32_MAX || get_be64(k + 4) > INT64_MAX)
		return -EBADMSG;
	c->partition = (int32_t)get_be32(k);
	c->offset = (int64_t)get_be64(k + 4);
	c->n = get_be32(k + 12);
	return 0;
}

size_t change_bytes(size_t key_len, size_t before_len, size_t after_len)
{
	return CHANGE_HEADER_BYTES + key_len + before_len + after_len;
}

static uint64_t change_checksum(const uint8_t *entry, size_t len, const uint8_t *journal_key)
{
	return hash_pieces(journal_key, JOURNAL_KEY_BYTES, entry, CHANGE_CHECKSUM_AT,
			   entry + CHANGE_HEADER_BYTES, len - CHANGE_HEADER_BYTES);
}

void change_encode(uint8_t *out, const struct change *c, const void *before, size_t before_len,
		   const void *after, size_t after_len)
{
	out[0] = RECORD_FORMAT;
	out[1] = (uint8_t)c->op;
	out[2] = (uint8_t)c->cause;
	out[3] = 0;
	put_le32(out + 4, (uint32_t)c->key_len);
	put_le32(out + 8, (uint32_t)before_len);
	put_le32(out + 12, (uint32_t)after_len);

	uint8_t *p = put_bytes(out + CHANGE_HEADER_BYTES, c->key, c->key_len);
	p = put_bytes(p, before, before_len);
	p = put_bytes(p, after, after_len);

	uint8_t journal_key[JOURNAL_KEY_BYTES];
	change_key_encode(journal_key, c->partition, c->offset, c->n);
	put_le64(out + CHANGE_CHECKSUM_AT, change_checksum(out, (size_t)(p - out), journal_key));
}

static bool known_op(uint8_t op)
{
	return op == CHANGE_CREATE || op == CHANGE_UPDATE || op == CHANGE_UNCHANGED ||
	       op == CHANGE_DELETE;
}

/* The two records of a change; their own checksums tell damage older than the journal. */
static int decode_sides(struct change *c, struct rest *rest, size_t before_len, size_t after_len)
{
	uint8_t skey[KEY_STORED_MAX];
	size_t skey_len = record_stored_key(skey, c->key, c->key_len);
	if (!skey_len)
		return -ENOMEM;

	const void *before, *after;
	if (!take(rest, before_len, &before) || !take(rest, after_len, &after) || rest->len)
		return -EBADMSG;
	c->has_before = before_len > 0;
	c->has_after = after_len > 0;
	int rc = 0;
	if (c->has_before)
		rc = record_decode(&c->before, before, before_len, skey, skey_len);
	if (!rc && c->has_after)
		rc = record_decode(&c->after, after, after_len, skey, skey_len);
	return rc;
}

int change_decode(struct change *c, const void *key, size_t key_len, const void *bytes, size_t len)
{
	const uint8_t *b = bytes;
	struct change d = { 0 };
	int rc = change_key_decode(&d, key, key_len);
	if (rc)
		return rc;
	if (len < CHANGE_HEADER_BYTES || b[0] == 0)
		return -EBADMSG;
	if (b[0] > RECORD_FORMAT)
		return -ENOTSUP;
	if (get_le64(b + CHANGE_CHECKSUM_AT) != change_checksum(b, len, key))
		return -EBADMSG;
	if (!known_op(b[1]) || b[2] > CAUSE_RECONCILE)
		return -ENOTSUP;

	struct rest rest = { b + CHANGE_HEADER_BYTES, len - CHANGE_HEADER_BYTES };
	d.op = b[1];
	d.cause = b[2];
	d.key_len = get_le32(b + 4);
	if (!take(&rest, d.key_len, &d.key))
		return -EBADMSG;
	rc = decode_sides(&d, &rest, get_le32(b + 8), get_le32(b + 12));
	if (rc)
		return rc;
	d.bytes = bytes;
	d.bytes_len = len;
	*c = d;
	return 0;
}
