/*
 * inside.c - linked with reader.c, it stops or kills the process within a read: after the reader
 * has chosen the commit to look at, and before it has looked at a page of it.
 *
 *   cc ... -Wl,--wrap=commit_read
 *
 * SIGUSR1: stop at the next one.  SIGUSR2: die at the next one.
 */
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

int __real_commit_read(void *c, const void *pages);
int __wrap_commit_read(void *c, const void *pages);

static volatile sig_atomic_t wanted;

static void on_signal(int sig) { wanted = sig == SIGUSR1 ? SIGSTOP : SIGKILL; }

__attribute__((constructor)) static void listen_to_signals(void)
{
	signal(SIGUSR1, on_signal);
	signal(SIGUSR2, on_signal);
	sigset_t both;
	sigemptyset(&both);
	sigaddset(&both, SIGUSR1);
	sigaddset(&both, SIGUSR2);
	sigprocmask(SIG_UNBLOCK, &both, NULL); /* who starts it blocks them, for until now */
}

int __wrap_commit_read(void *c, const void *pages)
{
	int rc = __real_commit_read(c, pages);
	int now = wanted;

	wanted = 0;
	if (now)
		kill(getpid(), now);
	return rc;
}
