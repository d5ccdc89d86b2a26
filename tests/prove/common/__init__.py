"""What the scripts here have in common. Each proves one claim at the size that is claimed, prints
one line of JSON with its figures, and exits with 0 only if the claim held. The size comes from the
environment, so that a short run of the same code is possible."""

import json
import os
import sys
import threading
import time

TESTS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TESTS, "integration"))

import oracle  # noqa: E402  (found through the line above)


def scale(name, default):
    """A number from the environment, e.g. KEYS=10000."""
    return int(os.environ.get(name, default))


class Clock:
    """Seconds between the steps of a run, by name; progress goes to standard error."""

    def __init__(self):
        self.seconds = {}
        self._last = time.monotonic()

    def done(self, step, text=""):
        now = time.monotonic()
        self.seconds[step + "_s"] = round(now - self._last, 1)
        self._last = now
        print(f"{step}: {self.seconds[step + '_s']} s {text}", file=sys.stderr, flush=True)


class Writer:
    """Has `write` write a little of `work` again and again, until it is told to stop."""

    def __init__(self, work, write):
        self._stop = threading.Event()
        self._work = work
        self._write_some = write
        work.in_background(self._write)

    def _write(self):
        while not self._stop.is_set():
            self._write_some()

    def stop(self):
        self._stop.set()
        self._work.wait_background()


def judge(kafka, sidecar, work, start, **options):
    """All that was notified since `start`, and the snapshot, beside what was written: the oracle's
    (verdict, difference), told on standard error. Options are those of `oracle.judge`."""
    notes = oracle.read_notifications(kafka, sidecar.notifications_topic)
    verdict = oracle.judge(work.truth, start, notes, name=sidecar.name, **options)
    diff = oracle.compare_snapshot(oracle.snapshot_of(sidecar.state_dir), work.truth.fold())
    print(f"{verdict}\n{diff}", file=sys.stderr, flush=True)
    return verdict, diff


def finish(claim, held, **figures):
    """Prints the summary and ends the script."""
    print(json.dumps({"prove": claim, "held": held, **figures}), flush=True)
    sys.exit(0 if held else 1)
