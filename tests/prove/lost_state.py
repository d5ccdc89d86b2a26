#!/usr/bin/python3
"""Claim: a state that is lost is filled anew, silently, up to the published position; what follows
is told, as cause=gap where compaction may have removed versions, and no key's last change vanishes.

Environment: KEYS=100000 LOSSES=5 RATE=2000 SEED=1. Each time: kill -9 while a transaction is open,
more changes, passes of the log cleaner, rm -rf of the state directory, start. Tombstones outlive
the loss: of a delete that was purged and a state that is gone nothing is left that could tell.
"""

import random
import time

import common  # noqa: I001  (finds the modules of the rig)
import oracle
from broker import COMPACT_FAST, Kafka
from kill import stop_within_transaction
from sidecar import Sidecar
from workload import Workload


CONFIG = {**COMPACT_FAST, "delete.retention.ms": 24 * 3600 * 1000}


def lose(kafka, work, sidecar, rng, rate):
    """One loss: whether a transaction was open."""
    writer = common.Writer(work, lambda: work.change(rate // 2, rate=rate))
    time.sleep(rng.uniform(1, 3))
    within = stop_within_transaction(kafka, sidecar, rng)
    sidecar.kill9()
    time.sleep(rng.uniform(1, 3))
    writer.stop()
    kafka.force_compaction(work.topic, timeout=120)
    sidecar.remove_state()
    sidecar.start()
    sidecar.wait_published(timeout=300)
    return within


def vanished(truth, start, notes):
    """How many keys whose last update or delete is later than the last thing told of them."""
    told = {}
    for note in notes:
        place = oracle.understand(note, truth.topic).identity[:2]
        told[note.key] = max(place, told.get(note.key, place))
    last = {}
    for p in range(len(truth.logs)):
        state = {}
        for r in truth.records(p):
            old = state.get(r.key)
            if r.offset >= start[p] and old is not None and old != r.value:
                last[r.key] = p, r.offset
            state[r.key] = r.value
    return sum(told.get(key, (-1, -1)) < place for key, place in last.items())


def main():
    keys = common.scale("KEYS", 100_000)
    losses = common.scale("LOSSES", 5)
    rate = common.scale("RATE", 2000)
    seed = common.scale("SEED", 1)
    rng = random.Random(seed)
    clock = common.Clock()
    within = 0
    with Kafka(heap="512m") as kafka:
        topic = kafka.create_topic("lost", 4, CONFIG)
        work = Workload(kafka, topic, seed=seed)
        work.load(keys)
        with Sidecar(kafka, "lost", topic, {"log.level": "info"}) as sidecar:
            sidecar.start()
            sidecar.wait_ready()
            sidecar.wait_published()
            start = kafka.end_offsets(topic)
            clock.done("start")
            for n in range(losses):
                within += lose(kafka, work, sidecar, rng, rate)
                clock.done(f"loss_{n + 1}")
            work.change(keys // 10)
            sidecar.wait_published(timeout=300)
            compacted = sum(map(len, work.truth.missing_offsets(kafka).values()))
            verdict, diff = common.judge(kafka, sidecar, work, start)
            gone = vanished(work.truth, start,
                            oracle.read_notifications(kafka, sidecar.notifications_topic))
            clock.done("judge")
            errors = sum(" error " in line for line in sidecar.log_text().splitlines())
            sidecar.term()
    held = (verdict.clean and verdict.gap > 0 and verdict.coalesced > 0 and gone == 0
            and diff.clean and errors == 0 and compacted > 0)
    common.finish("lost_state", held, seed=seed, keys=keys, losses=losses,
                  within_a_transaction=within, records=len(work.truth), compacted=compacted,
                  error_lines=errors, vanished=gone, notifications=verdict.figures(),
                  snapshot=diff.figures())


if __name__ == "__main__":
    main()
