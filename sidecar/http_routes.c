#include "http_routes.h"
#include "escape.h"
#include "metrics.h"
#include "recent.h"
#include "status_page.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(((struct http_site *)0)->policy) >= STATUS_POLICY_BYTES, "policy");

static const char HTML[] = "text/html; charset=utf-8";

/* ---- what routes look at ---- */

/* The snapshot, opened once there is one; NULL with *rc. */
static struct sstate *snapshot(struct http_site *w, int *rc)
{
	struct sstate *s;

	*rc = 0;
	pthread_mutex_lock(&w->lock);
	if (!w->snapshot && (*rc = sstate_open(&w->snapshot, w->config->state_dir)))
		w->snapshot = NULL;
	s = w->snapshot;
	pthread_mutex_unlock(&w->lock);
	return s;
}

static void take_status(struct http_site *w, struct status *st)
{
	int rc;
	struct sstate *s = snapshot(w, &rc);

	status_take(st, w->config, &w->source, s, rc);
}

/* ---- health ---- */

static void livez(struct http_site *w, const struct http_request *r, struct http_answer *a)
{
	(void)w, (void)r;
	http_answer_text(a, 200, "ok\n");
}

static void put_checks(FILE *f, const struct status *st, const struct status_check *checks,
		       bool ready)
{
	for (int i = 0; i < STATUS_CHECKS; i++)
		fprintf(f, "[%c] %s: %s\n", checks[i].ok ? '+' : '-', checks[i].name,
			checks[i].text);
	/* what may be told, and is no condition */
	fprintf(f, "[ ] role: %s\n", st->role);
	if (st->waiting)
		fputs("[ ] journal: full, reading waits for publishing\n", f);
	if (st->round_running)
		fputs("[ ] round: running\n", f);
	fputs(ready ? "ready\n" : "not ready\n", f);
}

static void readyz(struct http_site *w, const struct http_request *r, struct http_answer *a)
{
	struct status_check checks[STATUS_CHECKS];
	struct status st;

	take_status(w, &st);
	bool ready = status_ready(&st, checks);
	if (http_request_get(r, "verbose").p) {
		FILE *f = http_answer_open(a);
		if (f)
			put_checks(f, &st, checks, ready);
		http_answer_close(a, f, ready ? 200 : 503, HTTP_TEXT);
	} else if (ready) {
		http_answer_text(a, 200, "ready\n");
	} else {
		int i = 0;
		while (i < STATUS_CHECKS - 1 && checks[i].ok)
			i++;
		http_answer_text(a, 503, "not ready: %s: %s\n", checks[i].name, checks[i].text);
	}
	status_free(&st);
}

/* ---- metrics ---- */

static void metrics(struct http_site *w, const struct http_request *r, struct http_answer *a)
{
	FILE *f = http_answer_open(a);
	struct status st;

	(void)r;
	take_status(w, &st);
	status_to_metrics(&st);
	if (f)
		metrics_print(f, &(struct metrics_info){ w->config->name, w->config->source_topic,
							 st.cluster });
	http_answer_close(a, f, 200, "text/plain; version=0.0.4; charset=utf-8");
	status_free(&st);
}

/* ---- keys ---- */

static void list(struct http_site *w, const struct http_request *r, struct http_answer *a)
{
	int rc;
	struct sstate *s = snapshot(w, &rc);

	if (s)
		http_keys_list(a, s, r);
	else
		http_keys_unready(a, rc);
}

static void get(struct http_site *w, const struct http_request *r, struct http_answer *a)
{
	int rc;
	struct sstate *s = snapshot(w, &rc);

	if (s)
		http_keys_get(a, s, r, http_request_behind(r, "/v1/keys/"), &w->waits);
	else
		http_keys_unready(a, rc);
}

/* ---- the page ---- */

static int look_up(struct http_site *w, const char *asked, struct sstate_buf *b,
		   struct sstate_record *record)
{
	void *key;
	size_t len;
	int rc;
	struct sstate *s = snapshot(w, &rc);

	if (!s)
		return rc;
	if ((rc = escape_parse(asked, &key, &len)))
		return rc;
	rc = sstate_get(s, key, len, b, record);
	free(key);
	return rc;
}

static void page(struct http_site *w, const struct http_request *r, struct http_answer *a)
{
	struct history_sample *samples = calloc(HISTORY_SAMPLES, sizeof(*samples));
	struct recent_note *notes[RECENT_NOTES];
	struct status_page p = { .samples = samples, .notes = notes };
	struct http_text asked = http_request_get(r, "key");
	struct sstate_buf buf = { 0 };
	struct sstate_record record;
	struct status st;
	FILE *f = http_answer_open(a);

	take_status(w, &st);
	p.status = &st;
	p.n_samples = samples ? history_copy(&w->history, samples) : 0;
	p.n_notes = recent_copy(notes);
	if (asked.p && asked.len) {
		p.asked = asked.p;
		p.found =
			strlen(asked.p) == asked.len ? look_up(w, asked.p, &buf, &record) : -EINVAL;
		p.record = p.found ? NULL : &record;
	}
	if (f)
		status_page_write(f, &p);
	http_answer_close(a, f, 200, HTML);
	http_answer_header(a, "Content-Security-Policy", "%s", w->policy);
	sstate_buf_free(&buf);
	recent_free(notes, p.n_notes);
	status_free(&st);
	free(samples);
}

/* ---- the table ---- */

static const struct route {
	const char *path;
	bool rest;   /* the path goes on with a key */
	bool values; /* tells keys or values */
	void (*answer)(struct http_site *w, const struct http_request *r, struct http_answer *a);
} routes[] = {
	{ "/livez", false, false, livez },     { "/readyz", false, false, readyz },
	{ "/metrics", false, false, metrics }, { "/", false, true, page },
	{ "/v1/keys", false, true, list },     { "/v1/keys/", true, true, get },
};

static const struct route *find(const struct http_request *r)
{
	for (size_t i = 0; i < sizeof(routes) / sizeof(*routes); i++) {
		struct http_text rest = http_request_behind(r, routes[i].path);
		if (rest.p && (routes[i].rest || !rest.len))
			return &routes[i];
	}
	return NULL;
}

static void answer_request(struct http_site *w, const struct http_ask *ask,
			   const struct http_request *r, struct http_answer *a)
{
	const struct route *route = find(r);

	if (!route)
		http_answer_error(a, 404, "no such path: /livez, /readyz, /metrics, /v1/keys, /");
	else if (strcmp(ask->method, "GET") && strcmp(ask->method, "HEAD"))
		http_answer_error(a, 405, "GET and HEAD only");
	else if (ask->has_body)
		http_answer_error(a, 413, "a request has no body here");
	else if (route->values && !w->values)
		http_answer_error(a, 403,
				  "keys and values are told on a loopback address or a "
				  "unix socket only, elsewhere with http.values=true");
	else
		route->answer(w, r, a);
	if (a->status == 405)
		http_answer_header(a, "Allow", "GET, HEAD");
}

static void count(int status)
{
	metrics_add(status < 400   ? METRIC_HTTP_2XX
		    : status < 500 ? METRIC_HTTP_4XX
				   : METRIC_HTTP_5XX,
		    1);
}

void http_site_answer(struct http_site *w, const struct http_ask *ask, struct http_answer *a)
{
	struct http_request r;
	int rc = http_request_parse(&r, ask->target, ask->target_len);

	if (w->check_host && !http_host_is_local(ask->host))
		http_answer_error(a, 421,
				  "this address is for this host: Host must be localhost or a "
				  "loopback address");
	else if (rc == 414)
		http_answer_error(a, 414, "longer than %d bytes", HTTP_URI_MAX);
	else if (rc)
		http_answer_error(a, rc, "not a path with parameters, escaped with %%HH");
	else
		answer_request(w, ask, &r, a);
	http_request_free(&r);
	http_answer_header(a, "Cache-Control", "no-store");
	http_answer_header(a, "X-Content-Type-Options", "nosniff");
	http_answer_header(a, "X-Frame-Options", "DENY");
	http_answer_header(a, "Referrer-Policy", "no-referrer");
	http_answer_header(a, "Cross-Origin-Resource-Policy", "same-origin");
	if (!a->type || strcmp(a->type, HTML))
		http_answer_header(a, "Content-Security-Policy",
				   "default-src 'none'; frame-ancestors 'none'");
	count(a->status);
}

void http_site_init(struct http_site *w, const struct config *c)
{
	memset(w, 0, sizeof(*w));
	w->config = c;
	pthread_mutex_init(&w->source.lock, NULL);
	pthread_mutex_init(&w->lock, NULL);
	history_init(&w->history);
	status_page_policy(w->policy);
}

void http_site_free(struct http_site *w)
{
	sstate_close(w->snapshot);
	history_free(&w->history);
	pthread_mutex_destroy(&w->lock);
	pthread_mutex_destroy(&w->source.lock);
}
