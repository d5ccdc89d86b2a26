/*
 * stop.h - how a process that runs for long is asked to end.
 *
 *   const atomic_bool *stop = stop_on_signals();
 *   while (!atomic_load(stop)) ...
 */
#ifndef STOP_H
#define STOP_H

#include <stdatomic.h>
#include <stdbool.h>

/**
 * From here on SIGTERM and SIGINT set the flag that is returned, which lives as
 * long as the process.  SIGPIPE is ignored, and no core file is written: a lease
 * or a value must not end in one that others can read.
 */
const atomic_bool *stop_on_signals(void);

#endif
