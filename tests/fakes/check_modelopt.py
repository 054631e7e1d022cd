"""Compares the fake of ModelOpt with the real package: `python tests/fakes/check_modelopt.py WHEEL`.

The wheel is read, not imported. It is what `pip download --no-deps nvidia-modelopt==0.47.0` gives.
"""

import sys
import zipfile
from ast import parse as parse_source
from pathlib import Path

from check_vllm import parameters

FUNCTIONS = {
    "quantize": ("quantization.py", "modelopt/torch/quantization/model_quant.py"),
    "export_hf_checkpoint": ("export.py", "modelopt/torch/export/unified_export_hf.py"),
}
"""The module of a function in the fake, and its module in the real package."""


def main() -> int:
    """Returns the number of functions that differ."""
    differences = 0
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        for name, (mine, theirs) in FUNCTIONS.items():
            ours = parameters(parse_source((Path(__file__).parent / "modelopt/torch" / mine).read_text()), name)
            real = parameters(parse_source(wheel.read(theirs)), name)
            if ours != real:
                differences += 1
                print(f"{name}\n  fake:     {ours}\n  ModelOpt: {real}")  # noqa: T201 - that is what it is for
    print(f"{differences} differences from {Path(sys.argv[1]).name}")  # noqa: T201
    return differences


if __name__ == "__main__":
    sys.exit(min(main(), 1))
