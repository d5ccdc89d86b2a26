/* How long is it until a moment of a wall clock that somebody sets meanwhile? */
#include "steady.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <threads.h>
#include <time.h>
#include <cmocka.h>

#define S    1000000000LL
#define HOUR (3600 * S)
#define WALL (1700000000LL * S) /* what the wall clock shows when the steady one shows 0 */

static void test_a_clock_that_nobody_sets(void **state)
{
	struct steady s = { 0 };
	(void)state;

	steady_note(&s, WALL + 5 * S, 5 * S);
	assert_int_equal(steady_left(&s, WALL + 8 * S, 5 * S), 3 * S);
	assert_int_equal(steady_left(&s, WALL + 4 * S, 5 * S), -S);
	steady_note(&s, WALL + 105 * S + S / 10, 105 * S); /* a clock that is slewed */
	assert_int_equal(steady_left(&s, WALL + 108 * S, 105 * S), 29 * S / 10);
}

/* By `jump` after 5 s; a wait of 3 s that began before it, one that begins after it, and both over. */
static void set_by(int64_t jump)
{
	struct steady s = { 0 };

	steady_note(&s, WALL + 5 * S, 5 * S);
	steady_note(&s, WALL + 6 * S + jump, 6 * S);
	assert_int_equal(steady_left(&s, WALL + 8 * S, 6 * S), 2 * S);
	assert_int_equal(steady_left(&s, WALL + jump + 9 * S, 6 * S), 3 * S);
	assert_int_equal(steady_left(&s, WALL + 8 * S, 9 * S), -S);
	assert_int_equal(steady_left(&s, WALL + jump + 9 * S, 10 * S), -S);
}

static void test_an_hour_back_and_forth_changes_no_wait(void **state)
{
	(void)state;
	set_by(-HOUR);
	set_by(HOUR);
	set_by(24 * HOUR);
}

static void test_what_was_before_is_forgotten(void **state)
{
	struct steady s = { 0 };
	(void)state;

	steady_note(&s, WALL + 5 * S, 5 * S);
	steady_note(&s, WALL - 60 * S + 6 * S, 6 * S);
	/* a minute from now is the same moment as now, before the minute that was taken away */
	assert_int_equal(steady_left(&s, WALL + 100 * S, 100 * S), 60 * S);
}

static void test_what_is_too_little_to_tell_apart_is_followed(void **state)
{
	struct steady s = { 0 };
	(void)state;

	/* by 3 s: a wait of 3 s that begins afterwards must not be taken for one that is over */
	steady_note(&s, WALL + 5 * S, 5 * S);
	steady_note(&s, WALL + 9 * S, 6 * S);
	assert_int_equal(steady_left(&s, WALL + 12 * S, 6 * S), 3 * S);
}

static int64_t ns(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return t.tv_sec * S + t.tv_nsec;
}

static void test_the_call_times_out_no_earlier_than_it_should(void **state)
{
	int64_t began = ns(CLOCK_MONOTONIC), until = ns(CLOCK_REALTIME) + 30 * S / 1000;
	struct timespec t = { until / S, until % S };
	cnd_t c;
	mtx_t m;
	int rc;
	(void)state;

	cnd_init(&c);
	mtx_init(&m, mtx_plain);
	mtx_lock(&m);
	while ((rc = cnd_timedwait(&c, &m, &t)) == thrd_success)
		;
	assert_int_equal(rc, thrd_timedout);
	assert_true(ns(CLOCK_MONOTONIC) - began >= 30 * S / 1000);
	assert_int_equal(cnd_timedwait(&c, &m, &t), thrd_timedout); /* over already */
	mtx_unlock(&m);
	cnd_destroy(&c);
	mtx_destroy(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_clock_that_nobody_sets),
		cmocka_unit_test(test_an_hour_back_and_forth_changes_no_wait),
		cmocka_unit_test(test_what_was_before_is_forgotten),
		cmocka_unit_test(test_what_is_too_little_to_tell_apart_is_followed),
		cmocka_unit_test(test_the_call_times_out_no_earlier_than_it_should),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
