/*
 * plant.c - bugs, one at a time, to see that the oracle finds them; and where
 * the oracle looks into the program.  (-Wl,--wrap; others are in rdkafka.c.)
 */
#include "sim.h"

#include "decide.h"
#include "kafka.h"
#include "pipeline.h"
#include "publish.h"
#include "scan.h"
#include "tail.h"
#include "told.h"

#include <string.h>

enum plant sim_plant;
const char *const plant_names[PLANTS] = {
	[PLANT_NONE] = "none",
	[PLANT_SKIP] = "skip",
	[PLANT_SWAP] = "swap",
	[PLANT_NOT_DURABLE] = "not-durable",
	[PLANT_TRIM_EARLY] = "trim-early",
	[PLANT_STALE_BEFORE] = "stale-before",
	[PLANT_UNFIT] = "unfit",
	[PLANT_WHOLE_LOW] = "whole-low",
	[PLANT_NO_SCAN] = "no-scan",
	[PLANT_NO_ROUND] = "no-round",
	[PLANT_NO_REOPEN] = "no-reopen",
	[PLANT_NO_GENERATION] = "no-generation",
	[PLANT_NO_READBACK] = "no-readback",
	[PLANT_NO_SECOND_READ] = "no-second-read",
	[PLANT_RESUME_ANYHOW] = "resume-anyhow",
};

int __real_state_make_durable(struct state *st, uint64_t txnid);
int __real_state_trim(struct state_txn *t, int32_t p, struct state_partition *row, int64_t offset,
		      uint32_t n, int max);
int __real_state_journal(struct state_txn *t, const struct change *c, const void *before,
			 size_t before_len, const void *after, size_t after_len);
enum fitness __real_decide_fitness(const struct standing *s, int n, const char *self,
				   bool group_empty, int *where);
bool __real_decide_is_whole(const struct reading *r, int64_t lag_ms, int64_t close_ms);
bool __real_decide_round_due(int64_t away_ms, int64_t retention_ms, bool was_running);
bool __real_decide_may_resume(const struct standing *s, int n, const char *self);
int __real_publish_start(struct publisher **out, struct pipeline *p, rd_kafka_t *query,
			 rd_kafka_consumer_group_metadata_t *group);
int __real_kafka_committed(rd_kafka_t *rk, const char *topic, int n, int timeout_ms,
			   struct kafka_committed *out, char *err, size_t err_len);
bool __real_scan_misses(const struct scan *s, int32_t p, int64_t offset);
const struct told_key *__real_told_last(const struct told *t, const void *key, size_t key_len,
					int64_t r);
void __real_pipeline_applied(struct pipeline *p, const struct state_partition *rows,
			     const bool *caught_up, bool waits);
int __real_tail_start(struct tail **out, struct pipeline *p, const struct state_partition *rows);
int __wrap_state_make_durable(struct state *st, uint64_t txnid);
int __wrap_state_trim(struct state_txn *t, int32_t p, struct state_partition *row, int64_t offset,
		      uint32_t n, int max);
int __wrap_state_journal(struct state_txn *t, const struct change *c, const void *before,
			 size_t before_len, const void *after, size_t after_len);
enum fitness __wrap_decide_fitness(const struct standing *s, int n, const char *self,
				   bool group_empty, int *where);
bool __wrap_decide_is_whole(const struct reading *r, int64_t lag_ms, int64_t close_ms);
bool __wrap_decide_round_due(int64_t away_ms, int64_t retention_ms, bool was_running);
bool __wrap_decide_may_resume(const struct standing *s, int n, const char *self);
int __wrap_publish_start(struct publisher **out, struct pipeline *p, rd_kafka_t *query,
			 rd_kafka_consumer_group_metadata_t *group);
int __wrap_kafka_committed(rd_kafka_t *rk, const char *topic, int n, int timeout_ms,
			   struct kafka_committed *out, char *err, size_t err_len);
bool __wrap_scan_misses(const struct scan *s, int32_t p, int64_t offset);
const struct told_key *__wrap_told_last(const struct told *t, const void *key, size_t key_len,
					int64_t r);
void __wrap_pipeline_applied(struct pipeline *p, const struct state_partition *rows,
			     const bool *caught_up, bool waits);
int __wrap_tail_start(struct tail **out, struct pipeline *p, const struct state_partition *rows);

/* ---- bugs ---- */

int __wrap_state_make_durable(struct state *st, uint64_t txnid)
{
	sim_point();
	return sim_plant == PLANT_NOT_DURABLE ? 0 : __real_state_make_durable(st, txnid);
}

int __wrap_state_trim(struct state_txn *t, int32_t p, struct state_partition *row, int64_t offset,
		      uint32_t n, int max)
{
	if (sim_plant == PLANT_TRIM_EARLY && offset + 3 <= row->applied)
		offset += 3;
	return __real_state_trim(t, p, row, offset, n, max);
}

static struct {
	uint8_t key[32], before[200];
	size_t key_len, before_len;
} last[64];

void plant_reset(void) { memset(last, 0, sizeof(last)); }

/* Of a key that was changed twice, the value before the last but one, now and then. */
int __wrap_state_journal(struct state_txn *t, const struct change *c, const void *before,
			 size_t before_len, const void *after, size_t after_len)
{
	int i = (int)(record_hash(c->key, c->key_len) % 64);

	if (sim_plant != PLANT_STALE_BEFORE || before_len > sizeof(last[i].before) ||
	    c->key_len > sizeof(last[i].key))
		return __real_state_journal(t, c, before, before_len, after, after_len);
	bool same = last[i].key_len == c->key_len && !memcmp(last[i].key, c->key, c->key_len);
	bool stale = same && before_len && last[i].before_len && one_in(20);
	int rc = __real_state_journal(t, c, stale ? last[i].before : before,
				      stale ? last[i].before_len : before_len, after, after_len);
	memcpy(last[i].key, c->key, c->key_len);
	last[i].key_len = c->key_len;
	if (before_len)
		memcpy(last[i].before, before, before_len);
	last[i].before_len = before_len;
	return rc;
}

enum fitness __wrap_decide_fitness(const struct standing *s, int n, const char *self,
				   bool group_empty, int *where)
{
	enum fitness f = __real_decide_fitness(s, n, self, group_empty, where);
	bool bent = f == UNFIT_NOT_WHOLE || f == UNFIT_ROUND || f == UNFIT_BEHIND ||
		    f == UNFIT_APPLIED || f == UNFIT_JOURNAL;

	return sim_plant == PLANT_UNFIT && bent ? FIT : f;
}

bool __wrap_decide_is_whole(const struct reading *r, int64_t lag_ms, int64_t close_ms)
{
	return sim_plant == PLANT_WHOLE_LOW || __real_decide_is_whole(r, lag_ms, close_ms);
}

bool __wrap_decide_round_due(int64_t away_ms, int64_t retention_ms, bool was_running)
{
	return sim_plant != PLANT_NO_ROUND &&
	       __real_decide_round_due(away_ms, retention_ms, was_running);
}

/* Whoever published last. */
bool __wrap_decide_may_resume(const struct standing *s, int n, const char *self)
{
	struct standing bent[PARTITIONS_MAX];

	if (sim_plant != PLANT_RESUME_ANYHOW)
		return __real_decide_may_resume(s, n, self);
	for (int p = 0; p < n; p++) {
		bent[p] = s[p];
		memcpy(bent[p].by, self, strlen(self) + 1);
	}
	return __real_decide_may_resume(bent, n, self);
}

/* Who resumes takes for committed what it has seen before its init. */
static struct {
	struct kafka_committed seen[PARTITIONS_MAX];
	bool resumes;
} first_read[HOSTS_MAX];

int __wrap_publish_start(struct publisher **out, struct pipeline *p, rd_kafka_t *query,
			 rd_kafka_consumer_group_metadata_t *group)
{
	first_read[this_host()->id].resumes = sim_plant == PLANT_NO_SECOND_READ && !group;
	return __real_publish_start(out, p, query, group);
}

int __wrap_kafka_committed(rd_kafka_t *rk, const char *topic, int n, int timeout_ms,
			   struct kafka_committed *out, char *err, size_t err_len)
{
	bool peeks = strstr(rd_kafka_name(rk), "-peek");
	int id = this_host()->id;

	if (!peeks && first_read[id].resumes) {
		first_read[id].resumes = false;
		memcpy(out, first_read[id].seen, (size_t)n * sizeof(*out));
		return 0;
	}
	int rc = __real_kafka_committed(rk, topic, n, timeout_ms, out, err, err_len);
	if (peeks && !rc)
		memcpy(first_read[id].seen, out, (size_t)n * sizeof(*out));
	return rc;
}

bool __wrap_scan_misses(const struct scan *s, int32_t p, int64_t offset)
{
	return sim_plant != PLANT_NO_SCAN && __real_scan_misses(s, p, offset);
}

const struct told_key *__wrap_told_last(const struct told *t, const void *key, size_t key_len,
					int64_t r)
{
	return sim_plant == PLANT_NO_READBACK ? NULL : __real_told_last(t, key, key_len, r);
}

/* It is about the one process that a sidecar has: here several share it. */
void __wrap_kafka_ending(int code);
void __wrap_kafka_ending(int code) { (void)code; }

/* ---- what the oracle has to know ---- */

static void take_rows(struct host *h, const struct state_partition *rows)
{
	for (int p = 0; p < n_partitions; p++) {
		for (int64_t o = h->rows_known ? h->rows[p].applied : h->from[p];
		     o < rows[p].applied && o < OFFSETS_MAX; o++)
			h->seen[p][o] = h->delivered[p][o];
		h->rows[p] = rows[p];
	}
	h->rows_known = true;
}

void __wrap_pipeline_applied(struct pipeline *p, const struct state_partition *rows,
			     const bool *caught_up, bool waits)
{
	take_rows(this_host(), rows);
	__real_pipeline_applied(p, rows, caught_up, waits);
}

int __wrap_tail_start(struct tail **out, struct pipeline *p, const struct state_partition *rows)
{
	struct host *h = this_host();

	h->rows_known = false;
	for (int i = 0; i < n_partitions; i++)
		h->from[i] = rows[i].applied;
	h->state = p->state;
	memcpy(h->uuid, state_uuid(p->state), sizeof(h->uuid));
	h->seen = oracle_seen(h->uuid);
	oracle_opened(h, rows);
	return __real_tail_start(out, p, rows);
}
