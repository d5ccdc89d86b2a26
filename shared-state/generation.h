/*
 * generation.h - the state directory.
 *
 *   <dir>/              2750, group: the readers
 *   <dir>/writer.lock   0600, flock: one writer
 *   <dir>/gen-<n>/      2750, one LMDB environment each: data.mdb 0640, lock.mdb 0600
 *   <dir>/current       relative link to the generation that readers open
 *
 * A generation is never rewritten in place.  A new one is filled beside it,
 * and then:
 *   1. its data is synced, then its directory;
 *   2. `current.new` is made as a link to it;
 *   3. <dir> is synced: not every file system writes names in the order in which
 *      they were made, and the rename must not come before what it leads to;
 *   4. `current.new` is renamed over `current`;
 *   5. <dir> is synced.
 * A crash before 4 leaves the old generation current, after 5 the new one, in
 * between one of them; the other is swept away later, when 5 has been done.
 * Readers that have the old file open keep it.
 *
 * lock.mdb is opened by LMDB alone: closing any other descriptor of it would
 * drop the process's fcntl locks.
 *
 * Errors:  0 or -errno, with one line in err where there is one.
 * Threads: one.
 */
#ifndef GENERATION_H
#define GENERATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct state_dir {
	int fd;      /* the directory */
	int lock_fd; /* writer.lock, held */
	char *path;
	int64_t filling; /* number of a generation that is being made; -1: none */
};

enum { GENERATION_NAME_BYTES = 32 };

/** Name of the generation that `current` in directory `dirfd` points to; -ENOENT. */
int generation_current(int dirfd, char name[GENERATION_NAME_BYTES]);
/** The n of "gen-<n>", or -1. */
int64_t generation_number(const char *name);
/** Make the next generation's directory, empty but for lock.mdb. */
int generation_make(struct state_dir *d, char name[GENERATION_NAME_BYTES]);
/** Steps 1 (directory part) to 5 above. */
int generation_switch(struct state_dir *d, const char *name);

/*
 * Look at a data file before it is mapped: the first access behind the end of a
 * truncated one would kill the process, and LMDB opens it all the same.
 *
 * 0; -ENOENT: absent or empty; -EBADMSG: not an LMDB 0.9 file of this machine,
 * or a meta page is damaged; -ERANGE: shorter than the meta pages say.  That is
 * damage, or the last commit freed its own last pages unwritten and the
 * writer was killed before it could lengthen the file: generation_verify() tells.
 */
int generation_check(int fd);
/** The same by name. */
int generation_preflight(int dirfd, const char *path);
/** Bytes that the newer of the two meta pages wants the file to have. */
int generation_wanted_bytes(int fd, uint64_t *bytes);

/**
 * Read every page that is in use and every checksum, in a child process which
 * may die of it.  0 or -EBADMSG; another code: it could not be done (-ENOMEM, say).
 * Takes as long as reading the file does.
 */
int generation_verify(const struct state_dir *d, const char *name);

#endif
