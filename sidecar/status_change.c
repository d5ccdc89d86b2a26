#include "status_change.h"
#include "html.h"
#include "json.h"
#include "members.h"

#include <stdlib.h>
#include <string.h>

enum {
	WHOLE_MAX = 240,  /* bytes: longer ones are cut around what differs */
	CONTEXT = 60,     /* bytes kept around it */
	MIDDLE_MAX = 400, /* bytes of what differs */
	ROWS_MAX = 24,
	DEPTH_MAX = 8,
};

struct text {
	const char *p; /* NULL: none */
	size_t len;
};

struct rows {
	FILE *f;
	int shown, more, same;
};

struct path {
	const struct path *up;
	struct text name;
};

static bool equal(struct text a, struct text b)
{
	return a.len == b.len && !memcmp(a.p, b.p, a.len);
}

static struct text part(struct text t, size_t from, size_t to)
{
	return (struct text){ t.p + from, to - from };
}

/* ---- a cell ---- */

static bool inside_character(struct text t, size_t at)
{
	return at < t.len && ((unsigned char)t.p[at] & 0xc0) == 0x80;
}

/* What both begin and end with, in whole characters. */
static void find_common(struct text a, struct text b, size_t *head, size_t *tail)
{
	size_t least = a.len < b.len ? a.len : b.len;

	for (*head = 0; *head < least && a.p[*head] == b.p[*head];)
		++*head;
	while (*head && (inside_character(a, *head) || inside_character(b, *head)))
		--*head;
	for (*tail = 0; *tail < least - *head && a.p[a.len - 1 - *tail] == b.p[b.len - 1 - *tail];)
		++*tail;
	while (*tail && (inside_character(a, a.len - *tail) || inside_character(b, b.len - *tail)))
		--*tail;
}

static void put_marked(FILE *f, const char *tag, struct text t)
{
	size_t shown = t.len > MIDDLE_MAX ? MIDDLE_MAX : t.len;

	if (!t.len)
		return;
	while (shown < t.len && inside_character(t, shown))
		shown--;
	fprintf(f, "<%s>", tag);
	html_json(f, t.p, shown);
	if (shown < t.len)
		fprintf(f, "\xe2\x80\xa6 <i>%zu bytes</i>", t.len);
	fprintf(f, "</%s>", tag);
}

/* What differs lies between `head` and `tail` bytes of common ones. */
static void put_cell(FILE *f, const char *tag, struct text t, size_t head, size_t tail)
{
	size_t from = 0, to = t.len;

	if (t.len > WHOLE_MAX) {
		from = head > CONTEXT ? head - CONTEXT : 0;
		to = tail > CONTEXT ? t.len - tail + CONTEXT : t.len;
		while (inside_character(t, from))
			from++;
		while (inside_character(t, to))
			to--;
	}
	if (from)
		fputs("\xe2\x80\xa6", f);
	html_json(f, t.p + from, head - from);
	put_marked(f, tag, part(t, head, t.len - tail));
	html_json(f, t.p + t.len - tail, to - (t.len - tail));
	if (to < t.len)
		fputs("\xe2\x80\xa6", f);
}

/* ---- a row ---- */

static void put_path(FILE *f, const struct path *p)
{
	if (p->up) {
		put_path(f, p->up);
		fputc('.', f);
	}
	html_json(f, p->name.p, p->name.len);
}

static void put_row(struct rows *r, const struct path *p, struct text old, struct text new)
{
	size_t head = 0, tail = 0;

	if (r->shown >= ROWS_MAX) {
		r->more++;
		return;
	}
	r->shown++;
	if (old.p && new.p)
		find_common(old, new, &head, &tail);
	fputs("<tr><th scope=\"row\">", r->f);
	if (p)
		put_path(r->f, p);
	else
		fputs("<i>value</i>", r->f);
	fputs("</th><td class=\"old\">", r->f);
	if (old.p)
		put_cell(r->f, "del", old, head, tail);
	else
		fputs("<i>none</i>", r->f);
	fputs("</td><td class=\"new\">", r->f);
	if (new.p)
		put_cell(r->f, "ins", new, head, tail);
	else
		fputs("<i>none</i>", r->f);
	fputs("</td></tr>", r->f);
}

static void put_wide(struct rows *r, const char *class, const char *text)
{
	fprintf(r->f, "<tr class=\"%s\"><td colspan=\"3\">%s</td></tr>", class, text);
}

/* ---- two objects ---- */

static struct text name_of(const struct json_member *m)
{
	return (struct text){ m->name, m->name_len };
}

static struct text value_of(const struct json_member *m)
{
	return (struct text){ m->value, m->value_len };
}

static bool put_objects(struct rows *r, struct text old, struct text new, const struct path *up,
			int depth);

static void put_member(struct rows *r, const struct json_member *o, const struct json_member *n,
		       const struct path *up, int depth)
{
	struct path p = { up, name_of(n ? n : o) };
	struct text none = { 0 }, old = o ? value_of(o) : none, new = n ? value_of(n) : none;

	if (o && n && equal(old, new)) {
		r->same++;
		return;
	}
	if (o && n && old.len && new.len &&*old.p == '{' && *new.p == '{' &&
	    put_objects(r, old, new, &p, depth + 1))
		return;
	put_row(r, &p, old, new);
}

/* False, and nothing shown: too many members, too deep, or only the layout differs. */
static bool put_objects(struct rows *r, struct text old, struct text new, const struct path *up,
			int depth)
{
	int before = r->shown + r->more, same = r->same;
	struct members *o = depth < DEPTH_MAX ? malloc(2 * sizeof(*o)) : NULL;

	if (!o)
		return false;
	struct members *n = o + 1;
	if (members_read(o, old.p, old.len) && members_read(n, new.p, new.len)) {
		for (int i = 0; i < n->n; i++)
			put_member(r, members_find(o, &n->m[i]), &n->m[i], up, depth);
		for (int i = 0; i < o->n; i++)
			if (!members_find(n, &o->m[i]))
				put_member(r, &o->m[i], NULL, up, depth);
	}
	free(o);
	if (r->shown + r->more > before)
		return true;
	r->same = same;
	return false;
}

/* ---- a notification ---- */

static bool is_whole_object(const struct recent_bytes *b)
{
	return b->p && b->len == b->whole && json_is_object(b->p, b->len);
}

static struct text text_of(const struct recent_bytes *b) { return (struct text){ b->p, b->len }; }

void status_change_rows(FILE *f, const struct recent_note *n)
{
	struct rows r = { .f = f };
	struct text old = text_of(&n->before), new = text_of(&n->after);
	char text[80];

	if (old.p && new.p && equal(old, new) && n->before.whole == n->after.whole)
		put_wide(&r, "same", "the same bytes");
	else if (!is_whole_object(&n->before) || !is_whole_object(&n->after) ||
		 !put_objects(&r, old, new, NULL, 0))
		put_row(&r, NULL, old, new);
	if (n->before_unknown)
		put_wide(&r, "same", "nobody saw the old value");
	if (r.more) {
		snprintf(text, sizeof(text), "and %d more", r.more);
		put_wide(&r, "same", text);
	}
	if (r.same) {
		snprintf(text, sizeof(text), "%d members unchanged", r.same);
		put_wide(&r, "same", text);
	}
	if (n->before.len < n->before.whole || n->after.len < n->after.whole)
		put_wide(&r, "same", "a value is longer than what is kept here");
}
