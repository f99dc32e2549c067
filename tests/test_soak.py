#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A live run under whatever comes: senders that vanish, stop, cut messages short and send nonsense; clients that read nothing, stop and are
killed. It must not grow in memory, descriptors or threads, lose no count, and end well.
Usage: test_soak.py COMMAND [SECONDS]"""

import contextlib
import json
import os
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

SECONDS = float(sys.argv.pop(2)) if len(sys.argv) > 2 else 15

from command import COMMAND, ENVIRONMENT, main, test  # noqa: E402: it reads the arguments too
from crc64 import crc64  # noqa: E402
from served import Run  # noqa: E402

SANITIZED = any(mark in Path(COMMAND).read_bytes() for mark in (b"__asan_init", b"__tsan_init"))
FPS = 60
GROWTH_MB = 6  # that a heap may still settle by after the first third
PATIENCE = 60


def until(condition, what, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what() if callable(what) else what
        time.sleep(0.02)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# ---- OpenIGTLink, as far as it is needed here ----


class Message:
    """A body with its CRC, that gets its stamp when it is sent."""

    def __init__(self, kind, body, crc=None, version=1):
        self.kind, self.body, self.crc, self.version = kind, body, crc64(body) if crc is None else crc, version

    def bytes(self):
        stamp = int(time.time() * (1 << 32))
        return struct.pack(">H12s20sQQQ", self.version, self.kind, b"Image_Reference", stamp, len(self.body), self.crc) + self.body


def image(width, height, scalar=3, value=0):
    head = struct.pack(">HBBBB3H12f3H3H", 1, 1, scalar, 1, 1, width, height, 1, *(0.1, 0, 0, 0, 0.1, 0, 0, 0, 1, 0, 0, 0), 0, 0, 0,
                       width, height, 1)
    return head + bytes((x * 3 + value) % 256 for x in range(width * height))


GOOD = [Message(b"IMAGE", image(64, 80, value=v)) for v in range(4)]
BAD = [  # refused, and the connection stays
    Message(b"IMAGE", image(64, 80), crc=1),  # another CRC
    Message(b"IMAGE", image(64, 80, scalar=9)),  # no scalar type
    Message(b"IMAGE", image(64, 80)[:-7]),  # fewer pixels than it says
    Message(b"IMAGE", image(64, 80, scalar=10)),  # no 8 bits
    Message(b"TRANSFORM", bytes(7)),
    Message(b"STRING", b"\xff\xff\xff\xff"),
    Message(b"VIDEO", bytes(100)),
    Message(b"NEW", bytes(30), version=9),
]


class Wild:
    """A sender that means no good, at full rate."""

    def __init__(self, port, draw):
        self.draw, self.ending = draw, False
        self.listening = socket.create_server(("127.0.0.1", port))
        self.listening.settimeout(0.2)
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        while not self.ending:
            with contextlib.suppress(OSError):  # also its own timeouts
                peer, _ = self.listening.accept()
                with peer:
                    self.send(peer)

    def send(self, peer):
        peer.settimeout(1)
        for _ in range(self.draw.randint(5, 120)):
            what = self.draw.random()
            if self.ending:
                return
            if what < 0.03:
                peer.sendall(self.draw.choice(GOOD).bytes()[:self.draw.randint(1, 2000)])  # cut, and gone
                return
            if what < 0.05:
                peer.sendall(self.draw.randbytes(200))  # no header at all
            elif what < 0.3:
                peer.sendall(self.draw.choice(BAD).bytes())
            else:
                data = self.draw.choice(GOOD).bytes()
                k = self.draw.randrange(len(data))
                peer.sendall(data[:k])
                peer.sendall(data[k:])
            time.sleep(1 / FPS)

    def end(self):
        self.ending = True
        self.thread.join()
        self.listening.close()


class Steady(threading.Thread):
    """A client that reads all there is: no mask may be missing, whatever the others do."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.images, self.wrong = 0, None
        self.start()

    def take(self, n):
        data = b""
        while len(data) < n:
            piece = self.socket.recv(n - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def run(self):
        with contextlib.suppress(EOFError, OSError):
            while True:
                version, kind, _, _, size, crc = struct.unpack(">H12s20sQQQ", self.take(58))
                body = self.take(size)
                if kind.startswith(b"IMAGE"):
                    self.images += 1
                    if version != 1 or len(body) < 72 or (self.images % 50 == 1 and crc64(body) != crc):
                        self.wrong = f"image {self.images} of version {version} is not whole"


# ---- what happens ----


class World:
    def __init__(self, draw):
        self.draw, self.port = draw, free_port()
        self.run = Run("--threads", "1", "--device", "cpu", "--track", "0", "-o", "igtl:127.0.0.1:0?mailbox=32", "-o", "null:", "--stall-deadline",
                       "20", source=[f"igtl://127.0.0.1:{self.port}?idle-ms=700"], command="serve")
        self.said = []
        threading.Thread(target=self.listen, daemon=True).start()
        self.out = self.stats()["counts"]["igtl:127.0.0.1:0?mailbox=32"]["port"]
        self.steady = Steady(self.out)
        until(lambda: self.sink()["connected"] == 1, "the steady client is in")
        self.children, self.sockets, self.sender = [], [], None

    def listen(self):  # or the pipe would be full one day
        for line in self.run.process.stderr:
            self.said = [*self.said[-200:], line.decode()]

    def stats(self):
        return self.run.stats()

    def sink(self):
        return self.stats()["counts"]["igtl:127.0.0.1:0?mailbox=32"]

    def spawn(self, *arguments):
        child = subprocess.Popen([COMMAND, "igtl", *arguments, "-q"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL, env=ENVIRONMENT)
        self.children.append(child)
        return child

    def plus(self):
        return self.spawn("fake-plus", f":{self.port}", "phantom:seed=900001,frames=8,width=64,height=80", "--loop", "--fps", str(FPS))

    def put_sender(self):
        kind = self.draw.choice(("plus", "plus", "wild"))
        self.sender = Wild(self.port, self.draw) if kind == "wild" else self.plus()

    def end_sender(self):
        if isinstance(self.sender, Wild):
            self.sender.end()
        elif self.sender:
            self.kill(self.sender)
        self.sender = None

    def kill(self, child):
        child.send_signal(self.draw.choice((signal.SIGKILL, signal.SIGTERM)))
        child.send_signal(signal.SIGCONT)
        child.wait(timeout=PATIENCE)
        self.children.remove(child)

    def connect(self, port, data=b""):
        with contextlib.suppress(OSError):
            s = socket.create_connection(("127.0.0.1", port), timeout=1)
            self.sockets.append(s)
            s.sendall(data)

    def something(self):
        """One of the things that happen in a room full of machines."""
        draw, fakes = self.draw, [c for c in self.children if c.poll() is None]
        what = draw.randrange(9)
        if what == 0 and len(self.children) < 5:
            self.spawn("fake-slicer", f"127.0.0.1:{self.out}")
        elif what == 1 and fakes:
            draw.choice(fakes).send_signal(signal.SIGSTOP)
        elif what == 2:
            for child in fakes:
                child.send_signal(signal.SIGCONT)
        elif what == 3 and [c for c in self.children if c is not self.sender]:
            self.kill(draw.choice([c for c in self.children if c is not self.sender]))
        elif what == 4 and len(self.sockets) < 8:
            self.connect(self.out)  # and reads nothing
        elif what == 5 and len(self.sockets) < 8:
            self.connect(self.out, draw.choice((draw.randbytes(300), draw.choice(BAD).bytes(), b"\0\2STT_IMAGE")))
        elif what == 6 and len(self.sockets) < 8:
            nonsense = b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" \
                       b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            self.connect(self.run.port, draw.choice((nonsense, draw.randbytes(100), b"GET /stats HTTP/1.1\r\n", b"")))
        elif what == 7 and self.sockets:
            self.sockets.pop(draw.randrange(len(self.sockets))).close()
        elif what == 8 and draw.random() < 0.5:
            self.end_sender()
            self.put_sender()

    def calm(self):
        """All but the steady client leaves, a good sender sends: what the process holds now."""
        self.end_sender()
        for s in self.sockets:
            s.close()
        self.sockets = []
        for child in list(self.children):
            self.kill(child)
        self.sender = self.plus()
        count = self.stats()["frames"]["in"]
        until(lambda: self.stats()["frames"]["in"] > count + 5, "frames come again")
        until(lambda: self.sink()["connected"] == 1 and self.stats()["counts"]["web::0"].get("connections", 1) <= 1, "all others have left")
        process = self.stats()["process"]
        status = Path(f"/proc/{self.run.process.pid}/status").read_text()
        return {"MB": process["resident_bytes"] / 1e6, "descriptors": process["descriptors"], "threads": int(status.split("Threads:")[1].split()[0])}

    def account(self):
        """Nothing comes any more: what came in has gone out, or its loss is counted."""
        self.end_sender()
        last = {}

        def whole():
            s = last["s"] = self.stats()
            drops, out = s["drops"], s["frames"]["out"]
            return s["frames"]["in"] == out + drops["replaced"] + drops["too_old"] + drops["not_finite"] and all(
                k["written"] + k["dropped"] == out for k in s["sinks"]) and self.steady.images >= self.sink()["frames"]

        until(whole, lambda: f"not every frame and mask is accounted for: {self.steady.images} masks, {json.dumps(last['s'])}")
        s, source = last["s"], last["s"]["counts"]["source"]
        unfit = source["images"] - s["frames"]["in"]
        assert 0 <= unfit <= source["unsupported"], f"{unfit} of {source}"
        assert not any(k["failed"] for k in s["sinks"]), s["sinks"]
        assert self.steady.images == self.sink()["frames"] == s["frames"]["out"] and not self.steady.wrong, (self.steady.wrong, self.steady.images, s)
        return s


@test
def nothing_grows_and_no_count_is_lost(tmp):
    seed = int.from_bytes(os.urandom(4), "big")
    draw = random.Random(seed)
    begin = time.monotonic()
    world = World(draw)
    print(f"seed {seed}, {SECONDS:.0f} s", flush=True)
    try:
        samples = []
        calm_every = max(3.0, min(30.0, SECONDS / 12))
        while time.monotonic() < begin + SECONDS or len(samples) < 3:
            samples.append(world.calm())
            next_calm = time.monotonic() + calm_every
            while time.monotonic() < next_calm:
                time.sleep(draw.uniform(0, 0.25))
                world.something()
        samples.append(world.calm())
        s = world.account()
        third = max(1, len(samples) // 3)
        early, late = samples[third:2 * third], samples[-third:]
        for what, more in (("descriptors", 0), ("threads", 0), *([] if SANITIZED else [("MB", GROWTH_MB)])):
            before, now = (statistics.median(k[what] for k in part) for part in (early, late))
            assert now <= before + more, f"{what}: {before} before, {now} now; {samples}"
        world.steady.socket.close()
        world.run.process.send_signal(signal.SIGTERM)
        code = world.run.process.wait(timeout=PATIENCE)
        assert code == 0, (code, world.said[-20:])
        source = s["counts"]["source"]
        print(f"{s['frames']['in']} frames in, {s['frames']['out']} out, {s['drops']}; {source['connections']} connections, {source['malformed']} malformed, "
              f"{source['bad_crc']} wrong CRCs; {samples[0]} at first, {samples[-1]} at last", flush=True)
    except BaseException:
        print("".join(world.said[-20:]), flush=True)
        raise
    finally:
        if isinstance(world.sender, Wild):
            world.sender.end()
        for child in [*world.children, world.run.process]:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            child.wait()


if __name__ == "__main__":
    main()
