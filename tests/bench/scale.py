"""What a record and a change cost at more keys, with more partitions, and with little memory."""

import contextlib
import json
import os
import time

import broker
from measures import DEFAULTS, KEY_BYTES, VALUE_BYTES, in_turn, say
from processes import Peak, cpu_s
from sidecar import Sidecar

PARTITIONS = 4


@contextlib.contextmanager
def limited(mib):
    """A control group with that much memory, page cache included; None where none can be made."""
    path = f"/sys/fs/cgroup/memory/sidenote-bench-{os.getpid()}"
    limit = "memory.limit_in_bytes"
    if not os.path.isdir("/sys/fs/cgroup/memory"):
        path, limit = path.replace("/memory/", "/"), "memory.max"
    try:
        os.mkdir(path)
        with open(os.path.join(path, limit), "w", encoding="ascii") as f:
            f.write(str(mib << 20))
    except OSError as e:
        say(f"no control group: {e}")
        with contextlib.suppress(OSError):
            os.rmdir(path)
        yield None
        return
    try:
        yield os.path.join(path, "cgroup.procs")
    finally:
        for _ in range(100):  # it is empty once the last process has gone
            with contextlib.suppress(OSError):
                os.rmdir(path)
                break
            time.sleep(0.1)


class Scaled:
    """A topic and its sidecar."""

    def __init__(self, bench, name, keys, partitions, changes):
        self._bench, self._keys, self._changes = bench, keys, changes
        kafka = bench.kafka
        self._topic = kafka.create_topic(f"scale.{name}", partitions, broker.COMPACT_NEVER)
        self._notes = kafka.create_topic(f"scale.{name}.changes", partitions)
        self._load(0, 1)

    def _load(self, count, seed):
        self._bench.run("bench_load", self._bench.kafka.bootstrap, self._topic, self._keys, count,
                        seed, VALUE_BYTES)

    def _fill(self, sidecar, procs):
        waiting = self._bench.programs.start("bench_await", "ready", sidecar.state_dir)
        began = time.monotonic()
        sidecar.start()
        if procs:
            with open(procs, "w", encoding="ascii") as f:
                f.write(str(sidecar.process.pid))
        with Peak(sidecar.process.pid) as peak:
            at_ns = json.loads(self._bench.programs.finish(waiting))["at_ns"]
        return {"fill_s": at_ns / 1e9 - began, "fill_cpu_s": cpu_s(sidecar.process.pid),
                "fill_mib": peak.mib, "file_mib": sidecar.stat()["file_bytes"] / 2**20}

    def _change(self, sidecar):
        bench = self._bench
        sidecar.wait_published(timeout=600)
        notes = bench.kafka.end_offsets(self._notes)
        cpu, pid = cpu_s(sidecar.process.pid), sidecar.process.pid
        sidecar.stop()
        self._load(self._changes, 2)
        began = time.monotonic()
        sidecar.cont()
        with Peak(pid) as peak:
            sidecar.wait_published(timeout=1200)
        took, cpu = time.monotonic() - began, cpu_s(pid) - cpu
        told = bench.read(self._notes, notes)["records"]  # and everything is settled
        if told != self._changes:
            raise AssertionError(f"{told} notifications of {self._changes} changes")
        # a transaction leaves a marker in each partition that it wrote to
        markers = sum(bench.kafka.end_offsets(self._notes).values()) - sum(notes.values()) - told
        return {"changes_s": took, "changes_cpu_s": cpu, "changes_mib": peak.mib,
                "markers": markers,
                "file_after_mib": sidecar.stat()["file_bytes"] / 2**20}

    def measure(self, name, procs=None):
        changed = {"notifications.topic": self._notes, **DEFAULTS}
        with Sidecar(self._bench.kafka, name, self._topic, changed) as sidecar:
            result = self._fill(sidecar, procs)
            if self._changes:
                result.update(self._change(sidecar))
        return result

    def read(self):
        return self._bench.read(self._topic)


def _report(table, group, keys, changes, r, bare=None):
    us = 1e6 / keys
    table.add(group, "fill, time", "us/record", [r["fill_s"] * us],
              *(("bare consumer", [bare["seconds"] * us]) if bare else ()))
    table.add(group, "fill, processor", "us/record", [r["fill_cpu_s"] * us],
              *(("bare consumer", [bare["cpu_s"] * us]) if bare else ()))
    table.add(group, "fill, anonymous memory", "MiB", [r["fill_mib"]])
    table.add(group, "data file after the fill", "MiB", [r["file_mib"]], "keys and values",
              [keys * (KEY_BYTES + VALUE_BYTES) / 2**20])
    if not changes:
        return
    us = 1e6 / changes
    table.add(group, "changes, time", "us/change", [r["changes_s"] * us])
    table.add(group, "changes, processor", "us/change", [r["changes_cpu_s"] * us])
    table.add(group, "changes, anonymous memory", "MiB", [r["changes_mib"]])
    table.add(group, "markers of transactions", "", [r["markers"]])
    table.add(group, "data file after the changes", "MiB", [r["file_after_mib"]])


def scale(bench):
    changes = int(os.environ.get("SCALE_CHANGES", 100_000))
    for keys in map(int, os.environ.get("SCALE_KEYS", "1000000,10000000").split(",")):
        say(f"scale: {keys:,} keys")
        scaled = Scaled(bench, f"k{keys}", keys, PARTITIONS, changes)
        ours, bare = in_turn(0, lambda: scaled.measure(f"k{keys}"), scaled.read)
        _report(bench.table, f"{keys:,} keys", keys, changes, ours, bare)
    limit = int(os.environ.get("SCALE_LIMIT_MIB", 600))
    with limited(limit) as procs:
        if procs:
            say(f"scale: {keys:,} keys, {limit} MiB")
            _report(bench.table, f"{keys:,} keys in a control group of {limit} MiB", keys, changes,
                    scaled.measure("limited", procs))
    for partitions in map(int, os.environ.get("SCALE_PARTITIONS", "1,4,16,64").split(",")):
        say(f"scale: {partitions} partitions")
        scaled = Scaled(bench, f"p{partitions}", 200_000, partitions, changes)
        _report(bench.table, f"200,000 keys, {partitions} partitions", 200_000, changes,
                scaled.measure(f"p{partitions}"))
