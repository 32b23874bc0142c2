#!/usr/bin/env bash
# What the process says of its heap, and the commands that start programs: run, doctor, leaks.
#
# BUILD   the build folder (build)
# CC      the compiler (cc)
# shellcheck disable=SC2016,SC2317 # Other shells expand; functions are called by way of ok.
set -u

# shellcheck source=tests/tap.sh
. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"
# shellcheck source=tests/doors/programs.sh
. "$(dirname "${BASH_SOURCE[0]}")/doors/programs.sh"

hmm=$(realpath -m "${BUILD:-build}/bin/hmm")
work=$(mktemp -d "${TMPDIR:-/tmp}/insight.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

compile insight/numbers insight/numbers.c "${linked[@]}"
compile insight/printing insight/printing.c "${linked[@]}"
compile insight/leaky insight/leaky.c
compile insight/few insight/few.c
compile insight/quiet insight/quiet.c
compile insight/crime insight/crime.c
compile insight/own_malloc insight/own_malloc.c
compile insight/stub insight/stub.c -fno-pie -no-pie
compile insight/sanitized insight/crime.c -fsanitize=address
compile insight/other_loader insight/crime.c -Wl,--dynamic-linker=/nowhere/ld-other.so.1
compile insight/static insight/crime.c -static
compile insight/static_seven insight/seven.c -static
compile insight/static_ours insight/crime.c "$archive" -static -Wl,--gc-sections
compile_done
programs=$programs_folder/insight

# Standard output and error of a command in files; its status is the function's.
capture() { # capture COMMAND...
    # The braces keep the shell's own word about a signal to itself.
    { timeout -k 5 "$limit_seconds" "$@" >"$work/out" 2>"$work/err"; } 2>/dev/null
}

status_of() { # status_of COMMAND...: prints it
    capture "$@"
    echo $?
}

says() { # says FILE TEXT: a line of the file that was captured contains the text
    grep -qF -- "$2" "$work/$1" || {
        diag "no '$2' in:" <"$work/$1"
        diag <"$work/$1"
        return 1
    }
}

# --------------------------------------------------------------------------------------- the numbers
run_cases 'numbers' HMM_OPTIONS=stats_signal=USR1 insight/numbers
for options in hardened=1 hardened=2 hardened=3 engine=block engine=block,hardened=1 engine=block,hardened=2 \
    engine=block,region=sbrk; do
    for case in what_was_freed_is_not_live blocks_of_0_bytes_are_counted mallinfo_agrees; do
        ok "numbers, $options: $case" run HMM_OPTIONS="stats_signal=USR1,$options" insight/numbers "$case"
    done
done
for case in what_was_freed_is_not_live blocks_of_0_bytes_are_counted; do
    ok "numbers, ${secure_library##*/}: $case" \
        run LD_PRELOAD="$secure_library" HMM_OPTIONS=stats_signal=USR1 insight/numbers "$case"
done

capture "$programs/printing" json
ok "JSON is JSON" python3 -c '
import json, sys
stats = json.load(open(sys.argv[1]))
assert stats["engine"] == "fast", stats
assert stats["live_bytes"] == sum(stats[kind + "_bytes"] for kind in ("small", "medium", "large", "other"))
assert stats["live_bytes"] >= 100000 and stats["resident_bytes"] > 0
assert sum(c["live_count"] * c["slot_bytes"] for c in stats["classes"]) == stats["small_bytes"]
assert {"cached_bytes", "dirty_bytes", "metadata_bytes", "held_bytes"} <= stats.keys()' "$work/out"
capture env HMM_OPTIONS=engine=block "$programs/printing" json
ok "JSON of the block engine" python3 -c '
import json, sys
stats = json.load(open(sys.argv[1]))
assert stats["engine"] == "block" and stats["classes"] == [] and stats["other_bytes"] >= 100000, stats' "$work/out"

for engine in fast block; do
    capture env HMM_OPTIONS=engine=$engine "$programs/printing" xml
    ok "engine=$engine: malloc_info is well-formed" xmllint --noout "$work/out"
done
capture "$programs/printing" xml
is "malloc_info: sizes that are free, each once" \
    "$(xmllint --xpath 'count(//size[@count > 0 and @total > 0 and @from <= @to]) = count(//size)' "$work/out")" true
ok "malloc_info: there are some" test "$(xmllint --xpath 'count(//size)' "$work/out")" -gt 5
ok "malloc_info: the present is no more than the most" test \
    "$(xmllint --xpath 'number(/malloc/system[@type="current"]/@size) <= number(/malloc/system[@type="max"]/@size)' \
        "$work/out")" = true

capture env HMM_OPTIONS=stats_signal=USR2 "$programs/printing" signal
is "a signal prints and the program goes on" "$? $(grep -c 'live bytes' "$work/err")" "0 1"
capture env HMM_OPTIONS=stats=exit "$programs/printing" xml
ok "stats=exit" says err "live bytes"
is "stats_signal: what is no signal is a line" \
    "$(HMM_OPTIONS=stats_signal=KILL "$programs/printing" json 2>&1 >/dev/null)" \
    "hmm: HMM_OPTIONS: stats_signal=KILL: ignored, wants none|SIGNAL"

# ------------------------------------------------------------------------------- names of mappings
# A kernel may not know them. Then it is asked all the same, which strace shows.
names_in_maps() {
    LD_PRELOAD=$library perl -e 'open my $maps, "<", "/proc/self/maps"; print grep /hmm/, <$maps>' >"$work/maps"
    says maps '[anon:hmm heap]' 2>/dev/null && says maps '[anon:hmm metadata]'
}
names_asked_for() {
    strace -e trace=prctl -E LD_PRELOAD="$library" perl -e 1 2>"$work/err"
    says err 'PR_SET_VMA_ANON_NAME'
}
if names_in_maps; then
    pass "mappings have names"
elif strace true 2>/dev/null; then
    ok "mappings are given names, which this kernel does not know" names_asked_for
else
    skip "mappings have names" "this kernel has none, and there is no strace"
fi

# ------------------------------------------------------------------------------------------ backtrace
capture env LD_PRELOAD="$library" HMM_OPTIONS=backtrace=1 "$programs/crime"
is "backtrace=1: the first line stays" "$(head -1 "$work/err" | sed 's/0x[0-9a-f]*/P/g; s/[0-9]*$/N/')" \
    "$(LD_PRELOAD=$library bash -c '"$1" 2>&1 >/dev/null' - "$programs/crime" 2>/dev/null | head -1 |
        sed 's/0x[0-9a-f]*/P/g; s/[0-9]*$/N/')"
functions() { # functions FILE: of the program's own frames, by addr2line
    sed -n "s|^    #[0-9]* 0x[0-9a-f]* ($programs/[^+]*+\\(0x[0-9a-f]*\\))\$|\\1|p" "$work/$1" |
        addr2line -f -e "$2" | sed -n 'p;n' | tr '\n' ' '
}
is "backtrace=1: frames are what addr2line wants" "$(functions err "$programs/crime")" "drop main _start "
capture env HMM_OPTIONS=backtrace=1 "$programs/static_ours"
ok "backtrace=1 in a static program" grep -qw 'drop main' <<<"$(functions err "$programs/static_ours")"
capture env LD_PRELOAD="$library" HMM_OPTIONS=hardened=1,sites=1 "$programs/crime"
is "sites=1: where it was freed and where it was allocated" "$(functions err "$programs/crime")" \
    "drop main _start make main _start "
is "the environment is still there" \
    "$(LD_PRELOAD=$library HMM_OPTIONS=hardened=1,sites=1,backtrace=1 ANYTHING=here sh -c 'echo $ANYTHING')" here

# ----------------------------------------------------------------------------------------------- run
is "run: the exit status is the program's" "$(status_of "$hmm" run -- sh -c 'exit 7')" 7
is "run: killed by a signal" "$(status_of "$hmm" run -- sh -c 'kill -9 $$')" 137
is "run: no such program" "$(status_of "$hmm" run -- ./nonesuch)" 127
is "run: not a program" "$(status_of "$hmm" run -- /)" 126
is "run: no program" "$(status_of "$hmm" run)" 2
is "run: a mistake is one line" "$("$hmm" run --nonesuch -- true 2>&1)" \
    "hmm run: there is no option --nonesuch; see hmm help run"
is "run: options as flags" "$("$hmm" run --engine=block --stats-signal=USR1 --backtrace -- sh -c 'echo $HMM_OPTIONS')" \
    "engine=block,stats_signal=USR1,backtrace=1"
is "run: flags win over the variable" \
    "$(HMM_OPTIONS=engine=block "$hmm" run --engine=fast -- sh -c 'echo $HMM_OPTIONS')" "engine=block,engine=fast"
is "run: what was preloaded stays" "$(LD_PRELOAD=libm.so.6 "$hmm" run -- sh -c 'echo $LD_PRELOAD')" "$library:libm.so.6"
for other in /opt/libhmm/libm.so.6 /usr/lib/libhmmer.so; do
    is "run: what only sounds like the library is not it ($other)" \
        "$(LD_PRELOAD=$other "$hmm" run -- sh -c 'echo $LD_PRELOAD' 2>/dev/null)" "$library:$other"
done
for ours in "$secure_library" "libm.so.6 $array_library" "$library.0:libm.so.6"; do
    is "run: a library of ours stays ($ours)" \
        "$(LD_PRELOAD=$ours "$hmm" run -- sh -c 'echo $LD_PRELOAD' 2>/dev/null)" "$ours"
done
capture "$hmm" run --stats=exit -- perl -e 1
ok "run: the program is on HMM" says err "live bytes"
is "run --report: the exit status is the program's" "$(status_of "$hmm" run --report -- sh -c 'exit 7')" 7
ok "run --report: a report" says err "together"
is "run --report: killed by a signal" "$(status_of "$hmm" run --report -- sh -c 'kill -15 $$')" 143
is "run --report: the exit status is also that of a program without HMM" \
    "$(status_of "$hmm" run --report -- "$programs/static_seven")" 7
is "run --report: a line says so" "$(cat "$work/err")" "hmm run: $programs/static_seven does not run on HMM"
is "run --report: no such program" "$(status_of "$hmm" run --report -- ./nonesuch)" 127

# -------------------------------------------------------------------------------------------- doctor
is "doctor: all is well" "$(status_of "$hmm" doctor)" 0
for name in 'page size' 'address bits' 'huge pages' overcommit mappings limits cgroup library; do
    ok "doctor: $name" says out "  $name"
done
diagnose() { # diagnose NAME STATUS PROGRAM LINE...
    local name=$1 status=$2 program=$3 line
    shift 3
    is "doctor: $name" "$(status_of "$hmm" doctor -- "$program")" "$status"
    for line in "$@"; do
        ok "doctor: $name: $line" says out "$line"
    done
}
diagnose 'a dynamic program' 0 perl 'linked         dynamically' 'set-uid        no' 'goes to HMM    malloc' \
    'verdict: perl runs on HMM'
diagnose 'a static program' 1 "$programs/static" 'linked         statically' \
    "verdict: $programs/static does not run on HMM" 'advice: nothing can be preloaded into a static program'
diagnose 'a static program with HMM' 0 "$programs/static_ours" 'HMM, linked in' 'has HMM linked in'
diagnose 'an allocator of its own' 1 "$programs/own_malloc" 'the program defines malloc' \
    "goes elsewhere malloc: to $programs/own_malloc" 'does not run on HMM'
diagnose 'a program at fixed addresses' 0 "$programs/stub" 'goes to HMM    malloc free' 'runs on HMM'
diagnose 'a program with a sanitizer' 1 "$programs/sanitized" 'allocators     libasan' 'does not run on HMM' \
    'advice: a sanitizer needs the malloc that it brings'
diagnose 'a linked program' 0 "$programs/printing" 'goes to HMM    malloc'
cp "$programs/crime" "$work/privileged"
chmod u+s "$work/privileged"
diagnose 'a set-uid program' 1 "$work/privileged" 'set-uid        yes' 'does not run on HMM' 'link with -lhmm'
diagnose 'a program with another loader' 1 "$programs/other_loader" "another loader than glibc's" 'does not run on HMM'
# The number of its machine, which none has, is in bytes 18 and 19.
cp "$programs/crime" "$work/elsewhere"
printf '\376\376' | dd of="$work/elsewhere" bs=1 seek=18 conv=notrunc status=none
diagnose 'a program of another machine' 1 "$work/elsewhere" 'for another kind of machine'
printf '#!/usr/bin/env perl\n' >"$work/script"
chmod +x "$work/script"
diagnose 'a script' 0 "$work/script" 'script         of perl' 'runs on HMM'
printf 'no program\n' >"$work/text"
chmod +x "$work/text"
diagnose 'text' 1 "$work/text" 'not a program that the kernel runs'
is "doctor: nothing of the program is executed" "$("$hmm" doctor -- "$programs/leaky" | grep -c done)" 0
is "doctor: no such program" "$(status_of "$hmm" doctor -- ./nonesuch)" 2
is "doctor: a program that may not be executed" "$("$hmm" doctor -- /etc/passwd 2>&1)" \
    "hmm doctor: /etc/passwd: Permission denied"

# --------------------------------------------------------------------------------------------- leaks
is "leaks: the exit status is the program's where there are none" "$(status_of "$hmm" leaks -- "$programs/leaky")" 4
is "leaks: none" "$(cat "$work/err")" "SUMMARY: HMM: 0 byte(s) leaked in 0 allocation(s)."
is "leaks: the program's own output" "$(cat "$work/out")" "done"
is "leaks: 23 where there are" "$(status_of "$hmm" leaks -- "$programs/leaky" 1)" 23
if grep -q ' in main ' "$work/err"; then
    is "leaks: what, and from where" \
        "$(grep -E ' leak of |SUMMARY| in (grow|lose_[a-z]*|main) ' "$work/err" | sed "s|0x[0-9a-f]*|P|; s|$tests_folder/||")" \
        "Direct leak of 1048576 byte(s) in 1 object(s) allocated from:
    #0 P in grow insight/leaky.c:17
    #1 P in lose_large insight/leaky.c:40
    #2 P in main insight/leaky.c:62
Direct leak of 1000 byte(s) in 1 object(s) allocated from:
    #0 P in grow insight/leaky.c:17
    #1 P in lose_one insight/leaky.c:22
    #2 P in main insight/leaky.c:60
Direct leak of 48 byte(s) in 1 object(s) allocated from:
    #0 P in lose_list insight/leaky.c:31
    #1 P in main insight/leaky.c:61
Indirect leak of 96 byte(s) in 2 object(s) allocated from:
    #0 P in lose_list insight/leaky.c:31
    #1 P in main insight/leaky.c:61
SUMMARY: HMM: 1049720 byte(s) leaked in 5 allocation(s)."
else
    skip "leaks: what, and from where" "built without elfutils"
fi
# Frames of the program itself end in " in FUNCTION FILE", or in "(PROGRAM+0x...)".
frames() { # frames PROGRAM: how many lines of the report are a frame of it, whole
    grep -cE "^    #[0-9]+ 0x[0-9a-f]+( in [a-z_]+ .*/leaky\\.c:[0-9]+| \\($1\\+0x[0-9a-f]+\\))\$" "$work/err"
}
usual=$(frames "$programs/leaky")
ok "leaks: frames are lines" test "$usual" -ge 9
PATH=$programs:$PATH capture "$hmm" leaks -- leaky 1
is "leaks: of a program that PATH leads to" "$(frames "$programs/leaky")" "$usual"
long=$work/$(printf '%0200d/%0200d/%0200d' 1 2 3)
mkdir -p "$long"
cp "$programs/leaky" "$long"
capture "$hmm" leaks -- "$long/leaky" 1
is "leaks: of a program with a long path" "$(frames "$long/leaky")" "$usual"
is "leaks=exit: of a program with a long path" \
    "$(LD_PRELOAD=$library HMM_OPTIONS=leaks=exit "$long/leaky" 1 2>&1 >/dev/null |
        grep -cE "^    #[0-9]+ 0x[0-9a-f]+ \\($long/leaky\\+0x[0-9a-f]+\\)\$")" \
    "$(LD_PRELOAD=$library HMM_OPTIONS=leaks=exit "$programs/leaky" 1 2>&1 >/dev/null |
        grep -cE "^    #[0-9]+ 0x[0-9a-f]+ \\($programs/leaky\\+0x[0-9a-f]+\\)\$")"
for count in 12 64 200 1000; do
    is "leaks: with $count files at most" \
        "$(ulimit -n $count && status_of "$hmm" leaks -- "$programs/leaky" 1) $(frames "$programs/leaky")" "23 $usual"
done
is "leaks: of a program that may open no more files" "$(status_of "$hmm" leaks -- "$programs/few")" 23
is "leaks --exit-status" "$(status_of "$hmm" leaks --exit-status=99 -- "$programs/leaky" 1)" 99
is "leaks --exit-status=x" "$(status_of "$hmm" leaks --exit-status=x -- "$programs/leaky" 1)" 2
is "leaks --leaks: that is what it does" "$(status_of "$hmm" leaks --leaks=none -- "$programs/leaky" 1)" 2
capture "$hmm" leaks --reachable -- "$programs/leaky"
ok "leaks --reachable" says err "Still reachable of 123 byte(s) in 1 object(s)"
is "leaks: in a child of the program" \
    "$(status_of "$hmm" leaks -- bash -c "$programs/leaky 1; true") $(grep -c '^SUMMARY: HMM: 1049720' "$work/err")" "23 1"
is "leaks: no such program" "$(status_of "$hmm" leaks -- ./nonesuch)" 127
is "leaks: no such program: one line says so" "$(cat "$work/err")" "hmm leaks: ./nonesuch: No such file or directory"
is "leaks: killed by a signal: exit status" "$(status_of "$hmm" leaks -- sh -c 'kill -15 $$')" 143
is "leaks: killed by a signal: a line says so" "$(cat "$work/err")" \
    "hmm leaks: no report: sh was killed by signal 15 (Terminated), which leaves no time to look for leaks"
is "leaks: ended by _exit: exit status" "$(status_of "$hmm" leaks -- perl -MPOSIX -e 'POSIX::_exit(0)')" 2
ok "leaks: ended by _exit: a line says so" grep -qx "hmm leaks: no report: perl ended by _exit or quick_exit, .*" "$work/err"
is "leaks: ended by _exit as if it were not there: exit status" \
    "$(status_of "$hmm" leaks -- perl -MPOSIX -e 'POSIX::_exit(127)')" 2
ok "leaks: ended by _exit as if it were not there: a line says so" says err "hmm leaks: no report: perl ended by _exit"
is "leaks: killed after a child of its had a report: exit status" \
    "$(status_of "$hmm" leaks -- perl -e 'system(shift); kill 9, $$' "$programs/leaky")" 137
ok "leaks: killed after a child of its had a report: the report" says err "SUMMARY: HMM: 0 byte(s) leaked"
ok "leaks: killed after a child of its had a report: a line says so" says err "no report: perl was killed by signal 9"
is "leaks: ended by _exit after a child of its had a report: exit status" \
    "$(status_of "$hmm" leaks -- perl -MPOSIX -e 'system(shift); POSIX::_exit(6)' "$programs/leaky")" 6
ok "leaks: ended by _exit after a child of its had a report: a line says so" says err "no report: perl ended by _exit"
is "leaks: the engine is the one that looks for leaks" "$(HMM_OPTIONS=engine=block,region=sbrk status_of "$hmm" leaks -- true)" 0
is "leaks: options of other engines are none" "$("$hmm" leaks --engine=block -- true 2>&1)" \
    "hmm leaks: there is no option --engine=block; see hmm help leaks"
is "leaks: no report from a program with an allocator of its own" "$(status_of "$hmm" leaks -- "$programs/own_malloc")" 2
is "leaks: python has none" "$(status_of "$hmm" leaks -- /usr/bin/python3 -c 'print(sum(range(1000)))')" 0
is "leaks=exit: without symbols, on standard error" \
    "$(LD_PRELOAD=$library HMM_OPTIONS=leaks=exit "$programs/leaky" 1 2>&1 >/dev/null | grep -c ' leak of ')" 4

# -------------------------------------------------------- started by who does not wait for children
careless() { # careless COMMAND...: captured, with SIGCHLD ignored
    capture perl -e '$SIG{CHLD} = "IGNORE"; exec @ARGV' "$@"
}
careless grep SigIgn /proc/self/status
ignored=$(cat "$work/out")
for command in leaks 'run --report'; do
    # shellcheck disable=SC2086 # a command and its option
    is "$command: where children are ignored: exit status" \
        "$(careless "$hmm" $command -- "$programs/leaky"; echo $?)" 4
    # shellcheck disable=SC2086
    careless "$hmm" $command -- grep SigIgn /proc/self/status
    is "$command: where children are ignored they are in the program, too" "$(cat "$work/out")" "$ignored"
done
careless "$hmm" doctor -- perl
ok "doctor: where children are ignored" says out 'verdict: perl runs on HMM'

# ----------------------------------------------------------------- what the command is told is for the program
# A program that has got ready tells of the signal, and ends with 5.
obedient='$| = 1; for my $name (qw(HUP INT QUIT TERM USR1 USR2)) { $SIG{$name} = sub { print "got $name\n"; exit 5 } }
    print "ready\n"; sleep 1 for 1 .. 20; exit 6'
wait_said() { # wait_said TEXT: in $work/out
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        ! grep -qsF -- "$1" "$work/out" || return 0
        sleep 0.05
    done
    return 1
}
told() { # told SIGNAL COMMAND...: what the program said, and the command's exit status
    local signal=$1 command status
    shift
    : >"$work/out"
    # Of what stands in the background a shell makes SIGINT and SIGQUIT ignored, and nohup SIGHUP of all.
    perl -e '$SIG{HUP} = $SIG{INT} = $SIG{QUIT} = "DEFAULT"; exec @ARGV' "$@" >"$work/out" 2>"$work/err" &
    command=$!
    wait_said ready
    kill -s "$signal" "$command"
    { wait "$command"; } 2>/dev/null
    status=$?
    echo "$(grep ^got "$work/out") $status"
}
for signal in HUP INT QUIT TERM USR1 USR2; do
    is "SIG$signal reaches the program: leaks" "$(told $signal "$hmm" leaks --exit-status=5 -- perl -e "$obedient")" \
        "got $signal 5"
    is "SIG$signal reaches the program: run --report" \
        "$(told $signal "$hmm" run --report -- perl -e "$obedient")" "got $signal 5"
done
for command in run stat check explain; do
    told TERM "$hmm" $command -- perl -e "$obedient" >/dev/null
    ok "SIGTERM reaches the program: $command" says out 'got TERM'
done
is "SIGTERM ends the program: leaks" "$(told TERM "$hmm" leaks -- perl -e '$| = 1; print "ready\n"; sleep 20')" " 143"
told TERM "$hmm" explain -- perl -e '$| = 1; print "ready\n"; sleep 20' >/dev/null
ok "SIGTERM ends the program, and its heap is explained" says out together
is "a signal that the command ignores the program ignores" \
    "$(capture sh -c 'trap "" HUP USR1; exec "$@"' - "$hmm" leaks -- grep SigIgn /proc/self/status
        sed 's/.*\(...\)$/\1/' "$work/out")" "201"

# A program that is traced stops and goes on as others do: T becomes t.
state_becomes() { # state_becomes PROCESS STATE
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        [[ $(ps -o state= -p "$1" | tr t T) != "$2" ]] || return 0
        sleep 0.05
    done
    diag "its state is $(ps -o state= -p "$1")"
    return 1
}
: >"$work/out"
"$hmm" explain -- perl -e '$| = 1; print "ready\n"; sleep 1 for 1 .. 20' >"$work/out" 2>"$work/err" &
command=$!
wait_said ready
child=$(pgrep -P "$command" perl)
kill -s STOP "$child"
sleep 0.3
ok "explain: SIGSTOP stops the program" state_becomes "$child" T
kill -s CONT "$child"
ok "explain: SIGCONT lets it go on" state_becomes "$child" S
kill -s STOP "$child"
ok "explain: it is stopped again" state_becomes "$child" T
kill -s TERM "$child"
kill -s CONT "$child"
ok "explain: it ends as others do" wait "$command"
ok "explain: and is explained" says out together

# ------------------------------------------------------------------------------- manual, completion
ok "the manual page is without mistakes" test -z "$("$hmm" help --man | groff -man -ww -Tutf8 2>&1 >/dev/null)"
for command in $("$hmm" help --words); do
    ok "the manual tells of hmm $command" grep -qE "^\.SS hmm $command( |\$)" <("$hmm" help --man)
    ok "hmm help $command" "$hmm" help "$command"
done
complete_line() { # complete_line WORD...: what bash would offer for the last one
    PATH=$(dirname "$hmm"):$PATH bash -c '. "$1"; shift; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _hmm; echo "${COMPREPLY[*]}"' \
        - "$tests_folder/../packaging/hmm.bash" "$@"
}
is "completion: commands" "$(complete_line hmm do)" doctor
is "completion: options" "$(complete_line hmm run --eng)" "--engine="
is "completion: flags" "$(complete_line hmm leaks --reach)" "--reachable"
is "completion: a core" "$(cd "$tests_folder" && complete_line hmm map tap)" tap.sh
is "completion: no core where none is taken" "$(cd "$tests_folder" && complete_line hmm top tap)" ''

# A file of the program's own under the number of the report, and a program without a heap.
: >"$work/own"
is "a file of the program's own is left alone" "$(status_of "$hmm" leaks -- "$programs/quiet" "$work/own")" 2
is "and is empty" "$(cat "$work/own")" ''
is "a program that allocates nothing leaks nothing" "$(status_of "$hmm" leaks -- "$programs/quiet")" 0
ok "and a line says so" says err "SUMMARY: HMM: 0 byte(s) leaked in 0 allocation(s)."

done_testing
