# SPDX-License-Identifier: Apache-2.0
"""What a run was, from its folder: python train/card.py OUT… writes OUT/curves.png (every loss over the steps) and OUT/card.md."""

import hashlib
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from safetensors import safe_open  # noqa: E402

WIDTH = 25  # of the moving average, steps


def steps_of(folder):
    if not (folder / "log.jsonl").is_file():
        sys.exit(f"{folder}: no log.jsonl, no run")
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return rows or sys.exit(f"{folder}: no step is done yet")


def smooth(values):
    width = min(WIDTH, len(values))
    return np.convolve(values, np.ones(width) / width, "valid")


def curves(rows, path):
    names = ["loss", *(k for k in rows[-1] if k not in ("step", "loss", "rate", "seconds"))]
    figure, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 2.6), layout="constrained")
    for axis, name in zip(axes, names):
        values = [row.get(name, np.nan) for row in rows]
        axis.plot([row["step"] for row in rows], values, lw=0.5, alpha=0.4)
        axis.plot([row["step"] for row in rows][-len(smooth(values)):], smooth(values), lw=1.4)
        axis.set(title=name, xlabel="step")
        finite = [v for v in values if np.isfinite(v)]
        axis.set_ylim(0, 1.1 * np.percentile(finite, 97) if finite else 1)
    figure.savefig(path, dpi=90)


def card(folder, rows):
    lines = [f"# {folder.name}", "", "| | |", "|---|---|"]
    lines += [f"| steps | {rows[-1]['step']} |", f"| hours | {sum(row['seconds'] for row in rows) / 3600:.1f} |"]
    for name in ("loss", *(k for k in rows[-1] if k not in ("step", "loss", "rate", "seconds"))):
        values = [row.get(name, np.nan) for row in rows]
        lines.append(f"| {name}: first {WIDTH} steps, last {WIDTH} | {np.nanmean(values[:WIDTH]):.3f}, {np.nanmean(values[-WIDTH:]):.3f} |")
    for model in sorted(folder.glob("*.safetensors")):
        with safe_open(model, "pt") as file:
            facts = file.metadata()
        lines.append(f"| {model.name} | sha256 {hashlib.sha256(model.read_bytes()).hexdigest()} |")
        lines += [f"| {k} | {v} |" for k, v in sorted(facts.items())]
    return "\n".join([*lines, "", "![losses](curves.png)", ""])


if __name__ == "__main__":
    if not sys.argv[1:] or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    for name in sys.argv[1:]:
        folder = Path(name)
        rows = steps_of(folder)
        curves(rows, folder / "curves.png")
        (folder / "card.md").write_text(card(folder, rows))
        print(folder / "card.md")
