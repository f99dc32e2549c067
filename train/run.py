# SPDX-License-Identifier: Apache-2.0
"""What both recipes share: command line, seeds, schedule, averaged weights, a log, and checkpoints that a killed run goes on from."""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "models"


def arguments(description, steps, batch, rate, more=None):
    p = argparse.ArgumentParser(description=description)
    p.add_argument("out", type=Path, help="folder of the run: checkpoint, log, model; a run that is there goes on")
    p.add_argument("--start", type=Path, help="weights to start from; default: the model that ships")
    p.add_argument("--steps", type=int, default=steps)
    p.add_argument("--batch", type=int, default=batch)
    p.add_argument("--rate", type=float, default=rate, help="learning rate; falls to 5 %% over the last fifth of the steps")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--workers", type=int, default=min(12, os.cpu_count()), help="processes that draw pictures")
    p.add_argument("--bf16", action="store_true", help="autocast; pays on GPUs and processors with AMX")
    p.add_argument("--minutes", type=float, default=4, help="between checkpoints")
    p.add_argument("--stop-after", type=float, default=0, metavar="MINUTES", help="save and leave; the next call goes on")
    p.add_argument("--within", type=float, default=0, metavar="MINUTES", help="as many steps as fit: --steps is measured, over the first 100")
    p.add_argument("--until", type=int, default=0, metavar="STEP", help="save and leave at a step, as --stop-after does")
    p.add_argument("--export", action="store_true", help="only write the model of the last checkpoint")
    if more:
        more(p)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.set_default_device(args.device)
    args.began = time.time()
    args.out.mkdir(parents=True, exist_ok=True)
    return args


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
        self.path = args.out / "checkpoint.pt"
        self.stop = False
        self.measured = 0  # steps that fit into --within
        if self.path.exists():
            saved = torch.load(self.path, map_location=args.device, weights_only=True)
            net.load_state_dict(saved["net"])
            optimizer.load_state_dict(saved["optimizer"])
            self.average.state, self.average.count = saved["average"], saved["count"]
            self.step, self.seconds = saved["step"], saved["seconds"]
            self.measured = saved.get("measured", 0)
            if args.within and self.measured:
                args.steps = self.measured
            print(f"goes on from step {self.step}", file=sys.stderr)
        for s in (signal.SIGTERM, signal.SIGINT):
            signal.signal(s, lambda *_: setattr(self, "stop", True))

    def save(self):
        new = self.path.with_suffix(".new")
        torch.save({"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict(), "average": self.average.state,
                    "count": self.average.count, "step": self.step, "measured": self.measured, "seconds": self.seconds}, new)
        os.replace(new, self.path)

    def rate(self):
        left = (self.args.steps - self.step) / max(1, self.args.steps / 5)
        return min(1, (self.step + 1) / 50) * min(1, 0.05 + 0.95 * left)

    def go(self, batches, loss_of):
        """loss_of(batch) -> dict of losses; their sum is trained on."""
        began = saved = time.time()
        first = self.step
        log = (self.args.out / "log.jsonl").open("a", buffering=1)
        while self.step < (self.args.until or self.args.steps) and not self.stop:
            tick = time.time()
            for group, base in zip(self.optimizer.param_groups, self.base):
                group["lr"] = base * self.rate()
            torch.manual_seed(self.args.seed * 1_000_003 + self.step)  # so that a run that was killed goes on as if it had not been
            losses = loss_of(next(batches))
            total = sum(losses.values())
            self.optimizer.zero_grad(set_to_none=True)
            if torch.isfinite(total):
                total.backward()
                torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.args.clip)
                self.optimizer.step()
                self.average.update(self.net)
            self.step += 1
            now = time.time()
            if self.step == first + 20:
                twentieth = now
            if self.args.within and not self.measured and self.step == first + 100:
                left = 60 * self.args.within - (now - self.args.began)
                self.args.steps = self.measured = self.step + max(0, int(80 * left / (now - twentieth)))
            self.seconds += now - tick
            log.write(json.dumps({"step": self.step, "loss": round(float(total.detach()), 5), "rate": self.rate(), "seconds": round(now - tick, 2),
                                  **{k: round(float(v.detach()), 5) for k, v in losses.items()}}) + "\n")
            if sys.stderr.isatty():
                done = 30 * self.step // self.args.steps
                eta = (self.args.steps - self.step) * self.seconds / self.step / 60
                print(f"\r[{'#' * done}{'.' * (30 - done)}] {self.step}/{self.args.steps} loss {float(total.detach()):.3f} {eta:.0f} min left ",
                      end="", file=sys.stderr)
            if now - saved > 60 * self.args.minutes:
                self.save()
                saved = now
            if self.args.stop_after and now - began > 60 * self.args.stop_after:
                break
        self.save()


def metadata_of(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def steps_of(before, args, step):
    """All that a model has learned from, in words: "9688 + 621 of batch 64", where `before` is the metadata of the one it started from."""
    return " + ".join([*filter(None, [before.get("steps")]), f"{step} of batch {args.batch}"])


def export(args, state, name, metadata):
    """fp16 .safetensors with upstream's names, without counters."""
    from safetensors.torch import save_file

    kept = {k: (v.half() if v.dtype.is_floating_point else v).contiguous() for k, v in state.items() if not k.endswith("num_batches_tracked")}
    path = args.out / name
    save_file(kept, path, {k: str(v) for k, v in metadata.items()})
    print(path)
