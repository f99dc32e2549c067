# SPDX-License-Identifier: Apache-2.0
"""Speed beside our peers on the same machine and weights, in one run.

--device cpu (default): each network alone, on the same threads: PyTorch eager, compiled and in bf16, ONNX Runtime, OpenVINO in fp32 and
bf16, both with the convolutions and linear layers of encoder and detector in int8 (static, per channel; OpenVINO's by NNCF for
transformers; D-FINE's decoder stays in floats, quantised it finds nothing), ours in fp32 and int8. Beside each time: the most memory
the process ever had, and how far the result is from that engine's own fp32. At the end: what is asked of ours, and what there is.
--device cuda: whole frames, from the image in host memory to the mask in host memory: PyTorch eager and torch.compile
(max-autotune), in fp32 and fp16, and ours. In PyTorch everything stays on the GPU too: upload of the u8 frame, resize and
normalise, D-FINE (upstream's deploy form), best box, MobileSAM with that box, mask > 0, mask to the host.

Every engine is a child process that runs one stage per line on its stdin and answers {"stage":…,"ms":…}; rounds alternate engine
by engine, so that other load on the machine falls on all of them. Shared machines: compare minima."""

import argparse
import datetime
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODELS, IMAGES = ROOT / "models", ROOT / "tests" / "golden" / "end_to_end"
DETECTORS = {f"dfine-{size}": f"D-FINE-{size.upper()} 640" for size in "nsmlx"}
STAGES = {**DETECTORS, "encode": "MobileSAM encoder 1024", "decode": "MobileSAM decoder 1024, box"}
UNASKED = ("dfine-m", "dfine-l", "dfine-x")  # measured where --only names them
QUANTISED = ("dfine-n", "dfine-s", "encode")  # the decoder stays in floats


class Engine:
    """One row of the tables. `judge`: the engine whose result its own is held against."""

    def __init__(self, precision="fp32", judge=None, stages=tuple(STAGES), words=None):
        self.precision, self.judge, self.stages, self.words = precision, judge, stages, words


# Ours: what `bench stages --serve` is told, on the three-channel input that the peers have, and for gray the detector alone.
RGB = {**dict.fromkeys(DETECTORS, "rgb detect"), "encode": "encode", "decode": "decode"}
ENGINES = {
    "torch": Engine(),
    "torch-compile": Engine(judge="torch"),
    "torch-bf16": Engine("bf16", "torch"),
    "onnxruntime": Engine(judge="torch"),
    "onnxruntime-int8": Engine("int8", "onnxruntime", QUANTISED),
    "openvino": Engine(judge="torch"),
    "openvino-bf16": Engine("bf16", "openvino"),
    "openvino-int8": Engine("int8", "openvino", QUANTISED),
    "ours": Engine(judge="torch", words=RGB),
    "ours-gray": Engine(stages=tuple(DETECTORS), words=dict.fromkeys(DETECTORS, "detect")),
    "ours-bf16": Engine("bf16", "ours", words=RGB),
    "ours-int8": Engine("int8", "ours", QUANTISED, RGB),
}
PEERS = tuple(ENGINES)
OURS = tuple(name for name, engine in ENGINES.items() if engine.words)

# What is asked: ours in a precision, on a stage, against the best peer in any of those, at most; and which flag of the processor it is for.
ASKED = [
    ("dfine-n", "ours", ("fp32",), 0.90, None), ("dfine-s", "ours", ("fp32",), 0.85, None), ("encode", "ours", ("fp32",), 0.70, None),
    ("decode", "ours", ("fp32",), 0.50, None), ("encode", "ours-int8", ("fp32", "int8"), 0.60, "avx512_vnni"),
    ("dfine-n", "ours-int8", ("fp32", "int8"), 0.75, "avx512_vnni"), ("encode", "ours-bf16", ("fp32", "bf16", "int8"), 0.45, "amx_bf16"),
    ("dfine-n", "ours-bf16", ("fp32", "bf16", "int8"), 0.75, "amx_bf16"), ("dfine-s", "ours-bf16", ("fp32", "bf16", "int8"), 0.65, "amx_bf16"),
]  # fmt: skip
ASKED_FRAME = 0.25  # of PyTorch's whole frame
FRAME = "frame"
# Who runs whole frames.
FRAME_PEERS = {
    "cuda": ("eager-fp32", "eager-fp16", "compile-fp32", "compile-fp16", "ours-fp32", "ours-fp16"),
    "cpu": ("eager-fp32", "ours-fp32", "ours-bf16"),
}
JUDGE = "eager-fp32"  # the masks of the others are compared with this one's
FLAGS = ("avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16")
INPUTS = {**dict.fromkeys(DETECTORS, ["images"]), "encode": ["image"], "decode": ["embedding", "box"]}
OUTPUTS = {**dict.fromkeys(DETECTORS, ["logits", "boxes"]), "encode": ["embedding"], "decode": ["low", "iou"]}


def networks(folder, seed, wanted):
    """Modules, inputs and checkpoints of the four stages, on an image of the phantom, and what makes a canvas of an image: the models
    that ship at these sizes, and a random D-FINE-S."""
    import torch

    sys.path.insert(0, str(ROOT / "tests" / "parity"))
    import dfine_net
    import sam_net

    class Detect(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, images):
            out = self.net(images)
            return out["pred_logits"], out["pred_boxes"]

    class Decode(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            self.prompt, self.mask = net.prompt_encoder, net.mask_decoder

        def forward(self, embedding, box):
            sparse, dense = self.prompt(points=None, boxes=box, masks=None)
            return self.mask(embedding, self.prompt.get_dense_pe(), sparse, dense, False)

    image = IMAGES / "phantom_0.png"
    modules, inputs, files, preprocess = {}, {}, {"image": image}, None
    if "dfine-n" in wanted:
        files["dfine-n"] = MODELS / "dfine_n_bone_320.safetensors"
        state = read_state(files["dfine-n"])
        modules["dfine-n"] = Detect(dfine_net.load(state, "n", state["decoder.enc_score_head.weight"].shape[0], 640))
    for stage in [s for s in DETECTORS if s in wanted and s != "dfine-n"]:
        net, _ = dfine_net.random_network(stage[-1], 1, 640, image, seed)
        files[stage] = folder / f"{stage}.pth"
        torch.save({"model": net.state_dict()}, files[stage])
        modules[stage] = Detect(net)
    inputs = {stage: (dfine_net.network_input(image, 640),) for stage in modules}
    if wanted & {"encode", "decode"}:
        x, (height, width), _ = sam_net.prepare(image, 1024)
        files["segmenter"] = MODELS / "mobile_sam_bone_384.safetensors"
        net = sam_net.load(read_state(files["segmenter"]), 1024)
        preprocess = net.preprocess
        canvas = preprocess(x)
        modules["encode"], inputs["encode"] = net.image_encoder, (canvas,)
        box = torch.tensor([[0.3 * width, 0.2 * height, 0.7 * width, 0.75 * height]])
        modules["decode"], inputs["decode"] = Decode(net), (net.image_encoder(canvas), box)
    return {k: v for k, v in modules.items() if k in wanted}, inputs, files, preprocess


def export(modules, inputs, folder):
    """ONNX files; D-FINE in upstream's deploy form, its convolutions and norms fused."""
    import copy

    import torch

    for stage, module in modules.items():
        module = copy.deepcopy(module)
        if stage.startswith("dfine"):
            module.net.deploy()
        torch.onnx.export(
            module, inputs[stage], str(folder / f"{stage}.onnx"), input_names=INPUTS[stage], output_names=OUTPUTS[stage],
            opset_version=17, do_constant_folding=True, dynamo=False,
        )  # fmt: skip


def serve(run, stages):
    """The protocol of a child: a stage per line in, one JSON line out; "check" also writes the outputs."""
    import numpy as np

    print(json.dumps({"ready": sorted(stages)}), flush=True)
    for line in sys.stdin:
        stage, _, where = line.strip().partition(" ")
        start = time.perf_counter()
        outputs = run(stage)
        ms = 1e3 * (time.perf_counter() - start)
        if where:
            np.savez(where, *[np.asarray(o) for o in outputs])
        print(json.dumps({"stage": stage, "ms": ms}), flush=True)


def child_torch(folder, args, engine):
    import contextlib

    import torch

    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    modules, inputs, _, _ = networks(folder, args.seed, set(args.stages))
    if engine == "torch-compile":
        modules = {stage: torch.compile(module) for stage, module in modules.items()}
    half = ENGINES[engine].precision == "bf16"

    def run(stage):
        with torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext():
            out = modules[stage](*inputs[stage])
        return [o.float() for o in (out if isinstance(out, tuple) else (out,))]

    serve(run, modules)


def saved_inputs(folder, stage):
    import numpy as np

    with np.load(folder / f"{stage}.npz") as file:
        return [file[name] for name in INPUTS[stage]]


def calibration(folder, stage):
    """Inputs of other images, for those who quantise."""
    import numpy as np

    with np.load(folder / f"{stage}-calibration.npz") as file:
        return [{INPUTS[stage][0]: file[name]} for name in file.files]


def stays_float(name):
    """A node of D-FINE's decoder, by its name in the exported graph."""
    return "decoder" in name


def quantise_onnx(folder, stage):
    """The exported network with convolutions and products on bytes."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self):
            self.left = iter(calibration(folder, stage))

        def get_next(self):
            return next(self.left, None)

    plain, ready, out = (str(folder / f"{stage}{end}.onnx") for end in ("", "-ready", "-int8"))
    quant_pre_process(plain, ready, skip_symbolic_shape=True)
    kept = [node.name for node in onnx.load(ready).graph.node if stays_float(node.name)]
    quantize_static(
        ready, out, Images(), quant_format=QuantFormat.QDQ, op_types_to_quantize=["Conv", "MatMul", "Gemm"], per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=kept,
    )  # fmt: skip
    return out


def child_onnxruntime(folder, args, engine):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # between runs the others have the cores
    end = "-int8" if ENGINES[engine].precision == "int8" else ""
    paths = {s: str(folder / f"{s}{end}.onnx") for s in args.stages}
    sessions = {s: onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for s, path in paths.items()}
    feeds = {s: dict(zip(INPUTS[s], saved_inputs(folder, s))) for s in args.stages}
    serve(lambda stage: sessions[stage].run(None, feeds[stage]), args.stages)


def quantise_openvino(folder, stage):
    """The exported network, quantised by NNCF for transformers."""
    import nncf
    import openvino

    images = calibration(folder, stage)
    model = openvino.Core().read_model(folder / f"{stage}.onnx")
    kept = [op.get_friendly_name() for op in model.get_ops() if stays_float(op.get_friendly_name())]
    model = nncf.quantize(
        model, nncf.Dataset(images), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(images), fast_bias_correction=True,
        ignored_scope=nncf.IgnoredScope(names=kept, validate=False),
    )  # fmt: skip
    openvino.save_model(model, folder / f"{stage}-int8.xml", compress_to_fp16=False)


def child_openvino(folder, args, engine):
    import openvino

    core = openvino.Core()
    precision = ENGINES[engine].precision
    settings = {"INFERENCE_NUM_THREADS": args.threads, "PERFORMANCE_HINT": "LATENCY"}
    settings["INFERENCE_PRECISION_HINT"] = "bf16" if precision == "bf16" else "f32"
    end = "-int8.xml" if precision == "int8" else ".onnx"
    requests = {s: core.compile_model(core.read_model(folder / f"{s}{end}"), "CPU", settings).create_infer_request() for s in args.stages}
    feeds = {s: saved_inputs(folder, s) for s in args.stages}

    def run(stage):
        done = requests[stage].infer(feeds[stage], share_inputs=True, share_outputs=True)
        return [done[i] for i in range(len(OUTPUTS[stage]))]

    serve(run, args.stages)


def child_quantise(folder, args, engine):
    """Writes what an engine with int8 reads; a process of its own, so that it is not in anybody's peak of memory."""
    for stage in args.stages:
        {"onnxruntime-int8": quantise_onnx, "openvino-int8": quantise_openvino}[engine](folder, stage)


# ---- whole frames on a GPU ----


def read_state(path):
    """A checkpoint's tensors, in fp32."""
    import torch

    if str(path).endswith(".safetensors"):
        from safetensors.torch import load_file

        state = load_file(str(path))
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("ema", "module", "model", "state_dict"):
        if isinstance(state.get(key), dict):
            state = state[key]
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def read_networks(args):
    import dfine_net
    import sam_net

    state = read_state(args.detector)
    sizes = [s for s, keys in dfine_net.KEYS.items() if keys == len(state)]
    if not sizes:
        raise SystemExit(f"{args.detector}: {len(state)} tensors: not a checkpoint of D-FINE N, S, M, L or X in upstream's names")
    detector = dfine_net.load(state, sizes[0], state["decoder.enc_score_head.weight"].shape[0], args.det_size)
    return detector, sam_net.load(read_state(args.segmenter), args.sam_size)


def draw_networks(args, folder, image):
    """Checkpoints with random weights, of which the mask is about half set."""
    import dfine_net
    import sam_net
    import torch

    detector, _ = dfine_net.random_network(args.size, 1, args.det_size, image, args.seed)
    out = detector(dfine_net.network_input(image, args.det_size))
    x, input_size, (height, width) = sam_net.prepare(image, args.sam_size)
    cx, cy, w, h = out["pred_boxes"][0, out["pred_logits"][0].max(-1).values.argmax()].tolist()
    box = [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]
    segmenter = sam_net.random_network(args.sam_size, x, args.seed, True)
    sam_net.balance(segmenter, x, input_size, (height, width), box, None)
    args.detector, args.segmenter = folder / f"dfine-{args.size}.pth", folder / "mobile_sam.pt"
    torch.save({"model": detector.state_dict()}, args.detector)
    torch.save(segmenter.state_dict(), args.segmenter)


def place(module, device, dtype):
    """Also the tensors that upstream keeps as plain attributes, which would cross to the GPU in every frame."""
    import torch

    module.to(device, dtype)
    for m in module.modules():
        for name, value in list(vars(m).items()):
            if isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter):
                setattr(m, name, value.to(device, dtype if value.is_floating_point() else value.dtype))
    return module.eval()


def frame_module(detector, segmenter, args, height, width, device, dtype):
    """u8 [H,W] on the device -> mask u8 [H,W]; box x0,y0,x1,y1 and score, f32 [5]. The pipeline of src/pipeline/pipeline.c."""
    import torch
    import torch.nn.functional as F

    def resize(image, size):  # as upstream's, by Pillow: first x, then y, whole numbers after each; smoothed where it shrinks
        for to in ((height, size[1]), size):
            shrinks = to[0] < image.shape[2] or to[1] < image.shape[3]
            image = F.interpolate(image, to, mode="bilinear", align_corners=False, antialias=shrinks).round()
        return image

    class Frame(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.detector, self.segmenter = detector.deploy(), segmenter
            place(self, device, dtype)
            place(segmenter.prompt_encoder.pe_layer, device, torch.float32)  # 2 pi times a coordinate: fp16 has no digits for that
            scale = args.sam_size / max(height, width)
            self.new = int(height * scale + 0.5), int(width * scale + 0.5)
            side = (torch.arange(args.sam_size // 16, device=device) + 0.5) / (args.sam_size // 16)
            y, x = torch.meshgrid(side, side, indexing="ij")
            prompt = segmenter.prompt_encoder
            self.place_code = prompt.pe_layer._pe_encoding(torch.stack([x, y], -1)).permute(2, 0, 1)[None].to(dtype)
            self.size = torch.tensor([width, height, width, height], device=device, dtype=torch.float32)
            self.to_canvas = torch.tensor([self.new[1] / width, self.new[0] / height] * 2, device=device, dtype=torch.float32)

        def best_box(self, image):
            x = resize(image, (args.det_size, args.det_size)) / 255
            out = self.detector(x.expand(1, 3, -1, -1).to(dtype))
            score, at = out["pred_logits"][0].float().amax(-1).max(0)
            cx, cy, w, h = out["pred_boxes"][0].float().index_select(0, at[None])[0].unbind()
            return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]) * self.size, score.sigmoid()

        def outline(self, image, box):
            sam, prompt = self.segmenter, self.segmenter.prompt_encoder
            x = resize(image, self.new).expand(1, 3, -1, -1)
            embedding = sam.image_encoder(sam.preprocess(x.to(dtype)))
            corners = ((box * self.to_canvas + 0.5) / args.sam_size).reshape(1, 2, 2)
            edges = torch.stack([prompt.point_embeddings[2].weight[0], prompt.point_embeddings[3].weight[0]])
            sparse = prompt.pe_layer._pe_encoding(corners).to(dtype) + edges
            dense = prompt.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(-1, -1, *embedding.shape[-2:])
            low, _ = sam.mask_decoder(embedding, self.place_code, sparse, dense, False)
            return sam.postprocess_masks(low, self.new, (height, width))[0, 0] > 0

        def forward(self, pixels):
            image = pixels[None, None].float()
            box, score = self.best_box(image)
            return self.outline(image, box).to(torch.uint8), torch.cat([box, score[None]])

    return Frame()


def child_frame(args, image):
    """One PyTorch engine, e.g. compile-fp16."""
    import numpy as np
    import torch
    from PIL import Image

    torch.set_grad_enabled(False)
    if args.device == "cpu":
        torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    how, _, precision = args.child.partition("-")
    device, dtype = torch.device(args.device), {"fp32": torch.float32, "fp16": torch.float16}[precision]
    gpu = device.type == "cuda"
    frame = torch.from_numpy(np.asarray(Image.open(image).convert("L")).copy())
    model = frame_module(*read_networks(args), args, *frame.shape, device, dtype)
    up, down = torch.empty_like(frame, pin_memory=gpu), torch.empty_like(frame, pin_memory=gpu)
    found = torch.empty(5, pin_memory=gpu)
    pixels = torch.empty_like(frame, device=device)
    if how == "compile":
        torch._dynamo.mark_static_address(pixels)
        model = torch.compile(model, mode="max-autotune")

    def run(stage):
        up.copy_(frame)  # as a frame arrives in memory that is not the GPU's to read
        pixels.copy_(up, non_blocking=True)
        if how == "compile":
            torch.compiler.cudagraph_mark_step_begin()
        mask, box = model(pixels)
        down.copy_(mask, non_blocking=True)
        found.copy_(box, non_blocking=True)
        if gpu:
            torch.cuda.synchronize()
        return down, found

    for _ in range(5):
        run(FRAME)
    serve(run, [FRAME])


def start_frames(args, folder, image):
    asked, children = {}, []
    sizes = ["--det-size", str(args.det_size), "--sam-size", str(args.sam_size), "--detector", str(args.detector)]
    sizes += ["--segmenter", str(args.segmenter), *(["--threads", str(args.threads)] if args.device == "cpu" else [])]
    for peer in list(args.peers):
        print(f"starting {peer}", file=sys.stderr)
        if peer.startswith("ours"):
            if not os.access(args.binary, os.X_OK):
                print(f"{args.binary} is not there: peers only", file=sys.stderr)
                args.peers = [p for p in args.peers if not p.startswith("ours")]
                break
            device = "cuda:0" if args.device == "cuda" else args.device
            command = [args.binary, "bench", "pipeline", "--serve", "--conf", "0", "--device", device, "--precision", peer.partition("-")[2]]
            children.append(Child([*command, *sizes], None, False))
            asked[FRAME, peer] = children[-1], str(image)
        else:
            command = [sys.executable, __file__, "--device", args.device, "--child", peer, "--folder", str(folder), *sizes]
            children.append(Child([*command, *(["--tf32"] if args.tf32 else [])], None, True))
            asked[FRAME, peer] = children[-1], FRAME
    return asked, children


def check_frames(asked, folder, size):
    """Of each engine: the box and how far its mask is from the judge's. A fast wrong answer is no peer."""
    import numpy as np

    answers, errors = {}, {}
    for (_, peer), (child, word) in asked.items():
        if peer.startswith("ours"):
            answer = child.tell(word)
            answers[peer] = answer["box_xyxy"], None, answer["mask_area_px"]
        else:
            file = folder / f"check-{peer}.npz"
            child.ask(f"{word} {file}")
            with np.load(file) as saved:
                mask, found = (saved[name] for name in saved.files)
            answers[peer] = found[:4].tolist(), mask > 0, int((mask > 0).sum())
    for peer, (box, mask, area) in answers.items():
        row = {"box_xyxy": [round(v, 3) for v in box], "mask_area_px": area}
        if peer != JUDGE and JUDGE in answers:
            judged_box, judged, judged_area = answers[JUDGE]
            width, height = size
            clamped = [min(max(v, 0), width if i % 2 == 0 else height) for i, v in enumerate(judged_box)]
            other = [min(max(v, 0), width if i % 2 == 0 else height) for i, v in enumerate(box)]
            row["box_error_px"] = max(abs(a - b) for a, b in zip(other, clamped))
            row["mask_area_ratio"] = area / judged_area if judged_area else None
            if mask is not None:
                union = int((mask | judged).sum())
                row["mask_iou"] = int((mask & judged).sum()) / union if union else 1.0
        errors[peer] = row
    return errors


def measure(asked, args, stages):
    """Rounds in turn; who is first changes from round to round."""
    for child, word in asked.values():  # warm up
        child.ask(word)
        child.ask(word)
    load = [os.getloadavg()[0]]
    times = {key: [] for key in asked}
    for turn in range(args.rounds):
        for stage in stages:
            order = args.peers[turn % len(args.peers) :] + args.peers[: turn % len(args.peers)]
            for peer in [p for p in order if (stage, p) in asked]:
                child, word = asked[stage, peer]
                times[stage, peer].append(child.ask(word))
    load.append(os.getloadavg()[0])
    return times, load


def need_cuda():
    try:
        import torch
    except ImportError:
        raise SystemExit("peers.py --device cuda: PyTorch is not installed here")
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise SystemExit(
            f"peers.py --device cuda: PyTorch {torch.__version__} ({built}) sees no GPU. It needs an NVIDIA GPU with its driver "
            "(nvidia-smi) and a CUDA build of PyTorch (pip install torch torchvision, without the CPU index of script/parity.txt)"
        )
    return {"gpu": torch.cuda.get_device_name(0), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}


def percentile(values, share):
    return sorted(values)[max(0, -(-len(values) * share // 100) - 1)]


def measure_frames(args):
    gpu = need_cuda() if args.device == "cuda" else {}
    import torch
    from PIL import Image

    torch.set_grad_enabled(False)
    sys.path.insert(0, str(ROOT / "tests" / "parity"))
    import common

    drawn = not (args.detector and args.segmenter)
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        folder = Path(name)
        image = common.draw_image(folder / "image.png", 422, 558, 1, args.seed) if not args.image else Path(args.image).resolve()
        with Image.open(image) as opened:
            size = opened.size
            if opened.mode != "L":
                raise SystemExit(f"{image}: not a gray image")
        if drawn:
            print("drawing weights", file=sys.stderr)
            draw_networks(args, folder, image)
        (folder / "name").write_text(str(image))
        asked, children = start_frames(args, folder, image)
        checked = check_frames(asked, folder, size)
        times, load = measure(asked, args, [FRAME])
        for child in children:
            child.close()
    rows = []
    for (_, peer), ms in times.items():
        row = {"stage": FRAME, "peer": peer, "min_ms": min(ms), "median_ms": statistics.median(ms), "p99_ms": percentile(ms, 99), **checked[peer]}
        for mine in [m for m in args.peers if m.startswith("ours") and not peer.startswith("ours")]:
            pairs = list(zip(times[FRAME, mine], ms))
            row[f"{mine}_over_peer"] = {
                "median_of_rounds": statistics.median(a / b for a, b in pairs),
                "of_minima": min(times[FRAME, mine]) / min(ms),
            }
        rows.append({**row, "ms": ms})
    versions = installed("torch", "mobilesam-mirror", "pydfine", "numpy", "pillow")
    if any(p.startswith("ours") for p in args.peers):
        versions["ours"] = our_version(args.binary)
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "machine": {**machine(), **gpu},
        "device": args.device, "load_average": load, "rounds": args.rounds, "det_size": args.det_size, "sam_size": args.sam_size,
        "picture": list(size), "weights": "random" if drawn else "given", "tf32": args.tf32, "versions": versions, "results": rows,
    }  # fmt: skip


def print_frames(result):
    m, load, size, order = result["machine"], result["load_average"], result["picture"], list(FRAME_PEERS[result["device"]])
    print(f"{m.get('gpu', m['cpu'])}; whole frames {size[0]}x{size[1]}, D-FINE {result['det_size']}, MobileSAM {result['sam_size']}; "
          f"{result['rounds']} rounds, load {load[0]:.1f} to {load[1]:.1f}; fp32 {'with' if result['tf32'] else 'without'} TF32 in PyTorch")  # fmt: skip
    print(", ".join(f"{k} {v}" for k, v in result["versions"].items()), result["date"], sep="; ")
    ours = [p for p in order if p.startswith("ours")]
    print(f"{'engine':<14} {'min ms':>9} {'median ms':>10} {'p99 ms':>9} {' '.join(f'{p}/'.rjust(11) for p in ours)}  against {JUDGE}")
    for row in sorted(result["results"], key=lambda r: order.index(r["peer"])):
        ratios = [row.get(f"{p}_over_peer", {}).get("median_of_rounds") for p in ours]
        cells = " ".join(f"{r:>11.2f}" if r else f"{'':>11}" for r in ratios)
        same = []
        if "box_error_px" in row:
            same.append(f"box {row['box_error_px']:.2f} px")
        if "mask_iou" in row:
            same.append(f"mask IoU {row['mask_iou']:.4f}")
        elif row.get("mask_area_ratio"):
            same.append(f"mask area x {row['mask_area_ratio']:.4f}")
        print(f"{row['peer']:<14} {row['min_ms']:>9.2f} {row['median_ms']:>10.2f} {row['p99_ms']:>9.2f} {cells}  {', '.join(same)}".rstrip())
        for mine, have in zip(ours, ratios):
            if result["device"] == "cpu" and row["peer"] == JUDGE and have:
                print(f"asked: whole frame at most {ASKED_FRAME:.2f} of {JUDGE}, {mine} has {have:.2f}: {'holds' if have <= ASKED_FRAME else 'MISSED'}")


class Child:
    """One engine's process."""

    def __init__(self, command, env, hello):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        if hello:
            self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args[0]} ended with {self.process.wait()}")
        return json.loads(line)

    def tell(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.answer()

    def ask(self, text):
        return self.tell(text)["ms"]

    def peak_mb(self):
        """The most memory it ever had; None where the system does not tell."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return None
        return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:")), None)

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


def machine():
    model, flags = platform.processor(), []
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() == "flags":
                flags = [f for f in FLAGS if f in value.split()]
    except OSError:
        pass
    return {"cpu": model, "flags": flags, "cores": len(os.sched_getaffinity(0)), "system": platform.platform()}


def installed(*packages):
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return versions


def our_version(binary):
    done = subprocess.run([binary, "--version"], capture_output=True, text=True)
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else "unknown"


def write_result(result, where):
    """To the file; true if that was standard output."""
    if where and where != "-":
        Path(where).write_text(json.dumps(result, indent=1) + "\n")
    if where == "-":
        json.dump(result, sys.stdout, indent=1)
        print()
    return where == "-"


def of_frames(result):
    return result["results"][0]["stage"] == FRAME


def stored_result(path):
    try:
        result = json.loads(Path(path).read_text())
        of_frames(result)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as wrong:
        raise argparse.ArgumentTypeError(f"{path}: no result that --json wrote: {wrong!r}") from wrong
    return result


def whole(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=os.environ.get("ULTRAMOTION", str(ROOT / "build" / "ultramotion")))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cpu: each network; cuda: whole frames")
    parser.add_argument("--frames", action="store_true", help="whole frames also on the cpu, without torch.compile")
    parser.add_argument("--rounds", type=whole, help="default 10 on cpu, 200 on cuda")
    parser.add_argument("--threads", type=whole, default=2, help="of every engine, networks on the cpu")
    parser.add_argument("--only", default="", help="stages and engines, e.g. dfine-n,openvino,ours or compile-fp16; none named of one kind means all of it")
    parser.add_argument("--json", metavar="FILE", help="write the result here too; - for standard output instead of the table")
    parser.add_argument("--from", metavar="FILE", dest="stored", type=stored_result, help="measure nothing: the table, and --plot, of this result")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the medians, networks on the cpu")
    parser.add_argument("--calibrate", type=int, default=32, metavar="N", help="images that our int8 is calibrated on; default 32")
    parser.add_argument("--no-amx", action="store_true", help="everybody without AMX: as on a processor with AVX-512 VNNI")
    parser.add_argument("--seed", type=int, default=1)
    frames = parser.add_argument_group("whole frames")
    frames.add_argument("--detector", help="D-FINE checkpoint in upstream's names; default: random weights, size N")
    frames.add_argument("--segmenter", help="MobileSAM checkpoint; default: random weights")
    frames.add_argument("--size", choices=("n", "s"), default="n", help="of the detector that is drawn; default n")
    frames.add_argument("--det-size", type=int, default=640)
    frames.add_argument("--sam-size", type=int, default=1024)
    frames.add_argument("--image", help="gray image; default: one like an ultrasound frame, 422 x 558")
    frames.add_argument("--tf32", action="store_true", help="let PyTorch's fp32 use TF32")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--quantise", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.frames = args.frames or args.device == "cuda"
    if args.rounds is None:
        args.rounds = 200 if args.device == "cuda" else 10
    if args.plot and (of_frames(args.stored) if args.stored else args.frames):
        parser.error("--plot draws networks on the cpu, not whole frames")
    if bool(args.detector) != bool(args.segmenter):
        parser.error("--detector and --segmenter go together")
    stages, peers = ([FRAME], list(FRAME_PEERS[args.device])) if args.frames else (list(STAGES), list(PEERS))
    words = {w for w in args.only.split(",") if w}
    if words - set(stages) - set(peers):
        parser.error(f"--only: {', '.join(words - set(stages) - set(peers))}; stages {', '.join(stages)}; engines {', '.join(peers)}")
    args.stages = [s for s in stages if s in words] or [s for s in stages if s not in UNASKED]
    args.peers = [p for p in peers if p in words] or peers
    args.plans = None  # of int8, once they are made
    return args


def environment(args):
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    if args.no_amx:  # ours and oneDNN, which PyTorch and OpenVINO compute with
        env.update(ULTRAMOTION_CPU="avx512", ONEDNN_MAX_CPU_ISA="AVX512_CORE_VNNI")
    return env


def calibrated(args, folder, files):
    """Our files with plans for int8, found at the sizes that the files are for; without those that `convert` refuses to make."""
    if args.plans is None:
        args.plans = {}
        source = f"phantom:seed=77,frames={args.calibrate}"
        for name, path in files.items():
            if name == "image":
                continue
            made = folder / f"{name}-int8.safetensors"
            command = [args.binary, "convert", path, made, "--precision", "int8", "--calibrate", source, "--frames", args.calibrate]
            done = subprocess.run([str(w) for w in command], capture_output=True, text=True)
            if done.returncode:
                print(f"ours has no int8 of {name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            else:
                args.plans[name] = made
    return {"image": files["image"], **args.plans}


def start_ours(args, folder, files, asked, children):
    """One process per detector and precision."""
    env = environment(args)
    for precision in dict.fromkeys(ENGINES[p].precision for p in OURS if p in args.peers):
        print(f"starting ours, {precision}", file=sys.stderr)
        own = calibrated(args, folder, files) if precision == "int8" else files
        engines = [p for p in OURS if p in args.peers and ENGINES[p].precision == precision]
        base = [args.binary, "bench", "stages", "--serve", "--precision", precision, "--det-size", 640, "--sam-size", 1024, "--threads", args.threads]
        wanted = [s for s in args.stages if any(s in ENGINES[p].stages for p in engines)]
        detectors = [s for s in wanted if s.startswith("dfine") and s in own] or ["dfine-n"]
        for detector in detectors:
            words = ["--detector", own[detector]] + (["--segmenter", own["segmenter"]] if "segmenter" in own else [])
            children.append(Child([str(w) for w in (*base, *words)], env, False))
            last = detector == detectors[-1]
            for stage in wanted:
                if stage == detector or (last and not stage.startswith("dfine")):
                    asked.update({(stage, p): (children[-1], ENGINES[p].words[stage]) for p in engines if stage in ENGINES[p].stages})


def start(args, folder, files):
    """The children: for each stage and engine whom to ask and what."""
    asked, children = {}, []
    for peer in [p for p in args.peers if p not in OURS]:
        stages = [s for s in args.stages if s in ENGINES[peer].stages]
        if not stages:
            continue
        print(f"starting {peer}", file=sys.stderr)
        command = [sys.executable, __file__, "--folder", str(folder), "--threads", str(args.threads), "--seed", str(args.seed)]
        command += ["--only", ",".join(stages), "--child", peer]
        if ENGINES[peer].precision == "int8":
            subprocess.run([*command, "--quantise"], check=True, env=environment(args), stdout=subprocess.DEVNULL)
        children.append(Child(command, environment(args), True))
        asked.update({(stage, peer): (children[-1], stage) for stage in stages})
    if set(OURS) & set(args.peers):
        if os.access(args.binary, os.X_OK):
            start_ours(args, folder, files, asked, children)
        else:
            print(f"{args.binary} is not there: peers only", file=sys.stderr)
            args.peers = [p for p in args.peers if p not in OURS]
    return asked, children


def signal_to_noise(found, true):
    """In dB."""
    import numpy as np

    found, true = np.asarray(found, np.float64), np.asarray(true, np.float64)
    noise = float(((found - true) ** 2).sum())
    return 10 * math.log10(float((true**2).sum()) / noise) if noise else math.inf


def compare(stage, found, true):
    """How far outputs are from those of an engine's fp32. Detectors: how far, in pixels of the input, from the best box to the next of the
    ten best, and the signal to noise of the sorted scores. Segmenters: signal to noise of embedding or logits, in dB."""
    import numpy as np

    if not stage.startswith("dfine"):
        return {"snr_db": signal_to_noise(found[0], true[0])}

    def best(outputs, n):
        score = outputs[0].reshape(-1, outputs[0].shape[-1]).max(-1)
        cx, cy, w, h = outputs[1].reshape(-1, 4)[np.argsort(-score)[:n]].T * 640
        return np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1)

    box = float(np.abs(best(found, 10) - best(true, 1)).max(1).min())
    return {"box_px": box, "snr_db": signal_to_noise(np.sort(found[0].ravel()), np.sort(true[0].ravel()))}


def our_outputs(args, folder, files, precision):
    """Of the command, on the image that the networks were drawn for: by stage."""
    from safetensors.numpy import load_file

    outputs = {}
    own = calibrated(args, folder, files) if precision == "int8" else files
    for detector in [s for s in args.stages if s.startswith("dfine") and s in own] or ["dfine-n"]:
        out = folder / f"ours-{precision}-{detector}.safetensors"
        command = [args.binary, "run", files["image"], "-o", "null:", "-q", "--conf", 0, "--det-smooth", 1, "--dump", out, "--precision", precision]
        command += ["--det-size", 640, "--sam-size", 1024, "--threads", args.threads, "--detector", own[detector]]
        command += ["--segmenter", own["segmenter"]] if "segmenter" in own else []
        subprocess.run([str(w) for w in command], check=True, env=environment(args))
        taps = load_file(out)
        outputs[detector] = [taps["pred_logits"], taps["pred_boxes"]]
        outputs["encode"] = [taps["image_embedding"]]
    return outputs


def check(asked, folder, args, files):
    """Each engine's outputs against its judge's: a fast wrong answer is no peer."""
    import numpy as np

    outputs, found = {}, {}
    for (stage, peer), (child, word) in asked.items():
        if peer not in OURS:
            file = folder / f"check-{stage}-{peer}.npz"
            child.ask(f"{word} {file}")
            with np.load(file) as saved:
                outputs[stage, peer] = [saved[name] for name in saved.files]
    for peer in [p for p in OURS if p in args.peers and ENGINES[p].judge]:
        taps = our_outputs(args, folder, files, ENGINES[peer].precision)
        outputs.update({(s, peer): taps[s] for s in args.stages if s in taps})
    for (stage, peer), out in outputs.items():
        judge = ENGINES[peer].judge
        if judge and (stage, judge) in outputs:
            found[stage, peer] = {"against": judge, **compare(stage, out, outputs[stage, judge])}
    return found


def ratio(times, stage, mine, peer):
    return statistics.median(a / b for a, b in zip(times[stage, mine], times[stage, peer]))


def judge_asked(result):
    """Rows of ASKED that were measured: the ratio to the peer that is best, and whether that is what is asked."""
    times = {(r["stage"], r["peer"]): r["ms"] for r in result["results"]}
    flags = [f for f in result["machine"]["flags"] if not (result.get("no_amx") and f.startswith("amx"))]
    rows = []
    for stage, mine, precisions, most, flag in ASKED:
        peers = [p for s, p in times if s == stage and p not in OURS and ENGINES[p].precision in precisions]
        if (stage, mine) not in times or not peers or (flag and flag not in flags):
            continue
        best = max(peers, key=lambda p: ratio(times, stage, mine, p))
        have = ratio(times, stage, mine, best)
        rows.append({"stage": stage, "ours": mine, "best_peer": best, "asked": most, "have": have, "holds": have <= most})
    return rows


def measure_networks(args):
    import numpy as np
    import torch

    torch.set_grad_enabled(False)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        folder = Path(name)
        need = set(args.stages) | ({"dfine-n", "encode"} if set(OURS) & set(args.peers) else set())
        print("exporting", file=sys.stderr)
        modules, inputs, files, preprocess = networks(folder, args.seed, need)
        export({s: modules[s] for s in args.stages}, inputs, folder)
        for stage in args.stages:
            np.savez(folder / f"{stage}.npz", **{k: v.numpy() for k, v in zip(INPUTS[stage], inputs[stage])})
        if any(ENGINES[p].precision == "int8" and p not in OURS for p in args.peers):
            save_calibration(args, folder, preprocess)
        del modules, inputs
        asked, children = start(args, folder, files)
        accuracy = check(asked, folder, args, files)
        times, load = measure(asked, args, args.stages)
        peaks = {key: child.peak_mb() for key, (child, _) in asked.items()}
        for child in children:
            child.close()

    versions = installed("torch", "onnxruntime", "openvino", "nncf", "onnx", "mobilesam-mirror", "pydfine")
    if set(OURS) & set(args.peers):
        versions["ours"] = our_version(args.binary)
    rows = []
    for (stage, peer), ms in times.items():
        row = {"stage": stage, "peer": peer, "precision": ENGINES[peer].precision, "min_ms": min(ms), "median_ms": statistics.median(ms), "ms": ms}
        row.update({"peak_mb": peaks[stage, peer]}, **accuracy.get((stage, peer), {}))
        if peer not in OURS and (stage, "ours") in times:
            row["ours_over_peer"] = {
                "median_of_rounds": ratio(times, stage, "ours", peer),
                "of_minima": min(times[stage, "ours"]) / min(ms),
            }
        rows.append(row)
    result = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(), "load_average": load, "threads": args.threads, "rounds": args.rounds, "no_amx": args.no_amx, "versions": versions,
        "results": rows,
    }  # fmt: skip
    return {**result, "asked": judge_asked(result)}


def save_calibration(args, folder, preprocess):
    """Inputs of images that no engine is timed on."""
    import dfine_net
    import numpy as np
    import sam_net

    images = [p for p in sorted(IMAGES.glob("phantom_*.png")) if p.name != "phantom_0.png"]
    for stage in [s for s in args.stages if s in QUANTISED]:
        make = (lambda p: preprocess(sam_net.prepare(p, 1024)[0])) if stage == "encode" else (lambda p: dfine_net.network_input(p, 640))
        np.savez(folder / f"{stage}-calibration.npz", *[make(p).numpy() for p in images])


def print_table(result):
    m, load, rows = result["machine"], result["load_average"], result["results"]
    print(f"{m['cpu']}, {m['cores']} cores, {' '.join(m['flags'])}; {result['threads']} threads, {result['rounds']} rounds, "
          f"load {load[0]:.1f} to {load[1]:.1f}")  # fmt: skip
    print(", ".join(f"{k} {v}" for k, v in result["versions"].items()), result["date"], sep="; ")
    print(f"{'stage':<28} {'engine':<17} {'min ms':>8} {'median':>8} {'ours/peer':>10} {'of minima':>9} {'peak MB':>8}  accuracy")
    for row in sorted(rows, key=lambda r: (list(STAGES).index(r["stage"]), PEERS.index(r["peer"]))):
        over = row.get("ours_over_peer")
        cells = f"{over['median_of_rounds']:>10.2f} {over['of_minima']:>9.2f}" if over else f"{'':>20}"
        peak = f"{row['peak_mb']:>8.0f}" if row.get("peak_mb") else f"{'':>8}"
        said = [f"{row['snr_db']:.1f} dB"] if "snr_db" in row else []
        said += [f"box {row['box_px']:.2g} px"] if "box_px" in row else []
        said += [f"against {row['against']}"] if said else []
        print(f"{STAGES[row['stage']]:<28} {row['peer']:<17} {row['min_ms']:>8.2f} {row['median_ms']:>8.2f} {cells} {peak}  {' '.join(said)}".rstrip())
    asked = judge_asked(result)
    if asked:
        print(f"\n{'asked at most':<28} {'ours':<17} {'best peer':<17} {'asked':>6} {'have':>6}")
    for row in asked:
        print(f"{STAGES[row['stage']]:<28} {row['ours']:<17} {row['best_peer']:<17} {row['asked']:>6.2f} {row['have']:>6.2f}  "
              f"{'holds' if row['holds'] else 'MISSED'}")  # fmt: skip


def plot(result, path):
    """A panel for each network: medians, ours in colour."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    stages = [s for s in STAGES if any(r["stage"] == s for r in result["results"])]
    figure, panels = plt.subplots(1, len(stages), figsize=(3.4 * len(stages), 3.6), squeeze=False, layout="constrained")
    for panel, stage in zip(panels[0], stages):
        rows = [r for p in reversed(PEERS) for r in result["results"] if r["stage"] == stage and r["peer"] == p]
        bars = panel.barh([r["peer"] for r in rows], [r["median_ms"] for r in rows], color=["#0072b2" if r["peer"] in OURS else "#bbbbbb" for r in rows])
        panel.bar_label(bars, [f"{r['median_ms']:.0f}" for r in rows], padding=2, fontsize=7)
        panel.set_title(STAGES[stage], fontsize=9)
        panel.set_xlabel("ms", fontsize=8)
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
        panel.margins(x=0.15)
    figure.suptitle(f"{result['machine']['cpu']}, {result['threads']} threads, {result['date'][:10]}, median of {result['rounds']} rounds", fontsize=8)
    figure.savefig(path, metadata={"Date": None} if str(path).endswith(".svg") else None)


def main():
    args = parse()
    warnings.filterwarnings("ignore")
    if args.child and args.child in FRAME_PEERS["cuda"]:
        sys.path.insert(0, str(ROOT / "tests" / "parity"))
        child_frame(args, (Path(args.folder) / "name").read_text())
        return
    if args.child:
        child = child_quantise if args.quantise else globals()[f"child_{args.child.partition('-')[0]}"]
        child(Path(args.folder), args, args.child)
        return
    result = args.stored or (measure_frames if args.frames else measure_networks)(args)
    if args.plot:
        plot(result, args.plot)
    if not write_result(result, args.json):
        (print_frames if of_frames(result) else print_table)(result)


if __name__ == "__main__":
    main()
