#!/bin/bash
# promtool.sh FOLDER: puts promtool, with which the alerts are tested, into FOLDER (an absolute path).
#
# It is the machine's own, or is unpacked from Debian's package prometheus: nothing is installed, and no daemon starts.
# Where neither is to be had, FOLDER/absent says why, and the tests of the alerts are skipped.
set -euo pipefail

folder=$1
log=$folder/log

give_up() {
    echo "THE ALERTS ARE NOT TESTED: $1" >&2
    echo "$1" >"$folder/absent"
    exit 0
}

if promtool=$(type -P promtool); then
    ln -s "$promtool" "$folder/promtool"
    exit
fi
for tool in apt-get dpkg-deb; do
    type -P $tool >/dev/null || give_up "it takes promtool, which is part of Prometheus"
done
cd "$folder"
# A fresh machine has no lists of packages, and only root can fetch them.
if ! apt-get download prometheus >"$log" 2>&1; then
    [ "$(id -u)" = 0 ] || give_up "apt-get cannot download prometheus, and to update its lists takes root ($log)"
    apt-get update >>"$log" 2>&1 || true # one source of several may be out of reach
    apt-get download prometheus >>"$log" 2>&1 || give_up "apt-get cannot download prometheus ($log)"
fi
dpkg-deb --fsys-tarfile prometheus_*.deb | tar --extract --to-stdout ./usr/bin/promtool >promtool \
    || give_up "Debian's package prometheus has no promtool"
chmod +x promtool
rm prometheus_*.deb
./promtool --version >>"$log" 2>&1 || give_up "promtool does not run here ($log)"
