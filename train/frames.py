# SPDX-License-Identifier: Apache-2.0
"""Training images: a frame of the phantom, changed as scanners and hands change it. Sample `index` of `seed` is the same for ever."""

import collections
import concurrent.futures
import multiprocessing
import os
import signal
import threading

import cv2
import numpy as np

import phantom

cv2.setNumThreads(1)


class Sample:
    """image [H,W] u8; where [H,W] u8: 0, or the index of a structure + 1; kinds: of the structures, bones first."""

    def __init__(self, image, where, kinds):
        self.image, self.where, self.kinds = image, where, kinds

    def mask(self, i):
        return self.where == i + 1

    def box(self, i):
        ys, xs = np.nonzero(self.where == i + 1)
        return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32) if len(xs) else None

    def bones(self):
        return [i for i, k in enumerate(self.kinds) if k == phantom.BONE]


def draw(seed, index, hard=0.75, empty=0.12, shaded=0.1, surfaces=None, sides=(230, 430)):
    """surfaces: {shape: share} of images of the hard look that have this shape; the others have any."""
    rng = np.random.default_rng((seed, index))
    height = int(rng.integers(*sides))
    width = int(np.clip(height * np.exp(rng.uniform(-0.35, 0.35)), 160, 600))
    look = "hard" if rng.random() < hard else "default"
    number = int(rng.integers(0, phantom.HELD_OUT))
    surface = "any"
    if surfaces and look == "hard":
        surface = rng.choice([*surfaces, "any"], p=[*surfaces.values(), 1 - sum(surfaces.values())])
    image, where, structures = phantom.frame(number, width, height, look, empty, surface)
    sample = Sample(image, where, [k for k, _ in structures])
    if rng.random() < 0.5:
        sample.image, sample.where = sample.image[:, ::-1], sample.where[:, ::-1]
    if rng.random() < 0.5:
        bend(rng, sample)
    if rng.random() < shaded:
        shade(rng, sample)
    sample.image = scan(rng, np.ascontiguousarray(sample.image))
    return sample


def bend(rng, s):
    """Geometry: turned, zoomed, shifted, sheared."""
    h, w = s.image.shape
    turn, zoom = rng.uniform(-14, 14), np.exp(rng.uniform(-0.25, 0.35))
    m = cv2.getRotationMatrix2D((w / 2, h / 2), turn, zoom)
    m[0, 1] += rng.uniform(-0.15, 0.15)
    m[:, 2] += rng.uniform(-0.08, 0.08, 2) * (w, h)
    edge = cv2.BORDER_REFLECT_101 if rng.random() < 0.3 else cv2.BORDER_CONSTANT
    s.image = cv2.warpAffine(np.ascontiguousarray(s.image), m, (w, h), flags=cv2.INTER_LINEAR, borderMode=edge)
    s.where = cv2.warpAffine(np.ascontiguousarray(s.where), m, (w, h), flags=cv2.INTER_NEAREST)


def shade(rng, s):
    """Columns that the probe no longer sees, often all of a structure's or of the image's: what was there is no longer to be found."""
    h, w = s.image.shape
    columns = np.nonzero(s.where.any(0))[0]
    if len(columns) and rng.random() < 0.6:
        first, last = columns[0] - rng.uniform(0, 12), columns[-1] + rng.uniform(1, 12)
    else:
        wide = rng.uniform(0.2, 1) * w
        first = rng.uniform(-0.1 * w, 1.1 * w - wide)
        last = first + wide
    x = np.arange(w)
    rest, soft = rng.uniform(0, 0.05), rng.uniform(0.3, 8)
    left = np.clip(np.maximum(first - x, x - last) / soft, 0, 1)  # 0 within, 1 outside
    s.image = (s.image * (rest + (1 - rest) * left) + rng.integers(0, 3, (h, w))).clip(0, 255).astype(np.uint8)
    s.where = np.where(left < 0.2, 0, s.where).astype(np.uint8)


def scan(rng, image):
    """Gain, gamma, dynamic range, blur, speckle, black margins: mild, as strong artefacts harm."""
    v = image.astype(np.float32) / 255
    h, w = v.shape
    if rng.random() < 0.6:
        v = v ** np.exp(rng.uniform(-0.5, 0.5)) * np.exp(rng.uniform(-0.8, 0.4))
    if rng.random() < 0.3:  # stretched, as --gain does
        v = np.minimum(v / max(np.percentile(v, 99.5), 0.05), 1)
    if rng.random() < 0.2:  # another dynamic range
        cut = rng.uniform(0, 0.12)
        v = np.maximum(v - cut, 0) / (1 - cut)
    if rng.random() < 0.3:
        v = cv2.GaussianBlur(v, (0, 0), rng.uniform(0.4, 1.4), sigmaY=rng.uniform(0.4, 1.2))
    if rng.random() < 0.25:
        v = v * (1 + rng.uniform(0.05, 0.3) * cv2.GaussianBlur(rng.normal(0, 1, (h, w)).astype(np.float32), (0, 0), rng.uniform(0.5, 1.5)))
    if rng.random() < 0.15:
        v = v + rng.uniform(0, 0.03)
    v = (np.clip(v, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.2:  # JPEG
        v = cv2.imdecode(cv2.imencode(".jpg", v, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))])[1], cv2.IMREAD_GRAYSCALE)
    return v


def end_with_the_run():
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, signal.SIG_IGN)
    threading.Thread(target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True).start()


def batches(make, first, size, workers, ahead=3):
    """make(index) for first*size, …: lists of `size`, drawn by processes while others are used."""
    processes = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, processes, end_with_the_run) as pool:
        waiting = collections.deque()
        step = first
        try:
            while True:
                while len(waiting) <= ahead:
                    waiting.append([pool.submit(make, step * size + i) for i in range(size)])
                    step += 1
                yield [one.result() for one in waiting.popleft()]
        finally:
            pool.shutdown(cancel_futures=True)
