# SPDX-License-Identifier: Apache-2.0
"""A WebSocket client of the standard library, for tests: RFC 6455 without extensions."""

import base64
import hashlib
import os
import socket
import struct

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Refused(Exception):
    """The answer to the handshake: its status line and headers."""

    def __init__(self, answer):
        super().__init__(answer.splitlines()[0] if answer else "closed without an answer")
        self.code = int(answer.split()[1]) if answer else 0


class WebSocket:
    def __init__(self, port, path, headers=(), host="127.0.0.1", timeout=20):
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16))
        named = dict(headers)
        lines = [f"GET {path} HTTP/1.1", f"Host: {named.pop('Host', f'{host}:{port}')}", f"Upgrade: {named.pop('Upgrade', 'websocket')}", "Connection: Upgrade",
                 f"Sec-WebSocket-Key: {key.decode()}", "Sec-WebSocket-Version: 13", *(f"{k}: {v}" for k, v in named.items())]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self.rest = b""
        while b"\r\n\r\n" not in self.rest:
            piece = self.socket.recv(65536)
            if not piece:
                break
            self.rest += piece
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            self.socket.close()
            raise Refused(head.decode())
        want = base64.b64encode(hashlib.sha1(key + GUID).digest())
        assert want in head, "a wrong Sec-WebSocket-Accept"

    def frame(self, opcode, data, final=True, masked=True):
        size = len(data)
        head = bytes([opcode | (128 if final else 0)])
        mark = 128 if masked else 0
        head += bytes([mark | size]) if size < 126 else struct.pack(">BH", mark | 126, size) if size < 65536 else struct.pack(
            ">BQ", mark | 127, size)
        if not masked:
            return head + data
        key = os.urandom(4)
        return head + key + bytes(b ^ key[i % 4] for i, b in enumerate(data))

    def send(self, text):
        self.socket.sendall(self.frame(1, text.encode()))

    def _take(self, n):
        while len(self.rest) < n:
            piece = self.socket.recv(1 << 20)
            if not piece:
                raise EOFError("closed")
            self.rest += piece
        data, self.rest = self.rest[:n], self.rest[n:]
        return data

    def receive(self):
        """The next message: str or bytes. EOFError at the end; what a closing frame said is in its arguments."""
        whole, kind = b"", 0
        while True:
            first, second = self._take(2)
            size = second & 127
            if size == 126:
                size, = struct.unpack(">H", self._take(2))
            elif size == 127:
                size, = struct.unpack(">Q", self._take(8))
            data = self._take(size)
            opcode = first & 15
            if opcode == 8:
                raise EOFError(struct.unpack(">H", data[:2])[0] if len(data) >= 2 else 0)
            if opcode == 9:
                self.socket.sendall(self.frame(10, data))
                continue
            if opcode == 10:
                continue
            kind = opcode or kind
            whole += data
            if first & 128:
                return whole.decode() if kind == 1 else whole

    def close(self):
        self.socket.close()
