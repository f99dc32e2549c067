# SPDX-License-Identifier: Apache-2.0
"""Options of models, pipelines and runs: each does what the command's does."""
import logging
from pathlib import Path

import numpy as np
import pytest

import ultramotion


@pytest.fixture(scope="module")
def small(device):
    return ultramotion.Segmenter(device=device, canvas=64)


def written(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    ultramotion.image.write_png(str(path), pixels)
    return pixels


def test_a_detector_as_its_settings_say(device, image, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("radius\n")
    one = ultramotion.Detector(device=device, input_size=(320, 256), queries=20, fit="letterbox", names=names, gain="auto")
    assert (one.input_size, one.queries, one.classes) == (320, 20, ["radius"])
    raw = open(f"{ultramotion.models_path()}/{ultramotion.models.DETECTOR}", "rb").read()
    two = ultramotion.Detector(raw, device=device, input_size=(320, 256), queries=20, fit="letterbox", names=names, gain="auto")
    assert one.detect(image, 0.0, limit=3) == two.detect(image, 0.0, limit=3)
    sharp, smooth, told = (ultramotion.Detector(device=device, smooth=r).detect(image, 0.0, limit=3) for r in (1, 2, 0))
    assert sharp != smooth == told  # the bundled one asks for it
    dark = image // 4
    gains = {}
    for gain in ("auto", "off", 3, "2,0.5", None):
        with ultramotion.Pipeline(ultramotion.Detector(device=device, gain=gain), False) as pipeline:
            gains[gain] = pipeline(dark).gain
    assert gains["auto"] > 2 and gains["off"] is None is gains[None] and (gains[3], gains["2,0.5"]) == (3, 2)
    for wrong, text in (({"gain": "loud"}, "gain"), ({"fit": "crop"}, "fit"), ({"activation": "tanh"}, "tanh"), ({"input_size": 100}, "32"), ({"smooth": 9}, "smooth 9: want")):
        with pytest.raises(ultramotion.InvalidError, match=text):
            ultramotion.Detector(device=device, **wrong)


def test_a_segmenters_family(device, small):
    assert small.architecture == "mobile-sam"
    assert ultramotion.Segmenter(device=device, canvas=64, family="mobile-sam").sha256 == small.sha256
    with pytest.raises(ultramotion.InvalidError, match="medsam"):
        ultramotion.Segmenter(device=device, family="lite-medsam")
    held = Path(ultramotion.models_path(), "mobile_sam_bone_384.safetensors").read_bytes()
    assert ultramotion.Segmenter(held, device=device, canvas=64, family="mobile-sam").sha256 == small.sha256
    with pytest.raises(ultramotion.InvalidError, match="medsam"):
        ultramotion.Segmenter(held, device=device, family="lite-medsam")


def test_a_shadow(detector, small, image):
    source = "phantom:seed=900001,frames=4,width=128,height=128"
    with ultramotion.Pipeline(detector, small, conf=0.0, shadow_every=2) as pipeline:
        assert len(list(ultramotion.run(source, pipeline=pipeline))) == 4
        shadow = pipeline.shadow
    assert (shadow["compared"], shadow["failed"], shadow["fell_back"]) == (2, 0, False) and 0.98 <= shadow["least_dice"] <= 1
    with ultramotion.Pipeline(detector, small) as pipeline:
        assert pipeline.shadow is None


def test_thresholds_of_the_state(detector, small, image):
    with ultramotion.Pipeline(detector, small, track=True, conf=0.3, theta_on=1.0, theta_off=1.0) as never:
        assert never(image).state != "VISIBLE"
    for wrong in ({"theta_on": 0.2, "theta_off": 0.6}, {"theta_cont": 7.0}):
        with pytest.raises(ultramotion.InvalidError, match="theta"):
            ultramotion.Pipeline(detector, small, track=True, **wrong)


def test_folders_windows_and_what_is_said(detector, tmp_path, caplog):
    rng = np.random.default_rng(3)
    outer = written(tmp_path / "in" / "a.png", rng.integers(0, 255, (40, 50), np.uint8))
    inner = written(tmp_path / "in" / "deep" / "b.png", rng.integers(0, 255, (40, 50), np.uint8))
    (tmp_path / "in" / "scan.webp").write_bytes(b"RIFF\0\0\0\0WEBP")
    with ultramotion.Pipeline(detector, False) as pipeline:
        with caplog.at_level(logging.WARNING, "ultramotion"):
            flat = [p.frame.numpy().copy() for p in ultramotion.run(tmp_path / "in", pipeline=pipeline)]
            assert "1 file" in caplog.text or "webp" in caplog.text.lower()
        deep = [p.frame.numpy().copy() for p in ultramotion.run(tmp_path / "in", pipeline=pipeline, recursive=True)]
        assert len(flat) == 1 and np.array_equal(flat[0], outer)
        assert len(deep) == 2 and np.array_equal(deep[1], inner)
        with pytest.raises(ultramotion.InvalidError, match="window 'all'"):
            ultramotion.run(tmp_path / "in", pipeline=pipeline, window="all")
        with pytest.raises(ultramotion.InvalidError, match="window"):
            ultramotion.run(tmp_path / "in", pipeline=pipeline, window=(9, 3))
        with pytest.raises(ultramotion.InvalidError, match="on_sink_full 'wait'"):
            ultramotion.run(tmp_path / "in", pipeline=pipeline, on_sink_full="wait")
        late = {"realtime": True, "max_age_ms": 10_000, "on_sink_full": "drop", "sinks": "null:"}
        assert len(list(ultramotion.run(tmp_path / "in", pipeline=pipeline, window="auto", **late))) == 1


def test_sixteen_bits_through_a_window(detector, tmp_path):
    samples = np.array([[1000, 1500, 2000, 3000]] * 4, np.uint16)
    header = "NRRD0004\ntype: uint16\ndimension: 3\nsizes: 4 4 1\nkinds: domain domain list\nencoding: raw\nendian: little\n\n"
    (tmp_path / "a.nrrd").write_bytes(header.encode() + samples.tobytes())
    with ultramotion.Pipeline(detector, False) as pipeline:
        packet = next(ultramotion.run(tmp_path / "a.nrrd", pipeline=pipeline, window=(1000, 2000)))
    assert packet.frame.numpy()[0].tolist() == [0, 128, 255, 255]


def test_sinks_know_how_many_structures_were_asked_for(detector, small, tmp_path):
    source = "phantom:seed=900001,frames=1,width=128,height=128"
    for n in (1, 2):
        out = tmp_path / str(n)
        list(ultramotion.run(source, detector=detector, segmenter=small, conf=0.0, objects=n, sinks=[f"dir:{out}"]))
        mask = ultramotion.Frame.read(out / "00000_mask.png").numpy()
        assert set(np.unique(mask)) <= ({0, 255} if n == 1 else {0, 1, 2}) and mask.any()
