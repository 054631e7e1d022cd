#!/bin/bash
# inside.sh ROOT COMMAND...: runs a command with ROOT as its root folder; what it mounts and starts ends with it.
set -euo pipefail

exec unshare --mount --pid --fork --kill-child bash -euc '
    root=$1
    shift
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    chroot "$root" "$@"
    exit' inside "$@" </dev/null
