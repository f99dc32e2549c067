# SPDX-License-Identifier: Apache-2.0
"""The whole pipeline with trained weights: `ultramotion run` against PyTorch, frame by frame.

Weights: a folder with dfine_*.pth and mobile_sam_*.pt (--bootstrap, or the environment's ULTRAMOTION_BOOTSTRAP), and those in models/.
Images: the phantom's, those in tests/golden/end_to_end, and any folder or file named with --images."""

import os
import shutil
from pathlib import Path

import dfine_net
import numpy as np
import sam_net
import torch
from common import ROOT, CommandFailed, Folder, Report, arguments, json_lines, run
from pycocotools import mask as coco
from safetensors import safe_open
from safetensors.torch import load_file

BOX_PX, SCORE, MARGIN = 0.05, 1e-3, 2e-3


def extra(parser):
    parser.add_argument("--bootstrap", default=os.environ.get("ULTRAMOTION_BOOTSTRAP", ""), help="folder with trained checkpoints")
    parser.add_argument("--images", action="append", default=[], help="further images: a folder or a file")
    parser.add_argument("--frames", type=int, default=12, help="phantom frames")


def state_of(path):
    """State dict, metadata."""
    if path.suffix == ".safetensors":
        with safe_open(str(path), "pt") as file:
            return load_file(str(path)), file.metadata() or {}
    whole = torch.load(path, map_location="cpu", weights_only=True)
    for names in (("ema", "module"), ("model",), ("state_dict",)):
        inner = whole
        for name in names:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            return inner, {}
    return whole, {}


def size_of(state):
    levels = sum(k.startswith("encoder.input_proj.") and k.endswith("conv.weight") for k in state)
    if levels == 2:
        return "n"
    layers = len({k.split(".")[3] for k in state if k.startswith("decoder.decoder.layers.")})
    if layers == 6:
        return "x" if state["encoder.lateral_convs.0.conv.weight"].shape[0] == 384 else "l"
    return {3: "s", 4: "m"}[layers]


def side_of(state, metadata):
    if "input_size" in metadata:
        return int(metadata["input_size"].split("x")[0])
    tokens = state["decoder.anchors"].shape[1] if "decoder.anchors" in state else 0
    strides = (16, 32) if size_of(state) == "n" else (8, 16, 32)
    return next((side for side in range(32, 2048, 32) if sum((side // s) ** 2 for s in strides) == tokens), 640)


class Judge:
    """The pipeline in PyTorch: detector, its best query's box as prompt, single mask."""

    def __init__(self, detector, segmenter, canvas):
        state, metadata = state_of(detector)
        self.side = side_of(state, metadata)
        state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        template = dfine_net.build(size_of(state), state["decoder.enc_score_head.weight"].shape[0], self.side)
        own = template.state_dict()
        skipped = ("num_batches_tracked", "decoder.anchors", "decoder.valid_mask", "num_points_scale", "denoising_class_embed.weight")
        missing = [k for k in own if k not in state and not k.endswith(skipped) and not k.startswith("decoder.decoder.")]
        for key in own:
            if key in state and (state[key].shape == own[key].shape or key not in ("decoder.anchors", "decoder.valid_mask")):
                own[key] = state[key].to(own[key].dtype)
        if any(".lqe_layers." not in k and "dec_score_head" not in k for k in missing):
            raise RuntimeError(f"{detector.name}: {missing[0]} is missing")
        template.load_state_dict(own)
        self.detector = template.eval()
        state, metadata = state_of(segmenter)
        self.canvas = canvas or int(metadata.get("input_size", "1024").split("x")[0])
        own = sam_net.build(self.canvas).state_dict()
        self.segmenter = sam_net.load({k: state.get(k, v) for k, v in own.items()}, self.canvas)

    def __call__(self, path):
        out = self.detector(dfine_net.network_input(path, self.side))
        scores = out["pred_logits"][0].sigmoid().flatten()
        best = scores.argmax().item()
        query = best // out["pred_logits"].shape[-1]
        x, input_size, (height, width) = sam_net.prepare(path, self.canvas)
        cx, cy, w, h = out["pred_boxes"][0, query].double().tolist()
        box = np.array([(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height])
        logits = sam_net.predict(self.segmenter, x, input_size, (height, width), box, [], False)["logits"][0, 0]
        top = scores.topk(2).values
        return box, scores[best].item(), logits, (top[0] - top[1]).item()


def pairs(args):
    if args.bootstrap and Path(args.bootstrap).is_dir():
        folder = Path(args.bootstrap)
        detector, segmenter = next(folder.glob("dfine_*.pth"), None), next(folder.glob("mobile_sam_*.pt"), None)
        if detector and segmenter:
            yield "bootstrap", detector, segmenter, int(segmenter.stem.rsplit("_", 1)[1])
    shipped = sorted((ROOT / "models").glob("*.safetensors"))
    keys = {}
    for path in shipped:
        with safe_open(str(path), "pt") as file:
            keys[path] = set(file.keys())
    detectors = [p for p in shipped if "decoder.enc_score_head.weight" in keys[p]]
    segmenters = [p for p in shipped if "image_encoder.patch_embed.seq.0.c.weight" in keys[p]]
    for detector in detectors:
        for segmenter in segmenters:
            alone = len(detectors) * len(segmenters) == 1
            yield "models/" if alone else f"{detector.stem}+{segmenter.stem}", detector, segmenter, 0


def collect(args, folder):
    """Numbered copies of all images in one folder, so that one run sees them in a known order."""
    target = folder / "images"
    target.mkdir(exist_ok=True)
    sources = []
    if not args.oracle:
        run(args, "phantom", "-o", folder / "phantom", "--frames", args.frames, "--seed", 900000 + args.seed)
        sources += sorted((folder / "phantom" / "frames").glob("*.png"))
    places = [ROOT / "tests" / "golden" / "end_to_end", *map(Path, args.images)]
    if args.bootstrap:
        places.append(Path(args.bootstrap) / "golden")
    for place in places:
        found = [place] if place.is_file() else sorted([*place.glob("*.png"), *place.glob("*.jpg")])
        sources += [p for p in found if not p.stem.endswith(("_truth", "_mask"))]
    names = set()
    for path in sources:
        if path.name not in names or "phantom" not in path.name:  # the goldens may be in two places
            shutil.copy(path, target / f"{len(names):03d}_{path.name}")
        names.add(path.name)
    return sorted(target.iterdir())


def check(report, args, folder, images, name, detector, segmenter, canvas):
    judge = Judge(detector, segmenter, canvas)
    if args.oracle:
        for path in images:
            box, score, logits, gap = judge(path)
            print(path.name, box.round(3).tolist(), round(score, 5), int((logits > 0).sum()), f"{gap:.1e}")
        return
    words = ["run", folder / "images", "--detector", detector, "--segmenter", segmenter, "--precision", "fp32", "--conf", "0",
             "--mask-clean", "0", "--presence", "1", "--det-smooth", "1"]  # as upstream: the best box's own score, Pillow's filter
    words += ["-o", "jsonl:-"] + (["--sam-size", canvas] if canvas else [])
    packets = json_lines(run(args, *words))
    if len(packets) != len(images):
        report.fail(name, f"{len(packets)} packets for {len(images)} images")
        return
    limits = {"score": SCORE, "box, px": BOX_PX, "mask logit": MARGIN}
    worst, pixels = {what: (0.0, "") for what in limits}, 0
    for path, packet in zip(images, packets):
        case = f"{name} {path.name}"
        box, score, logits, gap = judge(path)
        if gap < 1e-4:
            report.skip(case, "two queries tie for the best score")
            continue
        height, width = logits.shape
        errors = {"score": abs(packet["score"] - score)}
        outside = box[0] >= width or box[1] >= height or box[2] <= 0 or box[3] <= 0
        if packet["state"] == "LOST" or outside:
            if not (packet["state"] == "LOST" and outside):
                report.fail(case, f"{packet['state']}, PyTorch's box is {box.round(2).tolist()}")
        else:
            clamped = np.clip(box, 0, [width, height, width, height])
            errors["box, px"] = float(np.abs(np.array(packet["box_xyxy"]) - clamped).max())
            ours = torch.from_numpy(coco.decode({"size": packet["mask"]["size"], "counts": packet["mask"]["counts"].encode()})) > 0
            differ = ours != (logits > 0)
            pixels += int(differ.sum())
            errors["mask logit"] = logits[differ].abs().max().item() if differ.any() else 0.0
            if packet["mask_area_px"] != int(ours.sum()):
                report.fail(case, f"mask_area_px {packet['mask_area_px']}, the mask has {int(ours.sum())}")
        for what, error in errors.items():
            if not error <= limits[what] or args.taps:
                report.line(case, what, error, limits[what])
            worst[what] = max(worst[what], (error, path.name))
    for what, (error, where) in worst.items():
        note = f"{pixels} pixels differ" if what == "mask logit" else f"at {where}"
        report.line(f"{name}: worst of {len(images)} frames", what, error, limits[what], note)


def main():
    args = arguments(__doc__.splitlines()[0], extra)
    report, folder = Report("Pipeline with trained weights", args), Folder(args.keep)
    found = list(pairs(args))
    if not args.bootstrap:
        report.skip("bootstrap", "no --bootstrap and no ULTRAMOTION_BOOTSTRAP")
    if not any(not canvas for *_, canvas in found):
        report.skip("models/", "no detector and segmenter are shipped")
    try:
        images = collect(args, folder) if found else []
    except CommandFailed as error:
        report.fail("phantom", error)
        found = []
    for name, detector, segmenter, canvas in found:
        if args.only in name:
            try:
                check(report, args, folder, images, name, detector, segmenter, canvas)
            except CommandFailed as error:
                report.fail(name, error)
    report.finish()


if __name__ == "__main__":
    main()
