"""The wall clock of the sidecar's host jumps an hour and more, forward and back: that changes
timestamps and nothing else."""

import unittest

import oracle
from broker import COMPACT_NEVER, wait_until
from clock import ClockTest
from rig import RigTest

HOUR_S = 3600 + 600
# A jump of more than half an hour makes a round due.
ROUNDS = {**COMPACT_NEVER, "delete.retention.ms": str(HOUR_S * 1000)}


class Jumps(ClockTest, RigTest):
    def assert_all(self, work, start, *sidecars):
        """Everything told once, nothing of it as a gap or a delete that nobody wrote."""
        sidecars[0].wait_published()
        verdict = self.assert_clean(work, start, sidecars[0])
        self.assertEqual((verdict.gap, verdict.reconcile), (0, 0))
        fold = work.truth.fold()
        for sidecar in sidecars:
            wait_until(lambda s=sidecar: oracle.compare_snapshot(
                oracle.snapshot_of(s.state_dir), fold).clean, 20, "equal")

    @staticmethod
    def leaders(*sidecars):
        return sum(s.log_text().count(" info leading ") for s in sidecars)

    def test_leader_and_standby_notice_nothing(self):
        topic = self.topic()
        work = self.workload(topic)
        work.load(500)
        name = self.unique("pipe")
        pair = [self.sidecar(topic, name=name) for _ in range(2)]
        for sidecar in pair:
            self.start(sidecar).wait_ready()
        pair[0].wait_published()
        wait_until(lambda: any("standby: another" in s.log_text() for s in pair), 30, "both in it")
        led, start = self.leaders(*pair), self.kafka.end_offsets(topic)
        for ahead in (HOUR_S, 0, -HOUR_S, 0):
            work.in_background(work.change, 300, rate=600)
            self.clock.set(ahead)
            work.wait_background()
            pair[0].wait_published()
        self.assert_all(work, start, *pair)
        self.assertEqual(self.leaders(*pair), led)
        self.assertIn("SN-CLOCK", "".join(s.log_text() for s in pair))

    def test_a_fill_and_restarts_under_a_clock_that_goes_mad(self):
        topic = self.topic(config=ROUNDS)
        work = self.workload(topic)
        work.load(20_000)
        sidecar = self.sidecar(topic)
        with self.clock.mad(HOUR_S):
            self.start(sidecar).wait_ready()
        sidecar.wait_published()
        start = self.kafka.end_offsets(topic)
        for ahead in (HOUR_S, -HOUR_S):
            work.change(200)
            sidecar.term()
            self.clock.set(ahead)
            work.change(200)
            self.start(sidecar).wait_published()
        self.assertIn("round: done, 0 keys were gone", sidecar.log_text())
        with self.clock.mad(HOUR_S):
            work.change(400, rate=400)
        self.assert_all(work, start, sidecar)


if __name__ == "__main__":
    unittest.main()
