#include "http_request.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { BAD_REQUEST = 400, URI_TOO_LONG = 414 };

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decode [p, end) at *out, which moves behind its NUL.  False: a % without two digits. */
static bool decode(struct http_text *t, char **out, const char *p, const char *end, bool query)
{
	char *o = *out;

	t->p = o;
	for (; p < end; p++) {
		if (*p == '%') {
			if (end - p < 3 || hex(p[1]) < 0 || hex(p[2]) < 0)
				return false;
			*o++ = (char)(hex(p[1]) << 4 | hex(p[2]));
			p += 2;
		} else {
			*o++ = query && *p == '+' ? ' ' : *p;
		}
	}
	t->len = (size_t)(o - t->p);
	*o++ = '\0';
	*out = o;
	return true;
}

static const char *find(const char *p, const char *end, char c)
{
	const char *at = memchr(p, c, (size_t)(end - p));
	return at ? at : end;
}

static bool parse_query(struct http_request *r, char **out, const char *p, const char *end)
{
	while (p < end) {
		const char *stop = find(p, end, '&'), *equals = find(p, stop, '=');
		struct http_parameter *one = &r->v[r->n];

		if (stop > p) {
			if (r->n == HTTP_PARAMETERS_MAX ||
			    !decode(&one->name, out, p, equals, true) ||
			    !decode(&one->value, out, equals < stop ? equals + 1 : stop, stop,
				    true))
				return false;
			r->n++;
		}
		p = stop < end ? stop + 1 : end;
	}
	return true;
}

int http_request_parse(struct http_request *r, const char *target, size_t len)
{
	const char *end = target + len, *query = find(target, end, '?');

	*r = (struct http_request){ 0 };
	if (len > HTTP_URI_MAX)
		return URI_TOO_LONG;
	/* a target is printable ASCII; what is not had to be escaped */
	for (const char *p = target; p < end; p++)
		if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f)
			return BAD_REQUEST;
	if (!len || *target != '/')
		return BAD_REQUEST;
	/* decoded is never longer; a NUL after the path and two for each parameter */
	char *out = r->mem = malloc(len + 2 * HTTP_PARAMETERS_MAX + 1);
	if (!out || !decode(&r->path, &out, target, query, false) ||
	    (query < end && !parse_query(r, &out, query + 1, end)))
		return BAD_REQUEST;
	return 0;
}

void http_request_free(struct http_request *r)
{
	free(r->mem);
	*r = (struct http_request){ 0 };
}

static bool is(struct http_text t, const char *text)
{
	return t.len == strlen(text) && !memcmp(t.p, text, t.len);
}

struct http_text http_request_get(const struct http_request *r, const char *name)
{
	for (int i = 0; i < r->n; i++)
		if (is(r->v[i].name, name))
			return r->v[i].value;
	return (struct http_text){ 0 };
}

bool http_request_knows(const struct http_request *r, const char *const *names)
{
	for (int i = 0; i < r->n; i++) {
		const char *const *name = names;
		while (*name && !is(r->v[i].name, *name))
			name++;
		if (!*name)
			return false;
	}
	return true;
}

bool http_request_number(const struct http_request *r, const char *name, int64_t min, int64_t max,
			 int64_t absent, int64_t *out)
{
	struct http_text t = http_request_get(r, name);
	int64_t n = 0;

	*out = absent;
	if (!t.p)
		return true;
	for (size_t i = 0; i < t.len; i++)
		if (!isdigit((unsigned char)t.p[i]) || __builtin_mul_overflow(n, 10, &n) ||
		    __builtin_add_overflow(n, t.p[i] - '0', &n))
			return false;
	*out = n;
	return t.len && n >= min && n <= max;
}

struct http_text http_request_behind(const struct http_request *r, const char *prefix)
{
	size_t len = strlen(prefix);

	if (!r->path.p || r->path.len < len || memcmp(r->path.p, prefix, len))
		return (struct http_text){ 0 };
	return (struct http_text){ r->path.p + len, r->path.len - len };
}

/* Without the port; false: what follows the host is no port. */
static bool take_host(const char *host, char *out, size_t size)
{
	const char *close = *host == '[' ? strchr(host, ']') : NULL;
	size_t len = close ? (size_t)(close + 1 - host) : strcspn(host, ":");
	const char *port = host + len;

	if ((*host == '[' && !close) || len >= size || (*port && *port != ':') ||
	    (*port && strspn(port + 1, "0123456789") != strlen(port + 1)))
		return false;
	memcpy(out, host, len);
	out[len] = '\0';
	return true;
}

bool http_host_is_local(const char *host)
{
	char name[INET6_ADDRSTRLEN + 2];
	struct in6_addr v6;
	struct in_addr v4;

	if (!host)
		return true;
	if (!take_host(host, name, sizeof(name)))
		return false;
	if (!strcasecmp(name, "localhost"))
		return true;
	if (*name == '[') {
		name[strlen(name) - 1] = '\0';
		return inet_pton(AF_INET6, name + 1, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
	}
	return inet_pton(AF_INET, name, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

char *http_escape(char *out, const void *bytes, size_t len)
{
	static const char digits[] = "0123456789ABCDEF";
	const unsigned char *p = bytes;

	for (size_t i = 0; i < len; i++) {
		if (p[i] < 0x80 && (isalnum(p[i]) || strchr("-_.~", p[i])) && p[i]) {
			*out++ = (char)p[i];
			continue;
		}
		*out++ = '%';
		*out++ = digits[p[i] >> 4];
		*out++ = digits[p[i] & 15];
	}
	return out;
}
