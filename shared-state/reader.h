/*
 * reader.h - what reader.c, scan.c and position.c share.  Nobody else includes it.
 *
 * How a read without a lock is known to be right:
 *   1. Note the time, begin a transaction, read, copy out, ask for the newest
 *      commit, note the time again.
 *   2. The read is right if less than a lease has passed: the sidecar keeps
 *      every page that any state of the last lease needs (lease.h).
 *   3. It is also right if the newest commit is at most one after the one read:
 *      commit N + 1 was made without touching a page that N needs, and N + 2
 *      reuses pages only that were free in N already.
 *   4. Else nothing is known: the result is thrown away, be it a value, an
 *      error or "no such key", and the read begins again.
 * Until 2 or 3 has been checked, pages may hold anything.  Lengths are checked
 * against the file before they are used, and LMDB's assertions, which would
 * end the process, come back as -EBADMSG.
 */
#ifndef READER_H
#define READER_H

#include "record.h"
#include "shared_state.h"

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

/* An open generation.  The handle holds a reference, each snapshot and scan one of its own. */
struct source {
	atomic_uint refs;
	MDB_env *env;
	MDB_dbi records, journal, meta;
	int64_t lease_ns;
	const char *map; /* where the file lies in memory */
	size_t page_bytes;
	int64_t generation;
	dev_t dev; /* of its data file: */
	ino_t ino; /* `current` points to another one after a switch */
};

struct sstate {
	char *dir;
	pthread_rwlock_t lock;         /* guards `source`: readers hold it for one look-up */
	struct source *source;         /* never NULL */
	pthread_mutex_t opening;       /* one thread at a time looks for a new generation */
	_Atomic int64_t look_again_ms; /* CLOCK_MONOTONIC_COARSE */
};

/* A transaction and when it began. */
struct reading {
	struct source *source;
	MDB_txn *txn;
	int64_t began_ns; /* 0: not known, rule 2 cannot be used */
	MDB_envinfo info; /* of the last reading_valid() */
};

enum {
	READ_TRIES = 16,
	DAMAGE_TRIES = 4, /* in a valid state, before damage is believed */
};

int64_t reader_clock_ns(void);

/** The current generation, with a reference for the caller; looks for a new one now and then. */
struct source *source_get(struct sstate *s);
void source_put(struct source *src);

/** Begin; `timed` for rule 2.  Ends with reading_end(), which a zeroed struct may have too. */
int reading_begin(struct reading *r, struct source *src, bool timed);
void reading_end(struct reading *r);
/** Rules 2 and 3.  After everything has been copied. */
bool reading_valid(struct reading *r);

/** What a read does in its transaction: copies out what it finds. */
typedef int reading_fn(struct reading *r, void *arg);

/** Call fn(r, arg); -EBADMSG if LMDB finds something impossible on the way. */
int reading_guarded(struct reading *r, reading_fn *fn, void *arg);
/** Call fn guarded, in transactions until one was valid; what it returned then. */
int reader_run(struct sstate *s, reading_fn *fn, void *arg);

/**
 * Copy a stored record and its key into a buffer and decode it there, checksum
 * included.  -EBADMSG also when `v` cannot be true.
 */
int reading_copy(struct reading *r, const MDB_val *skey, const MDB_val *v, struct sstate_buf *b,
		 struct sstate_record *out);

/** The applied positions as a token: a reading_fn on struct token_text (position.c). */
struct token_text {
	char *text;
	size_t size;
};
int reading_token(struct reading *r, void *token_text);

#endif
