/* What Redis says about itself and about its mark, and the claim to write it. */
#include "mirror_private.h"
#include "escape.h"
#include "kafka.h"
#include "log.h"
#include "topic.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	SCAN_COUNT = 1000,
	LOOK_MAX_MS = 5000, /* for counting what is under a prefix that is not ours */
	VERSION_LEAST = 4,  /* UNLINK, HSET of several fields */
	PROBE_MS = 5000,
};

/* ---- the server ---- */

/* The value of a line "name:value" of INFO; "" where there is none. */
static const char *info(const char *text, const char *name, char *out, size_t size)
{
	size_t len = strlen(name);

	*out = '\0';
	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, name, len) != 0 || line[len] != ':')
			continue;
		size_t n = strcspn(line + len + 1, "\r\n");
		snprintf(out, size, "%.*s", (int)n, line + len + 1);
		break;
	}
	return out;
}

static enum mirror_verdict judge_server(struct mirror *m, const char *text)
{
	char policy[40], max[40], version[40], role[40], cluster[40];

	info(text, "maxmemory_policy", policy, sizeof(policy));
	info(text, "maxmemory", max, sizeof(max));
	info(text, "redis_version", version, sizeof(version));
	info(text, "role", role, sizeof(role));
	info(text, "cluster_enabled", cluster, sizeof(cluster));
	if (!strcmp(cluster, "1")) {
		mirror_say(m, true, "SN-REDIS-CLUSTER",
			   "%s is a node of a Redis Cluster, where one transaction cannot have all "
			   "keys: name a Redis without cluster mode",
			   m->server.uri);
		return MIRROR_REFUSED;
	}
	if (*version && atoi(version) < VERSION_LEAST) {
		mirror_say(m, true, "SN-REDIS-VERSION", "%s is Redis %s; %d or later is needed",
			   m->server.uri, version, VERSION_LEAST);
		return MIRROR_REFUSED;
	}
	if (!strcmp(role, "slave")) {
		mirror_say(m, false, "SN-REDIS-READONLY",
			   "%s is a replica: name the primary in redis.uri, or wait for the "
			   "failover; trying again",
			   m->server.uri);
		return MIRROR_LOST;
	}
	if (!strncmp(policy, "allkeys-", 8) && strcmp(max, "0") != 0) {
		mirror_say(m, true, "SN-REDIS-EVICTION",
			   "%s evicts keys (maxmemory-policy %s): a key that it has evicted looks "
			   "like one that does not exist; set noeviction, or a volatile policy; "
			   "nothing is mirrored",
			   m->server.uri, policy);
		snprintf(m->owed, sizeof(m->owed), "maxmemory-policy was %s", policy);
		return MIRROR_REFUSED;
	}
	return MIRROR_OK;
}

enum mirror_verdict mirror_check_server(struct mirror *m)
{
	struct redis_answer a;

	m->checked_ms = kafka_now_ms();
	redis_words(m->r, "INFO", NULL);
	if (redis_next(m->r, &a))
		return mirror_lost(m);
	if (redis_is(&a, "NOPERM")) {
		if (!m->unchecked_said)
			log_info(NULL,
				 "Redis: no right to INFO: version and maxmemory-policy of %s are "
				 "not checked",
				 m->server.uri);
		m->unchecked_said = true;
		return MIRROR_OK;
	}
	if (a.kind == REDIS_FAULT)
		return mirror_fault(m, &a);
	return a.kind == REDIS_TEXT ? judge_server(m, a.text) : MIRROR_OK;
}

/* Rights are judged when a command is queued, and DISCARD then carries out none. */
static enum mirror_verdict check_rights(struct mirror *m)
{
	enum mirror_verdict v = mirror_begin(m);
	struct redis_answer a;
	int n = 0;

	if (v != MIRROR_OK)
		return v;
	redis_words(m->r, "MSET", m->self.prefix, "", NULL), n++;
	redis_words(m->r, "UNLINK", m->self.prefix, NULL), n++;
	redis_words(m->r, "DEL", m->key, NULL), n++;
	redis_words(m->r, "HSET", m->key, "seq", "", NULL), n++;
	redis_words(m->r, "HDEL", m->key, "resync", NULL), n++;
	redis_words(m->r, "HSET", MARK_PREFIXES, m->self.prefix, "", NULL), n++;
	redis_words(m->r, "HDEL", MARK_PREFIXES, m->self.prefix, NULL), n++;
	redis_words(m->r, "MGET", m->self.prefix, NULL), n++;
	redis_words(m->r, "DISCARD", NULL), n++;
	redis_words(m->r, "MULTI", NULL), n++;
	redis_words(m->r, "EXEC", NULL), n++;
	redis_words(m->r, "UNWATCH", NULL), n++;
	redis_words(m->r, "HMGET", m->key, "epoch", NULL), n++;
	redis_words(m->r, "SCAN", "0", "MATCH", "", "COUNT", "1", NULL), n++;
	for (int i = 0; i < n; i++) {
		if (redis_next(m->r, &a))
			return mirror_lost(m);
		if (a.kind == REDIS_FAULT && v == MIRROR_OK && !redis_is(&a, "WRONGTYPE"))
			v = mirror_fault(m, &a);
	}
	return v;
}

/* ---- the mark ---- */

static enum mirror_verdict no_hash(struct mirror *m, const char *key)
{
	mirror_say(m, true, "SN-REDIS-FOREIGN",
		   "key %s is no hash, so it is not a mirror's: choose another name or database",
		   key);
	return MIRROR_REFUSED;
}

/* Until the claim nobody may touch what is read here. */
static enum mirror_verdict read_mark(struct mirror *m, struct mark *mark)
{
	struct redis_answer a;

	redis_words(m->r, "WATCH", m->key, MARK_PREFIXES, NULL);
	redis_words(m->r, "HGETALL", m->key, NULL);
	for (int i = 0; i < 2; i++) {
		if (redis_next(m->r, &a))
			return mirror_lost(m);
		if (redis_is(&a, "WRONGTYPE"))
			return no_hash(m, m->key);
		if (a.kind == REDIS_FAULT)
			return mirror_fault(m, &a);
	}
	for (size_t i = 0; i + 1 < a.n; i += 2) {
		struct redis_answer field = redis_at(&a, i), value = redis_at(&a, i + 1);
		if (field.kind == REDIS_TEXT && value.kind == REDIS_TEXT)
			mark_take(mark, field.text, value.text, value.len);
	}
	return MIRROR_OK;
}

struct old_prefix { /* of ours, and not used any more */
	struct old_prefix *next;
	size_t len;
	const char *text;
};

struct prefixes {
	bool ours;
	struct old_prefix *old; /* in m->chunk */
};

static enum mirror_verdict refuse_prefix(struct mirror *m, enum prefix_verdict v,
					 const struct redis_answer *prefix,
					 const struct redis_answer *owner)
{
	char *theirs = escape_key(prefix->text, prefix->len);
	char *who = escape_key(owner->text, owner->len);

	mirror_say(
		m, true, "SN-REDIS-FOREIGN",
		"redis.prefix '%s' %s '%s' of pipeline '%s': choose another; if that pipeline is "
		"gone: HDEL %s '%s'",
		m->self.prefix, v == PREFIX_TAKEN ? "is the prefix" : "overlaps with the prefix",
		theirs ? theirs : "?", who ? who : "?", MARK_PREFIXES, theirs ? theirs : "?");
	free(theirs);
	free(who);
	return MIRROR_REFUSED;
}

static enum mirror_verdict judge_prefixes(struct mirror *m, const struct redis_answer *list,
					  struct prefixes *out)
{
	for (size_t i = 0; i + 1 < list->n; i += 2) {
		struct redis_answer prefix = redis_at(list, i), owner = redis_at(list, i + 1);
		enum prefix_verdict v =
			mark_prefix(&m->self, prefix.text, prefix.len, owner.text, owner.len);

		if (v == PREFIX_OVERLAPS || (v == PREFIX_TAKEN && !m->self.adopt))
			return refuse_prefix(m, v, &prefix, &owner);
		out->ours |= v == PREFIX_OURS;
		if (v != PREFIX_OURS_BEFORE)
			continue;
		struct old_prefix *old = arena_alloc(&m->chunk, sizeof(*old));
		if (!old)
			return MIRROR_LOST;
		*old = (struct old_prefix){ out->old, prefix.len,
					    arena_copy(&m->chunk, prefix.text, prefix.len) };
		if (!old->text)
			return MIRROR_LOST;
		out->old = old;
	}
	return MIRROR_OK;
}

static enum mirror_verdict read_prefixes(struct mirror *m, struct prefixes *out)
{
	struct redis_answer a;

	arena_clear(&m->chunk);
	redis_words(m->r, "HGETALL", MARK_PREFIXES, NULL);
	if (redis_next(m->r, &a))
		return mirror_lost(m);
	if (redis_is(&a, "WRONGTYPE"))
		return no_hash(m, MARK_PREFIXES);
	if (a.kind == REDIS_FAULT)
		return mirror_fault(m, &a);
	return judge_prefixes(m, &a, out);
}

/* ---- whose keys are those ---- */

struct found {
	uint64_t n;
	bool all;
	char *sample;
};

static void count_page(struct mirror *m, const struct redis_answer *keys, struct found *f)
{
	for (size_t i = 0; i < keys->n; i++) {
		struct redis_answer key = redis_at(keys, i);

		if (key.kind != REDIS_TEXT || mark_reserves(m->self.prefix, key.text, key.len))
			continue;
		if (!f->n++)
			f->sample = escape_key(key.text, key.len);
	}
}

static enum mirror_verdict count_keys(struct mirror *m, struct found *f)
{
	int64_t until = kafka_now_ms() + LOOK_MAX_MS;
	char cursor[32] = "0", count[16];
	struct redis_answer a;

	snprintf(count, sizeof(count), "%d", SCAN_COUNT);
	do {
		redis_word(m->r, "SCAN");
		redis_word(m->r, cursor);
		redis_word(m->r, "MATCH");
		redis_arg(m->r, m->pattern, m->pattern_len);
		redis_word(m->r, "COUNT");
		redis_word(m->r, count);
		redis_send(m->r);
		if (redis_next(m->r, &a))
			return mirror_lost(m);
		if (a.kind == REDIS_FAULT)
			return mirror_fault(m, &a);
		struct redis_answer next = redis_at(&a, 0), keys = redis_at(&a, 1);
		count_page(m, &keys, f);
		snprintf(cursor, sizeof(cursor), "%s", next.kind == REDIS_TEXT ? next.text : "0");
	} while (strcmp(cursor, "0") != 0 && !(f->n && kafka_now_ms() > until));
	f->all = !strcmp(cursor, "0");
	return MIRROR_OK;
}

/* A prefix that has keys and no marker: they may be anybody's. */
static enum mirror_verdict look_under_prefix(struct mirror *m)
{
	struct found f = { 0 };
	enum mirror_verdict v = count_keys(m, &f);

	m->fresh = v == MIRROR_OK && !f.n;
	if (v == MIRROR_OK && f.n && !m->self.adopt) {
		mirror_say(m, true, "SN-REDIS-FOREIGN",
			   "%s%" PRIu64 " keys under redis.prefix '%s' are not known to be this "
			   "mirror's, e.g. '%.100s': choose another prefix, remove them, or give "
			   "them to it with redis.adopt=true (then those that %s does not have are "
			   "deleted); nothing is mirrored",
			   f.all ? "" : "at least ", f.n, m->self.prefix, f.sample ? f.sample : "?",
			   m->self.topic);
		v = MIRROR_REFUSED;
	} else if (v == MIRROR_OK && f.n && !m->tell) {
		log_warn("SN-REDIS-ADOPTED",
			 "Redis: taking %s%" PRIu64 " keys under redis.prefix '%s' over; take "
			 "redis.adopt=true away again",
			 f.all ? "" : "at least ", f.n, m->self.prefix);
	}
	free(f.sample);
	return v;
}

/* ---- is it still the log that the positions are of ---- */

/* What this state has read itself needs no question to a broker. */
static int compare_own(const struct state_anchor *theirs, const struct state_anchor *own, int n)
{
	for (int i = 0; i < n; i++)
		if (own[i].offset == theirs->offset)
			return own[i].timestamp_ms == theirs->timestamp_ms &&
					       own[i].key_hash == theirs->key_hash
				       ? TOPIC_SAME
				       : TOPIC_OTHER;
	return TOPIC_UNSURE;
}

static int same_partition(struct mirror *m, const struct mark *mark, int p, rd_kafka_t **rk,
			  char *err, size_t err_len)
{
	struct state_anchor own[STATE_ANCHORS];
	const struct mark_part *part = &mark->part[p];
	struct state_view *v;
	int rc, n;

	if (!part->offset)
		return TOPIC_SAME;
	if (part->anchor.offset < 0)
		return TOPIC_UNSURE;
	if ((rc = state_view_begin(m->p->state, &v)))
		return rc;
	n = state_view_anchors(v, p, own);
	state_view_end(v);
	rc = compare_own(&part->anchor, own, n < 0 ? 0 : n);
	if (rc != TOPIC_UNSURE)
		return rc;
	if (!*rk)
		*rk = kafka_new(m->c, KAFKA_QUERY, NULL, err, err_len);
	return *rk ? topic_is_same(*rk, m->self.topic, p, part->offset, &part->anchor, 1, err,
				   err_len)
		   : KAFKA_REFUSED;
}

/* Another state's positions may be those of a topic that was deleted and made anew. */
static enum mirror_verdict same_log(struct mirror *m, const struct mark *mark, bool *same)
{
	rd_kafka_t *rk = NULL;
	char err[300] = "";
	int rc = TOPIC_SAME;

	*same = !strcmp(mark->state, state_uuid(m->p->state));
	if (*same)
		return MIRROR_OK;
	for (int p = 0; p < mark->partitions && rc == TOPIC_SAME && !mirror_stopping(m); p++)
		rc = same_partition(m, mark, p, &rk, err, sizeof(err));
	kafka_free(rk);
	*same = rc == TOPIC_SAME;
	if (rc >= 0)
		return MIRROR_OK;
	log_info(NULL, "Redis: comparing its positions with %s: %s", m->self.topic, err);
	return MIRROR_KAFKA;
}

/* ---- the claim ---- */

void mirror_put_identity(struct mirror *m)
{
	redis_word(m->r, "HSET");
	redis_word(m->r, m->key);
	redis_word(m->r, "format");
	redis_word(m->r, mirror_text(m, "%d", MARK_FORMAT));
	redis_word(m->r, "cluster");
	redis_word(m->r, m->self.cluster);
	redis_word(m->r, "topic");
	redis_word(m->r, m->self.topic);
	redis_word(m->r, "prefix");
	redis_word(m->r, m->self.prefix);
	redis_word(m->r, "epoch");
	redis_word(m->r, m->epoch_text);
	redis_word(m->r, "by");
	redis_word(m->r, state_uuid(m->p->state));
}

static void put_registration(struct mirror *m, const struct prefixes *known)
{
	char owner[MARK_TEXT_MAX];

	mark_owner(&m->self, owner);
	if (!known->ours) { /* every mirror of this Redis watches that hash */
		redis_word(m->r, "HSET");
		redis_word(m->r, MARK_PREFIXES);
		redis_word(m->r, m->self.prefix);
		redis_word(m->r, owner);
		mirror_queue(m);
	}
	for (const struct old_prefix *o = known->old; o; o = o->next) {
		redis_word(m->r, "HDEL");
		redis_word(m->r, MARK_PREFIXES);
		redis_arg(m->r, o->text, o->len);
		mirror_queue(m);
	}
}

/* False: another leader has raised it since this one did. */
static bool take_epoch(struct mirror *m, const struct mark *mark)
{
	bool mine = mark->epoch == m->epoch && !strcmp(mark->by, state_uuid(m->p->state));

	if (m->epoch && mark->there && mark->epoch >= m->epoch && !mine) {
		m->epoch = 0; /* if nobody revokes the assignment, it is the other that is wrong */
		return false;
	}
	/* lower than ours: Redis has lost its newest writes */
	if (!m->epoch || !mine)
		m->epoch = (mark->epoch > m->epoch ? mark->epoch : m->epoch) + 1;
	snprintf(m->epoch_text, sizeof(m->epoch_text), "%" PRId64, m->epoch);
	return true;
}

static void take_positions(struct mirror *m, const struct mark *mark)
{
	for (int p = 0; p < m->p->n; p++) {
		const struct mark_part *from = &mark->part[p];
		struct mirror_part *to = &m->part[p];
		bool live = to->live;

		*to = (struct mirror_part){ .at = from->offset,
					    .live = live,
					    .caught_ms = from->caught_ms,
					    .caught_boot_ms = -1,
					    .caught_at = from->caught_at,
					    .anchor = from->anchor };
		if (p >= mark->partitions) { /* new: nothing of it can have been missed */
			to->at = 0;
			to->caught_ms = kafka_wall_ms();
			to->caught_at = 0;
			to->anchor.offset = -1;
		}
		to->next = to->at;
		to->next_anchor = to->anchor;
	}
	m->placed = true;
}

static enum mirror_verdict claim(struct mirror *m, const struct mark *mark,
				 const struct prefixes *known)
{
	bool go_on = !*m->want;
	enum mirror_verdict v = mirror_begin(m);

	if (v != MIRROR_OK)
		return v;
	if (!go_on) {
		redis_words(m->r, "DEL", m->key, NULL);
		m->commands++;
	}
	mirror_put_identity(m);
	if (go_on) {
		redis_word(m->r, "state");
		redis_word(m->r, state_uuid(m->p->state));
		redis_word(m->r, "partitions");
		redis_word(m->r, mirror_text(m, "%d", m->p->n));
	}
	mirror_queue(m);
	put_registration(m, known);
	if (go_on && mark->partitions < m->p->n) {
		redis_word(m->r, "HSET");
		redis_word(m->r, m->key);
		for (int p = mark->partitions; p < m->p->n; p++)
			mirror_put_part(m, p, 0, &m->part[p].anchor);
		mirror_queue(m);
	}
	return mirror_commit(m);
}

/* Sets m->want unless Redis is the fold up to the positions of the mark. */
static enum mirror_verdict decide(struct mirror *m, const struct mark *mark,
				  const struct prefixes *known)
{
	enum mirror_verdict v = MIRROR_OK;
	char why[MARK_TEXT_MAX] = "";
	bool same = true;

	m->fresh = false;
	switch (mark_decide(mark, &m->self, why, sizeof(why))) {
	case MARK_FOREIGN:
		mirror_say(m, true, "SN-REDIS-FOREIGN", "%s", why);
		return MIRROR_REFUSED;
	case MARK_NEW:
		if (mark->there && !m->tell)
			log_warn("SN-REDIS-OLD-PREFIX",
				 "Redis: keys under the former redis.prefix '%s' stay as they are: "
				 "delete them when nobody reads them any more",
				 mark->prefix);
		if (!known->ours)
			v = look_under_prefix(m);
		else if (!mark->there)
			snprintf(why, sizeof(why), "its mark is gone");
		break;
	case MARK_RESYNC:
		break;
	case MARK_CONTINUE:
		if (*m->owed)
			snprintf(why, sizeof(why), "%s", m->owed);
		else if (*m->synced && strcmp(m->synced, mark->synced) != 0)
			snprintf(why, sizeof(why), "Redis has lost the last resync");
		else if (!m->tell && (v = same_log(m, mark, &same)) == MIRROR_OK && !same)
			snprintf(why, sizeof(why),
				 "its positions are of another log, or cannot be "
				 "told from one");
		break;
	}
	if (*why)
		mirror_want(m, "%s", why);
	return v;
}

/* Everything up to the claim: nothing is written. */
static enum mirror_verdict look(struct mirror *m, struct mark *mark, struct prefixes *known)
{
	enum mirror_verdict v;

	if ((v = mirror_check_server(m)) == MIRROR_OK && (v = check_rights(m)) == MIRROR_OK &&
	    (v = read_mark(m, mark)) == MIRROR_OK && (v = read_prefixes(m, known)) == MIRROR_OK)
		v = decide(m, mark, known);
	return v;
}

enum mirror_verdict mirror_hold(struct mirror *m)
{
	struct prefixes known = { 0 };
	enum mirror_verdict v;
	struct mark mark;

	if (mark_init(&mark, m->p->n))
		return MIRROR_LOST;
	if ((v = look(m, &mark, &known)) != MIRROR_OK)
		goto out;
	if (!take_epoch(m, &mark)) {
		v = MIRROR_FENCED;
		goto out;
	}
	if (!*m->want)
		take_positions(m, &mark);
	v = claim(m, &mark, &known);
	if (v == MIRROR_OK && m->placed)
		log_info(NULL, "Redis: mirroring to %s, epoch %" PRId64 ", from where it is",
			 m->server.uri, m->epoch);
out:
	mark_free(&mark);
	return v;
}

/* ---- for `check` ---- */

static void tell(struct mirror *m, enum mirror_told level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void tell(struct mirror *m, enum mirror_told level, const char *fmt, ...)
{
	char text[700];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	m->tell(m->tell_opaque, level, NULL, text);
}

static void tell_mark(struct mirror *m, const struct mark *mark)
{
	int64_t sum = 0;

	for (int p = 0; p < m->p->n; p++)
		sum += mark->part[p].offset > 0 ? mark->part[p].offset : 0;
	if (!*m->want)
		tell(m, MIRROR_FINE, "Redis: %s has %" PRId64 " offsets of %s, in epoch %" PRId64,
		     m->key, sum, m->self.topic, mark->epoch);
	else if (m->fresh)
		tell(m, MIRROR_NOTE, "Redis: nothing is under redis.prefix '%s': it will be filled",
		     m->self.prefix);
	else
		tell(m, MIRROR_NOTE, "Redis: it will be compared with the snapshot: %s", m->want);
}

static bool inspect(struct mirror *m)
{
	struct prefixes known = { 0 };
	enum mirror_verdict v;
	struct mark mark;
	char err[400];
	int rc = redis_open(&m->r, &m->server, NULL, err, sizeof(err));

	if (rc) {
		m->tell(m->tell_opaque, MIRROR_FAULT,
			rc == -EACCES || rc == -EINVAL ? "SN-REDIS-LOGIN" : "SN-REDIS-UNREACHABLE",
			err);
		return rc == -EACCES || rc == -EINVAL;
	}
	tell(m, MIRROR_FINE, "Redis: %s answers", m->server.uri);
	if (mark_init(&mark, m->p->n))
		return true;
	v = look(m, &mark, &known);
	if (v == MIRROR_OK)
		tell_mark(m, &mark);
	mark_free(&mark);
	return v != MIRROR_LOST || !*redis_error(m->r);
}

bool mirror_inspect(const struct config *c, const char *cluster, int n, mirror_tell *to,
		    void *opaque)
{
	struct mirror *m = NULL;
	bool reached = true;
	struct pipeline p;

	if (pipeline_init(&p, c, n))
		return true;
	snprintf(p.cluster, sizeof(p.cluster), "%s", cluster);
	if (!mirror_open(&m, &p)) {
		m->tell = to;
		m->tell_opaque = opaque;
		reached = inspect(m);
		redis_close(m->r);
	}
	mirror_close(m);
	pipeline_free(&p);
	return reached;
}
