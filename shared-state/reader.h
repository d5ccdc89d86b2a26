/*
 * reader.h - what reader.c, scan.c and position.c share.  Nobody else includes it.
 *
 * How a read without a lock is known to be right:
 *   1. Note the time, take the newest commit, read, copy out, ask for the newest
 *      commit again, note the time again.
 *   2. The read is right if less than a lease has passed: the sidecar keeps
 *      every page that any state of the last lease needs (lease.h).
 *   3. It is also right if the newest commit is at most one after the one read,
 *      N: then at most N + 2 is being written, and LMDB lets neither N + 1 nor
 *      N + 2 reuse a page that was not free in N already.
 *   4. Else nothing is known: the result is thrown away, be it a value, an
 *      error or "no such key", and the read begins again.
 * Until 2 or 3 has been checked, pages may hold anything; page.c reads them
 * without coming to harm.
 */
#ifndef READER_H
#define READER_H

#include "page.h"
#include "record.h"
#include "shared_state.h"

#include <pthread.h>
#include <sys/types.h>

/* An open generation.  The handle holds a reference, each snapshot and scan one of its own. */
struct source {
	atomic_uint refs;
	struct pages pages;
	int64_t lease_ns;
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

/* One commit being read, and since when.  Nothing has to be ended. */
struct reading {
	struct source *source;
	struct commit commit;
	int64_t began_ns; /* 0: not known, rule 2 cannot be used */
};

enum {
	READ_TRIES = 16,
	DAMAGE_TRIES = 4, /* in a valid state, before damage is believed */
};

int64_t reader_clock_ns(void);

/** The current generation, with a reference for the caller; looks for a new one now and then. */
struct source *source_get(struct sstate *s);
void source_put(struct source *src);

/** Begin with the newest commit; `timed` for rule 2. */
int reading_begin(struct reading *r, struct source *src, bool timed);
/** Rules 2 and 3.  After everything has been copied. */
bool reading_valid(const struct reading *r);

/** What a read does: copies out what it finds.  May be called again if that was not valid. */
typedef int reading_fn(struct reading *r, void *arg);
/** Call fn(r, arg) on new readings until one was valid; what it returned then. */
int reader_run(struct sstate *s, reading_fn *fn, void *arg);

/** A value of the meta database; points into the file. */
int reading_meta(struct reading *r, const void *key, size_t key_len, struct span *value);

/** Copy a stored record and its key into a buffer and decode it there, checksum included. */
int reading_copy(const struct reading *r, struct span skey, struct span stored,
		 struct sstate_buf *b, struct sstate_record *out);

/** The applied positions as a token: a reading_fn on struct token_text (position.c). */
struct token_text {
	char *text;
	size_t size;
};
int reading_token(struct reading *r, void *token_text);

#endif
