# SPDX-License-Identifier: Apache-2.0
"""The result of one frame."""

from __future__ import annotations

import ctypes
import json
from ctypes import byref, c_void_p
from typing import Any, Sequence, TypeVar

import numpy as np

from . import _c
from ._c import lib
from .image import POSE, SPACING, Frame, as_frame, png, write_png
from .tensor import view

_Self = TypeVar("_Self")


def _f32(values: Any) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


def _pair(values: Any) -> tuple[float, float]:
    return (values[0], values[1])


class Outlined:
    """What a structure and a packet, which speaks of its first one, both have."""

    __slots__ = ()

    box_xyxy: _c.Field[np.ndarray[Any, Any] | None] = _c.Field("box", _f32, where="has_box")
    """f32 [4] in pixels, clamped to the image; None without a box."""
    iou: _c.Field[float | None] = _c.Field("iou", float, where="has_mask")
    """Predicted by the segmenter; None without a mask, as in `json()`."""
    mask_area_px = _c.Field("mask_area_px", int)
    edge_px = _c.Field("edge_px", int)
    """Of W_edge (`compute_mask_weights`); `in_px` and `out_px` are of W_in and W_out."""
    in_px = _c.Field("in_px", int)
    out_px = _c.Field("out_px", int)
    mask_box = _c.Field("mask_box", tuple[int, ...])
    """x0, y0, x1, y1 of the mask's pixels, the last ones excluded."""
    centroid = _c.Field("centroid", _pair)
    """x, y of the mask."""

    def __copy__(self: _Self) -> _Self:
        return self  # nobody changes it

    def __deepcopy__(self: _Self, memo: Any) -> _Self:
        return self

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be pickled: it is memory of this process; mask and a packet's json() can")


class Object(Outlined):
    """One structure in an image."""

    __slots__ = ("_packet", "_index", "_struct")

    def __init__(self, packet: Packet, index: int) -> None:
        self._packet = packet
        self._index = index
        self._struct = lib.um_packet_object(packet._use(), index).contents

    label = _c.Field("label", int)
    name = _c.Field("name", _c.optional_text)
    score = _c.Field("score", float)
    """Of the detector, 0 to 1."""

    @property
    def mask(self) -> np.ndarray[Any, Any] | None:
        """bool [H,W] of the full image, expanded now from the packed bits; None without a segmenter, and where it is withheld."""
        if not self._struct.has_mask:
            return None
        out = np.empty((self._packet.height, self._packet.width), np.bool_)
        lib.um_packet_object_mask(self._packet._use(), self._index, out.ctypes.data, 1)
        return out

    @property
    def bits(self) -> np.ndarray[Any, Any] | None:
        """The packed mask as it came from the device, u8 [h, bytes of a row] over the crop, without a copy:
        `np.unpackbits(bits, axis=1, bitorder="little")`."""
        if not self._struct.has_mask:
            return None
        shape = (int(self._packet._struct.crop[3]), int(lib.um_packet_row_bytes(self._packet._use())))
        return view({"version": 3, "shape": shape, "typestr": "|u1", "data": (self._struct.bits, True)}, self._packet)

    @property
    def rle(self) -> dict[str, Any] | None:
        """The mask as COCO's compressed RLE, which pycocotools decodes."""
        if not self._struct.has_mask:
            return None
        counts = c_void_p()
        _c.check(lib.um_packet_object_rle(self._packet._use(), self._index, byref(counts)))
        return {"size": [self._packet.height, self._packet.width], "counts": _taken(counts)}

    def __repr__(self) -> str:
        return f"ultramotion.Object({self.name or self.label}, {self.score:.3f})"


def _taken(memory: c_void_p) -> str:
    """A string that the library made for us."""
    try:
        return ctypes.string_at(memory.value or 0).decode()
    finally:
        lib.um_free(memory)


class Packet(_c.PacketBase, Outlined):
    """What was found in one image, with timing and provenance. Immutable; may be kept and used from any thread. What it says of a
    structure (`box_xyxy`, `mask`, `iou`, …) is of the first of `objects`; `json()` has everything."""

    __slots__ = ("_frame",)

    def _use(self) -> int:
        """The C object, which is there for as long as this is."""
        if self._foreign:
            raise _c.of_another_process("this packet")
        return self._address

    @property
    def frame(self) -> Frame | None:
        """The image: for an array its own pixels, not a copy; None if the packet has none."""
        image = self._image
        if isinstance(image, (Frame, type(None))):
            return image
        if not hasattr(self, "_frame"):
            self._frame = Frame(image, frame_id=self.frame_id, ts=self.ts)
        return self._frame

    state = _c.Field("state", lambda state: _c.text(lib.um_state_name(state)))
    """`"VISIBLE"` or `"LOST"`; of a pipeline that keeps track also `"RELOCALIZING"`."""
    tag = _c.Field("tag", lambda tag: _c.text(lib.um_tag_name(tag)))
    """What the mask is: `"fresh"`, `"predicted"`, `"stale"` or `"withheld"`."""
    reason = _c.Field("reason", lambda reason: _c.optional_text(lib.um_reason_name(reason)))
    """What is wrong, where something is: `"not_found"`, `"low_score"`, `"unconfirmed"`, `"frozen"`, `"no_contact"`, `"no_time"`."""
    detected = _c.Field("detected", bool)
    """False: the detector was left out of this frame."""
    name = _c.Field("name", _c.optional_text)
    source = _c.Field("source", _c.text)
    device = _c.Field("device", _c.text)
    precision = _c.Field("precision", _c.text)
    as_numpy = _c.Field("as_numpy", bool)
    spacing_mm = SPACING
    pose = POSE
    stages_ms = _c.Field("ms", lambda ms: {name: float(getattr(ms, name)) for name, _ in ms._fields_})
    transfers = _c.Field("transfers", _c.numbers)

    @property
    def scores(self) -> dict[str, float] | None:
        """S1 to S4, C1 to C3 and contact, NaN where not defined; None without a pipeline that keeps track."""
        names = ("s1", "s2", "s3", "s4", "c1", "c2", "c3", "contact")
        return dict(zip(names, map(float, self._struct.scores))) if self._struct.has_scores else None

    gain = _c.Field("gain", lambda gain: float(gain) or None)
    """Gain with which the networks saw the image; None: none."""
    reused = _c.Field("reused", bool)
    """True: the image is identical to the previous one, whose results were taken."""
    precision_reason = _c.Field("precision_reason", _c.text)
    """Why `precision`: it was asked for, or what the device has that `"auto"` went by."""

    @property
    def crop(self) -> tuple[int, int, int, int] | None:
        """The part of the image that was looked at: x, y, width, height; None: all of it."""
        s = self._struct
        x, y, w, h = (int(v) for v in s.crop)
        return None if (w, h) == (s.width, s.height) else (x, y, w, h)

    @property
    def cleaned(self) -> dict[str, int] | None:
        """Pixels that cleaning took from the first mask and added; None without a mask, or without `mask_clean`."""
        s = self._struct
        return {"removed_px": s.removed_px, "filled_px": s.filled_px} if s.has_cleaned and s.has_mask else None

    @property
    def deadline(self) -> dict[str, Any] | None:
        """`latency_ms`, `missed`, and the `effort` that was allowed: `"full"`, `"follow"`, `"repeat"`; None without a budget."""
        p = self._struct
        effort = _c.text(lib.um_effort_name(p.effort))
        return {"latency_ms": p.latency_ms, "missed": bool(p.missed), "effort": effort} if p.has_deadline else None

    @property
    def models(self) -> dict[str, str | None]:
        """SHA-256 of the model files."""
        named = {"detector": self._struct.detector_sha256, "segmenter": self._struct.segmenter_sha256}
        return {kind: f"sha256:{_c.text(sha)}" if sha else None for kind, sha in named.items()}

    @property
    def objects(self) -> list[Object]:
        """The structures, best first; none when LOST."""
        return [Object(self, i) for i in range(self._struct.objects)]

    @property
    def mask(self) -> np.ndarray[Any, Any] | None:
        """bool [H,W], expanded now; None when LOST, without a segmenter, and where it is withheld."""
        return Object(self, 0).mask if self._struct.objects else None

    # ---- as others want it ----

    def label_map(self) -> np.ndarray[Any, Any]:
        """u8 [H,W]: 0, or the index of the object + 1."""
        out = np.empty((self.height, self.width), np.uint8)
        lib.um_packet_label_map(self._use(), out.ctypes.data)
        return out

    def json(self) -> str:
        """The packet as one JSON line, as the command writes it."""
        line = c_void_p()
        _c.check(lib.um_packet_json(self._use(), byref(line)))
        return _taken(line)

    def to_dict(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.json())
        return loaded

    def to_coco(self, *, image_id: int | None = None, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Annotations as COCO has them: image_id (`frame_id` unless it is given), category_id (by label in `category_ids`, else
        label + 1), bbox [x, y, w, h], segmentation (where there is a mask), area, score. `val(…, results=FILE)` scores a list of
        them if ids are its data set's: those of the phantom, and of masks beside images, count from 0 (`category_ids=[0]`)."""
        annotations = []
        for o in self.objects:
            if category_ids is not None and o.label >= len(category_ids):
                raise _c.InvalidError(f"category_ids: {len(category_ids)} of them, want one for each class, and a class is {o.label}")
            x0, y0, x1, y1 = (float(v) for v in (o.box_xyxy if o.box_xyxy is not None else np.zeros(4)))
            rle = o.rle
            annotations.append(
                {
                    "image_id": self.frame_id if image_id is None else image_id,
                    "category_id": o.label + 1 if category_ids is None else category_ids[o.label],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    **({"segmentation": rle} if rle else {}),
                    "area": o.mask_area_px if rle else (x1 - x0) * (y1 - y0),
                    "score": o.score,
                    "iscrowd": 0,
                }
            )
        return annotations

    def to_supervision(self) -> Any:
        """supervision's `Detections`; wants that package."""
        with _c.wants("supervision", "to_supervision()"):
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

    def plot(self, image: Any = None) -> np.ndarray[Any, Any]:
        """The image (the packet's own, or the one given) with masks, outlines, boxes and captions: u8 [H,W,3]."""
        frame = self.frame if image is None else as_frame(image)
        if frame is None:
            raise _c.InvalidError("plot: this packet has no image of its own, give it one")
        rgb = c_void_p()
        _c.check(lib.um_overlay(self._use(), frame._use(), byref(rgb)))
        try:
            pixels = ctypes.cast(rgb, ctypes.POINTER(ctypes.c_uint8))
            return np.ctypeslib.as_array(pixels, (self.height, self.width, 3)).copy()
        finally:
            lib.um_free(rgb)

    def save(self, path: _c.Path) -> None:
        """`.png`: the image as `plot()` shows it; `.json`: the packet's line."""
        name = _c.path_text(path)
        if name.endswith(".json"):
            with _c.of_file(name), open(name, "w", encoding="utf-8") as file:
                file.write(self.json() + "\n")
        elif name.endswith(".png"):
            write_png(name, self.plot())
        else:
            raise _c.InvalidError(f"save: {name}: want .png or .json")

    def _repr_png_(self) -> bytes | None:
        """How a notebook shows it."""
        return None if self.frame is None else png(self.plot())

    def __repr__(self) -> str:
        return f"ultramotion.Packet(frame_id={self.frame_id}, {self.state}, score={self.score:.3f})"


ResultPacket = Packet
