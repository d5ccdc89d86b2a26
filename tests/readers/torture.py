#!/usr/bin/env python3
"""Readers beside a writer that goes flat out, is killed, restarted, and makes new generations.

The readers are processes of another user, on a read-only bind mount; two of them are process 1 of
a pid namespace of their own; now and then one is stopped for longer than a lease. Needs root, cc,
and nothing else. Prints one JSON line; the exit status is 0 when no read was wrong, no look-up
failed, and nobody died by a signal that was not meant for it.

    SECONDS=30 READERS=8 KEYS=200000 LEASE_MS=1000   in the environment
    BREAK=1      link the writer without leases: the run must find wrong reads
    TORTURE_SEED=n   repeat the driver's random choices
"""

import glob
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
NOBODY = 65534


def setting(name, default):
    return int(os.environ.get(name, default))


SECONDS = setting("SECONDS", 30)
READERS = setting("READERS", 8)
KEYS = setting("KEYS", 200000)
LEASE_MS = setting("LEASE_MS", 1000)
BREAK = setting("BREAK", 0)
SEED = setting("TORTURE_SEED", time.time_ns() % 1000000)


def build(where, lease):
    program = os.path.join(where, "torture-" + os.path.basename(lease).split(".")[0])
    sources = [f for f in sorted(glob.glob(ROOT + "/shared-state/*.c"))
               if os.path.basename(f) != "lease.c"]
    subprocess.run([os.environ.get("CC", "cc"), "-std=gnu11", "-O2", "-g", "-D_GNU_SOURCE",
                    "-I" + ROOT + "/shared-state", HERE + "/torture.c", lease, *sources,
                    "-Wl,--wrap=commit_read", "-pthread", "-llmdb", "-lcrypto", "-o", program],
                   check=True)
    return program


def mount_read_only(state, to):
    os.mkdir(to)
    subprocess.run(["mount", "--bind", state, to], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", to], check=True)


def pss_bytes(pid):
    """What the process takes of memory, shared pages counted by their share: all, and the file."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        everything = int(re.search(r"^Pss:\s+(\d+) kB", f.read(), re.M)[1])
    of_file, here = 0, False
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as f:
        for line in f:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                here = line.rstrip().endswith("/data.mdb")
            elif here and line.startswith("Pss:"):
                of_file += int(line.split()[1])
    return everything * 1024, of_file * 1024


def only_child(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return int(f.read().split()[0])


class Board:
    """The start of struct board: two bytes of flags, the count of warm readers, four numbers."""

    def __init__(self, path):
        self.file = open(path, "r+b", buffering=0)

    def number(self, at, size=8):
        self.file.seek(at)
        return int.from_bytes(self.file.read(size), "little")

    def put(self, at, value, size):
        self.file.seek(at)
        self.file.write(value.to_bytes(size, "little"))

    warm = property(lambda self: self.number(4, 4))
    commits = property(lambda self: self.number(24))
    switches = property(lambda self: self.number(32))

    def go(self):
        self.put(0, 1, 1)

    def stop(self):
        self.put(1, 1, 1)

    def nobody_writes(self):
        self.put(8, 0, 8)


class Reader:
    def __init__(self, program, mount, board, n):
        self.own_namespace = n < 2
        self.out = tempfile.TemporaryFile("w+")
        words = [program, "read", mount, board, str(SEED + n)]
        words = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--groups=0", *words]
        if self.own_namespace:
            words = ["unshare", "--pid", "--fork", "--mount-proc", *words]
        self.process = subprocess.Popen(words, stdout=self.out)

    @property
    def pid(self):
        return only_child(self.process.pid) if self.own_namespace else self.process.pid

    def result(self):
        """Its tally, or the signal that it died of."""
        code = self.process.wait()
        if code < 0 or code > 128:  # unshare tells a signal of its child as a shell would
            return {"signal": -code if code < 0 else code - 128}
        self.out.seek(0)
        text = self.out.read()
        return json.loads(text) if text else {"signal": 0, "exit": code}


def wait_warm(board, n, readers):
    while board.warm < n:
        if any(r.process.poll() is not None for r in readers):
            sys.exit("torture: a reader ended before it was warm")
        time.sleep(0.05)


class Writer:
    def __init__(self, program, state, board_path, board):
        self.words = [program, "write", state, board_path]
        self.board = board
        self.kills = self.deaths = 0
        self.start()

    def start(self):
        # before the readers, which never pause: a writer without a processor is no torture
        self.process = subprocess.Popen(["nice", "-n", "-15", *self.words])

    def kill(self):
        self.board.nobody_writes()
        self.process.kill()
        if self.process.wait() != -signal.SIGKILL:
            self.deaths += 1
        self.board.nobody_writes()
        self.kills += 1

    def end(self):
        self.process.terminate()
        if self.process.wait() != 0:
            self.deaths += 1


def torment(writer, readers, rng):
    """Until the time is over: kill and restart the writer, stop readers, switch generations."""
    end = time.monotonic() + SECONDS
    lease = LEASE_MS / 1000
    next_kill = time.monotonic() + lease + 2
    next_switch = time.monotonic() + SECONDS / 3
    next_stop = time.monotonic() + 1
    stopped, stops = None, 0
    while time.monotonic() < end:
        now = time.monotonic()
        if stopped and now > stopped[1]:
            os.kill(stopped[0], signal.SIGCONT)
            stopped = None
        if not stopped and now > next_stop:
            stopped = (rng.choice(readers).pid, now + lease * rng.uniform(0.5, 2.5))
            os.kill(stopped[0], signal.SIGSTOP)
            stops += 1
            next_stop = stopped[1] + rng.uniform(0.2, 1)
        if now > next_switch:
            writer.process.send_signal(signal.SIGUSR1)
            next_switch = now + SECONDS / 3
            if rng.random() < 0.3:  # and be killed in the middle of it, perhaps
                next_kill = now + rng.uniform(0, 0.5)
        if now > next_kill:
            writer.kill()
            time.sleep(rng.uniform(0, 0.3))
            writer.start()
            next_kill = time.monotonic() + lease + rng.uniform(1, 5)
        time.sleep(0.02)
    if stopped:
        os.kill(stopped[0], signal.SIGCONT)
    return stops


def run(where):
    rng = random.Random(SEED)
    program = build(where, ROOT + "/shared-state/lease.c")
    writer_program = build(where, HERE + "/no_lease.c") if BREAK else program
    state, mount, board_path = where + "/state", where + "/mount", where + "/board"
    subprocess.run([program, "fill", state, board_path, str(KEYS), str(LEASE_MS)], check=True)
    mount_read_only(state, mount)
    board = Board(board_path)
    file_bytes = os.stat(state + "/current/data.mdb").st_blocks * 512

    # memory, before a writer maps the file too
    readers = [Reader(program, mount, board_path, 0)]
    wait_warm(board, 1, readers)
    one = pss_bytes(readers[0].pid)
    readers += [Reader(program, mount, board_path, n) for n in range(1, READERS)]
    wait_warm(board, READERS, readers)
    all_of_them = [pss_bytes(r.pid) for r in readers]

    board.nobody_writes()
    writer = Writer(writer_program, state, board_path, board)
    board.go()
    stops = torment(writer, readers, rng)
    board.stop()
    results = [r.result() for r in readers]
    writer.end()
    subprocess.run(["umount", mount], check=True)

    tallies = [r for r in results if "signal" not in r]
    total = {k: sum(r[k] for r in tallies)
             for k in ("gets", "wrong", "errors", "stale", "in_two", "snapshots",
                       "snapshots_stale", "scans", "scanned")}
    in_two = total.pop("in_two")
    wrong = [r["first_wrong"] for r in tallies if r["first_wrong"]]
    return {
        **total,
        "answered_in_two_percent": round(100 * in_two / max(total["gets"], 1), 5),
        "age_max_ms": max((r["age_max_ms"] for r in tallies), default=None),
        "age_switch_max_ms": max((r["age_switch_max_ms"] for r in tallies), default=None),
        "deaths_by_signal": len(results) - len(tallies) + writer.deaths,
        "readers": READERS, "as_pid_1": sum(r["pid"] == 1 for r in tallies),
        "keys": KEYS, "seconds": SECONDS, "lease_ms": LEASE_MS, "seed": SEED,
        "commits": board.commits, "writer_kills": writer.kills,
        "generation_switches": board.switches, "reader_stops": stops,
        "file_bytes": file_bytes,
        "file_bytes_after": os.stat(state + "/current/data.mdb").st_blocks * 512,
        "pss_of_1_bytes": one[0], "pss_of_1_file_bytes": one[1],
        "pss_of_all_bytes": sum(p[0] for p in all_of_them),
        "pss_of_all_file_bytes": sum(p[1] for p in all_of_them),
        **({"first_wrong": wrong[0]} if wrong else {}),
    }


def main():
    if os.geteuid() != 0:
        sys.exit("torture: needs root, to mount and to make pid namespaces")
    if "TORTURE_INSIDE" not in os.environ:  # mounts of its own, which end with it
        os.execvpe("unshare", ["unshare", "--mount", sys.executable, os.path.abspath(__file__)],
                   {**os.environ, "TORTURE_INSIDE": "1"})
    where = tempfile.mkdtemp(prefix="sidenote-torture-")
    os.chmod(where, 0o755)
    try:
        result = run(where)
    finally:
        shutil.rmtree(where, ignore_errors=True)
    print(json.dumps(result))
    bad = result["wrong"] + result["errors"] + result["deaths_by_signal"]
    return (bad == 0) if BREAK else (bad > 0)


if __name__ == "__main__":
    sys.exit(main())
