#!/usr/bin/python3
"""Claim: whatever happens to Redis or to sidecars while the topic is written, Redis is the topic in
the end, key by key, absent ones included; nothing else in it is touched; and another pipeline's keys
in the same Redis stay that pipeline's.

Environment: KEYS=1000000 CHANGES=300000 RATE=3000 KILLS=20 PAUSES=10 SEED=1. A tenth of the changes
are deletes. After every step Redis, the snapshot and what was written are compared:

  fill         KEYS keys into an empty Redis
  changes      CHANGES changes flat out
  dead         as many while Redis does not answer (SIGSTOP): the snapshot goes on
  redis_kill   kill -9 of a Redis with an append-only file synced every second, KILLS/4 times
  redis_empty  the same without persistence: it comes back empty
  failover     to a replica that lost seconds
  flushall     in the middle of changes
  kill         kill -9 of the sidecar, KILLS times
  pause        two sidecars of one name: whoever leads gets SIGSTOP, the other one takes over, the
               first one wakes up in the middle of it; PAUSES times
  strays       1% of the keys deleted, 1% changed, 1% added by another client; a resync is asked for
"""

import random
import re
import shutil
import threading
import time

import common  # noqa: I001  (finds the modules of the rig)
import oracle
from broker import COMPACT_NEVER, Kafka
from redis_server import RedisServer
from sidecar import Sidecar
from workload import Workload

PREFIX = b"u*[s]?s:"       # what a careless pattern would take for more
SECOND = b"users-abs:"     # and for whose
DECOYS = 10_000


class Writer:
    """Changes a topic until it is told to stop."""

    def __init__(self, work, rate):
        self._stop = threading.Event()
        self._work = work
        self._rate = rate
        work.in_background(self._write)

    def _write(self):
        while not self._stop.is_set():
            self._work.change(self._rate // 2, rate=self._rate)

    def stop(self):
        self._stop.set()
        self._work.wait_background()


class Proof:
    def __init__(self, kafka, redis, clock):
        self.kafka = kafka
        self.redis = redis
        self.clock = clock
        self.steps = {}
        self.held = True
        self.sidecars = []  # of the first pipeline
        self.decoys = {b"u%d" % i: b"decoy" for i in range(DECOYS // 2)}
        self.decoys.update({b"uXsYs:%d" % i: b"decoy" for i in range(DECOYS // 2)})

    def wait(self, name, topic, timeout=600):
        deadline = time.monotonic() + timeout
        ends = self.kafka.end_offsets(topic)
        while True:
            try:
                if self.redis.positions(name) == ends:
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                for sidecar in self.sidecars:
                    print(sidecar.evidence(40))
                raise TimeoutError(f"{ends} is not mirrored: {self.redis.mark(name)}")
            time.sleep(0.05)

    def compare(self, step, work, second):
        """Redis against what was written and against a snapshot; all keys of Redis are looked at."""
        self.wait("mirror", work.topic)
        self.wait("second", second.topic)
        self.clock.done(f"{step}_mirrored")
        everything = self.redis.dump()
        fold = {PREFIX + k: s.value for k, s in work.truth.fold().items()}
        snapshot = {PREFIX + k: s.value
                    for k, s in oracle.snapshot_of(self.sidecars[0].state_dir).items()}
        others = {SECOND + k: s.value for k, s in second.truth.fold().items()}
        marks = {b"sidenote:mirror", b"sidenote:second", b"sidenote::prefixes"}
        expected = {**fold, **others, **self.decoys, **{m: b"hash" for m in marks}}
        wrong = [k for k in expected.keys() | everything.keys()
                 if expected.get(k) != everything.get(k)]
        figures = {"keys": len(fold), "second": len(others), "decoys": len(self.decoys),
                   "redis": len(everything), "wrong": len(wrong),
                   "snapshot_wrong": sum(fold.get(k) != snapshot.get(k)
                                         for k in fold.keys() | snapshot.keys())}
        self.steps[step] = figures
        if wrong or figures["snapshot_wrong"]:
            self.held = False
            print(step, [(k, expected.get(k), everything.get(k)) for k in wrong[:5]])
            for sidecar in self.sidecars:
                print(sidecar.evidence(40))
        self.clock.done(f"{step}_compared", str(figures))


def lines(sidecars, text):
    return sum(s.log_text().count(text) for s in sidecars)


def dead(proof, work, second, changes):
    """How long the snapshot takes with a Redis that hangs, and Redis to catch up afterwards."""
    sidecar = proof.sidecars[0]
    proof.redis.pause()
    begin = time.monotonic()
    written = work.change(changes)
    ends = proof.kafka.end_offsets(work.topic)
    while any(p["applied"] < ends[p["partition"]] for p in sidecar.stat()["partitions"]):
        time.sleep(0.05)
    applied_s = time.monotonic() - begin
    proof.redis.resume()
    begin = time.monotonic()
    proof.wait("mirror", work.topic)
    caught_up_s = time.monotonic() - begin
    proof.compare("dead", work, second)
    proof.steps["dead"].update(written=written, applied_s=round(applied_s, 1),
                               caught_up_s=round(caught_up_s, 1))


def redis_kills(proof, work, second, writer, times, rng):
    for _ in range(times):
        time.sleep(rng.uniform(0.5, 4))
        proof.redis.kill9()
        time.sleep(rng.uniform(0, 1))
        proof.redis.start(120)
    writer.stop()
    proof.compare("redis_kill", work, second)


def redis_empty(proof, work, second, writer):
    redis = proof.redis
    redis.client().config_set("appendonly", "no")
    redis.options["appendonly"] = "no"
    time.sleep(2)
    redis.kill9()
    shutil.rmtree(redis.directory + "/appendonlydir", ignore_errors=True)
    redis.start()
    redis.client().mset(proof.decoys)
    writer.stop()
    proof.compare("redis_empty", work, second)


def failover(proof, work, second, writer):
    old = proof.redis
    replica = old.replica()
    time.sleep(3)
    replica.client().replicaof("127.0.0.1", 1)  # hears no more
    kept = replica.positions("mirror")
    time.sleep(4)
    lost = sum(old.positions("mirror")[p] - kept[p] for p in kept)
    old.kill9()
    replica.promote()
    # where the old one was, as behind an address that follows the primary
    replica.client().save()
    replica.kill9()
    replica.port = replica.options["port"] = old.port
    replica.uri = old.uri
    replica.start(120)
    proof.redis = replica
    writer.stop()
    proof.compare("failover", work, second)
    proof.steps["failover"]["lost_offsets"] = lost


def flushall(proof, work, second, writer):
    for _ in range(2):
        time.sleep(3)
        proof.redis.client().flushall()
        proof.redis.client().mset(proof.decoys)
    writer.stop()
    proof.compare("flushall", work, second)


def kills(proof, work, second, writer, times, rng):
    sidecar = proof.sidecars[0]
    for _ in range(times):
        time.sleep(rng.uniform(0.1, 3.5))
        sidecar.kill9()
        sidecar.start()
    writer.stop()
    proof.compare("kill", work, second)


def pauses(proof, work, second, writer, times, rng):
    a, b = proof.sidecars
    woken = 0
    for _ in range(times):
        deadline = time.monotonic() + 60
        while {(s.stat() or {}).get("role") for s in (a, b)} != {"leader", "standby"}:
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        leader = a if (a.stat() or {}).get("role") == "leader" else b
        epoch = int(proof.redis.mark("mirror")["epoch"])
        leader.stop()
        deadline = time.monotonic() + 30
        while int(proof.redis.mark("mirror")["epoch"]) == epoch and time.monotonic() < deadline:
            time.sleep(0.05)
        woken += int(proof.redis.mark("mirror")["epoch"]) > epoch
        time.sleep(rng.uniform(0, 1))
        leader.cont()
        time.sleep(rng.uniform(0.5, 2))
    writer.stop()
    proof.compare("pause", work, second)
    proof.steps["pause"]["taken_over"] = woken


def strays(proof, work, second):
    client = proof.redis.client()
    keys = work.present_keys()
    percent = max(1, len(keys) // 100)
    for i in range(0, percent, 1000):
        client.delete(*(PREFIX + k for k in keys[i:min(i + 1000, percent)]))
    client.mset({PREFIX + k: b"wrong" for k in keys[percent:2 * percent]})
    client.mset({PREFIX + b"stray%d" % i: b"wrong" for i in range(percent)})
    writer = Writer(work, 3000)
    client.hset("sidenote:mirror", "resync", "by hand")
    time.sleep(2)
    writer.stop()
    proof.compare("strays", work, second)
    proof.steps["strays"]["of_each_kind"] = percent


def main():
    keys = common.scale("KEYS", 1_000_000)
    changes = common.scale("CHANGES", 300_000)
    rate = common.scale("RATE", 3000)
    n_kills = common.scale("KILLS", 20)
    n_pauses = common.scale("PAUSES", 10)
    seed = common.scale("SEED", 1)
    rng = random.Random(seed)
    clock = common.Clock()
    with Kafka(heap="512m") as kafka, RedisServer(aof="everysec") as redis:
        proof = Proof(kafka, redis, clock)
        redis.client().mset(proof.decoys)
        work = Workload(kafka, kafka.create_topic("users", 4, COMPACT_NEVER), seed=seed)
        work.load(keys)
        second = Workload(kafka, kafka.create_topic("second", 2, COMPACT_NEVER), seed=seed + 1)
        second.load(max(1, keys // 50))
        clock.done("load", f"{keys} keys")
        options = {"redis.uri": redis.uri, "log.level": "info", "notifications.topic": ""}
        first = {**options, "redis.prefix": PREFIX.decode()}
        with Sidecar(kafka, "mirror", work.topic, first) as a, \
                Sidecar(kafka, "mirror", work.topic, first) as b, \
                Sidecar(kafka, "second", second.topic,
                        {**options, "redis.prefix": SECOND.decode()}) as other:
            proof.sidecars = [a]
            a.start()
            a.wait_ready(600)
            other.start()
            clock.done("snapshot")
            proof.compare("fill", work, second)
            rss = a.rss_bytes()
            took = re.search(r"in step with the snapshot after ([0-9.]+) s", a.log_text())
            proof.steps["fill"]["took_s"] = float(took[1])

            work.change(changes)
            clock.done("written", f"{changes} changes")
            proof.compare("changes", work, second)

            dead(proof, work, second, changes)

            def writing():
                second.change(2000)
                return Writer(work, rate)
            redis_kills(proof, work, second, writing(), max(1, n_kills // 4), rng)
            resyncs = lines([a], "SN-REDIS-RESYNC") + lines([a], "Redis: filling")
            redis_empty(proof, work, second, writing())
            failover(proof, work, second, writing())
            proof.steps["redis_kill"]["resyncs"] = resyncs - 1  # the first fill
            flushall(proof, work, second, writing())
            kills(proof, work, second, writing(), n_kills, rng)
            b.start()
            b.wait_ready(600)
            proof.sidecars = [a, b]
            pauses(proof, work, second, writing(), n_pauses, rng)
            fenced = lines([a, b], "SN-REDIS-FENCED")
            strays(proof, work, second)
            peak = max(rss, a.rss_bytes())
            for sidecar in (a, b, other):
                sidecar.term()
        proof.redis.close()
    common.finish("mirror", proof.held, seed=seed, keys=keys, changes=changes, records=len(work.truth),
                  rss_mib=peak >> 20, fenced=fenced, steps=proof.steps, **clock.seconds)


if __name__ == "__main__":
    main()
