/*
 * Notifications per second on one core: envelope_make() alone, two different
 * JSON objects of about 200 bytes, each format and encoding.
 *
 *   cc -O2 -D_GNU_SOURCE -Isidecar -Ishared-state -o /tmp/notes tests/bench/json_notes.c \
 *      sidecar/json.c sidecar/base64.c sidecar/side.c sidecar/envelope.c shared-state/record.c -lcrypto &&
 * /tmp/notes
 */
#include "envelope.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const values[] = {
	"{\"id\":9007199254740993,\"customer\":\"c-58121\",\"status\":\"shipped\",\"total\":299.80,"
	"\"currency\":\"EUR\",\"address\":{\"city\":\"K\xc3\xb6ln\",\"zip\":\"50667\"},"
	"\"updated\":\"2024-05-17T12:31:07Z\",\"flags\":[1,2,3],\"vip\":false}",
	"{\"id\":9007199254740993,\"customer\":\"c-58121\",\"status\":\"delivered\","
	"\"total\":1299.80,\"currency\":\"EUR\",\"address\":{\"city\":\"K\xc3\xb6ln\","
	"\"zip\":\"50667\"},\"updated\":\"2024-05-19T09:01:44Z\",\"flags\":[1,2],\"vip\":true}",
};

static struct record record_of(const char *value, int64_t offset)
{
	return (struct record){ .partition = 3,
				.offset = offset,
				.timestamp_ms = 1715949067000 + offset,
				.value = value,
				.value_len = strlen(value) };
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void run(const char *what, enum note_format format, enum note_encoding encoding)
{
	struct envelope_options o = { .format = format,
				      .encoding = encoding,
				      .name = "orders",
				      .cluster = "production",
				      .topic = "orders",
				      .max_bytes = 1048588 };
	enum { N = 2000000 };
	struct envelope e;
	struct note note;
	size_t bytes = 0;
	double s;

	envelope_init(&e, &o);
	s = seconds();
	for (int64_t i = 0; i < N; i++) {
		struct change c = { .partition = 3,
				    .offset = i + 1000,
				    .n = CHANGE_N_LOG,
				    .op = CHANGE_UPDATE,
				    .key = "c-58121",
				    .key_len = 7,
				    .has_before = true,
				    .has_after = true,
				    .before = record_of(values[i & 1], i),
				    .after = record_of(values[~i & 1], i + 1000) };

		if (envelope_make(&e, &c, NOTE_LOG, 1, 1715949067000 + i, &note))
			abort();
		bytes += note.value_len;
	}
	s = seconds() - s;
	printf("| %s | %.2f | %.0f | %zu |\n", what, N / s / 1e6, s / N * 1e9, bytes / N);
	envelope_free(&e);
}

int main(void)
{
	printf("| values of %zu and %zu bytes | million/s | ns each | bytes of value |\n"
	       "|---|---|---|---|\n",
	       strlen(values[0]), strlen(values[1]));
	run("debezium-json, json", NOTE_DEBEZIUM_JSON, NOTE_JSON);
	run("debezium-json, base64", NOTE_DEBEZIUM_JSON, NOTE_BASE64);
	run("raw", NOTE_RAW, NOTE_JSON);
	return 0;
}
