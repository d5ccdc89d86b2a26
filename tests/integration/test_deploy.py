"""docker-compose.yml, docs/kubernetes.yml, sidecar/Dockerfile and sidenote@.service: containers cannot
be started here, but every command line, variable, option and probe in them is executed as it stands,
names of hosts, ports and directories aside, by the users that they name."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

import yaml

from broker import ROOT, Kafka, die_with_parent, free_port
from java_libraries import java_libraries
from redis_server import RedisServer
from rig import RigTest
from sidecar import clean_environment, program

# What the scripts of Kafka's image start.
SCRIPTS = {
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-broker-api-versions.sh": "org.apache.kafka.tools.BrokerApiVersionsCommand",
}


def document(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as f:
        return list(yaml.safe_load_all(f))


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


class DeployTest(unittest.TestCase):
    """A directory for what containers have, and processes that end with the test."""

    def setUp(self):
        where = tempfile.TemporaryDirectory(prefix="sidenote-deploy.")
        self.addCleanup(where.cleanup)
        self.where = where.name
        os.chmod(self.where, 0o755)
        self.bin = self.directory("bin")
        self.replaced = {"/var/lib/sidenote": self.directory("state", 0o2750, 10001),
                         "/tmp/": self.directory("tmp", 0o1777) + "/"}
        shutil.copy(program(), os.path.join(self.bin, "sidenote"))

    def directory(self, name, mode=0o755, owner=None):
        path = os.path.join(self.where, name)
        os.mkdir(path)
        if owner is not None and os.getuid() == 0:
            os.chown(path, owner, owner)
        os.chmod(path, mode)
        return path

    def script(self, name, text):
        path = os.path.join(self.bin, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\n" + text + "\n")
        os.chmod(path, 0o755)

    def as_here(self, text):
        there = "|".join(map(re.escape, self.replaced))
        return re.sub(there, lambda m: self.replaced[m[0]], text)

    def begin(self, words, environment=None, user=None):
        """`user`: "UID:GID", if this process may."""
        path = os.path.join(self.where, f"out{time.monotonic_ns()}")
        ids = {}
        if user and os.getuid() == 0:
            uid, gid = map(int, user.split(":"))
            ids = {"user": uid, "group": gid, "extra_groups": []}
        env = {**clean_environment(), "PATH": f"{self.bin}:{os.environ['PATH']}",
               **{k: self.as_here(str(v)) for k, v in (environment or {}).items()}}
        with open(path, "wb") as out:
            process = subprocess.Popen([self.as_here(w) for w in words], stdout=out, stderr=out,
                                       stdin=subprocess.DEVNULL, env=env, start_new_session=True,
                                       cwd="/", preexec_fn=die_with_parent, **ids)
        process.output = path
        self.addCleanup(self.kill, process)
        return process

    @staticmethod
    def kill(process):
        """With what it started: it is a session of its own."""
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()

    @staticmethod
    def output(process):
        with open(process.output, encoding="utf-8", errors="replace") as f:
            return f.read()

    def run_to_end(self, words, environment=None, user=None, timeout=30):
        process = self.begin(words, environment, user)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill(process)
        return process.returncode, self.output(process)

    def until(self, condition, what, timeout=30):
        deadline = time.monotonic() + timeout
        while not (result := condition()):
            if time.monotonic() > deadline:
                self.fail(what() if callable(what) else what)
            time.sleep(0.1)
        return result

    def until_says(self, process, pattern, timeout=30):
        return self.until(lambda: re.search(pattern, self.output(process), re.MULTILINE),
                          lambda: f"{pattern} is not in\n{self.output(process)}", timeout)

    @staticmethod
    def status(port, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as e:
            return e.code
        except OSError:
            return None


class ComposeKafka(Kafka):
    """A broker with the environment of a container, as the image makes properties of it."""

    def __init__(self, environment, replaced):
        super().__init__(heap="512m")
        self._environment = environment
        self._replaced = replaced

    def _properties(self, broker):
        properties = {}
        for name, value in self._environment.items():
            if not name.startswith("KAFKA_"):
                continue
            for there, here in ((":9092", f":{broker.port}"), (":9093", f":{broker.quorum_port}"),
                                *self._replaced.items()):
                value = value.replace(there, here)
            properties[name[len("KAFKA_"):].lower().replace("_", ".")] = value
        return {**properties, "log.dirs": broker.data}


class Compose(DeployTest):
    def setUp(self):
        super().setUp()
        (self.file,) = document("docker-compose.yml")
        self.services = self.file["services"]

    def test_it_is_a_compose_file(self):
        if shutil.which("docker-compose"):  # its schema
            done = subprocess.run(["docker-compose", "-f", "docker-compose.yml", "config", "-q"],
                                  cwd=ROOT, capture_output=True, text=True, check=False)
            self.assertEqual((done.returncode, done.stdout), (0, ""), done.stderr)
        stages = self.stages()
        for name, service in self.services.items():
            self.assertIn("image", service, name)
            for other, how in service.get("depends_on", {}).items():
                self.assertIn(other, self.services)
                if how["condition"] == "service_healthy":
                    self.assertIn("healthcheck", self.services[other])
            for volume in service.get("volumes", ()):
                self.assertIn(volume.split(":")[0], self.file["volumes"])
            if "build" in service:
                self.assertEqual(service["build"]["dockerfile"], "sidecar/Dockerfile")
                self.assertIn(service["build"]["target"], stages)
            for port in service.get("ports", ()):
                self.assertTrue(port.startswith("127.0.0.1:"), port)
        self.assertTrue(self.services["reader"]["volumes"][0].endswith(":ro"))

    @staticmethod
    def stages():
        with open(os.path.join(ROOT, "sidecar/Dockerfile"), encoding="utf-8") as f:
            return re.findall(r"^FROM \S+ AS (\w+)$", f.read(), re.MULTILINE)

    def begin_service(self, name):
        service = self.services[name]
        words = service["command"]
        if service["image"] == "sidenote":
            words = service.get("entrypoint", ["sidenote"]) + words
        words = [w.replace("$$", "$") for w in words]
        return self.begin(words, service.get("environment"), service.get("user", "10001:10001"))

    def until_healthy(self, name):
        check = self.services[name]["healthcheck"]
        self.assertEqual(check["test"][0], "CMD")
        self.until(lambda: self.run_to_end(check["test"][1:])[0] == 0, f"{name} is not healthy", 60)

    def start_servers(self):
        internal = free_port()
        environment = self.services["kafka"]["environment"]
        kafka = ComposeKafka(environment, {"19092": str(internal), "kafka:": "127.0.0.1:"})
        self.addCleanup(kafka.stop)
        kafka.start()
        redis = RedisServer()
        self.addCleanup(redis.close)
        redis.start()
        libraries = java_libraries()
        for script, main in SCRIPTS.items():
            self.script(script, f'exec java -XX:TieredStopAtLevel=1 -cp "{libraries}/*" '
                                f'-Dorg.slf4j.simpleLogger.defaultLogLevel=error {main} "$@"')
        self.script("redis-cli", f'exec {shutil.which("redis-cli")} -p {redis.port} "$@"')
        self.replaced.update({
            "/opt/kafka/bin": self.bin, "kafka:19092": f"127.0.0.1:{internal}",
            "localhost:9092": kafka.bootstrap, "redis:6379": f"127.0.0.1:{redis.port}"})
        self.until_healthy("kafka")
        self.until_healthy("redis")
        return kafka, redis

    def start_sidenote(self):
        port = free_port()
        environment = self.services["sidenote"]["environment"]
        there = environment["SIDENOTE_HTTP_LISTEN"]
        self.assertTrue(self.services["sidenote"]["ports"][0].endswith(":" + there.split(":")[1]))
        self.replaced[there] = f"0.0.0.0:{port}"
        sidenote = self.begin_service("sidenote")
        try:
            self.until_healthy("sidenote")
        except AssertionError:
            print(self.output(sidenote))
            raise
        return sidenote, port

    def test_every_command_and_variable_works(self):
        kafka, redis = self.start_servers()
        for _ in range(2):
            topic = self.begin_service("topic")
            self.assertEqual(topic.wait(30), 0, self.output(topic))
        self.assertEqual(len(kafka.partitions("users")), 4)
        self.assertEqual(kafka.topic_config("users")["cleanup.policy"], "compact")
        sidenote, port = self.start_sidenote()
        producer = self.begin_service("producer")
        reader = self.begin_service("reader")
        follower = self.begin_service("follower")
        self.until_says(reader, r'^user-7\t\{"id":7,"visits":\d+\}$')
        self.until_says(reader, r'^user-14\t\{"id":14,"visits":\d+\}$')
        self.until_says(follower, r' u user-\d+  visits: \d+ -> \d+$')
        self.until_says(follower, r' d user-\d+  \{"id":')
        self.until(lambda: redis.client().get("users:user-7"), "Redis has no user-7")
        self.assertEqual([self.status(port, path) for path in ("/", "/readyz", "/v1/keys/user-7")],
                         [200, 200, 200])
        self.assertIsNone(producer.poll(), self.output(producer))
        self.until(lambda: any(m.value() is None for m in kafka.read("users")), "no delete")
        sidenote.terminate()
        self.assertEqual(sidenote.wait(seconds(self.services["sidenote"]["stop_grace_period"])), 0)


class Image(DeployTest):
    def test_what_is_installed_is_what_the_program_loads(self):
        """The packages of the last stage but one against those of the libraries, on its Debian."""
        with open(os.path.join(ROOT, "sidecar/Dockerfile"), encoding="utf-8") as f:
            text = f.read()
        self.assertEqual(set(re.findall(r"^FROM (\S+) AS", text, re.MULTILINE)), {"debian:12-slim"})
        with open("/etc/os-release", encoding="utf-8") as f:
            if 'VERSION_ID="12"' not in f.read():
                self.skipTest("not Debian 12")
        stage = text.split("AS sidenote")[1].split("AS tools")[0]
        named = set(re.search(r"--no-install-recommends \\\n(.*?)&&", stage, re.DOTALL)[1]
                    .replace("\\", "").split())
        installed = self.closure(named)
        linked = subprocess.run(["ldd", program()], capture_output=True, text=True, check=True)
        for library in re.findall(r"=> (/\S+)", linked.stdout):
            # with and without /usr, which packages leave out of what is now one directory
            found = subprocess.run(["dpkg-query", "-S", library, os.path.realpath(library)],
                                   capture_output=True, text=True, check=False).stdout
            self.assertTrue(found, library)
            self.assertIn(found.split(":")[0], installed, library)

    @staticmethod
    def closure(packages):
        seen, todo = set(), list(packages) + ["libc6"]
        while todo:
            package = todo.pop()
            if package in seen:
                continue
            seen.add(package)
            done = subprocess.run(["dpkg-query", "-W", "-f", "${Depends}, ${Pre-Depends}", package],
                                  capture_output=True, text=True, check=False)
            todo += re.findall(r"(?:^|[,|]) *([a-z0-9][a-z0-9.+-]+)", done.stdout)
        return seen

    def test_what_is_copied_is_what_make_installs(self):
        out = os.path.join(self.where, "out")
        env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
        done = subprocess.run(["make", "-o", "all", "install", "PREFIX=/usr/local",
                               f"DESTDIR={out}"], cwd=ROOT, env=env, capture_output=True, text=True,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        for name in ("bin/sidenote", "lib/libsharedstate.so", "include/shared_state.h",
                     "lib/systemd/system/sidenote@.service"):
            self.assertTrue(os.path.exists(f"{out}/usr/local/{name}"), name)


class Kubernetes(DeployTest, RigTest):
    def setUp(self):
        super().setUp()
        self.config, self.deployment = document("docs/kubernetes.yml")
        self.pod = self.deployment["spec"]["template"]["spec"]
        (self.sidecar_of_pod,) = self.pod["initContainers"]
        (self.app,) = self.pod["containers"]

    def test_it_is_what_kubernetes_takes(self):
        try:
            import kubernetes_validate  # from PyPI: the schemas
        except ImportError:
            kubernetes_validate = None
        for one in (self.config, self.deployment):
            if kubernetes_validate:
                kubernetes_validate.validate(one, "1.29", strict=True)
        template = self.deployment["spec"]["template"]
        self.assertEqual(self.deployment["spec"]["selector"]["matchLabels"],
                         template["metadata"]["labels"])
        volumes = {v["name"]: v for v in self.pod["volumes"]}
        self.assertEqual(volumes["config"]["configMap"]["name"], self.config["metadata"]["name"])
        for container in (self.sidecar_of_pod, self.app):
            for mount in container["volumeMounts"]:
                self.assertIn(mount["name"], volumes)
        self.assertEqual(self.sidecar_of_pod["restartPolicy"], "Always")
        self.assertTrue(self.app["volumeMounts"][0]["readOnly"])
        self.assertEqual(self.app["securityContext"]["runAsGroup"],
                         self.sidecar_of_pod["securityContext"]["runAsGroup"])
        (port,) = self.sidecar_of_pod["ports"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            self.assertEqual(self.sidecar_of_pod[probe]["httpGet"]["port"], port["name"])
        self.assertIn(f":{port['containerPort']}\n", self.config["data"]["users.conf"])
        self.assertEqual(template["metadata"]["annotations"]["prometheus.io/port"],
                         str(port["containerPort"]))

    @staticmethod
    def user(container):
        context = container["securityContext"]
        return f"{context['runAsUser']}:{context['runAsGroup']}"

    def test_every_command_option_and_probe_works(self):
        topic = self.topic()
        self.workload(topic, key_format=b"user-%d").load(20)
        port = free_port()
        self.replaced.update({"/etc/sidenote": self.directory("etc"), "kafka:9092": self.kafka.bootstrap,
                              "source.topic=users": f"source.topic={topic}",
                              "name=users": f"name={self.unique()}", ":8080": f":{port}"})
        for name, text in self.config["data"].items():
            with open(os.path.join(self.where, "etc", name), "w", encoding="utf-8") as f:
                f.write(self.as_here(text) + "notifications.create=true\n")
        sidenote = self.begin(["sidenote", *self.sidecar_of_pod["args"]],
                              user=self.user(self.sidecar_of_pod))
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            path = self.sidecar_of_pod[probe]["httpGet"]["path"]
            self.until(lambda path=path: self.status(port, path) == 200,
                       lambda path=path: f"{path}\n{self.output(sidenote)}")
        self.assertEqual(self.status(port, "/v1/keys/user-7"), 403)
        app = self.begin(self.app["command"], user=self.user(self.app))
        self.until_says(app, r'^\{"rev"')
        os.killpg(app.pid, signal.SIGTERM)
        sidenote.terminate()
        self.assertEqual(sidenote.wait(self.pod["terminationGracePeriodSeconds"]), 0)


class Systemd(DeployTest, RigTest):
    def unit(self):
        with open(os.path.join(ROOT, "sidecar/sidenote@.service"), encoding="utf-8") as f:
            return f.read()

    def test_systemd_takes_the_unit(self):
        if not shutil.which("systemd-analyze"):
            self.skipTest("no systemd-analyze")
        path = os.path.join(self.where, "sidenote@.service")
        with open(path, "w", encoding="utf-8") as f:
            f.write(self.unit().replace("/usr/local/bin", self.bin))
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", path], text=True,
                              capture_output=True, check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_what_it_executes_works_and_ends_as_it_expects(self):
        topic = self.topic()
        self.workload(topic).load(20)
        unit = self.unit().replace("%i", "users")
        self.assertIn("StateDirectory=sidenote/users\nStateDirectoryMode=2750\n", unit)
        self.replaced.update({"/etc/sidenote": self.directory("etc"), "/usr/local/bin": self.bin})
        words = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)[1].split()
        path = os.path.join(self.where, "etc/users.conf")
        with open(path, "w", encoding="utf-8") as f:
            f.write(f"name={self.unique()}\nsource.topic={topic}\n"
                    f"kafka.bootstrap.servers={self.kafka.bootstrap}\n"
                    f"state.dir={self.replaced['/var/lib/sidenote']}/users\n"
                    "notifications.create=true\n")
        umask = int(re.search(r"^UMask=(\d+)$", unit, re.MULTILINE)[1], 8)
        old = os.umask(umask)
        try:
            sidenote = self.begin(words, user="10001:10001")
        finally:
            os.umask(old)
        self.until_says(sidenote, "has caught up")
        sidenote.terminate()
        budget = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1])
        self.assertEqual(sidenote.wait(budget), 0)
        self.assertEqual(re.search(r"^RestartPreventExitStatus=(.*)$", unit, re.MULTILINE)[1], "2 4")
        with open(path, "a", encoding="utf-8") as f:
            f.write("no.such.option=1\n")
        self.assertEqual(self.run_to_end(words)[0], 2)
