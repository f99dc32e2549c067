# SPDX-License-Identifier: Apache-2.0
"""Write tests/golden/sam_64.txt: upstream MobileSAM on a 64 px canvas with weights from hashed.py. Needs torch, mobile_sam.

    python tests/gen/sam_golden.py > tests/golden/sam_64.txt
"""
import numpy as np
import torch

from hashed import sam_weight, uniform
from mobile_sam_ref import build, decode, encode

CANVAS = 64
SAMPLES = 29  # values of a tensor that are written down, evenly spaced

# name, box, points, labels, mask prompt, three masks; pixels of a 40 x 64 image, which has the canvas' scale
CASES = [
    ("box", [5.25, 10.5, 30.75, 50.0], None, None, False, False),
    ("points", None, [[12.5, 20.25], [30.0, 3.5]], [1, 0], False, True),
    ("both", [0.0, -3.0, 45.0, 64.0], [[20.0, 30.0], [1.0, 1.0]], [1, -1], False, False),
    ("mask", [5.25, 10.5, 30.75, 50.0], None, None, True, False),
]


def show(tag, value):
    """value [C,h,w] in NCHW order."""
    flat = value.numpy().astype(np.float64).ravel()
    picks = [i * (flat.size - 1) // (SAMPLES - 1) for i in range(SAMPLES)]
    print("tap", tag, flat.size, "%.9g" % np.abs(flat).max(), "%.9g" % np.abs(flat).sum())
    print(*("%.7g" % flat[i] for i in picks))


def main():
    state = build(CANVAS).state_dict()
    unused = ("num_batches_tracked", "image_encoder.norm_head", "image_encoder.head")
    for key, value in state.items():
        if not any(u in key for u in unused):
            print("param", key, *value.shape)
            state[key] = torch.from_numpy(sam_weight(key, tuple(value.shape)))
    sam = build(CANVAS, state)
    image = (2 * uniform("image", CANVAS * CANVAS * 3) - 1).astype(np.float32) * 2
    x = torch.from_numpy(image.reshape(CANVAS, CANVAS, 3)).permute(2, 0, 1)[None].contiguous()
    taps = {}
    embedding = encode(sam, x, taps)
    for name, value in taps.items():
        show(name, value)
    side = CANVAS // 4
    mask = torch.from_numpy(((2 * uniform("mask", side * side) - 1) * 8).astype(np.float32).reshape(1, side, side))
    for name, box, points, labels, use_mask, multi in CASES:
        taps = {}
        decode(sam, embedding, taps, box=None if box is None else np.array(box, np.float32),
               points=None if points is None else np.array(points, np.float32), labels=labels,
               mask=mask if use_mask else None, multimask=multi)
        taps["sparse_tokens"] = taps["sparse_tokens"].T.contiguous()
        for tap, value in taps.items():
            show(name + "/" + tap, value)


if __name__ == "__main__":
    main()
