"""Reads a draft head's method, and checks that the head fits the model.

The two config.json files contain everything that is needed. vLLM itself would fail after minutes, with the name of a
tensor, or during a request. What vLLM reads from a head is in its models/llama_eagle.py, llama_eagle3.py and
qwen3_dflash.py, and in transformers_utils/configs/speculators for heads in the format of the library speculators.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from doherty_engine._errors import EngineSetupError
from doherty_engine.text import ModelFolder

EAGLE, EAGLE3, DFLASH = METHODS = ("eagle", "eagle3", "dflash")
_DEFAULT_TOKENS = {EAGLE: 2, EAGLE3: 3}
_CACHE_ONLY_ROPES = frozenset({"default", "linear", "llama3", "ntk", "proportional"})
"""With these types of RoPE, `max_position_embeddings` only sets the length of the rotary embedding's table, so it may
be increased (`_CACHE_ONLY_ROPE_TYPES` in vLLM 0.33)."""


@dataclass(frozen=True, slots=True)
class Head:
    """A draft head that fits its model."""

    folder: ModelFolder
    method: str
    """One of METHODS."""
    draft_tokens: int
    """The default number of tokens that it drafts per step."""
    max_draft_tokens: int | None
    """The maximum number of tokens per step; None if it can draft any number."""
    positions: int | None
    """The number of positions at which it can draft; None if its config.json does not say."""
    can_extend_positions: bool
    """Whether `positions` may be increased without changing what it drafts."""


def read_head(folder: ModelFolder, model: ModelFolder) -> Head:
    """Reads a head's config.json, and compares it with that of the model.

    Raises:
        EngineSetupError: It is not a draft head, or was trained for another model.
    """
    config = folder.read_json("config.json")
    layers = config.get("transformer_layer_config", config)  # the format of the library speculators
    method = _method(folder, config)
    _check_fit(folder, {**layers, **config}, _text_config(model.read_json("config.json")), model.name)
    block = config.get("block_size", layers.get("block_size"))
    if method == DFLASH and not isinstance(block, int):
        raise EngineSetupError(f"The head {folder.model} has no block_size in its config.json; choose another one.")
    return Head(
        folder=folder,
        method=method,
        draft_tokens=block - 1 if method == DFLASH else _DEFAULT_TOKENS[method],
        max_draft_tokens=block - 1 if method == DFLASH else None,
        positions=layers.get("max_position_embeddings"),
        can_extend_positions=_rope_types(layers) <= _CACHE_ONLY_ROPES,
    )


def context_length(model: ModelFolder, max_model_len: object) -> int | None:
    """The context length of the model in tokens: `max_model_len` if set, else from its config.json if that has it."""
    if isinstance(max_model_len, int):
        return max_model_len
    context = _text_config(model.read_json("config.json")).get("max_position_embeddings")
    return context if isinstance(context, int) else None


def _method(folder: ModelFolder, config: Mapping[str, Any]) -> str:
    method = config.get("speculators_model_type")
    if method is not None:
        if method in METHODS:
            return str(method)
    else:
        names = [str(name).lower() for name in config.get("architectures") or ()]
        if "dflash_config" in config or any("dflash" in name for name in names):
            return DFLASH
        if "draft_vocab_size" in config or any("eagle3" in name for name in names):
            return EAGLE3
        # The config.json of an EAGLE head says that it is a Llama, but no Llama model has a single layer.
        if any(name.startswith("eagle") for name in names) or config.get("num_hidden_layers") == 1:
            return EAGLE
    raise EngineSetupError(
        f"{folder.model} is not an EAGLE, EAGLE-3 or DFlash head according to its config.json; set `draft` to another "
        "one."
    )


def _check_fit(folder: ModelFolder, head: Mapping[str, Any], model: Mapping[str, Any], name: str) -> None:
    comparisons = (
        ("hidden size", head.get("target_hidden_size") or head.get("hidden_size"), model.get("hidden_size")),
        ("vocabulary", head.get("vocab_size"), model.get("vocab_size")),
    )
    for what, theirs, ours in comparisons:
        if theirs is not None and ours is not None and theirs != ours:
            raise EngineSetupError(
                f"The head {folder.model} does not fit {name}: its {what} is {theirs}, the model's is {ours}; choose a "
                "head that was trained for this model."
            )


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of the language model, which is a part of config.json in multimodal models."""
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def _rope_types(config: Mapping[str, Any]) -> set[str]:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {str(rope.get("rope_type") or rope.get("type") or "default")}
