/*
 * oracle.c - what the notification topic and the snapshots must be, from what
 * was written to the source topic.  Shares no code with the sidecar.
 *
 * The rules are those of tests/integration/oracle.py, sharper: of every offset
 * it is known who moved the committed offset past it (the teller), whether that
 * sidecar had applied it, and whether compaction had removed it by then.  Only
 * what was removed before the teller could read it may be missing, and what
 * follows it of the same key must then say cause=gap, unless the teller had
 * also told what came before.
 */
#include "broker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct told {
	bool there;
	int64_t at; /* in the notification topic */
	char op;
	enum { SAYS_LOG, SAYS_GAP, SAYS_RECONCILE } cause;
	int64_t before_offset; /* -1: none */
	const char *before, *after;
	int before_len, after_len; /* 0: null; -1: unknown */
};

struct passed {
	bool known, seen, removed, by_self;
	int teller; /* host, and what its state has seen */
	uint8_t (*by)[OFFSETS_MAX];
};

static struct told told[PARTITIONS_MAX][OFFSETS_MAX], gone[PARTITIONS_MAX][OFFSETS_MAX];
static struct passed passed[PARTITIONS_MAX][OFFSETS_MAX];
static bool gone_used[PARTITIONS_MAX][OFFSETS_MAX];
static int64_t start[PARTITIONS_MAX], committed[PARTITIONS_MAX];
static char committed_by[PARTITIONS_MAX][40];
static int64_t highest;

enum { STATES_MAX = 32 };
static struct known {
	char uuid[40];
	bool opened;
	int64_t start[PARTITIONS_MAX];
	uint8_t seen[PARTITIONS_MAX][OFFSETS_MAX];
} states[STATES_MAX];
static int n_states;

static struct known *state_of(const char *uuid)
{
	for (int i = 0; i < n_states; i++)
		if (!strcmp(states[i].uuid, uuid))
			return &states[i];
	if (n_states == STATES_MAX)
		abort();
	memset(&states[n_states], 0, sizeof(states[0]));
	snprintf(states[n_states].uuid, sizeof(states[0].uuid), "%s", uuid);
	return &states[n_states++];
}

uint8_t (*oracle_seen(const char *uuid))[OFFSETS_MAX] { return state_of(uuid)->seen; }

void oracle_reset(void)
{
	for (int p = 0; p < PARTITIONS_MAX; p++) {
		memset(told[p], 0, sizeof(told[p][0]) * (size_t)highest);
		memset(gone[p], 0, sizeof(gone[p][0]) * (size_t)highest);
		memset(passed[p], 0, sizeof(passed[p][0]) * (size_t)highest);
		memset(gone_used[p], 0, sizeof(gone_used[p]));
		start[p] = committed[p] = -1;
		committed_by[p][0] = '\0';
	}
	highest = 0;
	n_states = 0;
}

/* ---- while it runs ---- */

static void by_of(const char *metadata, char by[40])
{
	by[0] = '\0';
	sscanf(metadata, "sidenote by=%39s", by);
}

static void passed_by(struct host *teller, int p, int64_t from, int64_t to, bool by_self)
{
	uint8_t(*seen)[OFFSETS_MAX] = oracle_seen(committed_by[p]);

	for (int64_t o = from; o < to && o < source[p].n; o++)
		passed[p][o] = (struct passed){ .known = true,
						.teller = teller->id,
						.by = seen,
						.seen = seen[p][o],
						.removed = source[p].v[o].removed,
						.by_self = by_self };
	if (to > highest)
		highest = to;
}

void oracle_committed(struct host *teller, bool as_member, int p, int64_t from, int64_t to,
		      const char *before)
{
	struct offset now;
	char was[40];

	if (broker_offset(p, false, &now))
		return;
	by_of(before, was);
	by_of(now.metadata, committed_by[p]);
	say("committed [%d] %lld -> %lld by host %d: %s", p, (long long)from, (long long)to,
	    teller->id, now.metadata);
	if (to < from)
		violation("the committed offset of [%d] went back from %lld to %lld", p,
			  (long long)from, (long long)to);
	bool same = !strcmp(committed_by[p], teller->uuid);
	if (same && teller->rows_known && teller->rows[p].applied < to)
		violation("host %d committed %lld of [%d] and has applied up to %lld", teller->id,
			  (long long)to, p, (long long)teller->rows[p].applied);
	/* only who was the last to publish may go on unelected */
	if (!as_member && strcmp(was, committed_by[p]))
		violation("host %d committed %lld of [%d] as no member of the group, after %s",
			  teller->id, (long long)to, p, *was ? was : "nobody");
	figures.resumed += !as_member && p == 0;
	if (from < 0)
		start[p] =
			state_of(committed_by[p])->start[p]; /* its host may have another by now */
	/* nobody has told what came before the first: what it missed is history */
	passed_by(teller, p, from < 0 ? start[p] : from, to,
		  from < 0 || !strcmp(was, committed_by[p]));
	committed[p] = to;
}

/* What a fill read is what was there; what the state before had read is lost with it. */
static void take_fill(struct host *h, const struct state_partition *rows)
{
	memset(h->delivered, 0, sizeof(h->delivered));
	for (int p = 0; p < n_partitions; p++)
		for (int64_t o = 0; o < rows[p].applied && o < source[p].n; o++)
			h->delivered[p][o] = !source[p].v[o].removed;
}

/* P <= A, also after a power cut. */
void oracle_opened(struct host *h, const struct state_partition *rows)
{
	if (!state_of(h->uuid)->opened)
		take_fill(h, rows);
	state_of(h->uuid)->opened = true;
	for (int p = 0; p < n_partitions; p++) {
		state_of(h->uuid)->start[p] = rows[p].start;
		if (!strcmp(committed_by[p], h->uuid) && rows[p].applied < committed[p])
			violation("host %d comes back with [%d] applied up to %lld, and published "
				  "up to %lld",
				  h->id, p, (long long)rows[p].applied, (long long)committed[p]);
	}
}

const char *oracle_unrest(void)
{
	static char text[200];

	for (int p = 0; p < n_partitions; p++) {
		int64_t end = source[p].n;
		for (int i = 0; i < n_hosts; i++) {
			const struct host *h = &hosts[i];
			const struct state_partition *row = &h->rows[p];
			snprintf(text, sizeof(text),
				 "host %d [%d]: life %d, applied %lld, due %lld, published %lld, "
				 "base %lld of %lld",
				 i, p, h->life, (long long)row->applied, (long long)row->due,
				 (long long)row->published, (long long)row->base, (long long)end);
			if (h->life != HOST_UP || !h->rows_known || row->applied != end ||
			    row->due >= 0 || row->published != end || row->base < end)
				return text;
		}
		snprintf(text, sizeof(text), "[%d]: committed %lld of %lld", p,
			 (long long)committed[p], (long long)end);
		if (committed[p] != end)
			return text;
	}
	return broker_has_open_transaction() ? "a transaction is open" : NULL;
}

/* ---- reading a notification ---- */

static const char *header_of(const struct entry *e, const char *name)
{
	for (int i = 0; i < e->n_headers; i++)
		if (!strcmp(e->headers[i].name, name))
			return e->headers[i].value;
	return "";
}

/* A side: null, unknown, or the object of the workload, which holds no brace. */
static int side_len(const char *s)
{
	if (!strncmp(s, "null", 4))
		return 0;
	if (!strncmp(s, "{\"sidenote.unknown\"", 19))
		return -1;
	const char *end = strchr(s, '}');
	return end ? (int)(end - s + 1) : -2;
}

static bool understand(const struct entry *e, struct told *t)
{
	const char *v = e->value ? e->value : "", *cause = header_of(e, "sidenote.cause");
	const char *before = strstr(v, "\"before\":"), *after = strstr(v, "\"after\":");
	const char *offset = strstr(v, "\"before_offset\":");

	if (!before || !after)
		return false;
	t->there = true;
	t->op = *header_of(e, "sidenote.op");
	t->cause = !strcmp(cause, "gap")         ? SAYS_GAP
		   : !strcmp(cause, "reconcile") ? SAYS_RECONCILE
						 : SAYS_LOG;
	t->before = before + strlen("\"before\":");
	t->after = after + strlen("\"after\":");
	t->before_len = side_len(t->before);
	t->after_len = side_len(t->after);
	t->before_offset = -1;
	if (offset && sscanf(offset, "\"before_offset\":%lld", (long long *)&t->before_offset) != 1)
		t->before_offset = -1;
	return t->before_len >= -1 && t->after_len >= 0;
}

/* Of two entries of a partition of the source. */
static bool same_key(const struct entry *a, const struct entry *b) { return a->id == b->id; }

static bool same_bytes(const struct entry *a, const struct entry *b)
{
	return a->key_len == b->key_len && !memcmp(a->key, b->key, a->key_len);
}

static bool shows(const char *side, int len, const struct entry *e)
{
	if (!e || !e->value)
		return len == 0;
	return len == (int)e->value_len && !memcmp(side, e->value, e->value_len);
}

static bool in_source(int p, int64_t o)
{
	return o >= 0 && o < source[p].n && source[p].v[o].kind == ENTRY_DATA &&
	       source[p].v[o].state == ENTRY_COMMITTED;
}

#define WHERE "notification %d@%lld (%s): "
#define AT    p, (long long)i, id

static void take_note(int p, int64_t i)
{
	const struct entry *e = &notes[p].v[i];
	const char *id = header_of(e, "sidenote.id");
	struct told t = { .at = i }, *to;
	int part = -1, end = 0;
	long long o = -1;

	if (sscanf(id, "things/%d/%lld%n", &part, &o, &end) != 2 || part != p || !in_source(p, o)) {
		violation(WHERE "of no source record", AT);
		return;
	}
	to = !strcmp(id + end, "/gone") ? &gone[p][o] : &told[p][o];
	if (to->there)
		violation(WHERE "a double of @%lld", AT, (long long)to->at);
	else if (!understand(e, &t))
		violation(WHERE "cannot be read: %.200s", AT, (char *)e->value);
	else if (!same_bytes(e, &source[p].v[o]))
		violation(WHERE "has another key", AT);
	else if ((t.cause == SAYS_RECONCILE) != (to == &gone[p][o]))
		violation(WHERE "has another cause", AT);
	if (o >= highest)
		highest = o + 1;
	*to = t;
	figures.notifications++;
	figures.gaps += t.cause == SAYS_GAP;
	figures.reconciled += t.cause == SAYS_RECONCILE;
}

/* ---- each key, version by version ---- */

struct chain {
	int p;
	int64_t cur;     /* the version that is known to whoever told; -1: none */
	int64_t debt;    /* a change that could not be read, and nothing that covers it yet; -1 */
	int64_t debt_of; /* what `cur` was then */
	int64_t deleted; /* the tombstone among what could not be read since; -1: none */
	int64_t last;    /* place of the last notification of the key */
};

static const struct entry *version(const struct chain *c, int64_t o)
{
	return o < 0 ? NULL : &source[c->p].v[o];
}

static void in_order(struct chain *c, const struct told *t, int64_t o)
{
	if (t->at <= c->last)
		violation("[%d] %lld: told out of order", c->p, (long long)o);
	c->last = t->at;
}

static bool owes_creates(void)
{
	return hosts[0].config.notifications_operations & OPERATION_CREATE;
}

/*
 * A key that came and went while the teller was away: neither its record nor the
 * tombstone was there any more.  Whoever had published the record may know by a round
 * that it is gone, but the committed offset has passed the place where that would be
 * told.  Nobody tells it; docs/guarantees.md says so.
 */
static bool forgive_debt(struct chain *c)
{
	if (c->debt < 0 || c->deleted < 0 || passed[c->p][c->deleted].by[c->p][c->debt_of])
		return false;
	figures.untold++;
	if (c->cur == c->debt_of)
		c->cur = -1;
	c->deleted = -1;
	if (!version(c, c->debt)->value || !owes_creates())
		c->debt = -1; /* else it came back, which is owed as before */
	return true;
}

static void check_log(struct chain *c, int64_t o, const struct told *t)
{
	if (t->before_offset < 0)
		forgive_debt(c);

	const struct entry *e = version(c, o);
	char op = !e->value ? 'd' : c->cur < 0 ? 'c' : 'u';

	if (t->op != op || t->before_offset != c->cur ||
	    !shows(t->before, t->before_len, version(c, c->cur)))
		violation("[%d] %lld: told as %c with before_offset %lld, is %c after %lld", c->p,
			  (long long)o, t->op, (long long)t->before_offset, op, (long long)c->cur);
	if (c->debt >= 0 && !passed[c->p][c->debt].by_self)
		violation("[%d] %lld: told without a remark, and %lld before it was never told",
			  c->p, (long long)o, (long long)c->debt);
}

static void check_gap(struct chain *c, int64_t o, const struct told *t)
{
	const struct entry *b = NULL;

	if (t->before_offset >= 0) {
		if (in_source(c->p, t->before_offset) && t->before_offset < o)
			b = version(c, t->before_offset);
		if (!b || !same_key(b, version(c, o)) || !shows(t->before, t->before_len, b))
			violation("[%d] %lld: gap with before_offset %lld, which it is not", c->p,
				  (long long)o, (long long)t->before_offset);
	} else if (t->before_len > 0) {
		violation("[%d] %lld: gap with before and without its offset", c->p, (long long)o);
	}
}

static void check_told(struct chain *c, int64_t o, const struct told *t)
{
	const struct entry *e = version(c, o);

	in_order(c, t, o);
	if (!shows(t->after, t->after_len, e))
		violation("[%d] %lld: told with another value", c->p, (long long)o);
	if (t->cause == SAYS_LOG)
		check_log(c, o, t);
	else
		check_gap(c, o, t);
	c->debt = c->deleted = -1;
	c->cur = e->value ? o : -1;
}

static bool is_same_value(const struct entry *a, const struct entry *b)
{
	return a && a->value && b->value && a->value_len == b->value_len &&
	       !memcmp(a->value, b->value, a->value_len);
}

/* Whether a change of this kind is news, as the hosts are configured. */
static bool is_wanted(const struct chain *c, const struct entry *e)
{
	const struct config *f = &hosts[0].config;

	if (!e->value)
		return c->cur >= 0;
	if (c->cur < 0)
		return owes_creates();
	return f->notifications_unchanged || !is_same_value(version(c, c->cur), e);
}

static void check_gone(struct chain *c, int64_t o)
{
	struct told *t = &gone[c->p][o];

	in_order(c, t, o);
	gone_used[c->p][o] = true;
	if (t->op != 'd' || t->before_offset != o ||
	    !shows(t->before, t->before_len, version(c, o)))
		violation("[%d] %lld gone: told wrongly", c->p, (long long)o);
	c->cur = -1;
	c->debt = c->deleted = -1;
}

/*
 * The delete at `o` as a round told it: of the version that the teller of what came
 * before had, or of a later one, which another sidecar had read, or of an earlier one
 * with the same value.  -1: not at all.
 */
static int64_t told_as_gone(const struct chain *c, int64_t o)
{
	for (int64_t v = o - 1; v >= 0; v--) {
		if (!in_source(c->p, v) || !same_key(version(c, v), version(c, o)))
			continue;
		if (v < c->cur && !is_same_value(version(c, c->cur), version(c, v)))
			return -1;
		if (gone[c->p][v].there && !gone_used[c->p][v])
			return v;
	}
	return -1;
}

static void check_not_told(struct chain *c, int64_t o)
{
	const struct entry *e = version(c, o);
	const struct passed *w = &passed[c->p][o];
	int64_t gone_at;
	bool wanted = is_wanted(c, e);
	const bool unread = w->known && w->removed && !w->seen;

	/* also where whoever read the tombstone knew of nothing that it deletes, and another does */
	if (!e->value && (unread || !wanted) && (gone_at = told_as_gone(c, o)) >= 0) {
		check_gone(c, gone_at);
	} else if (!unread) {
		if (forgive_debt(c)) /* also of the same value: to this teller it is a create */
			wanted = is_wanted(c, e);
		if (wanted)
			violation("[%d] %lld: a change that was not told (teller %d, seen %d, "
				  "removed %d)",
				  c->p, (long long)o, w->teller, w->seen, w->removed);
		if (c->debt >= 0 && passed[c->p][c->debt].by_self)
			c->debt = c->deleted = -1; /* it led back to where it had come from */
		c->cur = e->value ? o : -1;
	} else if (!e->value && c->cur < 0) {
		c->debt = c->deleted = -1; /* came and went between two looks */
	} else if (!e->value && c->debt >= 0 && !version(c, c->debt)->value) {
		return; /* deleted again: what is owed is the first */
	} else if (wanted) {
		if (c->debt < 0 || c->debt_of != c->cur)
			c->deleted = -1;
		if (!e->value)
			c->deleted = o;
		c->debt = o;
		c->debt_of = c->cur;
	}
}

static void check_key(int p, int64_t first)
{
	struct chain c = { .p = p, .cur = -1, .debt = -1, .deleted = -1, .last = -1 };
	const struct entry *key = &source[p].v[first];

	for (int64_t o = first; o < source[p].n && !*sim_violation; o++) {
		const struct entry *e = &source[p].v[o];
		if (!in_source(p, o) || !same_key(key, e))
			continue;
		if (o < start[p]) {
			if (told[p][o].there)
				violation("[%d] %lld: history told as news", p, (long long)o);
			c.cur = e->value ? o : -1;
		} else if (told[p][o].there) {
			check_told(&c, o, &told[p][o]);
		} else {
			check_not_told(&c, o);
		}
	}
	if (!*sim_violation && !forgive_debt(&c) && c.debt >= 0)
		violation("[%d] %lld: a change that nothing tells of", p, (long long)c.debt);
}

static bool is_first_of_key(int p, int64_t o)
{
	if (!in_source(p, o))
		return false;
	for (int64_t i = source[p].id_first[source[p].v[o].id] - 1; i < o; i++)
		if (in_source(p, i) && same_key(&source[p].v[i], &source[p].v[o]))
			return false;
	return true;
}

static void check_gones(int p)
{
	for (int64_t o = 0; o < source[p].n; o++)
		if (gone[p][o].there && !gone_used[p][o])
			violation("[%d] %lld: told as gone, and was not", p, (long long)o);
}

/* (partition, before_offset) is what consumers drop doubles by, but of a gap. */
static void check_pairs(int p)
{
	static int64_t by[OFFSETS_MAX];

	memset(by, -1, sizeof(by));
	for (int64_t i = 0; i < notes[p].n; i++) {
		const struct entry *e = &notes[p].v[i];
		struct told t = { 0 };
		if (e->kind != ENTRY_DATA || e->state != ENTRY_COMMITTED || !understand(e, &t) ||
		    t.before_offset < 0 || t.cause == SAYS_GAP)
			continue;
		if (by[t.before_offset] >= 0)
			violation("[%d]: before_offset %lld at @%lld and @%lld", p,
				  (long long)t.before_offset, (long long)by[t.before_offset],
				  (long long)i);
		by[t.before_offset] = i;
	}
}

/* Log changes come in the order of the source. */
static void check_order(int p)
{
	int64_t at = -1;

	for (int64_t o = 0; o < source[p].n; o++) {
		if (!told[p][o].there)
			continue;
		if (told[p][o].at < at)
			violation("[%d] %lld: told before an earlier one", p, (long long)o);
		at = told[p][o].at;
	}
}

/* ---- snapshots ---- */

static const struct entry *last_of_key(int p, int64_t first, int64_t *at)
{
	const struct entry *e = NULL;

	for (int64_t o = first; o < source[p].n; o++)
		if (in_source(p, o) && same_key(&source[p].v[first], &source[p].v[o])) {
			e = &source[p].v[o];
			*at = o;
		}
	return e;
}

static uint64_t check_stored(struct host *h, struct state_view *v, int p)
{
	uint64_t present = 0;

	for (int64_t o = 0; o < source[p].n; o++) {
		const void *bytes;
		struct record r;
		int64_t at = -1;
		size_t len;
		if (!is_first_of_key(p, o))
			continue;
		const struct entry *e = last_of_key(p, o, &at);
		present += e->value != NULL;
		int rc = state_view_get(v, e->key, e->key_len, &bytes, &len);
		if ((rc == 0) != (e->value != NULL))
			violation("host %d: key %s is %s and should not be", h->id, (char *)e->key,
				  rc ? "absent" : "present");
		if (rc || !e->value)
			continue;
		if (record_decode(&r, bytes, len, e->key, e->key_len) || r.offset != at ||
		    r.partition != p || r.value_len != e->value_len ||
		    memcmp(r.value, e->value, r.value_len))
			violation("host %d: key %s is stored from %lld, is %lld", h->id,
				  (char *)e->key, (long long)r.offset, (long long)at);
	}
	return present;
}

static void check_journal(struct host *h, struct state_view *v)
{
	struct change c;

	/* entries at exactly P stay: another may have counted them */
	for (int p = 0; p < n_partitions; p++)
		if (!state_view_journal(v, p, 0, 0, &c) && c.offset < committed[p])
			violation("host %d: journal of [%d] still has %lld", h->id, p,
				  (long long)c.offset);
}

static void check_host(struct host *h)
{
	struct state_view *v;
	struct state_stat s;
	uint64_t present = 0;

	if (state_view_begin(h->state, &v)) {
		violation("host %d: its state cannot be read", h->id);
		return;
	}
	for (int p = 0; p < n_partitions; p++)
		present += check_stored(h, v, p);
	check_journal(h, v);
	state_view_end(v);
	if (!state_stat(h->state, &s) && s.records != present)
		violation("host %d: %llu keys, and the topic has %llu", h->id,
			  (unsigned long long)s.records, (unsigned long long)present);
}

/* For whoever looks at a seed: both logs. */
static void dump(int p)
{
	for (int64_t o = 0; o < source[p].n; o++) {
		const struct entry *e = &source[p].v[o];
		const struct passed *w = &passed[p][o];
		say("source [%d] %lld %s %s %s at %.3f%s removed %.3f; told %d@%lld, gone %d@%lld; "
		    "teller %d %s%s%s",
		    p, (long long)o, e->kind == ENTRY_CONTROL ? "control" : (char *)e->key,
		    e->value ? (char *)e->value : "-", e->state == ENTRY_ABORTED ? "aborted" : "",
		    (double)e->appended_at / SECOND, e->removed ? "" : " not",
		    (double)e->removed_at / SECOND, told[p][o].there, (long long)told[p][o].at,
		    gone[p][o].there, (long long)gone[p][o].at, w->known ? w->teller : -1,
		    w->seen ? " seen" : "", w->removed ? " removed" : "",
		    w->by_self ? " self" : "");
	}
	for (int64_t i = 0; i < notes[p].n; i++) {
		const struct entry *e = &notes[p].v[i];
		if (e->kind == ENTRY_DATA)
			say("note [%d] %lld %s host %d epoch %d: %s %s %s %s", p, (long long)i,
			    e->state == ENTRY_ABORTED ? "aborted" : "", e->by, e->epoch,
			    header_of(e, "sidenote.id"), header_of(e, "sidenote.cause"),
			    header_of(e, "sidenote.op"), (char *)e->value);
	}
}

void oracle_judge(void)
{
	for (int p = 0; p < n_partitions; p++) {
		for (int64_t i = 0; i < notes[p].n; i++)
			if (notes[p].v[i].kind == ENTRY_DATA &&
			    notes[p].v[i].state == ENTRY_COMMITTED)
				take_note(p, i);
		if (source[p].n > highest)
			highest = source[p].n;
	}
	for (int p = 0; p < n_partitions && !*sim_violation; p++) {
		for (int64_t o = 0; o < source[p].n && !*sim_violation; o++)
			if (is_first_of_key(p, o))
				check_key(p, o);
		check_order(p);
		check_gones(p);
		check_pairs(p);
		figures.records += (uint64_t)source[p].n;
	}
	for (int i = 0; i < n_hosts && !*sim_violation; i++)
		check_host(&hosts[i]);
	for (int p = 0; p < n_partitions && sim_verbose; p++)
		dump(p);
}
