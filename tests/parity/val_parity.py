# SPDX-License-Identifier: Apache-2.0
"""`val` against its judges on the same files: AP against pycocotools, HD95 and mean surface distance against medpy, masks of polygons
and run lengths against pycocotools; each to 1e-6. The data sets are random, with what is easy to get wrong: several classes, crowds,
equal scores, more than 300 boxes, masks at the image's edge, pixels that are not square."""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from medpy.metric.binary import assd, hd95
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1e-6


def val(binary, *args):
    done = subprocess.run([binary, "val", *map(str, args), "--json"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"val {args}: {done.stderr}")
    return json.loads(done.stdout)


def save(path, what):
    path.write_text(json.dumps(what))
    return path


def blob(rng, h, w):
    y, x = np.mgrid[:h, :w]
    m = np.zeros((h, w), bool)
    for _ in range(rng.integers(1, 4)):  # pieces, some of them over the edge
        cx, cy, a, b = rng.uniform(0, w), rng.uniform(0, h), rng.uniform(3, w / 3), rng.uniform(3, h / 3)
        m |= ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 < 1
    return m


def coded(mask):
    r = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": r["size"], "counts": r["counts"].decode()}


def draw_image(folder, n, h, w):
    Image.fromarray(np.zeros((h, w), np.uint8)).save(folder / f"{n}.png")
    return {"id": 7 * n + 3, "file_name": f"{n}.png", "width": w, "height": h}


def boxes_case(folder, rng):
    """Random boxes of three classes, found ones near and far."""
    images, truth, found = [], [], []
    for n in range(40):
        h, w = int(rng.integers(60, 120)), int(rng.integers(60, 120))
        images.append(draw_image(folder, n, h, w))
        for _ in range(rng.integers(0, 6)):
            box = [*rng.uniform(0, 40, 2), *rng.uniform(5, 40, 2)]
            crowd = int(rng.random() < 0.15)
            category = int(rng.choice([2, 5, 9]))
            truth.append({"id": len(truth) + 1, "image_id": images[-1]["id"], "category_id": category, "bbox": box,
                          "area": box[2] * box[3], "iscrowd": crowd})
            for _ in range(rng.integers(0, 4)):
                near = [v + rng.normal(0, 3) for v in box]
                near[2:] = [abs(v) + 1 for v in near[2:]]
                found.append({"image_id": images[-1]["id"], "category_id": category, "bbox": near,
                              "score": round(float(rng.random()), 1)})  # many are equal
        for _ in range(500 if n == 7 else rng.integers(0, 5)):
            found.append({"image_id": images[-1]["id"], "category_id": int(rng.choice([2, 5, 9])),
                          "bbox": [*rng.uniform(0, 60, 2), *rng.uniform(5, 40, 2)], "score": round(float(rng.random()), 2)})
    categories = [{"id": i, "name": f"c{i}"} for i in (9, 2, 5)]
    return {"images": images, "annotations": truth, "categories": categories}, found


def judge_ap(truth, results):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        e = COCOeval(coco, coco.loadRes(str(results)), "bbox")
        e.evaluate()
        e.accumulate()
        e.summarize()
    p = e.eval["precision"]  # [IoU, recall, category, size, most]
    each = {coco.cats[c]["name"]: p[:, :, k, 0, -1].mean() for k, c in enumerate(e.params.catIds)}
    return e.stats[0], e.stats[1], each


def masks_case(folder, rng):
    images, truth, found, rows = [], [], [], []
    for n in range(30):
        h, w = int(rng.integers(40, 90)), int(rng.integers(40, 90))
        images.append(draw_image(folder, n, h, w))
        a, b = blob(rng, h, w), blob(rng, h, w)
        if n % 3 == 0:  # polygons: whole, half and odd numbers, two pieces, corners outside
            polygons = [np.round(rng.uniform(-5, max(h, w) + 5, 2 * k) * s) / s for k, s in ((6, 1000), (3, 2))]
            polygons = [p.tolist() for p in polygons]
            segmentation = polygons
            a = rle.decode(rle.merge(rle.frPyObjects(polygons, h, w))).astype(bool)
        elif n % 3 == 1:
            column = a.T.ravel().astype(np.int8)
            turns = np.flatnonzero(np.diff(np.concatenate([[0], column])))
            counts = np.diff(np.concatenate([[0], turns, [column.size]]))
            segmentation = {"size": [h, w], "counts": counts.tolist()}
        else:
            segmentation = coded(a)
        truth.append({"id": n + 1, "image_id": images[-1]["id"], "category_id": 1, "bbox": [0, 0, w, h], "area": w * h,
                      "iscrowd": 0, "segmentation": segmentation})
        found.append({"image_id": images[-1]["id"], "category_id": 1, "bbox": [0, 0, w, h], "score": 0.9, "segmentation": coded(b)})
        rows.append((a, b))
    return {"images": images, "annotations": truth, "categories": [{"id": 1, "name": "x"}]}, found, rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default=os.environ.get("ULTRAMOTION", str(ROOT / "build" / "ultramotion")))
    parser.add_argument("--seeds", type=int, default=5)
    args, _ = parser.parse_known_args()
    worst = {}

    def compare(name, ours, judge):
        worst[name] = max(worst.get(name, 0), abs(ours - judge))

    for seed in range(args.seeds):
        rng = np.random.default_rng(seed)
        with tempfile.TemporaryDirectory(prefix="val-") as folder:
            folder = Path(folder)
            truth, found = boxes_case(folder, rng)
            t, r = save(folder / "truth.json", truth), save(folder / "results.txt", found)
            ours = val(args.binary, folder, "--results", r)
            ap, ap50, each = judge_ap(t, r)
            compare("AP (pycocotools)", ours["boxes"]["ap"], ap)
            compare("AP50 (pycocotools)", ours["boxes"]["ap50"], ap50)
            assert len(ours["classes"]) == 3
            for c in ours["classes"]:
                compare("a class's AP (pycocotools)", c["boxes"]["ap"], each[c["name"]])
        with tempfile.TemporaryDirectory(prefix="val-") as folder:
            folder = Path(folder)
            truth, found, rows = masks_case(folder, rng)
            save(folder / "truth.json", truth)
            ours = val(args.binary, folder, "--results", save(folder / "results.txt", found), "--spacing", "0.31,0.17")["masks"]
            both = [(a, b) for a, b in rows if a.any() and b.any()]
            compare("HD95 px (medpy)", ours["hd95_px"], np.mean([hd95(b, a) for a, b in both]))
            compare("HD95 mm (medpy)", ours["hd95_mm"], np.mean([hd95(b, a, (0.17, 0.31)) for a, b in both]))
            compare("surface px (medpy)", ours["surface_px"], np.mean([assd(b, a) for a, b in both]))
            compare("surface mm (medpy)", ours["surface_mm"], np.mean([assd(b, a, (0.17, 0.31)) for a, b in both]))
            compare("Dice (numpy)", ours["dice"], np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in rows]))
            compare("IoU (numpy)", ours["iou"], np.mean([(a & b).sum() / (a | b).sum() for a, b in rows]))
    for name, v in worst.items():
        print(f"{name:22s} {v:.2e} {'ok' if v <= LIMIT else 'FAILED'}")
    sys.exit(any(v > LIMIT for v in worst.values()))


if __name__ == "__main__":
    main()
