#include "join_need.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { TIME_DIGITS = 15 }; /* of a number of ms: until the year 33658 */

void needs_clear(struct needs *s) { s->n = s->n_positions = 0; }

void needs_free(struct needs *s)
{
	free(s->v);
	free(s->positions);
	free(s->text);
	*s = (struct needs){ 0 };
}

static int grow(void **mem, size_t *cap, size_t need, size_t each)
{
	size_t n = need > 2 * *cap ? need : 2 * *cap;
	void *grown;

	if (need <= *cap)
		return 0;
	grown = realloc(*mem, n * each);
	if (!grown)
		return -ENOMEM;
	*mem = grown;
	*cap = n;
	return 0;
}

static int add(struct needs *s, struct need need)
{
	if (grow((void **)&s->v, &s->cap, s->n + 1, sizeof(*s->v)))
		return -ENOMEM;
	s->v[s->n++] = need;
	return 0;
}

static int add_token(struct needs *s, const char *text, size_t len)
{
	struct need need = { .kind = NEED_UNREADABLE, .first = s->n_positions };
	size_t max = 1;
	int n;

	for (size_t i = 0; i < len; i++)
		max += text[i] == ',';
	if (grow((void **)&s->text, &s->text_size, len + 1, 1) ||
	    grow((void **)&s->positions, &s->cap_positions, s->n_positions + max,
		 sizeof(*s->positions)))
		return -ENOMEM;
	memcpy(s->text, text, len);
	s->text[len] = '\0';
	n = memchr(text, '\0', len)
		    ? -EINVAL
		    : sstate_token_parse(s->text, s->positions + s->n_positions, max);
	if (n > 0) {
		need.kind = NEED_TOKEN;
		need.n = (size_t)n;
		s->n_positions += need.n;
	} else if (n == 0) { /* an empty one is reached by every state */
		need.kind = NEED_TOKEN;
	}
	return add(s, need);
}

int needs_add_time(struct needs *s, int64_t time_ms)
{
	return add(s, (struct need){ .kind = time_ms < 0 ? NEED_NONE : NEED_TIME,
				     .time_ms = time_ms });
}

static int add_time(struct needs *s, const char *text, size_t len)
{
	int64_t ms = 0;

	if (!len || len > TIME_DIGITS)
		return add(s, (struct need){ .kind = NEED_UNREADABLE });
	for (size_t i = 0; i < len; i++) {
		if (!isdigit((unsigned char)text[i]))
			return add(s, (struct need){ .kind = NEED_UNREADABLE });
		ms = ms * 10 + (text[i] - '0');
	}
	return needs_add_time(s, ms);
}

int needs_add(struct needs *s, enum join_wait wait, const char *text, size_t len)
{
	if (wait == WAIT_NONE || !text)
		return add(s, (struct need){ .kind = NEED_NONE });
	return wait == WAIT_TOKEN ? add_token(s, text, len) : add_time(s, text, len);
}

/* Whether the table has these partitions. */
static bool is_possible(const struct needs *s, const struct need *need, size_t n)
{
	for (size_t i = need->first; i < need->first + need->n; i++)
		if ((size_t)s->positions[i].partition >= n)
			return false;
	return true;
}

bool needs_union(struct needs *s, int64_t *want, size_t n)
{
	bool any = false;

	memset(want, 0, n * sizeof(*want));
	for (size_t r = 0; r < s->n; r++) {
		struct need *need = &s->v[r];

		if (need->kind == NEED_TOKEN && !is_possible(s, need, n))
			need->kind = NEED_UNREADABLE;
		if (need->kind != NEED_TOKEN)
			continue;
		for (size_t i = need->first; i < need->first + need->n; i++) {
			const struct sstate_position *p = &s->positions[i];
			if (p->offset > want[p->partition])
				want[p->partition] = p->offset;
		}
		any |= need->n > 0;
	}
	return any;
}

int64_t needs_latest(const struct needs *s)
{
	int64_t latest = -1;

	for (size_t r = 0; r < s->n; r++)
		if (s->v[r].kind == NEED_TIME && s->v[r].time_ms > latest)
			latest = s->v[r].time_ms;
	return latest;
}

bool need_is_reached(const struct needs *s, const struct need *need, const int64_t *have, size_t n)
{
	for (size_t i = need->first; i < need->first + need->n; i++)
		if ((size_t)s->positions[i].partition >= n ||
		    have[s->positions[i].partition] < s->positions[i].offset)
			return false;
	return true;
}
