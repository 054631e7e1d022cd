"""The dimensions of a Llama-like model from its config.json, and the number of its parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GIB = 1 << 30
_HALF = 2
"""Bytes per number in bfloat16."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The dimensions of a Llama-like model."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    context: int
    tied: bool
    """Whether the input embeddings and the lm_head share their weights."""

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "ModelShape | None":
        """Reads a parsed config.json; returns None if it lacks a dimension, as for a model that is not like Llama."""
        try:
            heads = int(config["num_attention_heads"])
            return cls(
                vocabulary=int(config["vocab_size"]),
                hidden=int(config["hidden_size"]),
                layers=int(config["num_hidden_layers"]),
                heads=heads,
                kv_heads=int(config.get("num_key_value_heads") or heads),
                head_size=int(config.get("head_dim") or config["hidden_size"] // heads),
                intermediate=int(config["intermediate_size"]),
                context=int(config["max_position_embeddings"]),
                tied=bool(config.get("tie_word_embeddings")),
            )
        except (KeyError, TypeError):
            return None

    @property
    def linear_parameters(self) -> int:
        """The number of parameters in the linear layers, which are quantized."""
        attention = self.hidden * self.head_size * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def embedding_parameters(self) -> int:
        """The number of parameters in embeddings and norms, which stay in half precision."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + (2 * self.layers + 1) * self.hidden

    @property
    def kv_bytes_per_token(self) -> int:
        """The size of the KV cache per token in half precision, in bytes."""
        return 2 * self.layers * self.kv_heads * self.head_size * _HALF


def as_gib(size: int) -> str:
    """Formats a number of bytes in GiB."""
    return f"{size / GIB:.1f} GiB"
