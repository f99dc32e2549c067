# SPDX-License-Identifier: Apache-2.0
"""Seeds of the fuzz targets, standard library only: python3 tests/gen/fuzz.py

Each is small and reaches a part of a parser that changed bytes of the others seldom do.
"""
import json
import pathlib
import struct
import zlib

OUT = pathlib.Path(__file__).parent.parent.parent / "fuzz" / "corpus"


def put(target, name, data):
    (OUT / target).mkdir(parents=True, exist_ok=True)
    (OUT / target / name).write_bytes(data)


def beside():
    whole = {"model_type": "d_fine", "num_queries": 300, "decoder_activation_function": "silu", "decoder_n_points": [6, 6],
             "id2label": {"0": "bone", "2": "a, b"}, "anchor_image_size": [256, 320], "decoder_layers": 3, "eval_idx": 2,
             "size": {"height": 320, "width": 320}, "do_normalize": False, "layer_norm_eps": 1e-5, "normalize_before": False}
    put("beside", "config.json", json.dumps(whole).encode())
    put("beside", "list.json", json.dumps({"model_type": "d_fine", "id2label": {"0": "[x"}}).encode())
    put("beside", "number.json", json.dumps({"model_type": "d_fine", "id2label": {"0": "7"}}).encode())
    put("beside", "array.json", json.dumps({"model_type": "d_fine", "id2label": ["bone"]}).encode())
    put("beside", "other.json", b'{"architectures":["RTDetrForObjectDetection"]}')
    put("beside", "names.txt", b"bone\r\n\xc3\xa9\n\n" * 6 + b"x")


def config():
    put("config", "options.yaml", b"# run\nconf: 0.5\ndevice: guard\nsink: [\"jsonl:-\", 'dir:out']\ncrop: [10, 20, 200, 300]\n"
        b"realtime: false\nnote: |\n  two\n  lines\nsize: \"96x80\\u00e4\\0\"\n")
    put("config", "block.yaml", b"%YAML 1.1\n---\nsink:\n- jsonl:-\n- null:\nempty:\n? conf\n: .5\n...\n")
    put("config", "flow.yaml", b"{frames: 1, sink: [], conf: !!float 0.25}\n")
    put("config", "twice.yaml", b"conf: 0\nconf: 1\n")
    put("config", "documents.yaml", b"conf: 0\n---\nconf: 1\n")
    put("config", "nested.yaml", b"conf: [[[[{a: [b]}]]]]\n")
    put("config", "alias.yaml", b"conf: &a 0\nsink: *a\n")
    put("config", "mapping.yaml", b"conf: {a: 1}\n[x]: y\n")
    put("config", "key.yaml", b"{[x]: y}\n")
    put("config", "list.yaml", b"- conf\n")
    put("config", "zero.yaml", b"conf: 0\n\0")
    put("config", "escape.yaml", b'"a\\0": 1\n')
    put("config", "open.yaml", b"conf: [1\n")
    put("config", "open2.yaml", b"conf: 1\n: [")
    put("config", "empty.yaml", b"")
    put("config", "values.yaml", b"a: [" + b"1," * 65 + b"]\n")
    put("config", "options_too_many.yaml", b"".join(b"%x: 1\n" % i for i in range(257)))
    put("config", "long.yaml", b"#" * 65537)
    put("config", "utf16.yaml", "conf: 1\n".encode("utf-16"))


def coco():
    def image(id, name):
        return {"id": id, "file_name": name, "width": 12, "height": 9}

    def seed(name, images, categories, annotations):
        whole = {"info": None, "images": images, "categories": categories, "annotations": annotations}
        put("coco", name, json.dumps(whole, separators=(",", ":")).encode())

    all_of_it = [0, 0, 12, 9]
    seed("polygons.json", [image(1, "a.png"), image(2, "b.png")], [{"id": 7, "name": "bone"}, {"id": 8}], [
        {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 6, 4], "segmentation": [[1, 2, 7, 2, 7, 6, 1, 6], [8.5, 1, 10, 1, 9, 3.25]]},
        {"id": 2, "image_id": 2, "category_id": 8, "segmentation": [[0, 0, 12, 0, 12, 9, 0, 9]]}])
    seed("runs.json", [image(3, "b.png")], [{"id": 1, "name": "vessel"}], [
        {"image_id": 3, "category_id": 1, "bbox": all_of_it, "segmentation": {"size": [9, 12], "counts": [10, 4, 5, 4, 85]}},
        {"image_id": 3, "category_id": 1, "bbox": all_of_it, "iscrowd": 1, "segmentation": {"size": [9, 12], "counts": "PD"}}])
    seed("boxes.json", [image(-1, "a.png")], [{"id": 0, "name": "a"}, {"id": 5, "name": "b"}], [
        {"image_id": -1, "category_id": 0, "bbox": [-1.5, 3e0, 1e1, 20], "segmentation": []},
        {"image_id": -1, "category_id": 0, "bbox": [1, 1, 1, 1], "segmentation": None}])
    put("coco", "list.json", b"[]")


def rle():
    put("rle", "empty", bytes([9, 9, 0, 0]))
    put("rle", "checks", bytes([31, 31, 5, 7]) + bytes([0x55, 0x55, 0x55, 0x55, 0xaa, 0xaa, 0xaa, 0xaa]) * 16)
    put("rle", "full", bytes([255, 255, 1, 1]) + b"\xff" * 8192)
    put("rle", "blob", bytes([63, 63, 63, 63]) + b"".join(((1 << min(64, 2 * i)) - 1).to_bytes(8, "little") for i in range(64)))


def raw():
    put("raw", "gray", struct.pack("<HHB", 4, 3, 1) + bytes(36))
    put("raw", "color", struct.pack("<HHB", 4, 3, 3) + bytes(range(72)))
    put("raw", "rest", struct.pack("<HHB", 4, 3, 1) + bytes(30))
    put("raw", "stop", struct.pack("<HHB", 4, 3, 0x81) + bytes(36))  # cancelled
    put("raw", "unreadable", struct.pack("<HHB", 4, 3, 0x41) + bytes(36))
    put("raw", "nothing", struct.pack("<HHB", 4, 3, 1))
    put("raw", "zero", struct.pack("<HHB", 0, 3, 1) + bytes(3))
    put("raw", "huge", struct.pack("<HHB", 0x7fff, 0x7fff, 3) + bytes(3))
    put("raw", "negative", struct.pack("<HHB", 0x8000, 3, 1) + bytes(3))


def igtl():
    def message(kind, content, version=1, device=b"Device", meta=None, ext=12):
        body = content
        if version > 1:
            pairs = meta or []
            head = struct.pack(">H", len(pairs)) + b"".join(struct.pack(">HHI", len(k), 3, len(v)) for k, v in pairs)
            text = b"".join(k + v for k, v in pairs)
            body = struct.pack(">HHII", ext, len(head), len(text), 7) + bytes(ext - 12) + content + head + text
        crc = 0
        for byte in body:
            crc ^= byte << 56
            for _ in range(8):
                crc = (crc << 1 ^ (0x42F0E1EBA9EA3693 if crc >> 63 else 0)) & (1 << 64) - 1
        return struct.pack(">H12s20sQQQ", version, kind, device, 0x6553F10080000000, len(body), crc) + body

    def image(scalar=3, components=1, size=(4, 2, 1), part=None, bytes_=None):
        part = part or size
        n = components * part[0] * part[1] * part[2] * {3: 1, 5: 2, 10: 4, 11: 8}[scalar]
        return struct.pack(">HBBBB3H12f3H3H", 1, components, scalar, 2, 1, *size, .5, 0, 0, 0, .25, 0, 0, 0, 1, 1, 2, 3,
            0, 0, 0, *part) + bytes(range(n if bytes_ is None else bytes_))

    meta = [(b"FrameId", b"42"), (b"State", b"VISIBLE"), (b"", b"")]
    every = [message(b"IMAGE", image()), message(b"IMAGE", image(5, 3), 2, b"Image_Reference", meta),
        message(b"IMAGE", image(11, 1, (3, 2, 2), (2, 1, 2)), 2, ext=16), message(b"TRANSFORM", struct.pack(">12f", *range(12))),
        message(b"POSITION", bytes(12)), message(b"POSITION", bytes(24)), message(b"POSITION", bytes(28), 2),
        message(b"STATUS", struct.pack(">Hq20s", 1, -1, b"OK") + b"fine\0"), message(b"STRING", struct.pack(">HH", 3, 2) + b"OK", 2, b"State", meta),
        message(b"CAPABILITY", b"IMAGE".ljust(12, b"\0") + b"STATUS".ljust(12, b"\0")),
        message(b"LBMETA", b"bone".ljust(64, b"\0") + b"Mask".ljust(20, b"\0") + bytes(12) + b"Image".ljust(20, b"\0")),
        message(b"GET_TRANSFOR", b""), message(b"SENSOR", b"", 3)]
    for i, one in enumerate(every):
        put("igtl", "%02d_%s" % (i, one[2:14].rstrip(b"\0").decode().lower()), b"\0" + one)
    put("igtl", "stream", b"\x11" + b"".join(every))
    put("igtl", "bad_size", b"\0" + message(b"IMAGE", image(bytes_=7)))
    put("igtl", "huge", b"\0" + struct.pack(">H12s20sQQQ", 1, b"IMAGE", b"", 0, (1 << 64) - 1, 0))


def packet():
    def fields(width, height, crop, flags, box=(3, 4, 20, 21), bits=b"\x0f\xf0" * 64, score=.5, text=b"cpu"):
        return b"".join(struct.pack("<I", v * 2 & 0xffffffff) for v in (width, height, *crop)) + bytes([flags]) + struct.pack(
            "<4ffiQd", *box, score, 1, 7, 1.5) + bytes(560) + bits + text

    put("packet", "visible", fields(30, 40, (0, 0, 30, 40), 0x1b))
    put("packet", "crop", fields(60, 70, (10, 20, 33, 20), 0x7b))
    put("packet", "lost", fields(30, 40, (0, 0, 30, 40), 4, score=float("nan")))
    put("packet", "box_nowhere", fields(30, 40, (0, 0, 30, 40), 3, box=(float("nan"), -1e30, 1e30, float("inf"))))
    put("packet", "crop_outside", fields(30, 40, (20, 0, 30, 40), 3))
    put("packet", "no_size", fields(0, 40, (0, 0, 0, 40), 3))
    put("packet", "objects", fields(30, 40, (0, 0, 30, 40), 0x1b, bits=bytes(range(256)) * 3))
    put("packet", "noise", bytes((i * i * 7 + i) % 256 for i in range(900)))


def safetensors():
    def header(entries, data):
        return struct.pack("<H", data) + (entries if isinstance(entries, bytes) else json.dumps(entries).encode())

    def tensor(dtype, shape, a, b):
        return {"dtype": dtype, "shape": shape, "data_offsets": [a, b]}

    two = {"__metadata__": {"input_size": "320", "classes": "a,b"}, "a": tensor("F32", [2], 0, 8), "b": tensor("I64", [1, 1], 8, 16)}
    put("safetensors", "two", header(two, 16))
    put("safetensors", "overlap", header({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [2], 4, 12)}, 12))
    put("safetensors", "hole", header({"a": tensor("U8", [2], 1, 3)}, 3))
    put("safetensors", "rest", header({"a": tensor("U8", [2], 0, 2)}, 3))
    put("safetensors", "twice", header(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', 2))
    put("safetensors", "key_twice", header(b'{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', 1))
    put("safetensors", "zero", header(b'{"a\\\\\\u0000":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1))
    put("safetensors", "raw_zero", header(b'{"a\0":{}}', 1))
    put("safetensors", "no_utf8", header(b'{"\xff":{}}', 1))
    put("safetensors", "huge", header({"a": tensor("F64", [1 << 62, 1 << 62], 0, 8), "b": tensor("F64", [1 << 30, 1 << 30], 0, 8)}, 8))
    put("safetensors", "product", header({"a": tensor("F64", [1 << 52, 1 << 52], 0, 8)}, 8))
    put("safetensors", "rank", header({"a": tensor("U8", [1] * 9, 0, 1)}, 1))
    put("safetensors", "no_size", header(b'{"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}}', 1))
    put("safetensors", "offsets", header(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}', 1))
    put("safetensors", "backwards", header(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}', 1))
    put("safetensors", "dtype", header({"a": tensor("F8_E4M3", [1], 0, 1)}, 1))
    put("safetensors", "short", header({"a": tensor("F32", [1], 0, 1)}, 1))
    put("safetensors", "keys", header({"a": 3}, 1))
    put("safetensors", "metadata", header({"__metadata__": []}, 0))
    put("safetensors", "metadata_number", header({"__metadata__": {"a": 1}}, 0))
    put("safetensors", "metadata_key_twice", header(b'{"__metadata__":{"a":"1","a":"2"}}', 0))
    put("safetensors", "metadata_twice", header(b'{"__metadata__":{"a":"1"},"__metadata__":{}}', 0))
    put("safetensors", "metadata_many", header({"__metadata__": {str(i): "" for i in range(257)}}, 0))
    put("safetensors", "json", header(b'{"a":', 0))
    put("safetensors", "two_values", header(b'{} {}', 0))
    put("safetensors", "no_name", header({"": tensor("U8", [1], 0, 1)}, 1))
    put("safetensors", "control", header({"a\n": tensor("U8", [1], 0, 1)}, 1))
    put("safetensors", "long_name", header({"a" * 256: tensor("U8", [1], 0, 1)}, 1))
    put("safetensors", "length", struct.pack("<Q", 1 << 32) + b"{}")
    put("safetensors", "length_past_end", struct.pack("<Q", 100) + b"{}")
    put("safetensors", "renamed_long", header({"model.backbone.model.x": tensor("U8", [1], 0, 1),
                                               "model.enc_score_head." + "0" * 234: tensor("U8", [1], 1, 2)}, 2))
    put("safetensors", "module_twice", header({"module.module.a": tensor("U8", [1], 0, 1)}, 1))
    q = "model.decoder.layers.0.self_attn."
    hf = {"model.backbone.model.embedder.stem1.convolution.weight": tensor("U8", [1], 0, 1)}
    joined = {f"{q}{c}_proj.weight": tensor("U8", [1, 1], 1 + i, 2 + i) for i, c in enumerate("qkv")}
    put("safetensors", "joined", header({**hf, **joined, "class_embed.0.bias": tensor("U8", [1], 4, 5),
                                         "model.decoder.class_embed.0.bias": tensor("U8", [1], 5, 6),
                                         "bbox_embed.0.bias": tensor("U8", [1], 6, 7),
                                         "model.encoder_input_proj.x": tensor("U8", [1], 7, 8),
                                         "model.encoder.encoder.0.layers.0.fc1.bias": tensor("U8", [1], 8, 9)}, 9))
    put("safetensors", "joined_missing", header({**hf, f"{q}q_proj.weight": tensor("U8", [1, 1], 1, 2)}, 2))
    put("safetensors", "joined_shapes", header({**hf, **joined, f"{q}v_proj.weight": tensor("U8", [2, 1], 3, 5)}, 5))
    put("safetensors", "recognised", header({
        "backbone.stem.stem1.conv.weight": tensor("U8", [1, 3, 1, 1], 0, 3), "decoder.enc_score_head.weight": tensor("U8", [1, 1], 3, 4),
        "decoder.up": tensor("U8", [1], 4, 5), "encoder.input_proj.0.conv.weight": tensor("U8", [128, 0, 1, 1], 5, 5),
        "decoder.anchors": tensor("U8", [1, 0, 4], 5, 5), "image_encoder.pos_embed": tensor("U8", [1, 1, 1, 1], 5, 6),
        "mask_decoder.iou_token.weight": tensor("U8", [1], 6, 7),
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": tensor("U8", [1], 7, 8)}, 8))


STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0" + b"0X\x03\0\0\0cpuK\x06tQ"


def tensor_pickle(storage=STORAGE, rest=b"K\x00K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)Rt"):
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"R"


def pickled(value, name=b"a"):
    return b"\x80\x02}X" + struct.pack("<I", len(name)) + name + value + b"s."


def pickle():
    put("pickle", "tensor", pickled(tensor_pickle()))
    for key in (b"model", b"ema"):
        put("pickle", "in_" + key.decode(), b"\x80\x02}X" + struct.pack("<I", len(key)) + key + pickled(
            pickled(tensor_pickle())[2:-1] if key == b"ema" else tensor_pickle(), b"module" if key == b"ema" else b"module.a")[2:-1] + b"s.")
    put("pickle", "parameter", pickled(b"ctorch._utils\n_rebuild_parameter\n(" + tensor_pickle() + b"\x88ccollections\nOrderedDict\n)RtR"))
    put("pickle", "parameter_state", pickled(b"ctorch._utils\n_rebuild_parameter_with_state\n(" + tensor_pickle() + b"\x88NNtR"))
    put("pickle", "parameter_without", pickled(b"ctorch._utils\n_rebuild_parameter\n(NtR"))
    put("pickle", "containers", pickled(b"(ccollections\ndefaultdict\n(NtRctorch\nSize\n(K\1K\2tR\x85Rctorch\nSize\n((K\1tttR"
                                        b"ccollections\nOrderedDict\n(NtRt"))
    put("pickle", "ordered_dict", pickled(b"ccollections\nOrderedDict\n(NtR"))
    put("pickle", "stride", pickled(tensor_pickle(rest=b"K\0K\2\x85K\7\x85\x89Nt")))
    put("pickle", "offset", pickled(tensor_pickle(rest=b"K\7K\1\x85K\1\x85\x89Nt")))
    put("pickle", "broadcast", pickled(tensor_pickle(rest=b"K\0J\0\0\0\1\x85K\0\x85\x89Nt")))
    put("pickle", "huge", pickled(tensor_pickle(rest=b"K\0\x8a\x08" + b"\0" * 7 + b"\x40\x8a\x08" + b"\0" * 7 + b"\x40\x86K\1K\1\x86\x89Nt")))
    put("pickle", "huge_beside_zero", pickled(tensor_pickle(rest=b"K\0K\0\x8a\x08" + b"\0" * 7 + b"\x40\x86K\1K\1\x86\x89Nt")))
    put("pickle", "ranks", pickled(tensor_pickle(rest=b"K\0K\1\x85K\1K\1\x86\x89Nt")))
    put("pickle", "nine_ranks", pickled(tensor_pickle(rest=b"K\0(" + b"K\1" * 9 + b"tK\1\x85\x89Nt")))
    put("pickle", "negative_size", pickled(tensor_pickle(rest=b"K\0\x8a\1\xff\x85K\1\x85\x89Nt")))
    put("pickle", "negative_offset", pickled(tensor_pickle(rest=b"\x8a\1\xffK\1\x85K\1\x85\x89Nt")))
    put("pickle", "size_no_tuple", pickled(tensor_pickle(rest=b"K\0NN\x89Nt")))
    put("pickle", "few_arguments", pickled(tensor_pickle(rest=b"K\0t")))
    put("pickle", "no_storage", pickled(tensor_pickle(storage=b"N")))
    put("pickle", "other_type", pickled(tensor_pickle(STORAGE.replace(b"Float", b"QInt8"))))
    put("pickle", "other_module", pickled(tensor_pickle(STORAGE.replace(b"ctorch\n", b"cx\n"))))
    put("pickle", "cuda_type", pickled(tensor_pickle(STORAGE.replace(b"torch\n", b"torch.cuda\n"))))
    put("pickle", "other_key", pickled(tensor_pickle(STORAGE.replace(b"\x01\0\0\0000", b"\x01\0\0\0009"))))
    put("pickle", "wrong_length", pickled(tensor_pickle(STORAGE.replace(b"K\x06tQ", b"K\x05tQ"))))
    put("pickle", "long_key", pickled(tensor_pickle(STORAGE.replace(b"\x01\0\0\0000", b"\x41\0\0\0" + b"0" * 65))))
    put("pickle", "no_id", pickled(b"NQ"))
    put("pickle", "not_a_string", b"\x80\2}N" + tensor_pickle() + b"s.")
    put("pickle", "object_beside", b"\x80\2}(X\1\0\0\0a" + tensor_pickle() + b"X\1\0\0\0bcm\nC\n)\x81u.")
    put("pickle", "object_only", b"\x80\2}X\5\0\0\0modelcm\nC\n)\x81s.")
    put("pickle", "empty_dict", b"\x80\2}.")
    put("pickle", "stack", b"\x80\4\x8c\1m\x8c\1C\x93)\x81}b\x94h\0j\0\0\0\0\x85\x8c\1a)}\x920." + b"")
    put("pickle", "marks", b"\x80\2(K\1K\2l(K\1K\2d(1(NNt20N\x86\x87.")
    put("pickle", "objects", b"\x80\2(cm\nC\nN\x88o(N\x89im\nC\n\x86.")
    put("pickle", "sets", b"\x80\4\x8f(K\1K\2\x90(N\x91\x86.")
    put("pickle", "texts", b"\x80\5U\1aT\1\0\0\0aB\1\0\0\0aC\1a\x8e\1\0\0\0\0\0\0\0a\x96\1\0\0\0\0\0\0\0a\x8d\1\0\0\0\0\0\0\0a(t.")
    put("pickle", "numbers", b"\x80\2J\xff\xff\xff\xffM\1\2\x8a\0\x8b\2\0\0\0\1\2\x8a\t123456789G@\x09\x21\xfb\x54\x44\x2d\x18.")
    put("pickle", "memo", b"\x80\2Nq\0r\xff\0\0\0h\0j\xff\0\0\0h\x07.")
    put("pickle", "memo_huge", b"\x80\2Nr\xff\xff\xff\x7f.")
    put("pickle", "memo_grows", b"\x80\2N" + b"\x94" * 300 + b".")
    put("pickle", "deep_stack", b"\x80\2" + b"N" * 300 + b".")
    put("pickle", "protocol", b"\x80\6.")
    put("pickle", "frame", b"\x80\4\x95\0\0\0\0\0\0\0\0N.")
    put("pickle", "opcode", b"\x80\2P.")
    for i, bad in enumerate((b"0", b"2", b"1", b"u", b"s", b"a", b"R", b"b", b"(u", b"N(u", b"}(Nu", b"}Na", b"Na", b"(NNNd", b"NNR", b"N)R",
                             b"N)\x81", b"(o", b"(No", b"NN\x93", b"cno end", b"c\n\n", b"c" + b"m" * 200 + b"\nC\n", b"cos\nsystem\n",
                             b"cos.path\njoin\n", b"c__builtin__\neval\n", b"cbuiltins\nlist\n", b"c\xff\nC\n", b"X\xff\xff\xff\xff",
                             b"cm\nC\nN\x81", b"cm\nC\nN}\x92", b"(icm")):
        put("pickle", f"bad{i:02}", b"\x80\2" + bad + b".")


def archive(entries, comment=b"", directory=None, **end):
    """entries: (name, content, method, changes of the central record)"""
    body, records = b"", b""
    for name, content, method, change in entries:
        packed = content
        if method == 8:
            c = zlib.compressobj(9, wbits=-15)
            packed = c.compress(content) + c.flush()
        r = {"flags": 0, "method": method, "crc": zlib.crc32(content), "packed": len(packed), "size": len(content), "at": len(body),
             "extra": b"", **change}
        name = name.encode()
        body += b"PK\3\4" + struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 0, 0, 0, 0, len(name), 0) + name + packed
        records += b"PK\1\2" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, r["flags"], r["method"], 0, 0, r["crc"], r["packed"], r["size"],
                                           len(name), len(r["extra"]), 0, 0, 0, 0, r["at"]) + name + r["extra"]
    if directory is not None:
        records = directory
    return body + records + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, end.get("count", len(entries)), end.get("count", len(entries)),
                                                   end.get("bytes", len(records)), end.get("offset", len(body)), len(comment)) + comment


def zips():
    pkl, data = pickled(tensor_pickle()), bytes(24)
    good = [("x/data.pkl", pkl, 0, {}), ("x/data/0", data, 8, {})]
    put("zip", "good.pt", archive([*good, ("x/byteorder", b"little", 0, {}), ("x/version", b"3\n", 0, {})], b"a comment"))
    put("zip", "no_sums.pt", archive([(name, content, 0, {"crc": 0}) for name, content, _, _ in good]))
    put("zip", "zip64_sizes.pt", archive([good[0], ("x/data/0", data, 0, {
        "packed": 0xffffffff, "size": 0xffffffff, "extra": struct.pack("<HHB", 7, 1, 0) + struct.pack("<HHQQ", 1, 16, 24, 24)})]))
    put("zip", "zip64_cut.pt", archive([good[0], ("x/data/0", data, 0, {"extra": struct.pack("<HH", 1, 99)})]))
    changes = {"encrypted": {"flags": 1}, "method": {"method": 9}, "crc": {"crc": 1}, "longer": {"size": 25}, "shorter": {"size": 23},
               "outside": {"packed": 9999}, "no_header": {"at": 1}, "far_header": {"at": 0xfffffff0}, "same_place": {"at": 0},
               "bomb": {"size": 0x7fffffff}, "four_gigabytes": {"extra": struct.pack("<HHQ", 1, 8, 1 << 33), "size": 0xffffffff}}
    for name, change in changes.items():
        put("zip", f"{name}.pt", archive([good[0], ("x/data/0", data, 8, change)]))
    put("zip", "stored_sizes.pt", archive([good[0], ("x/data/0", data, 0, {"size": 23})]))
    put("zip", "twice.pt", archive([*good, good[1]]))
    put("zip", "two_roots.pt", archive([*good, ("y/data.pkl", pkl, 0, {})]))
    put("zip", "no_root.pt", archive([("data.pkl", pkl, 0, {}), ("x/y/data.pkl", pkl, 0, {})]))
    put("zip", "long_root.pt", archive([("x" * 130 + "/data.pkl", pkl, 0, {})]))
    put("zip", "script.pt", archive([*good, ("x/constants.pkl", b"", 0, {})]))
    put("zip", "code.pt", archive([*good, ("x/code/a.py", b"", 0, {})]))
    put("zip", "big_endian.pt", archive([*good, ("x/byteorder", b"big", 0, {})]))
    put("zip", "name.pt", archive([("x\n", b"", 0, {})]))
    put("zip", "no_entries.pt", b"PK" + archive([])[2:] + archive([]))
    put("zip", "count.pt", archive(good, count=9))
    put("zip", "directory_outside.pt", archive(good, offset=1 << 30))
    put("zip", "directory_short.pt", archive(good, bytes=100))
    put("zip", "directory_other.pt", archive(good, directory=b"PK\1\3" + bytes(100)))
    put("zip", "no_end.pt", b"PK\3\4" + bytes(40))
    whole = archive(good)
    put("zip", "locator.pt", whole[:-22] + b"PK\6\7" + struct.pack("<IQI", 0, 1 << 40, 1) + whole[-22:])
    big = archive([("x/data.pkl", pkl, 0, {"size": (16 << 20) + 1, "packed": 0})])
    put("zip", "pickle_size.pt", big)
    put("zip", "legacy.pt", b"\x80\2\x8a\n")
    put("zip", "neither.pt", b"GIF89a")
    put("zip", "nothing.pt", b"")


def image():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def png(width, height, depth, kind, rows, extra=b"", interlace=0):
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace)) + extra + chunk(
            b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")

    put("image", "small.png", png(2, 2, 8, 0, bytes(6)))
    put("image", "texts.png", png(2, 2, 8, 2, bytes(14), chunk(b"zTXt", b"t\0\0" + zlib.compress(b"A" * 9999)) * 3))
    put("image", "claims.png", png(16000, 4000, 8, 2, bytes(6)))
    put("image", "wide.png", png(20000, 1, 8, 0, bytes(20001)))
    golden = OUT.parent.parent / "tests/golden/image"
    bitmap = bytearray((golden / "palette4.bmp").read_bytes())
    for name, at, value in (("packed.bmp", 30, b"\1"), ("header.bmp", 14, b"\xff\xff"), ("bits.bmp", 28, b"\7"), ("tall.bmp", 22, b"\0\0\0\x80"),
                            ("claims.bmp", 18, b"\x10\x27\0\0\x10\x27\0\0"), ("colors.bmp", 46, b"\2"), ("far.bmp", 10, b"\xff\xff\xff\x7f")):
        put("image", name, bytes(bitmap[:at]) + value + bytes(bitmap[at + len(value):]))
    put("image", "masks.bmp", (golden / "rgb16.bmp").read_bytes().replace(struct.pack("<I", 0xf800), struct.pack("<I", 0xa800)))
    pages = (golden / "pages.tif").read_bytes()
    last = pages.rindex(b"\0\0\0\0")
    put("image", "round.tif", pages[:last] + pages[4:8])  # the last page's next is the first
    put("image", "nowhere.tif", pages[:last] + b"\xff\xff\xff\x7f")
    put("image", "big.tif", b"II+\0\x08\0\0\0\x10" + bytes(7) + bytes(16))
    lines = (golden / "gray8.tif").read_bytes()
    at = lines.index(struct.pack("<HHII", 257, 4, 1, 9))
    put("image", "claims.tif", lines[:at + 8] + struct.pack("<I", 16000) + lines[at + 12:])
    tiles = (golden / "rgb8_tiles.tif").read_bytes()
    at = tiles.index(struct.pack("<HHII", 322, 4, 1, 16))
    put("image", "tiles.tif", tiles[:at + 8] + struct.pack("<I", 1 << 30) + tiles[at + 12:])
    for name, kind in (("dicom", b"\0" * 128 + b"DICM"), ("page", b"<!doctype html>"), ("zip", b"PK\3\4" + bytes(30) + b"a/data.pkl"),
                       ("stream", (b"\x47" + bytes(187)) * 6), ("utf8", "ä".encode() * 600)):
        put("image", name, kind)
    put("image", "empty", b"")
    put("image", "text", b"hello, text")
    jpeg = bytearray((OUT.parent.parent / "tests/golden/image/gray.jpg").read_bytes())
    at = jpeg.index(b"\xff\xc0")
    for name, size in (("claims.jpg", b"\x1f\x40\x1f\x40"), ("wide.jpg", b"\0\1\xff\xff"), ("zero.jpg", b"\0\0\0\0")):
        put("image", name, bytes(jpeg[:at + 5]) + size + bytes(jpeg[at + 9:]))
    jpeg = bytearray((OUT.parent.parent / "tests/golden/image/rgb_progressive.jpg").read_bytes())
    at = jpeg.index(b"\xff\xda")
    end = at + 2 + jpeg[at + 3]
    jpeg[end - 1] &= 0xf0  # nothing is left to refine, so the scan may come again
    while not (jpeg[end] == 0xff and jpeg[end + 1]):
        end += 1
    put("image", "scans.jpg", bytes(jpeg[:at] + jpeg[at:end] * 501) + b"\xff\xd9")


def lists():
    put("list", "three.txt", b"\xef\xbb\xbfp1/a.png\r\n\np1/b.png\np2/a.tif")
    put("list", "absolute.txt", b"/x/p1/a.png\n/x/p1/a_00001.png\n/x/p1/a.tif\n")
    put("list", "twice.txt", b"a.png\na.png\n")
    put("list", "up.txt", b"a/../b.png\na/c.png\n")
    put("list", "met.txt", b"a.png\na.jpg\na.png.png\na.jpg_00001.png\na.tif\na_00000.png\n")
    put("list", "refused.txt", b"a.tif\na.tif_00001.png\n")
    put("list", "empty.txt", b"\n\r\n")
    put("list", "zero.txt", b"a\0b")


def videos():
    golden = OUT.parent.parent / "tests/golden/video"
    put("video", "cut.mp4", (golden / "intra.mp4").read_bytes()[:1150])
    put("video", "cut.mkv", (golden / "exact.mkv").read_bytes()[:1500])
    put("video", "cut.avi", (golden / "intra.avi").read_bytes()[:8000])
    put("video", "still.gif", b"GIF89a\2\0\2\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\2\0\2\0\0\2\2\x44\x52\0;")


def web():
    heads = b"127.0.0.1:8080\nhttp://127.0.0.1:8080\nBearer 0123456789abcdef\n0123456789abcdef\napplication/json; charset=utf-8\n"
    put("web", "control", heads + b'{"conf":0.5,"objects":2,"label":-1}')
    put("web", "stream", heads + b'{"stream":false}')
    put("web", "ping", heads + b'{"ping":1795725828.43}')
    put("web", "v6", b"[fe80::1%eth0]:80\nhttps://[fe80::1%eth0]:80\nbearer x\n\ntext/plain\n[[[[{\"conf\":1e999}]]]]")
    put("web", "twice", b"probe.ward\nnull\n\n\n\n{\"conf\":0.1,\"conf\":0.2}")
    put("web", "name", b"localhost\n\n\n0123456789abcdee\napplication/jsonp\n{\"gain\":\"\\u0000\\ud800\"}")


def sequences():
    def meta(dims, data, extra="", where="LOCAL"):
        return (f"ObjectType = Image\nNDims = {len(dims.split())}\nDimSize = {dims}\nElementSpacing = 0.2 0.3 1\n{extra}ElementDataFile = {where}\n").encode() + data

    def nrrd(fields, data):
        return b"NRRD0005\n# drawn\n" + "".join(f + "\n" for f in fields).encode() + b"\n" + data

    gray, pose = bytes(range(24)), "1 0 0 2 0 1 0 3 0 0 1 4 0 0 0 1"
    frame = "".join(f"Seq_Frame{i:04}_Timestamp = 1.{i}\nSeq_Frame{i:04}_ImageStatus = OK\nSeq_Frame{i:04}_ProbeToTrackerTransform = {pose}\n"
                    f"Seq_Frame{i:04}_ProbeToTrackerTransformStatus = {('OK', 'INVALID')[i]}\n" for i in (1, 0))
    head = "Kinds = domain domain list\nElementType = MET_UCHAR\nUltrasoundImageOrientation = UNA\nProbe = x\n"
    put("sequence", "plus.mha", meta("4 3 2", gray, head + frame))
    put("sequence", "zlib.mha", meta("4 3 2", zlib.compress(gray), head + "CompressedData = True\n"))
    put("sequence", "twice.mha", meta("4 3 2", zlib.compress(gray[:12]) + zlib.compress(gray[12:]), head + "CompressedData = True\n"))
    put("sequence", "wide.mha", meta("2 3 2", gray, "ElementType = MET_USHORT\nBinaryDataByteOrderMSB = True\nUltrasoundImageOrientation = FM\n"))
    put("sequence", "rgb.mha", meta("2 2 2", gray, "ElementType = MET_UCHAR\nElementNumberOfChannels = 3\nUltramotionSpacing = known\n"))
    put("sequence", "still.mha", meta("6 4", gray, "ElementType = MET_UCHAR\n"))
    put("sequence", "invalid.mha", meta("4 3 2", gray, head + "Seq_Frame0000_ImageStatus = INVALID\nSeq_Frame0001_UltramotionPose = AToB\n"
                                        f"Seq_Frame0001_AToBTransform = {pose[:-2]}\n"))
    put("sequence", "cut.mha", meta("4 3 9", gray, head))
    put("sequence", "vast.mha", meta("16384 4096 9223372036854775807", gray, head))
    put("sequence", "apart.mhd", meta("4 3 2", b"", head, "none.raw"))
    put("sequence", "list.mhd", meta("4 3 2", b"a.raw\n", head, "LIST"))
    listed = ["type: uchar", "dimension: 4", "space: left-posterior-superior", "encoding: raw", "space origin: (0,0,0)"]
    put("sequence", "list_last.nrrd", nrrd(listed + ["sizes: 4 3 1 2", "space directions: (0.2,0,0) (0,0.3,0) (0,0,1) none",
                                                     "kinds: domain domain domain list", "axis 3 index values:=0.5 1e3"], gray))
    put("sequence", "list_first.nrrd", nrrd(listed + ["sizes: 2 4 3 1", "space directions: none (0.2,0,0) (0,0.3,0) (0,0,1)",
                                                      "kinds: list domain domain domain", "axis 0 index values:=0.5 x"], gray))
    put("sequence", "rgb.nrrd", nrrd(["type: unsigned char", "dimension: 3", "sizes: 3 4 2", "spacings: NaN 0.2 0.2", "encoding: raw"], gray))
    packed = zlib.compressobj(wbits=31)
    put("sequence", "gzip.nrrd", nrrd(["type: uint16", "dimension: 3", "sizes: 2 3 2", "endian: big", "encoding: gzip",
                                       f"Seq_Frame0001_ProbeToReferenceTransform:={pose}"], packed.compress(gray) + packed.flush()))
    put("sequence", "apart.nhdr", nrrd(["type: uchar", "dimension: 2", "sizes: 4 3", "encoding: raw", "data file: none.raw"], b""))


for make in (sequences, config, coco, beside, lists, videos, web, rle, raw, igtl, packet, safetensors, pickle, zips, image):
    make()
