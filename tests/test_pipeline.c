/* What the stages know together of the committed offsets. */
#include "harness.h"
#include "pipeline.h"

static void test_offsets_that_are_gone_are_no_first_start_even_before_the_next_batch(void **state)
{
	(void)state;
	char topic[] = "t.changes";
	const struct config c = { .notifications_topic = topic };
	struct state_partition row = STATE_PARTITION_NEW;
	const bool caught_up = true;
	struct pipeline p;
	struct standing s;
	int where;

	assert_int_equal(pipeline_init(&p, &c, 1), 0);
	row.applied = 10;
	row.published = -1; /* the tail has not stored any yet */
	pipeline_applied(&p, &row, &caught_up, false);
	pipeline_published(&p, 0, (struct position){ 10, 0 }, "me", -1);
	pipeline_applied(&p, &row, &caught_up, false);
	pipeline_published(&p, 0, (struct position){ -1, 0 }, "", -1);
	pipeline_standings(&p, &s);
	assert_int_equal(decide_fitness(&s, 1, "me", false, &where), UNFIT_LOST);
	pipeline_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			test_offsets_that_are_gone_are_no_first_start_even_before_the_next_batch),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
