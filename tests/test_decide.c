#include "harness.h"
#include "config.h"
#include "decide.h"

static struct record put(int partition, const char *value)
{
	return (struct record){ .partition = partition,
				.timestamp_ms = 1000,
				.value = value,
				.value_len = strlen(value) };
}

static struct record tombstone(int partition)
{
	return (struct record){ .partition = partition,
				.timestamp_ms = 1000,
				.flags = RECORD_TOMBSTONE };
}

/* ---- transitions ---- */

static void test_a_put_on_an_absent_key_is_a_create(void **state)
{
	struct record now = put(0, "a");
	enum change_op op;
	(void)state;
	assert_int_equal(decide_transition(NULL, &now, false, &op), TRANSITION_TO);
	assert_int_equal(op, CHANGE_CREATE);
}

static void test_other_bytes_are_an_update_and_equal_bytes_are_not(void **state)
{
	struct record old = put(0, "a"), same = put(0, "a"), other = put(0, "b");
	enum change_op op;
	(void)state;
	assert_int_equal(decide_transition(&old, &other, false, &op), TRANSITION_TO);
	assert_int_equal(op, CHANGE_UPDATE);
	assert_int_equal(decide_transition(&old, &same, false, &op), TRANSITION_TO);
	assert_int_equal(op, CHANGE_UNCHANGED);
}

static void test_an_empty_value_is_a_value_and_not_a_tombstone(void **state)
{
	struct record old = put(0, "a"), empty = put(0, "");
	enum change_op op;
	(void)state;
	assert_int_equal(decide_transition(&old, &empty, false, &op), TRANSITION_TO);
	assert_int_equal(op, CHANGE_UPDATE);
	assert_int_equal(decide_transition(&empty, &empty, false, &op), TRANSITION_TO);
	assert_int_equal(op, CHANGE_UNCHANGED);
}

static void test_a_tombstone_deletes_what_is_there_and_nothing_else(void **state)
{
	struct record old = put(0, "a"), gone = tombstone(0);
	enum change_op op;
	(void)state;
	assert_int_equal(decide_transition(&old, &gone, false, &op), TRANSITION_TO);
	assert_int_equal(op, CHANGE_DELETE);
	assert_int_equal(decide_transition(NULL, &gone, false, &op), TRANSITION_NONE);
}

static void
test_a_tombstone_on_an_absent_key_tells_of_a_delete_where_history_is_missing(void **state)
{
	struct record gone = tombstone(0);
	enum change_op op;
	(void)state;
	assert_int_equal(decide_transition(NULL, &gone, true, &op), TRANSITION_TO);
	assert_int_equal(op, CHANGE_DELETE);
}

static void test_a_key_from_another_partition_has_moved(void **state)
{
	struct record old = put(0, "a"), now = put(1, "b"), gone = tombstone(1);
	enum change_op op;
	(void)state;
	assert_int_equal(decide_transition(&old, &now, false, &op), TRANSITION_MOVED);
	assert_int_equal(decide_transition(&old, &gone, false, &op), TRANSITION_MOVED);
}

static void test_of_two_partitions_the_later_timestamp_wins_then_the_higher_number(void **state)
{
	struct record old = put(1, "a"), now = put(0, "b");
	(void)state;
	assert_false(decide_moved_wins(&old, &now));
	assert_true(decide_moved_wins(&now, &old));
	now.timestamp_ms = 1001;
	assert_true(decide_moved_wins(&old, &now));
	assert_false(decide_moved_wins(&now, &old));
}

/* ---- positions and metadata ---- */

static void test_after_a_log_change_comes_the_next_offset(void **state)
{
	(void)state;
	struct position p = position_after(7, CHANGE_N_LOG), q = position_after(7, 3);
	assert_int_equal(p.offset, 8);
	assert_int_equal(p.n, 0);
	assert_int_equal(q.offset, 7);
	assert_int_equal(q.n, 4);
	assert_true(position_compare(q, p) < 0);
}

static void test_metadata_is_read_back_as_it_was_written(void **state)
{
	struct metadata m = { .by = "01234567-89ab-cdef-0123-456789abcdef",
			      .n = 4294967295u,
			      .gap_until = 9223372036854775807,
			      .c = 9223372036854775807 },
			back;
	char text[METADATA_MAX];
	(void)state;
	metadata_format(&m, text);
	metadata_parse(&back, text);
	assert_string_equal(back.by, m.by);
	assert_int_equal(back.n, m.n);
	assert_int_equal(back.gap_until, m.gap_until);
	assert_int_equal(back.c, m.c);
	m.gap_until = -1;
	metadata_format(&m, text);
	metadata_parse(&back, text);
	assert_int_equal(back.gap_until, -1);
	assert_int_equal(back.c, m.c);
	m.c = -1;
	metadata_format(&m, text);
	assert_null(strstr(text, " c="));
	metadata_parse(&back, text);
	assert_int_equal(back.c, -1);
}

static void test_foreign_metadata_names_nobody(void **state)
{
	static const char *const foreign[] = { NULL, "", "x", "side", "{\"by\":\"abc\"}" };
	struct metadata m;
	(void)state;
	for (size_t i = 0; i < sizeof(foreign) / sizeof(*foreign); i++) {
		metadata_parse(&m, foreign[i]);
		assert_string_equal(m.by, "");
		assert_int_equal(m.n, 0);
		assert_int_equal(m.gap_until, -1);
	}
}

static void test_metadata_of_a_later_version_is_not_guessed_at(void **state)
{
	static const char *const future[] = { "sidenote",
					      "sidenote2 by=ab n=1",
					      "sidenote by= n=3",
					      "sidenote by=ABC n=1",
					      "sidenote by=ab n=1 g=5 c=7 t=9",
					      "sidenote by=ab n=1 x=2 g=5",
					      "sidenote by=ab n=1 g=",
					      "sidenote by=ab n=1x",
					      "sidenote n=1 by=ab" };
	struct metadata m;
	(void)state;
	for (size_t i = 0; i < sizeof(future) / sizeof(*future); i++) {
		metadata_parse(&m, future[i]);
		assert_string_equal(m.by, METADATA_FUTURE);
		assert_int_equal(m.n, 0);
		assert_int_equal(m.gap_until, -1);
	}
}

/* ---- fitness ---- */

#define SELF  "aaaa"
#define OTHER "bbbb"

static struct standing standing(int64_t published, const char *by, int64_t whole)
{
	struct standing s = { .published = { published, 0 },
			      .gap_until = -1,
			      .was_published = published >= 0,
			      .base = { 10, 0 },
			      .start = 10,
			      .applied = 100,
			      .whole = whole,
			      .caught_up = true };
	snprintf(s.by, sizeof(s.by), "%s", by);
	return s;
}

static enum fitness fitness(struct standing s, bool empty)
{
	int where;
	return decide_fitness(&s, 1, SELF, empty, &where);
}

static void test_a_first_start_is_fit_once_it_has_caught_up(void **state)
{
	struct standing s = standing(-1, "", 50);
	(void)state;
	assert_int_equal(fitness(s, false), FIT);
	s.caught_up = false;
	assert_int_equal(fitness(s, false), UNFIT_BEHIND);
}

static void test_a_committed_offset_that_vanished_is_not_a_first_start(void **state)
{
	struct standing s = standing(-1, "", 50);
	(void)state;
	s.was_published = true;
	assert_int_equal(fitness(s, true), UNFIT_LOST);
}

static void test_a_committed_offset_that_went_back_is_not_gone_on_from(void **state)
{
	struct standing s = standing(20, SELF, 5);
	(void)state;
	s.seen = 20;
	assert_int_equal(fitness(s, true), FIT);
	s.seen = 21;
	assert_int_equal(fitness(s, true), UNFIT_BACK);
	/* a refill would publish it all again: to stop comes first */
	s.published.offset = 9;
	assert_int_equal(fitness(s, true), UNFIT_BACK);
}

static void test_who_published_last_is_fit_without_remark(void **state)
{
	(void)state;
	assert_int_equal(fitness(standing(20, SELF, 90), false), FIT);
	assert_int_equal(decide_gap_until(&(struct standing){ .published = { 20, 0 },
							      .whole = 90,
							      .by = SELF,
							      .gap_until = -1 },
					  SELF),
			 -1);
}

static void test_whoever_read_everything_from_P_on_is_fit(void **state)
{
	(void)state;
	assert_int_equal(fitness(standing(20, OTHER, 20), false), FIT);
	assert_int_equal(fitness(standing(20, OTHER, 21), false), UNFIT_NOT_WHOLE);
}

static void test_who_may_have_missed_versions_leads_only_alone_and_says_gap(void **state)
{
	struct standing s = standing(20, OTHER, 90);
	(void)state;
	assert_int_equal(fitness(s, true), FIT_AS_GAP);
	assert_int_equal(decide_gap_until(&s, SELF), 90);
}

static void test_a_gap_that_was_begun_is_ended_by_whoever_began_it(void **state)
{
	struct standing s = standing(40, SELF, 90);
	(void)state;
	s.gap_until = 90;
	assert_int_equal(decide_gap_until(&s, SELF), 90);
	s.published.offset = 90;
	assert_int_equal(decide_gap_until(&s, SELF), -1);
}

static void test_a_gap_whose_end_is_not_known_ends_where_this_state_is_whole(void **state)
{
	struct standing s = standing(40, SELF, 70);
	(void)state;
	s.gap_until = INT64_MAX;
	assert_int_equal(decide_gap_until(&s, SELF), 70);
	s.published.offset = 70;
	assert_int_equal(decide_gap_until(&s, SELF), -1);
}

/* ---- resuming ---- */

static bool may_resume(struct standing s) { return decide_may_resume(&s, 1, SELF); }

static void test_who_published_last_may_resume_before_it_has_caught_up(void **state)
{
	struct standing s = standing(20, SELF, 20);
	(void)state;
	assert_true(may_resume(s));
	s.caught_up = false;
	assert_true(may_resume(s));
	s.published.offset = s.applied;
	assert_true(may_resume(s));
}

static void test_nobody_resumes_what_another_has_published_or_nobody(void **state)
{
	struct standing s[2] = { standing(20, SELF, 5), standing(20, OTHER, 5) };
	(void)state;
	assert_false(may_resume(standing(20, OTHER, 5)));
	assert_false(may_resume(standing(20, "", 5)));
	assert_false(may_resume(standing(-1, "", 5)));
	assert_true(decide_may_resume(s, 1, SELF));
	assert_false(decide_may_resume(s, 2, SELF));
}

static void test_nobody_resumes_who_would_be_unfit_but_for_its_tail(void **state)
{
	struct standing s = standing(101, SELF, 5); /* after a power cut that was no promise kept */
	(void)state;
	assert_false(may_resume(s));
	assert_false(may_resume(standing(9, SELF, 5))); /* the journal begins at 10 */
	s = standing(20, SELF, 5);
	s.due = true;
	assert_false(may_resume(s));
	s = standing(20, SELF, 5);
	s.seen = 21;
	assert_false(may_resume(s));
	s = standing(-1, SELF, 5);
	s.was_published = true;
	assert_false(may_resume(s));
}

/* Another may have read what this state has missed, and a gap is for who is elected to tell. */
static void test_who_may_have_missed_versions_does_not_resume(void **state)
{
	struct standing s = standing(40, SELF, 90);
	(void)state;
	assert_false(may_resume(s));
	s.published.offset = 90;
	assert_true(may_resume(s));
}

static void test_a_tail_that_waits_for_its_journal_is_not_behind(void **state)
{
	struct standing s = standing(20, SELF, 5);
	(void)state;
	s.caught_up = false;
	assert_int_equal(fitness(s, true), UNFIT_BEHIND);
	s.waits = true;
	assert_int_equal(fitness(s, true), FIT);
}

static void test_a_gap_of_another_is_no_gap_for_who_is_whole(void **state)
{
	struct standing s = standing(40, OTHER, 30);
	(void)state;
	s.gap_until = 90;
	assert_int_equal(decide_gap_until(&s, SELF), -1);
}

static void test_a_journal_that_begins_after_P_needs_a_refill(void **state)
{
	(void)state;
	assert_int_equal(fitness(standing(9, SELF, 5), true), UNFIT_JOURNAL);
	assert_int_equal(fitness(standing(10, SELF, 5), true), FIT);
}

static void test_a_state_behind_P_waits(void **state)
{
	(void)state;
	assert_int_equal(fitness(standing(101, OTHER, 5), true), UNFIT_APPLIED);
	assert_int_equal(fitness(standing(100, OTHER, 5), true), FIT);
}

static void test_offsets_of_a_later_version_make_everybody_unfit(void **state)
{
	struct standing s = standing(20, METADATA_FUTURE, 5);
	(void)state;
	assert_int_equal(fitness(s, true), UNFIT_FUTURE);
	s.seen = 21; /* that they went back is one of the things that cannot be told */
	s.due = true;
	assert_int_equal(fitness(s, true), UNFIT_FUTURE);
}

static void test_a_due_round_makes_unfit(void **state)
{
	struct standing s = standing(20, SELF, 5);
	(void)state;
	s.due = true;
	assert_int_equal(fitness(s, true), UNFIT_ROUND);
}

static void test_the_worst_partition_decides_and_stopping_outweighs_waiting(void **state)
{
	struct standing s[3] = { standing(20, SELF, 5), standing(20, OTHER, 90),
				 standing(-1, "", 5) };
	int where;
	(void)state;
	assert_int_equal(decide_fitness(s, 2, SELF, true, &where), FIT_AS_GAP);
	assert_int_equal(where, 1);
	s[2].was_published = true;
	assert_int_equal(decide_fitness(s, 3, SELF, true, &where), UNFIT_LOST);
	assert_int_equal(where, 2);
}

static void test_publishing_begins_at_P_or_where_news_begin(void **state)
{
	struct standing s = standing(20, SELF, 5);
	(void)state;
	assert_int_equal(decide_publish_from(&s).offset, 20);
	s.published.offset = -1;
	assert_int_equal(decide_publish_from(&s).offset, 10);
}

/* ---- what is notified ---- */

static bool notified(enum change_op op, bool has_before, bool gap, int operations, bool unchanged)
{
	const struct change c = { .op = op, .has_before = has_before };
	const struct note_filter f = { operations, unchanged };
	return decide_notify(&c, gap, &f);
}

static void test_the_filter_decides_what_is_notified(void **state)
{
	const int ud = OPERATION_UPDATE | OPERATION_DELETE;
	(void)state;
	assert_true(notified(CHANGE_UPDATE, true, false, ud, false));
	assert_true(notified(CHANGE_DELETE, true, false, ud, false));
	assert_false(notified(CHANGE_CREATE, false, false, ud, false));
	assert_true(notified(CHANGE_CREATE, false, false, ud | OPERATION_CREATE, false));
	assert_false(notified(CHANGE_UNCHANGED, true, false, ud, false));
	assert_true(notified(CHANGE_UNCHANGED, true, false, ud, true));
	assert_false(notified(CHANGE_UPDATE, true, false, OPERATION_DELETE, false));
	assert_false(notified(CHANGE_DELETE, true, false, OPERATION_UPDATE, false));
}

static void test_in_a_gap_nothing_that_may_be_a_change_is_dropped(void **state)
{
	const int ud = OPERATION_UPDATE | OPERATION_DELETE;
	(void)state;
	assert_true(notified(CHANGE_CREATE, false, true, ud, false));
	assert_true(notified(CHANGE_UNCHANGED, true, true, ud, false));
	assert_true(notified(CHANGE_DELETE, false, true, ud, false));
	assert_false(notified(CHANGE_DELETE, false, false, ud, false));
}

/* ---- what may have been missed ---- */

static void test_what_was_read_without_a_hole_is_whole_whenever_it_was_read(void **state)
{
	const struct reading late = { .away_ms = 1000000 }, unknown = { .away_ms = -1 };

	(void)state;
	assert_true(decide_is_whole(&late, 0, 100));
	assert_true(decide_is_whole(&unknown, 0, 100));
}

static void test_a_tombstone_that_may_have_been_purged_shows_no_markers(void **state)
{
	struct reading r = { .holes = true, .was_running = true, .away_ms = 1000 };

	(void)state;
	assert_true(decide_has_markers(&r, 2000, 15000));
	r.away_ms = 1001;
	assert_false(decide_has_markers(&r, 2000, 15000));
	assert_true(decide_has_markers(&r, 86400000, 15000));
	r.away_ms = 15001;
	assert_false(decide_has_markers(&r, 86400000, 15000));
	r.away_ms = -1;
	assert_false(decide_has_markers(&r, 86400000, 15000));
	r.away_ms = 1;
	assert_false(decide_has_markers(&r, 0, 15000));
	r.was_running = false;
	assert_false(decide_has_markers(&r, 86400000, 15000));
}

static void test_with_holes_it_is_whole_only_within_the_compaction_lag(void **state)
{
	struct reading r = { .holes = true, .was_running = true };

	(void)state;
	assert_false(decide_is_whole(&r, 0, 100));
	r.away_ms = 999;
	assert_true(decide_is_whole(&r, 1000, 100));
	r.away_ms = 1000;
	assert_false(decide_is_whole(&r, 1000, 100));
	r.away_ms = -1;
	assert_false(decide_is_whole(&r, 1000, 100));
}

static void test_holes_of_transactions_count_only_where_the_tail_was_not_close(void **state)
{
	struct reading r = { .holes = true, .transactions = true, .was_running = true };

	(void)state;
	r.away_ms = 100;
	assert_true(decide_is_whole(&r, 0, 100));
	r.away_ms = 101;
	assert_false(decide_is_whole(&r, 0, 100));
	r.away_ms = 100;
	r.was_running = false;
	assert_false(decide_is_whole(&r, 0, 100));
}

static void test_a_round_is_due_after_half_of_the_retention(void **state)
{
	(void)state;
	assert_false(decide_round_due(500, 1000, false));
	assert_true(decide_round_due(501, 1000, false));
	assert_false(decide_round_due(-1, 1000, false));
	assert_true(decide_round_due(1, 0, false));
}

static void test_a_running_tail_gets_a_second_whatever_the_retention(void **state)
{
	(void)state;
	assert_false(decide_round_due(1000, 0, true));
	assert_true(decide_round_due(1001, 0, true));
	assert_false(decide_round_due(3000, 6000, true));
	assert_true(decide_round_due(3001, 6000, true));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_put_on_an_absent_key_is_a_create),
		cmocka_unit_test(test_other_bytes_are_an_update_and_equal_bytes_are_not),
		cmocka_unit_test(test_an_empty_value_is_a_value_and_not_a_tombstone),
		cmocka_unit_test(test_a_tombstone_deletes_what_is_there_and_nothing_else),
		cmocka_unit_test(
			test_a_tombstone_on_an_absent_key_tells_of_a_delete_where_history_is_missing),
		cmocka_unit_test(test_a_key_from_another_partition_has_moved),
		cmocka_unit_test(
			test_of_two_partitions_the_later_timestamp_wins_then_the_higher_number),
		cmocka_unit_test(test_after_a_log_change_comes_the_next_offset),
		cmocka_unit_test(test_metadata_is_read_back_as_it_was_written),
		cmocka_unit_test(test_foreign_metadata_names_nobody),
		cmocka_unit_test(test_metadata_of_a_later_version_is_not_guessed_at),
		cmocka_unit_test(test_offsets_of_a_later_version_make_everybody_unfit),
		cmocka_unit_test(test_a_first_start_is_fit_once_it_has_caught_up),
		cmocka_unit_test(test_a_committed_offset_that_vanished_is_not_a_first_start),
		cmocka_unit_test(test_a_committed_offset_that_went_back_is_not_gone_on_from),
		cmocka_unit_test(test_who_published_last_is_fit_without_remark),
		cmocka_unit_test(test_whoever_read_everything_from_P_on_is_fit),
		cmocka_unit_test(test_who_may_have_missed_versions_leads_only_alone_and_says_gap),
		cmocka_unit_test(test_a_gap_that_was_begun_is_ended_by_whoever_began_it),
		cmocka_unit_test(test_a_gap_whose_end_is_not_known_ends_where_this_state_is_whole),
		cmocka_unit_test(test_who_published_last_may_resume_before_it_has_caught_up),
		cmocka_unit_test(test_nobody_resumes_what_another_has_published_or_nobody),
		cmocka_unit_test(test_nobody_resumes_who_would_be_unfit_but_for_its_tail),
		cmocka_unit_test(test_who_may_have_missed_versions_does_not_resume),
		cmocka_unit_test(test_a_tail_that_waits_for_its_journal_is_not_behind),
		cmocka_unit_test(test_a_gap_of_another_is_no_gap_for_who_is_whole),
		cmocka_unit_test(test_a_journal_that_begins_after_P_needs_a_refill),
		cmocka_unit_test(test_a_state_behind_P_waits),
		cmocka_unit_test(test_a_due_round_makes_unfit),
		cmocka_unit_test(test_the_worst_partition_decides_and_stopping_outweighs_waiting),
		cmocka_unit_test(test_publishing_begins_at_P_or_where_news_begin),
		cmocka_unit_test(test_the_filter_decides_what_is_notified),
		cmocka_unit_test(test_in_a_gap_nothing_that_may_be_a_change_is_dropped),
		cmocka_unit_test(test_what_was_read_without_a_hole_is_whole_whenever_it_was_read),
		cmocka_unit_test(test_a_tombstone_that_may_have_been_purged_shows_no_markers),
		cmocka_unit_test(test_with_holes_it_is_whole_only_within_the_compaction_lag),
		cmocka_unit_test(
			test_holes_of_transactions_count_only_where_the_tail_was_not_close),
		cmocka_unit_test(test_a_round_is_due_after_half_of_the_retention),
		cmocka_unit_test(test_a_running_tail_gets_a_second_whatever_the_retention),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
