# SPDX-License-Identifier: Apache-2.0
"""A run with a viewer's server, for tests: frames go in by hand, questions by HTTP."""

import contextlib
import http.client
import json
import re
import struct
import subprocess
import time
from pathlib import Path

from command import COMMAND, ENVIRONMENT
from websocket import WebSocket

SMALL = ["--det-size", "256", "--sam-size", "64"]
WIDTH, HEIGHT = 64, 80
FRAME = bytes(range(256)) * 20
STDIN = ["-", "--size", f"{WIDTH}x{HEIGHT}"]


class Run:
    """The command with a viewer; frames go in by hand, so that nothing happens unasked."""

    def __init__(self, *arguments, sink="web::0", command="run", source=STDIN, sizes=SMALL):
        self.process = subprocess.Popen([COMMAND, command, *source, "-o", sink, *sizes, *map(str, arguments)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)
        self.err, self.port, self.token = "", 0, ""
        while not self.port:
            line = self.process.stderr.readline().decode()
            assert line, self.err
            self.err += line
            found = re.search(r"open http://(\S+):(\d+)/(?:#token=(\w+))?", line)
            if found:
                self.host, self.port, self.token = found[1], int(found[2]), found[3] or ""
        self.name = sink
        file = re.search(r"token-file=(.*)", sink)
        secret = Path(file[1]).read_text().strip() if file else self.token
        self.bearer = {"Authorization": f"Bearer {secret}"} if secret else {}
        self.wait(lambda s: s["running"])  # the port is open before

    def push(self, n=1):
        self.process.stdin.write(FRAME * n)
        self.process.stdin.flush()

    def ask(self, path, method="GET", body=None, headers=(), code=200):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        assert answer.status == code, f"{method} {path}: {answer.status}, want {code}: {data[:200]}"
        self.headers = {k.lower(): v for k, v in answer.getheaders()}
        return data

    def stats(self):
        return json.loads(self.ask("/stats", headers=self.bearer))

    def counts(self):
        return self.stats()["counts"][self.name]

    def wait(self, what, seconds=20):
        """Until what(stats) is true."""
        end = time.monotonic() + seconds
        while True:
            stats = self.stats()
            if what(stats):
                return stats
            assert time.monotonic() < end, json.dumps(stats)
            time.sleep(0.02)

    def live(self, path="/live", **how):
        return WebSocket(self.port, path, **how)

    def end(self, code=0):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdin = None
        out, err = self.process.communicate(timeout=60)
        self.err += err.decode()
        assert self.process.returncode == code, f"exit {self.process.returncode}\n{self.err}"
        return out.decode(), self.err

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def frame_of(viewer, seconds=20):
    """The next frame of a viewer: when it was sent, the packet's line, the image."""
    end = time.monotonic() + seconds
    while True:
        assert time.monotonic() < end, "no frame came"  # the numbers come all the time
        data = viewer.receive()
        if isinstance(data, bytes):
            mark, text, image, none, sent = struct.unpack_from("<4sIIId", data)
            assert mark == b"UMF1" and none == 0 and len(data) == 24 + text + image
            return sent, data[24:24 + text].decode(), data[24 + text:]
