"""Imports TensorRT-LLM when it is needed, and only the parts for the selected backend.

At 1.2.x `tensorrt_llm.LLM` runs the PyTorch backend. The class that builds and runs engines is in
`tensorrt_llm._tensorrt_engine` (see the message of the ValueError in `llmapi/llm.py`,
`_validate_args_for_torch_backend`). Since 1.3 it no longer exists.
"""

from importlib import import_module
from typing import Any

from doherty_engine._errors import EngineSetupError
from doherty_engine.trtllm._knobs import TENSORRT

VERSION = "1.2.1"
"""The version that this engine supports: the last release with both backends."""

_IMAGE = f"nvcr.io/nvidia/tensorrt-llm/release:{VERSION}"


def library_version() -> str:
    """The installed version.

    Raises:
        EngineSetupError: TensorRT-LLM is not installed, or cannot be imported.
    """
    return str(load("tensorrt_llm").__version__)


def load(module: str) -> Any:
    """Imports a module of TensorRT-LLM. Takes half a minute the first time.

    Raises:
        EngineSetupError: It does not exist, or cannot be imported.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "tensorrt_llm":
            raise EngineSetupError(
                f"TensorRT-LLM cannot be loaded without the module {error.name}; run in NVIDIA's image {_IMAGE}."
            ) from error
        if module == "tensorrt_llm":
            raise EngineSetupError(f"TensorRT-LLM is not installed; run in NVIDIA's image {_IMAGE}.") from error
        raise EngineSetupError(
            f"This TensorRT-LLM has no {module}; the engine trtllm is written for {VERSION}, as in {_IMAGE}."
        ) from error
    except (ImportError, OSError, RuntimeError) as error:  # a missing driver, CUDA or MPI library
        raise EngineSetupError(
            f"TensorRT-LLM cannot be loaded ({error}); run in NVIDIA's image {_IMAGE}, with `--gpus all`."
        ) from error


def llm_class(backend: str) -> Any:
    """The class that runs models on a backend.

    Raises:
        EngineSetupError: As for `load`, or this version of TensorRT-LLM does not have the backend.
    """
    if backend != TENSORRT:
        return load("tensorrt_llm").LLM
    version, module = library_version(), "tensorrt_llm._tensorrt_engine"
    try:
        return load(module).LLM
    except EngineSetupError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name == module:
            raise EngineSetupError(
                f"TensorRT-LLM {version} has no backend tensorrt any more; choose the profile interactive or "
                f"throughput, or run in NVIDIA's image {_IMAGE}."
            ) from error
        raise
