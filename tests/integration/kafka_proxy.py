"""A proxy between clients and brokers that knows requests apart.

    with Kafka(behind_proxy=True) as kafka, Proxy(kafka.behind) as proxy:
        late = proxy.hold(END_TXN)          # the next one; the client waits and sends it again
        ...
        late.wait()                         # until it was caught
        late.deliver()                      # now: on a connection of its own, as the network would
        proxy.on_request = lambda r: ...    # sees every request first; may sleep, or deliver

A request that is held is not answered on its own connection, and nothing that follows on that
connection passes either, as with a packet that is lost: the client gives the connection up.
"""

import socket
import struct
import threading

PRODUCE, FETCH, INIT_PRODUCER_ID, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT = 0, 1, 22, 25, 26, 28
HEADER = struct.Struct(">hhi")  # api key, version, correlation id


class Request:
    def __init__(self, frame):
        self.frame = frame
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


class Proxy:
    def __init__(self, ports):
        self.on_request = None
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
                if not lost:
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
