"""With TLS, a password and exactly the rights that `check --acls` prints: everything works, no right is
one too many, and each that is missing is named. The password is nowhere but in its file."""

import os
import re
import unittest
import urllib.request

import oracle
from broker import COMPACT_FAST, COMPACT_NEVER, Kafka, free_port, wait_until
from joining import Join, judge, read_results
from redis_server import RedisServer
from rig import RigTest
from sidecar import sidenote
from test_bad_input import said
from test_check import rights

USER, PASSWORD = "sidenote", "c0rrect-h0rse-battery"
USAGE = 2


def documented_rights(stream, output, table, name, instance):
    """Those of a join, from its documentation."""
    path = os.path.join(os.path.dirname(__file__), "../../docs/join.md")
    with open(path, encoding="utf-8") as f:
        section = re.search(r"\n## Rights\n(.*?)\n## ", f.read(), re.S)[1]
    names = {"<stream>": stream, "<output>": output, "<table>": table, "<name>": name,
             "<instance>": instance}
    found = []
    for resource, where, operations in re.findall(r"^\| ([a-z ]+) `(\S+)` \| ([\w, ]+) \|", section,
                                                  re.M):
        for word, value in names.items():
            where = where.replace(word, value)
        found += [(o, resource.replace(" ", "-"), where) for o in operations.split(", ")]
    return found


class RightsTest(RigTest):
    @classmethod
    def setUpClass(cls):
        cls.kafka = Kafka(secured={USER: PASSWORD})
        cls.addClassCleanup(cls.kafka.stop)
        cls.kafka.start()

    def secure(self, process, mechanism="PLAIN"):
        """Its client comes with a password."""
        path = os.path.join(process.directory, "password")
        with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="ascii") as f:
            f.write(PASSWORD + "\n")
        process.configure({
            "kafka.bootstrap.servers": self.kafka.secured_bootstrap,
            "kafka.security.protocol": "SASL_SSL", "kafka.sasl.mechanism": mechanism,
            "kafka.sasl.username": USER, "kafka.sasl.password.file": path,
            "kafka.ssl.ca.location": self.kafka.certificate})
        return process

    def pipeline(self, without=(), options=None, config=COMPACT_NEVER, **more):
        """A sidecar that is not started, with the rights that it says it needs, but for some."""
        topic = self.topic(2, config)
        work = self.workload(topic)
        work.load(50)
        sidecar = self.secure(self.sidecar(topic, options, name=self.unique("p")), **more)
        self.kafka.allow(USER, [r for r in self.needed(sidecar) if r not in without])
        return sidecar, work

    @staticmethod
    def needed(sidecar):
        done = sidenote("check", "--acls", "-F", sidecar.config_path)
        assert done.returncode == 0, done.stderr
        return rights(done.stdout)

    @staticmethod
    def troubles(process, since=0):
        """Each different line about something that is not as it should be."""
        return {(i, text) for level, i, text in said(process, since)
                if level in ("warn", "error") and i != "SN-SOURCE-TOMBSTONES"}

    def wait_named(self, process, right, since=0):
        """One line has come about it, and no other, and it names operation and resource."""
        operation, _, name = right
        wait_until(lambda: self.troubles(process, since), 40, f"a word about {right}")
        found = self.troubles(process, since)
        self.assertEqual(len(found), 1, f"{right}: {found}")
        text = found.pop()[1]
        self.assertRegex(text, rf"\b{operation}\b")
        self.assertRegex(text, rf"(?<!\S){re.escape(name)}(?=[\s,;:]|$)")
        return len(process.log_text())

    def grant_named(self, rows):
        """Each that lacks a right from its start on says so, gets it, and goes on; `rows` of (process,
        workload, right)."""
        for process, _, right in rows:
            if right[0] == "Create":
                process.wait_exit(USAGE)
            self.wait_named(process, right)
            self.kafka.allow(USER, [right])
            if not process.alive():
                process.start()


class Sidecars(RightsTest):
    def test_the_main_job_a_restart_and_a_failover_with_what_is_printed(self):
        port = free_port()
        first, work = self.pipeline(options={"http.listen": f"127.0.0.1:{port}"})
        second = self.secure(self.sidecar(first.source_topic, name=first.name))
        first.start()
        first.wait_published()
        start = self.kafka.end_offsets(first.source_topic)
        done = sidenote("check", "--online", "-F", first.config_path)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertNotRegex(done.stdout, r"(?m)^(fault|warning)")
        work.change(200)
        first.wait_published()
        first.term()
        work.change(100)
        first.start()
        first.wait_published()
        second.start()
        second.wait_ready()
        work.change(100)
        first.wait_published()
        told = [self.fetch(port, path) for path in ("/", "/metrics", "/v1/stat", "/readyz")]
        told += [sidenote("stat", "-d", first.state_dir, *more).stdout for more in ((), ("--json",))]
        told += [done.stdout, self.of_process(first, "cmdline"), self.of_process(first, "environ")]
        first.kill9()
        work.change(100)
        second.wait_published()
        self.assert_clean(work, start, second)
        self.assert_snapshot(work, second)
        second.term()
        for sidecar in (first, second):
            self.assertEqual(self.troubles(sidecar), set())
            self.assert_nowhere(sidecar.directory)
        self.assertNotIn(PASSWORD, "".join(told))

    def assert_nowhere(self, directory):
        """In no file that is left behind but its own. Shows that it is found where it is."""
        found = []
        for where, _, names in os.walk(directory):
            for name in names:
                path = os.path.join(where, name)
                if os.path.isfile(path):
                    with open(path, "rb") as f:
                        if PASSWORD.encode() in f.read():
                            found.append(os.path.relpath(path, directory))
        self.assertEqual(found, ["password"])

    @staticmethod
    def fetch(port, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as e:
            return e.read().decode()

    @staticmethod
    def of_process(sidecar, what):
        with open(f"/proc/{sidecar.process.pid}/{what}", encoding="utf-8") as f:
            return f.read()

    def test_each_right_is_missed_and_named(self):
        one, _ = self.pipeline()
        rows = []
        for i, right in enumerate(self.needed(one)):
            if right[:2] == ("Read", "topic") and right[2] != one.source_topic:
                continue  # only a round needs it: see below
            sidecar, work = self.pipeline()
            right = self.needed(sidecar)[i]
            self.kafka.forbid(USER, [right])
            rows.append((sidecar.start(), work, right))
        self.at_the_start(rows)
        self.while_it_runs([row for row in rows
                            if row[2][0] not in ("DescribeConfigs", "Create")])

    def at_the_start(self, rows):
        for sidecar, work, right in rows:
            if right[0] == "Write" and right[1] == "topic":
                sidecar.wait_ready()
                work.change(5)
        for sidecar, _, right in rows:
            if right[0] == "Create":
                sidecar.wait_exit(USAGE)
            self.wait_named(sidecar, right)
        for sidecar, _, right in rows:
            self.kafka.allow(USER, [right])
            if not sidecar.alive():
                sidecar.start()
        for sidecar, work, right in rows:
            sidecar.wait_published()
            work.change(10)
            sidecar.wait_published()
            self.assert_snapshot(work, sidecar)

    def while_it_runs(self, rows):
        since = {}
        for sidecar, work, right in rows:
            start = self.kafka.end_offsets(sidecar.source_topic)
            since[right] = (start, len(sidecar.log_text()))
            self.kafka.forbid(USER, [right])
            work.change(20)
        for sidecar, _, right in rows:
            self.wait_named(sidecar, right, since[right][1])
        for sidecar, _, right in rows:
            self.assertTrue(sidecar.alive(), sidecar.evidence())
            self.kafka.allow(USER, [right])
        for sidecar, work, right in rows:
            sidecar.wait_published()
            self.assertEqual(self.judge(work, since[right][0], sidecar).missing, 0)
            self.assert_snapshot(work, sidecar)

    def test_a_round_reads_back_what_was_told(self):
        sidecar, work = self.pipeline(options={"reconcile": "always"}, config=COMPACT_FAST)
        right = ("Read", "topic", sidecar.notifications_topic)
        self.assertIn(right, self.needed(sidecar))
        sidecar.start()
        sidecar.wait_published()
        work.change({"update": 20})  # where nothing was told there is nothing to read
        sidecar.wait_published()
        sidecar.term()
        for key in work.present_keys()[:10]:
            work.put(key, None)
        work.flush()
        self.kafka.force_compaction(sidecar.source_topic, passes=2)
        self.kafka.forbid(USER, [right])
        since = len(sidecar.log_text())
        sidecar.start()
        wait_until(lambda: "SN-READBACK" in sidecar.log_text()[since:], 40, "SN-READBACK")
        found = [x for x in self.troubles(sidecar, since) if x[0] != "SN-SOURCE-TOMBSTONES"]
        self.assertEqual([i for i, _ in found], ["SN-READBACK"])
        self.assertRegex(found[0][1], rf"\bRead on topic {re.escape(right[2])}(?=[\s;]|$)")
        self.kafka.allow(USER, [right])
        wait_until(lambda: sum(("sidenote.cause", b"reconcile") in m.headers()
                               for m in self.kafka.read(sidecar.notifications_topic)) == 10, 30,
                   "ten deletes told")

    def test_scram_works_or_is_refused_in_so_many_words(self):
        # librdkafka before 2.8 sends a wrong nonce (its #4895), which 3.9 takes and 4.3 does not.
        sidecar, work = self.pipeline(mechanism="SCRAM-SHA-512")
        sidecar.start()
        wait_until(lambda: not sidecar.alive() or sidecar.published(), 60, "an outcome")
        if sidecar.alive():
            self.assert_snapshot(work, sidecar)
        else:
            sidecar.wait_exit(USAGE)
            self.assertIn("SN-KAFKA-AUTH", {i for i, _ in self.troubles(sidecar)})
        self.assertNotIn(PASSWORD, sidecar.log_text())


class Others(RightsTest):
    """Rights that only some configurations need."""

    def missing(self, options, wanted, config=COMPACT_NEVER):
        """(sidecar, workload, right): one for each right that is `wanted`, which it lacks."""
        one, _ = self.pipeline(options=options(), config=config)
        n = [i for i, right in enumerate(self.needed(one)) if wanted(one, right)]
        for i in n:
            sidecar, work = self.pipeline(options=options(), config=config)
            right = self.needed(sidecar)[i]
            self.kafka.forbid(USER, [right])
            yield sidecar.start(), work, right

    def test_the_mirror_alone(self):
        server = RedisServer()
        self.addCleanup(server.close)
        server.start()
        options = {"notifications.topic": "", "notifications.create": None,
                   "redis.uri": server.uri}
        rows = list(self.missing(lambda: options, lambda *_: True))
        self.assertEqual(len(rows), 3)  # Read and DescribeConfigs on the topic, Read on the group

        def mirrored(sidecar):
            return server.positions(sidecar.name) == self.kafka.end_offsets(sidecar.source_topic)
        since = {}
        self.grant_named(rows)
        for sidecar, work, right in rows:
            sidecar._wait(lambda s=sidecar: mirrored(s), 60, "mirrored")
            if right[0] == "Read":
                since[sidecar] = len(sidecar.log_text())
                self.kafka.forbid(USER, [right])
                work.change(20)
        for sidecar, work, right in rows:
            if sidecar in since:
                self.wait_named(sidecar, right, since[sidecar])
                self.kafka.allow(USER, [right])
            work.change(20)
            sidecar._wait(lambda s=sidecar: mirrored(s), 60, "mirrored")
            fold = work.truth.fold()
            wait_until(lambda s=sidecar: oracle.compare_snapshot(
                oracle.snapshot_of(s.state_dir), fold).clean, 60, "the snapshot, too")

    def test_notifications_of_compaction(self):
        rows = list(self.missing(
            lambda: {"notifications.compacted.topic": self.unique("gone")},
            lambda sidecar, right: right[2] == sidecar.options["notifications.compacted.topic"],
            COMPACT_FAST))
        self.assertEqual({right[0] for _, _, right in rows}, {"Write", "DescribeConfigs", "Create"})
        self.grant_named(rows)
        for sidecar, work, right in rows:
            sidecar.wait_published()
            start = self.kafka.end_offsets(sidecar.source_topic)
            since = len(sidecar.log_text())
            if right[0] == "Write":
                self.kafka.forbid(USER, [right])
            work.change({"update": 30})
            self.kafka.force_compaction(sidecar.source_topic)
            if right[0] == "Write":
                self.wait_named(sidecar, right, since)
                self.kafka.allow(USER, [right])
            sidecar.wait_published()
            self.assertEqual(self.judge(work, start, sidecar).missing, 0)


class Joins(RightsTest):
    def table(self):
        table, work = self.pipeline()
        table.start()
        table.wait_published()
        return table, work

    def join(self, table, options=None):
        """One that is not started, with the rights that it is documented to need: (join, stream,
        rights)."""
        topic = self.kafka.create_topic(self.unique("stream"), 2)
        stream = self.workload(topic, seed=7)
        stream.load(50)
        join = Join(self.kafka, self.unique("j"), table.state_dir, topic, self.unique("out"),
                    options)
        self._sidecars.append(join)
        self.addCleanup(join.close)
        self.secure(join)
        needed = documented_rights(topic, join.output, table.source_topic, join.name, "a")
        self.assertGreater(len(needed), 5)
        self.kafka.allow(USER, needed)
        return join, stream, needed

    def test_each_right_of_a_join_is_missed_and_named(self):
        table, work = self.table()
        rows = []
        for i, (_, _, resource) in enumerate(self.join(table)[2]):
            if resource == table.source_topic:
                continue  # join.wait=time only; and the sidecar's user has it
            join, stream, needed = self.join(table)
            self.kafka.forbid(USER, [needed[i]])
            rows.append((join.start(), stream, needed[i]))
        self.assertEqual(len(rows), 6)
        self.grant_named(rows)
        since = {}
        for join, stream, right in rows:
            join.wait_joined()
            if right[0] not in ("Create", "DescribeConfigs"):
                since[right] = len(join.log_text())
                self.kafka.forbid(USER, [right])
                stream.change(20)
        for join, _, right in rows:
            if right in since:
                self.wait_named(join, right, since[right])
                self.kafka.allow(USER, [right])
        for join, stream, _ in rows:
            join.wait_joined()
            verdict = judge(stream.truth, work.truth, read_results(self.kafka, join.output),
                            left=False, name=join.name)
            self.assertTrue(verdict.clean, f"\n{verdict}")

    def test_a_join_with_what_is_documented(self):
        table, work = self.table()
        join, stream, _ = self.join(table)
        join.start()
        join.wait_joined()
        stream.change(100)
        join.wait_joined()
        join.term()
        verdict = judge(stream.truth, work.truth, read_results(self.kafka, join.output),
                        left=False, name=join.name)
        self.assertTrue(verdict.clean, f"\n{verdict}")
        self.assertEqual(self.troubles(join), set())
        self.assertNotIn(PASSWORD, join.log_text())


if __name__ == "__main__":
    unittest.main()
