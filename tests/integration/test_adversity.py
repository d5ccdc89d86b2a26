"""Brokers that stop, topics that cannot be written to, sidecars that hang, die and hand over: every
change is told exactly once all the same, and both snapshots of a pair are the fold of the topic.

Short versions; tests/prove has those of the stated size."""

import contextlib
import random
import time
import unittest

import oracle
from broker import COMPACT_NEVER, Kafka, wait_until
from rig import RigTest

# What ends a process that cannot wait: the service manager starts it again.
STUCK = ("SN-PUBLISHER-STUCK", "SN-KAFKA-STUCK")
# Users' session timeout, not the rig's of a second.
REAL_SESSION = {"consumer.session.timeout.ms": None, "consumer.heartbeat.interval.ms": None}


class Adversity(RigTest):
    def running(self, options=None, keys=1000, partitions=4, **workload):
        """(topic, workload, sidecar that is caught up, where its news begin)."""
        topic = self.topic(partitions)
        work = self.workload(topic, **workload)
        work.load(keys)
        sidecar = self.sidecar(topic, options).start()
        sidecar.wait_ready()
        sidecar.wait_published()
        return topic, work, sidecar, self.kafka.end_offsets(topic)

    def standby(self, leader, options=None):
        sidecar = self.sidecar(leader.source_topic, options, name=leader.name).start()
        sidecar.wait_ready()
        return sidecar

    def exact(self, work, start, *sidecars):
        """Everything is told exactly, and every snapshot is the fold."""
        sidecars[0].wait_published(timeout=120)
        verdict = self.assert_clean(work, start, sidecars[0])
        self.assertEqual(verdict.gap, 0)
        for sidecar in sidecars:
            self.assert_equal(work, sidecar)
        return verdict

    def assert_equal(self, work, sidecar):
        """A standby publishes nothing that could be waited for."""
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: oracle.compare_snapshot(oracle.snapshot_of(sidecar.state_dir),
                                                       work.truth.fold()).clean, 20, "equal")
        self.assert_snapshot(work, sidecar)

    def keep_alive(self, sidecar, until, timeout=120):
        """As a service manager: start it again when it ended because a call did not return, and
        for no other reason, until until() is true."""
        deadline = time.monotonic() + timeout
        while not until():
            if not sidecar.alive():
                self.assertEqual(sidecar.process.returncode, 3, sidecar.evidence())
                self.assertTrue(any(i in sidecar.log_text() for i in STUCK), sidecar.evidence())
                sidecar.start()
            if time.monotonic() > deadline:
                self.fail(f"not within {timeout} s\n{sidecar.evidence()}")
            time.sleep(0.1)

    @staticmethod
    def leads(sidecar):
        stat = sidecar.stat()
        return bool(stat) and stat.get("role") == "leader"


class KafkaWithReplica(Kafka):
    """Two brokers, the second of which is no controller: without it the first goes on alone, but
    a topic that wants both in sync cannot be written to. (Of a topic with one replica Kafka wants
    no more than one, whatever min.insync.replicas says.)"""

    def __init__(self, **options):
        super().__init__(2, **options)

    def _properties(self, broker):
        properties = super()._properties(broker)
        properties["controller.quorum.voters"] = f"1@127.0.0.1:{self._brokers[0].quorum_port}"
        if broker.node != 1:
            properties["process.roles"] = "broker"
            properties["listeners"] = f"PLAINTEXT://127.0.0.1:{broker.port}"
        return properties

    def create_unwritable_topic(self, name, partitions):
        """Unwritable while the replica is away."""
        return self.create_topic(name, partitions, {"min.insync.replicas": 2}, replication=2)


class HeldUp:
    """For a RigTest: notifications that cannot be written, while the replica is away."""

    @classmethod
    def setUpClass(cls):
        cls.kafka = KafkaWithReplica()
        cls.addClassCleanup(cls.kafka.stop)
        cls.kafka.start()

    def held_up(self):
        """(workload, sidecar, start): its notification topic cannot be written to, its journal is
        full, and there is more to read."""
        topic = self.topic(4)
        work = self.workload(topic, value_bytes=500)
        work.load(1000)
        sidecar = self.sidecar(topic, {"journal.max.bytes": "1MiB"})
        self.kafka.create_unwritable_topic(sidecar.notifications_topic, 4)
        sidecar.start()
        sidecar.wait_ready()
        sidecar.wait_published()
        start = self.kafka.end_offsets(topic)
        self.kafka.kill(1)
        self.addCleanup(self.replica_back)
        wait_until(lambda: len(self.kafka.leaders(topic)) == 4
                   and set(self.kafka.leaders(topic).values()) == {1}, 30, "the first leads all")
        work.change(8000)
        sidecar.wait_log("SN-JOURNAL-FULL", timeout=60)
        return work, sidecar, start

    def replica_back(self):
        if not self.kafka.alive(1):
            self.kafka.restart(1)


class BackPressure(HeldUp, Adversity):
    def held_up(self):
        held = super().held_up()
        time.sleep(2)
        return held

    def test_a_topic_that_cannot_be_written_to_holds_the_tail_up_and_nobody_else(self):
        work, sidecar, start = self.held_up()
        before, rss = oracle.snapshot_of(sidecar.state_dir), sidecar.rss_bytes()
        sidecar.wait_log("SN-PUBLISH-FAILING", timeout=60)
        # Readers see a snapshot that stands still and is in use; the tail waits, and is alive.
        self.assertEqual(oracle.snapshot_of(sidecar.state_dir), before)
        self.assertLess(sidecar.stat()["heartbeat_age_ms"], 3000)
        self.assertNotEqual({k: s.value for k, s in before.items()},
                            {k: s.value for k, s in work.truth.fold().items()})
        self.assertLess(sidecar.rss_bytes(), rss + (16 << 20))
        self.assertFalse(sidecar.published())
        self.replica_back()
        self.exact(work, start, sidecar)
        self.assertIn("the journal is below its limit again", sidecar.log_text())
        sidecar.term()

    def test_a_kill_while_the_tail_waits_loses_nothing(self):
        work, sidecar, start = self.held_up()
        sidecar.kill9()
        sidecar.start()
        time.sleep(3)
        self.assertFalse(sidecar.published())
        self.replica_back()
        self.exact(work, start, sidecar)
        sidecar.term()


class Brokers(Adversity):
    @classmethod
    def setUpClass(cls):
        cls.kafka = Kafka()
        cls.addClassCleanup(cls.kafka.stop)
        cls.kafka.start()

    def under_load(self, hurt):
        """hurt() while changes come and transactions are open."""
        topic, work, sidecar, start = self.running(REAL_SESSION)
        work.in_background(work.change, 12000, rate=1000)
        time.sleep(3)
        hurt()
        self.keep_alive(sidecar, lambda: not any(t.is_alive() for t, _ in work._threads))
        work.wait_background()
        ends = self.kafka.end_offsets(topic)
        self.keep_alive(sidecar, lambda: sidecar.alive() and sidecar.published(ends))
        self.exact(work, start, sidecar)
        sidecar.term()

    def test_a_broker_that_stands_still_for_15_seconds(self):
        def pause():
            self.kafka.pause()
            time.sleep(15)
            self.kafka.resume()
        self.under_load(pause)

    def test_a_broker_that_is_killed_and_comes_back(self):
        def kill():
            self.kafka.kill()
            time.sleep(2)
            self.kafka.restart()
        self.under_load(kill)


class Hanging(Adversity):
    def test_a_sidecar_that_hangs_beyond_its_session_goes_on(self):
        _, work, sidecar, start = self.running()
        work.in_background(work.change, 8000, rate=1000)
        for pause in (2, 4):
            time.sleep(1)
            with sidecar.stopped():
                time.sleep(pause)
        work.wait_background()
        self.exact(work, start, sidecar)
        sidecar.term()

    def test_a_leader_that_hangs_is_replaced_and_does_not_tell_twice_when_it_wakes_up(self):
        _, work, leader, start = self.running()
        other = self.standby(leader)
        work.in_background(work.change, 10000, rate=1000)
        for sidecar, successor in ((leader, other), (other, leader)):
            wait_until(lambda s=sidecar: self.leads(s), 20, "the one leads")
            with sidecar.stopped():
                wait_until(lambda s=successor: self.leads(s), 20, "the other leads")
                time.sleep(1)
        work.wait_background()
        self.exact(work, start, leader, other)
        for sidecar in (leader, other):
            sidecar.term()


class Pairs(Adversity):
    def test_a_leader_that_is_killed_is_replaced_and_both_snapshots_are_the_fold(self):
        _, work, a, start = self.running()
        b = self.standby(a)
        rng = random.Random(3)
        work.in_background(work.change, 12000, rate=1000)
        for _ in range(4):
            time.sleep(rng.uniform(0.2, 1.5))
            wait_until(lambda: self.leads(a) or self.leads(b), 20, "one of them leads")
            leader, other = (a, b) if self.leads(a) else (b, a)
            leader.kill9()
            wait_until(lambda s=other: self.leads(s), 20, "the other leads")
            leader.start()
        work.wait_background()
        self.exact(work, start, a, b)
        for sidecar in (a, b):
            sidecar.term()

    def test_a_leader_that_is_terminated_hands_over_at_once(self):
        # With users' session timeout: whoever waited for that would take 6 s and more.
        topic, work, a, start = self.running(REAL_SESSION)
        b = self.standby(a, REAL_SESSION)
        work.in_background(work.change, 8000, rate=1000)
        for leader, other in ((a, b), (b, a), (a, b)):
            wait_until(lambda s=leader: self.leads(s), 20, "it leads")
            begin = time.monotonic()
            leader.term()
            ends = self.kafka.end_offsets(topic)
            other.wait_published(ends, timeout=10)
            self.assertLess(time.monotonic() - begin, 5)
            leader.start()
            leader.wait_ready()
        work.wait_background()
        self.exact(work, start, a, b)
        for sidecar in (a, b):
            sidecar.term()

    @contextlib.contextmanager
    def nobody_is_elected(self, sidecar):
        """A member of the group that does not answer when there is an election to be held."""
        member = self.kafka.consumer(
            group_id=sidecar.group, client_id="zz: never the first",
            partition_assignment_strategy="range", session_timeout_ms=120000,
            max_poll_interval_ms=120000, heartbeat_interval_ms=200)
        assigned = []

        def on_assign(consumer, partitions):
            assigned.append(partitions)
            consumer.assign([])

        member.subscribe([sidecar.source_topic], on_assign=on_assign)
        wait_until(lambda: member.poll(0.1) or assigned, 30, "a member of the group")
        try:
            yield
        finally:
            member.close()

    @staticmethod
    def wait_roles(*sidecars):
        wait_until(lambda: sorted(s.stat()["role"] for s in sidecars) == ["leader", "standby"],
                   20, "a leader and a standby")

    @staticmethod
    def elections(*sidecars):
        return sum(s.log_text().count(f"leading {s.group}, generation") for s in sidecars)

    def test_a_leader_that_comes_back_goes_on_before_anybody_is_elected(self):
        _, work, a, start = self.running()
        b = self.standby(a)
        self.wait_roles(a, b)
        with self.nobody_is_elected(a):
            self.wait_roles(a, b)
            leader, other = (a, b) if self.leads(a) else (b, a)
            elections = self.elections(a, b)
            work.change(200)
            leader.kill9()
            work.change(200)
            leader.start()
            leader.wait_published(timeout=30)
            wait_until(lambda: leader.stat()["role"] == "leader, resumed", 20, "its role")
            self.assertEqual(self.elections(a, b), elections)
        wait_until(lambda: self.elections(a, b) > elections, 30, "an election")
        work.change(200)
        leader.kill9()
        wait_until(lambda: self.leads(other), 20, "the other leads")
        self.exact(work, start, other)
        other.term()

    def test_every_end_by_a_signal_is_a_clean_one(self):
        _, work, sidecar, start = self.running({"state.lease.ms": "100"})
        rng = random.Random(7)
        work.in_background(work.change, 8000, rate=500)
        for _ in range(10):
            time.sleep(rng.uniform(0.05, 1.5))
            sidecar.term()
            sidecar.start()
        work.wait_background()
        self.exact(work, start, sidecar)
        sidecar.term()


if __name__ == "__main__":
    unittest.main()
