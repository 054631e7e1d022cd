"""The outputs of an engine."""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from doherty_engine._errors import EngineError


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The log probability of a token, and of the most probable tokens at its position."""

    token_id: int
    token: bytes
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


@dataclass(slots=True)
class Started:
    """What is known once the input is tokenized, before the engine computes anything."""

    prompt_tokens: int
    preprocess: float
    """Seconds of rendering the template and tokenizing."""
    queue: float = 0.0
    """Seconds that the request waited within the engine for room in the KV cache."""


class FinishReason(Enum):
    """The reason why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    TIME_LIMIT = "time_limit"
    ABORTED = "aborted"
    """`RequestHandle.abort` was called. Never sent to a caller."""


@dataclass(frozen=True, slots=True)
class Speculation:
    """Counts of speculative decoding for one answer."""

    steps: int
    draft_tokens: int
    accepted_tokens: int


@dataclass(slots=True)
class Finish:
    """How an answer ended."""

    reason: FinishReason
    stop_text: str | None = None
    """With FinishReason.STOP: the stop text that was found, if any."""
    stop_token_id: int | None = None
    """With FinishReason.STOP: the end-of-sequence or stop token that was generated, if any."""
    output_tokens: int = 0
    """Tokens of the whole answer: all generated ones and those of the prefix."""
    cached_tokens: int | None = None
    speculation: Speculation | None = None
    engine_time_to_first_token: float | None = None
    """Seconds, if the engine measures it itself; for the log."""


class StepOutput(NamedTuple):
    """The output of one step for one request. It is a tuple because one is made for every token.

    Every submitted request gets exactly one last output, with `finish` or `error`, also after an abort; then its slot
    is free. `started` comes with the first output that contains anything, or alone before it.
    """

    key: str
    text: str = ""
    """The new text since the last output; whole code points only."""
    token_count: int = 0
    """The number of generated tokens of which `text` consists."""
    token_ids: tuple[int, ...] | None = None
    """The ids of these tokens; None if they were not requested or are not exactly known."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    """One entry per token; None if they were not requested or are not known for every token."""
    started: Started | None = None
    finish: Finish | None = None
    error: EngineError | None = None

    @property
    def is_last(self) -> bool:
        """Whether the request has ended and its slot is free."""
        return self.finish is not None or self.error is not None
