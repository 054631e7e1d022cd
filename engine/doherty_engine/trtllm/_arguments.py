"""Turns the knobs into the arguments of TensorRT-LLM's `LLM`.

Both backends refuse unknown arguments; the PyTorch one raises ValueError for arguments of the other backend
(`llmapi/llm.py` at 1.2). Knobs that are not set are not passed.
"""

from dataclasses import fields
from typing import Any

from doherty_engine.trtllm._knobs import TENSORRT, Knobs
from doherty_engine.trtllm._library import load

_DRAFT_TOKENS = 4
_NGRAM = 3
"""NVIDIA's guide on speculative decoding uses 3 to 5 draft tokens and n-grams of 2 to 4."""

_BUILT_IN = frozenset(
    knob.name
    for knob in fields(Knobs)
    if knob.metadata["backend"] == TENSORRT and knob.name != "gather_generation_logits"
) | {"max_batch_size", "max_num_tokens", "max_seq_len"}


def _same(*names: str) -> dict[str, str]:
    """Knobs that have the same name as their argument."""
    return dict(zip(names, names, strict=True))


_CALIBRATION = _same(
    "calib_dataset", "calib_batches", "calib_batch_size", "calib_max_seq_length", "tokenizer_max_seq_length"
)
_PLUGINS = _same("multiple_profiles", "paged_kv_cache", "low_latency_gemm_swiglu_plugin", "low_latency_gemm_plugin")
_BUILD = _same("max_input_len", "max_num_tokens", "max_batch_size", "max_seq_len", "gather_context_logits")
_KV_CACHE = _same("enable_block_reuse", "free_gpu_memory_fraction", "host_cache_size") | {"kv_cache_dtype": "dtype"}
_CUDA_GRAPHS = {"cuda_graph_max_batch_size": "max_batch_size", "cuda_graph_padding": "enable_padding"}
_BOTH = _same("guided_decoding_backend", "enable_chunked_prefill", "return_perf_metrics")
_ENGINE = _same("gather_generation_logits")
_PYTORCH = _same(
    "max_batch_size",
    "max_num_tokens",
    "max_seq_len",
    "attn_backend",
    "disable_overlap_scheduler",
    "enable_autotuner",
    "stream_interval",
    "num_postprocess_workers",
)


def built_in(knobs: Knobs) -> dict[str, object]:
    """The knobs that are built into an engine of the backend tensorrt. Another value needs another engine."""
    names = _BUILT_IN if knobs.quantization == "FP8" else _BUILT_IN - set(_CALIBRATION)
    return {name: value for name, value in knobs.set_values().items() if name in names}


def llm_arguments(
    knobs: Knobs, tensor_parallel_size: int, adapters: tuple[tuple[str, str], ...] = (), max_lora_rank: int = 64
) -> dict[str, Any]:
    """The keyword arguments except the model.

    Raises:
        EngineSetupError: TensorRT-LLM cannot be imported.
    """
    llmapi = load("tensorrt_llm.llmapi")
    arguments: dict[str, Any] = {"tensor_parallel_size": tensor_parallel_size, **_arguments_of(knobs, _BOTH)}
    if cache := _arguments_of(knobs, _KV_CACHE):
        arguments["kv_cache_config"] = llmapi.KvCacheConfig(**cache)
    if knobs.capacity_scheduler_policy is not None:
        policy = llmapi.CapacitySchedulerPolicy[knobs.capacity_scheduler_policy]
        arguments["scheduler_config"] = llmapi.SchedulerConfig(capacity_scheduler_policy=policy)
    if adapters:
        arguments |= _lora(adapters, max_lora_rank)
    if hasattr(llmapi, "TelemetryConfig"):  # since 1.3, which sends usage reports by default
        arguments["telemetry_config"] = llmapi.TelemetryConfig(disabled=True)
    return arguments | (_tensorrt(knobs, llmapi) if knobs.backend == TENSORRT else _pytorch(knobs, llmapi))


def lookahead_config(knobs: Knobs) -> Any:
    """The lookahead configuration for the constructor and for every request; None without lookahead."""
    if not knobs.lookahead:
        return None
    window, ngram, verification = knobs.lookahead
    return load("tensorrt_llm.llmapi").LookaheadDecodingConfig(
        max_window_size=window, max_ngram_size=ngram, max_verification_set_size=verification
    )


def draft_tokens(knobs: Knobs) -> int:
    """Maximum number of tokens that lookahead drafts per step. The engine reserves room for them in the context.

    The formula is from TensorRT-LLM's guide on lookahead (`max_draft_len`); `LlmRequest::validate` subtracts it from
    the sequence length.
    """
    if not knobs.lookahead:
        return 0
    window, ngram, verification = knobs.lookahead
    return max(0, ngram - 2) + (window - 1 + verification) * (ngram - 1)


def _tensorrt(knobs: Knobs, llmapi: Any) -> dict[str, Any]:
    arguments = _arguments_of(knobs, _ENGINE)
    if knobs.quantization == "FP8":
        arguments["quant_config"] = llmapi.QuantConfig(quant_algo=llmapi.QuantAlgo.FP8)
        arguments["calib_config"] = llmapi.CalibConfig(**_arguments_of(knobs, _CALIBRATION))
    build = _arguments_of(knobs, _BUILD)
    if plugins := _arguments_of(knobs, _PLUGINS):
        build["plugin_config"] = _plugin_config(plugins)
    if knobs.lookahead:
        modes = load("tensorrt_llm.models.modeling_utils").SpeculativeDecodingMode
        build["speculative_decoding_mode"] = modes.LOOKAHEAD_DECODING
        arguments["speculative_config"] = lookahead_config(knobs)
    if build:
        arguments["build_config"] = llmapi.BuildConfig(**build)
    return arguments


def _plugin_config(plugins: dict[str, Any]) -> Any:
    """Makes a PluginConfig by assignment.

    Up to 1.1 it was a dataclass with `from_dict`. Since NVIDIA's pull request 8277 it is a pydantic model without
    `from_dict`, whose constructor ignores unknown names. Assignment works with both, and refuses unknown names.
    """
    config = load("tensorrt_llm.plugin.plugin").PluginConfig()
    for name, value in plugins.items():
        setattr(config, name, None if value == "none" else value)
    return config


def _pytorch(knobs: Knobs, llmapi: Any) -> dict[str, Any]:
    arguments = _arguments_of(knobs, _PYTORCH)
    if graphs := _arguments_of(knobs, _CUDA_GRAPHS):
        arguments["cuda_graph_config"] = llmapi.CudaGraphConfig(**graphs)
    if knobs.speculates:
        arguments["speculative_config"] = _speculation(knobs, llmapi)
    if knobs.speculation in ("ngram", "draft"):
        arguments["disable_overlap_scheduler"] = True  # NVIDIA's guide: two-model speculation does not support it
    return arguments


def _speculation(knobs: Knobs, llmapi: Any) -> Any:
    length = knobs.max_draft_len or _DRAFT_TOKENS
    match knobs.speculation:
        case "ngram":
            return llmapi.NGramDecodingConfig(
                max_draft_len=length,
                max_matching_ngram_size=knobs.max_matching_ngram_size or _NGRAM,
                is_keep_all=True,
                is_use_oldest=True,
                is_public_pool=False,  # a pool shared by all requests would reveal their texts
            )
        case "eagle":
            # If both exist, the first one is only for EAGLE-3, and the other one is deprecated.
            kind = getattr(llmapi, "Eagle3DecodingConfig", None) or llmapi.EagleDecodingConfig
            return kind(max_draft_len=length, speculative_model=knobs.speculative_model, eagle3_one_model=True)
        case "draft":
            return llmapi.DraftTargetDecodingConfig(max_draft_len=length, speculative_model=knobs.speculative_model)
        case _:
            return llmapi.AutoDecodingConfig()


def _lora(adapters: tuple[tuple[str, str], ...], max_lora_rank: int) -> dict[str, Any]:
    """The arguments as in NVIDIA's example with several adapters: the first one determines the adapted modules."""
    config = load("tensorrt_llm.lora_helper").LoraConfig(
        lora_dir=[adapters[0][1]],
        max_lora_rank=max_lora_rank,
        max_loras=len(adapters),
        max_cpu_loras=len(adapters),
    )
    return {"enable_lora": True, "lora_config": config}


def _arguments_of(knobs: Knobs, names: dict[str, str]) -> dict[str, Any]:
    """The arguments among `names` whose knobs are set."""
    return {argument: value for knob, argument in names.items() if (value := getattr(knobs, knob)) is not None}
