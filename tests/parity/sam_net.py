# SPDX-License-Identifier: Apache-2.0
"""Upstream's MobileSAM at any canvas size, with random weights, and its outputs in PyTorch."""

import copy
import types
from functools import partial

import numpy as np
import torch
from common import calibrate, random_parameters
from mobile_sam.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TinyViT, TwoWayTransformer
from mobile_sam.utils.transforms import ResizeLongestSide
from PIL import Image

KEYS = 439  # of upstream's checkpoint


def _forward_features(self, x):
    # upstream's, without its reshape to 64 x 64
    x = self.patch_embed(x)
    for layer in self.layers:
        x = layer(x)
    side = self.img_size // 16
    return self.neck(x.view(x.shape[0], side, side, x.shape[-1]).permute(0, 3, 1, 2))


def _forward_with_coords(self, coords, size):
    # upstream's, in the precision of the weights
    scale = torch.tensor([size[1], size[0]], dtype=coords.dtype)
    return self._pe_encoding((coords / scale).to(self.positional_encoding_gaussian_matrix.dtype))


def _dense_pe(self):
    h, w = self.image_embedding_size
    pe = self.pe_layer
    y, x = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
    return pe._pe_encoding(torch.stack([x, y], -1).to(pe.positional_encoding_gaussian_matrix.dtype)).permute(2, 0, 1)[None]


def _assemble(image_encoder, canvas):
    """Upstream's build_sam functions with the canvas as a parameter."""
    side = canvas // 16
    net = Sam(
        image_encoder=image_encoder,
        prompt_encoder=PromptEncoder(embed_dim=256, image_embedding_size=(side, side), input_image_size=(canvas, canvas), mask_in_chans=16),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3, transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8), transformer_dim=256,
            iou_head_depth=3, iou_head_hidden_dim=256,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )  # fmt: skip
    net.prompt_encoder.pe_layer.forward_with_coords = types.MethodType(_forward_with_coords, net.prompt_encoder.pe_layer)
    net.prompt_encoder.get_dense_pe = types.MethodType(_dense_pe, net.prompt_encoder)
    return net.eval()


def build(canvas):
    """Upstream's build_sam_vit_t() at any canvas."""
    net = _assemble(
        TinyViT(
            img_size=canvas, in_chans=3, num_classes=1000, embed_dims=[64, 128, 160, 320], depths=[2, 2, 6, 2], num_heads=[2, 4, 5, 10],
            window_sizes=[7, 7, 14, 7], mlp_ratio=4.0, drop_rate=0.0, drop_path_rate=0.0, use_checkpoint=False, mbconv_expand_ratio=4.0,
            local_conv_size=3, layer_lr_decay=0.8,
        ),
        canvas,
    )  # fmt: skip
    if len(net.state_dict()) != KEYS:
        raise RuntimeError(f"MobileSAM: {len(net.state_dict())} keys, upstream has {KEYS}: not upstream's architecture")
    net.image_encoder.forward = types.MethodType(_forward_features, net.image_encoder)
    return net.eval()


def build_vit(canvas, width, depth, heads, global_layers, window=14):
    """Upstream's _build_sam(): SAM with its own image encoder."""
    return _assemble(
        ImageEncoderViT(
            depth=depth, embed_dim=width, img_size=canvas, mlp_ratio=4, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), num_heads=heads,
            patch_size=16, qkv_bias=True, use_rel_pos=True, global_attn_indexes=global_layers, window_size=window, out_chans=256,
        ),
        canvas,
    )  # fmt: skip


def random_vit(seed, *shape, **window):
    """Well conditioned: residual branches damped."""
    generator = torch.Generator().manual_seed(seed)
    net = build_vit(*shape, **window)
    random_parameters(net, generator)
    gauss = net.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    gauss.copy_(torch.randn(gauss.shape, generator=generator))
    for name, parameter in net.named_parameters():
        if "rel_pos" in name or "pos_embed" in name:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    for block in net.image_encoder.blocks:
        block.attn.proj.weight.mul_(0.35)
        block.mlp.lin2.weight.mul_(0.35)
    return net.eval()


def load(state, canvas):
    net = build(canvas)
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    return net.eval()  # again: upstream caches the attention biases in eval()


def set_canvas(net, canvas):
    """A network of build() goes on with the same weights on another canvas."""
    encoder, side = net.image_encoder, canvas // 16
    for module in encoder.modules():
        if hasattr(module, "input_resolution"):
            module.input_resolution = tuple(n * canvas // encoder.img_size for n in module.input_resolution)
    encoder.img_size = canvas
    net.prompt_encoder.image_embedding_size, net.prompt_encoder.input_image_size = (side, side), (canvas, canvas)


def doubled(net):
    twin = copy.deepcopy(net).double()
    for module, name, function in (
        *([(twin.image_encoder, "forward", _forward_features)] if hasattr(twin.image_encoder, "layers") else []),
        (twin.prompt_encoder.pe_layer, "forward_with_coords", _forward_with_coords),
        (twin.prompt_encoder, "get_dense_pe", _dense_pe),
    ):  # the copies of the bound methods still belong to the original
        setattr(module, name, types.MethodType(function, module))
    return twin


def prepare(path, canvas):
    """The normalised, padded canvas [1,3,S,S] of an image, and the two sizes postprocessing wants, as (height, width)."""
    image = Image.open(path).convert("RGB")
    resized = ResizeLongestSide(canvas).apply_image(np.asarray(image))
    return torch.from_numpy(resized).permute(2, 0, 1)[None].float(), resized.shape[:2], (image.height, image.width)


def random_network(canvas, x, seed, calm):
    """calm: a well-conditioned network (residual branches damped, local convolutions near the identity)."""
    generator = torch.Generator().manual_seed(seed)
    net = build(canvas)
    random_parameters(net, generator)
    gauss = net.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    gauss.copy_(torch.randn(gauss.shape, generator=generator))
    for name, parameter in net.named_parameters():
        if name.endswith("attention_biases"):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
    blocks = [block for layer in net.image_encoder.layers for block in layer.blocks if hasattr(block, "local_conv")]
    if calm:
        for block in blocks:
            block.attn.proj.weight.mul_(0.35)
            block.mlp.fc2.weight.mul_(0.35)
            kernel = block.local_conv.c.weight
            kernel.mul_(0.08 / kernel.std())
            kernel[:, :, 1, 1] += 1
    net.eval()
    calibrate(net.image_encoder, lambda: net.image_encoder(net.preprocess(x)))
    if calm:
        for block in blocks:
            bn = block.local_conv.bn
            bn.weight.copy_(bn.running_var.sqrt() * (1 + 0.02 * torch.randn(bn.weight.shape, generator=generator)))
            bn.bias.copy_(bn.running_mean)
        net.eval()
    return net.eval()


def balance(net, *prompt):
    """Shift the hypernetworks so that about half of each mask is set: random ones give empty masks, which test little."""
    seen = []
    hook = net.mask_decoder.output_upscaling.register_forward_hook(lambda m, i, o: seen.append(o.sum(1)))
    for multimask in (False, True):
        low = predict(net, *prompt, multimask)["low_res_logits"][0]
        heads = list(net.mask_decoder.output_hypernetworks_mlps)
        for logits, head in zip(low, heads[1:] if multimask else heads[:1]):
            head.layers[-1].bias.sub_((logits / seen[-1][0]).median())
    hook.remove()


def taps(net):
    """Hooks for the encoder's intermediates; call the returned function for what they saw."""
    found, hooks = {}, []

    def grid(tensor):  # tokens [1,N,C] -> [1,C,h,w]
        if tensor.dim() == 3:
            side = round(tensor.shape[1] ** 0.5)
            tensor = tensor.transpose(1, 2).reshape(1, -1, side, side)
        return tensor.detach().clone()

    def tap(module, name):
        hooks.append(module.register_forward_hook(lambda m, i, o: found.update({name: grid(o)})))

    encoder = net.image_encoder
    for i, block in enumerate(getattr(encoder, "blocks", [])):  # SAM's ViT, channels last
        hooks.append(block.register_forward_hook(lambda m, i, o, name=f"block{i}": found.update({name: o.permute(0, 3, 1, 2).clone()})))
    if hasattr(encoder, "layers"):
        tap(encoder.patch_embed, "stem")
    for i, layer in enumerate(getattr(encoder, "layers", [])):
        for j, block in enumerate(layer.blocks):
            if hasattr(block, "local_conv"):
                tap(block.local_conv, f"layer{i}_block{j}_local")
            tap(block, f"layer{i}_block{j}")
        if layer.downsample is not None:
            tap(layer.downsample, f"merge{i}")
    tap(encoder.neck[1], "neck1")

    def finish():
        for hook in hooks:
            hook.remove()
        return found

    return finish


def predict(net, x, input_size, original_size, box, points, multimask):
    """What upstream's SamPredictor answers: embedding, low-res logits, IoU and full-size logits."""
    dtype = net.pixel_mean.dtype
    canvas = net.image_encoder.img_size
    height, width = original_size
    finish = taps(net)
    embedding = net.image_encoder(net.preprocess(x.to(dtype)))
    found = finish()
    transform = ResizeLongestSide(canvas)
    boxes = coordinates = None
    if box is not None:
        boxes = torch.as_tensor(transform.apply_boxes(np.array([box], np.float64), original_size), dtype=torch.float)
    if points:
        xy = transform.apply_coords(np.array([[p[0], p[1]] for p in points], np.float64), original_size)
        coordinates = (torch.as_tensor(xy, dtype=torch.float)[None], torch.tensor([[p[2] for p in points]], dtype=torch.int))
    sparse, dense = net.prompt_encoder(points=coordinates, boxes=boxes, masks=None)
    low, iou = net.mask_decoder(
        image_embeddings=embedding,
        image_pe=net.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse.to(dtype),
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
    )
    full = net.postprocess_masks(low, input_size, (height, width))
    return {**found, "image_embedding": embedding, "low_res_logits": low, "iou": iou, "logits": full}
