#!/usr/bin/python3
"""Claim: an EndTxn or a TxnOffsetCommit that arrives late, after the client has given it up and sent
it again, tears no later transaction, loses nothing and moves no offset back.

A broker applies such a request to whatever transaction of the producer is open then, and reports no
error. So the sidecar starts over with a new producer whenever one may be on its way, and the broker
refuses what is late. A proxy holds one request, lets the sidecar repeat it, and delivers it at one
of the moments below of what comes next; each is tried TIMES times.

Environment: TIMES=3 RATE=300 SEED=1. One line of JSON.
"""

import collections
import struct
import threading
import time

import common  # noqa: I001  (finds the modules of the rig)
from broker import COMPACT_NEVER, Kafka, wait_until
from kafka_proxy import ADD_OFFSETS, END_TXN, INIT_PRODUCER_ID, PRODUCE, TXN_OFFSET_COMMIT, Proxy
from sidecar import Sidecar
from workload import Workload

INVALID_RECORD = 87

HELD = {"commit": (END_TXN, lambda r: r.commits),
        "abort": (END_TXN, lambda r: not r.commits),
        "offsets": (TXN_OFFSET_COMMIT, lambda r: True)}
# Which request of the time after it the late one comes before or after.
MOMENTS = {"before the first message": (PRODUCE, "before"), "among messages": (PRODUCE, "after"),
           "before the offsets": (ADD_OFFSETS, "before"),
           "before its own offsets": (TXN_OFFSET_COMMIT, "before"),
           "after the offsets": (TXN_OFFSET_COMMIT, "after"),
           "after its end": (END_TXN, "after")}
DELAY_S = 0.05  # "after": once the broker has had time to answer


def error_of(kind, answer):
    """What the broker said to the late one: EndTxn v0-2, TxnOffsetCommit v3 (short names)."""
    if kind != "offsets":
        return struct.unpack_from(">ih", answer)[1]
    at = 1 + 4 + 1  # no tags, throttle time, topics
    at += answer[at]  # a length is stored as one more, in this byte
    return struct.unpack_from(">ih", answer, at + 1)[1]


def fail_first_partition(request, answer):
    """A Produce answer (v3-8) that refuses what it took: the client has to abort."""
    at = 4 + 4
    (length,) = struct.unpack_from(">h", answer, at)
    at += 2 + length + 4 + 4
    return answer[:at] + struct.pack(">h", INVALID_RECORD) + answer[at + 2:]


class Late:
    def __init__(self, kafka, proxy, work, sidecar):
        self.kafka, self.proxy, self.work, self.sidecar = kafka, proxy, work, sidecar
        self.answers = collections.Counter()
        self.delivered = 0

    def _hold(self, kind):
        api, wanted = HELD[kind]
        if kind == "abort":
            failed = threading.Event()

            def refuse(request, answer):
                if request.api != PRODUCE or failed.is_set():
                    return answer
                failed.set()
                return fail_first_partition(request, answer)
            self.proxy.change_answer = refuse
        held = self.proxy.hold(api, wanted)
        held.wait(60)
        self.proxy.change_answer = None
        return held

    def _deliver_at(self, kind, held, moment):
        """At that moment of the transaction after the client has repeated what is held."""
        api, when = MOMENTS[moment]
        done = threading.Event()
        repeated = threading.Event()
        lock = threading.Lock()

        def deliver():
            self.answers[kind, error_of(kind, held.deliver())] += 1
            self.delivered += 1
            done.set()

        def watch(request):
            with lock:
                if not repeated.is_set():  # the repetition, or the new producer instead of it
                    if request.api in (HELD[kind][0], INIT_PRODUCER_ID):
                        repeated.set()
                    return
                if done.is_set() or request.api != api:
                    return
                if when == "before":
                    deliver()
                else:
                    done.set()
                    threading.Timer(DELAY_S, deliver).start()
        self.proxy.on_request = watch
        wait_until(done.is_set, 90, f"{kind} {moment}")
        time.sleep(2 * DELAY_S)
        self.proxy.on_request = None

    def run(self, kind, moment):
        held = self._hold(kind)
        self._deliver_at(kind, held, moment)
        time.sleep(0.5)


def main():
    times, rate, seed = (common.scale("TIMES", 3), common.scale("RATE", 300),
                         common.scale("SEED", 1))
    clock = common.Clock()
    with Kafka(behind_proxy=True) as kafka, Proxy(kafka.behind) as proxy:
        topic = kafka.create_topic("late", 4, COMPACT_NEVER)
        work = Workload(kafka, topic, seed=seed)
        work.load(2000)
        with Sidecar(kafka, "late", topic, {
                "kafka.bootstrap.servers": kafka.proxied_bootstrap, "log.level": "info",
                "producer.socket.timeout.ms": "2000"}) as sidecar:
            sidecar.start()
            sidecar.wait_published()
            start = kafka.end_offsets(topic)
            writer = common.Writer(work, lambda: work.change(rate // 2, rate=rate))
            late = Late(kafka, proxy, work, sidecar)
            for kind in HELD:
                for moment in MOMENTS:
                    for _ in range(times):
                        late.run(kind, moment)
                    clock.done(f"{kind} {moment}")
            writer.stop()
            sidecar.wait_published(timeout=120)
            verdict, diff = common.judge(kafka, sidecar, work, start)
            started_over = sidecar.log_text().count("starting over")
            open_now = len(kafka.open_transactions(sidecar.notifications_topic))
            sidecar.term()
    wanted = times * len(HELD) * len(MOMENTS)
    common.finish("late", verdict.clean and diff.clean and late.delivered == wanted
                  and not verdict.gap and not open_now and sidecar.starts == 1,
                  seed=seed, delivered=late.delivered, started_over=started_over,
                  answers={f"{kind} {code}": n for (kind, code), n in late.answers.items()},
                  notifications=verdict.figures(), snapshot=diff.figures())


if __name__ == "__main__":
    main()
