#!/bin/bash
# base_image.sh FOLDER: creates a replacement for the base image of the target cpu, which tests cannot pull.
#
# It is Debian with Python, under the name of the base image, in a storage of buildah in FOLDER (an absolute path). If it
# cannot be created, FOLDER/absent contains the reason, and the tests of the image are skipped.
set -euo pipefail

folder=$1
log=$folder/log
tools=(buildah debootstrap ip nsenter unshare)
name=docker.io/library/python:$(sed -n 's/^ARG PYTHON=//p' "$(dirname "$0")/../../Dockerfile")

give_up() {
    echo "THE IMAGE IS NOT TESTED: $1" >&2
    echo "$1" >"$folder/absent"
    exit 0
}

[ "$(id -u)" = 0 ] || give_up "building it without a container engine takes root"
if ! type -P "${tools[@]}" >/dev/null; then
    type -P apt-get >/dev/null || give_up "it takes ${tools[*]}"
    apt-get update >"$log" 2>&1 || true # one source of several may be out of reach
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        buildah debootstrap iproute2 util-linux >>"$log" 2>&1 || give_up "apt-get cannot install buildah ($log)"
fi

# As tests/support/image.py: folders alone, so that nothing stays mounted.
export BUILDAH_ISOLATION=chroot TMPDIR=$folder
buildah=(buildah --storage-driver vfs --root "$folder/storage" --runroot "$folder/run")
container=$("${buildah[@]}" from scratch 2>>"$log") || give_up "buildah cannot work here ($log)"
root=$("${buildah[@]}" mount "$container" 2>>"$log") || give_up "buildah cannot work here ($log)"
debootstrap --variant=minbase --include=ca-certificates,python3-venv bookworm "$root" >>"$log" 2>&1 \
    || give_up "debootstrap cannot install Debian ($log)"
"${buildah[@]}" run "$container" -- python3 -c '' >>"$log" 2>&1 || give_up "buildah cannot run anything here ($log)"
"${buildah[@]}" umount "$container" >/dev/null
"${buildah[@]}" commit --quiet --rm "$container" "$name" >/dev/null
