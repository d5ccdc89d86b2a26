/*
 * http.h - health, metrics, look-ups and the status page, for GET alone.
 *
 *   http_start(&h, config, err, sizeof err);     before anything else: /livez answers at once
 *   http_attach(h, &pipeline);  ...  http_detach(h);
 *   http_stop(h);
 *
 * It owns no state of the pipeline: it copies standings under the pipeline's
 * lock, looks keys up through the reader library, and prints the metrics.
 *
 * A connection has a thread of its own, so that a slow client and a slow disk
 * cost nobody else anything.  Who sends no request within HEAD_MS, or has not
 * taken its answer within ANSWER_MS, is cut off; when there are too many, the
 * one that has been silent for longest is.
 *
 * Values (/v1, and the page, which shows some) are for this host only, unless
 * http.values says otherwise.  docs/http.md is the contract.
 */
#ifndef HTTP_H
#define HTTP_H

#include "config.h"
#include "pipeline.h"

struct http;

/** 0, or -errno with one line: the address is taken, ... */
int http_start(struct http **out, const struct config *c, char *err, size_t err_len);
/** End every connection, wait for their threads.  NULL is allowed. */
void http_stop(struct http *h);

/** A pipeline to look at, until http_detach().  NULL `h` is allowed. */
void http_attach(struct http *h, struct pipeline *p);
void http_detach(struct http *h);

/** Versions, for --version. */
const char *http_engine(void);

#endif
