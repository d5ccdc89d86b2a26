/*
 * no_lease.c - in place of lease.c: promises leases and holds none.  The torture
 * must find readers wrong with it, or it would find nothing at all.
 */
#include "lease.h"

int64_t lease_clock_ms(void) { return 0; }

int lease_begin(struct lease *l, MDB_env *env, int64_t lease_ms)
{
	l->env = env;
	l->lease_ms = lease_ms;
	return 0;
}

int lease_rotate(struct lease *l)
{
	(void)l;
	return 0;
}

int64_t lease_wait_ms(const struct lease *l)
{
	(void)l;
	return 0;
}

void lease_end(struct lease *l) { (void)l; }
