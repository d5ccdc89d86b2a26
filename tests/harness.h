/*
 * harness.h - what every unit test includes: cmocka, and a directory that is
 * gone afterwards.
 *
 *   static void test_a_key_that_was_put_is_found(void **state)
 *   {
 *           const char *dir = *state;
 *           ...
 *   }
 *   const struct CMUnitTest tests[] = {
 *           test_with_dir(test_a_key_that_was_put_is_found),
 *           cmocka_unit_test(...),
 *   };
 */
#ifndef HARNESS_H
#define HARNESS_H

/* cmocka.h needs the four before it; do not sort */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static inline int make_dir(void **state)
{
	const char *tmp = getenv("TMPDIR");
	char *dir;

	if (asprintf(&dir, "%s/sidenote-test-XXXXXX", tmp ? tmp : "/tmp") < 0)
		return -1;
	*state = dir;
	return mkdtemp(dir) ? 0 : -1;
}

static inline int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static inline int remove_dir(void **state)
{
	int rc = nftw(*state, remove_entry, 16, FTW_DEPTH | FTW_PHYS);

	free(*state);
	return rc;
}

#define test_with_dir(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

/** A new file `name` in `dir` with this mode and these bytes; its path, to be freed. */
static inline char *make_file(const char *dir, const char *name, mode_t mode, const void *bytes,
			      size_t len)
{
	char *path;
	FILE *f;

	assert_true(asprintf(&path, "%s/%s", dir, name) > 0);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(path, mode), 0);
	return path;
}

#endif
