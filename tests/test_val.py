# SPDX-License-Identifier: Apache-2.0
"""`val` on data sets written by hand: numbers that can be counted on fingers, and truth that is wrong."""

import json
import os
import signal
import struct
import subprocess
import time
from pathlib import Path

from command import COMMAND, DETECTOR, ENVIRONMENT, ROOT, gray, main, png, test, um, write_tiff


def report(*arguments):
    return json.loads(um("val", *arguments, "--json")[0])


def close(a, b):
    assert abs(a - b) < 1e-6, f"{a}, want {b}"


def runs(*counts):
    """COCO's run lengths as letters, for runs that are short enough for two."""
    text, before = "", []
    for n in counts:
        x = n - (before[-2] if len(before) > 2 else 0)
        before.append(n)
        while True:
            letter, x = x & 31, x >> 5
            more = x != (-1 if letter & 16 else 0)
            text += chr(48 + (letter | (32 if more else 0)))
            if not more:
                break
    return text


def make_images(folder, n=2, size=10):
    for i in range(n):
        png(folder / f"{i}.png", size, size)
    return [{"id": i, "file_name": f"{i}.png", "width": size, "height": size} for i in range(n)]


def coco(folder, annotations, images=None, categories=({"id": 0, "name": "bone"},)):
    images = images or make_images(folder)
    text = {"images": images, "annotations": annotations, "categories": list(categories)}
    (folder / "truth.json").write_text(json.dumps(text))


def box(image, xywh, category=0, **more):
    return {"id": 1, "image_id": image, "category_id": category, "bbox": xywh, **more}


def results(folder, found):
    path = folder / "found.txt"
    path.write_text(json.dumps(found))
    return path


@test
def boxes_masks_and_states_add_up(folder):
    square = {"size": [10, 10], "counts": [22, 4, 6, 4, 6, 4, 6, 4, 44]}  # x and y from 2 to 5
    others = {"ID": "a", "Width": 3, "BBox": [0, 0, 1, 1], "Segmentation": [], "IsCrowd": 1}  # keys of whoever wrote it
    coco(folder, [{**others, **box(0, [2, 2, 4, 4], segmentation=square)}], [{**others, **i} for i in make_images(folder, 3)])
    moved = runs(32, 4, 6, 4, 6, 4, 6, 4, 34)  # one pixel to the right
    found = [box(0, [3, 2, 4, 4], score=0.9, segmentation={"size": [10, 10], "counts": moved}),
             box(1, [0, 0, 5, 5], score=0.8), box(2, [0, 0, 5, 5], score=0.3)]
    r = report(folder, "--results", results(folder, found), "--spacing", "2,1")
    close(r["boxes"]["iou"], 12 / 20)
    close(r["boxes"]["ap50"], 1)  # the best score is the one that hits
    close(r["boxes"]["ap"], 0.3)  # at 0.5, 0.55 and 0.6
    close(r["masks"]["dice"], 2 * 12 / 32)
    close(r["masks"]["iou"], 12 / 20)
    close(r["masks"]["hd95_px"], 1)
    close(r["masks"]["hd95_mm"], 2)
    close(r["sequence"]["found"], 1)
    close(r["sequence"]["false_visible"], 0.5)
    assert r["frames"] == 3 and r["lines"]["covered"] is None
    r = report(folder, "--results", results(folder, found), "--conf", "0.95")  # nothing counts as found
    close(r["masks"]["dice"], 0)
    close(r["sequence"]["found"], 0)
    assert r["masks"]["hd95_px"] is None and r["masks"]["hd95_mm"] is None


@test
def a_score_of_conf_is_visible(folder):
    """--conf is a float, and of some decimals the nearest float is more."""
    coco(folder, [box(0, [2, 2, 4, 4])], make_images(folder, 1))
    for score in (0.1, 0.3, 0.6, 0.9):
        found = results(folder, [box(0, [2, 2, 4, 4], score=score)])
        for conf, visible in ((score, 1), (score + 1e-4, 0)):
            close(report(folder, "--results", found, "--conf", conf)["sequence"]["found"], visible)


@test
def a_category_of_nothing_may_have_anothers_name(folder):
    """Roboflow's category 0 is called as the project, and so often as its class."""
    for categories in ([{"id": 0, "name": "bone"}, {"id": 1, "name": "bone"}], [{"id": 1, "name": "bone"}, {"id": 7, "name": "bone"}]):
        coco(folder, [box(0, [2, 2, 4, 4], 1)], make_images(folder, 1), categories)
        close(report(folder, "--results", results(folder, [box(0, [2, 2, 4, 4], 1, score=0.9)]))["boxes"]["ap"], 1)
        um("val", folder, "-o", folder / "out")
        assert {r["category_id"] for r in json.loads((folder / "out/results.json").read_text())} == {1}


@test
def polygons_fill_as_coco_does(folder):
    coco(folder, [box(0, [2, 2, 4, 4], segmentation=[[2, 2, 6, 2, 6, 6, 2, 6]])])
    same = box(0, [2, 2, 4, 4], score=0.9, segmentation={"size": [10, 10], "counts": runs(22, 4, 6, 4, 6, 4, 6, 4, 44)})
    close(report(folder, "--results", results(folder, [same]))["masks"]["dice"], 1)


@test
def lines_beside_images(folder):
    sweep = folder / "sweep"
    sweep.mkdir()
    make_images(sweep, 4)
    for i in range(4):  # it comes with the second image
        png(sweep / f"{i}_line.png", 10, 10, lambda x, y, i=i: 255 * (i > 0 and y == 4))
    row = {"size": [10, 10], "counts": runs(*[6, 1, 9, 1, 9, 1, 9, 1, 9, 1, 53])}  # x from 0 to 4, y 6
    found = [box(i, [0, 6, 5, 1], score=0.9 if i > 1 else 0.1, segmentation=row) for i in range(4)]
    r = report(folder, "--results", results(folder, found), "--within", "2,1")
    close(r["lines"]["covered"], 0.5)
    close(r["lines"]["precision"], 0)
    close(r["lines"]["median_px"], 2)
    close(r["sequence"]["found"], 2 / 3)
    close(r["sequence"]["delay_frames"], 1)
    close(r["sequence"]["false_visible"], 0)
    assert [s["name"] for s in r["sweeps"]] == ["sweep"] and r["boxes"]["ap"] is None
    r = report(folder, "--results", results(folder, found), "--within", "2,2")
    close(r["lines"]["precision"], 1)
    far = {"size": [10, 10], "counts": runs(*[9, 1, 9, 1, 9, 1, 9, 1, 9, 1, 50])}  # y 9: one frame does not move the median
    found = [box(i, [0, 6, 5, 1], score=0.9, segmentation=far if i == 3 else row) for i in range(4)]
    close(report(folder, "--results", results(folder, found))["lines"]["median_px"], 2)


@test
def masks_in_a_folder_of_their_own(folder):
    (folder / "p").mkdir()
    (folder / "m").mkdir()
    make_images(folder / "p")
    png(folder / "m/0.png", 10, 10, lambda x, y: 255 * (2 <= x < 6 and 2 <= y < 6))
    png(folder / "m/1_mask.png", 10, 10, lambda x, y: 0)
    r = report(folder / "p", "--masks", folder / "m", "--results", results(folder, [box(0, [2, 2, 4, 4], score=0.9)]))
    close(r["boxes"]["ap"], 1)
    assert r["masks"]["dice"] is None  # a box without a mask
    (folder / "m").rename(folder / "p" / "m")  # in one that it lies in itself
    (folder / "m").symlink_to(folder / "p" / "m")
    close(report(folder / "p", "--masks", folder / "m", "--results", folder / "found.txt")["boxes"]["ap"], 1)
    png(folder / "m/2.png", 10, 10)
    _, err = um("val", folder / "p", "--masks", folder / "m", code=1)
    assert "m/2.png" in err and "missing" in err, err
    (folder / "m/2.png").rename(folder / "m/1.png")
    _, err = um("val", folder / "p", "--masks", folder / "m", code=1)
    assert f"m/1.png: its image in {folder / 'p'} has another truth, too" in err, err


@test
def a_folder_is_read_once(folder):
    """Whatever links lead to it, and by its own name, if it lies in the data set."""
    for name in ("data/b/c", "data/s", "far"):
        (folder / name).mkdir(parents=True)
        png(folder / name / "0.png", 10, 10)
        png(folder / name / "0_mask.png", 10, 10)
    (folder / "data/a").symlink_to("b")
    (folder / "data/b/round").symlink_to("..")
    (folder / "data/s/self").symlink_to(".")
    (folder / "data/z").symlink_to("../far")
    (folder / "data/y").symlink_to("../far")
    deep = folder / "data" / "/".join("d" * 20)
    deep.mkdir(parents=True)
    png(deep / "0.png", 10, 10)
    png(deep / "0_mask.png", 10, 10)
    r = report(folder / "data", "--results", results(folder, []))
    assert [s["name"] for s in r["sweeps"]] == ["b/c", "/".join("d" * 20), "s", "y"] and r["frames"] == 4, r["sweeps"]


def square(x, y):
    return 2 <= x < 6 and 2 <= y < 6


SQUARE = {"size": [10, 10], "counts": runs(22, 4, 6, 4, 6, 4, 6, 4, 44)}
PIXELS = {  # of masks: bits, colour type, and a pixel that is set or not
    "gray of 16 bits": (16, 0, lambda s: bytes([0, s])),
    "RGB of 16 bits": (16, 2, lambda s: bytes([0, 0, 0, s, 0, 0])),
    "gray and alpha": (8, 4, lambda s: bytes([s, 255])),
    "gray and alpha of 16 bits": (16, 4, lambda s: bytes([0, s, 0, 9 * s])),
    "RGB and alpha": (8, 6, lambda s: bytes([0, 0, s, 255])),
}


@test
def masks_of_every_depth(folder):
    make_images(folder, 1)
    found = results(folder, [box(0, [2, 2, 4, 4], score=0.9, segmentation=SQUARE)])
    for name, (bits, color, pixel) in PIXELS.items():
        png(folder / "0_mask.png", 10, 10, lambda x, y: pixel(square(x, y)), bits, color)
        dice = report(folder, "--results", found)["masks"]["dice"]
        assert dice == 1, f"{name}: Dice {dice}"
    for ink in (0, 255):
        png(folder / "0_mask.png", 10, 10, lambda x, y: bytes([ink, ink, ink, 255 * square(x, y)]), color=6)
        _, err = um("val", folder, "--results", found, code=1)
        assert "0_mask.png: its mask is in its alpha alone" in err, err
    png(folder / "0_mask.png", 10, 10, lambda x, y: bytes([0, 0, 0, 255]), color=6)
    close(report(folder, "--results", found)["sequence"]["false_visible"], 1)  # opaque and empty


@test
def truth_of_any_format_and_case(folder):
    found = results(folder, [box(0, [2, 2, 4, 4], score=0.9, segmentation=SQUARE)])
    for name in ("0_mask.PNG", "0_Ü_mask.Png", "0_a.b_mask.bmp"):  # the last one is a PNG all the same
        png(folder / name.replace("_mask", "").replace("bmp", "png"), 10, 10)
        png(folder / name, 10, 10, lambda x, y: 255 * square(x, y))
    r = report(folder, "--results", found)
    assert r["frames"] == 3 and r["boxes"]["iou"] == r["masks"]["dice"], r
    close(r["masks"]["dice"], 1 / 3)


@test
def a_full_path_is_one(folder):
    images = make_images(folder, 1)
    (folder / "apart").mkdir()
    coco(folder / "apart", [box(0, [2, 2, 4, 4])], [{**images[0], "file_name": str(folder / "0.png")}])
    found = results(folder, [box(0, [2, 2, 4, 4], score=0.9)])
    close(report(folder / "apart", "--results", found)["boxes"]["iou"], 1)


@test
def an_outline_needs_no_box(folder):
    alone = {k: v for k, v in box(0, [], segmentation=SQUARE).items() if k != "bbox"}
    coco(folder, [alone])
    found = results(folder, [box(0, [2, 2, 4, 4], score=0.9)])
    close(report(folder, "--results", found)["boxes"]["iou"], 1)
    for wrong, word in (({**alone, "segmentation": []}, '"bbox" is not [x,y,w,h]'),
                        ({**alone, "segmentation": {"size": [10, 10], "counts": [100]}}, 'a "segmentation" of 0.png has no pixel')):
        coco(folder, [wrong])
        assert word in um("val", folder, "--results", found, code=1)[1]


@test
def odd_truth_is_said(folder):
    make_images(folder)
    found = results(folder, [])

    def said():
        lines = um("val", folder, "--results", found)[1].splitlines()
        return [line for line in lines if "found.txt" not in line]

    for i in range(2):
        png(folder / f"{i}_mask.png", 10, 10, lambda x, y: 1 + square(x, y))
    assert f"{folder}: 2 of 2 masks are more than half of the image" in said()[0]
    png(folder / "0_mask.png", 10, 10, lambda x, y: 0)
    png(folder / "1_mask.png", 10, 10, square)
    assert not said()
    png(folder / "1_mask.png", 10, 10, lambda x, y: 0)
    assert "no mask (of 2) has a pixel" in said()[0]
    coco(folder, [box(0, [4, 4, 8, 8])])  # which is x0, y0, x1, y1
    assert "1 box reaches beyond the image" in said()[0]
    coco(folder, [box(0, [4, 4, 7, 7])])
    assert not said()
    coco(folder, [box(0, [2, 2, 4, 4], iscrowd=1)])  # as some programs mark all run lengths
    assert 'every annotation (1) is a crowd ("iscrowd"), which is not scored' in said()[0]


@test
def images_of_16_bits(folder):
    for i in range(2):
        png(folder / f"{i}.png", 64, 64, lambda x, y: struct.pack(">H", 4095 * ((x // 8 + y // 8) % 2)), 16)
        png(folder / f"{i}_mask.png", 64, 64, lambda x, y: 0)
    err = um("val", folder)[1]
    assert "0.png: warning: 16-bit samples" in err and "2 images have such notices" in err, err
    assert "16-bit" not in um("val", folder, "--window", "0,4095")[1]
    assert "--window" in um("val", folder, "--window", "5", code=2)[1]
    assert "--window: nothing for" in um("val", "phantom:frames=1", "--window", "auto", code=2)[1]


@test
def masks_of_results_are_read_as_those_of_truth(folder):
    coco(folder, [box(0, [2, 2, 4, 4], segmentation=SQUARE)])

    def dice(*found):
        return report(folder, "--results", results(folder, found))["masks"]["dice"]

    best = box(0, [2, 2, 4, 4], score=0.9)
    close(dice({**best, "segmentation": {"size": [10, 10], "counts": [22, 4, 6, 4, 6, 4, 6, 4, 44]}}), 1)
    close(dice({**best, "segmentation": [[2, 2, 6, 2, 6, 6, 2, 6]]}), 1)
    close(dice(best, {**best, "segmentation": SQUARE}), 1)  # of equal ones, the one that has a mask
    close(dice(best, {**best, "score": 0.8, "segmentation": SQUARE}), 0)
    close(dice({**best, "score": 0.1}), 0)
    assert dice(best) is None
    out, err = um("val", folder, "--results", folder / "found.txt")
    assert "Dice" not in out and "no mask in the results" in err, out + err
    for wrong in ({"size": [20, 5], "counts": SQUARE["counts"]}, {"size": [10, 10], "counts": [99]}, [[1, 2]], "x", {}):
        results(folder, [{**best, "segmentation": wrong}])
        _, err = um("val", folder, "--results", folder / "found.txt", code=1)
        assert 'found.txt: a "segmentation" of 0.png is neither polygons nor run lengths of 10x10' in err, err


@test
def all_boxes_count(folder):
    categories = [{"id": c, "name": f"class {c}"} for c in range(2)]
    coco(folder, [box(0, [2, 2, 4, 4]), {**box(0, [5, 5, 4, 4], 1), "id": 2}], make_images(folder, 1), categories)
    found = [box(0, [2, 2, 4, 4], score=0.9)] + 400 * [box(0, [0, 0, 1, 1], score=0.8)] + [box(0, [5, 5, 4, 4], 1, score=0.7)]
    r = report(folder, "--results", results(folder, found), "-o", folder / "out")
    close(r["boxes"]["ap"], 1)
    written = folder / "out/results.json"
    assert len(json.loads(written.read_text())) == 402
    close(report(folder, "--results", written)["boxes"]["ap"], 1)


@test
def each_class_has_its_row(folder):
    categories = [{"id": 4, "name": "nerve"}, {"id": 2}, {"id": 7, "name": "unused"}]
    truth = [box(0, [2, 2, 4, 4], 4, segmentation=SQUARE), box(1, [2, 2, 4, 4], 2, segmentation=SQUARE), box(2, [2, 2, 4, 4], 2, segmentation=SQUARE)]
    coco(folder, [{**t, "id": i} for i, t in enumerate(truth)], make_images(folder, 4), categories)
    found = [box(0, [2, 2, 4, 4], 4, score=0.9, segmentation=SQUARE), box(1, [2, 2, 4, 4], 4, score=0.8, segmentation=SQUARE),
             box(2, [2, 2, 4, 4], 2, score=0.7), box(3, [2, 2, 4, 4], 2, score=0.3)]
    r = report(folder, "--results", results(folder, found))
    nerve, other = r["classes"]
    assert (nerve["name"], nerve["frames"], other["name"], other["frames"]) == ("nerve", 1, "2", 2)
    close(nerve["boxes"]["ap"], 1)  # the second, of another class's structure, has the lower score
    close(other["boxes"]["ap"], 51 / 101)
    close(nerve["masks"]["dice"], 1)
    close(other["masks"]["dice"], 0.5)  # one had the right mask under the wrong name, one had none
    close(other["sequence"]["found"], 1)
    assert other["sequence"]["false_visible"] is None and other["sequence"]["delay_frames"] is None
    close(r["boxes"]["ap"], (1 + 51 / 101) / 2)
    out, _ = um("val", folder, "--results", folder / "found.txt")
    rows = out.split("class  ")[1].splitlines()
    assert rows[1].split()[:3] == ["nerve", "1", "1.0000"] and rows[2].split()[:2] == ["2", "2"] and len(rows) == 3, out
    coco(folder, [{**t, "category_id": 2, "id": i} for i, t in enumerate(truth)], make_images(folder, 4), categories)
    assert report(folder, "--results", results(folder, found[2:]))["classes"] == []


@test
def sweeps_may_take_turns(folder):
    for name in "ab":
        (folder / name).mkdir()
        make_images(folder / name, 4)
    images = [{"id": i, "file_name": f"{'ab'[i % 2]}/{i // 2}.png", "width": 10, "height": 10} for i in range(8)]
    coco(folder, [{**box(i, [2, 2, 4, 4]), "id": i} for i in range(8)], images)
    found = [box(i, [2, 2, 4, 4], score=0.9) for i in range(8) if i % 2 == 0 or i > 4]  # b from its third frame on
    r = report(folder, "--results", results(folder, found))
    assert [(s["name"], s["frames"], s["sequence"]["delay_frames"]) for s in r["sweeps"]] == [("a", 4, 0), ("b", 4, 2)], r["sweeps"]
    for k, sweep in enumerate(r["sweeps"]):  # each is what it is alone
        coco(folder, [{**box(i, [2, 2, 4, 4]), "id": i} for i in range(k, 8, 2)], images[k::2])
        alone = report(folder, "--results", results(folder, [f for f in found if f["image_id"] % 2 == k]))
        assert sweep == alone["sweeps"][0] and all(sweep[of] == alone[of] for of in ("boxes", "sequence")), (sweep, alone)


@test
def a_signal_ends_the_resampling(folder):
    n = 1000  # 100,000 boxes take seconds
    make_images(folder, 1)
    images = [{"id": i, "file_name": "0.png", "width": 10, "height": 10} for i in range(n)]
    coco(folder, [{**box(i, [2, 2, 4, 4]), "id": i} for i in range(n)], images)
    found = [box(i, [2, 2, 4, 4], score=k / 100) for i in range(n) for k in range(100)]
    with subprocess.Popen([COMMAND, "val", folder, "--results", results(folder, found), "-o", folder / "out"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=ENVIRONMENT) as p:  # fmt: skip
        written = folder / "out/results.json"
        while not (written.exists() and written.read_bytes()[-3:] == b"\n]\n"):  # then all frames were looked at
            assert p.poll() is None
            time.sleep(0.05)
        p.send_signal(signal.SIGTERM)
        out, err = p.communicate(timeout=20)
    assert p.returncode == 1 and not out and b"stopped after 1000 frames, nothing is reported" in err, err


@test
def an_image_that_does_not_fit_is_named(folder):
    make_images(folder, 1, 40)
    png(folder / "0_mask.png", 40, 40)
    _, err = um("val", folder, "--crop", "0,0,60,60", code=2)
    assert "val: 0.png: " in err and "reaches beyond" in err, err


@test
def images_come_in_natural_order(folder):
    for i in range(1, 12):
        png(folder / f"{i}.png", 10, 10)
        png(folder / f"{i}_mask.png", 10, 10, lambda x, y, i=i: 255 * (i > 2 and square(x, y)))
    found = [box(i, [2, 2, 4, 4], score=0.9) for i in range(4, 11)]  # from 5.png on
    r = report(folder, "--results", results(folder, found))
    close(r["sequence"]["found"], 7 / 9)
    close(r["sequence"]["delay_frames"], 2)


@test
def crowds_as_json_has_it(folder):
    coco(folder, [box(0, [2, 2, 4, 4], iscrowd=True), {**box(1, [2, 2, 4, 4], iscrowd=False), "id": 2}])
    close(report(folder, "--results", results(folder, [box(1, [2, 2, 4, 4], score=0.9)]))["boxes"]["ap"], 1)


@test
def a_crowd_alone_is_no_change(folder):
    boxes = [box(i, [2, 2, 4, 4], iscrowd=int(i in (0, 2))) for i in range(5)]
    coco(folder, [{**b, "id": i} for i, b in enumerate(boxes)], make_images(folder, 5))
    r = report(folder, "--results", results(folder, [box(4, [2, 2, 4, 4], score=0.9)]))
    close(r["sequence"]["found"], 1 / 3)
    close(r["sequence"]["delay_frames"], 3)  # once, from image 1 on
    seen = report(folder, "--results", results(folder, [box(i, [2, 2, 4, 4], score=0.9) for i in (2, 4)]))
    close(seen["sequence"]["delay_frames"], 3)  # what is VISIBLE among a crowd is perhaps not the structure


@test
def what_is_passed_over_is_told(folder):
    data = folder / "data"
    data.mkdir()
    make_images(data, 1)
    png(data / "0_mask.png", 10, 10)
    (data / "b.webp").touch()
    (data / "c.gif").touch()
    _, err = um("val", data, "--results", results(folder, []))
    assert "passed over: 2 files not called like PNG, JPEG, BMP or TIFF: b.webp, ..." in err, err


@test
def a_folder_has_the_last_run(folder):
    out = folder / "out"
    for name, n in (("many", 3), ("few", 1)):
        (folder / name).mkdir()
        coco(folder / name, [{**box(i, [2, 2, 4, 4]), "id": i} for i in range(n)], make_images(folder / name, n))
        um("val", folder / name, "--results", results(folder, []), "-o", out)
        for kept in ("notes.txt", "99_mine.png", "mine.png"):
            (out / "worst" / kept).touch()
    assert sorted(f.name for f in (out / "worst").iterdir()) == ["00_0.png", "99_mine.png", "mine.png", "notes.txt"]
    images = make_images(folder, 1)
    (folder / "0.png").rename(folder / f"{75 * 'é'}.png")
    coco(folder, [box(0, [2, 2, 4, 4])], [{**images[0], "file_name": f"{75 * 'é'}.png"}])
    um("val", folder / "truth.json", "--results", results(folder, []), "-o", out)
    assert (out / "worst" / f"00_{63 * 'é'}.png").exists(), "cut within a character"


@test
def networks_and_what_they_write(folder):
    um("phantom", "-o", folder / "data", "--frames", 3, "--seed", 987654)
    r = report(folder / "data", "-o", folder / "out")
    assert r["boxes"]["ap50"] > 0.9 and r["masks"]["dice"] > 0.8, r
    direct = report("phantom:seed=987654,frames=3")
    again = report(folder / "data", "--results", folder / "out/results.json")
    for group in ("boxes", "masks"):
        assert r[group] == again[group] == direct[group], f"{r[group]}\n{again[group]}\n{direct[group]}"
    assert json.loads((folder / "out/report.json").read_text())["boxes"] == r["boxes"]
    assert (folder / "out/contact.png").stat().st_size > 1000 and list((folder / "out/worst").iterdir())
    um("phantom", "-o", folder / "hard", "--frames", 4, "--seed", 7, "--look", "hard", "--size", "160x200")
    written, drawn = report(folder / "hard"), report("phantom:seed=7,frames=4,width=160,height=200,look=hard")
    assert written["boxes"] == drawn["boxes"] and written["masks"] == drawn["masks"]
    assert all("structures" in i for i in json.loads((folder / "hard/truth.json").read_text())["images"])
    assert len(list((folder / "hard/structures").iterdir())) == 4
    assert "Dice" in um("val", folder / "data", "--results", folder / "out/results.json")[0]


@test
def a_crop_is_judged_in_the_whole_image(folder):
    um("phantom", "-o", folder / "data", "--frames", 3, "--seed", 987654)
    truth = json.loads((folder / "data/truth.json").read_text())
    for image in truth["images"]:
        name = image["file_name"]
        pixels = gray(folder / "data/frames" / Path(name).name)
        png(folder / Path(name).name, 600, 640, lambda x, y: pixels[y - 50][x - 120] if 120 <= x < 542 and 50 <= y < 608 else 0)
        image.update(width=600, height=640, file_name=Path(name).name)
    for a in truth["annotations"]:
        a["bbox"] = [a["bbox"][0] + 120, a["bbox"][1] + 50, *a["bbox"][2:]]
        del a["segmentation"]
    (folder / "truth.json").write_text(json.dumps(truth))
    alone, there = report(folder / "data"), report(folder, "--crop", "120,50,422,558")
    assert alone["boxes"]["ap"] == there["boxes"]["ap"] > 0.3, (alone["boxes"], there["boxes"])


@test
def the_image_on_a_screen_is_found_again(folder):
    alone, lost, found = (report(f"phantom:seed=900001,frames=8,empty=0{more}", *crop)["masks"]["dice"]
                          for more, crop in (("", ()), (",screen=1", ()), (",screen=1", ("--crop", "auto"))))
    assert alone > found > lost + .3, (alone, lost, found)


@test
def sweeps_of_the_phantom_are_in_time(folder):
    sweeps, small = "phantom:seed=900000,frames=118,sweep=1", ("--det-size", 256, "--sam-size", 64)  # masks are no matter here
    plain = report(sweeps, *small)
    assert [(s["name"], s["frames"]) for s in plain["sweeps"]] == [("sweep000", 105), ("sweep001", 13)]
    assert 0 <= plain["sequence"]["delay_frames"] < 2, plain
    tracked = report(sweeps, *small, "--track", 1)  # three frames to VISIBLE, in each sweep
    assert all(s["sequence"]["delay_frames"] >= 2 for s in tracked["sweeps"]), tracked
    um("phantom", "-o", folder / "data", "--sweep", "--frames", 118, "--seed", 900000)
    written = report(folder / "data", *small)
    assert [s["name"] for s in written["sweeps"]] == ["frames/sweep000", "frames/sweep001"]
    assert written["sequence"] == plain["sequence"] and written["boxes"] == plain["boxes"]


def two_classes(path):
    """A detector that calls what it finds "other", and hardly ever "bone"."""
    data = DETECTOR.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8:end]), bytearray()
    for name, t in header.items():
        if name == "__metadata__":
            t["classes"] = "other,bone"
            continue
        values = data[end + t["data_offsets"][0]:end + t["data_offsets"][1]]
        if "score_head" in name or "denoising_class" in name:
            t["shape"][0] += 1
            values += struct.pack("<e", -20) if name.endswith("bias") else values[:256]
        t["data_offsets"] = [len(body), len(body) + len(values)]
        body += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


@test
def what_the_truth_has_no_category_for_is_not_found(folder):
    um("phantom", "-o", folder / "data", "--frames", 3, "--seed", 900000)
    r = report(folder / "data", "--detector", two_classes(folder / "two.safetensors"))
    assert r["sequence"]["found"] == 0 and r["masks"]["dice"] == 0 and r["boxes"]["iou"] == 0, r
    (folder / "names").write_text("\nbone\n")  # by its name, not by the number of a class without one
    r = report(folder / "data", "--detector", folder / "two.safetensors", "--names", folder / "names")
    assert r["sequence"]["found"] == 0, r
    truth = folder / "data/truth.json"
    text = json.loads(truth.read_text())
    text["categories"].append({"id": 7, "name": "bones-nerves"})  # as exporters write it: nothing is of it
    truth.write_text(json.dumps(text))
    assert report(folder / "data")["sequence"]["found"] == 1
    text["categories"][0]["name"] = "Bone"
    truth.write_text(json.dumps(text))
    _, err = um("val", folder / "data", code=1)
    assert "unknown category 0 (Bone)" in err and "(its first: bone); --names FILE says" in err, err
    text["annotations"] = []  # nothing is of any: then one at least must be known
    truth.write_text(json.dumps(text))
    _, err = um("val", folder / "data", code=1)
    assert "unknown category 0 (Bone)" in err, err
    um("convert", DETECTOR, folder / "plain.pth", "--upstream")  # and most data sets count from 1
    text["categories"] = [{"id": 1, "name": "Bone"}]
    truth.write_text(json.dumps(text))
    _, err = um("val", folder / "data", "--detector", folder / "plain.pth", code=1)
    assert "unknown category 1 (Bone)" in err and "(they have no names, only numbers from 0); --names FILE" in err, err


@test
def outputs_apart_from_the_data(folder):
    for kind in ("coco", "masks"):
        data = folder / kind
        data.mkdir()
        images = make_images(data, 1)
        if kind == "coco":
            coco(data, [box(0, [2, 2, 4, 4])], images)
        else:
            png(data / "0_mask.png", 10, 10, lambda x, y: 255 * square(x, y))
        for out in [data, data / "out"][:1 + (kind == "masks")]:
            _, err = um("val", data, "--results", results(folder, []), "-o", out, code=2)
            assert "lies in the data set" in err, err
        if kind == "masks":  # in a folder of their own
            for option in ("--masks", "--lines"):
                (folder / option).mkdir()
                png(folder / option / "0.png", 10, 10, lambda x, y: 255 * square(x, y))
                for out in (folder / option, folder / option / "out"):
                    _, err = um("val", data, option, folder / option, "--results", results(folder, []), "-o", out, code=2)
                    assert "lies in the data set" in err, err
        for n in range(2):
            um("val", data, "--results", results(folder, []), "-o", folder / "out" if kind == "masks" else data / "out")
    truth = folder / "coco/results.json"  # called as what would be written there
    (folder / "coco/truth.json").rename(truth)
    before = truth.read_bytes()
    _, err = um("val", truth, "--results", results(folder, []), "-o", folder / "coco", code=2)
    assert "lies in the data set" in err and truth.read_bytes() == before, err
    found = folder / "out/results.json"
    _, err = um("val", truth, "--results", found, "-o", folder / "out", code=2)
    assert f"{found} is also the input --results" in err and found.exists(), err


@test
def images_apart_from_a_coco_file(folder):
    (folder / "annotations").mkdir()
    (folder / "images").mkdir()
    coco(folder / "annotations", [box(0, [2, 2, 4, 4])], make_images(folder / "images"))
    truth, found = folder / "annotations/truth.json", ("--results", results(folder, []))
    _, err = um("val", truth, *found, code=1)
    assert f"{folder}/annotations/0.png is missing (--pictures DIR" in err, err
    for data in (truth, folder / "annotations"):
        assert report(data, "--pictures", folder / "images", *found)["frames"] == 2
    for data, *more in (("phantom:frames=1", "--pictures", folder), (truth, "--pictures", folder / "images", "--masks", folder)):
        _, err = um("val", data, *more, *found, code=2)
        assert f"{data}: {more[-2]}" in err and " for " in err, err


@test
def truth_json_among_others(folder):
    coco(folder, [box(0, [2, 2, 4, 4])])
    for name in "ab":
        (folder / f"{name}.json").write_text("{}")
    assert report(folder, "--results", results(folder, []))["frames"] == 2
    (folder / "truth.json").rename(folder / "c.json")
    _, err = um("val", folder, code=2)
    assert "several .json files" in err, err


@test
def json_of_a_labelling_tool_beside_masks(folder):
    for name in ("0", "1"):
        png(folder / f"{name}.png", 10, 10)
        png(folder / f"{name}_mask.png", 10, 10, lambda x, y: 255 * square(x, y))
        (folder / f"{name}.json").write_text('{"shapes": []}')
    assert report(folder, "--conf", 0.9)["frames"] == 2
    (folder / "0_mask.png").unlink()
    _, err = um("val", folder, code=1)
    assert "0.json: no \"categories\": not COCO's format" in err, err


@test
def results_that_never_come_hold_no_signal(folder):
    coco(folder, [])
    _, err = um("val", folder, "--results", folder, code=1)
    assert f"{folder}: cannot be read: Is a directory" in err, err
    os.mkfifo(folder / "fifo")
    process = subprocess.Popen([COMMAND, "val", folder, "--results", folder / "fifo"], env=ENVIRONMENT)
    while "wait_for_partner" not in Path(f"/proc/{process.pid}/wchan").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == -signal.SIGTERM


@test
def no_results_of_a_part(folder):
    um("phantom", "-o", folder / "data", "--frames", 30, "--size", "64x64")
    out = folder / "out"
    with subprocess.Popen([COMMAND, "val", folder / "data", "-o", out], stderr=subprocess.PIPE, env=ENVIRONMENT) as p:
        while not (out / "results.json").exists():
            time.sleep(0.01)
        p.send_signal(signal.SIGINT)
        assert b"nothing is reported" in p.communicate()[1] and p.returncode == 1
    assert not list(out.iterdir())


@test
def wrong_truth_is_named(folder):
    found = results(folder, [])

    def refused(word, annotations, *more, **parts):
        coco(folder, annotations, **parts)
        _, err = um("val", folder, *(more or ("--results", found)), code=1)
        assert word in err, f"{err!r}, want {word!r}"

    good = [box(0, [1, 1, 3, 3])]
    refused("unknown category 4", [box(0, [1, 1, 3, 3], category=4)])
    refused("image 7, which is not there", [box(7, [1, 1, 3, 3])])
    refused("image 0: /no/such.png is missing (\"file_name\" is a full path", good, images=[{"id": 0, "file_name": "/no/such.png", "width": 10, "height": 10}])
    refused("no_such.png is missing (--pictures DIR", good, images=[{"id": 0, "file_name": "no_such.png", "width": 10, "height": 10}])
    refused("10x10 pixels, its truth says 12x10", good, images=[{**make_images(folder, 1)[0], "width": 12}])
    refused("\"segmentation\"", [box(0, [1, 1, 3, 3], segmentation={"size": [10, 10], "counts": [99]})])
    refused("\"segmentation\"", [box(0, [1, 1, 3, 3], segmentation={"size": [9, 10], "counts": [90]})])
    refused("\"segmentation\"", [box(0, [1, 1, 3, 3], segmentation={"size": [10, 10], "counts": "~~"})])
    refused("\"segmentation\"", [box(0, [1, 1, 3, 3], segmentation=[[1, 1, 2, 2]])])
    refused("bbox", [box(0, [1, 1, 3])])
    refused("image 0 has no whole number as \"id\"", good, images=[{**make_images(folder, 1)[0], "id": "0"}])
    refused("no whole number as \"image_id\"", [box("0", [1, 1, 3, 3])])
    for nothing in ([4, 4, -3, -3], [4, 4, 0, 3], [10, 1, 3, 3], [-3, 1, 3, 3]):
        refused("\"bbox\" has nothing of the image of 10x10 pixels", [box(0, nothing)])
    refused("no pixel in its \"bbox\"", [box(0, [1, 1, 3, 3], segmentation=[[20, 20, 30, 20, 30, 30]])])
    refused("no pixel in its \"bbox\"", [box(0, [1, 1, 3, 3], segmentation={"size": [10, 10], "counts": [88, 2, 10]})])
    refused("\"segmentation\"", [box(0, [1, 1, 3, 3], segmentation="x")])
    far = [1, 1] + 20_000 * [160, 1e5, 160, -1e5]  # at each pixel of its outline this would take a minute
    refused("\"segmentation\"", [box(0, [1, 1, 3, 3], segmentation=[far])])
    refused("annotation 1 (0.png): \"iscrowd\" is neither", [box(0, [1, 1, 3, 3], iscrowd="1")])
    refused("two annotations have id 1", [*good, box(1, [1, 1, 3, 3])])
    both = [*good, {**box(0, [1, 1, 3, 3], 3), "id": 2}]
    refused("two categories, 0 and 3, are named bone", both, categories=[{"id": i, "name": "bone"} for i in (0, 3)])
    refused("two images have id 0", good, images=2 * make_images(folder, 1))
    refused("unknown category 0 (femur)", good, "--conf", "0.5", categories=[{"id": 0, "name": "femur"}])
    results(folder, [box(5, [1, 1, 3, 3], score=0.5)])
    refused("of 1 result 1 are of images", good)
    results(folder, [box(0, [1, 1, 3, 3], category=3, score=0.5)])
    refused("unknown category 3; the data set has 1, the first is 0", good)
    results(folder, [box(0, [1, 1, 3, 3], category=123456789, score=0.5)])
    refused("unknown category 123456789; the data set has 1, the first is 0", good)
    results(folder, [{"image_id": 0}])
    refused("no image_id, category_id", good)
    results(folder, [box(0, [1, 1, 3, 3], score=0.5), box(1.5, [1, 1, 3, 3], score=0.5)])
    refused("result 1 has no image_id, category_id (whole numbers)", good)
    (folder / "found.txt").write_text(found.read_text().replace("1.5", "0").replace("3]", "1e999]"))
    refused("result 0 has no image_id", good)
    (folder / "found.txt").write_text(found.read_text().replace("1e999]", "3]").replace("0.5", "1e999", 1))
    refused("result 0 has no image_id", good)
    results(folder, [box(0, [1, 1, 3, 3], score=0.5), box(0, [1, 1, -3, 3], score=0.5)])
    refused("result 1 has no image_id, category_id (whole numbers), bbox (x, y, width and height from 0 on)", good)
    (folder / "truth.json").write_text("{\"images\":[")
    assert "no JSON at byte" in um("val", folder, code=1)[1]
    (folder / "truth.json").unlink()
    assert f"has no truth: no 0_mask.png in {folder} and no 0_line.png in {folder}" in um("val", folder, code=1)[1]
    (folder / "apart").mkdir()
    err = um("val", folder, "--masks", folder / "apart", code=1)[1]
    assert f"has no truth: no 0[_mask].png in {folder}/apart and no 0_line.png in {folder}" in err, err
    (folder / "apart").rmdir()
    results(folder, [])
    (folder / "0_mask.png").write_bytes((ROOT / "tests/golden/image/gray.jpg").read_bytes())
    png(folder / "1_mask.png", 10, 10)
    assert "0_mask.png: a JPEG, in which what is 0" in um("val", folder, "--results", found, code=1)[1]
    for name in folder.glob("*_mask.png"):
        name.unlink()
    png(folder / "0_line.png", 11, 10)
    png(folder / "1_line.png", 10, 10)
    assert "11x10 pixels" in um("val", folder, "--results", found, code=1)[1]
    assert "nothing: No such file" in um("val", folder / "nothing", code=1)[1]
    assert "phantom:frames=0 has no end" in um("val", "phantom:frames=0", code=2)[1]


@test
def a_truth_is_of_one_image(folder):
    page = [bytes(10)] * 10
    write_tiff(folder / "0.tif", [page, page])
    png(folder / "0_line.png", 10, 10)
    found = results(folder, [])
    error = um("val", folder, "--results", found, code=1)[1]
    assert "0.tif: several images in one file" in error or "without libtiff" in error, error
    (folder / "0.tif").unlink()
    write_tiff(folder / "0_line.png", [page, page])  # the content says what it is
    png(folder / "0.png", 10, 10)
    error = um("val", folder, "--results", found, code=1)[1]
    assert "0_line.png: several images in one file" in error or "without libtiff" in error, error


main()
