# SPDX-License-Identifier: Apache-2.0
"""What tests of the command share: running it, small images, and a runner. Standard library only."""

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import traceback
import zlib
from pathlib import Path

COMMAND = str(Path(sys.argv[1]).resolve())
ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "models"  # those that the expected values are of; better ones may ship
DETECTOR, SEGMENTER = GOLDEN / "dfine_n_bone_320.safetensors", GOLDEN / "mobile_sam_bone_256.safetensors"


def named_as_those_that_ship():
    folder = Path(COMMAND).parent / "golden_models"
    folder.mkdir(exist_ok=True)
    for model, name in ((DETECTOR, "dfine_n_bone_320.safetensors"), (SEGMENTER, "mobile_sam_bone_384.safetensors")):
        link = folder / f"{name}.{os.getpid()}"  # tests run beside each other
        link.symlink_to(model)
        link.replace(folder / name)
    return folder


MODELS = named_as_those_that_ship()
# Without a GPU, so that the default device is the same everywhere.
ENVIRONMENT = {**os.environ, "ULTRAMOTION_MODELS": str(MODELS), "CUDA_VISIBLE_DEVICES": "",
               "XDG_CACHE_HOME": str(Path(COMMAND).parent / "cache")}
TESTS = []


class Skip(Exception):
    """Raised by a test that lacks what it needs; says what."""


def test(function):
    TESTS.append(function)
    return function


def um(*arguments, code=0, stdin=None, env=None, cwd=None):
    """Run the command; check its exit code; return stdout, stderr."""
    environment = {**ENVIRONMENT, **(env or {})}
    done = subprocess.run([COMMAND, *map(str, arguments)], input=stdin, capture_output=True, env=environment, cwd=cwd, timeout=300)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == code, f"{arguments}: exit {done.returncode}, want {code}\n{err}"
    return out, err


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def png(path, width, height, value=lambda x, y: (x * 7 + y * 13) % 256, bits=8, color=0):
    """A PNG written by hand: gray of 8 bits, or another whose pixels are given as bytes."""
    row = bytes if (bits, color) == (8, 0) else b"".join
    rows = b"".join(b"\0" + row(value(x, y) for x in range(width)) for y in range(height))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)) +
                     chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def gray(path):
    """Rows of an 8-bit gray PNG that um_image_write_png() or Pillow wrote."""
    data, width, height, body = path.read_bytes(), 0, 0, b""
    at = 8
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"IHDR":
            width, height, depth, color = struct.unpack(">IIBB", data[at + 8:at + 18])
            assert (depth, color) == (8, 0)
        if kind == b"IDAT":
            body += data[at + 8:at + 8 + n]
        at += 12 + n
    raw, rows, above = zlib.decompress(body), [], bytearray(width)
    for y in range(height):
        kind, row = raw[y * (width + 1)], bytearray(raw[y * (width + 1) + 1:(y + 1) * (width + 1)])
        for x in range(width):
            a, b, c = (row[x - 1] if x else 0), above[x], (above[x - 1] if x else 0)
            p = a + b - c
            nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            row[x] = (row[x] + (0, a, b, (a + b) // 2, nearest)[kind]) & 255
        rows.append(bytes(row))
        above = row
    return rows


def write_tiff(path, pages):
    """Gray pages of 8 bits, or of 16 where samples are tuples."""
    data, link = b"II*\0" + bytes(4), 4
    for rows in pages:
        wide = not isinstance(rows[0], bytes)
        place, body = len(data), b"".join(struct.pack(f"<{len(r)}H", *r) if wide else r for r in rows)
        data += body + b"\0" * (len(body) % 2)
        entries = ((256, len(rows[0])), (257, len(rows)), (258, 16 if wide else 8), (259, 1), (262, 1), (273, place), (277, 1), (278, len(rows)),
                   (279, len(body)))
        data = data[:link] + struct.pack("<I", len(data)) + data[link + 4:]
        data += struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in entries)
        link = len(data)
        data += bytes(4)
    path.write_bytes(data)


def main():
    """Run the tests, or those named on the command line, and exit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs in the background, and so would the command
    passed = failed = skipped = 0
    names = sys.argv[2:]
    for name in set(names) - {function.__name__ for function in TESTS}:
        failed += 1
        print(f"FAILED {name}: no such test")
    for function in TESTS:
        if names and function.__name__ not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                function(Path(folder))
                passed += 1
            except Skip as reason:
                skipped += 1
                print(f"skipped {function.__name__}: {reason}", flush=True)
            except Exception:
                failed += 1
                traceback.print_exc(file=sys.stdout)
                print(f"FAILED {function.__name__}", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)
