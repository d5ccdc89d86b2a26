/*
 * join_need.h - what the records of a batch want the table to have reached: a
 * token, or a time.
 *
 *   needs_clear(&s);
 *   for each record: needs_add(&s, WAIT_TOKEN, text, len);   // NULL: it names none
 *   needs_union(&s, want, n);         // wait until the table has got to `want`
 *   ... need_outcome(&s, i, have, n) ...
 *
 * Pure.  Errors: 0 or -ENOMEM; nothing that a record says is an error.
 */
#ifndef JOIN_NEED_H
#define JOIN_NEED_H

#include "join_config.h"
#include "shared_state.h"

enum need_kind { NEED_NONE, NEED_TOKEN, NEED_TIME, NEED_UNREADABLE };

struct need { /* of one record */
	enum need_kind kind;
	size_t first, n; /* its positions among all */
	int64_t time_ms;
};

struct needs {
	struct need *v;
	size_t n, cap;
	struct sstate_position *positions;
	size_t n_positions, cap_positions;
	char *text; /* a token with a NUL behind it */
	size_t text_size;
};

void needs_clear(struct needs *s);
void needs_free(struct needs *s);

/** Add what the next record names, as it stands there; NULL: nothing. */
int needs_add(struct needs *s, enum join_wait wait, const char *text, size_t len);
/** The same for a time that is there as a number; < 0: the record has none. */
int needs_add_time(struct needs *s, int64_t time_ms);

/**
 * The least positions of partitions 0..n-1 that satisfy every token; 0 where
 * none is named.  A token that names another partition becomes unreadable: the
 * table will not get there.  False: there is no token to wait for.
 */
bool needs_union(struct needs *s, int64_t *want, size_t n);
/** The latest time that is wanted, or -1. */
int64_t needs_latest(const struct needs *s);

/** Whether a token is reached by the positions `have` of partitions 0..n-1. */
bool need_is_reached(const struct needs *s, const struct need *need, const int64_t *have, size_t n);

#endif
