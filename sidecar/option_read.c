/* Where options come from: files, the environment, arguments. */
#include "option.h"
#include "property.h"
#include "refuse.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	LINE_BYTES = 64 * 1024, /* bytes */
	MESSAGE_MAX = 512,
};

static bool starts_with(const char *s, const char *prefix)
{
	return !strncmp(s, prefix, strlen(prefix));
}

static bool ends_with(const char *s, const char *suffix)
{
	size_t ls = strlen(s), lx = strlen(suffix);

	return ls >= lx && !strcmp(s + ls - lx, suffix);
}

/* Without white space at both ends; writes into `s`. */
static char *trim(char *s)
{
	size_t len;

	while (isspace((unsigned char)*s))
		s++;
	len = strlen(s);
	while (len && isspace((unsigned char)s[len - 1]))
		s[--len] = '\0';
	return s;
}

/* ---- files ---- */

/* Length of the next line, without its end; -1: no more; -2: longer than `size`. */
static ssize_t read_line(FILE *f, char *line, size_t size)
{
	size_t n = 0;
	int ch;

	while ((ch = getc_unlocked(f)) != EOF && ch != '\n') {
		if (n + 1 == size)
			return -2;
		line[n++] = ch;
	}
	line[n] = '\0';
	return ch == EOF && !n ? -1 : (ssize_t)n;
}

static int set_line(const struct option_table *t, void *c, char *line, char *err, size_t err_len)
{
	char *name = trim(line), *equals;

	if (!*name || *name == '#')
		return 0;
	if (ends_with(name, "\\"))
		return refuse(err, err_len,
			      "ends in a backslash, which does not continue a line here: write "
			      "the value on one line, or use <name>.file");
	if (!(equals = strchr(name, '=')))
		/* the first word alone: what follows may be a secret */
		return refuse(err, err_len, "'%.*s' is not name=value", (int)strcspn(name, " \t:"),
			      name);
	*equals = '\0';
	return option_set(t, c, trim(name), trim(equals + 1), err, err_len);
}

static int set_lines(const struct option_table *t, void *c, FILE *f, char *line, int *number,
		     char *err, size_t err_len)
{
	ssize_t len;
	int rc = 0;

	while (!rc && (len = read_line(f, line, LINE_BYTES)) != -1) {
		/* what some editors put first */
		char *text = ++*number == 1 && starts_with(line, "\xef\xbb\xbf") ? line + 3 : line;

		if (len == -2)
			rc = refuse(err, err_len, "has more than %d bytes", LINE_BYTES - 1);
		else if ((size_t)len != strlen(line))
			rc = refuse(err, err_len, "has a NUL byte: not a text file");
		else
			rc = set_line(t, c, text, err, err_len);
	}
	return rc;
}

int option_file(const struct option_table *t, void *c, const char *path, char *err, size_t err_len)
{
	char *line = malloc(LINE_BYTES), why[MESSAGE_MAX];
	FILE *f = fopen(path, "re");
	int number = 0, rc;

	if (!line)
		rc = refuse_memory(err, err_len);
	else if (!f)
		rc = refuse(err, err_len, "%s: %s", path, strerror(errno));
	else if ((rc = set_lines(t, c, f, line, &number, why, sizeof(why))))
		snprintf(err, err_len, "%s:%d: %s", path, number, why);
	else if (ferror(f))
		rc = refuse(err, err_len, "%s: %s", path, strerror(errno));
	if (f)
		fclose(f);
	free(line);
	return rc;
}

/* ---- environment ---- */

static const char ENV_PREFIX[] = "SIDENOTE_";

/*
 * Kubernetes gives a pod SIDENOTE_SERVICE_HOST, SIDENOTE_PORT_9090_TCP_ADDR and
 * more for every service called sidenote or sidenote-something.  No option has
 * such a name.
 */
static bool is_service_link(const char *name)
{
	const char *port = strstr(name, "_PORT");

	if (ends_with(name, "_SERVICE_HOST") || strstr(name, "_SERVICE_PORT"))
		return true;
	return port && (!port[5] || (port[5] == '_' && isdigit((unsigned char)port[6])));
}

static int set_variable(const struct option_table *t, void *c, const char *variable, char *err,
			size_t err_len)
{
	size_t len = strcspn(variable, "=");
	char *full = strndup(variable, len), *name = full ? strdup(full) : NULL;
	char why[MESSAGE_MAX];
	int rc = 0;

	if (!name) {
		rc = refuse_memory(err, err_len);
	} else if (!is_service_link(full)) {
		for (char *s = name; *s; s++)
			*s = *s == '_' ? '.' : tolower((unsigned char)*s);
		rc = option_set(t, c, name + strlen(ENV_PREFIX), variable + len + 1, why,
				sizeof(why));
		if (rc)
			snprintf(err, err_len, "%s: %s", full, why);
	}
	free(name);
	free(full);
	return rc;
}

int option_environment(const struct option_table *t, void *c, char *const *env, char *err,
		       size_t err_len)
{
	for (; *env; env++) {
		int rc = starts_with(*env, ENV_PREFIX) && strchr(*env, '=')
				 ? set_variable(t, c, *env, err, err_len)
				 : 0;
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- arguments ---- */

static bool is_flag(const char *arg, char letter) { return arg[0] == '-' && arg[1] == letter; }

/*
 * Moves -F and -X with their values to the front, the other words keep their
 * order: *n is the index of the first of those.
 */
static int gather(int argc, char **argv, int *n, char *err, size_t err_len)
{
	*n = 1;
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
		if (!is_flag(argv[i], 'F') && !is_flag(argv[i], 'X'))
			continue;
		bool joined = argv[i][2];
		char *flag = argv[i], *value = joined ? NULL : argv[i + 1];
		int words = joined ? 1 : 2;

		if (!joined && !value)
			return refuse(err, err_len, "%s: needs %s", flag,
				      flag[1] == 'F' ? "a file" : "name=value");
		memmove(&argv[*n + words], &argv[*n], (i - *n) * sizeof(*argv));
		argv[*n] = flag;
		if (!joined)
			argv[*n + 1] = value;
		*n += words;
		i += words - 1;
	}
	return 0;
}

static int set_argument(const struct option_table *t, void *c, const char *arg, char *err,
			size_t err_len)
{
	const char *equals = strchr(arg, '=');
	char *name;
	int rc;

	if (!equals)
		return refuse(err, err_len, "-X %s: is not name=value", arg);
	if (!(name = strndup(arg, equals - arg)))
		return refuse_memory(err, err_len);
	if (property_is_secret(name))
		rc = refuse(err, err_len,
			    "-X %s: every user of this host can read a command line: put it into "
			    "a file and say %s.file=PATH",
			    name, name);
	else
		rc = option_set(t, c, name, equals + 1, err, err_len);
	free(name);
	return rc;
}

typedef int option_source(const struct option_table *t, void *c, const char *text, char *err,
			  size_t err_len);

/* Calls `set` for every argument of `letter` among the first `n`. */
static int each_flag(const struct option_table *t, void *c, int n, char **argv, char letter,
		     option_source *set, char *err, size_t err_len)
{
	int rc = 0;

	for (int i = 1; i < n && !rc; i++) {
		bool joined = argv[i][2];
		const char *value = joined ? argv[i] + 2 : argv[i + 1];

		if (is_flag(argv[i], letter))
			rc = set(t, c, value, err, err_len);
		i += !joined;
	}
	return rc;
}

int option_sources(const struct option_table *t, void *c, int argc, char **argv, int *optind_out,
		   char *err, size_t err_len)
{
	int n, rc;

	if ((rc = option_check_defaults(t, c, err, err_len)) ||
	    (rc = gather(argc, argv, &n, err, err_len)) ||
	    (rc = each_flag(t, c, n, argv, 'F', option_file, err, err_len)) ||
	    (rc = option_environment(t, c, environ, err, err_len)) ||
	    (rc = each_flag(t, c, n, argv, 'X', set_argument, err, err_len)))
		return rc;
	*optind_out = n;
	return 0;
}
