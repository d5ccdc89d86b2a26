/*
 * disk.c - the state directories of the hosts, and what a death leaves of them.
 *
 * The files are real, on a tmpfs.  A killed host's descriptors are closed and
 * its LMDB transactions end as they do with a process: nothing of an open one
 * is there.  A power cut takes back each meta page that was not synced, perhaps:
 * LMDB syncs the pages of a commit before its meta page is written, so that is
 * all that can be lost of a file that is in use.
 */
#include "sim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	OPEN_MAX_FDS = 64,
	ENVS_MAX = 8,
	TXNS_MAX = 64,
	FILES_MAX = 64,
	META_BYTES = 152,
	PAGE = 4096
};

static struct holdings {
	int fds[OPEN_MAX_FDS];
	MDB_env *envs[ENVS_MAX];
	MDB_txn *txns[TXNS_MAX];
	int n_fds, n_envs, n_txns;
} held[HOSTS_MAX];

static struct synced { /* the meta pages of a file, as they are on the disk */
	ino_t inode;
	uint8_t meta[2][META_BYTES];
} files[FILES_MAX];
static int n_files;
static char root[60];
bool sim_is_child;

static struct holdings *mine(void)
{
	struct host *h = this_host();
	return h ? &held[h->id] : NULL;
}

/* ---- descriptors ---- */

int __real_open64(const char *path, int flags, mode_t mode);
int __real_openat64(int dir, const char *path, int flags, mode_t mode);
int __real_close(int fd);
DIR *__real_fdopendir(int fd);
FILE *__real_fopen64(const char *path, const char *mode);
int __real_renameat(int from_dir, const char *from, int to_dir, const char *to);
int __wrap_open64(const char *path, int flags, mode_t mode);
int __wrap_openat64(int dir, const char *path, int flags, mode_t mode);
int __wrap_close(int fd);
DIR *__wrap_fdopendir(int fd);
FILE *__wrap_fopen64(const char *path, const char *mode);
int __wrap_renameat(int from_dir, const char *from, int to_dir, const char *to);
ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags);
int __wrap_isatty(int fd);
void __real__exit(int code) __attribute__((noreturn));
void __wrap__exit(int code) __attribute__((noreturn));

static int keep_fd(int fd)
{
	struct holdings *m = mine();

	if (m && fd >= 0) {
		if (m->n_fds == OPEN_MAX_FDS)
			abort();
		m->fds[m->n_fds++] = fd;
	}
	return fd;
}

static void forget_fd(int fd)
{
	struct holdings *m = mine();

	for (int i = 0; m && i < m->n_fds; i++)
		if (m->fds[i] == fd) {
			m->fds[i] = m->fds[--m->n_fds];
			return;
		}
}

int __wrap_open64(const char *path, int flags, mode_t mode)
{
	sim_point();
	return keep_fd(__real_open64(path, flags, mode));
}

int __wrap_openat64(int dir, const char *path, int flags, mode_t mode)
{
	sim_point();
	return keep_fd(__real_openat64(dir, path, flags, mode));
}

int __wrap_close(int fd)
{
	forget_fd(fd);
	return __real_close(fd);
}

DIR *__wrap_fdopendir(int fd)
{
	forget_fd(fd); /* closedir() closes it, and nothing that waits is called meanwhile */
	return __real_fdopendir(fd);
}

int __wrap_renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	sim_point();
	int rc = __real_renameat(from_dir, from, to_dir, to);
	sim_point();
	return rc;
}

/* The boot id is the host's; control groups, which are read so too, are the machine's. */
FILE *__wrap_fopen64(const char *path, const char *mode)
{
	struct host *h = this_host();

	if (h && !strcmp(path, "/proc/sys/kernel/random/boot_id"))
		return fmemopen(h->boot_id, strlen(h->boot_id), "r");
	return __real_fopen64(path, mode);
}

pid_t __real_fork(void);
pid_t __wrap_fork(void);

pid_t __wrap_fork(void)
{
	pid_t pid = __real_fork();

	sim_is_child |= pid == 0 && this_host();
	return pid;
}

ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags)
{
	(void)flags;
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = (uint8_t)chance();
	return (ssize_t)len;
}

int __wrap_isatty(int fd)
{
	(void)fd;
	return 0;
}

void __wrap__exit(int code)
{
	struct host *h = this_host();

	if (sim_is_child || !h)
		__real__exit(code);
	say("host %d: _exit(%d)", h->id, code);
	host_die(h, DEATH_KILL);
	abort();
}

/* ---- what is on the disk ---- */

static struct synced *file_of(ino_t inode, bool make)
{
	for (int i = 0; i < n_files; i++)
		if (files[i].inode == inode)
			return &files[i];
	if (!make)
		return NULL;
	if (n_files == FILES_MAX) /* those of generations that are gone */
		memmove(files, files + 1, sizeof(*files) * (size_t)--n_files);
	files[n_files].inode = inode;
	return &files[n_files++];
}

static bool read_meta(int fd, uint8_t meta[2][META_BYTES])
{
	return pread(fd, meta[0], META_BYTES, 0) == META_BYTES &&
	       pread(fd, meta[1], META_BYTES, PAGE) == META_BYTES;
}

/* Also LMDB's own, so no wrap: a symbol of the program goes before the C library's. */
__attribute__((visibility("default"))) int fdatasync(int fd)
{
	uint8_t meta[2][META_BYTES];
	struct stat s;

	if (!this_host() || fstat(fd, &s) || !S_ISREG(s.st_mode) || !read_meta(fd, meta))
		return 0;
	memcpy(file_of(s.st_ino, true)->meta, meta, sizeof(meta));
	return 0;
}

__attribute__((visibility("default"))) int fsync(int fd) { return fdatasync(fd); }

static void cut_file(int dir, const char *generation)
{
	char path[300];
	struct stat s;
	struct synced *f;

	snprintf(path, sizeof(path), "%s/data.mdb", generation);
	int fd = __real_openat64(dir, path, O_RDWR, 0);
	if (fd < 0)
		return;
	f = fstat(fd, &s) ? NULL : file_of(s.st_ino, false);
	for (int i = 0; i < 2 && f; i++)
		if (one_in(2) && pwrite(fd, f->meta[i], META_BYTES, i * PAGE) != META_BYTES)
			abort();
	__real_close(fd);
}

static void cut_power(struct host *h)
{
	int fd = __real_open64(h->dir, O_RDONLY | O_DIRECTORY, 0);
	DIR *d = fd < 0 ? NULL : __real_fdopendir(fd);

	for (struct dirent *e; d && (e = readdir(d));)
		if (!strncmp(e->d_name, "gen-", 4))
			cut_file(fd, e->d_name);
	if (d)
		closedir(d);
}

/* ---- LMDB ---- */

int __real_mdb_env_create(MDB_env **env);
void __real_mdb_env_close(MDB_env *env);
int __real_mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned flags, MDB_txn **txn);
int __real_mdb_txn_commit(MDB_txn *txn);
void __real_mdb_txn_abort(MDB_txn *txn);
int __wrap_mdb_env_create(MDB_env **env);
void __wrap_mdb_env_close(MDB_env *env);
int __wrap_mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned flags, MDB_txn **txn);
int __wrap_mdb_txn_commit(MDB_txn *txn);
void __wrap_mdb_txn_abort(MDB_txn *txn);

int __wrap_mdb_env_create(MDB_env **env)
{
	struct holdings *m = mine();

	sim_point();
	int rc = __real_mdb_env_create(env);
	if (!rc && m) {
		if (m->n_envs == ENVS_MAX)
			abort();
		m->envs[m->n_envs++] = *env;
	}
	return rc;
}

void __wrap_mdb_env_close(MDB_env *env)
{
	struct holdings *m = mine();

	for (int i = 0; m && i < m->n_envs; i++)
		if (m->envs[i] == env) {
			m->envs[i] = m->envs[--m->n_envs];
			break;
		}
	__real_mdb_env_close(env);
}

int __wrap_mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned flags, MDB_txn **txn)
{
	struct holdings *m = mine();

	sim_point();
	int rc = __real_mdb_txn_begin(env, parent, flags, txn);
	if (!rc && m) {
		if (m->n_txns == TXNS_MAX)
			abort();
		m->txns[m->n_txns++] = *txn;
	}
	return rc;
}

static void forget_txn(MDB_txn *txn)
{
	struct holdings *m = mine();

	for (int i = 0; m && i < m->n_txns; i++)
		if (m->txns[i] == txn) {
			m->txns[i] = m->txns[--m->n_txns];
			return;
		}
}

int __wrap_mdb_txn_commit(MDB_txn *txn)
{
	sim_point();
	forget_txn(txn);
	int rc = __real_mdb_txn_commit(txn);
	sim_point();
	return rc;
}

void __wrap_mdb_txn_abort(MDB_txn *txn)
{
	forget_txn(txn);
	__real_mdb_txn_abort(txn);
}

/* ---- life ---- */

void disk_died(struct host *h, enum death how)
{
	struct holdings *m = &held[h->id];

	for (int i = 0; i < m->n_txns; i++)
		__real_mdb_txn_abort(m->txns[i]);
	for (int i = 0; i < m->n_envs; i++)
		__real_mdb_env_close(m->envs[i]);
	for (int i = 0; i < m->n_fds; i++)
		__real_close(m->fds[i]);
	*m = (struct holdings){ 0 };
	if (how == DEATH_POWER)
		cut_power(h);
}

static void remove_all(const char *path, bool self)
{
	char sub[400];
	DIR *d = opendir(path);

	for (struct dirent *e; d && (e = readdir(d));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(sub, sizeof(sub), "%s/%s", path, e->d_name);
		if (e->d_type == DT_DIR)
			remove_all(sub, true);
		else
			unlink(sub);
	}
	if (d)
		closedir(d);
	if (self)
		rmdir(path);
}

void disk_wipe(struct host *h) { remove_all(h->dir, true); }

void disk_start(void)
{
	const char *where = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";

	snprintf(root, sizeof(root), "%s/sidenote-simulation-%d", where, (int)getpid());
	if (mkdir(root, 0700) && errno != EEXIST) {
		perror(root);
		exit(1);
	}
	for (int i = 0; i < HOSTS_MAX; i++)
		snprintf(hosts[i].dir, sizeof(hosts[i].dir), "%s/host%d", root, i);
}

void disk_reset(void)
{
	for (int i = 0; i < HOSTS_MAX; i++)
		disk_died(&hosts[i], DEATH_KILL);
	remove_all(root, false);
	n_files = 0;
}

void disk_end(void) { remove_all(root, true); }
