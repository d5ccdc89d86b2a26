#!/usr/bin/python3
"""Claim: every stream record has one result, made of the one state of the table that it names,
whatever happens to the instances of the join and to the table's sidecar meanwhile; and all instances
together need no more memory for the table than one snapshot.

Environment: RECORDS=500000 RATE=3000 KEYS=1000000 KILLS=40 INSTANCES=3 SEED=1. The table is changed,
a third as fast, and the stream written all the time, half of it about keys that the table never had.
There are KILLS times kill -9 of an instance, and as many other events: instances that end and start,
stay away or hang, kills and rebuilds of the sidecar, brokers that hang or die. Checked by replaying the
table's log up to the token of each result.

Memory: in the end there are records about keys all over the table. Then PSS is taken, of the mapped
data.mdb (smaps) and of everything (smaps_rollup), with the sidecar, which would carry a share, stopped.
The claim is about the mapping; what is anonymous is librdkafka's and one batch, and printed.
"""

import contextlib
import os
import random
import re
import threading
import time

import common  # noqa: I001  (finds the modules of the rig)
import joining
from broker import COMPACT_NEVER, Kafka
from sidecar import Sidecar, sidenote
from workload import Workload


class Writer:
    """Writes a topic until it is told to stop, and has written `least` records. Whoever holds
    `lock` keeps it from writing."""

    def __init__(self, work, write, least=0):
        self._stop = threading.Event()
        self._work = work
        self._write_some = write
        self._least = least
        self.lock = threading.Lock()
        work.in_background(self._write)

    def _write(self):
        while not self._stop.is_set() or len(self._work.truth) < self._least:
            with self.lock:
                self._write_some()
            time.sleep(0.001)  # or nobody else gets the lock

    def stop(self):
        self._stop.set()
        self._work.wait_background()


def stream_writer(work, keys, rate, rng):
    """Half a second's records, in steps; half of them are of keys that the table never had."""
    def write():
        step = max(1, rate // 50)
        begin = time.monotonic()
        for i in range(25):
            for _ in range(step):
                value = None if rng.random() < 0.01 else work.new_value()
                work.put(b"key-%08d" % rng.randrange(2 * keys), value, work.new_headers())
            time.sleep(max(0, begin + (i + 1) / 50 - time.monotonic()))
        work.flush()
    return write


class Events:
    """What happens meanwhile."""

    def __init__(self, kafka, joins, sidecar, writers, rng):
        self.kafka = kafka
        self.writers = writers
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
        """Not under the writers: the idempotent producer of librdkafka may then end with
        OUT_OF_ORDER_SEQUENCE_NUMBER. The join has work left, as the last of it was just written."""
        with contextlib.ExitStack() as stack:
            for writer in self.writers:
                stack.enter_context(writer.lock)
            self.kafka.kill()
            time.sleep(self.rng.uniform(0, 1))
            self.kafka.restart()


TOUCHED = 100_000  # keys; a page has about 15, and the kernel maps 16 pages at a time

OTHERS = ("restart", "away", "lost", "hang", "kill_sidecar", "rebuild", "broker_hangs", "broker_dies")


def plan(kills, rng):
    kinds = ["kill"] * kills + [OTHERS[i % len(OTHERS)] for i in range(kills)]
    rng.shuffle(kinds)
    return kinds


# ---------------------------------------------------------------- memory


def pss_kib(pid):
    """(mapped data.mdb, anonymous, all), shared pages counted by their share."""
    of_file, here = 0, False
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as f:
        for line in f:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                here = line.rstrip().endswith("/data.mdb")
            elif here and line.startswith("Pss:"):
                of_file += int(line.split()[1])
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        rollup = f.read()
    return (of_file, *(int(re.search(rf"^{name}:\s+(\d+) kB", rollup, re.M)[1])
                       for name in ("Pss_Anon", "Pss")))


def touch_table(stream, keys):
    """Records about keys all over the table: its pages are mapped by those who look them up."""
    for n in range(0, keys, max(1, keys // TOUCHED)):
        stream.put(b"key-%08d" % n, b"{}")
    stream.flush()


def memory(joins, sidecar):
    """Figures of the instances while the sidecar does not run."""
    snapshot = os.path.getsize(os.path.join(sidecar.state_dir, "current", "data.mdb"))
    sidecar.term()
    kib = [pss_kib(join.process.pid) for join in joins]
    table, anonymous, everything = (sum(column) for column in zip(*kib))
    return {"snapshot_mib": round(snapshot / 2**20, 1), "table_pss_mib": round(table / 1024, 1),
            "anonymous_mib": round(anonymous / 1024, 1), "all_mib": round(everything / 1024, 1),
            "ratio_table": round(table * 1024 / snapshot, 3),
            "ratio_all": round(everything * 1024 / snapshot, 3)}


# ---------------------------------------------------------------- the run


def prepare(kafka, keys, seed):
    table = Workload(kafka, kafka.create_topic("table", 4, COMPACT_NEVER), seed=seed)
    table.load(keys)
    stream = Workload(kafka, kafka.create_topic("stream", 6), seed=seed + 1, headers=0.1,
                      not_json=0.02, value_bytes=100)
    return table, stream


def happen(kafka, joins, sidecar, table, stream, size, rng):
    """Everything that happens, until all is joined: the counts of the events."""
    writers = [Writer(table, lambda: table.change(size["rate"] // 6, rate=size["rate"] / 3)),
               Writer(stream, stream_writer(stream, size["keys"], size["rate"], rng),
                      size["records"])]
    events = Events(kafka, joins, sidecar, writers, random.Random(size["seed"]))
    for kind in plan(size["kills"], events.rng):
        time.sleep(events.rng.uniform(0, 1.5))
        events.one(kind)
    size["clock"].done("events", events.counts)
    for writer in reversed(writers):
        writer.stop()
    size["clock"].done("write", f"{len(stream.truth)} stream records")
    joins[0].wait_joined(timeout=600)
    return events.counts


def main():
    size = {name.lower(): common.scale(name, default)
            for name, default in (("RECORDS", 500_000), ("RATE", 3000), ("KEYS", 1_000_000),
                                  ("KILLS", 40), ("INSTANCES", 3), ("SEED", 1))}
    clock = size["clock"] = common.Clock()
    with Kafka(heap="1g") as kafka:
        table, stream = prepare(kafka, size["keys"], size["seed"])
        clock.done("load")
        with Sidecar(kafka, "table", table.topic, {"log.level": "info"}) as sidecar:
            sidecar.start()
            sidecar.wait_ready(timeout=300)
            joins = [joining.Join(kafka, "proved", sidecar.state_dir, stream.topic, "results",
                                  {"join.type": "left", "log.level": "info"}, str(i))
                     for i in range(size["instances"])]
            joins[0].configure({"kafka.socket.timeout.ms": "2000"})
            try:
                for join in joins:
                    join.start()
                clock.done("start")
                counts = happen(kafka, joins, sidecar, table, stream, size,
                                random.Random(size["seed"] + 2))
                touch_table(stream, size["keys"])
                joins[0].wait_joined(timeout=600)
                clock.done("catch_up")
                mib = memory(joins, sidecar)
                for join in joins:
                    join.term()
                unclear = sum(join.log_text().count("starting over") for join in joins)
            finally:
                for join in joins:
                    join.close()
        verdict = joining.judge(stream.truth, table.truth,
                                joining.read_results(kafka, "results"), name="proved")
        clock.done("judge", f"\n{verdict}")
    common.finish("join", verdict.clean and len(stream.truth) >= size["records"] and
                  mib["ratio_table"] <= 1.05, seed=size["seed"],
                  stream_records=len(stream.truth), table_records=len(table.truth),
                  instances=size["instances"], events=counts, unclear=unclear, memory=mib,
                  results=verdict.figures())


if __name__ == "__main__":
    main()
