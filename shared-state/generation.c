#include "generation.h"

#include "bytes.h"
#include "codes.h"
#include "fault.h"
#include "record.h"
#include "state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CURRENT     "current"
#define CURRENT_NEW "current.new"
#define PREFIX      "gen-"

/* ---- the directory and its one writer ---- */

static int lock_writer(int dirfd, int *out)
{
	/* 0600: flock() needs no more than an open descriptor, and readers must not get one */
	int fd = openat(dirfd, "writer.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		int rc = errno == EWOULDBLOCK ? -EBUSY : -errno;
		close(fd);
		return rc;
	}
	*out = fd;
	return 0;
}

static int sync_dir(int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int rc = fsync(fd) ? -errno : 0;
	close(fd);
	return rc;
}

static int open_dir(const char *path, int *out)
{
	bool made = mkdir(path, 0750) == 0;
	int rc;
	if (made) {
		if (chmod(path, 02750)) /* mkdir ignores the set-group-id bit and obeys the umask */
			return -errno;
	} else if (errno != EEXIST) {
		return -errno;
	}
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (made && (rc = sync_dir(fd, "..")) && rc != -EACCES) { /* made, but not to be read */
		close(fd);
		return rc;
	}
	*out = fd;
	return 0;
}

int state_dir_open(struct state_dir **out, const char *path, char *err, size_t err_len)
{
	struct state_dir *d = malloc(sizeof(*d));
	int rc = -ENOMEM;
	if (!d)
		return code_say(rc, err, err_len, "%s: %s", path, code_name(rc));
	*d = (struct state_dir){ .fd = -1, .lock_fd = -1, .filling = -1, .path = strdup(path) };

	if (d->path)
		rc = open_dir(path, &d->fd);
	if (!rc)
		rc = lock_writer(d->fd, &d->lock_fd);
	if (rc == -EBUSY)
		code_say(rc, err, err_len,
			 "%s: another sidecar is writing this state (it holds writer.lock)", path);
	else if (rc)
		code_say(rc, err, err_len, "%s: cannot use it as state directory: %s", path,
			 code_name(rc));
	if (rc) {
		state_dir_close(d);
		return rc;
	}
	*out = d;
	return 0;
}

void state_dir_close(struct state_dir *d)
{
	if (!d)
		return;
	if (d->lock_fd >= 0)
		close(d->lock_fd);
	if (d->fd >= 0)
		close(d->fd);
	free(d->path);
	free(d);
}

/* ---- generations ---- */

int generation_current(int dirfd, char name[GENERATION_NAME_BYTES])
{
	char link[GENERATION_NAME_BYTES];
	ssize_t n = readlinkat(dirfd, CURRENT, link, sizeof(link));
	if (n < 0)
		return -errno;
	if (n == sizeof(link))
		return -ENOENT; /* not a link of ours */
	link[n] = 0;
	if (generation_number(link) < 0)
		return -ENOENT;
	memcpy(name, link, (size_t)n + 1);
	return 0;
}

int64_t generation_number(const char *name)
{
	if (strncmp(name, PREFIX, strlen(PREFIX)))
		return -1;
	const char *digits = name + strlen(PREFIX);
	size_t len = strlen(digits);
	if (len == 0 || len > 18 || strspn(digits, "0123456789") != len)
		return -1;
	return strtoll(digits, NULL, 10);
}

/* A stream over the directory, to be closed by the caller; NULL and errno. */
static DIR *list(int dirfd)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	DIR *dir = fdopendir(fd);
	if (!dir)
		close(fd);
	return dir;
}

int generation_make(struct state_dir *d, char name[GENERATION_NAME_BYTES])
{
	DIR *dir = list(d->fd);
	if (!dir)
		return -errno;
	int64_t last = 0;
	for (struct dirent *e; (e = readdir(dir));) {
		int64_t n = generation_number(e->d_name);
		last = n > last ? n : last;
	}
	closedir(dir);

	int rc = 0, fd = -1, lock = -1;
	snprintf(name, GENERATION_NAME_BYTES, PREFIX "%lld", (long long)last + 1);
	if (mkdirat(d->fd, name, 0750) ||
	    (fd = openat(d->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ||
	    fchmod(fd, 02750) ||
	    (lock = openat(fd, "lock.mdb", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) < 0)
		rc = -errno;
	if (lock >= 0)
		close(lock);
	if (fd >= 0)
		close(fd);
	return rc;
}

int generation_switch(struct state_dir *d, const char *name)
{
	int rc = sync_dir(d->fd, name);
	if (rc)
		return rc;
	FAULT_POINT("generation.switch");
	if (unlinkat(d->fd, CURRENT_NEW, 0) && errno != ENOENT)
		return -errno;
	if (symlinkat(name, d->fd, CURRENT_NEW) || fsync(d->fd) ||
	    renameat(d->fd, CURRENT_NEW, d->fd, CURRENT) || fsync(d->fd))
		return -errno;
	return 0;
}

static void remove_generation(int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return;
	unlinkat(fd, "data.mdb", 0);
	FAULT_POINT("generation.sweeping");
	unlinkat(fd, "lock.mdb", 0);
	close(fd);
	unlinkat(dirfd, name, AT_REMOVEDIR); /* refuses if somebody put more there */
}

void state_dir_sweep(struct state_dir *d)
{
	char current[GENERATION_NAME_BYTES] = "";
	int rc = generation_current(d->fd, current);
	if (rc && rc != -ENOENT)
		return; /* not known which one to keep */

	DIR *dir = list(d->fd);
	if (!dir)
		return;
	bool synced = false; /* the one that is to stay has to be the current one on disk too */
	for (struct dirent *e; (e = readdir(dir));) {
		int64_t n = generation_number(e->d_name);
		if (n < 0 || n == d->filling || !strcmp(e->d_name, current))
			continue;
		if (!synced && fsync(d->fd))
			break;
		synced = true;
		remove_generation(d->fd, e->d_name);
	}
	closedir(dir);
}

/* ---- is a data file fit to be mapped? ---- */

/* The part of an LMDB 0.9 meta page that matters here; offsets in bytes, 64-bit little-endian. */
enum {
	META_AT = 16, /* after the page header */
	META_BYTES = 136,
	META_MAGIC = 0,
	META_VERSION = 4,
	META_PAGE_SIZE = 24, /* of the first database entry */
	META_LAST_PAGE = 120,
	META_TXNID = 128,
};

static int read_meta(int fd, uint8_t meta[META_BYTES], off_t page_at)
{
	ssize_t n = pread(fd, meta, META_BYTES, page_at + META_AT);
	if (n < 0)
		return -errno;
	if (n != META_BYTES || get_le32(meta + META_MAGIC) != 0xBEEFC0DE ||
	    get_le32(meta + META_VERSION) != 1)
		return -EBADMSG;
	return 0;
}

int generation_wanted_bytes(int fd, uint64_t *bytes)
{
	uint8_t meta[2][META_BYTES];
	int rc = read_meta(fd, meta[0], 0);
	if (rc)
		return rc;
	uint32_t page = get_le32(meta[0] + META_PAGE_SIZE);
	if (page < 512 || page > 65536 || (page & (page - 1)))
		return -EBADMSG;
	rc = read_meta(fd, meta[1], page);
	if (rc)
		return rc;
	int newer = get_le64(meta[1] + META_TXNID) > get_le64(meta[0] + META_TXNID);
	*bytes = (get_le64(meta[newer] + META_LAST_PAGE) + 1) * page;
	return 0;
}

int generation_check(int fd)
{
	/* the size last: a writer lengthens the file before it writes the meta page that says so */
	struct stat st;
	uint64_t wanted;
	int rc = generation_wanted_bytes(fd, &wanted);
	if (fstat(fd, &st))
		return -errno;
	if (st.st_size == 0)
		return -ENOENT;
	return !rc && (uint64_t)st.st_size < wanted ? -ERANGE : rc;
}

int generation_preflight(int dirfd, const char *path)
{
	int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int rc = generation_check(fd);
	close(fd);
	return rc;
}

/* ---- the full walk, in a child ---- */

static int check_record(const MDB_val *k, const MDB_val *v)
{
	struct record r;
	return record_decode(&r, v->mv_data, v->mv_size, k->mv_data, k->mv_size);
}

static int check_change(const MDB_val *k, const MDB_val *v)
{
	struct change c;
	return change_decode(&c, k->mv_data, k->mv_size, v->mv_data, v->mv_size);
}

static int check_bytes(const MDB_val *k, const MDB_val *v)
{
	(void)k;
	/* touching the last byte faults in the page; the rest lies before it */
	return v->mv_size ? ((volatile uint8_t *)v->mv_data)[v->mv_size - 1] * 0 : 0;
}

static int walk(MDB_txn *t, MDB_dbi dbi, int (*check)(const MDB_val *, const MDB_val *))
{
	MDB_cursor *c;
	MDB_val k, v;
	int rc = mdb_cursor_open(t, dbi, &c);
	while (!rc && !(rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)))
		rc = check(&k, &v);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

enum { EXIT_DAMAGED = 255 }; /* others are errno: nothing is known about the file */

/* LMDB found a page that makes no sense; it would print and abort(). */
static void give_up(MDB_env *env, const char *msg)
{
	(void)env;
	(void)msg;
	_exit(EXIT_DAMAGED);
}

static int exit_code(int rc)
{
	rc = code_from_mdb(rc);
	bool damaged = rc == -EBADMSG || rc == -ENOENT || rc == -ENOTSUP || rc <= -EXIT_DAMAGED;
	return damaged ? EXIT_DAMAGED : -rc;
}

/* In the child: nothing is freed, it is about to exit. */
static int walk_all(const char *path)
{
	static const struct {
		const char *name;
		int (*check)(const MDB_val *, const MDB_val *);
	} dbs[] = { { "records", check_record },
		    { "journal", check_change },
		    { "meta", check_bytes } };
	MDB_env *env;
	MDB_txn *t;
	MDB_dbi dbi;
	int rc;
	if ((rc = mdb_env_create(&env)) || (rc = mdb_env_set_maxdbs(env, 8)) ||
	    (rc = mdb_env_set_assert(env, give_up)) ||
	    (rc = mdb_env_open(env, path, MDB_RDONLY | MDB_NOLOCK | MDB_NOTLS, 0)) ||
	    (rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &t)))
		return rc;
	rc = walk(t, 0, check_bytes); /* 0: the list of free pages */
	for (size_t i = 0; !rc && i < sizeof(dbs) / sizeof(*dbs); i++) {
		rc = mdb_dbi_open(t, dbs[i].name, 0, &dbi);
		if (!rc)
			rc = walk(t, dbi, dbs[i].check);
	}
	return rc;
}

int generation_verify(const struct state_dir *d, const char *name)
{
	char *path;
	if (asprintf(&path, "%s/%s", d->path, name) < 0)
		return -ENOMEM;

	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGBUS, SIG_DFL);
		signal(SIGSEGV, SIG_DFL);
		close(d->lock_fd); /* or a killed parent's lock would live on here */
		_exit(exit_code(walk_all(path)));
	}
	int rc = child < 0 ? -errno : 0, status = 0;
	free(path);
	while (!rc && waitpid(child, &status, 0) < 0)
		rc = errno == EINTR ? 0 : -errno;
	if (!rc && status)
		rc = WIFEXITED(status) && WEXITSTATUS(status) != EXIT_DAMAGED ? -WEXITSTATUS(status)
									      : -EBADMSG;
	return rc;
}
