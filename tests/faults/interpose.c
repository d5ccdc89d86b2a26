/* The functions themselves are defined here, by their own names. */
#undef _FORTIFY_SOURCE
#undef _FILE_OFFSET_BITS
#include "interpose.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define WRAPPER __attribute__((visibility("default")))

/* ---- counting ---- */

struct shared { /* between this process and those it forks */
	atomic_long counts[CALLS];
	atomic_bool hit;
};

static struct shared *shared;
static struct fault fault;
static atomic_bool armed;
/* This thread runs what is to be tested; libc and sanitizers allocate before, and must not fail. */
static _Thread_local bool started;
static struct watcher watcher;
static bool watched;

const char *call_name(enum call c)
{
	static const char *const names[CALLS] = { "an allocation", "an open", "a read",
						  "a write",       "a sync",  "a change of size",
						  "a mapping",     "a stat",  "a change of names",
						  "a lock",        "a start" };
	return names[c];
}

void interpose_arm(const struct fault *f)
{
	if (!shared)
		shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		abort();
	for (int i = 0; i < CALLS; i++)
		atomic_store(&shared->counts[i], 0);
	atomic_store(&shared->hit, false);
	fault = *f;
	started = true;
	atomic_store(&armed, true);
}

void interpose_disarm(void) { atomic_store(&armed, false); }
long interpose_count(enum call c) { return shared ? atomic_load(&shared->counts[c]) : 0; }
bool interpose_hit(void) { return shared && atomic_load(&shared->hit); }

/* Whether this call is to fail; then errno is set, or 0 where it is to be cut short. */
static bool fails(enum call c)
{
	if (!started || !atomic_load(&armed))
		return false;
	long n = atomic_fetch_add(&shared->counts[c], 1) + 1;
	if (c != fault.call || !fault.n || (fault.persists ? n < fault.n : n != fault.n))
		return false;
	atomic_store(&shared->hit, true);
	errno = fault.error;
	return true;
}

void interpose_watch(const struct watcher *w)
{
	watched = w;
	if (w)
		watcher = *w;
}

/* The next one of this name: libc's, or a sanitizer's. */
#define NEXT(name)                                                                                 \
	static __typeof__(&name) next;                                                             \
	if (!next)                                                                                 \
	*(void **)&next = dlsym(RTLD_NEXT, #name)

/* ---- allocations ---- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define BELOW(name) __interceptor_##name
#else
#define BELOW(name) __libc_##name
#endif

void *BELOW(malloc)(size_t n);
void *BELOW(calloc)(size_t n, size_t size);
void *BELOW(realloc)(void *p, size_t n);
void *BELOW(memalign)(size_t align, size_t n);

WRAPPER void *malloc(size_t n) { return fails(CALL_ALLOCATE) ? NULL : BELOW(malloc)(n); }

WRAPPER void *calloc(size_t n, size_t size)
{
	return fails(CALL_ALLOCATE) ? NULL : BELOW(calloc)(n, size);
}

WRAPPER void *realloc(void *p, size_t n)
{
	return fails(CALL_ALLOCATE) ? NULL : BELOW(realloc)(p, n);
}

WRAPPER void *aligned_alloc(size_t align, size_t n)
{
	return fails(CALL_ALLOCATE) ? NULL : BELOW(memalign)(align, n);
}

WRAPPER int posix_memalign(void **p, size_t align, size_t n)
{
	*p = fails(CALL_ALLOCATE) ? NULL : BELOW(memalign)(align, n);
	return *p ? 0 : ENOMEM;
}

/* ---- opening ---- */

static bool makes(int flags) { return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE; }

static int open_at(int dirfd, const char *path, int flags, mode_t mode)
{
	NEXT(openat);
	if (fails(CALL_OPEN))
		return -1;
	int fd = next(dirfd, path, flags, mode);
	if (fd >= 0 && watched && watcher.opened && flags & O_CREAT)
		watcher.opened(path, dirfd, fd, flags);
	return fd;
}

static mode_t mode_of(int flags, va_list ap) { return makes(flags) ? va_arg(ap, mode_t) : 0; }

WRAPPER int open(const char *path, int flags, ...)
{
	va_list ap;
	va_start(ap, flags);
	mode_t mode = mode_of(flags, ap);
	va_end(ap);
	return open_at(AT_FDCWD, path, flags, mode);
}

WRAPPER int openat(int dirfd, const char *path, int flags, ...)
{
	va_list ap;
	va_start(ap, flags);
	mode_t mode = mode_of(flags, ap);
	va_end(ap);
	return open_at(dirfd, path, flags, mode);
}

int __open_2(const char *path, int flags);
int __openat_2(int dirfd, const char *path, int flags);
WRAPPER int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
WRAPPER int __openat_2(int dirfd, const char *path, int flags)
{
	return open_at(dirfd, path, flags, 0);
}

WRAPPER FILE *fopen(const char *path, const char *mode)
{
	NEXT(fopen);
	return fails(CALL_OPEN) ? NULL : next(path, mode);
}

/* ---- reading ---- */

/* How much of `len` a call that fails does all the same: some, or -1. */
static ssize_t cut(size_t len) { return errno || len < 2 ? -1 : (ssize_t)(len / 2); }

#define READS(call_cut, call_whole)                                                                \
	if (!fails(CALL_READ))                                                                     \
		return call_whole;                                                                 \
	ssize_t part = cut(len);                                                                   \
	return part < 0 ? part : call_cut

WRAPPER ssize_t read(int fd, void *p, size_t len)
{
	NEXT(read);
	READS(next(fd, p, (size_t)part), next(fd, p, len));
}

WRAPPER ssize_t pread(int fd, void *p, size_t len, off_t at)
{
	NEXT(pread);
	READS(next(fd, p, (size_t)part, at), next(fd, p, len, at));
}

ssize_t __pread_chk(int fd, void *p, size_t len, off_t at, size_t size);
ssize_t __read_chk(int fd, void *p, size_t len, size_t size);
WRAPPER ssize_t __pread_chk(int fd, void *p, size_t len, off_t at, size_t size)
{
	return len > size ? (abort(), -1) : pread(fd, p, len, at);
}
WRAPPER ssize_t __read_chk(int fd, void *p, size_t len, size_t size)
{
	return len > size ? (abort(), -1) : read(fd, p, len);
}

WRAPPER ssize_t readlinkat(int dirfd, const char *path, char *p, size_t len)
{
	NEXT(readlinkat);
	return fails(CALL_READ) && errno ? -1 : next(dirfd, path, p, len);
}

ssize_t __readlinkat_chk(int dirfd, const char *path, char *p, size_t len, size_t size);
WRAPPER ssize_t __readlinkat_chk(int dirfd, const char *path, char *p, size_t len, size_t size)
{
	return len > size ? (abort(), -1) : readlinkat(dirfd, path, p, len);
}

WRAPPER ssize_t getrandom(void *p, size_t len, unsigned flags)
{
	NEXT(getrandom);
	return fails(CALL_READ) && errno ? -1 : next(p, len, flags);
}

/* ---- writing ---- */

static ssize_t told(int fd, off_t at, ssize_t n)
{
	if (n > 0 && watched && watcher.wrote)
		watcher.wrote(fd, at, (size_t)n);
	return n;
}

WRAPPER ssize_t pwrite(int fd, const void *p, size_t len, off_t at)
{
	NEXT(pwrite);
	if (!fails(CALL_WRITE))
		return told(fd, at, next(fd, p, len, at));
	ssize_t part = cut(len);
	return part < 0 ? part : told(fd, at, next(fd, p, (size_t)part, at));
}

WRAPPER ssize_t write(int fd, const void *p, size_t len)
{
	NEXT(write);
	off_t at = watched ? lseek(fd, 0, SEEK_CUR) : 0;
	if (!fails(CALL_WRITE))
		return told(fd, at, next(fd, p, len));
	ssize_t part = cut(len);
	return part < 0 ? part : told(fd, at, next(fd, p, (size_t)part));
}

/* A cut one ends in its first piece. */
WRAPPER ssize_t writev(int fd, const struct iovec *v, int n)
{
	NEXT(writev);
	off_t at = watched ? lseek(fd, 0, SEEK_CUR) : 0;
	if (!fails(CALL_WRITE))
		return told(fd, at, next(fd, v, n));
	ssize_t part = cut(v->iov_len);
	struct iovec first = { v->iov_base, part < 0 ? 0 : (size_t)part };
	return part < 0 ? part : told(fd, at, next(fd, &first, 1));
}

WRAPPER ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at)
{
	NEXT(pwritev);
	if (!fails(CALL_WRITE))
		return told(fd, at, next(fd, v, n, at));
	ssize_t part = cut(v->iov_len);
	struct iovec first = { v->iov_base, part < 0 ? 0 : (size_t)part };
	return part < 0 ? part : told(fd, at, next(fd, &first, 1, at));
}

WRAPPER int ftruncate(int fd, off_t size)
{
	NEXT(ftruncate);
	int rc = fails(CALL_RESIZE) ? -1 : next(fd, size);
	if (!rc && watched && watcher.resized)
		watcher.resized(fd, size);
	return rc;
}

WRAPPER int fallocate(int fd, int mode, off_t at, off_t len)
{
	NEXT(fallocate);
	return fails(CALL_RESIZE) ? -1 : next(fd, mode, at, len);
}

/* What the process sees does not depend on it, so it need not be waited for. */
static int sync_fd(int fd)
{
	bool failed = fails(CALL_SYNC);
	int error = errno;
	if (watched && watcher.synced)
		watcher.synced(fd, !failed);
	errno = error;
	return failed ? -1 : 0;
}

WRAPPER int fsync(int fd) { return sync_fd(fd); }
WRAPPER int fdatasync(int fd) { return sync_fd(fd); }
WRAPPER int msync(void *p, size_t len, int flags)
{
	(void)p, (void)len, (void)flags;
	return fails(CALL_SYNC) ? -1 : 0;
}

WRAPPER void *mmap(void *p, size_t len, int prot, int flags, int fd, off_t at)
{
	NEXT(mmap);
	return fd >= 0 && fails(CALL_MAP) ? MAP_FAILED : next(p, len, prot, flags, fd, at);
}

/* ---- names ---- */

WRAPPER int stat(const char *path, struct stat *s)
{
	NEXT(stat);
	return fails(CALL_STAT) ? -1 : next(path, s);
}

WRAPPER int fstat(int fd, struct stat *s)
{
	NEXT(fstat);
	return fails(CALL_STAT) ? -1 : next(fd, s);
}

/* The one of programs that were built with an older libc: LMDB's package, perhaps. */
int __fxstat(int version, int fd, struct stat *s);
WRAPPER int __fxstat(int version, int fd, struct stat *s)
{
	(void)version;
	return fstat(fd, s);
}

WRAPPER int fstatat(int dirfd, const char *path, struct stat *s, int flags)
{
	NEXT(fstatat);
	return fails(CALL_STAT) ? -1 : next(dirfd, path, s, flags);
}

WRAPPER int statvfs(const char *path, struct statvfs *s)
{
	NEXT(statvfs);
	return fails(CALL_STAT) ? -1 : next(path, s);
}

WRAPPER int mkdir(const char *path, mode_t mode)
{
	NEXT(mkdir);
	int rc = fails(CALL_NAME) ? -1 : next(path, mode);
	if (!rc && watched && watcher.made)
		watcher.made(AT_FDCWD, path, NULL);
	return rc;
}

WRAPPER int mkdirat(int dirfd, const char *path, mode_t mode)
{
	NEXT(mkdirat);
	int rc = fails(CALL_NAME) ? -1 : next(dirfd, path, mode);
	if (!rc && watched && watcher.made)
		watcher.made(dirfd, path, NULL);
	return rc;
}

WRAPPER int symlinkat(const char *target, int dirfd, const char *path)
{
	NEXT(symlinkat);
	int rc = fails(CALL_NAME) ? -1 : next(target, dirfd, path);
	if (!rc && watched && watcher.made)
		watcher.made(dirfd, path, target);
	return rc;
}

WRAPPER int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	NEXT(renameat);
	int rc = fails(CALL_NAME) ? -1 : next(from_dir, from, to_dir, to);
	if (!rc && watched && watcher.renamed)
		watcher.renamed(from_dir, from, to);
	return rc;
}

WRAPPER int unlinkat(int dirfd, const char *path, int flags)
{
	NEXT(unlinkat);
	int rc = fails(CALL_NAME) ? -1 : next(dirfd, path, flags);
	if (!rc && watched && watcher.removed)
		watcher.removed(dirfd, path);
	return rc;
}

WRAPPER int chmod(const char *path, mode_t mode)
{
	NEXT(chmod);
	return fails(CALL_NAME) ? -1 : next(path, mode);
}

WRAPPER int fchmod(int fd, mode_t mode)
{
	NEXT(fchmod);
	return fails(CALL_NAME) ? -1 : next(fd, mode);
}

WRAPPER int fchmodat(int dirfd, const char *path, mode_t mode, int flags)
{
	NEXT(fchmodat);
	return fails(CALL_NAME) ? -1 : next(dirfd, path, mode, flags);
}

/* ---- locks, threads, time ---- */

WRAPPER int flock(int fd, int how)
{
	NEXT(flock);
	return fails(CALL_LOCK) ? -1 : next(fd, how);
}

WRAPPER int fcntl(int fd, int cmd, ...)
{
	NEXT(fcntl);
	va_list ap;
	va_start(ap, cmd);
	void *arg = va_arg(ap, void *); /* an int has room in it */
	va_end(ap);
	bool lock = cmd == F_SETLK || cmd == F_SETLKW || cmd == F_GETLK;
	return lock && fails(CALL_LOCK) ? -1 : next(fd, cmd, arg);
}

WRAPPER pid_t fork(void)
{
	NEXT(fork);
	return fails(CALL_START) ? -1 : next();
}

struct start {
	void *(*run)(void *);
	void *arg;
};

static void *start(void *p)
{
	struct start s = *(struct start *)p;
	free(p);
	started = true;
	return s.run(s.arg);
}

WRAPPER int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*run)(void *), void *arg)
{
	NEXT(pthread_create);
	if (fails(CALL_START))
		return errno;
	struct start *s = BELOW(malloc)(sizeof(*s));
	if (!s)
		return EAGAIN;
	*s = (struct start){ run, arg };
	int rc = next(t, a, start, s);
	if (rc)
		free(s);
	return rc;
}

WRAPPER int nanosleep(const struct timespec *t, struct timespec *left)
{
	NEXT(nanosleep);
	return atomic_load(&armed) ? 0 : next(t, left);
}

WRAPPER int usleep(useconds_t us)
{
	NEXT(usleep);
	return atomic_load(&armed) ? 0 : next(us);
}

/* ---- the same again, as programs call them that were built for large files on small hosts ---- */

#define ALSO(name) __asm__(".globl " #name "64\n.set " #name "64, " #name)
ALSO(open);
ALSO(openat);
ALSO(fopen);
ALSO(pread);
ALSO(pwrite);
ALSO(pwritev);
ALSO(ftruncate);
ALSO(fallocate);
ALSO(mmap);
ALSO(stat);
ALSO(fstat);
ALSO(fstatat);
ALSO(statvfs);
ALSO(fcntl);
