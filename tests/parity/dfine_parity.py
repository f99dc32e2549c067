# SPDX-License-Identifier: Apache-2.0
"""D-FINE N, S, M, L, X and their relatives: `ultramotion detect --dump` against upstream's network in PyTorch, random weights."""

import torch
from common import AIM, LIMIT, Folder, Report, arguments, draw_image, json_lines, read_dump, run, run_cases, worst
from dfine_net import extent, in_double, match, network_input, place, random_network, taps
from PIL import Image
from safetensors.torch import save_file

# name, size, classes, input side, image (width, height, channels), wrapper, half precision storage, slow
CASES = [
    ("n-1-320-gray-ema", "n", 1, 320, (422, 558, 1), "ema", False, False),
    ("n-80-320-rgb-model", "n", 80, 320, (640, 480, 3), "model", False, False),
    ("n-2-640-gray-flat", "n", 2, 640, (422, 558, 1), "flat", False, False),
    ("n-1-640-rgb-ddp", "n", 1, 640, (640, 640, 3), "ddp", False, False),
    ("n-1-320-gray-ema-fp16", "n", 1, 320, (422, 558, 1), "ema", True, False),
    ("n-1-320-gray-mono-stem", "n", 1, 320, (422, 558, 1), "mono", False, False),
    ("n-1-320-graycolour", "n", 1, 320, (422, 558, 0), "state_dict", False, False),
    ("n-2-320-rgb-safetensors-fp16", "n", 2, 320, (200, 900, 3), "safetensors", True, False),
    ("n-1-320-upscaled", "n", 1, 320, (97, 61, 3), "flat", False, False),
    ("n-1-320-noncontiguous", "n", 1, 320, (422, 558, 1), "strided", False, False),
    ("s-1-640-gray-flat", "s", 1, 640, (422, 558, 1), "flat", False, False),
    ("s-80-320-rgb-ema", "s", 80, 320, (1280, 720, 3), "ema", False, False),
    ("s-2-640-rgb-model-fp16", "s", 2, 640, (640, 480, 3), "model", True, True),
    ("m-1-320-gray-model", "m", 1, 320, (422, 558, 1), "model", False, False),
    ("m-80-640-rgb-flat", "m", 80, 640, (640, 480, 3), "flat", False, True),
    ("l-1-320-gray-model", "l", 1, 320, (422, 558, 1), "model", False, False),
    ("l-80-640-rgb-ema", "l", 80, 640, (640, 480, 3), "ema", False, True),
    ("x-1-320-gray-model", "x", 1, 320, (422, 558, 1), "model", False, False),
    ("x-80-640-rgb-ema-fp16", "x", 80, 640, (640, 480, 3), "ema", True, True),
    ("hf-n-1-320", "n", 1, 320, (422, 558, 1), "hf", False, False),
    ("hf-s-80-320", "s", 80, 320, (640, 480, 3), "hf", False, False),
]


# What tells relatives apart. name, size, classes, input (a side, or width and height), image, wrapper, variant of the network,
# options of the command
VARIANTS = [
    ("deim-n-320", "n", 1, 320, (422, 558, 1), "model", {"silu": True}, ["--det-act", "silu"]),
    ("deim-s-320-rgb-ema", "s", 80, 320, (640, 480, 3), "ema", {"silu": True}, ["--det-act", "silu"]),
    ("deim-l-320", "l", 1, 320, (422, 558, 1), "model", {"silu": True}, ["--det-act", "silu"]),
    ("n-320x256-anchors", "n", 1, (320, 256), (422, 558, 1), "model", {}, []),
    ("n-256x416-anchors-fp16", "n", 2, (256, 416), (640, 480, 3), "half", {}, []),
    ("s-512x320-anchors", "s", 1, (512, 320), (640, 480, 1), "model", {}, []),
    ("n-384x320-mono-stem", "n", 1, (384, 320), (422, 558, 1), "mono", {}, []),
    ("n-100-queries", "n", 1, 320, (422, 558, 1), "model", {"num_queries": 100, "num_top_queries": 100}, ["--queries", "100"]),
    ("s-500-queries", "s", 3, 320, (422, 558, 1), "model", {"num_queries": 500}, ["--queries", "500"]),
    ("s-ffn-512", "s", 1, 320, (422, 558, 1), "model", {"decoder_dim_feedforward": 512}, []),
    ("s-encoder-ffn-768", "s", 1, 320, (422, 558, 1), "model", {"encoder_dim_feedforward": 768}, []),
    ("s-points-4-4-4", "s", 1, 320, (422, 558, 1), "model", {"num_points": [4, 4, 4]}, []),
    ("n-points-8-4", "n", 1, 320, (422, 558, 1), "model", {"num_points": [8, 4]}, []),
    ("s-5-layers", "s", 1, 320, (422, 558, 1), "model", {"decoder_layers": 5}, []),
    ("n-width-160", "n", 1, 320, (422, 558, 1), "model", {"hidden_dim": 160, "feat_channels": [160, 160]}, []),
    ("s-width-192-128", "s", 1, 320, (422, 558, 1), "model", {"hidden_dim": 192, "decoder_hidden_dim": 128, "feat_channels": [192] * 3}, []),
    ("n-reg-max-16", "n", 1, 320, (422, 558, 1), "model", {"reg_max": 16}, []),
    ("b1", "s", 1, 320, (422, 558, 1), "model", {"backbone": "hgnetv2_b1"}, []),
    ("b3", "m", 1, 320, (422, 558, 1), "model", {"backbone": "hgnetv2_b3", "in_channels": [512, 1024, 2048]}, []),
    ("n-320-letterbox", "n", 1, 320, (422, 558, 1), "model", {"letterbox": True}, ["--det-fit", "letterbox"]),
    ("n-320-letterbox-wide", "n", 1, 320, (1280, 500, 3), "model", {"letterbox": True}, ["--det-fit", "letterbox"]),
    ("n-512x256-letterbox", "n", 1, (512, 256), (300, 301, 1), "model", {"letterbox": True}, ["--det-fit", "letterbox"]),
    ("hf-n-silu", "n", 3, 320, (422, 558, 1), "hf", {"decoder_activation_function": "silu"}, []),
    ("hf-n-200-queries", "n", 1, 320, (422, 558, 1), "hf", {"num_queries": 200}, []),
    ("hf-n-320x256", "n", 1, (320, 256), (422, 558, 1), "hf", {}, []),
    ("hf-s-ffn-512", "s", 1, 320, (422, 558, 1), "hf", {"decoder_ffn_dim": 512}, []),
    ("hf-n-points-8-4", "n", 1, 320, (422, 558, 1), "hf", {"decoder_n_points": [8, 4]}, []),
]  # fmt: skip


def save(net, wrapper, half, path):
    """Write a checkpoint as users have them."""
    state = dict(net.state_dict())
    scale = state["decoder.reg_scale"]  # upstream stores it as int64
    for key in ("decoder.reg_scale", "decoder.decoder.reg_scale"):
        state[key] = scale.to(torch.int64)
    if half:
        state = {k: v.half() if v.dtype == torch.float32 else v for k, v in state.items()}
    if wrapper == "mono":
        stem = "backbone.stem.stem1.conv.weight"
        state[stem] = state[stem].sum(1, keepdim=True)
    if wrapper == "strided":  # a transposed view and a slice of a larger storage
        for key, value in state.items():
            if value.dim() == 2:
                state[key] = value.t().contiguous().t()
            elif value.dim() == 1 and value.dtype == torch.float32:
                state[key] = torch.cat([torch.full((3,), 99.0), value])[3:]
    noise = {k: torch.full_like(v, 7) for k, v in state.items()}  # raw weights beside the averaged ones must not be taken
    if wrapper == "safetensors":
        save_file({k: v.clone().contiguous() for k, v in state.items()}, str(path))
        return
    whole = {
        "ema": {"model": noise, "ema": {"module": state, "updates": 12}, "last_epoch": 3, "date": "2026-01-01"},
        "model": {"model": state},
        "state_dict": {"state_dict": state, "epoch": 1},
        "ddp": {"module." + k: v for k, v in state.items()},
    }.get(wrapper, state)
    torch.save(whole, path)


def hugging_face(size, classes, side, path, seed, folder, name, variant):
    """A random network of the transformers package, saved by it; returns its file and its outputs in fp32 and fp64."""
    import copy

    from common import calibrate, random_parameters
    from dfine_net import NearTie, check_gap
    from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config

    nano = size == "n"
    backbone = HGNetV2Config(
        stem_channels=[3, 16, 16], stage_in_channels=[16, 64, 256, 512], stage_mid_channels=[16, 32, 64, 128],
        stage_out_channels=[64, 256, 512, 1024], stage_num_blocks=[1, 1, 2, 1], stage_numb_of_layers=[3, 3, 3, 3],
        stage_downsample=[False, True, True, True], stage_light_block=[False, False, True, True], stage_kernel_size=[3, 3, 5, 5],
        hidden_sizes=[64, 256, 512, 1024], use_learnable_affine_block=True, out_indices=[3, 4] if nano else [2, 3, 4],
    )  # fmt: skip
    common = dict(backbone_config=backbone, num_labels=classes, decoder_layers=3, freeze_backbone_batch_norms=False)
    if nano:
        common |= dict(
            encoder_hidden_dim=128, d_model=128, encoder_in_channels=[512, 1024], feat_strides=[16, 32],
            encode_proj_layers=[1], encoder_ffn_dim=512, decoder_ffn_dim=512, hidden_expansion=0.34, depth_mult=0.5,
            decoder_in_channels=[128, 128], num_feature_levels=2, decoder_n_points=[6, 6],
        )  # fmt: skip
    else:
        common |= dict(encoder_in_channels=[256, 512, 1024], hidden_expansion=0.5, depth_mult=0.34, decoder_n_points=[3, 6, 3])
    config = DFineConfig(**{**common, **variant})
    x = network_input(path, side)
    for draw in range(20):
        generator = torch.Generator().manual_seed(1000 * seed + draw)
        net = DFineForObjectDetection(config).eval()
        random_parameters(net, generator)
        for name, parameter in net.named_parameters():
            if "sampling_offsets.bias" in name:
                parameter.mul_(10)
        calibrate(net, lambda: net(pixel_values=x))
        seen = []
        hook = net.model.enc_score_head.register_forward_hook(lambda m, i, o: seen.append(o))
        out = net(pixel_values=x)
        hook.remove()
        try:
            check_gap(seen[0], config.num_queries)
        except NearTie:
            continue
        target = folder / f"{name}.hf"
        net.save_pretrained(target)
        exact = copy.deepcopy(net).double()(pixel_values=x.double())
        keys = ("pred_logits", "pred_boxes")
        return (target / "model.safetensors", dict(zip(keys, (out.logits, out.pred_boxes))), dict(zip(keys, (exact.logits, exact.pred_boxes))), draw)
    raise RuntimeError("twenty near ties in a row")


def best_box(out, path, side, letterbox):
    """The box with the best score in pixels of the image."""
    left, top, width, height = place(path, side, letterbox)
    (w, h), (whole_w, whole_h) = Image.open(path).size, extent(side)
    query = out["pred_logits"][0].max(-1).values.argmax()
    x, y, bw, bh = out["pred_boxes"][0][query].double().tolist()
    return torch.tensor([((x + s * bw / 2) * whole_w - left) * w / width if axis == 0 else ((y + s * bh / 2) * whole_h - top) * h / height
                         for s in (-1, 1) for axis in (0, 1)])


def check(report, args, folder, case):
    variant, options = {}, None
    if len(case) == len(VARIANTS[0]) and isinstance(case[6], dict):
        name, size, classes, side, (width, height, channels), wrapper, variant, options = case
        half, wrapper = wrapper == "half", "model" if wrapper == "half" else wrapper
    else:
        name, size, classes, side, (width, height, channels), wrapper, half, _ = case
    letterbox = variant.get("letterbox", False)
    image_path = draw_image(folder / f"{name}.png", width, height, channels or 1, args.seed)
    if channels == 0:  # gray content in an RGB file
        Image.open(image_path).convert("RGB").save(image_path)
    file = folder / f"{name}{'.safetensors' if wrapper == 'safetensors' else '.pth'}"
    if wrapper == "hf":
        file, want, exact, draw = hugging_face(size, classes, side, image_path, args.seed, folder, name, variant)
    else:
        net, draw = random_network(size, classes, side, image_path, args.seed, half, **variant)
        save(net, wrapper, half, file)
        x = network_input(image_path, side, letterbox)
        want, exact = taps(net, x), in_double(net, x)
    same = match(want, exact)
    if same is None:
        raise RuntimeError(f"{name}: fp32 and fp64 choose different queries; another --seed")
    keys = ("pred_logits", "pred_boxes")
    rounding = {k: worst(want[k][0][same], exact[k][0]) for k in keys}
    if args.oracle:
        for key in keys:
            report.oracle(name, f"{key} ({draw})", rounding[key])
        return
    dump = folder / f"{name}.dump.safetensors"
    # a variant's size is in its file, a Hugging Face one's is not
    of_size = ["--det-size", "x".join(map(str, extent(side)))] if options is None or wrapper == "hf" else []
    printed = run(args, "detect", image_path, "--detector", file, *of_size, *(options or []), "--conf", "0", "--precision", "fp32", "--dump", dump)
    got = read_dump(dump)
    for key in keys:
        if key not in got or got[key].shape != want[key].shape:
            report.fail(name, f"{key} is {tuple(got[key].shape) if key in got else 'missing'}, want {tuple(want[key].shape)}")
            return
    index = match(got, want)
    good = True
    if index is None:
        report.fail(name, "the queries do not pair one to one")
        good, index = False, torch.arange(want["pred_boxes"].shape[1])
    for key in keys:
        error = worst(got[key][0][index], want[key][0])
        limit = max(LIMIT, 3 * rounding[key])
        note = f"torch rounds by {rounding[key]:.0e}" + ("" if error <= AIM or error <= 3 * rounding[key] else f", above the aim of {AIM:.0e}")
        good &= report.line(name, key, error, limit, note)
    if options is not None and letterbox:
        ours = torch.tensor(json_lines(printed)[0]["boxes"][0]["box_xyxy"])
        w, h = Image.open(image_path).size
        box = best_box(want, image_path, side, letterbox)
        clamped = torch.stack([box[0::2].clamp(0, w), box[1::2].clamp(0, h)], 1).flatten()
        good &= report.line(name, "box in pixels", worst(ours, clamped), 0.02)
    if args.taps or not good:
        report.taps(got, want, index)


def check_or_skip(report, args, folder, case):
    try:
        check(report, args, folder, case)
    except ImportError as error:
        report.skip(case[0], error)


def main():
    args = arguments(__doc__)
    report = Report("D-FINE", args)
    run_cases(report, args, Folder(args.keep), check_or_skip, [(c[0], c[-1] is True, c) for c in CASES + VARIANTS])
    report.finish()


if __name__ == "__main__":
    main()
