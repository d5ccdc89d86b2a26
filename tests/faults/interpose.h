/*
 * interpose.h - the system calls and allocations of this process, counted, made
 * to fail, and watched.
 *
 *   interpose_arm(&(struct fault){ CALL_WRITE, .n = 3, .error = EIO });
 *   ... what the third write does to it ...
 *   interpose_disarm();
 *
 * Linked into a test program, its wrappers stand before libc's for everything in
 * the process: LMDB's calls count as ours do, and so do libc's own allocations.
 * Calls that libc makes inside itself (of fopen(), opendir()) are not seen, and
 * the sanitizers' own are let through.
 *
 * A fork inherits what is armed and goes on counting where its parent is.  Nothing
 * sleeps: nanosleep() and usleep() return at once in a process that is armed, and nothing waits
 * for a disk: a sync that is let through does nothing.
 *
 * Threads:   any; armed and disarmed by one.
 */
#ifndef INTERPOSE_H
#define INTERPOSE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum call {
	CALL_ALLOCATE, /* malloc() and its family */
	CALL_OPEN,     /* open(), openat(), fopen() */
	CALL_READ,     /* read(), pread(), readlinkat(), getrandom() */
	CALL_WRITE,    /* write(), pwrite(), writev(), pwritev() */
	CALL_SYNC,     /* fsync(), fdatasync(), msync() */
	CALL_RESIZE,   /* ftruncate(), fallocate() */
	CALL_MAP,      /* mmap() */
	CALL_STAT,     /* stat(), fstat(), fstatat(), statvfs() */
	CALL_NAME,     /* mkdir(), symlinkat(), renameat(), unlinkat(), chmod() ... */
	CALL_LOCK,     /* flock(), fcntl() with a lock */
	CALL_START,    /* fork(), pthread_create() */
	CALLS
};
/** "a write" ... */
const char *call_name(enum call c);

struct fault {
	enum call call;
	long n;        /* the n-th from now fails, from 1; 0: count only */
	int error;     /* errno; 0: cut short, if it is a read or write */
	bool persists; /* all later ones too */
};

void interpose_arm(const struct fault *f);
void interpose_disarm(void);
/** How many there were since interpose_arm(), in this process and those it has forked. */
long interpose_count(enum call c);
/** Whether the fault has happened. */
bool interpose_hit(void);

/*
 * Who watches is told of what was done, after it was done.  Descriptors and
 * paths are the caller's.  Nothing is told of a call that failed, failed syncs
 * aside.  NULL: not interested.
 */
struct watcher {
	void (*opened)(const char *path, int dirfd, int fd, int flags); /* with O_CREAT */
	void (*wrote)(int fd, off_t at, size_t len);
	void (*resized)(int fd, off_t size);
	void (*synced)(int fd, bool ok);
	void (*made)(int dirfd, const char *name, const char *target); /* NULL: a directory */
	void (*renamed)(int dirfd, const char *from, const char *to);
	void (*removed)(int dirfd, const char *name);
};
void interpose_watch(const struct watcher *w); /* NULL: nobody */

#endif
