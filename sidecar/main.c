/* The verbs, what they tell about themselves, and the way to each. */
#include "cmd.h"
#include "config.h"
#include "join_config.h"
#include "metrics.h"
#include "nearest.h"
#include "version.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* clang-format off: the lines as they are printed */
#define CONFIG                                                                                     \
	"  -F FILE          read options from a file; repeatable, the later wins\n"                \
	"  -X NAME=VALUE    set one option; wins over files and SIDENOTE_* variables\n"
#define SNAPSHOT "  -d DIR           the state directory (state.dir of the sidecar)\n"
#define JSON     "  --json           one JSON object a line\n"

static const struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;  /* one line */
	const char *usage; /* from the arguments on, to the example */
} verbs[] = {
	{ "run", cmd_run, "the sidecar: keep the snapshot, publish notifications",
	  "[-F FILE]... [-X NAME=VALUE]...\n\n"
	  "Fills the snapshot of source.topic in state.dir, keeps it in step, and publishes\n"
	  "what was overwritten or deleted to notifications.topic. Several sidecars of one name\n"
	  "each keep a snapshot; one of them publishes, another takes over when it ends.\n"
	  "SIGTERM and SIGINT: finish the batch, leave the group, end.\n"
	  "\n" CONFIG "\n`sidenote help options` lists the options.\n"
	  "\nExit status\n"
	  "  0  stopped by a signal\n"
	  "  2  wrong usage or configuration\n"
	  "  3  brokers unreachable, or something they do not let it do\n"
	  "  4  stopped rather than guess: the last message has an id and names the way out\n"
	  "\nExample\n  sidenote run -F /etc/sidenote/users.conf\n" },
	{ "check", cmd_check, "the configuration and what it needs, and nothing else",
	  "[--online] [--acls] [--json] [-F FILE]... [-X NAME=VALUE]...\n\n"
	  "Prints the options as they are in effect, secrets masked, and what is wrong with them\n"
	  "or with what they need. Only looks: changes nothing, disturbs no running sidecar.\n"
	  "\n" CONFIG
	  "  --online         also ask brokers and Redis: topics, settings, positions, rights\n"
	  "  --acls           print the commands that grant exactly the rights it needs\n" JSON
	  "\n`sidenote help options` lists the options.\n"
	  "\nExit status\n"
	  "  0  fit to run, maybe with warnings\n"
	  "  2  not fit to run, or wrong usage\n"
	  "  3  nothing is wrong that it could see, but the brokers did not answer\n"
	  "\nExample\n  sidenote check --online -F /etc/sidenote/users.conf\n" },
	{ "demo", cmd_demo, "embedded broker, a pipeline, changes to watch",
	  "[--seconds N] [--rate N]\n\n"
	  "Runs the main job in this one process, with a broker of its own: a compacted topic,\n"
	  "its snapshot, and the notifications of every change. Needs no server and leaves\n"
	  "nothing behind.\n"
	  "\n"
	  "  --seconds N      how long (20)\n"
	  "  --rate N         changes a second (2)\n"
	  "\nExit status\n"
	  "  0  it worked\n"
	  "  2  wrong usage\n"
	  "  3  it did not\n"
	  "\nExample\n  sidenote demo\n" },
	{ "get", cmd_get, "look keys up in a snapshot",
	  "-d DIR [--json] [--after TOKEN] KEY...\n\n"
	  "Prints the value of each key. Keys are given and printed escaped: \\xHH is a byte,\n"
	  "\\\\ a backslash. A single value that does not go to a terminal is printed as it is.\n"
	  "\n" SNAPSHOT JSON
	  "  --after TOKEN    wait until the snapshot has the position `stat` printed as TOKEN\n"
	  "\nExit status\n"
	  "  0  every key was found\n"
	  "  1  one was not\n"
	  "  2  wrong usage\n"
	  "  3  no snapshot, or not there yet\n"
	  "  4  the snapshot is damaged\n"
	  "\nExample\n  sidenote get -d /var/lib/sidenote/users user-17\n" },
	{ "scan", cmd_scan, "print a snapshot, key by key",
	  "-d DIR [--json] [--prefix P] [--limit N] [--after TOKEN]\n\n"
	  "Prints keys, escaped, and values in the order of the keys' bytes.\n"
	  "\n" SNAPSHOT JSON
	  "  --prefix P       only keys that begin with P, escaped as they are printed\n"
	  "  --limit N        at most N of them\n"
	  "  --after TOKEN    wait until the snapshot has the position `stat` printed as TOKEN\n"
	  "\nExit status\n"
	  "  0  done, also when there was nothing to print\n"
	  "  2  wrong usage\n"
	  "  3  no snapshot, or not there yet\n"
	  "  4  the snapshot is damaged\n"
	  "\nExample\n  sidenote scan -d /var/lib/sidenote/users --prefix user- --limit 10\n" },
	{ "stat", cmd_stat, "positions, sizes, lease, role, ready or not",
	  "-d DIR [--json]\n\n"
	  "Prints what the state directory tells about itself and its sidecar.\n"
	  "\n" SNAPSHOT JSON "\nExit status\n"
	  "  0  ready\n"
	  "  2  wrong usage\n"
	  "  3  no snapshot, or its sidecar is not ready\n"
	  "  4  the snapshot is damaged\n"
	  "\nExample\n  sidenote stat -d /var/lib/sidenote/users\n" },
	{ "watch", cmd_watch, "follow a notification topic, one change a line",
	  "-b BROKERS -t TOPIC [--json] [--prefix P] [-o beginning] [-c N] [-e]\n\n"
	  "Prints every notification, read committed, with what changed in colour on a terminal\n"
	  "(not if NO_COLOR is set). Joins no group and leaves no trace.\n"
	  "\n"
	  "  -b BROKERS       host:port, several separated by commas; kafka.bootstrap.servers\n"
	  "  -t TOPIC         the notification topic; notifications.topic\n" CONFIG JSON
	  "  --prefix P       only keys that begin with P, escaped as they are printed\n"
	  "  -o beginning     from the beginning; `end`, the default: only what is new\n"
	  "  -c N             end after N notifications\n"
	  "  -e               end at the end of the topic\n"
	  "\n`sidenote help options` lists the options.\n"
	  "\nExit status\n"
	  "  0  ended as asked\n"
	  "  2  wrong usage or configuration\n"
	  "  3  brokers or topic unreachable\n"
	  "\nExample\n  sidenote watch -b localhost:9092 -t users.changes -o beginning -e\n" },
	{ "verify", cmd_verify, "re-read the topic and compare it with the snapshot",
	  "[--json] [-F FILE]... [-X NAME=VALUE]...\n\n"
	  "Reads source.topic from its beginning and prints every difference from the snapshot\n"
	  "in state.dir, and where redis.uri is set every difference of Redis from the snapshot.\n"
	  "The sidecar may run meanwhile.\n"
	  "\n" CONFIG JSON "\n`sidenote help options` lists the options.\n"
	  "\nExit status\n"
	  "  0  equal\n"
	  "  1  different\n"
	  "  2  wrong usage or configuration\n"
	  "  3  brokers or Redis unreachable, no snapshot, or Redis is not in step yet\n"
	  "  4  the snapshot is damaged\n"
	  "\nExample\n  sidenote verify -F /etc/sidenote/users.conf\n" },
	{ "join", cmd_join, "join a stream with a snapshot, exactly once",
	  "[-F FILE]... [-X NAME=VALUE]...\n\n"
	  "Looks the key of every record of join.stream.topic up in the snapshot in state.dir and\n"
	  "writes both records, with the position of the snapshot, to join.output.topic: each\n"
	  "once. Needs no more than read access to the snapshot. Instances of one join.name share\n"
	  "the stream's partitions; any number may start, stop and crash at any time.\n"
	  "SIGTERM and SIGINT: finish the batch, leave the group, end.\n"
	  "\n" CONFIG
	  "\n`sidenote help join-options` lists the options: they are not those of `run`.\n"
	  "\nExit status\n"
	  "  0  stopped by a signal\n"
	  "  2  wrong usage or configuration\n"
	  "  3  something it needs is not there: memory, a call that does not return\n"
	  "  4  stopped rather than guess: the last message has an id and names the way out\n"
	  "\nExample\n  sidenote join -F /etc/sidenote/orders-users.join\n" },
	{ "rebuild", cmd_rebuild, "ask the running sidecar for a new generation",
	  "[--round-only] [-F FILE]... [-X NAME=VALUE]...\n\n"
	  "Asks the sidecar that runs on state.dir, through the socket in it, to fill a new\n"
	  "generation from the topic beside the live one and to switch to it. Readers follow by\n"
	  "themselves; nothing is notified twice or lost. Returns when it is done.\n"
	  "\n" CONFIG "  --round-only     only look for deletes that compaction purged unseen\n"
	  "\n`sidenote help options` lists the options.\n"
	  "\nExit status\n"
	  "  0  the new generation is current\n"
	  "  2  wrong usage or configuration\n"
	  "  3  no sidecar runs there\n"
	  "  4  it failed; the old generation stays\n"
	  "\nExample\n  sidenote rebuild -F /etc/sidenote/users.conf\n" },
	{ 0 },
};
/* clang-format on */

static const char outro[] =
	"  help      this; `help WORD` tells all about a word, `help options` has the options,\n"
	"            `help metrics` what it counts\n"
	"\n"
	"Data goes to stdout, messages to stderr. Exit status: 0 done, 1 not found or different,\n"
	"2 wrong usage or configuration, 3 unreachable or not ready, 4 broken invariant.\n"
	"`sidenote --version` prints the versions of sidenote and its libraries.\n";

static void print_words(FILE *f)
{
	fputs("usage: sidenote WORD [ARGUMENT]...\n\n", f);
	for (const struct verb *v = verbs; v->name; v++)
		fprintf(f, "  %-8s  %s\n", v->name, v->help);
	fputs(outro, f);
}

static const struct verb *find(const char *name)
{
	for (const struct verb *v = verbs; v->name; v++)
		if (!strcmp(v->name, name))
			return v;
	return NULL;
}

static int unknown(const char *word)
{
	struct nearest n;

	nearest_begin(&n, word);
	for (const struct verb *v = verbs; v->name; v++)
		nearest_try(&n, v->name);
	nearest_try(&n, "help");
	if (n.best)
		fprintf(stderr, "sidenote: no such word: %s; did you mean %s?\n", word, n.best);
	else
		fprintf(stderr, "sidenote: no such word: %s; `sidenote help` has them all\n", word);
	return EXIT_USAGE;
}

static int help(const char *word)
{
	const struct verb *v;

	if (!word || !strcmp(word, "help")) {
		print_words(stdout);
	} else if (!strcmp(word, "options")) {
		config_print(stdout);
	} else if (!strcmp(word, "join-options")) {
		join_config_print(stdout);
	} else if (!strcmp(word, "metrics")) {
		metrics_document(stdout);
	} else if ((v = find(word))) {
		printf("usage: sidenote %s %s", v->name, v->usage);
	} else {
		return unknown(word);
	}
	return EXIT_DONE;
}

/* What was printed may be all that somebody keeps: a full disk is not success. */
static int finish(int status)
{
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "sidenote: cannot write to stdout: %s\n", strerror(errno));
		return status ? status : EXIT_NOT_READY;
	}
	return status;
}

static bool is_help(const char *arg) { return !strcmp(arg, "--help") || !strcmp(arg, "-h"); }

static int dispatch(int argc, char **argv)
{
	const char *word = argv[1];
	const struct verb *v = find(word);

	if (!strcmp(word, "help") || is_help(word))
		return help(argc > 2 ? argv[2] : NULL);
	if (!strcmp(word, "--version")) {
		version_print(stdout);
		return EXIT_DONE;
	}
	if (!v)
		return unknown(word);
	if (argc > 2 && is_help(argv[2]))
		return help(word);
	return v->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		print_words(stderr);
		return EXIT_USAGE;
	}
	return finish(dispatch(argc, argv));
}
