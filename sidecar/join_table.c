#include "join_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	TEXT_BYTES = 300,
	POSITION_BYTES = 53, /* "2147483647:9223372036854775807~9223372036854775806," and more */
	STALE_TRIES = 16,
	DAMAGE_TRIES = 4, /* states in which the same is found, before damage is believed */
	SLICE_MS = 20,
};

struct table {
	struct sstate *s;
	struct sstate_snapshot *held;
	struct sstate_buf buf;
	char *token;
	size_t token_size;
	struct sstate_position *parsed;
	int64_t *positions;
	size_t n, cap;
	char topic[TEXT_BYTES], cluster[TEXT_BYTES];
};

static void read_text(struct table *t, const char *what, char *out)
{
	if (sstate_text(t->s, what, out, TEXT_BYTES))
		*out = '\0';
}

int table_open(struct table **out, const char *dir)
{
	struct table *t = calloc(1, sizeof(*t));
	int rc = t ? sstate_open(&t->s, dir) : -ENOMEM;

	if (rc) {
		free(t);
		return rc;
	}
	read_text(t, "topic", t->topic);
	read_text(t, "cluster_id", t->cluster);
	*out = t;
	return 0;
}

void table_close(struct table *t)
{
	if (!t)
		return;
	table_end(t);
	sstate_buf_free(&t->buf);
	sstate_close(t->s);
	free(t->token);
	free(t->parsed);
	free(t->positions);
	free(t);
}

void table_end(struct table *t)
{
	sstate_snapshot_end(t->held);
	t->held = NULL;
}

/* ---- the token ---- */

static int reserve(struct table *t, size_t partitions)
{
	size_t size = partitions * POSITION_BYTES + 1;

	if (partitions <= t->cap)
		return 0;
	char *token = realloc(t->token, size);
	if (token)
		t->token = token;
	struct sstate_position *parsed = realloc(t->parsed, partitions * sizeof(*parsed));
	if (parsed)
		t->parsed = parsed;
	int64_t *positions = realloc(t->positions, partitions * sizeof(*positions));
	if (positions)
		t->positions = positions;
	if (!token || !parsed || !positions)
		return -ENOMEM;
	t->token_size = size;
	t->cap = partitions;
	return 0;
}

/* Partitions are numbered from 0, without a gap. */
static int parse_token(struct table *t)
{
	int n = sstate_token_parse(t->token, t->parsed, t->cap);

	if (n < 0)
		return -EBADMSG;
	for (int i = 0; i < n; i++) {
		if (t->parsed[i].partition != i)
			return -EBADMSG;
		const struct sstate_position *p = &t->parsed[i];
		/* while a round is due, what is behind it has not been reached */
		t->positions[i] = p->due > 0 && p->due < p->offset ? p->due : p->offset;
	}
	t->n = (size_t)n;
	return 0;
}

static int read_token(struct table *t)
{
	size_t partitions = t->cap ? t->cap : 16;
	int rc;

	do {
		rc = reserve(t, partitions);
		if (!rc)
			rc = sstate_snapshot_token(t->held, t->token, t->token_size);
		partitions *= 2;
	} while (rc == -ERANGE);
	return rc ? rc : parse_token(t);
}

static int begin_once(struct table *t)
{
	table_end(t);
	int rc = sstate_snapshot_begin(&t->held, t->s);
	return rc ? rc : read_token(t);
}

/* Whether a result may be another one in a newer state; counts. */
static bool is_worth_another(int rc, int *stale, int *damaged)
{
	return (rc == SSTATE_STALE && ++*stale < STALE_TRIES) ||
	       (rc == -EBADMSG && ++*damaged < DAMAGE_TRIES);
}

int table_begin(struct table *t)
{
	int stale = 0, damaged = 0, rc;

	do
		rc = begin_once(t);
	while (is_worth_another(rc, &stale, &damaged));
	if (rc)
		table_end(t);
	return rc;
}

int table_get(struct table *t, const void *key, size_t key_len, struct sstate_record *r)
{
	int stale = 0, damaged = 0;

	for (;;) {
		int rc = sstate_snapshot_get(t->held, key, key_len, &t->buf, r);
		if (!is_worth_another(rc, &stale, &damaged))
			return rc;
		rc = table_begin(t);
		if (rc)
			return rc;
	}
}

const char *table_token(const struct table *t) { return t->token; }

const int64_t *table_positions(const struct table *t, size_t *n)
{
	*n = t->n;
	return t->positions;
}

/* ---- about it ---- */

const char *table_topic(const struct table *t) { return t->topic; }
const char *table_cluster(const struct table *t) { return t->cluster; }

int table_partitions(struct table *t)
{
	struct sstate_stat st;
	int rc = sstate_stat(t->s, &st);

	return rc ? rc : st.partitions;
}

bool table_is_ready(struct table *t, int64_t *age_ms)
{
	struct sstate_stat st;

	*age_ms = -1;
	if (sstate_stat(t->s, &st))
		return false;
	*age_ms = st.heartbeat_age_ms;
	return st.ready;
}

/* ---- waiting ---- */

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* A token of those that are wanted; NULL: out of memory. */
static char *token_of(const int64_t *want, size_t n)
{
	struct sstate_position *p = calloc(n + 1, sizeof(*p));
	char *token = malloc(n * POSITION_BYTES + 1);
	size_t wanted = 0;

	for (size_t i = 0; p && i < n; i++)
		if (want[i] > 0)
			p[wanted++] = (struct sstate_position){ (int32_t)i, want[i], 0 };
	if (!p || !token || sstate_token_format(token, n * POSITION_BYTES + 1, p, wanted)) {
		free(token);
		token = NULL;
	}
	free(p);
	return token;
}

bool table_wait(struct table *t, const int64_t *want, size_t n, int64_t ms,
		bool (*stopping)(void *), void *opaque)
{
	int64_t until = now_ms() + ms;
	char *token = token_of(want, n);
	int rc = token ? -ETIMEDOUT : -ENOMEM;

	while (rc == -ETIMEDOUT && !stopping(opaque)) {
		int64_t left = until - now_ms();
		rc = sstate_wait(t->s, token, left < 0 ? 0 : left < SLICE_MS ? left : SLICE_MS);
		if (left <= 0)
			break;
	}
	free(token);
	return rc == 0;
}
