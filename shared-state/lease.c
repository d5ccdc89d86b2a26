#include "lease.h"

#include "codes.h"

#include <stddef.h>
#include <time.h>

int64_t lease_clock_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Begin a transaction and note a time that is not before its beginning. */
static int renew(struct lease *l)
{
	MDB_txn *t;
	int rc = mdb_txn_begin(l->env, NULL, MDB_RDONLY, &t);
	if (rc)
		return code_from_mdb(rc);
	if (l->older)
		mdb_txn_abort(l->older);
	l->older = l->newer;
	l->newer = t;
	l->rotated_ms = lease_clock_ms() + 1;
	return 0;
}

int lease_begin(struct lease *l, MDB_env *env, int64_t lease_ms)
{
	*l = (struct lease){ .env = env, .lease_ms = lease_ms };
	return renew(l);
}

int lease_rotate(struct lease *l)
{
	if (lease_clock_ms() - l->rotated_ms < l->lease_ms)
		return 0;
	return renew(l);
}

int64_t lease_wait_ms(const struct lease *l)
{
	if (l->older) /* rotated: a full lease has passed */
		return 0;
	int64_t left = l->rotated_ms + l->lease_ms - lease_clock_ms();
	return left > 0 ? left : 0;
}

void lease_end(struct lease *l)
{
	if (l->older)
		mdb_txn_abort(l->older);
	if (l->newer)
		mdb_txn_abort(l->newer);
	l->older = l->newer = NULL;
}
