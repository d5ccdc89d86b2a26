"""The mirror: after whatever happens to Redis or to sidecars, Redis is the fold of the topic, key by
key, absent ones included, and nothing else was touched."""

import json
import os
import subprocess
import time

from broker import COMPACT_FAST, COMPACT_NEVER, wait_until
from redis_server import Proxy, RedisServer, free_port
from rig import RigTest
from sidecar import sidenote
from workload import GroundTruth

OWN = {b"sidenote::prefixes"}


class MirrorTest(RigTest):
    def redis(self, **options):
        server = RedisServer(**options)
        self.addCleanup(server.close)
        return server.start()

    def proxy(self, server):
        proxy = Proxy(server)
        self.addCleanup(proxy.close)
        return proxy

    def loaded(self, keys=1000, config=COMPACT_NEVER, partitions=4, **workload):
        topic = self.topic(partitions, config)
        work = self.workload(topic, **workload)
        work.load(keys)
        return topic, work

    def mirroring(self, topic, uri, options=None, name=None):
        options = {"notifications.topic": "", "redis.uri": uri, **(options or {})}
        return self.sidecar(topic, options, name).start()

    def mirrored(self, sidecar, server, db=0):
        """Whether Redis is at the end of the topic."""
        return server.positions(sidecar.name, db) == self.kafka.end_offsets(sidecar.source_topic)

    def wait_mirrored(self, sidecar, server, timeout=30, db=0):
        sidecar._wait(lambda: self.mirrored(sidecar, server, db), timeout,
                      f"mirrored, mark {server.mark(sidecar.name, db)}")

    def assert_mirror(self, work, server, prefix=None, db=0, but=()):
        prefix = work.topic.encode() + b":" if prefix is None else prefix
        expected = {k: s.value for k, s in work.truth.fold().items()}
        seen = server.dump(prefix, db)
        for key in but:
            seen.pop(key, None)
        wrong = {k for k in expected.keys() | seen.keys() if expected.get(k) != seen.get(k)}
        self.assertEqual(len(wrong), 0, [(k, expected.get(k), seen.get(k)) for k in list(wrong)[:5]])

    def assert_says(self, sidecar, text, timeout=20):
        sidecar.wait_log(text, timeout)


class Follow(MirrorTest):
    def test_fill_changes_and_deletes_and_nothing_else_is_touched(self):
        server = self.redis()
        topic, work = self.loaded(not_json=0.5)
        others = {topic.encode(): b"without the colon", b"other:key": b"1", b"x": b"2"}
        server.client().mset(others)
        sidecar = self.mirroring(topic, server.uri, {"notifications.topic": None})
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(work, server)
        for _ in range(5):
            work.change(2000)
            self.wait_mirrored(sidecar, server)
            self.assert_mirror(work, server)
        prefix = topic.encode() + b":"
        left = {k: v for k, v in server.dump().items() if not k.startswith(prefix)}
        mark = b"sidenote:" + sidecar.name.encode()
        self.assertEqual(left.pop(mark), b"hash")
        self.assertEqual(left.pop(b"sidenote::prefixes"), b"hash")
        self.assertEqual(left, others)
        sidecar.term()

    def test_every_key_that_kafka_takes_and_a_database_behind_a_unix_socket(self):
        server = self.redis(unix=True)
        topic = self.topic()
        work = self.workload(topic)
        keys = [b"", b"\0", b"\xff" * 8, b"a\r\nb", b"*", b"[a-z]", b"a" * 479, b"a" * 480,
                b"a" * 5000, b"a" * 479 + b"\0"]
        for key in keys:
            work.put(key, b"" if key == b"*" else b'{"v":1}' + key)
        work.flush()
        sidecar = self.mirroring(topic, server.uri + "?db=3")
        self.wait_mirrored(sidecar, server, db=3)
        self.assert_mirror(work, server, db=3)
        for key in keys[::2]:
            work.put(key, None)
        work.flush()
        self.wait_mirrored(sidecar, server, db=3)
        self.assert_mirror(work, server, db=3)
        self.assertEqual(server.dump(), {})

    def test_without_a_prefix_the_own_keys_are_no_data(self):
        server = self.redis()
        topic, work = self.loaded()
        sidecar = self.sidecar(topic, {"notifications.topic": "", "redis.prefix": "",
                                       "redis.uri": server.uri})
        reserved = b"sidenote:" + sidecar.name.encode()
        work.put(reserved, b"{}")
        work.put(b"sidenote::prefixes", None)
        work.flush()
        sidecar.start()
        self.wait_mirrored(sidecar, server)
        work.put(reserved, b'{"v":2}')
        work.change(500)
        self.wait_mirrored(sidecar, server)
        self.assertIn("SN-REDIS-KEY-RESERVED", sidecar.log_text())
        work.put(reserved, None)  # for the comparison
        work.flush()
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(work, server, b"", but=OWN | {reserved})

    def test_what_a_transaction_aborted_is_not_mirrored(self):
        server = self.redis()
        topic = self.topic(2)
        producer = self.kafka.producer(**{"transactional.id": self.unique("txn")})
        producer.init_transactions(30)
        sidecar = self.mirroring(topic, server.uri)
        for i in range(30):
            producer.begin_transaction()
            for j in range(3):
                producer.produce(topic, key=b"k%d" % ((i + j) % 10), partition=(i + j) % 10 % 2,
                                 value=b'{"n":%d}' % i if i % 4 else None)
            producer.flush(30)
            (producer.abort_transaction if i % 3 == 2 else producer.commit_transaction)(30)
        self.wait_stable(topic)
        self.wait_mirrored(sidecar, server)
        truth = GroundTruth.read_back(self.kafka, topic)
        self.assertEqual(server.dump(topic.encode() + b":"),
                         {k: s.value for k, s in truth.fold().items()})

    def test_a_key_that_moved_by_timestamp_is_what_the_snapshot_says(self):
        server = self.redis()
        topic, work = self.loaded(200)
        sidecar = self.mirroring(topic, server.uri, {"source.moved": "timestamp"})
        self.wait_mirrored(sidecar, server)
        keys = work.present_keys()
        original = work.partition_of
        work.partition_of = lambda key: (original(key) + 1) % 4
        now = int(time.time() * 1000)
        for i, key in enumerate(keys[:100]):  # later, or earlier and so without effect
            work.put(key, b'{"moved":%d}' % i, timestamp=now + (60000 if i % 2 else -10 ** 9))
        work.flush()
        self.wait_mirrored(sidecar, server)
        done = sidenote("scan", "-d", sidecar.state_dir, "--json")
        snapshot = {}
        for line in done.stdout.splitlines():
            row = json.loads(line)
            snapshot[row["key"].encode()] = row["value"]
        seen = server.dump(topic.encode() + b":")
        self.assertEqual(seen.keys(), snapshot.keys())
        self.assertEqual(sum(b"moved" in v for v in seen.values()), 50)

    def test_new_partitions_are_mirrored_from_their_beginning(self):
        server = self.redis()
        topic, work = self.loaded(100, partitions=1)
        sidecar = self.mirroring(topic, server.uri,
                                 {"kafka.topic.metadata.refresh.interval.ms": "500"})
        self.wait_mirrored(sidecar, server)
        self.kafka.add_partitions(topic, 3)
        more = self.workload(topic, seed=2, key_format=b"late-%d")
        more.partition_of = lambda key: 1 + key[-1] % 2
        more.load(100)
        self.wait_mirrored(sidecar, server, 60)
        for r in list(work.truth.records(0)):
            more.truth.append(0, r.offset, r.key, r.value, r.timestamp)
        self.assert_mirror(more, server)
        self.assertNotIn("SN-REDIS-RESYNC", sidecar.log_text())


class Sidecars(MirrorTest):
    def test_kills_lose_nothing(self):
        server = self.redis()
        topic, work = self.loaded(5000)
        sidecar = self.mirroring(topic, server.uri)
        work.in_background(work.change, 12000, rate=1500)
        for delay in (0.1, 0.4, 1.0, 1.7):
            time.sleep(delay)
            sidecar.kill9()
            sidecar.start()
        work.wait_background()
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(work, server)

    def pair(self, topic, server):
        """Two sidecars of one name, each with a proxy: (leader, its proxy), (standby, its proxy)."""
        name = self.unique("pipe")
        pairs = []
        for _ in range(2):
            proxy = self.proxy(server)
            pairs.append((self.mirroring(topic, proxy.uri, name=name), proxy))
        for sidecar, _ in pairs:
            sidecar.wait_ready()

        def roles():
            return sorted(((s.stat() or {}).get("role", "") for s, _ in pairs))
        deadline = time.monotonic() + 40
        while roles() != ["leader", "standby"]:
            self.assertLess(time.monotonic(), deadline, roles())
            time.sleep(0.2)
        pairs.sort(key=lambda pair: pair[0].stat()["role"])
        self.wait_mirrored(pairs[0][0], server)
        return pairs

    def test_a_leader_that_wakes_up_is_refused_by_the_server(self):
        server = self.redis()
        topic, work = self.loaded()
        (a, proxy), (b, _) = self.pair(topic, server)
        key = work.present_keys()[0]
        proxy.hold(b"EXEC")
        work.put(key, b'{"from":"the old leader"}')
        work.flush()
        self.assertTrue(proxy.held.wait(10))
        epoch = int(server.mark(a.name)["epoch"])
        a.stop()  # with a batch on its way
        b._wait(lambda: int(server.mark(a.name)["epoch"]) > epoch, 30, "a claim")
        work.put(key, b'{"from":"the new leader"}')
        work.change(500)
        self.wait_mirrored(b, server)
        self.assert_mirror(work, server)
        before = server.mark(a.name)["seq"]
        proxy.release()
        time.sleep(0.3)
        self.assertIn(b"*-1\r\n", proxy.replies)  # EXEC of the old one
        self.assertEqual(server.mark(a.name)["seq"], before)
        self.assert_mirror(work, server)
        a.cont()
        work.change(500)
        self.wait_mirrored(b, server)
        time.sleep(0.5)
        self.assert_mirror(work, server)

    def test_a_standby_goes_on_from_where_redis_is(self):
        server = self.redis()
        topic, work = self.loaded()
        (a, _), (b, _) = self.pair(topic, server)
        work.in_background(work.change, 4000, rate=1000)
        time.sleep(1)
        a.kill9()
        work.wait_background()
        self.wait_mirrored(b, server)
        self.assert_mirror(work, server)
        for sidecar in (a, b):
            self.assertNotIn("SN-REDIS-RESYNC", sidecar.log_text())

    def test_prefixes_share_a_redis(self):
        server = self.redis()
        prefixes = (b"u*[a]?\\:", b"uXXa", b"u")
        topic, work = self.loaded(500)
        first = self.mirroring(topic, server.uri, {"redis.prefix": prefixes[0].decode()})
        self.wait_mirrored(first, server)
        other, other_work = self.loaded(500)
        second = self.mirroring(other, server.uri, {"redis.prefix": prefixes[1].decode()})
        self.wait_mirrored(second, server)
        server.client().set(prefixes[0] + b"stray", b"1")
        for sidecar in (first, second):  # both look for strays
            server.client().hset(f"sidenote:{sidecar.name}", "resync", "test")
        work.change(1000)
        other_work.change(1000)
        self.wait_mirrored(first, server)
        self.wait_mirrored(second, server)
        self.assert_mirror(work, server, prefixes[0])
        self.assert_mirror(other_work, server, prefixes[1])
        third = self.mirroring(self.topic(1), server.uri, {"redis.prefix": prefixes[2].decode()})
        self.assert_says(third, "overlaps with the prefix")
        same = self.mirroring(self.topic(1), server.uri, {"redis.prefix": prefixes[1].decode()})
        self.assert_says(same, "is the prefix")
        self.assert_mirror(other_work, server, prefixes[1])


class Servers(MirrorTest):
    def killed(self, aof):
        server = self.redis(aof=aof)
        topic, work = self.loaded(3000)
        sidecar = self.mirroring(topic, server.uri)
        self.wait_mirrored(sidecar, server)  # a first fill that is cut short begins anew
        work.in_background(work.change, 9000, rate=2000)
        for delay in (0.7, 1.0, 0.5):
            time.sleep(delay)
            server.kill9()
            time.sleep(0.3)
            server.start()
        work.wait_background()
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(work, server)
        return sidecar

    def test_kill_and_restart_with_an_append_only_file(self):
        self.assertNotIn("SN-REDIS-RESYNC", self.killed("everysec").log_text())

    def test_kill_and_restart_without_persistence(self):
        self.assertGreater(self.killed(None).log_text().count("Redis: filling"), 1)

    def test_failover_to_a_replica_that_lost_a_suffix(self):
        server = self.redis()
        proxy = self.proxy(server)
        topic, work = self.loaded(3000)
        sidecar = self.mirroring(topic, proxy.uri)
        self.wait_mirrored(sidecar, server)
        replica = server.replica()
        self.addCleanup(replica.close)
        work.in_background(work.change, 6000, rate=2000)
        time.sleep(1)
        replica.client().replicaof("127.0.0.1", 1)  # hears no more
        before = replica.positions(sidecar.name)
        wait_until(lambda: server.positions(sidecar.name) != before, 30, "what the replica lacks")
        server.kill9()
        replica.promote()
        proxy.target = replica
        proxy.cut()
        work.wait_background()
        self.wait_mirrored(sidecar, replica)
        self.assert_mirror(work, replica)
        self.assertNotIn("SN-REDIS-RESYNC", sidecar.log_text())

    def test_flushall_under_load_and_idle(self):
        server = self.redis()
        topic, work = self.loaded(3000)
        sidecar = self.mirroring(topic, server.uri)
        self.wait_mirrored(sidecar, server)
        work.in_background(work.change, 4000, rate=2000)
        for _ in range(3):
            time.sleep(0.5)
            server.client().flushall()
        work.wait_background()
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(work, server)
        server.client().flushall()
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(work, server)
        server.client().delete(f"sidenote:{sidecar.name}")
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(work, server)

    def test_a_redis_that_does_not_answer_holds_nobody_up(self):
        server = self.redis()
        topic, work = self.loaded()
        sidecar = self.mirroring(topic, server.uri, {"notifications.topic": None})
        self.wait_mirrored(sidecar, server)
        sidecar.wait_published()
        server.pause()
        start = self.kafka.end_offsets(topic)
        work.change(1000)
        sidecar.wait_published(timeout=5)
        began = time.monotonic()
        self.assert_clean(work, start, sidecar)
        self.assert_snapshot(work, sidecar)
        sidecar.term()
        self.assertLess(time.monotonic() - began, 10)
        sidecar.start()
        work.change(500)
        sidecar.wait_published(timeout=20)
        server.resume()
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(work, server)

    def test_a_full_redis_is_waited_for(self):
        server = self.redis()
        topic, work = self.loaded(3000)
        sidecar = self.mirroring(topic, server.uri)
        self.wait_mirrored(sidecar, server)
        work.change({"create": 100})
        self.wait_mirrored(sidecar, server)
        server.client().config_set("maxmemory", "1mb")
        work.change(1000)
        self.assert_says(sidecar, "SN-REDIS-FULL")
        server.client().config_set("maxmemory", "0")
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(work, server)

    def test_a_replica_is_waited_for(self):
        primary = self.redis()
        replica = primary.replica()
        self.addCleanup(replica.close)
        topic, work = self.loaded(300)
        sidecar = self.mirroring(topic, replica.uri)
        self.assert_says(sidecar, "SN-REDIS-READONLY")
        replica.promote()
        self.wait_mirrored(sidecar, replica)
        self.assert_mirror(work, replica)

    def test_a_server_that_evicts_gets_nothing_until_it_does_not(self):
        server = self.redis(options={"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"})
        topic, work = self.loaded(300)
        sidecar = self.mirroring(topic, server.uri)
        self.assert_says(sidecar, "SN-REDIS-EVICTION")
        self.assertEqual(server.dump(), {})
        server.client().config_set("maxmemory-policy", "volatile-lru")
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(work, server)


class Strangers(MirrorTest):
    def test_a_populated_prefix_is_not_touched_until_it_is_adopted(self):
        server = self.redis()
        topic, work = self.loaded(500)
        prefix = topic.encode() + b":"
        stray = {prefix + b"stray-%d" % i: b"not mine" for i in range(1500)}
        server.client().mset(stray)
        server.client().rpush(prefix + work.present_keys()[0], "a list")
        before = server.dump()
        sidecar = self.mirroring(topic, server.uri)
        self.assert_says(sidecar, "1501 keys under redis.prefix")
        self.assertEqual(server.dump(), before)
        sidecar.term()
        sidecar.configure({"redis.adopt": "true"})
        sidecar.start()
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(work, server)
        self.assertIn("1500 deleted", sidecar.log_text())
        sidecar.term()
        sidecar.configure({"redis.adopt": None})
        work.change(500)
        sidecar.start()
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(work, server)

    def test_a_mark_of_another_topic_is_not_touched(self):
        server = self.redis()
        topic, _ = self.loaded(10)
        sidecar = self.mirroring(topic, server.uri)
        self.wait_mirrored(sidecar, server)
        sidecar.term()
        other = self.mirroring(self.topic(1), server.uri, name=sidecar.name)
        self.assert_says(other, f"belongs to topic '{topic}'")
        server.client().delete(f"sidenote:{sidecar.name}")
        server.client().set(f"sidenote:{sidecar.name}", "a string")
        self.assert_says(other, "is no hash")

    def test_what_is_wrong_is_found_and_put_right_on_demand(self):
        server = self.redis()
        topic, work = self.loaded(5000)
        prefix = topic.encode() + b":"
        sidecar = self.mirroring(topic, server.uri)
        self.wait_mirrored(sidecar, server)
        keys = work.present_keys()
        client = server.client()
        client.delete(*(prefix + k for k in keys[:300]))
        client.mset({prefix + k: b"wrong" for k in keys[300:500]})
        client.mset({prefix + b"stray%d" % i: b"wrong" for i in range(700)})
        work.in_background(work.change, 3000, rate=3000)
        client.hset(f"sidenote:{sidecar.name}", "resync", "by hand")
        self.assert_says(sidecar, "comparing with the snapshot: by hand")
        work.wait_background()
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(work, server)

    def test_a_changed_prefix_begins_anew(self):
        server = self.redis()
        topic, work = self.loaded(300)
        sidecar = self.mirroring(topic, server.uri, {"redis.prefix": "one:"})
        self.wait_mirrored(sidecar, server)
        sidecar.term()
        sidecar.configure({"redis.prefix": "two:"})
        sidecar.start()
        self.assert_says(sidecar, "SN-REDIS-OLD-PREFIX")
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(work, server, b"two:")
        self.assert_mirror(work, server, b"one:")
        self.assertEqual(list(server.client().hgetall("sidenote::prefixes")), [b"two:"])

    def test_a_topic_that_was_made_anew_is_not_taken_for_the_old_one(self):
        server = self.redis()
        topic, work = self.loaded(500, partitions=1)
        sidecar = self.mirroring(topic, server.uri)
        self.wait_mirrored(sidecar, server)
        sidecar.term()
        self.kafka.delete_topic(topic)
        self.kafka.create_topic(topic, 1, COMPACT_NEVER)
        again = self.workload(topic, seed=9, key_format=b"new-%d")
        again.load(800)  # beyond the positions of the old one
        sidecar.remove_state()
        sidecar.start()
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(again, server)
        self.assertIn("SN-REDIS-RESYNC", sidecar.log_text())


class Rights(MirrorTest):
    RIGHTS = ("+multi +exec +discard +watch +unwatch +mset +mget +unlink +del +scan "
              "+hset +hdel +hmget +hgetall +exists +info +select +client|setname").split()

    def secret(self, sidecar, text):
        path = os.path.join(sidecar.directory, "redis.secret")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text + "\n")
        os.chmod(path, 0o600)
        return path

    def test_a_user_with_exactly_the_rights_of_the_documentation(self):
        server = self.redis()
        topic, work = self.loaded(500)
        user = ["ACL", "SETUSER", "mirror", "on", ">pass word", "resetkeys", f"~{topic}:*",
                "~sidenote:*", "resetchannels", "-@all", *self.RIGHTS]
        server.client().execute_command(*user)
        sidecar = self.sidecar(topic, {"notifications.topic": "", "redis.user": "mirror",
                                       "redis.uri": server.uri})
        sidecar.configure({"redis.password.file": self.secret(sidecar, "wrong")})
        sidecar.start()
        self.assert_says(sidecar, "SN-REDIS-LOGIN")
        self.secret(sidecar, "pass word")
        self.wait_mirrored(sidecar, server)
        work.change(500)
        server.client().hset(f"sidenote:{sidecar.name}", "resync", "all commands")
        self.assert_says(sidecar, "all commands")
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(work, server)
        server.client().execute_command("ACL", "SETUSER", "mirror", "-unlink")
        work.change({"delete": 100})
        self.assert_says(sidecar, "SN-REDIS-DENIED")
        server.client().execute_command("ACL", "SETUSER", "mirror", "+unlink")
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(work, server)
        self.assertNotIn("pass word", sidecar.log_text())

    def test_each_missing_right_is_found_before_anything_is_written(self):
        optional = {"+select", "+client|setname", "+info", "+exists"}
        needed = [r for r in self.RIGHTS if r not in optional]
        server = self.redis()
        topic, _ = self.loaded(5, partitions=1)
        sidecar = self.sidecar(topic, {"notifications.topic": "", "redis.uri": server.uri,
                                       "redis.user": "mirror"})
        sidecar.configure({"redis.password.file": self.secret(sidecar, "secret")})
        user = ["ACL", "SETUSER", "mirror", "reset", "on", ">secret", "~*", "-@all"]
        for missing in needed:
            with self.subTest(missing):
                server.client().execute_command(*user, *(r for r in needed if r != missing))
                done = sidenote("check", "--online", "-F", sidecar.config_path)
                self.assertEqual(done.returncode, 2, done.stdout)
                self.assertIn("SN-REDIS-DENIED", done.stdout)
                self.assertEqual(server.dump(), {})
        for keys in (f"~{topic}:*", "~sidenote:*"):
            server.client().execute_command(*user[:-2], keys, "-@all", *needed)
            done = sidenote("check", "--online", "-F", sidecar.config_path)
            self.assertIn("SN-REDIS-DENIED", done.stdout)
        server.client().execute_command(*user, *needed)
        done = sidenote("check", "--online", "-F", sidecar.config_path)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual(server.dump(), {})
        sidecar.start()
        self.wait_mirrored(sidecar, server)

    def test_a_right_that_goes_between_command_and_exec_is_made_good(self):
        server = self.redis()
        topic, work = self.loaded(500)
        user = ["ACL", "SETUSER", "mirror", "on", ">secret", "~*", "-@all", *self.RIGHTS]
        server.client().execute_command(*user)
        proxy = self.proxy(server)
        sidecar = self.sidecar(topic, {"notifications.topic": "", "redis.user": "mirror",
                                       "redis.uri": proxy.uri})
        sidecar.configure({"redis.password.file": self.secret(sidecar, "secret")})
        sidecar.start()
        self.wait_mirrored(sidecar, server)
        proxy.hold(b"*1\r\n$4\r\nEXEC", whole=False)
        work.put(work.present_keys()[0], b'{"torn":1}')
        work.flush()
        self.assertTrue(proxy.held.wait(10))
        time.sleep(0.1)
        server.client().execute_command("ACL", "SETUSER", "mirror", "-mset")
        proxy.release()
        self.assert_says(sidecar, "SN-REDIS-TORN")
        server.client().execute_command("ACL", "SETUSER", "mirror", "+mset")
        self.assert_says(sidecar, "1 written")
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(work, server)

    def test_options_that_cannot_be_are_refused_at_the_start(self):
        topic = self.topic(1)
        for options, text in (({"redis.uri": "http://x"}, "redis.uri: is none of redis://"),
                              ({"redis.uri": "redis://u:p@x"}, "redis.password.file"),
                              ({"redis.uri": "redis://x", "redis.prefix": "side"}, "redis.prefix"),
                              ({"redis.uri": "redis://x", "redis.user": "u"}, "redis.user"),
                              ({"redis.uri": "redis://x", "redis.tls.ca": "f"}, "redis.tls"),
                              ({"redis.uri": "redis://x", "redis.password.file": "/no"}, "/no")):
            with self.subTest(text):
                sidecar = self.sidecar(topic, options)
                sidecar.start()
                sidecar.wait_exit(expect=2)
                self.assertIn(text, sidecar.log_text())


class Tls(MirrorTest):
    def certificates(self, directory):
        """A CA, and a certificate of it for the name localhost."""
        def openssl(*arguments):
            subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)
        for name in ("ca", "other"):
            openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key",
                    "-out", f"{name}.crt", "-subj", f"/CN={name}", "-days", "2")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "host.key", "-out", "host.csr",
                "-subj", "/CN=localhost")
        with open(os.path.join(directory, "ext"), "w", encoding="ascii") as f:
            f.write("subjectAltName=DNS:localhost\n")
        openssl("x509", "-req", "-in", "host.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
                "-CAcreateserial", "-out", "host.crt", "-days", "2", "-extfile", "ext")

    def test_a_certificate_is_checked_and_shown(self):
        topic, work = self.loaded(3000)
        sidecar = self.sidecar(topic, {"notifications.topic": "", "redis.uri": "rediss://x"})
        refused = sidenote("check", "-F", sidecar.config_path).stdout
        if "needs a sidenote that was built with hiredis_ssl" in refused:
            self.skipTest("this build has no TLS for Redis")
        directory = sidecar.directory
        self.certificates(directory)
        port = free_port()
        server = self.redis(options={"tls-port": port, "tls-ca-cert-file": f"{directory}/ca.crt",
                                     "tls-cert-file": f"{directory}/host.crt",
                                     "tls-key-file": f"{directory}/host.key"})
        good = {"redis.uri": f"rediss://localhost:{port}", "redis.tls.ca": f"{directory}/ca.crt",
                "redis.tls.cert": f"{directory}/host.crt", "redis.tls.key": f"{directory}/host.key"}
        for bad in ({"redis.uri": f"rediss://127.0.0.1:{port}"},  # another name
                    {"redis.tls.ca": f"{directory}/other.crt"},
                    {"redis.tls.cert": None, "redis.tls.key": None},
                    {"redis.uri": f"redis://localhost:{port}", "redis.tls.ca": None,
                     "redis.tls.cert": None, "redis.tls.key": None}):
            with self.subTest(bad):
                sidecar.configure({**good, **bad})
                done = sidenote("check", "--online", "-F", sidecar.config_path)
                self.assertEqual(done.returncode, 3, done.stdout)
                self.assertIn("SN-REDIS-UNREACHABLE", done.stdout)
        sidecar.configure(good)
        sidecar.start()
        self.wait_mirrored(sidecar, server)
        work.change(3000)
        self.wait_mirrored(sidecar, server)
        self.assert_mirror(work, server)
        done = sidenote("verify", "-F", sidecar.config_path)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class Verbs(MirrorTest):
    def verify(self, sidecar, expect, *arguments):
        done = sidenote("verify", *arguments, "-F", sidecar.config_path)
        self.assertEqual(done.returncode, expect, done.stdout + done.stderr)
        return done.stdout

    def test_verify_compares_redis_while_all_of_it_moves(self):
        server = self.redis()
        topic, work = self.loaded(3000)
        sidecar = self.mirroring(topic, server.uri)
        self.wait_mirrored(sidecar, server)
        work.in_background(work.change, 8000, rate=2000)
        self.assertIn("Redis is equal: ", self.verify(sidecar, 0))
        work.wait_background()
        self.wait_mirrored(sidecar, server)
        keys = work.present_keys()
        prefix = topic.encode() + b":"
        server.client().delete(prefix + keys[0])
        server.client().set(prefix + keys[1], "wrong")
        server.client().rpush(prefix + b"stray", "a list")
        out = [json.loads(line) for line in self.verify(sidecar, 1, "--json").splitlines()]
        found = {(d["difference"], d["key"]) for d in out if "difference" in d}
        self.assertEqual(found, {("redis-missing", keys[0].decode()),
                                 ("redis-value", keys[1].decode()), ("redis-extra", "stray")})
        self.assertEqual(out[-1]["differences"], 3)
        server.client().hset(f"sidenote:{sidecar.name}", "resync", "by hand")
        self.assert_says(sidecar, "compared, 2 written, 1 deleted")
        self.wait_mirrored(sidecar, server)
        self.verify(sidecar, 0)
        server.kill9()
        self.verify(sidecar, 3)

    def test_check_tells_what_a_mirror_would_find(self):
        server = self.redis()
        topic, work = self.loaded(10)
        sidecar = self.sidecar(topic, {"notifications.topic": "", "redis.uri": server.uri})

        def check(expect, text):
            done = sidenote("check", "--online", "-F", sidecar.config_path)
            self.assertEqual(done.returncode, expect, done.stdout + done.stderr)
            self.assertIn(text, done.stdout)

        check(0, "it will be filled")
        server.client().set(topic + ":x", "1")
        check(2, "SN-REDIS-FOREIGN: 1 keys under redis.prefix")
        server.client().delete(topic + ":x")
        self.assertEqual(server.dump(), {})
        sidecar.start()
        self.wait_mirrored(sidecar, server)
        before = server.mark(sidecar.name)["epoch"]
        check(0, f"has {sum(self.kafka.end_offsets(topic).values())} offsets of {topic}")
        self.assertEqual(server.mark(sidecar.name)["epoch"], before)
        server.client().config_set("maxmemory-policy", "allkeys-lru")
        check(0, "fit to run")  # without a limit nothing is evicted
        server.client().config_set("maxmemory", "100mb")
        check(2, "SN-REDIS-EVICTION")
        server.kill9()
        check(3, "SN-REDIS-UNREACHABLE")


class Compaction(MirrorTest):
    def test_deletes_that_were_purged_unseen_leave_redis_too(self):
        server = self.redis()
        topic, work = self.loaded(2000, config=COMPACT_FAST)
        sidecar = self.mirroring(topic, server.uri)
        self.wait_mirrored(sidecar, server)
        sidecar.term()
        work.change({"delete": 300, "update": 100})
        self.kafka.force_compaction(topic, passes=2)
        sidecar.start()
        self.wait_mirrored(sidecar, server, 60)
        self.assert_mirror(work, server)

    def test_deletes_that_were_purged_while_it_slept_leave_redis_too(self):
        server = self.redis()
        topic, work = self.loaded(2000, config=COMPACT_FAST)
        sidecar = self.mirroring(topic, server.uri)
        self.wait_mirrored(sidecar, server)
        with sidecar.stopped():
            time.sleep(0.5)
            work.change({"delete": 300, "update": 100})
            self.kafka.force_compaction(topic, passes=2)
        sidecar.wait_log("round: done", 30)
        self.wait_mirrored(sidecar, server, 60)
        self.assert_mirror(work, server)

    def test_deletes_that_were_purged_while_redis_was_away_leave_it_too(self):
        server = self.redis(aof="everysec")
        topic, work = self.loaded(2000, config={**COMPACT_FAST, "delete.retention.ms": "3000"})
        sidecar = self.mirroring(topic, server.uri)
        self.wait_mirrored(sidecar, server)
        time.sleep(1.5)  # what the file system has is what is found again
        server.kill9()
        work.change({"delete": 300, "update": 100})
        time.sleep(4)
        self.kafka.force_compaction(topic, passes=3)
        server.start()
        self.wait_mirrored(sidecar, server, 60)
        self.assert_mirror(work, server)
