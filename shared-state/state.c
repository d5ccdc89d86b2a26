/*
 * state.c - an open generation: open, create, make current, durability, close.
 * batch.c writes, view.c reads.
 */
#include "state_private.h"

#include "codes.h"
#include "fault.h"
#include "memory.h"
#include "meta.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	MAX_DATABASES = 8,
	MAX_READERS = 1024, /* views of this process; applications take no slot */
	OPEN_TRIES = 50,
	OPEN_RETRY_MS = 20,
};

/* Address space only; a map never has to grow. */
#if defined(__SANITIZE_THREAD__)
#define MAP_BYTES ((size_t)1 << 34) /* ThreadSanitizer leaves programs little of it */
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MAP_BYTES ((size_t)1 << 34)
#endif
#endif
#ifndef MAP_BYTES
#define MAP_BYTES ((size_t)1 << 40)
#endif

const char *state_strerror(int rc) { return code_name(rc); }
const char *state_engine(void) { return mdb_version(NULL, NULL, NULL); }

/* ---- the environment ---- */

static int open_env_once(MDB_env **out, const char *path, unsigned flags)
{
	MDB_env *env = NULL;
	MDB_txn *t;
	int rc = mdb_env_create(&env);
	if (rc)
		return rc;
	if ((rc = mdb_env_set_maxdbs(env, MAX_DATABASES)) ||
	    (rc = mdb_env_set_maxreaders(env, MAX_READERS)) ||
	    (rc = mdb_env_set_mapsize(env, MAP_BYTES)) ||
	    (rc = mdb_env_open(env, path, flags | MDB_NOMETASYNC | MDB_NOTLS, 0640)))
		goto out;
	/* the first read transaction claims this process id in lock.mdb */
	rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &t);
	if (!rc)
		mdb_txn_abort(t);
out:
	if (rc) {
		mdb_env_close(env);
		return rc;
	}
	*out = env;
	return 0;
}

/*
 * Some failures pass: another LMDB (a tool, 0.9.26 to .31 with its destroyed
 * mutexes) is just closing lock.mdb.
 */
static int open_env_patiently(MDB_env **out, const char *path, unsigned flags)
{
	int rc;
	for (int i = 0; i < OPEN_TRIES; i++) {
		rc = open_env_once(out, path, flags);
		if (rc != MDB_VERSION_MISMATCH && rc != EINVAL && rc != EAGAIN)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = OPEN_RETRY_MS * 1000000L }, NULL);
	}
	return code_from_mdb(rc);
}

/*
 * Open twice: a dead writer with this process's id (1, in a container) may have
 * left reader slots, which only closing an environment of the same id clears.
 */
static int open_env(MDB_env **out, const char *path, unsigned flags)
{
	MDB_env *env;
	int dead;
	int rc = open_env_patiently(&env, path, flags);
	if (rc)
		return rc;
	mdb_env_close(env);
	rc = open_env_patiently(&env, path, flags);
	if (rc)
		return rc;
	mdb_reader_check(env, &dead);
	*out = env;
	return 0;
}

static int say_open_error(int rc, const char *path, char *err, size_t err_len)
{
	if (rc == MDB_VERSION_MISMATCH)
		return code_say(
			rc, err, err_len,
			"%s/lock.mdb is in use by a program with another LMDB version: stop "
			"it (readers must open with MDB_NOLOCK)",
			path);
	if (rc == -EAGAIN)
		return code_say(rc, err, err_len,
				"%s/lock.mdb is in use by a process with the same pid in another "
				"pid namespace: stop it (readers must open with MDB_NOLOCK)",
				path);
	return code_say(rc, err, err_len, "%s: cannot open: %s", path, code_name(rc));
}

/* ---- a struct state around it ---- */

static void boot_id(char out[UUID_TEXT_BYTES])
{
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
	if (!f || !fgets(out, UUID_TEXT_BYTES, f))
		out[0] = 0; /* unknown: compares unequal, and then the wall clock alone counts */
	if (f)
		fclose(f);
}

/* A random one (version 4). */
static int make_uuid(char out[UUID_TEXT_BYTES])
{
	uint8_t b[16];
	if (getrandom(b, sizeof(b), 0) != sizeof(b)) /* so few come whole, or not at all */
		return -errno;
	b[6] = (b[6] & 0x0f) | 0x40;
	b[8] = (b[8] & 0x3f) | 0x80;
	for (int i = 0; i < 16; i++) {
		const char *dash = i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "";
		out += sprintf(out, "%s%02x", dash, b[i]);
	}
	return 0;
}

/* An empty struct for directory `d`; NULL: out of memory. */
static struct state *new_state(struct state_dir *d, const struct state_identity *who,
			       const struct state_options *o)
{
	struct state *st = calloc(1, sizeof(*st));
	if (!st)
		return NULL;
	st->dir = d;
	pthread_mutex_init(&st->syncing, NULL); /* never fails for a plain one */
	st->lease_ms = o->lease_ms;
	st->memory = memory_bytes("");
	st->ahead.fd = -1;
	st->wants_waiting = o->waiting;
	st->cluster_id = strdup(who->cluster_id);
	boot_id(st->boot_id);
	if (!st->cluster_id) {
		free(st);
		return NULL;
	}
	return st;
}

static char *generation_path(const struct state *st)
{
	char *path;
	return asprintf(&path, "%s/%s", st->dir->path, st->generation) < 0 ? NULL : path;
}

void state_close(struct state *st)
{
	if (!st)
		return;
	lease_end(&st->lease);
	if (st->env)
		mdb_env_close(st->env);
	if (st->filling)
		st->dir->filling = -1;
	pages_close(&st->ahead);
	free(st->asked);
	pthread_mutex_destroy(&st->syncing);
	free(st->cluster_id);
	free(st->buf);
	free(st);
}

static int open_databases(struct state *st, MDB_txn *t, unsigned flags)
{
	int rc;
	if ((rc = mdb_dbi_open(t, "records", flags, &st->records)) ||
	    (rc = mdb_dbi_open(t, "journal", flags, &st->journal)) ||
	    (rc = mdb_dbi_open(t, "meta", flags, &st->meta)))
		return code_from_mdb(rc);
	MDB_stat s;
	rc = mdb_env_stat(st->env, &s);
	st->page_bytes = s.ms_psize;
	return code_from_mdb(rc);
}

/* ---- opening what is there ---- */

/* Compare one name; what is not known on either side fits. */
static int check_name(MDB_txn *t, MDB_dbi meta, const char *field, const char *want,
		      const char *path, char *err, size_t err_len)
{
	char have[META_TEXT_MAX];
	int rc = meta_get_text(t, meta, field, have, sizeof(have));
	if (rc)
		return code_say(-EBADMSG, err, err_len, "%s: meta has no usable %s: %s", path,
				field, code_name(rc));
	if (*have && *want && strcmp(have, want) != 0)
		return code_say(
			-EEXIST, err, err_len,
			"%s holds the state of %s '%s', not '%s': use another state.dir, or "
			"remove this one to fill it anew",
			path, field, have, want);
	return 0;
}

static int check_format(struct state *st, MDB_txn *t, const char *path, char *err, size_t err_len)
{
	int64_t format;
	int rc = meta_get_int(t, st->meta, META_FORMAT, &format);
	if (rc || format < 1)
		return code_say(-EBADMSG, err, err_len, "%s: meta has no usable format", path);
	if (format > STATE_FORMAT)
		return code_say(-ENOTSUP, err, err_len,
				"%s has format %lld, this program knows up to %d: use the newer "
				"sidenote, or remove the directory to fill it anew",
				path, (long long)format, STATE_FORMAT);
	return 0;
}

int64_t state_inode(const struct state *st)
{
	struct stat s;
	int fd;
	return mdb_env_get_fd(st->env, &fd) || fstat(fd, &s) ? 0 : (int64_t)s.st_ino;
}

/*
 * A copied file, on another host perhaps, is another state: with the uuid of the
 * original it would take what that one has published for its own doing, and its
 * late and coalesced journal for an exact one.
 */
static int check_copy(struct state *st, MDB_txn *t)
{
	int64_t stored, inode = state_inode(st);
	if (meta_get_int(t, st->meta, META_INODE, &stored) || !inode || stored == inode)
		return 0;
	st->copied = true; /* batch.c stores it with the first commit */
	return make_uuid(st->uuid);
}

/* Format, identity, lease. */
static int check_meta(struct state *st, MDB_txn *t, const struct state_identity *who,
		      const char *path, char *err, size_t err_len)
{
	int64_t lease_ms;
	int rc = check_format(st, t, path, err, err_len);
	if (!rc)
		rc = check_name(t, st->meta, META_NAME, who->name, path, err, err_len);
	if (!rc)
		rc = check_name(t, st->meta, META_TOPIC, who->topic, path, err, err_len);
	if (!rc)
		rc = check_name(t, st->meta, META_CLUSTER_ID, who->cluster_id, path, err, err_len);
	if (rc)
		return rc;
	if (meta_get_int(t, st->meta, META_LEASE_MS, &lease_ms) || lease_ms < 1 ||
	    meta_get_text(t, st->meta, META_UUID, st->uuid, sizeof(st->uuid)))
		return code_say(-EBADMSG, err, err_len, "%s: meta has no usable lease or uuid",
				path);
	if (lease_ms > st->lease_ms) /* readers may still go by it */
		st->lease_ms = lease_ms;
	return check_copy(st, t);
}

static int load(struct state *st, const struct state_identity *who, const char *path, char *err,
		size_t err_len)
{
	MDB_txn *t;
	int rc = code_from_mdb(mdb_txn_begin(st->env, NULL, MDB_RDONLY, &t));
	if (rc)
		return code_say(rc, err, err_len, "%s: cannot read: %s", path, code_name(rc));
	uint64_t txnid = mdb_txn_id(t);
	rc = open_databases(st, t, 0);
	if (rc == -ENOENT)
		rc = -EBADMSG; /* a database is missing */
	if (!rc)
		rc = waiting_load(st, t);
	if (rc)
		code_say(rc, err, err_len, "%s: not a state of sidenote: %s", path, code_name(rc));
	else
		rc = check_meta(st, t, who, path, err, err_len);
	mdb_txn_commit(t); /* keeps the database handles */
	atomic_store(&st->durable, txnid ? txnid - 1 : 0);
	return rc;
}

/*
 * What was read may be in the page cache only, and not even on its way to the
 * disk: if the last process ended because a sync had failed.  Where there is no
 * room for it, the first batch waits.
 */
static int settle(struct state *st, const char *path, char *err, size_t err_len)
{
	atomic_store(&st->doubtful, true);
	pthread_mutex_lock(&st->syncing);
	int rc = state_sync(st);
	pthread_mutex_unlock(&st->syncing);
	if (!rc || rc == -ENOSPC || rc == -EDQUOT)
		return 0;
	return code_say(rc, err, err_len, "%s/data.mdb: cannot be synced: %s", path, code_name(rc));
}

/* A crash right after a commit may leave the file short of pages that nobody needs. */
static int lengthen(struct state_dir *d, const char *generation, const char *file)
{
	int rc = generation_verify(d, generation);
	if (rc)
		return rc;
	int fd = openat(d->fd, file, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	uint64_t wanted;
	rc = generation_wanted_bytes(fd, &wanted);
	if (!rc && ftruncate(fd, (off_t)wanted))
		rc = -errno;
	close(fd);
	return rc;
}

static int check_file(struct state_dir *d, const char *generation, const char *path, char *err,
		      size_t err_len)
{
	char file[GENERATION_NAME_BYTES + sizeof("/data.mdb")];
	snprintf(file, sizeof(file), "%s/data.mdb", generation);
	int rc = generation_preflight(d->fd, file);
	bool is_short = rc == -ERANGE;
	if (is_short)
		rc = lengthen(d, generation, file);
	if (rc == -ENOENT) /* `current` points at it, so it was there */
		rc = -EBADMSG;
	if (rc)
		code_say(rc, err, err_len, "%s/data.mdb: %s%s", path,
			 rc == -EBADMSG ? "unreadable, it has to be filled anew: " : "",
			 rc != -EBADMSG ? code_name(rc)
			 : is_short     ? "truncated"
					: "empty, damaged or not of LMDB 0.9");
	return rc;
}

static int open_current(struct state *st, const struct state_identity *who, char *err,
			size_t err_len)
{
	int rc = generation_current(st->dir->fd, st->generation);
	if (rc)
		return code_say(rc, err, err_len, "%s: no current generation: %s", st->dir->path,
				code_name(rc));
	char *path = generation_path(st);
	if (!path)
		return code_say(-ENOMEM, err, err_len, "%s", code_name(-ENOMEM));

	rc = check_file(st->dir, st->generation, path, err, err_len);
	if (rc)
		goto out;
	rc = open_env(&st->env, path, 0);
	if (rc) {
		say_open_error(rc, path, err, err_len);
		goto out;
	}
	/* before anything else: from here on no page of a living reader is reused */
	FAULT_POINT("state.open");
	rc = lease_begin(&st->lease, st->env, st->lease_ms);
	if (rc) {
		code_say(rc, err, err_len, "%s: cannot take a lease: %s", path, code_name(rc));
		goto out;
	}
	rc = load(st, who, path, err, err_len);
	if (!rc)
		rc = settle(st, path, err, err_len);
	st->lease.lease_ms = st->lease_ms;
	st->waits = true;
	FAULT_POINT("state.opened");
out:
	free(path);
	return rc;
}

int state_open(struct state **out, struct state_dir *d, const struct state_identity *who,
	       const struct state_options *o, char *err, size_t err_len)
{
	struct state *st = new_state(d, who, o);
	if (!st)
		return code_say(-ENOMEM, err, err_len, "%s", code_name(-ENOMEM));
	int rc = open_current(st, who, err, err_len);
	if (rc) {
		state_close(st);
		return rc;
	}
	*out = st;
	return 0;
}

int state_dir_verify(struct state_dir *d, char *err, size_t err_len)
{
	char name[GENERATION_NAME_BYTES];
	int rc = generation_current(d->fd, name);
	if (rc)
		return code_say(rc, err, err_len, "%s: no current generation: %s", d->path,
				code_name(rc));
	rc = generation_verify(d, name);
	if (rc)
		code_say(rc, err, err_len, "%s/%s/data.mdb: %s", d->path, name, code_name(rc));
	return rc;
}

/* ---- durability ---- */

/* The newest commit whose meta page is written: any view may have seen it already. */
static int last_txnid(struct state *st, uint64_t *txnid)
{
	MDB_envinfo info;
	int rc = mdb_env_info(st->env, &info);
	if (!rc)
		*txnid = info.me_last_txnid;
	return code_from_mdb(rc);
}

/*
 * Both meta pages as they are, so that they are on their way to the disk again.
 * Whatever they lead to was synced before they were written for the first time.
 */
static int rewrite_meta(const struct state *st, int fd)
{
	size_t len = 2 * st->page_bytes;
	uint8_t *pages = malloc(len);
	if (!pages)
		return -ENOMEM;
	ssize_t n = pread(fd, pages, len, 0);
	if (n == (ssize_t)len)
		n = pwrite(fd, pages, len, 0);
	int rc = n < 0 ? -errno : n == (ssize_t)len ? 0 : -EIO;
	free(pages);
	return rc;
}

/*
 * A sync that failed once proves nothing when it succeeds later: the kernel may
 * have dropped what it could not write, and takes it for written.  Of commits that
 * have returned this can only be the newest meta page.  Without it on disk, the
 * second commit from here would overwrite pages of what is there.
 */
int state_sync(struct state *st)
{
	uint64_t last = 0; /* gcc 14 does not see that 0 means written */
	int fd, rc = last_txnid(st, &last);
	if (!rc)
		rc = code_from_mdb(mdb_env_get_fd(st->env, &fd));
	if (!rc && atomic_load(&st->doubtful))
		rc = rewrite_meta(st, fd);
	if (!rc && fdatasync(fd))
		rc = -errno;
	atomic_store(&st->doubtful, rc != 0);
	if (!rc)
		atomic_raise(&st->durable, last);
	return rc;
}

int state_make_durable(struct state *st, uint64_t txnid)
{
	int rc = atomic_load(&st->broken);
	if (rc || atomic_load(&st->durable) >= txnid)
		return rc;
	pthread_mutex_lock(&st->syncing);
	rc = atomic_load(&st->broken);
	if (!rc && atomic_load(&st->durable) < txnid) {
		FAULT_POINT("state.sync");
		rc = state_sync(st);
		FAULT_POINT("state.synced");
		if (rc)
			atomic_store(&st->broken, rc);
		else if (atomic_load(&st->durable) < txnid)
			rc = -EINVAL; /* there is no such commit */
	}
	pthread_mutex_unlock(&st->syncing);
	return rc;
}

/* ---- making a new one ---- */

static int write_first_meta(struct state *st, MDB_txn *t, const struct state_identity *who)
{
	int rc;
	if ((rc = meta_set_int(t, st->meta, META_FORMAT, STATE_FORMAT)) ||
	    (rc = meta_set_text(t, st->meta, META_UUID, st->uuid)) ||
	    (rc = meta_set_int(t, st->meta, META_INODE, state_inode(st))) ||
	    (rc = meta_set_text(t, st->meta, META_NAME, who->name)) ||
	    (rc = meta_set_text(t, st->meta, META_TOPIC, who->topic)) ||
	    (rc = meta_set_text(t, st->meta, META_CLUSTER_ID, who->cluster_id)) ||
	    (rc = meta_set_int(t, st->meta, META_LEASE_MS, st->lease_ms)))
		return rc;
	return meta_set_text(t, st->meta, META_BOOT_ID, st->boot_id);
}

static int write_first(struct state *st, const struct state_identity *who)
{
	MDB_txn *t;
	int rc = code_from_mdb(mdb_txn_begin(st->env, NULL, 0, &t));
	if (rc)
		return rc;
	rc = open_databases(st, t, MDB_CREATE);
	if (!rc)
		rc = write_first_meta(st, t, who);
	if (rc) {
		mdb_txn_abort(t);
		return rc;
	}
	return code_from_mdb(mdb_txn_commit(t));
}

/* mdb_env_open() obeys the umask; readers come with the group. */
static int open_to_group(const struct state *st)
{
	char file[GENERATION_NAME_BYTES + sizeof("/data.mdb")];
	snprintf(file, sizeof(file), "%s/data.mdb", st->generation);
	return fchmodat(st->dir->fd, file, 0640, 0) ? -errno : 0;
}

static int create(struct state *st, const struct state_identity *who)
{
	int rc = make_uuid(st->uuid);
	if (!rc)
		rc = generation_make(st->dir, st->generation);
	if (rc)
		return rc;
	char *path = generation_path(st);
	if (!path)
		return -ENOMEM;
	FAULT_POINT("generation.made");
	st->filling = st->appending = true;
	st->dir->filling = generation_number(st->generation);
	rc = open_env(&st->env, path, MDB_NOSYNC);
	free(path);
	if (!rc)
		rc = open_to_group(st);
	if (!rc)
		rc = write_first(st, who);
	return rc;
}

int state_create(struct state **out, struct state_dir *d, const struct state_identity *who,
		 const struct state_options *o, char *err, size_t err_len)
{
	struct state *st = new_state(d, who, o);
	if (!st)
		return code_say(-ENOMEM, err, err_len, "%s", code_name(-ENOMEM));
	int rc = create(st, who);
	if (rc) {
		code_say(rc, err, err_len, "%s: cannot make a new generation: %s", d->path,
			 code_name(rc));
		state_close(st);
		return rc;
	}
	*out = st;
	return 0;
}

static int make_current(struct state *st)
{
	uint64_t last = 0; /* gcc 14 does not see that 0 means written */
	int rc = last_txnid(st, &last);
	if (!rc)
		rc = code_from_mdb(mdb_env_sync(st->env, 1));
	if (!rc)
		rc = code_from_mdb(mdb_env_set_flags(st->env, MDB_NOSYNC, 0));
	if (rc)
		return rc;
	FAULT_POINT("generation.synced");
	atomic_raise(&st->durable, last);
	state_lengthen_file(st); /* whoever made the last commit */
	/* the first lease, before the first reader can come */
	rc = lease_begin(&st->lease, st->env, st->lease_ms);
	FAULT_POINT("generation.leased");
	if (!rc)
		rc = generation_switch(st->dir, st->generation);
	return rc;
}

int state_make_current(struct state *st, char *err, size_t err_len)
{
	if (!st->filling)
		return 0;
	int rc = make_current(st);
	if (rc) {
		lease_end(&st->lease);
		return code_say(rc, err, err_len, "%s/%s: cannot make it current: %s",
				st->dir->path, st->generation, code_name(rc));
	}
	st->filling = st->appending = false;
	st->dir->filling = -1;
	return 0;
}

/* ---- small questions ---- */

int64_t state_lease_wait_ms(struct state *st)
{
	/* a generation that was filled here has had no other writer */
	return st->waits ? lease_wait_ms(&st->lease) : 0;
}

const char *state_uuid(const struct state *st) { return st->uuid; }
int64_t state_lease_ms(const struct state *st) { return st->lease_ms; }
