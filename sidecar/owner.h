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
 * Resuming, the one exception to publishing as an elected member: a leader that
 * was killed comes back while the group still waits for the dead one.
 *   1. A was killed; `by` of every committed offset is A's state.  A comes back on
 *      that state, looks once, and is fit but for what its tail has not read yet.
 *   2. A inits the transactional id: what its dead self left open is aborted, or
 *      was committed before that, and no late request of it counts any more.
 *   3. A reads what is committed again, stable.  Has B published since 1, it is
 *      not A any more: A gives way.  B, fenced by 2, joins again and leads.
 *   4. A publishes without a generation.  Has B been elected meanwhile,
 *      - and inits before 2: as 3, or B has not committed: then it cannot, and all
 *        that it wanted to tell is still to be told, by A or by B once it is back;
 *      - and inits after 2: A's transaction is aborted, or B waits until it is
 *        committed and reads P after it.  A is fenced, and ends for good.
 *   5. Any assignment ends the resuming, before it is acknowledged: A leads as an
 *      elected member, or stands by.
 *   So A fences B at most once in its life, and two never publish the same: who
 *   inits last publishes from what is committed then.
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
