/*
 * owner.h - leadership: a consumer group whose only purpose is to have one
 * leader.
 *
 * An interleaving that must be harmless (design rule 7):
 *   1. A leads.  A's publisher sends offsets with A's generation.
 *   2. A is stopped for longer than the session; B is assigned partition 0.
 *   3. B inits the transactional id: A's transaction is aborted.
 *   4. A wakes up.  Its commit is fenced; its revoke callback stops the
 *      publisher and joins it before the revoke is acknowledged, so A is no
 *      member with a fresh generation while its publisher still runs.
 *   The same holds for the mirror, which Redis fences (mirror.c).
 *
 * The thread polls always; it never fetches (every assignment is acknowledged
 * with an empty one).  The owner of partition 0 leads.
 */
#ifndef OWNER_H
#define OWNER_H

#include "kafka.h"
#include "pipeline.h"

struct owner;

/** `query`, `peek`: clients of these roles; the caller's, and outlive the owner. */
int owner_start(struct owner **out, struct pipeline *p, rd_kafka_t *query, rd_kafka_t *peek);
/** Leave the group, wait for the end.  NULL is allowed. */
void owner_join(struct owner *o);

#endif
