/*
 * scan.c - a walk over keys that outlives any lease.
 *
 * It reads on in one transaction for half a lease, then begins another and seeks
 * the key after the last one it gave.  The other half is what the last step may
 * take.  A step whose transaction turns out not to be valid is taken again.
 */
#include "reader.h"

#include "codes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sstate_scan {
	struct sstate *s;
	struct reading r; /* r.txn NULL: to begin anew */
	MDB_cursor *cursor;
	bool positioned;       /* the cursor stands on a key that was seen; else seek */
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
	if (c->cursor)
		mdb_cursor_close(c->cursor);
	c->cursor = NULL;
	c->positioned = false;
	reading_end(&c->r);
	source_put(c->r.source);
	c->r.source = NULL;
}

static int start(struct sstate_scan *c)
{
	int rc = reading_begin(&c->r, source_get(c->s), true);
	if (!rc)
		rc = code_from_mdb(mdb_cursor_open(c->r.txn, c->r.source->records, &c->cursor));
	if (rc)
		rest(c);
	return rc;
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

static int seek(struct sstate_scan *c, MDB_val *k, MDB_val *v)
{
	if (c->positioned)
		return mdb_cursor_get(c->cursor, k, v, MDB_NEXT);
	if (!c->from_len)
		return mdb_cursor_get(c->cursor, k, v, MDB_FIRST);
	*k = (MDB_val){ .mv_size = c->from_len, .mv_data = c->from };
	int rc = mdb_cursor_get(c->cursor, k, v, MDB_SET_RANGE);
	if (rc == 0 && c->given && k->mv_size == c->from_len &&
	    memcmp(k->mv_data, c->from, c->from_len) == 0)
		rc = mdb_cursor_get(c->cursor, k, v, MDB_NEXT);
	return rc;
}

/* Remember where to go on; k is what was looked at. */
static void advance(struct sstate_scan *c, const void *k, size_t len)
{
	memcpy(c->from, k, len);
	c->from_len = len;
	c->given = true;
}

struct step {
	struct sstate_scan *scan;
	struct sstate_record found;
	size_t skey_len; /* of the stored key, which is at the start of the buffer */
};

/* The next key in `records`; whether it has the whole prefix is asked afterwards. */
static int step(struct reading *r, void *arg)
{
	struct step *p = arg;
	struct sstate_scan *c = p->scan;
	MDB_val k, v;
	int rc = seek(c, &k, &v);
	if (rc)
		return code_from_mdb(rc);
	c->positioned = true;
	size_t shared = c->prefix_len < KEY_VERBATIM_MAX ? c->prefix_len : KEY_VERBATIM_MAX;
	if (k.mv_size > KEY_STORED_MAX)
		return -EBADMSG;
	if (!has_prefix(k.mv_data, k.mv_size, c->prefix, shared))
		return -ENOENT;
	p->skey_len = k.mv_size;
	return reading_copy(r, &k, &v, &c->buf, &p->found);
}

/* A step whose outcome is right: 0, -ENOENT or an error. */
static int valid_step(struct sstate_scan *c, struct step *p)
{
	for (int i = 0, damaged = 0; i < READ_TRIES; i++) {
		if (c->r.txn && is_old(c))
			rest(c);
		int rc = c->r.txn ? 0 : start(c);
		if (rc)
			return rc;
		rc = reading_guarded(&c->r, step, p);
		if (reading_valid(&c->r) && !(rc == -EBADMSG && ++damaged < DAMAGE_TRIES))
			return rc;
		rest(c);
	}
	return SSTATE_STALE;
}

int sstate_scan_next(struct sstate_scan *c, struct sstate_record *r)
{
	struct step p = { .scan = c };
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
