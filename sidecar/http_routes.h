/*
 * http_routes.h - which path is answered how.  No library, so that tests ask
 * it directly.
 */
#ifndef HTTP_ROUTES_H
#define HTTP_ROUTES_H

#include "history.h"
#include "http_answer.h"
#include "http_keys.h"
#include "status.h"

struct http_site {
	const struct config *config;
	bool values;     /* keys and values may be told */
	bool check_host; /* whoever connects may be a browser that was led astray */
	struct status_source source;
	struct history history;
	struct http_waits waits;
	pthread_mutex_t lock; /* of `snapshot` */
	struct sstate *snapshot;
	char policy[512]; /* of the page */
};

struct http_ask {
	const char *method, *target; /* as they came */
	size_t target_len;
	const char *host; /* NULL: none */
	bool has_body;
};

/** `config` outlives the site. */
void http_site_init(struct http_site *w, const struct config *c);
void http_site_free(struct http_site *w);

/** The answer to one request, the headers that all have included. */
void http_site_answer(struct http_site *w, const struct http_ask *ask, struct http_answer *a);

#endif
