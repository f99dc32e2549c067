# SPDX-License-Identifier: Apache-2.0
"""Write tests/golden/resize.txt: checksums of Pillow's bilinear resize of formula-made images. Needs Pillow 13.

    python tests/gen/resize_golden.py > tests/golden/resize.txt

Line: w h channels new_w new_h sum fnv, fnv over the bytes of the result.
"""
import numpy as np
from PIL import Image

from hashed import uniform

CASES = [
    # portrait and landscape scanner frames to the canvases and to the detector's square
    (422, 558, 1, 774, 1024), (422, 558, 3, 387, 512), (422, 558, 1, 194, 256), (422, 558, 3, 320, 320),
    (422, 558, 1, 640, 640), (640, 480, 1, 1024, 768), (558, 422, 3, 256, 194),
    # shrinking: horizontal pass first, vertical pass first, the border between them
    (300, 200, 1, 100, 100), (200, 300, 1, 190, 100), (200, 220, 1, 190, 200), (200, 221, 1, 190, 200),
    (101, 977, 3, 33, 64), (977, 101, 1, 64, 33), (61, 300, 1, 122, 41),
    # one axis only, nothing to do, tiny
    (64, 64, 1, 64, 31), (64, 64, 1, 31, 64), (64, 64, 3, 64, 64), (1, 1, 1, 7, 5), (7, 5, 3, 1, 1), (2, 3, 1, 3, 2),
]


def main():
    for w, h, c, new_w, new_h in CASES:
        pixels = (uniform("resize", w * h * c) * 256).astype(np.uint8).reshape(h, w, c)
        image = Image.fromarray(pixels[:, :, 0] if c == 1 else pixels)
        data = np.asarray(image.resize((new_w, new_h), Image.BILINEAR)).tobytes()
        h32 = 2166136261
        for byte in data:
            h32 = (h32 ^ byte) * 16777619 & 0xFFFFFFFF
        print(w, h, c, new_w, new_h, sum(data), "%08x" % h32)


main()
