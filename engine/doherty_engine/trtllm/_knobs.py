"""What a profile says, and a deployment may say otherwise: one field for each knob of TensorRT-LLM that we turn.

A knob that nobody turns is not passed on, so that TensorRT-LLM's own default holds. Every name is that of the
argument or field of tensorrt-llm 1.2.1 that it ends in, but where its description says otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TypeVar

from doherty_engine._options import parse_bool, parse_count, parse_positive, parse_share

T = TypeVar("T")

TENSORRT, PYTORCH = "tensorrt", "pytorch"


def _knob(parse: Callable[[str], T], description: str, *, backend: str = "") -> T | None:
    """A knob; with `backend`, only that one has it."""
    about = f"{description} (Backend {backend} only.)" if backend else description
    value: T | None = field(default=None, metadata={"parse": parse, "description": about, "backend": backend})
    return value


def _temperature(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 2:  # noqa: PLR2004 - as the contract has it
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
    """The knobs, each None where it is not set."""

    backend: str | None = _knob(
        _one_of(TENSORRT, PYTORCH), "Which of TensorRT-LLM's two runs the model: tensorrt (built engines) or pytorch."
    )
    slots: int | None = _knob(parse_positive, "How many requests are handed to TensorRT-LLM at the same time.")
    temperature: float | None = _knob(_temperature, "The temperature of requests that say nothing of it.")
    top_p: float | None = _knob(parse_share, "The top_p of requests that say nothing of it.")
    tensor_parallel_size: int | None = _knob(
        parse_positive, "Over how many GPUs each layer is spread. The default is all that are visible."
    )

    # Both backends.
    max_batch_size: int | None = _knob(parse_positive, "The largest batch; on the backend tensorrt it is built in.")
    max_num_tokens: int | None = _knob(parse_positive, "The most tokens of a batch, prompts' included.")
    max_seq_len: int | None = _knob(parse_positive, "The most tokens of one request, prompt and answer together.")
    guided_decoding_backend: str | None = _knob(
        _one_of("xgrammar"), "What makes answers fit a constraint; without it there are no constraints."
    )
    enable_block_reuse: bool | None = _knob(
        parse_bool, "Whether the KV cache of a prompt's beginning is reused (KvCacheConfig)."
    )
    free_gpu_memory_fraction: float | None = _knob(
        parse_share, "The share of the memory left free that the KV cache takes (KvCacheConfig)."
    )
    host_cache_size: int | None = _knob(parse_count, "Bytes of the host's memory for evicted KV cache (KvCacheConfig).")
    enable_chunked_prefill: bool | None = _knob(parse_bool, "Whether long prompts are read in parts.")
    return_perf_metrics: bool | None = _knob(
        parse_bool, "Whether TensorRT-LLM measures every request. Each request asks for it anyway."
    )
    capacity_scheduler_policy: str | None = _knob(
        _one_of("GUARANTEED_NO_EVICT", "MAX_UTILIZATION", "STATIC_BATCH"), "Who may run (SchedulerConfig)."
    )

    # What is built into an engine.
    quantization: str | None = _knob(
        _one_of("FP8", "none"), "How the weights are quantized at the build (QuantConfig.quant_algo).", backend=TENSORRT
    )
    calib_dataset: str | None = _knob(
        str, "The texts to calibrate with: a dataset on the hub, or a folder (CalibConfig).", backend=TENSORRT
    )
    calib_batches: int | None = _knob(parse_positive, "How many batches of them (CalibConfig).", backend=TENSORRT)
    calib_batch_size: int | None = _knob(parse_positive, "How many in a batch (CalibConfig).", backend=TENSORRT)
    calib_max_seq_length: int | None = _knob(parse_positive, "The most tokens of each (CalibConfig).", backend=TENSORRT)
    tokenizer_max_seq_length: int | None = _knob(
        parse_positive, "The most tokens that the tokenizer makes for it (CalibConfig).", backend=TENSORRT
    )
    multiple_profiles: bool | None = _knob(
        parse_bool, "Several optimization profiles in one engine (PluginConfig).", backend=TENSORRT
    )
    paged_kv_cache: bool | None = _knob(parse_bool, "A KV cache of blocks (PluginConfig).", backend=TENSORRT)
    low_latency_gemm_swiglu_plugin: str | None = _knob(
        _one_of("fp8", "none"), "GEMM and SwiGLU in one kernel for small batches (PluginConfig).", backend=TENSORRT
    )
    low_latency_gemm_plugin: str | None = _knob(
        _one_of("fp8", "none"), "GEMM for small batches (PluginConfig).", backend=TENSORRT
    )
    lookahead: tuple[int, ...] | None = _knob(
        _lookahead,
        "Lookahead decoding: window, n-gram and verification set, as 8,6,8, or none (LookaheadDecodingConfig). "
        "It is always greedy.",
        backend=TENSORRT,
    )
    max_input_len: int | None = _knob(parse_positive, "The most tokens of a prompt (BuildConfig).", backend=TENSORRT)
    gather_context_logits: bool | None = _knob(
        parse_bool, "Logits of the prompt's tokens, for measurements (BuildConfig).", backend=TENSORRT
    )
    gather_generation_logits: bool | None = _knob(
        parse_bool, "Logits of the generated tokens, which log probabilities are made from.", backend=TENSORRT
    )

    # The PyTorch backend's own.
    cuda_graph_max_batch_size: int | None = _knob(
        parse_positive, "The largest batch that CUDA graphs are captured for (CudaGraphConfig).", backend=PYTORCH
    )
    cuda_graph_padding: bool | None = _knob(
        parse_bool, "Whether smaller batches are padded to a captured one (CudaGraphConfig).", backend=PYTORCH
    )
    kv_cache_dtype: str | None = _knob(_one_of("auto", "fp8"), "How the KV cache is kept.", backend=PYTORCH)
    attn_backend: str | None = _knob(_one_of("TRTLLM", "FLASHINFER"), "The attention kernels.", backend=PYTORCH)
    disable_overlap_scheduler: bool | None = _knob(
        parse_bool, "Whether the next step waits for the last one's tokens.", backend=PYTORCH
    )
    enable_autotuner: bool | None = _knob(parse_bool, "Whether kernels are tuned at the start.", backend=PYTORCH)
    stream_interval: int | None = _knob(parse_positive, "Steps between two outputs of a request.", backend=PYTORCH)
    num_postprocess_workers: int | None = _knob(
        parse_count, "Processes that postprocess; we need none.", backend=PYTORCH
    )
    speculation: str | None = _knob(
        _one_of("none", "ngram", "eagle", "draft", "auto"),
        "Speculative decoding, which is greedy: ngram, eagle (EAGLE-3), draft (a smaller model) or auto.",
        backend=PYTORCH,
    )
    max_draft_len: int | None = _knob(parse_positive, "The most tokens drafted a step.", backend=PYTORCH)
    max_matching_ngram_size: int | None = _knob(
        parse_positive, "The longest n-gram looked for, with ngram.", backend=PYTORCH
    )
    speculative_model: str | None = _knob(
        str, "The EAGLE-3 head or the draft model: a folder or hub id.", backend=PYTORCH
    )

    @property
    def is_greedy_only(self) -> bool:
        """Whether every answer is that of temperature 0, whatever is asked for.

        Lookahead takes the most probable token (`LookaheadDecodingLayer::forwardAsync` samples with maxTopK = 1, and
        `DecodingMode::Lookahead` has no penalties). The other kinds verify greedily at 1.2.1 (its guide on
        speculative decoding).
        """
        return bool(self.lookahead) or self.speculates

    @property
    def speculates(self) -> bool:
        """Whether the PyTorch backend drafts."""
        return self.speculation not in (None, "none")

    def set_values(self) -> dict[str, object]:
        """The knobs that are set, in their order."""
        return {knob.name: value for knob in fields(Knobs) if (value := getattr(self, knob.name)) is not None}
