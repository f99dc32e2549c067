#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The binary interface: sizes and offsets of every struct, values of every enumeration, as the headers
say, against tests/golden/abi.txt. They may only change together with um_abi(). And every function can
be called with NULL.

    test_abi.py LIBRARY           compare
    test_abi.py LIBRARY --write   write the file; refused while um_abi() is still the file's
"""
import ctypes
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "abi.txt"


def headers():
    text = "\n".join(p.read_text() for p in sorted((ROOT / "include" / "ultramotion").glob("*.h")))
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def fields(body):
    """Names declared in a struct's body; a pointer to a function is one name."""
    names = []
    for declaration in filter(None, (part.strip() for part in body.split(";"))):
        function = re.search(r"\(\s*\*\s*(\w+)\s*\)", declaration)
        if function:
            names.append(function.group(1))
            continue
        for declarator in declaration.split(","):
            names.append(re.search(r"(\w+)\s*(\[[^\]]*\]\s*)*$", declarator.strip()).group(1))
    return names


def program(text):
    lines = ['#include "ultramotion/ultramotion.h"', "#include <stdio.h>", "int main(void)", "{"]
    structs = re.findall(r"typedef struct (\w+)\s*\{(.*?)\}\s*\1\s*;", text, flags=re.S)
    for name, body in sorted(structs):
        lines.append(f'    printf("struct {name} %zu\\n", sizeof({name}));')
        for field in fields(body):
            lines.append(f'    printf("  {field} %zu %zu\\n", offsetof({name}, {field}), sizeof((({name} *)0)->{field}));')
    for body in re.findall(r"enum\s*\w*\s*\{(.*?)\}", text, flags=re.S):
        for item in filter(None, (part.strip() for part in body.split(","))):
            constant = item.split("=")[0].strip()
            lines.append(f'    printf("{constant} %d\\n", (int){constant});')
    return "\n".join(lines + ["    return 0;", "}", ""]), [name for name, _ in structs]


def layout():
    source, structs = program(headers())
    sized = [n for n in structs if re.search(r"typedef struct %s\s*\{\s*size_t struct_size;" % n, headers())]
    # Values that never grow: handed over in arrays, or inside of other structs.
    frozen = {"um_box", "um_structure", "um_stage_times", "um_transfers", "um_bench_kernel", "um_layout", "um_times"}
    unsized = set(structs) - set(sized) - frozen
    assert not unsized, f"without struct_size in front: {sorted(unsized)}"
    with tempfile.TemporaryDirectory() as folder:
        c, binary = Path(folder, "abi.c"), Path(folder, "abi")
        c.write_text(source)
        subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-I", str(ROOT / "include"), str(c), "-o", str(binary)], check=True)
        return subprocess.run([str(binary)], check=True, capture_output=True, text=True).stdout


class Layout(ctypes.Structure):
    _fields_ = [("record", ctypes.c_char_p), ("field", ctypes.c_char_p), ("offset", ctypes.c_long), ("size", ctypes.c_size_t)]


def library_layout(path):
    """What um_abi_layout() says, in the file's form."""
    library, count = ctypes.CDLL(path), ctypes.c_size_t()
    library.um_abi_layout.restype = ctypes.POINTER(Layout)
    rows, text = library.um_abi_layout(ctypes.byref(count)), ""
    for i in range(count.value):
        record, field = rows[i].record.decode(), rows[i].field.decode()
        if not record:
            text += f"{field} {rows[i].offset}\n"
        else:
            text += f"  {field} {rows[i].offset} {rows[i].size}\n" if field else f"struct {record} {rows[i].size}\n"
    return text


def fallen(path):
    """Functions that a NULL in every place kills, whose text then is none, or that call it a success."""
    library, names = ctypes.CDLL(path), []
    for kind, name in sorted(re.findall(r"UM_API ([\w ]+[ *])(\w+)\(", headers())):
        giving = kind == "um_status " and name != "um_set_error" and not name.endswith("_close")
        child = os.fork()
        if child == 0:
            f = getattr(library, name)
            f.argtypes = [ctypes.c_void_p] * 6
            f.restype = ctypes.c_char_p if kind == "const char *" else ctypes.c_int
            os._exit(f(*[None] * 6) == 0 and giving)
        if os.waitpid(child, 0)[1]:
            names.append(name)
    return names


def main():
    abi = ctypes.CDLL(sys.argv[1]).um_abi()
    now = f"abi {abi}\n" + layout()
    told = f"abi {abi}\n" + library_layout(sys.argv[1])
    old = GOLDEN.read_text() if GOLDEN.exists() else "abi 0\n"
    if "--write" in sys.argv:
        if now != old and f"abi {abi}\n" == old.split("\n", 1)[0] + "\n":
            sys.exit(f"the interface changed: um_abi() must be more than {abi}")
        GOLDEN.write_text(now)
        return
    if now != old or now != told:
        changed = sorted(set(old.split("\n")) ^ set(now.split("\n")) | set(told.split("\n")) ^ set(now.split("\n")))
        print("the binary interface is not tests/golden/abi.txt: raise um_abi(), then tests/test_abi.py LIBRARY --write")
        print("\n".join("  " + line for line in changed[:20]))
        print("FAILED abi")
    names = fallen(sys.argv[1])
    if names:
        print("called with NULL in every place:", *names)
        print("FAILED nulls")
    failed = int(not now == old == told) + bool(names)
    print(f"{2 - failed} passed, {failed} failed, 0 skipped")
    sys.exit(failed > 0)


main()
