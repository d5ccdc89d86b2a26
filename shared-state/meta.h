/*
 * meta.h - the `meta` database: texts under plain names, fixed rows per partition.
 *
 * Writer and readers share it; docs/on-disk.md tells other languages.
 *
 *   "<name>"             ASCII text, no NUL: the names below
 *   "partition/%010d"    i64 applied, start, whole, base, published, caught_wall_ms,
 *                        caught_boot_ms, due; u32 base_n, published_n; little endian
 *   "anchors/%010d"      up to 64 times i64 offset, i64 timestamp_ms, u64 key hash
 *
 * Errors:  0, -ENOENT, -EBADMSG, or a code of codes.h.
 * Threads: as the transaction.
 */
#ifndef META_H
#define META_H

#include "state.h"

#include <lmdb.h>

#define META_FORMAT       "format" /* of this database and of records; the layout's version */
#define META_UUID         "uuid"
#define META_NAME         "name"
#define META_CLUSTER_ID   "cluster_id"
#define META_TOPIC        "topic"
#define META_LEASE_MS     "lease_ms"
#define META_HEARTBEAT_MS "heartbeat_ms" /* wall clock of the last commit */
#define META_BOOT_ID      "boot_id"      /* of the caught_boot_ms values */
#define META_INODE        "inode"        /* of data.mdb: a copy of the file is another state */

enum { STATE_FORMAT = 1, META_TEXT_MAX = 4096, META_KEY_BYTES = 32 };

/* ---- bytes, for writer and readers ---- */

/** Key of a partition's row; returns its length. */
size_t meta_partition_key(char key[META_KEY_BYTES], int32_t p);
/** Whether a key is one of those, and of which. */
bool meta_is_partition(const void *key, size_t len, int32_t *p);
int meta_decode_partition(struct state_partition *row, const void *bytes, size_t len);
/** Copy a text and end it with NUL; -ERANGE: it does not fit. */
int meta_decode_text(char *text, size_t text_len, const void *bytes, size_t len);
int meta_decode_int(int64_t *n, const void *bytes, size_t len);

/* ---- in transactions of the writer's ---- */

int meta_get_text(MDB_txn *t, MDB_dbi meta, const char *name, char *text, size_t text_len);
int meta_get_int(MDB_txn *t, MDB_dbi meta, const char *name, int64_t *n);
int meta_set_text(MDB_txn *t, MDB_dbi meta, const char *name, const char *text);
int meta_set_int(MDB_txn *t, MDB_dbi meta, const char *name, int64_t n);

int meta_get_partition(MDB_txn *t, MDB_dbi meta, int32_t p, struct state_partition *row);
int meta_set_partition(MDB_txn *t, MDB_dbi meta, int32_t p, const struct state_partition *row);
/** One more than the highest partition that has a row. */
int meta_get_partitions(MDB_txn *t, MDB_dbi meta, int32_t *n);

/** How many were read into a[STATE_ANCHORS] (0: none are stored), or an error. */
int meta_get_anchors(MDB_txn *t, MDB_dbi meta, int32_t p, struct state_anchor *a);
int meta_set_anchors(MDB_txn *t, MDB_dbi meta, int32_t p, const struct state_anchor *a, int n);

#endif
