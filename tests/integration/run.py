#!/usr/bin/python3
"""Runs the integration tests: tests/integration/test_*.py, with one broker for all of them.

    run.py [--shuffle SEED] [--repeat N] [--failfast] [--timeout S] [-k TEXT] [NAME...]

NAME is a module, module.Class or module.Class.test. Prints the time of each test and ends with a
line `N passed, N failed`; the exit status is 1 when one failed, 2 when there was none to run.
"""

import argparse
import faulthandler
import os
import random
import sys
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


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shuffle", type=int, metavar="SEED")
    parser.add_argument("--repeat", type=int, default=1, metavar="N")
    parser.add_argument("--failfast", action="store_true")
    parser.add_argument("--timeout", type=int, default=300, metavar="S", help="of one test")
    parser.add_argument("-k", metavar="TEXT", help="only tests whose name contains it")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)

    result = Result(options.timeout)
    result.failfast = options.failfast
    begin = time.monotonic()
    for n in range(options.repeat):
        # Loaded anew: a test case cannot run twice, since a suite drops it once it ran.
        tests = load(options.names, options.k)
        if options.shuffle is not None:
            random.Random(options.shuffle + n).shuffle(tests)
        unittest.TestSuite(tests).run(result)
    rig.stop_shared_kafka()

    failed = len(result.bad)
    skipped = f", {len(result.skipped)} skipped" if result.skipped else ""
    if options.shuffle is not None:
        print(f"integration: in the order of --shuffle {options.shuffle}")
    for name in sorted(result.bad):
        print(f"integration: failed: {name}")
    print(f"integration: {time.monotonic() - begin:.0f} s")
    print(f"{result.passed} passed, {failed} failed{skipped}")
    if result.passed + failed + len(result.skipped) == 0:
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
