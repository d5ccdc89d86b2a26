#!/usr/bin/python3
"""Claim: of two sidecars of one name that were both away, whichever comes back first and wherever
it dies, deletes that compaction has purged meanwhile are told exactly once in all.

Environment: KEYS=50000 DELETES=5000 MANY=40000 UPDATES=1000 CREATES=200 SEED=1, and CASES=... to do
only some. Each case twice: the sidecar that led before comes back first, or the other one.

  before   the first dies when its round is written and nothing of it is published
  middle   the first dies after one of the transactions that tell of MANY deletes in one partition,
           the second after one more of them, and the first ends it
  after    the first dies when everything is published
  beside   both come back, and the one that leads dies amid its publishing
  apart    one stops; what changes then is published by the other, deletes among it; then that
           stops too, and deletes are purged

One line of JSON each.
"""

import json
import os
import re
import sys
import time

import common  # noqa: I001  (finds the modules of the rig)
import oracle
from broker import COMPACT_FAST, Kafka, wait_until
from purged import DAY_MS, Keys, add, check_purged, settled
from sidecar import Sidecar
from test_compaction import PlaceHolder


class Pair:
    def __init__(self, kafka, name, size, partitions):
        self.kafka = kafka
        self.size = size
        self.topic = kafka.create_topic(name, partitions, COMPACT_FAST)
        self.keys = Keys(kafka, self.topic, size.seed)
        self.work = self.keys.work
        self.keys.put(range(size.keys))
        self.work.flush()
        self.unseen = {}
        self.sidecars = [Sidecar(kafka, name, self.topic, {"log.level": "info"})
                         for _ in range(2)]
        for s in self.sidecars:
            s.start()
            s.wait_published(timeout=120)
            s.wait_ready()
        self.start = kafka.end_offsets(self.topic)
        wait_until(lambda: any(self.leads(s) for s in self.sidecars), 30, "a leader", 0.1)
        time.sleep(2)  # whoever was asked to give way has done so
        self.old_leader, self.old_standby = sorted(self.sidecars, key=self.leads, reverse=True)

    @staticmethod
    def leads(sidecar):
        stat = sidecar.stat()
        return bool(stat) and stat["role"] == "leader"

    @staticmethod
    def generation(sidecar):
        """Of the group, when it began to lead; its role in the state is up to a second old."""
        led = re.findall(r"leading sidenote\S+, generation (\d+)", sidecar.log_text())
        return int(led[-1]) if led else -1

    @property
    def notes(self):
        return self.sidecars[0].notifications_topic

    def stop_both(self):
        for s in self.sidecars:
            if s.alive():
                s.term()

    def purge(self, deletes, updates=(), creates=()):
        since = self.kafka.end_offsets(self.topic)
        self.keys.delete(deletes)
        self.keys.put(updates)
        self.keys.put(creates)
        self.work.flush()
        self.kafka.force_compaction(self.topic, passes=2, timeout=120)
        unseen = settled(self.kafka, self.work, since)
        check_purged(self.work, unseen, len(deletes))
        add(self.unseen, unseen)
        self.kafka.alter_config(self.topic, {"min.compaction.lag.ms": str(DAY_MS)})
        time.sleep(1)

    def told(self):
        """How many gone keys."""
        return sum(1 for m in self.kafka.read(self.notes)
                   if ("sidenote.cause", b"reconcile") in m.headers())

    def come_back(self, sidecar):
        """Until its round is written."""
        done = sidecar.log_text().count("round: done")
        sidecar.start()
        wait_until(lambda: sidecar.log_text().count("round: done") > done, 60, "the round", 0.01)

    def kill_amid(self, sidecars, least, most):
        """Kills the one of them that leads, when so many notifications are committed: how many,
        and the one."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for s in sidecars:
                s.stop()
            told = sum(self.kafka.end_offsets(self.notes).values())
            if least <= told:
                leader = max(sidecars, key=self.generation)
                leader.kill9()
            for s in sidecars:
                if s.alive():
                    s.cont()
            if told > most:
                raise RuntimeError(f"it was too fast: {told} of {most}")
            if least <= told:
                return told, leader
            time.sleep(0.002)
        raise TimeoutError(f"not {least} notifications")

    def judge(self, case, first, wanted, **figures):
        last = self.sidecars[0] if self.sidecars[0].alive() else self.sidecars[1]
        last.wait_published(timeout=300)
        for s in self.sidecars:
            if not s.alive():
                s.start()
            s.wait_ready()
        wait_until(lambda: sum(map(self.leads, self.sidecars)) == 1, 60, "one leader", 0.2)
        time.sleep(3)  # whatever one of them still has to say
        last.wait_published(timeout=300)
        verdict = oracle.judge(self.work.truth, self.start,
                               oracle.read_notifications(self.kafka, self.notes),
                               name=last.name, unseen=self.unseen)
        fold = self.work.truth.fold()
        diffs = [oracle.compare_snapshot(oracle.snapshot_of(s.state_dir), fold)
                 for s in self.sidecars]
        read_back = [line.split(": reading the last ")[1].split()[0]
                     for s in self.sidecars for line in s.log_text().splitlines()
                     if ": reading the last " in line]
        held = verdict.clean and verdict.reconcile == wanted and all(d.clean for d in diffs)
        held = figures.pop("held", True) and held
        print(f"{case}, {first} first: {verdict}\n" + "\n".join(map(str, diffs)),
              file=sys.stderr, flush=True)
        if not held:
            for s in self.sidecars:
                print(s.evidence(120), file=sys.stderr, flush=True)
        for s in self.sidecars:
            s.term()
        print(json.dumps({"prove": "two", "case": case, "first": first, "held": held,
                          "wanted": wanted, "reconcile": verdict.reconcile,
                          "notifications": verdict.figures(),
                          "snapshots_differ": [d.figures() for d in diffs if not d.clean],
                          "read_back": list(map(int, read_back)), **figures}), flush=True)
        return held

    def close(self):
        for s in self.sidecars:
            s.close()


# ---------------------------------------------------------------- the cases


def before(pair, one, other, size):
    pair.stop_both()
    pair.purge(size.gone, size.changed, size.new)
    with PlaceHolder(pair.kafka, one):
        pair.come_back(one)
        time.sleep(1)
        one.kill9()
        nothing = pair.told() == 0
    pair.come_back(other)
    other.wait_published(timeout=120)
    return len(size.gone), {"held": nothing}


def middle(pair, one, other, size):
    pair.stop_both()
    pair.purge(range(size.many), range(size.many, size.many + size.updates), size.new)
    pair.come_back(one)
    first, _ = pair.kill_amid([one], 10_000, size.many)
    pair.come_back(other)
    second, _ = pair.kill_amid([other], 20_000, size.many)
    pair.come_back(one)
    one.wait_published(timeout=120)
    return size.many, {"committed_at_the_first_death": first,
                       "committed_at_the_second_death": second}


def after(pair, one, other, size):
    pair.stop_both()
    pair.purge(size.gone, size.changed, size.new)
    pair.come_back(one)
    one.wait_published(timeout=120)
    told = pair.told()
    one.kill9()
    pair.come_back(other)
    other.wait_published(timeout=120)
    return len(size.gone), {"held": told == len(size.gone)}


def beside(pair, one, other, size):
    pair.stop_both()
    pair.purge(range(size.many), range(size.many, size.many + size.updates), size.new)
    with PlaceHolder(pair.kafka, one):
        pair.come_back(one)
        pair.come_back(other)
        time.sleep(1)
    committed, leader = pair.kill_amid([one, other], 10_000, size.many)
    rest = other if leader is one else one
    rest.wait_published(timeout=120)
    return size.many, {"committed_at_the_death": committed}


def apart(pair, one, other, size):
    pair.old_leader.term() if one is pair.old_leader else pair.old_standby.term()
    # `one` is the earlier to stop and the first to come back.
    told = range(size.keys - 2000, size.keys - 1000)
    pair.keys.put(range(size.keys - 1000, size.keys))
    pair.keys.delete(told)
    pair.work.flush()
    other.wait_published(timeout=60)
    pair.stop_both()
    pair.purge(size.gone, size.changed, size.new)
    pair.come_back(one)
    one.wait_published(timeout=120)
    pair.come_back(other)
    time.sleep(1)
    one.kill9()
    other.wait_published(timeout=120)
    return len(size.gone), {"told_by_the_other_before": len(told)}


CASES = {"before": (before, 4), "middle": (middle, 1), "after": (after, 4), "beside": (beside, 1),
         "apart": (apart, 4)}


class Sizes:
    def __init__(self):
        self.keys = common.scale("KEYS", 50_000)
        self.many = common.scale("MANY", 40_000)
        self.updates = common.scale("UPDATES", 1000)
        self.seed = common.scale("SEED", 1)
        deletes = common.scale("DELETES", 5000)
        self.gone = range(deletes)
        self.changed = range(deletes, deletes + self.updates)
        self.new = range(self.keys, self.keys + common.scale("CREATES", 200))


def main():
    size = Sizes()
    held = True
    with Kafka(heap="512m") as kafka:
        for name in os.environ.get("CASES", ",".join(CASES)).split(","):
            case, partitions = CASES[name]
            for first in ("leader", "standby"):
                pair = Pair(kafka, f"two-{name}-{first}", size, partitions)
                order = (pair.old_leader, pair.old_standby)
                one, other = order if first == "leader" else reversed(order)
                wanted, figures = case(pair, one, other, size)
                held &= pair.judge(name, first, wanted, **figures)
                pair.close()
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
