/*
 * fiber.c - threads, locks, clocks and sleeps of the program, without any.
 *
 * The linker sends the program's calls here (-Wl,--wrap).  One fiber runs until
 * it waits or comes to a point where chance lets another go on; time passes
 * when none can run.  A host that dies leaves its fibers where they are.
 */
#undef _FORTIFY_SOURCE /* its longjmp() knows one stack only */
#include "sim.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum { FIBERS_MAX = 128, STACK_BYTES = 256 << 10, EVENTS_MAX = 65536, POINT_US = 3 };

enum fiber_state { FIBER_FREE, FIBER_READY, FIBER_WAITING, FIBER_DONE };

struct fiber {
	enum fiber_state state;
	struct host *host;
	void *(*fn)(void *);
	void *arg, *result;
	const void *on; /* what it waits for; NULL: only for the time */
	int64_t until;
	bool woken, begun;
	jmp_buf here;
	ucontext_t first;
	char *stack;
};

static struct fiber fibers[FIBERS_MAX];
static int n_fibers; /* in use below this */
static struct fiber *current;
static jmp_buf scheduler;
static ucontext_t scheduler_first;
static bool host_died_within;
int64_t sim_now;

struct event {
	int64_t time;
	uint64_t order;
	void (*fn)(void *);
	void *arg;
};
static struct event events[EVENTS_MAX]; /* a heap */
static int n_events;
static uint64_t event_order;
static struct event *const heap = events;

struct host *this_host(void) { return current ? current->host : NULL; }

/* ---- events ---- */

static bool before(const struct event *a, const struct event *b)
{
	return a->time != b->time ? a->time < b->time : a->order < b->order;
}

static void swap(int i, int j)
{
	struct event e = heap[i];
	heap[i] = heap[j];
	heap[j] = e;
}

void at(int64_t time, void (*fn)(void *), void *arg)
{
	int i = n_events++;

	if (n_events == EVENTS_MAX)
		abort();
	heap[i] = (struct event){ time, event_order++, fn, arg };
	for (; i && before(&heap[i], &heap[(i - 1) / 2]); i = (i - 1) / 2)
		swap(i, (i - 1) / 2);
}

static struct event take_event(void)
{
	struct event e = heap[0];

	heap[0] = heap[--n_events];
	for (int i = 0, least; 2 * i + 1 < n_events; i = least) {
		least = 2 * i + 1;
		if (least + 1 < n_events && before(&heap[least + 1], &heap[least]))
			least++;
		if (before(&heap[i], &heap[least]))
			break;
		swap(i, least);
	}
	return e;
}

/* ---- fibers ---- */

static void fiber_main(void)
{
	struct fiber *f = current;

	f->result = f->fn(f->arg);
	f->state = FIBER_DONE;
	fiber_wake(f);
	current = NULL;
	_longjmp(scheduler, 1);
}

struct fiber *fiber_start(struct host *h, void *(*fn)(void *), void *arg)
{
	struct fiber *f = NULL;

	for (int i = 0; i < FIBERS_MAX && !f; i++)
		if (fibers[i].state == FIBER_FREE) {
			f = &fibers[i];
			if (i >= n_fibers)
				n_fibers = i + 1;
		}
	if (!f)
		abort();
	char *stack = f->stack;
	if (!stack)
		stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (stack == MAP_FAILED)
		abort();
	memset(f, 0, offsetof(struct fiber, here));
	f->stack = stack;
	f->state = FIBER_READY;
	f->host = h;
	f->fn = fn;
	f->arg = arg;
	return f;
}

bool fiber_done(const struct fiber *f) { return f->state == FIBER_DONE; }

void fiber_drop(struct fiber *f) { f->state = FIBER_FREE; }

static void enter_first(struct fiber *f)
{
	getcontext(&f->first);
	f->first.uc_stack.ss_sp = f->stack;
	f->first.uc_stack.ss_size = STACK_BYTES;
	f->first.uc_link = NULL;
	makecontext(&f->first, fiber_main, 0);
	f->begun = true;
	swapcontext(&scheduler_first, &f->first);
}

static void enter(struct fiber *f)
{
	current = f;
	if (!_setjmp(scheduler)) {
		if (f->begun)
			_longjmp(f->here, 1);
		enter_first(f);
	}
	current = NULL;
}

static void leave(void)
{
	struct fiber *f = current;

	if (!_setjmp(f->here))
		_longjmp(scheduler, 1);
}

static bool runs(const struct fiber *f) { return !f->host || f->host->life == HOST_UP; }

bool fiber_block(const void *on, int64_t until)
{
	struct fiber *f = current;

	f->state = FIBER_WAITING;
	f->on = on;
	f->until = until;
	f->woken = false;
	leave();
	return f->woken;
}

void fiber_sleep(int64_t us) { fiber_block(NULL, sim_now + us); }

void fiber_wake(const void *on)
{
	for (int i = 0; i < n_fibers; i++)
		if (fibers[i].state == FIBER_WAITING && fibers[i].on == on) {
			fibers[i].state = FIBER_READY;
			fibers[i].woken = true;
		}
}

/* ---- death ---- */

static void bury(struct host *h, enum death how)
{
	for (int i = 0; i < n_fibers; i++)
		if (fibers[i].host == h)
			fibers[i].state = FIBER_FREE;
	h->life = HOST_DOWN;
	clients_died(h);
	disk_died(h, how);
	world_host_died(h, how);
}

void host_die(struct host *h, enum death how)
{
	bool within = current && current->host == h;

	say("host %d: %s", h->id, how == DEATH_KILL ? "killed" : "power cut");
	h->crash_in = 0;
	bury(h, how);
	if (within) {
		host_died_within = true;
		_longjmp(scheduler, 1);
	}
}

/* ---- running ---- */

void sim_point(void)
{
	struct host *h;

	if (!current || sim_is_child)
		return;
	h = current->host;
	sim_now += chance_below(POINT_US);
	if (h) {
		h->points++;
		figures.points++;
		if (h->crash_in && --h->crash_in == 0)
			host_die(h, h->crash_as);
	}
	if ((chance() & 7) == 0)
		leave();
}

static struct fiber *choose(void)
{
	struct fiber *ready[FIBERS_MAX];
	int n = 0;

	for (int i = 0; i < n_fibers; i++)
		if (fibers[i].state == FIBER_READY && runs(&fibers[i]))
			ready[n++] = &fibers[i];
	return n ? ready[n == 1 ? 0 : chance_below(n)] : NULL;
}

static int64_t next_time(void)
{
	int64_t time = n_events ? heap[0].time : NEVER;

	for (int i = 0; i < n_fibers; i++)
		if (fibers[i].state == FIBER_WAITING && runs(&fibers[i]) && fibers[i].until < time)
			time = fibers[i].until;
	return time;
}

static void come_due(void)
{
	while (n_events && heap[0].time <= sim_now) {
		struct event e = take_event();
		e.fn(e.arg);
	}
	for (int i = 0; i < n_fibers; i++)
		if (fibers[i].state == FIBER_WAITING && runs(&fibers[i]) &&
		    fibers[i].until <= sim_now)
			fibers[i].state = FIBER_READY;
}

void sim_run(int64_t time)
{
	while (!*sim_violation) {
		struct fiber *f;
		come_due();
		f = choose();
		if (f) {
			enter(f);
			continue;
		}
		int64_t next = next_time();
		if (next > time)
			break;
		if (next > sim_now)
			sim_now = next;
	}
	if (sim_now < time)
		sim_now = time;
}

void fibers_reset(void)
{
	for (int i = 0; i < n_fibers; i++)
		fibers[i].state = FIBER_FREE;
	n_fibers = n_events = 0;
	event_order = 0;
	current = NULL;
}

/* ---- threads ---- */

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg);
int __wrap_pthread_join(pthread_t t, void **result);
int __wrap_pthread_clockjoin_np(pthread_t t, void **result, clockid_t id,
				const struct timespec *until);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_trylock(pthread_mutex_t *m);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *m);
int __wrap_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *a);
int __wrap_pthread_mutex_destroy(pthread_mutex_t *m);
int __wrap_pthread_cond_init(pthread_cond_t *c, const pthread_condattr_t *a);
int __wrap_pthread_cond_destroy(pthread_cond_t *c);
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m,
				  const struct timespec *until);
int __wrap_pthread_cond_signal(pthread_cond_t *c);
int __wrap_pthread_cond_broadcast(pthread_cond_t *c);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_usleep(useconds_t us);
int __wrap_nanosleep(const struct timespec *t, struct timespec *left);

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg)
{
	(void)a;
	*t = (pthread_t)fiber_start(this_host(), fn, arg);
	sim_point();
	return 0;
}

static int64_t clock_of(const struct host *h, clockid_t id)
{
	if (!h)
		return sim_now;
	return sim_now + (id == CLOCK_REALTIME   ? h->wall
			  : id == CLOCK_BOOTTIME ? h->boot
						 : h->mono);
}

static int64_t until_of(const struct timespec *t, clockid_t id)
{
	int64_t us = t->tv_sec * SECOND + t->tv_nsec / 1000;

	return sim_now + us - clock_of(this_host(), id);
}

static int join(pthread_t t, void **result, int64_t until)
{
	struct fiber *f = (struct fiber *)t;

	sim_point();
	while (f->state != FIBER_DONE)
		if (!fiber_block(f, until) && f->state != FIBER_DONE)
			return ETIMEDOUT;
	if (result)
		*result = f->result;
	f->state = FIBER_FREE;
	return 0;
}

int __wrap_pthread_join(pthread_t t, void **result) { return join(t, result, NEVER); }

int __wrap_pthread_clockjoin_np(pthread_t t, void **result, clockid_t id,
				const struct timespec *until)
{
	return join(t, result, until_of(until, id));
}

/*
 * A lock is the number of the fiber that holds it, plus one.  A static one may
 * be held by a fiber that died.
 */
static bool is_held(const pthread_mutex_t *m)
{
	int by = m->__data.__lock;
	return by && fibers[by - 1].state != FIBER_FREE;
}

int __wrap_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *a)
{
	(void)a;
	memset(m, 0, sizeof(*m));
	return 0;
}

int __wrap_pthread_mutex_destroy(pthread_mutex_t *m)
{
	(void)m;
	return 0;
}

static void lock(pthread_mutex_t *m)
{
	while (is_held(m))
		fiber_block(m, NEVER);
	m->__data.__lock = (int)(current - fibers) + 1;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *m)
{
	if (!current)
		return 0;
	sim_point();
	lock(m);
	return 0;
}

int __wrap_pthread_mutex_trylock(pthread_mutex_t *m)
{
	if (current && is_held(m))
		return EBUSY;
	if (current)
		lock(m);
	return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *m)
{
	m->__data.__lock = 0;
	fiber_wake(m);
	return 0;
}

int __wrap_pthread_cond_init(pthread_cond_t *c, const pthread_condattr_t *a)
{
	(void)c, (void)a;
	return 0;
}

int __wrap_pthread_cond_destroy(pthread_cond_t *c)
{
	(void)c;
	return 0;
}

static int wait_cond(pthread_cond_t *c, pthread_mutex_t *m, int64_t until)
{
	__wrap_pthread_mutex_unlock(m);
	bool woken = fiber_block(c, until);
	lock(m);
	return woken ? 0 : ETIMEDOUT;
}

int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
	return wait_cond(c, m, NEVER);
}

/* Every condition of the program's waits by CLOCK_MONOTONIC. */
int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m,
				  const struct timespec *until)
{
	return wait_cond(c, m, until_of(until, CLOCK_MONOTONIC));
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *c)
{
	fiber_wake(c);
	return 0;
}

int __wrap_pthread_cond_signal(pthread_cond_t *c) { return __wrap_pthread_cond_broadcast(c); }

/* ---- time ---- */

int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
	int64_t us;

	sim_point();
	us = clock_of(this_host(), id);
	t->tv_sec = us / SECOND;
	t->tv_nsec = us % SECOND * 1000;
	return 0;
}

int __wrap_usleep(useconds_t us)
{
	sim_point();
	fiber_sleep(us);
	return 0;
}

int __wrap_nanosleep(const struct timespec *t, struct timespec *left)
{
	(void)left;
	return __wrap_usleep((useconds_t)(t->tv_sec * SECOND + t->tv_nsec / 1000));
}
