"""`plugin/plugin.py` at 1.2: a pydantic model without the former `from_dict`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class PluginConfig(BaseModel):
    """Of its forty fields, those that our code sets, and one that it does not."""

    model_config = ConfigDict(validate_assignment=True, extra="forbid")  # "ignore" in the real class's constructor

    dtype: str = "float16"
    gemm_plugin: Literal["auto", "float16", "float32", "bfloat16", "int32", "fp8", "nvfp4"] | None = None
    low_latency_gemm_plugin: Literal["fp8"] | None = None
    low_latency_gemm_swiglu_plugin: Literal["fp8"] | None = None
    paged_kv_cache: bool | None = None
    multiple_profiles: bool = False
    tokens_per_block: int = 32
    use_paged_context_fmha: bool = True
    lora_plugin: str | None = None
