"""Makes an FP8 checkpoint with static scales, which vLLM serves faster than weights that it quantizes at load time.

Without static scales, each step measures all activations before it rounds them. NVIDIA's ModelOpt calibrates and writes
the checkpoint: it can be installed together with every vLLM from 0.26 to 0.33, while llm-compressor needs other
versions of compressed-tensors; and TensorRT-LLM's PyTorch backend reads the same format. Making a checkpoint can be
interrupted at any time (`models._cache`).
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from doherty_engine._errors import EngineSetupError
from doherty_engine._paths import expand_user
from doherty_engine.models import (
    GIB,
    BuildCache,
    BuildKey,
    Gpu,
    ModelShape,
    as_gib,
    check_digests,
    check_weights,
    default_cache,
    fetch_weights,
    visible_gpus,
    weights_identity,
)
from doherty_engine.text import HuggingFaceTokenizer, ModelFolder, find_model_folder
from doherty_engine.vllm._calibration import calibration_sequences
from doherty_engine.vllm._options import Options
from doherty_extras import install_command

_EXTRA = "quantize"
_PROGRAM = Path(__file__).with_name("_quantize_process.py")
_HALF, _EIGHTH = 2, 1
"""Bytes of a number in bfloat16 and in FP8."""
_OVERHEAD = 3 * GIB
"""For activations, the logits of the longest text, and CUDA."""
_SMALL_FILES = ("tokenizer*", "special_tokens_map.json", "*.jinja", "generation_config.json", "*.model")

Report = Callable[[str], None]


def prepare(options: Options, report: Report) -> str:
    """Downloads and checks the model, and makes the checkpoint unless it exists. Blocks for minutes.

    Returns a sentence that describes the result.

    Raises:
        EngineSetupError: It failed; completed downloads are kept.
    """
    if not options.model:
        raise EngineSetupError("Name the model to quantize with `--model`: a folder, or one on the hub as org/name.")
    modelopt = _modelopt_version()
    folder = find_model_folder(options.model, options.revision, extra=_EXTRA)
    if "quantization_config" in folder.read_json("config.json"):
        raise EngineSetupError(f"The model {folder.model} is quantized already; serve it as it is.")
    shape = _shape(folder)
    gpu = visible_gpus(extra=_EXTRA)[0]
    _check_gpu(gpu, shape)
    tokenizer = HuggingFaceTokenizer(folder, extra=_EXTRA)
    sequences = calibration_sequences(tokenizer)
    key = _key(folder, modelopt, sequences)
    cache = _cache(options)
    report(f"ModelOpt {modelopt} on {gpu.name}: FP8 with static scales{'' if shape.tied else ', lm_head too'}")
    report(
        f"about {as_gib(_building(shape))} of {as_gib(gpu.memory)} on the GPU, and {as_gib(_size(shape))} on the disk"
    )
    if path := _find(cache, key):
        return _result("already exists", path)
    fetch_weights(folder, report)
    report(f"checking {check_weights(folder) / 1e9:.1f} GB of weights")
    if compared := check_digests(folder):
        report(f"{compared} files have the hub's digests")
    with cache.locked(key, lambda: report("another process makes this checkpoint; waiting for it")):
        path = _find(cache, key)
        if path is None:
            _check_disk(cache.folder, shape)
            job = {
                "model": os.fspath(folder.path),
                "sequences": sequences,
                "lm_head": not shape.tied,
                "device": "cuda",
            }
            path = cache.add(key, lambda made: _quantize({**job, "folder": os.fspath(made)}, folder, report))
    return _result("is made", path)


def _result(state: str, path: Path) -> str:
    return f"The checkpoint {state}: {path}\nServe it with: doherty serve --engine vllm --model {path}"


def _modelopt_version() -> str:
    try:
        return version("nvidia-modelopt")
    except PackageNotFoundError as error:
        raise EngineSetupError(
            f"Quantizing needs the package nvidia-modelopt; run `{install_command(_EXTRA)}` beside vLLM."
        ) from error


def _shape(folder: ModelFolder) -> ModelShape:
    shape = ModelShape.read(folder.read_json("config.json"))
    if shape is None:
        raise EngineSetupError(
            f"The config.json of {folder.model} does not describe a dense model like Llama, and others are not "
            "supported here; use ModelOpt's own script (hf_ptq.py)."
        )
    return shape


def _building(shape: ModelShape) -> int:
    """The peak GPU memory in bytes: the unquantized model, calibration and writing."""
    return (shape.linear_parameters + shape.embedding_parameters) * _HALF + _OVERHEAD


def _size(shape: ModelShape) -> int:
    """The maximum size on disk in bytes. Embeddings are not quantized; lm_head may be."""
    return shape.linear_parameters * _EIGHTH + shape.embedding_parameters * _HALF


def _check_gpu(gpu: Gpu, shape: ModelShape) -> None:
    if not gpu.has_fp8:
        raise EngineSetupError(
            f"FP8 needs a GPU of the generation Ada or Hopper, and {gpu.name} is older; use another card, or the "
            "profile slow."
        )
    if gpu.memory < _building(shape):
        raise EngineSetupError(
            f"Quantizing takes about {as_gib(_building(shape))} of GPU memory, and {gpu.name} has "
            f"{as_gib(gpu.memory)}; use a larger card, or a smaller model."
        )


def _check_disk(folder: Path, shape: ModelShape) -> None:
    free = shutil.disk_usage(folder).free
    if free < _size(shape):
        raise EngineSetupError(
            f"The checkpoint takes {as_gib(_size(shape))}, and {folder} has {as_gib(free)} left; make room, or set "
            "checkpoint_cache to another folder."
        )


def _cache(options: Options) -> BuildCache:
    path = options.checkpoint_cache
    folder = expand_user(path) if path else default_cache("checkpoints")
    return BuildCache(folder, what="checkpoint", option="checkpoint_cache")


def _key(folder: ModelFolder, modelopt: str, sequences: list[list[int]]) -> BuildKey:
    revision = weights_identity(folder)
    texts = hashlib.sha256(json.dumps(sequences).encode()).hexdigest()[:12]
    return BuildKey(
        inputs={
            "model": folder.name,
            "revision": revision,
            "modelopt": modelopt,
            "calibration": texts,
            "format": "FP8",
        },
        title=(Path(folder.name).name, "FP8-static", revision[:12]),
    )


def _find(cache: BuildCache, key: BuildKey) -> Path | None:
    try:
        return cache.find(key)
    except EngineSetupError:  # a broken one, which is moved away when it is made again
        return None


def _quantize(job: dict[str, object], folder: ModelFolder, report: Report) -> None:
    """Runs the program that quantizes, and copies the small files of the model into the checkpoint."""
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-P", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("both are pipes")
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        error = _follow(process.stdout, report)
    made = Path(str(job["folder"]))
    if error or process.returncode or not list(made.glob("*.safetensors")):
        reason = error or f"it ended with {process.returncode}"
        raise EngineSetupError(
            f"The checkpoint cannot be made ({reason}); see the output above. No part of it is kept."
        )
    for pattern in _SMALL_FILES:
        for file in folder.path.glob(pattern):
            if not (made / file.name).exists():
                shutil.copy(file, made / file.name)


def _follow(answers: Iterable[str], report: Report) -> str:
    """Reports the progress of the program; returns its error, or an empty string."""
    error = ""
    for line in answers:
        message = json.loads(line)
        error = message.get("error", error)
        if "doing" in message:
            report(message["doing"])
    return error
