/*
 * status_page.h - the page at /: everything is in the HTML that the server
 * makes, plots and differences too.  The script only fetches it again and puts
 * the new parts in; without scripts the browser reloads it.
 *
 * Its style and script are status_page.css and .js, put into the program as
 * they are; the policy names their digests, so nothing else runs.
 *
 * Threads:   any; works on copies.
 */
#ifndef STATUS_PAGE_H
#define STATUS_PAGE_H

#include "history.h"
#include "recent.h"
#include "status.h"

#include <stdio.h>

struct status_page {
	const struct status *status;
	const struct history_sample *samples; /* oldest first */
	int n_samples;
	struct recent_note *const *notes; /* the newest first */
	int n_notes;
	/* a key to look up, as the form sent it: escaped; NULL: none */
	const char *asked;
	int found;                          /* 0, -ENOENT, -EINVAL or another code */
	const struct sstate_record *record; /* with found 0 */
};

void status_page_write(FILE *f, const struct status_page *p);

/** The Content-Security-Policy of the page. */
enum { STATUS_POLICY_BYTES = 512 };
void status_page_policy(char out[STATUS_POLICY_BYTES]);

#endif
