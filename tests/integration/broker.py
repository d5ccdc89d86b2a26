"""A real Apache Kafka for the tests: one broker or several, in a temporary directory.

    with Kafka() as kafka:
        kafka.create_topic("users", 4, COMPACT_FAST)
        print(kafka.bootstrap, kafka.end_offsets("users"))

Everything is on 127.0.0.1 with free ports. A broker never outlives its test: each is a child that
dies with the thread that started it, is killed at exit, and takes its directory with it.

Compaction needs three things, and COMPACT_FAST with these broker settings gives two of them: a
cleaner that looks often (log.cleaner.backoff.ms=50) and a topic whose every append may start a new
segment (segment.ms=1). The third is an append: the active segment is never cleaned. So
force_compaction() appends a *roll record*; read its text before you use it, because a roll record
may be a change like any other to whoever reads the topic.
"""

import atexit
import base64
import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid

import confluent_kafka
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic

from admin_requests import Admin

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
FETCH = os.path.join(ROOT, "tests", "kafka", "fetch")

# A compacted topic that is cleaned 0.1 s after the append that rolls its segment.
COMPACT_FAST = {
    "cleanup.policy": "compact",
    "segment.ms": "1",
    "min.cleanable.dirty.ratio": "0",
    "delete.retention.ms": "0",
    "file.delete.delay.ms": "100",
}
# A compacted topic that nobody cleans during a test.
COMPACT_NEVER = {
    "cleanup.policy": "compact",
    "min.compaction.lag.ms": str(24 * 3600 * 1000),
}
ROLL_KEY = b"\xffroll"

# confluent-kafka 1.7 forgets to take a reference to None for each header without a value that it
# hands out; after some thousand the interpreter would abort. Give it plenty.
ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent():
    """For preexec_fn: SIGKILL when the *thread* that started us ends, so start from main threads."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_until(condition, timeout, what, interval=0.02):
    """Polls condition() until it is true and returns its value; TimeoutError names `what`."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout} s")
        time.sleep(interval)


_given_ports = set()


def stop_process(process):
    """SIGSTOP, and not before its last thread stands still: until then it may still answer."""
    process.send_signal(signal.SIGSTOP)

    def stands_still():
        if process.poll() is not None:
            return True
        for task in os.listdir(f"/proc/{process.pid}/task"):
            with contextlib.suppress(FileNotFoundError), \
                    open(f"/proc/{process.pid}/task/{task}/stat", encoding="ascii",
                         errors="replace") as f:
                if f.read().rpartition(")")[2].split()[0] not in "TtZX":
                    return False
        return True
    wait_until(stands_still, 30, f"process {process.pid} stands still")


def free_port():
    """A port that nobody listens on, below the range that the kernel gives to outgoing
    connections: a broker that is down for a while must find its port free again."""
    while True:
        port = random.SystemRandom().randrange(18000, 32000)
        with socket.socket() as s:
            with contextlib.suppress(OSError):
                s.bind(("127.0.0.1", port))
                if port not in _given_ports:
                    _given_ports.add(port)
                    return port


def kafka_dir():
    """The cache that tests/kafka/fetch fills; fills it on first use."""
    return subprocess.run([FETCH], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


# ---------------------------------------------------------------- what confluent-kafka 1.7 lacks

class _CPartition(ctypes.Structure):
    _fields_ = [("topic", ctypes.c_char_p), ("partition", ctypes.c_int32),
                ("offset", ctypes.c_int64), ("metadata", ctypes.c_void_p),
                ("metadata_size", ctypes.c_size_t), ("opaque", ctypes.c_void_p),
                ("err", ctypes.c_int), ("private", ctypes.c_void_p)]


class _CPartitionList(ctypes.Structure):
    _fields_ = [("cnt", ctypes.c_int), ("size", ctypes.c_int),
                ("elems", ctypes.POINTER(_CPartition))]


class _GroupReader:
    """Committed offsets with their metadata string, through librdkafka itself: the Python binding
    drops the string. Read committed, because anything else may answer with a stale offset."""

    _rk = None

    def __init__(self, bootstrap, group):
        lib = ctypes.CDLL("librdkafka.so.1")
        for name, restype in (("rd_kafka_conf_new", ctypes.c_void_p),
                              ("rd_kafka_new", ctypes.c_void_p),
                              ("rd_kafka_topic_partition_list_new",
                               ctypes.POINTER(_CPartitionList)),
                              ("rd_kafka_topic_partition_list_add",
                               ctypes.POINTER(_CPartition)),
                              ("rd_kafka_err2name", ctypes.c_char_p)):
            getattr(lib, name).restype = restype
        lib.rd_kafka_destroy.argtypes = [ctypes.c_void_p]
        self._lib = lib
        conf = ctypes.c_void_p(lib.rd_kafka_conf_new())
        err = ctypes.create_string_buffer(512)
        for name, value in (("bootstrap.servers", bootstrap), ("group.id", group),
                            ("isolation.level", "read_committed"), ("retry.backoff.ms", "5"),
                            ("log_level", "2")):
            rc = lib.rd_kafka_conf_set(conf, name.encode(), value.encode(), err, len(err))
            if rc != 0:
                raise RuntimeError(err.value.decode())
        # 1 = RD_KAFKA_CONSUMER
        self._rk = ctypes.c_void_p(lib.rd_kafka_new(1, conf, err, ctypes.c_size_t(len(err))))
        if not self._rk:
            raise RuntimeError(err.value.decode())

    def committed(self, topic, partitions, timeout):
        lst = self._lib.rd_kafka_topic_partition_list_new(len(partitions))
        try:
            for p in partitions:
                self._lib.rd_kafka_topic_partition_list_add(lst, topic.encode(), p)
            rc = self._lib.rd_kafka_committed(self._rk, lst, int(timeout * 1000))
            if rc != 0:
                raise RuntimeError(self._lib.rd_kafka_err2name(rc).decode())
            result = {}
            for i in range(lst.contents.cnt):
                e = lst.contents.elems[i]
                metadata = ctypes.string_at(e.metadata, e.metadata_size) if e.metadata else b""
                result[e.partition] = (e.offset, metadata.decode("utf-8", "replace"))
            return result
        finally:
            self._lib.rd_kafka_topic_partition_list_destroy(lst)

    def close(self):
        if self._rk:
            self._lib.rd_kafka_destroy(self._rk)
            self._rk = None


# ---------------------------------------------------------------- brokers

class _Broker:
    def __init__(self, node, directory, port, quorum_port):
        self.node = node
        self.directory = directory
        self.port = port
        self.quorum_port = quorum_port
        self.secured_port = None
        self.behind = None  # (the port a proxy listens on, the broker's for the proxy)
        self.process = None
        self.log_path = os.path.join(directory, "broker.log")
        self.data = os.path.join(directory, "data")


class Kafka:
    """A cluster of `n_brokers` nodes, each of them broker and controller.

    `overrides` are broker properties. A Kafka is ready when start() returns. Not for use from
    several threads. `behind_proxy`: a second listener, of which clients are told the ports that a
    Proxy of kafka_proxy.py takes. `secured`: {user: password} for one more listener, with TLS, SASL
    (PLAIN and SCRAM-SHA-512) and ACLs; who comes without a password may do all."""

    def __init__(self, n_brokers=1, overrides=None, heap="256m", behind_proxy=False, secured=None):
        self.n_brokers = n_brokers
        self._overrides = dict(overrides or {})
        self._heap = heap
        self._behind_proxy = behind_proxy
        self._secured = secured
        self._brokers = []
        self._groups = {}
        self._consumers = {}
        self._admin = None
        self._rollers = {}
        self.directory = None

    # ------------------------------------------------------------ life

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    @property
    def bootstrap(self):
        return ",".join(f"127.0.0.1:{b.port}" for b in self._brokers)

    def start(self):
        cache = kafka_dir()
        self._lib = os.path.join(cache, "lib")
        jars = sorted(os.listdir(self._lib))
        self._classpath = ":".join(os.path.abspath(os.path.join(self._lib, j)) for j in jars)
        self._archive = os.path.abspath(os.path.join(cache, "kafka.jsa"))
        self._template = os.path.join(cache, "template")
        self.directory = tempfile.mkdtemp(prefix="sidenote-kafka.")
        atexit.register(self.stop)
        for i in range(self.n_brokers):
            directory = os.path.join(self.directory, f"node{i + 1}")
            os.makedirs(directory)
            self._brokers.append(_Broker(i + 1, directory, free_port(), free_port()))
            if self._behind_proxy:
                self._brokers[i].behind = (free_port(), free_port())
            if self._secured:
                self._brokers[i].secured_port = free_port()
        if self._secured:
            self._make_certificate()
        for broker in self._brokers:
            self._format(broker)
            self._spawn(broker)
        try:
            self.wait_ready()
        except Exception:
            self.stop()
            raise
        for user, password in (self._secured or {}).items():
            with self._admin_requests() as admin:
                admin.scram_password(user, password)
        return self

    def stop(self):
        """Kills the brokers (nothing that they hold is wanted) and removes their directory."""
        atexit.unregister(self.stop)
        self._close_clients()
        for broker in self._brokers:
            self._end(broker, signal.SIGKILL)
        self._brokers = []
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None

    def kill(self, i=0):
        """SIGKILL: the broker is gone at once, its data stays for restart()."""
        self._end(self._brokers[i], signal.SIGKILL)

    def terminate(self, i=0):
        """SIGTERM: a controlled shutdown, 0.3 to 1.6 s."""
        self._end(self._brokers[i], signal.SIGTERM)

    def pause(self, i=0):
        """SIGSTOP: connections stay, nothing answers."""
        stop_process(self._brokers[i].process)

    def resume(self, i=0):
        self._brokers[i].process.send_signal(signal.SIGCONT)

    def restart(self, i=0, wait=True):
        """Starts the broker again with its data and port, after kill() or terminate()."""
        broker = self._brokers[i]
        if broker.process and broker.process.poll() is None:
            self._end(broker, signal.SIGKILL)
        self._spawn(broker)
        if wait:
            self.wait_ready()

    def alive(self, i=0):
        process = self._brokers[i].process
        return process is not None and process.poll() is None

    def rss_bytes(self, i=0):
        with open(f"/proc/{self._brokers[i].process.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def log_text(self, i=0):
        with open(self._brokers[i].log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait_ready(self, timeout=60):
        """Every live broker answers and the cluster knows as many as live."""
        deadline = time.monotonic() + timeout
        for broker in self._brokers:
            while broker.process and broker.process.poll() is None:
                with socket.socket() as s:
                    if s.connect_ex(("127.0.0.1", broker.port)) == 0:
                        break
                if time.monotonic() > deadline:
                    raise TimeoutError(f"broker {broker.node} does not listen\n"
                                       + self.log_text(broker.node - 1)[-4000:])
                time.sleep(0.02)
            else:
                if broker.process:
                    code = broker.process.returncode
                    if code not in (-signal.SIGKILL, 143, 0):
                        raise RuntimeError(f"broker {broker.node} ended with {code}\n"
                                           + self.log_text(broker.node - 1)[-4000:])
        alive = sum(self.alive(i) for i in range(self.n_brokers))

        def registered():
            try:
                return len(self.admin().list_topics(timeout=2).brokers) >= alive
            except confluent_kafka.KafkaException:
                return False

        wait_until(registered, max(1, deadline - time.monotonic()), f"{alive} brokers registered")

    def _end(self, broker, sig):
        if broker.process is None:
            return
        if broker.process.poll() is None:
            broker.process.send_signal(signal.SIGCONT)
            broker.process.send_signal(sig)
            try:
                broker.process.wait(30)
            except subprocess.TimeoutExpired:
                broker.process.kill()
                broker.process.wait()

    def _format(self, broker):
        # A copy of the template instead of 1.5 s of StorageTool. The directory id must differ.
        os.makedirs(broker.data)
        shutil.copy(os.path.join(self._template, "bootstrap.checkpoint"), broker.data)
        with open(os.path.join(self._template, "meta.properties"), encoding="ascii") as f:
            lines = f.read().splitlines()
        directory_id = base64.urlsafe_b64encode(b"\x01" + uuid.uuid4().bytes[1:]).decode()[:22]
        replaced = {"node.id": str(broker.node), "directory.id": directory_id}
        with open(os.path.join(broker.data, "meta.properties"), "w", encoding="ascii") as f:
            for line in lines:
                name, sep, value = line.partition("=")
                f.write(f"{name}{sep}{replaced.get(name, value)}\n")
        with open(os.path.join(broker.directory, "server.properties"), "w",
                  encoding="utf-8") as f:
            for name, value in self._properties(broker).items():
                f.write(f"{name}={value}\n")

    def _properties(self, broker):
        n = self.n_brokers
        properties = {
            "process.roles": "broker,controller",
            "node.id": broker.node,
            "controller.quorum.voters": ",".join(
                f"{b.node}@127.0.0.1:{b.quorum_port}" for b in self._brokers),
            "listeners": f"PLAINTEXT://127.0.0.1:{broker.port},"
                         f"CONTROLLER://127.0.0.1:{broker.quorum_port}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": broker.data,
            "auto.create.topics.enable": "false",
            "delete.topic.enable": "true",
            "default.replication.factor": min(3, n),
            "min.insync.replicas": 2 if n >= 3 else 1,
            "unclean.leader.election.enable": "false",
            # Internal topics: small, so that a fresh cluster serves its first group in 1 s.
            "offsets.topic.replication.factor": min(3, n),
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": min(3, n),
            "transaction.state.log.min.isr": 2 if n >= 3 else 1,
            "transaction.state.log.num.partitions": 4,
            # Tests must not wait for dead members, rebalances and timed-out transactions.
            "group.min.session.timeout.ms": 300,
            "group.initial.rebalance.delay.ms": 0,
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
            # The cleaner: often, and with a map that fits the small heap.
            "log.cleaner.backoff.ms": 50,
            "log.cleaner.dedupe.buffer.size": 16777216,
            # Retention acts within a second of being due; deleted files go soon.
            "log.retention.check.interval.ms": 300,
            "log.initial.task.delay.ms": 300,
            "log.segment.delete.delay.ms": 1000,
            # Failover of a cluster within 3 to 4 s.
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
            "controller.quorum.election.timeout.ms": 500,
            "controller.quorum.fetch.timeout.ms": 1000,
        }
        if broker.behind:
            outside, inside = broker.behind
            properties["listeners"] += f",PROXIED://127.0.0.1:{inside}"
            properties["advertised.listeners"] = (f"PLAINTEXT://127.0.0.1:{broker.port},"
                                                  f"PROXIED://127.0.0.1:{outside}")
            properties["listener.security.protocol.map"] = (
                "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT")
            properties["inter.broker.listener.name"] = "PLAINTEXT"
        if self._secured:
            self._secure(properties, broker.secured_port)
        properties.update(self._overrides)
        return properties

    @property
    def behind(self):
        """(the port a proxy listens on, the port it connects to), one for each broker."""
        return [b.behind for b in self._brokers]

    @property
    def proxied_bootstrap(self):
        return ",".join(f"127.0.0.1:{outside}" for outside, _ in self.behind)

    # ------------------------------------------------------------ TLS, passwords, rights

    def _make_certificate(self):
        where = self.directory
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", f"{where}/key.pem", "-out", self.certificate],
            check=True, capture_output=True)
        with open(f"{where}/broker.pem", "wb") as out:
            for part in (f"{where}/key.pem", self.certificate):
                with open(part, "rb") as f:
                    out.write(f.read())

    def _secure(self, properties, port):
        users = " ".join(f'user_{u}="{p}"' for u, p in self._secured.items())
        modules = "org.apache.kafka.common.security"
        properties["listeners"] += f",SASL_SSL://127.0.0.1:{port}"
        properties.update({
            "listener.security.protocol.map":
                "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.sasl_ssl.plain.sasl.jaas.config":
                f"{modules}.plain.PlainLoginModule required {users};",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config":
                f"{modules}.scram.ScramLoginModule required;",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": f"{self.directory}/broker.pem",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        })

    @property
    def certificate(self):
        """Who has signed the brokers' certificate: themselves."""
        return os.path.join(self.directory, "certificate.pem")

    @property
    def secured_bootstrap(self):
        return ",".join(f"127.0.0.1:{b.secured_port}" for b in self._brokers)

    def _admin_requests(self):
        return Admin("127.0.0.1", self._brokers[0].port)

    def allow(self, user, rights):
        """rights: (operation, resource, name), as kafka-acls.sh spells them."""
        with self._admin_requests() as admin:
            admin.allow(f"User:{user}", rights)

    def forbid(self, user, rights):
        """Takes back what allow() gave."""
        with self._admin_requests() as admin:
            admin.forbid(f"User:{user}", rights)

    def _spawn(self, broker):
        command = ["java", f"-Xmx{self._heap}", "-Xms64m", "-XX:+UseSerialGC",
                   "-XX:TieredStopAtLevel=1"]
        if os.path.exists(self._archive):
            command.append(f"-XX:SharedArchiveFile={self._archive}")
        command += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                    "-Dorg.slf4j.simpleLogger.showDateTime=true",
                    "-cp", self._classpath, "kafka.Kafka",
                    os.path.join(broker.directory, "server.properties")]
        with open(broker.log_path, "ab") as log:
            broker.process = subprocess.Popen(command, stdout=log, stderr=log,
                                              stdin=subprocess.DEVNULL,
                                              preexec_fn=die_with_parent)

    # ------------------------------------------------------------ clients

    def _close_clients(self):
        for reader in self._groups.values():
            reader.close()
        self._groups = {}
        for consumer in self._consumers.values():
            consumer.close()
        self._consumers = {}
        self._admin = None
        self._rollers = {}

    def admin(self):
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 2})
        return self._admin

    def consumer(self, **config):
        """A consumer for assign(): no group is joined, nothing is committed."""
        base = {
            "bootstrap.servers": self.bootstrap,
            "group.id": f"rig-{uuid.uuid4()}",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
            "log_level": 2,
        }
        base.update({name.replace("_", "."): value for name, value in config.items()})
        return confluent_kafka.Consumer(base)

    def producer(self, **config):
        base = {
            "bootstrap.servers": self.bootstrap,
            "enable.idempotence": True,
            "retry.backoff.ms": 5,
            "log_level": 2,
        }
        base.update({name.replace("_", "."): value for name, value in config.items()})
        return confluent_kafka.Producer(base)

    def _query(self, isolation="read_committed"):
        if isolation not in self._consumers:
            self._consumers[isolation] = self.consumer(**{"isolation.level": isolation})
        return self._consumers[isolation]

    # ------------------------------------------------------------ topics

    def create_topic(self, name, partitions=1, config=None, replication=None):
        """Creates a topic and returns its name when every partition has a leader."""
        topic = NewTopic(name, num_partitions=partitions,
                         replication_factor=replication or min(3, self.n_brokers),
                         config={k: str(v) for k, v in (config or {}).items()})
        self.admin().create_topics([topic], operation_timeout=10)[name].result(20)
        wait_until(lambda: len(self.leaders(name)) == partitions, 20, f"leaders of {name}")
        return name

    def delete_topic(self, name):
        self.admin().delete_topics([name], operation_timeout=10)[name].result(20)
        wait_until(lambda: not self.leaders(name), 20, f"{name} deleted")

    def add_partitions(self, name, total):
        """Makes the topic have `total` partitions."""
        self.admin().create_partitions([NewPartitions(name, total)])[name].result(20)
        wait_until(lambda: len(self.leaders(name)) == total, 20, f"{total} partitions of {name}")

    def topic_config(self, name, only_set=False):
        """name -> value of a topic's settings; `only_set`: those that differ by intention."""
        resource = ConfigResource("topic", name)
        entries = self.admin().describe_configs([resource])[resource].result(20)
        dynamic_topic_config = 1
        return {e.name: e.value for e in entries.values()
                if not only_set or e.source == dynamic_topic_config}

    def alter_config(self, name, config):
        """Changes these settings and leaves the others: AlterConfigs replaces all, so the present
        ones are sent along. A value of None resets the setting to its default."""
        settings = self.topic_config(name, only_set=True)
        settings.update(config)
        wanted = {k: str(v) for k, v in settings.items() if v is not None}
        resource = ConfigResource("topic", name, set_config=wanted)
        self.admin().alter_configs([resource])[resource].result(20)
        # Names only: the broker spells values in its own way (0 becomes 0.0).
        wait_until(lambda: self.topic_config(name, only_set=True).keys() == wanted.keys(), 10,
                   f"settings of {name}")
        time.sleep(0.05)

    def leaders(self, name):
        """partition -> id of its leader, for the partitions that have one."""
        topic = self.admin().list_topics(topic=name, timeout=10).topics[name]
        if topic.error is not None:
            return {}
        return {p.id: p.leader for p in topic.partitions.values() if p.leader >= 0}

    def partitions(self, name):
        return sorted(self.leaders(name))

    # ------------------------------------------------------------ offsets

    def end_offsets(self, name):
        """partition -> last stable offset: where a read_committed consumer has its EOF."""
        return {p: self._watermarks(name, p)[1] for p in self.partitions(name)}

    def start_offsets(self, name):
        return {p: self._watermarks(name, p)[0] for p in self.partitions(name)}

    def _watermarks(self, name, partition, isolation="read_committed"):
        # A handle answers from what it knows of the topic, which may be older than a new partition,
        # a recreated topic or a new leader: let it look, and try again.
        consumer = self._query(isolation)
        deadline = time.monotonic() + 20
        while True:
            try:
                consumer.list_topics(name, timeout=10)
                return consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=10)
            except confluent_kafka.KafkaException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def open_transactions(self, name):
        """The partitions in which a transaction is open now (last stable offset below the end)."""
        ends = self._high_watermarks(name)
        return {p for p, stable in self.end_offsets(name).items() if stable < ends[p]}

    def committed(self, group, topic, timeout=10):
        """partition -> (offset, metadata string). The offset is -1001 where none is committed.
        Waits for an open transaction of the group to end; RuntimeError when it does not."""
        if group not in self._groups:
            self._groups[group] = _GroupReader(self.bootstrap, group)
        return self._groups[group].committed(topic, self.partitions(topic), timeout)

    def commit(self, group, topic, offsets, metadata=""):
        """Sets committed offsets by hand, as an operator would; the group must be empty."""
        if metadata:  # which the Python binding drops
            with self._admin_requests() as admin:
                admin.commit_offsets(group, topic, offsets, metadata)
            return
        consumer = self.consumer(**{"group.id": group})
        try:
            consumer.commit(offsets=[TopicPartition(topic, p, o) for p, o in offsets.items()],
                            asynchronous=False)
        finally:
            consumer.close()

    # ------------------------------------------------------------ records

    def read(self, topic, partition=None, start=0, isolation="read_committed", timeout=120):
        """Every record from `start` to the present end, as messages of confluent_kafka, partition
        by partition in offset order. Ends at the EOF events, not at a sampled offset."""
        wanted = self.partitions(topic) if partition is None else [partition]
        consumer = self.consumer(**{"isolation.level": isolation, "auto.offset.reset": "earliest",
                                    "queued.min.messages": 100000})
        try:
            for p in wanted:
                consumer.assign([TopicPartition(topic, p, start)])
                deadline = time.monotonic() + timeout
                at_end = False
                while not at_end:
                    for message in consumer.consume(num_messages=10000, timeout=0.2):
                        error = message.error()
                        if error is None:
                            yield message
                        elif error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
                            at_end = True
                        else:
                            raise confluent_kafka.KafkaException(error)
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"reading {topic}/{p}: no end within {timeout} s")
        finally:
            consumer.close()

    def offsets_present(self, topic, partition=0, isolation="read_committed"):
        return [m.offset() for m in self.read(topic, partition, isolation=isolation)]

    # ------------------------------------------------------------ compaction

    def cleaned_up_to(self, topic):
        """partition -> offset below which the cleaner of partition's leader has finished a pass;
        0 where it never has. From the cleaner's own checkpoint file."""
        result = {p: 0 for p in self.partitions(topic)}
        for p, leader in self.leaders(topic).items():
            path = os.path.join(self._brokers[leader - 1].data, "cleaner-offset-checkpoint")
            with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as f:
                for line in f.read().splitlines()[2:]:
                    name, number, offset = line.rsplit(" ", 2)
                    if name == topic and int(number) == p:
                        result[p] = int(offset)
        return result

    def force_compaction(self, topic, passes=1, roll="transaction", timeout=20):
        """Makes the cleaner run over everything that is in the topic now, `passes` times. The topic
        needs the settings of COMPACT_FAST.

        After the first pass every overwritten record is gone. A tombstone goes in the second (with
        delete.retention.ms=0), a further one is never needed.

        Each pass needs an append that rolls the active segment:
        - roll="transaction" appends a record and aborts it. Consumers with read_committed, the
          sidecar among them, see nothing of it but a gap in the offsets.
        - roll="record" appends a real record with the key ROLL_KEY. Everybody sees it: the first
          one in a partition is a create, each further one an update that is notified. Only for
          topics whose oracle does not care.

        An open transaction in the topic holds the cleaner up: TimeoutError."""
        for _ in range(passes):
            ends = self._high_watermarks(topic)
            self._roll(topic, roll)
            deadline = time.monotonic() + timeout
            while any(self.cleaned_up_to(topic)[p] < end for p, end in ends.items()):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{topic} is cleaned up to {self.cleaned_up_to(topic)} "
                                       f"and not {ends}")
                time.sleep(0.02)

    def _high_watermarks(self, name):
        return {p: self._watermarks(name, p, "read_uncommitted")[1]
                for p in self.partitions(name)}

    def _roll(self, topic, how):
        if how not in ("transaction", "record"):
            raise ValueError(how)
        time.sleep(0.005)  # segment.ms=1: the next append must be later than the last
        if how not in self._rollers:
            config = {}
            if how == "transaction":
                config["transactional.id"] = f"rig-roll-{uuid.uuid4()}"
            producer = self.producer(**config)
            if config:
                producer.init_transactions(30)
            self._rollers[how] = producer
        producer = self._rollers[how]
        if how == "transaction":
            producer.begin_transaction()
        for p in self.partitions(topic):
            producer.produce(topic, key=ROLL_KEY, value=uuid.uuid4().bytes, partition=p)
        if producer.flush(30):
            raise TimeoutError(f"roll records of {topic} not delivered")
        if how == "transaction":
            producer.abort_transaction(30)
