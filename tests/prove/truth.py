#!/usr/bin/python3
"""Claim: at a million keys, every change is told exactly once and byte for byte, and the snapshot
is the fold of the topic.

Environment: KEYS=1000000 CHANGES=200000 SEED=1. Of the changes a tenth are deletes, a tenth are
rewrites of the same bytes, and KEYS/1000 keys are changed 20 times in a row.
"""

import common  # noqa: I001  (finds the modules of the rig)
from broker import COMPACT_NEVER, Kafka
from sidecar import Sidecar
from workload import Workload


def plan(changes, hot):
    """Kinds of changes: hot keys write 20 records each."""
    tenth = changes // 10
    counts = {"delete": tenth, "rewrite": tenth, "hot": hot, "recreate": tenth // 2,
              "create": tenth // 4, "delete_absent": tenth // 10}
    counts["update"] = max(0, changes - sum(counts.values()) + hot - 20 * hot)
    return counts


def main():
    keys = common.scale("KEYS", 1_000_000)
    changes = common.scale("CHANGES", 200_000)
    seed = common.scale("SEED", 1)
    clock = common.Clock()
    with Kafka(heap="512m") as kafka:
        topic = kafka.create_topic("truth", 4, COMPACT_NEVER)
        work = Workload(kafka, topic, seed=seed, not_json=0.01)
        work.load(keys)
        clock.done("load", f"{keys} keys")
        with Sidecar(kafka, "truth", topic, {"log.level": "info"}) as sidecar:
            sidecar.start()
            sidecar.wait_published(timeout=600)
            clock.done("fill")
            start = kafka.end_offsets(topic)
            written = work.change(plan(changes, min(1000, keys // 1000)))
            clock.done("write", f"{written} changes")
            sidecar.wait_published(timeout=600)
            clock.done("publish")
            rss = sidecar.rss_bytes()
            verdict, diff = common.judge(kafka, sidecar, work, start)
            clock.done("judge")
            sidecar.term()
    common.finish("truth", verdict.clean and diff.clean and verdict.gap == 0, seed=seed, keys=keys,
                  changes=written, kinds=work.counts, rss_mib=rss >> 20,
                  notifications=verdict.figures(), snapshot=diff.figures(), **clock.seconds)


if __name__ == "__main__":
    main()
