# SPDX-License-Identifier: Apache-2.0
"""What the documentation says is done: every block of Python in it runs, and every name that is public says what it is."""
import inspect
import re
import subprocess
import sys

import pytest

import ultramotion
from conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "python" / "README.md"]
BLOCKS = [
    pytest.param(page, block, id=f"{page.parent.name}-{i}")
    for page in PAGES
    for i, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M))
]


@pytest.mark.parametrize("page, block", BLOCKS)
def test_code_of_the_documentation_runs(page, block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, str(page), "exec"), {"__name__": "example"})


def test_the_c_reference_is_whole(tmp_path):
    """Every public function stands in it with its comment."""
    subprocess.run([sys.executable, str(ROOT / "docs" / "site.py"), str(tmp_path / "pages")], check=True)
    page = (tmp_path / "pages" / "c.md").read_text()
    headers = "".join(p.read_text() for p in (ROOT / "include" / "ultramotion").glob("*.h"))
    functions = set(re.findall(r"^UM_API [^;]*?(um_\w+)\(", headers, re.M))
    assert len(functions) > 100
    missing = [f for f in functions if not re.search(rf"\b{f}\(", page)]
    assert not missing
    assert (tmp_path / "pages" / "reference.md").read_text().count(":::") > 30


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


def test_every_public_name_is_typed():
    missing = []
    for name, thing in public():
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            untyped = [p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name != "self"]
            if untyped or signature.return_annotation is signature.empty:
                missing.append(f"{name}: {untyped}")
    assert not missing


def test_mypy_is_strict_and_content():
    api = pytest.importorskip("mypy.api")
    source = ROOT / "python" / "ultramotion"
    out, err, status = api.run(["--config-file", str(ROOT / "python" / "pyproject.toml"), "--no-incremental", "--cache-dir=/dev/null", str(source)])
    assert status == 0, out + err
