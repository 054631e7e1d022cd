"""Plans a deployment. What cannot work is refused before anything large is downloaded or built."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path

from doherty_engine._errors import EngineSetupError
from doherty_engine._paths import expand_user
from doherty_engine.models import (
    BuildCache,
    BuildKey,
    Gpu,
    Head,
    ModelShape,
    default_cache,
    visible_gpus,
    weights_identity,
)
from doherty_engine.text import ModelFolder, find_model_folder
from doherty_engine.trtllm._arguments import built_in, draft_tokens
from doherty_engine.trtllm._draft import drafting_knobs, find_head
from doherty_engine.trtllm._knobs import TENSORRT, Knobs
from doherty_engine.trtllm._library import library_version, llm_class
from doherty_engine.trtllm._memory import MemoryEstimate, check_gpus, estimate
from doherty_engine.trtllm._options import REFERENCE_MODEL, REFERENCE_REVISION, Options
from doherty_engine.trtllm._profiles import resolve

_DEFAULT_LORA_RANK = 64
"""LoraConfig's default."""
_LARGEST_BATCH_TOKENS = 8192
"""TensorRT-LLM's default of max_num_tokens."""

Report = Callable[[str], None]
"""Takes a progress message."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model and the GPUs on which to serve it."""

    options: Options
    knobs: Knobs
    version: str
    gpus: list[Gpu]
    folder: ModelFolder
    context: int
    """Maximum number of tokens of prompt and answer together."""
    estimate: MemoryEstimate | None
    """None if the shape of the model is unknown."""
    head: Head | None
    """The draft head, if the deployment names one."""

    @property
    def tensor_parallel_size(self) -> int:
        """The number of GPUs over which each layer is split."""
        return len(self.gpus)

    @property
    def is_built(self) -> bool:
        """Whether the backend needs a built engine."""
        return self.knobs.backend == TENSORRT

    @property
    def is_fp8(self) -> bool:
        """Whether the weights are in FP8: quantized at the build, or before."""
        return self.knobs.quantization == "FP8" or is_quantized(self.folder)

    @property
    def max_lora_rank(self) -> int:
        """Maximum rank of the adapters."""
        return self.options.max_lora_rank or _DEFAULT_LORA_RANK

    @property
    def max_prompt_tokens(self) -> int:
        """Maximum number of tokens of a prompt.

        The runtime limits a prompt to one token less than the sequence, and without chunked prefill also to the batch
        (the log of `TrtGptModel`: "maxInputLen = min(maxSequenceLen - 1, maxNumTokens)"; for the PyTorch backend
        `_check_arguments` of `llmapi/llm.py`).
        """
        if self.knobs.enable_chunked_prefill:
            return self.context - 1
        return min(self.context - 1, self.knobs.max_num_tokens or _LARGEST_BATCH_TOKENS)

    @property
    def cache(self) -> BuildCache:
        """The cache of built engines."""
        path = self.options.engine_cache
        folder = expand_user(path) if path else default_cache("engines")
        return BuildCache(folder, what="engine", option="engine_cache")

    def key(self) -> BuildKey:
        """The cache key of the engine.

        An engine is specific to a model revision, version of TensorRT-LLM, GPU model, tensor-parallel size and
        configuration.
        """
        lora = {"max_lora_rank": self.max_lora_rank, "lora": len(self.options.adapters)}
        configuration = built_in(self.knobs) | (lora if self.options.adapters else {})
        model, revision, gpu, size = (
            self.folder.name,
            weights_identity(self.folder),
            self.gpus[0].name,
            self.tensor_parallel_size,
        )
        return BuildKey(
            inputs={
                "model": model,
                "revision": revision,
                "tensorrt_llm": self.version,
                "gpu": gpu,
                "tensor_parallel_size": size,
                "configuration": json.loads(json.dumps(configuration)),
            },
            title=(Path(model).name, revision[:12], self.version, gpu, f"tp{size}"),
        )


def plan_deployment(options: Options) -> Deployment:
    """Checks the package, the GPUs and the model. Downloads the small files of the model; blocks.

    Raises:
        EngineSetupError: Something is missing or does not fit.
    """
    knobs = knobs_of(options)
    version = library_version()
    llm_class(knobs.backend or "")  # checked now, before the weights are downloaded
    gpus = _take_gpus(visible_gpus(extra="trtllm"), knobs.tensor_parallel_size)
    for name, path in options.adapters:
        if not Path(path).is_dir():
            raise EngineSetupError(f"The adapter {name} has no folder {path}; name an existing folder.")
    revision = options.revision or (REFERENCE_REVISION if options.model == REFERENCE_MODEL else "")
    folder = find_model_folder(options.model, revision, extra="trtllm")
    config = folder.read_json("config.json")
    shape = ModelShape.read(config)
    context = config.get("max_position_embeddings")
    if not isinstance(context, int):
        raise EngineSetupError(
            f"The config.json of {folder.model} does not contain the length of its context; choose a model that "
            "TensorRT-LLM supports."
        )
    is_fp8 = knobs.quantization == "FP8" or is_quantized(folder)
    needed = None if shape is None else estimate(shape, knobs, len(gpus), is_fp8=is_fp8)
    check_gpus(gpus, needed, is_fp8=is_fp8)
    context = min(context, knobs.max_seq_len or context) - draft_tokens(knobs)
    return Deployment(options, knobs, version, gpus, folder, context, needed, find_head(options, folder))


def longest_prompt(options: Options) -> int:
    """Maximum number of tokens of a prompt.

    Raises:
        EngineSetupError: As for `plan_deployment`.
    """
    return plan_deployment(options).max_prompt_tokens


def effective_build(options: Options) -> Mapping[str, object]:
    """The BuildConfig with which the engine was built, as written by TensorRT-LLM; empty if there is no engine.

    Raises:
        EngineSetupError: As for `plan_deployment`, or the engine is broken.
    """
    deployment = plan_deployment(options)
    path = deployment.cache.find(deployment.key()) if deployment.is_built else None
    if path is None:
        return {}
    build: dict[str, object] = json.loads((path / "config.json").read_text(encoding="utf-8"))["build_config"]
    return build


def is_quantized(folder: ModelFolder) -> bool:
    """Whether ModelOpt has quantized the model to FP8, according to its hf_quant_config.json."""
    quantization = folder.read_json("hf_quant_config.json").get("quantization")
    return isinstance(quantization, dict) and str(quantization.get("quant_algo")).startswith("FP8")


def check_calibration(knobs: Knobs) -> None:
    """Checks that the calibration dataset is available.

    Raises:
        EngineSetupError: It is not.
    """
    name = knobs.calib_dataset or "cnn_dailymail"  # CalibConfig's default
    if Path(name).is_dir() or _has_dataset(name):
        return
    try:
        import_module("huggingface_hub").HfApi().dataset_info(name)
    except Exception as error:  # the hub's client does not wrap the exceptions of its HTTP library
        raise EngineSetupError(
            f"The calibration dataset {name} is neither on the hub nor in its cache; connect to the network, or set "
            "calib_dataset to a folder whose split train has a column text."
        ) from error


def _has_dataset(name: str) -> bool:
    """Whether the dataset is in the cache of the library `datasets`."""
    constants = import_module("huggingface_hub.constants")
    cache = Path(constants.HF_HOME) / "datasets"
    return any(cache.glob(f"*{name.rpartition('/')[2]}"))


def knobs_of(options: Options) -> Knobs:
    """The knobs of a deployment, those of its profile included.

    Raises:
        EngineSetupError: They contradict each other.
    """
    own = Knobs(**{knob.name: getattr(options, knob.name) for knob in fields(Knobs)} | drafting_knobs(options))
    return resolve(options.profile, options.profile_file, own)


def _take_gpus(gpus: list[Gpu], wanted: int | None) -> list[Gpu]:
    if size := _mpi_size():
        gpus = list(islice(cycle(gpus), size))
    count = wanted or len(gpus)
    if count > len(gpus):
        raise EngineSetupError(
            f"The tensor_parallel_size is {count}, but there are {len(gpus)} GPUs; set it to at most that number."
        )
    if len({gpu.name for gpu in gpus[:count]}) > 1:
        raise EngineSetupError(
            "The visible GPUs are of different kinds, and each layer would wait for the slowest; select equal ones "
            "with CUDA_VISIBLE_DEVICES."
        )
    return gpus[:count]


def _mpi_size() -> int:
    """The number of workers on all nodes; 0 if TensorRT-LLM starts its own workers on this node.

    `trtllm-llmapi-launch` starts a worker for each GPU of each node, runs the server beside the first worker, and sets
    these variables for it. We cannot query the GPUs of other nodes, and assume that they are like ours.
    """
    if os.environ.get("TLLM_SPAWN_PROXY_PROCESS") != "1":
        return 0
    return int(os.environ.get("tllm_mpi_size", "0"))  # noqa: SIM112 - its name
