"""What an engine gives back, step by step."""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from doherty_engine._errors import EngineError


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The log probability of one token, and of the most probable tokens at its place."""

    token_id: int
    token: bytes
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """What is known once the engine has read the input, before it computes anything."""

    prompt_tokens: int
    preprocess: float
    """Seconds of templating and tokenizing."""
    queue: float = 0.0
    """Seconds that the engine itself made the request wait, for room in the KV cache."""


class FinishReason(Enum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    TIME_LIMIT = "time_limit"
    ABORTED = "aborted"
    """`RequestHandle.abort` was called. Never sent to a caller."""


@dataclass(frozen=True, slots=True)
class Speculation:
    """What speculative decoding contributed to one answer."""

    steps: int
    draft_tokens: int
    accepted_tokens: int


@dataclass(frozen=True, slots=True)
class Finish:
    """How an answer ended."""

    reason: FinishReason
    stop_text: str | None = None
    """The stop text that was found, with FinishReason.STOP."""
    stop_token_id: int | None = None
    """The end-of-sequence or stop token that was generated, with FinishReason.STOP."""
    output_tokens: int = 0
    """Of the whole answer: all generated tokens and those of the prefix."""
    cached_tokens: int | None = None
    speculation: Speculation | None = None
    engine_time_to_first_token: float | None = None
    """Seconds as the engine itself measured them, where it does; for the log."""


class StepOutput(NamedTuple):
    """What one step produced for one request; a tuple, for one is made for every token.

    Every submitted request gets exactly one last output, with `finish` or with `error`, also after an abort: from
    then on its slot is free. `started` comes with the first output that carries anything, or alone before it.
    """

    key: str
    text: str = ""
    """New since the last output, whole code points only."""
    token_count: int = 0
    """How many generated tokens `text` stands for."""
    token_ids: tuple[int, ...] | None = None
    """Their ids, `token_count` of them; None where they were not asked for or are not exactly known."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    """One entry a token; None where they were not asked for or are not known for every token."""
    started: Started | None = None
    finish: Finish | None = None
    error: EngineError | None = None

    @property
    def is_last(self) -> bool:
        """Whether the request is over and its slot free."""
        return self.finish is not None or self.error is not None
