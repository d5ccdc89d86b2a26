/*
 * bench_http.c - what a look-up over HTTP costs more than libmicrohttpd alone.
 *
 *   bench_http serve BYTES
 *   bench_http load PORT TARGET KEYS CONNECTIONS MILLISECONDS
 *
 * `serve` is libmicrohttpd's minimal handler: one constant answer of BYTES, with
 * the sidecar's threading.  It prints its port and runs until it is killed.
 * `load` asks for TARGET with a random key behind it, on connections that stay
 * open, each waiting for its answer; prints requests, seconds and bytes of bodies.
 */
#include "bench.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 64, HEAD_MAX = 8192 };

/* ---- the minimal handler ---- */

static struct MHD_Response *answer;

static enum MHD_Result handle(void *cls, struct MHD_Connection *c, const char *url,
			      const char *method, const char *version, const char *data,
			      size_t *size, void **ctx)
{
	static int seen;

	(void)cls, (void)url, (void)method, (void)version, (void)data, (void)size;
	if (!*ctx) { /* an answer to the head alone would close the connection */
		*ctx = &seen;
		return MHD_YES;
	}
	return MHD_queue_response(c, MHD_HTTP_OK, answer);
}

static int serve(size_t bytes)
{
	char *body = calloc(1, bytes + 1);

	if (!body)
		die("out of memory");
	memset(body, 'x', bytes);
	answer = MHD_create_response_from_buffer(bytes, body, MHD_RESPMEM_PERSISTENT);
	struct MHD_Daemon *d =
		MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION |
					 MHD_USE_POLL | MHD_USE_ITC,
				 0, NULL, NULL, handle, NULL, MHD_OPTION_END);
	const union MHD_DaemonInfo *info =
		d ? MHD_get_daemon_info(d, MHD_DAEMON_INFO_BIND_PORT) : NULL;
	if (!info)
		die("libmicrohttpd does not start");
	printf("%u\n", info->port);
	fflush(stdout);
	for (;;)
		pause();
}

/* ---- load ---- */

static int port;
static const char *target;
static uint32_t keys;
static atomic_bool stop;

struct client {
	pthread_t thread;
	uint64_t seed, requests, bytes;
};

static int connect_to_port(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)))
		die("no connection to port %d", port);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

/* Read one answer to its end; the bytes of its body. */
static size_t read_answer(int fd)
{
	char text[HEAD_MAX + 1];
	size_t have = 0, whole = SIZE_MAX, body = 0;

	while (have < whole) {
		ssize_t n = read(fd, text + have, HEAD_MAX - have);
		if (n <= 0)
			die("the connection has ended");
		have += (size_t)n;
		text[have] = '\0';
		char *end = whole == SIZE_MAX ? strstr(text, "\r\n\r\n") : NULL;
		if (!end)
			continue;
		char *length = strcasestr(text, "Content-Length:");
		if (strncmp(text, "HTTP/1.1 200", 12) != 0 || !length)
			die("an answer that was not expected: %.100s", text);
		body = strtoul(length + 15, NULL, 10);
		whole = (size_t)(end + 4 - text) + body;
		if (whole > HEAD_MAX)
			die("an answer of %zu bytes", whole);
	}
	return body;
}

static void *run_client(void *arg)
{
	struct client *c = arg;
	char key[BENCH_KEY_BYTES + 1], request[300];
	int fd = connect_to_port();

	while (!atomic_load(&stop)) {
		bench_key(key, (uint32_t)(next_random(&c->seed) % keys));
		int n = snprintf(request, sizeof(request),
				 "GET %s%s HTTP/1.1\r\nHost: localhost\r\n\r\n", target, key);
		if (write(fd, request, (size_t)n) != n)
			die("the connection has ended");
		c->bytes += read_answer(fd);
		c->requests++;
	}
	close(fd);
	return NULL;
}

static int load(int connections, int ms)
{
	struct client all[CONNECTIONS_MAX] = { 0 };
	uint64_t requests = 0, bytes = 0;
	int64_t begin = now_ns();

	if (connections < 1 || connections > CONNECTIONS_MAX)
		die("1 to %d connections", CONNECTIONS_MAX);
	for (int i = 0; i < connections; i++) {
		all[i].seed = (uint64_t)i;
		if (pthread_create(&all[i].thread, NULL, run_client, &all[i]))
			die("no thread");
	}
	sleep_until_ns(begin + ms * 1000000LL);
	atomic_store(&stop, true);
	for (int i = 0; i < connections; i++) {
		pthread_join(all[i].thread, NULL);
		requests += all[i].requests;
		bytes += all[i].bytes;
	}
	printf("{\"requests\":%llu,\"seconds\":%.3f,\"bytes\":%llu}\n",
	       (unsigned long long)requests, (double)(now_ns() - begin) / 1e9,
	       (unsigned long long)bytes);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "serve"))
		return serve(strtoul(argv[2], NULL, 10));
	if (argc != 7 || strcmp(argv[1], "load") != 0)
		die("usage: bench_http serve BYTES | load PORT TARGET KEYS CONNECTIONS "
		    "MILLISECONDS");
	port = atoi(argv[2]);
	target = argv[3];
	keys = (uint32_t)strtoul(argv[4], NULL, 10);
	return load(atoi(argv[5]), atoi(argv[6]));
}
