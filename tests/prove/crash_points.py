#!/usr/bin/python3
"""Claim: wherever the process is killed, nothing is lost, nothing is told twice, nothing wrong is
kept. tests/faults/points names the places; at each the process is killed TIMES times, by itself.

Environment: TIMES=20 KEYS=5000 RATE=500 SEED=1 JOBS=2, ONLY=change,start,... to do only some, and
POINTS=name,name. The program is that of `make FAULTS=1`. Each group has a broker, a topic and a
sidecar of its own, which live through all its kills; a point that is not reached is a failure.
One line of JSON for each group.
"""

import concurrent.futures
import itertools
import json
import os
import random
import subprocess
import sys
import time

import common  # noqa: I001  (finds the modules of the rig)
import gone
from broker import COMPACT_FAST, COMPACT_NEVER, ROOT, Kafka, wait_until
from redis_server import RedisServer
from sidecar import Sidecar, sidenote
from workload import Workload

PROGRAM = "build-faults/sidenote"
REACH_S = 60


def all_points():
    points = {}
    with open(os.path.join(ROOT, "tests/faults/points"), encoding="utf-8") as f:
        for line in f:
            if line.strip() and not line.startswith("#"):
                group, name = line.split()
                points.setdefault(group, []).append(name)
    return points


class Group:
    """What is done around the kills of one group; most of it is in the derived classes."""

    config = COMPACT_NEVER
    options = {}
    writes = True   # while the kills go on
    passes = 1      # the point is passed up to this often before the kill

    def __init__(self, kafka, name, seed):
        self.kafka = kafka
        self.rng = random.Random(f"{name} {seed}")
        self.topic = kafka.create_topic(name, 4, self.config)
        self.work = Workload(kafka, self.topic, seed=seed)
        self.work.load(common.scale("KEYS", 5000))
        self.sidecar = Sidecar(kafka, name, self.topic,
                               {"state.lease.ms": "300", "log.level": "info", **self.options})
        self.sidecar.start()
        self.sidecar.wait_published()
        self.start = kafka.end_offsets(self.topic)
        self.unseen = {}
        self.stopping = False
        self.sidecar.kill9()
        if self.writes:
            self.work.in_background(self._write)

    def _write(self):
        rate = common.scale("RATE", 500)
        while not self.stopping:
            self.work.change(rate // 2, rate=rate)

    # ---- one kill, in three steps

    def before(self, point):
        """While the sidecar is dead."""

    def provoke(self, point):
        """Once it was started: what it takes to get there."""

    def after(self, point):
        """It is dead again."""

    def begin(self, fault=None):
        self.logged = len(self.sidecar.log_text())
        self.sidecar.start(fault)

    def wait_log(self, text):
        """Of the process that runs now, or its end."""
        wait_until(lambda: text in self.sidecar.log_text()[self.logged:]
                   or not self.sidecar.alive(), REACH_S, text)

    def kill(self, point):
        self.before(point)
        self.begin(f"kill:{point}:{self.rng.randint(1, self.passes)}")
        self.provoke(point)
        try:
            self.sidecar.wait_exit(-9, REACH_S)
        except TimeoutError:
            self.sidecar.kill9()
            return False
        self.after(point)
        return True

    # ---- the end

    def heal(self):
        self.stopping = True
        if self.writes:
            self.work.wait_background()
        if not self.sidecar.alive():
            self.sidecar.start()
        self.sidecar.wait_published(timeout=300)

    def judge(self):
        """(held, figures)"""
        verdict, diff = common.judge(self.kafka, self.sidecar, self.work, self.start,
                                     unseen=self.unseen)
        if not (verdict.clean and diff.clean):
            print(self.sidecar.evidence(100), file=sys.stderr, flush=True)
        return verdict.clean and diff.clean and self.gaps_are_fine(verdict), {
            "notifications": verdict.figures(), "snapshot": diff.figures()}

    def gaps_are_fine(self, verdict):
        return verdict.gap == 0

    def close(self):
        self.sidecar.close()


class Change(Group):
    passes = 20


class Start(Group):
    pass


class Stop(Group):
    def provoke(self, point):
        self.wait_log("leading")
        self.sidecar.process.terminate()


class Abort(Group):
    """The topic takes less than the sidecar believes."""

    def limit(self, size):
        self.kafka.alter_config(self.sidecar.notifications_topic, {"max.message.bytes": size})

    def before(self, point):
        self.limit(1_000_000)

    def provoke(self, point):
        self.wait_log("leading")
        self.sidecar.wait_published()
        self.limit(2000)
        noise = self.rng.randbytes(5000).hex().encode()  # compression must not help
        self.work.put(self.work.present_keys()[0], b'{"large":"%s"}' % noise)
        self.work.flush()

    writes = False

    def heal(self):
        self.limit(1_000_000)
        super().heal()


class Fill(Group):
    """The state was lost: what comes after the published position is told as a gap."""

    options = {"sort.memory": "1MiB"}

    def before(self, point):
        self.sidecar.remove_state()

    def gaps_are_fine(self, verdict):
        return True


class Round(Group):
    config = COMPACT_FAST
    writes = False
    options = {"reconcile": "always"}

    def before(self, point):
        self.purge(self.work.present_keys()[:3])

    def purge(self, keys):
        """Deletes whose tombstones nobody has read."""
        since = self.kafka.end_offsets(self.topic)
        for key in keys:
            self.work.put(key, None)
        self.work.flush()
        self.kafka.force_compaction(self.topic, passes=2, timeout=60)
        unseen = self.work.truth.missing_offsets(self.kafka, since=since)
        if sum(map(len, unseen.values())) != len(keys):
            raise RuntimeError(f"{unseen} were removed, {len(keys)} tombstones were to be")
        for p, offsets in unseen.items():
            self.unseen.setdefault(p, set()).update(offsets)

    def after(self, point):
        self.settle()

    def settle(self):
        self.begin()
        self.wait_log("round: done")
        self.sidecar.wait_published()
        self.sidecar.kill9()


class Readback(Round):
    """What is gone is more than a transaction takes, and the process was killed after the first:
    the next one has to read back what that one told."""

    def before(self, point):
        value = b'{"large":"%s"}' % (b"x" * 100_000)
        names = (b"large-%d" % i for i in itertools.count())
        keys = list(itertools.islice((k for k in names if self.work.partition_of(k) == 0), 100))
        for key in keys:
            self.work.put(key, value)
        self.work.flush()
        self.settle()
        self.purge(keys)
        self.begin("kill:txn.committed:1")
        self.sidecar.wait_exit(-9, REACH_S)


class Rebuild(Group):
    def provoke(self, point):
        self.wait_log("leading")
        sidenote("rebuild", "-F", self.sidecar.config_path, timeout=REACH_S)


class Redis(Group):
    passes = 20

    def __init__(self, kafka, name, seed):
        self.server = RedisServer()
        self.server.start()
        self.options = {"redis.uri": self.server.uri}
        super().__init__(kafka, name, seed)

    def judge(self):
        held, figures = super().judge()
        result = sidenote("verify", "-F", self.sidecar.config_path, timeout=120)
        if result.returncode:
            print(result.stdout, result.stderr, file=sys.stderr, flush=True)
        return held and result.returncode == 0, {**figures, "verify": result.returncode}

    def close(self):
        super().close()
        self.server.close()


class Gone(Group):
    """What compaction removes is told as well. It is left for longer than the sidecar is dead."""

    lag_ms = 15000
    config = {"cleanup.policy": "compact", "segment.ms": "500", "min.cleanable.dirty.ratio": "0",
              "file.delete.delay.ms": "100", "min.compaction.lag.ms": str(lag_ms)}
    passes = 5

    def __init__(self, kafka, name, seed):
        self.gone = f"{name}.gone"
        self.options = {**self.options, "notifications.compacted.topic": self.gone}
        super().__init__(kafka, name, seed)

    def heal(self):
        super().heal()
        self.kafka.alter_config(self.topic, {"min.compaction.lag.ms": "0"})
        self.kafka.force_compaction(self.topic, timeout=120)
        self.sidecar.wait_published(timeout=120)
        present = gone.present_offsets(self.kafka, self.topic)
        n = sum(1 for p in range(self.work.partitions) for _ in itertools.takewhile(
            lambda pair, p=p: pair.old_offset not in present[p],
            gone.pairs_of(self.work.truth, p)))
        wait_until(lambda: sum(1 for _ in self.kafka.read(self.gone)) >= n, 300,
                   f"{n} notifications of compaction", 1)

    def judge(self):
        held, figures = super().judge()
        verdict = gone.judge(self.work.truth, gone.read(self.kafka, self.gone),
                             gone.present_offsets(self.kafka, self.topic))
        if not verdict.clean:
            print(verdict, file=sys.stderr, flush=True)
        return held and verdict.clean and verdict.compacted > 0, \
            {**figures, "compacted": verdict.figures()}


class Load(Gone):
    """The state was lost, and the fill finds every version again."""

    config = {**COMPACT_FAST, **COMPACT_NEVER}
    options = {"sort.memory": "1MiB"}
    passes = 1

    def before(self, point):
        self.sidecar.remove_state()

    def gaps_are_fine(self, verdict):
        return True


GROUPS = {"change": Change, "start": Start, "stop": Stop, "abort": Abort, "fill": Fill,
          "round": Round, "readback": Readback, "rebuild": Rebuild, "redis": Redis,
          "gone": Gone, "load": Load}


def run_group(name, points):
    times, seed = common.scale("TIMES", 20), common.scale("SEED", 1)
    killed, unreached = 0, []
    began = time.monotonic()
    with Kafka() as kafka:
        group = GROUPS[name](kafka, name, seed)
        try:
            for point in points:
                reached = 0
                while reached < times and group.kill(point):
                    reached += 1
                killed += reached
                if reached < times:
                    unreached.append(point)
                    print(f"{point}: not reached\n{group.sidecar.evidence(60)}", file=sys.stderr)
                print(f"{name}: {point}: killed {reached} times", file=sys.stderr, flush=True)
            group.heal()
            held, figures = group.judge()
        finally:
            group.close()
    print(json.dumps({"prove": "crash_points", "group": name, "held": held and not unreached,
                      "seed": seed, "points": len(points), "kills": killed,
                      "not_reached": unreached, "seconds": int(time.monotonic() - began),
                      **figures}), flush=True)
    return held and not unreached


def main():
    os.environ["SIDENOTE_BIN"] = PROGRAM
    wanted = os.environ.get("POINTS", "").split(",") if os.environ.get("POINTS") else None
    todo = {group: [p for p in points if not wanted or p in wanted]
            for group, points in all_points().items()}
    groups = [g for g in os.environ.get("ONLY", ",".join(GROUPS)).split(",") if todo[g]]
    if len(groups) == 1:
        sys.exit(0 if run_group(groups[0], todo[groups[0]]) else 1)

    def child(group):
        return subprocess.run([sys.executable, os.path.abspath(__file__)], check=False,
                              env={**os.environ, "ONLY": group}).returncode

    with concurrent.futures.ThreadPoolExecutor(common.scale("JOBS", 2)) as pool:
        sys.exit(max(pool.map(child, groups)))


if __name__ == "__main__":
    main()
