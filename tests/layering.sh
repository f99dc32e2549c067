#!/usr/bin/env bash
# Who may include whom (CONTRIBUTING.md), that headers compile alone in C and C++, that operators take only options they obey,
# and that the library exports only um_*.
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
may igtl
may monitor
may io igtl monitor
may web io monitor
may engine model nn weights device
may predict engine model nn weights device
may pipeline engine nn io device
may stream monitor
may python

# Inside nn constants and tape lie below the operators, and they below the blocks made of them.
if grep -nE '#include "nn/(op|op_(cpu|cuda|dfine|level|ref|sam)|area|resize|spline|block)\.h"' src/nn/tape.[ch] src/nn/params.[ch] src/nn/op_table.h ||
    grep -n '#include "nn/block.h"' src/nn/act.h src/nn/op*.[ch] src/nn/record.h src/nn/{area,resize,spline}.[ch]; then
    echo "src/nn: constants, tape, operators and blocks may include only what lies below them"
    status=1
fi

if grep -nE '^#include "(base|device|nn|model|weights|engine|predict|io|igtl|monitor|web|pipeline|stream)/' tools/*.[ch]; then
    echo "tools may include only public headers"
    status=1
fi
for kernels in src/nn/cuda/*.cu; do
    for kernel in $(sed -nE 's/^KERNEL\((um_[a-z0-9_]+),.*/\1/p' "$kernels"); do
        grep -q "X($kernel)" "${kernels%.cu}.h" || {
            echo "$kernels: $kernel is not in the list of ${kernels%.cu}.h, where the device looks for its image"
            status=1
        }
    done
done
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
# An option that an operator does not obey does not compile; those that it obeys do, together.
compiles() {
    local args='um_tape *t, const um_conv *w, const um_norm *n, um_tensor x'
    printf '#include "nn/block.h"\num_tensor f(%s);\num_tensor f(%s)\n{\n    return (void)w, (void)n, %s;\n}\n' "$args" "$args" "$1" |
        ${CC:-gcc} -std=c11 -Wall -Wextra -Werror -D_POSIX_C_SOURCE=200809L -Iinclude -Isrc -x c -fsyntax-only - 2>/dev/null
}
# options OPERATOR OBEYED… -- OTHERS…
options() {
    local call=$1 obeyed= option
    shift
    while [ "$1" != -- ]; do
        obeyed="$obeyed, $1"
        shift
    done
    shift
    if ! compiles "$call(t, w, x$obeyed)"; then
        echo "$call(${obeyed#, }) does not compile"
        status=1
    fi
    for option in "$@"; do
        if compiles "$call(t, w, x, $option)"; then
            echo "$call($option) compiles and has no effect"
            status=1
        fi
    done
}
options um_conv2d .act=1 .limit=1 .lab_scale=1 .lab_shift=1 .add=x .add_last=1 .add_up2=1 .out=x .out_h=1 .out_w=1 .fp32=1 -- \
    .norm_in=n .plus=x .second=w .norm_out=n .norm_act=1
options um_linear .norm_in=n .plus=x .second=w .add=x .act=1 .limit=1 .add_last=1 .norm_out=n .norm_act=1 .out=x .fp32=1 -- \
    .lab_scale=1 .lab_shift=1 .add_up2=1 .out_h=1 .out_w=1
options um_upconv2 .act=1 .out=x -- .limit=1 .lab_scale=1 .lab_shift=1 .add=x .add_last=1 .add_up2=1 .out_h=1 .out_w=1 .fp32=1 \
    .norm_in=n .plus=x .second=w .norm_out=n .norm_act=1
# A step has the argument struct of its operator.
step() {
    compiles "(um_op_step(t, UM_OP_ADD, &(struct $1){0}, x, x, x), x)"
}
if ! step um_add_args || step um_norm_args; then
    echo "um_op_step does not tell argument structs apart"
    status=1
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
