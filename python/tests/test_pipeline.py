# SPDX-License-Identifier: Apache-2.0
"""Runs and their packets."""
import asyncio
import contextlib
import gc
import json
import re
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import ultramotion
from ultramotion import Frame, Pipeline, run

SOURCE = "phantom:seed=900001,frames=6,width=128,height=128"


@pytest.fixture(scope="module")
def pipeline(detector, device):
    with Pipeline(detector, ultramotion.Segmenter(device=device, canvas=64), conf=0.3) as opened:
        yield opened


@pytest.fixture(scope="module")
def packets(pipeline):
    with run(SOURCE, pipeline=pipeline) as frames:
        return list(frames)


def results(packet):
    """What does not depend on when and where it ran."""
    said = packet.to_dict()
    return json.dumps({k: said[k] for k in ("frame_id", "state", "label", "score", "box_xyxy", "mask", "objects")})


def test_a_run_gives_every_frame_in_order(packets):
    assert [p.frame_id for p in packets] == list(range(6))
    assert {p.state for p in packets} == {"VISIBLE", "LOST"}
    assert all(p.source == SOURCE and p.frame.numpy().shape == (128, 128) for p in packets)


def test_packets_say_what_their_line_says(packets):
    for p in packets:
        line = json.loads(p.json())
        assert line == p.to_dict()
        assert (line["state"], line["frame_id"], line["device"]) == (p.state, p.frame_id, p.device)
        assert line["score"] == pytest.approx(p.score, abs=1e-4)
        assert len(p.objects) == len(line["objects"]) == (p.state == "VISIBLE")
        for o, said in zip(p.objects, line["objects"]):
            assert said["name"] == o.name == "bone" and said["mask_area_px"] == o.mask_area_px == o.mask.sum()
            assert said["mask"] == o.rle
            assert np.allclose(o.box_xyxy, said["box_xyxy"], atol=1e-2)
            bits = np.unpackbits(o.bits, axis=1, bitorder="little")[:, : p.width]
            assert np.array_equal(bits.astype(bool), o.mask) and np.array_equal(o.mask, p.mask)
            assert np.array_equal(p.label_map() > 0, o.mask)
        assert (p.mask is None) == (p.state == "LOST")
        assert p.iou is None if p.mask is None else p.iou == pytest.approx(line["objects"][0]["iou"])
        assert p.stages_ms["total"] > 0 and p.transfers["shared"] == 1 and p.models["detector"].startswith("sha256:")


def test_the_views_of_a_packet_outlive_it(pipeline, packets):
    image = packets[0].frame
    packet = pipeline(image)
    bits, want = packet.objects[0].bits, packets[0].objects[0].bits.copy()
    del packet
    pipeline(packets[1].frame)
    assert np.array_equal(bits, want)


def test_every_way_in_gives_the_same(pipeline, packets):
    images = [np.array(p.frame) for p in packets]
    want = [results(p) for p in packets]
    assert [results(p) for p in run(images, pipeline=pipeline)] == want
    assert [results(p) for p in run(iter(images), pipeline=pipeline)] == want
    assert [results(p) for p in run((Frame(p) for p in images), pipeline=pipeline)] == want
    singles = [json.loads(results(p)) for p in pipeline.map(images)]
    assert [dict(s, frame_id=i) for i, s in enumerate(singles)] == [json.loads(w) for w in want]

    async def gather():
        return [results(p) async for p in run(images, pipeline=pipeline)]

    assert asyncio.run(gather()) == want

    async def share():
        both = run(images, pipeline=pipeline)

        async def some():
            return [results(p) async for p in both]

        one, other = await asyncio.wait_for(asyncio.gather(some(), some()), 30)
        return one + other

    assert sorted(asyncio.run(share())) == sorted(want)


def test_many_threads_share_a_run_and_it_ends_once(pipeline, packets):
    images = [np.array(p.frame) for p in packets] * 4
    for _ in range(5):
        frames, got = run(images, pipeline=pipeline), []
        readers = [threading.Thread(target=lambda: got.extend(p.frame_id for p in frames)) for _ in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert sorted(got) == list(range(len(images)))
    with run(images, pipeline=pipeline) as after:
        frames._end()  # as of a thread that comes late: the pipeline is the next run's
        with pytest.raises(ultramotion.InvalidError, match="in a run"):
            pipeline(images[0])
        assert len(list(after)) == len(images)


def test_a_run_may_be_closed_by_two_threads_at_once(pipeline, packets, monkeypatch):
    ends = ultramotion.Run._ends

    def as_another_closes(frames):
        monkeypatch.undo()
        frames.close()
        return ends(frames)

    frames = run([packets[0].frame] * 2, pipeline=pipeline)
    monkeypatch.setattr(ultramotion.Run, "_ends", as_another_closes)
    frames.close()
    assert pipeline(packets[0].frame).state == "VISIBLE"


def test_one_image_is_no_source(pipeline, packets):
    gray = packets[0].frame.numpy()
    for one in (gray, np.repeat(gray[:, :, None], 3, 2)):
        with pytest.raises(ultramotion.InvalidError, match="is one image: want many"):
            run(one, pipeline=pipeline)
    with open(__file__, "rb") as file:
        for other in (file, b"image.png" * 99, bytearray(b"image.png"), {"a": gray}):
            with pytest.raises(ultramotion.InvalidError, match="source .{,99}: want a name"):
                run(other, pipeline=pipeline)
    assert len(list(run(np.stack([gray, gray]), pipeline=pipeline))) == 2

    class Reader(list):
        shape = None  # as h5py's of nothing

    assert len(list(run(Reader([gray]), pipeline=pipeline))) == 1


def test_a_run_says_why_a_sink_failed(pipeline):
    with pytest.raises(ultramotion.FileError, match="1 of 2 sinks failed: /dev/full: No space left"):
        list(run("phantom:frames=3", pipeline=pipeline, sinks=["jsonl:/dev/full", "null:"]))


def test_a_run_that_is_left_says_that_a_sink_failed(pipeline):
    def leave(problem=None):
        with run("phantom:frames=0", pipeline=pipeline, sinks=["jsonl:/dev/full", "null:"]) as r:
            for _ in r:
                if r.stats["sinks_failed"]:
                    break
            if problem is not None:
                raise problem

    with pytest.raises(ultramotion.FileError, match="1 of 2 sinks failed: /dev/full"):
        leave()
    with pytest.raises(KeyError):
        leave(KeyError())


def test_a_list_of_names_is_read_as_the_command_reads_it(pipeline, packets, tmp_path, monkeypatch, caplog):
    """In its own order, each under its name, from wherever it is; the library says what is wrong with one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))  # as in a container that is read-only
    gray = packets[0].frame.numpy()
    for name in ("b.png", "deep/a.png"):
        Path(name).parent.mkdir(exist_ok=True)
        ultramotion.image.write_png(name, gray)
    names = ["b.png", Path("deep") / "a.png", tmp_path / "nowhere.png"]
    made = list(run(names, pipeline=pipeline, sinks="dir:out"))
    assert [p.source for p in made] == ["b.png", "deep/a.png"] and "nowhere.png: cannot open: No such file" in caplog.text
    assert sorted(str(p.relative_to("out")) for p in Path("out").rglob("*_mask.png")) == ["b_mask.png", "deep/a_mask.png"]
    assert [p.source for p in run(tuple(names[:1]), pipeline=pipeline)] == ["b.png"]
    monkeypatch.chdir(tmp_path / "deep")
    assert [p.source for p in run(["../b.png", "a.png"], pipeline=pipeline)] == ["b.png", "deep/a.png"]
    monkeypatch.chdir(tmp_path)
    for wrong, text in ((["b.png", "./b.png"], "b.png. is in it twice"), (["b.png", "a\nb.png"], "the end of a line"), (["b.png", gray], "want pixels")):
        with pytest.raises(ultramotion.InvalidError, match=text):
            list(run(wrong, pipeline=pipeline))
    with pytest.raises(ultramotion.InvalidError, match="b.png: is also the input"):
        run(names, pipeline=pipeline, sinks="jsonl:b.png")
    with pytest.raises(ultramotion.FileError, match="a temporary image: No such file"):
        packets[0].frame._repr_png_()


def test_an_array_is_its_images_along_the_first_axis(pipeline, packets, caplog):
    """Also of three gray ones, whose shape is that of one in colour: which is meant is said."""
    gray = packets[0].frame.numpy()
    for shape, told in (((1, 128, 128), 0), ((2, 128, 128), 0), ((3, 128, 128), 1), ((1, 3, 128, 128), 0), ((3, 128, 128, 3), 0)):
        caplog.clear()
        images = np.broadcast_to(gray[:, :, None] if shape[-1] == 3 else gray, shape)
        made = list(run(images, pipeline=pipeline))
        assert len(made) == shape[0] and made[0].frame.channels == (3 if len(shape) == 4 else 1)
        assert caplog.text.count("taken as three gray images: one in colour is [image]") == told


def test_arrays_of_every_kind_in_one_call(pipeline, packets):
    """What has bytes in rows is taken as it lies, the rest is made so; both give the same packet, and the array is let go."""
    gray = packets[0].frame.numpy().copy()
    wide = np.zeros((128, 200), np.uint8)
    wide[:, :128] = gray
    fixed = gray.copy()
    fixed.setflags(write=False)
    rgb = np.repeat(gray[:, :, None], 3, 2)
    want, of_rgb = results(pipeline(gray)), results(pipeline(rgb))
    every = (gray, fixed, memoryview(gray), wide[:, :128], gray[::-1].copy()[::-1], np.asfortranarray(gray), gray[:, :, None], gray[None])
    for same in every:
        got = pipeline(same)
        assert want.split('"state"')[1] == results(got).split('"state"')[1] and np.array_equal(got.frame.numpy(), gray)
        assert got.frame is got.frame
    for same in (rgb, rgb.transpose(2, 0, 1), rgb[::-1].copy()[::-1], rgb.astype(np.float32) / 255):
        assert of_rgb.split('"state"')[1] == results(pipeline(image=same)).split('"state"')[1]
    held = bytearray(128 * 128)
    pipeline(memoryview(held).cast("B", (128, 128)))
    pipeline(gray)
    held.append(1)  # nobody looks into it any more
    for wrong in ((), (gray, gray)):
        with pytest.raises(TypeError):
            pipeline(*wrong)
    for wrong in (gray.view(bool), gray.astype(np.int32), np.zeros((0, 8), np.uint8), np.zeros((1, 20000), np.uint8), gray.ravel(), b"abc"):
        with pytest.raises(ultramotion.InvalidError):
            pipeline(wrong)


def test_frames_keep_their_time_spacing_pose_and_source(pipeline, packets):
    pose = np.arange(16.0).reshape(4, 4)
    frame = Frame(np.array(packets[0].frame), ts=12.5, spacing_mm=(0.1, 0.2), pose=pose, source="here")
    for packet in (pipeline(frame), next(run([frame], pipeline=pipeline))):
        assert (packet.ts, packet.spacing_mm, packet.source) == (12.5, (0.1, 0.2), "here")
        assert np.array_equal(packet.pose, pose)


def test_a_frame_may_be_in_a_run_more_than_once(pipeline, packets):
    """Each time it has a number of its own, and the caller's stays what it is."""
    frame = Frame(packets[0].frame.numpy(), frame_id=7, source="here")
    got = list(run([frame] * 3, pipeline=pipeline))
    assert [p.frame_id for p in got] == [p.frame.frame_id for p in got] == [0, 1, 2] and got[2].source == "here"
    assert (frame.frame_id, frame.ts) == (7, 0) and got[0].frame.numpy().ctypes.data == frame.numpy().ctypes.data
    assert [p.frame_id for p in run([p.frame for p in got[1:]], pipeline=pipeline)] == [0, 1]
    assert [p.frame.frame_id for p in got] == [0, 1, 2]


def test_what_goes_wrong_in_the_images_is_raised(pipeline, packets):
    def images():
        yield np.array(packets[0].frame)
        raise KeyError("lost")

    frames = run(images(), pipeline=pipeline)
    assert next(frames).frame_id == 0
    with pytest.raises(KeyError, match="lost"):
        next(frames)
    assert list(frames) == []
    with pytest.raises(ultramotion.InvalidError, match="want u8"):
        list(run([np.zeros((4, 4), np.int64)], pipeline=pipeline))


def test_a_packet_that_comes_with_a_signal_is_the_next_one(pipeline, packets, monkeypatch):
    """Ctrl-C is answered when the wait for a packet is over, and who goes on has them all."""
    receive, interrupted = ultramotion._c.lib.um_run_receive, []

    def received(*arguments):
        status = receive(*arguments)
        if status == ultramotion._c.OK and len(interrupted) < 3:
            interrupted.append(status)
            raise KeyboardInterrupt
        return status

    monkeypatch.setattr(ultramotion._c.lib, "um_run_receive", received)
    got, frames = [], run(SOURCE, pipeline=pipeline)
    while len(got) < len(packets):
        with contextlib.suppress(KeyboardInterrupt):
            got.append(next(frames))
    assert [results(p) for p in got] == [results(p) for p in packets] and len(interrupted) == 3
    assert list(frames) == []
    interrupted.clear()
    with run(SOURCE, pipeline=pipeline) as frames, pytest.raises(KeyboardInterrupt):
        next(frames)
    assert list(frames) == []  # closed: nothing comes any more


def test_who_closes_what_a_run_reads(pipeline, packets):
    """A generator ends with the run; a reader is the caller's, who may read on."""
    closed = []

    class Reader:
        def __iter__(self):
            try:
                while True:
                    yield packets[0].frame
            finally:
                closed.append("generator")

        def close(self):
            closed.append("reader")

    for source in (Reader(), iter(Reader())):
        with run(source, pipeline=pipeline) as frames:
            next(frames)
    assert closed == ["generator"] * 2


def test_a_run_ends_when_it_is_told_to(pipeline, packets):
    endless = "phantom:seed=1,width=64,height=64"
    begun = time.monotonic()
    with run(endless, pipeline=pipeline) as frames:
        next(frames)
    with pytest.raises(ultramotion.ClosedError):
        frames.stats
    frames = run(endless, pipeline=pipeline)
    next(frames)
    frames.stop()
    assert len(list(frames)) < 20
    assert frames.stats["stopped"] == 1
    dropped = run(endless, pipeline=pipeline)
    next(dropped)
    del dropped
    waits = threading.Event()

    def silent():
        yield np.array(packets[0].frame)
        waits.wait(20)

    with run(silent(), pipeline=pipeline) as frames:
        next(frames)
        with pytest.raises(TimeoutError):
            frames.receive(0.05)
        waits.set()
    assert time.monotonic() - begun < 15


def test_a_run_that_nobody_takes_packets_of_says_so(pipeline, tmp_path, caplog):
    run(SOURCE, pipeline=pipeline, sinks=f"jsonl:{tmp_path}/out.jsonl")
    gc.collect()
    assert "dropped before a packet was taken: iterate" in caplog.text
    caplog.clear()
    for _ in run(SOURCE, pipeline=pipeline):
        break
    run(SOURCE, pipeline=pipeline).close()
    assert not caplog.records


def test_a_pipeline_is_in_one_run_at_a_time(pipeline, packets):
    image = packets[0].frame
    with run("phantom:seed=1,width=64,height=64", pipeline=pipeline) as frames:
        next(frames)
        with pytest.raises(ultramotion.InvalidError, match="in a run"):
            pipeline(image)
        with pytest.raises(ultramotion.InvalidError, match="in a run"):
            run(SOURCE, pipeline=pipeline)
    assert pipeline(image).state == "VISIBLE"
    with pytest.raises(ultramotion.InvalidError, match="unknown"):
        run(SOURCE, pipeline=pipeline, sinks=["paper:"])
    assert len(list(run(SOURCE, pipeline=pipeline))) == 6


def test_sinks_and_errors_of_sources(pipeline, tmp_path):
    list(run(SOURCE, pipeline=pipeline, sinks=[f"dir:{tmp_path}/out", f"jsonl:{tmp_path}/out.jsonl"]))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["frame_id"] for line in lines] == list(range(6))
    assert len(list((tmp_path / "out").glob("*_mask.png"))) > 0
    list(run(SOURCE, pipeline=pipeline, sinks=f"jsonl:{tmp_path}/one.jsonl"))
    assert len((tmp_path / "one.jsonl").read_text().splitlines()) == 6
    with pytest.raises(ultramotion.FileError):
        run(tmp_path / "nothing", pipeline=pipeline)
    with pytest.raises(ultramotion.InvalidError, match="unknown"):
        run(SOURCE, pipeline=pipeline, sinks=["paper:"])
    with pytest.raises(ultramotion.InvalidError, match="has its models"):
        run(SOURCE, pipeline=pipeline, conf=0.2)
    image = next((tmp_path / "out").glob("*_overlay.png"))
    with pytest.raises(ultramotion.InvalidError, match="is also the input"):
        run(image, pipeline=pipeline, sinks=[f"jsonl:{image}"])
    assert image.read_bytes().startswith(b"\x89PNG")
    model = tmp_path / "own.safetensors"
    model.write_bytes(b"a model")
    for models in ({"detector": model}, {"segmenter": str(model)}):
        with pytest.raises(ultramotion.InvalidError, match="own.safetensors is also the input"):
            run(SOURCE, **models, sinks=f"jsonl:{model}")
    assert model.read_bytes() == b"a model"
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    with pytest.raises(ultramotion.Error, match="a.png"):
        list(run(tmp_path / "bad", pipeline=pipeline, strict=True))


def test_sinks_with_connections_say_where_they_are_and_what_they_count(pipeline, caplog):
    with run(SOURCE, pipeline=pipeline, loop=True, sinks="igtl:127.0.0.1:0") as frames:
        next(frames)
    assert "listening on port" in caplog.text
    try:
        frames = run(SOURCE, pipeline=pipeline, loop=True, sinks="web::0")
    except ultramotion.UnsupportedError:
        pytest.skip("built without the viewer")
    with frames:
        next(frames)
        address = re.search(r"open (http://127\.0\.0\.1:\d+/)", caplog.text)[1]
        with urllib.request.urlopen(f"{address}stats", timeout=20) as answer:
            stats = json.load(answer)
        assert stats["source"] == SOURCE and stats["frames"]["out"] >= 1 and "web::0" in stats["counts"]


def test_a_run_of_which_nothing_could_be_read_is_an_error(pipeline, packets, tmp_path, caplog):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    for source in (tmp_path, tmp_path / "a.png"):
        with pytest.raises(ultramotion.FormatError, match="a.png"):
            list(run(source, pipeline=pipeline))
    assert pipeline(packets[0].frame).state == "VISIBLE"
    packets[0].frame.save(tmp_path / "b.png")
    caplog.clear()
    assert len(list(run(tmp_path, pipeline=pipeline))) == 1 and "a.png" in caplog.text
    assert list(run([], pipeline=pipeline)) == []


def test_changes_from_the_next_frame_on(pipeline, packets):
    image = packets[0].frame
    pipeline.set(conf=1.0)
    assert pipeline(image).state == "LOST"
    pipeline.set(conf=0.3, label="bone", objects=1)
    assert pipeline(image).state == "VISIBLE"
    pipeline.prepare(96, 64)
    assert pipeline.device_bytes > 0


def test_asserted_transfers_are_raised(device):
    with Pipeline(ultramotion.Detector(device="guard"), False, assert_transfers=(0, 1)) as strict:
        with pytest.raises(ultramotion.TransferError, match="frame 0"):
            strict(np.zeros((64, 64), np.uint8))


def test_deadlines(detector, device, packets):
    assert all(p.deadline is None for p in packets)
    with Pipeline(detector, ultramotion.Segmenter(device=device, canvas=64), budget_ms=1e-6) as pipeline:
        for p in run(SOURCE, pipeline=pipeline):
            said = p.to_dict()["deadline"]
            assert p.deadline["missed"] and p.deadline["effort"] == "full" == said["effort"]
            assert p.deadline["latency_ms"] == pytest.approx(said["latency_ms"], rel=1e-4) and p.deadline["latency_ms"] >= p.stages_ms["total"]


def test_kpi_lines(detector, device, packets, caplog):
    lines = []
    with Pipeline(detector, ultramotion.Segmenter(device=device, canvas=64), kpi=lines.append) as told:
        told(packets[0].frame)
    assert json.loads(lines[0])["event"] == "sam_mask_output"


def test_a_kpi_function_cannot_wait_for_itself(detector, device, packets, caplog):
    frame = packets[0].frame
    opened = ultramotion.Segmenter(device=device, canvas=64, kpi=lambda _: opened.predict(embedding, box=[1, 1, 90, 90]))
    embedding = opened.encode(frame.numpy())
    opened.predict(embedding, box=[1, 1, 90, 90])
    with Pipeline(detector, opened, kpi=lambda _: asked(frame)) as asked:
        asked(frame)
    assert caplog.text.count("which waits for that") == 2 and caplog.text.count("Error: ") == 2
    with Pipeline(detector, opened, conf=0, kpi=lambda _: told.set(conf=1)) as told:  # of the next frame, for which nobody waits
        assert [told(frame).state for _ in range(2)] == ["VISIBLE", "LOST"]
    assert caplog.text.count("Error: ") == 2


def test_images_are_numbered_and_timed(detector, packets):
    image = packets[0].frame.numpy()
    with Pipeline(detector, segmenter=False) as opened:
        numbered = [opened(image), opened(image), opened(Frame(image, frame_id=7, ts=5.0)), opened(image)]
        assert [p.frame_id for p in numbered] == [0, 1, 7, 2] and numbered[2].ts == 5.0
        assert all(p.ts > 1.6e9 for p in numbered[:2])
        with pytest.raises(ultramotion.InvalidError, match="crop"):
            Pipeline(detector, segmenter=False, crop=(0, 0, 0, 0))


def test_the_image_on_a_screen_is_found(detector):
    screen = np.zeros((320, 400), np.uint8)
    screen[64:256, 96:320] = np.random.default_rng(0).integers(0, 256, (192, 224))
    with Pipeline(detector, segmenter=False, crop="auto") as found, Pipeline(detector, segmenter=False, crop=(80, 48, 256, 224)) as told:
        a, b = found(screen), told(screen)
        assert a.crop == b.crop == (80, 48, 256, 224) and json.loads(a.json())["crop"] == [80, 48, 256, 224]
        assert a.score == b.score and found(screen[64:256, 96:320]).crop is None


def test_a_producer_may_use_its_array_again(pipeline, packets):
    images = [p.frame.numpy().copy() for p in packets]

    def one_array():
        array = np.empty_like(images[0])
        for image in images:
            array[:] = image
            yield array

    with ultramotion.run(one_array(), pipeline=pipeline) as frames:
        assert [p.score for p in frames] == [p.score for p in packets]


def test_a_run_begins_anew(detector, device, packets):
    with Pipeline(detector, ultramotion.Segmenter(device=device, canvas=64), track=True) as tracked:
        image = packets[0].frame.numpy()
        runs = []
        for _ in range(2):
            with ultramotion.run([image] * 5, pipeline=tracked) as frames:
                runs.append([p.state for p in frames])
        assert runs[0] == runs[1] and runs[0][0] != "VISIBLE"
        tracked.forget()
        assert tracked(image).state == runs[0][0]


def test_coco_of_boxes_alone(detector, packets):
    with Pipeline(detector, segmenter=False) as boxes:
        (one,) = boxes(packets[0].frame).to_coco()
    assert "segmentation" not in one and one["area"] == pytest.approx(one["bbox"][2] * one["bbox"][3])


def test_gray_frame():
    pixels = np.full((60, 80, 3), 90, np.uint8)
    pixels[20:22, 10:70] = 255, 255, 0
    pixels[40:60, 40:60] = 200, 0, 0
    frame = Frame(pixels, frame_id=3, source="a.png", spacing_mm=(0.1, 0.2))
    gray = frame.gray()
    assert (gray.frame_id, gray.source, gray.spacing_mm) == (3, "a.png", frame.spacing_mm)
    assert gray.numpy().shape == (60, 80) and (gray.numpy()[:40] == 90).all() and (gray.numpy()[40:, 40:60] == 60).all()
    assert np.array_equal(gray.gray().numpy(), gray.numpy())


def test_plot_save_and_coco(packets, tmp_path):
    visible = packets[0]
    rgb = visible.plot()
    assert rgb.shape == (128, 128, 3) and rgb.dtype == np.uint8
    assert not np.array_equal(rgb[..., 0], visible.frame.numpy())
    assert np.array_equal(visible.plot(visible.frame.numpy()), rgb)
    visible.save(tmp_path / "a.png")
    visible.save(tmp_path / "a.json")
    assert np.array_equal(Frame.read(tmp_path / "a.png").numpy(), rgb)
    assert json.loads((tmp_path / "a.json").read_text()) == visible.to_dict()
    visible.frame.save(tmp_path / "b.png")
    assert np.array_equal(Frame.read(tmp_path / "b.png").numpy(), visible.frame.numpy())
    with pytest.raises(ultramotion.InvalidError, match="b.jpg: want .png"):
        visible.frame.save(tmp_path / "b.jpg")
    with pytest.raises(ultramotion.InvalidError, match="want .png or .json"):
        visible.save(tmp_path / "a.gif")
    (one,) = visible.to_coco()
    x, y, w, h = one["bbox"]
    assert (one["category_id"], one["image_id"], one["area"]) == (1, 0, visible.mask_area_px)
    assert np.allclose([x, y, x + w, y + h], visible.box_xyxy, atol=1e-3)
    (other,) = visible.to_coco(image_id=7, category_ids=[5])
    assert other == {**one, "image_id": 7, "category_id": 5}
    with pytest.raises(ultramotion.InvalidError, match="category_ids: 0 of them, want one for each class, and a class is 0"):
        visible.to_coco(category_ids=[])
    assert [p.to_coco() for p in packets if p.state == "LOST"] == [[]]
    coco = pytest.importorskip("pycocotools.mask")
    assert np.array_equal(coco.decode(one["segmentation"]).astype(bool), visible.mask)


def test_supervision(packets, detector, device):
    supervision = pytest.importorskip("supervision")
    found = packets[0].to_supervision()
    assert len(found) == 1 and np.array_equal(found.mask[0], packets[0].mask)
    assert [len(p.to_supervision()) for p in packets if p.state == "LOST"] == [0]
    with Pipeline(detector, ultramotion.Segmenter(device=device), conf=0.0, objects=3) as pipeline:
        packet = pipeline(packets[0].frame)
    found = packet.to_supervision()
    for i, o in enumerate(packet.objects):
        assert np.array_equal(found.mask[i], o.mask) and np.array_equal(found.xyxy[i], o.box_xyxy)
        assert (found.confidence[i], found.class_id[i], found.data["class_name"][i]) == (np.float32(o.score), o.label, o.name)
    assert found.area.tolist() == [o.mask_area_px for o in packet.objects]
    scene = packet.plot()
    assert supervision.MaskAnnotator().annotate(scene.copy(), found).shape == scene.shape
    with Pipeline(detector, False, conf=0.0) as boxes:
        assert boxes(packets[0].frame).to_supervision().mask is None


def test_progress(pipeline, capsys):
    pytest.importorskip("tqdm")
    list(run(SOURCE, pipeline=pipeline, progress=True))
    assert "6/6" in capsys.readouterr().err
    with run(SOURCE, pipeline=pipeline, progress=True) as frames:
        next(frames)
    assert capsys.readouterr().err.endswith("\n")  # what is printed next has a line of its own
