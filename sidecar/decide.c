#include "decide.h"
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int position_compare(struct position a, struct position b)
{
	if (a.offset != b.offset)
		return a.offset < b.offset ? -1 : 1;
	return a.n < b.n ? -1 : a.n > b.n;
}

struct position position_after(int64_t offset, uint32_t n)
{
	if (n == CHANGE_N_LOG)
		return (struct position){ offset + 1, 0 };
	return (struct position){ offset, n + 1 };
}

/* ---- what is a change ---- */

static bool same_value(const struct record *a, const struct record *b)
{
	return a->value_len == b->value_len &&
	       (a->value_len == 0 || !memcmp(a->value, b->value, a->value_len));
}

enum transition decide_transition(const struct record *old, const struct record *now, bool blind,
				  enum change_op *op)
{
	bool tombstone = now->flags & RECORD_TOMBSTONE;

	if (!old) {
		if (tombstone && !blind)
			return TRANSITION_NONE;
		*op = tombstone ? CHANGE_DELETE : CHANGE_CREATE;
		return TRANSITION_TO;
	}
	if (old->partition != now->partition)
		return TRANSITION_MOVED;
	if (tombstone)
		*op = CHANGE_DELETE;
	else
		*op = same_value(old, now) ? CHANGE_UNCHANGED : CHANGE_UPDATE;
	return TRANSITION_TO;
}

bool decide_moved_wins(const struct record *old, const struct record *now)
{
	if (old->timestamp_ms != now->timestamp_ms)
		return now->timestamp_ms > old->timestamp_ms;
	return now->partition > old->partition;
}

/* ---- offset metadata ---- */

void metadata_format(const struct metadata *m, char out[METADATA_MAX])
{
	int len = snprintf(out, METADATA_MAX, "sidenote by=%s n=%u", m->by, m->n);

	if (m->gap_until >= 0)
		len += snprintf(out + len, METADATA_MAX - (size_t)len, " g=%lld",
				(long long)m->gap_until);
	if (m->c >= 0)
		snprintf(out + len, METADATA_MAX - (size_t)len, " c=%lld", (long long)m->c);
}

/* The number of ` name=` where the text goes on with it; *text then stands behind it. */
static void take_number(const char **text, const char *name, int64_t *out)
{
	long long v;
	int len = 0;

	if (!strncmp(*text, name, strlen(name)) &&
	    sscanf(*text + strlen(name), "%lld%n", &v, &len) == 1) {
		*out = v;
		*text += strlen(name) + (size_t)len;
	}
}

void metadata_parse(struct metadata *m, const char *text)
{
	static const char ours[] = "sidenote";
	struct metadata all = { .gap_until = -1, .c = -1 };
	int len = 0;

	*m = all;
	if (!text || strncmp(text, ours, strlen(ours)))
		return;
	if (sscanf(text, "sidenote by=%39[0-9a-f-] n=%u%n", all.by, &all.n, &len) == 2) {
		text += len;
		take_number(&text, " g=", &all.gap_until);
		take_number(&text, " c=", &all.c);
		if (!*text) {
			*m = all;
			return;
		}
	}
	strcpy(m->by, METADATA_FUTURE);
}

/* ---- fitness ---- */

static const char *const fitness_texts[] = {
	[FIT] = "fit",
	[FIT_AS_GAP] = "fit; what it may have missed is published as cause=gap",
	[UNFIT_FILLING] = "filling the snapshot",
	[UNFIT_BEHIND] = "catching up",
	[UNFIT_ROUND] = "a round is due",
	[UNFIT_APPLIED] = "behind the published position",
	[UNFIT_JOURNAL] = "the journal begins after the published position: refilling",
	[UNFIT_NOT_WHOLE] = "may have missed versions while another sidecar may not have",
	[UNFIT_LOST] = "the committed offsets are gone",
	[UNFIT_BACK] = "the committed offsets went back",
	[UNFIT_UNKNOWN] = "the committed offsets are not known yet",
	[UNFIT_FUTURE] = "a newer version has committed the offsets",
};

const char *fitness_text(enum fitness f) { return fitness_texts[f]; }

static bool is_self(const struct standing *s, const char *self)
{
	return s->by[0] && !strcmp(s->by, self);
}

static enum fitness fitness_of(const struct standing *s, const char *self, bool group_empty)
{
	if (!strcmp(s->by, METADATA_FUTURE))
		return UNFIT_FUTURE;
	if (s->published.offset < 0 && s->was_published)
		return UNFIT_LOST;
	if (s->published.offset >= 0 && s->published.offset < s->seen)
		return UNFIT_BACK;
	if (s->published.offset >= 0 && position_compare(s->published, s->base) < 0)
		return UNFIT_JOURNAL;
	if (s->due)
		return UNFIT_ROUND;
	if (!s->caught_up && !s->waits)
		return UNFIT_BEHIND;
	if (s->published.offset < 0) /* first start: this state's own start will be P */
		return FIT;
	if (s->published.offset > s->applied)
		return UNFIT_APPLIED;
	if (is_self(s, self) || s->whole <= s->published.offset)
		return FIT;
	return group_empty ? FIT_AS_GAP : UNFIT_NOT_WHOLE;
}

/* How much a verdict outweighs another partition's: stop before refill before wait. */
static int weight(enum fitness f)
{
	static const int order[] = {
		[FIT] = 0,           [FIT_AS_GAP] = 1,  [UNFIT_NOT_WHOLE] = 2, [UNFIT_APPLIED] = 3,
		[UNFIT_BEHIND] = 4,  [UNFIT_ROUND] = 5, [UNFIT_FILLING] = 6,   [UNFIT_UNKNOWN] = 7,
		[UNFIT_JOURNAL] = 8, [UNFIT_LOST] = 9,  [UNFIT_BACK] = 10,     [UNFIT_FUTURE] = 11
	};
	return order[f];
}

enum fitness decide_fitness(const struct standing *s, int n, const char *self, bool group_empty,
			    int *where)
{
	enum fitness worst = FIT;

	*where = 0;
	for (int p = 0; p < n; p++) {
		enum fitness f = fitness_of(&s[p], self, group_empty);
		if (weight(f) > weight(worst)) {
			worst = f;
			*where = p;
		}
	}
	return worst;
}

int64_t decide_gap_until(const struct standing *s, const char *self)
{
	bool may_have_missed = s->whole > s->published.offset;

	if (s->published.offset < 0 || !may_have_missed)
		return -1;
	if (!is_self(s, self))
		return s->whole;
	/* its own gap, which it or its predecessor in this state died in: the rest is one too */
	if (s->gap_until > s->published.offset)
		return s->gap_until < s->whole ? s->gap_until : s->whole;
	return -1;
}

bool decide_may_resume(const struct standing *s, int n, const char *self)
{
	for (int p = 0; p < n; p++) {
		struct standing now = s[p];
		now.caught_up = true;
		if (now.published.offset < 0 || !is_self(&now, self) ||
		    now.whole > now.published.offset || fitness_of(&now, self, false) != FIT)
			return false;
	}
	return true;
}

struct position decide_publish_from(const struct standing *s)
{
	if (s->published.offset >= 0)
		return s->published;
	return (struct position){ s->start, 0 };
}

bool decide_notify(const struct change *c, bool gap, const struct note_filter *f)
{
	switch (c->op) {
	case CHANGE_CREATE:
		return gap || (f->operations & OPERATION_CREATE);
	case CHANGE_UPDATE:
		return f->operations & OPERATION_UPDATE;
	case CHANGE_UNCHANGED:
		return gap || f->unchanged;
	case CHANGE_DELETE:
		return (c->has_before || gap) && (f->operations & OPERATION_DELETE);
	}
	return false;
}

/* ---- what the tail may have missed ---- */

bool decide_is_whole(const struct reading *r, int64_t min_compaction_lag_ms, int64_t close_ms)
{
	if (!r->holes)
		return true;
	if (r->away_ms >= 0 && r->away_ms < min_compaction_lag_ms)
		return true;
	return r->transactions && r->was_running && r->away_ms >= 0 && r->away_ms <= close_ms;
}

bool decide_has_markers(const struct reading *r, int64_t delete_retention_ms, int64_t close_ms)
{
	return r->was_running && r->away_ms >= 0 && r->away_ms <= close_ms &&
	       !decide_round_due(r->away_ms, delete_retention_ms, false);
}

bool decide_round_due(int64_t away_ms, int64_t delete_retention_ms, bool was_running)
{
	int64_t limit = delete_retention_ms / 2;

	if (was_running && limit < 1000)
		limit = 1000;
	return away_ms >= 0 && away_ms > limit;
}
