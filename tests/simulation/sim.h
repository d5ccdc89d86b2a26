/*
 * sim.h - what the parts of the simulation share.
 *
 * The program's own objects run here, all stages of run_sidecar() included, on
 * several hosts in one process: its threads are fibers (fiber.c), its clocks
 * and sleeps are simulated, its librdkafka is rdkafka.c over a model of Kafka
 * (broker.c).  LMDB and the state directories are real, on a tmpfs (disk.c).
 * Everything that is random comes from one seed, so a seed is a run.
 *
 * Re-modelled: librdkafka, Kafka, threads and clocks, the control socket, the
 * log's output.  Everything else is what the program links.
 *
 * Units: microseconds of simulated time, unless a name says otherwise.
 */
#ifndef SIM_H
#define SIM_H

#include "config.h"
#include "state.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HOSTS_MAX = 3, PARTITIONS_MAX = 3, OFFSETS_MAX = 2048, LINES_MAX = 40 };
#define SECOND 1000000LL
#define MS     1000LL
#define NEVER  INT64_MAX

/* ---- chance: one stream, seeded ---- */

uint64_t chance(void);
/** 0 .. n-1 */
int64_t chance_below(int64_t n);
int64_t chance_between(int64_t low, int64_t high);
/** True once in n. */
bool one_in(int64_t n);
void chance_seed(uint64_t seed);

/* ---- what goes wrong: the first thing found ends the run ---- */

extern char sim_violation[600];
void violation(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
extern bool sim_verbose;
/** One line with the time, when verbose. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- hosts ---- */

enum life { HOST_DOWN, HOST_UP, HOST_PAUSED };
enum death { DEATH_KILL, DEATH_POWER };

struct host {
	int id;
	enum life life;
	struct config config;
	char dir[100];
	atomic_bool stop;         /* SIGTERM */
	int64_t mono, wall, boot; /* what its clocks say more than the simulation's */
	char boot_id[40];
	int64_t paused_at;
	int pause_kind;
	int64_t cut_until; /* no way to the brokers until then */
	int64_t crash_in;  /* points until it dies; 0: it does not */
	enum death crash_as;
	int restarts;
	uint64_t points;
	const char *asked; /* through the control socket, not yet taken */
	bool answering;
	/* what the oracle keeps of its state */
	int64_t from[PARTITIONS_MAX]; /* where the tail began */
	struct state_partition rows[PARTITIONS_MAX];
	bool rows_known;
	char uuid[40];
	struct state *state;                            /* open, while it runs */
	uint8_t delivered[PARTITIONS_MAX][OFFSETS_MAX]; /* to the running tail */
	uint8_t (*seen)[OFFSETS_MAX]; /* and applied to its state, whose uuid this is of */
};
extern struct host hosts[HOSTS_MAX];
extern int n_hosts, n_partitions;

/* ---- fibers and time (fiber.c) ---- */

struct fiber;
extern int64_t sim_now;
extern bool sim_is_child;     /* a process that the program forked: nothing is simulated */
struct host *this_host(void); /* NULL: not in a fiber of a host */

/** A fiber of a host; of none (NULL) for the simulation's own. */
struct fiber *fiber_start(struct host *h, void *(*fn)(void *), void *arg);
bool fiber_done(const struct fiber *f);
/** Forget it, wherever it is.  Not the running one. */
void fiber_drop(struct fiber *f);
void fiber_sleep(int64_t us);
/** Until woken, or `until`: false. */
bool fiber_block(const void *on, int64_t until);
void fiber_wake(const void *on);
/** A place where another fiber may go on, or the host may die. */
void sim_point(void);
/** Call fn(arg) at a time. */
void at(int64_t time, void (*fn)(void *), void *arg);
/** Run until `time`, or nothing is left, or a violation. */
void sim_run(int64_t time);
void host_die(struct host *h, enum death how); /* also from within: does not return then */
void fibers_reset(void);

/* ---- disks (disk.c) ---- */

void disk_start(void); /* of this process */
void disk_reset(void);
void disk_end(void);
void disk_wipe(struct host *h);
void disk_died(struct host *h, enum death how);

/* ---- clients (rdkafka.c) ---- */

void clients_died(struct host *h);

/* ---- planted bugs ---- */

enum plant {
	PLANT_NONE,
	PLANT_SKIP,
	PLANT_SWAP,
	PLANT_NOT_DURABLE,
	PLANT_TRIM_EARLY,
	PLANT_STALE_BEFORE,
	PLANT_UNFIT,
	PLANT_WHOLE_LOW,
	PLANT_NO_SCAN,
	PLANT_NO_ROUND,
	PLANT_NO_REOPEN,
	PLANT_NO_GENERATION,
	PLANT_NO_READBACK,
	PLANT_NO_SECOND_READ,
	PLANT_RESUME_ANYHOW,
	PLANTS
};
extern enum plant sim_plant;
extern const char *const plant_names[PLANTS];
void plant_reset(void);

/* ---- deaths at named points (points.c) ---- */

enum { POINTS_MAX = 96 };
extern struct sim_points {
	int n; /* 0: none of this */
	char name[POINTS_MAX][40], kind[POINTS_MAX][40];
	uint32_t passed[POINTS_MAX], died[POINTS_MAX]; /* in this run */
} sim_points;
void points_load(const char *path); /* tests/faults/points */
void points_begin(uint64_t seed);
const char *points_kind(void); /* of this run's; "": none */

/* ---- one run (world.c) and its verdict (oracle.c) ---- */

void world_run(uint64_t seed);
bool world_is_healing(void);
void world_host_died(struct host *h, enum death how);
void oracle_reset(void);
/** What a state has applied, by partition and offset: states outlive nothing, what they told does. */
uint8_t (*oracle_seen(const char *uuid))[OFFSETS_MAX];
/** A transaction of the group moved a committed offset. */
void oracle_committed(struct host *teller, bool as_member, int p, int64_t from, int64_t to,
		      const char *by_before);
/** A host begins to tail from these positions. */
void oracle_opened(struct host *h, const struct state_partition *rows);
void oracle_judge(void);
/** NULL, or what is not yet as it will be when everything is quiet. */
const char *oracle_unrest(void);

struct run_figures {
	uint64_t records, notifications, gaps, reconciled, kills, power_cuts, pauses, rounds, fills,
		rebuilds, late_requests, leaders, points, lost_states, compacted, untold, resumed;
	int64_t simulated;
};
extern struct run_figures figures;

#endif
