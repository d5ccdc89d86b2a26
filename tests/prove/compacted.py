#!/usr/bin/python3
"""Claim: with notifications.compacted.topic each overwritten record is told once, in the order in
which they were superseded, and not before it cannot be fetched any more; through kills, changes of
the leading sidecar and changes of the partitions' leaders.

Environment: OVERWRITES=200000 KEYS=5000 KILLS=100 CHANGES=20 BROKERS=20 HELD=60000 SEED=1.

First part: one broker whose cleaner is held down by its I/O throttle, so that a pass over HELD
records of 1 KB stands half-way for seconds. Second part: three brokers, 4 partitions of 1 MiB
segments, two sidecars; OVERWRITES records while KILLS times a sidecar is killed, CHANGES of them the
leading one while the other stands by, and BROKERS times a broker. min.compaction.lag.ms is longer
than any of that lasts, so that every version is read. All the time a third reader follows the
notifications and reads the source at the moment of each. HELD=0 leaves the first part out. One
line of JSON.
"""

import random
import threading
import time

import confluent_kafka
from confluent_kafka import TopicPartition

import common  # noqa: I001  (finds the modules of the rig)
import gone
from broker import Kafka, wait_until
from sidecar import Sidecar
from workload import GroundTruth, Workload

LAG_MS = 20_000  # of the first part
CHAOS_LAG_MS = 120_000
SEGMENTS = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0",
            "file.delete.delay.ms": "100"}


def sidecar_of(kafka, topic):
    return Sidecar(kafka, "compacted", topic, {
        "log.level": "info", "notifications.compacted.topic": f"{topic}.gone"})


def told(kafka, topic):
    return sum(1 for _ in kafka.read(f"{topic}.gone"))


def wait_all(kafka, truth, timeout=600):
    """Until every pair is told that precedes the first that is still there, and nothing moves."""
    def expected():
        present = gone.present_offsets(kafka, truth.topic)
        n = 0
        for p in range(len(truth.logs)):
            for pair in gone.pairs_of(truth, p):
                if pair.old_offset in present[p]:
                    break
                n += 1
        return n
    wait_until(lambda: told(kafka, truth.topic) >= expected(), timeout, "all are told", 2)


def held(records, seed, clock):
    """A pass that stands half-way."""
    with Kafka(heap="512m", overrides={"log.cleaner.io.max.bytes.per.second": 4_000_000}) as kafka:
        topic = kafka.create_topic("held", 1, {**SEGMENTS, "segment.bytes": 4 << 20,
                                               "min.compaction.lag.ms": LAG_MS})
        work = Workload(kafka, topic, seed=seed, value_bytes=1000)
        with sidecar_of(kafka, topic) as sidecar:
            sidecar.start()
            sidecar.wait_ready()
            work.load(2000)
            halves = 0
            with gone.Watcher(kafka, topic, f"{topic}.gone") as watcher:
                while sum(len(log.keys) for log in work.truth.logs) < records:
                    for key in work.present_keys():
                        work.put(key, work.new_value())
                work.flush()
                sidecar.wait_published()
                clock.done("held_written")
                kafka.alter_config(topic, {"min.compaction.lag.ms": 0, "segment.ms": 1})
                time.sleep(0.05)
                kafka._roll(topic, "transaction")
                deadline = time.monotonic() + 120
                seen = set()
                while told(kafka, topic) < records - 4000 and time.monotonic() < deadline:
                    seen.add(told(kafka, topic))
                    time.sleep(0.5)
                halves = len([n for n in seen if 0 < n < records - 4000])
                wait_all(kafka, work.truth)
            verdict = gone.judge(work.truth, gone.read(kafka, f"{topic}.gone"),
                                 gone.present_offsets(kafka, topic))
            sidecar.term()
        clock.done("held", f"{verdict}, half-way {halves} times")
        return verdict, watcher, halves


class Follower(threading.Thread):
    """Reads the source as it is written: min.compaction.lag.ms leaves time for that."""

    def __init__(self, kafka, topic):
        super().__init__(daemon=True)
        self.truth = GroundTruth(topic, len(kafka.partitions(topic)))
        self._kafka = kafka
        self._next = dict.fromkeys(kafka.partitions(topic), 0)
        self._ends = None
        self._consumer = kafka.consumer(**{"auto.offset.reset": "earliest"})
        self._consumer.assign([TopicPartition(topic, p, 0) for p in kafka.partitions(topic)])

    def run(self):
        while self._ends is None or any(self._next[p] < end for p, end in self._ends.items()):
            for m in self._consumer.consume(5000, 0.2):
                if m.error() is None:
                    self.truth.append(m.partition(), m.offset(), m.key(), m.value(),
                                      m.timestamp()[1])
                    self._next[m.partition()] = m.offset() + 1

    def stop(self):
        """Once nobody writes: the last record of a log stays there."""
        self._ends = self._kafka.end_offsets(self.truth.topic)
        self.join()
        self._consumer.close()


class Writer(threading.Thread):
    """librdkafka's idempotent producer may give up for good when a leader changes: then another
    goes on. A record that is written twice is a rewrite of the same bytes."""

    def __init__(self, kafka, topic, keys, records, seconds):
        super().__init__(daemon=True)
        self._kafka, self._topic, self._keys = kafka, topic, keys
        self._records, self._rate = records, records / seconds
        self._rng = random.Random(7)
        self._done = 0

    def _producer(self):
        return self._kafka.producer(**{"acks": "all", "linger.ms": 5,
                                       "delivery.timeout.ms": 300000})

    def run(self):
        producer = self._producer()
        began = time.monotonic()
        while self._done < self._records:
            due = min(int((time.monotonic() - began) * self._rate) + 1, self._records)
            try:
                for _ in range(due - self._done):
                    self._one(producer)
                producer.poll(0.01)
            except confluent_kafka.KafkaException:
                producer = self._producer()
            except BufferError:
                producer.poll(0.1)
        producer.flush(120)

    def _one(self, producer):
        i = self._rng.randrange(self._keys)
        dice = self._rng.random()
        value = None if dice < 0.05 else b'{"same":%d}' % i if dice < 0.2 else \
            b'{"n":%d,"pad":"%s"}' % (self._done, b"x" * self._rng.randrange(250))
        producer.produce(self._topic, value, b"key-%06d" % i, i % 4)
        self._done += 1


def leading(sidecars):
    for s in sidecars:
        stat = s.stat()
        if s.alive() and stat and "leader" in (stat.get("role") or ""):
            return s
    return None


def supervise(sidecars, counts):
    """A publisher that hangs on a dead broker when its leadership ends takes the process with it, on
    purpose: whoever runs it starts it again."""
    for s in sidecars:
        if s.alive():
            continue
        if "SN-PUBLISHER-STUCK" not in s.evidence(20):
            raise RuntimeError(f"it ended by itself\n{s.evidence()}")
        counts["ended itself"] = counts.get("ended itself", 0) + 1
        s.start()


def becomes_leader(which, sidecars, counts, dead=None):
    def look():
        supervise([s for s in sidecars if s is not dead], counts)
        return leading(which)
    try:
        return wait_until(look, 60, "it leads", 0.1)
    except TimeoutError as e:
        texts = [f"{s.evidence(200)}\n{s.stat()}" for s in which]
        raise RuntimeError("\n".join([str(e), *texts])) from None


def chaos(kafka, sidecars, rng, events, clock, counts):
    for n, event in enumerate(events):
        time.sleep(rng.uniform(0.2, 1.5))
        supervise(sidecars, counts)
        if event == "broker":
            i = rng.randrange(3)
            kafka.kill(i)
            time.sleep(rng.uniform(0.5, 3))
            kafka.restart(i)
        elif event == "change":
            s = becomes_leader(sidecars, sidecars, counts)
            s.kill9()
            becomes_leader([sidecars[1 - sidecars.index(s)]], sidecars, counts, s)
            s.start()
        else:
            s = rng.choice(sidecars)
            s.kill9()
            s.start()
        counts[event] = counts.get(event, 0) + 1
        if n % 10 == 9:
            clock.done(f"events_{n + 1}", str(counts))


def main():
    overwrites = common.scale("OVERWRITES", 200_000)
    keys = common.scale("KEYS", 5000)
    kills = common.scale("KILLS", 100)
    changes = common.scale("CHANGES", 20)
    brokers = common.scale("BROKERS", 20)
    seed = common.scale("SEED", 1)
    rng = random.Random(seed)
    clock = common.Clock()
    counts = {}
    records = common.scale("HELD", 60_000)
    first = held(records, seed, clock) if records else None
    events = ["change"] * changes + ["broker"] * brokers + ["kill"] * max(0, kills - changes)
    rng.shuffle(events)
    with Kafka(3, heap="400m") as kafka:
        topic = kafka.create_topic("gone", 4, {**SEGMENTS, "segment.bytes": 1 << 20,
                                               "segment.ms": 2000,
                                               "min.compaction.lag.ms": CHAOS_LAG_MS})
        follower = Follower(kafka, topic)
        follower.start()
        with sidecar_of(kafka, topic) as one, sidecar_of(kafka, topic) as two:
            for s in (one, two):
                s.start()
                s.wait_ready()
            one.wait_published()
            writer = Writer(kafka, topic, keys, keys + overwrites, 3 * len(events) + 20)
            writer.start()
            with gone.Watcher(kafka, topic, f"{topic}.gone") as watcher:
                chaos(kafka, [one, two], rng, events, clock, counts)
                writer.join()
                supervise([one, two], counts)
                follower.stop()
                clock.done("written", str(counts))
                one.wait_published(timeout=120)
                kafka.alter_config(topic, {"min.compaction.lag.ms": 0, "segment.ms": 1})
                kafka.force_compaction(topic, timeout=120)
                one.wait_published(timeout=120)
                wait_all(kafka, follower.truth)
            clock.done("told")
            verdict = gone.judge(follower.truth, gone.read(kafka, f"{topic}.gone"),
                                 gone.present_offsets(kafka, topic))
            clock.done("judge", f"\n{verdict}\n{watcher.there[:5]}\n{watcher.errors}")
            for s in (one, two):
                s.term()
    ok = (verdict.clean and not watcher.there and not watcher.errors
          and verdict.compacted > 0 and verdict.expired == 0
          and watcher.checked >= verdict.compacted)
    figures = {}
    if first:
        held_verdict, held_watcher, halves = first
        ok = ok and (held_verdict.clean and not held_watcher.there and not held_watcher.errors
                     and halves > 0)
        figures = {"told": held_verdict.figures(), "fetched_at_each": held_watcher.checked,
                   "looks_half_way": halves}
    common.finish("compacted", ok, seed=seed, events=counts, records=len(follower.truth),
                  told=verdict.figures(), fetched_at_each=watcher.checked,
                  another_replica_had_it=watcher.elsewhere, held_down=figures)


if __name__ == "__main__":
    main()
