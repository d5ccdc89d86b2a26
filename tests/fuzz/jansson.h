/*
 * An independent opinion on JSON, for the fuzzers: jansson, loaded at run time
 * so that nothing else has to link it.
 */
#ifndef JANSSON_OPINION_H
#define JANSSON_OPINION_H

#include <dlfcn.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A macro of theirs with the name of a function of ours. */
static inline bool jansson_is_object(const json_t *v) { return json_is_object(v); }
#undef json_is_object

enum opinion { NOT_AN_OBJECT, AN_OBJECT, NO_OPINION };

struct jansson {
	json_t *(*loadb)(const char *text, size_t len, size_t flags, json_error_t *error);
	void (*delete)(json_t *v);
	json_t *(*get)(const json_t *object, const char *name);
};

static inline const struct jansson *jansson(void)
{
	static struct jansson j;
	void *lib;

	if (j.loadb)
		return &j;
	lib = dlopen("libjansson.so.4", RTLD_NOW | RTLD_LOCAL);
	if (!lib) {
		fprintf(stderr, "%s: apt-get install libjansson4\n", dlerror());
		exit(2);
	}
	j.delete = (void (*)(json_t *))dlsym(lib, "json_delete");
	j.get = (json_t * (*)(const json_t *, const char *)) dlsym(lib, "json_object_get");
	j.loadb = (json_t * (*)(const char *, size_t, size_t, json_error_t *))
		dlsym(lib, "json_loadb");
	return &j;
}

/*
 * Whether `len` bytes are an object, and the object in *v (jansson()->delete()).
 * No opinion where jansson is known to refuse legal JSON: a number too large
 * for a double, a \u0000 in a name, more than 2048 levels.  No JSON has a NUL
 * byte; jansson, which overlooks one behind a number, is not asked.
 */
static inline enum opinion jansson_parse(const void *bytes, size_t len, json_t **v)
{
	json_error_t error;

	*v = NULL;
	if (len && memchr(bytes, 0, len))
		return NOT_AN_OBJECT;
	*v = jansson()->loadb(bytes, len, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
	if (jansson_is_object(*v))
		return AN_OBJECT;
	if (*v) {
		jansson()->delete (*v);
		*v = NULL;
		return NOT_AN_OBJECT;
	}
	switch (json_error_code(&error)) {
	case json_error_numeric_overflow:
	case json_error_null_byte_in_key:
	case json_error_stack_overflow:
		return NO_OPINION;
	default:
		return NOT_AN_OBJECT;
	}
}

#endif
