"""The peer's half of the measures: what Kafka Streams, RocksDB and Redis need for the same."""

import contextlib
import json
import time

from peer import Peer, build
from processes import Peak, cpu_s
from redis_server import RedisServer

WARM_KEYS = 100_000
APPLICATION = "peer"
TARGET = "bench.peer"


class Peers:
    """What the measures share of the peer: what was built, the topics, one JVM that goes on."""

    def __init__(self, bench, build_directory, value_bytes):
        self._bench = bench
        self._built = build(build_directory)
        self._value_bytes = value_bytes
        self.peer = None
        for topic in ("bench.warm", "bench.warm.out", TARGET):
            bench.new_topic(topic)
        for count in (0, WARM_KEYS):  # each key, and then updates
            bench.run("bench_load", bench.kafka.bootstrap, "bench.warm", WARM_KEYS, count, 1,
                      value_bytes)

    def close(self):
        if self.peer:
            self.peer.close_down()
            self.peer = None

    def new(self):
        """A JVM that has done it before."""
        peer = Peer(self._built, self._bench.kafka.bootstrap)
        peer.start("bench.warm", "bench.warm.out", f"warm-{peer.pid}")
        self.await_committed(f"warm-{peer.pid}", "bench.warm")
        peer.close(wipe=True)
        return peer

    def await_committed(self, group, topic, ends=None):
        """The moment at which everything that was in the topic is processed and committed."""
        waiting = self._bench.programs.start("bench_await", "committed",
                                             self._bench.kafka.bootstrap, group, topic,
                                             *self._bench.range(topic, None, ends))
        return json.loads(self._bench.programs.finish(waiting))["at_ns"]

    # ------------------------------------------------------------ first fill

    def fill_once(self, n):
        """Seconds from start() on: first start, the same with its state wiped, a GlobalKTable."""
        bench, name = self._bench, f"fill{n}"
        with self.new() as peer:
            began = peer.start(bench.topic, TARGET, name)
            with Peak(peer.pid) as peak:
                first = self.await_committed(name, bench.topic) - began
            peer.close(wipe=True)
            began = peer.start(bench.topic, TARGET, name)
            restored = peer.running() - began
            peer.close(wipe=True)
            began = peer.start_global(bench.topic, f"{name}.global")
            table = peer.running() - began
            peer.close(wipe=True)
        return {"first": first / 1e9, "restored": restored / 1e9, "global": table / 1e9,
                "peak": peak.mib}

    # ------------------------------------------------------------ changes

    def main_peer(self):
        """Caught up, and stopped; as the sidecar of the bench."""
        if self.peer is None:
            self.peer = self.new()
            self.peer.start(self._bench.topic, TARGET, APPLICATION)
            self.await_committed(APPLICATION, self._bench.topic)
            self.peer.stop()
        return self.peer

    def resume(self, ends):
        """Lets it go until everything before `ends` is processed and committed."""
        peer, bench = self.main_peer(), self._bench
        targets = bench.kafka.end_offsets(TARGET)
        cpu, began = cpu_s(peer.pid), time.monotonic_ns()
        peer.cont()
        with Peak(peer.pid) as peak:
            at_ns = self.await_committed(APPLICATION, bench.topic, ends)
        result = {"seconds": (at_ns - began) / 1e9, "cpu_s": cpu_s(peer.pid) - cpu,
                  "peak": peak.mib}
        peer.stop()
        result["pairs"] = bench.read(TARGET, targets)["records"]
        return result

    def again(self, commit_ms):
        """The same state with another commit interval; caught up, and running."""
        peer = self.main_peer()
        peer.cont()
        peer.close()
        peer.start(self._bench.topic, TARGET, APPLICATION, commit_ms)
        peer.running()
        self.await_committed(APPLICATION, self._bench.topic)

    # ------------------------------------------------------------ look-ups

    @contextlib.contextmanager
    def rocks(self):
        """A RocksDB with the keys of the topic."""
        with Peer(self._built, self._bench.kafka.bootstrap) as peer:
            keys = self._bench.size.keys
            peer.tell("rocks", keys, self._value_bytes, then="filled")
            peer.get = lambda gets, seed: peer.tell("get", keys, gets, seed, then="got")["ns"]
            yield peer

    # ------------------------------------------------------------ kill -9

    def kills(self, rounds):
        """Seconds from a kill under load until a new JVM has its state and runs."""
        bench, results = self._bench, []
        peer = self.main_peer()
        peer.cont()
        writing = bench.programs.start("bench_latency", "sidecar", bench.kafka.bootstrap,
                                       bench.topic, TARGET, bench.size.keys, 100, 3600, 0,
                                       stdout=-3)
        try:
            for _ in range(rounds):
                time.sleep(2)
                began = time.monotonic_ns()
                peer.kill9()
                peer.spawn()
                peer.start(bench.topic, TARGET, APPLICATION)
                results.append((peer.running() - began) / 1e9)
        finally:
            writing.kill()
            writing.wait()
        self.close()
        return results


class Redis:
    """A Redis with the keys of the topic, behind a unix socket."""

    def __init__(self, bench, value_bytes):
        self._bench = bench
        self._value_bytes = value_bytes
        self._server = RedisServer(unix=True)

    def __enter__(self):
        self._server.__enter__()
        self._bench.run("bench_redis", "fill", self._server.socket, self._bench.size.keys,
                        self._value_bytes)
        return self

    def __exit__(self, *how):
        self._server.__exit__(*how)

    def get(self, gets, seed):
        """Nanoseconds of a look-up; fewer of them than elsewhere, they take longer."""
        return self._bench.run("bench_redis", "get", self._server.socket, self._bench.size.keys,
                               gets // 4, seed, self._server.process.pid)
