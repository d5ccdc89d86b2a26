"""The rig itself: a test that passes says nothing while these fail."""

import unittest

import confluent_kafka

from broker import COMPACT_FAST, COMPACT_NEVER, Kafka, wait_until
from rig import RigTest
from workload import GroundTruth, Workload


class RigItself(RigTest):
    def write(self, topic, *records, partition=0):
        producer = self.kafka.producer()
        for key, value in records:
            producer.produce(topic, key=key, value=value, partition=partition)
        self.assertEqual(producer.flush(30), 0)

    def test_what_is_produced_is_read(self):
        topic = self.topic(partitions=2)
        self.write(topic, (b"a", b"1"), (b"b", None))
        self.write(topic, (b"c", b""), partition=1)
        read = [(m.partition(), m.offset(), m.key(), m.value()) for m in self.kafka.read(topic)]
        self.assertEqual(read, [(0, 0, b"a", b"1"), (0, 1, b"b", None), (1, 0, b"c", b"")])
        self.assertEqual(self.kafka.end_offsets(topic), {0: 2, 1: 1})

    def test_compaction_removes_an_overwritten_record_and_nothing_else(self):
        topic = self.topic(partitions=1, config=COMPACT_FAST)
        for value in (b"1", b"2"):
            self.write(topic, (b"a", value))
        self.write(topic, (b"b", b"1"))
        self.kafka.force_compaction(topic)
        self.assertEqual(self.kafka.offsets_present(topic), [1, 2])

    def test_compaction_purges_a_tombstone_by_the_second_pass(self):
        topic = self.topic(partitions=1, config=COMPACT_FAST)
        self.write(topic, (b"a", b"1"))
        self.write(topic, (b"b", b"1"))
        self.write(topic, (b"a", None))
        self.kafka.force_compaction(topic)
        # the cleaner may have come by itself again meanwhile
        self.assertIn(self.kafka.offsets_present(topic), ([1, 2], [1]))
        self.kafka.force_compaction(topic)
        self.assertEqual(self.kafka.offsets_present(topic), [1])
        self.assertEqual(self.kafka.start_offsets(topic), {0: 0})

    def test_compaction_of_several_partitions_is_complete(self):
        topic = self.topic(partitions=4, config=COMPACT_FAST)
        work = self.workload(topic)
        work.load(200)
        work.change(2000)
        self.kafka.force_compaction(topic, passes=2)
        fold = work.truth.fold()
        present = {(m.partition(), m.offset()) for m in self.kafka.read(topic)}
        self.assertEqual(present, {(s.partition, s.offset) for s in fold.values()})
        missing = work.truth.missing_offsets(self.kafka)
        self.assertEqual(sum(map(len, missing.values())), len(work.truth) - len(fold))

    def test_a_roll_record_can_be_a_real_one(self):
        topic = self.topic(partitions=1, config=COMPACT_FAST)
        for value in (b"1", b"2"):
            self.write(topic, (b"a", value))
        self.kafka.force_compaction(topic, roll="record")
        self.assertEqual(self.kafka.offsets_present(topic), [1, 2])

    def test_nothing_is_compacted_where_a_test_says_never(self):
        topic = self.topic(partitions=1, config={**COMPACT_FAST, **COMPACT_NEVER})
        for n in range(20):
            self.write(topic, (b"a", b"%d" % n))
        with self.assertRaises(TimeoutError):
            self.kafka.force_compaction(topic, timeout=1)
        self.assertEqual(len(self.kafka.offsets_present(topic)), 20)

    def test_a_transaction_is_seen_when_it_is_committed_and_never_when_it_is_aborted(self):
        topic = self.topic(partitions=1)
        producer = self.kafka.producer(**{"transactional.id": self.unique("txn")})
        producer.init_transactions(30)
        for n, end in enumerate(("commit", "abort", "commit")):
            producer.begin_transaction()
            producer.produce(topic, key=b"a", value=b"%d" % n, partition=0)
            producer.flush(30)
            self.assertEqual(self.kafka.open_transactions(topic), {0})
            self.assertNotIn(b"%d" % n, [m.value() for m in self.kafka.read(topic)])
            (producer.commit_transaction if end == "commit" else producer.abort_transaction)(30)
        self.assertEqual(self.kafka.open_transactions(topic), set())
        self.assertEqual([m.value() for m in self.kafka.read(topic)], [b"0", b"2"])
        self.assertEqual(len(list(self.kafka.read(topic, isolation="read_uncommitted"))), 3)
        self.assertEqual(self.kafka.end_offsets(topic), {0: 6})  # markers are offsets, too

    def test_committed_offsets_come_with_their_metadata(self):
        topic = self.topic(partitions=2)
        self.write(topic, (b"a", b"1"))
        group = self.unique("group")
        self.assertEqual(self.kafka.committed(group, topic), {0: (-1001, ""), 1: (-1001, "")})
        self.kafka.commit(group, topic, {0: 1})
        self.assertEqual(self.kafka.committed(group, topic), {0: (1, ""), 1: (-1001, "")})

    def test_settings_change_one_at_a_time(self):
        topic = self.topic(config=COMPACT_FAST)
        self.kafka.alter_config(topic, {"delete.retention.ms": 5000, "segment.ms": None})
        config = self.kafka.topic_config(topic, only_set=True)
        self.assertEqual(config["delete.retention.ms"], "5000")
        self.assertEqual(config["cleanup.policy"], "compact")
        self.assertNotIn("segment.ms", config)

    def test_partitions_are_added_and_topics_deleted_and_made_again(self):
        topic = self.topic(partitions=1)
        self.write(topic, (b"a", b"1"))
        self.kafka.add_partitions(topic, 3)
        self.assertEqual(self.kafka.end_offsets(topic), {0: 1, 1: 0, 2: 0})
        self.kafka.delete_topic(topic)
        self.kafka.create_topic(topic, 2)
        self.assertEqual(self.kafka.end_offsets(topic), {0: 0, 1: 0})


class Workloads(RigTest):
    def test_the_ground_truth_is_what_the_topic_holds(self):
        topic = self.topic()
        work = self.workload(topic, seed=3, not_json=0.1, headers=0.3)
        work.load(500)
        work.change(3000)
        read = GroundTruth.read_back(self.kafka, topic)
        for mine, theirs in zip(work.truth.logs, read.logs):
            for column in ("offsets", "keys", "values", "timestamps", "headers"):
                self.assertEqual(getattr(mine, column), getattr(theirs, column))
        self.assertEqual({k: s.value for k, s in work.truth.fold().items()}, work._present)
        self.assertEqual(set(work.counts), {"create", "update", "delete", "recreate", "rewrite",
                                            "delete_absent", "hot"})

    def test_the_same_seed_writes_the_same_records(self):
        logs = []
        for _ in range(2):
            work = self.workload(self.topic(), seed=9, headers=0.1)
            work.load(100)
            work.change(500)
            logs.append([(log.keys, log.values, log.headers) for log in work.truth.logs])
        self.assertEqual(logs[0], logs[1])

    def test_a_rate_is_kept(self):
        work = self.workload(self.topic())
        work.load(100)
        work.in_background(work.change, {"update": 500}, rate=1000)
        work.wait_background()
        first, last = (f(t for log in work.truth.logs for t in log.timestamps[-100:])
                       for f in (min, max))
        self.assertAlmostEqual(last - first, 500, delta=300)

    def test_an_error_in_the_background_reaches_the_test(self):
        work = self.workload(self.topic())
        work.in_background(work.change, {"nonsense": 1})
        with self.assertRaises(ValueError):
            work.wait_background()


class OwnBrokers(unittest.TestCase):
    """With clusters that the test may hurt."""

    def test_a_killed_broker_comes_back_with_its_data(self):
        with Kafka() as kafka:
            kafka.create_topic("t", 1, COMPACT_NEVER)
            work = Workload(kafka, "t")
            work.load(100)
            kafka.kill()
            self.assertFalse(kafka.alive())
            kafka.restart()
            work.load(100)
            self.assertEqual(kafka.end_offsets("t"), {0: 200})

    def test_a_paused_broker_answers_again_when_it_is_resumed(self):
        with Kafka() as kafka:
            kafka.create_topic("t", 1)
            kafka.pause()
            with self.assertRaises(confluent_kafka.KafkaException):
                kafka.admin().list_topics(timeout=1)
            kafka.resume()
            self.assertEqual(kafka.end_offsets("t"), {0: 0})

    def test_three_brokers_survive_the_loss_of_one(self):
        with Kafka(3) as kafka:
            kafka.create_topic("t", 4, COMPACT_FAST)
            work = Workload(kafka, "t")
            work.load(100)
            dead = kafka.leaders("t")[0] - 1
            kafka.kill(dead)
            work.change(500)
            wait_until(lambda: len(kafka.leaders("t")) == 4
                       and dead + 1 not in kafka.leaders("t").values(), 20, "new leaders")
            kafka.force_compaction("t", passes=2)
            self.assertEqual(len(list(kafka.read("t"))), len(work.truth.fold()))
            kafka.restart(dead)

    def test_nothing_is_left_behind(self):
        kafka = Kafka().start()
        directory = kafka.directory
        process = kafka._brokers[0].process
        kafka.stop()
        self.assertIsNotNone(process.returncode)
        with self.assertRaises(FileNotFoundError):
            open(directory, encoding="ascii")


if __name__ == "__main__":
    unittest.main()
