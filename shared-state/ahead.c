/*
 * ahead.c - the pages of a batch, read together where the file does not fit in
 * memory.
 *
 * Each key of a batch is in another page.  One after the other they cost the
 * disk's latency each; and a page fault reads the pages around, too, 128 KiB
 * to 8 MiB as the system is set, which are used by nobody and throw out what
 * is.  So they are asked for first, and then read, each alone: what was asked
 * for may have been refused for want of memory.
 */
#include "state_private.h"

#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * A file and a map of its own, where a page is read without those around it.  In
 * LMDB's map that would have Linux (from 6.3 on) take every page for unused.
 */
static bool open_pages(struct state *st)
{
	char file[GENERATION_NAME_BYTES + sizeof("/data.mdb")];
	struct stat s;
	int fd;
	if (mdb_env_get_fd(st->env, &fd) || fstat(fd, &s) ||
	    !memory_is_short(st->memory, (uint64_t)s.st_size))
		return false;
	snprintf(file, sizeof(file), "%s/data.mdb", st->generation);
	fd = openat(st->dir->fd, file, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (generation_check(fd)) {
		close(fd);
		return false;
	}
	if (pages_open(&st->ahead, fd))
		return false;
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	madvise((void *)st->ahead.map, st->ahead.map_bytes, MADV_RANDOM);
	return true;
}

bool state_expects(struct state_txn *t)
{
	struct state *st = t->st;
	st->n_asked = 0;
	return (st->ahead.map || open_pages(st)) && !commit_read(&t->before, &st->ahead) &&
	       !tree_open(&t->before_records, &st->ahead, &t->before, "records");
}

static bool has_room(struct state *st)
{
	if (st->n_asked < st->cap_asked)
		return true;
	size_t cap = st->cap_asked ? 2 * st->cap_asked : 1024;
	uint64_t *grown = realloc(st->asked, cap * sizeof(*grown));
	if (!grown)
		return false;
	st->asked = grown;
	st->cap_asked = cap;
	return true;
}

void state_expect(struct state_txn *t, const void *skey, size_t skey_len)
{
	struct state *st = t->st;
	struct pages *f = &st->ahead;
	uint64_t page;
	if (tree_leaf(f, &t->before, &t->before_records, (struct span){ skey, skey_len }, &page) ||
	    (st->n_asked && st->asked[st->n_asked - 1] == page) || !has_room(st))
		return;
	posix_fadvise(f->fd, (off_t)(page * f->page_bytes), (off_t)f->page_bytes,
		      POSIX_FADV_WILLNEED);
	st->asked[st->n_asked++] = page;
}

void state_read_expected(struct state_txn *t)
{
	struct state *st = t->st;
	char byte;
	size_t n = st->n_asked;
	st->n_asked = 0;
	for (size_t i = 0; i < n; i++)
		if (pread(st->ahead.fd, &byte, 1, (off_t)(st->asked[i] * st->ahead.page_bytes)) < 0)
			return; /* whoever needs it will see */
}
