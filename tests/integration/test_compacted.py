"""Notifications of physical compaction (notifications.compacted.topic), on the real cleaner: each
overwritten record is told once, when it cannot be fetched any more, in the order in which they were
superseded."""

import time
import urllib.request

import gone
from broker import COMPACT_FAST, COMPACT_NEVER, free_port, wait_until
from rig import RigTest
from sidecar import sidenote


DAY_MS = 24 * 3600 * 1000


class Compacted(RigTest):
    def running(self, partitions=2, config=COMPACT_FAST, options=None, keys=50, name=None):
        topic = self.topic(partitions, config)
        work = self.workload(topic)
        work.load(keys)
        sidecar = self.with_compacted(topic, options, name)
        sidecar.start()
        sidecar.wait_published()
        return topic, work, sidecar

    def with_compacted(self, topic, options=None, name=None):
        return self.sidecar(topic, {"notifications.compacted.topic": f"{topic}.gone",
                                    "notifications.compacted.probes": "200",
                                    "http.listen": f"127.0.0.1:{free_port()}",
                                    **(options or {})}, name)

    def metric(self, sidecar, name):
        url = f"http://{sidecar.options['http.listen']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(name + "{") or line.startswith(name + " "):
                    return float(line.rsplit(" ", 1)[1])
        return None

    def overwrite(self, work, rounds=3):
        """Every key that often: updates, the same bytes again, deletes, and writes after those."""
        for _ in range(rounds):
            keys = work.present_keys()
            for i, key in enumerate(keys):
                if i % 10 == 0:
                    work.put(key, None)
                elif i % 10 == 1:
                    work.put(key, work._present[key])
                else:
                    work.put(key, work.new_value())
            for key in keys[::20]:
                work.put(key, work.new_value())
            work.flush()

    def told(self, topic):
        return gone.read(self.kafka, f"{topic}.gone")

    def waits_for(self, work):
        """How many pairs precede, in each partition, the first that is still there."""
        present = gone.present_offsets(self.kafka, work.topic)
        n = 0
        for p in range(work.partitions):
            for pair in gone.pairs_of(work.truth, p):
                if pair.old_offset in present[p]:
                    break
                n += 1
        return n

    def wait_told(self, work, n=None, timeout=30):
        n = self.waits_for(work) if n is None else n
        wait_until(lambda: len({(t.partition, t.offset) for t in self.told(work.topic)}) >= n,
                   timeout, f"{n} notifications of compaction", 0.1)

    def assert_told(self, work, **options):
        verdict = gone.judge(work.truth, self.told(work.topic),
                             gone.present_offsets(self.kafka, work.topic), **options)
        self.assertTrue(verdict.clean, f"\n{verdict}")
        return verdict

    def assert_shown(self, sidecar):
        """What waits, how far is told and how often was asked: by stat, metrics and the page."""
        def same():
            stat = sidecar.stat()
            shown = {"pairs": self.metric(sidecar, "sidenote_waiting_pairs"),
                     "bytes": self.metric(sidecar, "sidenote_waiting_bytes"),
                     "tombstones": self.metric(sidecar, "sidenote_waiting_tombstones"),
                     "probes": self.metric(sidecar, "sidenote_probes_total")}
            return stat["waiting"] == shown and all(
                0 < p["compacted"] <= p["applied"] for p in stat["partitions"])
        wait_until(same, 20, "stat and metrics tell the same", 0.3)
        url = f"http://{sidecar.options['http.listen']}/"
        with urllib.request.urlopen(url, timeout=10) as answer:
            self.assertIn("waiting for compaction", answer.read().decode())

    def test_a_pass_of_the_cleaner_is_told_record_by_record(self):
        topic, work, sidecar = self.running(config={**COMPACT_FAST, **COMPACT_NEVER})
        with gone.Watcher(self.kafka, topic, f"{topic}.gone") as watcher:
            self.overwrite(work)
            sidecar.wait_published()
            asked = self.metric(sidecar, "sidenote_probes_total")
            wait_until(lambda: self.metric(sidecar, "sidenote_probes_total") > asked + 4, 30,
                       "it looks again")
            self.assertEqual(self.told(topic), [])
            self.kafka.alter_config(topic, {"min.compaction.lag.ms": "0"})
            self.kafka.force_compaction(topic)
            self.wait_told(work)
        verdict = self.assert_told(work)
        self.assertGreater(verdict.compacted, 140)
        self.assertEqual((watcher.there, watcher.errors), ([], []))
        self.assertEqual(watcher.checked, verdict.compacted)
        self.assert_snapshot(work, sidecar)
        sidecar.term()

    def test_nothing_is_told_and_nothing_asked_where_nothing_waits(self):
        topic, work, sidecar = self.running()
        self.assertEqual(self.metric(sidecar, "sidenote_probes_total"), 0)
        self.overwrite(work, 1)
        sidecar.wait_published()
        self.kafka.force_compaction(topic)
        self.wait_told(work)
        wait_until(lambda: self.metric(sidecar, "sidenote_waiting_pairs") == 0, 20, "all is told")
        # the pace of probes is the wait: a request that was under way is counted before it
        before = self.metric(sidecar, "sidenote_probes_total")
        work.put(work.new_key(), work.new_value())
        work.flush()
        sidecar.wait_published()
        self.kafka.force_compaction(topic)
        self.assertEqual(self.metric(sidecar, "sidenote_probes_total"), before)
        self.assert_told(work)

    def test_a_crash_and_a_lost_leader_tell_nothing_twice(self):
        # every version is read before it can go, and telling takes a while
        topic, work, sidecar = self.running(
            config={**COMPACT_FAST, **COMPACT_NEVER, "delete.retention.ms": DAY_MS},
            options={"notifications.compacted.probes": "10"})
        standby = self.with_compacted(topic, sidecar.options, sidecar.name)
        standby.configure({"state.dir": f"{standby.directory}/state", "http.listen": None})
        standby.start()
        standby.wait_ready()
        running, other = sidecar, standby
        self.overwrite(work, 4)
        for s in (running, other):
            s.wait_ready()
        sidecar.wait_published()
        self.kafka.alter_config(topic, {"min.compaction.lag.ms": "0"})
        self.kafka.force_compaction(topic)
        for _ in range(4):
            n = len(self.told(topic))
            running.kill9()
            running.start()
            running.wait_ready()
            if n < self.waits_for(work):
                wait_until(lambda n=n: len(self.told(topic)) > n, 30, "somebody tells", 0.05)
            running, other = other, running
        self.wait_told(work)
        # what comes last comes after anything that would be told again
        self.kafka.alter_config(topic, {"min.compaction.lag.ms": str(DAY_MS)})
        self.overwrite(work, 1)
        running.wait_published()
        self.kafka.alter_config(topic, {"min.compaction.lag.ms": "0"})
        self.kafka.force_compaction(topic)
        self.wait_told(work)
        self.assertGreater(self.assert_told(work).compacted, 180)

    def test_a_fill_waits_for_what_it_still_reads(self):
        topic = self.topic(2, {**COMPACT_FAST, **COMPACT_NEVER})
        work = self.workload(topic)
        work.load(50)
        self.overwrite(work)
        sidecar = self.with_compacted(topic, {"notifications.compacted.probes": "10"})
        began = time.monotonic()
        sidecar.start()
        sidecar.wait_published()
        self.assertEqual(self.told(topic), [])
        self.kafka.alter_config(topic, {"min.compaction.lag.ms": "0"})
        self.kafka.force_compaction(topic)
        self.wait_told(work)
        self.assertGreater(self.assert_told(work).compacted, 140)
        self.assert_snapshot(work, sidecar)
        asked = self.metric(sidecar, "sidenote_probes_total")
        self.assertLessEqual(asked, 10 * (time.monotonic() - began) + 1)

    def test_of_more_than_may_wait_a_fill_keeps_the_oldest_without_their_values(self):
        topic = self.topic(2, {**COMPACT_FAST, **COMPACT_NEVER})
        work = self.workload(topic)
        work.load(20)
        for i in range(70):
            for key in work.present_keys():
                work.put(key, b'{"i":%d,"pad":"%s"}' % (i, b"x" * 2000))
        work.flush()
        sidecar = self.with_compacted(topic, {"notifications.compacted.max.bytes": "1MiB"})
        sidecar.start()
        sidecar.wait_published()
        wait_until(lambda: 0 < self.metric(sidecar, "sidenote_waiting_pairs") < 600, 30,
                   "the oldest are told")
        verdict = self.assert_told(work, complete=False)
        self.assertEqual(verdict.compacted, 0)
        self.assertGreater(verdict.omitted, 700)
        self.assertGreater(verdict.waiting, 100)
        self.assert_snapshot(work, sidecar)

    def test_a_rebuild_keeps_what_waits(self):
        topic, work, sidecar = self.running(config={**COMPACT_FAST, **COMPACT_NEVER})
        self.overwrite(work)
        sidecar.wait_published()
        done = sidenote("rebuild", "-F", sidecar.config_path, timeout=90)
        self.assertEqual(done.returncode, 0, done.stderr)
        sidecar.wait_ready()
        self.overwrite(work, 1)
        self.kafka.alter_config(topic, {"min.compaction.lag.ms": "0"})
        self.kafka.force_compaction(topic)
        self.wait_told(work)
        self.assertGreater(self.assert_told(work).compacted, 140)

    def test_where_nobody_cleans_the_oldest_expire_at_the_bound(self):
        topic, work, sidecar = self.running(
            config=COMPACT_NEVER, options={"notifications.compacted.max.bytes": "1MiB"})
        for _ in range(40):
            for key in work.present_keys():
                work.put(key, b'{"pad":"%s"}' % (b"x" * 2000))
        work.flush()
        sidecar.wait_published()
        wait_until(lambda: self.metric(sidecar, "sidenote_waiting_bytes") <= 1 << 20, 30,
                   "what waits is within its bound")
        self.assert_shown(sidecar)
        verdict = self.assert_told(work, complete=False)
        self.assertEqual(verdict.compacted, 0)
        self.assertGreater(verdict.expired, 500)
        self.assertGreater(verdict.waiting, 100)
        self.assertEqual(self.metric(sidecar, 'sidenote_compacted_total'), 0)
