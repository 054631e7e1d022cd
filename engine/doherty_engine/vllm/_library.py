"""Imports the parts of vLLM that this engine uses, when the engine starts."""

import os
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from doherty_engine._errors import EngineSetupError, first_line
from doherty_extras import install_command

EXTRA = "vllm"

_ENVIRONMENT = {
    # A fork would copy the locks of gRPC, but not its threads.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    # vLLM would send usage statistics to its developers.
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True, slots=True)
class Library:
    """The names of vLLM that this engine uses."""

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
    """Raised by vLLM for invalid requests; 0.26 mostly raises ValueError instead."""
    extends_head_positions: bool
    """Whether vLLM itself extends a head's position table to the length of the context."""
    counts_request_drafts: bool
    """Whether vLLM counts the drafts of each request."""
    enable_envs_cache: Any
    tokens_input: Any


def load_library() -> Library:
    """Imports vLLM, which takes seconds.

    Raises:
        EngineSetupError: It is not installed, cannot be imported, or finds no GPU.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    vllm = _import("vllm")
    if _import("vllm.platforms").current_platform.is_unspecified():
        raise EngineSetupError(
            "The engine vllm finds no GPU here; check that nvidia-smi shows one, start Docker with `--gpus all`, or "
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
        extends_head_positions=hasattr(config.SpeculativeConfig, "_maybe_override_draft_max_position_embeddings"),
        counts_request_drafts=hasattr(engine_args, "per_request_spec_decode_metrics"),
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
            f"The installed vLLM is not a version that this engine supports ({error}); run `{install_command('vllm')}`."
        ) from error
    except ImportError as error:
        raise EngineSetupError(
            f"vLLM cannot be imported ({first_lines(error)}); check that the driver supports its CUDA libraries."
        ) from error


def first_lines(error: BaseException) -> str:
    """The first three lines of an error as one line. Many of vLLM's errors are pydantic's, which need three."""
    return first_line(error, lines=3)
