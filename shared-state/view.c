/* view.c - reading beside the writer, in ordinary read transactions of its own environment. */
#include "state_private.h"

#include "codes.h"
#include "meta.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

bool state_same_boot_in(struct state *st, MDB_txn *t)
{
	char stored[UUID_TEXT_BYTES];
	return *st->boot_id &&
	       meta_get_text(t, st->meta, META_BOOT_ID, stored, sizeof(stored)) == 0 &&
	       strcmp(stored, st->boot_id) == 0;
}

int state_view_begin(struct state *st, struct state_view **out)
{
	struct state_view *v = calloc(1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	v->st = st;
	v->has_waiting = atomic_load(&st->has_waiting);
	int rc = code_from_mdb(mdb_txn_begin(st->env, NULL, MDB_RDONLY, &v->txn));
	if (rc) {
		free(v);
		return rc;
	}
	*out = v;
	return 0;
}

void state_view_end(struct state_view *v)
{
	if (!v)
		return;
	if (v->records)
		mdb_cursor_close(v->records);
	if (v->journal)
		mdb_cursor_close(v->journal);
	if (v->waiting)
		mdb_cursor_close(v->waiting);
	mdb_txn_abort(v->txn);
	free(v);
}

uint64_t state_view_txnid(const struct state_view *v) { return mdb_txn_id(v->txn); }

bool state_same_boot(struct state_view *v) { return state_same_boot_in(v->st, v->txn); }

/* ---- meta ---- */

int state_view_partition(struct state_view *v, int32_t p, struct state_partition *row)
{
	int rc = meta_get_partition(v->txn, v->st->meta, p, row);
	if (!rc && row->caught_boot_ms >= 0 && !state_same_boot(v))
		row->caught_boot_ms = -1;
	return rc;
}

int state_view_partitions(struct state_view *v, int32_t *n)
{
	return meta_get_partitions(v->txn, v->st->meta, n);
}

int state_view_anchors(struct state_view *v, int32_t p, struct state_anchor *a)
{
	return meta_get_anchors(v->txn, v->st->meta, p, a);
}

int state_view_meta(struct state_view *v, const char *name, char *text, size_t text_len)
{
	return meta_get_text(v->txn, v->st->meta, name, text, text_len);
}

/* ---- journal ---- */

static int journal_step(struct state_view *v, MDB_val *k, MDB_cursor_op op, struct change *c)
{
	MDB_val bytes;
	struct change d;
	int rc = mdb_cursor_get(v->journal, k, &bytes, op);
	if (rc)
		return code_from_mdb(rc);
	rc = change_key_decode(&d, k->mv_data, k->mv_size);
	if (rc)
		return rc;
	if (d.partition != v->partition)
		return -ENOENT;
	return change_decode(c, k->mv_data, k->mv_size, bytes.mv_data, bytes.mv_size);
}

int state_view_journal(struct state_view *v, int32_t p, int64_t offset, uint32_t n,
		       struct change *c)
{
	if (!v->journal) {
		int rc = mdb_cursor_open(v->txn, v->st->journal, &v->journal);
		if (rc)
			return code_from_mdb(rc);
	}
	uint8_t key[JOURNAL_KEY_BYTES];
	change_key_encode(key, p, offset, n);
	MDB_val k = { .mv_size = sizeof(key), .mv_data = key };
	v->partition = p;
	return journal_step(v, &k, MDB_SET_RANGE, c);
}

int state_view_journal_next(struct state_view *v, struct change *c)
{
	MDB_val k;
	if (!v->journal)
		return -EINVAL;
	return journal_step(v, &k, MDB_NEXT, c);
}

/* ---- records ---- */

int state_view_get(struct state_view *v, const void *skey, size_t skey_len, const void **rec,
		   size_t *rec_len)
{
	MDB_val k = { .mv_size = skey_len, .mv_data = (void *)skey }, r;
	int rc = mdb_get(v->txn, v->st->records, &k, &r);
	if (rc)
		return code_from_mdb(rc);
	*rec = r.mv_data;
	*rec_len = r.mv_size;
	return 0;
}

/* The first step of a walk: onto the first key after `after`. */
static int walk_first(struct state_view *v, const void *after, size_t after_len, MDB_val *k,
		      MDB_val *r)
{
	int rc = mdb_cursor_open(v->txn, v->st->records, &v->records);
	if (rc)
		return rc;
	if (!after_len)
		return mdb_cursor_get(v->records, k, r, MDB_FIRST);
	*k = (MDB_val){ .mv_size = after_len, .mv_data = (void *)after };
	rc = mdb_cursor_get(v->records, k, r, MDB_SET_RANGE);
	if (!rc && k->mv_size == after_len && !memcmp(k->mv_data, after, after_len))
		rc = mdb_cursor_get(v->records, k, r, MDB_NEXT);
	return rc;
}

int state_view_walk(struct state_view *v, const void *after, size_t after_len, const void **skey,
		    size_t *skey_len, const void **rec, size_t *rec_len)
{
	MDB_val k, r;
	int rc = v->records ? mdb_cursor_get(v->records, &k, &r, MDB_NEXT)
			    : walk_first(v, after, after_len, &k, &r);
	if (rc)
		return code_from_mdb(rc);
	*skey = k.mv_data;
	*skey_len = k.mv_size;
	*rec = r.mv_data;
	*rec_len = r.mv_size;
	return 0;
}

/* ---- sizes ---- */

static int database_stat(struct state_view *v, MDB_dbi dbi, uint64_t *entries, uint64_t *bytes)
{
	MDB_stat s;
	int rc = mdb_stat(v->txn, dbi, &s);
	if (rc)
		return code_from_mdb(rc);
	*entries = s.ms_entries;
	*bytes = (s.ms_branch_pages + s.ms_leaf_pages + s.ms_overflow_pages) * s.ms_psize;
	return 0;
}

static int tombstones_stat(struct state_view *v, struct state_stat *s)
{
	uint64_t index, index_bytes;
	int rc = database_stat(v, v->st->tombstones, &s->tombstones, &s->tombstones_bytes);

	if (!rc)
		rc = database_stat(v, v->st->forgetting, &index, &index_bytes);
	if (!rc)
		s->tombstones_bytes += index_bytes;
	return rc;
}

int state_stat(struct state *st, struct state_stat *out)
{
	struct state_view *v;
	struct state_stat s = { 0 };
	struct stat file;
	int fd;
	int rc = state_view_begin(st, &v);
	if (rc)
		return rc;
	s.txnid = state_view_txnid(v);
	rc = database_stat(v, st->records, &s.records, &s.records_bytes);
	if (!rc)
		rc = database_stat(v, st->journal, &s.journal_entries, &s.journal_bytes);
	if (!rc && v->has_waiting)
		rc = database_stat(v, st->waiting, &s.waiting_pairs, &s.waiting_bytes);
	if (!rc && v->has_waiting)
		rc = tombstones_stat(v, &s);
	state_view_end(v);
	if (!rc)
		rc = code_from_mdb(mdb_env_get_fd(st->env, &fd));
	if (!rc && fstat(fd, &file))
		rc = -errno;
	if (rc)
		return rc;
	s.file_bytes = (uint64_t)file.st_size;
	*out = s;
	return 0;
}
