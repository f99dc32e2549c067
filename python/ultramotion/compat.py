# SPDX-License-Identifier: Apache-2.0
"""The other functions that the Python project had, under their names."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from . import _c
from .image import Frame, plain
from .models import UNSET, Detector, host_array
from .sam import run_segmentation


def run_dfine_detection(
    model: Detector,
    frame: Any,
    stream: Any = None,
    conf_thresh: float = 0.3,
    allow_cpu_fallback: bool = False,
    return_gpu_tensor: bool = True,
) -> tuple[np.ndarray[Any, Any] | None, float]:
    """The best box, f32 [4] x0,y0,x1,y1 in pixels clamped to the image, and its score; (None, score) below the
    threshold. Four numbers are on the host whatever `return_gpu_tensor` says, nothing falls back to another device, and the
    library has its own stream: those arguments are there for callers that give them."""
    del stream, allow_cpu_fallback, return_gpu_tensor
    if not isinstance(model, Detector):
        raise _c.InvalidError(f"{type(model).__name__} is no ultramotion.Detector")
    least = _c.number(conf_thresh, "conf_thresh")
    image = frame if isinstance(frame, Frame) else Frame(host_array(plain(getattr(frame, "tensor", frame))))
    found = model.detect(image, 0.0, limit=1)
    if not found or found[0].score < least:
        return None, found[0].score if found else 0.0
    limits = np.array([image.width, image.height] * 2, np.float32)
    return np.clip(np.array(found[0].box_xyxy, np.float32), 0, limits), found[0].score


def prepare_inference_inputs(
    frame: Any, dfine: Detector, sam: Any, tau_conf: float = 0.0001, sam_as_numpy: bool | None = UNSET
) -> dict[str, Any]:
    """Detect, outline the best box, and weigh: state_hint ("VISIBLE" or "LOST"), bbox, conf, mask (as
    `run_segmentation` gives it), weights (W_edge, W_in, W_out), timestamp. For whole streams `ultramotion.run` does this
    without a stop between the stages."""
    if sam is None:  # run_segmentation() would give no mask
        raise _c.InvalidError("sam None: want an ultramotion.Segmenter or SamPredictor")
    now = time.time()
    bbox, conf = run_dfine_detection(dfine, frame, conf_thresh=tau_conf)
    if bbox is None:
        return {"state_hint": "LOST", "bbox": None, "conf": conf, "mask": None, "weights": None, "timestamp": now}
    mask = run_segmentation(sam, getattr(frame, "tensor", frame), bbox, as_numpy=sam_as_numpy)
    pixels = host_array(mask)
    weights = compute_mask_weights(pixels[0, 0] if pixels.ndim == 4 else pixels)
    return {"state_hint": "VISIBLE", "bbox": bbox, "conf": conf, "mask": mask, "weights": weights, "timestamp": now}


def compute_mask_weights(
    mask: Any, width_edge: int = 3, width_out: int = 5
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """W_edge, W_in, W_out of a mask [H,W], f32 0 or 1: dilated minus eroded, eroded, and the ring outside. Squares of
    `width_edge` and `width_out`; pixels beyond the image neither dilate nor erode it."""
    inside = host_array(mask) > 0.5
    if inside.ndim != 2:
        raise _c.InvalidError(f"mask of shape {list(inside.shape)}: want [H,W]")
    eroded = ~_grown(~inside, width_edge)
    edge = _grown(inside, width_edge) & ~eroded
    ring = _grown(inside, width_out) & ~inside
    return edge.astype(np.float32), eroded.astype(np.float32), ring.astype(np.float32)


def _grown(mask: np.ndarray[Any, Any], width: int) -> np.ndarray[Any, Any]:
    """The mask with a square of `width` around each of its pixels."""
    if _c.integer(width, "width") < 1:
        raise _c.InvalidError(f"width {width}: want 1 or more")
    before, after = (width - 1) // 2, width // 2
    for axis in (0, 1):
        padded = np.pad(mask, [(after, before) if a == axis else (0, 0) for a in (0, 1)])
        mask = np.asarray(np.lib.stride_tricks.sliding_window_view(padded, width, axis=axis).any(axis=-1))
    return mask
