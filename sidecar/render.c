#include "render.h"

#include "escape.h"
#include "json.h"
#include "members.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	SHOWN_MAX = 160, /* bytes of one value */
	WHOLE_MAX = 40,  /* values up to here are shown whole, not only where they differ */
	CONTEXT = 16,    /* bytes around a difference */
	DEPTH_MAX = 8,
};

#define RED    "\033[31m"
#define GREEN  "\033[32m"
#define YELLOW "\033[33m"
#define BOLD   "\033[1m"
#define DIM    "\033[2m"
#define PLAIN  "\033[0m"

struct text {
	const char *p;
	size_t len;
};

struct line {
	FILE *f;
	bool color;
	int shown; /* differences so far */
};

/* Where we are inside the object. */
struct path {
	const struct path *up;
	struct text name;
};

/* ---- pieces ---- */

static void begin(struct line *l, const char *color)
{
	if (l->color)
		fputs(color, l->f);
}

static void end(struct line *l) { begin(l, PLAIN); }

static void put_escaped(struct line *l, struct text t)
{
	for (size_t i = 0, n; i < t.len; i += n) {
		n = escape_printable(t.p + i, t.len - i);
		if (n) {
			fwrite(t.p + i, 1, n, l->f);
		} else {
			n = 1;
			fprintf(l->f, "\\x%02x", (unsigned char)t.p[i]);
		}
	}
}

static bool inside_character(const char *p) { return (*p & 0xc0) == 0x80; }

static void put_value(struct line *l, struct text t)
{
	size_t shown = t.len > SHOWN_MAX ? SHOWN_MAX : t.len;

	while (shown < t.len && shown && inside_character(t.p + shown))
		shown--;
	put_escaped(l, (struct text){ t.p, shown });
	if (shown < t.len)
		fprintf(l->f, "... (%zu bytes)", t.len);
}

static void put_colored(struct line *l, const char *color, struct text t)
{
	begin(l, color);
	put_value(l, t);
	end(l);
}

static bool equal(struct text a, struct text b)
{
	return a.len == b.len && !memcmp(a.p, b.p, a.len);
}

/* ---- bytes: what is between the first and the last difference ---- */

/* Lengths of what both begin and end with, in whole characters. */
struct common {
	size_t head, tail;
};

static struct common common_of(struct text a, struct text b)
{
	size_t least = a.len < b.len ? a.len : b.len;
	struct common c = { 0, 0 };

	while (c.head < least && a.p[c.head] == b.p[c.head])
		c.head++;
	while (c.head && ((c.head < a.len && inside_character(a.p + c.head)) ||
			  (c.head < b.len && inside_character(b.p + c.head))))
		c.head--;
	while (c.tail < least - c.head && a.p[a.len - 1 - c.tail] == b.p[b.len - 1 - c.tail])
		c.tail++;
	while (c.tail && inside_character(a.p + a.len - c.tail))
		c.tail--;
	return c;
}

static void put_middle(struct line *l, const char *color, struct text t, struct common c)
{
	size_t before = c.head < CONTEXT ? c.head : CONTEXT;
	size_t after = c.tail < CONTEXT ? c.tail : CONTEXT;

	while (before < c.head && inside_character(t.p + c.head - before))
		before++;
	while (after < c.tail && inside_character(t.p + t.len - c.tail + after))
		after++;
	if (before < c.head)
		fputs("...", l->f);
	put_escaped(l, (struct text){ t.p + c.head - before, before });
	put_colored(l, color, (struct text){ t.p + c.head, t.len - c.head - c.tail });
	put_escaped(l, (struct text){ t.p + t.len - c.tail, after });
	if (after < c.tail)
		fputs("...", l->f);
}

static void put_bytes(struct line *l, struct text before, struct text after)
{
	struct common c = { 0, 0 };

	if (before.len > WHOLE_MAX || after.len > WHOLE_MAX)
		c = common_of(before, after);
	put_middle(l, RED, before, c);
	fputs(" -> ", l->f);
	put_middle(l, GREEN, after, c);
}

/* ---- objects: the members that differ ---- */

static void put_path(struct line *l, const struct path *p)
{
	if (p->up) {
		put_path(l, p->up);
		fputc('.', l->f);
	}
	put_escaped(l, p->name);
}

static void begin_member(struct line *l, const char *sign, const struct path *p)
{
	fputs(l->shown++ ? ", " : "", l->f);
	fputs(sign, l->f);
	put_path(l, p);
	fputs(": ", l->f);
}

static struct text name_of(const struct json_member *m)
{
	return (struct text){ m->name, m->name_len };
}

static struct text value_of(const struct json_member *m)
{
	return (struct text){ m->value, m->value_len };
}

static bool put_objects(struct line *l, struct text before, struct text after,
			const struct path *up, int depth);

static void put_member(struct line *l, const struct json_member *b, const struct json_member *a,
		       const struct path *up, int depth)
{
	struct path p = { up, name_of(a ? a : b) };

	if (!b) {
		begin_member(l, "+", &p);
		put_colored(l, GREEN, value_of(a));
	} else if (!a) {
		begin_member(l, "-", &p);
		put_colored(l, RED, value_of(b));
	} else if (!equal(value_of(b), value_of(a))) {
		if (*b->value == '{' && *a->value == '{' &&
		    put_objects(l, value_of(b), value_of(a), &p, depth + 1))
			return;
		begin_member(l, "", &p);
		put_bytes(l, value_of(b), value_of(a));
	}
}

/* False, and nothing shown: too many members, too deep, or they differ only in how they are laid
 * out. */
static bool put_objects(struct line *l, struct text before, struct text after,
			const struct path *up, int depth)
{
	int shown = l->shown;
	struct members *b, *a;

	if (depth > DEPTH_MAX)
		return false;
	b = malloc(2 * sizeof(*b));
	if (!b)
		return false;
	a = b + 1;
	if (members_read(b, before.p, before.len) && members_read(a, after.p, after.len)) {
		for (int i = 0; i < a->n; i++)
			put_member(l, members_find(b, &a->m[i]), &a->m[i], up, depth);
		for (int i = 0; i < b->n; i++)
			if (!members_find(a, &b->m[i]))
				put_member(l, &b->m[i], NULL, up, depth);
	}
	free(b);
	return l->shown > shown;
}

/* ---- the line ---- */

static void put_time(struct line *l, int64_t ms)
{
	time_t s = ms / 1000;
	char text[64];
	struct tm tm;

	if (ms < 0 || !localtime_r(&s, &tm) || !strftime(text, sizeof(text), "%F %T", &tm))
		return;
	begin(l, DIM);
	fprintf(l->f, "%s.%03d ", text, (int)(ms % 1000));
	end(l);
}

static void put_change(struct line *l, const struct render *r)
{
	struct text before = { r->before, r->before_len }, after = { r->after, r->after_len };

	if (before.p && after.p) {
		if (equal(before, after))
			fputs("(same bytes)", l->f);
		else if (!json_is_object(before.p, before.len) ||
			 !json_is_object(after.p, after.len) ||
			 !put_objects(l, before, after, NULL, 0))
			put_bytes(l, before, after);
		return;
	}
	if (!before.p && (r->op == 'k' || r->op == 'x'))
		fputs(after.p ? "(tombstone) -> " : "(tombstone)", l->f);
	else if (!before.p && r->op != 'c')
		fputs(after.p ? "(old value unknown) -> " : "(old value unknown)", l->f);
	if (before.p)
		put_colored(l, RED, before);
	if (after.p)
		put_colored(l, GREEN, after);
}

static void put_line(struct line *l, const struct render *r)
{
	char *key = escape_key(r->key, r->key_len);

	put_time(l, r->time_ms);
	begin(l, r->op == 'c' ? GREEN : r->op == 'd' ? RED : YELLOW);
	if (r->op == 'k' || r->op == 'x')
		fputs(r->op == 'k' ? "compacted" : "expired", l->f);
	else
		fputc(r->op, l->f);
	end(l);
	fputc(' ', l->f);
	begin(l, BOLD);
	fputs(key ? key : "?", l->f);
	end(l);
	fputs("  ", l->f);
	put_change(l, r);
	if (r->cause && strcmp(r->cause, "log")) {
		begin(l, DIM);
		fprintf(l->f, " (%s)", r->cause);
		end(l);
	}
	free(key);
}

char *render_line(const struct render *r)
{
	struct line l = { .color = r->color };
	char *text = NULL;
	size_t len;
	bool failed;

	l.f = open_memstream(&text, &len);
	if (!l.f)
		return NULL;
	put_line(&l, r);
	failed = ferror(l.f);
	if (fclose(l.f) || failed) {
		free(text);
		return NULL;
	}
	return text;
}
