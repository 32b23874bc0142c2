#!/usr/bin/env bash
# `hmm top` on a terminal of tmux: what it shows, its keys, its end, and what it says where there is no
# terminal or no ncurses.
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
folder=$programs_folder/top
columns=100
rows=30

mkdir -p "$folder"
compile top/heap map/heap.c "${linked[@]}"
compile_done

# ------------------------------------------------------------------------------------- what it refuses
is_line() { # is_line TEXT PATTERN
    [[ $(wc -l <<< "$1") == 1 && $1 =~ $2 ]]
}

mistake() { # mistake NAME PATTERN HMM ARGUMENT...: exit status 2, one line
    local name=$1 pattern=$2 status text
    shift 2
    text=$("$@" 2>&1 < /dev/null)
    status=$?
    is "$name: exit status" "$status" 2
    ok "$name: one line says so" is_line "$text" "$pattern" || diag "$text"
}
mistake 'no process' 'hmm top: wants a process id' "$hmm" top
mistake 'a program' 'hmm top: wants a process id' "$hmm" top -- /bin/true
mistake 'a strange interval' '--interval wants from 0.05 to 3600 seconds, not soon' "$hmm" top --interval=soon 1

without=$(realpath -m "${BUILD:-build}")/no_ncurses
ok 'it builds without ncurses' make -s -C "$tests_folder/.." BUILD="$without" CC="${CC:-cc}" NCURSES= tool
mistake 'built without ncurses' 'hmm top: was built without ncurses; install libncurses-dev' "$without/bin/hmm" top $$

if ldd "$hmm" | grep -q ncurses; then
    mistake 'no terminal' 'hmm top: wants a terminal' "$hmm" top $$
else
    skip 'a screen' 'ncurses is not here'
    done_testing
fi
if ! command -v tmux > /dev/null; then
    skip 'a screen' 'tmux is not here'
    done_testing
fi

# ------------------------------------------------------------------------------------------ the screen
# Its parent never asks how it ended, so it stays in the table of processes.
coproc HEAP {
    "$programs_folder/top/heap" 100000 <&0 &
    exec sleep 60
}
# shellcheck disable=SC2153 # bash sets it
heap_job=$HEAP_PID
session=0
terminal() {
    tmux -L "hmm-top-$$-$session" -f /dev/null "$@"
}
trap 'terminal kill-server 2> /dev/null; kill "$heap_job" 2> /dev/null' EXIT
read -r -t "$limit_seconds" target live_count <&"${HEAP[0]}" || { echo "Bail out! there is no heap to watch"; exit 1; }

# Starts it in a terminal that afterwards shows its exit status. A terminal server that was told to go may
# still be there, so each has a name of its own.
start() { # start PROCESS NAME=VALUE...
    local process=$1
    shift
    terminal kill-server 2> /dev/null
    session=$((session + 1))
    terminal new-session -d -x "$columns" -y "$rows" \
        "env LC_ALL=C.UTF-8 $* '$hmm' top -i 0.1 $process; echo \"status \$?\"; cat"
}

screen() {
    terminal capture-pane -p
}

# Waits until the screen has a line that matches.
shows() { # shows PATTERN
    local try
    for ((try = 0; try < 100; try++)); do
        screen | grep -qE "$1" && return
        sleep 0.1
    done
    screen | diag
    return 1
}

press() {
    terminal send-keys "$@"
}

start "$target"
ok 'the process and its engine' shows "^process $target \(heap\)  fast engine .* every 0.1 s$"
ok 'the totals' shows '^live [0-9.]+ MiB   in [0-9.]+ k blocks   resident [0-9.]+ MiB   dirty .*   free [0-9.]+ MiB'
ok 'memory over time' shows '^ *[0-9.]+ MiB .*░+$'
ok 'live memory is filled' shows ' +0 .*█+$'
ok 'calls a second' shows '^ *[0-9.]+/s'
ok 'the keys' shows '^q quit  s sort  t threads  p pause'
is 'the head of the table' "$(screen | grep SLOT)" \
    '  SLOT    IN USE      BYTES    IN BINS       IDLE  CALLS/S  FULL      by bytes'

# The first column of the table, and one that it is sorted by.
column() { # column NUMBER
    screen | sed -n '/SLOT/,/q quit/p' | sed '1d;$d' | awk -v column="$1" 'NF {print $column}'
}
is 'medium and large blocks have rows' "$(column 1 | grep -E 'medium|large' | sort)" $'large\nmedium'
press s
ok 'sorted by what lies idle' shows 'by idle$'
press s s
ok 'sorted by size' shows 'by size$'
sizes=$(column 1 | grep -E '^[0-9]+$')
is 'sizes ascend' "$sizes" "$(sort -n <<< "$sizes")"
slots=$(column 2 | head -n "$(wc -l <<< "$sizes")" | awk '{sum += $1} END {print sum}')
ok 'all small blocks are counted' test "$slots" -ge "$live_count" -a "$slots" -lt $((live_count + 1000)) ||
    diag "$slots of $live_count"

ok 'in colour' test "$(terminal capture-pane -pe | grep -c $'\033\\[3[0-8]')" -gt 0

press t
ok 'threads' shows '^ +THREAD +SLABS +IN BINS +ON THEIR WAY +CALLS/S +REFILLS/S$'
ok 'three of them' test "$(screen | grep -cE '^ +0x[0-9a-f]+ ')" = 3
press t
ok 'and classes again' shows 'SLOT'
press p
ok 'a pause' shows 'paused, every 0.1 s'
press p
press -
ok 'a longer interval' shows ' every 0.2 s$'
press h
ok 'help' shows '^  calls/s   blocks handed out a second, late by what a bin holds$'
press h
ok 'help goes' shows 'SLOT'
terminal resize-window -x 80 -y 30
ok 'a window of 80 columns' shows '  FULL      by size$'
ok 'has room for whole rows' shows '^ +[0-9]+ .* (█|░){14}$'
is 'and none of them is two' "$(screen | grep -cE '^(█|░)')" 0
press t
ok 'for threads' shows ' REFILLS/S$'
press t h
ok 'and for help' shows '; the shade behind$'
press h
ok 'which goes' shows 'SLOT'
terminal resize-window -x 60 -y 14
ok 'a smaller window' shows '^live '
press q
ok 'q quits with 0' shows '^status 0$'
is 'and leaves nothing behind' "$(screen | sed '/^$/d')" 'status 0'

# It is there for as long as its terminal, also when nothing tells it.
ends() { # ends PROCESS
    local try
    for ((try = 0; try < 100; try++)); do
        kill -0 "$1" 2> /dev/null || return 0
        sleep 0.1
    done
    kill -9 "$1"
    return 1
}
terminal kill-server 2> /dev/null
session=$((session + 1))
rm -f "$folder/watcher"
terminal new-session -d -x "$columns" -y "$rows" \
    "trap '' HUP; echo \$\$ > '$folder/watcher'; LC_ALL=C.UTF-8 exec '$hmm' top -i 0.1 $target"
ok 'a terminal whose end is not told' shows SLOT
terminal kill-server
ok 'is the end all the same' ends "$(cat "$folder/watcher")"

start "$target" TERM=nonsense
ok 'a terminal that nobody knows' shows '^hmm top: cannot draw on this terminal \(TERM=nonsense\)$'
ok 'is a mistake too' shows '^status 2$'
start "$target" TERM=dumb
ok 'nor on one without a cursor to move' shows '^hmm top: cannot draw on this terminal \(TERM=dumb\)$'

columns=30 rows=24
start "$target"
ok 'a narrow terminal says what it wants' shows '^too small: 50 columns and 10 r'
is 'and nothing else' "$(screen | grep -c .)" 1
columns=100 rows=30

start "$target" NO_COLOR=1
ok 'a screen without colour' shows SLOT
is 'no colour with NO_COLOR' "$(terminal capture-pane -pe | grep -c $'\033\\[3[0-8]')" 0
heap_input=${HEAP[1]}
exec {heap_input}>&-
ok 'a process that ends' shows "^process $target has ended$"
ok 'is no mistake' shows '^status 0$'

start $$
ok 'a process without HMM' shows '^hmm top: .* does not run on HMM$'
ok 'is a mistake' shows '^status 2$'

done_testing
