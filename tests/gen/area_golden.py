# SPDX-License-Identifier: Apache-2.0
"""Write tests/golden/area.txt: checksums of OpenCV's INTER_AREA on formula-made images. Needs cv2 and numpy.

    python tests/gen/area_golden.py > tests/golden/area.txt

Line: w h channels new_w new_h sum fnv, fnv over the bytes of the result.
"""
import cv2
import numpy as np

from hashed import uniform

CASES = [
    # scanner frames to LiteMedSAM's canvas
    (422, 558, 1, 194, 256), (422, 558, 3, 194, 256), (558, 422, 3, 256, 194), (640, 480, 1, 256, 192), (1440, 1080, 3, 256, 192),
    (256, 257, 1, 255, 256), (77, 300, 3, 66, 256), (700, 3, 1, 256, 1),
    # whole blocks: 2x2 rounds halves up, others to even, 1x1 is a copy; blocks along one axis only
    (512, 512, 1, 256, 256), (384, 512, 3, 192, 256), (1024, 768, 1, 256, 192), (768, 768, 3, 256, 256), (256, 180, 1, 256, 180),
    (512, 333, 1, 256, 166), (512, 256, 1, 256, 256), (512, 768, 3, 256, 256),
    # growing: linear in fixed point
    (150, 200, 1, 192, 256), (60, 50, 3, 256, 213), (128, 128, 1, 256, 256), (64, 128, 3, 128, 256), (254, 255, 1, 255, 256), (3, 2, 1, 256, 171),
    (100, 400, 1, 120, 256), (1, 1, 3, 256, 256),
]  # fmt: skip


def main():
    for w, h, c, new_w, new_h in CASES:
        pixels = (uniform("resize", w * h * c) * 256).astype(np.uint8).reshape(h, w, c)
        data = cv2.resize(pixels[:, :, 0] if c == 1 else pixels, (new_w, new_h), interpolation=cv2.INTER_AREA).tobytes()
        h32 = 2166136261
        for byte in data:
            h32 = (h32 ^ byte) * 16777619 & 0xFFFFFFFF
        print(w, h, c, new_w, new_h, sum(data), "%08x" % h32)


main()
