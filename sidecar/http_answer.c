#include "http_answer.h"
#include "json.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { UNAVAILABLE = 503 };

static void set_body(struct http_answer *a, int status, const char *type, char *body, size_t len)
{
	free(a->body);
	a->status = body ? status : UNAVAILABLE;
	a->type = type;
	a->body = body;
	a->len = body ? len : 0;
}

void http_answer_text(struct http_answer *a, int status, const char *fmt, ...)
{
	char *text;
	va_list ap;

	va_start(ap, fmt);
	int len = vasprintf(&text, fmt, ap);
	va_end(ap);
	set_body(a, status, HTTP_TEXT, len < 0 ? NULL : text, (size_t)len);
}

void http_answer_error(struct http_answer *a, int status, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	FILE *f = http_answer_open(a);

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (f) {
		char quoted[JSON_STRING_MAX(sizeof(text)) + 1];
		*json_put_string(quoted, text, strlen(text)) = '\0';
		fprintf(f, "{\"error\":%s}\n", quoted);
	}
	http_answer_close(a, f, status, HTTP_JSON);
}

void http_answer_header(struct http_answer *a, const char *name, const char *fmt, ...)
{
	char *value;
	va_list ap;

	va_start(ap, fmt);
	int len = vasprintf(&value, fmt, ap);
	va_end(ap);
	if (len < 0)
		return;
	if (a->n == HTTP_HEADERS_MAX) {
		free(value);
		return;
	}
	a->headers[a->n].name = name;
	a->headers[a->n++].value = value;
}

FILE *http_answer_open(struct http_answer *a)
{
	free(a->body);
	a->body = NULL;
	a->len = 0;
	return open_memstream(&a->body, &a->len);
}

void http_answer_close(struct http_answer *a, FILE *f, int status, const char *type)
{
	bool failed = !f || ferror(f);

	if (f && fclose(f))
		failed = true;
	if (failed) {
		free(a->body);
		a->body = NULL;
		a->len = 0;
	}
	a->status = failed ? UNAVAILABLE : status;
	a->type = type;
}

void http_answer_free(struct http_answer *a)
{
	free(a->body);
	for (int i = 0; i < a->n; i++)
		free(a->headers[i].value);
	*a = (struct http_answer){ 0 };
}
