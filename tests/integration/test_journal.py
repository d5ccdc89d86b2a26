"""The journal at its limit: the tail waits, and nothing can lock up."""


from broker import COMPACT_NEVER
from rig import RigTest


class FullJournal(RigTest):
    def held(self, config=COMPACT_NEVER):
        """A sidecar whose notification topic cannot be written to, and whose journal is full."""
        topic = self.topic(4, config)
        work = self.workload(topic)
        work.load(2000)
        sidecar = self.sidecar(topic, {"journal.max.bytes": "4MiB"}).start()
        sidecar.wait_ready()
        sidecar.wait_published()
        start = self.kafka.end_offsets(topic)
        self.kafka.alter_config(sidecar.notifications_topic, {"min.insync.replicas": "2"})
        work.change(30000)
        sidecar.wait_log("SN-JOURNAL-FULL")
        return topic, work, sidecar, start

    def let_go(self, sidecar):
        self.kafka.alter_config(sidecar.notifications_topic, {"min.insync.replicas": "1"})
        sidecar.wait_published(timeout=120)

    def test_a_restart_with_a_full_journal_publishes_and_catches_up(self):
        _, work, sidecar, start = self.held()
        sidecar.kill9()
        sidecar.start()
        self.let_go(sidecar)
        self.assertEqual(self.assert_clean(work, start, sidecar).gap, 0)
        self.assert_snapshot(work, sidecar)

    def test_a_round_that_is_due_with_a_full_journal_is_done(self):
        _, work, sidecar, start = self.held()
        sidecar.kill9()
        sidecar.configure({"reconcile": "always"})
        sidecar.start()
        sidecar.wait_log("round: done", timeout=60)
        self.let_go(sidecar)
        self.assertEqual(self.assert_clean(work, start, sidecar).gap, 0)
        self.assert_snapshot(work, sidecar)
