/*
 * Keys as text: what is printed is read back, what is read is printed to
 * something that reads the same.
 */
#include "escape.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void there_and_back(const void *bytes, size_t len)
{
	char *text = escape_key(bytes, len);
	void *again;
	size_t n;

	if (escape_parse(text, &again, &n) || n != len || memcmp(again, bytes, len))
		abort();
	for (const char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			abort();
	free(again);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	void *bytes;
	size_t len;

	memcpy(text, data, size);
	text[size] = '\0';
	if (!escape_parse(text, &bytes, &len)) {
		there_and_back(bytes, len);
		free(bytes);
	}
	there_and_back(text, size);
	free(text);
	return 0;
}
