#include "http_listen.h"
#include "refuse.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 128, PORT_DIGITS = 5, PORT_MAX = 65535 };

/* ---- from text ---- */

static int parse_port(const char *text)
{
	size_t len = strlen(text);
	int port = len && len <= PORT_DIGITS && strspn(text, "0123456789") == len ? atoi(text) : -1;

	return port <= PORT_MAX ? port : -1;
}

static bool parse_path(struct http_listen *l, const char *path)
{
	struct sockaddr_un *a = (struct sockaddr_un *)&l->address;

	if (*path != '/' || strlen(path) >= sizeof(a->sun_path))
		return false;
	a->sun_family = AF_UNIX;
	strcpy(a->sun_path, path);
	l->len = sizeof(*a);
	l->local = true;
	return true;
}

static bool parse_v4(struct http_listen *l, const char *host, int port)
{
	struct sockaddr_in *a = (struct sockaddr_in *)&l->address;

	if (inet_pton(AF_INET, strcmp(host, "localhost") ? host : "127.0.0.1", &a->sin_addr) != 1)
		return false;
	a->sin_family = AF_INET;
	a->sin_port = htons((uint16_t)port);
	l->len = sizeof(*a);
	l->loopback = l->local = ntohl(a->sin_addr.s_addr) >> 24 == 127;
	return true;
}

static bool parse_v6(struct http_listen *l, char *host, int port)
{
	struct sockaddr_in6 *a = (struct sockaddr_in6 *)&l->address;
	size_t len = strlen(host);

	if (len < 2 || host[0] != '[' || host[len - 1] != ']')
		return false;
	host[len - 1] = '\0';
	if (inet_pton(AF_INET6, host + 1, &a->sin6_addr) != 1)
		return false;
	a->sin6_family = AF_INET6;
	a->sin6_port = htons((uint16_t)port);
	l->len = sizeof(*a);
	l->loopback = l->local = IN6_IS_ADDR_LOOPBACK(&a->sin6_addr);
	return true;
}

static bool parse_tcp(struct http_listen *l, const char *text)
{
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN + 2];
	int port = colon ? parse_port(colon + 1) : -1;

	if (port < 0 || (size_t)(colon - text) >= sizeof(host))
		return false;
	memcpy(host, text, (size_t)(colon - text));
	host[colon - text] = '\0';
	return parse_v4(l, host, port) || parse_v6(l, host, port);
}

int http_listen_parse(struct http_listen *out, const char *text, char *err, size_t err_len)
{
	struct http_listen l = { 0 };

	if (strncmp(text, "unix:", 5) ? !parse_tcp(&l, text) : !parse_path(&l, text + 5))
		return refuse(err, err_len,
			      "http.listen: '%s' is not ADDRESS:PORT (127.0.0.1:8080, [::1]:8080), "
			      "nor unix: and an absolute path of at most %zu bytes",
			      text, sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	*out = l;
	return 0;
}

const char *http_listen_text(const struct http_listen *l, char out[HTTP_LISTEN_TEXT])
{
	const struct sockaddr_un *un = (const struct sockaddr_un *)&l->address;
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)&l->address;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&l->address;
	char host[INET6_ADDRSTRLEN];

	if (un->sun_family == AF_UNIX)
		snprintf(out, HTTP_LISTEN_TEXT, "unix:%s", un->sun_path);
	else if (v4->sin_family == AF_INET)
		snprintf(out, HTTP_LISTEN_TEXT, "%s:%d",
			 inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host)),
			 ntohs(v4->sin_port));
	else
		snprintf(out, HTTP_LISTEN_TEXT, "[%s]:%d",
			 inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host)),
			 ntohs(v6->sin6_port));
	return out;
}

/* ---- the socket ---- */

static bool answers(const struct http_listen *l)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool yes = fd >= 0 && !connect(fd, (const struct sockaddr *)&l->address, l->len);

	if (fd >= 0)
		close(fd);
	return yes;
}

/* A socket file that nobody listens on is what a process left that was killed. */
static void remove_stale(const struct http_listen *l)
{
	const char *path = ((const struct sockaddr_un *)&l->address)->sun_path;
	struct stat st;

	if (!lstat(path, &st) && S_ISSOCK(st.st_mode) && !answers(l))
		unlink(path);
}

static int start(struct http_listen *l, int fd)
{
	bool is_unix = l->address.ss_family == AF_UNIX;
	int yes = 1;

	if (is_unix)
		remove_stale(l);
	else
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (l->address.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof(yes));
	/* owner and group, as the files of the state; nobody else may connect */
	mode_t old = umask(0117);
	int rc = bind(fd, (struct sockaddr *)&l->address, l->len) ? -errno : 0;
	umask(old);
	if (rc || listen(fd, BACKLOG))
		return rc ? rc : -errno;
	if (!is_unix && getsockname(fd, (struct sockaddr *)&l->address, &l->len))
		return -errno;
	return 0;
}

int http_listen_open(struct http_listen *l, int *fd, char *err, size_t err_len)
{
	char text[HTTP_LISTEN_TEXT];
	int s = socket(l->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int rc = s < 0 ? -errno : start(l, s);

	if (!rc) {
		*fd = s;
		return 0;
	}
	snprintf(err, err_len, "http.listen: cannot listen on %s: %s", http_listen_text(l, text),
		 strerror(-rc));
	if (s >= 0)
		close(s);
	return rc;
}

void http_listen_close(const struct http_listen *l, int fd)
{
	if (l->address.ss_family == AF_UNIX)
		unlink(((const struct sockaddr_un *)&l->address)->sun_path);
	if (fd >= 0)
		close(fd);
}
