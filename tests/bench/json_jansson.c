#include <stdbool.h>

#include <jansson.h>

bool with_jansson(const char *s, size_t len);

bool with_jansson(const char *s, size_t len)
{
	json_t *v = json_loadb(s, len, JSON_ALLOW_NUL, NULL);
	bool ok = json_is_object(v);

	json_decref(v);
	return ok;
}
