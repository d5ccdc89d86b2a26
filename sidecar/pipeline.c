#include "pipeline.h"
#include "log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int pipeline_init(struct pipeline *p, const struct config *c, int n)
{
	pthread_condattr_t monotonic;

	memset(p, 0, sizeof(*p));
	p->config = c;
	p->n = n;
	p->publishing = c->notifications_topic[0];
	p->part = calloc((size_t)n, sizeof(*p->part));
	p->gone = calloc((size_t)n, sizeof(*p->gone));
	if (!p->part || !p->gone) {
		free(p->part);
		free(p->gone);
		p->part = NULL;
		return -ENOMEM;
	}
	for (int i = 0; i < n; i++)
		p->part[i] = (struct standing){ .published = { -1, 0 }, .gap_until = -1 };
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&p->wake, &monotonic);
	pthread_cond_init(&p->ended, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pipeline_role(p, "starting");
	return 0;
}

void pipeline_free(struct pipeline *p)
{
	if (!p->part)
		return;
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->wake);
	pthread_cond_destroy(&p->ended);
	free(p->part);
	free(p->gone);
	p->part = NULL;
}

void pipeline_end(struct pipeline *p, enum outcome o, const char *id, const char *fmt, ...)
{
	int running = RUNNING;

	if (!atomic_compare_exchange_strong(&p->outcome, &running, o))
		return; /* the first reason is the reason */
	if (fmt) {
		char text[1200];
		va_list ap;
		va_start(ap, fmt);
		vsnprintf(text, sizeof(text), fmt, ap);
		va_end(ap);
		if (o <= OUTCOME_SWITCH)
			log_info(id, "%s", text);
		else
			log_error(id, "%s", text);
	}
	pipeline_wake(p);
	pthread_mutex_lock(&p->lock);
	pthread_cond_broadcast(&p->ended);
	pthread_mutex_unlock(&p->lock);
}

void pipeline_offsets_lost(struct pipeline *p, int part)
{
	pipeline_end(p, OUTCOME_BROKEN, "SN-OFFSETS-LOST",
		     "group sidenote.%s has no committed offset for %s [%d] any more, and had one: "
		     "topic recreated, group expired or reset; to start as new, remove the state "
		     "directory; to go on, set the group's offsets with kafka-consumer-groups.sh "
		     "--reset-offsets",
		     p->config->name, p->config->source_topic, part);
}

void pipeline_offsets_back(struct pipeline *p, int part, int64_t from, int64_t to)
{
	pipeline_end(p, OUTCOME_BROKEN, "SN-OFFSETS-BACK",
		     "group sidenote.%s: the committed offset of %s [%d] went back from %" PRId64
		     " to %" PRId64 "; to go on, set it to the former with "
		     "kafka-consumer-groups.sh --reset-offsets; to publish anew what follows the "
		     "latter, remove the state directory",
		     p->config->name, p->config->source_topic, part, from, to);
}

void pipeline_holes_name(char name[HOLES_NAME_MAX], int part)
{
	snprintf(name, HOLES_NAME_MAX, "holes/%010d", part);
}

void pipeline_standings(struct pipeline *p, struct standing *out)
{
	pthread_mutex_lock(&p->lock);
	memcpy(out, p->part, (size_t)p->n * sizeof(*out));
	pthread_mutex_unlock(&p->lock);
}

void pipeline_applied(struct pipeline *p, const struct state_partition *rows, const bool *caught_up,
		      bool waits)
{
	bool all = true;

	pthread_mutex_lock(&p->lock);
	for (int i = 0; i < p->n; i++) {
		struct standing *s = &p->part[i];
		s->applied = rows[i].applied;
		s->start = rows[i].start;
		s->whole = rows[i].whole;
		s->base = (struct position){ rows[i].base, rows[i].base_n };
		s->was_published |= rows[i].published >= 0;
		s->seen = rows[i].published;
		s->due = rows[i].due >= 0;
		s->caught_up = caught_up[i];
		s->waits = waits;
		all &= caught_up[i];
	}
	p->caught_up = all;
	p->commits++;
	pthread_cond_broadcast(&p->wake);
	pthread_mutex_unlock(&p->lock);
}

void pipeline_published(struct pipeline *p, int part, struct position at, const char *by,
			int64_t gap_until)
{
	pthread_mutex_lock(&p->lock);
	struct standing *s = &p->part[part];
	s->published = at;
	s->was_published |= at.offset >= 0; /* in meta with the next batch */
	snprintf(s->by, sizeof(s->by), "%s", by);
	s->gap_until = gap_until;
	pthread_mutex_unlock(&p->lock);
}

void pipeline_cursor(struct pipeline *p, int part, int64_t cursor)
{
	pthread_mutex_lock(&p->lock);
	if (cursor > p->part[part].cursor)
		p->part[part].cursor = cursor;
	pthread_mutex_unlock(&p->lock);
}

void pipeline_gone_forget(struct pipeline *p)
{
	pthread_mutex_lock(&p->lock);
	memset(p->gone, 0, (size_t)p->n * sizeof(*p->gone));
	atomic_fetch_add(&p->forgotten, 1);
	pthread_mutex_unlock(&p->lock);
}

void pipeline_gone(struct pipeline *p, int part, const struct gone *g, unsigned forgotten)
{
	pthread_mutex_lock(&p->lock);
	if (atomic_load(&p->forgotten) == forgotten)
		p->gone[part] = *g;
	pthread_mutex_unlock(&p->lock);
	pipeline_wake(p);
}

struct gone pipeline_gone_get(struct pipeline *p, int part)
{
	pthread_mutex_lock(&p->lock);
	struct gone g = p->gone[part];
	pthread_mutex_unlock(&p->lock);
	return g;
}

void pipeline_role(struct pipeline *p, const char *text)
{
	pthread_mutex_lock(&p->lock);
	snprintf(p->role, sizeof(p->role), "%s", text);
	pthread_mutex_unlock(&p->lock);
}

static struct timespec in_ms(int64_t ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += ms % 1000 * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

void pipeline_wait(struct pipeline *p, uint64_t *seen, int64_t ms)
{
	struct timespec until = in_ms(ms);

	pthread_mutex_lock(&p->lock);
	while (p->commits == *seen && !pipeline_stopping(p))
		if (pthread_cond_timedwait(&p->wake, &p->lock, &until))
			break;
	*seen = p->commits;
	pthread_mutex_unlock(&p->lock);
}

void pipeline_wait_end(struct pipeline *p, int64_t ms)
{
	struct timespec until = in_ms(ms);

	pthread_mutex_lock(&p->lock);
	while (!pipeline_stopping(p))
		if (pthread_cond_timedwait(&p->ended, &p->lock, &until))
			break;
	pthread_mutex_unlock(&p->lock);
}

void pipeline_wake(struct pipeline *p)
{
	pthread_mutex_lock(&p->lock);
	p->commits++;
	pthread_cond_broadcast(&p->wake);
	pthread_mutex_unlock(&p->lock);
}
