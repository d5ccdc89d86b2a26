/*
 * scan.c - a walk over keys that outlives any lease.
 *
 * It reads on in one commit for half a lease, then takes the newest and seeks
 * the key after the last one it gave.  The other half is what the last step may
 * take.  A step that turns out not to be valid is taken again.
 */
#include "reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sstate_scan {
	struct sstate *s;
	struct reading r; /* r.source NULL: to begin anew */
	struct tree records;
	struct walk walk;
	bool positioned;       /* the walk stands on a key that was seen; else seek */
	struct sstate_buf buf; /* the record given last */
	size_t prefix_len;
	void *prefix;
	/* seek the first stored key that is not below this, and is not this if `given` */
	bool given;
	size_t from_len;
	uint8_t from[KEY_STORED_MAX];
};

static void rest(struct sstate_scan *c)
{
	c->positioned = false;
	source_put(c->r.source);
	c->r.source = NULL;
}

static int start(struct sstate_scan *c)
{
	int rc = reading_begin(&c->r, source_get(c->s), true);
	return rc ? rc : tree_open(&c->records, &c->r.source->pages, &c->r.commit, "records");
}

static bool is_old(const struct sstate_scan *c)
{
	return reader_clock_ns() - c->r.began_ns >= c->r.source->lease_ns / 2;
}

int sstate_scan_begin(struct sstate_scan **out, struct sstate *s, const void *prefix,
		      size_t prefix_len)
{
	struct sstate_scan *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->s = s;
	c->prefix_len = prefix_len;
	c->prefix = malloc(prefix_len ? prefix_len : 1);
	if (!c->prefix) {
		free(c);
		return -ENOMEM;
	}
	if (prefix_len)
		memcpy(c->prefix, prefix, prefix_len);
	/* keys are stored verbatim up to here; what lies behind is compared in the record */
	c->from_len = prefix_len < KEY_VERBATIM_MAX ? prefix_len : KEY_VERBATIM_MAX;
	memcpy(c->from, c->prefix, c->from_len);
	*out = c;
	return 0;
}

void sstate_scan_end(struct sstate_scan *c)
{
	if (!c)
		return;
	rest(c);
	sstate_buf_free(&c->buf);
	free(c->prefix);
	free(c);
}

/* ---- one step ---- */

static bool has_prefix(const void *key, size_t key_len, const void *prefix, size_t prefix_len)
{
	return key_len >= prefix_len && memcmp(key, prefix, prefix_len) == 0;
}

static int seek(struct sstate_scan *c, struct span *k, struct span *v)
{
	struct span from = { c->from, c->from_len };
	int rc = c->positioned ? walk_next(&c->walk)
			       : walk_seek(&c->walk, &c->r.source->pages, &c->r.commit, &c->records,
					   from);
	if (!rc)
		rc = walk_entry(&c->walk, k, v);
	if (rc || c->positioned || !c->given)
		return rc;
	if (k->len != from.len || memcmp(k->p, from.p, from.len) != 0)
		return 0;
	rc = walk_next(&c->walk); /* it was given already */
	return rc ? rc : walk_entry(&c->walk, k, v);
}

static bool is_ahead(const struct sstate_scan *c, struct span k)
{
	size_t shared = k.len < c->from_len ? k.len : c->from_len;
	int rc = memcmp(k.p, c->from, shared);
	return rc > 0 || (rc == 0 && (c->given ? k.len > c->from_len : k.len >= c->from_len));
}

/* Remember where to go on; k is what was looked at. */
static void advance(struct sstate_scan *c, const void *k, size_t len)
{
	memcpy(c->from, k, len);
	c->from_len = len;
	c->given = true;
}

struct step {
	struct sstate_record found;
	size_t skey_len; /* of the stored key, which is at the start of the buffer */
};

/* The next key in `records`; whether it has the whole prefix is asked afterwards. */
static int step(struct sstate_scan *c, struct step *p)
{
	struct span k, v;
	int rc = seek(c, &k, &v);
	if (rc)
		return rc;
	if (!is_ahead(c, k))
		return -EBADMSG; /* pages that lead in a circle must not keep us for ever */
	c->positioned = true;
	size_t shared = c->prefix_len < KEY_VERBATIM_MAX ? c->prefix_len : KEY_VERBATIM_MAX;
	if (k.len > KEY_STORED_MAX)
		return -EBADMSG;
	if (!has_prefix(k.p, k.len, c->prefix, shared))
		return -ENOENT;
	p->skey_len = k.len;
	return reading_copy(&c->r, k, v, &c->buf, &p->found);
}

/* A step whose outcome is right: 0, -ENOENT or an error. */
static int valid_step(struct sstate_scan *c, struct step *p)
{
	for (int i = 0, damaged = 0; i < READ_TRIES; i++) {
		if (c->r.source && is_old(c))
			rest(c);
		int rc = c->r.source ? 0 : start(c);
		if (!rc)
			rc = step(c, p);
		if (reading_valid(&c->r) && !(rc == -EBADMSG && ++damaged < DAMAGE_TRIES))
			return rc;
		rest(c);
	}
	return SSTATE_STALE;
}

int sstate_scan_next(struct sstate_scan *c, struct sstate_record *r)
{
	struct step p;
	int rc;
	do {
		rc = valid_step(c, &p);
		if (rc)
			return rc;
		advance(c, c->buf.mem, p.skey_len);
		/* the empty key, and keys longer than their stored form, may differ behind it */
	} while (!has_prefix(p.found.key, p.found.key_len, c->prefix, c->prefix_len));
	*r = p.found;
	return 0;
}
