/* The join as a process: its options, signals, and a watch over calls that do not return. */
#include "cmd.h"
#include "join.h"
#include "log.h"
#include "stop.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum {
	LOOK_MS = 50,
	CALL_BUDGET_MS = 180000, /* a call that outlives it ends the process */
	STOP_BUDGET_MS = 30000,  /* for the last batch and leaving the group */
};

struct work {
	const atomic_bool *stop;
	struct join *join;
	int code;
	atomic_bool done;
};

static void *run(void *arg)
{
	struct work *w = arg;

	w->code = join_run(w->join);
	atomic_store(&w->done, true);
	return NULL;
}

/* Nothing that is not committed counts, so ending at any moment loses nothing. */
static void watch(struct work *w)
{
	int stopping_ms = 0;

	while (!atomic_load(&w->done)) {
		usleep(LOOK_MS * 1000);
		stopping_ms += atomic_load(w->stop) ? LOOK_MS : 0;
		if (join_call_ms(w->join) <= CALL_BUDGET_MS && stopping_ms <= STOP_BUDGET_MS)
			continue;
		log_error("SN-JOIN-STUCK", "a call to Kafka does not return; ending the process, "
					   "which loses nothing: start it again");
		_exit(EXIT_NOT_READY);
	}
}

static int work(const struct join_config *c)
{
	struct work w = { .stop = stop_on_signals(), .code = EXIT_NOT_READY };
	pthread_t t;

	if (join_new(&w.join, c, w.stop) || pthread_create(&t, NULL, run, &w)) {
		log_error("SN-START", "no memory or no thread to start with");
	} else {
		watch(&w);
		pthread_join(t, NULL);
	}
	join_free(w.join);
	return w.code;
}

int cmd_join(int argc, char **argv)
{
	struct join_config c;
	char err[500];
	int next, code = EXIT_USAGE;

	join_config_init(&c);
	if (join_config_args(&c, argc, argv, &next, err, sizeof(err)))
		log_error("SN-CONFIG", "%s", err);
	else if (next < argc)
		log_error("SN-CONFIG", "join: unexpected argument '%s'; see `sidenote help join`",
			  argv[next]);
	else {
		log_init(c.log_level, c.log_format);
		code = work(&c);
	}
	join_config_free(&c);
	return code;
}
