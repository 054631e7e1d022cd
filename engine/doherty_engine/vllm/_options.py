"""The options of the engine."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from doherty_engine._options import option, parse_adapters, parse_bool, parse_count, parse_positive, parse_share
from doherty_engine.vllm._profiles import DEFAULT_PROFILE, profiles
from doherty_engine.vllm._schedule import parse_schedule


def _profile(text: str) -> str:
    if text not in profiles():
        raise ValueError(f"it must be one of {', '.join(profiles())}")
    return text


def _object(text: str) -> dict[str, object]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("it must be a JSON object")  # noqa: TRY004  callers expect ValueError for all texts that cannot be parsed
    return value


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the engine. None means the value of the profile, or else vLLM's default."""

    model: str = option("", str, 'The folder of a Hugging Face model, or the id "org/name" of one on the hub.')
    revision: str = option("", str, "The commit, branch or tag of a model on the hub.")
    profile: str = option(
        DEFAULT_PROFILE,
        _profile,
        f"A set of defaults for the other options: {', '.join(profiles())}. The default is {DEFAULT_PROFILE}.",
    )
    slots: int | None = option(None, parse_positive, "Maximum number of concurrent requests; vLLM's max_num_seqs.")
    max_model_len: int | None = option(
        None, parse_positive, "Maximum number of tokens of prompt and answer together. The default is the model's own."
    )
    max_num_batched_tokens: int | None = option(
        None, parse_positive, "Maximum number of tokens per step, of prompts and answers together."
    )
    gpu_memory_utilization: float | None = option(None, parse_share, "The share of the GPU's memory to use, 0 to 1.")
    tensor_parallel_size: int | None = option(None, parse_positive, "The number of GPUs over which the model is split.")
    dtype: str | None = option(None, str, 'The type of weights and activations, such as "bfloat16".')
    quantization: str | None = option(
        None,
        str,
        'The quantization of weights, such as "fp8"; "none" means no quantization. Leave it out for checkpoints that '
        "are already quantized.",
    )
    load_format: str | None = option(None, str, 'The format of the weights; "dummy" means random weights.')
    attention_backend: str | None = option(None, str, 'The attention kernels, such as "FLASH_ATTN".')
    performance_mode: str | None = option(None, str, "balanced, interactivity or throughput.")
    prefix_caching: bool | None = option(
        None, parse_bool, "Whether prompts reuse prefixes that are still in the KV cache."
    )
    draft: str = option(
        "",
        str,
        'A draft head for this model (EAGLE, EAGLE-3 or DFlash): a folder, or the id "org/name" of one on the hub.',
    )
    draft_revision: str = option("", str, "The commit, branch or tag of a head on the hub.")
    draft_tokens: int | None = option(
        None,
        parse_positive,
        "The number of tokens that the head drafts per step. The default is 3 for EAGLE-3, 2 for EAGLE, and the number "
        "for which a DFlash head was trained.",
    )
    draft_schedule: tuple[tuple[int, int], ...] | str | None = option(
        None,
        parse_schedule,
        "The number of draft tokens by the number of streams: auto, or STREAMS:DRAFTS separated by commas. "
        "By default, it is constant.",
    )
    ngram: int | None = option(
        None,
        parse_count,
        "The number of tokens per step that are drafted from n-grams in the prompt and the answer; 0 is off.",
    )
    ngram_window: int | None = option(None, parse_positive, "Maximum length of the n-grams.")
    adapters: tuple[tuple[str, str], ...] = option(
        (), parse_adapters, "LoRA adapters as NAME=PATH, separated by commas; PATH may be an id on the hub."
    )
    checkpoint_cache: str = option(
        "",
        str,
        "The folder for checkpoints made by `doherty engine prepare`. The default is doherty/checkpoints in the user's "
        "cache folder.",
    )
    skip_tokenizer_init: bool | None = option(
        None, parse_bool, "Whether vLLM runs without a tokenizer of its own; then constraints are not supported."
    )
    engine_args: Mapping[str, object] | None = option(
        None, _object, "More fields of vLLM's AsyncEngineArgs, as a JSON object; they override everything else."
    )
