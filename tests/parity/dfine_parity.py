# SPDX-License-Identifier: Apache-2.0
"""D-FINE N, S, M, L, X: `ultramotion detect --dump` against upstream's network in PyTorch, random weights."""

import torch
from common import AIM, LIMIT, CommandFailed, Folder, Report, arguments, picture, read_dump, run, stopwatch, worst
from dfine_net import in_double, match, network_input, random_network, taps
from safetensors.torch import save_file

# name, size, classes, input side, picture (width, height, channels), wrapper, half precision storage, slow
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


def hugging_face(size, classes, side, path, seed, folder):
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
        config = DFineConfig(
            **common, encoder_hidden_dim=128, d_model=128, encoder_in_channels=[512, 1024], feat_strides=[16, 32],
            encode_proj_layers=[1], encoder_ffn_dim=512, decoder_ffn_dim=512, hidden_expansion=0.34, depth_mult=0.5,
            decoder_in_channels=[128, 128], num_feature_levels=2, decoder_n_points=[6, 6],
        )  # fmt: skip
    else:
        config = DFineConfig(**common, encoder_in_channels=[256, 512, 1024], hidden_expansion=0.5, depth_mult=0.34, decoder_n_points=[3, 6, 3])
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
            check_gap(seen[0])
        except NearTie:
            continue
        target = folder / f"hf-{size}"
        net.save_pretrained(target)
        exact = copy.deepcopy(net).double()(pixel_values=x.double())
        keys = ("pred_logits", "pred_boxes")
        return (target / "model.safetensors", dict(zip(keys, (out.logits, out.pred_boxes))), dict(zip(keys, (exact.logits, exact.pred_boxes))), draw)
    raise RuntimeError("twenty near ties in a row")


def check(report, args, folder, case):
    name, size, classes, side, (width, height, channels), wrapper, half, _ = case
    picture_path = picture(folder / f"{name}.png", width, height, channels or 1, args.seed)
    if channels == 0:  # gray content in an RGB file
        from PIL import Image

        Image.open(picture_path).convert("RGB").save(picture_path)
    file = folder / f"{name}{'.safetensors' if wrapper == 'safetensors' else '.pth'}"
    if wrapper == "hf":
        file, want, exact, draw = hugging_face(size, classes, side, picture_path, args.seed, folder)
    else:
        net, draw = random_network(size, classes, side, picture_path, args.seed, half)
        save(net, wrapper, half, file)
        x = network_input(picture_path, side)
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
    run(args, "detect", picture_path, "--detector", file, "--det-size", side, "--precision", "fp32", "--dump", dump)
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
    if args.taps or not good:
        report.taps(got, want, index)


def main():
    args = arguments(__doc__)
    report, folder = Report("D-FINE", args), Folder(args.keep)
    for case in CASES:
        if args.only not in case[0] or (case[-1] and not args.full and not args.only):
            continue
        seconds = stopwatch()
        try:
            check(report, args, folder, case)
        except CommandFailed as error:
            report.fail(case[0], error)
        except ImportError as error:
            report.skip(case[0], error)
        if args.taps or args.oracle:
            print(f"    {seconds():.1f} s")
        if not args.keep:
            for file in folder.path.glob(f"{case[0]}*"):
                file.unlink()
    report.finish()


if __name__ == "__main__":
    main()
