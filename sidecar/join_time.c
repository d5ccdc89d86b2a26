#include "join_time.h"

#include <stdio.h>

/* ListOffsets: `what` is a time, or RD_KAFKA_OFFSET_END for the end of the log. */
static int list_offsets(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *l, int64_t what,
			int timeout_ms, char *err, size_t err_len)
{
	rd_kafka_resp_err_t e;

	for (int i = 0; i < l->cnt; i++)
		l->elems[i].offset = what;
	e = rd_kafka_offsets_for_times(rk, l, timeout_ms);
	for (int i = 0; i < l->cnt && !e; i++)
		e = l->elems[i].err;
	if (!e)
		return 0;
	snprintf(err, err_len, "offsets of topic %s: %s", l->elems[0].topic, rd_kafka_err2str(e));
	return e == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED ? KAFKA_DENIED : KAFKA_UNREACHABLE;
}

/* Where nothing is later than the time, everything that is there now. */
static int take_ends(rd_kafka_t *rk, const char *topic, size_t n, int timeout_ms, int64_t *out,
		     char *err, size_t err_len)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new((int)n);
	int rc = 0;

	for (size_t p = 0; p < n; p++)
		if (out[p] < 0)
			rd_kafka_topic_partition_list_add(l, topic, (int32_t)p);
	if (l->cnt)
		rc = list_offsets(rk, l, RD_KAFKA_OFFSET_END, timeout_ms, err, err_len);
	for (int i = 0; i < l->cnt && !rc; i++)
		out[l->elems[i].partition] = l->elems[i].offset;
	rd_kafka_topic_partition_list_destroy(l);
	return rc;
}

int join_time_positions(rd_kafka_t *rk, const char *topic, size_t n, int64_t time_ms,
			int timeout_ms, int64_t *out, char *err, size_t err_len)
{
	rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new((int)n);
	int rc;

	for (size_t p = 0; p < n; p++)
		rd_kafka_topic_partition_list_add(l, topic, (int32_t)p);
	/* the first record later than the time */
	rc = list_offsets(rk, l, time_ms + 1, timeout_ms, err, err_len);
	for (int i = 0; i < l->cnt && !rc; i++)
		out[l->elems[i].partition] = l->elems[i].offset >= 0 ? l->elems[i].offset : -1;
	rd_kafka_topic_partition_list_destroy(l);
	return rc ? rc : take_ends(rk, topic, n, timeout_ms, out, err, err_len);
}
