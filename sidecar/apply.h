/*
 * apply.h - a batch becomes changes, and both become one transaction.
 *
 * The order inside a batch (design rules 3 and 4): by key, so that the state is
 * touched in one ascending sweep and the last version of a key is put once;
 * then by log position, so that the journal is appended to.  Every transition
 * old -> new -> newer is journaled all the same.
 *
 * Errors:    0 or a negative code of the state; -EXDEV: a key turned up in a
 *            second partition (source.moved=stop); -EBADMSG: a stored record is
 *            not what was written.  err names the key.  The caller aborts.
 * Threads:   the writing thread.
 */
#ifndef APPLY_H
#define APPLY_H

#include "batch.h"
#include "config.h"
#include "state.h"

struct apply_options {
	enum moved moved;
	bool journal;      /* false: while filling, or where nobody is notified */
	bool waiting;      /* keep superseded pairs until the old record is gone */
	const bool *blind; /* per partition: history before may have been compacted away */
};

struct apply_counts {
	uint64_t creates, updates, unchanged, deletes, ignored_moves;
};

int apply_batch(struct state_txn *t, struct batch *b, const struct apply_options *o,
		struct apply_counts *n, char *err, size_t err_len);

#endif
