"""TensorRT-LLM itself, imported when it is needed, and only the half of it that the backend needs.

At 1.2.x `tensorrt_llm.LLM` runs the PyTorch backend; the class that builds and runs engines has moved to
`tensorrt_llm._tensorrt_engine` (the message of the ValueError in `llmapi/llm.py`, `_validate_args_for_torch_backend`,
says so). From 1.3 on the latter is gone.
"""

from importlib import import_module
from typing import Any

from doherty_engine._errors import EngineSetupError
from doherty_engine.trtllm._knobs import TENSORRT

VERSION = "1.2.1"
"""What this adapter is written for, and the last release with both backends."""

_IMAGE = f"nvcr.io/nvidia/tensorrt-llm/release:{VERSION}"


def library_version() -> str:
    """The version that is installed.

    Raises:
        EngineSetupError: none is, or it cannot be loaded.
    """
    return str(load("tensorrt_llm").__version__)


def load(module: str) -> Any:
    """Imports a module of TensorRT-LLM; takes half a minute the first time.

    Raises:
        EngineSetupError: it is not there, or cannot be loaded.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "tensorrt_llm":
            raise EngineSetupError(
                f"TensorRT-LLM cannot be loaded, for it lacks the module {error.name}; run in NVIDIA's image {_IMAGE}."
            ) from error
        if module == "tensorrt_llm":
            raise EngineSetupError(f"TensorRT-LLM is not installed; run in NVIDIA's image {_IMAGE}.") from error
        raise EngineSetupError(
            f"This TensorRT-LLM has no {module}; the engine trtllm is written for {VERSION}, as in {_IMAGE}."
        ) from error
    except (ImportError, OSError, RuntimeError) as error:  # a driver, CUDA or MPI library that is missing
        raise EngineSetupError(
            f"TensorRT-LLM cannot be loaded ({error}); run in NVIDIA's image {_IMAGE}, with `--gpus all`."
        ) from error


def llm_class(backend: str) -> Any:
    """The class that runs models on a backend; raises as `load` does."""
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
