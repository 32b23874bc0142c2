# shellcheck shell=bash disable=SC2034,SC2154 # Some variables are set, and some used, by the sourcing script.
# The real programs: what each needs beforehand, and what it then does under the allocator.
#
# prepare_X runs once, without the allocator, in $fixtures. run_X runs in an empty folder, once without
# and once for each configuration; everything it prints and every file that it leaves there must be the
# same each time, so it removes or filters what legitimately differs. Programs under test are started by
# `tested`, which the sourcing script defines, and the helpers beside them plainly. Each workload lets the
# program under test say "finished" at the end: without that line its first, plain run counts as failed.

workloads=(bash vim python git compile perl sqlite gdb redis cxx)

# Those that run only where their program is installed.
for program in node php; do
    ! command -v "$program" >/dev/null || workloads+=("$program")
done

# The programs under test, and the Debian packages that bring them.
declare -A package_of=(
    [bash]=bash [vim]=vim ["$python"]=python3 [git]=git [gcc]=gcc [as]=binutils [perl]=perl [sqlite3]=sqlite3
    [gdb]=gdb [redis-server]=redis-server [redis-cli]=redis-tools [redis-benchmark]=redis-tools [g++]=g++
)

run_bash() {
    tested bash "$sources/bash.sh"
}

prepare_vim() {
    seq 1 1500 | awk '{ print ($1 % 3 ? "alpha" : "beta") " " $1 ", gamma " $1 * $1 % 1013 " delta" }' >text
}

run_vim() {
    cp "$fixtures/text" text
    tested vim -u NONE -i NONE -n -es -S "$sources/vim.vim" text
}

run_python() {
    tested "$python" -B "$sources/python.py"
}

# Writes the history of a repository in the language of git fast-import.
history() {
    awk 'BEGIN {
        for (commit = 1; commit <= 150; commit++) {
            print "commit refs/heads/main"
            print "committer A U Thor <author@example.com> " 1700000000 + commit * 1000 " +0000"
            print "data <<END\n" (commit == 150 ? "finished" : "commit " commit) "\nEND"
            for (file = commit; file < commit + 4; file++) {
                print "M 644 inline dir" file % 5 "/file" file % 40 "\ndata <<END"
                for (line = 1; line <= 120; line++) {
                    print "line " line " of version " (line % 9 == commit % 9 ? commit : file % 40)
                }
                print "END"
            }
        }
    }'
}

prepare_git() {
    git init -q --bare -b main origin.git
    history | git -C origin.git fast-import --quiet
}

# Over file:// the clone sends a pack between two processes instead of linking files. The repack starts
# threads whose packs may differ, so the copy is examined but not kept.
run_git() {
    tested git clone "file://$fixtures/origin.git" copy
    tested git -C copy fsck --full --strict --no-progress
    tested git -C copy rev-parse HEAD
    tested git -C copy log --stat --format='%H %an %ad%n%s'
    tested git -C copy blame dir0/file5
    tested git -C copy -c pack.threads=2 repack -adfq
    tested git -C copy fsck --full --strict --no-progress
    tested git -C copy diff --stat HEAD~100
    rm -rf copy
}

# The driver starts cc1 and as, which inherit the allocator. The prefix map keeps the name of the folder
# out of the debug information.
run_compile() {
    tested gcc -std=c11 -O2 -g "-fdebug-prefix-map=$PWD=." "-fdebug-prefix-map=$sources=." \
        -c "$sources/compile.c" -o compile.o
    tested gcc compile.o -lm -o compile
    tested ./compile
}

run_perl() {
    tested perl "$sources/perl.pl"
}

run_sqlite() {
    tested sqlite3 -batch :memory: <"$sources/sqlite.sql"
    tested sqlite3 -batch file.db <"$sources/sqlite.sql"
}

prepare_gdb() {
    gcc -std=c11 -g -O0 -pthread "$sources/gdb.c" -o debuggee
}

# Frames of libc are dropped and the others lose their numbers, because threads that have announced
# themselves may still be on their way to sleep.
run_gdb() {
    tested gdb -nx -batch -x "$sources/gdb.commands" "$fixtures/debuggee" |
        sed -E -e '/^#[0-9]+ .* (worker|descend|wait_for_release|all_are_waiting|main) \(/!{/^#[0-9]/d}' \
            -e 's/^#[0-9]+ +(0x[0-9a-f]+ in )?/# /' -e 's/0x[0-9a-f]{4,}/ADDRESS/g' \
            -e 's/(LWP|process) [0-9]+/\1 N/g'
}

# The random keys of the benchmark go to database 1, so that database 0 can be read back exactly.
run_redis() {
    local client=(redis-cli -s redis.sock)
    tested redis-server --port 0 --unixsocket redis.sock --save "" --appendonly no --dir . --logfile redis.log &
    local server=$!
    local tries=0
    until [[ $("${client[@]}" PING 2>&1) == PONG ]]; do
        if ! kill -0 "$server" 2>/dev/null || ((++tries > 200)); then
            echo "the server does not answer"
            break
        fi
        sleep 0.05
    done
    # Its output is rates and times; only the status can be compared.
    redis-benchmark -s redis.sock --dbnum 1 -n 3000 -c 20 -P 4 -d 100 -r 1000 -q \
        -t set,get,incr,lpush,rpush,lpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset >benchmark 2>&1
    echo "redis-benchmark $?"
    "${client[@]}" <"$sources/redis.commands"
    "${client[@]}" SHUTDOWN NOSAVE
    wait "$server"
    grep -o 'bye bye' redis.log || tail -n 15 redis.log
    rm -f benchmark redis.log
}

prepare_cxx() {
    g++ -std=c++17 -O1 -Wall -Wextra -pthread "$sources/cxx.cc" -o cxx
}

run_cxx() {
    tested "$fixtures/cxx"
}

run_node() {
    tested node "$sources/node.js"
}

run_php() {
    tested php "$sources/php.php"
    USE_ZEND_ALLOC=0 tested php "$sources/php.php"
}
