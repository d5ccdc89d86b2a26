"""Judges the notifications of physical compaction against what was written and what can be read.

    with Watcher(kafka, source, topic) as watcher:     # fetches, at the moment of each notification
        ...
    verdict = judge(work.truth, notes, present)        # at the end, when the source is quiet
"""

import collections
import hashlib
import json
import threading
import time
from typing import NamedTuple, Optional

import confluent_kafka
from confluent_kafka import TopicPartition


class Gone(NamedTuple):
    """One notification; its own partition is that of the source, counts being equal."""
    partition: int
    key: bytes
    op: str
    old_offset: int
    offset: int
    before: object
    after: object
    source: dict
    id: str
    time_ms: int


def understand(message):
    headers = dict(message.headers() or ())
    value = json.loads(message.value())
    source = value["source"]
    if value["op"] != headers["sidenote.op"].decode():
        raise ValueError(f"op {value['op']} and {headers['sidenote.op']}")
    return Gone(message.partition(), message.key(), value["op"], source["before_offset"],
                source["offset"], value["before"], value["after"], source,
                headers["sidenote.id"].decode(), value["ts_ms"])


def read(kafka, topic):
    return [understand(m) for m in kafka.read(topic)]


class Pair(NamedTuple):
    """A record that another one has superseded."""
    key: bytes
    old_offset: int
    offset: int
    before: Optional[bytes]  # None: a tombstone
    after: Optional[bytes]
    before_ts: int


def pairs_of(truth, partition):
    """Of one partition, in the order of the superseding offset: every record that another of its key
    came after, tombstones and the same bytes included."""
    latest, result = {}, []
    for r in truth.records(partition):
        old = latest.get(r.key)
        if old is not None:
            result.append(Pair(r.key, old.offset, r.offset, old.value, r.value, old.timestamp))
        latest[r.key] = r
    return result


class Verdict:
    def __init__(self):
        self.wrong = collections.Counter()
        self.examples = []
        self.compacted = self.expired = self.waiting = self.omitted = 0

    def add(self, what, text):
        self.wrong[what] += 1
        if len(self.examples) < 20:
            self.examples.append(f"{what}: {text}")

    @property
    def clean(self):
        return not self.wrong

    def figures(self):
        return {"compacted": self.compacted, "expired": self.expired, "waiting": self.waiting,
                "violations": dict(self.wrong)}

    def __str__(self):
        return "\n".join([str(self.figures()), *self.examples])


def _is_omitted(told):
    return isinstance(told, dict) and list(told) == ["sidenote.omitted"]


def _value(told, expected):
    if expected is not None and _is_omitted(told):
        return told["sidenote.omitted"] == {"bytes": len(expected),
                                            "sha256": hashlib.sha256(expected).hexdigest()}
    return told == (None if expected is None else json.loads(expected))


def judge(truth, notes, present, complete=True):
    """present: partition -> offsets that can be read now. complete: every pair up to the first one
    that is still there must have been told; False while something may be on its way."""
    verdict = Verdict()
    of = collections.defaultdict(list)
    for note in notes:
        of[note.partition].append(note)
    for p in range(len(truth.logs)):
        _judge_partition(verdict, truth, p, of.pop(p, []), present[p], complete)
    for p in of:
        verdict.add("partition", f"{p} is none of the source's")
    return verdict


def _judge_partition(verdict, truth, p, notes, present, complete):
    pairs = pairs_of(truth, p)
    by_offset = {pair.offset: pair for pair in pairs}
    told, last = set(), -1
    for note in notes:
        pair = by_offset.get(note.offset)
        what = f"{p}: {note}"
        if pair is None or (pair.key, pair.old_offset) != (note.key, note.old_offset):
            verdict.add("no such pair", what)
            continue
        if note.offset in told:
            verdict.add("twice", what)
        elif note.offset < last:
            verdict.add("order", what)
        if not _value(note.before, pair.before) or not _value(note.after, pair.after):
            verdict.add("value", f"{what} is not {pair}")
        if note.source["before_ts_ms"] != pair.before_ts:
            verdict.add("timestamp", what)
        if note.id != f"{truth.topic}/{p}/{pair.old_offset}/compacted":
            verdict.add("id", what)
        if note.op == "compacted" and pair.old_offset in present:
            verdict.add("still there", what)
        told.add(note.offset)
        last = max(last, note.offset)
        verdict.compacted += note.op == "compacted"
        verdict.expired += note.op == "expired"
        verdict.omitted += _is_omitted(note.before)
    for pair in pairs:
        if pair.old_offset in present:
            break
        if complete and pair.offset not in told:
            verdict.add("missing", f"{p}: {pair}")
    verdict.waiting += len(pairs) - len(told)


def present_offsets(kafka, topic):
    result = collections.defaultdict(set)
    for m in kafka.read(topic):
        result[m.partition()].add(m.offset())
    return result


class Watcher:
    """Follows the notifications as they are committed, and reads the source at that moment: what
    was told to be gone must not be there. Where the leader has changed since, another replica
    answers, which may still have it: those are counted apart."""

    def __init__(self, kafka, source, topic):
        self._kafka, self._source, self._topic = kafka, source, topic
        self.checked = self.elsewhere = 0
        self.there = []
        self.errors = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        follower = self._kafka.consumer(**{"auto.offset.reset": "earliest"})
        reader = self._kafka.consumer(**{"auto.offset.reset": "earliest"})
        try:
            follower.assign([TopicPartition(self._topic, p, 0)
                             for p in self._kafka.partitions(self._topic)])
            idle = 0
            while idle < 2:
                of = collections.defaultdict(list)
                for m in follower.consume(5000, 0.2):
                    if m.error() is None:
                        note = understand(m)
                        if note.op == "compacted":
                            of[note.partition].append(note)
                for p, notes in of.items():
                    self._check(reader, p, notes)
                idle = idle + 1 if self._stop.is_set() and not of else 0
        except Exception as e:  # pylint: disable=broad-except
            self.errors.append(repr(e))
        finally:
            follower.close()
            reader.close()

    def _check(self, reader, p, notes):
        wanted = {n.old_offset: n for n in notes}
        there = self._read(reader, p, min(wanted), max(wanted)) & wanted.keys()
        leader = self._leader(p) if there else None
        for offset in there:
            if wanted[offset].source["leader"] == leader:
                self.there.append(wanted[offset])
            else:
                self.elsewhere += 1
        self.checked += len(notes)

    def _leader(self, p):
        while True:
            try:
                return self._kafka.leaders(self._source).get(p)
            except confluent_kafka.KafkaException:  # a broker that is down was asked
                time.sleep(0.1)

    def _read(self, reader, p, first, last):
        """Offsets that can be fetched in [first, last]."""
        found = set()
        reader.assign([TopicPartition(self._source, p, first)])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for m in reader.consume(2000, 0.2):
                if m.error() is None and m.offset() <= last:
                    found.add(m.offset())
                elif m.error() is None or \
                        m.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                    reader.unassign()
                    return found
        raise TimeoutError(f"reading {self._source}/{p}")
