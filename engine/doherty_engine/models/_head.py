"""A draft head: which method it is for, and whether it fits the model that it drafts for.

All of it is in the two config.json. vLLM itself would find out after minutes, with a message that names a tensor, or
during a request. What vLLM reads of a head: models/llama_eagle.py, llama_eagle3.py and qwen3_dflash.py, and
transformers_utils/configs/speculators for heads in the format of the library speculators.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from doherty_engine._errors import EngineSetupError
from doherty_engine.text import ModelFolder

EAGLE, EAGLE3, DFLASH = METHODS = ("eagle", "eagle3", "dflash")
_DEFAULT_TOKENS = {EAGLE: 2, EAGLE3: 3}
_CACHE_ONLY_ROPES = frozenset({"default", "linear", "llama3", "ntk", "proportional"})
"""With these, `max_position_embeddings` says how long the table of a head's rotary embedding is, and nothing else; so
it may be raised (`_CACHE_ONLY_ROPE_TYPES` of vLLM 0.33)."""


@dataclass(frozen=True, slots=True)
class Head:
    """A head that fits its model."""

    folder: ModelFolder
    method: str
    """One of METHODS."""
    draft_tokens: int
    """How many tokens it drafts a step, unless the deployment says otherwise."""
    most_draft_tokens: int | None
    """None where it can draft any number."""
    positions: int | None
    """Up to which position it can draft; None where its config.json does not say."""
    is_stretchable: bool
    """Whether `positions` may be raised without changing what it drafts."""


def read_head(folder: ModelFolder, model: ModelFolder) -> Head:
    """Reads a head's config.json, and compares it with that of the model.

    Raises:
        EngineSetupError: it is no head, or is made for another model.
    """
    config = folder.read_json("config.json")
    layers = config.get("transformer_layer_config", config)  # where the library speculators keeps these
    method = _method(folder, config)
    _check_fit(folder, {**layers, **config}, _text_config(model.read_json("config.json")), model.name)
    block = config.get("block_size", layers.get("block_size"))
    if method == DFLASH and not isinstance(block, int):
        raise EngineSetupError(f"The head {folder.model} has no block_size in its config.json; choose another one.")
    return Head(
        folder=folder,
        method=method,
        draft_tokens=block - 1 if method == DFLASH else _DEFAULT_TOKENS[method],
        most_draft_tokens=block - 1 if method == DFLASH else None,
        positions=layers.get("max_position_embeddings"),
        is_stretchable=_rope_types(layers) <= _CACHE_ONLY_ROPES,
    )


def context_of(model: ModelFolder, max_model_len: object) -> int | None:
    """How many tokens the model's requests may have; None where its config.json does not say."""
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
        # An EAGLE head says that it is a Llama; no Llama has a single layer.
        if any(name.startswith("eagle") for name in names) or config.get("num_hidden_layers") == 1:
            return EAGLE
    raise EngineSetupError(
        f"{folder.model} is no head of EAGLE, EAGLE-3 or DFlash by its config.json; name another one with `draft`."
    )


def _check_fit(folder: ModelFolder, head: Mapping[str, Any], model: Mapping[str, Any], name: str) -> None:
    comparisons = (
        ("hidden size", head.get("target_hidden_size") or head.get("hidden_size"), model.get("hidden_size")),
        ("vocabulary", head.get("vocab_size"), model.get("vocab_size")),
    )
    for what, theirs, ours in comparisons:
        if theirs is not None and ours is not None and theirs != ours:
            raise EngineSetupError(
                f"The head {folder.model} does not fit {name}: its {what} is {theirs}, the model's is {ours}; name a "
                "head that was trained for this model."
            )


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part on the language model, of one that sees pictures too."""
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def _rope_types(config: Mapping[str, Any]) -> set[str]:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {str(rope.get("rope_type") or rope.get("type") or "default")}
