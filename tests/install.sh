#!/usr/bin/env bash
# Installs the build elsewhere than configured, moves it, and builds the README's example against it as a stranger would:
#   tests/install.sh BUILD-FOLDER CMAKE
set -uo pipefail
build=$1 cmake=$2
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "FAILED $1"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
}
"$cmake" --install "$build" --prefix "$work/first" >"$work/log" 2>&1 || { cat "$work/log"; fail "install"; }
mv "$work/first" "$work/moved" || fail "move"
PKG_CONFIG_PATH=$(dirname "$(find "$work/moved" -name ultramotion.pc)")
export PKG_CONFIG_PATH
prefix=$(cd "$(pkg-config --variable=prefix ultramotion)" && pwd) || fail "pkg-config"
[ "$prefix" = "$work/moved" ] || fail "prefix is $prefix, want $work/moved"
libraries=$(pkg-config --variable=libdir ultramotion)
awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' "$root/README.md" >"$work/example.c"
# shellcheck disable=SC2046
"${CC:-cc}" -std=c11 -Wall -Werror -o "$work/example" "$work/example.c" $(pkg-config --cflags --libs ultramotion) || fail "example: compile"
said=$(LD_LIBRARY_PATH=$libraries "$work/example" "$work"/moved/share/ultramotion/models/{dfine_n_bone_320,mobile_sam_bone_384}.safetensors \
    "$root/tests/golden/end_to_end/phantom_0.png") || fail "example: run"
case $said in "score 0.9"*) ;; *) fail "example said: $said" ;; esac
[ -s "$work/moved/share/man/man1/ultramotion.1" ] || fail "manual page"
[ -s "$work/moved/share/doc/ultramotion/LICENSE" ] || fail "licence"
"$work/moved/bin/ultramotion" inspect "$work/moved/share/ultramotion/models/dfine_n_bone_320.safetensors" -q >/dev/null || fail "command"
grep -rl "$work/first" "$work/moved" && fail "files that know where they were installed"
echo "1 passed, 0 failed, 0 skipped"
