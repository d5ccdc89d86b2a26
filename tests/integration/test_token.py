"""One token: the same text wherever a state is told of, and understood wherever one is waited for."""

import json
import os
import shutil
import subprocess
import unittest

import joining
import oracle
from broker import die_with_parent
from redis_server import RedisServer
from sidecar import clean_environment, program, sidenote
from test_compaction import CompactionTest
from test_http import HttpTest, ask


def start_get(directory, key, token):
    """`sidenote get --after` as a process: it may have to wait."""
    return subprocess.Popen([program(), "get", "-d", directory, "--json", "--after", token, key],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=clean_environment(),
                            preexec_fn=die_with_parent)


def notification_tokens(kafka, topic):
    return [dict(n.headers)["sidenote.token"].decode()
            for n in oracle.read_notifications(kafka, topic)]


class Everywhere(HttpTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.redis = RedisServer().start()
        cls.addClassCleanup(cls.redis.close)

    def everything(self):
        """A sidecar with all that tells tokens, some changes, all of them told: (work, sidecar,
        port of HTTP)."""
        topic = self.topic(partitions=3)
        work = self.workload(topic)
        work.load(50)
        sidecar, port = self.ready(topic, {"redis.uri": self.redis.uri})
        work.change({"update": 20, "delete": 5})
        sidecar.wait_published()
        ends = self.kafka.end_offsets(topic)
        sidecar._wait(lambda: self.redis.positions(sidecar.name) == ends, 30, "mirrored")
        return work, sidecar, port

    def join(self, sidecar, stream, options):
        join = joining.Join(self.kafka, self.unique("join"), sidecar.state_dir, stream.topic,
                            self.unique("out"), options)
        self._sidecars.append(join)
        self.addCleanup(join.close)
        return join.start()

    def joined(self, sidecar, seen, **options):
        """Results of one stream record for each token of `seen`, None: it names none."""
        stream = self.workload(self.kafka.create_topic(self.unique("stream"), 1))
        for token in seen:
            stream.put(b"key-00000001", b"{}", () if token is None else (("seen", token.encode()),))
        stream.flush()
        join = self.join(sidecar, stream, {"join.type": "left", **options})
        join.wait_joined()
        join.term()
        return [r.value for r in joining.read_results(self.kafka, join.output)]

    def tokens(self, work, sidecar, port):
        """Where it is told -> the text."""
        key = work.present_keys()[-1].decode()
        directory = sidecar.state_dir
        lines = sidenote("stat", "-d", directory).stdout.splitlines()
        line = next(text for text in lines if text.split()[:1] == ["token"])
        got = sidenote("get", "-d", directory, "--json", key)
        return {
            "stat": line.split()[1],
            "stat --json": sidecar.stat()["token"],
            "get --json": json.loads(got.stdout)["token"],
            "HTTP, a key": ask(port, f"/v1/keys/{key}").headers["X-Sidenote-Token"],
            "HTTP, no key": ask(port, "/v1/keys/none").headers["X-Sidenote-Token"],
            "HTTP, keys": ask(port, "/v1/keys").json()["token"],
            "Redis": self.redis.mark(sidecar.name)["token"],
            "join": self.joined(sidecar, [None])[0]["token"],
        }

    def test_every_place_tells_the_same_and_takes_what_any_other_tells(self):
        work, sidecar, port = self.everything()
        ends = self.kafka.end_offsets(work.topic)
        everything = ",".join(f"{p}:{end}" for p, end in sorted(ends.items()))
        told = self.tokens(work, sidecar, port)
        self.assertEqual(told, dict.fromkeys(told, everything))

        notes = notification_tokens(self.kafka, sidecar.notifications_topic)
        self.assertEqual(len(notes), 25)
        for note in notes:
            p, offset = map(int, note.split(":"))
            self.assertLessEqual(offset, ends[p])
        tokens = [everything, *notes[-3:]]
        for token in tokens:
            got = sidenote("get", "-d", sidecar.state_dir, "--after", token, "key-00000001")
            self.assertIn(got.returncode, (0, 1), got.stderr)
            scan = sidenote("scan", "-d", sidecar.state_dir, "--after", token, "--limit", "1")
            self.assertEqual(scan.returncode, 0, scan.stderr)
            self.assertEqual(ask(port, "/v1/keys?limit=1").status, 200)
            answer = ask(port, f"/v1/keys/key-00000001?after={token}&wait_ms=5000")
            self.assertIn(answer.status, (200, 404))
        results = self.joined(sidecar, tokens, **{"join.wait": "token",
                                                  "join.wait.from": "header:seen"})
        self.assertEqual([r["wait"] for r in results], ["reached"] * len(tokens))

    def test_what_is_not_there_yet_is_said_by_partition(self):
        work, sidecar, port = self.everything()
        end = self.kafka.end_offsets(work.topic)[1]
        token = f"0:1,1:{end + 3},7:1"
        waiting = start_get(sidecar.state_dir, "key-00000001", token)
        answer = ask(port, f"/v1/keys/key-00000001?after={token}")
        self.assertEqual(answer.status, 412)
        self.assertEqual(answer.json()["missing"],
                         [{"partition": 1, "wanted": end + 3, "applied": end},
                          {"partition": 7, "wanted": 1, "applied": None}])
        results = self.joined(sidecar, [f"1:{end + 3}"],
                              **{"join.wait": "token", "join.wait.from": "header:seen",
                                 "join.wait.ms": "200"})
        self.assertEqual([r["wait"] for r in results], ["late"])
        out, err = waiting.communicate(timeout=30)
        self.assertEqual((waiting.returncode, out), (3, ""))
        self.assertEqual(err.splitlines()[1:],
                         [f"  partition 1: {end} of {end + 3}", "  partition 7: there is none"])

    def test_what_comes_is_waited_for_in_every_place(self):
        work, sidecar, port = self.everything()
        key = work.present_keys()[-1]
        with sidecar.stopped():
            work.put(key, b'{"last":1}')
            work.flush()
            p = work.partition_of(key)
            token = f"{p}:{work.truth.logs[p].offsets[-1] + 1}"
            waiting = start_get(sidecar.state_dir, key.decode(), token)
        answer = ask(port, f"/v1/keys/{key.decode()}?after={token}&wait_ms=9000")
        self.assertEqual((answer.status, answer.body), (200, b'{"last":1}'))
        out, err = waiting.communicate(timeout=30)
        self.assertEqual(waiting.returncode, 0, err)
        self.assertEqual(json.loads(out)["value"], {"last": 1})
        sidecar.wait_published()
        self.assertEqual(notification_tokens(self.kafka, sidecar.notifications_topic)[-1], token)


class Rounds(CompactionTest):
    def test_a_wait_for_a_purged_delete_ends_when_the_round_has_found_it(self):
        topic, work = self.loaded(keys=2000, partitions=1)
        sidecar, _ = self.running(topic)
        sidecar.term()
        key = work.present_keys()[0].decode()
        gap = self.kafka.end_offsets(topic)[0]
        self.purge(work, deletes=100)
        deleted = f"0:{gap + 1}"  # where the tombstone of the key stood
        self.start_into_round(sidecar)
        sidecar.kill9()
        stat = sidecar.stat()
        row = stat["partitions"][0]
        self.assertEqual(row["due"], gap)
        self.assertEqual(stat["token"], f"0:{row['applied']}~{gap}")
        amid = os.path.join(sidecar.directory, "amid")
        shutil.copytree(sidecar.state_dir, amid, symlinks=True,
                        ignore=shutil.ignore_patterns("control", "*.lock"))
        # its own token is reached at once, and the key is still there
        got = sidenote("get", "-d", amid, "--json", "--after", stat["token"], key)
        self.assertEqual(json.loads(got.stdout)["token"], stat["token"])
        in_vain = start_get(amid, key, deleted)
        in_time = start_get(sidecar.state_dir, key, deleted)
        sidecar.start()
        out, err = in_time.communicate(timeout=60)
        self.assertEqual((in_time.returncode, out), (1, ""), err)  # no such key any more
        sidecar.wait_published()
        self.wait_notes(sidecar, 100)
        for token in set(notification_tokens(self.kafka, sidecar.notifications_topic)):
            self.assertEqual(sidenote("get", "-d", sidecar.state_dir, "--after", token,
                                      key).returncode, 1)
        self.assertNotIn("~", sidecar.stat()["token"])
        self.assertEqual(sidenote("get", "-d", sidecar.state_dir, "--after", stat["token"],
                                  key).returncode, 1)
        out, err = in_vain.communicate(timeout=60)
        self.assertEqual((in_vain.returncode, out), (3, ""))
        self.assertIn(f"  partition 0: a round is due that looks for deletes from {gap} on", err)


if __name__ == "__main__":
    unittest.main()
