#include "steady.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <threads.h>
#include <time.h>

#define S 1000000000LL

enum { SET_S = 1, REMEMBER_S = 60 }; /* it is slewed by less, and nobody waits for longer */

/* librdkafka must find it first */
__attribute__((visibility("default"))) int cnd_timedwait(cnd_t *restrict c, mtx_t *restrict m,
							 const struct timespec *restrict until);

_Static_assert(sizeof(cnd_t) == sizeof(pthread_cond_t), "a cnd_t is a pthread_cond_t in disguise");
_Static_assert(sizeof(mtx_t) == sizeof(pthread_mutex_t), "so is a mtx_t");

void steady_note(struct steady *s, int64_t wall, int64_t now)
{
	if (llabs(wall - now - s->ahead) <= SET_S * S)
		return;
	s->before = s->set_at ? s->ahead : wall - now;
	s->ahead = wall - now;
	s->set_at = now;
}

int64_t steady_left(const struct steady *s, int64_t until, int64_t now)
{
	int64_t left = until - now - s->ahead, otherwise = until - now - s->before;

	return now - s->set_at < REMEMBER_S * S && llabs(otherwise) < llabs(left) ? otherwise
										  : left;
}

static int64_t clock_ns(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return t.tv_sec * S + t.tv_nsec;
}

static int64_t left_until(const struct timespec *until, int64_t now)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static struct steady seen;

	pthread_mutex_lock(&lock);
	steady_note(&seen, clock_ns(CLOCK_REALTIME), now);
	int64_t left = steady_left(&seen, until->tv_sec * S + until->tv_nsec, now);
	pthread_mutex_unlock(&lock);
	return left;
}

int cnd_timedwait(cnd_t *restrict c, mtx_t *restrict m, const struct timespec *restrict until)
{
	int64_t now = clock_ns(CLOCK_MONOTONIC), left = left_until(until, now);

	if (left < 0)
		left = 0;
	struct timespec end = { (now + left) / S, (now + left) % S };
	int rc = pthread_cond_clockwait((pthread_cond_t *)c, (pthread_mutex_t *)m, CLOCK_MONOTONIC,
					&end);
	return rc == 0 ? thrd_success : rc == ETIMEDOUT ? thrd_timedout : thrd_error;
}
