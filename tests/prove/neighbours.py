#!/usr/bin/python3
"""Claim: whatever its neighbours do, nobody reads a wrong answer, and the sidecar is not hurt: it
tells every change once, its snapshot is the topic, and its file and memory do not grow by them.

While changes are written, a thousand at a time with REST_MS between them,

  stopped  readers are stopped inside a read, one of them for STOP_S seconds, the others for some
           leases, and go on: they answer right or try again
  dying    readers die inside a read, KILLS times
  group    a process of another user in the group of the state directory tries whatever it can think
           of (common/scribbler.py): to write, truncate, replace, lock, connect and kill, and sends
           garbage over HTTP. Who is not root cannot become another user: then only what the
           sidecar's own user cannot be forbidden, and `other_user` is false

beside them readers that do nothing bad compare what they read. First all of this for QUIET_S seconds
without the neighbours, to see what the file is without them.

Environment: SECONDS=90 QUIET_S=20 STOP_S=60 KILLS=300 KEYS=20000 REST_MS=100 SEED=1. One
line of JSON.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import common  # noqa: I001  (finds the modules of the rig)
from broker import COMPACT_NEVER, Kafka, die_with_parent, free_port, wait_until
from purged import Keys, Readers, build_reader
from sidecar import Sidecar, sidenote

OTHER_USER, GROUP = 61001, 61002
LEASE_S = 0.5
SCRIBBLER = os.path.join(common.TESTS, "prove", "common", "scribbler.py")
MIB = 1 << 20


def stands_still(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        return f.read().rpartition(")")[2].split()[0] == "T"


def hold_signals():
    """Those that inside.c takes, until it is there to take them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})


class Neighbours:
    """Readers that are stopped or killed inside a read."""

    def __init__(self, where, state_dir, keys, seed):
        self.program = build_reader(where, "inside")
        self.words = [state_dir, str(keys), "0", "0", "0"]
        self.rng = random.Random(seed)
        self.stops = self.deaths = 0
        self.tallies = []
        self.lock = threading.Lock()

    def start(self):
        return subprocess.Popen([self.program, *self.words, str(self.rng.randrange(1 << 30))],
                                stdout=subprocess.PIPE, text=True, preexec_fn=hold_signals)

    def end(self, process):
        process.terminate()
        tally = json.loads(process.communicate(timeout=60)[0])
        with self.lock:
            self.tallies.append(tally)

    def stop_inside(self, seconds):
        """A reader that reads before, is stopped inside a read, and reads after it."""
        process = self.start()
        try:
            time.sleep(0.3)
            process.send_signal(signal.SIGUSR1)
            wait_until(lambda: stands_still(process.pid), 30, "it stands still")
            time.sleep(seconds)
            process.send_signal(signal.SIGCONT)
            time.sleep(0.5)
            self.end(process)
            with self.lock:
                self.stops += 1
        finally:
            process.kill()

    def stop_many(self, until):
        while time.monotonic() < until:
            self.stop_inside(LEASE_S * self.rng.uniform(0.5, 8))

    def kill_many(self, times):
        for _ in range(times):
            process = self.start()
            time.sleep(self.rng.uniform(0.02, 0.15))
            process.send_signal(signal.SIGUSR2)
            if process.wait(30) != -signal.SIGKILL:
                raise RuntimeError(f"a reader ended with {process.returncode}")
            process.stdout.close()
            self.deaths += 1


class Scribbler:
    def __init__(self, sidecar, port):
        self.other_user = os.geteuid() == 0
        words = [sys.executable, SCRIBBLER, sidecar.state_dir, str(sidecar.process.pid), str(port)]
        if self.other_user:
            # anew: with the user it would forget that it is to die with its parent
            words = ["setpriv", "--pdeathsig=KILL", f"--reuid={OTHER_USER}", f"--regid={GROUP}", "--clear-groups",
                     *words]
        else:
            words.append("--read-only")
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True,
                                        preexec_fn=die_with_parent)

    def stop(self):
        self.process.terminate()
        return json.loads(self.process.communicate(timeout=60)[0])


class Threads:
    """Functions side by side, whose exceptions arrive."""

    def __init__(self, *calls):
        self.errors = []
        self.threads = [threading.Thread(target=self._run, args=call) for call in calls]
        for t in self.threads:
            t.start()

    def _run(self, function, *args):
        try:
            function(*args)
        except Exception as e:  # pylint: disable=broad-except  (handed to whoever waits)
            self.errors.append(e)

    def join(self):
        for t in self.threads:
            t.join()
        if self.errors:
            raise self.errors[0]


def file_bytes(sidecar):
    return os.stat(os.path.join(sidecar.state_dir, "current", "data.mdb")).st_blocks * 512


def state_for_the_group(where):
    os.chmod(where, 0o711)
    state = os.path.join(where, "state")
    os.mkdir(state)
    if os.geteuid() == 0:
        os.chown(state, -1, GROUP)
    os.chmod(state, 0o2750)
    return state


def attack(sidecar, port, where, size):
    """What the neighbours did, and what came of it."""
    neighbours = Neighbours(where, sidecar.state_dir, size["keys"], size["seed"])
    scribbler = Scribbler(sidecar, port)
    until = time.monotonic() + size["seconds"]
    Threads((neighbours.stop_inside, size["stop_s"]), (neighbours.stop_many, until),
            (neighbours.kill_many, size["kills"])).join()
    time.sleep(max(0, until - time.monotonic()))
    return neighbours, scribbler.other_user, scribbler.stop()


def run(kafka, where, size):
    port = free_port()
    topic = kafka.create_topic("neighbours", 4, COMPACT_NEVER)
    keys = Keys(kafka, topic, size["seed"])
    keys.put(range(size["keys"]))
    keys.work.flush()
    rng = random.Random(size["seed"])

    def write():
        keys.put(rng.randrange(size["keys"]) for _ in range(1000))
        keys.work.flush()
        time.sleep(size["rest_ms"] / 1000)
    with Sidecar(kafka, "neighbours", topic, {
            "log.level": "info", "http.listen": f"127.0.0.1:{port}",
            "state.lease.ms": str(int(LEASE_S * 1000))}, state_for_the_group(where)) as sidecar:
        sidecar.start()
        sidecar.wait_published(timeout=120)
        start = kafka.end_offsets(topic)
        readers = Readers(where, 2, sidecar.state_dir, size["keys"], 0, (0, 0), size["seed"])
        writer = common.Writer(keys.work, write)
        time.sleep(size["quiet_s"])
        quiet = (file_bytes(sidecar), sidecar.rss_bytes())
        neighbours, other_user, tried = attack(sidecar, port, where, size)
        loud = (file_bytes(sidecar), sidecar.rss_bytes())
        writer.stop()
        sidecar.wait_published(timeout=300)
        verdict, diff = common.judge(kafka, sidecar, keys.work, start)
        verify = sidenote("verify", "-F", sidecar.config_path)
        good = readers.stop()
        wrong = sum(t["wrong"] for t in neighbours.tallies)
        errors = sum(t["errors"] for t in neighbours.tallies)
        troubles = [line for line in sidecar.log_text().splitlines()
                    if " warn " in line or " error " in line]
        print(*troubles, sep="\n", file=sys.stderr, flush=True)
        held = (verdict.clean and diff.clean and not verdict.gap and verify.returncode == 0
                and good["fine"] and not wrong and not errors and not tried["hurt"]
                and not tried["untried"] and neighbours.deaths == size["kills"]
                and sidecar.starts == 1 and loud[0] < quiet[0] + 32 * MIB
                and loud[1] < quiet[1] + 32 * MIB and not troubles)
        sidecar.term()
    return held, {
        "seed": size["seed"], "notifications": verdict.figures(), "snapshot": diff.figures(),
        "verify": verify.returncode, "readers": good, "stopped_inside": neighbours.stops,
        "longest_stop_s": size["stop_s"], "died_inside": neighbours.deaths,
        "wrong": wrong, "errors": errors, "other_user": other_user,
        "tried": sum(tried["done"].values()) + sum(tried["refused"].values()),
        "refused": sum(tried["refused"].values()), "hurt": tried["hurt"],
        "file_bytes": {"quiet": quiet[0], "with_neighbours": loud[0]},
        "anonymous_bytes": {"quiet": quiet[1], "with_neighbours": loud[1]}}


def main():
    size = {name: common.scale(name.upper(), default) for name, default in (
        ("seconds", 90), ("quiet_s", 20), ("stop_s", 60), ("kills", 300), ("keys", 20_000),
        ("rest_ms", 100), ("seed", 1))}
    where = tempfile.mkdtemp(prefix="sidenote-prove.")
    try:
        with Kafka() as kafka:
            held, figures = run(kafka, where, size)
    finally:
        shutil.rmtree(where, ignore_errors=True)
    common.finish("neighbours", held, **figures)


if __name__ == "__main__":
    main()
