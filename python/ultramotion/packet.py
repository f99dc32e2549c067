# SPDX-License-Identifier: Apache-2.0
"""The result of one frame."""

from __future__ import annotations

import ctypes
import json
import os
from ctypes import byref, c_void_p
from typing import Any

import numpy as np

from . import _c
from ._c import lib
from .image import Frame
from .tensor import view

_STATES = ("LOST", "VISIBLE", "RELOCALIZING")


class Object:
    """One structure in a picture."""

    __slots__ = ("_packet", "_index", "_c")

    def __init__(self, packet: Packet, index: int) -> None:
        self._packet = packet
        self._index = index
        self._c = lib.um_packet_object(packet._pointer, index).contents

    @property
    def label(self) -> int:
        return int(self._c.label)

    @property
    def name(self) -> str | None:
        return None if self._c.name is None else _c.text(self._c.name)

    @property
    def score(self) -> float:
        """Of the detector, 0 to 1."""
        return float(self._c.score)

    @property
    def box_xyxy(self) -> np.ndarray[Any, Any] | None:
        """f32 [4] in pixels, clamped to the picture."""
        return np.array(self._c.box, np.float32) if self._c.has_box else None

    @property
    def iou(self) -> float:
        """Predicted by the segmenter."""
        return float(self._c.iou)

    @property
    def mask_area_px(self) -> int:
        return int(self._c.mask_area_px)

    @property
    def centroid(self) -> tuple[float, float]:
        return (self._c.centroid[0], self._c.centroid[1])

    @property
    def mask(self) -> np.ndarray[Any, Any] | None:
        """bool [H,W] of the full picture, expanded now from the packed bits; None without a segmenter."""
        if not self._c.has_mask:
            return None
        out = np.empty((self._packet.height, self._packet.width), np.bool_)
        lib.um_packet_object_mask(self._packet._pointer, self._index, out.ctypes.data, 1)
        return out

    @property
    def bits(self) -> np.ndarray[Any, Any] | None:
        """The packed mask as it came from the device, u8 [h, bytes of a row] over the crop, without a copy:
        `np.unpackbits(bits, axis=1, bitorder="little")`."""
        if not self._c.has_mask:
            return None
        shape = (int(self._packet._c.crop[3]), int(lib.um_packet_row_bytes(self._packet._pointer)))
        return view({"version": 3, "shape": shape, "typestr": "|u1", "data": (self._c.bits, True)}, self._packet)

    @property
    def rle(self) -> dict[str, Any] | None:
        """The mask as COCO's compressed RLE, which pycocotools decodes."""
        if not self._c.has_mask:
            return None
        counts = c_void_p()
        _c.check(lib.um_packet_object_rle(self._packet._pointer, self._index, byref(counts)))
        return {"size": [self._packet.height, self._packet.width], "counts": _taken(counts)}

    def __repr__(self) -> str:
        return f"ultramotion.Object({self.name or self.label}, {self.score:.3f})"


def _taken(memory: c_void_p) -> str:
    """A string that the library made for us."""
    try:
        return ctypes.string_at(memory.value or 0).decode()
    finally:
        lib.um_free(memory)


class Packet:
    """What was found in one picture, with timing and provenance. Immutable; may be kept and used from any thread.

    `frame` is the picture itself where the packet came from `run()` or `Pipeline`."""

    __slots__ = ("_handle", "_pointer", "_c", "frame", "__weakref__")

    def __init__(self, pointer: c_void_p, frame: Frame | None = None) -> None:
        self._handle = _c.Handle("packet", pointer, lib.um_packet_unref)
        self._pointer = pointer.value or 0
        self._c = _c.Packet.from_address(self._pointer)
        self.frame = frame

    @property
    def frame_id(self) -> int:
        return int(self._c.frame_id)

    @property
    def ts(self) -> float:
        """Seconds since 1970."""
        return float(self._c.ts)

    @property
    def state(self) -> str:
        """`"VISIBLE"` or `"LOST"`."""
        return _STATES[self._c.state]

    @property
    def label(self) -> int:
        return int(self._c.label)

    @property
    def name(self) -> str | None:
        return None if self._c.name is None else _c.text(self._c.name)

    @property
    def score(self) -> float:
        """The best of the detector, also when LOST."""
        return float(self._c.score)

    @property
    def width(self) -> int:
        return int(self._c.width)

    @property
    def height(self) -> int:
        return int(self._c.height)

    @property
    def source(self) -> str:
        return _c.text(self._c.source)

    @property
    def device(self) -> str:
        return _c.text(self._c.device)

    @property
    def precision(self) -> str:
        return _c.text(self._c.precision)

    @property
    def as_numpy(self) -> bool:
        return bool(self._c.as_numpy)

    @property
    def spacing_mm(self) -> tuple[float, float] | None:
        return (self._c.spacing_mm[0], self._c.spacing_mm[1]) if self._c.has_spacing else None

    @property
    def pose(self) -> np.ndarray[Any, Any] | None:
        """Probe to tracker, [4,4], mm."""
        return np.array(self._c.pose).reshape(4, 4) if self._c.has_pose else None

    @property
    def stages_ms(self) -> dict[str, float]:
        ms = self._c.ms
        return {name: float(getattr(ms, name)) for name in ("upload", "detect", "segment", "packet", "total")}

    @property
    def transfers(self) -> dict[str, int]:
        t = self._c.transfers
        return {field[0]: int(getattr(t, field[0])) for field in t._fields_}

    @property
    def models(self) -> dict[str, str | None]:
        """SHA-256 of the model files."""
        named = {"detector": self._c.detector_sha256, "segmenter": self._c.segmenter_sha256}
        return {kind: f"sha256:{_c.text(sha)}" if sha else None for kind, sha in named.items()}

    @property
    def objects(self) -> list[Object]:
        """The structures, best first; none when LOST."""
        return [Object(self, i) for i in range(self._c.objects)]

    # Of the first structure:

    @property
    def box_xyxy(self) -> np.ndarray[Any, Any] | None:
        return np.array(self._c.box, np.float32) if self._c.has_box else None

    @property
    def mask(self) -> np.ndarray[Any, Any] | None:
        """bool [H,W], expanded now; None when LOST or without a segmenter."""
        return Object(self, 0).mask if self._c.objects else None

    @property
    def mask_area_px(self) -> int:
        return int(self._c.mask_area_px)

    @property
    def iou(self) -> float:
        return float(self._c.iou)

    # ---- what is visible ----

    @property
    def tag(self) -> str:
        """What the mask is; of a pipeline that keeps track (which also knows the state `"RELOCALIZING"`) `"fresh"`,
        but also `"predicted"`, `"stale"` or `"withheld"`."""
        return _c.text(lib.um_tag_name(self._c.tag))

    @property
    def reason(self) -> str | None:
        """What is wrong, where something is: `"not_found"`, `"low_score"`, `"unconfirmed"`, `"frozen"`, `"no_contact"`."""
        name = lib.um_reason_name(self._c.reason)
        return None if name is None else _c.text(name)

    @property
    def detected(self) -> bool:
        """False: the detector was left out of this frame."""
        return bool(self._c.detected)

    @property
    def scores(self) -> dict[str, float] | None:
        """S1 to S4, C1 to C3 and contact, NaN where not defined; None without a pipeline that keeps track."""
        names = ("s1", "s2", "s3", "s4", "c1", "c2", "c3", "contact")
        return dict(zip(names, map(float, self._c.scores))) if self._c.has_scores else None

    # ---- as others want it ----

    def label_map(self) -> np.ndarray[Any, Any]:
        """u8 [H,W]: 0, or the index of the object + 1."""
        out = np.empty((self.height, self.width), np.uint8)
        lib.um_packet_label_map(self._pointer, out.ctypes.data)
        return out

    def json(self) -> str:
        """The packet as one JSON line, as the command writes it."""
        line = c_void_p()
        _c.check(lib.um_packet_json(self._pointer, byref(line)))
        return _taken(line)

    def to_dict(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.json())
        return loaded

    def to_coco(self) -> list[dict[str, Any]]:
        """Annotations as COCO has them: image_id, category_id (label + 1), bbox [x, y, w, h], segmentation, area, score."""
        annotations = []
        for o in self.objects:
            x0, y0, x1, y1 = (float(v) for v in (o.box_xyxy if o.box_xyxy is not None else np.zeros(4)))
            annotations.append(
                {
                    "image_id": self.frame_id,
                    "category_id": o.label + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": o.rle,
                    "area": o.mask_area_px,
                    "score": o.score,
                    "iscrowd": 0,
                }
            )
        return annotations

    def to_supervision(self) -> Any:
        """supervision's `Detections`; wants that package."""
        import supervision

        objects = self.objects
        if not objects:
            return supervision.Detections.empty()
        masks = [m for o in objects if (m := o.mask) is not None]
        return supervision.Detections(
            xyxy=np.array([o.box_xyxy for o in objects], np.float32),
            mask=np.array(masks) if masks else None,
            confidence=np.array([o.score for o in objects], np.float32),
            class_id=np.array([o.label for o in objects]),
            data={"class_name": np.array([o.name or str(o.label) for o in objects])},
        )

    def plot(self, picture: Any = None) -> np.ndarray[Any, Any]:
        """The picture (the packet's own, or the one given) with masks, outlines, boxes and captions: u8 [H,W,3]."""
        frame = self.frame if picture is None else picture if isinstance(picture, Frame) else Frame(picture)
        if frame is None:
            raise _c.InvalidError("plot: this packet has no picture of its own, give it one")
        rgb = c_void_p()
        with frame._handle as f:
            _c.check(lib.um_overlay(self._pointer, f, byref(rgb)))
        try:
            size = self.height * self.width * 3
            return np.frombuffer(ctypes.string_at(rgb.value or 0, size), np.uint8).reshape(self.height, self.width, 3).copy()
        finally:
            lib.um_free(rgb)

    def save(self, path: Any) -> None:
        """`.png`: the picture as `plot()` shows it; `.json`: the packet's line."""
        name = os.fspath(path)
        if name.endswith(".json"):
            with open(name, "w") as file:
                file.write(self.json() + "\n")
        elif name.endswith(".png"):
            rgb = self.plot()
            _c.check(lib.um_image_write_png(_c.path_bytes(name), rgb.ctypes.data, self.width, self.height, 3))
        else:
            raise _c.InvalidError(f"save: {name}: want .png or .json")

    def __repr__(self) -> str:
        return f"ultramotion.Packet(frame_id={self.frame_id}, {self.state}, score={self.score:.3f})"


ResultPacket = Packet
