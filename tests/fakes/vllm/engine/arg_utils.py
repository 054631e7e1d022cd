"""The arguments of an engine."""

import json
from pathlib import Path
from typing import Any

from .._version import IS_NEWEST
from ..config import ModelConfig, SchedulerConfig, SpeculativeConfig, StructuredOutputsConfig, VllmConfig
from ..usage.usage_lib import UsageContext

_NAMES = """
    model enable_return_routed_experts model_weights served_model_name tokenizer hf_config_path runner convert
    skip_tokenizer_init enable_prompt_embeds tokenizer_mode trust_remote_code allowed_local_media_path
    allowed_media_domains download_dir safetensors_load_strategy safetensors_prefetch_num_threads
    safetensors_prefetch_block_size load_format config_format dtype kv_cache_dtype seed max_model_len
    cudagraph_capture_sizes max_cudagraph_capture_size ir_op_priority distributed_executor_backend
    pipeline_parallel_size master_addr master_port nnodes node_rank distributed_timeout_seconds
    cpu_distributed_timeout_seconds numa_bind numa_bind_nodes numa_bind_cpus device_ids tensor_parallel_size
    prefill_context_parallel_size decode_context_parallel_size dcp_comm_backend dcp_kv_cache_interleave_size
    cp_kv_cache_interleave_size data_parallel_size data_parallel_rank data_parallel_start_rank
    data_parallel_size_local data_parallel_address data_parallel_rpc_port data_parallel_hybrid_lb
    data_parallel_external_lb data_parallel_multi_port_external_lb data_parallel_backend enable_expert_parallel
    enable_ep_weight_filter moe_backend linear_backend all2all_backend enable_elastic_ep enable_dbo ubatch_size
    dbo_decode_token_threshold dbo_prefill_token_threshold disable_nccl_for_dp_synchronization eplb_config
    enable_eplb expert_placement_strategy _api_process_count _api_process_rank max_parallel_loading_workers
    block_size enable_prefix_caching prefix_caching_hash_algo disable_sliding_window disable_cascade_attn
    offload_backend cpu_offload_gb cpu_offload_params offload_group_size offload_num_in_group offload_prefetch_step
    offload_params gpu_memory_utilization kv_cache_memory_bytes max_num_batched_tokens max_num_scheduled_tokens
    long_prefill_token_threshold max_num_seqs max_logprobs
    logprobs_mode use_fp64_gumbel disable_log_stats aggregate_engine_logging revision code_revision hf_token
    hf_overrides model_class_overrides tokenizer_revision quantization quantization_config
    allow_deprecated_quantization enforce_eager disable_custom_all_reduce language_model_only limit_mm_per_prompt
    enable_mm_embeds interleave_mm_strings media_io_kwargs mm_processor_kwargs mm_processor_cache_gb
    mm_processor_cache_type mm_shm_cache_max_object_size_mb mm_encoder_only mm_encoder_tp_mode
    mm_encoder_attn_backend mm_encoder_attn_dtype mm_encoder_fp8_scale_path mm_encoder_fp8_scale_save_path
    mm_encoder_fp8_scale_save_margin io_processor_plugin renderer_num_workers skip_mm_profiling video_pruning_rate
    mm_tensor_ipc mm_ipc_gpu_memory_gb enable_lora max_loras max_lora_rank default_mm_loras fully_sharded_loras
    max_cpu_loras lora_dtype lora_target_modules enable_tower_connector_lora specialize_active_lora
    enable_mixed_moe_lora_format enable_moe_shared_loras ray_workers_use_nsight num_gpu_blocks_override
    model_loader_extra_config ignore_patterns enable_chunked_prefill disable_chunked_mm_input
    scheduler_reserve_full_isl prefill_schedule_interval watermark disable_hybrid_kv_cache_manager
    structured_outputs_config reasoning_parser reasoning_parser_plugin speculative_config spec_method spec_model
    spec_tokens diffusion_config show_hidden_metrics_for_version otlp_traces_endpoint collect_detailed_traces
    kv_cache_metrics kv_cache_metrics_sample cudagraph_metrics enable_layerwise_nvtx_tracing enable_mfu_metrics
    enable_logging_iteration_details jit_monitor_mode jit_monitor_verbose enable_mm_processor_stats
    scheduling_policy scheduler_cls pooler_config compilation_config attention_config mamba_config kernel_config
    enable_flashinfer_autotune worker_cls worker_extension_cls profiler_config
    kv_transfer_config kv_events_config ec_transfer_config reasoning_config generation_config enable_sleep_mode
    enable_cumem_allocator override_generation_config model_impl attention_backend
    kv_cache_dtype_skip_layers mamba_cache_dtype mamba_ssm_cache_dtype mamba_block_size
    prefix_match_unit mamba_cache_mode mamba_backend enable_mamba_cache_stochastic_rounding
    mamba_cache_philox_rounds additional_config use_tqdm_on_load pt_load_map_location logits_processors
    async_scheduling stream_interval kv_sharing_fast_prefill optimization_level performance_mode kv_offloading_size
    kv_offloading_backend tokens_only shutdown_timeout weight_transfer_config fail_on_environ_validation
    gdn_prefill_backend enable_log_requests
"""
FIELDS = frozenset(_NAMES.split())
"""The fields that AsyncEngineArgs has both in vLLM 0.26 and in 0.33."""

_KINDS: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "revision": str,
    "max_model_len": int,
    "max_num_seqs": int,
    "max_num_batched_tokens": int,
    "gpu_memory_utilization": float,
    "tensor_parallel_size": int,
    "skip_tokenizer_init": bool,
    "enable_prefix_caching": bool,
    "disable_log_stats": bool,
    "enable_lora": bool,
    "max_loras": int,
    "max_lora_rank": int,
    "speculative_config": dict,
    "structured_outputs_config": StructuredOutputsConfig,
}
_VALUES: dict[str, set[object]] = {
    "dtype": {"auto", "half", "float16", "bfloat16", "float", "float32"},
    "quantization": {"fp8", "awq", "gptq", "compressed-tensors", "modelopt", "bitsandbytes"},
    "load_format": {"auto", "hf", "dummy", "safetensors", "pt"},
    "performance_mode": {"balanced", "interactivity", "throughput"},
    "attention_backend": {"FLASH_ATTN", "FLASHINFER", "TRITON_ATTN"},
    "max_lora_rank": {1, 8, 16, 32, 64, 128, 256, 320, 512},
}


class AsyncEngineArgs:
    """Accepts the fields of vLLM's class, and checks them when it creates a configuration."""

    if IS_NEWEST:
        per_request_spec_decode_metrics = "none"

    def __init__(self, **arguments: Any) -> None:
        for name in arguments:
            if name not in FIELDS and not hasattr(self, name):
                raise TypeError(f"AsyncEngineArgs.__init__() got an unexpected keyword argument {name!r}")
        self.arguments = arguments

    def create_engine_config(self, usage_context: UsageContext | None = None) -> VllmConfig:
        """Checks the arguments, and reads the model's configuration."""
        given = self.arguments
        self._check()
        path = Path(given["model"]) / "config.json"
        if not path.is_file():
            raise OSError(f"Can't load the configuration of {given['model']!r}.")
        model = json.loads(path.read_text())
        if "quantization_config" in model and given.get("quantization"):
            raise ValueError(
                "1 validation error for VllmConfig\n  Value error, Quantization method specified in the model config "
                "does not match the quantization method specified in the `quantization` argument."
            )
        longest: int = model["max_position_embeddings"]
        if given.get("max_model_len", 0) > longest:
            raise ValueError(
                f"1 validation error for ModelConfig\n  Value error, User-specified max_model_len "
                f"({given['max_model_len']}) is greater than the derived max_model_len ({longest}).\n  For further help"
            )
        if given.get("per_request_spec_decode_metrics", "none") != "none" and not given.get("speculative_config"):
            raise ValueError("--per-request-spec-decode-metrics requires speculative decoding to be enabled")
        slots = 256 if usage_context is UsageContext.OPENAI_API_SERVER else 128
        drafts = given.get("speculative_config")
        return VllmConfig(
            model_config=ModelConfig(
                model=given["model"],
                max_model_len=given.get("max_model_len", longest),
                vocab_size=model["vocab_size"],
                skip_tokenizer_init=given.get("skip_tokenizer_init", False),
                max_logprobs=given.get("max_logprobs", 20),
            ),
            scheduler_config=SchedulerConfig(
                given.get("max_num_seqs", slots), given.get("max_num_batched_tokens", 2048)
            ),
            speculative_config=None if drafts is None else SpeculativeConfig(**drafts, target_config=model),
            structured_outputs_config=given.get("structured_outputs_config", StructuredOutputsConfig()),
            lora_config={"max_loras": given.get("max_loras", 1)} if given.get("enable_lora") else None,
            enable_prefix_caching=given.get("enable_prefix_caching", True),
            arguments=given,
        )

    def _check(self) -> None:
        for name, kind in _KINDS.items():
            value = self.arguments.get(name)
            if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
                raise ValueError(f"1 validation error for VllmConfig\n{name}\n  Input should be a valid {kind}")
        for name, values in _VALUES.items():
            value = self.arguments.get(name)
            if value is not None and value not in values:
                raise ValueError(f"1 validation error for VllmConfig\n{name}\n  Input should be one of {values}")
