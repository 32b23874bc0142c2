#!/usr/bin/env bash
# make install and make uninstall, in a folder with a space in its name: what the one puts there the other takes away.
#
# BUILD   the build folder (build)
# CC      the compiler (cc)
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
ok "the command runs from there" "$destination/opt/hmm/bin/hmm" help
is "pkg-config finds it where it will be" "$(grep '^prefix=' "$destination/opt/hmm/lib/pkgconfig/hmm.pc")" \
    "prefix=/opt/hmm"
# Before glibc 2.34 these were libraries of their own.
is "and what a static program needs besides" "$(grep '^Libs.private' "$destination/opt/hmm/lib/pkgconfig/hmm.pc")" \
    "Libs.private: -pthread -ldl"

touch "$destination/opt/hmm/lib/libother.so"
ok "it is uninstalled" make_here uninstall
is "what somebody else put there stays" "$(files_there)" ./lib/libother.so

done_testing
