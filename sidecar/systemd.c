#include "systemd.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The length of the address, 0: there is none.  A path, or with @ an abstract name. */
static socklen_t address(struct sockaddr_un *a)
{
	const char *path = getenv("NOTIFY_SOCKET");
	size_t len = path ? strlen(path) : 0;

	if (len < 2 || len >= sizeof(a->sun_path) || (path[0] != '/' && path[0] != '@'))
		return 0;
	*a = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(a->sun_path, path, len);
	if (path[0] == '@')
		a->sun_path[0] = '\0';
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
}

void systemd_status(const char *fmt, ...)
{
	static const char name[] = "STATUS=";
	struct sockaddr_un to;
	socklen_t len = address(&to);
	char text[600];
	va_list args;

	if (!len)
		return;
	memcpy(text, name, sizeof(name));
	va_start(args, fmt);
	vsnprintf(text + sizeof(name) - 1, sizeof(text) - sizeof(name) + 1, fmt, args);
	va_end(args);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	/* a supervisor that does not listen must not hold anybody up */
	(void)!sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT,
		      (const struct sockaddr *)&to, len);
	close(fd);
}
