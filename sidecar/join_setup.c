#include "join_setup.h"
#include "cmd.h"
#include "log.h"
#include "topic.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
	ANSWER_MS = 5000,
	RETRY_MS = 1000,
	SAY_MS = 10000, /* between lines about the same trouble */
	AUTH_GRACE_MS = 10000,
	CREATED_MS = 10000, /* until every broker knows a topic that was just created */
	TEXT_BYTES = 800,
};

static bool end(struct join_setup *s, int code, const char *id, const char *text)
{
	if (text)
		log_error(id, "%s", text);
	s->code = code;
	return false;
}

/* False: asked to stop. */
static bool pause_ms(struct join_setup *s, int ms)
{
	for (; ms > 0; ms -= 50) {
		if (atomic_load(s->stop))
			return end(s, EXIT_DONE, NULL, NULL);
		usleep(50000);
	}
	return true;
}

/* Say a trouble once per SAY_MS while something is tried again. */
static bool retry(struct join_setup *s, int64_t *said, const char *id, const char *what)
{
	int64_t now = kafka_now_ms();

	if (*said == 0 || now - *said >= SAY_MS) {
		log_warn(id, "%s; trying again", what);
		*said = now;
	}
	return pause_ms(s, RETRY_MS);
}

/* ---- brokers ---- */

static bool reach_cluster(struct join_setup *s)
{
	int64_t began = kafka_now_ms(), said = 0;
	char err[300] = "out of memory";

	if (!join_client_init(&s->client, s->c, JOIN_QUERY))
		s->query =
			kafka_new(&s->client.config, s->client.role, &s->hooks, err, sizeof(err));
	if (!s->query)
		return end(s, EXIT_USAGE, "SN-KAFKA-CONFIG", err);
	while (kafka_cluster_id(s->query, ANSWER_MS, s->cluster, sizeof(s->cluster), err,
				sizeof(err))) {
		if (atomic_load(&s->counts.auth_failed) && kafka_now_ms() - began > AUTH_GRACE_MS)
			return end(s, EXIT_USAGE, "SN-KAFKA-AUTH",
				   "the brokers refuse these credentials or this certificate; see "
				   "the line above and the kafka.sasl.* and kafka.ssl.* options");
		if (!retry(s, &said, "SN-KAFKA-UNREACHABLE", err))
			return false;
	}
	return true;
}

/* ---- topics ---- */

/* An answer that did not come, or `right` on the topic that is missing. */
static bool ask_again(struct join_setup *s, int64_t *said, int rc, const char *err,
		      const char *right, const char *topic)
{
	char text[TEXT_BYTES];

	if (rc != KAFKA_DENIED)
		return retry(s, said, "SN-KAFKA-UNREACHABLE", err);
	snprintf(text, sizeof(text), "%s; grant %s on topic %s", err, right, topic);
	return retry(s, said, "SN-JOIN-DENIED", text);
}

static bool ask_stream(struct join_setup *s)
{
	struct topic_settings st;
	char err[300], text[TEXT_BYTES];
	int64_t said = 0;
	int rc;

	while ((rc = topic_settings(s->query, s->c->stream_topic, ANSWER_MS, &st, err,
				    sizeof(err)))) {
		if (rc == KAFKA_MISSING) {
			snprintf(text, sizeof(text),
				 "stream topic %s does not exist on this cluster, or may not be "
				 "seen; create it, correct join.stream.topic, or grant Describe",
				 s->c->stream_topic);
			return end(s, EXIT_USAGE, "SN-JOIN-STREAM-MISSING", text);
		}
		if (!ask_again(s, &said, rc, err, "Read", s->c->stream_topic))
			return false;
	}
	s->stream_partitions = st.partitions;
	return true;
}

static bool create_output(struct join_setup *s)
{
	static const char *const kv[] = { "cleanup.policy", "delete", NULL };
	const char *topic = s->c->output_topic;
	char err[300] = "there is none", text[TEXT_BYTES];

	int rc = !s->c->output_create ? KAFKA_MISSING
				      : kafka_topic_create(s->query, topic, s->stream_partitions,
							   kv, 2 * ANSWER_MS, err, sizeof(err));

	if (!rc) {
		log_info(NULL, "created output topic %s with %d partitions", topic,
			 s->stream_partitions);
		return true;
	}
	snprintf(text, sizeof(text),
		 "output topic %s: %s; %s%s%screate it with: kafka-topics.sh --bootstrap-server "
		 "BROKERS --create --topic %s --partitions %d --config cleanup.policy=delete%s",
		 topic, err, rc == KAFKA_DENIED ? "grant Create on topic " : "",
		 rc == KAFKA_DENIED ? topic : "", rc == KAFKA_DENIED ? ", or " : "", topic,
		 s->stream_partitions,
		 s->c->output_create ? "" : " (or set join.output.create=true)");
	return end(s, EXIT_USAGE, "SN-JOIN-OUTPUT-MISSING", text);
}

static bool check_output(struct join_setup *s, const struct topic_settings *st)
{
	char text[TEXT_BYTES];

	if (st->compact) {
		snprintf(text, sizeof(text),
			 "output topic %s is compacted: Kafka would remove results that nobody has "
			 "read, and refuse those without a key; set cleanup.policy=delete",
			 s->c->output_topic);
		return end(s, EXIT_USAGE, "SN-JOIN-OUTPUT-COMPACTED", text);
	}
	if (!st->known)
		log_warn(
			"SN-SETTINGS-UNKNOWN",
			"settings of output topic %s cannot be read (grant DescribeConfigs, or the "
			"broker does not answer it): assuming cleanup.policy=delete and "
			"max.message.bytes=%" PRId64,
			s->c->output_topic, st->max_message_bytes);
	if (st->partitions != s->stream_partitions)
		log_warn("SN-JOIN-PARTITIONS",
			 "%s has %d partitions and %s has %d: results are placed by their key",
			 s->c->output_topic, st->partitions, s->c->stream_topic,
			 s->stream_partitions);
	s->output_partitions = st->partitions;
	s->max_message_bytes = st->max_message_bytes;
	return true;
}

static bool ask_output(struct join_setup *s)
{
	struct topic_settings st;
	int64_t said = 0, created = 0;
	char err[300];
	int rc;

	while ((rc = topic_settings(s->query, s->c->output_topic, ANSWER_MS, &st, err,
				    sizeof(err)))) {
		if (rc == KAFKA_MISSING && !created) {
			if (!create_output(s))
				return false;
			created = kafka_now_ms();
		}
		if (rc == KAFKA_MISSING && kafka_now_ms() - created < CREATED_MS) {
			if (!pause_ms(s, 50))
				return false;
			continue;
		}
		if (!ask_again(s, &said, rc, err, "Write", s->c->output_topic))
			return false;
	}
	return check_output(s, &st);
}

/* ---- the table ---- */

static bool open_table(struct join_setup *s)
{
	const char *dir = s->c->state_dir;
	char text[TEXT_BYTES];
	int64_t said = 0;
	int rc;

	while ((rc = table_open(&s->table, dir))) {
		snprintf(text, sizeof(text), "table %s: %s", dir, sstate_strerror(rc));
		if (rc == SSTATE_FORMAT)
			return end(s, EXIT_USAGE, "SN-JOIN-TABLE-FORMAT", text);
		if (rc == -ENOMEM)
			return end(s, EXIT_NOT_READY, "SN-MEMORY", "out of memory");
		if (rc == -EACCES) {
			snprintf(text, sizeof(text),
				 "table %s may not be read by this user: it has to be in the group "
				 "of the directory",
				 dir);
			return end(s, EXIT_USAGE, "SN-JOIN-TABLE-DENIED", text);
		}
		if (!retry(s, &said, "SN-JOIN-TABLE-MISSING", text))
			return false;
	}
	return true;
}

static bool check_table(struct join_setup *s)
{
	bool same_cluster = !strcmp(table_cluster(s->table), s->cluster);
	char text[TEXT_BYTES];

	if (same_cluster && !strcmp(table_topic(s->table), s->c->output_topic)) {
		snprintf(text, sizeof(text),
			 "join.output.topic: %s is the topic of the table itself: results would "
			 "overwrite it",
			 s->c->output_topic);
		return end(s, EXIT_USAGE, "SN-CONFIG", text);
	}
	if (!same_cluster && s->c->wait == WAIT_TIME) {
		snprintf(text, sizeof(text),
			 "join.wait=time: the table is of cluster %s and the stream of %s; what a "
			 "time means for the table's topic can only be asked there: use "
			 "join.wait=token",
			 table_cluster(s->table), s->cluster);
		return end(s, EXIT_USAGE, "SN-JOIN-CLUSTER", text);
	}
	log_info(NULL, "joining %s with %s (table of %s) to %s", s->c->stream_topic,
		 s->c->state_dir, table_topic(s->table), s->c->output_topic);
	return true;
}

bool join_setup(struct join_setup *s, const struct join_config *c, const atomic_bool *stop)
{
	*s = (struct join_setup){ .c = c, .stop = stop };
	s->hooks.counts = &s->counts;
	return reach_cluster(s) && ask_stream(s) && ask_output(s) && open_table(s) &&
	       check_table(s);
}

void join_setup_free(struct join_setup *s)
{
	table_close(s->table);
	kafka_free(s->query);
	join_client_free(&s->client);
}
