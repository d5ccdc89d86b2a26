"""`sidenote check`: finds what would keep `run` from running, and touches nothing. And the rights that
`--acls` prints are those that it needs: all of them, and none more."""

import json
import os
import re
import resource
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
import unittest

from broker import COMPACT_NEVER, Kafka, die_with_parent, free_port, wait_until
from rig import RigTest
from sidecar import clean_environment, program, sidenote


def options(directory, **more):
    """A configuration as -X arguments; a name has _ for its dots."""
    values = {"name": "pipe", "source.topic": "users", "kafka.bootstrap.servers": "127.0.0.1:1",
              "state.dir": os.path.join(directory, "state"),
              **{name.replace("_", "."): value for name, value in more.items()}}
    return [a for name, value in values.items() if value is not None
            for a in ("-X", f"{name}={value}")]


class CheckTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="sidenote-test-check.")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def check(self, *arguments, expect=0, **more):
        done = sidenote("check", *arguments, *options(self.dir, **more))
        self.assertEqual(done.returncode, expect, done.stdout + done.stderr)
        return done.stdout

    def make(self, name, mode=0o2750):
        path = os.path.join(self.dir, name)
        os.mkdir(path)
        os.chmod(path, mode)
        return path


class Offline(CheckTest):
    def test_a_right_configuration_is_fit(self):
        out = self.check()
        self.assertIn("\nfit to run\n", out)
        self.assertIn("notifications.topic=users.changes\n", out)
        self.assertNotIn("fault", out)

    def test_it_leaves_nothing_behind(self):
        self.check()
        self.assertEqual(os.listdir(self.dir), [])
        self.make("state")
        self.check()
        self.assertEqual(os.listdir(os.path.join(self.dir, "state")), [])

    def test_what_is_missing_is_named(self):
        out = self.check(expect=2, name=None, source_topic=None)
        self.assertRegex(out, r"SN-CONFIG: .*name, source\.topic")

    def test_a_property_that_librdkafka_does_not_know_is_named(self):
        out = self.check(expect=2, kafka_no_such_property="1")
        self.assertRegex(out, r"SN-KAFKA-CONFIG: .*no\.such\.property")

    def test_a_property_is_looked_at_for_the_client_that_gets_it(self):
        out = self.check(expect=2, producer_compression_type="brotli")
        self.assertRegex(out, r"SN-KAFKA-CONFIG: .*producer\.compression\.type")

    def test_secrets_are_masked(self):
        path = os.path.join(self.dir, "password")
        with open(path, "w", encoding="ascii", opener=lambda p, f: os.open(p, f, 0o600)) as f:
            f.write("swordfish\n")
        for flag in ((), ("--json",), ("--acls",)):
            out = self.check(*flag, kafka_security_protocol="SASL_PLAINTEXT",
                             kafka_sasl_mechanism="PLAIN", kafka_sasl_username="me",
                             kafka_sasl_password_file=path)
            self.assertNotIn("swordfish", out)

    def test_without_online_nobody_is_asked(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            s.settimeout(0)
            self.check(kafka_bootstrap_servers=f"127.0.0.1:{s.getsockname()[1]}")
            with self.assertRaises(BlockingIOError):
                s.accept()

    def test_a_directory_whose_parent_is_missing_is_a_fault(self):
        out = self.check(expect=2, state_dir=os.path.join(self.dir, "a", "b"))
        self.assertRegex(out, r"SN-STATE-IO: .*mkdir -p")

    def test_a_path_too_long_for_the_control_socket_is_a_fault(self):
        path = os.path.join(self.dir, "a" * 100)
        self.assertIn("SN-CONTROL", self.check(expect=2, state_dir=path))

    def test_a_file_is_no_directory(self):
        path = os.path.join(self.dir, "file")
        with open(path, "w", encoding="ascii"):
            pass
        self.assertIn("SN-STATE-IO", self.check(expect=2, state_dir=path))

    def test_a_directory_that_apps_cannot_read_is_warned_of(self):
        out = self.check(state_dir=self.make("private", 0o700))
        self.assertRegex(out, r"SN-STATE-MODE: .*chmod 2750")
        self.assertIn("fit to run, with warnings", out)

    @unittest.skipIf(os.geteuid() == 0, "root may write everywhere")
    def test_a_directory_that_it_may_not_write_is_a_fault(self):
        self.assertIn("SN-STATE-IO", self.check(expect=2, state_dir=self.make("mine", 0o555)))

    @unittest.skipUnless(os.path.isdir("/dev/shm"), "there is no tmpfs to try")
    def test_a_file_system_that_forgets_is_told(self):
        path = tempfile.mkdtemp(dir="/dev/shm")
        self.addCleanup(os.rmdir, path)
        self.assertRegex(self.check(state_dir=path), r"note .*tmpfs")

    def test_a_limit_of_address_space_is_a_fault(self):
        def limit():
            die_with_parent()
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        done = subprocess.run([program(), "check", *options(self.dir)], env=clean_environment(),
                              capture_output=True, text=True, check=False, preexec_fn=limit)
        self.assertEqual(done.returncode, 2, done.stdout)
        self.assertIn("SN-ADDRESS-SPACE", done.stdout)

    def test_json_is_one_object_a_line(self):
        lines = [json.loads(line) for line in self.check("--json").splitlines()]
        values = {x["option"]: x["value"] for x in lines if "option" in x}
        self.assertEqual(values["source.topic"], "users")
        levels = {x["level"] for x in lines if "level" in x}
        self.assertEqual(levels, {"ok"})
        lines = [json.loads(x) for x in self.check("--json", expect=2, name=None).splitlines()]
        self.assertEqual([(x["level"], x["id"]) for x in lines], [("fault", "SN-CONFIG")])

    def test_what_it_does_not_understand_is_refused(self):
        done = sidenote("check", "--offline", *options(self.dir))
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("--offline", done.stderr)

    def test_every_id_is_explained(self):
        path = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "operations.md")
        with open(path, encoding="utf-8") as f:
            explained = set(re.findall(r"^### (SN-[A-Z-]+)", f.read(), re.M))
        source = os.path.join(os.path.dirname(__file__), "..", "..", "sidecar", "cmd_check.c")
        with open(source, encoding="utf-8") as f:
            self.assertEqual(set(re.findall(r'"(SN-[A-Z-]+)"', f.read())) - explained, set())


def rights(script):
    """(operation, resource, name) for each that a script of kafka-acls.sh commands grants."""
    found = []
    for command in script.replace("\\\n", " ").splitlines():
        words = shlex.split(command, comments=True)
        if not words:
            continue
        where = next(i for i, w in enumerate(words)
                     if w in ("--topic", "--group", "--transactional-id"))
        found += [(words[i + 1], words[where][2:], words[where + 1])
                  for i, w in enumerate(words) if w == "--operation"]
    return found


class Acls(CheckTest):
    def acls(self, **more):
        return rights(self.check("--acls", **more))

    def test_they_are_a_script_for_a_shell(self):
        script = self.check("--acls", kafka_sasl_username="o'neill",
                            kafka_security_protocol="SASL_PLAINTEXT", kafka_sasl_mechanism="PLAIN")
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)
        self.assertIn("kafka-acls.sh", script)
        words = shlex.split(script, comments=True)
        self.assertIn("User:o'neill", words)

    def test_the_table_has_the_same_rights_as_the_commands(self):
        script = self.check("--acls", notifications_create="true")
        table = re.findall(r"^# (\w+) +(topic|group|transactional-id) (\S+)  ", script, re.M)
        self.assertEqual(table, rights(script))

    def test_creating_is_a_right_of_who_creates(self):
        create = ("Create", "topic", "users.changes")
        self.assertNotIn(create, self.acls())
        self.assertIn(create, self.acls(notifications_create="true"))

    def test_without_notifications_nothing_is_written(self):
        found = self.acls(notifications_topic="")
        self.assertEqual({name for _, _, name in found}, {"users"})
        self.assertNotIn("Write", {operation for operation, _, _ in found})

    def test_json_tells_the_same(self):
        lines = [json.loads(line) for line in self.check("--acls", "--json").splitlines()]
        self.assertEqual([(x["operation"], x["resource"], x["name"]) for x in lines], self.acls())


class Online(RigTest):
    def check(self, sidecar, *arguments, expect=0):
        done = sidenote("check", "--online", *arguments, "-F", sidecar.config_path)
        self.assertEqual(done.returncode, expect, done.stdout + done.stderr)
        return done.stdout

    def prepared(self, topic, options=None):
        """A sidecar that never ran, both topics there."""
        sidecar = self.sidecar(topic, options)
        self.kafka.create_topic(sidecar.notifications_topic, 4, {"cleanup.policy": "delete"})
        return sidecar

    def test_what_is_right_is_fit(self):
        sidecar = self.prepared(self.topic())
        out = self.check(sidecar)
        self.assertRegex(out, r"ok +brokers: cluster \S+")
        self.assertRegex(out, r"ok +source topic: \S+, 4 partitions, cleanup\.policy=compact")
        self.assertRegex(out, r"ok +notification topic: \S+, 4 partitions, cleanup\.policy=delete")
        self.assertIn("a first start", out)
        self.assertNotRegex(out, r"\n(fault|warning)")
        self.assertFalse(os.path.exists(sidecar.state_dir))

    def test_it_joins_no_group_and_commits_nothing(self):
        sidecar = self.prepared(self.topic())
        self.check(sidecar)
        self.assertEqual({o for o, _ in sidecar.committed().values()}, {-1001})

    def test_topics_that_are_missing_are_faults(self):
        missing = self.sidecar(self.unique())
        self.assertIn("SN-SOURCE-MISSING", self.check(missing, expect=2))
        sidecar = self.sidecar(self.topic(), {"notifications.create": "false"})
        out = self.check(sidecar, expect=2)
        self.assertRegex(out, r"SN-NOTIFICATIONS-MISSING: .*--create .*--partitions 4")
        creating = self.sidecar(self.topic(), {"notifications.create": "true"})
        self.assertRegex(self.check(creating), r"note .*will create it")

    def test_topics_that_cannot_serve_are_faults(self):
        sidecar = self.prepared(self.topic(config={"cleanup.policy": "delete"}))
        self.assertIn("SN-SOURCE-NOT-COMPACTED", self.check(sidecar, expect=2))
        sidecar = self.sidecar(self.topic())
        self.kafka.create_topic(sidecar.notifications_topic, 2, {"cleanup.policy": "compact"})
        out = self.check(sidecar, expect=2)
        self.assertIn("SN-NOTIFICATIONS-COMPACTED", out)
        self.assertIn("SN-NOTIFICATIONS-PARTITIONS", out)

    def test_brokers_that_do_not_answer_are_told_from_a_wrong_configuration(self):
        sidecar = self.sidecar(self.unique(),
                               {"kafka.bootstrap.servers": f"127.0.0.1:{free_port()}"})
        self.assertIn("SN-KAFKA-UNREACHABLE", self.check(sidecar, expect=3))

    def test_a_sidecar_that_runs_is_seen_and_not_disturbed(self):
        topic = self.topic()
        work = self.workload(topic)
        work.load(100)
        sidecar = self.sidecar(topic).start()
        sidecar.wait_ready()
        sidecar.wait_published()
        work.change(100)
        sidecar.wait_published()
        for _ in range(3):
            out = self.check(sidecar)
            self.assertRegex(out, r"a sidecar is running on it: leader")
            self.assertRegex(out, r"group \S+: 1 members, 0 offsets behind")
        work.change(100)
        sidecar.wait_published()
        self.assertEqual(sidecar.log_text().count("leading sidenote."), 1, sidecar.evidence())
        sidecar.term()
        wait_until(lambda: "no sidecar is running on it" in self.check(sidecar), 15, "its end seen")

    def test_the_state_of_another_pipeline_is_a_fault(self):
        topic = self.topic()
        sidecar = self.sidecar(topic).start()
        sidecar.wait_ready()
        sidecar.term()
        sidecar.configure({"name": self.unique("other")})
        self.assertRegex(self.check(sidecar, expect=2), r"SN-STATE-FOREIGN: .*pipeline")

    def test_a_recreated_topic_is_a_fault(self):
        topic = self.topic()
        work = self.workload(topic)
        work.load(100)
        sidecar = self.sidecar(topic).start()
        sidecar.wait_ready()
        sidecar.wait_published()
        wait_until(lambda: all(p["published"] is not None for p in sidecar.stat()["partitions"]),
                   15, "published positions in the state")
        sidecar.term()
        self.kafka.delete_topic(topic)
        self.kafka.create_topic(topic, 4, COMPACT_NEVER)
        out = self.check(sidecar, expect=2)
        self.assertIn("SN-TOPIC-RECREATED", out)
        self.assertIn("SN-OFFSETS-LOST", out)

    def test_json_is_one_object_a_line(self):
        sidecar = self.prepared(self.topic())
        lines = [json.loads(line) for line in self.check(sidecar, "--json").splitlines()]
        self.assertTrue(any(x.get("text", "").startswith("brokers: cluster") for x in lines))


# ---------------------------------------------------------------- rights on a real broker

class Rights(RigTest):
    """Each test starts with a topic of its own and no rights at all."""

    @classmethod
    def setUpClass(cls):
        cls.kafka = Kafka(secured={"sidecar": "secret"}).start()
        cls.addClassCleanup(cls.kafka.stop)

    def guarded(self, topic, options=None):
        sidecar = self.sidecar(topic, options)
        secret = os.path.join(sidecar.directory, "secret")
        with open(secret, "w", encoding="ascii", opener=lambda p, f: os.open(p, f, 0o600)) as f:
            f.write("secret\n")
        sidecar.configure({
            "kafka.bootstrap.servers": self.kafka.secured_bootstrap,
            "kafka.ssl.ca.location": self.kafka.certificate,
            "kafka.security.protocol": "SASL_SSL", "kafka.sasl.mechanism": "PLAIN",
            "kafka.sasl.username": "sidecar", "kafka.sasl.password.file": secret})
        return sidecar

    def needed(self, sidecar):
        return rights(sidenote("check", "--acls", "-F", sidecar.config_path).stdout)

    def online(self, sidecar):
        done = sidenote("check", "--online", "-F", sidecar.config_path)
        return done.returncode, done.stdout + done.stderr

    def wait_online(self, sidecar, pattern, timeout=20):
        """A change of rights takes a moment to be in force."""
        deadline = time.monotonic() + timeout
        while True:
            status, out = self.online(sidecar)
            if re.search(pattern, out):
                return status, out
            self.assertLess(time.monotonic(), deadline, f"no {pattern} in:\n{out}")

    def test_a_snapshot_alone_needs_less(self):
        topic = self.topic()
        work = self.workload(topic)
        work.load(100)
        sidecar = self.guarded(topic, {"notifications.topic": ""})
        self.kafka.allow("sidecar", self.needed(sidecar))
        sidecar.start()
        sidecar.wait_ready()
        work.change(100)
        self.assertNotIn("DENIED", sidecar.log_text())

    def test_check_sees_which_one_is_missing(self):
        """But for those to write, which it does not try; test_rights has all of them."""
        topic = self.topic()
        sidecar = self.guarded(topic, {"notifications.create": "false"})
        notes = sidecar.notifications_topic
        self.kafka.create_topic(notes, 4, {"cleanup.policy": "delete"})
        needed = self.needed(sidecar)
        self.kafka.allow("sidecar", needed)
        self.wait_online(sidecar, r"\nfit to run\n")
        seen = {
            ("Read", "topic", topic): "SN-SOURCE-DENIED",
            ("DescribeConfigs", "topic", topic): "SN-SETTINGS-UNKNOWN",
            ("Read", "topic", notes): "SN-READBACK",
            ("DescribeConfigs", "topic", notes): "SN-SETTINGS-UNKNOWN",
            ("Read", "group", sidecar.group): "SN-GROUP-DENIED",
        }
        self.assertEqual({r for r in needed if r[0] != "Write"}, set(seen))
        for right, message in seen.items():
            with self.subTest(right=right):
                self.kafka.forbid("sidecar", [right])
                self.wait_online(sidecar, message)
                self.kafka.allow("sidecar", [right])
                self.wait_online(sidecar, r"\nfit to run\n")

    def test_who_may_nothing_is_told_what_is_missing(self):
        sidecar = self.guarded(self.topic())
        status, out = self.online(sidecar)
        self.assertEqual(status, 2, out)
        self.assertRegex(out, r"SN-SOURCE-(DENIED|MISSING)")

    def test_wrong_credentials_are_not_an_unreachable_broker(self):
        sidecar = self.guarded(self.topic())
        with open(os.path.join(sidecar.directory, "secret"), "w", encoding="ascii") as f:
            f.write("wrong\n")
        status, out = self.online(sidecar)
        self.assertEqual(status, 2, out)
        self.assertIn("SN-KAFKA-AUTH", out)


if __name__ == "__main__":
    unittest.main()
