"""The knobs: settings of TensorRT-LLM that a profile sets and a deployment may override.

A knob that is not set is not passed, so that TensorRT-LLM's default applies. Unless its description says otherwise, a
knob has the name of its argument or field in tensorrt-llm 1.2.1.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TypeVar

from doherty_engine._options import parse_bool, parse_count, parse_positive, parse_share

T = TypeVar("T")

TENSORRT, PYTORCH = "tensorrt", "pytorch"


def _knob(parse: Callable[[str], T], description: str, *, backend: str = "") -> T | None:
    """Declares a knob. With `backend`, only that backend has it."""
    about = f"{description} (Backend {backend} only.)" if backend else description
    value: T | None = field(default=None, metadata={"parse": parse, "description": about, "backend": backend})
    return value


def _temperature(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 2:  # noqa: PLR2004 - as in the contract
        raise ValueError("it must be 0 to 2")
    return number


def _one_of(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"it must be one of {', '.join(names)}")
        return text

    return parse


def _lookahead(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    window, ngram, verification = map(parse_positive, text.split(","))
    return window, ngram, verification


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """The knobs. None means that the knob is not set."""

    backend: str | None = _knob(
        _one_of(TENSORRT, PYTORCH), "TensorRT-LLM's backend: tensorrt (built engines) or pytorch."
    )
    slots: int | None = _knob(parse_positive, "Maximum number of concurrent requests.")
    temperature: float | None = _knob(_temperature, "The temperature of requests that do not set it.")
    top_p: float | None = _knob(parse_share, "The top_p of requests that do not set it.")
    tensor_parallel_size: int | None = _knob(
        parse_positive, "The number of GPUs over which each layer is split. The default is all visible ones."
    )

    # Both backends.
    max_batch_size: int | None = _knob(
        parse_positive, "Maximum batch size; built into engines of the backend tensorrt."
    )
    max_num_tokens: int | None = _knob(parse_positive, "Maximum number of tokens of a batch, including prompts.")
    max_seq_len: int | None = _knob(parse_positive, "Maximum number of tokens of prompt and answer together.")
    guided_decoding_backend: str | None = _knob(
        _one_of("xgrammar"), "The library for constraints; without it, constraints are not supported."
    )
    enable_block_reuse: bool | None = _knob(
        parse_bool, "Whether prompts reuse prefixes in the KV cache (KvCacheConfig)."
    )
    free_gpu_memory_fraction: float | None = _knob(
        parse_share, "The share of free GPU memory for the KV cache (KvCacheConfig)."
    )
    host_cache_size: int | None = _knob(parse_count, "Bytes of host memory for evicted KV cache (KvCacheConfig).")
    enable_chunked_prefill: bool | None = _knob(parse_bool, "Whether long prompts are split into chunks.")
    return_perf_metrics: bool | None = _knob(
        parse_bool, "Whether TensorRT-LLM measures every request. Doherty requests it in any case."
    )
    capacity_scheduler_policy: str | None = _knob(
        _one_of("GUARANTEED_NO_EVICT", "MAX_UTILIZATION", "STATIC_BATCH"),
        "The policy for starting requests (SchedulerConfig).",
    )

    # Built into an engine.
    quantization: str | None = _knob(
        _one_of("FP8", "none"), "The quantization at the build (QuantConfig.quant_algo).", backend=TENSORRT
    )
    calib_dataset: str | None = _knob(
        str, "The calibration dataset: a dataset on the hub, or a folder (CalibConfig).", backend=TENSORRT
    )
    calib_batches: int | None = _knob(
        parse_positive, "The number of calibration batches (CalibConfig).", backend=TENSORRT
    )
    calib_batch_size: int | None = _knob(parse_positive, "Texts per calibration batch (CalibConfig).", backend=TENSORRT)
    calib_max_seq_length: int | None = _knob(
        parse_positive, "Maximum number of tokens per calibration text (CalibConfig).", backend=TENSORRT
    )
    tokenizer_max_seq_length: int | None = _knob(
        parse_positive, "Maximum number of tokens from the tokenizer for calibration (CalibConfig).", backend=TENSORRT
    )
    multiple_profiles: bool | None = _knob(
        parse_bool, "Several optimization profiles in one engine (PluginConfig).", backend=TENSORRT
    )
    paged_kv_cache: bool | None = _knob(parse_bool, "A paged KV cache (PluginConfig).", backend=TENSORRT)
    low_latency_gemm_swiglu_plugin: str | None = _knob(
        _one_of("fp8", "none"), "GEMM and SwiGLU in one kernel for small batches (PluginConfig).", backend=TENSORRT
    )
    low_latency_gemm_plugin: str | None = _knob(
        _one_of("fp8", "none"), "GEMM for small batches (PluginConfig).", backend=TENSORRT
    )
    lookahead: tuple[int, ...] | None = _knob(
        _lookahead,
        "Lookahead decoding: sizes of window, n-gram and verification set, such as 8,6,8, or none "
        "(LookaheadDecodingConfig). It is always greedy.",
        backend=TENSORRT,
    )
    max_input_len: int | None = _knob(
        parse_positive, "Maximum number of tokens of a prompt (BuildConfig).", backend=TENSORRT
    )
    gather_context_logits: bool | None = _knob(
        parse_bool, "Returns the logits of prompts, for measurements (BuildConfig).", backend=TENSORRT
    )
    gather_generation_logits: bool | None = _knob(
        parse_bool, "Returns the logits of generated tokens, which log probabilities need.", backend=TENSORRT
    )

    # The PyTorch backend.
    cuda_graph_max_batch_size: int | None = _knob(
        parse_positive, "Maximum batch size for which CUDA graphs are captured (CudaGraphConfig).", backend=PYTORCH
    )
    cuda_graph_padding: bool | None = _knob(
        parse_bool, "Whether smaller batches are padded to a captured one (CudaGraphConfig).", backend=PYTORCH
    )
    kv_cache_dtype: str | None = _knob(_one_of("auto", "fp8"), "The type of the KV cache.", backend=PYTORCH)
    attn_backend: str | None = _knob(_one_of("TRTLLM", "FLASHINFER"), "The attention kernels.", backend=PYTORCH)
    disable_overlap_scheduler: bool | None = _knob(
        parse_bool, "Whether the next step waits for the last one's tokens.", backend=PYTORCH
    )
    enable_autotuner: bool | None = _knob(parse_bool, "Whether kernels are tuned at the start.", backend=PYTORCH)
    stream_interval: int | None = _knob(parse_positive, "Steps between two outputs of a request.", backend=PYTORCH)
    num_postprocess_workers: int | None = _knob(
        parse_count, "Processes for postprocessing; Doherty needs none.", backend=PYTORCH
    )
    speculation: str | None = _knob(
        _one_of("none", "ngram", "eagle", "draft", "auto"),
        "Speculative decoding, which is greedy: ngram, eagle (EAGLE-3), draft (a smaller model) or auto.",
        backend=PYTORCH,
    )
    max_draft_len: int | None = _knob(parse_positive, "Maximum number of draft tokens per step.", backend=PYTORCH)
    max_matching_ngram_size: int | None = _knob(
        parse_positive, "Maximum length of n-grams, with ngram.", backend=PYTORCH
    )
    speculative_model: str | None = _knob(
        str, "The EAGLE-3 head or the draft model: a folder or hub id.", backend=PYTORCH
    )

    @property
    def is_greedy_only(self) -> bool:
        """Whether all answers are greedy.

        Lookahead takes the most probable token (`LookaheadDecodingLayer::forwardAsync` samples with maxTopK = 1, and
        `DecodingMode::Lookahead` has no penalties). The other kinds verify greedily at 1.2.1 (NVIDIA's guide on
        speculative decoding).
        """
        return bool(self.lookahead) or self.speculates

    @property
    def speculates(self) -> bool:
        """Whether the PyTorch backend uses speculative decoding."""
        return self.speculation not in (None, "none")

    def set_values(self) -> dict[str, object]:
        """The knobs that are set, in the order of their declaration."""
        return {knob.name: value for knob in fields(Knobs) if (value := getattr(self, knob.name)) is not None}
