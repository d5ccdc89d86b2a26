"""`sidenote rebuild`: a new generation beside the live one, switched under readers and writers."""

import os
import threading
import time

from broker import COMPACT_FAST, COMPACT_NEVER
from rig import RigTest
from sidecar import sidenote


class Rebuild(RigTest):
    def running(self, keys=2000, config=COMPACT_NEVER, options=None):
        topic = self.topic(4, config)
        work = self.workload(topic)
        work.load(keys)
        sidecar = self.sidecar(topic, options).start()
        sidecar.wait_ready()
        sidecar.wait_published()
        return topic, work, sidecar, self.kafka.end_offsets(topic)

    def rebuild(self, sidecar):
        return sidenote("rebuild", "-F", sidecar.config_path, timeout=90)

    def test_a_rebuild_switches_and_tells_nothing_twice(self):
        _, work, sidecar, start = self.running()
        work.change(2000)
        before = os.readlink(f"{sidecar.state_dir}/current")
        work.in_background(work.change, 6000, rate=1500)
        done = self.rebuild(sidecar)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotEqual(os.readlink(f"{sidecar.state_dir}/current"), before)
        work.wait_background()
        sidecar.wait_published()
        verdict = self.assert_clean(work, start, sidecar)
        self.assertEqual(verdict.gap, 0)
        self.assert_snapshot(work, sidecar)

    def test_only_the_current_generation_is_left(self):
        _, _, sidecar, _ = self.running()
        self.assertEqual(self.rebuild(sidecar).returncode, 0)
        sidecar.wait_ready()
        generations = [n for n in os.listdir(sidecar.state_dir) if n.startswith("gen-")]
        self.assertEqual(generations, [os.readlink(f"{sidecar.state_dir}/current")])

    def test_a_kill_during_a_rebuild_leaves_the_old_generation(self):
        _, work, sidecar, start = self.running(keys=20000)
        work.in_background(work.change, 10000, rate=2000)
        for delay in (0.05, 0.3, 0.7, 1.2, 2.0):
            asker = threading.Thread(target=self.rebuild, args=(sidecar,))
            asker.start()
            time.sleep(delay)
            sidecar.kill9()
            asker.join()
            sidecar.start()
            sidecar.wait_ready()
        work.wait_background()
        sidecar.wait_published()
        self.assertEqual(self.assert_clean(work, start, sidecar).gap, 0)
        self.assert_snapshot(work, sidecar)

    def test_a_rebuild_of_a_compacted_topic_keeps_what_the_log_keeps(self):
        _, work, sidecar, start = self.running(config=COMPACT_FAST)
        work.change(3000)
        sidecar.wait_published()
        self.kafka.force_compaction(sidecar.source_topic, passes=2)
        done = self.rebuild(sidecar)
        self.assertEqual(done.returncode, 0, done.stderr)
        work.change(500)
        sidecar.wait_published()
        self.assert_clean(work, start, sidecar)
        self.assert_snapshot(work, sidecar)

    def test_without_a_sidecar_a_rebuild_says_so(self):
        topic = self.topic()
        sidecar = self.sidecar(topic)
        sidecar.start()
        sidecar.wait_ready()
        sidecar.term()
        done = self.rebuild(sidecar)
        self.assertEqual(done.returncode, 3)
        self.assertIn("SN-NOT-RUNNING", done.stderr)
