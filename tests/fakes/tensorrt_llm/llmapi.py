"""`tensorrt_llm.llmapi` at 1.2, and at 1.4 without the names of the TensorRT backend."""

from . import _configs
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
from ._version import IS_NEWEST

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

if IS_NEWEST:
    for _name in ("BuildConfig", "CalibConfig", "LookaheadDecodingConfig", "TrtLlmArgs"):
        del globals()[_name]
    for _name in ("Eagle3DecodingConfig", "TelemetryConfig"):
        globals()[_name] = getattr(_configs, _name)
