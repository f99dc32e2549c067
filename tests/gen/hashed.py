# SPDX-License-Identifier: Apache-2.0
"""Numbers from a formula, the same in Python and in tests/hashed.h: u(key, i) in [0, 1), exact in fp32."""
import numpy as np


def fnv(text):
    h = 2166136261
    for byte in text.encode():
        h = (h ^ byte) * 16777619 & 0xFFFFFFFF
    return h


def uniform(key, n):
    x = (np.uint32(fnv(key)) + np.arange(n, dtype=np.uint32) * np.uint32(0x9E3779B9)).astype(np.uint32)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return (x >> np.uint32(8)).astype(np.float64) * 2.0**-24


def sam_weight(key, shape):
    """A MobileSAM parameter: statistics that keep activations of order 1. In double, rounded to fp32."""
    u = uniform(key, int(np.prod(shape)))
    if key.endswith("running_mean"):
        v = (u - 0.5) * 0.2
    elif key.endswith("running_var"):
        v = u + 0.5
    elif key.endswith("attention_biases"):
        v = (u - 0.5) * 2
    elif key.endswith("gaussian_matrix"):
        v = (u - 0.5) * 3
    elif key.endswith("bias"):
        v = (u - 0.5) * 0.4
    elif len(shape) == 1:
        v = u * 0.4 + 0.8
    elif key.endswith("local_conv.c.weight"):
        v = (u - 0.5) * 0.2 + (np.arange(u.size) % 9 == 4)
    elif shape[0] < 5 and len(shape) == 2 and shape[1] == 256 and "layers" not in key:  # embeddings
        v = 2 * u - 1
    else:
        v = (2 * u - 1) * np.sqrt(4 / np.prod(shape[1:]))
    return v.astype(np.float32).reshape(shape)
