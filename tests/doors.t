#!/usr/bin/env bash
# The doors: every name of the malloc family and of C++ is the library's, and answers any request as it should.
#
# BUILD   the build folder (build)
# CC CXX  the compilers (cc, c++)
set -u

# shellcheck source=tests/tap.sh
. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"
# shellcheck source=tests/doors/programs.sh
. "$(dirname "${BASH_SOURCE[0]}")/doors/programs.sh"

family=(malloc free calloc realloc reallocarray posix_memalign aligned_alloc memalign valloc pvalloc
    malloc_usable_size free_sized free_aligned_sized cfree mallopt mallinfo mallinfo2 malloc_info malloc_stats
    malloc_trim)
family_of_glibc=(__libc_malloc __libc_free __libc_calloc __libc_realloc __libc_memalign __libc_valloc
    __libc_pvalloc __libc_cfree __libc_mallopt __libc_mallinfo __posix_memalign)

others=(dlopen setrlimit setrlimit64 prlimit prlimit64)

# Eight forms of new and twelve of delete; size_t is m where it is unsigned long, else j.
size=m
[[ $(getconf LONG_BIT) == 64 ]] || size=j
nothrow=RKSt9nothrow_t aligned=St11align_val_t
operators=()
for kind in w a; do
    for form in '' "$nothrow" "$aligned" "$aligned$nothrow"; do
        operators+=("_Zn$kind$size$form")
    done
done
for kind in l a; do
    for form in '' "$size" "$nothrow" "$aligned" "$aligned$nothrow" "$size$aligned"; do
        operators+=("_Zd${kind}Pv$form")
    done
done

mapfile -t public < <(grep -oE '^HMM_API [^(]*\<Hmm[A-Za-z]+\(' "$tests_folder/../include/hmm.h" |
    grep -oE 'Hmm[A-Za-z]+\($' | tr -d '(')

in_lines() {
    printf '%s\n' "$@" | LC_ALL=C sort
}

# Compares two lists of lines, and tells which lines only one of them has.
is_list() { # is_list NAME GOT WANTED
    local difference
    difference=$(diff <(echo "$2") <(echo "$3") | grep '^[<>]' | sed 's/^</not wanted: /; s/^>/missing: /')
    is "$1" "$difference" ''
}

names_of() { # names_of LIBRARY: what it defines for others, each with its kind
    nm -D --defined-only --with-symbol-versions "$1" | awk '{print $3, $2}' | LC_ALL=C sort
}

dynamic_entry() { # dynamic_entry LIBRARY KEY
    readelf -dW "$1" | grep -F "($2)"
}

static_tls_bytes() { # static_tls_bytes LIBRARY
    local bytes
    bytes=$(readelf -lW "$1" | awk '$1 == "TLS" {print $6}')
    echo $((${bytes:-0}))
}

check_library() { # check_library LIBRARY SONAME
    local all=("${family[@]}" "${family_of_glibc[@]}" "${public[@]}" "${others[@]}") file=${1##*/}
    # T: in the text, global, not weak, as operators are (W). No name has a version, so that every reference finds it.
    is_list "$file: shows its public names and nothing else" "$(names_of "$1")" \
        "$(in_lines "${all[@]/%/ T}" "${operators[@]/%/ W}" "hmm_root D")"
    all+=("${operators[@]}")
    is "$file: its name" "$(dynamic_entry "$1" SONAME | grep -o '\[.*\]')" "[$2]"
    is "$file: needs the C library and nothing else" \
        "$(dynamic_entry "$1" NEEDED | grep -o '\[.*\]')" '[libc.so.6]'
    ok "$file: is never unloaded" grep -q NODELETE <<<"$(dynamic_entry "$1" FLAGS_1)"
    ok "$file: is bound at once" grep -q NOW <<<"$(dynamic_entry "$1" FLAGS_1)"
    is "$file: its code is never written to" "$(dynamic_entry "$1" TEXTREL)" ''
    is "$file: its stack is not executable" \
        "$(readelf -lW "$1" | awk '/GNU_STACK/ {print $7}')" RW
    # dlopen finds little room for it.
    ok "$file: takes little static TLS" test "$(static_tls_bytes "$1")" -le 512
    is "$file: every name, old ones and references too, leads here" \
        "$(run LD_PRELOAD="$1" doors/resolved "$1" "${all[@]}" 2>&1)" ''
}

compile doors/resolved doors/resolved.c -fPIC
compile doors/family doors/family.c
compile doors/tour doors/tour.c
compile doors/family-static doors/family.c -DLINKED -static "$archive"
compile doors/named doors/named.c "${linked[@]}"
compile doors/named-hidden doors/named.c -fvisibility=hidden "${linked[@]}"
compile doors/named-array doors/named.c "${linked_array[@]}"
compile doors/named-static doors/named.c -static "$archive"
compile doors/new_plugin.so doors/new_plugin.cc -shared -fPIC
compile doors/loads_plugin doors/loads_plugin.c
compile doors/new_plugin_linked.so doors/new_plugin.cc -shared -fPIC "${linked[@]}"
compile doors/loads_plugin_linked doors/loads_plugin.c "${linked[@]}"
# The plug-in finds the inner one by its own search path only.
compile doors/deepbind doors/deepbind.c
# shellcheck disable=SC2016 # The dynamic linker expands it.
compile doors/deep_plugin.so doors/deep_plugin.c -shared -fPIC -Wl,--enable-new-dtags,-rpath,'$ORIGIN/inner'
compile doors/inner/deep_inner.so doors/deep_plugin.c -shared -fPIC
# shellcheck disable=SC2054 # The comma is the linker's.
compile doors/wraps.so doors/wraps.c -shared -fPIC
compile doors/calls_taken.so doors/calls_taken.c -shared -fPIC
case $(uname -m) in
    x86_64) compile doors/auditor.so doors/auditor.c -shared -fPIC ;;
esac
compile doors/own_malloc doors/own_malloc.c
compile doors/second_copy doors/second_copy.c
compile doors/libown_operators.so doors/own_operators.cc -shared -fPIC -Wl,-Bsymbolic
# It shows none of its runtime's names.
compile doors/hidden/libown_operators.so doors/own_operators.cc -shared -fPIC -DRUNTIME_INSIDE -static-libstdc++ \
    -static-libgcc -Wl,--exclude-libs,ALL
# As older linkers do: constants beside the code.
compile doors/beside/libown_operators.so doors/own_operators.cc -shared -fPIC -DRUNTIME_INSIDE -static-libstdc++ \
    -static-libgcc -Wl,--exclude-libs,ALL,-z,noseparate-code
compile doors/replaces doors/replaces.cc -Wno-sized-deallocation
compile doors/replaces-archive doors/replaces.cc -Wno-sized-deallocation "$archive"
compile doors/replaces-static doors/replaces.cc -Wno-sized-deallocation -static "$archive"
for kind in object array; do
    own_flags=(-fno-sized-deallocation)
    [[ $kind == object ]] || own_flags+=(-DOWN_ARRAY)
    compile "doors/own_new-$kind" doors/own_new.cc "${own_flags[@]}"
    compile "doors/own_new-$kind-archive" doors/own_new.cc "${own_flags[@]}" "$archive"
    compile "doors/own_new-$kind-static" doors/own_new.cc "${own_flags[@]}" -static "$archive"
done
# All of it linked at once: the doors of C++ here, which know two names for one function, the rest from the archive.
lto_flags=(-flto) lto_objects=("$programs_folder/doors/lto/obj/"{api_new,runtime_static}.o)
# Only its own linkers know what clang leaves then.
! ${CXX:-c++} --version | grep -q clang || lto_flags+=(-fuse-ld=lld)
rm -rf "$programs_folder/doors/lto"
"${MAKE:-make}" -s -C "$tests_folder/.." CC="${CXX:-c++} -x c" CFLAGS='-O2 -g -flto' BUILD="$programs_folder/doors/lto" \
    "${lto_objects[@]}" >/dev/null
compile doors/replaces-lto doors/replaces.cc -Wno-sized-deallocation "${lto_flags[@]}" "${lto_objects[@]}" "$archive"
compile doors/news-lto doors/news.cc "${lto_flags[@]}" "${lto_objects[@]}" "$archive"
compile doors/news doors/news.cc
compile doors/news-static doors/news.cc -static "$archive"
compile_done
compile doors/mixed_operators doors/mixed_operators.cc -L"$programs_folder/doors" -lown_operators \
    -Wl,--enable-new-dtags,-rpath,"$programs_folder/doors"
compile_done

is "there are eight forms of new and twelve of delete" "${#operators[@]}" 20
ok "the header declares public functions" test "${#public[@]}" -gt 15
check_library "$library" libhmm.so.0
check_library "$array_library" libhmm-array.so

# Whatever else the archive defines must not meet the names of programs.
is "libhmm.a: its own names begin with hmm_" \
    "$(nm -g --defined-only "$archive" 2>/dev/null | awk 'NF == 3 {print $3}' |
        grep -vE '^(hmm_|Hmm)' | grep -vxF -f <(in_lines "${family[@]}" "${family_of_glibc[@]}" "${operators[@]}"))" ''

for options in engine=fast engine=block engine=block,region=sbrk; do
    run_cases "$options" LD_PRELOAD="$library" HMM_OPTIONS="$options" doors/family
done
for fit in first next best; do
    for case in realloc_keeps_the_content huge_alignments_get_an_answer zero_bytes_get_a_block_of_their_own \
        calloc_zeroes_dirty_memory; do
        ok "fit=$fit: $case" run LD_PRELOAD="$library" HMM_OPTIONS="engine=block,fit=$fit" doors/family "$case"
    done
done
run_cases "array" LD_PRELOAD="$array_library" doors/family
run_cases "static" doors/family-static
run_cases "static, engine=block" HMM_OPTIONS=engine=block doors/family-static

for program in named named-hidden named-array named-static; do
    for case in both_names_are_one_heap bad_requests_are_refused the_programs_limit_holds; do
        ok "$program: $case" run "doors/$program" "$case"
        ok "$program, engine=block: $case" run HMM_OPTIONS=engine=block "doors/$program" "$case"
    done
    for engine in fast block; do
        ok "$program, engine=$engine: the_environments_limit_holds" \
            run HMM_OPTIONS="engine=$engine,limit=128M" "doors/$program" the_environments_limit_holds
    done
done

run_cases "C++" LD_PRELOAD="$library" HMM_OPTIONS=limit=64M doors/news
# What the handler has helped to is of the kind that was asked for, so its own delete takes it.
run_case "C++, hardened=1: the_handler_is_called_until_there_is_room" LD_PRELOAD="$library" \
    HMM_OPTIONS=hardened=1,limit=64M doors/news the_handler_is_called_until_there_is_room
run_cases "C++, engine=block" LD_PRELOAD="$library" HMM_OPTIONS=engine=block,limit=64M doors/news
run_cases "C++, array" LD_PRELOAD="$array_library" HMM_OPTIONS=limit=64M doors/news
for preload in "$library" "$array_library"; do
    ok "C++ in a plug-in of a C program: ${preload##*/}" \
        run LD_PRELOAD="$preload" doors/loads_plugin "$programs_folder/doors/new_plugin.so"
done
ok "C++ in a plug-in of a C program: ${library##*/}, engine=block" \
    run LD_PRELOAD="$library" HMM_OPTIONS=engine=block doors/loads_plugin "$programs_folder/doors/new_plugin.so"
ok "C++ in a plug-in, it and its host linked with libhmm" \
    run doors/loads_plugin_linked "$programs_folder/doors/new_plugin_linked.so"
for preload in "$library" "$array_library" "$secure_library"; do
    ok "a plug-in that prefers its own names: ${preload##*/}" \
        run LD_PRELOAD="$preload" doors/deepbind "$programs_folder/doors/deep_plugin.so"
done
ok "a plug-in that prefers its own names: ${library##*/}, engine=block" \
    run LD_PRELOAD="$library" HMM_OPTIONS=engine=block doors/deepbind "$programs_folder/doors/deep_plugin.so"

wraps=$programs_folder/doors/wraps.so
for case in realloc_keeps_the_content calloc_zeroes_dirty_memory; do
    for options in engine=fast hardened=2 engine=block; do
        for preload in "$wraps $library" "$library $wraps"; do
            ok "mmap is wrapped, $options: $case" \
                run LD_PRELOAD="$preload" HMM_OPTIONS="$options" doors/family "$case"
        done
    done
    ok "mmap is wrapped, ${secure_library##*/}: $case" \
        run LD_PRELOAD="$wraps $secure_library" doors/family "$case"
done

# Where there is no way into the kernel of our own (os_call.c), there is theirs.
case $(uname -m) in
    x86_64 | aarch64 | riscv64)
        calls_taken=$programs_folder/doors/calls_taken.so
        for options in engine=fast hardened=2 engine=block engine=block,region=sbrk; do
            for preload in "$calls_taken $library" "$library $calls_taken"; do
                ok "syscall is taken, $options" run LD_PRELOAD="$preload" HMM_OPTIONS="$options" doors/tour
            done
        done
        ok "syscall is taken, ${secure_library##*/}" run LD_PRELOAD="$calls_taken $secure_library" doors/tour
        ;;
esac

# An auditor's calls have a form for each kind of processor; this one is written for x86-64.
auditor=$programs_folder/doors/auditor.so
if [[ $(uname -m) == x86_64 ]]; then
    for preload in "$library" "$array_library" "$secure_library"; do
        ok "audited, some operators replaced: ${preload##*/}" \
            run LD_PRELOAD="$preload" LD_AUDIT="$auditor" doors/replaces
        ok "audited, a plug-in: ${preload##*/}" run LD_PRELOAD="$preload" LD_AUDIT="$auditor" \
            doors/deepbind "$programs_folder/doors/deep_plugin.so"
    done
fi

# Also without us, as below.
ok "a program with its own malloc: the C library" run doors/own_malloc
for preload in "$library" "$array_library" "$secure_library"; do
    ok "a program with its own malloc: ${preload##*/}" run LD_PRELOAD="$preload" doors/own_malloc
done
for preload in "$library" "$secure_library"; do
    for copy in "$library" "$secure_library"; do
        ok "a second copy: ${preload##*/}, ${copy##*/}" run LD_PRELOAD="$preload" doors/second_copy "$copy"
    done
done

# Also without us, or the test would prove nothing.
ok "a program that replaces some operators: the C library" run doors/replaces
for options in engine=fast hardened=1 hardened=2 hardened=3 engine=block engine=block,hardened=2; do
    ok "a program that replaces some operators: $options" \
        run LD_PRELOAD="$library" HMM_OPTIONS="$options" doors/replaces
done
for preload in "$array_library" "$secure_library"; do
    ok "a program that replaces some operators: ${preload##*/}" run LD_PRELOAD="$preload" doors/replaces
done

for program in replaces-archive replaces-static replaces-lto; do
    for options in engine=fast hardened=2 engine=block; do
        ok "a program that replaces some operators: $program, $options" \
            run HMM_OPTIONS="$options" "doors/$program"
    done
done

# Who frees with another call than the one that allocated is accused at these levels, but not where operators differ.
for options in hardened=1 hardened=2 hardened=3 hardened=2,sites=1 engine=block,hardened=1 engine=block,hardened=2; do
    ok "a library with operators of its own: $options" \
        run LD_PRELOAD="$library" HMM_OPTIONS="$options" doors/mixed_operators
    ok "a library with a runtime of its own: $options" \
        run LD_PRELOAD="$library" LD_LIBRARY_PATH="$programs_folder/doors/hidden" HMM_OPTIONS="$options" doors/mixed_operators
done
for kind in object array; do
    for options in hardened=1 hardened=2 engine=block,hardened=1; do
        ok "a program with one operator of its own, $kind: $options" \
            run LD_PRELOAD="$library" HMM_OPTIONS="$options" "doors/own_new-$kind"
        for form in archive static; do
            ok "a program with one operator of its own, $kind, $form: $options" \
                run HMM_OPTIONS="$options" "doors/own_new-$kind-$form"
        done
    done
done
ok "a library with operators of its own: ${secure_library##*/}" run LD_PRELOAD="$secure_library" doors/mixed_operators
ok "a library with a runtime of its own: ${secure_library##*/}" \
    run LD_PRELOAD="$secure_library" LD_LIBRARY_PATH="$programs_folder/doors/hidden" doors/mixed_operators
ok "a library with a runtime of its own, constants beside the code" \
    run LD_PRELOAD="$library" LD_LIBRARY_PATH="$programs_folder/doors/beside" HMM_OPTIONS=hardened=1 doors/mixed_operators

# Valgrind's tools put functions of their own in the place of those they know, in every library: no block of theirs may
# reach ours, nor one of ours theirs.
is_clean_under() { # is_clean_under TOOL LIBRARY
    LD_PRELOAD=$2 timeout "$limit_seconds" valgrind -q --tool="$1" --error-exitcode=9 "$programs_folder/doors/tour" >"$out" 2>&1
}
out=$programs_folder/doors/tour.out
for preload in "$library" "$secure_library"; do
    for tool in memcheck helgrind; do
        name="under valgrind's $tool: ${preload##*/}"
        if command -v valgrind >/dev/null; then
            ok "$name" is_clean_under "$tool" "$preload" || diag "$(<"$out")"
        else
            skip "$name" "there is no valgrind"
        fi
    done
done

run_cases "C++, static" HMM_OPTIONS=limit=64M doors/news-static
run_cases "C++, linked all at once" HMM_OPTIONS=limit=64M doors/news-lto

done_testing
