/*
 * property.h - librdkafka's properties, as kafka.*, consumer.* and producer.*.
 *
 *   property_set(&c->kafka, "kafka.", "sasl.password.file", "/run/secrets/k", err, sizeof err);
 *   property_get(&c->kafka, "sasl.password");
 *   property_free(&c->kafka);
 *
 * They go to librdkafka unread, which knows them; except those that exactness
 * owns, which nobody else may set.  `<property>.file` reads a value from a file.
 *
 * Errors:    0, -EINVAL or -ENOMEM, with one line in err that never holds a secret.
 * Ownership: strings are copied; property_free() frees all of them.
 * Threads:   none; done before the first one starts.
 */
#ifndef PROPERTY_H
#define PROPERTY_H

#include "config.h"

/** `prefix` (with its dot) is for messages.  The later of two settings wins. */
int property_set(struct config_pairs *pairs, const char *prefix, const char *property,
		 const char *value, char *err, size_t err_len);
/** The value, or NULL. */
const char *property_get(const struct config_pairs *pairs, const char *property);
void property_free(struct config_pairs *pairs);

/** Whether the value given for this name, with or without prefix, is a secret itself. */
bool property_is_secret(const char *name);

/** The reference, as Markdown: what is owned and why, and the rules for secrets. */
void property_print(FILE *f);

#endif
