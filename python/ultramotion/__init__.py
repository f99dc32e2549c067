# SPDX-License-Identifier: Apache-2.0
"""Finds and outlines a structure in ultrasound frames: D-FINE and MobileSAM in C, from Python.

    import ultramotion

    for packet in ultramotion.run("frames/"):  # a folder, a video, a DICOM file, any iterable of images
        print(packet.state, packet.score, packet.box_xyxy)
        packet.save(f"{packet.frame_id}.png")

`run()` is for streams, `Pipeline` for images one at a time, `Detector` and `Segmenter` for one network alone, `SamPredictor` for code
that was written for MobileSAM, `val()` for accuracy. `help(ultramotion.run)` says more of each."""

from . import _c, ray
from ._c import (
    ClosedError,
    DeviceError,
    Error,
    FileError,
    FormatError,
    InvalidError,
    NumericError,
    OutOfMemoryError,
    TransferError,
    UnsupportedError,
)
from .command import train, val
from .compat import compute_mask_weights, prepare_inference_inputs, run_dfine_detection
from .dicom import frames
from .image import Frame
from .models import Detection, Detector, Device, Embedding, Prediction, Segmenter, models_path
from .packet import Object, Packet, ResultPacket
from .pipeline import Pipeline, Run, run
from .sam import (
    NoImageError,
    ResizeLongestSide,
    Sam,
    SamPredictor,
    _run_segmentation_legacy,
    build_sam,
    run_segmentation,
    sam_model_registry,
)
from .tensor import ExportError, Tensor

__version__: str = _c.VERSION

__all__ = [
    "__version__",
    "_run_segmentation_legacy",
    "build_sam",
    "ClosedError",
    "compute_mask_weights",
    "Detection",
    "Detector",
    "Device",
    "DeviceError",
    "Embedding",
    "Error",
    "ExportError",
    "FileError",
    "FormatError",
    "Frame",
    "frames",
    "InvalidError",
    "models_path",
    "NoImageError",
    "NumericError",
    "Object",
    "OutOfMemoryError",
    "Packet",
    "Pipeline",
    "Prediction",
    "prepare_inference_inputs",
    "ray",
    "ResizeLongestSide",
    "ResultPacket",
    "Run",
    "run",
    "run_dfine_detection",
    "run_segmentation",
    "Sam",
    "sam_model_registry",
    "SamPredictor",
    "Segmenter",
    "Tensor",
    "train",
    "TransferError",
    "UnsupportedError",
    "val",
]
