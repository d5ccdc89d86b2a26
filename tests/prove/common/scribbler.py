#!/usr/bin/python3
"""Somebody in the group of a state directory who tries whatever may hurt, again and again:

    scribbler.py STATE_DIR SIDECAR_PID HTTP_PORT [--read-only]

Until SIGTERM; then one line of JSON: attempt -> how often it was done, and refused. With --read-only
it tries nothing that the sidecar's own user could do to it, who may do everything."""

import collections
import ctypes
import fcntl
import json
import mmap
import os
import random
import signal
import socket
import sys
import time

STATE, PID, PORT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
CURRENT = os.path.join(STATE, "current")
DATA = os.path.join(CURRENT, "data.mdb")
_libc = ctypes.CDLL(None, use_errno=True)
rng = random.Random(PID)
over = False


def write_to(path):
    with open(path, "r+b", buffering=0) as f:
        f.seek(rng.randrange(1 << 20))
        f.write(bytes(4096))


def truncate():
    os.truncate(DATA, 0)


def write_through_a_map():
    fd = os.open(DATA, os.O_RDONLY)
    try:
        mmap.mmap(fd, 1 << 20, prot=mmap.PROT_READ | mmap.PROT_WRITE)[:4096] = bytes(4096)
    finally:
        os.close(fd)


def open_for(path, flags):
    os.close(os.open(path, flags))


def write_through_proc():
    """A descriptor that was opened for reading, opened again for writing."""
    fd = os.open(DATA, os.O_RDONLY)
    try:
        open_for(f"/proc/self/fd/{fd}", os.O_RDWR)
    finally:
        os.close(fd)


def replace_current():
    os.symlink("/tmp", os.path.join(STATE, "mine"))
    os.rename(os.path.join(STATE, "mine"), CURRENT)


def write_memory():
    with open(f"/proc/{PID}/mem", "r+b", buffering=0) as f:
        f.write(b"x")


def connect_control():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(os.path.join(STATE, "control"))
        s.sendall(b"rebuild\n" + os.urandom(100))


def punch():
    fd = os.open(DATA, os.O_RDONLY)
    try:
        # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
        if _libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(1 << 20)):
            raise OSError(ctypes.get_errno(), "fallocate")
    finally:
        os.close(fd)


REFUSED = {
    "write data.mdb": lambda: write_to(DATA),
    "write lock.mdb": lambda: write_to(os.path.join(CURRENT, "lock.mdb")),
    "read lock.mdb": lambda: open_for(os.path.join(CURRENT, "lock.mdb"), os.O_RDONLY),
    "open writer.lock": lambda: open_for(os.path.join(STATE, "writer.lock"), os.O_RDONLY),
    "truncate": truncate,
    "punch a hole": punch,
    "write through a map": write_through_a_map,
    "write through /proc": write_through_proc,
    "create a file": lambda: open_for(os.path.join(STATE, "mine"), os.O_CREAT | os.O_RDWR),
    "create in the generation": lambda: open_for(os.path.join(CURRENT, "x"), os.O_CREAT),
    "remove data.mdb": lambda: os.unlink(DATA),
    "replace current": replace_current,
    "change the mode": lambda: os.chmod(DATA, 0o666),
    "set a time": lambda: os.utime(DATA, (0, 0)),
    "control socket": connect_control,
    "kill": lambda: os.kill(PID, signal.SIGKILL),
    "memory": write_memory,
}


def hold_locks():
    """All that an open descriptor lets one lock, held for a while."""
    fds = [os.open(path, os.O_RDONLY) for path in (DATA, STATE, CURRENT)]
    try:
        for fd in fds:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(fds[0], fcntl.LOCK_SH | fcntl.LOCK_NB)
        time.sleep(0.2)
    finally:
        for fd in fds:
            os.close(fd)


def map_and_read():
    fd = os.open(DATA, os.O_RDONLY)
    try:
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as m:
            for _ in range(200):
                m[rng.randrange(len(m))]
    finally:
        os.close(fd)


def drop_cache():
    fd = os.open(DATA, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def many_descriptors():
    fds = [os.open(DATA, os.O_RDONLY) for _ in range(200)]
    for fd in fds:
        os.close(fd)


def http_garbage():
    with socket.create_connection(("127.0.0.1", PORT), timeout=2) as s:
        s.sendall(rng.choice((
            os.urandom(rng.randrange(1, 3000)), b"GET /v1/keys/" + b"A" * 60000,
            b"POST / HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n" + os.urandom(1000),
            b"GET /v1/keys?limit=-1&after=%ff%00 HTTP/1.1\r\nHost: \x00\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000, b"GET /metrics HT", b"\r\n" * 100)))
        if rng.random() < 0.5:
            s.shutdown(socket.SHUT_WR)
            s.recv(1000)


ALLOWED = {"hold locks": hold_locks, "map": map_and_read, "drop the cache": drop_cache,
           "descriptors": many_descriptors, "garbage over HTTP": http_garbage}


def main():
    def end(*_):
        global over
        over = True
    signal.signal(signal.SIGTERM, end)
    attempts = dict(ALLOWED) if "--read-only" in sys.argv else {**REFUSED, **ALLOWED}
    done, refused = collections.Counter(), collections.Counter()
    while not over:
        for name, attempt in attempts.items():
            try:
                attempt()
                done[name] += 1
            except OSError:
                refused[name] += 1
        time.sleep(0.02)
    print(json.dumps({"done": done, "refused": refused,
                      "hurt": sorted(set(done) & set(REFUSED)),
                      "untried": sorted(set(attempts) - set(done) - set(refused))}), flush=True)


if __name__ == "__main__":
    main()
