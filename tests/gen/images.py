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

# ---- turned, wide, animated ----


def exif(orientation, big=True):
    e = ">" if big else "<"
    return (b"MM\0*" if big else b"II*\0") + struct.pack(e + "IHHHI", 8, 2, 0x0100, 4, 1) + struct.pack(e + "I", W) + struct.pack(
        e + "HHIHHI", 0x0112, 3, 1, orientation, 0, 0)


def stored(orientation, pixel):
    """pixel(x, y) of the image as it must be seen -> of the one that is stored; and its size."""
    w, h = (H, W) if orientation > 4 else (W, H)
    right, below = orientation in (2, 3, 7, 8), orientation in (3, 4, 6, 7)

    def at(u, v):
        u, v = (w - 1 - u if right else u), (h - 1 - v if below else v)
        return pixel(v, u) if orientation > 4 else pixel(u, v)

    return at, w, h


def turned_png(name, orientation, extra_behind=False):
    at, w, h = stored(orientation, gray)
    raw = b"".join(b"\0" + bytes(at(x, y) for x in range(w)) for y in range(h))
    e = chunk(b"eXIf", exif(orientation, big=not extra_behind))
    (out / name).write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 0, 0, 0, 0)) + (b"" if extra_behind else e) +
                             chunk(b"IDAT", zlib.compress(raw, 9)) + (e if extra_behind else b"") + chunk(b"IEND", b""))


for o in range(1, 9):
    turned_png(f"turned{o}.png", o, extra_behind=o == 5)
at, w, h = stored(6, gray)
t = Image.new("L", (w, h))
t.putdata([at(x, y) for y in range(h) for x in range(w)])
t.save(out / "turned6.jpg", quality=98)
data = (out / "turned6.jpg").read_bytes()
app1 = b"Exif\0\0" + exif(6, big=False)
(out / "turned6.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(app1)) + app1 + data[2:])

png("gray12in16.png", 16, 0, lambda x, y: (gray(x, y) * 16,))
png("gray12in16_said.png", 16, 0, lambda x, y: (gray(x, y) * 4095 // 255,), chunk(b"sBIT", b"\x0c"))
png("rgb10in16_said.png", 16, 2, lambda x, y: [v * 1023 // 255 for v in rgb(x, y)], chunk(b"sBIT", b"\x0a\x09\x0a"))
png("gray12_stretched.png", 16, 0, lambda x, y: (gray(x, y) * 257,), chunk(b"sBIT", b"\x0c"))
frame = struct.pack(">IIIIIHHBB", 0, W, H, 0, 0, 1, 20, 0, 0)
loop = chunk(b"acTL", struct.pack(">II", 3, 0))
png("animated.png", 8, 0, lambda x, y: (gray(x, y),), loop + chunk(b"fcTL", frame))
png("animated_apart.png", 8, 0, lambda x, y: (gray(x, y),), loop)

# ---- BMP ----


def bmp(name, bits, rows, palette=b"", coding=0, masks=b"", top=False, core=False):
    """rows: packed, from the top."""
    rows = [r + b"\0" * (-len(r) % 4) for r in rows]
    head = struct.pack("<IHHHH", 12, W, H, 1, bits) if core else struct.pack(
        "<IiiHHIIiiII", 40, W, -H if top else H, 1, bits, coding, 0, 2835, 2835, len(palette) // 4, 0)
    at = 14 + len(head) + len(masks) + len(palette)
    body = b"".join(rows if top else rows[::-1])
    (out / name).write_bytes(b"BM" + struct.pack("<IHHI", at + len(body), 0, 0, at) + head + masks + palette + body)


def rows(pack):
    return [b"".join(pack(x, y) for x in range(W)) for y in range(H)]


def bits_of(bits, value):
    text = ["".join(format(value(x, y), f"0{bits}b") for x in range(W)) for y in range(H)]
    return [int(t + "0" * (-len(t) % 8), 2).to_bytes((len(t) + 7) // 8, "big") for t in text]


grays = b"".join(bytes((v, v, v, 0)) for v in range(256))
bmp("gray8.bmp", 8, rows(lambda x, y: bytes((gray(x, y),))), grays)
bmp("palette8.bmp", 8, rows(lambda x, y: bytes((y * W + x,))), b"".join(bytes((b, gg, r, 0)) for r, gg, b in table))
bmp("palette4.bmp", 4, bits_of(4, lambda x, y: x), b"".join(bytes((x, 2 * x, 3 * x, 0)) for x in range(W)))
bmp("gray1.bmp", 1, bits_of(1, lambda x, y: (x + y) % 2), b"\0\0\0\0\xff\xff\xff\0")
bmp("rgb24.bmp", 24, rows(lambda x, y: bytes(rgb(x, y)[::-1])))
bmp("rgb24_core.bmp", 24, rows(lambda x, y: bytes(rgb(x, y)[::-1])), core=True)
bmp("rgb32_from_top.bmp", 32, rows(lambda x, y: bytes(rgb(x, y)[::-1]) + b"\x07"), top=True)
bmp("rgb16.bmp", 16, rows(lambda x, y: struct.pack("<H", rgb(x, y)[0] >> 3 << 11 | rgb(x, y)[1] >> 2 << 5 | rgb(x, y)[2] >> 3)),
    coding=3, masks=struct.pack("<III", 0xf800, 0x7e0, 0x1f))
bmp("rgb32_masks.bmp", 32, rows(lambda x, y: bytes((rgb(x, y)[0], 0, rgb(x, y)[1], rgb(x, y)[2]))), coding=3,
    masks=struct.pack("<III", 0xff, 0xff0000, 0xff000000))

# ---- TIFF ----


def tiff(name, pages, order="<"):
    """Each page: (entries {tag: (type, values)}, [strips or tiles])."""
    data = (b"II*\0" if order == "<" else b"MM\0*") + b"\0\0\0\0"
    link = 4
    for entries, blocks in pages:
        places = []
        for b in blocks:
            places.append(len(data))
            data += b + b"\0" * (len(b) % 2)
        tiled = 322 in entries
        entries = {256: (4, [W]), 257: (4, [H]), 259: (3, [1]), 277: (3, [1]), **entries, (324 if tiled else 273): (4, places),
                   (325 if tiled else 279): (4, [len(b) for b in blocks])}
        packed = {}
        for tag, (kind, values) in entries.items():
            v = b"".join(struct.pack(order + {3: "H", 4: "I"}[kind], x) for x in values)
            if len(v) > 4:
                packed[tag] = struct.pack(order + "HHII", tag, kind, len(values), len(data))
                data += v + b"\0" * (len(v) % 2)
            else:
                packed[tag] = struct.pack(order + "HHI", tag, kind, len(values)) + v.ljust(4, b"\0")
        data = data[:link] + struct.pack(order + "I", len(data)) + data[link + 4:]
        data += struct.pack(order + "H", len(packed)) + b"".join(packed[t] for t in sorted(packed))
        link = len(data)
        data += b"\0\0\0\0"
    (out / name).write_bytes(data)


def flat(pixel, depth=8, order="<", ys=range(H), xs=range(W)):
    return b"".join(struct.pack(order + ("H" if depth == 16 else "B"), v) for y in ys for x in xs for v in pixel(x, y))


GRAY, RGB = {258: (3, [8]), 262: (3, [1])}, {258: (3, [8, 8, 8]), 262: (3, [2]), 277: (3, [3])}
tiff("gray8.tif", [({**GRAY, 278: (4, [4])}, [flat(lambda x, y: (gray(x, y),), ys=range(a, min(a + 4, H))) for a in (0, 4, 8)])])
tiff("white.tif", [({**GRAY, 262: (3, [0])}, [flat(lambda x, y: (255 - gray(x, y),))])])
tiff("gray16.tif", [({**GRAY, 258: (3, [16])}, [flat(lambda x, y: (257 * gray(x, y),), 16, ">")])], ">")
tiff("gray12in16.tif", [({**GRAY, 258: (3, [16])}, [flat(lambda x, y: (16 * gray(x, y),), 16)])])
tiff("rgb8_deflate.tif", [({**RGB, 259: (3, [8])}, [zlib.compress(flat(rgb))])])
tiff("rgba16.tif", [({**RGB, 258: (3, [16] * 4), 277: (3, [4]), 338: (3, [2])}, [flat(lambda x, y: [257 * v for v in rgb(x, y)] + [9], 16)])])
tiff("rgb8_apart.tif", [({**RGB, 284: (3, [2])}, [flat(lambda x, y: (rgb(x, y)[c],)) for c in range(3)])])
inside = lambda x, y: rgb(x, y) if x < W and y < H else (1, 2, 3)
tiff("rgb8_tiles.tif", [({**RGB, 322: (4, [16]), 323: (4, [16])}, [flat(inside, ys=range(16), xs=range(16))])])


def ycbcr(x, y):
    r, gg, b = rgb(min(x, W - 1), min(y, H - 1))
    return 0.299 * r + 0.587 * gg + 0.114 * b, 128 - 0.168736 * r - 0.331264 * gg + 0.5 * b, 128 + 0.5 * r - 0.418688 * gg - 0.081312 * b


def quartets():
    """Four Y, and the means of their Cb and Cr."""
    for y in range(0, H, 2):
        for x in range(0, W, 2):
            four = [ycbcr(x + dx, y + dy) for dy in (0, 1) for dx in (0, 1)]
            yield from (round(v[0]) for v in four)
            yield from (round(sum(v[c] for v in four) / 4) for c in (1, 2))


# the whole file is smaller than W * H * 3
tiff("ycbcr.tif", [({**RGB, 262: (3, [6]), 530: (3, [2, 2]), 531: (3, [1])}, [bytes(quartets())])])
at, w, h = stored(8, gray)
tiff("turned8.tif", [({**GRAY, 256: (4, [w]), 257: (4, [h]), 274: (3, [8])}, [flat(lambda x, y: (at(x, y),), ys=range(h), xs=range(w))])])
page = lambda v: ({**GRAY, 256: (4, [4]), 257: (4, [3])}, [bytes([v] * 12)])
small = ({**GRAY, 254: (4, [1]), 256: (4, [2]), 257: (4, [1])}, [b"\7\7"])
tiff("pages.tif", [page(10), small, page(20), page(30)])
tiff("float.tif", [({**GRAY, 258: (3, [32]), 339: (3, [3])}, [bytes(4 * W * H)])])
tiff("fax.tif", [({**GRAY, 258: (3, [1]), 259: (3, [4])}, [b"\0"])])
c.save(out / "rgb8_lzw.tif", compression="tiff_lzw")
g.save(out / "gray8_packbits.tif", compression="packbits")
c.save(out / "rgb_jpeg.tif", compression="jpeg", quality=98)
q = Image.new("P", (W, H))
q.putpalette([v for p in table for v in p] + [0] * (768 - 3 * len(table)))
q.putdata(range(W * H))
q.save(out / "palette.tif")
