"""`sidenote join`: every stream record has its result once, made of one named state of the table."""

import contextlib
import json
import os
import random
import subprocess
import threading
import time
import unittest

import joining
from broker import COMPACT_NEVER, Kafka, wait_until
from joining import Join
from rig import RigTest, shared_kafka
from sidecar import Sidecar, sidenote
from workload import GroundTruth, Workload


class JoinTest(RigTest):
    """One table for all tests of a class, in self.table (what was written) and self.sidecar_of_table;
    each test has a stream and an output topic of its own."""

    KEYS = 500
    table = None
    sidecar_of_table = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        kafka = shared_kafka()
        topic = kafka.create_topic(f"table-{cls.__name__}", 4, COMPACT_NEVER)
        cls.table = Workload(kafka, topic, seed=3, not_json=0.05)
        cls.table.load(cls.KEYS)
        cls.sidecar_of_table = Sidecar(kafka, f"pipe-{cls.__name__}", topic)
        cls.sidecar_of_table.start()
        cls.sidecar_of_table.wait_ready()
        cls.caught_up()

    @classmethod
    def tearDownClass(cls):
        cls.sidecar_of_table.close()
        super().tearDownClass()

    @classmethod
    def caught_up(cls):
        cls.sidecar_of_table.wait_published()

    def stream(self, partitions=3, **options):
        """A workload on a new stream topic."""
        topic = self.kafka.create_topic(self.unique("stream"), partitions)
        return self.workload(topic, **{"seed": 7, **options})

    def join(self, stream, options=None, instance="a", of=None, **more):
        """An instance that is not started yet; `of`: another one, of the same join."""
        join = Join(self.kafka, of.name if of else self.unique("join"),
                    more.pop("state_dir", self.sidecar_of_table.state_dir), stream,
                    of.output if of else self.unique("out"), options, instance, **more)
        self._sidecars.append(join)
        self.addCleanup(join.close)
        return join

    def results(self, join):
        return joining.read_results(self.kafka, join.output)

    def run_once(self, stream, options=None, **more):
        """Everything that is in the stream now, joined: (join, results)."""
        join = self.join(stream, options, **more).start()
        join.wait_joined()
        join.term()
        return join, self.results(join)

    def assert_clean(self, stream, results, **options):
        verdict = joining.judge(stream.truth if hasattr(stream, "truth") else stream,
                                self.table.truth, results, **options)
        self.assertTrue(verdict.clean, f"\n{verdict}")
        return verdict


def put(stream, key, value, headers=(), timestamp=None):
    stream.put(key, value if value is None or isinstance(value, bytes)
               else json.dumps(value).encode(), headers, timestamp)


class Results(JoinTest):
    def test_a_left_join_has_a_result_for_every_record(self):
        stream = self.stream(not_json=0.05, headers=0.3, key_format=b"key-%08d")
        stream.load(2 * self.KEYS)  # half of them are not in the table
        stream.change(1000)
        join, results = self.run_once(stream.topic, {"join.type": "left"})
        verdict = self.assert_clean(stream, results, name=join.name)
        self.assertEqual(verdict.seen, len(stream.truth))
        self.assertGreater(verdict.without, 400)

    def test_an_inner_join_has_one_where_the_table_has_the_key(self):
        stream = self.stream()
        stream.load(2 * self.KEYS)
        join, results = self.run_once(stream.topic)
        self.assert_clean(stream, results, left=False, name=join.name)
        self.assertEqual(len(results), self.KEYS)
        self.assertEqual({p: o for p, (o, _) in join.committed().items()},
                         self.kafka.end_offsets(stream.topic))

    def test_a_field_may_be_the_key(self):
        stream = self.stream()
        wanted = {}
        for i, value in enumerate([
                {"user": {"id": "key-00000001"}}, {"user": {"id": "key-\u00fc"}},
                {"user": {"id": 42}}, {"user": {"id": 4.2}}, {"user": {"id": None}},
                {"user": {"id": ["key-00000001"]}}, {"user": "key-00000001"}, {"other": 1},
                b"no json", b"", None, b'{"user":{"id":"x","id":"key-00000002"}}',
                b'{"user":{"\\u0069d":"key-\\u00300000003"}}']):
            put(stream, b"s%d" % i, value)
        stream.flush()
        wanted = {b"s0": b"key-00000001", b"s1": "key-\u00fc".encode(), b"s2": b"42",
                  b"s11": b"key-00000002", b"s12": b"key-00000003"}
        _, results = self.run_once(stream.topic, {"join.key": "field:user.id",
                                                  "join.type": "left"})
        self.assert_clean(stream, results, key_of=lambda r: wanted.get(r.key))
        found = {r.key for r in results if r.value["table"]}
        self.assertEqual(found, {b"s0", b"s11", b"s12"})

    def test_a_record_without_a_key_is_joined_with_nothing(self):
        topic = self.kafka.create_topic(self.unique("stream"), 2)
        producer = self.kafka.producer()
        for p in (0, 1):
            producer.produce(topic, b'{"n":%d}' % p, None, p)
            producer.produce(topic, b'{"n":%d}' % p, b"", p)
        producer.flush(10)
        _, left = self.run_once(topic, {"join.type": "left"})
        self.assert_clean(GroundTruth.read_back(self.kafka, topic), left)
        self.assertEqual([r.key for r in left], [None, b""] * 2)
        _, inner = self.run_once(topic)
        self.assertEqual(inner, [])

    def test_values_that_are_too_large_are_omitted_and_headers_too(self):
        stream = self.stream()
        big = b'{"a":"%s"}' % (b"x" * 5000)
        put(stream, b"key-00000001", big, (("h", b"v"),))
        put(stream, b"key-00000002", b"{}", (("h", b"x" * 5000), ("i", None)))
        put(stream, b"absent", big)
        stream.flush()
        out = self.kafka.create_topic(self.unique("out"), 3, {"max.message.bytes": 3000})
        join = self.join(stream.topic, {"join.type": "left", "join.output.topic": out})
        join.output = out
        join.start()
        join.wait_joined()
        results = self.results(join)
        self.assert_clean(stream, results)
        by_key = {r.key: r for r in results}
        self.assertIn("sidenote.omitted", by_key[b"key-00000001"].value["stream"]["value"])
        self.assertIn(("h", b"v"), by_key[b"key-00000001"].headers)
        self.assertIn(("sidenote.headers.omitted", b"2"), by_key[b"key-00000002"].headers)
        # and what no result can carry ends it, with the limit to set
        put(stream, b"k" * 2000, b"{}")
        stream.flush()
        join.wait_exit(expect=2)
        self.assertIn("SN-JOIN-TOO-LARGE", join.log_text())
        limit = join.log_text().split("max.message.bytes=")[1].split()[0]
        self.kafka.alter_config(out, {"max.message.bytes": limit})
        join.start()
        join.wait_joined()
        self.assert_clean(stream, self.results(join))

    def test_a_long_key_is_found_and_one_that_begins_alike_is_not(self):
        stream = self.stream()
        long = b"k" * 3000
        self.table.put(long, b'{"n":1}')
        self.table.put(long[:480], b"")
        self.table.flush()
        self.caught_up()
        for key in (long, long[:-1], long + b"k", long[:480], long[:479]):
            put(stream, key, {})
        stream.flush()
        _, results = self.run_once(stream.topic, {"join.type": "left"})
        self.assert_clean(stream, results)
        self.assertEqual({r.key: r.value["table"]["value"] for r in results if r.value["table"]},
                         {long: {"n": 1}, long[:480]: {"sidenote.base64": ""}})

    def test_where_partition_counts_differ_the_key_decides(self):
        stream = self.stream(partitions=2)
        stream.load(300)
        out = self.kafka.create_topic(self.unique("out"), 5)
        join = self.join(stream.topic, {"join.type": "left", "join.output.topic": out})
        join.output = out
        join.start()
        join.wait_joined()
        self.assert_clean(stream, self.results(join), output_partitions=5)
        self.assertIn("SN-JOIN-PARTITIONS", join.log_text())

    def test_what_a_transaction_aborted_is_not_joined(self):
        topic = self.kafka.create_topic(self.unique("stream"), 2)
        producer = self.kafka.producer(**{"transactional.id": self.unique("txn")})
        producer.init_transactions(30)
        for i in range(12):
            producer.begin_transaction()
            for p in (0, 1):
                producer.produce(topic, b'{"n":%d}' % i, b"key-%08d" % i, p)
            producer.flush(30)
            (producer.abort_transaction if i % 3 == 2 else producer.commit_transaction)(30)
        self.wait_stable(topic)
        join = self.join(topic, {"join.type": "left"}).start()
        join.wait_joined()  # up to the end behind the control records: no lag is left
        self.assert_clean(GroundTruth.read_back(self.kafka, topic), self.results(join))


class Waits(JoinTest):
    OPTIONS = {"join.type": "left", "join.wait": "token", "join.wait.from": "header:seen",
               "join.wait.ms": "8000"}

    def changed(self, key):
        """Change the key's table record: the token of that change."""
        self.table.put(key, self.table.new_value())
        self.table.flush()
        p = self.table.partition_of(key)
        return f"{p}:{self.table.truth.logs[p].offsets[-1] + 1}".encode()

    def test_a_token_is_waited_for(self):
        stream = self.stream()
        join = self.join(stream.topic, self.OPTIONS).start()
        for i in range(60):
            key = b"key-%08d" % (i % 7)
            with self.sidecar_of_table.stopped():
                put(stream, key, {"n": i}, (("seen", self.changed(key)),))
                stream.flush()
                time.sleep(0.02)
        join.wait_joined()
        results = self.results(join)
        self.assert_clean(stream, results, wait="reached")
        for r in results:
            token = joining.parse_token(r.value["token"])
            p, offset = dict(r.headers)["seen"].decode().split(":")
            self.assertGreaterEqual(token[int(p)], int(offset))

    def test_a_wait_is_bounded_and_says_so(self):
        stream = self.stream(partitions=1)
        put(stream, b"key-00000001", {"n": 1}, (("seen", b"1:999999999"),))
        put(stream, b"key-00000002", {"n": 2}, (("seen", b"1:1"),))
        put(stream, b"key-00000003", {"n": 3}, (("seen", b"not a token"),))
        put(stream, b"key-00000004", {"n": 4}, (("seen", b"77:1"),))
        put(stream, b"key-00000005", {"n": 5})
        put(stream, b"key-00000006", {"n": 6}, (("seen", None),))
        stream.flush()
        begin = time.monotonic()
        _, results = self.run_once(stream.topic, {**self.OPTIONS, "join.wait.ms": "300"})
        self.assertLess(time.monotonic() - begin, 15)
        self.assert_clean(stream, results, wait="late|reached|unreadable|none")
        self.assertEqual([r.value["wait"] for r in results],
                         ["late", "reached", "unreadable", "unreadable", "none", "none"])

    def test_a_wait_that_is_ended_by_a_signal_is_not_late(self):
        stream = self.stream()
        key = b"key-00000001"
        with self.sidecar_of_table.stopped():
            put(stream, key, {"n": 1}, (("seen", self.changed(key)),))
            stream.flush()
            join = self.join(stream.topic, self.OPTIONS).start()
            wait_until(lambda: join.committed() and "first start" in join.log_text(), 20, "started")
            time.sleep(1)
            join.term()
        self.assertEqual(self.results(join), [])
        join.start()
        join.wait_joined()
        self.assert_clean(stream, self.results(join), wait="reached")

    def test_a_field_may_name_the_token(self):
        stream = self.stream()
        for i in range(5):
            key = b"key-%08d" % i
            put(stream, key, {"meta": {"seen": self.changed(key).decode()}})
        stream.flush()
        _, results = self.run_once(stream.topic,
                                   {**self.OPTIONS, "join.wait.from": "field:meta.seen"})
        self.assert_clean(stream, results, wait="reached")

    def test_the_time_of_a_record_is_waited_for(self):
        stream = self.stream()
        options = {**self.OPTIONS, "join.wait": "time", "join.wait.from": None}
        join = self.join(stream.topic, options).start()
        wanted = {}
        for i in range(30):
            key = b"key-%08d" % (i % 7)
            with self.sidecar_of_table.stopped():
                wanted[i] = joining.parse_token(self.changed(key).decode())
                put(stream, key, {"n": i})
                stream.flush()
                time.sleep(0.02)
        join.wait_joined()
        results = self.results(join)
        self.assert_clean(stream, results, wait="reached")
        for r in results:
            token = joining.parse_token(r.value["token"])
            for p, offset in wanted[r.value["stream"]["value"]["n"]].items():
                self.assertGreaterEqual(token[p], offset)

    def test_a_time_without_an_answer_is_late(self):
        stream = self.stream(partitions=1)
        put(stream, b"key-00000001", {"at": 1})
        put(stream, b"key-00000002", {"at": "x"})
        put(stream, b"key-00000003", {"at": int(time.time() * 1000) + 3600_000})
        stream.flush()
        options = {**self.OPTIONS, "join.wait": "time", "join.wait.from": "field:at",
                   "join.wait.ms": "300"}
        with self.sidecar_of_table.stopped():
            self.changed(b"key-00000004")
            join = self.join(stream.topic, options).start()
            join.wait_joined()
        self.assertEqual([r.value["wait"] for r in self.results(join)],
                         ["late", "unreadable", "late"])


class Starts(JoinTest):
    def test_a_first_start_joins_what_comes_from_then_on(self):
        stream = self.stream()
        stream.load(100)
        start = self.kafka.end_offsets(stream.topic)
        join = self.join(stream.topic, {"join.type": "left", "join.start": "end"}).start()
        wait_until(lambda: all(o >= 0 for o, _ in join.committed().values()), 20, "first offsets")
        stream.load(100)
        join.wait_joined()
        verdict = self.assert_clean(stream, self.results(join), start=start)
        self.assertEqual(verdict.seen, 100)

    def test_a_first_start_of_several_at_once_gives_each_partition_one_start(self):
        stream = self.stream(partitions=4)
        stream.load(200)
        start = self.kafka.end_offsets(stream.topic)
        options = {"join.type": "left", "join.start": "end"}
        a = self.join(stream.topic, options).start()
        others = [self.join(stream.topic, options, of=a, instance=i).start() for i in "bc"]
        wait_until(lambda: all(o >= 0 for o, _ in a.committed().values()), 20, "first offsets")
        stream.load(200)
        a.wait_joined()
        verdict = self.assert_clean(stream, self.results(a), start=start)
        self.assertEqual(verdict.seen, 200)
        for join in (a, *others):
            join.term()

    def test_a_partition_that_is_added_is_joined_from_its_beginning(self):
        stream = self.stream(partitions=1)
        stream.load(50)
        options = {"join.type": "left", "join.start": "end",
                   "kafka.topic.metadata.refresh.interval.ms": "500"}
        join = self.join(stream.topic, options).start()
        wait_until(lambda: all(o >= 0 for o, _ in join.committed().values()), 20, "first offsets")
        self.kafka.add_partitions(stream.topic, 2)
        producer = self.kafka.producer()
        for i in range(50):
            producer.produce(stream.topic, b"{}", b"key-%08d" % i, 1)
        producer.flush(10)
        join.wait_joined()
        results = self.results(join)
        self.assertEqual(sorted(r.value["stream"]["offset"] for r in results
                                if r.value["stream"]["partition"] == 1), list(range(50)))
        self.assertEqual(len(results), 50)

    def test_lost_offsets_are_no_first_start(self):
        stream = self.stream()
        stream.load(20)
        join, results = self.run_once(stream.topic, {"join.type": "left"})
        self.kafka.admin().delete_topics([stream.topic], operation_timeout=10)[stream.topic] \
            .result(20)
        wait_until(lambda: not self.kafka.leaders(stream.topic), 20, "topic deleted")
        self.kafka.create_topic(stream.topic, 3)
        join.start()
        join.wait_exit(expect=4)
        self.assertIn("SN-JOIN-OFFSETS-LOST", join.log_text())
        self.assertEqual(len(self.results(join)), len(results))
        # the way out that the message names
        self.kafka.commit(join.group, stream.topic, {p: 0 for p in range(3)})
        join.start()
        time.sleep(1)
        join.term()

    def test_a_stream_that_is_deleted_under_it_ends_it(self):
        stream = self.stream()
        stream.load(50)
        join = self.join(stream.topic, {"join.type": "left"}).start()
        join.wait_joined()
        self.kafka.delete_topic(stream.topic)
        join.wait_log("seems not to be there")
        self.kafka.create_topic(stream.topic, 3)
        again = self.workload(stream.topic, seed=8)
        again.load(200)
        join.wait_exit(expect=4, timeout=60)
        self.assertRegex(join.log_text(), "SN-JOIN-(STREAM-GONE|OUTSIDE|OFFSETS-LOST)")
        self.assertEqual(len(self.results(join)), 50)

    def test_an_offset_outside_of_the_log_ends_it(self):
        stream = self.stream(partitions=1)
        stream.load(20)
        join, _ = self.run_once(stream.topic)
        self.kafka.commit(join.group, stream.topic, {0: 1000})
        join.start()
        join.wait_exit(expect=4)
        self.assertIn("SN-JOIN-OUTSIDE", join.log_text())

    def test_what_is_wrong_is_said_in_one_line(self):
        stream = self.stream()
        compacted = self.kafka.create_topic(self.unique("out"), 1, {"cleanup.policy": "compact"})
        for options, words in (
                ({"join.output.create": None}, "SN-JOIN-OUTPUT-MISSING"),
                ({"join.output.topic": compacted}, "SN-JOIN-OUTPUT-COMPACTED"),
                ({"join.output.topic": self.table.topic, }, "SN-JOIN-OUTPUT-COMPACTED"),
                ({"join.stream.topic": "nowhere"}, "SN-JOIN-STREAM-MISSING"),
                ({"join.output.topic": stream.topic}, "SN-CONFIG join.output.topic"),
                ({"source.topic": "x"}, "SN-CONFIG"),
                ({"join.wait": "token"}, "SN-CONFIG join.wait.from"),
                ({"producer.compression.type": "no"}, "SN-KAFKA-CONFIG")):
            join = self.join(stream.topic, options).start()
            with self.subTest(words):
                join.wait_exit(expect=2)
                self.assertIn(words, join.log_text())

    def test_two_of_one_instance_id_end(self):
        stream = self.stream(partitions=2)
        stream.load(100)
        a = self.join(stream.topic).start()
        b = self.join(stream.topic, of=a).start()
        stream.in_background(stream.change, 100000, rate=200)
        deadline = time.monotonic() + 60
        while a.alive() and b.alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        ended = [j for j in (a, b) if not j.alive()]
        self.assertTrue(ended)
        self.assertEqual(ended[0].process.returncode, 2)
        self.assertIn("SN-JOIN-FENCED", ended[0].log_text())


class Table(JoinTest):
    """What happens to the table, and how it is reached."""

    def test_a_read_only_mount_and_no_rights_are_enough(self):
        stream = self.stream()
        stream.load(300)
        join = self.join(stream.topic, {"join.type": "left"})
        mounted = os.path.join(join.directory, "table")
        os.mkdir(mounted)
        for path, mode in ((join.directory, 0o755), (join.config_path, 0o644)):
            os.chmod(path, mode)
        join.configure({"state.dir": mounted})
        join.prefix = ["unshare", "-m", "sh", "-c",
                       'mount --bind "$1" "$2" && mount -o remount,bind,ro "$2" && shift 2 &&'
                       'exec setpriv --reuid=65534 --regid="$(stat -c %g "$0")" --clear-groups '
                       '--no-new-privs --bounding-set=-all "$@"',
                       self.sidecar_of_table.state_dir, self.sidecar_of_table.state_dir, mounted]
        tried = subprocess.run(join.prefix + ["true"], capture_output=True, check=False)
        if tried.returncode:
            self.skipTest(f"no namespaces here: {tried.stderr.decode()}")
        join.start()
        self.table.change(500, rate=500)
        join.wait_joined()
        with open(f"/proc/{join.process.pid}/status", encoding="ascii") as f:
            status = f.read()
        self.assertRegex(status, r"(?m)^Uid:\s+65534\s")
        self.assertRegex(status, r"(?m)^CapEff:\s+0+$")
        self.assert_clean(stream, self.results(join))
        join.term()

    def test_the_table_may_change_all_the_time(self):
        stream = self.stream(value_bytes=100)
        join = self.join(stream.topic, {"join.type": "left", "join.batch.records": "50"}).start()
        stream.load(self.KEYS)
        stream.in_background(stream.change, 2000, rate=1000)
        self.table.change(2000, rate=1000)
        stream.wait_background()
        join.wait_joined()
        verdict = self.assert_clean(stream, self.results(join))
        self.assertGreater(verdict.tokens, 10)

    def test_restarts_and_rebuilds_of_the_sidecar_are_followed(self):
        sidecar = self.sidecar_of_table
        stream = self.stream()
        join = self.join(stream.topic, {"join.type": "left"}).start()
        stream.load(self.KEYS)
        stop = threading.Event()

        def write():
            while not stop.is_set():
                stream.change(50, rate=500)

        stream.in_background(write)
        before = os.readlink(f"{sidecar.state_dir}/current")
        try:
            self.table.change(300)
            sidecar.kill9()
            self.table.change(300)
            sidecar.start()
            sidecar.wait_ready()
            self.assertEqual(sidenote("rebuild", "-F", sidecar.config_path).returncode, 0)
            self.table.change(300)
        finally:
            stop.set()
            stream.wait_background()
        self.caught_up()
        put(stream, b"key-00000001", {"last": True})
        stream.flush()
        join.wait_joined()
        results = self.results(join)
        self.assert_clean(stream, results)
        self.assertNotEqual(os.readlink(f"{sidecar.state_dir}/current"), before)
        last = [r for r in results if r.value["stream"]["value"] == {"last": True}][0]
        self.assertEqual(joining.parse_token(last.value["token"]),
                         self.kafka.end_offsets(self.table.topic))

    def test_a_table_that_is_not_there_yet_is_waited_for(self):
        stream = self.stream()
        stream.load(50)
        nowhere = os.path.join(self.sidecar_of_table.directory, "later")
        join = self.join(stream.topic, {"join.type": "left"}, state_dir=nowhere).start()
        join.wait_log("SN-JOIN-TABLE-MISSING")
        os.symlink(self.sidecar_of_table.state_dir, nowhere)
        join.wait_joined()
        self.assert_clean(stream, self.results(join))

    def test_a_table_without_a_sidecar_is_joined_with_and_said_to_be_old(self):
        stream = self.stream()
        self.sidecar_of_table.term()
        try:
            stream.load(50)
            join = self.join(stream.topic, {"join.type": "left"}).start()
            join.wait_joined()
            self.assert_clean(stream, self.results(join))
        finally:
            self.sidecar_of_table.start()
            self.sidecar_of_table.wait_ready()


class Crashes(JoinTest):
    def test_kills_and_rebalances_lose_and_double_nothing(self):
        stream = self.stream(partitions=4, value_bytes=100)
        stream.load(self.KEYS)
        options = {"join.type": "left", "join.batch.records": "100"}
        a = self.join(stream.topic, options)
        joins = [a] + [self.join(stream.topic, options, of=a, instance=i) for i in "bc"]
        for join in joins:
            join.start()
        rng = random.Random(5)
        stream.in_background(stream.change, 3000, rate=500)
        self.table.in_background(self.table.change, 3000, rate=500)
        for i in range(6):
            time.sleep(rng.uniform(0.1, 1.2))
            join = joins[i % 3]
            if i % 4 == 3:
                join.term()
            else:
                join.kill9()
            join.start()
        stream.wait_background()
        self.table.wait_background()
        for join in joins[1:]:
            join.kill9()
        a.wait_joined()
        self.assert_clean(stream, self.results(a))

    def test_an_instance_that_hangs_is_replaced_and_does_no_harm(self):
        stream = self.stream(partitions=4)
        options = {"join.type": "left"}
        a = self.join(stream.topic, options).start()
        stream.load(100)
        a.wait_joined()
        b = self.join(stream.topic, options, of=a, instance="b").start()
        stream.in_background(stream.change, 3000, rate=600)
        time.sleep(1)
        with a.stopped():
            time.sleep(3)
        stream.wait_background()
        b.wait_joined()
        self.assert_clean(stream, self.results(a))

    def test_a_terminated_instance_leaves_no_transaction_open(self):
        stream = self.stream()
        join = self.join(stream.topic, {"join.type": "left"}).start()
        stream.load(100)
        join.wait_joined()
        stream.in_background(stream.change, 3000)
        time.sleep(0.2)
        join.term()
        stream.wait_background()
        self.assertEqual(self.kafka.open_transactions(join.output), set())
        join.start()
        join.wait_joined()
        self.assert_clean(stream, self.results(join))


class Unclear(RigTest):
    def test_after_an_unclear_end_of_a_transaction_it_starts_over_and_doubles_nothing(self):
        """A broker that hangs makes librdkafka send EndTxn or TxnOffsetCommit twice: both may count."""
        with Kafka() as kafka, contextlib.ExitStack() as stack:
            table = Workload(kafka, kafka.create_topic("table", 2, COMPACT_NEVER), seed=3)
            table.load(100)
            stream = Workload(kafka, kafka.create_topic("stream", 2), seed=7)
            stream.load(200)
            sidecar = stack.enter_context(Sidecar(kafka, "table", table.topic,
                                                  {"notifications.topic": ""}))
            sidecar.start()
            sidecar.wait_ready()
            join = Join(kafka, "unclear", sidecar.state_dir, stream.topic, "results",
                        {"join.type": "left", "kafka.socket.timeout.ms": "1000",
                         "join.batch.records": "20", "join.batch.ms": "1"})
            self._sidecars += [sidecar, join]
            stack.callback(join.close)
            join.start()
            join.wait_joined()
            rng = random.Random(1)
            while "starting over" not in join.log_text():
                stream.load(2000)
                time.sleep(rng.uniform(0, 0.2))
                kafka.pause()
                time.sleep(1.5)
                kafka.resume()
                join.wait_joined()
            verdict = joining.judge(stream.truth, table.truth,
                                    joining.read_results(kafka, "results"))
            self.assertTrue(verdict.clean, f"\n{verdict}")
            join.term()


if __name__ == "__main__":
    unittest.main()
