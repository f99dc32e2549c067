# SPDX-License-Identifier: Apache-2.0
"""Frames of the phantom with their truth as arrays, from the library that build/ has."""

import ctypes
import functools
import os
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
KINDS = "bone", "fascia", "vessel", "cyst", "nerve", "tendon", "needle"
BONE = 0
HELD_OUT = 900_000  # seeds from here on are never trained on


class Frame(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("width", ctypes.c_int), ("height", ctypes.c_int), ("channels", ctypes.c_int),
                ("stride", ctypes.c_ssize_t), ("pixels", ctypes.POINTER(ctypes.c_uint8))]  # the head of um_frame


class Structure(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int), ("box", ctypes.c_float * 4)]


class Truth(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("mask", ctypes.POINTER(ctypes.c_uint8)), ("has_bone", ctypes.c_int),
                ("box", ctypes.c_float * 4), ("visibility", ctypes.c_float), ("map", ctypes.POINTER(ctypes.c_uint8)),
                ("structure", ctypes.POINTER(Structure)), ("n_structures", ctypes.c_int)]


@functools.cache
def library():
    lib = ctypes.CDLL(os.environ.get("ULTRAMOTION_LIBRARY", str(ROOT / "build" / "libultramotion.so")))
    lib.um_source_open.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_char_p, ctypes.c_void_p]
    lib.um_source_read.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.POINTER(Frame))]
    lib.um_source_truth.argtypes = [ctypes.c_void_p, ctypes.POINTER(Truth)]
    lib.um_source_close.argtypes = [ctypes.POINTER(ctypes.c_void_p)]
    lib.um_frame_unref.argtypes = [ctypes.POINTER(ctypes.POINTER(Frame))]
    lib.um_label_read.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.POINTER(ctypes.c_uint8)), *2 * [ctypes.POINTER(ctypes.c_int)]]
    lib.um_last_error.restype = ctypes.c_char_p
    return lib


def check(status):
    if status:
        raise RuntimeError(library().um_last_error().decode())


def frame(seed, width, height, look="hard", empty=0.1, surface="any"):
    """One image [H,W] u8, the map of its structures [H,W] u8 (0, or index + 1), and a list of (kind, box xyxy), bones first."""
    lib = library()
    source, image, truth = ctypes.c_void_p(), ctypes.POINTER(Frame)(), Truth(struct_size=ctypes.sizeof(Truth))
    spec = f"phantom:seed={seed},frames=1,width={width},height={height},look={look},empty={empty},surface={surface}"

    check(lib.um_source_open(ctypes.byref(source), spec.encode(), None))
    try:
        check(lib.um_source_read(source, ctypes.byref(image)))
        check(lib.um_source_truth(source, ctypes.byref(truth)))
        pixels = np.ctypeslib.as_array(image.contents.pixels, (height, width)).copy()
        structures = [(truth.structure[i].kind, np.array(truth.structure[i].box[:], np.float32)) for i in range(truth.n_structures)]
        if truth.map:
            where = np.ctypeslib.as_array(truth.map, (height, width)).copy()
        elif truth.mask:  # the other look knows one structure
            where = np.ctypeslib.as_array(truth.mask, (height, width)).copy()
            structures = [(BONE, np.array(truth.box[:], np.float32))]
        else:
            where = np.zeros((height, width), np.uint8)
        return pixels, where, structures
    finally:
        lib.um_frame_unref(ctypes.byref(image))
        lib.um_source_close(ctypes.byref(source))
