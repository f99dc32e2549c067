# SPDX-License-Identifier: Apache-2.0
"""An archive on a local cluster: a worker is killed in the middle; nothing is lost and nothing is there twice.

ULTRAMOTION_FRAMES=2000 makes it long."""
import os
import signal
import threading
import time

import numpy as np
import pytest

import ultramotion
from conftest import ROOT

ray = pytest.importorskip("ray")
pytest.importorskip("pyarrow")
import ultramotion.ray  # noqa: E402

if "asan" in os.environ.get("LD_PRELOAD", ""):
    pytest.skip("a cluster of sanitized processes", allow_module_level=True)

FRAMES, WORKERS = int(os.environ.get("ULTRAMOTION_FRAMES", 60)), 4
PART = max(5, FRAMES // 40)  # frames
OPTIONS = {"segmenter": False, "device": "cpu", "conf": 0.3}


@pytest.fixture(scope="module")
def cluster():
    path = os.pathsep.join(filter(None, [str(ROOT / "python") if "ULTRAMOTION_LIBRARY" in os.environ else "", os.environ.get("PYTHONPATH")]))
    os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["RAY_worker_niceness"] = "0"  # not behind everything else on the machine
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Two folders of images, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("archive")
    rng = np.random.default_rng(5)
    for i in range(FRAMES):
        sub = folder / ("a" if i < FRAMES // 3 else "b")
        sub.mkdir(exist_ok=True)
        pixels = rng.integers(0, 255, (48, 64), np.uint8)
        name = os.fsencode(sub / f"{i:05d}.png")
        assert ultramotion._c.lib.um_image_write_png(name, pixels.ctypes.data, 64, 48, 1) == 0
    (folder / "b" / f"{FRAMES - 1:05d}.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    return folder


def test_parts_are_the_archive_in_order(archive):
    (archive / "b" / "._00000.png").write_bytes(b"of another system")
    cut = ultramotion.ray.parts(archive, 7)
    files = [f for part in cut for f in part]
    assert files == sorted(str(p) for p in archive.rglob("[!.]*.png")) and len(files) == FRAMES
    assert max(len(part) for part in cut) == 7
    assert all(len({os.path.dirname(f) for f in part}) == 1 for part in cut)
    with pytest.raises(ultramotion.FileError):
        ultramotion.ray.parts("nowhere/*.png")


def test_parts_have_all_that_the_library_takes_from_a_folder(tmp_path, caplog):
    names = ["a.png", "b.webm", "c.GIF", "d.nhdr", "e.m4v", "f.dcm", "IM00001"]
    for name in (*names, "notes.txt"):
        (tmp_path / name).write_bytes(bytes(128) + b"DICM" if name == "IM00001" else b"")
    assert ultramotion.ray.parts(tmp_path) == [[str(tmp_path / name)] for name in sorted(names)]
    assert "passed over: 1" in caplog.text


def test_a_killed_worker_is_replaced_and_a_run_goes_on(cluster, archive, tmp_path, caplog):
    out = tmp_path / "out"
    killed = []

    def kill():
        """Kill a worker of ours when half of the parts are there."""
        total = len(ultramotion.ray.parts(archive, PART))
        while not killed:
            time.sleep(0.02)
            if out.exists() and len(there := sorted(out.glob("part-*.parquet"), key=os.path.getmtime)) >= total // 2:
                import pyarrow.parquet as pq

                worker = pq.read_table(there[-1])["worker"][0].as_py()
                killed.append(worker)
                os.kill(int(worker.partition(":")[2]), signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    made = ultramotion.ray.process(archive, out, workers=WORKERS, frames_per_part=PART, **OPTIONS)
    killer.join(5)
    assert killed
    table = ultramotion.ray.read(out)
    want = sorted(str(p) for p in archive.rglob("[!.]*.png"))
    assert table["source"].to_pylist() == want  # every frame once, in order, none twice
    assert made["parts"] == made["done"]
    states = table["state"].to_pylist()
    assert states[-1] == "ERROR" and f"{FRAMES - 1:05d}.png" in table["problem"].to_pylist()[-1]
    assert set(states[:-1]) <= {"VISIBLE", "LOST"}
    assert len(set(table["worker"].to_pylist())) > 1
    assert not list(out.glob("*.tmp"))

    # what is there is not done again, what is missing is
    (out / "part-000001.parquet").unlink()
    assert ultramotion.ray.read(out).num_rows < FRAMES and f"1 of {made['parts']} parts are not done" in caplog.text
    again = ultramotion.ray.process(archive, out, workers=2, frames_per_part=PART, **OPTIONS)
    assert again["done"] == 1 and ultramotion.ray.read(out)["source"].to_pylist() == want
    assert ultramotion.ray.process(archive, out, frames_per_part=PART, **OPTIONS)["done"] == 0
    with pytest.raises(ultramotion.InvalidError, match="another archive or other options"):
        ultramotion.ray.process(archive, out, frames_per_part=PART + 1, **OPTIONS)


def test_rows_are_packets(cluster, archive, tmp_path, monkeypatch):
    one = archive / "a" / "00000.png"
    monkeypatch.chdir(archive)  # where no worker is
    ultramotion.ray.process("a/00000.png", tmp_path / "out", **OPTIONS)
    row = ultramotion.ray.read(tmp_path / "out").to_pylist()[0]
    with ultramotion.Pipeline(**OPTIONS) as pipeline:
        packet = pipeline(ultramotion.Frame.read(one))
    assert (row["state"], row["score"]) == (packet.state, packet.score)
    assert row["source"] == str(one) and row["problem"] is None
