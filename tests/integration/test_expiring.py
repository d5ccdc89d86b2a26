"""cleanup.policy=compact,delete: keys whose record fell off the log's start have expired. They
leave the snapshot in a round, and that is nobody's change."""

import ctypes
import re
import time
import unittest

import oracle
from broker import COMPACT_FAST, wait_until
from sidecar import sidenote
from test_compaction import CompactionTest
from workload import GroundTruth

EXPIRING = {**COMPACT_FAST, "cleanup.policy": "compact,delete", "delete.retention.ms": "86400000"}


def delete_records(kafka, topic, before):
    """Moves the log's start: partition -> offset. confluent-kafka 1.7 does not have it."""
    lib = ctypes.CDLL("librdkafka.so.1")
    pointer = ctypes.c_void_p
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_topic_partition_list_new",
                 "rd_kafka_topic_partition_list_add", "rd_kafka_DeleteRecords_new",
                 "rd_kafka_queue_new", "rd_kafka_queue_poll"):
        getattr(lib, name).restype = pointer
    err = ctypes.create_string_buffer(512)
    conf = pointer(lib.rd_kafka_conf_new())
    lib.rd_kafka_conf_set(conf, b"bootstrap.servers", kafka.bootstrap.encode(), err, 512)
    rk = pointer(lib.rd_kafka_new(0, conf, err, ctypes.c_size_t(512)))  # a producer
    offsets = pointer(lib.rd_kafka_topic_partition_list_new(len(before)))
    for p, offset in before.items():
        lib.rd_kafka_topic_partition_list_add(offsets, topic.encode(), p)
        lib.rd_kafka_topic_partition_list_set_offset(offsets, topic.encode(), p,
                                                     ctypes.c_int64(offset))
    request = (pointer * 1)(lib.rd_kafka_DeleteRecords_new(offsets))
    queue = pointer(lib.rd_kafka_queue_new(rk))
    lib.rd_kafka_DeleteRecords(rk, request, ctypes.c_size_t(1), None, queue)
    event = pointer(lib.rd_kafka_queue_poll(queue, 20000))
    failed = lib.rd_kafka_event_error(event) if event else "no answer"
    lib.rd_kafka_event_destroy(event)
    lib.rd_kafka_queue_destroy(queue)
    lib.rd_kafka_DeleteRecords_destroy(pointer(request[0]))
    lib.rd_kafka_topic_partition_list_destroy(offsets)
    lib.rd_kafka_destroy(rk)
    if failed:
        raise RuntimeError(f"DeleteRecords: {failed}")
    wait_until(lambda: kafka.start_offsets(topic) == {**kafka.start_offsets(topic), **before}, 20,
               "the log's start")


class Expiring(CompactionTest):
    def expiring(self, options=None, keys=1000):
        topic, work = self.loaded(keys=keys, config=EXPIRING)
        sidecar, start = self.running(topic, {"source.expiring": "true", **(options or {})})
        return topic, work, sidecar, start

    def expire(self, topic, before):
        """The keys that are still in the log."""
        delete_records(self.kafka, topic, before)
        return GroundTruth.read_back(self.kafka, topic).fold()

    def assert_fold(self, sidecar, fold):
        diff = oracle.compare_snapshot(oracle.snapshot_of(sidecar.state_dir), fold)
        self.assertTrue(diff.clean, f"\n{diff}")

    def expired(self, sidecar):
        """How many keys have left."""
        return sum(map(int, re.findall(r"(\d+) keys have expired", sidecar.log_text())))

    def notes(self, sidecar):
        return oracle.read_notifications(self.kafka, sidecar.notifications_topic)

    def test_a_topic_that_expires_is_refused_unless_that_is_accepted(self):
        topic, _ = self.loaded(keys=10, config=EXPIRING)
        sidecar = self.sidecar(topic).start()
        sidecar.wait_exit(expect=2)
        self.assertIn("SN-SOURCE-EXPIRES", sidecar.log_text())

    def test_what_expired_leaves_in_a_round_and_nobody_is_told(self):
        topic, work, sidecar, _ = self.expiring()
        left = self.expire(topic, {0: 100, 2: 50})
        self.assertEqual(len(left), 850)
        self.round_only(sidecar)
        self.assertEqual(self.expired(sidecar), 150)
        self.assert_fold(sidecar, left)
        self.assertEqual(self.notes(sidecar), [])

    def test_what_expired_leaves_by_itself_and_nobody_is_told(self):
        # It asks for the log's start every ten seconds.
        topic, work, sidecar, _ = self.expiring()
        left = self.expire(topic, {0: 100, 2: 50})
        wait_until(lambda: self.expired(sidecar) == 150, 60, "expiry")
        self.assert_fold(sidecar, left)
        key = list(work.truth.records(0))[5].key
        work.put(key, b'{"returned":true}')
        work.flush()
        sidecar.wait_published()
        self.assert_fold(sidecar, GroundTruth.read_back(self.kafka, topic).fold())
        self.assertEqual(self.notes(sidecar), [])
        self.assertNotIn("round:", sidecar.log_text())

    def test_what_expired_while_it_was_away_leaves_by_itself(self):
        topic, work, sidecar, _ = self.expiring()
        sidecar.term()
        left = self.expire(topic, {0: 100, 2: 50})
        sidecar.start()
        wait_until(lambda: self.expired(sidecar) == 150, 60, "expiry")
        self.assert_fold(sidecar, left)
        self.assertEqual(self.notes(sidecar), [])

    def test_a_round_at_the_start_takes_away_what_expired(self):
        topic, work, sidecar, _ = self.expiring({"reconcile": "always"})
        sidecar.term()
        left = self.expire(topic, {0: 100, 2: 50})
        done = self.rounds(sidecar)
        sidecar.start()
        self.wait_rounds(sidecar, done + 1)
        self.assert_fold(sidecar, left)
        time.sleep(2)
        self.assertEqual(self.notes(sidecar), [])

    def test_a_delete_is_a_delete_and_an_expired_key_may_return(self):
        topic, work, sidecar, start = self.expiring()
        keys = {p: [r.key for r in work.truth.records(p)] for p in range(4)}
        self.expire(topic, {0: 100})
        self.round_only(sidecar)
        for key in keys[0][:20]:
            work.put(key, b'{"returned":true}')   # a create: what it was before has expired
        for key in keys[0][20:40]:
            work.put(key, None)                   # a tombstone on an absent key: nothing
        for key in keys[1][:30]:
            work.put(key, None)
        for key in keys[1][30:40]:
            work.put(key, b'{"changed":true}')
        work.flush()
        sidecar.wait_published()
        told = [oracle.understand(n, topic) for n in self.notes(sidecar)]
        self.assertEqual(sorted((t.note.key, t.op) for t in told),
                         sorted([(k, "d") for k in keys[1][:30]]
                                + [(k, "u") for k in keys[1][30:40]]))
        self.assert_fold(sidecar, GroundTruth.read_back(self.kafka, topic).fold())

    def test_time_is_what_expires_them(self):
        topic, work, sidecar, _ = self.expiring()
        old = work.present_keys()
        self.kafka.alter_config(topic, {"retention.ms": "3000"})
        time.sleep(3)
        work.load(50)   # rolls the segments, so that the old ones may go
        self.kafka.force_compaction(topic)
        wait_until(lambda: min(self.kafka.start_offsets(topic).values()) > 100, 20, "expiry")
        self.kafka.alter_config(topic, {"retention.ms": "86400000"})
        left = GroundTruth.read_back(self.kafka, topic).fold()
        self.assertLess(len(left), 60)
        self.round_only(sidecar)
        self.assert_fold(sidecar, left)
        self.assertEqual(len(set(left) & set(old)), 0)
        self.assertEqual(self.notes(sidecar), [])

    def test_a_first_start_on_a_log_that_begins_late(self):
        topic, work = self.loaded(config=EXPIRING)
        left = self.expire(topic, {0: 100, 1: 200, 2: 50})
        sidecar, _ = self.running(topic, {"source.expiring": "true"})
        self.assert_fold(sidecar, left)

    def test_a_rebuild_leaves_out_what_expired(self):
        topic, work, sidecar, start = self.expiring()
        left = self.expire(topic, {0: 100, 2: 50})
        done = sidenote("rebuild", "-F", sidecar.config_path, timeout=90)
        self.assertEqual(done.returncode, 0, done.stderr)
        sidecar.wait_ready()
        self.assert_fold(sidecar, left)
        self.assertEqual(self.notes(sidecar), [])

    def test_a_position_that_expired_is_a_stop(self):
        topic, work, sidecar, start = self.expiring()
        sidecar.term()
        work.change({"update": 200})
        self.expire(topic, {0: start[0] + 10})
        sidecar.start()
        sidecar.wait_exit(expect=4)
        self.assertIn("SN-POSITION-OUTSIDE", sidecar.log_text())


if __name__ == "__main__":
    unittest.main()
