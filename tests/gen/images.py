# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/image/: every kind of PNG and JPEG that um_image_read() must take. 13x9 pixels; gray is 16x+5y, RGB is
(16x, 20y, 255-8(x+y)). PNGs are written by hand, because Pillow has no 16-bit RGB and no interlacing. Pillow 13.0.0 for JPEG."""
import struct, sys, zlib
from pathlib import Path
from PIL import Image

W, H = 13, 9
out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "golden" / "image")
out.mkdir(parents=True, exist_ok=True)
gray = lambda x, y: 16 * x + 5 * y
rgb = lambda x, y: (16 * x, 20 * y, 255 - 8 * (x + y))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(name, depth, color, pixel, extra=b"", interlace=0):
    """pixel(x, y) -> the samples of one pixel."""
    passes = [(0, 0, 1, 1)] if not interlace else [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    raw = b""
    for x0, y0, dx, dy in passes:
        if x0 >= W:
            continue
        for y in range(y0, H, dy):
            bits = "".join(format(v, f"0{depth}b") for x in range(x0, W, dx) for v in pixel(x, y))
            bits += "0" * (-len(bits) % 8)
            raw += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    head = struct.pack(">IIBBBBB", W, H, depth, color, 0, 0, interlace)
    (out / name).write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


png("gray8.png", 8, 0, lambda x, y: (gray(x, y),))
png("gray8_interlaced.png", 8, 0, lambda x, y: (gray(x, y),), interlace=1)
png("gray16.png", 16, 0, lambda x, y: (gray(x, y) * 257,))
png("gray4.png", 4, 0, lambda x, y: (x,))
png("gray1.png", 1, 0, lambda x, y: ((x + y) % 2,))
png("gray_alpha.png", 8, 4, lambda x, y: (gray(x, y), 7 * x))
png("gray_transparent.png", 8, 0, lambda x, y: (gray(x, y),), chunk(b"tRNS", b"\0\x10"))
png("rgb8.png", 8, 2, rgb)
png("rgb16.png", 16, 2, lambda x, y: [257 * v for v in rgb(x, y)])
png("rgba8_interlaced.png", 8, 6, lambda x, y: (*rgb(x, y), 128), interlace=1)
table = [rgb(x, y) for y in range(H) for x in range(W)]
png("palette.png", 8, 3, lambda x, y: (y * W + x,), chunk(b"PLTE", bytes(v for p in table for v in p)) + chunk(b"tRNS", b"\0\x80"))

g = Image.new("L", (W, H))
g.putdata([gray(x, y) for y in range(H) for x in range(W)])
c = Image.new("RGB", (W, H))
c.putdata(table)
g.save(out / "gray.jpg", quality=98)
c.save(out / "rgb.jpg", quality=98, subsampling=0)
c.save(out / "rgb_progressive.jpg", quality=98, subsampling=0, progressive=True)
k = Image.new("CMYK", (W, H))
k.putdata([(255 - r, 255 - gg, 255 - b, 0) for r, gg, b in table])
k.save(out / "cmyk.jpg", quality=98, subsampling=0)
