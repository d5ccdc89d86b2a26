/*
 * join.h - the stream-table join: every record of a stream, with the record that
 * the table has for its key, goes to the output topic exactly once.
 *
 *   struct join *j;
 *   rc = join_new(&j, &config, &stop);
 *   code = join_run(j);                 // until *stop; the exit code of cmd.h
 *   join_free(j);
 *
 * Threads: join_run() does everything in the thread that calls it;
 *          join_call_ms() may be asked from another.
 */
#ifndef JOIN_H
#define JOIN_H

#include "join_config.h"

#include <stdatomic.h>

struct join;

/** 0 or -ENOMEM.  `c` and `stop` are the caller's, and outlive it. */
int join_new(struct join **out, const struct join_config *c, const atomic_bool *stop);
void join_free(struct join *j); /* NULL is allowed */

int join_run(struct join *j);

/** Milliseconds that the current call to Kafka has lasted; 0: none.  One that lasts for
 * minutes will not return: the process has to end, which loses nothing. */
int64_t join_call_ms(const struct join *j);

#endif
