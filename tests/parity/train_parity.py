# SPDX-License-Identifier: Apache-2.0
"""Runs of train/: the same arguments give the same losses and the same file, also where the run was killed while it wrote a checkpoint, and
with other numbers of processes. A run that goes on keeps what it began with, and is one process's."""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from safetensors import safe_open
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "train"))
import alter  # noqa: E402
import cv2  # noqa: E402
import dataset  # noqa: E402
import frames  # noqa: E402
import run as recipes  # noqa: E402
import torch  # noqa: E402

STEPS = 5


def command(out, *more):
    return [sys.executable, str(ROOT / "train/detector.py"), str(out), "--batch", "2", "--threads", "1", "--steps", str(STEPS), *more]


def run(out, *more):
    return subprocess.run(command(out, *more), capture_output=True, text=True)


def losses(out):
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in (out / "log.jsonl").read_text().splitlines()]


def workers_of(pid):
    """Processes that it started, but the one that only counts semaphores."""
    children = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in children if "spawn_main" in line]


def killed(out):
    """In the middle of the checkpoint after its second step; returns its workers."""
    with subprocess.Popen(command(out, "--workers", "2", "--minutes", "0"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
        while p.poll() is None and not ((out / "checkpoint.new").exists() and len(losses(out)) > 1):
            time.sleep(0.002)
        workers = workers_of(p.pid)
        p.kill()
    return workers


def stopped_at_once(out):
    """As a terminal's Ctrl-C stops it, which all its processes get, when those that draw images begin."""
    with subprocess.Popen(command(out, "--workers", "2"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True) as p:
        while p.poll() is None and not workers_of(p.pid):
            time.sleep(0.01)
        os.killpg(p.pid, signal.SIGINT)
        said = p.communicate()[1]
    assert p.returncode == 0 and (out / "checkpoint.pt").exists(), said


def refused(what, out, *more):
    done = run(out, *more)
    assert done.returncode and what in done.stderr, f"{more}: {done.stderr!r}, want {what!r}"


def altered_images(folder):
    """Every way to alter images gives one for each, whose structure is where its mask is."""
    made = folder / "to alter"
    masks = made / "masks"
    subprocess.run([ROOT / "build/ultramotion", "phantom", "-q", "-o", made, "--frames", "2", "--seed", "900001"], check=True)
    over = subprocess.run([sys.executable, ROOT / "train/alter.py", "dark", made / "frames", made], capture_output=True, text=True)
    assert over.returncode == 2 and "is what is read" in over.stderr, over.stderr
    none = subprocess.run([sys.executable, ROOT / "train/alter.py", "dark", made, folder / "none"], capture_output=True, text=True)
    assert none.returncode == 1 and "no images" in none.stderr, none.stderr
    beside = folder / "masks beside"
    beside.mkdir()
    for name in ("a.png", "a_mask.png"):
        cv2.imwrite(str(beside / name), np.full((64, 64), 90, np.uint8))
    alone = subprocess.run([sys.executable, ROOT / "train/alter.py", "noisy", beside, folder / "none"], capture_output=True, text=True)
    assert alone.returncode == 2 and "a_mask.png: would be altered" in alone.stderr, alone.stderr
    (beside / "a_mask.png").unlink()
    cv2.imwrite(str(beside / "a.jpg"), np.full((64, 64), 90, np.uint8))
    alone = subprocess.run([sys.executable, ROOT / "train/alter.py", "noisy", beside, folder / "none"], capture_output=True, text=True)
    assert alone.returncode == 1 and "a.png: would be written over what was made of" in alone.stderr, alone.stderr
    lines = [sys.executable, ROOT / "train/compare.py", made / "frames", folder / "compared.png", "-n", "2", "--lines"]
    missing = subprocess.run([*lines, folder], capture_output=True, text=True)
    assert missing.returncode == 1 and missing.stderr.endswith(f"{folder}/00000.png: no image\n"), missing.stderr
    for how in alter.KINDS:
        out = folder / how
        subprocess.run([sys.executable, ROOT / "train/alter.py", how, made / "frames", out, "--masks", masks], check=True, stdout=subprocess.DEVNULL)
        for name in ("00000.png", "00001.png"):
            before, image, mask = (cv2.imread(str(p / name), cv2.IMREAD_GRAYSCALE) for p in (made / "frames", out / "frames", out / "masks"))
            where, was = mask > 0, alter.mask_of(Path(name), masks) > 0
            assert image.shape == mask.shape and where.sum() > 100, how
            if image.shape == before.shape:
                assert (where == was).all() and np.corrcoef(image.ravel(), before.ravel())[0, 1] > 0.3, how
            else:
                assert abs(image[where].mean() / before[was].mean() - 1) < 0.1, how


def with_two_classes(path, to, **facts):
    two = {k: v.repeat(2, *[1] * (v.dim() - 1)) if "_score_head" in k else v for k, v in load_file(path).items()}
    save_file(two, to, {"training_data": "scans of ours", **facts})
    return str(to)


def losses_that_are_no_numbers(folder, start):
    """A run whose weights are lost ends, and writes no model of them."""
    args = SimpleNamespace(start=start, out=folder, checkpoint=folder / "checkpoint.pt", saved=None, steps=100, until=100, seed=1, within=0, minutes=4, stop_after=0, clip=1)
    net = torch.nn.Linear(1, 1)
    folder.mkdir()
    handlers = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    state = recipes.Run(args, net, torch.optim.SGD(net.parameters(), 0.1))
    try:
        state.go(itertools.repeat(7), lambda _: {"dice": net.weight.sum() * (float("nan") if state.step > 2 else 1)})
    except SystemExit as said:
        assert "no finite numbers" in str(said) and len(losses(folder)) == 2 + recipes.LOST and not args.checkpoint.exists(), said
    else:
        raise AssertionError("goes on without learning")
    finally:
        for s, before in handlers.items():
            signal.signal(s, before)


def own_images(folder):
    """Labelled images of one's own, in the forms that `val` takes: the same boxes and masks from each, and what no form should bring."""
    where = folder / "Gerät 1"
    subprocess.run([ROOT / "build/ultramotion", "phantom", "-q", "-o", where, "--frames", "4", "--seed", "900001", "--size", "700x500"], check=True)
    truth = json.loads((where / "truth.json").read_text())
    for image in (where / "frames").iterdir():
        image.rename(image.with_suffix(".PNG"))
    for image in truth["images"]:
        image["file_name"] = image["file_name"].replace(".png", ".PNG")
    found = dataset.Dataset(dataset.Own(str(where / "frames"), str(where / "masks"), "", (0, 0, 0), 0, 0))
    (where / "truth.json").write_text(json.dumps(truth))

    def of_coco(**changes):
        path = where / "own.json"
        path.write_text(json.dumps({**truth, **changes}))
        return dataset.Dataset(dataset.Own(str(path), "", "", (0, 0, 0), 0, 0))

    def annotations(**changes):
        return [{k: v for k, v in {**a, **changes}.items() if v is not None} for a in truth["annotations"]]

    (where / "masks").rename(where / "frames/masks")  # in a folder of the images
    inner = dataset.Dataset(found.own._replace(masks=str(where / "frames/masks")))
    assert [i for i, _ in inner.images] == [i for i, _ in found.images]
    (where / "frames/masks").rename(where / "masks")
    linked = where / "linked"  # sweeps chosen by links, and what other systems leave
    (linked / "masks").mkdir(parents=True)
    (linked / "sweep").symlink_to(where / "frames")
    (linked / "masks/sweep").symlink_to(where / "masks")
    (linked / "round").symlink_to(linked)
    for hidden in ("._00000.PNG", ".labels.json"):
        (linked / hidden).touch()
    chosen = dataset.Dataset(found.own._replace(data=str(linked), masks=str(linked / "masks")))
    assert [i.name for i, _ in chosen.images] == [i.name for i, _ in found.images]
    thin = np.zeros((2000, 3000), np.uint8)
    thin[1000:1003, 100:2900] = 1
    ys, xs = np.nonzero(dataset.smaller(thin, (600, 400)))
    assert (ys == 200).all() and len(xs) == 560, f"{len(xs)} of 560"
    whole, same = of_coco(), 0
    for i in range(4):
        image, masks, labels, outlined = found.read(i)
        other = whole.read(i)
        assert image.shape == (429, 600) and outlined and (image == other[0]).all() and labels == other[2] and len(masks) == len(other[1])
        same += sum(bool(m.any() and (m == o).all()) for m, o in zip(masks, other[1]))
    assert same == len(truth["annotations"]) > 0 and f"({same} bone" in found.checked(["bone"], False)
    boxes = of_coco(annotations=annotations(segmentation=None))
    for i in range(4):
        _, masks, _, outlined = boxes.read(i)
        for m, o in zip(masks, whole.read(i)[1]):
            a, b = (frames.box_of(x) for x in (m, o))
            assert not outlined and abs(a - b).max() < 4, f"{a}, {b}"  # thin ends vanish where an outline is scaled
    beyond = of_coco(annotations=annotations(segmentation=None, bbox=[-100.0, 20, 240, 60])).read(0)[1][0]
    assert frames.box_of(beyond).tolist() == [0, 17, 120, 69]
    crowd = annotations()
    crowd[0]["iscrowd"] = 1
    assert len(of_coco(annotations=crowd).images) == 3 and of_coco(annotations=crowd).left_out == 1
    named = of_coco(categories=[{"id": 5, "name": "nothing is of it"}, {"id": 0, "name": "Knochen, links"}])
    assert named.classes == ["Knochen, links"] and recipes.names_of({"classes": recipes.names(named.classes)}) == named.classes
    for classes, said in ((["7"], '["7"]'), (["[x]", "y"], '["[x]", "y"]'), (["a", "7"], "a,7"), ([""], '[""]')):
        assert recipes.names(classes) == said and recipes.names_of({"classes": said}) == classes, classes
    for classes in (["left ", "right"], [" a", "a"], ["x", ""]):  # what the command, too, takes them to be
        assert recipes.names_of({"classes": recipes.names(classes)}) == classes, classes
    assert recipes.names_of({"classes": "vessel, bone"}) == ["vessel", "bone"]
    assert recipes.learned_from({"training_data": "A"}, "2 images of a;b 1234 (2 bone)") == "2 images of a;b 1234 (2 bone); before: A"
    assert recipes.names_of({}) == recipes.names_of({"classes": "80"}) == ["bone"]
    pages = folder / "pages"
    pages.mkdir()
    cv2.imwritemulti(str(pages / "a.tif"), 2 * [np.zeros((64, 64), np.uint8)])
    cv2.imwrite(str(pages / "a_mask.png"), np.full((64, 64), 255, np.uint8))
    stack = dataset.Dataset(found.own._replace(data=str(pages), masks=""))
    for wrong, word in ((lambda: stack.checked(["bone"], False), "a.tif: several images in one file"),
                        (lambda: of_coco(annotations=annotations(iscrowd=1)).checked(["bone"], True), " images with a crowd left out"),
                        (lambda: boxes.checked(["bone"], False), "without \"segmentation\""), (lambda: of_coco(images=[{"id": 0}]), "KeyError"),
                        (lambda: of_coco(annotations=annotations() + annotations(image_id=999)), " annotations of images that it does not list, the first of 999"),
                        (lambda: of_coco(annotations=annotations(segmentation=[[1, 2, 3, 4]])).checked(["bone"], True), "a polygon is not x,y of three points or more"),
                        (lambda: of_coco(annotations=annotations(segmentation=[[1, 2, 3, 4, 5e7, 6]])).checked(["bone"], True), "a polygon has points that are far"),
                        (lambda: of_coco(annotations=annotations(segmentation=[[1, 2, 3, 4, float("nan"), 6]])).checked(["bone"], True),
                         "a polygon has points that are far"),
                        (lambda: of_coco(annotations=annotations(segmentation={"size": [10**6, 10**6], "counts": [10**12]})).checked(["bone"], True),
                         "its mask has 1000000x1000000"),
                        (lambda: of_coco(categories=[{"id": 0, "name": "half \ud800"}]), "a category is named 'half \\ud800', which is no text"),
                        (lambda: of_coco(categories=[{"id": 0, "name": "a\0b"}]), "a category is named 'a\\x00b'"),
                        (lambda: of_coco(annotations=annotations(segmentation=None, bbox=[1, 2, float("nan"), 4])).checked(["bone"], True), ": a bbox of 1, 2, nan, 4"),
                        (lambda: of_coco(annotations=annotations(category_id=9)), "own.json: annotations of category 9, which it does not list"),
                        (lambda: of_coco(images=2 * truth["images"]), "own.json: 2 images have id 0"),
                        (lambda: of_coco(categories=[{"id": i, "name": "bone"} for i in (0, 1)], annotations=annotations() + annotations(category_id=1)),
                         "own.json: 2 categories are named bone"),
                        (lambda: of_coco(images=[{**one, "width": 1400, "height": 1000} for one in truth["images"]]).checked(["bone"], True),
                         "00000.PNG: 700x500 pixels, its truth says 1400x1000"),
                        (lambda: of_coco(annotations=annotations() + annotations(segmentation={"size": [9, 8], "counts": [72]})).checked(["bone"], True),
                         "700x500 pixels, its mask has 8x9"),
                        (lambda: of_coco(annotations=annotations(segmentation={"size": [500, 700], "counts": [5, 5]})).checked(["bone"], True),
                         "run lengths that are not of its 700x500 pixels"),
                        (lambda: of_coco(annotations=annotations(segmentation={"size": [500, 700], "counts": "55"})).checked(["bone"], True),
                         "run lengths that are not of its 700x500 pixels"),
                        (lambda: of_coco(annotations=annotations(segmentation=None, bbox=[700, 20, 40, 60])).checked(["bone"], True),
                         "has no pixel of the image"),
                        (lambda: of_coco(annotations=annotations(segmentation=None, bbox=None)).checked(["bone"], True), "no 'bbox'"),
                        (lambda: dataset.Dataset(found.own._replace(masks=str(where))), "00000.PNG: no masks 00000[_mask].png in"),
                        (lambda: dataset.Dataset(found.own._replace(data=str(where / "own.json"))), "--masks is for folders of images"),
                        (lambda: dataset.Dataset(found.own._replace(pictures=str(where))), "--pictures is for a COCO .json")):
        try:
            wrong()
        except ValueError as said:
            assert word in str(said), said
        else:
            raise AssertionError(f"no {word}")
    beside = folder / "beside"
    beside.mkdir()
    cv2.imwrite(str(beside / "a.png"), np.zeros((64, 64), np.uint8))
    cv2.imwrite(str(beside / "a_mask.png"), np.full((64, 64), 255, np.uint8))
    (beside / "a.json").write_text('{"shapes": []}')
    assert len(dataset.Dataset(found.own._replace(data=str(beside), masks="")).images) == 1, "a labelling tool's .json is no COCO file"
    other = folder / os.fsdecode(b"Ger\xe4t")  # whose name is no UTF-8
    other.mkdir()
    for name in ("a.png", "a_mask.png"):
        (other / name).write_bytes((beside / name).read_bytes())
    assert " images of Ger\ufffdt " in dataset.Dataset(found.own._replace(data=str(other), masks="")).checked(["bone"], False)
    own = dataset.Own(str(where / "own.json"), "", "", (0, 0, 0), 0.5, 1)
    of_coco()
    labels = {k for i in range(20) for k in frames.draw(1, i, own=own).labels}
    assert labels >= {0, 1}, f"{labels}: 0 is the data's, 1 the phantom's"
    out = folder / "of own images"
    done = run(out, "--steps", "2", "--data", str(where / "frames"), "--masks", str(where / "masks"))
    assert done.returncode == 0 and "4 images of frames" in done.stderr, done.stderr
    facts = safe_open(out / "detector.safetensors", "pt").metadata()
    assert facts["classes"] == "bone" and facts["training_data"].startswith("4 images of frames") and facts["calm"] == "0.7", facts
    refused("began with --data 4 images", out, "--steps", "2")
    refused("window 0,9", out, "--steps", "2", "--data", str(where / "frames"), "--masks", str(where / "masks"), "--window", "0,9")
    made = (out / "detector.safetensors").read_bytes()
    assert run(out, "--export").returncode == 0 and (out / "detector.safetensors").read_bytes() == made
    two = [{**a, "category_id": 1 + i % 2} for i, a in enumerate(truth["annotations"])]
    of_coco(annotations=two, categories=[{"id": 1, "name": "bone"}, {"id": 2, "name": "rib"}])
    out = folder / "of two classes"
    done = run(out, "--steps", "1", "--data", str(where / "own.json"), "--phantom", "0.5")
    assert done.returncode == 0 and "it begins anew" in done.stderr, done.stderr
    said = subprocess.run([ROOT / "build/ultramotion", "val", where / "own.json", "--detector", out / "detector.safetensors"], capture_output=True, text=True)
    assert said.returncode == 0 and "AP50" in said.stdout, said.stderr
    of_coco(categories=[{"id": 0, "name": "rib"}])
    refused("no class bone", folder / "new", "--data", str(where / "own.json"), "--phantom", "0.1")
    refused("argument --window: invalid window value: '5'", folder / "new", "--data", str(where), "--window", "5")
    refused("are for --data", folder / "new", "--masks", str(where))
    recipe = [sys.executable, str(ROOT / "train/segmenter.py"), str(folder / "masks of own"), "--batch", "2", "--threads", "1", "--steps", "1"]
    done = subprocess.run([*recipe, "--data", str(where)], capture_output=True, text=True)
    assert done.returncode == 0 and (folder / "masks of own/segmenter.safetensors").exists(), done.stderr
    recipe[2] = str(folder / "of a small canvas")
    done = subprocess.run([*recipe, "--steps", "2", "--data", str(where), "--canvas", "192,256"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(losses(folder / "of a small canvas")) == 2
    facts = safe_open(folder / "of a small canvas/segmenter.safetensors", "pt").metadata()
    assert facts["input_size"] == "384" and facts["steps"].endswith("2 of batch 2 on a canvas of 192 and 256"), facts
    for other, said in (("384", "began with --canvas 192,256, not 384"), ("200", "200 is not SIDE or SIDE,LAST"), ("256,", "invalid canvases value: '256,'")):
        done = subprocess.run([*recipe, "--data", str(where), "--canvas", other], capture_output=True, text=True)
        assert done.returncode and said in done.stderr, done.stderr
    filled = folder / "filled"  # by a structure: nothing is beside it
    filled.mkdir()
    cv2.imwrite(str(filled / "a.png"), np.full((64, 64), 90, np.uint8))
    cv2.imwrite(str(filled / "a_mask.png"), np.full((64, 64), 255, np.uint8))
    recipe[2] = str(folder / "of filled")
    done = subprocess.run([*recipe, "--batch", "8", "--data", str(filled)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print("images of one's own: the same from each form; two classes; judged by val")


def main():
    with tempfile.TemporaryDirectory(prefix="train-") as folder:
        folder = Path(folder)
        own_images(folder)
        altered_images(folder)
        whole, cut = folder / "whole", folder / "cut"
        done = run(whole, "--workers", "1")
        assert done.returncode == 0, done.stderr
        stopped = folder / "stopped"
        stopped_at_once(stopped)
        assert run(stopped).returncode == 0 and (stopped / "detector.safetensors").read_bytes() == (whole / "detector.safetensors").read_bytes()
        workers = killed(cut)
        assert workers and not (cut / "detector.safetensors").exists()
        with (cut / "log.jsonl").open("a") as log:
            log.write('{"step": 3, "los')
        done = run(cut, "--workers", "3")
        assert "goes on from step" in done.stderr and done.returncode == 0, done.stderr
        assert losses(whole) == losses(cut) and len(losses(cut)) == STEPS, f"{losses(whole)}\n{losses(cut)}"
        assert (whole / "detector.safetensors").read_bytes() == (cut / "detector.safetensors").read_bytes()
        left = [pid for pid in workers if Path(f"/proc/{pid}").exists()]
        assert not left, f"processes outlive the run: {left}"
        print("killed and gone on with: the same losses, the same file")
        refused("began with --batch 2, not 3", whole, "--batch", "3")
        refused("began with --seed 1, not 2", whole, "--seed", "2")
        refused("began with --marks '', not 0.5", whole, "--marks", "0.5")
        said = subprocess.run([ROOT / "build/ultramotion", "inspect", whole / "checkpoint.pt"], capture_output=True, text=True)
        assert said.returncode == 1 and "the checkpoint of a run of train/" in said.stderr, said.stderr
        made = (whole / "detector.safetensors").read_bytes()
        assert run(whole, "--batch", "3", "--export").returncode == 0 and (whole / "detector.safetensors").read_bytes() == made
        assert run(whole, "--export", "--keep", "1").returncode == 0
        kept, first = (safe_open(f, "pt") for f in (whole / "detector.safetensors", ROOT / "models/dfine_n_bone_320.safetensors"))
        assert kept.metadata()["steps"].endswith(f"{STEPS} of batch 2, with 1 of the weights before"), kept.metadata()["steps"]
        for k in kept.keys():
            assert torch.allclose(kept.get_tensor(k).float(), first.get_tensor(k).float(), rtol=1e-3, atol=1e-6), k
        refused("began with other weights", whole, "--start", str(ROOT / "tests/golden/models/dfine_n_bone_320.safetensors"))
        done = subprocess.run(command(folder / "new"), capture_output=True, text=True, env={**os.environ, "ULTRAMOTION_LIBRARY": "/nowhere.so"})
        assert "error: /nowhere.so: cannot open" in done.stderr and done.returncode == 2, done.stderr
        refused("want .safetensors", folder / "new", "--start", str(whole / "checkpoint.pt"))
        refused("no checkpoint", folder / "new", "--export")
        torn = folder / "torn"
        torn.mkdir()
        for n in (0, 100, (whole / "checkpoint.pt").stat().st_size - 1000):
            (torn / "checkpoint.pt").write_bytes((whole / "checkpoint.pt").read_bytes()[:n])
            refused(f"{torn}/checkpoint.pt: no whole checkpoint", torn)
        refused("--within: nan is not", whole, "--within", "nan")
        before = len(losses(whole))
        assert run(whole, "--until", str(10 * STEPS)).returncode == 0 and len(losses(whole)) == before, "more steps than --steps"
        with subprocess.Popen(command(folder / "two", "--steps", "1000"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
            while p.poll() is None and not (folder / "two" / "log.jsonl").exists():
                time.sleep(0.1)
            refused("another process", folder / "two", "--steps", "1000")
            p.kill()
        own = folder / "own"
        done = run(own, "--steps", "1", "--start", with_two_classes(whole / "detector.safetensors", folder / "two.safetensors"))
        assert "dec_score_head.0.bias is [2], want [1]: it begins anew" in done.stderr, done.stderr
        facts = safe_open(own / "detector.safetensors", "pt").metadata()
        assert facts["training_data"].endswith("; before: scans of ours") and facts["licence"].startswith("that of"), facts
        others = with_two_classes(whole / "detector.safetensors", folder / "others.safetensors", classes="vessel,nerve")
        refused("no class bone, which the phantom shows, among vessel, nerve", folder / "new", "--start", others)
        alone = with_two_classes(whole / "detector.safetensors", folder / "alone.safetensors", classes="vessel")
        refused("no class bone, which the phantom shows, among vessel", folder / "new", "--start", alone)
        refused("argument --data: a name is empty", folder / "new", "--data", "")
        losses_that_are_no_numbers(folder / "lost", whole / "detector.safetensors")
        short = folder / "short"
        assert run(short, "--batch", "32", "--within", "0.5").returncode == 0
        spent = sum(json.loads(line)["seconds"] for line in (short / "log.jsonl").read_text().splitlines())
        assert spent < 60, f"--within 0.5: {spent:.0f} s"
        refused("steps fit into this run's --within 0.5, not 5: for more, --steps N without --within", short, "--batch", "32", "--within", "5")
        print(f"--within 0.5: {spent:.0f} s; wrong arguments are named")


if __name__ == "__main__":
    os.environ.setdefault("ULTRAMOTION_LIBRARY", str(ROOT / "build" / "libultramotion.so"))
    main()
