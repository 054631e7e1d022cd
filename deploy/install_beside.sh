#!/bin/bash
# install_beside.sh WHEEL CONSTRAINTS: installs Doherty's server into an image with an engine, without changing installed
# packages.
#
# The image was tested with its versions, so they must not change. If one of our requirements is not compatible with them,
# this is an error here, not a surprise when a model is loaded. Missing packages get the versions in CONSTRAINTS, a file for
# pip, if these are compatible with the installed ones.
set -euo pipefail

wheel=$1
constraints=$2
folder=$(mktemp --directory)
trap 'rm -r "$folder"' EXIT
python3 -m pip list --format=freeze --disable-pip-version-check >"$folder/installed"
python3 - "$constraints" "$folder/installed" >"$folder/both" <<'END'
import pathlib, re, sys

def versions(path):
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    return {re.sub("[-_.]+", "-", line.partition("==")[0]).lower(): line for line in lines if not line.startswith("#")}

wanted, installed = map(versions, sys.argv[1:])
print(*(wanted | installed).values(), sep="\n")
END

# install CONSTRAINTS: pip prints an error to its standard error, and which packages conflict to its standard output: keep
# them together. The constraints replace NVIDIA's own list, which was made before TensorRT-LLM was installed.
install() {
    PIP_CONSTRAINT=$1 python3 -m pip install --no-cache-dir --break-system-packages "$wheel[server]" >&2
}

if ! install "$folder/both"; then
    echo "$constraints is not compatible with the installed packages; trying without it" >&2
    install "$folder/installed"
fi
