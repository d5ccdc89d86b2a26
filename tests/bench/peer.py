"""The peer, Kafka Streams with RocksDB, as a process: streams/src/Peer.java.

A JVM is warm before anything is measured: it has processed a topic of its own. While others are
measured it is stopped, as the sidecar is.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from broker import die_with_parent, stop_process

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, "streams")
# As its users have it: room, and the collector for throughput.
JVM = ("-Xms256m", "-Xmx1g", "-XX:+UseParallelGC",
       "-Dorg.slf4j.simpleLogger.defaultLogLevel=error")
THREADS = 2
WARM_RECORDS = 200_000


def build(directory):
    """Classes and jars under `directory`, by Maven, once for each state of the sources."""
    digest = hashlib.sha256()
    for path in sorted(os.path.join(at, name) for at, _, names in os.walk(SOURCE)
                       for name in names):
        with open(path, "rb") as f:
            digest.update(f.read())
    os.makedirs(directory, exist_ok=True)
    marker = os.path.join(directory, "complete")
    with open(os.path.join(directory, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError), open(marker, encoding="ascii") as f:
            if f.read() == digest.hexdigest():
                return directory
        print("-- building the peer", flush=True)
        subprocess.run(["mvn", "-q", "-B", "--strict-checksums", "-f",
                        os.path.join(SOURCE, "pom.xml"),
                        f"-Dbench.build={os.path.abspath(directory)}", "compile",
                        "dependency:copy-dependencies", "-DincludeScope=runtime",
                        f"-DoutputDirectory={os.path.abspath(directory)}/lib"],
                       check=True, timeout=600, stdin=subprocess.DEVNULL)
        with open(marker, "w", encoding="ascii") as f:
            f.write(digest.hexdigest())
    return directory


class Peer:
    """One JVM. What it does it tells in events: see Peer.java."""

    def __init__(self, built, brokers):
        self._state = tempfile.mkdtemp(prefix="sidenote-bench-peer.")
        self._command = (built, brokers)
        self.spawn()

    def spawn(self):
        """A new JVM on the same state; the moment."""
        built, brokers = self._command
        began = time.monotonic()
        classpath = f"{os.path.join(built, 'classes')}:{os.path.join(built, 'lib')}/*"
        self.process = subprocess.Popen(
            ["java", *JVM, "-cp", classpath, "Peer", brokers, self._state],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        self._events = queue.Queue()
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()
        self.event("ready")
        return began

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close_down()

    def close_down(self):
        self.kill9()
        shutil.rmtree(self._state, ignore_errors=True)

    def _read(self, lines):
        for line in lines:
            self._events.put(json.loads(line) if line.startswith("{") else {"event": line})
        self._events.put({"event": "died"})

    def event(self, name, timeout=600):
        """Waits for it, over whatever else happens; anything but death."""
        while True:
            event = self._events.get(timeout=timeout)
            if event["event"] == name:
                return event
            if event["event"] == "died":
                raise RuntimeError(f"the peer died before it was {name}")

    def tell(self, *words, then):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.event(then)

    @property
    def pid(self):
        return self.process.pid

    def kill9(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        stop_process(self.process)

    def cont(self):
        self.process.send_signal(signal.SIGCONT)

    # ------------------------------------------------------------ topologies

    def start(self, source, target, application, commit_ms=100):
        """The moment at which start() was called; it does not wait until it runs."""
        return self.tell("start", source, target, application, commit_ms, THREADS,
                         then="started")["at_ns"]

    def start_global(self, source, application):
        return self.tell("global", source, application, then="started")["at_ns"]

    def running(self):
        return self.event("running")["at_ns"]

    def close(self, wipe=False):
        self.tell("close", *(["wipe"] if wipe else []), then="closed")
