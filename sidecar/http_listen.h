/*
 * http_listen.h - what http.listen means: an address, and the socket on it.
 *
 *   127.0.0.1:8080   [::1]:8080   0.0.0.0:8080   localhost:8080   unix:/run/sidenote.sock
 *
 * Port 0 is any free one.  Addresses are numbers: what a name stands for may
 * change, and with it who can connect.
 *
 * Errors:    0 or -errno with one line in err.
 * Ownership: http_listen_open() gives a file descriptor; http_listen_close()
 *            takes it back and removes the socket file.
 */
#ifndef HTTP_LISTEN_H
#define HTTP_LISTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

struct http_listen {
	struct sockaddr_storage address;
	socklen_t len;
	bool local;    /* only this host can connect: loopback or a unix socket */
	bool loopback; /* TCP: a browser can be made to connect, so Host is checked */
};

int http_listen_parse(struct http_listen *out, const char *text, char *err, size_t err_len);

/** A listening socket; `l` gets the port that was chosen for 0. */
int http_listen_open(struct http_listen *l, int *fd, char *err, size_t err_len);
/** fd -1: it is closed already. */
void http_listen_close(const struct http_listen *l, int fd);

/** As it is given in http.listen; room for HTTP_LISTEN_TEXT bytes. */
enum { HTTP_LISTEN_TEXT = 128 };
const char *http_listen_text(const struct http_listen *l, char out[HTTP_LISTEN_TEXT]);

#endif
