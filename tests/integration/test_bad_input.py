"""The rows of docs/bad-input.md: what goes on goes on and is told exactly, what stops says one line
that names the thing and the way out, and the way out, taken as it is said, works."""

import contextlib
import ctypes
import json
import os
import re
import subprocess
import tempfile
import time
import unittest

import confluent_kafka
import lmdb

import oracle
from broker import COMPACT_NEVER, Kafka, free_port, wait_until
from rig import RigTest, shared_kafka
from sidecar import Sidecar
from workload import Workload

# A lease of a tenth of a second: a restart has to wait for one.
QUICK = {"state.lease.ms": "100"}
GO_ON, USAGE, NOT_READY, BROKEN = None, 2, 3, 4
MB = 1 << 20

_LINE = re.compile(r"^\S+Z (error|warn|info|debug) (?:(SN-[A-Z-]+) )?(.*)$")


def said(sidecar, since=0):
    """(level, id or None, text) of each line of the log, from byte `since` on."""
    return [m.groups() for m in map(_LINE.match, sidecar.log_text()[since:].splitlines()) if m]


def delete_group(kafka, group):
    """As kafka-consumer-groups.sh --delete would; confluent-kafka 1.7 cannot."""
    lib = ctypes.CDLL("librdkafka.so.1")
    for name in ("conf_new", "new", "DeleteGroup_new", "queue_new", "queue_poll",
                 "event_DeleteGroups_result", "DeleteGroups_result_groups", "group_result_error"):
        getattr(lib, f"rd_kafka_{name}").restype = ctypes.c_void_p
    void = ctypes.c_void_p
    err = ctypes.create_string_buffer(512)
    conf = void(lib.rd_kafka_conf_new())
    lib.rd_kafka_conf_set(conf, b"bootstrap.servers", kafka.bootstrap.encode(), err, 512)
    lib.rd_kafka_conf_set(conf, b"log_level", b"2", err, 512)
    rk = void(lib.rd_kafka_new(0, conf, err, ctypes.c_size_t(512)))
    queue = void(lib.rd_kafka_queue_new(rk))
    one = (void * 1)(lib.rd_kafka_DeleteGroup_new(group.encode()))
    try:
        lib.rd_kafka_DeleteGroups(rk, one, ctypes.c_size_t(1), None, queue)
        event = void(lib.rd_kafka_queue_poll(queue, 20000))
        code = lib.rd_kafka_event_error(event)
        if not code:
            n = ctypes.c_size_t()
            results = void(lib.rd_kafka_DeleteGroups_result_groups(
                void(lib.rd_kafka_event_DeleteGroups_result(event)), ctypes.byref(n)))
            first = ctypes.cast(results, ctypes.POINTER(void))[0]
            error = lib.rd_kafka_group_result_error(void(first))
            code = lib.rd_kafka_error_code(void(error)) if error else 0
        lib.rd_kafka_event_destroy(event)
        if code:
            raise confluent_kafka.KafkaException(confluent_kafka.KafkaError(code))
    finally:
        lib.rd_kafka_DeleteGroup_destroy(void(one[0]))
        lib.rd_kafka_queue_destroy(queue)
        lib.rd_kafka_destroy(rk)


def edit_meta(sidecar, name, text):
    """Overwrites a text of the state's meta database; the sidecar must not run."""
    env = lmdb.open(os.path.join(sidecar.state_dir, "current"), max_dbs=8, lock=False)
    with env.begin(write=True) as txn:
        txn.put(name.encode(), text.encode(), db=env.open_db(b"meta", txn=txn, create=False))
    env.close()


def data_file(sidecar):
    return os.path.join(os.path.realpath(os.path.join(sidecar.state_dir, "current")), "data.mdb")


class BadInput(RigTest):
    def sidecar(self, topic, options=None, name=None, kafka=None):
        return super().sidecar(topic, {**QUICK, **(options or {})}, name, kafka)

    def loaded(self, keys=50, config=COMPACT_NEVER, partitions=2, kafka=None):
        topic = self.topic(partitions, config, kafka)
        work = self.workload(topic, kafka)
        work.load(keys)
        return topic, work

    def running(self, topic, options=None, **more):
        """A sidecar that is caught up, and where its news begin: (sidecar, start)."""
        sidecar = self.sidecar(topic, options, **more).start()
        sidecar.wait_ready()
        sidecar.wait_published()
        return sidecar, sidecar.kafka.end_offsets(topic)

    def stopped(self, keys=50, options=None):
        """A sidecar that ran and was ended: (topic, workload, sidecar, start)."""
        topic, work = self.loaded(keys)
        sidecar, start = self.running(topic, options)
        work.change(keys)
        sidecar.wait_published()
        sidecar.term()
        return topic, work, sidecar, start

    # ------------------------------------------------------------ judgement

    def ends(self, sidecar, code, ids, *texts, since=0, timeout=30):
        """It ends with this status, and with one line of error: its id is (one of) `ids`, and all
        of `texts` are in it. Returns the line's text."""
        sidecar.wait_exit(code, timeout)
        errors = [(i, text) for level, i, text in said(sidecar, since) if level == "error"]
        self.assertEqual(len(errors), 1, errors)
        self.assertIn(errors[0][0], (ids,) if isinstance(ids, str) else ids, errors)
        for text in texts:
            self.assertIn(text, errors[0][1])
        return errors[0][1]

    def refused(self, sidecar, code, ids, *texts, timeout=30):
        """The same of a start."""
        since = len(sidecar.log_text())
        sidecar.start()
        return self.ends(sidecar, code, ids, *texts, since=since, timeout=timeout)

    def no_errors(self, sidecar, since=0):
        errors = [line for line in said(sidecar, since) if line[0] == "error"]
        self.assertEqual(errors, [])

    def goes_on(self, sidecar, work, start, **options):
        """It runs or is started, tells what is written now, and all of it was right so far."""
        if not sidecar.alive():
            sidecar.start()
        work.change(50)
        sidecar.wait_published()
        verdict = self.assert_clean(work, start, sidecar, **options)
        self.assert_snapshot(work, sidecar)
        sidecar.term()
        return verdict

    def notes(self, sidecar):
        return oracle.read_notifications(sidecar.kafka, sidecar.notifications_topic)


# ---------------------------------------------------------------- records

JSON = b'{"v":1}'
# name -> (key, before, after, headers of the change)
NOT_OBJECTS = {
    "invalid UTF-8": b'{"a":"\xc3("}', "a byte order mark": b'\xef\xbb\xbf{"a":1}',
    "a cut": b'{"a":', "a comma too many": b'{"a":1,}', "two objects": b'{}{}',
    "a lone surrogate": b'{"a":"\\ud800"}', "NaN": b'{"a":NaN}', "bytes": bytes(range(256)),
    "5000 levels": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "100000 levels": b"[" * 100000 + b"]" * 100000,
    "an array": b"[1]", "a string": b'"text"', "a number": b"17", "null": b"null",
    "true": b"true", "white space": b"  \n",
}
OBJECTS = {
    "512 levels": b'{"a":' * 512 + b"1" + b"}" * 512,
    "great numbers": b'{"a":1e999,"b":-0,"c":123456789012345678901234567890.50}',
    "repeated names": b'{"a":1,"a":2,"":3,"":4}', "a NUL escape": b'{"\\u0000":"\\u0000"}',
    "white space around": b' \r\n{ "a" :\t1 }\n ', "forged": b'{"sidenote.base64":"AA==","x":1}',
}
HOSTILE = (("sidenote.id", b"forged"), ("SideNote.OP", b"d"), ("sidenote.", b""), ("", b"x"),
           ("a\r\nb: c", b"\r\n\r\n"), ("again", b"1"), ("again", b"2"), ("null", None),
           ("empty", b""), ("\u00fc" * 1000, b"name"), ("large", b"x" * 100_000),
           ("bytes", bytes(range(256))))
ROWS = {
    "empty key": (b"", JSON, b'{"v":2}', ()),
    "empty after": (b"empty-after", JSON, b"", ()),
    "empty before": (b"empty-before", b"", JSON, ()),
    "deleted empty": (b"deleted-empty", b"", None, ()),
    "large before": (b"large-before", b"b" * 2 * MB, JSON, ()),
    "large after": (b"large-after", JSON, b"a" * 2 * MB, ()),
    "large together": (b"together", b"b" * 600_000, b"a" * 590_000, ()),
    "large both": (b"both", b"b" * 2 * MB, b"a" * 3 * MB, ()),
    "huge": (b"huge", b"b" * 6 * MB, b"a" * 7 * MB, ()),
    "deleted huge": (b"deleted-huge", b"b" * 5 * MB, None, ()),
    "long ago": (b"long-ago", JSON, b'{"v":2}', ()),
    "hostile headers": (b"hostile", JSON, b'{"v":2}', HOSTILE),
    **{f"key of {n}": (b"k" * n, JSON, b'{"v":2}', ()) for n in (478, 479, 480, 511, 512, 5000)},
    **{f"key {tail!r}": (b"k" * 479 + tail, JSON, None, ()) for tail in (b"\0", b"x" * 32)},
    **{n: (f"not {n}".encode(), JSON, v, ()) for n, v in NOT_OBJECTS.items()},
    **{n: (n.encode(), v, v + b" ", ()) for n, v in OBJECTS.items()},
}


class Content:
    """Rows that share one topic and one run. Each row is a key that is put before the sidecar
    starts and changed once afterwards; a test looks at what was told of it."""

    FORMAT = "debezium-json"
    ENCODING = "json"

    @classmethod
    def setUpClass(cls):
        cls.kafka = shared_kafka()
        cls.stack = contextlib.ExitStack()
        cls.addClassCleanup(cls.stack.close)
        topic = cls.kafka.create_topic(f"{cls.__name__}-{time.time_ns()}", 3, {
            **COMPACT_NEVER, "max.message.bytes": 16 * MB})
        # One request at a time: a report without an offset is what the rig cannot use.
        cls.work = Workload(cls.kafka, topic, message_max_bytes=16 * MB,
                            max_in_flight_requests_per_connection=1)
        cls.subject = cls.stack.enter_context(Sidecar(cls.kafka, topic, topic, {
            "notifications.format": cls.FORMAT, "notifications.encoding": cls.ENCODING, **QUICK}))
        for key, before, _, _ in ROWS.values():
            cls.work.put(key, before)
        cls.work.put(b"large headers", JSON)
        cls.work.flush()
        cls.subject.start()
        cls.subject.wait_published()
        cls.start = cls.kafka.end_offsets(topic)
        for name, (key, _, after, headers) in ROWS.items():
            cls.work.put(key, after, headers, timestamp=1 if name == "long ago" else None)
        cls.work.flush()
        cls.put_large_headers()
        cls.subject.wait_published()
        cls.notes = oracle.read_notifications(cls.kafka, cls.subject.notifications_topic)

    @classmethod
    def put_large_headers(cls):
        """Past the workload: the ground truth must not expect to see them again."""
        producer = cls.kafka.producer(**{"message.max.bytes": 16 * MB})
        cls.sent = []
        now = int(time.time() * 1000)
        key = b"large headers"
        producer.produce(cls.work.topic, key=key, value=b'{"v":2}', timestamp=now,
                         partition=cls.work.partition_of(key),
                         headers=[("a", b"x" * MB), ("b", b"y" * MB)],
                         on_delivery=lambda _, m: cls.sent.append(m))
        assert producer.flush(30) == 0
        cls.work.truth.append(cls.sent[0].partition(), cls.sent[0].offset(), key, b'{"v":2}', now)

    def setUp(self):
        self._sidecars = [type(self).subject]

    def told(self, name):
        """The one notification of a row, and that it shows both values, or what they were."""
        key, before, after, _ = ROWS[name]
        told = self.told_of(key)
        self.assertTrue(told.before.is_value(before), f"{told.before!s:.300}")
        self.assertTrue(told.after.is_value(after), f"{told.after!s:.300}")
        self.assertEqual(told.op, "d" if after is None else "u")
        return told

    def told_of(self, key):
        notes = [n for n in self.notes if n.key == key]
        self.assertEqual(len(notes), 1)
        return oracle.understand(notes[0], self.work.topic, self.FORMAT, self.ENCODING)

    def kinds(self, name):
        told = self.told(name)
        return told.before.kind, told.after.kind

    def test_all_of_it_is_told_exactly_and_stored(self):
        verdict = oracle.judge(self.work.truth, self.start, self.notes, name=self.work.topic,
                               fmt=self.FORMAT, encoding=self.ENCODING)
        self.assertTrue(verdict.clean, f"\n{verdict}")
        self.assertEqual(verdict.expected, len(ROWS) + 1)
        diff = oracle.compare_snapshot(oracle.snapshot_of(self.subject.state_dir),
                                       self.work.truth.fold())
        self.assertTrue(diff.clean, f"\n{diff}")
        self.assertEqual([line for line in said(self.subject) if line[0] in ("error", "warn")
                          and line[1] != "SN-SOURCE-TOMBSTONES"], [])

    def test_an_empty_key_is_a_key(self):
        self.told("empty key")

    def test_keys_of_any_length_are_keys(self):
        for name in ROWS:
            if name.startswith("key "):
                with self.subTest(name):
                    self.told(name)

    def test_an_empty_value_is_no_delete(self):
        for name in ("empty after", "empty before", "deleted empty"):
            with self.subTest(name):
                self.told(name)

    def test_the_larger_side_is_omitted_when_both_do_not_fit(self):
        self.assertEqual(self.kinds("large before"), ("omitted", "value"))
        self.assertEqual(self.kinds("large after"), ("value", "omitted"))
        self.assertEqual(self.kinds("large together"), ("omitted", "value"))

    def test_both_sides_are_omitted_when_neither_fits(self):
        self.assertEqual(self.kinds("large both"), ("omitted", "omitted"))

    def test_a_value_of_several_megabytes_is_stored_and_told(self):
        self.assertEqual(self.kinds("huge"), ("omitted", "omitted"))
        self.assertEqual(self.kinds("deleted huge"), ("omitted", "null"))

    def test_what_is_no_json_object_is_told_byte_for_byte(self):
        for name in NOT_OBJECTS:
            with self.subTest(name):
                told = self.told(name)
                if (self.FORMAT, self.ENCODING) == ("debezium-json", "json"):
                    after = oracle.raw_members(told.note.value)["after"]
                    self.assertTrue(after.startswith(b'{"sidenote.base64":"'), after[:100])

    def test_a_json_object_is_spliced_byte_for_byte(self):
        for name in OBJECTS:
            with self.subTest(name):
                key, before, after, _ = ROWS[name]
                if (self.FORMAT, self.ENCODING) == ("debezium-json", "json"):
                    members = oracle.raw_members(self.told_of(key).note.value)
                    self.assertEqual(members["before"], before)
                    self.assertEqual(members["after"], after)
                else:
                    self.told(name)

    def test_headers_of_the_source_cannot_forge_ours(self):
        told = self.told("hostile headers")
        self.assertEqual(told.copied, tuple(h for h in HOSTILE
                                            if not h[0].lower().startswith("sidenote.")))
        self.assertEqual([v for n, v in told.note.headers if n.lower() == "sidenote.op"], [b"u"])

    def test_headers_that_do_not_fit_are_counted(self):
        told = self.told_of(b"large headers")
        self.assertEqual((told.before.bytes, told.after.bytes), (JSON, b'{"v":2}'))
        self.assertEqual(told.copied, ())
        self.assertIn(("sidenote.headers.omitted", b"2"), told.note.headers)

    def test_a_record_of_1970_is_a_record(self):
        self.assertEqual(self.told("long ago").source["ts_ms"], 1)


class ContentAsJson(Content, RigTest):
    pass


class ContentAsBase64(Content, RigTest):
    ENCODING = "base64"


class ContentRaw(Content, RigTest):
    FORMAT = "raw"


class Keys(BadInput):
    def keyless(self, topic, n):
        """A compacted topic takes none, so for that moment it is not one."""
        self.kafka.alter_config(topic, {"cleanup.policy": "delete"})
        producer = self.kafka.producer()
        written = []

        def write():  # refused until the broker goes by the new policy
            producer.produce(topic, value=b'{"v":1}', partition=0,
                             on_delivery=lambda error, _: error or written.append(1))
            self.assertEqual(producer.flush(30), 0)
            return len(written) == n

        wait_until(write, 20, "records without a key are written")
        self.kafka.alter_config(topic, {"cleanup.policy": "compact"})

    def test_a_record_without_a_key_is_passed_over_while_filling(self):
        topic, work = self.loaded()
        self.keyless(topic, 3)
        sidecar, start = self.running(topic)
        self.assertEqual([i for _, i, _ in said(sidecar)].count("SN-KEYLESS"), 1)
        self.goes_on(sidecar, work, start)

    def test_a_record_without_a_key_is_passed_over_while_running(self):
        topic, work = self.loaded()
        sidecar, start = self.running(topic)
        for _ in range(2):
            self.keyless(topic, 3)
            sidecar.wait_published()
        self.assertEqual([i for _, i, _ in said(sidecar)].count("SN-KEYLESS"), 1)
        self.goes_on(sidecar, work, start)

    def moved(self, *records):
        """Writes (partition, value, timestamp) of one key, in this order."""
        producer = self.kafka.producer()
        for partition, value, timestamp in records:
            producer.produce(self.moving, key=b"moved", value=value, partition=partition,
                             timestamp=timestamp)
            self.assertEqual(producer.flush(30), 0)

    def test_a_key_that_moves_stops_it_and_is_told_with_source_moved_timestamp(self):
        self.moving = topic = self.topic(2)
        now = int(time.time() * 1000)
        self.moved((0, b'{"v":1}', now))
        sidecar, _ = self.running(topic)
        self.moved((1, b'{"v":2}', now + 1))
        text = self.ends(sidecar, BROKEN, "SN-KEY-MOVED", topic, "'moved'", "1/0", "partition 0")
        option = re.search(r"source\.moved=timestamp", text)
        self.assertIsNotNone(option, text)
        sidecar.configure(dict([option[0].split("=")]))
        sidecar.start()
        sidecar.wait_published()
        # one after the other: between partitions there is no order in which they are read
        for record in (0, b'{"late":1}', now - 1), (0, b'{"v":3}', now + 2), (1, None, now + 3):
            self.moved(record)
            sidecar.wait_published()
        told = [oracle.understand(n, topic) for n in self.notes(sidecar)]
        told.sort(key=lambda t: t.source["ts_ms"])
        self.assertEqual([(t.op, t.before.bytes, t.after.bytes) for t in told], [
            ("u", b'{"v":1}', b'{"v":2}'), ("u", b'{"v":2}', b'{"v":3}'), ("d", b'{"v":3}', None)])
        self.assertEqual(oracle.snapshot_of(sidecar.state_dir), {})
        sidecar.term()

    def test_a_key_that_moved_before_the_first_start_stops_the_fill(self):
        self.moving = topic = self.topic(2)
        now = int(time.time() * 1000)
        self.moved((0, b'{"v":2}', now), (1, b'{"v":1}', now - 1))
        sidecar = self.sidecar(topic)
        self.refused(sidecar, BROKEN, "SN-KEY-MOVED", "'moved'", "source.moved=timestamp")
        sidecar.configure({"source.moved": "timestamp"})
        sidecar.start()
        sidecar.wait_published()
        self.assertEqual(oracle.snapshot_of(sidecar.state_dir)[b"moved"].value, b'{"v":2}')
        sidecar.term()

    def test_a_key_that_no_notification_can_carry_waits_for_the_limit_that_is_named(self):
        topic = self.topic(2, {**COMPACT_NEVER, "max.message.bytes": 16 * MB})
        work = self.workload(topic, message_max_bytes=16 * MB)
        key = b"k" * 3 * MB
        work.put(key, b'{"v":1}')
        work.load(20)
        sidecar, start = self.running(topic)
        work.put(key, b'{"v":2}')
        work.flush()
        sidecar.wait_log("SN-NOTIFICATION-TOO-LARGE")
        line = next(x for x in sidecar.log_text().splitlines() if "TOO-LARGE" in x)
        self.assertIn(sidecar.notifications_topic, line)
        self.assertIn("kkkk", line)
        self.assertLess(len(line), 1000)
        limit = int(re.search(r"max\.message\.bytes=(\d+)", line)[1])
        self.assertTrue(3 * MB < limit < 3 * MB + 8192, limit)
        work.change(20)  # the snapshot does not wait
        wait_until(lambda: oracle.compare_snapshot(oracle.snapshot_of(sidecar.state_dir),
                                                   work.truth.fold()).clean, 30,
                   "the snapshot goes on")
        self.kafka.alter_config(sidecar.notifications_topic, {"max.message.bytes": limit})
        sidecar.wait_published()
        self.assertEqual(sidecar.starts, 1)
        verdict = self.assert_clean(work, start, sidecar)
        self.assertEqual(verdict.gap, 0)
        sidecar.term()


# ---------------------------------------------------------------- configuration and topics

class Configuration(BadInput):
    def test_an_unknown_option_is_refused_with_the_nearest_name(self):
        topic, work = self.loaded()
        sidecar = self.sidecar(topic, {"notification.topic": "other"})
        text = self.refused(sidecar, USAGE, "SN-CONFIG", "notification.topic", "did you mean")
        sidecar.configure({"notification.topic": None,
                           re.search(r"did you mean (\S+)\?", text)[1]: self.unique("notes")})
        start = self.kafka.end_offsets(topic)
        sidecar.start()
        sidecar.wait_published()
        self.goes_on(sidecar, work, start)

    def test_a_missing_source_topic_is_refused(self):
        topic = self.unique()
        sidecar = self.sidecar(topic)
        self.refused(sidecar, USAGE, "SN-SOURCE-MISSING", topic, "create it")
        self.kafka.create_topic(topic, 2, COMPACT_NEVER)
        work = self.workload(topic)
        work.load(10)
        start = self.kafka.end_offsets(topic)
        sidecar.start()
        sidecar.wait_published()
        self.goes_on(sidecar, work, start)

    def test_a_missing_notification_topic_is_refused_with_the_command_that_creates_it(self):
        topic, work = self.loaded(partitions=3)
        sidecar = self.sidecar(topic, {"notifications.create": None})
        text = self.refused(sidecar, USAGE, "SN-NOTIFICATIONS-MISSING",
                            sidecar.notifications_topic, "notifications.create=true")
        command = re.search(r"kafka-topics\.sh (.*?) \(or", text)[1].split()
        options = dict(zip(command, command[1:]))
        self.assertEqual(options["--bootstrap-server"], self.kafka.bootstrap)
        self.kafka.create_topic(options["--topic"], int(options["--partitions"]),
                                dict([options["--config"].split("=")]))
        start = self.kafka.end_offsets(topic)
        sidecar.start()
        sidecar.wait_published()
        self.goes_on(sidecar, work, start)

    def test_a_missing_notification_topic_is_created_when_that_is_wanted(self):
        topic, work = self.loaded(partitions=3)
        sidecar, start = self.running(topic, {"notifications.create": "true"})
        self.assertEqual(len(self.kafka.partitions(sidecar.notifications_topic)), 3)
        self.assertEqual(
            self.kafka.topic_config(sidecar.notifications_topic)["cleanup.policy"], "delete")
        self.goes_on(sidecar, work, start)

    def test_a_topic_that_is_not_compacted_is_refused(self):
        topic, work = self.loaded(config={"cleanup.policy": "delete"})
        sidecar = self.sidecar(topic)
        self.refused(sidecar, USAGE, "SN-SOURCE-NOT-COMPACTED", topic, "cleanup.policy=compact")
        self.kafka.alter_config(topic, {"cleanup.policy": "compact"})
        start = self.kafka.end_offsets(topic)
        sidecar.start()
        sidecar.wait_published()
        self.goes_on(sidecar, work, start)

    def test_a_topic_that_expires_is_refused_until_it_is_accepted(self):
        topic, work = self.loaded(config={"cleanup.policy": "compact,delete"})
        sidecar = self.sidecar(topic)
        text = self.refused(sidecar, USAGE, "SN-SOURCE-EXPIRES", topic)
        sidecar.configure(dict([re.search(r"source\.expiring=true", text)[0].split("=")]))
        start = self.kafka.end_offsets(topic)
        sidecar.start()
        sidecar.wait_published()
        self.goes_on(sidecar, work, start)

    def test_a_notification_topic_that_is_compacted_is_refused(self):
        topic, work = self.loaded()
        sidecar = self.sidecar(topic)
        notes = self.kafka.create_topic(sidecar.notifications_topic, 2, COMPACT_NEVER)
        self.refused(sidecar, USAGE, "SN-NOTIFICATIONS-COMPACTED", notes, "cleanup.policy=delete")
        self.kafka.alter_config(notes, {"cleanup.policy": "delete"})
        start = self.kafka.end_offsets(topic)
        sidecar.start()
        sidecar.wait_published()
        self.goes_on(sidecar, work, start)

    def test_any_limit_of_the_notification_topic_is_used(self):
        for limit, omitted in ((2**31 - 1, 0), (1900, 20)):
            with self.subTest(limit):
                topic = self.kafka.create_topic(f"limit-{limit}", 2, COMPACT_NEVER)
                work = self.workload(topic, value_bytes=1500, awkward=0)
                work.load(20)
                sidecar = self.sidecar(topic, name=f"limit-{limit}")
                self.kafka.create_topic(sidecar.notifications_topic, 2,
                                        {"max.message.bytes": limit})
                start = self.kafka.end_offsets(topic)
                sidecar.start()
                sidecar.wait_published()
                work.change({"update": 20})
                sidecar.wait_published()
                self.assertGreaterEqual(self.assert_clean(work, start, sidecar).omitted, omitted)
                self.no_errors(sidecar)
                sidecar.term()


    def test_another_number_of_partitions_and_a_short_memory_are_said_and_accepted(self):
        topic, work = self.loaded(partitions=3)
        sidecar = self.sidecar(topic)
        self.kafka.create_topic(sidecar.notifications_topic, 5, {"retention.ms": 3600000})
        sidecar.start()
        sidecar.wait_published()
        start = self.kafka.end_offsets(topic)
        warned = {i for level, i, _ in said(sidecar) if level == "warn"}
        self.assertLessEqual({"SN-NOTIFICATIONS-PARTITIONS", "SN-NOTIFICATIONS-RETENTION"}, warned)
        self.goes_on(sidecar, work, start, notification_partitions=5)


class Recreating(BadInput):
    def recreate(self, topic, records):
        """As somebody who wants to empty it; new keys, new values. A moment passes in between:
        what a running client can notice is that the topic is not there."""
        self.kafka.delete_topic(topic)
        time.sleep(0.5)
        self.kafka.create_topic(topic, 2, COMPACT_NEVER)
        work = self.workload(topic, seed=99, key_format=b"other-%d")
        work.load(records)
        return work

    def start_as_new(self, sidecar, work):
        """The way out of the messages about a topic that is another."""
        sidecar.remove_state()
        with contextlib.suppress(confluent_kafka.KafkaException):  # gone with the topic
            delete_group(self.kafka, sidecar.group)
        self.kafka.delete_topic(sidecar.notifications_topic)  # the test's: the judge needs it empty
        start = self.kafka.end_offsets(work.topic)
        sidecar.start()
        sidecar.wait_published()
        self.goes_on(sidecar, work, start)


class Topics(Recreating):
    def test_a_recreated_topic_that_is_longer_is_noticed_at_the_start(self):
        topic, _, sidecar, _ = self.stopped()
        work = self.recreate(topic, 500)
        text = self.refused(sidecar, BROKEN, "SN-TOPIC-RECREATED", topic)
        self.assertIn("remove the state directory", text)
        self.assertIn(sidecar.group, text)
        self.start_as_new(sidecar, work)

    def while_running(self, records, ids):
        topic, old = self.loaded()
        sidecar, start = self.running(topic)
        old.change(50)
        sidecar.wait_published()
        work = self.recreate(topic, records)
        text = self.ends(sidecar, BROKEN, ids, topic)
        self.assertIn("remove the state directory", text)
        self.assert_clean(old, start, sidecar)
        self.assert_snapshot(old, sidecar)
        self.start_as_new(sidecar, work)

    def test_a_recreated_topic_that_is_shorter_is_noticed_while_running(self):
        self.while_running(20, ("SN-TOPIC-RECREATED", "SN-POSITION-OUTSIDE", "SN-SOURCE-MISSING"))

    def test_a_recreated_topic_that_is_longer_is_noticed_while_running(self):
        self.while_running(500, ("SN-TOPIC-RECREATED", "SN-SOURCE-MISSING", "SN-OFFSETS-LOST"))

    def test_a_topic_that_is_deleted_while_running_stops_it(self):
        topic, old = self.loaded()
        sidecar, _ = self.running(topic)
        self.kafka.delete_topic(topic)
        text = self.ends(sidecar, BROKEN, "SN-SOURCE-MISSING", topic, "deleted")
        self.assertIn("remove the state directory", text)
        self.assert_snapshot(old, sidecar)
        self.refused(sidecar, USAGE, "SN-SOURCE-MISSING", topic)


# ---------------------------------------------------------------- brokers

class SaslKafka(Kafka):
    """With a second listener that wants a password."""

    def __init__(self):
        super().__init__()
        self.sasl_port = free_port()

    def _properties(self, broker):
        properties = super()._properties(broker)
        properties["listeners"] += f",SASL_PLAINTEXT://127.0.0.1:{self.sasl_port}"
        properties["listener.security.protocol.map"] = \
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT"
        properties["sasl.enabled.mechanisms"] = "PLAIN"
        properties["listener.name.sasl_plaintext.plain.sasl.jaas.config"] = (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            'user_sidenote="right";')
        return properties


class Brokers(BadInput):
    @classmethod
    def setUpClass(cls):
        cls.kafka = SaslKafka()
        cls.addClassCleanup(cls.kafka.stop)
        cls.kafka.start()

    def test_wrong_credentials_are_refused_and_a_wrong_protocol_is(self):
        topic, work = self.loaded()
        sasl = self.sidecar(topic)
        password = os.path.join(sasl.directory, "password")
        sasl.configure({
            "kafka.bootstrap.servers": f"127.0.0.1:{self.kafka.sasl_port}",
            "kafka.security.protocol": "SASL_PLAINTEXT", "kafka.sasl.mechanism": "PLAIN",
            "kafka.sasl.username": "sidenote", "kafka.sasl.password.file": password})
        self.write(password, "wrong-as-can-be")
        tls = self.sidecar(topic, {"kafka.security.protocol": "SSL"})
        for sidecar in (sasl, tls):
            sidecar.start()
        for sidecar, option in ((sasl, "kafka.sasl."), (tls, "kafka.ssl.")):
            sidecar.wait_exit(USAGE)
            errors = [line for line in said(sidecar) if line[0] == "error"]
            self.assertEqual({i for _, i, _ in errors}, {"SN-KAFKA-AUTH"}, errors)
            self.assertIn(option, errors[-1][2])
        self.assertNotIn("wrong-as-can-be", sasl.log_text())
        start = self.kafka.end_offsets(topic)
        self.write(password, "right")
        sasl.start()
        sasl.wait_published()
        self.goes_on(sasl, work, start)
        tls.configure({"kafka.security.protocol": "PLAINTEXT"})
        tls.start()
        tls.wait_ready()
        tls.term()

    @staticmethod
    def write(path, text):
        with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w",
                  encoding="ascii") as f:
            f.write(text)

    def test_brokers_that_are_away_are_waited_for(self):
        topic, work = self.loaded()
        runs, start = self.running(topic)
        work.change(50)
        runs.wait_published()
        expected = work.truth.fold()
        time.sleep(1.5)  # the offsets, too: a transaction under way is test_adversity's
        self.kafka.kill()
        self.addCleanup(self.kafka.restart)
        starts = self.sidecar(topic, name=runs.name).start()
        for sidecar in (starts, runs):
            sidecar.wait_log("SN-KAFKA-UNREACHABLE")
        time.sleep(2)
        self.assertEqual(oracle.snapshot_of(runs.state_dir), expected)
        self.kafka.restart()
        for sidecar in (starts, runs):
            sidecar.wait_ready()
            self.no_errors(sidecar)
        runs.wait_log("the brokers answer again")
        self.assertEqual([i for _, i, _ in said(runs)].count("SN-KAFKA-UNREACHABLE"), 1)
        work.change(50)
        runs.wait_published()
        self.assert_clean(work, start, runs)
        for sidecar in (starts, runs):
            self.wait_equal(work, sidecar)
            sidecar.term()

    def wait_equal(self, work, sidecar):
        """A standby publishes nothing that could be waited for."""
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: oracle.compare_snapshot(oracle.snapshot_of(sidecar.state_dir),
                                                       work.truth.fold()).clean, 10, "equal")
        self.assert_snapshot(work, sidecar)


# ---------------------------------------------------------------- the state directory

class Disk(BadInput):
    def small_disk(self, mb):
        """A directory with that much room."""
        path = tempfile.mkdtemp(prefix="sidenote-disk.")
        self.addCleanup(os.rmdir, path)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mb}m", "tmpfs", path],
                              capture_output=True, text=True, check=False)
        if done.returncode:
            self.skipTest(f"cannot mount: {done.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", path], check=True)
        return path

    def sidecar_on(self, disk, topic):
        """The journal gets more than the disk has: that limit is not what is tested."""
        state_dir = os.path.join(disk, "state")
        sidecar = self.sidecar(topic, {"state.dir": state_dir, "journal.max.bytes": "512MiB"})
        sidecar.state_dir = state_dir
        return sidecar

    def fill_up(self, path, left):
        """A file that leaves so many bytes of the disk."""
        v = os.statvfs(path)
        ballast = os.path.join(path, "ballast")
        with open(ballast, "wb") as f:
            f.write(bytes(v.f_bavail * v.f_frsize - left))
        return ballast

    def test_a_full_disk_is_waited_out(self):
        disk = self.small_disk(40)
        topic, work = self.loaded()
        sidecar = self.sidecar_on(disk, topic).start()
        sidecar.wait_ready()
        sidecar.wait_published()
        start = self.kafka.end_offsets(topic)
        ballast = self.fill_up(disk, MB)
        more = {b"large-%d" % n: b"x" * 100_000 for n in range(100)}
        for key, value in more.items():
            work.put(key, value)
        work.flush()
        sidecar.wait_log("SN-DISK-FULL")
        for key in more:
            work.put(key, None)
        work.flush()
        time.sleep(2)
        oracle.snapshot_of(sidecar.state_dir)  # readers go on
        self.assertTrue(sidecar.alive())
        os.remove(ballast)
        sidecar.wait_log("there is space again")
        sidecar.wait_published()
        self.goes_on(sidecar, work, start)
        errors = [i for level, i, _ in said(sidecar) if level == "error"]
        self.assertEqual(set(errors), {"SN-DISK-FULL"})

    def test_a_disk_that_is_too_small_for_the_fill_stops_it(self):
        disk = self.small_disk(20)
        topic, work = self.loaded()
        for n in range(100):
            work.put(b"large-%d" % n, os.urandom(100_000))
        work.flush()
        sidecar = self.sidecar_on(disk, topic)
        ballast = self.fill_up(disk, 2 * MB)
        self.refused(sidecar, NOT_READY, "SN-DISK-FULL", sidecar.state_dir)
        os.remove(ballast)
        start = self.kafka.end_offsets(topic)
        sidecar.start()
        sidecar.wait_published()
        self.goes_on(sidecar, work, start)


class StateDirectory(BadInput):
    def test_the_state_of_another_pipeline_is_refused(self):
        topic, work, owner, _ = self.stopped()
        guest = self.sidecar(topic, {"state.dir": owner.state_dir,
                                     "notifications.topic": self.unique("notes")})
        text = self.refused(guest, USAGE, "SN-STATE-FOREIGN", owner.state_dir, owner.name,
                            guest.name)
        self.assertIn("use another state.dir", text)
        guest.configure({"state.dir": guest.state_dir})
        start = self.kafka.end_offsets(topic)
        guest.start()
        guest.wait_published()
        self.goes_on(guest, work, start)

    def test_the_state_of_another_cluster_is_refused(self):
        _, work, sidecar, start = self.stopped()
        edit_meta(sidecar, "cluster_id", "elsewhere")
        text = self.refused(sidecar, USAGE, "SN-STATE-FOREIGN", sidecar.state_dir, "elsewhere")
        self.assertIn("remove this one", text)
        sidecar.remove_state()
        self.goes_on(sidecar, work, start)

    def test_the_state_of_a_newer_format_is_refused(self):
        _, work, sidecar, start = self.stopped()
        edit_meta(sidecar, "format", "7")
        text = self.refused(sidecar, USAGE, "SN-STATE-FORMAT", sidecar.state_dir, "7")
        self.assertIn("remove the directory", text)
        sidecar.remove_state()
        self.goes_on(sidecar, work, start)

    def test_a_second_sidecar_on_the_directory_is_refused_and_harms_nobody(self):
        topic, work = self.loaded()
        first, start = self.running(topic)
        second = self.sidecar(topic, {"state.dir": first.state_dir}, name=first.name)
        self.refused(second, USAGE, "SN-STATE-BUSY", first.state_dir)
        work.change(50)
        first.wait_published()
        self.goes_on(first, work, start)
        second.state_dir = first.state_dir
        self.goes_on(second, work, start)
        self.no_errors(first)

    def damaged(self, damage):
        _, work, sidecar, start = self.stopped(keys=2000)
        work.change(50)
        damage(data_file(sidecar))
        since = len(sidecar.log_text())
        sidecar.start()
        sidecar.wait_published()
        errors = [(i, text) for level, i, text in said(sidecar, since) if level == "error"]
        self.assertEqual([i for i, _ in errors], ["SN-STATE-UNREADABLE"])
        self.assertIn(sidecar.state_dir, errors[0][1])
        verdict = self.goes_on(sidecar, work, start)
        self.assertGreater(verdict.gap, 0)

    def test_a_data_file_cut_in_half_is_filled_anew(self):
        def cut(path):  # of its pages: the file is longer than they are
            with lmdb.open(os.path.dirname(path), readonly=True, lock=False) as env:
                pages = env.info()["last_pgno"] + 1
            os.truncate(path, pages // 2 * 4096)
        self.damaged(cut)

    def test_a_data_file_cut_to_nothing_is_filled_anew(self):
        self.damaged(lambda path: os.truncate(path, 0))

    def test_a_data_file_of_zeros_is_filled_anew(self):
        self.damaged(lambda path: self.zero(path, 0))

    def test_a_data_file_that_begins_well_and_goes_on_with_zeros_is_filled_anew(self):
        self.damaged(lambda path: self.zero(path, 8192))

    @staticmethod
    def zero(path, begin):
        size = os.path.getsize(path)
        with open(path, "r+b") as f:
            f.seek(begin)
            f.write(bytes(size - begin))

    def test_a_record_that_was_changed_on_disk_stops_it_when_it_is_needed(self):
        topic, work = self.loaded()
        work.put(b"flipped", b'{"value":"%s"}' % (b"x" * 3000))
        work.flush()
        sidecar, start = self.running(topic)
        sidecar.term()
        path = data_file(sidecar)
        with open(path, "rb") as f:
            at = f.read().rindex(b"x" * 3000)
        with open(path, "r+b") as f:
            f.seek(at + 1000)
            f.write(b"y")
        sidecar.start()
        sidecar.wait_ready()
        work.put(b"flipped", b'{"value":"new"}')
        work.flush()
        text = self.ends(sidecar, BROKEN, "SN-RECORD-CHECKSUM", sidecar.state_dir, "'flipped'")
        self.assertIn("remove the state directory", text)
        sidecar.remove_state()
        self.assertGreater(self.goes_on(sidecar, work, start).gap, 0)

    def test_a_state_directory_that_is_gone_is_filled_anew(self):
        _, work, sidecar, start = self.stopped()
        work.change(50)
        sidecar.remove_state()
        self.assertGreater(self.goes_on(sidecar, work, start).gap, 0)
        self.no_errors(sidecar)


# ---------------------------------------------------------------- committed offsets

class Offsets(BadInput):
    def positions(self, sidecar):
        return {p: offset for p, (offset, _) in sidecar.committed().items()}

    def drop_out(self, sidecar):
        """SIGSTOP, until the group has no member any more. The operator's commit proves it."""
        sidecar.stop()
        at = self.positions(sidecar)

        def empty():
            with contextlib.suppress(confluent_kafka.KafkaException):
                self.kafka.commit(sidecar.group, sidecar.source_topic, at)
                return True
            return False

        wait_until(empty, 20, "the group is empty", 0.2)
        return at

    def test_kafka_refuses_to_touch_the_offsets_of_a_running_sidecar(self):
        topic, work = self.loaded()
        sidecar, start = self.running(topic)
        with self.assertRaises(confluent_kafka.KafkaException):
            delete_group(self.kafka, sidecar.group)
        with self.assertRaises(confluent_kafka.KafkaException):
            self.kafka.commit(sidecar.group, topic, {0: 1})
        self.goes_on(sidecar, work, start)

    def test_offsets_that_were_deleted_stop_it_and_can_be_put_back(self):
        topic, work, sidecar, start = self.stopped()
        at = self.positions(sidecar)
        work.change(50)
        delete_group(self.kafka, sidecar.group)
        text = self.refused(sidecar, BROKEN, "SN-OFFSETS-LOST", sidecar.group, topic)
        self.assertIn("--reset-offsets", text)
        self.kafka.commit(sidecar.group, topic, at)
        self.assertEqual(self.goes_on(sidecar, work, start).gap, 0)

    def test_offsets_that_were_deleted_allow_to_start_as_new(self):
        topic, work, sidecar, _ = self.stopped()
        delete_group(self.kafka, sidecar.group)
        text = self.refused(sidecar, BROKEN, "SN-OFFSETS-LOST", sidecar.group)
        self.assertIn("remove the state directory", text)
        sidecar.remove_state()
        sidecar.configure({"notifications.topic": self.unique("notes")})
        start = self.kafka.end_offsets(topic)
        sidecar.start()
        sidecar.wait_published()
        self.goes_on(sidecar, work, start)

    def test_offsets_that_were_deleted_while_it_hung_stop_it(self):
        topic, work = self.loaded()
        sidecar, start = self.running(topic)
        at = self.drop_out(sidecar)
        delete_group(self.kafka, sidecar.group)
        work.change(50)
        sidecar.cont()
        self.ends(sidecar, BROKEN, "SN-OFFSETS-LOST", sidecar.group, topic)
        self.kafka.commit(sidecar.group, topic, at)
        self.assertEqual(self.goes_on(sidecar, work, start).gap, 0)

    def back(self, sidecar):
        at = self.positions(sidecar)
        lower = {p: max(0, offset - 5) for p, offset in at.items()}
        self.kafka.commit(sidecar.group, sidecar.source_topic, lower)
        return at, lower

    def named(self, text):
        """The offset to go on from, as the message says it."""
        return int(re.search(r"from (\d+) to (\d+)", text)[1])

    def test_offsets_that_were_moved_back_stop_it_and_can_be_put_right(self):
        topic, work, sidecar, start = self.stopped()
        at, lower = self.back(sidecar)
        work.change(50)
        text = self.refused(sidecar, BROKEN, "SN-OFFSETS-BACK", sidecar.group, topic)
        self.assertIn(self.named(text), at.values())
        self.kafka.commit(sidecar.group, topic, at)
        self.assertEqual(self.goes_on(sidecar, work, start).gap, 0)

    def test_offsets_that_were_moved_back_are_published_anew_from_a_new_state(self):
        topic, work, sidecar, _ = self.stopped()
        _, lower = self.back(sidecar)
        text = self.refused(sidecar, BROKEN, "SN-OFFSETS-BACK", sidecar.group)
        self.assertIn("remove the state directory", text)
        sidecar.remove_state()
        sidecar.configure({"notifications.topic": self.unique("notes")})
        verdict = self.goes_on(sidecar, work, lower)
        self.assertGreater(verdict.gap, 0)

    def test_offsets_that_were_moved_back_while_it_hung_stop_it(self):
        topic, work = self.loaded()
        sidecar, start = self.running(topic)
        work.change(50)
        sidecar.wait_published()
        self.drop_out(sidecar)
        at, _ = self.back(sidecar)
        sidecar.cont()
        self.ends(sidecar, BROKEN, "SN-OFFSETS-BACK", sidecar.group, topic)
        self.kafka.commit(sidecar.group, topic, at)
        self.assertEqual(self.goes_on(sidecar, work, start).gap, 0)

    def test_offsets_that_were_moved_forward_are_gone_on_from(self):
        topic, work, sidecar, _ = self.stopped()
        at = self.positions(sidecar)
        work.change(100)
        ahead = {p: (at[p] + end) // 2 for p, end in self.kafka.end_offsets(topic).items()}
        self.kafka.commit(sidecar.group, topic, ahead)
        sidecar.configure({"notifications.topic": self.unique("notes")})
        sidecar.start()
        sidecar.wait_published()
        self.assertEqual(self.goes_on(sidecar, work, ahead).gap, 0)
        told = [text for level, i, text in said(sidecar) if i == "SN-OFFSETS-MOVED"]
        self.assertEqual(len(told), 2, told)
        for p, text in enumerate(sorted(told)):
            self.assertIn(f"{at[p]} to {ahead[p]}", text)


# ---------------------------------------------------------------- what takes its time

class Slow(Recreating):
    """Each of these has to wait for 10 to 20 s, so they wait together: every scenario is begun when
    the class is, and a test takes it to its end."""

    SCENARIOS = ("shorter_at_the_start", "notification_topic_deleted", "partition_added",
                 "offsets_ahead", "limit_lowered")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.begun = {}
        for name in cls.SCENARIOS:
            host = cls()  # what a test case gives to a test: names, sidecars, cleanups
            host.setUp()
            cls.addClassCleanup(host.doCleanups)
            steps = getattr(host, name)()
            next(steps)
            cls.begun[name] = host, steps

    def to_the_end(self, name):
        host, steps = self.begun[name]
        self._sidecars = host._sidecars
        for _ in steps:
            pass

    def test_a_recreated_topic_that_is_shorter_is_noticed_at_the_start(self):
        self.to_the_end("shorter_at_the_start")

    def test_a_notification_topic_that_is_deleted_while_running_is_waited_for(self):
        self.to_the_end("notification_topic_deleted")

    def test_a_new_partition_is_read_from_its_beginning(self):
        self.to_the_end("partition_added")

    def test_offsets_beyond_the_end_of_the_topic_stop_it(self):
        self.to_the_end("offsets_ahead")

    def test_a_limit_that_is_lowered_while_running_is_found_out(self):
        self.to_the_end("limit_lowered")

    def limit_lowered(self):
        topic, work = self.loaded(keys=20)
        for n in range(5):
            work.put(b"large-%d" % n, os.urandom(150_000))
        work.flush()
        sidecar, start = self.running(topic)
        self.kafka.alter_config(sidecar.notifications_topic, {"max.message.bytes": 100_000})
        for n in range(5):
            work.put(b"large-%d" % n, os.urandom(150_000))
        work.flush()
        yield
        sidecar.wait_published(timeout=60)
        self.assertIn("SN-NOTIFICATION-LIMIT", sidecar.log_text())
        self.assertGreaterEqual(self.goes_on(sidecar, work, start).omitted, 10)
        self.no_errors(sidecar)

    def shorter_at_the_start(self):
        topic, _, sidecar, _ = self.stopped()
        work = self.recreate(topic, 20)
        since = len(sidecar.log_text())
        sidecar.start()
        yield
        text = self.ends(sidecar, BROKEN, "SN-TOPIC-RECREATED", topic, since=since)
        self.assertIn("remove the state directory", text)
        self.assertIn(sidecar.group, text)
        self.start_as_new(sidecar, work)

    def notification_topic_deleted(self):
        topic, work = self.loaded()
        sidecar, _ = self.running(topic)
        self.kafka.delete_topic(sidecar.notifications_topic)
        start = self.kafka.end_offsets(topic)
        work.change(50)
        yield
        sidecar.wait_log("SN-PUBLISH-FAILING", timeout=60)
        self.kafka.create_topic(sidecar.notifications_topic, 2)
        sidecar.wait_published(timeout=90)
        self.goes_on(sidecar, work, start)

    def partition_added(self):
        topic = self.topic(1)
        work = self.workload(topic)
        work.load(50)
        sidecar, start = self.running(topic)
        self.kafka.add_partitions(topic, 2)
        self.kafka.add_partitions(sidecar.notifications_topic, 2)
        more = self.workload(topic, seed=2, key_format=b"late-%d")
        more.partition_of = lambda key: 1
        more.load(50)
        more.change(50)
        yield
        sidecar.wait_published(timeout=60)
        for r in list(work.truth.records(0)):
            more.truth.append(0, r.offset, r.key, r.value, r.timestamp)
        self.assertGreater(self.assert_clean(more, start, sidecar).expected, 20)
        self.assert_snapshot(more, sidecar)
        self.no_errors(sidecar)
        sidecar.term()

    def offsets_ahead(self):
        topic, work, sidecar, start = self.stopped()
        at = {p: offset for p, (offset, _) in sidecar.committed().items()}
        self.kafka.commit(sidecar.group, topic, {0: at[0] + 1000})
        since = len(sidecar.log_text())
        sidecar.start()
        yield
        text = self.ends(sidecar, BROKEN, "SN-OFFSETS-AHEAD", sidecar.group, topic,
                         str(at[0] + 1000), since=since)
        self.assertIn("--reset-offsets", text)
        self.kafka.commit(sidecar.group, topic, at)
        self.assertEqual(self.goes_on(sidecar, work, start).gap, 0)


if __name__ == "__main__":
    unittest.main()
