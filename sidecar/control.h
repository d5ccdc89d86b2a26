/*
 * control.h - the socket <state.dir>/control, mode 0600: one line asks, lines
 * answer.
 *
 *   rebuild   ->  "progress ..." lines, then "ok ..." or "error ..."
 *   round     ->  the same
 *
 * Errors:    0 or -errno with one line.
 * Threads:   the supervising one; nothing here waits longer than a moment.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include <stdbool.h>
#include <stddef.h>

struct control;

int control_open(struct control **out, const char *state_dir, char *err, size_t err_len);
/** Removes the socket.  NULL is allowed. */
void control_close(struct control *c);

/**
 * A word that somebody asks for, or NULL.  Whoever asks next while an answer is
 * still owed gets an error.
 */
const char *control_poll(struct control *c);
/** Whether somebody still waits for an answer. */
bool control_asked(const struct control *c);
/** One more line of the answer; the last one ends the conversation. */
void control_say(struct control *c, const char *kind, const char *text, bool last);

/**
 * The other side: ask a running sidecar and hand each line to `line`.  0: "ok";
 * 1: "error"; -errno: not running (err).
 */
int control_ask(const char *state_dir, const char *word,
		void (*line)(const char *kind, const char *text), char *err, size_t err_len);

#endif
