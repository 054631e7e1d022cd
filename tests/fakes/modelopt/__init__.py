"""NVIDIA's ModelOpt 0.47 as far as it makes checkpoints in FP8.

Whoever imports it first finds torch and transformers beside it, in `_beside`; all others find what is installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_beside"))
