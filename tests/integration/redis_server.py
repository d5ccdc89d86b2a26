"""A real redis-server for the tests, in a temporary directory, on a free port of 127.0.0.1 or on a
unix socket.

    with RedisServer() as redis:
        redis.client().set("k", "v")
        print(redis.uri, redis.dump(b"users:"))

A server never outlives its test: it is a child that dies with the thread that started it, is killed
at exit, and takes its directory with it.
"""

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import redis

from broker import die_with_parent


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class RedisServer:
    """`options` are lines of redis.conf, over those that tests need; a value of None takes one away.
    aof: append-only file, and how it is synced ("always", "everysec"), or None for no persistence
    at all."""

    def __init__(self, options=None, unix=False, aof=None):
        self.process = None
        self.directory = tempfile.mkdtemp(prefix="sidenote-redis.")
        atexit.register(self.close)
        self.port = free_port()
        self.socket = os.path.join(self.directory, "redis.sock")
        self.uri = f"unix:{self.socket}" if unix else f"redis://127.0.0.1:{self.port}"
        self.log_path = os.path.join(self.directory, "redis.log")
        self.password = None
        self.options = {
            "bind": "127.0.0.1",
            "port": self.port,
            "unixsocket": self.socket,
            "dir": self.directory,
            "save": '""',
            "appendonly": "yes" if aof else "no",
            "appendfsync": aof or "no",
            "repl-diskless-sync-delay": 0,
            "daemonize": "no",
        }
        self.options.update(options or {})
        self.options = {k: v for k, v in self.options.items() if v is not None}

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()

    # ------------------------------------------------------------ life

    def start(self, timeout=20):
        if self.alive():
            raise RuntimeError("it runs already")
        path = os.path.join(self.directory, "redis.conf")
        with open(path, "w", encoding="utf-8") as f:
            for name, value in self.options.items():
                f.write(f"{name} {value}\n")
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(["redis-server", path], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, preexec_fn=die_with_parent)
        deadline = time.monotonic() + timeout
        while not self._answers():
            if not self.alive() or time.monotonic() > deadline:
                with open(self.log_path, encoding="utf-8", errors="replace") as f:
                    raise RuntimeError("redis-server does not start:\n" + f.read())
            time.sleep(0.02)
        return self

    def _answers(self):
        try:
            return self.client().ping()
        except redis.exceptions.AuthenticationError:
            return True
        except redis.exceptions.RedisError:  # not there yet, or loading
            return False

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill9(self):
        if self.alive():
            self.process.kill()
        self.process.wait()

    def term(self):
        self.process.terminate()
        self.process.wait()

    def pause(self):
        """SIGSTOP: connections stay, nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        atexit.unregister(self.close)
        if self.alive():
            self.kill9()
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None

    # ------------------------------------------------------------ replicas

    def replica(self, options=None):
        """A running replica of this one, in step with it."""
        other = RedisServer({"replicaof": f"127.0.0.1 {self.port}", **(options or {})}).start()
        other.wait_in_step()
        return other

    def wait_in_step(self, timeout=30):
        deadline = time.monotonic() + timeout
        while True:
            state = self.client().info("replication")
            if state["role"] == "slave" and state["master_link_status"] == "up" and \
                    not state["master_sync_in_progress"]:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the replica is not in step: {state}")
            time.sleep(0.02)

    def promote(self):
        self.client().replicaof("no", "one")
        self.options.pop("replicaof", None)

    # ------------------------------------------------------------ what is in it

    def client(self, db=0, **options):
        options.setdefault("password", self.password)
        return redis.Redis(host="127.0.0.1", port=self.port, db=db, **options)

    def dump(self, prefix=b"", db=0):
        """Every key that begins with `prefix`, without it, with its value (bytes), or the name of
        its type if it is no string."""
        client = self.client(db)
        result = {}
        # Not by pattern: what is to be tested must not be trusted.
        cursor, keys = 0, set()
        while True:
            cursor, page = client.scan(cursor, count=10000)
            keys.update(k for k in page if k.startswith(prefix))
            if cursor == 0:
                break
        keys = list(keys)
        for i in range(0, len(keys), 5000):
            part = keys[i:i + 5000]
            for key, value in zip(part, client.mget(part)):
                result[key[len(prefix):]] = client.type(key) if value is None else value
        return result

    def mark(self, name, db=0):
        """The hash of a mirror, as text."""
        return {k.decode(): v.decode(errors="replace")
                for k, v in self.client(db).hgetall(f"sidenote:{name}").items()}

    def positions(self, name, db=0):
        """partition -> mirrored offset, or {} while it is not the fold of the log."""
        mark = self.mark(name, db)
        if "resync" in mark:
            return {}
        return {int(k[1:]): int(v) for k, v in mark.items() if k[0] == "p" and k[1:].isdigit()}


class Proxy:
    """A fixed address in front of a server: `target` may change, connections may be cut, and one
    write of a client may be kept back on its way."""

    def __init__(self, target):
        self.target = target  # a RedisServer
        self.held = threading.Event()
        self.replies = b""    # what came back after release()
        self._hold = None     # what a write must contain to be kept
        self._kept = None     # (socket to the server, bytes)
        self._recording = False
        self._whole = True
        self._sockets = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._listener.close()
        self.cut()

    def cut(self):
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for s in sockets:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()

    def hold(self, what, whole=True):
        """Keep the next write that contains `what`, or only from there on; `held` is set when it
        came."""
        self.held.clear()
        self._whole = whole
        self._hold = what

    def release(self):
        """Let it through, late."""
        server, data = self._kept
        self._kept = None
        self._recording = True
        server.sendall(data)

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target.port))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets |= {client, server}
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source, to, from_client):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                if from_client and self._hold and self._hold in data:
                    at = 0 if self._whole else data.index(self._hold)
                    self._hold = None
                    to.sendall(data[:at])
                    self._kept = (to, data[at:])
                    self.held.set()
                    continue
                if not from_client and self._recording:
                    self.replies += data
                to.sendall(data)
        for s in (source, to):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
