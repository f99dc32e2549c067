#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What bash offers behind a tab: commands, each command's options, the words that an option takes, else files.

    test_completion.py ULTRAMOTION SCRIPT
"""
import re
import subprocess
import sys


def offered(script, *words):
    shell = f'. "{script}"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ultramotion; printf "%s\\n" "${{COMPREPLY[@]}}"'
    return subprocess.run(["bash", "-u", "-c", shell, "bash", "ultramotion", *words], capture_output=True, text=True, check=True).stdout.split()


def main(program, script):
    def text(*arguments):
        return subprocess.run([program, *arguments, "--help"], capture_output=True, text=True, check=True).stdout

    wrong = []

    def hold(got, want, *words):
        if got != want:
            wrong.append(f"{' '.join(words)}: offers {got}, want {want}")

    commands = re.findall(r"^  (\w+) +\S", text(), re.M)
    hold(offered(script, ""), commands + ["help", "--version"], "ultramotion")
    for command in commands:
        hold(offered(script, command, "--"), re.findall(r"^  (?:-\w, )?(--[\w-]+)", text(command), re.M), command)
    for words, want in (
        (("ru",), ["run"]),
        (("run", "--gate", ""), ["speculative", "sync"]),
        (("run", "--gate", "="), ["speculative", "sync"]),  # bash takes --gate=s apart
        (("run", "--gate", "=", "sp"), ["speculative"]),
        (("run", "--shadow", ""), ["legacy"]),
        (("run", "--sam-size", ""), ["auto"]),
        (("convert", "--precision", "b"), ["bf16"]),
        (("val", "--det-fit", "s"), ["stretch"]),
        (("run", "--detector", ""), []),
        (("run", ""), []),
        (("bench", ""), ["pipeline", "stages", "residency", "kernels", "roofline", "live"]),
        (("bench", "stages", ""), []),
        (("igtl", "s"), ["sniff", "send"]),
        (("help", ""), commands),
        (("nonsense", ""), []),
    ):
        hold(offered(script, *words), want, *words)
    for what in wrong:
        print(f"FAILED: {what}")
    print(f"{int(not wrong)} passed, {int(bool(wrong))} failed")
    return bool(wrong)


sys.exit(main(*sys.argv[1:]))
