/*
 * cmd.h - the verbs: one cmd_<verb>.c each, one row each in main.c.
 *
 * A verb gets its own words (argv[0] is the verb) and returns the exit code:
 * 0 done, 1 not found or different, 2 usage or configuration, 3 unreachable or
 * not ready, 4 broken invariant.  Data goes to stdout, messages to stderr.
 */
#ifndef CMD_H
#define CMD_H

enum { EXIT_DONE = 0, EXIT_DIFFERENT = 1, EXIT_USAGE = 2, EXIT_NOT_READY = 3, EXIT_BROKEN = 4 };

int cmd_run(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_rebuild(int argc, char **argv);
int cmd_demo(int argc, char **argv);
int cmd_get(int argc, char **argv);
int cmd_scan(int argc, char **argv);
int cmd_stat(int argc, char **argv);
int cmd_watch(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_join(int argc, char **argv);

#endif
