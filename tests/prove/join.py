#!/usr/bin/python3
"""Claim: every stream record has one result, made of the one state of the table that it names,
whatever happens to the instances of the join and to the table's sidecar meanwhile.

Environment: RECORDS=100000 RATE=1000 KEYS=5000 KILLS=40 INSTANCES=3 SEED=1. The table is changed and
the stream written all the time. There are KILLS times kill -9 of an instance, and as many other
events: instances that end and start, stay away or hang, kills and rebuilds of the sidecar. Checked by
replaying the table's log up to the token of each result.
"""

import random
import threading
import time

import common  # noqa: I001  (finds the modules of the rig)
import joining
from broker import COMPACT_NEVER, Kafka
from sidecar import Sidecar, sidenote
from workload import Workload


class Writer:
    """Changes a topic until it is told to stop, and has written `least` records."""

    def __init__(self, work, rate, least=0):
        self._stop = threading.Event()
        self._work = work
        self._rate = rate
        self._least = least
        work.in_background(self._write)

    def _write(self):
        while not self._stop.is_set() or len(self._work.truth) < self._least:
            self._work.change(self._rate // 2, rate=self._rate)

    def stop(self):
        self._stop.set()
        self._work.wait_background()


class Events:
    """What happens meanwhile."""

    def __init__(self, kafka, joins, sidecar, rng):
        self.kafka = kafka
        self.joins = joins
        self.sidecar = sidecar
        self.rng = rng
        self.counts = {}

    def one(self, kind):
        self.counts[kind] = self.counts.get(kind, 0) + 1
        getattr(self, kind)(self.rng.choice(self.joins))
        for process in (*self.joins, self.sidecar):
            self.revive(process)

    def revive(self, process):
        """As a service manager: start it again when a call to a broker did not return."""
        if process.alive():
            return
        if process.process.returncode != 3:
            raise RuntimeError(f"ended by itself\n{process.evidence()}")
        self.counts["stuck"] = self.counts.get("stuck", 0) + 1
        process.start()

    def kill(self, join):
        join.kill9()
        join.start()

    def restart(self, join):
        join.term()
        join.start()

    def away(self, join):
        join.term()
        time.sleep(self.rng.uniform(0.5, 4))
        join.start()

    def lost(self, join):
        """Killed, and not there for a while: the others wait for the end of its transaction."""
        join.kill9()
        time.sleep(self.rng.uniform(1, 6))
        join.start()

    def hang(self, join):
        with join.stopped():
            time.sleep(self.rng.uniform(0.2, 5))

    def kill_sidecar(self, _):
        self.sidecar.kill9()
        self.sidecar.start()
        self.sidecar.wait_ready()

    def rebuild(self, _):
        done = sidenote("rebuild", "-F", self.sidecar.config_path, timeout=120)
        if done.returncode:
            raise RuntimeError(done.stderr)

    def broker_hangs(self, _):
        self.kafka.pause()
        time.sleep(self.rng.uniform(0.5, 6))
        self.kafka.resume()

    def broker_dies(self, _):
        self.kafka.kill()
        time.sleep(self.rng.uniform(0, 1))
        self.kafka.restart()


OTHERS = ("restart", "away", "lost", "hang", "kill_sidecar", "rebuild", "broker_hangs", "broker_dies")


def plan(kills, rng):
    kinds = ["kill"] * kills + [OTHERS[i % len(OTHERS)] for i in range(kills)]
    rng.shuffle(kinds)
    return kinds


def main():
    records = common.scale("RECORDS", 100_000)
    rate = common.scale("RATE", 1000)
    keys = common.scale("KEYS", 5000)
    kills = common.scale("KILLS", 40)
    instances = common.scale("INSTANCES", 3)
    seed = common.scale("SEED", 1)
    rng = random.Random(seed)
    clock = common.Clock()
    with Kafka(heap="512m") as kafka:
        table = Workload(kafka, kafka.create_topic("table", 4, COMPACT_NEVER), seed=seed)
        table.load(keys)
        stream = Workload(kafka, kafka.create_topic("stream", 6), seed=seed + 1, headers=0.1,
                          not_json=0.02, value_bytes=100)
        stream.load(2 * keys)  # half of its keys are not in the table
        with Sidecar(kafka, "table", table.topic, {"log.level": "info"}) as sidecar:
            sidecar.start()
            sidecar.wait_ready()
            joins = [joining.Join(kafka, "proved", sidecar.state_dir, stream.topic, "results",
                                  {"join.type": "left", "log.level": "info"}, str(i))
                     for i in range(instances)]
            joins[0].configure({"kafka.socket.timeout.ms": "2000"})
            try:
                for join in joins:
                    join.start()
                clock.done("start")
                table_writer = Writer(table, rate)
                stream_writer = Writer(stream, rate, records)
                events = Events(kafka, joins, sidecar, rng)
                for kind in plan(kills, rng):
                    time.sleep(rng.uniform(0, 1.5))
                    events.one(kind)
                clock.done("events", events.counts)
                stream_writer.stop()
                clock.done("write", f"{len(stream.truth)} stream records")
                joins[0].wait_joined(timeout=300)
                clock.done("catch_up")
                table_writer.stop()
                verdict = joining.judge(stream.truth, table.truth,
                                        joining.read_results(kafka, "results"), name="proved")
                clock.done("judge", f"\n{verdict}")
                for join in joins:
                    join.term()
                unclear = sum(join.log_text().count("starting over") for join in joins)
            finally:
                for join in joins:
                    join.close()
    common.finish("join", verdict.clean and len(stream.truth) >= records, seed=seed,
                  stream_records=len(stream.truth), table_records=len(table.truth),
                  instances=instances, events=events.counts, unclear=unclear,
                  results=verdict.figures())


if __name__ == "__main__":
    main()
