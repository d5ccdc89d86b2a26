/* Print a snapshot, key by key. */
#include "cmd.h"
#include "escape.h"
#include "snapshot.h"

#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

struct arguments {
	const char *dir, *after;
	bool json;
	long limit; /* -1: none */
	void *prefix;
	size_t prefix_len;
};

static int complain(const char *option, const char *text, const char *wanted)
{
	fprintf(stderr, "sidenote scan: %s: '%s' is not %s\n", option, text, wanted);
	return EXIT_USAGE;
}

static int set_limit(struct arguments *a, const char *text)
{
	char *end;
	errno = 0;
	a->limit = strtol(text, &end, 10);
	if (errno || end == text || *end || a->limit < 0)
		return complain("--limit", text, "a whole number from 0");
	return EXIT_DONE;
}

static int set_prefix(struct arguments *a, const char *text)
{
	free(a->prefix);
	a->prefix = NULL;
	if (escape_parse(text, &a->prefix, &a->prefix_len))
		return complain("--prefix", text,
				"escaped: after a backslash comes x and two digits, or a "
				"backslash");
	return EXIT_DONE;
}

static int take_flag(struct arguments *a, int flag)
{
	switch (flag) {
	case 'd':
		a->dir = optarg;
		return EXIT_DONE;
	case 'a':
		a->after = optarg;
		return EXIT_DONE;
	case 'j':
		a->json = true;
		return EXIT_DONE;
	case 'n':
		return set_limit(a, optarg);
	case 'p':
		return set_prefix(a, optarg);
	default:
		return EXIT_USAGE; /* getopt has told */
	}
}

static int take_arguments(struct arguments *a, int argc, char **argv)
{
	static const struct option names[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "after", required_argument, NULL, 'a' },
		{ "prefix", required_argument, NULL, 'p' },
		{ "limit", required_argument, NULL, 'n' },
		{ 0 },
	};
	int flag, status = EXIT_DONE;
	optind = 0; /* begin anew */
	while (!status && (flag = getopt_long(argc, argv, "d:", names, NULL)) != -1)
		status = take_flag(a, flag);
	if (status)
		return status;
	if (a->dir && optind == argc)
		return EXIT_DONE;
	if (a->dir)
		return complain("argument", argv[optind], "expected; see `sidenote help scan`");
	fputs("sidenote scan: needs a snapshot: -d DIR; see `sidenote help scan`\n", stderr);
	return EXIT_USAGE;
}

static int scan(struct sstate *s, const struct arguments *a)
{
	struct sstate_scan *c;
	struct sstate_record r;
	int rc = sstate_scan_begin(&c, s, a->prefix, a->prefix_len);
	if (rc)
		return snapshot_complain("scan", a->dir, rc);
	for (long n = 0; n != a->limit && !ferror(stdout); n++) {
		rc = sstate_scan_next(c, &r);
		if (rc)
			break;
		if (a->json)
			snapshot_print_json(&r, NULL);
		else
			snapshot_print_line(&r);
	}
	sstate_scan_end(c);
	return rc && rc != -ENOENT ? snapshot_complain("scan", a->dir, rc) : EXIT_DONE;
}

int cmd_scan(int argc, char **argv)
{
	struct arguments a = { .limit = -1 };
	struct sstate *s = NULL;
	int status = take_arguments(&a, argc, argv);
	if (!status)
		status = snapshot_open(&s, "scan", a.dir, a.after);
	if (!status)
		status = scan(s, &a);
	sstate_close(s);
	free(a.prefix);
	return status;
}
