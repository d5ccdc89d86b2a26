#!/usr/bin/python3
"""Claim: kill -9 at any moment loses nothing and doubles nothing.

Environment: KILLS=200 KEYS=20000 RATE=2000 SEED=1. The topic is written all the time. Every second
kill comes at a random moment, the start included; the others come while a transaction is open,
which is made sure of by stopping the process first and asking the broker.
"""

import random
import time

import common  # noqa: I001  (finds the modules of the rig)
from broker import COMPACT_NEVER, Kafka
from sidecar import Sidecar
from workload import Workload


def stop_within_transaction(kafka, sidecar, rng, timeout=20):
    """SIGSTOP at a moment when a transaction is open. False when there was none for so long."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        time.sleep(rng.uniform(0.005, 0.1))
        sidecar.stop()
        if kafka.open_transactions(sidecar.notifications_topic):
            return True
        sidecar.cont()
    return False


def main():
    kills = common.scale("KILLS", 200)
    keys = common.scale("KEYS", 20_000)
    rate = common.scale("RATE", 2000)
    seed = common.scale("SEED", 1)
    rng = random.Random(seed)
    clock = common.Clock()
    within = 0
    with Kafka(heap="512m") as kafka:
        topic = kafka.create_topic("kill", 4, COMPACT_NEVER)
        work = Workload(kafka, topic, seed=seed)
        work.load(keys)
        with Sidecar(kafka, "kill", topic, {"log.level": "info"}) as sidecar:
            sidecar.start()
            sidecar.wait_published()
            start = kafka.end_offsets(topic)
            clock.done("start")
            writer = common.Writer(work, lambda: work.change(rate // 2, rate=rate))
            for n in range(kills):
                if n % 2:
                    within += stop_within_transaction(kafka, sidecar, rng)
                else:
                    time.sleep(rng.uniform(0, 3))
                sidecar.kill9()
                sidecar.start()
                if n % 20 == 19:
                    clock.done(f"kills_{n + 1}", f"{within} of them within a transaction")
            writer.stop()
            sidecar.wait_published(timeout=300)
            clock.done("catch_up")
            verdict, diff = common.judge(kafka, sidecar, work, start)
            clock.done("judge")
            sidecar.term()
    common.finish("kill", verdict.clean and diff.clean and verdict.gap == 0, seed=seed, kills=kills,
                  within_a_transaction=within, records=len(work.truth),
                  notifications=verdict.figures(), snapshot=diff.figures())


if __name__ == "__main__":
    main()
