#include "log.h"
#include "config.h"
#include "escape.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/*
 * One line: what a pipe takes in one piece (PIPE_BUF), so that the lines of
 * several threads and processes never mix.
 */
enum { LINE_MAX_BYTES = 4096, TAIL_BYTES = 8 };

/* Set once, before the first thread. */
static int max_level = LOG_LEVEL_INFO;
static int line_format = LOG_TEXT;

static const char *const level_names[] = { "error", "warn", "info", "debug" };

struct line {
	char text[LINE_MAX_BYTES];
	size_t len;
	bool full; /* the message is longer; what is left of the line is for its end */
};

void log_init(int level, int format)
{
	max_level = level;
	line_format = format;
}

bool log_wants(enum log_level level) { return (int)level <= max_level; }

static void append(struct line *l, const char *bytes, size_t len)
{
	if (l->full || l->len + len > sizeof(l->text) - TAIL_BYTES) {
		l->full = true;
		return;
	}
	memcpy(l->text + l->len, bytes, len);
	l->len += len;
}

static void append_text(struct line *l, const char *text) { append(l, text, strlen(text)); }

/* No byte of a message may end the line, move the cursor or close a JSON string. */
static void append_escaped(struct line *l, const char *text, bool json)
{
	size_t len = strlen(text);
	char hex[8];

	for (size_t i = 0, n; i < len; i += n) {
		n = escape_printable(text + i, len - i);
		if (json && (text[i] == '"' || text[i] == '\\')) {
			append(l, (char[]){ '\\', text[i] }, 2);
		} else if (n) {
			append(l, text + i, n);
		} else {
			n = 1;
			snprintf(hex, sizeof(hex), "%s\\x%02x", json ? "\\" : "",
				 (unsigned char)text[i]);
			append_text(l, hex);
		}
	}
}

static void append_time(struct line *l)
{
	struct timespec now;
	struct tm tm;
	char text[40], ms[8];

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(ms, sizeof(ms), ".%03dZ", (int)(now.tv_nsec / 1000000));
	append_text(l, text);
	append_text(l, ms);
}

static void make_text(struct line *l, enum log_level level, const char *id, const char *message)
{
	append_time(l);
	append_text(l, " ");
	append_text(l, level_names[level]);
	append_text(l, " ");
	if (id) {
		append_text(l, id);
		append_text(l, " ");
	}
	append_escaped(l, message, false);
}

static void make_json(struct line *l, enum log_level level, const char *id, const char *message)
{
	append_text(l, "{\"time\":\"");
	append_time(l);
	append_text(l, "\",\"level\":\"");
	append_text(l, level_names[level]);
	if (id) {
		append_text(l, "\",\"id\":\"");
		append_text(l, id);
	}
	append_text(l, "\",\"message\":\"");
	append_escaped(l, message, true);
}

/* The end is always there, however long the message was: TAIL_BYTES were kept for it. */
static void finish(struct line *l)
{
	const char *tail = line_format == LOG_JSON ? "\"}\n" : "\n";

	if (l->full) {
		memcpy(l->text + l->len, "...", 3);
		l->len += 3;
	}
	memcpy(l->text + l->len, tail, strlen(tail));
	l->len += strlen(tail);
}

void log_write(enum log_level level, const char *id, const char *fmt, ...)
{
	int saved = errno;
	struct line l = { .len = 0 };
	char message[LINE_MAX_BYTES];
	va_list ap;

	if (!log_wants(level))
		return;
	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);

	if (line_format == LOG_JSON)
		make_json(&l, level, id, message);
	else
		make_text(&l, level, id, message);
	finish(&l);
	/* a log that cannot be written has nobody to tell it to */
	while (write(STDERR_FILENO, l.text, l.len) < 0 && errno == EINTR)
		;
	errno = saved;
}
