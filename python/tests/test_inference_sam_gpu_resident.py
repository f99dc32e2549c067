# SPDX-License-Identifier: Apache-2.0
"""The tests that the user's document names, against this package. "On the GPU" is where the model is: the same promises on
`cpu` and on the test device `guard`, whose memory nobody can touch without a counted copy; on a GPU where there is one."""
import json
import logging

import numpy as np
import pytest

import ultramotion
from conftest import BOX
from ultramotion import Segmenter, _run_segmentation_legacy, run_segmentation


@pytest.fixture(scope="module", params=["cpu", "guard", "cuda:0"])
def model(request):
    try:
        return Segmenter(device=request.param, canvas=128)
    except (ultramotion.DeviceError, ultramotion.UnsupportedError) as problem:
        pytest.skip(str(problem))


@pytest.fixture
def kpi(caplog):
    """The KPI lines of a test."""
    caplog.set_level(logging.INFO, "ultramotion.kpi")
    return lambda: [json.loads(r.getMessage()) for r in caplog.records if r.name == "ultramotion.kpi"]


def downloads(model):
    return model.device.transfers["down"]


def test_device_mode_keeps_the_mask_on_the_device(model, image):
    before = downloads(model)
    mask = run_segmentation(model, image, np.array(BOX), as_numpy=False)
    assert isinstance(mask, ultramotion.Tensor)
    assert mask.device == model.device.name
    assert mask.is_cuda == model.device.name.startswith("cuda")
    assert mask.shape == (1, 1, *image.shape)  # no rank is lost
    assert mask.dtype == bool
    assert mask.detach() is mask
    assert downloads(model) == before  # nothing came back


def test_legacy_mode_gives_numpy_arrays(model, image):
    mask = run_segmentation(model, image, np.array(BOX), as_numpy=True)
    assert isinstance(mask, np.ndarray)
    assert mask.dtype == bool
    assert mask.shape == image.shape
    assert 0 < mask.sum() < mask.size


def test_both_modes_give_the_same_mask(model, image):
    device, host = (run_segmentation(model, image, BOX, as_numpy=m) for m in (False, True))
    assert np.array_equal(device.numpy()[0, 0], host)


def test_the_default_is_device_mode(model, image):
    assert isinstance(run_segmentation(model, image, BOX), ultramotion.Tensor)
    assert isinstance(_run_segmentation_legacy(model, image), ultramotion.Tensor)


def test_kpi_of_each_prediction(model, image, kpi):
    run_segmentation(model, image, BOX)
    run_segmentation(model, image, BOX, as_numpy=True)
    lines = kpi()
    assert [list(line)[:4] for line in lines] == [["ts", "event", "as_numpy", "device"]] * 2
    assert [line["event"] for line in lines] == ["sam_mask_output"] * 2
    assert [line["as_numpy"] for line in lines] == [0, 1]
    assert {line["device"] for line in lines} == {model.device.name}


def test_legacy_call(model, image):
    roi = np.repeat(image[:120, :150, None], 3, axis=2)
    whole = [0, 0, 150, 120]
    device, host = _run_segmentation_legacy(model, roi), _run_segmentation_legacy(model, roi, as_numpy=True)
    assert device.shape == (1, 1, 120, 150)
    assert host.shape == (120, 150) and host.dtype == bool
    assert np.array_equal(host, run_segmentation(model, roi, whole, as_numpy=True))
    assert np.array_equal(host, device.numpy()[0, 0])


def test_conditional_cast_to_bool(model, image):
    """A mask that another predictor made on the host: thresholded at 0.5 and moved to the model's device."""
    theirs = np.linspace(0, 1, image.size, dtype=np.float32).reshape(image.shape)
    mask = model.mask(theirs)
    assert mask.dtype == bool and mask.device == model.device.name and mask.shape == (1, 1, *image.shape)
    assert np.array_equal(mask.numpy()[0, 0], theirs > 0.5)


def test_none_only_without_model_or_image(model, image):
    assert run_segmentation(None, image, BOX) is None
    assert run_segmentation(model, None, BOX) is None
    assert _run_segmentation_legacy(None, image) is None
    assert _run_segmentation_legacy(model, None) is None
    with pytest.raises(ultramotion.InvalidError, match="inverted"):
        run_segmentation(model, image, [9, 9, 1, 1])


@pytest.mark.parametrize("how", ["argument", "model", "environment"])
def test_rollback_without_changing_callers(image, device, monkeypatch, how):
    model = Segmenter(device=device, canvas=128, sam_as_numpy=True if how == "model" else None)
    if how == "environment":
        monkeypatch.setenv("ULTRAMOTION_SAM_AS_NUMPY", "1")
    arguments = {"as_numpy": True} if how == "argument" else {}
    assert isinstance(run_segmentation(model, image, BOX, **arguments), np.ndarray)
    assert isinstance(run_segmentation(model, image, BOX, as_numpy=False), ultramotion.Tensor)


def test_images_of_every_form_give_the_same_mask(model, image):
    want = run_segmentation(model, image, BOX, as_numpy=True)
    rgb = np.repeat(image[..., None], 3, axis=2)
    unit = image.astype(np.float32) / np.float32(255) + np.float32(1e-4)  # truncated, not rounded
    forms = {
        "[H,W,3]": rgb,
        "[H,W,1]": image[..., None],
        "[3,H,W]": np.moveaxis(rgb, 2, 0).copy(),
        "[1,3,H,W]": np.moveaxis(rgb, 2, 0)[None].copy(),
        "[1,1,H,W] f32": unit[None, None],
        "f64": unit.astype(np.float64),
        "rows apart": np.pad(image, ((0, 0), (0, 9)))[:, :-9],
        "bottom to top": image[::-1].copy()[::-1],
        "columns first": np.asfortranarray(image),
        "moved axis": np.moveaxis(np.moveaxis(rgb, 2, 0).copy(), 0, 2),
    }
    for name, form in forms.items():
        assert np.array_equal(run_segmentation(model, form, BOX, as_numpy=True), want), name


@pytest.mark.parametrize("form", [tuple, list, np.array, lambda b: np.array(b)[None]])
def test_boxes_of_every_form(segmenter, image, form):
    want = run_segmentation(segmenter, image, np.array(BOX, np.float32), as_numpy=True)
    assert np.array_equal(run_segmentation(segmenter, image, form(BOX), as_numpy=True), want)


@pytest.mark.parametrize("as_numpy", [False, True])
def test_the_orchestrator_passes_the_mode_through(detector, segmenter, image, as_numpy):
    made = ultramotion.prepare_inference_inputs(image, detector, segmenter, 0.5, as_numpy)
    assert made["state_hint"] == "VISIBLE" and made["conf"] > 0.5
    assert isinstance(made["mask"], np.ndarray if as_numpy else ultramotion.Tensor)
    assert [w.shape for w in made["weights"]] == [image.shape] * 3
    lost = ultramotion.prepare_inference_inputs(image, detector, segmenter, 1.1, as_numpy)
    assert lost["state_hint"] == "LOST" and lost["mask"] is None


def test_mask_weights_are_the_pipelines(detector, device, image):
    with ultramotion.Pipeline(detector, device=device) as pipeline:
        packet = pipeline(image)
    edge, inside, ring = ultramotion.compute_mask_weights(packet.mask)
    assert (edge.sum(), inside.sum(), ring.sum()) == (packet.edge_px, packet.in_px, packet.out_px)
    assert edge.dtype == np.float32 and not (edge * inside).any()
