#include "harness.h"

#include "metrics.h"

#include <time.h>

static const struct metrics_info who = { "pipe", "users", "prod" };

/* Everything that is printed; the caller's to free. */
static char *printed(const struct metrics_info *info)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	metrics_print(f, info);
	assert_int_equal(fclose(f), 0);
	return text;
}

static char *documented(void)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	metrics_document(f);
	assert_int_equal(fclose(f), 0);
	return text;
}

static void assert_line(const char *text, const char *line)
{
	size_t len = strlen(line);

	for (const char *at = text; (at = strstr(at, line)); at += len)
		if ((at == text || at[-1] == '\n') && at[len] == '\n')
			return;
	fail_msg("no line '%s' in:\n%s", line, text);
}

static void assert_no(const char *text, const char *part)
{
	if (strstr(text, part))
		fail_msg("'%s' in:\n%s", part, text);
}

static int begin(void **state)
{
	(void)state;
	metrics_reset();
	return 0;
}

static void test_a_counter_is_what_was_added(void **state)
{
	(void)state;
	metrics_add(METRIC_RECORDS_CONSUMED, 5);
	metrics_add(METRIC_RECORDS_CONSUMED, 7);
	assert_int_equal(metrics_value(METRIC_RECORDS_CONSUMED), 12);
	char *text = printed(&who);
	assert_line(text, "# TYPE sidenote_records_consumed_total counter");
	assert_line(text, "sidenote_records_consumed_total{name=\"pipe\"} 12");
	free(text);
}

static void test_a_family_has_one_head_and_a_series_for_each_label(void **state)
{
	static const char wanted[] =
		"# HELP sidenote_changes_total What those records did to the snapshot.\n"
		"# TYPE sidenote_changes_total counter\n"
		"sidenote_changes_total{name=\"pipe\",op=\"create\"} 1\n"
		"sidenote_changes_total{name=\"pipe\",op=\"update\"} 2\n"
		"sidenote_changes_total{name=\"pipe\",op=\"unchanged\"} 0\n"
		"sidenote_changes_total{name=\"pipe\",op=\"delete\"} 0\n"
		"# HELP ";
	(void)state;
	metrics_add(METRIC_CHANGES_CREATE, 1);
	metrics_add(METRIC_CHANGES_UPDATE, 2);
	char *text = printed(&who);
	assert_non_null(strstr(text, wanted));
	free(text);
}

static void test_a_gauge_that_nobody_set_is_left_out(void **state)
{
	(void)state;
	char *text = printed(&who);
	assert_no(text, "\nsidenote_leading{");
	free(text);
	metrics_set(METRIC_LEADING, 0);
	metrics_set(METRIC_SNAPSHOT_KEYS, 1);
	metrics_set(METRIC_SNAPSHOT_KEYS, METRIC_UNKNOWN);
	text = printed(&who);
	assert_line(text, "sidenote_leading{name=\"pipe\"} 0");
	assert_no(text, "\nsidenote_snapshot_keys{");
	free(text);
}

static void test_numbers_are_exact_in_base_units(void **state)
{
	static const struct {
		int64_t ms;
		const char *line;
	} cases[] = {
		{ 0, "sidenote_heartbeat_age_seconds{name=\"pipe\"} 0" },
		{ 1, "sidenote_heartbeat_age_seconds{name=\"pipe\"} 0.001" },
		{ 20, "sidenote_heartbeat_age_seconds{name=\"pipe\"} 0.02" },
		{ 1500, "sidenote_heartbeat_age_seconds{name=\"pipe\"} 1.5" },
		{ 1000, "sidenote_heartbeat_age_seconds{name=\"pipe\"} 1" },
		{ -1, "sidenote_heartbeat_age_seconds{name=\"pipe\"} -0.001" },
		{ -1500, "sidenote_heartbeat_age_seconds{name=\"pipe\"} -1.5" },
		{ INT64_MAX, "sidenote_heartbeat_age_seconds{name=\"pipe\"} 9223372036854775.807" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		metrics_set(METRIC_HEARTBEAT_AGE_MS, cases[i].ms);
		char *text = printed(&who);
		assert_line(text, cases[i].line);
		free(text);
	}
}

static void test_a_histogram_counts_each_observation_once_and_adds_up(void **state)
{
	static const char wanted[] = "# HELP sidenote_batch_records Records of one commit of the "
				     "snapshot; idle commits are "
				     "not counted.\n"
				     "# TYPE sidenote_batch_records histogram\n"
				     "sidenote_batch_records_bucket{name=\"pipe\",le=\"1\"} 2\n"
				     "sidenote_batch_records_bucket{name=\"pipe\",le=\"2\"} 3\n"
				     "sidenote_batch_records_bucket{name=\"pipe\",le=\"5\"} 4\n";
	(void)state;
	metrics_observe(METRIC_BATCH_RECORDS, 0);
	metrics_observe(METRIC_BATCH_RECORDS, 1);
	metrics_observe(METRIC_BATCH_RECORDS, 2);
	metrics_observe(METRIC_BATCH_RECORDS, 3);
	metrics_observe(METRIC_BATCH_RECORDS, 1000000);
	char *text = printed(&who);
	assert_non_null(strstr(text, wanted));
	assert_line(text, "sidenote_batch_records_bucket{name=\"pipe\",le=\"100000\"} 4");
	assert_line(text, "sidenote_batch_records_bucket{name=\"pipe\",le=\"+Inf\"} 5");
	assert_line(text, "sidenote_batch_records_sum{name=\"pipe\"} 1000006");
	assert_line(text, "sidenote_batch_records_count{name=\"pipe\"} 5");
	free(text);
}

static void test_bounds_of_a_histogram_of_times_are_in_seconds(void **state)
{
	(void)state;
	metrics_observe(METRIC_COMMIT_US, 100);
	metrics_observe(METRIC_COMMIT_US, 101);
	char *text = printed(&who);
	assert_line(text, "sidenote_commit_duration_seconds_bucket{name=\"pipe\",le=\"0.0001\"} 1");
	assert_line(text, "sidenote_commit_duration_seconds_bucket{name=\"pipe\",le=\"0.0002\"} 2");
	assert_line(text, "sidenote_commit_duration_seconds_bucket{name=\"pipe\",le=\"10\"} 2");
	assert_line(text, "sidenote_commit_duration_seconds_sum{name=\"pipe\"} 0.000201");
	free(text);
}

static void test_an_age_is_the_time_until_now_and_never_negative(void **state)
{
	struct metrics_histogram h;
	int64_t now_us = metrics_wall_us(), ms = now_us / 1000;

	(void)state;
	metrics_observe_age(METRIC_NOTIFICATION_LATENCY_US, -1, now_us); /* a record without one */
	metrics_observe_age(METRIC_NOTIFICATION_LATENCY_US, INT64_MAX, now_us);
	metrics_observe_age(METRIC_NOTIFICATION_LATENCY_US, ms - 3000, now_us);
	metrics_observe_age(METRIC_NOTIFICATION_LATENCY_US, ms + 60000, now_us); /* another clock */
	metrics_histogram(METRIC_NOTIFICATION_LATENCY_US, &h);
	assert_int_equal(h.total, 2);
	assert_int_equal(h.count[0], 1);
	assert_in_range(h.sum, 3000000, 4000000);
}

static void test_a_quantile_lies_in_its_bucket(void **state)
{
	struct metrics_histogram h;

	(void)state;
	metrics_histogram(METRIC_COMMIT_US, &h);
	assert_int_equal(metrics_quantile(&h, 0.5), -1);
	for (int i = 0; i < 99; i++)
		metrics_observe(METRIC_COMMIT_US, 150);
	metrics_observe(METRIC_COMMIT_US, 30000);
	metrics_histogram(METRIC_COMMIT_US, &h);
	assert_in_range(metrics_quantile(&h, 0.5), 100, 200);
	assert_in_range(metrics_quantile(&h, 0.99), 100, 200);
	assert_in_range(metrics_quantile(&h, 0.999), 20000, 50000);
	for (int i = 0; i < 10000; i++)
		metrics_observe(METRIC_COMMIT_US, INT64_C(1) << 40);
	metrics_histogram(METRIC_COMMIT_US, &h);
	assert_int_equal(metrics_quantile(&h, 0.99), 10000000); /* the last bound, at least */
}

static void test_positions_have_a_series_for_each_partition(void **state)
{
	(void)state;
	metrics_set_at(METRIC_APPLIED_OFFSET, 0, 1); /* nobody said how many there are */
	metrics_partitions(3);
	metrics_set_at(METRIC_APPLIED_OFFSET, 0, 10);
	metrics_set_at(METRIC_APPLIED_OFFSET, 2, 0);
	metrics_set_at(METRIC_APPLIED_OFFSET, 3, 5);
	metrics_set_at(METRIC_APPLIED_OFFSET, -1, 5);
	metrics_set_at(METRIC_CONSUMER_LAG_MS, 1, 2500);
	char *text = printed(&who);
	assert_line(text, "sidenote_applied_offset{name=\"pipe\",partition=\"0\"} 10");
	assert_line(text, "sidenote_applied_offset{name=\"pipe\",partition=\"2\"} 0");
	assert_line(text, "sidenote_consumer_lag_seconds{name=\"pipe\",partition=\"1\"} 2.5");
	assert_no(text, "sidenote_applied_offset{name=\"pipe\",partition=\"1\"}");
	assert_no(text, "partition=\"3\"");
	assert_no(text, "partition=\"-1\"");
	free(text);
	metrics_partitions(4); /* one was added: all are said anew */
	assert_int_equal(metrics_value_at(METRIC_APPLIED_OFFSET, 0), METRIC_UNKNOWN);
	metrics_set_at(METRIC_APPLIED_OFFSET, 3, 5);
	assert_int_equal(metrics_value_at(METRIC_APPLIED_OFFSET, 3), 5);
}

static void test_labels_are_escaped(void **state)
{
	const struct metrics_info odd = { "a\"b", "back\\slash", "two\nlines" };

	(void)state;
	char *text = printed(&odd);
	assert_line(text, "sidenote_info{name=\"a\\\"b\",version=\"" SIDENOTE_VERSION
			  "\",topic=\"back\\\\slash\",cluster=\"two\\nlines\"} 1");
	free(text);
}

static void test_the_process_is_told_by_the_names_everybody_knows(void **state)
{
	(void)state;
	metrics_process();
	assert_in_range(metrics_value(METRIC_PROCESS_RESIDENT_BYTES), 100000, 1LL << 40);
	assert_in_range(metrics_value(METRIC_PROCESS_OPEN_FDS), 2, 1000);
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	int64_t age = now.tv_sec - metrics_value(METRIC_PROCESS_START_MS) / 1000;
	assert_in_range(age + 2, 0, 600);
	char *text = printed(&who);
	assert_non_null(strstr(text, "\nprocess_cpu_seconds_total "));
	assert_non_null(strstr(text, "\nprocess_start_time_seconds "));
	free(text);
}

/* ---- the table ---- */

static void test_every_metric_has_a_row_a_name_and_a_meaning(void **state)
{
	char *text, *line, *rest, *doc = documented();
	int families = 0;

	(void)state;
	for (enum metric m = 0; m < METRICS; m++) /* print all, gauges too */
		if (metrics_value(m) == METRIC_UNKNOWN)
			metrics_set(m, 1);
	metrics_partitions(1);
	text = printed(&who);
	for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		char name[100], kind[20], row[140];
		if (sscanf(line, "# TYPE %99s %19s", name, kind) != 2)
			continue;
		families++;
		assert_true(!strncmp(name, "sidenote_", 9) || !strncmp(name, "process_", 8));
		bool total = strlen(name) > 6 && !strcmp(name + strlen(name) - 6, "_total");
		assert_int_equal(total, !strcmp(kind, "counter"));
		snprintf(row, sizeof(row), "| `%s` | %s | ", name, kind);
		if (!strstr(doc, row))
			fail_msg("%s is not documented", name);
	}
	assert_in_range(families, 40, METRICS);
	assert_null(strstr(doc, "(null)"));
	assert_null(strstr(doc, "|  |\n"));
	free(text);
	free(doc);
}

static void test_each_family_is_printed_once(void **state)
{
	char *text = printed(&who), *at = text;

	(void)state;
	while ((at = strstr(at, "# TYPE "))) {
		char line[150] = "\n";
		size_t len = strcspn(at, "\n");
		assert_true(len + 2 < sizeof(line));
		memcpy(line + 1, at, len);
		line[len + 1] = '\0';
		assert_null(strstr(at + len, line));
		at += len;
	}
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup(f, begin)
		T(test_a_counter_is_what_was_added),
		T(test_a_family_has_one_head_and_a_series_for_each_label),
		T(test_a_gauge_that_nobody_set_is_left_out),
		T(test_numbers_are_exact_in_base_units),
		T(test_a_histogram_counts_each_observation_once_and_adds_up),
		T(test_bounds_of_a_histogram_of_times_are_in_seconds),
		T(test_an_age_is_the_time_until_now_and_never_negative),
		T(test_a_quantile_lies_in_its_bucket),
		T(test_positions_have_a_series_for_each_partition),
		T(test_labels_are_escaped),
		T(test_the_process_is_told_by_the_names_everybody_knows),
		T(test_every_metric_has_a_row_a_name_and_a_meaning),
		T(test_each_family_is_printed_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
