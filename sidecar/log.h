/*
 * log.h - one line a message on stderr, text or JSON.
 *
 *   log_error("SN-TOPIC-RECREATED", "source topic %s was recreated: ...", topic);
 *   log_info(NULL, "caught up with %s at %s", topic, token);
 *
 * Every message that ends work has an id (docs/operations.md lists them).
 * Threads: any.  A message is written with one write(2); control characters in
 * it are escaped, so no record can forge a line.
 */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/** `format`: enum log_format in config.h. */
void log_init(int level, int format);
void log_write(enum log_level level, const char *id, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
bool log_wants(enum log_level level);

#define log_error(id, ...) log_write(LOG_LEVEL_ERROR, id, __VA_ARGS__)
#define log_warn(id, ...)  log_write(LOG_LEVEL_WARN, id, __VA_ARGS__)
#define log_info(id, ...)  log_write(LOG_LEVEL_INFO, id, __VA_ARGS__)
#define log_debug(id, ...) log_write(LOG_LEVEL_DEBUG, id, __VA_ARGS__)

#endif
