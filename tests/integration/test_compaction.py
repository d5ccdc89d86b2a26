"""What compaction does to a log, and that none of it stops the sidecar or makes it tell a lie:
offsets that are not there, ends that are no records, tombstones that nobody can read any more."""

import os
import threading
import time
import unittest

import oracle
from broker import COMPACT_FAST, COMPACT_NEVER, wait_until
from clock import ClockTest
from rig import RigTest
from sidecar import sidenote
from workload import GroundTruth

DAY_MS = 24 * 3600 * 1000
# Overwritten records go at once, tombstones stay for a day.
KEEP_TOMBSTONES = {**COMPACT_FAST, "delete.retention.ms": str(DAY_MS)}


class PlaceHolder:
    """A stranger in a sidecar's group who owns partition 0: nothing is published meanwhile."""

    def __init__(self, kafka, sidecar):
        # "a" sorts before every other member, and the range assignor begins with the first.
        self._consumer = kafka.consumer(**{
            "group.id": sidecar.group, "client.id": "a", "session.timeout.ms": 6000,
            "partition.assignment.strategy": "range"})
        self._stop = threading.Event()
        self._owns = threading.Event()
        self._thread = threading.Thread(target=self._poll, args=(sidecar.source_topic,))

    def _poll(self, topic):
        def assigned(consumer, partitions):
            if any(p.partition == 0 for p in partitions):
                self._owns.set()
            consumer.assign([])
        self._consumer.subscribe([topic], on_assign=assigned)
        while not self._stop.is_set():
            self._consumer.poll(0.05)
        self._consumer.close()

    def __enter__(self):
        self._thread.start()
        if not self._owns.wait(30):
            raise TimeoutError("the place is not held")
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


class CompactionTest(RigTest):
    def loaded(self, keys=1000, config=None, partitions=4, **workload):
        topic = self.topic(partitions, config or COMPACT_FAST)
        work = self.workload(topic, **workload)
        work.load(keys)
        return topic, work

    def running(self, topic, options=None, **more):
        """A sidecar that is caught up, and where its news begin: (sidecar, start)."""
        sidecar = self.sidecar(topic, options, **more)
        sidecar.start()
        sidecar.wait_published()
        return sidecar, self.kafka.end_offsets(topic)

    def settled(self, work, since):
        """The offsets from `since` on that compaction has removed, once it has nothing left to
        do: the cleaner runs on by itself."""
        unseen = None
        while True:
            now = work.truth.missing_offsets(self.kafka, since=since)
            if now == unseen:
                return unseen
            unseen = now
            time.sleep(1)

    def purge(self, work, deletes, updates=0):
        """Deletes and updates keys, each once, and has everything removed that can be: the
        tombstones too. The offsets that nobody can read any more."""
        since = self.kafka.end_offsets(work.topic)
        keys = work.present_keys()
        for key in keys[:deletes]:
            work.put(key, None)
        for key in keys[deletes:deletes + updates]:
            work.put(key, work.new_value())
        work.flush()
        self.kafka.force_compaction(work.topic, passes=2)
        unseen = self.settled(work, since)
        self.assertEqual(sum(map(len, unseen.values())), deletes)
        return unseen

    def due(self, sidecar):
        """Partition numbers in which a round is due."""
        return [p["partition"] for p in sidecar.stat()["partitions"] if p["due"] is not None]

    def rounds(self, sidecar):
        return sidecar.log_text().count("round: done")

    def round_only(self, sidecar):
        done = sidenote("rebuild", "-F", sidecar.config_path, "--round-only", timeout=90)
        self.assertEqual(done.returncode, 0, done.stderr)

    def wait_notes(self, sidecar, n, timeout=20):
        """Gone keys may be told at the end of the log: then no position shows it."""
        wait_until(lambda: sum(1 for _ in self.kafka.read(sidecar.notifications_topic)) >= n,
                   timeout, f"{n} notifications")

    def rounds_begun(self, sidecar):
        return sidecar.log_text().count("round: reading")

    def wait_rounds(self, sidecar, n):
        wait_until(lambda: self.rounds(sidecar) >= n, 30, f"{n} rounds")

    def start_into_round(self, sidecar):
        """Starts a sidecar that was away for too long, until it is amid its round."""
        begun = self.rounds_begun(sidecar)
        sidecar.start()
        wait_until(lambda: self.rounds_begun(sidecar) > begun, 30, "a round", 0.002)


class Gaps(CompactionTest):
    """A log whose offsets do not follow each other: a start on it and a restart."""

    def starts_and_restarts(self, topic, truth=None):
        """Both must become ready; truth: what it holds then, None for what can be read."""
        sidecar, start = self.running(topic)
        fold = (truth or GroundTruth.read_back(self.kafka, topic)).fold()
        self.assert_fold(sidecar, fold)
        sidecar.term()
        sidecar.start()
        sidecar.wait_ready()
        sidecar.wait_published()
        self.assert_fold(sidecar, fold)
        return sidecar, start

    def assert_fold(self, sidecar, fold):
        diff = oracle.compare_snapshot(oracle.snapshot_of(sidecar.state_dir), fold)
        self.assertTrue(diff.clean, f"\n{diff}")

    def writer(self):
        producer = self.kafka.producer(**{"transactional.id": self.unique("txn")})
        producer.init_transactions(30)
        return producer

    def test_a_log_whose_head_is_compacted_away(self):
        topic, work = self.loaded()
        work.change({"update": 5000})
        self.kafka.force_compaction(topic)
        self.assertGreater(min(m.offset() for m in self.kafka.read(topic, 0)), 0)
        sidecar, start = self.starts_and_restarts(topic)
        work.change(500)
        sidecar.wait_published()
        self.assert_clean(work, start, sidecar)

    def test_partitions_that_are_empty(self):
        topic = self.topic(4, COMPACT_NEVER)
        work = self.workload(topic)
        work.partition_of = lambda key: 1
        work.load(100)
        sidecar, start = self.starts_and_restarts(topic)
        work.partition_of = lambda key: int(key[-3:]) % 4 if int(key[-8:]) >= 100 else 1
        work.load(100)
        work.change({"update": 200, "delete": 20})
        sidecar.wait_published()
        self.assertEqual(self.assert_clean(work, start, sidecar).expected, 220)

    def test_a_log_that_ends_in_control_records(self):
        topic = self.topic(1, COMPACT_NEVER)
        producer = self.writer()
        for end in (producer.commit_transaction, producer.abort_transaction,
                    producer.abort_transaction):
            producer.begin_transaction()
            for i in range(10):
                producer.produce(topic, key=b"k%d" % i, value=os.urandom(20))
            producer.flush(30)
            end(30)
        self.wait_stable(topic)
        last = max(m.offset() for m in self.kafka.read(topic))
        self.assertGreater(self.kafka.end_offsets(topic)[0], last + 12)
        self.starts_and_restarts(topic)

    def test_a_log_of_nothing_but_aborted_records(self):
        topic = self.topic(1, COMPACT_NEVER)
        producer = self.writer()
        producer.begin_transaction()
        producer.produce(topic, key=b"k", value=b"never was")
        producer.flush(30)
        producer.abort_transaction(30)
        self.wait_stable(topic)
        self.starts_and_restarts(topic)

    def test_a_transaction_that_hangs_and_ends(self):
        topic, work = self.loaded(keys=100, config=COMPACT_NEVER, partitions=1)
        producer = self.writer()
        key, old = next(iter(work.truth.fold().items()))
        producer.begin_transaction()
        producer.produce(topic, key=key, value=b'{"in":"a transaction"}', partition=0)
        producer.flush(30)
        # Behind it: written, not to be read before the transaction ends.
        for k in work.present_keys()[1:50]:
            work.put(k, None)
        work._producer.flush(30)
        sidecar, start = self.starts_and_restarts(topic)
        self.assertEqual(self.kafka.open_transactions(topic), {0})
        self.assertEqual(start[0], 100)
        self.assertEqual(sidecar.stat()["keys"], 100)
        producer.commit_transaction(30)
        self.wait_stable(topic)
        sidecar.wait_published()
        truth = GroundTruth.read_back(self.kafka, topic)
        verdict = self.judge_truth(truth, start, sidecar)
        self.assertEqual(verdict.expected, 50)
        self.assert_fold(sidecar, truth.fold())

    def test_a_round_and_a_rebuild_while_a_transaction_hangs(self):
        topic, work = self.loaded(keys=100, config=COMPACT_NEVER, partitions=2)
        sidecar, start = self.running(topic)
        producer = self.writer()
        producer.begin_transaction()
        producer.produce(topic, key=work.present_keys()[0], value=b"{}", partition=0)
        producer.flush(30)
        for k in work.present_keys()[1:50]:  # behind it, where it is in partition 0
            work.put(k, None)
        work._producer.flush(30)
        self.assertEqual(self.kafka.open_transactions(topic), {0})
        self.round_only(sidecar)
        done = sidenote("rebuild", "-F", sidecar.config_path, timeout=90)
        self.assertEqual(done.returncode, 0, done.stderr)
        sidecar.wait_ready()
        producer.abort_transaction(30)
        self.wait_stable(topic)
        sidecar.wait_published()
        truth = GroundTruth.read_back(self.kafka, topic)
        self.assertEqual(self.judge_truth(truth, start, sidecar).expected, 49)
        self.assert_fold(sidecar, truth.fold())

    def judge_truth(self, truth, start, sidecar, **options):
        notes = oracle.read_notifications(self.kafka, sidecar.notifications_topic)
        verdict = oracle.judge(truth, start, notes, **options)
        self.assertTrue(verdict.clean, f"\n{verdict}")
        return verdict

    def test_a_log_of_tombstones_only(self):
        topic, work = self.loaded(keys=200, config=KEEP_TOMBSTONES)
        for key in work.present_keys():
            work.put(key, None)
        work.flush()
        self.kafka.force_compaction(topic)
        values = [m.value() for m in self.kafka.read(topic)]
        self.assertEqual(values, [None] * 200)
        sidecar, start = self.starts_and_restarts(topic)
        work.load(10)
        work.change({"update": 10})
        sidecar.wait_published()
        self.assertEqual(self.assert_clean(work, start, sidecar).expected, 10)

    def test_a_log_of_which_everything_was_removed(self):
        topic, work = self.loaded(keys=200)
        for key in work.present_keys():
            work.put(key, None)
        work.flush()
        self.kafka.force_compaction(topic, passes=2)
        self.settled(work, {})
        self.assertEqual(list(self.kafka.read(topic)), [])
        self.assertGreater(self.kafka.end_offsets(topic)[0], 0)
        sidecar, start = self.starts_and_restarts(topic)
        work.load(10)
        work.change({"update": 10})
        sidecar.wait_published()
        self.assertEqual(self.assert_clean(work, start, sidecar).expected, 10)

    def test_a_position_behind_which_everything_was_removed(self):
        topic, work = self.loaded(keys=200)
        sidecar, start = self.running(topic)
        sidecar.term()
        unseen = self.purge(work, deletes=200)
        self.assertEqual(list(self.kafka.read(topic)), [])
        sidecar.start()
        sidecar.wait_published()
        self.assertEqual(self.assert_clean(work, start, sidecar, unseen=unseen).reconcile, 200)
        self.assert_snapshot(work, sidecar)


class Rounds(CompactionTest):
    """When a round is due, and what it tells."""

    def test_nothing_was_purged_nothing_is_told(self):
        topic, work = self.loaded(config=COMPACT_NEVER)
        sidecar, start = self.running(topic)
        sidecar.term()
        work.change(500)
        sidecar.start()
        sidecar.wait_published()
        self.assertEqual(self.assert_clean(work, start, sidecar).reconcile, 0)
        self.assertNotIn("round:", sidecar.log_text())

    def test_gone_keys_changed_keys_and_live_writes(self):
        topic, work = self.loaded(keys=2000)
        sidecar, start = self.running(topic)
        sidecar.term()
        unseen = self.purge(work, deletes=500, updates=500)
        sidecar.start()
        work.change({"update": 300, "recreate": 100, "delete": 50}, rate=500)
        sidecar.wait_published()
        verdict = self.assert_clean(work, start, sidecar, unseen=unseen)
        self.assertGreater(verdict.reconcile, 350)
        self.assert_snapshot(work, sidecar)

    def test_a_sidecar_with_a_round_to_do_does_not_lead(self):
        topic, work = self.loaded(keys=2000)
        sidecar, start = self.running(topic)
        sidecar.term()
        unseen = self.purge(work, deletes=100)
        sidecar.start()
        seen = set()
        while not sidecar.published():
            stat = sidecar.stat()
            if stat:
                seen.add((any(p["due"] is not None for p in stat["partitions"]), stat["role"]))
        self.assertNotIn((True, "leader"), seen)
        self.assertEqual(self.assert_clean(work, start, sidecar, unseen=unseen).reconcile, 100)

    def test_off_looks_for_nothing_until_it_is_asked(self):
        topic, work = self.loaded()
        sidecar, start = self.running(topic, {"reconcile": "off"})
        sidecar.term()
        unseen = self.purge(work, deletes=100)
        sidecar.start()
        sidecar.wait_ready()
        sidecar.wait_published()
        self.assertEqual(sidecar.stat()["keys"], 1000)
        self.assertNotIn("round:", sidecar.log_text())
        self.round_only(sidecar)
        self.wait_notes(sidecar, 100)
        self.assertEqual(self.assert_clean(work, start, sidecar, unseen=unseen).reconcile, 100)
        self.assert_snapshot(work, sidecar)

    def test_always_looks_once_at_every_start(self):
        topic, work = self.loaded(config=COMPACT_NEVER)
        sidecar, start = self.running(topic, {"reconcile": "always"})
        self.assertEqual(self.rounds(sidecar), 1)
        work.change(100)
        sidecar.wait_published()
        self.assertEqual(self.rounds(sidecar), 1)
        sidecar.term()
        sidecar.start()
        self.wait_rounds(sidecar, 2)
        sidecar.wait_published()
        self.assertEqual(self.assert_clean(work, start, sidecar).reconcile, 0)

    def test_a_round_may_be_asked_for_at_any_time(self):
        topic, work = self.loaded(config=COMPACT_NEVER)
        sidecar, start = self.running(topic)
        for _ in range(3):
            work.in_background(work.change, 500, rate=500)
            self.round_only(sidecar)
            work.wait_background()
        sidecar.wait_published()
        self.assertEqual(self.assert_clean(work, start, sidecar).reconcile, 0)
        self.assert_snapshot(work, sidecar)

    def test_a_fill_that_took_too_long_is_followed_by_a_round(self):
        topic, work = self.loaded(keys=100_000, config={**KEEP_TOMBSTONES,
                                                        "delete.retention.ms": "2000"})
        sidecar = self.sidecar(topic).start()
        while "filled from" not in sidecar.log_text():  # it gets a thirtieth of a core
            with sidecar.stopped():
                time.sleep(0.3)
            time.sleep(0.01)
        sidecar.wait_log("round: done")
        sidecar.wait_published()
        self.assert_snapshot(work, sidecar)

    def test_a_smaller_retention_counts_from_the_next_start_on(self):
        topic, work = self.loaded(config=KEEP_TOMBSTONES)
        sidecar, start = self.running(topic)
        sidecar.term()
        self.kafka.alter_config(topic, {"delete.retention.ms": "0"})
        unseen = self.purge(work, deletes=100)
        sidecar.start()
        sidecar.wait_published()
        self.assertEqual(self.assert_clean(work, start, sidecar, unseen=unseen).reconcile, 100)
        # And it counts for ever: it may have purged already.
        sidecar.term()
        self.kafka.alter_config(topic, {"delete.retention.ms": str(DAY_MS)})
        before = self.rounds(sidecar)
        sidecar.start()
        self.wait_rounds(sidecar, before + 1)


class RoundsInterrupted(CompactionTest):
    def test_away_again_before_the_round_was_done(self):
        # What was written between the two absences did not concern the first round.
        topic, work = self.loaded(keys=500, partitions=1)
        sidecar, start = self.running(topic)
        sidecar.term()
        since = self.kafka.end_offsets(topic)
        self.purge(work, deletes=100)
        begin = self.kafka.end_offsets(topic)[0]
        work.load(300)
        end = self.kafka.end_offsets(topic)[0]
        self.start_into_round(sidecar)
        sidecar.kill9()
        self.assertEqual(self.due(sidecar), [0])
        for key in work.present_keys()[-300:]:
            work.put(key, None)
        work.flush()
        self.kafka.force_compaction(topic, passes=2)
        # The creates of the 300 were read, before they were gone.
        unseen = {0: self.settled(work, since)[0].difference(range(begin, end))}
        sidecar.start()
        sidecar.wait_published()
        self.wait_notes(sidecar, 400)
        self.assert_snapshot(work, sidecar)
        self.assertEqual(self.assert_clean(work, start, sidecar, unseen=unseen).reconcile, 400)

    def test_partitions_are_added_while_a_round_is_due(self):
        topic, work = self.loaded(keys=500, partitions=1)
        sidecar, start = self.running(topic)
        sidecar.term()
        unseen = self.purge(work, deletes=100)
        self.start_into_round(sidecar)
        sidecar.kill9()
        self.assertEqual(self.due(sidecar), [0])
        self.kafka.add_partitions(topic, 3)
        self.kafka.add_partitions(sidecar.notifications_topic, 3)
        more = self.workload(topic, seed=2, key_format=b"late-%d")
        more.partition_of = lambda key: 1 + key[-1] % 2
        more.load(100)
        more.change({"update": 200})
        sidecar.start()
        sidecar.wait_published()
        self.wait_notes(sidecar, 300)
        for r in list(work.truth.records(0)):
            more.truth.append(0, r.offset, r.key, r.value, r.timestamp)
        self.assert_snapshot(more, sidecar)
        self.assertEqual(self.assert_clean(more, start, sidecar, unseen=unseen).reconcile, 100)

    def test_paused_during_the_round(self):
        topic, work = self.loaded(keys=500, partitions=1)
        sidecar, start = self.running(topic)
        sidecar.term()
        self.purge(work, deletes=100)
        work.load(300)
        done = self.rounds(sidecar)
        self.start_into_round(sidecar)
        with sidecar.stopped():
            self.assertEqual(self.due(sidecar), [0])
            time.sleep(0.5)
            for key in work.present_keys()[-300:]:
                work.put(key, None)
            work.flush()
            self.kafka.force_compaction(topic, passes=2)
            self.settled(work, {})
        self.wait_rounds(sidecar, done + 1)
        sidecar.wait_published()
        time.sleep(3)
        self.assert_snapshot(work, sidecar)


class Backlogs(CompactionTest):
    def test_a_round_after_more_than_the_journal_takes(self):
        topic, work = self.loaded(keys=2000)
        sidecar, start = self.running(topic, {"journal.max.bytes": "1MiB"})
        sidecar.term()
        unseen = self.purge(work, deletes=100)
        # From here on nothing is cleaned any more.
        self.kafka.alter_config(topic, {"min.compaction.lag.ms": str(DAY_MS)})
        work.change({"update": 20000})
        sidecar.start()
        sidecar.wait_published()
        self.assert_clean(work, start, sidecar, unseen=unseen)
        self.assert_snapshot(work, sidecar)


class Rebuilds(CompactionTest):
    def rebuild(self, sidecar):
        return sidenote("rebuild", "-F", sidecar.config_path, timeout=90)

    def test_a_rebuild_while_the_tail_is_behind(self):
        # What the log has lost by a record that the tail has not read yet is still to be told.
        topic, work = self.loaded(config=KEEP_TOMBSTONES)
        sidecar, start = self.running(topic, {"journal.max.bytes": "1MiB", "reconcile": "off"})
        notes = sidecar.notifications_topic
        keys = work.present_keys()
        old = {k: s.value for k, s in work.truth.fold().items() if k in set(keys[500:])}
        asker = threading.Thread(target=self.rebuild, args=(sidecar,))
        with PlaceHolder(self.kafka, sidecar):
            for _ in range(20):
                for key in keys[:500]:
                    work.put(key, work.new_value())
            work.flush()
            sidecar.wait_log("SN-JOURNAL-FULL")
            time.sleep(1)
            read = {p["partition"]: p["applied"] for p in sidecar.stat()["partitions"]}
            for key in keys[500:]:
                work.put(key, work.new_value())
            work.flush()
            self.kafka.force_compaction(topic)
            asker.start()
            time.sleep(3)
            self.assertEqual(read, {p["partition"]: p["applied"]
                                    for p in sidecar.stat()["partitions"]})
        asker.join()
        self.assertIn("the new generation is current", sidecar.log_text())
        sidecar.wait_published()
        self.assert_snapshot(work, sidecar)
        # Which versions of the others were fetched before they were gone, nobody knows.
        told = [oracle.understand(n, topic) for n in
                oracle.read_notifications(self.kafka, notes) if n.key in old]
        self.assertEqual(sorted(t.note.key for t in told), sorted(old))
        for t in told:
            self.assertEqual(t.op, "u")
            self.assertTrue(t.before.is_value(old[t.note.key]), t)

    def test_a_round_that_becomes_due_while_the_new_generation_is_filled(self):
        # A small queue: else what is to be purged was fetched before.
        topic, work = self.loaded(keys=15000)
        sidecar, start = self.running(topic, {"consumer.queued.max.messages.kbytes": "256",
                                              "consumer.fetch.message.max.bytes": "65536"})
        keys = work.present_keys()
        asker = threading.Thread(target=self.rebuild, args=(sidecar,))
        done = self.rounds(sidecar)
        asker.start()
        self.wait_rounds(sidecar, done + 1)
        with sidecar.stopped():
            time.sleep(0.5)
            for key in keys[-500:]:
                work.put(key, None)
            work.flush()
            self.kafka.force_compaction(topic, passes=2)
            unseen = self.settled(work, start)
        asker.join()  # whether it refuses or succeeds is a matter of moments
        sidecar.wait_published()
        self.wait_notes(sidecar, 500)
        self.assert_snapshot(work, sidecar)
        self.assertEqual(self.assert_clean(work, start, sidecar, unseen=unseen).reconcile, 500)


class Clocks(ClockTest, CompactionTest):
    FOUR_HOURS = {**COMPACT_NEVER, "delete.retention.ms": str(DAY_MS // 6)}

    def test_a_clock_that_jumps_stops_nothing(self):
        topic, work = self.loaded(config=self.FOUR_HOURS)
        sidecar = self.sidecar(topic)
        self.start(sidecar)
        sidecar.wait_published()
        start = self.kafka.end_offsets(topic)
        for hours in (0, 10, -10, 20, 0):
            self.clock.set(hours * 3600)
            for _ in range(3):
                work.change(100)
                sidecar.wait_published()
                time.sleep(0.3)
        self.assertIn("was last read to its end 36", sidecar.log_text())  # thousand seconds
        self.assertEqual(self.assert_clean(work, start, sidecar).reconcile, 0)
        self.assert_snapshot(work, sidecar)
        sidecar.term()

    def test_a_start_with_another_clock(self):
        topic, work = self.loaded(config=self.FOUR_HOURS)
        sidecar, start = self.running(topic)
        for hours in (10, -10, 20, 0):
            sidecar.term()
            work.change(100)
            self.clock.set(hours * 3600)
            self.start(sidecar)
            work.change(100)
            sidecar.wait_published()
        self.assertEqual(self.assert_clean(work, start, sidecar).reconcile, 0)
        self.assert_snapshot(work, sidecar)

    def test_a_clock_that_went_back_hides_no_absence(self):
        topic, work = self.loaded(config=COMPACT_FAST)
        sidecar, start = self.running(topic)
        sidecar.term()
        unseen = self.purge(work, deletes=100)
        self.clock.set(-10 * 3600)
        self.start(sidecar)
        sidecar.wait_published()
        self.assertEqual(self.assert_clean(work, start, sidecar, unseen=unseen).reconcile, 100)
        self.assert_snapshot(work, sidecar)

    def test_a_smaller_retention_is_noticed_while_running(self):
        # It looks every three minutes; the clock makes them pass.
        topic, work = self.loaded(config=KEEP_TOMBSTONES)
        sidecar = self.sidecar(topic)
        self.start(sidecar)
        sidecar.wait_published()
        start = self.kafka.end_offsets(topic)
        self.kafka.alter_config(topic, {"delete.retention.ms": "0"})
        self.clock.set(0, monotonic_s=200)
        sidecar.wait_log("delete.retention.ms of ")
        work.change(10)
        sidecar.wait_published()
        applied = self.kafka.end_offsets(topic)
        with sidecar.stopped():
            time.sleep(0.5)
            unseen = self.purge(work, deletes=100)
        sidecar.wait_published()
        self.wait_notes(sidecar, 100)
        self.assertEqual(set(unseen), set(applied))
        self.assertEqual(self.assert_clean(work, start, sidecar, unseen=unseen).reconcile, 100)
        self.assert_snapshot(work, sidecar)


class TwoSidecars(CompactionTest):
    """Sidecars of one name that were away, each since another moment."""

    def two(self, topic, options=None):
        """A leader and a standby that are caught up: (leader, standby, start)."""
        a, start = self.running(topic, options)
        b = self.sidecar(topic, options, name=a.name).start()
        b.wait_ready()
        roles = ["leader", "standby"]
        wait_until(lambda: sorted(s.stat()["role"] for s in (a, b)) == roles, 30, "two roles")
        time.sleep(1)
        wait_until(lambda: sorted(s.stat()["role"] for s in (a, b)) == roles, 30, "two roles")
        return *sorted((a, b), key=lambda s: s.stat()["role"]), start

    def apart(self, first, options=None, notes_partitions=4, judge=None, **workload):
        """One stops, changes are published, the other stops, deletes are purged; which of them
        comes back first?"""
        topic, work = self.loaded(keys=2000, **workload)
        self.kafka.create_topic(f"{topic}.changes", notes_partitions)
        early, late, start = self.two(topic, options)
        early.term()
        keys = work.present_keys()[400:700]  # of the first 500 the tombstones will be purged
        for key in keys[:200]:
            work.put(key, work.new_value())
        for key in keys[200:]:
            work.put(key, None)
        work.flush()
        late.wait_published()
        late.term()
        unseen = self.purge(work, deletes=500)
        one, other = (early, late) if first == "early" else (late, early)
        for s in (one, other):
            done = self.rounds(s)
            s.start()
            self.wait_rounds(s, done + 1)
            s.wait_published()
        one.kill9()
        wait_until(lambda: other.stat()["role"] == "leader", 30, "a leader")
        other.wait_published()
        time.sleep(1)
        self.assert_snapshot(work, other)
        verdict = self.assert_clean(work, start, other, unseen=unseen, **(judge or {}))
        self.assertEqual(verdict.reconcile, 500)

    def test_whoever_stopped_last_comes_back_first(self):
        self.apart("late")

    # What the other has told meanwhile is read back: deletes among the gone keys, and old values.
    def test_whoever_stopped_first_comes_back_first(self):
        self.apart("early")

    def test_the_same_with_notifications_in_another_format_and_by_key(self):
        self.apart("early", {"notifications.format": "raw"}, notes_partitions=3, not_json=0.5,
                   judge={"fmt": "raw", "notification_partitions": 3})


if __name__ == "__main__":
    unittest.main()
