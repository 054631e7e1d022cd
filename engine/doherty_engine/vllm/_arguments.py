"""Turns options into the arguments of vLLM's engine."""

from collections.abc import Iterable, Mapping

from doherty_engine._errors import EngineSetupError
from doherty_engine.text import ModelFolder, find_model_folder
from doherty_engine.vllm._library import EXTRA, Library
from doherty_engine.vllm._options import Options
from doherty_engine.vllm._profiles import profiles
from doherty_engine.vllm._speculation import speculative_config

_SAME_NAME = (
    "max_model_len",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "tensor_parallel_size",
    "dtype",
    "quantization",
    "load_format",
    "attention_backend",
    "performance_mode",
    "skip_tokenizer_init",
)
"""The options that have the same name in vLLM."""
_OTHER_NAME = {"slots": "max_num_seqs", "prefix_caching": "enable_prefix_caching"}
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM's LoRAConfig accepts as max_lora_rank."""
_VLLM_GRAPH_TOKENS = 512
"""The maximum number of tokens of vLLM's CUDA graphs by default (`_set_cudagraph_sizes`)."""
_GRAPH_ARGUMENTS = ("compilation_config", "cudagraph_capture_sizes", "max_cudagraph_capture_size")
"""The arguments with which a deployment chooses the CUDA graphs itself."""
_DRAFTS = ("draft_schedule", "ngram", "ngram_window")


def settings(options: Options, folder: ModelFolder) -> dict[str, object]:
    """The values of the profile, overridden by the options that are set."""
    values = profiles()[options.profile]
    if "quantization_config" in folder.read_json("config.json"):
        values.pop("quantization", None)  # the checkpoint is already quantized
    for name in (*_SAME_NAME, *_OTHER_NAME, *_DRAFTS):
        value = getattr(options, name)
        if value is not None:
            values[name] = value
    if values.get("quantization") == "none":
        del values["quantization"]
    return values


def engine_arguments(options: Options, folder: ModelFolder, library: Library) -> dict[str, object]:
    """The keyword arguments of AsyncEngineArgs.

    Raises:
        EngineSetupError: An adapter or a head cannot be loaded, or the head does not fit the model.
    """
    values = settings(options, folder)
    arguments: dict[str, object] = {name: values[name] for name in _SAME_NAME if name in values}
    arguments |= {argument: values[option] for option, argument in _OTHER_NAME.items() if option in values}
    if folder.revision:  # on the hub: vLLM downloads the weights of the same commit itself
        arguments |= {"model": folder.model, "revision": folder.revision}
    else:
        arguments["model"] = str(folder.path)
    arguments["structured_outputs_config"] = library.StructuredOutputsConfig(backend="guidance")
    arguments["disable_log_stats"] = True  # only vLLM's own loggers; ours (`stat_loggers`) still gets the statistics
    if options.adapters:
        arguments |= _lora_arguments(path for _, path in options.adapters)
    arguments |= options.engine_args or {}
    config = speculative_config(options, values, folder, library)
    if config is not None:
        arguments["speculative_config"] = config
        arguments |= _graph_arguments(config, arguments)
        if library.counts_request_drafts:
            arguments.setdefault("per_request_spec_decode_metrics", "summary")
    return arguments


def _graph_arguments(drafts: Mapping[str, object], arguments: Mapping[str, object]) -> dict[str, object]:
    """Makes vLLM capture CUDA graphs for all tokens that the slots draft and verify in a step.

    By default vLLM captures graphs of at most 512 tokens; beyond that it launches kernels one by one. With 64 streams
    and nine draft tokens, throughput was 0.96 of that without drafts, and 1.13 of it with larger graphs
    (benchmarks/gpu/NOTES.md).
    """
    slots, draft_tokens = arguments.get("max_num_seqs"), drafts.get("num_speculative_tokens")
    if not isinstance(slots, int) or not isinstance(draft_tokens, int):
        return {}
    tokens = slots * (draft_tokens + 1)
    if tokens <= _VLLM_GRAPH_TOKENS or any(name in arguments for name in _GRAPH_ARGUMENTS):
        return {}
    return {"max_cudagraph_capture_size": tokens}


def _lora_arguments(paths: Iterable[str]) -> dict[str, object]:
    ranks = [_rank(path) for path in paths]
    max_lora_rank = next((rank for rank in _RANKS if rank >= max(ranks)), None)
    if max_lora_rank is None:
        raise EngineSetupError(f"An adapter has rank {max(ranks)}, and vLLM takes at most {_RANKS[-1]}; leave it out.")
    return {"enable_lora": True, "max_loras": len(ranks), "max_lora_rank": max_lora_rank}


def _rank(path: str) -> int:
    rank = find_model_folder(path, extra=EXTRA).read_json("adapter_config.json").get("r")
    if not isinstance(rank, int):
        raise EngineSetupError(f"{path} has no adapter_config.json with a rank; name the folder of a LoRA adapter.")
    return rank
