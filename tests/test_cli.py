#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command as a user types it: usage, exit codes, outputs. Standard library only. Usage: test_cli.py COMMAND [TEST]..."""

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import zlib
from pathlib import Path

from command import COMMAND, DETECTOR, ENVIRONMENT, MODELS, ROOT, SEGMENTER, Skip, gray, lines, main, png, test, um, write_tiff
from crc64 import crc64

CHOSEN = ("fp32", "bf16")  # by a processor where nobody asks
PACKET_KEYS = ["frame_id", "ts", "state", "tag", "label", "score", "box_xyxy", "mask", "mask_area_px", "stages_ms", "transfers", "pose",
               "spacing_mm", "device", "precision", "as_numpy", "models", "lost_device", "source", "name", "objects", "detected", "reason", "scores", "deadline",
               "cleaned", "gain", "reused", "precision_reason", "crop"]


@test
def usage_and_version(tmp):
    out, _ = um("--version")
    assert out.startswith("ultramotion ")
    out, _ = um("--help")
    assert "usage: ultramotion" in out
    for command in ("run", "detect", "segment", "val", "phantom", "bench", "inspect", "convert", "doctor", "serve", "igtl"):
        out, _ = um(command, "--help")
        assert um("help", command)[0] == out
        assert f"usage: ultramotion {command}" in out and "options:" in out
    assert um("help")[0] == um("help", "help")[0] == um("-h")[0]
    for more in (("help", "run"), ("--version",), ("--man",), ("--completion",), ("--help",)):
        out, err = um(*more, "x", code=2)
        assert not out and f'{more[0]}: "x" is one argument too many, of {len(more)}' in err, err
    _, err = um(code=2)
    assert "usage" in err
    _, err = um("fly", code=2)
    assert "fly" in err
    _, err = um("run", code=2)
    assert "SOURCE" in err
    _, err = um("run", "phantom:", "--colour", "red", code=2)
    assert "--colour" in err
    readme = [" ".join(line.replace("…", "...").split()) for line in (ROOT / "README.md").read_text().splitlines()]
    for command in ("run", "detect", "segment", "val", "phantom", "bench", "inspect", "convert"):
        for usage in um(command, "--help")[0].partition("\n\n")[0].removeprefix("usage: ").splitlines():
            assert any(line.startswith(usage.strip()) for line in readme), usage


@test
def help_fits_a_terminal_and_speaks_of_its_own_command(tmp):
    for command in ("run", "detect", "segment", "val", "phantom", "bench", "inspect", "convert", "doctor", "serve", "replay", "igtl"):
        out, _ = um(command, "--help")
        options = out.partition("options:")[2]
        assert all(len(line) <= 100 and line == line.rstrip() for line in options.splitlines()), command
        names = [line.split()[0].rstrip(",") for line in options.splitlines() if line.startswith("  -")]
        assert len(names) == len(set(names)), command
        assert ("to follow" in options) == (command in ("run", "serve", "replay")), command  # --class: detect follows nothing
        both = command in ("run", "serve", "replay", "val", "bench", "convert", "doctor")  # the two others take options for nothing, and say so
        assert ("size of the detector's" in options) == (both or command == "detect"), command
        assert ("side of the segmenter's" in options) == (both or command == "segment"), command
        others = {"convert", "phantom", "sniff"} - {command} - ({"sniff"} if command == "igtl" else set())
        assert not any(f"{other}:" in options for other in others), command


def on_a_terminal(*arguments, out):
    """What the command says where stderr is a terminal."""
    ours, theirs = pty.openpty()
    with open(out, "wb") as stdout:
        process = subprocess.Popen([COMMAND, *map(str, arguments)], stdout=stdout, stderr=theirs, env=ENVIRONMENT)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while part := os.read(ours, 4096):
            said += part
    os.close(ours)
    assert process.wait(60) == 0, said
    return said.decode()


@test
def long_work_shows_how_far_it_is(tmp):
    small = ("--det-size", "256", "--sam-size", "64")
    for command in (("run", "-o", "null:"), ("detect",), ("segment", "--box", "1,1,50,50"), ("val",)):
        said = on_a_terminal(command[0], "phantom:frames=12,width=64,height=64", *command[1:], *small, out=tmp / "out")
        assert re.search(r"\d+/12 ", said), said
        assert not re.search(r"\d+/12 ", on_a_terminal(command[0], "phantom:frames=12,width=64,height=64", *command[1:], *small, "-q", out=tmp / "out"))
    assert "12/12 \r" in on_a_terminal("bench", "residency", "--frames", 12, "--conf", 0, *small, out=tmp / "out")


@test
def a_terminal_that_stands_still_holds_nothing_up(tmp):
    small = ("--det-size", "256", "--sam-size", "64", "-o", f"jsonl:{tmp}/out")
    ours, theirs = pty.openpty()
    said, out = b"", tmp / "out"
    with subprocess.Popen([COMMAND, "run", "phantom:width=64,height=64,frames=0", *small], stderr=theirs, env=ENVIRONMENT) as process:
        try:
            while b"fps" not in said:
                said += os.read(ours, 4096)
            termios.tcflow(theirs, termios.TCOOFF)  # Ctrl-S
            more, until = out.read_bytes().count(b"\n") + 20, time.monotonic() + 60
            while out.read_bytes().count(b"\n") < more:
                assert time.monotonic() < until, "no more packets"
                time.sleep(0.05)
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
    os.close(theirs)
    os.close(ours)


@test
def packets_hold_every_key_in_order(tmp):
    out, err = um("run", "phantom:seed=900003,frames=3", "--device", "guard")
    packets = lines(out)
    assert [p["frame_id"] for p in packets] == [0, 1, 2]
    for p in packets:
        assert list(p) == PACKET_KEYS, list(p)
        assert p["transfers"]["up"] == 1 and p["transfers"]["down"] == 1 and p["transfers"]["shared"] is False
        assert set(p["stages_ms"]) == {"upload", "detect", "segment", "packet", "total"}
        assert p["device"] == "guard" and p["precision"] in CHOSEN and p["models"]["detector"].startswith("sha256:")
        assert p["lost_device"] is None
        if p["state"] == "LOST":
            assert p["box_xyxy"] is None and p["mask"] is None
        else:
            assert len(p["box_xyxy"]) == 4 and p["mask"]["size"] == [558, 422] and p["mask_area_px"] > 0
    assert "VISIBLE" in err and "ledger" in err and "Dice" in err
    table = (ROOT / "docs/PACKET.md").read_text()
    assert [key for row in re.findall(r"^\| (`.*?) \|", table, re.M) for key in re.findall(r"`(\w+)`", row)] == PACKET_KEYS
    inner = {*packets[0]["objects"][0], *packets[0]["stages_ms"], *packets[0]["transfers"], *packets[0]["models"]}
    assert all(f"`{key}`" in table or f'"{key}"' in table for key in inner), inner


@test
def residency_is_asserted_on_guard(tmp):
    um("run", "phantom:seed=900003,frames=3", "--device", "guard", "--assert-transfers", "1,1", "-o", "null:")
    um("run", "phantom:seed=900003,frames=3", "--device", "guard", "--gate", "sync", "--assert-transfers", "1,2", "-o", "null:")
    for limit in ("1,1", "1,2"):
        _, err = um("run", "phantom:seed=900003,frames=3", "--device", "guard", "--sam-as-numpy", "1", "--assert-transfers", limit, "-o",
                    "null:", code=3)
        assert "frame 0" in err and "stage segment" in err and "legacy mode" in err, err
    _, err = um("run", "phantom:frames=1", "--device", "cpu", "--assert-transfers", "1,1", "-o", "null:", code=2)
    assert "shares" in err
    shared = lines(um("run", "phantom:frames=1", "--device", "cpu")[0])[0]["transfers"]
    assert shared == {"up": 0, "down": 0, "up_bytes": 0, "down_bytes": 0, "setup": 0, "shared": True}, shared


@test
def rollback_by_environment_and_option(tmp):
    device = lines(um("run", "phantom:seed=900003,frames=2")[0])
    host = lines(um("run", "phantom:seed=900003,frames=2", env={"ULTRAMOTION_SAM_AS_NUMPY": "1"})[0])
    assert [p["as_numpy"] for p in device] == [0, 0] and [p["as_numpy"] for p in host] == [1, 1]
    assert [p["mask"] for p in device] == [p["mask"] for p in host]
    option = lines(um("run", "phantom:seed=900003,frames=1", "--sam-as-numpy", "0", env={"ULTRAMOTION_SAM_AS_NUMPY": "1"})[0])
    assert option[0]["as_numpy"] == 0
    _, err = um("run", "phantom:frames=1", env={"ULTRAMOTION_SAM_AS_NUMPY": "yes"}, code=2)
    assert "ULTRAMOTION_SAM_AS_NUMPY" in err


@test
def both_gates_agree(tmp):
    def shape(packets):
        return [(p["state"], p["score"], p["box_xyxy"], p["mask"]) for p in packets]
    spec = "phantom:seed=900005,frames=6,empty=0.5"
    assert shape(lines(um("run", spec, "--gate", "sync")[0])) == shape(lines(um("run", spec, "--device", "guard")[0]))


@test
def sinks_write_what_they_say(tmp):
    out, _ = um("run", "phantom:seed=900003,frames=2", "-o", f"dir:{tmp}/o", "-o", f"jsonl:{tmp}/p.jsonl", "-o", "null:", "--kpi",
                f"{tmp}/kpi", "--dump", f"{tmp}/taps.safetensors")
    assert out == ""
    packets = lines((tmp / "p.jsonl").read_text())
    visible = [p for p in packets if p["state"] == "VISIBLE"]
    assert sorted(f.name for f in (tmp / "o").iterdir()) == [f"0000{i}_{k}.png" for i in range(2) for k in ("mask", "overlay")]
    kpi = lines((tmp / "kpi").read_text())
    assert len(kpi) == len(visible)
    for line in kpi:
        assert list(line)[:4] == ["ts", "event", "as_numpy", "device"] and line["event"] == "sam_mask_output"
    raw = (tmp / "taps.safetensors").read_bytes()
    header = json.loads(raw[8:8 + struct.unpack("<Q", raw[:8])[0]])
    shapes = {k: v["shape"] for k, v in header.items() if k != "__metadata__"}
    assert shapes["pred_logits"] == [1, 300, 1] and shapes["pred_boxes"] == [1, 300, 4]
    assert shapes["image_embedding"] == [1, 256, 16, 16] and shapes["low_res_logits"] == [1, 1, 64, 64], shapes
    assert shapes["iou"] == [1, 1] and shapes["mask"] == [1, 1, 558, 422], shapes


def gray_values(path):
    """The values that the pixels of a gray PNG of our own have: every row is stored with filter 0 or 1."""
    data, at, packed, width = path.read_bytes(), 8, b"", 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"IHDR":
            width = struct.unpack(">I", data[at + 8:at + 12])[0]
        packed += data[at + 8:at + 8 + size] if kind == b"IDAT" else b""
        at += size + 12
    rows, values = zlib.decompress(packed), set()
    for row in range(0, len(rows), width + 1):
        value = 0
        assert rows[row] <= 1, rows[row]
        for byte in rows[row + 1:row + 1 + width]:
            value = (value + byte) % 256 if rows[row] else byte
            values.add(value)
    return values


@test
def masks_of_several_objects_are_label_maps(tmp):
    source = "phantom:seed=900003,frames=1,empty=0"
    um("run", source, "-o", f"dir:{tmp}/one")
    assert gray_values(tmp / "one/00000_mask.png") == {0, 255}
    out, _ = um("run", source, "--objects", "3", "--conf", "0", "-o", f"dir:{tmp}/three", "-o", "jsonl:-")
    found = len(lines(out)[0]["objects"])
    values = gray_values(tmp / "three/00000_mask.png")
    assert found == 3 and 1 in values and values <= {0, 1, 2, 3}, values


@test
def sink_trouble_is_named(tmp):
    (tmp / "file").write_text("x")
    _, err = um("run", "phantom:frames=1", "-o", f"dir:{tmp}/file/o", code=1)
    assert "file: Not a directory" in err
    _, err = um("run", "phantom:frames=1", "-o", "carrier-pigeon:", code=2)
    assert "carrier-pigeon" in err
    if os.path.exists("/dev/full"):
        out, err = um("run", "phantom:frames=8", "-o", "jsonl:/dev/full", "-o", "jsonl:-", code=1)
        assert "/dev/full" in err and len(lines(out)) == 8, err
    (tmp / "sizes").mkdir()
    for width in (64, 80):
        png(tmp / f"sizes/{width}.png", width, 64)
    for command in (["run"], ["segment", "--box", "9,9,30,30"]):
        _, err = um(*command, tmp / "sizes", "-o", f"masks:{tmp}/m.mha", code=1)
        assert "one file has one size" in err, (command, err)


@test
def a_refused_run_leaves_what_is_there(tmp):
    old = tmp / "old.jsonl"
    old.write_text("old\n")
    for other, code in (("mistyped:x", 2), (f"masks:{tmp}/x.bad", 2), (f"dir:{old}/x", 1)):
        um("run", "phantom:frames=1", "-o", f"jsonl:{old}", "-o", other, code=code)
        assert old.read_text() == "old\n", other
    um("run", "phantom:frames=1", "-o", f"jsonl:{old}")
    assert len(lines(old.read_text())) == 1


@test
def a_dump_that_cannot_be_written_is_told_before_the_first_frame(tmp):
    (tmp / "folder").mkdir()
    for command in (["run"], ["detect"], ["segment", "--box", "150,200,280,310"]):
        for path, why in ((tmp / "none" / "taps.safetensors", "No such file or directory"), (tmp / "folder", "not a regular file")):
            out, err = um(*command, "phantom:frames=1", "--dump", path, code=1)
            assert not out and f"--dump {path}: cannot be written: {why}" in err, (command, out, err)
    um("detect", "phantom:frames=1", "--det-size", "640x32", "--queries", 100, "--dump", tmp / "flat.safetensors")  # maps of one row are maps
    shape = {t["name"]: t["shape"] for t in json.loads(um("inspect", tmp / "flat.safetensors", "--json")[0])["tensors"]}
    assert (shape["stage3"], shape["aifi_tokens"], shape["dec0"]) == ([1, 1024, 1, 20], [1, 128, 1, 20], [1, 100, 128]), shape


@test
def no_two_outputs_are_one_file(tmp):
    for other in (("-o", f"masks:{tmp}/a.mha"), ("-o", f"jsonl:{tmp}/a.mha"), ("--kpi", f"{tmp}/a.mha"), ("-o", f"masks:{tmp}/./a.mha"),
                  ("--dump", f"{tmp}/../{tmp.name}/a.mha")):
        _, err = um("run", "phantom:frames=1", "-o", f"masks:{tmp}/a.mha", *other, code=2)
        assert "is also written by" in err and not any(tmp.iterdir()), err
    for other in (("-o", f"jsonl:{tmp}/r/packets.jsonl"), ("--kpi", f"{tmp}/r/settings.yaml")):
        _, err = um("run", "phantom:frames=1", *other, "-o", f"record:{tmp}/r", code=2)
        assert f"{other[1].removeprefix('jsonl:')}: is also written by -o record:{tmp}/r" in err and not any(tmp.iterdir()), err


@test
def no_run_writes_what_it_reads(tmp):
    def refused(*arguments, code=2, cwd=None, stdin=None):
        before = {f: f.read_bytes() for f in tmp.rglob("*") if f.is_file()}
        _, err = um(*arguments, code=code, cwd=cwd, stdin=stdin)
        assert "is also the input" in err, err
        assert before == {f: f.read_bytes() for f in tmp.rglob("*") if f.is_file()}, arguments

    (tmp / "in").mkdir()
    image, inside, scan = tmp / "in.png", tmp / "in" / "a.png", tmp / "in.mha"
    png(image, 96, 80)
    png(inside, 96, 80)
    scan.write_bytes(b"ObjectType = Image\nNDims = 3\nDimSize = 96 80 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n" + bytes(96 * 80))
    (tmp / "list.txt").write_text("in.png\n")
    (tmp / "soft.jsonl").symlink_to("in.png")
    os.link(image, tmp / "hard.jsonl")
    shutil.copy(DETECTOR, tmp / "d.safetensors")
    refused("run", image, "-o", f"jsonl:{image}")
    refused("run", image, "-o", "null:", "-o", f"jsonl:{tmp}/soft.jsonl")
    refused("run", image, "-o", f"jsonl:{tmp}/hard.jsonl")
    refused("run", image, "-o", "jsonl:in.png", cwd=tmp)
    refused("run", f"@{tmp}/list.txt", "-o", f"jsonl:{tmp}/list.txt")
    refused("run", f"@{tmp}/list.txt", "-o", f"jsonl:{image}")
    refused("run", tmp / "in", "-o", f"jsonl:{inside}")
    refused("run", scan, "-o", f"masks:{scan}")
    (tmp / "apart.mhd").write_bytes(scan.read_bytes()[:-96 * 80].replace(b"LOCAL", b"apart.raw"))
    (tmp / "apart.raw").write_bytes(bytes(96 * 80))
    for source in (tmp / "apart.mhd", tmp):
        refused("run", source, "-o", f"jsonl:{tmp}/apart.raw")
    for option in ("--kpi", "--trace", "--dump"):
        refused("run", image, option, image)
    for command in ("run", "detect"):
        refused(command, image, "--detector", tmp / "d.safetensors", "--dump", tmp / "d.safetensors")
    refused("segment", image, "--point", "10,10,1", "-o", f"jsonl:{image}")
    (tmp / "names.txt").write_text("bone\n")
    (tmp / "c.yaml").write_text("precision: fp16\n")
    (tmp / "folder").mkdir()
    shutil.copy(DETECTOR, tmp / "folder/model.safetensors")
    refused("convert", DETECTOR, tmp / "names.txt", "--names", tmp / "names.txt")
    refused("convert", DETECTOR, tmp / "c.yaml", "--config", tmp / "c.yaml")
    for source, out in ((image, image), (tmp / "in", inside), (f"@{tmp}/list.txt", tmp / "list.txt")):
        refused("convert", DETECTOR, out, "--precision", "int8", "--calibrate", source)
    _, err = um("convert", tmp / "folder", tmp / "folder/model.safetensors", "--precision", "int8", "--calibrate", "phantom:", code=2)
    assert "is also the input" in err and " dB" not in err, err  # before anything is measured
    assert "nothing is exported to .json" in um("convert", DETECTOR, tmp / "folder/config.json", code=2)[1]
    um("run", "phantom:frames=1", "-o", f"record:{tmp}/r")
    refused("replay", tmp / "r", "-o", f"jsonl:{tmp}/r/packets.jsonl")
    um("run", image, "-o", f"jsonl:{tmp}/in/new.jsonl")
    (tmp / "in" / "a_mask.png").write_bytes(inside.read_bytes())
    refused("run", tmp / "in", "-o", f"dir:{tmp}/in", code=1)  # while it runs: its outputs are called like frames
    if "videos" in um("--help")[0]:
        um("run", "phantom:frames=2", "-o", f"video:{tmp}/in.mp4")
        refused("run", tmp / "in.mp4", "-o", f"video:{tmp}/in.mp4")


@test
def what_a_link_leads_to_is_written(tmp):
    """Into the folder of that, which may be on another disk; the link stays, also one to nothing yet."""
    (tmp / "far").mkdir()
    (tmp / "far/there.safetensors").write_text("old")
    for name in ("there.safetensors", "m.mha", "j.jsonl"):
        (tmp / name).symlink_to(f"far/{name}")
    um("run", "phantom:frames=1", "-o", f"masks:{tmp}/m.mha", "-o", f"jsonl:{tmp}/j.jsonl")
    um("convert", DETECTOR, tmp / "there.safetensors")
    assert all(p.is_symlink() for p in tmp.iterdir() if p.name != "far"), list(tmp.iterdir())
    assert (tmp / "far/m.mha").read_bytes().startswith(b"ObjectType") and len(list((tmp / "far").iterdir())) == 3
    assert (tmp / "far/there.safetensors").stat().st_size > 1 << 20
    (tmp / "none.mha").symlink_to("far/none.mha")
    um("run", tmp / "far/j.jsonl", "-o", f"masks:{tmp}/none.mha", code=1)
    assert (tmp / "none.mha").is_symlink() and not (tmp / "far/none.mha").exists()


@test
def missing_and_broken_inputs(tmp):
    _, err = um("run", tmp / "nothing.png", code=1)
    assert "nothing.png" in err
    (tmp / "empty").mkdir()
    um("run", tmp / "empty", code=1)
    _, err = um("run", "warp:9", code=2)
    _, err = um("run", "phantom:colour=red", code=2)
    assert "colour" in err
    for spec in ("phantom:frames=1,seed=2,frames=3", "phantom:frames=1,frames=3", "igtl://127.0.0.1:9?idle-ms=1&pair-ms=3&idle-ms=3"):
        _, err = um("run", spec, code=2)
        assert 'is given twice, the second time as "3"' in err, err
    for command in ("run", "serve", "detect"):  # nobody can push frames to a command
        _, err = um(command, "push:", code=2)
        assert "push:" in err and "stdin" in err, err
    images = tmp / "images"
    images.mkdir()
    png(images / "a.png", 96, 80)
    png(images / "c.png", 96, 80)
    (images / "b.png").write_bytes((images / "a.png").read_bytes()[:60])
    out, err = um("run", images)
    assert [p["frame_id"] for p in lines(out)] == [0, 2] and "b.png" in err and "1 unreadable" in err, err
    out, err = um("run", images, "--strict", code=1)
    assert err.count("b.png") == 1, err  # told once, as what it ended with
    (images / "d.png").write_bytes(b"none")
    _, err = um("run", images, "--loop", "--frames", 12, "-o", "null:")  # three rounds: each once
    assert err.count("b.png: ") == err.count("d.png: ") == 1 and "6 unreadable" in err, err
    plus = background("igtl", "fake-plus", ":0", images, "--loop", "--frames", 12, "--fps", 0)
    with socket.create_connection(("127.0.0.1", said_port(plus))) as peer:
        while peer.recv(1 << 16):
            pass
    err = plus.communicate(timeout=60)[1]
    assert err.count("b.png: ") == err.count("d.png: ") == 1 and "6 frames sent, 6 unreadable" in err, err
    os.remove(images / "d.png")
    only = tmp / "only\x1b[2J"  # which a terminal would obey
    only.mkdir()
    shutil.copy(images / "b.png", only)
    _, err = um("run", only, code=1)
    assert "only\\x1b[2J: no usable frame" in err and "stage ms" not in err and "\x1b" not in err, err


@test
def wrong_models(tmp):
    _, err = um("run", "phantom:frames=1", "--detector", tmp / "none.pth", code=1)
    assert "none.pth" in err
    _, err = um("run", "phantom:frames=1", "--detector", SEGMENTER, code=1)
    assert "mobile_sam" in err and "D-FINE" in err, err
    _, err = um("run", "phantom:frames=1", "--segmenter", DETECTOR, code=1)
    assert "dfine" in err and "SAM" in err, err
    (tmp / "noise.pt").write_bytes(os.urandom(4096))
    _, err = um("run", "phantom:frames=1", "--segmenter", tmp / "noise.pt", code=1)
    assert "noise.pt" in err
    cut = tmp / "cut.safetensors"
    cut.write_bytes(DETECTOR.read_bytes()[:100000])
    _, err = um("inspect", cut, code=1)
    assert "cut.safetensors" in err


@test
def options_that_mean_nothing(tmp):
    for arguments in (["--conf", "2"], ["--conf", "x"], ["--gate", "maybe"], ["--frames", "0"], ["--crop", "1,2,3"], ["--threads", "0"],
                      ["--class", "femur"], ["--class", "7"], ["--device", "toaster"], ["--precision", "fp7"], ["--det-size", "333"],
                      ["--sam-size", "100"], ["--sam-as-numpy", "2"], ["--assert-transfers", "1"], ["--point", "1,2,1"],
                      ["--on-device-lost", "maybe"], ["--conf", " 0.5"], ["--conf", "0x1p-1"], ["--conf", "nan"], ["--threads", " 1"],
                      ["--threads", "+1"], ["--threads", "4294967297"], ["--frames", "1e3"], ["--crop", "0,0,5,"], ["--crop", "0,0,nan,5"],
                      ["--guard-seed", "-1"], ["--guard-seed", " 1"], ["--guard-seed", "18446744073709551616"]):
        _, err = um("run", "phantom:frames=1", *arguments, code=2)
        assert err.startswith("ultramotion: ") or "ultramotion: " in err, err
    err = um("run", "phantom:frames=1", "--igtl-version", 3, "-o", "igtl::0", code=2)[1]
    assert '--igtl-version: "3" is not one of 1|2' in err, err
    for option, value in (("--dump", "FILE.safetensors"), ("--names", "FILE"), ("--kpi", "FILE|-"), ("--detector", "FILE"), ("--class", "NAME|N")):
        err = um("run", "phantom:frames=1", option, "", code=2)[1]
        assert f"{option}: is empty, want {value}" in err, err
    assert "run: --conf wants a value: 0.5" in um("run", "phantom:frames=1", "--conf", code=2)[1]
    um("run", "phantom:frames=1", "--class", "bone", "-o", "null:")
    for many in (2, 3, 9):  # a pattern that a shell made files of
        err = um("run", *["a.png", "b.png", *["c.png"] * 7][:many], code=2)[1]
        assert f'run: "b.png" is one argument too many, of {many}; a pattern goes in quotes' in err and "usage:" in err, err


@test
def options_that_cannot_act(tmp):
    run = ("run", "phantom:frames=1", "-o", "null:")
    for lacks, *arguments in (("without --realtime", *run, "--max-age-ms", 0), ("without --shadow", *run, "--shadow-every", 30),
                              ("without --kpi", *run, "--kpi-events", "all"), ("without --kpi FILE", *run, "--kpi-keep", 2),
                              ("without --kpi FILE", *run, "--kpi", "-", "--kpi-max-mb", 64), ("without --track 1", *run, "--theta-on", 0.6),
                              ("without --track 1", "serve", *run[1:], "--objects", 2, "--theta-off", 0.3),
                              ("without --objects 2 or more", *run, "--per-class"), ("with --objects 2 or more", *run, "--objects", 2, "--presence", 4),
                              ("without --trace FILE", *run, "--trace-steps"),
                              ("without --device guard", *run, "--guard-seed", 1),
                              ("for a source other than -", *run, "--size", "64x64"), ("for a source other than -", *run, "--pixel", "gray8"),
                              ("for a source other than files", *run, "--recursive"), ("for a source other than files and", *run, "--window", "auto"),
                              ("for a source that is not live", *run, "--lag-alarm-ms", 9), ("for a source other than igtl", *run, "--igtl-crc", "count"),
                              ("without a source or sink igtl", *run, "--igtl-version", 2), ("without a sink igtl", *run, "--igtl-max-fps", 9),
                              ("without --calibrate", "convert", DETECTOR, tmp / "out", "--frames", 3), ("with --results", "val", tmp, "--results", tmp, "--nms", 1),
                              ("with --results", "val", tmp, "--results", tmp, "--device", "cpu"), ("with --results", "val", tmp, "--results", tmp, "--threads", 1),
                              ("for igtl sniff and fake-slicer", "igtl", "sniff", ":0", "--fps", 3), ("for a bench other than live", "bench", "--fps", 3),
                              ("for a bench other than kernels and", "bench", "--table"), ("for a bench other than pipeline", "bench", "live", "--serve"),
                              ("with --serve", "bench", "--serve", "--frames", 3), ("for a bench other than stages", "bench", "--rounds", 3),
                              ("for a bench of the networks", "bench", "kernels", "--conf", 0), ("for a bench of the networks", "bench", "stages", "--frames", 3),
                              ("for a bench other than pipeline and live", "bench", "residency", "--sam-as-numpy", 1),
                              ("for a bench other than pipeline and live", "bench", "roofline", "--inflight", 2)):
        option = [a for a in arguments if str(a).startswith("--")][-1]
        err = um(*arguments, code=2)[1]
        assert f"ultramotion: {option}: nothing {lacks}" in err, err
    config = tmp / "all.yaml"
    config.write_text("recursive: true\nigtl-max-fps: 9\n")  # which may serve several sources
    um(*run, "--config", config)
    um("serve", "v4l2:/dev/no_such", "-o", "null:", "--lag-alarm-ms", 9, "--window", "auto", code=1)  # is not there
    config.write_text("kpi-keep: 3\n")
    assert "--kpi-keep: nothing without --kpi FILE" in um(*run, "--config", config, code=2)[1]
    um(*run, "--config", config, "--kpi", tmp / "kpi", "--kpi-keep", 2)
    um(*run, "-q", "-v", "--conf", "0.4", "--conf=2", code=2)
    um(*run, "-q", "-v", "--conf", "0.4", "--conf=0.5")  # of one given twice the last counts
    assert '"phantom:" is one argument too many' in um("igtl", "sniff", ":0", "phantom:", code=2)[1]
    assert '--fps: "0" is not a number from 0.1' in um("bench", "live", "--fps", 0, code=2)[1]


@test
def auto_is_what_would_be_without_the_option(tmp):
    config = tmp / "small.yaml"
    config.write_text("det-size: 256\nsam-size: 64\n")
    auto = ["--det-size", "auto", "--sam-size", "auto", "--device", "auto", "--precision", "auto"]
    plain, small, back = (um("run", "phantom:frames=1", "-o", "null:", *options)[1] for options in ([], ["--config", config], ["--config", config, *auto]))
    sizes = [re.search(r"dfine-n (\d+), .*mobile-sam (\d+)", err).groups() for err in (plain, small, back)]
    assert sizes[1] == ("256", "64") and sizes[0] == sizes[2] != sizes[1], sizes
    for option in ("--det-size", "--sam-size"):
        assert "is not auto" in um("run", "phantom:frames=1", option, "y", code=2)[1]


@test
def not_in_this_build(tmp):
    _, err = um("run", "phantom:frames=1", "--precision", "fp16", code=1)
    assert "not in this build" in err, err


@test
def int8_is_calibrated(tmp):
    file = tmp / "int8.safetensors"
    for arguments in (["--calibrate", "phantom:"], ["--precision", "int8"], ["--precision", "fp16", "--calibrate", "phantom:"],
                      ["--precision", "int8", "--calibrate", "phantom:", "--upstream"], ["--precision", "int8", "--calibrate", "-"]):
        um("convert", DETECTOR, file, *arguments, code=2)
    for out, what, code in ((tmp / "none" / "x.safetensors", "cannot be written", 1), (tmp / "x.pth", "want .safetensors", 2)):
        _, err = um("convert", DETECTOR, out, "--precision", "int8", "--calibrate", "phantom:frames=4", code=code)
        assert what in err and " dB" not in err, err  # before anything is measured
    _, err = um("convert", DETECTOR, file, "--precision", "int8", "--calibrate", "phantom:empty=0,frames=4")
    assert " dB " in err and "within 2 px" in err, err
    assert file.stat().st_size < DETECTOR.stat().st_size + (1 << 15)  # its weights as they were stored
    out, _ = um("inspect", file)
    rows = out.partition("  int8:\n")[2].partition("  int8_scores:")[0].splitlines()
    assert len(rows) > 50 and 90 < max(map(len, rows)) <= 97, rows  # all of it: --json
    assert max(map(len, json.loads(um("inspect", file, "--json")[0])["metadata"]["int8"].splitlines())) > 500
    assert "int8_scores:" in out and "encoder.lateral_convs.0.conv" in out and "decoder.dec_bbox_head.0.layers.0\n" not in out, out
    for act, stays in (("relu", True), ("silu", False)):
        _, err = um("convert", file, tmp / "again.safetensors", "--det-act", act)
        assert ("has no ranges for int8" not in err) == stays and ("int8" in um("inspect", tmp / "again.safetensors", "-q")[0]) == stays, err
    out, _ = um("doctor")
    told = next(line for line in out.splitlines() if line.startswith("int8"))
    if "MISSING" in told:
        _, err = um("detect", "phantom:frames=1", "--precision", "int8", "--detector", file, code=1)
        assert "int8" in err and "fp32" in err, err
        return
    _, err = um("detect", "phantom:frames=1", "--precision", "int8", code=1)
    assert "convert --precision int8 --calibrate" in err, err
    _, err = um("detect", "phantom:frames=1", "--precision", "int8", "--detector", file, "--det-act", "silu", code=1)
    assert "measured with another activation" in err, err
    out, _ = um("detect", "phantom:frames=2,empty=0", "--precision", "int8", "--detector", file)
    assert len(lines(out)) == 2, out


@test
def calibration_looks_at_all_of_a_folder(tmp):
    (tmp / "own" / "b").mkdir(parents=True)
    for i in range(2):
        png(tmp / "own" / f"{i}.png", 64, 64, lambda x, y: 0)
        png(tmp / "own" / "b" / f"{i}.png", 64, 64, lambda x, y: b"\1\0", 16)
    um("phantom", "-o", tmp / "made", "--frames", "1", "--seed", "900001", "--look", "default")
    (tmp / "made/frames/00000.png").replace(tmp / "own/b/0.png")
    command = ("convert", DETECTOR, tmp / "int8.safetensors", "--precision", "int8", "--calibrate", tmp / "own")
    assert "of 1 best boxes with a score from 0.5" in um(*command, "--recursive", "--frames", "2")[1]  # the first and the third
    assert "from 0.5" not in um(*command, "--frames", "2")[1]  # black ones
    assert "b/1.png: warning: 16-bit samples" in um(*command, "--recursive")[1]
    assert "16-bit" not in um(*command, "--recursive", "--window", "auto")[1]
    # also of what nobody counts beforehand, and what cannot be read is passed over
    rows = gray(tmp / "own/b/0.png")
    (tmp / "pages").mkdir()
    (tmp / "pages/0.png").write_bytes(b"")
    write_tiff(tmp / "pages/1.tif", [[bytes(len(rows[0]))] * len(rows)] * 4 + [rows])
    _, err = um(*command[:-1], tmp / "pages", "--frames", "3")
    assert "0.png: an empty file" in err and "of 1 best boxes with a score from 0.5" in err, err
    assert "no frame to calibrate on" in um(*command[:-1], tmp / "pages/0.png", code=1)[1]
    assert "--window: nothing" in um("convert", DETECTOR, tmp / "x.safetensors", "--window", "auto", code=2)[1]


@test
def bundled_models_are_calibrated(tmp):
    shipped = {"ULTRAMOTION_MODELS": str(ROOT / "models")}
    out, _ = um("doctor", env=shipped)
    assert out.count("calibrated for int8") == 2, out
    if "int8       cpu: MISSING" in out:
        raise Skip("int8")
    command = ("run", "phantom:seed=900000,frames=4,empty=0", "-o", "jsonl:-")
    floats, small = (lines(um(*command, "--precision", p, env=shipped)[0]) for p in ("fp32", "int8"))
    for f, s in zip(floats, small, strict=True):
        assert f["state"] == s["state"] == "VISIBLE" and s["precision"] == "int8", s
        assert max(abs(a - b) for a, b in zip(f["box_xyxy"], s["box_xyxy"])) < 2, (f["box_xyxy"], s["box_xyxy"])


@test
def bundled_models_say_what_they_are(tmp):
    for name, own in (("dfine_n_bone_320", {"classes"}), ("mobile_sam_bone_384", {"prompts", "started_from"})):
        said = json.loads(um("inspect", "--json", ROOT / f"models/{name}.safetensors")[0])["metadata"]
        assert own | {"architecture", "input_size", "training_data", "steps", "licence", "producer", "scores"} <= set(said), set(said)


@test
def folders_are_no_other_sinks(tmp):
    for command in (["phantom"], ["val", "phantom:frames=1"]):
        _, err = um(*command, "-o", f"jsonl:{tmp}/a", code=2)
        assert "writes a folder" in err, err


@test
def calibration_wants_something_to_outline(tmp):
    file = tmp / "int8.safetensors"
    _, err = um("convert", SEGMENTER, file, "--precision", "int8", "--calibrate", "phantom:frames=4,empty=1", code=2)
    assert "no frame to calibrate on has a bone" in err and not file.exists(), err
    _, err = um("convert", SEGMENTER, file, "--precision", "int8", "--calibrate", "phantom:seed=77,frames=12", "--frames", "6")
    assert "over 6 frames with a mask" in err, err
    # images that nobody has said anything of: what a detector finds is outlined, and all layers are good for that
    um("phantom", "-o", tmp / "own", "--frames", "8", "--seed", "900101", "--look", "hard")
    bundled = ROOT / "models/mobile_sam_bone_384.safetensors"
    command = ("convert", bundled, file, "--precision", "int8", "--calibrate", tmp / "own/frames", "--detector")
    _, err = um(*command, ROOT / "models/dfine_n_bone_320.safetensors")
    assert "boxes of the detector: of 8 frames " in err and "53 of 53 layers on bytes" in err, err
    assert "none.pth" in um(*command, tmp / "none.pth", code=1)[1]
    shutil.copy(DETECTOR, tmp / "d.safetensors")
    assert "is also the input" in um(*command[:2], tmp / "d.safetensors", *command[3:], tmp / "d.safetensors", code=2)[1]
    shutil.copy(ROOT / "models/dfine_n_bone_320.safetensors", tmp)
    own = tmp / "dfine_n_bone_320.safetensors"
    before = own.read_bytes()
    assert "is also the input" in um(*command[:2], own, *command[3:-1], env={"ULTRAMOTION_MODELS": str(tmp)}, code=2)[1] and own.read_bytes() == before
    for wrong, word in ((("convert", DETECTOR, file, *command[3:], DETECTOR), "--detector is for a segmenter"),
                        (("convert", bundled, file, *command[3:6], "phantom:frames=4", "--detector", DETECTOR), "the phantom says"),
                        (("convert", bundled, file, "--detector", DETECTOR), "without --calibrate")):
        assert word in um(*wrong, code=2)[1], wrong


@test
def precision_of_the_device(tmp):
    for device in ("cpu", "guard"):
        _, err = um("detect", "phantom:frames=1", "--device", device, "--precision", "fp16", code=1)
        assert "precision fp16" in err and device in err, err
        out, err = um("run", "phantom:frames=1", "--device", device, "--precision", "fp32")
        assert lines(out)[0]["precision"] == "fp32" and "fp32" in err.splitlines()[0], err
        assert lines(out)[0]["precision_reason"] == "asked for"
        out, err = um("run", "phantom:frames=1", "--device", device)
        chosen = lines(out)[0]["precision"]
        assert lines(out)[0]["precision_reason"] == ("AMX" if chosen == "bf16" else "no AMX")
        assert chosen == ("bf16" if "(amx" in err.splitlines()[0] else "fp32") and chosen in err.splitlines()[0], err


@test
def a_missing_gpu_is_named(tmp):
    _, err = um("run", "phantom:frames=1", "--device", "cuda:0", code=1)
    assert "cuda:0" in err and any(why in err for why in ("not in this build", "no NVIDIA driver", "has 0 GPUs")), err
    out, _ = um("doctor")
    at = next(i for i, line in enumerate(out.splitlines()) if "cuda:0" in line)
    assert "MISSING" in out.splitlines()[at] and any(word in out.splitlines()[at + 1] for word in ("CUDA 12", "nvidia-smi")), out
    _, err = um("run", "phantom:frames=1", "--device", "cuda:0", "--on-device-lost", "cpu", code=1)
    assert "cuda:0" in err, "a device that was never there is not lost"


@test
def policy_for_a_lost_device(tmp):
    for value in ("fail", "cpu"):
        packet = lines(um("run", "phantom:seed=900003,frames=1", "--device", "guard", f"--on-device-lost={value}")[0])[0]
        assert packet["device"] == "guard" and packet["lost_device"] is None
    um("run", "phantom:frames=1", "--device", "guard", "--on-device-lost", "fail", "--assert-transfers", "1,1", "-o", "null:")
    _, err = um("run", "phantom:frames=1", "--device", "guard", "--on-device-lost", "cpu", "--assert-transfers", "1,1", code=2)
    assert "--assert-transfers" in err, err
    _, err = um("detect", "phantom:frames=1", "--on-device-lost", "cpu", code=2)
    assert "--on-device-lost" in err


@test
def detect_prints_boxes_best_first(tmp):
    frames = lines(um("detect", "phantom:seed=900003,frames=2", "--conf", "0.01")[0])
    assert [f["frame_id"] for f in frames] == [0, 1]
    for f in frames:
        assert list(f) == ["frame_id", "ts", "source", "boxes"] and f["source"] == "phantom:seed=900003,frames=2"
        assert all(list(b) == ["box_xyxy", "score", "label", "name"] and b["name"] == "bone" for b in f["boxes"])
        scores = [b["score"] for b in f["boxes"]]
        assert scores == sorted(scores, reverse=True) and all(0 <= b["box_xyxy"][0] <= b["box_xyxy"][2] <= 422 for b in f["boxes"])
    best = lines(um("run", "phantom:seed=900003,frames=2")[0])
    for f, p in zip(frames, best):
        if p["state"] == "VISIBLE":
            assert abs(f["boxes"][0]["score"] - p["score"]) < 1e-5
            assert max(abs(a - b) for a, b in zip(f["boxes"][0]["box_xyxy"], p["box_xyxy"])) < 1e-3
    fields = ["NDims = 2", "DimSize = 8 8", "ElementType = MET_UCHAR", "Seq_Frame0000_Timestamp = 10.123456789", "ElementDataFile = LOCAL"]
    (tmp / "timed.mha").write_bytes("".join(f"{field}\n" for field in fields).encode() + bytes(64))
    assert lines(um("detect", tmp / "timed.mha")[0])[0]["ts"] == 10.123456789


@test
def crop_reports_full_image_coordinates(tmp):
    size, origin = (300, 260), (40, 30)
    png(tmp / "whole.png", 400, 320)
    png(tmp / "part.png", *size, value=lambda x, y: ((x + origin[0]) * 7 + (y + origin[1]) * 13) % 256)
    crop = f"{origin[0]},{origin[1]},{size[0]},{size[1]}"
    a = lines(um("detect", tmp / "whole.png", "--crop", crop, "--conf", "0")[0])[0]["boxes"][0]
    b = lines(um("detect", tmp / "part.png", "--conf", "0")[0])[0]["boxes"][0]
    assert a["score"] == b["score"]
    p = lines(um("run", tmp / "whole.png", "--crop", crop, "--conf", "0")[0])[0]
    q = lines(um("run", tmp / "part.png", "--conf", "0")[0])[0]
    assert p["score"] == q["score"] and p["mask_area_px"] == q["mask_area_px"]
    for command in ("run", "detect"):
        assert "no usable frame" in um(command, tmp, "--crop", "390,0,20,20", code=1)[1]
        _, err = um(command, tmp, "--crop", "0,0,400,320", "--strict", code=1)  # part.png comes first
        out, err = um(command, tmp, "--crop", "0,0,400,320")  # of the others the run goes on
        assert [p["source"] for p in lines(out)] == ["whole.png"] and "1 unreadable" in err, err
        assert "part.png: " in err and "0,0,400,320 reaches beyond" in err, err


@test
def the_bundled_models_see_a_tint_as_gray(tmp):
    levels = gray(ROOT / "tests" / "golden" / "end_to_end" / "phantom_0.png")
    blue = lambda v: bytes([v * 3 // 5, v * 4 // 5, v])
    png(tmp / "tint.png", 422, 558, lambda x, y: blue(levels[y][x]), color=2)
    luminance = [sum(c * k for c, k in zip(blue(v), (19595, 38470, 7471))) + 0x8000 >> 16 for v in range(256)]
    png(tmp / "gray.png", 422, 558, lambda x, y: luminance[levels[y][x]])
    bundled = {"ULTRAMOTION_MODELS": str(ROOT / "models")}

    def found(command, name, *options):
        line = lines(um(command, tmp / name, *options, env=bundled)[0])[0]
        return [line.get(key) for key in ("score", "box_xyxy", "mask", "boxes")]

    for command, *options in ("run",), ("detect",), ("segment", "--box", "100,100,300,400"):
        assert found(command, "tint.png", *options) == found(command, "gray.png", *options), command
    for command in "run", "detect":
        assert found(command, "tint.png", "--gray", "0") != found(command, "gray.png"), command
    assert "gray: 1" in um("inspect", ROOT / "models" / "dfine_n_bone_320.safetensors")[0]


@test
def the_image_on_a_screen_is_found(tmp):
    def screen(path, rows):
        png(path, 400, 320, value=lambda x, y: (x * 7 + y * 13) % 256 if 96 <= x < 320 and 64 <= y < rows else 40)

    part, whole = [96 - 16, 64 - 16, 256, 96], [96 - 16, 64 - 16, 256, 224]  # cells of 8 pixels, one around, in twos
    screen(tmp / "a.png", 128)
    screen(tmp / "b.png", 256)
    out, err = um("run", tmp, "--crop", "auto", "--conf", "0")
    assert [p["crop"] for p in lines(out)] == [part, whole], [p["crop"] for p in lines(out)]
    for crop in part, whole:
        assert "--crop auto: {},{},{},{} of 400x320\n".format(*crop) in err, err
    same = ("state", "score", "box_xyxy", "mask", "crop")
    for packet, name, crop in zip(lines(out), "ab", (part, whole)):
        told = ("--crop", ",".join(map(str, crop)), "--conf", "0")
        assert [packet[k] for k in same] == [lines(um("run", tmp / f"{name}.png", *told)[0])[0][k] for k in same]
        boxes = [line["boxes"] for line in lines(um("detect", tmp, "--crop", "auto", "--conf", "0")[0])]
        assert boxes["ab".index(name)] == lines(um("detect", tmp / f"{name}.png", *told)[0])[0]["boxes"]
    (tmp / "c.yaml").write_text("crop: auto\n")
    again, err = um("run", tmp / "b.png", "--config", tmp / "c.yaml", "-q")
    assert lines(again)[0]["crop"] == whole and not err, err
    assert lines(um("run", tmp / "b.png", "-q")[0])[0]["crop"] is None
    um("run", tmp / "*.png", "--crop", "auto", "--conf", "0", "-o", f"record:{tmp}/rec", "-q")
    assert "crop: auto\n" in (tmp / "rec" / "settings.yaml").read_text()
    assert "2 packets equal" in um("replay", tmp / "rec", "--verify")[1]
    _, err = um("run", tmp / "b.png", "--crop", "automatic", code=2)
    assert '"automatic" is not auto|X,Y,W,H' in err, err
    _, err = um("run", tmp / "b.png", "--crop", "-1,0,20000,8", code=2)
    assert '"-1,0,20000,8": want auto|X,Y,W,H from 0 to 16384' in err, err


@test
def what_is_wrong_with_each_frame_is_said_once(tmp):
    """A live stream would fill a journal."""
    _, err = um("run", "phantom:frames=9,width=90,height=80", "--crop", "0,0,200,200", code=1)
    assert err.count("the crop 0,0,200,200 reaches beyond it") == 1 and "9 unreadable" in err, err


@test
def a_thin_image_is_passed_over(tmp):
    """Nothing would be left of it on a canvas: it is named and counted, and the others are outlined."""
    png(tmp / "a.png", 1, 600)
    png(tmp / "b.png", 600, 1)
    png(tmp / "c.png", 90, 80)
    for command, *options in (("run", "--sam-size", "64"), ("segment", "--sam-size", "64", "--point", "0,0,1", "-o", "jsonl:-")):
        out, err = um(command, tmp, *options)
        assert [p["source"] for p in lines(out)] == ["c.png"] and "2 unreadable" in err, (command, err)
        for name, pixels in (("a.png", "1x600"), ("b.png", "600x1")):
            assert f"{name}: image {pixels}: too thin" in err, (command, err)
        assert not um(command, tmp, *options, "--strict", code=1)[0]


@test
def families_of_segmenters(tmp):
    image = ROOT / "tests/golden/end_to_end/phantom_0.png"
    prompt = (image, "--point", "250,150,1", "-o", "jsonl:-")
    um("convert", SEGMENTER, tmp / "tiny.safetensors", "--sam-family", "tiny-sam")
    said = json.loads(um("inspect", tmp / "tiny.safetensors", "--json")[0])
    assert said["architecture"] == "tiny-sam" and said["input_size"] == 256, said["architecture"]
    told, err = um("segment", *prompt, "--sam-family", "tiny-sam")
    assert "tiny-sam 256" in err, err
    written = lines(um("segment", *prompt, "--segmenter", tmp / "tiny.safetensors")[0])[0]
    assert lines(told)[0]["mask"] == written["mask"] and lines(told)[0]["score"] == written["score"]
    three = lines(um("segment", *prompt, "--multimask")[0])[0]
    assert three["mask"] == written["mask"] and abs(three["score"] - written["score"]) < 1e-6
    one = lines(um("segment", *prompt)[0])[0]
    assert one["score"] != written["score"]
    for family in ("lite-medsam", "sam-vit", "medsam-vit", "nothing"):
        _, err = um("segment", *prompt, "--sam-family", family, code=2)
        assert family in err and "mobile-sam" in err, err
        um("convert", SEGMENTER, tmp / "x.safetensors", "--sam-family", family, code=2)


@test
def segment_takes_boxes_and_points(tmp):
    image = ROOT / "tests/golden/end_to_end/phantom_0.png"
    expected = json.loads((image.parent / "expected.json").read_text())["phantom_0.png"]
    box = ",".join(map(str, expected["box_xyxy"]))
    packet = lines(um("segment", image, "--box", box)[0])[0]
    assert packet["mask"]["size"] == expected["mask"]["size"] and packet["mask_area_px"] > 1000
    point = lines(um("segment", image, "--point", "250,150,1")[0])[0]
    assert point["mask"] is not None
    multi = lines(um("segment", image, "--box", box, "--point", "250,150,1", "--multimask", "-o", f"dir:{tmp}", "-o", "jsonl:-")[0])[0]
    for number in (0, 1):
        same = lines(um("segment", image, "--box", box, "--point", "250,150,1", "--multimask", "--device", "guard", "--sam-as-numpy", number)[0])[0]
        assert same["as_numpy"] == number and same["mask"] == multi["mask"], same["as_numpy"]
    assert multi["as_numpy"] == 0 and (tmp / "phantom_0_mask.png").exists()
    (posed,), (run,) = (lines(um(*command)[0]) for command in (("segment", "phantom:sweep=1,frames=1", "--box", "9,9,90,90"), ("run", "phantom:sweep=1,frames=1")))
    for key in ("pose", "spacing_mm", "precision_reason"):
        assert posed[key] == run[key] and run[key], key
    first, second, third = (p["transfers"] for p in lines(um("segment", "phantom:frames=3", "--box", "9,9,90,90", "--device", "guard")[0]))
    assert second == third == {**first, "setup": 0} and first["setup"] and (first["up"], first["down"]) == (2, 2), (first, second, third)
    for bad in ("nan,0,10,10", "50,50,10,10", "900,0,990,10"):
        _, err = um("segment", image, "--box", bad, code=2)
        assert "box" in err
    um("segment", image, "--box", "1,2,3", code=2)
    for bad in ("250,150", "250,150,4294967297", "250,150,2", "250,150,1,", "nan,150,1", "250,150,1x"):
        _, err = um("segment", image, "--point", bad, code=2)
        assert "is not X,Y,LABEL, with LABEL 1 for object or 0 for background" in err, err
    _, err = um("segment", image, "--box", box, "--box=1,1,9,9", code=2)
    assert "segment: --box is there twice: want one box" in err, err
    for outside in ("250,600,1", "-1,150,0"):
        _, err = um("segment", image, f"--point={outside}", code=2)
        assert f"{image.name}: --point {outside[:-2]} is not in the 422x558 image" in err, err
    um("segment", image, code=2)
    assert lines(um("segment", image, "--box", box, "--conf", 1)[0])[0]["state"] == "VISIBLE", "its masks are what was asked for, whatever the score"


@test
def raw_frames_on_stdin(tmp):
    frame = bytes((x * 7 + y * 13) % 256 for y in range(80) for x in range(96))
    png(tmp / "same.png", 96, 80)
    out, _ = um("run", "-", "--size", "96x80", "--conf", "0", stdin=frame * 2)
    same = lines(um("run", tmp / "same.png", "--conf", "0")[0])[0]
    packets = lines(out)
    assert len(packets) == 2 and packets[0]["score"] == same["score"] and packets[0]["mask"] == same["mask"]
    rgb = bytes(v for v in frame for _ in range(3))
    out, _ = um("run", "-", "--size", "96x80", "--pixel", "rgb8", "--conf", "0", stdin=rgb)
    assert lines(out)[0]["score"] == same["score"]
    _, err = um("run", "-", "--size", "96x80", "-o", "null:", stdin=frame + b"rest")
    assert "4" in err and "begins like" not in err
    _, err = um("run", "-", "--size", "96x80", "-o", "null:", stdin=b"YUV4MPEG2 W96 H80\n" + frame)
    assert "it begins like a YUV4MPEG video, and is read as raw pixels" in err, err
    um("run", "-", stdin=b"", code=2)
    assert "-: what was read is gone and cannot be looped" in um("run", "-", "--size", "96x80", "--loop", stdin=frame, code=2)[1]
    for size in ("96y80", "4294967392x80", "96x4294967376", "96x80x", " 96x80", "+96x80", "96x-80", "96", "x", "0x80", "0x60x80"):
        _, err = um("run", "-", "--size", size, stdin=frame, code=2)
        assert "is not WxH" in err, (size, err)
        um("phantom", "-o", tmp / "none", "--size", size, code=2)


@test
def the_services_configuration_is_serves(tmp):
    um("serve", "phantom:frames=1,width=64,height=64", "--config", ROOT / "deploy/serve.yaml", "-o", "null:", cwd=tmp)
    assert '"event":"monitor"' in (tmp / "kpi.jsonl").read_text().replace(" ", "")


@test
def config_file_and_command_line(tmp):
    (tmp / "c.yaml").write_text("conf: 0.0\ndevice: guard\nframes: 2\nsink: [\"jsonl:-\"]\nrealtime: false\n")
    out, _ = um("run", "phantom:seed=900003", "--config", tmp / "c.yaml")
    assert len(lines(out)) == 2 and lines(out)[0]["device"] == "guard"
    out, _ = um("run", "phantom:seed=900003", "--config", tmp / "c.yaml", "--frames", "1", "--device", "cpu")
    assert len(lines(out)) == 1 and lines(out)[0]["device"] == "cpu"
    (tmp / "crop.yaml").write_text("crop: [10, 20, 200, 300]\nbox: [1, 2, 3, 4]\n")
    part, _ = um("run", "phantom:seed=900003,frames=1", "--config", tmp / "crop.yaml", "--conf", "0")
    same, _ = um("run", "phantom:seed=900003,frames=1", "--crop", "10,20,200,300", "--conf", "0")
    assert lines(part)[0]["mask"] == lines(same)[0]["mask"]
    (tmp / "bad.yaml").write_text("konf: 1\n")
    _, err = um("run", "phantom:", "--config", tmp / "bad.yaml", code=2)
    assert "konf" in err and "bad.yaml:1" in err
    (tmp / "broken.yaml").write_text("conf: [1\n")
    um("run", "phantom:", "--config", tmp / "broken.yaml", code=2)
    um("run", "phantom:", "--config", tmp / "absent.yaml", code=2)
    for text, words in ((b"conf: 0\nconfig: c.yaml\n", "hostile.yaml:2: config: a file cannot name another one"),
                        (b"conf: 0\nconf: 0.5\n", "hostile.yaml:2: conf: found twice, first in line 1"),
                        (b"conf: 0\n---\nconf: 0.5\n", "hostile.yaml:2: a second document"),
                        (b"conf: 0\n\0sink: x\n", "hostile.yaml: a zero at byte 8"),
                        (b'conf: "0\\0"\n', "hostile.yaml:1: a zero in a value"),
                        (b"conf: " + b"[" * 60000, "hostile.yaml:1: conf: want plain values"),
                        (b"[" * 200000, "hostile.yaml: more than 65536 bytes"),
                        (b"[" * 60000, "hostile.yaml:1: want a mapping"),
                        (b"{" * 60000, "hostile.yaml:1: want the name of an option"),
                        (b"- " * 30000, "hostile.yaml:1: want a mapping"),
                        (b"conf: &a 0\nsink: *a\n", "hostile.yaml:2: sink: want a plain value or a list"),
                        (b"sink: null:\n", "hostile.yaml:1: mapping values are not allowed in this context (a value that ends in a colon goes in quotes)"),
                        (b"sink: [null:, x]\n", "hostile.yaml:1: found unexpected ':' (a value that ends in a colon goes in quotes)"),
                        (b"sink:\n  - null:\n", "hostile.yaml:2: sink: want plain values (a value that ends in a colon goes in quotes)"),
                        (b"conf: {a: 1}\n", "hostile.yaml:1: conf: want a plain value or a list"),
                        (b"sink: [" + b"x," * 100 + b"]\n", "hostile.yaml:1: sink: more than 64 values"),
                        (b"".join(b"k%d: 1\n" % i for i in range(300)), "hostile.yaml:257: more than 256 options"),
                        (b"conf: \x1b[2J\n", "hostile.yaml:1: control characters are not allowed"),
                        (b'conf: "\\e[2J\\u009b"\n', 'hostile.yaml:1: conf: "\\x1b[2J\\xc2\\x9b" is not a number'),
                        (b"conf: 0\xff\n", "hostile.yaml:1: ")):
        (tmp / "hostile.yaml").write_bytes(text)
        _, err = um("run", "phantom:frames=1", "--config", tmp / "hostile.yaml", code=2)
        assert words in err, (text[:40], err)
    for text in (b"", b"# nothing\n", b"{}\n", b"\xef\xbb\xbf{frames: 1}\n", b"---\nframes: 1\n...\n"):
        (tmp / "small.yaml").write_bytes(text)
        um("run", "phantom:frames=1", "--config", tmp / "small.yaml", "-o", "null:")


@test
def interrupt_closes_sinks_and_prints_the_summary(tmp):
    for number in (signal.SIGINT, signal.SIGTERM):
        path = tmp / f"{number}.jsonl"
        process = subprocess.Popen([COMMAND, "run", "phantom:seed=900003,frames=100000", "-o", f"jsonl:{path}", "-o", "jsonl:-"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ, ULTRAMOTION_MODELS=str(MODELS)))
        process.stdout.readline()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert b"frames" in err and b"stage ms" in err
        assert lines(path.read_text()), "every line is whole"


@test
def interrupt_while_waiting_for_stdin(tmp):
    process = subprocess.Popen([COMMAND, "run", "-", "--size", "96x80"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=dict(os.environ, ULTRAMOTION_MODELS=str(MODELS)))
    process.stdin.write(bytes(96 * 80))
    process.stdin.flush()
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0, process.stderr.read()


@test
def a_reader_that_leaves_is_no_error(tmp):
    process = subprocess.Popen([COMMAND, "run", "phantom:seed=900003,frames=100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=dict(os.environ, ULTRAMOTION_MODELS=str(MODELS)))
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 0, err


@test
def inspect_and_convert(tmp):
    out, _ = um("inspect", DETECTOR, "--json")
    info = json.loads(out)
    assert info["architecture"] == "dfine-n" and info["classes"] == 1 and info["input_size"] == 320 and len(info["sha256"]) == 64
    out, _ = um("inspect", SEGMENTER)
    assert "mobile-sam" in out and "256" in out
    short, _ = um("inspect", SEGMENTER, "-q")
    assert out.startswith(short) and out[len(short):].startswith("tensors\n") and "no list of tensors" in um("inspect", "--help")[0]
    um("convert", DETECTOR, tmp / "d32.safetensors")
    um("convert", tmp / "d32.safetensors", tmp / "d16.safetensors", "--precision", "fp16")
    assert (tmp / "d16.safetensors").stat().st_size < 0.6 * (tmp / "d32.safetensors").stat().st_size
    a = lines(um("detect", "phantom:seed=900003,frames=1")[0])[0]["boxes"]
    b = lines(um("detect", "phantom:seed=900003,frames=1", "--detector", tmp / "d16.safetensors")[0])[0]["boxes"]
    assert a == b
    um("convert", tmp / "nothing.pt", tmp / "x.safetensors", code=1)
    for option, value in (("--det-size", "64"), ("--queries", "1024")):  # with which no detector would open
        _, err = um("convert", DETECTOR, tmp / "x.safetensors", option, value, code=2)
        assert "tokens, want at least one for each of" in err and not (tmp / "x.safetensors").exists(), err
    # a file that may not grow, here to 100 blocks of 512 bytes: an error, and nothing is left
    (tmp / "limited").mkdir()
    limited = subprocess.run(["sh", "-c", 'ulimit -f 100; exec "$0" "$@"', COMMAND, "convert", DETECTOR, tmp / "limited/o.safetensors"],
                             capture_output=True)
    assert limited.returncode == 1 and b"File too large" in limited.stderr, limited
    assert not list((tmp / "limited").iterdir())
    # what metadata says to a terminal stays in the file
    entry = {"__metadata__": {"note\u009b": "\x1b]0;owned\x07\n\u009b2J\x7f"}, "a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}
    header = json.dumps(entry).encode()
    (tmp / "loud.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    out, _ = um("inspect", tmp / "loud.safetensors")
    assert "  note\\xc2\\x9b: \\x1b]0;owned\\x07\\x0a\\xc2\\x9b2J\\x7f\n" in out, out
    out, _ = um("inspect", "--json", tmp / "loud.safetensors")
    assert json.loads(out)["metadata"] == entry["__metadata__"] and all(c >= " " for c in out[:-1]) and "\x9b" not in out


@test
def phantom_writes_frames_and_truth(tmp):
    um("phantom", "-o", tmp / "a", "--frames", "4", "--seed", "900009")
    um("phantom", "-o", tmp / "b", "--frames", "4", "--seed", "900009")
    truth = json.loads((tmp / "a/truth.json").read_text())
    assert len(truth["images"]) == 4 and {"bbox", "segmentation"} <= set(truth["annotations"][0])
    for name in ["frames/00000.png", "frames/00003.png", "masks/00000_mask.png", "truth.json"]:
        assert (tmp / "a" / name).read_bytes() == (tmp / "b" / name).read_bytes(), name
    files = lines(um("run", tmp / "a/frames")[0])
    live = lines(um("run", "phantom:seed=900009,frames=4")[0])
    assert [p["mask"] for p in files] == [p["mask"] for p in live]
    stopped = background("phantom", "-o", tmp / "stopped", "--frames", 10**9, "--size", "64x80")
    while not (tmp / "stopped/frames/00001.png").exists():
        time.sleep(0.01)
    stopped.send_signal(signal.SIGINT)
    err = stopped.communicate(timeout=30)[1]
    written = {f"frames/{image.name}" for image in (tmp / "stopped/frames").iterdir()}
    images = json.loads((tmp / "stopped/truth.json").read_text())["images"]
    assert stopped.returncode == 0 and written == {i["file_name"] for i in images} and f"{len(written)} frames" in err, err
    um("phantom", code=2)
    um("phantom", "-o", tmp / "a", "--frames", "5", "--seed", "7")  # all of the older set is written over
    for more, left in ((["--frames", "3"], "frames/00003.png"), (["--sweep"], "frames/00000.png")):
        _, err = um("phantom", "-o", tmp / "a", *more, code=2)
        assert left in err and "older set" in err, err
    um("phantom", "-o", tmp / "hard", "--look", "hard", "--frames", "2", "--size", "64x80")
    _, err = um("phantom", "-o", tmp / "hard", "--frames", "2", "--size", "64x80", code=2)
    assert "structures/00000.png" in err, err
    um("phantom", "-o", tmp / "two", "--look", "hard", "--frames", "4", "--seed", "5")  # the last image has two bones
    bones = [a for a in json.loads((tmp / "two/truth.json").read_text())["annotations"] if a["image_id"] == 3]
    assert [a["visibility"] is None for a in bones] == [False, True], bones  # known of the first


@test
def phantom_writes_sweeps(tmp):
    um("phantom", "-o", tmp / "a", "--sweep", "--frames", "107", "--seed", "900009")
    truth = json.loads((tmp / "a/truth.json").read_text())
    images, bones = truth["images"], {a["image_id"]: a for a in truth["annotations"]}
    assert [i["file_name"] for i in images] == [f"frames/sweep{k // 105:03}/{k % 105:05}.png" for k in range(107)]
    for i in images:
        assert (tmp / "a" / i["file_name"]).exists() and len(i["pose"]) == 16, i
        bone = bones.get(i["id"])
        assert not bone or (bone["pose"] == i["pose"] and 0 < bone["visibility"] <= 1), (i, bone)
        assert bone or i["event"] not in ("dwell", "gain", "freeze", "jump", "jump back"), i
        assert not bone or i["event"] not in ("away", "lift"), i
    events = [i["event"] for i in images[:105]]
    assert list(dict.fromkeys(events)) == ["away", "approach", "dwell", "gain", "freeze", "shadow", "lift", "jump", "slide", "jump back"]
    still = [i for i in images if i["event"] == "freeze"]
    assert len({(tmp / "a" / i["file_name"]).read_bytes() for i in still}) == 1 == len({str(i["pose"]) for i in still})
    live = lines(um("run", "phantom:seed=900009,frames=9,sweep=1", "-o", f"dir:{tmp}/o", "-o", "jsonl:-")[0])
    assert [p["pose"] for p in live] == [i["pose"] for i in images[:9]] and live[8]["spacing_mm"] == [0.1, 0.1]
    assert (tmp / "o/sweep000/00008_mask.png").exists()
    for more in (["--look", "hard"], ["--size", "64x80"]):
        _, err = um("phantom", "-o", tmp / "b", "--sweep", *more, code=2)
        assert "sweep" in err, err


@test
def doctor_and_bench_speak(tmp):
    out, _ = um("doctor")
    for word in ("device", "cpu", "guard", "kernels", "memory", "detector", "segmenter"):
        assert word in out, out
    assert re.search(r"^viewer     (-o web::8080$|MISSING: web:.* libwebsockets)", out, re.M), out
    if re.search(r"^reads .*videos$", out, re.M):  # with libav, which is loaded on first use, and which another machine may not have
        for major in range(59, 64):
            (tmp / f"libavformat.so.{major}").write_text("")
        assert "  videos: MISSING: videos need libav: " in um("doctor", env={"LD_LIBRARY_PATH": str(tmp)})[0]
    out, _ = um("doctor", env={"ULTRAMOTION_MODELS": str(tmp)}, code=1)
    assert "MISSING" in out
    pipeline = lines(um("bench", "pipeline", "--frames", "2")[0])[0]
    assert pipeline["frames"] == 2 and pipeline["total"]["min"] > 0 and pipeline["peak_mb"] > 10
    assert abs(pipeline["p99_over_p50"] - pipeline["total"]["p99"] / pipeline["total"]["p50"]) < 0.01
    stages = lines(um("bench", "stages", "--rounds", "1")[0])
    assert [s["stage"] for s in stages] == ["detect", "encode", "decode"]
    assert stages[0]["precision"] in CHOSEN
    served = lines(um("bench", "stages", "--serve", stdin=b"decode\ndetect\n")[0])
    assert [s["stage"] for s in served] == ["decode", "detect"]
    image = ROOT / "tests/golden/end_to_end/phantom_0.png"
    served = lines(um("bench", "pipeline", "--serve", stdin=f"{image}\n{image}\n".encode())[0])
    assert len(served) == 2 and all(s["ms"] > 0 and s["state"] == "VISIBLE" for s in served)
    assert served[0]["mask_area_px"] == served[1]["mask_area_px"] > 0
    _, err = um("bench", "pipeline", "--serve", stdin=b"nothing.png\n", code=1)
    assert "nothing.png" in err


@test
def steps_are_named_by_their_place_in_the_network(tmp):
    small = ["--det-size", "256", "--sam-size", "64", "--rounds", "1"]
    steps = lines(um("bench", "kernels", *small)[0])
    of = {stage: [s for s in steps if s["stage"] == stage and s["op"] != "sum"] for stage in ("detect", "encode", "decode")}
    for stage, found in of.items():
        (total,) = [s for s in steps if s["stage"] == stage and s["op"] == "sum"]
        assert [s["min_ms"] for s in found] == sorted((s["min_ms"] for s in found), reverse=True), stage
        assert sorted(s["index"] for s in found) == list(range(len(found)))
        assert abs(sum(s["share"] for s in found) - 1) < 0.01 and total["gflop"] > 0 and total["isa"]
        assert all(s["place"] and s["gflops"] >= 0 and s["bytes_per_s"] > 0 for s in found)
    for stage, place in (("encode", "image_encoder.layers.2.blocks.3.mlp"), ("encode", "image_encoder.layers.2.blocks.3.attn"),
                         ("detect", "backbone.stages.2.blocks.0.aggregation.1"), ("detect", "decoder.decoder.layers.1.cross_attn"),
                         ("decode", "mask_decoder.transformer.layers.0.mlp.lin1")):  # fmt: skip
        assert place in {s["place"] for s in of[stage]} or any(s["place"].startswith(place) for s in of[stage]), (place, of[stage])
    table, _ = um("bench", "kernels", "--table", *small)
    assert "image_encoder.layers.2.blocks.3.mlp" in table and "GFLOP/s" in table and "{" not in table


@test
def the_roofline_is_of_the_same_run(tmp):
    small = ["--det-size", "256", "--sam-size", "64", "--rounds", "1", "--threads", "1"]
    *parts, gemm = lines(um("bench", "roofline", *small)[0])
    assert gemm["stage"] == "gemm" and gemm["gflops"] > 0 and gemm["precision"] == "fp32"
    for stage in ("detect", "encode", "decode"):
        *some, total = [p for p in parts if p["stage"] == stage]
        assert total["part"] == "sum" and abs(sum(p["min_ms"] for p in some) - total["min_ms"]) < 0.01 * total["min_ms"] + 0.01
        assert abs(total["of_gemm"] - total["gflops"] / gemm["gflops"]) < 0.01 and total["steps"] == sum(p["steps"] for p in some)
    assert "image_encoder.layers.2" in {p["part"].rpartition(".blocks")[0] or p["part"] for p in parts}
    table, _ = um("bench", "roofline", "--table", *small)
    assert "ofGEMM" in table and "GEMM: " in table


@test
def a_stored_result_of_peers_is_told_and_judged(tmp):
    rows = [{"stage": "encode", "peer": p, "precision": q, "min_ms": m, "median_ms": m, "peak_mb": 50, "ms": [m]} for p, q, m in
            (("openvino", "fp32", 100.0), ("openvino-int8", "int8", 50.0), ("ours", "fp32", 80.0), ("ours-int8", "int8", 40.0))]  # fmt: skip
    result = {"machine": {"cpu": "Some", "cores": 2, "flags": ["avx512_vnni"]}, "load_average": [0, 0], "threads": 2, "rounds": 1, "versions": {},
              "date": "today", "results": rows}  # fmt: skip
    (tmp / "r.json").write_text(json.dumps(result))
    told = subprocess.run([sys.executable, str(ROOT / "bench/peers.py"), "--from", str(tmp / "r.json")], capture_output=True, text=True, check=True).stdout
    whole = subprocess.run([sys.executable, str(ROOT / "bench/peers.py"), "--from", str(ROOT / "bench/results/frames-zen4-2threads.json")],
                           capture_output=True, text=True, check=True).stdout  # fmt: skip
    assert "whole frames 422x558" in whole and "ours-bf16 has 0.16: holds" in whole, whole
    asked = [line.split() for line in told.partition("asked at most")[2].splitlines()[1:]]
    assert [(a[3], a[4], float(a[5]), float(a[6]), a[7]) for a in asked] == [
        ("ours", "openvino", 0.70, 0.80, "MISSED"), ("ours-int8", "openvino-int8", 0.60, 0.80, "MISSED")], told  # fmt: skip


@test
def the_service_starts_as_its_unit_says(tmp):
    unit = (ROOT / "deploy" / "ultramotion.service").read_text()
    command = re.search(r"^ExecStart=(\S+) (.*)$", unit, re.M)
    assert command[1] == "/usr/local/bin/ultramotion" and "/etc/ultramotion/serve.yaml" in command[2]
    arguments = [a.replace("${SOURCE}", "phantom:frames=2").replace("/etc/ultramotion", str(ROOT / "deploy")) for a in command[2].split()]
    _, err = um(*arguments, "-o", "null:", cwd=tmp)
    assert "frames     " in err and (tmp / "kpi.jsonl").exists(), err
    source = re.search(r"^SOURCE=(.*)$", (ROOT / "deploy" / "source").read_text(), re.M)
    assert source[1].startswith("igtl://")


@test
def the_image_has_what_the_command_needs(tmp):
    text = (ROOT / "Dockerfile").read_text()
    debian = re.search(r"^FROM debian:(\d+)", text, re.M)[1]
    release = Path("/etc/os-release")
    if not shutil.which("dpkg-query") or f'VERSION_ID="{debian}"' not in (release.read_text() if release.exists() else ""):
        raise Skip("this is not the Debian of the image")
    have = set(re.search(r"--no-install-recommends \\\n\s+(.*?) && ", text)[1].split())
    for line in subprocess.run(["ldd", COMMAND], capture_output=True, text=True, check=True).stdout.splitlines():
        library = re.match(r"\s*(lib(?:(?:png|jpeg|tiff|websockets|yaml|cjson)\S*|z))\.so", line)
        if library:
            owner = subprocess.run(["dpkg-query", "-S", f"*/{line.split()[0]}"], capture_output=True, text=True, check=True).stdout
            names = {name.split(":")[0] for name in owner.splitlines()}
            assert names & have, f"{line.strip()} is of {names}, the image has {have}"


@test
def bench_live_accounts_for_every_frame(tmp):
    for fps in (25, 60):
        (b,) = lines(um("bench", "live", "--fps", fps, "--frames", 30, "--det-size", "256", "--sam-size", "64", "--threads", "1")[0])
        assert b["packets"] + b["replaced"] == b["sent"] == 30 and b["masks"] == b["packets"] > 0, b
        # 0 where the sender lost the processor before it read the clock, which on a busy one may be every time.
        assert 0 <= b["in"]["min"] <= b["in"]["max"] < 10000, b
        assert 0 < b["out"]["p50"] < b["overhead"]["max"] < 10000, b


@test
def bench_residency_counts_the_copies_of_both_modes(tmp):
    out, err = um("bench", "residency", "--device", "guard", "--frames", "3", *SMALL)
    legacy, sync, speculative, *compared = lines(out)
    assert (legacy["mode"], sync["mode"], speculative["mode"]) == ("legacy", "resident", "resident")
    assert (legacy["up"], legacy["down"], legacy["sam_copies"]) == (1, 3, 2)
    assert (sync["up"], sync["down"], sync["sam_copies"]) == (1, 2, 0)
    assert (speculative["up"], speculative["down"], speculative["sam_copies"]) == (1, 1, 0)
    assert legacy["down_bytes"] - sync["down_bytes"] > 4 * 422 * 558 - 422 * 558, "frame-size logits in fp32"
    for mode in (legacy, sync, speculative):
        assert mode["predictions"] == mode["frames"] == 3 and mode["precision"] in CHOSEN and mode["device_bytes"] > 0
        assert mode["frames_per_s"] > 0 and mode["frame_ms"]["min"] > 0
    for mode in (legacy, sync):
        assert 0 < mode["sam_ms"]["min"] <= mode["sam_ms"]["p50"] <= mode["sam_ms"]["max"] < mode["frame_ms"]["max"]
    assert speculative["sam_ms"] is None and compared[1]["sam_ms_percent"] is None, "it overlaps the detection"
    assert [c["gate"] for c in compared] == ["sync", "speculative"]
    for c in compared:
        assert c["mode"] == "compare" and c["sam_copies"] == [2, 0] and c["mask_area_difference_px"] == 0
        assert c["targets"] == {"sam_copies": [2, 0], "sam_ms_percent": -20, "frames_per_s_percent": [15, 25], "device_bytes_percent": [5, 10]}
    for word in ("copies in the SAM stage", "2 -> 0", "p99/p50", "frames/s", "device memory", "speculative"):
        assert word in err, err
    out, err = um("bench", "residency", "--device", "cpu", "--frames", "2")
    assert [m["mode"] for m in lines(out)] == ["legacy", "resident", "compare"] and "share memory" in err
    assert all(m["shared"] and m["down"] == 0 for m in lines(out)[:2])
    out, err = um("bench", "residency", "--device", "guard", "--frames", "2", "--gate", "speculative", "-q")
    assert [m["gate"] for m in lines(out)] == ["sync", "speculative", "speculative"] and err == ""
    um("bench", "residency", "--sam-as-numpy", "1", code=2)
    _, err = um("bench", "residency", "--frames", "1", "--conf", "1", code=1)
    assert "nothing to segment" in err


STANDIN = Path(COMMAND).resolve().parent / "libum_standin_cuda.so"  # of NVIDIA's driver: kernels run on the host
SMALL = ("--det-size", 160, "--queries", 100, "--sam-size", 64)


def gpu(*arguments, code=0, env=None):
    return um(*arguments, *SMALL, code=code, env={"ULTRAMOTION_CUDA_DRIVER": str(STANDIN), **(env or {})})


@test
def a_gpu_is_found_at_run_time(tmp):
    assert STANDIN.exists(), STANDIN
    out, err = gpu("run", "phantom:seed=900501,frames=2", "--conf", "0", "--assert-transfers", "1,1", "-o", "jsonl:-")
    assert "cuda:0" in err and "fp16" in err  # auto takes it
    packets = lines(out)
    assert [p["frame_id"] for p in packets] == [0, 1]
    for p in packets:
        assert p["device"] == "cuda:0" and p["precision"] == "fp16" and p["lost_device"] is None
        assert p["transfers"]["up"] == 1 and p["transfers"]["down"] == 1 and not p["transfers"]["shared"]
    assert packets[1]["transfers"]["setup"] == 0
    same, _ = um("run", "phantom:seed=900501,frames=2", "--conf", "0", "--device", "cpu", "-o", "jsonl:-", *SMALL)
    for p, q in zip(packets, lines(same)):
        assert p["state"] == q["state"] and abs(p["score"] - q["score"]) < 0.02
        assert all(abs(a - b) < 1 for a, b in zip(p["box_xyxy"], q["box_xyxy"]))
    out, _ = um("segment", "phantom:seed=900501,frames=1", "--box", "120,60,330,330", "-o", "jsonl:-", "--sam-size", 64,
                env={"ULTRAMOTION_CUDA_DRIVER": str(STANDIN)})
    assert lines(out)[0]["device"] == "cuda:0" and lines(out)[0]["precision"] == "fp16"
    out, _ = gpu("doctor")
    assert "cuda:0: works" in out and "planned on cuda:0" in out


@test
def a_gpu_that_fails_is_named_or_replaced(tmp):
    assert STANDIN.exists(), STANDIN
    fault = {"UM_STANDIN_FAIL": "cuGraphLaunch:2:700"}
    source = ("run", "phantom:seed=900501,frames=4", "--conf", "0", "--device", "cuda:0", "-o", "jsonl:-")
    out, err = gpu(*source, code=1, env=fault)
    assert "700" in err or "ILLEGAL_ADDRESS" in err, err
    assert [p["frame_id"] for p in lines(out)] == [0]  # what was made is delivered
    out, err = gpu(*source, "--on-device-lost", "cpu", env=fault)
    packets = lines(out)
    assert [p["frame_id"] for p in packets] == [0, 1, 2, 3]
    assert [p["device"] for p in packets] == ["cuda:0", "cpu", "cpu", "cpu"]
    assert [p["lost_device"] for p in packets] == [None, "cuda:0", "cuda:0", "cuda:0"]
    assert "cuda:0" in err and "cpu" in err
    for missing, text in (({"UM_STANDIN_DEVICES": "0"}, "GPU"), ({"UM_STANDIN_DRIVER": "11040"}, "11.4")):
        _, err = gpu(*source, code=1, env=missing)
        assert text in err, err


@test
def a_gpu_that_auto_passes_over_is_told(tmp):
    source = ("run", "phantom:seed=900501,frames=1", "-o", "null:")
    for fault, text in (("cuModuleLoadData:1:222", "no kernels for this GPU"), ("cuInit:1:999,cuInit:2:999", "CUDA_ERROR_UNKNOWN")):
        _, err = gpu(*source, env={"UM_STANDIN_FAIL": fault})
        assert "cuda:0 is passed over: " in err and text in err and "device cpu" in err, err
        _, err = gpu(*source, "--quiet", env={"UM_STANDIN_FAIL": fault})
        assert err == "", err
    out, _ = gpu("doctor", "--device", "cpu", env={"UM_STANDIN_FAIL": "cuModuleLoadData:1:222"})
    assert "install a driver as new as the CUDA that built this" in out, out
    none = {"UM_STANDIN_DEVICES": "0"}
    assert "0 GPUs" not in gpu(*source, env=none)[1]  # as on any machine without one
    assert "no GPU: device cuda:0: the driver for CUDA" in gpu(*source, "-v", env=none)[1]


@test
def kernel_levels_can_be_forced(tmp):
    best = lines(um("detect", "phantom:seed=900003,frames=1")[0])[0]["boxes"][0]
    _, err = um("detect", "phantom:frames=1", env={"ULTRAMOTION_CPU": "abacus"}, code=2)
    assert "abacus" in err
    out, _ = um("doctor", env={"ULTRAMOTION_CPU": "abacus"}, code=1)
    for device in ("cpu", "guard"):
        assert re.search(rf'device     {device}: MISSING: ULTRAMOTION_CPU is "abacus", .*\n +unset that variable\n', out), out
    small = ["--det-size", "320"]
    plain, err = um("detect", "phantom:seed=900003,frames=1", *small, env={"ULTRAMOTION_CPU": "c"})
    assert "(c," in err and abs(lines(plain)[0]["boxes"][0]["score"] - best["score"]) < 1e-4


def compile_example(tmp, text):
    (tmp / "example.c").write_text(text)
    build = Path(COMMAND).parent
    sanitizer = ["-fsanitize=address,undefined"] if b"__asan_init" in (build / "libultramotion.so").read_bytes() else []
    subprocess.run(["cc", "-std=c11", "-Wall", "-Werror", *sanitizer, f"-I{ROOT / 'include'}", "-o", tmp / "example", tmp / "example.c",
                    f"-L{build}", "-lultramotion", f"-Wl,-rpath,{build}"], check=True)


@test
def header_examples_compile_and_run(tmp):
    """The source and the sink that the headers show: everything but their last line stands outside functions."""
    def example(header):
        text = (ROOT / "include/ultramotion" / header).read_text().split(" * way. Every function")[1].split(" */")[0]
        code = [line[7:] for line in text.splitlines() if line.startswith(" *     ")]
        return "\n".join(code[:-1]), code[-1].split("//")[0]

    source, register_source = example("source.h")
    sink, register_sink = example("sink.h")
    compile_example(tmp, f"""
        #include <poll.h>
        #include <stdio.h>
        #include <string.h>
        #include <ultramotion/ultramotion.h>
        {source}
        {sink}
        int main(void)
        {{
            um_source *s = NULL;
            um_sink *t = NULL;
            um_frame *f = NULL;
            um_packet fields = {{.struct_size = sizeof fields, .score = 0.5f}}, *p = NULL;
            {register_source} {register_sink}
            if (um_source_open(&s, "down:", NULL) || um_sink_open(&t, "scores:{tmp}/out.txt", NULL) || um_packet_create(&p, &fields, NULL, 0))
                return 1;
            while (um_source_read(s, &f) == UM_OK) {{
                if (f->pixels[0] == 10 - f->id && um_sink_write(t, p, f, um_source_frame_name(s)))
                    return 1;
                um_frame_unref(&f);
            }}
            const um_packet *done = p;
            um_packet_unref(&done);
            um_source_close(&s);
            return um_sink_close(&t);
        }}""")
    subprocess.run([tmp / "example"], check=True)
    assert (tmp / "out.txt").read_text() == "".join(f"{i:05d} 0.500\n" for i in range(10))


def background(*arguments, **streams):
    return subprocess.Popen([COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, **streams)


def said_port(process):
    """The port in the next line of stderr that has one."""
    for line in process.stderr:
        if "listening on port" in line:
            return int(line.split()[-1])
    raise AssertionError("no port")


@test
def what_is_visible_is_tracked(tmp):
    same = ("run", "phantom:seed=900000,frames=1", "--loop", "-o", "jsonl:-", "--frames")
    out, err = um(*same, 6, "--track", 1)
    packets = lines(out)
    assert [p["state"] for p in packets] == 2 * ["RELOCALIZING"] + 4 * ["VISIBLE"]
    assert [p["tag"] for p in packets] == 2 * ["withheld"] + ["fresh"] + 3 * ["stale"]
    assert [p["reason"] for p in packets] == 2 * ["unconfirmed"] + [None] + 3 * ["frozen"]
    assert [p["mask"] is None for p in packets] == 2 * [True] + 4 * [False] and all(p["box_xyxy"] for p in packets)
    assert all(p["detected"] and set(p["scores"]) == {"s1", "s2", "s3", "s4", "c1", "c2", "c3", "contact"} for p in packets)
    assert "1 fresh" in err and "6 of 6 frames" in err
    out, _ = um(*same, 1, "--detect-every", 3)  # implies it
    assert lines(out)[0]["state"] == "RELOCALIZING"
    out, _ = um(*same, 1)
    assert [(p["state"], p["tag"], p["detected"], p["reason"], p["scores"]) for p in lines(out)] == [("VISIBLE", "fresh", True, None, None)]
    for wrong in (("--track", 1, "--objects", 2), ("--detect-every", 2, "--track", 0), ("--detect-every", 0), ("--track", 1, "--theta-off", 0.7),
                  ("--theta-on", 1.5)):
        um(*same, 1, *wrong, code=2)


@test
def a_budget_is_not_for_what_was_read_ahead(tmp):
    packets = lines(um("run", "phantom:seed=900000,frames=8", "--budget-ms", 3600000)[0])
    assert sum(p["deadline"]["latency_ms"] for p in packets) < 1.5 * sum(p["stages_ms"]["total"] for p in packets), packets


@test
def masks_are_cleaned_and_dark_images_stretched_where_it_is_said(tmp):
    run = ("run", "phantom:seed=900000,frames=1", "-o", "jsonl:-")
    for more, cleaned, gain in (((), True, None), (("--mask-clean", 1, "--gain", "off"), True, None), (("--mask-clean", 0, "--gain", 1.25), False, 1.25),
                                (("--device", "guard", "--gate", "speculative", "--assert-transfers", "1,1", "--gain", "auto,0.9"), True, ...)):
        packet = lines(um(*run, *more)[0])[0]
        assert packet["objects"][0]["cleaned"] == packet["cleaned"]
        assert set(packet["cleaned"] or ()) == ({"removed_px", "filled_px"} if cleaned else set())
        assert packet["gain"] == gain if gain is not ... else 1 < packet["gain"] < 8
    for wrong in (("--mask-clean", 2), ("--gain", "loud"), ("--gain", "auto,9")):
        um(*run, *wrong, code=2)


@test
def packed_weights_are_kept_between_starts(tmp):
    keys, cache = ("state", "score", "box_xyxy", "mask"), tmp / "deep" / "cache"

    def run(*more, env=None, **how):
        out, err = um("run", "phantom:seed=900001,frames=2", "-v", *more, env=env, **how)
        return [[p[k] for k in keys] for p in lines(out)], re.findall(r"packed weights of the (\w+): (.*)", err)

    want, said = run("--weight-cache", "off")
    assert said == [("detector", "off"), ("segmenter", "off")]
    for what in ("written", "read", "read"):
        assert run("--weight-cache", cache) == (want, [(model, f"{cache}: {what}") for model in ("detector", "segmenter")])
    files = sorted(cache.glob("*.packed"))
    assert len(files) == 2 and all(f.stat().st_mode & 0o777 == 0o600 for f in files) and cache.stat().st_mode & 0o777 == 0o700
    files[0].write_bytes(files[0].read_bytes()[:-1])
    packets, said = run("--weight-cache", cache)
    assert packets == want and sorted(what.split(": ")[1] for _, what in said) == ["read", "written"]
    shutil.rmtree(cache)
    together = [background("run", "phantom:seed=900001,frames=2", "--weight-cache", cache, "-q", stdout=subprocess.PIPE) for _ in range(4)]
    for process in together:  # one of them writes, the others do without
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0 and [[p[k] for k in keys] for p in lines(out)] == want
    assert len(list(cache.glob("*.packed"))) == 2 and not list(cache.glob(".*"))
    (tmp / "file").write_text("")
    packets, said = run("--weight-cache", tmp / "file" / "cache")
    assert packets == want and all("not written: " in what for _, what in said)
    once = ("run", "phantom:frames=1", "-o", "null:")
    for folder in (tmp / "file", tmp / "file" / "cache"):  # a folder that was named is told without -v; one that nobody asked for is not
        told = um(*once, "--weight-cache", folder)[1]
        assert all(f"packed weights of the {model}: {folder}: not written: " in told for model in ("detector", "segmenter")), told
    assert "packed" not in um(*once, env={"XDG_CACHE_HOME": str(tmp / "file")})[1] + um(*once, "-q", "--weight-cache", tmp / "file")[1]
    packets, said = run(env={"XDG_CACHE_HOME": str(tmp / "xdg")})
    assert packets == want and said[0][1] == f"{tmp}/xdg/ultramotion: written"
    packets, said = run(env={"XDG_CACHE_HOME": "", "HOME": str(tmp / "home")})
    assert packets == want and said[0][1] == f"{tmp}/home/.cache/ultramotion: written"
    assert run(env={"XDG_CACHE_HOME": "", "HOME": ""}) == (want, [("detector", "off"), ("segmenter", "off")])
    out, _ = um("doctor", "--weight-cache", cache)
    assert f"packed: {cache}: read" in out and "canvas     256: its last windows reach beyond it, not so at --sam-size 224 or 448" in out
    assert "canvas     448: no window reaches" in um("doctor", "--sam-size", 448)[0]
    assert "not so at --sam-size 224\n" in um("doctor", "--sam-size", 64)[0]
    um("run", "phantom:frames=1", "--weight-cache", "", code=2)


@test
def frames_in_flight_are_the_same_in_order(tmp):
    run, same = ("run", "phantom:seed=900001,frames=7", "-o", "jsonl:-"), ("frame_id", "state", "score", "box_xyxy", "mask", "objects")
    want = [[p[k] for k in same] for p in lines(um(*run, "--threads", 1)[0])]
    for threads, inflight in ((2, 2), (3, 2), (4, 4)):
        out, err = um(*run, "--threads", threads, "--inflight", inflight)
        assert [[p[k] for k in same] for p in lines(out)] == want and "in flight" not in err
    assert "1 frame in flight, with --track" in um(*run, "--threads", 2, "--inflight", 2, "--track", 1)[1]
    assert "--inflight 16: 2 frames in flight" in um(*run, "--threads", 2, "--inflight", 16)[1]
    told = re.sub(r"\s+", " ", um("run", "--help")[0].partition("--inflight N")[2].partition("--on-device-lost")[0])
    for why, *options in (("not with --gain auto or", "--gain", "auto"), ("or --dump)", "--dump", tmp / "d.safetensors"),
                          ("speculative gate", "--device", "guard", "--gate", "sync"), ("masks on the device", "--device", "guard", "--sam-as-numpy", 1)):
        assert "1 frame in flight: see ultramotion run --help" in um(*run[:2], "-o", "null:", "--frames", 1, "--inflight", 2, *options)[1] and why in told, told
    um(*run, "--inflight", 17, code=2)
    size = {n: float(re.search(r"memory +([0-9.]+) MB.* (\d+) in flight", um("doctor", "--threads", 2, "--inflight", n)[0]).group(1)) for n in (1, 2)}
    assert size[1] < size[2] < 2 * size[1]
    bench = lines(um("bench", "pipeline", "--frames", 4, "--threads", 2, "--inflight", 2)[0])[0]
    assert bench["inflight"] == 2 and bench["fps"] > 0 and bench["cpu_ms"] > 0


@test
def equal_images_are_not_computed_again(tmp):
    for i, image in enumerate((0, 0, 2, 2, 2, 0)):
        (tmp / f"{i}.png").write_bytes((ROOT / f"tests/golden/end_to_end/phantom_{image}.png").read_bytes())
    said = {}
    for name, more in {"plain": (), "cpu": ("--reuse", 1), "guard": ("--reuse", 1, "--device", "guard", "--gate", "speculative", "--assert-transfers", "1,1"),
                       "host": ("--reuse", 1, "--sam-as-numpy", 1), "crop": ("--reuse", 1, "--crop", "20,20,300,400"),
                       "track": ("--reuse", 1, "--track", 1)}.items():
        said[name] = lines(um("run", tmp, "-o", "jsonl:-", *more)[0])
    same = ("frame_id", "state", "score", "box_xyxy", "mask")
    assert not any(p["reused"] for p in said["plain"])
    for name, packets in said.items():
        assert [p["reused"] for p in packets] == [name != "plain" and i in (1, 3, 4) for i in range(6)], name
        assert name in ("crop", "track") or [[p[k] for k in same] for p in packets] == [[p[k] for k in same] for p in said["plain"]], name
    assert "gain of auto" in um("run", tmp, "--reuse", 1, "--track", 1, "--gain", "auto", code=2)[1]


@test
def openigtlink_from_end_to_end(tmp):
    um("igtl", "dance", ":0", code=2)
    um("serve", "igtl://127.0.0.1:1?nonsense=1", code=2)
    um("serve", "igtl://127.0.0.1:1", "--igtl-crc", "perhaps", code=2)
    plus = background("igtl", "fake-plus", ":0", "phantom:seed=900003,frames=2", "--loop", "--fps", 20)
    serve = background("serve", f"igtl://127.0.0.1:{said_port(plus)}", "-o", "igtl:127.0.0.1:0?relay=all", "-o", f"jsonl:{tmp}/out.jsonl",
                       "--threads", 1, "--track", 0)  # two images in turn: no structure that could be followed
    out, _ = um("igtl", "fake-slicer", f"127.0.0.1:{said_port(serve)}", "--frames", 21, "-q")
    serve.send_signal(signal.SIGINT)
    _, err = serve.communicate(timeout=60)
    plus.send_signal(signal.SIGINT)
    plus.communicate(timeout=60)
    assert serve.returncode == 0 and "images" in err and "connections 1" in err, err
    messages = lines(out)
    assert [m for m in messages if m["type"] == "LBMETA"][0]["labels"][0]["owner"] == "Image_Reference"
    packets = {p["ts"]: p for p in lines((tmp / "out.jsonl").read_text())}
    masks = [m for m in messages if m["device"] == "Mask_Reference" and m["type"] == "IMAGE"]
    images = {m["stamp"]: m for m in messages if m["device"] == "Image_Reference"}
    poses = {m["stamp"]: m for m in messages if m["device"] == "ProbeToReference"}
    assert len(masks) >= 3
    for m in masks:
        p = packets[m["ts"]]
        assert abs(p["pose"][3] - poses[m["stamp"]]["transform"][3]) < 1e-6  # of the same stamp
        assert [round(v, 6) for v in p["spacing_mm"]] == [0.1, 0.1]
        for key in ("size", "t", "s", "n", "p"):
            assert m["image"][key] == images[m["stamp"]]["image"][key]
        assert m["image"]["most"] == (p["state"] == "VISIBLE")
        assert m["version"] == 1 or m["metadata"]["State"] == p["state"] and int(m["metadata"]["FrameId"]) == p["frame_id"]
    assert any(m["version"] == 2 for m in masks)


@test
def a_peer_that_does_not_read_holds_no_end(tmp):
    for pace in ((), ("--fps", 0.1)):  # it waits for the peer, and for the time of its next frame
        plus = background("igtl", "fake-plus", ":0", "phantom:seed=900003,frames=2,width=640,height=480", "--loop", *pace)
        with socket.create_connection(("127.0.0.1", said_port(plus))) as peer:
            peer.recv(1)
            time.sleep(1)  # until the socket is full
            begin = time.monotonic()
            plus.send_signal(signal.SIGINT)
            err = plus.communicate(timeout=30)[1]
        assert plus.returncode == 0 and time.monotonic() - begin < 4, err


@test
def a_reader_of_messages_that_takes_nothing_holds_no_end(tmp):
    plus = background("igtl", "fake-plus", ":0", "phantom:seed=900003,frames=2,width=64,height=64", "--loop")
    sniff = background("igtl", "sniff", f"127.0.0.1:{said_port(plus)}", stdout=subprocess.PIPE)
    sniff.stdout.readline()
    time.sleep(1)  # until the pipe is full
    try:
        sniff.send_signal(signal.SIGINT)
        assert sniff.wait(10) == 1 and "its reader takes nothing" in sniff.stderr.read()
    finally:
        for process in (sniff, plus):
            process.kill()
            process.communicate()


@test
def what_was_sent_last_arrives(tmp):
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # most of it waits on the sender's side
        server.bind(("127.0.0.1", 0))
        server.listen()
        (tmp / "0.png").write_text("not an image")  # which ends nothing
        png(tmp / "1.png", 256, 256)
        plus = background("igtl", "send", f"127.0.0.1:{server.getsockname()[1]}", tmp)
        size = 0
        with server.accept()[0] as peer:
            status = struct.pack(">H12s20sQQQ", 1, b"STATUS", b"", 0, 31, 0x4EB66A467286AFA6) + b"\0\1" + bytes(29)
            while piece := peer.recv(4096):
                size += len(piece)
                time.sleep(1e-3)
                peer.sendall(status)  # nobody reads it, or it comes behind the end
    err = plus.communicate(timeout=30)[1]
    assert plus.returncode == 0 and size == 58 + 72 + 256 * 256, size
    assert "0.png: a text" in err and "1 frame sent, 1 unreadable" in err, err


@test
def who_leaves_before_the_end_has_not_got_all(tmp):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        sender = background("igtl", "send", f"127.0.0.1:{server.getsockname()[1]}", "phantom:seed=900003,frames=200,width=64,height=64", "--fps", 50)
        with server.accept()[0] as peer:
            peer.recv(4096)
    err = sender.communicate(timeout=30)[1]
    assert sender.returncode == 1 and ": the other side left\n" in err and re.search(r"\b[1-9]\d? frames? sent", err), err


@test
def a_source_that_has_given_all_is_not_called_silent(tmp):
    os.mkfifo(tmp / "kpi")  # nobody reads it
    plus = background("igtl", "fake-plus", ":0", "phantom:seed=900003,frames=2,width=64,height=64", "--loop", "--fps", 10)
    err = um("serve", f"igtl://127.0.0.1:{said_port(plus)}", "--frames", 2, "--kpi", tmp / "kpi", "--sink-deadline", 3, "-o", "null:", code=1)[1]
    plus.send_signal(signal.SIGINT)
    plus.communicate(timeout=30)
    assert "stalled: kpi:" in err and "has given nothing" not in err, err


@test
def a_stopped_process_gives_no_sink_up(tmp):
    os.mkfifo(tmp / "fifo")
    reader = os.open(tmp / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    run = background("run", "phantom:seed=900003,frames=200,width=64,height=64", "-o", f"jsonl:{tmp / 'fifo'}", "--sink-deadline", 2, *SMALL)
    size, data = (0, 1), b""
    while size[0] != size[1]:  # until it is full
        time.sleep(0.5)
        size = (size[1], struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, bytes(4)))[0])
    run.send_signal(signal.SIGSTOP)
    time.sleep(3)
    os.set_blocking(reader, True)
    run.send_signal(signal.SIGCONT)
    while piece := os.read(reader, 1 << 16):
        data += piece
    os.close(reader)
    err = run.communicate(timeout=60)[1]
    assert run.returncode == 0 and len(lines(data.decode())) == 200, err


@test
def frames_that_nobody_took_are_not_made_up_for(tmp):
    plus = background("igtl", "fake-plus", ":0", "phantom:seed=900003,frames=400,width=64,height=64", "--fps", 10)
    port = said_port(plus)
    for pause in (0, 2):
        time.sleep(pause)
        with socket.create_connection(("127.0.0.1", port)) as peer:
            begin = time.monotonic()
            size = len(peer.recv(7 * (58 + 48 + 58 + 72 + 64 * 64), socket.MSG_WAITALL))
            took = time.monotonic() - begin
        if took < 0.35 or pause:
            break
    plus.send_signal(signal.SIGINT)
    plus.communicate(timeout=30)
    assert pause and took >= 0.35 and size == 7 * (58 + 48 + 58 + 72 + 64 * 64), (pause, took)


@test
def sniffing_says_what_a_strict_peer_refuses(tmp):
    def wire(kind, device, body):
        return struct.pack(">H12s20sQQQ", 1, kind, device, 1 << 32, len(body), crc64(body)) + body

    told = {}
    with socket.create_server(("127.0.0.1", 0)) as server:
        sniff = background("igtl", "sniff", f"igtl://127.0.0.1:{server.getsockname()[1]}", "--frames", 8, "-q", stdout=subprocess.PIPE)
        with server.accept()[0] as peer:
            wrong = wire(b"TRANSFORM", b"Wrong", bytes(48))
            peer.sendall(wrong[:-1] + b"x")  # as is its CRC, and the connection stays
            for device, scalar, pixels in ((b"i16", 4, "<hh"), (b"u16", 5, ">HH"), (b"f32", 10, "<ff")):
                peer.sendall(wire(b"IMAGE", device, struct.pack(">HBBBB3H12f6H", 1, 1, scalar, 2 if pixels[0] == "<" else 1, 1, 2, 1, 1, *[0] * 12,
                                                                0, 0, 0, 2, 1, 1) + struct.pack(pixels, *((-300, -2) if scalar == 4 else (258, 3)))))
            peer.sendall(wire(b"STRING", b"Plain", struct.pack(">HH", 3, 4) + b"o\0\0k") + wire(b"STRING", b"Ended", struct.pack(">HH", 3, 2) + b"ok\0") +
                         wire(b"TRANSFORM", "Säge".encode(), bytes(48)) + wire(b"TRANSFORM", b"Short", bytes(47)))
            out, err = sniff.communicate(timeout=60)
    most = {m["device"]: m["image"]["most"] for m in lines(out) if "image" in m}
    assert most == {"i16": -2, "u16": 258, "f32": 258}, most
    for m in lines(out):
        told[m["device"]] = m.get("string"), m.get("strict"), m.get("problem")
    assert sniff.returncode == 0 and told["Plain"] == ("o\0\0k", None, None), (told, err)
    assert told["Ended"] == ("ok", "bytes behind its text", None) and told["Säge"][1] == "text that is not ASCII", told
    assert "CRC" in told["Wrong"][2], told
    assert um("igtl", "sniff", code=2)[1].count("\n") == 2
    assert told["Short"][1] is None and "47" in told["Short"][2], told


@test
def readme_example_compiles_and_runs(tmp):
    text = (ROOT / "README.md").read_text()
    compile_example(tmp, text.split("```c\n")[1].split("```")[0])
    done = subprocess.run([tmp / "example", DETECTOR, SEGMENTER, ROOT / "tests/golden/end_to_end/phantom_0.png"], capture_output=True)
    assert done.returncode == 0 and done.stdout.startswith(b"score 0.99"), done


main()
