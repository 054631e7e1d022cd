#!/bin/bash
# install_beside.sh WHEEL: installs Doherty's server into an image that has an engine, and moves nothing that is there.
#
# An engine's image is tested as a whole: what it has stays at its version, and a requirement of ours that cannot be met
# beside it is an error here, not a surprise when a model is loaded.
set -euo pipefail

installed=$(mktemp)
trap 'rm "$installed"' EXIT
python3 -m pip list --format=freeze --disable-pip-version-check >"$installed"
# In place of NVIDIA's own list, which is that of a stage before TensorRT-LLM was installed.
export PIP_CONSTRAINT=$installed
# pip prints an error to its standard error, and which packages conflict to its standard output: keep them together.
python3 -m pip install --no-cache-dir --break-system-packages "$1[server]" >&2
