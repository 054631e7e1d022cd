"""`llmapi/llm.py` at 1.2: the two classes, one for each backend."""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

from _scenario import scenario

from ._arguments import TorchLlmArgs, TrtLlmArgs, read_arguments
from ._configs import BuildConfig, EagleDecodingConfig, LookaheadDecodingConfig, QuantAlgo, SamplingParams
from ._model import Checkpoint
from ._result import RequestOutput
from ._version import VERSION
from ._worker import Worker
from .executor import LoRARequest, RequestError
from .models.modeling_utils import SpeculativeDecodingMode


class _BaseLLM:
    _arguments_class: ClassVar[Any]
    _backend: ClassVar[str]
    _max_seq_len: int
    _worker: Worker | None = None

    def __init__(self, model: str, **kwargs: Any) -> None:
        scenario().write(constructor=self._backend, model=str(model), arguments=_plain(kwargs))
        if not isinstance(model, str | Path):
            raise ValueError(f"Invalid model: {model}")  # noqa: TRY004 - as the real one
        self.args = read_arguments(self._arguments_class, "LLM", self._backend, {"model": str(model), **kwargs})
        cards = int(os.environ.get("tllm_mpi_size", "0")) or len(scenario().cards)  # noqa: SIM112 - its name
        if self.args.tensor_parallel_size > cards:
            raise RuntimeError(f"Only {cards} GPUs are available, but {self.args.tensor_parallel_size} are required.")
        scenario().reach("load")
        self._worker = self._load()
        if scenario().unwell_after_steps:
            self._check_health = self._is_well

    def _load(self) -> Worker:
        raise NotImplementedError

    def _is_well(self) -> bool:
        return self._worker is not None and self._worker.steps < scenario().unwell_after_steps

    def generate_async(
        self,
        inputs: Any,
        sampling_params: SamplingParams | None = None,
        lora_request: LoRARequest | None = None,
        prompt_adapter_request: None = None,
        streaming: bool = False,
        kv_cache_retention_config: None = None,
        disaggregated_params: None = None,
        trace_headers: None = None,
        _postproc_params: None = None,
        scheduling_params: None = None,
        cache_salt: str | None = None,
    ) -> RequestOutput:
        del prompt_adapter_request, kv_cache_retention_config, disaggregated_params, trace_headers, _postproc_params
        del scheduling_params
        if cache_salt is not None and not isinstance(cache_salt, str):
            raise AttributeError("a salt is hashed by its `encode`")
        if self._worker is None:
            raise RuntimeError("LLM is shutting down")
        if self._worker.died is not None:
            raise self._worker.died
        params = SamplingParams() if sampling_params is None else sampling_params
        if not isinstance(params, SamplingParams):
            raise TypeError(f"The sampling_params must be type SamplingParams or None, but got {type(sampling_params)}")
        prompt = self._prompt(inputs)
        scenario().write(
            request=_plain(params), prompt=prompt, lora=lora_request and lora_request.lora_name, streaming=streaming
        )
        if params.end_id is None:
            raise ValueError("this fake has no tokenizer to set end_id from")
        self._check_arguments(len(prompt), 0, params, False)
        _check_types(params)
        self._check_in_worker(prompt, params)
        if lora_request is not None and not (self.args.enable_lora or self.args.lora_config):
            raise RequestError("lora is not enabled")
        if params.guided_decoding is not None and self.args.guided_decoding_backend is None:
            raise RequestError("Request is specified with GuidedDecodingParams, but GuidedDecoder is not setup.")
        return self._worker.submit(prompt, params, lora_request.lora_int_id if lora_request else 0, cache_salt)

    @staticmethod
    def _prompt(inputs: Any) -> list[int]:
        if isinstance(inputs, dict):
            inputs = inputs["prompt_token_ids"]
        if isinstance(inputs, str):
            raise TypeError("text would be templated twice: this fake takes token ids alone")
        if not isinstance(inputs, list) or not inputs or not all(isinstance(token, int) for token in inputs):
            raise TypeError(f"The inputs must be type str or list of int, but got {type(inputs)}")
        return inputs

    def _check_arguments(self, prompt_len: int, query_len: int, params: SamplingParams, is_gen_only: bool) -> None:
        raise NotImplementedError

    def _check_in_worker(self, prompt: list[int], params: SamplingParams) -> None:
        """Checks what the C++ runtime refuses."""

    def shutdown(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.shutdown()


class TorchLLM(_BaseLLM):
    """`tensorrt_llm.LLM`."""

    _arguments_class = TorchLlmArgs
    _backend = "pytorch"

    def _load(self) -> Worker:
        folder = Path(self.args.model)
        checkpoint = Checkpoint.load(folder)
        if not list(folder.glob("*.safetensors")):
            raise FileNotFoundError(f"No weight files found in {folder}.")
        self._max_seq_len = min(self.args.max_seq_len or checkpoint.context, checkpoint.context)
        speculative = self.args.speculative_config
        if isinstance(speculative, EagleDecodingConfig) and Path(str(speculative.speculative_model)).is_dir():
            head = Path(str(speculative.speculative_model))
            if not list(head.glob("*.safetensors")):
                raise FileNotFoundError(f"No weight files found in {head}.")
            if json.loads((head / "config.json").read_text())["max_position_embeddings"] < self._max_seq_len:
                # Not observed, but possible.
                raise RuntimeError("the head's table of positions is shorter than the sequence")
        drafts = 0 if speculative is None else speculative.max_draft_len or 3
        batch = self.args.max_batch_size or 2048
        return Worker(checkpoint, cpp=False, batch=batch, drafts=drafts)

    def _check_arguments(self, prompt_len: int, query_len: int, params: SamplingParams, is_gen_only: bool) -> None:
        most = self.args.max_num_tokens
        if not self.args.enable_chunked_prefill and not is_gen_only and most and prompt_len + query_len > most:
            raise ValueError(
                f"The sum of prompt length ({prompt_len}), query length ({query_len}) should not exceed "
                f"max_num_tokens ({most})"
            )


class EngineLLM(_BaseLLM):
    """`tensorrt_llm._tensorrt_engine.LLM`."""

    _arguments_class = TrtLlmArgs
    _backend = "tensorrt"
    _engine_dir: Path | None = None
    _workspace: tempfile.TemporaryDirectory[str] | None = None

    def shutdown(self) -> None:
        super().shutdown()
        if self._workspace is not None:
            self._workspace.cleanup()

    def _load(self) -> Worker:
        folder = Path(self.args.model)
        if "build_config" not in json.loads((folder / "config.json").read_text()):
            self._workspace = tempfile.TemporaryDirectory(suffix="-llm-workspace")
            folder = self._build(folder, Path(self._workspace.name))
        self._engine_dir = folder
        config = json.loads((folder / "config.json").read_text())
        rank = json.loads((folder / "rank0.engine").read_text())
        if (config["version"], rank["gpu"]) != (VERSION, scenario().cards[0]["name"]):
            raise RuntimeError("The engine plan file is not compatible with this version of TensorRT or this GPU.")
        if config["build_config"]["tensor_parallel_size"] != self.args.tensor_parallel_size:
            raise ValueError("tp_size is not consistent with the engine's tp_size")
        self._built = config["build_config"]
        self._max_seq_len = self._built["max_seq_len"]
        checkpoint = Checkpoint.load(folder, rank["eos_ids"])
        speculative = self.args.speculative_config
        if self._built["lookahead"] != isinstance(speculative, LookaheadDecodingConfig):
            raise RuntimeError("the engine was built for another mode of speculative decoding")
        drafts = speculative.max_ngram_size - 1 if isinstance(speculative, LookaheadDecodingConfig) else 0
        return Worker(
            checkpoint,
            cpp=True,
            batch=self._built["max_batch_size"],
            drafts=drafts,
            loss=scenario().fp8_loss if rank["fp8"] else 0.0,
        )

    def _build(self, model: Path, engine: Path) -> Path:
        build = self.args.build_config or BuildConfig()
        if not list(model.glob("*.safetensors")):
            raise FileNotFoundError(f"No weight files found in {model}.")
        if self.args.quant_config.quant_algo is QuantAlgo.FP8:
            time.sleep(scenario().build_seconds)
            scenario().reach("calibrate")
        time.sleep(scenario().build_seconds)
        scenario().reach("build")
        checkpoint = Checkpoint.load(model)
        is_lookahead = isinstance(self.args.speculative_config, LookaheadDecodingConfig)
        if build.speculative_decoding_mode is SpeculativeDecodingMode.LOOKAHEAD_DECODING and not is_lookahead:
            raise ValueError("LOOKAHEAD_DECODING without a LookaheadDecodingConfig")
        built = {
            **build.model_dump(mode="json"),
            "max_seq_len": build.max_seq_len or checkpoint.context,
            "max_batch_size": build.max_batch_size,
            "max_num_tokens": build.max_num_tokens,
            "gather_context_logits": build.gather_context_logits,
            "tensor_parallel_size": self.args.tensor_parallel_size,
            "lookahead": is_lookahead,
        }
        config = {**checkpoint.model.config, "version": VERSION, "build_config": built}
        (engine / "config.json").write_text(json.dumps(config))
        is_fp8 = self.args.quant_config.quant_algo is QuantAlgo.FP8
        rank = {"gpu": scenario().cards[0]["name"], "eos_ids": checkpoint.model.eos_ids, "fp8": is_fp8}
        (engine / "rank0.engine").write_text(json.dumps(rank))
        for file in model.glob("tokenizer*"):
            shutil.copy(file, engine / file.name)
        return engine

    def save(self, engine_dir: str) -> None:
        if self._engine_dir is None:
            raise RuntimeError("The engine is not built yet.")
        target = Path(engine_dir)
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(self._engine_dir.iterdir()):
            shutil.copy(file, target / file.name)
            scenario().reach("save")

    def _check_arguments(self, prompt_len: int, query_len: int, params: SamplingParams, is_gen_only: bool) -> None:
        assert self._engine_dir is not None
        built = json.loads((self._engine_dir / "config.json").read_text())["build_config"]  # at every request
        if not self.args.enable_chunked_prefill and prompt_len + query_len + params.max_tokens > built["max_seq_len"]:
            raise ValueError(
                f"The sum of prompt length ({prompt_len}) and query length ({query_len}) max_tokens "
                f"({params.max_tokens}) should not exceed max_seq_len ({built['max_seq_len']})"
            )
        if params.logprobs and not self.args.gather_generation_logits:
            raise ValueError(
                f"`sampling_params.logprobs={params.logprobs}` requires `gather_generation_logits=True` to be passed "
                "explicitly to the `LLM()` constructor."
            )

    def _check_in_worker(self, prompt: list[int], params: SamplingParams) -> None:
        if params.return_context_logits and not self._built["gather_context_logits"]:
            raise RequestError("context logits need gather_context_logits=True in the BuildConfig")
        if params.return_context_logits and self.args.kv_cache_config.enable_block_reuse:
            raise RequestError("with reused blocks the logits are those of the suffix alone")
        most = min(self._max_seq_len - 1, self._built["max_num_tokens"])
        if len(prompt) > most:
            raise RequestError(f"Prompt length ({len(prompt)}) exceeds maximum input length ({most}).")
        if len(prompt) + params.max_tokens > self._max_seq_len:
            raise RequestError(f"Prompt and answer ({len(prompt)} + {params.max_tokens}) exceed {self._max_seq_len}.")


def _check_types(params: SamplingParams) -> None:
    """Checks what the bindings refuse: with a TypeError that becomes a RequestError, or with a check in C++."""
    wrong = [
        name
        for name, kind in (("max_tokens", int), ("end_id", int), ("seed", int), ("top_k", int), ("temperature", float))
        if (value := getattr(params, name)) is not None and not isinstance(value, kind)
    ]
    if wrong or params.max_tokens < 1 or not 0 <= (params.seed or 0) < 2**64:
        raise RequestError(f"incompatible constructor arguments: {wrong or params}")
    if params.top_p == 0 or params.repetition_penalty == 0:
        raise RequestError("Incorrect sampling config")


def _plain(value: Any) -> Any:
    """Returns configurations as JSON, with the names of their classes."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if hasattr(value, "model_dump"):
        return {"": type(value).__name__, **{name: _plain(getattr(value, name)) for name in value.model_fields_set}}
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return getattr(value, "name", value)
