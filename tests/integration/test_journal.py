"""The journal at its limit: the tail waits, and neither a restart nor a round nor a rebuild can lock
up or lose what is not published."""

from broker import wait_until
from rig import RigTest
from sidecar import sidenote
from test_adversity import KafkaWithReplica


class FullJournal(RigTest):
    @classmethod
    def setUpClass(cls):
        cls.kafka = KafkaWithReplica()
        cls.addClassCleanup(cls.kafka.stop)
        cls.kafka.start()

    def held(self):
        """A sidecar whose notification topic cannot be written to, with a full journal and more to
        read: (workload, sidecar, start)."""
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

    def exact(self, work, sidecar, start):
        self.replica_back()
        sidecar.wait_published(timeout=120)
        self.assertEqual(self.assert_clean(work, start, sidecar).gap, 0)
        self.assert_snapshot(work, sidecar)

    def test_a_restart_with_a_full_journal_publishes_and_catches_up(self):
        work, sidecar, start = self.held()
        sidecar.kill9()
        sidecar.start()
        self.exact(work, sidecar, start)

    def test_a_round_that_is_due_with_a_full_journal_is_done(self):
        work, sidecar, start = self.held()
        sidecar.kill9()
        sidecar.configure({"reconcile": "always"})
        sidecar.start()
        # It becomes due with the first records that the journal has room for again; nothing past
        # them can be published before it is done, and what is left to read exceeds the limit.
        self.replica_back()
        sidecar.wait_log("round: done", timeout=90)
        self.exact(work, sidecar, start)

    def test_unpublished_changes_survive_a_rebuild(self):
        work, sidecar, start = self.held()
        done = sidenote("rebuild", "-F", sidecar.config_path, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.exact(work, sidecar, start)
