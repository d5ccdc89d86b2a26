/*
 * mirror_private.h - what the files of the mirror share: mirror.c (the rules,
 * thread, sessions), mirror_hold.c (what Redis says, who may write), mirror_log.c
 * (from the log), mirror_resync.c (from the snapshot), mirror_txn.c (one
 * transaction).
 */
#ifndef MIRROR_PRIVATE_H
#define MIRROR_PRIVATE_H

#include "batch.h"
#include "intake.h"
#include "mark.h"
#include "mirror.h"
#include "redis.h"

enum { MIRROR_LOOK_MS = 1000 }; /* between looks at the mark while idle */

enum mirror_verdict {
	MIRROR_OK,
	MIRROR_STOPPED,
	MIRROR_CHANGED, /* the server refused: somebody else wrote the mark.  Read it again */
	MIRROR_LOST,    /* the connection, or an error answered: said.  A new session */
	MIRROR_REFUSED, /* needs somebody: said.  Looked at again later */
	MIRROR_FENCED,  /* another sidecar has raised the epoch */
	MIRROR_KAFKA,   /* the log cannot be read now: the tail says why */
};

struct mirror_part {
	int64_t at;                              /* Redis has everything before it */
	int64_t next;                            /* the same, with the batch under way */
	bool eof;                                /* the batch under way has reached the end */
	bool live;                               /* an end was seen since this sidecar leads */
	int64_t caught_ms;                       /* wall clock: then the log ended at caught_at */
	int64_t caught_boot_ms;                  /* CLOCK_BOOTTIME; -1: of another process */
	int64_t caught_at;                       /* -1: unknown, but not after `at` */
	bool caught_moved;                       /* not in Redis yet */
	struct state_anchor anchor, next_anchor; /* the last record; offset -1: none */
	int64_t reach; /* resync: the furthest that was applied to the snapshot in use */
	struct state_anchor newest; /* resync: of the records that were walked over */
};

enum resync_phase {
	RESYNC_NONE,
	RESYNC_STRAYS, /* delete what the snapshot does not have */
	RESYNC_WALK,   /* write what it has and Redis has not */
	RESYNC_SETTLE, /* until the log has brought what both left to it */
};

struct mirror {
	struct pipeline *p;
	const struct config *c;
	struct redis_options server;
	struct mark_self self;
	char cluster[128];
	char key[128]; /* of the mark */
	size_t prefix_len;
	char *pattern; /* of SCAN */
	size_t pattern_len;
	pthread_t thread;
	bool running;
	atomic_bool stop;

	/* of one leadership */
	int64_t epoch; /* 0: not claimed yet */
	uint64_t seq;
	char epoch_text[24], seq_text[48], synced[48];
	char owed[MARK_TEXT_MAX]; /* a resync that the mark does not know of: why */
	long long rounds; /* of the tail that are in Redis; lasts longer than a leadership */

	/* of one session */
	struct redis *r;
	struct intake *in;
	struct intake_events ev;
	struct mirror_part *part; /* [n] */
	bool placed;              /* `at` is where Redis is; else a resync will tell */
	char want[MARK_TEXT_MAX]; /* a resync must begin: why; "": none */
	bool marked;              /* the mark says so */
	int commands;             /* queued in the transaction under way */
	bool told_mark;           /* it carries the marker */
	struct arena texts;       /* of the commands under way */
	int64_t looked_ms, kept_ms, checked_ms;

	/* of one resync */
	enum resync_phase phase;
	bool fresh; /* there was nothing under the prefix */
	long long rounds_begun;
	char cursor[32];               /* of SCAN */
	uint8_t after[KEY_STORED_MAX]; /* of the walk */
	size_t after_len;
	struct arena chunk;
	uint64_t compared, written, deleted;
	int64_t began_ms, told_ms;
	int64_t behind_ms; /* since when the snapshot is behind Redis; 0: it is not */

	mirror_tell *tell; /* not to the log; NULL: to the log */
	void *tell_opaque;
	char said_id[32]; /* the trouble that was last said; "": none */
	uint64_t said_hash;
	int64_t said_ms;
	bool reserved_said, unchecked_said;
};

/* ---- mirror.c ---- */

struct redis_options mirror_server(const struct config *c);

bool mirror_stopping(struct mirror *m);

/* ---- mirror_txn.c ---- */

/** Say a trouble, the same not more often than every ten seconds. */
void mirror_say(struct mirror *m, bool error, const char *id, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/** The connection has failed: why, in a verdict. */
enum mirror_verdict mirror_lost(struct mirror *m);
/** The server has answered an error. */
enum mirror_verdict mirror_fault(struct mirror *m, const struct redis_answer *a);
/** A text for a command, until the next mirror_begin(). */
const char *mirror_text(struct mirror *m, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/** prefix + key, in `a`; NULL: out of memory. */
const void *mirror_key(struct mirror *m, struct arena *a, const void *key, size_t key_len,
		       size_t *len);
/** A resync must begin. */
void mirror_want(struct mirror *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/**
 * A transaction: commands ended by mirror_queue(), then commit.  Begin waits for
 * the answer: behind a MULTI that is refused, commands would be carried out.
 */
enum mirror_verdict mirror_begin(struct mirror *m);
void mirror_queue(struct mirror *m);
/**
 * Carry it out, if nobody has changed the mark since it was last seen; it then
 * is seen as it has become.  MIRROR_CHANGED: the server did nothing.
 */
enum mirror_verdict mirror_commit(struct mirror *m);
/** Look whether the mark is as it was left, and watch it from here on. */
enum mirror_verdict mirror_look(struct mirror *m);
/** Append field and value pairs of partition p to a command (HSET). */
void mirror_put_part(struct mirror *m, int p, int64_t at, const struct state_anchor *anchor);
/** Words of an HSET: field and value of the token of where all partitions get. */
void mirror_put_token(struct mirror *m);

/* ---- mirror_log.c ---- */

/**
 * Take what the log has, waiting so long for it, and bring it to Redis; with
 * nothing there, look whether Redis is still what it was.
 */
enum mirror_verdict mirror_follow(struct mirror *m, int timeout_ms);
void mirror_close_log(struct mirror *m);
/** What was in a transaction as next is where Redis is. */
void mirror_took_effect(struct mirror *m);
/** When partitions were last seen to end where Redis is: also the tail may know. */
void mirror_learn_caught(struct mirror *m);

/* ---- mirror_hold.c ---- */

/** Check the server, read the mark, decide, claim: sets epoch, placed and part, or want. */
enum mirror_verdict mirror_hold(struct mirror *m);
/** Whether the server is fit, as it says itself. */
enum mirror_verdict mirror_check_server(struct mirror *m);
/** Begin the fields of a mark of ours (HSET key ...), to be ended by mirror_queue(). */
void mirror_put_identity(struct mirror *m);

/* ---- mirror_resync.c ---- */

/** Begin the resync that is wanted, or do the next piece of the one under way. */
enum mirror_verdict mirror_resync(struct mirror *m);

#endif
