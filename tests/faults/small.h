/*
 * small.h - the main job in small: a log that follows from a seed, a state that
 * is kept of it as run.c, fill.c, tail.c, publish.c and rebuild.c keep it, and
 * the question whether a state directory is right.
 *
 *   struct small s = { .path = dir, .seed = 7 };
 *   rc = small_start(&s);                    // opens, or fills
 *   rc = small_batch(&s, 50);                // one transaction
 *   rc = small_publish(&s);                  // P = A of a view, made durable before
 *   small_stop(&s);
 *   rc = small_check(&s, why, sizeof why);   // what is on disk, against the log and P
 *
 * There is no Kafka: what a publisher would commit is s.published, which
 * outlives the state as it does there.
 *
 * Errors: 0 or a negative code; s.err has one line, or "" where the code is all.
 */
#ifndef SMALL_H
#define SMALL_H

#include "apply.h"
#include "decide.h"
#include "state.h"

enum { SMALL_PARTITIONS = 2, SMALL_KEYS = 24, SMALL_ERR = 600 };

struct small {
	const char *path;
	uint64_t seed;
	bool publishes_early; /* on purpose wrong: not made durable */
	bool waits;           /* superseded pairs wait; those far below P are told */
	int64_t fill_to;      /* where the log ends for a first fill */
	/* of Kafka: */
	int64_t published[SMALL_PARTITIONS]; /* P; see small_init() */
	/* while it runs: */
	struct state_dir *dir;
	struct state *st;
	struct state_partition rows[SMALL_PARTITIONS];
	struct batch batch;
	int64_t seen; /* A of partition 0 that was committed, and must be found again */
	int fills, unreadable;
	char complaint[SMALL_ERR]; /* of the state that was unreadable */
	char err[SMALL_ERR];
};

/** P: none. */
void small_init(struct small *s, const char *path, uint64_t seed);

int small_start(struct small *s);
void small_stop(struct small *s);
/** `n` offsets of each partition; with what is published trimmed and noted. */
int small_batch(struct small *s, int n);
int small_publish(struct small *s);
/** A new generation that takes over. */
int small_rebuild(struct small *s);
/** A new generation instead, with b = P. */
int small_refill(struct small *s);

/**
 * Whether the open state is the fold of the log up to its A, its journal has
 * every change from base to A and no other, and base <= P <= A; and every
 * superseded pair waits that is not told.  0 or -1 and why.
 */
int small_check(struct small *s, char *why, size_t why_len);

/** The value of key k of partition p as the state must have it at A; NULL: absent. */
const char *small_value(const struct small *s, int p, int k, int64_t applied, size_t *len);
/** Key k of partition p. */
size_t small_key(char *out, int p, int k);
enum { SMALL_KEY_MAX = 600 };

#endif
