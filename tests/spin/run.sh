#!/bin/sh
# Checks the models of the lock-free protocols with spin: run.sh [mutants].
#
# One line a configuration: every state was seen, and no assertion failed; else the way to the error, and
# exit status 1. With `mutants`, each way to break a protocol must be found instead. CC: a C compiler.
here=$(cd "$(dirname "$0")" && pwd)
cc=${CC:-cc}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

# NAME MODEL DEFINITIONS...: builds and runs the model in a directory of its own. 0: no error.
check() {
    name=$1 model=$here/$2
    shift 2
    mkdir "$work/$name" && cd "$work/$name" || return 1
    spin -a "$@" "$model" >spin.log 2>&1 &&
        $cc -O2 -DSAFETY -DCOLLAPSE -DMEMLIM=4000 -w -o pan pan.c 2>>spin.log || {
        cat spin.log
        return 1
    }
    ./pan -m1000000 -w25 >pan.log 2>&1
    if grep -q 'errors: 0' pan.log && ! grep -q 'not completed\|too small' pan.log; then
        echo "$name: $(sed -n 's/^ *\([0-9e.+]*\) states, stored.*/\1/p' pan.log) states, no error"
        return 0
    fi
    grep '^pan:' pan.log
    cp "$model" . && spin -t -p -g -l "$@" "$(basename "$model")" 2>&1 | tail -"${TRAIL_LINES:-200}"
    return 1
}

# As check, of a model that must fail; the trail is not shown.
check_fails() {
    if check "$@" >"$work/$1.out" || ! grep -q '^pan:1: assertion violated' "$work/$1.out"; then
        echo "$1: not found"
        tail -3 "$work/$1.out"
        return 1
    fi
    echo "$1: $(sed -n 's/^pan:1: \(.*\) (at depth .*/\1/p' "$work/$1.out" | cut -c1-100)"
}

two_freers="-DFREERS=2"
adopter="-DFREERS=2 -DADOPTERS=1 -DCAPACITY=2"
trimming="-DFREERS=1 -DADOPTERS=1 -DTRIMMING"
trimming_thinning="-DFREERS=2 -DADOPTERS=1 -DCAPACITY=2 -DTRIMMING -DTHINNING_ALLOWED"
retake="-DFREERS=1 -DOWNERS=2 -DCAPACITY=2 -DRETAKE"
dormancy="-DFREERS=1 -DOWNERS=2 -DDORMANCY"
thinning="-DFREERS=2 -DCAPACITY=2 -DTHINNING_ALLOWED"
thinning_retake="-DFREERS=1 -DOWNERS=2 -DCAPACITY=2 -DRETAKE -DTHINNING_ALLOWED"

# Options are words.
# shellcheck disable=SC2086
case $1 in
'')
    check remote_adopter remote.pml $adopter &
    jobs_pids=$!
    (
        check remote_two_freers remote.pml $two_freers || failed=1
        check remote_retake remote.pml $retake || failed=1
        check remote_dormancy remote.pml $dormancy || failed=1
        check remote_thinning remote.pml $thinning || failed=1
        check remote_trimming remote.pml $trimming || failed=1
        check remote_trimming_thinning remote.pml $trimming_thinning || failed=1
        check remote_thinning_retake remote.pml $thinning_retake || failed=1
        check pending pending.pml || failed=1
        exit "${failed:-0}"
    ) &
    jobs_pids="$jobs_pids $!"
    status=0
    for pid in $jobs_pids; do
        wait "$pid" || status=1
    done
    exit $status
    ;;
mutants)
    check_fails threshold_is_read_before_the_push remote.pml -DMUTANT=1 $two_freers || failed=1
    check_fails no_second_look_under_the_lock remote.pml -DMUTANT=2 $two_freers || failed=1
    check_fails no_completeness_check_at_publish remote.pml -DMUTANT=3 $two_freers || failed=1
    check_fails threshold_is_written_after_the_word remote.pml -DMUTANT=4 $two_freers || failed=1
    check_fails class_is_not_in_the_word remote.pml -DMUTANT=5 $retake || failed=1
    check_fails no_look_after_the_first_stage remote.pml -DMUTANT=6 $two_freers || failed=1
    check_fails what_a_thinner_has_is_in_the_word_as_well remote.pml -DMUTANT=7 $thinning || failed=1
    check_fails slots_on_thin_pages_do_not_count remote.pml -DMUTANT=8 $thinning || failed=1
    check_fails no_second_try_after_the_push pending.pml -DMUTANT=1 || failed=1
    check_fails no_second_look_after_the_release pending.pml -DMUTANT=2 || failed=1
    check_fails no_look_after_a_purge pending.pml -DMUTANT=3 || failed=1
    exit "${failed:-0}"
    ;;
*)
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
    ;;
esac
