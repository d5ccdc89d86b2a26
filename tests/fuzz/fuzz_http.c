/*
 * Any request target: it is refused, or its parts lie inside what was sent,
 * decoding finds what escaping wrote, and no host that is foreign becomes
 * local by being written oddly.
 */
#include "http_request.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_at(struct http_text t, size_t most)
{
	if (t.p && (t.len > most || t.p[t.len]))
		abort();
}

/* Escaped and read again, a key is what it was. */
static void there_and_back(struct http_text key)
{
	char *target = malloc(10 + HTTP_ESCAPED_MAX(key.len));
	struct http_request r;

	memcpy(target, "/v1/keys/", 9);
	char *end = http_escape(target + 9, key.p, key.len);
	if (end - target <= HTTP_URI_MAX) {
		if (http_request_parse(&r, target, (size_t)(end - target)))
			abort();
		struct http_text again = http_request_behind(&r, "/v1/keys/");
		if (again.len != key.len || memcmp(again.p, key.p, key.len))
			abort();
		http_request_free(&r);
	}
	free(target);
}

static void hosts(const uint8_t *data, size_t size)
{
	char *host = malloc(size + 1);

	memcpy(host, data, size);
	host[size] = '\0';
	/* a name that a stranger can own has a letter, which localhost alone may have */
	if (http_host_is_local(host) && strcspn(host, ":") == strlen(host) &&
	    strspn(host, "0123456789.") != strlen(host) && strcasecmp(host, "localhost") &&
	    *host != '[')
		abort();
	free(host);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http_request r;
	/* at the very end of an allocation, where reading too far is seen */
	char *exact = malloc(size);
	int64_t n;

	if (size)
		memcpy(exact, data, size);
	int rc = http_request_parse(&r, exact, size);
	if (rc && rc != 400 && rc != 414)
		abort();
	if (!rc) {
		look_at(r.path, size);
		for (int i = 0; i < r.n; i++) {
			look_at(r.v[i].name, size);
			look_at(r.v[i].value, size);
		}
		if (http_request_number(&r, "limit", 1, 1000, 100, &n) && (n < 1 || n > 1000))
			abort();
		there_and_back(r.path);
	}
	http_request_free(&r);
	free(exact);
	hosts(data, size);
	return 0;
}
