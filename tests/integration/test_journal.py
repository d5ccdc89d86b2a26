"""The journal at its limit: the tail waits, and neither a restart nor a round nor a rebuild can lock
up or lose what is not published."""

from rig import RigTest
from sidecar import sidenote
from test_adversity import HeldUp


class FullJournal(HeldUp, RigTest):
    def exact(self, work, sidecar, start):
        self.replica_back()
        sidecar.wait_published(timeout=120)
        self.assertEqual(self.assert_clean(work, start, sidecar).gap, 0)
        self.assert_snapshot(work, sidecar)

    def test_a_restart_with_a_full_journal_publishes_and_catches_up(self):
        work, sidecar, start = self.held_up()
        sidecar.kill9()
        sidecar.start()
        self.exact(work, sidecar, start)

    def test_a_round_that_is_due_with_a_full_journal_is_done(self):
        work, sidecar, start = self.held_up()
        sidecar.kill9()
        sidecar.configure({"reconcile": "always"})
        sidecar.start()
        # It becomes due with the first records that the journal has room for again; nothing past
        # them can be published before it is done, and what is left to read exceeds the limit.
        self.replica_back()
        sidecar.wait_log("round: done", timeout=90)
        self.exact(work, sidecar, start)

    def test_unpublished_changes_survive_a_rebuild(self):
        work, sidecar, start = self.held_up()
        done = sidenote("rebuild", "-F", sidecar.config_path, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.exact(work, sidecar, start)
