"""The parameters that determine how tokens are chosen and when an answer ends."""

import copy
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class RequestOutputKind(Enum):
    """The contents of an output."""

    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass
class StructuredOutputsParams:
    """The constraint of an answer; exactly one field is set."""

    json: str | dict[str, Any] | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    whitespace_pattern: str | None = None
    structural_tag: str | None = None
    _backend: str | None = field(default=None, init=False)
    _backend_was_auto: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        forms = (self.json, self.regex, self.choice, self.grammar, self.json_object, self.structural_tag)
        if sum(form is not None for form in forms) != 1:
            raise ValueError("You must use exactly one kind of structured outputs constraint")
        if self.grammar is not None and not isinstance(self.grammar, str):
            raise ValueError("1 validation error for StructuredOutputsParams: grammar must be a string")


@dataclass
class SamplingParams:
    """The fields of vLLM's class, in the same order."""

    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logprob_token_ids: list[int] | None = None
    flat_logprobs: bool = False
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    skip_clone: bool = False
    output_text_buffer_length: int = 0
    _eos_token_id: int | None = None
    _all_stop_token_ids: set[int] = field(default_factory=set)
    structured_outputs: StructuredOutputsParams | None = None
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    extra_args: dict[str, Any] | None = None
    routed_experts_prompt_start: int = 0
    bad_words: list[str] | None = None
    _bad_words_token_ids: list[list[int]] | None = None
    skip_reading_prefix_cache: bool | None = None
    thinking_token_budget: int | None = None
    repetition_detection: Any = None

    def __post_init__(self) -> None:
        self.stop = self.stop or []
        self.stop_token_ids = self.stop_token_ids or []
        self._verify_args()
        if self.temperature < 1e-5:
            self.top_p, self.top_k, self.min_p = 1.0, 0, 0.0
        self._all_stop_token_ids.update(self.stop_token_ids)

    def _verify_args(self) -> None:
        wrong = {
            "presence_penalty": not -2.0 <= self.presence_penalty <= 2.0,
            "frequency_penalty": not -2.0 <= self.frequency_penalty <= 2.0,
            "repetition_penalty": self.repetition_penalty <= 0.0,
            "temperature": not 0.0 <= self.temperature <= 2.0,
            "top_p": not 0.0 < self.top_p <= 1.0,
            "top_k": self.top_k < -1,
            "min_p": not 0.0 <= self.min_p <= 1.0,
            "max_tokens": self.max_tokens is not None and self.max_tokens < 1,
            "min_tokens": self.min_tokens < 0 or (self.max_tokens is not None and self.min_tokens > self.max_tokens),
            "logprobs": self.logprobs is not None and self.logprobs < -1,
        }
        for name, is_wrong in wrong.items():
            if is_wrong:
                raise ValueError(f"{name} is out of range, got {getattr(self, name)}.")
        if not isinstance(self.top_k, int):
            raise TypeError(f"top_k must be an integer, got {type(self.top_k).__name__}")
        assert isinstance(self.stop_token_ids, list)
        if not all(isinstance(token_id, int) for token_id in self.stop_token_ids):
            raise ValueError(f"stop_token_ids must contain only integers, got {self.stop_token_ids}.")
        if self.stop and not self.detokenize:
            raise ValueError("stop strings are only supported when detokenize is True.")

    def clone(self) -> "SamplingParams":
        """Returns a copy, which is shallow if only the request refers to the object."""
        return copy.copy(self) if self.skip_clone else copy.deepcopy(self)
