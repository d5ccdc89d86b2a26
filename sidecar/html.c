#include "html.h"
#include "escape.h"

#include <stdbool.h>
#include <string.h>

static const char DASH[] = "\xe2\x80\x93";

static void put(FILE *f, const char *p, size_t len, bool json)
{
	for (size_t i = 0, n; i < len; i += n) {
		n = escape_printable(p + i, len - i);
		const char *entity = p[i] == '&'    ? "&amp;"
				     : p[i] == '<'  ? "&lt;"
				     : p[i] == '>'  ? "&gt;"
				     : p[i] == '"'  ? "&quot;"
				     : p[i] == '\'' ? "&#39;"
						    : NULL;
		if (entity) {
			fputs(entity, f);
		} else if (n) {
			fwrite(p + i, 1, n, f);
		} else {
			n = 1;
			if (json && strchr("\t\n\r", p[i]) && p[i])
				fputc(' ', f);
			else
				fprintf(f, "\\x%02x", (unsigned char)p[i]);
		}
	}
}

void html_bytes(FILE *f, const void *bytes, size_t len) { put(f, bytes, len, false); }
void html_json(FILE *f, const void *bytes, size_t len) { put(f, bytes, len, true); }
void html_text(FILE *f, const char *text) { put(f, text, strlen(text), false); }

void html_number(FILE *f, int64_t n)
{
	char digits[24];

	if (n < 0) {
		fputs(DASH, f);
		return;
	}
	int len = snprintf(digits, sizeof(digits), "%lld", (long long)n);
	for (int i = 0; i < len; i++) {
		if (i && (len - i) % 3 == 0)
			fputc(',', f);
		fputc(digits[i], f);
	}
}

void html_size(FILE *f, int64_t bytes)
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB" };
	double v = (double)bytes;
	int unit = -1;

	if (bytes < 1024) {
		html_number(f, bytes);
		fputs(bytes < 0 ? "" : " B", f);
		return;
	}
	for (; v >= 1024 && unit < 3; unit++)
		v /= 1024;
	fprintf(f, v < 10 ? "%.1f %s" : "%.0f %s", v, units[unit]);
}

void html_duration(FILE *f, int64_t us)
{
	static const struct {
		int64_t us;
		const char *unit;
	} units[] = { { 86400000000, "d" }, { 3600000000, "h" }, { 60000000, "min" },
		      { 1000000, "s" },     { 1000, "ms" },      { 1, "\xc2\xb5s" } };

	if (us <= 0) {
		fputs(us ? DASH : "0 s", f);
		return;
	}
	for (size_t i = 0;; i++)
		if (us >= units[i].us) {
			double v = (double)us / (double)units[i].us;
			fprintf(f, v < 10 && us % units[i].us ? "%.1f %s" : "%.0f %s", v,
				units[i].unit);
			return;
		}
}
