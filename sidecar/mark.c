#include "mark.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int mark_init(struct mark *m, int n)
{
	*m = (struct mark){ .n = n };
	m->part = calloc((size_t)n, sizeof(*m->part));
	if (!m->part)
		return -ENOMEM;
	for (int p = 0; p < n; p++)
		m->part[p] = (struct mark_part){ .offset = -1,
						 .caught_at = -1,
						 .anchor = { .offset = -1 } };
	return 0;
}

void mark_free(struct mark *m)
{
	free(m->part);
	*m = (struct mark){ 0 };
}

/* ---- reading ---- */

static bool parse_int(const char *text, int64_t *out)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	int64_t n = strtoll(text, &end, 10);
	if (errno || *end)
		return false;
	*out = n;
	return true;
}

static void take_part(struct mark *m, char what, const char *number, const char *text)
{
	struct state_anchor a;
	struct mark_part *part;
	int64_t p, ms, at;

	if (!parse_int(number, &p) || p >= m->n)
		return;
	part = &m->part[p];
	if (what == 'p')
		parse_int(text, &part->offset);
	else if (what == 't' && sscanf(text, "%" SCNd64 ":%" SCNd64, &ms, &at) == 2) {
		part->caught_ms = ms;
		part->caught_at = at;
	} else if (what == 'a' && sscanf(text, "%" SCNd64 ":%" SCNd64 ":%" SCNx64, &a.offset,
					 &a.timestamp_ms, &a.key_hash) == 3) {
		part->anchor = a;
	}
}

static void take_text(char *to, size_t size, const char *text)
{
	if (strlen(text) < size)
		strcpy(to, text);
}

void mark_take(struct mark *m, const char *field, const char *value, size_t value_len)
{
	const struct {
		const char *name;
		char *to;
		size_t size;
	} texts[] = {
		{ "cluster", m->cluster, sizeof(m->cluster) },
		{ "topic", m->topic, sizeof(m->topic) },
		{ "prefix", m->prefix, sizeof(m->prefix) },
		{ "by", m->by, sizeof(m->by) },
		{ "state", m->state, sizeof(m->state) },
		{ "seq", m->seq, sizeof(m->seq) },
		{ "synced", m->synced, sizeof(m->synced) },
	};
	int64_t number;

	m->there = true;
	if (memchr(value, '\0', value_len))
		return;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		if (!strcmp(field, texts[i].name))
			take_text(texts[i].to, texts[i].size, value);
	if (!strcmp(field, "resync")) /* by hand: any text, of any length, even none */
		snprintf(m->resync, sizeof(m->resync), "%s", *value ? value : "asked for");
	else if (!strcmp(field, "format"))
		m->format = parse_int(value, &number) && number < INT32_MAX ? (int)number : -1;
	else if (!strcmp(field, "partitions") && parse_int(value, &number) && number < INT32_MAX)
		m->partitions = (int)number;
	else if (!strcmp(field, "epoch"))
		parse_int(value, &m->epoch);
	else if ((*field == 'p' || *field == 't' || *field == 'a') && field[1] >= '0' &&
		 field[1] <= '9')
		take_part(m, *field, field + 1, value);
}

void mark_anchor_format(const struct state_anchor *a, char out[MARK_ANCHOR_MAX])
{
	snprintf(out, MARK_ANCHOR_MAX, "%" PRId64 ":%" PRId64 ":%" PRIx64, a->offset,
		 a->timestamp_ms, a->key_hash);
}

/* ---- deciding ---- */

__attribute__((format(printf, 4, 5))) static enum mark_verdict
say(enum mark_verdict v, char *why, size_t why_len, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, why_len, fmt, ap);
	va_end(ap);
	return v;
}

static enum mark_verdict decide_positions(const struct mark *m, const struct mark_self *self,
					  char *why, size_t why_len)
{
	if (m->partitions < 1 || m->partitions > self->partitions)
		return say(MARK_RESYNC, why, why_len, "its positions are of %d partitions",
			   m->partitions);
	for (int p = 0; p < m->partitions; p++)
		if (m->part[p].offset < 0)
			return say(MARK_RESYNC, why, why_len,
				   "the position of partition %d is gone", p);
	return MARK_CONTINUE;
}

enum mark_verdict mark_decide(const struct mark *m, const struct mark_self *self, char *why,
			      size_t why_len)
{
	bool same = !strcmp(m->cluster, self->cluster) && !strcmp(m->topic, self->topic);

	if (!m->there)
		return say(MARK_NEW, why, why_len, "first fill");
	if (m->format > MARK_FORMAT)
		return say(MARK_FOREIGN, why, why_len,
			   "%s%s was written by a newer sidenote: update this one", MARK_KEYS,
			   self->name);
	if ((!same || m->format < 1) && !self->adopt)
		return say(MARK_FOREIGN, why, why_len,
			   "%s%s belongs to topic '%s' of cluster '%s': choose another name or "
			   "database, or take it over with redis.adopt=true",
			   MARK_KEYS, self->name, m->topic, m->cluster);
	if (strcmp(m->prefix, self->prefix) != 0)
		return say(MARK_NEW, why, why_len, "redis.prefix was '%s'", m->prefix);
	if (!same || m->format < 1)
		return say(MARK_RESYNC, why, why_len, "taken over from topic '%s'", m->topic);
	if (*m->resync)
		return say(MARK_RESYNC, why, why_len, "%s", m->resync);
	return decide_positions(m, self, why, why_len);
}

void mark_owner(const struct mark_self *self, char out[MARK_TEXT_MAX])
{
	snprintf(out, MARK_TEXT_MAX, "%s %s", self->name, self->cluster);
}

enum prefix_verdict mark_prefix(const struct mark_self *self, const char *prefix, size_t prefix_len,
				const char *owner, size_t owner_len)
{
	size_t len = strlen(self->prefix), min = len < prefix_len ? len : prefix_len;
	bool same = len == prefix_len && !memcmp(self->prefix, prefix, len);
	char self_owner[MARK_TEXT_MAX];

	mark_owner(self, self_owner);
	if (owner_len == strlen(self_owner) && !memcmp(owner, self_owner, owner_len))
		return same ? PREFIX_OURS : PREFIX_OURS_BEFORE;
	if (same)
		return PREFIX_TAKEN;
	return memcmp(self->prefix, prefix, min) ? PREFIX_UNRELATED : PREFIX_OVERLAPS;
}

bool mark_prefix_allowed(const char *prefix)
{
	size_t len = strlen(prefix), own = strlen(MARK_KEYS);

	return !len || memcmp(prefix, MARK_KEYS, len < own ? len : own) != 0;
}

bool mark_reserves(const char *prefix, const void *key, size_t key_len)
{
	size_t own = strlen(MARK_KEYS);

	return !*prefix && key_len >= own && !memcmp(key, MARK_KEYS, own);
}
