/*
 * shared_state.h - the latest record of every key of a compacted Kafka topic,
 * looked up in this process.
 *
 * The sidecar `sidenote` keeps the topic's snapshot in a directory.  Any number
 * of processes on the host read it, from a read-only mount if they like.  They
 * take no lock, copy no more than they ask for, and cannot disturb the sidecar;
 * a look-up costs about a microsecond.
 *
 *   struct sstate *s;  struct sstate_buf b = { 0 };  struct sstate_record r;
 *   int rc = sstate_open(&s, "/var/lib/sidenote");
 *   if (!rc) rc = sstate_get(s, "key", 3, &b, &r);
 *   if (!rc) printf("%.*s at offset %lld\n", (int)r.value_len, (char *)r.value, (long
 * long)r.offset); else fprintf(stderr, "%s\n", sstate_strerror(rc)); sstate_buf_free(&b);
 * sstate_close(s);
 *
 * Errors:    0 or a negative code, named by sstate_strerror().  -ENOENT always
 *            means "no such key"; -ENOMEM, -EBADMSG (the file is damaged) and
 *            SSTATE_STALE (this process was kept from running for seconds, again
 *            and again) are possible everywhere.  Out-parameters are written on
 *            success only, if nothing else is said.
 * Ownership: _open, _begin make; _close, _end free.  A record points into the
 *            caller's buffer, or into the scan that gave it, until its next use.
 * Threads:   a struct sstate may be shared.  A buffer, scan or snapshot belongs
 *            to one thread at a time.
 * Processes: open after fork(), once in each process.
 * Units:     bytes, milliseconds (of the epoch, for times).
 */
#ifndef SHARED_STATE_H
#define SHARED_STATE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SSTATE_VERSION "0.1.0"
#define SSTATE_API     __attribute__((visibility("default")))

struct sstate;          /* an open state directory */
struct sstate_snapshot; /* several reads of one and the same state */
struct sstate_scan;     /* a walk over keys in order */

enum sstate_code {
	SSTATE_NOT_READY = -31000, /* nothing to read yet: start the sidecar, or wait for it */
	SSTATE_STALE = -31001,     /* a snapshot has outlived the lease: begin another */
	SSTATE_FORMAT = -31002,    /* written by a newer sidenote: update this program */
};

/** Name any code this header can return.  Never NULL; never to be freed. */
SSTATE_API const char *sstate_strerror(int rc);

/** SSTATE_VERSION of the library that is linked. */
SSTATE_API const char *sstate_version(void);

/* ---- open ---- */

/**
 * Open the state in directory `dir` (the sidecar's state.dir).
 *
 * SSTATE_NOT_READY: the directory or a filled state is missing; try again later.
 * -EBADMSG: its file is damaged; the sidecar makes a new one when it starts, so
 * here too.  -EACCES: not in the group that may read it.
 *
 * The sidecar may stop, start and rebuild the state; an open handle notices
 * within 100 ms and goes on.  Without a sidecar the last state stays readable.
 */
SSTATE_API int sstate_open(struct sstate **out, const char *dir);

/** Close.  Every scan and snapshot must have ended.  NULL is allowed. */
SSTATE_API void sstate_close(struct sstate *s);

/* ---- look up ---- */

struct sstate_buf { /* start with { 0 }; grows as needed, give it back to sstate_buf_free() */
	void *mem;
	size_t size;
};
SSTATE_API void sstate_buf_free(struct sstate_buf *b);

struct sstate_record {
	const void *key;
	size_t key_len;
	const void *value;
	size_t value_len;
	const void *headers; /* those that state.headers keeps: for sstate_header_next() */
	size_t headers_len;
	int32_t partition;
	int64_t offset;
	int64_t timestamp_ms; /* -1: none */
};

/** The record of a key: 0 or -ENOENT.  *r points into *b until the next use of *b. */
SSTATE_API int sstate_get(struct sstate *s, const void *key, size_t key_len, struct sstate_buf *b,
			  struct sstate_record *r);

/**
 * Only the value, into `size` bytes of the caller's: 0 or -ENOENT.  -ERANGE: it
 * does not fit; *len, which is set then too, tells what it takes.
 */
SSTATE_API int sstate_get_value(struct sstate *s, const void *key, size_t key_len, void *value,
				size_t size, size_t *len);

struct sstate_header {
	const char *name; /* not NUL-terminated */
	size_t name_len;
	const void *value; /* NULL: null */
	size_t value_len;
};

/** Step through the headers of a record: 1 and *h, or 0 at the end.  Start with *pos = 0. */
SSTATE_API int sstate_header_next(const struct sstate_record *r, size_t *pos,
				  struct sstate_header *h);

/* ---- several reads of one state ---- */

/**
 * Hold the state as it is now.  Keep it short: once it is older than the lease
 * (2 s by default) and the sidecar has gone on writing, each call returns
 * SSTATE_STALE, never something wrong.
 */
SSTATE_API int sstate_snapshot_begin(struct sstate_snapshot **out, struct sstate *s);
SSTATE_API int sstate_snapshot_get(struct sstate_snapshot *n, const void *key, size_t key_len,
				   struct sstate_buf *b, struct sstate_record *r);
/** As sstate_token(), of the snapshot. */
SSTATE_API int sstate_snapshot_token(struct sstate_snapshot *n, char *text, size_t size);
/** NULL is allowed. */
SSTATE_API void sstate_snapshot_end(struct sstate_snapshot *n);

/* ---- in order ---- */

/**
 * Walk over the keys that begin with `prefix` (all for length 0), in the order
 * of their bytes; keys of more than 479 bytes that share the first 479 come in
 * any order.  It may take as long as it likes: a key that is there all the time
 * is seen exactly once, each as it was at some moment of the walk.
 */
SSTATE_API int sstate_scan_begin(struct sstate_scan **out, struct sstate *s, const void *prefix,
				 size_t prefix_len);
/** The next record, valid until the next call; -ENOENT at the end. */
SSTATE_API int sstate_scan_next(struct sstate_scan *c, struct sstate_record *r);
/** NULL is allowed. */
SSTATE_API void sstate_scan_end(struct sstate_scan *c);

/* ---- positions ---- */

/*
 * A position (partition, offset) is applied when every record below `offset` is
 * in the state.  After producing a record at offset o, wait for o + 1.  A token
 * is a text of positions: "0:4712,3:99".
 *
 * "3:99~40": a round is due.  Deletes from offset 40 on may have been purged from
 * the topic before they were read, and until the round has found them, keys that
 * are gone may still be there.  A state like that has reached "3:99~40" and
 * "3:40", not "3:99"; so a token names one state, and a wait is for all deletes
 * up to it, too.
 */
struct sstate_position {
	int32_t partition;
	int64_t offset;
	int64_t due; /* as above; 0: no round is due */
};

/** Read a token into at most `max` positions: their number, -EINVAL, or -ERANGE: more than max. */
SSTATE_API int sstate_token_parse(const char *token, struct sstate_position *p, size_t max);
/** Write one, NUL included: 0, or -ERANGE: `size` is too small. */
SSTATE_API int sstate_token_format(char *text, size_t size, const struct sstate_position *p,
				   size_t n);
/** Whether a state that is at `have` has what `want` asks for, both of one partition. */
SSTATE_API int sstate_position_reached(const struct sstate_position *have,
				       const struct sstate_position *want);
/** The positions that are applied now, as a token. */
SSTATE_API int sstate_token(struct sstate *s, char *text, size_t size);
/**
 * Wait until every position of a token is reached: 0, -ETIMEDOUT, -EINVAL.
 * timeout_ms: 0 only looks, -1 waits for ever.
 */
SSTATE_API int sstate_wait(struct sstate *s, const char *token, int64_t timeout_ms);

/* ---- about the state ---- */

struct sstate_stat {
	int ready;                /* filled, caught up, and its sidecar alive */
	int64_t heartbeat_age_ms; /* since the sidecar's last commit; -1: none yet */
	int64_t lease_ms;
	int64_t generation;
	uint64_t txnid;       /* counts commits of this generation */
	uint64_t keys, bytes; /* pages in use */
	uint64_t journal_entries, journal_bytes;
	uint64_t file_bytes;
	int32_t partitions; /* numbered from 0 */
};
SSTATE_API int sstate_stat(struct sstate *s, struct sstate_stat *out);

struct sstate_partition {
	int64_t applied;   /* the state is the fold of the log up to here */
	int64_t published; /* notifications from before here are published; -1: unknown */
	int64_t base;      /* the journal reaches back to here */
	int64_t start;     /* changes from here on were notified as news */
	int64_t whole;     /* from here on no change was missed */
	int64_t due;       /* keys stored below here are being looked after; -1: none */
};
/** 0, or -ENOENT: no such partition yet. */
SSTATE_API int sstate_partition(struct sstate *s, int32_t partition, struct sstate_partition *out);

/**
 * A text of the state: "name", "topic", "cluster_id", "uuid", "role".  0,
 * -ENOENT, or -ERANGE: `size` is too small.
 */
SSTATE_API int sstate_text(struct sstate *s, const char *what, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
