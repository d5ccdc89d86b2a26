/*
 * snapshot.h - what the verbs that read a snapshot share: open it, print its
 * records, name what went wrong.
 *
 * A line has the key, a tab and the value, both printable: a control or a byte
 * that is no text is \xHH.  In JSON the value is the object that it is, or
 * {"sidenote.base64":"..."}, as in notifications.
 */
#ifndef SNAPSHOT_H
#define SNAPSHOT_H

#include "shared_state.h"

/** Tell on stderr what `rc` means for `what`; returns the exit status. */
int snapshot_complain(const char *verb, const char *what, int rc);

/**
 * Open `dir` and wait until the positions of token `after` (NULL: none) are in
 * it, some seconds at most.  EXIT_DONE with *out, or another exit status, told.
 */
int snapshot_open(struct sstate **out, const char *verb, const char *dir, const char *after);

void snapshot_print_line(const struct sstate_record *r);
/** `token`: of the state that it was found in; NULL: not told. */
void snapshot_print_json(const struct sstate_record *r, const char *token);
/** The value alone: as it is, or printable on a terminal; then a line feed. */
void snapshot_print_value(const struct sstate_record *r);

#endif
