/*
 * The simulation: runs of the whole sidecar over a model of Kafka, by seed.
 *
 *   build/tests/simulation/run --seeds 1-10000 [--jobs 2] [--plant NAME]
 *   build/tests/simulation/run --seed 4711 [-v]     the same run again, told
 *   build-faults/tests/simulation/run --points --seeds 1-10000
 *                                                   deaths at the points of tests/faults/points
 *
 * Exit status: 0, or 1 when a seed found something; then each such seed is
 * printed with what it found.
 */
#include "sim.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SEEDS_PER_PROCESS = 50, TELL_MAX = 20 };

struct result {
	uint64_t seed;
	bool bad;
	char text[sizeof(sim_violation)];
	struct run_figures figures;
	uint32_t passed[POINTS_MAX], died[POINTS_MAX];
};

static uint64_t first = 1, last = 200;
static int jobs = 1;
static bool stop_at_first;

static void usage(void)
{
	fprintf(stderr, "usage: run [--seed N | --seeds A-B] [--jobs N] [--plant NAME] [--first] "
			"[--points] [-v] | --plants\n");
	exit(2);
}

static enum plant plant_of(const char *name)
{
	for (int i = 0; i < PLANTS; i++)
		if (!strcmp(plant_names[i], name))
			return (enum plant)i;
	usage();
	return PLANT_NONE;
}

static void arguments(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";
		if (!strcmp(argv[i], "--plants")) {
			for (int p = 1; p < PLANTS; p++)
				puts(plant_names[p]);
			exit(0);
		}
		if (!strcmp(argv[i], "-v"))
			sim_verbose = true;
		else if (!strcmp(argv[i], "--points"))
			points_load("tests/faults/points");
		else if (!strcmp(argv[i], "--first"))
			stop_at_first = true;
		else if (!strcmp(argv[i], "--seed") && ++i)
			first = last = strtoull(value, NULL, 10);
		else if (!strcmp(argv[i], "--jobs") && ++i)
			jobs = atoi(value);
		else if (!strcmp(argv[i], "--plant") && ++i)
			sim_plant = plant_of(value);
		else if (!strcmp(argv[i], "--seeds") && ++i &&
			 sscanf(value, "%llu-%llu", (unsigned long long *)&first,
				(unsigned long long *)&last) == 2)
			continue;
		else
			usage();
	}
}

/* A process of its own: what a host leaves behind when it dies is memory. */
static void run_some(uint64_t from, uint64_t to, int out)
{
	/* what is large comes as untouched pages, what is small stays */
	mallopt(M_MMAP_THRESHOLD, 128 << 10);
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	disk_start();
	for (uint64_t seed = from; seed <= to; seed++) {
		struct result r = { .seed = seed };
		memset(&figures, 0, sizeof(figures));
		world_run(seed);
		r.bad = *sim_violation;
		memcpy(r.text, sim_violation, sizeof(r.text));
		r.figures = figures;
		memcpy(r.passed, sim_points.passed, sizeof(r.passed));
		memcpy(r.died, sim_points.died, sizeof(r.died));
		if (write(out, &r, sizeof(r)) != sizeof(r))
			break;
	}
	disk_reset();
	disk_end();
	fflush(stdout);
}

static struct worker {
	pid_t pid;
	int in;
	uint64_t next, to;
} workers[16];

static uint64_t next_seed, done, bad;
static struct run_figures sum;
static uint64_t passed[POINTS_MAX], died[POINTS_MAX];
static volatile sig_atomic_t asked_to_stop;

static void take(const struct result *r)
{
	const uint64_t *from = (const uint64_t *)&r->figures;
	uint64_t *to = (uint64_t *)&sum;

	for (size_t i = 0; i < sizeof(sum) / sizeof(uint64_t); i++)
		to[i] += from[i];
	for (int i = 0; i < POINTS_MAX; i++) {
		passed[i] += r->passed[i];
		died[i] += r->died[i];
	}
	done++;
	if (r->bad && bad++ < TELL_MAX)
		printf("seed %llu: %s\n", (unsigned long long)r->seed, r->text);
	fflush(stdout);
}

static bool begin(struct worker *k)
{
	int fds[2];

	if (next_seed > last || (stop_at_first && bad) || asked_to_stop)
		return false;
	k->next = next_seed;
	k->to = k->next + SEEDS_PER_PROCESS - 1 < last ? k->next + SEEDS_PER_PROCESS - 1 : last;
	next_seed = k->to + 1;
	if (pipe(fds)) {
		perror("pipe");
		exit(1);
	}
	fflush(stdout);
	k->pid = fork();
	if (k->pid == 0) {
		signal(SIGTERM, SIG_IGN);
		close(fds[0]);
		run_some(k->next, k->to, fds[1]);
		exit(0);
	}
	close(fds[1]);
	k->in = fds[0];
	return true;
}

/* Everything this one has to say, until it is done: the others go on meanwhile. */
static void end(struct worker *k)
{
	struct result r;
	int status;
	ssize_t n;

	while ((n = read(k->in, &r, sizeof(r))) == (ssize_t)sizeof(r)) {
		take(&r);
		k->next = r.seed + 1;
	}
	close(k->in);
	waitpid(k->pid, &status, 0);
	if (k->next <= k->to) { /* it died of this one */
		struct result dead = { .seed = k->next, .bad = true };
		snprintf(dead.text, sizeof(dead.text), "the program crashed, status %d", status);
		take(&dead);
		if (k->next < k->to && next_seed > k->to) { /* the rest of its share is lost */
			printf("seeds %llu-%llu were not run\n", (unsigned long long)k->next + 1,
			       (unsigned long long)k->to);
		}
	}
	k->pid = 0;
}

static double seconds(void)
{
	struct timespec t;
	timespec_get(&t, TIME_UTC);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void tell(double took)
{
	printf("{\"held\": %s, \"seeds\": %llu, \"first\": %llu, \"bad\": %llu, \"plant\": \"%s\", "
	       "\"seconds\": %.1f, \"seeds_per_minute\": %.0f, \"simulated_hours\": %.1f, "
	       "\"records\": %llu, \"notifications\": %llu, \"gap\": %llu, \"reconcile\": %llu, "
	       "\"kills\": %llu, \"power_cuts\": %llu, \"pauses\": %llu, \"lost_states\": %llu, "
	       "\"rebuilds\": %llu, \"late_requests\": %llu, \"compacted\": %llu, "
	       "\"points\": %llu, \"untold\": %llu, \"resumed\": %llu}\n",
	       bad ? "false" : "true", (unsigned long long)done, (unsigned long long)first,
	       (unsigned long long)bad, plant_names[sim_plant], took, (double)done * 60 / took,
	       (double)sum.simulated / SECOND / 3600, (unsigned long long)sum.records,
	       (unsigned long long)sum.notifications, (unsigned long long)sum.gaps,
	       (unsigned long long)sum.reconciled, (unsigned long long)sum.kills,
	       (unsigned long long)sum.power_cuts, (unsigned long long)sum.pauses,
	       (unsigned long long)sum.lost_states, (unsigned long long)sum.rebuilds,
	       (unsigned long long)sum.late_requests, (unsigned long long)sum.compacted,
	       (unsigned long long)sum.points, (unsigned long long)sum.untold,
	       (unsigned long long)sum.resumed);
}

static void tell_points(void)
{
	for (int i = 0; i < sim_points.n; i++)
		printf("%-22s passed %12llu times, died there %8llu times\n", sim_points.name[i],
		       (unsigned long long)passed[i], (unsigned long long)died[i]);
}

/* Those that run go on to their end, and are told of. */
static void on_signal(int sig) { asked_to_stop = sig; }

int main(int argc, char **argv)
{
	double began = seconds();
	int running = 0;

	arguments(argc, argv);
	if (jobs < 1 || jobs > 16)
		usage();
	signal(SIGTERM, on_signal);
	next_seed = first;
	for (int i = 0; i < jobs; i++)
		running += begin(&workers[i]);
	for (int i = 0; running; i = (i + 1) % jobs) {
		if (!workers[i].pid)
			continue;
		end(&workers[i]);
		running--;
		running += begin(&workers[i]);
	}
	tell_points();
	tell(seconds() - began);
	return bad ? 1 : 0;
}
