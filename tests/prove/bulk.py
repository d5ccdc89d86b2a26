#!/usr/bin/python3
"""Claim: a bulk load of ten million keys keeps the last record of each, in bounded memory and a
compact file, at half the speed of a consumer that does nothing or better, and a kill -9 in the
middle of it leaves nothing behind.

Environment: KEYS=10000000 BYTES=100 (of key and value) ROUNDS=3 SEED=1 SORT_MIB=256
MIN_PERCENT=50 (of the bare consumer's speed; 0 on a machine that is busy otherwise).
After the keys, every hundredth is overwritten and every thousandth deleted. Bare consumer and fill
take turns; rates are medians, of the time from making the client to the last record read or stored.
"""

import contextlib
import json
import os
import random
import re
import statistics
import subprocess
import threading
import time

import common  # noqa: I001  (finds the modules of the rig)
import lmdb
import oracle
from broker import COMPACT_NEVER, ROOT, Kafka
from sidecar import Sidecar, SidecarDied

PARTITIONS = 4
KEY_BYTES = 16
RECORD_HEADER_BYTES = 32
ROOM_MIB = 200  # that a fill may take beside sort.memory
FILE_MARGIN_BYTES = 4 << 20  # meta pages, and what the file is kept longer than its last page
PAD = random.Random(1).randbytes(8000).hex().encode()


# ---------------------------------------------------------------- what is written

def key_of(i):
    return b"key-%012d" % i


def value_of(i, version, size):
    head = b'{"n":%d,"v":%d,"text":"' % (i, version)
    at = i * 31 % 7919
    return head + PAD[at:at + size - KEY_BYTES - len(head) - 2] + b'"}'


def overwritten(i):
    return i % 100 == 7


def deleted(i):
    return i % 1000 == 13


def shuffled(keys):
    """Every number below `keys` once, in an order that no sort can profit from."""
    step = next(s for s in (7368787, 5800079, 3) if keys % s)
    i = 0
    for _ in range(keys):
        i = (i + step) % keys
        yield i


def plan(keys, size):
    for i in shuffled(keys):
        yield i, value_of(i, 1, size)
    for i in range(7, keys, 100):
        yield i, value_of(i, 2, size)
    for i in range(13, keys, 1000):
        yield i, None


def write(kafka, topic, keys, size):
    producer = kafka.producer(**{"linger.ms": 20, "batch.num.messages": 10000, "batch.size": 900000,
                                 "queue.buffering.max.messages": 1000000,
                                 "compression.type": "lz4"})
    n = 0
    for i, value in plan(keys, size):
        while True:
            try:
                producer.produce(topic, value, key_of(i), i % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.05)
        n += 1
        if n % 5000 == 0:
            producer.poll(0)
    if producer.flush(300):
        raise TimeoutError("records not delivered")
    return n


# ---------------------------------------------------------------- contenders

def bare_program():
    build = os.path.join(ROOT, os.environ.get("BUILD", "build"))
    program = os.path.join(build, "tests", "bench", "bench_read")
    if not os.access(program, os.X_OK):
        subprocess.run(["make", "-s", os.path.relpath(program, ROOT)], cwd=ROOT, check=True)
    return program


def read_bare(kafka, topic, records):
    span = [f"{p}:0:{end}" for p, end in sorted(kafka.end_offsets(topic).items())]
    out = subprocess.run([bare_program(), kafka.bootstrap, topic, "0", *span],
                         capture_output=True, text=True, check=True).stdout
    figures = json.loads(out)
    assert figures["records"] == records, figures
    return figures["seconds"]


class Peak:
    """The most anonymous memory that a sidecar has had, while the block runs."""

    def __init__(self, sidecar):
        self.bytes = 0
        self._sidecar = sidecar
        self._stop = threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        while not self._stop.wait(0.05):
            with contextlib.suppress(OSError, ValueError):
                self.bytes = max(self.bytes, self._sidecar.rss_bytes())


FILLED = re.compile(r"filled from \S+: (\d+) records in (\d+) ms, (\d+) kept; "
                    r"reading took (\d+) ms, storing (\d+) ms")


def fill(sidecar):
    """Starts it and waits until it is ready; what the fill took, in seconds, and its memory."""
    begin = time.monotonic()
    sidecar.start()
    with Peak(sidecar) as peak:
        sidecar.wait_log("ready:", timeout=1800)
    ready = time.monotonic() - begin
    records, ms, kept, reading, storing = map(int, FILLED.findall(sidecar.log_text())[-1])
    return {"records": records, "kept": kept, "seconds": ms / 1000, "ready_s": ready,
            "reading_s": reading / 1000, "storing_s": storing / 1000,
            "peak_mib": peak.bytes / 2**20}


# ---------------------------------------------------------------- kills

def left(sidecar):
    """What is in the state directory."""
    return sorted(os.listdir(sidecar.state_dir))


def generations(sidecar):
    return sorted((n for n in left(sidecar) if n.startswith("gen-")), key=lambda n: int(n[4:]))


def data_bytes(sidecar):
    """Of the newest generation."""
    return os.path.getsize(os.path.join(sidecar.state_dir, generations(sidecar)[-1], "data.mdb"))


def wait_until(sidecar, condition, timeout=1800):
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(OSError, IndexError):
            if condition():
                return
        if not sidecar.alive():
            raise SidecarDied(sidecar.evidence())
        if time.monotonic() > deadline:
            raise TimeoutError(sidecar.evidence())
        time.sleep(0.002)


def kill_reading(sidecar, last):
    """In the middle of the first fill of this directory."""
    sidecar.start()
    wait_until(sidecar, lambda: generations(sidecar))
    time.sleep(0.5 * last["reading_s"])
    sidecar.kill9()


def kill_storing(sidecar, last):
    """In the middle of the next one, which has swept away what the first has left."""
    sidecar.start()
    wait_until(sidecar, lambda: data_bytes(sidecar) > last["file_bytes"] // 3)
    sidecar.kill9()


def is_clean(sidecar):
    """Nothing is left but one generation, and what is there always."""
    others = set(left(sidecar)) - set(generations(sidecar))
    return others <= {"control", "current", "writer.lock"} and len(generations(sidecar)) == 1


# ---------------------------------------------------------------- judgement

def expected(i, size):
    if deleted(i):
        return None
    return value_of(i, 2 if overwritten(i) else 1, size)


def sample_of(keys, rng):
    yield from (rng.randrange(keys) for _ in range(50_000))
    yield from rng.sample(range(7, keys, 100), min(10_000, keys // 100))
    yield from rng.sample(range(13, keys, 1000), min(10_000, keys // 1000))


def wrong_in(state_dir, keys, size, rng):
    """Entries in the snapshot, and how many of a sample are not what they should be."""
    env = lmdb.open(os.path.realpath(os.path.join(state_dir, "current")), readonly=True,
                    lock=False, map_size=0, max_dbs=8)
    wrong = 0
    try:
        db = env.open_db(b"records", create=False)
        with env.begin(db=db) as txn:
            entries = txn.stat(db)["entries"]
            for i in sample_of(keys, rng):
                data = txn.get(key_of(i))
                value = None if data is None else oracle.decode_record(key_of(i), data)[1].value
                wrong += value != expected(i, size)
    finally:
        env.close()
    return entries, wrong


def main():
    keys = common.scale("KEYS", 10_000_000)
    size = common.scale("BYTES", 100)
    rounds = common.scale("ROUNDS", 3)
    sort_mib = common.scale("SORT_MIB", 256)
    seed = common.scale("SEED", 1)
    min_percent = common.scale("MIN_PERCENT", 50)
    live = keys - len(range(13, keys, 1000))
    clock = common.Clock()
    with Kafka(heap="512m") as kafka:
        topic = kafka.create_topic("bulk", PARTITIONS, COMPACT_NEVER)
        records = write(kafka, topic, keys, size)
        clock.done("write", f"{records} records")
        options = {"log.level": "info", "sort.memory": f"{sort_mib}MiB"}
        bare, fills = [], []
        for n in range(rounds):
            bare.append(read_bare(kafka, topic, records))
            with Sidecar(kafka, f"bulk{n}", topic, options) as sidecar:
                fills.append(fill(sidecar))
                sidecar.term()
                fills[-1]["file_bytes"] = data_bytes(sidecar)
            clock.done(f"round_{n + 1}", f"bare {bare[-1]:.2f} s, {fills[-1]}")
        with Sidecar(kafka, "killed", topic, options) as sidecar:
            kill_reading(sidecar, fills[-1])
            clean = is_clean(sidecar)
            kill_storing(sidecar, fills[-1])
            clean = clean and is_clean(sidecar)
            clock.done("kills", f"{left(sidecar)}")
            fills.append(fill(sidecar))
            sidecar.term()
            fills[-1]["file_bytes"] = data_bytes(sidecar)
            clean = clean and is_clean(sidecar)
            entries, wrong = wrong_in(sidecar.state_dir, keys, size, random.Random(seed))
            clock.done("check", f"{entries} entries, {wrong} of the sample wrong")
    seconds = statistics.median(f["seconds"] for f in fills[:rounds])
    ready = statistics.median(f["ready_s"] for f in fills[:rounds])
    bare_s = statistics.median(bare)
    peak = max(f["peak_mib"] for f in fills)
    file_bytes = fills[-1]["file_bytes"]
    stored = file_bytes / (live * (size + RECORD_HEADER_BYTES))
    compact = file_bytes <= 1.15 * live * (size + RECORD_HEADER_BYTES) + FILE_MARGIN_BYTES
    held = (entries == live and not wrong and clean and compact
            and peak <= sort_mib + ROOM_MIB and 100 * bare_s / seconds >= min_percent
            and all(f["records"] == records and f["kept"] == live for f in fills))
    common.finish("bulk", held, seed=seed, keys=keys, bytes=size, records=records, entries=entries,
                  sample_wrong=wrong, left_nothing=clean,
                  fill_records_per_s=round(records / seconds),
                  bare_records_per_s=round(records / bare_s), ratio=round(bare_s / seconds, 3),
                  ratio_until_ready=round(bare_s / ready, 3),
                  fill_s=[f["seconds"] for f in fills], bare_s=[round(b, 3) for b in bare],
                  reading_s=[f["reading_s"] for f in fills], ready_s=round(ready, 2),
                  file_bytes=file_bytes, file_per_raw=round(file_bytes / (live * size), 3),
                  file_per_stored=round(stored, 3), peak_rss_anon_mib=round(peak),
                  sort_memory_mib=sort_mib, load_average=round(os.getloadavg()[1], 1),
                  **clock.seconds)


if __name__ == "__main__":
    main()
