"""What an engine runs with, as far as it matters here."""

from dataclasses import dataclass
from typing import Any


@dataclass
class StructuredOutputsConfig:
    """Who follows constraints."""

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
        """The rows of its embedding."""
        return self.vocab_size


@dataclass
class SchedulerConfig:
    """The scheduler."""

    max_num_seqs: int
    max_num_batched_tokens: int


@dataclass
class SpeculativeConfig:
    """What is drafted."""

    method: str
    num_speculative_tokens: int
    prompt_lookup_min: int = 5
    prompt_lookup_max: int = 5

    def __post_init__(self) -> None:
        if self.num_speculative_tokens < 1 or self.prompt_lookup_min > self.prompt_lookup_max:
            raise ValueError("1 validation error for SpeculativeConfig")


@dataclass
class VllmConfig:
    """Everything."""

    model_config: ModelConfig
    scheduler_config: SchedulerConfig
    speculative_config: SpeculativeConfig | None
    structured_outputs_config: StructuredOutputsConfig
    lora_config: dict[str, Any] | None
    enable_prefix_caching: bool
    arguments: dict[str, Any]
    """All that the engine was given, for tests to look at."""
