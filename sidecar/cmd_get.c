/* Look keys up in a snapshot. */
#include "cmd.h"
#include "escape.h"
#include "snapshot.h"

#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum { STALE_TRIES = 16 }; /* each of them takes a lease */

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

/* The record and the token of one and the same state; the token is the caller's to free. */
static int look_up(struct sstate *s, const void *key, size_t len, struct sstate_buf *b,
		   struct sstate_record *r, char **token)
{
	struct sstate_snapshot *n;
	size_t size = 1024;
	int found, rc = sstate_snapshot_begin(&n, s);
	if (rc)
		return rc;
	found = sstate_snapshot_get(n, key, len, b, r);
	for (rc = -ERANGE; rc == -ERANGE; size *= 2) {
		free(*token);
		*token = malloc(size);
		rc = *token ? sstate_snapshot_token(n, *token, size) : -ENOMEM;
	}
	sstate_snapshot_end(n);
	return rc ? rc : found;
}

static int look_up_again(struct sstate *s, const void *key, size_t len, struct sstate_buf *b,
			 struct sstate_record *r, char **token)
{
	int rc = SSTATE_STALE;
	for (int i = 0; i < STALE_TRIES && rc == SSTATE_STALE; i++)
		rc = look_up(s, key, len, b, r, token);
	return rc;
}

/* `alone`: the only key, whose value may go to a file as it is. */
static int get(struct sstate *s, const struct arguments *a, const char *text, bool alone)
{
	struct sstate_buf b = { 0 };
	struct sstate_record r;
	void *key = NULL;
	char *token = NULL;
	size_t len;
	int status = EXIT_DONE;
	int rc = escape_parse(text, &key, &len);
	if (!rc)
		rc = look_up_again(s, key, len, &b, &r, &token);
	if (rc == -ENOENT) {
		fprintf(stderr, "sidenote get: no such key: %s\n", text);
		status = EXIT_DIFFERENT;
	} else if (rc) {
		status = snapshot_complain("get", text, rc);
	} else if (a->json) {
		snapshot_print_json(&r, token);
	} else if (alone) {
		snapshot_print_value(&r);
	} else {
		snapshot_print_line(&r);
	}
	free(key);
	free(token);
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
