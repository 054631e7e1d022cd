"""`tensorrt_llm.llmapi` at 1.2."""

from ._arguments import TorchLlmArgs, TrtLlmArgs
from ._configs import (
    AutoDecodingConfig,
    BuildConfig,
    CalibConfig,
    CapacitySchedulerPolicy,
    CudaGraphConfig,
    DraftTargetDecodingConfig,
    EagleDecodingConfig,
    GuidedDecodingParams,
    KvCacheConfig,
    LookaheadDecodingConfig,
    NGramDecodingConfig,
    QuantAlgo,
    QuantConfig,
    SamplingParams,
    SchedulerConfig,
)
from ._result import CompletionOutput, RequestOutput

__all__ = [
    "AutoDecodingConfig",
    "BuildConfig",
    "CalibConfig",
    "CapacitySchedulerPolicy",
    "CompletionOutput",
    "CudaGraphConfig",
    "DraftTargetDecodingConfig",
    "EagleDecodingConfig",
    "GuidedDecodingParams",
    "KvCacheConfig",
    "LookaheadDecodingConfig",
    "NGramDecodingConfig",
    "QuantAlgo",
    "QuantConfig",
    "RequestOutput",
    "SamplingParams",
    "SchedulerConfig",
    "TorchLlmArgs",
    "TrtLlmArgs",
]
