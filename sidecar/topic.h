/*
 * topic.h - what the sidecar must know of its topics: their settings, and
 * whether the source is still the topic that the state was read from.
 *
 * Errors:    enum kafka_rc, or what the function says; err gets one line.
 * Threads:   the calling one; `rk` is a KAFKA_QUERY client.
 */
#ifndef TOPIC_H
#define TOPIC_H

#include "kafka.h"
#include "state.h"

#include <stdbool.h>

struct topic_settings {
	int partitions;
	bool known; /* the broker answered DescribeConfigs; else the rest are Kafka's defaults */
	bool compact, delete;
	int64_t delete_retention_ms, min_compaction_lag_ms, retention_ms, max_message_bytes;
};

/** Partition count and settings.  KAFKA_MISSING and so on; unanswered settings are no error. */
int topic_settings(rd_kafka_t *rk, const char *topic, int timeout_ms, struct topic_settings *s,
		   char *err, size_t err_len);

/* One thing to say about a topic: `stop` findings keep `run` from starting. */
struct finding {
	bool stop;
	const char *id; /* SN-... in docs/operations.md */
	char text[500]; /* what is wrong, what it endangers, the way out */
};
enum { FINDINGS_MAX = 8 };

/** What is doubtful or wrong about the source topic; returns how many. */
int topic_source_findings(const struct config *c, const struct topic_settings *s,
			  struct finding out[FINDINGS_MAX]);
/** The same for the notification topic. */
int topic_notification_findings(const struct config *c, const struct topic_settings *source,
				const struct topic_settings *s, struct finding out[FINDINGS_MAX]);
/** The command that creates a topic for notifications as it should be. */
void topic_create_command(const struct config *c, const char *topic, int partitions, char *out,
			  size_t len);

enum topic_same {
	TOPIC_SAME = 0,
	TOPIC_OTHER = 1,   /* another record stands at a stored offset: recreated */
	TOPIC_SHORTER = 2, /* the log ends before what was read: recreated or truncated */
	TOPIC_UNSURE = 3,  /* every stored record was superseded: nothing speaks against it */
};
/**
 * Compare partition p with the last records that were read from it.  < 0:
 * could not be found out (enum kafka_rc); err tells the offset.
 */
int topic_is_same(rd_kafka_t *rk, const char *topic, int32_t p, int64_t applied,
		  const struct state_anchor *a, int n, char *err, size_t err_len);

#endif
