# SPDX-License-Identifier: Apache-2.0
"""What runs as a process of its own: the command `ultramotion`, its `val`, and the recipes of `train/`."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from typing import Any, Iterable, NoReturn

import numpy as np

from . import _c
from .models import DETECTOR, LOG, SEGMENTER, _device_name, models_path
from .pipeline import _bar

_STATUS: dict[int, type[_c.Error]] = {2: _c.InvalidError, 3: _c.TransferError}


def command_path() -> str:
    """The command: the one that `ULTRAMOTION_COMMAND` names, else that beside the library."""
    named = os.environ.get("ULTRAMOTION_COMMAND")
    path = named or os.path.join(os.path.dirname(os.path.realpath(_c.lib._name)), "ultramotion")
    if not os.access(path, os.X_OK) or os.path.isdir(path):
        raise _c.UnsupportedError(f"no command at {path}" + ("" if named else ": name one in ULTRAMOTION_COMMAND"))
    return path


def main() -> NoReturn:
    """`ultramotion …` of an installed package: the command itself, with the package's models."""
    os.environ["ULTRAMOTION_MODELS"] = models_path()  # also where it is set to nothing
    try:
        path = command_path()
    except _c.Error as problem:
        sys.exit(f"ultramotion: {problem}")
    os.execv(path, ["ultramotion", *sys.argv[1:]])


def val(
    dataset: _c.Path,
    *,
    detector: _c.Path | None = None,
    segmenter: _c.Path | None = None,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    conf: float | None = None,
    gain: str | float | None = None,
    gray: bool | None = None,
    crop: tuple[int, int, int, int] | str | None = None,
    nms: float | None = None,
    presence: str | int | None = None,
    smooth: float | None = None,
    mask_clean: bool | None = None,
    track: bool | None = None,
    input_size: int | tuple[int, int] | None = None,
    queries: int | None = None,
    activation: str | None = None,
    fit: str | None = None,
    names: _c.Path | None = None,
    canvas: int | None = None,
    family: str | None = None,
    frames: int | None = None,
    masks: _c.Path | None = None,
    lines: _c.Path | None = None,
    pictures: _c.Path | None = None,
    within: tuple[float, float] | None = None,
    spacing: tuple[float, float] | None = None,
    window: tuple[int, int] | str | None = None,
    results: _c.Path | None = None,
    out: _c.Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Accuracy against ground truth, as `ultramotion val --json` reports it (`docs/ACCURACY.md`): boxes, masks, lines and states, each
    with an interval.

    `dataset` is a folder with a COCO file (or that file), or with true masks or lines beside its images, or `"phantom:…"`. Models are
    files, as it runs in a process of its own, and what `Detector` and `Segmenter` are told of them is told here; `results` scores what
    any program found; `out` is a folder for report, results and images. `progress` shows a bar; what should be known of the data set
    goes to the logger `ultramotion`."""
    for what, model in (("detector", detector), ("segmenter", segmenter)):
        if model is not None and not isinstance(model, (str, os.PathLike)):
            raise _c.InvalidError(f"val: {what} is a {type(model).__name__}: want its file")
    if results is None:  # else no network runs
        folder = models_path()
        detector = os.path.join(folder, DETECTOR) if detector is None else detector
        segmenter = os.path.join(folder, SEGMENTER) if segmenter is None else segmenter
    for path in (dataset, detector, segmenter, names, masks, lines, pictures, results):
        if path is not None and not os.path.exists(_c.path_bytes(path)) and not str(path).startswith("phantom:"):
            raise _c.FileError(f"val: {_c.path_text(path)}: {os.strerror(errno.ENOENT)}")
    given: dict[str, Any] = {
        "detector": detector,
        "segmenter": segmenter,
        "device": None if device is None else _device_name(device),
        "precision": precision,
        "threads": threads,
        "conf": conf,
        "gain": gain,
        "gray": gray,
        "crop": _listed(crop, ","),
        "nms": nms,
        "presence": presence,
        "det-smooth": smooth,
        "mask-clean": mask_clean,
        "track": track,
        "det-size": _listed(input_size, "x"),
        "queries": queries,
        "det-act": activation,
        "det-fit": fit,
        "names": names,
        "sam-size": canvas,
        "sam-family": family,
        "frames": frames,
        "masks": masks,
        "lines": lines,
        "pictures": pictures,
        "within": _listed(within, ","),
        "spacing": _listed(spacing, ","),
        "window": _listed(window, ","),
        "results": results,
    }
    call = [command_path(), "val", "--json", "--summary-every", "0.2"]
    for name, value in given.items():
        if value is not None:
            text = value if isinstance(value, (str, bytes, os.PathLike)) else str(int(value) if isinstance(value, (bool, np.bool_)) else value)
            call += [f"--{name}", _c.path_text(text)]
    if out is not None:
        call += ["-o", _c.path_text(out)]
    bar = _bar(None) if progress else None
    try:
        report: dict[str, Any] = json.loads(_said([*call, "--", _c.path_text(dataset)], bar))
        if bar is not None:
            bar.update(report["frames"] - bar.n)
    finally:
        if bar is not None:
            bar.close()
    return report


def _listed(values: Any, by: str) -> Any:
    """Several numbers as the command takes them; what is no list goes as it is, and the command refuses it by name."""
    return by.join(map(str, values)) if isinstance(values, Iterable) and not isinstance(values, str) else values


def _said(call: list[str], bar: Any) -> str:
    """What the command writes to stdout. Of its lines on stderr those of how far it is move the bar, others are logged; the last one of a
    command that fails is raised."""
    import subprocess

    last = ""
    with _c.scratch("w+", "utf-8") as said, subprocess.Popen(
        call, stdout=said, stderr=subprocess.PIPE, encoding="utf-8", errors="replace"
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                count = re.fullmatch(r"ultramotion: (\d+) of (\d+) frames\n", line)
                if count is None:
                    if last:
                        LOG.warning("%s", last)
                    last = line.strip().removeprefix("ultramotion: ")
                elif bar is not None:
                    bar.total = int(count[2])
                    bar.update(int(count[1]) - bar.n)
            status = process.wait()
        except BaseException:
            process.terminate()  # it takes what it has written in part away
            process.wait()
            raise
        if status != 0:
            raise _STATUS.get(status, _c.Error)(last if last and status > 0 else f"val ended with {status}")
        if last:
            LOG.warning("%s", last)
        said.seek(0)
        text: str = said.read()
        return text


def train(network: str, out: _c.Path, *arguments: str | float | _c.Path, recipes: _c.Path | None = None) -> int:
    """Train `"detector"` or `"segmenter"` into the folder `out`, by the recipe of the source tree (`train/README.md`), in a process of its
    own whose exit status is returned; `arguments` are the recipe's, such as `"--stop-after", "60"`. An installed package has no recipes:
    `recipes` is the folder `train` of a tree."""
    import subprocess

    if network not in ("detector", "segmenter"):
        raise _c.InvalidError(f"train: {network!r}: want detector or segmenter")
    out = _c.path_text(out)
    folder = _c.path_text(recipes) if recipes is not None else os.path.join(os.path.dirname(os.path.dirname(_c.FOLDER)), "train")
    recipe = os.path.join(folder, f"{network}.py")
    if not os.path.exists(recipe):
        raise _c.UnsupportedError(
            f"train: no recipe at {recipe}: the package trains nothing itself; take the source tree, install what its train/README.md names, "
            f"and say recipes=, or run `python train/{network}.py {out}` there"
        )
    return subprocess.run([sys.executable, recipe, out, *(a if isinstance(a, (str, bytes, os.PathLike)) else str(a) for a in arguments)]).returncode
