"""The part of NVIDIA's ModelOpt 0.47 that creates FP8 checkpoints.

A process that imports it first also imports the fakes of torch and transformers in `_beside`. All others import
the installed packages.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_beside"))
