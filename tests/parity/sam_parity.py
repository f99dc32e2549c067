# SPDX-License-Identifier: Apache-2.0
"""MobileSAM: `ultramotion segment --dump` against upstream's network in PyTorch, random weights."""

import numpy as np
import torch
from common import AIM, LIMIT, Folder, Report, arguments, draw_image, read_dump, run, run_cases, worst
from PIL import Image
from safetensors.torch import save_file
from sam_net import balance, doubled, load, predict, prepare, random_network

BOX = (120.5, 90.25, 301.75, 402.5)
# name, canvas, well conditioned, image, box, points (x, y, label), multimask, wrapper, storage, slow
CASES = [
    ("256-box", 256, True, (422, 558, 1), BOX, [], False, "flat", "fp32", False),
    ("256-box-rough", 256, False, (422, 558, 1), BOX, [], False, "flat", "fp32", False),
    ("256-box-rgb-landscape", 256, True, (640, 480, 3), BOX, [], False, "model", "fp32", False),
    ("256-points", 256, True, (422, 558, 1), None, [(200.5, 300.25, 1), (40, 50, 0)], False, "ddp", "fp32", False),
    ("256-box-points", 256, True, (422, 558, 1), BOX, [(200, 300, 1), (130, 100, 0)], False, "state_dict", "fp32", False),
    ("256-box-multimask", 256, True, (422, 558, 1), BOX, [], True, "flat", "fp16", False),
    ("256-points-multimask", 256, True, (300, 300, 3), None, [(150, 120, 1)], True, "flat", "fp32", False),
    ("256-box-outside", 256, True, (422, 558, 1), (-20, -10, 500, 300), [], False, "safetensors", "fp16", False),
    ("256-box-zero-area", 256, True, (422, 558, 1), (100, 120, 100, 300), [], False, "safetensors", "bf16", False),
    ("256-shrink-4x", 256, True, (1040, 780, 1), BOX, [], False, "flat", "fp32", False),
    ("256-no-resize", 256, True, (180, 256, 1), (20, 30, 90, 200), [], False, "flat", "fp32", False),
    ("448-box", 448, True, (422, 558, 1), BOX, [], False, "flat", "fp32", False),
    ("512-box", 512, True, (422, 558, 1), BOX, [], False, "flat", "fp32", False),
    ("512-box-points-multimask-rough", 512, False, (640, 480, 3), BOX, [(200, 300, 1)], True, "flat", "fp32", False),
    ("1024-box", 1024, True, (422, 558, 1), BOX, [], False, "flat", "fp32", False),
    ("1024-box-rgb-fp16", 1024, True, (640, 480, 3), BOX, [(250, 250, 1)], False, "flat", "fp16", False),
    ("1024-box-rough", 1024, False, (422, 558, 1), BOX, [], False, "flat", "fp32", True),
    ("1024-shrink", 1024, True, (1440, 1080, 3), (200, 100, 900, 800), [], True, "flat", "fp32", True),
]  # fmt: skip


def save(net, wrapper, storage, path):
    kind = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[storage]
    state = {k: v.to(kind) if v.is_floating_point() else v for k, v in net.state_dict().items()}
    if wrapper == "safetensors":
        save_file({k: v.contiguous() for k, v in state.items()}, str(path))
    else:
        torch.save({"model": {"model": state}, "state_dict": {"state_dict": state},
                    "ddp": {"module." + k: v for k, v in state.items()}}.get(wrapper, state), path)  # fmt: skip
    return state


def check_mask(report, name, what, ours, logits, margin):
    """No pixel may differ where the judge's logit is clear of zero; the error is the largest such logit."""
    differ = ours != (logits > 0)
    error = logits[differ].abs().max().item() if differ.any() else 0.0
    return report.line(name, what, error, margin, f"{int(differ.sum())} of {differ.numel()} pixels differ")


def check(report, args, folder, case):
    name, canvas, calm, (width, height, channels), box, points, multimask, wrapper, storage, _ = case
    source = draw_image(folder / f"{name}.png", width, height, channels, args.seed)
    file = folder / f"{name}{'.safetensors' if wrapper == 'safetensors' else '.pt'}"
    x, input_size, original_size = prepare(source, canvas)
    net = random_network(canvas, x, args.seed, calm)
    balance(net, x, input_size, original_size, box, points)
    state = save(net, wrapper, storage, file)
    net = load(state, canvas)
    want = predict(net, x, input_size, original_size, box, points, multimask)
    exact = predict(doubled(net), x, input_size, original_size, box, points, multimask)
    rounding = {k: worst(want[k], exact[k]) for k in ("image_embedding", "low_res_logits", "iou", "logits")}
    if args.oracle:
        for key, value in rounding.items():
            share = f" positive {(want[key] > 0).float().mean().item():.2f}, std {want[key].std().item():.2f}"
            report.oracle(name, key, value)
            print("   ", share)
        return
    dump = folder / f"{name}.dump.safetensors"
    words = ["segment", source, "--segmenter", file, "--sam-size", canvas, "--precision", "fp32", "--dump", dump, "-o", f"dir:{folder / name}"]
    if box is not None:
        words += ["--box", ",".join(map(str, box))]
    for point in points:
        words += ["--point", ",".join(map(str, point))]
    if multimask:
        words += ["--multimask"]
    run(args, *words)
    got = read_dump(dump)
    good = True
    for key in ("image_embedding", "low_res_logits", "iou"):
        if key not in got or got[key].shape != want[key].shape:
            report.fail(name, f"{key} is {tuple(got[key].shape) if key in got else 'missing'}, want {tuple(want[key].shape)}")
        if key not in got or got[key].numel() != want[key].numel():
            good = False
            continue
        error = worst(got[key].reshape(want[key].shape), want[key])
        note = f"torch rounds by {rounding[key]:.0e}"
        if error > AIM and error > 3 * rounding[key]:
            note += f", above the aim of {AIM:.0e}"
        good &= report.line(name, key, error, max(LIMIT, 3 * rounding[key]), note)
    margin = max(LIMIT, 3 * rounding["logits"])
    logits = want["logits"][0]
    if "mask" not in got:
        report.fail(name, "no mask in the dump")
    else:
        masks = got["mask"].reshape(-1, height, width) > 0
        # one mask of several is the one that upstream's callers take: the best predicted IoU
        chosen = logits if len(masks) == len(logits) else logits[want["iou"][0].argmax()][None]
        good &= check_mask(report, name, "mask", masks, chosen, margin)
        written = folder / name / f"{name}_mask.png"
        if written.exists():
            png = torch.from_numpy(np.asarray(Image.open(written)).copy())
            first = chosen[0] if len(chosen) == 1 else logits[want["iou"][0].argmax()]
            good &= check_mask(report, name, "mask PNG", png > 0, first, margin)
            if not set(png.unique().tolist()) <= {0, 255}:
                report.fail(name, "the mask PNG holds values other than 0 and 255")
        else:
            report.fail(name, f"{written.name} was not written")
    if args.taps or not good:
        report.taps(got, want)


def main():
    args = arguments(__doc__)
    report = Report("MobileSAM", args)
    run_cases(report, args, Folder(args.keep), check, [(c[0], c[-1], c) for c in CASES])
    report.finish()


if __name__ == "__main__":
    main()
