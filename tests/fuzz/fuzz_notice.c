/*
 * Any message on a topic that is watched: read back and shown, it gives one
 * printable line.  Input: op, then key, value and one header's value, each a
 * length of one byte and that many bytes; the last gets what is left.
 */
#include "notice.h"
#include "render.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = { "sidenote.before", "sidenote.offset", "sidenote.cause", "x" };

static void show(const struct note *n)
{
	struct notice r;
	char *line;

	if (notice_open(&r, n))
		return;
	line = render_line(&(struct render){ .time_ms = r.ts_ms,
					     .op = r.op,
					     .key = n->key,
					     .key_len = n->key_len,
					     .before = r.before,
					     .before_len = r.before_len,
					     .after = r.after,
					     .after_len = r.after_len });
	for (const char *p = line; *p; p++)
		if ((unsigned char)*p < 0x20)
			abort();
	free(line);
	notice_close(&r);
}

static size_t take(const uint8_t **p, size_t *left)
{
	size_t n = *left ? *(*p)++ : 0;

	*left -= *left > 0;
	return n < *left ? n : *left;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct record_header h[3] = { { "sidenote.id", 11, "t/0/1", 5 } };
	struct note n = { .headers = h, .n_headers = 3 };

	if (size < 2)
		return 0;
	h[1] = (struct record_header){ "sidenote.op", 11, data, 1 };
	h[2].name = names[data[1] & 3];
	h[2].name_len = strlen(h[2].name);
	data += 2;
	size -= 2;
	n.key_len = take(&data, &size);
	n.key = data;
	data += n.key_len;
	size -= n.key_len;
	h[2].value_len = take(&data, &size);
	h[2].value = data;
	data += h[2].value_len;
	size -= h[2].value_len;
	n.value = data;
	n.value_len = size;
	show(&n);
	return 0;
}
