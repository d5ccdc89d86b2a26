/* Look keys up in a snapshot. */
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
};

static int take_arguments(struct arguments *a, int argc, char **argv)
{
	static const struct option names[] = { { "json", no_argument, NULL, 'j' },
					       { "after", required_argument, NULL, 'a' },
					       { 0 } };
	int flag;
	optind = 0; /* begin anew */
	while ((flag = getopt_long(argc, argv, "d:", names, NULL)) != -1)
		switch (flag) {
		case 'd':
			a->dir = optarg;
			break;
		case 'a':
			a->after = optarg;
			break;
		case 'j':
			a->json = true;
			break;
		default:
			return EXIT_USAGE; /* getopt has told */
		}
	if (a->dir && optind < argc)
		return EXIT_DONE;
	fprintf(stderr, "sidenote get: needs %s; see `sidenote help get`\n",
		a->dir ? "a key" : "a snapshot: -d DIR");
	return EXIT_USAGE;
}

/* `alone`: the only key, whose value may go to a file as it is. */
static int get(struct sstate *s, const struct arguments *a, const char *text, bool alone)
{
	struct sstate_buf b = { 0 };
	struct sstate_record r;
	void *key = NULL;
	size_t len;
	int status = EXIT_DONE;
	int rc = escape_parse(text, &key, &len);
	if (!rc)
		rc = sstate_get(s, key, len, &b, &r);
	if (rc == -ENOENT) {
		fprintf(stderr, "sidenote get: no such key: %s\n", text);
		status = EXIT_DIFFERENT;
	} else if (rc) {
		status = snapshot_complain("get", text, rc);
	} else if (a->json) {
		snapshot_print_json(&r);
	} else if (alone) {
		snapshot_print_value(&r);
	} else {
		snapshot_print_line(&r);
	}
	free(key);
	sstate_buf_free(&b);
	return status;
}

int cmd_get(int argc, char **argv)
{
	struct arguments a = { 0 };
	struct sstate *s;
	int status = take_arguments(&a, argc, argv);
	if (!status)
		status = snapshot_open(&s, "get", a.dir, a.after);
	if (status)
		return status;
	bool alone = argc - optind == 1;
	for (int i = optind; i < argc; i++) {
		int one = get(s, &a, argv[i], alone);
		status = one > status ? one : status; /* the worst of them */
	}
	sstate_close(s);
	return status;
}
