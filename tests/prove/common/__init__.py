"""What the scripts here have in common. Each proves one claim at the size that is claimed, prints
one line of JSON with its figures, and exits with 0 only if the claim held. The size comes from the
environment, so that a short run of the same code is possible."""

import json
import os
import sys
import time

TESTS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TESTS, "integration"))


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


def finish(claim, held, **figures):
    """Prints the summary and ends the script."""
    print(json.dumps({"prove": claim, "held": held, **figures}), flush=True)
    sys.exit(0 if held else 1)
