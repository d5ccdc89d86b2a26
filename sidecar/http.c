#include "http.h"
#include "http_listen.h"
#include "http_routes.h"
#include "log.h"
#include "metrics.h"
#include "recent.h"

#include <errno.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum {
	CONNECTIONS_MAX = 128,
	CONNECTIONS_SOFT = 64, /* from here on a new one ends the one that is silent for longest */
	WAITING_MAX = 32,      /* requests that wait for a position */
	HEAD_MS = 10000,       /* for the whole head of a request, and between two of them */
	ANSWER_MS = 60000,     /* for a request, until its answer is taken */
	TICK_MS = 500,
	HEAD_BYTES =
		64 * 1024, /* of one connection: request line, headers, headers of the answer */
	STACK_BYTES = 512 * 1024,
};

struct connection {
	bool used, busy, cut;
	int fd;
	int64_t since_ms; /* when what it does began */
};

struct http {
	struct http_site site;
	struct http_listen listen;
	struct MHD_Daemon *daemon;
	atomic_bool stop;
	pthread_mutex_t lock; /* of all below */
	pthread_cond_t wake;
	struct connection connections[CONNECTIONS_MAX];
	pthread_t ticker;
};

static int64_t now_ms(void) { return metrics_clock_us() / 1000; }

/* ---- connections ---- */

/* Its thread notices, and ends it.  With the lock, so that the descriptor is still its own. */
static void cut(struct connection *c)
{
	c->cut = true;
	shutdown(c->fd, SHUT_RDWR);
	metrics_add(METRIC_HTTP_CUT, 1);
}

static void cut_slow(struct http *h)
{
	int64_t now = now_ms();

	for (int i = 0; i < CONNECTIONS_MAX; i++) {
		struct connection *c = &h->connections[i];
		if (c->used && !c->cut && now - c->since_ms > (c->busy ? ANSWER_MS : HEAD_MS))
			cut(c);
	}
}

static void make_room(struct http *h)
{
	struct connection *oldest = NULL;
	int n = 0;

	for (int i = 0; i < CONNECTIONS_MAX; i++) {
		struct connection *c = &h->connections[i];
		if (!c->used || c->cut)
			continue;
		n++;
		if (!c->busy && (!oldest || c->since_ms < oldest->since_ms))
			oldest = c;
	}
	if (n >= CONNECTIONS_SOFT && oldest)
		cut(oldest);
}

static struct connection *free_slot(struct http *h)
{
	for (int i = 0; i < CONNECTIONS_MAX; i++)
		if (!h->connections[i].used)
			return &h->connections[i];
	return NULL;
}

static void count_connections(struct http *h)
{
	int n = 0;

	for (int i = 0; i < CONNECTIONS_MAX; i++)
		n += h->connections[i].used;
	metrics_set(METRIC_HTTP_CONNECTIONS, n);
}

static void on_connection(void *arg, struct MHD_Connection *con, void **context,
			  enum MHD_ConnectionNotificationCode what)
{
	struct http *h = arg;
	struct connection *c = *context;

	pthread_mutex_lock(&h->lock);
	if (what == MHD_CONNECTION_NOTIFY_STARTED) {
		make_room(h);
		c = free_slot(h);
		if (c)
			*c = (struct connection){ .used = true,
						  .fd = MHD_get_connection_info(
								con,
								MHD_CONNECTION_INFO_CONNECTION_FD)
								->connect_fd,
						  .since_ms = now_ms() };
		*context = c;
	} else if (c) {
		c->used = false;
	}
	count_connections(h);
	pthread_mutex_unlock(&h->lock);
}

static void set_busy(struct http *h, struct MHD_Connection *con, bool busy)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(con, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct connection *c = info ? info->socket_context : NULL;

	pthread_mutex_lock(&h->lock);
	if (c) {
		c->busy = busy;
		c->since_ms = now_ms();
	}
	pthread_mutex_unlock(&h->lock);
}

/* ---- requests ---- */

/* The target as it came: what the library makes of it has lost escaped NULs and slashes. */
struct asked {
	bool begun;
	size_t len;
	char target[];
};

static void *on_target(void *arg, const char *target, struct MHD_Connection *con)
{
	size_t len = strlen(target);
	struct asked *asked = malloc(sizeof(*asked) + len + 1);

	(void)arg, (void)con;
	if (!asked)
		return NULL;
	asked->begun = false;
	asked->len = len;
	memcpy(asked->target, target, len + 1);
	return asked;
}

static void on_completed(void *arg, struct MHD_Connection *con, void **context,
			 enum MHD_RequestTerminationCode why)
{
	(void)why;
	free(*context);
	*context = NULL;
	set_busy(arg, con, false);
}

static enum MHD_Result send_answer(struct MHD_Connection *con, struct http_answer *a)
{
	/* the body changes hands */
	struct MHD_Response *r = MHD_create_response_from_buffer(
		a->len, a->body ? a->body : (char *)"",
		a->body ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
	enum MHD_Result done = MHD_NO;

	if (r) {
		a->body = NULL;
		if (a->type)
			MHD_add_response_header(r, "Content-Type", a->type);
		for (int i = 0; i < a->n; i++)
			MHD_add_response_header(r, a->headers[i].name, a->headers[i].value);
		done = MHD_queue_response(con, (unsigned)a->status, r);
		MHD_destroy_response(r);
	}
	return done;
}

static bool has_body(struct MHD_Connection *con)
{
	const char *length = MHD_lookup_connection_value(con, MHD_HEADER_KIND, "Content-Length");

	return (length && strcmp(length, "0")) ||
	       MHD_lookup_connection_value(con, MHD_HEADER_KIND, "Transfer-Encoding");
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *con, const char *url,
				  const char *method, const char *version, const char *upload,
				  size_t *upload_len, void **context)
{
	struct http *h = arg;
	struct asked *asked = *context;
	struct http_answer a = { 0 };

	(void)url, (void)version, (void)upload;
	if (!asked)
		return MHD_NO;
	const struct http_ask ask = { .method = method,
				      .target = asked->target,
				      .target_len = asked->len,
				      .host = MHD_lookup_connection_value(con, MHD_HEADER_KIND,
									  "Host"),
				      .has_body = has_body(con) };
	if (!asked->begun) {
		asked->begun = true;
		set_busy(h, con, true);
		if (!ask.has_body) /* one is not waited for */
			return MHD_YES;
	}
	*upload_len = 0;
	http_site_answer(&h->site, &ask, &a);
	enum MHD_Result done = send_answer(con, &a);
	http_answer_free(&a);
	return done;
}

/* ---- the clock ---- */

static void wait_tick(struct http *h)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += TICK_MS * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	while (!atomic_load(&h->stop) &&
	       pthread_cond_timedwait(&h->wake, &h->lock, &until) != ETIMEDOUT)
		;
}

static void *tick(void *arg)
{
	struct http *h = arg;
	int64_t sampled = 0;

	pthread_mutex_lock(&h->lock);
	while (!atomic_load(&h->stop)) {
		cut_slow(h);
		if (now_ms() - sampled >= HISTORY_MS) {
			history_sample(&h->site.history);
			sampled = now_ms();
		}
		wait_tick(h);
	}
	pthread_mutex_unlock(&h->lock);
	return NULL;
}

/* ---- start and stop ---- */

static void on_log(void *arg, const char *fmt, va_list ap)
{
	char text[300];

	(void)arg;
	vsnprintf(text, sizeof(text), fmt, ap);
	text[strcspn(text, "\n")] = '\0';
	log_debug(NULL, "http: %s", text);
}

static int start_daemon(struct http *h, int fd)
{
	h->daemon = MHD_start_daemon(
		MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL |
			MHD_USE_ITC | MHD_USE_ERROR_LOG,
		0, NULL, NULL, on_request, h, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
		MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
		(unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
		(unsigned)(ANSWER_MS / 1000), MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		(size_t)HEAD_BYTES, MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_BYTES,
		MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
		MHD_OPTION_URI_LOG_CALLBACK, on_target, h, MHD_OPTION_NOTIFY_COMPLETED,
		on_completed, h, MHD_OPTION_END);
	return h->daemon ? 0 : -EIO;
}

static void init(struct http *h, const struct config *c)
{
	pthread_condattr_t monotonic;

	http_site_init(&h->site, c);
	h->site.values = h->listen.local || c->http_values;
	h->site.check_host = h->listen.loopback;
	h->site.waits.max = WAITING_MAX;
	h->site.waits.stop = &h->stop;
	pthread_mutex_init(&h->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&h->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

static void destroy(struct http *h)
{
	http_site_free(&h->site);
	pthread_cond_destroy(&h->wake);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

static void stop_ticker(struct http *h)
{
	pthread_mutex_lock(&h->lock);
	atomic_store(&h->stop, true);
	pthread_cond_signal(&h->wake);
	pthread_mutex_unlock(&h->lock);
	pthread_join(h->ticker, NULL);
}

int http_start(struct http **out, const struct config *c, char *err, size_t err_len)
{
	struct http *h = calloc(1, sizeof(*h));
	char text[HTTP_LISTEN_TEXT];
	int fd, rc;

	if (!h) {
		snprintf(err, err_len, "out of memory");
		return -ENOMEM;
	}
	if ((rc = http_listen_parse(&h->listen, c->http_listen, err, err_len)) ||
	    (rc = http_listen_open(&h->listen, &fd, err, err_len))) {
		free(h);
		return rc;
	}
	init(h, c);
	rc = -pthread_create(&h->ticker, NULL, tick, h);
	if (!rc && (rc = start_daemon(h, fd)))
		stop_ticker(h);
	http_listen_text(&h->listen, text);
	if (rc) {
		snprintf(err, err_len, "http.listen: %s cannot be served: %s", text, strerror(-rc));
		http_listen_close(&h->listen, fd);
		destroy(h);
		return rc;
	}
	if (h->site.values)
		recent_keep();
	log_info(NULL, "http: listening on %s, %s", text,
		 h->site.values ? "values included" : "without keys and values");
	*out = h;
	return 0;
}

void http_stop(struct http *h)
{
	if (!h)
		return;
	stop_ticker(h); /* who waits for a position sees it too */
	MHD_stop_daemon(h->daemon);
	http_listen_close(&h->listen, -1); /* the daemon has closed the socket */
	recent_forget();
	destroy(h);
}

void http_attach(struct http *h, struct pipeline *p)
{
	if (!h)
		return;
	pthread_mutex_lock(&h->site.source.lock);
	h->site.source.p = p;
	pthread_mutex_unlock(&h->site.source.lock);
}

void http_detach(struct http *h) { http_attach(h, NULL); }

const char *http_engine(void) { return MHD_get_version(); }
