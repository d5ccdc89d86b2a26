/*
 * bench_redis.c - what a look-up in Redis costs, over a unix socket.
 *
 *   bench_redis fill SOCKET KEYS VALUE_BYTES
 *   bench_redis get SOCKET KEYS GETS SEED SERVER_PID
 *
 * `get` prints nanoseconds for each look-up: those that pass, and those that
 * the processors work, for the client and for the server.
 */
#include "bench.h"

#include <hiredis/hiredis.h>

enum { PIPELINE = 1000 };

static redisContext *c;

static void check(redisReply *r)
{
	if (!r || r->type == REDIS_REPLY_ERROR || r->type == REDIS_REPLY_NIL)
		die("redis: %s", r && r->str ? r->str : c->errstr[0] ? c->errstr : "no such key");
	freeReplyObject(r);
}

static void take_replies(uint32_t n)
{
	for (void *r; n; n--) {
		if (redisGetReply(c, &r))
			die("redis: %s", c->errstr);
		check(r);
	}
}

static void fill(uint32_t keys, size_t bytes)
{
	char key[BENCH_KEY_BYTES + 1], *value = malloc(bytes + 64);
	uint64_t random = 1;
	uint32_t waiting = 0;

	for (uint32_t i = 0; i < keys; i++) {
		bench_key(key, i);
		bench_value(value, bytes, i, &random);
		redisAppendCommand(c, "SET %s %b", key, value, bytes);
		if (++waiting == PIPELINE) {
			take_replies(waiting);
			waiting = 0;
		}
	}
	take_replies(waiting);
	free(value);
}

static int64_t worked_by(clockid_t clock)
{
	struct timespec t;

	if (clock_gettime(clock, &t))
		die("no clock of the server");
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void get(uint32_t keys, int64_t gets, uint64_t seed, pid_t server)
{
	clockid_t clock;

	if (clock_getcpuclockid(server, &clock))
		die("no clock of process %d", (int)server);
	int64_t began = now_ns(), client = worked_ns(), theirs = worked_by(clock);
	for (int64_t i = 0; i < gets; i++) {
		char key[BENCH_KEY_BYTES + 1];
		bench_key(key, (uint32_t)(next_random(&seed) % keys));
		/* the key as it is: printf-like formats cost more */
		const char *argv[] = { "GET", key };
		const size_t len[] = { 3, BENCH_KEY_BYTES };
		check(redisCommandArgv(c, 2, argv, len));
	}
	double n = (double)gets;
	printf("{\"ns\":%.1f,\"client_ns\":%.1f,\"server_ns\":%.1f}\n",
	       (double)(now_ns() - began) / n, (double)(worked_ns() - client) / n,
	       (double)(worked_by(clock) - theirs) / n);
}

int main(int argc, char **argv)
{
	if (argc < 5)
		return 2;
	c = redisConnectUnix(argv[2]);
	if (!c || c->err)
		die("%s: %s", argv[2], c ? c->errstr : "out of memory");
	if (!strcmp(argv[1], "fill")) {
		fill((uint32_t)atoll(argv[3]), (size_t)atoll(argv[4]));
		printf("{}\n");
	} else if (argc == 7) {
		get((uint32_t)atoll(argv[3]), atoll(argv[4]), (uint64_t)atoll(argv[5]),
		    (pid_t)atoi(argv[6]));
	}
	redisFree(c);
	return 0;
}
