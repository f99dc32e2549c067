# SPDX-License-Identifier: Apache-2.0
"""What runs as a process of its own: `val`, `train`, and the command of an installed package."""
import json
import os
import subprocess

import numpy as np
import pytest

import ultramotion
from ultramotion import command

try:
    command.command_path()
except ultramotion.UnsupportedError as problem:
    pytest.skip(str(problem), allow_module_level=True)

DATASET = "phantom:seed=900001,frames=2,width=160,height=160"


def test_val_reports_as_the_command_does(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))  # as in a container that is read-only
    report = ultramotion.val(DATASET, device="cpu", conf=0.4, mask_clean=False, gray=np.bool_(True), within=(3, 6), out=tmp_path / "out")
    assert report["frames"] == 2 and report["conf"] == pytest.approx(0.4) and report["within_px"] == [3, 6]
    assert 0 <= report["masks"]["dice"] <= 1 and len(report["boxes"]["ap_interval"]) == 2
    assert json.loads((tmp_path / "out" / "report.json").read_text())["masks"] == report["masks"]
    again = ultramotion.val(DATASET, results=tmp_path / "out" / "results.json", conf=0.4, within=(3, 6))
    assert again["boxes"]["ap"] == report["boxes"]["ap"]


def test_val_scores_what_packets_are_in_coco(tmp_path):
    packets = list(ultramotion.run(DATASET, conf=0.1))
    (tmp_path / "found.json").write_text(json.dumps([a for p in packets for a in p.to_coco(category_ids=[0])]))
    assert ultramotion.val(DATASET, results=tmp_path / "found.json", conf=0.1)["masks"]["dice"] > 0.5
    (tmp_path / "found.json").write_text(json.dumps([a for p in packets for a in p.to_coco()]))  # COCO's own ids are from 1 on
    with pytest.raises(ultramotion.Error, match="unknown category 1; the data set has 1, the first is 0"):
        ultramotion.val(DATASET, results=tmp_path / "found.json")


class Bar:
    """What tqdm's has of it."""

    def __init__(self, _=None):
        self.n, self.total, self.closed = 0, None, False

    def update(self, n):
        self.n += n

    def close(self):
        self.closed = True


def test_val_shows_how_far_it_is(monkeypatch):
    seen = []

    class Slow(Bar):
        def update(self, n):
            super().update(n)
            seen.append((self.n, self.total))

        def close(self):
            seen.append("closed")

    monkeypatch.setattr(command, "_bar", Slow)
    assert ultramotion.val(DATASET.replace("frames=2", "frames=40"), progress=True)["frames"] == 40
    assert len(seen) > 2 and seen[0][0] < 40 and seen[0][1] == 40 and seen[-2:] == [(40, 40), "closed"]


def test_a_val_that_is_interrupted_leaves_nothing(monkeypatch, tmp_path):
    class Interrupted(Bar):
        def update(self, _):
            raise KeyboardInterrupt

    monkeypatch.setattr(command, "_bar", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        ultramotion.val("phantom:frames=100000", out=tmp_path / "out", progress=True)
    assert list((tmp_path / "out").iterdir()) == []


def test_val_takes_devices_as_models_do(monkeypatch):
    calls = []
    monkeypatch.setattr(command, "_said", lambda call, _: calls.append(call) or "{}")
    ultramotion.val(DATASET, device="cuda")
    assert calls[0][calls[0].index("--device") + 1] == "cuda:0"


def test_val_logs_what_is_to_be_known(tmp_path, caplog):
    (tmp_path / "boxes.json").write_text('[{"image_id": 0, "category_id": 0, "bbox": [1, 1, 9, 9], "score": 0.9}]')
    report = ultramotion.val(DATASET, results=tmp_path / "boxes.json")
    assert report["frames"] == 2 and "no mask in the results" in caplog.text


def test_val_takes_what_models_are_told(tmp_path):
    (tmp_path / "names.txt").write_text("bone\n")
    told = {"activation": "relu", "fit": "letterbox", "queries": 100, "input_size": (256, 192), "track": True, "names": tmp_path / "names.txt"}
    plain = ultramotion.val(DATASET, canvas=128)
    assert ultramotion.val(DATASET, canvas=128, family="mobile-sam", **told)["boxes"] != plain["boxes"]


def test_what_val_refuses(detector, tmp_path):
    with pytest.raises(ultramotion.InvalidError, match="detector is a Detector: want its file"):
        ultramotion.val(DATASET, detector=detector)
    with pytest.raises(ultramotion.InvalidError, match="conf"):
        ultramotion.val(DATASET, conf=7)
    for window in ((0, 4095), "auto"):
        with pytest.raises(ultramotion.InvalidError, match="--window: nothing for a source other than files"):
            ultramotion.val(DATASET, window=window)
    for wrong in ({"crop": 5}, {"spacing": 0.1}, {"within": np.array([12, 12, 12])}, {"mask_clean": "no"}, {"frames": "1\0"}):
        with pytest.raises(ultramotion.InvalidError, match=f"{next(iter(wrong)).replace('_', '-')}|NUL"):
            ultramotion.val(DATASET, **wrong)
    for name in ("detector", "segmenter", "names", "masks", "lines", "pictures", "results"):
        with pytest.raises(ultramotion.FileError, match="nowhere: No such file"):
            ultramotion.val(DATASET, **{name: tmp_path / "nowhere"})
    for dataset in (tmp_path / "nowhere", "--help"):
        with pytest.raises(ultramotion.FileError, match=f"{dataset}: No such file"):
            ultramotion.val(dataset)


def test_without_a_command(monkeypatch, tmp_path):
    monkeypatch.setenv("ULTRAMOTION_COMMAND", str(tmp_path))
    with pytest.raises(ultramotion.UnsupportedError, match="no command at"):
        ultramotion.val(DATASET)


def test_train_runs_a_recipe_where_there_is_one(tmp_path):
    (tmp_path / "detector.py").write_text("import pathlib, sys\npathlib.Path(sys.argv[1]).write_text(' '.join(sys.argv[2:]))\nsys.exit(3)\n")
    assert ultramotion.train("detector", tmp_path / "out", "--until", 1, recipes=tmp_path) == 3
    assert (tmp_path / "out").read_text() == "--until 1"
    with pytest.raises(ultramotion.UnsupportedError, match="python train/segmenter.py"):
        ultramotion.train("segmenter", "out", recipes=tmp_path)
    with pytest.raises(ultramotion.InvalidError, match="detector or segmenter"):
        ultramotion.train("everything", "out")


def test_one_import_is_enough(python):
    """As the texts say it: ultramotion.ray.process(), ultramotion.dicom.save_segmentation()."""
    assert python("import ultramotion; print(ultramotion.ray.process.__name__, ultramotion.dicom.save_segmentation.__name__)")


def test_an_editable_installation(python, tmp_path):
    """Its package is two folders: the sources, and what was built of them."""
    (tmp_path / "libultramotion.so").symlink_to(os.path.realpath(ultramotion._c.lib._name))
    (tmp_path / "models").symlink_to(ultramotion.models_path())
    sources = os.path.dirname(ultramotion.__file__)
    said = python(
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('ultramotion', {sources!r} + '/__init__.py', submodule_search_locations=[{sources!r}, {str(tmp_path)!r}])\n"
        "sys.modules['ultramotion'] = package = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(package)\n"
        "print(package._c.lib._name, package.models_path())\n",
        ULTRAMOTION_LIBRARY="",
        ULTRAMOTION_MODELS="",
    )
    assert said.split() in ([f"{tmp_path}/libultramotion.so", f"{tmp_path}/models"], [f"{sources}/libultramotion.so", f"{sources}/models"])


def test_the_command_of_the_package(python):
    said = python("import sys; sys.argv = ['ultramotion', '--version']; from ultramotion.command import main; main()")
    assert said == subprocess.run([command.command_path(), "--version"], capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"ultramotion {ultramotion.__version__} ")
    models = "import os; os.execv = lambda *_: print(os.environ['ULTRAMOTION_MODELS']); from ultramotion.command import main; main()"
    assert python(models, ULTRAMOTION_MODELS="") == ultramotion._c.carried("models") + "\n"
    assert python(models, ULTRAMOTION_MODELS="mine") == "mine\n"
    assert said == python("import runpy, sys; sys.argv = ['', '--version']; runpy.run_module('ultramotion', run_name='__main__')")
