#include "harness.h"
#include "lease.h"

#include <lmdb.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { LEASE_MS = 40, ROUNDS = 200 };

static MDB_env *open_env(const char *dir)
{
	MDB_env *env;

	assert_int_equal(mdb_env_create(&env), 0);
	assert_int_equal(mdb_env_open(env, dir, MDB_NOSYNC | MDB_NOTLS, 0600), 0);
	return env;
}

static void pause_ms(int ms) { nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000L }, NULL); }

/* Whoever began to read within the last lease began after the oldest that is held. */
static void test_the_oldest_that_is_held_is_at_least_a_lease_old(void **state)
{
	MDB_env *env = open_env(*state);
	struct lease l;
	int dropped = 0;

	assert_int_equal(lease_begin(&l, env, LEASE_MS), 0);
	while (lease_wait_ms(&l) > 0) {
		assert_int_equal(lease_rotate(&l), 0);
		pause_ms(1);
	}
	for (int i = 0; i < ROUNDS; i++) {
		const MDB_txn *oldest = l.held[0].txn;
		assert_int_equal(lease_rotate(&l), 0);
		assert_in_range(l.n, 1, LEASE_HELD_MAX);
		assert_true(l.held[0].begun_ms <= lease_clock_ms() - LEASE_MS);
		dropped += l.held[0].txn != oldest;
		pause_ms(1);
	}
	assert_true(dropped > 2);
	lease_end(&l);
	mdb_env_close(env);
}

static void test_a_lease_of_a_millisecond_holds_few(void **state)
{
	MDB_env *env = open_env(*state);
	struct lease l;

	assert_int_equal(lease_begin(&l, env, 1), 0);
	for (int i = 0; i < ROUNDS * 100; i++) {
		assert_int_equal(lease_rotate(&l), 0);
		assert_in_range(l.n, 1, LEASE_HELD_MAX);
	}
	lease_end(&l);
	lease_end(&l);
	assert_int_equal(l.n, 0);
	mdb_env_close(env);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with_dir(test_the_oldest_that_is_held_is_at_least_a_lease_old),
		test_with_dir(test_a_lease_of_a_millisecond_holds_few),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
