#include "cmd.h"
#include "config.h"
#include "nearest.h"

#include <stdio.h>
#include <string.h>

static const struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} verbs[] = {
#ifdef HAVE_CMD_run
	{ "run", cmd_run, "the sidecar" },
#endif
#ifdef HAVE_CMD_check
	{ "check", cmd_check, "the configuration and what it needs" },
#endif
#ifdef HAVE_CMD_demo
	{ "demo", cmd_demo, "embedded broker, a pipeline, changes to watch" },
#endif
#ifdef HAVE_CMD_get
	{ "get", cmd_get, "look keys up in a snapshot" },
#endif
#ifdef HAVE_CMD_scan
	{ "scan", cmd_scan, "print a snapshot" },
#endif
#ifdef HAVE_CMD_stat
	{ "stat", cmd_stat, "positions, sizes, role" },
#endif
#ifdef HAVE_CMD_watch
	{ "watch", cmd_watch, "follow a notification topic" },
#endif
#ifdef HAVE_CMD_verify
	{ "verify", cmd_verify, "compare a snapshot with its topic" },
#endif
	{ 0 },
};

int main(int argc, char **argv)
{
	struct nearest n;

	if (argc < 2)
		return EXIT_USAGE;
	if (argc == 3 && !strcmp(argv[1], "help") && !strcmp(argv[2], "options")) {
		config_print(stdout);
		return EXIT_DONE;
	}
	nearest_begin(&n, argv[1]);
	for (const struct verb *v = verbs; v->name; v++) {
		if (!strcmp(v->name, argv[1]))
			return v->run(argc - 1, argv + 1);
		nearest_try(&n, v->name);
	}
	fprintf(stderr, "sidenote: no such word: %s%s%s\n", argv[1],
		n.best ? "; did you mean " : "", n.best ? n.best : "");
	return EXIT_USAGE;
}
