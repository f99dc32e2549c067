# SPDX-License-Identifier: Apache-2.0
"""Results where they are: a tensor in the library's memory that others take without a copy."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_void_p
from typing import Any, Iterator

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from . import _c
from ._c import lib

_TYPES = {0: ("bool", np.dtype(np.bool_)), 1: ("float32", np.dtype(np.float32)), 2: ("float16", np.dtype(np.float16))}
_BF16 = 3
_capsule_new = ctypes.pythonapi.PyCapsule_New
_capsule_new.restype = ctypes.py_object
_capsule_new.argtypes = [c_void_p, ctypes.c_char_p, c_void_p]
_DROP = ctypes.cast(lib.um_capsule_drop, c_void_p)
_PLAIN, _VERSIONED = b"dltensor", b"dltensor_versioned"  # kept: capsules point at their names


class ExportError(_c.UnsupportedError, BufferError):
    """A tensor cannot be handed out the way it was asked for."""


class Tensor(_c.Reference, NDArrayOperatorsMixin):
    """Numbers that the library made: masks, scores, logits, an embedding.

    It stays on its device until somebody wants it elsewhere. `torch.from_dlpack(t)`, `cupy.from_dlpack(t)`,
    `np.from_dlpack(t)` take it as it is; `t.numpy()` copies from a GPU. In host memory `np.asarray(t)` is a view,
    and everything that an array can do (indexing, arithmetic, `sum`, `reshape`, …) works on the tensor too.

    It outlives the predictor, the model and the device that made it."""

    _unref = lib.um_values_unref
    __slots__ = ("_shape", "_strides", "_data", "_type", "_device", "_stream", "_kept")

    def __init__(self, pointer: int | None, kept: Any = None) -> None:
        """Take over a reference to a um_values. `kept` stays alive as long as the tensor."""
        values = c_void_p(pointer)
        self._take(values)
        self._kept = kept
        described = _c.DeviceArray()
        _c.check(lib.um_values_describe(values, byref(described)))
        rank = described.rank
        self._shape: tuple[int, ...] = tuple(described.shape[:rank])
        self._strides: tuple[int, ...] = tuple(described.strides[:rank])
        self._data: int = described.data or 0
        self._type: int = described.type
        self._device = _c.text(described.device)
        self._stream: int | None = described.stream

    # ---- what it is ----

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def ndim(self) -> int:
        return len(self._shape)

    def dim(self) -> int:
        return len(self._shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """numpy's type; of bfloat16, which numpy has not, the float32 that `numpy()` gives."""
        return np.dtype(np.float32) if self._type == _BF16 else _TYPES[self._type][1]

    @property
    def device(self) -> str:
        """`"cpu"`, `"guard"` or `"cuda:N"`."""
        return self._device

    @property
    def is_cuda(self) -> bool:
        return self._device.startswith("cuda")

    @property
    def read_only(self) -> bool:
        """Others use the same memory, so it must not be written to."""
        return bool(lib.um_values_read_only(self._use()))

    def data_ptr(self) -> int:
        """Address on its device."""
        return self._data

    def __len__(self) -> int:
        return self._shape[0]

    def __repr__(self) -> str:
        name = "bfloat16" if self._type == _BF16 else str(self.dtype)
        return f"ultramotion.Tensor({list(self._shape)}, {name}, {self._device})"

    # ---- on the host ----

    @property
    def _on_host(self) -> bool:
        return self._device == "cpu" and self._type != _BF16

    @property
    def __array_interface__(self) -> dict[str, Any]:
        if not self._on_host:
            raise AttributeError("__array_interface__: not in host memory")
        return {
            "version": 3,
            "shape": self._shape,
            "strides": tuple(step * self.dtype.itemsize for step in self._strides),
            "typestr": self.dtype.str,
            "data": (self._data, self.read_only),
        }

    def numpy(self) -> np.ndarray[Any, Any]:
        """The numbers as an array: a view in host memory, a copy from elsewhere (one download, booked)."""
        if self._on_host:
            return view(self.__array_interface__, self)
        size = 2 if self._type == _BF16 else self.dtype.itemsize
        raw = np.empty(self._shape, f"V{size}" if self._type == _BF16 else self.dtype)
        _c.check(lib.um_values_read(self._use(), raw.ctypes.data))
        if self._type != _BF16:
            return raw
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if copy is False and not self._on_host:
            raise ValueError(f"a tensor on {self._device} is not an array without a copy")
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(f"{array.dtype} is not {dtype} without a copy")
            return array.astype(dtype)
        return array.copy() if copy and self._on_host else array

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **kwargs: Any) -> Any:
        if out:
            kwargs["out"] = tuple(_host(x) if isinstance(x, Tensor) else x for x in out)
        if isinstance(kwargs.get("where"), Tensor):
            kwargs["where"] = _host(kwargs["where"])
        made = getattr(ufunc, method)(*(_host(x) if isinstance(x, Tensor) else x for x in inputs), **kwargs)
        return out[0] if len(out) == 1 else made

    def __getitem__(self, key: Any) -> Any:
        return _host(self)[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        _host(self)[key] = value

    def __contains__(self, value: Any) -> bool:
        return value in _host(self)

    def __iter__(self) -> Iterator[Any]:
        return iter(_host(self))

    def __bool__(self) -> bool:
        return bool(_host(self))

    def __float__(self) -> float:
        return float(_host(self))

    def __int__(self) -> int:
        return int(_host(self))

    def __copy__(self) -> np.ndarray[Any, Any]:
        return self.numpy().copy()

    def __deepcopy__(self, _: Any) -> np.ndarray[Any, Any]:
        return self.numpy().copy()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            array = _host(self)
        except TypeError as problem:  # who asks with hasattr() wants to know, not to fail
            raise AttributeError(str(problem)) from None
        try:
            return getattr(array, name)
        except AttributeError:
            raise AttributeError(f"an ultramotion.Tensor has no {name!r}: torch.from_dlpack(tensor) has what PyTorch's have") from None

    # ---- the names that PyTorch has for it ----

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor | np.ndarray[Any, Any]:
        """Itself in host memory, else a copy there."""
        return self if self._on_host else self.numpy()

    # ---- DLPack and CUDA's array interface ----

    def __dlpack_device__(self) -> tuple[int, int]:
        if self.is_cuda:
            return (2, int(self._device.partition(":")[2]))
        if self._device == "cpu":
            return (1, 0)
        raise ExportError(f"DLPack: memory of device {self._device} is not to be touched by others")

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        here = self.__dlpack_device__()
        if dl_device is not None and tuple(dl_device) != here:
            if tuple(dl_device) != (1, 0) or copy is False:
                raise ExportError(f"DLPack: a tensor on {self._device} is not on device {dl_device} without a copy")
            return self.numpy().__dlpack__()
        if copy:
            if here != (1, 0):
                raise ExportError(f"DLPack: no copies on {self._device}")
            return self.numpy().copy().__dlpack__()
        if here == (1, 0) and stream not in (None, -1):
            raise ExportError(f"DLPack: stream {stream} for a tensor in host memory, which has none")
        versioned = max_version is not None and max_version[0] >= 1
        managed = c_void_p()
        values = self._use()
        if here != (1, 0) and stream != -1:
            if stream == 0:
                raise ExportError("DLPack: stream 0 is ambiguous: want 1 (legacy) or 2 (per thread)")
            _c.check(lib.um_values_wait(values, 1 if stream is None else stream))
        export = lib.um_dlpack_export_versioned if versioned else lib.um_dlpack_export
        status = export(values, byref(managed))
        if status == _c.UnsupportedError.status:
            raise ExportError(str(_c.error(status)))
        _c.check(status)
        return _capsule_new(managed, _VERSIONED if versioned else _PLAIN, _DROP)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if not self.is_cuda or self._type == _BF16:
            raise AttributeError("__cuda_array_interface__: not on a GPU, or of a type that it has not")
        return {
            "version": 3,
            "shape": self._shape,
            "strides": tuple(step * self.dtype.itemsize for step in self._strides),
            "typestr": self.dtype.str,
            "data": (self._data, self.read_only),
            "stream": self._stream or 1,
        }


class _View:
    """What numpy keeps alive for a view."""

    __slots__ = ("__array_interface__", "_owner")

    def __init__(self, interface: dict[str, Any], owner: object) -> None:
        self.__array_interface__ = interface
        self._owner = owner


def view(interface: dict[str, Any], owner: object) -> np.ndarray[Any, Any]:
    """An array over memory that lives as long as `owner`, who lives as long as the array."""
    return np.asarray(_View(interface, owner))


def _host(tensor: Tensor) -> np.ndarray[Any, Any]:
    if tensor._device != "cpu":
        raise TypeError(
            f"a tensor on {tensor._device} is not used as an array by accident: "
            "take it with torch.from_dlpack() or cupy.from_dlpack(), or copy it with numpy()"
        )
    return tensor.numpy()
