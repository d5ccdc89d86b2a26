/*
 * takeover.c - a rebuilt generation inherits everything but the records.
 *
 * Both sides are the caller's alone meanwhile.  A crash in the middle leaves a
 * generation that is not current, and the old one as it was.
 */
#include "state_private.h"

#include "codes.h"
#include "fault.h"
#include "meta.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ENTRIES_PER_TXN = 10000 };

struct copy {
	MDB_dbi from_dbi, to_dbi;
	unsigned flags;                /* MDB_APPEND where the target is empty */
	uint8_t after[KEY_STORED_MAX]; /* the last key that was copied */
	size_t after_len;
	bool at_end;
};

static int copy_some(struct copy *c, MDB_txn *from, MDB_txn *to)
{
	MDB_cursor *cursor;
	MDB_val k = { .mv_size = c->after_len, .mv_data = c->after }, v;
	int rc = mdb_cursor_open(from, c->from_dbi, &cursor);
	if (rc)
		return rc;
	rc = mdb_cursor_get(cursor, &k, &v, c->after_len ? MDB_SET_RANGE : MDB_FIRST);
	if (!rc && c->after_len && k.mv_size == c->after_len &&
	    !memcmp(k.mv_data, c->after, c->after_len))
		rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
	for (int i = 0; !rc && i < ENTRIES_PER_TXN; i++) {
		memcpy(c->after, k.mv_data, k.mv_size);
		c->after_len = k.mv_size;
		rc = mdb_put(to, c->to_dbi, &k, &v, c->flags);
		if (!rc)
			rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
	}
	mdb_cursor_close(cursor);
	c->at_end = rc == MDB_NOTFOUND;
	return c->at_end ? 0 : rc;
}

static int copy_all(struct state *to, struct state *from, struct copy *c)
{
	int rc = 0;
	while (!rc && !c->at_end) {
		MDB_txn *r, *w;
		rc = mdb_txn_begin(from->env, NULL, MDB_RDONLY, &r);
		if (rc)
			break;
		rc = mdb_txn_begin(to->env, NULL, 0, &w);
		if (!rc) {
			rc = copy_some(c, r, w);
			if (rc)
				mdb_txn_abort(w);
			else
				rc = mdb_txn_commit(w);
		}
		mdb_txn_abort(r);
	}
	return code_from_mdb(rc);
}

/* Superseded pairs wait on: those of the old generation, which knows how far they are told. */
static int make_waiting(struct state *to, struct state *from)
{
	MDB_txn *t;
	if (!atomic_load(&from->has_waiting))
		return 0;
	int rc = mdb_txn_begin(to->env, NULL, 0, &t);
	if (rc)
		return code_from_mdb(rc);
	rc = waiting_open(to, t, MDB_CREATE);
	if (!rc)
		return code_from_mdb(mdb_txn_commit(t));
	mdb_txn_abort(t);
	return code_from_mdb(rc);
}

static int copy_waiting(struct state *to, struct state *from)
{
	int rc = 0;
	for (int i = 0; waiting_dbi(from, i) && !rc; i++) {
		struct copy c = { .from_dbi = *waiting_dbi(from, i),
				  .to_dbi = *waiting_dbi(to, i),
				  .flags = MDB_APPEND };
		rc = copy_all(to, from, &c);
	}
	return rc;
}

/*
 * What must not be inherited.  The lease: readers go by what is stored, and `to`
 * rotates by its own, so a larger one would be a lie.  The inode: the file is no
 * copy of the other one.
 */
static int store_own(struct state *to)
{
	MDB_txn *t;
	int rc = code_from_mdb(mdb_txn_begin(to->env, NULL, 0, &t));
	if (rc)
		return rc;
	rc = meta_set_int(t, to->meta, META_LEASE_MS, to->lease_ms);
	if (!rc)
		rc = meta_set_int(t, to->meta, META_INODE, state_inode(to));
	if (rc) {
		mdb_txn_abort(t);
		return rc;
	}
	return code_from_mdb(mdb_txn_commit(t));
}

int state_take_over(struct state *to, struct state *from)
{
	struct copy journal = { .from_dbi = from->journal,
				.to_dbi = to->journal,
				.flags = MDB_APPEND };
	struct copy meta = { .from_dbi = from->meta, .to_dbi = to->meta };
	int rc = copy_all(to, from, &journal);
	if (!rc)
		rc = make_waiting(to, from);
	if (!rc && atomic_load(&from->has_waiting))
		rc = copy_waiting(to, from);
	FAULT_POINT("takeover.journal");
	if (!rc)
		rc = copy_all(to, from, &meta);
	FAULT_POINT("takeover.meta");
	if (!rc)
		rc = store_own(to);
	if (!rc)
		memcpy(to->uuid, from->uuid, sizeof(to->uuid));
	return rc;
}
