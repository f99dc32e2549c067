# SPDX-License-Identifier: Apache-2.0
"""What the documentation says is done: every block of code in it runs, and every name that is public says what it is.

A block whose comment says `needs:` something runs where ULTRAMOTION_DOCS names all of that (e.g. "network gpu torch")."""
import importlib.util
import inspect
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import types

import pytest

import ultramotion
from conftest import ROOT

spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site.py")
site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(site)
BLOCK = re.compile(r"(?:^<!-- needs: ([\w, ]+) -->\n)?^```(\w+)\n(.*?)^```", re.S | re.M)
NEEDS = {"network", "gpu", "torch", "time", "machines"}
BLOCKS = [
    pytest.param(source, language, needs, text, id=f"{source}-{i}")
    for source in site.PAGES.values()
    for i, (needs, language, text) in enumerate(BLOCK.findall((ROOT / source).read_text()))
]
COMMAND = os.path.join(os.path.dirname(os.environ.get("ULTRAMOTION_LIBRARY", "")), "ultramotion")


def ports():
    """Two that are free: others may use those of the text at this moment."""
    with socket.socket() as a, socket.socket() as b:
        a.bind(("127.0.0.1", 0))
        b.bind(("127.0.0.1", 0))
        return a.getsockname()[1], b.getsockname()[1]


def run_python(text, name):
    module = types.ModuleType("example")
    exec(compile(text, name, "exec"), vars(module))


def run_sh(text, name):
    if not os.path.exists(COMMAND):
        pytest.skip("no command beside the library")
    for port, free in zip(("18944", "18945"), ports()):
        text = text.replace(port, str(free))
    env = {**os.environ, "PATH": f"{os.path.dirname(COMMAND)}:{os.environ['PATH']}", "ULTRAMOTION_MODELS": ultramotion.models_path()}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", text], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{name}\n{text}\n{done.stdout}\n{done.stderr}"


def run_c(text, name):
    library = os.environ.get("ULTRAMOTION_LIBRARY")
    if not library or not shutil.which("cc"):
        pytest.skip("no library of a build, or no compiler")
    if "asan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("a program without sanitizers on a library with them")
    flags = ["-Wall", "-Wextra", "-Werror", "-I", str(ROOT / "include"), f"-Wl,-rpath,{os.path.dirname(library)}"]
    subprocess.run(["cc", "-x", "c", "-", "-o", "example", *flags, "-x", "none", library], input=text, text=True, check=True)
    next(ultramotion.run("phantom:seed=900001,frames=1", segmenter=False)).save("image.png")
    models = [os.path.join(ultramotion.models_path(), m) for m in (ultramotion.models.DETECTOR, ultramotion.models.SEGMENTER)]
    assert "score" in subprocess.run(["./example", *models, "image.png"], capture_output=True, text=True, check=True).stdout


RUN = {"python": run_python, "sh": run_sh, "c": run_c}


@pytest.mark.parametrize("source, language, needs, text", BLOCKS)
def test_code_of_the_documentation_runs(source, language, needs, text, tmp_path, monkeypatch):
    wanted = set(needs.replace(",", " ").split())
    assert language in RUN and wanted <= NEEDS
    there = set(os.environ.get("ULTRAMOTION_DOCS", "").split())
    if wanted - there:
        pytest.skip(f"needs {', '.join(sorted(wanted - there))}")
    monkeypatch.chdir(ROOT if "network" in wanted else tmp_path)
    monkeypatch.delenv("ULTRAMOTION_SAM_AS_NUMPY", raising=False)
    RUN[language](text, source)


def test_no_block_is_without_a_language():
    """A fence without one is for images made of characters: nothing in it looks like a command."""
    for source in site.PAGES.values():
        for text in re.findall(r"^```\n(.*?)^```", (ROOT / source).read_text(), re.S | re.M):
            assert not re.search(r"^(\$ |import |from \w+ import|pip |script/)", text, re.M), source


def test_lists_are_lists_on_the_site():
    """Python-Markdown wants an empty line before a list, and four spaces before one in a list."""
    for source in site.PAGES.values():
        text = re.sub(r"^```.*?^```", "", (ROOT / source).read_text(), flags=re.S | re.M)
        assert not re.search(r"^(?!- |\d+\. |\s).+\n(- |\d+\. )", text, re.M), source
        assert not re.search(r"^ {1,3}- ", text, re.M), source


def test_the_notebook_runs():
    """As a program: script/docs runs it in Jupyter."""
    cells = json.loads((ROOT / site.NOTEBOOK).read_text())["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    run_python("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"), site.NOTEBOOK)


def test_packets_and_frames_are_shown_by_a_notebook():
    packet = next(ultramotion.run("phantom:seed=900001,frames=1", segmenter=False))
    for shown in (packet, packet.frame):
        assert shown._repr_png_().startswith(b"\x89PNG")


def test_all_that_packets_say_is_described():
    packet = next(ultramotion.run("phantom:seed=900001,frames=1", segmenter=False)).to_dict()
    keys, states = ((ROOT / "docs" / page).read_text() for page in ("PACKET.md", "STATE.md"))
    assert [key for key in packet if f"`{key}`" not in keys] == []
    reasons = [ultramotion._c.lib.um_reason_name(i) for i in range(1, 20)]
    assert [name for name in reasons if name and f"`{name.decode()}`" not in states] == [] and not reasons[-1]


def test_links_and_menu_lead_somewhere(tmp_path):
    subprocess.run([sys.executable, str(ROOT / "docs" / "site.py"), str(tmp_path / "pages")], check=True)
    menu = re.findall(r": ([\w/-]+\.md)$", (ROOT / "docs" / "mkdocs.yml").read_text(), re.M)
    pages = {str(p.relative_to(tmp_path / "pages")) for p in (tmp_path / "pages").rglob("*.md")} | {"guides/notebook.md"}
    assert set(menu) == pages and len(menu) == len(pages)
    for source in site.PAGES.values():
        for target, _ in site.LINK.findall(BLOCK.sub("", (ROOT / source).read_text())):
            assert (ROOT / source).parent.joinpath(target).exists(), f"{source}: {target}"
    for page in (tmp_path / "pages").rglob("*.md"):  # on the site a link, or the name of a text, leads to a page or an image of it
        text = BLOCK.sub("", page.read_text())
        for target, _ in site.LINK.findall(text):
            assert page.parent.joinpath(target).exists() or target.endswith("notebook.md"), f"{page.name}: {target}"
        assert not re.search(r"(?<!\[)`docs/[\w/]+\.(md|png)`", text), page.name


def test_the_c_reference_is_whole(tmp_path):
    """Every public function stands in it with its comment."""
    page = site.c_reference()
    headers = "".join(p.read_text() for p in (ROOT / "include" / "ultramotion").glob("*.h"))
    functions = set(re.findall(r"^UM_API [^;]*?(um_\w+)\(", headers, re.M))
    assert len(functions) > 100
    missing = [f for f in functions if not re.search(rf"\b{f}\(", page)]
    assert not missing
    assert site.python_reference().count(":::") > 30


def public():
    for name, thing in vars(ultramotion).items():
        if inspect.isclass(thing) or inspect.isfunction(thing):
            yield name, thing
            if inspect.isclass(thing) and not issubclass(thing, tuple):
                for member, value in vars(thing).items():
                    if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                        yield f"{name}.{member}", value.fget if isinstance(value, property) else value


def test_every_public_name_is_documented_or_says_it_all():
    """Classes and functions have a docstring; members have one, or few and plain words for a name."""
    bare = [name for name, thing in public() if "." not in name and not inspect.getdoc(thing)]
    assert not bare


@pytest.mark.parametrize("name", ["Device", "Detector", "Segmenter", "Pipeline", "run"])
def test_every_option_is_in_the_docstring(name):
    thing = getattr(ultramotion, name)
    missing = [option for option in inspect.signature(thing).parameters if not re.search(rf"`{option}\b", inspect.getdoc(thing))]
    assert not missing


def test_every_public_name_is_typed():
    missing = []
    for name, thing in public():
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            untyped = [p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name != "self"]
            if untyped or signature.return_annotation is signature.empty:
                missing.append(f"{name}: {untyped}")
    assert not missing


def test_mypy_is_strict_and_content(tmp_path, monkeypatch):
    api = pytest.importorskip("mypy.api")
    source = ROOT / "python" / "ultramotion"
    out, err, status = api.run(["--config-file", str(ROOT / "python" / "pyproject.toml"), "--no-incremental", "--cache-dir=/dev/null", str(source)])
    assert status == 0, out + err
    user = tmp_path / "user.py"
    user.write_text(
        "import ultramotion\nfrom ultramotion import Packet, SamPredictor\n"
        "def box(packet: Packet) -> float:\n    return 0.0 if packet.box_xyxy is None else float(packet.box_xyxy[0])\n"
        "predictor: SamPredictor = ultramotion.SamPredictor(ultramotion.Segmenter())\n"
    )
    monkeypatch.setenv("MYPYPATH", str(ROOT / "python"))
    out, err, status = api.run(["--strict", "--follow-imports=silent", "--no-incremental", "--cache-dir=/dev/null", str(user)])
    assert status == 0, out + err
