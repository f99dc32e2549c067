# SPDX-License-Identifier: Apache-2.0
"""Ultrasound from DICOM files by pydicom (`pip install "ultramotion[dicom]"`). Of the patient nothing is read."""

from __future__ import annotations

import logging
import os
import time
from datetime import datetime
from typing import Any, Iterator

import numpy as np

from . import _c
from .image import Frame
from .packet import Packet

LOG = logging.getLogger("ultramotion")
_PALETTE = [
    f"{kind}{color}PaletteColorLookupTable{part}"
    for color in ("Red", "Green", "Blue")
    for kind, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
]
# All that is read of a file.
_TAGS = [
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PlanarConfiguration", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", "ExtendedOffsetTable"),
    *("ExtendedOffsetTableLengths", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", *_PALETTE),
    *("SequenceOfUltrasoundRegions", "PixelSpacing", "FrameTimeVector", "FrameTime", "CineRate"),
]
_DATES = ["AcquisitionDateTime"]
_CM, _IMAGE_2D, _TISSUE = 3, 1, 1  # PS3.3 C.8.5.5: units, spatial format, data type


def frames(
    path: Any, *, color: bool = True, dates: bool = False, window: tuple[float, float] | str | None = None
) -> Iterator[Frame]:
    """The pictures of a file, one by one, each with its time and, where the file is calibrated, the spacing of its pixels.

    Colour (YBR, palette) becomes RGB, or gray with `color=False`; more than 8 bits become 8, by the file's window or else
    its range, or by `window`: which samples are black and white, `"auto"`: each picture's least and greatest. Times go on from now by the frame time vector; `dates=True` reads when it was acquired and starts there. A
    frame's `source` is the file's name without its folder: names of patients belong in neither."""
    try:
        import pydicom
        from pydicom.pixels import iter_pixels  # type: ignore[attr-defined,unused-ignore]
    except ImportError as problem:
        raise _c.UnsupportedError(f"DICOM wants pydicom 3: pip install 'ultramotion[dicom]' ({problem})") from problem
    name = os.fspath(path)
    try:
        data = pydicom.dcmread(name, specific_tags=[*_TAGS, *(_DATES if dates else [])])
    except OSError as problem:
        raise _c.FileError(f"{name}: {problem.strerror or problem}") from problem
    except pydicom.errors.InvalidDicomError as problem:
        raise _c.FormatError(f"{name}: {problem}") from problem
    if "PixelData" not in data:
        raise _c.FormatError(f"{name}: no pixels")
    if window is not None and window != "auto" and (isinstance(window, str) or len(window) != 2 or window[0] == window[1]):
        raise _c.InvalidError(f"window {window!r}: want (black, white) or 'auto'")
    try:
        spacing, times = _spacing(data, name), _times(data)
        begun = (_acquired(data, name) if dates else None) or time.time()
    except (AttributeError, IndexError, TypeError, ValueError) as problem:
        raise _c.FormatError(f"{name}: {problem}") from problem
    index = 0
    pictures = iter_pixels(data)
    while True:
        try:
            array = next(pictures)
            picture = _rgb(array, data, color, window)
        except StopIteration:
            return
        except Exception as problem:  # whatever a decoder of pydicom's finds in a file
            raise _c.FormatError(f"{name}: frame {index}: {problem}") from problem
        if index == 0 and picture.max(initial=0) < 32 and int(data.BitsStored) > 8:
            LOG.warning(
                "%s: no sample reaches an eighth of its %d bits, so the picture is dark: window='auto' stretches it",
                os.path.basename(name),
                int(data.BitsStored),
            )
        step = times[index] if index < len(times) else 0.0
        yield Frame(picture, ts=begun + step, spacing_mm=spacing, source=os.path.basename(name))
        index += 1


def _rgb(array: np.ndarray[Any, Any], data: Any, color: bool, window: tuple[float, float] | str | None) -> np.ndarray[Any, Any]:
    """A decoded picture as u8 [H,W] or [H,W,3]."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut  # type: ignore[attr-defined,unused-ignore]

    kind = str(data.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        array = apply_color_lut(array, data)
        black, white = 0.0, 2.0 ** (array.dtype.itemsize * 8) - 1
    else:
        black, white = _range(data)
        if array.ndim == 2:
            array = apply_modality_lut(array, data)
            if window == "auto":
                black, white = float(array.min()), max(float(array.max()), float(array.min()) + 1)
            elif window is not None:
                black, white = float(window[0]), float(window[1])
            elif data.get("VOILUTSequence"):
                array = apply_voi_lut(array, data)
                black, white = 0.0, 2.0 ** int(data.VOILUTSequence[0].LUTDescriptor[2]) - 1
            elif "WindowCenter" in data:
                array = apply_voi_lut(array, data)  # into the range
            else:
                black, white = min(black, white), max(black, white)
    if array.dtype != np.uint8 or (black, white) != (0, 255):
        scaled = (np.asarray(array, np.float64) - black) * (255 / (white - black))
        array = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    if kind == "MONOCHROME1":
        array = 255 - array
    if array.ndim == 3 and not color:
        array = np.rint(array @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return np.ascontiguousarray(array)


def _range(data: Any) -> tuple[float, float]:
    """What the least and the greatest sample are after the modality's table or scale."""
    if data.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** int(data.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    bits = int(data.BitsStored)
    least = -(2.0 ** (bits - 1)) if int(data.get("PixelRepresentation", 0)) == 1 else 0.0
    slope, intercept = data.get("RescaleSlope"), data.get("RescaleIntercept")
    if slope is None or intercept is None:
        slope, intercept = 1, 0
    return tuple(end * float(slope) + float(intercept) for end in (least, least + 2.0**bits - 1))  # type: ignore[return-value]


def _spacing(data: Any, name: str) -> tuple[float, float] | None:
    """mm of a pixel (x, y): of the first region of tissue that is calibrated in cm, else of the whole picture."""
    for region in data.get("SequenceOfUltrasoundRegions") or []:
        units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
        kind = (region.get("RegionSpatialFormat"), region.get("RegionDataType"))
        dx, dy = (abs(float(region.get(f"PhysicalDelta{axis}") or 0)) for axis in "XY")
        if units != (_CM, _CM) or kind != (_IMAGE_2D, _TISSUE) or not dx or not dy:
            continue
        if region.get("RegionLocationMaxX1", 0) > data.Columns or region.get("RegionLocationMaxY1", 0) > data.Rows:
            LOG.warning(
                "%s: its calibrated region is larger than its picture, %dx%d: the spacing may be that of another size",
                os.path.basename(name),
                data.Columns,
                data.Rows,
            )
        return 10 * dx, 10 * dy
    rows = data.get("PixelSpacing")
    return (float(rows[1]), float(rows[0])) if rows else None


def _times(data: Any) -> list[float]:
    """Seconds of each frame after the first, as far as the file says."""
    vector = data.get("FrameTimeVector")
    if vector is not None and vector != "":
        steps = np.atleast_1d(np.array(vector, np.float64))
        return [float(t) for t in np.cumsum(steps) / 1000]
    count = int(data.get("NumberOfFrames") or 1)
    step = float(data.get("FrameTime") or 0) / 1000
    if not step and data.get("CineRate"):
        step = 1 / float(data.CineRate)
    return [i * step for i in range(count)]


def _acquired(data: Any, name: str) -> float | None:
    from pydicom.valuerep import DT

    raw = data.get("AcquisitionDateTime")
    if not raw:
        return None
    try:
        when = DT(str(raw))
    except ValueError as problem:
        raise _c.FormatError(f"{name}: AcquisitionDateTime: {problem}") from problem
    return when.timestamp() if isinstance(when, datetime) else None


# What a SEG repeats of its scan, and may be empty there (DICOM's type 2): files leave it out all the same.
_MAY_BE_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
)


def save_segmentation(packet: Packet, scan: Any, path: Any, *, structure: Any = None) -> None:
    """Write the outlines of a packet as a DICOM SEG of the single-frame file `scan`, by highdicom (`ultramotion[dicom]`).

    `structure` is a pydicom `Code` of what is outlined; without one a class called "bone" is SNOMED's, and others are refused.
    A SEG belongs to a study: it says the same patient as `scan`, and is the only result that does. Of multi-frame files
    highdicom makes one only with a frame of reference and the place of each frame, which ultrasound has not: UnsupportedError."""
    try:
        import highdicom as hd
        import pydicom
        from pydicom.sr.codedict import codes
    except ImportError as problem:
        raise _c.UnsupportedError(f"DICOM SEG wants highdicom: pip install 'ultramotion[dicom]' ({problem})") from problem
    name = os.fspath(scan)
    try:
        data = pydicom.dcmread(name)
    except OSError as problem:
        raise _c.FileError(f"{name}: {problem.strerror or problem}") from problem
    except pydicom.errors.InvalidDicomError as problem:
        raise _c.FormatError(f"{name}: {problem}") from problem
    if int(data.get("NumberOfFrames") or 1) > 1:
        raise _c.UnsupportedError(
            f"{name}: a DICOM SEG of several frames wants a frame of reference and each frame's place in it, which ultrasound has not"
        )
    masks = [(o, m) for o in packet.objects if (m := o.mask) is not None and m.any()]
    if not masks:
        raise _c.InvalidError("a DICOM SEG of a packet without outlines")
    if (data.Rows, data.Columns) != (packet.height, packet.width):
        raise _c.InvalidError(f"{name}: {data.Columns}x{data.Rows}, the packet is {packet.width}x{packet.height}")
    described = []
    for number, (found, _) in enumerate(masks, 1):
        code = structure or (codes.SCT.Bone if (found.name or "").lower() == "bone" else None)
        if code is None:
            raise _c.InvalidError(f"class {found.name or found.label}: say with structure= what it is")
        described.append(
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=found.name or f"class {found.label}",
                segmented_property_category=codes.SCT.AnatomicalStructure,
                segmented_property_type=code,
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=hd.AlgorithmIdentificationSequence(
                    name="ultramotion", version=_c.text(_c.lib.um_version()), family=codes.DCM.ArtificialIntelligence
                ),
            )
        )
    for tag in _MAY_BE_EMPTY:
        if tag not in data:
            setattr(data, tag, "")
    segments = np.stack([m for _, m in masks], axis=-1)[None]  # [1,H,W,segments]
    try:
        made = hd.seg.Segmentation(
            [data],
            segments.astype(np.uint8),
            hd.seg.SegmentationTypeValues.BINARY,
            described,
            series_instance_uid=hd.UID(),
            series_number=int(data.get("SeriesNumber") or 0) + 1,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="ultramotion",
            manufacturer_model_name="ultramotion",
            software_versions=_c.text(_c.lib.um_version()),
            device_serial_number=(packet.models["segmenter"] or "none").removeprefix("sha256:")[:16],
        )
    except (AttributeError, TypeError, ValueError) as problem:  # of what the file has not, or has wrong
        raise _c.FormatError(f"{name}: highdicom makes no DICOM SEG of it: {problem}") from problem
    made.save_as(os.fspath(path))
