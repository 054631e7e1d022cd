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
"""The options that vLLM calls as we do."""
_OTHER_NAME = {"slots": "max_num_seqs", "prefix_caching": "enable_prefix_caching"}
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's LoRAConfig takes as max_lora_rank."""
_VLLM_GRAPH_TOKENS = 512
"""Of how many tokens vLLM's largest CUDA graph is by default, at the most (`_set_cudagraph_sizes`)."""
_GRAPH_ARGUMENTS = ("compilation_config", "cudagraph_capture_sizes", "max_cudagraph_capture_size")
"""The arguments by which a deployment says itself which graphs are captured."""
_DRAFTS = ("draft_schedule", "ngram", "ngram_window")


def settings(options: Options, folder: ModelFolder) -> dict[str, object]:
    """The options that are set, by the profile or beyond it."""
    values = profiles()[options.profile]
    if "quantization_config" in folder.read_json("config.json"):
        values.pop("quantization", None)  # the checkpoint is quantized already, and says how
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
        EngineSetupError: an adapter or a head cannot be had, or the head does not fit the model.
    """
    values = settings(options, folder)
    arguments: dict[str, object] = {name: values[name] for name in _SAME_NAME if name in values}
    arguments |= {theirs: values[ours] for ours, theirs in _OTHER_NAME.items() if ours in values}
    if folder.revision:  # on the hub, where vLLM gets the weights itself, of the same commit
        arguments |= {"model": folder.model, "revision": folder.revision}
    else:
        arguments["model"] = str(folder.path)
    arguments["structured_outputs_config"] = library.StructuredOutputsConfig(backend="guidance")
    arguments["disable_log_stats"] = True  # its loggers; ours, which is handed over apart, still gets the figures
    if options.adapters:
        arguments |= _lora_arguments(path for _, path in options.adapters)
    arguments |= options.engine_args or {}
    config = speculative_config(options, values, folder, library)
    if config is not None:
        arguments["speculative_config"] = config
        arguments |= _graph_arguments(config, arguments)
        if library.has_request_draft_figures:
            arguments.setdefault("per_request_spec_decode_metrics", "summary")
    return arguments


def _graph_arguments(drafts: Mapping[str, object], arguments: Mapping[str, object]) -> dict[str, object]:
    """Has vLLM capture CUDA graphs for as many tokens as all slots draft and verify in a step.

    vLLM itself captures none of more than 512 tokens, and beyond that launches kernels one by one: 64 streams with nine
    drafts got 0.96 of the tokens a second without drafts, and 1.13 with larger graphs (benchmarks/gpu/NOTES.md).
    """
    slots, each = arguments.get("max_num_seqs"), drafts.get("num_speculative_tokens")
    if not isinstance(slots, int) or not isinstance(each, int) or slots * (each + 1) <= _VLLM_GRAPH_TOKENS:
        return {}
    if any(name in arguments for name in _GRAPH_ARGUMENTS):
        return {}
    return {"max_cudagraph_capture_size": slots * (each + 1)}


def _lora_arguments(paths: Iterable[str]) -> dict[str, object]:
    ranks = [_rank(path) for path in paths]
    fitting = [rank for rank in _RANKS if rank >= max(ranks)]
    if not fitting:
        raise EngineSetupError(f"An adapter has rank {max(ranks)}, and vLLM takes at most {_RANKS[-1]}; leave it out.")
    return {"enable_lora": True, "max_loras": len(ranks), "max_lora_rank": fitting[0]}


def _rank(path: str) -> int:
    rank = find_model_folder(path, extra=EXTRA).read_json("adapter_config.json").get("r")
    if not isinstance(rank, int):
        raise EngineSetupError(
            f"{path} has no adapter_config.json that tells a rank; name the folder of a LoRA adapter."
        )
    return rank
