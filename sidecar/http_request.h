/*
 * http_request.h - what a client asks for: a request line as it came, taken
 * apart.  No I/O, no library.
 *
 * The path and each value are decoded here and once: a key may hold any byte,
 * a NUL and a slash too.  `+` is a space in a query, as forms send it, and
 * itself in a path.
 *
 * Errors:    0 or the status to answer with (400, 414).
 * Ownership: a struct http_request holds its own copy; http_request_free().
 * Threads:   pure functions.
 */
#ifndef HTTP_REQUEST_H
#define HTTP_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	HTTP_URI_MAX = 16384,   /* bytes, as sent: longer is 414 */
	HTTP_PARAMETERS_MAX = 8 /* more is 400 */
};

struct http_text {     /* decoded bytes, followed by a NUL that is not counted */
	const char *p; /* NULL: not there */
	size_t len;
};

struct http_parameter {
	struct http_text name, value;
};

struct http_request {
	struct http_text path;
	struct http_parameter v[HTTP_PARAMETERS_MAX];
	int n;
	char *mem;
};

/** Take a request target apart: 0, 400 or 414. */
int http_request_parse(struct http_request *r, const char *target, size_t len);
/** Also after a failed http_request_parse(), and for { 0 }. */
void http_request_free(struct http_request *r);

/** A parameter by name; p NULL: it was not given.  Of several, the first. */
struct http_text http_request_get(const struct http_request *r, const char *name);
/** Whether all parameters are among `names`, up to a NULL. */
bool http_request_knows(const struct http_request *r, const char *const *names);
/** Whole number of a parameter, `absent` if it is not given; false: not one from min to max. */
bool http_request_number(const struct http_request *r, const char *name, int64_t min, int64_t max,
			 int64_t absent, int64_t *out);

/** If the path begins with `prefix`, what follows; else p NULL. */
struct http_text http_request_behind(const struct http_request *r, const char *prefix);

/**
 * Whether a Host header names this host by number or as localhost, so that the
 * page that made a browser send it was loaded from here.  NULL (HTTP/1.0): yes,
 * no browser leaves it out.
 */
bool http_host_is_local(const char *host);

/** Bytes that http_escape() writes at most. */
#define HTTP_ESCAPED_MAX(len) (3 * (len))
/** Bytes so that they can stand in a path, in a query and in JSON; returns the byte after. */
char *http_escape(char *out, const void *bytes, size_t len);

#endif
