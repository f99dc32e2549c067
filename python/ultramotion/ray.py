# SPDX-License-Identifier: Apache-2.0
"""An archive of images, videos and DICOM files on many machines, by Ray Data (`pip install "ultramotion[ray]"`).

    import ultramotion.ray
    ultramotion.ray.process("archive/", "results/", workers=4)
    table = ultramotion.ray.read("results/")

The archive is cut into parts: some images of a folder, or one video or DICOM file. Each part becomes one Parquet file, which
appears whole or not at all. So whoever dies is replaced and his part is done again; and a run that was stopped goes on
where it was when it is started again with the same arguments."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from typing import Any, Iterable, Iterator

from . import _c, dicom
from .image import Frame
from .models import LOG
from .packet import Packet
from .pipeline import Pipeline, files_in, run

# What the library takes from a folder (source_dir.c).
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp")
_SEQUENCES = (
    *(".tif", ".tiff", ".mha", ".mhd", ".nrrd", ".nhdr"),
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".mpg", ".mpeg", ".gif"),
)


def parts(archive: _c.Path | Iterable[_c.Path], frames_per_part: int = 64) -> list[list[str]]:
    """The files of an archive (a folder, a glob, a file, or a list of these) in order, as the parts they are done in. Of a folder: what is
    called like an image, a sequence or a video, and DICOM files whatever they are called."""
    if isinstance(archive, (str, os.PathLike)):
        archive = [archive]
    _at_least_one(frames_per_part, "frames_per_part")
    files: list[str] = []
    for entry in archive:
        name = _c.path_text(entry)
        if os.path.isdir(name):
            found = files_in(name, recursive=True)
            taken = sorted(f for f in found if f.lower().endswith(_IMAGES + _SEQUENCES) or dicom.is_dicom(f))
            if len(taken) < len(found):
                LOG.warning("%s: passed over: %d that are not called like images or videos", name, len(found) - len(taken))
            files += taken
        elif os.path.exists(name):
            files.append(name)
        else:
            matches = sorted(glob.glob(name))
            if not matches:
                raise _c.FileError(f"{name}: no such file, and nothing that it matches")
            files += matches
    cut: list[list[str]] = []
    for file in files:
        fits = cut and file.lower().endswith(_IMAGES) and cut[-1][-1].lower().endswith(_IMAGES)
        if fits and len(cut[-1]) < frames_per_part and os.path.dirname(cut[-1][-1]) == os.path.dirname(file):
            cut[-1].append(file)
        else:
            cut.append([file])
    return cut


def _at_least_one(number: int, what: str) -> None:
    if _c.integer(number, what) < 1:
        raise _c.InvalidError(f"{what} {number}: want 1 or more")


def row(packet: Packet, source: str) -> dict[str, Any]:
    """A packet as a row: what is asked for most in columns of its own, all of it in `json`."""
    first = packet.objects[0] if packet.objects else None
    rle = first.rle if first else None
    box = packet.box_xyxy
    return {
        "source": source,
        "frame_id": packet.frame_id,
        "ts": packet.ts,
        "state": packet.state,
        "score": packet.score,
        "name": first.name if first else None,
        "box_xyxy": None if box is None else [float(v) for v in box],
        "mask_height": packet.height,
        "mask_width": packet.width,
        "mask_counts": rle["counts"] if rle else None,
        "mask_area_px": packet.mask_area_px,
        "json": packet.json(),
        "problem": None,
    }


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            ("part", pa.int64()),
            ("source", pa.string()),
            ("frame_id", pa.int64()),
            ("ts", pa.float64()),
            ("state", pa.string()),
            ("score", pa.float64()),
            ("name", pa.string()),
            ("box_xyxy", pa.list_(pa.float32())),
            ("mask_height", pa.int64()),
            ("mask_width", pa.int64()),
            ("mask_counts", pa.string()),
            ("mask_area_px", pa.int64()),
            ("json", pa.string()),
            ("problem", pa.string()),
            ("worker", pa.string()),
        ]
    )


class Worker:
    """One actor: a pipeline on its device, opened once."""

    def __init__(self, out: str, options: dict[str, Any]) -> None:
        self.out = out
        self.pipeline = Pipeline(**options)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        done = [self.part(int(n), json.loads(files)) for n, files in zip(batch["part"], batch["files"])]
        return {"part": list(batch["part"]), "frames": done}

    def part(self, number: int, files: list[str]) -> int:
        import pyarrow as pa
        import pyarrow.parquet as pq

        name = _name(self.out, number)
        worker = f"{os.uname().nodename}:{os.getpid()}"
        self.pipeline.forget()  # rows are the same whoever does the part, and whatever he did before
        rows = [{**made, "part": number, "worker": worker} for file in files for made in self.file(file)]
        table = pa.Table.from_pylist(rows, schema=_schema())
        temporary = f"{name}.{os.uname().nodename}.{os.getpid()}.tmp"
        pq.write_table(table, temporary, compression="zstd")
        os.replace(temporary, name)
        return len(rows)

    def file(self, file: str) -> Iterator[dict[str, Any]]:
        """Rows of a file; what cannot be read is a row that says so."""
        try:
            if file.lower().endswith(_IMAGES):
                yield row(self.pipeline(Frame.read(file)), file)
            else:
                with run(file, pipeline=self.pipeline, strict=True) as packets:
                    for packet in packets:
                        yield row(packet, file)
        except _c.DeviceError:
            raise  # this actor's end; another one does the part again
        except _c.Error as problem:
            yield {"source": file, "state": "ERROR", "problem": str(problem)}


def _name(out: str, number: int) -> str:
    return os.path.join(out, f"part-{number:06d}.parquet")


def process(
    archive: _c.Path | Iterable[_c.Path],
    out: _c.Path,
    *,
    workers: int = 1,
    cpus: float = 1,
    gpus: float = 0,
    frames_per_part: int = 64,
    **options: Any,
) -> dict[str, int]:
    """Run a pipeline (`options` are `Pipeline`'s, as names and numbers; models as their files) over an archive, in `workers` actors that
    each take `cpus` and `gpus` of the cluster. `out` is a folder that all of them see, as they see the archive. How many parts there are,
    were done now, and frames in these."""
    _at_least_one(workers, "workers")
    _at_least_one(frames_per_part, "frames_per_part")
    with _c.wants("ultramotion[ray]", "ray.process()"):
        import pyarrow  # noqa: F401  # of the workers
        import ray

    out = os.path.abspath(_c.path_text(out))
    os.makedirs(out, exist_ok=True)
    cut = [[os.path.abspath(file) for file in part] for part in parts(archive, frames_per_part)]
    for model in ("detector", "segmenter"):
        if isinstance(options.get(model), (str, os.PathLike)):
            options[model] = os.path.abspath(_c.path_text(options[model]))
    _same_work(out, {"parts": cut, "options": {k: repr(v) for k, v in sorted(options.items())}})
    left = [{"part": n, "files": json.dumps(files)} for n, files in enumerate(cut) if not os.path.exists(_name(out, n))]
    made = {"parts": len(cut), "done": 0, "frames": 0}
    if left:
        data = ray.data.from_items(left, override_num_blocks=len(left)).map_batches(
            Worker,
            fn_constructor_args=(out, options),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(left))),
            num_cpus=cpus,
            num_gpus=gpus,
        )
        for done in data.iter_rows():
            made["done"] += 1
            made["frames"] += int(done["frames"])
    for name in glob.glob(os.path.join(glob.escape(out), "part-*.tmp")):  # of those who died
        os.remove(name)
    return made


def _same_work(out: str, work: dict[str, Any]) -> None:
    """A folder belongs to one archive, cut in one way, with one pipeline."""
    digest = hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()
    name = os.path.join(out, "work.json")
    if not os.path.exists(name):
        temporary = f"{name}.{os.uname().nodename}.{os.getpid()}.tmp"
        with open(temporary, "w") as file:
            json.dump({"sha256": digest, "parts": len(work["parts"]), "options": work["options"]}, file)
        os.replace(temporary, name)
    with open(name) as file:
        if json.load(file)["sha256"] != digest:
            raise _c.InvalidError(f"{out} has results of another archive or other options: take another folder")


def read(out: _c.Path) -> Any:
    """All rows in the archive's order, as a pyarrow table. What an interrupted run has not done yet is told to the logger."""
    with _c.wants("ultramotion[ray]", "ray.read()"):
        import pyarrow as pa
        import pyarrow.parquet as pq

    out = _c.path_text(out)
    files = sorted(glob.glob(os.path.join(glob.escape(out), "part-*.parquet")))
    if not files:
        raise _c.FileError(f"{out}: no results")
    count, work = len(files), os.path.join(out, "work.json")
    if os.path.exists(work):
        with open(work) as file:
            count = json.load(file)["parts"]
    if len(files) < count:
        LOG.warning("%s: %d of %d parts are not done: process() with the same arguments goes on with them", out, count - len(files), count)
    return pa.concat_tables([pq.read_table(file) for file in files])
