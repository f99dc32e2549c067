#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""python/tests on the package as it lies in the tree and on a library.

    test_python.py LIBRARY [SANITIZERS] [OPTIONS OF PYTEST…]
"""
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(library, *more):
    sanitizers, options = (more[0], list(more[1:])) if more and not more[0].startswith("-") else ("", list(more))
    missing = [name for name in ("numpy", "pytest") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"skipped the Python package: {sys.executable} has no {' and no '.join(missing)}")
    if "thread" in sanitizers:
        print("skipped the Python package: Python cannot load a library with the thread sanitizer")
    if missing or "thread" in sanitizers:
        print("0 passed, 0 failed, 1 skipped")
        return 0
    env = {**os.environ, "ULTRAMOTION_LIBRARY": str(Path(library).resolve()), "ULTRAMOTION_MODELS": str(ROOT / "models")}
    if "address" in sanitizers:  # its run-time must be there before Python is; Python keeps what it has at the end
        runtime = subprocess.run([os.environ.get("CC", "cc"), "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
        env |= {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0:" + env.get("ASAN_OPTIONS", ""), "PYTHONMALLOC": "malloc"}
        options = options or ["-k", "test_tensor or test_misuse or test_inference"]  # what memory is handed over in
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "python" / "tests"), *options], env=env).returncode


sys.exit(main(*sys.argv[1:]))
