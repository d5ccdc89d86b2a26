#!/usr/bin/python3
"""Claim: a delete whose tombstone compaction has purged before it was read is found and told, once,
with the right old value, and nobody reads a wrong answer meanwhile.

Environment: KEYS=100000 DELETES=5000 UPDATES=5000 CREATES=1000 KILLS=50 RATE=500 SEED=1 READERS=2,
and PARTS=stopped,paused,kept,killed to do only some. While the sidecar is away, DELETES keys are
deleted, UPDATES others are updated, CREATES come new, and the topic is cleaned until the tombstones
are gone: exactly these records, which is checked.

  stopped  the sidecar was stopped; it is written to while the round goes on
  paused   the same with SIGSTOP, beyond the sidecar's knowledge
  kept     the same, but the tombstones are there to be read: no round, nothing unusual
  killed   kill -9 amid the round, KILLS times: while it reads, while it writes, while what it
           found is published; DELETES * 3 keys are deleted at a time, as often as it takes

One line of JSON each.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time

import common  # noqa: I001  (finds the modules of the rig)
from broker import COMPACT_FAST, Kafka, die_with_parent
from sidecar import Sidecar
from workload import Workload

DAY_MS = 24 * 3600 * 1000
SHARED_STATE = os.path.join(os.path.dirname(common.TESTS), "shared-state")
all_held = True


def report(part, held, **figures):
    global all_held
    all_held &= held
    print(json.dumps({"prove": "purged", "part": part, "held": held, **figures}), flush=True)


# ---------------------------------------------------------------- what is written


def value_of(k, v):
    """What reader.c expects of version v of key k."""
    word = b"%016x" % (k * 2654435761 + v * 40503)
    return b'{"key":"key-%08d","v":%d,"pad":"%s"}' % (k, v, word * (4 + v % 7))


class Keys:
    """A workload of keys by number, whose values tell their version."""

    def __init__(self, kafka, topic, seed=1):
        self.work = Workload(kafka, topic, seed=seed)
        self._version = 0

    def put(self, numbers):
        self._version += 1
        for k in numbers:
            self.work.put(b"key-%08d" % k, value_of(k, self._version))

    def delete(self, numbers):
        for k in numbers:
            self.work.put(b"key-%08d" % k, None)


class LiveWriter:
    """Updates and deletes keys of its own until it is stopped."""

    def __init__(self, keys, rate, updates, deletes):
        self._keys = keys
        self._rate = rate
        self._updates = updates
        self._deletes = iter(deletes)
        self._stop = threading.Event()
        self.deleted = 0
        keys.work.in_background(self._write)

    def _write(self):
        rng = random.Random(7)
        while not self._stop.is_set():
            self._keys.put(rng.choice(self._updates) for _ in range(self._rate // 20))
            for k in (k for _, k in zip(range(2), self._deletes)):
                self._keys.delete([k])
                self.deleted += 1
            self._keys.work.flush()
            time.sleep(0.05)

    def stop(self):
        self._stop.set()
        self._keys.work.wait_background()


# ---------------------------------------------------------------- who reads


def build_reader(where, inside=None):
    """`inside`: a reader that can be stopped or killed within a read (inside.c)."""
    program = os.path.join(where, "reader" + (inside or ""))
    sources = [os.path.join(SHARED_STATE, f) for f in os.listdir(SHARED_STATE) if f.endswith(".c")]
    if inside:
        sources += [os.path.join(common.TESTS, "prove", "inside.c"), "-Wl,--wrap=commit_read"]
    subprocess.run([os.environ.get("CC", "cc"), "-std=gnu11", "-O2", "-D_GNU_SOURCE",
                    "-I" + SHARED_STATE, os.path.join(common.TESTS, "prove", "reader.c"), *sources,
                    "-pthread", "-llmdb", "-lcrypto", "-lxxhash", "-o", program], check=True)
    return program


class Readers:
    """Processes that look keys up and notice what is wrong."""

    def __init__(self, where, n, state_dir, keys, new, deletable, seed=1):
        program = build_reader(where)
        self._processes = [
            subprocess.Popen([program, state_dir, str(keys), str(new), str(deletable[0]),
                              str(deletable[1]), str(seed + i)], stdout=subprocess.PIPE, text=True,
                             preexec_fn=die_with_parent) for i in range(n)]

    def close(self):
        for p in self._processes:
            p.kill()
            p.wait()

    def stop(self):
        """What they saw, added up."""
        for p in self._processes:
            p.terminate()
        tallies = [json.loads(p.communicate()[0]) for p in self._processes]
        total = {name: sum(t[name] for t in tallies)
                 for name in ("gets", "scanned", "wrong", "errors", "stale")}
        total["silent_max_ms"] = max(t["silent_max_ms"] for t in tallies)
        total["first_wrong"] = "".join(t["first_wrong"] for t in tallies)
        total["fine"] = total["wrong"] == total["errors"] == 0 < total["gets"]
        return total


# ---------------------------------------------------------------- what is taken away


def settled(kafka, work, since):
    """The offsets that compaction has removed, once it has nothing left to do."""
    unseen = None
    while True:
        now = work.truth.missing_offsets(kafka, since=since)
        if now == unseen:
            return unseen
        unseen = now
        time.sleep(1)


def check_purged(work, unseen, deletes):
    """Exactly the tombstones."""
    records = [r for p in unseen for r in work.truth.records(p) if r.offset in unseen[p]]
    if len(records) != deletes or any(r.value is not None for r in records):
        raise RuntimeError(f"{len(records)} records removed, {deletes} tombstones were to be")


def add(unseen, more):
    for p, offsets in more.items():
        unseen.setdefault(p, set()).update(offsets)


class Run:
    """One topic, one sidecar, readers, and what was purged so far."""

    def __init__(self, kafka, part, size, deletable, config=None, options=None):
        self.kafka = kafka
        self.part = part
        self.topic = kafka.create_topic(f"purged-{part}", 4, {**COMPACT_FAST, **(config or {})})
        self.keys = Keys(kafka, self.topic, size.seed)
        self.work = self.keys.work
        self.keys.put(range(size.keys))
        self.work.flush()
        self.sidecar = Sidecar(kafka, f"purged-{part}", self.topic,
                               {"log.level": "info", **(options or {})})
        self.sidecar.start()
        self.sidecar.wait_published(timeout=120)
        self.start = kafka.end_offsets(self.topic)
        self.unseen = {}
        self.where = tempfile.TemporaryDirectory(prefix="sidenote-prove.")
        self.readers = Readers(self.where.name, size.readers, self.sidecar.state_dir, size.keys,
                               size.creates, (deletable.start, deletable.stop), size.seed)

    def write(self, deletes, updates, creates):
        self.keys.delete(deletes)
        self.keys.put(updates)
        self.keys.put(creates)
        self.work.flush()

    def clean_no_more(self):
        """What is written during the round is to be judged exactly."""
        self.kafka.alter_config(self.topic, {"min.compaction.lag.ms": str(DAY_MS)})
        time.sleep(1)

    def purge(self, deletes, updates, creates):
        """While nobody reads the topic."""
        self.kafka.alter_config(self.topic, {"min.compaction.lag.ms": "0"})
        since = self.kafka.end_offsets(self.topic)
        self.write(deletes, updates, creates)
        self.kafka.force_compaction(self.topic, passes=2, timeout=120)
        unseen = settled(self.kafka, self.work, since)
        check_purged(self.work, unseen, len(deletes))
        add(self.unseen, unseen)
        self.clean_no_more()

    def rounds(self, word):
        return self.sidecar.log_text().count(f"round: {word}")

    def wait_round(self, begun):
        """Until one has ended that began after `begun` others."""
        deadline = time.monotonic() + 120
        while self.rounds("reading") <= begun or self.rounds("done") < self.rounds("reading"):
            if time.monotonic() > deadline:
                raise TimeoutError("the round does not end")
            time.sleep(0.05)

    def told(self, op, keys):
        wanted = {b"key-%08d" % k for k in keys}
        return sum(1 for m in self.kafka.read(self.sidecar.notifications_topic)
                   if m.key() in wanted and ("sidenote.op", op) in m.headers())

    def finish(self, wanted, **figures):
        """`wanted`: how many deletes must have been told with cause=reconcile."""
        self.sidecar.wait_published(timeout=300)
        verdict, diff = common.judge(self.kafka, self.sidecar, self.work, self.start,
                                     unseen=self.unseen)
        tally = self.readers.stop()
        print(f"{self.part}: {tally}", file=sys.stderr, flush=True)
        held = figures.pop("held", True) and verdict.clean and diff.clean and verdict.gap == 0 \
            and tally["fine"] and verdict.reconcile == wanted
        if not held:
            print(self.sidecar.evidence(200), file=sys.stderr, flush=True)
        self.sidecar.term()
        report(self.part, held, wanted=wanted, reconcile=verdict.reconcile, keys=diff.expected,
               records=len(self.work.truth), notifications=verdict.figures(),
               snapshot=diff.figures(), readers=tally, **figures)

    def close(self):
        self.readers.close()
        self.sidecar.close()
        self.where.cleanup()


# ---------------------------------------------------------------- the parts


class Sizes:
    def __init__(self):
        self.keys = common.scale("KEYS", 100_000)
        self.deletes = common.scale("DELETES", 5000)
        self.updates = common.scale("UPDATES", 5000)
        self.creates = common.scale("CREATES", 1000)
        self.kills = common.scale("KILLS", 50)
        self.rate = common.scale("RATE", 500)
        self.readers = common.scale("READERS", 2)
        self.seed = common.scale("SEED", 1)
        # Those that are deleted unseen, those that are deleted while the sidecar looks, those that
        # are updated unseen; at the end those that are updated while it looks.
        live = self.keys // 10
        self.gone = range(self.deletes)
        self.live_deletes = range(self.deletes, self.deletes + live)
        self.deletable = range(self.live_deletes.stop)
        self.changed = range(self.deletable.stop, self.deletable.stop + self.updates)
        self.live_updates = range(self.keys // 2, self.keys)
        self.new = range(self.keys, self.keys + self.creates)


def away(run, size, leave, come_back, purge=True):
    """One absence."""
    leave(run.sidecar)
    if purge:
        run.purge(size.gone, size.changed, size.new)
    else:
        run.write(size.gone, size.changed, size.new)
        run.kafka.force_compaction(run.topic, passes=1, timeout=120)
        run.clean_no_more()
    begun = run.rounds("reading")
    writer = LiveWriter(run.keys, size.rate, size.live_updates, size.live_deletes)
    begin = time.monotonic()
    come_back(run.sidecar)
    if purge:
        run.wait_round(begun)
    else:
        time.sleep(5)
    seconds = round(time.monotonic() - begin, 1)
    writer.stop()
    run.sidecar.wait_published(timeout=300)
    rounds = run.rounds("reading") - begun
    updates = run.told(b"u", size.changed)
    deletes = run.told(b"d", size.gone)
    run.finish(size.deletes if purge else 0,
               held=updates == size.updates and deletes == size.deletes and (purge or not rounds),
               updates_told=updates, deletes_told=deletes, live_deletes=writer.deleted,
               rounds=rounds, seconds=seconds)


def pause(sidecar):
    sidecar.stop()
    time.sleep(0.5)  # the fetch that is under way must end before anything is to be read


def stopped(kafka, size):
    run = Run(kafka, "stopped", size, size.deletable)
    away(run, size, lambda s: s.term(), lambda s: s.start())
    return run


def paused(kafka, size):
    run = Run(kafka, "paused", size, size.deletable)
    away(run, size, pause, lambda s: s.cont())
    return run


def kept(kafka, size):
    run = Run(kafka, "kept", size, size.deletable, {"delete.retention.ms": str(DAY_MS)})
    away(run, size, lambda s: s.term(), lambda s: s.start(), purge=False)
    return run


class Killer:
    """Ends a sidecar amid its round. Where it is gets looked up while it stands still."""

    def __init__(self, run, rng):
        self.run = run
        self.rng = rng
        self.round_done = True
        self.amid = {"reading": 0, "writing": 0, "publishing": 0}

    def begin(self):
        """A round is due from here on."""
        self.round_done = False

    def kill(self, where):
        """At a random moment of `where`. False when that was over before it could be caught."""
        run, sidecar = self.run, self.run.sidecar
        begun = run.rounds("reading")
        sidecar.start()
        while not self.round_done and run.rounds("reading") == begun:
            time.sleep(0.002)
        keys = sidecar.stat()["keys"]
        caught = self._wait(where, keys, self.rng.randrange(25) if where == "reading" else 0)
        sidecar.kill9()
        if caught:
            self.amid[where] += 1
        return caught

    def _wait(self, where, keys, moments):
        """Stops it there, that many moments after it was seen there first."""
        while True:
            self.run.sidecar.stop()
            now = self._where(keys)
            moments -= now == where
            over = now == "over" or (self.round_done and where != "publishing")
            if (now == where and moments < 0) or over:
                return now == where and not over
            self.run.sidecar.cont()
            time.sleep(self.rng.uniform(0, 0.02 if self.round_done else 0.004))

    def _where(self, keys):
        stat = self.run.sidecar.stat()
        if any(p["due"] is not None for p in stat["partitions"]):
            return "writing" if stat["keys"] < keys else "reading"
        self.round_done = True
        if self.run.kafka.open_transactions(self.run.sidecar.notifications_topic):
            return "publishing"
        return "over" if self.run.sidecar.published() else "between"


def killed(kafka, size):
    """A dozen kills in each of several absences, until there were KILLS."""
    chunk = size.deletes * 3
    absences = (size.keys - size.updates) // chunk
    deletable = range(absences * chunk)
    changed = range(deletable.stop, deletable.stop + size.updates)
    # Small fetches: else it reads a topic of this size in no time.
    run = Run(kafka, "killed", size, deletable, options={
        "consumer.fetch.message.max.bytes": "65536",
        "consumer.queued.max.messages.kbytes": "512"})
    killer = Killer(run, random.Random(size.seed))
    gone = 0
    while sum(killer.amid.values()) < size.kills and gone < len(deletable):
        run.sidecar.term()
        run.purge(deletable[gone:gone + chunk], changed, size.new if gone == 0 else ())
        gone += chunk
        killer.begin()
        for where in ["reading", "writing"] * 4 + ["reading"] + ["publishing"] * 5:
            if sum(killer.amid.values()) < size.kills:
                killer.kill(where)
        run.sidecar.start()
        run.sidecar.wait_published(timeout=300)
        print(f"killed: {sum(killer.amid.values())} of {size.kills}: {killer.amid}",
              file=sys.stderr, flush=True)
    kills = sum(killer.amid.values())
    run.finish(gone, held=kills == size.kills and min(killer.amid.values()) >= kills // 10,
               kills=kills, amid=killer.amid)
    return run


def main():
    size = Sizes()
    parts = {"stopped": stopped, "paused": paused, "kept": kept, "killed": killed}
    for name in os.environ.get("PARTS", ",".join(parts)).split(","):
        with Kafka(heap="512m") as kafka:
            parts[name](kafka, size).close()
    sys.exit(0 if all_held else 1)


if __name__ == "__main__":
    main()
