/*
 * C11 threads for ThreadSanitizer, in terms of POSIX threads.
 *
 * librdkafka makes and synchronises its threads with glibc's C11 functions,
 * which ThreadSanitizer does not know: it would crash in a thread that it has
 * not seen begin, and see races where a mutex was held (cnd_timedwait() is in steady.c).  glibc's types are the
 * POSIX ones in disguise, so each call is passed on.  Linked into the programs of
 * SAN=thread only.
 */
/* librdkafka must find these first */
#pragma GCC visibility push(default)
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <threads.h>
#include <time.h>

_Static_assert(sizeof(mtx_t) == sizeof(pthread_mutex_t), "mtx_t");
_Static_assert(sizeof(cnd_t) == sizeof(pthread_cond_t), "cnd_t");

/* Built without the sanitizer, librdkafka's atomic counters look like races; ours never end in it. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) { return "race:librdkafka.so\n"; }

static int result(int rc)
{
	return rc == 0           ? thrd_success
	       : rc == EBUSY     ? thrd_busy
	       : rc == ETIMEDOUT ? thrd_timedout
	       : rc == ENOMEM    ? thrd_nomem
				 : thrd_error;
}

struct start {
	thrd_start_t run;
	void *arg;
};

static void *run(void *arg)
{
	struct start s = *(struct start *)arg;
	free(arg);
	return (void *)(intptr_t)s.run(s.arg);
}

int thrd_create(thrd_t *t, thrd_start_t f, void *arg)
{
	struct start *s = malloc(sizeof(*s));
	if (!s)
		return thrd_nomem;
	*s = (struct start){ f, arg };
	int rc = pthread_create((pthread_t *)t, NULL, run, s);
	if (rc)
		free(s);
	return result(rc);
}

int thrd_join(thrd_t t, int *res)
{
	void *p;
	int rc = pthread_join((pthread_t)t, &p);
	if (!rc && res)
		*res = (int)(intptr_t)p;
	return result(rc);
}

/* ThreadSanitizer knows only the one by the wall clock. */
int pthread_clockjoin_np(pthread_t t, void **res, clockid_t clock, const struct timespec *until)
{
	struct timespec now, wall;
	clock_gettime(clock, &now);
	clock_gettime(CLOCK_REALTIME, &wall);
	int64_t ns = (until->tv_sec - now.tv_sec) * 1000000000LL + until->tv_nsec - now.tv_nsec +
		     wall.tv_nsec;
	wall.tv_sec += ns / 1000000000;
	wall.tv_nsec = ns % 1000000000;
	return pthread_timedjoin_np(t, res, &wall);
}

int thrd_detach(thrd_t t) { return result(pthread_detach((pthread_t)t)); }
void thrd_exit(int res) { pthread_exit((void *)(intptr_t)res); }

int mtx_init(mtx_t *m, int type)
{
	pthread_mutexattr_t a;
	pthread_mutexattr_init(&a);
	if (type & mtx_recursive)
		pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
	int rc = pthread_mutex_init((pthread_mutex_t *)m, &a);
	pthread_mutexattr_destroy(&a);
	return result(rc);
}

int mtx_lock(mtx_t *m) { return result(pthread_mutex_lock((pthread_mutex_t *)m)); }
int mtx_trylock(mtx_t *m) { return result(pthread_mutex_trylock((pthread_mutex_t *)m)); }
int mtx_unlock(mtx_t *m) { return result(pthread_mutex_unlock((pthread_mutex_t *)m)); }
void mtx_destroy(mtx_t *m) { pthread_mutex_destroy((pthread_mutex_t *)m); }

int cnd_init(cnd_t *c) { return result(pthread_cond_init((pthread_cond_t *)c, NULL)); }
int cnd_signal(cnd_t *c) { return result(pthread_cond_signal((pthread_cond_t *)c)); }
int cnd_broadcast(cnd_t *c) { return result(pthread_cond_broadcast((pthread_cond_t *)c)); }
int cnd_wait(cnd_t *c, mtx_t *m)
{
	return result(pthread_cond_wait((pthread_cond_t *)c, (pthread_mutex_t *)m));
}
void cnd_destroy(cnd_t *c) { pthread_cond_destroy((pthread_cond_t *)c); }
