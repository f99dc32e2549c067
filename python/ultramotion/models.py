# SPDX-License-Identifier: Apache-2.0
"""Devices, networks on them, and what they give: all immutable and for any thread."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from ctypes import byref, c_int, c_void_p
from functools import partial
from typing import Any, Callable, NamedTuple, TypeVar, Union

import numpy as np

from . import _c
from ._c import lib
from .image import Pixels, as_frame, handed_over, numbers_of
from .tensor import Tensor

KPI = logging.getLogger("ultramotion.kpi")
LOG = logging.getLogger("ultramotion")
Model = Union[_c.Path, bytes, bytearray, memoryview]  # a file, or what is in one
_Segmenter = TypeVar("_Segmenter", bound="Segmenter")
DETECTOR, SEGMENTER = "dfine_n_bone_320.safetensors", "mobile_sam_bone_384.safetensors"


class _Unset:
    """An argument that was not given: not the same as False for `as_numpy`."""

    def __repr__(self) -> str:
        return "False"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "UNSET"  # copies are the same one


UNSET: Any = _Unset()


def mask_mode(as_numpy: Any) -> int:
    """UM_MASK_AUTO, _DEVICE or _HOST of an argument `as_numpy`."""
    if as_numpy is UNSET or as_numpy is None:
        return 0
    if not isinstance(as_numpy, (int, np.bool_)):  # "0" would be true
        raise _c.InvalidError(f"as_numpy {as_numpy!r}: want True or False")
    return 2 if as_numpy else 1


def models_path() -> str:
    """Folder of the bundled models: `ULTRAMOTION_MODELS`, else that of the package."""
    return os.environ.get("ULTRAMOTION_MODELS") or _c.carried("models")


class Device(_c.Closing):
    """A place where networks run, by its `name`: `"auto"` (first GPU that works, else the CPU), `"cpu"`, `"cuda:N"` or the
    test device `"guard"`. `threads` compute on it, of a CPU (0: as many as the process may use). `precision` is of activations:
    `"auto"`, `"fp32"`, `"fp16"`, `"bf16"`, `"int8"` (on CPUs with AVX-VNNI, AVX-512 VNNI or arm64's dot products; of the bundled
    models, and of files that `convert --precision int8` made). `weight_cache` is where packed weights are kept, so that they are
    not packed at each start: a folder, `"auto"` (the user's cache folder), None: nowhere."""

    __slots__ = ("_handle", "__weakref__")
    _close_order = 9

    def __init__(
        self, name: str = "auto", *, threads: int = 0, precision: str = "auto", weight_cache: _c.Path | None = None
    ) -> None:
        told: list[str] = []  # the library speaks on this thread; logging is for afterwards
        say = told.append
        settings = _c.DeviceSettings(
            name=_c.encoded(_device_name(name), "device"),
            threads=threads,
            precision=_c.encoded(precision, "precision"),
            log=_c.say,
            log_ctx=id(say),
            weight_cache=None if weight_cache is None else _c.path_bytes(weight_cache),
        )
        pointer = c_void_p()
        _c.check(lib.um_device_open(byref(pointer), byref(settings)))
        self._handle = _c.Handle(f"device {_c.text(lib.um_device_name(pointer))}", pointer, lib.um_device_close)
        _c.close_at_exit(self)
        for line in told:
            LOG.log(logging.INFO if line.startswith("no GPU") else logging.WARNING, "%s", line)

    name = _c.Answer("um_device_name", _c.text)
    precision = _c.Answer("um_device_precision", _c.text)
    threads = _c.Answer("um_device_threads", int)
    precision_reason = _c.Answer("um_device_precision_reason", _c.text)
    isa = _c.Answer("um_device_isa", _c.text)
    """Which kernels it computes with, e.g. `"avx512"`, `"sm_90"`."""

    @property
    def weight_cache(self) -> str:
        """Where packed weights are kept and what became of those of the network that was opened last; `"off"`: nowhere."""
        text = ctypes.create_string_buffer(4096)
        with self._handle as device:
            lib.um_device_weight_cache(device, text, len(text))
        return os.fsdecode(text.value)

    @property
    def transfers(self) -> dict[str, int]:
        """Copies and waits between host and device since it was opened."""
        counts = _c.Transfers()
        with self._handle as device:
            lib.um_device_transfers(device, byref(counts))
        return _c.numbers(counts)

    def _about(self) -> str:
        return f"{self.name}, {self.precision}"


def _device_name(name: Any) -> str:
    text = str(name)
    return "cuda:0" if text == "cuda" else text


_shared: dict[str, Device] = {}
_shared_lock = threading.Lock()
# A child of a thread that forks while another opens a device would have the lock for ever, but not the thread.
os.register_at_fork(before=_shared_lock.acquire, after_in_parent=_shared_lock.release, after_in_child=_shared_lock.release)


def device_of(device: Device | Any | None) -> Device:
    """A device, or the one shared by all that give the same name, or "auto" (None) where that comes to it."""
    if isinstance(device, Device):
        return device
    name = "auto" if device is None else _device_name(device)
    with _shared_lock:
        found = _open(name)
        if found is None:
            made = Device(name)
            found = _open(made.name)
            if found is None:
                found = made
            else:
                made.close()
            _shared[name] = _shared[found.name] = found
        return found


def _open(name: str) -> Device | None:
    found = _shared.get(name)
    return None if found is None or found._handle.closed or found._handle._forks != _c._forks else found


def _bytes(model: Model, what: str) -> bytes | None:
    """The bytes of a model that is not a path."""
    if isinstance(model, (bytes, bytearray, memoryview)):
        return bytes(model)
    if not isinstance(model, (str, os.PathLike)):  # PyTorch's module or state dict, say
        raise _c.InvalidError(f"{what} of type {type(model).__name__}: want its file (.pt, .pth, .safetensors), or what is in one, as bytes")
    return None


class Detection(NamedTuple):
    """One box in pixels of the image, not clamped to it."""

    box_xyxy: tuple[float, float, float, float]
    score: float
    label: int
    name: str | None


class Detector(_c.Closing):
    """A D-FINE network, `model` (`.pt`, `.pth`, `.safetensors`, or a file's bytes; None: the bundled one), opened on `device`.

    What the file says counts, unless it is said here: `input_size` (a side, or width and height), `queries`, `activation`
    (`"silu"` for DEIM), `fit` (`"stretch"`, `"letterbox"`), `names` (a text file, one class a line), and `gain` of the images
    that the networks see (`"auto"`, `"off"`, a number, or text with `",GAMMA"` behind; `docs/FRAME.md`). `nms`: the IoU above which
    the lesser of two boxes of a class goes; 1: none does. `presence`: `"K,P"` or K: a pipeline's score of a
    frame is the probability that one of the K best boxes is right, scaled such that P becomes 0.5; 1: the best box's own.
    `gray=True`: colours become gray before the networks of a pipeline see them (a scanner's tint). `smooth`: how far the
    filter that resizes images for this network reaches, in pixels of its input (1: as D-FINE does)."""

    __slots__ = ("_device", "_handle", "__weakref__")
    _close_order = 8

    def __init__(
        self,
        model: Model | None = None,
        *,
        device: Device | Any | None = None,
        input_size: int | tuple[int, int] = 0,
        queries: int = 0,
        activation: str = "auto",
        fit: str = "auto",
        names: _c.Path | None = None,
        gain: str | float | None = None,
        nms: float = 0,
        presence: str | int | None = None,
        gray: bool | None = None,
        smooth: float = 0,
    ) -> None:
        self._device = device_of(device)
        model = os.path.join(models_path(), DETECTOR) if model is None else model
        if gray is not None and not isinstance(gray, (int, np.bool_)):  # "0" would be true
            raise _c.InvalidError(f"gray {gray!r}: want True or False")
        sides = input_size if isinstance(input_size, (tuple, list)) else (input_size, input_size)
        width, height = _c.integers(sides, 2, "input_size")
        settings = _c.DetectorSettings(
            input_width=width,
            input_height=height,
            queries=queries,
            activation=_c.encoded(activation, "activation"),
            fit=_c.encoded(fit, "fit"),
            names=None if names is None else _c.path_bytes(names),
            gain=None if gain is None else _c.encoded(str(gain), "gain"),
            nms=nms,
            presence=None if presence is None else _c.encoded(str(presence), "presence"),
            gray=0 if gray is None else 1 if gray else -1,
            smooth=smooth,
        )
        pointer, raw = c_void_p(), _bytes(model, "detector")
        with self._device._handle as on:
            if raw is None:
                _c.check(lib.um_detector_open(byref(pointer), on, _c.path_bytes(model), byref(settings)))
            else:
                _c.check(lib.um_detector_open_memory(byref(pointer), on, raw, len(raw), b"bytes", byref(settings)))
        self._handle = _c.Handle("detector", pointer, lib.um_detector_close)
        _c.close_at_exit(self)
        warning = lib.um_detector_warning(pointer)
        if warning:
            LOG.warning("%s", _c.text(warning))

    @property
    def device(self) -> Device:
        return self._device

    @property
    def classes(self) -> list[str | None]:
        """Names of the classes, None where the file has none."""
        with self._handle as d:
            names = [lib.um_detector_class_name(d, i) for i in range(lib.um_detector_classes(d))]
        return [_c.optional_text(n) for n in names]

    architecture = _c.Answer("um_detector_architecture", _c.text)
    input_size = _c.Answer("um_detector_input_size", int)
    """Side of the square input; of one that is not square its width."""
    queries = _c.Answer("um_detector_queries", int)
    sha256 = _c.Answer("um_detector_sha256", _c.text)

    def _about(self) -> str:
        return f"{self.architecture}, {self.device.name}"

    def detect(self, image: Any, conf: float = 0.5, *, limit: int = 300) -> list[Detection]:
        """Boxes with a score of at least `conf`, best first. From any thread; calls take turns."""
        frame = as_frame(image)
        least, most = _c.number(conf, "conf"), min(_c.integer(limit, "limit"), self.queries)
        if most < 0:
            raise _c.InvalidError(f"limit {limit}: want 0 or more")
        boxes, count = (_c.Box * max(most, 1))(), c_int()
        with self._handle as d:
            _c.check(lib.um_detector_run(d, frame._use(), least, boxes, most, byref(count)))
            found = boxes[: count.value]
            names = {b.label: lib.um_detector_class_name(d, b.label) for b in found}
        return [Detection((b.x0, b.y0, b.x1, b.y1), b.score, b.label, _c.optional_text(names[b.label])) for b in found]

    def eval(self) -> Detector:
        return self


class Prediction(NamedTuple):
    """What a prompt gave: `masks` [C,H,W] (booleans, or logits where those were asked for), `scores` [C] (predicted
    IoU), `low_res` [C,4n,4n] (logits, to be given as `mask_input`). Tensors on the device, or numpy arrays."""

    masks: Any
    scores: Any
    low_res: Any


class Embedding(_c.Reference):
    """What the image encoder made of one image: a value. Keep several, use each from any thread, save and load
    it (`Embedding.save`, `Segmenter.load_embedding`)."""

    __slots__ = ("_kept",)
    _unref = lib.um_embedding_unref

    def __init__(self, pointer: c_void_p, kept: Any = None) -> None:
        self._take(pointer)
        self._kept = kept  # an image on a GPU, which may still be read

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        width, height = c_int(), c_int()
        lib.um_embedding_image_size(self._use(), byref(width), byref(height))
        return height.value, width.value

    @property
    def tensor(self) -> Tensor:
        """[1,256,n,n], read-only, without a copy."""
        return Tensor(lib.um_embedding_values(self._use()), self._kept)

    def resized(self, height: int, width: int) -> Embedding:
        """The same as that of an image of another size, for callers that resized it before encoding."""
        pointer = c_void_p()
        sides = _c.integer(width, "width"), _c.integer(height, "height")
        _c.check(lib.um_embedding_resized(byref(pointer), self._use(), *sides))
        return Embedding(pointer, self._kept)

    def save(self, path: _c.Path) -> None:
        """Write it as .safetensors."""
        _c.check(lib.um_embedding_save(self._use(), _c.path_bytes(path)))

    def __repr__(self) -> str:
        return "ultramotion.Embedding({}x{})".format(*reversed(self.image_size))


def floats(values: Any, shape: tuple[int, ...], what: str) -> np.ndarray[Any, Any] | None:
    """Numbers of a list, an array or a tensor on any device as float32 of a shape (-1: any), or a batch of one of it; None stays."""
    if values is None:
        return None
    try:
        given = array = host_array(values).astype(np.float32, copy=False)
    except (TypeError, ValueError) as problem:
        raise _c.InvalidError(f"{what}: {problem}") from problem
    while array.ndim > len(shape) and len(array) == 1:
        array = array[0]
    fits = array.ndim == len(shape) and all(want in (-1, n) for want, n in zip(shape, array.shape))
    if not fits:
        want = ",".join("N" if n < 0 else str(n) for n in shape)
        raise _c.InvalidError(f"{what} of shape {list(given.shape)}: want [{want}]")
    return np.ascontiguousarray(array)


def host_array(values: Any) -> np.ndarray[Any, Any]:
    """An array of numbers that may be a tensor on any device."""
    if isinstance(values, Tensor):
        return values.numpy()
    if hasattr(values, "detach"):
        values = values.detach()
    device = getattr(values, "__dlpack_device__", None)
    with handed_over(values):
        if device is not None and tuple(device())[0] != 1:
            way = next((w for w in ("cpu", "get") if hasattr(values, w)), None)  # PyTorch's and CuPy's
            values = values if way is None else getattr(values, way)()
        array = numbers_of(values)
    if array.dtype == object:
        raise _c.InvalidError(f"{type(values).__name__} is no array of numbers")
    return array


class Segmenter(_c.Closing):
    """A network of MobileSAM or another of SAM's families, `model` (`.pt`, `.safetensors`, or a file's bytes; None: the bundled one),
    opened on `device`.
    `family` says which where the file cannot tell: `"mobile-sam"`, `"tiny-sam"`, `"lite-medsam"`, `"sam-vit"`, `"medsam-vit"`.

    `canvas` is the side of the square into which images are fitted; 0: what the file says, else 1024.
    `sam_as_numpy` is the rollback switch for all calls that do not say `as_numpy`: True makes masks on the host.
    Unset, the environment `ULTRAMOTION_SAM_AS_NUMPY` says so, else masks stay on the device. `kpi` is called with a
    JSON line for each prediction; by default it goes to the logger `ultramotion.kpi`."""

    __slots__ = ("_model", "_canvas", "_mode", "_family", "_kpi", "_device", "_handle", "__weakref__")
    _close_order = 8
    mask_threshold = 0.0
    image_format = "RGB"

    def __init__(
        self,
        model: Model | None = None,
        *,
        device: Device | Any | None = None,
        canvas: int = 0,
        family: str | None = None,
        sam_as_numpy: bool | None = None,
        kpi: Callable[[str], object] | None = None,
    ) -> None:
        self._model = os.path.join(models_path(), SEGMENTER) if model is None else model
        self._canvas, self._mode = _c.integer(canvas, "canvas"), sam_as_numpy
        self._family = None if family is None else _c.encoded(family, "family")
        self._kpi = kpi_function(kpi)
        self._open(device_of(device))

    def _open(self, device: Device) -> None:
        pointer, raw = c_void_p(), _bytes(self._model, "segmenter")
        with device._handle as on:
            if raw is None:
                path = _c.path_bytes(self._model)
                _c.check(lib.um_segmenter_open(byref(pointer), on, path, self._canvas, self._family))
            else:
                _c.check(lib.um_segmenter_open_memory(byref(pointer), on, raw, len(raw), b"bytes", self._canvas, self._family))
        handle = _c.Handle("segmenter", pointer, lib.um_segmenter_close)
        with handle as s:
            lib.um_segmenter_set_kpi(s, _c.say, id(self._kpi))
            lib.um_segmenter_set_mask_mode(s, mask_mode(self._mode))
        self._device, self._handle = device, handle
        _c.close_at_exit(self)

    # ---- what it is ----

    @property
    def device(self) -> Device:
        return self._device

    canvas = _c.Answer("um_segmenter_canvas", int)
    """Side of the square into which images are fitted."""
    canvas_step = _c.Answer("um_segmenter_canvas_step", int)
    """Canvases that are multiples of this waste no window; 0: the network has one canvas."""
    architecture = _c.Answer("um_segmenter_architecture", _c.text)
    sha256 = _c.Answer("um_segmenter_sha256", _c.text)

    def _about(self) -> str:
        return f"{self.architecture}, {self.device.name}"

    def to(self: _Segmenter, device: Any) -> _Segmenter:
        """Move it, for code that says `sam.to(device)`: it is opened again there, and closed here. By a name it stays where it is, on a device
        that is called so."""
        target = device_of(device)
        named = not isinstance(device, Device) and target.name == self._device.name
        if target is not self._device and not named:
            old = self._handle
            with old:  # a closed one stays closed
                self._open(target)
            old.close()
        return self

    def eval(self: _Segmenter) -> _Segmenter:
        return self

    # ---- images and prompts ----

    def as_numpy(self, argument: bool | None = UNSET) -> bool:
        """What `as_numpy` comes to: the argument, else this segmenter's `sam_as_numpy`, else the environment."""
        mode = c_int()
        with self._handle as s:
            _c.check(lib.um_segmenter_mask_mode(s, mask_mode(argument), byref(mode)))
        return mode.value == 2

    def encode(self, image: Any) -> Embedding:
        """The embedding of an image: u8 0..255 or floats 0..1, `[H,W]`, `[H,W,C]`, `[C,H,W]` or `[1,C,H,W]` with C = 1
        or 3. From any thread."""
        seen = Pixels(image, self._stream())
        pointer = c_void_p()
        with self._handle as s:
            _c.check(lib.um_segmenter_encode(s, byref(seen.image), byref(pointer)))
        return Embedding(pointer, seen if seen.image.device not in (None, b"cpu") else None)

    def _stream(self) -> int | None:
        with self._device._handle as d:
            stream: int | None = lib.um_device_stream(d)
            return stream

    def predict(
        self,
        embedding: Embedding,
        *,
        box: Any = None,
        points: Any = None,
        labels: Any = None,
        mask_input: Any = None,
        multimask: bool = False,
        logits: bool = False,
        as_numpy: bool | None = UNSET,
    ) -> Prediction:
        """Outline what the prompts point at, in pixels of the image: `box` x0,y0,x1,y1, `points` [N,2], at most 16, with `labels`
        [N] (1 object, 0 background), `mask_input` low-res logits of an earlier prediction; each may be a batch of one. From any thread."""
        if not isinstance(embedding, Embedding):
            raise _c.InvalidError(f"{type(embedding).__name__} is no ultramotion.Embedding: want what encode() gives")
        corners = floats(box, (4,), "box")
        xy = floats(points, (-1, 2), "points")
        if (xy is None) != (labels is None):
            raise _c.InvalidError("points and labels belong together")
        kinds = floats(labels, (-1,), "labels")
        if kinds is not None:
            if (kinds != np.rint(kinds)).any() or (np.abs(kinds) > 9).any():
                raise _c.InvalidError(f"labels {kinds.tolist()}: want 1 (object) or 0 (background)")
            kinds = kinds.astype(np.int32)
        if xy is not None and kinds is not None and kinds.shape != (len(xy),):
            raise _c.InvalidError(f"labels of shape {list(kinds.shape)} for {len(xy)} points")
        low = None
        if mask_input is not None:
            side = 4 * embedding.tensor.shape[-1]
            low = floats(mask_input, (side, side), "mask_input")
            if low is not None and not np.isfinite(low).all():
                raise _c.InvalidError("mask_input: a logit is not a finite number")
        host = self.as_numpy(as_numpy)
        prompts = _c.Prompts(
            box=_address(corners),
            points=_address(xy),
            labels=_address(kinds),
            n_points=0 if xy is None else len(xy),
            mask_input=_address(low),
            multimask=multimask,
            want_logits=logits,
            as_numpy=2 if host else 1,
            want_values=True,
        )
        out = _c.Prediction()
        with self._handle as s:
            status = lib.um_segmenter_predict(s, embedding._use(), byref(prompts), byref(out))
        try:
            _c.check(status)
        except BaseException:  # a signal's, after a success
            for made in (out.masks, out.scores, out.low):
                lib.um_values_unref(byref(c_void_p(made)))
            raise
        results = [Tensor(out.masks), Tensor(out.scores), Tensor(out.low)]  # their references are ours now
        return Prediction(*(r.numpy() if host else r for r in results))

    def load_embedding(self, path: _c.Path) -> Embedding:
        """Read a file of `Embedding.save`, of this model."""
        pointer = c_void_p()
        with self._handle as s:
            _c.check(lib.um_embedding_load(byref(pointer), s, _c.path_bytes(path)))
        return Embedding(pointer)

    def mask(self, values: Any) -> Tensor:
        """A mask that somebody else made ([H,W], numbers or booleans) on this model's device: [1,1,H,W], value > 0.5."""
        numbers = floats(values, (-1, -1), "mask")
        if numbers is None:
            raise _c.InvalidError("mask: none given")
        pointer = c_void_p()
        with self._handle as s:
            _c.check(lib.um_mask_from_host(byref(pointer), s, numbers.ctypes.data, *numbers.shape))
        return Tensor(pointer.value)


def _address(array: np.ndarray[Any, Any] | None) -> int | None:
    return None if array is None or array.size == 0 else array.ctypes.data


def kpi_function(kpi: Callable[[str], object] | None) -> Callable[[str], None]:
    """What takes the lines for it."""
    if kpi is not None and not callable(kpi):
        raise _c.InvalidError(f"kpi {kpi!r}: want a function that takes a line")
    return partial(_tell, kpi)


def _tell(kpi: Callable[[str], object] | None, line: str) -> None:
    """A KPI line, from inside a prediction, which its function does not end."""
    try:
        if kpi is not None:
            kpi(line)
        else:
            KPI.info("%s", line)
    except Exception:
        LOG.exception("a KPI line was not taken")
