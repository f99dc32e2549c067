# SPDX-License-Identifier: Apache-2.0
"""Small weight files for tests/test_weights.c: python3 tests/gen/weights.py [folder]

Made with torch 2.x, numpy and safetensors. Every tensor named t holds value(i) = ((7 i + 3) mod 11 - 5) / 4 in row-major order,
which all floating types represent exactly; integer tensors hold 4 times that, unsigned and bool ones its magnitude.
"""
import argparse
import collections
import datetime
import io
import pathlib
import pickle
import struct
import sys
import zipfile

import numpy
import torch
from safetensors.torch import save_file

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent / "golden" / "weights")


def quarter(n):
    return torch.tensor([(7 * i + 3) % 11 - 5 for i in range(n)], dtype=torch.int64)


def values(*shape, dtype=torch.float32):
    n = 1
    for d in shape:
        n *= d
    v = quarter(n)
    if dtype.is_floating_point:
        v = v.double() / 4
    elif dtype in (torch.uint8, torch.bool):
        v = v.abs()
    return v.to(dtype).reshape(shape)


TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "f64": torch.float64, "i64": torch.int64,
         "i32": torch.int32, "i16": torch.int16, "i8": torch.int8, "u8": torch.uint8, "bool": torch.bool}


def all_types():
    d = {f"type.{k}": values(2, 3, dtype=t) for k, t in TYPES.items()}
    d["scalar"] = values(dtype=torch.float32)
    d["empty"] = values(0, 3)
    return d


def torch_state():
    d = collections.OrderedDict(all_types())
    d["transposed"] = values(4, 3).t().contiguous().t()  # [4,3] with strides 1, 4
    whole = values(30)
    d["window"] = whole[5:17].reshape(3, 4)  # offset 5 in a storage of 30
    d["step"] = whole[::2]                   # stride 2
    shared = values(6)
    d["shared.a"] = shared
    d["shared.b"] = shared.reshape(2, 3)
    d["broadcast"] = values(1).expand(3, 2)  # strides 0
    d["parameter"] = torch.nn.Parameter(values(2, 2))
    return d


def repack(data, how):
    """The same archive, its entries deflated; names and order kept."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as a, zipfile.ZipFile(out, "w", how) as b:
        for name in a.namelist():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = how
            b.writestr(info, a.read(name))
    return out.getvalue()


def archive(pickled, storages):
    """A torch archive round a pickle made by hand."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as z:
        for name, data in [("x/data.pkl", pickled), *[(f"x/data/{k}", v) for k, v in storages.items()]]:
            z.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return out.getvalue()


def streamed(pickled, storages):
    """The same, written to a pipe: sizes follow the data (data descriptors)."""
    class Pipe(io.RawIOBase):
        def __init__(self):
            self.bytes = bytearray()

        def writable(self):
            return True

        def write(self, b):
            self.bytes += b
            return len(b)

    out = Pipe()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in [("x/data.pkl", pickled), *[(f"x/data/{k}", v) for k, v in storages.items()]]:
            z.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return bytes(out.bytes)


def saved(obj, **kw):
    out = io.BytesIO()
    torch.save(obj, out, **kw)
    return out.getvalue()


def dict_of(name, value):
    """{name: value} where value is raw pickle."""
    return b"\x80\x02}" + b"X" + struct.pack("<I", len(name)) + name.encode() + value + b"s."


# _rebuild_tensor_v2(('storage', FloatStorage, '0', 'cpu', 2), 0, (2,), (1,), False, OrderedDict())
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0" + b"0X\x03\0\0\0cpuK\x02tQ"
REST = b"K\x00K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)Rt"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + REST + b"R"
TWO = struct.pack("<2f", -0.5, 1.25)



def main():
    torch.manual_seed(0)
    OUT.mkdir(parents=True, exist_ok=True)

    def put(name, data):
        (OUT / name).write_bytes(data)

    save_file(all_types(), OUT / "types.safetensors", metadata={"input_size": "320", "note": "größer"})
    state = torch_state()
    put("state.pt", saved(state))
    put("state_deflated.pt", repack(saved(state), zipfile.ZIP_DEFLATED))
    for protocol in (3, 4, 5):
        put(f"protocol{protocol}.pt", saved({"model": all_types()}, pickle_protocol=protocol))

    w = {k: values(2, 3) for k in ("a.weight",)}
    other = {"b.weight": values(2)}
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    put("training.pth", saved({
        "date": datetime.datetime(2026, 1, 1), "last_epoch": 7, "loss": 0.25, "big": 1 << 80, "none": None, "flag": True,
        "path": pathlib.PurePosixPath("a/b"), "args": argparse.Namespace(lr=1e-3), "score": numpy.float64(0.5), "set": {1, 2},
        "model": other, "ema": {"module": {"module." + k: v for k, v in w.items()}, "updates": 12},
        "optimizer": optimizer.state_dict(), "size": torch.Size([1, 2]), "dtype": torch.float16}))
    for key in ("model", "state_dict", "model_state_dict", "weights", "net"):
        put(f"wrap_{key}.pt", saved({"epoch": 1, key: w, "optimizer": optimizer.state_dict()}))

    put("hand.pt", archive(dict_of("a", TENSOR), {"0": TWO}))
    put("streamed.pt", streamed(dict_of("a", TENSOR), {"0": TWO}))
    put("bad_short_storage.pt", archive(dict_of("a", TENSOR), {"0": TWO[:4]}))
    put("bad_no_storage.pt", archive(dict_of("a", TENSOR), {"1": TWO}))
    put("bad_offset.pt", archive(dict_of("a", TENSOR.replace(b"QK\x00K\x02", b"QK\x01K\x02")), {"0": TWO}))
    put("bad_stride.pt", archive(dict_of("a", TENSOR.replace(b"\x85K\x01\x85", b"\x85K\x02\x85")), {"0": TWO}))
    put("bad_builder.pt", archive(dict_of("a", TENSOR.replace(b"_rebuild_tensor_v2", b"_rebuild_sparse_tensor")), {"0": TWO}))
    put("bad_storage_type.pt", archive(dict_of("a", TENSOR.replace(b"FloatStorage", b"QInt8Storage")), {"0": TWO}))
    put("evil_system.pt", archive(dict_of("a", b"cposix\nsystem\nX\x04\0\0\0true\x85R"), {}))
    put("evil_eval.pt", archive(dict_of("a", b"cbuiltins\neval\nX\x01\0\0\x001\x85R"), {}))
    put("evil_in_tensor.pt", archive(dict_of("a", b"csome.module\nmake\n(" + STORAGE + b"tR"), {"0": TWO}))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as z:
        for name, data in (("x/data.pkl", dict_of("a", TENSOR)), ("x/byteorder", b"big"), ("x/data/0", TWO)):
            z.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    put("bad_order.pt", out.getvalue())
    put("bad_legacy.pt", saved({"a": values(2)}, _use_new_zipfile_serialization=False))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as z:
        for name in ("x/data.pkl", "x/constants.pkl", "x/code/__torch__.py"):
            z.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), pickle.dumps({}, protocol=2))
    put("bad_script.pt", out.getvalue())
    put("bad_object.pt", archive(b"\x80\x02csome.model\nNet\n)\x81}b.", {}))

    # A corner of D-FINE as Hugging Face spells it, in files and (transformers 5) in memory.
    hf = {
        "model.backbone.model.embedder.stem1.convolution.weight": values(2, 3, 3, 3),
        "model.backbone.model.encoder.stages.0.blocks.0.aggregation.1.normalization.running_var": values(2),
        "model.backbone.model.encoder.stages.1.downsample.convolution.weight": values(2, 1, 3, 3),
        "model.encoder_input_proj.1.0.weight": values(2, 4, 1, 1),
        "model.encoder_input_proj.1.1.running_mean": values(2),
        "model.encoder.encoder.0.layers.0.self_attn.out_proj.weight": values(2, 2),
        "model.encoder.encoder.0.layers.0.fc1.weight": values(4, 2),
        "model.encoder.encoder.0.layers.0.self_attn_layer_norm.bias": values(2),
        "model.encoder.encoder.0.layers.0.final_layer_norm.bias": values(2),
        "model.encoder.fpn_blocks.0.csp_rep2.bottlenecks.1.conv2.conv.weight": values(1, 1, 1, 1),
        "model.encoder.pan_blocks.0.conv3.norm.weight": values(1),
        "model.encoder.downsample_convs.0.conv2.conv.weight": values(2, 1, 3, 3),
        "model.decoder.layers.2.encoder_attn.sampling_offsets.bias": values(4),
        "model.decoder.layers.2.final_layer_norm.bias": values(2),
        "model.decoder.layers.2.fc2.weight": values(2, 4),
        "model.decoder.lqe_layers.0.reg_conf.layers.1.bias": values(1),
        "model.decoder.class_embed.0.bias": values(3),
        "model.decoder.reg_scale": values(1),
        "model.enc_output.1.weight": values(2),
        "model.enc_score_head.bias": values(3),
    }
    qkv = values(6, 2)
    for i, c in enumerate("qkv"):
        hf[f"model.decoder.layers.2.self_attn.{c}_proj.weight"] = qkv[2 * i:2 * i + 2].clone()
    save_file(hf, OUT / "hf_file.safetensors")
    swap = [("out_proj", "o_proj"), ("layers.0.fc1", "layers.0.mlp.layers.0"), ("layers.2.fc2", "layers.2.mlp.layers.1"),
            ("encoder.encoder.0.layers", "encoder.aifi.0.layers")]
    memory = {}
    for k, v in hf.items():
        for a, b in swap:
            k = k.replace(a, b)
        memory[k] = v
    memory["class_embed.0.bias"] = values(3)
    memory["bbox_embed.0.layers.0.bias"] = values(2)
    save_file(memory, OUT / "hf_memory.safetensors")


if __name__ == "__main__":
    main()
