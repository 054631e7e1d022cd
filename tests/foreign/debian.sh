#!/bin/bash
# debian.sh FOLDER: makes a Debian 12 in FOLDER/root with all packages that docs/languages.md names, and Debian's npm aside.
#
# It takes root, debootstrap and the network, about 1.2 GB and a few minutes. Where it cannot be made, FOLDER/absent says
# why, and the tests of the languages are skipped.
set -euo pipefail

folder=$1
root=$folder/root
log=$folder/log
here=$(dirname "$0")

give_up() {
    echo "THE OTHER LANGUAGES ARE NOT TESTED: $1" >&2
    echo "$1" >"$folder/absent"
    exit 0
}

[ "$(id -u)" = 0 ] || give_up "it takes root, which changes the root folder"
type -P debootstrap unshare >/dev/null || give_up "it takes debootstrap and unshare"
debootstrap --variant=minbase --include=ca-certificates bookworm "$root" >"$log" 2>&1 || give_up "debootstrap failed ($log)"
cp /etc/hosts /etc/resolv.conf "$root/etc/"
bash "$here/inside.sh" "$root" apt-get update >>"$log" 2>&1 || give_up "apt-get update failed ($log)"
# The page breaks long commands into lines.
while read -r command; do
    bash "$here/inside.sh" "$root" env DEBIAN_FRONTEND=noninteractive sh -c "$command --no-install-recommends" >>"$log" 2>&1 \
        || give_up "apt-get cannot install what the page names ($log)"
done < <(sed ':join; /\\$/ { N; s/\\\n//; b join }' "$here/../../docs/languages.md" | grep '^apt-get install')
