"""Requests that are delayed, dropped, doubled, cut off or lose their answer, by kind and by chance:
every change is told exactly once all the same."""

import os
import unittest

from broker import COMPACT_NEVER, Kafka
from kafka_proxy import (ADD_OFFSETS, END_TXN, FETCH, HEARTBEAT, PRODUCE, TXN_OFFSET_COMMIT,
                         Disturbance, Proxy)
from rig import RigTest

APIS = (PRODUCE, FETCH, HEARTBEAT, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT)
SEED = int(os.environ.get("SEED", 1))


class Network(RigTest):
    @classmethod
    def setUpClass(cls):
        cls.kafka = Kafka(behind_proxy=True)
        cls.addClassCleanup(cls.kafka.stop)
        cls.kafka.start()

    def setUp(self):
        super().setUp()
        self.proxy = Proxy(self.kafka.behind)
        self.addCleanup(self.proxy.close)

    def test_each_kind_of_request_disturbed_in_each_way(self):
        topic = self.topic(4, COMPACT_NEVER)
        work = self.workload(topic, seed=SEED)
        work.load(500)
        sidecar = self.sidecar(topic, {"kafka.bootstrap.servers": self.kafka.proxied_bootstrap})
        sidecar.start().wait_published()
        start = self.kafka.end_offsets(topic)
        ways = [{kind: 0.3} for kind in Disturbance.KINDS] + [{"delay_s": 0.3}]
        for seed, way in enumerate(ways):
            kind = next(iter(way)).removesuffix("_s")
            self.proxy.disturb({api: Disturbance(**way, times=2) for api in APIS}, SEED * 100 + seed)
            while not all(self.proxy.disturbed[api, kind] for api in APIS):
                work.change(20, rate=100)
            self.proxy.disturb({})
        sidecar.wait_published()
        self.assertEqual(sidecar.starts, 1)
        self.assertEqual(self.assert_clean(work, start, sidecar).gap, 0)
        self.assert_snapshot(work, sidecar)
        self.assertFalse(self.kafka.open_transactions(sidecar.notifications_topic))


if __name__ == "__main__":
    unittest.main()
