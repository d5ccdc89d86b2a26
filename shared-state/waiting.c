/*
 * waiting.c - superseded pairs, until the old record is physically gone.
 *
 *   waiting      key as in the journal: (partition, s, n = last); value as there,
 *                with the old record whole and of the new one the head only
 *   superseded   (partition, r, 0) -> s, u64 little endian: who has superseded r
 *   tombstones   stored key -> the tombstone that is the latest record of its key,
 *                a record of `records` otherwise: what supersedes it makes a pair
 *   forgetting   (partition, r, 0) -> stored key of that tombstone, so that there
 *                is an oldest one
 *
 * The new value of a pair (r, s) is not stored twice: it is the latest record of
 * its key, or it has been superseded itself and waits as the old record of a
 * later pair, which `superseded` finds.  Pairs leave in the order of s, so it
 * is there for as long as (r, s) is.
 *
 * All of them are made with the first commit that wants them, and removed by the
 * first one that does not.
 */
#include "state_private.h"

#include "bytes.h"
#include "codes.h"
#include "fault.h"
#include "meta.h"

#include <errno.h>
#include <string.h>

static const char *const names[] = { "waiting", "superseded", "tombstones", "forgetting" };
enum { DATABASES = sizeof(names) / sizeof(*names) };

static MDB_val val(const void *bytes, size_t len)
{
	return (MDB_val){ .mv_size = len, .mv_data = (void *)bytes };
}

bool state_waits(const struct state *st) { return st->wants_waiting; }

/* ---- making and removing ---- */

MDB_dbi *waiting_dbi(struct state *st, int i)
{
	MDB_dbi *const all[DATABASES] = { &st->waiting, &st->superseded, &st->tombstones,
					  &st->forgetting };

	return i < DATABASES ? all[i] : NULL;
}

int waiting_open(struct state *st, MDB_txn *t, unsigned flags)
{
	int rc = 0;

	for (int i = 0; i < DATABASES && !rc; i++)
		rc = mdb_dbi_open(t, names[i], flags, waiting_dbi(st, i));
	return rc;
}

int waiting_load(struct state *st, MDB_txn *t)
{
	int found = 0;

	/* a version before this one made the first two of them only: the next commit makes the rest */
	for (int i = 0; i < DATABASES; i++) {
		int rc = mdb_dbi_open(t, names[i], 0, waiting_dbi(st, i));
		if (rc && rc != MDB_NOTFOUND)
			return code_from_mdb(rc);
		found += !rc;
	}
	st->stale_waiting = found && !st->wants_waiting;
	atomic_store(&st->has_waiting, found == DATABASES && st->wants_waiting);
	return 0;
}

/* Whatever is there of them. */
static int drop_all(struct state_txn *t)
{
	int rc = 0;

	for (int i = 0; i < DATABASES && !rc; i++) {
		rc = mdb_dbi_open(t->txn, names[i], 0, waiting_dbi(t->st, i));
		if (rc == MDB_NOTFOUND)
			rc = 0;
		else if (!rc)
			rc = mdb_drop(t->txn, *waiting_dbi(t->st, i), 1);
	}
	return rc;
}

static int remove_stale(struct state_txn *t)
{
	struct state *st = t->st;
	int rc = drop_all(t);

	if (!rc) /* nothing is told of what is not there */
		rc = meta_set_text(t->txn, st->meta, "waiting", "");
	st->stale_waiting = false; /* the handles are closed: the next start tries again */
	return rc ? state_write_failed(st, code_from_mdb(rc)) : 0;
}

int waiting_begin(struct state_txn *t)
{
	struct state *st = t->st;

	if (st->stale_waiting)
		return remove_stale(t);
	if (!st->wants_waiting || atomic_load(&st->has_waiting))
		return 0;
	int rc = waiting_open(st, t->txn, MDB_CREATE);
	t->made_waiting = !rc;
	return rc ? state_write_failed(st, code_from_mdb(rc)) : 0;
}

void waiting_committed(struct state *st, bool made)
{
	if (made)
		atomic_store(&st->has_waiting, true);
}

/* ---- writing ---- */

static int open_cursors(struct state_txn *t)
{
	int rc = 0;

	if (!t->waiting)
		rc = mdb_cursor_open(t->txn, t->st->waiting, &t->waiting);
	if (!rc && !t->superseded)
		rc = mdb_cursor_open(t->txn, t->st->superseded, &t->superseded);
	if (!rc && !t->tombstones)
		rc = mdb_cursor_open(t->txn, t->st->tombstones, &t->tombstones);
	if (!rc && !t->forgetting)
		rc = mdb_cursor_open(t->txn, t->st->forgetting, &t->forgetting);
	return rc;
}

static int put_superseded(struct state_txn *t, const struct change *c, const uint8_t *before)
{
	uint8_t key[JOURNAL_KEY_BYTES], by[8];

	change_key_encode(key, c->partition, (int64_t)get_le64(before + 8), 0);
	put_le64(by, (uint64_t)c->offset);
	MDB_val k = val(key, sizeof(key)), v = val(by, sizeof(by));
	return mdb_cursor_put(t->superseded, &k, &v, 0);
}

int state_wait(struct state_txn *t, const struct change *c, const void *before, size_t before_len,
	       const void *after, size_t after_len)
{
	struct state *st = t->st;
	size_t len = change_bytes(c->key_len, before_len, after_len);
	uint8_t key[JOURNAL_KEY_BYTES];
	int rc = state_reserve(st, len);

	if (rc)
		return rc;
	change_encode(st->buf, c, before, before_len, after, after_len);
	change_key_encode(key, c->partition, c->offset, c->n);
	MDB_val k = val(key, sizeof(key)), v = val(st->buf, len);
	rc = open_cursors(t);
	if (!rc)
		rc = mdb_cursor_put(t->waiting, &k, &v, 0);
	FAULT_POINT("waiting.pair");
	if (!rc)
		rc = put_superseded(t, c, before);
	return rc ? state_write_failed(st, code_from_mdb(rc)) : 0;
}

/* Delete what stands below, from the first of the partition on. */
static int trim(MDB_cursor *cursor, int32_t p, int64_t below, int max)
{
	uint8_t first[JOURNAL_KEY_BYTES];
	MDB_cursor_op op = MDB_SET_RANGE;
	MDB_val v;

	change_key_encode(first, p, 0, 0);
	MDB_val k = val(first, sizeof(first));
	for (int deleted = 0; deleted < max; deleted++) {
		struct change c;
		int rc = mdb_cursor_get(cursor, &k, &v, op);

		if (rc == MDB_NOTFOUND)
			return deleted;
		if (!rc)
			rc = change_key_decode(&c, k.mv_data, k.mv_size) ? EBADMSG : 0;
		if (!rc && (c.partition != p || c.offset >= below))
			return deleted;
		if (!rc)
			rc = mdb_cursor_del(cursor, 0);
		if (rc)
			return code_from_mdb(rc);
		op = MDB_NEXT; /* after a deletion: the entry that moved up */
	}
	return max;
}

int state_waiting_trim(struct state_txn *t, int32_t p, int64_t below, int max)
{
	int rc = code_from_mdb(open_cursors(t)), deleted;

	if (rc)
		return rc;
	rc = deleted = trim(t->waiting, p, below, max);
	if (deleted > 0)
		FAULT_POINT("waiting.trim");
	if (rc >= 0)
		rc = trim(t->superseded, p, below, max);
	return rc < 0 ? state_write_failed(t->st, rc) : deleted;
}

/* ---- tombstones ---- */

int state_tombstone(struct state_txn *t, const void *skey, size_t skey_len, const void **rec,
		    size_t *rec_len)
{
	MDB_val k = val(skey, skey_len), v;
	int rc = open_cursors(t);

	if (!rc)
		rc = mdb_cursor_get(t->tombstones, &k, &v, MDB_SET_KEY);
	if (rc)
		return code_from_mdb(rc);
	*rec = v.mv_data;
	*rec_len = v.mv_size;
	return 0;
}

/* The entry of `forgetting` for a tombstone that is stored as `rec`. */
static int forgetting_key(uint8_t out[JOURNAL_KEY_BYTES], const void *rec, size_t rec_len)
{
	const uint8_t *b = rec;

	if (rec_len < RECORD_HEADER_BYTES)
		return -EBADMSG;
	change_key_encode(out, (int32_t)get_le32(b + 4), (int64_t)get_le64(b + 8), 0);
	return 0;
}

int state_tombstone_del(struct state_txn *t, const void *skey, size_t skey_len)
{
	uint8_t key[JOURNAL_KEY_BYTES];
	const void *rec;
	size_t len;
	int rc = state_tombstone(t, skey, skey_len, &rec, &len);

	if (!rc)
		rc = forgetting_key(key, rec, len);
	if (rc)
		return rc;
	MDB_val k = val(key, sizeof(key)), v;
	rc = mdb_cursor_del(t->tombstones, 0); /* which stands on it */
	if (!rc)
		rc = mdb_cursor_get(t->forgetting, &k, &v, MDB_SET_KEY);
	if (rc == MDB_NOTFOUND)
		return -EBADMSG;
	if (!rc)
		rc = mdb_cursor_del(t->forgetting, 0);
	return rc ? state_write_failed(t->st, code_from_mdb(rc)) : 0;
}

int state_tombstone_put(struct state_txn *t, const void *skey, size_t skey_len, const void *rec,
			size_t rec_len)
{
	uint8_t key[JOURNAL_KEY_BYTES];
	int rc = state_tombstone_del(t, skey, skey_len);

	if (rc && rc != -ENOENT)
		return rc;
	rc = forgetting_key(key, rec, rec_len);
	if (rc)
		return rc;
	MDB_val k = val(skey, skey_len), v = val(rec, rec_len);
	rc = mdb_cursor_put(t->tombstones, &k, &v, 0);
	FAULT_POINT("waiting.tombstone");
	if (!rc) {
		MDB_val at = val(key, sizeof(key));
		rc = mdb_cursor_put(t->forgetting, &at, &k, 0);
	}
	return rc ? state_write_failed(t->st, code_from_mdb(rc)) : 0;
}

/* The oldest one of partition p: 1, or 0: there is none. */
static int forget_one(struct state_txn *t, int32_t p)
{
	uint8_t key[JOURNAL_KEY_BYTES], skey[KEY_STORED_MAX];
	struct change at;
	MDB_val v;

	change_key_encode(key, p, 0, 0);
	MDB_val k = val(key, sizeof(key));
	int rc = mdb_cursor_get(t->forgetting, &k, &v, MDB_SET_RANGE);
	if (rc)
		return rc == MDB_NOTFOUND ? 0 : code_from_mdb(rc);
	if (change_key_decode(&at, k.mv_data, k.mv_size) || v.mv_size > sizeof(skey))
		return -EBADMSG;
	if (at.partition != p)
		return 0;
	size_t len = v.mv_size;
	memcpy(skey, v.mv_data, len); /* the page that it stands in is about to change */
	rc = state_tombstone_del(t, skey, len);
	return rc == -ENOENT ? -EBADMSG : rc ? rc : 1; /* it stands in both or in none */
}

int state_tombstones_trim(struct state_txn *t, int32_t p, int max)
{
	int n = 0, rc = code_from_mdb(open_cursors(t));

	if (!rc)
		rc = 1;
	while (rc == 1 && n < max && (rc = forget_one(t, p)) == 1)
		n++;
	return rc < 0 ? rc : n;
}

/* ---- reading ---- */

static int open_view(struct state_view *v, int32_t p)
{
	if (!v->has_waiting)
		return -ENOENT;
	v->waiting_partition = p;
	return v->waiting ? 0 : code_from_mdb(mdb_cursor_open(v->txn, v->st->waiting, &v->waiting));
}

static int step(struct state_view *v, MDB_val *k, MDB_val *bytes, MDB_cursor_op op)
{
	struct change d;
	int rc = mdb_cursor_get(v->waiting, k, bytes, op);

	if (rc)
		return code_from_mdb(rc);
	rc = change_key_decode(&d, k->mv_data, k->mv_size);
	if (rc)
		return rc;
	return d.partition == v->waiting_partition ? 0 : -ENOENT;
}

static int first(struct state_view *v, int32_t p, int64_t offset, MDB_val *k, MDB_val *bytes)
{
	uint8_t key[JOURNAL_KEY_BYTES];
	int rc = open_view(v, p);

	if (rc)
		return rc;
	change_key_encode(key, p, offset, 0);
	*k = val(key, sizeof(key));
	return step(v, k, bytes, MDB_SET_RANGE);
}

static int decode(struct change *c, MDB_val k, MDB_val b)
{
	return change_decode(c, k.mv_data, k.mv_size, b.mv_data, b.mv_size);
}

int state_view_waiting(struct state_view *v, int32_t p, int64_t offset, struct change *c)
{
	MDB_val k, b;
	int rc = first(v, p, offset, &k, &b);

	return rc ? rc : decode(c, k, b);
}

int state_view_waiting_next(struct state_view *v, struct change *c)
{
	MDB_val k, b;
	int rc = v->waiting ? step(v, &k, &b, MDB_NEXT) : -EINVAL;

	return rc ? rc : decode(c, k, b);
}

/* Header, key, old record: in its head stands its offset. */
static int look(struct state_pair *pair, MDB_val k, MDB_val b)
{
	const uint8_t *bytes = b.mv_data;
	size_t at = CHANGE_HEADER_BYTES;
	struct change d;

	if (change_key_decode(&d, k.mv_data, k.mv_size) || b.mv_size < at)
		return -EBADMSG;
	at += get_le32(bytes + 4);
	if (b.mv_size < at + RECORD_HEADER_BYTES)
		return -EBADMSG;
	*pair = (struct state_pair){ .old_offset = (int64_t)get_le64(bytes + at + 8),
				     .offset = d.offset,
				     .bytes = b.mv_size,
				     .tombstone = bytes[at + 1] & RECORD_TOMBSTONE,
				     .omitted = bytes[at + 1] & RECORD_OMITTED };
	return 0;
}

int state_view_pair(struct state_view *v, int32_t p, int64_t offset, struct state_pair *pair)
{
	MDB_val k, b;
	int rc = first(v, p, offset, &k, &b);

	return rc ? rc : look(pair, k, b);
}

int state_view_pair_next(struct state_view *v, struct state_pair *pair)
{
	MDB_val k, b;
	int rc = v->waiting ? step(v, &k, &b, MDB_NEXT) : -EINVAL;

	return rc ? rc : look(pair, k, b);
}

/* The record at (p, offset) as the old one of the pair that superseded it. */
static int superseded_version(struct state_view *v, int32_t p, int64_t offset, struct record *out)
{
	uint8_t key[JOURNAL_KEY_BYTES];
	struct change c;

	if (!v->has_waiting)
		return -ENOENT;
	change_key_encode(key, p, offset, 0);
	MDB_val k = val(key, sizeof(key)), by, bytes;
	int rc = code_from_mdb(mdb_get(v->txn, v->st->superseded, &k, &by));
	if (!rc && by.mv_size != 8)
		rc = -EBADMSG;
	if (rc)
		return rc;
	change_key_encode(key, p, (int64_t)get_le64(by.mv_data), CHANGE_N_LOG);
	rc = code_from_mdb(mdb_get(v->txn, v->st->waiting, &k, &bytes));
	if (!rc)
		rc = decode(&c, k, bytes);
	if (!rc)
		*out = c.before;
	return rc;
}

int state_view_version(struct state_view *v, int32_t p, int64_t offset, const void *skey,
		       size_t skey_len, struct record *out)
{
	struct record latest;
	const void *bytes;
	size_t len;
	int rc = state_view_get(v, skey, skey_len, &bytes, &len);

	if (!rc)
		rc = record_decode(&latest, bytes, len, skey, skey_len);
	if (!rc && latest.partition == p && latest.offset == offset) {
		*out = latest;
		return 0;
	}
	return rc && rc != -ENOENT ? rc : superseded_version(v, p, offset, out);
}
