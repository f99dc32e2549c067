# SPDX-License-Identifier: Apache-2.0
"""Whatever is done wrong raises with C's text; nothing crashes."""
import contextlib
import copy
import gc
import inspect
import os
import pickle
import re
import signal
import sys
import threading
import tracemalloc
import typing
from pathlib import Path

import numpy as np
import pytest

import ultramotion
from conftest import BOX
from test_tensor import memory_mib
from ultramotion import Frame, InvalidError, SamPredictor, run_segmentation


@pytest.mark.parametrize(
    "wrong, text",
    [
        (np.zeros((8, 8), np.int32), "of type int32: want u8"),
        (np.zeros((8, 8), bool), "want u8"),
        (np.zeros((8, 8), np.complex64), "want u8"),
        (np.zeros((8, 8, 4), np.uint8), "shape \\[8,8,4\\]"),
        (np.zeros((2, 3, 8, 8), np.uint8), "shape \\[2,3,8,8\\]"),
        (np.zeros(8, np.uint8), "shape \\[8\\]"),
        (np.zeros((0, 8), np.uint8), "sides must be"),
        (np.zeros((1, 20000), np.uint8), "sides must be"),
        (np.array([["a"]]), "of type <U1: want u8"),
        (np.array([[None]]), "of type object: want u8"),
        ("a text", "'a text': a name, want pixels: .*, @LIST.txt"),
        (Path("a.png"), "'a.png': a name, want pixels"),
        (7, "want u8"),
        ([[1], [1, 2]], "a list that cannot be handed over: .*inhomogeneous"),
    ],
)
def test_images(segmenter, detector, wrong, text):
    for call in (lambda: run_segmentation(segmenter, wrong, BOX), lambda: segmenter.encode(wrong)):
        with pytest.raises((InvalidError, TypeError), match=text):
            call()
    with pytest.raises((InvalidError, TypeError)):
        detector.detect(wrong)


@pytest.mark.parametrize(
    "wrong, text",
    [
        ([1, 2, 3], "want \\[4\\]"),
        ([5, 5, 1, 1], "inverted"),
        ([np.nan, 0, 1, 1], "not a finite number"),
        ([900, 900, 901, 901], "does not touch"),
        ("box", "could not convert|no array"),
        ([[1, 2], [3]], "inhomogeneous|no array|setting an array"),
    ],
)
def test_boxes(segmenter, image, wrong, text):
    with pytest.raises(InvalidError, match=text):
        run_segmentation(segmenter, image, wrong)


def test_prompts(segmenter, image):
    embedding = segmenter.encode(image)
    for text, prompts in {
        "no box, no points": {},
        "belong together": {"points": [[1, 2]]},
        "labels of shape": {"points": [[1, 2]], "labels": [1, 1]},
        "label 7": {"points": [[1, 2]], "labels": [7]},
        "17 points": {"points": np.ones((17, 2)), "labels": np.ones(17)},
        "points of shape": {"points": [1, 2], "labels": [1]},
        "mask_input of shape": {"mask_input": np.zeros((3, 3))},
    }.items():
        with pytest.raises(InvalidError, match=text):
            segmenter.predict(embedding, **prompts)


def test_files(device, tmp_path):
    with pytest.raises(ultramotion.FileError, match="nowhere"):
        ultramotion.Segmenter(tmp_path / "nowhere.pt", device=device)
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ultramotion.FormatError, match="broken"):
        ultramotion.Segmenter(tmp_path / "broken.pt", device=device)
    with pytest.raises(ultramotion.FormatError):
        ultramotion.Detector(ultramotion.models_path() + "/mobile_sam_bone_384.safetensors", device=device)
    with pytest.raises(ultramotion.FormatError):
        ultramotion.Segmenter(b"some bytes", device=device)
    with pytest.raises(InvalidError, match="NUL"):
        ultramotion.Segmenter("a\0b", device=device)
    with pytest.raises(OSError):
        Frame.read(tmp_path / "no.png")
    problem = ultramotion.FileError("text")
    assert (problem.status, problem.name, str(problem)) == (-3, "UM_EIO", "text")


def test_devices_and_models_of_two_devices(detector, segmenter, image):
    with pytest.raises(InvalidError, match='"tpu" is unknown'):
        ultramotion.Device("tpu")
    with pytest.raises((ultramotion.UnsupportedError, ultramotion.DeviceError)):
        ultramotion.Device("cuda:99")
    with pytest.raises(ultramotion.UnsupportedError, match="fp16"):
        ultramotion.Device("cpu", precision="fp16")
    other = ultramotion.Segmenter(device="guard", canvas=64)
    with pytest.raises(InvalidError, match="cpu.*guard|guard.*cpu"):
        ultramotion.Pipeline(detector, other)
    with ultramotion.Device("cpu", threads=1) as apart:
        with pytest.raises(InvalidError, match="detector on device cpu, segmenter on another device cpu: both"):
            ultramotion.Pipeline(detector, ultramotion.Segmenter(device=apart, canvas=64))
        with pytest.raises(InvalidError, match="predictor's are another cpu"):
            segmenter.predict(ultramotion.Segmenter(device=apart, canvas=128).encode(image), box=BOX)
        stays = ultramotion.Segmenter(device=apart, canvas=64)
        assert stays.to("cpu").to(apart).device is apart and stays.to(other.device).device is other.device
    with pytest.raises(InvalidError, match="device"):
        segmenter.predict(other.encode(image), box=BOX)


@pytest.mark.parametrize("who", ["segmenter", "pipeline"])
def test_a_signal_that_comes_during_a_call_is_not_lost(detector, device, image, who):
    """Python answers it where it is called next, which is the KPI function: what the handler raises is the call's."""

    class Stop(BaseException):
        pass

    def stop(*_):
        raise Stop

    lines = []
    opened = ultramotion.Segmenter(device=device, canvas=256, kpi=lines.append)
    pipeline = ultramotion.Pipeline(detector, opened, conf=0.0, kpi=lines.append)
    call = (lambda: run_segmentation(opened, image, BOX)) if who == "segmenter" else (lambda: pipeline(image))
    call()
    before = signal.signal(signal.SIGALRM, stop)
    try:
        for _ in range(3):
            with pytest.raises(Stop):
                signal.setitimer(signal.ITIMER_REAL, 0.005)
                for _ in range(50):
                    call()
    finally:
        signal.signal(signal.SIGALRM, before)
    told = len(lines)
    call()
    assert len(lines) == told + 1


def test_what_a_call_made_that_a_signal_ends_is_freed(device):
    class Stop(BaseException):
        pass

    def stop(_):
        raise Stop

    opened, big = ultramotion.Segmenter(device=device, canvas=64, kpi=stop), np.zeros((2000, 2000), np.uint8)
    embedding = opened.encode(big)
    for call in (lambda: run_segmentation(opened, big, BOX), lambda: opened.predict(embedding, box=BOX)):
        for i in range(40):
            if i == 10:
                before = memory_mib()
            with pytest.raises(Stop):
                call()
        keeps = "asan" in os.environ.get("LD_PRELOAD", "")  # what is freed
        assert keeps or memory_mib() < before + 40  # a mask is 4 MB


def test_a_pipeline_closed_while_a_frame_is_in_it(detector, segmenter, image):
    """It is whole until that frame is done, whoever closes it, and then it is gone."""
    closed = []
    real = ultramotion._c.lib.um_pipeline_close

    def kpi(_):
        pipeline.close()
        thread = threading.Thread(target=pipeline.close)
        thread.start()
        thread.join()
        closed.append("asked")

    pipeline = ultramotion.Pipeline(detector, segmenter, conf=0.0, kpi=kpi)
    pipeline._handle._close = lambda pointer: (closed.append("closed"), real(pointer))
    assert pipeline(image).frame.numpy().shape == image.shape
    assert closed == ["asked", "closed"]
    with pytest.raises(ultramotion.ClosedError, match="pipeline is closed"):
        pipeline(image)
    pipeline.close()
    assert closed == ["asked", "closed"]
    dropped = ultramotion.Pipeline(detector, False)
    dropped._handle._close = lambda pointer: (closed.append("dropped"), real(pointer))
    del dropped
    gc.collect()
    assert closed[-1] == "dropped"


def test_packets_are_immutable(detector, image):
    with ultramotion.Pipeline(detector, False, conf=0.0) as pipeline:
        packet = pipeline(image)
    for change in (lambda: setattr(packet, "score", 2.0), lambda: setattr(packet, "found", 1), ultramotion.Packet):
        with pytest.raises((AttributeError, TypeError)):
            change()
    assert packet.frame is packet.frame and packet.frame.ts == packet.ts and len({packet, packet}) == 1


def test_things_that_are_something_else(segmenter, detector, image):
    for call in (
        lambda: SamPredictor(detector),
        lambda: run_segmentation(detector, image, BOX),
        lambda: ultramotion.run_dfine_detection(segmenter, image),
        lambda: ultramotion.compute_mask_weights(np.zeros((2, 2, 2))),
        lambda: ultramotion.Pipeline(detector, gate="sometimes"),
        lambda: ultramotion.Pipeline(detector, label="tendon"),
        lambda: ultramotion.Pipeline(detector, objects=99),
        lambda: SamPredictor(segmenter).set_image(image, "HSV"),
        lambda: SamPredictor(segmenter).set_torch_image(image, image.shape),
    ):
        with pytest.raises(InvalidError):
            call()


def test_images_on_another_device(segmenter, detector):
    class Elsewhere:
        __cuda_array_interface__ = {"version": 3, "shape": (8, 8), "typestr": "|u1", "data": (4096, False)}

    with pytest.raises(InvalidError, match="image is on device cuda:0, the model on cpu"):
        segmenter.encode(Elsewhere())
    with pytest.raises((InvalidError, TypeError)):
        detector.detect(Elsewhere())


class Capsules:
    """What claims to speak DLPack."""

    def __init__(self, given):
        self.given = given

    def __dlpack_device__(self):
        return (1, 0)

    def __dlpack__(self, **_):
        return self.given


def test_capsules_that_are_none(segmenter):
    taken = np.zeros((4, 4), np.uint8).__dlpack__()
    np.from_dlpack(Capsules(taken))
    for given in (None, 7, object(), taken):
        with pytest.raises((ValueError, TypeError)):
            segmenter.encode(Capsules(given))
        with pytest.raises((ValueError, TypeError)):
            Frame(Capsules(given))


def test_use_after_close(device, image):
    model = ultramotion.Segmenter(device=device, canvas=64)
    predictor, embedding = SamPredictor(model), model.encode(image)
    predictor.set_image(image)
    model.close()
    model.close()
    for call in (
        lambda: predictor.predict(box=BOX),
        lambda: predictor.set_image(image),
        lambda: model.predict(embedding, box=BOX),
        lambda: run_segmentation(model, image, BOX),
        lambda: ultramotion.Pipeline(segmenter=model),
        lambda: model.canvas,
        lambda: model.to(ultramotion.Device("cpu", threads=1)),
    ):
        with pytest.raises(ultramotion.ClosedError, match="segmenter is closed"):
            call()
    assert embedding.tensor.numpy().shape == (1, 256, 4, 4)  # what it made stays
    own = ultramotion.Device("cpu", threads=1)
    own.close()
    with pytest.raises(ultramotion.ClosedError, match="device cpu is closed"):
        ultramotion.Segmenter(device=own)


def test_closing_what_others_still_use(image):
    """Children keep their parents; calls in other threads end before what they use does."""
    device = ultramotion.Device("cpu", threads=2)
    detector, segmenter = ultramotion.Detector(device=device), ultramotion.Segmenter(device=device, canvas=64)
    pipeline = ultramotion.Pipeline(detector, segmenter)
    want = pipeline(image).json().split('"objects"')[1]
    for opened in (segmenter, detector, device):
        opened.close()
    assert pipeline(image).json().split('"objects"')[1] == want
    ends = []

    def work():
        try:
            while True:
                pipeline(image)
        except ultramotion.ClosedError:
            ends.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    pipeline.close()
    for t in threads:
        t.join()
    assert len(ends) == 3
    del pipeline, detector, segmenter, device
    gc.collect()


def test_after_fork(segmenter, device, image):
    """A child has the memory but none of the threads: it is told so, and ends as it should."""
    embedding = segmenter.encode(image)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = []
        for call in (lambda: segmenter.predict(embedding, box=BOX), lambda: segmenter.encode(image), lambda: device.name):
            try:
                call()
                said.append("no exception")
            except ultramotion.DeviceError as problem:
                said.append(str(problem))
        segmenter.close()
        with ultramotion.Device("cpu", threads=2) as own:  # here it can be opened
            mask = run_segmentation(ultramotion.Segmenter(device=own, canvas=64), image, BOX, as_numpy=True)
        os.write(writer, "\n".join([*said, str(mask.shape)]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as f:
        said = f.read().split("\n")
    assert os.waitpid(child, 0)[1] == 0
    assert len(said) == 4 and all("before fork()" in line for line in said[:3]) and said[3] == str(image.shape)


def test_a_fork_while_a_thread_has_a_models_lock(python):
    """The child, where that thread is not, closes it all the same."""
    text = """
import os, signal, threading, ultramotion as um
model = um.Segmenter(device="cpu", canvas=64)
held, forked = threading.Event(), threading.Event()
def hold():
    with model._handle._lock:
        held.set()
        forked.wait()
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    model.close()
    os._exit(7)
forked.set()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert python(text) == "7\n"


def test_a_fork_while_a_thread_opens_a_device(python):
    text = """
import os, signal, threading, time, ultramotion as um
from ultramotion import models
opening, real = threading.Event(), models.Device
class Slow(real):
    def __init__(self, name):
        opening.set()
        time.sleep(0.3)  # as a GPU takes
        super().__init__(name)
models.Device = Slow
threading.Thread(target=models.device_of, args=("cpu",)).start()
opening.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    models.Device = real
    os._exit(um.Detector(device="cpu").queries > 0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert python(text) == "1\n"


def test_a_child_ends_with_its_parents_things_open(python):
    text = """
import os, sys, ultramotion as um
run = um.run("phantom:seed=1,width=64,height=64", segmenter=False, device="cpu")
next(run)
child = os.fork()
if child == 0:
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), next(run).frame_id)
"""
    assert python(text) == "7 1\n"


def test_processes_end_cleanly_with_everything_open(python):
    """Also with tensors that others hold, a run in its middle, and a thread inside."""
    text = """
import threading, numpy as np, ultramotion as um
model = um.Segmenter(device="cpu", canvas=64)
mask = um.run_segmentation(model, np.zeros((64, 64), np.uint8))
view, capsule = np.asarray(mask), mask.__dlpack__()
run = um.run("phantom:seed=1,frames=1000,width=64,height=64", segmenter=False)
next(run)
fed = um.run((np.zeros((64, 64), np.uint8) for _ in range(10**9)), segmenter=model)
next(fed)
def forever():
    while True:
        model.encode(np.zeros((64, 64), np.uint8))
threading.Thread(target=forever, daemon=True).start()
print("end")
"""
    for _ in range(2):
        assert python(text) == "end\n"


def test_numbers_and_texts_that_c_would_cut(device, detector, segmenter, image):
    for wrong in (
        lambda: ultramotion.Device("cpu", threads=2**32 + 1),
        lambda: ultramotion.Device("cpu", threads=np.int64(2**32 + 1)),
        lambda: Frame(image, frame_id=np.int64(-1)),
        lambda: ultramotion.Pipeline(detector, False, objects=np.int64(2**32 + 1)),
        lambda: ultramotion.Device("cpu\0x"),
        lambda: ultramotion.Device("cpu", threads=1.5),
        lambda: ultramotion.Segmenter(device=device, canvas=2**32 + 64),
        lambda: ultramotion.Detector(device=device, input_size="a"),
        lambda: detector.detect(image, float("nan")),
        lambda: segmenter.predict(segmenter.encode(image), points=[[5, 5]], labels=[2**32 + 1]),
        lambda: segmenter.predict(segmenter.encode(image), points=[[5, 5]], labels=[0.5]),
        lambda: segmenter.predict(segmenter.encode(image).tensor, box=BOX),
        lambda: segmenter.predict(Frame(image), box=BOX),
        lambda: segmenter.predict(None, box=BOX),
        lambda: segmenter.predict(segmenter.encode(image), box="abcd"),
        lambda: segmenter.mask(None),
        lambda: Frame(image, spacing_mm=(np.nan, 1)),
        lambda: Frame(image, spacing_mm=(1,)),
        lambda: Frame(image, pose=np.eye(3)),
        lambda: Frame(image, source="a\0b"),
        lambda: ultramotion.run([image], detector=detector, segmenter=False, sinks=["jsonl:a\0b"]),
    ):
        with pytest.raises(InvalidError):
            wrong()
    assert ultramotion.Detector(device=device, input_size=np.int64(320)).input_size == 320
    with ultramotion.run([image], detector=detector, segmenter=False) as frames:
        with pytest.raises(InvalidError, match="timeout"):
            frames.receive(timeout=-1)
    frame = copy.copy(Frame(image))
    gc.collect()
    assert frame.width == image.shape[1]
    with pytest.raises(TypeError, match="pickled"):
        copy.deepcopy(frame)


def test_options_of_another_kind_are_refused_by_name(detector, segmenter, image):
    def pipeline(**options):
        return ultramotion.Pipeline(detector, segmenter, **options)

    def run(source=(), **options):
        return ultramotion.run(source, detector=detector, segmenter=False, **options)

    for text, wrong in {
        "activation 5: want a text": lambda: ultramotion.Detector(activation=5),
        "fit 'a.*b' has a NUL": lambda: ultramotion.Detector(fit="a\0b"),
        "precision 5: want a text": lambda: ultramotion.Device(precision=5),
        "family 5: want a text": lambda: ultramotion.Segmenter(family=5),
        "path 5: want a str": lambda: ultramotion.Device("cpu", weight_cache=5),
        "input_size .1, 2, 3.: want 2 whole": lambda: ultramotion.Detector(input_size=(1, 2, 3)),
        "crop 5: want 4 whole": lambda: pipeline(crop=5),
        "crop .0, 0, 0, 9.: want x, y": lambda: pipeline(crop=(0, 0, 0, 9)),
        "crop 'all'": lambda: pipeline(crop="all"),
        "assert_transfers 1: want 2": lambda: pipeline(assert_transfers=1),
        "objects 1.5: want a whole number": lambda: pipeline(objects=1.5),
        "theta_on 'x': want a number": lambda: pipeline(theta_on="x"),
        "theta_on: nothing without track": lambda: pipeline(theta_on=0.7),
        "theta_cont: nothing without track": lambda: pipeline(theta_cont=0.7, budget_ms=40),
        "per_class: nothing without objects": lambda: pipeline(per_class=True),
        "mask_clean: nothing with segmenter=False": lambda: ultramotion.Pipeline(detector, False, mask_clean=True),
        "gate: nothing with segmenter=False": lambda: ultramotion.Pipeline(detector, False, gate="sync"),
        "sam_as_numpy: nothing with": lambda: ultramotion.Pipeline(detector, False, sam_as_numpy=True),
        "assert_transfers .-1, 1.: want copies": lambda: pipeline(assert_transfers=(-1, 1)),
        "kpi 5: want a function": lambda: pipeline(kpi=5),
        "detector of type dict: want its file": lambda: ultramotion.Detector({"model": {}}),
        "segmenter of type Detector: want its file": lambda: ultramotion.Pipeline(detector, detector),
        "segmenter of type bool: want its file": lambda: ultramotion.Pipeline(detector, True),
        "kpi 'a.jsonl': want a function": lambda: ultramotion.Segmenter(kpi="a.jsonl"),
        "detect_every 'x': want a whole": lambda: pipeline(detect_every="x"),
        "as_numpy '0': want True or False": lambda: ultramotion.Segmenter(sam_as_numpy="0"),
        "as_numpy 1.0: want True or False": lambda: pipeline(sam_as_numpy=1.0),
        r"gate \['sync'\]: want": lambda: pipeline(gate=["sync"]),
        "size .5,.: want 2 whole": lambda: run("-", size=(5,)),
        "size '64x64': want 2 whole": lambda: run("-", size="64x64"),
        "window 5: want 2 whole": lambda: run(window=5),
        "window 'x': want auto": lambda: run(window="x"),
        "pixel 'rgba': want gray8 or rgb8": lambda: run("-", size=(4, 4), pixel="rgba"),
        "source 'push:': want the images": lambda: run("push:"),
        "sink_deadline 'x': want a number": lambda: run(sink_deadline="x"),
        "receive 'x': want a number": lambda: run(receive="x"),
        "receive 0: want packets": lambda: run(receive=0),
        "-1 frames: want 0, for all, or more": lambda: run(frames=-1),
        "max_age_ms -1, .*: want 0 .never. or more": lambda: run(realtime=True, max_age_ms=-1),
        "source 5: want a name": lambda: run(5),
        "sinks None: want a name": lambda: run(sinks=None),
        "pipeline 'x': want an ultra": lambda: ultramotion.run([image], pipeline="x"),
        "gray 'no': want True or False": lambda: ultramotion.Detector(gray="no"),
        "multimask 'no': want a number": lambda: segmenter.predict(segmenter.encode(image), box=BOX, multimask="no"),
        "source None: want a name": lambda: run(None),
        "source ultramotion.Frame.*, of one .image.": lambda: run(Frame(image)),
        "conf 'x': want a number": lambda: detector.detect(image, "x"),
        "conf None: want a number": lambda: detector.detect(image, None),
        "limit -3: want 0 or more": lambda: detector.detect(image, limit=-3),
        "source array.5.: want a name": lambda: run(np.array(5)),
        "sam None: want an ultramotion.Segmenter": lambda: ultramotion.prepare_inference_inputs(image, detector, None),
        "path None: want a str": lambda: Frame.read(None),
        "frames_per_part 0: want 1 or more": lambda: ultramotion.ray.parts(".", 0),
        "frames_per_part 'x': want a whole": lambda: ultramotion.ray.process(".", "out", frames_per_part="x"),
        "workers 0: want 1 or more": lambda: ultramotion.ray.process(".", "out", workers=0),
    }.items():
        with pytest.raises(InvalidError, match=text):
            wrong()


@pytest.mark.parametrize("source", [[np.zeros((8, 8), np.uint8)], "phantom:frames=1", "replay:nowhere", "igtl://127.0.0.1:1", "lavfi:x", "a.png", "-"])
def test_options_that_a_source_cannot_use_are_refused_by_name(detector, source):
    """As the command refuses them."""
    stored, live = source in ("lavfi:x", "a.png"), source in ("igtl://127.0.0.1:1", "lavfi:x")
    for text, options, used in (
        ('size: nothing for a source other than "-"', {"size": (8, 8)}, source == "-"),
        ('pixel: nothing for a source other than "-"', {"pixel": "rgb8"}, source == "-"),
        ("window: nothing for a source other than files and cameras", {"window": "auto"}, stored),
        ("recursive: nothing for a source other than files", {"recursive": True}, source == "a.png"),
        ("lag_alarm_ms: nothing for a source that is not live", {"lag_alarm_ms": 0}, live),
        ("max_age_ms: nothing without realtime", {"max_age_ms": 100}, live),
    ):
        if not used:
            with pytest.raises(InvalidError, match=re.escape(text)):
                ultramotion.run(source, detector=detector, segmenter=False, **options)


def test_what_is_read_once_is_not_looped(detector, image):
    for once in ([image], (image for _ in range(2))):
        with pytest.raises(InvalidError, match="loop: nothing for .*iterables"):
            ultramotion.run(once, detector=detector, segmenter=False, loop=True)


def test_a_package_that_is_missing_is_named_with_the_way_to_it(detector, image, tmp_path, monkeypatch):
    for name in ("highdicom", "pydicom", "supervision", "PIL", "ray", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    packet = ultramotion.Pipeline(detector, False, conf=0.0)(image)
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM")
    for package, call in {
        "ultramotion[dicom]": lambda: next(ultramotion.frames(tmp_path / "a.dcm")),
        "'ultramotion[dicom]'": lambda: ultramotion.dicom.save_segmentation(packet, "a.dcm", "b.dcm"),
        "ultramotion[ray]": lambda: ultramotion.ray.process(tmp_path, tmp_path / "out"),
        "'ultramotion[ray]'": lambda: ultramotion.ray.read(tmp_path),
        "supervision": packet.to_supervision,
        "pillow": lambda: ultramotion.ResizeLongestSide(64).apply_image(image),
    }.items():
        with pytest.raises(ultramotion.UnsupportedError, match=f"wants .*pip install .*{re.escape(package)}"):
            call()


def test_an_argument_that_was_not_given_stays_so(segmenter, image):
    """Also where defaults are copied, or go to another process."""
    unset = inspect.signature(run_segmentation).parameters["as_numpy"].default
    for same in (copy.copy(unset), copy.deepcopy([unset])[0], pickle.loads(pickle.dumps(unset))):
        assert same is unset and not same and repr(same) == "False"
        assert run_segmentation(segmenter, image, BOX, as_numpy=same).shape == (1, 1, *image.shape)


def test_results_are_copied_as_what_nobody_changes(detector, segmenter, image):
    packet = ultramotion.Pipeline(detector, segmenter)(image)
    for result in (packet, packet.objects[0]):
        assert copy.copy(result) is copy.deepcopy(result) is result
        with pytest.raises(TypeError, match="pickled.*json"):
            pickle.dumps(result)


def test_a_pipeline_is_where_its_models_are(detector, segmenter, device):
    with ultramotion.Device("cpu") as other:
        for wrong in ("cuda:0", "guard", "nope", other):
            with pytest.raises(InvalidError, match="the detector is open on .*cpu"):
                ultramotion.Pipeline(detector, segmenter, device=wrong)
    for same in ("auto", "cpu", device, None):
        ultramotion.Pipeline(detector, segmenter, device=same).close()


@pytest.mark.parametrize("first, second", [(None, "cpu"), ("cpu", "auto"), ("cpu", None)])
def test_what_auto_comes_to_is_the_device_of_that_name(python, first, second):
    """So that models that were opened by either are in one pipeline."""
    text = f"""
import ultramotion as um
first, second = um.models.device_of({first!r}), um.models.device_of({second!r})
print(first is second or first.name != second.name)  # which is a GPU's
first.close()
print(um.models.device_of({second!r}) is not first)
"""
    assert python(text) == "True\nTrue\n"


def test_numbers_that_c_would_cut_short(detector, segmenter):
    with ultramotion.Pipeline(detector, False) as pipeline:
        for wrong in (2**32 + 64, 64.5, "64"):
            with pytest.raises(InvalidError, match="prepare"):
                pipeline.prepare(wrong, 64)
    ultramotion.Pipeline(detector, segmenter, track=np.True_, reuse=np.False_).close()
    for wrong in (float("nan"), -1):
        with pytest.raises(InvalidError, match="sink_deadline"):
            ultramotion.run("phantom:frames=1", detector=detector, segmenter=segmenter, sink_deadline=wrong)


def test_a_limit_above_all_boxes_costs_nothing(detector, image):
    """As who wants all of them gives it: 2**31 - 1 took 48 GB."""
    tracemalloc.start()
    try:
        assert len(detector.detect(image, 0, limit=10**6)) <= detector.queries
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_nothing_is_no_image(detector, segmenter):
    with ultramotion.Pipeline(detector, segmenter) as pipeline:
        for call in (pipeline, segmenter.encode, detector.detect, Frame):
            with pytest.raises(InvalidError, match="image None: want pixels"):
                call(None)


def test_the_registry_has_sams_other_networks(segmenter):
    assert set(ultramotion.sam_model_registry) == {"default", "vit_h", "vit_l", "vit_b", "vit_t"}
    with pytest.raises(InvalidError, match="want its checkpoint"):
        ultramotion.sam_model_registry["vit_b"](checkpoint=None)
    with pytest.raises(ultramotion.FileError, match="nowhere"):
        ultramotion.sam_model_registry["vit_h"]("nowhere.pth", device="cpu")


def test_a_sub_interpreter_is_refused(python):
    """It waited for ever, where C calls Python or lets go of an array."""
    said = python(
        "import importlib\n"
        "for name in ('_interpreters', '_xxsubinterpreters'):\n"
        "    try: s = importlib.import_module(name)\n"
        "    except ImportError: continue\n"
        "    run = getattr(s, 'exec', None) or s.run_string\n"
        "    made = s.create('legacy') if name == '_interpreters' else s.create(isolated=False)\n"
        "    try: print(run(made, 'import sys; sys.modules[\"numpy\"] = None; import ultramotion._c'))\n"
        "    except Exception as problem: print(problem)\n"
        "    break\n"
    )
    assert "main interpreter only" in said


def test_what_is_opened_is_not_pickled_or_copied(detector, segmenter, device, image):
    pipeline = ultramotion.Pipeline(detector, segmenter)
    run = ultramotion.run([image] * 2, pipeline=pipeline)
    for opened, what in ((detector, "detector"), (segmenter, "segmenter"), (device, "device cpu"), (pipeline, "pipeline"), (run, "run")):
        for way in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match=f"{what} cannot be pickled or copied.*open it in each"):
                way(opened)
    with pytest.raises(TypeError, match="segmenter cannot be pickled"):
        pickle.dumps(SamPredictor(segmenter))
    gc.collect()
    assert len(list(run)) == 2  # no half-made copy closed it


def test_what_is_opened_says_what_it_is(detector, segmenter, device, image):
    models = f"ultramotion.Detector({detector.architecture}, {device.name}), ultramotion.Segmenter({segmenter.architecture}, {device.name})"
    with ultramotion.Pipeline(detector, segmenter) as pipeline:
        assert repr(pipeline) == f"ultramotion.Pipeline({models})"
        run = ultramotion.run([image] * 2, pipeline=pipeline)
        packets = list(run)
        assert repr(run).startswith(f"ultramotion.Run(frames {len(packets)}, ")
    assert repr(pipeline) == "ultramotion.Pipeline(pipeline is closed)"
    assert repr(device) == f"ultramotion.Device({device.name}, {device.precision})"


def test_read_only_memory_stays_so(detector, image):
    kept = np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape)

    def packets_frame():
        with ultramotion.run([Frame(kept)], detector=detector, segmenter=False) as frames:
            return next(frames).frame

    for frame in (Frame(kept), Frame(memoryview(kept)), Frame(Frame(kept)), packets_frame()):
        with contextlib.suppress(ValueError):  # of an old numpy it is a copy
            frame.numpy()[:] = 7
        assert np.array_equal(kept, image)
    Frame(kept.astype(np.float32) / 255).numpy()[:] = 7


def test_rows_that_do_not_lie_on_whole_numbers(segmenter, image):
    lines = np.zeros(len(image), [("number", "u1"), ("samples", "f4", image.shape[1])])
    lines["samples"] = image / np.float32(255)
    want = np.ascontiguousarray(lines["samples"])
    assert np.array_equal(segmenter.encode(lines["samples"]).tensor.numpy(), segmenter.encode(want).tensor.numpy())
    assert np.array_equal(Frame(lines["samples"]).numpy(), Frame(want).numpy())


def test_numbers_in_another_order_of_bytes(segmenter, image):
    want = segmenter.encode(image / np.float32(255)).tensor.numpy()
    assert np.array_equal(segmenter.encode((image / np.float32(255)).astype(">f4")).tensor.numpy(), want)
    assert np.array_equal(Frame((image / np.float32(255)).astype(">f4")).numpy(), Frame(image / np.float32(255)).numpy())


def test_rows_that_lie_in_each_other_are_copied(image):
    line = image[0]
    windows = np.lib.stride_tricks.sliding_window_view(line, 20)
    assert np.array_equal(Frame(windows).numpy(), windows)
    torch = pytest.importorskip("torch")
    assert np.array_equal(Frame(torch.from_numpy(line.copy()).unfold(0, 20, 1)).numpy(), windows)


def test_halves_keep_their_levels(segmenter, image):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(Frame((levels / 255).astype(np.float16)).numpy(), levels)
    want = segmenter.encode(image).tensor.numpy()
    assert np.array_equal(segmenter.encode((image / 255).astype(np.float16)).tensor.numpy(), want)
    for wrong in (image.astype(np.float16), np.full((30, 30), np.inf, np.float16)):
        with pytest.raises(InvalidError, match="want 0 to 1, or u8"):
            Frame(wrong)


def test_floats_are_no_bytes(detector, segmenter, image):
    normalised = image / np.float32(127.5) - 1
    assert normalised.min() < -0.9
    for wrong in (image.astype(np.float32), image.astype(np.float64), np.full((30, 30), np.inf, np.float32), normalised):
        for use in (segmenter.encode, Frame, lambda p: ultramotion.run_segmentation(segmenter, p), detector.detect):
            with pytest.raises(InvalidError, match="want 0 to 1, or u8"):
                use(wrong)
    assert Frame(np.float32([[-0.5, 0.5, 1.5]])).numpy().tolist() == [[0, 127, 255]]  # as a resize may leave them


def test_tensors_that_pytorch_cannot_hand_over(segmenter, image):
    torch = pytest.importorskip("torch")
    floats = torch.from_numpy(image) / 255
    want = segmenter.encode(floats.bfloat16().float()).tensor.numpy()
    assert np.array_equal(segmenter.encode(floats.bfloat16()).tensor.numpy(), want)
    levels = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
    for kind in (torch.float16, torch.bfloat16):
        assert np.array_equal(Frame((levels / 255).to(kind)).numpy(), levels.numpy())
    for wrong in (floats.to_sparse(), floats.to("meta")):
        with pytest.raises(InvalidError, match="handed over"):
            segmenter.encode(wrong)
    box = torch.tensor(BOX)
    assert np.array_equal(run_segmentation(segmenter, image, box.bfloat16()), run_segmentation(segmenter, image, BOX))  # whole numbers, few bits
    for wrong in (box.to_sparse(), box.to("meta")):
        with pytest.raises(InvalidError, match="handed over"):
            run_segmentation(segmenter, image, wrong)


def test_an_option_that_is_set_too_late_is_refused(detector, segmenter, image):
    """It is given when the object is opened, or by a function: an attribute of its name would change nothing."""
    with ultramotion.Pipeline(detector, segmenter) as pipeline, ultramotion.run([image], detector=detector, segmenter=False) as run:
        late = {detector: ("conf", "input_size"), segmenter: ("sam_as_numpy", "canvas"), pipeline: ("conf", "track"), run: ("strict",)}
        for owner, names in {**late, detector.device: ("precision",), pipeline(image): ("score", "state", "name")}.items():
            for name in names:
                with pytest.raises(AttributeError, match=name):
                    setattr(owner, name, 0)


def wrong_library(python, source, folder, compiler="cc"):
    import shutil
    import subprocess

    if not shutil.which(compiler):
        pytest.skip("no compiler")
    path = folder / "wrong.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)], input=source, text=True, check=True)
    return python(
        "try:\n    import ultramotion\nexcept ImportError as problem:\n    print(problem)", ULTRAMOTION_LIBRARY=str(path)
    )


def test_a_library_of_another_version(python, tmp_path):
    said = wrong_library(python, 'const char *um_version(void) { return "9.9.9"; } int um_abi(void) { return 999; }', tmp_path)
    assert "version 9.9.9 with binary interface 999" in said
    assert "is not a library of ultramotion" in wrong_library(python, "int nothing;", tmp_path)
    (tmp_path / "text.so").write_text("no library")
    text = "try:\n    import ultramotion\nexcept ImportError as problem:\n    print(problem)"
    assert "is not a library of ultramotion" in python(text, ULTRAMOTION_LIBRARY=str(tmp_path / "text.so"))
    assert "no library at /nowhere.so" in python(text, ULTRAMOTION_LIBRARY="/nowhere.so")


def test_a_library_in_the_current_folder(python, tmp_path, monkeypatch):
    """A bare name is that file, not what the loader finds elsewhere; it stays so when the folder changes."""
    library = os.path.realpath(ultramotion._c.lib._name)
    (tmp_path / "libultramotion.so").symlink_to(library)
    monkeypatch.chdir(tmp_path)
    said = python("import os, ultramotion; os.chdir('/'); print(ultramotion._c.lib._name)", ULTRAMOTION_LIBRARY="libultramotion.so")
    assert said == f"{tmp_path}/libultramotion.so\n"


def test_a_struct_that_moved_is_found(python):
    said = python(
        """
import ctypes, ultramotion._c as c
assert c._misfits(c.lib) == []
class Moved(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("id", ctypes.c_uint64)]
c.STRUCTS["um_frame"], c.CONSTANTS["UM_EIO"] = Moved, 5
print("\\n".join(c._misfits(c.lib)))
"""
    )
    assert re.search(r"um_frame has \d+ bytes, want 16\n", said) and "um_frame.id is not at byte 8" in said and "UM_EIO is not 5" in said


def test_every_function_says_its_types_to_who_asks():
    for name in ultramotion.__all__:
        one = getattr(ultramotion, name)
        for function in [f for _, f in inspect.getmembers(one, inspect.isfunction) if f.__name__ != "__new__"] if inspect.isclass(one) else [one]:
            if inspect.isfunction(function):
                typing.get_type_hints(function)
