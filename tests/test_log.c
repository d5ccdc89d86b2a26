#include "config.h"
#include "log.h"
#include "harness.h"

#include <pthread.h>
#include <time.h>

/* Whatever `write_some` logs, as text; to be freed. */
static char *captured(void (*write_some)(void))
{
	int saved = dup(STDERR_FILENO), ends[2];
	size_t len = 0, cap = 1 << 20;
	char *text = malloc(cap);
	ssize_t n;

	assert_non_null(text);
	assert_int_equal(pipe(ends), 0);
	dup2(ends[1], STDERR_FILENO);
	close(ends[1]);
	write_some();
	dup2(saved, STDERR_FILENO);
	close(saved);
	while ((n = read(ends[0], text + len, cap - 1 - len)) > 0)
		len += n;
	close(ends[0]);
	text[len] = '\0';
	return text;
}

static void assert_logs(void (*write_some)(void), const char *expected)
{
	char *text = captured(write_some);

	assert_non_null(strstr(text, expected));
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1); /* one line */
	free(text);
}

static void one_error(void) { log_error("SN-TEST", "topic %s at %d", "t", 7); }
static void one_info(void) { log_info(NULL, "caught up"); }
static void one_forged(void)
{
	log_warn(NULL, "key a\n2030-01-01T00:00:00.000Z error\x1b[2J \xff \"q\" b\\c straße");
}
static void one_debug(void) { log_debug(NULL, "never"); }
static void one_long(void)
{
	char text[10000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_info(NULL, "%s", text);
}

static void test_a_line_has_time_level_id_and_message(void **state)
{
	struct tm tm = { 0 };
	int ms;

	(void)state;
	log_init(LOG_LEVEL_INFO, LOG_TEXT);
	char *text = captured(one_error);
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

	assert_non_null(rest);
	assert_int_equal(sscanf(rest, ".%3dZ", &ms), 1);
	assert_string_equal(rest + 4, "Z error SN-TEST topic t at 7\n");
	assert_true(labs((long)(timegm(&tm) - time(NULL))) < 5);
	free(text);
}

static void test_a_message_without_an_id_has_none(void **state)
{
	(void)state;
	log_init(LOG_LEVEL_INFO, LOG_TEXT);
	assert_logs(one_info, "Z info caught up\n");
}

static void test_nothing_in_a_message_can_forge_a_line(void **state)
{
	(void)state;
	log_init(LOG_LEVEL_INFO, LOG_TEXT);
	assert_logs(one_forged, "key a\\x0a2030-01-01T00:00:00.000Z error\\x1b[2J \\xff \"q\" b\\c "
				"straße\n");
}

static void test_json_is_one_object_a_line_with_everything_escaped(void **state)
{
	(void)state;
	log_init(LOG_LEVEL_INFO, LOG_JSON);
	assert_logs(one_error,
		    "Z\",\"level\":\"error\",\"id\":\"SN-TEST\",\"message\":\"topic t at 7\"}\n");
	assert_logs(one_info, "Z\",\"level\":\"info\",\"message\":\"caught up\"}\n");
	assert_logs(one_forged, "\"key a\\\\x0a2030-01-01T00:00:00.000Z error\\\\x1b[2J \\\\xff "
				"\\\"q\\\" b\\\\c straße\"}\n");
}

static void test_a_level_below_the_wanted_one_is_not_written(void **state)
{
	(void)state;
	log_init(LOG_LEVEL_INFO, LOG_TEXT);
	assert_false(log_wants(LOG_LEVEL_DEBUG));
	char *text = captured(one_debug);

	assert_string_equal(text, "");
	free(text);
	log_init(LOG_LEVEL_DEBUG, LOG_TEXT);
	assert_logs(one_debug, "never");
}

static void test_a_long_message_is_cut_and_says_so_but_the_line_is_whole(void **state)
{
	static const char *const ends[] = { "xxx...\n", "xxx...\"}\n" };

	(void)state;
	for (int format = LOG_TEXT; format <= LOG_JSON; format++) {
		log_init(LOG_LEVEL_INFO, format);
		char *text = captured(one_long);
		size_t len = strlen(text);

		assert_true(len > 4000 && len <= 4096);
		assert_string_equal(text + len - strlen(ends[format]), ends[format]);
		free(text);
	}
}

static void test_logging_leaves_errno_alone(void **state)
{
	(void)state;
	log_init(LOG_LEVEL_INFO, LOG_TEXT);
	int saved = dup(STDERR_FILENO);

	close(STDERR_FILENO); /* so that write(2) fails */
	errno = EDOM;
	log_info(NULL, "nobody reads this");
	int after = errno;
	dup2(saved, STDERR_FILENO);
	close(saved);
	assert_int_equal(after, EDOM);
}

enum { THREADS = 4, EACH = 50 };

static void *log_some(void *letter)
{
	char text[200];

	memset(text, *(char *)letter, sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	for (int i = 0; i < EACH; i++)
		log_info(NULL, "%s", text);
	return NULL;
}

static void log_from_threads(void)
{
	pthread_t threads[THREADS];
	static char letters[] = "abcd";

	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, log_some, &letters[i]), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

static void test_lines_of_several_threads_do_not_mix(void **state)
{
	int lines = 0;

	(void)state;
	log_init(LOG_LEVEL_INFO, LOG_TEXT);
	char *text = captured(log_from_threads), *rest = text, *line;

	while ((line = strsep(&rest, "\n")) && rest) {
		const char *message = strstr(line, " info ");

		assert_non_null(message);
		message += strlen(" info ");
		assert_int_equal(strlen(message), 199);
		assert_int_equal(strspn(message, (char[]){ *message, '\0' }), 199);
		lines++;
	}
	assert_int_equal(lines, THREADS * EACH);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_line_has_time_level_id_and_message),
		cmocka_unit_test(test_a_message_without_an_id_has_none),
		cmocka_unit_test(test_nothing_in_a_message_can_forge_a_line),
		cmocka_unit_test(test_json_is_one_object_a_line_with_everything_escaped),
		cmocka_unit_test(test_a_level_below_the_wanted_one_is_not_written),
		cmocka_unit_test(test_a_long_message_is_cut_and_says_so_but_the_line_is_whole),
		cmocka_unit_test(test_logging_leaves_errno_alone),
		cmocka_unit_test(test_lines_of_several_threads_do_not_mix),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
