#!/usr/bin/python3
"""Runs the integration tests: tests/integration/test_*.py, with one broker for all of them.

    run.py [--jobs N] [--shuffle SEED] [--repeat N] [--failfast] [--timeout S] [-k TEXT] [NAME...]

With --jobs, N test classes run side by side, each with a broker of its own: tests wait more than
they work. NAME is a module, module.Class or module.Class.test. Prints the time of each test and ends with a
line `N passed, N failed`; the exit status is 1 when one failed, 2 when there was none to run.
"""

import argparse
import faulthandler
import os
import queue
import random
import re
import subprocess
import sys
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import rig  # noqa: E402  (found through the line above)


class Result(unittest.TestResult):
    """One line per test, and what explains a failure as soon as it happens."""

    def __init__(self, timeout):
        super().__init__()
        self.passed = 0
        self.bad = set()
        self._timeout = timeout
        self._begin = 0.0

    def startTest(self, test):
        super().startTest(test)
        self._begin = time.monotonic()
        # A test that hangs says where, and takes the run with it: nothing after it is sure.
        faulthandler.dump_traceback_later(self._timeout, exit=True)
        print(f"{self._name(test)} ... ", end="", flush=True)

    def stopTest(self, test):
        faulthandler.cancel_dump_traceback_later()
        super().stopTest(test)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1
        self._say("ok")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._failed(test, "FAIL", self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self._failed(test, "ERROR", self.errors[-1][1])

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            where = self.failures if issubclass(err[0], test.failureException) else self.errors
            self._failed(test, f"FAIL {subtest}", where[-1][1])

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._say(f"skipped: {reason}")

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.passed += 1
        self._say("ok (fails as expected)")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self._failed(test, "FAIL", "passed although it was expected to fail")

    def _failed(self, test, word, text):
        self.bad.add(test.id())
        self._say(word)
        print(text, flush=True)
        if hasattr(test, "evidence"):
            print(test.evidence(), flush=True)

    def _say(self, word):
        print(f"{word} ({time.monotonic() - self._begin:.1f} s)", flush=True)

    @staticmethod
    def _name(test):
        return test.id()


def flatten(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def load(names, text):
    loader = unittest.TestLoader()
    suite = loader.loadTestsFromNames(names) if names else \
        loader.discover(HERE, pattern="test_*.py", top_level_dir=HERE)
    return [t for t in flatten(suite) if not text or text in t.id()]


# Started first: whoever begins the longest last waits for it alone.
LONG_FIRST = ("test_bad_input", "test_adversity", "test_compaction", "test_main", "test_rebuild")


def classes_of(tests):
    """The names of the test classes, those of long modules first."""
    names = {t.id().rsplit(".", 1)[0] for t in tests}
    rank = {module: i for i, module in enumerate(LONG_FIRST)}
    return sorted(names, key=lambda n: (rank.get(n.split(".")[0], len(rank)), n))


class SideBySide:
    """Runs each test class in a process of its own, several at a time."""

    def __init__(self, options):
        self._options = options
        self._todo = queue.Queue()
        self._lock = threading.Lock()
        self.passed = self.skipped = 0
        self.bad = set()

    def run(self):
        tests = load(self._options.names, self._options.k)
        names = classes_of(tests)
        if self._options.shuffle is not None:
            random.Random(self._options.shuffle).shuffle(names)
        for name in names:
            self._todo.put(name)
        workers = [threading.Thread(target=self._work) for _ in range(self._options.jobs)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def _work(self):
        while True:
            try:
                name = self._todo.get_nowait()
            except queue.Empty:
                return
            command = [sys.executable, os.path.abspath(__file__), name,
                       "--timeout", str(self._options.timeout),
                       "--repeat", str(self._options.repeat)]
            if self._options.k:
                command += ["-k", self._options.k]
            if self._options.shuffle is not None:
                command += ["--shuffle", str(self._options.shuffle)]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, errors="replace",
                                  check=False)
            with self._lock:
                self._take(name, done)

    def _take(self, name, done):
        """Passes on what a process printed, its closing lines excepted, and counts."""
        closing = re.search(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", done.stdout, re.M)
        said = re.findall(r"^integration: failed: (.*)$", done.stdout, re.M)
        if closing:
            self.passed += int(closing[1])
            self.skipped += int(closing[3] or 0)
            self.bad |= set(said)
        if not closing or (done.returncode and not said):
            self.bad.add(f"{name} (ended with {done.returncode})")
        print("\n".join(line for line in done.stdout.splitlines()
                        if not re.match(r"integration: |\d+ passed, ", line)), flush=True)


def closing_lines(begin, passed, bad, skipped):
    for name in sorted(bad):
        print(f"integration: failed: {name}")
    print(f"integration: {time.monotonic() - begin:.0f} s")
    print(f"{passed} passed, {len(bad)} failed" + (f", {skipped} skipped" if skipped else ""))
    if passed + len(bad) + skipped == 0:
        return 2
    return 1 if bad else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, metavar="N")
    parser.add_argument("--shuffle", type=int, metavar="SEED")
    parser.add_argument("--repeat", type=int, default=1, metavar="N")
    parser.add_argument("--failfast", action="store_true")
    parser.add_argument("--timeout", type=int, default=300, metavar="S", help="of one test")
    parser.add_argument("-k", metavar="TEXT", help="only tests whose name contains it")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)

    begin = time.monotonic()
    if options.jobs > 1:
        run = SideBySide(options)
        run.run()
        return closing_lines(begin, run.passed, run.bad, run.skipped)
    result = Result(options.timeout)
    result.failfast = options.failfast
    for n in range(options.repeat):
        # Loaded anew: a test case cannot run twice, since a suite drops it once it ran.
        tests = load(options.names, options.k)
        if options.shuffle is not None:
            random.Random(options.shuffle + n).shuffle(tests)
        unittest.TestSuite(tests).run(result)
    rig.stop_shared_kafka()

    if options.shuffle is not None:
        print(f"integration: in the order of --shuffle {options.shuffle}")
    return closing_lines(begin, result.passed, result.bad, len(result.skipped))


if __name__ == "__main__":
    sys.exit(main())
