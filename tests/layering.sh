#!/usr/bin/env bash
# Who may include whom (CONTRIBUTING.md), that headers compile alone in C and C++, and that the library exports only um_*.
set -uo pipefail
cd "$(dirname "$0")/.."
status=0

# may FOLDER LAYER…: files of src/FOLDER include only their own layer, those named, and public headers.
may() {
    local folder=$1
    shift
    local allowed="$folder|base|ultramotion|$(IFS='|'; echo "$*")"
    local bad
    bad=$(grep -nE '^#include "' -r "src/$folder" | grep -vE "#include \"(${allowed%|})/" | grep -vE '#include "[^/]+"')
    if [ -n "$bad" ]; then
        echo "src/$folder may not include:"
        echo "$bad"
        status=1
    fi
}
may base
may device
may weights
may nn device
may model nn weights device
may io
may pipeline model nn weights io device

if grep -nE '^#include "(base|device|nn|model|weights|io|pipeline)/' tools/*.[ch]; then
    echo "tools may include only public headers"
    status=1
fi
if grep -rnE '#if.*CUDA' src | grep -vE '^src/(device|nn/op_cuda|nn/cuda/)'; then
    echo "no conditional CUDA code outside src/device, src/nn/cuda and src/nn/op_cuda.c"
    status=1
fi
for header in include/ultramotion/*.h src/*/*.h; do
    printf '#include "%s"\n' "$header" |
        ${CC:-gcc} -std=c11 -Wall -Wextra -Werror -D_POSIX_C_SOURCE=200809L -Iinclude -Isrc -I. -x c -fsyntax-only - || {
        echo "$header does not compile alone"
        status=1
    }
done
if command -v g++ >/dev/null; then
    for header in include/ultramotion/*.h; do
        printf '#include "%s"\n' "$header" | g++ -Wall -Wextra -Werror -Iinclude -I. -x c++ -fsyntax-only - || {
            echo "$header does not compile as C++"
            status=1
        }
    done
fi
library=build/libultramotion.so
if [ -e "$library" ]; then
    bad=$(nm -D --defined-only "$library" | awk '{ print $3 }' | grep -v '^um_')
    if [ -n "$bad" ]; then
        echo "$library exports names without um_: $bad"
        status=1
    fi
fi
exit $status
