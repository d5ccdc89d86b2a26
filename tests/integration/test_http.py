"""`http.listen` of a running sidecar: health, metrics, look-ups, the status page; what other hosts
may see; and clients that are slow, many or mad."""

import http.client
import json
import math
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from urllib.parse import quote

from broker import free_port
from rig import RigTest
from sidecar import sidenote

# What a key may look like to a client that is not careful.
AWKWARD = [b"plain", b"with space", b"a/b", b"/", b"//", b"a?b=c&d", b"a#b", b"100%", b"%41", b"a+b",
           b"\x00", b"\x00nul\x00", b"\xff\xfe", "caf\u00e9 \u2713".encode(), b"'\"<>\\", b"a\r\nb", b".x",
           b"...", b"k" * 479, b"k" * 480, b"k" * 2000]
VALUES = [b'{"a": 1, "b": [1, 2.50, "x"]}', b"", b"\x00\x01\xff", b"text", b"[1]", b'{"not": json}',
          '{"\u00e9": "\u2713"}'.encode(), b" {} ", b"v" * 100_000]

# Two sidecars of one name: nobody leads from minute 10 on, and something waits.
ALERTS_TEST = """
rule_files: [RULES]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - { series: 'sidenote_leading{name="p",instance="a"}', values: '1x9 0x30' }
      - { series: 'sidenote_leading{name="p",instance="b"}', values: '0x40' }
      - { series: 'sidenote_publish_lag_records{name="p",instance="a",partition="0"}',
          values: '0x9 5+5x30' }
      - { series: 'sidenote_ready{name="p",instance="a"}', values: '1x40' }
      - { series: 'sidenote_ready{name="p",instance="b"}', values: '1x5 0x40' }
    alert_rule_test:
      - { eval_time: 9m, alertname: SidenoteNobodyLeads, exp_alerts: [] }
      - eval_time: 14m
        alertname: SidenoteNobodyLeads
        exp_alerts:
          - exp_labels: { name: p, severity: critical }
            exp_annotations:
              summary: Nobody publishes for p
              description: >-
                Changes wait in the journals, nothing is lost. No sidecar is fit, or the brokers or
                the rights for the group are missing; the log of each sidecar says which.
      - { eval_time: 10m, alertname: SidenoteNotReady, exp_alerts: [] }
      - eval_time: 17m
        alertname: SidenoteNotReady
        exp_alerts:
          - exp_labels: { name: p, instance: b, severity: critical }
            exp_annotations:
              summary: p on b is not ready
              description: >-
                Programs there should not rely on the snapshot. `curl .../readyz?verbose` says why;
                filling a large topic takes its time.
"""


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(self._path)


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def json(self):
        return json.loads(self.body)

    def text(self):
        return self.body.decode()


def ask(where, target, method="GET", headers=None, body=None, timeout=20):
    """One request on a connection of its own. `where` is a port, (host, port) or the path of a
    socket. The target goes out as it is given."""
    if isinstance(where, str):
        connection = UnixConnection(where)
    else:
        host, port = where if isinstance(where, tuple) else ("127.0.0.1", where)
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.putrequest(method, target, skip_host="Host" in (headers or {}))
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def raw(port, data, timeout=10):
    """Bytes as they are; what comes back until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout) as s:
        s.sendall(data)
        got = b""
        try:
            while chunk := s.recv(65536):
                got += chunk
        except ConnectionResetError:
            pass
        return got


# ---- a strict reader of Prometheus' text format 0.0.4 ----

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\n"])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (-?[0-9]+(?:\.[0-9]+)?|\+Inf|NaN)")


def parse_metrics(text):
    """{(name, labels): value}, and {family: kind}. ValueError on anything that is not exactly the
    format: families whole and once, head before samples, histograms that add up."""
    if not text.endswith("\n"):
        raise ValueError("the last line has no end")
    samples, kinds, order = {}, {}, []
    family = None
    lines = text[:-1].split("\n")
    for n, line in enumerate(lines, 1):
        if line.startswith("# HELP "):
            family = line.split(" ", 3)[2]
            if family in kinds or not line.split(" ", 3)[3]:
                raise ValueError(f"line {n}: {line}")
            order.append(family)
            kinds[family] = None
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            if name != family or kinds[name] or kind not in ("counter", "gauge", "histogram"):
                raise ValueError(f"line {n}: {line}")
            kinds[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            if not match:
                raise ValueError(f"line {n} is no sample: {line}")
            name, labels, value = match.groups()
            base = re.sub("_(bucket|sum|count)$", "", name) if kinds[family] == "histogram" else name
            if base != family:
                raise ValueError(f"line {n}: {name} in the family {family}")
            key = (name, tuple(sorted(re.findall(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"',
                                                 labels or ""))))
            if key in samples:
                raise ValueError(f"line {n}: {key} twice")
            samples[key] = math.inf if value == "+Inf" else float(value)
    if None in kinds.values():
        raise ValueError("a family without a type")
    for name, kind in kinds.items():
        if (kind == "counter") != name.endswith("_total"):
            raise ValueError(f"{name} is a {kind}")
        if kind == "histogram":
            check_histogram(name, samples)
    return samples, kinds


def check_histogram(name, samples):
    buckets = sorted((math.inf if dict(labels)["le"] == "+Inf" else float(dict(labels)["le"]), value)
                     for (n, labels), value in samples.items() if n == name + "_bucket")
    counts = [value for _, value in buckets]
    total = [value for (n, _), value in samples.items() if n == name + "_count"]
    if counts != sorted(counts) or buckets[-1][0] != math.inf or [counts[-1]] != total:
        raise ValueError(f"{name}: {buckets}, count {total}")


class HttpTest(RigTest):
    def serving(self, topic, options=None, **more):
        """A sidecar with http.listen on a port of its own, and the port."""
        port = free_port()
        sidecar = self.sidecar(topic, {"http.listen": f"127.0.0.1:{port}", **(options or {})}, **more)
        return sidecar.start(), port

    def ready(self, topic, options=None, **more):
        sidecar, port = self.serving(topic, options, **more)
        sidecar.wait_ready()
        self.until(lambda: ask(port, "/readyz").status == 200, "ready")
        return sidecar, port

    def until(self, condition, what, timeout=30):
        deadline = time.monotonic() + timeout
        while True:
            try:
                if condition():
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                self.fail(f"{what}: not within {timeout} s")
            time.sleep(0.05)

    def metric(self, port, name, **labels):
        samples, _ = parse_metrics(ask(port, "/metrics").text())
        found = [v for (n, ls), v in samples.items()
                 if n == name and labels.items() <= dict(ls).items()]
        return sum(found) if found else None

    def write(self, topic, pairs):
        producer = self.kafka.producer()
        for key, value in pairs:
            producer.produce(topic, key=key, value=value)
        producer.flush()


class Health(HttpTest):
    def test_live_at_once_and_ready_when_caught_up(self):
        topic = self.topic()
        self.workload(topic).load(2000)
        sidecar, port = self.serving(topic)
        self.until(lambda: ask(port, "/livez").status == 200, "live")
        seen = set()
        self.until(lambda: seen.add(ask(port, "/readyz").status) or 200 in seen, "ready")
        verbose = ask(port, "/readyz?verbose").text()
        self.assertRegex(verbose, r"\[\+\] snapshot: generation 1, \d+ keys\n")
        self.assertIn("[+] caught-up: 4 of 4 partitions", verbose)
        self.assertTrue(verbose.endswith("\nready\n"))
        sidecar.term()
        with self.assertRaises(OSError):
            ask(port, "/livez")

    def test_live_and_not_ready_without_brokers(self):
        sidecar, port = self.serving(self.unique(), {
            "kafka.bootstrap.servers": f"127.0.0.1:{free_port()}"})
        self.until(lambda: ask(port, "/livez").status == 200, "live")
        answer = ask(port, "/readyz")
        self.assertEqual(answer.status, 503)
        self.assertIn("not ready", answer.text())
        self.assertIn("[-] running: connecting", ask(port, "/readyz?verbose").text())
        self.assertEqual(ask(port, "/").status, 200)
        self.assertEqual(self.metric(port, "sidenote_ready"), 0)
        self.assertEqual(ask(port, "/v1/keys/x").status, 503)
        sidecar.term()

    def test_a_standby_is_ready_and_one_of_both_leads(self):
        topic = self.topic()
        self.workload(topic).load(500)
        name = self.unique("pipe")
        one, first = self.ready(topic, name=name)
        self.until(lambda: self.metric(first, "sidenote_leading") == 1, "the first leads")
        two, second = self.ready(topic, name=name)
        # Which of both gets partition 0 when the second joins is the group's choice.
        def standbys():
            return [pair for pair in ((one, first), (two, second))
                    if "[ ] role: standby" in ask(pair[1], "/readyz?verbose").text()]
        self.until(lambda: len(standbys()) == 1, "one leads, one is a standby")
        other, port = standbys()[0]
        leader = two if other is one else one
        self.assertEqual(self.metric(port, "sidenote_leading"), 0)
        self.assertEqual(self.metric(port, "sidenote_ready"), 1)
        leader.kill9()
        self.until(lambda: self.metric(port, "sidenote_leading") == 1, "the other leads")
        self.assertEqual(ask(port, "/readyz").status, 200)
        other.term()

    def test_brokers_that_go_away_leave_it_live_and_ready(self):
        from broker import Kafka
        with Kafka() as kafka:
            topic = self.topic(kafka=kafka)
            self.workload(topic, kafka=kafka).load(100)
            sidecar, port = self.ready(topic, kafka=kafka)
            kafka.kill()
            time.sleep(2)
            for _ in range(20):
                begin = time.monotonic()
                self.assertEqual(ask(port, "/livez").status, 200)
                self.assertEqual(ask(port, "/readyz").status, 200)
                self.assertEqual(ask(port, "/metrics").status, 200)
                self.assertLess(time.monotonic() - begin, 2)
            self.assertEqual(ask(port, "/v1/keys?limit=1").status, 200)
            sidecar.kill9()


class Metrics(HttpTest):
    def test_they_are_in_the_format_and_count_what_happened(self):
        topic = self.topic()
        work = self.workload(topic)
        work.load(300)
        sidecar, port = self.ready(topic)
        keys = [b"m-%d" % i for i in range(100)]
        self.write(topic, [(k, b'{"v":1}') for k in keys])
        self.write(topic, [(k, b'{"v":2}') for k in keys])
        self.write(topic, [(k, b'{"v":2}') for k in keys[:40]])
        self.write(topic, [(k, None) for k in keys[:25]])
        sidecar.wait_published()
        self.until(lambda: self.metric(port, "sidenote_notifications_total") == 125, "counted")

        text = ask(port, "/metrics").text()
        samples, kinds = parse_metrics(text)
        self.assertGreater(len(kinds), 50)
        for op, n in {"create": 100, "update": 100, "unchanged": 40, "delete": 25}.items():
            self.assertEqual(self.metric(port, "sidenote_changes_total", op=op), n, op)
        self.assertEqual(self.metric(port, "sidenote_notifications_total", op="update"), 100)
        self.assertEqual(self.metric(port, "sidenote_notifications_total", op="delete"), 25)
        self.assertEqual(self.metric(port, "sidenote_changes_not_notified_total"), 140)
        self.assertEqual(self.metric(port, "sidenote_records_consumed_total"), 265)
        self.assertEqual(self.metric(port, "sidenote_batch_records_sum"), 265)
        self.assertEqual(self.metric(port, "sidenote_notification_latency_seconds_count"), 125)
        self.assertEqual(self.metric(port, "sidenote_snapshot_latency_seconds_count"), 265)
        self.assertEqual(self.metric(port, "sidenote_fill_records_total"), 300)
        self.assertEqual(self.metric(port, "sidenote_snapshot_keys"), 375)
        self.assertEqual(self.metric(port, "sidenote_publish_lag_records"), 0)
        self.assertGreater(self.metric(port, "sidenote_transactions_total", result="committed"), 0)
        stat = sidecar.stat()
        for p in stat["partitions"]:
            self.assertEqual(self.metric(port, "sidenote_applied_offset",
                                         partition=str(p["partition"])), p["applied"])
        info = [dict(labels) for (name, labels) in samples if name == "sidenote_info"]
        self.assertEqual(info[0]["topic"], topic)
        for (name, labels) in samples:
            self.assertEqual(name.startswith("process_"), "name" not in dict(labels))
        # every family that is told is documented
        doc = sidenote("help", "metrics").stdout
        for name, kind in kinds.items():
            self.assertIn(f"| `{name}` | {kind} |", doc)
        promtool = shutil.which("promtool")
        if promtool:
            done = subprocess.run([promtool, "check", "metrics"], input=text, text=True,
                                  capture_output=True, check=False)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        sidecar.term()

    def test_rules_and_dashboard_use_metrics_that_there_are(self):
        doc = sidenote("help", "metrics").stdout
        known = set(re.findall(r"^\| `(\w+)` \|", doc, re.MULTILINE))
        docs = os.path.join(os.path.dirname(__file__), "../../docs")
        for name in ("alerts.yml", "grafana.json"):
            with open(os.path.join(docs, name), encoding="utf-8") as f:
                used = set(re.findall(r"\b(?:sidenote|process)_[a-z_]+", f.read()))
            used = {re.sub("_(bucket|sum|count)$", "", u) for u in used}
            self.assertLessEqual(used, known, name)
            self.assertGreater(len(used), 8, name)
        with open(os.path.join(docs, "grafana.json"), encoding="utf-8") as f:
            json.load(f)
        if shutil.which("promtool"):
            done = subprocess.run(["promtool", "check", "rules", os.path.join(docs, "alerts.yml")],
                                  text=True, capture_output=True, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    @unittest.skipUnless(shutil.which("promtool"), "needs promtool (Debian: prometheus)")
    def test_alerts_fire_when_they_should(self):
        docs = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../docs"))
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "alerts_test.yml")
            with open(path, "w", encoding="utf-8") as f:
                f.write(ALERTS_TEST.replace("RULES", os.path.join(docs, "alerts.yml")))
            done = subprocess.run(["promtool", "test", "rules", path], text=True,
                                  capture_output=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class Lookups(HttpTest):
    def test_values_equal_the_snapshot_for_awkward_keys(self):
        topic = self.topic()
        pairs = [(k, VALUES[i % len(VALUES)]) for i, k in enumerate(AWKWARD)]
        pairs += [(b"v-%d" % i, v) for i, v in enumerate(VALUES)]
        self.write(topic, pairs)
        sidecar, port = self.ready(topic)
        token = sidecar.stat()["token"]
        for key, value in pairs:
            answer = ask(port, "/v1/keys/" + quote(key, safe=""))
            self.assertEqual((answer.status, answer.body), (200, value), key)
            is_object = value.strip().startswith(b"{") and value != b'{"not": json}'
            self.assertEqual(answer.headers["Content-Type"],
                             "application/json" if is_object else "application/octet-stream")
            self.assertEqual(answer.headers["X-Sidenote-Token"], token)
            line = sidenote("get", "-d", sidecar.state_dir, "--json", self.escaped(key)).stdout
            stored = json.loads(line)
            self.assertEqual(int(answer.headers["X-Sidenote-Partition"]), stored["partition"])
            self.assertEqual(int(answer.headers["X-Sidenote-Offset"]), stored["offset"])
            self.assertEqual(int(answer.headers["X-Sidenote-Timestamp"]), stored["timestamp_ms"])
        answer = ask(port, "/v1/keys/absent")
        self.assertEqual((answer.status, answer.json()["error"]), (404, "no such key"))
        self.assertEqual(answer.headers["X-Sidenote-Token"], token)
        head = ask(port, "/v1/keys/v-0", method="HEAD")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual(head.headers["Content-Length"], str(len(VALUES[0])))

        # the list: all of them, once, in pages of 7, each way to a key leading there
        target, listed = "/v1/keys?limit=7", []
        while target:
            page = ask(port, target).json()
            self.assertLessEqual(len(page["keys"]), 7)
            listed += page["keys"]
            target = page["next"]
        self.assertEqual(len(listed), len(pairs))
        for item in listed:
            self.assertEqual(ask(port, "/v1/keys/" + item["key"]).status, 200)
        self.assertEqual({item["key"] for item in listed},
                         {quote(k, safe="-_.~") for k, _ in pairs})
        sidecar.term()

    @staticmethod
    def escaped(key):
        return "".join(chr(b) if 0x20 < b < 0x7f and b != 0x5c else f"\\x{b:02x}" for b in key)

    def test_what_was_written_is_read_after_its_token(self):
        topic = self.topic(partitions=1)
        sidecar, port = self.ready(topic)
        for i in range(30):
            self.write(topic, [(b"k", b"%d" % i)])
            end = self.kafka.end_offsets(topic)[0]
            answer = ask(port, f"/v1/keys/k?after=0:{end}&wait_ms=10000")
            self.assertEqual((answer.status, answer.body), (200, b"%d" % i))
        answer = ask(port, f"/v1/keys/k?after=0:{end + 5}")
        self.assertEqual(answer.status, 412)
        self.assertEqual(answer.json()["missing"],
                         [{"partition": 0, "wanted": end + 5, "applied": end}])
        begin = time.monotonic()
        answer = ask(port, f"/v1/keys/k?after=0:{end + 5}&wait_ms=700")
        self.assertEqual(answer.status, 503)
        self.assertEqual(answer.headers["Retry-After"], "1")
        self.assertGreaterEqual(time.monotonic() - begin, 0.7)
        # who waits does not hold the end up
        waiting = threading.Thread(target=self.swallow, args=(
            port, f"/v1/keys/k?after=0:{end + 5}&wait_ms=30000"))
        waiting.start()
        time.sleep(0.3)
        begin = time.monotonic()
        sidecar.term()
        self.assertLess(time.monotonic() - begin, 10)
        waiting.join()

    @staticmethod
    def swallow(port, target):
        try:
            ask(port, target, timeout=40)
        except (OSError, http.client.HTTPException):
            pass

    def test_a_rebuild_is_followed(self):
        topic = self.topic()
        self.write(topic, [(b"k", b"1")])
        sidecar, port = self.ready(topic)
        self.assertEqual(ask(port, "/v1/keys/k").body, b"1")
        done = sidenote("rebuild", "-F", sidecar.config_path)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.until(lambda: self.metric(port, "sidenote_snapshot_generation") == 2, "generation")
        self.until(lambda: ask(port, "/readyz").status == 200, "ready again")
        self.write(topic, [(b"k", b"2")])
        self.until(lambda: ask(port, "/v1/keys/k").body == b"2", "the new value")
        sidecar.term()


class Strangers(HttpTest):
    def test_other_hosts_get_no_values_unless_it_is_said(self):
        topic = self.topic()
        self.write(topic, [(b"k", b"a-secret-value"), (b"k2", b"x")])
        port = free_port()
        sidecar = self.sidecar(topic, {"http.listen": f"0.0.0.0:{port}"}).start()
        sidecar.wait_ready()
        for target in ("/", "/v1/keys/k", "/v1/keys", "/?key=k"):
            answer = ask(port, target)
            self.assertEqual(answer.status, 403, target)
            self.assertNotIn(b"a-secret-value", answer.body)
        for target in ("/livez", "/metrics"):
            self.assertEqual(ask(port, target, headers={"Host": "any.example"}).status, 200)
        sidecar.term()
        sidecar.configure({"http.values": "true"})
        sidecar.start()
        self.until(lambda: ask(port, "/v1/keys/k").body == b"a-secret-value", "values")
        sidecar.term()

    def test_a_page_of_a_stranger_cannot_use_a_browser_of_this_host(self):
        topic = self.topic()
        self.write(topic, [(b"k", b"v")])
        sidecar, port = self.ready(topic)
        for host in ("evil.example", f"evil.example:{port}", "10.0.0.1"):
            for target in ("/", "/v1/keys/k", "/metrics", "/livez"):
                self.assertEqual(ask(port, target, headers={"Host": host}).status, 421)
        for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}", "[::1]"):
            self.assertEqual(ask(port, "/v1/keys/k", headers={"Host": host}).status, 200)
        sidecar.term()

    def test_a_socket_file_is_for_owner_and_group(self):
        topic = self.topic()
        self.write(topic, [(b"k", b"v")])
        sidecar = self.sidecar(topic)
        path = os.path.join(sidecar.directory, "http.sock")
        sidecar.configure({"http.listen": f"unix:{path}"})
        sidecar.start()
        sidecar.wait_ready()
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o660)
        self.assertEqual(ask(path, "/v1/keys/k").body, b"v")
        self.assertEqual(ask(path, "/readyz").status, 200)
        sidecar.kill9()  # leaves the file behind
        self.assertTrue(os.path.exists(path))
        sidecar.start()
        self.until(lambda: ask(path, "/readyz").status == 200, "ready after a kill")
        sidecar.term()
        self.assertFalse(os.path.exists(path))

    def test_an_address_that_is_taken_is_told(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            sidecar = self.sidecar(self.topic(), {"http.listen": f"127.0.0.1:{port}"}).start()
            sidecar.wait_exit(2)
        self.assertIn(f"SN-HTTP http.listen: cannot listen on 127.0.0.1:{port}",
                      sidecar.log_text())

    def test_no_secret_is_shown(self):
        topic = self.topic()
        self.write(topic, [(b"k", b"v")])
        sidecar, port = self.ready(topic, {"kafka.sasl.password": "hunter2secret"})
        for target in ("/", "/metrics", "/readyz?verbose", "/v1/keys"):
            self.assertNotIn(b"hunter2secret", ask(port, target).body)
        sidecar.term()


class Requests(HttpTest):
    def test_what_is_no_proper_request_is_refused_and_does_no_harm(self):
        topic = self.topic()
        self.write(topic, [(b"k", b"v")])
        sidecar, port = self.ready(topic)
        self.assertEqual(ask(port, "/nothing").status, 404)
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            answer = ask(port, "/v1/keys/k", method=method, headers={"Content-Length": "0"})
            self.assertEqual(answer.status, 405, method)
            self.assertEqual(answer.headers["Allow"], "GET, HEAD")
        self.assertEqual(ask(port, "/v1/keys/k", headers={"Content-Length": "5"},
                             body=b"hello").status, 413)
        self.assertEqual(ask(port, "/v1/keys/" + "x" * 17000).status, 414)
        self.assertIn(b" 414 ", raw(port, b"GET /" + b"x" * 200_000))
        self.assertIn(b" 431 ", raw(port, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
                                    + b"X: " + b"y" * 200_000))
        for bad in (b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET /livez\r\n\r\n",
                    b"GET /livez HTTP/1.1\r\n\r\n", b"GET  /livez HTTP/9.9\r\nHost: x\r\n\r\n",
                    b"GET /v1/keys/%zz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                    b"GET http://evil/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(200)):
            begin = time.monotonic()
            answer = raw(port, bad, timeout=30)
            self.assertNotIn(b" 200 ", answer.split(b"\r\n", 1)[0], bad)
            self.assertLess(time.monotonic() - begin, 15, bad)
        self.assertEqual(ask(port, "/v1/keys/k").body, b"v")
        sidecar.term()

    def test_several_requests_use_one_connection(self):
        topic = self.topic()
        self.write(topic, [(b"k", b"v")])
        sidecar, port = self.ready(topic)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        for _ in range(50):
            connection.request("GET", "/v1/keys/k")
            self.assertEqual(connection.getresponse().read(), b"v")
        connection.close()
        sidecar.term()

    def test_many_at_once_are_all_answered(self):
        topic = self.topic()
        self.write(topic, [(b"k-%d" % i, b"v-%d" % i) for i in range(100)])
        sidecar, port = self.ready(topic)
        wrong = []

        def client(n):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            for i in range(100):
                connection.request("GET", f"/v1/keys/k-{(n * 7 + i) % 100}")
                got = connection.getresponse().read()
                if got != b"v-%d" % ((n * 7 + i) % 100):
                    wrong.append(got)
            connection.close()

        clients = [threading.Thread(target=client, args=(n,)) for n in range(16)]
        for c in clients:
            c.start()
        for c in clients:
            c.join()
        self.assertEqual(wrong, [])
        self.until(lambda: self.metric(port, "sidenote_http_connections") == 1, "closed")
        sidecar.term()


class SlowClients(HttpTest):
    def silent(self, port, n, data=b""):
        found = []
        for _ in range(n):
            s = socket.create_connection(("127.0.0.1", port), 10)
            self.addCleanup(s.close)
            if data:
                s.sendall(data)
            found.append(s)
        return found

    def slowest(self, port, n=40):
        worst = 0
        for _ in range(n):
            begin = time.monotonic()
            self.assertEqual(ask(port, "/v1/keys/k").body, b"v")
            self.assertEqual(ask(port, "/livez").status, 200)
            worst = max(worst, time.monotonic() - begin)
        return worst

    def test_connections_that_say_nothing_disturb_nobody(self):
        topic = self.topic()
        self.write(topic, [(b"k", b"v")])
        sidecar, port = self.ready(topic)
        for n, data in ((50, b""), (50, b"GET /livez HT"), (300, b"")):
            opened = self.silent(port, n, data)
            self.assertLess(self.slowest(port), 2)
            for s in opened:
                s.close()
        sidecar.term()

    def test_who_says_nothing_is_cut_off(self):
        sidecar, port = self.ready(self.topic())
        opened = self.silent(port, 20) + self.silent(port, 20, b"GET /livez HTTP/1.1\r\nHost: ")
        begin = time.monotonic()
        dribbling = opened[-1]
        while time.monotonic() - begin < 30:
            try:
                dribbling.sendall(b"x")  # a byte now and then is no excuse
            except OSError:
                break
            time.sleep(0.5)
        self.assertLess(time.monotonic() - begin, 20)
        self.until(lambda: self.metric(port, "sidenote_http_connections") == 1, "cut off")
        self.assertGreaterEqual(self.metric(port, "sidenote_http_connections_cut_total"), 40)
        sidecar.term()

    def test_who_does_not_read_holds_nobody_up(self):
        topic = self.topic(partitions=1)
        self.write(topic, [(b"k", b"v")] + [(b"big-%d" % i, b"x" * 900_000) for i in range(4)])
        sidecar, port = self.ready(topic)
        request = b"GET /v1/keys?prefix=big HTTP/1.1\r\nHost: localhost\r\n\r\n"
        self.silent(port, 40, request)
        time.sleep(1)
        self.assertLess(self.slowest(port), 5)
        self.write(topic, [(b"k", b"w")])
        self.until(lambda: ask(port, "/v1/keys/k").body == b"w", "the tail goes on")
        begin = time.monotonic()
        sidecar.term()
        self.assertLess(time.monotonic() - begin, 10)


class Page(HttpTest):
    def test_it_shows_the_last_notifications_and_needs_no_script_for_that(self):
        topic = self.topic()
        self.write(topic, [(b"user-1", b'{"status":"open","id":1}')])
        sidecar, port = self.ready(topic)
        self.write(topic, [(b"user-1", b'{"status":"shipped","id":1}'), (b"user-1", None)])
        sidecar.wait_published()
        self.until(lambda: "deleted" in ask(port, "/").text(), "the notification")
        answer = ask(port, "/")
        page = answer.text()
        self.assertIn('&quot;<del>open</del>&quot;', page)
        self.assertIn('&quot;<ins>shipped</ins>&quot;', page)
        self.assertIn("leader", page)
        self.assertIn(topic, page)
        self.assertEqual(page.count("<script>"), 1)
        self.assertNotRegex(page, r'(src|href)="(https?:)?//')
        self.assertNotRegex(page, r'\sstyle="|\son[a-z]+="')  # what the policy would stop
        self.assertLess(len(page), 300_000)
        self.assertIn("script-src 'sha256-", answer.headers["Content-Security-Policy"])
        self.assertIn("There is no such key", ask(port, "/?key=user-1").text())
        self.write(topic, [(b"a\x00b", b"<b>")])
        self.until(lambda: "<pre>&lt;b&gt;</pre>" in ask(port, "/?key=a%5Cx00b").text(), "a key")
        sidecar.term()


class Redis(HttpTest):
    def test_metrics_and_page_tell_how_far_redis_is(self):
        from redis_server import RedisServer
        topic = self.topic()
        self.write(topic, [(b"k-%d" % i, b"v") for i in range(50)])
        with RedisServer() as server:
            sidecar, port = self.ready(topic, {"redis.uri": server.uri})
            self.until(lambda: self.metric(port, "sidenote_redis_up") == 1, "up")
            self.write(topic, [(b"k-%d" % i, b"w") for i in range(50)])
            ends = self.kafka.end_offsets(topic)
            self.until(lambda: all(self.metric(port, "sidenote_redis_offset", partition=str(p)) == o
                                   for p, o in ends.items()), "in step")
            self.until(lambda: self.metric(port, "sidenote_redis_lag_records") == 0, "no lag")
            self.assertGreater(self.metric(port, "sidenote_redis_writes_total"), 0)
            self.assertIn("0 offsets behind the snapshot", ask(port, "/").text())
            server.kill9()
            self.write(topic, [(b"k", b"v")])
            self.until(lambda: self.metric(port, "sidenote_redis_up") == 0, "noticed")
            self.assertEqual(ask(port, "/readyz").status, 200)
            self.assertIn("cannot be written", ask(port, "/").text())
            sidecar.term()


if __name__ == "__main__":
    unittest.main()
