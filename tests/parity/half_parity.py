# SPDX-License-Identifier: Apache-2.0
"""What fp16 and bf16 change on a GPU, bf16 and int8 on the processor: the whole pipeline against fp32 there, on phantom frames with truth.

On frames whose fp32 score is at least 0.5 (--score; 0 for random weights): the share of best boxes within 1 px (fp16, and bf16 on a processor) or 2 px of fp32, and of mask
boundary points within 1 px of fp32's boundary. Over all frames: AP50 of the best box and Dice of the mask against truth, which may differ
by 0.01 (bf16 on a processor: 0.005).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from pycocotools import mask as coco

ROOT = Path(__file__).resolve().parents[2]
LIMITS = {"fp16": (1.0, 0.01), "bf16": (2.0, 0.01), "int8": (2.0, 0.01), "bf16 on cpu": (1.0, 0.005)}  # px; AP50 and Dice


def calibrated(args, folder):
    """Options that name both models with plans for int8, made on frames of another seed."""
    options = []
    for role, model, size in (("detector", args.detector, args.det_size), ("segmenter", args.segmenter, args.sam_size)):
        out = str(folder / f"{role}.safetensors")
        command = [args.binary, "convert", model, out, "--precision", "int8", "--calibrate", "phantom:seed=77,frames=32"]
        done = subprocess.run(command + (["--det-size", str(size)] if size else []), capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
        print(f"{role}: {done.stderr.strip().splitlines()[-2]}", flush=True)
        options += [f"--{role}", out]
    return options


def packets(args, source, device, precision, models):
    command = [args.binary, "run", source, "--device", device, "--precision", precision, "-q", "--conf", "0", "--mask-clean", "0", "-o", "jsonl:-"] + models
    for option in ("det_size", "sam_size"):
        if getattr(args, option):
            command += [f"--{option.replace('_', '-')}", str(getattr(args, option))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def mask(packet):
    return coco.decode({"size": packet["mask"]["size"], "counts": packet["mask"]["counts"].encode()}).astype(bool)


def boundary(m):
    inner = m.copy()
    inner[1:] &= m[:-1]
    inner[:-1] &= m[1:]
    inner[:, 1:] &= m[:, :-1]
    inner[:, :-1] &= m[:, 1:]
    return m & ~inner


def reach(m):
    """Within 1 px."""
    out = m.copy()
    out[1:] |= m[:-1]
    out[:-1] |= m[1:]
    out[:, 1:] |= m[:, :-1]
    out[:, :-1] |= m[:, 1:]
    return out


def iou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / max((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both, 1e-9)


def ap50(found, truth):
    """Average precision at IoU 0.5 of one box a frame, interpolated at 101 recalls as COCO does."""
    positives = sum(t is not None for t in truth)
    order = sorted(range(len(found)), key=lambda i: -found[i]["score"])
    hits = np.cumsum([truth[i] is not None and iou(found[i]["box_xyxy"], truth[i][0]) >= 0.5 for i in order])
    recall, precision = hits / positives, hits / np.arange(1, len(order) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0, 1, 101))
    return float(np.mean([precision[i] if i < len(precision) else 0 for i in at]))


def dice(found, truth):
    values = []
    for packet, t in zip(found, truth):
        if t is not None:
            m = mask(packet)
            values.append(2 * (m & t[1]).sum() / max(m.sum() + t[1].sum(), 1))
    return float(np.mean(values))


def read_truth(folder):
    data = json.loads((folder / "truth.json").read_text())
    truth = [None] * len(data["images"])
    at = {image["id"]: i for i, image in enumerate(data["images"])}
    for a in data["annotations"]:
        x, y, w, h = a["bbox"]
        rle = a["segmentation"]
        counts = rle["counts"]
        m = coco.decode({"size": rle["size"], "counts": counts.encode() if isinstance(counts, str) else counts})
        truth[at[a["image_id"]]] = ((x, y, x + w, y + h), m.astype(bool))
    return truth


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=os.environ.get("ULTRAMOTION", str(ROOT / "build" / "ultramotion")))
    parser.add_argument("--device", default="cuda:0", help="for int8: cpu")
    parser.add_argument("--precision", action="append", choices=["fp16", "bf16", "int8"], help="default: fp16 and bf16")
    parser.add_argument("--detector", default=str(ROOT / "models" / "dfine_n_bone_320.safetensors"))
    parser.add_argument("--segmenter", default=str(ROOT / "models" / "mobile_sam_bone_384.safetensors"))
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--seed", type=int, default=900500)
    parser.add_argument("--score", type=float, default=0.5)
    parser.add_argument("--det-size", type=int, default=0)
    parser.add_argument("--sam-size", type=int, default=0)
    args = parser.parse_args()
    passed = failed = 0

    def check(what, value, good):
        nonlocal passed, failed
        passed, failed = passed + good, failed + (not good)
        print(f"{what:<48} {value:<24} {'PASS' if good else 'FAIL'}", flush=True)

    with tempfile.TemporaryDirectory(prefix="parity-") as name:
        folder = Path(name)
        subprocess.run([args.binary, "phantom", "-o", name, "--frames", str(args.frames), "--seed", str(args.seed)], check=True,
                       capture_output=True)
        truth, source = read_truth(folder), str(folder / "frames")
        models = ["--detector", args.detector, "--segmenter", args.segmenter]
        reference = packets(args, source, "cpu", "fp32", models)
        base = ap50(reference, truth), dice(reference, truth)
        print(f"{args.frames} phantom frames, seed {args.seed}, {args.device} against fp32 on cpu: AP50 {base[0]:.4f}, Dice {base[1]:.4f}")
        for precision in args.precision or ("fp16", "bf16"):
            limit, loss = LIMITS["bf16 on cpu" if precision == "bf16" and args.device == "cpu" else precision]
            found = packets(args, source, args.device, precision, calibrated(args, folder) if precision == "int8" else models)
            near = seen = points = close = 0
            for a, b in zip(reference, found):
                if a["score"] < args.score:
                    continue
                seen += 1
                near += max(abs(x - y) for x, y in zip(a["box_xyxy"], b["box_xyxy"])) <= limit
                mine, theirs = boundary(mask(b)), reach(boundary(mask(a)))
                points, close = points + mine.sum(), close + (mine & theirs).sum()
            check(f"{precision}: best boxes within {limit:g} px", f"{near} of {seen}", near >= 0.99 * seen and seen > 0)
            check(f"{precision}: boundary points within 1 px", f"{100 * close / max(points, 1):.2f} %", close >= 0.95 * points)
            value = ap50(found, truth)
            check(f"{precision}: AP50", f"{value:.4f} ({value - base[0]:+.4f})", abs(value - base[0]) <= loss)
            value = dice(found, truth)
            check(f"{precision}: Dice", f"{value:.4f} ({value - base[1]:+.4f})", abs(value - base[1]) <= loss)
    print(f"{passed} passed, {failed} failed")
    return failed > 0


sys.exit(main())
