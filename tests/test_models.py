#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What users bring as models, and what they are told. Files are made of the shipped ones; the boxes are those of upstream's code in
PyTorch for the same weights. Standard library only. Usage: test_models.py COMMAND [TEST]..."""

import json
import math
import re
import struct
import zipfile

from command import DETECTOR, ROOT, SEGMENTER, gray, lines, main, png, test, um

FRAMES = [ROOT / f"tests/golden/end_to_end/phantom_{i}.png" for i in range(3)]
BOX = ["--box", "130,127,379,510"]
SIZES = {"F32": 4, "F16": 2, "I64": 8, "BOOL": 1, "U8": 1}
STORAGES = {"F32": "Float", "F16": "Half", "I64": "Long", "BOOL": "Bool", "U8": "Byte"}


# ---- files; a tensor is (type, shape, bytes) ----

def read(path):
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + size])
    meta = header.pop("__metadata__", {})
    cut = lambda span: raw[8 + size + span[0]:8 + size + span[1]]
    return meta, {k: (v["dtype"], v["shape"], cut(v["data_offsets"])) for k, v in header.items()}


def write(path, tensors, meta=None):
    header, at = {"__metadata__": meta} if meta else {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))
    return path


def write_torch(path, value):
    """As torch.save(): nested dicts and lists of tensors and numbers, and objects, of which a text says the class."""
    storages = []

    def text(s):
        return b"X" + struct.pack("<I", len(s.encode())) + s.encode()

    def number(n):
        return b"J" + struct.pack("<i", n)

    def pickled(v):
        if isinstance(v, dict):
            return b"}(" + b"".join(text(k) + pickled(x) for k, x in v.items()) + b"u"
        if isinstance(v, int):
            return number(v)
        if isinstance(v, list):
            return b"](" + b"".join(map(pickled, v)) + b"e"
        if isinstance(v, str):
            return b"c" + v.replace(".", "\n").encode() + b"\n)\x81"
        dtype, shape, data = v
        strides = [math.prod(shape[i + 1:]) for i in range(len(shape))]
        storages.append(data)
        return (b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + f"ctorch\n{STORAGES[dtype]}Storage\n".encode() +
                text(str(len(storages) - 1)) + text("cpu") + number(len(data) // SIZES[dtype]) + b"tQ" + number(0) + b"(" +
                b"".join(map(number, shape)) + b"t(" + b"".join(map(number, strides)) + b"t\x89ccollections\nOrderedDict\n)RtR")

    pickle = b"\x80\x02" + pickled(value) + b"."
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("archive/data.pkl", pickle)
        for i, data in enumerate(storages):
            z.writestr(f"archive/data/{i}", data)
    return path


def floats(*values):
    return "F32", [len(values)], struct.pack(f"<{len(values)}f", *values)


def noise(*shape):
    n = math.prod(shape)
    return "F32", list(shape), struct.pack(f"<{n}f", *(((7 * i + 3) % 11 - 5) / 20 for i in range(n)))


def anchors(width, height):
    """decoder.anchors of D-FINE-N: logits of each cell's centre and size, the finer level first."""
    out = []
    for level, stride in enumerate((16, 32)):
        w, h, side = width // stride, height // stride, 0.05 * 2**level
        for y in range(h):
            for x in range(w):
                box = ((x + 0.5) / w, (y + 0.5) / h, side, side)
                out += [math.log(a / (1 - a)) if all(0.01 < b < 0.99 for b in box) else math.inf for a in box]
    return "F32", [1, len(out) // 4, 4], struct.pack(f"<{len(out)}f", *out)


def detector():
    return read(DETECTOR)[1]


def segmenter():
    return read(SEGMENTER)[1]


def two_classes(path, names, bias=0.0):
    """The second is found wherever the first is, with a score that the first passes where it is sure enough: at this bias."""
    tensors = detector()
    for name, (dtype, shape, data) in tensors.items():
        if "score_head" in name or "denoising_class" in name:
            new = data if "dec_" not in name else struct.pack("<e", bias) if name.endswith("bias") else bytes(len(data))
            new = data[:len(data) // shape[0]] if "denoising" in name else new
            tensors[name] = dtype, [shape[0] + 1, *shape[1:]], data + new
    return write(path, tensors, {"input_size": "320", "classes": names})


HUGGING_FACE = [  # upstream's spelling, the other's
    (r"^backbone\.stem\.", "model.backbone.model.embedder."), (r"^backbone\.", "model.backbone.model.encoder."),
    (r"^encoder\.input_proj\.(\d)\.conv\.", r"model.encoder_input_proj.\1.0."),
    (r"^encoder\.input_proj\.(\d)\.norm\.", r"model.encoder_input_proj.\1.1."),
    (r"^(encoder\.\w+_blocks\.\d)\.cv1\.", r"model.\1.conv1."), (r"^(encoder\.\w+_blocks\.\d)\.cv4\.", r"model.\1.conv4."),
    (r"^(encoder\.\w+_blocks\.\d)\.cv2\.0\.", r"model.\1.csp_rep1."), (r"^(encoder\.\w+_blocks\.\d)\.cv2\.1\.", r"model.\1.conv2."),
    (r"^(encoder\.\w+_blocks\.\d)\.cv3\.0\.", r"model.\1.csp_rep2."), (r"^(encoder\.\w+_blocks\.\d)\.cv3\.1\.", r"model.\1.conv3."),
    (r"^encoder\.downsample_convs\.(\d)\.0\.cv(\d)\.", r"model.encoder.downsample_convs.\1.conv\2."), (r"^encoder\.", "model.encoder."),
    (r"^decoder\.enc_output\.proj\.", "model.enc_output.0."), (r"^decoder\.enc_output\.norm\.", "model.enc_output.1."),
    (r"^decoder\.(enc_score_head|enc_bbox_head|denoising_class_embed)\.", r"model.\1."),
    (r"^decoder\.dec_score_head\.", "model.decoder.class_embed."), (r"^decoder\.dec_bbox_head\.", "model.decoder.bbox_embed."),
    (r"^decoder\.decoder\.(layers|lqe_layers)\.", r"model.decoder.\1."), (r"^decoder\.", "model.decoder."),
]  # fmt: skip


def hugging_face(tensors):
    """A D-FINE as transformers saves it: its names, and q, k, v apart."""
    out = {}
    for name, (dtype, shape, data) in tensors.items():
        if re.match(r"decoder\.(anchors|valid_mask|decoder\.up|decoder\.reg_scale)|.*num_(batches_tracked|points_scale)", name):
            continue
        for pattern, to in HUGGING_FACE:
            renamed, n = re.subn(pattern, to, name)
            if n:
                break
        if ".backbone." in renamed:
            renamed = renamed.replace(".conv.", ".convolution.").replace(".bn.", ".normalization.")
        elif re.search(r"(en|de)coder(\.encoder\.0)?\.layers\.\d", renamed):
            last = "norm2" if ".encoder.encoder." in renamed else "norm3"
            for a, b in (("cross_attn", "encoder_attn"), ("norm1", "self_attn_layer_norm"), (last, "final_layer_norm"), ("linear1", "fc1"),
                         ("linear2", "fc2")):
                renamed = renamed.replace(f".{a}.", f".{b}.")
        if "in_proj_" in renamed:
            for i, part in enumerate("qkv"):
                third = len(data) // 3
                key = renamed.replace("in_proj_", f"{part}_proj.")
                out[key] = dtype, [shape[0] // 3, *shape[1:]], data[i * third:(i + 1) * third]
        else:
            out[renamed] = dtype, shape, data
    return out


# ---- what is found ----

def best(frame, *options):
    """Box and score of the best detection."""
    found = lines(um("detect", frame, *options, "--conf", "0")[0])[0]["boxes"][0]
    return found["box_xyxy"], found["score"], found


def near(frame, box, score, *options, slack=0.02):
    got, s, _ = best(frame, *options)
    want = [min(max(v, 0), limit) for v, limit in zip(box, (422, 558, 422, 558))]
    assert all(abs(a - b) < slack for a, b in zip(got, want)) and abs(s - score) < 2e-4, f"{got} {s}, want {want} {score}"


def refused(file, *words, role="--detector"):
    """One sentence: the file, what it is, what was expected, what to do."""
    arguments = ["detect", FRAMES[0]] if role == "--detector" else ["segment", FRAMES[0], *BOX]
    _, err = um(*arguments, role, file, code=1)
    assert err.count("\n") == 1 and err.startswith(f"ultramotion: {file}") and ", want " in err and "; " in err, err
    for word in words:
        assert word in err, f"{word}: {err}"
    return err


PLAIN = ([130.17, 127.38, 379.42, 510.58], 0.9903)


def mask(*options):
    out, _ = um("segment", FRAMES[0], *BOX, "-o", "jsonl:-", *options)
    return lines(out)[0]["mask"]


@test
def additions_to_a_segmenter_are_refused(tmp):
    whole = segmenter()
    block = "image_encoder.layers.1.blocks.0."
    added = {
        "adapter": [block + "MLP_Adapter.D_fc1.weight"], "lora": [block + "attn.qkv.lora_A", block + "attn.qkv.lora_B"],
        "tokens": ["mask_decoder.hf_token.weight"], "prompt": ["prompt_encoder.mask_adapter.weight"],
    }  # fmt: skip
    for kind, names in added.items():
        file = write_torch(tmp / f"{kind}.pt", {**whole, **{n: noise(4, 4) for n in names}})
        assert f"tensor {names[0]} is none" in refused(file, role="--segmenter")
    known = {"image_encoder.head.weight": noise(4, 4), "image_encoder.norm_head.bias": noise(4), "pixel_mean": noise(3), "pixel_std": noise(3),
             block + "attn.ab": noise(4, 4), block + "local_conv.bn.num_batches_tracked": ("I64", [], bytes(8)),
             block + "mlp.total_ops": noise(1)}
    assert mask("--segmenter", write_torch(tmp / "known.pt", {**whole, **known}), "--sam-size", "256") == mask()


@test
def additions_to_a_detector_are_refused(tmp):
    for name in ("decoder.decoder.layers.0.linear1.lora_A", "decoder.dec_score_head.0.adapter.weight", "decoder.tgt_embed.weight",
                 "encoder.encoder.0.layers.1.norm1.bias"):
        refused(write_torch(tmp / "more.pth", {"model": {**detector(), name: noise(4, 4)}}), f"tensor {name} is none")
    counted = {**detector(), "total_ops": noise(1), "total_params": noise(1), "backbone.stem.stem1.conv.total_ops": noise(1),
               "n_averaged": ("I64", [], bytes(8)), "encoder.input_proj.0.norm.num_batches_tracked": ("I64", [], bytes(8))}
    near(FRAMES[0], *PLAIN, "--detector", write_torch(tmp / "thop.pth", counted), "--det-size", "320")


@test
def inputs_that_are_not_square(tmp):
    tensors = detector()
    for width, height, frame, box, score in NOT_SQUARE:
        file = write_torch(tmp / f"{width}x{height}.pth", {"model": {**tensors, "decoder.anchors": anchors(width, height)}})
        for device in ("cpu", "guard"):
            near(FRAMES[frame], box, score, "--detector", file, "--device", device)
        near(FRAMES[frame], box, score, "--det-size", f"{width}x{height}")
        assert f"input size    {width}x{height} (tensors)" in um("inspect", file)[0]
        said = write(tmp / "said.safetensors", tensors, {"input_size": f"{width}x{height}"})
        near(FRAMES[frame], box, score, "--detector", said)
        assert f"{width}x{height} (metadata)" in um("inspect", said)[0]
    odd = write_torch(tmp / "odd.pth", {"model": {**tensors, "decoder.anchors": noise(1, 77, 4)}})
    refused(odd, "decoder.anchors fits no input", "--det-size WxH")
    near(FRAMES[0], *PLAIN, "--detector", odd, "--det-size", "320")
    for wrong in ("320x", "x320", "320x300", "300", "0x320", "320x320x320", "-320x320", "320X320"):
        um("detect", FRAMES[0], "--det-size", wrong, code=2)


@test
def silu_is_said(tmp):
    tensors = detector()
    said = write(tmp / "said.safetensors", tensors, {"input_size": "320", "activation": "silu"})
    for frame, box, score in DEIM:
        near(FRAMES[frame], box, score, "--det-act", "silu")
        near(FRAMES[frame], box, score, "--det-act", "silu", "--device", "guard")
        near(FRAMES[frame], box, score, "--detector", said)
        near(FRAMES[frame], box, score, "--detector", write_torch(tmp / "deim.pth", {"model": tensors}), "--det-act", "silu", "--det-size", "320")
    out, _ = um("inspect", said)
    assert "activation    silu (metadata)" in out and "deim-d-fine" in out, out
    near(FRAMES[0], *PLAIN, "--detector", said, "--det-act", "relu")
    # a config.json beside upstream's layout
    (tmp / "beside").mkdir()
    write_torch(tmp / "beside/deim.pth", {"model": tensors})
    for config in ({"model_type": "d_fine", "decoder_activation_function": "silu"}, {"decoder_activation_function": "silu"}):
        (tmp / "beside/config.json").write_text(json.dumps(config))
        near(FRAMES[0], *DEIM[0][1:], "--detector", tmp / "beside", "--det-size", "320")
    (tmp / "beside/config.json").write_text(json.dumps({"model_type": "detr", "decoder_activation_function": "silu"}))
    near(FRAMES[0], *PLAIN, "--detector", tmp / "beside/deim.pth", "--det-size", "320")
    um("detect", FRAMES[0], "--det-act", "gelu", code=2)
    refused_value = write(tmp / "wrong.safetensors", tensors, {"activation": "gelu"})
    _, err = um("detect", FRAMES[0], "--detector", refused_value, code=1)
    assert "activation is \"gelu\", want relu or silu" in err, err


@test
def folders_of_hugging_face(tmp):
    folder = tmp / "hf"
    folder.mkdir()
    tensors = hugging_face(detector())
    write(folder / "model.safetensors", tensors, {"format": "pt"})
    config = {"model_type": "d_fine", "architectures": ["DFineForObjectDetection"], "id2label": {"0": "bone, proximal"}}
    size = ["--det-size", "320"]
    # without config.json: what transformers computes with its defaults, and no name
    near(FRAMES[0], *HF_PLAIN, "--detector", folder, *size)
    (folder / "config.json").write_text(json.dumps(config))
    for given in (folder, folder / "model.safetensors"):
        near(FRAMES[0], *HF_PLAIN, "--detector", given, *size, "--class", "bone, proximal")
        assert best(FRAMES[0], "--detector", given, *size)[2]["name"] == "bone, proximal"
    (folder / "config.json").write_text(json.dumps({**config, "decoder_activation_function": "silu", "num_queries": 100}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False, "size": {"height": 320, "width": 320}}))
    out, _ = um("inspect", folder)
    for fact in ("silu (config.json)", "100 (config.json)", "320 (config.json)", "names: config.json", "hugging-face"):
        assert fact in out, out
    near(FRAMES[0], *HF_SILU_100, "--detector", folder)
    assert len(lines(um("detect", FRAMES[0], "--detector", folder, "--conf", "0")[0])[0]["boxes"]) == 100
    # what else lies there is not meant
    write(folder / "sam.safetensors", segmenter(), {"input_size": "256"})
    assert mask("--segmenter", folder / "sam.safetensors") == mask()
    write(folder / "sam.safetensors", segmenter())
    assert json.loads(um("inspect", folder / "sam.safetensors", "--json")[0])["input_size"] == 1024
    (folder / "sam.safetensors").unlink()
    # what is kept: the file that is made of it needs no folder
    um("convert", folder, tmp / "one.safetensors")
    near(FRAMES[0], *HF_SILU_100, "--detector", tmp / "one.safetensors", "--class", "bone, proximal")
    # what cannot be computed is said
    for key, value in (("decoder_method", "discrete"), ("encoder_activation_function", "relu"), ("normalize_before", True),
                       ("decoder_attention_heads", 4), ("decoder_offset_scale", 1.0), ("encode_proj_layers", [0]), ("encode_proj_layers", [1, 2]),
                       ("eval_size", [320, 320]), ("num_queries", "150"), ("num_queries", 150.5), ("num_queries", 0),
                       ("anchor_image_size", "320"), ("decoder_activation_function", 3)):
        (folder / "config.json").write_text(json.dumps({**config, "num_feature_levels": 2, key: value}))
        _, err = um("detect", FRAMES[0], "--detector", folder, code=1)
        assert f"config.json: {key} is" in err, err
    for key, value in (("hidden_act", "silu"), ("use_learnable_affine_block", False), ("stage_downsample_strides", [2, 1, 2, 2]),
                       ("stage_downsample", [True] * 4), ("stem_strides", [2, 1, 1, 1, 1])):
        (folder / "config.json").write_text(json.dumps({**config, "backbone_config": {key: value}}))
        _, err = um("detect", FRAMES[0], "--detector", folder, code=1)
        assert f"config.json: backbone_config.{key} is" in err, err
    for names in ({"0": "bone", "1": "nerve"}, {"1": "bone"}):
        (folder / "config.json").write_text(json.dumps({**config, "id2label": names}))
        _, err = um("detect", FRAMES[0], "--detector", folder, code=1)
        assert "config.json: id2label has 2 names, the detector has 1 class" in err, err
    # all that transformers writes, as it is for these tensors
    whole = {**config, "encode_proj_layers": [1], "num_feature_levels": 2, "feat_strides": [16, 32], "eval_size": None, "anchor_image_size": None,
             "decoder_n_points": [6, 6], "backbone_config": {"hidden_act": "relu", "use_learnable_affine_block": True, "stem_strides": [2, 1, 1, 2, 1],
             "stage_downsample_strides": [[2, 2], 2, 2, 2], "stage_downsample": [False, True, True, True]}}
    (folder / "config.json").write_text(json.dumps(whole))
    for points in ([6, 6], 6):
        (folder / "config.json").write_text(json.dumps({**whole, "decoder_n_points": points}))
        near(FRAMES[0], *HF_PLAIN, "--detector", folder)
    plain = {"do_normalize": False, "do_rescale": True, "rescale_factor": 1 / 255, "do_resize": True, "do_pad": False, "pad_size": None, "resample": 2}
    for size in ({"height": 320, "width": 320}, [320, 320]):
        (folder / "preprocessor_config.json").write_text(json.dumps({**plain, "size": size}))
        near(FRAMES[0], *HF_PLAIN, "--detector", folder)
    for key, value in (("do_normalize", True), ("do_rescale", False), ("rescale_factor", 1 / 127.5), ("do_resize", False), ("resample", 3),
                       ("size", 320), ("size", {"shortest_edge": 320, "longest_edge": 320}), ("size", {"max_height": 320, "max_width": 320})):
        (folder / "preprocessor_config.json").write_text(json.dumps({**plain, key: value}))
        _, err = um("detect", FRAMES[0], "--detector", folder, code=1)
        assert f"preprocessor_config.json: {key} is" in err, err
    (folder / "preprocessor_config.json").write_text(json.dumps({**plain, "do_pad": True, "pad_size": {"height": 640, "width": 640}}))
    _, err = um("detect", FRAMES[0], "--detector", folder, code=1)
    assert "preprocessor_config.json: do_pad is true" in err, err
    (folder / "preprocessor_config.json").unlink()
    for text, words in (("{", "not JSON"), (json.dumps({"model_type": "rt_detr"}), "of another model")):
        (folder / "config.json").write_text(text)
        _, err = um("detect", FRAMES[0], "--detector", folder, code=1)
        assert words in err, err
    # somebody else's config.json beside upstream's layout is nobody's business
    plain = write(tmp / "plain.safetensors", detector(), {"input_size": "320"})
    for text in ("{", "", "[1]"):
        (tmp / "config.json").write_text(text)
        near(FRAMES[0], *PLAIN, "--detector", plain)
        _, err = um("detect", FRAMES[0], "--detector", plain)
        assert "plain.safetensors: the config.json beside it is no JSON object, so nothing of it is used" in err, err
    with (tmp / "config.json").open("w") as file:
        file.truncate(5 << 20)
    assert "is no JSON object" in um("inspect", plain, "-q")[0]
    (tmp / "config.json").unlink()
    (tmp / "config.json").mkdir()
    assert "is no JSON object" in um("inspect", plain, "-q")[0]
    (tmp / "config.json").rmdir()
    (tmp / "config.json").write_text("{}")
    assert "warning" not in um("detect", FRAMES[0], "--detector", plain)[1]


@test
def keys_equal_to_values_are_a_warning(tmp):
    tensors = hugging_face(detector())
    for name in [n for n in tensors if ".k_proj." in n]:
        tensors[name] = tensors[name.replace(".k_proj.", ".v_proj.")]
    file = write(tmp / "old.safetensors", tensors)
    _, err = um("detect", FRAMES[0], "--detector", file, "--det-size", "320")
    assert "warning" in err and "k_proj and v_proj are equal" in err and "convert the original .pth again" in err, err
    assert "warning       its k_proj" in um("inspect", file)[0]
    _, err = um("convert", file, tmp / "joined.safetensors")  # joined or not
    assert "warning" in err, err
    assert "warning       its k_proj" in um("inspect", tmp / "joined.safetensors")[0]
    _, err = um("detect", FRAMES[0], "--detector", write(tmp / "new.safetensors", hugging_face(detector())), "--det-size", "320")
    assert "warning" not in err, err


@test
def shared_tensors_that_save_model_left_out(tmp):
    tensors = detector()
    for dropped, kept in (("decoder.up", "decoder.decoder.up"), ("decoder.reg_scale", "decoder.decoder.reg_scale")):
        tensors[kept] = tensors.pop(dropped)
    shared = {"decoder.up": "decoder.decoder.up", "decoder.reg_scale": "decoder.decoder.reg_scale"}
    size = ["--det-size", "320"]
    near(FRAMES[0], *PLAIN, "--detector", write(tmp / "shared.safetensors", tensors, shared), *size)
    # the same under a prefix, and of a segmenter
    under = {f"model.{k}": v for k, v in tensors.items()}
    near(FRAMES[0], *PLAIN, "--detector", write(tmp / "under.safetensors", under, {f"model.{k}": f"model.{v}" for k, v in shared.items()}), *size)
    whole = segmenter()
    whole["twin"] = whole.pop("mask_decoder.iou_token.weight")
    # an extra name that no network has is still refused
    refused(write(tmp / "s.safetensors", whole, {"mask_decoder.iou_token.weight": "twin"}), "tensor twin is none", role="--segmenter")
    del tensors["decoder.decoder.up"]
    refused(write(tmp / "missing.safetensors", tensors), "missing tensor decoder.up")


@test
def prefixes_and_averages(tmp):
    d, s = detector(), segmenter()
    wrong = {k: (t, shape, bytes(len(data))) for k, (t, shape, data) in d.items()}
    put = lambda prefix, tensors=d: {prefix + k: v for k, v in tensors.items()}
    files = {
        "compile": {"state_dict": put("_orig_mod.")}, "lightning": {"state_dict": put("model.")},
        "both": {"state_dict": put("model._orig_mod.module.")}, "wrapper": put("trainer.student.network."),
        "part": {"model": {k.replace("backbone.", "backbone._orig_mod.", 1): v for k, v in d.items()}},
        "flat-ema": {"model": wrong, "ema": {**d, "updates": ("I64", [], bytes(8))}, "epoch": 3},
        "timm": {"state_dict": wrong, "state_dict_ema": d}, "nested": {"model": {"state_dict": d}},
        "averaged": {"n_averaged": ("I64", [], bytes(8)), **put("module.")},
        "ema-beside": {"state_dict": {**put("model.", wrong), **put("ema_model.module.")}},
        "ema-pytorch": {"initted": ("BOOL", [], b"\1"), "step": ("I64", [], bytes(8)), **put("online_model.", wrong), **put("ema_model.")},
    }  # fmt: skip
    for name, content in files.items():
        near(FRAMES[0], *PLAIN, "--detector", write_torch(tmp / f"{name}.ckpt", content), "--det-size", "320")
    hf = hugging_face(d)
    near(FRAMES[0], *HF_PLAIN, "--detector", write(tmp / "hf.safetensors", {f"net.{k}": v for k, v in hf.items()}), "--det-size", "320")
    for name in ("model.", "_orig_mod.", "sam.module."):
        assert mask("--segmenter", write_torch(tmp / "s.pt", put(name, s)), "--sam-size", "256") == mask()
    refused_two = write_torch(tmp / "two.pt", {**put("student."), **put("teacher.")})
    refused_text = um("detect", FRAMES[0], "--detector", refused_two, code=1)[1]
    assert "several networks" in refused_text and "student." in refused_text, refused_text
    one = d["decoder.up"]
    for ema, what in (("trainer.ModelEMA", "in ema are trainer.ModelEMA"), ({"module": "trainer.Net", "updates": 3}, "in ema are trainer.Net"),
                      ({"decay": 1, "shadow_params": [one, one]}, "in ema are tensors in another layout"), ({"shadow": d}, "in ema are tensors in another layout")):
        refused(write_torch(tmp / "ema.pt", {"model": d, "ema": ema}), what)
    near(FRAMES[0], *PLAIN, "--detector", write_torch(tmp / "ema.pt", {"model": d, "ema": {"decay": 1, "updates": ("I64", [], bytes(8))}}), "--det-size", "320")


@test
def names_of_classes(tmp):
    (tmp / "names.txt").write_text("femur\n")
    for option in (["--names", tmp / "names.txt"], ["--detector", write(tmp / "named.safetensors", detector(), {"input_size": "320", "classes": "femur"})],
                   ["--detector", write(tmp / "list.safetensors", detector(), {"input_size": "320", "classes": "[\"femur\"]"})]):
        assert best(FRAMES[0], *option)[2]["name"] == "femur"
        um("detect", FRAMES[0], *option, "--class", "femur")
        _, err = um("detect", FRAMES[0], *option, "--class", "tibia", code=2)
        assert "femur" in err, err
        packet = lines(um("run", FRAMES[0], *option, "--class", "femur")[0])[0]
        assert packet["name"] == "femur" and packet["objects"][0]["name"] == "femur"
    for text, words in (("a\nb\n", "2 names, the detector has 1 class"), ("a\n\nb\n", "2 names"), ("", "0 names"), ("a\0b\n", "no text at byte 1"), ("a\x1bb\n", "no text at byte 1")):
        (tmp / "wrong.txt").write_text(text)
        _, err = um("detect", FRAMES[0], "--names", tmp / "wrong.txt", code=1)
        assert words in err, err
    for classes, count in (("a,b,c", 3), ("80", 80), ("[\"a\",\"b\"]", 2)):
        wrong = write(tmp / "wrong.safetensors", detector(), {"input_size": "320", "classes": classes})
        _, err = um("detect", FRAMES[0], "--detector", wrong, code=1)
        assert f"\"classes\" is of {count}, the detector has 1" in err, err
        assert best(FRAMES[0], "--detector", wrong, "--names", tmp / "names.txt")[2]["name"] == "femur"
    _, err = um("detect", FRAMES[0], "--names", tmp / "none.txt", code=1)
    assert "none.txt" in err
    for option in ([], ["--precision", "int8", "--calibrate", FRAMES[0]]):  # what the file says counts only where nothing else does
        um("convert", wrong, tmp / "right.safetensors", "--names", tmp / "names.txt", *option)
        assert read(tmp / "right.safetensors")[0]["classes"] == "femur"
        _, err = um("convert", wrong, tmp / "none.safetensors", *option, code=1)
        assert "wrong.safetensors: metadata \"classes\" is of 2, the detector has 1" in err and not (tmp / "none.safetensors").exists(), err
        (tmp / "two.txt").write_text("a\nb\n")
        _, err = um("convert", DETECTOR, tmp / "none.safetensors", "--names", tmp / "two.txt", *option, code=1)
        assert "two.txt: 2 names" in err and "dB" not in err, err  # before minutes of work
    (tmp / "unnamed.txt").write_text("\n")
    um("convert", DETECTOR, tmp / "unnamed.safetensors", "--names", tmp / "unnamed.txt")
    assert best(FRAMES[0], "--detector", tmp / "unnamed.safetensors")[2]["name"] is None
    (tmp / "dos.txt").write_bytes(b"\xef\xbb\xbff\xc3\xa9mur\r\n\r\n")
    assert best(FRAMES[0], "--names", tmp / "dos.txt")[2]["name"] == "fémur"


@test
def names_between_commas_or_numbers(tmp):
    for names, kept in (("bone, nerve ", ("bone", "nerve")), ("[\" bone\",\"nerve\"]", (" bone", "nerve"))):
        model = two_classes(tmp / "two.safetensors", names)
        um("convert", model, tmp / "again.safetensors", "--precision", "same")
        for path in (model, tmp / "again.safetensors"):
            for label, name in enumerate(kept):
                found = lines(um("detect", FRAMES[0], "--detector", path, "--conf", 0, "--class", name)[0])[0]["boxes"]
                assert {(b["label"], b["name"]) for b in found} == {(label, name)}, found
    numbers = two_classes(tmp / "numbers.safetensors", "1,0")  # which of the two is meant?
    _, err = um("detect", FRAMES[0], "--detector", numbers, "--class", 1, code=2)
    assert "--class 1: class 1 or class 0, which is called so? --names FILE renames them" in err, err
    twins = two_classes(tmp / "twins.safetensors", "bone,bone")
    _, err = um("detect", FRAMES[0], "--detector", twins, "--class", "bone", code=2)
    assert "--class bone: class 0 or class 1, which both are called so?" in err, err
    for names, number, label in (("bone,bone", 1, 1), ("0,1", 1, 1), ("7,8", 1, 1), ("7,8", 7, 0)):
        same = two_classes(tmp / "numbers.safetensors", names)
        found = lines(um("detect", FRAMES[0], "--detector", same, "--conf", 0, "--class", number)[0])[0]["boxes"]
        assert {b["label"] for b in found} == {label}, found


@test
def what_is_tracked_stays_of_its_class(tmp):
    model = two_classes(tmp / "even.safetensors", "bone,nerve")
    sure = []  # how much more so than the other, of each image's best box
    for frame in FRAMES:
        um("detect", frame, "--detector", model, "--dump", tmp / "dump")
        logits = read(tmp / "dump")[1]["pred_logits"][2]
        first, second = max(struct.iter_unpack("<2f", logits))
        sure.append((first - second, frame))
    (low, less), (high, more) = sorted(sure)[-2:]
    model = two_classes(tmp / "two.safetensors", "bone,nerve", (low + high) / 2)
    rows = {more: gray(more), less: gray(less)}
    for i, frame in enumerate(4 * [more] + 4 * [less] + [more, less]):
        first = bytes([i]) + rows[frame][0][1:]  # an image that repeats is frozen
        png(tmp / f"{i}.png", len(first), len(rows[frame]), lambda x, y: first[x] if y == 0 else rows[frame][y][x])
    run = ("run", f"{tmp}/*.png", "--detector", model, "--sam-size", 128)
    assert [p["label"] for p in lines(um(*run)[0])] == 4 * [0] + 4 * [1] + [0, 1]
    tracked = [(p["state"], p["label"]) for p in lines(um(*run, "--track", 1)[0])]
    assert tracked[2:4] == 2 * [("VISIBLE", 0)], tracked
    assert all(before[1] == now[1] or before[0] == "LOST" for before, now in zip(tracked, tracked[1:])), tracked
    assert um(*run, "--track", 1, "--shadow", "legacy", "--shadow-every", 1)[1].count(" 0 disagreed") == 1


@test
def convert_keeps_every_fact(tmp):
    (tmp / "names.txt").write_text("os, longum\n")
    source = write_torch(tmp / "deim.pth", {"model": {**detector(), "decoder.anchors": anchors(416, 320)}})
    options = ["--det-act", "silu", "--queries", "200", "--names", tmp / "names.txt", "--det-fit", "letterbox"]
    before = best(FRAMES[1], "--detector", source, *options)
    for precision, limit in (("fp32", 0), ("fp16", 2.0), ("bf16", 20.0)):
        out = tmp / f"{precision}.safetensors"
        um("convert", source, out, "--precision", precision, *options)
        meta, tensors = read(out)
        assert {t for t, _, _ in tensors.values() if t in ("F32", "F16", "BF16")} == {{"fp32": "F32", "fp16": "F16", "bf16": "BF16"}[precision]}
        facts = {"input_size": "416x320", "activation": "silu", "queries": "200", "family": "deim-d-fine", "fit": "letterbox",
                 "classes": "[\"os, longum\"]", "architecture": "dfine-n"}
        assert facts.items() <= meta.items(), meta
        after = best(FRAMES[1], "--detector", out)
        assert after[2]["name"] == "os, longum"
        assert max(abs(a - b) for a, b in zip(before[0], after[0])) <= limit, (precision, before, after)
        if precision == "fp32":
            assert before == after
            um("convert", out, tmp / "again.safetensors")
            assert read(tmp / "again.safetensors")[1] == tensors
    info = json.loads(um("inspect", tmp / "fp32.safetensors", "--json")[0])
    assert (info["input_width"], info["input_height"], info["queries"], info["activation"], info["fit"]) == (416, 320, 200, "silu", "letterbox")
    assert info["activation_from"] == info["queries_from"] == info["fit_from"] == info["names_from"] == "metadata"
    _, err = um("convert", SEGMENTER, tmp / "s.safetensors", "--det-act", "silu", code=2)
    assert "detector's" in err


@test
def boxes_that_overlap_a_better_one_go_where_the_model_or_the_command_says_so(tmp):
    meta, tensors = read(DETECTOR)
    meta = {k: v for k, v in meta.items() if k != "nms"}
    plain = write(tmp / "plain.safetensors", tensors, meta)
    told = write(tmp / "told.safetensors", tensors, {**meta, "nms": "0.5"})
    image = "phantom:seed=900007,frames=1,look=hard"

    def boxes(detector, *more):
        return json.loads(um("detect", image, "--detector", detector, "--conf", "0.01", *more)[0])["boxes"]

    def overlap(a, b):
        (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a["box_xyxy"], b["box_xyxy"]
        both = max(0, min(ax1, bx1) - max(ax0, bx0)) * max(0, min(ay1, by1) - max(ay0, by0))
        return both / ((ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - both)

    def inside(b):  # what is printed is clamped to the image, what overlaps is not
        x0, y0, x1, y1 = b["box_xyxy"]
        return x0 > 0 and y0 > 0 and x1 < 422 and y1 < 558

    all_of_them, kept = boxes(plain), boxes(told)
    assert boxes(plain, "--nms", "0.5") == kept and 1 < len(kept) < len(all_of_them)
    whole = [b for b in kept if inside(b)]
    assert all(overlap(a, b) <= 0.501 for i, a in enumerate(whole) for b in whole[:i])
    gone = [b for b in all_of_them if inside(b) and b not in kept]
    assert gone and all(any(k["score"] >= b["score"] and (overlap(k, b) > 0.499 or not inside(k)) for k in kept) for b in gone)
    assert boxes(told, "--nms", "1") == all_of_them == boxes(plain, "--nms", "1")
    objects = [o["box_xyxy"] for o in json.loads(um("run", image, "--detector", told, "--objects", "3", "--conf", "0.01", "-o", "jsonl:-")[0])["objects"]]
    for o, k in zip(objects, kept):  # those of the packet are clamped to the image
        assert all(abs(a - b) < 1e-2 for a, b in zip(o, k["box_xyxy"])), (objects, kept)
    assert len(objects) == min(3, len(kept))
    um("convert", told, tmp / "again.safetensors")
    assert read(tmp / "again.safetensors")[0]["nms"] == "0.5"
    wrong = write(tmp / "wrong.safetensors", tensors, {**meta, "nms": "often"})
    _, err = um("detect", image, "--detector", wrong, code=1)
    assert "wrong.safetensors" in err and 'nms is "often"' in err and "an IoU above 0 up to 1" in err, err
    _, err = um("detect", image, "--nms", "0", code=2)
    assert "--nms" in err, err


@test
def a_frames_score_is_that_one_of_so_many_boxes_is_right(tmp):
    meta, tensors = read(DETECTOR)
    told = write(tmp / "told.safetensors", tensors, {**meta, "nms": "0.7", "presence": "3,0.6"})
    image = "phantom:seed=900007,frames=1,look=hard"
    boxes = json.loads(um("detect", image, "--detector", told, "--conf", "0")[0])["boxes"]

    def score(*more):
        packet = json.loads(um("run", image, "--detector", told, "--conf", "0", "-o", "jsonl:-", *more)[0])
        assert all(abs(a - b) < 1e-2 for a, b in zip(packet["box_xyxy"], boxes[0]["box_xyxy"])), (packet["box_xyxy"], boxes[0])
        return packet["score"]

    def presence(n, half=0.5):
        none = math.prod(1 - b["score"] for b in boxes[:n])
        return (1 - none) * (1 - half) / ((1 - none) * (1 - half) + none * half)

    assert presence(3) > presence(2) > boxes[0]["score"] + 1e-3
    assert abs(score() - presence(3, 0.6)) < 1e-5 and abs(score("--presence", "2") - presence(2)) < 1e-5
    assert abs(score("--presence", "1") - boxes[0]["score"]) < 1e-6
    objects = json.loads(um("run", image, "--detector", told, "--conf", "0", "-o", "jsonl:-", "--objects", "2")[0])["objects"]
    assert abs(objects[0]["score"] - boxes[0]["score"]) < 1e-6, "of several objects each has its own"
    um("convert", told, tmp / "again.safetensors")
    assert read(tmp / "again.safetensors")[0]["presence"] == "3,0.6"
    for wrong in ("0", "17", "2.5", "all", "2,", "2,0", "2,1", "2,1e-60", "2,0.999999999999", "1e300", "nan", "2,0.5,0.5"):
        bad = write(tmp / "bad.safetensors", tensors, {**meta, "presence": wrong})
        _, err = um("detect", image, "--detector", bad, code=1)
        assert f'bad.safetensors: metadata presence is "{wrong}", want K[,P], K 1 to 16 boxes' in err, err
    _, err = um("run", image, "-o", "null:", "--presence", "17", code=2)
    assert 'presence "17": want K[,P]' in err, err


@test
def images_are_smoothed_for_the_detector_as_its_file_says(tmp):
    meta, tensors = read(DETECTOR)
    told = write(tmp / "told.safetensors", tensors, {**meta, "smooth": "2"})
    side = 320  # the input's: nothing but the filter changes the image
    gray = [[(40 + 7 * (x // 5) + 13 * (y // 3) + (90 if abs(y - 90 - x // 4) < 5 else 0) + 60 * (x % 2)) % 256 for x in range(side)] for y in range(side)]

    def smoothed(line):
        out = []
        for i in range(side):
            taps = [(j, 2 - abs(i - j)) for j in range(max(i - 1, 0), min(i + 2, side))]
            weights = [(j, int(0.5 + w / sum(v for _, v in taps) * (1 << 22))) for j, w in taps]
            out.append(sum(line[j] * w for j, w in weights) + (1 << 21) >> 22)
        return out

    done = list(zip(*map(smoothed, zip(*map(smoothed, gray)))))  # rows, then columns
    png(tmp / "raw.png", side, side, lambda x, y: gray[y][x])
    png(tmp / "done.png", side, side, lambda x, y: done[y][x])
    boxes = lambda image, *more: json.loads(um("detect", tmp / image, "--conf", "0", *more)[0])["boxes"]
    raw, want = (boxes(image, "--detector", DETECTOR) for image in ("raw.png", "done.png"))
    assert raw != want and boxes("raw.png", "--detector", told) == want
    assert boxes("raw.png", "--detector", DETECTOR, "--det-smooth", "2") == want
    assert boxes("raw.png", "--detector", told, "--det-smooth", "1") == raw
    um("convert", told, tmp / "again.safetensors")
    assert read(tmp / "again.safetensors")[0]["smooth"] == "2"
    for wrong in ("0.9", "8.1", "nan", "a bit"):
        _, err = um("detect", tmp / "raw.png", "--detector", write(tmp / "bad.safetensors", tensors, {**meta, "smooth": wrong}), code=1)
        assert f'bad.safetensors: metadata smooth is "{wrong}", want pixels of the input, 1 to 8' in err, err
    _, err = um("detect", tmp / "raw.png", "--det-smooth", "9", code=2)
    assert '--det-smooth: "9" is not a number from 1 to 8' in err, err


@test
def a_detector_says_which_gain_it_was_trained_with(tmp):
    meta, tensors = read(DETECTOR)
    dark = tmp / "dark.png"
    png(dark, 320, 320, lambda x, y: (7 * x + 31 * y) % 97 if y > 99 else 0)
    packet = lambda file, *more: lines(um("run", dark, "--detector", file, "--conf", "0", *more)[0])[0]
    told = write(tmp / "told.safetensors", tensors, {**meta, "gain": "auto,0.6"})
    assert 2.5 < packet(told)["gain"] < 2.8 and packet(told, "--gain", "off")["gain"] is None and packet(DETECTOR)["gain"] is None
    assert packet(DETECTOR, "--gain", "auto,0.6")["score"] == packet(told)["score"] != packet(told, "--gain", "auto")["score"]
    assert packet(told, "--gain", "1.5,0.9")["gain"] == 1.5
    um("convert", told, tmp / "again.safetensors")
    assert read(tmp / "again.safetensors")[0]["gain"] == "auto,0.6"
    wrong = write(tmp / "wrong.safetensors", tensors, {**meta, "gain": "loud"})
    _, err = um("run", dark, "--detector", wrong, code=1)
    assert "wrong.safetensors" in err and 'gain is "loud"' in err and "auto[,GAMMA]" in err, err
    _, err = um("run", dark, "--gain", "17", code=2)
    assert "0.1 to 16" in err, err


@test
def upstream_can_load_what_convert_writes(tmp):
    folder = tmp / "hf"
    folder.mkdir()
    write(folder / "model.safetensors", hugging_face(detector()))
    _, err = um("convert", folder, tmp / "out.pth", "--upstream", "--det-size", "320x256", code=1)
    assert "not square" in err, err
    for source, size in ((DETECTOR, []), (DETECTOR, ["--det-size", "320x256"]), (folder, ["--det-size", "320"]), (SEGMENTER, [])):
        out = tmp / "out.pth"
        _, err = um("convert", source, out, "--upstream", *size)
        assert ("--sam-size 256" in err) == (source is SEGMENTER), err
        with zipfile.ZipFile(out) as z:
            assert z.testzip() is None and z.namelist()[0] == "archive/data.pkl" and all(i.compress_type == 0 for i in z.infolist())
            whole = out.read_bytes()
            for i in z.infolist():  # where torch may map it
                extra = struct.unpack("<H", whole[i.header_offset + 28:i.header_offset + 30])[0]
                assert (i.header_offset + 30 + len(i.filename) + extra) % 64 == 0
        info = json.loads(um("inspect", out, "--json")[0])
        names = {t["name"]: t["shape"] for t in info["tensors"]}
        if source is SEGMENTER:
            assert names["image_encoder.head.weight"] == [1000, 320]
            assert mask("--segmenter", out, "--sam-size", "256") == mask()
            continue
        side = (320, 256) if "320x256" in size else (320, 320)
        cells = side[0] * side[1] // 1024
        assert names["decoder.anchors"] == [1, 5 * cells, 4] and names["decoder.valid_mask"] == [1, 5 * cells, 1]
        assert "decoder.decoder.up" in names and names["decoder.decoder.layers.2.cross_attn.num_points_scale"] == [12]
        assert (info["input_width"], info["input_height"]) == side
        near(FRAMES[0], *(HF_PLAIN if source is folder else NOT_SQUARE[0][3:] if size else PLAIN), "--detector", out)
    # as LiteMedSAM: a stem of 1x1, and no classifier
    lite = {n: t for n, t in segmenter().items() if not n.startswith(("image_encoder.norm_head.", "image_encoder.head."))}
    for layer in (0, 2):
        name = f"image_encoder.patch_embed.seq.{layer}.c.weight"
        dtype, shape, data = lite[name]
        pixel = len(data) // math.prod(shape)
        middle = b"".join(data[pixel * (9 * i + 4):][:pixel] for i in range(shape[0] * shape[1]))
        lite[name] = dtype, [*shape[:2], 1, 1], middle
    um("convert", write(tmp / "lite.safetensors", lite), tmp / "lite.pth", "--upstream")
    info = json.loads(um("inspect", tmp / "lite.pth", "--json")[0])
    assert info["architecture"] == "lite-medsam" and {t["name"] for t in info["tensors"]} == set(lite)
    _, err = um("convert", SEGMENTER, tmp / "tiny.pth", "--upstream", "--sam-family", "tiny-sam", "--sam-size", 448)
    assert "is to be given with it: --sam-size 448 --sam-family tiny-sam" in err, err
    assert "precision fp8: want fp32" in um("convert", SEGMENTER, tmp / "x.safetensors", "--precision", "fp8", code=2)[1]


@test
def names_and_facts_that_a_file_cannot_have(tmp):
    for name in ("out.pth", "out.PT", "out.ckpt", "out.bin"):
        _, err = um("convert", DETECTOR, tmp / name, code=2)
        assert f"{name}: a name of PyTorch's, want .safetensors" in err and not (tmp / name).exists(), err
    for name, *option in (("out.onnx",), ("out.ENGINE", "--upstream")):
        _, err = um("convert", DETECTOR, tmp / name, *option, code=2)
        assert f"{name}: want .safetensors" in err and "nothing is exported to" in err and not (tmp / name).exists(), err
    _, err = um("convert", DETECTOR, tmp / "out.safetensors", "--upstream", code=2)
    assert "out.safetensors: want .pth or .pt" in err, err
    said = write(tmp / "said.safetensors", detector(), {"input_size": "320", "activation": "silu", "fit": "letterbox", "queries": "100", "nms": "0.5", "presence": "4", "smooth": "2"})
    _, err = um("convert", said, tmp / "out.pth", "--upstream")
    for option in ("--det-act silu", "--det-fit letterbox", "--queries 100", "--nms 0.5", "--presence 4", "--det-smooth 2"):
        assert "out.pth: has no metadata" in err and option in err, err
    _, err = um("convert", write(tmp / "plain.safetensors", detector(), {"input_size": "320"}), tmp / "out.pth", "--upstream")
    assert "warning" not in err, err
    _, err = um("convert", DETECTOR, tmp / "out.safetensors", "--sam-family", "tiny-sam", code=2)
    assert "a family is a segmenter's" in err, err
    for model, option, what in ((DETECTOR, "--sam-size", "a segmenter's"), (SEGMENTER, "--det-size", "a detector's")):
        _, err = um("convert", model, tmp / "out.safetensors", option, 256, code=2)
        assert f"{option} is {what}" in err and model.name in err and not (tmp / "out.safetensors").exists(), err
    assert "convert: -: want the name of a file" in um("convert", DETECTOR, "-", code=2, cwd=tmp)[1]


@test
def letterbox_is_the_image_in_the_middle(tmp):
    for frame, box, score in LETTERBOX:
        near(FRAMES[frame], box, score, "--det-fit", "letterbox")
    gray = lambda x, y: (40 + 7 * (x // 5) + 13 * (y // 3) + (90 if abs(y - 90 - x // 4) < 5 else 0)) % 256
    # An image that needs no resizing, against the same with its margins drawn: the same numbers, moved.
    for name, size, left, top in (("tall", (160, 320), 80, 0), ("wide", (320, 201), 0, 59)):
        png(tmp / f"{name}.png", *size, gray)
        inside = lambda x, y: gray(x - left, y - top) if 0 <= x - left < size[0] and 0 <= y - top < size[1] else 0
        png(tmp / "drawn.png", 320, 320, inside)
        for device in ("cpu", "guard"):
            boxes = lambda file, *fit: [(b["score"], b["box_xyxy"]) for b in lines(um("detect", file, *fit, "--conf", "0", "--device", device)[0])[0]["boxes"]]
            ours, drawn = boxes(tmp / f"{name}.png", "--det-fit", "letterbox"), boxes(tmp / "drawn.png")
            assert [s for s, _ in ours] == [s for s, _ in drawn]
            for (_, a), (_, b) in zip(ours[:20], drawn[:20]):
                moved = [min(max(v - m, 0), w) for v, m, w in zip(b, (left, top) * 2, size * 2)]
                assert all(abs(x - y) < 1e-3 for x, y in zip(a, moved)), (a, moved)
            # and through the whole pipeline, on the device
            p = lines(um("run", tmp / f"{name}.png", "--det-fit", "letterbox", "--conf", "0", "--device", device, "--gate", "speculative")[0])[0]
            assert abs(p["score"] - ours[0][0]) < 1e-6 and all(abs(a - b) < 1e-3 for a, b in zip(p["box_xyxy"], ours[0][1])), p
    for pixels in ((1, 300), (300, 1), (2000, 3)):
        png(tmp / "thin.png", *pixels, lambda x, y: 128)
        um("detect", tmp / "thin.png", "--det-fit", "letterbox")
    um("detect", FRAMES[0], "--det-fit", "crop", code=2)


@test
def queries_are_counted(tmp):
    for frame, box, score in QUERIES_100:
        near(FRAMES[frame], box, score, "--queries", "100")
    said = write(tmp / "said.safetensors", detector(), {"input_size": "320", "queries": "7"})
    assert len(lines(um("detect", FRAMES[0], "--detector", said, "--conf", "0")[0])[0]["boxes"]) == 7
    assert len(lines(um("detect", FRAMES[0], "--queries", "400", "--conf", "0")[0])[0]["boxes"]) == 400
    _, err = um("detect", FRAMES[0], "--queries", "501", code=2)
    assert "500 tokens" in err, err
    um("detect", FRAMES[0], "--queries", "0", code=2)
    wrong = write(tmp / "wrong.safetensors", detector(), {"queries": "many"})
    assert "queries is \"many\"" in um("detect", FRAMES[0], "--detector", wrong, code=1)[1]


# ---- what is no model ----

def wrong_files(tmp):
    """Name, content, words of the answer; several of each kind."""
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 15123456\n"
    onnx = b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x1a\n\x10\n\x01x\x12\x01y\"\x08Identity\x12\x01g"
    legacy = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00."
    d, s = detector(), segmenter()
    pick = lambda tensors, *begin: {k: v for k, v in tensors.items() if k.startswith(begin)}
    net = lambda *names: {n: noise(2, 2) for n in names}
    state = lambda tensors: write_torch(tmp / "made", tensors).read_bytes()

    def archive(**files):
        with zipfile.ZipFile(tmp / "made", "w") as z:
            for name, content in files.items():
                z.writestr(name.replace("__", "/").replace("_DOT_", "."), content)
        return (tmp / "made").read_bytes()

    def locked(data):  # the flag that says encrypted, in both headers
        at, central = data.index(b"PK\3\4"), data.index(b"PK\1\2")
        data = bytearray(data)
        data[at + 6] |= 1
        data[central + 8] |= 1
        return bytes(data)

    whole, sam = state({"model": d}), SEGMENTER.read_bytes()
    return [
        # pointers and links
        ("pointer.pth", lfs, "Git LFS pointer"), ("pointer.safetensors", lfs, "git lfs pull"), ("link.pth", b"https://host/weights.pth\n", "a text"),
        ("shortcut.url", b"[InternetShortcut]\nURL=https://host/w.pth\n", "a "),
        # pages
        ("page.pth", b"<!DOCTYPE html>\n<html><head><title>Virus scan warning</title></head></html>\n", "web page"),
        ("login.pt", b"\n\n  <html lang=en><body>Sign in</body></html>", "web page"), ("error.pth", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
        ("answer.safetensors", b"{\"error\": \"Repository not found\"}", "JSON"), ("gone.pth", b"404: Not Found", "a text"),
        # archives
        ("w.zip", archive(dfine_DOT_pth=b"x" * 100), "with a .pth file in it"), ("w.tar.gz", b"\x1f\x8b\x08\0" + bytes(60), "gzip"),
        ("w.tar", b"w.pth" + bytes(252) + b"ustar\x0000" + bytes(300), "tar archive"), ("w.7z", b"7z\xbc\xaf\x27\x1c" + bytes(60), "7-Zip"),
        ("w.rar", b"Rar!\x1a\x07\0" + bytes(60), "RAR"), ("w.xz", b"\xfd7zXZ\0" + bytes(60), "xz archive"),
        # other networks
        ("sam2.pt", state({"model": net("image_encoder.trunk.pos_embed", "sam_mask_decoder.iou_token.weight")}), "SAM 2"),
        ("yolo.pt", state({"model": net("model.0.conv.weight", "model.22.dfl.conv.weight")}), "YOLO"),
        ("detr.pth", state({"model": net("query_embed.weight", "transformer.encoder.layers.0.linear1.weight")}), "DETR"),
        ("rtdetr.pth", state({"ema": {"module": net("backbone.conv1.conv1_1.conv.weight", "decoder.enc_score_head.weight")}}), "RT-DETR"),
        ("resnet.pth", state(net("conv1.weight", "layer1.0.conv1.weight", "fc.weight")), "ResNet"),
        ("rcnn.pth", state(net("roi_heads.box_predictor.cls_score.weight")), "R-CNN"), ("unet.pth", state(net("inc.double_conv.0.weight")), "U-Net"),
        ("llm.safetensors", write(tmp / "made", net("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight")).read_bytes(), "language model"),
        ("hfsam.safetensors", write(tmp / "made", net("vision_encoder.patch_embed.projection.weight", "mask_decoder.iou_token.weight")).read_bytes(), "Hugging Face"),
        ("deimv2.pth", state({"model": net("backbone.dinov3.cls_token", "decoder.up", "decoder.enc_score_head.weight")}), "another backbone"),
        ("mine.pt", state(net("a.weight", "b.weight")), "unknown network of 2 tensors"),
        # other frameworks
        ("model.onnx", onnx, "ONNX"), ("model.tflite", b"\x1c\0\0\0TFL3" + bytes(60), "TensorFlow Lite"), ("model.h5", b"\x89HDF\r\n\x1a\n" + bytes(60), "HDF5"),
        ("model.engine", b"ftrt" + bytes(60), "TensorRT"), ("model.xml", b"<?xml version=\"1.0\"?><net name=\"x\" version=\"11\"></net>", "OpenVINO"),
        ("model.gguf", b"GGUF" + bytes(60), "GGUF"), ("model.npz", archive(a_DOT_npy=b"x"), "NumPy"), ("model.npy", b"\x93NUMPY\x01\0" + bytes(60), "NumPy"),
        ("model.keras", archive(config_DOT_json=b"{}", model_DOT_weights_DOT_h5=b"x"), "Keras"), ("model.pdparams", b"\x80\x02}q\0X\x1a\0\0\0StructuredToParameterName@@.", "Paddle"),
        ("model.mlmodel", b"\x08\x04\x12\x1a\x0a\x05input" + bytes(40), "Core ML"), ("old.pth", legacy, "before 1.6"), ("model.pkl", b"\x80\x04\x95\x05\0\0\0\0\0\0\0}\x94.", "a pickle"),
        # parts
        ("backbone.pth", state({"model": pick(d, "backbone.")}), "D-FINE without its decoder"), ("decoder.pth", state(pick(d, "decoder.")), "D-FINE without its backbone"),
        ("hgnet.pth", state({k[9:]: v for k, v in pick(d, "backbone.").items()}), "HGNetV2 backbone alone"),
        ("headless.pth", state(pick(d, "backbone.", "encoder.")), "D-FINE without its decoder"),
        ("vit.pt", state(pick(s, "image_encoder.")), "image encoder of a SAM alone"), ("maskdecoder.pt", state(pick(s, "mask_decoder.")), "mask decoder of a SAM alone"),
        ("promptless.pt", state(pick(s, "image_encoder.", "mask_decoder.")), "without its prompt encoder"),
        ("lora.safetensors", write(tmp / "made", net("base.q.lora_A.weight", "base.q.lora_B.weight")).read_bytes(), "LoRA"),
        ("nothing.pt", state({}), "without tensors"), ("none.safetensors", write(tmp / "made", {}).read_bytes(), "without tensors"),
        # cut
        ("empty.pth", b"", "empty file"), ("half.pth", whole[:len(whole) // 2], "cut short"), ("half.safetensors", sam[:len(sam) // 2], "cut short"),
        ("start.safetensors", sam[:2000], "cut short"), ("zeros.pth", bytes(4096), "cut or damaged"),
        # encrypted
        ("secret.pth", b"Salted__" + bytes(range(200)), "OpenSSL"), ("secret.age", b"age-encryption.org/v1\n-> X25519 abc\n", "age"),
        ("secret.asc", b"-----BEGIN PGP MESSAGE-----\n\nabc\n", "PGP"), ("secret.zip", locked(archive(w_DOT_pth=b"x" * 50)), "encrypted zip"),
        # texts
        ("config.json", b"{\n  \"architectures\": [\"DFineForObjectDetection\"]\n}\n", "JSON"), ("config.yml", b"__include__: [\n  '../a.yml']\nname: x\n", "configuration"),
        ("model.py", b"#!/usr/bin/env python\nimport torch\n", "program's text"), ("readme.pth", b"# Weights\n\nAsk for access.\n", "a text"),
        ("index.json", b"{\"metadata\": {}, \"weight_map\": {\"a\": \"model-00001-of-00002.safetensors\"}}", "JSON"),
        # images and others
        ("frame.png", FRAMES[0].read_bytes(), "PNG", "give the weights; images"), ("frame.dcm", bytes(128) + b"DICM" + bytes(60), "DICOM", "give the weights; images"), ("program.pth", b"\x7fELF" + bytes(60), "program"),
    ]  # fmt: skip


@test
def fifty_wrong_files_get_a_sentence(tmp):
    files = wrong_files(tmp)
    assert len(files) >= 50, len(files)
    for name, content, *words in files:
        (tmp / name).write_bytes(content)
        for role in ("--detector", "--segmenter"):
            refused(tmp / name, *words, role=role)


@test
def a_dict_under_every_name_is_met_a_few_times(tmp):
    """Each of four dicts has the one before under all names under which weights may be; the innermost is large."""
    text = lambda s: b"X" + struct.pack("<I", len(s)) + s.encode()
    names = ("ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "params_ema", "model", "state_dict", "model_state_dict", "model_state",
             "weights", "net", "network", "params")
    pickle = b"\x80\x02}q\0(" + b"K\1K\1" * 400000 + b"u"
    for i in range(4):
        pickle += b"}q" + bytes([i + 1]) + b"(" + b"".join(text(n) + b"h" + bytes([i]) for n in names) + b"u"
    with zipfile.ZipFile(tmp / "names.pt", "w") as z:
        z.writestr("archive/data.pkl", pickle + b".")
    refused(tmp / "names.pt", "without tensors")  # in a second, not in ten minutes


@test
def numbers_that_spoil_a_network_are_named(tmp):
    """Where they are, before anything is computed: integers, and what is not finite."""
    def spoilt(tensors, name, dtype, *values):
        shape = tensors[name][1]
        code = {"F32": "f", "F16": "e", "F64": "d", "I8": "b", "I64": "q"}[dtype]
        data = struct.pack(f"<{math.prod(shape)}{code}", *values, *[1] * (math.prod(shape) - len(values)))
        return write(tmp / "spoilt.safetensors", {**tensors, name: (dtype, shape, data)}, {"input_size": "320"} if len(shape) < 4 else None)

    d, s = detector(), segmenter()
    attention, score = "decoder.decoder.layers.0.self_attn.in_proj_weight", "decoder.dec_score_head.2.bias"
    refused(spoilt(d, attention, "F32", 1, math.nan), f"tensor {attention}: number 1 of 49152 is nan")
    refused(spoilt(d, attention, "F64", 1, 2, 1e300), f"tensor {attention}: number 2 of 49152 is inf")
    refused(spoilt(d, attention, "I8"), f"tensor {attention} is of I8")
    refused(spoilt(d, score, "F16", -math.inf), f"tensor {score}: number 0 of 1 is -inf")
    for scalar in ("decoder.up", "backbone.stages.0.blocks.0.layers.0.lab.scale"):
        refused(spoilt(d, scalar, "F32", math.nan), f"tensor {scalar}, want one finite number")
    scale = "decoder.decoder.layers.1.cross_attn.num_points_scale"
    refused(spoilt(d, scale, "F32", math.nan), f"tensor {scale}, want 12 finite numbers")
    whole = spoilt(d, "decoder.reg_scale", "I64", 4)
    assert um("detect", FRAMES[0], "--detector", whole, "-q")[0]
    for name in ("prompt_encoder.not_a_point_embed.weight", "image_encoder.layers.1.blocks.0.attn.attention_biases", "image_encoder.neck.2.weight"):
        refused(spoilt(s, name, "F32", math.inf), f"tensor {name}: number 0 of", role="--segmenter")
        refused(spoilt(s, name, "I64"), f"tensor {name} is of I64", role="--segmenter")


@test
def folders_get_a_sentence(tmp):
    for name in ("nothing", "shards", "bins", "many", "saved"):
        (tmp / name).mkdir()
    (tmp / "saved/saved_model.pb").write_bytes(b"x")
    (tmp / "shards/model.safetensors.index.json").write_text("{}")
    (tmp / "bins/pytorch_model.bin.index.json").write_text("{}")
    for i in (1, 2):
        (tmp / f"bins/pytorch_model-0000{i}-of-00002.bin").write_bytes(b"x")
    for file in ("a.pth", "b.pth"):
        (tmp / "many" / file).write_bytes(b"x")
    for role in ("--detector", "--segmenter"):
        refused(tmp / "nothing", "a folder without a weight file", role=role)
        refused(tmp / "shards", "several files", "max_shard_size", role=role)
        refused(tmp / "bins", "several files", "max_shard_size", role=role)
        refused(tmp / "saved", "TensorFlow SavedModel", role=role)
        refused(tmp / "many", "a folder with 2 weight files", role=role)
    (tmp / "one").mkdir()
    write(tmp / "one/best.safetensors", detector(), {"input_size": "320"})
    near(FRAMES[0], *PLAIN, "--detector", tmp / "one")


@test
def each_network_says_its_role(tmp):
    refused(SEGMENTER, "a SAM segmenter", "give it as --segmenter")
    refused(DETECTOR, "a D-FINE detector", "give it as --detector", role="--segmenter")


# ---- the numbers of upstream's code: frame, box, score ----

NOT_SQUARE = [  # width, height, then the same
    (320, 256, 0, [130.74, 126.35, 379.46, 505.51], 0.9896), (320, 256, 2, [6.93, 76.89, 127.13, 170.26], 0.9730),
    (416, 320, 0, [161.16, 129.21, 364.57, 507.35], 0.7978), (256, 416, 2, [5.81, 77.34, 127.23, 165.44], 0.9725),
]  # fmt: skip
DEIM = [(0, [125.89, 124.20, 385.07, 506.74], 0.9812), (2, [5.03, 78.29, 129.08, 166.88], 0.9559)]
LETTERBOX = [(0, [130.254, 126.155, 378.447, 509.558], 0.99028), (2, [4.669, 77.092, 127.932, 169.966], 0.97082)]
QUERIES_100 = [(0, [130.79, 126.84, 379.21, 509.66], 0.9905), (2, [6.57, 76.38, 127.63, 170.48], 0.9634)]
HF_PLAIN = ([130.195, 127.425, 379.390, 510.534], 0.99028)  # of transformers
HF_SILU_100 = ([129.687, 126.033, 380.730, 512.188], 0.98686)

if __name__ == "__main__":
    main()
