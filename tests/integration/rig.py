"""What the integration tests have in common: one broker for all, names that nobody else uses, and
sidecars that do not outlive their test."""

import atexit
import unittest
import uuid

import oracle
from broker import COMPACT_NEVER, Kafka, wait_until
from sidecar import Sidecar
from workload import Workload

_shared = None


def shared_kafka():
    """The broker of this run. Tests use topics, groups and names of their own in it, and start one
    of their own when they mean to hurt it."""
    global _shared
    if _shared is None:
        _shared = Kafka().start()
        atexit.register(stop_shared_kafka)
    return _shared


def stop_shared_kafka():
    global _shared
    if _shared is not None:
        _shared.stop()
        _shared = None


class RigTest(unittest.TestCase):
    """A test with a broker in self.kafka."""

    kafka = None

    @classmethod
    def setUpClass(cls):
        cls.kafka = shared_kafka()

    def setUp(self):
        self._sidecars = []

    def unique(self, what="topic"):
        """A name for a topic or a pipeline, new with every call."""
        return f"{what}-{self._testMethodName[:60]}-{uuid.uuid4().hex[:6]}"

    def topic(self, partitions=4, config=COMPACT_NEVER, kafka=None):
        return (kafka or self.kafka).create_topic(self.unique(), partitions, config)

    def workload(self, topic, kafka=None, **options):
        return Workload(kafka or self.kafka, topic, **options)

    def wait_stable(self, topic):
        """The markers of all transactions that were ended are written: those who end one do not
        wait for that."""
        wait_until(lambda: not self.kafka.open_transactions(topic), 30, "no transaction is open")

    def sidecar(self, topic, options=None, name=None, kafka=None):
        """A sidecar that is not started yet."""
        sidecar = Sidecar(kafka or self.kafka, name or self.unique("pipe"), topic, options)
        self._sidecars.append(sidecar)
        self.addCleanup(sidecar.close)
        return sidecar

    def evidence(self):
        """Printed by the runner when the test failed, before the cleanup."""
        return "\n".join(s.evidence() for s in getattr(self, "_sidecars", ()))

    # ------------------------------------------------------------ judgement

    def judge(self, work, start, sidecar, **options):
        """The Verdict on everything that the sidecar has published."""
        notes = oracle.read_notifications(self._kafka_of(sidecar), sidecar.notifications_topic)
        return oracle.judge(work.truth, start, notes, name=sidecar.name, **options)

    def assert_clean(self, work, start, sidecar, **options):
        verdict = self.judge(work, start, sidecar, **options)
        self.assertTrue(verdict.clean, f"\n{verdict}")
        return verdict

    def assert_snapshot(self, work, sidecar, **options):
        """The snapshot is the fold of what was written. The topic must be quiet."""
        diff = oracle.compare_snapshot(oracle.snapshot_of(sidecar.state_dir), work.truth.fold(),
                                       **options)
        self.assertTrue(diff.clean, f"\n{diff}")
        return diff

    @staticmethod
    def _kafka_of(sidecar):
        return sidecar.kafka
