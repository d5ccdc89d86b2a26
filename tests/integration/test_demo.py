"""`sidenote demo`: the main job without any server, and nothing left behind."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from broker import die_with_parent
from sidecar import clean_environment, program, sidenote

CHANGE = re.compile(r"^ *(\d+\.\d) ([ud=]) ([a-z-]+)  (.+)$")


class Demo(unittest.TestCase):
    def setUp(self):
        self.tmp = tempfile.mkdtemp(prefix="sidenote-test-demo.")
        self.addCleanup(shutil.rmtree, self.tmp, ignore_errors=True)

    def start(self, *arguments, tmp=None, stdout=subprocess.PIPE):
        process = subprocess.Popen(
            [program(), "demo", *arguments], env={**clean_environment(), "TMPDIR": tmp or self.tmp},
            stdout=stdout, stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        self.addCleanup(self.kill, process)
        return process

    @staticmethod
    def kill(process):
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()

    def finish(self, process, expect=0, timeout=60):
        """Its output and messages, once it has ended and nothing is left of it."""
        out, err = process.communicate(timeout=timeout)
        self.assertEqual(process.returncode, expect, f"{(out or '')[-1500:]}\n{err}")
        self.assertEqual(os.listdir(self.tmp), [])
        return out, err

    def first_notification(self, process):
        for line in process.stdout:
            found = CHANGE.match(line)
            if found and found[2] in "ud":
                return found
        self.fail("no notification: " + process.stderr.read())

    def test_it_shows_updates_and_deletes_and_ends_by_itself(self):
        out, err = self.finish(self.start("--seconds", "6", "--rate", "20"))
        changes = [CHANGE.match(line) for line in out.splitlines()]
        kinds = [c[2] for c in changes if c]
        self.assertGreater(kinds.count("u"), 20, out)
        self.assertGreater(kinds.count("d"), 2, out)
        self.assertTrue(any(c and c[2] == "u" and " -> " in c[4] for c in changes), out)
        self.assertIn("forgets transactional offsets", err)

    def test_every_update_and_delete_is_told_once(self):
        out, _ = self.finish(self.start("--seconds", "5", "--rate", "100"))
        told = [c for c in map(CHANGE.match, out.splitlines()) if c and c[2] in "ud"]
        made = re.search(r"^(\d+) updates, (\d+) deletes, \d+ creates; (\d+) notif", out, re.M)
        self.assertIsNotNone(made, out)
        self.assertEqual(int(made[1]) + int(made[2]), len(told), out)
        self.assertEqual(int(made[3]), len(told), out)

    def test_it_looks_keys_up_in_the_snapshot(self):
        out, _ = self.finish(self.start("--seconds", "6"))
        looks = [c for c in map(CHANGE.match, out.splitlines()) if c and c[2] == "="]
        self.assertGreaterEqual(len(looks), 3, out)
        for look in looks:
            self.assertRegex(look[4], r'^\{"name":.*\}$|^\(not there\)$')

    def test_the_first_notification_comes_soon(self):
        process = self.start("--seconds", "30")
        begin = time.monotonic()
        self.first_notification(process)
        # 1 to 4 s, most of it the embedded broker's way to form a group; a busy host takes longer
        self.assertLess(time.monotonic() - begin, 9)
        process.send_signal(signal.SIGINT)
        self.finish(process)

    def test_ctrl_c_ends_it_at_any_time(self):
        for delay in (0.05, 0.3, 0.7, 1.5, 5):
            with self.subTest(delay=delay):
                process = self.start("--seconds", "600")
                time.sleep(delay)
                process.send_signal(signal.SIGINT)
                begin = time.monotonic()
                self.finish(process)
                self.assertLess(time.monotonic() - begin, 10)

    def test_a_service_manager_may_end_it_too(self):
        process = self.start("--seconds", "600")
        self.first_notification(process)
        process.terminate()
        self.finish(process)

    def test_a_pager_that_quits_leaves_nothing_behind(self):
        read, write = os.pipe()
        process = self.start("--seconds", "600", stdout=write)
        os.close(write)
        os.read(read, 100)
        os.close(read)
        _, err = process.communicate(timeout=60)
        self.assertIn(process.returncode, (0, 3), err)
        self.assertEqual(os.listdir(self.tmp), [])

    def test_lines_fit_a_terminal(self):
        out, err = self.finish(self.start("--seconds", "5", "--rate", "20"))
        for line in (out + err).splitlines():
            if self.tmp not in line:
                self.assertLessEqual(len(line), 80, line)

    def test_without_a_place_for_its_files_it_says_so(self):
        missing = os.path.join(self.tmp, "missing")
        _, err = self.finish(self.start(tmp=missing), expect=3)
        self.assertIn(missing, err)

    def test_what_it_does_not_understand_is_refused(self):
        for arguments in (["--seconds"], ["--seconds", "0"], ["--seconds", "x"], ["--rate", "-1"],
                          ["--rate", "1e9"], ["now"], ["--fast", "1"]):
            with self.subTest(arguments=arguments):
                done = sidenote("demo", *arguments)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(arguments[0], done.stderr)


if __name__ == "__main__":
    unittest.main()
