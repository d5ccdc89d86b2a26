"""The admin requests that the rig needs and its Python binding lacks: ACLs, SCRAM passwords, and
committed offsets with their metadata.

    with Admin("127.0.0.1", port) as admin:
        admin.scram_password("sidenote", "secret")
        admin.allow("User:sidenote", [("Read", "topic", "users")])
        admin.forbid("User:sidenote", [("Read", "topic", "users")])

A right is (operation, resource, name), spelled as kafka-acls.sh does. Each call returns when the
cluster has accepted it; a broker may take some milliseconds more to act on it.
"""

import hashlib
import os
import socket
import struct

_RESOURCES = {"topic": 2, "group": 3, "cluster": 4, "transactional-id": 5}
_OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Delete": 6, "Alter": 7, "Describe": 8,
               "ClusterAction": 9, "DescribeConfigs": 10, "AlterConfigs": 11,
               "IdempotentWrite": 12}
_ALLOW = _LITERAL = 3
_OFFSET_COMMIT = 8
_CREATE_ACLS, _DELETE_ACLS, _ALTER_SCRAM = 30, 31, 51
_SHA_512 = 2


def _string(text):
    data = text.encode()
    return struct.pack(">h", len(data)) + data


def _compact(data):
    if len(data) > 126:
        raise ValueError("longer than one byte of length can tell")
    return bytes([len(data) + 1]) + data


class Admin:
    def __init__(self, host, port):
        self._socket = socket.create_connection((host, port), 20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def allow(self, principal, rights):
        answer = self._ask(_CREATE_ACLS, 1, self._acls(principal, rights))
        self._check(answer[4:], len(rights))

    def forbid(self, principal, rights):
        answer = self._ask(_DELETE_ACLS, 1, self._acls(principal, rights))
        self._check(answer[4:], len(rights))

    def scram_password(self, user, password, iterations=4096):
        salt = os.urandom(16)
        salted = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations)
        body = (b"\x01\x02" + _compact(user.encode()) + struct.pack(">bi", _SHA_512, iterations)
                + _compact(salt) + _compact(salted) + b"\x00\x00")
        answer = self._ask(_ALTER_SCRAM, 0, b"\x00" + body)
        # behind the header's tags, the throttle time, the length of the list and the user
        at = 1 + 4 + 1 + 1 + len(user.encode())
        if struct.unpack_from(">h", answer, at)[0]:
            raise RuntimeError(f"the broker refuses the password: {answer!r}")

    def commit_offsets(self, group, topic, offsets, metadata):
        """Of a group without members; the broker must be its coordinator."""
        body = (_string(group) + struct.pack(">i", -1) + _string("") + struct.pack(">q", -1)
                + struct.pack(">i", 1) + _string(topic) + struct.pack(">i", len(offsets)))
        for partition, offset in offsets.items():
            body += struct.pack(">iq", partition, offset) + _string(metadata)
        answer = self._ask(_OFFSET_COMMIT, 2, body)
        at = 4 + 2 + len(topic.encode()) + 4
        for i in range(len(offsets)):
            if struct.unpack_from(">ih", answer, at + 6 * i)[1]:
                raise RuntimeError(f"the broker refuses the offsets: {answer!r}")

    @staticmethod
    def _acls(principal, rights):
        body = struct.pack(">i", len(rights))
        for operation, resource, name in rights:
            body += (struct.pack(">b", _RESOURCES[resource]) + _string(name)
                     + struct.pack(">b", _LITERAL) + _string(principal) + _string("*")
                     + struct.pack(">bb", _OPERATIONS[operation], _ALLOW))
        return body

    @staticmethod
    def _check(answer, n):
        """Of the results only the first is looked at where one has more than its code."""
        count, code = struct.unpack_from(">ih", answer)
        if count != n or code:
            raise RuntimeError(f"the broker refuses: {answer!r}")

    def _ask(self, key, version, body):
        request = struct.pack(">hhi", key, version, 1) + _string("rig") + body
        self._socket.sendall(struct.pack(">i", len(request)) + request)
        size = struct.unpack(">i", self._receive(4))[0]
        return self._receive(size)[4:]

    def _receive(self, n):
        data = b""
        while len(data) < n:
            more = self._socket.recv(n - len(data))
            if not more:
                raise ConnectionError("the broker closed the connection")
            data += more
        return data
