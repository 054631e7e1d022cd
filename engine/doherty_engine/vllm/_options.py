"""What a deployment may set."""

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
        raise ValueError("it must be a JSON object")  # noqa: TRY004  as for every other text that cannot be read
    return value


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of the engine; what is None is left to the profile, and then to vLLM."""

    model: str = option("", str, 'The folder of a Hugging Face model, or one on the hub as "org/name".')
    revision: str = option("", str, "The commit, branch or tag of a model on the hub.")
    profile: str = option(
        DEFAULT_PROFILE,
        _profile,
        f"What is set unless an option says otherwise: {', '.join(profiles())}. The default is {DEFAULT_PROFILE}.",
    )
    slots: int | None = option(None, parse_positive, "How many requests run at the same time; vLLM's max_num_seqs.")
    max_model_len: int | None = option(
        None, parse_positive, "How many tokens prompt and answer have together. The default is the model's own."
    )
    max_num_batched_tokens: int | None = option(
        None, parse_positive, "How many tokens a step computes at most, those of prompts and of answers together."
    )
    gpu_memory_utilization: float | None = option(None, parse_share, "The share of the GPU's memory to use, 0 to 1.")
    tensor_parallel_size: int | None = option(None, parse_positive, "Over how many GPUs the model is spread.")
    dtype: str | None = option(None, str, 'The type of weights and activations, as "bfloat16".')
    quantization: str | None = option(
        None,
        str,
        'How weights are quantized, as "fp8"; "none" leaves them as they are. A checkpoint that is quantized already '
        "needs nothing said.",
    )
    load_format: str | None = option(None, str, 'Where weights come from; "dummy" takes random ones.')
    attention_backend: str | None = option(None, str, 'The attention kernels, as "FLASH_ATTN".')
    performance_mode: str | None = option(None, str, "balanced, interactivity or throughput.")
    prefix_caching: bool | None = option(
        None, parse_bool, "Whether the beginning of a prompt is reused where the KV cache still holds it."
    )
    draft: str = option(
        "", str, 'The draft head of EAGLE, EAGLE-3 or DFlash for this model: a folder, or one on the hub as "org/name".'
    )
    draft_revision: str = option("", str, "The commit, branch or tag of a head on the hub.")
    draft_tokens: int | None = option(
        None,
        parse_positive,
        "How many tokens the head drafts a step. The default is 3 for EAGLE-3, 2 for EAGLE, and what a head of DFlash "
        "was trained for.",
    )
    draft_schedule: tuple[tuple[int, int], ...] | str | None = option(
        None,
        parse_schedule,
        "Fewer drafts the more streams: auto, or STREAMS:DRAFTS with commas between. The default is always the same.",
    )
    ngram: int | None = option(
        None,
        parse_count,
        "How many tokens a step are drafted from what the prompt and the answer have said before; 0 is off.",
    )
    ngram_window: int | None = option(None, parse_positive, "How many tokens must be alike for that, at most.")
    adapters: tuple[tuple[str, str], ...] = option(
        (), parse_adapters, "LoRA adapters as NAME=PATH, separated by commas; PATH may be an id on the hub."
    )
    checkpoint_cache: str = option(
        "",
        str,
        "The folder of checkpoints that `doherty engine prepare` makes. The default is doherty/checkpoints in the "
        "user's cache folder.",
    )
    skip_tokenizer_init: bool | None = option(
        None, parse_bool, "Whether vLLM itself does without a tokenizer; then there are no constraints."
    )
    engine_args: Mapping[str, object] | None = option(
        None, _object, "Further fields of vLLM's AsyncEngineArgs, as a JSON object; they beat everything else."
    )
