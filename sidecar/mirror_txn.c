/*
 * mirror_txn.c - what the mirror tells Redis in one transaction, what Redis
 * answers, and what is said about it.  Steps 1, 3 and 4 of mirror.c.
 */
#include "mirror_private.h"
#include "shared_state.h"
#include "kafka.h"
#include "fault.h"
#include "log.h"
#include "metrics.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
	SAY_MS = 10000,
	TOKEN_POSITION_MAX = 32, /* "2147483647:9223372036854775807," */
};

/* ---- saying ---- */

void mirror_say(struct mirror *m, bool error, const char *id, const char *fmt, ...)
{
	int64_t now = kafka_now_ms();
	char text[900];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	uint64_t hash = record_hash(text, strlen(text));
	if (mirror_stopping(m) ||
	    (!strcmp(m->said_id, id) && m->said_hash == hash && now - m->said_ms < SAY_MS))
		return;
	snprintf(m->said_id, sizeof(m->said_id), "%s", id);
	m->said_hash = hash;
	m->said_ms = now;
	if (m->tell) {
		m->tell(m->tell_opaque, error ? MIRROR_FAULT : MIRROR_WARNING, id, text);
		return;
	}
	log_write(error ? LOG_LEVEL_ERROR : LOG_LEVEL_WARN, id, "Redis: %s", text);
}

static void say_well(struct mirror *m)
{
	if (*m->said_id)
		log_info(NULL, "Redis: mirroring to %s again", m->server.uri);
	m->said_id[0] = '\0';
	metrics_set(METRIC_REDIS_UP, 1);
}

enum mirror_verdict mirror_lost(struct mirror *m)
{
	if (!mirror_stopping(m))
		mirror_say(m, false, "SN-REDIS-UNREACHABLE",
			   "%s: %s; trying again; snapshot and notifications go on", m->server.uri,
			   redis_error(m->r));
	return mirror_stopping(m) ? MIRROR_STOPPED : MIRROR_LOST;
}

enum mirror_verdict mirror_fault(struct mirror *m, const struct redis_answer *a)
{
	if (strstr(a->text, "NOPERM") || redis_is(a, "NOAUTH")) { /* EXECABORT: because of ... */
		mirror_say(m, true, "SN-REDIS-DENIED",
			   "%s; see docs/redis.md for the rights that are needed; trying again",
			   a->text);
		return MIRROR_REFUSED;
	}
	if (redis_is(a, "OOM"))
		mirror_say(m, true, "SN-REDIS-FULL",
			   "maxmemory is reached: %s; nothing is lost: give it more; trying again",
			   a->text);
	else if (redis_is(a, "READONLY"))
		mirror_say(m, false, "SN-REDIS-READONLY",
			   "%s is a replica: name the primary in redis.uri, or wait for the "
			   "failover; trying again",
			   m->server.uri);
	else
		mirror_say(m, false, "SN-REDIS-REFUSED", "%s; trying again", a->text);
	return MIRROR_LOST;
}

void mirror_want(struct mirror *m, const char *fmt, ...)
{
	va_list ap;

	if (*m->want)
		return;
	va_start(ap, fmt);
	vsnprintf(m->want, sizeof(m->want), fmt, ap);
	va_end(ap);
}

/* ---- transactions ---- */

const char *mirror_text(struct mirror *m, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	const char *copy = arena_copy(&m->texts, text, strlen(text) + 1);
	return copy ? copy : "";
}

const void *mirror_key(struct mirror *m, struct arena *a, const void *key, size_t key_len,
		       size_t *len)
{
	*len = m->prefix_len + key_len;
	if (!m->prefix_len)
		return key;
	char *whole = arena_alloc(a, *len);
	if (!whole)
		return NULL;
	memcpy(whole, m->self.prefix, m->prefix_len);
	if (key_len)
		memcpy(whole + m->prefix_len, key, key_len);
	return whole;
}

enum mirror_verdict mirror_begin(struct mirror *m)
{
	struct redis_answer a;

	arena_clear(&m->texts);
	m->commands = 0;
	redis_words(m->r, "MULTI", NULL);
	FAULT_POINT("mirror.multi");
	if (redis_next(m->r, &a))
		return mirror_lost(m);
	return a.kind == REDIS_FAULT ? mirror_fault(m, &a) : MIRROR_OK;
}

void mirror_queue(struct mirror *m)
{
	redis_send(m->r);
	m->commands++;
}

void mirror_put_part(struct mirror *m, int p, int64_t at, const struct state_anchor *anchor)
{
	const struct mirror_part *part = &m->part[p];
	char text[MARK_ANCHOR_MAX];

	redis_word(m->r, mirror_text(m, "p%d", p));
	redis_word(m->r, mirror_text(m, "%" PRId64, at));
	redis_word(m->r, mirror_text(m, "t%d", p));
	redis_word(m->r, mirror_text(m, "%" PRId64 ":%" PRId64, part->caught_ms, part->caught_at));
	if (anchor->offset < 0)
		return;
	mark_anchor_format(anchor, text);
	redis_word(m->r, mirror_text(m, "a%d", p));
	redis_word(m->r, mirror_text(m, "%s", text));
}

void mirror_put_token(struct mirror *m)
{
	struct sstate_position *at = arena_alloc(&m->texts, (size_t)m->p->n * sizeof(*at));
	size_t size = (size_t)m->p->n * TOKEN_POSITION_MAX + 1;
	char *text = arena_alloc(&m->texts, size);

	/* no round is ever due here: who has one does not lead */
	for (int p = 0; at && p < m->p->n; p++)
		at[p] = (struct sstate_position){ p, m->part[p].next, 0 };
	if (!at || !text || sstate_token_format(text, size, at, (size_t)m->p->n))
		return; /* the one before is older, and so still true */
	redis_word(m->r, "token");
	redis_word(m->r, text);
}

static void ask_mark(struct mirror *m)
{
	redis_words(m->r, "WATCH", m->key, MARK_PREFIXES, NULL); /* who owns the prefix, too */
	redis_words(m->r, "HMGET", m->key, "epoch", "by", "seq", "resync", NULL);
}

/* The answers to ask_mark(): is everything as this thread has left it? */
static enum mirror_verdict take_mark(struct mirror *m)
{
	struct redis_answer a, resync;

	for (int i = 0; i < 2; i++) {
		if (redis_next(m->r, &a))
			return mirror_lost(m);
		if (a.kind == REDIS_FAULT)
			return mirror_fault(m, &a);
	}
	struct redis_answer epoch = redis_at(&a, 0), by = redis_at(&a, 1), seq = redis_at(&a, 2);
	if (!redis_is(&epoch, m->epoch_text) || !redis_is(&by, state_uuid(m->p->state)) ||
	    !redis_is(&seq, m->seq_text))
		return MIRROR_CHANGED;
	resync = redis_at(&a, 3);
	if (resync.kind == REDIS_TEXT && !m->marked) {
		mirror_want(m, "%s", resync.len ? resync.text : "asked for");
		m->marked = true;
	}
	m->looked_ms = kafka_now_ms();
	say_well(m);
	return MIRROR_OK;
}

enum mirror_verdict mirror_look(struct mirror *m)
{
	struct redis_answer a;

	redis_words(m->r, "UNWATCH", NULL);
	ask_mark(m);
	if (redis_next(m->r, &a))
		return mirror_lost(m);
	return take_mark(m);
}

/* Queued or refused: the first refusal says why EXEC will be refused too. */
static enum mirror_verdict take_queued(struct mirror *m)
{
	enum mirror_verdict v = MIRROR_OK;
	struct redis_answer a;

	for (int i = 0; i < m->commands; i++) {
		if (redis_next(m->r, &a))
			return mirror_lost(m);
		if (a.kind == REDIS_FAULT && v == MIRROR_OK)
			v = mirror_fault(m, &a);
	}
	return v;
}

/* Some commands of a transaction were carried out, another not: Redis is no fold of anything. */
static enum mirror_verdict torn(struct mirror *m, const struct redis_answer *a)
{
	char why[200];

	snprintf(why, sizeof(why), "a command failed inside a transaction: %.100s",
		 a->text ? a->text : "no answer");
	snprintf(m->owed, sizeof(m->owed), "%s", why);
	mirror_say(m, true, "SN-REDIS-TORN", "%s; comparing with the snapshot", why);
	redis_words(m->r, "HSET", m->key, "resync", why, NULL);
	redis_next(m->r, &(struct redis_answer){ 0 });
	return MIRROR_LOST;
}

static enum mirror_verdict take_exec(struct mirror *m)
{
	struct redis_answer a;

	if (redis_next(m->r, &a))
		return mirror_lost(m);
	if (a.kind == REDIS_NOTHING)
		return MIRROR_CHANGED;
	if (a.kind == REDIS_FAULT)
		return mirror_fault(m, &a);
	for (size_t i = 0; i < (size_t)m->commands; i++) {
		struct redis_answer one = redis_at(&a, i);
		if (one.kind == REDIS_FAULT || i >= a.n)
			return torn(m, &one);
	}
	return MIRROR_OK;
}

enum mirror_verdict mirror_commit(struct mirror *m)
{
	enum mirror_verdict v;

	snprintf(m->seq_text, sizeof(m->seq_text), "%s.%" PRIu64, m->epoch_text, ++m->seq);
	redis_word(m->r, "HSET");
	redis_word(m->r, m->key);
	redis_word(m->r, "seq");
	redis_word(m->r, m->seq_text);
	m->told_mark = *m->want && !m->marked;
	if (m->told_mark) {
		redis_word(m->r, "resync");
		redis_word(m->r, m->want);
	}
	mirror_queue(m);
	FAULT_POINT("mirror.exec");
	redis_words(m->r, "EXEC", NULL);
	ask_mark(m);
	v = take_queued(m);
	if (v == MIRROR_OK)
		v = take_exec(m);
	FAULT_POINT("mirror.executed");
	if (v == MIRROR_OK)
		m->marked |= m->told_mark;
	return v == MIRROR_OK ? take_mark(m) : v;
}
