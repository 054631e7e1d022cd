"""The engine that runs models with TensorRT-LLM 1.2.1, with built engines or with its PyTorch backend.

TensorRT-LLM is imported only when an engine starts, and only the backend in use. Statements about TensorRT-LLM in this
package come from NVIDIA's documentation and from the source of release 1.2 or the nearest commit; the source file is
named with each. `doherty engine verify` compares an installed package with them.
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
    """Makes an engine that is not yet started.

    Raises:
        EngineSetupError: The options contradict each other.
    """
    knobs_of(options)
    return TrtLlmEngine(options)
