#!/bin/bash
# fresh_machine.sh FOLDER [COMMAND...]: runs `make demo` and `make test` on a fresh machine, as an ordinary user.
#
# The machine is a minimal Debian 12 in FOLDER/root, made anew by debootstrap, with a clone of HEAD. Before `make demo` it
# gets the packages that README.md names, and before `make test` those that CONTRIBUTING.md names: whoever follows these
# files has no more. With COMMAND, runs that in the clone instead, on the machine that the last run made.
#
# It takes root, debootstrap, git, pip and npm, and the network. How pip and npm reach their registries is taken from those
# of this machine, and so are its names and certificates.
set -euo pipefail

user=tester
repository=$(realpath "$(dirname "$0")/../..")
mkdir -p "$1"
root=$(realpath "$1")/root
shift

fail() {
    echo "$1" >&2
    exit 1
}

# packages FILE: what the file tells its reader to install.
packages() {
    sed -nE 's/.*`apt-get install ([^`]+)`.*/\1/p' "$repository/$1" | grep . || fail "$1 names no packages"
}

# bounded SECONDS COMMAND...: what it mounts and starts ends with it.
bounded() {
    local seconds=$1 status=0
    shift
    timeout --foreground --signal=KILL "$seconds" unshare --mount --pid --fork --kill-child "$@" </dev/null || status=$?
    [ $status != 137 ] || echo "the last command took longer than $seconds s, or was killed" >&2
    return $status
}

# inside SECONDS COMMAND...: runs a command on the machine, as root. The shell stays, for it collects orphans, as init does.
inside() {
    local seconds=$1
    shift
    bounded "$seconds" bash -euc '
        root=$1
        shift
        mount -t proc proc "$root/proc"
        mount --rbind /sys "$root/sys"
        mount --rbind /dev "$root/dev"
        chroot "$root" "$@"
        exit' inside "$root" "$@"
}

# as_user SECONDS COMMAND...: runs a command in the clone, with nothing of the caller's environment.
as_user() {
    local seconds=$1
    shift
    inside "$seconds" chroot --userspec=$user:$user / env --ignore-environment --chdir=/home/$user/doherty \
        HOME=/home/$user USER=$user PATH=/usr/local/bin:/usr/bin:/bin "$@"
}

install_packages() {
    inside 900 env DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --no-install-recommends "$@" >>"$root.log" 2>&1 \
        || fail "apt-get cannot install $* ($root.log)"
}

# Only how to reach the registries: what else is set here, such as a constraint or a folder of wheels, a fresh machine lacks.
configure_registries() {
    local files=("$root/etc/pip.conf" "$root/home/$user/.npmrc")
    local settings='index-url|extra-index-url|cert|proxy|trusted-host|timeout|default-timeout' name value file
    cp /etc/hosts /etc/resolv.conf "$root/etc/"
    # The environment's values come first, and win.
    {
        echo "[global]"
        pip config list | sed -nE "s/^(:env:|global)\.($settings)='(.*)'$/\2 = \3/p" \
            | awk '!/file:/ && !seen[$1]++'
    } >"${files[0]}"
    for name in registry cafile proxy https-proxy noproxy; do
        value=$(cd / && npm config get $name)
        [[ $value =~ ^(null|undefined|)$ ]] || echo "$name=$value"
    done >"${files[1]}"
    # At a path of their own, for Debian's package of certificates writes its own files.
    sed -nE 's/^(cert|cafile) ?= ?//p' "${files[@]}" | while read -r file; do
        install -D --mode=644 "$file" "$root/etc/registries$file"
    done
    sed --in-place --regexp-extended 's#^(cert|cafile)( ?= ?)#&/etc/registries#' "${files[@]}"
}

make_machine() {
    type -P debootstrap git npm pip >/dev/null || fail "this takes debootstrap, git, npm and pip"
    [ -z "$(git -C "$repository" status --porcelain)" ] || echo "what is not committed is not on the fresh machine" >&2
    rm -rf --one-file-system "$root"
    echo "making a Debian in $root"
    bounded 900 debootstrap --variant=minbase bookworm "$root" >"$root.log" 2>&1 || fail "debootstrap failed ($root.log)"
    inside 60 useradd --create-home --shell /bin/bash $user
    configure_registries
    inside 300 apt-get update --quiet=2 >>"$root.log"
    git clone --quiet --no-hardlinks "$repository" "$root/home/$user/doherty"
    chown --recursive --reference="$root/home/$user" "$root/home/$user"
}

[ "$(id -u)" = 0 ] || fail "this takes root: it makes a Debian and changes its root folder"
if [ $# != 0 ]; then
    [ -d "$root" ] || fail "there is no machine in $root: make it without a command"
    as_user 3600 "$@"
    exit
fi
make_machine
for step in "demo README.md 600" "test CONTRIBUTING.md 3600"; do
    read -r target file seconds <<<"$step"
    names=$(packages "$file")
    echo "make $target, with" $names
    install_packages $names
    began=$SECONDS
    as_user "$seconds" make "$target" || fail "make $target fails on a fresh machine, after $((SECONDS - began)) s"
    echo "make $target passes on a fresh machine, after $((SECONDS - began)) s"
done
