#include "codes.h"

#include "shared_state.h"

#include <errno.h>
#include <lmdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#if MDB_VERSION_MAJOR != 0
#error "LMDB 1.x writes another file format: build against liblmdb 0.9"
#endif

int code_from_mdb(int rc)
{
	switch (rc) {
	case MDB_NOTFOUND:
		return -ENOENT;
	case MDB_MAP_FULL:
		return -ENOSPC;
	case MDB_BAD_VALSIZE:
		return -EINVAL;
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_INVALID:
		return -EBADMSG;
	default:
		return rc > 0 ? -rc : rc;
	}
}

const char *code_name(int rc)
{
	switch (rc) {
	case SSTATE_NOT_READY:
		return "the state is not ready: no sidecar has filled it yet";
	case SSTATE_STALE:
		return "the snapshot has outlived the lease";
	case SSTATE_FORMAT:
		return "the state was written in a format that this program does not know";
	case -EBADMSG:
		return "the state's file is damaged";
	}
	if (rc >= MDB_KEYEXIST && rc <= MDB_LAST_ERRCODE)
		return mdb_strerror(rc);
	return strerror(rc < 0 ? -rc : rc);
}

int code_say(int rc, char *err, size_t err_len, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(err, err_len, fmt, ap);
	va_end(ap);
	return rc;
}
