/*
 * batch.c - the write transaction: records, journal and positions of one batch.
 *
 * The first commit of a process also stores what has changed since the last
 * one: a larger lease, a cluster id that is known by now, a uuid of its own if
 * the file turned out to be a copy, and after a reboot
 * the new boot id, in the same transaction that voids the boot times of the old.
 */
#include "state_private.h"

#include "bytes.h"
#include "codes.h"
#include "fault.h"
#include "meta.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* LMDB's 16-bit offsets and lengths lead at most three times 64 KiB past a page. */
enum { MARGIN_BYTES = 256 << 10 };

static MDB_val val(const void *bytes, size_t len)
{
	return (MDB_val){ .mv_size = len, .mv_data = (void *)bytes };
}

/* ---- failures ---- */

/*
 * LMDB calls a write that was cut short EIO, whatever cut it.  Ask the disk:
 * bytes behind the last page are nobody's, and there was no room for them.
 */
static bool disk_is_full(const struct state *st)
{
	static const uint8_t probe[64 << 10];
	struct stat s;
	int fd;
	if (mdb_env_get_fd(st->env, &fd) || fstat(fd, &s))
		return false;
	ssize_t n = pwrite(fd, probe, sizeof(probe), s.st_size);
	return n < 0 ? errno == ENOSPC || errno == EDQUOT || errno == EFBIG
		     : n < (ssize_t)sizeof(probe);
}

/*
 * What a failed write means.  -ENOSPC: try again when there is room.  -EIO may
 * have come from fdatasync(), after which the kernel's page cache and the disk
 * may differ without a sign: nothing more is written until a reopen.
 */
int state_write_failed(struct state *st, int rc)
{
	if (rc == -EDQUOT || rc == -EFBIG || (rc == -EIO && disk_is_full(st)))
		return -ENOSPC;
	if (rc == -EIO || rc == MDB_PANIC)
		atomic_store(&st->broken, rc);
	return rc;
}

/* ---- begin ---- */

static int forget_boot_times(struct state *st, MDB_txn *t)
{
	struct state_partition row;
	int32_t n;
	int rc = meta_get_partitions(t, st->meta, &n);
	for (int32_t p = 0; !rc && p < n; p++) {
		rc = meta_get_partition(t, st->meta, p, &row);
		if (rc == -ENOENT) {
			rc = 0;
			continue;
		}
		row.caught_boot_ms = -1;
		if (!rc)
			rc = meta_set_partition(t, st->meta, p, &row);
	}
	return rc;
}

static int greet(struct state *st, MDB_txn *t)
{
	int rc = meta_set_int(t, st->meta, META_LEASE_MS, st->lease_ms);
	if (!rc && *st->cluster_id)
		rc = meta_set_text(t, st->meta, META_CLUSTER_ID, st->cluster_id);
	if (!rc && st->copied)
		rc = meta_set_text(t, st->meta, META_UUID, st->uuid);
	if (!rc)
		rc = meta_set_int(t, st->meta, META_INODE, state_inode(st));
	if (rc || state_same_boot_in(st, t))
		return rc;
	rc = forget_boot_times(st, t);
	if (!rc)
		rc = meta_set_text(t, st->meta, META_BOOT_ID, st->boot_id);
	return rc;
}

/* A sync has failed since the last commit. */
static int settle(struct state *st)
{
	pthread_mutex_lock(&st->syncing);
	int rc = state_sync(st);
	pthread_mutex_unlock(&st->syncing);
	return rc ? state_write_failed(st, rc) : 0;
}

static int open_cursors(struct state_txn *t)
{
	int rc = mdb_cursor_open(t->txn, t->st->records, &t->records);
	if (!rc)
		rc = mdb_cursor_open(t->txn, t->st->journal, &t->journal);
	return code_from_mdb(rc);
}

int state_begin(struct state *st, struct state_txn **out)
{
	int rc = atomic_load(&st->broken);
	if (!rc && !st->filling)
		rc = lease_rotate(&st->lease);
	if (!rc && atomic_load(&st->doubtful))
		rc = settle(st);
	if (rc)
		return rc;
	struct state_txn *t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->st = st;
	rc = code_from_mdb(mdb_txn_begin(st->env, NULL, 0, &t->txn));
	if (rc) {
		free(t);
		return rc;
	}
	rc = open_cursors(t);
	if (!rc && !st->greeted)
		rc = greet(st, t->txn);
	if (!rc)
		rc = waiting_begin(t);
	if (rc) {
		state_abort(t);
		return rc;
	}
	*out = t;
	return 0;
}

/* ---- end ---- */

/*
 * Keep the file longer than its last page, by an unwritten margin.
 *
 * A commit that freed pages which it had itself taken from the end of the file
 * does not write them, and leaves the file shorter than its meta page says: LMDB
 * does not mind, but it looks like damage (see generation_preflight()).  And a
 * reader that was stopped for longer than a lease may follow what was a page
 * once to some bytes behind the last one, where there must be something to read.
 */
void state_lengthen_file(const struct state *st)
{
	MDB_envinfo info;
	struct stat s;
	int fd;
	if (mdb_env_info(st->env, &info) || mdb_env_get_fd(st->env, &fd) || fstat(fd, &s))
		return;
	off_t wanted = (off_t)((info.me_last_pgno + 1) * st->page_bytes);
	if (s.st_size < wanted + MARGIN_BYTES && ftruncate(fd, wanted + 4 * MARGIN_BYTES))
		return; /* state_open() tells the difference, at the cost of a full read */
}

/*
 * The disk begins with what a fill has written while that goes on.  No promise:
 * the sync at its end makes it durable, and learns of what went wrong here.
 */
static void begin_writing(const struct state *st)
{
	int fd;
	if (!mdb_env_get_fd(st->env, &fd))
		sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

static int64_t wall_clock_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int sync_and_commit(struct state_txn *t)
{
	struct state *st = t->st;
	pthread_mutex_lock(&st->syncing);
	int rc = atomic_load(&st->broken);
	if (rc) {
		mdb_txn_abort(t->txn);
	} else {
		rc = code_from_mdb(mdb_txn_commit(t->txn)); /* frees the cursors too, always */
		if (rc && !st->filling)
			atomic_store(&st->doubtful, true);
	}
	pthread_mutex_unlock(&st->syncing);
	return rc;
}

int state_commit(struct state_txn *t)
{
	struct state *st = t->st;
	uint64_t txnid = mdb_txn_id(t->txn);
	/* the heartbeat also makes every commit a real one, so that txnid always advances */
	int rc = meta_set_int(t->txn, st->meta, META_HEARTBEAT_MS, wall_clock_ms());
	if (rc) {
		state_abort(t);
		return state_write_failed(st, rc);
	}
	FAULT_POINT("state.commit");
	bool made = t->made_waiting;
	rc = sync_and_commit(t);
	free(t);
	if (rc)
		return state_write_failed(st, rc);

	waiting_committed(st, made);
	FAULT_POINT("state.committed");
	state_lengthen_file(st);
	st->greeted = true;
	if (st->filling)
		begin_writing(st);
	else
		atomic_raise(&st->durable, txnid - 1);
	return 0;
}

void state_abort(struct state_txn *t)
{
	if (!t)
		return;
	mdb_txn_abort(t->txn);
	free(t);
}

/* ---- records ---- */

int state_get(struct state_txn *t, const void *skey, size_t skey_len, const void **rec,
	      size_t *rec_len)
{
	MDB_val k = val(skey, skey_len), v;
	t->found = false;
	int rc = mdb_cursor_get(t->records, &k, &v, MDB_SET_KEY);
	if (rc)
		return code_from_mdb(rc);
	t->found = true;
	t->skey_len = skey_len;
	memcpy(t->skey, skey, skey_len); /* at most KEY_STORED_MAX: it was found */
	*rec = v.mv_data;
	*rec_len = v.mv_size;
	return 0;
}

static bool stands_on(const struct state_txn *t, const void *skey, size_t skey_len)
{
	return t->found && t->skey_len == skey_len && memcmp(t->skey, skey, skey_len) == 0;
}

int state_put(struct state_txn *t, const void *skey, size_t skey_len, const void *rec,
	      size_t rec_len)
{
	struct state *st = t->st;
	MDB_val k = val(skey, skey_len), v = val(rec, rec_len);
	int rc = MDB_KEYEXIST;
	if (stands_on(t, skey, skey_len))
		rc = mdb_cursor_put(t->records, &k, &v, MDB_CURRENT);
	else if (st->appending)
		rc = mdb_cursor_put(t->records, &k, &v, MDB_APPEND);
	if (rc == MDB_KEYEXIST) { /* not at the end */
		st->appending = false;
		rc = mdb_cursor_put(t->records, &k, &v, 0);
	}
	t->found = false;
	return rc ? state_write_failed(st, code_from_mdb(rc)) : 0;
}

int state_del(struct state_txn *t, const void *skey, size_t skey_len)
{
	MDB_val k = val(skey, skey_len), v;
	int rc = 0;
	if (!stands_on(t, skey, skey_len))
		rc = mdb_cursor_get(t->records, &k, &v, MDB_SET_KEY);
	t->found = false;
	if (rc)
		return code_from_mdb(rc);
	rc = mdb_cursor_del(t->records, 0);
	return rc ? state_write_failed(t->st, code_from_mdb(rc)) : 0;
}

/* ---- journal ---- */

int state_reserve(struct state *st, size_t len)
{
	if (len <= st->buf_len)
		return 0;
	size_t grown_len = len < 4096 ? 4096 : len + len / 2;
	uint8_t *grown = realloc(st->buf, grown_len);
	if (!grown)
		return -ENOMEM;
	st->buf = grown;
	st->buf_len = grown_len;
	return 0;
}

int state_journal(struct state_txn *t, const struct change *c, const void *before,
		  size_t before_len, const void *after, size_t after_len)
{
	struct state *st = t->st;
	size_t len = change_bytes(c->key_len, before_len, after_len);
	int rc = state_reserve(st, len);
	if (rc)
		return rc;
	/* encoded aside, not in place: `before` may lie in a page that the put gives up */
	change_encode(st->buf, c, before, before_len, after, after_len);

	uint8_t key[JOURNAL_KEY_BYTES];
	change_key_encode(key, c->partition, c->offset, c->n);
	MDB_val k = val(key, sizeof(key)), v = val(st->buf, len);
	rc = mdb_cursor_put(t->journal, &k, &v, 0);
	return rc ? state_write_failed(st, code_from_mdb(rc)) : 0;
}

/* Whether the entry at `c` is of partition p and below (offset, n). */
static bool is_below(const struct change *c, int32_t p, int64_t offset, uint32_t n)
{
	return c->partition == p && (c->offset < offset || (c->offset == offset && c->n < n));
}

static void raise_base(struct state_partition *row, int64_t offset, uint32_t n)
{
	if (offset < row->base || (offset == row->base && n < row->base_n))
		return;
	row->base = offset;
	row->base_n = n;
}

int state_trim(struct state_txn *t, int32_t p, struct state_partition *row, int64_t offset,
	       uint32_t n, int max)
{
	uint8_t first[JOURNAL_KEY_BYTES];
	change_key_encode(first, p, 0, 0);
	MDB_val k = val(first, sizeof(first)), v;
	MDB_cursor_op op = MDB_SET_RANGE;
	for (int deleted = 0;; deleted++) {
		struct change c;
		int rc = mdb_cursor_get(t->journal, &k, &v, op);
		if (rc && rc != MDB_NOTFOUND)
			return code_from_mdb(rc);
		if (!rc && change_key_decode(&c, k.mv_data, k.mv_size))
			return -EBADMSG;
		if (rc || !is_below(&c, p, offset, n)) {
			raise_base(row, offset, n); /* nothing below is left */
			return deleted;
		}
		if (deleted == max) {
			raise_base(row, c.offset, c.n);
			return deleted;
		}
		if ((rc = mdb_cursor_del(t->journal, 0)))
			return state_write_failed(t->st, code_from_mdb(rc));
		op = MDB_NEXT; /* after a deletion: the entry that moved up */
	}
}

/* ---- meta ---- */

static int meta_result(struct state_txn *t, int rc)
{
	return rc ? state_write_failed(t->st, rc) : 0;
}

int state_partition_set(struct state_txn *t, int32_t p, const struct state_partition *row)
{
	return meta_result(t, meta_set_partition(t->txn, t->st->meta, p, row));
}

int state_anchors_set(struct state_txn *t, int32_t p, const struct state_anchor *a, int n)
{
	return meta_result(t, meta_set_anchors(t->txn, t->st->meta, p, a, n));
}

int state_meta_set(struct state_txn *t, const char *name, const char *text)
{
	return meta_result(t, meta_set_text(t->txn, t->st->meta, name, text));
}
