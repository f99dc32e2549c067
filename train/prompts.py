# SPDX-License-Identifier: Apache-2.0
"""Does the prompt decide? Held-out phantom frames with several structures, through the package `ultramotion`:
python train/prompts.py [SEGMENTER] [--frames N]."""

import argparse
import os
import sys

import numpy as np

import phantom
from frames import box_of
from run import ROOT, number

sys.path.insert(0, str(ROOT / "python"))
os.environ.setdefault("ULTRAMOTION_LIBRARY", str(ROOT / "build" / "libultramotion.so"))
os.environ.setdefault("ULTRAMOTION_MODELS", str(ROOT / "models"))


def dice(a, b):
    return 2 * (a & b).sum() / max(a.sum() + b.sum(), 1)


def iou(a, b):
    return (a & b).sum() / max((a | b).sum(), 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("segmenter", nargs="?")
    parser.add_argument("--frames", type=number(int, 1), default=200, help="with two structures or more")
    parser.add_argument("--side", type=number(int, 64, 8000), default=320)
    args = parser.parse_args()
    from ultramotion import SamPredictor, Segmenter

    predictor = SamPredictor(Segmenter(args.segmenter) if args.segmenter else Segmenter())
    rng = np.random.default_rng(0)
    figures = {k: [] for k in ("IoU of two masks", "Dice by box", "Dice by box, bones", "Dice by one click", "predicted IoU of a box on nothing",
                               "predicted IoU of a box")}
    kinds = {name: [] for name in phantom.KINDS}
    seed, used = phantom.HELD_OUT, 0
    while used < args.frames:
        image, where, structures = phantom.frame(seed, args.side, args.side, "hard")
        seed += 1
        masks = [(kind, where == i + 1) for i, (kind, _) in enumerate(structures)]
        masks = [(k, m) for k, m in masks if m.sum() >= 60]
        if len(masks) < 2:
            continue
        used += 1
        predictor.set_image(np.repeat(image[:, :, None], 3, 2))
        first = masks[0]
        second = min(masks[1:], key=lambda km: iou_of_boxes(box_of(first[1]), box_of(km[1])))
        found = []
        for kind, m in (first, second):
            got, score, _ = predictor.predict(box=box_of(m), multimask_output=False)
            got = np.asarray(got[0]) > 0
            found.append(got)
            figures["Dice by box"].append(dice(got, m))
            figures["predicted IoU of a box"].append(float(score[0]))
            if kind == phantom.BONE:
                figures["Dice by box, bones"].append(dice(got, m))
            ys, xs = np.nonzero(m)
            i = rng.integers(0, len(xs))
            got, score, _ = predictor.predict(point_coords=np.array([[xs[i], ys[i]]]), point_labels=np.array([1]), multimask_output=True)
            figures["Dice by one click"].append(dice(np.asarray(got[int(np.argmax(score))]) > 0, m))
        figures["IoU of two masks"].append(iou(*found))
        for kind, m in masks:
            kinds[phantom.KINDS[kind]].append(dice(np.asarray(predictor.predict(box=box_of(m), multimask_output=False)[0][0]) > 0, m))
        for _ in range(20):
            w, h = rng.uniform(0.1, 0.4, 2) * args.side
            x, y = rng.uniform(0, args.side - w), rng.uniform(0, args.side - h)
            if not where[int(y):int(y + h) + 1, int(x):int(x + w) + 1].any():
                _, score, _ = predictor.predict(box=np.array([x, y, x + w, y + h]), multimask_output=False)
                figures["predicted IoU of a box on nothing"].append(float(score[0]))
                break
    print(f"{used} frames of the hard phantom from seed {phantom.HELD_OUT} on; mean, number")
    for k, v in figures.items():
        print(f"  {k:36s} {np.mean(v):.3f}   {len(v)}")
    print("Dice by box of every structure; mean, its standard error, number")
    for k, v in kinds.items():
        if v:
            print(f"  {k:36s} {np.mean(v):.3f} {np.std(v) / len(v) ** 0.5:.3f}   {len(v)}")


def iou_of_boxes(a, b):
    both = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
    return both / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - both)


if __name__ == "__main__":
    main()
