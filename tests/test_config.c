#include "config.h"
#include "log.h"
#include "harness.h"

#include <limits.h>

static struct config c;
static char err[512];

static int init(void **state)
{
	config_init(&c);
	err[0] = '\0';
	return make_dir(state);
}

static int fini(void **state)
{
	config_free(&c);
	return remove_dir(state);
}

static int set(const char *name, const char *value)
{
	return config_set(&c, name, value, err, sizeof(err));
}

static void assert_refuses(const char *name, const char *value, const char *message)
{
	assert_int_equal(set(name, value), -EINVAL);
	assert_string_equal(err, message);
}

static void assert_says(const char *part)
{
	if (!strstr(err, part))
		fail_msg("\"%s\" does not say \"%s\"", err, part);
}

static void set_required(void)
{
	assert_int_equal(set("name", "n"), 0);
	assert_int_equal(set("source.topic", "users"), 0);
	assert_int_equal(set("state.dir", "/var/lib/sidenote"), 0);
	assert_int_equal(set("kafka.bootstrap.servers", "b:9092"), 0);
}

static const char *kafka(const char *key)
{
	for (size_t i = 0; i < c.kafka.n; i++)
		if (!strcmp(c.kafka.v[i].key, key))
			return c.kafka.v[i].value;
	return NULL;
}

/* What config_dump() prints; to be freed. */
static char *dumped(void)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	config_dump(&c, f);
	fclose(f);
	return text;
}

static int read_text(const char *dir, const void *text, size_t len)
{
	char *path = make_file(dir, "conf", 0600, text, len);
	int rc = config_file(&c, path, err, sizeof(err));

	free(path);
	return rc;
}
#define read_string(dir, s) read_text(dir, s, sizeof(s) - 1)

static int environment(const char *const *env)
{
	return config_environment(&c, (char *const *)env, err, sizeof(err));
}

/* Runs config_args() on words that end with NULL; they are moved about in `argv`. */
static int args(const char **argv, int *first)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	return config_args(&c, argc, (char **)argv, first, err, sizeof(err));
}

/* ---- values ---- */

static void test_the_defaults_are_those_of_the_documentation(void **state)
{
	(void)state;
	assert_null(c.name);
	assert_string_equal(c.cluster_name, "");
	assert_int_equal(c.source_moved, MOVED_STOP);
	assert_false(c.source_expiring);
	assert_int_equal(c.state_lease_ms, 2000);
	assert_string_equal(c.state_headers, "none");
	assert_int_equal(c.batch_records, 10000);
	assert_int_equal(c.batch_ms, 100);
	assert_int_equal(c.sort_memory, 256 << 20);
	assert_int_equal(c.journal_max_bytes, 0);
	assert_int_equal(c.notifications_operations, OPERATION_UPDATE | OPERATION_DELETE);
	assert_int_equal(c.notifications_format, NOTE_DEBEZIUM_JSON);
	assert_int_equal(c.notifications_encoding, NOTE_JSON);
	assert_int_equal(c.notifications_start, START_END);
	assert_int_equal(c.reconcile, RECONCILE_AUTO);
	assert_int_equal(c.log_level, LOG_LEVEL_INFO);
	assert_int_equal(c.log_format, LOG_TEXT);
}

static void test_a_number_in_range_is_stored(void **state)
{
	(void)state;
	assert_int_equal(set("batch.ms", "250"), 0);
	assert_int_equal(c.batch_ms, 250);
}

static void test_a_number_out_of_range_is_refused_and_changes_nothing(void **state)
{
	static const char *const bad[] = { "0",
					   "10001",
					   "-1",
					   "+5",
					   " 5",
					   "5 ",
					   "0x5",
					   "",
					   "five",
					   "5.0",
					   "99999999999999999999" };
	char message[128];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		snprintf(message, sizeof(message),
			 "batch.ms: '%s' is not a whole number from 1 to 10000", bad[i]);
		assert_refuses("batch.ms", bad[i], message);
	}
	assert_int_equal(c.batch_ms, 100);
}

static void test_a_size_takes_binary_suffixes(void **state)
{
	(void)state;
	assert_int_equal(set("sort.memory", "2097152"), 0);
	assert_int_equal(c.sort_memory, 2 << 20);
	assert_int_equal(set("sort.memory", "2048KiB"), 0);
	assert_int_equal(c.sort_memory, 2 << 20);
	assert_int_equal(set("sort.memory", "3MiB"), 0);
	assert_int_equal(c.sort_memory, 3 << 20);
	assert_int_equal(set("sort.memory", "4GiB"), 0);
	assert_int_equal(c.sort_memory, 4LL << 30);
}

static void test_a_size_of_another_unit_or_beyond_reason_is_refused(void **state)
{
	static const char *const bad[] = { "1",   "4GB",   "4G",         "4 GiB",
					   "GiB", "-1MiB", "1048577GiB", "9999999999999GiB",
					   "0" };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(set("sort.memory", bad[i]), -EINVAL);
	assert_string_equal(err, "sort.memory: '0' is not a size from 1MiB to 1024GiB: a whole "
				 "number of bytes, or of KiB, MiB or GiB");
	assert_int_equal(c.sort_memory, 256 << 20);
}

static void test_a_journal_of_size_zero_means_the_default_but_a_tiny_one_is_refused(void **state)
{
	(void)state;
	assert_int_equal(set("journal.max.bytes", "1GiB"), 0);
	assert_int_equal(set("journal.max.bytes", "0"), 0);
	assert_int_equal(c.journal_max_bytes, 0);
	assert_int_equal(set("journal.max.bytes", "4096"), -EINVAL);
	assert_says("from 1MiB to 512GiB, or 0");
}

static void test_only_true_and_false_are_booleans(void **state)
{
	(void)state;
	assert_int_equal(set("source.expiring", "true"), 0);
	assert_true(c.source_expiring);
	assert_refuses("source.expiring", "yes",
		       "source.expiring: 'yes' is neither true nor false");
	assert_true(c.source_expiring);
}

static void test_a_choice_is_one_of_its_words(void **state)
{
	(void)state;
	assert_int_equal(set("reconcile", "off"), 0);
	assert_int_equal(c.reconcile, RECONCILE_OFF);
	assert_refuses("reconcile", "never", "reconcile: 'never' is none of auto, always, off");
	assert_int_equal(c.reconcile, RECONCILE_OFF);
}

static void test_operations_are_some_of_three_words(void **state)
{
	(void)state;
	assert_int_equal(set("notifications.operations", "create , delete"), 0);
	assert_int_equal(c.notifications_operations, OPERATION_CREATE | OPERATION_DELETE);
	assert_refuses("notifications.operations", "create,drop",
		       "notifications.operations: 'drop' is none of create, update, delete "
		       "(separate several by commas)");
	assert_int_equal(set("notifications.operations", ""), -EINVAL);
	assert_int_equal(set("notifications.operations", "create,"), -EINVAL);
	assert_int_equal(c.notifications_operations, OPERATION_CREATE | OPERATION_DELETE);
}

static void test_a_name_has_only_characters_that_kafka_accepts_in_a_group(void **state)
{
	static const char *const bad[] = { "", "a b", "a/b", "ä", "a\nb" };
	char longest[102];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(set("name", bad[i]), -EINVAL);
	memset(longest, 'n', 101);
	longest[101] = '\0';
	assert_int_equal(set("name", longest), -EINVAL);
	assert_int_equal(set("name", longest + 1), 0);
	assert_int_equal(set("name", "Orders_v2.eu-1"), 0);
	assert_string_equal(c.name, "Orders_v2.eu-1");
}

static void test_a_topic_is_a_name_and_never_a_pattern(void **state)
{
	static const char *const bad[] = { "", ".", "..", "^users", "a,b" };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(set("source.topic", bad[i]), -EINVAL);
	assert_null(c.source_topic);
}

static void test_a_name_for_people_is_printable(void **state)
{
	(void)state;
	assert_int_equal(set("cluster.name", "Köln \\ \"eins\""), 0);
	assert_string_equal(c.cluster_name, "Köln \\ \"eins\"");
	assert_refuses("cluster.name", "a\x1b[2J", "cluster.name: is not printable text");
}

/* ---- names ---- */

static void test_an_unknown_name_is_refused_with_the_nearest(void **state)
{
	(void)state;
	assert_refuses("batch.record", "1",
		       "batch.record: no such option; did you mean batch.records?");
	assert_refuses("notification.topic", "x",
		       "notification.topic: no such option; did you mean notifications.topic?");
	assert_refuses("kafak.bootstrap.servers", "x",
		       "kafak.bootstrap.servers: no such option; did you mean "
		       "kafka.bootstrap.servers?");
	assert_int_equal(set("colour", "red"), -EINVAL);
	assert_says("colour: no such option; `sidenote help options`");
}

/* ---- librdkafka ---- */

static void test_properties_are_passed_on_by_kind_in_order_unread(void **state)
{
	(void)state;
	assert_int_equal(set("kafka.socket.timeout.ms", "no number"), 0);
	assert_int_equal(set("kafka.security.protocol", "SSL"), 0);
	assert_int_equal(set("consumer.fetch.min.bytes", "1"), 0);
	assert_int_equal(set("producer.linger.ms", "2"), 0);
	assert_int_equal(c.kafka.n, 2);
	assert_string_equal(c.kafka.v[0].key, "socket.timeout.ms");
	assert_string_equal(c.kafka.v[0].value, "no number");
	assert_string_equal(c.kafka.v[1].key, "security.protocol");
	assert_string_equal(c.consumer.v[0].key, "fetch.min.bytes");
	assert_string_equal(c.producer.v[0].key, "linger.ms");
}

static void test_a_property_set_again_replaces_the_first_and_moves_to_the_end(void **state)
{
	(void)state;
	assert_int_equal(set("kafka.a", "1"), 0);
	assert_int_equal(set("kafka.b", "2"), 0);
	assert_int_equal(set("kafka.a", "3"), 0);
	assert_int_equal(c.kafka.n, 2);
	assert_string_equal(c.kafka.v[0].key, "b");
	assert_string_equal(c.kafka.v[1].value, "3");
}

static void test_what_exactness_owns_cannot_be_set_otherwise(void **state)
{
	(void)state;
	assert_refuses("consumer.enable.auto.commit", "true",
		       "consumer.enable.auto.commit: 'true' is not possible, it is always false: "
		       "offsets are committed in the publishing transaction");
	assert_refuses("kafka.group.id", "mine",
		       "kafka.group.id: cannot be set: it is sidenote.<name>, the fence between "
		       "sidecars of one name");
	assert_int_equal(set("kafka.auto.offset.reset", "earliest"), -EINVAL);
	assert_int_equal(set("producer.acks", "1"), -EINVAL);
	assert_int_equal(set("producer.transactional.id", "x"), -EINVAL);
	assert_int_equal(c.kafka.n + c.consumer.n + c.producer.n, 0);
}

static void test_asking_for_what_is_so_anyway_is_fine(void **state)
{
	(void)state;
	assert_int_equal(set("producer.acks", "all"), 0);
	assert_int_equal(set("consumer.isolation.level", "read_committed"), 0);
	assert_int_equal(c.producer.n + c.consumer.n, 0);
}

static void test_a_prefix_alone_is_refused(void **state)
{
	(void)state;
	assert_int_equal(set("kafka.", "x"), -EINVAL);
	assert_int_equal(set("kafka..file", "x"), -EINVAL);
}

/* ---- secrets ---- */

static void test_a_secret_is_read_from_a_file_less_one_newline(void **state)
{
	static const struct {
		const char *bytes, *value;
	} cases[] = { { "s3cret", "s3cret" },
		      { "s3cret\n", "s3cret" },
		      { "s3cret\r\n", "s3cret" },
		      { " two\nlines \n\n", " two\nlines \n" } };

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char *path =
			make_file(*state, "secret", 0600, cases[i].bytes, strlen(cases[i].bytes));

		assert_int_equal(set("kafka.sasl.password.file", path), 0);
		assert_string_equal(kafka("sasl.password"), cases[i].value);
		assert_int_equal(c.kafka.n, 1);
		assert_true(c.kafka.v[0].secret);
		free(path);
	}
}

static void test_a_secret_that_others_may_read_is_refused_with_the_way_out(void **state)
{
	static const mode_t modes[] = { 0640, 0604, 0644 };

	for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		char *path = make_file(*state, "secret", modes[i], "s3cret", 6);

		assert_int_equal(set("kafka.sasl.password.file", path), -EINVAL);
		assert_says("kafka.sasl.password.file: ");
		assert_says("chmod 600");
		assert_null(strstr(err, "s3cret"));
		/* a certificate is no secret */
		assert_int_equal(set("kafka.ssl.ca.pem.file", path), 0);
		free(path);
	}
	assert_null(kafka("sasl.password"));
}

static void test_a_secret_that_the_service_manager_keeps_may_have_any_mode(void **state)
{
	char *path = make_file(*state, "secret", 0644, "s3cret", 6), *beside;

	setenv("CREDENTIALS_DIRECTORY", *state, 1);
	assert_int_equal(set("kafka.sasl.password.file", path), 0);
	/* a directory that only begins alike is another one */
	assert_true(asprintf(&beside, "%s/se", (char *)*state) > 0);
	assert_int_equal(mkdir(beside, 0700), 0);
	setenv("CREDENTIALS_DIRECTORY", beside, 1);
	assert_int_equal(set("kafka.sasl.password.file", path), -EINVAL);
	unsetenv("CREDENTIALS_DIRECTORY");
	free(beside);
	free(path);
}

static void test_a_secret_of_no_use_is_refused(void **state)
{
	char *empty = make_file(*state, "empty", 0600, "\n", 1);
	char *nul = make_file(*state, "nul", 0600, "a\0b", 3);
	char missing[PATH_MAX], fifo[PATH_MAX];

	snprintf(missing, sizeof(missing), "%s/missing", (char *)*state);
	snprintf(fifo, sizeof(fifo), "%s/fifo", (char *)*state);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(set("kafka.sasl.password.file", empty), -EINVAL);
	assert_says("is empty");
	assert_int_equal(set("kafka.sasl.password.file", nul), -EINVAL);
	assert_says("NUL byte");
	assert_int_equal(set("kafka.sasl.password.file", missing), -EINVAL);
	assert_says("No such file");
	assert_int_equal(set("kafka.sasl.password.file", *state), -EINVAL);
	assert_says("not a regular file");
	assert_int_equal(set("kafka.sasl.password.file", fifo), -EINVAL);
	assert_says("not a regular file");
	free(empty);
	free(nul);
}

static void test_what_exactness_owns_cannot_come_from_a_file_either(void **state)
{
	char *path = make_file(*state, "id", 0600, "mine", 4);

	assert_int_equal(set("kafka.group.id.file", path), -EINVAL);
	assert_says("kafka.group.id: cannot be set");
	free(path);
}

static void test_a_property_of_librdkafka_that_ends_in_file_is_passed_on(void **state)
{
	(void)state;
	assert_int_equal(set("kafka.sasl.oauthbearer.assertion.private.key.file", "/k"), 0);
	assert_string_equal(kafka("sasl.oauthbearer.assertion.private.key.file"), "/k");
}

static void test_secrets_are_masked_where_values_are_printed(void **state)
{
	static const char *const names[] = { "sasl.password",
					     "ssl.key.password",
					     "ssl.key.pem",
					     "ssl.keystore.password",
					     "sasl.oauthbearer.client.secret",
					     "sasl.oauthbearer.config",
					     "sasl.oauthbearer.assertion.private.key.passphrase" };
	char name[128];

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		snprintf(name, sizeof(name), "kafka.%s", names[i]);
		assert_int_equal(set(name, "hunter2"), 0);
	}
	assert_int_equal(set("kafka.ssl.key.location", "/etc/key"), 0);
	char *text = dumped();

	assert_null(strstr(text, "hunter2"));
	assert_non_null(strstr(text, "kafka.sasl.password=********\n"));
	assert_non_null(strstr(text, "kafka.ssl.key.location=/etc/key\n"));
	free(text);
}

/* ---- files ---- */

static void test_a_file_has_comments_blank_lines_and_white_space(void **state)
{
	assert_int_equal(read_string(*state, "\xef\xbb\xbf# first\n"
					     "\n"
					     "  name =  a-b \r\n"
					     "\t# indented comment\n"
					     "cluster.name=x = y # z\n"
					     "source.topic=t"),
			 0);
	assert_string_equal(c.name, "a-b");
	assert_string_equal(c.cluster_name, "x = y # z");
	assert_string_equal(c.source_topic, "t");
}

static void test_an_error_in_a_file_names_file_and_line(void **state)
{
	assert_int_equal(read_string(*state, "name=n\n\nbatch.ms=x\n"), -EINVAL);
	assert_says("/conf:3: batch.ms: 'x' is not a whole number");
}

static void test_a_line_without_an_equals_sign_shows_its_first_word_alone(void **state)
{
	assert_int_equal(read_string(*state, "kafka.sasl.password: hunter2\n"), -EINVAL);
	assert_says("/conf:1: 'kafka.sasl.password' is not name=value");
	assert_null(strstr(err, "hunter2"));
}

static void test_a_trailing_backslash_is_refused(void **state)
{
	assert_int_equal(read_string(*state, "kafka.a=x,\\\n y\n"), -EINVAL);
	assert_says("/conf:1: ends in a backslash");
	assert_int_equal(c.kafka.n, 0);
}

static void test_what_is_not_a_text_file_is_refused(void **state)
{
	size_t len = 70000;
	char *line = malloc(len), missing[PATH_MAX];

	assert_int_equal(read_string(*state, "name=a\0b\n"), -EINVAL);
	assert_says("NUL byte");
	assert_null(c.name);

	assert_non_null(line);
	memset(line, 'x', len);
	memcpy(line, "kafka.a=", 8);
	assert_int_equal(read_text(*state, line, len), -EINVAL);
	assert_says("/conf:1: has more than 65535 bytes");
	free(line);

	assert_int_equal(config_file(&c, *state, err, sizeof(err)), -EINVAL);
	assert_says("Is a directory");
	snprintf(missing, sizeof(missing), "%s/missing", (char *)*state);
	assert_int_equal(config_file(&c, missing, err, sizeof(err)), -EINVAL);
	assert_says("No such file");
}

/* ---- environment ---- */

static void test_the_environment_names_options_in_upper_case(void **state)
{
	const char *env[] = { "PATH=/bin",
			      "SIDENOTE=build/sidenote",
			      "SIDENOTE_NAME=n",
			      "SIDENOTE_BATCH_MS=7",
			      "SIDENOTE_KAFKA_BOOTSTRAP_SERVERS=b:9092",
			      NULL };

	(void)state;
	assert_int_equal(environment(env), 0);
	assert_string_equal(c.name, "n");
	assert_int_equal(c.batch_ms, 7);
	assert_string_equal(kafka("bootstrap.servers"), "b:9092");
}

static void test_an_error_in_the_environment_names_the_variable(void **state)
{
	const char *env[] = { "SIDENOTE_BATCH_MSS=7", NULL };

	(void)state;
	assert_int_equal(environment(env), -EINVAL);
	assert_string_equal(err, "SIDENOTE_BATCH_MSS: batch.mss: no such option; did you mean "
				 "batch.ms?");
}

static void test_variables_that_kubernetes_makes_for_a_service_are_passed_over(void **state)
{
	const char *env[] = { "SIDENOTE_SERVICE_HOST=10.0.0.1",
			      "SIDENOTE_SERVICE_PORT=80",
			      "SIDENOTE_SERVICE_PORT_METRICS=80",
			      "SIDENOTE_PORT=tcp://10.0.0.1:80",
			      "SIDENOTE_PORT_80_TCP=tcp://10.0.0.1:80",
			      "SIDENOTE_PORT_80_TCP_ADDR=10.0.0.1",
			      "SIDENOTE_USERS_SERVICE_HOST=10.0.0.1",
			      "SIDENOTE_USERS_PORT_80_TCP=tcp://10.0.0.1:80",
			      NULL };
	const char *other[] = { "SIDENOTE_PORTAL=x", NULL };
	const char *kerberos[] = { "SIDENOTE_KAFKA_SASL_KERBEROS_SERVICE_NAME=k", NULL };

	(void)state;
	assert_int_equal(environment(env), 0);
	assert_int_equal(environment(other), -EINVAL);
	assert_int_equal(environment(kerberos), 0);
	assert_string_equal(kafka("sasl.kerberos.service.name"), "k");
}

/* ---- arguments ---- */

static void test_arguments_win_over_the_environment_and_that_over_files(void **state)
{
	char *one = make_file(*state, "one", 0600,
			      "batch.ms=1\nbatch.records=1\nstate.lease.ms=101\nname=f\n", 52);
	char *two = make_file(*state, "two", 0600, "batch.ms=2\n", 11);
	const char *argv[] = { "run",
			       "-X",
			       "batch.ms=4",
			       "-F",
			       one,
			       "-F",
			       two,
			       "-Xsource.topic=t",
			       "-Xstate.dir=/s",
			       "-X",
			       "kafka.bootstrap.servers=b",
			       "--check",
			       NULL };
	int first = 0;

	setenv("SIDENOTE_BATCH_RECORDS", "3", 1);
	setenv("SIDENOTE_BATCH_MS", "3", 1);
	assert_int_equal(args(argv, &first), 0);
	unsetenv("SIDENOTE_BATCH_RECORDS");
	unsetenv("SIDENOTE_BATCH_MS");
	assert_int_equal(c.batch_ms, 4);
	assert_int_equal(c.batch_records, 3);
	assert_int_equal(c.state_lease_ms, 101);
	assert_string_equal(argv[first], "--check");
	free(one);
	free(two);
}

static void test_other_words_may_stand_before_and_between(void **state)
{
	const char *argv[] = { "check", "--online",
			       "-X",    "name=n",
			       "word",  "-Xsource.topic=t",
			       "-X",    "state.dir=/s",
			       "-X",    "kafka.bootstrap.servers=b",
			       "--",    "-X",
			       "key",   NULL };
	const char *rest[] = { "--online", "word", "--", "-X", "key" };
	int first = 0;

	(void)state;
	assert_int_equal(args(argv, &first), 0);
	assert_int_equal(first, 8);
	for (size_t i = 0; i < sizeof(rest) / sizeof(*rest); i++)
		assert_string_equal(argv[first + i], rest[i]);
}

static void test_a_secret_among_the_arguments_is_refused_with_the_way_out(void **state)
{
	const char *argv[] = { "run", "-X", "kafka.sasl.password=hunter2", NULL };
	int first;

	(void)state;
	assert_int_equal(args(argv, &first), -EINVAL);
	assert_says("kafka.sasl.password.file=PATH");
	assert_null(strstr(err, "hunter2"));
	assert_null(kafka("sasl.password"));
}

static void test_an_argument_without_a_value_is_refused(void **state)
{
	const char *x[] = { "run", "-X", NULL }, *f[] = { "run", "-F", NULL },
		   *word[] = { "run", "-X", "name", NULL };
	int first;

	(void)state;
	assert_int_equal(args(x, &first), -EINVAL);
	assert_string_equal(err, "-X: needs name=value");
	assert_int_equal(args(f, &first), -EINVAL);
	assert_string_equal(err, "-F: needs a file");
	assert_int_equal(args(word, &first), -EINVAL);
	assert_string_equal(err, "-X name: is not name=value");
}

/* ---- the whole ---- */

static void test_what_is_required_and_not_set_is_listed(void **state)
{
	(void)state;
	assert_int_equal(config_check(&c, err, sizeof(err)), -EINVAL);
	assert_says("not set: name, source.topic, state.dir, kafka.bootstrap.servers (");
	set_required();
	assert_int_equal(config_check(&c, err, sizeof(err)), 0);
}

static void test_physical_compaction_is_told_to_a_topic_of_its_own(void **state)
{
	(void)state;
	set_required();
	assert_string_equal(c.compacted_topic, "");
	assert_int_equal(c.compacted_probes, 20);
	assert_int_equal(set("notifications.compacted.topic", "users.gone"), 0);
	assert_int_equal(config_check(&c, err, sizeof(err)), 0);
	assert_int_equal(set("notifications.compacted.topic", "users"), 0);
	assert_int_equal(config_check(&c, err, sizeof(err)), -EINVAL);
	assert_says("notifications.compacted.topic: is source.topic itself (users)");
	assert_int_equal(set("notifications.compacted.topic", "users.changes"), 0);
	assert_int_equal(config_check(&c, err, sizeof(err)), -EINVAL);
	assert_says("notifications.compacted.topic: is notifications.topic itself (users.changes)");
	assert_int_equal(set("notifications.topic", ""), 0);
	assert_int_equal(config_check(&c, err, sizeof(err)), -EINVAL);
	assert_says("notifications.compacted.topic: needs notifications.topic");
	assert_int_equal(set("notifications.compacted.probes", "0"), -EINVAL);
}

static void test_notifications_go_to_a_topic_beside_the_source(void **state)
{
	(void)state;
	set_required();
	assert_int_equal(config_check(&c, err, sizeof(err)), 0);
	assert_string_equal(c.notifications_topic, "users.changes");
}

static void test_an_empty_notification_topic_means_none(void **state)
{
	(void)state;
	set_required();
	assert_int_equal(set("notifications.topic", ""), 0);
	assert_int_equal(config_check(&c, err, sizeof(err)), 0);
	assert_string_equal(c.notifications_topic, "");
}

static void test_the_notification_topic_cannot_be_the_source(void **state)
{
	(void)state;
	set_required();
	assert_int_equal(set("notifications.topic", "users"), 0);
	assert_int_equal(config_check(&c, err, sizeof(err)), -EINVAL);
	assert_says("notifications.topic: is source.topic itself (users)");
}

static void test_a_default_topic_that_would_be_too_long_is_refused(void **state)
{
	char topic[250];

	(void)state;
	set_required();
	memset(topic, 't', 249);
	topic[249] = '\0';
	assert_int_equal(set("source.topic", topic), 0);
	assert_int_equal(config_check(&c, err, sizeof(err)), -EINVAL);
	assert_says("notifications.topic: <source.topic>.changes would be longer");
}

static void test_base64_contradicts_raw(void **state)
{
	(void)state;
	set_required();
	assert_int_equal(set("notifications.format", "raw"), 0);
	assert_int_equal(config_check(&c, err, sizeof(err)), 0);
	assert_int_equal(set("notifications.encoding", "base64"), 0);
	assert_int_equal(config_check(&c, err, sizeof(err)), -EINVAL);
}

static void test_headers_are_kept_by_name_all_or_none(void **state)
{
	(void)state;
	assert_false(config_keeps_header(&c, "a", 1));
	assert_int_equal(set("state.headers", "all"), 0);
	assert_true(config_keeps_header(&c, "a", 1));
	assert_int_equal(set("state.headers", "schema-id, a"), 0);
	assert_true(config_keeps_header(&c, "a", 1));
	assert_true(config_keeps_header(&c, "schema-id", 9));
	assert_false(config_keeps_header(&c, "schema", 6));
	assert_false(config_keeps_header(&c, "all", 3));
	assert_int_equal(set("state.headers", "a,,b"), -EINVAL);
	assert_int_equal(set("state.headers", ""), -EINVAL);
}

static void test_what_is_dumped_reads_back_as_the_same(void **state)
{
	set_required();
	assert_int_equal(set("sort.memory", "3MiB"), 0);
	assert_int_equal(set("notifications.operations", "delete,create"), 0);
	assert_int_equal(set("log.format", "json"), 0);
	assert_int_equal(set("source.expiring", "true"), 0);
	assert_int_equal(config_check(&c, err, sizeof(err)), 0);
	char *before = dumped(), *after;

	config_free(&c);
	config_init(&c);
	assert_int_equal(read_text(*state, before, strlen(before)), 0);
	after = dumped();
	assert_string_equal(after, before);
	assert_non_null(strstr(before, "sort.memory=3MiB\n"));
	assert_non_null(strstr(before, "notifications.operations=create,delete\n"));
	free(before);
	free(after);
}

static void test_a_control_character_in_a_value_cannot_forge_a_line_of_the_dump(void **state)
{
	(void)state;
	assert_int_equal(set("kafka.ssl.ca.pem", "a\nname=other"), 0);
	char *text = dumped();

	assert_non_null(strstr(text, "kafka.ssl.ca.pem=a\\x0aname=other\n"));
	free(text);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, init, fini)
	const struct CMUnitTest tests[] = {
		T(test_the_defaults_are_those_of_the_documentation),
		T(test_a_number_in_range_is_stored),
		T(test_a_number_out_of_range_is_refused_and_changes_nothing),
		T(test_a_size_takes_binary_suffixes),
		T(test_a_size_of_another_unit_or_beyond_reason_is_refused),
		T(test_a_journal_of_size_zero_means_the_default_but_a_tiny_one_is_refused),
		T(test_only_true_and_false_are_booleans),
		T(test_a_choice_is_one_of_its_words),
		T(test_operations_are_some_of_three_words),
		T(test_a_name_has_only_characters_that_kafka_accepts_in_a_group),
		T(test_a_topic_is_a_name_and_never_a_pattern),
		T(test_a_name_for_people_is_printable),
		T(test_an_unknown_name_is_refused_with_the_nearest),
		T(test_physical_compaction_is_told_to_a_topic_of_its_own),
		T(test_properties_are_passed_on_by_kind_in_order_unread),
		T(test_a_property_set_again_replaces_the_first_and_moves_to_the_end),
		T(test_what_exactness_owns_cannot_be_set_otherwise),
		T(test_asking_for_what_is_so_anyway_is_fine),
		T(test_a_prefix_alone_is_refused),
		T(test_a_secret_is_read_from_a_file_less_one_newline),
		T(test_a_secret_that_others_may_read_is_refused_with_the_way_out),
		T(test_a_secret_that_the_service_manager_keeps_may_have_any_mode),
		T(test_a_secret_of_no_use_is_refused),
		T(test_what_exactness_owns_cannot_come_from_a_file_either),
		T(test_a_property_of_librdkafka_that_ends_in_file_is_passed_on),
		T(test_secrets_are_masked_where_values_are_printed),
		T(test_a_file_has_comments_blank_lines_and_white_space),
		T(test_an_error_in_a_file_names_file_and_line),
		T(test_a_line_without_an_equals_sign_shows_its_first_word_alone),
		T(test_a_trailing_backslash_is_refused),
		T(test_what_is_not_a_text_file_is_refused),
		T(test_the_environment_names_options_in_upper_case),
		T(test_an_error_in_the_environment_names_the_variable),
		T(test_variables_that_kubernetes_makes_for_a_service_are_passed_over),
		T(test_arguments_win_over_the_environment_and_that_over_files),
		T(test_other_words_may_stand_before_and_between),
		T(test_a_secret_among_the_arguments_is_refused_with_the_way_out),
		T(test_an_argument_without_a_value_is_refused),
		T(test_what_is_required_and_not_set_is_listed),
		T(test_notifications_go_to_a_topic_beside_the_source),
		T(test_an_empty_notification_topic_means_none),
		T(test_the_notification_topic_cannot_be_the_source),
		T(test_a_default_topic_that_would_be_too_long_is_refused),
		T(test_base64_contradicts_raw),
		T(test_headers_are_kept_by_name_all_or_none),
		T(test_what_is_dumped_reads_back_as_the_same),
		T(test_a_control_character_in_a_value_cannot_forge_a_line_of_the_dump),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
