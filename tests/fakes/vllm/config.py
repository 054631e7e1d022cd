"""The configuration of an engine, with the fields that matter here."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._version import IS_NEWEST


@dataclass
class StructuredOutputsConfig:
    """The backend that enforces constraints."""

    backend: str = "auto"
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    reasoning_parser: str = ""
    reasoning_parser_plugin: str = ""
    enable_in_reasoning: bool = False

    def __post_init__(self) -> None:
        if self.backend not in {"auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer"}:
            raise ValueError(f"1 validation error for StructuredOutputsConfig\nbackend\n  got {self.backend!r}")


@dataclass
class ModelConfig:
    """The model."""

    model: str
    max_model_len: int
    vocab_size: int
    skip_tokenizer_init: bool
    max_logprobs: int

    def get_vocab_size(self) -> int:
        """Returns the number of rows of its embedding."""
        return self.vocab_size


@dataclass
class SchedulerConfig:
    """The scheduler."""

    max_num_seqs: int
    max_num_batched_tokens: int


@dataclass
class SpeculativeConfig:
    """The configuration of drafts, with the fields that matter here."""

    num_speculative_tokens: int
    model: str | None = None
    method: str | None = None
    revision: str | None = None
    prompt_lookup_max: int | None = None
    prompt_lookup_min: int | None = None
    num_speculative_tokens_per_batch_size: list[list[int]] | None = None
    rejection_sample_method: str = "standard"
    synthetic_acceptance_rates: list[float] | None = None
    target_config: dict[str, Any] | None = None
    """The config.json of the model; only in the fake."""
    draft_config: dict[str, Any] = field(default_factory=dict, init=False)
    """The config.json of the head; only in the fake."""

    def __post_init__(self) -> None:
        if self.num_speculative_tokens < 1 or self.method not in {"ngram", "eagle", "eagle3", "dflash"}:
            raise ValueError("1 validation error for SpeculativeConfig")
        if self.method == "ngram":
            if (self.prompt_lookup_min or 5) > (self.prompt_lookup_max or 5):
                raise ValueError("1 validation error for SpeculativeConfig")
        elif self.model is None:
            raise ValueError("num_speculative_tokens was provided but without speculative model.")
        else:
            self._read_head(Path(self.model))
        for first, last, drafts in self.num_speculative_tokens_per_batch_size or ():
            if not 1 <= first <= last or drafts < 0:
                raise ValueError("Batch-size range start must be <= end")

    def _read_head(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        self.draft_config = {**config.get("transformer_layer_config", {}), **config}
        assert self.target_config is not None
        for name in ("hidden_size", "vocab_size"):
            assert self.draft_config[name] == self.target_config[name], "vLLM would fail while it loads weights"

    @property
    def positions(self) -> int | None:
        """Returns the length of the head's table of positions; None if it is as long as the context."""
        if IS_NEWEST or not self.draft_config:
            return None
        longest: int = self.draft_config["max_position_embeddings"]
        return longest

    if IS_NEWEST:

        @staticmethod
        def _maybe_override_draft_max_position_embeddings(draft_hf_config: Any, target_max_model_len: int) -> None: ...


@dataclass
class VllmConfig:
    """The whole configuration."""

    model_config: ModelConfig
    scheduler_config: SchedulerConfig
    speculative_config: SpeculativeConfig | None
    structured_outputs_config: StructuredOutputsConfig
    lora_config: dict[str, Any] | None
    enable_prefix_caching: bool
    arguments: dict[str, Any]
    """All arguments of the engine, for tests."""

    @property
    def use_v2_model_runner(self) -> bool:
        """Whether the second model runner is used, which supports n-grams only in later versions."""
        return self.speculative_config is None or IS_NEWEST or self.speculative_config.method != "ngram"
