#!/usr/bin/env bash
# make install and make uninstall, in a folder with a space in its name: what the one puts there the other takes away.
#
# BUILD   the build folder (build)
# CC      the compiler (cc)
# shellcheck disable=SC2317 # Functions are called by way of ok.
set -u

# shellcheck source=tests/tap.sh
. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/install.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
destination="$work/a folder"

make_here() {
    "${MAKE:-make}" -s -C "$top" BUILD="${BUILD:-build}" CC="${CC:-cc}" DESTDIR="$destination" PREFIX=/opt/hmm "$@"
}

files_there() {
    (cd "$destination/opt/hmm" && find . ! -type d | LC_ALL=C sort | xargs)
}

ok "it is installed" make_here install
is "everything is there" "$(files_there)" "./bin/hmm ./include/hmm.h ./lib/libhmm-array.so ./lib/libhmm-secure.so \
./lib/libhmm.a ./lib/libhmm.so ./lib/libhmm.so.0 ./lib/pkgconfig/hmm.pc ./share/bash-completion/completions/hmm \
./share/man/man1/hmm.1 ./share/man/man3/hmm.3"
is "and nothing beside it" "$(ls "$work")" "a folder"
hmm=$destination/opt/hmm/bin/hmm
ok "the command runs from there" "$hmm" help
on_library() { # on_library COMMAND FOLDER: a program that it starts has the library that lies in the folder
    "$1" run -- cat /proc/self/maps | grep -qF "$2/lib/libhmm.so"
}
ok "it runs programs on the library there" on_library "$hmm" "$destination/opt/hmm"
ok "it reads them at their end" "$hmm" check -- true
ok "it knows that they will run" "$hmm" doctor -- true
# LD_PRELOAD cannot say where that is; what it and LD_LIBRARY_PATH said before is still said.
# shellcheck disable=SC2016 # Another shell expands.
is "what was preloaded stays" "$(LD_PRELOAD=libm.so.6 LD_LIBRARY_PATH=/nowhere "$hmm" run -- \
    sh -c 'echo "$LD_PRELOAD $LD_LIBRARY_PATH"')" "libhmm.so:libm.so.6 $destination/opt/hmm/lib:/nowhere"
mkdir "$work/a:folder"
cp -R "$destination/opt/hmm/bin" "$destination/opt/hmm/lib" "$work/a:folder"
is "where no variable can say it one line does" "$("$work/a:folder/bin/hmm" run -- true 2>&1)" \
    "hmm run: $work/a:folder/lib/libhmm.so cannot be preloaded: its path has a colon"
rm -r "$work/a:folder"
is "pkg-config finds it where it will be" "$(grep '^prefix=' "$destination/opt/hmm/lib/pkgconfig/hmm.pc")" \
    "prefix=/opt/hmm"
# Before glibc 2.34 these were libraries of their own.
is "and what a static program needs besides" "$(grep '^Libs.private' "$destination/opt/hmm/lib/pkgconfig/hmm.pc")" \
    "Libs.private: -pthread -ldl"
if command -v pkg-config >/dev/null; then
    mkdir "$work/config"
    sed 's,^prefix=.*,prefix=/opt/a folder,' "$destination/opt/hmm/lib/pkgconfig/hmm.pc" >"$work/config/hmm.pc"
    is "it says so to a shell, in a folder with a space, too" \
        "$(PKG_CONFIG_PATH=$work/config pkg-config --cflags --libs hmm | sed 's/ *$//')" \
        '-I/opt/a\ folder/include -L/opt/a\ folder/lib -lhmm'
    rm -r "$work/config"
else
    skip "what pkg-config says of a folder with a space" "there is none"
fi

touch "$destination/opt/hmm/lib/libother.so"
ok "it is uninstalled" make_here uninstall
is "what somebody else put there stays" "$(files_there)" ./lib/libother.so

done_testing
