# SPDX-License-Identifier: Apache-2.0
"""Ultrasound from DICOM files by pydicom (`pip install "ultramotion[dicom]"`). Of the patient nothing is read."""

from __future__ import annotations

import math
import os
import time
from datetime import datetime
from itertools import accumulate, chain, repeat
from typing import Any, Iterator

import numpy as np

from . import _c
from .image import Frame, numbers
from .models import LOG
from .packet import Packet

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
    *("RecommendedDisplayFrameRate", "SOPClassUID"),
]
_DATES = ["AcquisitionDateTime"]
_CM, _IMAGE_2D, _TISSUE = 3, 1, 1  # PS3.3 C.8.5.5: units, spatial format, data type
# What pydicom makes gray or RGB of; others it gives as they are.
_COLORS = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def frames(
    path: _c.Path, *, color: bool = True, dates: bool = False, window: tuple[float, float] | str | None = None
) -> Iterator[Frame]:
    """The images of a DICOM file, one by one, each with its time and, where the file is calibrated, the spacing of its pixels.

    Colour (YBR, palette) becomes RGB, or gray with `color=False`; more than 8 bits become 8, by the file's window or else
    its range, or by `window`: which samples are black and white, `"auto"`: each image's minimum and maximum. Times start now and
    follow the frame time vector, then its last step; `dates=True` reads when it was acquired and starts there. A frame's `source` is
    the file's name without its folder: names of patients belong in neither."""
    name = _c.path_text(path)
    data = _read(name, [*_TAGS, *(_DATES if dates else [])])
    if window is not None and window != "auto" and (isinstance(window, str) or len(set(numbers(window, 2, "window"))) < 2):
        raise _c.InvalidError(f"window {window!r}: want (black, white) or 'auto'")
    try:
        spacing, times, count = _spacing(data, name), accumulate(_steps(data)), int(data.get("NumberOfFrames") or 1)
        images = _arrays(data, count)
        begun = (_acquired(data) if dates else None) or time.time()
    except Exception as problem:  # whatever pydicom finds in an element when it is first looked at
        raise _c.FormatError(f"{name}: {problem}") from problem
    index = 0
    while True:
        try:
            array = next(images)
            image = _rgb(array, data, color, window)
            frame = Frame(image, ts=begun + next(times), spacing_mm=spacing, source=os.path.basename(name))
        except StopIteration:
            break
        except Exception as problem:  # whatever a decoder of pydicom's finds in a file, and times that are none
            raise _c.FormatError(f"{name}: frame {index} of {count}: {problem}") from problem
        if index == 0 and image.max(initial=0) < 32 and int(data.BitsStored) > 8:
            LOG.warning(
                "%s: no sample reaches an eighth of its %d bits, so the image is dark: window='auto' stretches it",
                os.path.basename(name),
                int(data.BitsStored),
            )
        yield frame
        index += 1
    if index < count:
        raise _c.FormatError(f"{name}: ends after frame {index - 1} of {count}")


def _read(name: str, tags: list[str]) -> Any:
    """These elements of an image file; those without a value are left out."""
    with _c.wants("ultramotion[dicom]", "DICOM"):
        import pydicom
        from pydicom import uid
    if os.path.isdir(name):
        raise _c.FileError(f"{name}: a folder, want a DICOM file: ultramotion.run() reads folders of them")
    if os.path.exists(name) and not os.path.isfile(name):  # a pipe would be waited for
        raise _c.FileError(f"{name}: not a regular file")
    try:
        data = pydicom.dcmread(name, specific_tags=tags, force=_begins_at_once(_head(name)))
        for tag in [tag for tag in data.keys() if not data.get_item(tag).value]:
            del data[tag]
        if "TransferSyntaxUID" not in data.file_meta:
            data.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if data.original_encoding[0] else uid.ExplicitVRLittleEndian
        unfit = _unfit(data)
    except OSError as problem:
        raise _c.FileError(f"{name}: {problem.strerror or problem}") from problem
    except pydicom.errors.InvalidDicomError as problem:  # which advises an argument of pydicom's
        way = ": ultramotion.run() reads it, or Frame.read()" if is_image(name) else ""
        raise _c.FormatError(f"{name}: no DICOM file{way}") from problem
    except Exception as problem:  # whatever pydicom finds in a file
        raise _c.FormatError(f"{name}: {problem}") from problem
    if unfit:
        raise _c.FormatError(f"{name}: {unfit}")
    return data


def _unfit(data: Any) -> str | None:
    """Why these images cannot be read."""
    from pydicom import uid

    if data.file_meta.get("MediaStorageSOPClassUID") == uid.MediaStorageDirectoryStorage:
        return "a list of DICOM files: give its folder, with recursive=True"
    if data.get("SOPClassUID") == uid.SegmentationStorage:
        return "a DICOM SEG, whose pixels are masks and no images"
    if "PixelData" not in data:
        return "no pixels, or it was cut off in them"
    bits, high = data.get("BitsStored", 0), data.get("HighBit")
    if bits and high not in (None, bits - 1):
        return f"samples of {bits} bits with the highest in bit {high}, not {bits - 1}, are not read"
    return None


def _head(name: str) -> bytes:
    """The preamble, if there is one, and the mark behind it."""
    with open(name, "rb") as file:
        return file.read(132)


def _begins_at_once(head: bytes) -> bool:
    """Without a preamble: with an element of group 2 or 8, its kind of value or a short even length."""
    length = int.from_bytes(head[4:8], "little")
    known = head[4:6].isalpha() and head[4:6].isupper()
    return len(head) >= 8 and head[0] in (2, 8) and not head[1] and head[3] <= 1 and (known or (0 < length <= 256 and not length % 2))


def is_image(name: str) -> bool:
    """Does the library itself read it?"""
    try:
        Frame.read(name)
    except _c.Error:
        return False
    return True


def is_dicom(name: str) -> bool:
    if not os.path.isfile(name):
        return False
    if name.lower().endswith((".dcm", ".dicom")):
        return not is_image(name)
    try:
        head = _head(name)
    except OSError:
        return False
    return head[128:] == b"DICM" or _begins_at_once(head)


def in_series(names: list[str]) -> list[str]:
    """The files of a series by their numbers in it, at the place of its first one here; others where they are."""
    first: dict[str, int] = {}

    def place(index: int) -> tuple[int, int]:
        try:
            from pydicom import dcmread

            data = dcmread(names[index], specific_tags=["SeriesInstanceUID", "InstanceNumber"], stop_before_pixels=True, force=True)
            number = int(data.InstanceNumber)
            return first.setdefault(str(data.SeriesInstanceUID), index), number
        except Exception:  # it has none of them; what is wrong with it is told when it is read
            return index, 0

    return [names[index] for index in sorted(range(len(names)), key=place)] if len(names) > 1 else names


def _arrays(data: Any, count: int) -> Iterator[np.ndarray[Any, Any]]:
    """Its frames, decoded."""
    from pydicom.pixels import iter_pixels, pixel_array  # type: ignore[attr-defined,unused-ignore]

    if str(data.PhotometricInterpretation) == "YBR_FULL_422" and not data.file_meta.TransferSyntaxUID.is_encapsulated:
        # iter_pixels() of pydicom 3.0 takes all but the first of such frames from the wrong place
        return (pixel_array(data, index=i) for i in range(count))
    return iter_pixels(data)  # type: ignore[no-any-return,unused-ignore]


def _rgb(array: np.ndarray[Any, Any], data: Any, color: bool, window: tuple[float, float] | str | None) -> np.ndarray[Any, Any]:
    """A decoded image as u8 [H,W] or [H,W,3]."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut  # type: ignore[attr-defined,unused-ignore]

    kind = str(data.PhotometricInterpretation)
    if kind not in _COLORS:
        raise ValueError(f"pixels of kind {kind!r}: want {', '.join(_COLORS)}")
    if kind == "PALETTE COLOR":
        array = apply_color_lut(array, data)
        colors = apply_color_lut(np.arange(2 ** int(data.BitsStored)), data)
        black, white = 0.0, 255.0 if colors.max() < 256 else 65535.0  # some write 8 bits and say 16
    else:
        black, white = 0.0, 2.0 ** int(data.BitsStored) - 1
        if array.ndim == 2:
            black, white = _range(data)
            array = apply_modality_lut(array, data)
            if window == "auto":
                black, white = float(array.min()), max(float(array.max()), float(array.min()) + 1)
            elif window is not None:
                black, white = float(window[0]), float(window[1])
            elif data.get("VOILUTSequence"):
                array = apply_voi_lut(array, data)
                black, white = 0.0, 2.0 ** int(data.VOILUTSequence[0].LUTDescriptor[2]) - 1
            elif "WindowCenter" in data and any(np.atleast_1d(data.get("WindowWidth", 0))):
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
    """mm of a pixel (x, y): of the regions of tissue that are calibrated in cm, if they agree, else of the whole image."""
    scales: list[tuple[float, float]] = []
    for region in data.get("SequenceOfUltrasoundRegions") or []:
        units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
        kind = (region.get("RegionSpatialFormat"), region.get("RegionDataType"))
        dx, dy = (abs(float(region.get(f"PhysicalDelta{axis}") or 0)) for axis in "XY")
        if units != (_CM, _CM) or kind != (_IMAGE_2D, _TISSUE) or not 0 < dx * dy < math.inf:
            continue
        scales.append((10 * dx, 10 * dy))
        if (region.get("RegionLocationMaxX1") or 0) > data.Columns or (region.get("RegionLocationMaxY1") or 0) > data.Rows:
            LOG.warning(
                "%s: its calibrated region is larger than its image, %dx%d: the spacing may be that of another size",
                os.path.basename(name),
                data.Columns,
                data.Rows,
            )
    if scales and not np.allclose(scales, scales[0], rtol=0.01, atol=0):
        LOG.warning(
            "%s: its regions differ in mm of a pixel (%s), so no spacing is given",
            os.path.basename(name),
            ", ".join(f"{x:.3g}x{y:.3g}" for x, y in scales),
        )
        return None
    if scales:
        return scales[0]
    rows = data.get("PixelSpacing")
    mm = (float(rows[1]), float(rows[0])) if rows else (0.0, 0.0)
    return mm if all(0 < side < math.inf for side in mm) else None


def _steps(data: Any) -> Iterator[float]:
    """Seconds from each frame to the next, without an end; the first is the first frame's own time."""
    vector = [float(step) / 1000 for step in np.atleast_1d(data.get("FrameTimeVector", []))]
    step = float(data.get("FrameTime") or 0) / 1000
    rate = data.get("CineRate") or data.get("RecommendedDisplayFrameRate")
    if not step and rate:
        step = 1 / float(rate)
    return chain(vector or [0.0], repeat((vector or [0.0])[-1] or step))


def _acquired(data: Any) -> float | None:
    from pydicom.valuerep import DT

    raw = data.get("AcquisitionDateTime")
    if not raw:
        return None
    when = DT(str(raw))
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


def save_segmentation(packet: Packet, scan: _c.Path, path: _c.Path, *, structure: Any = None) -> None:
    """Write the outlines of a packet as a DICOM SEG of the single-frame file `scan`, by highdicom (`ultramotion[dicom]`).

    `structure` is a pydicom `Code` of what is outlined; without one a class called "bone" is SNOMED's, and others are refused.
    A SEG belongs to a study: it says the same patient as `scan`, and is the only result that does. Of multi-frame files
    highdicom makes one only with a frame of reference and the place of each frame, which ultrasound has not: UnsupportedError."""
    with _c.wants("ultramotion[dicom]", "DICOM SEG"):
        import highdicom as hd
        import pydicom
        from pydicom.sr.codedict import codes
        from pydicom.sr.coding import Code
    if structure is not None and not isinstance(structure, (Code, hd.sr.CodedConcept)):  # highdicom takes a text apart
        raise _c.InvalidError(f"structure {structure!r}: want a pydicom Code, such as pydicom.sr.codedict.codes.SCT.Bone")
    name, out = _c.path_text(scan), _c.path_text(path)
    if os.path.exists(name) and os.path.exists(out) and os.path.samefile(name, out):
        raise _c.InvalidError(f"{out} is also the input")
    try:
        with _c.of_file(name):
            data = pydicom.dcmread(name)
        count, sides = int(data.get("NumberOfFrames") or 1), (data.get("Columns"), data.get("Rows"))
    except pydicom.errors.InvalidDicomError as problem:
        raise _c.FormatError(f"{name}: no DICOM file") from problem
    except _c.Error:
        raise
    except Exception as problem:  # whatever pydicom finds in a file
        raise _c.FormatError(f"{name}: {problem}") from problem
    if None in sides:
        raise _c.FormatError(f"{name}: no image, or it was cut off before its pixels")
    if count > 1:
        raise _c.UnsupportedError(
            f"{name}: a DICOM SEG of several frames wants a frame of reference and each frame's place in it, which ultrasound has not"
        )
    masks = [(o, m) for o in packet.objects if (m := o.mask) is not None and m.any()]
    if not masks:
        raise _c.InvalidError("a DICOM SEG of a packet without outlines")
    if sides != (packet.width, packet.height):
        raise _c.InvalidError(f"{name}: {sides[0]}x{sides[1]}, the packet is {packet.width}x{packet.height}")
    described = []
    for number, (found, _) in enumerate(masks, 1):
        code = codes.SCT.Bone if structure is None and (found.name or "").lower() == "bone" else structure
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
    except Exception as problem:  # whatever it and pydicom find that the file has not, or has wrong
        raise _c.FormatError(f"{name}: highdicom makes no DICOM SEG of it: {problem}") from problem
    with _c.of_file(out):
        made.save_as(out)
