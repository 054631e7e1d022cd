"""Loads a model into TensorRT-LLM, by either backend."""

import logging
import os
from functools import partial
from typing import Any

from doherty_engine._errors import EngineSetupError, first_line
from doherty_engine.models import check_weights, fetch_weights
from doherty_engine.text import HuggingFaceTokenizer
from doherty_engine.tokens import PromptReader
from doherty_engine.trtllm._arguments import llm_arguments, lookahead_config
from doherty_engine.trtllm._constraints import guided_decoding
from doherty_engine.trtllm._context import TrtLlmContext
from doherty_engine.trtllm._draft import place_head
from doherty_engine.trtllm._features import has_constraints
from doherty_engine.trtllm._grammars import GrammarTrial
from doherty_engine.trtllm._library import llm_class, load
from doherty_engine.trtllm._options import Options
from doherty_engine.trtllm._plan import Plan, check_calibration, make_plan
from doherty_engine.trtllm._prepare import build_engine
from doherty_engine.trtllm._sampling import SamplingWriter

_log = logging.getLogger("doherty.engine")


def load_model(options: Options) -> TrtLlmContext:
    """Gets the model ready, building its engine if there is none, and loads it; blocks.

    Raises:
        EngineSetupError: it cannot be served.
    """
    plan = make_plan(options)
    tokenizer = HuggingFaceTokenizer(plan.folder, extra="trtllm")
    path = _model_path(plan)
    _report(f"loading {path}")
    knobs = plan.knobs if plan.head is None else place_head(plan.knobs, plan.head, plan.context)
    arguments = llm_arguments(knobs, plan.tensor_parallel_size, options.adapters, plan.max_lora_rank)
    grammars = GrammarTrial(tokenizer) if has_constraints(plan.knobs) else None
    try:
        llm = llm_class(plan.knobs.backend or "")(model=path, **arguments)
    except Exception as error:  # TensorRT-LLM, MPI and CUDA have no base in common
        if grammars is not None:
            grammars.close()
        advice = (
            "run `doherty engine prepare` with the same options to build it anew"
            if plan.is_built
            else ("TensorRT-LLM's own log above says more")
        )
        raise EngineSetupError(
            f"TensorRT-LLM cannot load {path} ({type(error).__name__}: {first_line(error)}); {advice}."
        ) from error
    if plan.is_built:
        llm._check_arguments = _checked_here  # noqa: SLF001 - the contract lists it
    return TrtLlmContext(
        reader=PromptReader(tokenizer, plan.context),
        tokenizer=tokenizer,
        compile_constraint=None if grammars is None else partial(guided_decoding, trial=grammars),
        plan=plan,
        llm=llm,
        sampling=SamplingWriter(plan.knobs, tokenizer.eos_ids, lookahead_config(plan.knobs)),
        adapters=_adapters(options),
        grammars=grammars,
        request_error=load("tensorrt_llm.executor").RequestError,
    )


def _checked_here(*_: object, **__: object) -> None:
    """In place of the check that TensorRT-LLM makes of every request on the backend tensorrt.

    It reads the engine's config.json each time, on the event loop (`llmapi/llm.py`, `_check_arguments`), to compare
    lengths; those are compared before (`TrtLlmRequest._check_size`, `output_budget`), and what else it refuses is not
    asked for.
    """


def _model_path(plan: Plan) -> str:
    """What TensorRT-LLM loads: the engine, or the checkpoint."""
    path = plan.cache.find(plan.key()) if plan.is_built else None
    if path is None:
        if plan.is_built and plan.knobs.quantization == "FP8":
            check_calibration(plan.knobs)
        fetch_weights(plan.folder, _report)
        check_weights(plan.folder)
        path = build_engine(plan, _report) if plan.is_built else plan.folder.path
    return os.fspath(path)


def _report(doing: str) -> None:
    _log.info("loading", extra={"fields": {"doing": doing}})


def _adapters(options: Options) -> dict[str, Any]:
    if not options.adapters:
        return {}
    request = load("tensorrt_llm.executor").LoRARequest
    return {name: request(name, number, path) for number, (name, path) in enumerate(options.adapters, start=1)}
