#include "lease.h"

#include "codes.h"

#include <string.h>
#include <time.h>

int64_t lease_clock_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Begin a transaction and note a time that is not before its beginning. */
static int take(struct lease *l)
{
	MDB_txn *t;
	int rc = mdb_txn_begin(l->env, NULL, MDB_RDONLY, &t);
	if (rc)
		return code_from_mdb(rc);
	l->held[l->n++] = (struct lease_held){ t, lease_clock_ms() + 1 };
	return 0;
}

/* Let go what the next one has replaced for a full lease: rule 2 of lease.h. */
static void drop(struct lease *l)
{
	while (l->n > 1 && lease_clock_ms() - l->held[1].begun_ms >= l->lease_ms) {
		mdb_txn_abort(l->held[0].txn);
		memmove(l->held, l->held + 1, (size_t)--l->n * sizeof(*l->held));
	}
}

int lease_begin(struct lease *l, MDB_env *env, int64_t lease_ms)
{
	*l = (struct lease){ .env = env, .lease_ms = lease_ms };
	int rc = take(l);
	if (!rc)
		l->first_ms = l->held[0].begun_ms;
	return rc;
}

int lease_rotate(struct lease *l)
{
	int64_t step = (l->lease_ms + LEASE_STEPS - 1) / LEASE_STEPS;
	drop(l);
	if (l->n == LEASE_HELD_MAX || lease_clock_ms() - l->held[l->n - 1].begun_ms < step)
		return 0;
	return take(l);
}

int64_t lease_wait_ms(const struct lease *l)
{
	int64_t left = l->first_ms + l->lease_ms - lease_clock_ms();
	return left > 0 ? left : 0;
}

void lease_end(struct lease *l)
{
	while (l->n)
		mdb_txn_abort(l->held[--l->n].txn);
}
