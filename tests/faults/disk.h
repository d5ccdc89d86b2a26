/*
 * disk.h - what a disk may hold of a state directory after the power was cut.
 *
 *   disk_record(dir);                      // what is there now is taken to be on disk
 *   ... the directory is used ...
 *   disk_stop();
 *   disk_cut(n);                           // as if the power went after the n-th event, n rising
 *   disk_image(other_dir, &seed);          // one of the many things that may be found then
 *   disk_forget();
 *
 * What was synced is there.  What was not may be lost, kept, or in any state
 * between: of each page (or each sector of it) any version since the last sync,
 * whatever the other pages have; of the file's length any since then; of the
 * names in a directory some in their order, or, every other time, any of them:
 * only what fsync() promises is relied upon.  After a sync that failed nobody
 * knows what of the pages is on disk, and they are not written again: the kernel
 * takes them for clean.
 *
 * Only data.mdb has contents; locks are found empty, or full of nonsense.
 *
 * Threads: one.
 */
#ifndef DISK_H
#define DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void disk_record(const char *dir);
void disk_stop(void);
void disk_forget(void);
/** Events so far. */
size_t disk_events(void);

/** From now on a program that does not sync is played: no sync of this kind counts. */
enum disk_neglect { DISK_NEGLECTS_NOTHING, DISK_NEGLECTS_FILES, DISK_NEGLECTS_NAMES };
void disk_neglect(enum disk_neglect n);

void disk_cut(size_t n);
/** Make directory `path` with it. */
void disk_image(const char *path, uint64_t *seed);

/** Below `n`, from *seed, which moves on. */
uint64_t disk_random(uint64_t *seed, uint64_t n);

#endif
