#include "meta.h"

#include "bytes.h"
#include "codes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_BYTES = 8 * 8 + 2 * 4, ANCHOR_BYTES = 24, DIGITS = 10 };

#define PARTITION "partition/"

static MDB_val val(const void *bytes, size_t len)
{
	return (MDB_val){ .mv_size = len, .mv_data = (void *)bytes };
}

static int get(MDB_txn *t, MDB_dbi meta, MDB_val k, MDB_val *v)
{
	return code_from_mdb(mdb_get(t, meta, &k, v));
}

/* ---- texts ---- */

int meta_decode_text(char *text, size_t text_len, const void *bytes, size_t len)
{
	if (len >= text_len)
		return -ERANGE;
	memcpy(text, bytes, len);
	text[len] = 0;
	return 0;
}

int meta_decode_int(int64_t *n, const void *bytes, size_t len)
{
	char text[24], *end;
	if (meta_decode_text(text, sizeof(text), bytes, len))
		return -EBADMSG;
	errno = 0;
	long long v = strtoll(text, &end, 10);
	if (errno || end == text || *end)
		return -EBADMSG;
	*n = v;
	return 0;
}

int meta_get_text(MDB_txn *t, MDB_dbi meta, const char *name, char *text, size_t text_len)
{
	MDB_val v;
	int rc = get(t, meta, val(name, strlen(name)), &v);
	return rc ? rc : meta_decode_text(text, text_len, v.mv_data, v.mv_size);
}

int meta_get_int(MDB_txn *t, MDB_dbi meta, const char *name, int64_t *n)
{
	MDB_val v;
	int rc = get(t, meta, val(name, strlen(name)), &v);
	return rc ? rc : meta_decode_int(n, v.mv_data, v.mv_size);
}

int meta_set_text(MDB_txn *t, MDB_dbi meta, const char *name, const char *text)
{
	MDB_val k = val(name, strlen(name)), v = val(text, strlen(text));
	return code_from_mdb(mdb_put(t, meta, &k, &v, 0));
}

int meta_set_int(MDB_txn *t, MDB_dbi meta, const char *name, int64_t n)
{
	char text[24];
	snprintf(text, sizeof(text), "%lld", (long long)n);
	return meta_set_text(t, meta, name, text);
}

/* ---- partitions ---- */

static MDB_val numbered(char key[META_KEY_BYTES], const char *what, int32_t p)
{
	return val(key, (size_t)snprintf(key, META_KEY_BYTES, "%s%0*d", what, DIGITS, p));
}

size_t meta_partition_key(char key[META_KEY_BYTES], int32_t p)
{
	return numbered(key, PARTITION, p).mv_size;
}

bool meta_is_partition(const void *key, size_t len, int32_t *p)
{
	char digits[DIGITS + 1] = "";
	size_t prefix = strlen(PARTITION);
	if (len != prefix + DIGITS || memcmp(key, PARTITION, prefix) != 0)
		return false;
	memcpy(digits, (const char *)key + prefix, DIGITS);
	*p = (int32_t)strtol(digits, NULL, 10);
	return true;
}

int meta_decode_partition(struct state_partition *row, const void *bytes, size_t len)
{
	const uint8_t *b = bytes;
	if (len != ROW_BYTES)
		return -EBADMSG;
	*row = (struct state_partition){
		.applied = (int64_t)get_le64(b),
		.start = (int64_t)get_le64(b + 8),
		.whole = (int64_t)get_le64(b + 16),
		.base = (int64_t)get_le64(b + 24),
		.published = (int64_t)get_le64(b + 32),
		.caught_wall_ms = (int64_t)get_le64(b + 40),
		.caught_boot_ms = (int64_t)get_le64(b + 48),
		.due = (int64_t)get_le64(b + 56),
		.base_n = get_le32(b + 64),
		.published_n = get_le32(b + 68),
	};
	return 0;
}

int meta_get_partition(MDB_txn *t, MDB_dbi meta, int32_t p, struct state_partition *row)
{
	char key[META_KEY_BYTES];
	MDB_val v;
	int rc = get(t, meta, numbered(key, PARTITION, p), &v);
	return rc ? rc : meta_decode_partition(row, v.mv_data, v.mv_size);
}

int meta_set_partition(MDB_txn *t, MDB_dbi meta, int32_t p, const struct state_partition *row)
{
	uint8_t b[ROW_BYTES];
	put_le64(b, (uint64_t)row->applied);
	put_le64(b + 8, (uint64_t)row->start);
	put_le64(b + 16, (uint64_t)row->whole);
	put_le64(b + 24, (uint64_t)row->base);
	put_le64(b + 32, (uint64_t)row->published);
	put_le64(b + 40, (uint64_t)row->caught_wall_ms);
	put_le64(b + 48, (uint64_t)row->caught_boot_ms);
	put_le64(b + 56, (uint64_t)row->due);
	put_le32(b + 64, row->base_n);
	put_le32(b + 68, row->published_n);

	char key[META_KEY_BYTES];
	MDB_val k = numbered(key, PARTITION, p), v = val(b, sizeof(b));
	return code_from_mdb(mdb_put(t, meta, &k, &v, 0));
}

/* The last key below "partition0", which sorts right behind all of them. */
static int last_partition(MDB_cursor *c, int32_t *p)
{
	MDB_val k = val("partition0", 10), v;
	int rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE);
	if (rc == 0)
		rc = mdb_cursor_get(c, &k, &v, MDB_PREV);
	else if (rc == MDB_NOTFOUND)
		rc = mdb_cursor_get(c, &k, &v, MDB_LAST);
	if (rc)
		return code_from_mdb(rc);
	return meta_is_partition(k.mv_data, k.mv_size, p) ? 0 : -ENOENT;
}

int meta_get_partitions(MDB_txn *t, MDB_dbi meta, int32_t *n)
{
	MDB_cursor *c;
	int rc = mdb_cursor_open(t, meta, &c);
	if (rc)
		return code_from_mdb(rc);
	int32_t last = -1;
	rc = last_partition(c, &last);
	mdb_cursor_close(c);
	if (rc && rc != -ENOENT)
		return rc;
	*n = last + 1;
	return 0;
}

/* ---- anchors ---- */

int meta_get_anchors(MDB_txn *t, MDB_dbi meta, int32_t p, struct state_anchor *a)
{
	char key[META_KEY_BYTES];
	MDB_val v;
	int rc = get(t, meta, numbered(key, "anchors/", p), &v);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	if (v.mv_size % ANCHOR_BYTES || v.mv_size > STATE_ANCHORS * ANCHOR_BYTES)
		return -EBADMSG;
	int n = (int)(v.mv_size / ANCHOR_BYTES);
	const uint8_t *b = v.mv_data;
	for (int i = 0; i < n; i++, b += ANCHOR_BYTES)
		a[i] = (struct state_anchor){ .offset = (int64_t)get_le64(b),
					      .timestamp_ms = (int64_t)get_le64(b + 8),
					      .key_hash = get_le64(b + 16) };
	return n;
}

int meta_set_anchors(MDB_txn *t, MDB_dbi meta, int32_t p, const struct state_anchor *a, int n)
{
	uint8_t b[STATE_ANCHORS * ANCHOR_BYTES];
	if (n < 0 || n > STATE_ANCHORS)
		return -EINVAL;
	for (int i = 0; i < n; i++) {
		put_le64(b + i * ANCHOR_BYTES, (uint64_t)a[i].offset);
		put_le64(b + i * ANCHOR_BYTES + 8, (uint64_t)a[i].timestamp_ms);
		put_le64(b + i * ANCHOR_BYTES + 16, a[i].key_hash);
	}
	char key[META_KEY_BYTES];
	MDB_val k = numbered(key, "anchors/", p), v = val(b, (size_t)n * ANCHOR_BYTES);
	return code_from_mdb(mdb_put(t, meta, &k, &v, 0));
}
