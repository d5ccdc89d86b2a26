#include "topic.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DAY_MS = 24 * 3600 * 1000, PROBE_MS = 5000 };

/* ---- settings ---- */

static void take_setting(void *opaque, const char *name, const char *value)
{
	struct topic_settings *s = opaque;
	const struct {
		const char *name;
		int64_t *to;
	} numbers[] = {
		{ "delete.retention.ms", &s->delete_retention_ms },
		{ "min.compaction.lag.ms", &s->min_compaction_lag_ms },
		{ "retention.ms", &s->retention_ms },
		{ "max.message.bytes", &s->max_message_bytes },
	};

	s->known = true;
	if (!strcmp(name, "cleanup.policy")) {
		s->compact = strstr(value, "compact");
		s->delete = strstr(value, "delete");
	}
	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
		if (!strcmp(name, numbers[i].name))
			*numbers[i].to = strtoll(value, NULL, 10);
}

int topic_settings(rd_kafka_t *rk, const char *topic, int timeout_ms, struct topic_settings *s,
		   char *err, size_t err_len)
{
	int rc = kafka_partitions(rk, topic, timeout_ms, err, err_len);

	*s = (struct topic_settings){ .delete_retention_ms = DAY_MS,
				      .retention_ms = 7LL * DAY_MS,
				      .max_message_bytes = 1048588 };
	if (rc < 0)
		return rc;
	s->partitions = rc;
	rc = kafka_topic_config(rk, topic, timeout_ms, take_setting, s, err, err_len);
	return rc == KAFKA_UNKNOWN || rc == KAFKA_DENIED ? 0 : rc;
}

/* ---- findings ---- */

static struct finding *add(struct finding *out, int *n, bool stop, const char *id)
{
	struct finding *f = &out[(*n)++];
	f->stop = stop;
	f->id = id;
	return f;
}

#define SAY(f, ...) snprintf((f)->text, sizeof((f)->text), __VA_ARGS__)

int topic_source_findings(const struct config *c, const struct topic_settings *s,
			  struct finding out[FINDINGS_MAX])
{
	const char *t = c->source_topic;
	int n = 0;

	if (!s->known) {
		SAY(add(out, &n, false, "SN-SETTINGS-UNKNOWN"),
		    "settings of source topic %s cannot be read (rights, or the broker does not "
		    "answer DescribeConfigs): assuming cleanup.policy=compact, "
		    "delete.retention.ms=86400000, min.compaction.lag.ms=0",
		    t);
		return n;
	}
	if (!s->compact)
		SAY(add(out, &n, true, "SN-SOURCE-NOT-COMPACTED"),
		    "source topic %s is not compacted (cleanup.policy): its log forgets keys, so "
		    "no "
		    "snapshot of it can be complete; set cleanup.policy=compact or choose another "
		    "topic",
		    t);
	else if (s->delete &&!c->source_expiring)
		SAY(add(out, &n, true, "SN-SOURCE-EXPIRES"),
		    "source topic %s has cleanup.policy=compact,delete: live keys expire without a "
		    "tombstone; set cleanup.policy=compact, or accept it with source.expiring=true",
		    t);
	if (s->delete_retention_ms < 3600000)
		SAY(add(out, &n, false, "SN-SOURCE-TOMBSTONES"),
		    "source topic %s keeps tombstones for %" PRId64 " ms only "
		    "(delete.retention.ms): a sidecar that is away for half of that may miss "
		    "deletes",
		    t, s->delete_retention_ms);
	return n;
}

int topic_notification_findings(const struct config *c, const struct topic_settings *source,
				const struct topic_settings *s, struct finding out[FINDINGS_MAX])
{
	const char *t = c->notifications_topic;
	int n = 0;

	if (!s->known)
		SAY(add(out, &n, false, "SN-SETTINGS-UNKNOWN"),
		    "settings of notification topic %s cannot be read (rights, or the broker does "
		    "not "
		    "answer DescribeConfigs): assuming "
		    "cleanup.policy=delete and max.message.bytes=%" PRId64,
		    t, s->max_message_bytes);
	if (s->known && s->compact)
		SAY(add(out, &n, true, "SN-NOTIFICATIONS-COMPACTED"),
		    "notification topic %s is compacted: Kafka will remove notifications that "
		    "nobody has read; set cleanup.policy=delete on it",
		    t);
	if (s->known && s->retention_ms >= 0 && s->retention_ms < DAY_MS)
		SAY(add(out, &n, false, "SN-NOTIFICATIONS-RETENTION"),
		    "notification topic %s keeps messages for %" PRId64
		    " ms only (retention.ms): a consumer that is away longer loses them",
		    t, s->retention_ms);
	if (s->partitions != source->partitions)
		SAY(add(out, &n, false, "SN-NOTIFICATIONS-PARTITIONS"),
		    "notification topic %s has %d partitions and the source %d: notifications "
		    "are placed by key (murmur2), not in the partition of their source",
		    t, s->partitions, source->partitions);
	return n;
}

void topic_create_command(const struct config *c, const char *topic, int partitions, char *out,
			  size_t len)
{
	const char *servers = "BROKERS";

	for (size_t i = 0; i < c->kafka.n; i++)
		if (!strcmp(c->kafka.v[i].key, "bootstrap.servers"))
			servers = c->kafka.v[i].value;
	snprintf(out, len,
		 "kafka-topics.sh --bootstrap-server %s --create --topic %s --partitions %d "
		 "--config cleanup.policy=delete",
		 servers, topic, partitions);
}

/* ---- is it the same topic ---- */

enum probe { PROBE_THERE, PROBE_OTHER, PROBE_GONE, PROBE_OUTSIDE };

static int probe(rd_kafka_t *rk, const char *topic, int32_t p, const struct state_anchor *a,
		 char *err, size_t err_len)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(1);
	int64_t until = kafka_now_ms() + PROBE_MS;
	int rc = KAFKA_UNREACHABLE;

	snprintf(err, err_len, "%s [%d] at %lld: no answer", topic, p, (long long)a->offset);
	rd_kafka_topic_partition_list_add(l, topic, p)->offset = a->offset;
	rd_kafka_assign(rk, l);
	while (rc == KAFKA_UNREACHABLE && kafka_now_ms() < until) {
		rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, 100);
		if (!m)
			continue;
		rd_kafka_timestamp_type_t type;
		if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF ||
		    (!m->err && m->offset > a->offset))
			rc = PROBE_GONE;
		else if (m->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET)
			rc = PROBE_OUTSIDE;
		else if (!m->err)
			rc = record_hash(m->key, m->key_len) == a->key_hash &&
					     rd_kafka_message_timestamp(m, &type) == a->timestamp_ms
				     ? PROBE_THERE
				     : PROBE_OTHER;
		else if (m->err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)
			rc = KAFKA_DENIED;
		if (rc != KAFKA_UNREACHABLE)
			snprintf(err, err_len, "%s [%d] at offset %lld", topic, p,
				 (long long)a->offset);
		rd_kafka_message_destroy(m);
	}
	rd_kafka_assign(rk, NULL);
	rd_kafka_topic_partition_list_destroy(l);
	return rc;
}

int topic_is_same(rd_kafka_t *rk, const char *topic, int32_t p, int64_t applied,
		  const struct state_anchor *a, int n, char *err, size_t err_len)
{
	int64_t low, high;
	int rc = kafka_watermarks(rk, topic, p, PROBE_MS, &low, &high, err, err_len);

	if (rc)
		return rc;
	if (high < applied) {
		snprintf(err, err_len, "%s [%d] ends at %lld and was read up to %lld", topic, p,
			 (long long)high, (long long)applied);
		return TOPIC_SHORTER;
	}
	for (int i = 0; i < n; i++) {
		if (a[i].offset < low)
			continue;
		rc = probe(rk, topic, p, &a[i], err, err_len);
		if (rc < 0)
			return rc;
		if (rc == PROBE_THERE)
			return TOPIC_SAME;
		if (rc == PROBE_OTHER)
			return TOPIC_OTHER;
	}
	return n ? TOPIC_UNSURE : TOPIC_SAME;
}
