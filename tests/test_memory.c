#include "harness.h"
#include "memory.h"
#include "shared_state.h"
#include "state.h"

#include <unistd.h>

/* ---- how much there is ---- */

static void write_text(const char *root, const char *path, const char *text)
{
	char name[4096];
	assert_true(snprintf(name, sizeof(name), "%s%s", root, path) < (int)sizeof(name));
	for (char *p = name + strlen(root) + 1; (p = strchr(p, '/')); *p++ = '/') {
		*p = 0;
		assert_true(mkdir(name, 0700) == 0 || errno == EEXIST);
	}
	FILE *f = fopen(name, "w");
	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static uint64_t machine(void)
{
	return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void test_without_groups_it_is_the_machines(void **state)
{
	assert_int_equal(memory_bytes(*state), machine());
	write_text(*state, "/proc/self/cgroup", "0::/\n");
	assert_int_equal(memory_bytes(*state), machine());
	write_text(*state, "/sys/fs/cgroup/memory.max", "max\n");
	assert_int_equal(memory_bytes(*state), machine());
}

static void test_the_lowest_limit_above_a_group_counts(void **state)
{
	write_text(*state, "/proc/self/cgroup", "0::/kube/pod/box\n");
	write_text(*state, "/sys/fs/cgroup/kube/pod/box/memory.max", "max\n");
	write_text(*state, "/sys/fs/cgroup/kube/pod/memory.max", "300000\n");
	write_text(*state, "/sys/fs/cgroup/kube/memory.max", "900000\n");
	assert_int_equal(memory_bytes(*state), 300000);
	write_text(*state, "/sys/fs/cgroup/memory.max", "200000\n");
	assert_int_equal(memory_bytes(*state), 200000);
}

/* In a container the path may be that of the host, and the mount begins at the group. */
static void test_version_1_and_a_path_that_is_not_there(void **state)
{
	write_text(*state, "/proc/self/cgroup",
		   "12:cpuset:/docker/1\n5:memory:/docker/1\n0::/docker/1\n");
	write_text(*state, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "500000\n");
	assert_int_equal(memory_bytes(*state), 500000);
}

static void test_what_cannot_be_read_is_no_limit(void **state)
{
	write_text(*state, "/proc/self/cgroup", "nonsense\n5:memory\n0::\n::\n");
	write_text(*state, "/sys/fs/cgroup/memory.max", "many\n");
	assert_int_equal(memory_bytes(*state), machine());
}

/* ---- what the kernel is told: "rr" among the flags of a map ---- */

/* How many maps of a data.mdb this process has, and how many are read page by page. */
static void count_maps(int *all, int *one_by_one)
{
	char *line = NULL;
	size_t size = 0;
	bool data = false;
	FILE *f = fopen("/proc/self/smaps", "re");
	assert_non_null(f);
	*all = *one_by_one = 0;
	while (getline(&line, &size, f) > 0) {
		if (!(line[0] >= 'A' && line[0] <= 'Z')) { /* addresses, and so another map */
			data = strstr(line, "/data.mdb") != NULL;
			*all += data;
		} else if (data && strncmp(line, "VmFlags:", 8) == 0) {
			*one_by_one += strstr(line, " rr") != NULL;
		}
	}
	free(line);
	fclose(f);
}

static struct state *open_or_fill(struct state_dir *d, bool fill)
{
	const struct state_identity who = { "shop", "shop.products", "cluster" };
	const struct state_options options = { .lease_ms = 100 };
	char err[300];
	struct state *st;
	int rc = fill ? state_create(&st, d, &who, &options, err, sizeof(err))
		      : state_open(&st, d, &who, &options, err, sizeof(err));
	if (rc)
		fail_msg("%s", err);
	return st;
}

static void test_a_file_beyond_memory_is_read_page_by_page(void **state)
{
	char err[300], data[4096];
	struct state_dir *d;
	struct sstate *s;
	int all, one_by_one;
	assert_int_equal(state_dir_open(&d, *state, err, sizeof(err)), 0);
	struct state *st = open_or_fill(d, true);
	assert_int_equal(state_make_current(st, err, sizeof(err)), 0);
	assert_int_equal(sstate_open(&s, *state), 0);
	count_maps(&all, &one_by_one);
	assert_int_equal(all, 2);
	assert_int_equal(one_by_one, 0);
	sstate_close(s);
	state_close(st);

	/* no disk is needed: what is behind the last page is a hole */
	snprintf(data, sizeof(data), "%s/current/data.mdb", (const char *)*state);
	assert_int_equal(truncate(data, (off_t)machine()), 0);
	st = open_or_fill(d, false);
	assert_int_equal(sstate_open(&s, *state), 0);
	count_maps(&all, &one_by_one);
	assert_int_equal(all, 2);
	assert_int_equal(one_by_one, 2);
	sstate_close(s);
	state_close(st);
	state_dir_close(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_with_dir(test_without_groups_it_is_the_machines),
		test_with_dir(test_the_lowest_limit_above_a_group_counts),
		test_with_dir(test_version_1_and_a_path_that_is_not_there),
		test_with_dir(test_what_cannot_be_read_is_no_limit),
		test_with_dir(test_a_file_beyond_memory_is_read_page_by_page),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
