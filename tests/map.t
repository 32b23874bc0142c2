#!/usr/bin/env bash
# `hmm map`: a page, a drawing and characters of a process with a million blocks; the page in a browser.
#
# BUILD   the build folder (build)
# CC      the compiler (cc)
# shellcheck disable=SC2317 # Functions are called by way of ok.
set -u

# shellcheck source=tests/tap.sh
. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"
# shellcheck source=tests/doors/programs.sh
. "$(dirname "${BASH_SOURCE[0]}")/doors/programs.sh"

hmm=$(realpath "${BUILD:-build}/bin/hmm")
folder=$programs_folder/map
block_count=1000000
seconds_max=2

compile map/heap map/heap.c "${linked[@]}"
compile_done

# ----------------------------------------------------------------------------------------- the target
coproc HEAP { exec "$programs_folder/map/heap" "$block_count"; }
# shellcheck disable=SC2153 # bash sets it
heap_job=$HEAP_PID
trap 'kill "$heap_job" 2> /dev/null' EXIT
read -r -t "$limit_seconds" target live_count <&"${HEAP[0]}" || { echo "Bail out! the heap to look at is not there"; exit 1; }

lacks() { # lacks PATTERN FILE
    ! LC_ALL=C grep -q "$1" "$2"
}

draw() { # draw OUTPUT: the picture of the target; what is printed is kept
    timeout "$limit_seconds" "$hmm" map "$target" -o "$1" > "$folder/printed"
}

# ------------------------------------------------------------------------------------------- the page
page=$folder/heap.html
start_ns=$(date +%s%N)
ok 'a page is written' draw "$page"
passed_ms=$((($(date +%s%N) - start_ns) / 1000000))
ok "a million live blocks in under $seconds_max s" test "$passed_ms" -lt $((seconds_max * 1000)) ||
    diag "it took $passed_ms ms"
is 'the path is printed' "$(cat "$folder/printed")" "$page"

# How many slots of slabs the page says are in use.
slots_of_page() {
    python3 - "$page" <<'PYTHON'
import base64, json, struct, sys
text = open(sys.argv[1], encoding='utf-8').read()
start = text.index('id="heap">') + len('id="heap">')
heap = json.loads(text[start:text.index('</script>', start)])
records = base64.b64decode(heap['regions'][0]['data'])
slots = sum(r[5] * r[9] for r in struct.iter_unpack('<BBBBHHHHHH', records) if r[0] == 2)
print(slots)
PYTHON
}
slot_count=$(slots_of_page)
ok 'there are as many' test "$live_count" -ge "$block_count"
ok 'all of them are in the picture' test "$slot_count" -ge "$live_count" -a "$slot_count" -lt $((live_count + 1000)) ||
    diag "there are $slot_count slots in use, of $live_count"

in_browser() {
    local verdict name
    while read -r verdict name; do
        case $verdict in
        pass) pass "in a browser: ${name//_/ }" ;;
        fail) fail "in a browser: ${name//_/ }" ;;
        esac
    done < "$folder/cases"
}
if command -v python3 > /dev/null; then
    timeout 120 python3 "$tests_folder/map/page.py" "$page" "$folder/pictures" > "$folder/cases"
    case $? in
    0) in_browser ;;
    2) skip 'the page in a browser' 'Chromium is not here, or does not start' ;;
    *) fail 'the page in a browser' ;;
    esac
else
    skip 'the page in a browser' 'python3 is not here'
fi

# ---------------------------------------------------------------------------------- drawing, characters
ok 'a drawing is written' draw "$folder/heap.svg"
ok 'it is well-formed' python3 -c 'import sys, xml.etree.ElementTree as tree; tree.parse(sys.argv[1])' "$folder/heap.svg"
ok 'it is small' test "$(stat -c %s "$folder/heap.svg")" -lt 1000000

ok 'characters are written' draw -
LC_ALL=C ok 'in the C locale' draw -
ok 'in the C locale they are ASCII' lacks '[^ -~]' "$folder/printed"
for line in '^Arena  .* up to its frontier, of .* reserved, a character: ' '^HmmHeap 0x' '^Live slots ' '^Live medium ' \
    '^Live large ' '^Live tagged ' '^Free inside ' '^Resident ' '^Fragmentation ' 'large block' '^ *slot *slabs *used$'; do
    ok "there is: $line" grep -q "$line" "$folder/printed"
done
LC_ALL=C.UTF-8 draw -
ok 'in a UTF-8 locale they are blocks' grep -q '█' "$folder/printed"
ok 'no colour where there is no terminal' lacks $'\033' "$folder/printed"

on_terminal() { # on_terminal [NAME=VALUE...]: what a terminal gets
    TERM=xterm-256color timeout "$limit_seconds" env "$@" script -qec "$hmm map $target -o -" /dev/null \
        < /dev/null > "$folder/printed"
}
if command -v script > /dev/null; then
    on_terminal NO_COLOR=
    ok 'colour on a terminal' grep -q $'\033\\[38;5;32m' "$folder/printed"
    on_terminal NO_COLOR=1
    ok 'none with NO_COLOR' lacks $'\033' "$folder/printed"
else
    skip 'colour on a terminal' 'script is not here'
fi

# ------------------------------------------------------------------------------------- other targets
heap_input=${HEAP[1]}
exec {heap_input}>&-
wait "$heap_job"
draw_program() { # draw_program NAME=VALUE...: a small heap at its end
    timeout "$limit_seconds" env "$@" "$hmm" map -o - -- "$programs_folder/map/heap" 20000 \
        < /dev/null > "$folder/printed"
}
ok 'a program, as it is at its end' draw_program LC_ALL=C
ok 'it says that it ended' grep -q 'at its end, fast engine' "$folder/printed"
ok 'the block engine' draw_program HMM_OPTIONS=engine=block
ok 'it is drawn too' grep -q '^Block heap of the process  .* up to the break, good fit' "$folder/printed"

# -------------------------------------------------------------------------------- what a person mistakes
is_line() { # is_line TEXT PATTERN
    [[ $(wc -l <<< "$1") == 1 && $1 =~ $2 ]]
}

mistake() { # mistake NAME PATTERN ARGUMENT...: exit status 2, nothing but one line on standard error
    local name=$1 pattern=$2 status text
    shift 2
    text=$("$hmm" map "$@" 2>&1 < /dev/null)
    status=$?
    is "$name: exit status" "$status" 2
    ok "$name: one line says so" is_line "$text" "$pattern" || diag "$text"
}
mistake 'no target' 'wants a process id, a core file, or -- PROGRAM'
mistake 'two targets' 'wants a process id, a core file, or -- PROGRAM' 1 2
mistake 'an unknown kind of picture' 'writes .html, .svg or -, not heap.png' 1 -o heap.png
mistake 'a process that is not there' 'hmm map: ' 999999999
mistake 'a folder that is not there' 'No such file or directory' -o /nowhere/heap.svg -- /bin/true
if [[ -w /dev/full ]]; then
    ln -sf /dev/full "$folder/full.html"
    is 'a page that has no room' "$("$hmm" map -o "$folder/full.html" -- "$programs_folder/map/heap" 20000 2>&1 < /dev/null |
        tail -n 1)" 'hmm map: output: No space left on device'
else
    skip 'a page that has no room' 'there is no /dev/full'
fi

done_testing
