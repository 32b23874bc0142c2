# shellcheck shell=bash
# Test Anything Protocol for the scripts in this folder, which source this file and run under prove.
#
# Each check prints one line, `ok` or `not ok`. A script ends with done_testing, which prints the plan;
# a script that dies before that has no plan, and prove counts it as failed.

tap_count=0
tap_failed=0

pass() { # pass NAME
    tap_count=$((tap_count + 1))
    printf 'ok %d - %s\n' "$tap_count" "$1"
}

fail() { # fail NAME
    tap_count=$((tap_count + 1))
    tap_failed=$((tap_failed + 1))
    printf 'not ok %d - %s\n' "$tap_count" "$1"
}

skip() { # skip NAME REASON
    tap_count=$((tap_count + 1))
    printf 'ok %d - %s # SKIP %s\n' "$tap_count" "$1" "$2"
}

# Prints its arguments, or else its input, as comments: on standard error, so that prove shows them.
diag() {
    if (($# > 0)); then
        printf '%s\n' "$@"
    else
        cat
    fi | sed 's/^/# /' >&2
}

ok() { # ok NAME COMMAND...: passes when the command succeeds. What it prints would only disturb prove.
    local name=$1
    shift
    if "$@" >/dev/null; then
        pass "$name"
    else
        fail "$name"
        return 1
    fi
}

is() { # is NAME GOT WANTED: passes when the two strings are equal.
    if [[ $2 == "$3" ]]; then
        pass "$1"
    else
        fail "$1"
        diag "got:    $2" "wanted: $3"
        return 1
    fi
}

done_testing() {
    printf '1..%d\n' "$tap_count"
    exit $((tap_failed > 0))
}
