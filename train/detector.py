# SPDX-License-Identifier: Apache-2.0
"""D-FINE-N on the phantom, with upstream's losses: python train/detector.py OUT. Goes on where it was stopped; writes OUT/detector.safetensors."""

import functools
import sys

import cv2
import numpy as np
import torch
from dfine.backends.native import DFINE
from dfine.backends.native.criterion import DFINECriterion
from dfine.backends.native.hgnetv2 import LearnableAffineBlock
from dfine.config import DFINEConfig

import dataset
import frames
import run

SIDE = 320
# Taken from what goes into the score's sigmoid, so that 0.5 is where few empty images are: 0.55 left 3.4 % of 2,000 hard ones there, 0.70 leaves 2.4 %
# (README.md). The metadata's `calm` says how much, and a run that starts from such a model adds it again first.
CALM = 0.70
# How many boxes count for a frame's score, and what their probability must be to be one half (README.md).
PRESENCE = "5,0.69"
# The filter that resizes images reaches so many pixels of the input (README.md); the metadata's `smooth` says so.
SMOOTH = 2
PHANTOM = "ultramotion phantom, look=hard and default" + run.NOTHING_REAL
# Shares of the hard look, of images without bone and of shaded ones, shapes of surfaces that come more often, and the share of images with a septum.
DIET = (0.7, 0.3, 0.15, {"humps": 0.1, "flank": 0.07}, 0.2)


def sample(own, marks, seed, index):
    """The image [320,320] u8, the boxes in it [K,4] (centre and size, 0 to 1) and their labels [K]."""
    s = frames.draw(seed, index, *DIET, own=own, marks=marks)
    h, w = s.image.shape
    found = [(frames.box_of(mask), label) for mask, label in zip(s.masks, s.labels) if label >= 0]
    found = [(b, label) for b, label in found if b is not None and min(b[2] - b[0], b[3] - b[1]) >= 2]
    image = cv2.resize(s.image, (SIDE, SIDE), interpolation=cv2.INTER_AREA if max(h, w) > SIDE else cv2.INTER_LINEAR)
    image = cv2.GaussianBlur(image, (0, 0), ((SMOOTH**2 - 1) / 6) ** 0.5)  # by which a triangle so wide is wider than one of a pixel
    centres = [[(b[0] + b[2]) / 2 / w, (b[1] + b[3]) / 2 / h, (b[2] - b[0]) / w, (b[3] - b[1]) / h] for b, _ in found]
    return image, np.array(centres, np.float32).reshape(-1, 4), np.array([label for _, label in found], np.int64)


def affine(block, x):
    """HGNetV2's learned scale and offset in the type of x: float ones would make all that follows float."""
    return x * block.scale.to(x.dtype) + block.bias.to(x.dtype)


def depthwise(conv, x):
    """A convolution in float under autocast: on a CPU oneDNN takes 3 (stride 1) to 30 (stride 2) times as long for its gradients in bf16."""
    with torch.autocast("cpu", enabled=False):
        return conv._conv_forward(x.float(), conv.weight, conv.bias).to(x.dtype)


def is_score_bias(key):
    return key.startswith("decoder.dec_score_head.") and key.endswith(".bias")


def main():
    args = run.arguments(__doc__, run.SHIPPED / "dfine_n_bone_320.safetensors", steps=3400, batch=16, rate=4e-4, boxes_do=True)
    args.clip = 0.1
    if not args.data and not args.export:
        if "bone" not in args.classes:
            sys.exit(f"{args.start}: no class bone, which the phantom shows, among {', '.join(args.classes)}: --data says what else to train on")
        if len(args.classes) > 1:
            args.own = dataset.Own(None, None, None, (0, 0, 0), 1, args.classes.index("bone"))
    config = DFINEConfig.preset("n", backbone_pretrained=False, num_classes=len(args.classes), imgsz=SIDE, num_queries=60, num_top_queries=60, num_denoising=24)
    net = DFINE.from_config(config)
    weights, before = run.weights_of(args.start), run.metadata_of(args.start)
    start = {k: v + float(before.get("calm", 0)) if is_score_bias(k) else v for k, v in weights.items()}
    own = net.state_dict()
    missing = [k for k in own if k not in start and not k.endswith("num_batches_tracked") and "denoising" not in k]
    if missing:
        sys.exit(f"{args.start}: no D-FINE-N: it lacks {len(missing)} tensors, the first of them {missing[0]}")
    for k in own:  # another number of classes
        if k in start and start[k].shape != own[k].shape:
            print(f"{args.start}: {k} is {list(start[k].shape)}, want {list(own[k].shape)}: it begins anew", file=sys.stderr)
    net.load_state_dict({k: start[k].to(own[k].dtype) if k in start and start[k].shape == own[k].shape else own[k] for k in own})
    net.to(args.device, memory_format=torch.channels_last).train()
    for m in net.modules() if args.bf16 else ():
        if isinstance(m, LearnableAffineBlock):
            m.forward = functools.partial(affine, m)
        elif isinstance(m, torch.nn.Conv2d) and m.groups == m.in_channels > 1 and args.device == "cpu":
            m.forward = functools.partial(depthwise, m)
    criterion = DFINECriterion.from_config(config).to(args.device)
    plain = [p for n, p in net.named_parameters() if p.ndim < 2]
    decayed = [p for n, p in net.named_parameters() if p.ndim >= 2]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 1e-4}, {"params": plain, "weight_decay": 0.0}], lr=args.rate)
    state = run.Run(args, net, optimizer)

    def loss_of(batch):
        images = torch.from_numpy(np.stack([p for p, *_ in batch])).to(args.device).float()[:, None].expand(-1, 3, -1, -1) / 255
        images = images.contiguous(memory_format=torch.channels_last)
        targets = [{"boxes": torch.from_numpy(b).to(args.device), "labels": torch.from_numpy(k).to(args.device)} for _, b, k in batch]
        with torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.bf16):
            features = net.encoder(net.backbone(images))
        outputs = net.decoder([f.float() for f in features], targets)
        if not outputs["pred_boxes"].isfinite().all():  # which the criterion asserts, in words of its own
            return {"loss_bbox": outputs["pred_boxes"].sum()}
        losses = criterion(outputs, targets, epoch=0, step=state.step, global_step=state.step, epoch_step=0)
        groups = {}
        for k, v in losses.items():  # by kind, over layers and denoising
            kind = "_".join(k.split("_")[:2])
            groups[kind] = groups.get(kind, 0) + v
        return groups

    if not args.export:
        state.go(frames.batches(functools.partial(sample, args.own, args.marks, args.seed), state.step, args.batch, args.workers), loss_of)
    # Both were chosen on empty phantom frames; of one's own nothing of the kind is known, so they stay as they were.
    calm, presence = (float(before.get("calm", 0)), before.get("presence", 1)) if args.data else (CALM, PRESENCE)
    weights = {k: v - calm if is_score_bias(k) else v for k, v in run.mixed(args, state.average.state, start).items()}
    run.export(args, weights, "detector.safetensors", {
        "architecture": "dfine-n", "name": f"D-FINE-N {', '.join(args.classes) if args.data else 'bone surface'}, 320x320",
        "input_size": SIDE, "classes": run.names(args.classes), "activation": "relu", "fit": "stretch", "nms": 0.7,
        "calm": calm, "presence": presence, "gain": "off", "gray": 1, "smooth": SMOOTH,
        "training_data": run.learned_from(before, args.data or PHANTOM), "steps": run.steps_of(before, args, state.step), "licence": run.licence_of(before),
        "producer": "ultramotion train/detector.py"})


if __name__ == "__main__":
    main()
