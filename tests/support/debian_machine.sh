#!/bin/bash
# debian_machine.sh FOLDER COMMAND...: makes a minimal Debian in FOLDER/root, and runs commands that install packages there.
#
# SUITE is the release, by default that of Debian 12.
# It takes root, debootstrap and the network. Where it cannot be made, FOLDER/absent says why, and what needs it is skipped.
set -euo pipefail

folder=$1
shift
root=$folder/root
log=$folder/log
here=$(dirname "$0")

give_up() {
    echo "A DEBIAN FOR TESTS IS MISSING: $1" >&2
    echo "$1" >"$folder/absent"
    exit 0
}

[ "$(id -u)" = 0 ] || give_up "it takes root, which changes the root folder"
type -P debootstrap unshare >/dev/null || give_up "it takes debootstrap and unshare"
debootstrap --variant=minbase --include=ca-certificates "${SUITE:-bookworm}" "$root" >"$log" 2>&1 || give_up "debootstrap failed ($log)"
cp /etc/hosts /etc/resolv.conf "$root/etc/"
bash "$here/inside.sh" "$root" apt-get update >>"$log" 2>&1 || give_up "apt-get update failed ($log)"
for command in "$@"; do
    bash "$here/inside.sh" "$root" env DEBIAN_FRONTEND=noninteractive sh -c "$command --no-install-recommends" >>"$log" 2>&1 \
        || give_up "'$command' failed ($log)"
done
