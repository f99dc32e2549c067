# SPDX-License-Identifier: Apache-2.0
"""Labelled images of one's own, in the forms that `ultramotion val` takes: a folder with NAME_mask.png beside its images (--masks: in a
folder that mirrors it), or a COCO file. `val` names what is wrong in one at length; here it ends the run before it begins."""

import collections
import ctypes
import functools
import hashlib
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np

import phantom

LONGEST = 600  # sides of images; larger ones are scaled, as the augmentation is made for the phantom's
ENDS = ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"
Own = collections.namedtuple("Own", "data masks pictures window phantom bone")  # the options, and which class the phantom's bones are


class Settings(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("width", ctypes.c_int), ("height", ctypes.c_int), ("channels", ctypes.c_int),
                ("frames", ctypes.c_long), ("loop", ctypes.c_int), ("capacity", ctypes.c_int), ("replace", ctypes.c_int),
                ("recursive", ctypes.c_int), ("window", ctypes.c_int), ("window_lo", ctypes.c_int), ("window_hi", ctypes.c_int)]  # the head


def window(text):
    """The value of --window as um_source_settings has it: window, window_lo, window_hi."""
    if text == "auto":
        return 2, 0, 0
    low, high = map(int, text.split(","))  # which argparse refuses by a ValueError
    return 1, low, high


def read_image(path, levels):
    """[H,W] u8, as `ultramotion run` reads it and shows it to networks that know gray only."""
    lib = phantom.library()
    source, (image, gray, second) = ctypes.c_void_p(), (ctypes.POINTER(phantom.Frame)() for _ in range(3))
    how = Settings(ctypes.sizeof(Settings))
    lib.um_source_settings_init(ctypes.byref(how), ctypes.sizeof(how))
    how.window, how.window_lo, how.window_hi = levels
    phantom.check(lib.um_source_open(ctypes.byref(source), os.fsencode(path), ctypes.byref(how)))
    try:
        phantom.check(lib.um_source_read(source, ctypes.byref(image)))
        if lib.um_source_read(source, ctypes.byref(second)) == 0:
            raise ValueError("several images in one file, its truth is of one")
        phantom.check(lib.um_frame_gray(image, ctypes.byref(gray)))
        return np.ctypeslib.as_array(gray.contents.pixels, (gray.contents.height, gray.contents.width)).copy()
    finally:
        for frame in (gray, image, second):
            lib.um_frame_unref(ctypes.byref(frame))
        lib.um_source_close(ctypes.byref(source))


def read_mask(path):
    """[H,W] u8, 1 where any colour's sample is not 0."""
    lib = phantom.library()
    mask, w, h = ctypes.POINTER(ctypes.c_uint8)(), ctypes.c_int(), ctypes.c_int()
    phantom.check(lib.um_label_read(os.fsencode(path), ctypes.byref(mask), ctypes.byref(w), ctypes.byref(h)))
    try:
        return np.ctypeslib.as_array(mask, (h.value, w.value)).copy()
    finally:
        lib.um_free(mask)


def runs_of(text):
    """Run lengths that COCO has as text: in digits of 5 bits, each but the first three the difference from the one before the last."""
    runs, value, shift = [], 0, 0
    for digit in text.encode():
        digit -= 48
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            value -= (digit & 16) // 16 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return [] if shift else runs


def unrolled(said, what):
    """[H,W] u8 of run lengths, which pycocotools takes as they are: where they do not reach the image's end, it shows what was in memory."""
    height, width = said["size"]
    runs = runs_of(said["counts"]) if isinstance(said["counts"], str) else [int(n) for n in said["counts"]]
    if sum(runs) != height * width or min(runs) < 0:
        raise ValueError(f"{what}: run lengths that are not of its {width}x{height} pixels")
    return np.repeat(np.arange(len(runs)) % 2, runs).reshape(width, height).T.astype(np.uint8)


def shape_of(annotation, height, width):
    """[H,W] u8 of a COCO annotation: its segmentation, else its box filled."""
    said = annotation.get("segmentation")
    if not said:
        mask = np.zeros((height, width), np.uint8)
        x, y, w, h = annotation["bbox"]
        if not np.isfinite([x, y, w, h]).all():
            raise ValueError(f"annotation {annotation.get('id')}: a bbox of {x}, {y}, {w}, {h}")
        left, top, right, bottom = (max(round(v), 0) for v in (x, y, x + w, y + h))  # it may reach beyond the image
        mask[top:bottom, left:right] = 1
        return mask
    if isinstance(said, dict):
        if tuple(said["size"]) != (height, width):  # before room is made for as many pixels
            raise ValueError(f"{width}x{height} pixels, its mask has {said['size'][1]}x{said['size'][0]}")
        return unrolled(said, f"annotation {annotation.get('id')}")
    import pycocotools.mask as coco

    if not all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in said):
        raise ValueError(f"annotation {annotation.get('id')}: a polygon is not x,y of three points or more")
    if not all(abs(float(v)) <= 16 * max(height, width) for polygon in said for v in polygon):  # no numbers, or far ones, crash pycocotools
        raise ValueError(f"annotation {annotation.get('id')}: a polygon has points that are far from the image's {width}x{height} pixels")
    return coco.decode(coco.merge(coco.frPyObjects(said, height, width)))


def writable(text):
    """JSON and names of files may have halves of characters, UTF-8 has none."""
    return text == text.encode(errors="ignore").decode()


def smaller(mask, size):
    """A structure that becomes thinner than a pixel stays where most of it was: it would teach that there is none."""
    small = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return ((small > 0) & (small >= small.max() / 2)).astype(np.uint8)


def images_in(folder, apart=None):
    """As `val` finds them: through links, each folder once, by its own name if it lies here; not what is hidden or in `apart`."""
    found, real, linked, seen = [], [Path(folder)], [], set()
    while real or linked:
        linked.sort()
        at = real.pop() if real else linked.pop(0)
        own = at.stat()
        if (own.st_dev, own.st_ino) in seen:
            continue
        seen.add((own.st_dev, own.st_ino))
        for path in at.iterdir():
            if path.name.startswith(".") or (apart and path.is_dir() and path.samefile(apart)):
                continue
            if path.is_dir():
                (linked if path.is_symlink() else real).append(path)
            elif path.suffix.lower() in ENDS:
                found.append(path)
    return sorted(found)


def has_truth(path):
    """Labelling tools leave a .json of their own beside each image: it is none of COCO where the image has a mask or a line."""
    return any(path.with_name(f"{path.stem}{tag}{end}").exists() for tag in ("_mask", "_line") for end in ENDS)


class Dataset:
    """classes: names, or None where nothing has one; images: (path, its mask's path or its annotations)."""

    def __init__(self, own):
        self.own, path = own, Path(own.data)
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder")
        listed = [path] if path.suffix == ".json" else [] if own.masks else sorted(path.glob("[!.]*.json"))
        listed = [p for p in listed if p.name == "truth.json"] or [p for p in listed if p == path or not has_truth(p)]
        if len(listed) > 1:
            raise ValueError(f"{path}: several .json files, and none is truth.json: name one")
        if own.masks if listed else own.pictures:
            raise ValueError(f"{path}: {'--masks is for folders of images' if listed else '--pictures is for a COCO .json'}")
        self.classes, self.left_out, self.sizes = None, 0, {}  # sizes: (width, height) of images, as a COCO file says them
        self.images = self.of_coco(listed[0]) if listed else self.of_folder(path)
        self.crowds = [f"{self.left_out} images with a crowd left out"] * bool(self.left_out)
        if not self.images:
            raise ValueError(", ".join([f"{path}: no images", *self.crowds]))
        self.files = [p for image, truth in self.images for p in (image, truth) if isinstance(p, Path)] + listed

    def of_folder(self, path):
        masks, images, of = Path(self.own.masks or path), [], {}
        for mask in images_in(masks):
            of.setdefault(mask.relative_to(masks).with_suffix(""), []).append(mask)
        for image in images_in(path, self.own.masks):
            if image.stem.endswith(("_mask", "_line")):
                continue
            stem = image.relative_to(path).with_suffix("")
            found = of.get(stem.with_name(f"{stem.name}_mask"), []) + (of.get(stem, []) if self.own.masks else [])
            if len(found) != 1:
                raise ValueError(f"{image}: {len(found) or 'no'} masks {stem}{'[_mask]' if self.own.masks else '_mask'}.png in {masks} "
                                 "(--masks DIR: where masks are)")
            images.append((image, found[0]))
        return images

    def of_coco(self, path):
        pictures = Path(self.own.pictures or path.parent)
        try:
            said = json.loads(path.read_text("utf-8-sig"))
            ids, kinds = ([one["id"] for one in said[what]] for what in ("images", "categories"))
            of = {i: [] for i in ids}
            strays = [a for a in said["annotations"] if a["image_id"] not in of]
            for annotation in said["annotations"]:
                of.get(annotation["image_id"], []).append(annotation)
            used = {annotation["category_id"] for annotation in said["annotations"]}
            names = {c["id"]: str(c["name"]) for c in said["categories"] if c["id"] in used}
            self.classes, self.label = list(names.values()), {k: i for i, k in enumerate(names)}
            images = [(pictures / image["file_name"], of[image["id"]]) for image in said["images"]]
            self.sizes = {file: (image.get("width"), image.get("height")) for (file, _), image in zip(images, said["images"])}
        except (ValueError, KeyError, TypeError, RecursionError) as wrong:
            raise ValueError(f"{path}: not COCO's format: {wrong!r} (`ultramotion val` checks more)") from wrong
        for what, here in (("images have id", ids), ("categories have id", kinds), ("categories are named", names.values())):
            for one, n in collections.Counter(here).items():
                if n > 1:
                    raise ValueError(f"{path}: {n} {what} {one}")
        for name in names.values():
            if "\0" in name or not writable(name):  # which no model's file can say
                raise ValueError(f"{path}: a category is named {ascii(name)}, which is no text")
        if strays:
            raise ValueError(f"{path}: {len(strays)} annotations of images that it does not list, the first of {strays[0]['image_id']}")
        if used - names.keys():
            raise ValueError(f"{path}: annotations of category {(used - names.keys()).pop()}, which it does not list")
        kept = [one for one in images if not any(a.get("iscrowd") for a in one[1])]  # who knows what else is in a crowd?
        self.left_out = len(images) - len(kept)
        return kept

    def read(self, i):
        """The image [H,W] u8, its masks [K] of [H,W] u8, labels [K], and whether all masks are outlines: a box says nothing of its corners."""
        path, truth = self.images[i]
        image = read_image(path, self.own.window)
        if isinstance(truth, list):
            masks, labels = [shape_of(a, *image.shape) for a in truth], [self.label[a["category_id"]] for a in truth]
        else:
            masks, labels = [read_mask(truth)], [0]
        said = [("truth says", size) for size in [self.sizes.get(path)] if size and None not in size] + [("mask has", m.shape[::-1]) for m in masks]
        for what, (width, height) in said:
            if (height, width) != image.shape:
                raise ValueError(f"{image.shape[1]}x{image.shape[0]} pixels, its {what} {width}x{height}")
        for a, m in zip(truth, masks) if isinstance(truth, list) else ():
            if not m.any():  # it would teach that there is none
                raise ValueError(f"annotation {a.get('id')} has no pixel of the image")
        scale = min(1, LONGEST / max(image.shape))
        if scale < 1:
            size = tuple(max(1, round(side * scale)) for side in image.shape[::-1])
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            masks = [smaller(m, size) for m in masks]
        there = [k for k, m in enumerate(masks) if m.any()]
        outlined = not isinstance(truth, list) or all(a.get("segmentation") for a in truth)
        return image, [masks[k] for k in there], [labels[k] for k in there], outlined

    def draw(self, rng):
        """One of them, its structures in any order."""
        image, masks, labels, outlined = self.read(int(rng.integers(0, len(self.images))))
        order = rng.permutation(len(masks))
        return image, [masks[k] for k in order], [labels[k] for k in order], outlined

    def checked(self, classes, boxes_do):
        """All of it is read once, so that no run ends at a file of its second hour. What it is, in words, with a number that no other has."""
        numbers, empty, whole, dark = np.zeros(len(classes), int), 0, 0, 0
        for i, (path, _) in enumerate(self.images):
            try:
                image, masks, labels, outlined = self.read(i)
            except Exception as wrong:  # pycocotools' own are of that class
                raise ValueError(f"{path}: {'no ' * isinstance(wrong, KeyError)}{wrong} (`ultramotion val` checks more)") from wrong
            if not outlined and not boxes_do:
                raise ValueError(f"{path}: an annotation without \"segmentation\", of which a segmenter learns nothing")
            np.add.at(numbers, labels, 1)
            empty += not masks
            dark += image.max() < 32
            whole += any(2 * m.sum() > m.size for m in masks)
        if not numbers.sum():
            raise ValueError(", ".join([f"{self.own.data}: no structure in {len(self.images)} images", *self.crowds]))
        found = ", ".join(f"{n} {name}" for n, name in zip(numbers, classes))
        digest = hashlib.sha256(repr([(p.name, p.stat().st_size) for p in self.files]).encode()).hexdigest()
        name = os.fsencode(Path(self.own.data).resolve().stem).decode(errors="replace")  # which goes into the model's file
        more = [f"{empty} images without"] * bool(empty) + self.crowds
        if 2 * whole > len(self.images) - empty:
            print(f"{self.own.data}: {whole} images with a mask of more than a half of them: is what is around a structure 0?", file=sys.stderr)
        if 2 * dark > len(self.images):
            print(f"{self.own.data}: {dark} images are nearly black: if their samples have 16 bits, --window says which are white", file=sys.stderr)
        return ", ".join([f"{len(self.images)} images of {name} {digest[:8]} ({found}", *more]) + ")"


@functools.cache
def load(own):
    return Dataset(own)
