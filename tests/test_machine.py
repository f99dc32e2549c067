#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command on a machine that is full, slow, shut or in a hurry: it goes on or ends with the right code, at once.
Usage: test_machine.py COMMAND [TEST]..."""

import fcntl
import json
import os
import resource
import select
import signal
import subprocess
import threading
import time
from pathlib import Path

from command import COMMAND, DETECTOR, ENVIRONMENT, Skip, lines, main, png, test, um

SANITIZED = b"__asan_init" in Path(COMMAND).read_bytes() or b"__tsan_init" in Path(COMMAND).read_bytes()
AT_ONCE = 20 if SANITIZED else 2  # seconds
PATIENCE = 240
SMALL = ["--det-size", "256", "--sam-size", "64"]
ENDLESS = "phantom:seed=900003,frames=0,width=64,height=80,empty=0"
FRAME = bytes(range(256)) * 20  # 64x80 gray
STDIN = ["-", "--size", "64x80"]
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start(*arguments, **how):
    """Start the command; its streams are pipes unless said otherwise."""
    how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT, **how}
    return subprocess.Popen([COMMAND, *map(str, arguments)], **how)


def end(process, code, within=None):
    """Wait for it and check its code, and that it took no longer; return its stderr."""
    begun = time.monotonic()
    try:
        process.wait(timeout=PATIENCE)
    finally:
        process.kill()
    took = time.monotonic() - begun
    text = process.stderr.read().decode(errors="replace") if process.stderr else ""
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            try:
                stream.close()
            except BrokenPipeError:
                pass
    assert process.returncode == code, f"exit {process.returncode}, want {code}\n{text}"
    assert within is None or took < within, f"{took:.1f} s\n{text}"
    return text


def until(condition, what):
    """Wait for something that nothing tells of."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < PATIENCE, what
        select.select([], [], [], 0.005)


def signals_of(process, *kinds):
    """The signals in the masks of these kinds (man 5 proc), of the process's first thread."""
    masks = [line.split()[1] for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.split(":")[0] in kinds]
    return {number for number in STOPS for mask in masks if int(mask, 16) >> (number - 1) & 1}


def waits_for_signals(process):
    """Has it come so far that a signal does not just kill it?"""
    return signal.SIGTERM in signals_of(process, "SigBlk")


def full_pipe():
    """A pipe that nobody reads and that has no room: reader, writer."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    return reader, writer


def stuck_fifo(path):
    """The same as a FIFO: its ends, to keep open."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, b"x" * 4096)
    return reader, writer


def whole_images(folder):
    """Every image in a folder, none of them cut off."""
    images = [p for p in Path(folder).rglob("*.png") if not p.name.startswith(".")]
    for p in images:
        assert p.read_bytes().endswith(b"IEND\xaeB`\x82"), p
    return images


# ---- what cannot be written ----


@test
def a_failed_write_to_stdout_is_an_error(tmp):
    commands = (["--version"], ["--help"], ["run", "--help"], ["inspect", DETECTOR], ["inspect", DETECTOR, "--json"], ["doctor"],
                ["bench", "pipeline", "--frames", "1", *SMALL], ["bench", "stages", "--rounds", "1", *SMALL],
                ["detect", ENDLESS, *SMALL], ["run", ENDLESS, *SMALL], ["run", ENDLESS, "-o", "null:", "--kpi", "-", "--frames", "2", *SMALL])
    for arguments in commands:
        with open("/dev/full", "wb") as full:
            err = end(start(*arguments, stdout=full), 1)
        assert "stdout: " in err and ("No space left" in err or "cannot be written" in err), (arguments, err)
        err = end(start(*arguments, stdout=None, preexec_fn=lambda: os.close(1)), 1)
        assert "stdout: " in err and ("Bad file descriptor" in err or "cannot be written" in err), (arguments, err)


@test
def a_reader_that_left_is_no_error(tmp):
    for arguments in (["--help"], ["inspect", DETECTOR, "--json"], ["doctor"], ["detect", ENDLESS, *SMALL], ["run", ENDLESS, *SMALL],
                      ["segment", ENDLESS, "--box", "5,5,40,40", "--sam-size", "64"]):
        reader, writer = os.pipe()
        os.close(reader)
        process = start(*arguments, stdout=writer)
        os.close(writer)
        err = end(process, 0)
        assert "ultramotion:" not in err, err


@test
def a_full_disk_fails_its_sink_only(tmp):
    segment = ("segment", ENDLESS, "--box", "5,5,40,40", *SMALL[2:])
    for command, summary in ((("run", ENDLESS, *SMALL), "1 of 2 sinks failed"), (segment, "")):
        for full in (("-o", "jsonl:/dev/full"), ("--kpi", "/dev/full")):
            (tmp / "rest").unlink(missing_ok=True)
            err = end(start(*command, "--frames", "4", *full, "-o", f"jsonl:{tmp}/rest"), 1)
            assert err.count("/dev/full: No space left on device") == 1 and summary in err, err
            assert len(lines((tmp / "rest").read_text())) == 4
    err = end(start(*segment, "--loop", "-o", "jsonl:/dev/full", "--kpi", tmp / "kpi"), 1)  # no sink is left: it stops
    process = start(*segment, "--frames", "4", "-o", "jsonl:-", "-o", f"jsonl:{tmp}/rest2", stdout=subprocess.PIPE)
    process.stdout.close()  # its reader leaves: no failure
    end(process, 0)
    assert len(lines((tmp / "rest2").read_text())) == 4
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    err = end(start("run", ENDLESS, "--frames", "8", "-o", f"jsonl:{tmp}/short", *SMALL, preexec_fn=limit), 1)
    assert "short: File too large" in err, err
    err = end(start("run", ENDLESS, "--frames", "8", "-o", "null:", "--trace", tmp / "trace", *SMALL, preexec_fn=limit), 1)
    assert err.count("trace: ") == 1 and "trace: File too large" in err, err
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))  # who fails at the end is named, too
    err = end(start("run", ENDLESS, "--frames", "8", "-o", f"jsonl:{tmp}/short", "-o", f"masks:{tmp}/m.mha", *SMALL, preexec_fn=limit), 1)
    assert err.count("short: File too large") == 1 and err.count("m.mha: cannot be written: File too large") == 1, err


@test
def nothing_half_written_has_a_final_name(tmp):
    """A file system with room for some images and a part of the next."""
    small = tmp / "small"
    small.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], capture_output=True).returncode != 0:
        return  # only root may
    try:
        source = "phantom:seed=900003,frames=40,empty=0"
        err = end(start("run", source, "-o", f"dir:{small}", "-o", f"jsonl:{tmp}/rest", *SMALL), 1)
        assert "No space left on device" in err and "1 of 2 sinks failed" in err, err
        assert len(lines((tmp / "rest").read_text())) == 40
        assert 0 < len(whole_images(small)) < 80
        assert not [p.name for p in small.rglob("*.part")]
        err = end(start("run", source, "-o", f"dir:{small}", *SMALL), 1)  # the only sink: it stops
        assert "No space left on device" in err, err
        whole_images(small)
    finally:
        subprocess.run(["umount", "-l", small], check=True)


@test
def folders_that_cannot_be_written(tmp):
    _, err = um("run", ENDLESS, "-o", "dir:/proc/nothing", *SMALL, code=1)
    assert "/proc/nothing" in err
    _, err = um("run", ENDLESS, "-o", "jsonl:/proc/nothing", *SMALL, code=1)
    assert "/proc/nothing" in err
    shut = tmp / "shut"
    shut.mkdir(mode=0o555)
    tmp.chmod(0o755)
    who = {"user": 65534} if os.geteuid() == 0 else {}
    for sink in (f"dir:{shut}", f"dir:{shut}/below", f"jsonl:{shut}/a"):
        try:
            process = start("run", ENDLESS, "-o", sink, *SMALL, **who)
        except PermissionError:
            return  # nobody may run the command where it lies
        err = end(process, 1)
        assert "shut" in err and "Permission denied" in err, err


@test
def folders_that_cannot_be_read(tmp):
    (tmp / "shut").mkdir()
    png(tmp / "shut" / "a.png", 32, 24)
    png(tmp / "b.png", 32, 24)
    (tmp / "shut").chmod(0)
    tmp.chmod(0o755)
    who = {"user": 65534} if os.geteuid() == 0 else {}
    for source in ("shut", "shut/*.png", "*/*.png"):
        try:
            process = start("run", tmp / source, "-o", "null:", *SMALL, **who)
        except PermissionError:
            break  # nobody may run the command where it lies
        err = end(process, 1)
        assert f"{tmp}/shut: Permission denied" in err, err
    (tmp / "shut").chmod(0o755)
    um("run", f"{tmp}/*/*.png", "-o", "null:", *SMALL)  # b.png is no folder


# ---- who reads nothing ----


@test
def a_stuck_reader_is_given_up(tmp):
    reader, writer = full_pipe()
    process = start("run", ENDLESS, "--frames", "12", "-o", "jsonl:-", "-o", f"jsonl:{tmp}/rest", "--sink-deadline", "0.3", *SMALL,
                    stdout=writer)
    err = end(process, 1)
    assert "jsonl:-: given up" in err and "1 of 2 sinks failed" in err and "stage ms" in err, err
    assert len(lines((tmp / "rest").read_text())) == 12
    process = start("run", ENDLESS, "--frames", "12", "-o", "jsonl:-", "--on-sink-full", "drop", "--sink-deadline", "3", *SMALL,
                    stdout=writer)
    assert "packets dropped" in end(process, 1)
    os.close(reader)
    os.close(writer)
    ends = stuck_fifo(tmp / "fifo")
    process = start("run", ENDLESS, "--frames", "12", "-o", f"jsonl:{tmp}/rest", "--kpi", tmp / "fifo", "--sink-deadline", "0.3", *SMALL)
    err = end(process, 1)
    assert "fifo: given up" in err, err
    assert len(lines((tmp / "rest").read_text())) == 12
    for fd in ends:
        os.close(fd)
    _, err = um("run", ENDLESS, "--on-sink-full", "wait", code=2)
    assert "--on-sink-full" in err


# ---- signals ----


@test
def a_signal_while_opening(tmp):
    for number in STOPS:
        for arguments in (["run", ENDLESS], ["detect", ENDLESS], ["segment", ENDLESS, "--box", "5,5,40,40"]):
            process = start(*arguments)
            until(lambda: waits_for_signals(process), "it does not wait for signals")
            process.send_signal(number)
            process.stdout.read()
            end(process, 0, AT_ONCE)


@test
def a_signal_while_it_waits_for_stdin(tmp):
    for number in STOPS:
        for arguments in (["run", *STDIN], ["detect", *STDIN], ["segment", *STDIN, "--box", "5,5,40,40"]):
            process = start(*arguments)
            process.stdin.write(FRAME + b"part of another")
            process.stdin.flush()
            process.stdout.readline()
            process.send_signal(number)
            err = end(process, 0, AT_ONCE)
            assert arguments[0] != "run" or "stage ms" in err, err


@test
def a_signal_while_it_runs(tmp):
    for number in STOPS:
        for arguments in (["run", ENDLESS, "-o", f"dir:{tmp}/{int(number)}", "-o", "jsonl:-"], ["run", ENDLESS, "--realtime"],
                          ["detect", ENDLESS], ["segment", ENDLESS, "--box", "5,5,40,40"]):
            process = start(*arguments)
            read = [process.stdout.readline()]
            process.send_signal(number)
            reader = threading.Thread(target=lambda: read.extend(process.stdout))
            reader.start()
            err = end_reading(process, reader, 0)
            assert arguments[0] != "run" or "stage ms" in err, err
            assert all(json.loads(line) for line in read)
        assert whole_images(tmp / str(int(number)))


def end_reading(process, reader, code):
    begun = time.monotonic()
    process.wait(timeout=PATIENCE)
    took = time.monotonic() - begun
    reader.join()
    assert took < AT_ONCE, took
    return end(process, code)


@test
def a_signal_while_a_reader_is_stuck(tmp):
    for number in STOPS:
        for arguments in (["run", ENDLESS, *SMALL], ["run", ENDLESS, "--realtime", *SMALL], ["run", ENDLESS, "--sink-deadline", "0", *SMALL],
                          ["detect", ENDLESS, "--det-size", "256"], ["segment", ENDLESS, "--box", "5,5,40,40", "--sam-size", "64"]):
            reader, writer = full_pipe()
            process = start(*arguments, "-v" if arguments[0] == "run" else "-q", stdout=writer)
            if arguments[0] == "run":
                for _ in range(5):  # packed weights, the device, and two frames: the first is being written
                    process.stderr.readline()
            else:
                until(lambda: "poll" in Path(f"/proc/{process.pid}/wchan").read_text() and waits_for_signals(process), "it does not wait")
            process.send_signal(number)
            err = end(process, 1, AT_ONCE)
            assert "stdout: its reader takes nothing" in err or "jsonl:-: given up" in err, err
            os.close(reader)
            os.close(writer)


@test
def a_stderr_that_nobody_reads_holds_nothing(tmp):
    for signalled in (False, True):
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        process = start("run", *STDIN, "-v", "-o", f"jsonl:{tmp}/{signalled}", *SMALL, stderr=writer)
        process.stdin.write(FRAME * 120)  # with a line each, which do not fit
        process.stdin.flush()
        until(lambda: (tmp / str(signalled)).exists() and len((tmp / str(signalled)).read_text().splitlines()) == 120, "frames are held")
        if signalled:
            process.send_signal(signal.SIGINT)
        else:
            process.stdin.close()
            process.stdin = None
        end(process, 0, AT_ONCE + 2)
        os.close(reader)
        os.close(writer)


@test
def a_second_signal_ends_it_at_once(tmp):
    for first, second in ((signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGHUP)):
        reader, writer = full_pipe()
        process = start("run", ENDLESS, "-v", *SMALL, stdout=writer)
        for _ in range(5):
            process.stderr.readline()
        process.send_signal(first)
        until(lambda: first not in signals_of(process, "SigPnd", "ShdPnd"), "the first signal does not arrive")
        process.send_signal(second)
        end(process, -second, 1.5 if not SANITIZED else AT_ONCE)
        os.close(reader)
        os.close(writer)


@test
def a_killed_run_leaves_no_hidden_files(tmp):
    try:
        os.close(os.open(tmp, os.O_TMPFILE | os.O_WRONLY))
    except OSError as problem:
        raise Skip("the file system has no files without names") from problem
    out = tmp / "out"
    out.mkdir()
    process = start("run", ENDLESS, "-o", "jsonl:-", "-o", f"masks:{out}/m.seg.nrrd", "-o", f"video:{out}/v.mp4", *SMALL)
    process.stdout.readline()
    process.kill()
    end(process, -signal.SIGKILL)
    assert not list(out.glob(".*"))


@test
def an_ignored_hangup_stays_ignored(tmp):
    process = start("run", *STDIN, *SMALL, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.stdin.write(FRAME)
    process.stdin.flush()
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    process.stdin.write(FRAME)
    process.stdin.close()
    process.stdin = None
    assert len(process.stdout.read().splitlines()) == 1
    end(process, 0)


# ---- who must end though its source is silent ----


@test
def a_failure_while_stdin_is_silent(tmp):
    cases = ((["--device", "guard", "--sam-as-numpy", "1", "--assert-transfers", "1,1", "-o", "null:"], 3, "stage segment"),
             (["-o", "jsonl:/dev/full"], 1, "/dev/full"))
    for arguments, code, text in cases:
        process = start("run", *STDIN, "--conf", "0", "-v", *SMALL, *arguments)
        process.stdin.write(FRAME)
        process.stdin.flush()
        for _ in range(4):  # packed weights, the device and the frame
            process.stderr.readline()
        assert text in end(process, code, AT_ONCE)


# ---- several at once, and much of it ----


@test
def two_processes_on_one_output(tmp):
    first = start("run", *STDIN, "-o", f"dir:{tmp}/o", "-o", f"jsonl:{tmp}/lines", "-o", "jsonl:-", "--kpi", tmp / "kpi", *SMALL)
    first.stdin.write(FRAME)
    first.stdin.flush()
    first.stdout.readline()
    for arguments in (["-o", f"dir:{tmp}/o"], ["-o", f"jsonl:{tmp}/lines"], ["-o", "null:", "--kpi", tmp / "kpi"]):
        _, err = um("run", ENDLESS, "--frames", "1", *arguments, *SMALL, code=1)
        assert "another one writes" in err, err
    first.stdin.close()
    first.stdin = None
    end(first, 0)
    assert len(lines((tmp / "lines").read_text())) == 1
    assert sorted(p.name for p in whole_images(tmp / "o")) == ["00000_mask.png", "00000_overlay.png"]
    um("run", ENDLESS, "--frames", "1", "-o", f"dir:{tmp}/o", "-o", f"jsonl:{tmp}/lines", *SMALL)


@test
def a_folder_that_changes(tmp):
    for i in range(40):
        png(tmp / f"{i}.png", 64, 80)
    process = start("run", tmp, "-o", "jsonl:-", *SMALL)
    process.stdout.readline()
    for i in range(20, 40):
        (tmp / f"{i}.png").unlink()
    os.mkfifo(tmp / "30.png")
    png(tmp / "40.png", 64, 80)
    rest = process.stdout.read().splitlines()
    err = end(process, 0)
    assert len(rest) == 19 and "20 unreadable" in err and "30.png: not a regular file" in err and "40.png" not in err, err


@test
def twenty_thousand_files(tmp):
    count = 20000
    png(tmp / "0.png", 64, 80)
    for i in range(1, count):
        os.link(tmp / "0.png", tmp / f"{i}.png")

    def peak(*arguments):
        process = start(*arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = 0
        process.stdin.close()
        assert status == 0, status
        return usage.ru_maxrss

    few = peak("run", tmp / "0.png", *SMALL)
    many = peak("run", tmp, "--frames", "1", *SMALL)
    assert many - few < (64 if SANITIZED else 16) * 1024, f"{many - few} KB for {count} names"
    out, _ = um("detect", tmp, "--frames", "2", "--det-size", "256")
    assert [f["source"] for f in lines(out)] == ["0.png", "1.png"]
    for i in range(1, count):
        (tmp / f"{i}.png").unlink()
    for i in range(1, 3000):
        (tmp / f"{i}.png").touch()
    _, err = um("run", tmp, "-o", "null:", *SMALL)
    assert "2999 unreadable" in err


@test
def odd_names(tmp):
    (tmp / "in").mkdir()
    names = [b"-o.png", b"new\nline.png", b"\xff\xfe.png", b"a b'\"$.png", "\u00e9t\u00e9.png".encode(), b"n" * 250 + b".png", b"\x1b[31mred.png"]
    for name in names:
        png(tmp / "image", 64, 80)
        os.rename(tmp / "image", os.path.join(os.fsencode(tmp / "in"), name))
    out, err = um("run", tmp / "in", "-o", f"dir:{tmp}/out", "-o", "jsonl:-", *SMALL)
    expected = sorted(name.decode(errors="replace") for name in names)
    assert sorted(p["source"].replace("\ufffd\ufffd", "\ufffd\ufffd") for p in lines(out)) == expected
    made = os.listdir(os.fsencode(tmp / "out"))
    assert len(made) == 2 * len(names) and all(len(name) <= 255 for name in made)
    assert b"new\nline_mask.png" in made and b"\xff\xfe_overlay.png" in made
    assert sorted(f["source"] for f in lines(um("detect", tmp / "in", "--det-size", "256")[0])) == expected
    out, _ = um("run", "--", "-o.png", cwd=tmp / "in")
    assert lines(out)[0]["source"] == "-o.png"


@test
def stems_that_meet(tmp):
    for folder in ("p1", "p2", "both"):
        (tmp / folder).mkdir()
    for path in ("p1/frame.png", "p2/frame.png", "both/scan.png", "both/scan.jpg"):
        png(tmp / path, 64, 80)
    out, _ = um("run", tmp / "p?" / "frame.png", "-o", f"dir:{tmp}/a", "-o", "jsonl:-", *SMALL)
    assert [p["source"] for p in lines(out)] == ["p1/frame.png", "p2/frame.png"]
    assert sorted(str(p.relative_to(tmp / "a")) for p in whole_images(tmp / "a")) == [
        f"p{i}/frame_{kind}.png" for i in (1, 2) for kind in ("mask", "overlay")]
    um("run", tmp / "both", "-o", f"dir:{tmp}/b", *SMALL)
    assert sorted(p.name for p in whole_images(tmp / "b")) == [
        f"scan.{ending}_{kind}.png" for ending in ("jpg", "png") for kind in ("mask", "overlay")]


@test
def an_unreadable_file_counts_in_realtime_too(tmp):
    for i in range(3):
        png(tmp / f"{2 * i}.png", 64, 80)
        (tmp / f"{2 * i + 1}.png").write_bytes(b"no image")
    _, err = um("run", tmp, "--realtime", "-o", "null:", *SMALL)
    assert "3 unreadable" in err, err
    _, err = um("run", tmp, "--realtime", "--strict", "-o", "null:", *SMALL, code=1)
    assert "1.png" in err, err


# ---- what is missing ----


@test
def closed_standard_streams(tmp):
    """No file takes the place of one: neither people's text nor lines land where they should not."""
    for closed in ([0], [2], [0, 2], [0, 1, 2]):
        path = tmp / "lines"
        process = start("run", ENDLESS, "--frames", "2", "-v", "-o", f"jsonl:{path}", "--kpi", tmp / "kpi", *SMALL, stdin=None, stdout=None,
                        stderr=subprocess.DEVNULL, preexec_fn=lambda: [os.close(fd) for fd in closed])
        end(process, 0)
        assert [p["frame_id"] for p in lines(path.read_text())] == [0, 1]
        assert all("event" in line for line in lines((tmp / "kpi").read_text()))
    err = end(start("run", *STDIN, *SMALL, stdin=None, preexec_fn=lambda: os.close(0)), 1)
    assert "stdin: frame 0: Bad file descriptor" in err, err


@test
def names_of_standard_streams(tmp):
    """Where stdout leads, lines are added, whatever its name, and no link of the system is replaced."""
    link, log = tmp / "stdout", tmp / "log"
    for number, name in ((2, "stderr"), (1, "stdout")):
        for arguments in (["-o", f"jsonl:{link}"], ["-o", "null:", "--kpi", link], ["-o", "null:", "--dump", link]):
            link.unlink(missing_ok=True)
            link.symlink_to(f"/proc/self/fd/{number}")  # as /dev/stdout is
            log.write_text("before\n")
            with open(log, "a") as stream:
                how = {"stdin": None, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, name: stream}
                dumps = "--dump" in arguments
                end(start("run", ENDLESS, "--frames", "2", "-q", *arguments, *SMALL, **how), 1 if dumps else 0)
            text = log.read_text()
            assert text.startswith("before\n") and (dumps or text.count('"as_numpy"') == 2), text
            assert link.is_symlink() and sorted(p.name for p in tmp.iterdir()) == ["log", "stdout"], arguments
    with open(log, "w") as stream:
        end(start("run", ENDLESS, "--frames", "2", "-q", "-o", "jsonl:-", "-o", f"jsonl:{tmp}/stdout", *SMALL, stdout=stream), 0)
    assert [p["frame_id"] for p in lines(log.read_text())] in ([0, 0, 1, 1], [0, 1, 0, 1])


@test
def a_small_stack(tmp):
    limit = lambda: resource.setrlimit(resource.RLIMIT_STACK, (64 << 10, 64 << 10))
    for arguments in (("run", *SMALL, "-o", f"dir:{tmp}/o", "--track", "1"), ("detect", "--det-size", "256", "--dump", tmp / "d.safetensors")):
        end(start(*arguments, ENDLESS, "--frames", "2", "--precision", "fp32", stdout=subprocess.DEVNULL, preexec_fn=limit), 0)


@test
def few_descriptors(tmp):
    ended = set()
    for most in range(3, 24):
        limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        process = start("run", ENDLESS, "--frames", "1", "-o", f"dir:{tmp}/o", "-o", f"jsonl:{tmp}/lines", *SMALL, preexec_fn=limit)
        process.wait(timeout=PATIENCE)
        code = process.returncode
        err = end(process, code)
        # 127: the loader could not open the libraries
        assert code in (0, 1) and (code == 0 or "ultramotion: " in err) or (code == 127 and most < 6), f"{most}: exit {code}\n{err}"
        ended.add(code)
    assert {0, 1} <= ended, ended
    whole_images(tmp)


@test
def no_thread_to_be_had(tmp):
    if SANITIZED:
        return  # they need threads of such stacks themselves
    most = resource.getrlimit(resource.RLIMIT_STACK)[1]
    if most != resource.RLIM_INFINITY:
        raise Skip("stacks are limited")
    limit = lambda: resource.setrlimit(resource.RLIMIT_STACK, (1 << 46, most))
    err = end(start("run", ENDLESS, "--frames", "1", *SMALL, preexec_fn=limit), 1)
    assert "a thread for " in err and "limit of processes" in err, err


@test
def a_file_that_cannot_be_written_is_named(tmp):
    um("phantom", "-o", tmp / "set", "--frames", "1")
    for most, arguments, file in ((100, ("run", ENDLESS, "--frames", "1", "-o", f"record:{tmp}/rec"), tmp / "rec/settings.yaml"),
                                  (20, ("val", tmp / "set", "-o", tmp / "out"), tmp / "out/results.json")):
        limit = lambda most=most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        err = end(start(*arguments, *SMALL, preexec_fn=limit), 1)
        assert f"{file}: " in err and "File too large" in err, err


@test
def little_memory(tmp):
    if SANITIZED:
        return  # their shadow is larger than any limit
    ended = set()
    for most in (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 2048):
        limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (most << 20, most << 20))
        process = start("run", ENDLESS, "--frames", "1", "-o", f"dir:{tmp}/{most}", "-o", f"jsonl:{tmp}/lines", "--threads", "1", *SMALL,
                        preexec_fn=limit)
        process.wait(timeout=PATIENCE)
        code = process.returncode
        err = end(process, code)
        # 127: the loader could not map the program
        assert code in (0, 1) or (code == 127 and most <= 32), f"{most} MB: exit {code}\n{err}"
        ended.add(code)
    assert {0, 1} <= ended, ended
    whole_images(tmp)


main()
