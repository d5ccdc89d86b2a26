/* state_private.h - what state.c, batch.c and view.c share.  Nobody else includes it. */
#ifndef STATE_PRIVATE_H
#define STATE_PRIVATE_H

#include "generation.h"
#include "lease.h"
#include "page.h"
#include "state.h"

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>

enum { UUID_TEXT_BYTES = 37 };

struct state {
	struct state_dir *dir; /* the caller's, outlives the state */
	char generation[GENERATION_NAME_BYTES];
	MDB_env *env;
	MDB_dbi records, journal, meta;
	MDB_dbi waiting, superseded;    /* valid while `has_waiting`: see waiting.c */
	MDB_dbi tombstones, forgetting; /* likewise */
	size_t page_bytes;
	uint64_t memory;    /* see memory_bytes() */
	struct pages ahead; /* opened once the file does not fit: see ahead.c */
	uint64_t *asked;    /* [n_asked]: pages that a batch will need */
	size_t n_asked, cap_asked;
	struct lease lease; /* none while filling: nobody reads it yet */
	int64_t lease_ms;
	char uuid[UUID_TEXT_BYTES];
	char boot_id[UUID_TEXT_BYTES]; /* of the running kernel */
	char *cluster_id;              /* as configured; "" until known */
	bool copied;                   /* the file is a copy: it gets a uuid of its own */
	bool waits;                    /* opened: readers of a dead writer may be left */
	bool filling;                  /* made by state_create() and not current yet */
	bool appending;                /* filling, and every key so far came in order */
	bool greeted;                  /* a commit of this process is in: see batch.c */
	bool wants_waiting;            /* superseded pairs are to be kept */
	atomic_bool has_waiting;       /* their databases are there, and committed */
	bool stale_waiting;            /* they are there, and nobody wants them any more */
	uint8_t *buf;                  /* grows to the longest journal entry */
	size_t buf_len;
	_Atomic uint64_t durable; /* the last commit that survives a power cut */
	/*
	 * Held while committing and while syncing.  If a sync fails, the kernel may have
	 * dropped whatever was written before it, and tells one of those who sync only.
	 * So nothing but the newest meta page may be on its way to the disk when the
	 * publisher syncs, and no pages of a commit that does not come to know.
	 */
	pthread_mutex_t syncing;
	atomic_bool doubtful; /* that meta page may have been dropped: see state_sync() */
	atomic_int broken;    /* the first failure after which the disk is not to be trusted */
};

struct state_txn {
	struct state *st;
	MDB_txn *txn;
	MDB_cursor *records, *journal;
	MDB_cursor *waiting, *superseded; /* NULL until used */
	MDB_cursor *tombstones, *forgetting;
	bool made_waiting;    /* its databases come with this commit */
	struct commit before; /* the one before, and its records: see ahead.c */
	struct tree before_records;
	/* the key that `records` stands on, so that a put or del need not search again */
	bool found;
	size_t skey_len;
	uint8_t skey[KEY_STORED_MAX];
};

struct state_view {
	struct state *st;
	MDB_txn *txn;
	MDB_cursor *records; /* NULL until the records are walked */
	MDB_cursor *journal; /* NULL until the journal is read */
	int32_t partition;   /* that `journal` is in */
	bool has_waiting;    /* when it began: later its databases are not known to it */
	MDB_cursor *waiting; /* NULL until pairs are read */
	int32_t waiting_partition;
};

/** The inode of data.mdb; 0: unknown. */
int64_t state_inode(const struct state *st);

/** Whether the boot that caught_boot_ms values belong to is the running one. */
bool state_same_boot_in(struct state *st, MDB_txn *t);

/** Make everything that is committed durable; `syncing` is held. */
int state_sync(struct state *st);

/* waiting.c: what the first transaction of a process settles, what a commit makes true. */
int waiting_begin(struct state_txn *t);
void waiting_committed(struct state *st, bool made);
/** Open what is there in a transaction that keeps its handles. */
int waiting_load(struct state *st, MDB_txn *t);
/** The handles of its databases; `flags`: 0 or MDB_CREATE.  Codes of LMDB. */
int waiting_open(struct state *st, MDB_txn *t, unsigned flags);
/** The i-th of them, NULL behind the last. */
MDB_dbi *waiting_dbi(struct state *st, int i);
/** Room for one entry in st->buf. */
int state_reserve(struct state *st, size_t len);
/** What a failed write means: see batch.c. */
int state_write_failed(struct state *st, int rc);

/** After a commit: see batch.c. */
void state_lengthen_file(const struct state *st);

/** Raise *a to `n` if it is lower. */
static inline void atomic_raise(_Atomic uint64_t *a, uint64_t n)
{
	uint64_t old = atomic_load(a);
	while (old < n && !atomic_compare_exchange_weak(a, &old, n))
		;
}

#endif
