/*
 * http_answer.h - what a client gets: status, headers, body.  No library.
 *
 * Ownership: http_answer_free() frees the body and the headers' values.
 */
#ifndef HTTP_ANSWER_H
#define HTTP_ANSWER_H

#include <stddef.h>
#include <stdio.h>

enum { HTTP_HEADERS_MAX = 12 };

struct http_answer {
	int status;
	const char *type; /* static */
	char *body;
	size_t len;
	struct {
		const char *name; /* static */
		char *value;
	} headers[HTTP_HEADERS_MAX];
	int n;
};

#define HTTP_TEXT "text/plain; charset=utf-8"
#define HTTP_JSON "application/json"

/** A body of one line of text. */
void http_answer_text(struct http_answer *a, int status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/** {"error":"..."}, as everything under /v1 complains. */
void http_answer_error(struct http_answer *a, int status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/** Passed over when there is no memory: a header is never what an answer hangs on. */
void http_answer_header(struct http_answer *a, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/** Write a body piece by piece, then end; the answer is an error if that failed. */
FILE *http_answer_open(struct http_answer *a);
void http_answer_close(struct http_answer *a, FILE *f, int status, const char *type);

void http_answer_free(struct http_answer *a);

#endif
