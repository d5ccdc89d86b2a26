#include "option.h"
#include "escape.h"
#include "log.h"
#include "nearest.h"
#include "property.h"
#include "refuse.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define KIB 1024LL
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

enum { MESSAGE_MAX = 512 };

const char option_required[] = "required";
const struct option_word option_log_levels[] = {
	{ "error", LOG_LEVEL_ERROR },
	{ "warn", LOG_LEVEL_WARN },
	{ "info", LOG_LEVEL_INFO },
	{ "debug", LOG_LEVEL_DEBUG },
	{ 0 },
};
const struct option_word option_log_formats[] = {
	{ "text", LOG_TEXT },
	{ "json", LOG_JSON },
	{ 0 },
};

int option_next_item(const char **list, const char **item, size_t *len)
{
	const char *s = *list;

	if (!s)
		return 0;
	size_t n = strcspn(s, ",");
	*list = s[n] ? s + n + 1 : NULL;
	while (n && isspace((unsigned char)*s)) {
		s++;
		n--;
	}
	while (n && isspace((unsigned char)s[n - 1]))
		n--;
	*item = s;
	*len = n;
	return 1;
}

/* ---- values ---- */

static void *field_of(const void *c, const struct option_row *o) { return (char *)c + o->field; }

static bool is_text(enum option_type t)
{
	return t == OPTION_TEXT || t == OPTION_PATH || t == OPTION_NAME || t == OPTION_TOPIC ||
	       t == OPTION_NOTES || t == OPTION_LIST;
}

static const struct option_word *find_word(const struct option_row *o, const char *text, size_t len)
{
	for (const struct option_word *w = o->words; w->text; w++)
		if (strlen(w->text) == len && !memcmp(w->text, text, len))
			return w;
	return NULL;
}

static const char *word_list(const struct option_row *o, char *out, size_t len)
{
	size_t n = 0;

	for (const struct option_word *w = o->words; w->text && n < len; w++)
		n += snprintf(out + n, len - n, "%s%s", n ? ", " : "", w->text);
	return out;
}

static const char *size_text(int64_t n, char *out, size_t len)
{
	if (n && n % GIB == 0)
		snprintf(out, len, "%lldGiB", n / GIB);
	else if (n && n % MIB == 0)
		snprintf(out, len, "%lldMiB", n / MIB);
	else if (n && n % KIB == 0)
		snprintf(out, len, "%lldKiB", n / KIB);
	else
		snprintf(out, len, "%lld", (long long)n);
	return out;
}

/* Digits alone: no sign, no space, no other base.  *end is what follows them. */
static bool parse_digits(const char *text, int64_t *out, const char **end)
{
	int64_t n = 0;

	if (!isdigit((unsigned char)*text))
		return false;
	for (; isdigit((unsigned char)*text); text++)
		if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *text - '0', &n))
			return false;
	*out = n;
	*end = text;
	return true;
}

static int parse_int(const struct option_row *o, int64_t *out, const char *value, char *err,
		     size_t err_len)
{
	const char *end;
	int64_t n;

	if (!parse_digits(value, &n, &end) || *end || n < o->min || n > o->max)
		return refuse(err, err_len, "%s: '%s' is not a whole number from %lld to %lld",
			      o->name, value, (long long)o->min, (long long)o->max);
	*out = n;
	return 0;
}

static bool parse_unit(const char *unit, int64_t *out)
{
	static const struct {
		const char *text;
		int64_t bytes;
	} units[] = { { "", 1 }, { "KiB", KIB }, { "MiB", MIB }, { "GiB", GIB } };

	for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
		if (!strcmp(unit, units[i].text)) {
			*out = units[i].bytes;
			return true;
		}
	return false;
}

static int parse_size(const struct option_row *o, int64_t *out, const char *value, char *err,
		      size_t err_len)
{
	char lo[32], hi[32];
	const char *unit;
	int64_t n, bytes;
	bool ok = parse_digits(value, &n, &unit) && parse_unit(unit, &bytes) &&
		  !__builtin_mul_overflow(n, bytes, &n) &&
		  ((n >= o->min && n <= o->max) || (n == 0 && o->type == OPTION_SIZE_0));

	if (!ok)
		return refuse(err, err_len,
			      "%s: '%s' is not a size from %s to %s%s: "
			      "a whole number of bytes, or of KiB, MiB or GiB",
			      o->name, value, size_text(o->min, lo, sizeof(lo)),
			      size_text(o->max, hi, sizeof(hi)),
			      o->type == OPTION_SIZE_0 ? ", or 0" : "");
	*out = n;
	return 0;
}

static int parse_bool(const struct option_row *o, bool *out, const char *value, char *err,
		      size_t err_len)
{
	if (strcmp(value, "true") && strcmp(value, "false"))
		return refuse(err, err_len, "%s: '%s' is neither true nor false", o->name, value);
	*out = *value == 't';
	return 0;
}

static int parse_enum(const struct option_row *o, int *out, const char *value, char *err,
		      size_t err_len)
{
	const struct option_word *w = find_word(o, value, strlen(value));
	char list[128];

	if (!w)
		return refuse(err, err_len, "%s: '%s' is none of %s", o->name, value,
			      word_list(o, list, sizeof(list)));
	*out = w->value;
	return 0;
}

static int parse_flags(const struct option_row *o, int *out, const char *value, char *err,
		       size_t err_len)
{
	const char *rest = value, *item;
	char list[128];
	size_t len;
	int flags = 0;

	while (option_next_item(&rest, &item, &len)) {
		const struct option_word *w = find_word(o, item, len);

		if (!w)
			return refuse(err, err_len,
				      "%s: '%.*s' is none of %s (separate several by commas)",
				      o->name, (int)len, item, word_list(o, list, sizeof(list)));
		flags |= w->value;
	}
	*out = flags;
	return 0;
}

static bool is_name(const char *s, size_t max)
{
	size_t len = strlen(s);

	return len && len <= max &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
		       len;
}

bool option_is_topic(const char *s) { return is_name(s, 249) && strcmp(s, ".") && strcmp(s, ".."); }

static bool is_printable(const char *s)
{
	for (size_t left = strlen(s), n; left; left -= n, s += n)
		if (!(n = escape_printable(s, left)))
			return false;
	return true;
}

static bool is_list(const char *list)
{
	const char *item;
	size_t len;

	while (option_next_item(&list, &item, &len))
		if (!len)
			return false;
	return true;
}

static int check_text(const struct option_row *o, const char *value, char *err, size_t err_len)
{
	switch (o->type) {
	case OPTION_NAME:
		if (!is_name(value, o->max))
			return refuse(err, err_len,
				      "%s: '%s' is not 1 to %lld of a-z A-Z 0-9 . _ -", o->name,
				      value, (long long)o->max);
		return 0;
	case OPTION_NOTES:
		if (!*value)
			return 0;
		/* fall through */
	case OPTION_TOPIC:
		if (!option_is_topic(value))
			return refuse(err, err_len,
				      "%s: '%s' is not the name of a topic: 1 to 249 of "
				      "a-z A-Z 0-9 . _ -",
				      o->name, value);
		return 0;
	case OPTION_LIST:
		if (!is_list(value))
			return refuse(err, err_len,
				      "%s: '%s' has an empty name: none, all, or names separated "
				      "by commas",
				      o->name, value);
		return 0;
	case OPTION_PATH:
		return *value ? 0 : refuse(err, err_len, "%s: is empty: a path is needed", o->name);
	default:
		return is_printable(value)
			       ? 0
			       : refuse(err, err_len, "%s: is not printable text", o->name);
	}
}

static int parse_text(const struct option_row *o, char **out, const char *value, char *err,
		      size_t err_len)
{
	int rc = check_text(o, value, err, err_len);
	char *copy;

	if (rc)
		return rc;
	if (!(copy = strdup(value)))
		return refuse_memory(err, err_len);
	free(*out);
	*out = copy;
	return 0;
}

static int parse(void *c, const struct option_row *o, const char *value, char *err, size_t err_len)
{
	void *field = field_of(c, o);

	switch (o->type) {
	case OPTION_INT:
		return parse_int(o, field, value, err, err_len);
	case OPTION_SIZE:
	case OPTION_SIZE_0:
		return parse_size(o, field, value, err, err_len);
	case OPTION_BOOL:
		return parse_bool(o, field, value, err, err_len);
	case OPTION_ENUM:
		return parse_enum(o, field, value, err, err_len);
	case OPTION_FLAGS:
		return parse_flags(o, field, value, err, err_len);
	default:
		return parse_text(o, field, value, err, err_len);
	}
}

/* ---- one way in ---- */

static struct config_pairs *pairs_of(const void *c, const struct option_group *g)
{
	return (struct config_pairs *)((char *)c + g->field);
}

static const struct option_group *find_group(const struct option_table *t, const char *name)
{
	for (size_t i = 0; i < t->n_groups; i++)
		if (!strncmp(name, t->groups[i].prefix, strlen(t->groups[i].prefix)))
			return &t->groups[i];
	return NULL;
}

static int refuse_unknown(const struct option_table *t, const char *name, char *err, size_t err_len)
{
	struct nearest n;

	nearest_begin(&n, name);
	for (size_t i = 0; i < t->n_rows; i++)
		nearest_try(&n, t->rows[i].name);
	nearest_try(&n, "kafka.bootstrap.servers");
	if (n.best)
		return refuse(err, err_len, "%s: no such option; did you mean %s?", name, n.best);
	return refuse(err, err_len,
		      "%s: no such option; `sidenote help %s` has them all (librdkafka's are "
		      "kafka.<property>)",
		      name, t->word);
}

int option_set(const struct option_table *t, void *c, const char *name, const char *value,
	       char *err, size_t err_len)
{
	const struct option_group *g = find_group(t, name);

	if (g)
		return property_set(pairs_of(c, g), g->prefix, name + strlen(g->prefix), value, err,
				    err_len);
	for (size_t i = 0; i < t->n_rows; i++)
		if (!strcmp(name, t->rows[i].name))
			return parse(c, &t->rows[i], value, err, err_len);
	return refuse_unknown(t, name, err, err_len);
}

static void clear(const struct option_table *t, void *c)
{
	for (size_t i = 0; i < t->n_rows; i++)
		if (is_text(t->rows[i].type))
			*(char **)field_of(c, &t->rows[i]) = NULL;
	for (size_t g = 0; g < t->n_groups; g++)
		*pairs_of(c, &t->groups[g]) = (struct config_pairs){ 0 };
}

void option_init(const struct option_table *t, void *c)
{
	char err[MESSAGE_MAX];

	clear(t, c);
	for (size_t i = 0; i < t->n_rows; i++)
		if (t->rows[i].def &&
		    parse(c, &t->rows[i], t->rows[i].def, err, sizeof(err)) == -EINVAL)
			abort(); /* a row of the table contradicts itself */
}

int option_check_defaults(const struct option_table *t, const void *c, char *err, size_t err_len)
{
	for (size_t i = 0; i < t->n_rows; i++)
		if (is_text(t->rows[i].type) && t->rows[i].def &&
		    !*(char **)field_of(c, &t->rows[i]))
			return refuse_memory(err, err_len);
	return 0;
}

void option_free(const struct option_table *t, void *c)
{
	for (size_t i = 0; i < t->n_rows; i++)
		if (is_text(t->rows[i].type))
			free(*(char **)field_of(c, &t->rows[i]));
	for (size_t g = 0; g < t->n_groups; g++)
		property_free(pairs_of(c, &t->groups[g]));
	clear(t, c);
}

static bool has_servers(const struct option_table *t, const void *c)
{
	const struct option_group *g = find_group(t, "kafka.");

	return !g || property_get(pairs_of(c, g), "bootstrap.servers");
}

int option_check_required(const struct option_table *t, const void *c, char *err, size_t err_len)
{
	char missing[MESSAGE_MAX] = "";
	size_t n = 0;
	int rc = option_check_defaults(t, c, err, err_len);

	if (rc)
		return rc;
	for (size_t i = 0; i < t->n_rows; i++)
		if (t->rows[i].unset == option_required && !*(char **)field_of(c, &t->rows[i]))
			n += snprintf(missing + n, sizeof(missing) - n, "%s%s", n ? ", " : "",
				      t->rows[i].name);
	if (!has_servers(t, c))
		n += snprintf(missing + n, sizeof(missing) - n, "%skafka.bootstrap.servers",
			      n ? ", " : "");
	if (n)
		return refuse(
			err, err_len,
			"not set: %s (name=value in a file given with -F, SIDENOTE_NAME=value "
			"in the environment, or -X name=value)",
			missing);
	return 0;
}

/* ---- printing ---- */

static void print_words(const struct option_row *o, int value, FILE *f)
{
	const char *comma = "";

	for (const struct option_word *w = o->words; w->text; w++) {
		bool set = o->type == OPTION_FLAGS ? value & w->value : value == w->value;

		if (set) {
			fprintf(f, "%s%s", comma, w->text);
			comma = ",";
		}
	}
}

static void print_text(const char *text, FILE *f)
{
	char *printable = escape_key(text, strlen(text));

	fputs(printable ? printable : "?", f);
	free(printable);
}

static void print_value(const void *c, const struct option_row *o, FILE *f)
{
	const void *field = field_of(c, o);
	char text[32];

	switch (o->type) {
	case OPTION_INT:
		fprintf(f, "%lld", (long long)*(int64_t *)field);
		break;
	case OPTION_SIZE:
	case OPTION_SIZE_0:
		fputs(size_text(*(int64_t *)field, text, sizeof(text)), f);
		break;
	case OPTION_BOOL:
		fputs(*(bool *)field ? "true" : "false", f);
		break;
	case OPTION_ENUM:
	case OPTION_FLAGS:
		print_words(o, *(int *)field, f);
		break;
	default:
		if (*(char **)field)
			print_text(*(char **)field, f);
	}
}

static void dump_pairs(const struct config_pairs *pairs, const char *prefix, FILE *f)
{
	for (size_t i = 0; i < pairs->n; i++) {
		fprintf(f, "%s%s=", prefix, pairs->v[i].key);
		print_text(pairs->v[i].secret ? "********" : pairs->v[i].value, f);
		fputc('\n', f);
	}
}

void option_dump(const struct option_table *t, const void *c, FILE *f)
{
	for (size_t i = 0; i < t->n_rows; i++) {
		fprintf(f, "%s=", t->rows[i].name);
		print_value(c, &t->rows[i], f);
		fputc('\n', f);
	}
	for (size_t g = 0; g < t->n_groups; g++)
		dump_pairs(pairs_of(c, &t->groups[g]), t->groups[g].prefix, f);
}

static void print_default(const struct option_row *o, FILE *f)
{
	if (!o->def)
		fputs(o->unset, f);
	else if (!*o->def)
		fputs("empty", f);
	else
		fprintf(f, "`%s`", o->def);
}

static void print_accepted(const struct option_row *o, FILE *f)
{
	char lo[32], hi[32];
	const char *comma = "";

	switch (o->type) {
	case OPTION_INT:
		fprintf(f, "%lld to %lld", (long long)o->min, (long long)o->max);
		break;
	case OPTION_SIZE:
	case OPTION_SIZE_0:
		fprintf(f, "%s%s to %s", o->type == OPTION_SIZE_0 ? "0, " : "",
			size_text(o->min, lo, sizeof(lo)), size_text(o->max, hi, sizeof(hi)));
		break;
	case OPTION_BOOL:
		fputs("`true`, `false`", f);
		break;
	case OPTION_ENUM:
	case OPTION_FLAGS:
		fputs(o->type == OPTION_FLAGS ? "some of " : "", f);
		for (const struct option_word *w = o->words; w->text; w++, comma = ", ")
			fprintf(f, "%s`%s`", comma, w->text);
		break;
	case OPTION_NAME:
		fputs("`a-z A-Z 0-9 . _ -`", f);
		break;
	case OPTION_TOPIC:
	case OPTION_NOTES:
		fputs("a topic", f);
		break;
	case OPTION_PATH:
		fputs("a directory", f);
		break;
	default:
		fputs("text", f);
	}
}

void option_print(const struct option_table *t, FILE *f)
{
	fputs("| option | default | accepted | meaning |\n|---|---|---|---|\n", f);
	for (size_t i = 0; i < t->n_rows; i++) {
		const struct option_row *o = &t->rows[i];

		fprintf(f, "| `%s` | ", o->name);
		print_default(o, f);
		fputs(" | ", f);
		print_accepted(o, f);
		fprintf(f, " | %s |\n", o->help);
	}
}
