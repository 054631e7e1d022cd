"""What is used of vLLM, imported when the engine starts."""

import os
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from doherty_engine._errors import EngineSetupError, first_line
from doherty_extras import install_command

EXTRA = "vllm"

_ENVIRONMENT = {
    # A fork would take gRPC's threads and locks along.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    # vLLM would tell its makers what runs where.
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True, slots=True)
class Library:
    """The names of vLLM that this engine knows."""

    version: str
    AsyncEngineArgs: Any
    AsyncLLM: Any
    EngineDeadError: type[Exception]
    LoRARequest: Any
    PrometheusStatLogger: type
    RequestOutputKind: Any
    SamplingParams: Any
    StructuredOutputsConfig: Any
    StructuredOutputsParams: Any
    UsageContext: Any
    VLLMClientError: type[Exception]
    """What vLLM raises of a request that its caller got wrong; 0.26 mostly raises a ValueError instead."""
    stretches_heads: bool
    """Whether vLLM itself makes a head's table of positions as long as the context."""
    has_request_draft_figures: bool
    """Whether vLLM counts the drafts of each request."""
    enable_envs_cache: Any
    tokens_input: Any


def load_library() -> Library:
    """Imports vLLM, which takes seconds.

    Raises:
        EngineSetupError: it is not installed, cannot be imported, or finds no GPU.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    vllm = _import("vllm")
    if _import("vllm.platforms").current_platform.is_unspecified():
        raise EngineSetupError(
            "The engine vllm finds no GPU here; see that nvidia-smi shows one, and give Docker `--gpus all`, or "
            "choose `--engine llamacpp`."
        )
    sampling_params = _import("vllm.sampling_params")
    config = _import("vllm.config")
    errors = _import("vllm.exceptions")
    engine_args = _import("vllm.engine.arg_utils").AsyncEngineArgs
    return Library(
        version=vllm.__version__,
        AsyncEngineArgs=engine_args,
        AsyncLLM=_import("vllm.v1.engine.async_llm").AsyncLLM,
        EngineDeadError=_import("vllm.v1.engine.exceptions").EngineDeadError,
        LoRARequest=_import("vllm.lora.request").LoRARequest,
        PrometheusStatLogger=_import("vllm.v1.metrics.loggers").PrometheusStatLogger,
        RequestOutputKind=sampling_params.RequestOutputKind,
        SamplingParams=sampling_params.SamplingParams,
        StructuredOutputsConfig=config.StructuredOutputsConfig,
        StructuredOutputsParams=sampling_params.StructuredOutputsParams,
        UsageContext=_import("vllm.usage.usage_lib").UsageContext,
        VLLMClientError=getattr(errors, "VLLMClientError", errors.VLLMValidationError),
        stretches_heads=hasattr(config.SpeculativeConfig, "_maybe_override_draft_max_position_embeddings"),
        has_request_draft_figures=hasattr(engine_args, "per_request_spec_decode_metrics"),
        enable_envs_cache=_import("vllm.envs").enable_envs_cache,
        tokens_input=_import("vllm.inputs").tokens_input,
    )


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name == "vllm":
            raise EngineSetupError(
                f"The engine vllm needs the package vllm; run `{install_command('vllm')}`."
            ) from error
        raise EngineSetupError(
            f"vLLM is installed, but not as this engine knows it ({error}); run `{install_command('vllm')}`."
        ) from error
    except ImportError as error:
        raise EngineSetupError(
            f"vLLM cannot be imported ({first_lines(error)}); see that its CUDA libraries and the driver fit together."
        ) from error


def first_lines(error: BaseException) -> str:
    """An error in one line; of vLLM's, which are often pydantic's, the first three are needed."""
    return first_line(error, lines=3)
