/*
 * publish.h - journaled changes become notifications, exactly once.
 *
 * The order of one transaction, and what a crash after each step leaves:
 *   1. read the journal from P in one view, copy it out, end the view
 *                                                    - nothing
 *   2. begin; send_offsets (P', by, n) with the
 *      generation                                    - an open transaction, which
 *                                                      the next init aborts
 *   3. produce the notifications                     - still open, still aborted
 *   4. make the view's commit durable                - so P <= A after a power cut
 *   5. commit                                        - both or neither
 *   6. tell the tail, which trims the journal        - trims are repeated
 * After any unclear outcome of 2, 5 or an abort: a new producer, init, and P is
 * read again (design rule 6), because librdkafka repeats requests silently and
 * a late one is applied to the next transaction.
 *
 * Who resumes (owner.h) is no member: its offsets carry no generation, and only
 * the transactional id fences it.  So it inits once, reads P after that, goes on
 * only where it is itself the last to have published, and ends with its first
 * producer, whatever the reason.
 *
 * Threads: one thread of its own while this sidecar leads; started and stopped
 *          by owner.c.
 */
#ifndef PUBLISH_H
#define PUBLISH_H

#include "kafka.h"
#include "pipeline.h"

struct publisher;

/**
 * Start publishing as the member that `group` describes (taken over; generation
 * >= 0), or resume as none (NULL).  `query` is a KAFKA_QUERY client for
 * committed offsets.
 */
int publish_start(struct publisher **out, struct pipeline *p, rd_kafka_t *query,
		  rd_kafka_consumer_group_metadata_t *group);

/** Stop and join.  False: it did not end in time; the process must. */
bool publish_stop(struct publisher *pub, int budget_ms);

/** Milliseconds that the current call to Kafka has lasted; 0: none. */
int64_t publish_call_ms(const struct publisher *pub);
/** Whether it has given up by itself: fenced out of the group, or another leads. */
bool publish_ended(const struct publisher *pub);

#endif
