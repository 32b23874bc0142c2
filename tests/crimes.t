#!/usr/bin/env bash
# Crimes: whoever breaks the heap dies at once, and the last line says what was wrong, word by word.
# The messages are the block engine's, those of heaps of one's own, and the fast engine's at each level.
#
# BUILD   the build folder (build)
# CC      the compiler (cc)
set -u

# shellcheck source=tests/tap.sh
. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"
# shellcheck source=tests/doors/programs.sh
. "$(dirname "${BASH_SOURCE[0]}")/doors/programs.sh"

aborted=134 # 128 and the number of SIGABRT
faulted=139 # and of SIGSEGV
handled=77  # the exit status of a program's own handler

work=$(mktemp -d "${TMPDIR:-/tmp}/crimes.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

function_starts=() function_names=()

# Puts the words in capitals, which the program could not do better, into the line that came. Nothing is forked
# here nor below, because there are hundreds of crimes.
generalize() { # generalize ANNOUNCED: changes $line
    [[ $1 != *'owner heap HEAP'* || ! $line =~ ^(.*owner heap )0x[0-9a-f]+(.*)$ ]] ||
        line=${BASH_REMATCH[1]}HEAP${BASH_REMATCH[2]}
    [[ $1 != *[:,]' heap HEAP'* || ! $line =~ ^(.*[:,] heap )0x[0-9a-f]+(.*)$ ]] ||
        line=${BASH_REMATCH[1]}HEAP${BASH_REMATCH[2]}
    [[ $1 != *BYTES* || ! $line =~ ^(.*block of )[0-9]+( bytes.*)$ ]] ||
        line=${BASH_REMATCH[1]}BYTES${BASH_REMATCH[2]}
    [[ $1 != *TID* || ! $line =~ ^(.*thread )[0-9]+($'\n')$ ]] || line=${BASH_REMATCH[1]}TID${BASH_REMATCH[2]}
    [[ $1 != *'lock(ADDRESS'* || ! $line =~ ^(hmm: lock.)0x[0-9a-f]+(.*)$ ]] ||
        line=${BASH_REMATCH[1]}ADDRESS${BASH_REMATCH[2]}
    [[ $1 != *'at ADDRESS'* || ! $line =~ ^(.* at )0x[0-9a-f]+(.*)$ ]] ||
        line=${BASH_REMATCH[1]}ADDRESS${BASH_REMATCH[2]}
    [[ $1 != *'slot SLOT of class CLASS'* ]] || generalize_slot
}

# If the pointer lies in the slot that is named.
generalize_slot() { # generalize_slot: changes $line
    local pattern='^(hmm: .*\()(0x[0-9a-f]+)(\).* slot )([0-9]+)( of class )([0-9]+)(, slab )(0x[0-9a-f]+)(.*)$'
    [[ $line =~ $pattern ]] || return 0
    local offset=$((BASH_REMATCH[2] - BASH_REMATCH[8]))
    if ((offset >= 0 && offset / BASH_REMATCH[6] == BASH_REMATCH[4])); then
        line=${BASH_REMATCH[1]}${BASH_REMATCH[2]}${BASH_REMATCH[3]}SLOT${BASH_REMATCH[5]}CLASS
        line+=${BASH_REMATCH[7]}${BASH_REMATCH[8]}${BASH_REMATCH[9]}
    fi
}

# The functions of a program, by where they begin.
functions_of() { # functions_of PROGRAM: sets $function_starts and $function_names
    local start kind name
    function_starts=() function_names=()
    while read -r start kind name; do
        function_starts+=($((16#$start))) function_names+=("$name")
    done < <(nm -n "$programs_folder/$1" | grep -i ' t ')
}

# Call stacks become the functions of their first frames: "hmm: freed at: FUNCTION".
generalize_sites() { # generalize_sites: changes $line
    local rest=$line row title='' pattern='^    #0 0x[0-9a-f]+ \(.*\+0x([0-9a-f]+)\)$' i offset
    line=''
    while IFS= read -r row; do
        if [[ $row == 'hmm: '*' at:' ]]; then
            title=$row
        elif [[ -n $title && $row =~ $pattern ]]; then
            offset=$((16#${BASH_REMATCH[1]}))
            for ((i = ${#function_starts[@]} - 1; i > 0 && function_starts[i] > offset; i--)); do :; done
            line+="$title ${function_names[i]}"$'\n'
            title=''
        elif [[ $row != '    #'* ]]; then
            line+=$row$'\n'
        fi
    done <<<"${rest%$'\n'}"
}

# Commits one crime: what is announced must be all that is said, and the program must not live on. Where nothing
# is announced, nothing may happen; and FAULT, that the program's own access ends it.
commit() { # commit NAME PROGRAM CRIME [ARGUMENT]
    local name=$1 program=$programs_folder/$2 status announced='' line='' wanted=$aborted
    shift 2
    # The braces keep the shell's own word about the abort to itself.
    { "$program" "$@" >"$work/announced" 2>"$work/line"; } 2>/dev/null
    status=$?
    IFS= read -rd '' announced <"$work/announced"
    IFS= read -rd '' line <"$work/line"
    # Where the block was allocated and freed follows the line; some announce that, too.
    if [[ ${HMM_OPTIONS-} != *sites=1* || -z $line ]]; then
        :
    elif ((${#function_starts[@]} > 0)); then
        generalize_sites
    else
        line=${line%%$'\n'*}$'\n'
    fi
    generalize "$announced"
    [[ -n $announced ]] || wanted=0
    [[ $announced != FAULT$'\n' ]] || { wanted=$faulted announced=''; }
    [[ $1 != a_handler_* ]] || wanted=$handled
    is "$name: $*" "${line}exit status $status" "${announced}exit status $wanted"
}

commit_all() { # commit_all NAME OPTIONS PROGRAM [PATTERN]: all crimes, or those that the pattern matches
    local crime arguments crimes=()
    export HMM_OPTIONS=$2
    mapfile -t crimes < <("$programs_folder/$3" | grep -E "${4:-.}")
    ok "$1: there are crimes" test "${#crimes[@]}" -gt 0
    for crime in "${crimes[@]}"; do
        read -ra arguments <<<"$crime"
        commit "$1" "$3" "${arguments[@]}"
    done
    unset HMM_OPTIONS
}

compile crimes/malloc_crimes crimes/malloc_crimes.c "${linked[@]}"
compile crimes/malloc_crimes_array crimes/malloc_crimes.c "${linked_array[@]}"
compile crimes/heap_crimes crimes/heap_crimes.c "${linked[@]}"
compile crimes/heap_crimes_array crimes/heap_crimes.c -DARRAY "${linked_array[@]}"
compile crimes/heap_guard_crimes crimes/heap_guard_crimes.c "${linked[@]}"
compile crimes/heap_guard_crimes_array crimes/heap_guard_crimes.c "${linked_array[@]}"
compile crimes/one_write crimes/one_write.c "${linked[@]}"
for program in crimes/fast_crimes.c crimes/fast_new_crimes.cc crimes/leftovers.c; do
    compile "${program%.*}" "$program" "${linked[@]}"
    compile "${program%.*}_secure" "$program" "${linked_secure[@]}"
done
compile_done

commit_all 'reserve' engine=block,region=reserve crimes/malloc_crimes
commit_all 'sbrk' engine=block,region=sbrk crimes/malloc_crimes
for fit in first best; do
    commit_all "fit=$fit" "engine=block,fit=$fit" crimes/malloc_crimes '^(free_twice|links|freed_block).* 5000$'
done
# The next fit is not the block that was just freed, so those that wait for its reuse are left out.
commit_all 'fit=next' engine=block,fit=next crimes/malloc_crimes \
    '^(free_twice(_among|_with_|_merged_into|_merged_both|_swallowed).*|links.*merged.*|.*neighbour_freed) 5000$'
commit_all 'array' '' crimes/malloc_crimes_array
commit_all 'heaps, reserve' engine=block,region=reserve crimes/heap_crimes
commit_all 'heaps, sbrk' engine=block,region=sbrk crimes/heap_crimes
commit_all 'heaps, array' '' crimes/heap_crimes_array

# Hardened heaps, by their own options and by the process's.
commit_all 'hardened heaps' '' crimes/heap_guard_crimes
export HARDENING=process
commit_all 'hardened heaps, hardened=1' hardened=1 crimes/heap_guard_crimes '^(free_twice|overflow_by_8|write_after.*middle) 1 '
commit_all 'hardened heaps, hardened=3' hardened=3 crimes/heap_guard_crimes '^(free_twice|overflow_by_8|write_after.*middle) 2 '
unset HARDENING

# The same with sites, which lie in the blocks: all of it, and by whom each block was allocated and freed.
functions_of crimes/heap_guard_crimes
commit_all 'hardened heaps, sites' sites=1 crimes/heap_guard_crimes
functions_of crimes/heap_guard_crimes_array
commit_all 'hardened heaps, sites, array' sites=1 crimes/heap_guard_crimes_array '^(free_twice|overflow_by_8|write_after_free_at_16) '
function_starts=()

# The block engine at its two levels, and what is no crime there.
for level in 1 2; do
    export LEVEL=block$level
    for region in reserve sbrk; do
        options=engine=block,region=$region,hardened=$level
        commit_all "block engine, $region, level $level" "$options" crimes/fast_crimes
        commit_all "block engine, $region, level $level" "$options" crimes/fast_new_crimes
        LEVEL=$level run_cases "block engine, $region, level $level" HMM_OPTIONS="$options" crimes/leftovers
    done
done

# Blocks of the block engine have sites, too.
for level in 1 2; do
    LEVEL=block$level commit_all "block engine, level $level with sites" engine=block,hardened=$level,sites=1 crimes/fast_crimes \
        "^(free|malloc|realloc|write|underflow|overflow_(by_[18]|then)).* (40|20000)$"
done

# The fast engine: crimes, and what is none.
for LEVEL in 0 1 2 3 secure; do
    export LEVEL
    suffix='' options=hardened=$LEVEL
    [[ $LEVEL != secure ]] || suffix=_secure options=''
    commit_all "level $LEVEL" "$options" "crimes/fast_crimes$suffix"
    commit_all "level $LEVEL" "$options" "crimes/fast_new_crimes$suffix"
    run_cases "level $LEVEL" HMM_OPTIONS="$options" "crimes/leftovers$suffix"
done
# Another library of ours beside it, which the program was linked with, has operators, too, and they are not called.
LEVEL=secure LD_PRELOAD="$secure_library" commit_all 'before the one it was linked with' '' crimes/fast_new_crimes \
    '^delete_of_what_malloc_made '
# Programs that are wrong there run, if that is wanted.
for options in hardened=1 hardened=2 hardened=3 engine=block,hardened=1 engine=block,hardened=2,sites=1; do
    for crime in delete_of_twice_the_size delete_of_what_malloc_made delete_with_another_alignment; do
        for bytes in 40 20000 300000; do
            is "$options,claims=0: $crime $bytes" \
                "$(LEVEL=1 HMM_OPTIONS=$options,claims=0 "$programs_folder/crimes/fast_new_crimes" $crime $bytes 2>&1 >/dev/null)$?" 0
        done
    done
done
# What sites add to a block is looked at as the rest.
LEVEL=1 commit_all 'level 1 with sites' hardened=1,sites=1 crimes/fast_crimes '^(free_sized|overflow|underflow).* (40|20000)$'
run_cases 'the line' HMM_OPTIONS=engine=block crimes/one_write

done_testing
