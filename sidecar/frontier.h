/*
 * frontier.h - finds out which superseded records compaction has removed.
 *
 * While this sidecar leads and pairs wait, it asks the leader of each partition
 * for old records (probe.h says which), and tells the publisher what it has
 * found gone (pipeline_gone()).  What was found is of one leader: another may
 * still have the records, so when the leader has changed meanwhile, nothing
 * was found.  Nothing that it knows is stored: whoever leads next asks again.
 *
 * Requests are at most `notifications.compacted.probes` a second, and none while
 * nothing waits.
 *
 * Threads: one of its own.
 */
#ifndef FRONTIER_H
#define FRONTIER_H

#include "pipeline.h"

struct frontier;

int frontier_start(struct frontier **out, struct pipeline *p);
/** Once the pipeline is stopping.  NULL is allowed. */
void frontier_join(struct frontier *f);

#endif
