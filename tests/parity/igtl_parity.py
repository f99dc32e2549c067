#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""OpenIGTLink against peers that others made.

    igtl_parity.py [--build build]            pyigtl and the reference library (libopenigtlink-dev, if it is installed) as
                                              PlusServer and as 3D Slicer, in both TCP roles; a sender killed 100 times
    igtl_parity.py --oracle DIR [--inputs N]  openigtlink-ng, checked out in DIR: its fixtures, its
                                              negative files, and N inputs of our own, on which both must agree

Images, stamps and geometry must arrive bit for bit; every frame is delivered or counted.
"""
import argparse
import collections
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from crc64 import crc64  # noqa: E402

failures = 0


def check(condition, what):
    global failures
    if not condition:
        failures += 1
        print("FAILED", what)
    return condition


# ---- peers ----

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def connected(port):
    """Has somebody a connection to this port of 127.0.0.1?"""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(local.endswith(f":{port:04X}") and state == "01" for _, local, _, state, *_ in rows)


class Ours:
    """ultramotion in the background; what it says on stderr by the line."""

    def __init__(self, build, *arguments):
        self.process = subprocess.Popen([str(build / "ultramotion"), *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.said = []
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stderr:
            self.said.append(line)

    def wait_for(self, pattern, seconds=60):
        end = time.time() + seconds
        while not any(re.search(pattern, line) for line in list(self.said)):
            if time.time() > end:
                raise SystemExit(f"ultramotion did not say {pattern}: {''.join(self.said)}")
            time.sleep(0.02)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)
        time.sleep(0.1)
        return "".join(self.said)


def frames(build, n):
    """Phantom frames as arrays, from the command itself."""
    import numpy
    from PIL import Image
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"um_igtl_{os.getpid()}"
    subprocess.run([str(build / "ultramotion"), "phantom", "-o", str(folder), "--frames", str(n), "-q"], check=True)
    return [numpy.asarray(Image.open(p)) for p in sorted((folder / "frames").glob("*.png"))]


def send(peer, pyigtl, sent, i, matrix):
    import numpy
    stamp = 1700000000 + i / 8  # as a double to the bit
    pose = numpy.eye(4, dtype=numpy.float32)
    pose[0, 3] = i
    for message in (pyigtl.TransformMessage(pose, timestamp=stamp, device_name="ProbeToReference"),
                    pyigtl.ImageMessage(sent[None], ijk_to_world_matrix=matrix, world_coordinate_system="ras", timestamp=stamp,
                                        device_name="Image_Reference")):
        peer.send_message(message, wait=True)
    return stamp


def exchange(build, plus_listens, slicer_listens):
    """pyigtl -> ultramotion serve -> pyigtl."""
    import numpy
    import pyigtl
    print(f"pyigtl {'listens' if plus_listens else 'connects'} -> serve -> pyigtl {'listens' if slicer_listens else 'connects'}")
    inward, outward = free_port(), free_port()
    plus = pyigtl.OpenIGTLinkServer(port=inward, local_server=True) if plus_listens else None
    slicer = pyigtl.OpenIGTLinkServer(port=outward, local_server=True) if slicer_listens else None
    source = f"igtl://127.0.0.1:{inward}" if plus_listens else f"igtl-listen:127.0.0.1:{inward}"
    sink = f"igtl-connect:127.0.0.1:{outward}?relay=all" if slicer_listens else f"igtl:127.0.0.1:{outward}?relay=all"
    source += ("?" if "?" not in source else "&") + "idle-ms=0"
    ours = Ours(build, "serve", source, "-o", sink, "--track", "0", "--threads", "1", "--device", "cpu")
    if plus_listens:
        ours.wait_for("connected")
    else:
        time.sleep(0.5)
        plus = pyigtl.OpenIGTLinkClient(port=inward)
        ours.wait_for("connected")
    if not slicer_listens:
        slicer = pyigtl.OpenIGTLinkClient(port=outward)
    ours.wait_for("client ")
    matrix = numpy.array([[.1, .02, 0, 3.5], [-.03, .12, 0, -7.25], [0, 0, 1, .125], [0, 0, 0, 1]], dtype=numpy.float32)
    frames_sent = frames(build, 4)
    for i, sent in enumerate(frames_sent):
        stamp = send(plus, pyigtl, sent, i, matrix)
        image = slicer.wait_for_message("Image_Reference", timeout=60)
        mask = slicer.wait_for_message("Mask_Reference", timeout=60)
        state = slicer.wait_for_message("State", timeout=60)
        pose = slicer.wait_for_message("ProbeToReference", timeout=60)
        if not check(image and mask and state and pose, f"frame {i}: image, mask, state and pose arrive"):
            break
        check(numpy.array_equal(image.image[0], sent), "pixels come back as they went")
        check(mask.image.shape == sent[None].shape and mask.image.dtype == numpy.uint8, "the mask is as large as the image")
        check(mask.timestamp == stamp and image.timestamp == stamp and pose.timestamp == stamp, "one stamp for all")
        check(numpy.array_equal(mask.ijk_to_world_matrix, image.ijk_to_world_matrix), "the mask lies where the image lies")
        check(numpy.allclose(mask.ijk_to_world_matrix, matrix, atol=1e-5), "and that is where it was sent from")
        check(pose.matrix[0, 3] == i, "the pose of that frame")
        check(set(numpy.unique(mask.image)) <= {0, 1}, "0 and 1")
        check(state.string in ("VISIBLE", "LOST"), "the state")
        check((state.string == "VISIBLE") == bool(mask.image.any()), "a mask when VISIBLE only")
    said = ours.stop()
    check(re.search(r"images 4\b", said) is not None, f"every image is counted: {said}")
    check(ours.process.returncode == 0, "it ends well")
    for peer in (plus, slicer):
        peer.stop()


def accounting(build, fps, n):
    """fake-plus -> serve -> fake-slicer: every frame is delivered or counted."""
    inward, outward = free_port(), free_port()
    print(f"fake-plus at {fps} fps -> serve -> fake-slicer")
    serve = Ours(build, "serve", f"igtl://127.0.0.1:{inward}", "-o", f"igtl:127.0.0.1:{outward}", "--threads", "1", "--device", "cpu")
    serve.wait_for("trying|nobody")
    slicer = subprocess.Popen([str(build / "ultramotion"), "igtl", "fake-slicer", f"127.0.0.1:{outward}", "-q"], stdout=subprocess.PIPE, text=True)
    serve.wait_for("client ")
    plus = Ours(build, "igtl", "fake-plus", f":{inward}", f"phantom:seed=1,frames={n}", "--fps", str(fps))
    plus.process.wait(600)
    time.sleep(3)
    said = serve.stop()
    slicer.send_signal(signal.SIGINT)
    messages = [json.loads(line) for line in slicer.communicate()[0].splitlines()]
    masks = [m for m in messages if m["device"] == "Mask_Reference" and m["type"] == "IMAGE"]

    def counted(name):
        found = re.search(rf"\b{name} (\d+)", said)
        return int(found.group(1)) if found else 0
    done = int(re.search(r"frames +(\d+):", said).group(1))
    replaced = re.search(r"(\d+) replaced by a newer one", said)
    replaced = int(replaced.group(1)) if replaced else 0
    check(counted("images") == n, f"{n} sent, {counted('images')} came")
    check(done + replaced == n, f"{n} came, {done} done, {replaced} replaced")
    check(len(masks) + counted("dropped") == done, f"{done} done, {len(masks)} at the client, {counted('dropped')} dropped")
    stamps = [m["stamp"] for m in masks]
    check(stamps == sorted(stamps) and len(set(stamps)) == len(stamps), "in order, none twice")
    print(f"  {n} sent, {done} done, {replaced} replaced, {len(masks)} delivered")


def reference(build):
    """The reference library as PlusServer and as Slicer."""
    header = Path("/usr/include/openigtlink/igtlMessageBase.h")
    if not header.exists():
        print("skipped the reference library: no libopenigtlink-dev")
        return
    peer = build / "igtl_reference"
    subprocess.run(["g++", "-std=c++14", "-O1", "-w", "-I", str(header.parent), str(ROOT / "tests/parity/igtl_reference.cpp"), "-o", str(peer),
                    "-lOpenIGTLink", "-lpthread"], check=True)
    n = 3
    for plus_role, slicer_role in (("listen", "connect"), ("listen", "listen"), ("connect", "connect"), ("connect", "listen")):
        print(f"the reference {plus_role}s -> serve -> the reference {slicer_role}s")
        inward, outward = free_port(), free_port()
        source = f"igtl://127.0.0.1:{inward}" if plus_role == "listen" else f"igtl-listen:127.0.0.1:{inward}"
        sink = f"igtl-connect:127.0.0.1:{outward}" if slicer_role == "listen" else f"igtl:127.0.0.1:{outward}"
        ours = Ours(build, "serve", source, "-o", sink + "?relay=all", "--track", "0", "--threads", "1", "--device", "cpu")
        ours.wait_for("device cpu")
        slicer = subprocess.Popen([str(peer), "slicer", slicer_role, str(outward), str(n)], stdout=subprocess.PIPE, text=True)
        ours.wait_for("client ")
        plus = subprocess.Popen([str(peer), "plus", plus_role, str(inward), str(n)], stdout=subprocess.DEVNULL)
        out, _ = slicer.communicate(timeout=120)
        plus.kill()
        said = ours.stop()
        got = [line.split(" ", 3) for line in out.splitlines()]
        for i in range(n):
            at = {g[1]: g[3] for g in got if len(g) == 4 and g[2] == "good" and g[3].startswith(f"{1700000000 + i}.")}
            if not check({"Image_Reference", "Mask_Reference", "Box", "State", "ProbeToReference"} <= set(at), f"frame {i} is whole: {out} {said}"):
                break
            check(len({line.split()[0] for line in at.values()}) == 1, f"one stamp for all: {at}")
            image, mask = at["Image_Reference"].split(" most "), at["Mask_Reference"].split(" most ")
            check(image[1].endswith("wrong 0"), f"pixels bit for bit: {image}")
            check(image[0] == mask[0], f"the mask lies where the image lies: {image[0]}, {mask[0]}")
            check("422x558x1 0.25,0.5,1 0.8,0.6,0,4.5" in image[0], f"where it was sent from: {image[0]}")
            check(at["ProbeToReference"].endswith(f" {i}"), "the pose of that frame")
            check(at["State"].endswith(("VISIBLE", "LOST")), "the state")
        check("BAD" not in out, "every CRC is right")


def killed(build, times):
    """A sender that is killed comes back, and so do we."""
    print(f"fake-plus killed {times} times")
    inward = free_port()
    serve = Ours(build, "serve", f"igtl://127.0.0.1:{inward}", "-o", "null:", "--threads", "1", "--device", "cpu")
    for _ in range(times):
        plus = subprocess.Popen([str(build / "ultramotion"), "igtl", "fake-plus", f":{inward}", "phantom:seed=1,frames=2", "--loop", "--fps", "50", "-q"])
        end = time.time() + 30
        while not connected(inward) and time.time() < end:  # what it says of comings and goings it says seldom
            time.sleep(0.01)
        time.sleep(0.1)
        plus.kill()
        plus.wait()
    said = serve.stop()
    check(f"connections {times}" in said and f"lost {times}" in said, f"{times} connections: {said[-600:]}")
    check(serve.process.returncode == 0, "it ends well")


# ---- the oracle ----

KINDS = ("IMAGE", "TRANSFORM", "POSITION", "STATUS", "STRING", "CAPABILITY", "LBMETA")
SCALARS = {2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 4, 10: 4, 11: 8}


def content(draw, kind):
    if kind == "IMAGE":
        scalar, components, size = draw.choice(tuple(SCALARS)), draw.choice((1, 1, 3)), [draw.randint(1, 4) for _ in range(3)]
        n = components * size[0] * size[1] * size[2] * SCALARS[scalar]
        return struct.pack(">HBBBB3H12f6H", 1, components, scalar, draw.choice((1, 2, 3)), draw.choice((1, 2)), *size,
            *[float(draw.randint(-9, 9)) for _ in range(12)], 0, 0, 0, *size) + draw.randbytes(n)
    if kind == "TRANSFORM":
        return struct.pack(">12f", *[float(draw.randint(-9, 9)) for _ in range(12)])
    if kind == "POSITION":
        return struct.pack(">3f", 1, 2, 3) + draw.randbytes(draw.choice((0, 12, 16)))
    if kind == "STATUS":
        return struct.pack(">Hq20s", draw.randint(0, 30), draw.randint(-9, 9), b"NAME") + b"x" * draw.randint(0, 9) + b"\0"
    if kind == "STRING":
        text = draw.randbytes(draw.randint(0, 20))
        return struct.pack(">HH", draw.choice((3, 106)), len(text)) + text
    if kind == "LBMETA":
        return b"".join(struct.pack(">64s20sBB4s3H20s", b"Bone %d" % i, b"Mask", i, 0, draw.randbytes(4), 4, 3, 1, b"Image")
            for i in range(draw.randint(0, 2)))
    return b"".join(name.encode().ljust(12, b"\0") for name in draw.sample(KINDS, draw.randint(0, 3)))


def mutate(draw, data):
    data = bytearray(data)
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3))):
        at = draw.randrange(len(data)) if data else 0
        what = draw.randrange(6)
        if what == 0 and data:
            data[at] = draw.randrange(256)
        elif what == 1 and data:
            data[at] ^= 1 << draw.randrange(8)
        elif what == 2:
            del data[at:at + draw.randint(1, 4)]
        elif what == 3:
            data[at:at] = draw.randbytes(draw.randint(1, 4))
        elif what == 4:
            del data[at:]
        elif data:
            data[at] = draw.choice((0, 1, 0x7f, 0x80, 0xff))
    return bytes(data)


def message(draw):
    kind = draw.choice(KINDS)
    body, version = content(draw, kind), draw.choice((1, 2))
    inner = draw.random() < .5
    if inner:
        body = mutate(draw, body)
    if version == 2:
        pairs = [(b"K%d" % i, b"v" * draw.randint(0, 5)) for i in range(draw.choice((0, 0, 1, 2)))]
        head = struct.pack(">H", len(pairs)) + b"".join(struct.pack(">HHI", len(k), 3, len(v)) for k, v in pairs)
        text = b"".join(k + v for k, v in pairs)
        body = struct.pack(">HHII", 12, len(head), len(text), draw.randrange(1 << 32)) + body + head + text
    if not inner:
        body = mutate(draw, body)
    wire = struct.pack(">H12s20sQQQ", version, kind.encode(), b"Device", draw.randrange(1 << 64), len(body), crc64(body)) + body
    return mutate(draw, wire) if draw.random() < .1 else wire


# ---- what they read, in the words of tests/igtl_verdict.c ----

def floats(values):
    return [struct.pack(">f", v).hex() if v == v else "nan" for v in values]


def text(value):
    """Of a field: it ends at its first zero."""
    return (value.encode() if isinstance(value, str) else value).split(b"\0")[0].hex()


def triple(values):
    """Sizes of 16 bits, which the oracle gives as numbers."""
    return ",".join(str(v) for v in values)


def read_by_them(kind, body):
    if kind == "IMAGE":
        return [str(body[k]) for k in ("num_components", "scalar_type", "endian", "coord")] + [
            triple(body[k]) for k in ("size", "subvol_offset", "subvol_size")] + floats(body["matrix"]) + [body["pixels"].hex()]
    if kind == "TRANSFORM":
        return floats(body["matrix"][i % 4 * 3 + i // 4] for i in range(12))
    if kind == "POSITION":
        rest = body["quaternion"]
        return floats(body["position"]) + floats(struct.unpack(f">{len(rest) // 4}f", rest))
    if kind == "STATUS":
        return [str(body["code"]), str(body["subcode"]), text(body["error_name"]), text(body["status_message"])]
    if kind == "STRING":
        return [str(body["encoding"]), body["value"].hex()]
    if kind == "CAPABILITY":
        return [str(len(body["supported_types"]))]
    return [word for at in body["labels"] for word in (text(at["name"]), text(at["device_name"]), str(at["label"]),
        bytes(at["rgba"]).hex(), triple(at["size"]), text(at["owner"]))]


def same(theirs, line):
    """Both refuse, or both read the same, of types that are skipped all but their content."""
    if line[0] == "0" or not theirs.ok:
        return line[0] == "0" and not theirs.ok
    head, _, mine = line.partition(" |")
    words = head.split(" ")[1:]
    pairs = []
    for word in words[3:]:
        key, encoding, value = word.split(":")
        pairs.append((bytes.fromhex(key).decode("utf-8", errors="replace"), int(encoding), bytes.fromhex(value)))
    message_id = theirs.extended_header["message_id"] if theirs.extended_header else 0
    return (words[:3] == [text(theirs.device_name), f"{theirs.header['timestamp']:x}", f"{message_id:x}"] and pairs == theirs.metadata and
            (line[0] == "2" or mine == "".join(" " + word for word in read_by_them(theirs.type_id, theirs.body))))


# ---- the oracle, with all that its specification says ----

class Parts:
    """A message of version 2 that the oracle reads, or of version 1: what its codec leaves unchecked of it."""

    def __init__(self, data):
        self.version, self.kind, self.device, self.stamp, size, _ = struct.unpack_from(">H12s20sQQQ", data)
        self.content, self.extended, self.meta = data[58:58 + size], b"", b""
        if self.version >= 2:
            extended, head, self.text_size = struct.unpack_from(">HHI", self.content)
            end = size - head - self.text_size
            self.extended, self.content, self.meta = self.content[:extended], self.content[extended:end], self.content[end:]
            self.head = self.meta[:head]
        self.name = self.kind.split(b"\0")[0].decode("latin-1")

    def with_content(self, kind, content):
        body = self.extended + content + self.meta
        return struct.pack(">H12s20sQQQ", self.version, kind, self.device, self.stamp, len(body), crc64(body)) + body


def metadata_fits(p):
    pairs = struct.unpack_from(">H", p.head)[0] if p.version >= 2 and len(p.head) >= 2 else 0
    return sum(sum(struct.unpack_from(">HxxI", p.head, 2 + 8 * i)) for i in range(pairs)) <= (p.text_size if pairs else 0)


# What the oracle's specification demands and its codec does not look at: where that stands, the words, what sees it.
DEMANDED = (
    ("framing_metadata.json", "Receivers MUST validate this sum against the declared metadata_size", metadata_fits),
    ("image.json", "Receivers MUST reject headers whose `header_version` they do not implement",
     lambda p: p.name != "IMAGE" or p.content[:2] == b"\0\1"),
    ("image.json", "Must be > 0", lambda p: p.name != "IMAGE" or p.content[2] != 0),
)
# What it leaves open and we refuse, as our own specification has it.
OPEN = (
    ("a header of version 3", lambda p: p.version == 3),
    ("an image of 255 components", lambda p: p.name == "IMAGE" and p.content[2] == 255),
)


FRAMING = ("too short", "header parse", "truncated", "CRC", "extended header", "framing", "metadata")


class Judge:
    """The oracle's verdict on a message, as far as we read it: of types that we skip by their size, on all but their content."""

    def __init__(self, folder, read):
        self.read, self.refused, self.skipped = read, collections.Counter(), 0
        for name, words, _ in DEMANDED:
            found = (folder / "spec" / "schemas" / name).read_text()
            check(words in found, f"{name} says: {words}")

    def __call__(self, data):
        theirs = self.read(data)
        if theirs.header and theirs.type_id not in KINDS and not theirs.error.startswith(FRAMING):
            self.skipped += 1
            theirs = self.read(Parts(data).with_content(b"POSITION", bytes(12)))
        if theirs.ok:
            parts = Parts(data)
            for name, words, holds in DEMANDED:
                if not holds(parts):
                    self.refused[f"{name}: {words}"] += 1
                    theirs.ok, theirs.error = False, words
                    break
        return theirs


def oracle(build, folder, inputs, seed):
    sys.path.insert(0, str(folder / "corpus-tools" / "src"))
    os.chdir(folder)
    from oigtl_corpus_tools.codec.oracle import verify_wire_bytes
    ours = subprocess.Popen([str(build / "igtl_verdict")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1 << 16)

    def verdict(batch):
        def write():
            ours.stdin.write("".join(data.hex() + "\n" for data in batch))
            ours.stdin.flush()
        writer = threading.Thread(target=write)
        writer.start()
        lines = [ours.stdout.readline().rstrip("\n") for _ in batch]
        writer.join()
        return lines

    judge, corpus = Judge(folder, verify_wire_bytes), folder / "spec" / "corpus"
    fixtures = json.loads((corpus / "upstream-fixtures.json").read_text())
    entries = fixtures.get("fixtures", fixtures)
    good = []
    for name, entry in (entries.items() if isinstance(entries, dict) else enumerate(entries)):
        digits = entry if isinstance(entry, str) else next((v for k, v in entry.items() if "hex" in k), None)
        if digits and re.fullmatch(r"[0-9a-fA-F]+", digits):
            good.append((name, bytes.fromhex(digits)))
    contents = 0
    for (name, data), line in zip(good, verdict([data for _, data in good])):
        contents += line[0] == "1"
        check(same(judge(data), line), f"fixture {name}: {line}")
    negative = json.loads((corpus / "negative" / "index.json").read_text())["entries"]
    refused = other = 0
    for name, entry in negative.items():
        data = (corpus / "negative" / entry["path"]).read_bytes()
        if entry["path"].startswith("content/") and data[2:14].rstrip(b"\0").decode("latin-1") not in KINDS:
            other += 1  # wrong in what we do not read
            continue
        refused += check(verdict([data])[0][0] == "0", f"negative file {name} is refused")
    check(len(good) > 0 and refused > 0, "fixtures and negative files are there")
    print(f"  {len(good)} fixtures taken, {contents} of them of types that we read, with the same values; "
          f"{refused} negative files refused, {other} are about types that we skip")
    draw, done, agreed, accepted, left_open = random.Random(seed), 0, 0, 0, collections.Counter()
    while done < inputs:
        batch = [message(draw) for _ in range(min(1000, inputs - done))]
        done += len(batch)
        for data, line in zip(batch, verdict(batch)):
            theirs = judge(data)
            if same(theirs, line):
                agreed += 1
                accepted += theirs.ok
                continue
            why = next((what for what, so in OPEN if line[0] == "0" and theirs.ok and so(Parts(data))), None)
            if check(why, f"{data.hex()}: we say {line}, they {theirs.ok} {theirs.error}"):
                left_open[why] += 1
            elif failures > 20:
                sys.exit("too many")
    print(f"  {inputs} inputs: on {agreed} we agree ({accepted} read, with the same values), {left_open.total()} are left open by the "
          f"specification and refused by ours, {inputs - agreed - left_open.total()} differ")
    for why, n in left_open.most_common():
        print(f"  {n:7} {why}")
    print(f"  {judge.skipped} of types that we skip by their size; refused by what the oracle's specification demands and its codec leaves unchecked:")
    for words, n in judge.refused.most_common():
        print(f"  {n:7} {words}")
    ours.stdin.close()
    ours.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--oracle", type=Path)
    parser.add_argument("--inputs", type=int, default=1000000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--only", help="pyigtl, reference, killed or accounting")
    o, _ = parser.parse_known_args()
    o.build = o.build.resolve()
    if o.oracle:
        oracle(o.build, o.oracle.resolve(), o.inputs, o.seed)
    else:
        if o.only in (None, "pyigtl"):
            for plus_listens in (True, False):
                for slicer_listens in (False, True):
                    exchange(o.build, plus_listens, slicer_listens)
        if o.only in (None, "reference"):
            reference(o.build)
        if o.only in (None, "killed"):
            killed(o.build, 100)
        if o.only in (None, "accounting"):
            for fps in (25, 60):
                accounting(o.build, fps, o.frames)
    print(f"{'FAILED' if failures else 'passed'} igtl_parity")
    sys.exit(bool(failures))


main()
