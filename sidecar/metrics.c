#include "metrics.h"

#include <dirent.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* ---- the table ---- */

enum kind { COUNTER, GAUGE, HISTOGRAM, INFO };

enum { BOUNDS_MAX = METRIC_BUCKETS - 1 };
struct bounds {
	int64_t v[BOUNDS_MAX];
	int n;
};
#define MS 1000LL
#define S  1000000LL
/* From the moment that a producer gave a record to the moment that others can have it. */
static const struct bounds latencies_us = { { MS, 2 * MS, 5 * MS, 10 * MS, 20 * MS, 50 * MS,
					      100 * MS, 200 * MS, 500 * MS, S, 2 * S, 5 * S, 10 * S,
					      30 * S, 60 * S, 300 * S },
					    16 };
/* How long something takes that we do ourselves. */
static const struct bounds durations_us = { { 100, 200, 500, MS, 2 * MS, 5 * MS, 10 * MS, 20 * MS,
					      50 * MS, 100 * MS, 200 * MS, 500 * MS, S, 2 * S,
					      5 * S, 10 * S },
					    16 };
static const struct bounds sizes = {
	{ 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000 }, 16
};

/*
 * The rows, in the order of enum metric.  Rows of one name stand together and
 * differ by their label.
 */
/* clang-format off: a table to read */
static const struct row {
	enum kind kind;
	const char *name;
	const char *label; /* NULL: none */
	int64_t per;       /* how many of the stored unit are one of the printed; 0: 1 */
	const struct bounds *bounds;
	bool by_partition, plain; /* plain: without the label `name` */
	const char *help;
	const char *rise; /* what a rise means, or a value that should not be */
} rows[METRICS] = {
	[METRIC_INFO] = { .kind = INFO,
			  .name = "sidenote_info",
			  .help = "Always 1; its labels tell who this is.",
			  .rise = "A new `version`: it was updated." },
	[METRIC_READY] = { .kind = GAUGE,
			   .name = "sidenote_ready",
			   .help = "1 while `/readyz` answers 200: the snapshot is filled, has "
				   "caught up since "
				   "the start, and is being kept.",
			   .rise = "0: programs should not rely on this snapshot; "
				   "`/readyz?verbose` says why." },
	[METRIC_CAUGHT_UP] = { .kind = GAUGE,
			       .name = "sidenote_caught_up",
			       .help = "1 once every partition was read to its end since the "
				       "start.",
			       .rise = "0 for long: filling or catching up, or a partition that "
				       "cannot be read." },
	[METRIC_LEADING] = { .kind = GAUGE,
			     .name = "sidenote_leading",
			     .help = "1 while this sidecar publishes for its name.",
			     .rise = "A sum over the sidecars of one name other than 1 for more "
				     "than a minute: "
				     "nobody leads, or an old leader has not noticed yet (its "
				     "transactions are "
				     "fenced)." },
	[METRIC_FIT] = { .kind = GAUGE,
			 .name = "sidenote_fit",
			 .help = "1 while this sidecar may lead: filled, caught up, no round due.",
			 .rise = "0 on every standby: nobody can take over." },
	[METRIC_LEADERSHIPS] = { .kind = COUNTER,
				 .name = "sidenote_leaderships_total",
				 .help = "How often this sidecar began to lead.",
				 .rise = "Often: members of the group come and go, or are too slow "
					 "to keep their "
					 "session." },
	[METRIC_RESUMES] = { .kind = COUNTER,
			     .name = "sidenote_resumes_total",
			     .help = "How often this sidecar, killed while it led, went on "
				     "publishing before the group had a leader.",
			     .rise = "Often: it is killed, or ends by itself, again and again." },

	[METRIC_RECORDS_CONSUMED] = { .kind = COUNTER,
				      .name = "sidenote_records_consumed_total",
				      .help = "Records of the source topic that are in the "
					      "snapshot, fills not counted.",
				      .rise = "The load. Flat while "
					      "`sidenote_consumer_lag_records` grows: reading is "
					      "stuck." },
	[METRIC_BYTES_CONSUMED] = { .kind = COUNTER,
				    .name = "sidenote_consumed_bytes_total",
				    .help = "Bytes of keys and values of those records.",
				    .rise = "The load." },
	[METRIC_CHANGES_CREATE] = { .kind = COUNTER,
				    .name = "sidenote_changes_total",
				    .label = "op=\"create\"",
				    .help = "What those records did to the snapshot.",
				    .rise = "`unchanged` is most of it: a producer rewrites what "
					    "is there already." },
	[METRIC_CHANGES_UPDATE] = { .kind = COUNTER,
				    .name = "sidenote_changes_total",
				    .label = "op=\"update\"" },
	[METRIC_CHANGES_UNCHANGED] = { .kind = COUNTER,
				       .name = "sidenote_changes_total",
				       .label = "op=\"unchanged\"" },
	[METRIC_CHANGES_DELETE] = { .kind = COUNTER,
				    .name = "sidenote_changes_total",
				    .label = "op=\"delete\"" },
	[METRIC_MOVED_IGNORED] = { .kind = COUNTER,
				   .name = "sidenote_moved_records_ignored_total",
				   .help = "Records of a key that is stored from another partition "
					   "with a later "
					   "timestamp (`source.moved=timestamp`).",
				   .rise = "A producer partitions keys differently." },
	[METRIC_BATCH_RECORDS] = { .kind = HISTOGRAM,
				   .name = "sidenote_batch_records",
				   .bounds = &sizes,
				   .help = "Records of one commit of the snapshot; idle commits "
					   "are not counted.",
				   .rise = "Large batches: it is catching up. At `batch.records` "
					   "all the time: the "
					   "source is faster." },
	[METRIC_COMMIT_US] = { .kind = HISTOGRAM,
			       .name = "sidenote_commit_duration_seconds",
			       .per = S,
			       .bounds = &durations_us,
			       .help = "One commit of the snapshot with its batch.",
			       .rise = "The disk is slow, or the snapshot has outgrown the "
				       "memory." },
	[METRIC_COMMIT_FAILURES] = { .kind = COUNTER,
				     .name = "sidenote_commit_failures_total",
				     .help = "Commits of the snapshot that failed and were tried "
					     "again or ended the "
					     "sidecar.",
				     .rise = "The disk is full or failing; see the log." },
	[METRIC_SNAPSHOT_LATENCY_US] = { .kind = HISTOGRAM,
					 .name = "sidenote_snapshot_latency_seconds",
					 .per = S,
					 .bounds = &latencies_us,
					 .help = "From a record's timestamp until readers see it, "
						 "once caught up.",
					 .rise = "Readers see old values: the sidecar or its disk "
						 "is slow, or clocks differ." },
	[METRIC_TAIL_WAITING] = { .kind = GAUGE,
				  .name = "sidenote_tail_waiting",
				  .help = "1 while the journal is at its limit and nothing more is "
					  "read.",
				  .rise = "1: notifications cannot be published, and the snapshot "
					  "gets old." },

	[METRIC_LOG_END_OFFSET] = { .kind = GAUGE,
				    .name = "sidenote_log_end_offset",
				    .by_partition = true,
				    .help = "The end of the partition as last asked for; every 10 "
					    "s.",
				    .rise = "The load." },
	[METRIC_APPLIED_OFFSET] = { .kind = GAUGE,
				    .name = "sidenote_applied_offset",
				    .by_partition = true,
				    .help = "The snapshot is the fold of the log up to here.",
				    .rise = "Flat while the log's end moves: reading is stuck." },
	[METRIC_APPLIED_MS] = { .kind = GAUGE,
				.name = "sidenote_applied_timestamp_seconds",
				.per = 1000,
				.by_partition = true,
				.help = "Timestamp of the last applied record, of the epoch.",
				.rise = "The source goes on." },
	[METRIC_PUBLISHED_OFFSET] = { .kind = GAUGE,
				      .name = "sidenote_published_offset",
				      .by_partition = true,
				      .help = "Notifications from before here are published: the "
					      "committed offset of the "
					      "group, as last seen.",
				      .rise = "Flat while the applied offset moves: publishing is "
					      "stuck." },
	[METRIC_CONSUMER_LAG_RECORDS] = { .kind = GAUGE,
					  .name = "sidenote_consumer_lag_records",
					  .by_partition = true,
					  .help = "Offsets between the applied one and the log's "
						  "end.",
					  .rise = "The snapshot is behind its topic." },
	[METRIC_CONSUMER_LAG_MS] = { .kind = GAUGE,
				     .name = "sidenote_consumer_lag_seconds",
				     .per = 1000,
				     .by_partition = true,
				     .help = "Age of the last applied record while there is a lag, "
					     "else 0.",
				     .rise = "The snapshot is behind its topic by so much." },
	[METRIC_PUBLISH_LAG_RECORDS] = { .kind = GAUGE,
					 .name = "sidenote_publish_lag_records",
					 .by_partition = true,
					 .help = "Offsets between the published and the applied "
						 "one.",
					 .rise = "Notifications are late: no leader, or the "
						 "brokers are slow or refuse." },
	[METRIC_GONE_OFFSET] = { .kind = GAUGE,
				 .name = "sidenote_compacted_offset",
				 .by_partition = true,
				 .help = "Every record that was superseded below this offset was "
					 "seen to be gone; while `notifications.compacted.topic` "
					 "is set and this sidecar leads.",
				 .rise = "Compaction. Flat while pairs wait: it has not got "
					 "there." },
	[METRIC_REDIS_OFFSET] = { .kind = GAUGE,
				  .name = "sidenote_redis_offset",
				  .by_partition = true,
				  .help = "Redis is the fold of the log up to here, as this "
					  "sidecar wrote it.",
				  .rise = "Flat while the applied offset moves: Redis is stuck." },
	[METRIC_REDIS_LAG_RECORDS] = { .kind = GAUGE,
				       .name = "sidenote_redis_lag_records",
				       .by_partition = true,
				       .help = "Offsets between that and the applied one.",
				       .rise = "Redis is behind the snapshot." },

	[METRIC_NOTIFIED_CREATE] = { .kind = COUNTER,
				     .name = "sidenote_notifications_total",
				     .label = "op=\"create\"",
				     .help = "Notifications in committed transactions.",
				     .rise = "The load." },
	[METRIC_NOTIFIED_UPDATE] = { .kind = COUNTER,
				     .name = "sidenote_notifications_total",
				     .label = "op=\"update\"" },
	[METRIC_NOTIFIED_DELETE] = { .kind = COUNTER,
				     .name = "sidenote_notifications_total",
				     .label = "op=\"delete\"" },
	[METRIC_NOTIFIED_GAP] = { .kind = COUNTER,
				  .name = "sidenote_notifications_gap_total",
				  .help = "Those with `cause=gap`: versions in between may have "
					  "been compacted away "
					  "unseen.",
				  .rise = "The chain of old and new values is broken for those "
					  "keys, and says so: no "
					  "sidecar was up for long." },
	[METRIC_NOTIFIED_RECONCILE] = { .kind = COUNTER,
					.name = "sidenote_notifications_reconcile_total",
					.help = "Those with `cause=reconcile`: deletes whose "
						"tombstone was purged unseen.",
					.rise = "The sidecar was away for longer than half of "
						"`delete.retention.ms`." },
	[METRIC_NOTIFIED_WRAPPED] = { .kind = COUNTER,
				      .name = "sidenote_values_wrapped_total",
				      .help = "Values that are no JSON object and were wrapped as "
					      "base64.",
				      .rise = "Consumers of the JSON see `sidenote.base64`: maybe "
					      "`notifications.encoding=base64` or "
					      "`notifications.format=raw` is meant." },
	[METRIC_NOTIFIED_OMITTED] = { .kind = COUNTER,
				      .name = "sidenote_values_omitted_total",
				      .help = "Values that did not fit and were replaced by their "
					      "size and digest.",
				      .rise = "Raise `max.message.bytes` of the notification "
					      "topic." },
	[METRIC_NOT_NOTIFIED] = { .kind = COUNTER,
				  .name = "sidenote_changes_not_notified_total",
				  .help = "Changes that `notifications.operations` and "
					  "`notifications.unchanged` leave "
					  "out, or that were told before.",
				  .rise = "Nothing by itself." },
	[METRIC_NOTIFICATION_LATENCY_US] = { .kind = HISTOGRAM,
					     .name = "sidenote_notification_latency_seconds",
					     .per = S,
					     .bounds = &latencies_us,
					     .help = "From the source record's timestamp until its "
						     "notification is committed.",
					     .rise = "Consumers are told late: see "
						     "`sidenote_snapshot_latency_seconds` and "
						     "`sidenote_transaction_duration_seconds` for "
						     "which part." },
	[METRIC_TRANSACTIONS_COMMITTED] = { .kind = COUNTER,
					    .name = "sidenote_transactions_total",
					    .label = "result=\"committed\"",
					    .help = "Kafka transactions by outcome.",
					    .rise = "`aborted`: the brokers refuse something. "
						    "`unclear`: a request timed out or "
						    "was repeated; it started over and read the "
						    "committed position again." },
	[METRIC_TRANSACTIONS_ABORTED] = { .kind = COUNTER,
					  .name = "sidenote_transactions_total",
					  .label = "result=\"aborted\"" },
	[METRIC_TRANSACTIONS_UNCLEAR] = { .kind = COUNTER,
					  .name = "sidenote_transactions_total",
					  .label = "result=\"unclear\"" },
	[METRIC_TRANSACTION_US] = { .kind = HISTOGRAM,
				    .name = "sidenote_transaction_duration_seconds",
				    .per = S,
				    .bounds = &durations_us,
				    .help = "One committed transaction, from begin to commit.",
				    .rise = "The brokers or the way to them are slow." },
	[METRIC_PRODUCER_OPENS] = { .kind = COUNTER,
				    .name = "sidenote_producer_opens_total",
				    .help = "Transactional producers made: one when it begins to "
					    "lead, one after each "
					    "unclear outcome.",
				    .rise = "The brokers time out or fence." },
	[METRIC_PUBLISH_FAILURES] = { .kind = COUNTER,
				      .name = "sidenote_publish_failures_total",
				      .help = "Attempts to publish that failed and are tried "
					      "again.",
				      .rise = "See the log: rights, sizes, brokers." },

	[METRIC_COMPACTED] = { .kind = COUNTER,
			       .name = "sidenote_compacted_total",
			       .label = "op=\"compacted\"",
			       .help = "Notifications of physical compaction, in committed "
				       "transactions.",
			       .rise = "`expired`: compaction is slower than "
				       "`notifications.compacted.max.bytes` allows for, or is "
				       "off." },
	[METRIC_EXPIRED] = { .kind = COUNTER,
			     .name = "sidenote_compacted_total",
			     .label = "op=\"expired\"" },
	[METRIC_WAITING_PAIRS] = { .kind = GAUGE,
				   .name = "sidenote_waiting_pairs",
				   .help = "Overwritten records that wait until compaction has "
					   "removed them.",
				   .rise = "Compaction has not come by." },
	[METRIC_WAITING_BYTES] = { .kind = GAUGE,
				   .name = "sidenote_waiting_bytes",
				   .help = "What they take in the state.",
				   .rise = "Near `notifications.compacted.max.bytes`: the oldest "
					   "will be told as `expired`." },
	[METRIC_TOMBSTONES] = { .kind = GAUGE,
				.name = "sidenote_waiting_tombstones",
				.help = "Tombstones that nothing has superseded, remembered so "
					"that "
					"it can be told when something does and they are gone.",
				.rise = "Keys are deleted for good." },
	[METRIC_TOMBSTONES_FORGOTTEN] = { .kind = COUNTER,
					  .name = "sidenote_tombstones_forgotten_total",
					  .help = "Those that were forgotten, the oldest first, as "
						  "they took more than a quarter of "
						  "`notifications.compacted.max.bytes`.",
					  .rise = "That these tombstones go is not told." },
	[METRIC_PROBES] = { .kind = COUNTER,
			    .name = "sidenote_probes_total",
			    .help = "Requests that looked for what compaction has removed.",
			    .rise = "Pairs wait; at most `notifications.compacted.probes` a "
				    "second." },

	[METRIC_REDIS_UP] = { .kind = GAUGE,
			      .name = "sidenote_redis_up",
			      .help = "1 while this sidecar writes to Redis, 0 while it should and "
				      "cannot. Left out where "
				      "it does not mirror.",
			      .rise = "0: Redis is away, refuses, or belongs to another; see the "
				      "log." },
	[METRIC_REDIS_RESYNCING] = { .kind = GAUGE,
				     .name = "sidenote_redis_resyncing",
				     .help = "1 while all of Redis is compared with the snapshot.",
				     .rise = "1 for long: Redis is slow." },
	[METRIC_REDIS_WRITES] = { .kind = COUNTER,
				  .name = "sidenote_redis_writes_total",
				  .help = "Batches written with their positions, each in one "
					  "transaction of Redis.",
				  .rise = "The load." },
	[METRIC_REDIS_RESYNCS] = { .kind = COUNTER,
				   .name = "sidenote_redis_resyncs_total",
				   .help = "Comparisons with the snapshot that were finished.",
				   .rise = "Redis had lost its positions, or a gap could have "
					   "hidden a delete." },
	[METRIC_REDIS_FAILURES] = { .kind = COUNTER,
				    .name = "sidenote_redis_failures_total",
				    .help = "Sessions with Redis that ended although nobody asked.",
				    .rise = "Redis or the way to it fails, or two sidecars believe "
					    "to lead." },

	[METRIC_FILLING] = { .kind = GAUGE,
			     .name = "sidenote_filling",
			     .help = "1 while a new generation is filled from the topic.",
			     .rise = "1 for longer than the topic takes to read." },
	[METRIC_FILLS] = { .kind = COUNTER,
			   .name = "sidenote_fills_total",
			   .help = "Fills that were finished.",
			   .rise = "More than one a start: the journal was too short for where "
				   "publishing was, "
				   "or the state was damaged." },
	[METRIC_FILL_RECORDS] = { .kind = COUNTER,
				  .name = "sidenote_fill_records_total",
				  .help = "Records read by fills.",
				  .rise = "Flat while filling: the brokers do not answer." },
	[METRIC_FILL_MS] = { .kind = GAUGE,
			     .name = "sidenote_fill_duration_seconds",
			     .per = 1000,
			     .help = "How long the last fill took.",
			     .rise = "The topic has grown, or the disk or the brokers are slow." },
	[METRIC_ROUND_RUNNING] = { .kind = GAUGE,
				   .name = "sidenote_round_running",
				   .help = "1 while the topic is read again for deletes that were "
					   "purged unseen.",
				   .rise = "1 for longer than the topic takes to read." },
	[METRIC_ROUND_DUE] = { .kind = GAUGE,
			       .name = "sidenote_round_due_partitions",
			       .help = "Partitions for which such a round is due.",
			       .rise = "The sidecar was away or slow for longer than half of "
				       "`delete.retention.ms`. "
				       "It does not lead until it is done." },
	[METRIC_ROUNDS_DONE] = { .kind = COUNTER,
				 .name = "sidenote_rounds_total",
				 .label = "result=\"done\"",
				 .help = "Rounds by outcome.",
				 .rise = "`failed`: the topic could not be read to its end; it is "
					 "tried again." },
	[METRIC_ROUNDS_FAILED] = { .kind = COUNTER,
				   .name = "sidenote_rounds_total",
				   .label = "result=\"failed\"" },
	[METRIC_GONE_KEYS] = { .kind = COUNTER,
			       .name = "sidenote_round_gone_keys_total",
			       .help = "Keys that rounds found deleted.",
			       .rise = "Deletes had been missed and are told now." },
	[METRIC_EXPIRED_KEYS] = { .kind = COUNTER,
				  .name = "sidenote_expired_keys_total",
				  .help = "Keys that left since their records fell off the log's "
					  "start (`source.expiring=true`). Nobody is told.",
				  .rise = "The topic's retention, or DeleteRecords." },

	[METRIC_SNAPSHOT_KEYS] = { .kind = GAUGE,
				   .name = "sidenote_snapshot_keys",
				   .help = "Keys in the snapshot.",
				   .rise = "A sudden fall: deletes, or another topic of that "
					   "name." },
	[METRIC_SNAPSHOT_BYTES] = { .kind = GAUGE,
				    .name = "sidenote_snapshot_bytes",
				    .help = "Pages that its records use.",
				    .rise = "Beyond the memory of the host, look-ups wait for the "
					    "disk." },
	[METRIC_SNAPSHOT_FILE_BYTES] = { .kind = GAUGE,
					 .name = "sidenote_snapshot_file_bytes",
					 .help = "Size of the data file, free pages and journal "
						 "included. It does not shrink.",
					 .rise = "Much more than the records: `sidenote "
						 "rebuild`." },
	[METRIC_SNAPSHOT_GENERATION] = { .kind = GAUGE,
					 .name = "sidenote_snapshot_generation",
					 .help = "Number of the generation that readers have.",
					 .rise = "It was filled anew or rebuilt." },
	[METRIC_HEARTBEAT_AGE_MS] = { .kind = GAUGE,
				      .name = "sidenote_heartbeat_age_seconds",
				      .per = 1000,
				      .help = "Since the last commit of the snapshot; an idle "
					      "sidecar commits every second.",
				      .rise = "Writing is stuck: disk, or a very long round." },
	[METRIC_LEASE_MS] = { .kind = GAUGE,
			      .name = "sidenote_lease_seconds",
			      .per = 1000,
			      .help = "How long a reader may look at one snapshot. Readers take no "
				      "lock and are not "
				      "counted.",
			      .rise = "Nothing by itself." },
	[METRIC_JOURNAL_ENTRIES] = { .kind = GAUGE,
				     .name = "sidenote_journal_entries",
				     .help = "Changes that wait to be published or trimmed.",
				     .rise = "Publishing is behind, here or at the leader." },
	[METRIC_JOURNAL_BYTES] = { .kind = GAUGE,
				   .name = "sidenote_journal_bytes",
				   .help = "Pages they use.",
				   .rise = "At `sidenote_journal_limit_bytes` reading stops." },
	[METRIC_JOURNAL_LIMIT_BYTES] = { .kind = GAUGE,
					 .name = "sidenote_journal_limit_bytes",
					 .help = "`journal.max.bytes` as it is in effect.",
					 .rise = "Nothing by itself." },
	[METRIC_DISK_FREE_BYTES] = { .kind = GAUGE,
				     .name = "sidenote_disk_free_bytes",
				     .help = "Free space where `state.dir` is.",
				     .rise = "Near 0 the sidecar waits; readers go on." },

	[METRIC_HTTP_2XX] = { .kind = COUNTER,
			      .name = "sidenote_http_requests_total",
			      .label = "class=\"2xx\"",
			      .help = "Answers by class of status.",
			      .rise = "`5xx`: not ready, or a position was waited for in vain." },
	[METRIC_HTTP_4XX] = { .kind = COUNTER,
			      .name = "sidenote_http_requests_total",
			      .label = "class=\"4xx\"" },
	[METRIC_HTTP_5XX] = { .kind = COUNTER,
			      .name = "sidenote_http_requests_total",
			      .label = "class=\"5xx\"" },
	[METRIC_HTTP_CONNECTIONS] = { .kind = GAUGE,
				      .name = "sidenote_http_connections",
				      .help = "Open connections, this one included.",
				      .rise = "Clients that do not close." },
	[METRIC_HTTP_CUT] = { .kind = COUNTER,
			      .name = "sidenote_http_connections_cut_total",
			      .help = "Connections that were ended for being slow or too many.",
			      .rise = "Clients that connect and say nothing." },
	[METRIC_LOOKUPS_FOUND] = { .kind = COUNTER,
				   .name = "sidenote_lookups_total",
				   .label = "result=\"found\"",
				   .help = "Keys looked up through HTTP. Programs on this host "
					   "read the snapshot "
					   "themselves and are not counted.",
				   .rise = "The load." },
	[METRIC_LOOKUPS_ABSENT] = { .kind = COUNTER,
				    .name = "sidenote_lookups_total",
				    .label = "result=\"absent\"" },

	[METRIC_PROCESS_CPU_MS] = { .kind = COUNTER,
				    .name = "process_cpu_seconds_total",
				    .per = 1000,
				    .plain = true,
				    .help = "User and system time of the process.",
				    .rise = "The load." },
	[METRIC_PROCESS_RESIDENT_BYTES] = { .kind = GAUGE,
					    .name = "process_resident_memory_bytes",
					    .plain = true,
					    .help = "Resident memory, the snapshot's cached pages "
						    "included.",
					    .rise = "With the snapshot: nothing by itself." },
	[METRIC_PROCESS_VIRTUAL_BYTES] = { .kind = GAUGE,
					   .name = "process_virtual_memory_bytes",
					   .plain = true,
					   .help = "Address space: a map of 1 TiB, most of it not "
						   "there.",
					   .rise = "Nothing by itself." },
	[METRIC_PROCESS_OPEN_FDS] = { .kind = GAUGE,
				      .name = "process_open_fds",
				      .plain = true,
				      .help = "Open file descriptors.",
				      .rise = "Steadily: a leak." },
	[METRIC_PROCESS_MAX_FDS] = { .kind = GAUGE,
				     .name = "process_max_fds",
				     .plain = true,
				     .help = "How many there may be.",
				     .rise = "Nothing by itself." },
	[METRIC_PROCESS_START_MS] = { .kind = GAUGE,
				      .name = "process_start_time_seconds",
				      .per = 1000,
				      .plain = true,
				      .help = "Start of the process, of the epoch.",
				      .rise = "It was started again." },
};
/* clang-format on */

/* ---- what is stored ---- */

struct histogram {
	atomic_ullong count[METRIC_BUCKETS];
	atomic_llong sum;
};

struct partitions { /* never freed while somebody may read it: there are few, and small */
	struct partitions *older;
	int n;
	atomic_llong v[]; /* n for each metric that is by_partition */
};

static struct {
	atomic_llong v[METRICS]; /* a gauge counts from METRIC_UNKNOWN: see shown() */
	struct histogram h[METRICS];
	_Atomic(struct partitions *) parts;
} all;

/* Gauges are stored less this, so that what was never touched is unknown. */
static int64_t shown(long long stored) { return (int64_t)((uint64_t)stored ^ (1ULL << 63)); }
static long long kept(int64_t v) { return (long long)((uint64_t)v ^ (1ULL << 63)); }

static int64_t clock_ns(clockid_t id)
{
	struct timespec t;
	clock_gettime(id, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int64_t metrics_clock_us(void) { return clock_ns(CLOCK_MONOTONIC) / 1000; }

void metrics_add(enum metric m, uint64_t n)
{
	atomic_fetch_add_explicit(&all.v[m], (long long)n, memory_order_relaxed);
}

void metrics_set(enum metric m, int64_t v)
{
	atomic_store_explicit(&all.v[m], rows[m].kind == COUNTER ? v : kept(v),
			      memory_order_relaxed);
}

void metrics_observe(enum metric m, int64_t v)
{
	const struct bounds *b = rows[m].bounds;
	int i = 0;

	if (v < 0)
		v = 0;
	while (i < b->n && v > b->v[i])
		i++;
	atomic_fetch_add_explicit(&all.h[m].count[i], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&all.h[m].sum, v, memory_order_relaxed);
}

void metrics_observe_since(enum metric m, int64_t began_us)
{
	metrics_observe(m, metrics_clock_us() - began_us);
}

int64_t metrics_wall_us(void) { return clock_ns(CLOCK_REALTIME) / 1000; }

void metrics_observe_age(enum metric m, int64_t ms, int64_t now_us)
{
	/* a timestamp is the producer's: any number */
	if (ms >= 0 && ms < INT64_MAX / 1000)
		metrics_observe(m, now_us - ms * 1000);
}

int64_t metrics_value(enum metric m)
{
	long long v = atomic_load_explicit(&all.v[m], memory_order_relaxed);
	return rows[m].kind == COUNTER ? v : shown(v);
}

/* ---- by partition ---- */

enum { FIRST_BY_PARTITION = METRIC_LOG_END_OFFSET, LAST_BY_PARTITION = METRIC_REDIS_LAG_RECORDS };

void metrics_partitions(int n)
{
	size_t values = (size_t)n * (LAST_BY_PARTITION - FIRST_BY_PARTITION + 1);
	struct partitions *p = calloc(1, sizeof(*p) + values * sizeof(*p->v));

	if (!p)
		return;
	p->n = n;
	p->older = atomic_load(&all.parts);
	atomic_store(&all.parts, p);
}

static atomic_llong *place_of(enum metric m, int partition)
{
	struct partitions *p = atomic_load_explicit(&all.parts, memory_order_acquire);

	if (!p || partition < 0 || partition >= p->n)
		return NULL;
	return &p->v[(size_t)(m - FIRST_BY_PARTITION) * (size_t)p->n + (size_t)partition];
}

void metrics_set_at(enum metric m, int partition, int64_t v)
{
	atomic_llong *place = place_of(m, partition);
	if (place)
		atomic_store_explicit(place, kept(v), memory_order_relaxed);
}

void metrics_raise_at(enum metric m, int partition, int64_t v)
{
	atomic_llong *place = place_of(m, partition);
	long long now = place ? atomic_load_explicit(place, memory_order_relaxed) : 0;

	while (place && shown(now) < v &&
	       !atomic_compare_exchange_weak_explicit(place, &now, kept(v), memory_order_relaxed,
						      memory_order_relaxed))
		;
}

int64_t metrics_value_at(enum metric m, int partition)
{
	atomic_llong *place = place_of(m, partition);
	return place ? shown(atomic_load_explicit(place, memory_order_relaxed)) : METRIC_UNKNOWN;
}

void metrics_reset(void)
{
	struct partitions *p = atomic_load(&all.parts);

	while (p) {
		struct partitions *older = p->older;
		free(p);
		p = older;
	}
	memset(&all, 0, sizeof(all));
}

/* ---- histograms ---- */

void metrics_histogram(enum metric m, struct metrics_histogram *out)
{
	const struct bounds *b = rows[m].bounds;

	*out = (struct metrics_histogram){ .n = b->n + 1 };
	for (int i = 0; i < out->n; i++) {
		out->bound[i] = i < b->n ? b->v[i] : INT64_MAX;
		out->count[i] = atomic_load_explicit(&all.h[m].count[i], memory_order_relaxed);
		out->total += out->count[i];
	}
	out->sum = atomic_load_explicit(&all.h[m].sum, memory_order_relaxed);
}

int64_t metrics_quantile(const struct metrics_histogram *h, double q)
{
	double rank = q * (double)h->total, below = 0;

	if (!h->total)
		return -1;
	for (int i = 0; i < h->n - 1; i++) {
		int64_t low = i ? h->bound[i - 1] : 0;
		double inside = (double)h->count[i];
		if (inside > 0 && below + inside >= rank)
			return low +
			       (int64_t)((double)(h->bound[i] - low) * (rank - below) / inside);
		below += inside;
	}
	return h->bound[h->n - 2]; /* beyond the last bound: at least that */
}

/* ---- what the kernel knows ---- */

static int64_t count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int64_t n = -3; /* ".", ".." and the directory itself */

	if (!d)
		return METRIC_UNKNOWN;
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static int64_t start_ms(unsigned long long ticks)
{
	int64_t now_ms = clock_ns(CLOCK_REALTIME) / 1000000;
	int64_t up_ms = clock_ns(CLOCK_BOOTTIME) / 1000000;

	return now_ms - up_ms + (int64_t)(ticks * 1000 / (unsigned long long)sysconf(_SC_CLK_TCK));
}

/* Fields 22 to 24 of /proc/self/stat, behind a name that may hold anything. */
static void read_stat(void)
{
	FILE *f = fopen("/proc/self/stat", "re");
	unsigned long long ticks, vsize;
	char text[1024];
	long long rss;

	if (!f)
		return;
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	fclose(f);
	const char *rest = strrchr(text, ')');
	if (!rest || sscanf(rest + 1,
			    " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d "
			    "%*d %*d %llu %llu %lld",
			    &ticks, &vsize, &rss) != 3)
		return;
	metrics_set(METRIC_PROCESS_VIRTUAL_BYTES, (int64_t)vsize);
	metrics_set(METRIC_PROCESS_RESIDENT_BYTES, rss * sysconf(_SC_PAGESIZE));
	/* the wall clock may be set: what was said once stays */
	if (metrics_value(METRIC_PROCESS_START_MS) == METRIC_UNKNOWN)
		metrics_set(METRIC_PROCESS_START_MS, start_ms(ticks));
}

void metrics_process(void)
{
	struct rlimit files;

	read_stat();
	metrics_set(METRIC_PROCESS_CPU_MS, clock_ns(CLOCK_PROCESS_CPUTIME_ID) / 1000000);
	metrics_set(METRIC_PROCESS_OPEN_FDS, count_fds());
	if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur != RLIM_INFINITY)
		metrics_set(METRIC_PROCESS_MAX_FDS, (int64_t)files.rlim_cur);
}

/* ---- printing ---- */

/* As the format has it: backslash, quote and line feed are escaped in a label. */
static void print_label(FILE *f, const char *name, const char *value)
{
	fprintf(f, "%s=\"", name);
	for (const char *s = value; *s; s++) {
		if (*s == '\n')
			fputs("\\n", f);
		else if (*s == '"' || *s == '\\')
			fprintf(f, "\\%c", *s);
		else
			fputc(*s, f);
	}
	fputc('"', f);
}

/* v / per, exactly, without zeros at its end. */
static void print_number(FILE *f, int64_t v, int64_t per)
{
	int64_t rest = per ? v % per : 0;
	int digits = 0;

	fprintf(f, "%s%lld", v < 0 && per && v / per == 0 && rest ? "-" : "",
		(long long)(per ? v / per : v));
	if (!rest)
		return;
	rest = rest < 0 ? -rest : rest;
	for (int64_t n = per; n > 1; n /= 10)
		digits++;
	while (rest % 10 == 0) {
		rest /= 10;
		digits--;
	}
	fprintf(f, ".%0*lld", digits, (long long)rest);
}

/* The name of a series with its labels; `more` is one that only this one has. */
static void print_series(FILE *f, const struct row *r, const char *suffix,
			 const struct metrics_info *info, const char *more)
{
	const char *comma = "";

	fprintf(f, "%s%s", r->name, suffix);
	if (r->plain && !r->label && !more)
		return;
	fputc('{', f);
	if (!r->plain) {
		print_label(f, "name", info->name);
		comma = ",";
	}
	if (r->label) {
		fprintf(f, "%s%s", comma, r->label);
		comma = ",";
	}
	if (more)
		fprintf(f, "%s%s", comma, more);
	fputc('}', f);
}

static void print_value(FILE *f, const struct row *r, const struct metrics_info *info,
			const char *more, int64_t v)
{
	print_series(f, r, "", info, more);
	fputc(' ', f);
	print_number(f, v, r->per);
	fputc('\n', f);
}

static void print_histogram(FILE *f, enum metric m, const struct metrics_info *info)
{
	const struct row *r = &rows[m];
	struct metrics_histogram h;
	uint64_t below = 0;

	metrics_histogram(m, &h);
	for (int i = 0; i < h.n; i++) {
		char le[48] = "le=\"+Inf\"";
		if (i < h.n - 1) {
			FILE *text = fmemopen(le, sizeof(le), "w");
			if (!text)
				return;
			fputs("le=\"", text);
			print_number(text, h.bound[i], r->per);
			fputc('"', text);
			fclose(text);
		}
		below += h.count[i];
		print_series(f, r, "_bucket", info, le);
		fprintf(f, " %llu\n", (unsigned long long)below);
	}
	print_series(f, r, "_sum", info, NULL);
	fputc(' ', f);
	print_number(f, h.sum, r->per);
	fputc('\n', f);
	print_series(f, r, "_count", info, NULL);
	fprintf(f, " %llu\n", (unsigned long long)below);
}

static void print_partitions(FILE *f, enum metric m, const struct metrics_info *info)
{
	struct partitions *parts = atomic_load(&all.parts);

	for (int p = 0; parts && p < parts->n; p++) {
		int64_t v = metrics_value_at(m, p);
		char label[32];
		snprintf(label, sizeof(label), "partition=\"%d\"", p);
		if (v != METRIC_UNKNOWN)
			print_value(f, &rows[m], info, label, v);
	}
}

static void print_info(FILE *f, const struct row *r, const struct metrics_info *info)
{
	fprintf(f, "%s{", r->name);
	print_label(f, "name", info->name);
	fputc(',', f);
	print_label(f, "version", SIDENOTE_VERSION);
	fputc(',', f);
	print_label(f, "topic", info->topic);
	fputc(',', f);
	print_label(f, "cluster", info->cluster);
	fputs("} 1\n", f);
}

static const char *const kinds[] = {
	[COUNTER] = "counter", [GAUGE] = "gauge", [HISTOGRAM] = "histogram", [INFO] = "gauge"
};

static bool begins_family(enum metric m) { return !m || strcmp(rows[m].name, rows[m - 1].name); }

/* Markdown's backticks mean nothing to Prometheus. */
static void print_help(FILE *f, const struct row *r)
{
	fprintf(f, "# HELP %s ", r->name);
	for (const char *s = r->help; *s; s++)
		if (*s != '`')
			fputc(*s, f);
	fprintf(f, "\n# TYPE %s %s\n", r->name, kinds[r->kind]);
}

void metrics_print(FILE *f, const struct metrics_info *info)
{
	for (enum metric m = 0; m < METRICS; m++) {
		const struct row *r = &rows[m];
		int64_t v = metrics_value(m);

		if (begins_family(m))
			print_help(f, r);
		if (r->kind == INFO)
			print_info(f, r, info);
		else if (r->kind == HISTOGRAM)
			print_histogram(f, m, info);
		else if (r->by_partition)
			print_partitions(f, m, info);
		else if (v != METRIC_UNKNOWN)
			print_value(f, r, info, NULL, v);
	}
}

/* ---- the reference ---- */

static const char intro[] =
	"# Metrics\n"
	"\n"
	"Printed by `sidenote help metrics`; `make docs` refreshes this file.\n"
	"\n"
	"`GET /metrics` on `http.listen` serves them in Prometheus' text format. Every series\n"
	"has the label `name`, the name of the pipeline, except `process_*`; those of positions\n"
	"have `partition`. Counters are of this process: they begin at 0 with it. What is not\n"
	"known yet is left out. Units are seconds, bytes and records.\n"
	"\n"
	"Committed offsets are those of the ordinary consumer group `sidenote.<name>`, so tools\n"
	"that watch groups (kafka_exporter, kminion, Burrow, KEDA) see the publishing lag as\n"
	"well. [alerts.yml](alerts.yml) has rules for Prometheus, [grafana.json](grafana.json) a\n"
	"dashboard.\n"
	"\n";

/* The names of the labels in `label`, a list name="value". */
static void document_labels(FILE *f, enum metric m)
{
	const struct row *r = &rows[m];

	if (r->kind == INFO) {
		fputs("`version`, `topic`, `cluster`", f);
	} else if (r->by_partition) {
		fputs("`partition`", f);
	} else if (r->label) {
		fprintf(f, "`%.*s`:", (int)strcspn(r->label, "="), r->label);
		for (enum metric n = m; n < METRICS && (n == m || !begins_family(n)); n++) {
			const char *value = strchr(rows[n].label, '"') + 1;
			fprintf(f, "%s `%.*s`", n == m ? "" : ",", (int)strcspn(value, "\""),
				value);
		}
	}
}

void metrics_document(FILE *f)
{
	fputs(intro, f);
	fputs("| metric | kind | labels | meaning | what a rise means |\n|---|---|---|---|---|\n",
	      f);
	for (enum metric m = 0; m < METRICS; m++) {
		if (!begins_family(m))
			continue;
		fprintf(f, "| `%s` | %s | ", rows[m].name, kinds[rows[m].kind]);
		document_labels(f, m);
		fprintf(f, " | %s | %s |\n", rows[m].help, rows[m].rise);
	}
}
