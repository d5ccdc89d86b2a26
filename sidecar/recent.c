#include "recent.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_bool kept;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct recent_note *ring[RECENT_NOTES];
static uint64_t added;

void recent_keep(void) { atomic_store(&kept, true); }
bool recent_is_kept(void) { return atomic_load_explicit(&kept, memory_order_relaxed); }

void recent_forget(void)
{
	atomic_store(&kept, false);
	pthread_mutex_lock(&lock);
	for (int i = 0; i < RECENT_NOTES; i++) {
		free(ring[i]);
		ring[i] = NULL;
	}
	added = 0;
	pthread_mutex_unlock(&lock);
}

static size_t least(size_t len) { return len < RECENT_VALUE_MAX ? len : RECENT_VALUE_MAX; }

static void put(struct recent_bytes *b, char **at, const void *p, size_t kept_len, size_t whole)
{
	if (!p)
		return;
	if (kept_len)
		memcpy(*at, p, kept_len);
	*b = (struct recent_bytes){ *at, kept_len, whole };
	*at += kept_len;
}

static const void *value_of(bool has, const struct record *r)
{
	return has && !(r->flags & RECORD_TOMBSTONE) ? r->value : NULL;
}

static struct recent_note *make(const struct change *c)
{
	const void *before = value_of(c->has_before, &c->before);
	const void *after = value_of(c->has_after, &c->after);
	size_t key_len = least(c->key_len);
	size_t before_len = before ? least(c->before.value_len) : 0;
	size_t after_len = after ? least(c->after.value_len) : 0;
	struct recent_note *n = calloc(1, sizeof(*n) + key_len + before_len + after_len);
	char *at = (char *)(n + 1);

	if (!n)
		return NULL;
	n->timestamp_ms = c->has_after ? c->after.timestamp_ms : -1;
	n->partition = c->partition;
	n->offset = c->offset;
	n->op = c->op;
	n->before_unknown = c->op != CHANGE_CREATE && !c->has_before;
	put(&n->key, &at, c->key, key_len, c->key_len);
	put(&n->before, &at, before, before_len, c->before.value_len);
	put(&n->after, &at, after, after_len, c->after.value_len);
	return n;
}

void recent_add(const struct change *c, const char *cause, int64_t committed_ms)
{
	struct recent_note *n = recent_is_kept() ? make(c) : NULL;

	if (!n)
		return;
	n->cause = cause;
	n->committed_ms = committed_ms;
	pthread_mutex_lock(&lock);
	struct recent_note **place = &ring[added++ % RECENT_NOTES];
	struct recent_note *old = *place;
	*place = n;
	pthread_mutex_unlock(&lock);
	free(old);
}

static void move(struct recent_bytes *b, const struct recent_note *from, struct recent_note *to)
{
	if (b->p)
		b->p = (char *)to + ((const char *)b->p - (const char *)from);
}

static struct recent_note *copy(const struct recent_note *from)
{
	size_t bytes = sizeof(*from) + from->key.len + from->before.len + from->after.len;
	struct recent_note *n = malloc(bytes);

	if (!n)
		return NULL;
	memcpy(n, from, bytes);
	move(&n->key, from, n);
	move(&n->before, from, n);
	move(&n->after, from, n);
	return n;
}

int recent_copy(struct recent_note *out[RECENT_NOTES])
{
	int n = 0;

	pthread_mutex_lock(&lock);
	for (uint64_t i = added; i > 0 && added - i < RECENT_NOTES; i--) {
		struct recent_note *one = copy(ring[(i - 1) % RECENT_NOTES]);
		if (!one)
			break;
		out[n++] = one;
	}
	pthread_mutex_unlock(&lock);
	return n;
}

void recent_free(struct recent_note *notes[], int n)
{
	for (int i = 0; i < n; i++)
		free(notes[i]);
}
