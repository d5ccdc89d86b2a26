"""The measures of what is beside the snapshot: Redis and HTTP."""

import re
import subprocess
import time

from broker import die_with_parent, free_port
from measures import VALUE_BYTES, in_turn, say
from redis_server import RedisServer

# Records in one transaction of the mirror (BATCH_RECORDS in sidecar/mirror.c).
PIPELINE = 2000


# ---------------------------------------------------------------- Redis

def _mirrored(redis):
    return sum(redis.positions("bench").values())


def _follow(bench, redis, seed):
    """Offsets a second with which Redis follows the log, from when it begins to until the end."""
    redis.pause()
    try:
        bench.load(bench.size.changes, seed)
        bench.sidecar.wait_published(timeout=600)
    finally:
        redis.resume()
    end = sum(bench.kafka.end_offsets(bench.topic).values())
    first, began, at = _mirrored(redis), None, 0
    while at < end:
        at = _mirrored(redis)
        if began is None and at != first:
            first, began = at, time.monotonic()
        time.sleep(0.01)
    return (end - first) / (time.monotonic() - began)


def _fill(bench, redis):
    """Keys a second that an empty Redis gets."""
    redis.client().flushall()
    log = bench.sidecar.log_text().count("in step with the snapshot")
    pattern = r"in step with the snapshot after ([0-9.]+) s: (\d+) keys"
    while bench.sidecar.log_text().count("in step with the snapshot") == log:
        time.sleep(0.05)
    took, keys = re.findall(pattern, bench.sidecar.log_text())[-1]
    return int(keys) / max(0.1, float(took))


def _benchmark(bench, redis):
    """SET of as many random keys, in pipelines as long as the mirror's transactions."""
    done = subprocess.run(
        ["redis-benchmark", "-p", str(redis.port), "-c", "1", "-P", str(PIPELINE), "-n",
         str(bench.size.changes), "-r", str(bench.size.keys), "-d", str(VALUE_BYTES), "--csv",
         "-t", "set"], capture_output=True, text=True, check=True)
    return float(re.search(r'^"SET","([0-9.]+)"', done.stdout, re.MULTILINE)[1])


def mirror(bench):
    say(f"mirror: {bench.size.changes:,} changes, {bench.size.rounds} rounds after one for warmth")
    with RedisServer() as redis:
        bench.main_sidecar()
        bench.restart_sidecar(redis__uri=redis.uri)
        while _mirrored(redis) < sum(bench.kafka.end_offsets(bench.topic).values()):
            time.sleep(0.1)
        rounds = []
        for n in range(-1, bench.size.rounds):
            pair = in_turn(n, lambda n=n: _follow(bench, redis, 1000 + n),
                           lambda: _benchmark(bench, redis))
            rounds.append([*pair, _fill(bench, redis)])
        del rounds[0]
        bench.restart_sidecar(redis__uri=None)
    theirs = [r[1] for r in rounds]
    contender = f"redis-benchmark SET, pipeline of {PIPELINE}"
    bench.table.add("mirror", "Redis follows the log", "offsets/s", [r[0] for r in rounds],
                    contender, theirs, ">= 0.7")
    bench.table.add("mirror", "an empty Redis is filled", "keys/s", [r[2] for r in rounds],
                    contender, theirs)


# ---------------------------------------------------------------- HTTP

def _requests(bench, port, target, connections):
    done = bench.run("bench_http", "load", port, target, bench.size.keys, connections, 3000)
    return done["requests"] / done["seconds"]


def http(bench):
    say(f"http: look-ups, {bench.size.rounds} rounds after one for warmth")
    port = free_port()
    bench.main_sidecar()
    bench.restart_sidecar(http__listen=f"127.0.0.1:{port}")
    minimal = subprocess.Popen([bench.programs.path("bench_http"), "serve", str(VALUE_BYTES)],
                               stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
    try:
        bare = int(minimal.stdout.readline())
        for connections in (1, 8):
            rounds = [in_turn(n, lambda: _requests(bench, port, "/v1/keys/", connections),
                              lambda: _requests(bench, bare, "/", connections))
                      for n in range(-1, bench.size.rounds)][1:]
            bench.table.add("http", f"look-ups, {connections} connections", "1/s",
                            [r[0] for r in rounds], "libmicrohttpd, a constant answer",
                            [r[1] for r in rounds], ">= 0.8")
    finally:
        minimal.kill()
        minimal.communicate()
    bench.restart_sidecar(http__listen=None)
