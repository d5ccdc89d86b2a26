/*
 * hiredis does formatting and parsing; waiting is done here, on a socket that
 * does not block, so that a dead or slow server can hold up nobody: neither in
 * the resolver (a thread of its own), nor in connect, TLS, write or read.
 */
#include "redis.h"
#include "property.h"
#include "refuse.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <hiredis/hiredis.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#ifdef HAVE_HIREDIS_SSL
#include <hiredis/hiredis_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#endif

enum {
	PORT = 6379,
	SLICE_MS = 50,     /* between looks at *stop */
	CONNECT_MS = 3000, /* for each of: name, connection, TLS */
	STALL_MS = 10000,  /* without a byte, the server is given up */
	DB_MAX = 1000000,
	ELEMENTS_MAX = 1 << 20, /* of one answer */
	RESOLVED_MAX = 4,
};

const char *redis_library(void)
{
	static char text[64];

	snprintf(text, sizeof(text), "hiredis %d.%d.%d%s", HIREDIS_MAJOR, HIREDIS_MINOR,
		 HIREDIS_PATCH,
#ifdef HAVE_HIREDIS_SSL
		 ""
#else
		 " without TLS"
#endif
	);
	return text;
}

static int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* ---- where ---- */

static int parse_number(const char *text, int min, int max, int *out)
{
	char *end;

	if (!isdigit((unsigned char)*text) || strlen(text) > 9)
		return -EINVAL;
	long n = strtol(text, &end, 10);
	if (*end || n < min || n > max)
		return -EINVAL;
	*out = (int)n;
	return 0;
}

static int parse_path(struct redis_uri *u, const char *text, char *err, size_t err_len)
{
	const char *query = strchr(text, '?');
	size_t len = query ? (size_t)(query - text) : strlen(text);

	if (!strncmp(text, "//", 2) && text[2] == '/') { /* unix:///path */
		text += 2;
		len -= 2;
	}
	if (text[0] != '/' || text[1] == '/' || len >= sizeof(u->path))
		return refuse(err, err_len, "'%s' is no path from the root of at most %zu bytes",
			      text, sizeof(u->path) - 1);
	if (query && (strncmp(query, "?db=", 4) || parse_number(query + 4, 0, DB_MAX, &u->db)))
		return refuse(err, err_len, "'%s' is not ?db=NUMBER", query);
	memcpy(u->path, text, len);
	u->path[len] = '\0';
	return 0;
}

static int parse_host(struct redis_uri *u, const char *text, char *err, size_t err_len)
{
	const char *slash = strchr(text, '/'), *end = slash ? slash : text + strlen(text);
	const char *host = text, *host_end, *port;

	if (memchr(text, '@', strlen(text)))
		return refuse(err, err_len,
			      "user and password do not belong there: redis.user=NAME, "
			      "redis.password.file=PATH");
	if (*host == '[') {
		host++;
		host_end = strchr(host, ']');
		if (!host_end || host_end > end)
			return refuse(err, err_len, "'%s' has no ]", text);
		port = host_end + 1;
	} else {
		host_end = host + strcspn(host, ":/");
		port = host_end;
	}
	size_t len = (size_t)(host_end - host);
	if (!len || len >= sizeof(u->host) || (port != end && *port != ':'))
		return refuse(err, err_len, "'%.*s' is not HOST or HOST:PORT", (int)(end - text),
			      text);
	memcpy(u->host, host, len);
	u->host[len] = '\0';
	u->port = PORT;
	if (port != end) {
		char number[16];
		snprintf(number, sizeof(number), "%.*s", (int)(end - port - 1), port + 1);
		if (end - port > 6 || parse_number(number, 1, 65535, &u->port))
			return refuse(err, err_len, "'%.*s' is no port", (int)(end - port - 1),
				      port + 1);
	}
	if (slash && slash[1] && parse_number(slash + 1, 0, DB_MAX, &u->db))
		return refuse(err, err_len, "'%s' is no number of a database", slash + 1);
	return 0;
}

int redis_uri_parse(struct redis_uri *u, const char *text, char *err, size_t err_len)
{
	*u = (struct redis_uri){ 0 };
	if (!strncmp(text, "redis://", 8))
		return parse_host(u, text + 8, err, err_len);
	if (!strncmp(text, "unix:", 5))
		return parse_path(u, text + 5, err, err_len);
	if (strncmp(text, "rediss://", 9) != 0)
		/* what stands there may be a password */
		return refuse(err, err_len,
			      "is none of redis://HOST[:PORT][/DB], rediss://HOST[:PORT][/DB], "
			      "unix:/PATH[?db=DB]");
	u->tls = true;
	return parse_host(u, text + 9, err, err_len);
}

char *redis_pattern(const void *prefix, size_t len, size_t *pattern_len)
{
	const char *from = prefix;
	char *pattern = malloc(2 * len + 2), *to = pattern;

	if (!pattern)
		return NULL;
	for (size_t i = 0; i < len; i++) {
		if (from[i] == '*' || from[i] == '?' || from[i] == '[' || from[i] == ']' ||
		    from[i] == '\\')
			*to++ = '\\';
		*to++ = from[i];
	}
	*to++ = '*';
	*to = '\0';
	*pattern_len = (size_t)(to - pattern);
	return pattern;
}

static bool is_set(const char *text) { return text && *text; }

int redis_check(const struct redis_options *o, char *err, size_t err_len)
{
	struct config_pairs secret = { 0 };
	struct redis_uri u;
	char why[400];
	int rc = redis_uri_parse(&u, o->uri, why, sizeof(why));

	if (rc)
		return refuse(err, err_len, "redis.uri: %s", why);
#ifndef HAVE_HIREDIS_SSL
	if (u.tls)
		return refuse(err, err_len,
			      "redis.uri: rediss:// needs a sidenote that was built with "
			      "hiredis_ssl (hiredis 1.0 or later; this is %s): put a TLS proxy "
			      "such as stunnel beside it and name that one, or use a unix socket",
			      redis_library());
#endif
	if (is_set(o->user) && !is_set(o->password_file))
		return refuse(err, err_len, "redis.user: needs redis.password.file");
	if (!is_set(o->tls_cert) != !is_set(o->tls_key))
		return refuse(err, err_len, "redis.tls.cert, redis.tls.key: both, or none of them");
	if (!u.tls && (is_set(o->tls_ca) || is_set(o->tls_cert)))
		return refuse(err, err_len, "redis.tls.*: are for rediss:// only");
	if (is_set(o->password_file))
		rc = property_set(&secret, "redis.", "password.file", o->password_file, err,
				  err_len);
	property_free(&secret);
	return rc;
}

/* ---- the connection ---- */

struct redis {
	redisContext *c;
	const atomic_bool *stop;
	redisReply *last;
	const char **argv;
	size_t *lens;
	size_t argc, cap;
	int rc; /* of the first failure */
	char err[400];
#ifdef HAVE_HIREDIS_SSL
	SSL_CTX *tls;
#endif
};

static int fail(struct redis *r, int rc, const char *text)
{
	if (r->rc)
		return r->rc;
	r->rc = rc;
	snprintf(r->err, sizeof(r->err), "%s", text);
	return rc;
}

static int fail_io(struct redis *r)
{
	const char *text = r->c->errstr[0] ? r->c->errstr : strerror(errno);

	return fail(r, -EIO, text);
}

const char *redis_error(const struct redis *r) { return r->err; }

static bool stopping(const struct redis *r) { return r->stop && atomic_load(r->stop); }

/* One slice of waiting until the socket can do `events`. */
static int wait_slice(struct redis *r, short events, int64_t *moved_ms, int limit_ms)
{
	struct pollfd f = { .fd = r->c->fd, .events = events };

	if (stopping(r))
		return fail(r, -ECANCELED, "stopping");
	if (now_ms() - *moved_ms > limit_ms)
		return fail(r, -ETIMEDOUT, "no answer for seconds");
	if (poll(&f, 1, SLICE_MS) > 0)
		*moved_ms = now_ms();
	return 0;
}

/* ---- names: a resolver cannot be told to hurry ---- */

struct resolving {
	atomic_int users; /* the thread and whoever waits; the last one frees */
	atomic_bool done;
	char host[REDIS_HOST_MAX];
	int rc;
	int n;
	char address[RESOLVED_MAX][INET6_ADDRSTRLEN];
};

static void give_back(struct resolving *w)
{
	if (atomic_fetch_sub(&w->users, 1) == 1)
		free(w);
}

static void *resolve(void *arg)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct addrinfo *list = NULL;
	struct resolving *w = arg;

	w->rc = getaddrinfo(w->host, NULL, &hints, &list);
	for (struct addrinfo *a = list; a && w->n < RESOLVED_MAX; a = a->ai_next)
		if (!getnameinfo(a->ai_addr, a->ai_addrlen, w->address[w->n], sizeof(w->address[0]),
				 NULL, 0, NI_NUMERICHOST))
			w->n++;
	if (list)
		freeaddrinfo(list);
	atomic_store(&w->done, true);
	give_back(w);
	return NULL;
}

static int start_resolving(struct resolving *w)
{
	pthread_attr_t detached;
	pthread_t t;

	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	int rc = pthread_create(&t, &detached, resolve, w);
	pthread_attr_destroy(&detached);
	return -rc;
}

static int await(struct redis *r, struct resolving *w)
{
	char text[REDIS_HOST_MAX + 100];

	for (int64_t until = now_ms() + CONNECT_MS; !atomic_load(&w->done);) {
		if (stopping(r))
			return fail(r, -ECANCELED, "stopping");
		if (now_ms() > until)
			return fail(r, -ETIMEDOUT, "its name is not resolved for seconds");
		poll(NULL, 0, 5);
	}
	if (w->n)
		return 0;
	snprintf(text, sizeof(text), "%s", w->rc ? gai_strerror(w->rc) : "no address");
	return fail(r, -EHOSTUNREACH, text);
}

/* ---- connect ---- */

static int await_connected(struct redis *r)
{
	struct pollfd f = { .fd = r->c->fd, .events = POLLOUT };
	socklen_t len = sizeof(int);
	int error = 0;

	for (int64_t until = now_ms() + CONNECT_MS; poll(&f, 1, SLICE_MS) <= 0;) {
		if (stopping(r))
			return fail(r, -ECANCELED, "stopping");
		if (now_ms() > until)
			return fail(r, -ETIMEDOUT, "does not accept a connection for seconds");
	}
	if (getsockopt(f.fd, SOL_SOCKET, SO_ERROR, &error, &len))
		error = errno;
	return error ? fail(r, -error, strerror(error)) : 0;
}

static int take_context(struct redis *r, redisContext *c)
{
	r->c = c;
	if (!c)
		return fail(r, -ENOMEM, "out of memory");
	if (c->err)
		return fail_io(r);
	return await_connected(r);
}

/* Each address of a name in turn. */
static int connect_host(struct redis *r, const struct redis_uri *u)
{
	struct resolving *w = calloc(1, sizeof(*w));
	int rc;

	if (!w)
		return fail(r, -ENOMEM, "out of memory");
	memcpy(w->host, u->host, sizeof(w->host));
	atomic_store(&w->users, 2);
	if (start_resolving(w)) {
		free(w);
		return fail(r, -ENOMEM, "out of memory");
	}
	rc = await(r, w);
	for (int i = 0; i < w->n && !rc; i++) {
		r->rc = 0;
		redisFree(r->c);
		r->c = NULL;
		if (!take_context(r, redisConnectNonBlock(w->address[i], u->port)) ||
		    r->rc == -ECANCELED)
			break;
	}
	give_back(w);
	return r->rc;
}

#ifdef HAVE_HIREDIS_SSL
static int fail_tls(struct redis *r, const char *what)
{
	unsigned long e = ERR_peek_last_error();
	const char *reason = e ? ERR_reason_error_string(e) : NULL;
	char text[250];

	snprintf(text, sizeof(text), "%s: %s", what, reason ? reason : "TLS failed");
	ERR_clear_error();
	return fail(r, -EPROTO, text);
}

static int tls_settings(struct redis *r, const struct redis_options *o)
{
	r->tls = SSL_CTX_new(TLS_client_method());
	if (!r->tls)
		return fail_tls(r, "TLS");
	SSL_CTX_set_min_proto_version(r->tls, TLS1_2_VERSION);
	SSL_CTX_set_verify(r->tls, SSL_VERIFY_PEER, NULL);
	if (is_set(o->tls_ca) ? !SSL_CTX_load_verify_locations(r->tls, o->tls_ca, NULL)
			      : !SSL_CTX_set_default_verify_paths(r->tls))
		return fail_tls(r, "redis.tls.ca");
	if (is_set(o->tls_cert) &&
	    (SSL_CTX_use_certificate_chain_file(r->tls, o->tls_cert) != 1 ||
	     SSL_CTX_use_PrivateKey_file(r->tls, o->tls_key, SSL_FILETYPE_PEM) != 1))
		return fail_tls(r, "redis.tls.cert, redis.tls.key");
	return 0;
}

/* The name is checked here: hiredis does not. */
static int tls_name(SSL *ssl, const char *host)
{
	struct in6_addr any;

	if (inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host);
	return SSL_set_tlsext_host_name(ssl, host) && SSL_set1_host(ssl, host);
}

static int shake_hands(struct redis *r, SSL *ssl)
{
	int64_t moved = now_ms();
	int n, rc = 0;

	while (!rc && (n = SSL_do_handshake(ssl)) != 1) {
		int e = SSL_get_error(ssl, n);
		if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE)
			return fail_tls(r, "TLS");
		rc = wait_slice(r, e == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, &moved, CONNECT_MS);
	}
	return rc;
}

static int start_tls(struct redis *r, const struct redis_options *o, const char *host)
{
	SSL *ssl;

	if (tls_settings(r, o))
		return r->rc;
	ssl = SSL_new(r->tls);
	if (!ssl || !tls_name(ssl, host) || redisInitiateSSL(r->c, ssl) != REDIS_OK) {
		SSL_free(ssl);
		return fail_tls(r, "TLS");
	}
	return shake_hands(r, ssl);
}
#else
static int start_tls(struct redis *r, const struct redis_options *o, const char *host)
{
	(void)o, (void)host;
	return fail(r, -EINVAL, "this build has no TLS for Redis");
}
#endif

/* ---- login ---- */

static int expect_ok(struct redis *r, const char *what, int rc_if_not)
{
	struct redis_answer a;
	char text[280];

	if (redis_next(r, &a))
		return r->rc;
	if (a.kind != REDIS_FAULT)
		return 0;
	snprintf(text, sizeof(text), "%s: %s", what, a.text);
	return fail(r, rc_if_not, text);
}

static int log_in(struct redis *r, const struct redis_options *o)
{
	struct config_pairs secret = { 0 };
	char why[300];
	int rc;

	if (!is_set(o->password_file))
		return 0;
	rc = property_set(&secret, "redis.", "password.file", o->password_file, why, sizeof(why));
	if (rc) {
		fail(r, -EACCES, why);
	} else {
		redis_word(r, "AUTH");
		if (is_set(o->user))
			redis_word(r, o->user);
		redis_word(r, property_get(&secret, "password"));
		redis_send(r);
		expect_ok(r, "login", -EACCES);
	}
	property_free(&secret);
	return r->rc;
}

static int introduce(struct redis *r, const struct redis_options *o, int db)
{
	struct redis_answer a;
	char number[16];

	if (log_in(r, o))
		return r->rc;
	if (is_set(o->client)) {
		redis_words(r, "CLIENT", "SETNAME", o->client, NULL);
		if (redis_next(r, &a)) /* a right that may be missing */
			return r->rc;
	}
	if (!db)
		return 0;
	snprintf(number, sizeof(number), "%d", db);
	redis_words(r, "SELECT", number, NULL);
	return expect_ok(r, "database", -EINVAL);
}

int redis_open(struct redis **out, const struct redis_options *o, const atomic_bool *stop,
	       char *err, size_t err_len)
{
	struct redis *r = calloc(1, sizeof(*r));
	struct redis_uri u;
	int rc;

	if (!r)
		return refuse_memory(err, err_len);
	r->stop = stop;
	rc = redis_uri_parse(&u, o->uri, r->err, sizeof(r->err));
	if (!rc)
		rc = *u.host ? connect_host(r, &u)
			     : take_context(r, redisConnectUnixNonBlock(u.path));
	if (!rc && u.tls)
		rc = start_tls(r, o, u.host);
#if HIREDIS_MAJOR >= 1
	if (!rc)
		r->c->reader->maxelements = ELEMENTS_MAX;
#endif
	if (!rc && *u.host)
		redisEnableKeepAlive(r->c);
	if (!rc)
		rc = introduce(r, o, u.db);
	if (rc) {
		snprintf(err, err_len, "%s: %s", o->uri, r->err);
		redis_close(r);
		return rc;
	}
	*out = r;
	return 0;
}

void redis_close(struct redis *r)
{
	if (!r)
		return;
	if (r->last)
		freeReplyObject(r->last);
	redisFree(r->c);
#ifdef HAVE_HIREDIS_SSL
	SSL_CTX_free(r->tls);
#endif
	free(r->argv);
	free(r->lens);
	free(r);
}

/* ---- commands ---- */

void redis_arg(struct redis *r, const void *bytes, size_t len)
{
	if (r->rc)
		return;
	if (r->argc == r->cap) {
		size_t cap = r->cap ? r->cap * 2 : 64;
		const char **argv = realloc(r->argv, cap * sizeof(*argv));
		size_t *lens = argv ? realloc(r->lens, cap * sizeof(*lens)) : NULL;

		if (argv)
			r->argv = argv;
		if (!lens) {
			fail(r, -ENOMEM, "out of memory");
			return;
		}
		r->lens = lens;
		r->cap = cap;
	}
	r->argv[r->argc] = bytes;
	r->lens[r->argc++] = len;
}

void redis_word(struct redis *r, const char *text) { redis_arg(r, text, strlen(text)); }

void redis_send(struct redis *r)
{
	if (!r->rc && redisAppendCommandArgv(r->c, (int)r->argc, r->argv, r->lens) != REDIS_OK)
		fail_io(r);
	r->argc = 0;
}

void redis_words(struct redis *r, ...)
{
	const char *word;
	va_list ap;

	va_start(ap, r);
	while ((word = va_arg(ap, const char *)))
		redis_word(r, word);
	va_end(ap);
	redis_send(r);
}

/* ---- answers ---- */

static int flush(struct redis *r)
{
	int64_t moved = now_ms();
	int done = 0;

	while (!r->rc) {
		if (redisBufferWrite(r->c, &done) != REDIS_OK)
			return fail_io(r);
		if (done)
			break;
		wait_slice(r, POLLOUT, &moved, STALL_MS);
	}
	return r->rc;
}

static struct redis_answer describe(const redisReply *y)
{
	struct redis_answer a = { .self = y };

	switch (y ? y->type : REDIS_REPLY_NIL) {
	case REDIS_REPLY_INTEGER:
		a.kind = REDIS_NUMBER;
		a.number = y->integer;
		break;
	case REDIS_REPLY_STRING:
	case REDIS_REPLY_STATUS:
	case REDIS_REPLY_ERROR:
		a.kind = y->type == REDIS_REPLY_ERROR ? REDIS_FAULT : REDIS_TEXT;
		a.text = y->str;
		a.len = y->len;
		break;
	case REDIS_REPLY_ARRAY:
		a.kind = REDIS_LIST;
		a.n = y->elements;
		break;
	default:
		break;
	}
	return a;
}

int redis_next(struct redis *r, struct redis_answer *a)
{
	int64_t moved = now_ms();
	void *reply = NULL;

	if (r->last)
		freeReplyObject(r->last);
	r->last = NULL;
	if (r->rc || flush(r))
		return r->rc;
	while (!r->rc) {
		if (redisGetReplyFromReader(r->c, &reply) != REDIS_OK)
			return fail_io(r);
		if (reply)
			break;
		/* read first: TLS may hold bytes that poll() does not know of */
		size_t had = r->c->reader->len;
		if (redisBufferRead(r->c) != REDIS_OK)
			return fail_io(r);
		if (r->c->reader->len == had)
			wait_slice(r, POLLIN, &moved, STALL_MS);
		else if (stopping(r))
			fail(r, -ECANCELED, "stopping");
		else
			moved = now_ms();
	}
	if (r->rc)
		return r->rc;
	r->last = reply;
	*a = describe(reply);
	return 0;
}

struct redis_answer redis_at(const struct redis_answer *list, size_t i)
{
	const redisReply *y = list->self;

	if (list->kind != REDIS_LIST || i >= list->n)
		return (struct redis_answer){ .kind = REDIS_NOTHING };
	return describe(y->element[i]);
}

bool redis_is(const struct redis_answer *a, const char *text)
{
	size_t len = strlen(text);

	if (a->kind != REDIS_TEXT && a->kind != REDIS_FAULT)
		return false;
	return a->len >= len && !memcmp(a->text, text, len) &&
	       (a->len == len || (a->kind == REDIS_FAULT && a->text[len] == ' '));
}
