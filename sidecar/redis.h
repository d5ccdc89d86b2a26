/*
 * redis.h - one connection to a Redis, commands in a pipeline, every wait
 * bounded.
 *
 *   redis_open(&r, &options, &stop, err, sizeof err);
 *   redis_word(r, "SET");  redis_arg(r, key, key_len);  redis_arg(r, v, v_len);
 *   redis_send(r);                           // ... more commands, then
 *   if (!redis_next(r, &a)) ...              // their answers, in the same order
 *   redis_close(r);
 *
 * Errors:    0 or -errno.  -ECANCELED: *stop was set, which every wait looks at
 *            20 times a second; -ETIMEDOUT: no byte came or went for seconds.
 *            After any of them the connection is of no use, each call returns the
 *            same, and nobody knows what the server did with the last commands.
 *            An error that the server answers is an answer (REDIS_FAULT).
 * Ownership: _open makes, _close frees.  An answer lives until the next
 *            redis_next(); arguments must live until redis_send() only.
 * Threads:   a connection belongs to one thread.
 */
#ifndef REDIS_H
#define REDIS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum { REDIS_HOST_MAX = 256, REDIS_PATH_MAX = 108 };

struct redis_uri {
	bool tls;
	char host[REDIS_HOST_MAX]; /* "": a unix socket */
	int port;
	char path[REDIS_PATH_MAX];
	int db;
};
/** redis://HOST[:PORT][/DB], rediss:// the same over TLS, unix:/PATH[?db=DB]. */
int redis_uri_parse(struct redis_uri *u, const char *text, char *err, size_t err_len);

/** A pattern for SCAN: exactly the keys that begin with these bytes.  To be freed; NULL: memory. */
char *redis_pattern(const void *prefix, size_t len, size_t *pattern_len);

struct redis_options { /* "" or NULL where not set */
	const char *uri, *user, *password_file;
	const char *tls_ca, *tls_cert, *tls_key;
	const char *client; /* the name that CLIENT LIST shows */
};
/** Whether this build can do what the options ask for, without connecting. */
int redis_check(const struct redis_options *o, char *err, size_t err_len);
/** Name and version of the library. */
const char *redis_library(void);

struct redis;

/**
 * Connect, log in, select the database.  `stop` may be NULL.  -EACCES: the
 * server refuses user or password; -EINVAL: the options.
 */
int redis_open(struct redis **out, const struct redis_options *o, const atomic_bool *stop,
	       char *err, size_t err_len);
void redis_close(struct redis *r); /* NULL is allowed */
/** What went wrong with the connection; "" if nothing did. */
const char *redis_error(const struct redis *r);

/* ---- commands ---- */

/** Begin a command with a word, or add one.  The text is not copied. */
void redis_word(struct redis *r, const char *text);
void redis_arg(struct redis *r, const void *bytes, size_t len);
/** The command is complete: it goes out with the next redis_next(). */
void redis_send(struct redis *r);
/** A whole command of words, ended by NULL. */
void redis_words(struct redis *r, ...) __attribute__((sentinel));

/* ---- answers ---- */

enum redis_kind {
	REDIS_NOTHING, /* nil */
	REDIS_TEXT,    /* status or bytes */
	REDIS_NUMBER,
	REDIS_LIST,
	REDIS_FAULT, /* the server's error, in text */
};

struct redis_answer {
	enum redis_kind kind;
	long long number;
	const char *text; /* NUL-terminated behind its bytes */
	size_t len;
	size_t n;         /* elements of a list */
	const void *self; /* for redis_at() */
};

/** The answer to the oldest command that has none yet. */
int redis_next(struct redis *r, struct redis_answer *a);
/** Element i of a list; REDIS_NOTHING where there is none. */
struct redis_answer redis_at(const struct redis_answer *list, size_t i);
/** Whether an answer is this text (a status, the first word of a fault). */
bool redis_is(const struct redis_answer *a, const char *text);

#endif
