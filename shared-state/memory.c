#include "memory.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t lower(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* "max", and where there is no such file, is no limit. */
static uint64_t read_limit(const char *group, const char *file)
{
	char path[PATH_MAX];
	uint64_t limit = UINT64_MAX;
	if (!file || snprintf(path, sizeof(path), "%s/%s", group, file) >= (int)sizeof(path))
		return limit;
	FILE *f = fopen(path, "re");
	if (!f)
		return limit;
	if (fscanf(f, "%" SCNu64, &limit) != 1)
		limit = UINT64_MAX;
	fclose(f);
	return limit;
}

/* Files `a` and, if not NULL, `b` of the group `path` below `mount` and of all above it. */
static uint64_t lowest_limit(const char *mount, const char *path, const char *a, const char *b)
{
	char group[PATH_MAX];
	uint64_t lowest = UINT64_MAX;
	if (snprintf(group, sizeof(group), "%s%s", mount, path) >= (int)sizeof(group))
		return lowest;
	for (size_t end = strlen(group); end >= strlen(mount); end--) {
		if (group[end] && group[end] != '/')
			continue;
		group[end] = 0;
		lowest = lower(lowest, lower(read_limit(group, a), read_limit(group, b)));
	}
	return lowest;
}

/* A line of /proc/self/cgroup: number, controllers and path, with colons between them. */
static uint64_t limit_of_line(char *line, const char *root)
{
	char mount[PATH_MAX], *controllers = strchr(line, ':'),
			      *path = controllers ? strchr(controllers + 1, ':') : NULL;
	if (!path)
		return UINT64_MAX;
	*controllers++ = *path++ = 0;
	path[strcspn(path, "\n")] = 0;
	bool second = !*controllers; /* version 2 names none */
	if (!second && !strstr(controllers, "memory"))
		return UINT64_MAX;
	snprintf(mount, sizeof(mount), "%s/sys/fs/cgroup%s", root, second ? "" : "/memory");
	return second ? lowest_limit(mount, path, "memory.max", "memory.high")
		      : lowest_limit(mount, path, "memory.limit_in_bytes", NULL);
}

static uint64_t group_limit(const char *root)
{
	char path[PATH_MAX], *line = NULL;
	size_t size = 0;
	uint64_t lowest = UINT64_MAX;
	snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
	FILE *f = fopen(path, "re");
	if (!f)
		return lowest;
	while (getline(&line, &size, f) > 0)
		lowest = lower(lowest, limit_of_line(line, root));
	free(line);
	fclose(f);
	return lowest;
}

uint64_t memory_bytes(const char *root)
{
	long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
	uint64_t machine = pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : UINT64_MAX;
	return lower(machine, group_limit(root));
}
