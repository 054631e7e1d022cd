#!/bin/bash
# install_beside.sh WHEEL: installs Doherty's server into an image with an engine, without changing installed packages.
#
# The image was tested with its versions, so they must not change. If one of our requirements is not compatible with them,
# this is an error here, not a surprise when a model is loaded.
set -euo pipefail

installed=$(mktemp)
trap 'rm "$installed"' EXIT
python3 -m pip list --format=freeze --disable-pip-version-check >"$installed"
# Replaces NVIDIA's own list, which was made before TensorRT-LLM was installed.
export PIP_CONSTRAINT=$installed
# pip prints an error to its standard error, and which packages conflict to its standard output: keep them together.
python3 -m pip install --no-cache-dir --break-system-packages "$1[server]" >&2
