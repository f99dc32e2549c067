# SPDX-License-Identifier: Apache-2.0
"""Training images: a frame of the phantom, or of labelled images of one's own, changed as scanners and hands change it. Sample `index` of `seed`
is the same for ever."""

import collections
import concurrent.futures
import multiprocessing
import os
import signal
import threading

import cv2
import numpy as np

import dataset
import phantom

cv2.setNumThreads(1)
ENDING = signal.SIGTERM, signal.SIGINT


def box_of(mask):
    """Corners [4] of what a mask shows; None: nothing."""
    ys, xs = np.nonzero(mask)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32) if len(xs) else None


class Sample:
    """image [H,W] u8; masks [K] of [H,W] u8, 0 or 1; labels [K]: the detector's class, -1: a structure that it does not look for, behind all others.
    outlined: masks are outlines, not boxes."""

    def __init__(self, image, masks, labels, outlined=True):
        self.image, self.masks, self.labels, self.outlined = image, masks, labels, outlined


def draw(seed, index, hard=0.75, empty=0.12, shaded=0.1, surfaces=None, septa=0, sides=(230, 430), own=None, marks=0):
    """surfaces: {shape: share} of images of the hard look that have this shape; the others have any. septa: share of phantom frames with a septum
    of muscle. own: instead of most phantom frames. marks: share of images that are drawn over."""
    rng = np.random.default_rng((seed, index))
    if own and rng.random() >= own.phantom:
        sample = Sample(*dataset.load(own).draw(rng))
    else:
        sample = of_phantom(rng, hard, empty, surfaces, sides, own.bone if own else 0)
        for _ in range(int(rng.integers(1, 3)) if septa and rng.random() < septa else 0):
            septum(rng, sample)
    if rng.random() < 0.5:
        sample.image, sample.masks = sample.image[:, ::-1], [m[:, ::-1] for m in sample.masks]
    if rng.random() < 0.5:
        bend(rng, sample)
    if rng.random() < shaded:
        shade(rng, sample)
    sample.image = scan(rng, np.ascontiguousarray(sample.image))
    if marks and rng.random() < marks:
        mark(rng, sample.image)
    return sample


def of_phantom(rng, hard, empty, surfaces, sides, bone):
    height = int(rng.integers(*sides))
    width = int(np.clip(height * np.exp(rng.uniform(-0.35, 0.35)), 160, 600))
    look = "hard" if rng.random() < hard else "default"
    number = int(rng.integers(0, phantom.HELD_OUT))
    surface = "any"
    if surfaces and look == "hard":
        surface = rng.choice([*surfaces, "any"], p=[*surfaces.values(), 1 - sum(surfaces.values())])
    image, where, structures = phantom.frame(number, width, height, look, empty, surface)
    masks = [(where == i + 1).astype(np.uint8) for i in range(len(structures))]
    return Sample(image, masks, [bone if kind == phantom.BONE else -1 for kind, _ in structures])


def septum(rng, s):
    """A bright slanting sheet between muscles, which casts no shadow: steep bones look like it, and do. None where a structure is."""
    h, w = s.image.shape
    length, slant = rng.uniform(0.12, 0.5) * min(h, w), np.radians(rng.uniform(15, 75)) * rng.choice([-1, 1])
    x, y = rng.uniform(0, w), rng.uniform(0.1, 0.85) * h
    t = np.linspace(-0.5, 0.5, 24)
    across = rng.normal(0, 0.06) * (4 * t * t - 1) + rng.normal(0, 0.03) * np.sin(rng.uniform(3, 8) * t + rng.uniform(0, 6))
    px, py = x + length * (t * np.cos(slant) - across * np.sin(slant)), y + length * (t * np.sin(slant) + across * np.cos(slant))
    band = np.zeros((h, w), np.float32)
    for i in range(len(t) - 1):  # it thins out towards its ends
        level = float(min(1, 6 * (0.5 - abs(t[i])) + 0.15))
        cv2.line(band, (int(px[i]), int(py[i])), (int(px[i + 1]), int(py[i + 1])), level, 1 + int(rng.integers(0, 3)))
    if any(m[band > 0].any() for m in s.masks):
        return
    thick = rng.uniform(1, 3.2)
    band = cv2.GaussianBlur(band, (0, 0), thick)
    band /= max(band.max(), 1e-3)
    grain = np.hypot(*(cv2.GaussianBlur(rng.normal(0, 1, (h, w)).astype(np.float32), (0, 0), rng.uniform(1, 3), sigmaY=rng.uniform(0.6, 1.2)) for _ in "xy"))
    around = cv2.GaussianBlur(s.image, (0, 0), 9).astype(np.float32)  # as bright as the gain is there, and no brighter in a shadow
    light = rng.uniform(0.8, 3.5) * (around + rng.uniform(0, 6)) * (0.35 + 0.65 * grain / grain.mean())
    s.image = np.maximum(s.image, (s.image + band * light).clip(0, 255)).astype(np.uint8)


def bend(rng, s):
    """Geometry: turned, zoomed, shifted, sheared."""
    h, w = s.image.shape
    turn, zoom = rng.uniform(-14, 14), np.exp(rng.uniform(-0.25, 0.35))
    m = cv2.getRotationMatrix2D((w / 2, h / 2), turn * s.outlined, zoom)
    m[0, 1] += rng.uniform(-0.15, 0.15) * s.outlined
    m[:, 2] += rng.uniform(-0.08, 0.08, 2) * (w, h)
    edge = cv2.BORDER_REFLECT_101 if rng.random() < 0.3 else cv2.BORDER_CONSTANT
    s.image = cv2.warpAffine(np.ascontiguousarray(s.image), m, (w, h), flags=cv2.INTER_LINEAR, borderMode=edge)
    s.masks = [cv2.warpAffine(np.ascontiguousarray(one), m, (w, h), flags=cv2.INTER_NEAREST) for one in s.masks]


def shade(rng, s):
    """Columns that the probe no longer sees, often all of a structure's or of the image's: what was there is no longer to be found."""
    h, w = s.image.shape
    columns = np.nonzero(np.any(s.masks, (0, 1)))[0] if s.masks else ()
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
    s.masks = [one * (left >= 0.2).astype(np.uint8) for one in s.masks]


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


def mark(rng, image):
    """What scanners draw over an image: a measuring frame, calipers with a dotted line between them."""
    h, w = image.shape
    level, thick = int(rng.integers(100, 256)), int(rng.integers(1, 4))
    if rng.random() < 0.7:
        size = rng.uniform(0.15, 0.9, 2) * (w, h)
        corner, lean = rng.uniform(-0.1, 0.9, 2) * ((w, h) - size), rng.uniform(-0.3, 0.3) * w * (rng.random() < 0.4)
        corners = corner + np.array([[0, 0], [size[0], 0], [size[0] + lean, size[1]], [lean, size[1]]])
        lines = cv2.polylines(np.zeros((h, w), np.uint8), [corners.astype(np.int32)], True, 1, thick)
        if rng.random() < 0.3:
            y, x = np.indices((h, w))
            lines &= ((x + y) // int(rng.integers(4, 10)) % 2).astype(np.uint8)
        image[lines > 0] = level
    for _ in range(rng.integers(0, 3)):
        ends, arm, gap = rng.uniform(0.02, 0.98, (2, 2)) * (w, h), int(rng.integers(6, 16)), rng.uniform(4, 12)
        shapes = [int(rng.choice([cv2.MARKER_CROSS, cv2.MARKER_TILTED_CROSS])) for _ in ends]
        calipers(image, ends, level, thick, arm, gap, shapes)


def calipers(image, ends, colour, thick, arm, gap, shapes):
    """Two crosses, dots from the first on."""
    for end, shape in zip(ends, shapes):
        cv2.drawMarker(image, end.astype(int).tolist(), colour, shape, arm, thick)
    for t in np.arange(0, 1, gap / max(gap, np.hypot(*(ends[1] - ends[0])))):
        cv2.circle(image, (ends[0] + t * (ends[1] - ends[0])).astype(int).tolist(), thick // 2, colour, -1)


def end_with_the_run():
    threading.Thread(target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True).start()


def batches(make, first, size, workers, ahead=3):
    """make(index) for first*size, …: lists of `size`, drawn by processes while others are used."""
    processes = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, processes, end_with_the_run) as pool:
        waiting = collections.deque()
        step = first
        try:
            while True:
                # They start here, and what ends the run, to a terminal's or a job's processes at once, is not for them from then on.
                before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
                while len(waiting) <= ahead:
                    waiting.append([pool.submit(make, step * size + i) for i in range(size)])
                    step += 1
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                yield [one.result() for one in waiting.popleft()]
        finally:
            pool.shutdown(cancel_futures=True)
