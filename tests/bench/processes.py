"""Contenders and the sidecar as processes: starting them, and what the kernel tells of them."""

import contextlib
import glob
import json
import os
import shutil
import subprocess
import threading
import time

from broker import ROOT, die_with_parent

TICK = os.sysconf("SC_CLK_TCK")


class Programs:
    """Copies of the programs, made once: what is rebuilt during a run does not count."""

    def __init__(self, build, directory):
        self._directory = directory
        sidenote = os.path.join(ROOT, os.environ.get("SIDENOTE_BIN") or
                                os.environ.get("SIDENOTE") or os.path.join(build, "sidenote"))
        shutil.copy(sidenote, self.path("sidenote"))
        for path in glob.glob(os.path.join(build, "tests", "bench", "bench_*")):
            if os.access(path, os.X_OK):
                shutil.copy(path, directory)

    def path(self, name):
        return os.path.join(self._directory, name)

    def start(self, name, *arguments, stdout=subprocess.PIPE):
        return subprocess.Popen([self.path(name), *map(str, arguments)], stdout=stdout, text=True,
                                stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)

    def finish(self, process):
        """What it printed."""
        out, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{process.args} ended with {process.returncode}")
        return out

    def run(self, name, *arguments):
        """Runs a contender and returns the JSON object that it prints."""
        return json.loads(self.finish(self.start(name, *arguments)))


def _status(path, *names):
    found = dict.fromkeys(names, 0)
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        with open(path, encoding="ascii") as f:
            for line in f:
                name, _, value = line.partition(":")
                if name in found:
                    found[name] = int(value.split()[0])
    return found


def cpu_s(pid):
    """User and system time of a process, all threads."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def switches(pid):
    """Context switches of all threads that are alive."""
    wanted = ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
    return sum(sum(_status(path, *wanted).values())
               for path in glob.glob(f"/proc/{pid}/task/*/status"))


def rss_anon_mib(pid):
    """Memory of its own: the snapshot's pages are the page cache's."""
    return _status(f"/proc/{pid}/status", "RssAnon")["RssAnon"] / 1024


def machine_busy_s():
    with open("/proc/stat", encoding="ascii") as f:
        user, nice, system, _, _, irq, softirq = map(int, f.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / TICK


def idle_figures(pid, seconds):
    """(percent of a core, context switches per second) over a window."""
    cpu, switched, begin = cpu_s(pid), switches(pid), time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - begin
    return 100 * (cpu_s(pid) - cpu) / passed, (switches(pid) - switched) / passed


class Peak:
    """The largest RssAnon of a process while the block runs."""

    def __init__(self, pid):
        self._pid = pid
        self._stop = threading.Event()
        self.mib = 0.0

    def __enter__(self):
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        while not self._stop.wait(0.05):
            self.mib = max(self.mib, rss_anon_mib(self._pid))
