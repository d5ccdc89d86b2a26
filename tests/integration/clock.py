"""Clocks of a sidecar that jump, while those of the machine stay: tests/faults/clock.c is preloaded
into it alone."""

import contextlib
import mmap
import os
import random
import struct
import tempfile
import threading

from broker import ROOT

LIBRARY = os.path.join(ROOT, os.environ.get("BUILD", "build"), "tests", "clock.so")


class Clock:
    """The clocks of the processes that get its environment."""

    def __init__(self):
        self._file = tempfile.NamedTemporaryFile(prefix="sidenote-clock.")
        self._file.write(bytes(16))
        self._file.flush()
        self._map = mmap.mmap(self._file.fileno(), 16)
        self.environment = {"LD_PRELOAD": LIBRARY, "CLOCK_JUMP": self._file.name}

    def set(self, ahead_s, monotonic_s=0):
        """By how many seconds the wall clock, and CLOCK_MONOTONIC, are ahead from now on."""
        self._map[:] = struct.pack("=qq", ahead_s, monotonic_s)

    @contextlib.contextmanager
    def mad(self, by_s):
        """The wall clock jumps twenty times a second, and is right again afterwards."""
        over = threading.Event()

        def jump():
            rng = random.Random(1)
            while not over.wait(0.05):
                self.set(rng.choice((-by_s, 0, by_s)))
        thread = threading.Thread(target=jump)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.set(0)

    def close(self):
        self._map.close()
        self._file.close()


class ClockTest:
    """For a RigTest: self.clock is that of all sidecars that are started here."""

    def setUp(self):
        super().setUp()
        self.clock = Clock()
        self.addCleanup(self.clock.close)

    def start(self, sidecar):
        return sidecar.start(environment=self.clock.environment)
