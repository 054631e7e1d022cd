"""Loads a model into TensorRT-LLM, with either backend."""

import logging
import os
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from doherty_engine._errors import EngineSetupError, first_line
from doherty_engine._requests import Constraint
from doherty_engine.constraints import TRANSLATIONS
from doherty_engine.models import check_weights, fetch_weights
from doherty_engine.text import HuggingFaceTokenizer
from doherty_engine.tokens import FairThreads, PromptReader
from doherty_engine.trtllm._arguments import llm_arguments, lookahead_config
from doherty_engine.trtllm._constraints import guided_decoding
from doherty_engine.trtllm._context import TrtLlmContext
from doherty_engine.trtllm._deployment import Deployment, check_calibration, plan_deployment
from doherty_engine.trtllm._draft import place_head
from doherty_engine.trtllm._features import has_constraints
from doherty_engine.trtllm._grammars import GrammarTrial
from doherty_engine.trtllm._library import llm_class, load
from doherty_engine.trtllm._options import Options
from doherty_engine.trtllm._prepare import build_engine
from doherty_engine.trtllm._sampling import SamplingWriter

_log = logging.getLogger("doherty.engine")


def load_model(options: Options) -> TrtLlmContext:
    """Prepares the model (builds an engine if necessary) and loads it. Blocks.

    Raises:
        EngineSetupError: The model cannot be served.
    """
    deployment = plan_deployment(options)
    tokenizer = HuggingFaceTokenizer(deployment.folder, extra="trtllm")
    path = _model_path(deployment)
    _report(f"loading {path}")
    knobs = deployment.knobs
    if deployment.head is not None:
        knobs = place_head(knobs, deployment.head, deployment.context)
    arguments = llm_arguments(knobs, deployment.tensor_parallel_size, options.adapters, deployment.max_lora_rank)
    grammars = GrammarTrial(tokenizer) if has_constraints(deployment.knobs) else None
    try:
        llm = llm_class(deployment.knobs.backend or "")(model=path, **arguments)
    except Exception as error:  # the exceptions of TensorRT-LLM, MPI and CUDA have no common base class
        if grammars is not None:
            grammars.close()
        advice = (
            "run `doherty engine prepare` with the same options to rebuild it"
            if deployment.is_built
            else "see TensorRT-LLM's own log above"
        )
        raise EngineSetupError(
            f"TensorRT-LLM cannot load {path} ({type(error).__name__}: {first_line(error)}); {advice}."
        ) from error
    if deployment.is_built:
        llm._check_arguments = _skip_check  # noqa: SLF001 - `check_contract` verifies that it exists
    return TrtLlmContext(
        reader=PromptReader(tokenizer, deployment.context),
        tokenizer=tokenizer,
        compile_constraint=None if grammars is None else _in_turns(grammars),
        deployment=deployment,
        llm=llm,
        sampling=SamplingWriter(deployment.knobs, tokenizer.eos_ids, lookahead_config(deployment.knobs)),
        adapters=_adapters(options),
        grammars=grammars,
        request_error=load("tensorrt_llm.executor").RequestError,
    )


def _in_turns(grammars: GrammarTrial) -> Callable[[Constraint, str], Coroutine[Any, Any, Any]]:
    return partial(guided_decoding, translations=FairThreads(TRANSLATIONS, per_key=1), trial=grammars)


def _skip_check(*_: object, **__: object) -> None:
    """Replaces TensorRT-LLM's check of every request on the backend tensorrt.

    The original reads the engine's config.json for every request, on the event loop (`llmapi/llm.py`,
    `_check_arguments`), to compare lengths. We check the lengths ourselves (`TrtLlmRequest._check_size`,
    `output_budget`), and never send the other requests that it would refuse.
    """


def _model_path(deployment: Deployment) -> str:
    """The path for TensorRT-LLM to load: the built engine, or the checkpoint."""
    path = deployment.cache.find(deployment.key()) if deployment.is_built else None
    if path is None:
        if deployment.is_built and deployment.knobs.quantization == "FP8":
            check_calibration(deployment.knobs)
        fetch_weights(deployment.folder, _report)
        check_weights(deployment.folder)
        path = build_engine(deployment, _report) if deployment.is_built else deployment.folder.path
    return os.fspath(path)


def _report(doing: str) -> None:
    _log.info("loading", extra={"fields": {"doing": doing}})


def _adapters(options: Options) -> dict[str, Any]:
    if not options.adapters:
        return {}
    request = load("tensorrt_llm.executor").LoRARequest
    return {name: request(name, number, path) for number, (name, path) in enumerate(options.adapters, start=1)}
