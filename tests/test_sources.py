#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What users bring, given to the command: test_sources.py COMMAND [TEST…]. Each kind is right, or answered by one sentence."""

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib

from command import DETECTOR, ROOT, gray, lines, main, png, test, um, write_tiff

GOLDEN = ROOT / "tests" / "golden"
FRAME = GOLDEN / "end_to_end" / "phantom_0.png"
HELP = um("--help")[0]
TIFF, VIDEOS = "TIFF" in HELP, "videos" in HELP


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path, rows, extra=b"", scale=0):
    """Gray; with a scale of 16 bits, each sample times it."""
    def packed(r):
        return struct.pack(f">{len(r)}H", *(v * scale for v in r)) if scale else r

    body = zlib.compress(b"".join(b"\0" + packed(r) for r in rows), 1)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", len(rows[0]), len(rows), 16 if scale else 8, 0, 0, 0, 0)) +
                     extra + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def write_bmp(path, rows):
    width, height = len(rows[0]), len(rows)
    body = b"".join(bytes(v for g in r for v in (g, g, g)) + b"\0" * (-3 * width % 4) for r in reversed(rows))
    path.write_bytes(b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) +
                     body)


def exif(orientation):
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)


def box(source, *options):
    out, err = um("detect", source, *options)
    return [line["boxes"][0]["box_xyxy"] if line["boxes"] else None for line in lines(out)], err


def near(a, b, tolerance=1.5):
    return a is not None and max(abs(x - y) for x, y in zip(a, b)) <= tolerance


@test
def images_are_turned(tmp):
    rows, (want, *_) = gray(FRAME), box(FRAME)[0]
    write_png(tmp / "6.png", [bytes(c) for c in zip(*rows)][::-1], chunk(b"eXIf", exif(6)))  # a quarter to the left
    write_png(tmp / "3.png", [r[::-1] for r in rows[::-1]], chunk(b"eXIf", exif(3)))
    write_png(tmp / "2.png", [r[::-1] for r in rows], chunk(b"eXIf", exif(2)))
    found, err = box(tmp)
    assert len(found) == 3 and all(near(b, want, .01) for b in found), (found, want)
    assert err.count("turned by its orientation") == 1 and "3 files were turned" in err, err
    _, err = um("run", tmp, "-o", f"dir:{tmp}/out", "-q")
    assert err == "" and len(gray(tmp / "out" / "6_mask.png")) == len(rows)
    # as a phone writes it
    found, err = box(GOLDEN / "image" / "turned6.jpg")
    assert len(found) == 1 and "turned6.jpg: turned by its orientation (6)" in err, err


@test
def few_bits_in_sixteen(tmp):
    rows, (want, *_) = gray(FRAME), box(FRAME)[0]
    for bits, scale in ((8, 1), (10, 4), (12, 16)):
        said, plain = tmp / f"said{bits}.png", tmp / f"plain{bits}.png"
        write_png(said, rows, chunk(b"sBIT", bytes([bits])), scale)
        write_png(plain, rows, scale=scale)
        found, err = box(said)
        assert near(found[0], want) and f"samples of {bits} bits in 16" in err, (bits, found, err)
        most = max(max(r) for r in rows) * scale
        _, err = box(plain)
        assert f"none is over {most} of 65535" in err and "--window auto" in err, err
        for window in ("auto", f"0,{most}", f"0,{256 * scale - 1}"):
            found, err = box(plain, "--window", window)
            assert near(found[0], want) and "warning" not in err, (bits, window, found, err)
    if TIFF:
        write_tiff(tmp / "wide.tif", [[tuple(16 * v for v in r) for r in rows]])
        found, err = box(tmp / "wide.tif", "--window", "0,4080")
        assert near(found[0], want, .01), found
        _, err = box(tmp / "wide.tif")
        assert "none is over" in err
    for bad in ("5", "5,5", "6,5", "-1,5", "0,65536", "0.5,9", "0,5,6", "Auto", ""):
        _, err = um("detect", FRAME, "--window", bad, code=2)
        assert "--window" in err


@test
def names_stay_apart(tmp):
    rows = [r[::-1] for r in gray(FRAME)]
    for folder in ("p1", "p2/p1"):
        (tmp / "in" / folder).mkdir(parents=True)
        write_png(tmp / "in" / folder / "frame.png", rows)
    write_bmp(tmp / "in" / "p1" / "frame.bmp", rows)
    out, _ = um("run", tmp / "in", "--recursive", "-o", f"dir:{tmp}/out", "-o", "jsonl:-")
    sources = [p["source"] for p in lines(out)]
    assert sources == ["p1/frame.bmp", "p1/frame.png", "p2/p1/frame.png"], sources
    names = sorted(str(p.relative_to(tmp / "out")) for p in (tmp / "out").rglob("*_mask.png"))
    assert names == ["p1/frame.bmp_mask.png", "p1/frame.png_mask.png", "p2/p1/frame_mask.png"], names
    _, err = um("run", tmp / "in", code=1)
    assert "no image in this folder" in err and "2 folders (--recursive looks into them)" in err, err


@test
def folders_may_be_called_like_images(tmp):
    for folder in ("study.avi", "patient.tif", "scan.png"):
        (tmp / "in" / folder).mkdir(parents=True)
        write_png(tmp / "in" / folder / "1.png", gray(FRAME))
    (tmp / "in" / "link.png").symlink_to("scan.png")
    out, err = um("detect", tmp / "in", "--recursive")
    assert [line["source"] for line in lines(out)] == ["patient.tif/1.png", "scan.png/1.png", "study.avi/1.png"] and "unreadable" not in err, err
    _, err = um("detect", tmp / "in", code=1)
    assert "no image in this folder" in err and "3 folders (--recursive looks into them)" in err, err
    for pattern in ("in/**/*.png", "in/**", "**"):
        _, err = um("detect", pattern, cwd=tmp, code=2)
        assert f"{pattern}: \"**\" means nothing here" in err and "--recursive" in err, err
    out, _ = um("detect", "in/*/**.png", cwd=tmp)
    assert len(lines(out)) == 3 + 1  # the link, too


@test
def folders_say_what_they_passed_over(tmp):
    rows = gray(FRAME)
    write_png(tmp / "a.png", rows)
    write_bmp(tmp / "b.bmp", rows)
    write_tiff(tmp / "c.tif", [rows])
    for name in ("d.dcm", "IM0001"):
        (tmp / name).write_bytes(bytes(128) + b"DICM" + bytes(50))
    (tmp / "e.webp").write_bytes(b"RIFF\x20\0\0\0WEBPVP8 " + bytes(20))
    (tmp / "f.jp2").write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20))
    out, err = um("detect", tmp)
    boxes = [line["boxes"][0]["box_xyxy"] for line in lines(out)]
    assert len(boxes) == 2 + TIFF and all(b == boxes[0] for b in boxes)
    said = next(line for line in err.splitlines() if "passed over" in line)
    for part in ("2 DICOM (", "pip install ./python[dicom]", "1 WebP", "1 JPEG 2000") + (() if TIFF else ("TIFF",)):
        assert part in said, said
    _, err = um("run", tmp, "--frames", "1", "-o", "null:")
    assert "2 DICOM (" in err
    _, err = um("detect", tmp, "-q")
    assert err == ""
    # pixels that are read with their header are not
    (tmp / "scans").mkdir()
    (tmp / "scans/a.b.mhd").write_text("NDims = 2\nDimSize = 32 32\nElementType = MET_UCHAR\nElementDataFile = a.b.raw\n")
    (tmp / "scans/a.b.raw").write_bytes(bytes(32 * 32))
    (tmp / "scans/other.raw").write_bytes(bytes(9))
    out, err = um("detect", tmp / "scans")
    assert len(lines(out)) == 1 and "passed over: 1 .raw file\n" in err, err


@test
def results_among_images_are_told(tmp):
    """Of an earlier run into the same folder, or the masks of a dataset, as val reads it."""
    png(tmp / "a.png", 96, 80)
    png(tmp / "the_mask.png", 96, 80)  # of nothing that is there
    _, err = um("detect", tmp)
    assert "warning" not in err, err
    um("run", tmp, "-o", f"dir:{tmp}")
    out, err = um("detect", tmp)
    want = f"ultramotion: {tmp}: warning: read as images, too: 4 called like the mask or outline of another (a_mask.png): keep those"
    assert len(lines(out)) == 6 and err.count("warning") == 1 and want in err, err
    for name in ("one.mha", "one_00000_mask.png"):
        (tmp / "of").mkdir(exist_ok=True)
        if name.endswith(".png"):
            png(tmp / "of" / name, 96, 80)
        else:
            (tmp / "of" / name).write_bytes(b"NDims = 3\nDimSize = 96 80 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n" + bytes(96 * 80))
    assert "1 called like" in um("detect", tmp / "of")[1]
    (tmp / "list.txt").write_text("a.png\na_mask.png\n")
    for meant in (tmp / "a_mask.png", f"@{tmp}/list.txt"):
        assert "warning" not in um("detect", meant)[1]


@test
def an_animated_png_is_told(tmp):
    rows = gray(FRAME)
    control = struct.pack(">IIIIIHHBB", 0, len(rows[0]), len(rows), 0, 0, 1, 20, 0, 0)
    animation = chunk(b"acTL", struct.pack(">II", 5, 0))
    write_png(tmp / "loop.png", rows, animation + chunk(b"fcTL", control))
    write_png(tmp / "card.png", rows, animation)
    _, err = um("detect", tmp / "loop.png")
    assert "loop.png: an animated PNG of 5 frames, of which only the still image is read: " in err, err
    _, err = um("detect", tmp / "card.png")
    assert "is read, and it is none of them" in err, err


@test
def lists_are_read_in_their_order(tmp):
    rows = gray(FRAME)
    (tmp / "x").mkdir()
    write_bmp(tmp / "x" / "2.bmp", rows)
    write_png(tmp / "x" / "1.png", rows)
    (tmp / "list.txt").write_text("x/2.bmp\nx/none.png\n\nx/1.png\n")
    out, err = um("run", f"@{tmp}/list.txt", "-o", "jsonl:-", "-o", f"dir:{tmp}/out", cwd="/")
    assert [(p["frame_id"], p["source"]) for p in lines(out)] == [(0, "2.bmp"), (2, "1.png")] and "none.png" in err
    assert (tmp / "out" / "2_mask.png").exists()
    out, _ = um("detect", "@list.txt", cwd=tmp)
    assert len(lines(out)) == 2
    _, err = um("detect", f"@{tmp}/none.txt", code=1)
    assert "none.txt" in err


@test
def pages_come_in_order(tmp):
    if not TIFF:
        _, err = um("detect", GOLDEN / "image" / "pages.tif", code=1)
        assert "built without libtiff" in err or "made without libtiff" in err, err
        return
    rows = gray(FRAME)
    pages = [rows, [r[::-1] for r in rows], [bytes(len(r)) for r in rows]]
    write_tiff(tmp / "cine.tif", pages)
    out, _ = um("run", tmp / "cine.tif", "-o", "jsonl:-", "-o", f"dir:{tmp}/out", "--conf", "0.3")
    packets = lines(out)
    assert [p["frame_id"] for p in packets] == [0, 1, 2] and {p["source"] for p in packets} == {"cine.tif"}
    (want, *_), width = box(FRAME)[0], len(rows[0])
    assert near(packets[0]["box_xyxy"], want, .001) and packets[2]["box_xyxy"] is None
    mirrored = packets[1]["box_xyxy"]
    assert near([width - mirrored[2], mirrored[1], width - mirrored[0], mirrored[3]], want, 12), (mirrored, want)
    assert sorted(p.name for p in (tmp / "out").glob("*_mask.png")) == [f"cine_{i:05d}_mask.png" for i in range(3)]
    data = (tmp / "cine.tif").read_bytes()
    (tmp / "cut.tif").write_bytes(data[:len(data) // 2])
    out, err = um("detect", tmp / "cut.tif")
    assert len(lines(out)) == 1 and "cut.tif: page 2: bad TIFF" in err, err


def write_stack(path, pages, order, description, extra=(), photometric=1, samples=1):
    """ImageJ's way: one directory, and all pages' samples of 16 bits one after the other."""
    text, body = description.encode() + b"\0", b"".join(struct.pack(f"{order}{len(r)}H", *r) for rows in pages for r in rows)
    height, width = len(pages[0]), len(pages[0][0]) // samples
    entries = ((256, 4, 1, width), (257, 4, 1, height), (258, 4, 1, 16), (259, 4, 1, 1), (262, 4, 1, photometric), (270, 2, len(text), 8),
               (273, 4, 1, 8 + len(text)), (277, 4, 1, samples), (278, 4, 1, height), (279, 4, 1, 2 * width * height * samples), *extra)
    directory = struct.pack(order + "H", len(entries)) + b"".join(struct.pack(order + "HHII", *e) for e in entries) + bytes(4)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    path.write_bytes(mark + struct.pack(order + "I", 8 + len(text) + len(body)) + text + body + directory)


@test
def a_stack_of_imagej_has_all_its_pages(tmp):
    if not TIFF:
        return
    rows = gray(FRAME)
    wide = [[257 * v for v in r] for r in rows]
    pages, (want, *_) = [wide, [r[::-1] for r in wide], wide], box(FRAME)[0]
    for order in "<>":
        write_stack(tmp / "stack.tif", pages, order, "ImageJ=1.54f\nimages=3\nslices=3\n")
        found, err = box(tmp / "stack.tif")
        assert len(found) == 3 and near(found[0], want, .01) and found[2] == found[0] and found[1] != found[0], (found, want)
    write_stack(tmp / "stack.tif", pages, "<", "ImageJ=1.54f\nimages=16000000\n")  # a cut one is one error, not millions
    found, err = box(tmp / "stack.tif")
    assert len(found) == 3 and "stack.tif: page 4: bad TIFF: its pixels end early" in err and err.count("page") == 1, err
    write_stack(tmp / "stack.tif", pages[:1], "<", "no stack\nimages=4\n")
    assert len(box(tmp / "stack.tif")[0]) == 1


@test
def what_is_not_read_of_an_image_is_told(tmp):
    rows = gray(FRAME)
    if TIFF:
        three = [[[v for g in r for v in (g, 257, 0)] for r in rows]]
        write_stack(tmp / "three.tif", three, "<", "", samples=3)
        _, err = um("detect", tmp / "three.tif", code=1)
        assert "three.tif: TIFF with 3 samples of gray a pixel is not read" in err, err
        write_stack(tmp / "white.tif", [rows], "<", "", photometric=0)
        assert f"none is over {max(map(max, rows))} of 65535, so the image is nearly white" in box(tmp / "white.tif")[1]
    write_png(tmp / "one.png", rows)
    one = (tmp / "one.png").read_bytes()
    photo = (GOLDEN / "image" / "turned6.jpg").read_bytes()
    for name, data in (("two.png", one + one), ("two.mjpeg", photo + photo), ("two.mpo", photo + bytes(700) + photo)):
        (tmp / name).write_bytes(data)
        out, err = um("detect", tmp / name)
        assert len(lines(out)) == 1 and f"{name}: warning: only its first image is read, another one is behind it" in err, err
    for name, data in (("more.png", one + bytes(700)), ("more.jpg", photo + b"trailer")):
        (tmp / name).write_bytes(data)
        assert "behind" not in um("detect", tmp / name)[1]


@test
def videos_come_with_their_times(tmp):
    if not VIDEOS:
        _, err = um("detect", GOLDEN / "video" / "exact.mkv", code=1)
        assert "install libavformat-dev" in err, err
        _, err = um("run", "phantom:frames=1", "-o", f"video:{tmp}/o.mp4", code=1)
        assert "install libavformat-dev" in err, err
        return
    out, _ = um("detect", GOLDEN / "video" / "intra.mp4")
    assert [round(line["ts"], 6) for line in lines(out)] == [0, .04, .1, .14, .2, .28]
    assert [line["frame_id"] for line in lines(out)] == list(range(6))
    # a run's own video: as many frames, 25 a second, and under the overlay the bone is where it was
    um("run", "phantom:seed=900003,frames=8", "-o", f"video:{tmp}/run.mp4", "-o", f"jsonl:{tmp}/run.jsonl")
    first = lines((tmp / "run.jsonl").read_text())
    out, _ = um("run", tmp / "run.mp4", "-o", "jsonl:-", "-o", f"video:{tmp}/again.mkv", "-o", f"dir:{tmp}/out")
    second = lines(out)
    assert [round(p["ts"], 6) for p in second] == [i / 25 for i in range(8)]
    assert [p["source"] for p in second] == ["run.mp4"] * 8
    close = [near(p["box_xyxy"], q["box_xyxy"], 15) for p, q in zip(first, second) if p["box_xyxy"] and q["box_xyxy"]]
    assert sum(close) >= 5, close
    assert len(list((tmp / "out").glob("run_0000?_mask.png"))) == 8
    out, _ = um("detect", tmp / "again.mkv")
    assert [round(line["ts"], 3) for line in lines(out)] == [i / 25 for i in range(8)]
    # cut in the middle: its frames, then one error
    for name, share in (("intra.avi", .6), ("exact.mkv", .7)):
        data = (GOLDEN / "video" / name).read_bytes()
        (tmp / name).write_bytes(data[:int(len(data) * share)])
        out, err = um("detect", tmp / name, "-q")
        assert 2 <= len(lines(out)) <= 5 and err.count("\n") == 1 and f"{name}: the video breaks off after frame" in err, err


def write_gif(path, rows, frames):
    """Codes of 9 bits, and a clear code before they would grow."""
    codes = []
    for i, v in enumerate(b"".join(rows)):
        codes += ([256] if i % 250 == 0 else []) + [v]
    bits = sum(code << (9 * i) for i, code in enumerate(codes + [257]))
    packed = bits.to_bytes((9 * len(codes) + 9 + 7) // 8, "little")
    blocks = b"".join(bytes([len(packed[i:i + 255])]) + packed[i:i + 255] for i in range(0, len(packed), 255)) + b"\0"
    size = struct.pack("<HH", len(rows[0]), len(rows))
    frame = b"!\xf9\x04\0\4\0\0\0" + b"," + bytes(4) + size + b"\0\x08" + blocks
    colors = bytes(v for g in range(256) for v in (g, g, g))
    path.write_bytes(b"GIF89a" + size + b"\xf7\0\0" + colors + frame * frames + b";")


def flv(rows, times, seconds):
    """Frames of BGR in one block each (Flash Screen Video), at milliseconds."""
    def tag(kind, time, body):
        head = bytes([kind]) + len(body).to_bytes(3, "big") + (time & 0xffffff).to_bytes(3, "big") + bytes(4)
        return head + body + struct.pack(">I", len(head) + len(body))

    block = zlib.compress(b"".join(bytes(v for g in row for v in (g, g, g)) for row in reversed(rows)))
    sides = b"".join(struct.pack(">H", (n // 16 - 1) << 12 | n) for n in (len(rows[0]), len(rows)))
    told = b"\2\0\x0aonMetaData\x08\0\0\0\1\0\x08duration\0" + struct.pack(">d", seconds) + b"\0\0\x09"
    frame = b"\x13" + sides + struct.pack(">H", len(block)) + block
    return b"FLV\1\1\0\0\0\x09\0\0\0\0" + tag(18, 0, told) + b"".join(tag(9, t, frame) for t in times)


def mov(samples, width, height, codec):
    """One chunk of samples, 25 a second."""
    def atom(kind, *parts):
        body = b"".join(parts)
        return struct.pack(">I4s", 8 + len(body), kind) + body

    def full(kind, form, *values):
        return atom(kind, bytes(4), struct.pack(">" + form, *values))

    n = len(samples)
    look = struct.pack(">6xH16xHHII4xH32xHh", 1, width, height, 72 << 16, 72 << 16, 1, 24, -1)
    table = atom(b"stbl", atom(b"stsd", struct.pack(">4xI", 1), atom(codec, look)), full(b"stts", "III", 1, n, 1), full(b"stsc", "IIII", 1, 1, n, 1),
                 full(b"stsz", f"II{n}I", 0, n, *map(len, samples)), full(b"stco", "II", 1, 8))
    media = atom(b"mdia", full(b"mdhd", "IIIII", 0, 0, 25, n, 0), full(b"hdlr", "4s4s13x", b"mhlr", b"vide"),
                 atom(b"minf", full(b"vmhd", "8x"), table))
    head = full(b"tkhd", "IIIII16x9iII", 0, 0, 1, 0, n, 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30, width << 16, height << 16)
    return atom(b"mdat", *samples) + atom(b"moov", full(b"mvhd", "IIII80x", 0, 0, 25, n), atom(b"trak", head, media))


@test
def a_frame_that_a_recorder_dropped_is_none(tmp):
    if not VIDEOS:
        return
    rows = gray(FRAME)
    write_png(tmp / "a.png", rows)
    frame = (tmp / "a.png").read_bytes()
    for name, samples, times in (("all", [frame] * 4, [0, .04, .08, .12]), ("gap", [frame, b"", b"", frame], [0, .12])):
        (tmp / f"{name}.mov").write_bytes(mov(samples, len(rows[0]), len(rows), b"png "))
        out, err = um("detect", tmp / f"{name}.mov", "-q")
        assert [round(line["ts"], 6) for line in lines(out)] == times and not err, (name, err)


@test
def whole_videos_are_not_cut_and_cut_ones_are(tmp):
    if not VIDEOS:
        return
    rows = [bytes((x + y) % 256 for x in range(64)) for y in range(48)]

    def told(path):
        out, err = um("detect", path, "-q")
        return [round(line["ts"], 6) for line in lines(out)], err

    # a first frame that comes late, in a file whose duration counts from 0
    data = (GOLDEN / "video" / "exact.mkv").read_bytes()
    late = data.replace(b"\xe7\x81\0", b"\xe7\x81\x64").replace(struct.pack(">d", 320), struct.pack(">d", 420))
    assert late != data and len(late) == len(data)
    (tmp / "late.mkv").write_bytes(late)
    assert told(tmp / "late.mkv") == ([0, .04, .1, .14, .2, .28], "")
    (tmp / "late.mkv").write_bytes(late[:int(len(late) * .7)])
    assert "breaks off after frame" in told(tmp / "late.mkv")[1]
    # a last frame that stays for three seconds: all bytes are there, or one is not, or the later ones are zeros
    long = data.replace(struct.pack(">d", 320), struct.pack(">d", 3320))
    for content, error in ((long, ""), (long[:-1], "breaks off"), (long[:len(long) // 2] + bytes(len(long) - len(long) // 2), "breaks off")):
        (tmp / "long.mkv").write_bytes(content)
        times, err = told(tmp / "long.mkv")
        assert times == [0, .04, .1, .14, .2, .28][:len(times)] and error in err and bool(error) == bool(err), err
    # the same of FLV, where frames that are shown in another order than they are coded come late
    for times, error in (((80, 120, 160), ""), ((80, 120), "breaks off")):
        (tmp / "late.flv").write_bytes(flv(rows, times, .2))
        found, err = told(tmp / "late.flv")
        assert [round(t, 3) for t in found] == [0, .04, .08][:len(times)] and error in err and bool(error) == bool(err), (found, err)
    # a last page that says so
    data = (GOLDEN / "video" / "pages.ogv").read_bytes()
    for cut in (0, 1, 20, 60, 150):
        (tmp / "a.ogv").write_bytes(data[:len(data) - cut])
        found, err = told(tmp / "a.ogv")
        assert [round(t, 3) for t in found] == [i * .04 for i in range(6)][:len(found)] and len(found) >= 3, found
        assert (cut == 0) == (len(found) == 6 and not err) and (not err or "a.ogv: the video breaks off after frame" in err), (cut, found, err)
    # frames of one size to the end
    frame = b"FRAME\n" + b"".join(rows)
    head = b"YUV4MPEG2 W64 H48 F25:1 Ip A1:1 Cmono\n"
    (tmp / "a.y4m").write_bytes(head + 3 * frame)
    assert told(tmp / "a.y4m") == ([0, .04, .08], "")
    (tmp / "a.y4m").write_bytes(head + 2 * frame + frame[:-9])
    times, err = told(tmp / "a.y4m")
    assert times == [0, .04] and "a.y4m: the video breaks off after frame 2" in err, err
    # a last byte that says so, whatever stands behind it
    write_gif(tmp / "a.gif", rows, 3)
    whole = (tmp / "a.gif").read_bytes()
    assert told(tmp / "a.gif") == ([0, .04, .08], "")
    (tmp / "a.gif").write_bytes(whole + bytes(9))
    assert told(tmp / "a.gif") == ([0, .04, .08], "")
    for cut in (len(whole) - 1, len(whole) - 900):
        (tmp / "a.gif").write_bytes(whole[:cut])
        assert "a.gif: the video breaks off after frame" in told(tmp / "a.gif")[1], cut
    # as many bytes as there should be, the later ones zeros
    data = (GOLDEN / "video" / "intra.avi").read_bytes()
    half = data.index(b"00dc", len(data) // 2)
    (tmp / "zero.avi").write_bytes(data[:half] + bytes(len(data) - half))
    times, err = told(tmp / "zero.avi")
    assert 1 <= len(times) < 6 and "zero.avi: the video breaks off after frame" in err, (times, err)


@test
def frames_that_a_header_leaves_out_are_told(tmp):
    rows, extra = gray(FRAME), b"x" * 100
    frame = b"".join(rows)
    head = f"ObjectType = Image\nNDims = 3\nDimSize = {len(rows[0])} {len(rows)} 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n".encode()
    for frames, behind, said in ((2, b"", 0), (2, extra, 0), (5, extra, 3)):
        (tmp / "a.mha").write_bytes(head + frame * frames + behind)
        out, err = um("detect", tmp / "a.mha")
        assert out.count('"frame_id"') == 2, out
        assert ("a.mha: warning: its header tells of fewer frames than it holds, and the last 3 are not read" in err) == bool(said), err
        assert ("warning" in err) == bool(said), err


@test
def what_a_file_is_its_content_says(tmp):
    rows = gray(FRAME)
    size = f"DimSize = {len(rows[0])} {len(rows)} 1"
    (tmp / "comment.mha").write_bytes(f"Comment = of a phantom\nObjectType = Image\nNDims = 3\n{size}\nElementType = MET_UCHAR\n".encode() +
                                      b"ElementDataFile = LOCAL\n" + b"".join(rows))
    assert near(box(tmp / "comment.mha")[0][0], box(FRAME)[0][0], .01)
    (tmp / "comment.txt").write_text("Comment = of nothing\n")
    assert "a text, not an image" in um("detect", tmp / "comment.txt", code=1)[1]
    if not VIDEOS:
        return
    um("run", "phantom:seed=900003,frames=5", "-o", f"video:{tmp}/run.mp4")
    data = (tmp / "run.mp4").read_bytes()
    at = data.find(b"avcC")
    if at < 0:  # this libav does not write H.264
        return
    at += 4 + 6  # one sequence set, one picture set, each behind its length
    n = struct.unpack(">H", data[at:at + 2])[0]
    sets, at = [data[at + 2:at + 2 + n]], at + 2 + n + 1
    sets.append(data[at + 2:at + 2 + struct.unpack(">H", data[at:at + 2])[0]])
    stream, at = b"".join(b"\0\0\0\1" + s for s in sets), data.index(b"mdat")
    end, at = at - 4 + struct.unpack(">I", data[at - 4:at])[0], at + 4
    while at < end:
        n = struct.unpack(">I", data[at:at + 4])[0]
        stream += b"\0\0\0\1" + data[at + 4:at + 4 + n]
        at += 4 + n
    (tmp / "raw.h264").write_bytes(stream)
    out, err = um("detect", tmp / "raw.h264", "-q")
    assert [round(line["ts"], 3) for line in lines(out)] == [0, .04, .08, .12, .16] and err == "", (out, err)


def wrong_files(folder):
    """Fifty of ten kinds: path -> what the answer must say."""
    files = {}

    def put(name, data, *words):
        (folder / name).write_bytes(data)
        files[folder / name] = words

    def packed(name, write, *words):
        b = io.BytesIO()
        write(b)
        put(name, b.getvalue(), *words)

    def zipped(*entries):
        def write(b):
            with zipfile.ZipFile(b, "w") as z:
                for name, data in entries:
                    z.writestr(name, data)
        return write

    def tarred(b):
        with tarfile.open(fileobj=b, mode="w") as t:
            t.addfile(tarfile.TarInfo("scan.png"))

    for i, name in enumerate(("a.png", "b.jpg", "c.tif", "d.mp4", "e.bmp")):
        put(f"pointer_{name}", b"version https://git-lfs.github.com/spec/v1\noid sha256:%064x\nsize %d\n" % (i, 9 + i), "Git LFS pointer", "git lfs pull")
    for name, data in (("a.png", b"<!DOCTYPE html>\n<html><body>404"), ("b.jpg", b"<html lang=en>"), ("c.tif", b"\n\n<!doctype HTML>"),
                       ("d.png", b"\xef\xbb\xbf<!DOCTYPE html><html>"), ("e.png", b"<?xml version='1.0'?>\n<html xmlns='a'>")):
        put(f"page_{name}", data, "web page", "download")
    packed("archive_a.zip", zipped(("scan.png", b"x")), "zip archive", "unpack")
    put("archive_b.gz", gzip.compress(b"x"), "gzip archive", "unpack")
    packed("archive_c.tar", tarred, "tar archive", "unpack")
    put("archive_d.7z", b"7z\xbc\xaf\x27\x1c\0\4" + bytes(40), "7-Zip archive", "unpack")
    put("archive_e.xz", b"\xfd7zXZ\0\0\4" + bytes(40), "xz archive", "unpack")
    put("network_a.safetensors", DETECTOR.read_bytes()[:200000], "safetensors", "--detector")
    packed("network_b.pt", zipped(("archive/data.pkl", pickle.dumps({})), ("archive/data/0", b"0123")), "PyTorch", "--detector")
    put("network_c.pth", pickle.dumps({"model": {}}, protocol=2), "pickle", "--detector")
    put("network_d.png", b"\x08\0\0\0\0\0\0\0{\"a\":{}}", "safetensors", "--segmenter")
    packed("network_e.jpg", zipped(("sam/data.pkl", b"x"),), "PyTorch", "--segmenter")
    put("framework_a.onnx", b"\x08\x08\x12\x07pytorch\x1a\x05" + bytes(20), "ONNX", "--detector")
    put("framework_b.tflite", b"\x1c\0\0\0TFL3" + bytes(30), "TensorFlow Lite", "--detector")
    put("framework_c.h5", b"\x89HDF\r\n\x1a\n" + bytes(30), "HDF5", "--detector")
    put("framework_d.gguf", b"GGUF\3\0\0\0" + bytes(30), "GGUF", "--detector")
    put("framework_e.engine", b"ftrt" + bytes(30), "TensorRT", "--detector")
    header = json.dumps({"decoder.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    for name in ("a.safetensors", "b.png"):
        put(f"part_{name}", struct.pack("<Q", len(header)) + header + bytes(4), "safetensors", "image")
    packed("part_c.pt", zipped(("decoder/data.pkl", pickle.dumps({}))), "PyTorch", "image")
    put("part_d.mp4", (GOLDEN / "video" / "sound.mp4").read_bytes(), *(("sound", "frames") if VIDEOS else ("libav",)))
    put("part_e.dcm", bytes(128) + b"DICM" + bytes(30), "DICOM", "pip install ./python[dicom]")
    for name, source, share in (("a.png", FRAME, .6), ("b.jpg", GOLDEN / "image" / "rgb.jpg", .7), ("c.bmp", GOLDEN / "image" / "rgb24.bmp", .5)):
        data = source.read_bytes()
        put(f"cut_{name}", data[:int(len(data) * share)], "cut off or damaged, copy or export it again")
    put("cut_d.tif", (GOLDEN / "image" / "gray8.tif").read_bytes()[:90], *(("bad TIFF", "copy or export it again") if TIFF else ("libtiff",)))
    put("cut_e.mp4", (GOLDEN / "video" / "intra.mp4").read_bytes()[:400], *(("cut off", "copy or export it again") if VIDEOS else ("libav",)))
    put("secret_a.png", b"Salted__" + os.urandom(60), "encrypted", "decrypt")
    put("secret_b.png", b"-----BEGIN PGP MESSAGE-----\n\nhQEMA", "encrypted", "decrypt")
    put("secret_c.png", b"age-encryption.org/v1\n-> X25519", "encrypted", "decrypt")
    put("secret_d.zip", b"PK\3\4\x14\0\1\0\0\0" + bytes(20) + b"a.png", "encrypted", "decrypt")
    put("secret_e.png", b"\xfe\xdc" + bytes((i * i * 97 + i * 31 + 128) % 256 for i in range(300)), "unknown content", "encrypted")
    for name in ("folder_a", "folder_b.png", "folder_c", "folder_d", "folder_e"):
        (folder / name).mkdir()
        files[folder / name] = ("no image in this folder",)
    files[folder / "folder_a"] += ("it is empty",)
    files[folder / "folder_b.png"] += ("it is empty",)
    (folder / "folder_c" / "config.json").write_text("{}")
    (folder / "folder_c" / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    files[folder / "folder_c"] += ("1 JSON, 1 safetensors file",)
    (folder / "folder_d" / "in").mkdir()
    files[folder / "folder_d"] += ("1 folder (--recursive",)
    (folder / "folder_e" / "scan.dcm").write_bytes(bytes(128) + b"DICM")
    files[folder / "folder_e"] += ("1 DICOM (ultramotion.run() of the Python package",)
    put("text_a.png", b"hello\n", "a text", "image")
    put("text_b.json", b'{"images": []}', "JSON", "image")
    put("text_c.xml", b"<?xml version='1.0'?><annotation/>", "XML", "image")
    put("text_d.csv", "frame,größe\n1,2\n".encode(), "a text", "@LIST.txt")
    put("text_e.png", b"", "empty file", "again")
    return files


@test
def fifty_wrong_files_get_one_sentence_each(tmp):
    files = wrong_files(tmp)
    assert len(files) == 50
    for path, words in files.items():
        out, err = um("detect", path, "-q", code=1)
        assert out == "" and err.count("\n") == 1 and path.name in err and all(w in err for w in words), (path.name, words, err)
    # the whole pipeline answers the same
    for name in ("pointer_a.png", "cut_a.png", "folder_c"):
        _, err = um("run", tmp / name, "-q", code=1)
        assert err.count("\n") == 1, err


main()
