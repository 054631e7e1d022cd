"""Compares the installed TensorRT-LLM with every name, signature and field that this engine uses.

`check_result` checks the attributes that only a live result has. These checks are needed because some constructors,
such as those of BuildConfig and PluginConfig, ignore unknown names.
"""

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from doherty_engine._errors import EngineSetupError
from doherty_engine.trtllm._library import VERSION, load

_CONSTRUCTOR = (
    "model tensor_parallel_size guided_decoding_backend enable_chunked_prefill return_perf_metrics kv_cache_config "
    "scheduler_config enable_lora lora_config speculative_config"
)

_FIELDS = {
    ("tensorrt_llm.llmapi", "TrtLlmArgs"): f"{_CONSTRUCTOR} quant_config calib_config build_config "
    "gather_generation_logits",
    ("tensorrt_llm.llmapi", "TorchLlmArgs"): f"{_CONSTRUCTOR} max_batch_size max_num_tokens max_seq_len "
    "cuda_graph_config attn_backend disable_overlap_scheduler enable_autotuner stream_interval num_postprocess_workers",
    ("tensorrt_llm.llmapi", "BuildConfig"): "plugin_config max_input_len max_num_tokens max_batch_size max_seq_len "
    "gather_context_logits speculative_decoding_mode",
    ("tensorrt_llm.llmapi", "CalibConfig"): "calib_dataset calib_batches calib_batch_size calib_max_seq_length "
    "tokenizer_max_seq_length",
    ("tensorrt_llm.llmapi", "QuantConfig"): "quant_algo",
    ("tensorrt_llm.llmapi", "KvCacheConfig"): "enable_block_reuse free_gpu_memory_fraction host_cache_size dtype",
    ("tensorrt_llm.llmapi", "SchedulerConfig"): "capacity_scheduler_policy",
    ("tensorrt_llm.llmapi", "CudaGraphConfig"): "max_batch_size enable_padding",
    ("tensorrt_llm.llmapi", "LookaheadDecodingConfig"): "max_window_size max_ngram_size max_verification_set_size",
    ("tensorrt_llm.llmapi", "NGramDecodingConfig"): "max_draft_len max_matching_ngram_size is_keep_all is_use_oldest "
    "is_public_pool",
    ("tensorrt_llm.llmapi", "EagleDecodingConfig"): "max_draft_len speculative_model eagle3_one_model",
    ("tensorrt_llm.llmapi", "DraftTargetDecodingConfig"): "max_draft_len speculative_model",
    ("tensorrt_llm.llmapi", "AutoDecodingConfig"): "",
    ("tensorrt_llm.llmapi", "GuidedDecodingParams"): "json regex grammar",
    ("tensorrt_llm.llmapi", "CompletionOutput"): "token_ids logprobs finish_reason request_perf_metrics",
    ("tensorrt_llm", "SamplingParams"): "end_id max_tokens stop_token_ids include_stop_str_in_output ignore_eos "
    "detokenize add_special_tokens return_perf_metrics temperature top_p top_k min_p seed frequency_penalty "
    "presence_penalty repetition_penalty logprobs guided_decoding lookahead_config return_context_logits",
    ("tensorrt_llm.plugin.plugin", "PluginConfig"): "multiple_profiles paged_kv_cache low_latency_gemm_swiglu_plugin "
    "low_latency_gemm_plugin",
    ("tensorrt_llm.lora_helper", "LoraConfig"): "lora_dir max_lora_rank max_loras max_cpu_loras",
    ("tensorrt_llm.executor", "LoRARequest"): "lora_name lora_int_id lora_path",
}
"""The fields or constructor parameters, by module and class."""

_MEMBERS = {
    ("tensorrt_llm", "LLM"): "generate_async shutdown",
    ("tensorrt_llm._tensorrt_engine", "LLM"): "generate_async save shutdown _check_arguments",
    ("tensorrt_llm.llmapi", "QuantAlgo"): "FP8",
    ("tensorrt_llm.llmapi", "CapacitySchedulerPolicy"): "GUARANTEED_NO_EVICT MAX_UTILIZATION STATIC_BATCH",
    ("tensorrt_llm.llmapi", "RequestOutput"): "abort finished __aiter__ __anext__ __await__",
    ("tensorrt_llm.models.modeling_utils", "SpeculativeDecodingMode"): "LOOKAHEAD_DECODING",
    ("tensorrt_llm.executor", "RequestError"): "with_traceback",
    ("xgrammar", "TokenizerInfo"): "_detect_metadata_from_hf",
    ("xgrammar", "Grammar"): "from_json_schema",
    ("xgrammar", "GrammarCompiler"): "compile_regex compile_grammar",
}
"""The required members of classes and enumerations."""

_PARAMETERS = {
    ("tensorrt_llm", "LLM", "generate_async"): "inputs sampling_params lora_request streaming cache_salt",
    (
        "tensorrt_llm._tensorrt_engine",
        "LLM",
        "generate_async",
    ): "inputs sampling_params lora_request streaming cache_salt",
    ("tensorrt_llm._tensorrt_engine", "LLM", "save"): "engine_dir",
}
"""The parameters of methods that this engine passes."""

_LIVE = "outputs finished decoding_iter cached_tokens context_logits"
_LIVE_TIMES = "arrival_time first_scheduled_time first_token_time"
_LIVE_SPECULATION = "total_draft_tokens total_accepted_draft_tokens"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one comparison."""

    name: str
    problem: str = ""
    """Empty if there is none."""


def check_contract() -> list[Finding]:
    """Compares everything except live results. Takes half a minute, because it imports everything.

    Raises:
        EngineSetupError: TensorRT-LLM is not installed.
    """
    version = str(load("tensorrt_llm").__version__)
    problem = "" if version == VERSION else f"it is {version}, and this engine is written for {VERSION}"
    findings = [Finding("the version of TensorRT-LLM", problem)]
    for (module, name), wanted in _FIELDS.items():
        findings += _compare(f"{module}.{name}", module, name, wanted, fields_of)
    for (module, name), wanted in _MEMBERS.items():
        findings += _compare(f"{module}.{name}", module, name, wanted, dir)
    for (module, name, method), wanted in _PARAMETERS.items():
        findings += _compare(
            f"{module}.{name}.{method}", module, name, wanted, lambda member, of=method: _parameters(member, of)
        )
    findings.append(_is_plain_function())
    return findings


def check_result(result: Any) -> list[Finding]:
    """Checks a live result of a request with `return_perf_metrics`."""
    findings = [_has(result, "a result", name) for name in _LIVE.split()]
    metrics = result.outputs[0].request_perf_metrics
    if metrics is None:
        return [*findings, Finding("request_perf_metrics of a result", "there are none, although they were requested")]
    times, speculation = metrics.timing_metrics, metrics.speculative_decoding
    findings += [_has(times, "timing_metrics", name) for name in _LIVE_TIMES.split()]
    return findings + [_has(speculation, "speculative_decoding", name) for name in _LIVE_SPECULATION.split()]


def fields_of(kind: Any) -> set[str]:
    """The fields of a pydantic model or a dataclass, else the parameters of its constructor."""
    for fields in ("model_fields", "__dataclass_fields__"):
        if hasattr(kind, fields):
            return set(getattr(kind, fields))
    return set(inspect.signature(kind).parameters)


def _compare(title: str, module: str, name: str, wanted: str, names_of: Any) -> Iterator[Finding]:
    try:
        names: Iterable[str] = names_of(getattr(load(module), name))
    except (EngineSetupError, AttributeError) as error:
        yield Finding(title, f"it is not there ({error})")
        return
    missing = sorted(set(wanted.split()) - set(names))
    yield Finding(title, f"it has no {', '.join(missing)}" if missing else "")


def _parameters(kind: Any, method: str) -> set[str]:
    return set(inspect.signature(getattr(kind, method)).parameters)


def _is_plain_function() -> Finding:
    title = "generate_async is a plain function"
    try:
        function = load("tensorrt_llm").LLM.generate_async
    except AttributeError as error:
        return Finding(title, str(error))
    return Finding(title, "it is a coroutine" if inspect.iscoroutinefunction(function) else "")


def _has(value: Any, title: str, name: str) -> Finding:
    return Finding(f"{name} of {title}", "" if hasattr(value, name) else "it is not there")
