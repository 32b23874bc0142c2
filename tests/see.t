#!/usr/bin/env bash
# The heap seen from outside: hmm stat, hmm explain and hmm check, on processes, cores and programs.
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
see=$tests_folder/see
work=$programs_folder/see
rm -rf "$work"
mkdir -p "$work"
# A core that is larger than this has something in it that should not be there.
core_kibibytes_max=600000
export PYTHONMALLOC=malloc

compile see/keeper see/keeper.c "${linked[@]}"
compile see/keeper_cc see/keeper.cc
compile see/keeper_static see/keeper.c -static -Wl,--gc-sections "$archive"
compile see/busy see/busy.c
compile see/inside see/inside.c "${linked[@]}"
compile see/last see/last.c
compile see/crowd see/crowd.c
compile see/gone see/gone.c "${linked[@]}"
compile see/where see/where.c -g -O0 "${linked[@]}"
compile see/tamper see/tamper.c -I"$tests_folder/../src"
compile_done

# --------------------------------------------------------------------------------- what is looked at
# A program starts on the library, its input kept open; once it has said `ready` it is $target.
launch() { # launch [NAME=VALUE...] PROGRAM [ARGUMENT...]
    # What the last one said must not be taken for what this one will say.
    rm -f "$work/input" "$work/said"
    mkfifo "$work/input"
    env LD_PRELOAD="$library" "$@" <"$work/input" >"$work/said" 2>&1 &
    target=$!
    exec 9>"$work/input"
}

wait_ready() {
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        ! grep -qs ready "$work/said" || return 0
        sleep 0.05
    done
    diag "it never was ready:" "$(cat "$work/said")"
    return 1
}

dismiss() {
    exec 9>&-
    kill "$target" 2>/dev/null
    { wait "$target"; } 2>/dev/null
}

compare() {
    python3 "$see/compare.py" "$@" 2>&1 | diag
    return "${PIPESTATUS[0]}"
}

explain() { # explain FILE TARGET...: as JSON in $work/FILE
    local file=$1
    shift
    timeout "$limit_seconds" "$hmm" explain --json -o "$work/$file" "$@"
}

take_core() { # of the target, in $work/core
    rm -f "$work"/core*
    (
        ulimit -f "$core_kibibytes_max"
        gdb -p "$target" -batch -ex "gcore $work/core" >"$work/gdb" 2>&1
    )
    [[ -s $work/core ]]
}

# The process, as it waits, and its core.
examine() { # examine NAME
    ok "$1: read by its process id" explain pid.json "$target"
    ok "$1: the parts are the total" compare sum "$work/pid.json"
    ok "$1: the total is the kernel's" compare kernel "$work/pid.json" "$target"
    ok "$1: a core is taken" take_core
    ok "$1: read from its core" explain core.json "$work/core"
    ok "$1: the core's parts are the total" compare sum "$work/core.json"
    ok "$1: its core has the same heap" compare same "$work/pid.json" "$work/core.json"
    ok "$1: whole" "$hmm" check "$target"
    ok "$1: its core is whole" "$hmm" check "$work/core"
}

# The program run by the command, which reads it when it ends.
examine_own() { # examine_own NAME PROGRAM [ARGUMENT...]
    local name=$1
    shift
    ok "$name: run and read at its end" explain own.json -- "$@"
    ok "$name: the parts of that are the total" compare sum "$work/own.json"
    ok "$name: run by the command it has the same heap" compare same "$work/pid.json" "$work/own.json"
}

# As examine_own, of a program that waits: a signal ends it where it stands.
examine_own_waiting() { # examine_own_waiting NAME FILL PROGRAM [ARGUMENT...]
    local name=$1 fill=$2 command_id child
    shift 2
    rm -f "$work/input" "$work/said"
    mkfifo "$work/input"
    "$hmm" explain --json -o "$work/own.json" -- "$@" <"$work/input" >"$work/said" 2>&1 &
    command_id=$!
    exec 9>"$work/input"
    ok "$name: run by the command it gets ready" "$fill"
    child=$(pgrep -P "$command_id")
    kill -VTALRM "$child"
    ok "$name: read where a signal ends it" wait "$command_id"
    exec 9>&-
    ok "$name: the parts of that are the total" compare sum "$work/own.json"
    ok "$name: run by the command it has the same heap" compare same "$work/pid.json" "$work/own.json"
}

# ------------------------------------------------------------------------------------ five programs
launch python3 "$see/keeper.py"
ok "python3 is ready" wait_ready
examine python3
dismiss
examine_own python3 python3 "$see/keeper.py" end

redis_socket=$(mktemp -u /tmp/hmm-see-XXXXXX)
redis=(redis-server --port 0 --unixsocket "$redis_socket" --save '' --appendonly no)
fill_redis() {
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        [[ ! -S $redis_socket ]] || break
        sleep 0.05
    done
    redis-cli -s "$redis_socket" eval \
        'for i = 1, 40000 do redis.call("set", "key:" .. i, string.rep("v", i % 300 + 1)) end return "OK"' 0 |
        grep -q OK && redis-cli -s "$redis_socket" script flush | grep -q OK && sleep 1
}
launch "${redis[@]}"
ok "redis-server is ready" fill_redis
examine redis-server
dismiss
rm -f "$redis_socket"
examine_own_waiting redis-server fill_redis "${redis[@]}"
rm -f "$redis_socket"

launch "$programs_folder/see/keeper_cc"
ok "the threaded program is ready" wait_ready
examine "threads"
dismiss
examine_own "threads" "$programs_folder/see/keeper_cc" end

fill_sqlite() {
    cat >&9 <<'SQL'
create table t(a integer primary key, b text);
with recursive c(x) as (select 1 union all select x + 1 from c where x < 60000)
    insert into t select x, 'text ' || x || ' and more of it' from c;
create index i on t(b);
delete from t where a % 3 = 0;
select 'ready';
SQL
    wait_ready
}
launch sqlite3 :memory:
ok "sqlite3 is ready" fill_sqlite
examine sqlite3
dismiss
examine_own_waiting sqlite3 fill_sqlite sqlite3 :memory:

launch "$programs_folder/see/keeper"
ok "the leaking program is ready" wait_ready
examine leaks
ok "stat of a process" "$hmm" stat --json -o "$work/stat.json" "$target"
ok "stat of its core" "$hmm" stat --json -o "$work/stat_core.json" "$work/core"
numbers='[.live_bytes, .live_blocks, .cached_bytes, .free_bytes, .dirty_bytes, .metadata_bytes, .classes, .medium, .large]'
is "stat says the same of both" "$(jq -c "$numbers" "$work/stat_core.json")" "$(jq -c "$numbers" "$work/stat.json")"
# 100,000 small blocks, 400 medium, one large, and the buffer of the standard output.
is "stat counts every block" "$(jq .live_blocks "$work/stat.json")" 100402
is "a class's slots are used, cached or free" \
    "$(jq '[.classes[] | .used_slots + .cached_slots + .free_slots == .carved_slots] | all' "$work/stat.json")" true
ok "stat as text" "$hmm" stat "$target"
# There may be no swap here: so the kernel's word is put into its mouth.
if unshare -m true 2>/dev/null; then
    sed 's/^VmSwap:.*/VmSwap:\t    1234 kB/' "/proc/$target/status" >"$work/status"
    is "stat asks the kernel for what is on swap" \
        "$(unshare -m sh -c 'mount --bind "$1" "/proc/$2/status" && "$3" stat --json "$2"' - \
            "$work/status" "$target" "$hmm" | jq .swapped_bytes)" 1263616
else
    skip "stat asks the kernel for what is on swap" "only root can change what it says"
fi
watch_begin() { # from then on, in the background, $watch; returns when it has shown the target
    local tries
    : >"$work/watched"
    "$hmm" stat --watch --interval=0.02 "$target" >"$work/watched" 2>"$work/end" &
    watch=$!
    for ((tries = 0; tries < 200; tries++)); do
        ! grep -q live "$work/watched" || break
        sleep 0.05
    done
}
is "stat --watch" "$("$hmm" stat --watch --count=3 --interval=0.05 "$target" | grep -c ' live .* cached .* dirty .* resident ')" 3
is "stat --watch --openmetrics: each one ends as OpenMetrics does" \
    "$("$hmm" stat --watch --openmetrics --count=3 --interval=0.05 "$target" | grep -oE '^# EOF$|^# HELP hmm_resident' | xargs)" \
    "# HELP hmm_resident # EOF # HELP hmm_resident # EOF # HELP hmm_resident # EOF"
is "its lines fit a terminal of 80 columns" \
    "$("$hmm" stat --watch --count=1 "$target" | awk '{ print length < 80 }')" 1
is "stat --watch --json" "$("$hmm" stat --watch --json --count=2 --interval=0.05 "$target" | jq -s length)" 2
cp "$work/core" "$work/keeper.core"
watch_begin
dismiss
ok "stat --watch ends with the process" wait "$watch"
is "and says so" "$(sed 's/(.*)/(NAME)/' "$work/end")" "hmm stat: process $target (NAME) has ended"
examine_own leaks "$programs_folder/see/keeper" end

# What ended threads have left in bins is nobody's.
for options in hardened=0 hardened=2; do
    launch HMM_OPTIONS="$options" "$programs_folder/see/gone"
    wait_ready
    "$hmm" stat --json -o "$work/gone.json" "$target"
    is "$options: what lies in the bins of ended threads is cached, not live" \
        "$(jq -r '"\(.live_blocks) \(.cached_bytes)"' "$work/gone.json")" "$(head -n 1 "$work/said")"
    dismiss
done

# What execs loses its heap, and goes on.
launch bash -c 'echo ready; read -r; exec env -u LD_PRELOAD sleep 60'
wait_ready
watch_begin
echo go >&9
ok "stat --watch ends where the process becomes another program" wait "$watch"
is "and says so, too" "$(cat "$work/end")" "hmm stat: process $target (bash) has become another program"
dismiss

# -------------------------------------------------------------------------------- in other forms
validate() { # validate SCHEMA FILE
    "$validator" "$see/validate.py" "$tests_folder/../docs/$1.schema.json" "$2"
}
validator=python3
"$validator" -c 'import jsonschema' 2>/dev/null || validator=/usr/bin/python3
if "$validator" -c 'import jsonschema' 2>/dev/null; then
    ok "explain --json is what its schema says" validate explain "$work/pid.json"
    ok "explain --json of a core, too" validate explain "$work/core.json"
    ok "stat --json is what its schema says" validate stat "$work/stat.json"
else
    skip "schemas" "there is no python3-jsonschema"
fi
ok "stat --openmetrics" "$hmm" stat --openmetrics -o "$work/metrics" "$work/keeper.core"
is "it ends as OpenMetrics does" "$(tail -n 1 "$work/metrics")" "# EOF"
if command -v promtool >/dev/null; then
    promtool_agrees() {
        promtool check metrics <"$work/metrics" 2>&1 | diag
        return "${PIPESTATUS[0]}"
    }
    ok "promtool agrees" promtool_agrees
else
    skip "promtool" "there is none"
fi

# --------------------------------------------------------------------------- engines and libraries
for options in engine=block engine=block,fit=best engine=block,fit=first region=sbrk limit=512M hardened=1 hardened=2 \
    hardened=3; do
    ok "$options: the parts are the total" \
        eval "HMM_OPTIONS=$options explain other.json -- $programs_folder/see/keeper end && compare sum $work/other.json"
    ok "$options: whole" eval "HMM_OPTIONS=$options $hmm check -- $programs_folder/see/keeper end"
done
live_blocks() { # live_blocks OPTIONS: of a program that has freed some medium blocks
    HMM_OPTIONS=$1 "$hmm" stat --json -o "$work/held.json" -- "$programs_folder/see/keeper" end held >/dev/null
    jq .live_blocks "$work/held.json"
}
caches_bytes() {
    HMM_OPTIONS=$1 explain held.json -- "$programs_folder/see/keeper" end held
    jq '[.parts[] | select(.kind == "caches").bytes] | add' "$work/held.json"
}
for engine in fast block; do
    is "$engine: medium blocks in quarantine are not live" \
        "$(live_blocks engine=$engine,hardened=2)" "$(live_blocks engine=$engine,hardened=1)"
    ok "$engine: they are cached" \
        test "$(live_blocks engine=$engine,hardened=2 >/dev/null; jq .cached_bytes "$work/held.json")" -ge 100000
    ok "$engine: and so they are explained" test "$(caches_bytes engine=$engine,hardened=2 | tail -n 1)" -ge 100000
done

# What the command reads of a program at its end is what the library said there.
stat_agrees() { # stat_agrees [NAME=VALUE...] WHAT: live, held, dirty and reserved, as the program keeps WHAT
    local said found
    env "${@:1:$#-1}" "$hmm" stat --json -o "$work/own.json" -- "$programs_folder/see/keeper" return "${!#}" \
        2>"$work/said" >/dev/null
    said=$(awk '/ (live blocks|held bytes|dirty bytes|reserved bytes) / { print $NF }' "$work/said" |
        head -n 4 | xargs)
    found=$(jq -r '"\(.live_blocks) \(.held_bytes) \(.dirty_bytes) \(.reserved_bytes)"' "$work/own.json")
    [[ -n $said && $found == "$said" ]] || {
        diag "read: $found" "said: $said"
        return 1
    }
}
for options in hardened=0 hardened=1 hardened=2 hardened=3 engine=block engine=block,hardened=2 region=sbrk \
    region=sbrk,limit=512M engine=block,limit=512M limit=512M; do
    for what in nothing half held; do
        ok "$options: stat agrees with the library ($what)" stat_agrees HMM_OPTIONS="stats=exit,$options" $what
    done
done
for what in nothing half held; do
    ok "libhmm-secure.so: stat agrees with the library ($what)" \
        stat_agrees LD_PRELOAD="$library_folder/libhmm-secure.so" HMM_OPTIONS=stats=exit $what
done

# A block heap does not record what it held: its peak may be less than that, and stat says what it is.
peak_is_live() {
    HMM_OPTIONS=engine=block "$hmm" stat --json -o "$work/own.json" -- "$programs_folder/see/keeper" end >/dev/null &&
        HMM_OPTIONS=engine=block "$hmm" stat -o "$work/own.txt" -- "$programs_folder/see/keeper" end >/dev/null &&
        jq -e '.peak_bytes == ([.heap_list[].peak_live_bytes] | add) and .peak_bytes >= .live_bytes' \
            "$work/own.json" >/dev/null &&
        grep -q ' peak .* of heaps the most that was ever live$' "$work/own.txt"
}
ok "engine=block: the peak is of what is live, and so it is named" peak_is_live

for name in libhmm-array libhmm-secure; do
    ok "$name.so: the parts are the total" eval "LD_PRELOAD=$library_folder/$name.so explain other.json \
        -- $programs_folder/see/keeper end && compare sum $work/other.json"
    ok "$name.so: whole" eval "LD_PRELOAD=$library_folder/$name.so $hmm check -- $programs_folder/see/keeper end"
done
ok "a static program: the parts are the total" \
    eval "explain other.json -- $programs_folder/see/keeper_static end && compare sum $work/other.json"
ok "a static program: whole" "$hmm" check -- "$programs_folder/see/keeper_static" end

launch "$programs_folder/see/keeper" wait nothing
ok "a program that drops what it had is ready" wait_ready
examine "slabs with pages away"
dismiss

# --------------------------------------------------------------------- a first thread that is not the last
large_bytes() { # large_bytes TARGET...: of large blocks in use
    explain other.json "$@" >/dev/null 2>&1
    jq '[.parts[] | select(.kind == "live-large").bytes] | add' "$work/other.json"
}
launch "$programs_folder/see/last" wait
ok "a program without its first thread is ready" wait_ready
is "it is read by its process id" "$(large_bytes "$target")" 5242880
ok "it is whole" "$hmm" check "$target"
dismiss
for how in return exit crash; do
    is "its last thread ends it ($how): what is read" "$(large_bytes -- "$programs_folder/see/last" $how)" 5242880
done
is "its exit status is that of the last one" \
    "$("$hmm" run --report -- "$programs_folder/see/last" exit >/dev/null 2>&1; echo $?)" 3

# By processor time, which others do not lengthen.
launch "$programs_folder/see/crowd"
ok "a program of 3,000 threads is ready" wait_ready
# shellcheck disable=SC2016 # Another shell expands.
ok "it is checked in the time that its slabs take" \
    bash -c 'ulimit -t 3; exec "$@"' - "$hmm" check "$target"
dismiss

# ------------------------------------------------------------------------------------ what is broken
broken() { # broken NAME DAMAGE PATTERN: check names the invariant and exits with 1
    local said status
    said=$("$hmm" check -- "$programs_folder/see/keeper" end "$2" 2>&1)
    status=$?
    is "$1: exit status" "$status" 1
    ok "$1: named" grep -q "broken: $3" <<<"$said" || diag "$said"
}
broken "an overwritten tag" tag "B1: a damaged tag: block 0x"
broken "a link that leads astray" link "S1: need agrees with the free list: slab 0x.* of class"
broken "an overflow in a created heap" heap "B[12]: "

broken_alive() { # broken_alive NAME DAMAGE PATTERN: of a process that goes on
    local said status
    launch "$programs_folder/see/keeper" wait "$2"
    wait_ready
    said=$("$hmm" check "$target" 2>&1)
    status=$?
    dismiss
    is "$1 in a process: exit status" "$status" 1
    ok "$1 in a process: named" grep -q "broken: $3" <<<"$said" || diag "$said"
}
broken_alive "an overwritten tag" tag "B1: a damaged tag: block 0x"
broken_alive "a link that leads astray" link "S1: need agrees with the free list: slab 0x.* of class"
broken_alive "an overflow in a created heap" heap "B[12]: "

# What looks broken while a thread is inside may be half done, whoever guards the heap.
guarded() { # guarded NAME STATUS PATTERN TARGET...: what check says
    local name=$1 status=$2 pattern=$3 said found
    shift 3
    said=$("$hmm" check "$@" 2>&1)
    found=$?
    is "$name: exit status" "$found" "$status"
    ok "$name: said" grep -q "$pattern" <<<"$said" || diag "$said"
}
for lock in own callers none; do
    for where in inside outside; do
        status=1 pattern=": broken: B[12]: "
        [[ $where == outside ]] || status=2 pattern=": cannot tell: a thread "
        name="a heap (lock: $lock) damaged from $where"
        guarded "$name, at its end" $status "$pattern" -- "$programs_folder/see/inside" $lock $where end
        launch "$programs_folder/see/inside" $lock $where wait
        wait_ready
        guarded "$name, in a process" $status "$pattern" "$target"
        take_core
        guarded "$name, in a core" $status "$pattern" "$work/core"
        dismiss
    done
done

# ----------------------------------------------------------------------------- what is at an address
place() { # place NAME: its address
    awk -v name="$1" '$1 == name { print $2 }' "$work/places"
}
answer() { # answer NAME TARGET: what is there, without addresses
    "$hmm" where "$2" "$(place "$1")" | sed -E 's/0x[0-9a-f]+/@/g'
}
line() { # line WORD: of the last answer, the line that begins so
    sed -n "s/^  $1 *//p" <<<"$said"
}
where_ready() { # where_ready [NAME=VALUE...]
    launch "$@" "$programs_folder/see/where"
    wait_ready && cp "$work/said" "$work/places"
}

ok "a program with blocks of all kinds is ready" where_ready
take_core
for target_form in "$target" "$work/core"; do
    form="a process"
    [[ $target_form == "$target" ]] || form="a core"
    while IFS='|' read -r name first block; do
        said=$(answer "$name" "$target_form")
        is "where, $form: $name" "$(head -n 1 <<<"$said")" "@: $first"
        is "where, $form: $name: its block" "$(line block)" "${block:+@, $block}"
    done <<'ANSWERS'
small|the start of a block, in use|a slot of 96 bytes
small_inside|5 bytes into a block, in use|a slot of 96 bytes
small_behind|91 bytes into a block, in use|a slot of 96 bytes
small_freed|the start of a block, free|a slot of 96 bytes
medium|100 bytes into a block, in use|a medium block of 20488 bytes
medium_tag|the tag before a block, in use|a medium block of 20488 bytes
medium_last|the start of a block, in use|a medium block of 30728 bytes
large|7 bytes into a block, in use|a large block of 1048576 bytes
inner|1 byte into a block, in use|a block of a block heap of 104 bytes
ANSWERS
    said=$(answer small "$target_form")
    is "where, $form: what is behind a slot" "$(line 'behind it')" "@, free"
    ok "where, $form: its slab" grep -qE '^  slab  .*, slot [0-9]+ of 682, current, thread @.s$' <<<"$said"
    said=$(answer medium_last "$target_form")
    is "where, $form: what is before a medium block" "$(line 'before it')" "@, free"
done
said=$(answer data "$target")
ok "where: a program's data are not of the heap" \
    grep -qE '^@: not of the heap: [0-9]+ bytes into .*/see/where, rw-p \(@ to @\)$' <<<"$said" || diag "$said"
is "where: nothing" "$(answer nothing "$target")" "@: nothing is mapped there"
is "where: several at once" "$("$hmm" where "$target" "$(place small)" "$(place nothing)" "$(place large)" | grep -c '^0x')" 3
for wrong in "" wrong 12z 5- 0x; do
    "$hmm" where "$target" "$wrong" >"$work/output" 2>&1
    is "where: no address ('$wrong'): exit status" "$?" 2
    is "where: no address ('$wrong'): said" "$(<"$work/output")" "hmm where: no address: $wrong"
done
is "where: without addresses" "$("$hmm" where "$target" 2>&1; echo $?)" \
    $'hmm where: wants a process or a core, and addresses\n2'
dismiss

for options in hardened=1 hardened=2 engine=block,hardened=1; do
    ok "$options: the program is ready" where_ready HMM_OPTIONS="$options,sites=1"
    take_core
    said=$(answer small_behind "$target")
    is "$options: where behind what was asked for" "$(head -n 1 <<<"$said")" \
        "@: 91 bytes into a block, behind what was asked for, in use"
    ok "$options: how much that was" grep -q ', of which malloc was asked for 90$' <<<"$(line block)" || diag "$said"
    said=$(answer large "$target")
    ok "$options: of a large block" grep -q ', of which malloc was asked for 1048576$' <<<"$(line block)" || diag "$said"
    is "$options: by whom it was allocated" \
        "$(grep -A 2 '^  allocated by$' <<<"$said" | grep -oE ' in (take|main) .*where\.c:[0-9]+$' | awk '{ print $2 }' | xargs)" \
        "take main"
    is "$options: a core says the same" "$(answer large "$work/core")" "$said"
    [[ $options != engine=block* ]] || said=
    [[ -z $said ]] || said=$(answer small_freed "$target")
    [[ -z $said ]] || is "$options: by whom a slot was freed" \
        "$(grep -A 2 '^  freed by$' <<<"$said" | grep -oE ' in (give|main) .*where\.c:[0-9]+$' | awk '{ print $2 }' | xargs)" \
        "give main"
    dismiss
done
ok "libhmm-secure.so: the program is ready" where_ready LD_PRELOAD="$library_folder/libhmm-secure.so"
said=$(answer medium "$target")
ok "libhmm-secure.so: where" grep -q ', of which malloc was asked for 20000$' <<<"$(line block)" || diag "$said"
dismiss

# A core whose tables are damaged anywhere gets an answer: 0, 1 or 2, and never a signal.
read_damaged() {
    local seed command status addresses
    for ((seed = 1; seed <= 8; seed++)); do
        python3 "$see/mutate.py" "$work/keeper.core" "$work/mutated.core" "$seed"
        for command in stat explain check where; do
            addresses=()
            [[ $command != where ]] || mapfile -t addresses < <(grep -o '0x.*' "$work/places")
            timeout "$limit_seconds" "$hmm" "$command" "$work/mutated.core" "${addresses[@]}" >"$work/mutated" 2>&1
            status=$?
            if ((status > 2)); then
                diag "seed $seed: $command: exit status $status"
                return 1
            fi
        done
    done
}
ok "damaged cores get an answer" read_damaged

# ----------------------------------------------------------------------------- while it changes
read_often() {
    local round
    for ((round = 0; round < 10; round++)); do
        "$hmm" stat --json "$target" >"$work/busy.json" && jq -e .live_bytes "$work/busy.json" >/dev/null || return 1
        explain busy.json "$target" &&
            jq -e '.resident_bytes == ([.parts[].bytes] | add)' "$work/busy.json" >/dev/null || return 1
    done
}

# A whole heap is never called broken: it is whole, or a line says that it cannot be told.
check_often() { # check_often COUNT COMMAND...: `whole` becomes how often it was seen whole
    local round count=$1 status
    shift
    whole=0
    : >"$work/undecided"
    for ((round = 0; round < count; round++)); do
        "$@" >"$work/busy.txt" 2>&1
        status=$?
        whole=$((whole + (status == 0)))
        ((status == 0)) || cat "$work/busy.txt" >>"$work/undecided"
        ((status == 0)) || { ((status == 2)) && grep -q "cannot tell: " "$work/busy.txt"; } || return 1
    done
}

check_core() {
    take_core && "$hmm" check "$work/core"
}

for options in engine=fast hardened=1 engine=block; do
    launch HMM_OPTIONS=$options "$programs_folder/see/busy"
    ok "$options: the busy program is ready" wait_ready
    ok "$options: a process that never rests is read 20 times" read_often
    ok "$options: and checked 20 times" check_often 20 "$hmm" check "$target" || diag "$(cat "$work/busy.txt")"
    ok "$options: and mostly seen whole" test "$whole" -ge 12 || diag <"$work/undecided"
    ok "$options: its cores are never broken" check_often 2 check_core || diag "$(cat "$work/busy.txt")"
    exec 9>&-
    ok "$options: and is none the worse" wait "$target"
done

# --------------------------------------------------------------------------- mistakes, and what is said
mistake() { # mistake NAME LINE ARGUMENT...: one line on standard error that has LINE in it, and exit status 2
    local name=$1 line=$2 said status
    shift 2
    said=$(timeout "$limit_seconds" "$hmm" "$@" 2>&1 >/dev/null)
    status=$?
    if [[ $status == 2 && $said == *"$line"* && $(wc -l <<<"$said") == 1 ]]; then
        pass "$name"
    else
        fail "$name"
        diag "exit status $status: $said" "wanted: $line"
    fi
}
compile_narrow() {
    printf '#include <unistd.h>\nint main(void) { return pause(); }\n' | ${CC:-cc} -m32 -x c - -o "$work/narrow"
}
mistake "no operand" "hmm stat: wants one process id, one core file, or -- and a program" stat
mistake "two operands" "wants one process id" explain 1 2
mistake "an operand that is empty" "wants one process id, one core file, or -- and a program, not ''" stat ""
mistake "two process ids in one" "wants one process id, one core file, or -- and a program, not '12 34'" check "12 34"
mistake "no process has the number 0" "there is no process 0" map 0
mistake "no such command" "there is no command frobnicate" frobnicate
mistake "no command" "hmm: wants a command"
mistake "no such option" "hmm stat: there is no option --frobnicate; see hmm help stat" stat --frobnicate 1
mistake "an option's value is missing" "--output wants a value" explain 1 -o
mistake "a bad interval" "--interval and --count want a number above 0" stat --watch --interval=never 1
mistake "an interval that is none" "--interval and --count want a number above 0" stat --watch --interval=1e-30 1
mistake "a count below 0" "--interval and --count want a number above 0" stat --watch --count=-1 1
mistake "a value that the library does not take" "hmm run: --hardened wants 0|1|2|3, not 9" run --hardened=9 -- true
mistake "two values in one" "--purge wants live|peak|BYTES, not 1,fit=best" leaks --purge=1,fit=best -- true
mistake "-- is no option's value" "--output wants a value" explain -o -- "$programs_folder/see/keeper" end
mistake "no such process" "there is no process 2147483646" stat 2147483646
mistake "a number that no process has" "there is no process 99999999999999999999" stat 99999999999999999999
mistake "a thread of the kernel" "" explain 2
mistake "not running on HMM" "does not run on HMM" explain $$
if compile_narrow 2>/dev/null; then
    "$work/narrow" &
    target=$!
    mistake "a program of 32 bits" "does not run on HMM" explain "$target"
    kill "$target"
else
    skip "a program of 32 bits" "the compiler makes none"
fi
# Without the kernel's files each command says so at once; a core is read without them.
hide_proc='mount -t tmpfs none /proc && exec "$@"'
if unshare -m sh -c "$hide_proc" - true 2>/dev/null; then
    for arguments in 'stat 1' 'check 1' 'explain 1' 'map -o - 1' 'stat -- true' 'explain -- true' 'run -- true' \
        'run --report -- true' 'leaks -- true' doctor 'doctor -- true'; do
        # shellcheck disable=SC2086 # a command and its arguments
        is "no /proc: $arguments" "$(unshare -m sh -c "$hide_proc" - "$hmm" $arguments 2>&1; echo $?)" \
            "hmm ${arguments%% *}: /proc is not mounted here, and without it nothing is known of processes
2"
    done
    ok "no /proc: a core" unshare -m sh -c "$hide_proc" - "$hmm" check "$work/keeper.core"
else
    skip "no /proc" "only root can hide it"
fi
mistake "--watch of what stands still" "--watch wants a process id" stat --watch "$work/keeper.core"
mistake "no such file" "No such file or directory" check "$work/nothing"
mistake "not a core" "is not a core file" stat "$0"
mistake "a program is no core" "is not a core file" stat "$hmm"
mistake "an empty file" "is not a core file" stat /dev/null
mkfifo "$work/pipe"
mistake "a pipe that nobody writes to" "is not a core file" stat "$work/pipe"
mistake "no such program" "No such file or directory" stat -- "$work/nothing"
mistake "output that cannot be written" "No such file or directory" explain -o "$work/no/where" "$work/keeper.core"
# That is said before a program has run for it.
for command in stat explain map; do
    mistake "$command: no folder for the output of a program" "hmm $command: $work/no/where.html: No such file or directory" \
        $command -o "$work/no/where.html" -- touch "$work/has_run"
    mkdir -p "$work/folder.html"
    mistake "$command: the output of a program is a folder" "Is a directory" \
        $command -o "$work/folder.html" -- touch "$work/has_run"
    ok "$command: it has not run" test ! -e "$work/has_run"
    ok "$command: output of a program to a new file" "$hmm" $command -o "$work/new.html" -- true
    ok "$command: is there" test -s "$work/new.html"
    ok "$command: and to one that is there" "$hmm" $command -o "$work/new.html" -- true
    rm -f "$work/new.html"
done
if [[ -w /dev/full ]]; then
    for command in stat explain check; do
        is "$command: output that has no room" "$("$hmm" "$command" "$work/keeper.core" 2>&1 >/dev/full)" \
            "hmm $command: output: No space left on device"
    done
    launch "$programs_folder/see/keeper"
    wait_ready
    is "stat --watch: output that has no room" "$("$hmm" stat --watch "$target" 2>&1 >/dev/full)" \
        "hmm stat: output: No space left on device"
    dismiss
else
    skip "output that has no room" "there is no /dev/full"
fi
head -c 300000 "$work/keeper.core" >"$work/short.core"
mistake "a core that is cut short" "short.core (cut short): " check "$work/short.core"
# Wherever it ends: what cannot be read is missing, neither absent from the process nor broken.
cut_core_is_named() {
    local tenth command said status bytes operand
    bytes=$(stat -c %s "$work/keeper.core")
    for tenth in 0.1 1 2 3 4 5 6 7 8 9 9.99; do
        head -c "$(awk "BEGIN { printf \"%d\", $bytes * $tenth / 10 }")" "$work/keeper.core" >"$work/short.core"
        for command in stat explain check where; do
            operand=
            [[ $command != where* ]] || operand=0x10
            said=$("$hmm" "$command" "$work/short.core" ${operand:+"$operand"} 2>&1)
            status=$?
            if ((status != 0 && status != 2)) || [[ $said != *"cut short"* || $said == *"does not run"* ]]; then
                diag "$command of $tenth tenths: exit status $status: $said"
                return 1
            fi
        done
    done
}
ok "a core that is cut short anywhere is said to be" cut_core_is_named
truncate -s 1G "$work/short.core"
is "a core that has no room" "$(ulimit -v 500000 && "$hmm" check "$work/short.core" 2>&1)" \
    "hmm check: $work/short.core cannot be mapped: Cannot allocate memory"
python3 - "$work/keeper.core" "$work/other.core" <<'PYTHON'
import sys
core = bytearray(open(sys.argv[1], "rb").read())
at = core.find(b"HMM: heap root\n\0")
while at >= 0:
    core[at + 24] ^= 1
    at = core.find(b"HMM: heap root\n\0", at + 1)
open(sys.argv[2], "wb").write(core)
PYTHON
mistake "a core of another version" "which this hmm" stat "$work/other.core"

# What a core says that no heap would: see/tamper.c.
broken_core() { # broken_core NAME LINE: check calls it broken, at once and in little memory
    local said status
    said=$(ulimit -v 4000000 && timeout 10 "$hmm" check "$work/other.core" 2>&1)
    status=$?
    is "$1: exit status" "$status" 1
    ok "$1: named" grep -q "broken: $2" <<<"$said" || diag "$said"
}
tampered() { # tampered ARGUMENT...: $work/other.core is the core of the leaking program with one thing changed
    cp "$work/keeper.core" "$work/other.core" && "$programs_folder/see/tamper" "$work/other.core" "$@"
}
for page_bytes in 0 64 6000 131072; do
    ok "a core of pages of $page_bytes bytes is made" tampered page "$page_bytes"
    mistake "a core of pages of $page_bytes bytes" "is a damaged core file: pages of $page_bytes bytes" \
        explain "$work/other.core"
done
ok "a core whose bin lies in an endless run is made" tampered run 0x100000000
ok "a core whose bin lies in an endless run is explained" explain other.json "$work/other.core"
ok "a core with a segment of 16 TiB is made" tampered memory 0x100000000000
ok "a core with a segment of 16 TiB is explained" explain other.json "$work/other.core"
ok "as is the whole one" explain core.json "$work/keeper.core"
is "by what it holds" "$(jq -c .parts "$work/other.json")" "$(jq -c .parts "$work/core.json")"
ok "a core whose threads form a ring is made" tampered threads
broken_core "threads that form a ring" "T1: a list of threads has an end"
ok "a core whose created heaps form a ring is made" tampered heaps
broken_core "created heaps that form a ring" "H1: a heap on the list knows what points to it"
ok "a core whose slab is hidden is made" tampered hidden
broken_core "a slab that is hidden" "A6: what is hidden is free: granule 0x"
ok "a core that counts more hidden granules than there are is made" tampered hidden_count
broken_core "a wrong count of hidden granules" "A6: the counter agrees with the set: 0 hidden, counted 1"
ok "a core with its only dirty zone at the end of a list is made" tampered zone
broken_core "a dirty zone behind a clean one" "M5: a zone with dirty pages behind one without: zone 0x"

# Who names a process or a file must not reach the terminal of whoever looks at it.
odd=$'o\e[31m\xff\xc2\x9bd\xc3\xa9'
clean=$'o?[31m???d\xc3\xa9'
cp "$programs_folder/see/keeper" "$work/$odd"
launch "$work/$odd"
wait_ready
is "a process with an odd name" "$("$hmm" check "$target")" "process $target ($clean): every invariant holds"
ok "it is explained" explain other.json "$target"
dismiss
is "as JSON its file has no odd name" "$(jq -r '.parts[].name' "$work/other.json" | grep -cF "$clean")" 1
ln -s keeper.core "$work/$odd.core"
is "a core with an odd name" "$("$hmm" check "$work/$odd.core")" "$work/$clean.core: every invariant holds"
mistake "an odd name of nothing" "$work/no$clean: No such file" check "$work/no$odd"

if [[ $(id -u) == 0 ]] && setpriv --reuid 65534 --clear-groups "$hmm" version >/dev/null 2>&1; then
    said=$(setpriv --reuid 65534 --clear-groups "$hmm" stat $$ 2>&1 >/dev/null)
    status=$?
    is "no permission: exit status" "$status" 2
    ok "no permission: what to do" grep -q "no permission.*ptrace_scope" <<<"$said" || diag "$said"
else
    skip "no permission" "only root can become somebody else"
fi

is "hmm --version" "$("$hmm" --version)" "$("$hmm" version)"
is "help lists the commands" "$("$hmm" help | grep -cE '^  (stat|explain|check|where|options|version|help) ')" 7
for command in stat explain check where options version help; do
    ok "help $command" eval "$hmm help $command | grep -q '^usage: hmm $command'"
    is "$command --help is the same" "$("$hmm" "$command" --help)" "$("$hmm" help "$command")"
done

rm -rf "$work"/*core*
# A heap that is damaged is not called a busy one.
launch "$programs_folder/see/keeper" wait tag
wait_ready
for command in explain where 'map -o -'; do
    operand=
    [[ $command != where ]] || operand=0x10
    # shellcheck disable=SC2086 # words
    ok "${command%% *} of a damaged heap: it may be damaged" \
        grep -q 'changed while it was read, or is damaged: hmm check tells' <("$hmm" $command "$target" $operand 2>&1)
done
take_core
for command in explain where 'map -o -'; do
    operand=
    [[ $command != where ]] || operand=0x10
    # shellcheck disable=SC2086 # words
    ok "${command%% *} of its core: it does not fit together" \
        grep -q 'does not fit together: hmm check says what' <("$hmm" $command "$work/core" $operand 2>&1)
done
dismiss

# Status 1 says that something is broken, and not that a disk is full.
launch "$programs_folder/see/keeper"
wait_ready
for command in check stat explain 'map -o -' where options version; do
    operand=$target
    [[ $command != where ]] || operand="$target 0x10"
    [[ $command != options && $command != version ]] || operand=''
    # shellcheck disable=SC2086 # words
    "$hmm" $command $operand >/dev/full 2>/dev/null
    is "${command%% *}: what cannot be written is no finding" $? 2
done
dismiss

# What the kernel writes of a process into its core is for a filter to say.
dump_filtered() { # in $work/filtered
    mkdir -p "$work/filtered"
    (
        cd "$work/filtered" && ulimit -c unlimited && echo 0 >"/proc/$BASHPID/coredump_filter"
        exec env LD_PRELOAD="$library" sh -c 'kill -ABRT $$'
    ) >"$work/said" 2>&1
    ls "$work"/filtered/core*
}
if core=$(dump_filtered 2>/dev/null); then
    is "a core without private memory is called so" "$("$hmm" stat "$core" 2>&1)" \
        "hmm stat: $core does not hold the process's private memory (coredump_filter)"
else
    skip "a core without private memory is called so" "the kernel writes no core here"
fi

done_testing
