"""Prepares a model: downloads it and, on the backend tensorrt, builds its engine.

Every stage can be interrupted at any time: the hub's client does not download files twice, and an incomplete engine is
never renamed to its final name (`models._cache`).
"""

import os
from pathlib import Path

from doherty_engine._errors import EngineSetupError, first_line
from doherty_engine.models import check_digests, check_weights, fetch_weights
from doherty_engine.trtllm._arguments import llm_arguments
from doherty_engine.trtllm._deployment import Deployment, Report, check_calibration, plan_deployment
from doherty_engine.trtllm._draft import place_head
from doherty_engine.trtllm._library import llm_class
from doherty_engine.trtllm._options import Options


def prepare(options: Options, report: Report) -> str:
    """Does all preparations of a start, with more checks. Blocks, for minutes if it builds an engine.

    Returns a sentence that describes the result.

    Raises:
        EngineSetupError: It failed; completed downloads are kept.
    """
    deployment = plan_deployment(options)
    names = ", ".join(gpu.name for gpu in deployment.gpus)
    report(
        f"TensorRT-LLM {deployment.version}, backend {deployment.knobs.backend}, profile {options.profile}, on {names}"
    )
    if deployment.estimate is not None:
        report(f"about {deployment.estimate} of {deployment.gpus[0].memory / (1 << 30):.1f} GiB on each GPU")
    path = _ready_engine(deployment) if deployment.is_built else None
    if path is not None:
        return f"The engine already exists: {path}"
    if deployment.is_built and deployment.knobs.quantization == "FP8":
        check_calibration(deployment.knobs)
    fetch_weights(deployment.folder, report)
    size = check_weights(deployment.folder)
    report(f"checking {size / 1e9:.1f} GB of weights")
    compared = check_digests(deployment.folder)
    if compared:
        report(f"{compared} files have the hub's digests")
    if deployment.head is not None:
        report(f"fetching the head {deployment.head.folder.model}")
        place_head(deployment.knobs, deployment.head, deployment.context)
    if not deployment.is_built:
        return f"The model is downloaded: {deployment.folder.path}"
    return f"The engine is built: {build_engine(deployment, report)}"


def build_engine(deployment: Deployment, report: Report) -> Path:
    """Builds the engine, unless another process has built it in the meantime, and returns its folder.

    Raises:
        EngineSetupError: The build failed.
    """
    cache, key = deployment.cache, deployment.key()
    with cache.locked(key, lambda: report("another process builds this engine; waiting for it")):
        try:
            path = cache.find(key)
        except EngineSetupError:  # a broken engine, which will be moved away
            path = None
        return path or cache.add(key, lambda made: _build(deployment, made, report))


def _ready_engine(deployment: Deployment) -> Path | None:
    try:
        return deployment.cache.find(deployment.key())
    except EngineSetupError:
        return None


def _build(deployment: Deployment, made: Path, report: Report) -> None:
    doing = "quantizing, calibrating and building" if deployment.knobs.quantization == "FP8" else "building"
    report(f"{doing} the engine; this takes some minutes")
    arguments = llm_arguments(
        deployment.knobs, deployment.tensor_parallel_size, deployment.options.adapters, deployment.max_lora_rank
    )
    try:
        llm = llm_class(deployment.knobs.backend or "")(model=os.fspath(deployment.folder.path), **arguments)
        try:
            report("saving the engine")
            llm.save(os.fspath(made))
        finally:
            llm.shutdown()
    except Exception as error:  # the exceptions of TensorRT-LLM, MPI and CUDA have no common base class
        raise EngineSetupError(
            f"The engine cannot be built ({type(error).__name__}: {first_line(error)}); see TensorRT-LLM's own log "
            "above. No part of the engine is kept."
        ) from error
