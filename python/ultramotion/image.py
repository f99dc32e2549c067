# SPDX-License-Identifier: Apache-2.0
"""Pictures in: numpy arrays, PIL images, and whatever speaks DLPack or CUDA's array interface."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_void_p
from typing import Any

import numpy as np

from . import _c
from ._c import lib
from .tensor import Tensor

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype = ctypes.c_int
_is_valid.argtypes = [ctypes.py_object, ctypes.c_char_p]
_set_name = ctypes.pythonapi.PyCapsule_SetName
_set_name.restype = ctypes.c_int
_set_name.argtypes = [ctypes.py_object, ctypes.c_char_p]
_PLAIN, _VERSIONED = b"dltensor", b"dltensor_versioned"
_USED, _USED_VERSIONED = b"used_dltensor", b"used_dltensor_versioned"


def _capsule(tensor: Any, stream: int | None) -> Any:
    """A capsule of somebody's tensor, in the newest form that both know."""
    arguments: dict[str, Any] = {} if stream is None else {"stream": stream}
    try:
        return tensor.__dlpack__(max_version=(1, 1), **arguments)
    except TypeError:  # from before versions
        return tensor.__dlpack__(**arguments)


def _open(capsule: Any) -> tuple[int, int, bytes]:
    """Addresses of a capsule's DLTensor and of its struct, and the capsule's name."""
    if _is_valid(capsule, _VERSIONED):
        managed = _pointer(capsule, _VERSIONED)
        major = _c.DLManagedVersioned.from_address(managed).major
        if major != 1:
            raise _c.UnsupportedError(f"DLPack version {major}, want 1")
        return managed + _c.DLManagedVersioned.tensor.offset, managed, _VERSIONED
    if not _is_valid(capsule, _PLAIN):
        raise _c.InvalidError("__dlpack__() gave no capsule with a DLPack tensor")
    managed = _pointer(capsule, _PLAIN)
    return managed, managed, _PLAIN


def _plain(picture: Any) -> Any:
    """Arrays for what is not a tensor yet: PIL images, lists; None stays."""
    if hasattr(picture, "__dlpack__") or hasattr(picture, "__cuda_array_interface__"):
        return picture.detach() if getattr(picture, "requires_grad", False) else picture
    mode = getattr(picture, "mode", None)
    if isinstance(mode, str) and hasattr(picture, "convert"):  # PIL
        return np.asarray(picture if mode in ("L", "RGB") else picture.convert("RGB"))
    return np.asarray(picture)


def _array(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An array in a type and an order of rows that C takes, itself where it is."""
    if array.dtype in (np.float64, np.float16):
        array = array.astype(np.float32)
    return array


class Picture:
    """A picture as C sees it: `image` is valid as long as this is."""

    __slots__ = ("image", "_kept")

    def __init__(self, picture: Any, stream: int | None = None) -> None:
        """`stream` is the library's own, of a GPU: what is there must be so in its order."""
        self.image = _c.Image()
        self._kept: Any = None
        picture = _plain(picture)
        interface = getattr(picture, "__cuda_array_interface__", None)
        if interface is not None and not hasattr(picture, "__dlpack__"):
            self._from_cuda(interface)
            self._kept = picture
            return
        if isinstance(picture, np.ndarray):
            self._from_numpy(_array(picture))
            return
        host = tuple(picture.__dlpack_device__())[0] != 2
        if host and str(getattr(picture, "dtype", "")).endswith(("float64", "float16")):
            self._from_numpy(_array(np.asarray(picture)))
            return
        capsule = _capsule(picture, None if host else stream)
        self._kept = (picture, capsule)
        status = lib.um_dlpack_image(_open(capsule)[0], byref(self.image))
        if status < 0 and host and _strided(picture):
            self._from_numpy(np.asarray(picture))
            return
        _c.check(status)

    def _tensor(self, data: int, shape: Any, steps: Any, dtype: np.dtype[Any], device: tuple[int, int]) -> None:
        n = len(shape)
        sides, strides = (ctypes.c_int64 * n)(*shape), (ctypes.c_int64 * n)(*steps)
        code = {"u": 1, "f": 2, "i": 0, "b": 6}.get(dtype.kind, 3)
        tensor = _c.DLTensor(
            data=data,
            device_type=device[0],
            device_id=device[1],
            ndim=n,
            code=code,
            bits=dtype.itemsize * 8,
            lanes=1,
            shape=ctypes.addressof(sides),
            strides=ctypes.addressof(strides),
        )
        _c.check(lib.um_dlpack_image(byref(tensor), byref(self.image)))

    def _from_numpy(self, array: np.ndarray[Any, Any]) -> None:
        if not _rows(array):
            array = np.ascontiguousarray(array)
        self._kept = array
        steps = [step // array.itemsize for step in array.strides]
        self._tensor(array.ctypes.data, array.shape, steps, array.dtype, (1, 0))

    def _from_cuda(self, interface: dict[str, Any]) -> None:
        dtype, shape = np.dtype(interface["typestr"]), interface["shape"]
        strides = interface.get("strides")
        steps = np.cumprod([1, *shape[:0:-1]])[::-1] if strides is None else [s // dtype.itemsize for s in strides]
        data = interface["data"][0]
        self._tensor(data, shape, [int(s) for s in steps], dtype, (2, 0))  # the interface does not say which GPU
        self.image.stream = interface.get("stream")


def _rows(array: np.ndarray[Any, Any]) -> bool:
    """Whether only the step between rows is not that of a contiguous array."""
    inner = array[0] if array.ndim > 1 and array.shape[0] else array
    if array.ndim >= 3 and array.shape[-1] not in (1, 3):  # [C,H,W]
        return bool(array.flags.c_contiguous)
    return bool(inner.flags.c_contiguous) and (array.ndim < 2 or array.strides[0] != 0)


def _strided(tensor: Any) -> bool:
    contiguous = getattr(tensor, "is_contiguous", None)
    return bool(callable(contiguous) and not contiguous())


class Frame:
    """One picture with its time, pose and spacing: what a pipeline takes.

    `Frame(array)` is over the array's own memory (u8, `[H,W]` or `[H,W,3]`) without a copy; the array may not
    change until the frame is gone. Other types, and read-only arrays of an old numpy, are copied."""

    __slots__ = ("_handle", "_c", "__weakref__")

    def __init__(
        self,
        picture: Any,
        *,
        ts: float | None = None,
        spacing_mm: tuple[float, float] | None = None,
        pose: Any = None,
        source: str | None = None,
    ) -> None:
        pointer = _frame_over(picture)
        self._take(pointer)
        if ts is not None:
            self._c.ts, self._c.has_ts = ts, 1
        if spacing_mm is not None:
            self._c.spacing_mm[:] = [float(s) for s in spacing_mm]
            self._c.has_spacing = 1
        if pose is not None:
            self._c.pose[:] = [float(v) for v in np.asarray(pose, np.float64).reshape(16)]
            self._c.has_pose = 1
        if source is not None:
            _c.check(lib.um_frame_set_source(pointer, source.encode()))

    def _take(self, pointer: c_void_p) -> None:
        self._handle = _c.Handle("frame", pointer, lib.um_frame_unref)
        self._c = _c.Frame.from_address(pointer.value or 0)

    @classmethod
    def _of(cls, pointer: c_void_p) -> Frame:
        frame = cls.__new__(cls)
        frame._take(pointer)
        return frame

    @classmethod
    def read(cls, path: Any) -> Frame:
        """Read a PNG or JPEG."""
        pointer = c_void_p()
        _c.check(lib.um_image_read(_c.path_bytes(path), byref(pointer)))
        return cls._of(pointer)

    @property
    def width(self) -> int:
        return int(self._c.width)

    @property
    def height(self) -> int:
        return int(self._c.height)

    @property
    def channels(self) -> int:
        return int(self._c.channels)

    @property
    def ts(self) -> float:
        """Seconds since 1970; 0 where it is not known yet."""
        return float(self._c.ts)

    @property
    def source(self) -> str:
        return _c.text(self._c.source)

    @property
    def spacing_mm(self) -> tuple[float, float] | None:
        return (self._c.spacing_mm[0], self._c.spacing_mm[1]) if self._c.has_spacing else None

    @property
    def pose(self) -> np.ndarray[Any, Any] | None:
        return np.array(self._c.pose).reshape(4, 4) if self._c.has_pose else None

    @property
    def __array_interface__(self) -> dict[str, Any]:
        shape = (self.height, self.width) if self.channels == 1 else (self.height, self.width, 3)
        return {
            "version": 3,
            "shape": shape,
            "strides": (int(self._c.stride), self.channels, 1)[: len(shape)],
            "typestr": "|u1",
            "data": (self._c.pixels, False),
        }

    def numpy(self) -> np.ndarray[Any, Any]:
        """The pixels, without a copy."""
        return np.asarray(self)

    def __repr__(self) -> str:
        return f"ultramotion.Frame({self.width}x{self.height}x{self.channels}, {self.source!r})"


def _frame_over(picture: Any) -> c_void_p:
    pointer = c_void_p()
    if isinstance(picture, Tensor):
        picture = picture.numpy()
    picture = _plain(picture)
    if hasattr(picture, "__dlpack_device__") and tuple(picture.__dlpack_device__())[0] == 2:
        raise _c.InvalidError(f"a frame is in host memory, the tensor on device {getattr(picture, 'device', 'cuda')}")
    try:
        capsule = _capsule(picture, None)
    except (BufferError, AttributeError):  # read-only, or a type that DLPack has not
        return _frame_copied(np.asarray(picture))
    tensor, managed, name = _open(capsule)
    kind = _c.DLManagedVersioned if name is _VERSIONED else _c.DLManaged
    deleter = kind.from_address(managed).deleter
    status = lib.um_dlpack_frame(byref(pointer), tensor, deleter, managed)
    if status == _c.InvalidError.status:  # not u8, or not with channels last
        return _frame_copied(np.asarray(picture))
    _c.check(status)
    _set_name(capsule, _USED_VERSIONED if name is _VERSIONED else _USED)
    return pointer


def _frame_copied(array: np.ndarray[Any, Any]) -> c_void_p:
    """A frame of its own memory, for pictures that are not u8 with channels last: floats are 0 to 1, clipped,
    times 255, truncated, as everywhere."""
    array = _array(array)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[2] not in (1, 3) and array.shape[0] in (1, 3):
        array = np.moveaxis(array, 0, 2)
    if array.dtype == np.float32:
        scaled = np.clip(np.nan_to_num(array, nan=0.0), 0, 1) * np.float32(255)
        array = scaled.astype(np.uint8)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        raise _c.InvalidError(
            f"picture of shape {list(array.shape)}: want [H,W], [H,W,C], [C,H,W] or [1,C,H,W] with C = 1 or 3"
        )
    if array.dtype != np.uint8:
        raise _c.InvalidError(f"picture of type {array.dtype}: want u8 (0 to 255) or f32 (0 to 1)")
    channels = array.shape[2] if array.ndim == 3 else 1
    pointer = c_void_p()
    _c.check(lib.um_frame_create(byref(pointer), array.shape[1], array.shape[0], channels))
    size = array.shape[0] * array.shape[1] * channels
    buffer = (ctypes.c_uint8 * size).from_address(_c.Frame.from_address(pointer.value or 0).pixels)
    np.frombuffer(buffer, np.uint8)[:] = np.ascontiguousarray(array).reshape(-1)
    return pointer
