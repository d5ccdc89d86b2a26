/*
 * fault.c - what happens at a FAULT_POINT, in a build with FAULTS=1.
 *
 *   FAULT=kill:state.committed:3    SIGKILL when the point is passed for the third time
 *   FAULT=stop:state.committed:3    SIGSTOP: whoever set it sends SIGCONT
 *   FAULT_SEEN=file                 append the name of every point at its first passing
 */
#include "fault.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POINTS_MAX = 256, NAME_MAX_BYTES = 100 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char wanted[NAME_MAX_BYTES];
static int sig, nth, passed, seen_fd = -1;
static const char *seen[POINTS_MAX];

static void bad(const char *text)
{
	fprintf(stderr, "FAULT=%s: not kill|stop:POINT:N\n", text);
	_exit(2);
}

static void read_environment(void)
{
	const char *text = getenv("FAULT"), *file = getenv("FAULT_SEEN");
	char what[8];

	if (text) {
		if (sscanf(text, "%7[^:]:%99[^:]:%d", what, wanted, &nth) != 3)
			bad(text);
		sig = !strcmp(what, "kill") ? SIGKILL : !strcmp(what, "stop") ? SIGSTOP : 0;
		if (!sig)
			bad(text);
	}
	if (file)
		seen_fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static void note_first(const char *name)
{
	int i = 0;

	while (i < POINTS_MAX && seen[i] && strcmp(seen[i], name))
		i++;
	if (i == POINTS_MAX || seen[i])
		return;
	seen[i] = name;
	if (dprintf(seen_fd, "%s\n", name) < 0)
		_exit(2);
}

void fault_point(const char *name)
{
	bool now;

	pthread_once(&once, read_environment);
	pthread_mutex_lock(&lock);
	if (seen_fd >= 0)
		note_first(name);
	now = sig && !strcmp(name, wanted) && ++passed == nth;
	pthread_mutex_unlock(&lock);
	if (now)
		kill(getpid(), sig);
}
