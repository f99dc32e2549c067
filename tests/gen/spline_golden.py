# SPDX-License-Identifier: Apache-2.0
"""Write tests/golden/spline.txt: checksums of scikit-image's resize as MedSAM calls it, on formula-made images. Needs skimage.

    python tests/gen/spline_golden.py > tests/golden/spline.txt

Line: w h channels new_w new_h sum fnv, fnv over the bytes of the result. Sizes at which no output lies on a pixel of the input:
there scikit-image truncates a whole number that is one but for rounding.
"""
import numpy as np
from skimage import transform

from hashed import uniform

CASES = [
    (422, 558, 1, 160, 160), (422, 558, 3, 320, 320), (640, 480, 1, 224, 224), (150, 200, 3, 320, 320), (97, 61, 1, 224, 224),
    (300, 7, 1, 64, 64), (5, 4, 3, 64, 64), (2, 3, 1, 64, 64), (1, 9, 1, 16, 16), (1023, 90, 1, 64, 64), (211, 307, 1, 1024, 1024),
    (90, 1000, 3, 48, 48), (33, 35, 1, 32, 32), (31, 29, 1, 32, 32), (130, 70, 1, 144, 144), (17, 300, 3, 160, 160), (400, 401, 1, 96, 96),
    (77, 99, 1, 80, 80), (55, 45, 1, 112, 112), (640, 350, 3, 192, 192),
]  # fmt: skip


def main():
    for w, h, c, new_w, new_h in CASES:
        pixels = (uniform("resize", w * h * c) * 256).astype(np.uint8).reshape(h, w, c)
        small = transform.resize(pixels, (new_h, new_w), order=3, preserve_range=True, anti_aliasing=True).astype(np.uint8)
        h32 = 2166136261
        for byte in small.tobytes():
            h32 = (h32 ^ byte) * 16777619 & 0xFFFFFFFF
        print(w, h, c, new_w, new_h, int(small.sum()), "%08x" % h32)


main()
