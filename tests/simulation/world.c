/*
 * world.c - one run: what is written, what goes wrong, and when it heals.
 *
 * All of it is drawn from the seed: how many hosts, partitions and keys; how the
 * topic and the sidecars are configured; deaths, pauses, cuts and clock jumps.
 * At the end everything heals, and once nothing moves any more the oracle judges.
 */
#include "broker.h"

#include "cmd.h"
#include "control.h"
#include "log.h"
#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REST_S = 300, WRITES_MAX = 600 };

struct host hosts[HOSTS_MAX];
int n_hosts, n_partitions;
int64_t trouble_one_in, socket_timeout_us;
char sim_violation[600];
bool sim_verbose;
struct run_figures figures;

static struct {
	int keys; /* of each partition */
	int64_t tombstone_one_in;
	int64_t write_us;     /* between writes, about */
	int64_t clean_us;     /* between passes of the cleaner; 0: none */
	int64_t fault_us;     /* between faults; 0: none */
	int64_t crash_points; /* a host dies after about so many points; 0: it does not */
	int64_t quiet_at;
	bool open[PARTITIONS_MAX];
	uint64_t value, last[PARTITIONS_MAX][64]; /* of each key */
	unsigned reborn[PARTITIONS_MAX][64];
	bool healing;
} w;

/* ---- chance ---- */

static uint64_t stream;

void chance_seed(uint64_t seed) { stream = seed * 0x9e3779b97f4a7c15 + 1; }

/* splitmix64 */
uint64_t chance(void)
{
	uint64_t z = (stream += 0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

int64_t chance_below(int64_t n) { return n > 0 ? (int64_t)(chance() % (uint64_t)n) : 0; }
int64_t chance_between(int64_t low, int64_t high) { return low + chance_below(high - low + 1); }
bool one_in(int64_t n) { return chance_below(n) == 0; }

static int64_t about(int64_t us) { return chance_between(us / 4, us * 2); }

#define PICK(...) pick((const int64_t[]){ __VA_ARGS__ }, sizeof((int64_t[]){ __VA_ARGS__ }) / 8)
static int64_t pick(const int64_t *v, size_t n) { return v[chance_below((int64_t)n)]; }

/* ---- saying ---- */

void say(const char *fmt, ...)
{
	va_list ap;

	if (!sim_verbose)
		return;
	printf("%10.3f ", (double)sim_now / SECOND);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

void violation(const char *fmt, ...)
{
	va_list ap;

	if (*sim_violation)
		return;
	va_start(ap, fmt);
	vsnprintf(sim_violation, sizeof(sim_violation), fmt, ap);
	va_end(ap);
	say("VIOLATION: %s", sim_violation);
}

/* The program's log. */
void __wrap_log_write(enum log_level level, const char *id, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static char last_error[HOSTS_MAX][640];

void __wrap_log_write(enum log_level level, const char *id, const char *fmt, ...)
{
	struct host *h = this_host();
	char text[600];
	va_list ap;

	if (!h || (!sim_verbose && level != LOG_LEVEL_ERROR))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (level == LOG_LEVEL_ERROR)
		snprintf(last_error[h->id], sizeof(last_error[0]), "%s %s", id ? id : "", text);
	say("host %d: %s%s%s", h->id, id ? id : "", id ? " " : "", text);
}

/* ---- the control socket ---- */

struct control {
	struct host *h;
};
static struct control controls[HOSTS_MAX];

int control_open(struct control **out, const char *dir, char *err, size_t err_len)
{
	(void)dir, (void)err, (void)err_len;
	*out = &controls[this_host()->id];
	(*out)->h = this_host();
	return 0;
}

void control_close(struct control *c) { (void)c; }

const char *control_poll(struct control *c)
{
	const char *word = c->h->asked;

	if (!word || c->h->answering)
		return NULL;
	c->h->asked = NULL;
	c->h->answering = true;
	return word;
}

bool control_asked(const struct control *c) { return c->h->answering; }

void control_say(struct control *c, const char *kind, const char *text, bool last)
{
	if (!last || !c->h->answering)
		return;
	c->h->answering = false;
	if (!strcmp(kind, "ok") && strstr(text, "generation"))
		figures.rebuilds++;
	say("host %d: answers %s %s", c->h->id, kind, text);
}

/* ---- hosts ---- */

static void host_start(void *arg);

static void plan_crash(struct host *h)
{
	h->crash_in = 0;
	if (w.crash_points && !w.healing && one_in(2)) {
		h->crash_in = about(w.crash_points);
		h->crash_as = one_in(2) ? DEATH_POWER : DEATH_KILL;
	}
}

static void *host_main(void *arg)
{
	struct host *h = arg;
	const struct run_options o = { .stop = &h->stop };
	int code = run_sidecar(&h->config, &o);

	say("host %d: exit %d", h->id, code);
	if (code == EXIT_USAGE || code == EXIT_BROKEN)
		violation("host %d: exit %d: %s", h->id, code, last_error[h->id]);
	host_die(h, DEATH_KILL);
	return NULL;
}

static void new_boot(struct host *h)
{
	snprintf(h->boot_id, sizeof(h->boot_id), "%08llx-0000-4000-8000-%012llx\n",
		 (unsigned long long)(chance() >> 32), (unsigned long long)(chance() >> 16));
	h->mono = h->boot = SECOND * chance_between(10, 100) - sim_now;
}

static void host_start(void *arg)
{
	struct host *h = arg;

	if (h->life != HOST_DOWN || *sim_violation)
		return;
	say("host %d: starts", h->id);
	h->life = HOST_UP;
	h->stop = false;
	h->asked = NULL;
	h->answering = false;
	h->rows_known = false;
	plan_crash(h);
	fiber_start(h, host_main, h);
}

void world_host_died(struct host *h, enum death how)
{
	if (how == DEATH_POWER)
		new_boot(h);
	h->rows_known = false;
	h->restarts++;
	if (how == DEATH_POWER)
		figures.power_cuts++;
	else
		figures.kills++;
	if (w.healing)
		at(sim_now + SECOND, host_start, h);
	else if (!one_in(8))
		at(sim_now + (one_in(3) ? about(20 * SECOND) : about(SECOND)), host_start, h);
	/* else: until everything heals */
}

enum { PAUSE_STOP, PAUSE_SUSPEND, PAUSE_MACHINE, PAUSES };

static void host_resume(void *arg)
{
	struct host *h = arg;
	int64_t for_us = sim_now - h->paused_at;

	if (h->life != HOST_PAUSED)
		return;
	say("host %d: goes on", h->id);
	h->life = HOST_UP;
	if (h->pause_kind != PAUSE_STOP)
		h->mono -= for_us;
	if (h->pause_kind == PAUSE_MACHINE)
		h->boot -= for_us;
}

static void pause_host(struct host *h)
{
	int64_t us = one_in(2) ? about(3 * SECOND) : about(30 * SECOND);

	if (h->life != HOST_UP)
		return;
	h->pause_kind = (int)chance_below(PAUSES);
	h->paused_at = sim_now;
	h->life = HOST_PAUSED;
	figures.pauses++;
	say("host %d: paused for %lld ms, kind %d", h->id, (long long)(us / MS), h->pause_kind);
	at(sim_now + us, host_resume, h);
}

/* ---- what goes wrong ---- */

static void lose_state(struct host *h)
{
	if (h->life == HOST_UP)
		host_die(h, DEATH_KILL);
	if (h->life != HOST_DOWN)
		return;
	say("host %d: loses its state", h->id);
	figures.lost_states++;
	disk_wipe(h);
	h->uuid[0] = '\0';
	memset(h->delivered, 0, sizeof(h->delivered));
}

/*
 * Back by so much that a clock which was behind before a boot is seen to be: by
 * less, and no clock can tell how long the host was away.
 */
static void jump_clock(struct host *h)
{
	int64_t us =
		one_in(2) ? chance_between(1, 3600) * SECOND : -chance_between(600, 3600) * SECOND;
	say("host %d: clock jumps by %lld s", h->id, (long long)(us / SECOND));
	h->wall += us;
}

/* What leads to this run's point.  False: anything. */
static bool lead_to_point(struct host *h)
{
	const char *kind = points_kind();

	if (!*kind || one_in(3))
		return false;
	if (!strcmp(kind, "rebuild"))
		h->asked = "rebuild";
	else if (!strcmp(kind, "stop"))
		h->stop = true;
	else if (!strcmp(kind, "fill"))
		lose_state(h);
	else if (!strcmp(kind, "abort") || !strcmp(kind, "round") || !strcmp(kind, "readback"))
		pause_host(h);
	else if (!strcmp(kind, "start") && h->life == HOST_UP)
		host_die(h, DEATH_KILL);
	else
		return false;
	return true;
}

static void one_fault(void)
{
	struct host *h = &hosts[chance_below(n_hosts)];

	if (lead_to_point(h))
		return;
	switch (chance_below(12)) {
	case 0:
	case 1:
		if (h->life == HOST_UP)
			host_die(h, DEATH_KILL);
		break;
	case 2:
	case 3:
		if (h->life != HOST_DOWN)
			host_die(h, DEATH_POWER);
		break;
	case 4:
	case 5:
		pause_host(h);
		break;
	case 6:
		h->stop = true;
		break;
	case 7:
		h->cut_until = sim_now + about(one_in(2) ? SECOND : 10 * SECOND);
		say("host %d: cut off", h->id);
		break;
	case 8:
		brokers_down_until = sim_now + about(one_in(2) ? SECOND : 8 * SECOND);
		say("brokers down");
		break;
	case 9:
		jump_clock(h);
		break;
	case 10:
		h->asked = one_in(2) ? "round" : "rebuild";
		break;
	case 11:
		if (one_in(4))
			lose_state(h);
		break;
	}
}

static void faults(void *arg)
{
	if (w.healing || *sim_violation)
		return;
	one_fault();
	at(sim_now + about(w.fault_us), faults, arg);
}

/* ---- what is written ---- */

/* A key that was deleted may come back, or another takes its place for good. */
static void write_one(int p, enum entry_state state)
{
	char key[32], value[48];
	int k = (int)chance_below(w.keys);

	snprintf(key, sizeof(key), "k%d-%d-%u", p, k, w.reborn[p][k]);
	if (one_in(w.tombstone_one_in)) {
		log_append(&source[p], key, strlen(key), NULL, 0, state);
		w.reborn[p][k] += one_in(2);
		return;
	}
	if (!one_in(10) || !w.last[p][k])
		w.last[p][k] = ++w.value;
	snprintf(value, sizeof(value), "{\"v\":%llu}", (unsigned long long)w.last[p][k]);
	log_append(&source[p], key, strlen(key), value, strlen(value), state);
}

static void write_some(void)
{
	int p = (int)chance_below(n_partitions);
	int n = one_in(6) ? (int)chance_between(5, 30) : 1;
	struct part *l = &source[p];

	if (l->n > WRITES_MAX)
		return;
	if (w.open[p]) { /* of a transaction: it goes on, or ends */
		if (one_in(3)) {
			log_end_open(l, one_in(2));
			w.open[p] = false;
			return;
		}
	} else {
		w.open[p] = settings.transactions && one_in(20);
	}
	while (n--)
		write_one(p, w.open[p] ? ENTRY_OPEN : ENTRY_COMMITTED);
	if (one_in(10))
		log_roll(l);
}

static void writes(void *arg)
{
	if (w.healing || *sim_violation)
		return;
	write_some();
	at(sim_now + about(w.write_us), writes, arg);
}

static void cleaner(void *arg)
{
	struct part *l = &source[chance_below(n_partitions)];

	if (one_in(2))
		log_roll(l);
	log_clean(l);
	at(sim_now + about(w.clean_us), cleaner, arg);
}

/* ---- the draw ---- */

static void set(struct config *c, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void set(struct config *c, const char *name, const char *fmt, ...)
{
	char value[200], err[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(value, sizeof(value), fmt, ap);
	va_end(ap);
	if (config_set(c, name, value, err, sizeof(err))) {
		fprintf(stderr, "simulation: %s\n", err);
		exit(2);
	}
}

static void configure(struct host *h, bool beginning, bool creates, bool unchanged)
{
	struct config *c = &h->config;
	char err[300];

	config_free(c);
	config_init(c);
	set(c, "name", "simulation");
	set(c, "source.topic", "things");
	set(c, "state.dir", "%s", h->dir);
	set(c, "kafka.bootstrap.servers", "simulated");
	set(c, "sort.memory", "1MiB");
	set(c, "state.lease.ms", "%d", (int)PICK(100, 500, 2000));
	set(c, "batch.records", "%d", (int)PICK(1, 3, 20, 10000));
	set(c, "batch.ms", "%d", (int)PICK(1, 20, 100));
	set(c, "notifications.start", "%s", beginning ? "beginning" : "end");
	set(c, "notifications.operations", "%s",
	    creates ? "create,update,delete" : "update,delete");
	set(c, "notifications.unchanged", "%s", unchanged ? "true" : "false");
	if (config_check(c, err, sizeof(err))) {
		fprintf(stderr, "simulation: %s\n", err);
		exit(2);
	}
}

static void draw_hosts(void)
{
	bool beginning = one_in(3), creates = one_in(3), unchanged = one_in(4);

	for (int i = 0; i < HOSTS_MAX; i++) {
		struct host *h = &hosts[i];
		h->id = i;
		h->life = HOST_DOWN;
		h->wall = 1700000000 * SECOND;
		h->cut_until = h->crash_in = 0;
		h->restarts = 0;
		h->points = 0;
		h->uuid[0] = '\0';
		h->rows_known = false;
		h->state = NULL;
		memset(h->delivered, 0, sizeof(h->delivered));
		h->seen = NULL;
		last_error[i][0] = '\0';
		new_boot(h);
		if (i < n_hosts)
			configure(h, beginning, creates, unchanged);
	}
}

static void draw(void)
{
	n_hosts = (int)PICK(1, 2, 2, 2, 3);
	n_partitions = (int)PICK(1, 1, 2, 3);
	w.keys = (int)PICK(2, 6, 16, 60);
	w.tombstone_one_in = PICK(2, 5, 5);
	w.write_us = PICK(10, 50, 200, 1000) * MS;
	w.clean_us = PICK(0, 500, 2000, 10000) * MS;
	w.fault_us = PICK(0, 2000, 5000, 15000) * MS;
	w.crash_points = PICK(0, 0, 500, 3000, 10000);
	w.quiet_at = chance_between(5, 40) * SECOND;
	trouble_one_in = PICK(0, 5, 20, 100);
	socket_timeout_us = PICK(1, 6, 60) * SECOND;
	settings = (struct settings){ .delete_retention_ms = PICK(2000, 10000, 60000, 86400000),
				      .min_compaction_lag_ms = PICK(0, 0, 2000, 60000),
				      .max_message_bytes = 1048588,
				      .transactions = one_in(2),
				      .session_timeout_ms = PICK(1000, 6000) };
}

/* So that a run has many chances to get to its point. */
static void draw_for_point(void)
{
	const char *kind = points_kind();

	if (!*kind)
		return;
	w.fault_us = PICK(300, 1000, 2000) * MS;
	w.crash_points = 0;
	w.quiet_at = chance_between(20, 40) * SECOND;
	if (!strcmp(kind, "abort")) {
		trouble_one_in = PICK(3, 5, 10);
		settings.session_timeout_ms = 1000;
	}
	if (strcmp(kind, "round") && strcmp(kind, "readback"))
		return;
	settings.delete_retention_ms = 2000;
	settings.min_compaction_lag_ms = 0;
	settings.transactions = false;
	w.clean_us = 500 * MS;
	w.tombstone_one_in = 2;
	w.keys = 60;
}

static void begin(uint64_t seed)
{
	fibers_reset();
	disk_reset();
	chance_seed(seed);
	sim_now = 1000 * SECOND;
	sim_violation[0] = '\0';
	memset(&w, 0, sizeof(w));
	plant_reset();
	points_begin(seed);
	draw();
	draw_for_point();
	broker_reset();
	oracle_reset();
	draw_hosts();
	for (int64_t n = PICK(0, 10, 100); n > 0; n--)
		write_one((int)chance_below(n_partitions), ENTRY_COMMITTED);
	for (int i = 0; i < n_hosts; i++)
		at(sim_now + (one_in(2) ? 0 : about(2 * SECOND)), host_start, &hosts[i]);
	at(sim_now + about(w.write_us), writes, NULL);
	if (w.clean_us)
		at(sim_now + about(w.clean_us), cleaner, NULL);
	if (w.fault_us)
		at(sim_now + about(w.fault_us), faults, NULL);
}

bool world_is_healing(void) { return w.healing; }

static void heal(void)
{
	say("healing");
	w.healing = true;
	trouble_one_in = 0;
	brokers_down_until = 0;
	for (int p = 0; p < n_partitions; p++)
		if (w.open[p])
			log_end_open(&source[p], one_in(2));
	for (int i = 0; i < n_hosts; i++) {
		struct host *h = &hosts[i];
		h->cut_until = h->crash_in = 0;
		if (h->life == HOST_PAUSED)
			host_resume(h);
		at(sim_now, host_start, h);
	}
}

static void rest(void)
{
	int quiet = 0;
	const char *unrest = "";

	for (int s = 0; s < REST_S && quiet < 3 && !*sim_violation; s++) {
		sim_run(sim_now + SECOND);
		unrest = oracle_unrest();
		quiet = unrest ? 0 : quiet + 1;
	}
	if (quiet < 3)
		violation("no rest %d s after everything healed: %s", REST_S, unrest);
}

void world_run(uint64_t seed)
{
	begin(seed);
	int64_t began = sim_now;
	say("seed %llu: %d hosts, %d partitions", (unsigned long long)seed, n_hosts, n_partitions);
	sim_run(sim_now + w.quiet_at);
	heal();
	rest();
	if (!*sim_violation)
		oracle_judge();
	figures.simulated += sim_now - began;
}
