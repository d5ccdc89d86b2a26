/*
 * http_keys.h - /v1/keys: look-ups through the reader library, as any program
 * on this host does them.
 *
 *   GET /v1/keys/<key>[?after=TOKEN[&wait_ms=N]]     one value, as it is
 *   GET /v1/keys[?prefix=P][&limit=N][&after=KEY]    some, as JSON
 *
 * docs/http.md is the contract.
 *
 * Threads:   any.  A request that waits for a position holds its own thread.
 */
#ifndef HTTP_KEYS_H
#define HTTP_KEYS_H

#include "http_answer.h"
#include "http_request.h"
#include "shared_state.h"

#include <stdatomic.h>

enum {
	HTTP_LIMIT_DEFAULT = 100,
	HTTP_LIMIT_MAX = 1000,
	HTTP_LIST_BYTES = 1 << 20, /* a list ends early once it has so many */
	HTTP_WAIT_MS_MAX = 30000,
	HTTP_TOKEN_HEADER_MAX = 4096, /* bytes: many clients refuse longer headers */
};

/* Who waits for a position. */
struct http_waits {
	atomic_int n;
	int max;                 /* more than so many get an answer at once */
	const atomic_bool *stop; /* ends every wait */
};

void http_keys_get(struct http_answer *a, struct sstate *s, const struct http_request *r,
		   struct http_text key, struct http_waits *w);
void http_keys_list(struct http_answer *a, struct sstate *s, const struct http_request *r);
/** There is no snapshot to look up in, `rc` says why. */
void http_keys_unready(struct http_answer *a, int rc);

#endif
