/*
 * fault.h - named points at which a test can end or hold the program.
 *
 *   rc = code_from_mdb(mdb_txn_commit(t));
 *   FAULT_POINT("state.committed");
 *
 * Only `make FAULTS=1` compiles them in (tests/faults/fault.c says how they are
 * used); elsewhere a point is nothing at all.  Names are unique, and
 * tests/faults/points lists them all: `make lint` compares.
 */
#ifndef FAULT_H
#define FAULT_H

#ifdef FAULTS
/** `name` is a literal.  Any thread.  Does not return where the test wants it so. */
void fault_point(const char *name);
#define FAULT_POINT(name) fault_point(name)
#else
#define FAULT_POINT(name) ((void)0)
#endif

#endif
