#include "steady.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <threads.h>
#include <time.h>

#define S 1000000000LL

enum {
	SET_S = 10,      /* less than that is followed, and makes a wait wrong by as much, once */
	REMEMBER_S = 60, /* nobody waits for longer */
	CLOSE_MS = 10,   /* two clocks read that close together were read at one time */
	TRIES = 3,
};

/* librdkafka must find it first */
__attribute__((visibility("default"))) int cnd_timedwait(cnd_t *restrict c, mtx_t *restrict m,
							 const struct timespec *restrict until);

_Static_assert(sizeof(cnd_t) == sizeof(pthread_cond_t), "a cnd_t is a pthread_cond_t in disguise");
_Static_assert(sizeof(mtx_t) == sizeof(pthread_mutex_t), "so is a mtx_t");

void steady_note(struct steady *s, int64_t wall, int64_t now)
{
	int64_t ahead = wall - now;

	if (s->ahead && llabs(ahead - s->ahead) > SET_S * S) {
		s->before = s->ahead;
		s->set_at = now;
	}
	s->ahead = ahead;
}

int64_t steady_left(const struct steady *s, int64_t until, int64_t now)
{
	int64_t left = until - now - s->ahead, otherwise = until - now - s->before;
	bool remembers = s->set_at && now - s->set_at < REMEMBER_S * S;

	return remembers && llabs(otherwise) < llabs(left) ? otherwise : left;
}

static int64_t clock_ns(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return t.tv_sec * S + t.tv_nsec;
}

/* A thread that is kept from running between two clocks would take that for a clock that was set. */
static bool read_clocks(int64_t *wall, int64_t *now)
{
	for (int i = 0; i < TRIES; i++) {
		int64_t before = clock_ns(CLOCK_MONOTONIC);

		*wall = clock_ns(CLOCK_REALTIME);
		*now = clock_ns(CLOCK_MONOTONIC);
		if (*now - before < CLOSE_MS * (S / 1000))
			return true;
	}
	return false;
}

static int64_t left_until(const struct timespec *until, int64_t *now)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static struct steady seen;
	int64_t wall;

	pthread_mutex_lock(&lock);
	if (read_clocks(&wall, now) || !seen.ahead)
		steady_note(&seen, wall, *now);
	int64_t left = steady_left(&seen, until->tv_sec * S + until->tv_nsec, *now);
	pthread_mutex_unlock(&lock);
	return left;
}

int cnd_timedwait(cnd_t *restrict c, mtx_t *restrict m, const struct timespec *restrict until)
{
	int64_t now, left = left_until(until, &now);

	if (left < 0)
		left = 0;
	struct timespec end = { (now + left) / S, (now + left) % S };
	int rc = pthread_cond_clockwait((pthread_cond_t *)c, (pthread_mutex_t *)m, CLOCK_MONOTONIC,
					&end);
	return rc == 0 ? thrd_success : rc == ETIMEDOUT ? thrd_timedout : thrd_error;
}
