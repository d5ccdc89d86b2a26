"""The join under test, as a process, and the judge of what it said.

    join = Join(kafka, "orders-users", sidecar.state_dir, "orders", "enriched")
    join.start()
    join.wait_joined()
    verdict = judge(stream_truth, table_truth, read_results(kafka, "enriched"))
    assert verdict.clean, verdict

The judge shares no code with the join. It replays the logs: a result is right if its table record is
the latest of its key in the table's log below the positions of its token, or null if there is none.
"""

import bisect
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

import oracle
from broker import die_with_parent
from sidecar import Sidecar, clean_environment, program

# What tests need and users do not: a dead member leaves the group after two seconds.
TEST_OPTIONS = {
    "log.level": "debug",
    "join.output.create": "true",
    "join.start": "beginning",
    "consumer.session.timeout.ms": "2000",
    "consumer.heartbeat.interval.ms": "300",
}


class Join(Sidecar):
    """One instance of a join. Instances of the same name share the stream. `options` are those of
    its file, over TEST_OPTIONS; None takes one away. `prefix`: words before the program's."""

    def __init__(self, kafka, name, state_dir, stream, output, options=None, instance="a",
                 prefix=()):
        self.kafka = kafka
        self.name = name
        self.source_topic = stream
        self.output = output
        self.instance = instance
        self.state_dir = state_dir
        self.process = None
        self.starts = 0
        self.prefix = list(prefix)
        self.directory = tempfile.mkdtemp(prefix="sidenote-join.")
        self.config_path = os.path.join(self.directory, "join.conf")
        self.log_path = os.path.join(self.directory, "join.log")
        self.options = {
            "join.name": name,
            "join.instance.id": instance,
            "join.stream.topic": stream,
            "join.output.topic": output,
            "kafka.bootstrap.servers": kafka.bootstrap,
            "state.dir": state_dir,
            **TEST_OPTIONS,
        }
        self.configure(options or {})

    @property
    def group(self):
        return f"sidenote-join.{self.name}"

    def start(self):
        if self.alive():
            raise RuntimeError("it runs already")
        self.starts += 1
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.prefix + [program(), "join", "-F", self.config_path],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(),
                preexec_fn=die_with_parent)
        return self

    def close(self):
        if self.alive():
            self.kill9()
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None

    def wait_joined(self, ends=None, timeout=60):
        """Everything that is in the stream now has its results."""
        self.wait_published(ends, timeout)


# ---------------------------------------------------------------- results


class Result(NamedTuple):
    partition: int
    offset: int
    key: Optional[bytes]
    value: dict
    raw: bytes
    headers: tuple


def read_results(kafka, topic):
    """The whole output topic, read committed."""
    return [Result(m.partition(), m.offset(), m.key(), json.loads(m.value()), m.value(),
                   tuple(m.headers() or ()))
            for m in kafka.read(topic)]


@dataclass
class Verdict:
    expected: int = 0
    seen: int = 0
    without: int = 0     # results without a table record
    tokens: int = 0      # different ones
    late: int = 0
    doubled: int = 0
    missing: int = 0
    malformed: int = 0
    unexpected: int = 0
    wrong_stream: int = 0
    wrong_table: int = 0
    wrong_token: int = 0
    wrong_place: int = 0
    wrong_headers: int = 0
    out_of_order: int = 0
    samples: dict = field(default_factory=dict)

    BAD = ("doubled", "missing", "malformed", "unexpected", "wrong_stream", "wrong_table",
           "wrong_token", "wrong_place", "wrong_headers", "out_of_order")

    @property
    def clean(self):
        return not any(getattr(self, name) for name in self.BAD)

    def figures(self):
        return {name: value for name, value in vars(self).items() if name != "samples"}

    add = oracle.Verdict.add

    def __str__(self):
        bad = [f"{getattr(self, n)} {n}" for n in self.BAD if getattr(self, n)]
        lines = [f"{self.expected} records, {self.seen} results, {self.without} without a table "
                 f"record, {self.tokens} tokens: {', '.join(bad) if bad else 'clean'}"]
        for name, samples in self.samples.items():
            lines += [f"    {name}: {s}" for s in samples]
        return "\n".join(lines)


class _History:
    """Per key of the table: where it changed, in the order of the log."""

    def __init__(self, truth):
        self._of = {}
        for p in range(len(truth.logs)):
            for r in truth.records(p):
                offsets, records = self._of.setdefault((p, r.key), ([], []))
                offsets.append(r.offset)
                records.append(r)
        self.partitions = len(truth.logs)
        self.ends = truth.ends()
        self.never_deleted = {key for (_, key), (_, records) in self._of.items()
                              if all(r.value is not None for r in records)}

    def at(self, key, token):
        """The record that the state of the token has, or None."""
        found = []
        for p in range(self.partitions):
            offsets, records = self._of.get((p, key), ((), ()))
            i = bisect.bisect_left(offsets, token.get(p, 0))
            if i and records[i - 1].value is not None:
                found.append(records[i - 1])
        if len(found) > 1:
            raise ValueError(f"{key!r} is in two partitions of the table")
        return found[0] if found else None


def parse_token(text):
    """partition -> offset. What follows a ~, where a round is due, does not move a position."""
    return {int(p): int(o.partition("~")[0])
            for p, o in (item.split(":") for item in text.split(","))}


def judge(stream, table, results, key_of=lambda record: record.key, left=True, name=None, start=None,
          output_partitions=None, wait="none"):
    """A Verdict. stream, table: GroundTruth. key_of: what is looked up for a stream record, None:
    nothing. start: partition -> offset from which on the stream is joined. wait: the words that
    results may say. What an inner join leaves out has no token to be judged by: it is missing if its
    key was in the table before the join began and never deleted, which tests make sure of."""
    verdict = Verdict(seen=len(results))
    history = _History(table)
    records = {}
    for p in range(len(stream.logs)):
        for r in stream.records(p):
            if r.offset >= (start or {}).get(p, 0):
                records[(p, r.offset)] = r
    verdict.expected = len(records)
    seen = {}
    tokens = set()
    last = {}
    for result in results:
        try:
            members = oracle.raw_members(result.raw)
            origin = result.value["stream"]
            identity = (origin["partition"], origin["offset"])
            token = parse_token(result.value["token"])
        except (oracle.Malformed, KeyError, ValueError, TypeError) as e:
            verdict.add("malformed", f"{result.partition}@{result.offset}: {e!r}")
            continue
        tokens.add(result.value["token"])
        where = f"{identity[0]}/{identity[1]} at {result.partition}@{result.offset}"
        if identity in seen:
            verdict.add("doubled", f"{where}, first {seen[identity]}")
            continue
        seen[identity] = where
        record = records.get(identity)
        if record is None:
            verdict.add("unexpected", where)
            continue
        order = (result.partition, identity[0])
        if last.get(order, -1) > identity[1]:
            verdict.add("out_of_order", where)
        last[order] = identity[1]
        _check_stream(verdict, where, result, members, record, stream.topic)
        _check_token(verdict, where, token, history)
        _check_table(verdict, where, result, members, history.at(key_of(record), token),
                     table.topic)
        _check_place(verdict, where, result, record, output_partitions)
        _check_headers(verdict, where, result, record, stream.topic)
        verdict.without += result.value["table"] is None
        verdict.late += result.value["wait"] == "late"
        if result.value["wait"] not in wait.split("|"):
            verdict.add("wrong_stream", f"{where}: wait {result.value['wait']}")
        if result.value["join"]["type"] != ("left" if left else "inner") or \
                name is not None and result.value["join"]["name"] != name:
            verdict.add("wrong_stream", f"{where}: {result.value['join']}")
        if not left and result.value["table"] is None:
            verdict.add("unexpected", f"{where}: an inner join without a table record")
    verdict.tokens = len(tokens)
    for identity, record in records.items():
        if identity not in seen and (left or key_of(record) in history.never_deleted):
            verdict.add("missing", f"{identity[0]}/{identity[1]} key {key_of(record)!r}")
    return verdict


def _same(side_raw, expected):
    return oracle._json_side(side_raw, None, "json").is_value(expected)


def _check_stream(verdict, where, result, members, record, topic):
    origin = result.value["stream"]
    raw = oracle.raw_members(members["stream"])
    if not _same(raw["value"], record.value):
        verdict.add("wrong_stream", f"{where}: {raw['value'][:100]!r}, not {record.value!r}")
    if origin["topic"] != topic or origin["ts_ms"] != record.timestamp:
        verdict.add("wrong_stream", f"{where}: {origin}")
    if result.key != record.key:
        verdict.add("wrong_stream", f"{where}: key {result.key!r}, not {record.key!r}")


def _check_token(verdict, where, token, history):
    if sorted(token) != list(range(history.partitions)) or \
            any(o > history.ends[p] + 1 for p, o in token.items()):
        verdict.add("wrong_token", f"{where}: {token}")


def _check_table(verdict, where, result, members, expected, topic):
    shown = result.value["table"]
    if expected is None or shown is None:
        if (expected is None) != (shown is None):
            verdict.add("wrong_table", f"{where}: {str(shown)[:100]}, not {expected}")
        return
    raw = oracle.raw_members(members["table"])
    place = (shown["topic"], shown["partition"], shown["offset"], shown["ts_ms"])
    if place != (topic, expected.partition, expected.offset, expected.timestamp):
        verdict.add("wrong_table", f"{where}: {place}, not {expected}")
    if not _same(raw["value"], expected.value):
        verdict.add("wrong_table", f"{where}: {raw['value'][:100]!r}, not {expected.value!r}")


def _check_place(verdict, where, result, record, output_partitions):
    expected = record.partition
    if output_partitions is not None:
        expected = oracle.murmur2_partition(record.key, output_partitions) \
            if record.key is not None else record.partition % output_partitions
    if result.partition != expected:
        verdict.add("wrong_place", f"{where}: belongs to {expected}")


def _check_headers(verdict, where, result, record, topic):
    own = {n: v for n, v in result.headers if n.startswith("sidenote.")}
    copied = tuple((n, v) for n, v in result.headers if not n.lower().startswith("sidenote."))
    expected = tuple((n, v) for n, v in record.headers if not n.lower().startswith("sidenote."))
    identity = f"{topic}/{record.partition}/{record.offset}".encode()
    match = b"false" if result.value["table"] is None else b"true"
    if own.get("sidenote.headers.omitted") is not None:
        expected = ()
    if copied != expected or own.get("sidenote.id") != identity or \
            own.get("sidenote.match") != match or len(own) > 3:
        verdict.add("wrong_headers", f"{where}: {result.headers}")
