/*
 * status_change.h - one notification as rows of an HTML table: what differs,
 * old beside new, the changed part marked.
 *
 * Of two JSON objects, the members that differ, by path; of other bytes, what
 * is around the first and the last difference.
 */
#ifndef STATUS_CHANGE_H
#define STATUS_CHANGE_H

#include "recent.h"

#include <stdio.h>

void status_change_rows(FILE *f, const struct recent_note *n);

#endif
