#include "snapshot.h"

#include "base64.h"
#include "cmd.h"
#include "escape.h"
#include "json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { AFTER_MS = 10000 };

/* ---- opening, and what may be wrong ---- */

int snapshot_complain(const char *verb, const char *what, int rc)
{
	fprintf(stderr, "sidenote %s: %s: %s\n", verb, what, sstate_strerror(rc));
	switch (rc) {
	case -ENOENT:
		return EXIT_DIFFERENT;
	case -EINVAL:
		return EXIT_USAGE;
	case -EBADMSG:
		return EXIT_BROKEN;
	default:
		return EXIT_NOT_READY;
	}
}

/* What of a token has not been reached. */
static void tell_missing(struct sstate *s, const char *after)
{
	size_t max = strlen(after) / 2 + 1;
	struct sstate_position *want = calloc(max, sizeof(*want));
	int n = want ? sstate_token_parse(after, want, max) : 0;

	for (int i = 0; i < n; i++) {
		struct sstate_partition row;
		int rc = sstate_partition(s, want[i].partition, &row);
		struct sstate_position have = { want[i].partition, row.applied,
						row.due > 0 ? row.due : 0 };
		if (rc == -ENOENT)
			fprintf(stderr, "  partition %" PRId32 ": there is none\n",
				want[i].partition);
		else if (!rc && have.offset < want[i].offset)
			fprintf(stderr, "  partition %" PRId32 ": %" PRId64 " of %" PRId64 "\n",
				have.partition, have.offset, want[i].offset);
		else if (!rc && !sstate_position_reached(&have, &want[i]))
			fprintf(stderr,
				"  partition %" PRId32 ": a round is due that looks for deletes "
				"from %" PRId64 " on\n",
				have.partition, have.due);
	}
	free(want);
}

int snapshot_open(struct sstate **out, const char *verb, const char *dir, const char *after)
{
	struct sstate *s;
	int rc = sstate_open(&s, dir);
	if (rc)
		return snapshot_complain(verb, dir, rc);
	rc = after ? sstate_wait(s, after, AFTER_MS) : 0;
	if (!rc) {
		*out = s;
		return EXIT_DONE;
	}
	int status = EXIT_NOT_READY;
	if (rc == -EINVAL) {
		fprintf(stderr,
			"sidenote %s: --after: '%s' is not a token, as in 0:4712,1:99 "
			"(partition:offset)\n",
			verb, after);
		status = EXIT_USAGE;
	} else if (rc == -ETIMEDOUT) {
		fprintf(stderr, "sidenote %s: %s: has not got to %s within %d s:\n", verb, dir,
			after, AFTER_MS / 1000);
		tell_missing(s, after);
	} else {
		status = snapshot_complain(verb, dir, rc);
	}
	sstate_close(s);
	return status;
}

/* ---- as lines ---- */

/* Text as it is; the rest as \xHH, line feeds and tabs too unless `spaces` may stay. */
static void print_text(const void *bytes, size_t len, bool spaces)
{
	const char *p = bytes, *end = p + len;
	while (p < end) {
		size_t n = escape_printable(p, (size_t)(end - p));
		if (!n && spaces && (*p == '\n' || *p == '\t'))
			n = 1;
		if (n)
			fwrite(p, 1, n, stdout);
		else
			printf("\\x%02x", (unsigned char)*p);
		p += n ? n : 1;
	}
}

/* In the form that escape_parse() reads back. */
static void print_key(const struct sstate_record *r)
{
	char *key = escape_key(r->key, r->key_len);
	fputs(key ? key : "", stdout);
	free(key);
}

void snapshot_print_line(const struct sstate_record *r)
{
	print_key(r);
	putchar('\t');
	print_text(r->value, r->value_len, false);
	putchar('\n');
}

void snapshot_print_value(const struct sstate_record *r)
{
	if (isatty(STDOUT_FILENO))
		print_text(r->value, r->value_len, true);
	else
		fwrite(r->value, 1, r->value_len, stdout);
	putchar('\n');
}

/* ---- as JSON ---- */

static void print_string(const void *bytes, size_t len)
{
	char *text = malloc(JSON_STRING_MAX(len));
	if (text)
		fwrite(text, 1, (size_t)(json_put_string(text, bytes, len) - text), stdout);
	free(text);
}

static void print_base64(const void *bytes, size_t len)
{
	char *text = malloc(BASE64_BYTES(len) + 1);
	if (text)
		fwrite(text, 1, (size_t)(base64_encode(text, bytes, len) - text), stdout);
	free(text);
}

/* A line feed between the members of an object is white space: one object, one line. */
static void print_object(const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		putchar(p[i] == '\n' || p[i] == '\r' ? ' ' : p[i]);
}

static void print_headers(const struct sstate_record *r)
{
	struct sstate_header h;
	size_t pos = 0;
	for (int n = 0; sstate_header_next(r, &pos, &h) == 1; n++) {
		fputs(n ? ",{\"name\":" : ",\"headers\":[{\"name\":", stdout);
		print_string(h.name, h.name_len);
		fputs(h.value ? ",\"value\":\"" : ",\"value\":null", stdout);
		if (h.value) {
			print_base64(h.value, h.value_len);
			putchar('"');
		}
		putchar('}');
	}
	if (pos)
		putchar(']');
}

void snapshot_print_json(const struct sstate_record *r, const char *token)
{
	char *key = escape_key(r->key, r->key_len);
	fputs("{\"key\":", stdout);
	print_string(key ? key : "", key ? strlen(key) : 0);
	free(key);
	printf(",\"partition\":%" PRId32 ",\"offset\":%" PRId64, r->partition, r->offset);
	if (r->timestamp_ms >= 0)
		printf(",\"timestamp_ms\":%" PRId64, r->timestamp_ms);
	if (token)
		printf(",\"token\":\"%s\"", token);
	print_headers(r);
	fputs(",\"value\":", stdout);
	if (json_is_object(r->value, r->value_len)) {
		print_object(r->value, r->value_len);
	} else {
		fputs("{\"sidenote.base64\":\"", stdout);
		print_base64(r->value, r->value_len);
		fputs("\"}", stdout);
	}
	fputs("}\n", stdout);
}
