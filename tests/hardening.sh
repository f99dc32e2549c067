#!/usr/bin/env bash
# What the release build's command and library are made of: tests/hardening.sh COMMAND LIBRARY
set -uo pipefail
command=$1 library=$2
passed=0 failed=0

check() { # check WHAT TEST...
    if "${@:2}"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $1"
    fi
}
has() { # has FILE READELF-OPTIONS PATTERN
    readelf -W $2 "$1" | grep -E "$3" >/dev/null
}
hasnt() {
    ! has "$@"
}
only_um() {
    local other
    other=$(nm -D --defined-only "$1" | awk '{ print $3 }' | grep -v '^um_')
    [ -z "$other" ] || echo "exported: $other"
    [ -z "$other" ]
}

check "command: position independent" has "$command" -hd 'Flags:.* PIE'
for file in "$command" "$library"; do
    name=$(basename "$file")
    check "$name: loaded anywhere" has "$file" -h 'Type: +DYN'
    check "$name: read-only relocations" has "$file" -l 'GNU_RELRO'
    check "$name: immediate binding" has "$file" -d 'BIND_NOW|FLAGS_1.*NOW'
    check "$name: stack not executable" has "$file" -l 'GNU_STACK +[0-9a-fx ]+ RW +0x'
    check "$name: no text relocations" hasnt "$file" -d 'TEXTREL'
    check "$name: stack protector" has "$file" --dyn-syms '__stack_chk_fail'
    check "$name: fortified functions" has "$file" --dyn-syms '__[a-z]+_chk(@|$)'
done
check "library: exports um_ only" only_um "$library"
check "library: calls its own functions" hasnt "$library" -r ' um_'
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
