#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""python/tests on the package as it lies in the tree and on a library.

    test_python.py LIBRARY [SANITIZERS] [OPTIONS OF PYTEST…]
"""
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(library, *more):
    sanitizers, options = (more[0], list(more[1:])) if more and not more[0].startswith("-") else ("", list(more))
    missing = [name for name in ("numpy", "pytest") if importlib.util.find_spec(name) is None]
    needed = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
    runtime = re.search(r"libasan\S* => (\S+)", needed)
    why = f"{sys.executable} has no {' and no '.join(missing)}" if missing else ""
    if sanitizers and not runtime:
        why = f"Python cannot load a library with {sanitizers} sanitizers of this compiler"
    if why:
        print(f"skipped the Python package: {why}")
        print("0 passed, 0 failed, 1 skipped")
        return 0
    env = {**os.environ, "ULTRAMOTION_LIBRARY": str(Path(library).resolve()), "ULTRAMOTION_MODELS": str(ROOT / "models")}
    if runtime:  # it must be there before Python is; Python keeps what it has at the end
        env |= {"LD_PRELOAD": runtime[1], "ASAN_OPTIONS": "detect_leaks=0:" + env.get("ASAN_OPTIONS", ""), "PYTHONMALLOC": "malloc"}
        options = options or ["-k", "test_tensor or test_misuse or test_inference or test_threads"]  # what memory is handed over in
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "python" / "tests"), *options]
    return subprocess.run(command, env=env).returncode


sys.exit(main(*sys.argv[1:]))
