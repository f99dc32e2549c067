#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Recordings: kept, run again and held against each other: test_record.py COMMAND [TEST…]"""

import gzip
import json
import os
import shutil
import signal
import subprocess
import time
import zlib

from command import COMMAND, ENVIRONMENT, lines, main, png, test, um

TINY = ("--det-size", "256", "--sam-size", "64")


def record(folder, *options, source="phantom:seed=3,frames=6"):
    return um("run", source, "-o", f"record:{folder}", "-q", *TINY, *options)


def verify(folder, *options, code=0):
    return um("replay", folder, "--verify", *options, code=code)[1]


def header(folder, part=0):
    return (folder / f"frames_{part:03}.mhd").read_text()


@test
def a_recording_is_run_again_equal(tmp):
    record(tmp / "plain", "--device", "guard", "--threads", "1", "--objects", "2")
    record(tmp / "track", "--track", "1", "--conf", "0.25", "--crop", "4,6,400,500")
    for name, aside, options in (("plain", False, ("--threads", "2")), ("plain", True, ("--device", "cpu")), ("track", True, ("--device", "guard")),
                                 ("track", False, ("--threads", "1"))):
        err = verify(tmp / name, *options)
        assert "verified   6 packets equal" in err and ("aside" in err) == aside, err
    kept = (tmp / "track" / "settings.yaml").read_text()
    for env in ("1", "0"):  # that neither was asked for is kept, too
        assert '"as_numpy":0' in um("replay", tmp / "track", "-q", "--frames", "1", env={"ULTRAMOTION_SAM_AS_NUMPY": env})[0]
    for line in ('device: "cpu"', "conf: 0.25", "track: 1", 'det-size: "256"', "sam-size: 64", "crop: [4, 6, 400, 500]", "# detector sha256:"):
        assert line in kept, kept
    out, _ = um("replay", tmp / "track", "-q", "--frames", "4")
    again, first = lines(out), lines((tmp / "track" / "packets.jsonl").read_text())
    for packet in again + first:
        del packet["stages_ms"], packet["precision_reason"]
    assert again == first[:4]
    # what is recorded of a replay is the same recording
    um("replay", tmp / "track", "-q", "-o", f"record:{tmp}/twice")
    assert header(tmp / "twice") == header(tmp / "track")


@test
def a_budget_that_was_kept_changes_nothing(tmp):
    record(tmp / "r", "--budget-ms", "3600000")
    assert '"deadline":{"latency_ms"' in (tmp / "r" / "packets.jsonl").read_text()
    assert "verified   6 packets equal" in verify(tmp / "r")


@test
def the_first_difference_is_named(tmp):
    record(tmp / "whole")
    packets, pixels = (tmp / "whole" / "packets.jsonl").read_bytes(), (tmp / "whole" / "frames_000.raw").read_bytes()
    fields = header(tmp / "whole").encode()

    def changed(name, data, at):
        shutil.rmtree(tmp / "bad", ignore_errors=True)
        shutil.copytree(tmp / "whole", tmp / "bad")
        (tmp / "bad" / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
        return verify(tmp / "bad", "-q", code=3)

    starts = [0] + [i + 1 for i, c in enumerate(packets) if c == 10]
    for frame, text, skip, path in ((2, b'"counts":"', 12, "mask.counts: expected "), (5, b'"objects":[{"label":0,"name":"', 31, "objects[0].name: expected ")):
        at = packets.index(text, starts[frame]) + skip
        err = changed("packets.jsonl", packets, at)
        assert err.startswith(f"ultramotion: frame {frame} differs from the recording: ") and path in err and ", found " in err, err
        assert err.count("\n") == 1, err
    err = changed("frames_000.raw", pixels, len(pixels) // 2)
    assert "pixels of a frame have changed" in err and "frame 3 differs from the recording: expected a packet, found none" in err, err
    err = changed("frames_000.mhd", fields, fields.index(b"Seq_Frame0001_Timestamp = ") + 40)
    assert "frame 1 differs from the recording: ts: expected" in err, err
    for other, said in ((b"}\n", 'expected nothing more, found "crop"'), (b',"crop":null,"new":1}\n', 'expected "new", found nothing more')):
        (tmp / "whole" / "packets.jsonl").write_bytes(packets.replace(b',"crop":null}\n', other))  # of another version
        assert f"frame 0 differs from the recording: its line: {said}" in verify(tmp / "whole", "-q", code=3)
    (tmp / "whole" / "packets.jsonl").write_bytes(packets + packets[starts[5]:])
    assert "frame 6 differs from the recording: expected a packet, found none" in verify(tmp / "whole", "-q", code=3)
    (tmp / "whole" / "packets.jsonl").write_bytes(b"")
    assert "no packet was recorded" in verify(tmp / "whole", "-q", code=3)


@test
def a_killed_recording_is_run_again(tmp):
    command = [COMMAND, "run", "phantom:seed=4", "-o", f"record:{tmp}/cut", "-q", *TINY]
    with subprocess.Popen(command, env=ENVIRONMENT) as process:
        deadline = time.monotonic() + 60
        packets = tmp / "cut" / "packets.jsonl"
        while not (packets.exists() and packets.read_bytes().count(b"\n") >= 4):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(.01)
        process.send_signal(signal.SIGKILL)
    whole = packets.read_bytes().count(b"\n")
    frames = int(header(tmp / "cut").split("DimSize = 422 558 ")[1].split()[0])
    assert whole <= frames <= whole + 1 and (tmp / "cut" / "frames_000.raw").stat().st_size >= frames * 422 * 558
    if packets.read_bytes().endswith(b"\n"):
        with open(packets, "ab") as f:
            f.write(b'{"frame_id":')
    err = verify(tmp / "cut")
    assert f"verified   {whole} packets equal" in err and "the recording's last packet is not whole, and was left out" in err, err


@test
def an_incomplete_recording_is_no_equal_one(tmp):
    record(tmp / "cut")
    packets = tmp / "cut" / "packets.jsonl"
    whole = packets.read_text().splitlines(True)
    packets.write_text("".join(whole[:5]))  # as if it had been killed
    assert "verified   5 packets equal" in verify(tmp / "cut")
    packets.write_text("".join(whole[:4]))
    assert "frame 4 differs from the recording: its packet is missing, and others after it" in verify(tmp / "cut", code=3)
    os.remove(tmp / "cut" / "settings.yaml")
    shown = (tmp / "cut").rename(tmp / "cut\x1b[2J\u009b")  # not as a terminal would obey it
    assert "cut\\x1b[2J\\xc2\\x9b/settings.yaml: not there: its options are the library's defaults" in um("replay", shown, "--frames", 1, "-o", "null:")[1]


@test
def a_part_is_not_verified_for_the_whole(tmp):
    record(tmp / "r")
    reader, writer = os.pipe()
    os.close(reader)  # who reads leaves at once, which stops it, if nobody else is there
    for more, code, said in ((), 1, b"the rest was not verified"), (("-o", "null:"), 0, b"verified   6 packets equal"):
        done = subprocess.run([COMMAND, "replay", tmp / "r", "--verify", "-o", "jsonl:-", *more], stdout=writer, stderr=subprocess.PIPE, env=ENVIRONMENT, timeout=60)
        assert done.returncode == code and said in done.stderr, done
    os.close(writer)


@test
def times_poses_and_unknown_fields_come_back(tmp):
    text = "ObjectType = Image\nNDims = 3\nDimSize = 64 48 3\nElementSpacing = 0.2 0.1 1\nElementType = MET_UCHAR\nScanDepth = 40 mm\n"
    for i in range(3):
        text += f"Seq_Frame{i:04}_FrameNumber = {i + 70}\nSeq_Frame{i:04}_Timestamp = {i / 7:.5f}\nSeq_Frame{i:04}_StylusToTrackerTransformStatus = INVALID\n"
        text += f"Seq_Frame{i:04}_ProbeToTrackerTransform = 1 0 0 {i}.10 0 1 0 0 0 0 1 0 0 0 0 1\nSeq_Frame{i:04}_ProbeToTrackerTransformStatus = OK\n"
    (tmp / "probe.mha").write_bytes(text.encode() + b"ElementDataFile = LOCAL\n" + bytes(range(256)) * 36)
    record(tmp / "out", source=tmp / "probe.mha")
    kept = header(tmp / "out")
    for line in text.splitlines():
        if line.startswith(("Seq_", "ScanDepth")):
            assert kept.count(line + "\n") == 1, line
    assert "ElementSpacing = 0.2 0.1 1\n" in kept and "Seq_Frame0002_UltramotionSource = probe.mha\n" in kept
    packets = lines((tmp / "out" / "packets.jsonl").read_text())
    assert [p["pose"][3] for p in packets] == [.1, 1.1, 2.1] and [p["ts"] for p in packets] == [0, .14286, .28571]
    assert "verified   3 packets equal" in verify(tmp / "out")


@test
def frames_are_numbered_as_in_their_source(tmp):
    """As Plus does: what it makes of times wants a number of each frame, and sees in it what was lost."""
    (tmp / "in").mkdir()
    for i in (0, 2):
        png(tmp / "in" / f"{i}.png", 64, 48)
    (tmp / "in" / "1.png").write_bytes(b"no image")
    um("run", tmp / "in", "-o", f"record:{tmp}/out", "-o", f"masks:{tmp}/m.mha", "--conf", 0)
    for text, numbers in ((header(tmp / "out"), [0, 2]), ((tmp / "m.mha").read_bytes().decode("latin1"), [0, 1, 2])):
        for i, number in enumerate(numbers):
            assert f"\nSeq_Frame{i:04}_FrameNumber = {number}\n" in text, text[:2000]
    assert "verified   2 packets equal" in verify(tmp / "out")


@test
def another_size_begins_another_part(tmp):
    for i, (width, height) in enumerate(((64, 48), (64, 48), (48, 64), (64, 48))):
        png(tmp / f"{i}.png", width, height)
    record(tmp / "out", source=f"{tmp}/?.png")
    sizes = [header(tmp / "out", part).split("DimSize = ")[1].splitlines()[0].split() for part in range(3)]
    assert sizes == [["64", "48", "2"], ["48", "64", "1"], ["64", "48", "1"]], sizes
    out, err = um("replay", tmp / "out", "--verify", "-o", "jsonl:-")
    assert "verified   4 packets equal" in err
    assert [p["source"] for p in lines(out)] == ["0.png", "1.png", "2.png", "3.png"]


@test
def its_own_times_are_kept(tmp):
    text = "ObjectType = Image\nNDims = 3\nDimSize = 64 48 3\nElementType = MET_UCHAR\n" + "".join(f"Seq_Frame{i:04}_Timestamp = {.3 * i}\n" for i in range(3))
    (tmp / "slow.mha").write_bytes(text.encode() + b"ElementDataFile = LOCAL\n" + bytes(64 * 48 * 3))
    record(tmp / "out", source=tmp / "slow.mha")
    started = time.monotonic()
    out, _ = um("replay", tmp / "out", "--realtime", "-q")
    assert time.monotonic() - started > .6 and 0 < len(lines(out)) <= 3


@test
def masks_are_one_file(tmp):
    files = [tmp / name for name in ("out.mha", "out.seq.nrrd", "out.seg.nrrd")]
    out, _ = um("run", "phantom:seed=3,frames=3,width=200,height=160", "-q", "-o", "jsonl:-", *(a for f in files for a in ("-o", f"masks:{f}")))
    packets = lines(out)
    assert sum(p["mask_area_px"] for p in packets) > 100
    for f in files:
        head, body = f.read_bytes().split(b"ElementDataFile = LOCAL\n" if f.suffix == ".mha" else b"\n\n", 1)
        raw = zlib.decompress(body) if f.suffix == ".mha" else gzip.decompress(body)
        assert len(raw) == 3 * 200 * 160 and set(raw) == {0, 1}
        assert [raw[i * 32000:(i + 1) * 32000].count(1) for i in range(3)] == [p["mask_area_px"] for p in packets]
        if f.name == "out.mha":
            assert f"CompressedDataSize = {len(body)}\n".encode() in head and b"DimSize = 200 160 3 " in head
        if f.name == "out.seq.nrrd":
            times = [float(v) for v in head.decode().split("axis 3 index values:=")[1].split()]
            assert times[0] == packets[0]["ts"] and all(b - a > .0015 for a, b in zip(times, times[1:]))
        if f.name == "out.seg.nrrd":
            assert b"\nSegment0_Name:=bone\n" in head
    assert sorted(p.name for p in tmp.iterdir()) == ["out.mha", "out.seg.nrrd", "out.seq.nrrd"]


@test
def a_shadow_is_told(tmp):
    _, err = um("run", "phantom:seed=3,frames=5", "-o", "null:", "--shadow", "legacy", "--shadow-every", "2", *TINY)
    assert "shadow     3 frames compared, 0 disagreed (least Dice 1.0000)\n" in err, err
    for options in (("--shadow", "other"), ("--shadow", "legacy", "--sam-as-numpy", "1")):
        _, err = um("run", "phantom:frames=1", "-o", "null:", "-q", *options, *TINY, code=2)
        assert "is not one of legacy" in err or "masks are made on the host already" in err, err


@test
def what_means_nothing_is_said(tmp):
    record(tmp / "one", source="phantom:frames=1")
    _, err = um("run", "phantom:frames=1", "-o", f"record:{tmp}/one", code=1)
    assert "holds a recording: name another folder" in err, err
    um("run", "phantom:frames=1", "-o", f"record:{tmp}/two", "-o", "no:such", code=2)  # corrected, it runs
    record(tmp / "two", source="phantom:frames=1")
    assert "verified   1 packet equal" in verify(tmp / "two")
    _, err = um("replay", tmp / "one", "--verify", "--realtime", code=2)
    assert "one or the other" in err, err
    _, err = um("replay", tmp / "none", code=1)
    assert "frames_000.mhd: not there: no recording with frames" in err, err
    for name in ("packets.jsonl", "frames_000.mhd"):  # of one, not itself
        _, err = um("replay", tmp / "one" / name, code=1)
        assert err == f"ultramotion: {tmp}/one/{name}: not a folder: want the one that holds the recording\n", err
    _, err = um("run", "phantom:frames=1", "-o", "record:", code=2)
    assert "record: needs a folder" in err, err
    record(tmp / "program", "--mask-clean", "0", source="phantom:frames=1")  # as the library does by itself
    for name, *options in (("program",), ("one", "--mask-clean", "1")):
        os.remove(tmp / name / "settings.yaml")
        assert "verified   1 packet equal" in verify(tmp / name, *TINY, *options)
    for command, options in (("run", ("-q",)), ("serve", ("-q", "-o", "null:")), ("run", ("-q", "--budget-ms", "1000"))):
        boxes = tmp / f"boxes {command} {len(options)}"
        um(command, "phantom:frames=3", "-o", f"record:{boxes}", "-o", f"dir:{boxes} seen", "--boxes-only", *options)
        seen = [f.name.partition("_")[2] for f in (tmp / f"{boxes.name} seen").iterdir()]
        assert seen and set(seen) == {"overlay.png"}, seen
        assert all(p["models"]["segmenter"] is None and p["mask"] is None for p in lines((boxes / "packets.jsonl").read_text()))
        assert "packets equal" in verify(boxes)
        os.remove(boxes / "settings.yaml")  # as Python's segmenter=False makes it
        assert "packets equal" in verify(boxes, "--boxes-only")
        assert "mask: expected null" in verify(boxes, code=3)
    _, err = um("run", "phantom:frames=1", "--boxes-only", "-o", f"masks:{tmp}/x.seg.nrrd", code=1)
    assert "x.seg.nrrd: a packet of a detector alone" in err and not (tmp / "x.seg.nrrd").exists(), err
    for option in (("--sam-size", "64"), ("--mask-clean", "1"), ("--kpi", tmp / "kpi")):
        _, err = um("run", "phantom:frames=1", "--boxes-only", *option, code=2)
        assert f"{option[0]}: nothing with --boxes-only" in err, err
    um("run", "phantom:frames=1", "--boxes-only", "--kpi", tmp / "kpi", "--kpi-events", "all", "-o", "null:")
    assert '"infer_dfine"' in (tmp / "kpi").read_text()
    _, err = um("run", "phantom:frames=1", "--boxes-only", "--track", "1", code=2)
    assert "track needs a segmenter" in err, err
    um("segment", "phantom:frames=1", "--box", "9,9,90,90", "--sam-size", 64, "-o", f"record:{tmp}/prompted", "-q")
    kept = (tmp / "prompted" / "settings.yaml").read_text()
    assert "sam-size: 64" in kept and "# segmenter sha256:" in kept and "# detector" not in kept, kept
    assert "frame 0 differs from the recording: it was made without a detector" in verify(tmp / "prompted", code=3)
    (tmp / "one" / "settings.yaml").write_text("conf: many\n")
    _, err = um("replay", tmp / "one", code=2)
    assert "settings.yaml:1: conf: \"many\" is not a number" in err, err
    for option in ("sink: [\"jsonl:{0}\"]", "kpi: \"{0}\"", "trace: \"{0}\"", "weight-cache: \"{0}\""):  # a stranger's: it writes nothing
        (tmp / "one" / "settings.yaml").write_text(option.format(tmp / "written") + "\n")
        _, err = um("replay", tmp / "one", code=2)
        assert f"settings.yaml:1: {option.partition(':')[0]}: no such option of a recording" in err, err
    assert not (tmp / "written").exists()
    packet = json.loads((tmp / "one" / "packets.jsonl").read_text())
    assert packet["models"]["detector"].startswith("sha256:")


main()
