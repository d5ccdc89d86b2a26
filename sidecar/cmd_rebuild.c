#include "cmd.h"
#include "config.h"
#include "control.h"
#include "log.h"

#include <stdio.h>
#include <string.h>

static void show(const char *kind, const char *text)
{
	if (!strcmp(kind, "error"))
		log_error("SN-REBUILD-FAILED", "%s", text);
	else
		printf("%s\n", text);
	fflush(stdout);
}

int cmd_rebuild(int argc, char **argv)
{
	struct config c;
	char err[500];
	int next, rc, code = EXIT_USAGE;

	config_init(&c);
	if (config_args(&c, argc, argv, &next, err, sizeof(err))) {
		log_error("SN-CONFIG", "%s", err);
		goto out;
	}
	/* a round alone is the cheaper half of a rebuild: the same question, one word more */
	const char *word = next < argc && !strcmp(argv[next], "--round-only") ? "round" : "rebuild";
	if (next < argc && strcmp(word, "round")) {
		log_error("SN-CONFIG",
			  "rebuild: unexpected argument '%s'; see `sidenote help rebuild`",
			  argv[next]);
		goto out;
	}
	rc = control_ask(c.state_dir, word, show, err, sizeof(err));
	if (rc < 0)
		log_error("SN-NOT-RUNNING", "%s", err);
	code = rc < 0 ? EXIT_NOT_READY : rc ? EXIT_BROKEN : EXIT_DONE;
out:
	config_free(&c);
	return code;
}
