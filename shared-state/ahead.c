/*
 * ahead.c - the pages of a batch, asked for together where the file does not fit
 * in memory.
 *
 * Each key of a batch is in another page.  One after the other they cost the
 * disk's latency each; and a page fault reads the pages around, too, 128 KiB
 * or more, which are used by nobody and throw out what is.
 */
#include "state_private.h"

#include "memory.h"

#include <fcntl.h>
#include <sys/stat.h>

static bool open_pages(struct state *st)
{
	struct stat s;
	int fd;
	if (mdb_env_get_fd(st->env, &fd) || fstat(fd, &s) ||
	    !memory_is_short(st->memory, (uint64_t)s.st_size))
		return false;
	fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return fd >= 0 && !pages_open(&st->ahead, fd);
}

bool state_expects(struct state_txn *t)
{
	struct state *st = t->st;
	t->asked = 0;
	return (st->ahead.map || open_pages(st)) && !commit_read(&t->before, &st->ahead) &&
	       !tree_open(&t->before_records, &st->ahead, &t->before, "records");
}

void state_expect(struct state_txn *t, const void *skey, size_t skey_len)
{
	const struct pages *f = &t->st->ahead;
	uint64_t page;
	if (tree_leaf(&t->st->ahead, &t->before, &t->before_records,
		      (struct span){ skey, skey_len }, &page) ||
	    page == t->asked)
		return;
	posix_fadvise(f->fd, (off_t)(page * f->page_bytes), (off_t)f->page_bytes,
		      POSIX_FADV_WILLNEED);
	t->asked = page;
}
