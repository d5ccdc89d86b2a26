#include "publish.h"
#include "batch.h"
#include "envelope.h"
#include "escape.h"
#include "fault.h"
#include "log.h"
#include "metrics.h"
#include "probe.h"
#include "recent.h"
#include "told.h"
#include "txn.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	ENTRIES_MAX = 10000,     /* of one transaction */
	ENTRIES_BYTES = 8 << 20, /* the same, in bytes of the journal */
	OFFSETS_ONLY_MS = 1000,  /* at most this often without notifications */
	COMMITTED_MS = 5000,
	BACKOFF_MS = 200,
	DENIED_MS = 5000,
	SAY_MS = 10000, /* between lines about the same trouble */
	NO_ROOM_SAY_MS = 60000,
	DENIED_SAY_MS = 60000,
	INIT_MS = 5000,          /* an init that takes longer is trouble */
	RESUME_MS = 10000,       /* later than this nobody resumes: meanwhile a round may be due */
	LEAST_BYTES = 4096,      /* more than a notification takes beside its key */
	REQUEST_BYTES = 1000000, /* librdkafka's batch.size */
	/* of librdkafka's message.max.bytes */
	MESSAGE_BYTES_MIN = 1000,
	MESSAGE_BYTES_MAX = 1000000000,
};

/* Of a transaction (enum txn_verdict), and two of our own. */
enum {
	PUB_NO_ROOM = TXN_REFUSED + 1, /* a key alone is larger than the notification topic takes */
	PUB_YIELD, /* what is committed says that this state must not publish: end */
};

struct entry { /* a journal entry, copied out of its view */
	const void *key, *value;
	size_t value_len;
	bool gap;
	int64_t reached;   /* from this position on a state has the change */
	enum change_op op; /* from here on known once it was produced */
	enum change_cause cause;
	int64_t timestamp_ms; /* of the source record; -1: none */
	enum { CHANGED, GONE, EXPIRED } what;
	struct note_gone gone; /* of a superseded pair */
	const void *after;     /* its new value */
	size_t after_len;
	bool after_omitted; /* of which only length and digest are left */
};

struct publisher {
	struct pipeline *p;
	rd_kafka_t *query;
	struct txn txn;
	rd_kafka_consumer_group_metadata_t *group;
	bool resumes; /* as no member of the group */
	struct envelope envelope;
	struct note_filter filter;
	const char *self;
	size_t max_bytes, limit_seen; /* believed, and as last read of the topic */

	/* [n] each: where the journal is read next, before and after this transaction.  Their n
	 * counts entries of this journal; what is committed counts notifications, by whomever */
	struct position *at, *next;
	uint32_t *told, *next_told; /* [n]: notified at exactly at.offset, next.offset */
	struct position *committed; /* [n]: as last known */
	struct told **told_before;  /* [n]: what was told, by whoever led before ... */
	int64_t *told_since;        /* [n]: ... of records from here on; INT64_MAX: unknown */
	int lacks;                  /* a partition where more of that has to be known; -1: none */
	int64_t lacks_since;
	int64_t *gap_until;            /* [n] */
	bool *own;                     /* [n]: what is committed is of this state, or nothing is */
	bool *moved;                   /* [n]: goes into this commit */
	size_t *given;                 /* [n]: bytes given to librdkafka since it was flushed */
	bool all_offsets;              /* the next commit names every partition */
	bool compacted;                /* physical compaction is notified, too */
	int64_t *cursor, *next_cursor; /* [n]: every pair superseded below is told */
	int64_t excess;                /* how many pairs wait that should not any more */

	struct arena arena;
	struct entry *entries;
	size_t n_entries, bytes;
	uint64_t txnid;
	uint64_t notes;   /* produced in this transaction */
	uint64_t skipped; /* entries passed since the last commit without a notification */
	int64_t last_commit_ms;
	uint64_t seen;
	int first;             /* partition to begin with: each gets its turn */
	int64_t denied_ms;     /* when a right was last said to be missing; 0: none is */
	int64_t failing_ms;    /* since when publishing fails; 0: it does not */
	int64_t said_ms;       /* when publishing was last said to fail; 0: it does not */
	int64_t no_room_ms;    /* the same, of a key that does not fit */
	int64_t opened_ms;     /* when the current producer began to be made */
	atomic_llong asked_ms; /* a question to the broker, beside those of txn; 0: none */

	pthread_t thread;
	atomic_bool stop, ended;
};

static bool stopping(const struct publisher *pub)
{
	return atomic_load(&pub->stop) || pipeline_stopping(pub->p);
}

static bool is_stopping(void *opaque) { return stopping(opaque); }

int64_t publish_call_ms(const struct publisher *pub)
{
	int64_t asked = atomic_load(&pub->asked_ms), of_txn = txn_call_ms(&pub->txn);
	int64_t of_question = asked ? kafka_now_ms() - asked : 0;

	return of_txn > of_question ? of_txn : of_question;
}

bool publish_ended(const struct publisher *pub) { return atomic_load(&pub->ended); }

static void say_failing(struct publisher *pub)
{
	int64_t now = kafka_now_ms();

	if (!pub->failing_ms)
		pub->failing_ms = now;
	/* a wrong state is what another error leads to, which one of the next tries meets */
	if (pub->txn.code == RD_KAFKA_RESP_ERR__STATE && now - pub->failing_ms < SAY_MS)
		return;
	if (pub->denied_ms && now - pub->denied_ms < DENIED_SAY_MS)
		return;
	if (stopping(pub) || (pub->said_ms && now - pub->said_ms < SAY_MS))
		return;
	pub->said_ms = now;
	log_warn("SN-PUBLISH-FAILING", "publishing to %s: %s; trying again, nothing is lost",
		 pub->p->config->notifications_topic, pub->txn.why);
}

static void say_denied(struct publisher *pub)
{
	const struct config *c = pub->p->config;
	int64_t now = kafka_now_ms();
	char name[300], right[600];

	if (stopping(pub) || (pub->denied_ms && now - pub->denied_ms < DENIED_SAY_MS))
		return;
	kafka_group_id(c, name, sizeof(name));
	/* to read the source and to be in the group: who does so all the time says it */
	if (!txn_missing_right(&pub->txn, c->notifications_topic, c->compacted_topic, name, right,
			       sizeof(right)))
		return;
	pub->denied_ms = now;
	log_error("SN-PUBLISH-DENIED",
		  "nothing can be published: grant %s (`sidenote check --acls`); trying again",
		  right);
}

/* ---- collecting: from the journal into the arena ---- */

/* `applied`: of the state that the entry is read from.  Where in the log the delete of a gone key
 * was nobody knows, but this state has it, and the entry says since where. */
static int copy_entry(struct publisher *pub, const struct change *c, int p, int64_t applied)
{
	struct entry *e = &pub->entries[pub->n_entries];
	uint8_t key[JOURNAL_KEY_BYTES];

	*e = (struct entry){ .what = CHANGED };
	change_key_encode(key, c->partition, c->offset, c->n);
	e->key = arena_copy(&pub->arena, key, sizeof(key));
	e->value = arena_copy(&pub->arena, c->bytes, c->bytes_len);
	if (!e->key || !e->value)
		return -ENOMEM;
	e->value_len = c->bytes_len;
	e->gap = c->offset < pub->gap_until[p];
	e->reached = c->cause != CAUSE_RECONCILE ? c->offset + 1
		     : c->has_after              ? c->after.offset
						 : applied;
	pub->n_entries++;
	pub->bytes += c->bytes_len;
	return 0;
}

static bool full(const struct publisher *pub)
{
	return pub->n_entries >= ENTRIES_MAX || pub->bytes >= ENTRIES_BYTES ||
	       pub->skipped >= 10 * ENTRIES_MAX;
}

/* A gone key that another leader, or this one before a crash, has told already. */
static bool told_already(const struct publisher *pub, const struct change *c, int p)
{
	return c->cause == CAUSE_RECONCILE && c->has_before &&
	       told_last(pub->told_before[p], c->key, c->key_len, c->before.offset);
}

/* Whether that is not known yet; then what has to be read back for this entry and those after it. */
static int lacks_told(struct publisher *pub, struct state_view *v, struct change *c, int p)
{
	int rc = 0;

	if (c->cause != CAUSE_RECONCILE || !c->has_before || c->before.offset >= pub->told_since[p])
		return 0;
	pub->lacks = p;
	pub->lacks_since = c->before.offset;
	while (!rc && c->cause == CAUSE_RECONCILE) {
		if (c->has_before && c->before.offset < pub->lacks_since)
			pub->lacks_since = c->before.offset;
		rc = state_view_journal_next(v, c);
	}
	return rc && rc != -ENOENT ? rc : 1;
}

static int take_entry(struct publisher *pub, const struct change *c, int p, int64_t applied)
{
	struct position after = position_after(c->offset, c->n);
	bool tell = !told_already(pub, c, p) &&
		    decide_notify(c, c->offset < pub->gap_until[p], &pub->filter);
	int rc = tell ? copy_entry(pub, c, p, applied) : 0;

	if (rc)
		return rc;
	if (after.offset != pub->next[p].offset)
		pub->next_told[p] = 0;
	if (tell && c->n != CHANGE_N_LOG)
		pub->next_told[p]++;
	else if (!tell)
		pub->skipped++;
	pub->next[p] = after;
	return 0;
}

/* ---- superseded pairs that are gone ---- */

static int copy_version(struct publisher *pub, struct state_view *v, const struct change *c,
			struct entry *e)
{
	uint8_t skey[KEY_STORED_MAX];
	size_t skey_len = record_stored_key(skey, c->key, c->key_len);
	struct record r;
	int rc;

	if (c->op == CHANGE_DELETE)
		return 0;
	rc = skey_len ? state_view_version(v, c->partition, c->offset, skey, skey_len, &r)
		      : -ENOMEM;
	if (rc == -ENOENT) { /* a round found it gone, or it moved to another partition */
		e->gone.after_unknown = true;
		return 0;
	}
	if (rc)
		return rc;
	e->after = arena_copy(&pub->arena, r.value_len ? r.value : "", r.value_len);
	e->after_len = r.value_len;
	e->after_omitted = r.flags & RECORD_OMITTED;
	return e->after ? 0 : -ENOMEM;
}

static int take_pair(struct publisher *pub, struct state_view *v, const struct change *c,
		     const struct gone *g)
{
	struct entry *e = &pub->entries[pub->n_entries];
	int p = c->partition, rc = copy_entry(pub, c, p, c->offset + 1);

	if (rc)
		return rc;
	e->what = g ? GONE : EXPIRED;
	e->gap = false;
	e->gone = (struct note_gone){
		.expired = !g, .present_ms = -1, .gone_ms = g ? g->gone_ms : -1, .leader = -1
	};
	if (g) {
		e->gone.leader = g->leader;
		if (g->present_ms >= 0 &&
		    probe_was_present(g->present_r, g->present_s, c->before.offset, c->offset,
				      c->before.flags & RECORD_TOMBSTONE))
			e->gone.present_ms = g->present_ms;
	}
	rc = copy_version(pub, v, c, e);
	pub->bytes += e->after_len;
	pub->next_cursor[p] = c->offset + 1;
	return rc;
}

/*
 * In the order of the superseding offsets: those that are known to be gone, then
 * as many as there are too much of.  None whose overwriting is not told yet.
 */
static int collect_pairs(struct publisher *pub, struct state_view *v, int p)
{
	struct gone g = pipeline_gone_get(pub->p, p);
	int64_t told = pub->next[p].offset, below = pub->cursor[p];
	struct change c;
	int rc;

	pub->next_cursor[p] = below;
	if (g.from <= below && g.below > below)
		below = g.below < told ? g.below : told;
	rc = state_view_waiting(v, p, pub->cursor[p], &c);
	while (!rc && !full(pub) && c.offset < told &&
	       (c.offset < below || pub->excess > 0 || c.before.flags & RECORD_OMITTED)) {
		if ((rc = take_pair(pub, v, &c, c.offset < below ? &g : NULL)))
			return rc;
		pub->excess--;
		rc = state_view_waiting_next(v, &c);
	}
	if (rc && rc != -ENOENT)
		return rc;
	if (!full(pub) && below > pub->next_cursor[p])
		pub->next_cursor[p] = below;
	return 0;
}

/* How much is waiting beyond what may; 0 while something is told and not removed yet. */
static int look_at_excess(struct publisher *pub, struct state_view *v)
{
	struct state_stat s;
	struct state_pair pair;
	int rc = state_stat(pub->p->state, &s);

	pub->excess = 0;
	if (rc)
		return rc;
	for (int p = 0; p < pub->p->n; p++)
		if (!state_view_pair(v, p, 0, &pair) && pair.offset < pub->cursor[p])
			return 0;
	int64_t beyond = (int64_t)s.waiting_bytes - pub->p->config->compacted_max_bytes;
	if (beyond > 0) /* by what one takes on the average, in pages */
		pub->excess = (int64_t)(1 + s.waiting_pairs * ((double)beyond / s.waiting_bytes));
	return 0;
}

static void say_gap(const struct publisher *pub, int p)
{
	log_warn("SN-GAP",
		 "%s [%d]: versions from %" PRId64 " to %" PRId64
		 " may have been compacted away unseen: published with cause=gap",
		 pub->p->config->source_topic, p, pub->at[p].offset, pub->gap_until[p]);
}

static bool has_holes(struct state_view *v, int p)
{
	char name[HOLES_NAME_MAX], text[8];

	pipeline_holes_name(name, p);
	return !state_view_meta(v, name, text, sizeof(text)) && text[0] == '1';
}

/* The tail may have missed versions since this began to lead: then another, if it is another that
 * has published up to here, may have them. */
static void look_at_gap(struct publisher *pub, struct state_view *v, int p,
			const struct state_partition *row)
{
	if (pub->own[p] && pub->gap_until[p] != INT64_MAX)
		return;
	bool holes = has_holes(v, p);
	int64_t until = holes ? INT64_MAX : row->whole;
	if (!pub->own[p] && until > pub->at[p].offset && until != pub->gap_until[p]) {
		pub->gap_until[p] = until;
		say_gap(pub, p);
	}
	if (pub->gap_until[p] == INT64_MAX && !holes) /* until the tail has seen the end */
		pub->gap_until[p] = row->whole;
}

static int collect_partition(struct publisher *pub, struct state_view *v, int p)
{
	struct state_partition row;
	struct change c;
	int rc = state_view_partition(v, p, &row);

	if (rc)
		return rc;
	pub->next[p] = pub->at[p];
	pub->next_told[p] = pub->told[p];
	look_at_gap(pub, v, p, &row);
	if (pub->resumes && (row.whole > pub->at[p].offset || has_holes(v, p)))
		return 0; /* for whoever is elected to tell */
	/* what a round will find belongs before the changes from `due` on */
	int64_t limit = row.due >= 0 ? row.due : row.applied;
	rc = state_view_journal(v, p, pub->at[p].offset, pub->at[p].n, &c);
	/* at the very end of what was applied stand gone keys, where nothing came after `due` */
	while (!rc && !full(pub) && (c.offset < limit || (row.due < 0 && c.offset == limit))) {
		if ((rc = lacks_told(pub, v, &c, p)) || (rc = take_entry(pub, &c, p, row.applied)))
			return rc;
		rc = state_view_journal_next(v, &c);
	}
	if (rc && rc != -ENOENT)
		return rc;
	/* nothing more up to there: also the offsets that hold no change are done with */
	if (!full(pub) && limit > pub->next[p].offset) {
		pub->next[p] = (struct position){ limit, 0 };
		pub->next_told[p] = 0;
	}
	return 0;
}

static int collect(struct publisher *pub)
{
	struct state_view *v;
	int rc = state_view_begin(pub->p->state, &v);

	if (rc)
		return rc;
	arena_clear(&pub->arena);
	pub->n_entries = pub->bytes = 0;
	pub->skipped = 0;
	pub->txnid = state_view_txnid(v);
	pub->lacks = -1;
	for (int i = 0; i < pub->p->n && !rc; i++)
		rc = collect_partition(pub, v, (pub->first + i) % pub->p->n);
	if (!rc && pub->compacted)
		rc = look_at_excess(pub, v);
	for (int i = 0; i < pub->p->n && !rc && pub->compacted; i++)
		rc = collect_pairs(pub, v, (pub->first + i) % pub->p->n);
	pub->first = (pub->first + 1) % pub->p->n;
	state_view_end(v);
	return rc;
}

/* ---- one transaction ---- */

static rd_kafka_headers_t *headers_of(const struct note *n)
{
	rd_kafka_headers_t *hs = rd_kafka_headers_new(n->n_headers);

	for (size_t i = 0; i < n->n_headers; i++) {
		const struct record_header *h = &n->headers[i];
		rd_kafka_header_add(hs, h->name, (ssize_t)h->name_len, h->value,
				    h->value ? (ssize_t)h->value_len : 0);
	}
	return hs;
}

/*
 * Only a key can be that large: everything else can be left out.  The snapshot
 * goes on; publishing waits for the topic to change.
 */
static void say_no_room(struct publisher *pub, const struct note *n, const struct change *c,
			const char *topic)
{
	int64_t now = kafka_now_ms();
	char *key;

	atomic_store(&pub->p->limit_wanted, true);
	if (pub->no_room_ms && now - pub->no_room_ms < NO_ROOM_SAY_MS)
		return;
	pub->no_room_ms = now;
	key = escape_key(n->key, n->key_len);
	log_error("SN-NOTIFICATION-TOO-LARGE",
		  "the notification of key '%.100s' at %s [%d] %" PRId64
		  " does not fit into %s: nothing is published until max.message.bytes=%zu is set "
		  "there",
		  key ? key : "?", pub->p->config->source_topic, c->partition, c->offset, topic,
		  n->key_len + LEAST_BYTES);
	free(key);
}

static int make_note(struct publisher *pub, const struct entry *en, struct change *c, int64_t now,
		     struct note *n)
{
	if (en->what == CHANGED)
		return envelope_make(&pub->envelope, c,
				     c->cause == CAUSE_RECONCILE ? NOTE_RECONCILE
				     : en->gap                   ? NOTE_GAP
								 : NOTE_LOG,
				     en->reached, now, n);
	c->after.value = en->after;
	c->after.value_len = en->after_len;
	if (en->after_omitted)
		c->after.flags |= RECORD_OMITTED;
	return envelope_make_gone(&pub->envelope, c, &en->gone, now, n);
}

/*
 * librdkafka has one request of a partition under way, and while a flush has more to send its thread
 * polls without a pause: so it is given no more than one request of each at a time.
 */
static int pace(struct publisher *pub, int partition, size_t bytes)
{
	size_t most = pub->max_bytes < REQUEST_BYTES ? pub->max_bytes : REQUEST_BYTES;
	int v = TXN_OK;

	if (pub->given[partition] + bytes > most) {
		v = txn_flush(&pub->txn);
		memset(pub->given, 0, (size_t)pub->p->n * sizeof(*pub->given));
	}
	pub->given[partition] += bytes;
	return v;
}

static int produce_note(struct publisher *pub, const struct entry *en, int partition,
			const struct note *n)
{
	int count = en->what == CHANGED ? pub->p->limits.notification_partitions
					: pub->p->limits.compacted_partitions;
	int v = pace(pub, partition, n->bytes);

	if (v != TXN_OK)
		return v;
	if (count != pub->p->n)
		partition = RD_KAFKA_PARTITION_UA;
	return en->what == CHANGED ? txn_produce(&pub->txn, partition, n->key, n->key_len, n->value,
						 n->value_len, headers_of(n))
				   : txn_produce_also(&pub->txn, partition, n->key, n->key_len,
						      n->value, n->value_len, headers_of(n));
}

static int produce(struct publisher *pub)
{
	int64_t now = kafka_wall_ms();

	pub->notes = 0;
	memset(pub->given, 0, (size_t)pub->p->n * sizeof(*pub->given));
	for (size_t i = 0; i < pub->n_entries; i++) {
		struct entry *en = &pub->entries[i];
		struct change c;
		struct note n;
		int v, rc = change_decode(&c, en->key, JOURNAL_KEY_BYTES, en->value, en->value_len);
		if (!rc)
			rc = make_note(pub, en, &c, now, &n);
		if (rc == -ENOMEM) {
			pipeline_end(pub->p, OUTCOME_UNREACHABLE, "SN-MEMORY", "out of memory");
			return TXN_STOPPED;
		}
		if (rc) {
			pipeline_end(pub->p, OUTCOME_BROKEN, "SN-JOURNAL-CHECKSUM",
				     "a journal entry of %s cannot be read: %s",
				     pub->p->config->state_dir, state_strerror(rc));
			return TXN_STOPPED;
		}
		if (n.bytes > pub->max_bytes) {
			say_no_room(pub, &n, &c,
				    en->what == CHANGED ? pub->p->config->notifications_topic
							: pub->p->config->compacted_topic);
			return PUB_NO_ROOM;
		}
		v = produce_note(pub, en, c.partition, &n);
		if (v != TXN_OK)
			return v;
		pub->notes += en->what == CHANGED;
		if (en->what == CHANGED)
			FAULT_POINT("publish.message");
		else
			FAULT_POINT("publish.compacted");
		en->op = c.op;
		en->cause = c.cause;
		en->timestamp_ms = c.has_after ? c.after.timestamp_ms : -1;
		metrics_add(METRIC_NOTIFIED_WRAPPED, n.wrapped);
		metrics_add(METRIC_NOTIFIED_OMITTED, n.omitted);
		atomic_fetch_add(&pub->p->wrapped, n.wrapped);
		atomic_fetch_add(&pub->p->omitted, n.omitted);
		if (i % 1000 == 999)
			rd_kafka_poll(pub->txn.rk, 0);
	}
	return TXN_OK;
}

static rd_kafka_topic_partition_list_t *offsets(struct publisher *pub)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(pub->p->n);

	for (int p = 0; p < pub->p->n; p++) {
		struct metadata m = { .n = pub->next_told[p],
				      .gap_until = pub->gap_until[p] > pub->next[p].offset
							   ? pub->gap_until[p]
							   : -1,
				      .c = pub->compacted ? pub->next_cursor[p] : -1 };
		char text[METADATA_MAX];

		if (!pub->moved[p])
			continue;
		snprintf(m.by, sizeof(m.by), "%s", pub->self);
		metadata_format(&m, text);
		rd_kafka_topic_partition_t *tp =
			rd_kafka_topic_partition_list_add(l, pub->p->config->source_topic, p);
		tp->offset = pub->next[p].offset;
		tp->metadata = strdup(text); /* the list frees it */
		tp->metadata_size = strlen(text);
	}
	return l;
}

/* What a commit has made visible. */
static void count(const struct publisher *pub)
{
	int64_t now_us = metrics_wall_us();

	for (size_t i = 0; i < pub->n_entries; i++) {
		const struct entry *en = &pub->entries[i];
		if (en->what != CHANGED) {
			metrics_add(en->what == GONE ? METRIC_COMPACTED : METRIC_EXPIRED, 1);
			continue;
		}
		metrics_add(en->op == CHANGE_CREATE   ? METRIC_NOTIFIED_CREATE
			    : en->op == CHANGE_DELETE ? METRIC_NOTIFIED_DELETE
						      : METRIC_NOTIFIED_UPDATE,
			    1);
		if (en->cause == CAUSE_RECONCILE)
			metrics_add(METRIC_NOTIFIED_RECONCILE, 1);
		else if (en->gap)
			metrics_add(METRIC_NOTIFIED_GAP, 1);
		metrics_observe_age(METRIC_NOTIFICATION_LATENCY_US, en->timestamp_ms, now_us);
	}
	metrics_add(METRIC_NOT_NOTIFIED, pub->skipped);
}

/* For the status page. */
static void show(const struct publisher *pub)
{
	size_t i = pub->n_entries > RECENT_NOTES ? pub->n_entries - RECENT_NOTES : 0;
	struct change c;

	for (; i < pub->n_entries && recent_is_kept(); i++) {
		const struct entry *en = &pub->entries[i];
		if (en->what == CHANGED &&
		    !change_decode(&c, en->key, JOURNAL_KEY_BYTES, en->value, en->value_len))
			recent_add(&c,
				   en->cause == CAUSE_RECONCILE ? "reconcile"
				   : en->gap                    ? "gap"
								: "log",
				   kafka_wall_ms());
	}
}

static void took_effect(struct publisher *pub)
{
	count(pub);
	show(pub);
	for (int p = 0; p < pub->p->n; p++) {
		if (!pub->moved[p])
			continue;
		pub->at[p] = pub->next[p];
		pub->own[p] = true;
		pub->told[p] = pub->next_told[p];
		pub->cursor[p] = pub->next_cursor[p];
		pipeline_cursor(pub->p, p, pub->cursor[p]);
		pub->committed[p] = (struct position){ pub->at[p].offset, pub->told[p] };
		pipeline_published(pub->p, p, pub->committed[p], pub->self,
				   pub->gap_until[p] > pub->at[p].offset ? pub->gap_until[p] : -1);
	}
	atomic_fetch_add(&pub->p->published, (long long)pub->notes);
	pub->skipped = 0;
	pub->all_offsets = false;
	pub->last_commit_ms = kafka_now_ms();
	if (pub->said_ms)
		log_info(NULL, "publishing to %s again", pub->p->config->notifications_topic);
	pub->said_ms = pub->failing_ms = pub->denied_ms = 0;
	pub->txn.why[0] = '\0';
}

/* What is published has to survive a power cut before it is committed. */
static int make_durable(struct publisher *pub)
{
	int rc = state_make_durable(pub->p->state, pub->txnid);

	if (!rc)
		return TXN_OK;
	pipeline_end(pub->p, OUTCOME_UNREACHABLE, "SN-STATE-IO",
		     "syncing %s: %s; nothing more is published; start again: the state is opened "
		     "anew and checked",
		     pub->p->config->state_dir, state_strerror(rc));
	return TXN_STOPPED;
}

static int begin(struct publisher *pub)
{
	rd_kafka_topic_partition_list_t *l = offsets(pub);
	int v = txn_begin(&pub->txn, l, pub->group);

	rd_kafka_topic_partition_list_destroy(l);
	return v;
}

static int transact(struct publisher *pub)
{
	bool committed;
	int v = begin(pub);

	if (v != TXN_OK)
		return v;
	FAULT_POINT("publish.begun");
	v = produce(pub);
	FAULT_POINT("publish.produced");
	if (v == TXN_OK)
		v = make_durable(pub);
	FAULT_POINT("publish.durable");
	v = txn_end(&pub->txn, v, &committed);
	if (committed)
		took_effect(pub);
	FAULT_POINT("publish.effect");
	return v;
}

static int transact_counted(struct publisher *pub)
{
	int64_t began_us = metrics_clock_us();
	int v = transact(pub);

	if (v == TXN_OK)
		metrics_observe_since(METRIC_TRANSACTION_US, began_us);
	metrics_add(v == TXN_OK                          ? METRIC_TRANSACTIONS_COMMITTED
		    : v == TXN_REOPEN || v == TXN_FENCED ? METRIC_TRANSACTIONS_UNCLEAR
							 : METRIC_TRANSACTIONS_ABORTED,
		    1);
	return v;
}

/* ---- a session: one producer, from init to its end ---- */

/* As long as a partition cannot take the end of the transaction before. */
static void say_opening(void *opaque)
{
	struct publisher *pub = opaque;

	if (kafka_now_ms() - pub->opened_ms > INIT_MS)
		say_failing(pub);
}

static int open_producer(struct publisher *pub)
{
	const struct config *c = pub->p->config;
	int v;

	metrics_add(METRIC_PRODUCER_OPENS, 1);
	pub->opened_ms = kafka_now_ms();
	v = txn_open(&pub->txn, c, c->notifications_topic, (int64_t)pub->max_bytes);
	if (v == TXN_OK && pub->compacted)
		v = txn_open_also(&pub->txn, c->compacted_topic);
	if (v != TXN_REFUSED)
		return v;
	pipeline_end(pub->p, OUTCOME_USAGE, "SN-KAFKA-CONFIG", "producer: %s", pub->txn.why);
	return TXN_STOPPED;
}

/* P went back or vanished while we lead: somebody reset the group, or the topic is another. */
static int check_committed(struct publisher *pub, const struct standing *s, int p)
{
	if (!strcmp(s->by, METADATA_FUTURE)) /* unfit, see take_positions() */
		return TXN_OK;
	if (pub->committed[p].offset < 0 || position_compare(s->published, pub->committed[p]) >= 0)
		return TXN_OK;
	pipeline_offsets_back(pub->p, p, pub->committed[p].offset, s->published.offset);
	return TXN_STOPPED;
}

static int read_committed(struct publisher *pub, struct standing *s)
{
	struct kafka_committed *c = calloc((size_t)pub->p->n, sizeof(*c));
	char err[300];
	int rc;

	if (!c)
		return TXN_RETRY;
	atomic_store(&pub->asked_ms, kafka_now_ms());
	rc = kafka_committed(pub->query, pub->p->config->source_topic, pub->p->n, COMMITTED_MS, c,
			     err, sizeof(err));
	atomic_store(&pub->asked_ms, 0);
	for (int p = 0; p < pub->p->n && !rc; p++) {
		struct metadata m;
		metadata_parse(&m, c[p].metadata);
		s[p].published = (struct position){ c[p].offset, m.n };
		s[p].gap_until = m.gap_until;
		s[p].cursor = m.c > 0 ? m.c : 0;
		memcpy(s[p].by, m.by, sizeof(m.by));
	}
	free(c);
	if (rc)
		log_info(NULL, "publisher: %s", err);
	return rc ? TXN_REOPEN : TXN_OK;
}

static void forget_told(struct publisher *pub, int p)
{
	told_free(pub->told_before[p]);
	pub->told_before[p] = NULL;
	pub->told_since[p] = INT64_MAX;
}

static void begin_at(struct publisher *pub, int p, struct position from)
{
	forget_told(pub, p);
	pub->at[p] = (struct position){ from.offset, 0 };
	pub->told[p] = from.n;
}

/* What a round has found must not be told again. */
static int read_told(struct publisher *pub)
{
	const int p = pub->lacks;
	const struct told_what what = {
		.c = pub->p->config, .p = p, .n = pub->p->n, .from = pub->lacks_since
	};
	char err[300];

	log_info(NULL,
		 "publisher: partition %d: reading back what was told of records from %" PRId64, p,
		 pub->lacks_since);
	FAULT_POINT("publish.readback");
	forget_told(pub, p);
	int rc = told_read(&pub->told_before[p], &what, &pub->stop, err, sizeof(err));
	if (!rc) {
		pub->told_since[p] = pub->lacks_since;
		return TXN_OK;
	}
	if (!stopping(pub))
		log_warn("SN-READBACK", "%s; trying again", rc == -ENOMEM ? "out of memory" : err);
	return TXN_REOPEN;
}

/* Whether this state may publish from what is committed now, after init. */
static int judge(struct publisher *pub, const struct standing *s)
{
	enum fitness f;
	int where;

	if (pub->resumes && (kafka_now_ms() - pub->opened_ms > RESUME_MS ||
			     !decide_may_resume(s, pub->p->n, pub->self))) {
		log_info(NULL, "publisher: not resuming: too late, or another has published since");
		return PUB_YIELD;
	}
	if (pub->resumes)
		return TXN_OK;
	f = decide_fitness(s, pub->p->n, pub->self, true, &where); /* the group let it lead */
	if (f == FIT || f == FIT_AS_GAP)
		return TXN_OK;
	log_info(NULL, "publisher: partition %d: %s", where, fitness_text(f));
	return PUB_YIELD;
}

static int take_positions(struct publisher *pub)
{
	struct standing *s = calloc((size_t)pub->p->n, sizeof(*s));
	int v = TXN_OK;

	if (!s)
		return TXN_REOPEN;
	pipeline_standings(pub->p, s);
	if (!pub->p->offsets_forgotten)
		v = read_committed(pub, s);
	for (int p = 0; p < pub->p->n && v == TXN_OK; p++)
		v = check_committed(pub, &s[p], p);
	if (v == TXN_OK)
		v = judge(pub, s);
	for (int p = 0; p < pub->p->n && v == TXN_OK; p++)
		begin_at(pub, p, decide_publish_from(&s[p]));
	for (int p = 0; p < pub->p->n && v == TXN_OK; p++) {
		pub->gap_until[p] = decide_gap_until(&s[p], pub->self);
		pub->own[p] = s[p].published.offset < 0 || !strcmp(s[p].by, pub->self);
		if (pub->gap_until[p] >= 0)
			say_gap(pub, p);
		if (s[p].published.offset >= 0)
			pipeline_published(pub->p, p, s[p].published, s[p].by, s[p].gap_until);
	}
	for (int p = 0; p < pub->p->n && v == TXN_OK; p++) {
		pub->cursor[p] = pub->next_cursor[p] = s[p].cursor;
		pipeline_cursor(pub->p, p, s[p].cursor);
	}
	pipeline_gone_forget(pub->p);
	pub->all_offsets = true;
	free(s);
	return v;
}

static bool anything_moved(struct publisher *pub)
{
	bool any = false;

	for (int p = 0; p < pub->p->n; p++) {
		pub->moved[p] = pub->all_offsets ||
				position_compare(pub->next[p], pub->at[p]) != 0 ||
				pub->next_cursor[p] != pub->cursor[p];
		any |= pub->moved[p];
	}
	return any;
}

static int publish_once(struct publisher *pub)
{
	int rc = collect(pub);

	if (rc > 0)
		return read_told(pub);
	if (rc) {
		pipeline_end(pub->p, rc == -EBADMSG ? OUTCOME_BROKEN : OUTCOME_UNREACHABLE,
			     rc == -EBADMSG ? "SN-JOURNAL-CHECKSUM" : "SN-STATE-IO",
			     "reading the journal of %s: %s", pub->p->config->state_dir,
			     state_strerror(rc));
		return TXN_STOPPED;
	}
	if (!anything_moved(pub)) {
		pipeline_wait(pub->p, &pub->seen, OFFSETS_ONLY_MS);
		return TXN_OK;
	}
	int64_t due = pub->last_commit_ms + OFFSETS_ONLY_MS - kafka_now_ms();
	if (!pub->n_entries && !pub->all_offsets && !full(pub) && due > 0) {
		pipeline_wait(pub->p, &pub->seen, due);
		return TXN_OK; /* looked at again: a notification may have come meanwhile */
	}
	return transact_counted(pub);
}

static int session(struct publisher *pub)
{
	int v = open_producer(pub);

	if (v == TXN_OK)
		v = take_positions(pub);
	if (v == TXN_OK)
		atomic_store(&pub->p->leading, true);
	FAULT_POINT("publish.positioned");
	while (v == TXN_OK) {
		if (stopping(pub)) {
			v = TXN_STOPPED;
			break;
		}
		v = publish_once(pub);
		if (v != TXN_OK && !stopping(pub))
			metrics_add(METRIC_PUBLISH_FAILURES, 1);
		if (v == TXN_RETRY) { /* aborted cleanly: the same producer goes on */
			say_failing(pub);
			usleep(BACKOFF_MS * 1000);
			v = TXN_OK;
		}
	}
	txn_close(&pub->txn);
	return v;
}

/* The topic's limit was lowered, or a proxy has one of its own: believe less. */
static void believe_less(struct publisher *pub)
{
	if (pub->max_bytes <= MESSAGE_BYTES_MIN)
		pipeline_end(pub->p, OUTCOME_USAGE, "SN-NOTIFICATION-TOO-LARGE",
			     "%s refuses messages of %d bytes: set max.message.bytes there and "
			     "start again",
			     pub->p->config->notifications_topic, MESSAGE_BYTES_MIN);
	pub->max_bytes = pub->max_bytes - pub->max_bytes / 8;
	if (pub->max_bytes < MESSAGE_BYTES_MIN)
		pub->max_bytes = MESSAGE_BYTES_MIN;
	pub->envelope.o.max_bytes = pub->max_bytes;
	log_warn("SN-NOTIFICATION-LIMIT",
		 "%s takes smaller messages than its max.message.bytes said: trying with %zu bytes",
		 pub->p->config->notifications_topic, pub->max_bytes);
}

/* What the supervisor read of the topic since, if that is another limit than before. */
static void take_limit(struct publisher *pub)
{
	size_t limit = (size_t)atomic_load(&pub->p->limits.max_message_bytes);

	if (limit == pub->limit_seen)
		return;
	pub->limit_seen = pub->max_bytes = pub->envelope.o.max_bytes = limit;
}

static void rest(struct publisher *pub, int ms)
{
	for (int64_t until = kafka_now_ms() + ms; !stopping(pub) && kafka_now_ms() < until;)
		usleep(20000);
}

static void *run(void *arg)
{
	struct publisher *pub = arg;

	while (!stopping(pub)) {
		take_limit(pub);
		int v = session(pub);
		/* a fenced producer may have a successor: only a new assignment can tell */
		if (v == TXN_NOT_MEMBER || v == PUB_YIELD || v == TXN_FENCED || pub->resumes)
			break;
		if (v == TXN_REOPEN && pub->txn.why[0])
			say_failing(pub);
		else if (v == TXN_TOO_LARGE)
			believe_less(pub);
		else if (v == TXN_DENIED)
			say_denied(pub);
		rest(pub, v == TXN_DENIED || v == PUB_NO_ROOM ? DENIED_MS : BACKOFF_MS);
	}
	atomic_store(&pub->p->leading, false);
	atomic_store(&pub->ended, true);
	return NULL;
}

/* ---- start and stop ---- */

static void free_publisher(struct publisher *pub)
{
	envelope_free(&pub->envelope);
	arena_free(&pub->arena);
	free(pub->entries);
	free(pub->at);
	free(pub->next);
	free(pub->committed);
	free(pub->told);
	free(pub->next_told);
	for (int p = 0; pub->told_before && p < pub->p->n; p++)
		told_free(pub->told_before[p]);
	free(pub->told_before);
	free(pub->told_since);
	free(pub->gap_until);
	free(pub->own);
	free(pub->moved);
	free(pub->given);
	free(pub->cursor);
	free(pub->next_cursor);
	if (pub->group)
		rd_kafka_consumer_group_metadata_destroy(pub->group);
	free(pub);
}

/* Of nobody: generation -1, which brokers accept and fence by nothing. */
static rd_kafka_consumer_group_metadata_t *no_member(const struct config *c)
{
	char id[300];

	kafka_group_id(c, id, sizeof(id));
	return rd_kafka_consumer_group_metadata_new(id);
}

static int make(struct publisher *pub)
{
	const struct config *c = pub->p->config;
	size_t n = (size_t)pub->p->n;

	pub->limit_seen = pub->max_bytes = (size_t)atomic_load(&pub->p->limits.max_message_bytes);
	if (pub->max_bytes > MESSAGE_BYTES_MAX)
		pub->max_bytes = MESSAGE_BYTES_MAX;
	if (pub->max_bytes < MESSAGE_BYTES_MIN)
		pub->max_bytes = MESSAGE_BYTES_MIN;
	const struct envelope_options o = { .format = c->notifications_format,
					    .encoding = c->notifications_encoding,
					    .name = c->name,
					    .cluster = pub->p->cluster,
					    .topic = c->source_topic,
					    .max_bytes = pub->max_bytes };
	envelope_init(&pub->envelope, &o);
	pub->filter =
		(struct note_filter){ c->notifications_operations, c->notifications_unchanged };
	pub->self = state_uuid(pub->p->state);
	pub->entries = calloc(ENTRIES_MAX + 1, sizeof(*pub->entries));
	pub->at = calloc(n, sizeof(*pub->at));
	pub->next = calloc(n, sizeof(*pub->next));
	pub->committed = calloc(n, sizeof(*pub->committed));
	pub->told = calloc(n, sizeof(*pub->told));
	pub->next_told = calloc(n, sizeof(*pub->next_told));
	pub->told_before = calloc(n, sizeof(*pub->told_before));
	pub->told_since = calloc(n, sizeof(*pub->told_since));
	pub->gap_until = calloc(n, sizeof(*pub->gap_until));
	pub->own = calloc(n, sizeof(*pub->own));
	pub->moved = calloc(n, sizeof(*pub->moved));
	pub->given = calloc(n, sizeof(*pub->given));
	pub->compacted = state_waits(pub->p->state);
	pub->cursor = calloc(n, sizeof(*pub->cursor));
	pub->next_cursor = calloc(n, sizeof(*pub->next_cursor));
	if (!pub->entries || !pub->at || !pub->next || !pub->committed || !pub->told ||
	    !pub->next_told || !pub->told_before || !pub->told_since || !pub->gap_until ||
	    !pub->own || !pub->moved || !pub->given || !pub->cursor || !pub->next_cursor)
		return -ENOMEM;
	for (size_t p = 0; p < n; p++)
		pub->committed[p].offset = -1;
	return 0;
}

int publish_start(struct publisher **out, struct pipeline *p, rd_kafka_t *query,
		  rd_kafka_consumer_group_metadata_t *group)
{
	struct publisher *pub = calloc(1, sizeof(*pub));
	int rc = pub ? 0 : -ENOMEM;

	if (rc) {
		if (group)
			rd_kafka_consumer_group_metadata_destroy(group);
		return rc;
	}
	pub->p = p;
	pub->txn.who = "publisher";
	pub->txn.stopping = is_stopping;
	pub->txn.waiting = say_opening;
	pub->txn.opaque = pub;
	pub->query = query;
	pub->resumes = !group;
	pub->group = group ? group : no_member(p->config);
	rc = pub->group ? make(pub) : -ENOMEM;
	if (!rc)
		rc = -pthread_create(&pub->thread, NULL, run, pub);
	if (rc) {
		free_publisher(pub);
		return rc;
	}
	*out = pub;
	return 0;
}

bool publish_stop(struct publisher *pub, int budget_ms)
{
	struct timespec until;

	if (!pub)
		return true;
	atomic_store(&pub->stop, true);
	pipeline_wake(pub->p);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += budget_ms / 1000;
	if (pthread_clockjoin_np(pub->thread, NULL, CLOCK_MONOTONIC, &until))
		return false;
	free_publisher(pub);
	return true;
}
