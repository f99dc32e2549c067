# SPDX-License-Identifier: Apache-2.0
"""What the parity scripts share: command line, running the command under test, images, the table of results."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1e-3
AIM = 2e-5


def arguments(description, extra=None):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--binary", default=os.environ.get("ULTRAMOTION", str(ROOT / "build" / "ultramotion")))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="run the cases whose name contains this text")
    parser.add_argument("--full", action="store_true", help="also the slow cases")
    parser.add_argument("--oracle", action="store_true", help="PyTorch alone: build, save and run the cases, no command")
    parser.add_argument("--taps", action="store_true", help="print every intermediate, not only those of failed cases")
    parser.add_argument("--keep", metavar="DIR", help="leave checkpoints, images and dumps in this folder")
    if extra:
        extra(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    if not args.oracle and not os.access(args.binary, os.X_OK):
        parser.error(f"{args.binary} is not there: build first, or name it with --binary")
    if args.keep:
        Path(args.keep).mkdir(parents=True, exist_ok=True)
    return args


class Folder:
    """The folder of one run: temporary, unless --keep names one."""

    def __init__(self, keep):
        self.temporary = None if keep else tempfile.TemporaryDirectory(prefix="parity-")
        self.path = Path(keep or self.temporary.name)

    def __truediv__(self, name):
        return self.path / name


class CommandFailed(Exception):
    pass


def run(args, *words, ok=(0,)):
    """Run `ultramotion WORDS`, on the device under test; its stdout."""
    command = [args.binary, *map(str, words)]
    if words[0] != "phantom":  # computes nothing on a device
        command += ["--device", args.device, "--precision", args.precision, "--threads", str(args.threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if done.returncode not in ok:
        tail = done.stderr.strip().splitlines()[-3:]
        raise CommandFailed(f"exit {done.returncode}: {' | '.join(tail) or 'no message'} ({' '.join(command)})")
    return done.stdout


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def read_dump(path):
    return {name: tensor.float() for name, tensor in load_file(str(path)).items()}


class Report:
    """The table of one script. Errors are maximal absolute differences."""

    def __init__(self, title, args):
        self.args, self.passed, self.failed, self.skipped = args, 0, 0, 0
        print(f"{title}  (seed {args.seed}, device {args.device}, torch {torch.__version__} as judge)")
        print(f"{'case':<44} {'what':<16} {'max error':>10} {'limit':>10}  result", flush=True)

    def line(self, case, what, error, limit, note=""):
        good = bool(error <= limit)  # false for NaN
        self.passed, self.failed = self.passed + good, self.failed + (not good)
        word = "PASS" if good else "FAIL"
        print(f"{case:<44} {what:<16} {error:>10.2e} {limit:>10.2e}  {word} {note}".rstrip(), flush=True)
        return good

    def fail(self, case, reason):
        self.failed += 1
        print(f"{case:<44} {'':<16} {'':>10} {'':>10}  FAIL {reason}", flush=True)

    def skip(self, case, reason):
        self.skipped += 1
        print(f"{case:<44} {'':<16} {'':>10} {'':>10}  skipped: {reason}", flush=True)

    def oracle(self, case, what, rounding):
        print(f"{case:<44} {what:<16} {rounding:>10.2e} {'':>10}  torch fp32 against fp64", flush=True)

    def taps(self, ours, theirs, index=None):
        """Compare named intermediates in network order, relative to each tensor's largest value.

        index: for each of their queries, ours; applied to tensors with a row per query."""
        for name, want in theirs.items():
            if name not in ours:
                continue
            got = ours[name]
            if got.numel() != want.numel():
                print(f"    tap {name:<24} shape {tuple(got.shape)}, want {tuple(want.shape)}", flush=True)
                continue
            if got.dim() == 4 and want.dim() == 3:  # maps are dumped as maps, also where upstream has tokens
                got = got.flatten(2).transpose(1, 2)
            if index is not None and want.dim() == 3 and want.shape[1] == len(index):
                got = got.reshape(want.shape)[:, index]
            scale = want.abs().max().clamp(min=1e-30)
            error = ((got.reshape(want.shape) - want).abs().max() / scale).item()
            print(f"    tap {name:<24} relative {error:.1e}{'' if error < 1e-4 else '  <--'}", flush=True)
        unknown = [name for name in ours if name not in theirs]
        if unknown:
            print(f"    taps not compared: {' '.join(sorted(unknown))}", flush=True)

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped", flush=True)
        sys.exit(1 if self.failed else 0)


def run_cases(report, args, folder, check, cases):
    """Those of the (name, slow, case) that the arguments ask for."""
    for name, slow, case in cases:
        if args.only not in name or (slow and not args.full and not args.only):
            continue
        start = time.monotonic()
        try:
            check(report, args, folder, case)
        except CommandFailed as error:
            report.fail(name, error)
        if args.taps or args.oracle:
            print(f"    {time.monotonic() - start:.1f} s")
        if not args.keep:
            for file in folder.path.glob(f"{name}*"):
                shutil.rmtree(file) if file.is_dir() else file.unlink()


def draw_image(path, width, height, channels, seed):
    """A phantom-like image: layers, speckle and a bright ridge; RGB images have three different channels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    image = np.full((height, width), 0.15, np.float32)
    for _ in range(4):
        image = np.where(y > rng.uniform(0, height) + rng.uniform(-0.2, 0.2) * x, rng.uniform(0.05, 0.5), image)
    ridge = rng.uniform(0.2, 0.6) * height + 1e-3 * (x - rng.uniform(0.3, 0.7) * width) ** 2
    image += 1.2 * np.exp(-(((y - ridge) / (0.012 * height + 1)) ** 2))
    image *= rng.rayleigh(0.8, (height, width)).astype(np.float32)
    planes = [np.clip(255 * image, 0, 255)]
    while len(planes) < channels:
        planes.append(np.clip(255 * image * rng.uniform(0.5, 1.3) + rng.normal(0, 9, image.shape), 0, 255))
    pixels = np.stack(planes, -1).astype(np.uint8)
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(path)
    return path


def random_parameters(module, generator):
    """Give every parameter and BatchNorm buffer a random value such that none is zero and activations stay near 1."""

    def normal(tensor, std):
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)

    def uniform(tensor, low, high):
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    for _, m in module.named_modules():
        kind = type(m).__name__
        if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d)):
            normal(m.weight, m.weight[0].numel() ** -0.5)
            if m.bias is not None:
                normal(m.bias, 0.2)
        elif isinstance(m, torch.nn.ConvTranspose2d):
            normal(m.weight, m.weight.shape[0] ** -0.5)
            normal(m.bias, 0.2)
        elif isinstance(m, torch.nn.MultiheadAttention):
            normal(m.in_proj_weight, m.embed_dim**-0.5)
            normal(m.in_proj_bias, 0.2)
        elif isinstance(m, torch.nn.Embedding):
            normal(m.weight, 1.0)
        elif "LayerNorm" in kind:
            uniform(m.weight, 0.5, 1.5)
            normal(m.bias, 0.2)
        elif "BatchNorm" in kind:
            # Mostly positive before the ReLU: each further convolution then amplifies rounding less, which in the
            # sixty of the largest networks otherwise adds up to a factor of a thousand.
            uniform(m.weight, 0.5, 1.5)
            normal(m.bias, 0.3)
            m.bias.add_(0.8)
        elif kind.endswith(("LAB", "LearnableAffineBlock")):
            uniform(m.scale, 0.6, 1.4)
            normal(m.bias, 0.2)


def calibrate(module, forward):
    """Set every BatchNorm's running statistics to those of one forward pass, slightly off so that nothing normalises exactly."""

    def before(m, inputs):
        x = inputs[0]
        m.running_mean.copy_(x.mean((0, 2, 3)) + 0.02)
        m.running_var.copy_(1.1 * x.var((0, 2, 3), unbiased=False) + 1e-3)

    norms = [m for m in module.modules() if "BatchNorm" in type(m).__name__]
    hooks = [m.register_forward_pre_hook(before) for m in norms]
    forward()
    for hook in hooks:
        hook.remove()


def worst(a, b):
    """Maximal absolute difference; NaN anywhere counts as infinite."""
    d = (a.double() - b.double()).abs()
    return float("inf") if torch.isnan(d).any() else d.max().item()
