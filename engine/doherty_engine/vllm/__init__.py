"""vLLM behind the engine Protocol: any model that vLLM runs, on a GPU.

vLLM schedules and computes in processes of its own; tokenizer, chat template, text and the end of an answer are those
of `doherty_engine.text`. Importing this package loads none of the libraries that it needs.
"""

from doherty_engine.vllm._engine import VllmEngine
from doherty_engine.vllm._options import Options
from doherty_engine.vllm._prepare import prepare
from doherty_engine.vllm._profiles import profiles
from doherty_engine.vllm._quality import measure_quality

__all__ = ["Options", "VllmEngine", "create", "measure_quality", "prepare", "profiles"]


def create(options: Options) -> VllmEngine:
    """Makes the engine, not yet started."""
    return VllmEngine(options)
