/*
 * memory.h - whether a file fits in memory.
 *
 * Threads: may be called at any time.  It reads files: not for every batch.
 */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdbool.h>
#include <stdint.h>

/**
 * Bytes of memory that this process can have, page cache included: the machine's, or the lowest
 * limit of the control groups it is in (version 1 or 2), if that is less.  UINT64_MAX: unknown.
 * `root` stands before /proc and /sys: "", except in tests.
 */
uint64_t memory_bytes(const char *root);

/** Whether a file will not be in memory as a whole: half of `memory` is for the rest. */
static inline bool memory_is_short(uint64_t memory, uint64_t file_bytes)
{
	return file_bytes > memory / 2;
}

#endif
