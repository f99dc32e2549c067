#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The pages of the documentation's site, made of what is in the tree: its texts, the comments of the public headers, the docstrings
of the package, and the numbers of bench/results. script/docs makes HTML of them.

    site.py FOLDER
"""
import json
import os
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
    "training.md": "train/README.md",
    "architecture.md": "docs/ARCHITECTURE.md",
    "device.md": "docs/DEVICE.md",
    "openigtlink.md": "docs/OPENIGTLINK.md",
    "speed.md": "docs/SPEED.md",
    "accuracy.md": "docs/ACCURACY.md",
    "security.md": "docs/SECURITY.md",
    "packet.md": "docs/PACKET.md",
    "sequences.md": "docs/SEQUENCES.md",
    "state.md": "docs/STATE.md",
    "frame.md": "docs/FRAME.md",
    "viewer.md": "docs/VIEWER.md",
    "supervision.md": "docs/SUPERVISION.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    **{f"guides/{p.name}": f"docs/guides/{p.name}" for p in sorted((ROOT / "docs" / "guides").glob("*.md"))},
}
NOTEBOOK = "docs/guides/notebook.ipynb"  # script/docs runs it into guides/notebook.md
COMMENT = re.compile(r"^/\*\*(.*?)\*/\n(.*?)(?=^/\*\*|^#ifdef __cplusplus\n}|\Z)", re.S | re.M)


def plain(comment):
    """A comment's text, without its stars, its parameters as a list."""
    lines = [re.sub(r"^ ?\* ?", "", line.strip()) for line in comment.strip().split("\n")]
    text = "\n".join(lines)
    text = re.sub(r"\s*@param\s+(\w+)", r"\n\n- `\1`:", text)
    text = re.sub(r"\s*@return\s+", "\n\nReturns ", text)
    text = re.sub(r"(\w+)_\*", r"\1_\\*", text).replace("<", "&lt;")
    text = re.sub(r"\bdocs/\w+\.md", r"`\g<0>`", text)
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
    modules = re.findall(r"^from \.(\w+) import (\([^)]*\)|[^\n]*)", text, re.M)
    for module, names in sorted(modules, key=lambda m: {"pipeline": 0, "_c": 2}.get(m[0], 1)):  # what begins a program, …, errors
        for name in re.findall(r"\w+", names):
            page += [f"::: ultramotion.{module}.{name}", ""]
    return "\n".join(page + ["::: ultramotion.dicom.save_segmentation", "", "::: ultramotion.ray", ""])


def table(columns, rows):
    return ["", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *(f"| {' | '.join(map(str, r))} |" for r in rows)]


def leaves(figures, path=()):
    """The numbers of a tree, each with the names on the way to it."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, name))
        else:
            yield ", ".join((*path, name)), f"{value:.4g}" if isinstance(value, float) else value


def numbers():
    page = ["# Numbers", "", "From `bench/results`; `script/bench`, `bench/peers.py` and `bench/python.py` measure on your machine."]
    for file in sorted((ROOT / "bench" / "results").glob("*.json")):
        data = json.loads(file.read_text())
        threads = f", {data['threads']} threads" if "threads" in data else ""
        page += ["", f"## {file.stem}", "", f"{data['machine']['cpu']}{threads}, {data['date'][:10]}."]
        if "results" in data:
            rows = ((r["stage"], r["peer"], f"{r['median_ms']:.1f}", f"{r['min_ms']:.1f}") for r in data["results"])
            page += table(["stage", "engine", "median ms", "min ms"], rows)
        else:
            page += table(["figure", ""], leaves(data["figures"]))
    return "\n".join(page) + "\n"


LINK = re.compile(r"\]\(([^)#:\s]+)((?:#[^)]*)?)\)")
NAMED = re.compile(r"(?<!\[)`([\w/]+\.(?:md|png))`")


def pictures():
    return sorted(p.name for p in (ROOT / "docs").glob("*.png"))


def linked(text, source, page):
    """The text with its links to files of the tree, and the names of such files, as links to their pages."""
    to = {where: name for name, where in PAGES.items()} | {NOTEBOOK: "guides/notebook.md", **{f"docs/{p}": p for p in pictures()}}

    def moved(link):
        target = os.path.normpath(os.path.join(os.path.dirname(source), link[1]))
        return f"]({os.path.relpath(to[target], os.path.dirname(page))}{link[2]})" if target in to else link[0]

    def named(name):
        return f"[{name[0]}]({os.path.relpath(to[name[1]], os.path.dirname(page))})" if name[1] in to else name[0]

    return NAMED.sub(named, LINK.sub(moved, text))


def main(folder):
    out = Path(folder)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for page, source in PAGES.items():
        (out / page).parent.mkdir(exist_ok=True)
        (out / page).write_text(linked((ROOT / source).read_text(), source, page))
    for picture in pictures():
        shutil.copy(ROOT / "docs" / picture, out)
    (out / "style.css").write_text(".wy-table-responsive table td, .wy-table-responsive table th { white-space: normal }\n")  # tables hold sentences
    (out / "c.md").write_text(linked(c_reference(), "", "c.md"))
    (out / "reference.md").write_text(python_reference())
    (out / "numbers.md").write_text(numbers())


if __name__ == "__main__":
    main(*sys.argv[1:])
