# SPDX-License-Identifier: Apache-2.0
"""Tensors out and in by DLPack, without a copy, in any order of dying."""
import gc
import os

import numpy as np
import pytest

import ultramotion
from conftest import BOX, ROOT
from ultramotion.image import Pixels

NUMPY = tuple(int(n) for n in np.__version__.split(".")[:2])


@pytest.fixture
def embedding(segmenter, image):
    return segmenter.encode(image)


@pytest.fixture
def made(segmenter, embedding):
    return segmenter.predict(embedding, box=BOX, multimask=True, as_numpy=False)


def address(array):
    return array.__array_interface__["data"][0]


def memory_mib():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_pointers_are_equal_on_the_way_out(made):
    assert address(np.asarray(made.masks)) == made.masks.data_ptr()
    assert address(np.from_dlpack(made.scores)) == made.scores.data_ptr()
    assert made.masks.__dlpack_device__() == (1, 0)


def test_pointers_are_equal_on_the_way_in():
    pixels = np.zeros((40, 50, 3), np.uint8)
    assert address(ultramotion.Frame(pixels).numpy()) == address(pixels)
    assert Pixels(pixels).image.data == address(pixels)
    pixels[3, 4, 1] = 77
    assert ultramotion.Frame(pixels).numpy()[3, 4, 1] == 77


def test_pytorch_takes_and_gives_without_a_copy(made):
    torch = pytest.importorskip("torch")
    mask = torch.from_dlpack(made.masks)
    assert mask.data_ptr() == made.masks.data_ptr() and mask.dtype == torch.bool
    assert tuple(mask.shape) == made.masks.shape
    pixels = torch.zeros((40, 50, 3), dtype=torch.uint8)
    assert ultramotion.Frame(pixels).numpy().ctypes.data == pixels.data_ptr()
    assert Pixels(pixels).image.data == pixels.data_ptr()
    floats = torch.rand(1, 3, 40, 50, requires_grad=True)
    assert Pixels(floats).image.data == floats.data_ptr()


def test_pytorch_images_and_boxes(segmenter, image):
    torch = pytest.importorskip("torch")
    want = ultramotion.run_segmentation(segmenter, image, BOX, as_numpy=True)
    rgb = torch.from_numpy(np.repeat(image[..., None], 3, 2))
    for form in (torch.from_numpy(image), rgb, rgb.permute(2, 0, 1)[None], rgb.permute(2, 0, 1).contiguous()):
        assert np.array_equal(ultramotion.run_segmentation(segmenter, form, torch.tensor(BOX), as_numpy=True), want)


def test_a_mask_outlives_everything(image):
    device = ultramotion.Device("cpu", threads=1)
    model = ultramotion.Segmenter(device=device, canvas=64)
    predictor = ultramotion.SamPredictor(model)
    predictor.set_image(image)
    masks, _, low = predictor.predict(box=BOX)
    want, view, capsule = masks.numpy().copy(), np.asarray(masks), low.__dlpack__()
    del predictor, masks, low
    model.close()
    device.close()
    gc.collect()
    assert np.array_equal(view, want)
    del capsule, view
    gc.collect()


@pytest.mark.parametrize("versions", [None, (1, 0)])
def test_a_capsule_that_nobody_takes_is_freed(segmenter, versions):
    embedding = segmenter.encode(np.zeros((2048, 2048), np.uint8))
    box = [10, 10, 2000, 2000]
    for i in range(40):
        masks = segmenter.predict(embedding, box=box, logits=True, as_numpy=False).masks  # 16 MiB
        masks.__dlpack__(max_version=versions)
        taken = np.from_dlpack(masks)
        del masks, taken
        if i == 4:
            before = memory_mib()
    assert memory_mib() < before + 100


def test_embeddings_are_read_only(embedding):
    tensor = embedding.tensor
    assert tensor.read_only
    with pytest.raises(BufferError, match="read-only"):
        tensor.__dlpack__()
    assert not np.asarray(tensor).flags.writeable
    assert tensor.__dlpack__(max_version=(1, 0)) is not None
    if NUMPY >= (2, 1):
        view = np.from_dlpack(tensor)
        assert not view.flags.writeable and address(view) == tensor.data_ptr()


def test_what_dlpack_asks_for_and_cannot_have(made):
    with pytest.raises(BufferError, match="stream 7"):
        made.masks.__dlpack__(stream=7)
    with pytest.raises(BufferError, match="without a copy"):
        made.masks.__dlpack__(dl_device=(2, 0))
    made.masks.__dlpack__(stream=-1)
    if NUMPY >= (2, 1):
        copied = np.from_dlpack(made.scores, copy=True)
        assert address(copied) != made.scores.data_ptr() and np.array_equal(copied, made.scores.numpy())


def test_memory_of_the_guard_is_not_touched(image):
    model = ultramotion.Segmenter(device="guard", canvas=64)
    mask = ultramotion.run_segmentation(model, image, BOX)
    for touch in (mask.__dlpack__, lambda: mask[0], lambda: mask & mask, lambda: bool(mask)):
        with pytest.raises((BufferError, TypeError), match="guard"):
            touch()
    assert not hasattr(mask, "permute") and not hasattr(mask, "sum")
    before = model.device.transfers["down"]
    assert mask.numpy().shape == (1, 1, *image.shape)
    assert model.device.transfers["down"] == before + 1


def test_a_tensor_in_host_memory_works_as_an_array(made):
    masks, scores = made.masks, made.scores
    assert masks[0].shape == masks.shape[1:] and masks[np.argmax(scores), :, :].dtype == bool
    assert len(masks) == 3 and [m.shape for m in masks] == [masks.shape[1:]] * 3
    assert f"{scores[0]:.3f}" and float(scores[:1].sum()) == float(scores[0])
    assert (masks & ~masks).sum() == 0 and (scores * 2).shape == (3,)
    assert masks.reshape(3, -1).any(axis=1).shape == (3,)
    assert masks.cpu() is masks and masks.dim() == 3 and not masks.is_cuda
    assert np.asarray(masks, np.uint8).dtype == np.uint8
    ones = np.ones(masks.shape)
    assert ones.sum(where=masks) == np.add(ones, 0, where=masks, out=np.zeros(masks.shape)).sum() == masks.sum()


def test_what_pytorchs_tensors_have_leads_to_them(made):
    with pytest.raises(AttributeError, match="Tensor has no 'float': torch.from_dlpack"):
        made[0].float()
    assert not hasattr(made[0], "permute") and hasattr(made[0], "squeeze")


def test_a_tensor_is_changed_in_place(embedding):
    import copy

    mask = ultramotion.run_segmentation(ultramotion.Segmenter(device="cpu", canvas=64), np.zeros((20, 30), np.uint8))
    kept, other = copy.copy(mask), copy.deepcopy(mask)
    same = mask
    mask |= np.ones((1, 1, 20, 30), bool)
    assert mask is same and mask.sum() == 600 and True in mask
    mask[..., :10] = False
    assert int(mask.sum()) == 400 and kept.sum() == other.sum() != 400
    with pytest.raises(ValueError, match="read-only"):
        embedding.tensor[:] = 0


# ---- a GPU: the driver's stand-in, which finds work that nobody ordered ----

STANDIN = """
import ctypes, numpy as np, ultramotion as um
from ultramotion.image import Pixels
driver = ctypes.CDLL({standin!r})
P = ctypes.c_void_p
class Cu:
    def __getattr__(self, name):
        function = P()
        assert driver.cuGetProcAddress_v2(name.encode(), ctypes.byref(function), 12040, ctypes.c_uint64(0), None) == 0, name
        return ctypes.CFUNCTYPE(ctypes.c_int)(function.value)
cu = Cu()
device = um.Device("cuda:0", precision="fp32")
model = um.Segmenter(device=device, canvas=32)
pixels = np.tile(np.arange(96, dtype=np.uint8), (80, 1))
box = [10, 10, 60, 60]
context = P()
assert cu.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
assert cu.cuCtxSetCurrent(context) == 0

class Theirs:
    '''A tensor on the GPU whose pixels are still on their way, in a stream of its own.'''
    def __init__(self):
        self.stream, self.event, self.data = P(), P(), ctypes.c_uint64()
        assert cu.cuStreamCreateWithPriority(ctypes.byref(self.stream), 1, 0) == 0
        assert cu.cuEventCreate(ctypes.byref(self.event), 2) == 0
        assert cu.cuMemAlloc(ctypes.byref(self.data), ctypes.c_size_t(pixels.size)) == 0
        self.pinned = P()
        assert cu.cuMemHostAlloc(ctypes.byref(self.pinned), ctypes.c_size_t(pixels.size), 0) == 0
        ctypes.memmove(self.pinned, pixels.ctypes.data, pixels.size)
        assert cu.cuMemcpyHtoDAsync(self.data, self.pinned, ctypes.c_size_t(pixels.size), self.stream) == 0
"""


def standin(python, text):
    found = os.path.join(os.path.dirname(os.environ.get("ULTRAMOTION_LIBRARY", str(ROOT / "build" / "x"))), "libum_standin_cuda.so")
    if not os.path.exists(found):
        pytest.skip("no stand-in of the driver beside the library")
    return python(STANDIN.format(standin=found) + text, ULTRAMOTION_CUDA_DRIVER=found)


def test_on_a_gpu_the_consumers_stream_waits_for_ours(python):
    out = standin(
        python,
        """
embedding = model.encode(pixels)
want = model.predict(embedding, box=box).masks.numpy()[0]
them, copied = Theirs(), P()
assert cu.cuMemHostAlloc(ctypes.byref(copied), ctypes.c_size_t(pixels.size), 0) == 0
made = model.predict(embedding, box=box)  # on its way: nobody has waited, and nothing is freed, which waits too
mask = made.masks
assert mask.is_cuda and mask.__dlpack_device__() == (2, 0), mask
assert mask.__cuda_array_interface__["data"][0] == mask.data_ptr()
assert mask.__cuda_array_interface__["stream"] == mask._stream
capsule = mask.__dlpack__(stream=them.stream.value)
assert cu.cuMemcpyDtoHAsync(copied, ctypes.c_uint64(mask.data_ptr()), ctypes.c_size_t(pixels.size), them.stream) == 0
assert cu.cuStreamSynchronize(them.stream) == 0, "work that nobody ordered"
got = np.frombuffer(ctypes.string_at(copied, pixels.size), bool).reshape(pixels.shape)
assert np.array_equal(got, want)
mask.__dlpack__(stream=-1, max_version=(1, 0))

# a graph that the consumer captures: it waits at each launch for what was on its way then
target, graph, exec = ctypes.c_uint64(), P(), P()
assert cu.cuMemAlloc(ctypes.byref(target), ctypes.c_size_t(pixels.size)) == 0
made = model.predict(embedding, box=box)
mask = made.masks
del capsule  # no memory may be freed in a capture
assert cu.cuStreamBeginCapture(them.stream, 1) == 0
capsule = mask.__dlpack__(stream=them.stream.value)
assert cu.cuMemcpyDtoDAsync(target, ctypes.c_uint64(mask.data_ptr()), ctypes.c_size_t(pixels.size), them.stream) == 0
assert cu.cuStreamEndCapture(them.stream, ctypes.byref(graph)) == 0, "the capture did not survive"
assert cu.cuGraphInstantiateWithFlags(ctypes.byref(exec), graph, ctypes.c_ulonglong(0)) == 0
for _ in range(2):
    assert cu.cuGraphLaunch(exec, them.stream) == 0
    assert cu.cuMemcpyDtoHAsync(copied, target, ctypes.c_size_t(pixels.size), them.stream) == 0
    assert cu.cuStreamSynchronize(them.stream) == 0, "work that nobody ordered"
    assert np.array_equal(np.frombuffer(ctypes.string_at(copied, pixels.size), bool).reshape(pixels.shape), want)
for wrong in (lambda: mask.__dlpack__(stream=0), lambda: mask.__dlpack__(copy=True)):
    try:
        wrong()
        raise SystemExit("not refused")
    except BufferError as problem:
        pass
print("done")
""",
    )
    assert out == "done\n"


def test_on_a_gpu_ours_waits_for_a_delayed_producer(python):
    out = standin(
        python,
        """
from ultramotion import _c
class Managed(ctypes.Structure):
    _fields_ = [("tensor", _c.DLTensor), ("context", P), ("deleter", P)]
class Dlpack(Theirs):
    def __dlpack_device__(self):
        return (2, 0)
    def __dlpack__(self, stream=None, max_version=None):
        assert stream == um.models.lib.um_device_stream(device._handle._pointer), stream
        assert cu.cuEventRecord(self.event, self.stream) == 0
        assert cu.cuStreamWaitEvent(P(stream), self.event, 0) == 0
        self.shape, self.strides = (ctypes.c_int64 * 2)(*pixels.shape), (ctypes.c_int64 * 2)(pixels.shape[1], 1)
        self.managed = Managed()
        t = self.managed.tensor
        t.data, t.device_type, t.device_id, t.ndim, t.code, t.bits, t.lanes = self.data.value, 2, 0, 2, 1, 8, 1
        t.shape, t.strides = ctypes.addressof(self.shape), ctypes.addressof(self.strides)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [P, ctypes.c_char_p, P]
        return new(ctypes.addressof(self.managed), b"dltensor", None)
class Interface(Theirs):
    @property
    def __cuda_array_interface__(self):
        return dict(version=3, shape=pixels.shape, typestr="|u1", data=(self.data.value, False), stream=self.stream.value, strides=None)
want = model.encode(pixels).tensor.numpy()
up = device.transfers["up_bytes"]
for kind in (Dlpack, Interface):
    theirs = kind()
    got = model.encode(theirs)
    assert np.array_equal(got.tensor.numpy(), want), kind
    assert Pixels(theirs, um.models.lib.um_device_stream(device._handle._pointer)).image.data == theirs.data.value
assert device.transfers["up_bytes"] - up < 2 * pixels.size, "the pixels went through the host"

# a producer that is capturing: nobody can read its pixels before its graph is launched, which is said, and nothing breaks
theirs, graph = Dlpack(), P()
assert cu.cuStreamSynchronize(theirs.stream) == 0
assert cu.cuStreamBeginCapture(theirs.stream, 1) == 0
try:
    model.encode(theirs)
    raise SystemExit("not refused")
except um.InvalidError as problem:
    assert "captur" in str(problem), problem
cu.cuStreamEndCapture(theirs.stream, ctypes.byref(graph))
assert np.array_equal(model.encode(pixels).tensor.numpy(), want)
print("done")
""",
    )
    assert out == "done\n"


def test_tensors_of_every_type_are_frames_too(image):
    torch = pytest.importorskip("torch")
    values = torch.from_numpy(image / np.float32(255))
    bf16 = values.bfloat16()
    assert np.array_equal(ultramotion.Frame(bf16).numpy(), ultramotion.Frame(bf16.float().numpy()).numpy())
    for wrong in (values.to_sparse(), values.to("meta"), [[1, 2], [3]]):
        with pytest.raises(ultramotion.InvalidError, match="cannot be handed over"):
            ultramotion.Frame(wrong)
