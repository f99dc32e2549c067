# SPDX-License-Identifier: Apache-2.0
"""What both recipes share: command line, seeds, schedule, averaged weights, a log, and checkpoints that a killed run goes on from."""

import argparse
import contextlib
import fcntl
import hashlib
import json
import math
import os
import pickle
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

import dataset
import phantom

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "models"
FALL = 5  # one in so many steps, the last ones, has a falling rate
LOST = 20  # so many steps in a row without a loss end a run
NOTHING_REAL = "; no real picture"  # how what only the phantom taught ends
LASTING = "start", "seed", "batch", "lite", "only", "data", "marks", "canvas"  # arguments that a run keeps to its end


def number(kind, least, most=1e9):
    def read(text):
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not from {least:g} to {most:g}")
        return value

    read.__name__ = kind.__name__  # argparse's name for it
    return read


def named(text):
    if not text:  # a shell's variable that is not set, say, would train on the phantom
        raise argparse.ArgumentTypeError("a name is empty")
    return text


def weights_file(text):
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text}: no such file")
    return Path(text)


def arguments(description, start, steps, batch, rate, more=None, boxes_do=False):
    p = argparse.ArgumentParser(description=description)
    p.add_argument("out", type=Path, help="folder of the run: checkpoint, log, model; an existing run is resumed")
    p.add_argument("--start", type=weights_file, default=start, help="weights to start from, .safetensors; default: the bundled model")
    p.add_argument("--data", type=named, metavar="DATASET", help="train on labelled images of your own: what `ultramotion val` takes, a folder with "
                   "NAME_mask.png beside its images, or a COCO .json; default: the phantom")
    p.add_argument("--masks", type=named, metavar="DIR", help="where the masks of the folder are, as in val")
    p.add_argument("--pictures", type=named, metavar="DIR", help="where the images of the COCO .json are, as in val")
    p.add_argument("--window", type=dataset.window, default=(0, 0, 0), metavar="LO,HI|auto", help="of 16-bit images, as in run")
    p.add_argument("--phantom", type=number(float, 0, 1), default=0, metavar="SHARE", help="share of phantom frames among your own images, one "
                   "of whose classes is bone")
    p.add_argument("--marks", type=number(float, 0, 1), default=0, metavar="SHARE", help="share of images over which frames and calipers are drawn in "
                   "white or gray, for scanners that do")
    p.add_argument("--steps", type=number(int, 1), default=steps)
    p.add_argument("--batch", type=number(int, 1), default=batch)
    p.add_argument("--rate", type=number(float, 0, 1), default=rate, help="learning rate; falls to 5 %% over the last fifth of the steps")
    p.add_argument("--seed", type=number(int, 0), default=1)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--threads", type=number(int, 1), default=os.cpu_count())
    p.add_argument("--workers", type=number(int, 1), default=min(12, os.cpu_count()), help="processes that generate images")
    p.add_argument("--bf16", action="store_true", help="autocast; faster on GPUs and CPUs with AMX or AVX-512 BF16")
    p.add_argument("--minutes", type=number(float, 0), default=4, help="between checkpoints")
    p.add_argument("--stop-after", type=number(float, 0), default=0, metavar="MINUTES", help="save and stop; the next call resumes")
    p.add_argument("--within", type=number(float, 0), default=0, metavar="MINUTES",
                   help="as many steps as fit: --steps is measured, over the first 100 or a fifth of the time")
    p.add_argument("--until", type=number(int, 1), default=math.inf, metavar="STEP", help="save and stop at a step, as --stop-after does")
    p.add_argument("--export", action="store_true", help="only write the model of the last checkpoint")
    p.add_argument("--keep", type=number(float, 0, 1), default=0, metavar="SHARE", help="share of the run's initial weights mixed into those that are written "
                   "(Wortsman et al., Robust fine-tuning of zero-shot models, 2022)")
    if more:
        more(p)
    args = p.parse_args()
    args.began = time.time()
    try:
        args.export or phantom.library()  # which the processes that generate images load
        torch.empty(0, device=args.device)
        args.out.mkdir(parents=True, exist_ok=True)
    except (RuntimeError, OSError) as wrong:
        p.error(str(wrong).splitlines()[0])
    args.own, args.classes = None, names_of(metadata_of(args.start))
    args.checkpoint = args.out / "checkpoint.pt"
    args.saved = checkpoint_of(args.checkpoint, args.device) if args.checkpoint.exists() else None
    if args.export:
        if args.saved is None:
            sys.exit(f"{args.checkpoint}: no checkpoint whose model could be written")
        vars(args).update((k, v) for k, v in args.saved["lasting"].items() if k != "start")
    elif args.data:
        own_data(p, args, boxes_do)
    elif args.masks or args.pictures or any(args.window) or args.phantom:
        p.error("--masks, --pictures, --window and --phantom are for --data")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.set_default_device(args.device)
    return args


def own_data(p, args, boxes_do):
    """Sets args.own, and args.data and args.classes to what they are in the run's files."""
    try:
        own = dataset.Own(args.data, args.masks, args.pictures, args.window, args.phantom, 0)
        data = dataset.Dataset(own)
        args.classes = data.classes or (args.classes if len(args.classes) == 1 else ["structure"])
        if args.phantom and "bone" not in args.classes:
            raise ValueError(f"no class bone, which --phantom shows, among {', '.join(args.classes)}")
        args.own = own._replace(bone=args.classes.index("bone") if args.phantom else 0)
        kind, *ends = args.window
        args.data = data.checked(args.classes, boxes_do) + ("", ", window {},{}", ", window auto")[kind].format(*ends)
        args.data += f" and phantom frames, {args.phantom:g} of all" * bool(args.phantom)
    except (ValueError, OSError) as wrong:
        p.error(f"--data: {wrong}")
    print(args.data, file=sys.stderr)


def checkpoint_of(path, device):
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        saved["lasting"]
    except OSError as wrong:
        sys.exit(str(wrong))
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError):
        sys.exit(f"{path}: no whole checkpoint of a run: put its copy there, or begin anew in another folder")
    return saved


class Average:
    """Exponential average of weights; buffers follow."""

    def __init__(self, net, decay):
        self.state = {k: v.detach().clone() for k, v in net.state_dict().items()}
        self.decay, self.count = decay, 0

    def update(self, net):
        self.count += 1
        d = min(self.decay, (1 + self.count) / (10 + self.count))
        for k, v in net.state_dict().items():
            if v.dtype.is_floating_point:
                self.state[k].lerp_(v.detach(), 1 - d)
            else:
                self.state[k].copy_(v)


class Run:
    def __init__(self, args, net, optimizer, decay=0.998):
        self.args, self.net, self.optimizer, self.step, self.seconds = args, net, optimizer, 0, 0.0
        self.average = Average(net, decay)
        self.base = [g["lr"] for g in optimizer.param_groups]
        self.lasting = {k: v for k, v in vars(args).items() if k in (*LASTING, "classes")} | {"start": hashlib.sha256(args.start.read_bytes()).hexdigest()}
        self.stop, self.began = False, None
        self.measured = self.within = 0  # steps that fit into --within, and what that was
        self.path, saved = args.checkpoint, vars(args).pop("saved")  # which a run need not hold in memory
        if saved:
            self.check(saved["lasting"])
            net.load_state_dict(saved["in_training"])
            optimizer.load_state_dict(saved["optimizer"])
            self.average.state, self.average.count = saved["average"], saved["count"]
            self.step, self.seconds = saved["step"], saved["seconds"]
            self.measured, self.within = saved["measured"], saved.get("within", 0)
            if args.within and self.measured:
                if self.within not in (0, args.within):
                    sys.exit(f"{self.path}: {self.measured} steps fit into this run's --within {self.within:g}, not {args.within:g}: for more, --steps N without --within")
                args.steps = self.measured
            print(f"goes on from step {self.step}", file=sys.stderr)
        for s in (signal.SIGTERM, signal.SIGINT):
            signal.signal(s, lambda *_: setattr(self, "stop", True))

    def check(self, before):
        for k in LASTING:
            was, now = before.get(k) or "", self.lasting.get(k) or ""
            if was != now:
                sys.exit(f"{self.path}: this run began with other weights than {self.args.start}" if k == "start" else
                         f"{self.path}: this run began with --{k} {was or repr('')}, not {now or repr('')}")

    def save(self):
        # Not under a name that `ultramotion` would take for a model's: one is what was averaged, with metadata (export()).
        state = {"in_training": self.net.state_dict(), "optimizer": self.optimizer.state_dict(), "average": self.average.state, "lasting": self.lasting,
                 "count": self.average.count, "step": self.step, "measured": self.measured, "within": self.within, "seconds": self.seconds}
        write_whole(self.path, lambda new: torch.save(state, new))

    def rate(self):
        left = (self.args.steps - self.step) / max(1, self.args.steps / FALL)
        return min(1, (self.step + 1) / 50) * min(1, 0.05 + 0.95 * left)

    def go(self, batches, loss_of, share=1):
        """Until `share` of all steps is done. loss_of(batch) -> dict of losses; their sum is trained on."""
        saved = time.time()
        self.began = self.began or saved  # of the first canvas, where there are two
        times, lost = [saved], 0
        log = open_log(self.args.out / "log.jsonl", self.step)
        while self.step < min(self.args.until, int(share * self.args.steps)) and not self.stop:
            tick = time.time()
            for group, base in zip(self.optimizer.param_groups, self.base):
                group["lr"] = base * self.rate()
            torch.manual_seed(self.args.seed * 1_000_003 + self.step)  # so that a run that was killed goes on as if it had not been
            losses = loss_of(next(batches))
            total = sum(losses.values())
            self.optimizer.zero_grad(set_to_none=True)
            lost = 0 if torch.isfinite(total) else lost + 1
            if lost == LOST:
                sys.exit(f"{self.path}: the losses of {LOST} steps, up to {self.step + 1}, were no finite numbers, and nothing is learned any more: begin anew in "
                         "another folder, with a lower --rate, or with other weights if it is so from the first step on")
            if not lost:
                total.backward()
                torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.args.clip)
                self.optimizer.step()
                self.average.update(self.net)
            self.step += 1
            now = time.time()
            if self.args.within and not self.measured:
                times.append(now)
                spent = now - self.args.began
                if len(times) > 100 or spent > 60 * self.args.within or (spent > 12 * self.args.within and len(times) > 2):
                    skipped = min(20, max(1, len(times) // 2 - 1), len(times) - 2)  # while all begins
                    each = (now - times[skipped]) / (len(times) - 1 - skipped)
                    self.args.steps = self.measured = self.step + max(0, int((60 * self.args.within - spent) / each))
                    self.within = self.args.within
            self.seconds += now - tick
            log.write(json.dumps({"step": self.step, "loss": round(float(total.detach()), 5), "rate": self.rate(), "seconds": round(now - tick, 2),
                                  **{k: round(float(v.detach()), 5) for k, v in losses.items()}}) + "\n")
            done, eta = 30 * self.step // self.args.steps, (self.args.steps - self.step) * self.seconds / self.step / 60
            told = f"[{'#' * done}{'.' * (30 - done)}] {self.step}/{self.args.steps} loss {float(total.detach()):.3f} {eta:.0f} min left "
            if sys.stderr.isatty():
                print(f"\r{told}", end="", file=sys.stderr)
            if now - saved > 60 * self.args.minutes:
                self.save()
                saved = now
                if not sys.stderr.isatty():
                    print(told, file=sys.stderr)
            self.stop = self.stop or 0 < 60 * self.args.stop_after < now - self.began
        log.close()
        if sys.stderr.isatty():
            print(file=sys.stderr)
        self.save()


def write_whole(path, write):
    """What write(new) writes gets its name when it is whole."""
    new = path.with_suffix(".new")
    try:
        write(new)
        os.replace(new, path)
    except (OSError, RuntimeError) as wrong:  # PyTorch's does not say that a disk is full
        free = shutil.disk_usage(path.parent).free >> 20
        sys.exit(f"{path}: cannot be written, {free} MiB are free there: {wrong}")
    finally:
        with contextlib.suppress(OSError):  # there is none, or nothing can be changed there
            new.unlink()


def open_log(path, step):
    """To be gone on with from `step`: what a run that was killed did after its last checkpoint is done again. One process at a time has it."""
    try:
        log = path.open("a+", buffering=1)
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"{path}: another process goes on with this run")
    except OSError as wrong:
        sys.exit(str(wrong))
    log.seek(0)
    kept = 0
    for line in log:
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        kept += len(line)
    log.truncate(kept)
    return log


def weights_of(path):
    from safetensors.torch import load_file

    return load_file(path)


def metadata_of(path):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except SafetensorError as wrong:
        sys.exit(f"{path}: {wrong}; want .safetensors, which `ultramotion convert` makes of a checkpoint")


def learned_from(before, now):
    """All images that a model knows, where `before` is the metadata of the one it started from."""
    said, short = before.get("training_data", "not said"), now.removesuffix(NOTHING_REAL)
    return said if said == now or said.startswith(f"{short}; before: ") else f"{short}; before: {said}"


def names_of(before):
    said = before.get("classes", "bone")
    if said.isdigit():  # how many there are, without names
        said = "bone"
    return json.loads(said) if said.startswith("[") else [name.strip() for name in said.split(",")]


def names(classes):
    """As the metadata has them, whose list knows no blanks at ends; one alone that is a number would be taken for how many there are."""
    plain = not any("," in c or c.startswith("[") or c != c.strip() for c in classes) and not (len(classes) == 1 and set(classes[0]) <= set("0123456789"))
    return ",".join(classes) if plain else json.dumps(classes, ensure_ascii=False)


def licence_of(before):
    return before.get("licence", "that of the weights it started from")


def steps_of(before, args, step, how=""):
    """All that a model has learned from, in words: "9688 + 621 of batch 64", where `before` is the metadata of the one it started from."""
    kept = f", with {args.keep:g} of the weights before" if args.keep else ""
    return " + ".join([*filter(None, [before.get("steps")]), f"{step} of batch {args.batch}{how}{kept}"])


def mixed(args, state, start):
    """`state` with the share --keep of the weights `start`; tensors that began anew stay as they are."""
    if not args.keep:
        return state
    same = {k for k, v in state.items() if k in start and start[k].shape == v.shape and v.is_floating_point()}
    return {k: v.lerp(start[k].to(v), args.keep) if k in same else v for k, v in state.items()}


def export(args, state, name, metadata):
    """fp16 .safetensors with upstream's names, without counters."""
    from safetensors.torch import save

    kept = {k: (v.half() if v.dtype.is_floating_point else v).contiguous() for k, v in state.items() if not k.endswith("num_batches_tracked")}
    path = args.out / name
    data = save(kept, {k: str(v) for k, v in metadata.items()})
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))  # in an order, so that one model is one file
    header = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    write_whole(path, lambda new: new.write_bytes(data[:8] + header.ljust(end - 8) + data[end:]))
    print(path)
