"""The measures. Each takes a Bench, adds rows to its table, and says what it does."""

import contextlib
import json
import os
import random
import tempfile
import time

import beside
import broker
from figures import median, percentile
from joining import Join
from processes import Peak, cpu_s, idle_figures, rss_anon_mib
from sidecar import Sidecar

PARTITIONS = 4
KEY_BYTES = 12
VALUE_BYTES = 200
# How long a stopped sidecar stays a member of its group (max.poll.interval.ms is 15 s).
STOPPED_MAX_S = 9
LEASE_S = 2  # state.lease.ms
# A sidecar's own memory, and of a fill its sort.memory besides.
MEMORY_MIB, SORT_MIB = 200, 256
# What tests/integration/sidecar.py sets for tests is taken back: these are a user's defaults.
DEFAULTS = {"log.level": "info", "consumer.session.timeout.ms": None,
            "consumer.heartbeat.interval.ms": None}


class Bench:
    """What the measures share: a broker, a filled topic, one sidecar that has been filled."""

    def __init__(self, kafka, programs, table, size):
        self.kafka = kafka
        self.programs = programs
        self.table = table
        self.size = size
        self.topic = kafka.create_topic("bench", PARTITIONS, broker.COMPACT_NEVER)
        self.notifications = self.new_topic("bench.changes")
        self.sidecar = None
        self.peers = None  # Kafka Streams, unless it was not asked for

    def new_topic(self, name):
        return self.kafka.create_topic(name, PARTITIONS)

    def run(self, name, *arguments):
        return self.programs.run(name, *arguments)

    def load(self, count, seed):
        self.run("bench_load", self.kafka.bootstrap, self.topic, self.size.keys, count, seed,
                 VALUE_BYTES)

    @staticmethod
    def raw_mib(keys):
        return keys * (KEY_BYTES + VALUE_BYTES) / 2**20

    def range(self, topic, since=None, until=None):
        """Arguments for a contender: everything, or from `since` on."""
        until = until or self.kafka.end_offsets(topic)
        return [f"{p}:{since[p] if since else 0}:{end}" for p, end in sorted(until.items())]

    def read(self, topic, since=None):
        """What is committed: the markers of a transaction come a moment after its offsets."""
        broker.wait_until(lambda: not self.kafka.open_transactions(topic), 60, f"{topic} is settled")
        return self.run("bench_read", self.kafka.bootstrap, topic, 0, *self.range(topic, since))

    def new_sidecar(self, name, **options):
        changed = {"notifications.topic": self.notifications, **DEFAULTS}
        changed.update({k.replace("__", "."): v for k, v in options.items()})
        return Sidecar(self.kafka, name, self.topic, changed)

    def main_sidecar(self):
        """Filled, caught up, leading."""
        if self.sidecar is None:
            self.sidecar = self.new_sidecar("bench")
            self.restart_sidecar()
        return self.sidecar

    def restart_sidecar(self, **options):
        """A clean stop and a start with other options."""
        if self.sidecar.alive():
            self.sidecar.term()
        self.sidecar.configure({k.replace("__", "."): v for k, v in options.items()})
        self.sidecar.start()
        self.sidecar.wait_ready(timeout=600)
        self.sidecar.wait_published(timeout=600)

    def close(self):
        if self.sidecar:
            self.sidecar.close()
        if self.peers:
            self.peers.close()


def say(text):
    print(f"-- {text}", flush=True)


def in_turn(n, *steps):
    """The steps in order, in odd rounds in reverse; their results in order."""
    order = list(enumerate(steps))
    if n % 2:
        order.reverse()
    results = dict((i, step()) for i, step in order)
    return [results[i] for i in range(len(steps))]


# ---------------------------------------------------------------- 1. first fill

def _fill_once(bench, n):
    with bench.new_sidecar(f"fill{n}") as sidecar:
        waiting = bench.programs.start("bench_await", "ready", sidecar.state_dir)
        begin = time.monotonic()
        sidecar.start()
        with Peak(sidecar.process.pid) as peak:
            at_ns = json.loads(bench.programs.finish(waiting))["at_ns"]
        cpu = cpu_s(sidecar.process.pid)
        file_bytes = sidecar.stat()["file_bytes"]
        return {"seconds": at_ns / 1e9 - begin, "cpu_s": cpu, "peak": peak.mib,
                "file_mib": file_bytes / 2**20}


def fill(bench):
    say(f"first fill: {bench.size.keys:,} keys, {bench.size.rounds} rounds after one for warmth")
    keys = bench.size.keys
    pairs, peers = [], []
    for n in range(-1, bench.size.rounds):
        steps = [lambda n=n: _fill_once(bench, n), lambda: bench.read(bench.topic)]
        if bench.peers and n >= 0:
            steps.append(lambda n=n: bench.peers.fill_once(n))
        ours, bare, *peer = in_turn(n, *steps)
        assert bare["records"] == keys, bare
        if n >= 0:
            pairs.append((ours, bare))
            peers += peer
    add = bench.table.add
    rates = [keys / o["seconds"] for o, _ in pairs]
    add("first fill", "start of the process to ready", "records/s", rates, "bare consumer",
        [keys / b["seconds"] for _, b in pairs], ">= 0.9")
    if peers:
        for which, text, goal in (
                ("first", "Kafka Streams, first start", ">= 13" if keys < 3_000_000 else ">= 24"),
                ("global", "GlobalKTable", ">= 6"),
                ("restored", "Kafka Streams, its state wiped", "")):
            add("first fill", "the same", "records/s", rates, text,
                [keys / p[which] for p in peers], goal)
    add("first fill", "processor time", "us/record", [o["cpu_s"] * 1e6 / keys for o, _ in pairs],
        "bare consumer", [b["cpu_s"] * 1e6 / keys for _, b in pairs])
    add("first fill", "largest anonymous memory", "MiB", [o["peak"] for o, _ in pairs],
        goal=f"<= {MEMORY_MIB + SORT_MIB}")
    if peers:
        add("first fill", "the same", "MiB", [o["peak"] for o, _ in pairs], "Kafka Streams",
            [p["peak"] for p in peers])
    add("first fill", "data file", "MiB", [o["file_mib"] for o, _ in pairs],
        "keys and values", [bench.raw_mib(keys)] * len(pairs), "<= 1.15")


# ---------------------------------------------------------------- 2. changes

def _publish_stopped(bench, ends):
    """Lets a stopped sidecar go; the time until everything is applied, published, committed."""
    sidecar = bench.sidecar
    pid = sidecar.process.pid
    waiting = bench.programs.start("bench_await", "committed", bench.kafka.bootstrap, sidecar.group,
                                   bench.topic, *bench.range(bench.topic, None, ends))
    time.sleep(0.3)
    cpu = cpu_s(pid)
    begin = time.monotonic()
    sidecar.cont()
    with Peak(pid) as peak:
        at_ns = json.loads(bench.programs.finish(waiting))["at_ns"]
    return {"seconds": at_ns / 1e9 - begin, "cpu_s": cpu_s(pid) - cpu, "peak": peak.mib}


def _loop(bench, name, span, note_bytes):
    return bench.run("bench_loop", bench.kafka.bootstrap, bench.topic, "bench.loop", name,
                     note_bytes, *span)


def _changes_round(bench, n, note_bytes, contenders_first):
    """One range of changes: through the sidecar, the bare consumer, the loop."""
    sidecar = bench.sidecar
    since = bench.kafka.end_offsets(bench.topic)
    notes_since = bench.kafka.end_offsets(bench.notifications)
    sidecar.stop()
    bench.load(bench.size.changes, 1000 + n)
    ends = bench.kafka.end_offsets(bench.topic)
    span = bench.range(bench.topic, since, ends)

    def contenders():
        bare = bench.run("bench_read", bench.kafka.bootstrap, bench.topic, 0, *span)
        return bare, _loop(bench, f"loop{n}", span, note_bytes) if note_bytes else None

    def peer():
        return bench.peers.resume(ends) if bench.peers else None

    begin = time.monotonic()
    if contenders_first:
        bare, loop = contenders()
        contenders_s = time.monotonic() - begin
        ours = _publish_stopped(bench, ends)
        theirs = peer()
    else:
        ours = _publish_stopped(bench, ends)
        theirs = peer()
        begin = time.monotonic()
        bare, loop = contenders()
        contenders_s = time.monotonic() - begin
    notes = bench.read(bench.notifications, notes_since)
    if notes["records"] != bench.size.changes:
        raise AssertionError(f"{notes['records']} notifications of {bench.size.changes} changes")
    if theirs and theirs["pairs"] != bench.size.changes:
        raise AssertionError(f"{theirs['pairs']} of the peer's {bench.size.changes} changes")
    return {"ours": ours, "bare": bare, "loop": loop, "peer": theirs,
            "note_bytes": notes["value_bytes"] // notes["records"], "contenders_s": contenders_s}


def changes(bench):
    n_changes = bench.size.changes
    say(f"changes: {n_changes:,} updates of {bench.size.keys:,} keys, {bench.size.rounds} rounds "
        "after one for warmth")
    bench.main_sidecar()
    if bench.peers:
        bench.peers.main_peer()
    bench.new_topic("bench.loop")
    rounds = []
    note_bytes = 0
    for n in range(-2, bench.size.rounds):  # the first tells the size of a notification
        first = n % 2 == 1 and rounds and rounds[-1]["contenders_s"] < STOPPED_MAX_S
        rounds.append(_changes_round(bench, n, note_bytes, first))
        note_bytes = rounds[-1]["note_bytes"]
    rounds = rounds[2:]

    def rates(who):
        return [n_changes / r[who]["seconds"] for r in rounds]

    def cpus(who):
        return [r[who]["cpu_s"] * 1e6 / n_changes for r in rounds]

    add = bench.table.add
    bench.table.facts["bytes of a notification's value"] = note_bytes
    add("changes", "applied and notified exactly once", "changes/s", rates("ours"),
        "bare consumer", rates("bare"))
    add("changes", "the same", "changes/s", rates("ours"), "stateless transaction loop",
        rates("loop"), ">= 0.8")
    if bench.peers:
        add("changes", "the same", "changes/s", rates("ours"), "Kafka Streams", rates("peer"),
            ">= 5")
        add("changes", "processor time", "us/change", cpus("ours"), "Kafka Streams", cpus("peer"))
    add("changes", "processor time", "us/change", cpus("ours"), "stateless transaction loop",
        cpus("loop"))
    peaks = [r["ours"]["peak"] for r in rounds]
    add("changes", "largest anonymous memory", "MiB", peaks, goal=f"<= {MEMORY_MIB}")
    if bench.peers:
        add("changes", "the same", "MiB", peaks, "Kafka Streams",
            [r["peer"]["peak"] for r in rounds])


# ---------------------------------------------------------------- every key, ten times

def rewrites(bench):
    """What the file grows to: pages that readers may still need are not used again for a while."""
    keys, times = bench.size.rewritten, bench.size.rewrites
    say(f"rewrites: {keys:,} keys, each {times} times")
    topic = bench.kafka.create_topic("bench.rewritten", PARTITIONS, broker.COMPACT_NEVER)
    bench.new_topic("bench.rewritten.changes")

    def load(seed):
        bench.run("bench_load", bench.kafka.bootstrap, topic, keys, 0, seed, VALUE_BYTES)

    load(1)
    options = {**DEFAULTS, "notifications.topic": "bench.rewritten.changes"}
    with Sidecar(bench.kafka, "rewrites", topic, options) as sidecar:
        sidecar.start()
        sidecar.wait_ready(timeout=600)
        sidecar.wait_published(timeout=600)
        for seed in range(times):
            load(seed + 2)
        with Peak(sidecar.process.pid) as peak:
            sidecar.wait_published(timeout=1200)
        file_mib = sidecar.stat()["file_bytes"] / 2**20
    group = f"{keys:,} keys, each rewritten {times} times"
    bench.table.add(group, "data file", "MiB", [file_mib], "keys and values",
                    [bench.raw_mib(keys)], "<= 2.2")
    bench.table.add(group, "largest anonymous memory", "MiB", [peak.mib], goal=f"<= {MEMORY_MIB}")


# ---------------------------------------------------------------- 3. get

_WAYS = (("get", "sstate_get: a copy, checked", "bare", "<= 1.2"),
         ("get", "the same", "bare_copy", ""),
         ("get_value", "sstate_get_value: only the value", "bare", "<= 1.2"),
         ("wait_get", "sstate_wait (read your writes), sstate_get", "bare_positions", ""),
         ("get_positions", "a snapshot's record and positions", "bare_positions", ""))
_CONTENDERS = {"bare": "begin, mdb_get, abort",
               "bare_copy": "the same and a copy of the value",
               "bare_positions": f"the same and {PARTITIONS} rows of positions"}
PROCESSES = 8


def _get_once(bench, gets):
    return bench.run("bench_get", "one", bench.main_sidecar().state_dir, bench.size.keys,
                     bench.size.get_rounds, gets)


def _get_beside(bench):
    """Ours and a peer's in turn: the peers are other programs."""
    gets = bench.size.gets
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(beside.Redis(bench, VALUE_BYTES))
        steps = [lambda n: median(_get_once(bench, gets)["get"]), lambda n: redis.get(gets, n)]
        if bench.peers:
            rocks = stack.enter_context(bench.peers.rocks())
            steps.append(lambda n: rocks.get(gets, n))
        rounds = [in_turn(n, *[lambda step=step, n=n: step(n) for step in steps])
                  for n in range(bench.size.rounds)]
    group, ours = "get, one process", [r[0] for r in rounds]
    bench.table.add(group, "sstate_get", "ns", ours, "Redis GET, unix socket, both processes",
                    [r[1]["client_ns"] + r[1]["server_ns"] for r in rounds], ">= 20", inverse=True)
    bench.table.add(group, "the same", "ns", ours, "the same, until the answer is there",
                    [r[1]["ns"] for r in rounds], inverse=True)
    if bench.peers:
        bench.table.add(group, "the same", "ns", ours, "RocksDB get (Java)", [r[2] for r in rounds],
                        ">= 3", inverse=True)


def get(bench):
    """Processor time of a look-up, so that other work on the machine counts for little."""
    say(f"get: {bench.size.keys:,} keys at random")
    state_dir = bench.main_sidecar().state_dir
    ns = _get_once(bench, bench.size.gets)
    for way, text, against, goal in _WAYS:
        bench.table.add("get, one process", text, "ns", ns[way], _CONTENDERS[against], ns[against],
                        goal)
    _get_beside(bench)

    def many(processes):
        return bench.run("bench_get", "many", state_dir, bench.size.keys, bench.size.get_rounds,
                         500, processes, bench.sidecar.process.pid)

    one, all_of_them = many(1), many(PROCESSES)
    group = f"get, {PROCESSES} processes"
    bench.table.add(group, "sstate_get", "ns", all_of_them["get"], _CONTENDERS["bare"],
                    all_of_them["bare"], "<= 1.2")
    bench.table.add(group, "memory (PSS), readers and the sidecar's part of the file", "MiB",
                    [(all_of_them["pss_kb"] + all_of_them["sidecar_kb"]) / 1024],
                    "one process", [(one["pss_kb"] + one["sidecar_kb"]) / 1024], "<= 1.05")
    bench.table.add(group, "of it anonymous, each", "MiB",
                    [all_of_them["pss_anon_kb"] / 1024 / PROCESSES])


# ---------------------------------------------------------------- 4. latency

def _latency_process(bench, mode, rate, seconds, phase_ms=0):
    out = tempfile.TemporaryFile("w+", encoding="ascii")
    to = {"sidecar": bench.notifications, "bare": "bench.bare", "peer": beside.TARGET}[mode]
    process = bench.programs.start("bench_latency", "bare" if mode == "bare" else "sidecar",
                                   bench.kafka.bootstrap, bench.topic, to,
                                   bench.size.keys, rate, seconds, phase_ms, stdout=out)
    return process, out


def _latency_result(process, out, warm_s):
    """Milliseconds, those due in the first `warm_s` dropped."""
    if process.wait():
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    out.seek(0)
    pairs = [tuple(map(int, line.split())) for line in out]
    out.close()
    first = min(due for due, _ in pairs)
    return [(received - due) / 1e6 for due, received in pairs if due >= first + warm_s * 1e9]


def _percentiles(bench, rate, ours, bare, goal=""):
    """ours, bare: a list of milliseconds for every round."""
    for p in (50, 99):
        bench.table.add(f"latency at {rate}/s", f"source record to notification, p{p}", "ms",
                        [percentile(o, p) for o in ours],
                        "bare transaction of one message" if rate == 1
                        else "bare transactions of what is due",
                        [percentile(b, p) for b in bare], goal if p == 99 else "")


COMMITS_MS = (10, 100)


def _latency_of_peer(bench, rate, commit_ms):
    """The sidecar is not there meanwhile."""
    bench.peers.again(commit_ms)
    result = _latency_result(*_latency_process(bench, "peer", rate, bench.size.latency_s + 2),
                             warm_s=2)
    bench.peers.peer.stop()
    return result


def _latency_beside(bench, rate):
    """One round of ours, and one of the peer's for each of its settings."""
    say(f"latency at {rate}/s beside Kafka Streams, {bench.size.rounds} rounds")
    ours, theirs = [], {commit_ms: [] for commit_ms in COMMITS_MS}
    for n in range(bench.size.rounds):
        def of_ours():
            bench.restart_sidecar()
            ours.append(_latency_result(
                *_latency_process(bench, "sidecar", rate, bench.size.latency_s + 2), warm_s=2))
            bench.sidecar.term()
        in_turn(n, of_ours, *[lambda ms=ms: theirs[ms].append(_latency_of_peer(bench, rate, ms))
                              for ms in COMMITS_MS])
    for commit_ms in COMMITS_MS:
        for p, goal in ((50, "<= 0.6"), (99, "<= 0.4")):
            bench.table.add(f"latency at {rate}/s", f"source record to notification, p{p}", "ms",
                            [percentile(o, p) for o in ours],
                            f"Kafka Streams, commit interval {commit_ms} ms",
                            [percentile(t, p) for t in theirs[commit_ms]],
                            goal if commit_ms == 10 else "")
    bench.restart_sidecar()


def latency(bench):
    bench.main_sidecar()
    bench.new_topic("bench.bare")
    seconds = bench.size.latency_idle_s
    say(f"latency at 1/s, {seconds} s, both at once and half a second apart")
    both = [_latency_process(bench, "sidecar", 1, seconds + 2, 0),
            _latency_process(bench, "bare", 1, seconds + 2, 500)]
    ours, bare = (_latency_result(*each, warm_s=2) for each in both)
    bench.table.facts["latencies at 1/s"] = len(ours)
    _percentiles(bench, 1, [ours], [bare], "<= 3")
    for rate in 100, 1000:
        say(f"latency at {rate}/s, {bench.size.rounds} rounds of {bench.size.latency_s} s each")
        results = {"sidecar": [], "bare": []}
        for n in range(bench.size.rounds):
            for mode in ("sidecar", "bare") if n % 2 else ("bare", "sidecar"):
                process = _latency_process(bench, mode, rate, bench.size.latency_s + 2)
                results[mode].append(_latency_result(*process, warm_s=2))
        _percentiles(bench, rate, results["sidecar"], results["bare"])
    if bench.peers:
        _latency_beside(bench, 1000)


# ---------------------------------------------------------------- 5. restart

def _await_line(path, after_ns, timeout=60):
    """The receipt of the first notification of a record that was due after `after_ns`."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with open(path, encoding="ascii") as f:
            times = [int(received) for due, received in
                     (line.split() for line in f if line.endswith("\n"))
                     if int(due) > after_ns]
        if times:
            return min(times)
        time.sleep(0.05)
    raise TimeoutError("no notification after the restart")


def _kill_once(bench, path):
    """Seconds from the kill to (the next commit of the snapshot, the next notification)."""
    sidecar = bench.sidecar
    killed_ns = time.monotonic_ns()
    sidecar.kill9()
    waiting = bench.programs.start("bench_await", "commit", sidecar.state_dir)
    time.sleep(0.05)  # it has looked
    sidecar.start()
    commit_ns = json.loads(bench.programs.finish(waiting))["at_ns"]
    note_ns = _await_line(path, killed_ns)
    return (commit_ns - killed_ns) / 1e9, (note_ns - killed_ns) / 1e9


def _kills(bench, session_ms):
    with tempfile.TemporaryDirectory(prefix="sidenote-bench.") as directory:
        path = os.path.join(directory, "latency")
        with open(path, "w", encoding="ascii") as out:
            writing = bench.programs.start(
                "bench_latency", "sidecar", bench.kafka.bootstrap, bench.topic,
                bench.notifications, bench.size.keys, 100, 3600, 0, stdout=out)
        reading = bench.programs.start("bench_await", "gets", bench.sidecar.state_dir,
                                       bench.size.keys, 3600)
        results = []
        rng = random.Random(session_ms)
        try:
            for n in range(bench.size.kills):
                time.sleep(rng.uniform(2, 3))
                results.append(_kill_once(bench, path))
        finally:
            writing.kill()
            writing.wait()
            reading.terminate()
        return results, json.loads(bench.programs.finish(reading))


def restart(bench):
    bench.main_sidecar()
    for session_ms, options in (
            (6000, {}),
            (1000, {"consumer.session.timeout.ms": "1000",
                    "consumer.heartbeat.interval.ms": "200"})):
        group = f"kill -9 and restart, session {session_ms / 1000:g} s"
        say(f"{group}: {bench.size.kills} kills under 100 changes/s")
        bench.restart_sidecar(**{k.replace(".", "__"): v for k, v in options.items()})
        results, gets = _kills(bench, session_ms)
        for p in (50, 90):
            bench.table.add(group, f"kill to the next notification, p{p}", "s",
                            [percentile([note for _, note in results], p)])
        bench.table.add(group, "kill to the next commit of the snapshot, p50", "s",
                        [percentile([commit for commit, _ in results], 50)],
                        goal=f"<= {1 + LEASE_S}")
        bench.table.add(group, f"look-ups that failed meanwhile, of {gets['gets']:,}", "",
                        [gets["failed"]])
        commits = [commit for commit, _ in results]
    bench.restart_sidecar(**{k.replace(".", "__"): v for k, v in DEFAULTS.items()})
    if bench.peers:
        say(f"kill -9 of Kafka Streams under 100 changes/s, {bench.size.rounds} rounds")
        theirs = bench.peers.kills(bench.size.rounds)
        bench.table.add(group, "kill to the next commit of the snapshot", "s",
                        commits[:len(theirs)], "Kafka Streams, until it runs", theirs)


# ---------------------------------------------------------------- 6. join

def _join_stopped(bench, join, span):
    """Lets a stopped join go; the time until every record of the stream has its committed result."""
    pid = join.process.pid
    waiting = bench.programs.start("bench_await", "committed", bench.kafka.bootstrap, join.group,
                                   join.source_topic, *span)
    time.sleep(0.3)
    cpu = cpu_s(pid)
    begin = time.monotonic()
    join.cont()
    with Peak(pid) as peak:
        at_ns = json.loads(bench.programs.finish(waiting))["at_ns"]
    return {"seconds": at_ns / 1e9 - begin, "cpu_s": cpu_s(pid) - cpu, "peak": peak.mib}


def _join_round(bench, join, n, result_bytes, loop_first):
    """One range of the stream: through the join, and through the loop."""
    since = bench.kafka.end_offsets(join.source_topic)
    results_since = bench.kafka.end_offsets(join.output)
    join.stop()
    begin = time.monotonic()
    bench.run("bench_load", bench.kafka.bootstrap, join.source_topic, bench.size.keys,
              bench.size.changes, 2000 + n, VALUE_BYTES)
    span = bench.range(join.source_topic, since)

    def run_loop():
        return bench.run("bench_loop", bench.kafka.bootstrap, join.source_topic, "bench.join.loop",
                         f"join{n}", result_bytes, *span) if result_bytes else None

    loop = run_loop() if loop_first else None
    ours = _join_stopped(bench, join, bench.range(join.source_topic))
    loop = loop or run_loop()
    results = bench.read(join.output, results_since)
    if results["records"] != bench.size.changes:
        raise AssertionError(f"{results['records']} results of {bench.size.changes} records")
    return {"ours": ours, "loop": loop, "bytes": results["value_bytes"] // results["records"],
            "others_s": time.monotonic() - begin - ours["seconds"]}


def join(bench):
    n_records = bench.size.changes
    say(f"join: {n_records:,} stream records with {bench.size.keys:,} keys, {bench.size.rounds} "
        "rounds after one for warmth")
    for topic in ("bench.stream", "bench.joined", "bench.join.loop"):
        bench.new_topic(topic)
    process = Join(bench.kafka, "bench", bench.main_sidecar().state_dir, "bench.stream",
                   "bench.joined", {"log.level": "info", "consumer.heartbeat.interval.ms": None,
                                    # it stays a member while it is stopped
                                    "consumer.session.timeout.ms": "15000"})
    with contextlib.closing(process):
        process.start()
        process.wait_log("member of")
        rounds = []
        for n in range(-2, bench.size.rounds):  # the first tells the size of a result
            first = n % 2 == 1 and rounds and rounds[-1]["others_s"] < STOPPED_MAX_S
            rounds.append(_join_round(bench, process, n, rounds[-1]["bytes"] if rounds else 0,
                                      first))
        process.term()
    bench.table.facts["bytes of a result's value"] = rounds[-1]["bytes"]
    rounds = rounds[2:]
    add = bench.table.add
    add("join", "joined exactly once", "records/s", [n_records / r["ours"]["seconds"] for r in rounds],
        "stateless transaction loop", [n_records / r["loop"]["seconds"] for r in rounds], ">= 0.7")
    add("join", "processor time", "us/record",
        [r["ours"]["cpu_s"] * 1e6 / n_records for r in rounds], "stateless transaction loop",
        [r["loop"]["cpu_s"] * 1e6 / n_records for r in rounds])
    add("join", "largest anonymous memory", "MiB", [r["ours"]["peak"] for r in rounds])


# ---------------------------------------------------------------- 7. idle

def idle(bench, when="after changes"):
    pid = bench.main_sidecar().process.pid
    say(f"idle for {bench.size.idle_s} s, {when}")
    time.sleep(3)
    memory = rss_anon_mib(pid)
    cpu, switched = idle_figures(pid, bench.size.idle_s)
    process = bench.programs.start("bench_read", bench.kafka.bootstrap, bench.topic, 3600,
                                   *bench.range(bench.topic))
    with contextlib.ExitStack() as stack:
        stack.callback(process.wait)
        stack.callback(process.kill)
        time.sleep(3)
        bare_cpu, bare_switched = idle_figures(process.pid, bench.size.idle_s)
    group = f"idle, {when}"
    bench.table.add(group, "processor time", "% of a core", [cpu], goal="<= 0.5")
    bench.table.add(group, "the same", "% of a core", [cpu], "idle bare consumer", [bare_cpu])
    bench.table.add(group, "context switches", "1/s", [switched], "idle bare consumer",
                    [bare_switched])
    bench.table.add(group, "anonymous memory", "MiB", [memory])
