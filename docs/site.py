#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The pages of the documentation's site, made of what is in the tree: its texts, the comments of the public headers, the docstrings
of the package, and the numbers of bench/results. script/docs makes HTML of them.

    site.py FOLDER
"""
import json
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "index.md": "README.md",
    "python.md": "python/README.md",
    "slicer.md": "slicer/README.md",
    "models.md": "docs/MODELS.md",
    "trained.md": "models/README.md",
    "architecture.md": "docs/ARCHITECTURE.md",
    "device.md": "docs/DEVICE.md",
    "speed.md": "docs/SPEED.md",
    "security.md": "docs/SECURITY.md",
    "viewer.md": "docs/VIEWER.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
COMMENT = re.compile(r"^/\*\*(.*?)\*/\n(.*?)(?=^/\*\*|^#ifdef __cplusplus\n}|\Z)", re.S | re.M)


def plain(comment):
    """A comment's text, without its stars, its parameters as a list."""
    lines = [re.sub(r"^ ?\* ?", "", line.strip()) for line in comment.strip().split("\n")]
    text = "\n".join(lines)
    text = re.sub(r"\s*@param\s+(\w+)", r"\n\n- `\1`:", text)
    text = re.sub(r"\s*@return\s+", "\n\nReturns ", text)
    text = re.sub(r"(\w+)_\*", r"\1_\\*", text).replace("<", "&lt;")
    return text.strip()


def declarations(header):
    """Comment and declaration, one after the other, of what a header makes public."""
    text = header.read_text()
    for comment, code in COMMENT.findall(text):
        yield plain(comment), code.strip()


def c_reference():
    page = ["# C reference", "", "Made from the public headers (`#include <ultramotion/ultramotion.h>`)."]
    for header in sorted((ROOT / "include" / "ultramotion").glob("*.h")):
        page += ["", f"## {header.name}"]
        for comment, code in declarations(header):
            struct = re.match(r"typedef \w+ (um_\w+)", code)
            name = struct or re.search(r"(um_\w+)\s*\(", code) or re.search(r"(um_\w+)", code)
            page += ["", f"### {name.group(1) if name else header.stem}", "", "```c", code.replace("UM_API ", ""), "```", "", comment]
    return "\n".join(page) + "\n"


def python_reference():
    sys.path.insert(0, str(ROOT / "python"))
    text = (ROOT / "python" / "ultramotion" / "__init__.py").read_text()
    page = ["# Python reference", ""]
    for module, names in re.findall(r"^from \.(\w+) import (\([^)]*\)|[^\n]*)", text, re.M):
        for name in re.findall(r"\w+", names):
            page += [f"::: ultramotion.{module}.{name}", ""]
    return "\n".join(page + ["::: ultramotion.dicom.save_segmentation", "", "::: ultramotion.ray", ""])


def numbers():
    page = ["# Numbers", "", "As `bench/results` has them; `script/bench` and `bench/peers.py` measure on your machine."]
    for file in sorted((ROOT / "bench" / "results").glob("*.json")):
        data = json.loads(file.read_text())
        page += ["", f"## {file.stem}", "", f"{data['machine']['cpu']}, {data['threads']} threads, {data['date'][:10]}."]
        page += ["", "| stage | who | median ms | least ms |", "|---|---|---|---|"]
        page += [f"| {r['stage']} | {r['peer']} | {r['median_ms']:.1f} | {r['min_ms']:.1f} |" for r in data["results"]]
    return "\n".join(page) + "\n"


def main(folder):
    out = Path(folder)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for page, source in PAGES.items():
        text = (ROOT / source).read_text().replace("](docs/overlay.png)", "](overlay.png)").replace("](docs/viewer_dark.png)", "](viewer_dark.png)")
        (out / page).write_text(text)
    for picture in ("overlay", "viewer", "viewer_dark"):
        shutil.copy(ROOT / "docs" / f"{picture}.png", out)
    (out / "c.md").write_text(c_reference())
    (out / "reference.md").write_text(python_reference())
    (out / "numbers.md").write_text(numbers())


main(*sys.argv[1:])
