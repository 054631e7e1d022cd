#!/bin/bash
# promtool.sh FOLDER: puts promtool, with which the alerts are tested, into FOLDER (an absolute path).
#
# It is the machine's own, or is unpacked from Debian's package prometheus: nothing is installed, and no daemon starts.
# Where neither is to be had, FOLDER/absent says why, and the tests of the alerts are skipped.
set -euo pipefail

folder=$1
log=$folder/log
# shellcheck source=../support/debian.sh
source "$(dirname "$0")/../support/debian.sh"

give_up() {
    echo "THE ALERTS ARE NOT TESTED: $1" >&2
    echo "$1" >"$folder/absent"
    exit 0
}

if promtool=$(type -P promtool); then
    ln -s "$promtool" "$folder/promtool"
    exit
fi
mkdir "$folder/debian"
touch "$log"
why=$(unpack "$folder/debian" "$log" prometheus) || give_up "it takes promtool, which is part of Prometheus: $why"
mv "$folder/debian/usr/bin/promtool" "$folder/promtool"
rm -r "$folder/debian"
"$folder/promtool" --version >>"$log" 2>&1 || give_up "promtool does not run here ($log)"
