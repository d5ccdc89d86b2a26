#!/usr/bin/python3
"""Claim: three brokers, three sidecars, ten partitions, steady changes, and everything breaks all the
time: nothing is lost, doubled or out of order, no chain of old and new values breaks, all three
snapshots are the topic, and no transaction is left open.

Environment: SECONDS=300 RATE=2000 KEYS=20000 SEED=1 EVENTS=2 (a second, about). What breaks, by
chance: kill -9 of a sidecar; SIGSTOP of one beyond its session and SIGCONT (a zombie); a clean stop;
cut connections; a broker killed or stopped cleanly and started again, which moves leaders and
coordinators; a broker that stands still; one host's state lost; for some seconds requests of some
kinds are delayed, dropped, doubled, cut off or lose their answers. The seed settles what is tried in
which order, not how it comes out. One line of JSON.
"""

import collections
import ctypes
import os
import random
import signal
import socket
import stat
import sys
import threading
import time

import confluent_kafka

import common  # noqa: I001  (finds the modules of the rig)
import oracle
from broker import COMPACT_NEVER, Kafka, wait_until
from kafka_proxy import (ADD_OFFSETS, END_TXN, FETCH, HEARTBEAT, PRODUCE, TXN_OFFSET_COMMIT,
                         Disturbance, Proxy)
from sidecar import Sidecar
from workload import GroundTruth

PARTITIONS = 10
SESSION_S = 1.0
APIS = (PRODUCE, FETCH, HEARTBEAT, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT)
PIDFD_OPEN, PIDFD_GETFD = 434, 438
WEIGHTS = {"kill": 40, "pause": 12, "cut": 15, "stop": 6, "broker_kill": 3, "broker_stop": 2,
           "broker_pause": 2, "lose_state": 2, "network": 8}

_libc = ctypes.CDLL(None, use_errno=True)


def cut_connections(process):
    """Shuts down the TCP connections of a child of ours, as a firewall that lost its table would.
    How many."""
    pidfd = _libc.syscall(PIDFD_OPEN, process.pid, 0)
    if pidfd < 0:
        return 0
    cut = 0
    for name in os.listdir(f"/proc/{process.pid}/fd"):
        try:
            if not stat.S_ISSOCK(os.stat(f"/proc/{process.pid}/fd/{name}").st_mode):
                continue
        except OSError:
            continue
        fd = _libc.syscall(PIDFD_GETFD, pidfd, int(name), 0)
        if fd < 0:
            continue
        with socket.socket(fileno=fd) as s:
            try:
                if s.family == socket.AF_INET and s.getpeername():
                    s.shutdown(socket.SHUT_RDWR)
                    cut += 1
            except OSError:
                pass
    os.close(pidfd)
    return cut


class Writer(threading.Thread):
    """Puts and deletes, whatever happens to brokers; what it wrote is read back afterwards."""

    def __init__(self, bootstrap, topic, keys, rate, seed):
        super().__init__(daemon=True)
        self._config = {"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 5,
                        "enable.idempotence": True, "delivery.timeout.ms": 600000,
                        "partitioner": "murmur2_random"}
        self._topic = topic
        self._keys = keys
        self._rate = rate
        self._rng = random.Random(f"writer {seed}")
        self._stopping = threading.Event()
        self.written = 0

    def load(self):
        producer = confluent_kafka.Producer(self._config)
        for i in range(self._keys):
            producer.produce(self._topic, key=b"key-%d" % i, value=b'{"v":0,"i":%d}' % i)
            if i % 1000 == 0:
                producer.poll(0)
        producer.flush(60)

    def _one(self, producer):
        i = int(self._keys * self._rng.random() ** 3)  # some keys are hot
        value = None if self._rng.random() < 0.1 else (
            b'{"v":%d,"pad":"%s"}' % (self.written, b"x" * self._rng.randrange(200)))
        try:
            producer.produce(self._topic, key=b"key-%d" % i, value=value)
            self.written += 1
        except BufferError:
            producer.poll(0.1)

    def run(self):
        producer = confluent_kafka.Producer(self._config)
        began, done = time.monotonic(), 0
        while not self._stopping.is_set():
            due = int((time.monotonic() - began) * self._rate)
            try:
                for _ in range(min(due - done, 1000)):
                    self._one(producer)
                    done += 1
                producer.poll(0.01)
            except confluent_kafka.KafkaException as e:
                print(f"writer: {e}", file=sys.stderr, flush=True)
                producer = confluent_kafka.Producer(self._config)
        producer.flush(120)

    def stop(self):
        self._stopping.set()
        self.join()


class Chaos:
    def __init__(self, kafka, proxy, sidecars, rng):
        self.kafka = kafka
        self.proxy = proxy
        self.sidecars = sidecars
        self.rng = rng
        self.counts = collections.Counter()
        self._later = []  # (when, what): sidecars to resume, brokers to start

    def _after(self, seconds, what):
        self._later.append((time.monotonic() + seconds, what))

    def tick(self):
        now = time.monotonic()
        due = [what for when, what in self._later if when <= now]
        self._later = [x for x in self._later if x[0] > now]
        for what in due:
            what()

    def finish(self):
        """Everybody runs again."""
        while self._later:
            self.tick()
            time.sleep(0.05)
        self.proxy.disturb({})
        for i in range(self.kafka.n_brokers):
            self.kafka.resume(i)
        self.kafka.wait_ready()
        for s in self.sidecars:
            self.revive(s)

    def _whole_cluster(self):
        """One broker at a time: a second one would stop the cluster, which proves nothing."""
        return not any(getattr(what, "broker", False) for _, what in self._later)

    def _later_broker(self, seconds, what):
        what.broker = True
        self._after(seconds, what)

    def event(self):
        what = self.rng.choices(list(WEIGHTS), WEIGHTS.values())[0]
        sidecar = self.rng.choice(self.sidecars)
        broker = self.rng.randrange(self.kafka.n_brokers)
        wait = self.rng.uniform(0, 3)
        if what.startswith("broker"):
            if not self._whole_cluster():
                return
            getattr(self, what)(broker, wait)
        else:
            self.revive(sidecar)
            getattr(self, what)(sidecar, wait)
        self.counts[what] += 1

    def revive(self, sidecar):
        """As systemd would. It may end by itself to be started again (3), and for nothing else."""
        if sidecar.alive():
            return
        status = sidecar.process.returncode
        if status not in (0, 3, -signal.SIGKILL, -signal.SIGTERM):
            raise AssertionError(f"ended by itself with {status}\n{sidecar.evidence(200)}")
        self.counts["ended_by_itself"] += status == 3
        sidecar.start()

    def kill(self, sidecar, wait):
        sidecar.kill9()
        self._after(wait / 3, lambda: self.revive(sidecar))

    def lose_state(self, sidecar, wait):
        sidecar.kill9()
        if os.path.exists(sidecar.state_dir):  # one that has just lost it may not have a new one yet
            sidecar.remove_state()
        self._after(wait / 3, lambda: self.revive(sidecar))

    def stop(self, sidecar, wait):
        sidecar.cont()
        sidecar.process.terminate()
        deadline = time.monotonic() + 120
        while sidecar.alive() and time.monotonic() < deadline:
            self.tick()  # brokers come back meanwhile, without which it may not be able to
            time.sleep(0.05)
        status = sidecar.wait_exit(timeout=1)
        if status not in (0, -signal.SIGTERM):  # the latter: it had hardly begun
            raise AssertionError(f"SIGTERM: ended with {status}\n{sidecar.evidence()}")
        self._after(wait / 3, lambda: self.revive(sidecar))

    def pause(self, sidecar, wait):
        sidecar.stop()
        self._after(SESSION_S + wait, lambda: sidecar.alive() and sidecar.cont())

    def cut(self, sidecar, _):
        self.counts["connections"] += cut_connections(sidecar.process)

    def network(self, _, wait):
        kind = self.rng.choice(("delay_s", *Disturbance.KINDS))
        apis = self.rng.sample(APIS, self.rng.randrange(1, 4))
        self.proxy.disturb({api: Disturbance(**{kind: 0.3}) for api in apis},
                           self.rng.randrange(1 << 30))
        self._after(2 + wait, lambda: self.proxy.disturb({}))

    def broker_kill(self, broker, wait):
        self.kafka.kill(broker)
        self._later_broker(wait, lambda: self.kafka.restart(broker))

    def broker_stop(self, broker, wait):
        self.kafka.terminate(broker)
        self._later_broker(wait, lambda: self.kafka.restart(broker))

    def broker_pause(self, broker, wait):
        self.kafka.pause(broker)
        self._later_broker(1 + 2 * wait, lambda: self.kafka.resume(broker))


def judge(kafka, topic, start, sidecars):
    truth = GroundTruth.read_back(kafka, topic)
    notes = oracle.read_notifications(kafka, sidecars[0].notifications_topic)
    verdict = oracle.judge(truth, start, notes, name=sidecars[0].name)
    fold = truth.fold()
    diffs = [oracle.compare_snapshot(oracle.snapshot_of(s.state_dir), fold) for s in sidecars]
    for text in (verdict, *diffs):
        print(text, file=sys.stderr, flush=True)
    return truth, verdict, diffs


def caught_up(kafka, topic, sidecars):
    ends = kafka.end_offsets(topic)

    def applied(sidecar):
        stat_ = sidecar.stat()
        return stat_ and {p["partition"]: p["applied"] for p in stat_["partitions"]} == ends
    return all(applied(s) for s in sidecars)


def main():
    seconds, seed = common.scale("SECONDS", 300), common.scale("SEED", 1)
    rate, keys = common.scale("RATE", 2000), common.scale("KEYS", 20_000)
    rng = random.Random(seed)
    clock = common.Clock()
    with Kafka(3, heap="512m", behind_proxy=True) as kafka, Proxy(kafka.behind) as proxy:
        topic = kafka.create_topic("torture", PARTITIONS, COMPACT_NEVER)
        writer = Writer(kafka.bootstrap, topic, keys, rate, seed)
        writer.load()
        sidecars = [Sidecar(kafka, "torture", topic, {
            "kafka.bootstrap.servers": kafka.proxied_bootstrap, "log.level": "info",
            "state.lease.ms": "500"})
                    for _ in range(3)]
        for s in sidecars:
            s.start()
        sidecars[0].wait_published(timeout=120)
        start = kafka.end_offsets(topic)
        clock.done("start")
        writer.start()
        chaos = Chaos(kafka, proxy, sidecars, rng)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            chaos.tick()
            chaos.event()
            time.sleep(rng.uniform(0, 2 / common.scale("EVENTS", 2)))
        clock.done("torture", dict(chaos.counts))
        chaos.finish()
        writer.stop()
        sidecars[0].wait_published(timeout=300)
        wait_until(lambda: caught_up(kafka, topic, sidecars), 120, "all have caught up")
        wait_until(lambda: not kafka.open_transactions(sidecars[0].notifications_topic), 60,
                   "no transaction is open")
        clock.done("heal")
        truth, verdict, diffs = judge(kafka, topic, start, sidecars)
        for s in sidecars:
            s.term()
    held = verdict.clean and all(d.clean for d in diffs)
    common.finish("torture", held, seed=seed, seconds=seconds, records=len(truth),
                  events=dict(chaos.counts), requests=sum(proxy.disturbed.values()), starts=sum(s.starts for s in sidecars),
                  notifications=verdict.figures(), snapshots=[d.figures() for d in diffs])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
