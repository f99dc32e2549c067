# SPDX-License-Identifier: Apache-2.0
"""Clinical files: pydicom's own ultrasound examples, and made ones."""
import contextlib
import json
import logging
import os

import numpy as np
import pytest

import ultramotion
from ultramotion import Frame, frames

pydicom = pytest.importorskip("pydicom", minversion="3")
from pydicom import examples  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage  # noqa: E402


@pytest.fixture(scope="module")
def pipeline(device, detector):
    with ultramotion.Pipeline(detector, ultramotion.Segmenter(device=device, canvas=64)) as opened:
        yield opened


@pytest.mark.parametrize(
    "name, count, shape, spacing",
    [
        ("ybr_color", 30, (240, 320, 3), 0.5104970559477806),
        ("palette_color", 1, (350, 800, 3), 0.2622878876619700),
        ("rgb_color", 1, (240, 320, 3), None),
        ("jpeg2k", 1, (480, 640, 3), None),
    ],
)
def test_pydicoms_examples(pipeline, name, count, shape, spacing):
    path = examples.get_path(name)
    try:
        made = list(frames(path))
    except ultramotion.FormatError as problem:
        if "plugin" in str(problem) or "missing" in str(problem):
            pytest.skip(str(problem))
        raise
    assert [f.numpy().shape for f in made] == [shape] * count
    if spacing is None:
        assert made[0].spacing_mm is None
    else:
        assert made[0].spacing_mm == pytest.approx((spacing, spacing))
    theirs = pydicom.dcmread(path)
    if name == "rgb_color":
        assert np.array_equal(made[0].numpy(), theirs.pixel_array)
    if name == "palette_color":
        colors = pydicom.pixels.apply_color_lut(theirs.pixel_array, theirs)
        assert np.abs(made[0].numpy().astype(int) - colors / 257.0).max() <= 0.51
    steps = np.diff([f.ts for f in made])
    assert np.allclose(steps, 0.033333, atol=1e-5)
    packets = list(ultramotion.run(path, pipeline=pipeline))
    assert len(packets) == count and packets[0].spacing_mm == made[0].spacing_mm
    assert str(theirs.get("PatientName", "-")) not in packets[0].json().replace("ultra", "")


def made_file(path, arrays, bits=8, **tags):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.PatientName, data.PatientID, data.InstitutionName = "Quxley^Zorba", "ZQ-777", "Saint Xylo"
    data.PatientBirthDate = "19010203"
    data.NumberOfFrames, data.Rows, data.Columns = arrays.shape[0], arrays.shape[1], arrays.shape[2]
    data.SamplesPerPixel = 3 if arrays.ndim == 4 else 1
    data.PhotometricInterpretation = "RGB" if arrays.ndim == 4 else "MONOCHROME2"
    if arrays.ndim == 4:
        data.PlanarConfiguration = 0
    data.BitsAllocated, data.BitsStored, data.HighBit = arrays.dtype.itemsize * 8, bits, bits - 1
    data.PixelRepresentation = 0
    data.PixelData = arrays.tobytes()
    for tag, value in tags.items():
        setattr(data, tag, value)
    data.save_as(path, enforce_file_format=True)
    return path


def test_of_the_patient_nothing_comes_out(pipeline, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    arrays = np.random.default_rng(1).integers(0, 255, (3, 64, 80), np.uint8)
    path = made_file(tmp_path / "scan.dcm", arrays, AcquisitionDateTime="20010101120000")
    out = tmp_path / "out"
    packets = list(ultramotion.run(path, pipeline=pipeline, sinks=[f"dir:{out}", f"jsonl:{tmp_path}/out.jsonl"]))
    assert len(packets) == 3 and packets[0].source == "scan.dcm"
    said = "".join(p.json() + repr(p) + json.dumps(p.to_coco()) for p in packets) + caplog.text
    raw = said.encode() + b"".join(f.read_bytes() for f in [*out.rglob("*"), tmp_path / "out.jsonl"] if f.is_file())
    for secret in (b"Quxley", b"Zorba", b"ZQ-777", b"Xylo", b"19010203", b"20010101"):
        assert secret not in raw
    assert all(p.ts > 1.6e9 for p in packets)
    assert next(frames(path, dates=True)).ts == pytest.approx(978346800, abs=86400)


def test_times_by_the_vector(tmp_path):
    arrays = np.zeros((4, 8, 8), np.uint8)
    path = made_file(tmp_path / "a.dcm", arrays, FrameTimeVector=[0, 40, 20, 100], FrameTime="33")
    ts = [f.ts for f in frames(path)]
    assert np.allclose(np.diff(ts), [0.04, 0.02, 0.1], atol=1e-5)
    ts = [f.ts for f in frames(made_file(tmp_path / "b.dcm", arrays, CineRate="25"))]
    assert np.allclose(np.diff(ts), 0.04, atol=1e-5)


def test_times_go_on_where_the_vector_ends(tmp_path):
    arrays = np.zeros((4, 8, 8), np.uint8)
    for vector, steps in (([0, 40, 20], [0.04, 0.02, 0.02]), ([40, 20, 30], [0.02, 0.03, 0.03]), ([0, 40, 20, 30, 50], [0.04, 0.02, 0.03])):
        ts = [f.ts for f in frames(made_file(tmp_path / "a.dcm", arrays, FrameTimeVector=vector))]
        assert np.allclose(np.diff(ts), steps, atol=1e-5)
    ts = [f.ts for f in frames(made_file(tmp_path / "b.dcm", arrays, RecommendedDisplayFrameRate="50"))]
    assert np.allclose(np.diff(ts), 0.02, atol=1e-5)


def region(delta, kind=1):
    made = Dataset()
    made.RegionSpatialFormat, made.RegionDataType, made.RegionFlags = 1, kind, 0
    made.RegionLocationMinX0 = made.RegionLocationMinY0 = 0
    made.RegionLocationMaxX1, made.RegionLocationMaxY1 = None, 7
    made.PhysicalUnitsXDirection = made.PhysicalUnitsYDirection = 3
    made.PhysicalDeltaX, made.PhysicalDeltaY = delta, -delta
    return made


def test_regions_that_differ_give_no_spacing(tmp_path, caplog):
    arrays = np.zeros((1, 8, 8), np.uint8)
    for deltas, spacing in (([0.01, 0.01], (0.1, 0.1)), ([0.01, 0.02], None)):
        path = made_file(tmp_path / "a.dcm", arrays, SequenceOfUltrasoundRegions=[region(d) for d in deltas])
        assert next(frames(path)).spacing_mm == (spacing and pytest.approx(spacing))
    assert "0.1x0.1, 0.2x0.2" in caplog.text
    path = made_file(tmp_path / "b.dcm", arrays, SequenceOfUltrasoundRegions=[region(0.01), region(0.02, kind=2)])
    assert next(frames(path)).spacing_mm == pytest.approx((0.1, 0.1))
    assert next(frames(made_file(tmp_path / "c.dcm", arrays, PixelSpacing=[0, 0]))).spacing_mm is None
    caplog.clear()
    for wrong in (np.inf, np.nan):
        path = made_file(tmp_path / "d.dcm", arrays, SequenceOfUltrasoundRegions=[region(wrong), region(0.02)])
        assert next(frames(path)).spacing_mm == pytest.approx((0.2, 0.2))
    assert not caplog.text


def test_elements_without_a_value_are_as_if_they_were_not_there(tmp_path):
    arrays = np.arange(64, dtype=np.uint8).reshape(1, 8, 8) * 4
    for tags in (
        {"RescaleSlope": None, "RescaleIntercept": None},
        {"WindowCenter": None, "WindowWidth": None},
        {"WindowCenter": "0", "WindowWidth": "0"},
        {"FrameTime": None, "PixelSpacing": None, "NumberOfFrames": None},
    ):
        assert np.array_equal(next(frames(made_file(tmp_path / "a.dcm", arrays, **tags))).numpy(), arrays[0])


def test_a_palette_of_eight_bits_that_says_sixteen(tmp_path):
    arrays = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    for entries in (np.arange(256), np.arange(256) * 257):
        tags = {"PhotometricInterpretation": "PALETTE COLOR"}
        for color in ("Red", "Green", "Blue"):
            tags[f"{color}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
            tags[f"{color}PaletteColorLookupTableData"] = entries.astype(np.uint16).tobytes()
        assert np.array_equal(next(frames(made_file(tmp_path / "a.dcm", arrays, **tags))).numpy()[..., 0], arrays[0])


def test_halved_colours_that_are_not_packed(tmp_path):
    """Each frame is at its own place: all of them are those of pydicom's whole array."""
    stored = np.random.default_rng(3).integers(0, 256, (3, 8, 8, 2), np.uint8)
    tags = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "YBR_FULL_422"}
    path = made_file(tmp_path / "a.dcm", np.zeros((3, 8, 8), np.uint8), PixelData=stored.tobytes(), **tags)
    expected = pydicom.pixels.pixel_array(path)
    assert np.array_equal([f.numpy() for f in frames(path)], expected)


def test_colours_that_pydicom_leaves_as_they_are_are_refused(tmp_path):
    arrays = np.full((1, 8, 8, 3), 128, np.uint8)
    for kind in ("YBR_PARTIAL_422", "YBR_PARTIAL_420", "HSV", "CMYK"):
        with pytest.raises(ultramotion.FormatError, match=f"a.dcm: frame 0 of 1: pixels of kind '{kind}': want MONOCHROME1, .*YBR_RCT$"):
            next(frames(made_file(tmp_path / "a.dcm", arrays, PhotometricInterpretation=kind)))


def test_a_scale_is_of_gray_samples(tmp_path):
    arrays = np.random.default_rng(5).integers(0, 256, (1, 8, 8, 3), np.uint8)
    for slope, intercept in (("1", "-1024"), ("2", "0")):
        path = made_file(tmp_path / "a.dcm", arrays, RescaleSlope=slope, RescaleIntercept=intercept)
        assert np.array_equal(next(frames(path)).numpy(), arrays[0])


def test_what_is_no_scan_or_not_whole_says_so(pipeline, tmp_path, caplog):
    arrays = np.zeros((2, 8, 8), np.uint8)
    for tags, said in (
        ({"SOPClassUID": pydicom.uid.SegmentationStorage}, "DICOM SEG"),
        ({"HighBit": 7, "BitsStored": 6}, "6 bits with the highest in bit 7"),
    ):
        with pytest.raises(ultramotion.FormatError, match=said):
            next(frames(made_file(tmp_path / "a.dcm", arrays, **tags)))
    path = made_file(tmp_path / "b.dcm", arrays)
    data = pydicom.dcmread(path)
    data.compress(pydicom.uid.RLELossless)
    data.NumberOfFrames = 3
    data.save_as(path)
    assert len(list(ultramotion.run(tmp_path, pipeline=pipeline))) == 2
    assert "ends after frame 1 of 3" in caplog.text
    with pytest.raises(ultramotion.FormatError, match="ends after frame 1 of 3"):
        list(frames(path))


def test_files_without_a_preamble_and_globs_with_others(pipeline, tmp_path, caplog):
    arrays = np.random.default_rng(2).integers(0, 255, (2, 32, 32), np.uint8)
    path = made_file(tmp_path / "IM1", arrays)
    whole = path.read_bytes()
    at = whole.index(b"\x08\x00")  # the first element behind the file's own
    for name, part in (("IM2", whole[132:]), ("IM3", whole[at:])):
        (tmp_path / name).write_bytes(part)
        assert np.array_equal([f.numpy() for f in frames(tmp_path / name)], arrays)
    os.mkfifo(tmp_path / "pipe")
    assert [p.source for p in ultramotion.run(f"{tmp_path}/*", pipeline=pipeline)] == ["IM1"] * 2 + ["IM2"] * 2 + ["IM3"] * 2
    assert "passed over: 1 that are not DICOM" in caplog.text
    ultramotion.image.write_png(str(tmp_path / "a.png"), np.zeros((32, 32), np.uint8))
    assert [p.source for p in ultramotion.run(f"{tmp_path}/*", pipeline=pipeline)] == ["a.png"]


def test_more_than_eight_bits(tmp_path):
    arrays = np.array([[[0, 1023, 2048, 4095]]], np.uint16)
    path = made_file(tmp_path / "a.dcm", arrays, bits=12)
    assert next(frames(path)).numpy().tolist() == [[0, 64, 128, 255]]
    path = made_file(tmp_path / "b.dcm", arrays, bits=12, PhotometricInterpretation="MONOCHROME1")
    assert next(frames(path)).numpy().tolist() == [[255, 191, 127, 0]]
    path = made_file(tmp_path / "c.dcm", arrays, bits=12, WindowCenter="1024", WindowWidth="2048")
    assert next(frames(path)).numpy().tolist() == [[0, 127, 255, 255]]


def test_scaled_samples_fill_the_range(tmp_path):
    arrays = np.array([[[0, 1024, 2048, 4095]]], np.uint16)
    scale = {"RescaleSlope": "2", "RescaleIntercept": "-1024"}
    path = made_file(tmp_path / "a.dcm", arrays, bits=12, **scale)
    assert next(frames(path)).numpy().tolist() == [[0, 64, 128, 255]]
    path = made_file(tmp_path / "b.dcm", arrays, bits=12, WindowCenter="3072", WindowWidth="8192", **scale)
    assert next(frames(path)).numpy().tolist() == [[0, 64, 128, 255]]
    signed = np.array([[[-2048, -1024, 0, 2047]]], np.int16)
    path = made_file(tmp_path / "c.dcm", signed, bits=12, PixelRepresentation=1, RescaleSlope="1", RescaleIntercept="2048")
    assert next(frames(path)).numpy().tolist() == [[0, 64, 128, 255]]


def test_a_dark_file_is_told_and_stretched(pipeline, tmp_path, caplog):
    arrays = np.tile(np.arange(4096, dtype=np.uint16).reshape(1, 64, 64), (1, 1, 1))
    path = made_file(tmp_path / "a.dcm", arrays, bits=16)
    assert next(frames(path)).numpy().max() == 16 and "the image is dark" in caplog.text
    assert next(frames(path, window="auto")).numpy().max() == next(frames(path, window=(0, 4095))).numpy().max() == 255
    with ultramotion.run(path, pipeline=pipeline, window="auto") as packets:
        assert next(packets).frame.numpy().max() == 255
    with pytest.raises(ultramotion.InvalidError, match="window"):
        next(frames(path, window=(5, 5)))


def test_files_without_an_ending_and_folders(pipeline, tmp_path):
    for name in ("IM2", "IM10"):
        made_file(tmp_path / name, np.zeros((2, 32, 32), np.uint8))
    assert len(list(ultramotion.run(tmp_path / "IM2", pipeline=pipeline))) == 2
    assert [p.source for p in ultramotion.run(tmp_path, pipeline=pipeline)] == ["IM2"] * 2 + ["IM10"] * 2
    assert len(list(ultramotion.run(tmp_path, pipeline=pipeline))) == len(list(ultramotion.run(f"{tmp_path}/IM*", pipeline=pipeline))) == 4
    kept = (tmp_path / "IM2").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "IM2")
    for source in (tmp_path, tmp_path / "IM2"):
        with pytest.raises(ultramotion.InvalidError, match="link is also the input"):
            ultramotion.run(source, pipeline=pipeline, sinks=f"jsonl:{tmp_path}/link")
    assert (tmp_path / "IM2").read_bytes() == kept
    ultramotion.image.write_png(tmp_path / "image.dcm", np.zeros((32, 32), np.uint8))  # is what it holds, whatever it is called
    assert [p.source for p in ultramotion.run(tmp_path / "image.dcm", pipeline=pipeline)] == ["image.dcm"]


def test_a_series_goes_by_its_numbers(pipeline, tmp_path):
    """Its files are often called by their UIDs."""
    for name, series, number in (("c", "1.2", 1), ("a", "1.2", 10), ("b", "1.3", 1), ("d", "1.2", 2), ("e", "1.3", None)):
        made_file(tmp_path / name, np.zeros((1, 32, 32), np.uint8), SeriesInstanceUID=series, InstanceNumber=number)
    assert [p.source for p in ultramotion.run(tmp_path, pipeline=pipeline)] == ["c", "d", "a", "b", "e"]


def test_a_list_goes_in_its_own_order(pipeline, tmp_path, caplog):
    (tmp_path / "scans").mkdir()
    for name, number in (("a", 1), ("b", 2), ("c", 3)):
        made_file(tmp_path / "scans" / name, np.zeros((1, 32, 32), np.uint8), SeriesInstanceUID="1.2", InstanceNumber=number)
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfscans/c\r\n\r\n./scans/a\nscans/missing.dcm\n%s/scans/b" % bytes(tmp_path))
    assert [p.source for p in ultramotion.run(f"@{tmp_path}/list.txt", pipeline=pipeline)] == ["c", "a", "b"]
    assert "missing.dcm" in caplog.text
    with pytest.raises(ultramotion.InvalidError, match="list.txt is also the input"):
        ultramotion.run(f"@{tmp_path}/list.txt", pipeline=pipeline, sinks=f"jsonl:{tmp_path}/list.txt")
    ultramotion.image.write_png(str(tmp_path / "a.png"), np.zeros((32, 32), np.uint8))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ultramotion.FileError, match="not a regular file"):
        ultramotion.run(f"@{tmp_path}/pipe", pipeline=pipeline)
    assert [p.source for p in ultramotion.run([tmp_path / "scans" / name for name in "ba"], pipeline=pipeline)] == ["b", "a"]
    for twice in ("scans/b\nscans/a\n./scans//b\n", f"scans/b\n{tmp_path}/scans/b"):  # as of images
        (tmp_path / "list.txt").write_text(twice)
        with pytest.raises(ultramotion.InvalidError, match='list.txt: ".*/scans/b" is in it twice'):
            ultramotion.run(f"@{tmp_path}/list.txt", pipeline=pipeline)
    with pytest.raises(ultramotion.InvalidError, match="loop: nothing for DICOM"):
        ultramotion.run(tmp_path / "scans", pipeline=pipeline, loop=True)
    (tmp_path / "list.txt").write_text("scans/a\na.png\n")
    assert [p.source for p in ultramotion.run(f"@{tmp_path}/list.txt", pipeline=pipeline)] == ["a.png"]


def test_an_export_as_it_comes(pipeline, tmp_path, caplog):
    """Folders in folders, with a text beside them: DICOM where there is no other image, in the library's order."""
    (tmp_path / "DICOM" / "SE1").mkdir(parents=True)
    (tmp_path / "README.TXT").write_text("an export")
    for name in ("IM2", "IM10"):
        made_file(tmp_path / "DICOM" / "SE1" / name, np.zeros((1, 32, 32), np.uint8))
    (tmp_path / ".cache").mkdir()
    for name in (".cache/IM1", "DICOM/.IM3"):  # as among images
        made_file(tmp_path / name, np.zeros((1, 32, 32), np.uint8))
    with pytest.raises(ultramotion.FileError, match="1 text"):
        ultramotion.run(tmp_path, pipeline=pipeline)
    caplog.clear()
    assert [p.source for p in ultramotion.run(tmp_path, pipeline=pipeline, recursive=True)] == ["IM2", "IM10"]
    assert "passed over: 1 that are not DICOM" in caplog.text
    ultramotion.image.write_png(str(tmp_path / "a.png"), np.zeros((32, 32), np.uint8))
    assert [p.source for p in ultramotion.run(tmp_path, pipeline=pipeline, recursive=True)] == ["a.png"]
    assert "passed over: 2 DICOM (ultramotion.run() of the Python package reads it, given without other images" in caplog.text


@pytest.mark.filterwarnings("ignore")
def test_a_folder_with_a_broken_file(pipeline, tmp_path, caplog):
    """As of images: what cannot be read is told and passed over, but not with `strict`, and not where it is all there is."""
    (tmp_path / "a.dcm").write_bytes(b"no DICOM")
    with pytest.raises(ultramotion.FormatError, match="a.dcm"):
        list(ultramotion.run(tmp_path, pipeline=pipeline))
    made_file(tmp_path / "b.dcm", np.zeros((2, 32, 32), np.uint8))
    made_file(tmp_path / "c.dcm", np.zeros((2, 32, 32), np.uint8), FrameTimeVector=["inf", "40"])
    caplog.clear()
    with ultramotion.run(tmp_path, pipeline=pipeline) as packets:
        assert [p.source for p in packets] == ["b.dcm"] * 2
        assert packets.stats["unreadable"] == 2
    assert "a.dcm" in caplog.text and "c.dcm: frame 0 of 2: ts inf" in caplog.text
    with pytest.raises(ultramotion.FormatError, match="a.dcm"):
        list(ultramotion.run(tmp_path, pipeline=pipeline, strict=True))


def test_gray_of_colour(tmp_path):
    arrays = np.zeros((1, 4, 4, 3), np.uint8)
    arrays[..., 0] = 200
    path = made_file(tmp_path / "a.dcm", arrays)
    assert next(frames(path)).numpy().shape == (4, 4, 3)
    assert next(frames(path, color=False)).numpy().tolist() == [[60] * 4] * 4


def test_files_that_are_none(tmp_path):
    (tmp_path / "text.dcm").write_text("no DICOM at all, but long enough to be one" * 10)
    with pytest.raises(ultramotion.FormatError, match="text.dcm: no DICOM file$"):
        list(frames(tmp_path / "text.dcm"))
    with pytest.raises(ultramotion.FileError):
        list(frames(tmp_path / "nothing.dcm"))
    Frame(np.zeros((8, 8), np.uint8)).save(tmp_path / "image.png")
    with pytest.raises(ultramotion.FormatError, match=r"image.png: no DICOM file: ultramotion.run\(\) reads it"):
        list(frames(tmp_path / "image.png"))
    with pytest.raises(ultramotion.FileError, match="a folder, want a DICOM file"):
        list(frames(tmp_path))
    os.mkfifo(tmp_path / "pipe.dcm")  # nobody writes into it
    with pytest.raises(ultramotion.FileError, match="pipe.dcm: not a regular file"):
        list(frames(tmp_path / "pipe.dcm"))
    path = made_file(tmp_path / "short.dcm", np.zeros((2, 64, 64), np.uint8))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ultramotion.FormatError, match="short.dcm"):
        list(frames(path))
    path = made_file(tmp_path / "one.dcm", np.zeros((2, 8, 8), np.uint8), PixelSpacing=["0.1"])
    with pytest.raises(ultramotion.FormatError, match="one.dcm"):
        list(frames(path))


@pytest.mark.filterwarnings("ignore")
def test_damaged_headers_raise_what_the_rest_of_a_folder_survives(tmp_path):
    tags = {"FrameTimeVector": [0, 40], "SequenceOfUltrasoundRegions": [region(0.01)], "WindowCenter": "9", "WindowWidth": "9"}
    whole = made_file(tmp_path / "a.dcm", np.zeros((2, 4, 4), np.uint8), AcquisitionDateTime="20010101120000", **tags).read_bytes()
    random, path = np.random.default_rng(4), tmp_path / "b.dcm"
    for at in range(132, len(whole), 7):
        path.write_bytes(whole[:at] + random.bytes(1) + whole[at + 1 :])
        try:
            list(frames(path, dates=True))
        except ultramotion.FormatError as problem:
            assert str(problem).count("b.dcm: ") == 1
    for wrong in ("nan", "inf"):
        with pytest.raises(ultramotion.FormatError, match="b.dcm: frame [01] of 2: ts .*finite"):
            list(frames(made_file(path, np.zeros((2, 4, 4), np.uint8), FrameTime=wrong)))


def single_frame(path, arrays, **tags):
    """A file of one image, without all that may be empty."""
    made_file(path, arrays, Modality="US", **tags)
    data = pydicom.dcmread(path)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.6.1"
    del data.NumberOfFrames
    data.save_as(path)
    return path


STUDY = {"StudyInstanceUID": "1.2.4", "SeriesInstanceUID": "1.2.5"}


@pytest.mark.filterwarnings("ignore")
def test_outlines_as_dicom_seg(device, tmp_path):
    hd = pytest.importorskip("highdicom")
    phantom = next(ultramotion.run("phantom:seed=900012,frames=1,width=200,height=160", detector=ultramotion.Detector(device=device), segmenter=False))
    arrays = phantom.frame.numpy()[None].copy()
    path = single_frame(tmp_path / "scan.dcm", arrays, **STUDY)
    with ultramotion.Pipeline(ultramotion.Detector(device=device), device=device, objects=3, conf=0.0) as own:
        packet = own(next(frames(path)))
        masks = [o.mask for o in packet.objects if o.mask.any()]
        assert len(masks) == 3
        ultramotion.dicom.save_segmentation(packet, path, tmp_path / "seg.dcm")
        written = pydicom.dcmread(tmp_path / "seg.dcm")
        assert np.array_equal(written.pixel_array > 0, masks)
        assert written.SegmentSequence[0].SegmentLabel == "bone" and written.StudyInstanceUID == "1.2.4"
        with pytest.raises(ultramotion.InvalidError, match="scan.dcm is also the input"):
            ultramotion.dicom.save_segmentation(packet, path, path)
        theirs = hd.seg.segread(tmp_path / "seg.dcm")
        got = theirs.get_pixels_by_source_instance(["1.2.3"], combine_segments=False)
        assert theirs.number_of_segments == 3 and np.array_equal(np.moveaxis(got[0], 2, 0) > 0, masks)
        for text in ("bone", "tendon", ("272673000", "SCT", "Bone")):  # of a text highdicom made a code of its letters
            with pytest.raises(ultramotion.InvalidError, match="structure .*: want a pydicom Code"):
                ultramotion.dicom.save_segmentation(packet, path, tmp_path / "no.dcm", structure=text)
        tendon = pydicom.sr.codedict.codes.SCT.Tendon
        ultramotion.dicom.save_segmentation(packet, path, tmp_path / "seg.dcm", structure=tendon)
        assert pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tendon"
        whole, random = path.read_bytes(), np.random.default_rng(6)
        (tmp_path / "cut.dcm").write_bytes(whole[:300])
        with pytest.raises(ultramotion.FormatError, match="cut.dcm: no image, or it was cut off"):
            ultramotion.dicom.save_segmentation(packet, tmp_path / "cut.dcm", tmp_path / "no.dcm")
        for at in range(132, whole.index(b"\xe0\x7f\x10\x00"), 11):
            (tmp_path / "cut.dcm").write_bytes(whole[:at] + random.bytes(1) + whole[at + 1 :])
            with contextlib.suppress(ultramotion.Error):
                ultramotion.dicom.save_segmentation(packet, tmp_path / "cut.dcm", tmp_path / "damaged.dcm")
        own.set(conf=1.0)
        with pytest.raises(ultramotion.InvalidError, match="without outlines"):
            ultramotion.dicom.save_segmentation(own(np.zeros(packet.mask.shape, np.uint8)), path, tmp_path / "no.dcm")
        for several in (examples.get_path("ybr_color"), made_file(tmp_path / "m.dcm", arrays.repeat(2, 0), FrameOfReferenceUID="1.2.9")):
            with pytest.raises(ultramotion.UnsupportedError, match="frame of reference"):
                ultramotion.dicom.save_segmentation(packet, several, tmp_path / "no.dcm")
        with pytest.raises(ultramotion.FormatError, match="lone.dcm.*StudyInstanceUID"):
            ultramotion.dicom.save_segmentation(packet, single_frame(tmp_path / "lone.dcm", arrays), tmp_path / "no.dcm")
    assert not (tmp_path / "no.dcm").exists()
