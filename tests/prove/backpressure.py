#!/usr/bin/python3
"""Claim: a notification topic that cannot be written to costs journal up to its limit and nothing
more: memory stays flat, readers go on, and afterwards every change is told exactly once.

Environment: SECONDS=600 KEYS=20000 RATE=1000 JOURNAL=64MiB SEED=1. The topic wants two replicas in
sync and one of the two brokers is down for SECONDS, while the source is changed all the time.

Memory is anonymous memory, sampled every second. While the tail waits, librdkafka goes on reading
ahead until it has queued.max.messages.kbytes (64 MiB), as it does whenever there is much to read:
so flat means the second half of the outage, and the highest sample has to be below that bound.
"""

import os
import statistics
import threading
import time

import common  # noqa: I001  (finds the modules of the rig)
import oracle
from broker import COMPACT_NEVER, wait_until
from sidecar import Sidecar
from test_adversity import KafkaWithReplica
from workload import Workload

MB = 1 << 20
MEMORY_MAX_MIB = 192  # what librdkafka reads ahead, with its bookkeeping, and what is ours


class Samples:
    """What a watcher sees from the beginning of the outage to its end."""

    def __init__(self, sidecar, seconds):
        self.sidecar = sidecar
        self.seconds = seconds
        self.rss = []           # (seconds, bytes)
        self.applied = []       # (seconds, sum of positions)
        self.heartbeat_ms = 0   # the oldest
        self.journal = 0
        self.full_s = None      # when the journal was full
        self.begin = time.monotonic()

    def take(self):
        at = time.monotonic() - self.begin
        stat = self.sidecar.stat()
        self.rss.append((at, self.sidecar.rss_bytes()))
        self.applied.append((at, sum(p["applied"] for p in stat["partitions"])))
        self.heartbeat_ms = max(self.heartbeat_ms, stat["heartbeat_age_ms"])
        self.journal = max(self.journal, stat["journal"]["bytes"])
        if self.full_s is None and "SN-JOURNAL-FULL" in self.sidecar.log_text():
            self.full_s = at

    def settled(self, series):
        """The second half, if the journal was full by then."""
        if self.full_s is None or self.full_s > self.seconds / 2:
            return []
        return [(t, v) for t, v in series if t > self.seconds / 2]

    def figures(self):
        rss = [v / MB for _, v in self.settled(self.rss)] or [float("inf")]
        first, highest = self.rss[0][1] / MB, max(v for _, v in self.rss) / MB
        return {"journal_full_after_s": self.full_s and round(self.full_s),
                "journal_max_mib": round(self.journal / MB, 1),
                "rss_first_mib": round(first, 1), "rss_highest_mib": round(highest, 1),
                "samples": len(rss), "rss_min_mib": round(min(rss), 1),
                "rss_median_mib": round(statistics.median(rss), 1),
                "rss_max_mib": round(max(rss), 1), "rss_mib_per_minute": round(self.slope(), 3),
                "oldest_heartbeat_ms": self.heartbeat_ms}

    def slope(self):
        series = self.settled(self.rss)
        if len(series) < 2:
            return float("inf")
        fit = statistics.linear_regression([t / 60 for t, _ in series],
                                           [v / MB for _, v in series])
        return fit.slope

    def held_still(self):
        """Whether the tail took nothing once the journal was full."""
        return len({v for _, v in self.settled(self.applied)}) == 1


class Reader:
    """Another process's work: whole snapshots, one after the other, checked record by record."""

    def __init__(self, state_dir):
        self.scans = self.records = 0
        self.error = None
        self._state_dir = state_dir
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        while not self._stop.wait(2):
            try:
                self.records += len(oracle.snapshot_of(self._state_dir))
                self.scans += 1
            except Exception as e:  # whatever it is, the claim does not hold
                self.error = repr(e)
                return

    def stop(self):
        self._stop.set()
        self._thread.join()


def outage(kafka, topic, sidecar, seconds, clock):
    """SECONDS without the second replica: (Samples, Reader)."""
    kafka.kill(1)
    wait_until(lambda: set(kafka.leaders(topic).values()) == {1}, 60, "the first leads all")
    samples, reader = Samples(sidecar, seconds), Reader(sidecar.state_dir)
    while time.monotonic() - samples.begin < seconds:
        time.sleep(1)
        samples.take()
    reader.stop()
    clock.done("outage", f"{samples.figures()}, {reader.scans} snapshots read")
    kafka.restart(1)
    return samples, reader


def main():
    seconds = common.scale("SECONDS", 600)
    keys = common.scale("KEYS", 20_000)
    rate = common.scale("RATE", 1000)
    seed = common.scale("SEED", 1)
    journal = os.environ.get("JOURNAL", "64MiB")
    clock = common.Clock()
    with KafkaWithReplica(heap="512m") as kafka:
        topic = kafka.create_topic("backpressure", 4, COMPACT_NEVER)
        work = Workload(kafka, topic, seed=seed, value_bytes=500)
        work.load(keys)
        options = {"log.level": "info", "journal.max.bytes": journal}
        with Sidecar(kafka, "backpressure", topic, options) as sidecar:
            kafka.create_unwritable_topic(sidecar.notifications_topic, 4)
            sidecar.start()
            sidecar.wait_ready()
            sidecar.wait_published()
            start = kafka.end_offsets(topic)
            writer = common.Writer(work, lambda: work.change(rate, rate=rate))
            clock.done("start")
            samples, reader = outage(kafka, topic, sidecar, seconds, clock)
            writer.stop()
            sidecar.wait_published(timeout=600)
            clock.done("catch_up", f"{len(work.truth)} records")
            verdict, diff = common.judge(kafka, sidecar, work, start)
            clock.done("judge")
            sidecar.term()
    figures = samples.figures()
    flat = abs(figures["rss_mib_per_minute"]) < 1 and \
        figures["rss_max_mib"] - figures["rss_min_mib"] < 16 and \
        figures["rss_highest_mib"] < MEMORY_MAX_MIB
    held = (flat and samples.held_still() and figures["oldest_heartbeat_ms"] < 5000
            and reader.error is None and reader.scans > 0
            and verdict.clean and verdict.gap == 0 and diff.clean)
    common.finish("backpressure", held, seed=seed, seconds=seconds, keys=keys, rate=rate,
                  journal=journal, **figures, tail_held_still=samples.held_still(),
                  snapshots_read=reader.scans, records_read=reader.records,
                  reader_error=reader.error, records=len(work.truth),
                  catch_up_s=clock.seconds["catch_up_s"], notifications=verdict.figures(),
                  snapshot=diff.figures())


if __name__ == "__main__":
    main()
