/*
 * render.h - one change as one line for people: what was, what is.
 *
 *   2023-11-14 22:13:20.500 u user-17  status: "open" -> "shipped", +vip: true
 *
 * Of two JSON objects only the members that differ are shown, by their path;
 * of other bytes the part between the first and the last difference, with a
 * little around it.  What is not printable is escaped as keys are, long values
 * are shortened: this is for eyes, `--json` is for programs.
 *
 * Errors:    NULL: out of memory.
 * Ownership: the line is the caller's to free.
 * Threads:   pure, apart from the time zone.
 */
#ifndef RENDER_H
#define RENDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct render {
	int64_t time_ms;   /* shown in local time; -1: none */
	char op;           /* c, u or d */
	const char *cause; /* shown unless it is "log" or NULL */
	const void *key;
	size_t key_len;
	const void *before; /* NULL: none, or unknown where there must be one */
	size_t before_len;
	const void *after; /* NULL: none */
	size_t after_len;
	bool color; /* with the escape sequences of a terminal */
};

/** The line, without a line feed at its end and with none inside. */
char *render_line(const struct render *r);

#endif
