# SPDX-License-Identifier: Apache-2.0
"""Upstream MobileSAM at any canvas, with the tensors tests compare. Needs torch and mobile_sam."""
import types
import warnings

import torch

warnings.filterwarnings("ignore")
from mobile_sam.build_sam import build_sam_vit_t  # noqa: E402
from mobile_sam.modeling.tiny_vit_sam import TinyViT  # noqa: E402


def build(canvas, state=None):
    """The network for a square canvas. Upstream hard-wires 1024 in a few places; nothing learned depends on it."""
    sam = build_sam_vit_t()
    n = canvas // 16
    encoder = TinyViT(
        img_size=canvas, in_chans=3, num_classes=1000, embed_dims=[64, 128, 160, 320], depths=[2, 2, 6, 2],
        num_heads=[2, 4, 5, 10], window_sizes=[7, 7, 14, 7], mlp_ratio=4.0, drop_rate=0.0, drop_path_rate=0.0,
        use_checkpoint=False, mbconv_expand_ratio=4.0, local_conv_size=3, layer_lr_decay=0.8)

    def forward_features(self, x):
        x = self.patch_embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.neck(x.view(x.shape[0], n, n, -1).permute(0, 3, 1, 2))

    encoder.forward_features = types.MethodType(forward_features, encoder)
    sam.image_encoder = encoder
    sam.prompt_encoder.image_embedding_size = (n, n)
    sam.prompt_encoder.input_image_size = (canvas, canvas)
    sam.prompt_encoder.mask_input_size = (4 * n, 4 * n)
    if state is not None:
        sam.load_state_dict(state)
    sam.eval()  # fills the attention bias cache from the loaded weights
    return sam


TAPS = {
    "stem": lambda m: m.patch_embed, "layer0_block1": lambda m: m.layers[0].blocks[1],
    "merge0": lambda m: m.layers[0].downsample, "layer1_block0": lambda m: m.layers[1].blocks[0],
    "layer1_block1": lambda m: m.layers[1].blocks[1], "merge1": lambda m: m.layers[1].downsample,
    "layer2_block5": lambda m: m.layers[2].blocks[5], "merge2": lambda m: m.layers[2].downsample,
    "layer3_block1": lambda m: m.layers[3].blocks[1],
}


def encode(sam, image, taps):
    """image [1,3,S,S] -> embedding; fills taps with name -> [C,h,w]."""
    hooks = []

    def keep(name):
        def hook(_module, _args, out):
            if out.dim() == 3:  # tokens
                side = int(round(out.shape[1] ** 0.5))
                out = out.view(1, side, side, -1).permute(0, 3, 1, 2)
            taps[name] = out[0].clone()
        return hook

    for name, find in TAPS.items():
        hooks.append(find(sam.image_encoder).register_forward_hook(keep(name)))
    with torch.no_grad():
        embedding = sam.image_encoder(image)
    for hook in hooks:
        hook.remove()
    taps["image_embedding"] = embedding[0].clone()
    return embedding


def decode(sam, embedding, taps, box=None, points=None, labels=None, mask=None, multimask=False):
    """Prompts in canvas pixels. Fills taps sparse_tokens, low_res_logits [M,4n,4n], iou [M]."""
    with torch.no_grad():
        sparse, dense = sam.prompt_encoder(
            points=None if points is None else (torch.tensor(points)[None], torch.tensor(labels)[None]),
            boxes=None if box is None else torch.tensor(box)[None], masks=None if mask is None else mask[None])
        low, iou = sam.mask_decoder(
            image_embeddings=embedding, image_pe=sam.prompt_encoder.get_dense_pe(), sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense, multimask_output=multimask)
    taps["sparse_tokens"] = sparse[0]
    taps["low_res_logits"] = low[0]
    taps["iou"] = iou[0]
    return low
