# SPDX-License-Identifier: Apache-2.0
"""Upstream's D-FINE with random weights, and its outputs in PyTorch."""

import copy

import numpy as np
import torch
from common import calibrate, random_parameters
from dfine.backends.native import DFINE
from dfine.config import DFINEConfig
from PIL import Image

# State dict keys of upstream's repository at 80 classes; a package that drifts from it is no judge.
KEYS = {"n": 674, "s": 794, "m": 1053, "l": 1173, "x": 1441}


class NearTie(Exception):
    """The last query and the next of the encoder's scores are too close: rounding decides which query lives."""


def extent(side):
    """Width and height of an input: a number is a square."""
    return side if isinstance(side, tuple) else (side, side)


def reshape(net, width, height):
    """The tables of an input that is not square (eval_spatial_size is [height, width])."""
    net.encoder.eval_spatial_size = net.decoder.eval_spatial_size = [height, width]
    net.encoder._reset_parameters()
    net.decoder.anchors, net.decoder.valid_mask = net.decoder._generate_anchors()


def deim(net):
    """DEIM-D-FINE (Intellindust-AI-Lab/DEIM, engine/deim/dfine_decoder.py): the same modules, SiLU in the decoder's feed-forward
    layers (activation, which its quality heads take too) and in all box heads (mlp_act)."""
    for module in net.decoder.modules():
        if type(module).__name__ == "MLP":
            module.act = torch.nn.SiLU()
        elif type(module).__name__ == "TransformerDecoderLayer":
            module.activation = torch.nn.SiLU()


def build(size, classes, side, silu=False, **sizes):
    """sizes: fields of the package's config that differ from the published size's."""
    width, height = extent(side)
    net = DFINE.from_config(DFINEConfig.preset(size, backbone_pretrained=False, num_classes=classes, imgsz=width, **sizes)).eval()
    if not sizes and len(net.state_dict()) != KEYS[size]:
        raise RuntimeError(f"D-FINE-{size}: {len(net.state_dict())} keys, upstream has {KEYS[size]}: not upstream's architecture")
    if width != height:
        reshape(net, width, height)
    if silu:
        deim(net)
    return net


def load(state, size, classes, side):
    """As upstream's loader: everything from the file, also its anchors where they are those of this input size."""
    net = build(size, classes, side)
    own = net.state_dict()
    tables = ("decoder.anchors", "decoder.valid_mask")
    net.load_state_dict({k: own[k] if k in tables and v.shape != own[k].shape else v.to(own[k].dtype) for k, v in state.items()})
    return net


def place(path, side, letterbox=False):
    """Where an image lies in the input: left, top, width, height. A letterbox is that of upstream's tools/inference/onnx_inf.py."""
    width, height = extent(side)
    if not letterbox:
        return 0, 0, width, height
    w, h = Image.open(path).size
    ratio = min(width / w, height / h)
    inner = int(w * ratio), int(h * ratio)
    return (width - inner[0]) // 2, (height - inner[1]) // 2, *inner


def network_input(path, side, letterbox=False):
    """RGB, resized with Pillow's bilinear filter, black around a letterbox, value/255."""
    left, top, width, height = place(path, side, letterbox)
    image = Image.new("RGB", extent(side))
    image.paste(Image.open(path).convert("RGB").resize((width, height), Image.BILINEAR), (left, top))
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255


def randomise(net, x, generator):
    random_parameters(net, generator)
    decoder = net.decoder
    # Calmer than random, so that six layers do not amplify rounding: offsets follow their biases, which spread the sampling
    # points over about their query's box, and each layer refines a box a little.
    for layer in decoder.decoder.layers:
        layer.cross_attn.sampling_offsets.weight.mul_(0.3)
        layer.cross_attn.sampling_offsets.bias.mul_(10)
    for head in (decoder.enc_bbox_head, decoder.pre_bbox_head, *decoder.dec_bbox_head):
        head.layers[-1].weight.mul_(0.3)
    decoder.up.fill_(0.55)  # not the initial value: files may drift
    decoder.decoder.up = decoder.up
    calibrate(net, lambda: net(x))


def check_gap(scores, queries=300):
    top = scores.max(-1).values.flatten().sort(descending=True).values
    if queries < len(top) and (top[queries - 1] - top[queries]).item() < 3e-4 * top.abs().max().item():
        raise NearTie


def random_network(size, classes, side, path, seed, half=False, letterbox=False, **variant):
    """A random network whose query set for the image at `path` is beyond doubt; draws again after a near tie."""
    for draw in range(20):
        net = build(size, classes, side, **variant)
        x = network_input(path, side, letterbox)
        randomise(net, x, torch.Generator().manual_seed(1000 * seed + draw))
        if half:
            net.half().float()  # its tables of anchors too, as in files
        seen = []
        hook = net.decoder.enc_score_head.register_forward_hook(lambda m, i, o: seen.append(o))
        net(x)
        hook.remove()
        try:
            check_gap(seen[0], net.decoder.num_queries)
            return net, draw
        except NearTie:
            continue
    raise RuntimeError("twenty near ties in a row")


def taps(net, x):
    """Outputs and named intermediates of one forward pass."""
    found, hooks = {}, []

    def tap(module, name):
        hooks.append(module.register_forward_hook(lambda m, i, o: found.update({name: o.detach().clone()})))

    tap(net.backbone.stem, "stem")
    for i, stage in enumerate(net.backbone.stages):
        tap(stage, f"stage{i}")
    for i, projection in enumerate(net.encoder.input_proj):
        tap(projection, f"input_proj{i}")
    tap(net.encoder.encoder[0], "aifi_tokens")
    for i, block in enumerate(net.encoder.fpn_blocks):
        tap(block, f"fpn{i}")
    for i, block in enumerate(net.encoder.pan_blocks):
        tap(block, f"pan{i}")
    tap(net.decoder.enc_output, "enc_output")
    tap(net.decoder.enc_score_head, "enc_score")
    for i, layer in enumerate(net.decoder.decoder.layers):
        tap(layer.cross_attn, f"cross{i}")
        tap(layer, f"dec{i}")
    out = net(x)
    for hook in hooks:
        hook.remove()
    found["pred_logits"], found["pred_boxes"] = out["pred_logits"], out["pred_boxes"]
    return found


def in_double(net, x):
    return taps(copy.deepcopy(net).double(), x.double())


def match(ours, theirs):
    """Pair queries by nearest (box, logits): near ties in the encoder's scores may change their order, not the set.

    Returns for each of their queries the index of ours, or None when that is not a permutation."""

    def rows(out):
        return torch.cat([out["pred_boxes"][0].double(), out["pred_logits"][0].double()], 1)

    index = torch.cdist(rows(theirs), rows(ours), p=float("inf")).argmin(1)
    return index if len(set(index.tolist())) == len(index) else None
