/*
 * points.c - deaths at the named points of the program (fault.h), in a build with
 * FAULTS=1 and with --points.
 *
 * A seed has one point: whoever passes it dies there, one time in two, by a kill
 * or a power cut, some times at most, or nothing would ever get behind it.  What
 * leads to it happens often in that run: the kind of point is the first word of
 * its line in tests/faults/points.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEATHS_MAX = 30, RARE_SHARE = 8 };

struct sim_points sim_points;
static int target = -1, deaths;

void fault_point(const char *name);

void points_load(const char *path)
{
	FILE *f = fopen(path, "r");
	char line[200], word[40], name[40];

	while (f && fgets(line, sizeof(line), f))
		if (line[0] != '#' && sscanf(line, "%39s %39s", word, name) == 2) {
			if (sim_points.n == POINTS_MAX)
				abort();
			memcpy(sim_points.kind[sim_points.n], word, sizeof(word));
			memcpy(sim_points.name[sim_points.n++], name, sizeof(name));
		}
	if (!sim_points.n) {
		perror(path);
		exit(2);
	}
	fclose(f);
}

/* Nothing here has a Redis, notifications.compacted.topic, or more records than fit in memory. */
static bool is_reached(int i)
{
	static const char *const not [] = { "redis", "gone", "load" };

	for (size_t k = 0; k < sizeof(not ) / sizeof(*not ); k++)
		if (!strcmp(sim_points.kind[i], not [k]))
			return false;
	return strcmp(sim_points.name[i], "sort.spill") != 0;
}

/* Passed so seldom that each passing has to count, and they get more of the seeds. */
static bool is_rare(int i)
{
	return !strcmp(sim_points.kind[i], "abort") || !strcmp(sim_points.kind[i], "readback");
}

const char *points_kind(void) { return target < 0 ? "" : sim_points.kind[target]; }

void points_begin(uint64_t seed)
{
	int reached[POINTS_MAX * RARE_SHARE], n = 0;

	for (int i = 0; i < sim_points.n; i++)
		for (int k = 0; is_reached(i) && k < (is_rare(i) ? RARE_SHARE : 1); k++)
			reached[n++] = i;
	target = n ? reached[seed % (uint64_t)n] : -1;
	deaths = 0;
	memset(sim_points.passed, 0, sizeof(sim_points.passed));
	memset(sim_points.died, 0, sizeof(sim_points.died));
}

static int number_of(const char *name)
{
	for (int i = 0; i < sim_points.n; i++)
		if (!strcmp(sim_points.name[i], name))
			return i;
	return -1;
}

void fault_point(const char *name)
{
	struct host *h = this_host();
	int i;

	if (!h || sim_is_child || (i = number_of(name)) < 0)
		return;
	sim_points.passed[i]++;
	if (i != target || world_is_healing() || deaths == DEATHS_MAX ||
	    (!is_rare(i) && !one_in(2)))
		return;
	deaths++;
	sim_points.died[i]++;
	say("host %d: dies at %s", h->id, name);
	host_die(h, one_in(2) ? DEATH_POWER : DEATH_KILL);
}
