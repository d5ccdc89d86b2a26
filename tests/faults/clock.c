/*
 * clock.c - clocks that jump, for one process: a library to preload.
 *
 *   CLOCK_JUMP=FILE LD_PRELOAD=build/tests/clock.so sidenote run ...
 *
 * FILE holds two int64_t in the machine's order: by how many seconds the wall clock and
 * CLOCK_MONOTONIC of this process are ahead.  It is mapped, so whoever writes to it makes them
 * jump, at once and for all threads.
 *
 * A wait until a moment of the wall clock follows the jump, as in the kernel: one hour back makes
 * it an hour longer.  C11's cnd_timedwait() is the one that librdkafka uses.  It may wake for
 * nothing, every SLICE_MS, which its callers have to expect anyway.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#pragma GCC visibility push(default)

enum { SLICE_MS = 20, NS_PER_MS = 1000000, NS_PER_S = 1000000000 };

enum { WALL, MONOTONIC, CLOCKS };
static const int64_t zero[CLOCKS];
static const volatile int64_t *ahead_s = zero;

__attribute__((constructor)) static void map_jump(void)
{
	const char *path = getenv("CLOCK_JUMP");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *at = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(zero), PROT_READ, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		abort(); /* a test that tests nothing */
	ahead_s = at;
	close(fd);
}

int clock_gettime(clockid_t id, struct timespec *t)
{
	/* not libc's: that is this function */
	if (syscall(SYS_clock_gettime, id, t))
		return -1;
	if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)
		t->tv_sec += ahead_s[WALL];
	if (id == CLOCK_MONOTONIC)
		t->tv_sec += ahead_s[MONOTONIC];
	return 0;
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	struct timespec t;

	(void)tz;
	clock_gettime(CLOCK_REALTIME, &t);
	*tv = (struct timeval){ t.tv_sec, t.tv_nsec / 1000 };
	return 0;
}

time_t time(time_t *out)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	if (out)
		*out = t.tv_sec;
	return t.tv_sec;
}

int timespec_get(struct timespec *t, int base)
{
	return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, t) ? base : 0;
}

typedef int (*clockwait)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);

/* The kernel waits by its own clock. */
int pthread_cond_clockwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, clockid_t id,
			   const struct timespec *restrict until)
{
	static _Atomic(clockwait) real;
	struct timespec end = *until;

	if (!real)
		real = (clockwait)dlsym(RTLD_NEXT, "pthread_cond_clockwait");
	if (id == CLOCK_MONOTONIC)
		end.tv_sec -= ahead_s[MONOTONIC];
	return real(c, m, id, &end);
}

static int64_t ns_until(const struct timespec *until)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (until->tv_sec - now.tv_sec) * NS_PER_S + until->tv_nsec - now.tv_nsec;
}

int cnd_timedwait(cnd_t *restrict c, mtx_t *restrict m, const struct timespec *restrict until)
{
	int64_t left = ns_until(until);
	struct timespec slice;

	if (left <= 0)
		return thrd_timedout;
	if (left > SLICE_MS * NS_PER_MS)
		left = SLICE_MS * NS_PER_MS;
	clock_gettime(CLOCK_MONOTONIC, &slice);
	slice.tv_nsec += left;
	slice.tv_sec += slice.tv_nsec / NS_PER_S;
	slice.tv_nsec %= NS_PER_S;
	int rc = pthread_cond_clockwait((pthread_cond_t *)c, (pthread_mutex_t *)m, CLOCK_MONOTONIC,
					&slice);
	return rc == 0 || rc == ETIMEDOUT ? thrd_success : thrd_error;
}
