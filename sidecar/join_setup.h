/*
 * join_setup.h - what has to be there before a join may begin: the brokers, both
 * topics, the table.  Waits for what passes, ends with one line for what does
 * not.
 *
 *   if (join_setup(&s, &config, &stop)) ... s.table, s.query ...
 *   else return s.code;
 *   join_setup_free(&s);
 */
#ifndef JOIN_SETUP_H
#define JOIN_SETUP_H

#include "join_client.h"
#include "join_table.h"

struct join_setup {
	const struct join_config *c;
	const atomic_bool *stop;
	struct join_client client;
	struct kafka_counts counts;
	struct kafka_hooks hooks;
	rd_kafka_t *query;
	char cluster[128];
	struct table *table;
	int stream_partitions, output_partitions;
	int64_t max_message_bytes; /* of the output topic */
	int code;                  /* of cmd.h, where it failed */
};

/** False: s->code says with what to end; told.  join_setup_free() has to follow in any case. */
bool join_setup(struct join_setup *s, const struct join_config *c, const atomic_bool *stop);
void join_setup_free(struct join_setup *s);

#endif
