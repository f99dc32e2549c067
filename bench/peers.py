# SPDX-License-Identifier: Apache-2.0
"""Speed of each network beside its peers on the same machine, threads and weights: PyTorch eager, ONNX Runtime, OpenVINO, ours.

Every engine is a child process that runs one stage per line on its stdin and answers {"stage":…,"ms":…}; rounds alternate engine
by engine, so that other load on the machine falls on all of them. Shared machines: compare minima."""

import argparse
import datetime
import importlib.metadata
import json
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
STAGES = {"dfine-n": "D-FINE-N 640", "dfine-s": "D-FINE-S 640", "encode": "MobileSAM encoder 1024", "decode": "MobileSAM decoder 1024, box"}
PEERS = ("torch", "onnxruntime", "openvino", "ours", "ours-gray")
OURS = ("ours", "ours-gray")  # on the same three-channel input as the peers; on gray input, the detector only
FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16")
INPUTS = {"dfine-n": ["images"], "dfine-s": ["images"], "encode": ["image"], "decode": ["embedding", "box"]}
OUTPUTS = {"dfine-n": ["logits", "boxes"], "dfine-s": ["logits", "boxes"], "encode": ["embedding"], "decode": ["low", "iou"]}


def networks(folder, seed, wanted):
    """Modules, inputs and checkpoints of the four stages, with random weights."""
    import torch

    sys.path.insert(0, str(ROOT / "tests" / "parity"))
    import common
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

    picture = common.picture(folder / "picture.png", 422, 558, 1, seed)
    modules, inputs, files = {}, {}, {"picture": picture}
    for size in "ns":
        stage = f"dfine-{size}"
        if stage in wanted:
            net, _ = dfine_net.random_network(size, 1, 640, picture, seed)
            files[stage] = folder / f"{stage}.pth"
            torch.save({"model": net.state_dict()}, files[stage])
            modules[stage], inputs[stage] = Detect(net), (dfine_net.network_input(picture, 640),)
    if wanted & {"encode", "decode"}:
        x, input_size, original = sam_net.prepare(picture, 1024)
        net = sam_net.random_network(1024, x, seed, True)
        files["segmenter"] = folder / "mobile_sam.pt"
        torch.save(net.state_dict(), files["segmenter"])
        canvas = net.preprocess(x)
        modules["encode"], inputs["encode"] = net.image_encoder, (canvas,)
        scale = 1024 / 558
        box = torch.tensor([[120.5 * scale, 90.25 * scale, 301.75 * scale, 402.5 * scale]])
        modules["decode"], inputs["decode"] = Decode(net), (net.image_encoder(canvas), box)
    return {k: v for k, v in modules.items() if k in wanted}, inputs, files


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


def child_torch(folder, threads, seed, wanted):
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    modules, inputs, _ = networks(folder, seed, wanted)

    def run(stage):
        out = modules[stage](*inputs[stage])
        return out if isinstance(out, tuple) else (out,)

    serve(run, modules)


def saved_inputs(folder, stage):
    import numpy as np

    with np.load(folder / f"{stage}.npz") as file:
        return [file[name] for name in INPUTS[stage]]


def child_onnxruntime(folder, threads, seed, wanted):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # between runs the others have the cores
    sessions = {s: onnxruntime.InferenceSession(str(folder / f"{s}.onnx"), options, providers=["CPUExecutionProvider"]) for s in wanted}
    feeds = {s: dict(zip(INPUTS[s], saved_inputs(folder, s))) for s in wanted}
    serve(lambda stage: sessions[stage].run(None, feeds[stage]), wanted)


def child_openvino(folder, threads, seed, wanted):
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    requests = {s: core.compile_model(core.read_model(folder / f"{s}.onnx"), "CPU", settings).create_infer_request() for s in wanted}
    feeds = {s: saved_inputs(folder, s) for s in wanted}

    def run(stage):
        done = requests[stage].infer(feeds[stage], share_inputs=True, share_outputs=True)
        return [done[i] for i in range(len(OUTPUTS[stage]))]

    serve(run, wanted)


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

    def ask(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.answer()["ms"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)


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


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=os.environ.get("ULTRAMOTION", str(ROOT / "build" / "ultramotion")))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="stages and engines, e.g. dfine-n,openvino,ours; none named of one kind means all of it")
    parser.add_argument("--json", metavar="FILE", help="write the result here too; - for standard output instead of the table")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    words = {w for w in args.only.split(",") if w}
    if words - set(STAGES) - set(PEERS):
        parser.error(f"--only: {', '.join(words - set(STAGES) - set(PEERS))}; stages {', '.join(STAGES)}; engines {', '.join(PEERS)}")
    args.stages = [s for s in STAGES if s in words] or list(STAGES)
    args.peers = [p for p in PEERS if p in words] or list(PEERS)
    return args


def start(args, folder, files):
    """The children: for each stage and engine whom to ask and what."""
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    asked, children = {}, []
    for peer in [p for p in args.peers if p not in OURS]:
        print(f"starting {peer}", file=sys.stderr)
        command = [sys.executable, __file__, "--child", peer, "--folder", str(folder), "--threads", str(args.threads), "--seed", str(args.seed)]
        children.append(Child([*command, "--only", ",".join(args.stages)], env, True))
        asked.update({(stage, peer): (children[-1], stage) for stage in args.stages})
    if set(OURS) & set(args.peers):
        if not os.access(args.binary, os.X_OK):
            print(f"{args.binary} is not there: peers only", file=sys.stderr)
            args.peers = [p for p in args.peers if p not in OURS]
        else:
            print("starting ours", file=sys.stderr)
            base = [args.binary, "bench", "stages", "--det-size", "640", "--sam-size", "1024", "--threads", str(args.threads), "--serve"]
            for detector in [s for s in args.stages if s.startswith("dfine")] or ["dfine-n"]:
                words = ["--detector", files[detector]] + (["--segmenter", files["segmenter"]] if "segmenter" in files else [])
                children.append(Child([*base, *map(str, words)], None, False))
                if detector in args.stages:
                    asked[detector, "ours"] = (children[-1], "rgb detect")
                    asked[detector, "ours-gray"] = (children[-1], "detect")
            for stage in set(args.stages) & {"encode", "decode"}:
                asked[stage, "ours"] = (children[-1], stage)
    return {(s, p): v for (s, p), v in asked.items() if p in args.peers}, children


def check_peers(asked, folder, args):
    """Each export's outputs against PyTorch's: a fast wrong answer is no peer."""
    import numpy as np

    errors = {}
    for stage in args.stages:
        outputs = {}
        for peer in [p for p in args.peers if p not in OURS]:
            file = folder / f"check-{peer}.npz"
            child, word = asked[stage, peer]
            child.ask(f"{word} {file}")
            with np.load(file) as saved:
                outputs[peer] = [saved[name] for name in saved.files]
        for peer in outputs:
            if peer == "torch" or "torch" not in outputs:
                continue
            worst = 0.0
            for ours, theirs in zip(outputs[peer], outputs["torch"]):
                if stage.startswith("dfine"):  # queries in any order
                    ours, theirs = np.sort(ours.reshape(-1, ours.shape[-1]), 0), np.sort(theirs.reshape(-1, theirs.shape[-1]), 0)
                worst = max(worst, float(np.abs(ours - theirs).max()))
            errors[stage, peer] = worst
    return errors


def main():
    args = parse()
    warnings.filterwarnings("ignore")
    if args.child:
        globals()[f"child_{args.child}"](Path(args.folder), args.threads, args.seed, set(args.stages))
        return
    import numpy as np
    import torch

    torch.set_grad_enabled(False)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        folder = Path(name)
        need = set(args.stages) | ({"dfine-n", "encode"} if set(OURS) & set(args.peers) else set())
        print("drawing weights, exporting", file=sys.stderr)
        modules, inputs, files = networks(folder, args.seed, need)
        export({s: modules[s] for s in args.stages}, inputs, folder)
        for stage in args.stages:
            np.savez(folder / f"{stage}.npz", **{k: v.numpy() for k, v in zip(INPUTS[stage], inputs[stage])})
        asked, children = start(args, folder, files)
        errors = check_peers(asked, folder, args)
        for child, word in asked.values():  # warm up
            child.ask(word)
            child.ask(word)
        load = [os.getloadavg()[0]]
        times = {key: [] for key in asked}
        for turn in range(args.rounds):
            for stage in args.stages:
                order = args.peers[turn % len(args.peers) :] + args.peers[: turn % len(args.peers)]
                for peer in [p for p in order if (stage, p) in asked]:
                    child, word = asked[stage, peer]
                    times[stage, peer].append(child.ask(word))
        load.append(os.getloadavg()[0])
        for child in children:
            child.close()

    versions = {p: importlib.metadata.version(p) for p in ("torch", "onnxruntime", "openvino", "onnx", "mobilesam-mirror", "pydfine")}
    if set(OURS) & set(args.peers):
        done = subprocess.run([args.binary, "--version"], capture_output=True, text=True)
        versions["ours"] = done.stdout.strip().splitlines()[0] if done.stdout.strip() else "unknown"
    rows = []
    for (stage, peer), ms in times.items():
        row = {"stage": stage, "peer": peer, "min_ms": min(ms), "median_ms": statistics.median(ms), "ms": ms}
        if (stage, peer) in errors:
            row["max_error_against_torch"] = errors[stage, peer]
        if peer not in OURS and (stage, "ours") in times:
            mine = times[stage, "ours"]
            row["ours_over_peer"] = {"median_of_rounds": statistics.median(a / b for a, b in zip(mine, ms)), "of_minima": min(mine) / min(ms)}
        rows.append(row)
    result = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(), "load_average": load, "threads": args.threads, "rounds": args.rounds, "versions": versions, "results": rows,
    }  # fmt: skip
    if args.json and args.json != "-":
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
    if args.json == "-":
        json.dump(result, sys.stdout, indent=1)
        print()
        return
    m = result["machine"]
    print(f"{m['cpu']}, {m['cores']} cores, {' '.join(m['flags'])}; {args.threads} threads, {args.rounds} rounds, load {load[0]:.1f} to {load[1]:.1f}")
    print(", ".join(f"{k} {v}" for k, v in versions.items()), result["date"], sep="; ")
    print(f"{'stage':<30} {'engine':<12} {'min ms':>9} {'median ms':>10} {'ours/peer':>10} {'of minima':>10}  error against torch")
    for row in sorted(rows, key=lambda r: (args.stages.index(r["stage"]), args.peers.index(r["peer"]))):
        ratio = row.get("ours_over_peer")
        cells = f"{ratio['median_of_rounds']:>10.2f} {ratio['of_minima']:>10.2f}" if ratio else f"{'':>21}"
        error = f"{row['max_error_against_torch']:.1e}" if "max_error_against_torch" in row else ""
        print(f"{STAGES[row['stage']]:<30} {row['peer']:<12} {row['min_ms']:>9.2f} {row['median_ms']:>10.2f} {cells}  {error}".rstrip())


if __name__ == "__main__":
    main()
