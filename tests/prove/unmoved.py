#!/usr/bin/python3
"""Claim: neither a Redis that does not answer for a minute nor bad clients of HTTP cost the
notifications anything: their latency is that of a minute in which nobody does such things.

Environment: KEYS=20000 RATE=500 SECONDS=60 ROUNDS=3. In turn, ROUNDS times:

  quiet    nothing else
  redis    CLIENT PAUSE stops every command of every client of Redis for SECONDS
  http     1,000 connections that say nothing, 20 that send a byte a second, 20 that ask for a lot and
           do not read it, malformed requests all the time; each is made anew when it is ended, 100
           a second of them

A record tells when it was produced, its notification is taken up when it is read with
read_committed. It holds if the median of the p99 of the disturbed rounds is not above the highest of
the quiet ones by more than a quarter, if HTTP has answered look-ups in between, and Redis is equal to
the topic afterwards.
"""

import contextlib
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time

from confluent_kafka import TopicPartition

import common  # noqa: I001  (finds the modules of the rig)
from broker import COMPACT_NEVER, Kafka, die_with_parent, free_port
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


# ---------------------------------------------------------------- bad clients

MALFORMED = (b"GET\r\n\r\n", b"\x00" * 100 + b"\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
             b"POST /v1/keys/a HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
             b"GET /v1/keys?limit=-1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
             b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00")
GREEDY = b"GET /v1/keys?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50


class BadClients:
    """Until close(). The look-ups of a good one are counted and timed. In a process of its own: what
    they do must not hold up whoever measures, and comes last for the processor: bad clients are
    elsewhere, only what the sidecar does about them counts."""

    def __init__(self, port, idle=1000, slow=20, greedy=20):
        self._port = port
        self._stop = threading.Event()
        self.figures = {"connections": 0, "malformed": 0, "look_ups": 0, "slowest_look_up_s": 0.0}
        jobs = [(self._keep, idle, b""), (self._keep, slow, b"GET /"), (self._keep, greedy, GREEDY),
                (self._malformed,), (self._good,)]
        self._threads = [threading.Thread(target=f, args=args) for f, *args in jobs]
        for thread in self._threads:
            thread.start()

    def close(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _open(self, data):
        one = socket.create_connection(("127.0.0.1", self._port), 5)
        one.setblocking(False)
        self.figures["connections"] += 1
        with contextlib.suppress(OSError):
            one.send(data)
        return one

    @staticmethod
    def _alive(one, data):
        """Whether it is still there. What it is told is not read, unless it says nothing itself."""
        try:
            if data == b"GET /":
                one.send(b"a")
            return data == GREEDY and one.send(b"") == 0 or one.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _keep(self, n, data):
        ones = []
        while not self._stop.wait(1):
            kept = [one for one in ones if self._alive(one, data)]
            for one in set(ones) - set(kept):
                one.close()
            ones = kept
            with contextlib.suppress(OSError):
                for _ in range(min(100, n - len(ones))):
                    if self._stop.wait(0.008):
                        break
                    ones.append(self._open(data))
        for one in ones:
            one.close()

    def _malformed(self):
        i = 0
        while not self._stop.wait(0.02):
            with contextlib.suppress(OSError):
                one = self._open(MALFORMED[i % len(MALFORMED)])
                self.figures["malformed"] += 1
                one.close()
            i += 1

    def _good(self):
        while not self._stop.wait(0.1):
            began = time.monotonic()
            with contextlib.suppress(OSError, http.client.HTTPException):
                one = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
                one.request("GET", "/v1/keys/key-00000001")
                self.figures["look_ups"] += one.getresponse().status == 200
                one.close()
            self.figures["slowest_look_up_s"] = round(max(self.figures["slowest_look_up_s"],
                                                          time.monotonic() - began), 2)


def bad_clients(port):
    """The process: until a line comes, then one with the figures."""
    os.nice(19)
    clients = BadClients(port)
    sys.stdin.readline()
    clients.close()
    print(json.dumps(clients.figures))


# ---------------------------------------------------------------- rounds

WORDS = ("quiet", "redis", "http")


def one_round(word, redis, port, latency, size):
    """(latencies, what the bad clients did)"""
    bad = figures = None
    if word == "http":
        bad = subprocess.Popen([sys.executable, __file__, "bad", str(port)], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               preexec_fn=die_with_parent)
    if word == "redis":
        redis.client().execute_command("CLIENT PAUSE", size.seconds * 1000, "ALL")
    took = latency.measure(size.seconds)
    if bad:
        figures = json.loads(bad.communicate("end\n", timeout=60)[0])
    return took, figures


def cpu_s(pid):
    """User and system time of a process, its threads that have ended included."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        user, system = f.read().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def rounds(kafka, redis, port, pid, latency, topic, size, clock):
    used = {word: [] for word in WORDS}
    p50 = {word: [] for word in WORDS}
    p99 = {word: [] for word in WORDS}
    bad = []
    for i in range(size.rounds):
        for word in WORDS if i % 2 == 0 else reversed(WORDS):
            before = cpu_s(pid)
            took, figures = one_round(word, redis, port, latency, size)
            used[word].append(round(cpu_s(pid) - before, 1))
            p50[word].append(percentile(took, 0.5))
            p99[word].append(percentile(took, 0.99))
            bad += [figures] if figures else []
            wait_mirrored(kafka, redis, topic)
            clock.done(f"{word}_{i}", f"p50 {p50[word][-1]} ms, p99 {p99[word][-1]} ms")
    return p50, p99, used, bad


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
    size, clock, port = Size(), common.Clock(), free_port()
    with Kafka(heap="512m") as kafka, RedisServer() as redis:
        topic = kafka.create_topic("users", 4, COMPACT_NEVER)
        fill(kafka, topic, size.keys)
        with Sidecar(kafka, "pause", topic, {"redis.uri": redis.uri, "log.level": "info",
                                             "http.listen": f"127.0.0.1:{port}"}) as s:
            s.start()
            s.wait_published(timeout=120)
            wait_mirrored(kafka, redis, topic)
            latency = Latency(kafka, topic, s.notifications_topic, size.keys, size.rate)
            latency.measure(5)  # warm
            p50, p99, used, bad = rounds(kafka, redis, port, s.process.pid, latency, topic, size,
                                         clock)
            unreachable = s.log_text().count("SN-REDIS-UNREACHABLE")
            same = equal(redis, kafka, topic)
            s.term()
    held = same and unreachable > 0 and all(b["look_ups"] > 0 for b in bad) and all(
        statistics.median(p99[word]) <= 1.25 * max(p99["quiet"]) for word in WORDS)
    common.finish("unmoved", held, rate=size.rate, seconds=size.seconds, p50_ms=p50, p99_ms=p99,
                  cpu_s=used, unreachable_said=unreachable, redis_equal=same, bad_clients=bad)


if __name__ == "__main__":
    if sys.argv[1:2] == ["bad"]:
        bad_clients(int(sys.argv[2]))
    else:
        main()
