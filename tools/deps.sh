#!/bin/sh
# Installs the Debian packages that are named, one a line, in the given file, where that is possible;
# else prints the one command that does it. Elsewhere than on Debian it leaves the matter to the user.
set -eu

command -v dpkg-query > /dev/null || exit 0

missing=
while read -r package; do
    dpkg-query -W -f='${Status}\n' "$package" 2> /dev/null | grep -q '^install ok installed' ||
        missing="$missing $package"
done < "$1"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    echo "installing:$missing"
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of names
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing > /dev/null
else
    echo "some tests will fail; this installs what they need:" >&2
    echo "    sudo apt-get install$missing" >&2
fi
