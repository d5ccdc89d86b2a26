/*
 * fill.h - reads the log below the boundary into a new generation.
 *
 * A fill keeps the last record of each key below b(p) and journals nothing:
 * history is not news.  b = P where P is committed, else the offset of the EOF
 * event at which the fill ended, never a sampled end.  The generation is not
 * current until the fill is done; a crash in the middle starts it again.
 */
#ifndef FILL_H
#define FILL_H

#include "config.h"
#include "decide.h"
#include "state.h"

#include <stdatomic.h>

enum fill_rc {
	FILL_STOPPED = 1, /* *stop was set */
	FILL_FAILED = 2,  /* err says why, id names it */
	FILL_BROKEN = 3,  /* the same, and trying again cannot help */
};

/**
 * Fill `st` (from state_create()).  `published` [n]: P, offset -1 where none.
 * rows [n] are written and stored.  0, or enum fill_rc with id and err.
 */
int fill_run(const struct config *c, struct state *st, int n, const struct position *published,
	     struct state_partition *rows, const atomic_bool *stop, const char **id, char *err,
	     size_t err_len);

#endif
