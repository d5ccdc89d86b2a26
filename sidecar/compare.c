#include "compare.h"

#include "bits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A key in doubt.  Chained by hash. */
struct doubt {
	struct doubt *next;
	uint64_t hash;
	struct difference d; /* its key is behind the struct */
	bool holds;          /* the second time: it does */
};

struct compare {
	struct sstate *s;
	struct compare_options o;
	struct bits *stored; /* [n]: records of the log that the snapshot has */
	struct sstate_buf buf;
	struct doubt **buckets;
	size_t n_buckets, n_doubts, bytes;
	uint64_t first, last; /* the hashes of the keys that are compared now */
	bool again;
	uint64_t keys;
};

int compare_open(struct compare **out, struct sstate *s, const struct compare_options *o)
{
	struct compare *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->s = s;
	c->o = *o;
	c->last = UINT64_MAX;
	c->n_buckets = 1024;
	c->stored = calloc((size_t)o->partitions + 1, sizeof(*c->stored));
	c->buckets = calloc(c->n_buckets, sizeof(*c->buckets));
	if (!c->stored || !c->buckets) {
		compare_close(c);
		return -ENOMEM;
	}
	*out = c;
	return 0;
}

static void clear_bits(struct compare *c)
{
	for (int p = 0; c->stored && p < c->o.partitions; p++)
		bits_free(&c->stored[p]);
}

/* ---- doubts ---- */

static size_t doubt_bytes(size_t key_len) { return sizeof(struct doubt) + key_len + 16; }

static struct doubt **bucket(const struct compare *c, uint64_t hash)
{
	return &c->buckets[hash % c->n_buckets];
}

static struct doubt *find(const struct compare *c, uint64_t hash, const void *key, size_t len)
{
	for (struct doubt *d = *bucket(c, hash); d; d = d->next)
		if (d->hash == hash && d->d.key_len == len && !memcmp(d->d.key, key, len))
			return d;
	return NULL;
}

static void unlink_doubt(struct compare *c, struct doubt **at)
{
	struct doubt *d = *at;

	*at = d->next;
	c->n_doubts--;
	c->bytes -= doubt_bytes(d->d.key_len);
	free(d);
}

static void remove_doubt(struct compare *c, const struct doubt *d)
{
	struct doubt **at = bucket(c, d->hash);

	while (*at != d)
		at = &(*at)->next;
	unlink_doubt(c, at);
}

/* Calls `drop` for every doubt; those for which it is true go. */
static void sift(struct compare *c, bool (*drop)(const struct compare *c, const struct doubt *d))
{
	for (size_t i = 0; i < c->n_buckets; i++)
		for (struct doubt **at = &c->buckets[i]; *at;) {
			if (drop(c, *at))
				unlink_doubt(c, at);
			else
				at = &(*at)->next;
		}
}

static bool any(const struct compare *c, const struct doubt *d)
{
	(void)c, (void)d;
	return true;
}

static bool is_outside(const struct compare *c, const struct doubt *d)
{
	return d->hash < c->first || d->hash > c->last;
}

void compare_close(struct compare *c)
{
	if (!c)
		return;
	clear_bits(c);
	if (c->buckets)
		sift(c, any);
	sstate_buf_free(&c->buf);
	free(c->stored);
	free(c->buckets);
	free(c);
}

static int grow(struct compare *c)
{
	size_t n = c->n_buckets * 2, old = c->n_buckets;
	struct doubt **from = c->buckets, **to = calloc(n, sizeof(*to));

	if (!to)
		return -ENOMEM;
	c->buckets = to;
	c->n_buckets = n;
	for (size_t i = 0; i < old; i++)
		for (struct doubt *d = from[i], *next; d; d = next) {
			struct doubt **at = bucket(c, d->hash);

			next = d->next;
			d->next = *at;
			*at = d;
		}
	free(from);
	return 0;
}

/* Fewer keys at a time, so that the doubts fit; the others' turn comes later. */
static void narrow(struct compare *c)
{
	while (c->bytes > c->o.memory && c->first < c->last) {
		c->last = c->first + (c->last - c->first) / 2;
		sift(c, is_outside);
	}
}

static int add_doubt(struct compare *c, uint64_t hash, const struct difference *d)
{
	struct doubt *new, **at;

	if (c->n_doubts >= c->n_buckets && grow(c))
		return -ENOMEM;
	new = malloc(sizeof(*new) + d->key_len);
	if (!new)
		return -ENOMEM;
	at = bucket(c, hash);
	*new = (struct doubt){ .next = *at, .hash = hash, .d = *d };
	if (d->key_len)
		memcpy(new + 1, d->key, d->key_len);
	new->d.key = new + 1;
	*at = new;
	c->n_doubts++;
	c->bytes += doubt_bytes(d->key_len);
	narrow(c);
	return 0;
}

/* The first time doubts come and go; the second time they hold or not. */
static int conclude(struct compare *c, uint64_t hash, const struct difference *d, bool fits)
{
	struct doubt *was = find(c, hash, d->key, d->key_len);

	if (was && fits && !c->again) {
		remove_doubt(c, was);
	} else if (was) {
		const void *key = was->d.key;

		was->d = *d;
		was->d.key = key;
		was->holds = !fits;
	} else if (!fits && !c->again) {
		return add_doubt(c, hash, d);
	}
	return 0;
}

/* ---- the log ---- */

static bool same_bytes(const struct record *r, const struct sstate_record *s)
{
	return r->value && r->value_len == s->value_len && r->timestamp_ms == s->timestamp_ms &&
	       !memcmp(r->value, s->value, s->value_len);
}

static bool stored_wins(const struct sstate_record *s, const struct record *r)
{
	return s->timestamp_ms != r->timestamp_ms ? s->timestamp_ms > r->timestamp_ms
						  : s->partition > r->partition;
}

/* Whether what is stored fits to record r of the log; if not, d->kind tells why. */
static bool fits(const struct compare *c, const struct record *r, const struct sstate_record *s,
		 struct difference *d)
{
	if (s->partition != r->partition) {
		d->kind = DIFFERENCE_PARTITION;
		return c->o.moved_by_time && stored_wins(s, r);
	}
	if (s->offset != r->offset) {
		d->kind = r->value ? DIFFERENCE_OLD : DIFFERENCE_EXTRA;
		return s->offset > r->offset;
	}
	d->kind = DIFFERENCE_VALUE;
	return same_bytes(r, s);
}

static struct difference difference_of(const struct batch_record *r)
{
	return (struct difference){ .kind = DIFFERENCE_MISSING,
				    .key = r->key,
				    .key_len = r->key_len,
				    .partition = r->rec.partition,
				    .offset = r->rec.offset,
				    .stored_partition = -1,
				    .stored_offset = -1 };
}

static void set_stored(struct difference *d, const struct sstate_record *s)
{
	d->stored_partition = s->partition;
	d->stored_offset = s->offset;
}

int compare_record(struct compare *c, const struct batch_record *r)
{
	uint64_t hash = record_hash(r->key, r->key_len);
	struct difference d = difference_of(r);
	struct sstate_record s;
	int rc;

	if (hash < c->first || hash > c->last)
		return 0;
	if (c->again && !find(c, hash, r->key, r->key_len))
		return 0;
	rc = sstate_get(c->s, r->key, r->key_len, &c->buf, &s);
	if (rc == -ENOENT)
		return conclude(c, hash, &d, !r->rec.value);
	if (rc)
		return rc;
	set_stored(&d, &s);
	if (s.partition == r->rec.partition && s.offset == r->rec.offset) {
		rc = bits_set(&c->stored[s.partition], s.offset);
		if (rc)
			return rc;
	}
	return conclude(c, hash, &d, fits(c, &r->rec, &s, &d));
}

void compare_later(struct compare *c, const struct batch_record *r, const int64_t *applied)
{
	struct doubt *d = find(c, record_hash(r->key, r->key_len), r->key, r->key_len);

	if (!d || (d->d.kind != DIFFERENCE_GONE && r->rec.offset >= applied[r->rec.partition]))
		return;
	if (c->again)
		d->holds = false;
	else
		remove_doubt(c, d);
}

/* ---- the snapshot ---- */

/* Whether the log had the stored record, or need not have it. */
static bool was_seen(const struct compare *c, const struct sstate_record *s, const int64_t *below,
		     const int64_t *log_start)
{
	if (s->partition < 0 || s->partition >= c->o.partitions)
		return false;
	if (s->offset >= below[s->partition])
		return true; /* newer than what was read */
	if (c->o.expiring && s->offset < log_start[s->partition])
		return true;
	return bits_get(&c->stored[s->partition], s->offset);
}

static struct difference gone(const struct sstate_record *s)
{
	struct difference d = { .kind = DIFFERENCE_GONE,
				.key = s->key,
				.key_len = s->key_len,
				.partition = -1,
				.offset = -1 };

	set_stored(&d, s);
	return d;
}

static int walk_all(struct compare *c, const int64_t *below, const int64_t *log_start)
{
	struct sstate_scan *scan;
	struct sstate_record s;
	int rc = sstate_scan_begin(&scan, c->s, NULL, 0);

	if (rc)
		return rc;
	while (!(rc = sstate_scan_next(scan, &s))) {
		uint64_t hash = record_hash(s.key, s.key_len);

		c->keys += c->first == 0; /* once, however many parts there are */
		if (hash < c->first || hash > c->last)
			continue;
		if (!was_seen(c, &s, below, log_start) && !find(c, hash, s.key, s.key_len)) {
			struct difference d = gone(&s);

			if ((rc = add_doubt(c, hash, &d)))
				break;
		}
	}
	sstate_scan_end(scan);
	return rc == -ENOENT ? 0 : rc;
}

/* What is stored now, of one key in doubt: it may have changed since its record was read. */
static int look_again(struct compare *c, struct doubt *d, const int64_t *below,
		      const int64_t *log_start)
{
	struct sstate_record s;
	int rc = sstate_get(c->s, d->d.key, d->d.key_len, &c->buf, &s);

	if (rc == -ENOENT) {
		d->holds = d->holds && d->d.stored_offset < 0;
		return 0;
	}
	if (rc)
		return rc;
	if (d->holds) {
		d->holds = s.offset == d->d.stored_offset && s.partition == d->d.stored_partition;
	} else if (!was_seen(c, &s, below, log_start)) {
		const void *key = d->d.key;

		d->d = gone(&s);
		d->d.key = key;
		d->holds = true;
	}
	return 0;
}

int compare_walk(struct compare *c, const int64_t *below, const int64_t *log_start)
{
	int rc = 0;

	if (!c->again)
		return walk_all(c, below, log_start);
	for (size_t i = 0; i < c->n_buckets; i++)
		for (struct doubt *d = c->buckets[i]; d && !rc; d = d->next)
			rc = look_again(c, d, below, log_start);
	return rc;
}

/* ---- the steps ---- */

size_t compare_doubts(const struct compare *c) { return c->n_doubts; }

uint64_t compare_keys(const struct compare *c) { return c->keys; }

void compare_again(struct compare *c)
{
	for (size_t i = 0; i < c->n_buckets; i++)
		for (struct doubt *d = c->buckets[i]; d; d = d->next)
			d->holds = false;
	clear_bits(c);
	c->again = true;
}

void compare_report(const struct compare *c, void (*each)(void *opaque, const struct difference *d),
		    void *opaque)
{
	for (size_t i = 0; i < c->n_buckets; i++)
		for (struct doubt *d = c->buckets[i]; d; d = d->next)
			if (d->holds)
				each(opaque, &d->d);
}

bool compare_next(struct compare *c)
{
	sift(c, any);
	clear_bits(c);
	c->again = false;
	if (c->last == UINT64_MAX)
		return false;
	c->first = c->last + 1;
	c->last = UINT64_MAX;
	return true;
}
