"""`llmapi/llm_args.py` at 1.2: the arguments that each of the two classes accepts, and those that it refuses."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ._configs import (
    AutoDecodingConfig,
    BuildConfig,
    CalibConfig,
    CudaGraphConfig,
    DraftTargetDecodingConfig,
    EagleDecodingConfig,
    KvCacheConfig,
    LookaheadDecodingConfig,
    NGramDecodingConfig,
    QuantConfig,
    SchedulerConfig,
)
from ._version import IS_NEWEST
from .lora_helper import LoraConfig

Speculative = (
    LookaheadDecodingConfig | NGramDecodingConfig | EagleDecodingConfig | DraftTargetDecodingConfig | AutoDecodingConfig
)


class _BaseArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    model: str
    tokenizer: Any = None
    tokenizer_mode: Literal["auto", "slow"] = "auto"
    skip_tokenizer_init: bool = False
    trust_remote_code: bool = False
    tensor_parallel_size: int = 1
    dtype: str = "auto"
    revision: str | None = None
    tokenizer_revision: str | None = None
    pipeline_parallel_size: int = 1
    enable_lora: bool = False
    lora_config: LoraConfig | None = None
    kv_cache_config: KvCacheConfig = Field(default_factory=KvCacheConfig)
    enable_chunked_prefill: bool = False
    guided_decoding_backend: Literal["xgrammar", "llguidance"] | None = None
    scheduler_config: SchedulerConfig = Field(default_factory=SchedulerConfig)
    speculative_config: Speculative | None = None
    max_batch_size: int | None = None
    max_input_len: int | None = None
    max_seq_len: int | None = None
    max_beam_width: int | None = None
    max_num_tokens: int | None = 8192
    gather_generation_logits: bool = False
    num_postprocess_workers: int = 0
    return_perf_metrics: bool = False


class TrtLlmArgs(_BaseArgs):
    """The arguments of the TensorRT backend."""

    enable_tqdm: bool = False
    workspace: str | None = None
    enable_build_cache: bool = False
    calib_config: CalibConfig = Field(default_factory=CalibConfig)
    quant_config: QuantConfig = Field(default_factory=QuantConfig)
    fast_build: bool = False
    build_config: BuildConfig | None = None
    normalize_log_probs: bool = False


class TorchLlmArgs(_BaseArgs):
    """The arguments of the PyTorch backend."""

    cuda_graph_config: CudaGraphConfig | None = Field(default_factory=CudaGraphConfig)
    disable_overlap_scheduler: bool = False
    attn_backend: str = "TRTLLM"
    sampler_type: str = "auto"
    enable_iter_perf_stats: bool = False
    print_iter_log: bool = False
    torch_compile_config: Any = None
    enable_autotuner: bool = True
    stream_interval: int = 1
    load_format: str = "AUTO"
    if IS_NEWEST:
        telemetry_config: Any = None


def read_arguments(kind: type[_BaseArgs], class_name: str, backend: str, values: dict[str, Any]) -> Any:
    """Reads arguments as `BaseLLM.__init__` does."""
    if kind is TorchLlmArgs:
        foreign = [name for name in values if name in TrtLlmArgs.model_fields and name not in kind.model_fields]
        if foreign:
            raise ValueError(
                "The following arguments are specific to TensorRT backend and cannot be used with PyTorch backend: "
                f"{foreign}.\nPlease use 'from tensorrt_llm._tensorrt_engine import LLM' instead to use the TensorRT "
                "backend."
            )
    for name in values:
        if name not in kind.model_fields:
            raise ValueError(f"{class_name} got invalid argument: {name}")
    arguments = kind(**values)
    speculative = arguments.speculative_config
    if speculative is not None and backend not in speculative.backends:
        raise ValueError(f"Speculation type {type(speculative).__name__} does not support backend {backend}")
    if isinstance(speculative, NGramDecodingConfig | DraftTargetDecodingConfig) and not getattr(
        arguments, "disable_overlap_scheduler", True
    ):
        raise ValueError("two-model speculation needs disable_overlap_scheduler")
    return arguments
