"""What another version has written, an older or a newer one, is understood or refused, with one line
that names the way out; never misread, and nothing of it is lost."""

import hashlib
import os
import unittest

import lmdb

import oracle
from broker import wait_until
from rig import RigTest
from sidecar import sidenote

USAGE, BROKEN = 2, 4


class Formats(RigTest):
    def published(self):
        topic = self.topic(2)
        work = self.workload(topic)
        work.load(100)
        sidecar = self.sidecar(topic).start()
        sidecar.wait_published()
        return work, sidecar, self.kafka.end_offsets(topic)

    @staticmethod
    def data(sidecar):
        return os.path.join(sidecar.state_dir, "current", "data.mdb")

    def patch(self, sidecar, database, key, change):
        """A value of the state of a sidecar that does not run."""
        env = lmdb.open(os.path.dirname(self.data(sidecar)), map_size=0, max_dbs=16)
        try:
            db = env.open_db(database, create=False)
            with env.begin(write=True) as txn:
                txn.put(key, change(bytes(txn.get(key, db=db))), db=db)
        finally:
            env.close()

    def digest(self, sidecar):
        with open(self.data(sidecar), "rb") as f:
            return hashlib.sha256(f.read()).hexdigest()

    def assert_refused(self, sidecar, status, message, *words):
        """One line, and not a byte of the state is touched."""
        since, before = len(sidecar.log_text()), self.digest(sidecar)
        sidecar.start()
        sidecar.wait_exit(status)
        lines = [line for line in sidecar.log_text()[since:].splitlines() if " SN-" in line]
        self.assertEqual(len(lines), 1, lines)
        for word in (message, *words):
            self.assertIn(word, lines[0])
        self.assertEqual(self.digest(sidecar), before)

    def test_a_state_of_another_format(self):
        work, sidecar, start = self.published()
        sidecar.term()
        self.patch(sidecar, b"meta", b"format", lambda _: b"2")
        work.change(100)
        self.assert_refused(sidecar, USAGE, "SN-STATE-FORMAT", sidecar.state_dir, "format 2",
                            "use the newer sidenote", "remove the directory")
        for verb in (("get", "key-00000000"), ("scan",), ("stat",)):
            done = sidenote(verb[0], "-d", sidecar.state_dir, *verb[1:])
            self.assertNotEqual(done.returncode, 0, verb)
            self.assertIn("format", done.stderr, verb)
            self.assertEqual(done.stdout, "", verb)
        # the newer one again
        self.patch(sidecar, b"meta", b"format", lambda _: b"1")
        sidecar.start()
        sidecar.wait_published()
        self.assertEqual(self.assert_clean(work, start, sidecar).gap, 0)
        # one from before there was a first: nothing can be read of it, so it is filled anew
        sidecar.term()
        self.patch(sidecar, b"meta", b"format", lambda _: b"0")
        work.change(100)
        sidecar.start()
        sidecar.wait_published()
        self.assertIn("SN-STATE-UNREADABLE", sidecar.log_text())
        self.assert_clean(work, start, sidecar)
        self.assert_snapshot(work, sidecar)

    def test_a_record_of_a_newer_format(self):
        work, sidecar, _ = self.published()
        sidecar.term()
        key = work.present_keys()[0]
        self.patch(sidecar, b"records", key, lambda record: b"\x07" + record[1:])
        done = sidenote("get", "-d", sidecar.state_dir, key.decode())
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("format", done.stderr)
        self.assertEqual(done.stdout, "")
        sidecar.start()
        work.put(key, b'{"new":1}')
        work.flush()
        sidecar.wait_exit(BROKEN)
        self.assertRegex(sidecar.log_text(), r"SN-\S+ .*\b" + key.decode() + r"\b.*format")

    def test_offsets_that_a_newer_version_has_committed(self):
        work, sidecar, start = self.published()
        sidecar.term()
        work.change(100)
        committed = sidecar.committed()
        offsets = {p: o for p, (o, _) in committed.items()}
        metadata = dict(committed)[0][1]
        self.assertRegex(metadata, r"^sidenote by=\S+ n=0$")
        for future in (metadata + " t=17", metadata.replace("sidenote", "sidenote2")):
            self.kafka.commit(sidecar.group, sidecar.source_topic, offsets, future)
            since = len(sidecar.log_text())
            sidecar.start()
            wait_until(lambda s=since: "SN-OFFSETS-FUTURE" in sidecar.log_text()[s:], 30, future)
            self.assert_snapshot_soon(work, sidecar)
            self.assertEqual({p: o for p, (o, _) in sidecar.committed().items()}, offsets)
            self.assertNotIn(" leading ", sidecar.log_text()[since:])
            sidecar.term()
        self.kafka.commit(sidecar.group, sidecar.source_topic, offsets, metadata)
        sidecar.start()
        sidecar.wait_published()
        self.assertEqual(self.assert_clean(work, start, sidecar).gap, 0)

    def assert_snapshot_soon(self, work, sidecar):
        fold = work.truth.fold()
        wait_until(lambda: oracle.compare_snapshot(oracle.snapshot_of(sidecar.state_dir),
                                                   fold).clean, 30, "the snapshot goes on")


if __name__ == "__main__":
    unittest.main()
