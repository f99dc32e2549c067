# SPDX-License-Identifier: Apache-2.0
"""MobileSAM's predictor example, with only the import changed, against MobileSAM itself with the same checkpoint."""
import json
import struct
import threading
from pathlib import Path

import numpy as np
import pytest

import ultramotion
from conftest import BOX
from ultramotion import SamPredictor, run_segmentation, sam_model_registry

POINT, LABEL = np.array([[60, 150]]), np.array([1])


def example(registry, predictor_of, checkpoint, image):
    """The calls of notebooks/predictor_example.ipynb: one point, several, a previous mask, a box, a box and a point."""
    sam = registry["vit_t"](checkpoint=checkpoint)
    sam.to(device="cpu")
    sam.eval()
    predictor = predictor_of(sam)
    predictor.set_image(image)
    made = [predictor.predict(point_coords=POINT, point_labels=LABEL, multimask_output=True)]
    masks, scores, logits = made[0]
    for i, (mask, score) in enumerate(zip(masks, scores)):
        assert f"Mask {i + 1}, Score: {score:.3f}" and mask.shape[-2:] == image.shape[:2]
    mask_input = logits[np.argmax(scores), :, :]  # choose the model's best mask
    points, labels = np.array([[60, 150], [80, 200]]), np.array([1, 1])
    made.append(predictor.predict(points, labels, mask_input=mask_input[None, :, :], multimask_output=False))
    made.append(predictor.predict(points, np.array([1, 0]), mask_input=mask_input[None, :, :], multimask_output=False))
    made.append(predictor.predict(point_coords=None, point_labels=None, box=np.array(BOX)[None, :], multimask_output=False))
    made.append(predictor.predict(point_coords=POINT, point_labels=np.array([0]), box=np.array(BOX), multimask_output=False))
    made.append(predictor.predict(box=np.array(BOX), multimask_output=True, return_logits=True))
    made.append((predictor.get_image_embedding(),))
    return [[np.asarray(x) for x in part] for part in made], predictor


def checkpoint_of(path, folder):
    """The model that ships as MobileSAM's own kind of file."""
    import torch

    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    kinds, state = {"F16": np.float16, "F32": np.float32, "I64": np.int64}, {}
    for name, entry in json.loads(raw[8 : 8 + size]).items():
        if name != "__metadata__":
            a, b = entry["data_offsets"]
            values = np.frombuffer(raw[8 + size + a : 8 + size + b], kinds[entry["dtype"]]).reshape(entry["shape"])
            state[name] = torch.from_numpy(values.astype(np.float32) if values.dtype == np.float16 else values.copy())
    torch.save(state, folder / "mobile_sam.pt")
    return str(folder / "mobile_sam.pt")


def test_the_example_gives_mobilesams_masks(image, tmp_path):
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("mobile_sam")
    checkpoint = checkpoint_of(Path(ultramotion.models_path()) / "mobile_sam_bone_384.safetensors", tmp_path)
    image = np.repeat(image[..., None], 3, axis=2)
    image[100:140, 30:70, 1] //= 2  # colour
    theirs, their = example(peer.sam_model_registry, peer.SamPredictor, checkpoint, image)
    ours, our = example(sam_model_registry, SamPredictor, checkpoint, image)
    logits = {}
    for name, (want, got) in enumerate(zip(theirs, ours)):
        for w, g in zip(want, got):
            assert w.shape == g.shape and w.dtype == g.dtype, name
            if w.dtype == bool:
                assert (w != g).mean() < 1e-4, name
            else:
                assert np.abs(w - g).max() < 1e-3, name
                logits[name] = np.abs(w - g).max()
    print("largest differences", logits)

    # the batched interface, and an image that the caller resized
    boxes = torch.tensor([BOX, [30.0, 60.0, 200.0, 180.0]])
    for p in (their, our):
        scaled = p.transform.apply_boxes_torch(boxes, image.shape[:2])
        part = p.predict_torch(None, None, boxes=scaled, multimask_output=False, return_logits=True)
        logits[p] = [x.detach().cpu().numpy() for x in part]
        assert all(isinstance(x, torch.Tensor) for x in part)
    for w, g in zip(logits[their], logits[our]):
        assert w.shape == g.shape and np.abs(w - g).max() < 1e-3

    resized = torch.as_tensor(their.transform.apply_image(image)).permute(2, 0, 1)[None]
    for p in (their, our):
        p.set_torch_image(resized, image.shape[:2])
        part = p.predict(box=np.array(BOX), multimask_output=False, return_logits=True)
        logits[p] = [np.array(x) for x in part]
    for w, g in zip(logits[their], logits[our]):
        assert w.shape == g.shape and np.abs(w - g).max() < 1e-3


def test_the_example_runs_on_the_model_that_ships(image):
    made, predictor = example(sam_model_registry, SamPredictor, None, np.repeat(image[..., None], 3, axis=2))
    assert [x[0].shape for x in made[:2]] == [(3, *image.shape), (1, *image.shape)]
    assert made[0][2].shape == (3, 96, 96) and made[5][0].dtype == np.float32
    assert predictor.model.image_encoder.img_size == 384 and predictor.is_image_set


def test_the_predictor_is_a_shell_on_embeddings(segmenter, image):
    predictor = SamPredictor(segmenter)
    with pytest.raises(RuntimeError, match="An image must be set"):
        predictor.predict(box=BOX)
    predictor.set_image(image)
    kept = predictor.embedding
    want = predictor.predict(box=BOX, as_numpy=True)
    predictor.set_image(image[::-1])
    again = segmenter.predict(kept, box=BOX, multimask=True, as_numpy=True)
    assert all(np.array_equal(a, b) for a, b in zip(want, again))
    assert predictor.predict(box=BOX, return_low_res=False)[2] is None
    assert all(isinstance(x, np.ndarray) for x in want)
    predictor.reset_image()
    assert not predictor.is_image_set


def test_shapes_that_the_predictor_cannot_use_are_told(segmenter, image):
    predictor = SamPredictor(segmenter)
    predictor.set_image(image)
    for text, call in {
        "point_coords of shape .2, 1, 3.: want .B,N,2.": lambda: predictor.predict_torch(np.zeros((2, 1, 3)), np.ones((2, 1))),
        "boxes of shape .3.: want .B,4.": lambda: predictor.predict_torch(boxes=[1, 2, 3]),
        "original_image_size .5,.: want 2 whole": lambda: predictor.set_torch_image(np.zeros((1, 3, 64, segmenter.canvas)), (5,)),
    }.items():
        with pytest.raises(ultramotion.InvalidError, match=text):
            call()
    assert predictor.is_image_set


def test_a_mask_alone_is_a_prompt(segmenter, image):
    low = np.linspace(-4, 4, segmenter.canvas**2 // 16, dtype=np.float32).reshape(segmenter.canvas // 4, -1)
    with ultramotion.Device("guard") as device:
        guarded = ultramotion.Segmenter(device=device, canvas=segmenter.canvas)
        for multimask in (False, True):
            made, same = (s.predict(s.encode(image), mask_input=low, multimask=multimask, as_numpy=True) for s in (segmenter, guarded))
            assert made.masks.shape == (3 if multimask else 1, *image.shape)
            assert np.abs(made.low_res - same.low_res).max() < 1e-3 * np.abs(same.low_res).max()


def test_a_mask_is_as_large_as_the_networks_own(device, image, tmp_path):
    """LiteMedSAM's logits are of the canvas' size: here MobileSAM with its stem, 1x1."""
    raw = (Path(ultramotion.models_path()) / ultramotion.models.SEGMENTER).read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header, data = json.loads(raw[8 : 8 + size]), b""
    del header["__metadata__"]
    for name, entry in header.items():
        part = raw[8 + size + entry["data_offsets"][0] : 8 + size + entry["data_offsets"][1]]
        if ".patch_embed." in name and entry["shape"][2:] == [3, 3]:
            part = np.frombuffer(part, np.float16).reshape(entry["shape"])[:, :, 1:2, 1:2].tobytes()
            entry["shape"][2:] = [1, 1]
        entry["data_offsets"] = [len(data), len(data) + len(part)]
        data += part
    text = json.dumps(header).encode()
    lite = ultramotion.Segmenter(struct.pack("<Q", len(text)) + text + data, device=device, canvas=32)
    assert lite.architecture == "lite-medsam"
    embedding = lite.encode(image)
    first = lite.predict(embedding, box=BOX, as_numpy=True)
    assert first.low_res.shape == (1, 32, 32)
    assert np.isfinite(lite.predict(embedding, mask_input=first.low_res, as_numpy=True).low_res).all()
    with pytest.raises(ValueError, match=r"mask_input of shape \[8, 8\]: want \[32,32\]"):
        lite.predict(embedding, mask_input=first.low_res[0, :8, :8])


def test_prompts_as_a_batch_of_one(segmenter, image):
    """As in SAM's own examples, whose boxes are `box[None, :]`."""
    embedding, box, points, labels = segmenter.encode(image), np.array(BOX), np.array([[30.0, 20.0]]), np.array([1])
    one = segmenter.predict(embedding, box=box, points=points, labels=labels, as_numpy=True)
    batch = segmenter.predict(embedding, box=box[None], points=points[None], labels=labels[None], as_numpy=True)
    assert np.array_equal(one.low_res, batch.low_res)
    for two in (np.tile(box, (2, 1)), box.reshape(2, 2)):
        with pytest.raises(ValueError, match=r"box of shape \[2, .\]: want \[4\]"):
            segmenter.predict(embedding, box=two)
    predictor = SamPredictor(segmenter)
    predictor.set_image(image)
    corners = [predictor.predict(box=form, as_numpy=True)[2] for form in (box, box[None], box.reshape(2, 2))]
    assert all(np.array_equal(corners[0], other) for other in corners[1:])
    assert np.array_equal(*(run_segmentation(segmenter, image, form, True) for form in (box, box.reshape(2, 2))))


def test_bgr(segmenter):
    image = np.zeros((60, 80, 3), np.uint8)
    image[20:40, 20:60] = (200, 60, 10)
    one, two = SamPredictor(segmenter), SamPredictor(segmenter)
    one.set_image(image)
    two.set_image(np.ascontiguousarray(image[..., ::-1]), image_format="BGR")
    assert np.array_equal(one.features.numpy(), two.features.numpy())
    planes = np.moveaxis(image[..., ::-1], 2, 0)
    for other in (planes, planes[None], image[None, ..., ::-1]):
        two.set_image(np.ascontiguousarray(other), image_format="BGR")
        assert np.array_equal(one.features.numpy(), two.features.numpy())
    one.set_image(image[..., 0])
    two.set_image(image[..., 0], image_format="BGR")
    assert np.array_equal(one.features.numpy(), two.features.numpy())


def test_batches_of_prompts_are_of_one_length(segmenter, image):
    predictor = SamPredictor(segmenter)
    predictor.set_image(image)
    boxes = np.tile(BOX, (3, 1))
    assert predictor.predict_torch(boxes=boxes, multimask_output=False)[0].shape == (3, 1, *image.shape)
    for wrong in (
        {"boxes": boxes, "point_coords": np.zeros((1, 1, 2)), "point_labels": np.ones((1, 1))},
        {"point_coords": np.zeros((2, 1, 2)), "point_labels": np.ones((3, 1))},
        {"boxes": np.zeros((0, 4))},
    ):
        with pytest.raises(ultramotion.InvalidError, match="predict_torch"):
            predictor.predict_torch(**wrong)


def test_pil_of_more_than_eight_bits(segmenter, image):
    pil = pytest.importorskip("PIL.Image")
    want = segmenter.encode(image.astype(np.float32) / 255).tensor.numpy()
    assert np.array_equal(segmenter.encode(pil.fromarray(image.astype(np.float32) / 255)).tensor.numpy(), want)
    with pytest.raises(ultramotion.InvalidError, match="want u8"):
        segmenter.encode(pil.fromarray(image.astype(np.uint16) * 257))


def test_pil(segmenter, image):
    pil = pytest.importorskip("PIL.Image")
    want = segmenter.encode(image).tensor.numpy()
    for mode in ("L", "RGB", "RGBA"):
        assert np.array_equal(segmenter.encode(pil.fromarray(image).convert(mode)).tensor.numpy(), want)


def test_an_embedding_is_saved_and_loaded(segmenter, device, image, tmp_path):
    embedding = segmenter.encode(image)
    embedding.save(tmp_path / "e.safetensors")
    loaded = segmenter.load_embedding(tmp_path / "e.safetensors")
    assert loaded.image_size == image.shape
    a, b = (segmenter.predict(e, box=BOX, logits=True, as_numpy=True) for e in (embedding, loaded))
    assert np.array_equal(a.masks, b.masks)
    other = ultramotion.Segmenter(device=device, canvas=64)
    with pytest.raises(ultramotion.FormatError):
        other.load_embedding(tmp_path / "e.safetensors")
    raw = (tmp_path / "e.safetensors").read_bytes()
    for wrong in (np.nan, np.inf):  # its mask would be empty
        (tmp_path / "w.safetensors").write_bytes(raw[:-4] + np.float32(wrong).tobytes())
        with pytest.raises(ultramotion.FormatError, match="w.safetensors: a number of image_embedding is not finite"):
            segmenter.load_embedding(tmp_path / "w.safetensors")


def test_predictors_of_many_threads_do_not_race(segmenter, image):
    """The public pain: predictors that race because set_image changes them."""
    images = [np.roll(image, 16 * i, axis=1) for i in range(4)]
    want = [segmenter.predict(segmenter.encode(p), box=BOX, as_numpy=True) for p in images]
    wrong = []

    def work(i):
        predictor = SamPredictor(segmenter)
        for k in range(10):
            n = (i + k) % 4
            predictor.set_image(images[n])
            masks, scores, low = predictor.predict(box=BOX, multimask_output=False, as_numpy=True)
            if not (np.array_equal(masks, want[n].masks) and np.array_equal(low, want[n].low_res)):
                wrong.append((i, k))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
