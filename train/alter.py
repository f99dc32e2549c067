# SPDX-License-Identifier: Apache-2.0
"""Images as other scanners and their users would have left them, to see what that does to a model: python train/alter.py HOW IMAGES OUT. Writes
images, and masks with --masks, as PNG to folders of OUT that are named as theirs: for `ultramotion val OUT/frames --masks OUT/masks`, or --lines, or
where no place changes for `val truth.json --pictures OUT`."""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

import frames

COLOURS = {"yellow": (0, 255, 255), "green": (0, 255, 0), "red": (0, 0, 255), "white": (255, 255, 255)}  # blue first, as OpenCV has them
TINTS = {"sepia": (0.6, 0.85, 1), "blue": (1, 0.8, 0.65)}
SCREEN = 960, 1280


def rgb(image):
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)


def gray(u):
    return np.clip(u, 0, 255).astype(np.uint8)


def marked(rng, image, colour, frame=True):
    """A measuring frame, two pairs of calipers with dotted lines between them, and text, two pixels thick."""
    h, w = image.shape
    image = rgb(image)
    corner, size = rng.uniform(0.05, 0.4, 2) * (w, h), rng.uniform(0.3, 0.55, 2) * (w, h)
    if frame:
        cv2.rectangle(image, corner.astype(int).tolist(), (corner + size).astype(int).tolist(), colour, 2)
    for _ in range(2):
        frames.calipers(image, rng.uniform(0.1, 0.9, (2, 2)) * (w, h), colour, 2, 14, 8, 2 * [cv2.MARKER_CROSS])
    cv2.putText(image, "D1 12.3 mm", (w // 20, h // 8), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, 2)
    return image


def with_flow(rng, image):
    """A green box half full of red flow."""
    h, w = image.shape
    x, y = (rng.uniform(0.1, 0.6, 2) * (w, h)).astype(int)
    box = np.s_[y:y + h // 4, x:x + w // 3]
    out = rgb(image)
    flows = cv2.GaussianBlur(rng.normal(0, 1, image[box].shape), (0, 0), 6) > 0
    level = image[box][flows].astype(int)
    out[box][flows] = np.stack([0 * level, 20 + level * 3 // 10, np.minimum(255, 120 + level)], 1)
    cv2.rectangle(out, (int(x), int(y)), (int(x) + w // 3, int(y) + h // 4), COLOURS["green"], 1)
    return out


def interlaced(image):
    out = image.copy()
    out[1::2] = np.roll(image[1::2], 3, 1)
    return out


def enhanced(image):
    u = image.astype(np.float32)
    return gray(u + 1.5 * (u - cv2.GaussianBlur(u, (0, 0), 2)))


def jpeg(image, quality):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_UNCHANGED)


def on_screen(image, ground):
    """A screen of 1280x960 with a header, lines of text, a bar of gray levels and a ruler, and the part of it where images of this size are."""
    h, w = image.shape
    if h > SCREEN[0] - 120 or w > SCREEN[1] - 290:
        sys.exit(f"an image of {w}x{h} does not fit into the screen of {SCREEN[1]}x{SCREEN[0]}")
    x, y = 200 + (SCREEN[1] - 290 - w) // 3, 70 + (SCREEN[0] - 120 - h) // 3
    out = np.full(SCREEN, ground, np.uint8)
    out[:50] = ground + 40
    cv2.putText(out, "GENERAL HOSPITAL   MSK   12:34:56   MI 0.9", (30, 33), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 220, 2)
    for line in range(100, SCREEN[0] - 70, 50):
        cv2.putText(out, f"Gain {line}", (20, line), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 220, 2)
    out[100:356, -40:-24] = np.arange(255, -1, -1)[:, None]
    for i, tick in enumerate(range(y, y + h, 20)):
        out[tick:tick + 2, x + w + 20:x + w + (26 if i % 5 else 32)] = 200
    return np.s_[y:y + h, x:x + w], out


def scaled(image, by, how=cv2.INTER_AREA):
    return cv2.resize(image, None, fx=by, fy=by, interpolation=how)


def pasted(ground, by):
    def alter(_, image, mask):
        image = scaled(image, by, cv2.INTER_AREA if by < 1 else cv2.INTER_LINEAR)
        part, out = on_screen(image, ground)
        out[part] = image
        where = np.zeros(SCREEN, np.uint8)
        if mask is not None:
            thick = 1 if by >= 1 else int(np.ceil(1 / by))  # a line one pixel wide stays whole
            where[part] = scaled(cv2.dilate(mask, np.ones((thick, thick))), by, cv2.INTER_NEAREST)
        return out, where
    return alter


def keeps_place(change):
    return lambda rng, image, mask: (change(rng, image), mask)


KINDS = {
    "same": keeps_place(lambda rng, u: u),
    **{k: keeps_place(lambda rng, u, t=t: gray(rgb(u) * np.array(t))) for k, t in TINTS.items()},
    **{f"{k}-marks": keeps_place(lambda rng, u, c=c: marked(rng, u, c)) for k, c in COLOURS.items()},
    "white-calipers": keeps_place(lambda rng, u: marked(rng, u, COLOURS["white"], frame=False)),
    "yellow-marks-jpeg": keeps_place(lambda rng, u: jpeg(marked(rng, u, COLOURS["yellow"]), 80)),
    "flow": keeps_place(with_flow),
    "jpeg": keeps_place(lambda rng, u: jpeg(u, 15)),
    "interlaced": keeps_place(lambda rng, u: interlaced(u)),
    "edges": keeps_place(lambda rng, u: enhanced(u)),
    "few-levels": keeps_place(lambda rng, u: u // 42 * 42),
    "dark": keeps_place(lambda rng, u: gray(u * 0.35)),
    "bright": keeps_place(lambda rng, u: gray(u * 2.2)),
    "hazy": keeps_place(lambda rng, u: gray(30 + u * (225 / 255))),
    "noisy": keeps_place(lambda rng, u: gray(u + rng.normal(0, 12, u.shape))),
    "blurred": keeps_place(lambda rng, u: cv2.GaussianBlur(u, (0, 0), 2)),
    "screen": pasted(0, 1.2),
    "screen-small": pasted(0, 0.8),
    "screen-gray": pasted(40, 1.2),
}


def mask_of(path, folder):
    for name in (f"{path.stem}_mask.png", f"{path.stem}.png"):
        if (folder / name).is_file():
            return cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE)
    sys.exit(f"{path}: no {path.stem}[_mask].png in {folder}")


def write(path, image):
    if not cv2.imwrite(str(path), image):
        sys.exit(f"{path}: cannot be written")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("how", choices=KINDS)
    p.add_argument("images", type=Path, help="a folder")
    p.add_argument("out", type=Path)
    p.add_argument("--masks", type=Path, help="folder of NAME.png or NAME_mask.png")
    args = p.parse_args()
    if not args.images.is_dir():
        p.error(f"{args.images}: no such folder")
    images, masks = (args.out / folder.resolve().name if folder else None for folder in (args.images, args.masks))
    for folder in filter(None, (images, masks)):
        folder.mkdir(parents=True, exist_ok=True)
        if any(read and folder.samefile(read) for read in (args.images, args.masks)):
            p.error(f"{args.out}: {folder} is what is read")
    number, made = 0, {}
    for path in sorted(args.images.iterdir()):
        if path.stem.endswith(("_mask", "_line")):
            p.error(f"{path}: would be altered as images are: masks and lines want a folder of their own, --masks")
        image, mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), None
        if image is None:
            print(f"{path}: no image, left out", file=sys.stderr)
            continue
        if path.stem in made:
            sys.exit(f"{path}: would be written over what was made of {made[path.stem]}")
        made[path.stem] = path
        if args.masks:
            mask = mask_of(path, args.masks)
            if mask.shape != image.shape:
                sys.exit(f"{path}: of {image.shape[1]}x{image.shape[0]}, its mask of {mask.shape[1]}x{mask.shape[0]}")
        image, mask = KINDS[args.how](np.random.default_rng(number), image, mask)
        number += 1
        write(images / f"{path.stem}.png", image)
        if args.masks:
            write(masks / f"{path.stem}.png", mask)
    if not number:
        sys.exit(f"{args.images}: no images; those in folders of it are not looked for")
    print(f"{number} images in {images}")


if __name__ == "__main__":
    main()
