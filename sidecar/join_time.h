/*
 * join_time.h - what a time means for a topic, as it is now: in each partition
 * the position of the first record that is later, or the end of the log.
 *
 * Errors: enum kafka_rc; err gets one line.
 */
#ifndef JOIN_TIME_H
#define JOIN_TIME_H

#include "kafka.h"

/** Positions of partitions 0..n-1 in out.  `rk` reads committed. */
int join_time_positions(rd_kafka_t *rk, const char *topic, size_t n, int64_t time_ms,
			int timeout_ms, int64_t *out, char *err, size_t err_len);

#endif
