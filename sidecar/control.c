#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { WORD_MAX = 64, WORD_MS = 200 };

struct control {
	int listener, asker; /* asker -1: nobody */
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char word[WORD_MAX];
};

static int address(struct sockaddr_un *a, const char *state_dir, char *err, size_t err_len)
{
	*a = (struct sockaddr_un){ .sun_family = AF_UNIX };
	int n = snprintf(a->sun_path, sizeof(a->sun_path), "%s/control", state_dir);
	if (n > 0 && (size_t)n < sizeof(a->sun_path))
		return 0;
	snprintf(err, err_len, "%s: too long for the control socket: a path of %zu bytes at most",
		 state_dir, sizeof(a->sun_path) - sizeof("/control"));
	return -ENAMETOOLONG;
}

int control_open(struct control **out, const char *state_dir, char *err, size_t err_len)
{
	struct control *c = calloc(1, sizeof(*c));
	struct sockaddr_un a;
	int rc = c ? address(&a, state_dir, err, err_len) : -ENOMEM;

	if (rc) {
		free(c);
		return rc;
	}
	c->asker = -1;
	c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	unlink(a.sun_path); /* of a dead sidecar: the writer lock says that none is alive */
	mode_t old = umask(0177);
	if (c->listener < 0 || bind(c->listener, (struct sockaddr *)&a, sizeof(a)) ||
	    listen(c->listener, 4))
		rc = -errno;
	umask(old);
	if (rc) {
		snprintf(err, err_len, "%s: cannot listen: %s", a.sun_path, strerror(-rc));
		if (c->listener >= 0)
			close(c->listener);
		free(c);
		return rc;
	}
	memcpy(c->path, a.sun_path, sizeof(c->path));
	*out = c;
	return 0;
}

void control_close(struct control *c)
{
	if (!c)
		return;
	if (c->asker >= 0)
		close(c->asker);
	close(c->listener);
	unlink(c->path);
	free(c);
}

static void send_line(int fd, const char *kind, const char *text)
{
	char line[800];
	int n = snprintf(line, sizeof(line), "%s %s\n", kind, text);

	/* whoever does not read loses the line, not our time */
	if (n > 0)
		(void)!send(fd, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1,
			    MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* One word within a moment, or nothing. */
static bool read_word(int fd, char word[WORD_MAX])
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (poll(&p, 1, WORD_MS) != 1)
		return false;
	ssize_t n = recv(fd, word, WORD_MAX - 1, MSG_DONTWAIT);
	if (n <= 0)
		return false;
	word[n] = '\0';
	word[strcspn(word, "\r\n")] = '\0';
	return true;
}

const char *control_poll(struct control *c)
{
	struct pollfd waiting = { .fd = c->listener, .events = POLLIN };

	/* an accept in vain costs several times as much: it makes the socket first */
	if (poll(&waiting, 1, 0) <= 0)
		return NULL;
	int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return NULL;
	if (c->asker >= 0) {
		send_line(fd, "error", "busy: an earlier request is not answered yet");
	} else if (read_word(fd, c->word)) {
		c->asker = fd;
		return c->word;
	}
	close(fd);
	return NULL;
}

bool control_asked(const struct control *c) { return c->asker >= 0; }

void control_say(struct control *c, const char *kind, const char *text, bool last)
{
	if (c->asker < 0)
		return;
	send_line(c->asker, kind, text);
	if (!last)
		return;
	close(c->asker);
	c->asker = -1;
}

/* ---- the other side ---- */

static int read_answer(FILE *f, void (*line)(const char *, const char *), char *err, size_t err_len)
{
	char buf[900];

	while (fgets(buf, sizeof(buf), f)) {
		buf[strcspn(buf, "\n")] = '\0';
		char *text = strchr(buf, ' ');
		if (!text)
			continue;
		*text++ = '\0';
		line(buf, text);
		if (!strcmp(buf, "ok"))
			return 0;
		if (!strcmp(buf, "error"))
			return 1;
	}
	snprintf(err, err_len, "the sidecar ended before it had answered");
	return -EPIPE;
}

int control_ask(const char *state_dir, const char *word, void (*line)(const char *, const char *),
		char *err, size_t err_len)
{
	struct sockaddr_un a;
	int rc = address(&a, state_dir, err, err_len);
	int fd = rc ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (rc)
		return rc;
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		rc = -errno;
		snprintf(err, err_len,
			 "%s: no sidecar answers: %s; is `sidenote run` running there, "
			 "and are you its user?",
			 a.sun_path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return rc;
	}
	FILE *f = fdopen(fd, "r+");
	if (!f) {
		close(fd);
		return -ENOMEM;
	}
	if (dprintf(fd, "%s\n", word) < 0)
		rc = -errno;
	else
		rc = read_answer(f, line, err, err_len);
	fclose(f);
	return rc;
}
