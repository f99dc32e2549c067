# SPDX-License-Identifier: Apache-2.0
"""Runs of train/: the same arguments give the same losses and the same file, also where the run was killed while it wrote a checkpoint, and
with other numbers of processes. A run that goes on keeps what it began with, and is one process's."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
STEPS = 5


def command(out, *more):
    return [sys.executable, str(ROOT / "train/detector.py"), str(out), "--batch", "2", "--threads", "1", "--steps", str(STEPS), *more]


def run(out, *more):
    return subprocess.run(command(out, *more), capture_output=True, text=True)


def losses(out):
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in (out / "log.jsonl").read_text().splitlines()]


def workers_of(pid):
    """Processes that it started, but the one that only counts semaphores."""
    children = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in children if "spawn_main" in line]


def killed(out):
    """In the middle of the checkpoint after its second step; returns its workers."""
    with subprocess.Popen(command(out, "--workers", "2", "--minutes", "0"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
        while p.poll() is None and not ((out / "checkpoint.new").exists() and len(losses(out)) > 1):
            time.sleep(0.002)
        workers = workers_of(p.pid)
        p.kill()
    return workers


def refused(what, out, *more):
    done = run(out, *more)
    assert done.returncode and what in done.stderr, f"{more}: {done.stderr!r}, want {what!r}"


def with_two_classes(path, to):
    two = {k: v.repeat(2, *[1] * (v.dim() - 1)) if "_score_head" in k else v for k, v in load_file(path).items()}
    save_file(two, to, {"training_data": "scans of ours"})
    return to


def main():
    with tempfile.TemporaryDirectory(prefix="train-") as folder:
        folder = Path(folder)
        whole, cut = folder / "whole", folder / "cut"
        done = run(whole, "--workers", "1")
        assert done.returncode == 0, done.stderr
        workers = killed(cut)
        assert workers and not (cut / "detector.safetensors").exists()
        with (cut / "log.jsonl").open("a") as log:
            log.write('{"step": 3, "los')
        done = run(cut, "--workers", "3")
        assert "goes on from step" in done.stderr and done.returncode == 0, done.stderr
        assert losses(whole) == losses(cut) and len(losses(cut)) == STEPS, f"{losses(whole)}\n{losses(cut)}"
        assert (whole / "detector.safetensors").read_bytes() == (cut / "detector.safetensors").read_bytes()
        left = [pid for pid in workers if Path(f"/proc/{pid}").exists()]
        assert not left, f"processes outlive the run: {left}"
        print("killed and gone on with: the same losses, the same file")
        refused("began with --batch 2, not 3", whole, "--batch", "3")
        refused("began with --seed 1, not 2", whole, "--seed", "2")
        made = (whole / "detector.safetensors").read_bytes()
        assert run(whole, "--batch", "3", "--export").returncode == 0 and (whole / "detector.safetensors").read_bytes() == made
        refused("began with other weights", whole, "--start", str(ROOT / "tests/golden/models/dfine_n_bone_320.safetensors"))
        done = subprocess.run(command(folder / "new"), capture_output=True, text=True, env={**os.environ, "ULTRAMOTION_LIBRARY": "/nowhere.so"})
        assert "error: /nowhere.so: cannot open" in done.stderr and done.returncode == 2, done.stderr
        refused("want .safetensors", folder / "new", "--start", str(whole / "checkpoint.pt"))
        refused("no checkpoint", folder / "new", "--export")
        torn = folder / "torn"
        torn.mkdir()
        for n in (0, 100, (whole / "checkpoint.pt").stat().st_size - 1000):
            (torn / "checkpoint.pt").write_bytes((whole / "checkpoint.pt").read_bytes()[:n])
            refused(f"{torn}/checkpoint.pt: no whole checkpoint", torn)
        refused("--within: nan is not", whole, "--within", "nan")
        before = len(losses(whole))
        assert run(whole, "--until", str(10 * STEPS)).returncode == 0 and len(losses(whole)) == before, "more steps than --steps"
        with subprocess.Popen(command(folder / "two", "--steps", "1000"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
            while p.poll() is None and not (folder / "two" / "log.jsonl").exists():
                time.sleep(0.1)
            refused("another process", folder / "two", "--steps", "1000")
            p.kill()
        own = folder / "own"
        done = run(own, "--steps", "1", "--start", str(with_two_classes(whole / "detector.safetensors", folder / "two.safetensors")))
        assert "dec_score_head.0.bias is [2], want [1]: it begins anew" in done.stderr, done.stderr
        facts = safe_open(own / "detector.safetensors", "pt").metadata()
        assert facts["training_data"].endswith("; before: scans of ours") and facts["licence"].startswith("that of"), facts
        short = folder / "short"
        assert run(short, "--batch", "32", "--within", "0.5").returncode == 0
        spent = sum(json.loads(line)["seconds"] for line in (short / "log.jsonl").read_text().splitlines())
        assert spent < 60, f"--within 0.5: {spent:.0f} s"
        print(f"--within 0.5: {spent:.0f} s; wrong arguments are named")


if __name__ == "__main__":
    os.environ.setdefault("ULTRAMOTION_LIBRARY", str(ROOT / "build" / "libultramotion.so"))
    main()
