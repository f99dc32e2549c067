#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command with each allocation failing that it makes, or that a library makes for it: it says that memory was missing, or it needs that
memory for nothing, ends with 0 and writes what it always does. One place in six, all with ULTRAMOTION_LONG_TESTS=1. Standard library only.
Usage: test_memory.py COMMAND FAILING [TEST]..., FAILING the library of tests/failing_memory.c."""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FAILING = str(Path(sys.argv.pop(2)).resolve())

from command import COMMAND, DETECTOR, ENVIRONMENT, main, test, um, write_tiff  # noqa: E402

MISSING = ("out of memory", "Cannot allocate memory", "insufficient memory")
SHARE = 1 if os.environ.get("ULTRAMOTION_LONG_TESTS") else 6
SMALL = ("--det-size", 64, "--queries", 20, "--sam-size", 64, "--threads", 1)
tried = set()  # places of the tests before


def attempt(arguments, **variables):
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([COMMAND, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=folder, timeout=100,
                              env={**ENVIRONMENT, "LD_PRELOAD": FAILING, **variables})
        return done, {path.relative_to(folder): path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()}


def every_place(folder, *arguments):
    """Times differ from run to run, and so do some bytes: a file that lacks a tenth of its usual size is not whole."""
    done, usual = attempt(arguments, UM_MEMORY_PLACES=str(folder / "places"))
    assert done.returncode == 0, done.stderr
    places = [place for place in (folder / "places").read_text().split() if place not in tried]
    tried.update(places)
    places = places[::SHARE]
    with ThreadPoolExecutor(2) as pool:
        for place, (done, files) in zip(places, pool.map(lambda place: attempt(arguments, UM_MEMORY_FAIL=place), places)):
            told = any(words in done.stderr for words in MISSING)
            whole = files.keys() == usual.keys() and all(files[name] >= 0.9 * size for name, size in usual.items())
            assert (done.returncode in (0, 1) and told) or (done.returncode == 0 and whole), (
                f"{place} of {arguments}: exit {done.returncode}, files {files}\n{done.stderr[-2000:]}")
    print(f"{arguments[0]}: {len(places)} places")


@test
def of_the_phantom(folder):
    every_place(folder, "phantom", "-o", "out", "--frames", 2)


@test
def of_a_model(folder):
    every_place(folder, "inspect", DETECTOR)
    every_place(folder, "convert", DETECTOR, "out.safetensors", "--precision", "fp16")


@test
def of_a_run_with_its_files(folder):
    every_place(folder, "run", "phantom:frames=2", *SMALL, "-o", "record:rec", "-o", "dir:out", "-o", "masks:out.seg.nrrd", "-o", "jsonl:out.jsonl", "--kpi", "kpi.jsonl",
                "--trace", "trace.json")


@test
def of_what_is_read(folder):
    um("run", "phantom:frames=2", *SMALL, "-o", f"record:{folder}/rec", "-o", f"masks:{folder}/out.mha", "-q")
    write_tiff(folder / "a.tiff", [[bytes(range(64))] * 48] * 2)
    for source in ("a.tiff", "rec", "out.mha"):
        every_place(folder, "run", f"replay:{folder}/rec" if source == "rec" else folder / source, *SMALL, "-o", "jsonl:out.jsonl")


@test
def of_boxes(folder):
    every_place(folder, "detect", "phantom:frames=1", "--det-size", 128, "--queries", 80, "--conf", 0)


if __name__ == "__main__":
    main()
