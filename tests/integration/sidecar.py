"""The program under test, as a process.

    with Sidecar(kafka, "pipe", "users") as sidecar:
        sidecar.start()
        sidecar.wait_ready()
        ...
        sidecar.wait_published()
        sidecar.term()

The program is $SIDENOTE_BIN, or $SIDENOTE, or build/sidenote. It gets its options from a file. Its
state, configuration and log are in a temporary directory that close() removes.
"""

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

from broker import ROOT, die_with_parent, stop_process

# What tests need and users do not: a dead member leaves the group after a second.
TEST_OPTIONS = {
    "log.level": "debug",
    "notifications.create": "true",
    "consumer.session.timeout.ms": "1000",
    "consumer.heartbeat.interval.ms": "200",
}


def program():
    path = os.environ.get("SIDENOTE_BIN") or os.environ.get("SIDENOTE") or "build/sidenote"
    path = os.path.join(ROOT, path)
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"{path}: build it first (make), or set SIDENOTE_BIN")
    return path


def clean_environment():
    """Without SIDENOTE_*: the program would take the rig's own variables for options."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SIDENOTE")}


def sidenote(*arguments, timeout=60):
    """Runs one verb and returns the CompletedProcess, output as text."""
    return subprocess.run([program(), *arguments], env=clean_environment(), timeout=timeout,
                          capture_output=True, text=True, check=False,
                          preexec_fn=die_with_parent)


class SidecarDied(Exception):
    """It ended although nobody asked it to."""


class Sidecar:
    """One sidecar. Several with the same `name` are a leader and its standbys. `options` are those
    of the configuration file, over TEST_OPTIONS; None takes one away."""

    def __init__(self, kafka, name, source_topic, options=None, state_dir=None):
        self.kafka = kafka
        self.name = name
        self.source_topic = source_topic
        self.process = None
        self.starts = 0
        self.directory = tempfile.mkdtemp(prefix="sidenote-run.")
        atexit.register(self.close)
        self.state_dir = state_dir or os.path.join(self.directory, "state")
        self.config_path = os.path.join(self.directory, "sidenote.conf")
        self.log_path = os.path.join(self.directory, "sidenote.log")
        self.options = {
            "name": name,
            "kafka.bootstrap.servers": kafka.bootstrap,
            "source.topic": source_topic,
            "state.dir": self.state_dir,
            **TEST_OPTIONS,
        }
        self.configure(options or {})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ------------------------------------------------------------ configuration

    def configure(self, options):
        """Changes options; they count from the next start()."""
        self.options.update(options)
        self.options = {k: v for k, v in self.options.items() if v is not None}
        with open(self.config_path, "w", encoding="utf-8") as f:
            for name, value in self.options.items():
                f.write(f"{name}={value}\n")

    @property
    def group(self):
        return f"sidenote.{self.name}"

    @property
    def notifications_topic(self):
        return self.options.get("notifications.topic", f"{self.source_topic}.changes")

    # ------------------------------------------------------------ life

    def start(self, fault=None, environment=None):
        """`fault`: what tests/faults/fault.c understands, in a build that has it."""
        if self.alive():
            raise RuntimeError("it runs already")
        self.starts += 1
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [program(), "run", "-F", self.config_path], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, preexec_fn=die_with_parent,
                env={**clean_environment(), **(environment or {}),
                     **({"FAULT": fault} if fault else {})})
        return self

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill9(self):
        """SIGKILL, also of one that is stopped."""
        if self.alive():
            self.process.kill()
        self.process.wait()

    def term(self, expect=0, timeout=30):
        """SIGTERM; it must end, and with this exit status."""
        self.process.terminate()
        self.wait_exit(expect, timeout)

    def wait_exit(self, expect=None, timeout=30):
        """Waits for it to end; AssertionError when its exit status is not the expected one."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"sidenote does not end within {timeout} s\n"
                               + self.evidence()) from None
        if expect is not None and status != expect:
            raise AssertionError(f"sidenote ended with {status} and not {expect}\n"
                                 + self.evidence())
        return status

    def stop(self):
        """SIGSTOP."""
        stop_process(self.process)

    def cont(self):
        self.process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def stopped(self):
        self.stop()
        try:
            yield
        finally:
            self.cont()

    def close(self):
        atexit.unregister(self.close)
        if self.alive():
            self.kill9()
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None

    def remove_state(self):
        """As an operator who lost the disk; it must not run."""
        if self.alive():
            raise RuntimeError("it runs")
        shutil.rmtree(self.state_dir)

    # ------------------------------------------------------------ what it says

    def log_text(self):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def evidence(self, lines=60):
        """For the report of a failed test."""
        state = "running" if self.alive() else \
            f"ended with {self.process.returncode}" if self.process else "never started"
        text = "\n".join("    " + line for line in self.log_text().splitlines()[-lines:])
        return f"sidenote {self.name}, {state}, {self.starts} starts, log:\n{text}"

    def stat(self):
        """What `sidenote stat --json` tells, or None while there is no snapshot."""
        done = sidenote("stat", "-d", self.state_dir, "--json")
        try:
            return json.loads(done.stdout) if done.stdout else None
        except ValueError:
            raise AssertionError(f"sidenote stat --json printed {done.stdout!r}") from None

    def rss_bytes(self):
        """Anonymous memory: the snapshot's pages are the page cache's."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
            for line in f:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
        raise ValueError("no RssAnon")

    def committed(self):
        """partition -> (offset, metadata) of its group."""
        return self.kafka.committed(self.group, self.source_topic)

    # ------------------------------------------------------------ waiting

    def _wait(self, condition, timeout, what):
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            if not self.alive():
                raise SidecarDied(f"{what}: it ended\n{self.evidence()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {timeout} s\n{self.evidence()}")
            time.sleep(0.05)

    def wait_ready(self, timeout=60):
        """The snapshot is filled and caught up; returns what stat tells."""
        def ready():
            stat = self.stat()
            return stat if stat and stat.get("ready") is True else None
        return self._wait(ready, timeout, "ready")

    def wait_log(self, text, timeout=30):
        self._wait(lambda: text in self.log_text(), timeout, f"{text!r} in the log")

    def published(self, ends=None):
        """Whether everything before `ends` (default: the end of the topic) is published."""
        if ends is None:
            ends = self.kafka.end_offsets(self.source_topic)
        try:
            committed = self.committed()
        except RuntimeError:  # the coordinator moves, or a transaction stays open for long
            return False
        return all(committed[p][0] >= end or (end == 0 and committed[p][0] == -1001)
                   for p, end in ends.items())

    def wait_published(self, ends=None, timeout=60):
        """The committed offsets of its group are at the end of the source topic: every
        notification of what was written until now is in the notification topic."""
        if ends is None:
            ends = self.kafka.end_offsets(self.source_topic)
        self._wait(lambda: self.published(ends), timeout,
                   f"published up to {ends}, committed {self._committed_text()}")

    def _committed_text(self):
        try:
            return {p: o for p, (o, _) in self.committed().items()}
        except RuntimeError as e:
            return str(e)
