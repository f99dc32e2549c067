#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The manual page has every command and every option that the command's help has, and every variable of the environment; man finds nothing
wrong with it.

    test_man.py ULTRAMOTION PAGE
"""
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def said(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True)


def main(program, page):
    text = open(page).read().replace("\\-", "-").replace("\\&", "")
    commands = re.findall(r"^  (\w+) +\S", said(program, "--help").stdout, re.M)
    missing = [c for c in commands if f"\n.B ultramotion {c}" not in text]
    missing += [f"ultramotion {c}" for c in ("help", "--version") if f"\n.B ultramotion {c}\n" not in text]
    options = set()
    for command in commands:
        options |= set(re.findall(r"^  ((?:-\w, )?--[\w-]+)", said(program, command, "--help").stdout, re.M))
    missing += [o for o in sorted(options) if not re.search(rf"^\.B {o}( |$)", text, re.M)]
    if len(commands) < 10 or len(options) < 40:
        missing.append(f"most of it: {len(commands)} commands, {len(options)} options")
    sources = [*ROOT.glob("src/*/*.c"), *ROOT.glob("tools/*.c")]
    variables = {name for path in sources for name in re.findall(r'getenv\("(\w+)"\)', path.read_text())} - {"HOME"}
    missing += [v for v in sorted(variables) if f"\n.B {v}\n" not in text]
    if shutil.which("groff"):
        formatted = said("groff", "-man", "-Tascii", "-ww", page)
        missing += formatted.stderr.splitlines()
    for what in missing:
        print(f"FAILED: {page}: {what}")
    print(f"{int(not missing)} passed, {int(bool(missing))} failed")
    return bool(missing)


sys.exit(main(*sys.argv[1:]))
