# SPDX-License-Identifier: Apache-2.0
"""How the phantom differs from images in a folder, in numbers and side by side: python train/compare.py FOLDER OUT.png [--lines DIR].
Only looks; nothing of the folder is kept but in OUT.png."""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

import dataset
import phantom

SIDE = 512


def gray(path):
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    return sys.exit(f"{path}: no image") if image is None else image


def folder(path, lines, n):
    files = dataset.images_in(path)
    if not files:
        sys.exit(f"{path}: no images")
    for p in files[:: max(1, len(files) // n)][:n]:
        line = None
        if lines:
            line = gray((lines / p.relative_to(path)).with_suffix(".png"))
            line = cv2.resize(line, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST) > 0
        yield cv2.resize(gray(p), (SIDE, SIDE), interpolation=cv2.INTER_AREA), line


def made(look, n):
    for i in range(n):
        p, where, structures = phantom.frame(phantom.HELD_OUT + i, SIDE, SIDE, look)
        yield p, np.isin(where, [k + 1 for k, (kind, _) in enumerate(structures) if kind == phantom.BONE])


def width_at_half(patch, axis):
    """Lag at which the autocorrelation of a flat patch falls to a half, in pixels."""
    v = patch.astype(float) - cv2.GaussianBlur(patch.astype(float), (0, 0), 8)
    full = (v * v).mean()
    for lag in range(1, 12):
        a = np.take(v, range(lag, v.shape[axis]), axis)
        b = np.take(v, range(v.shape[axis] - lag), axis)
        if (a * b).mean() < full / 2:
            return lag
    return 12


def numbers(images):
    rows = []
    for p, line in images:
        v = p.astype(float)
        mid = p[SIDE // 4:SIDE // 2, SIDE // 4:3 * SIDE // 4]
        row = {"mean": v.mean(), "median": np.median(v), "p95": np.percentile(v, 95), "p99.5": np.percentile(v, 99.5),
               "black %": 100 * (v < 4).mean(), "speckle x px": width_at_half(mid, 1), "speckle y px": width_at_half(mid, 0)}
        for k in range(4):
            row[f"depth {k + 1}/4"] = v[k * SIDE // 4:(k + 1) * SIDE // 4].mean()
        if line is not None and line.any():
            near = cv2.dilate(line.astype(np.uint8), np.ones((7, 7))) > 0
            ys = np.nonzero(line.any(1))[0]
            above = v[: max(ys.min() - 8, 1)]
            row |= {"bone": np.percentile(v[near], 75), "bone - image's p95": np.percentile(v[near], 75) - np.percentile(v, 95),
                    "bone / brightest above": np.percentile(v[near], 95) / max(np.percentile(above, 99.5), 1),
                    "line length px": line.any(0).sum(), "line depth": ys.mean() / SIDE}
        rows.append(row)
    keys = [k for k in {k: 0 for r in rows for k in r}]
    return {k: np.percentile([r[k] for r in rows if k in r], (10, 50, 90)) for k in keys}


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("folder", type=Path)
    a.add_argument("out", type=Path)
    a.add_argument("--lines", type=Path)
    a.add_argument("-n", type=int, default=60)
    args = a.parse_args()
    if args.n < 2:
        a.error("-n: want 2 or more")
    if not args.folder.is_dir():
        a.error(f"{args.folder}: no such folder")
    real, hard = list(folder(args.folder, args.lines, args.n)), list(made("hard", args.n))
    table = [numbers(x) for x in (real, hard, made("default", args.n // 2))]
    print(f"{'10 %, median, 90 %':26s} {'folder':>22s} {'hard':>22s} {'default':>22s}")
    for k in table[0]:
        print(f"{k:26s} " + " ".join("{:7.1f}{:7.1f}{:7.1f} ".format(*t[k]) if k in t else " " * 22 for t in table))
    rows = []
    for i in range(4):
        cells = [real[(3 * i + j) * len(real) // 12][0] for j in range(3)] + [hard[(3 * i + j) % len(hard)][0] for j in range(3)]
        rows.append(np.concatenate(cells, 1))
    try:
        written = cv2.imwrite(str(args.out), np.concatenate(rows, 0)[::2, ::2])
    except cv2.error:  # an ending that it does not know
        written = False
    if not written:
        sys.exit(f"{args.out}: cannot be written")


if __name__ == "__main__":
    main()
