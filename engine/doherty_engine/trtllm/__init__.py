"""The engine for NVIDIA's GPUs: TensorRT-LLM 1.2.1, with built engines or with its PyTorch backend.

Nothing of TensorRT-LLM is imported before an engine starts, and of its two backends only the one in use. What is said
of it here was read in NVIDIA's documentation and in the source of the release 1.2 or of the nearest commit, whose file
is named beside it; `doherty engine verify` holds an installed package against it.
"""

from doherty_engine.trtllm._contract import Finding, check_contract
from doherty_engine.trtllm._deployment import effective_build, knobs_of, longest_prompt
from doherty_engine.trtllm._engine import TrtLlmEngine
from doherty_engine.trtllm._options import Options
from doherty_engine.trtllm._prepare import prepare
from doherty_engine.trtllm._profiles import profiles
from doherty_engine.trtllm._quality import measure_quality

__all__ = [
    "Finding",
    "Options",
    "TrtLlmEngine",
    "check_contract",
    "create",
    "effective_build",
    "longest_prompt",
    "measure_quality",
    "prepare",
    "profiles",
]


def create(options: Options) -> TrtLlmEngine:
    """Makes the engine, not yet started.

    Raises:
        EngineSetupError: the options contradict each other.
    """
    knobs_of(options)
    return TrtLlmEngine(options)
