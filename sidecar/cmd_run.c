#include "cmd.h"
#include "config.h"
#include "log.h"
#include "run.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

static atomic_bool stop;

static void on_signal(int sig)
{
	(void)sig;
	atomic_store(&stop, true);
}

static void take_signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal };

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	sa.sa_handler = SIG_IGN;
	sigaction(SIGPIPE, &sa, NULL);
	/* a lease or a value must not end in a core file that others can read */
	prctl(PR_SET_DUMPABLE, 0);
}

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
		take_signals();
		code = run_sidecar(&c, &(struct run_options){ .stop = &stop });
	}
	config_free(&c);
	return code;
}
