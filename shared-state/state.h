/*
 * state.h - the writer's half of the shared state: batch, journal, positions,
 * leases, generations.  For the sidecar alone; not exported.
 *
 *   state_dir_open(&dir, "/var/lib/sidenote", err, sizeof err);
 *   rc = state_open(&st, dir, &who, &opt, err, sizeof err);   // or state_create()
 *   state_begin(st, &t);
 *   state_put(t, skey, skey_len, rec, rec_len);  state_journal(t, &c, ...);
 *   state_partition_set(t, 0, &row);
 *   state_commit(t);                             // all of it or nothing
 *
 * The order that makes it exact (design rules 1 and 2):
 *   1. state_open() takes the first lease, before anything is written.
 *   2. The caller waits for state_lease_wait_ms() to become 0: then no reader of
 *      a dead writer can be left.
 *   3. One thread writes.  Each commit carries records, journal and positions.
 *   4. MDB_NOMETASYNC: commit N is durable once commit N+1 has returned, or
 *      after state_make_durable(st, N).
 *   5. A crash between any two of these leaves commit N or N-1 on disk, never
 *      a mixture; readers and publisher see only whole commits.
 *
 * Errors:    0 or a negative code (-errno or LMDB's), named by state_strerror().
 *            err gets one line that names the thing and the way out.
 * Ownership: _open/_create/_begin make; _close/_commit/_abort free.
 * Threads:   a state_txn belongs to the one writing thread.  Views may be used
 *            by any thread, each its own.  state_make_durable() by any.
 * Units:     bytes, milliseconds.
 */
#ifndef STATE_H
#define STATE_H

#include "record.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct state_dir;
struct state;
struct state_txn;
struct state_view;

/* ---- the state directory: one writer, generations, the `current` link ---- */

/**
 * Open (make if missing, mode 2750) the directory and take its writer lock.
 * -EBUSY: another sidecar holds it.
 */
int state_dir_open(struct state_dir **out, const char *path, char *err, size_t err_len);
/** Give the lock back.  NULL is allowed. */
void state_dir_close(struct state_dir *d);
/** Remove every generation except the current one and one that is being filled. */
void state_dir_sweep(struct state_dir *d);
/**
 * Read all of the current generation and check every checksum, in a child
 * process: 0 or -EBADMSG, or why that could not be done.  Takes as long as reading the file; for use after -EIO.
 */
int state_dir_verify(struct state_dir *d, char *err, size_t err_len);

/* ---- an open generation ---- */

struct state_identity {         /* whose state this is; strings are copied */
	const char *name;       /* pipeline */
	const char *cluster_id; /* "" until known: then not compared */
	const char *topic;
};

struct state_options {
	int64_t lease_ms; /* configured; the stored one counts if it is larger */
	bool waiting;     /* keep superseded pairs; else any that are there are removed */
};

/**
 * Open the current generation for writing.
 *
 * -ENOENT: there is none, a fill is needed.  -EBADMSG: its data file is
 * unreadable (truncated, zeroed): a fill with b = P.  -EEXIST: it belongs to
 * another pipeline, cluster or topic.  -ENOTSUP: written by a newer format.
 */
int state_open(struct state **out, struct state_dir *d, const struct state_identity *who,
	       const struct state_options *o, char *err, size_t err_len);

/**
 * Make a new generation, not yet current, for a fill: commits are not synced
 * until state_make_current().  It gets a new uuid.  A crash leaves it behind
 * for state_dir_sweep().
 */
int state_create(struct state **out, struct state_dir *d, const struct state_identity *who,
		 const struct state_options *o, char *err, size_t err_len);

/** Sync, leave fill mode and switch the `current` link to this generation. */
int state_make_current(struct state *st, char *err, size_t err_len);

/** Close; readers of the data stay unharmed.  NULL is allowed. */
void state_close(struct state *st);

/** Milliseconds still to wait before the first write (0: write). */
int64_t state_lease_wait_ms(struct state *st);

const char *state_uuid(const struct state *st);
int64_t state_lease_ms(const struct state *st);
const char *state_strerror(int rc);
/** Name and version of the LMDB that is linked. */
const char *state_engine(void);

/* ---- positions ---- */

/* Everything the meta database holds of one source partition. */
struct state_partition {
	int64_t applied; /* A: the snapshot is the fold of the log up to here */
	int64_t start;   /* where the fill ended: changes from here on are news */
	int64_t whole;   /* from here on this journal equals any other's */
	int64_t base;    /* the journal holds every change from here on ... */
	uint32_t base_n; /* ... and, at exactly `base`, from this n on */
	uint32_t published_n;
	int64_t published;      /* P as last seen committed; -1: never */
	int64_t caught_wall_ms; /* the last EOF event: wall clock, ... */
	int64_t caught_boot_ms; /* ... CLOCK_BOOTTIME; -1: never, or before the last boot */
	int64_t due;            /* a round is due for keys stored below this; -1: none */
};
#define STATE_PARTITION_NEW                                                                        \
	(struct state_partition)                                                                   \
	{                                                                                          \
		.published = -1, .caught_wall_ms = -1, .caught_boot_ms = -1, .due = -1             \
	}

/* One of the last records read, to recognise the topic by (newest first). */
struct state_anchor {
	int64_t offset;
	int64_t timestamp_ms;
	uint64_t key_hash; /* record_hash() of the whole key */
};
enum { STATE_ANCHORS = 64 };

/* ---- writing: one transaction is one batch ---- */

/** Also rotates the leases: call it, and commit, at least every few seconds. */
int state_begin(struct state *st, struct state_txn **out);
/**
 * Commit everything, atomically.  Frees `t`, also on failure.  Writes the heartbeat.
 *
 * -ENOSPC: nothing was committed; try the batch again when there is room.
 * -EIO, MDB_PANIC: the disk is not to be trusted; from here on state_begin() and
 * state_make_durable() fail with the same.  Close, state_dir_verify(), open or fill.
 */
int state_commit(struct state_txn *t);
void state_abort(struct state_txn *t); /* NULL is allowed */

/**
 * Whether the file does not fit in memory, so that it is worth while to tell beforehand, key by
 * key and best in their order, what will be got, and then to have all of it read.  Only a wish.
 */
bool state_expects(struct state_txn *t);
void state_expect(struct state_txn *t, const void *skey, size_t skey_len);
void state_read_expected(struct state_txn *t);

/**
 * The stored record of a key, not decoded.  Valid until the next put or del.
 * 0 or -ENOENT.  Calls in ascending key order are the fast path.
 */
int state_get(struct state_txn *t, const void *skey, size_t skey_len, const void **rec,
	      size_t *rec_len);
/** Store an encoded record. -ENOSPC: the disk or the map is full; abort the transaction. */
int state_put(struct state_txn *t, const void *skey, size_t skey_len, const void *rec,
	      size_t rec_len);
/** Remove a key that is present. */
int state_del(struct state_txn *t, const void *skey, size_t skey_len);

/** Append a change to the journal; the records as encoded bytes, length 0 for none. */
int state_journal(struct state_txn *t, const struct change *c, const void *before,
		  size_t before_len, const void *after, size_t after_len);
/**
 * Delete up to `max` journal entries of partition p below (offset, n) and move
 * row->base/base_n as far as that got.  Returns how many were deleted, or < 0.
 */
int state_trim(struct state_txn *t, int32_t p, struct state_partition *row, int64_t offset,
	       uint32_t n, int max);

/**
 * Keep a superseded pair until its old record is known to be gone: `c` is the
 * change that superseded it (partition, offset, op, key), `before` the old record,
 * which may be a tombstone, `after` the head of the new one, without its value.
 * Only where the options asked for it.
 */
int state_wait(struct state_txn *t, const struct change *c, const void *before, size_t before_len,
	       const void *after, size_t after_len);
/** Delete up to `max` pairs of partition p below offset `below`; how many, or < 0. */
int state_waiting_trim(struct state_txn *t, int32_t p, int64_t below, int max);
/**
 * The tombstone that is the latest record of a key, encoded as a record is: what
 * comes after it in the log supersedes it.  Only where the options asked for
 * pairs.  Get: 0 or -ENOENT, valid until the next put or del.  Del: likewise.
 */
int state_tombstone(struct state_txn *t, const void *skey, size_t skey_len, const void **rec,
		    size_t *rec_len);
int state_tombstone_put(struct state_txn *t, const void *skey, size_t skey_len, const void *rec,
			size_t rec_len);
int state_tombstone_del(struct state_txn *t, const void *skey, size_t skey_len);
/** Forget up to `max` tombstones of partition p, the oldest first; how many, or < 0. */
int state_tombstones_trim(struct state_txn *t, int32_t p, int max);
/** Whether superseded pairs are to be kept. */
bool state_waits(const struct state *st);

int state_partition_set(struct state_txn *t, int32_t p, const struct state_partition *row);
int state_anchors_set(struct state_txn *t, int32_t p, const struct state_anchor *a, int n);
/** A text in meta: role, ready ...  (heartbeat, lease, cluster and boot id are kept by this
 * module.) */
int state_meta_set(struct state_txn *t, const char *name, const char *text);

/**
 * Make a filled generation take over from another, which nobody writes any
 * more: journal, positions and every other meta entry, the uuid too, so that
 * nothing is notified twice or not at all.  Then state_make_current().
 */
int state_take_over(struct state *to, struct state *from);

/* ---- reading beside the writer: publisher, start, stat ---- */

int state_view_begin(struct state *st, struct state_view **out);
void state_view_end(struct state_view *v); /* NULL is allowed; ends within a lease */
uint64_t state_view_txnid(const struct state_view *v);
/** 0 or -ENOENT.  Partitions are numbered densely; *n of state_view_partitions(). */
int state_view_partition(struct state_view *v, int32_t p, struct state_partition *row);
int state_view_partitions(struct state_view *v, int32_t *n);
/** How many anchors were read into a[STATE_ANCHORS], or < 0. */
int state_view_anchors(struct state_view *v, int32_t p, struct state_anchor *a);
/** 0 with a NUL-terminated copy in text, -ENOENT, or -ERANGE: it does not fit. */
int state_view_meta(struct state_view *v, const char *name, char *text, size_t text_len);
/**
 * The first journal entry of partition p at or after (offset, n): 0 and *c,
 * whose pointers live as long as the view, -ENOENT at the end, -EBADMSG.
 */
int state_view_journal(struct state_view *v, int32_t p, int64_t offset, uint32_t n,
		       struct change *c);
/** The entry after the one last returned in this view, same partition. */
int state_view_journal_next(struct state_view *v, struct change *c);
/**
 * The first pair of partition p that was superseded at or after `offset`: 0 and
 * *c, of which `before` is the old record and `after` the head of the new one,
 * -ENOENT, -EBADMSG.  And the one after it.
 */
int state_view_waiting(struct state_view *v, int32_t p, int64_t offset, struct change *c);
int state_view_waiting_next(struct state_view *v, struct change *c);
/* The same without looking at what it holds: for a walk over many. */
struct state_pair {
	int64_t old_offset, offset; /* of the record, and of the one that superseded it */
	size_t bytes;
	bool tombstone; /* the old record is one, which may also go by age */
	bool omitted;   /* there was no room for its value */
};
int state_view_pair(struct state_view *v, int32_t p, int64_t offset, struct state_pair *pair);
int state_view_pair_next(struct state_view *v, struct state_pair *pair);
/**
 * The record of a key that stands at (p, offset), whether it is the latest or
 * waits as superseded: 0, or -ENOENT.  Points into the view.
 */
int state_view_version(struct state_view *v, int32_t p, int64_t offset, const void *skey,
		       size_t skey_len, struct record *out);
/** Stored record of a key: 0, -ENOENT. Points into the view. */
int state_view_get(struct state_view *v, const void *skey, size_t skey_len, const void **rec,
		   size_t *rec_len);

/**
 * Walk the records in the order of their stored keys.  The first call of a view
 * begins after stored key `after` (length 0: at the first); later calls go on
 * and do not look at it.  0 or -ENOENT at the end.  A walk longer than a lease
 * must go on in a new view, after the last key it has seen.
 */
int state_view_walk(struct state_view *v, const void *after, size_t after_len, const void **skey,
		    size_t *skey_len, const void **rec, size_t *rec_len);

struct state_stat {
	uint64_t records, journal_entries;
	uint64_t records_bytes, journal_bytes; /* pages in use, in bytes */
	uint64_t waiting_pairs, waiting_bytes;
	uint64_t tombstones, tombstones_bytes; /* those that nothing has superseded */
	uint64_t file_bytes;
	uint64_t txnid;
};
int state_stat(struct state *st, struct state_stat *out);

/**
 * Whether stored boot times are comparable: the last commit was made since the
 * last boot.  Where they are not, state_view_partition() gives -1 for them.
 */
bool state_same_boot(struct state_view *v);

/* ---- durability ---- */

/**
 * Return once commit `txnid` survives a power cut: at once if a later commit has
 * returned, else after fdatasync().  -EIO stays: see state_commit().
 */
int state_make_durable(struct state *st, uint64_t txnid);

#endif
