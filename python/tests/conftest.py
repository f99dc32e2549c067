# SPDX-License-Identifier: Apache-2.0
"""Small networks and images. ULTRAMOTION_LIBRARY and ULTRAMOTION_MODELS say where the library and its models are, where
the package is not installed."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
if not (ROOT / "python" / "ultramotion" / "libultramotion.so").exists() and "ULTRAMOTION_INSTALLED" not in os.environ:
    os.environ.setdefault("ULTRAMOTION_LIBRARY", str(ROOT / "build" / "libultramotion.so"))
    os.environ.setdefault("ULTRAMOTION_MODELS", str(ROOT / "models"))
    sys.path.insert(0, str(ROOT / "python"))
os.environ.pop("ULTRAMOTION_SAM_AS_NUMPY", None)

import ultramotion  # noqa: E402

BOX = [20.0, 70.0, 100.0, 250.0]


def pytest_terminal_summary(terminalreporter):
    """One closing line, as all test programs have it."""
    count = {k: len(terminalreporter.stats.get(k, [])) for k in ("passed", "failed", "error", "skipped")}
    for report in terminalreporter.stats.get("skipped", []):
        print(f"\nskipped {report.nodeid.partition('::')[2] or report.nodeid.rpartition('/')[2]}: {report.longrepr[2].removeprefix('Skipped: ')}", end="")
    print(f"\n{count['passed']} passed, {count['failed'] + count['error']} failed, {count['skipped']} skipped")


@pytest.fixture(scope="session")
def device():
    with ultramotion.Device("cpu", threads=2) as opened:
        yield opened


@pytest.fixture(scope="session")
def segmenter(device):
    return ultramotion.Segmenter(device=device, canvas=128)


@pytest.fixture(scope="session")
def detector(device):
    return ultramotion.Detector(device=device)


@pytest.fixture(scope="session")
def image():
    """A gray frame of the phantom with a bone in it."""
    with ultramotion.run("phantom:seed=900002,frames=1,width=256,height=256", detector=ultramotion.Detector(device="cpu"), segmenter=False) as frames:
        return next(frames).frame.numpy().copy()


@pytest.fixture
def python():
    """Run Python text in a process of its own; its output."""

    def run(text, **env):
        paths = [str(ROOT / "python")] if "ULTRAMOTION_LIBRARY" in os.environ else []
        paths += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        done = subprocess.run(
            [sys.executable, "-c", text],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **env},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run
