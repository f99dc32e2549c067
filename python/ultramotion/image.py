# SPDX-License-Identifier: Apache-2.0
"""Images in: numpy arrays, PIL images, and whatever supports DLPack or CUDA's array interface."""

from __future__ import annotations

import contextlib
import ctypes
import os
from ctypes import byref, c_void_p
from typing import Any, Iterator

import numpy as np

from . import _c
from ._c import lib
from .tensor import Tensor

_DLPACK = (1, 1)
_CODES = {"u": 1, "f": 2, "i": 0, "c": 5, "b": 6}  # DLPack's for numpy's kinds


def _capsule(tensor: Any, stream: int | None) -> Any:
    """A capsule of somebody's tensor, in the newest form that both know."""
    try:
        if stream is None:
            return tensor.__dlpack__(max_version=_DLPACK)
        return tensor.__dlpack__(max_version=_DLPACK, stream=stream)
    except TypeError:  # from before versions
        return tensor.__dlpack__() if stream is None else tensor.__dlpack__(stream=stream)


def plain(image: Any) -> Any:
    """Arrays for what is not a tensor yet: PIL images, lists."""
    if isinstance(image, np.ndarray):
        return image
    if image is None:
        raise _c.InvalidError("image None: want pixels")
    if isinstance(image, (str, os.PathLike)):
        raise _c.InvalidError(f"image {os.fspath(image)!r}: a name, want pixels: Frame.read() reads a file, run() a file, a folder, a list of names, @LIST.txt")
    if hasattr(image, "__dlpack__") or hasattr(image, "__cuda_array_interface__"):
        return image.detach() if getattr(image, "requires_grad", False) else image
    mode = getattr(image, "mode", None)
    if isinstance(mode, str) and hasattr(image, "convert"):  # PIL
        deep = mode.startswith("I") or mode == "F"  # which convert() would saturate
        return np.asarray(image if deep or mode in ("L", "RGB") else image.convert("RGB"))
    return np.asarray(image)


def _array(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An array in a type that C takes, itself where it is."""
    floats = array.dtype.kind == "f" and array.dtype.itemsize <= 8
    if floats and array.dtype.itemsize == 2:
        return _nearest(array)
    return array.astype(np.float32, copy=False) if floats else array


def _nearest(halves: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """float16 at its gray levels: C truncates, and what is stored of half of them is a bit below."""
    levels: np.ndarray[Any, Any] = np.rint(halves.astype(np.float32) * 255)
    return levels / np.float32(255)


def numbers_of(image: Any) -> np.ndarray[Any, Any]:
    """A tensor in host memory as an array; numpy has no bfloat16, PyTorch's tensors have float()."""
    kind = str(getattr(image, "dtype", "")).rpartition(".")[2]
    return np.asarray(image.float() if kind == "bfloat16" and hasattr(image, "float") else image)


@contextlib.contextmanager
def handed_over(image: Any) -> Iterator[None]:
    """What somebody else's library raises is said of the image."""
    try:
        yield
    except (BufferError, RuntimeError, TypeError, ValueError) as problem:
        if isinstance(problem, _c.Error):
            raise
        raise _c.InvalidError(f"a {type(image).__name__} that cannot be handed over: {problem}") from problem


class Pixels:
    """An image as C sees it: `image` is valid as long as this is."""

    __slots__ = ("image", "_kept")

    def __init__(self, image: Any, stream: int | None = None) -> None:
        """`stream` is the library's own, of a GPU: what is there must be so in its order."""
        self.image = _c.Image()
        self._kept: Any = None
        with handed_over(image):
            image = plain(image)
            if isinstance(image, np.ndarray):
                self._from_numpy(image)
            else:
                self._from_tensor(image, stream)

    def _from_tensor(self, image: Any, stream: int | None) -> None:
        interface = getattr(image, "__cuda_array_interface__", None)
        if interface is not None and not hasattr(image, "__dlpack__"):
            self._from_cuda(interface)
            self._kept = image
            return
        host = tuple(image.__dlpack_device__())[0] != 2
        kind = str(getattr(image, "dtype", "")).rpartition(".")[2]
        if host and kind in ("float64", "float16", "bfloat16"):
            self._from_numpy(numbers_of(image))
            return
        capsule = _capsule(image, None if host else stream)
        self._kept = (image, capsule)
        status = _c.capsule_image(capsule, byref(self.image))
        if status < 0 and host and _strided(image):
            self._from_numpy(np.asarray(image))
            return
        _c.check(status)

    def _from_numpy(self, array: np.ndarray[Any, Any]) -> None:
        array = _array(array)
        if not array.flags.c_contiguous and not (_rows(array) and array.flags.aligned):
            array = np.ascontiguousarray(array)
        self._kept = array
        self._describe(array.__array_interface__, (1, 0))

    def _from_cuda(self, interface: dict[str, Any]) -> None:
        self._describe(interface, (2, 0))  # the interface does not say which GPU
        self.image.stream = interface.get("stream")

    def _describe(self, interface: dict[str, Any], device: tuple[int, int]) -> None:
        """What an array interface says, told to C as DLPack's."""
        dtype, shape, steps = np.dtype(interface["typestr"]), interface["shape"], interface.get("strides")
        if dtype.kind not in _CODES:  # dates, text, objects
            raise _c.InvalidError(f"image of type {dtype}: want u8 (0 to 255) or f32 (0 to 1)")
        sides = (ctypes.c_int64 * len(shape))(*shape)
        strides = None if steps is None else (ctypes.c_int64 * len(shape))(*(step // dtype.itemsize for step in steps))
        tensor = _c.DLTensor(
            interface["data"][0],
            *device,
            len(shape),
            _CODES[dtype.kind],
            dtype.itemsize * 8,
            1,
            ctypes.addressof(sides),
            None if strides is None else ctypes.addressof(strides),
        )
        _c.check(lib.um_dlpack_image(byref(tensor), byref(self.image)))


def _rows(array: np.ndarray[Any, Any]) -> bool:
    """Whether only the step between rows is not that of a contiguous array, and none lies in another."""
    inner = array[0] if array.ndim > 1 and array.shape[0] else array
    if array.ndim >= 3 and array.shape[-1] not in (1, 3):  # [C,H,W]
        return bool(array.flags.c_contiguous)
    return bool(inner.flags.c_contiguous) and (array.ndim < 2 or abs(array.strides[0]) >= inner.nbytes)


def _strided(tensor: Any) -> bool:
    contiguous = getattr(tensor, "is_contiguous", None)
    return bool(callable(contiguous) and not contiguous())


SPACING: _c.Field[tuple[float, float] | None] = _c.Field(
    "spacing_mm", lambda s: (float(s[0]), float(s[1])), where="has_spacing"
)
POSE: _c.Field[np.ndarray[Any, Any] | None] = _c.Field(  # probe to tracker, mm
    "pose", lambda p: np.array(p).reshape(4, 4), where="has_pose"
)


def numbers(values: Any, count: int, what: str) -> list[float]:
    try:
        numbers = np.asarray(values, np.float64).reshape(-1)
    except (TypeError, ValueError) as problem:
        raise _c.InvalidError(f"{what} {values!r}: {problem}") from problem
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise _c.InvalidError(f"{what} {values!r}: want {count} finite numbers")
    return [float(n) for n in numbers]


class Frame(_c.Reference):
    """One image with its number, time, pose and spacing: what a pipeline takes.

    `Frame(array)` is over the array's own memory (u8, `[H,W]` or `[H,W,3]`) without a copy; the array may not
    change until the frame is gone. Other types, and read-only arrays of an old numpy, are copied."""

    __slots__ = ("_read_only",)
    _unref = lib.um_frame_unref

    def __init__(
        self,
        image: Any,
        *,
        frame_id: int | None = None,
        ts: float | None = None,
        spacing_mm: tuple[float, float] | None = None,
        pose: Any = None,
        source: _c.Path | None = None,
    ) -> None:
        pointer, self._read_only = _frame_of(image)
        self._take(pointer)
        struct = self._struct
        if frame_id is not None:
            struct.id = frame_id
        if ts is not None:
            struct.ts, struct.has_ts = numbers(ts, 1, "ts")[0], 1
        if spacing_mm is not None:
            sides = numbers(spacing_mm, 2, "spacing_mm")
            if min(sides) <= 0:
                raise _c.InvalidError(f"spacing_mm {spacing_mm!r}: want more than 0")
            struct.spacing_mm[:], struct.has_spacing = sides, 1
        if pose is not None:
            struct.pose[:], struct.has_pose = numbers(pose, 16, "pose"), 1
        if source is not None:
            _c.check(lib.um_frame_set_source(pointer, _c.path_bytes(source)))

    @classmethod
    def _of(cls, pointer: c_void_p) -> Frame:
        frame = cls.__new__(cls)
        frame._take(pointer)
        frame._read_only = False
        return frame

    @classmethod
    def _copy_of(cls, image: Any) -> Frame:
        """A copy in memory of its own, for callers whose producer reuses the array."""
        with handed_over(image):
            return cls._of(_frame_copied(numbers_of(_on_host(image))))

    def _again(self) -> Frame:
        """Another frame over the same pixels, for a source, which numbers and times it: this one may be in others too."""
        frame = Frame(self.numpy(), source=self._struct.source)
        for fact in ("ts", "has_ts", "spacing_mm", "has_spacing", "pose", "has_pose"):
            setattr(frame._struct, fact, getattr(self._struct, fact))
        return frame

    def _address(self) -> int:
        return self._use().value or 0

    @property
    def _struct(self) -> _c.Frame:
        return _c.Frame.from_address(self._address())

    @classmethod
    def read(cls, path: _c.Path) -> Frame:
        """Read an image (PNG, JPEG, BMP, TIFF), or the first frame of a video or a sequence."""
        pointer = c_void_p()
        _c.check(lib.um_image_read(_c.path_bytes(path), byref(pointer)))
        return cls._of(pointer)

    frame_id = _c.Field("id", int)
    width = _c.Field("width", int)
    height = _c.Field("height", int)
    channels = _c.Field("channels", int)
    ts = _c.Field("ts", float)
    """Seconds since 1970; 0 where it is not known yet."""
    source = _c.Field("source", _c.text)
    spacing_mm = SPACING
    pose = POSE

    @property
    def __array_interface__(self) -> dict[str, Any]:
        shape = (self.height, self.width) if self.channels == 1 else (self.height, self.width, 3)
        return {
            "version": 3,
            "shape": shape,
            "strides": (int(self._struct.stride), self.channels, 1)[: len(shape)],
            "typestr": "|u1",
            "data": (self._struct.pixels, self._read_only),
        }

    def numpy(self) -> np.ndarray[Any, Any]:
        """The pixels, without a copy."""
        return np.asarray(self)

    def gray(self) -> Frame:
        """The image as networks see it that know gray only: colours become gray, strokes drawn in colour are painted over."""
        pointer = c_void_p()
        _c.check(lib.um_frame_gray(self._use(), byref(pointer)))
        return Frame._of(pointer)

    def save(self, path: _c.Path) -> None:
        """Write the image as a `.png`."""
        if not _c.path_text(path).endswith(".png"):
            raise _c.InvalidError(f"save: {_c.path_text(path)}: want .png")
        write_png(path, self.numpy())

    def _repr_png_(self) -> bytes:
        """How a notebook shows it."""
        return png(self.numpy())

    def __repr__(self) -> str:
        return f"ultramotion.Frame({self.width}x{self.height}x{self.channels}, {self.source!r})"


def as_frame(image: Any) -> Frame:
    """An image's frame, itself where it is one."""
    return image if isinstance(image, Frame) else Frame(image)


def write_png(path: _c.Path, pixels: np.ndarray[Any, Any]) -> None:
    """u8, [H,W] or [H,W,3]."""
    pixels = np.ascontiguousarray(pixels)
    height, width, *channels = pixels.shape
    _c.check(lib.um_image_write_png(_c.path_bytes(path), pixels.ctypes.data, width, height, *channels or [1]))


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    """The bytes of a PNG, which the library writes as a file only."""
    import tempfile

    with _c.of_file("a temporary image"), tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.png")
        write_png(path, pixels)
        with open(path, "rb") as file:
            return file.read()


def _on_host(image: Any) -> Any:
    """An array, or a tensor in host memory."""
    image = image.numpy() if isinstance(image, Tensor) else plain(image)
    if not isinstance(image, np.ndarray) and hasattr(image, "__dlpack_device__") and tuple(image.__dlpack_device__())[0] == 2:
        raise _c.InvalidError(f"a frame is in host memory, the tensor on device {getattr(image, 'device', 'cuda')}: give its cpu()")
    return image


def _frame_of(image: Any) -> tuple[c_void_p, bool]:
    """A frame, and whether its pixels are somebody's that are not to be written."""
    with handed_over(image):
        seen = _on_host(image)
        over = frame_over(seen)
        if over is None:
            return _frame_copied(numbers_of(seen)), False
        return over, isinstance(seen, np.ndarray) and not seen.flags.writeable


def frame_over(tensor: Any) -> c_void_p | None:
    """A frame over a tensor's own memory; None where it must be copied."""
    try:
        capsule = _capsule(tensor, None)
    except (BufferError, AttributeError):  # read-only, or a type that DLPack has not
        return None
    pointer = c_void_p()
    status = _c.capsule_frame(byref(pointer), capsule)
    if status == _c.OK:
        return pointer
    if status == _c.InvalidError.status:  # not u8, or not with channels last
        return None
    raise _c.error(status)


def _frame_copied(array: np.ndarray[Any, Any]) -> c_void_p:
    """A frame of its own memory, for images that are not u8 with channels last."""
    seen, pointer = Pixels(array), c_void_p()
    _c.check(lib.um_frame_from_image(byref(pointer), byref(seen.image)))
    return pointer
