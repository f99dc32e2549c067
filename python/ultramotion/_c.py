# SPDX-License-Identifier: Apache-2.0
"""The C library: where it is, its structs and functions, its errors, and who still uses what.

Nothing is computed here. The structs repeat include/ultramotion; at import every field is held
against what the library itself says (um_abi_layout())."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import operator
import os
import sys
import threading
import weakref
from ctypes import POINTER, byref, c_bool, c_char, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_long
from ctypes import c_size_t, c_ssize_t, c_uint32, c_uint64, c_void_p
from operator import attrgetter
from typing import IO, TYPE_CHECKING, Any, Callable, Generic, Iterator, TypeVar, Union, overload

ABI = 18  # um_abi() that this file was written for
Path = Union[str, os.PathLike[str]]
FOLDER = os.path.dirname(os.path.realpath(__file__))


# ---- errors ----


class Error(Exception):
    """What the library refused or could not do. `status` is C's number, `name` its name, the text C's."""

    status: int = 0
    name: str = "UM_OK"


class InvalidError(Error, ValueError):
    """The caller passed something that means nothing (UM_EINVAL)."""

    status, name = -1, "UM_EINVAL"


class ClosedError(InvalidError):
    """Something was used after it was closed."""


class OutOfMemoryError(Error, MemoryError):
    """Host or device memory ran out (UM_ENOMEM)."""

    status, name = -2, "UM_ENOMEM"


class FileError(Error, OSError):
    """A file or stream could not be read or written (UM_EIO)."""

    status, name = -3, "UM_EIO"


class FormatError(Error, ValueError):
    """A file's content is not what it must be (UM_EFORMAT)."""

    status, name = -4, "UM_EFORMAT"


class DeviceError(Error, RuntimeError):
    """The device failed; only closing is useful now (UM_EDEVICE)."""

    status, name = -5, "UM_EDEVICE"


class UnsupportedError(Error, NotImplementedError):
    """Valid, but not in this build (UM_EUNSUPPORTED)."""

    status, name = -6, "UM_EUNSUPPORTED"


class TransferError(Error, AssertionError):
    """An asserted number of transfers was exceeded (UM_EASSERT)."""

    status, name = -7, "UM_EASSERT"


class NumericError(Error, ArithmeticError):
    """A network's result is not finite (UM_ENUMERIC)."""

    status, name = -8, "UM_ENUMERIC"


OK, AGAIN, EOF = 0, 1, 2
SOURCE_SIZE, SOURCE_RECURSIVE, SOURCE_WINDOW, SOURCE_LIVE = 1, 2, 4, 8
_ERRORS: dict[int, type[Error]] = {
    kind.status: kind
    for kind in (
        InvalidError,
        OutOfMemoryError,
        FileError,
        FormatError,
        DeviceError,
        UnsupportedError,
        TransferError,
        NumericError,
    )
}


def error(status: int) -> Error:
    """The exception for a status, with the text of this thread's last error."""
    text = lib.um_last_error().decode("utf-8", "replace")
    return _ERRORS.get(status, Error)(text or f"status {status}")


def check(status: int) -> int:
    """Raise for an error, and what a function raised that was called meanwhile; news (UM_AGAIN, UM_EOF) is returned."""
    raise_kept()
    if status < 0:
        raise error(status)
    return status


@contextlib.contextmanager
def of_file(name: str) -> Iterator[None]:
    """What Python cannot read or write is told as the library tells it."""
    try:
        yield
    except OSError as problem:
        raise FileError(f"{name}: {problem.strerror or problem}") from problem


def scratch(mode: str, encoding: str | None = None) -> IO[Any]:
    """A file in memory: there is not always a folder that may be written to."""
    return os.fdopen(os.memfd_create("ultramotion"), mode, encoding=encoding)


@contextlib.contextmanager
def wants(package: str, what: str) -> Iterator[None]:
    """An import of what is installed only by who needs it."""
    try:
        yield
    except ImportError as problem:
        raise UnsupportedError(f"{what} wants {package}: pip install '{package}' ({problem})") from problem


# ---- structs ----


class Record(ctypes.Structure):
    """A struct that starts with its size."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.struct_size = ctypes.sizeof(self)

    def __setattr__(self, name: str, value: Any) -> None:
        """ctypes would cut an integer to its field, and does not take numpy's booleans."""
        try:
            if isinstance(value, str):
                raise TypeError  # as a bool "no" would be true
            super().__setattr__(name, value)
        except TypeError:
            from numpy import bool_  # only here: a sub-interpreter is refused before numpy is imported

            if isinstance(value, bool_):
                setattr(self, name, bool(value))
                return
            want = "a whole number" if isinstance(value, float) else "a number"
            raise InvalidError(f"{name} {value!r}: want {want}") from None
        with contextlib.suppress(TypeError):  # no whole number, of which numpy has some
            if getattr(self, name) != operator.index(value):
                raise InvalidError(f"{name} {value}: out of range")


class Settings(Record):
    """What something is opened with: the library's defaults, and what is given; None is not given."""

    def __init__(self, **given: Any) -> None:
        super().__init__()
        noun = type(self).__name__.removesuffix("Settings").lower()
        getattr(lib, f"um_{noun}_settings_init")(byref(self), ctypes.sizeof(self))
        for name, value in given.items():
            if value is not None:
                setattr(self, name, value)


class DeviceArray(Record):
    _fields_ = [
        ("struct_size", c_size_t),
        ("data", c_void_p),
        ("device", c_char_p),
        ("type", c_int),
        ("rank", c_int),
        ("shape", c_int64 * 4),
        ("strides", c_int64 * 4),
        ("stream", c_void_p),
    ]


LOG = ctypes.CFUNCTYPE(None, c_void_p, c_char_p)  # also of KPI lines: `say`, with id(function) as the first


class DeviceSettings(Settings):
    _fields_ = [
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("threads", c_int),
        ("guard_seed", c_uint64),
        ("precision", c_char_p),
        ("log", LOG),
        ("log_ctx", c_void_p),
        ("weight_cache", c_char_p),
    ]


class Transfers(ctypes.Structure):
    _fields_ = [
        ("up", c_uint32),
        ("down", c_uint32),
        ("waits", c_uint32),
        ("setup", c_uint32),
        ("up_bytes", c_uint64),
        ("down_bytes", c_uint64),
        ("shared", c_int),
    ]


class Frame(Record):
    _fields_ = [
        ("struct_size", c_size_t),
        ("width", c_int),
        ("height", c_int),
        ("channels", c_int),
        ("stride", c_ssize_t),
        ("pixels", c_void_p),
        ("id", c_uint64),
        ("ts", c_double),
        ("has_pose", c_int),
        ("has_spacing", c_int),
        ("pose", c_double * 16),
        ("spacing_mm", c_double * 2),
        ("source", c_char_p),
        ("has_ts", c_int),
        ("received_ns", c_uint64),
    ]


class DetectorSettings(Settings):
    _fields_ = [
        ("struct_size", c_size_t),
        ("input_width", c_int),
        ("input_height", c_int),
        ("queries", c_int),
        ("activation", c_char_p),
        ("fit", c_char_p),
        ("names", c_char_p),
        ("gain", c_char_p),
        ("nms", c_float),
        ("presence", c_char_p),
        ("gray", c_int),
        ("smooth", c_float),
    ]


class Box(ctypes.Structure):
    _fields_ = [
        ("x0", c_float),
        ("y0", c_float),
        ("x1", c_float),
        ("y1", c_float),
        ("score", c_float),
        ("label", c_int),
    ]


class Image(Record):
    _fields_ = [
        ("struct_size", c_size_t),
        ("data", c_void_p),
        ("type", c_int),
        ("layout", c_int),
        ("height", c_int),
        ("width", c_int),
        ("channels", c_int),
        ("device", c_char_p),
        ("row_bytes", c_ssize_t),
        ("stream", c_void_p),
    ]


class Prompts(Record):
    _fields_ = [
        ("struct_size", c_size_t),
        ("box", c_void_p),
        ("points", c_void_p),
        ("labels", c_void_p),
        ("n_points", c_int),
        ("mask_input", c_void_p),
        ("multimask", c_bool),
        ("want_logits", c_bool),
        ("as_numpy", c_int),
        ("want_values", c_bool),
    ]


class Prediction(Record):
    _fields_ = [
        ("struct_size", c_size_t),
        ("count", c_int),
        ("mask", c_void_p * 3),
        ("iou", c_float * 3),
        ("low_res", c_void_p),
        ("low_res_side", c_int),
        ("masks", c_void_p),
        ("scores", c_void_p),
        ("low", c_void_p),
    ]


class StageTimes(ctypes.Structure):
    _fields_ = [(name, c_double) for name in ("upload", "detect", "segment", "packet", "total")]


class Object(Record):
    _fields_ = [
        ("struct_size", c_size_t),
        ("label", c_int),
        ("name", c_char_p),
        ("score", c_float),
        ("has_box", c_int),
        ("box", c_float * 4),
        ("has_mask", c_int),
        ("bits", c_void_p),
        ("mask_area_px", c_uint32),
        ("edge_px", c_uint32),
        ("in_px", c_uint32),
        ("out_px", c_uint32),
        ("mask_box", c_int32 * 4),
        ("centroid", c_float * 2),
        ("iou", c_float),
        ("scores", c_float * 8),
        ("removed_px", c_uint32),
        ("filled_px", c_uint32),
    ]


class Packet(Record):
    _fields_ = [
        ("struct_size", c_size_t),
        ("frame_id", c_uint64),
        ("ts", c_double),
        ("state", c_int),
        ("label", c_int),
        ("score", c_float),
        ("has_box", c_int),
        ("box", c_float * 4),
        ("has_mask", c_int),
        ("width", c_int),
        ("height", c_int),
        ("crop", c_int * 4),
        ("bits", c_void_p),
        ("mask_area_px", c_uint32),
        ("edge_px", c_uint32),
        ("in_px", c_uint32),
        ("out_px", c_uint32),
        ("mask_box", c_int32 * 4),
        ("centroid", c_float * 2),
        ("iou", c_float),
        ("scores", c_float * 8),
        ("ms", StageTimes),
        ("transfers", Transfers),
        ("has_pose", c_int),
        ("has_spacing", c_int),
        ("pose", c_double * 16),
        ("spacing_mm", c_double * 2),
        ("device", c_char * 16),
        ("precision", c_char * 8),
        ("as_numpy", c_int),
        ("detector_sha256", c_char * 65),
        ("segmenter_sha256", c_char * 65),
        ("lost_device", c_char * 16),
        ("source", c_char_p),
        ("name", c_char_p),
        ("objects", c_int),
        ("tag", c_int),
        ("reason", c_int),
        ("detected", c_int),
        ("has_scores", c_int),
        ("has_deadline", c_int),
        ("missed", c_int),
        ("effort", c_int),
        ("latency_ms", c_double),
        ("has_cleaned", c_int),
        ("removed_px", c_uint32),
        ("filled_px", c_uint32),
        ("gain", c_float),
        ("reused", c_int),
        ("precision_reason", c_char * 16),
        ("detector", c_char * 32),
        ("segmenter", c_char * 32),
    ]


class PipelineSettings(Settings):
    _fields_ = [
        ("struct_size", c_size_t),
        ("detector", c_void_p),
        ("segmenter", c_void_p),
        ("conf", c_float),
        ("label", c_int),
        ("gate", c_int),
        ("sam_as_numpy", c_int),
        ("crop", c_int * 4),
        ("crop_auto", c_int),
        ("assert_up", c_int),
        ("assert_down", c_int),
        ("dump", c_int),
        ("inflight", c_int),
        ("kpi", LOG),
        ("kpi_ctx", c_void_p),
        ("lost_device", c_char_p),
        ("objects", c_int),
        ("per_class", c_int),
        ("track", c_int),
        ("theta_on", c_float),
        ("theta_off", c_float),
        ("theta_cont", c_float),
        ("detect_every", c_int),
        ("shadow_every", c_int),
        ("budget_ms", c_double),
        ("mask_clean", c_int),
        ("reuse", c_int),
    ]


class ShadowCounts(Record):
    _fields_ = [
        ("struct_size", c_size_t),
        ("compared", c_uint64),
        ("disagreed", c_uint64),
        ("failed", c_uint64),
        ("least_dice", c_float),
        ("fell_back", c_int),
        ("fell_at", c_uint64),
    ]


class SourceSettings(Settings):
    _fields_ = [
        ("struct_size", c_size_t),
        ("width", c_int),
        ("height", c_int),
        ("channels", c_int),
        ("frames", c_long),
        ("loop", c_int),
        ("capacity", c_int),
        ("replace", c_int),
        ("recursive", c_int),
        ("window", c_int),
        ("window_lo", c_int),
        ("window_hi", c_int),
        ("on_notice", LOG),
        ("ctx", c_void_p),
    ]


class SinkSettings(Settings):
    _fields_ = [
        ("struct_size", c_size_t),
        ("objects", c_int),
        ("policy", c_int),
        ("capacity", c_int),
        ("deadline_ms", c_int),
        ("auxiliary", c_int),
        ("log", LOG),
        ("log_ctx", c_void_p),
        ("monitor", c_void_p),
        ("source", c_void_p),
    ]


class RunSettings(Settings):
    _fields_ = [
        ("struct_size", c_size_t),
        ("pipeline", c_void_p),
        ("source", c_void_p),
        ("sinks", POINTER(c_void_p)),
        ("n_sinks", c_int),
        ("strict", c_int),
        ("realtime", c_int),
        ("receive", c_int),
        ("receive_policy", c_int),
        ("on_packet", c_void_p),
        ("on_problem", LOG),
        ("on_device_lost", c_void_p),
        ("ctx", c_void_p),
        ("monitor", c_void_p),
        ("max_age_ms", c_int),
        ("lag_alarm_ms", c_int),
        ("stall_ms", c_int),
    ]


class RunCounts(Record):
    _fields_ = [
        ("struct_size", c_size_t),
        ("frames", c_uint64),
        ("visible", c_uint64),
        ("lost", c_uint64),
        ("unreadable", c_uint64),
        ("not_finite", c_uint64),
        ("replaced", c_uint64),
        ("dropped", c_uint64),
        ("device_lost", c_int),
        ("sinks_failed", c_int),
        ("stopped", c_int),
        ("left_behind", c_int),
        ("relocalizing", c_uint64),
        ("too_old", c_uint64),
        ("stalled", c_int),
        ("left", c_uint64),
    ]


class Layout(ctypes.Structure):
    _fields_ = [("record", c_char_p), ("field", c_char_p), ("offset", c_long), ("size", c_size_t)]


# DLPack's own, not the library's.
class DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", c_void_p),
        ("strides", c_void_p),
        ("byte_offset", c_uint64),
    ]


STRUCTS: dict[str, type[ctypes.Structure]] = {
    "um_device_array": DeviceArray,
    "um_device_settings": DeviceSettings,
    "um_transfers": Transfers,
    "um_frame": Frame,
    "um_detector_settings": DetectorSettings,
    "um_box": Box,
    "um_image": Image,
    "um_prompts": Prompts,
    "um_prediction": Prediction,
    "um_stage_times": StageTimes,
    "um_object": Object,
    "um_packet": Packet,
    "um_pipeline_settings": PipelineSettings,
    "um_shadow_counts": ShadowCounts,
    "um_source_settings": SourceSettings,
    "um_sink_settings": SinkSettings,
    "um_run_settings": RunSettings,
    "um_run_counts": RunCounts,
    "um_layout": Layout,
}
CONSTANTS = {
    "UM_OK": OK,
    "UM_AGAIN": AGAIN,
    "UM_EOF": EOF,
    "UM_PYTHON_TYPES": 2,
    "UM_ARRAY_RANK": 4,
    "UM_ARRAY_BOOL": 0,
    "UM_ARRAY_F32": 1,
    "UM_ARRAY_F16": 2,
    "UM_ARRAY_BF16": 3,
    "UM_STATE_LOST": 0,
    "UM_STATE_VISIBLE": 1,
    "UM_STATE_RELOCALIZING": 2,
    "UM_TAG_FRESH": 0,
    "UM_TAG_PREDICTED": 1,
    "UM_TAG_STALE": 2,
    "UM_TAG_WITHHELD": 3,
    "UM_REASON_NONE": 0,
    "UM_REASON_NOT_FOUND": 1,
    "UM_REASON_LOW_SCORE": 2,
    "UM_REASON_UNCONFIRMED": 3,
    "UM_REASON_FROZEN": 4,
    "UM_REASON_NO_CONTACT": 5,
    "UM_REASON_NO_TIME": 6,
    "UM_EFFORT_FULL": 0,
    "UM_EFFORT_FOLLOW": 1,
    "UM_EFFORT_REPEAT": 2,
    "UM_SCORE_SHARPNESS": 0,
    "UM_SCORES": 8,
    "UM_GATE_AUTO": 0,
    "UM_GATE_SPECULATIVE": 1,
    "UM_GATE_SYNC": 2,
    "UM_MASK_AUTO": 0,
    "UM_MASK_DEVICE": 1,
    "UM_MASK_HOST": 2,
    "UM_IMAGE_U8": 0,
    "UM_IMAGE_F32": 1,
    "UM_IMAGE_HW": 0,
    "UM_IMAGE_HWC": 1,
    "UM_IMAGE_CHW": 2,
    "UM_WINDOW_NONE": 0,
    "UM_WINDOW_RANGE": 1,
    "UM_WINDOW_AUTO": 2,
    "UM_SOURCE_SIZE": SOURCE_SIZE,
    "UM_SOURCE_RECURSIVE": SOURCE_RECURSIVE,
    "UM_SOURCE_WINDOW": SOURCE_WINDOW,
    "UM_SOURCE_LIVE": SOURCE_LIVE,
    "UM_SINK_BLOCK": 0,
    "UM_SINK_DROP": 1,
    **{kind.name: kind.status for kind in _ERRORS.values()},
}


# ---- the library ----

P, S = c_void_p, c_char_p
PP = POINTER(c_void_p)
# name: (result, arguments); which int results are a status, the callers know.
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "um_version": (S, []),
    "um_abi": (c_int, []),
    "um_abi_layout": (POINTER(Layout), [POINTER(c_size_t)]),
    "um_last_error": (S, []),
    "um_free": (None, [P]),
    "um_device_settings_init": (None, [POINTER(DeviceSettings), c_size_t]),
    "um_device_open": (c_int, [PP, POINTER(DeviceSettings)]),
    "um_device_close": (None, [PP]),
    "um_device_name": (S, [P]),
    "um_device_precision": (S, [P]),
    "um_device_threads": (c_int, [P]),
    "um_device_precision_reason": (S, [P]),
    "um_device_isa": (S, [P]),
    "um_device_weight_cache": (None, [P, S, c_size_t]),
    "um_device_stream": (P, [P]),
    "um_device_transfers": (None, [P, POINTER(Transfers)]),
    "um_frame_from_image": (c_int, [PP, POINTER(Image)]),
    "um_frame_set_source": (c_int, [P, S]),
    "um_frame_gray": (c_int, [P, PP]),
    "um_frame_ref": (P, [P]),
    "um_frame_unref": (None, [PP]),
    "um_detector_settings_init": (None, [POINTER(DetectorSettings), c_size_t]),
    "um_detector_open": (c_int, [PP, P, S, POINTER(DetectorSettings)]),
    "um_detector_open_memory": (c_int, [PP, P, P, c_size_t, S, POINTER(DetectorSettings)]),
    "um_detector_close": (None, [PP]),
    "um_detector_classes": (c_int, [P]),
    "um_detector_class_name": (S, [P, c_int]),
    "um_detector_input_size": (c_int, [P]),
    "um_detector_queries": (c_int, [P]),
    "um_detector_warning": (S, [P]),
    "um_detector_architecture": (S, [P]),
    "um_detector_sha256": (S, [P]),
    "um_detector_run": (c_int, [P, P, c_float, POINTER(Box), c_int, POINTER(c_int)]),
    "um_segmenter_open": (c_int, [PP, P, S, c_int, S]),
    "um_segmenter_open_memory": (c_int, [PP, P, P, c_size_t, S, c_int, S]),
    "um_segmenter_close": (None, [PP]),
    "um_segmenter_canvas": (c_int, [P]),
    "um_segmenter_canvas_step": (c_int, [P]),
    "um_segmenter_architecture": (S, [P]),
    "um_segmenter_sha256": (S, [P]),
    "um_segmenter_set_mask_mode": (None, [P, c_int]),
    "um_segmenter_mask_mode": (c_int, [P, c_int, POINTER(c_int)]),
    "um_segmenter_set_kpi": (None, [P, LOG, P]),
    "um_segmenter_encode": (c_int, [P, POINTER(Image), PP]),
    "um_segmenter_predict": (c_int, [P, P, POINTER(Prompts), POINTER(Prediction)]),
    "um_run_segmentation": (c_int, [P, POINTER(Image), P, c_int, PP]),
    "um_run_segmentation_legacy": (c_int, [P, POINTER(Image), c_int, PP]),
    "um_mask_from_host": (c_int, [PP, P, P, c_int, c_int]),
    "um_embedding_unref": (None, [PP]),
    "um_embedding_image_size": (None, [P, POINTER(c_int), POINTER(c_int)]),
    "um_embedding_resized": (c_int, [PP, P, c_int, c_int]),
    "um_embedding_values": (P, [P]),
    "um_embedding_save": (c_int, [P, S]),
    "um_embedding_load": (c_int, [PP, P, S]),
    "um_values_unref": (None, [PP]),
    "um_values_describe": (c_int, [P, POINTER(DeviceArray)]),
    "um_values_read_only": (c_int, [P]),
    "um_values_read": (c_int, [P, P]),
    "um_values_wait": (c_int, [P, P]),
    "um_dlpack_export": (c_int, [P, PP]),
    "um_dlpack_export_versioned": (c_int, [P, PP]),
    "um_dlpack_image": (c_int, [P, POINTER(Image)]),
    "um_capsule_bind": (None, [P, P, P]),
    "um_image_read": (c_int, [S, PP]),
    "um_image_write_png": (c_int, [S, P, c_int, c_int, c_int]),
    "um_overlay": (c_int, [P, P, PP]),
    "um_packet_object": (POINTER(Object), [P, c_int]),
    "um_packet_row_bytes": (c_int, [P]),
    "um_packet_object_mask": (None, [P, c_int, P, ctypes.c_uint8]),
    "um_packet_label_map": (None, [P, P]),
    "um_packet_object_rle": (c_int, [P, c_int, PP]),
    "um_packet_json": (c_int, [P, PP]),
    "um_state_name": (S, [c_int]),
    "um_tag_name": (S, [c_int]),
    "um_reason_name": (S, [c_int]),
    "um_effort_name": (S, [c_int]),
    "um_pipeline_settings_init": (None, [POINTER(PipelineSettings), c_size_t]),
    "um_pipeline_open": (c_int, [PP, POINTER(PipelineSettings)]),
    "um_pipeline_close": (None, [PP]),
    "um_pipeline_prepare": (c_int, [P, c_int, c_int, c_int]),
    "um_pipeline_change": (c_int, [P, POINTER(c_float), POINTER(c_int), POINTER(c_int)]),
    "um_pipeline_forget": (c_int, [P]),
    "um_natural_order": (c_int, [S, S]),
    "um_pipeline_shadow": (c_int, [P, POINTER(ShadowCounts)]),
    "um_pipeline_device_bytes": (c_uint64, [P]),
    "um_source_settings_init": (None, [POINTER(SourceSettings), c_size_t]),
    "um_source_open": (c_int, [PP, S, POINTER(SourceSettings)]),
    "um_source_uses": (c_int, [S]),
    "um_source_close": (None, [PP]),
    "um_source_cancel": (None, [P]),
    "um_source_length": (c_long, [P]),
    "um_source_push": (c_int, [P, PP]),
    "um_source_finish": (c_int, [P]),
    "um_monitor_open": (c_int, [PP]),
    "um_monitor_close": (None, [PP]),
    "um_sink_settings_init": (None, [POINTER(SinkSettings), c_size_t]),
    "um_sink_open": (c_int, [PP, S, POINTER(SinkSettings)]),
    "um_sink_close": (c_int, [PP]),
    "um_run_settings_init": (None, [POINTER(RunSettings), c_size_t]),
    "um_run_open": (c_int, [PP, POINTER(RunSettings)]),
    "um_run_start": (c_int, [P]),
    "um_run_stop": (None, [P]),
    "um_run_join": (c_int, [P]),
    "um_run_stats": (c_int, [P, POINTER(RunCounts)]),
    "um_run_receive": (c_int, [P, c_int, P, PP]),
    "um_run_fd": (c_int, [P]),
    "um_run_close": (None, [PP]),
}


def carried(name: str) -> str:
    """A file of the package; of an editable installation the built ones are in another folder than the sources."""
    paths = [os.path.join(folder, name) for folder in sys.modules[__package__].__path__]
    return next(filter(os.path.exists, paths), os.path.join(FOLDER, name))


def _find() -> str:
    named = os.environ.get("ULTRAMOTION_LIBRARY")
    path = os.path.abspath(named) if named else carried("libultramotion.so")  # the loader would look for a bare name elsewhere
    if not os.path.exists(path):
        raise ImportError(
            f"ultramotion: no library at {path}"
            + ("" if named else "; install the package, or name one in ULTRAMOTION_LIBRARY")
        )
    return path


def _misfits(found: ctypes.CDLL) -> list[str]:
    """Where the structs and constants of this file are not those of the library."""
    count = c_size_t()
    rows = found.um_abi_layout(byref(count))
    told = {}
    for i in range(count.value):
        row = rows[i]
        told[row.record, row.field] = (row.offset, row.size)
    wrong = []
    for name, kind in STRUCTS.items():
        record = name.encode()
        size = told.get((record, b""), (0, -1))[1]
        if size != ctypes.sizeof(kind):
            wrong.append(f"{name} has {size} bytes, want {ctypes.sizeof(kind)}")
        for field in kind._fields_:
            member = getattr(kind, field[0])
            if told.get((record, field[0].encode())) != (member.offset, member.size):
                wrong.append(f"{name}.{field[0]} is not at byte {member.offset} with {member.size} bytes")
    for name, value in CONSTANTS.items():
        if told.get((b"", name.encode()), (None,))[0] != value:
            wrong.append(f"{name} is not {value}")
    return wrong


def _in_main_interpreter() -> bool:
    python = ctypes.pythonapi
    python.PyInterpreterState_Get.restype = c_void_p
    return bool(python.PyInterpreterState_GetID(c_void_p(python.PyInterpreterState_Get())) == 0)


def _load() -> ctypes.CDLL:
    if not _in_main_interpreter():  # where C calls Python it would wait for the lock of the main one for ever
        raise ImportError("ultramotion: works in the main interpreter only, this is a sub-interpreter (mod_wsgi: WSGIApplicationGroup %{GLOBAL})")
    path = _find()
    try:
        found = ctypes.CDLL(path)
        found.um_version.restype = c_char_p
        version, abi = found.um_version().decode(), found.um_abi()
    except (OSError, AttributeError) as problem:
        raise ImportError(f"ultramotion: {path} is not a library of ultramotion: {problem}") from problem
    if abi != ABI:
        raise ImportError(
            f"ultramotion: {path} is version {version} with binary interface {abi}; this package wants interface {ABI}"
        )
    try:
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(found, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as problem:
        raise ImportError(f"ultramotion: {path}, version {version}: {problem}") from problem
    wrong = _misfits(found)
    if wrong:
        raise ImportError(f"ultramotion: {path}, version {version}: {'; '.join(wrong[:5])}")
    return found


lib = _load()
VERSION = lib.um_version().decode()

lib.um_capsule_bind(
    *(ctypes.cast(getattr(ctypes.pythonapi, f"PyCapsule_{name}"), c_void_p) for name in ("IsValid", "GetPointer", "SetName"))
)
_held = ctypes.PyDLL(lib._name, handle=lib._handle)  # its functions are called by who holds Python's lock
capsule_image, capsule_frame = _held.um_capsule_image, _held.um_capsule_frame
raise_kept, say = _held.um_python_raise, ctypes.cast(lib.um_python_say, LOG)
raise_kept.restype = None
capsule_image.restype, capsule_image.argtypes = c_int, [ctypes.py_object, POINTER(Image)]
capsule_frame.restype, capsule_frame.argtypes = c_int, [PP, ctypes.py_object]


if TYPE_CHECKING:
    class PacketBase:
        """A reference to a C packet, and the image that it was made of."""

        frame_id: int
        ts: float
        """Seconds since 1970."""
        label: int
        score: float
        """The best of the detector, also when LOST."""
        width: int
        height: int
        _address: int
        _struct: Packet
        _foreign: bool
        """It is of the process that this one was forked from."""
        _image: Any

        @classmethod
        def _of(cls: type[T], address: int | None, image: Any) -> T: ...

    class PipelineBase:
        """Whose turn it is in a C pipeline, and who is in it. Asks for `_frame(image)`, has `_refuse(status)` raise, and says `_left()`
        when the last one has left it after `_end()`."""

        def __call__(self, image: Any) -> Any: ...
        def _begin(self, address: int | None, packet: type) -> bool: ...
        def _end(self) -> bool: ...
        def _take(self) -> bool: ...
        def _give_back(self) -> bool: ...

else:

    def _types():
        make, made = _held.um_python_types, (ctypes.py_object * CONSTANTS["UM_PYTHON_TYPES"])()
        make.restype, make.argtypes = c_int, [ctypes.py_object, type(made)]
        if make(Packet.from_address, made) != OK:
            raise ImportError(f"ultramotion: {lib.um_last_error().decode()}")
        return tuple(made)

    PacketBase, PipelineBase = _types()


def text(value: bytes | None) -> str:
    return value.decode("utf-8", "replace") if value else ""


def encoded(value: Any, what: str) -> bytes:
    """A text as C takes it; one with a NUL inside would be cut short."""
    if not isinstance(value, str):
        raise InvalidError(f"{what} {value!r}: want a text")
    if "\0" in value:
        raise InvalidError(f"{what} {value!r} has a NUL inside")
    return value.encode("utf-8", "surrogateescape")


def number(value: Any, what: str) -> float:
    """A number; NaN is none."""
    try:
        given = float("nan") if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        given = float("nan")
    if given != given:
        raise InvalidError(f"{what} {value!r}: want a number")
    return given


def integer(value: Any, what: str) -> int:
    """A whole number that C's int holds."""
    try:
        whole = operator.index(value)
    except TypeError:
        raise InvalidError(f"{what} {value!r}: want a whole number") from None
    if not -(2**31) <= whole < 2**31:
        raise InvalidError(f"{what} {value}: out of range")
    return whole


def integers(values: Any, count: int, what: str) -> list[int]:
    """So many of them."""
    try:
        whole = [] if isinstance(values, (str, bytes)) else [integer(value, what) for value in values]
    except TypeError:
        whole = []
    if len(whole) != count:
        raise InvalidError(f"{what} {values!r}: want {count} whole numbers")
    return whole


def path_bytes(path: Any) -> bytes:
    """A path as C takes it; one with a NUL inside would be cut short."""
    try:
        raw = os.fsencode(path)
    except TypeError:
        raise InvalidError(f"path {path!r}: want a str or an os.PathLike") from None
    if b"\0" in raw:
        raise InvalidError(f"path {path!r} has a NUL inside")
    return raw


def path_text(path: Any) -> str:
    """A path as Python's own functions take it, held against the same rules."""
    return os.fsdecode(path_bytes(path))


# ---- who still uses what ----

_forks = 0  # how many forks this process comes after
_owned: weakref.WeakSet[Any] = weakref.WeakSet()  # what close_at_exit() closes
_ending = False  # it was closed: only daemon threads go on


def _forked() -> None:
    global _forks
    _forks += 1
    _owned.clear()  # those are the parent's to close


os.register_at_fork(after_in_child=_forked)


def of_another_process(what: str) -> DeviceError:
    return DeviceError(f"{what} was opened before fork(): its threads are not in this process, open it here")


class Reference:
    """What holds one of the references to a C object that counts them, and gives it back when nobody has this any more."""

    __slots__ = ("_pointer", "_forks", "__weakref__")
    _unref: Any  # the function that gives it back

    def _take(self, pointer: c_void_p) -> None:
        self._pointer = pointer
        self._forks = _forks

    def _use(self) -> c_void_p:
        """The C object, which is there for as long as this is."""
        if self._forks != _forks:
            raise of_another_process(f"this {type(self).__name__.lower()}")
        return self._pointer

    def __copy__(self) -> Any:
        return self  # nobody changes it

    def __reduce__(self) -> Any:
        raise TypeError(f"a {type(self).__name__} cannot be pickled: it is memory of this process")

    def __del__(self) -> None:
        if getattr(self, "_forks", None) == _forks:  # else the parent's threads are not here: closing would wait for them
            self._unref(byref(self._pointer))


class Handle:
    """A C object that closes when nobody uses it any more: its owner closed it or lost it, and no call is
    inside (whatever thread). What was opened on it has references of its own, in C.

    `with handle as pointer:` is a use."""

    __slots__ = ("_pointer", "_close", "_lock", "_uses", "_forks", "closed", "what")

    def __init__(self, what: str, pointer: c_void_p, close: Callable[[Any], Any]) -> None:
        self.what = what
        self._pointer = pointer
        self._close = close
        self._lock = threading.RLock()  # a collection may close it while its lock is held
        self._uses = 0
        self.closed = False
        self._forks = _forks

    def __enter__(self) -> c_void_p:
        if self._forks != _forks:
            raise of_another_process(self.what)
        with self._lock:
            closed = self.closed
            self._uses += not closed
        if closed:
            if _ending and threading.current_thread().daemon:
                threading.Event().wait()  # for the end: a traceback now could meet an interpreter that is half gone, which aborts
            raise ClosedError(f"{self.what} is closed")
        return self._pointer

    def __exit__(self, *_: object) -> None:
        if self._forks != _forks:  # the lock may be held by a thread that is not here
            return
        with self._lock:
            self._uses -= 1
            last = self.closed and self._uses == 0
        if last:
            self._free()

    def close(self) -> None:
        """Refuse further use, and close as soon as nobody is left who uses it."""
        if self._forks != _forks:
            self.closed = True
            return
        with self._lock:
            if self.closed:
                return
            self.closed = True
            last = self._uses == 0
        if last:
            self._free()

    def _free(self) -> None:
        if self._forks == _forks:
            self._close(byref(self._pointer))

    def __del__(self) -> None:
        if not getattr(self, "closed", True):
            self.close()


def close_at_exit(owner: Any) -> None:
    """Close `owner` before the interpreter goes: what has threads, and what they use."""
    _owned.add(owner)


@atexit.register
def _close_all() -> None:
    global _ending
    _ending = True
    for owner in sorted(_owned, key=lambda o: int(getattr(o, "_close_order", 1))):
        with contextlib.suppress(Error):  # of a run's sinks: it is logged
            owner.close()


class Closing:
    """What has a `_handle`, which goes at the end of a `with`."""

    __slots__ = ()  # whoever derives from it lists its own: `pipeline.conf = 0.3`, which would change nothing, is refused
    _handle: Handle

    def close(self) -> None:
        """Refuse further use; it goes when the last one that uses it does."""
        self._handle.close()

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError(f"{self._handle.what} cannot be pickled or copied: it is memory of this process; open it in each")

    def _about(self) -> str:
        return self._handle.what

    def __repr__(self) -> str:
        try:
            with self._handle:
                about = self._about()
        except Error as problem:  # it is closed, or another process's
            about = str(problem)
        return f"ultramotion.{type(self).__name__}({about})"


# ---- what objects say of themselves ----

T = TypeVar("T")


class Field(Generic[T]):
    """An attribute that is a field of the C struct behind an object (`_struct`), as `convert` gives it; None where the struct's
    field `where` is 0."""

    def __new__(cls, name: str, convert: Callable[[Any], T], where: str | None = None) -> Any:
        if where is None and convert in (int, float):  # which ctypes gives: no Python runs, it is slow where caches are cold
            return property(attrgetter(f"_struct.{name}"), doc="")  # not attrgetter's
        return super().__new__(cls)

    def __init__(self, name: str, convert: Callable[[Any], T], where: str | None = None) -> None:
        self.name, self.convert, self.where = name, convert, where

    @overload
    def __get__(self, owner: None, kind: type) -> Field[T]: ...
    @overload
    def __get__(self, owner: object, kind: type) -> T: ...
    def __get__(self, owner: Any, kind: type) -> Any:
        if owner is None:
            return self
        struct = owner._struct
        if self.where is not None and not getattr(struct, self.where):
            return None
        return self.convert(getattr(struct, self.name))


class Answer(Generic[T]):
    """An attribute that a function of the library tells of an object (`_handle`), as `convert` gives it."""

    def __init__(self, function: str, convert: Callable[[Any], T]) -> None:
        self.function, self.convert = getattr(lib, function), convert

    @overload
    def __get__(self, owner: None, kind: type) -> Answer[T]: ...
    @overload
    def __get__(self, owner: object, kind: type) -> T: ...
    def __get__(self, owner: Any, kind: type) -> Any:
        if owner is None:
            return self
        with owner._handle as pointer:
            return self.convert(self.function(pointer))


def optional_text(value: bytes | None) -> str | None:
    return None if value is None else text(value)


def numbers(record: Any) -> dict[str, int]:
    """The fields of a struct of counts by their names."""
    return {name: int(getattr(record, name)) for name, *_ in record._fields_ if name != "struct_size"}
