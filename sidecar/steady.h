/*
 * steady.h - waits of librdkafka that do not depend on the wall clock.
 *
 * librdkafka (2.0 to 2.12, its #2145) waits until moments of the wall clock.  When that is set back
 * by an hour, its threads stand still for an hour: no heartbeat, no time-out.  They wait with
 * C11's cnd_timedwait(), which it takes from the program before libc: steady.c has one that
 * waits as long by the clock that nobody can set.
 *
 * The moment is all that it gets, and that may have been made before the clock was set: for a
 * while, the distance is taken that is shorter, from the clock as it was or as it is.
 *
 * Threads:   any.
 * Units:     nanoseconds.
 */
#ifndef STEADY_H
#define STEADY_H

#include <stdint.h>

struct steady {
	int64_t ahead;  /* the wall clock less the steady one; 0: not known yet */
	int64_t before; /* the same before the wall clock was set */
	int64_t set_at; /* by the steady clock; 0: never */
};

/** Take note of how far the wall clock is ahead now. */
void steady_note(struct steady *s, int64_t wall, int64_t now);
/** How long it is until the moment `until` of the wall clock; 0 or less: it is over. */
int64_t steady_left(const struct steady *s, int64_t until, int64_t now);

#endif
