"""Seeded workloads for a compacted topic, and the ground truth of what they wrote.

    work = Workload(kafka, "users", seed=7)
    work.load(100_000)                       # every key once
    work.change(20_000)                      # a mix of everything that can happen to a key
    work.change({"update": 900, "delete": 50, "hot": 10}, rate=2000)
    truth = work.truth                       # every record with its offset

The ground truth holds what the brokers said they wrote (delivery reports), record by record, also
what compaction removes later. The workload is the only writer of its topic; whoever writes by
another way appends to `truth` with GroundTruth.append, or takes GroundTruth.read_back of a topic
that was not compacted yet.

The same seed and the same calls make the same records, timestamps aside.
"""

import base64
import random
import threading
import time
import zlib
from array import array
from typing import NamedTuple, Optional


class Record(NamedTuple):
    partition: int
    offset: int
    key: bytes
    value: Optional[bytes]
    timestamp: int
    headers: tuple


class Stored(NamedTuple):
    """The latest record of a key, as a snapshot must hold it."""
    value: bytes
    partition: int
    offset: int
    timestamp: int
    headers: tuple


class _PartitionLog:
    """Columns, because a million records as objects would cost a gigabyte."""

    def __init__(self):
        self.offsets = array("q")
        self.keys = []
        self.values = []
        self.timestamps = array("q")
        self.headers = {}  # index -> headers, where there are any


class GroundTruth:
    """The whole log of a topic: per partition, in order of the offset."""

    def __init__(self, topic, partitions):
        self.topic = topic
        self.logs = [_PartitionLog() for _ in range(partitions)]

    def append(self, partition, offset, key, value, timestamp, headers=()):
        while partition >= len(self.logs):
            self.logs.append(_PartitionLog())
        log = self.logs[partition]
        if log.offsets and offset <= log.offsets[-1]:
            raise ValueError(f"{self.topic}/{partition}: offset {offset} after {log.offsets[-1]}")
        if headers:
            log.headers[len(log.offsets)] = tuple(headers)
        log.offsets.append(offset)
        log.keys.append(key)
        log.values.append(value)
        log.timestamps.append(timestamp)

    @classmethod
    def read_back(cls, kafka, topic):
        """The topic as it reads now with read_committed."""
        truth = cls(topic, len(kafka.partitions(topic)))
        for m in kafka.read(topic):
            truth.append(m.partition(), m.offset(), m.key(), m.value(), m.timestamp()[1],
                         m.headers() or ())
        return truth

    def __len__(self):
        return sum(len(log.offsets) for log in self.logs)

    def records(self, partition):
        log = self.logs[partition]
        headers = log.headers
        for i, offset in enumerate(log.offsets):
            yield Record(partition, offset, log.keys[i], log.values[i], log.timestamps[i],
                         headers.get(i, ()))

    def ends(self):
        """partition -> one more than the last offset written (control records not counted)."""
        return {p: (log.offsets[-1] + 1 if log.offsets else 0)
                for p, log in enumerate(self.logs)}

    def fold(self, upto=None):
        """key -> Stored: what is left when every record was applied; `upto`: partition -> offset
        before which to stop."""
        result = {}
        for p in range(len(self.logs)):
            end = None if upto is None else upto.get(p, 0)
            for r in self.records(p):
                if end is not None and r.offset >= end:
                    break
                if r.value is None:
                    result.pop(r.key, None)
                else:
                    result[r.key] = Stored(r.value, p, r.offset, r.timestamp, r.headers)
        return result

    def missing_offsets(self, kafka, since=None):
        """partition -> set of offsets that were written and can no longer be read; `since`:
        partition -> offset from which on to look."""
        present = {p: set() for p in range(len(self.logs))}
        for m in kafka.read(self.topic):
            present[m.partition()].add(m.offset())
        since = since or {}
        return {p: {o for o in log.offsets if o >= since.get(p, 0) and o not in present[p]}
                for p, log in enumerate(self.logs)}


# ---------------------------------------------------------------- values

_PAD = base64.b64encode(bytes(random.Random(1).randbytes(3000))).decode()

# JSON objects that a careless parser, printer or scanner gets wrong. %d makes versions differ.
_AWKWARD = (
    '{"before":{"after":null},"after":{"before":[%d]},"op":"d","source":{}}',
    '{ "spaced" : %d ,\t"tab" : true ,\n"newline" : null , "crlf":\r\n1 }',
    '{"quote":"\\"%d\\"","backslash":"\\\\","both":"\\\\\\"","brace":"}{][","end":"\\\\"}',
    '{"big":123456789012345678901234567890%d,"digits":0.10000000000000000000%d,"e":1E400,"z":-0}',
    '{"unicode":"\u00fc\u4e2d\U0001f600 %d","escaped":"\\u00fc\\ud83d\\ude00\\u0000\\n"}',
    '{"twice":%d,"twice":2,"":"","deep":[[[[[[{"a":[{}]}]]]]]]}',
    '{"null":"null","sidenote.base64":"AAAA","n":%d}',
    '{}',
)
# Values that are not JSON objects; the envelope wraps them.
_NOT_JSON_OBJECTS = (
    b"", b"[1,2,%d]", b'"text %d"', b"%d", b"null", b'{"cut":%d', b"\x00\xff\xfe%d",
    b'{"a":%d} x', b"{'single':%d}", b'{"a":0%d1}', b'{"bad utf-8":"\xc3%d"}',
    b'{"a":NaN,"b":%d}', b'{"a":%d,}',
)


def _fill(template, n):
    """%d, as often as it occurs, by n."""
    return template.replace("%d" if isinstance(template, str) else b"%d",
                            str(n) if isinstance(template, str) else b"%d" % n)


# ---------------------------------------------------------------- the workload

# change(n) divides n by these weights.
DEFAULT_MIX = {
    "update": 62,
    "delete": 10,
    "recreate": 8,         # a put on a key that was deleted
    "create": 3,           # a put on a key that never was
    "rewrite": 10,         # the same bytes again
    "delete_absent": 2,    # a tombstone on a key that is not there
    "hot": 0.5,            # one key, `hot_changes` records in a row
}


class Workload:
    """Writes a topic and records the ground truth.

    value_bytes: typical size of a value, at least 60. awkward: share of the values that are hard
    to copy through (still JSON objects). not_json: share of the values that are no JSON objects.
    headers: share of the records that have headers. compression: of the producer."""

    def __init__(self, kafka, topic, seed=1, value_bytes=200, awkward=0.02, not_json=0.0,
                 headers=0.0, key_format=b"key-%08d", compression="none", **producer_config):
        self.topic = topic
        self.partitions = len(kafka.partitions(topic))
        self.truth = GroundTruth(topic, self.partitions)
        self.counts = {}
        self._rng = random.Random(seed)
        self._value_bytes = value_bytes
        self._awkward = awkward
        self._not_json = not_json
        self._headers = headers
        self._key_format = key_format
        self._next_key = 0
        self._revision = 0
        self._present = {}        # key -> value
        self._order = []          # present keys, for a choice in O(1); may hold stale ones
        self._absent = []         # deleted keys; may hold stale ones
        self._errors = []
        self._threads = []
        config = {
            "linger.ms": 5,
            "batch.num.messages": 10000,
            "batch.size": 900000,
            "queue.buffering.max.messages": 500000,
            "compression.type": compression,
        }
        config.update({name.replace("_", "."): value for name, value in producer_config.items()})
        self._producer = kafka.producer(**config)

    # ------------------------------------------------------------ one record

    def put(self, key, value, headers=(), timestamp=None):
        """Writes one record, value None being a tombstone. Not delivered before flush()."""
        p = self.partition_of(key)
        log = self.truth.logs[p]
        if timestamp is None:
            timestamp = int(time.time() * 1000)
        while True:
            try:
                if headers:
                    self._producer.produce(self.topic, value, key, p, self._delivered,
                                           timestamp=timestamp, headers=list(headers))
                else:
                    self._producer.produce(self.topic, value, key, p, self._delivered,
                                           timestamp=timestamp)
                break
            except BufferError:
                self._producer.poll(0.05)
        # The order of delivery reports within a partition is the order of produce, since the
        # producer is idempotent: so the offset joins its columns later.
        if headers:
            log.headers[len(log.keys)] = tuple(headers)
        log.keys.append(key)
        log.values.append(value)
        log.timestamps.append(timestamp)
        if value is None:
            if self._present.pop(key, None) is not None:
                self._absent.append(key)
        else:
            if key not in self._present:
                self._order.append(key)
            self._present[key] = value

    def partition_of(self, key):
        return zlib.crc32(key) % self.partitions

    def _delivered(self, error, message):
        if error is not None:
            self._errors.append(error)
        else:
            self.truth.logs[message.partition()].offsets.append(message.offset())

    def flush(self, timeout=120):
        """Waits for the delivery reports. After it `truth` is complete."""
        left = self._producer.flush(timeout)
        if self._errors:
            raise RuntimeError(f"{len(self._errors)} records not written: {self._errors[0]}")
        if left:
            raise TimeoutError(f"{left} records not delivered within {timeout} s")

    # ------------------------------------------------------------ many records

    def present_keys(self):
        return list(self._present)

    def new_key(self):
        key = self._key_format % self._next_key
        self._next_key += 1
        return key

    def new_value(self):
        """Never the same bytes twice, a few awkward ones aside."""
        rng = self._rng
        self._revision += 1
        n = self._revision
        if self._awkward and rng.random() < self._awkward:
            return _fill(rng.choice(_AWKWARD), n).encode()
        if self._not_json and rng.random() < self._not_json:
            return _fill(rng.choice(_NOT_JSON_OBJECTS), n)
        pad = int(rng.random() * 1000)
        text = f'{{"rev":{n},"amount":{pad}.{n:07d},"active":true,"text":"'
        return (text + _PAD[pad:pad + max(0, self._value_bytes - len(text) - 2)] + '"}').encode()

    def new_headers(self):
        if not self._headers or self._rng.random() >= self._headers:
            return ()
        return (("schema", b"\x00\x00\x00\x07"), ("trace", b"%d" % self._revision),
                ("trace", b"again"), ("sidenote.op", b"inbound, to be dropped"), ("none", None))

    def load(self, n_keys, rate=None):
        """Writes n_keys new keys, each once."""
        self._run(("create" for _ in range(n_keys)), rate, 0)
        self.flush()

    def change(self, what, rate=None, hot_changes=20):
        """Writes changes in random order: `what` is a number, divided by DEFAULT_MIX, or a dict
        of kind -> number. rate: records per second, None for flat out. Returns the number of
        records written."""
        if not isinstance(what, dict):
            records = sum(w * (hot_changes if k == "hot" else 1) for k, w in DEFAULT_MIX.items())
            what = {kind: max(1, round(what * weight / records))
                    for kind, weight in DEFAULT_MIX.items()}
        kinds = [kind for kind, n in what.items() for _ in range(n)]
        self._rng.shuffle(kinds)
        written = self._run(kinds, rate, hot_changes)
        self.flush()
        return written

    def _run(self, kinds, rate, hot_changes):
        begin = time.monotonic()
        written = 0
        step = max(1, min(1000, int(rate / 50))) if rate else 1000
        next_step = step
        for kind in kinds:
            n = self._one(kind, hot_changes)
            self.counts[kind] = self.counts.get(kind, 0) + 1
            written += n
            if written >= next_step:
                next_step = written + step
                self._producer.poll(0)
                if self._errors:
                    raise RuntimeError(f"records not written: {self._errors[0]}")
                if rate:
                    ahead = begin + written / rate - time.monotonic()
                    while ahead > 0:
                        self._producer.poll(min(ahead, 0.05))
                        ahead = begin + written / rate - time.monotonic()
        return written

    def _one(self, kind, hot_changes):
        if kind == "create":
            self.put(self.new_key(), self.new_value(), self.new_headers())
        elif kind == "update":
            self.put(self._any_present(), self.new_value(), self.new_headers())
        elif kind == "delete":
            self.put(self._any_present(), None, self.new_headers())
        elif kind == "rewrite":
            key = self._any_present()
            self.put(key, self._present[key], self.new_headers())
        elif kind == "recreate":
            self.put(self._any_absent() or self.new_key(), self.new_value(), self.new_headers())
        elif kind == "delete_absent":
            key = self._any_absent()
            if key is None:
                key = b"never-there"
            else:
                self._absent.append(key)  # it stays absent: keep it to be recreated
            self.put(key, None)
        elif kind == "hot":
            return self._hot(hot_changes)
        else:
            raise ValueError(kind)
        return 1

    def _hot(self, n):
        key = self._any_present()
        for _ in range(n):
            dice = self._rng.random()
            if dice < 0.1:
                self.put(key, None)
            elif dice < 0.2 and key in self._present:
                self.put(key, self._present[key])
            else:
                self.put(key, self.new_value())
        return n

    def _any_present(self):
        """A key that is there. Stale entries are dropped on the way."""
        while self._order:
            i = int(self._rng.random() * len(self._order))
            key = self._order[i]
            if key in self._present:
                return key
            self._order[i] = self._order[-1]
            self._order.pop()
        key = self.new_key()
        self.put(key, self.new_value())
        return key

    def _any_absent(self):
        while self._absent:
            i = int(self._rng.random() * len(self._absent))
            key = self._absent[i]
            self._absent[i] = self._absent[-1]
            self._absent.pop()
            if key not in self._present:
                return key
        return None

    # ------------------------------------------------------------ beside something else

    def in_background(self, function, *args, **kwargs):
        """Runs e.g. self.change in a thread; the caller must not use the workload until
        wait_background(), which passes an exception on."""
        outcome = {}

        def target():
            try:
                outcome["result"] = function(*args, **kwargs)
            except BaseException as e:  # handed to whoever waits
                outcome["error"] = e

        thread = threading.Thread(target=target, daemon=True)
        self._threads.append((thread, outcome))
        thread.start()
        return thread

    def wait_background(self, timeout=600):
        for thread, outcome in self._threads:
            thread.join(timeout)
            if thread.is_alive():
                raise TimeoutError("the workload in the background does not end")
            if "error" in outcome:
                raise outcome["error"]
        self._threads = []
