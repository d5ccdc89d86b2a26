#include "harness.h"
#include "memory.h"
#include "state.h"

#include <fcntl.h>
#include <sys/mman.h>

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
	write_text(*state, "/sys/fs/cgroup/kube/pod/box/memory.high", "100000\n");
	assert_int_equal(memory_bytes(*state), 100000);
}

/* In a container the path may be that of the host, and the mount begins at the group. */
static void test_version_1_and_a_path_that_is_not_there(void **state)
{
	write_text(*state, "/proc/self/cgroup",
		   "12:cpuset:/small\n5:cpu,memory:/docker/1\n0::/docker/1\n");
	write_text(*state, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "500000\n");
	write_text(*state, "/sys/fs/cgroup/memory/small/memory.limit_in_bytes", "400000\n");
	assert_int_equal(memory_bytes(*state), 500000);
	write_text(*state, "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
		   "9223372036854771712\n"); /* none */
	assert_int_equal(memory_bytes(*state), 500000);
	write_text(*state, "/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "300000\n");
	assert_int_equal(memory_bytes(*state), 300000);
}

static void test_what_cannot_be_read_is_no_limit(void **state)
{
	write_text(*state, "/proc/self/cgroup", "nonsense\n5:memory\n0::\n::\n");
	write_text(*state, "/sys/fs/cgroup/memory.max", "many\n");
	assert_int_equal(memory_bytes(*state), machine());
}

/* ---- what is asked for beforehand ---- */

enum { KEYS = 5000, VALUE_BYTES = 200 };

static struct state *open_or_fill(struct state_dir *d, bool fill)
{
	const struct state_identity who = { "shop", "cluster", "shop.products" };
	const struct state_options options = { .lease_ms = 100 };
	char err[300];
	struct state *st;
	int rc = fill ? state_create(&st, d, &who, &options, err, sizeof(err))
		      : state_open(&st, d, &who, &options, err, sizeof(err));
	if (rc)
		fail_msg("%s", err);
	return st;
}

static size_t key_at(char key[16], int i) { return (size_t)snprintf(key, 16, "key-%06d", i); }

static void fill(struct state_dir *d)
{
	char key[16], value[VALUE_BYTES] = { 0 }, err[300];
	struct state *st = open_or_fill(d, true);
	struct state_txn *t;
	assert_int_equal(state_begin(st, &t), 0);
	for (int i = 0; i < KEYS; i++)
		assert_int_equal(state_put(t, key, key_at(key, i), value, sizeof(value)), 0);
	assert_int_equal(state_commit(t), 0);
	assert_int_equal(state_make_current(st, err, sizeof(err)), 0);
	assert_int_equal(state_begin(st, &t), 0);
	assert_false(state_expects(t)); /* it fits */
	state_abort(t);
	state_close(st);
}

/* How many of the file's first pages are in memory. */
static size_t count_in_memory(int fd, size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (bytes + page - 1) / page, n = 0;
	unsigned char *there = malloc(pages);
	void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	assert_true(there && map != MAP_FAILED);
	assert_int_equal(mincore(map, bytes, there), 0);
	for (size_t i = 0; i < pages; i++)
		n += there[i] & 1;
	munmap(map, bytes);
	free(there);
	return n;
}

static void expect_all_keys(struct state_txn *t)
{
	char key[16];
	for (int i = 0; i < KEYS; i++)
		state_expect(t, key, key_at(key, i));
	state_expect(t, "", 0);
	state_expect(t, "zzz", 3); /* in no page, or in the last: no matter */
	state_read_expected(t);
}

/* The pages of the keys, which are nearly all there are, and without a fault of any. */
static void test_what_does_not_fit_is_read_before_it_is_got(void **state)
{
	char err[300], data[4096];
	struct state_dir *d;
	struct state_txn *t;
	struct stat s;
	assert_int_equal(state_dir_open(&d, *state, err, sizeof(err)), 0);
	fill(d);
	snprintf(data, sizeof(data), "%s/current/data.mdb", (const char *)*state);
	int fd = open(data, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0 && !fstat(fd, &s));
	size_t bytes = KEYS * VALUE_BYTES, all = bytes / (size_t)sysconf(_SC_PAGESIZE);
	assert_true(s.st_size > (off_t)bytes);
	/* no disk is needed: what is behind the last page is a hole */
	assert_int_equal(ftruncate(fd, (off_t)machine()), 0);
	struct state *st = open_or_fill(d, false);
	assert_int_equal(state_begin(st, &t), 0);
	assert_true(state_expects(t));
	assert_int_equal(fsync(fd), 0);
	/* where that does nothing, on a file system in memory say, this test says little */
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	expect_all_keys(t);
	assert_true(count_in_memory(fd, bytes) >= all - all / 10);
	state_abort(t);
	close(fd);
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
		test_with_dir(test_what_does_not_fit_is_read_before_it_is_got),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
