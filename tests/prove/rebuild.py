#!/usr/bin/python3
"""Claim: `sidenote rebuild` replaces the state under readers and writers: nothing is told twice or
not at all, no reader gets a wrong answer or none, whenever it is killed.

Environment: KEYS=100000 PENDING=100000 KILLS=40 RATE=500 SEED=1 READERS=2, PARTS=pending,killed.

  pending  a rebuild while PENDING changes are journaled and not published, and more are written;
           then one more while they are published
  killed   kill -9 at random moments of a rebuild, KILLS times, with half of PENDING unpublished;
           then one that is let be

Readers run all the while; the longest time that one of them had no answer is in the figures. One
line of JSON each.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time

import common  # noqa: I001  (finds the modules of the rig)
from broker import COMPACT_NEVER, Kafka, die_with_parent
from purged import Keys, LiveWriter, Readers
from sidecar import Sidecar, clean_environment, program
from test_compaction import PlaceHolder


class Rebuilt:
    def __init__(self, kafka, part, size):
        self.kafka = kafka
        self.part = part
        self.size = size
        self.topic = kafka.create_topic(f"rebuild-{part}", 4, COMPACT_NEVER)
        self.keys = Keys(kafka, self.topic, size.seed)
        self.work = self.keys.work
        self.keys.put(range(size.keys))
        self.work.flush()
        self.sidecar = Sidecar(kafka, f"rebuild-{part}", self.topic, {"log.level": "info"})
        self.sidecar.start()
        self.sidecar.wait_published(timeout=120)
        self.start = kafka.end_offsets(self.topic)
        self.where = tempfile.TemporaryDirectory(prefix="sidenote-prove.")
        self.deletable = range(size.keys // 4)
        self.readers = Readers(self.where.name, size.readers, self.sidecar.state_dir, size.keys, 0,
                               (0, self.deletable.stop), size.seed)
        self.begin = time.monotonic()

    def write_pending(self, n):
        """Changes that nobody publishes: updates of all keys, a delete here and there."""
        rng = random.Random(self.size.seed)
        untouched = list(self.deletable[len(self.deletable) // 2:])
        for _ in range(n // 1000):
            self.keys.put(rng.randrange(self.deletable.stop, self.size.keys) for _ in range(990))
            self.keys.delete(untouched.pop() for _ in range(10))
        self.work.flush()

    def live_writer(self):
        return LiveWriter(self.keys, self.size.rate, range(self.deletable.stop, self.size.keys),
                          self.deletable[:len(self.deletable) // 2])

    def ask(self):
        """`sidenote rebuild`, not waited for."""
        return subprocess.Popen([program(), "rebuild", "-F", self.sidecar.config_path],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                env=clean_environment(), preexec_fn=die_with_parent)

    def rebuild(self):
        """One that must succeed; how long it took."""
        before = self.generation()
        begin = time.monotonic()
        asker = self.ask()
        text = asker.communicate(timeout=300)[0]
        if asker.returncode != 0 or self.generation() == before:
            raise RuntimeError(f"rebuild: {asker.returncode}: {text}\n{self.sidecar.evidence()}")
        return time.monotonic() - begin

    def generation(self):
        return os.readlink(os.path.join(self.sidecar.state_dir, "current"))

    def finish(self, **figures):
        self.sidecar.wait_published(timeout=300)
        generations = [n for n in os.listdir(self.sidecar.state_dir) if n.startswith("gen-")]
        tally = self.readers.stop()
        seconds = time.monotonic() - self.begin
        verdict, diff = common.judge(self.kafka, self.sidecar, self.work, self.start)
        print(f"{self.part}: {tally}", file=sys.stderr, flush=True)
        held = verdict.clean and diff.clean and verdict.gap == 0 and tally["fine"] \
            and len(generations) == 1
        if not held:
            print(self.sidecar.evidence(200), file=sys.stderr, flush=True)
        self.sidecar.term()
        print(json.dumps({"prove": "rebuild", "part": self.part, "held": held,
                          "notifications": verdict.figures(), "snapshot": diff.figures(),
                          "readers": tally, "seconds": round(seconds), **figures}), flush=True)
        return held

    def close(self):
        self.readers.close()
        self.sidecar.close()
        self.where.cleanup()


def pending(run, size):
    with PlaceHolder(run.kafka, run.sidecar):
        run.write_pending(size.pending)
        while run.sidecar.stat()["journal"]["entries"] < size.pending:
            time.sleep(0.1)
        writer = run.live_writer()
        journal = run.sidecar.stat()["journal"]["entries"]
        held = run.rebuild()
        run.sidecar.wait_ready()
        time.sleep(2)
        kept = run.sidecar.stat()["journal"]["entries"]
    # The backlog is published while the next one goes on.
    while_published = run.rebuild()
    writer.stop()
    return run.finish(journaled=journal, journaled_after=kept, rebuild_s=round(held, 1),
                      rebuild_while_publishing_s=round(while_published, 1),
                      live_deletes=writer.deleted)


# What the log says when a step has begun, the last one first.
STEPS = (("rebuild: the new generation is current", "switched"),
         ("rebuild: switching", "switching"), ("filled from", "catching up"),
         ("round: done", "filling"), ("round: reading", "looking for gone keys"))


class Killer:
    def __init__(self, run, rng):
        self.run = run
        self.rng = rng
        self.amid = {step: 0 for _, step in STEPS}

    def kill(self, words):
        """A random moment after the log has said `words`."""
        sidecar = self.run.sidecar
        said = len(sidecar.log_text())
        asker = self.run.ask()
        while words not in sidecar.log_text()[said:]:
            time.sleep(0.001)
        time.sleep(self.rng.uniform(0, 0.3))
        sidecar.kill9()
        asker.communicate(timeout=60)
        text = sidecar.log_text()[said:]
        self.amid[next(step for w, step in STEPS if w in text)] += 1

    def start(self):
        sidecar = self.run.sidecar
        said = len(sidecar.log_text())
        sidecar.start()
        while "ready: " not in sidecar.log_text()[said:]:
            time.sleep(0.01)


def killed(run, size):
    killer = Killer(run, random.Random(size.seed))
    with PlaceHolder(run.kafka, run.sidecar):
        run.write_pending(size.pending // 2)
        writer = run.live_writer()
        run.rebuild()
        for n in range(size.kills):
            killer.kill(STEPS[1 + n % (len(STEPS) - 1)][0])
            killer.start()
            if n % 5 == 4:
                print(f"killed: {n + 1} of {size.kills}: {killer.amid}", file=sys.stderr,
                      flush=True)
        seconds = run.rebuild()
    writer.stop()
    return run.finish(kills=size.kills, amid=killer.amid, rebuild_s=round(seconds, 1),
                      live_deletes=writer.deleted)


class Sizes:
    def __init__(self):
        self.keys = common.scale("KEYS", 100_000)
        self.pending = common.scale("PENDING", 100_000)
        self.kills = common.scale("KILLS", 40)
        self.rate = common.scale("RATE", 500)
        self.readers = common.scale("READERS", 2)
        self.seed = common.scale("SEED", 1)


def main():
    size = Sizes()
    parts = {"pending": pending, "killed": killed}
    held = True
    for name in os.environ.get("PARTS", ",".join(parts)).split(","):
        with Kafka(heap="512m") as kafka:
            run = Rebuilt(kafka, name, size)
            held &= parts[name](run, size)
            run.close()
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
