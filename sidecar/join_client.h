/*
 * join_client.h - the join's clients of Kafka, as kafka_new() makes them.
 *
 *   struct join_client k;
 *   rc = join_client_init(&k, &config, JOIN_CONSUMER);
 *   rk = kafka_new(&k.config, k.role, &hooks, err, sizeof err);
 *   join_client_free(&k);              // when rk has been freed
 *
 * kafka.c knows the roles of a sidecar.  Each client of the join is one of them
 * with a group, names and bounds of its own, given as properties before the
 * user's.
 *
 * Errors: 0 or -ENOMEM.
 */
#ifndef JOIN_CLIENT_H
#define JOIN_CLIENT_H

#include "join_config.h"
#include "kafka.h"

/*
 * A crash leaves a transaction open.  When the instance does not come back, other members wait
 * that long for its partitions, and readers of the output for what came after it.
 */
enum { JOIN_TRANSACTION_MS = 10000 };

enum join_use {
	JOIN_CONSUMER, /* member of the group, reads the stream */
	JOIN_QUERY,    /* questions; committed offsets are stable ones */
	JOIN_PEEK,     /* committed offsets as they are, without waiting */
	JOIN_PRODUCER, /* for txn_open() */
};

struct join_client {
	struct config config; /* borrows the user's pairs */
	enum kafka_role role;
	struct config_pair *own; /* array in `config` */
	char group[200], id[400], transactional_id[300], transaction_ms[16];
};

int join_client_init(struct join_client *k, const struct join_config *c, enum join_use use);
void join_client_free(struct join_client *k);

#endif
