#include "status_page.h"
#include "base64.h"
#include "html.h"
#include "json.h"
#include "status_change.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PARTITIONS_SHOWN = 64, FOUND_MAX = 4096, PLOT_W = 300, PLOT_H = 90 };

/* Two files, as they are, into the program. */
#define EMBED(name, file)                                                                          \
	__asm__(".section .rodata\n.global " #name "\n.hidden " #name "\n" #name                   \
		":\n.incbin \"" file "\"\n.global " #name "_end\n.hidden " #name "_end\n" #name    \
		"_end:\n.byte 0\n"                                                                 \
		".previous\n");                                                                    \
	extern const char name[], name##_end[]
EMBED(status_page_css, "sidecar/status_page.css");
EMBED(status_page_js, "sidecar/status_page.js");

/* ---- pieces ---- */

static void put_time(FILE *f, int64_t ms, int64_t now_ms)
{
	time_t s = ms / 1000;
	char text[40];
	struct tm tm;

	if (ms < 0 || !gmtime_r(&s, &tm) ||
	    !strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm)) {
		fputs("no time", f);
		return;
	}
	fprintf(f, "<time datetime=\"%s\" title=\"%s\">", text, text);
	if (now_ms >= ms) {
		html_duration(f, (now_ms - ms) * 1000);
		fputs(" ago", f);
	} else {
		fputs(text, f);
	}
	fputs("</time>", f);
}

static void begin_fact(FILE *f, const char *name) { fprintf(f, "<div><dt>%s</dt><dd>", name); }
static void end_fact(FILE *f) { fputs("</dd></div>\n", f); }

static void fact_number(FILE *f, const char *name, int64_t n)
{
	begin_fact(f, name);
	html_number(f, n);
	end_fact(f);
}

static void fact_size(FILE *f, const char *name, int64_t n)
{
	begin_fact(f, name);
	html_size(f, n);
	end_fact(f);
}

static void fact_duration(FILE *f, const char *name, int64_t us)
{
	begin_fact(f, name);
	html_duration(f, us);
	end_fact(f);
}

static void fact_text(FILE *f, const char *name, const char *text)
{
	begin_fact(f, name);
	html_text(f, text);
	end_fact(f);
}

static int64_t counted(enum metric m)
{
	int64_t v = metrics_value(m);
	return v == METRIC_UNKNOWN ? -1 : v;
}

/* Sum over partitions; -1 where one is not known. */
static int64_t total(const struct status *st, size_t field)
{
	int64_t sum = 0;

	for (int i = 0; i < st->n; i++) {
		int64_t v = *(const int64_t *)((const char *)&st->part[i] + field);
		if (v < 0)
			return -1;
		sum += v;
	}
	return st->n ? sum : -1;
}
#define TOTAL(st, field) total(st, offsetof(struct status_partition, field))

/* ---- head ---- */

static void put_readiness(FILE *f, const struct status *st)
{
	struct status_check checks[STATUS_CHECKS];
	bool ready = status_ready(st, checks);

	fprintf(f, "<p class=\"state\"><span class=\"badge %s\">%s</span> ", ready ? "good" : "bad",
		ready ? "ready" : "not ready");
	fprintf(f, "<span class=\"badge\">");
	html_text(f, st->role);
	fputs("</span></p>\n", f);
	if (ready)
		return;
	fputs("<ul class=\"checks\">", f);
	for (int i = 0; i < STATUS_CHECKS; i++) {
		fprintf(f, "<li class=\"%s\">%s %s: ", checks[i].ok ? "ok" : "not",
			checks[i].ok ? "\xe2\x9c\x93" : "\xe2\x9c\x97", checks[i].name);
		html_text(f, checks[i].text);
		fputs("</li>", f);
	}
	fputs("</ul>\n", f);
}

static void put_head(FILE *f, const struct status *st)
{
	struct status_check checks[STATUS_CHECKS];

	fprintf(f,
		"<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
		"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
		"<meta name=\"color-scheme\" content=\"light dark\">\n"
		"<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>\n"
		"<link rel=\"icon\" href=\"data:,\">\n<title>%s \xc2\xb7 ",
		status_ready(st, checks) ? "ready" : "not ready");
	html_text(f, st->config->name);
	fputs(" \xc2\xb7 sidenote</title>\n<style>", f);
	fwrite(status_page_css, 1, (size_t)(status_page_css_end - status_page_css), f);
	fputs("</style>\n</head>\n<body>\n<header id=\"top\" data-live>\n<h1>", f);
	html_text(f, st->config->name);
	fputs("</h1>\n<p class=\"way\"><span>", f);
	html_text(f, st->config->source_topic);
	fputs("</span>", f);
	if (st->publishing) {
		fputs(" <span class=\"arrow\">\xe2\x86\x92</span> <span>", f);
		html_text(f, st->config->notifications_topic);
		fputs("</span>", f);
	}
	fputs("</p>\n", f);
	put_readiness(f, st);
	fputs("</header>\n<p id=\"said\" role=\"status\" hidden></p>\n<main>\n", f);
}

/* ---- facts ---- */

static void put_facts(FILE *f, const struct status *st)
{
	const struct sstate_stat *s = &st->snapshot;
	bool known = !st->rc;

	fputs("<section id=\"facts\" data-live aria-label=\"Numbers\">\n<dl class=\"facts\">\n", f);
	fact_number(f, "keys", known ? (int64_t)s->keys : -1);
	fact_number(f, "records behind the topic", TOTAL(st, lag));
	if (st->publishing)
		fact_number(f, "offsets not published", TOTAL(st, publish_lag));
	fact_duration(f, "last commit, ago", known ? s->heartbeat_age_ms * 1000 : -1);
	fact_number(f, "records read", counted(METRIC_RECORDS_CONSUMED));
	if (st->publishing)
		fact_number(f, "notifications sent from here",
			    counted(METRIC_NOTIFIED_CREATE) + counted(METRIC_NOTIFIED_UPDATE) +
				    counted(METRIC_NOTIFIED_DELETE));
	fact_size(f, "records, size", known ? (int64_t)s->bytes : -1);
	fact_size(f, "data file", known ? (int64_t)s->file_bytes : -1);
	fact_size(f, "disk free", st->disk_free);
	fputs("</dl>\n</section>\n", f);
}

/* ---- positions ---- */

static int64_t at_least_0(int64_t n) { return n < 0 ? 0 : n; }

static int64_t behind(const struct status_partition *p)
{
	return at_least_0(p->lag) + at_least_0(p->publish_lag);
}

static int by_behind(const void *a, const void *b, void *arg)
{
	const struct status *st = arg;
	int x = *(const int *)a, y = *(const int *)b;
	int64_t bx = behind(&st->part[x]), by = behind(&st->part[y]);

	return bx != by ? (bx < by ? 1 : -1) : x < y ? -1 : 1;
}

/* Which partitions are shown: all, or those that are behind most, by number. */
static int by_number(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static int *choose(const struct status *st, int *n)
{
	int *v = calloc((size_t)st->n + 1, sizeof(*v));

	*n = v ? st->n : 0;
	for (int i = 0; i < *n; i++)
		v[i] = i;
	if (*n <= PARTITIONS_SHOWN)
		return v;
	qsort_r(v, (size_t)*n, sizeof(*v), by_behind, (void *)st);
	*n = PARTITIONS_SHOWN;
	qsort(v, (size_t)*n, sizeof(*v), by_number);
	return v;
}

/* One bar: what waits to be published, then what is not read yet; `most` fills it. */
static void put_bar(FILE *f, const struct status_partition *p, int64_t most)
{
	double unit = 100.0 / (double)most;
	double waits = (double)at_least_0(p->publish_lag) * unit;
	double unread = (double)at_least_0(p->lag) * unit;

	/* something is never nothing to the eye */
	waits = waits > 0 && waits < 1 ? 1 : waits;
	unread = unread > 0 && unread < 1 ? 1 : unread;
	fputs("<svg class=\"bar\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" "
	      "aria-hidden=\"true\"><rect class=\"track\" width=\"100\" height=\"10\"/>",
	      f);
	if (waits > 0)
		fprintf(f, "<rect class=\"b\" width=\"%.2f\" height=\"10\"/>", waits);
	if (unread > 0)
		fprintf(f, "<rect class=\"a\" x=\"%.2f\" width=\"%.2f\" height=\"10\"/>", waits,
			unread);
	fputs("</svg>", f);
}

static void put_cell(FILE *f, const char *label, int64_t n)
{
	fprintf(f, "<td data-label=\"%s\">", label);
	html_number(f, n);
	fputs("</td>", f);
}

static void put_partition(FILE *f, const struct status *st, int i, int64_t most)
{
	const struct status_partition *p = &st->part[i];

	fprintf(f, "<tr><th scope=\"row\">%d%s</th><td class=\"barcell\">", i,
		p->due ? " <span class=\"badge warn\">round due</span>" : "");
	put_bar(f, p, most);
	fputs("</td>", f);
	put_cell(f, "behind", p->lag);
	fputs("<td data-label=\"behind, time\">", f);
	html_duration(f, p->lag_ms < 0 ? -1 : p->lag_ms * 1000);
	fputs("</td>", f);
	if (st->publishing)
		put_cell(f, "not published", p->publish_lag);
	put_cell(f, "log end", p->log_end);
	put_cell(f, "applied", p->applied);
	if (st->publishing)
		put_cell(f, "published", p->published);
	fputs("</tr>\n", f);
}

static void put_positions(FILE *f, const struct status *st)
{
	int64_t most = 100; /* a bar that is full means at least so many */
	int n, *v = choose(st, &n);

	for (int i = 0; i < st->n; i++)
		if (behind(&st->part[i]) > most)
			most = behind(&st->part[i]);
	fputs("<section id=\"positions\" data-live>\n<h2>Positions</h2>\n", f);
	if (!n) {
		fputs("<p class=\"none\">No partition is known yet.</p>\n</section>\n", f);
		free(v);
		return;
	}
	fputs("<p class=\"legend\">", f);
	if (st->publishing)
		fputs("<span class=\"key b\"></span> read, not published ", f);
	fputs("<span class=\"key a\"></span> not read yet <span class=\"scale\">a full bar: ", f);
	html_number(f, most);
	fputs(" offsets</span></p>\n<div class=\"wide\"><table class=\"positions\">\n<thead><tr>"
	      "<th scope=\"col\">partition</th><th scope=\"col\"><span class=\"quiet\">lag</span>"
	      "</th><th scope=\"col\">behind</th><th scope=\"col\">behind, time</th>",
	      f);
	if (st->publishing)
		fputs("<th scope=\"col\">not published</th>", f);
	fputs("<th scope=\"col\">log end</th><th scope=\"col\">applied</th>", f);
	if (st->publishing)
		fputs("<th scope=\"col\">published</th>", f);
	fputs("</tr></thead>\n<tbody>\n", f);
	for (int i = 0; i < n; i++)
		put_partition(f, st, v[i], most);
	fputs("</tbody></table></div>\n", f);
	if (n < st->n)
		fprintf(f, "<p class=\"none\">The %d that are behind most, of %d.</p>\n", n, st->n);
	fputs("</section>\n", f);
	free(v);
}

/* ---- plots ---- */

/* A number of a sample; < 0: nothing to draw. */
typedef double value_of(const struct history_sample *s);

static double records_of(const struct history_sample *s) { return s->records; }
static double notes_of(const struct history_sample *s) { return s->notes; }
static double us(int64_t v) { return v < 0 ? -1 : (double)v; }
static double snapshot_p50(const struct history_sample *s) { return us(s->snapshot_p50); }
static double snapshot_p99(const struct history_sample *s) { return us(s->snapshot_p99); }
static double note_p50(const struct history_sample *s) { return us(s->note_p50); }
static double note_p99(const struct history_sample *s) { return us(s->note_p99); }

struct plot {
	const char *title, *name[2];
	value_of *value[2];
	bool is_time; /* microseconds; else a rate */
};

static double highest(const struct plot *pl, const struct status_page *p)
{
	double most = pl->is_time ? 1000 : 1;

	for (int i = 0; i < p->n_samples; i++)
		for (int l = 0; l < 2; l++)
			if (pl->value[l] && pl->value[l](&p->samples[i]) > most)
				most = pl->value[l](&p->samples[i]);
	/* up to 1, 2 or 5 times a power of ten, so that the scale does not jump about */
	double step = 1;
	while (step * 10 <= most)
		step *= 10;
	return most <= step       ? step
	       : most <= 2 * step ? 2 * step
	       : most <= 5 * step ? 5 * step
				  : 10 * step;
}

static void put_amount(FILE *f, const struct plot *pl, double v)
{
	if (v < 0)
		fputs("\xe2\x80\x93", f);
	else if (pl->is_time)
		html_duration(f, (int64_t)v);
	else if (v > 0 && v < 10)
		fprintf(f, "%.1f/s", v);
	else {
		html_number(f, (int64_t)(v + 0.5));
		fputs("/s", f);
	}
}

/* The newest at the right edge; where nothing happened there is no line. */
static void put_line(FILE *f, const struct plot *pl, int l, const struct status_page *p,
		     double most)
{
	bool pen = false;

	fprintf(f, "<path class=\"%s\" d=\"", l ? "b" : "a");
	for (int i = 0; i < p->n_samples; i++) {
		double v = pl->value[l](&p->samples[i]);
		double x = PLOT_W - (double)(p->n_samples - 1 - i) * PLOT_W / (HISTORY_SAMPLES - 1);
		if (v >= 0)
			fprintf(f, "%c%.1f %.1f", pen ? 'L' : 'M', x,
				(PLOT_H - 2) - v / most * (PLOT_H - 4));
		if (v >= 0 && !pen)
			fprintf(f, "h.01"); /* one sample alone is a dot */
		pen = v >= 0;
	}
	fputs("\"/>", f);
}

/* The last amount that there was in the last ten seconds. */
static double newest(const struct plot *pl, int l, const struct status_page *p)
{
	for (int i = p->n_samples - 1; i >= 0 && i >= p->n_samples - 5; i--)
		if (pl->value[l](&p->samples[i]) >= 0)
			return pl->value[l](&p->samples[i]);
	return -1;
}

static void put_plot(FILE *f, const struct plot *pl, const struct status_page *p)
{
	double most = highest(pl, p);

	fprintf(f, "<figure>\n<figcaption>%s <span class=\"legend\">", pl->title);
	for (int l = 0; l < 2; l++) {
		if (!pl->value[l])
			continue;
		fprintf(f, "<span class=\"key %s\"></span> %s <b>", l ? "b" : "a", pl->name[l]);
		put_amount(f, pl, newest(pl, l, p));
		fputs("</b> ", f);
	}
	fprintf(f,
		"</span></figcaption>\n<div class=\"plot\"><svg viewBox=\"0 0 %d %d\" "
		"preserveAspectRatio=\"none\" role=\"img\" aria-label=\"%s, the last five "
		"minutes\"><path class=\"grid\" d=\"M0 2H%dM0 %dH%dM0 %dH%d\"/>",
		PLOT_W, PLOT_H, pl->title, PLOT_W, PLOT_H / 2, PLOT_W, PLOT_H - 2, PLOT_W);
	for (int l = 1; l >= 0; l--)
		if (pl->value[l])
			put_line(f, pl, l, p, most);
	fputs("</svg><span class=\"most\">", f);
	put_amount(f, pl, most);
	fputs("</span><span class=\"from\">5 min ago</span><span class=\"to\">now</span></div>\n"
	      "</figure>\n",
	      f);
}

static void put_plots(FILE *f, const struct status_page *p)
{
	const bool pub = p->status->publishing;
	const struct plot plots[] = {
		{ "Throughput",
		  { "records", "notifications" },
		  { records_of, pub ? notes_of : NULL },
		  false },
		{ "Produced until readable",
		  { "median", "99 %" },
		  { snapshot_p50, snapshot_p99 },
		  true },
		{ "Produced until notified", { "median", "99 %" }, { note_p50, note_p99 }, true },
	};

	fputs("<section id=\"plots\" data-live>\n<h2>Last minutes</h2>\n<div class=\"plots\">\n",
	      f);
	for (size_t i = 0; i < (pub ? 3 : 2); i++)
		put_plot(f, &plots[i], p);
	fputs("</div>\n</section>\n", f);
}

/* ---- notifications ---- */

static void put_note(FILE *f, const struct recent_note *n, int64_t now_ms)
{
	static const char *const words[] = { "created", "updated", "deleted" };
	int w = n->op == CHANGE_CREATE ? 0 : n->op == CHANGE_DELETE ? 2 : 1;

	fprintf(f, "<article class=\"note\">\n<h3><span class=\"op %s\">%s</span> <code>", words[w],
		words[w]);
	html_bytes(f, n->key.p, n->key.len);
	fputs(n->key.len < n->key.whole ? "\xe2\x80\xa6</code>" : "</code>", f);
	fprintf(f, "<span class=\"where\">%" PRId32 ":%" PRId64 ", ", n->partition, n->offset);
	put_time(f, n->committed_ms, now_ms);
	if (n->timestamp_ms >= 0 && n->committed_ms >= n->timestamp_ms) {
		fputs(", after ", f);
		html_duration(f, (n->committed_ms - n->timestamp_ms) * 1000);
	}
	if (strcmp(n->cause, "log"))
		fprintf(f, " <span class=\"badge warn\">cause: %s</span>", n->cause);
	fputs("</span></h3>\n<table class=\"change\">\n<colgroup><col "
	      "class=\"member\"><col><col></colgroup>\n<thead><tr><th scope=\"col\">"
	      "<span class=\"quiet\">member</span></th><th scope=\"col\">old</th>"
	      "<th scope=\"col\">new</th></tr></thead>\n<tbody>",
	      f);
	status_change_rows(f, n);
	fputs("</tbody>\n</table>\n</article>\n", f);
}

static void put_notes(FILE *f, const struct status_page *p)
{
	const struct status *st = p->status;

	fputs("<section id=\"notes\" data-live>\n<h2>Last notifications</h2>\n", f);
	if (!st->publishing)
		fputs("<p class=\"none\">None: <code>notifications.topic</code> is empty.</p>\n",
		      f);
	else if (!p->n_notes && !st->leading)
		fputs("<p class=\"none\">Another sidecar of this name publishes; they are shown on "
		      "its page. <code>sidenote watch</code> follows the topic from "
		      "anywhere.</p>\n",
		      f);
	else if (!p->n_notes)
		fputs("<p class=\"none\">None since the start.</p>\n", f);
	for (int i = 0; i < p->n_notes; i++)
		put_note(f, p->notes[i], st->now_ms);
	fputs("</section>\n", f);
}

/* ---- the rest ---- */

static void put_waiting(FILE *f, const struct status *st)
{
	int64_t told = 0;

	if (!*st->config->compacted_topic)
		return;
	for (int i = 0; i < st->n; i++)
		told += st->part[i].cursor > 0;
	begin_fact(f, "waiting for compaction");
	html_number(f, st->waiting_pairs);
	fputs(" overwritten records, ", f);
	html_size(f, st->waiting_bytes);
	fputs(" of ", f);
	html_size(f, st->config->compacted_max_bytes);
	fputs("; told in ", f);
	html_number(f, told);
	fputs(" partitions; ", f);
	html_number(f, metrics_value(METRIC_PROBES));
	fputs(" requests for it", f);
	end_fact(f);
}

static void put_journal(FILE *f, const struct status *st)
{
	const struct sstate_stat *s = &st->snapshot;

	begin_fact(f, "journal");
	if (st->rc) {
		html_number(f, -1);
	} else {
		html_number(f, (int64_t)s->journal_entries);
		fputs(" entries, ", f);
		html_size(f, (int64_t)s->journal_bytes);
		if (st->journal_limit >= 0) {
			fputs(" of ", f);
			html_size(f, st->journal_limit);
		}
	}
	if (st->waiting)
		fputs(" <span class=\"badge bad\">full: reading waits</span>", f);
	end_fact(f);
}

static void put_rounds(FILE *f, const struct status *st)
{
	int due = 0;

	for (int i = 0; i < st->n; i++)
		due += st->part[i].due;
	begin_fact(f, "rounds");
	html_number(f, counted(METRIC_ROUNDS_DONE));
	fputs(" done, ", f);
	html_number(f, counted(METRIC_GONE_KEYS));
	fputs(" keys were gone", f);
	if (due)
		fprintf(f, " <span class=\"badge warn\">due for %d partition%s</span>", due,
			due == 1 ? "" : "s");
	if (st->round_running)
		fputs(" <span class=\"badge\">running</span>", f);
	end_fact(f);
}

static void put_transactions(FILE *f)
{
	begin_fact(f, "transactions");
	html_number(f, counted(METRIC_TRANSACTIONS_COMMITTED));
	fputs(" committed, ", f);
	html_number(f, counted(METRIC_TRANSACTIONS_ABORTED));
	fputs(" aborted, ", f);
	html_number(f, counted(METRIC_TRANSACTIONS_UNCLEAR));
	fputs(" unclear", f);
	end_fact(f);
}

static void put_redis(FILE *f, const struct status *st)
{
	int64_t up = metrics_value(METRIC_REDIS_UP);

	begin_fact(f, "Redis");
	if (!*st->config->redis_uri) {
		fputs("not configured", f);
	} else if (up == METRIC_UNKNOWN) {
		fputs("kept by the leader", f);
	} else if (up == 0) {
		fputs("<span class=\"badge bad\">cannot be written</span>", f);
	} else {
		html_number(f, TOTAL(st, redis_lag));
		fputs(" offsets behind the snapshot", f);
		if (metrics_value(METRIC_REDIS_RESYNCING) == 1)
			fputs(" <span class=\"badge warn\">comparing</span>", f);
	}
	end_fact(f);
}

static void put_fill(FILE *f, const struct status *st)
{
	begin_fact(f, "fills");
	html_number(f, counted(METRIC_FILLS));
	fputs(" since the start, ", f);
	html_number(f, counted(METRIC_FILL_RECORDS));
	fputs(" records", f);
	if (st->filling)
		fputs(" <span class=\"badge warn\">filling</span>", f);
	end_fact(f);
}

static void put_inside(FILE *f, const struct status *st)
{
	const struct sstate_stat *s = &st->snapshot;

	fputs("<section id=\"inside\" data-live>\n<h2>Inside</h2>\n<dl class=\"facts small\">\n",
	      f);
	put_journal(f, st);
	put_waiting(f, st);
	begin_fact(f, "lease of readers");
	html_duration(f, st->rc ? -1 : s->lease_ms * 1000);
	fputs(", generation ", f);
	html_number(f, st->rc ? -1 : s->generation);
	fputs(", commit ", f);
	html_number(f, st->rc ? -1 : (int64_t)s->txnid);
	end_fact(f);
	put_rounds(f, st);
	put_fill(f, st);
	if (st->publishing)
		put_transactions(f);
	put_redis(f, st);
	fact_text(f, "cluster", *st->cluster ? st->cluster : "\xe2\x80\x93");
	fact_text(f, "state", *st->uuid ? st->uuid : "\xe2\x80\x93");
	fact_duration(f, "running for",
		      metrics_value(METRIC_PROCESS_START_MS) == METRIC_UNKNOWN
			      ? -1
			      : (st->now_ms - metrics_value(METRIC_PROCESS_START_MS)) * 1000);
	fputs("</dl>\n</section>\n", f);
}

/* ---- a key ---- */

static void put_found(FILE *f, const struct status_page *p)
{
	const struct sstate_record *r = p->record;
	bool json = json_is_object(r->value, r->value_len);
	size_t shown = r->value_len < FOUND_MAX ? r->value_len : FOUND_MAX;

	fprintf(f, "<p class=\"where\">%" PRId32 ":%" PRId64 ", ", r->partition, r->offset);
	put_time(f, r->timestamp_ms, p->status->now_ms);
	fputs(", ", f);
	html_size(f, (int64_t)r->value_len);
	fputs(json ? ", JSON</p>\n<pre>" : "</p>\n<pre>", f);
	if (json)
		html_json(f, r->value, shown);
	else
		html_bytes(f, r->value, shown);
	fputs(shown < r->value_len ? "\xe2\x80\xa6</pre>\n" : "</pre>\n", f);
}

static void put_key(FILE *f, const struct status_page *p)
{
	fputs("<section id=\"key\" data-live>\n<h2>Look up a key</h2>\n"
	      "<form method=\"get\" action=\"/\" role=\"search\"><label for=\"asked\">Key, escaped "
	      "as everywhere: <code>\\xHH</code> is a byte, <code>\\\\</code> a "
	      "backslash</label><div class=\"row\"><input id=\"asked\" name=\"key\" "
	      "autocomplete=\"off\" spellcheck=\"false\" autocapitalize=\"off\" value=\"",
	      f);
	html_text(f, p->asked ? p->asked : "");
	fputs("\"><button>Look up</button></div></form>\n<div aria-live=\"polite\">", f);
	if (p->asked && p->found == -ENOENT)
		fputs("<p class=\"none\">There is no such key.</p>\n", f);
	else if (p->asked && p->found == -EINVAL)
		fputs("<p class=\"none\">After a backslash comes x and two digits, or a "
		      "backslash.</p>\n",
		      f);
	else if (p->asked && p->found)
		fprintf(f, "<p class=\"none\">Not to be had now: %s.</p>\n",
			sstate_strerror(p->found));
	else if (p->asked && p->record)
		put_found(f, p);
	fputs("</div>\n</section>\n", f);
}

void status_page_write(FILE *f, const struct status_page *p)
{
	put_head(f, p->status);
	put_facts(f, p->status);
	put_positions(f, p->status);
	put_plots(f, p);
	put_key(f, p);
	put_notes(f, p);
	put_inside(f, p->status);
	fputs("</main>\n<footer><p>sidenote " SIDENOTE_VERSION
	      " <a href=\"/metrics\">metrics</a> <a href=\"/readyz?verbose\">readiness</a> "
	      "<a href=\"/v1/keys?limit=20\">keys</a></p><p id=\"clock\">as of ",
	      f);
	time_t s = p->status->now_ms / 1000;
	char text[40] = "";
	struct tm tm;
	if (gmtime_r(&s, &tm))
		strftime(text, sizeof(text), "%H:%M:%S UTC", &tm);
	fprintf(f, "<span id=\"asof\" data-live>%s</span></p></footer>\n<script>", text);
	fwrite(status_page_js, 1, (size_t)(status_page_js_end - status_page_js), f);
	fputs("</script>\n</body>\n</html>\n", f);
}

/* ---- policy ---- */

static void digest(char out[64], const char *from, const char *end)
{
	unsigned char sum[SHA256_DIGEST_LENGTH];

	SHA256((const unsigned char *)from, (size_t)(end - from), sum);
	*base64_encode(out, sum, sizeof(sum)) = '\0';
}

void status_page_policy(char out[STATUS_POLICY_BYTES])
{
	char css[64], js[64];

	digest(css, status_page_css, status_page_css_end);
	digest(js, status_page_js, status_page_js_end);
	snprintf(out, STATUS_POLICY_BYTES,
		 "default-src 'none'; style-src 'sha256-%s'; script-src 'sha256-%s'; connect-src "
		 "'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors "
		 "'none'",
		 css, js);
}
