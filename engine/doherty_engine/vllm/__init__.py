"""The engine that runs models with vLLM on a GPU.

vLLM schedules and computes in its own processes. Tokenizing, chat templates, detokenizing and the end of an answer are
our own code (`doherty_engine.text`, `doherty_engine.tokens`). Importing this package does not import vLLM.
"""

from doherty_engine.vllm._engine import VllmEngine
from doherty_engine.vllm._options import Options
from doherty_engine.vllm._prepare import prepare
from doherty_engine.vllm._profiles import profiles
from doherty_engine.vllm._quality import measure_quality

__all__ = ["Options", "VllmEngine", "create", "measure_quality", "prepare", "profiles"]


def create(options: Options) -> VllmEngine:
    """Makes an engine that is not yet started."""
    return VllmEngine(options)
