"""How far a fill is: on a terminal, in a log, for systemd; and a state that moves to another host."""

import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import unittest.mock

from broker import COMPACT_NEVER, die_with_parent, wait_until
from rig import RigTest
from sidecar import clean_environment, program

LINE = re.compile(r"(\d+) %, (\d+) records, (\d+) records/s, (\d+) MB/s(?:, (\d+) s left)?")


class Terminal:
    """What a sidecar writes to a terminal that is its standard error."""

    def __init__(self, sidecar):
        master, slave = pty.openpty()
        self._master = master
        self.text = ""
        self.process = subprocess.Popen(
            [program(), "run", "-F", sidecar.config_path], stdin=subprocess.DEVNULL,
            stdout=slave, stderr=slave, env=clean_environment(), preexec_fn=die_with_parent)
        os.close(slave)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        while True:
            try:
                self.text += os.read(self._master, 4096).decode(errors="replace")
            except OSError:  # nobody has the other end any more
                return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self._thread.join()
        os.close(self._master)


class Progress(RigTest):
    def loaded(self, keys):
        """A sidecar that has yet to fill."""
        topic = self.topic(4, COMPACT_NEVER)
        self.workload(topic).load(keys)
        return topic, self.sidecar(topic)

    def slowly(self, process, is_done, first_pause=0.0):
        """It gets a thirtieth of a core until then."""
        pause = first_pause
        while not is_done():
            process.send_signal(signal.SIGSTOP)
            time.sleep(max(pause, 0.3))
            process.send_signal(signal.SIGCONT)
            time.sleep(0.01)
            pause = 0

    def assert_rises(self, lines):
        percents = [int(found[1]) for found in lines]
        records = [int(found[2]) for found in lines]
        self.assertEqual(percents, sorted(percents))
        self.assertEqual(records, sorted(records))
        self.assertTrue(all(0 <= p <= 100 for p in percents), percents)

    def test_a_terminal_gets_a_bar(self):
        topic, sidecar = self.loaded(40_000)
        with Terminal(sidecar) as terminal:
            self.slowly(terminal.process, lambda: "filled from" in terminal.text)
            wait_until(lambda: "ready: " in terminal.text, 60, "the fill")
        shown = [s for s in terminal.text.split("\r") if f"reading {topic} [" in s]
        lines = [LINE.search(s) for s in shown]
        self.assertGreater(len(lines), 1, terminal.text)
        self.assert_rises(lines)
        self.assertTrue(any(found[5] for found in lines), shown)
        for bar, found in zip(shown, lines):
            marks = re.search(r"\[(#*)(\.*)\]", bar)
            self.assertEqual(len(marks[1] + marks[2]), 24)
            self.assertAlmostEqual(len(marks[1]), int(found[1]) * 24 / 100, delta=1)
        self.assertNotIn("info filling from", terminal.text)

    def test_a_log_gets_lines_and_systemd_gets_them_too(self):
        topic, sidecar = self.loaded(10_000)
        with tempfile.TemporaryDirectory(prefix="sidenote-notify.") as directory, \
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
            path = os.path.join(directory, "socket")
            ear.bind(path)
            ear.settimeout(60)
            with unittest.mock.patch.dict(os.environ, {"NOTIFY_SOCKET": path}):
                sidecar.start()
            heard = [ear.recv(4096).decode()]
            # A line every five seconds: the first is due when it wakes up.
            self.slowly(sidecar.process, lambda: "filled from" in sidecar.log_text(), 5.2)
            while not heard[-1].startswith("STATUS=ready, leader"):
                heard.append(ear.recv(4096).decode())
        said = re.findall(r"info filling from .*", sidecar.log_text())
        lines = [LINE.search(s) for s in said if " reading, " in s]
        self.assertGreater(len(lines), 0, sidecar.log_text())
        self.assert_rises(lines)
        self.assertNotIn("[", "".join(said))
        self.assertEqual(heard[0], f"STATUS=filling from {topic}: reading")
        for line in said:
            self.assertIn("STATUS=" + line.removeprefix("info "), heard)

    def test_a_supervisor_that_does_not_listen_holds_nobody_up(self):
        topic = self.topic(1, COMPACT_NEVER)
        for path in ("/nowhere/at/all", "@sidenote-nobody", "", "relative", "/" + 200 * "x"):
            sidecar = self.sidecar(topic)
            with unittest.mock.patch.dict(os.environ, {"NOTIFY_SOCKET": path}):
                sidecar.start()
            sidecar.wait_ready()
            sidecar.term()


class Moves(RigTest):
    def test_a_directory_that_was_copied_while_stopped_goes_on_elsewhere(self):
        topic = self.topic(4, COMPACT_NEVER)
        work = self.workload(topic)
        work.load(1000)
        old = self.sidecar(topic).start()
        old.wait_published()
        start = self.kafka.end_offsets(topic)
        work.change(500)
        old.term()
        new = self.sidecar(topic, name=old.name)
        shutil.copytree(old.state_dir, new.state_dir, symlinks=True)
        work.change(500)
        new.start()
        new.wait_published()
        self.assertNotIn("filled from", new.log_text())
        self.assertEqual(self.assert_clean(work, start, new).gap, 0)
        self.assert_snapshot(work, new)


if __name__ == "__main__":
    unittest.main()
