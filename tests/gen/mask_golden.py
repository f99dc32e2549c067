# SPDX-License-Identifier: Apache-2.0
"""Write tests/golden/mask.txt: PyTorch's two bilinear steps from low-res logits to the image, and OpenCV's morphology of the
mask. Needs torch and cv2.

    python tests/gen/mask_golden.py > tests/golden/mask.txt

Per case: n4 canvas h w, pixels > 0, pixels within 1e-3 of 0, sums of W_edge, W_in, W_out, then 41 logits evenly spaced.
"""
import cv2
import numpy as np
import torch
import torch.nn.functional as F

from hashed import uniform

CASES = [(256, 1024, 558, 422), (128, 512, 422, 558), (64, 256, 558, 422), (64, 256, 480, 640), (64, 256, 40, 40),
         (16, 64, 1080, 1440), (16, 64, 1, 3), (4, 16, 9, 5), (64, 256, 1500, 100)]
SAMPLES = 41


def low_logits(n4):
    """Smooth blobs with noise: outlines that touch every border."""
    y, x = np.mgrid[0:n4, 0:n4] / n4
    noise = uniform("mask", n4 * n4).reshape(n4, n4) - 0.5
    return (6 * np.sin(7 * x + 1) * np.cos(5 * y + 0.5) + 3 * noise).astype(np.float32)


def main():
    for n4, canvas, h, w in CASES:
        scale = canvas / max(h, w)
        used = int(h * scale + 0.5), int(w * scale + 0.5)
        low = torch.from_numpy(low_logits(n4))[None, None]
        full = F.interpolate(low, (canvas, canvas), mode="bilinear", align_corners=False)
        full = F.interpolate(full[..., : used[0], : used[1]], (h, w), mode="bilinear", align_corners=False)[0, 0].numpy()
        m = (full > 0).astype(np.uint8)
        k3, k5 = np.ones((3, 3), np.uint8), np.ones((5, 5), np.uint8)
        d3, e3, d5 = cv2.dilate(m, k3), cv2.erode(m, k3), cv2.dilate(m, k5)
        print("case", n4, canvas, h, w, int(m.sum()), int((np.abs(full) <= 1e-3).sum()), int((d3 - e3).sum()),
              int(e3.sum()), int((d5 - m > 0).sum()))
        print(*("%.7g" % full.ravel()[i * (h * w - 1) // (SAMPLES - 1)] for i in range(SAMPLES)))


main()
