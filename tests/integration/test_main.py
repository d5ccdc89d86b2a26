"""`sidenote run` from end to end: history is not news, every change is told once and exactly, the
snapshot is the fold of the topic, and none of that depends on how often it dies."""

import random
import time
import unittest

import oracle
from broker import COMPACT_FAST, COMPACT_NEVER
from rig import RigTest
from workload import GroundTruth


class MainTest(RigTest):
    def running(self, topic, options=None, **more):
        """A sidecar that is caught up, and where its news begin: (sidecar, start)."""
        sidecar = self.sidecar(topic, options, **more)
        sidecar.start()
        sidecar.wait_ready()
        sidecar.wait_published()
        return sidecar, self.kafka.end_offsets(topic)

    def loaded(self, keys=1000, config=COMPACT_NEVER, partitions=4, **workload):
        """A topic with history: (topic, workload)."""
        topic = self.topic(partitions, config)
        work = self.workload(topic, **workload)
        work.load(keys)
        work.change(keys // 2)
        return topic, work


class FirstStart(MainTest):
    def test_history_is_not_news(self):
        topic, work = self.loaded()
        sidecar, start = self.running(topic)
        verdict = self.assert_clean(work, start, sidecar)
        self.assertEqual((verdict.expected, verdict.seen), (0, 0))
        self.assert_snapshot(work, sidecar)
        sidecar.term()

    def test_an_empty_topic_is_a_topic(self):
        topic = self.topic()
        work = self.workload(topic)
        sidecar, start = self.running(topic)
        work.load(10)
        work.change({"update": 20, "delete": 5})
        sidecar.wait_published()
        self.assertEqual(self.assert_clean(work, start, sidecar).expected, 25)

    def test_history_is_news_when_asked_for(self):
        topic, work = self.loaded()
        sidecar, _ = self.running(topic, {"notifications.start": "beginning"})
        verdict = self.assert_clean(work, {}, sidecar)
        self.assertGreater(verdict.expected, 100)
        self.assert_snapshot(work, sidecar)

    def test_a_state_is_ready_when_it_is_caught_up(self):
        topic, work = self.loaded()
        sidecar = self.sidecar(topic).start()
        sidecar.wait_ready()
        self.assert_snapshot(work, sidecar)


class Changes(MainTest):
    def test_updates_and_deletes_are_told_with_both_values(self):
        topic, work = self.loaded(not_json=0.05)
        sidecar, start = self.running(topic)
        work.change(5000)
        sidecar.wait_published()
        verdict = self.assert_clean(work, start, sidecar)
        self.assertEqual((verdict.gap, verdict.reconcile), (0, 0))
        self.assert_snapshot(work, sidecar)
        sidecar.term()

    def test_a_steady_stream_is_told_while_it_flows(self):
        topic, work = self.loaded()
        sidecar, start = self.running(topic)
        work.in_background(work.change, 3000, rate=1000)
        work.wait_background()
        sidecar.wait_published(timeout=10)
        self.assert_clean(work, start, sidecar)

    def test_a_complete_changelog_tells_creates_and_rewrites_too(self):
        topic, work = self.loaded()
        sidecar, start = self.running(topic, {
            "notifications.operations": "create,update,delete",
            "notifications.unchanged": "true"})
        work.change(2000)
        sidecar.wait_published()
        self.assert_clean(work, start, sidecar, unchanged=True,
                          operations=("create", "update", "delete"))

    def test_only_deletes_are_told_when_only_they_are_wanted(self):
        topic, work = self.loaded()
        sidecar, start = self.running(topic, {"notifications.operations": "delete"})
        work.change(2000)
        sidecar.wait_published()
        self.assert_clean(work, start, sidecar, operations=("delete",))

    def test_raw_notifications_carry_any_bytes(self):
        topic, work = self.loaded(not_json=0.5)
        sidecar, start = self.running(topic, {"notifications.format": "raw"})
        work.change(2000)
        sidecar.wait_published()
        self.assert_clean(work, start, sidecar, fmt="raw")

    def test_base64_carries_any_bytes(self):
        topic, work = self.loaded(not_json=0.5)
        sidecar, start = self.running(topic, {"notifications.encoding": "base64"})
        work.change(2000)
        sidecar.wait_published()
        self.assert_clean(work, start, sidecar, encoding="base64")

    def test_source_headers_are_kept_and_copied(self):
        topic, work = self.loaded(headers=0.5)
        sidecar, start = self.running(topic, {"state.headers": "all"})
        work.change(2000)
        sidecar.wait_published()
        self.assert_clean(work, start, sidecar)
        self.assert_snapshot(work, sidecar, headers=True)

    def test_every_key_that_kafka_takes_is_a_key(self):
        topic = self.topic()
        work = self.workload(topic)
        keys = [b"", b"\0", b"\0\0", b"\xff" * 8, b"a\nb", b"a" * 478, b"a" * 479, b"a" * 480,
                b"a" * 511, b"a" * 512, b"a" * 5000, b"a" * 479 + b"\0", b"\0" * 479]
        for key in keys:
            work.put(key, b'{"v":1}')
        work.flush()
        sidecar, start = self.running(topic)
        for key in keys:
            work.put(key, b'{"v":2}')
        for key in keys[::2]:
            work.put(key, None)
        work.flush()
        sidecar.wait_published()
        self.assert_clean(work, start, sidecar)
        self.assert_snapshot(work, sidecar)

    def test_what_a_transaction_aborted_never_was(self):
        topic = self.topic(2)
        producer = self.kafka.producer(**{"transactional.id": self.unique("txn")})
        producer.init_transactions(30)
        rng = random.Random(5)

        def transactions(n):
            for i in range(n):
                producer.begin_transaction()
                for _ in range(rng.randrange(1, 6)):
                    key = rng.randrange(20)
                    producer.produce(topic, key=b"k%d" % key, partition=key % 2,
                                     value=b'{"n":%d}' % rng.randrange(1000)
                                     if rng.random() < 0.8 else None)
                producer.flush(30)
                (producer.abort_transaction if i % 3 == 2 else producer.commit_transaction)(30)
            self.wait_stable(topic)

        transactions(20)
        sidecar, start = self.running(topic)
        transactions(40)
        sidecar.wait_published()
        truth = GroundTruth.read_back(self.kafka, topic)
        notes = oracle.read_notifications(self.kafka, sidecar.notifications_topic)
        verdict = oracle.judge(truth, start, notes)
        self.assertTrue(verdict.clean, f"\n{verdict}")
        self.assertGreater(verdict.expected, 10)
        diff = oracle.compare_snapshot(oracle.snapshot_of(sidecar.state_dir), truth.fold())
        self.assertTrue(diff.clean, f"\n{diff}")


class Positions(MainTest):
    def test_a_topic_of_creates_only_has_no_lag(self):
        topic = self.topic()
        work = self.workload(topic)
        sidecar, start = self.running(topic)
        for _ in range(3):
            work.load(500)
            sidecar.wait_published(timeout=10)
        self.assertEqual({p: o for p, (o, _) in sidecar.committed().items()},
                         self.kafka.end_offsets(topic))
        self.assertEqual(self.assert_clean(work, start, sidecar).seen, 0)

    def test_a_restart_goes_on_where_it_was(self):
        topic, work = self.loaded()
        sidecar, start = self.running(topic)
        for _ in range(3):
            work.change(500)
            sidecar.term()
            work.change(500)
            sidecar.start()
            work.change(500)
            sidecar.wait_published()
        verdict = self.assert_clean(work, start, sidecar)
        self.assertEqual(verdict.gap, 0)
        self.assert_snapshot(work, sidecar)

    def test_a_terminated_sidecar_leaves_no_transaction_open(self):
        topic, work = self.loaded()
        sidecar, start = self.running(topic)
        work.in_background(work.change, 20000)
        time.sleep(0.3)
        sidecar.term()
        work.wait_background()
        self.assertEqual(self.kafka.open_transactions(sidecar.notifications_topic), set())
        sidecar.start()
        sidecar.wait_published()
        self.assert_clean(work, start, sidecar)


class Crashes(MainTest):
    def test_ten_kills_lose_and_double_nothing(self):
        topic, work = self.loaded()
        sidecar, start = self.running(topic)
        rng = random.Random(11)
        work.in_background(work.change, 20000, rate=1000)
        for _ in range(10):
            time.sleep(rng.uniform(0.05, 2.5))
            sidecar.kill9()
            sidecar.start()
        work.wait_background()
        sidecar.wait_published()
        verdict = self.assert_clean(work, start, sidecar)
        self.assertEqual(verdict.gap, 0)
        self.assert_snapshot(work, sidecar)

    def test_a_kill_during_the_first_fill_starts_it_anew(self):
        topic, work = self.loaded(keys=50000)
        sidecar = self.sidecar(topic)
        for delay in (0.05, 0.2, 0.4, 0.6):
            sidecar.start()
            time.sleep(delay)
            sidecar.kill9()
        sidecar.start()
        sidecar.wait_published()
        # Whichever of the starts it was that finished the fill, the topic was quiet.
        start = self.kafka.end_offsets(topic)
        work.change(500)
        sidecar.wait_published()
        self.assert_clean(work, start, sidecar)
        self.assert_snapshot(work, sidecar)

    def test_a_lost_state_is_told_as_a_gap(self):
        topic, work = self.loaded()
        sidecar, start = self.running(topic)
        work.change(500)
        sidecar.wait_published()
        sidecar.term()
        work.change(500)
        sidecar.remove_state()
        sidecar.start()
        sidecar.wait_published()
        verdict = self.assert_clean(work, start, sidecar)
        self.assertGreater(verdict.gap, 0)
        self.assert_snapshot(work, sidecar)
        before = verdict.gap
        work.change(500)
        sidecar.wait_published()
        self.assertEqual(self.assert_clean(work, start, sidecar).gap, before)

    def test_a_lost_state_and_a_compacted_topic_are_told_as_a_gap(self):
        # Overwritten records go, tombstones stay: of a key whose value and tombstone are both
        # gone, nobody who lost his state can know that it ever was.
        topic, work = self.loaded(config={**COMPACT_FAST, "delete.retention.ms": "86400000"})
        sidecar, start = self.running(topic)
        sidecar.term()
        work.change(2000)
        self.kafka.force_compaction(topic)
        sidecar.remove_state()
        sidecar.start()
        sidecar.wait_published()
        verdict = self.assert_clean(work, start, sidecar)
        self.assertGreater(verdict.gap, 0)
        self.assertGreater(verdict.coalesced, 0)
        self.assert_snapshot(work, sidecar)


class Compaction(MainTest):
    def unseen_for_good(self, work, since):
        """The offsets that compaction has removed, once it has nothing left to do."""
        unseen = None
        while True:
            now = work.truth.missing_offsets(self.kafka, since=since)
            if now == unseen:
                return unseen
            unseen = now
            time.sleep(1)

    def away(self, passes):
        """What is told of changes that were compacted while the sidecar was away: the Verdict,
        how many deletes could not be read, the sidecar."""
        keep = {"delete.retention.ms": "86400000"} if passes == 1 else {}
        topic, work = self.loaded(config={**COMPACT_FAST, **keep})
        sidecar, start = self.running(topic)
        sidecar.term()
        applied = self.kafka.end_offsets(topic)
        work.change(2000)
        self.kafka.force_compaction(topic, passes)
        unseen = self.unseen_for_good(work, applied)
        purged = sum(r.value is None for p in unseen for r in work.truth.records(p)
                     if r.offset in unseen[p])
        sidecar.start()
        sidecar.wait_published()
        verdict = self.assert_clean(work, start, sidecar, unseen=unseen)
        self.assert_snapshot(work, sidecar)
        return verdict, purged, sidecar

    def test_versions_that_compaction_removed_are_skipped_and_the_rest_is_exact(self):
        verdict, _, _ = self.away(passes=1)
        self.assertGreater(verdict.expected, 0)

    def test_a_delete_whose_tombstone_was_purged_is_told(self):
        verdict, purged, sidecar = self.away(passes=2)
        self.assertGreater(purged, 0)
        self.assertGreater(verdict.reconcile, 0)
        sidecar.term()

    def test_a_paused_sidecar_misses_no_delete_either(self):
        topic, work = self.loaded(config=COMPACT_FAST)
        sidecar, start = self.running(topic)
        applied = self.kafka.end_offsets(topic)
        with sidecar.stopped():
            time.sleep(0.5)  # the fetch that is under way must end before anything is to be read
            work.change(2000)
            self.kafka.force_compaction(topic, passes=2)
            unseen = self.unseen_for_good(work, applied)
        sidecar.wait_published()
        self.assertGreater(self.assert_clean(work, start, sidecar, unseen=unseen).reconcile, 0)
        self.assert_snapshot(work, sidecar)


class Failover(MainTest):
    def test_a_standby_goes_on_where_the_leader_died(self):
        topic, work = self.loaded()
        a, start = self.running(topic)
        b = self.sidecar(topic, name=a.name)
        b.start()
        b.wait_ready()
        work.in_background(work.change, 8000, rate=1000)
        for leader in (a, b):
            time.sleep(2)
            leader.kill9()
            time.sleep(1.5)
            leader.start()
        work.wait_background()
        a.wait_published()
        verdict = self.assert_clean(work, start, a)
        self.assertEqual(verdict.gap, 0)
        for sidecar in (a, b):
            sidecar.wait_ready()
            self.assert_snapshot(work, sidecar)
            sidecar.term()

    def test_a_new_partition_is_read_from_its_beginning(self):
        topic = self.topic(1)
        work = self.workload(topic)
        work.load(100)
        sidecar, start = self.running(topic, {
            "kafka.topic.metadata.refresh.interval.ms": "500"})
        self.kafka.add_partitions(topic, 3)
        self.kafka.add_partitions(sidecar.notifications_topic, 3)
        more = self.workload(topic, seed=2, key_format=b"late-%d")
        more.partition_of = lambda key: 1 + key[-1] % 2
        more.load(100)
        more.change(500)
        sidecar.wait_published(timeout=90)
        for r in list(work.truth.records(0)):
            more.truth.append(0, r.offset, r.key, r.value, r.timestamp)
        self.assert_clean(more, start, sidecar)
        self.assert_snapshot(more, sidecar)


if __name__ == "__main__":
    unittest.main()
