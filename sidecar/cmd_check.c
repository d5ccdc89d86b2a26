/*
 * Is the configuration right, and is everything there that it needs: options,
 * state directory, and with --online the brokers, topics, offsets and rights.
 *
 * Only looks: joins no group, opens no transaction (that would fence a leader),
 * creates and writes nothing.
 */
#include "acls.h"
#include "cmd.h"
#include "config.h"
#include "json.h"
#include "kafka.h"
#include "log.h"
#include "mirror.h"
#include "shared_state.h"
#include "topic.h"

#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

enum {
	ANSWER_MS = 5000, /* for one question to the broker */
	ALIVE_MS = 4000,  /* a running sidecar commits every second */
	TEXT_MAX = 1000,
};
static const int64_t MIB = 1 << 20;
static const int64_t SPACE_LEAST = 64LL << 20; /* below it the tail waits */
static const int64_t SPACE_LITTLE = 1LL << 30;
static const int64_t MAP_BYTES = 1LL << 40; /* of address space, for the snapshot */

enum level { FINE, NOTE, WARNING, FAULT };

struct check {
	struct config c;
	bool online, acls, json;
	bool group_denied;                /* by the broker, in an answer to something else */
	int faults, warnings, unanswered; /* faults: all; that a broker did not answer */
	struct sstate *snapshot;
	struct kafka_counts counts;
	rd_kafka_t *rk;
	char cluster_id[128];
	struct topic_settings source, notifications;
};

/* ---- saying ---- */

static void put_json_text(const char *text)
{
	char *quoted = malloc(JSON_STRING_MAX(strlen(text)) + 1);

	if (quoted)
		*json_put_string(quoted, text, strlen(text)) = '\0';
	fputs(quoted ? quoted : "\"\"", stdout);
	free(quoted);
}

/* One finding is one line.  `id` of warnings and faults, see docs/operations.md. */
__attribute__((format(printf, 4, 5))) static void say(struct check *k, enum level l, const char *id,
						      const char *fmt, ...)
{
	static const char *const names[] = { "ok", "note", "warning", "fault" };
	char text[TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	k->faults += l == FAULT;
	k->warnings += l == WARNING;
	if (!k->json) {
		printf("%-7s  %s%s%s\n", names[l], id ? id : "", id ? ": " : "", text);
		return;
	}
	printf("{\"level\":\"%s\",\"id\":", names[l]);
	if (id)
		put_json_text(id);
	else
		fputs("null", stdout);
	fputs(",\"text\":", stdout);
	put_json_text(text);
	fputs("}\n", stdout);
}

static void say_findings(struct check *k, const struct finding *f, int n)
{
	for (int i = 0; i < n; i++)
		say(k, f[i].stop ? FAULT : WARNING, f[i].id, "%s", f[i].text);
}

static void size_text(int64_t bytes, char *out, size_t len)
{
	if (bytes >= 10LL << 30)
		snprintf(out, len, "%lld GiB", (long long)(bytes >> 30));
	else
		snprintf(out, len, "%lld MiB", (long long)(bytes / MIB));
}

/* ---- options ---- */

static void print_option(char *line)
{
	char *equals = strchr(line, '=');

	line[strcspn(line, "\n")] = '\0';
	if (!equals)
		return;
	*equals = '\0';
	fputs("{\"option\":", stdout);
	put_json_text(line);
	fputs(",\"value\":", stdout);
	put_json_text(equals + 1);
	fputs("}\n", stdout);
}

static void print_options(const struct check *k)
{
	char *text = NULL, *line, *rest;
	size_t len;
	FILE *f;

	if (!k->json) {
		config_dump(&k->c, stdout);
		putchar('\n');
		return;
	}
	f = open_memstream(&text, &len);
	if (!f)
		return;
	config_dump(&k->c, f);
	fclose(f);
	for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		print_option(line);
	free(text);
}

static void print_acls(const struct check *k)
{
	struct acl a[ACLS_MAX];
	int n = acls_needed(&k->c, a);

	if (!k->json) {
		acls_print(&k->c, stdout);
		return;
	}
	for (int i = 0; i < n; i++) {
		printf("{\"operation\":\"%s\",\"resource\":\"%s\",\"name\":\"%s\",\"why\":",
		       a[i].operation, acls_resource(a[i].resource), a[i].name);
		put_json_text(a[i].why);
		fputs("}\n", stdout);
	}
}

/* ---- librdkafka's properties, without asking a broker ---- */

static bool check_properties(struct check *k)
{
	static const enum kafka_role roles[] = { KAFKA_QUERY, KAFKA_TAIL, KAFKA_FILL, KAFKA_OWNER,
						 KAFKA_PUBLISH };
	struct config c = k->c;
	struct config_pair *v = calloc(c.kafka.n + 1, sizeof(*v));
	char err[500];
	size_t n = 0;

	if (!v)
		return false;
	for (size_t i = 0; i < c.kafka.n; i++) /* nowhere to connect to */
		if (strcmp(c.kafka.v[i].key, "bootstrap.servers") != 0)
			v[n++] = c.kafka.v[i];
	c.kafka = (struct config_pairs){ v, n };
	for (size_t i = 0; i < sizeof(roles) / sizeof(*roles); i++) {
		rd_kafka_t *rk = kafka_new(&c, roles[i], NULL, err, sizeof(err));

		if (!rk) {
			say(k, FAULT, "SN-KAFKA-CONFIG", "%s", err);
			break;
		}
		kafka_free(rk);
	}
	free(v);
	if (mirror_check(&k->c, err, sizeof(err)))
		say(k, FAULT, "SN-REDIS-CONFIG", "%s", err);
	if (!k->faults)
		say(k, FINE, NULL, "options: complete and consistent");
	return !k->faults;
}

/* ---- the state directory ---- */

static const struct file_system {
	long magic;
	const char *name;
	enum level level;
} file_systems[] = {
	{ 0x6969, "NFS", FAULT },          { 0x517B, "SMB", FAULT },
	{ 0xFE534D42, "SMB", FAULT },      { 0xFF534D42, "CIFS", FAULT },
	{ 0x5346414F, "AFS", FAULT },      { 0x73757245, "Coda", FAULT },
	{ 0x00C36400, "Ceph", FAULT },     { 0x0BD00BD0, "Lustre", FAULT },
	{ 0x01161970, "GFS2", FAULT },     { 0x7461636F, "OCFS2", FAULT },
	{ 0x01021997, "9P", FAULT },       { 0x65735546, "FUSE", WARNING },
	{ 0x01021994, "tmpfs", NOTE },     { 0x858458F6, "ramfs", NOTE },
	{ 0x794C7630, "overlayfs", NOTE },
};

static void check_file_system(struct check *k, const char *dir)
{
	const struct file_system *f = NULL;
	struct statfs s;

	if (statfs(dir, &s))
		return;
	for (size_t i = 0; i < sizeof(file_systems) / sizeof(*file_systems); i++)
		if (file_systems[i].magic == (long)(s.f_type & 0xFFFFFFFF))
			f = &file_systems[i];
	if (f && f->level == FAULT)
		say(k, FAULT, "SN-STATE-FILESYSTEM",
		    "%s is on %s, where a memory map shared by processes is not what all of them "
		    "see; choose a directory on a local disk",
		    dir, f->name);
	else if (f && f->level == WARNING)
		say(k, WARNING, "SN-STATE-FILESYSTEM",
		    "%s is on %s, whose memory maps may not be what other processes see; a local "
		    "disk is sure",
		    dir, f->name);
	else if (f)
		say(k, NOTE, NULL,
		    "%s is on %s: what is lost with it is filled anew, and deletes that were not "
		    "published yet are told as cause=gap",
		    dir, f->name);
}

static void check_space(struct check *k, const char *dir)
{
	char free_text[32], journal_text[32];
	struct statfs s;
	int64_t bytes, journal = k->c.journal_max_bytes;

	if (statfs(dir, &s))
		return;
	bytes = (int64_t)s.f_bavail * s.f_bsize;
	if (!journal)
		journal = bytes / 4 < 8LL << 30 ? bytes / 4 : 8LL << 30;
	size_text(bytes, free_text, sizeof(free_text));
	size_text(journal, journal_text, sizeof(journal_text));
	if (bytes < SPACE_LEAST)
		say(k, FAULT, "SN-DISK-FULL", "%s has %s free: nothing can be stored; free some",
		    dir, free_text);
	else if (bytes < SPACE_LITTLE || (k->c.journal_max_bytes && bytes < journal))
		say(k, WARNING, "SN-DISK-SPACE",
		    "%s has %s free, and the journal may grow to %s while notifications cannot be "
		    "published: free some, or lower journal.max.bytes",
		    dir, free_text, journal_text);
	else
		say(k, FINE, NULL, "disk: %s free for %s, journal up to %s", free_text, dir,
		    journal_text);
}

static void check_address_space(struct check *k)
{
	struct rlimit r;

	if (!getrlimit(RLIMIT_AS, &r) && r.rlim_cur != RLIM_INFINITY &&
	    (int64_t)r.rlim_cur < MAP_BYTES + (MAP_BYTES >> 4))
		say(k, FAULT, "SN-ADDRESS-SPACE",
		    "the address space is limited to %lld MiB (ulimit -v), and the snapshot is "
		    "mapped into 1 TiB of it, which costs no memory: take the limit away",
		    (long long)((int64_t)r.rlim_cur / MIB));
}

/* A directory that is there already.  Whether it can be used. */
static bool check_existing(struct check *k, const char *dir, const struct stat *st)
{
	if (!S_ISDIR(st->st_mode)) {
		say(k, FAULT, "SN-STATE-IO", "%s is no directory; correct state.dir", dir);
		return false;
	}
	if (access(dir, R_OK | W_OK | X_OK)) {
		say(k, FAULT, "SN-STATE-IO",
		    "%s: %s; it must belong to the user that sidenote "
		    "runs as",
		    dir, strerror(errno));
		return false;
	}
	if ((st->st_mode & (S_ISGID | S_IRGRP | S_IXGRP)) != (S_ISGID | S_IRGRP | S_IXGRP))
		say(k, WARNING, "SN-STATE-MODE",
		    "%s has mode %04o: apps that are in its group cannot read the snapshot; "
		    "chgrp GROUP %s && chmod 2750 %s",
		    dir, (unsigned)(st->st_mode & 07777), dir, dir);
	return true;
}

static bool check_parent(struct check *k, const char *dir, const char *parent)
{
	if (access(parent, W_OK | X_OK)) {
		say(k, FAULT, "SN-STATE-IO",
		    "%s does not exist and cannot be made: %s: %s; mkdir -p %s && chown USER:GROUP "
		    "%s && chmod 2750 %s",
		    dir, parent, strerror(errno), dir, dir, dir);
		return false;
	}
	say(k, FINE, NULL, "state: %s will be made, mode 2750", dir);
	return true;
}

static void compare_text(struct check *k, const char *what, const char *option,
			 const char *expected)
{
	char text[300];

	if (sstate_text(k->snapshot, what, text, sizeof(text)) || !*text || !*expected ||
	    !strcmp(text, expected))
		return;
	say(k, FAULT, "SN-STATE-FOREIGN",
	    "%s holds the state of %s %s and not of %s: choose another state.dir, or remove it",
	    k->c.state_dir, option, text, expected);
}

static void describe_snapshot(struct check *k)
{
	char role[160] = "", bytes[32];
	struct sstate_stat st;
	int rc = sstate_stat(k->snapshot, &st);

	if (rc) {
		say(k, WARNING, "SN-STATE-UNREADABLE", "%s: %s", k->c.state_dir,
		    sstate_strerror(rc));
		return;
	}
	compare_text(k, "name", "pipeline", k->c.name);
	compare_text(k, "topic", "topic", k->c.source_topic);
	sstate_text(k->snapshot, "role", role, sizeof(role));
	size_text((int64_t)st.file_bytes, bytes, sizeof(bytes));
	say(k, FINE, NULL, "state: %s: %" PRIu64 " keys, %s", k->c.state_dir, st.keys, bytes);
	if (st.heartbeat_age_ms >= 0 && st.heartbeat_age_ms < ALIVE_MS)
		say(k, NOTE, NULL, "a sidecar is running on it: %s", role);
	else if (st.heartbeat_age_ms >= 0)
		say(k, NOTE, NULL, "no sidecar is running on it; the last commit was %lld s ago",
		    (long long)(st.heartbeat_age_ms / 1000));
}

static void check_snapshot(struct check *k)
{
	char current[4096];
	struct stat st;
	int rc = sstate_open(&k->snapshot, k->c.state_dir);

	snprintf(current, sizeof(current), "%s/current", k->c.state_dir);
	if (!rc)
		describe_snapshot(k);
	else if (rc == SSTATE_FORMAT)
		say(k, FAULT, "SN-STATE-FORMAT",
		    "%s was written by a newer sidenote: update this one, or remove it to fill "
		    "anew",
		    k->c.state_dir);
	else if (rc == -EACCES)
		say(k, FAULT, "SN-STATE-IO", "%s: %s", k->c.state_dir, strerror(EACCES));
	else if (!lstat(current, &st))
		say(k, WARNING, "SN-STATE-UNREADABLE",
		    "%s has a snapshot that cannot be read (%s): `run` looks at it and fills it "
		    "anew if it must",
		    k->c.state_dir, sstate_strerror(rc));
	else
		say(k, FINE, NULL, "state: %s has no snapshot yet: the first start fills one",
		    k->c.state_dir);
}

/* The socket beside the snapshot, through which `rebuild` asks. */
static void check_path(struct check *k)
{
	size_t most = sizeof(((struct sockaddr_un *)0)->sun_path) - sizeof("/control");

	if (strlen(k->c.state_dir) > most)
		say(k, FAULT, "SN-CONTROL",
		    "%s is longer than the %zu bytes that leave room for the control socket",
		    k->c.state_dir, most);
}

static void check_state(struct check *k)
{
	char *copy = strdup(k->c.state_dir);
	const char *dir = k->c.state_dir, *parent = copy ? dirname(copy) : ".";
	struct stat st;
	bool there = !stat(dir, &st), usable;

	if (!there && errno != ENOENT) {
		say(k, FAULT, "SN-STATE-IO", "%s: %s", dir, strerror(errno));
		usable = false;
	} else {
		usable = there ? check_existing(k, dir, &st) : check_parent(k, dir, parent);
	}
	check_path(k);
	if (usable) {
		check_file_system(k, there ? dir : parent);
		check_space(k, there ? dir : parent);
		check_address_space(k);
		if (there)
			check_snapshot(k);
	}
	free(copy);
}

/* ---- brokers ---- */

static bool unreachable(struct check *k, const char *err)
{
	k->unanswered++;
	say(k, FAULT, "SN-KAFKA-UNREACHABLE",
	    "%s; is kafka.bootstrap.servers right, and does a "
	    "firewall or a listener stand between?",
	    err);
	return false;
}

/* Callbacks tell why, and run only when somebody polls. */
static bool refused_login(struct check *k)
{
	rd_kafka_message_t *m = rd_kafka_consumer_poll(k->rk, 100);

	if (m)
		rd_kafka_message_destroy(m);
	return atomic_load(&k->counts.auth_failed);
}

static bool check_brokers(struct check *k)
{
	struct kafka_hooks hooks = { .counts = &k->counts };
	char err[500];

	k->rk = kafka_new(&k->c, KAFKA_QUERY, &hooks, err, sizeof(err));
	if (!k->rk) {
		say(k, FAULT, "SN-KAFKA-CONFIG", "%s", err);
		return false;
	}
	if (kafka_cluster_id(k->rk, ANSWER_MS, k->cluster_id, sizeof(k->cluster_id), err,
			     sizeof(err))) {
		if (!refused_login(k))
			return unreachable(k, err);
		say(k, FAULT, "SN-KAFKA-AUTH",
		    "the brokers refuse these credentials or this certificate: see the line on "
		    "stderr, and the kafka.sasl.* and kafka.ssl.* options");
		return false;
	}
	say(k, FINE, NULL, "brokers: cluster %s", *k->cluster_id ? k->cluster_id : "without id");
	if (k->snapshot)
		compare_text(k, "cluster_id", "cluster", k->cluster_id);
	return true;
}

/* ---- topics ---- */

static void describe_topic(struct check *k, const char *what, const char *topic,
			   const struct topic_settings *s)
{
	if (!s->known)
		say(k, FINE, NULL, "%s: %s, %d partitions", what, topic, s->partitions);
	else
		say(k, FINE, NULL,
		    "%s: %s, %d partitions, cleanup.policy=%s%s%s, max.message.bytes=%" PRId64
		    ", %s=%" PRId64,
		    what, topic, s->partitions, s->compact ? "compact" : "",
		    s->compact && s->delete ? "," : "", s->delete ? "delete" : "",
		    s->max_message_bytes, s->compact ? "delete.retention.ms" : "retention.ms",
		    s->compact ? s->delete_retention_ms : s->retention_ms);
}

/* Whether a fetch is allowed: only the broker's answer to one can tell. */
static int may_read(struct check *k, const char *topic)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(1);
	int64_t until = kafka_now_ms() + ANSWER_MS;
	int rc = KAFKA_UNREACHABLE;

	rd_kafka_topic_partition_list_add(l, topic, 0)->offset = RD_KAFKA_OFFSET_END;
	rd_kafka_assign(k->rk, l);
	rd_kafka_topic_partition_list_destroy(l);
	while (rc == KAFKA_UNREACHABLE && kafka_now_ms() < until) {
		rd_kafka_message_t *m = rd_kafka_consumer_poll(k->rk, 100);

		if (!m)
			continue;
		if (!m->err || m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
			rc = 0;
		else if (m->err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)
			rc = KAFKA_DENIED;
		else if (m->err == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED)
			k->group_denied = true; /* told once, to whoever polls first */
		rd_kafka_message_destroy(m);
	}
	rd_kafka_assign(k->rk, NULL);
	return rc;
}

static void check_reading(struct check *k, const char *topic, enum level denied)
{
	int rc = may_read(k, topic);

	if (rc == KAFKA_DENIED)
		say(k, denied, denied == FAULT ? "SN-SOURCE-DENIED" : "SN-READBACK",
		    "no right to read: grant Read on topic %s, see `sidenote check --acls`", topic);
	else if (rc)
		say(k, WARNING, "SN-KAFKA-UNREACHABLE",
		    "a read of %s is not answered: is every broker reachable under the name that "
		    "it advertises?",
		    topic);
}

static bool check_source(struct check *k)
{
	struct finding f[FINDINGS_MAX];
	const char *topic = k->c.source_topic;
	char err[300];
	int rc = topic_settings(k->rk, topic, ANSWER_MS, &k->source, err, sizeof(err));

	if (rc == KAFKA_MISSING)
		say(k, FAULT, "SN-SOURCE-MISSING",
		    "source topic %s does not exist on this cluster, or the rights to see it are "
		    "missing; create it or correct source.topic",
		    topic);
	else if (rc == KAFKA_DENIED)
		say(k, FAULT, "SN-SOURCE-DENIED",
		    "%s; grant Read on topic %s, see `sidenote check --acls`", err, topic);
	else if (rc)
		unreachable(k, err);
	if (rc)
		return false;
	describe_topic(k, "source topic", topic, &k->source);
	say_findings(k, f, topic_source_findings(&k->c, &k->source, f));
	check_reading(k, topic, FAULT);
	return true;
}

static void notifications_missing(struct check *k, const char *topic)
{
	char command[600];

	topic_create_command(&k->c, topic, k->source.partitions, command, sizeof(command));
	if (k->c.notifications_create)
		say(k, NOTE, NULL, "notification topic %s does not exist: `run` will create it",
		    topic);
	else
		say(k, FAULT, "SN-NOTIFICATIONS-MISSING",
		    "notification topic %s does not exist; create it with: %s (or set "
		    "notifications.create=true)",
		    topic, command);
}

static void check_notifications(struct check *k)
{
	struct finding f[FINDINGS_MAX];
	const char *topic = k->c.notifications_topic;
	char err[300];
	int rc = topic_settings(k->rk, topic, ANSWER_MS, &k->notifications, err, sizeof(err));

	if (rc == KAFKA_MISSING) {
		notifications_missing(k, topic);
	} else if (rc == KAFKA_DENIED) {
		say(k, FAULT, "SN-PUBLISH-DENIED",
		    "%s; grant Write on topic %s, see `sidenote check --acls`", err, topic);
	} else if (rc) {
		unreachable(k, err);
	} else {
		describe_topic(k, "notification topic", topic, &k->notifications);
		say_findings(k, f,
			     topic_notification_findings(&k->c, &k->source, &k->notifications, f));
		check_reading(k, topic, WARNING);
		say(k, NOTE, NULL,
		    "the rights to write to it and to transactional id sidenote.%s are not tried: "
		    "that would stop a sidecar that leads",
		    k->c.name);
	}
}

static void check_compacted(struct check *k)
{
	struct config c = k->c; /* the same is asked of it as of the other one */
	struct topic_settings s;
	struct finding f[FINDINGS_MAX];
	char err[300];
	int rc = topic_settings(k->rk, c.compacted_topic, ANSWER_MS, &s, err, sizeof(err));

	c.notifications_topic = c.compacted_topic;
	if (rc == KAFKA_MISSING) {
		notifications_missing(k, c.compacted_topic);
	} else if (rc == KAFKA_DENIED) {
		say(k, FAULT, "SN-PUBLISH-DENIED",
		    "%s; grant Write and Describe on it, see `sidenote check --acls`", err);
	} else if (rc) {
		unreachable(k, err);
	} else {
		describe_topic(k, "topic of compaction", c.compacted_topic, &s);
		say_findings(k, f, topic_notification_findings(&c, &k->source, &s, f));
	}
}

/* ---- positions ---- */

struct positions {
	int without; /* partitions without a committed offset */
	int64_t lag, records;
};

static void compare_partition(struct check *k, int p, int64_t low, int64_t high,
			      const struct kafka_committed *c, struct positions *sum)
{
	struct sstate_partition row;
	const char *topic = k->c.source_topic;

	sum->records += high - low;
	if (c && c->offset < 0)
		sum->without++;
	else if (c)
		sum->lag += high > c->offset ? high - c->offset : 0;
	if (c && c->offset > high)
		say(k, FAULT, "SN-TOPIC-SHORTER",
		    "%s [%d] ends at %" PRId64 ", but notifications were published up to %" PRId64
		    ": the topic was recreated or truncated; if that was meant, delete group "
		    "sidenote.%s and remove %s",
		    topic, p, high, c->offset, k->c.name, k->c.state_dir);
	if (!k->snapshot || sstate_partition(k->snapshot, p, &row))
		return;
	if (row.applied > high)
		say(k, FAULT, "SN-TOPIC-RECREATED",
		    "%s [%d] ends at %" PRId64 ", and was read up to %" PRId64
		    ": it was recreated or truncated; if that was meant, delete group sidenote.%s "
		    "and remove %s",
		    topic, p, high, row.applied, k->c.name, k->c.state_dir);
	if (c && c->offset < 0 && row.published >= 0)
		say(k, FAULT, "SN-OFFSETS-LOST",
		    "group sidenote.%s has no committed offset for %s [%d] any more, and had one "
		    "(%" PRId64 "): topic recreated, group expired or reset",
		    k->c.name, topic, p, row.published);
}

static void check_partition_count(struct check *k)
{
	struct sstate_stat st;

	if (k->snapshot && !sstate_stat(k->snapshot, &st) && st.partitions > k->source.partitions)
		say(k, FAULT, "SN-PARTITIONS-SHRANK",
		    "source topic %s has %d partitions and had %d: it was recreated; delete group "
		    "sidenote.%s and remove %s to start as new",
		    k->c.source_topic, k->source.partitions, (int)st.partitions, k->c.name,
		    k->c.state_dir);
}

static struct kafka_committed *ask_committed(struct check *k)
{
	struct kafka_committed *c = calloc((size_t)k->source.partitions, sizeof(*c));
	char err[300];
	int rc;

	if (!c || !*k->c.notifications_topic)
		goto none;
	rc = kafka_committed(k->rk, k->c.source_topic, k->source.partitions, ANSWER_MS, c, err,
			     sizeof(err));
	if (!rc)
		return c;
	if (rc == KAFKA_DENIED_GROUP || k->group_denied)
		say(k, FAULT, "SN-GROUP-DENIED",
		    "%s; grant Read on group sidenote.%s, see `sidenote check --acls`", err,
		    k->c.name);
	else
		say(k, WARNING, "SN-KAFKA-UNREACHABLE",
		    "%s: a transaction may have been open for seconds; look again", err);
none:
	free(c);
	return NULL;
}

static void describe_group(struct check *k, const struct positions *sum)
{
	char group[300], err[300];
	int members;

	kafka_group_id(&k->c, group, sizeof(group));
	members = kafka_group_members(k->rk, group, ANSWER_MS, err, sizeof(err));
	if (members == KAFKA_DENIED_GROUP)
		say(k, FAULT, "SN-GROUP-DENIED",
		    "%s; grant Read on group %s, see `sidenote check --acls`", err, group);
	else if (members < 0)
		say(k, WARNING, "SN-KAFKA-UNREACHABLE", "%s", err);
	else if (sum->without == k->source.partitions)
		say(k, NOTE, NULL, "group %s: %d members, nothing committed: a first start", group,
		    members);
	else
		say(k, FINE, NULL, "group %s: %d members, %" PRId64 " offsets behind the source",
		    group, members, sum->lag);
}

static void check_positions(struct check *k)
{
	struct kafka_committed *c = ask_committed(k);
	struct positions sum = { 0 };
	int64_t low, high;
	char err[300];
	int p;

	check_partition_count(k);
	for (p = 0; p < k->source.partitions; p++) {
		if (kafka_watermarks(k->rk, k->c.source_topic, p, ANSWER_MS, &low, &high, err,
				     sizeof(err)))
			break;
		compare_partition(k, p, low, high, c ? &c[p] : NULL, &sum);
	}
	if (p < k->source.partitions)
		unreachable(k, err);
	else
		say(k, FINE, NULL, "source topic %s: %" PRId64 " offsets from its start to its end",
		    k->c.source_topic, sum.records);
	if (c)
		describe_group(k, &sum);
	free(c);
}

/* ---- Redis ---- */

static void tell_redis(void *opaque, enum mirror_told level, const char *id, const char *text)
{
	static const enum level levels[] = { [MIRROR_FINE] = FINE,
					     [MIRROR_NOTE] = NOTE,
					     [MIRROR_WARNING] = WARNING,
					     [MIRROR_FAULT] = FAULT };

	say(opaque, levels[level], id, "%s", text);
}

static void check_redis(struct check *k)
{
	const char *cluster = *k->cluster_id ? k->cluster_id : k->c.cluster_name;

	if (*k->c.redis_uri && !mirror_inspect(&k->c, cluster, k->source.partitions, tell_redis, k))
		k->unanswered++;
}

static void check_online(struct check *k)
{
	if (!check_brokers(k) || !check_source(k))
		return;
	if (*k->c.notifications_topic)
		check_notifications(k);
	else
		say(k, NOTE, NULL, "no notifications: notifications.topic is empty");
	if (*k->c.compacted_topic)
		check_compacted(k);
	check_positions(k);
	check_redis(k);
}

/* ---- all of it ---- */

static bool *flag_of(struct check *k, const char *arg)
{
	return !strcmp(arg, "--online") ? &k->online
	       : !strcmp(arg, "--acls") ? &k->acls
	       : !strcmp(arg, "--json") ? &k->json
					: NULL;
}

static int take_arguments(struct check *k, int argc, char **argv)
{
	char err[TEXT_MAX];
	int next = argc;
	int rc = config_sources(&k->c, argc, argv, &next, err, sizeof(err));

	for (int i = rc ? 1 : next; i < argc; i++) {
		bool *flag = flag_of(k, argv[i]);

		if (flag) {
			*flag = true;
		} else if (!rc) {
			fprintf(stderr,
				"sidenote check: unexpected argument '%s'; see `sidenote help "
				"check`\n",
				argv[i]);
			return -EINVAL;
		}
	}
	if (!rc)
		rc = config_check(&k->c, err, sizeof(err));
	if (rc)
		say(k, FAULT, "SN-CONFIG", "%s", err);
	return rc;
}

static int conclude(const struct check *k)
{
	if (!k->json && k->faults)
		printf("\nnot fit to run: %d fault%s\n", k->faults, k->faults == 1 ? "" : "s");
	else if (!k->json)
		printf("\nfit to run%s\n", k->warnings ? ", with warnings" : "");
	if (!k->faults)
		return EXIT_DONE;
	return k->faults == k->unanswered ? EXIT_NOT_READY : EXIT_USAGE;
}

static int check(struct check *k)
{
	if (k->acls)
		print_acls(k);
	if (k->acls && !k->online)
		return EXIT_DONE;
	if (!k->acls)
		print_options(k);
	if (check_properties(k)) {
		check_state(k);
		if (k->online)
			check_online(k);
	}
	return conclude(k);
}

int cmd_check(int argc, char **argv)
{
	struct check k = { 0 };
	int code = EXIT_USAGE;

	log_init(LOG_LEVEL_ERROR, LOG_TEXT);
	config_init(&k.c);
	if (!take_arguments(&k, argc, argv))
		code = check(&k);
	sstate_close(k.snapshot);
	kafka_free(k.rk);
	config_free(&k.c);
	return code;
}
