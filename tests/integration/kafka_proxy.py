"""A proxy between clients and brokers that knows requests apart.

    with Kafka(behind_proxy=True) as kafka, Proxy(kafka.behind) as proxy:
        late = proxy.hold(END_TXN)          # the next one; the client waits and sends it again
        ...
        late.wait()                         # until it was caught
        late.deliver()                      # now: on a connection of its own, as the network would
        proxy.on_request = lambda r: ...    # sees every request first; may sleep, or deliver

        proxy.disturb({PRODUCE: Disturbance(delay_s=0.2, drop=0.1)}, seed=1)    # by chance

A request that is held is not answered on its own connection, and nothing that follows on that
connection passes either, as with a packet that is lost: the client gives the connection up.
"""

import collections
import random
import socket
import struct
import threading
import time

OFFSET_COMMIT, HEARTBEAT = 8, 12
PRODUCE, FETCH, INIT_PRODUCER_ID, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT = 0, 1, 22, 25, 26, 28
HEADER = struct.Struct(">hhi")  # api key, version, correlation id


class Request:
    def __init__(self, frame):
        self.frame = frame
        self.unanswered = False
        self.api, self.version, self.correlation = HEADER.unpack_from(frame)

    @property
    def commits(self):
        """Of an END_TXN: commit or abort (its last byte, up to version 2)."""
        return self.frame[-1] == 1


def _read(sock, n):
    data = b""
    while len(data) < n:
        piece = sock.recv(n - len(data))
        if not piece:
            raise ConnectionError("closed")
        data += piece
    return data


def _read_frame(sock):
    return _read(sock, struct.unpack(">i", _read(sock, 4))[0])


def _write_frame(sock, frame):
    sock.sendall(struct.pack(">i", len(frame)) + frame)


class Held:
    """One request that did not arrive, yet."""

    def __init__(self, api, wanted):
        self.api = api
        self._wanted = wanted
        self._caught = threading.Event()
        self._request = self._target = None

    def takes(self, request):
        return not self._caught.is_set() and request.api == self.api and self._wanted(request)

    def catch(self, request, target):
        self._request, self._target = request, target
        self._caught.set()

    def is_caught(self):
        return self._caught.is_set()

    def wait(self, timeout=30):
        if not self._caught.wait(timeout):
            raise TimeoutError(f"no request {self.api} came within {timeout} s")

    def deliver(self):
        """The broker's answer, without its header; nobody waits for it any more."""
        with socket.create_connection(("127.0.0.1", self._target), timeout=10) as s:
            _write_frame(s, self._request.frame)
            return _read_frame(s)[4:]


class Disturbance:
    """What happens to requests of one kind; shares of them by chance, 0 to 1.

    delay_s  the longest that one is kept back, and all that follow it on its connection
    drop     it never arrives, and nothing after it on its connection, which is cut after DROP_S,
             as when packets are lost: the client sends it again
    lose     it arrives, and its answer does not; the same then
    double   it arrives twice, the first time on a connection of its own, whose answer nobody sees;
             both before the client can go on, since what TCP may do ends there
    cut      the connection ends instead of it
    times    how often at most, all in all; None: no limit"""

    KINDS = ("drop", "lose", "double", "cut")

    def __init__(self, delay_s=0.0, drop=0.0, lose=0.0, double=0.0, cut=0.0,
                 times=None):
        self.delay_s = delay_s
        self.times = times
        self.shares = dict(zip(self.KINDS, (drop, lose, double, cut)))

    def choose(self, rng):
        dice = rng.random()
        for kind, share in self.shares.items():
            dice -= share
            if dice < 0:
                return kind
        return None


class Proxy:
    DROP_S = 0.5

    def __init__(self, ports):
        self.on_request = None
        self.disturbed = collections.Counter()  # (api key, kind) -> how often
        self._disturbances = {}
        self._rng = random.Random()
        self.change_answer = None  # (request, answer) -> answer
        self._holds = []
        self._lock = threading.Lock()
        self._socks = set()
        self._listeners = []
        for outside, inside in ports:
            listener = socket.create_server(("127.0.0.1", outside))
            self._listeners.append(listener)
            threading.Thread(target=self._accept, args=(listener, inside), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()

    def cut(self):
        """Every connection."""
        with self._lock:
            socks = list(self._socks)
        for s in socks:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def disturb(self, disturbances, seed=None):
        """api key -> Disturbance, from now on; {}: none any more."""
        with self._lock:
            self._rng = random.Random(seed)
            self._disturbances = dict(disturbances)

    def _fate(self, api):
        """(what happens to it, how many seconds later)."""
        with self._lock:
            d = self._disturbances.get(api)
            if d is None or d.times == 0:
                return None, 0.0
            kind, delay = d.choose(self._rng), d.delay_s * self._rng.random()
            if d.times and (kind or delay):
                d.times -= 1
            if delay:
                self.disturbed[api, "delay"] += 1
            if kind:
                self.disturbed[api, kind] += 1
            return kind, delay

    @staticmethod
    def _deliver_too(request, inside):
        """Once more; the answer is nobody's."""
        try:
            with socket.create_connection(("127.0.0.1", inside), timeout=10) as s:
                _write_frame(s, request.frame)
                _read_frame(s)
        except (OSError, ConnectionError):
            pass

    def hold(self, api, wanted=lambda request: True):
        held = Held(api, wanted)
        with self._lock:
            self._holds.append(held)
        return held

    def _accept(self, listener, inside):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(("127.0.0.1", inside))
            except OSError:  # it is down
                client.close()
                continue
            for s in (client, broker):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._socks |= {client, broker}
            sent = {}  # correlation id -> Request
            threading.Thread(target=self._requests, args=(client, broker, inside, sent),
                             daemon=True).start()
            threading.Thread(target=self._answers, args=(broker, client, sent),
                             daemon=True).start()

    def _catch(self, request, inside):
        with self._lock:
            for held in self._holds:
                if held.takes(request):
                    held.catch(request, inside)
                    return True
        return False

    def _requests(self, client, broker, inside, sent):
        lost = False
        try:
            while True:
                request = Request(_read_frame(client))
                if self.on_request:
                    self.on_request(request)
                lost = lost or self._catch(request, inside)
                if lost:
                    continue
                kind, delay = self._fate(request.api)
                time.sleep(delay)
                if kind == "cut":
                    raise ConnectionError("cut")
                if kind == "double":
                    self._deliver_too(request, inside)
                if kind in ("drop", "lose"):
                    lost = True
                    threading.Timer(self.DROP_S, self._end, (client, broker)).start()
                if kind == "drop":
                    continue
                request.unanswered = kind == "lose"
                sent[request.correlation] = request
                _write_frame(broker, request.frame)
        except (OSError, ConnectionError):
            self._end(client, broker)

    def _answers(self, broker, client, sent):
        try:
            while True:
                answer = _read_frame(broker)
                request = sent.pop(struct.unpack_from(">i", answer)[0], None)
                if self.change_answer and request:
                    answer = self.change_answer(request, answer)
                if request and request.unanswered:
                    return  # nor anything after it
                _write_frame(client, answer)
        except (OSError, ConnectionError):
            self._end(client, broker)

    def _end(self, *socks):
        with self._lock:
            self._socks -= set(socks)
        for s in socks:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()
