"""The peer's half of the measures: what Kafka Streams, RocksDB and Redis need for the same."""

import json
import time

from peer import Peer, build
from processes import Peak, cpu_s

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
            self.peer.__exit__()
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
