/*
 * refuse.h - how a bad option is answered: one line for the caller's err, and
 * a code to return.
 */
#ifndef REFUSE_H
#define REFUSE_H

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

__attribute__((format(printf, 3, 4))) static inline int refuse(char *err, size_t err_len,
							       const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err, err_len, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static inline int refuse_memory(char *err, size_t err_len)
{
	snprintf(err, err_len, "out of memory");
	return -ENOMEM;
}

#endif
