/*
 * run.h - the pipeline from start to end: what `sidenote run` does, and what
 * `sidenote demo` does over an embedded broker.
 */
#ifndef RUN_H
#define RUN_H

#include "config.h"

#include <stdatomic.h>
#include <stdbool.h>

struct run_options {
	const atomic_bool *stop; /* finish the batch, leave the group, return */
	/* the embedded broker forgets transactional offsets: only `demo` sets this */
	bool offsets_forgotten;
};

/** Returns the exit code of cmd.h. */
int run_sidecar(const struct config *c, const struct run_options *o);

#endif
