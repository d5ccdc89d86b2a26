/*
 * memory.h - whether a file fits in memory, for what the kernel is told of its map.
 *
 * A page of a map that is not in memory is read with those around it: 128 KiB
 * as Linux comes, 4 or 8 MiB where a distribution or a cloud tuned it.  That
 * warms up what fits.  Where it does not fit, it throws out pages that are used
 * for neighbours that are not.
 *
 * Threads: pure questions.
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

/** Whether a map of such a file should be read page by page: half of `memory` is for the rest. */
static inline bool memory_is_short(uint64_t memory, uint64_t file_bytes)
{
	return file_bytes > memory / 2;
}

#endif
