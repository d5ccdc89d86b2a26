/*
 * pipeline.h - what the threads of a running sidecar share, under one lock.
 *
 * tail writes `applied` and its like after each commit, publish and owner write
 * `published`; everybody reads copies.  The lock is held for copying only,
 * never across a call to Kafka, LMDB or anything that waits.
 *
 * A pipeline ends once: the first outcome stays, everybody sees stopping().
 */
#ifndef PIPELINE_H
#define PIPELINE_H

#include "config.h"
#include "decide.h"
#include "state.h"

#include <pthread.h>
#include <stdatomic.h>

enum outcome {
	RUNNING,
	OUTCOME_DONE,        /* asked to stop */
	OUTCOME_AGAIN,       /* set up anew: a partition was added */
	OUTCOME_REFILL,      /* set up anew with a new generation, filled up to P */
	OUTCOME_SWITCH,      /* set up anew, on the generation that a rebuild has made */
	OUTCOME_UNREACHABLE, /* exit 3 */
	OUTCOME_USAGE,       /* exit 2 */
	OUTCOME_BROKEN,      /* exit 4 */
};

struct topic_limits { /* of source and notification topic, as far as known */
	/* read by the tail while the supervisor reads the topic's settings again: the smallest
	 * delete.retention.ms ever seen counts, and the smallest compaction lag */
	atomic_llong min_compaction_lag_ms, delete_retention_ms;
	atomic_llong max_message_bytes; /* of the notification topic, as it is now */
	int notification_partitions;    /* 0: none configured */
	int compacted_partitions;       /* the same, of physical compaction */
};

/*
 * What is known of physical compaction in one partition: every pair superseded
 * in [from, below) was gone from `leader` at `gone_ms`.  At `present_ms` the
 * record at present_r, superseded at present_s, was still there, and with it
 * every pair from there on in both.
 */
struct gone {
	int64_t from, below; /* below 0: nothing is known */
	int64_t gone_ms;
	int64_t present_ms, present_r, present_s; /* present_ms -1: never seen */
	int32_t leader;
};

struct pipeline {
	const struct config *config;
	struct state *state;
	struct topic_limits limits;
	char cluster[128];         /* cluster.name, or the cluster id */
	bool publishing;           /* notifications are configured */
	bool filled;               /* the state was, just before */
	int64_t journal_max_bytes; /* beyond it the tail waits */
	/* the embedded broker of `demo` forgets transactional offsets; nothing else may set it */
	bool offsets_forgotten;
	int n; /* partitions of the source topic */

	pthread_mutex_t lock;
	pthread_cond_t wake;   /* with `lock`: something was applied, or the pipeline stops */
	pthread_cond_t ended;  /* with `lock`: the pipeline stops */
	struct standing *part; /* [n], with `lock` */
	struct gone *gone;     /* [n], with `lock`: frontier tells, publish reads */
	atomic_uint forgotten; /* how often that became void: another session publishes */
	uint64_t commits;      /* with `lock`: counts applied batches */
	bool caught_up;        /* with `lock`: every partition reached EOF since the start */
	char role[160];        /* with `lock`: leader, standby, or why unfit */

	atomic_int outcome;       /* enum outcome */
	atomic_bool limit_wanted; /* max_message_bytes should be read again soon */
	atomic_bool round_wanted; /* somebody asked for a round, whatever the clock says */
	atomic_bool leading;      /* the publisher is up */
	atomic_llong published;   /* notifications committed since the start */
	atomic_llong wrapped, omitted;
	atomic_llong rounds;   /* done since the start */
	atomic_llong expiries; /* the same: how often keys left since they had expired */
};

int pipeline_init(struct pipeline *p, const struct config *c, int n);
void pipeline_free(struct pipeline *p);

/** End the pipeline with one logged line that has an id (NULL: nothing to say). */
void pipeline_end(struct pipeline *p, enum outcome o, const char *id, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/** Two ends that several stages can come upon: an operator's doing, or the broker's. */
void pipeline_offsets_lost(struct pipeline *p, int part);
void pipeline_offsets_back(struct pipeline *p, int part, int64_t from, int64_t to);
static inline bool pipeline_stopping(struct pipeline *p)
{
	return atomic_load(&p->outcome) != RUNNING;
}

enum { HOLES_NAME_MAX = 32 };
/** Entry of meta that is "1" while offsets were missing and the end of the log was not seen yet. */
void pipeline_holes_name(char name[HOLES_NAME_MAX], int part);

/** Copy the standings of all partitions. */
void pipeline_standings(struct pipeline *p, struct standing *out);

/** The tail's news after a commit: rows of all partitions; wakes the publisher. */
void pipeline_applied(struct pipeline *p, const struct state_partition *rows, const bool *caught_up,
		      bool waits);
/** A committed position, by whoever read or wrote it. */
void pipeline_published(struct pipeline *p, int part, struct position at, const char *by,
			int64_t gap_until);
/** The cursor of physical compaction, as somebody saw it committed: it only rises. */
void pipeline_cursor(struct pipeline *p, int part, int64_t cursor);
/**
 * What the frontier knows now, unless everything was forgotten since it asked how
 * often that was; wakes the publisher.  And read it, and forget it.
 */
void pipeline_gone(struct pipeline *p, int part, const struct gone *g, unsigned forgotten);
void pipeline_gone_forget(struct pipeline *p);
struct gone pipeline_gone_get(struct pipeline *p, int part);
void pipeline_role(struct pipeline *p, const char *text);
/** Changes whenever keys have left the snapshot without the log's telling. */
static inline long long pipeline_departures(struct pipeline *p)
{
	return atomic_load(&p->rounds) + atomic_load(&p->expiries);
}

/** Wait until a batch was applied after *seen, or `ms` passed; updates *seen. */
void pipeline_wait(struct pipeline *p, uint64_t *seen, int64_t ms);
/** Wait until the pipeline stops, or `ms` passed. */
void pipeline_wait_end(struct pipeline *p, int64_t ms);
/** Wake everyone who waits. */
void pipeline_wake(struct pipeline *p);

#endif
