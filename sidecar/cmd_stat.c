/* What a snapshot tells about itself and its sidecar. */
#include "cmd.h"
#include "json.h"
#include "snapshot.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES = 1024 };

struct arguments {
	const char *dir;
	bool json;
};

/* Everything there is to print. */
struct facts {
	struct sstate_stat st;
	char name[TEXT_BYTES], topic[TEXT_BYTES], cluster_id[TEXT_BYTES], uuid[TEXT_BYTES],
		role[TEXT_BYTES];
	int64_t waiting_pairs, waiting_bytes; /* for compaction; -1: not kept */
	int64_t waiting_tombstones, probes;
	struct partition {
		bool known;
		struct sstate_partition row;
		int64_t cursor; /* -1: none */
	} * partitions;
	char *token;
};

static int take_arguments(struct arguments *a, int argc, char **argv)
{
	static const struct option names[] = { { "json", no_argument, NULL, 'j' }, { 0 } };
	int flag;
	optind = 0; /* begin anew */
	while ((flag = getopt_long(argc, argv, "d:", names, NULL)) != -1)
		switch (flag) {
		case 'd':
			a->dir = optarg;
			break;
		case 'j':
			a->json = true;
			break;
		default:
			return EXIT_USAGE; /* getopt has told */
		}
	if (a->dir && optind == argc)
		return EXIT_DONE;
	fprintf(stderr, "sidenote stat: %s; see `sidenote help stat`\n",
		a->dir ? "too many arguments" : "needs a snapshot: -d DIR");
	return EXIT_USAGE;
}

/* ---- asking ---- */

static int ask_text(struct sstate *s, const char *what, char text[TEXT_BYTES])
{
	int rc = sstate_text(s, what, text, TEXT_BYTES);
	return rc == -ENOENT ? 0 : rc; /* stays empty */
}

static int64_t ask_cursor(struct sstate *s, int32_t p)
{
	char name[32], text[TEXT_BYTES] = "";
	snprintf(name, sizeof(name), "cursor/%010" PRId32, p);
	return ask_text(s, name, text) || !*text ? -1 : strtoll(text, NULL, 10);
}

static void ask_waiting(struct sstate *s, struct facts *f)
{
	char text[TEXT_BYTES] = "";
	if (ask_text(s, "waiting", text) ||
	    sscanf(text, "%" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64, &f->waiting_pairs,
		   &f->waiting_bytes, &f->waiting_tombstones, &f->probes) < 2)
		f->waiting_pairs = f->waiting_bytes = -1;
}

static int ask_partitions(struct sstate *s, struct facts *f)
{
	size_t n = (size_t)f->st.partitions, token_bytes = 64 * n + 1;
	f->partitions = calloc(n + 1, sizeof(*f->partitions));
	f->token = malloc(token_bytes);
	if (!f->partitions || !f->token)
		return -ENOMEM;
	int rc = 0;
	for (size_t p = 0; !rc && p < n; p++) {
		rc = sstate_partition(s, (int32_t)p, &f->partitions[p].row);
		f->partitions[p].known = !rc;
		rc = rc == -ENOENT ? 0 : rc;
		f->partitions[p].cursor = ask_cursor(s, (int32_t)p);
	}
	return rc ? rc : sstate_token(s, f->token, token_bytes);
}

static int ask(struct sstate *s, struct facts *f)
{
	int rc = sstate_stat(s, &f->st);
	rc = rc ? rc : ask_text(s, "name", f->name);
	rc = rc ? rc : ask_text(s, "topic", f->topic);
	rc = rc ? rc : ask_text(s, "cluster_id", f->cluster_id);
	rc = rc ? rc : ask_text(s, "uuid", f->uuid);
	rc = rc ? rc : ask_text(s, "role", f->role);
	ask_waiting(s, f);
	return rc ? rc : ask_partitions(s, f);
}

/* ---- telling ---- */

static void json_text(const char *name, const char *text)
{
	char *quoted = malloc(JSON_STRING_MAX(strlen(text)) + 1);
	if (quoted)
		*json_put_string(quoted, text, strlen(text)) = '\0';
	printf("\"%s\":%s,", name, quoted ? quoted : "\"\"");
	free(quoted);
}

/* Negative: unknown or none. */
static void json_number(const char *name, int64_t n, const char *end)
{
	if (n < 0)
		printf("\"%s\":null%s", name, end);
	else
		printf("\"%s\":%" PRId64 "%s", name, n, end);
}

static void json_partition(int32_t p, const struct sstate_partition *row, int64_t cursor)
{
	printf("{\"partition\":%" PRId32 ",", p);
	json_number("applied", row->applied, ",");
	json_number("published", row->published, ",");
	json_number("base", row->base, ",");
	json_number("start", row->start, ",");
	json_number("whole", row->whole, ",");
	json_number("due", row->due, cursor < 0 ? "}" : ",");
	if (cursor >= 0)
		json_number("compacted", cursor, "}");
}

static void tell_json(const struct facts *f)
{
	const struct sstate_stat *st = &f->st;
	printf("{\"ready\":%s,", st->ready ? "true" : "false");
	json_text("role", f->role);
	json_text("name", f->name);
	json_text("topic", f->topic);
	json_text("cluster_id", f->cluster_id);
	json_text("uuid", f->uuid);
	json_number("generation", st->generation, ",");
	printf("\"keys\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"file_bytes\":%" PRIu64
	       ",\"journal\":{\"entries\":%" PRIu64 ",\"bytes\":%" PRIu64 "},",
	       st->keys, st->bytes, st->file_bytes, st->journal_entries, st->journal_bytes);
	if (f->waiting_pairs >= 0)
		printf("\"waiting\":{\"pairs\":%" PRId64 ",\"bytes\":%" PRId64
		       ",\"tombstones\":%" PRId64 ",\"probes\":%" PRId64 "},",
		       f->waiting_pairs, f->waiting_bytes, f->waiting_tombstones, f->probes);
	json_number("lease_ms", st->lease_ms, ",");
	json_number("heartbeat_age_ms", st->heartbeat_age_ms, ",");
	printf("\"txnid\":%" PRIu64 ",\"partitions\":[", st->txnid);
	for (int32_t p = 0, n = 0; p < st->partitions; p++)
		if (f->partitions[p].known) {
			fputs(n++ ? "," : "", stdout);
			json_partition(p, &f->partitions[p].row,
				       f->waiting_pairs < 0 ? -1 : f->partitions[p].cursor);
		}
	printf("],\"token\":\"%s\"}\n", f->token);
}

static void line(const char *name, const char *text)
{
	printf("%-12s %s\n", name, *text ? text : "(unknown)");
}

static void cell(int64_t n)
{
	if (n < 0)
		printf(" %14s", "-");
	else
		printf(" %14" PRId64, n);
}

static void tell_partitions(const struct facts *f)
{
	if (!f->st.partitions)
		return;
	printf("\n%9s %14s %14s %14s %14s %14s %14s\n", "partition", "applied", "published", "base",
	       "start", "whole", "due");
	for (int32_t p = 0; p < f->st.partitions; p++) {
		const struct sstate_partition *row = &f->partitions[p].row;
		if (!f->partitions[p].known)
			continue;
		printf("%9" PRId32, p);
		cell(row->applied);
		cell(row->published);
		cell(row->base);
		cell(row->start);
		cell(row->whole);
		cell(row->due);
		putchar('\n');
	}
}

static void tell(const struct facts *f)
{
	const struct sstate_stat *st = &f->st;
	line("ready", st->ready ? "yes" : "no");
	line("role", f->role);
	line("name", f->name);
	line("topic", f->topic);
	line("cluster", f->cluster_id);
	line("uuid", f->uuid);
	printf("%-12s %" PRId64 ", commit %" PRIu64 "\n", "generation", st->generation, st->txnid);
	printf("%-12s %" PRIu64 "\n", "keys", st->keys);
	printf("%-12s %" PRIu64 " bytes of records, %" PRIu64 " of the file\n", "size", st->bytes,
	       st->file_bytes);
	printf("%-12s %" PRIu64 " entries, %" PRIu64 " bytes\n", "journal", st->journal_entries,
	       st->journal_bytes);
	if (f->waiting_pairs >= 0)
		printf("%-12s %" PRId64 " overwritten records, %" PRId64 " bytes; %" PRId64
		       " tombstones; asked for %" PRId64 " times since the start\n",
		       "waiting", f->waiting_pairs, f->waiting_bytes, f->waiting_tombstones,
		       f->probes);
	printf("%-12s %" PRId64 " ms\n", "lease", st->lease_ms);
	if (st->heartbeat_age_ms >= 0)
		printf("%-12s %" PRId64 " ms ago\n", "heartbeat", st->heartbeat_age_ms);
	line("token", *f->token ? f->token : "(no partition yet)");
	tell_partitions(f);
}

int cmd_stat(int argc, char **argv)
{
	struct arguments a = { 0 };
	struct facts f = { 0 };
	struct sstate *s;
	int status = take_arguments(&a, argc, argv);
	if (!status)
		status = snapshot_open(&s, "stat", a.dir, NULL);
	if (status)
		return status;
	int rc = ask(s, &f);
	if (rc)
		status = snapshot_complain("stat", a.dir, rc);
	else if (a.json)
		tell_json(&f);
	else
		tell(&f);
	if (!rc && !f.st.ready)
		status = EXIT_NOT_READY;
	sstate_close(s);
	free(f.partitions);
	free(f.token);
	return status;
}
