"""The judge is only worth something if it convicts: every defect is planted and must be found.

Needs no broker. The notifications are made here, by a second reading of the contract."""

import base64
import hashlib
import json
import os
import random
import struct
import tempfile
import time
import unittest

import lmdb

import workload
from oracle import (KEY_VERBATIM_MAX, Malformed, Notification, compare_snapshot, decode_record,
                    is_json_object, judge, murmur2_partition, raw_members, snapshot_of,
                    stored_key, understand)
from workload import GroundTruth, Stored

TOPIC = "users"
NEEDS_BROKER = False


def some_truth(seed=1, keys=20, records=400, partitions=2, headers=True):
    """A log with everything that can happen, control-record gaps included."""
    rng = random.Random(seed)
    truth = GroundTruth(TOPIC, partitions)
    state = {}
    next_offset = [0] * partitions
    for n in range(records):
        key = b"k%d" % rng.randrange(keys)
        p = key[-1] % partitions
        dice = rng.random()
        if dice < 0.2:
            value = None
        elif dice < 0.35 and state.get(key) is not None:
            value = state[key]
        elif dice < 0.5:
            value = workload._fill(rng.choice(workload._AWKWARD), n).encode()
        elif dice < 0.6:
            value = workload._fill(rng.choice(workload._NOT_JSON_OBJECTS), n)
        else:
            value = b'{"n":%d}' % n
        state[key] = value
        some = (("h", b"%d" % n), ("sidenote.op", b"x"), ("null", None))
        some = some if headers and n % 3 else ()
        truth.append(p, next_offset[p], key, value, 1_700_000_000_000 + n, some)
        next_offset[p] += rng.choice((1, 1, 1, 2))
    return truth


def side(value):
    if value is None:
        return b"null"
    if is_json_object(value):
        return value
    return b'{"sidenote.base64":"' + base64.b64encode(value) + b'"}'


def note_of(partition, offset, key, op, old, value, timestamp, headers, cause="log", suffix="",
            position=None, before=None, at=None):
    """One notification in debezium-json. `at`: its offset in the notification topic."""
    source = {"version": "0", "connector": "sidenote", "name": "pipe", "ts_ms": timestamp,
              "snapshot": "false", "db": "c", "table": TOPIC, "topic": TOPIC,
              "partition": partition, "offset": offset if position is None else position,
              "before_offset": old.offset if old else None,
              "before_ts_ms": old.timestamp if old else None, "cause": cause}
    body = (b'{"before":' + (before or side(old.value if old else None)) + b',"after":'
            + side(value) + b',"source":' + json.dumps(source, separators=(",", ":")).encode()
            + b',"op":"' + op.encode() + b'","ts_ms":%d}' % (time.time() * 1000))
    own = (("sidenote.id", f"{TOPIC}/{partition}/{offset}{suffix}".encode()),
           ("sidenote.op", op.encode()), ("sidenote.cause", cause.encode()),
           ("sidenote.token", f"{partition}:{offset + 1}".encode()))
    copied = tuple(h for h in headers if not h[0].startswith("sidenote."))
    return Notification(partition, offset if at is None else at, key, body, own + copied)


def honest(truth, start, operations="ud", unchanged=False):
    """What a sidecar without a defect says, as a list in topic order."""
    notes = []
    for p in range(len(truth.logs)):
        state = {}
        at = 0
        for r in truth.records(p):
            old = state.get(r.key)
            if r.value is None:
                op = "d" if old else None
                state.pop(r.key, None)
            else:
                op = "c" if old is None else "=" if old.value == r.value else "u"
                state[r.key] = Stored(r.value, p, r.offset, r.timestamp, r.headers)
            said = "u" if op == "=" and unchanged else op
            if r.offset >= start.get(p, 0) and said is not None and said in operations:
                notes.append(note_of(p, r.offset, r.key, said, old, r.value, r.timestamp,
                                     r.headers, at=at))
                at += 1
    return notes


def again(note, value=None, headers=None, at=None, partition=None, key=None):
    """The note, changed."""
    return Notification(note.partition if partition is None else partition,
                        note.offset if at is None else at,
                        note.key if key is None else key,
                        note.value if value is None else value,
                        note.headers if headers is None else headers)


class PlantedDefects(unittest.TestCase):
    def setUp(self):
        self.truth = some_truth()
        self.start = {0: 60, 1: 75}
        self.notes = honest(self.truth, self.start)

    def judged(self, notes=None, **options):
        return judge(self.truth, self.start, self.notes if notes is None else notes,
                     name="pipe", **options)

    def index(self, wanted):
        """Of the first notification of which `wanted` is true, not among the first ten."""
        for i, note in enumerate(self.notes):
            if i >= 10 and wanted(understand(note, TOPIC)):
                return i
        raise AssertionError("no such notification")

    def assert_only(self, verdict, **counts):
        self.assertFalse(verdict.clean, verdict)
        found = {n: v for n, v in verdict.figures().items()
                 if n in ("missing", "doubled", "unexpected", "malformed", "wrong_key",
                          "wrong_op", "wrong_before", "wrong_after", "wrong_partition",
                          "wrong_envelope", "wrong_headers", "out_of_order", "broken_chain") and v}
        self.assertEqual(found, counts, verdict)

    def test_an_honest_run_is_clean(self):
        verdict = self.judged()
        self.assertTrue(verdict.clean, verdict)
        self.assertGreater(verdict.expected, 100)
        self.assertEqual(verdict.expected, verdict.seen)

    def test_an_honest_run_is_clean_with_many_seeds_and_options(self):
        for seed in range(30):
            truth = some_truth(seed)
            for operations, names, unchanged in (("ud", ("update", "delete"), False),
                                                 ("cud", ("create", "update", "delete"), True),
                                                 ("u", ("update",), True),
                                                 ("d", ("delete",), False)):
                for start in ({}, {0: 100, 1: 3}):
                    notes = honest(truth, start, operations, unchanged)
                    verdict = judge(truth, start, notes, names, unchanged)
                    self.assertTrue(verdict.clean, f"seed {seed} {names}\n{verdict}")

    def test_a_skipped_notification_is_missing(self):
        for i in range(len(self.notes)):
            verdict = self.judged(self.notes[:i] + self.notes[i + 1:])
            self.assertEqual(verdict.missing, 1, verdict)

    def test_the_last_notification_of_all_is_missed_too(self):
        self.assert_only(self.judged(self.notes[:-1]), missing=1)

    def test_nothing_at_all_is_not_clean(self):
        self.assertEqual(self.judged([]).missing, len(self.notes))

    def test_a_doubled_notification_is_found_wherever_the_second_one_is(self):
        for i in (0, 17, len(self.notes) - 1):
            twice = again(self.notes[i], at=100000)
            verdict = self.judged(self.notes + [twice])
            self.assertEqual(verdict.doubled, 1, verdict)

    def test_two_changes_of_a_key_in_the_wrong_order_are_found(self):
        by_key = {}
        swapped = None
        for i, note in enumerate(self.notes):
            if note.key in by_key:
                j = by_key[note.key]
                swapped = list(self.notes)
                swapped[j] = again(note, at=self.notes[j].offset)
                swapped[i] = again(self.notes[j], at=note.offset)
                break
            by_key[note.key] = i
        verdict = self.judged(swapped)
        self.assertGreaterEqual(verdict.out_of_order, 1, verdict)
        self.assertEqual(verdict.missing, 0)

    def test_two_keys_may_swap_places(self):
        i = next(i for i in range(len(self.notes) - 1)
                 if self.notes[i].key != self.notes[i + 1].key
                 and self.notes[i].partition == self.notes[i + 1].partition)
        a, b = self.notes[i], self.notes[i + 1]
        notes = list(self.notes)
        notes[i], notes[i + 1] = again(b, at=a.offset), again(a, at=b.offset)
        self.assertTrue(self.judged(notes).clean)

    def test_a_stale_before_is_found(self):
        # The value before the one that was really there, as a sidecar would say that lost a batch.
        i = self.index(lambda t: t.op == "u" and t.before.bytes != b'{"stale":1}')
        told = understand(self.notes[i], TOPIC)
        stale = self.notes[i].value.replace(side(told.before.bytes), b'{"stale":1}', 1)
        verdict = self.judged(self.notes[:i] + [again(self.notes[i], value=stale)]
                              + self.notes[i + 1:])
        self.assertEqual(verdict.wrong_before, 1, verdict)

    def test_a_before_of_the_right_bytes_but_an_older_record_is_found(self):
        # A rewrite of equal bytes moves the live record; before_offset must follow.
        i = self.index(lambda t: t.op == "u")
        told = understand(self.notes[i], TOPIC)
        before_offset = told.source["before_offset"]
        body = self.notes[i].value.replace(b'"before_offset":%d' % before_offset,
                                           b'"before_offset":%d' % (before_offset - 1))
        self.assert_only(self.judged(self.notes[:i] + [again(self.notes[i], value=body)]
                                     + self.notes[i + 1:]), wrong_envelope=1)

    def test_one_wrong_byte_of_after_is_found(self):
        i = self.index(lambda t: t.op == "u" and t.after.bytes.startswith(b'{"n":'))
        told = understand(self.notes[i], TOPIC)
        wrong = told.after.bytes[:-2] + (b"0" if told.after.bytes[-2:-1] != b"0" else b"1") + b"}"
        body = self.notes[i].value.replace(b',"after":' + told.after.bytes, b',"after":' + wrong)
        verdict = self.judged(self.notes[:i] + [again(self.notes[i], value=body)]
                              + self.notes[i + 1:])
        self.assertEqual(verdict.wrong_after, 1, verdict)

    def test_a_value_that_went_through_a_json_parser_is_found(self):
        i = self.index(lambda t: t.op == "u" and t.after.bytes.startswith(b'{ "spaced"'))
        told = understand(self.notes[i], TOPIC)
        printed = json.dumps(json.loads(told.after.bytes)).encode()
        body = self.notes[i].value.replace(b',"after":' + told.after.bytes, b',"after":' + printed)
        self.assertGreaterEqual(self.judged(self.notes[:i] + [again(self.notes[i], value=body)]
                                            + self.notes[i + 1:]).wrong_after, 1)

    def test_a_json_object_wrapped_as_base64_is_found(self):
        i = self.index(lambda t: t.op == "u" and t.after.bytes.startswith(b'{"n":'))
        told = understand(self.notes[i], TOPIC)
        wrapped = b'{"sidenote.base64":"' + base64.b64encode(told.after.bytes) + b'"}'
        body = self.notes[i].value.replace(b',"after":' + told.after.bytes, b',"after":' + wrapped)
        self.assert_only(self.judged(self.notes[:i] + [again(self.notes[i], value=body)]
                                     + self.notes[i + 1:]), wrong_after=1)

    def test_a_wrong_operation_is_found(self):
        i = self.index(lambda t: t.op == "u")
        body = self.notes[i].value.replace(b'"op":"u"', b'"op":"c"')
        headers = tuple((n, b"c" if n == "sidenote.op" else v) for n, v in self.notes[i].headers)
        verdict = self.judged(self.notes[:i] + [again(self.notes[i], body, headers)]
                              + self.notes[i + 1:])
        self.assert_only(verdict, wrong_op=1)

    def test_header_and_envelope_that_disagree_are_found(self):
        i = self.index(lambda t: t.op == "u")
        body = self.notes[i].value.replace(b'"},"op":"u"', b'"},"op":"d"')
        verdict = self.judged(self.notes[:i] + [again(self.notes[i], value=body)]
                              + self.notes[i + 1:])
        self.assertEqual(verdict.malformed, 1, verdict)

    def test_an_envelope_field_that_is_wrong_is_found(self):
        told = understand(self.notes[20], TOPIC)
        for name, value in (("partition", told.source["partition"]), ("offset", told.identity[1]),
                            ("ts_ms", told.source["ts_ms"]),
                            ("before_ts_ms", told.source["before_ts_ms"])):
            old = b'"%s":%d,' % (name.encode(), value)
            self.assertIn(old, self.notes[20].value)
            body = self.notes[20].value.replace(old, b'"%s":%d,' % (name.encode(), value + 1))
            verdict = self.judged(self.notes[:20] + [again(self.notes[20], value=body)]
                                  + self.notes[21:])
            self.assert_only(verdict, wrong_envelope=1)

    def test_another_key_is_found(self):
        verdict = self.judged([again(self.notes[0], key=b"another")] + self.notes[1:])
        self.assertEqual(verdict.wrong_key, 1, verdict)

    def test_another_partition_is_found(self):
        self.assert_only(self.judged(self.notes[:-1] + [again(self.notes[-1], partition=0)]),
                         wrong_partition=1)

    def test_source_headers_that_were_lost_or_smuggled_in_are_found(self):
        i = self.index(lambda t: len(t.copied) == 2)
        lost = again(self.notes[i], headers=self.notes[i].headers[:-1])
        self.assert_only(self.judged(self.notes[:i] + [lost] + self.notes[i + 1:]),
                         wrong_headers=1)
        more = again(self.notes[i], headers=self.notes[i].headers + (("sidenote.op", b"x"),))
        self.assertEqual(self.judged(self.notes[:i] + [more] + self.notes[i + 1:]).malformed, 1)

    def test_history_is_not_news(self):
        everything = honest(self.truth, {})
        verdict = self.judged(everything)
        self.assertEqual(verdict.unexpected, len(everything) - len(self.notes), verdict)

    def test_a_filtered_operation_is_not_expected(self):
        verdict = self.judged(honest(self.truth, self.start, "cud", True))
        self.assertGreater(verdict.unexpected, 10, verdict)
        self.assertEqual(verdict.missing, 0)

    def test_a_notification_of_a_record_that_never_was_is_found(self):
        phantom = note_of(0, 999999, b"k1", "u", Stored(b"{}", 0, 1, 5, ()), b"{}", 7, (), at=9999)
        self.assertEqual(self.judged(self.notes + [phantom]).unexpected, 1)

    def test_a_message_that_is_no_notification_is_found(self):
        for value, headers in ((b"hello", self.notes[0].headers), (self.notes[0].value, ()),
                               (None, self.notes[0].headers),
                               (self.notes[0].value + b" ", self.notes[0].headers)):
            verdict = self.judged([Notification(0, 0, b"k", value, headers)] + self.notes[1:])
            self.assertEqual(verdict.malformed, 1, verdict)

    def test_an_omitted_side_must_have_the_size_and_digest_of_the_value(self):
        i = self.index(lambda t: t.op == "u" and t.after.bytes.startswith(b'{"n":'))
        value = understand(self.notes[i], TOPIC).after.bytes
        for digest, bad in ((hashlib.sha256(value).hexdigest(), 0), ("0" * 64, 1)):
            omitted = b'{"sidenote.omitted":{"bytes":%d,"sha256":"%s"}}' % (len(value),
                                                                           digest.encode())
            body = self.notes[i].value.replace(b',"after":' + value, b',"after":' + omitted)
            verdict = self.judged(self.notes[:i] + [again(self.notes[i], value=body)]
                                  + self.notes[i + 1:])
            self.assertEqual((verdict.omitted, verdict.wrong_after), (1, bad), verdict)

    def test_a_token_that_is_not_right_behind_the_record_is_found(self):
        for wrong in (b"0:1", b"7:6", b"0:100000", b"nonsense", None):
            headers = tuple((n, wrong if n == "sidenote.token" else v)
                            for n, v in self.notes[5].headers)
            notes = [*self.notes[:5], again(self.notes[5], headers=headers), *self.notes[6:]]
            verdict = self.judged(notes)
            self.assertEqual(verdict.wrong_headers + verdict.malformed, 1, verdict)

    def test_a_cause_that_is_not_ours_is_found(self):
        body = self.notes[5].value.replace(b'"cause":"log"', b'"cause":"who"')
        headers = tuple((n, b"who" if n == "sidenote.cause" else v)
                        for n, v in self.notes[5].headers)
        self.assert_only(self.judged(self.notes[:5] + [again(self.notes[5], body, headers)]
                                     + self.notes[6:]), wrong_envelope=1)


class CompactionWasFirst(unittest.TestCase):
    """What may be said about records that nobody could read."""

    def log(self, *records):
        truth = GroundTruth(TOPIC, 1)
        for offset, value in enumerate(records):
            truth.append(0, offset, b"k", value, 1000 + offset)
        return truth

    def stored(self, truth, offset):
        return Stored(truth.logs[0].values[offset], 0, offset, 1000 + offset, ())

    def note(self, truth, offset, op, old, cause="log", **more):
        old = None if old is None else self.stored(truth, old)
        return note_of(0, offset, b"k", op, old, truth.logs[0].values[offset], 1000 + offset, (),
                       cause, **more)

    def gone(self, truth, offset, position):
        old = self.stored(truth, offset)
        return note_of(0, offset, b"k", "d", old, None, 9, (), "reconcile", "/gone", position)

    def test_an_unseen_version_is_neither_missed_nor_allowed(self):
        truth = self.log(b'{"v":0}', b'{"v":1}', b'{"v":2}')
        notes = [self.note(truth, 2, "u", 0)]
        self.assertTrue(judge(truth, {0: 1}, notes, unseen={0: {1}}).clean)
        self.assertFalse(judge(truth, {0: 1}, notes).clean)
        exact = [self.note(truth, 1, "u", 0), self.note(truth, 2, "u", 1)]
        self.assertTrue(judge(truth, {0: 1}, exact).clean)
        self.assertFalse(judge(truth, {0: 1}, exact, unseen={0: {1}}).clean)

    def test_a_purged_tombstone_must_be_told_as_gone(self):
        truth = self.log(b'{"v":0}', None)
        told = judge(truth, {0: 1}, [self.gone(truth, 0, 2)], unseen={0: {1}})
        self.assertTrue(told.clean, told)
        self.assertEqual(told.reconcile, 1)
        self.assertEqual(judge(truth, {0: 1}, [], unseen={0: {1}}).missing, 1)

    def test_a_gone_without_a_purged_tombstone_is_a_lie(self):
        truth = self.log(b'{"v":0}', b'{"v":1}')
        notes = [self.gone(truth, 0, 2), self.note(truth, 1, "u", 0)]
        self.assertFalse(judge(truth, {0: 1}, notes).clean)

    def test_a_delete_told_twice_once_as_gone_is_doubled(self):
        truth = self.log(b'{"v":0}', None)
        notes = [self.note(truth, 1, "d", 0), self.gone(truth, 0, 2)._replace(offset=9)]
        self.assertEqual(judge(truth, {0: 1}, notes).doubled, 1)

    def test_a_key_that_came_back_after_a_purged_tombstone_may_be_an_update_or_gone_and_new(self):
        truth = self.log(b'{"v":0}', None, b'{"v":2}', b'{"v":3}')
        unseen = {0: {1}}
        one = [self.note(truth, 2, "u", 0), self.note(truth, 3, "u", 2)]
        two = [self.gone(truth, 0, 1), self.note(truth, 3, "u", 2)]
        for notes in (one, two):
            verdict = judge(truth, {0: 1}, notes, unseen=unseen)
            self.assertTrue(verdict.clean, verdict)
        self.assertFalse(judge(truth, {0: 1}, one[1:], unseen=unseen).clean)
        self.assertFalse(judge(truth, {0: 1}, two[1:], unseen=unseen).clean)

    def test_a_gap_may_skip_versions_and_says_so(self):
        truth = self.log(b'{"v":0}', b'{"v":1}', b'{"v":2}', b'{"v":3}')
        verdict = judge(truth, {0: 1}, [self.note(truth, 3, "u", 0, "gap")])
        self.assertTrue(verdict.clean, verdict)
        self.assertEqual((verdict.gap, verdict.coalesced), (1, 2))
        self.assertFalse(judge(truth, {0: 1}, [self.note(truth, 3, "u", 0)]).clean)

    def test_a_gap_may_tell_a_change_as_a_create_or_an_unknown_delete(self):
        truth = self.log(b'{"v":0}', b'{"v":1}')
        self.assertTrue(judge(truth, {0: 1}, [self.note(truth, 1, "c", None, "gap")]).clean)
        truth = self.log(b'{"v":0}', None)
        unknown = self.note(truth, 1, "d", None, "gap", before=b'{"sidenote.unknown":true}')
        verdict = judge(truth, {0: 1}, [unknown])
        self.assertTrue(verdict.clean, verdict)

    def test_a_gap_does_not_excuse_what_comes_after_its_last_word(self):
        truth = self.log(b'{"v":0}', b'{"v":1}', b'{"v":2}')
        self.assertEqual(judge(truth, {0: 1}, [self.note(truth, 1, "u", 0, "gap")]).missing, 1)

    def test_a_gap_does_not_excuse_wrong_bytes(self):
        truth = self.log(b'{"v":0}', b'{"v":1}', b'{"v":2}')
        note = self.note(truth, 2, "u", 0, "gap")
        for old, new in ((b'"after":{"v":2}', b'"after":{"v":1}'),
                         (b'"before":{"v":0}', b'"before":{"v":1}')):
            verdict = judge(truth, {0: 1}, [again(note, value=note.value.replace(old, new))])
            self.assertFalse(verdict.clean, verdict)


class OtherForms(unittest.TestCase):
    def setUp(self):
        self.truth = GroundTruth(TOPIC, 1)
        for offset, value in enumerate((b"old", b"new", None)):
            self.truth.append(0, offset, b"key", value, 1000 + offset)

    def test_raw_notifications_are_judged_alike(self):
        def note(offset, op, value, before, before_offset):
            own = {"id": f"{TOPIC}/0/{offset}", "op": op, "cause": "log",
                   "token": f"0:{offset + 1}", "version": "0",
                   "name": "pipe", "cluster": "c", "topic": TOPIC, "partition": 0,
                   "offset": offset, "timestamp": 1000 + offset, "before.offset": before_offset,
                   "before.timestamp": 1000 + before_offset,
                   "published": int(time.time() * 1000)}
            headers = [("sidenote." + n, str(v).encode()) for n, v in own.items()]
            return Notification(0, offset, b"key", value,
                                tuple(headers + [("sidenote.before", before)]))
        notes = [note(1, "u", b"new", b"old", 0), note(2, "d", None, b"new", 1)]
        self.assertTrue(judge(self.truth, {0: 1}, notes, fmt="raw", name="pipe").clean)
        notes[1] = note(2, "d", None, b"old", 1)
        self.assertEqual(judge(self.truth, {0: 1}, notes, fmt="raw").wrong_before, 1)

    def test_pairs_of_key_and_value_in_base64_are_judged_alike(self):
        def pair(key, value):
            return b'{"key":"%s","value":"%s"}' % (base64.b64encode(key), base64.b64encode(value))
        for key, clean in ((b"key", True), (b"kex", False)):
            note = note_of(0, 1, b"key", "u", Stored(b"old", 0, 0, 1000, ()), None, 1001, (),
                           before=pair(b"key", b"old"))
            note = again(note, value=note.value.replace(b'"after":null',
                                                        b'"after":' + pair(key, b"new")))
            verdict = judge(self.truth, {0: 1}, [note], operations=("update",), encoding="base64")
            self.assertEqual(verdict.clean, clean, verdict)

    def test_values_are_cut_out_as_they_stand(self):
        for template in workload._AWKWARD:
            value = workload._fill(template, 5).encode()
            members = raw_members(b'{"before":' + value + b',"after": null ,"op":"u"}')
            self.assertEqual(members, {"before": value, "after": b" null ", "op": b'"u"'})
        for broken in (b"", b"[]", b'{"a":1', b'{"a":1}}', b'{"a" 1}', b'{"a":1 "b":2}',
                       b'{"a":{"b":1}', b'{"a":1,"a":2}'):
            with self.assertRaises(Malformed):
                raw_members(broken)

    def test_what_is_a_json_object_is_decided_strictly(self):
        for template in workload._AWKWARD:
            self.assertTrue(is_json_object(workload._fill(template, 5).encode()))
        for template in workload._NOT_JSON_OBJECTS + (b'{"a":"\\ud800"}', b'{"\\udc00\\ud800":1}'):
            self.assertFalse(is_json_object(workload._fill(template, 5)), template)

    def test_keys_go_to_the_partition_that_kafka_chooses(self):
        # From Kafka's own unit test of murmur2.
        for key, murmur2 in ((b"21", -973932308), (b"foobar", -790332482),
                             (b"a-little-bit-long-string", -985981536),
                             (b"a-little-bit-longer-string", -1486304829),
                             (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
                             (b"abc", 479470107)):
            positive = murmur2 & 0x7FFFFFFF
            self.assertEqual(murmur2_partition(key, 1 << 31), positive)


class Snapshots(unittest.TestCase):
    def write(self, directory, records):
        """An LMDB as the on-disk contract has it; the checksum is not looked at."""
        generation = os.path.join(directory, "generation-1")
        os.makedirs(generation)
        os.symlink("generation-1", os.path.join(directory, "current"))
        with lmdb.open(generation, max_dbs=8, map_size=1 << 30) as env:
            db = env.open_db(b"records")
            with env.begin(write=True) as txn:
                for key, s in records.items():
                    flags = (stored_key(key) != key) | 2 * bool(s.headers)
                    data = struct.pack("<BBHiqqQ", 1, flags, 0, s.partition, s.offset,
                                       s.timestamp, 0)
                    if flags & 1:
                        data += struct.pack("<I", len(key)) + key
                    if flags & 2:
                        block = b"".join(
                            struct.pack("<I", len(n)) + n.encode()
                            + struct.pack("<i", -1 if v is None else len(v)) + (v or b"")
                            for n, v in s.headers)
                        data += struct.pack("<I", len(block)) + block
                    txn.put(stored_key(key), data + s.value, db=db)

    def test_a_snapshot_that_is_the_fold_is_equal(self):
        truth = some_truth(3)
        fold = truth.fold()
        fold[b""] = Stored(b"of the empty key", 0, 1, 2, ())
        fold[b"l" * 5000] = Stored(b"of a long key", 0, 3, 4, (("h", b""), ("n", None)))
        fold[b"l" * KEY_VERBATIM_MAX] = Stored(b"", 0, 5, 6, ())
        with tempfile.TemporaryDirectory() as directory:
            self.write(directory, fold)
            for step in (1, 7, 5000):
                diff = compare_snapshot(snapshot_of(directory, step=step), fold, headers=True)
                self.assertTrue(diff.clean, diff)

    def test_every_difference_is_found(self):
        fold = some_truth(4).fold()
        key = next(iter(fold))
        stored = fold[key]
        changed = {
            "missing": {**fold, b"one more": stored},
            "extra": {k: v for k, v in fold.items() if k != key},
            "wrong_value": {**fold, key: stored._replace(value=stored.value + b"x")},
            "wrong_position": {**fold, key: stored._replace(offset=stored.offset + 1)},
            "wrong_headers": {**fold, key: stored._replace(headers=(("x", b"y"),))},
        }
        with tempfile.TemporaryDirectory() as directory:
            self.write(directory, fold)
            snapshot = snapshot_of(directory)
        for what, expected in changed.items():
            diff = compare_snapshot(snapshot, expected, headers=True)
            self.assertEqual(getattr(diff, what), 1, diff)
            self.assertFalse(diff.clean)

    def test_a_record_that_breaks_the_contract_is_refused(self):
        good = struct.pack("<BBHiqqQ", 1, 0, 0, 0, 0, 0, 0)
        self.assertEqual(decode_record(b"k", good)[0], b"k")
        for header in ((2, 0, 0), (1, 4, 0), (1, 8, 0), (1, 0, 1), (1, 1, 0)):
            data = struct.pack("<BBHiqqQ", *header, 0, 0, 0, 0) + struct.pack("<I", 1) + b"k"
            with self.assertRaises(ValueError):
                decode_record(b"k", data)


if __name__ == "__main__":
    unittest.main()
