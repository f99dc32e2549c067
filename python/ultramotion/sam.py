# SPDX-License-Identifier: Apache-2.0
"""SAM's own interface on the library: `SamPredictor`, `sam_model_registry`, and the user's `run_segmentation`."""

from __future__ import annotations

import sys
from ctypes import byref, c_void_p
from types import SimpleNamespace
from typing import Any, Callable

import numpy as np

from . import _c
from ._c import lib
from .image import Pixels, plain
from .models import UNSET, Embedding, Model, Segmenter, floats, host_array
from .tensor import Tensor


class NoImageError(_c.InvalidError, RuntimeError):
    """A prediction was asked for before an image was set."""


class Sam(Segmenter):
    """A segmenter with the attributes that code written for MobileSAM reads."""

    @property
    def image_encoder(self) -> SimpleNamespace:
        return SimpleNamespace(img_size=self.canvas)


def build_sam(checkpoint: Model | None = None, *, device: Any = None, **options: Any) -> Sam:
    """MobileSAM from a checkpoint (None: the bundled one), as MobileSAM's own `build_sam_vit_t`."""
    return Sam(checkpoint, device=device, **options)


def _build_vit(checkpoint: Model | None = None, **options: Any) -> Sam:
    """SAM ViT-B, L or H, which its tensors tell, from a checkpoint."""
    if checkpoint is None:
        raise _c.InvalidError("sam_model_registry: no SAM ViT-B, L or H ships: want its checkpoint")
    return build_sam(checkpoint, **options)


sam_model_registry: dict[str, Callable[..., Sam]] = {
    "vit_t": build_sam,
    **dict.fromkeys(("default", "vit_h", "vit_l", "vit_b"), _build_vit),
}


class ResizeLongestSide:
    """Coordinates of an image as those of the image resized to a longest side, and back."""

    def __init__(self, target_length: int) -> None:
        self.target_length = target_length

    @staticmethod
    def get_preprocess_shape(oldh: int, oldw: int, long_side_length: int) -> tuple[int, int]:
        scale = long_side_length / max(oldh, oldw)
        return int(oldh * scale + 0.5), int(oldw * scale + 0.5)

    def apply_image(self, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """[H,W,3] u8, resized as MobileSAM does; wants Pillow."""
        with _c.wants("pillow", "ResizeLongestSide.apply_image()"):
            from PIL import Image

        h, w = self.get_preprocess_shape(image.shape[0], image.shape[1], self.target_length)
        return np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR))

    def apply_coords(self, coords: Any, original_size: tuple[int, ...]) -> Any:
        h, w = self.get_preprocess_shape(original_size[0], original_size[1], self.target_length)
        scaled = np.array(coords, np.float64)
        scaled[..., 0] *= w / original_size[1]
        scaled[..., 1] *= h / original_size[0]
        return scaled

    def apply_boxes(self, boxes: Any, original_size: tuple[int, ...]) -> Any:
        return self.apply_coords(np.asarray(boxes).reshape(-1, 2, 2), original_size).reshape(-1, 4)

    def apply_coords_torch(self, coords: Any, original_size: tuple[int, ...]) -> Any:
        h, w = self.get_preprocess_shape(original_size[0], original_size[1], self.target_length)
        scaled = coords.clone().float()
        scaled[..., 0] = scaled[..., 0] * (w / original_size[1])
        scaled[..., 1] = scaled[..., 1] * (h / original_size[0])
        return scaled

    def apply_boxes_torch(self, boxes: Any, original_size: tuple[int, ...]) -> Any:
        return self.apply_coords_torch(boxes.reshape(-1, 2, 2), original_size).reshape(-1, 4)


class SamPredictor:
    """MobileSAM's `SamPredictor`. It only remembers an `Embedding`, which is immutable: `predictor.embedding` may be kept,
    and used with `Segmenter.predict` from any thread, while the predictor goes on to the next image."""

    def __init__(self, sam_model: Segmenter) -> None:
        if not isinstance(sam_model, Segmenter):
            raise _c.InvalidError(f"{type(sam_model).__name__} is no ultramotion.Segmenter")
        self.model = sam_model
        self.transform = ResizeLongestSide(sam_model.canvas)
        self.embedding: Embedding | None = None

    @property
    def device(self) -> str:
        return self.model.device.name

    @property
    def is_image_set(self) -> bool:
        return self.embedding is not None

    @property
    def original_size(self) -> tuple[int, int]:
        return self._embedding().image_size

    @property
    def input_size(self) -> tuple[int, int]:
        return self.transform.get_preprocess_shape(*self.original_size, self.transform.target_length)

    @property
    def features(self) -> Tensor:
        return self.get_image_embedding()

    def reset_image(self) -> None:
        self.embedding = None

    def _embedding(self) -> Embedding:
        if self.embedding is None:
            raise NoImageError("An image must be set with .set_image(...) before mask prediction.")
        return self.embedding

    def set_image(self, image: Any, image_format: str = "RGB") -> None:
        """[H,W,3] u8, or any image that `Segmenter.encode` takes."""
        if image_format not in ("RGB", "BGR"):
            raise _c.InvalidError(f"image_format must be in ['RGB', 'BGR'], is {image_format}.")
        self.reset_image()
        if image_format == "BGR":
            image = _turned(host_array(plain(image)))
        self.embedding = self.model.encode(image)

    def set_torch_image(self, transformed_image: Any, original_image_size: tuple[int, ...]) -> None:
        """[1,3,h,w] with the canvas as its longer side, 0 to 255 (rounded to 8 bits), of an image that was (H, W)."""
        shape = tuple(transformed_image.shape)
        if len(shape) != 4 or shape[:2] != (1, 3) or max(shape[2:]) != self.transform.target_length:
            raise _c.InvalidError(
                f"set_torch_image input of shape {list(shape)}: must be 1x3xHxW with long side {self.transform.target_length}."
            )
        height, width = _c.integers(tuple(original_image_size)[:2], 2, "original_image_size")
        self.reset_image()
        if hasattr(transformed_image, "permute"):  # PyTorch's: stays on its device
            image = transformed_image.detach()[0].permute(1, 2, 0)
            if image.is_floating_point():
                image = image.round().clamp(0, 255)
            image = image.byte().contiguous()
        else:
            image = np.clip(np.rint(np.moveaxis(host_array(transformed_image)[0], 0, 2)), 0, 255).astype(np.uint8)
        self.embedding = self.model.encode(image).resized(height, width)

    def predict(
        self,
        point_coords: Any = None,
        point_labels: Any = None,
        box: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        as_numpy: bool | None = UNSET,
        return_low_res: bool = True,
    ) -> tuple[Any, Any, Any]:
        """(masks [C,H,W], scores [C], low-res logits [C,4n,4n] or None) of prompts in pixels of the image: tensors on the
        device, or numpy arrays with `as_numpy=True`."""
        made = self.model.predict(
            self._embedding(),
            box=None if box is None else host_array(box).reshape(-1),  # upstream's, too, takes corners as [2,2]
            points=point_coords,
            labels=point_labels,
            mask_input=mask_input,
            multimask=multimask_output,
            logits=return_logits,
            as_numpy=as_numpy,
        )
        return made.masks, made.scores, made.low_res if return_low_res else None

    def predict_torch(
        self,
        point_coords: Any = None,
        point_labels: Any = None,
        boxes: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Any, Any, Any]:
        """A batch of prompts (points [B,N,2] and labels [B,N], boxes [B,4], masks [B,1,4n,4n]), points and boxes in pixels of
        the resized image (`transform`): masks [B,C,H,W], scores [B,C], low-res logits [B,C,4n,4n]. PyTorch's tensors
        where the prompts are, else numpy's."""
        (h, w), (full_h, full_w) = self.input_size, self.original_size
        back = np.array([full_w / w, full_h / h])
        points = None if point_coords is None else host_array(point_coords)
        corners = None if boxes is None else host_array(boxes)
        if points is not None:
            if points.ndim != 3 or points.shape[2] != 2:
                raise _c.InvalidError(f"predict_torch: point_coords of shape {list(points.shape)}: want [B,N,2]")
            points = points * back
        if corners is not None:
            if corners.size % 4:
                raise _c.InvalidError(f"predict_torch: boxes of shape {list(corners.shape)}: want [B,4]")
            corners = corners.reshape(-1, 4) * np.tile(back, 2)
        labels = None if point_labels is None else host_array(point_labels)
        lows = None if mask_input is None else host_array(mask_input)
        counts = {len(x) for x in (points, labels, corners, lows) if x is not None}
        if counts in (set(), {0}):
            raise _c.InvalidError("predict_torch: no points, no boxes, no masks")
        if len(counts) > 1:
            raise _c.InvalidError(f"predict_torch: of points, labels, boxes and masks there are {sorted(counts)}: want as many of each")
        torch = _torch_of(point_coords, boxes, mask_input)
        made = [
            self.predict(
                None if points is None else points[i],
                None if labels is None else labels[i],
                None if corners is None else corners[i],
                None if lows is None else lows[i],
                multimask_output,
                return_logits,
                as_numpy=torch is None,
            )
            for i in range(counts.pop())
        ]
        if torch is None:
            masks, scores, low = (np.stack(part) for part in zip(*made))
        else:
            masks, scores, low = (torch.stack([torch.from_dlpack(t) for t in part]) for part in zip(*made))
        return masks, scores, low

    def get_image_embedding(self) -> Tensor:
        """[1,256,n,n], read-only."""
        return self._embedding().tensor


def _turned(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """BGR as RGB, wherever its channels are."""
    if image.ndim < 3:
        return image
    axis = -1 if image.shape[-1] in (1, 3) else -3
    return np.ascontiguousarray(np.flip(image, axis))


def _torch_of(*prompts: Any) -> Any:
    """PyTorch, where one of the prompts is of it."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and any(isinstance(p, torch.Tensor) for p in prompts) else None


def _segmenter_of(sam_model: Any) -> Segmenter:
    model = sam_model.model if isinstance(sam_model, SamPredictor) else sam_model
    if not isinstance(model, Segmenter):
        raise _c.InvalidError(f"{type(sam_model).__name__} is no ultramotion.Segmenter or SamPredictor")
    return model


def run_segmentation(sam_model: Any, image: Any, bbox_xyxy: Any = None, as_numpy: bool | None = UNSET) -> Any:
    """Outline what is in a box (None: the whole image).

    The mask stays on the model's device as a boolean `Tensor` [1,1,H,W]; with `as_numpy=True` (or by the rollback
    switch, `Segmenter`) it is a `numpy.bool_` array [H,W]. None only without a model or an image: misuse raises."""
    if sam_model is None or image is None:
        return None
    box = None if bbox_xyxy is None else floats(host_array(bbox_xyxy).reshape(-1), (4,), "bbox_xyxy")
    return _run(_segmenter_of(sam_model), image, box, as_numpy, lib.um_run_segmentation)


def _run_segmentation_legacy(sam_model: Any, roi: Any, as_numpy: bool | None = UNSET) -> Any:
    """The legacy call: a region of interest without a box."""
    if sam_model is None or roi is None:
        return None
    call = lib.um_run_segmentation_legacy
    return _run(_segmenter_of(sam_model), roi, None, as_numpy, lambda s, image, _, mode, out: call(s, image, mode, out))


def _run(model: Segmenter, image: Any, box: Any, as_numpy: Any, call: Callable[..., int]) -> Any:
    seen = Pixels(image, model._stream())
    host = model.as_numpy(as_numpy)
    mask = c_void_p()
    with model._handle as s:
        status = call(s, byref(seen.image), None if box is None else box.ctypes.data, 2 if host else 1, byref(mask))
    try:
        _c.check(status)
    except BaseException:  # a signal's, after a success
        lib.um_values_unref(byref(mask))
        raise
    made = Tensor(mask.value, None if seen.image.device in (None, b"cpu") else seen)
    return made.numpy() if host else made
