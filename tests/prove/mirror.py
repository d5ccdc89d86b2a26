#!/usr/bin/python3
"""Claim: whatever happens to Redis or to sidecars while the topic is written, Redis is the topic in
the end, key by key, absent ones included; nothing else in it is touched; another pipeline's keys in
the same Redis stay that pipeline's; and whoever looks in between sees exactly the topic up to the
positions in the mark.

Environment: KEYS=1000000 CHANGES=200000 RATE=3000 KILLS=20 PAUSES=10 PURGED=5000 SEED=1, and
STEPS=kill,pause to do only some after the fill. A tenth of the changes are deletes. After every step
Redis, the snapshot and what was written are compared:

  fill         KEYS keys into an empty Redis
  changes      CHANGES changes flat out
  dead         as many while Redis does not answer (SIGSTOP): the snapshot goes on
  redis_kill   kill -9 of a Redis with appendfsync always, KILLS/2 times; every second time up to
               256 KiB at the end of its file are lost, as a power cut does with less than always
  redis_empty  the same without persistence: it comes back empty
  failover     to a replica that lost seconds
  flushall     in the middle of changes
  kill         kill -9 of the sidecar, KILLS times
  pause        two sidecars of one name: whoever leads gets SIGSTOP, the other one takes over, the
               first one wakes up in the middle of it; PAUSES times, and as often it is asked to end
  round        both are stopped, PURGED keys deleted and their tombstones purged by compaction
  strays       1% of the keys deleted, 1% changed, 1% added by another client; a resync is asked for

From the fill to the last step but one an observer reads mark and OBSERVED keys in one transaction,
20 times a second: outside of a resync each of them must be what the topic has before the positions,
neither older nor newer. These keys get a tenth of the changes, also put and delete in one batch.
"""

import bisect
import glob
import os
import random
import re
import shutil
import threading
import time

import redis as redis_py

import common  # noqa: I001  (finds the modules of the rig)
import oracle
from broker import COMPACT_FAST, COMPACT_NEVER, Kafka
from redis_server import RedisServer
from sidecar import Sidecar, sidenote
from workload import Workload

PREFIX = b"u*[s]?s:"       # what a careless pattern would take for more
SECOND = b"users-abs:"     # and for whose
DECOYS = 10_000
OBSERVED = 100


class Writer(common.Writer):
    """Changes a topic until it is told to stop, some keys more than others."""

    def __init__(self, work, rate, often=()):
        self._rate = rate
        self._often = often
        self._rng = random.Random(5)
        super().__init__(work, self._change_some)

    def _change_some(self):
        self._work.change(self._rate // 10, rate=self._rate)
        for _ in range(self._rate // 100 if self._often else 0):
            self._change_often()

    def _change_often(self):
        key = self._rng.choice(self._often)
        kind = self._rng.random()
        if kind > 0.2:
            self._work.put(key, self._work.new_value())
        if kind < 0.4:  # half of them right behind a put: in one batch mostly
            self._work.put(key, None)

    def stop(self):
        super().stop()
        self._work.flush()


class Histories:
    """What some keys were at which offset: columns of offset and hash, from the truth."""

    def __init__(self, work, keys):
        self._work = work
        self.keys = keys
        self._of = {k: ([], []) for k in keys}
        self._read = [0] * work.partitions

    def learn(self):
        """Up to what has been delivered by now; nobody writes."""
        for p, log in enumerate(self._work.truth.logs):
            for i in range(self._read[p], len(log.offsets)):
                if log.keys[i] in self._of:
                    offsets, hashes = self._of[log.keys[i]]
                    offsets.append(log.offsets[i])
                    hashes.append(hash(log.values[i]))
            self._read[p] = len(log.offsets)

    def changes(self):
        return sum(len(offsets) for offsets, _ in self._of.values())

    def at(self, key, positions):
        """The hash of its value as of the positions."""
        offsets, hashes = self._of[key]
        i = bisect.bisect_left(offsets, positions[self._work.partition_of(key)])
        return hashes[i - 1] if i else hash(None)


class Observer:
    """Looks at Redis all the time, whatever happens to it, and judges later what it saw."""

    def __init__(self, proof, work, keys):
        self._proof = proof
        self._work = work
        self._seen = []
        self.histories = Histories(work, keys)
        self.figures = {"looks": 0, "checked": 0, "wrong": 0, "in_resync": 0, "no_mark": 0,
                        "no_answer": 0, "positions": 0}
        self.first_wrong = None
        self._last = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self):
        while not self._stop.wait(0.05):
            try:
                pipe = self._proof.redis.client(socket_timeout=5).pipeline(transaction=True)
                pipe.hgetall("sidenote:mirror")
                pipe.mget([PREFIX + k for k in self.histories.keys])
                mark, values = pipe.execute()
            except (redis_py.exceptions.RedisError, OSError):
                self.figures["no_answer"] += 1
                continue
            finally:
                self.figures["looks"] += 1
            positions = [int(mark.get(b"p%d" % p, -1)) for p in range(self._work.partitions)]
            if b"resync" in mark:
                self.figures["in_resync"] += 1
            elif min(positions) < 0:
                self.figures["no_mark"] += 1
            else:
                self._seen.append((positions, [hash(v) for v in values]))

    def judge(self):
        """What was seen until now. Nobody writes."""
        self.histories.learn()
        seen, self._seen = self._seen, []
        for positions, values in seen:
            self.figures["positions"] += positions != self._last
            self._last = positions
            for key, value in zip(self.histories.keys, values):
                self.figures["checked"] += 1
                if self.histories.at(key, positions) != value:
                    self.figures["wrong"] += 1
                    self.first_wrong = self.first_wrong or (key, positions)

    def stop(self):
        self._stop.set()
        self._thread.join()
        self.judge()
        self.figures["changes"] = self.histories.changes()


class Proof:
    def __init__(self, kafka, redis, clock):
        self.kafka = kafka
        self.redis = redis
        self.clock = clock
        self.steps = {}
        self.held = True
        self.sidecars = []  # of the first pipeline
        self.observer = None
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
        for sidecar in self.sidecars:
            wait_applied(self.kafka, sidecar)
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
        if self.observer:
            self.observer.judge()
            self.held &= not self.observer.figures["wrong"]
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


def wait_applied(kafka, sidecar):
    """The snapshot has the whole topic."""
    ends = kafka.end_offsets(sidecar.source_topic)
    deadline = time.monotonic() + 600
    while any(p["applied"] < ends[p["partition"]] for p in sidecar.stat()["partitions"]):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{ends} is not applied\n{sidecar.evidence()}")
        time.sleep(0.05)


def lines(sidecars, text):
    return sum(s.log_text().count(text) for s in sidecars)


def dead(proof, work, second, changes):
    """How long the snapshot takes with a Redis that hangs, and Redis to catch up afterwards."""
    sidecar = proof.sidecars[0]
    proof.redis.pause()
    begin = time.monotonic()
    written = work.change(changes)
    wait_applied(proof.kafka, sidecar)
    applied_s = time.monotonic() - begin
    proof.redis.resume()
    begin = time.monotonic()
    proof.wait("mirror", work.topic)
    caught_up_s = time.monotonic() - begin
    proof.compare("dead", work, second)
    proof.steps["dead"].update(written=written, applied_s=round(applied_s, 1),
                               caught_up_s=round(caught_up_s, 1))


def lose_suffix(redis, rng):
    """The end of the append-only file was never written."""
    newest = max(glob.glob(redis.directory + "/appendonlydir/*.incr.aof"), key=os.path.getmtime)
    size = os.path.getsize(newest)
    lost = min(size, rng.randrange(1 << 18))
    os.truncate(newest, size - lost)
    return lost


def redis_kills(proof, work, second, writer, times, rng):
    lost = 0
    for i in range(times):
        time.sleep(rng.uniform(0.5, 4))
        proof.redis.kill9()
        time.sleep(rng.uniform(0, 1))
        if i % 2:
            lost += lose_suffix(proof.redis, rng) > 0
        proof.redis.start(120)
    writer.stop()
    proof.compare("redis_kill", work, second)
    proof.steps["redis_kill"].update(kills=times, with_lost_suffix=lost)


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
    proof.held &= lost > 0


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
    proof.steps["kill"]["kills"] = times


def leader_of(sidecars, timeout=60):
    """(leader, standby), as soon as there are both."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        roles = [(s.stat() or {}).get("role") for s in sidecars]
        if sorted(map(str, roles)) == ["leader", "standby"]:
            i = roles.index("leader")
            return sidecars[i], sidecars[1 - i]
        time.sleep(0.2)
    raise TimeoutError("no leader and standby: " + "".join(s.evidence(20) for s in sidecars))


def wait_epoch(proof, above, timeout=30):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if int(proof.redis.mark("mirror")["epoch"]) > above:
            return True
        time.sleep(0.05)
    return False


def pauses(proof, work, second, writer, times, rng):
    moved = {"woken": 0, "ended": 0}
    for i in range(2 * times):
        leader, _ = leader_of(proof.sidecars)
        epoch = int(proof.redis.mark("mirror")["epoch"])
        if i % 2:
            leader.term()
            moved["ended"] += wait_epoch(proof, epoch)
            leader.start()
        else:
            leader.stop()
            moved["woken"] += wait_epoch(proof, epoch)
            time.sleep(rng.uniform(0, 1))
            leader.cont()
        time.sleep(rng.uniform(0.5, 2))
    writer.stop()
    proof.compare("pause", work, second)
    proof.steps["pause"].update(moved)
    proof.held &= min(moved.values()) == times


def purge_unseen(kafka, work, deletes):
    """Deletes that nobody can read any more: the number of records that compaction took away."""
    since = kafka.end_offsets(work.topic)
    kafka.alter_config(work.topic, {**COMPACT_FAST, "min.compaction.lag.ms": "0"})
    work.change({"delete": deletes, "update": deletes})
    kafka.force_compaction(work.topic, passes=3, timeout=600)
    gone = work.truth.missing_offsets(kafka, since=since)
    return sum(1 for p in gone for r in work.truth.records(p)
               if r.offset in gone[p] and r.value is None)


def round_of(proof, work, second, deletes):
    for sidecar in proof.sidecars:
        sidecar.term()
    purged = purge_unseen(proof.kafka, work, deletes)
    done = lines(proof.sidecars, "round: done")
    for sidecar in proof.sidecars:
        sidecar.start()
    for sidecar in proof.sidecars:
        sidecar.wait_ready(600)
        sidecar.wait_log("round: done", 600)
    proof.compare("round", work, second)
    proof.steps["round"].update(purged=purged, rounds=lines(proof.sidecars, "round: done") - done)
    proof.held &= purged > 0


def verify(proof):
    """What the program itself says."""
    done = sidenote("verify", "-F", proof.sidecars[0].config_path, timeout=900)
    proof.held &= done.returncode == 0
    return done.stdout.strip().splitlines()[-1:] or [done.stderr[-300:]]


def strays(proof, work, second):
    client = proof.redis.client()
    keys = work.present_keys()
    percent = max(1, len(keys) // 100)
    for i in range(0, percent, 1000):
        client.delete(*(PREFIX + k for k in keys[i:min(i + 1000, percent)]))
    client.mset({PREFIX + k: b"wrong" for k in keys[percent:2 * percent]})
    client.mset({PREFIX + b"stray%d" % i: b"wrong" for i in range(percent)})
    writer = Writer(work, 3000, ())
    client.hset("sidenote:mirror", "resync", "by hand")
    time.sleep(2)
    writer.stop()
    proof.compare("strays", work, second)
    proof.steps["strays"]["of_each_kind"] = percent


STEPS = ("changes", "dead", "redis_kill", "redis_empty", "failover", "flushall", "kill", "pause",
         "round", "strays")


def one_step(name, proof, work, second, size, rng):
    def writing():
        second.change(2000)
        return Writer(work, size.rate, proof.observer.histories.keys)
    if name == "changes":
        work.change(size.changes)
        proof.clock.done("written", f"{size.changes} changes")
        proof.compare("changes", work, second)
    elif name == "dead":
        dead(proof, work, second, size.changes)
    elif name == "redis_kill":
        filled = lines(proof.sidecars, "SN-REDIS-RESYNC")
        redis_kills(proof, work, second, writing(), max(1, size.kills // 2), rng)
        proof.steps[name]["resyncs"] = lines(proof.sidecars, "SN-REDIS-RESYNC") - filled
    elif name == "redis_empty":
        redis_empty(proof, work, second, writing())
    elif name == "failover":
        failover(proof, work, second, writing())
    elif name == "flushall":
        flushall(proof, work, second, writing())
    elif name == "kill":
        kills(proof, work, second, writing(), size.kills, rng)
    elif name == "pause":
        pauses(proof, work, second, writing(), size.pauses, rng)
    elif name == "round":
        round_of(proof, work, second, size.purged)
    elif name == "strays":
        strays(proof, work, second)


def run(proof, work, second, size):
    """Every step; two sidecars of one name, from `kill` on side by side."""
    a, b = proof.sidecars
    rng = random.Random(size.seed)
    proof.sidecars = [a]
    a.start()
    a.wait_ready(600)
    proof.clock.done("snapshot")
    proof.compare("fill", work, second)
    took = re.search(r"in step with the snapshot after ([0-9.]+) s", a.log_text())
    proof.steps["fill"]["took_s"] = float(took[1])
    proof.observer = Observer(proof, work, work.present_keys()[:OBSERVED])
    for name in STEPS:
        if name not in size.steps:
            continue
        if name == "pause":
            b.start()
            b.wait_ready(600)
            proof.sidecars = [a, b]
        if name == "strays":  # keys that others write to are promised to nobody
            proof.observer.stop()
        one_step(name, proof, work, second, size, rng)
        proof.steps[name]["rss_mib"] = max(s.rss_bytes() for s in proof.sidecars) >> 20
    proof.observer.stop()


class Size:
    def __init__(self):
        self.keys = common.scale("KEYS", 1_000_000)
        self.changes = common.scale("CHANGES", 200_000)
        self.rate = common.scale("RATE", 3000)
        self.kills = common.scale("KILLS", 20)
        self.pauses = common.scale("PAUSES", 10)
        self.purged = common.scale("PURGED", 5000)
        self.seed = common.scale("SEED", 1)
        self.steps = os.environ.get("STEPS", ",".join(STEPS)).split(",")


def main():
    size = Size()
    clock = common.Clock()
    with Kafka(heap="512m") as kafka, RedisServer(aof="always") as redis:
        proof = Proof(kafka, redis, clock)
        redis.client().mset(proof.decoys)
        work = Workload(kafka, kafka.create_topic("users", 4, COMPACT_NEVER), seed=size.seed)
        work.load(size.keys)
        second = Workload(kafka, kafka.create_topic("second", 2, COMPACT_NEVER), seed=size.seed + 1)
        second.load(max(1, size.keys // 50))
        clock.done("load", f"{size.keys} keys")
        options = {"redis.uri": redis.uri, "log.level": "info", "notifications.topic": ""}
        first = {**options, "redis.prefix": PREFIX.decode()}
        with Sidecar(kafka, "mirror", work.topic, first) as a, \
                Sidecar(kafka, "mirror", work.topic, first) as b, \
                Sidecar(kafka, "second", second.topic,
                        {**options, "redis.prefix": SECOND.decode()}) as other:
            other.start()
            proof.sidecars = [a, b]
            run(proof, work, second, size)
            says = verify(proof)
            fenced = lines([a, b], "SN-REDIS-FENCED")
            for sidecar in (*proof.sidecars, other):
                sidecar.term()
        proof.redis.close()
    seen = proof.observer
    if seen.first_wrong:
        print(f"seen wrong: {seen.first_wrong}")
    common.finish("mirror", proof.held and not seen.figures["wrong"] and seen.figures["checked"] > 0,
                  seed=size.seed, keys=size.keys, changes=size.changes, records=len(work.truth),
                  fenced=fenced, observer=seen.figures, verify=says, steps=proof.steps,
                  **clock.seconds)


if __name__ == "__main__":
    main()
