"""The judge: from what was written to a topic, what must sidenote have said and stored?

    verdict = judge(work.truth, start, read_notifications(kafka, "users.changes"))
    assert verdict.clean, verdict
    diff = compare_snapshot(snapshot_of(state_dir), work.truth.fold())

It shares no code with the sidecar and no idea of how that works: it folds the ground truth once
more and compares. `start` is the position from which changes are news (partition -> offset).

What a change is: a put on an absent key is a create, other bytes on a present key an update, equal
bytes unchanged, a tombstone on a present key a delete, a tombstone on an absent key nothing.

What is checked of each notification, exactly once per change and by its `sidenote.id`: operation,
key, partition, `before` and `after` byte for byte, headers, envelope; per key that they come in
order and that each `before` is the `after` of the one before it.

Two things are allowed because compaction destroys information, and only these:

- `unseen`, partition -> offsets that compaction removed before the sidecar read them. A test knows
  them exactly: stop the sidecar at its position A, write, compact, ask for
  GroundTruth.missing_offsets(kafka, since=A), start it again. Such a value was never there; such a
  tombstone may only be told by a notification `/gone`.
- Notifications with cause=gap may skip versions of their key. `before` is then an earlier version,
  or not known, or absent (a create); `after` must be right, and what follows the last one of a key
  must not be missing. They are counted, so that a test can say how many it expects.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import struct
import time
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

import lmdb

from broker import wait_until
from workload import Stored

# ---------------------------------------------------------------- notifications


class Notification(NamedTuple):
    partition: int
    offset: int
    key: bytes
    value: Optional[bytes]
    headers: tuple  # of (name, bytes or None)


def read_notifications(kafka, topic):
    """The whole topic, read committed, in partition and offset order. A transaction that is being
    committed is waited for: the group's offsets may be there before the markers are everywhere."""
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: not kafka.open_transactions(topic), 5, "no transaction open")
    return [Notification(m.partition(), m.offset(), m.key(), m.value(), tuple(m.headers() or ()))
            for m in kafka.read(topic)]


class Malformed(Exception):
    """A notification that cannot be understood."""


_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,:"\[\]{}]+')
# What matters for nesting: strings (which may contain brackets) and brackets.
_NESTING = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def _end_of_value(text, pos):
    """The offset after the JSON value that begins at pos."""
    first = text[pos:pos + 1]
    if first == b'"':
        match = _STRING.match(text, pos)
    elif first in (b"{", b"["):
        depth = 0
        for match in _NESTING.finditer(text, pos):
            token = match.group()
            if token in (b"{", b"["):
                depth += 1
            elif token in (b"}", b"]"):
                depth -= 1
                if depth == 0:
                    return match.end()
        match = None
    else:
        match = _SCALAR.match(text, pos)
    if match is None:
        raise Malformed(f"no JSON value at {pos} of {text[:200]!r}")
    return match.end()


def raw_members(text):
    """name -> the bytes of the member's value as they stand in the message, white space between
    colon and comma included, for an object at the outermost level."""
    members = {}
    if text[:1] != b"{":
        raise Malformed(f"no object: {text[:200]!r}")
    pos = 1
    while True:
        pos = _SPACE.match(text, pos).end()
        name = _STRING.match(text, pos)
        if name is None:
            raise Malformed(f"no name at {pos} of {text[:200]!r}")
        pos = _SPACE.match(text, name.end()).end()
        if text[pos:pos + 1] != b":":
            raise Malformed(f"no colon at {pos} of {text[:200]!r}")
        begin = pos + 1
        end = _SPACE.match(text, _end_of_value(text, _SPACE.match(text, begin).end())).end()
        key = json.loads(name.group())
        if key in members:
            raise Malformed(f"{key} twice in {text[:200]!r}")
        members[key] = text[begin:end]
        if text[end:end + 1] == b"}":
            if end + 1 != len(text):
                raise Malformed(f"bytes after the end of {text[:200]!r}")
            return members
        if text[end:end + 1] != b",":
            raise Malformed(f"no comma at {end} of {text[:200]!r}")
        pos = end + 1


def _no_constant(text):
    raise ValueError(text)


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def is_json_object(value):
    """Whether the bytes are one JSON object in valid UTF-8, without lone surrogates."""
    try:
        parsed = json.loads(value.decode("utf-8"), parse_constant=_no_constant,
                            parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        return False
    return (isinstance(parsed, dict)
            and (b"\\u" not in value or not _LONE_SURROGATE.search(repr_text(parsed))))


def repr_text(parsed):
    """Every string in a parsed value, joined."""
    if isinstance(parsed, dict):
        return "".join(repr_text(k) + repr_text(v) for k, v in parsed.items())
    if isinstance(parsed, list):
        return "".join(map(repr_text, parsed))
    return parsed if isinstance(parsed, str) else ""


class Side(NamedTuple):
    """`before` or `after` as a notification shows it."""
    kind: str   # value, null, unknown (never seen), omitted (too large), bad
    bytes: Optional[bytes]
    text: str = ""

    def is_value(self, expected):
        """Shows exactly these bytes (None: that there is nothing)."""
        if expected is None:
            return self.kind == "null"
        if self.kind == "omitted":
            return self.bytes == _omitted(expected)
        return self.kind == "value" and self.bytes == expected


def _omitted(value):
    return b"%d %s" % (len(value), hashlib.sha256(value).hexdigest().encode())


def _json_side(raw, key, encoding):
    """What the bytes of a side in an envelope mean."""
    if raw == b"null":
        return Side("null", None)
    if raw[:20].startswith(b'{"sidenote.'):
        parsed = json.loads(raw)
        if list(parsed) == ["sidenote.unknown"]:
            return Side("unknown", None)
        if list(parsed) == ["sidenote.omitted"]:
            o = parsed["sidenote.omitted"]
            return Side("omitted", b"%d %s" % (o["bytes"], o["sha256"].encode()))
        if list(parsed) == ["sidenote.base64"] and encoding == "json":
            value = base64.b64decode(parsed["sidenote.base64"], validate=True)
            if is_json_object(value):
                return Side("bad", None, "a JSON object wrapped as base64")
            return Side("value", value)
    if encoding == "base64":
        parsed = json.loads(raw)
        if list(parsed) != ["key", "value"]:
            return Side("bad", None, "not a pair of key and value")
        if base64.b64decode(parsed["key"], validate=True) != key:
            return Side("bad", None, "another key in it")
        return Side("value", base64.b64decode(parsed["value"], validate=True))
    # Verbatim. That it is JSON follows from being equal to what was written, provided that was.
    if not is_json_object(raw):
        return Side("bad", None, "not a JSON object")
    return Side("value", raw)


@dataclass
class Told:
    """A notification, understood."""
    note: Notification
    identity: tuple           # (partition, offset of the source record, "" or "gone")
    op: str
    cause: str
    before: Side
    after: Side
    source: dict              # partition, offset, ts_ms, before_offset, before_ts_ms, name, ...
    copied: tuple             # the source headers
    token: tuple              # (partition, offset): where a snapshot has it

    def __str__(self):
        p, offset, suffix = self.identity
        return (f"{p}/{offset}{'/' + suffix if suffix else ''} {self.op} {self.cause} "
                f"key {self.note.key!r} at {self.note.partition}@{self.note.offset}")


def understand(note, topic, fmt="debezium-json", encoding="json"):
    """Told, or Malformed."""
    own = {}
    copied = []
    for name, value in note.headers:
        if name.lower().startswith("sidenote."):
            if name in own:
                raise Malformed(f"header {name} twice")
            own[name] = value
        else:
            copied.append((name, value))
    try:
        identity = own["sidenote.id"].decode()
        op = own["sidenote.op"].decode()
        cause = own["sidenote.cause"].decode()
        token = own["sidenote.token"].decode()
    except (KeyError, AttributeError, UnicodeDecodeError) as e:
        raise Malformed(f"header missing or unreadable: {e!r}") from e
    match = re.fullmatch(re.escape(topic) + r"/(\d+)/(\d+)(?:/(gone))?", identity)
    if not match:
        raise Malformed(f"sidenote.id {identity!r}")
    position = re.fullmatch(r"(\d+):(\d+)", token)
    if not position:
        raise Malformed(f"sidenote.token {token!r}")
    try:
        told = _told_raw if fmt == "raw" else _told_envelope
        before, after, source = told(note, own, op, encoding)
    except (KeyError, ValueError, TypeError, AttributeError) as e:
        raise Malformed(f"{e!r} in {note.value!r:.300}") from e
    return Told(note, (int(match[1]), int(match[2]), match[3] or ""), op, cause, before, after,
                source, tuple(copied), (int(position[1]), int(position[2])))


def _told_envelope(note, own, op, encoding):
    if note.value is None:
        raise Malformed("a tombstone among the notifications")
    members = raw_members(note.value)
    if sorted(members) != ["after", "before", "op", "source", "ts_ms"]:
        raise Malformed(f"members {sorted(members)}")
    source = json.loads(members["source"])
    source["published"] = json.loads(members["ts_ms"])
    if json.loads(members["op"]) != op:
        raise Malformed(f"header op {op}, envelope {members['op']!r}")
    if source["cause"].encode() != own["sidenote.cause"]:
        raise Malformed(f"header cause {own['sidenote.cause']!r}, envelope {source['cause']}")
    if source["table"] != source["topic"] or source["connector"] != "sidenote":
        raise Malformed(f"source {source}")
    if source["snapshot"] != "false":
        raise Malformed(f"snapshot {source['snapshot']!r}")
    return (_json_side(members["before"], note.key, encoding),
            _json_side(members["after"], note.key, encoding), source)


def _told_raw(note, own, op, _encoding):
    def number(name):
        return int(own[name]) if name in own else None

    def omitted(name):
        o = json.loads(own[name])["sidenote.omitted"]
        return Side("omitted", b"%d %s" % (o["bytes"], o["sha256"].encode()))

    source = {
        "topic": own["sidenote.topic"].decode(), "name": own["sidenote.name"].decode(),
        "db": own["sidenote.cluster"].decode(), "partition": number("sidenote.partition"),
        "offset": number("sidenote.offset"), "ts_ms": number("sidenote.timestamp"),
        "before_offset": number("sidenote.before.offset"),
        "before_ts_ms": number("sidenote.before.timestamp"),
        "published": number("sidenote.published"),
    }
    if "sidenote.before.omitted" in own:
        before = omitted("sidenote.before.omitted")
    elif "sidenote.before" in own:
        before = Side("value", own["sidenote.before"])
    elif op != "c" and source["before_offset"] is None:
        before = Side("unknown", None)
    else:
        before = Side("null", None)
    if "sidenote.after.omitted" in own:
        after = omitted("sidenote.after.omitted")
    elif note.value is None:
        after = Side("null", None)
    else:
        after = Side("value", note.value)
    return before, after, source


# ---------------------------------------------------------------- what must be there


class _Change(NamedTuple):
    op: str                   # c, u, =, d; or none: a tombstone on an absent key
    key: bytes
    before: Optional[Stored]
    after: Optional[bytes]
    timestamp: int
    headers: tuple


OPERATION = {"c": "create", "u": "update", "=": "update", "d": "delete"}


def _fold(truth, start, unseen, told_ids):
    """Every change at or after `start`: identity -> _Change, in log order per partition."""
    changes = {}
    for p in range(len(truth.logs)):
        state = {}
        ghosts = {}  # key -> offset of a tombstone that nobody could read
        begin = start.get(p, 0)
        gone = unseen.get(p, ())
        for r in truth.records(p):
            if r.offset in gone:
                if r.value is None and r.key in state:
                    ghosts[r.key] = r.offset
                continue
            old = state.get(r.key)
            if r.key in ghosts:
                # Between this record and the stored one the key was deleted, and the tombstone
                # was gone. Whether that was noticed depends on which came first, the round or
                # this record; either is right.
                del ghosts[r.key]
                identity = (p, old.offset, "gone")
                if identity in told_ids:
                    changes[identity] = _Change("d", r.key, old, None, -1, ())
                    old = None
            if r.offset >= begin:
                changes[(p, r.offset, "")] = _Change(_operation(old, r.value), r.key, old,
                                                     r.value, r.timestamp, r.headers)
            if r.value is None:
                state.pop(r.key, None)
            else:
                state[r.key] = Stored(r.value, p, r.offset, r.timestamp, r.headers)
        for key in ghosts:
            changes[(p, state[key].offset, "gone")] = _Change("d", key, state[key], None, -1, ())
    return changes


def _operation(old, value):
    if value is None:
        return "d" if old is not None else "none"
    if old is None:
        return "c"
    return "=" if old.value == value else "u"


# ---------------------------------------------------------------- the verdict

_VIOLATIONS = ("missing", "doubled", "unexpected", "malformed", "wrong_key", "wrong_op",
               "wrong_before", "wrong_after", "wrong_partition", "wrong_envelope",
               "wrong_headers", "out_of_order", "broken_chain")


@dataclass
class Verdict:
    expected: int = 0         # changes that must be notified
    seen: int = 0             # notifications read
    gap: int = 0              # of these, with cause=gap
    reconcile: int = 0        # of these, with cause=reconcile
    omitted: int = 0          # sides that were too large to be told
    coalesced: int = 0        # expected changes that a later gap notification of the key covers
    missing: int = 0
    doubled: int = 0
    unexpected: int = 0       # filtered operations, history, records that never were
    malformed: int = 0
    wrong_key: int = 0
    wrong_op: int = 0
    wrong_before: int = 0
    wrong_after: int = 0
    wrong_partition: int = 0
    wrong_envelope: int = 0
    wrong_headers: int = 0
    out_of_order: int = 0
    broken_chain: int = 0
    samples: dict = field(default_factory=dict)

    @property
    def clean(self):
        return self.violations() == 0

    def violations(self):
        return sum(getattr(self, name) for name in _VIOLATIONS)

    def figures(self):
        """All counts, for a JSON summary."""
        return {name: value for name, value in vars(self).items() if name != "samples"}

    def add(self, what, text, n=1):
        setattr(self, what, getattr(self, what) + n)
        kept = self.samples.setdefault(what, [])
        if len(kept) < 5:
            kept.append(str(text))

    def summary(self):
        bad = [f"{getattr(self, name)} {name}" for name in _VIOLATIONS if getattr(self, name)]
        text = (f"{self.expected} expected, {self.seen} seen ({self.gap} gap, "
                f"{self.reconcile} reconcile)")
        return f"{text}: {', '.join(bad) if bad else 'clean'}"

    def __str__(self):
        lines = [self.summary()]
        lines += [f"  {name}: {s}" for name, kept in self.samples.items() for s in kept]
        return "\n".join(lines)


def judge(truth, start, notifications, operations=("update", "delete"), unchanged=False,
          unseen=None, fmt="debezium-json", encoding="json", name=None, kept_headers=True,
          notification_partitions=None):
    """A Verdict on everything that is in the notification topic.

    operations, unchanged, fmt, encoding: as the sidecar is configured. name: the pipeline's, to be
    compared where given. kept_headers: whether source headers must be copied (all of them).
    notification_partitions: number, where it differs from the source's."""
    unseen = unseen or {}
    verdict = Verdict(seen=len(notifications))
    tolds = []
    for note in notifications:
        try:
            tolds.append(understand(note, truth.topic, fmt, encoding))
        except Malformed as e:
            verdict.add("malformed", f"{note.partition}@{note.offset}: {e}")
    changes = _fold(truth, start, unseen, {t.identity for t in tolds})

    def wanted(change):
        if change.op == "=" and not unchanged:
            return False
        return OPERATION.get(change.op) in operations

    check = _Check(verdict, changes, name, kept_headers, notification_partitions, truth)
    seen = {}
    for told in tolds:
        verdict.gap += told.cause == "gap"
        verdict.reconcile += told.cause == "reconcile"
        verdict.omitted += (told.before.kind == "omitted") + (told.after.kind == "omitted")
        change = changes.get(told.identity)
        if told.identity in seen:
            verdict.add("doubled", f"{told}, first {seen[told.identity]}")
            continue
        seen[told.identity] = told
        if change is None or not (wanted(change) or told.cause == "gap"):
            verdict.add("unexpected", f"{told}: {change.op if change else 'no such news'}")
            continue
        check.one(told, change)
    check.pairs(seen.values())
    _check_keys(verdict, changes, seen, operations)
    _check_missing(verdict, changes, seen, wanted)
    return verdict


class _Check:
    """One notification against the change that it tells."""

    def __init__(self, verdict, changes, name, kept_headers, notification_partitions, truth):
        self.verdict = verdict
        self.changes = changes
        self.name = name
        self.kept_headers = kept_headers
        self.notification_partitions = notification_partitions
        self.topic = truth.topic
        self.truth = truth
        self._versions = None

    def one(self, told, change):
        verdict = self.verdict
        if told.note.key != change.key:
            verdict.add("wrong_key", f"{told}: written as {change.key!r}")
            return
        if told.cause == "gap":
            self.gap(told, change)
        else:
            op = "u" if change.op == "=" else change.op
            if told.op != op:
                verdict.add("wrong_op", f"{told}: is {op}")
            before = change.before.value if change.before else None
            if not told.before.is_value(before):
                verdict.add("wrong_before", f"{told}: {told.before} and not {before!r}")
        if not told.after.is_value(change.after):
            verdict.add("wrong_after", f"{told}: {told.after} and not {change.after!r}")
        self.place(told)
        self.envelope(told, change)
        self.headers(told, change)
        self.token(told)

    def gap(self, told, change):
        """An earlier version, honestly."""
        verdict = self.verdict
        before_offset = told.source.get("before_offset")
        if told.before.kind in ("null", "unknown"):
            op = "d" if change.after is None else "c"
            right = (told.before.kind == "unknown") == (op == "d") and before_offset is None
            before = None
        else:
            op = "d" if change.after is None else "u"
            before = self.version(told.identity[0], before_offset, change.key)
            right = before is not None and before_offset < told.identity[1] \
                and told.before.is_value(before)
        if told.op != op:
            verdict.add("wrong_op", f"{told}: is {op}")
        if not right:
            verdict.add("wrong_before", f"{told}: {told.before} of {before_offset}, {before!r}")

    def version(self, partition, offset, key):
        if self._versions is None:
            self._versions = {(p, r.offset): (r.key, r.value)
                              for p in range(len(self.truth.logs))
                              for r in self.truth.records(p)}
        found = self._versions.get((partition, offset))
        return found[1] if found and found[0] == key else None

    def place(self, told):
        expected = told.identity[0]
        if self.notification_partitions is not None:
            expected = murmur2_partition(told.note.key, self.notification_partitions)
        if told.note.partition != expected:
            self.verdict.add("wrong_partition", f"{told}: belongs to {expected}")

    def envelope(self, told, change):
        source = told.source
        p, offset, suffix = told.identity
        wrong = []
        expected = {"partition": p, "topic": self.topic}
        if not suffix:
            expected["offset"] = offset
            expected["ts_ms"] = change.timestamp
        if self.name is not None:
            expected["name"] = self.name
        if told.cause != "gap":
            expected["before_offset"] = change.before.offset if change.before else None
            expected["before_ts_ms"] = change.before.timestamp if change.before else None
        for name, value in expected.items():
            if source.get(name) != value:
                wrong.append(f"{name} {source.get(name)!r} and not {value!r}")
        if suffix and told.cause != "reconcile" or not suffix and told.cause == "reconcile":
            wrong.append(f"cause {told.cause}")
        if told.cause not in ("log", "gap", "reconcile"):
            wrong.append(f"cause {told.cause}")
        published = source.get("published")
        if not isinstance(published, int) or abs(published / 1000 - time.time()) > 86400:
            wrong.append(f"published {published!r}")
        if wrong:
            self.verdict.add("wrong_envelope", f"{told}: {', '.join(wrong)}")

    def token(self, told):
        """Right behind the record that is told; behind the old one of a key that was found gone."""
        partition, offset, gone = told.identity
        at = told.token[1]
        if told.token[0] != partition or (at <= offset if gone else at != offset + 1):
            self.verdict.add("wrong_headers", f"{told}: token {told.token}")

    def headers(self, told, change):
        expected = tuple((n, v) for n, v in change.headers
                         if not n.lower().startswith("sidenote.")) if self.kept_headers else ()
        if told.copied != expected:
            self.verdict.add("wrong_headers", f"{told}: {told.copied} and not {expected}")

    def pairs(self, tolds):
        """(partition, before_offset) is unique over updates and deletes: it is what consumers
        drop doubles by, and it binds a /gone to the delete in the log that it stands for."""
        by_pair = {}
        for told in tolds:
            before_offset = told.source.get("before_offset")
            if before_offset is None:
                continue
            first = by_pair.setdefault((told.identity[0], before_offset), told)
            if first is not told:
                self.verdict.add("doubled", f"{told}: same before_offset as {first}")


def _check_keys(verdict, changes, seen, operations):
    """Per key: in order, and each before is the after of the notification before it."""
    # Only if every way to change a value is notified, deletes that is, do values chain up.
    chains = "update" in operations and "delete" in operations
    place = {identity: i for i, identity in enumerate(changes)}
    last = {}
    for told in sorted(seen.values(), key=lambda t: (t.note.partition, t.note.offset)):
        if told.identity not in place:
            continue
        # Order is a promise within a partition; a wrong partition is counted as such.
        previous = last.get((told.note.key, told.note.partition))
        last[(told.note.key, told.note.partition)] = told
        if previous is None:
            continue
        if place[previous.identity] > place[told.identity]:
            verdict.add("out_of_order", f"{told} after {previous}")
        elif chains and told.cause != "gap" and previous.after.kind == "value" \
                and told.before.kind == "value" and told.before.bytes != previous.after.bytes:
            verdict.add("broken_chain", f"{told} after {previous}")


def _check_missing(verdict, changes, seen, wanted):
    """What was not told; what a later cause=gap of the same key covers is only coalesced."""
    covered = {}  # key -> place of its last gap notification
    for i, identity in enumerate(changes):
        told = seen.get(identity)
        if told is not None and told.cause == "gap":
            covered[changes[identity].key] = i
    for i, (identity, change) in enumerate(changes.items()):
        if not wanted(change):
            continue
        verdict.expected += 1
        if identity in seen:
            continue
        if covered.get(change.key, -1) > i:
            verdict.coalesced += 1
        else:
            p, offset, suffix = identity
            verdict.add("missing", f"{p}/{offset}{suffix and '/' + suffix} {change.op} "
                                   f"key {change.key!r}")


def murmur2_partition(key, partitions):
    """Kafka's default partitioner for a key."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ len(key)) & mask
    whole = len(key) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(key[i:i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = h * m & mask ^ k
    tail = key[whole:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    h ^= h >> 15
    return (h & 0x7FFFFFFF) % partitions


# ---------------------------------------------------------------- the snapshot

_HEADER = struct.Struct("<BBHiqqQ")
_FORMAT = 1
_HAS_KEY, _HAS_HEADERS, _TOMBSTONE = 1, 2, 4
KEY_VERBATIM_MAX = 479


def stored_key(key):
    """The LMDB key of a Kafka key, as the on-disk contract has it."""
    if 1 <= len(key) <= KEY_VERBATIM_MAX:
        return key
    return key[:KEY_VERBATIM_MAX].ljust(KEY_VERBATIM_MAX, b"\0") + hashlib.sha256(key).digest()


def decode_record(skey, data):
    """(key, Stored) of an LMDB entry; ValueError when it breaks the contract."""
    fmt, flags, zero, partition, offset, timestamp, _checksum = _HEADER.unpack_from(data)
    if fmt != _FORMAT or zero != 0 or flags & ~(_HAS_KEY | _HAS_HEADERS):
        raise ValueError(f"format {fmt}, flags {flags}, zero {zero} of {skey!r}")
    pos = _HEADER.size
    key = skey
    if flags & _HAS_KEY:
        (n,) = struct.unpack_from("<I", data, pos)
        key = data[pos + 4:pos + 4 + n]
        pos += 4 + n
    headers = ()
    if flags & _HAS_HEADERS:
        (n,) = struct.unpack_from("<I", data, pos)
        headers = decode_headers(data[pos + 4:pos + 4 + n])
        pos += 4 + n
    if stored_key(key) != skey or bool(flags & _HAS_KEY) != (key is not skey):
        raise ValueError(f"{key!r} stored as {skey!r}")
    return key, Stored(data[pos:], partition, offset, timestamp, headers)


def decode_headers(block):
    """u32 length and name, i32 length (-1: null) and value, and so on."""
    headers = []
    pos = 0
    while pos < len(block):
        (n,) = struct.unpack_from("<I", block, pos)
        name = block[pos + 4:pos + 4 + n].decode()
        pos += 4 + n
        (n,) = struct.unpack_from("<i", block, pos)
        pos += 4
        headers.append((name, None if n < 0 else block[pos:pos + n]))
        pos += max(n, 0)
    return tuple(headers)


LEASE_S = 2.0


def snapshot_of(state_dir, lease=LEASE_S, step=5000):
    """key -> Stored, read as any application may: no lock, and no read transaction older than a
    lease. It is one state only if the topic is quiet meanwhile. ValueError when a record breaks
    the contract, or the read cannot keep up."""
    for _ in range(20):
        directory = os.path.realpath(os.path.join(state_dir, "current"))
        env = lmdb.open(directory, readonly=True, lock=False, map_size=0, max_dbs=8)
        try:
            result = _scan(env, lease, step)
        finally:
            env.close()
        if os.path.realpath(os.path.join(state_dir, "current")) == directory:
            return result
    raise ValueError(f"{state_dir}: current changes all the time")


def _scan(env, lease, step):
    records = env.open_db(b"records", create=False)
    result = {}
    last = None
    failures = 0
    while True:
        begin = time.monotonic()
        part = []
        with env.begin(db=records) as txn:
            cursor = txn.cursor()
            found = cursor.first() if last is None else cursor.set_range(last)
            if found and last is not None and cursor.key() == last:
                found = cursor.next()
            while found and len(part) < step:
                part.append(cursor.item())
                found = cursor.next()
        if time.monotonic() - begin >= lease:  # pages of it may have been used again
            failures += 1
            if failures > 20:
                raise ValueError(f"{step} records take longer than the lease of {lease} s")
            continue
        for skey, data in part:
            key, stored = decode_record(skey, data)
            result[key] = stored
            last = skey
        if len(part) < step:
            return result


@dataclass
class SnapshotDiff:
    expected: int = 0
    found: int = 0
    missing: int = 0
    extra: int = 0
    wrong_value: int = 0
    wrong_position: int = 0   # partition, offset or timestamp
    wrong_headers: int = 0
    samples: dict = field(default_factory=dict)

    @property
    def clean(self):
        return not (self.missing or self.extra or self.wrong_value or self.wrong_position
                    or self.wrong_headers)

    def figures(self):
        return {name: value for name, value in vars(self).items() if name != "samples"}

    add = Verdict.add

    def summary(self):
        bad = [f"{getattr(self, n)} {n}" for n in ("missing", "extra", "wrong_value",
                                                   "wrong_position", "wrong_headers")
               if getattr(self, n)]
        return f"{self.expected} keys, {self.found} found: {', '.join(bad) if bad else 'equal'}"

    __str__ = Verdict.__str__


def compare_snapshot(snapshot, fold, headers=False):
    """A SnapshotDiff. headers: whether source headers are kept (state.headers=all)."""
    diff = SnapshotDiff(expected=len(fold), found=len(snapshot))
    for key, want in fold.items():
        have = snapshot.get(key)
        if have is None:
            diff.add("missing", f"{key!r}: {want}")
            continue
        if have.value != want.value:
            diff.add("wrong_value", f"{key!r}: {have} and not {want}")
        if (have.partition, have.offset, have.timestamp) != (want.partition, want.offset,
                                                             want.timestamp):
            diff.add("wrong_position", f"{key!r}: {have} and not {want}")
        if headers and have.headers != want.headers:
            diff.add("wrong_headers", f"{key!r}: {have.headers} and not {want.headers}")
    for key, have in snapshot.items():
        if key not in fold:
            diff.add("extra", f"{key!r}: {have}")
    return diff
