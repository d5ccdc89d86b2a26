#include "cmd.h"
#include "config.h"
#include "log.h"
#include "run.h"
#include "stop.h"

#include <stdio.h>
#include <string.h>

int cmd_run(int argc, char **argv)
{
	struct config c;
	char err[500];
	int next, code = EXIT_USAGE;

	config_init(&c);
	if (config_args(&c, argc, argv, &next, err, sizeof(err)))
		log_error("SN-CONFIG", "%s", err);
	else if (next < argc)
		log_error("SN-CONFIG", "run: unexpected argument '%s'; see `sidenote help run`",
			  argv[next]);
	else {
		log_init(c.log_level, c.log_format);
		code = run_sidecar(&c, &(struct run_options){ .stop = stop_on_signals() });
	}
	config_free(&c);
	return code;
}
