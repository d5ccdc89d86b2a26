#!/usr/bin/python3
"""Claim: a Redis that does not answer for a minute costs the notifications nothing: their latency is
that of the same minute with a Redis that does.

Environment: KEYS=20000 RATE=500 SECONDS=60 ROUNDS=3. Rounds alternate: one without, and one in which
CLIENT PAUSE stops every command of every client for SECONDS. A record tells when it was produced, its
notification is taken up when it is read with read_committed. It holds if the median of the p99 of
the paused rounds is not above the highest of the others by more than a quarter, and Redis is equal
to the topic afterwards.
"""

import re
import statistics
import threading
import time

from confluent_kafka import TopicPartition

import common  # noqa: I001  (finds the modules of the rig)
from broker import COMPACT_NEVER, Kafka
from redis_server import RedisServer
from sidecar import Sidecar


class Latency:
    """Writes at a rate, reads the notifications, and keeps the time between the two."""

    def __init__(self, kafka, topic, notifications, keys, rate):
        self._producer = kafka.producer(**{"linger.ms": 0})
        self._consumer = kafka.consumer(**{"isolation.level": "read_committed",
                                           "fetch.wait.max.ms": 10, "group.id": "latency",
                                           "enable.partition.eof": False})
        self._topic, self._keys, self._rate = topic, keys, rate
        self._assign(kafka, notifications)
        self._n = 0

    def _assign(self, kafka, topic):
        ends = kafka.end_offsets(topic)
        self._consumer.assign([TopicPartition(topic, p, at) for p, at in ends.items()])

    def _write(self, count):
        begin = time.monotonic()
        for i in range(count):
            due = begin + i / self._rate
            if due > time.monotonic():
                self._producer.flush(0)
                time.sleep(max(0, due - time.monotonic()))
            value = b'{"t":%d,"pad":"%s"}' % (time.monotonic_ns(), b"x" * 150)
            self._producer.produce(self._topic, value, b"key-%08d" % ((self._n + i) % self._keys))
        self._producer.flush(30)
        self._n += count

    def measure(self, seconds):
        """Milliseconds of each notification, sorted."""
        count = seconds * self._rate
        writer = threading.Thread(target=self._write, args=(count,))
        writer.start()
        took = []
        deadline = time.monotonic() + seconds + 60
        while len(took) < count and time.monotonic() < deadline:
            for message in self._consumer.consume(200, 0.01):
                if message.error():
                    raise RuntimeError(message.error())
                written = int(re.search(rb'"after":\{"t":(\d+)', message.value())[1])
                took.append((time.monotonic_ns() - written) / 1e6)
        writer.join()
        if len(took) != count:
            raise RuntimeError(f"{len(took)} notifications of {count} changes")
        return sorted(took)


def wait_mirrored(kafka, redis, topic, timeout=120):
    deadline = time.monotonic() + timeout
    while redis.positions("pause") != kafka.end_offsets(topic):
        if time.monotonic() > deadline:
            raise TimeoutError(redis.mark("pause"))
        time.sleep(0.1)


def percentile(took, share):
    return round(took[min(len(took) - 1, int(len(took) * share))], 1)


def fill(kafka, topic, keys):
    producer = kafka.producer()
    for k in range(keys):
        producer.produce(topic, b'{"t":0}', b"key-%08d" % k)
        if k % 1000 == 0:
            producer.flush(30)
    producer.flush(60)


def rounds(kafka, redis, latency, topic, size, clock):
    p99 = {"answering": [], "paused": []}
    p50 = {"answering": [], "paused": []}
    behind = []
    for i in range(2 * size.rounds):
        word = "paused" if i % 2 else "answering"
        before = sum(redis.positions("pause").values())
        if word == "paused":
            redis.client().execute_command("CLIENT PAUSE", size.seconds * 1000, "ALL")
        took = latency.measure(size.seconds)
        p50[word].append(percentile(took, 0.5))
        p99[word].append(percentile(took, 0.99))
        if word == "paused":
            behind.append(sum(kafka.end_offsets(topic).values()) - before)
        wait_mirrored(kafka, redis, topic)
        clock.done(f"{word}_{i // 2}", f"p50 {p50[word][-1]} ms, p99 {p99[word][-1]} ms")
    return p50, p99, behind


class Size:
    def __init__(self):
        self.keys = common.scale("KEYS", 20_000)
        self.rate = common.scale("RATE", 500)
        self.seconds = common.scale("SECONDS", 60)
        self.rounds = common.scale("ROUNDS", 3)


def equal(redis, kafka, topic):
    latest = {}
    for m in kafka.read(topic):
        latest[m.key()] = m.value()
    return redis.dump(topic.encode() + b":") == latest


def main():
    size, clock = Size(), common.Clock()
    with Kafka(heap="512m") as kafka, RedisServer() as redis:
        topic = kafka.create_topic("users", 4, COMPACT_NEVER)
        fill(kafka, topic, size.keys)
        with Sidecar(kafka, "pause", topic, {"redis.uri": redis.uri, "log.level": "info"}) as s:
            s.start()
            s.wait_published(timeout=120)
            wait_mirrored(kafka, redis, topic)
            latency = Latency(kafka, topic, s.notifications_topic, size.keys, size.rate)
            latency.measure(5)  # warm
            p50, p99, behind = rounds(kafka, redis, latency, topic, size, clock)
            unreachable = s.log_text().count("SN-REDIS-UNREACHABLE")
            same = equal(redis, kafka, topic)
            s.term()
    held = same and unreachable > 0 and \
        statistics.median(p99["paused"]) <= 1.25 * max(p99["answering"])
    common.finish("redis_pause", held, rate=size.rate, seconds=size.seconds, p50_ms=p50, p99_ms=p99,
                  changes_behind=behind, unreachable_said=unreachable, redis_equal=same)


if __name__ == "__main__":
    main()
