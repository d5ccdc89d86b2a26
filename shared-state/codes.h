/*
 * codes.h - one family of codes for everything here: 0, -errno, LMDB's own
 * (near -30790) and those of shared_state.h, none of which can be confused.
 */
#ifndef CODES_H
#define CODES_H

#include <stddef.h>

/** LMDB's return value as one of ours: -ENOENT, -ENOSPC, -EBADMSG, -errno, or LMDB's own. */
int code_from_mdb(int rc);

/** Name any of them.  Never NULL; never to be freed. */
const char *code_name(int rc);

/** Write one line into err and return `rc`. */
__attribute__((format(printf, 4, 5))) int code_say(int rc, char *err, size_t err_len,
						   const char *fmt, ...);

#endif
