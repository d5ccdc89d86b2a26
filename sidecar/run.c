#include "run.h"
#include "cmd.h"
#include "control.h"
#include "fault.h"
#include "fill.h"
#include "frontier.h"
#include "http.h"
#include "kafka.h"
#include "log.h"
#include "metrics.h"
#include "mirror.h"
#include "owner.h"
#include "pipeline.h"
#include "rebuild.h"
#include "state.h"
#include "systemd.h"
#include "tail.h"
#include "topic.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
	ANSWER_MS = 5000,  /* for one question to the broker */
	EMBEDDED_MS = 100, /* the same to an embedded broker, which answers at once or never */
	RETRY_MS = 1000,
	SUPERVISE_MS = 100,
	SAY_MS = 10000, /* between lines about the same trouble */
	AUTH_GRACE_MS = 10000,
	WATCH_MS = 10000,     /* between looks at the topic while running */
	SETTINGS_MS = 180000, /* between reads of its settings */
	NEWS_TRIES = 100,
	SHORTER_TRIES = 10, /* a broker that just started may not know its high watermark yet */
	CREATED_MS = 10000, /* until every broker knows a topic that was just created */
};

/* One setting-up, from the first question to the broker to the end of all threads. */
struct run {
	const struct config *c; /* own copy of nothing: the caller's */
	const struct run_options *o;
	struct state_dir *dir;
	struct control *control;
	struct rebuild *rebuild; /* under way; NULL: none */
	bool was_running;        /* not the first setting-up of this process */
	long long rounds_before; /* a round was asked for: done when there are more; -1: not */
	int64_t told_ms;
	struct kafka_counts counts;
	struct kafka_hooks hooks;
	rd_kafka_t *query, *peek;
	char cluster_id[128];
	struct topic_settings source, notifications, compacted;
	struct state *state;
	struct pipeline p;
	bool refill; /* the state must be filled anew, with b = P ... */
	bool filled; /* ... and was */
	int n;
	struct position *published; /* [n]: committed at the start; offset -1: none */
	bool *by_hand;              /* [n]: not by a sidecar */
	char status[500];           /* as systemd was told */
	bool away;                  /* the brokers do not answer, and it was said */
	struct state_partition *rows;
	int code;   /* exit code, once `ended` */
	bool ended; /* setting up has failed or was stopped */
};

static bool end(struct run *r, int code, const char *id, const char *text)
{
	if (!r->ended && text)
		log_error(id, "%s", text);
	r->ended = true;
	r->code = code;
	return false;
}

/* False: asked to stop. */
static bool pause_ms(struct run *r, int ms)
{
	for (; ms > 0; ms -= 50) {
		if (atomic_load(r->o->stop))
			return end(r, EXIT_DONE, NULL, NULL);
		usleep(50000);
	}
	return true;
}

/* Say a trouble once per SAY_MS while something is tried again. */
static bool retry(struct run *r, int64_t *said, const char *id, const char *what)
{
	int64_t now = kafka_now_ms();

	if (*said == 0 || now - *said >= SAY_MS) {
		log_warn(id, "%s; trying again", what);
		*said = now;
	}
	return pause_ms(r, RETRY_MS);
}

/* The same of a question to the broker; `right` and `name`: what it takes to ask it. */
static bool ask_again(struct run *r, int64_t *said, int rc, const char *err, const char *id,
		      const char *right, const char *name)
{
	char text[800];

	if (rc != KAFKA_DENIED && rc != KAFKA_DENIED_GROUP)
		return retry(r, said, "SN-KAFKA-UNREACHABLE", err);
	snprintf(text, sizeof(text), "%s; grant %s %s", err, right, name);
	return retry(r, said, id, text);
}

/* ---- questions to the broker ---- */

static int answer_ms(const struct run *r)
{
	return r->o->offsets_forgotten ? EMBEDDED_MS : ANSWER_MS;
}

static bool reach_cluster(struct run *r)
{
	int64_t began = kafka_now_ms(), said = 0;
	char err[300];

	r->hooks = (struct kafka_hooks){ .counts = &r->counts };
	r->query = kafka_new(r->c, KAFKA_QUERY, &r->hooks, err, sizeof(err));
	r->peek = kafka_new(r->c, KAFKA_PEEK, NULL, err, sizeof(err));
	if (!r->query || !r->peek)
		return end(r, EXIT_USAGE, "SN-KAFKA-CONFIG", err);
	while (kafka_cluster_id(r->query, ANSWER_MS, r->cluster_id, sizeof(r->cluster_id), err,
				sizeof(err))) {
		if (atomic_load(&r->counts.auth_failed) && kafka_now_ms() - began > AUTH_GRACE_MS)
			return end(r, EXIT_USAGE, "SN-KAFKA-AUTH",
				   "the brokers refuse these credentials or this certificate; see "
				   "the line above and the kafka.sasl.* and kafka.ssl.* options");
		if (!retry(r, &said, "SN-KAFKA-UNREACHABLE", err))
			return false;
	}
	return true;
}

static bool findings_let_start(struct run *r, const struct finding *f, int n)
{
	for (int i = 0; i < n; i++) {
		if (f[i].stop)
			return end(r, EXIT_USAGE, f[i].id, f[i].text);
		log_warn(f[i].id, "%s", f[i].text);
	}
	return true;
}

static bool ask_source(struct run *r)
{
	struct finding f[FINDINGS_MAX];
	char err[300], text[500];
	int64_t said = 0;
	int rc;

	while ((rc = topic_settings(r->query, r->c->source_topic, answer_ms(r), &r->source, err,
				    sizeof(err)))) {
		if (rc == KAFKA_MISSING) {
			snprintf(text, sizeof(text),
				 "source topic %s does not exist on this cluster; create it or "
				 "correct source.topic",
				 r->c->source_topic);
			return end(r, r->was_running ? EXIT_BROKEN : EXIT_USAGE,
				   "SN-SOURCE-MISSING", text);
		}
		if (!ask_again(r, &said, rc, err, "SN-SOURCE-DENIED", "Read on topic",
			       r->c->source_topic))
			return false;
	}
	r->n = r->source.partitions;
	return findings_let_start(r, f, topic_source_findings(r->c, &r->source, f));
}

/* `named`: what the topic is called in a message. */
static bool create_target(struct run *r, const char *topic, const char *named)
{
	static const char *const kv[] = { "cleanup.policy", "delete", NULL };
	char err[300], text[1400], command[400];
	int rc;

	topic_create_command(r->c, topic, r->n, command, sizeof(command));
	if (!r->c->notifications_create) {
		snprintf(text, sizeof(text),
			 "%s does not exist; create it with: %s (or set notifications.create=true)",
			 named, command);
		return end(r, EXIT_USAGE, "SN-NOTIFICATIONS-MISSING", text);
	}
	rc = kafka_topic_create(r->query, topic, r->n, kv, ANSWER_MS * 2, err, sizeof(err));
	if (rc) {
		snprintf(text, sizeof(text), "%s; %s%s%screate it with: %s", err,
			 rc == KAFKA_DENIED ? "grant Create on topic " : "",
			 rc == KAFKA_DENIED ? topic : "", rc == KAFKA_DENIED ? ", or " : "",
			 command);
		return end(r, EXIT_USAGE, "SN-NOTIFICATIONS-MISSING", text);
	}
	log_info(NULL, "created %s with %d partitions", named, r->n);
	return true;
}

/* A topic to publish to: its settings, as soon as it is there. */
static bool ask_target(struct run *r, const char *topic, const char *named,
		       struct topic_settings *out)
{
	int64_t said = 0, created = 0;
	char err[300];
	int rc, news = 0; /* how often a topic that was just created was not known yet */

	while ((rc = topic_settings(r->query, topic, answer_ms(r), out, err, sizeof(err)))) {
		if (rc == KAFKA_MISSING && !created) {
			if (!create_target(r, topic, named))
				return false;
			created = kafka_now_ms();
		}
		if (rc == KAFKA_MISSING && kafka_now_ms() - created < CREATED_MS) {
			if (!pause_ms(r, 50))
				return false;
			continue;
		}
		if (rc == KAFKA_MISSING && news++ < NEWS_TRIES) {
			if (!pause_ms(r, 50))
				return false;
			continue;
		}
		if (!ask_again(r, &said, rc, err, "SN-PUBLISH-DENIED", "Write on topic", topic))
			return false;
	}
	return true;
}

static bool ask_notifications(struct run *r)
{
	struct finding f[FINDINGS_MAX];
	const char *topic = r->c->notifications_topic;
	char named[300];

	if (!*topic)
		return true;
	snprintf(named, sizeof(named), "notification topic %s", topic);
	return ask_target(r, topic, named, &r->notifications) &&
	       findings_let_start(
		       r, f, topic_notification_findings(r->c, &r->source, &r->notifications, f));
}

static bool ask_compacted(struct run *r)
{
	struct config c = *r->c; /* the same is asked of it as of the other one */
	struct finding f[FINDINGS_MAX];
	char named[300];

	if (!*c.compacted_topic)
		return true;
	snprintf(named, sizeof(named), "topic %s (notifications.compacted.topic)",
		 c.compacted_topic);
	if (!ask_target(r, c.compacted_topic, named, &r->compacted))
		return false;
	c.notifications_topic = c.compacted_topic;
	return findings_let_start(r, f,
				  topic_notification_findings(&c, &r->source, &r->compacted, f));
}

/* One bound for both: the publisher has one producer. */
static int64_t max_message_bytes(const struct run *r)
{
	int64_t max = r->notifications.max_message_bytes;

	if (*r->c->compacted_topic && r->compacted.max_message_bytes < max)
		max = r->compacted.max_message_bytes;
	return max;
}

/*
 * What is committed now, or was before a transaction that a dead leader left
 * open: as the boundary of a fill, an older P only means a longer journal.
 */
static bool ask_committed(struct run *r)
{
	struct kafka_committed *c = calloc((size_t)r->n, sizeof(*c));
	int64_t said = 0;
	char err[300], why[300], group[300];
	int rc = c ? 0 : -1, denied = 0;

	kafka_group_id(r->c, group, sizeof(group));
	r->published = calloc((size_t)r->n, sizeof(*r->published));
	r->by_hand = calloc((size_t)r->n, sizeof(*r->by_hand));
	for (int p = 0; p < r->n && r->published; p++)
		r->published[p].offset = -1;
	if (rc || !r->published || !r->by_hand)
		return end(r, EXIT_NOT_READY, "SN-MEMORY", "out of memory");
	if (r->c->notifications_topic[0] && !r->o->offsets_forgotten)
		while ((rc = kafka_committed(r->peek, r->c->source_topic, r->n, ANSWER_MS, c, err,
					     sizeof(err)))) {
			if (denied != KAFKA_DENIED_GROUP) /* told once, silent time-outs after it */
				snprintf(why, sizeof(why), "%s", err);
			denied = denied == KAFKA_DENIED_GROUP ? denied : rc;
			if (!ask_again(r, &said, denied, why, "SN-GROUP-DENIED", "Read on group",
				       group))
				break;
		}
	for (int p = 0; p < r->n && !rc && r->c->notifications_topic[0] && !r->o->offsets_forgotten;
	     p++) {
		struct metadata m;
		metadata_parse(&m, c[p].metadata);
		r->published[p] = (struct position){ c[p].offset, m.n };
		r->by_hand[p] = !m.by[0];
	}
	free(c);
	return rc == 0;
}

/* ---- the state ---- */

static int64_t journal_limit(const struct config *c)
{
	int64_t limit = c->journal_max_bytes;
	struct statvfs v;

	if (limit > 0)
		return limit;
	limit = 8LL << 30;
	if (!statvfs(c->state_dir, &v) && (int64_t)(v.f_bavail * v.f_frsize / 4) < limit)
		limit = (int64_t)(v.f_bavail * v.f_frsize / 4);
	return limit;
}

static struct state_identity identity(const struct run *r)
{
	return (struct state_identity){ r->c->name, r->cluster_id, r->c->source_topic };
}

static bool open_state(struct run *r)
{
	const struct state_identity who = identity(r);
	const struct state_options so = { .lease_ms = r->c->state_lease_ms,
					  .waiting = *r->c->compacted_topic };
	char err[500];
	int rc;

	if (r->refill)
		return true;
	rc = state_open(&r->state, r->dir, &who, &so, err, sizeof(err));
	if (!rc)
		return true;
	if (rc == -ENOENT || rc == -EBADMSG) {
		if (rc == -EBADMSG)
			log_error("SN-STATE-UNREADABLE", "%s; filling anew", err);
		r->refill = true;
		return true;
	}
	return end(r, rc == -EEXIST || rc == -ENOTSUP ? EXIT_USAGE : EXIT_NOT_READY,
		   rc == -EEXIST    ? "SN-STATE-FOREIGN"
		   : rc == -ENOTSUP ? "SN-STATE-FORMAT"
				    : "SN-STATE-IO",
		   err);
}

/* The smallest delete.retention.ms that was ever seen counts: it may have purged already. */
static void lower(int64_t *ms, int64_t seen_ms)
{
	if (seen_ms >= 0 && seen_ms < *ms)
		*ms = seen_ms;
}

static bool read_rows(struct run *r)
{
	struct state_view *v;
	int32_t stored = 0;
	char text[300];
	int rc = state_view_begin(r->state, &v);

	if (!rc && !state_view_meta(v, "delete_retention_ms", text, sizeof(text)))
		lower(&r->source.delete_retention_ms, strtoll(text, NULL, 10));

	if (!rc && !(rc = state_view_partitions(v, &stored)))
		for (int p = 0; p < r->n && p < stored && !rc; p++) {
			rc = state_view_partition(v, p, &r->rows[p]);
			if (!state_same_boot(v))
				r->rows[p].caught_boot_ms = -1;
		}
	if (rc) {
		snprintf(text, sizeof(text), "reading %s: %s", r->c->state_dir, state_strerror(rc));
		end(r, EXIT_NOT_READY, "SN-STATE-IO", text);
	} else if (stored > r->n) {
		snprintf(text, sizeof(text),
			 "source topic %s has %d partitions and had %d: a topic cannot shrink, so "
			 "it was recreated; remove the state directory and group sidenote.%s to "
			 "start as new",
			 r->c->source_topic, r->n, stored, r->c->name);
		end(r, EXIT_BROKEN, "SN-PARTITIONS-SHRANK", text);
	}
	state_view_end(v);
	for (int p = stored; p < r->n && !r->ended; p++) {
		r->rows[p] = STATE_PARTITION_NEW; /* begins at 0, applied and published */
		log_info(NULL, "partition %d of %s is new: reading it from its start", p,
			 r->c->source_topic);
	}
	return !r->ended;
}

/* Forward: as whoever did it wants it.  Back or beyond the end: see owner.c and watch_ends(). */
static void say_moved(struct run *r)
{
	for (int p = 0; p < r->n; p++)
		if (r->by_hand[p] && r->rows[p].published >= 0 &&
		    r->published[p].offset > r->rows[p].published)
			log_warn(
				"SN-OFFSETS-MOVED",
				"group sidenote.%s: somebody moved the committed offset of %s [%d] "
				"from %" PRId64 " to %" PRId64
				": what is in between is not published",
				r->c->name, r->c->source_topic, p, r->rows[p].published,
				r->published[p].offset);
}

static bool same_topic(struct run *r, int p)
{
	struct state_anchor a[STATE_ANCHORS];
	char err[300], text[700];
	struct state_view *v;
	int64_t said = 0;
	int tries = 0, rc, n;

	if (state_view_begin(r->state, &v))
		return end(r, EXIT_NOT_READY, "SN-STATE-IO", "the state cannot be read");
	n = state_view_anchors(v, p, a);
	state_view_end(v);
	for (;;) {
		rc = topic_is_same(r->query, r->c->source_topic, p, r->rows[p].applied, a,
				   n < 0 ? 0 : n, err, sizeof(err));
		if (rc >= 0 && !(rc == TOPIC_SHORTER && tries++ < SHORTER_TRIES))
			break;
		if (!retry(r, &said, "SN-KAFKA-UNREACHABLE", err))
			return false;
	}
	if (rc == TOPIC_SAME)
		return true;
	if (rc == TOPIC_UNSURE) {
		log_info(NULL,
			 "partition %d: every record that was read last is superseded by "
			 "now; nothing speaks against it being the same topic",
			 p);
		return true;
	}
	snprintf(text, sizeof(text),
		 "source topic %s was recreated: %s%s; remove the state directory and delete group "
		 "sidenote.%s to start as new",
		 r->c->source_topic, err,
		 rc == TOPIC_OTHER ? " stands another record than the one that was read" : "",
		 r->c->name);
	return end(r, EXIT_BROKEN, "SN-TOPIC-RECREATED", text);
}

static bool check_identity(struct run *r)
{
	for (int p = 0; p < r->n; p++)
		if (r->rows[p].applied > 0 && !same_topic(r, p))
			return false;
	return true;
}

/* notifications.start=beginning on a first start: all history is news, nothing is filled. */
static bool begin_without_fill(struct run *r)
{
	struct state_txn *t;
	int64_t low, high, said = 0;
	char err[300];
	int rc;

	for (int p = 0; p < r->n; p++) {
		while (kafka_watermarks(r->query, r->c->source_topic, p, ANSWER_MS, &low, &high,
					err, sizeof(err)))
			if (!retry(r, &said, "SN-KAFKA-UNREACHABLE", err))
				return false;
		r->rows[p] = STATE_PARTITION_NEW;
		r->rows[p].applied = r->rows[p].start = r->rows[p].base = low;
		r->rows[p].whole = INT64_MAX; /* until the tail has seen the end */
		r->rows[p].caught_wall_ms = kafka_wall_ms();
		r->rows[p].caught_boot_ms = tail_boot_ms();
	}
	rc = state_begin(r->state, &t);
	for (int p = 0; p < r->n && !rc; p++)
		rc = state_partition_set(t, p, &r->rows[p]);
	if (!rc)
		rc = state_commit(t);
	return rc ? end(r, EXIT_NOT_READY, "SN-STATE-IO", state_strerror(rc)) : true;
}

static bool fill(struct run *r)
{
	const struct state_identity who = identity(r);
	const struct state_options so = { .lease_ms = r->c->state_lease_ms,
					  .waiting = *r->c->compacted_topic };
	bool first = true;
	const char *id;
	char err[600];
	int rc;

	for (int p = 0; p < r->n; p++)
		first &= r->published[p].offset < 0;
	state_close(r->state); /* a refill: readers keep the old generation until the switch */
	r->state = NULL;
	if (state_create(&r->state, r->dir, &who, &so, err, sizeof(err)))
		return end(r, EXIT_NOT_READY, "SN-STATE-IO", err);
	if (first && r->c->notifications_start == START_BEGINNING && r->c->notifications_topic[0]) {
		if (!begin_without_fill(r))
			return false;
	} else {
		rc = fill_run(r->c, r->state, r->n, r->published, r->rows, r->o->stop, &id, err,
			      sizeof(err));
		if (rc == FILL_STOPPED)
			return end(r, EXIT_DONE, NULL, NULL);
		if (rc)
			return end(r, rc == FILL_BROKEN ? EXIT_BROKEN : EXIT_NOT_READY, id, err);
	}
	FAULT_POINT("run.filled");
	if (state_make_current(r->state, err, sizeof(err)))
		return end(r, EXIT_NOT_READY, "SN-STATE-IO", err);
	FAULT_POINT("run.current");
	r->filled = true;
	state_dir_sweep(r->dir);
	return true;
}

static bool prepare_state(struct run *r)
{
	r->rows = calloc((size_t)r->n, sizeof(*r->rows));
	if (!r->rows)
		return end(r, EXIT_NOT_READY, "SN-MEMORY", "out of memory");
	if (!open_state(r))
		return false;
	if (r->refill)
		return fill(r);
	if (!read_rows(r) || !check_identity(r))
		return false;
	say_moved(r);
	return true;
}

/* ---- running ---- */

static bool set_up_pipeline(struct run *r)
{
	struct pipeline *p = &r->p;
	const char *cluster = r->c->cluster_name[0] ? r->c->cluster_name : r->cluster_id;

	if (pipeline_init(p, r->c, r->n))
		return end(r, EXIT_NOT_READY, "SN-MEMORY", "out of memory");
	metrics_partitions(r->n);
	p->state = r->state;
	p->filled = r->filled;
	p->offsets_forgotten = r->o->offsets_forgotten;
	p->journal_max_bytes = journal_limit(r->c);
	snprintf(p->cluster, sizeof(p->cluster), "%s", cluster);
	atomic_store(&p->limits.min_compaction_lag_ms, r->source.min_compaction_lag_ms);
	atomic_store(&p->limits.delete_retention_ms, r->source.delete_retention_ms);
	atomic_store(&p->limits.max_message_bytes, max_message_bytes(r));
	p->limits.compacted_partitions = r->compacted.partitions;
	p->limits.notification_partitions = r->notifications.partitions;
	if (!p->publishing && !*r->c->redis_uri)
		pipeline_role(p, "standalone: no notifications are configured");
	return true;
}

/* The log's end where nothing arrives tells that the tail is caught up; a smaller one, that
 * the topic is not what it was. */
static void watch_ends(struct run *r, struct tail *t)
{
	struct standing *s = calloc((size_t)r->n, sizeof(*s));
	int64_t low, high;
	char err[300];

	if (!s)
		return;
	for (int p = 0; p < r->n && !pipeline_stopping(&r->p); p++) {
		int64_t wall = kafka_wall_ms(), boot = tail_boot_ms();
		pipeline_standings(&r->p, s);
		if (kafka_watermarks(r->query, r->c->source_topic, p, ANSWER_MS / 2, &low, &high,
				     err, sizeof(err)))
			break;
		metrics_set_at(METRIC_LOG_END_OFFSET, p, high);
		if (s[p].published.offset > high)
			pipeline_end(
				&r->p, OUTCOME_BROKEN, "SN-OFFSETS-AHEAD",
				"group sidenote.%s: the committed offset of %s [%d] is %" PRId64
				", and the topic ends at %" PRId64
				": moved by hand, or the topic is another one; to go on, set it "
				"right with kafka-consumer-groups.sh --reset-offsets",
				r->c->name, r->c->source_topic, p, s[p].published.offset, high);
		else if (high >= s[p].applied)
			tail_confirm(t, p, low, high, wall, boot);
		else
			log_warn("SN-LOG-END",
				 "%s [%d] ends at %" PRId64 ", before %" PRId64
				 ", which was read already",
				 r->c->source_topic, p, high, s[p].applied);
	}
	tail_confirmed_all(t);
	free(s);
}

static void watch_notifications(struct run *r)
{
	struct topic_settings s;
	char err[300];

	if (r->p.publishing &&
	    !topic_settings(r->query, r->c->notifications_topic, ANSWER_MS / 2, &s, err,
			    sizeof(err)) &&
	    s.known)
		r->notifications = s;
	if (*r->c->compacted_topic &&
	    !topic_settings(r->query, r->c->compacted_topic, ANSWER_MS / 2, &s, err, sizeof(err)) &&
	    s.known)
		r->compacted = s;
	atomic_store(&r->p.limits.max_message_bytes, max_message_bytes(r));
}

static void watch_settings(struct run *r)
{
	struct topic_settings s;
	char err[300];

	watch_notifications(r);

	if (topic_settings(r->query, r->c->source_topic, ANSWER_MS / 2, &s, err, sizeof(err)) ||
	    !s.known)
		return;
	if (!s.compact)
		pipeline_end(&r->p, OUTCOME_BROKEN, "SN-SOURCE-NOT-COMPACTED",
			     "source topic %s is not compacted any more: its log forgets keys",
			     r->c->source_topic);
	if (s.delete_retention_ms < r->source.delete_retention_ms)
		log_info(NULL, "delete.retention.ms of %s is %" PRId64 " now", r->c->source_topic,
			 s.delete_retention_ms);
	lower(&r->source.delete_retention_ms, s.delete_retention_ms);
	lower(&r->source.min_compaction_lag_ms, s.min_compaction_lag_ms);
	atomic_store(&r->p.limits.delete_retention_ms, r->source.delete_retention_ms);
	atomic_store(&r->p.limits.min_compaction_lag_ms, r->source.min_compaction_lag_ms);
}

#define DELETED                                                                                    \
	"source topic %s was deleted; the snapshot stays readable as it was; to read a new topic " \
	"of that name, remove the state directory and delete group sidenote.%s"

/*
 * The topic was away for a moment: is it the one that was read?  Asked before the
 * tail is closed: librdkafka 2.0 cannot close a client whose topic was deleted.
 */
static void look_again(struct run *r)
{
	char err[300], text[700];
	int n = kafka_partitions(r->query, r->c->source_topic, ANSWER_MS, err, sizeof(err));

	snprintf(text, sizeof(text), DELETED, r->c->source_topic, r->c->name);
	if (n == KAFKA_MISSING)
		end(r, EXIT_BROKEN, "SN-SOURCE-MISSING", text);
	else if (n >= 0 && read_rows(r))
		check_identity(r);
}

/* Librdkafka tries again for ever, in silence. */
static void say_away(struct run *r, bool away, const char *err)
{
	if (away && !r->away)
		log_warn("SN-KAFKA-UNREACHABLE", "%s; readers go on, everything else waits", err);
	else if (r->away && !away)
		log_info(NULL, "the brokers answer again");
	r->away = away;
}

static void watch_topic(struct run *r, struct tail *t)
{
	char err[300];
	int n = kafka_partitions(r->query, r->c->source_topic, ANSWER_MS / 2, err, sizeof(err));

	/* who reads says that the right is missing */
	say_away(r, n < 0 && n != KAFKA_MISSING && n != KAFKA_DENIED, err);
	if (n == KAFKA_MISSING)
		pipeline_end(&r->p, OUTCOME_BROKEN, "SN-SOURCE-MISSING", DELETED,
			     r->c->source_topic, r->c->name);
	else if (n > r->n)
		pipeline_end(&r->p, OUTCOME_AGAIN, NULL, "source topic %s has %d partitions now",
			     r->c->source_topic, n);
	else if (n >= 0 && n < r->n)
		pipeline_end(&r->p, OUTCOME_BROKEN, "SN-PARTITIONS-SHRANK",
			     "source topic %s has %d partitions and had %d: it was recreated",
			     r->c->source_topic, n, r->n);
	else if (n >= 0)
		watch_ends(r, t);
}

/* ---- what is asked through the control socket ---- */

static void take_request(struct run *r, struct tail *t)
{
	const struct state_identity who = identity(r);
	const char *word = control_poll(r->control);

	if (!word)
		return;
	if (!strcmp(word, "round")) {
		r->rounds_before = atomic_load(&r->p.rounds);
		atomic_store(&r->p.round_wanted, true);
	} else if (strcmp(word, "rebuild")) {
		control_say(r->control, "error", "unknown request: rebuild and round are known",
			    true);
	} else if (rebuild_start(&r->rebuild, &r->p, t, r->dir, &who)) {
		control_say(r->control, "error", "out of memory", true);
	}
}

static void answer_rebuild(struct run *r, const char *kind, bool last)
{
	char text[600];

	rebuild_text(r->rebuild, text, sizeof(text));
	control_say(r->control, kind, text, last);
}

static void answer_requests(struct run *r)
{
	bool round_done = r->rounds_before >= 0 && atomic_load(&r->p.rounds) > r->rounds_before;

	if (round_done) {
		control_say(r->control, "ok", "round done", true);
		r->rounds_before = -1;
	}
	if (r->rebuild && rebuild_state(r->rebuild) == REBUILD_FAILED) {
		answer_rebuild(r, "error", true);
		rebuild_free(r->rebuild);
		r->rebuild = NULL;
	}
	if (kafka_now_ms() - r->told_ms < 1000)
		return;
	r->told_ms = kafka_now_ms();
	if (r->rebuild)
		answer_rebuild(r, "progress", false);
	else if (r->rounds_before >= 0)
		control_say(r->control, "progress", "reading the topic again", false);
}

static void finish_rebuild(struct run *r)
{
	char err[600];

	if (rebuild_finish(r->rebuild, r->state, err, sizeof(err))) {
		log_error("SN-REBUILD-FAILED", "rebuild: %s; the old generation stays", err);
		control_say(r->control, "error", err, true);
		return;
	}
	log_info(NULL, "rebuild: the new generation is current");
	control_say(r->control, "ok", "the new generation is current", true);
}

/* For `systemctl status`: the line that has changed. */
static void tell_status(struct run *r)
{
	char text[sizeof(r->status)], role[sizeof(r->p.role)], rebuild[300] = "";

	if (r->rebuild)
		rebuild_text(r->rebuild, rebuild, sizeof(rebuild));
	pthread_mutex_lock(&r->p.lock);
	memcpy(role, r->p.role, sizeof(role));
	bool ready = r->p.caught_up;
	pthread_mutex_unlock(&r->p.lock);
	snprintf(text, sizeof(text), "%s, %s%s%s", ready ? "ready" : "not ready", role,
		 r->rebuild ? "; rebuild: " : "", rebuild);
	if (!strcmp(text, r->status))
		return;
	memcpy(r->status, text, sizeof(text));
	systemd_status("%s", text);
}

static void supervise(struct run *r, struct tail *t)
{
	int64_t watched = kafka_now_ms(), read = watched;
	bool ready = false;

	while (!pipeline_stopping(&r->p)) {
		if (atomic_load(r->o->stop)) {
			pipeline_end(&r->p, OUTCOME_DONE, NULL, "stopping");
			break;
		}
		pipeline_wait_end(&r->p, SUPERVISE_MS);
		take_request(r, t);
		answer_requests(r);
		tell_status(r);
		pthread_mutex_lock(&r->p.lock);
		bool now_ready = r->p.caught_up;
		pthread_mutex_unlock(&r->p.lock);
		if (now_ready && !ready)
			log_info(NULL, "ready: the snapshot of %s in %s has caught up",
				 r->c->source_topic, r->c->state_dir);
		ready = now_ready;
		if (kafka_now_ms() - watched >= WATCH_MS) {
			watch_topic(r, t);
			if (atomic_exchange(&r->p.limit_wanted, false))
				watch_notifications(r);
			watched = kafka_now_ms();
		}
		if (kafka_now_ms() - read >= SETTINGS_MS) {
			watch_settings(r);
			read = kafka_now_ms();
		}
	}
}

static int exit_code(enum outcome o)
{
	static const int codes[] = {
		[RUNNING] = EXIT_DONE,        [OUTCOME_DONE] = EXIT_DONE,
		[OUTCOME_AGAIN] = EXIT_DONE,  [OUTCOME_REFILL] = EXIT_DONE,
		[OUTCOME_SWITCH] = EXIT_DONE, [OUTCOME_UNREACHABLE] = EXIT_NOT_READY,
		[OUTCOME_USAGE] = EXIT_USAGE, [OUTCOME_BROKEN] = EXIT_BROKEN
	};
	return codes[o];
}

static bool goes_on(enum outcome o)
{
	return o == OUTCOME_AGAIN || o == OUTCOME_REFILL || o == OUTCOME_SWITCH;
}

/* What the end of the pipeline means for the process, before anything is closed. */
static void settle(struct run *r)
{
	enum outcome out = atomic_load(&r->p.outcome);

	if (out == OUTCOME_AGAIN)
		look_again(r);
	if (!r->ended)
		r->code = exit_code(out);
	if (r->ended || !goes_on(out))
		kafka_ending(r->code);
}

static void run_threads(struct run *r)
{
	struct tail *tail = NULL;
	struct owner *owner = NULL;
	struct frontier *frontier = NULL;

	if (tail_start(&tail, &r->p, r->rows)) {
		pipeline_end(&r->p, OUTCOME_UNREACHABLE, "SN-START", "the tail could not start");
	} else if ((r->p.publishing || *r->c->redis_uri) &&
		   owner_start(&owner, &r->p, r->query, r->peek)) {
		pipeline_end(&r->p, OUTCOME_UNREACHABLE, "SN-START", "the owner could not start");
	} else if (*r->c->compacted_topic && frontier_start(&frontier, &r->p)) {
		pipeline_end(&r->p, OUTCOME_UNREACHABLE, "SN-START",
			     "the frontier could not start");
	} else {
		supervise(r, tail);
	}
	settle(r);
	owner_join(owner);
	FAULT_POINT("run.owner_ended");
	frontier_join(frontier);
	rebuild_halt(r->rebuild);
	tail_join(tail);
	FAULT_POINT("run.tail_ended");
}

/* True: once more, `*refill` saying how. */
static bool run_once(const struct config *c, const struct run_options *o, struct state_dir *dir,
		     struct control *control, struct http *http, bool was_running, bool *refill,
		     int *code)
{
	struct run r = { .c = c,
			 .o = o,
			 .dir = dir,
			 .control = control,
			 .rounds_before = -1,
			 .was_running = was_running,
			 .refill = *refill };
	bool again = false;

	if (reach_cluster(&r) && ask_source(&r) && ask_notifications(&r) && ask_compacted(&r) &&
	    ask_committed(&r) && prepare_state(&r) && set_up_pipeline(&r)) {
		http_attach(http, &r.p);
		run_threads(&r);
		http_detach(http);
		enum outcome out = atomic_load(&r.p.outcome);
		again = !r.ended && goes_on(out);
		if (out == OUTCOME_SWITCH)
			finish_rebuild(&r);
		else
			control_say(control, "error", "the pipeline has ended", true);
		*refill = out == OUTCOME_REFILL;
	}
	*code = r.code;
	rebuild_free(r.rebuild);
	pipeline_free(&r.p);
	state_close(r.state);
	free(r.published);
	free(r.by_hand);
	free(r.rows);
	kafka_free(r.query);
	kafka_free(r.peek);
	return again;
}

int run_sidecar(const struct config *c, const struct run_options *o)
{
	struct state_dir *dir;
	struct control *control;
	struct http *http = NULL;
	bool refill = false;
	char err[500];
	int code;

	if (mirror_check(c, err, sizeof(err))) {
		log_error("SN-REDIS-CONFIG", "%s", err);
		return EXIT_USAGE;
	}
	int rc = state_dir_open(&dir, c->state_dir, err, sizeof(err));
	if (rc) {
		log_error(rc == -EBUSY ? "SN-STATE-BUSY" : "SN-STATE-IO", "%s", err);
		return rc == -EBUSY || rc == -EACCES || rc == -ENOENT ? EXIT_USAGE : EXIT_NOT_READY;
	}
	if (control_open(&control, c->state_dir, err, sizeof(err))) {
		log_error("SN-CONTROL", "%s", err);
		state_dir_close(dir);
		return EXIT_USAGE;
	}
	if (*c->http_listen && http_start(&http, c, err, sizeof(err))) {
		log_error("SN-HTTP", "%s", err);
		control_close(control);
		state_dir_close(dir);
		return EXIT_USAGE;
	}
	bool again = false;
	do {
		/* what a rebuild has replaced, or a fill that was killed has left */
		state_dir_sweep(dir);
		again = run_once(c, o, dir, control, http, again, &refill, &code);
	} while (again && !atomic_load(o->stop));
	http_stop(http);
	control_close(control);
	state_dir_close(dir);
	return code;
}
