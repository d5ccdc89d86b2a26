/*
 * Any bytes where a record, its headers or a journal entry are expected: they
 * are refused, or what they say lies inside of them.  And what is written is
 * read back, unless a byte of it was changed.
 */
#include "record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(const void *part, size_t len, const uint8_t *data, size_t size)
{
	const uint8_t *p = part;

	if (p && (p < data || len > size || (size_t)(p - data) > size - len))
		abort();
}

static void headers(const uint8_t *data, size_t size)
{
	struct record_header h;
	size_t pos = 0;
	int rc;

	while ((rc = record_header_next(data, size, &pos, &h)) == 1) {
		inside(h.name, h.name_len, data, size);
		inside(h.value, h.value_len, data, size);
	}
	if (rc && rc != -EBADMSG)
		abort();
}

static void whole(const struct record *r, const uint8_t *data, size_t size)
{
	inside(r->key, r->key_len, data, size);
	inside(r->headers, r->headers_len, data, size);
	inside(r->value, r->value_len, data, size);
}

/* As they stand; checksums make most of them end early. */
static void raw(const uint8_t *data, size_t size)
{
	struct record r;
	struct change c;

	headers(data, size);
	if (!record_decode(&r, data, size, "k", 1))
		whole(&r, data, size);
	if (size >= JOURNAL_KEY_BYTES &&
	    !change_decode(&c, data, JOURNAL_KEY_BYTES, data + JOURNAL_KEY_BYTES,
			   size - JOURNAL_KEY_BYTES)) {
		inside(c.key, c.key_len, data, size);
		whole(&c.before, data, size);
		whole(&c.after, data, size);
	}
}

static void journal(const void *key, size_t key_len, const struct record *r, const uint8_t *bytes,
		    size_t len, uint8_t flip)
{
	struct change c = { .op = CHANGE_UPDATE,
			    .partition = r->partition,
			    .offset = r->offset,
			    .n = CHANGE_N_LOG,
			    .key = key,
			    .key_len = key_len };
	size_t n = change_bytes(c.key_len, len, len);
	uint8_t *entry = malloc(n), where[JOURNAL_KEY_BYTES];
	struct change again;

	change_key_encode(where, r->partition, r->offset, CHANGE_N_LOG);
	change_encode(entry, &c, bytes, len, bytes, len);
	if (change_decode(&again, where, sizeof(where), entry, n) || again.op != c.op ||
	    again.key_len != c.key_len || again.after.value_len != r->value_len)
		abort();
	entry[flip % n] ^= 1;
	if (!change_decode(&again, where, sizeof(where), entry, n))
		abort();
	free(entry);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t skey[KEY_STORED_MAX];
	struct record r = { .timestamp_ms = -1 }, again;

	raw(data, size);
	if (size < 3)
		return 0;
	r.partition = data[0];
	r.offset = data[1];
	r.value = data + 2;
	r.value_len = size - 2;
	size_t skey_len = record_stored_key(skey, data, size);
	if (record_key_is_digest(size)) {
		r.flags = RECORD_KEY;
		r.key = data;
		r.key_len = size;
	}
	size_t n = record_bytes(&r);
	uint8_t *bytes = malloc(n);
	record_encode(bytes, &r, skey, skey_len);
	if (record_decode(&again, bytes, n, skey, skey_len) || again.value_len != r.value_len ||
	    memcmp(again.value, r.value, r.value_len) || again.offset != r.offset)
		abort();
	journal(data, size, &r, bytes, n, data[2]);
	bytes[data[2] % n] ^= 1;
	if (!record_decode(&again, bytes, n, skey, skey_len))
		abort();
	free(bytes);
	return 0;
}
