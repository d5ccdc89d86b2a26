"""docs/recipes.md: its code, as it stands there, beside a running sidecar."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

import oracle
from broker import ROOT, die_with_parent
from java_libraries import java_libraries
from rig import RigTest
from sidecar import sidenote

LONG_KEYS = [b"k" * 479, b"k" * 480, b"k" * 1000, "\u00fc".encode() * 300]


def block(document, first_line, language):
    """The code block of docs/<document> that begins with a line."""
    with open(os.path.join(ROOT, "docs", document), encoding="utf-8") as f:
        blocks = re.findall(rf"^```{language}\n(.*?)^```$", f.read(), re.MULTILINE | re.DOTALL)
    found = [b for b in blocks if b.startswith(first_line)]
    if len(found) != 1:
        raise AssertionError(f"{len(found)} {language} blocks of {document} begin with {first_line!r}")
    return found[0]


class RecipeTest(RigTest):
    def setUp(self):
        super().setUp()
        where = tempfile.TemporaryDirectory(prefix="sidenote-recipe.")
        self.addCleanup(where.cleanup)
        self.where = where.name

    def put_file(self, name, text):
        path = os.path.join(self.where, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def begin(self, *command, **environment):
        process = subprocess.Popen(command, cwd=self.where, env={**os.environ, **environment},
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, preexec_fn=die_with_parent)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            process.kill()
        process.communicate()

    def finish(self, process):
        """What it printed; it must end well."""
        out, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, errors.decode(errors="replace"))
        return out

    def java(self, name, *arguments):
        """A class, or a file with one."""
        return self.begin("java", "-XX:TieredStopAtLevel=1", "-cp", f"{java_libraries()}/*:.",
                          "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", name, *arguments)

    def javac(self, *names):
        self.finish(self.begin("javac", "-cp", f"{java_libraries()}/*:.", *names))

    def running(self, keys=300, options=None, **workload):
        """(workload, sidecar) with some keys that are long."""
        topic = self.topic(4)
        work = self.workload(topic, **workload)
        for key in LONG_KEYS:
            work.put(key, b'{"of":%d}' % len(key), headers=[("schema", b"7")])
        work.load(keys)
        sidecar = self.sidecar(topic, options).start()
        sidecar.wait_ready()
        return work, sidecar


class TheSnapshot(RecipeTest):
    def test_a_walk_in_python_finds_every_key_once(self):
        work, sidecar = self.running(keys=1000)
        self.put_file("snapshot.py", block("on-disk.md", "import hashlib", "python"))
        self.put_file("scan.py", block("recipes.md", "# scan.py", "python"))
        work.change(500)
        sidecar.wait_published()
        fold = {k: s.value for k, s in work.truth.fold().items()}
        for prefix in ("", "key-00000", "k" * 470, "none"):
            out = self.finish(self.begin(sys.executable, "scan.py", sidecar.state_dir, prefix))
            wanted = sorted(b"%s = %s\n" % (k, v) for k, v in fold.items()
                            if k.startswith(prefix.encode()))
            self.assertEqual(sorted(re.findall(rb"(?:.*? = )(?s:.*?)\n(?=\S+ = |\Z)", out)), wanted)

    def test_java_reads_every_key(self):
        work, sidecar = self.running(awkward=0)
        work.change({"update": 100, "delete": 50})
        sidecar.wait_published()
        fold = {k.decode(): s.value.decode() for k, s in work.truth.fold().items()}
        keys = [k.decode() for k in {k for log in work.truth.logs for k in log.keys}] + ["none"]
        self.put_file("Snapshot.java", block("recipes.md", "// Snapshot.java", "java"))
        out = self.finish(self.java("Snapshot.java", sidecar.state_dir, *keys)).decode()
        self.assertEqual(out.splitlines(), [f"{k} = {fold.get(k, 'null')}" for k in keys])
        self.assertGreater(out.count(" = null"), 40)

    def test_java_is_right_while_it_is_stopped_and_the_state_written_and_rebuilt(self):
        """Each answer is a value that the key has had, and never an older one than before."""
        work, sidecar = self.running(options={"state.lease.ms": "200"}, awkward=0)
        code = block("recipes.md", "// Snapshot.java", "java")
        for here, call in (("record = records.get(txn, stored);", " Loop.read();"),
                           ("System.nanoTime() - began >= leaseNs)", " if (Loop.again())")):
            self.assertEqual(code.count(here), 1)
            code = code.replace(here, here + call)
        self.put_file("Snapshot.java", code)
        self.put_file("Loop.java", LOOP)
        self.javac("Loop.java", "Snapshot.java")
        process = self.java("Loop", sidecar.state_dir, "4000", "300")
        self.assertEqual(process.stdout.readline(), b"open\n")
        work.in_background(work.change, {"update": 8000}, rate=2000)
        for i in range(6):
            time.sleep(0.3)
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.35)  # longer than the lease
            if i == 2:
                done = sidenote("rebuild", "-F", sidecar.config_path)
                self.assertEqual(done.returncode, 0, done.stderr)
            process.send_signal(signal.SIGCONT)
        out = self.finish(process).decode().splitlines()
        work.wait_background()
        said = {}
        for line in out[1:-1]:
            key, revision = line.split()
            self.assertGreater(int(revision), said.get(key, 0))
            said[key] = int(revision)
        gets, changes, generations, slept, again = map(int, out[-1].split())
        self.assertGreater(gets, 100)  # how many depends on the machine
        self.assertGreater(changes, 10)
        self.assertEqual(generations, 2)
        self.assertGreater(slept, 1)
        self.assertGreater(again, 0)  # what took too long was not believed
        written = {(k.decode(), json.loads(v)["rev"]) for log in work.truth.logs
                   for k, v in zip(log.keys, log.values) if k.startswith(b"key-")}
        self.assertLessEqual({tuple(x.split()) for x in out[1:-1]},
                             {(k, str(r)) for k, r in written})



# Looks keys up for some milliseconds, and says whenever one has changed. Sometimes it is held up
# for longer than a lease when it has just read.
LOOP = """
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

public final class Loop {
    static int reads, slept, again;

    static void read() {
        if (++reads % 1000 != 0)
            return;
        slept++;
        try {
            Thread.sleep(300);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    static boolean again() {
        again++;
        return true;
    }

    public static void main(String[] a) throws Exception {
        Pattern revision = Pattern.compile("\\\\{\\"rev\\":(\\\\d+),.*\\"}", Pattern.DOTALL);
        Map<String, String> seen = new HashMap<>();
        java.util.Set<Object> files = new java.util.HashSet<>();
        int gets = 0, changes = 0;
        java.lang.reflect.Field file = Snapshot.class.getDeclaredField("file");
        file.setAccessible(true);
        try (Snapshot s = new Snapshot(Path.of(a[0]))) {
            System.out.println("open");
            long until = System.nanoTime() + Long.parseLong(a[1]) * 1_000_000;
            for (int i = 0; System.nanoTime() < until; i = (i + 1) % Integer.parseInt(a[2])) {
                String key = String.format("key-%08d", i);
                Snapshot.Value v = s.get(key.getBytes(StandardCharsets.UTF_8));
                files.add(file.get(s));
                gets++;
                Matcher m = revision.matcher(new String(v.bytes(), StandardCharsets.UTF_8));
                if (!m.matches())
                    throw new Exception(key + ": " + m);
                if (!m.group(1).equals(seen.put(key, m.group(1)))) {
                    System.out.println(key + " " + m.group(1));
                    changes++;
                }
            }
        }
        System.out.println(gets + " " + changes + " " + files.size() + " " + slept + " " + again);
    }
}
"""


class Notifications(RecipeTest):
    def changed(self, n=400, **workload):
        """(workload, sidecar, what was told: (id, op, key, before, after))."""
        work, sidecar = self.running(**workload)
        sidecar.wait_published()
        start = self.kafka.end_offsets(work.topic)
        work.change(n)
        sidecar.wait_published()
        self.assert_clean(work, start, sidecar)
        notes = oracle.read_notifications(self.kafka, sidecar.notifications_topic)
        told = []
        for note in notes:
            change = json.loads(note.value)
            told.append((dict(note.headers)["sidenote.id"].decode(), change["op"], note.key,
                         change["before"], change["after"]))
        self.assertGreater(len(told), n // 2)
        return work, sidecar, told

    def abort(self, topic):
        """A transaction that nobody must see."""
        producer = self.kafka.producer(**{"transactional.id": self.unique("abort")})
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(topic, key=b"aborted", value=b'{"op":"u","before":{},"after":{}}',
                         headers=[("sidenote.id", b"aborted")])
        producer.flush(10)
        producer.abort_transaction(30)

    def test_kcat_prints_each_once(self):
        _, sidecar, told = self.changed()
        self.abort(sidecar.notifications_topic)
        environment = {"BROKERS": self.kafka.bootstrap, "TOPIC": sidecar.notifications_topic}
        script = block("recipes.md", "# everything that there is", "sh")
        lines = self.finish(self.begin("sh", "-c", script, **environment)).splitlines()
        seen = [json.loads(line)["change"] for line in lines]
        self.assertEqual(sorted(json.dumps([c["op"], c["before"], c["after"]]) for c in seen),
                         sorted(json.dumps([op, b, a]) for _, op, _, b, a in told))

        script = block("recipes.md", "# the last changes", "sh")
        process = self.begin("sh", "-c", "exec " + script.split("\n", 1)[1], **environment)
        last = [process.stdout.readline() for _ in range(20)]
        self.assertEqual(len([x for x in last if b"sidenote.id=" in x]), 10, last)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)

    def test_python_stores_each_once_however_often_it_is_killed(self):
        _, sidecar, told = self.changed(3000, not_json=0.05)
        self.abort(sidecar.notifications_topic)
        self.put_file("follow.py", block("recipes.md", "# follow.py", "python"))
        command = [sys.executable, "follow.py", self.kafka.bootstrap, sidecar.notifications_topic,
                   "changes.db"]
        path = os.path.join(self.where, "changes.db")
        for stored in (1, 600, 1500):
            process = self.begin(*command)
            deadline = time.monotonic() + 30
            while self.rows(path) < stored and time.monotonic() < deadline:
                time.sleep(0.002)
            self.end(process)
            self.assertGreaterEqual(self.rows(path), stored)
        self.finish(self.begin(*command, "once"))
        with sqlite3.connect(path) as db:
            seen = db.execute("SELECT id, op, key, before, after FROM change").fetchall()
        self.assertEqual(sorted(seen), sorted((i, op, k, json.dumps(b), json.dumps(a))
                                              for i, op, k, b, a in told))

    @staticmethod
    def rows(path):
        try:
            with sqlite3.connect(path, timeout=10) as db:
                return db.execute("SELECT count(*) FROM change").fetchone()[0]
        except sqlite3.OperationalError:  # no table yet
            return 0

    def test_the_json_converter_understands_each(self):
        work, sidecar, _ = self.changed(awkward=0)
        # (what this page says of large integers)
        work.put(b"large", b'{"n":1}')
        work.put(b"large", b'{"n":18446744073709551617}')
        work.flush()
        sidecar.wait_published()
        told = [json.loads(n.value) | {"key": n.key.decode()} for n in
                oracle.read_notifications(self.kafka, sidecar.notifications_topic)]
        self.abort(sidecar.notifications_topic)
        self.put_file("Follow.java", block("recipes.md", "// Follow.java", "java"))
        self.put_file("sink.properties", block("recipes.md", "key.converter", "properties"))
        out = self.finish(self.java("Follow.java", self.kafka.bootstrap,
                                    sidecar.notifications_topic, "sink.properties")).decode()
        lines = out.splitlines()
        self.assertEqual(len(lines), len(told))
        self.assertIn("u large {n=1} -> {n=1}", lines)
        wanted = {self.as_java(c) for c in told if c["key"] != "large"}
        self.assertEqual({self.comparable(x) for x in lines if " large " not in x}, wanted)

    @staticmethod
    def as_java(change):
        """Operation, key, and the revisions of both sides."""
        return (change["op"], change["key"], (change["before"] or {}).get("rev"),
                (change["after"] or {}).get("rev"))

    @staticmethod
    def comparable(line):
        op, key, rest = line.split(" ", 2)
        before, after = rest.split(" -> ")

        def revision(side):
            found = re.search(r"\brev=(\d+)", side)
            return int(found[1]) if found else None
        return op, key, revision(before), revision(after)
