/* Which record to ask for next: against a cleaner that may stand at any point of a pass. */
#include "harness.h"
#include "probe.h"

enum { PAIRS = 400, CASES = 2000 };

/*
 * The cleaner of a replica: of what was superseded before `end` everything below
 * `swapped` is gone, and of what was superseded before `last_end` (the pass
 * before) everything.  That is what Kafka's does, segment by segment.
 */
struct cleaner {
	int64_t last_end, end, swapped;
	int64_t aged; /* tombstones below it are gone, superseded or not */
};

static bool is_gone(const struct cleaner *c, const struct state_pair *v)
{
	if (v->tombstone && v->old_offset < c->aged)
		return true;
	return v->offset < c->last_end || (v->offset < c->end && v->old_offset < c->swapped);
}

static unsigned next_random(unsigned *seed) { return (*seed = *seed * 1103515245 + 12345) >> 8; }

/* Offsets 0, 1, ... of keys by chance; each but the first of its key supersedes one. */
static size_t make_pairs(struct state_pair *v, unsigned *seed)
{
	int64_t latest[50];
	bool tombstone[50] = { false };
	size_t n = 0, keys = 1 + next_random(seed) % 50;
	unsigned deletes = next_random(seed) % 2 ? next_random(seed) % 100 : 0; /* percent */

	memset(latest, -1, sizeof(latest));
	for (int64_t s = 0; n < PAIRS; s++) {
		int64_t *r = &latest[next_random(seed) % keys];
		if (*r >= 0)
			v[n++] = (struct state_pair){ .old_offset = *r,
						      .offset = s,
						      .tombstone = tombstone[r - latest] };
		tombstone[r - latest] = next_random(seed) % 100 < deletes;
		*r = s;
	}
	return n;
}

/* Asks until it is stuck or done; how many of the leading pairs it takes for gone. */
static size_t find(const struct cleaner *c, const struct state_pair *v, size_t n, int *asked)
{
	struct probe p = { 0 };
	size_t known = 0;
	bool stuck = false;

	for (*asked = 0; known < n && !stuck; ++*asked) {
		size_t i = probe_choose(&p, v + known, n - known);
		known += probe_learn(&p, v + known, i, is_gone(c, &v[known + i]), &stuck);
		assert_true(*asked < 10000);
	}
	return known;
}

static void test_exactly_the_leading_pairs_that_are_gone_are_found(void **state)
{
	static struct state_pair v[PAIRS];
	unsigned seed = 1;

	(void)state;
	for (int i = 0; i < CASES; i++) {
		size_t n = make_pairs(v, &seed), expected = 0;
		int64_t end = v[n - 1].offset + 2;
		struct cleaner c = { .end = next_random(&seed) % end };
		int asked;
		c.last_end = next_random(&seed) % (c.end + 1);
		c.swapped = next_random(&seed) % end;
		c.aged = next_random(&seed) % 3 ? next_random(&seed) % end : 0;
		while (expected < n && is_gone(&c, &v[expected]))
			expected++;
		assert_int_equal(find(&c, v, n, &asked), expected);
	}
}

static void test_a_finished_pass_is_found_with_few_questions(void **state)
{
	static struct state_pair v[PAIRS];
	unsigned seed = 7;

	(void)state;
	for (int i = 0; i < 100; i++) {
		size_t n = make_pairs(v, &seed);
		struct cleaner c = { .last_end = v[n - 1].offset + 1 };
		int asked;
		assert_int_equal(find(&c, v, n, &asked), n);
		assert_true(asked < 80);
	}
}

static void test_where_the_first_is_still_there_it_stops_asking_at_once(void **state)
{
	static struct state_pair v[PAIRS];
	const struct cleaner nothing = { 0 };
	unsigned seed = 3;
	int asked;

	(void)state;
	size_t n = make_pairs(v, &seed);
	assert_int_equal(find(&nothing, v, n, &asked), 0);
	assert_int_equal(asked, 1);
}

static void test_what_was_there_tells_of_what_is_later_in_both_only(void **state)
{
	(void)state;
	assert_true(probe_was_present(5, 9, 5, 9, false));
	assert_true(probe_was_present(5, 9, 6, 12, false));
	assert_false(probe_was_present(5, 9, 4, 12, false));
	assert_false(probe_was_present(5, 9, 6, 8, false));
	assert_true(
		probe_was_present(5, 9, 5, 9, true)); /* a tombstone was there only if asked for */
	assert_false(probe_was_present(5, 9, 6, 12, true));
}

static void test_a_tombstone_that_went_by_age_tells_of_no_other_record(void **state)
{
	const struct state_pair v[] = { { .old_offset = 5, .offset = 20 },
					{ .old_offset = 10, .offset = 21, .tombstone = true } };
	struct probe p = { .width = 2 };
	bool stuck;

	(void)state;
	assert_int_equal(probe_choose(&p, v, 2), 0);
	assert_int_equal(probe_learn(&p, v, 0, false, &stuck), 0);
	assert_true(stuck);
}

static void test_the_longer_a_log_rests_the_longer_between_two_questions(void **state)
{
	int64_t wait = 0;
	int asked = 0;

	(void)state;
	for (int64_t ms = 0; ms < 24 * 3600 * 1000; asked++)
		ms += wait = probe_wait_ms(wait, false);
	assert_true(asked < 24 * 12 + 20);
	assert_int_equal(probe_wait_ms(wait, true), PROBE_WAIT_MAX_MS);
	wait = 0;
	for (int i = 0; i < 10; i++)
		wait = probe_wait_ms(wait, true);
	assert_int_equal(wait, PROBE_WAIT_MAX_MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exactly_the_leading_pairs_that_are_gone_are_found),
		cmocka_unit_test(test_a_finished_pass_is_found_with_few_questions),
		cmocka_unit_test(test_where_the_first_is_still_there_it_stops_asking_at_once),
		cmocka_unit_test(test_what_was_there_tells_of_what_is_later_in_both_only),
		cmocka_unit_test(test_a_tombstone_that_went_by_age_tells_of_no_other_record),
		cmocka_unit_test(test_the_longer_a_log_rests_the_longer_between_two_questions),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
